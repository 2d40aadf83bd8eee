"""Test what the recorded experiments measure: intervals over seeds, steps to a loss, negative sums, scalar stacks."""

import math
import statistics

import numpy as np
import pytest
from helpers import normal, randomise

from minires import Tensor, analysis, gradcheck, models, no_grad
from minires.analysis.seeds import QUANTILES, quantile


def rng(seed=0):
    return np.random.default_rng(seed)


# ------------------------------------------------------------------------------------------------- seeds


def student(t, freedom):
    """Return the probability that Student's t is below t: one half, and the integral of its density from 0."""
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    x = np.linspace(0, t, 20_001)
    return 0.5 + float(np.trapezoid(scale * (1 + x * x / freedom) ** (-(freedom + 1) / 2), x))


@pytest.mark.parametrize("freedom", [*range(1, 41), 60, 120, 1000])
def test_a_quantile_leaves_two_and_a_half_percent_above_it(freedom):
    assert student(quantile(freedom), freedom) == pytest.approx(0.975, abs=2e-5)


def test_the_expansion_meets_the_table():
    assert len(QUANTILES) == 30 and 0 < QUANTILES[-1] - quantile(31) < 0.004
    with pytest.raises(ValueError, match="expected 1 degree of freedom or more, got 0"):
        quantile(0)


def test_an_interval_by_hand():
    found = analysis.interval([1.0, 2.0, 6.0])
    half = 4.3027 * statistics.stdev([1, 2, 6]) / math.sqrt(3)
    assert found == pytest.approx((3, 3 - half, 3 + half, 3))
    assert str(analysis.interval([1.0, 2.0])) == "1.50 (-4.85 to 7.85, 2 seeds)"
    alone = analysis.interval([4.0])
    assert (alone.mean, alone.seeds, str(alone)) == (4, 1, "4.00 (1 seed)") and math.isnan(alone.low + alone.high)
    for wrong in [], [1.0, math.nan], [math.inf]:
        with pytest.raises(ValueError, match="interval: expected one finite number or more"):
            analysis.interval(wrong)


def test_pairs_are_seeds_that_both_have():
    found = analysis.paired({0: 5.0, 1: 7.0, 2: 100.0}, {1: 6.0, 0: 3.0, 9: 0.0})
    assert (found.mean, found.seeds) == (1.5, 2)
    with pytest.raises(ValueError, match=r"paired: expected a common seed, got \[0\] and \[1\]"):
        analysis.paired({0: 1.0}, {1: 1.0})


def test_steps_to_a_loss():
    steps, losses = [100, 200, 300], [2.0, 1.0, 1.5]
    assert analysis.steps_to(steps, losses, 1.25) == 175
    assert analysis.steps_to(steps, losses, 1.0) == 200 and analysis.steps_to(steps, losses, 2.5) == 100
    assert analysis.steps_to(steps, losses, 0.9) is None
    for a, b in ([1], []), ([], []):
        with pytest.raises(ValueError, match="steps_to: expected one loss for each of one or more steps"):
            analysis.steps_to(a, b, 1.0)


# ------------------------------------------------------------------------------------------ negative sums


def sums(block, x):
    """Return the block's output and the sum of its shortcut and branch, both in train mode."""
    placement = getattr(block, "placement", "")
    if placement == "bn_after_addition":
        h = block.conv2((block.bn1(block.conv1(x))).relu())
        return block(x), (h + block.shortcut(x)).data
    if type(block).__name__ == "Block":
        h = block.bn2(block.conv2(block.bn1(block.conv1(x)).relu()))
        return block(x), (h + block.shortcut(x)).data
    y = block(x)
    return y, y.data


@pytest.mark.parametrize("placement", ["original", "bn_after_addition", "relu_before_addition", "relu_only_preact",
                                       "full_preact"])
def test_negative_sums_are_those_of_the_blocks(placement):
    net = models.placement_study(placement, 8, in_channels=1, width=4, rng=rng())
    randomise(net, rng(1))
    x = normal(6, 1, 8, 8, dtype=np.float32)
    state = {name: t.data.copy() for name, t in net.state().items()}
    found = analysis.negative_sums(net, x)
    assert all((t.data == state[name]).all() for name, t in net.state().items())
    inputs = {}
    names = {id(block): name for name, block in zip(found, net.blocks(), strict=True)}

    def see(module, into, out):
        if id(module) in names:
            inputs[names[id(module)]] = into[0].data

    from minires import nn
    with nn.untouched(net), nn.watched(see), no_grad():
        net.train()(Tensor(x))
    for name, block in zip(found, net.blocks(), strict=True):
        with nn.untouched(net), no_grad():
            _, total = sums(block.train(), Tensor(inputs[name]))
        assert found[name] == pytest.approx(float((total <= 0).mean() if placement == "original" else
                                                  (total < 0).mean()), abs=1e-6)
    if placement == "relu_before_addition":
        assert set(found.values()) == {0.0}  # nothing negative is ever added
    else:
        assert all(0.02 < share < 0.98 for share in found.values())


def test_negative_sums_of_bottlenecks_and_of_other_networks():
    x = normal(4, 1, 8, 8, dtype=np.float32)
    for placement in "original", "bn_after_addition", "full_preact":
        net = models.placement_study(placement, 11, bottleneck=True, in_channels=1, width=4, rng=rng())
        assert list(analysis.negative_sums(net, x, train=False)) == [f"layer{i}.0" for i in (1, 2, 3)]
    with pytest.raises(ValueError, match=r"expected residual blocks of the kinds .*, got block 'layer1.0'"):
        analysis.negative_sums(models.cifar(8, False, in_channels=1, width=4), x)
    with pytest.raises(ValueError, match="negative_sums: expected residual blocks"):
        analysis.negative_sums(models.shortcut_study("exclusive_gating", 8, in_channels=1, width=4), x)


# ------------------------------------------------------------------------------------- stacks of numbers


def test_a_scalar_block_by_its_formula():
    for residual in True, False:
        block = models.scalar_stack(1, 3, residual=residual, rng=rng(2))[0].astype(np.float64)
        w1, b1, w2, b2 = (t.data for t in block.parameters())
        x = normal(5, 1)
        branch = np.maximum(x @ w1.T + b1, 0) @ w2.T + b2
        np.testing.assert_allclose(block(Tensor(x)).data, branch + residual * x, rtol=1e-12)
        gradcheck(block, x)
    assert "residual" in repr(models.scalar_stack(1)) and "plain" in repr(models.scalar_stack(1, residual=False))


def test_stacks_of_one_seed_start_alike_and_the_last_layers_can_start_at_0():
    plain, skip, zero = (models.scalar_stack(4, 5, rng=rng(3), **options)
                         for options in ({"residual": False}, {}, {"zero_last": True}))
    for a, b in zip(plain.parameters(), skip.parameters(), strict=True):
        assert (a.data == b.data).all()
    x = normal(7, 1, dtype=np.float32)
    assert (zero(Tensor(x)).data == x).all() and not (skip(Tensor(x)).data == x).any()
    assert (zero[2].first.weight.data == skip[2].first.weight.data).all()
    for wrong, why in ({"blocks": 0}, "got 0 and 8"), ({"blocks": 1, "hidden": 0}, "got 1 and 0"), (
            {"blocks": 1, "zero_last": True, "residual": False}, "zero_last=True needs residual=True"):
        with pytest.raises(ValueError, match=why):
            models.scalar_stack(**wrong)


def test_what_a_stack_makes_of_its_input():
    net = models.scalar_stack(12, rng=rng(1))
    x = np.linspace(-1, 1, 9, dtype=np.float32)
    rows = analysis.after_each_block(net, x)
    assert rows.shape == (13, 9) and (rows[0] == x).all()
    h = Tensor(x[:, None])
    for layer, row in zip(net, rows[1:], strict=True):
        h = layer(h)
        assert (h.data[:, 0] == row).all()
    with pytest.raises(ValueError, match=r"after_each_block: expected x of shape \(N,\), got \(9, 1\)"):
        analysis.after_each_block(net, x[:, None])
    from minires import nn
    with pytest.raises(ValueError, match=r"expected layer 0 to return shape \(9, 1\), got \(9, 2\)"):
        analysis.after_each_block(nn.Sequential(nn.Linear(1, 2, rng=rng()), nn.Linear(2, 1, rng=rng())), x)
