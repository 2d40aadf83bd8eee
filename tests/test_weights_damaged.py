"""Files of weights that are damaged, of another kind or hostile are refused by name, and the model is unchanged."""
import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from fuzz import fuzz_pytorch, mutations
from helpers import needs_torch, same_bits, torch
from short import every
from weight_files import (
    Call,
    One,
    Storage,
    arrays,
    described,
    drawn,
    holds,
    named,
    npz,
    program,
    refuser,
    safetensors,
    small,
    tensor,
    torch_legacy,
    torch_zip,
)

from minires import load_weights, nn, save_weights
from minires.files import archives, pickles, tensors, torchfile

FILES = fuzz_pytorch.TODAY, fuzz_pytorch.LEGACY


@pytest.fixture
def refuses(tmp_path):
    return refuser(tmp_path)


# -------------------------------------------------------------------------------------------------- damaged files


def test_no_weights_at_all(refuses, tmp_path):
    refuses(b"", "it is empty")
    refuses(b"GIF89a", "does not begin like a .safetensors, .npz or PyTorch file; read as a pickle, it is damaged")
    refuses(bytes(257) + b"ustar" + bytes(1000), "a tar file, which PyTorch wrote before 0.2")
    refuses(fuzz_pytorch.zipped([("a.txt", b"a")]), "a zip file without a data.pkl, so torch.save did not write it")
    refuses(pickle.dumps([1]), "a pickle, but neither torch.save wrote it, nor does it hold NumPy arrays")
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


@pytest.mark.parametrize("step", every(2, [4, 1]))
@pytest.mark.parametrize("file", FILES, ids=["today", "legacy"])
def test_every_truncation_of_pytorchs_files_is_refused(refuses, file, step):
    content = file.read_bytes()
    for n in [*range(0, 200, 9), *range(200, len(content), 199), len(content) - 1][::step]:
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
    refuses(struct.pack("<Q", 2**40) + b"{", "damaged: its header claims 1099511627776 bytes, where 2 to 1 fit a")
    text = b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'
    refuses(struct.pack("<Q", len(text)) + text, "its arrays have 4000000000000 bytes, and the file has 0 for them")
    refuses(torch_zip({"w": tensor((10**12,), (0,))}), promise, model=One(3))


@pytest.mark.parametrize("head", [b"\0\1\0\0\0\0\0\0{}", struct.pack("<Q", 2 * 10**6) + b"{" + b"[" * (2 * 10**6 - 1),
                                  struct.pack("<Q", 3 * 10**9 - 8) + b"{", b"PK\3\4", b"\x80\x02B\xff\xff\xff\x7f"])
def test_a_sparse_file_of_three_gigabytes_is_refused_without_being_read(tmp_path, head):
    with open(tmp_path / "sparse", "wb") as file:
        file.write(head)
        file.truncate(3 * 10**9)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"load_weights: .*sparse"):
            load_weights(small(), tmp_path / "sparse")
        assert tracemalloc.get_traced_memory()[1] < pickles.MOST_BYTES + pickles.FREE_MEMORY
    finally:
        tracemalloc.stop()


def entries(count, name="", content=b""):
    return fuzz_pytorch.zipped([(f"{i}{name}", content) for i in range(count)])


def test_a_zip_file_may_not_list_more_entries_than_a_file_of_its_size_needs(refuses, monkeypatch):
    monkeypatch.setattr(archives, "FREE_LIST", 20_000)  # 200,000 entries instead of 2,000 would pass the real limit
    content = entries(2000, ".npy")
    refuses(content, "its list of entries has 106890 bytes; expected at most 31362 for a file of its size")
    refuses(entries(2000), "its list of entries has 98890 bytes; expected at most 30")


def test_a_real_limit_on_the_list_of_entries():
    assert archives.most_list(0) == 2 << 20
    one = np.zeros((), np.float32)
    file = io.BytesIO()
    np.savez(file, **{f"layer1.{i}.bn1.running_mean": one for i in range(5000)})  # ResNet-1202 has 7,200 entries
    assert len(archives.open_zip(file).namelist()) == 5000


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=["bzip2", "lzma"])
def test_an_npz_is_not_compressed_with_what_takes_much_memory(refuses, method):
    (_, content), = fuzz_pytorch.unzipped(npz(w=np.zeros(3, np.float32)))
    refuses(fuzz_pytorch.zipped([("w.npy", content)], method), "w.npy is compressed in a way that numpy.savez does not")


@pytest.mark.parametrize("header, message", [
    ({"w": described(), "v": described(8, 20)}, "an array begins at byte 8, where 12 was expected"),
    ({"w": described(), "v": described(16, 28)}, "an array begins at byte 16, where 12 was expected"),
    ({"w": described()}, "its arrays have 12 bytes, and the file has 24"),
    ({"w": described(shape=(6,)), "v": described(12, 24)}, "w: shape [6] of F32 does not have 12 bytes"),
    ({"w": described(shape=(-3, -1))}, "w: expected whole numbers from 0"),
    ({"w": described(shape=(3.0,))}, "w: expected whole numbers from 0"),
    ({"w": described(shape=(True, 3))}, "w: expected whole numbers from 0"),
    ({"w": described(shape=(3,) + (1,) * 64)}, "w: expected whole numbers from 0"),
    ({"w": {**described(), "data_offsets": [0]}}, "w: expected whole numbers from 0"),
    ({"w": {**described(), "more": 1}}, "w: expected its dtype, shape and data_offsets"),
    ({"w": 3}, "w: expected its dtype"), ({"__metadata__": {"a": 1}}, "its metadata is not text"),
    (b'{"a": ', "its header is not JSON: Expecting value"), (b'{"\xff"', "its header is not JSON: 'utf-8' codec"),
    (b'{"a":' + b"[" * 100_000, "its header is nested too deeply"),
    ({"w" * 10**6: 3}, "damaged: " + "w" * 200 + ": expected")])
def test_safetensors_headers_that_make_no_sense(refuses, header, message):
    refuses(safetensors(header, bytes(24)), message, model=One(3))


def test_a_safetensors_file_loads_to_the_bit_whatever_order_its_arrays_have(tmp_path):
    a, b = np.arange(3, dtype="<f4"), np.arange(2, dtype="<f2")
    header = {"b": described(12, 16, (2,), "F16"), "__metadata__": {"format": "pt"}, "a": described()}
    (tmp_path / "w").write_bytes(safetensors(json.dumps(header).encode() + b"   ", a.tobytes() + b.tobytes()))
    with (tmp_path / "w").open("rb") as file:
        content = tensors.read(file)
        assert {name: t.read().tolist() for name, t in content.arrays.items()} == {"a": [0, 1, 2], "b": [0, 1]}
    assert content.metadata == {"format": "pt"}


# ------------------------------------------------------------------------------------- files of other kinds, named


INDEX = {"metadata": {"total_size": 3}, "weight_map": {"fc.weight": "model-00001-of-00002.safetensors"}}
OTHER_KINDS = {
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "it is a Git LFS pointer"),
    "web page": (b"\n<!DOCTYPE html>\n<html><head>", "it is a web page, not the file itself"),
    "error of a site": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "it is a web page"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "it is an HDF5 file, which Keras and MATLAB write"),
    "index": (json.dumps(INDEX, indent=2).encode(), "it names model-00001-of-00002.safetensors, which cannot be read"),
    "JSON": (b'{"architectures": ["ResNet"]}', "it is a JSON file, which holds no weights"),
    "TorchScript": (fuzz_pytorch.zipped([("net/data.pkl", b"x"), ("net/code/a.py", b""), ("net/constants.pkl", b"")]),
                    "it is a TorchScript file, which torch.jit.save writes and which holds code"),
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_files_of_other_kinds_are_named(refuses, kind):
    refuses(*OTHER_KINDS[kind])


def test_a_name_longer_than_any_is_not_repeated_in_the_message(refuses):
    refuses({"w" * 10**6: np.zeros(3)}, "it has a name of 1000000 characters; expected at most 1000", model=One(3))


@pytest.mark.parametrize("saved, where", [
    ({"epoch": 3, "ema": {"w": tensor((3,), (1,))}}, "'ema'"),
    ({"teacher": {"w": tensor((3,), (1,))}, "student": {"w": tensor((3,), (1,))}}, "'teacher' and 'student'"),
    ({"nets": {"a": {"w": tensor((3,), (1,))}}}, "'nets', 'a'"),
    ({"model": {"ema": {"w": tensor((3,), (1,))}}}, "'ema'")])
def test_weights_under_a_key_that_is_not_known_are_named(refuses, saved, where):
    refuses(torch_zip(saved), f"the weights are under {where}, where they are not looked for; load the file",
            model=One(3))
    refuses({"epoch": 3, "ema": {"w": np.zeros(3, np.float32)}}, "the weights are under 'ema'", model=One(3))


@needs_torch
@pytest.mark.filterwarnings("ignore:.*torch.* (is|are) deprecated")  # files of that kind will be around for long
def test_what_pytorch_itself_writes_is_named(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(3, 2))
    torch.jit.save(torch.jit.script(net), tmp_path / "script.pt")
    quantised = torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8)
    torch.save({"w": quantised}, tmp_path / "quantised.pt")
    torch.save({"w": quantised}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"step": 2, "ema": net.state_dict()}, tmp_path / "ema.pt")
    for file, message in (("script", "a TorchScript file"), ("quantised", "holds quantised tensors"),
                          ("old", "holds quantised tensors"), ("ema", "the weights are under 'ema'")):
        with pytest.raises(ValueError, match=f"{file}.pt: .*{message}"):
            load_weights(small(), tmp_path / f"{file}.pt")


def test_newer_npy_heads_are_refused_before_they_are_read(refuses):
    entry = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1)
    refuses(fuzz_pytorch.zipped([("fc.bias.npy", entry)]), "fc.bias.npy has version (2, 0)")


def test_a_safetensors_type_that_is_not_read(refuses):
    text = b'{"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}'
    refuses(struct.pack("<Q", len(text)) + text + b"\0", "a has type F8_E4M3; expected one of F64")


# ------------------------------------------------------------------------- PyTorch's files, written without PyTorch


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
    ((3,), (1,), {"key": "1" * 201}, "a storage whose type, key or length is invalid"),
    ((3,), (1,), {"kind": "QInt8Storage"}, "it holds quantised tensors, which minires does not read")])
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


@pytest.mark.parametrize("damage, message", every(3, [
    (b"\x80\x02N" + b"r\xff\xff\xff\x7f" + b"0}.", None),                                    # memo number 2^31
    (b"\x80\x02}K\x01" + b"\x85" * 200_000 + b"K\x01s.", "has a tuple as a key"),            # nested 200,000 deep
    (b"\x80\x02}K\x01" + b"\x85" * 10**6 + b"K\x01s.", "builds more than a file of this size needs"),
    (b"\x80\x02}K\x01" + b"2\x86" * 60 + b"K\x01s.", "has a tuple as a key"),                # a hash of 2^60 steps
    (b"\x80\x02}(K\x01" + b"2\x86" * 60 + b"K\x01u.", "has a tuple as a key"),
    (b"(K\x01" + b"2\x86" * 60 + b"K\x01d.", "has a tuple as a key"),
    (b"\x80\x02ccollections\nOrderedDict\n((K\x01" + b"2\x86" * 60 + b"K\x01ttR.", "has a tuple as a key"),
    (b"\x80\x02ccollections\nOrderedDict\n(((K\x01" + b"2\x86" * 60 + b"K\x01tttR.", "has a tuple as a key"),
    (b"\x80\x04\x8f(K\x01\x90.", "operation EMPTY_SET"),
    (b"\x80\x05\x96\0\0\0\0\0\1\0\0.", "operation BYTEARRAY8"),                            # a terabyte
    (b"\x80\x02\x82\x01.", "operation EXT1")]))
def test_small_pickles_with_large_plans(refuses, damage, message):
    refuses(torch_zip(damage), message or "37 entries do not fit")


MEMO = b"q\x02"


@pytest.mark.parametrize("which", ["size", "stride"])
@pytest.mark.parametrize("legacy", [False, True], ids=["today", "legacy"])
def test_what_was_checked_cannot_be_changed_afterwards(refuses, which, legacy):
    """The pickle passes a size or a stride as a list, and changes the list when the tensor is made."""
    axes = {"size": b"(K\x03t", "stride": b"(K\x01t"}
    axes[which] = b"]" + MEMO + axes[which][1:-1].join([b"(", b"e"])
    head, _, rest = program({"w": tensor((3,), (1,))}).rpartition(program((3,))[2:-1] + program((1,))[2:-1])
    assert head
    saved = head + axes["size"] + axes["stride"] + rest[:-1] + b"h\x02K\x00J\x00\x00\x00\x40s0."
    content = torch_legacy(saved, ("0", 10, bytes(40))) if legacy else torch_zip(saved)
    refuses(content, "it has a tensor whose offset, size or stride is invalid", model=One(3))


def test_bounds_are_checked_again_when_a_tensor_is_read():
    """As if the storage had become shorter, or the check before had been wrong."""
    # private: no file gets past the first check, so no public function reaches the second
    new_storage, reads, array = torchfile._Storage, torchfile._Reads, torchfile._array
    storage = new_storage("0", "f4", 0, 10)
    for size, stride, offset, length in [((3,), (1,), 0, 8), ((2,), (2**40,), 0, 40), ((11,), (1,), 0, 44),
                                         ((2,), (-1,), 0, 40), ((1,), (1,), -1, 40), ((1,), (1,), 10, 44)]:
        raw = bytes(length)
        with pytest.raises(pickles.Refused, match="a tensor in bytes"):
            array(lambda key, raw=raw: (raw, "<"), reads(100), storage, offset, size, stride)


def test_tensors_that_share_a_storage_are_not_read_in_the_square_of_its_size(refuses, tmp_path):
    """200 tensors of two numbers, which are the first and the last of a storage of two megabytes."""
    class Many(nn.Module):
        def __init__(self): self.w = nn.Sequential(*[One(2) for _ in range(200)])

    n = 2**19
    saved = {name: tensor((2,), (n - 1,), count=n) for name in Many().state()}
    for content in torch_zip(saved, bytes(4 * n)), torch_legacy(saved, ("0", n, bytes(4 * n))):
        refuses(content, "its tensors share storages in a way that reads the file more than 8 times", model=Many())
    next_to_each_other = {name: tensor((2,), (1,), count=n, offset=i) for i, name in enumerate(Many().state())}
    (tmp_path / "w").write_bytes(torch_zip(next_to_each_other, bytes(4 * n)))
    load_weights(Many(), tmp_path / "w")


def test_what_refers_to_itself(refuses):
    refuses(torch_zip(b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s."), "38 entries do not fit",
            "; and 32 more like these; unexpected model")


@pytest.mark.parametrize("number", every(2, [100, 300]))
def test_a_short_fuzz(number):
    """tests/fuzz/fuzz_pytorch.py runs more cases."""
    with fuzz_pytorch.cases() as cases:
        came = mutations.run(cases, number, seed=3)
    assert sum(n for what, n in came.items() if "refused" in what) > 2 * number // 3
    assert sum(n for what, n in came.items() if "loaded" in what) > number // 30


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


def test_pickles_check_keys_of_stand_ins():
    with pytest.raises(pickles.Refused, match="has a tuple as a key"):
        pickles.check_keys([1, "a", (1,)])
