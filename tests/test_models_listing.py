"""Test networks by name, the listing of their sizes, summaries, and the kernels that compute only shapes."""

import json
import re

import numpy as np
import pytest
from helpers import difference, normal
from short import every

from minires import Tensor, analysis, cli, gradcheck, init, kernels, models, nn, no_grad, ops


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def listed():
    return list(models.listing())


# --------------------------------------------------------------------------------------------- by name


def test_every_name_builds_its_network(listed):
    assert [net.name for net in listed] == list(models.BY_NAME)
    for name, function in models.BY_NAME.items():
        assert getattr(models, name) is function and name in models.__all__
    assert type(models.build("ResNet-20", width=2)) is models.CifarNet
    assert models.build("VGG-16_bn", width=2, hidden=4).features[1].weight.shape == (2,)


def test_an_unknown_name_or_option_is_refused():
    with pytest.raises(ValueError, match=r"model: unknown name 'resnet21'; did you mean resnet"):
        models.build("resnet21")
    with pytest.raises(ValueError, match=r"model resnet20: there is no option 'widht'; the options are block, "
                                         r"shortcut, pad, num_classes, in_channels, width, norm, bias, by_hand, rng$"):
        models.build("resnet20", widht=4)
    with pytest.raises(ValueError, match=r"model vgg16: there is no option 'shortcut'; the options are batch_norm, "
                                         r".*hidden"):
        models.build("vgg16", shortcut="A")


def test_undrawn_weights_have_the_same_shapes():
    for name, options in ("resnet20", {}), ("vgg16_bn", {"hidden": 4}), ("googlenet", {}):
        drawn = models.build(name, width=4, **options).state()
        with init.undrawn():
            zeros = models.build(name, width=4, **options).state()
        assert [(n, t.shape, t.dtype) for n, t in zeros.items()] == [(n, t.shape, t.dtype) for n, t in drawn.items()]
        assert not any(t.data.any() for t in zeros.values() if t.ndim > 1)


# ------------------------------------------------------------------------------------------------ sizes


def test_the_listing_is_what_the_networks_say(listed):
    by_name = {net.name: net for net in listed}
    for name, net in by_name.items():
        found = re.search(r"(?<=net)\d+|(?<=n|g|t)\d+|(?<=plain)\d+", name)
        assert net.layers == (int(found[0]) if found else 22)  # GoogLeNet: 22 layers
    for name in "resnet20", "preact_resnet32", "resnet164":
        net, entry = models.build(name), by_name[name]
        assert (entry.parameters, entry.macs) == (net.count_parameters(), net.macs(entry.input_shape))
    # torchvision's documentation gives these numbers of parameters, and 11.4 and 4.23 billion multiply-accumulates.
    wide, grouped = by_name["wide_resnet50_2"], by_name["resnext50_32x4d"]
    assert wide[2:4] == (50, 68_883_240) and round(wide.macs / 1e9, 1) == 11.4
    assert grouped[2:4] == (50, 25_028_904) and round(grouped.macs / 1e9, 2) == 4.23
    assert by_name["resnet1202"][2:] == (1202, 19_421_274, 442_368 + 2_359_296 * 1199 + 640, (3, 32, 32))
    # v2, section 4, gives "1.7M" and "10.2M". The exact numbers are sums over stem, three stages of bottlenecks, head.
    for name, n in ("preact_resnet164", 18), ("preact_resnet1001", 111):
        total, into = 3 * 9 * 16, 16
        for width in 16, 32, 64:
            total += into * 4 * width
            for _ in range(n):
                total += 2 * into + into * width + 2 * width + 9 * width * width + 2 * width + width * 4 * width
                into = 4 * width
        assert by_name[name].parameters == total + 2 * 256 + 256 * 10 + 10
    assert round(by_name["preact_resnet164"].parameters / 1e6, 1) == 1.7


def test_the_command(capsys, listed, monkeypatch):
    monkeypatch.setattr(models, "listing", lambda: listed)  # a new listing would take a second
    assert cli.main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "CIFAR, plain (2015); images 3 x 32 x 32"
    assert [line.split() for line in lines if " resnet50 " in line] == [["resnet50", "50", "25,557,032", "4,089.18"]]
    assert sum(line.startswith("    ") for line in lines) == len(listed) + len(models.FAMILIES)
    assert max(map(len, lines)) <= 80


def test_the_command_as_json(capsys, listed, monkeypatch):
    monkeypatch.setattr(models, "listing", lambda: listed)
    assert cli.main(["models", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert [tuple(e.values()) for e in entries] == [(*net[:-1], list(net.input_shape)) for net in listed]
    assert list(entries[0]) == ["family", "name", "layers", "parameters", "macs", "input_shape"]


# ---------------------------------------------------------------------------------- counting by shapes


NETS = {"A": ("resnet20", {}), "C": ("resnet20", {"shortcut": "C"}), "preact": ("preact_resnet164", {}),
        "fixup": ("resnet20", {"norm": "fixup"}), "by hand": ("resnet20", {"by_hand": True}), "50": ("resnet50", {}),
        "grouped": ("resnet50", {"groups": 2, "width_per_group": 64}), "biases": ("resnet50", {"bias": True}),
        "vgg": ("vgg16", {"hidden": 8}), "vgg_bn": ("vgg19_bn", {"hidden": 8}), "googlenet": ("googlenet", {})}


@pytest.mark.parametrize("name", every(2, NETS))
def test_counting_agrees_with_computing(name):
    """Check that output shapes and MACs of each module are the same when the network computes on random numbers."""
    which, options = NETS[name]
    net = models.build(which, width=4, **options)
    names, seen, shape = {id(m): n for n, m in net.modules()}, {True: [], False: []}, (3, 37, 45)
    counting = True
    with nn.watched(lambda m, i, out: seen[counting].append((names[id(m)], out.shape))):
        macs = net.macs(shape)
        counting = False
        with no_grad():
            net.eval()(Tensor(normal(1, *shape, dtype=np.float32)))
    assert seen[True] == seen[False]
    shapes, modules = dict(seen[False]), dict(net.modules())
    assert macs == sum(m.weight.size * int(np.prod(shapes[n][2:])) for n, m in modules.items()
                       if isinstance(m, (nn.Conv2d, nn.Linear)))


def test_counting_leaves_no_trace():
    net = models.cifar(8, width=4)
    before = {n: t.data for n, t in net.state().items()}
    net.layer1[0].eval()
    modes = [m.training for _, m in net.modules()]
    net.macs((3, 9, 8))
    net.depth((3, 9, 8))
    assert all(t.data is before[n] and t.grad is None for n, t in net.state().items())
    assert modes == [m.training for _, m in net.modules()]
    assert kernels.of(np.zeros(1, np.float32)) is not kernels.shapes


def test_depth_needs_a_graph():
    with no_grad(), pytest.raises(RuntimeError, match=r"no_grad\(\) records no graph"):
        models.cifar(8, width=4).depth((3, 8, 8))
    frozen = models.cifar(8, width=4, shortcut="C")
    for t in frozen.parameters():
        t.requires_grad = False
    assert frozen.depth((3, 8, 8)) == 8


def calls(dtype):
    x, w = normal(2, 3, 9, 8, dtype=dtype), normal(4, 3, 3, 2, dtype=dtype)
    c = np.ones(3, dtype)
    return {"add": (x, x), "matmul": (c[:, None], c[None]), "conv2d": (x, w, (2, 1), (1, 0)),
            "batch_norm": (x, c, c, 0.1), "batch_norm_eval": (x, c, c, c, c, 0.1),
            "batch_norm_relu": (x, c, c, 0.1, x), "running_statistics": (c, c, c, c, 0.1, 7), "relu": (x,),
            "max_pool2d": (x, (3, 2), (2, 3), (1, 1)),
            "avg_pool2d": (x, (3, 2), (2, 3), (1, 0)), "shortcut": (x, 2, 7, "both"), "log_softmax": (x[:, :, 0, 0], 1),
            "cross_entropy": (x[:, :, 0, 0], np.array([0, 2]))}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", kernels.shapes.__all__)
def test_shapes_are_those_of_the_reference(name, dtype):
    got, want = (getattr(module, name)(*calls(dtype)[name]) for module in (kernels.shapes, kernels.reference))
    got, want = (v if isinstance(v, tuple) else (v,) for v in (got, want))
    arrays = 3 if name in ("batch_norm", "batch_norm_relu") else 2 if name == "running_statistics" else 1
    for a, b in zip(got[:arrays], want[:arrays], strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype


def test_shapes_are_not_for_the_environment():
    with pytest.raises(ValueError, match="expected one of auto, native, blocked, reference, got 'shapes'"):
        kernels._checked("shapes", "MINIRES_KERNELS")  # private: the environment is read once per process


def test_using_shapes_refuses_what_the_reference_refuses():
    with kernels.using("shapes"), pytest.raises(ValueError, match="is larger than the input"):
        ops.conv2d(Tensor(np.ones((1, 1, 2, 2))), Tensor(np.ones((1, 1, 3, 3))))


# --------------------------------------------------------------------------------------- repr and summary


def rows(capsys, net, shape):
    net.summary(shape)
    return capsys.readouterr().out.splitlines()


def test_summary(capsys):
    lines = rows(capsys, models.cifar(20, width=4, shortcut="B"), (3, 32, 30))
    assert len({len(line) for line in lines}) == 1  # aligned
    cells = [line.split() for line in lines]
    assert cells[0] == ["layer", "kind", "output", "parameters", "MACs"]
    assert cells[1] == ["conv1", "Conv2d(3x3)", "4x32x30", "108", "103,680"]
    projection = next(c for c in cells if c[0] == "layer2.0.downsample.0")
    assert projection[1:] == ["Conv2d(1x1,", "/2)", "8x16x15", "32", f"{32 * 16 * 15:,}"]
    repeated = next(line for line in lines if "more like" in line)
    assert repeated.startswith("layer1.1 ... layer1.2") and "2 more like layer1.0" in repeated
    assert repeated.split()[-2:] == [str(2 * (2 * 144 + 16)), f"{2 * 2 * 144 * 32 * 30:,}"]
    once = rows(capsys, models.cifar(14, width=4), (3, 32, 30))[7]
    assert once.split()[:5] == ["layer1.1", "1", "more", "like", "layer1.0"]
    net = models.cifar(20, width=4, shortcut="B")
    assert cells[-1] == ["total", f"{net.count_parameters():,}", f"{net.macs((3, 32, 30)):,}"]


@pytest.mark.parametrize("name, options, shape", [
    ("resnet110", {}, (3, 32, 32)), ("preact_resnet164", {}, (3, 32, 32)), ("resnet20", {"norm": "fixup"}, (3, 32, 32)),
    ("resnet50", {}, (3, 64, 64)), ("vgg16_bn", {"hidden": 8}, (3, 32, 32)), ("googlenet", {}, (3, 64, 64))])
def test_the_lines_of_a_summary_add_up(capsys, name, options, shape):
    lines = rows(capsys, models.build(name, width=4, **options), shape)
    numbers = [[int(n.replace(",", "")) for n in line.split()[-2:]] for line in lines[1:]]
    assert np.sum(numbers[:-1], 0).tolist() == numbers[-1]
    assert max(map(len, lines)) <= 80


def test_the_lines_of_a_summary_add_up_with_shared_layers_and_tensors_in_lists(capsys):
    class Shared(nn.Module):
        def __init__(self):
            one = nn.Linear(4, 4, rng=rng())
            self.first, self.again = one, one
            self.many = nn.Sequential(nn.Linear(4, 4, rng=rng()), one, one)
            self.scales = [Tensor(np.ones(3, np.float32), True), Tensor(np.ones(2, np.float32), True)]

        def forward(self, x):
            return self.many(self.again(self.first(x.reshape(len(x), -1))))

    lines = rows(capsys, Shared(), (1, 2, 2))
    numbers = [[int(n.replace(",", "")) for n in line.split()[-2:]] for line in lines[1:]]
    assert np.sum(numbers[:-1], 0).tolist() == numbers[-1] == [45, 80]


def test_a_summary_fits_80_columns(capsys):
    with init.undrawn():
        for name in "resnet152", "vgg19_bn", "googlenet", "preact_resnet1001", "resnet20":
            lines = rows(capsys, models.build(name), (3, 32, 32) if name in ("preact_resnet1001", "resnet20") else
                         (3, 224, 224))
            assert max(map(len, lines)) <= 80 and len({line.split()[0] for line in lines}) > 10, name


def test_a_summary_names_what_did_not_run(capsys):
    class Spare(nn.Module):
        def __init__(self):
            self.fc, self.spare = nn.Linear(4, 2, rng=rng()), nn.Linear(2, 2, rng=rng())

        def forward(self, x):
            return self.fc(x.reshape(len(x), -1))

    line = next(line for line in rows(capsys, Spare(), (1, 2, 2)) if line.startswith("spare"))
    assert "not used" in line and line.split()[-2:] == ["6", "0"]


def test_the_repr_of_a_deep_network_is_short():
    with init.undrawn():
        text = repr(models.resnet1202())
    assert len(text.splitlines()) < 50 and "layer1.0 ... layer1.199 (200 alike): Block(residual" in text
    assert "layer2.0: Block" in text and "layer2.1 ... layer2.199 (199 alike): Block" in text
    assert "(2 alike)" not in repr(models.cifar(8, norm="fixup"))  # conv1 and conv2 have names, not numbers


def test_the_repr_says_what_a_block_is():
    for net, said in [
            (models.resnet164(width=4), "Bottleneck(residual, bottleneck"), (models.plain18(width=4), "Block(plain\n"),
            (models.preact_resnet164(width=4), "PreactBottleneck(residual, pre-activation bottleneck"),
            (models.placement_study("bn_after_addition", 8), "PlacedBlock(residual, bn_after_addition"),
            (models.shortcut_study("dropout", 8), "DropoutShortcut(residual, shortcut dropout")]:
        assert said in repr(net)


# ------------------------------------------------------------------------- pools that extend beyond the border


@pytest.mark.parametrize("size, kernel, stride, padding, out", [
    ((7, 8), 3, 2, 0, (3, 4)), ((7, 8), 2, 2, 0, (4, 4)), ((6, 5), 2, 2, 1, (4, 3)), ((5, 6), 3, 3, 1, (2, 3)),
    ((6, 9), (3, 2), (2, 5), (0, 1), (3, 2)), ((2, 4), 3, 2, 0, (1, 2)), ((7, 7), 3, 1, 1, (7, 7))])
def test_ceil_mode(size, kernel, stride, padding, out):
    x = normal(2, 3, *size)
    y = ops.max_pool2d(Tensor(x), kernel, stride, padding, ceil_mode=True)
    (kh, kw), (sh, sw), (ph, pw) = (ops.pair(v) for v in (kernel, stride, padding))
    expected = np.empty((2, 3, *out))
    for i in range(out[0]):
        for j in range(out[1]):
            rows = slice(max(0, i * sh - ph), i * sh - ph + kh)
            expected[:, :, i, j] = x[:, :, rows, max(0, j * sw - pw):j * sw - pw + kw].max((2, 3))
    assert y.shape == expected.shape and (y.data == expected).all()
    assert (nn.MaxPool2d(kernel, stride, padding, ceil_mode=True)(Tensor(x)).data == expected).all()
    gradcheck(lambda x: ops.max_pool2d(x, kernel, stride, padding, ceil_mode=True), x)


def test_ceil_mode_against_pytorch():
    torch = pytest.importorskip("torch", reason="compared with PyTorch, which is not installed")
    for size in range(3, 12):
        for kernel, stride, padding in (2, 2, 0), (3, 2, 0), (3, 2, 1), (2, 3, 1), (3, 4, 1), (3, 5, 0), (2, 3, 0):
            x = normal(1, 2, size, size + 1, dtype=np.float32)
            got = ops.max_pool2d(Tensor(x), kernel, stride, padding, ceil_mode=True).data
            want = torch.nn.functional.max_pool2d(torch.tensor(x), kernel, stride, padding, ceil_mode=True).numpy()
            assert np.array_equal(got, want), (size, kernel, stride, padding)


@pytest.mark.parametrize("shape, size", [((2, 3, 7, 7), 7), ((2, 3, 1, 2), 7), ((2, 3, 14, 9), 4), ((2, 3, 5, 11), 3)])
def test_adaptive_average_pool(shape, size):
    torch = pytest.importorskip("torch", reason="compared with PyTorch, which is not installed")
    x, pool = normal(*shape), nn.AdaptiveAvgPool2d(size)
    expected = torch.nn.functional.adaptive_avg_pool2d(torch.tensor(x), size).numpy()
    assert difference(pool(Tensor(x)).data, expected) < 1e-14
    gradcheck(pool, x)
    assert pool(Tensor(x.astype(np.float32))).dtype == np.float32
    assert pool(Tensor(x[:0])).shape == (0, *expected.shape[1:])


# ----------------------------------------------------------------------------- analyses and initialisation


INSIDE = {"bottleneck": ("resnet164", 1 + 3 * 18), "preact": ("preact_resnet20", 1 + 9), "basic": ("resnet18", 16),
          "50": ("resnet50", 16), "vgg": ("vgg16_bn", 13), "googlenet": ("googlenet", 1 + 2 * 9)}


@pytest.mark.parametrize("name", INSIDE)
def test_the_analyses_find_the_layers(name):
    """Every 3x3 convolution followed by a BatchNorm has a response, initially 1, and every layer has gradients."""
    which, found = INSIDE[name]
    net = models.build(which, width=4, num_classes=3, **({"hidden": 8} if name == "vgg" else {}))
    x = normal(4, 3, 33, 40, dtype=np.float32)
    measured = analysis.responses(net, x)
    assert len(measured) == found and all(abs(r - 1) < 0.05 for r in measured.values())
    flow = analysis.gradient_flow(net, x, np.array([0, 1, 2, 0]))
    layers = [n for n, m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear)) and "downsample" not in n]
    assert list(flow.weights) == list(flow.activations) == layers and all(np.isfinite([*flow.weights.values()]))


@pytest.mark.parametrize("net", [
    models.build("resnet50", width=4), models.build("resnet164", width=4), models.shortcut_study("dropout", 8, width=4),
    models.placement_study("relu_before_addition", 11, bottleneck=True, width=4),
    models.placement_study("relu_only_preact", 8, width=4)], ids=["resnet50", "resnet164", "dropout", "before", "only"])
def test_zero_last_gamma_makes_every_block_its_shortcut(net):
    init.zero_last_gamma(net.eval())
    for block in net.blocks():
        channels, stride = block.branch()[0][0].weight.shape[1], block.stride
        x = Tensor(np.abs(normal(2, channels, 6, 8, dtype=np.float32)))
        out = block.branch()[-1][0].weight.shape[0]
        skip = block.shortcut(x).data
        assert block(x).shape == (2, out, 6 // stride, 8 // stride)
        assert (np.maximum(block(x).data, 0) == np.maximum(skip, 0)).all()


def test_zero_last_gamma_refuses_a_network_whose_blocks_end_behind_the_addition():
    with pytest.raises(ValueError, match="no residual block that ends in a BatchNorm"):
        init.zero_last_gamma(models.placement_study("bn_after_addition", 8, width=4))


def test_by_hand_is_not_written_for_bottlenecks():
    with pytest.raises(ValueError, match="by_hand=True supports only block"):
        models.build("resnet164", by_hand=True)
    for block in nn.Bottleneck, nn.PreactBottleneck:
        with pytest.raises(TypeError, match="by_hand"):
            block(4, 8, by_hand=True, rng=rng())
