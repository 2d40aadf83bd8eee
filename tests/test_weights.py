"""Weights: every format is saved and loaded, compared with PyTorch for every family of networks, and bad files are
refused."""

import argparse
import collections
import copy
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fuzz import fuzz_pytorch, mutations
from helpers import difference, needs_torch, same_bits, torch

import minires
from minires import Tensor, load_weights, models, nn, save_weights
from minires.files import pickles

FILES = fuzz_pytorch.TODAY, fuzz_pytorch.LEGACY


def small(**options):
    return models.cifar(8, width=1, **options)


def arrays(model):
    return {name: t.data.copy() for name, t in model.state().items()}


def drawn(model, seed=0):
    """{name: array} of random numbers that fit the model, float32."""
    return {name: normal(*t.shape, seed=[seed, i], dtype=np.float32) if t.ndim else t.data
            for i, (name, t) in enumerate(model.state().items())}


def normal(*shape, seed, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def holds(model, expected):
    return list(model.state()) == list(expected) and all(same_bits(t.data, expected[n])
                                                         for n, t in model.state().items())


@pytest.fixture
def refuses(tmp_path):
    """Return check(content or dict, *parts of the message, rename=None), which expects a ValueError with these parts,
    and an unchanged model. Content is written to a file, and the message must contain the file's name."""
    def check(source, *parts, rename=None, model=None):
        model = model or small()
        before, objects = arrays(model), [t.data for t in model.state().values()]
        if isinstance(source, bytes):
            (tmp_path / "given").write_bytes(source)
            source, parts = tmp_path / "given", (*parts, str(tmp_path / "given"))
        with pytest.raises(ValueError, match=r"^load_weights: ") as caught:
            load_weights(model, source, rename)
        assert type(caught.value) is ValueError
        assert [p for p in parts if p not in str(caught.value)] == [], str(caught.value)
        assert holds(model, before) and all(t.data is a for t, a in zip(model.state().values(), objects, strict=True))
    return check


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
    with pytest.raises(TypeError, match="rename: expected a dict of names or a function, got str"):
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


# -------------------------------------------------------------------------------------------------- damaged files


def npz(**entries):
    file = io.BytesIO()
    np.savez(file, **entries)
    return file.getvalue()


def test_no_weights_at_all(refuses, tmp_path):
    refuses(b"", "it is empty")
    refuses(b"version https://git-lfs.github.com/spec/v1\n", "does not begin like a .safetensors, .npz or PyTorch file")
    refuses(bytes(257) + b"ustar" + bytes(1000), "a tar file, which PyTorch wrote before 0.2")
    refuses(fuzz_pytorch.zipped([("a.txt", b"a")]), "a zip file without a data.pkl, so torch.save did not write it")
    refuses(pickle.dumps([1]), "a pickle, but torch.save did not write it")
    with pytest.raises(FileNotFoundError, match="nothing"):
        load_weights(small(), tmp_path / "nothing")
    with pytest.raises(OSError, match=str(tmp_path)):
        load_weights(small(), tmp_path)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_every_truncation_is_refused(tmp_path, refuses, suffix):
    save_weights(small(), tmp_path / f"w{suffix}")
    content = (tmp_path / f"w{suffix}").read_bytes()
    for n in [*range(0, 300, 7), *range(300, len(content), 997), len(content) - 1]:
        refuses(content[:n])


@pytest.mark.parametrize("file", FILES, ids=["today", "legacy"])
def test_every_truncation_of_pytorchs_files_is_refused(refuses, file):
    content = file.read_bytes()
    for n in [*range(0, 200, 9), *range(200, len(content), 199), len(content) - 1]:
        refuses(content[:n])


def test_a_flipped_bit_in_an_npz_is_noticed(tmp_path, refuses):
    save_weights(small(), tmp_path / "w.npz")
    content = bytearray((tmp_path / "w.npz").read_bytes())
    at = content.index(small().conv1.weight.data.tobytes())
    content[at] ^= 1
    refuses(bytes(content), "it is damaged (BadZipFile: Bad CRC-32 for file 'conv1.weight.npy')")


def test_an_npz_that_would_run_a_pickle(refuses):
    given = drawn(small())
    given["fc.bias"] = np.array([print] * 10, dtype=object)
    refuses(npz(**given), "fc.bias: expected floating-point numbers, got object")


def test_claimed_sizes_are_not_believed(refuses):
    """An .npy header, a safetensors header and a stride of 0 each claim at least a terabyte."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
    promise = "w: expected shape (3,), got (1000000000000,)"
    refuses(fuzz_pytorch.zipped([("w.npy", head.getvalue())]), promise, model=One(3))
    refuses(struct.pack("<Q", 2**40) + b"{", "damaged (SafetensorError: ")
    text = b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'
    refuses(struct.pack("<Q", len(text)) + text, "damaged (SafetensorError: ")
    refuses(torch_zip({"w": tensor((10**12,), (0,))}), promise, model=One(3))


def test_newer_npy_heads_are_refused_before_they_are_read(refuses):
    entry = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1)
    refuses(fuzz_pytorch.zipped([("fc.bias.npy", entry)]), "fc.bias.npy has version (2, 0)")


def test_a_safetensors_type_that_is_not_read(refuses):
    text = b'{"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}'
    refuses(struct.pack("<Q", len(text)) + text + b"\0", "a has type F8_E4M3; expected one of F64")


# ------------------------------------------------------------------------- PyTorch's files, written without PyTorch


class Call:
    """In a pickle, it becomes a call of `name` with `args`, as PyTorch's files contain them."""

    def __init__(self, name, *args): self.name, self.args = name, args


class Storage(tuple):
    """In a pickle, it becomes a reference to data outside the pickle."""


def program(saved, protocol=2):
    """Return the pickle of `saved`, which consists of dicts, tuples, text, numbers, Calls and Storages."""
    def code(x):
        if isinstance(x, Call):
            module, _, name = x.name.rpartition(".")
            return f"c{module}\n{name}\n".encode() + (code(tuple(x.args)) + b"R" if x.args is not NAME else b"")
        if isinstance(x, Storage):
            return code(tuple(x)) + b"Q"
        if isinstance(x, dict):
            return b"}(" + b"".join(code(k) + code(v) for k, v in x.items()) + b"u"
        if isinstance(x, tuple):
            return b"(" + b"".join(map(code, x)) + b"t"
        return pickle.dumps(x, 2)[2:-1]
    return b"\x80" + bytes([protocol]) + code(saved) + b"."


NAME = object()


def named(name):
    """Return a Call that only names the object and does not call it."""
    made = Call(name)
    made.args = NAME
    return made


def tensor(size, stride, *, key="0", count=10, kind="FloatStorage", offset=0, rest=()):
    storage = Storage(("storage", named(f"torch.{kind}"), key, "cpu", count))
    return Call("torch._utils._rebuild_tensor_v2", storage, offset, size, stride, False, {}, *rest)


def torch_zip(saved, numbers=bytes(40), key="0", **more):
    entries = {"a/data.pkl": saved if isinstance(saved, bytes) else program(saved), f"a/data/{key}": numbers,
               "a/version": b"3\n", **more}
    return fuzz_pytorch.zipped(entries.items())


def torch_legacy(saved, *storages):
    head = [pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    keys = pickle.dumps([key for key, _, _ in storages], 2)
    return b"".join([*head, program(saved), keys, *(struct.pack("<q", n) + raw for _, n, raw in storages)])


class One(nn.Module):
    """A model with one weight, `w`."""

    def __init__(self, *shape): self.w = Tensor(np.zeros(shape, np.float32), True)


KINDS = {"DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["little", "big"])
def test_strides_offsets_and_byte_order(tmp_path, kind, order):
    numbers, model = np.arange(24.0), One(2, 3)
    raw = numbers.astype(np.dtype(KINDS[kind]).newbyteorder("<" if order == "little" else ">")).tobytes()
    saved = {"w": tensor((2, 3), (4, 8), offset=1, count=24, kind=kind)}
    (tmp_path / "w.pt").write_bytes(torch_zip(saved, raw, **{"a/byteorder": order.encode()}))
    load_weights(model, tmp_path / "w.pt")
    assert model.w.data.tolist() == [[1, 9, 17], [5, 13, 21]]
    if order == "little":
        (tmp_path / "w.th").write_bytes(torch_legacy(saved, ("0", 24, raw)))
        load_weights(model := One(2, 3), tmp_path / "w.th")
        assert model.w.data.tolist() == [[1, 9, 17], [5, 13, 21]]


def test_bfloat16_is_the_upper_half_of_a_float32(tmp_path):
    values = np.array([1.0, -2.5, 3.0e38, 1e-40, 0.0, np.inf], np.float32)
    upper = (values.view(np.uint32) >> 16).astype(np.uint16)
    (tmp_path / "w").write_bytes(torch_zip({"w": tensor((6,), (1,), count=6, kind="BFloat16Storage")}, upper.tobytes()))
    load_weights(model := One(6), tmp_path / "w")
    assert same_bits(model.w.data, (values.view(np.uint32) & 0xFFFF0000).view(np.float32))


def test_a_view_of_a_storage_as_before_0_4(tmp_path):
    storage = Storage(("storage", named("torch.FloatStorage"), "7", "cpu", 10, ("8", 4, 3)))
    saved = {"w": Call("torch._utils._rebuild_tensor", storage, 1, (2,), (1,))}
    (tmp_path / "w").write_bytes(torch_legacy(saved, ("7", 10, np.arange(10, dtype="<f4").tobytes())))
    load_weights(model := One(2), tmp_path / "w")
    assert model.w.data.tolist() == [5, 6]


BESIDE = {
    "epoch": 3, "arch": "resnet20", "size": Call("torch.Size", (1, 2)), "device": Call("torch.device", "cuda", 0),
    "dtype": named("torch.float16"), "args": Call("argparse.Namespace"),
    "milestones": Call("collections.Counter", {9: 1}),
    "grouped": Call("collections.defaultdict", named("builtins.dict")),
    "best": Call("numpy.core.multiarray.scalar", Call("numpy.dtype", "f8", False, True), "12345678"),
    "parameter": Call("torch._utils._rebuild_parameter", tensor((2,), (1,)), True, Call("collections.OrderedDict")),
    "typed": Call("torch._tensor._rebuild_from_type_v2", named("torch._utils._rebuild_parameter"),
                  named("torch.nn.parameter.Parameter"), (tensor((2,), (1,)), True, {}), {"tag": 1}),
}


def test_what_checkpoints_hold_beside_the_weights(tmp_path):
    saved = {**BESIDE, "state_dict": Call("collections.OrderedDict", (("module.w", tensor((3,), (3,))),))}
    numbers = np.arange(10, dtype="<f4").tobytes()
    for i, content in enumerate([torch_zip(saved, numbers), torch_legacy(saved, ("0", 10, numbers))]):
        (tmp_path / str(i)).write_bytes(content)
        load_weights(model := One(3), tmp_path / str(i))
        assert model.w.data.tolist() == [0, 3, 6]
        assert type(model.w.data) is np.ndarray and model.w.data.flags.writeable
    (tmp_path / "p").write_bytes(torch_zip({"w": BESIDE["typed"]}, numbers))
    load_weights(One(2), tmp_path / "p")


@pytest.mark.parametrize("size, stride, options, message", [
    ((11,), (1,), {}, "a tensor of size (11,) that ends at number 10 of a storage of 10"),
    ((2, 2), (9, 1), {}, "ends at number 10 of a storage of 10"), ((10,), (1,), {"offset": 1}, "ends at number 10"),
    ((1,), (1,), {"offset": -1}, "whose offset, size or stride is invalid"), ((3,), (-1,), {}, "is invalid"),
    ((-3,), (1,), {}, "is invalid"), ((3, 1), (1,), {}, "is invalid"), ((True,), (1,), {}, "is invalid"),
    ((2.0,), (1,), {}, "is invalid"), ((2**64,), (0,), {}, "is invalid"),
    ((1,) * 65, (1,) * 65, {}, "is invalid"),
    ((3,), (1,), {"rest": ({"neg": True},)}, "is invalid"),
    ((3,), (1,), {"key": "1"}, "storage '1': expected 40 bytes, but the storage is missing"),
    ((3,), (1,), {"count": 11}, "storage '0': expected 44 bytes, got 40"),
    ((3,), (1,), {"count": -1}, "a storage whose type, key or length is invalid"),
    ((3,), (1,), {"kind": "QInt8Storage"}, "it names torch.QInt8Storage")])
def test_tensors_that_make_no_sense(refuses, size, stride, options, message):
    refuses(torch_zip({"w": tensor(size, stride, **options)}), message, model=One(3))


def test_tensors_of_other_kinds_are_refused(refuses):
    refuses(torch_zip({"w": tensor((3,), (1,), kind="IntStorage")}), "w: expected floating-point numbers, got int32",
            model=One(3))
    refuses(torch_zip({"w": Call("torch._utils._rebuild_tensor_v2", "no storage", 0, (3,), (1,))}),
            "a tensor without a storage", model=One(3))
    refuses(torch_zip({"w": Storage(("module", 1, 2, 3, 4))}), "outside itself, which is not a storage of a tensor")
    refuses(torch_zip(("w",)), "expected a dict of arrays, or such a dict under 'state_dict' or", "got tuple")


def test_zip_files_that_torch_would_not_write(refuses):
    entries = [("a/data.pkl", program({"w": tensor((3,), (1,))})), ("a/data/0", bytes(40))]
    refuses(fuzz_pytorch.zipped(entries, zipfile.ZIP_DEFLATED), "entry 'a/data.pkl' is compressed", model=One(3))
    refuses(torch_zip({"w": tensor((3,), (1,))}, **{"a/byteorder": b"middle"}), "byteorder is b'middle'", model=One(3))


def test_legacy_storages_that_are_not_there(refuses):
    saved = {"w": tensor((3,), (1,))}
    for storages, message in [((), "1 of its 1 storages are missing"),
                              ((("x", 10, bytes(40)),), "that no tensor uses"),
                              ((("0", 9, bytes(36)),), "expected 40 bytes, got 36"),
                              ((("0", 10, bytes(39)),), "got 40, with 39 left"), ((("0", -1, b""),), "got -4")]:
        refuses(torch_legacy(saved, *storages), message, model=One(3))


# ----------------------------------------------------------------------------------------------- hostile pickles


class Evil:
    def __init__(self, path): self.path = path
    def __reduce__(self): return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_a_command(tmp_path, refuses, protocol):
    """The pickle takes the place of the saved object, in a zip file and in the legacy format, or is the whole file."""
    mark = tmp_path / "made"
    evil = pickle.dumps({"state_dict": {"w": Evil(mark)}}, protocol)
    parts, behind = fuzz_pytorch.pickles_of(fuzz_pytorch.LEGACY.read_bytes())
    for content in torch_zip(evil), b"".join([*parts[:3], evil, parts[4], behind]), evil:
        refuses(content, f"it names {os.system.__module__}.system, which such a file does not need; nothing was run")
    assert not mark.exists()
    pickle.loads(evil)  # pickle itself runs the command
    assert mark.exists()


def test_nothing_that_a_file_sets_outlives_it(tmp_path, refuses):
    """BUILD can set attributes of every object that the pickle gets, stand-ins included."""
    for name in ("torch._utils._rebuild_tensor_v2", "collections.OrderedDict", "torch.device", "torch.Size"):
        state = b"N}(X\x0c\x00\x00\x00__defaults__(K\x01K\x02tX\x08\x00\x00\x00__init__K\x03u\x86"
        module, _, attribute = name.rpartition(".")
        content = torch_zip(b"\x80\x02c" + f"{module}\n{attribute}\n".encode() + state + b"b.")
        (tmp_path / "set").write_bytes(content)
        with pytest.raises(ValueError, match="load_weights"):
            load_weights(small(), tmp_path / "set")
    for file in FILES:
        load_weights(small(), file)


@pytest.mark.parametrize("damage, message", [
    (b"\x80\x02N" + b"r\xff\xff\xff\x7f" + b"0}.", None),                                    # memo number 2^31
    (b"\x80\x02}K\x01" + b"\x85" * 10**6 + b"K\x01s.", "has a tuple as a key"),              # nested a million deep
    (b"\x80\x02}K\x01" + b"2\x86" * 60 + b"K\x01s.", "has a tuple as a key"),                # a hash of 2^60 steps
    (b"\x80\x02}(K\x01" + b"2\x86" * 60 + b"K\x01u.", "has a tuple as a key"),
    (b"(K\x01" + b"2\x86" * 60 + b"K\x01d.", "has a tuple as a key"),
    (b"\x80\x02ccollections\nOrderedDict\n((K\x01" + b"2\x86" * 60 + b"K\x01ttR.", "has a tuple as a key"),
    (b"\x80\x02ccollections\nOrderedDict\n(((K\x01" + b"2\x86" * 60 + b"K\x01tttR.", "has a tuple as a key"),
    (b"\x80\x04\x8f(K\x01\x90.", "damaged"), (b"\x80\x05\x96\0\0\0\0\0\1\0\0.", "damaged"),  # a set; a terabyte
    (b"\x80\x02\x82\x01.", "damaged")])
def test_small_pickles_with_large_plans(refuses, damage, message):
    refuses(torch_zip(damage), message or "37 entries do not fit")


def test_what_refers_to_itself(refuses):
    refuses(torch_zip(b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s."), "38 entries do not fit",
            "; and 32 more like these; unexpected model")


def test_a_short_fuzz():
    """tests/fuzz/fuzz_pytorch.py runs more cases."""
    with fuzz_pytorch.cases() as cases:
        came = mutations.run(cases, 300, seed=3)
    assert sum(n for what, n in came.items() if "refused" in what) > 200
    assert sum(n for what, n in came.items() if "loaded" in what) > 10


def test_the_watch_of_the_fuzz_sees_what_is_done(tmp_path):
    def opens(rng): return lambda: (tmp_path / "x").open("w"), []
    with pytest.raises(AssertionError, match="led to open"):
        mutations.run({"bad": opens}, 1)


def test_the_two_files_of_the_fuzz_hold_the_same():
    a, b = small(), small()
    load_weights(a, FILES[0])
    load_weights(b, FILES[1])
    assert holds(a, arrays(b)) and a.fc.weight.data.min() > 0.3 and a.fc.weight.data.max() < 1.6
    assert len(set(a.conv1.weight.data.ravel().tolist())) == 27


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
@pytest.mark.parametrize("legacy", [False, True], ids=["today", "legacy"])
@pytest.mark.parametrize("family", FAMILIES)
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
@pytest.mark.parametrize("family", ["B", "preact A", "vgg19_bn", "googlenet"])
@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
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


def test_pickles_check_keys_of_stand_ins():
    with pytest.raises(pickles.Refused, match="has a tuple as a key"):
        pickles.check_keys([1, "a", (1,)])


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
    load_weights(model, FILES[0])
    assert all(minires.device.on_gpu(t.data) for t in model.state().values())
    save_weights(model, tmp_path / "w.safetensors")
    load_weights(on_cpu := small(), tmp_path / "w.safetensors")
    assert holds(on_cpu, {n: t.data.get() for n, t in model.state().items()})
    load_weights(on_cpu, model.state())
    assert Path(tmp_path / "w.safetensors").exists()
