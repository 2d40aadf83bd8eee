"""Test the networks of v2's Tables 1 and 2: each block against its formula, each network against PyTorch."""

from functools import partial
from itertools import product

import numpy as np
import pytest
from helpers import needs_torch, normal, randomise, same_bits
from short import every

from minires import Tensor, gradcheck, models, nn, ops
from minires.models import study

MOVED = ["bn_after_addition", "relu_before_addition", "relu_only_preact"]


def rng(seed=0):
    return np.random.default_rng(seed)


# ----------------------------------------------------------------------------------------- by formula


def shortcut_and_branch(block, x):
    h = ops.relu(block.bn1(block.conv1(x)))
    return block.shortcut(x).data, block.bn2(block.conv2(h)).data


@pytest.mark.parametrize("channels, stride", [(4, 1), (6, 2)])
@pytest.mark.parametrize("make, join", [
    (partial(study.ConstantScaling, scales=(0.5, 0.25)), lambda s, f, g: 0.5 * s + 0.25 * f),
    (partial(study.ExclusiveGating, gate_bias=-0.3), lambda s, f, g: (1 - g) * s + g * f),
    (partial(study.ShortcutOnlyGating, gate_bias=0.2), lambda s, f, g: (1 - g) * s + f)])
def test_what_is_on_the_shortcut(make, join, channels, stride):
    block = make(4, channels, stride, rng=rng(1)).astype(np.float64)
    x, g = Tensor(normal(3, 4, 6, 8)), None
    s, f = shortcut_and_branch(block, x)
    if hasattr(block, "gate"):
        w, b = block.gate.weight.data[:, :, 0, 0], block.gate.bias.data
        z = np.einsum("oc,nchw->nohw", w, x.data[:, :, ::stride, ::stride]) + b.reshape(1, -1, 1, 1)
        g = 1 / (1 + np.exp(-z))
    np.testing.assert_allclose(block(x).data, np.maximum(join(s, f, g), 0), rtol=1e-12)


def test_gates_start_where_they_are_told_to():
    for kind in "exclusive_gating", "shortcut_only_gating":
        for given, bias in ({}, -6), ({"gate_bias": 0}, 0):
            net = models.shortcut_study(kind, 8, width=4, **given)
            assert all((b.gate.bias.data == bias).all() and b.gate.bias.requires_grad for b in net.blocks())


def test_dropout_on_the_shortcut():
    block = study.DropoutShortcut(3, 3, drop=0.25, rng=rng(1)).astype(np.float64)
    block.bn2.weight.data, block.bn2.bias.data = np.zeros(3), np.zeros(3)  # the branch gives zeros
    x = Tensor(1 + np.abs(normal(4, 3, 5, 6)))
    ratio = block(x).data / x.data
    assert set(np.round(np.unique(ratio), 12)) == {0, round(1 / 0.75, 12)} and 0.6 < (ratio > 0).mean() < 0.9
    assert (block.eval()(x).data == x.data).all()


def test_the_1x1_convolution_is_option_c():
    a, b = models.shortcut_study("conv1x1", 8, width=4, rng=rng(3)), models.cifar(8, shortcut="C", width=4, rng=rng(3))
    assert all(same_bits(t.data, b.state()[n].data) for n, t in a.state().items()) and len(a.state()) == len(b.state())


# {placement: the output for an input with both signs, if the branch gives zeros}
@pytest.mark.parametrize("placement, left", [
    ("bn_after_addition", lambda x, h: np.maximum(h, 0)), ("relu_before_addition", lambda x, h: x),
    ("relu_only_preact", lambda x, h: x)])
@pytest.mark.parametrize("cls", [study.PlacedBlock, study.PlacedBottleneck])
def test_a_silent_branch_shows_what_stands_on_the_shortcuts_way(cls, placement, left):
    block = cls(4, 4, placement=placement, rng=rng(1)).astype(np.float64)
    conv, bn = block.branch()[-1]
    conv.weight.data = np.zeros_like(conv.weight.data)
    x = normal(3, 4, 5, 6)
    normalised = (x - x.mean((0, 2, 3), keepdims=True)) / np.sqrt(x.var((0, 2, 3), keepdims=True) + bn.eps)
    np.testing.assert_allclose(block(Tensor(x)).data, left(x, normalised), rtol=1e-12)


# ----------------------------------------------------------------------------------------- gradients


def inside(make, i=4, o=4, stride=2):
    """Return the function (x, *parameters) -> block(x), and the arrays for its arguments."""
    block = make(i, o, stride, rng=rng(1)).astype(np.float64)
    randomise(block)
    names = [n for n, t in block.state().items() if t.requires_grad]

    def f(x, *parameters):
        for name, t in zip(names, parameters, strict=True):
            module, _, attribute = name.rpartition(".")
            setattr(dict(block.modules())[module], attribute, t)
        return block(x)

    return f, [normal(2, i, 5, 4, seed=3), *(block.state()[n].data for n in names)]


BLOCKS = {
    "bottleneck": (nn.Bottleneck, 8), "bottleneck v1.5 B": (partial(nn.Bottleneck, version="v1.5", shortcut="B"), 8),
    "plain bottleneck": (partial(nn.Bottleneck, residual=False), 8),
    "preact bottleneck": (nn.PreactBottleneck, 8),
    "preact bottleneck split": (partial(nn.PreactBottleneck, split_after_activation=True), 8),
    "preact bottleneck B": (partial(nn.PreactBottleneck, shortcut="B"), 8),
    "constant": (partial(study.ConstantScaling, scales=(0.5, 0.7)), 6),
    "exclusive": (partial(study.ExclusiveGating, gate_bias=-1), 6),
    "shortcut-only": (partial(study.ShortcutOnlyGating, gate_bias=-1), 6),
    **{p: (partial(study.PlacedBlock, placement=p, shortcut="B"), 6) for p in MOVED},
    **{f"bottleneck, {p}": (partial(study.PlacedBottleneck, placement=p), 8) for p in MOVED},
}


@pytest.mark.parametrize("name", every(2, BLOCKS))
def test_gradcheck(name):
    make, channels = BLOCKS[name]
    f, arrays = inside(make, 4, channels)
    gradcheck(f, *arrays, rtol=1e-5, entries=20)


def test_gradcheck_of_inception():
    from minires.models.inception import Inception

    make = lambda i, o, stride, rng: Inception(i, (2, 3, 2, 1, 3, 2), rng=rng)
    f, arrays = inside(make)
    gradcheck(f, *arrays, rtol=1e-5, entries=20)


# ----------------------------------------------------------------------------------------- against PyTorch


def joined(join):
    """Return the forward of v1's basic block with join(skip, branch, gate) instead of skip + branch."""
    def run(block, x):
        f = block.bn2(block.conv2(block.bn1(block.conv1(x)).relu()))
        g = block.gate(x).sigmoid() if hasattr(block, "gate") else None
        return join(block.skip(x, f.shape[1]), f, g).relu()
    return run


def moved(placement):
    """Return the forward of a block with its BNs and ReLUs in other places."""
    def run(block, x):
        f = x
        for i, (conv, bn) in enumerate(block.pairs(), 1):
            if placement == "relu_only_preact":
                f = f.relu()
            f = conv(f)
            if i < block.layers or placement != "bn_after_addition":
                f = bn(f)
            if placement != "relu_only_preact" and (i < block.layers or placement == "relu_before_addition"):
                f = f.relu()
        f = f + block.skip(x, f.shape[1])
        return bn(f).relu() if placement == "bn_after_addition" else f
    return run


BOTTLENECK = {"depth": 20, "block": "bottleneck", "shortcut": "B"}
NETS = {  # {name: (function that builds the network, options of its twin)}
    "constant": (partial(models.shortcut_study, "constant_scaling", 14),
                 {"run": joined(lambda s, f, g: 0.5 * s + 0.5 * f)}),
    "constant 0.5, 1": (partial(models.shortcut_study, "constant_scaling", 14, scales=(0.5, 1)),
                        {"run": joined(lambda s, f, g: 0.5 * s + f)}),
    "exclusive": (partial(models.shortcut_study, "exclusive_gating", 14, gate_bias=-1),
                  {"run": joined(lambda s, f, g: (1 - g) * s + g * f), "gate": True}),
    "shortcut-only": (partial(models.shortcut_study, "shortcut_only_gating", 14, gate_bias=0),
                      {"run": joined(lambda s, f, g: (1 - g) * s + f), "gate": True}),
    "identity": (partial(models.shortcut_study, "identity", 14), {}),
    "original": (partial(models.placement_study, "original", 14), {}),
    "original bottleneck": (partial(models.placement_study, "original", 20, bottleneck=True),
                            {"depth": 20, "block": "bottleneck"}),
    "full": (partial(models.placement_study, "full_preact", 14), {"block": "preact"}),
    "full bottleneck": (partial(models.placement_study, "full_preact", 20, bottleneck=True, shortcut="B"),
                        {**BOTTLENECK, "block": "preact_bottleneck"}),
    **{p: (partial(models.placement_study, p, 14), {"run": moved(p)}) for p in MOVED},
    **{f"{p} bottleneck": (partial(models.placement_study, p, 20, bottleneck=True, shortcut="B"),
                           {**BOTTLENECK, "run": moved(p)}) for p in MOVED},
}


@needs_torch
@pytest.mark.parametrize("name, training, dtype", every(3, product(NETS, [True, False], [np.float64, np.float32])))
def test_forward_and_all_gradients_against_pytorch(name, training, dtype):
    import twins

    rtol = 1e-10 if dtype is np.float64 else 1e-4
    make, options = NETS[name]
    net = make(width=4, rng=rng(1)).astype(dtype).train(training)
    randomise(net)
    images, labels = normal(5, 3, 10, 7, dtype=dtype), np.array([0, 9, 3, 3, 1])
    # If no ReLU and no border is in between, the next BN cancels what the BN of a projection adds to a channel.
    taken = {"bn_after_addition bottleneck": (1, 2, 3), "relu_before_addition bottleneck": (1, 2)}.get(name, ())
    twin = twins.loaded(twins.cifar(**{"depth": 14, "last_relu": "relu_only" in name, **options}), net)
    twins.compare(net, twin, images, labels, rtol,
                  silent=[f"layer{stage}.0.downsample.1.bias" for stage in taken if training])


# ----------------------------------------------------------------------------------------- sizes, errors


@pytest.mark.parametrize("kind", ["identity", "constant_scaling", "dropout"])
def test_what_has_no_weights_adds_none(kind):
    assert models.shortcut_study(kind).count_parameters() == 1_727_962 == models.resnet110().count_parameters()


def test_depth_counts_no_gate():
    net = models.shortcut_study("exclusive_gating", 20, width=4)
    assert net.depth((3, 32, 32)) == 20 and net.count_parameters() > models.resnet20(width=4).count_parameters()


@pytest.mark.parametrize("placement", ["original", *MOVED, "full_preact"])
def test_placements_move_layers_and_add_next_to_none(placement):
    """With full pre-activation, a BN is before each convolution, on fewer channels at the start of a stage, and one BN
    is at the end of the network."""
    sizes = {110: 1_727_962, 164: models.resnet164().count_parameters()}
    for depth, size in sizes.items():
        net = models.placement_study(placement, depth, bottleneck=depth == 164, shortcut="A" if depth == 110 else "B")
        assert abs(net.count_parameters() - size) <= (896 if placement == "full_preact" else 0)
        assert net.depth((3, 32, 32)) == depth


@pytest.mark.parametrize("make, message", [
    (lambda: models.shortcut_study("gating", 8), "shortcut_study, kind: unknown name 'gating'"),
    (lambda: models.shortcut_study("dropout", 8, scales=(1, 1)), "'dropout' has no option 'scales'; it has 'drop'"),
    (lambda: models.shortcut_study("identity", 8, drop=0.1), "'identity' has no option 'drop'; it has none"),
    (lambda: models.shortcut_study("dropout", 9), r"expected depth = 6n \+ 2"),
    (lambda: models.shortcut_study("dropout", 8, drop=1.0)(Tensor(np.ones((2, 3, 8, 8), np.float32))),
     "Dropout: expected a probability"),
    (lambda: models.placement_study("preact", 8), "placement_study, placement: unknown name 'preact'"),
    (lambda: study.PlacedBlock(4, 4, placement="bn_after_adition", rng=rng()), "placement: unknown name"),
    (lambda: study.PlacedBottleneck(4, 4, placement="original", rng=rng()), "placement: unknown name 'original'"),
    (lambda: study.ConstantScaling(4, 4, scales=(0.5, 0.5, 0.5), rng=rng()), "too many values"),
    (lambda: models.placement_study("bn_after_addition", 8, bottleneck=True), r"expected depth = 9n \+ 2"),
    (lambda: models.placement_study("full_preact", 8, shortcut="D"), 'shortcut: expected "A", "B" or "C"')])
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
