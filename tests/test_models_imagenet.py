"""Test ResNets for ImageNet, VGG and GoogLeNet: published sizes, torchvision's names, and gradients against PyTorch."""

from pathlib import Path

import numpy as np
import pytest
from helpers import difference, needs_torch, normal, randomise
from short import every

from minires import Tensor, init, models, nn, no_grad, ops

IMAGE = (3, 224, 224)


def rng(seed=0):
    return np.random.default_rng(seed)


# (depth, parameters as published in torchvision's documentation, GMACs with v1 strides, GMACs with v1.5 strides).
PUBLISHED = [(18, 11_689_512, 1.814, 1.814), (34, 21_797_672, 3.664, 3.664), (50, 25_557_032, 3.858, 4.089),
             (101, 44_549_160, 7.570, 7.801), (152, 60_192_808, 11.282, 11.514)]


@pytest.mark.parametrize("depth, parameters, v1, v15", PUBLISHED)
@init.undrawn()
def test_published_sizes(depth, parameters, v1, v15):
    for version, gmac in ("v1", v1), ("v1.5", v15):
        net = models.build(f"resnet{depth}", version=version)
        assert net.count_parameters() == parameters and round(net.macs(IMAGE) / 1e9, 3) == gmac
        assert net.depth(IMAGE) == depth
    default = models.imagenet(depth)
    assert round(default.macs(IMAGE) / 1e9, 3) == v15


@pytest.mark.parametrize("depth", [18, 34])
@init.undrawn()
def test_options_and_plain_networks(depth):
    """Option A adds no weights to the plain network. B adds three 1x1 convolutions with BN; C adds one per block."""
    size = {s: models.imagenet(depth, shortcut=s).count_parameters() for s in "ABC"}
    plain = models.build(f"plain{depth}")
    blocks = models.imagenet(depth).blocks()
    first = sum(a * 2 * a + 2 * 2 * a for a in (64, 128, 256))
    rest = sum(b.conv2.weight.shape[0] ** 2 + 2 * b.conv2.weight.shape[0] for b in blocks if b.downsample is None)
    assert size["A"] == plain.count_parameters() and plain.depth(IMAGE) == depth
    assert size["B"] == size["A"] + first and size["C"] == size["B"] + rest


def test_the_bottleneck_costs_less_than_the_basic_block():
    """v1, section 4.1, "Deeper Bottleneck Architectures": similar cost per pixel for four times the channels."""
    assert nn.Block(64, 64, rng=rng()).macs((64, 1, 1)) == 73_728
    assert nn.Bottleneck(256, 256, rng=rng()).macs((256, 1, 1)) == 69_632


@pytest.mark.parametrize("depth, convolutions, parameters, gmac", [
    (16, (2, 2, 3, 3, 3), 138_357_544, 15.470), (19, (2, 2, 4, 4, 4), 143_667_240, 19.632)])
@init.undrawn()
def test_vgg_sizes(depth, convolutions, parameters, gmac):
    nets = [models.build(f"vgg{depth}{bn}") for bn in ("", "_bn")]
    assert nets[0].count_parameters() == parameters
    channels = sum(n * c for n, c in zip(convolutions, (64, 128, 256, 512, 512), strict=True))
    assert nets[1].count_parameters() == parameters + 2 * channels
    for net in nets:
        macs, into, size = 0, 3, 224
        for n, c in zip(convolutions, (64, 128, 256, 512, 512), strict=True):
            for _ in range(n):
                macs, into = macs + 9 * into * c * size**2, c
            size //= 2
        macs += 512 * 7 * 7 * 4096 + 4096 * 4096 + 4096 * 1000
        assert net.macs(IMAGE) == macs and round(macs / 1e9, 3) == gmac and net.depth(IMAGE) == depth


@init.undrawn()
def test_googlenet_sizes():
    """GoogLeNet has 22 layers (abstract of the paper) and 6,624,904 parameters (torchvision, without auxiliaries)."""
    net, shapes = models.googlenet(), {}
    names = {id(m): n for n, m in net.modules()}
    assert net.count_parameters() == 6_624_904 and net.depth(IMAGE) == 22
    with nn.watched(lambda m, i, out: shapes.update({names[id(m)]: out.shape[1:]})):
        assert round(net.macs(IMAGE) / 1e9, 3) == 1.498
    # output sizes from Table 1 of the paper
    assert [shapes[n] for n in ("conv1", "maxpool1", "conv3", "maxpool2", "inception3a", "inception3b")] == [
        (64, 112, 112), (64, 56, 56), (192, 56, 56), (192, 28, 28), (256, 28, 28), (480, 28, 28)]
    assert shapes["maxpool3"] == (480, 14, 14)
    assert [shapes[f"inception4{c}"][0] for c in "abcde"] == [512, 512, 512, 528, 832]
    assert [shapes[n] for n in ("maxpool4", "inception5a", "inception5b", "avgpool", "fc")] == [
        (832, 7, 7), (832, 7, 7), (1024, 7, 7), (1024,), (1000,)]


@init.undrawn()
def test_the_stages_are_those_of_the_table():
    net, shapes = models.build("resnet50"), {}
    names = {id(m): n for n, m in net.modules()}
    with nn.watched(lambda m, i, out: shapes.update({names[id(m)]: out.shape[1:]})):
        net.macs(IMAGE)
    assert shapes["conv1"] == (64, 112, 112) and shapes["maxpool"] == (64, 56, 56)
    for stage, blocks in enumerate((3, 4, 6, 3), 1):
        assert [n for n in shapes if n.startswith(f"layer{stage}.") and n.count(".") == 1] == [
            f"layer{stage}.{i}" for i in range(blocks)]
        assert shapes[f"layer{stage}.0"] == (128 * 2**stage, 112 // 2**stage, 112 // 2**stage)


# -------------------------------------------------------------------------------------------------- names


def torchvisions():
    """Return {network: [(name, shape)]} from torchvision 0.28's state_dict of each, without num_batches_tracked."""
    nets = {}
    for line in (Path(__file__).parent / "torchvision_names.txt").read_text().splitlines():
        name, *shape = line.split()
        if shape == ["network"]:
            nets[name] = entries = []
        else:
            entries.append((name, tuple(map(int, shape))))
    return nets


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "wide_resnet50_2", "resnext50_32x4d", "vgg16", "vgg16_bn",
                                  "googlenet"])
@init.undrawn()
def test_names_and_shapes_are_torchvisions(name):
    net = models.build(name)
    assert [(n, t.shape) for n, t in net.state().items()] == torchvisions()[name]


# ----------------------------------------------------------------------------------------- against PyTorch


NETS = {  # name and options of the network, here and in PyTorch
    "resnet18 A": ("resnet18", {"shortcut": "A", "pad": "end"}), "resnet18 B": ("resnet18", {}),
    "resnet34 C": ("resnet34", {"shortcut": "C"}), "plain34": ("plain34", {}),
    "resnet50 v1": ("resnet50", {"version": "v1"}), "resnet50 v1.5": ("resnet50", {}),
    "resnet101": ("resnet101", {"version": "v1.5"}), "resnet152": ("resnet152", {"version": "v1"}),
    "wide_resnet50_2": ("wide_resnet50_2", {}), "resnext50_32x4d": ("resnext50_32x4d", {"width": 16}),
    "vgg16": ("vgg16", {"hidden": 24, "dropout": 0.0}), "vgg19": ("vgg19", {"hidden": 24, "dropout": 0.0}),
    "vgg16_bn": ("vgg16_bn", {"hidden": 24, "dropout": 0.0}), "vgg19_bn": ("vgg19_bn", {"hidden": 24, "dropout": 0.0}),
    "googlenet": ("googlenet", {"width": 16, "dropout": 0.0}),
}


# After many BN layers in train mode, float32 rounding moves the input of some ReLU across 0. Then even PyTorch's own
# float32 and float64 gradients differ by several per cent. So float32 compares these networks in eval mode only.
ROUNDING = {"resnet34 C", "plain34", "resnet50 v1", "resnet50 v1.5", "resnet101", "resnet152", "googlenet",
            "wide_resnet50_2", "resnext50_32x4d"}
CASES = [(name, training, dtype) for name in NETS for training in (True, False) for dtype in ("float64", "float32")
         if not (training and dtype == "float32" and name in ROUNDING)]


@needs_torch
@pytest.mark.parametrize("name, training, dtype", every(3, CASES))
def test_forward_and_all_gradients_against_pytorch(name, training, dtype):
    import twins

    which, options = NETS[name]
    options = {"width": 4, "num_classes": 7, **options}
    net = models.build(which, **options, rng=rng(1)).astype(dtype).train(training)
    randomise(net)
    images, labels = normal(4, 3, 50, 70, dtype=dtype), np.array([0, 6, 3, 3])
    silent = [f"{n}.bias" for n, m in net.modules() if training and "bn" in which and n.startswith("features")
              and isinstance(m, nn.Conv2d)]
    twin = twins.loaded(twins.build(which, **options), net)
    twins.compare(net, twin, images, labels, 1e-9 if dtype == "float64" else 1e-4, silent=silent)


@pytest.mark.parametrize("name, options", [
    ("resnet18", {}), ("resnet50", {}), ("vgg16_bn", {"hidden": 24}), ("googlenet", {"width": 16}),
    ("resnet164", {}), ("preact_resnet164", {})])
def test_eval_mode_without_gradients_folds_batch_norm_and_agrees(name, options, monkeypatch):
    """Test the three ways to run eval mode: with a graph, folded, and with a hook."""
    net = models.build(name, **{"width": 4, **options}, num_classes=7, rng=rng(1)).eval()
    randomise(net)
    x, asked = Tensor(normal(2, 3, 34, 40, dtype=np.float32)), []
    graph = net(x).data
    batch_norm_eval = ops.batch_norm_eval
    monkeypatch.setattr(ops, "batch_norm_eval", lambda *a: asked.append(1) or batch_norm_eval(*a))
    with no_grad():
        folded, not_folded = net(x).data, len(asked)
        with nn.watched(lambda *_: None):
            watched = net(x).data
    norms = sum(isinstance(m, nn.BatchNorm2d) for _, m in net.modules())
    # Not folded are the norms of projections, the first norm of pre-activation blocks, and the norm at the end.
    outside = {"resnet18": 3, "resnet50": 4, "resnet164": 3, "preact_resnet164": 54 + 1}
    assert not_folded == outside.get(name, 0) and len(asked) == not_folded + norms
    assert difference(folded, graph) < 1e-5 and difference(watched, graph) < 1e-6


def test_dropout_rests_in_eval_mode_and_draws_in_train_mode():
    for name, options in ("vgg16", {"hidden": 64}), ("googlenet", {"width": 16}):
        net = models.build(name, **{"width": 4, **options}, num_classes=7, rng=rng(1))
        x = Tensor(normal(2, 3, 34, 40, dtype=np.float32))
        assert (net(x).data != net(x).data).any()
        assert (net.eval()(x).data == net(x).data).all()


# ----------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("make, message", [
    (lambda: models.imagenet(20), "imagenet: expected depth 18, 34, 50, 101 or 152, got 20"),
    (lambda: models.build("resnet18", version="v2"), 'imagenet: expected version "v1" or "v1.5", got \'v2\''),
    (lambda: models.build("resnet18", shortcut="D"), 'shortcut: expected "A", "B" or "C", got \'D\''),
    (lambda: models.vgg(11), "vgg: expected depth 16 or 19, got 11"),
    (lambda: models.googlenet(width=6), "googlenet: expected a width that is a multiple of 4, got 6"),
    (lambda: nn.Bottleneck(4, 6, rng=rng()), "out_channels: expected a multiple of 4 for a bottleneck, got 6"),
    (lambda: nn.Bottleneck(4, 8, version="1.5", rng=rng()), 'version: expected "v1" or "v1.5", got \'1.5\'')])
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_image_too_small_is_refused():
    with pytest.raises(ValueError, match="is larger than the input"):
        models.vgg(16, width=4, hidden=8).eval()(Tensor(np.ones((1, 3, 16, 16), np.float32)))
