"""Weights: every format is saved and loaded, under names as they are in the wild, and compared with PyTorch for every
family of networks. test_weights_damaged.py has the bad files."""

import argparse
import collections
import copy
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from fuzz import fuzz_pytorch
from helpers import difference, needs_torch, torch
from short import every
from weight_files import arrays, drawn, holds, normal, refuser, small

import minires
from minires import Tensor, load_weights, models, nn, save_weights


@pytest.fixture
def refuses(tmp_path):
    return refuser(tmp_path)


# ------------------------------------------------------------------------------------------------ there and back


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize("options", [{}, {"shortcut": "B"}, {"block": "preact"}, {"norm": "fixup"}, {"norm": "none"}])
def test_what_is_saved_loads_to_the_bit(tmp_path, suffix, options):
    a, b = small(**options), small(**options, rng=np.random.default_rng(1))
    a.load_state(drawn(a))
    path = tmp_path / f"weights{suffix}"
    save_weights(a, path)
    load_weights(b, path)
    assert holds(b, arrays(a)) and [p.name for p in tmp_path.iterdir()] == [path.name]
    assert all(x.data is not y.data for x, y in zip(a.state().values(), b.state().values(), strict=True))


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_weights_that_are_not_contiguous_in_memory(tmp_path, suffix):
    a, b = small(), small()
    for t in a.state().values():
        t.data = np.asfortranarray(normal(*t.shape, seed=1, dtype=np.float32)) if t.ndim > 1 else t.data
    assert not a.conv1.weight.data.flags.c_contiguous
    save_weights(a, tmp_path / f"w{suffix}")
    load_weights(b, tmp_path / f"w{suffix}")
    assert holds(b, arrays(a))


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_float16_halves_the_file_and_loads_as_float32(tmp_path, suffix):
    model, full, half = models.resnet20(), tmp_path / f"full{suffix}", tmp_path / f"half{suffix}"
    save_weights(model, full)
    for dtype in np.dtype("float16"), np.float16, "float16":
        save_weights(model, half, dtype)
    assert half.stat().st_size < 0.65 * full.stat().st_size
    expected = {name: a.astype(np.float16).astype(np.float32) for name, a in arrays(model).items()}
    load_weights(model, half)
    assert holds(model, expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_a_model_keeps_its_dtype(tmp_path, dtype):
    save_weights(small(), tmp_path / "w.npz")
    model = small(rng=np.random.default_rng(1)).astype(dtype)
    load_weights(model, tmp_path / "w.npz")
    assert holds(model, {name: a.astype(dtype) for name, a in arrays(small()).items()})


def test_the_content_tells_the_format_not_the_name(tmp_path):
    save_weights(small(rng=np.random.default_rng(5)), tmp_path / "w.npz")
    (tmp_path / "w.npz").rename(tmp_path / "w.safetensors")
    model = small()
    load_weights(model, str(tmp_path / "w.safetensors"))
    assert holds(model, arrays(small(rng=np.random.default_rng(5))))


@pytest.mark.parametrize("path, dtype, message", [
    ("w.pt", None, r"expected a file name that ends in .safetensors or .npz, got '.*w\.pt'; PyTorch reads both"),
    ("w", None, "got '.*w'"), ("w.npz", "bfloat16", "float64, got bfloat16"),
    ("w.npz", "int8", "dtype: expected float16, float32 or float64, got int8")])
def test_save_refuses(tmp_path, path, dtype, message):
    with pytest.raises(ValueError, match=f"save_weights: .*{message}"):
        save_weights(small(), tmp_path / path, dtype)
    assert list(tmp_path.iterdir()) == []


def test_numbers_too_large_for_the_dtype(tmp_path, refuses):
    model = small()
    model.fc.weight.data[0, 0] = 1e6
    (tmp_path / "w.npz").write_bytes(b"old")
    with pytest.raises(ValueError, match=r"save_weights: .*w\.npz, fc\.weight: it holds numbers too large for float16"):
        save_weights(model, tmp_path / "w.npz", "float16")
    assert (tmp_path / "w.npz").read_bytes() == b"old"
    large = {name: a.astype(np.float64) for name, a in arrays(small()).items()}
    large["fc.bias"][3] = 1e300
    refuses(large, "fc.bias: it holds numbers too large for float32, up to 1e+300")
    large["fc.bias"][3] = np.inf  # it is infinite in the file already, so it is not an overflow
    load_weights(small(), large)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    save_weights(small(), tmp_path / "w.safetensors")
    old = (tmp_path / "w.safetensors").read_bytes()

    def full(fd): raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_weights(small(shortcut="B"), tmp_path / "w.safetensors")
    assert (tmp_path / "w.safetensors").read_bytes() == old and len(list(tmp_path.iterdir())) == 1


def test_the_public_names():
    assert minires.load_weights is load_weights and {"load_weights", "weights"} <= set(dir(minires))


# ------------------------------------------------------------------------------------------ a dict; names


def test_a_dict_of_arrays_and_tensors_is_copied():
    model = small()
    given = drawn(model)
    load_weights(model, {n: Tensor(a) if n.startswith("layer1") else a for n, a in given.items()})
    assert holds(model, given)
    given["fc.bias"][:] = 0
    assert model.fc.bias.data.all()
    load_weights(model, arrays(model))


def prefixed(state): return {f"module.{n}": a for n, a in state.items()}
def compiled(state): return {f"_orig_mod.module.{n}": a for n, a in state.items()}
def inner(state): return {n.replace("layer1.", "layer1.module."): a for n, a in state.items()}
def linear(state): return {n.replace("fc.", "linear.").replace("downsample", "shortcut"): a for n, a in state.items()}
def counted(state): return {**state, "bn1.num_batches_tracked": np.array(3), "layer1.0.bn1.num_batches_tracked": 7}
def nested(state): return {"epoch": 3, "state_dict": prefixed(state), "optimizer": {"state": {}}}
def in_model(state): return {"model": {"state_dict": linear(state)}, "best": 91.2}
def in_net(state): return {"net": prefixed(state), "acc": 91.2, "epoch": 3}


@pytest.mark.parametrize("change", [prefixed, compiled, inner, linear, counted, nested, in_model, in_net])
def test_names_as_they_are_in_the_wild(change):
    model = small(shortcut="B")
    given = drawn(model)
    load_weights(model, change(given))
    assert holds(model, given)


RENAMED = [
    ({"stem": "conv1"}, lambda n: n.replace("conv1", "stem") if n.startswith("conv1") else n),
    ({"stem.": "conv1."}, lambda n: n.replace("conv1", "stem") if n.startswith("conv1") else n),
    ({"module.stem": "conv1"}, lambda n: f"module.{n}".replace("module.conv1", "module.stem")),
    ({"out.w": "fc.weight", "out.b": "fc.bias"}, lambda n: {"fc.weight": "out.w", "fc.bias": "out.b"}.get(n, n)),
    ({"conv_a": "conv1", "conv_b": "conv2"}, lambda n: n.replace("conv1", "conv_a").replace("conv2", "conv_b")),
    ({"0.weight": "conv1.weight"}, lambda n: n.replace("conv1.weight", "0.weight") if n[0] == "c" else n),
    ({"conv_a": "conv1", "conv_b": "conv2"},  # only in the blocks
     lambda n: n if n.startswith("conv1") else n.replace("conv1", "conv_a").replace("conv2", "conv_b")),
    ({"stage_1": "layer1", "stage_2": "layer2", "stage_3": "layer3", "bn_a": "bn1", "classifier": "fc"},
     lambda n: (n if n.startswith("bn1") else n.replace("bn1", "bn_a")).replace("layer", "stage_").replace(
         "fc", "classifier")),
    ({"encoder": ""}, lambda n: f"encoder.{n}"),
    ({"layer1": "layer2", "layer2": "layer1", "bn1": "bn1"},  # rules apply at once, so two names can be exchanged
     lambda n: {"layer1": "layer2", "layer2": "layer1"}.get(n[:6], n[:6]) + n[6:]),
    (lambda n: n[4:].replace(":", "."), lambda n: "abc/" + n.replace("layer1.0.", "layer1:0:")),
    (lambda n: n.removeprefix("module.").replace("head", "fc"), lambda n: f"module.{n}".replace("fc", "head")),
]


@pytest.mark.parametrize("rename, theirs", RENAMED)
def test_rename(rename, theirs):
    model = small()
    if "layer1" in (rename if isinstance(rename, dict) else {}):
        model.layer2 = small().layer1
    given = drawn(model)
    load_weights(model, {theirs(n): a for n, a in given.items()}, rename)
    assert holds(model, given)


def test_rename_prefers_the_longest_and_touches_no_other_name():
    model = small()
    given = drawn(model)
    wild = {n.replace("layer1.0", "a.b").replace("layer2", "a"): a for n, a in given.items()}
    load_weights(model, wild, {"a": "layer2", "a.b": "layer1.0"})
    assert holds(model, given)
    # "0" is also a part of other names, where replacing it would not give a name of the model
    load_weights(model, {n.replace("fc", "0"): a for n, a in given.items()}, {"0": "fc"})
    assert holds(model, given)


def test_a_rule_for_the_beginning_leaves_the_inside_alone():
    class Stemmed(nn.Module):
        def __init__(self): self.stem, self.block = small().conv1, small().layer1[0]

    model = Stemmed()
    given = drawn(model)
    load_weights(model, {n.replace("stem", "conv1"): a for n, a in given.items()}, {"conv1": "stem"})
    assert holds(model, given)


def test_rename_that_fits_nothing_is_an_error():
    with pytest.raises(ValueError, match=r"load_weights: rename: unknown name 'layer1\.0\.conv'; did you mean "):
        load_weights(small(), drawn(small()), {"layer1.0.conv": "layer1.0.conv1"})
    with pytest.raises(TypeError, match="rename: expected a dict of names, a function or a list of these, got str"):
        load_weights(small(), drawn(small()), "fc=linear")


def test_a_model_of_ones_own_may_be_named_module():
    class Wrapped(nn.Module):
        def __init__(self): self.module = small()

    model = Wrapped()
    given = drawn(model)
    load_weights(model, given)
    assert holds(model, given)


# ---------------------------------------------------------------------------------------------- what does not fit


def test_all_that_does_not_fit_is_named_with_both_shapes(refuses):
    given = drawn(small())
    del given["fc.bias"]
    given |= {"extra.weight": np.zeros(2, np.float32), "conv1.weight": np.zeros((2, 3, 3, 3), np.float32)}
    refuses(given, "the given dict: 3 entries do not fit the 37 of CifarNet: missing fc.bias; unexpected extra.weight; "
                   "conv1.weight: expected shape (1, 3, 3, 3), got (2, 3, 3, 3)")
    refuses({"state_dict": {**given, "fc.bias": 3}}, "fc.bias: expected shape (10,), got int")


def test_of_many_misfits_the_first_are_shown_and_all_counted(refuses):
    refuses(drawn(models.cifar(8, width=2)), "36 entries do not fit", "(2, 3, 3, 3)", "; and 31 more like these")
    refuses({}, "37 entries do not fit", "missing conv1.weight")


def test_numbers_that_are_no_weights(refuses):
    given = drawn(small())
    for dtype in (np.int64, np.bool_, np.complex64):
        refuses({**given, "fc.bias": np.zeros(10, dtype)},
                f"fc.bias: expected floating-point numbers, got {np.dtype(dtype)}")
    refuses({**given, "fc.bias": np.array([None] * 10)}, "fc.bias: expected floating-point numbers, got object")


def test_two_names_that_become_one(refuses):
    given = drawn(small())
    refuses({**given, "module.fc.bias": given["fc.bias"]}, "both fc.bias and module.fc.bias would become fc.bias")


# ------------------------------------------------------------------------------------------------ against PyTorch


VGG = {"width": 4, "hidden": 12, "dropout": 0.0}
FAMILIES = {  # a depth for CIFAR or a name for ImageNet, the options here and in PyTorch, the shape of an image
    "plain": (20, {"residual": False}, (3, 10, 7)),
    "A both": (20, {}, (3, 10, 7)), "A end": (20, {"pad": "end"}, (3, 10, 7)),
    "B": (20, {"shortcut": "B"}, (3, 10, 7)), "C": (14, {"shortcut": "C"}, (3, 10, 7)),
    "bottleneck B": (20, {"block": "bottleneck", "shortcut": "B"}, (3, 10, 7)),
    "preact A": (20, {"block": "preact"}, (3, 10, 7)),
    "preact B": (20, {"block": "preact", "shortcut": "B"}, (3, 10, 7)),
    "preact bottleneck": (20, {"block": "preact_bottleneck", "shortcut": "B"}, (3, 10, 7)),
    "resnet18": ("resnet18", {"width": 4}, (3, 40, 36)),
    "resnet34 A end": ("resnet34", {"width": 4, "shortcut": "A", "pad": "end"}, (3, 40, 36)),
    "plain18": ("plain18", {"width": 4}, (3, 40, 36)), "resnet50": ("resnet50", {"width": 4}, (3, 40, 36)),
    "resnet50 v1": ("resnet50", {"width": 4, "version": "v1"}, (3, 40, 36)),
    "vgg16": ("vgg16", VGG, (3, 40, 36)), "vgg19_bn": ("vgg19_bn", VGG, (3, 64, 48)),
    "googlenet": ("googlenet", {"width": 8, "dropout": 0.0}, (3, 64, 48)),
}


def both(family):
    """Return the network of minires and the same network in PyTorch."""
    import twins

    which, options, _ = FAMILIES[family]
    if isinstance(which, int):
        return models.cifar(which, width=4, **options), twins.cifar(which, **options)
    return models.build(which, num_classes=7, **options), twins.build(which, **options)


@needs_torch
@pytest.mark.parametrize("family, legacy", every(5, itertools.product(FAMILIES, [False, True])))
def test_saved_by_pytorch_loaded_here(tmp_path, family, legacy):
    """PyTorch's random weights and statistics are loaded from its file. Logits in eval mode, and the gradients and
    statistics of a training step, then agree."""
    import twins

    (ours, theirs), shape = both(family), FAMILIES[family][2]
    twins.randomised(theirs, seed=2)
    state = collections.OrderedDict((f"module.{n}", v) for n, v in theirs.state_dict().items())
    checkpoint = {"state_dict": state, "epoch": 3, "best_prec1": torch.tensor(91.2), "best": np.float64(91.2),
                  "args": argparse.Namespace(lr=0.1), "optimizer": {"state": {0: state}}}
    torch.save(checkpoint, tmp_path / "w.th", _use_new_zipfile_serialization=not legacy)
    load_weights(ours, tmp_path / "w.th")

    images, labels = normal(6, *shape, seed=2, dtype=np.float32), np.array([0, 6, 3, 3, 1, 5])
    with torch.no_grad():
        expected = theirs.eval()(torch.tensor(images))
    ours.eval()
    with minires.no_grad():
        folded = ours(Tensor(images))
    assert difference(folded.data, expected.numpy()) < 1e-4
    assert difference(ours(Tensor(images)).data, expected.numpy()) < 1e-4

    # Where a ReLU's input is within rounding of 0, two correct programs can differ in float32, and so can two runs of
    # PyTorch. So float64 is compared too, and the seed is one that gives no ReLU such an input.
    wide = copy.deepcopy(ours).astype(np.float64), copy.deepcopy(theirs).double()
    for (a, b), x, rtol in ((ours, theirs), images, 1e-4), (wide, images.astype(np.float64), 1e-9):
        # `floor`: the gradient of a bias before a BatchNorm is 0 up to rounding
        twins.compare(a.train(), b.train(), x, labels, rtol, floor=0.1)


@needs_torch
@pytest.mark.parametrize("family, suffix", every(3, itertools.product(
    ["B", "preact A", "vgg19_bn", "googlenet"], [".safetensors", ".npz"])))
def test_what_is_saved_here_loads_into_pytorch(tmp_path, family, suffix):
    ours, theirs = both(family)
    ours.load_state({n: np.abs(a) if n.endswith("var") else a for n, a in drawn(ours).items()})
    save_weights(ours, tmp_path / f"w{suffix}")
    if suffix == ".npz":
        state = {n: torch.tensor(a) for n, a in np.load(tmp_path / "w.npz").items()}
    else:
        from safetensors.torch import load_file
        state = load_file(tmp_path / "w.safetensors")
    result = theirs.load_state_dict(state, strict=False)
    assert result.unexpected_keys == [] and all(n.endswith("num_batches_tracked") for n in result.missing_keys)
    assert all(torch.equal(theirs.state_dict()[n], torch.tensor(t.data)) for n, t in ours.state().items())


@pytest.mark.slow
@needs_torch
@pytest.mark.parametrize("legacy", [False, True], ids=["today", "legacy"])
def test_a_very_deep_and_narrow_network_with_its_optimizer_is_within_every_bound(tmp_path, legacy):
    """14,000 tensors in a file of 3 to 5 MB: the most objects that a real file has for its size."""
    model = models.cifar(1202, width=1)
    state = {f"module.{n}": torch.tensor(a) for n, a in drawn(model).items()}
    state |= {n.replace("running_var", "num_batches_tracked"): torch.tensor(3) for n in state if "running_var" in n}
    momentum = {i: {"momentum_buffer": v.clone()} for i, v in enumerate(state.values())}
    checkpoint = {"state_dict": state, "optimizer": {"state": momentum, "param_groups": [{"params": list(momentum)}]}}
    torch.save(checkpoint, tmp_path / "w", _use_new_zipfile_serialization=not legacy)
    load_weights(model, tmp_path / "w")
    assert holds(model, drawn(model))


@needs_torch
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("kind", ["today", "legacy", "protocol 4", "safetensors", "dict"])
def test_widths_of_pytorch(tmp_path, dtype, kind):
    model = small()
    state = {n: torch.tensor(a).to(getattr(torch, dtype)) for n, a in drawn(model).items()}
    path = tmp_path / "w"
    if kind == "safetensors":
        from safetensors.torch import save_file
        save_file(state, path)
    elif kind != "dict":
        torch.save(state, path, _use_new_zipfile_serialization=kind != "legacy",
                   pickle_protocol=4 if kind == "protocol 4" else 2)
    load_weights(model, state if kind == "dict" else path)
    assert holds(model, {n: v.float().numpy() for n, v in state.items()})


@needs_torch
@pytest.mark.parametrize("legacy", [False, True], ids=["today", "legacy"])
def test_views_parameters_and_a_whole_model_of_pytorch(tmp_path, legacy, refuses):
    given, path = drawn(small()), tmp_path / "w.pt"
    joined = torch.tensor(np.concatenate([a.ravel() for a in given.values()]))
    parts = torch.split(joined, [a.size for a in given.values()])
    views = {n: p.view(a.shape) for (n, a), p in zip(given.items(), parts, strict=True)}
    views["fc.weight"] = views["fc.weight"].T.contiguous().T  # not contiguous
    views["fc.bias"] = torch.nn.Parameter(torch.full((1,), 2.5).expand(10))  # a stride of 0, and a Parameter
    torch.save(views, path, _use_new_zipfile_serialization=not legacy)
    load_weights(model := small(), path)
    assert holds(model, {**given, "fc.bias": np.full(10, 2.5, np.float32)})

    torch.save(torch.nn.Linear(2, 3), path, _use_new_zipfile_serialization=not legacy)
    refuses(path.read_bytes(), "it names torch.nn.modules.linear.Linear", "nothing was run")


class FakeGpu(np.ndarray):
    """Stands for an array on a GPU: `device` looks at the module of the class."""


def test_the_model_says_where_the_arrays_go(monkeypatch):
    """The array module of the model's arrays makes the new arrays, so on a GPU they are made there."""
    made = []

    class Elsewhere:
        @staticmethod
        def asarray(a):
            made.append(type(a))
            return a.view(FakeGpu)

    model = small()
    monkeypatch.setattr(minires.weights.device, "of", lambda *a, **k: Elsewhere)
    load_weights(model, drawn(small()))
    assert {type(t.data) for t in model.state().values()} == {FakeGpu} and set(made) == {np.ndarray}


@pytest.mark.gpu
def test_on_a_gpu(tmp_path):
    if minires.device.use("auto") != "gpu":
        pytest.skip(minires.device.reason)
    model = small().to("gpu")
    load_weights(model, fuzz_pytorch.TODAY)
    assert all(minires.device.on_gpu(t.data) for t in model.state().values())
    save_weights(model, tmp_path / "w.safetensors")
    load_weights(on_cpu := small(), tmp_path / "w.safetensors")
    assert holds(on_cpu, {n: t.data.get() for n, t in model.state().items()})
    load_weights(on_cpu, model.state())
    assert Path(tmp_path / "w.safetensors").exists()
