"""Test construction, lesions and paths against what holds exactly."""

import itertools
import math

import numpy as np
import pytest
from helpers import difference, normal

from minires import Tensor, models, nn, no_grad, ops
from minires.analysis import (
    construction,
    deepen,
    delete_k,
    deleted,
    gradient_shares,
    gradients_by_length,
    lesions,
    path_gradient,
    path_gradients,
    path_shares,
    swap_blocks,
)
from minires.analysis.blocks import last_convolution, same_shape, shortcut_output
from minires.analysis.deepening import dirac
from minires.analysis.deletion import kendall


def rng(seed=0):
    return np.random.default_rng(seed)


def trained(depth=8, width=4, dtype=np.float32, in_channels=1, **options):
    """Return a network whose norms look trained: gamma, beta and running statistics differ from the initial values."""
    net = models.cifar(depth, in_channels=in_channels, width=width, rng=rng(), **options)
    r = rng(1)
    for _, m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            shape = m.weight.shape
            m.weight.data, m.running_var.data = r.uniform(0.5, 1.5, shape), r.uniform(0.5, 2, shape)
            m.bias.data, m.running_mean.data = 0.3 * r.standard_normal(shape), 0.3 * r.standard_normal(shape)
    return net.astype(dtype).eval()


def images(n=6, size=8, channels=1, dtype=np.float32):
    return normal(n, channels, size, size, dtype=dtype)


# ---------------------------------------------------------------------------------------------- construction


@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
def test_20_layers_become_56_with_the_same_logits(residual):
    shallow = trained(20, 8, in_channels=3, residual=residual)
    found = construction(shallow, images(4, 16, 3), 6, rng=rng())
    assert sum(isinstance(m, (nn.Conv2d, nn.Linear)) for _, m in found.model.modules()) == 56
    assert found.blocks == 18 and found.difference < 1e-4
    with no_grad():
        assert (found.shallow == shallow(Tensor(images(4, 16, 3))).data).all()
    assert found.difference == abs(found.shallow - found.deep).max() and found.deep.shape == (4, 10)
    assert list(found.model.state()) == list(models.cifar(56, residual, width=8).state())


@pytest.mark.parametrize(
    "options",
    [{"block": "preact"}, {"by_hand": True}, {"shortcut": "B"}, {"shortcut": "C"}, {"norm": "fixup"},
     {"norm": "none"}, {"norm": "none", "residual": False}, {"block": "bottleneck", "depth": 20},
     {"block": "preact_bottleneck", "depth": 20}],
    ids=["v2", "by hand", "B", "C", "fixup", "no norm", "plain, no norm", "bottleneck", "v2 bottleneck"],
)
def test_identity_blocks_of_every_kind(options):
    net = trained(**{"depth": 14, "dtype": np.float64} | options)
    before = {n: t.data.copy() for n, t in net.state().items()}
    found = construction(net, images(dtype=np.float64), 2, rng=rng())
    assert found.difference < 1e-9 and found.blocks == 6
    assert all((before[n] == t.data).all() for n, t in net.state().items())
    assert {t.dtype for t in found.model.state().values()} == {np.dtype("f8")}


def test_the_deeper_network_can_be_trained_away_from_the_identity():
    """Only gamma and beta are zero, the weights are not. So gradients reach gamma, and the identity is not a saddle."""
    deeper = deepen(trained(8), 1, rng=rng()).train()
    ops.cross_entropy(deeper(Tensor(images())), np.arange(6)).backward()
    assert abs(deeper.layer2[1].bn2.weight.grad).max() > 0 and abs(deeper.layer2[1].conv2.weight.data).max() > 0


def test_what_cannot_be_the_identity_is_refused():
    with pytest.raises(ValueError, match="a plain PreactBlock cannot be the identity"):
        deepen(trained(8, block="preact", residual=False), 1, rng=rng())
    with pytest.raises(ValueError, match="a plain Bottleneck cannot be the identity"):
        deepen(trained(11, block="bottleneck", residual=False), 1, rng=rng())
    with pytest.raises(ValueError, match=r"expected blocks of the kinds Block, Bottleneck.*, got ConstantScaling"):
        deepen(models.shortcut_study("constant_scaling", 8, width=4), 1, rng=rng())
    with pytest.raises(ValueError, match="expected a model with lists of blocks"):
        deepen(nn.Linear(3, 2, rng=rng()), 1, rng=rng())
    with pytest.raises(ValueError, match="expected extra >= 0, got -1"):
        deepen(trained(8), -1, rng=rng())
    with pytest.raises(ValueError, match=r"expected a shape \(C, C, odd, odd\), got \(2, 3, 3, 3\)"):
        dirac((2, 3, 3, 3))


def test_dirac_returns_the_image():
    x = normal(2, 3, 5, 7)
    assert (ops.conv2d(Tensor(x), Tensor(dirac((3, 3, 3, 5)).astype("f8")), padding=(1, 2)).data == x).all()


# -------------------------------------------------------------------------------------------------- lesions

KINDS = {"v1": {}, "v2": {"block": "preact"}, "B": {"shortcut": "B"}, "by hand": {"by_hand": True},
         "fixup": {"norm": "fixup"}, "bottleneck": {"block": "bottleneck"},
         "v2 bottleneck": {"block": "preact_bottleneck", "shortcut": "B"}}


def deep(blocks, options):
    """Return the depth of a network with this number of blocks per stage."""
    return (9 if "bottleneck" in options.get("block", "") else 6) * blocks + 2


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_a_deleted_block_is_one_whose_branch_adds_nothing(options):
    """Compare a block reduced to its shortcut with the same block after its branch's last weights are set to zero."""
    net, other = (trained(deep(2, options), dtype=np.float64, **options) for _ in range(2))
    x = Tensor(images(dtype=np.float64))
    for name in "layer1.1", "layer2.0", "layer3.0":
        block = dict(other.modules())[name]
        last = getattr(block, "last_norm", None) or last_convolution(block)
        kept = [(t, t.data) for t in vars(last).values() if isinstance(t, Tensor) and t.requires_grad]
        for t, data in kept:
            t.data = np.zeros_like(data)
        with deleted(net, [name]):
            assert difference(net(x).data, other(x).data) < 1e-12
        for t, data in kept:
            t.data = data
        assert difference(net(x).data, other(x).data) == 0


def test_a_plain_block_is_deleted_to_the_identity_or_option_a():
    net = trained(14, residual=False)
    h = images(3, 8, 4)
    with deleted(net, ["layer1.1", "layer2.0"]):
        assert (net.layer1[1](Tensor(h)).data == np.maximum(h, 0)).all()
        out = net.layer2[0](Tensor(h)).data
    assert out.shape == (3, 8, 4, 4) and (out[:, 2:6] == np.maximum(h, 0)[:, :, ::2, ::2]).all()
    assert net.layer1[1](Tensor(h)).data.min() >= 0 and "forward" not in vars(net.layer1[1])


def classified(net, n=40):
    """Return images with the labels that the network predicts, so that its error is 0."""
    x = images(n)
    return x, net(Tensor(x)).data.argmax(1)


def test_lesions_delete_one_block_at_a_time():
    net = trained(14)
    x, labels = classified(net)
    bars = []
    found = lesions(net, x, labels, progress=lambda names: bars.append(list(names)) or names)
    names = [f"layer{s}.{i}" for s in (1, 2, 3) for i in (0, 1)]
    assert list(found.without) == names and bars == [names] and found.whole == 0
    assert found.changes_shape == ("layer2.0", "layer3.0")
    with deleted(net, ["layer2.1"]):
        expected = 100 * (net(Tensor(x)).data.argmax(1) != labels).mean()
    assert found.without["layer2.1"] == pytest.approx(expected) and max(found.without.values()) > 0


def test_a_silent_block_can_be_deleted_and_moved_at_no_cost():
    net = deepen(trained(8), 2, rng=rng())
    x, labels = classified(net)
    found = lesions(net, x, labels)
    assert [found.without[f"layer{s}.{i}"] for s in (1, 2, 3) for i in (1, 2)] == [0] * 6
    shuffled = swap_blocks(net, x, labels, [0, 1, 1], rng=rng())
    # layer1 has three blocks of one shape, and one of them is not silent
    assert shuffled[0] == (1.0, 0.0) and all(s.correlation < 1 for s in shuffled[1:])


def test_delete_k():
    net = trained(14)
    x, labels = classified(net)
    found = delete_k(net, x, labels, [0, 2, 6], trials=3, rng=rng())
    assert found[0] == [0, 0, 0] and len(found[2]) == 3 and len(set(found[6])) == 1  # all six: only one choice
    with deleted(net, [f"layer{s}.{i}" for s in (1, 2, 3) for i in (0, 1)]):
        assert found[6][0] == pytest.approx(100 * (net(Tensor(x)).data.argmax(1) != labels).mean())
    with pytest.raises(ValueError, match=r"expected counts from 0 to 6, the number of blocks, got \[7\]"):
        delete_k(net, x, labels, [7], rng=rng())


def test_swapped_blocks_run_in_each_others_places():
    net = trained(14, residual=True)
    x, labels = classified(net)
    assert same_shape({n: m for n, m in net.modules() if isinstance(m, nn.Block)}) == [
        ["layer1.0", "layer1.1"], ["layer2.1"], ["layer3.1"]]
    (found,) = swap_blocks(net, x, labels, [1], rng=rng())
    net.layer1.reverse()
    assert found.error == pytest.approx(100 * (net(Tensor(x)).data.argmax(1) != labels).mean())
    assert found.correlation == pytest.approx(1 - 2 / 15)  # one of 15 pairs is out of order
    with pytest.raises(ValueError, match="no two blocks of one shape"):
        swap_blocks(trained(8, shortcut="C"), x, labels, [1], rng=rng())


def test_kendall():
    assert kendall([0, 1, 2, 3]) == 1 and kendall([3, 2, 1, 0]) == -1 and kendall([0, 2, 1]) == pytest.approx(1 / 3)


def test_a_wrong_name_is_named_and_nothing_is_left_replaced():
    net = trained(8)
    with pytest.raises(ValueError, match=r"no block named layer9; the blocks are layer1\.0, layer2\.0, layer3\.0"), \
            deleted(net, ["layer1.0", "layer9"]):
        pass
    study = models.shortcut_study("constant_scaling", 8, in_channels=1, width=4)
    with pytest.raises(ValueError, match="got ConstantScaling, whose structure is not known here"):
        lesions(study, images(), np.arange(6))
    with pytest.raises(ValueError, match="this analysis needs blocks of the kinds Block, Bottleneck, "):
        lesions(nn.Sequential(nn.Flatten()), images(), np.arange(6))
    with pytest.raises(KeyError), deleted(net, ["layer1.0"]):
        raise KeyError
    assert all("forward" not in vars(m) for _, m in net.modules())
    mine = net.layer1[0].forward = lambda x: x  # a forward that is set on this object alone
    with deleted(net, ["layer1.0"]):
        assert net.layer1[0].forward is not mine
    assert net.layer1[0].forward is mine
    del net.layer1[0].forward
    with pytest.raises(ValueError, match="expected one label for each of 6 images"):
        lesions(net, images(), np.arange(5))
    with pytest.raises(ValueError, match="at least one image"):
        lesions(net, images()[:0], np.arange(0))


# ---------------------------------------------------------------------------------------------------- paths


def test_path_lengths_are_binomial():
    shares = path_shares(54)
    assert math.fsum(shares) == pytest.approx(1, abs=1e-12) and len(shares) == 55
    assert 100 * math.fsum(shares[5:18]) == pytest.approx(0.4537, abs=5e-5)  # Veit et al. 2016, section 5
    assert path_shares(3) == [1 / 8, 3 / 8, 3 / 8, 1 / 8] and path_shares(0) == [1]
    with pytest.raises(ValueError, match="expected blocks >= 0, got -1"):
        path_shares(-1)


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_the_gradient_is_the_sum_over_all_paths(options):
    net = trained(deep(1, options), dtype=np.float64, **options)
    if options.get("norm") == "fixup":
        for _, block in net.modules():  # Fixup's branches are silent at initialisation
            if hasattr(block, "scale"):
                block.conv2.weight.data = 0.2 * normal(*block.conv2.weight.shape)
        net.fc.weight.data = normal(*net.fc.weight.shape)
    x, labels = images(dtype=np.float64), np.arange(6)
    names = ["layer1.0", "layer2.0", "layer3.0"]
    by_length = [[path_gradient(net, x, labels, through) for through in itertools.combinations(names, k)]
                 for k in range(4)]
    paths = list(itertools.chain(*by_length))
    t = Tensor(x, True)
    ops.cross_entropy(net(t), labels).backward()
    assert len(paths) == 8 and difference(sum(paths), t.grad) < 1e-9
    assert all(difference(p, t.grad) > 1e-3 for p in paths)
    together = gradients_by_length(net, x, labels)
    assert len(together) == 4
    for part, single in zip(together, by_length, strict=True):
        assert difference(part, sum(single)) < 1e-9
    projected = [(part * t.grad).sum() / (t.grad**2).sum() for part in together]
    assert gradient_shares(together) == pytest.approx(projected, rel=1e-9) and math.fsum(projected) == pytest.approx(1)


def test_a_gradient_of_zero_has_no_shares():
    with pytest.raises(ValueError, match="the whole gradient is 0"):
        gradient_shares([np.ones(3), -np.ones(3)])


@pytest.mark.parametrize("through", [set(), {"layer2.0"}, {"layer1.0", "layer2.0", "layer3.0"}], ids=len)
def test_one_path_in_v1_is_the_network_with_the_other_ways_held_constant(through):
    net = trained(8, dtype=np.float64)
    x, labels = images(dtype=np.float64), np.arange(6)
    t = Tensor(x, True)
    h = ops.relu(net.bn1(net.conv1(t)))
    for name in "layer1.0", "layer2.0", "layer3.0":
        block = dict(net.modules())[name]
        branch = block.bn2(block.conv2(ops.relu(block.bn1(block.conv1(h)))))
        skip = shortcut_output(block, h)
        h = ops.relu(branch + skip.detach() if name in through else branch.detach() + skip)
    ops.cross_entropy(net.fc(ops.global_avg_pool2d(h)), labels).backward()
    assert difference(path_gradient(net, x, labels, through), t.grad) < 1e-12


def test_the_path_past_all_blocks_in_v2_is_that_of_the_shortcuts():
    net = trained(8, dtype=np.float64, block="preact")
    x, labels = images(dtype=np.float64), np.arange(6)
    t = Tensor(x, True)
    out = net.conv1(t)
    for block in (net.layer1[0], net.layer2[0], net.layer3[0]):
        full, skip = block(Tensor(out.data)), shortcut_output(block, out)
        out = skip + Tensor(full.data - skip.data)
    ops.cross_entropy(net.fc(ops.global_avg_pool2d(nn.bn_relu(net.bn, out))), labels).backward()
    assert difference(path_gradient(net, x, labels, []), t.grad) < 1e-12


def test_path_gradients_sample_paths_of_a_length():
    net = trained(8)
    x, labels = images(), np.arange(6)
    blocks, found = path_gradients(net, x, labels, [0, 1, 3], samples=4, rng=rng())
    assert blocks == 3
    assert [len(v) for v in found.values()] == [4, 4, 4] and len(set(found[0])) == len(set(found[3])) == 1
    expected = {float(np.linalg.norm(path_gradient(net, x, labels, [n]))) for n in ("layer1.0", "layer2.0", "layer3.0")}
    assert all(any(v == pytest.approx(e, rel=1e-5) for e in expected) for v in found[1])
    with pytest.raises(ValueError, match=r"expected lengths from 0 to 3, the number of blocks, got \[4\]"):
        path_gradients(net, x, labels, [4], rng=rng())
    with pytest.raises(ValueError, match=r"layer1\.0 has no shortcut; a plain network has a single path"):
        path_gradient(trained(8, residual=False), x, labels, [])
    with pytest.raises(ValueError, match=r"layer1\.0 has no shortcut; a plain network has a single path"):
        gradients_by_length(trained(8, residual=False), x, labels)
    with pytest.raises(ValueError, match="no block named layer4"):
        path_gradient(net, x, labels, ["layer4"])
