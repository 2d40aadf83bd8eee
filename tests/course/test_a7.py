"""The solution of A7 agrees with `minires.analysis`, with PyTorch and with closed forms."""

import math
from itertools import combinations

import numpy as np
import pytest

from minires import Tensor, analysis, evaluate, models, ops
from minires.course import solution

ANSWERS = solution.plain_space("a7")
LABELS = np.random.default_rng(5).integers(0, 10, 12)
IMAGES = np.random.default_rng(6).standard_normal((12, 1, 8, 8))
KINDS = [(True, "A"), (True, "B"), (True, "C"), (False, "A")]


def small(residual=True, shortcut="A", depth=8):
    """A network in float64 whose BatchNorms are not at their start."""
    net = models.cifar(depth, residual, shortcut=shortcut, in_channels=1, width=2, rng=np.random.default_rng(3))
    rng = np.random.default_rng(4)
    for name, t in net.astype(np.float64).state().items():
        if t.ndim == 1:
            t.data = rng.uniform(0.5, 1.5, t.shape) if name.endswith(("weight", "var")) else rng.normal(0, 0.2, t.shape)
    return net


@pytest.mark.parametrize("residual, shortcut", KINDS)
def test_responses_are_those_of_analysis(residual, shortcut):
    net = small(residual, shortcut)
    assert ANSWERS["responses"](net, IMAGES) == analysis.responses(net, IMAGES)


def test_responses_have_their_closed_form_and_are_1_before_training():
    net = small()
    closed = analysis.responses_closed_form(net, IMAGES)
    assert ANSWERS["responses"](net, IMAGES) == pytest.approx(closed, rel=1e-9)
    fresh = models.cifar(8, in_channels=1, width=3).astype(np.float64)
    assert list(ANSWERS["responses"](fresh, IMAGES).values()) == pytest.approx([1] * 7, rel=1e-3)


@pytest.mark.parametrize("residual, shortcut", KINDS)
def test_without_is_deleted(residual, shortcut):
    net = small(residual, shortcut)
    before = evaluate.logits(net, IMAGES)
    for name in ANSWERS["block_names"](net):
        with analysis.deleted(net, [name]):
            expected = evaluate.logits(net, IMAGES)
        with ANSWERS["without"](net, name):
            np.testing.assert_array_equal(evaluate.logits(net, IMAGES), expected)
        assert abs(expected - before).max() > 1e-3
    np.testing.assert_array_equal(evaluate.logits(net, IMAGES), before)


def test_without_restores_after_an_exception():
    net = small()
    before = evaluate.logits(net, IMAGES)
    with pytest.raises(KeyError), ANSWERS["without"](net, "layer1.0"):
        raise KeyError
    np.testing.assert_array_equal(evaluate.logits(net, IMAGES), before)


def test_a_block_without_a_branch_is_its_shortcut():
    net = small()
    state = net.state()
    for name in ("layer2.0.bn2.weight", "layer2.0.bn2.bias"):
        state[name].data = 0 * state[name].data
    with ANSWERS["without"](net, "layer2.0"):
        inside = evaluate.logits(net, IMAGES)
    np.testing.assert_allclose(inside, evaluate.logits(net, IMAGES), rtol=1e-12)


@pytest.mark.parametrize("residual", [True, False])
def test_lesions_are_those_of_analysis(residual):
    net = small(residual, depth=14)
    expected = analysis.lesions(net, IMAGES, LABELS).without
    assert ANSWERS["lesions"](net, IMAGES, LABELS) == pytest.approx(expected, rel=1e-12)
    counts = [0, 2, 4, 6]
    expected = analysis.delete_k(net, IMAGES, LABELS, counts, 1, rng=np.random.default_rng(1))
    rng = np.random.default_rng(1)
    found = [ANSWERS["delete_k"](net, IMAGES, LABELS, k, rng) for k in counts]
    assert found == pytest.approx([expected[k][0] for k in counts], rel=1e-12)


def test_all_paths_add_up_to_the_gradient():
    net = small()
    whole = ANSWERS["input_gradient"](net, IMAGES, LABELS)
    np.testing.assert_allclose(sum(analysis.gradients_by_length(net, IMAGES, LABELS)), whole, atol=1e-12)
    names = ANSWERS["block_names"](net)
    paths = [analysis.path_gradient(net, IMAGES, LABELS, through)
             for k in range(4) for through in combinations(names, k)]
    np.testing.assert_allclose(sum(paths), whole, atol=1e-12)


def test_the_gradient_at_the_input_is_a_difference_quotient():
    net, rng = small(False), np.random.default_rng(8)
    along = rng.standard_normal(IMAGES.shape)
    losses = [ops.cross_entropy(Tensor(evaluate.logits(net, IMAGES + step * along)), LABELS).item()
              for step in (-1e-6, 1e-6)]
    slope = float((ANSWERS["input_gradient"](net, IMAGES, LABELS) * along).sum())
    assert slope == pytest.approx((losses[1] - losses[0]) / 2e-6, rel=1e-4)


def test_shares_of_a_geometric_series_are_binomial():
    n, r = 27, 0.4
    shares = ANSWERS["path_shares"](r ** np.arange(n + 1))
    p = r / (1 + r)
    expected = [math.comb(n, k) * p ** k * (1 - p) ** (n - k) for k in range(n + 1)]
    np.testing.assert_allclose(shares, expected, rtol=1e-9)
    np.testing.assert_allclose(ANSWERS["path_shares"](np.ones(n + 1)), analysis.path_shares(n), rtol=1e-12)


@pytest.mark.parametrize("residual, shortcut", KINDS)
def test_the_direction_is_that_of_analysis(residual, shortcut):
    net = small(residual, shortcut)
    rng, other = np.random.default_rng(2), np.random.default_rng(2)
    for _ in range(2):
        found, expected = ANSWERS["direction"](net, rng), analysis.random_direction(net, rng=other)
        assert list(found) == [name for name, t in net.state().items() if t.requires_grad]
        for name, d in found.items():
            np.testing.assert_allclose(d, expected.get(name, np.zeros(d.shape)), rtol=1e-12)


def test_the_surface_is_that_of_analysis():
    net, rng = small(), np.random.default_rng(2)
    d1, d2 = (ANSWERS["direction"](net, rng) for _ in range(2))
    first, second = ({name: d for name, d in one.items() if d.any()} for one in (d1, d2))
    expected = np.array(analysis.loss_surface(net, IMAGES, LABELS, first, second, 3).loss)
    at = np.linspace(-1, 1, 3)
    np.testing.assert_allclose(ANSWERS["loss_surface"](net, IMAGES, LABELS, d1, d2, at, at), expected, rtol=1e-12)
    row = ANSWERS["loss_surface"](net, IMAGES, LABELS, d1, d2, at[:1], at)
    np.testing.assert_allclose(row, expected[:1], rtol=1e-12)


def test_the_scale_of_a_weight_before_bn_does_not_change_the_surface():
    """A weight times 10, with the running statistics of its BN to match, computes the same and looks the same."""
    surfaces, at = [], np.linspace(-1, 1, 3)
    for scale in 1.0, 10.0:
        net, rng = small(), np.random.default_rng(2)
        bn = net.bn1
        net.conv1.weight.data = scale * net.conv1.weight.data
        bn.running_mean.data, bn.running_var.data = scale * bn.running_mean.data, scale ** 2 * bn.running_var.data
        bn.eps *= scale ** 2
        d1, d2 = (ANSWERS["direction"](net, rng) for _ in range(2))
        surfaces.append(ANSWERS["loss_surface"](net, IMAGES, LABELS, d1, d2, at, at))
    np.testing.assert_allclose(*surfaces, rtol=1e-9)


def test_the_input_gradient_is_that_of_pytorch():
    """PyTorch computes dL/dx of the same network in eval mode."""
    torch = pytest.importorskip("torch")
    net = small(False)
    state = {name: torch.tensor(t.data) for name, t in net.state().items()}
    x = torch.tensor(IMAGES, requires_grad=True)

    def bn(h, name):
        return torch.nn.functional.batch_norm(h, *(state[f"{name}.{part}"] for part in (
            "running_mean", "running_var", "weight", "bias")), False, 0.1, 1e-5)

    def conv(h, name, stride=1):
        return torch.nn.functional.conv2d(h, state[f"{name}.weight"], None, stride, 1)

    h = torch.relu(bn(conv(x, "conv1"), "bn1"))
    for block, stride in ("layer1.0", 1), ("layer2.0", 2), ("layer3.0", 2):
        h = torch.relu(bn(conv(h, f"{block}.conv1", stride), f"{block}.bn1"))
        h = torch.relu(bn(conv(h, f"{block}.conv2"), f"{block}.bn2"))
    logits = torch.nn.functional.linear(h.mean((2, 3)), state["fc.weight"], state["fc.bias"])
    torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS)).backward()
    np.testing.assert_allclose(ANSWERS["input_gradient"](net, IMAGES, LABELS), x.grad.numpy(), rtol=1e-8, atol=1e-12)
