"""Test the 6n + 2 networks: published sizes, torchvision's names, and every gradient against PyTorch."""

import itertools

import numpy as np
import pytest
from helpers import needs_torch, normal, randomise
from short import every

from minires import Tensor, init, models, nn, no_grad


def rng(seed=0):
    return np.random.default_rng(seed)


# He et al. 2015 (arXiv 1512.03385), section 4.2 and Table 6, give depths and sizes: 0.27M, 0.46M, 0.66M, 0.85M, 1.7M
# and 19.4M parameters. Here are (depth, exact parameters with options A and B, forward MACs in millions on 32x32).
PUBLISHED = [(20, 269_722, 272_474, 40.55), (32, 464_154, 466_906, 68.86), (44, 658_586, 661_338, 97.17),
             (56, 853_018, 855_770, 125.49), (110, 1_727_962, 1_730_714, 252.89)]


@pytest.mark.parametrize("depth, a, b, mmac", PUBLISHED)
def test_published_sizes(depth, a, b, mmac):
    plain, residual = getattr(models, f"plain{depth}")(), getattr(models, f"resnet{depth}")()
    assert residual.count_parameters() == plain.count_parameters() == a
    assert models.cifar(depth, shortcut="B").count_parameters() == b
    macs = residual.macs((3, 32, 32))
    assert round(macs / 1e6, 2) == mmac
    n = (depth - 2) // 6
    assert a == 97_216 * n - 21_926
    assert macs == 442_368 + 2_359_296 * (6 * n - 1) + 640 == plain.macs((3, 32, 32))


def test_the_1202_layers():
    assert models.resnet1202().count_parameters() == 19_421_274 == 97_216 * 200 - 21_926
    assert round((442_368 + 2_359_296 * 1199 + 640) / 1e6) == 2829


@pytest.mark.parametrize("depth", [20, 56])
@pytest.mark.parametrize("kind", [{"residual": False}, {}, {"shortcut": "B"}, {"block": "preact"}])
def test_depth_counts_layers_with_weights(depth, kind):
    net = models.cifar(depth, width=4, **kind)
    layers = [n for n, m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear)) and "downsample" not in n]
    assert len(layers) == depth


def test_the_stages_are_those_of_the_table():
    net, seen = models.resnet20(), []
    names = {id(m): n for n, m in net.modules()}
    with no_grad(), nn.watched(lambda m, i, out: seen.append((names[id(m)], out.shape[1:]))):
        net(Tensor(np.zeros((2, 3, 32, 32), np.float32)))
    shapes = dict(seen)
    assert shapes["conv1"] == (16, 32, 32) and shapes["fc"] == (10,)
    assert [shapes[f"layer{s}.{i}"] for s in (1, 2, 3) for i in range(3)] == (
        [(16, 32, 32)] * 3 + [(32, 16, 16)] * 3 + [(64, 8, 8)] * 3)


# -------------------------------------------------------------------------------------------------- names


def test_names_are_torchvisions():
    bn = ["weight", "bias", "running_mean", "running_var"]
    expected = ["conv1.weight", *(f"bn1.{s}" for s in bn)]
    for stage in (1, 2, 3):
        for i in range(3):
            block = f"layer{stage}.{i}"
            expected += [f"{block}.conv1.weight", *(f"{block}.bn1.{s}" for s in bn), f"{block}.conv2.weight",
                         *(f"{block}.bn2.{s}" for s in bn)]
            if stage > 1 and i == 0:
                expected += [f"{block}.downsample.0.weight", *(f"{block}.downsample.1.{s}" for s in bn)]
    expected += ["fc.weight", "fc.bias"]
    assert list(models.resnet20(width=4, shortcut="B").state()) == expected
    assert list(models.resnet20(width=4).state()) == [n for n in expected if "downsample" not in n]
    assert list(models.plain20(width=4).state()) == list(models.resnet20(width=4).state())


def test_a_pre_activation_network_has_its_last_norm_at_the_end():
    names = [n for n, _ in models.resnet20(width=4, block="preact").modules()]
    assert "bn1" not in names and names[-2:] == ["bn", "fc"] and names[1] == "conv1"
    net = models.resnet20(width=4, block="preact")
    assert [b.split_after_activation for b in (*net.layer1, *net.layer2, *net.layer3)] == [True] + [False] * 8


def test_options_reach_the_network():
    net = models.cifar(8, num_classes=7, in_channels=1, width=4, rng=rng())
    assert net.conv1.weight.shape == (4, 1, 3, 3) and net.fc.weight.shape == (7, 16)
    assert net(Tensor(normal(2, 1, 9, 7, dtype=np.float32))).shape == (2, 7)
    assert net(Tensor(normal(2, 1, 4, 4, dtype=np.float32))).shape == (2, 7)  # "from 4 x 4 up"
    assert models.cifar(8, width=4, norm="none").conv1.bias is not None
    assert all(b.by_hand for b in models.cifar(8, width=4, by_hand=True).layer3)


def test_the_same_seed_gives_the_same_weights_and_no_seed_is_seed_0():
    a, b, c, d = (models.cifar(8, width=4, **k).state() for k in ({"rng": rng(0)}, {}, {}, {"rng": rng(1)}))
    assert all((a[n].data == b[n].data).all() and (b[n].data == c[n].data).all() for n in a)
    assert (a["conv1.weight"].data != d["conv1.weight"].data).all()


def test_plain_and_residual_networks_of_one_seed_have_the_same_weights():
    a, b = models.plain20(width=4, rng=rng(5)).state(), models.resnet20(width=4, rng=rng(5)).state()
    assert all((a[n].data == b[n].data).all() for n in a)


# ----------------------------------------------------------------------------------------- against PyTorch


NETS = {  # options of cifar, here and in PyTorch
    "plain": {"depth": 20, "residual": False},
    "A both": {"depth": 20}, "A end": {"depth": 20, "pad": "end"}, "B": {"depth": 20, "shortcut": "B"},
    "C": {"depth": 20, "shortcut": "C"},
    "preact A": {"depth": 20, "block": "preact"}, "preact B": {"depth": 20, "block": "preact", "shortcut": "B"},
    "preact plain": {"depth": 14, "block": "preact", "residual": False},
    "bottleneck A end": {"depth": 20, "block": "bottleneck", "pad": "end"},
    "bottleneck B": {"depth": 29, "block": "bottleneck", "shortcut": "B"},
    "bottleneck plain": {"depth": 11, "block": "bottleneck", "residual": False},
    "preact bottleneck A": {"depth": 20, "block": "preact_bottleneck"},
    "preact bottleneck B": {"depth": 29, "block": "preact_bottleneck", "shortcut": "B"},
}


PRECISIONS = {"float64": (np.float64, "auto", 1e-10), "float32": (np.float32, "auto", 1e-4),
              "float32 by the reference kernels": (np.float32, "reference", 1e-4)}


@needs_torch
@pytest.mark.parametrize("name, training, precision", every(5, itertools.product(NETS, [True, False], PRECISIONS)))
def test_forward_and_all_gradients_against_pytorch(name, training, precision):
    import twins

    dtype, which, rtol = PRECISIONS[precision]
    net = models.cifar(**NETS[name], width=4, rng=rng(1)).astype(dtype).train(training)
    randomise(net)
    # The images are small, because two correct programs differ visibly if rounding moves an input of a ReLU across 0.
    images, labels = normal(5, 3, 10, 7, dtype=dtype), np.array([0, 9, 3, 3, 1])
    twins.compare(net, twins.loaded(twins.cifar(**NETS[name]), net), images, labels, rtol, which)


# ----------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("arguments, message", [
    ((21,), r"cifar: expected depth = 6n \+ 2 \(8, 14, 20, 32, .*\) with block 'basic', got 21"),
    ((44, True, "bottleneck"), r"cifar: expected depth = 9n \+ 2 \(11, 20, 29, .*\) with block 'bottleneck', got 44"),
    ((2,), "got 2"), ((-4,), "got -4"), ((2, True, "preact_bottleneck"), "got 2"),
    ((20, True, "bottle"), 'expected block "basic", "bottleneck", "preact" or "preact_bottleneck", got \'bottle\''),
    ((20, True, "basic", "D"), 'shortcut: expected "A", "B" or "C", got \'D\''),
    ((20, True, "basic", "A", "left"), 'pad: expected "both" or "end", got \'left\'')])
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.cifar(*arguments, width=4)


@pytest.mark.parametrize("options, message", [
    ({"norm": "layer"}, 'cifar: expected norm "batch", "none" or "fixup", got \'layer\''),
    ({"norm": "none", "block": "preact"}, 'need norm="batch", got norm=\'none\''),
    ({"norm": "none", "by_hand": True}, 'need norm="batch"'),
    ({"norm": "none", "block": "bottleneck", "depth": 11}, 'need norm="batch"'),
    ({"block": "bottleneck", "by_hand": True, "depth": 11},
     """by_hand=True supports only blocks "basic" and "preact", got 'bottleneck'"""),
    ({"norm": "fixup", "shortcut": "B"}, 'norm="fixup" is for residual networks with shortcut "A"'),
    ({"norm": "fixup", "residual": False}, 'norm="fixup" is for residual networks'),
    ({"residual": False, "by_hand": True}, "by_hand=True supports only residual blocks with BatchNorm")])
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(ValueError, match=message):
        models.cifar(**{"depth": 8, "width": 4, **options})


def test_the_wrong_number_of_image_channels_is_named():
    with pytest.raises(ValueError, match=r"Conv2d\(.*\): the input has 1 channels, the weight expects 3"):
        models.cifar(8, width=4)(Tensor(np.ones((2, 1, 8, 8), np.float32)))


def test_every_name_in_models_builds_what_it_says():
    for depth in (20, 32, 44, 56, 110):
        plain, residual = (getattr(models, f"{k}{depth}")(width=2) for k in ("plain", "resnet"))
        assert len(plain.layer1) == len(residual.layer3) == (depth - 2) // 6
        assert not plain.layer1[0].residual and residual.layer1[0].residual
    assert isinstance(init.fixup(models.cifar(8, norm="fixup", width=2)), models.CifarNet)
