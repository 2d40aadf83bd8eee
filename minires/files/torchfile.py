"""Read PyTorch's own files without PyTorch and without running code from them.

    torch.save since 1.6: an uncompressed zip file            before 1.6: pickles, one after the other

        NAME/data.pkl     the saved object, without numbers       a magic number, a version, sizes of C's types,
        NAME/data/KEY     the numbers of one storage              the saved object, without numbers,
        NAME/byteorder    "little" or "big"                       a list of the storages' KEYs,
                                                                  for each its count (int64) and its numbers

In both formats the saved object is a pickle. A tensor in it is a call of torch._utils._rebuild_tensor_v2 with a
storage, an offset, a size and a stride. Offset and stride count numbers, not bytes. The pickle refers to the storage
as ("storage", type, KEY, device, count).
"""
from __future__ import annotations

import functools
import io
import os
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from . import pickles
from .archives import open_zip
from .pickles import Refused

BFLOAT16 = "bfloat16"  # the upper half of a float32; NumPy has no such dtype
STORAGES = {"DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": BFLOAT16,
            "LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1",
            "BoolStorage": "?", "ComplexFloatStorage": "c8", "ComplexDoubleStorage": "c16"}
ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_START = b"\x80\x02\x8a\n" + LEGACY_MAGIC.to_bytes(10, "little")  # the pickle of LEGACY_MAGIC, which comes first
LEGACY_VERSION = 1001
MOST_AXES = 64  # NumPy's limit
MOST_KEY = 200  # characters of a storage's key; PyTorch writes a number
READS = 8       # all tensors together are read from at most this many times the file's bytes
QUANTISED = ("it holds quantised tensors, which minires does not read; save the state_dict of the model from before it "
             "was quantised")
_WIDTHS = "QInt8", "QUInt8", "QInt32", "QUInt4x2", "QUInt2x4"
EXPLAINED = {("torch._utils", "_rebuild_qtensor"): QUANTISED,
             **{("torch", f"{width}Storage"): QUANTISED for width in _WIDTHS},
             **{("torch", width.lower()): QUANTISED for width in _WIDTHS}}


class Stored(NamedTuple):
    """Describes an array that is not read yet. `read()` returns it with this dtype; bfloat16 becomes float32."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


def read(file: BinaryIO) -> Any:
    """Return the saved object: containers unchanged, and a Stored for each tensor (readable while `file` is open).

    Raises pickles.Refused if torch.save did not write the file, or if the file names what it does not need.
    Raises Refused, or whatever zipfile raises, if the file is damaged.
    """
    file.seek(0)
    return _read_zip(file) if file.read(4) == ZIP_MAGIC else _read_legacy(file)


def numbers(content: bytes | bytearray | memoryview, dtype: str, order: str = "<") -> np.ndarray:
    """Return the numbers in `content`, whose byte order is "<" or ">"; bfloat16 becomes float32."""
    if dtype == BFLOAT16:
        return (np.frombuffer(content, order + "u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(content, order + dtype)


def itemsize(dtype: str) -> int:
    """Return the bytes of one number in a file."""
    return 2 if dtype == BFLOAT16 else np.dtype(dtype).itemsize


class _Storage(NamedTuple):
    key: str
    dtype: str
    start: int
    length: int

    @property
    def end(self) -> int:
        """The end of the used part of the storage, in bytes."""
        return (self.start + self.length) * itemsize(self.dtype)


def _storage(pid: Any) -> _Storage:
    if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
        raise Refused("it refers to data outside itself, which is not a storage of a tensor")
    dtype, key, _device, length = pid[1:5]
    start = 0
    if len(pid) == 6 and pid[5] is not None:  # a view of part of a storage, as PyTorch before 0.4 saved it
        _key, start, length = pid[5]
    if (not isinstance(dtype, str) or dtype not in STORAGES.values() or not isinstance(key, str)
            or len(key) > MOST_KEY or not _counts(start, length)):
        raise Refused("it has a storage whose type, key or length is invalid")
    return _Storage(key, dtype, start, length)


def _counts(*values: Any) -> bool:
    return all(type(v) is int and 0 <= v < 2**63 for v in values)


class _Reads:
    """Counts the bytes that tensors are read from. Many tensors may share a storage, each with a stride that spans it;
    without a limit, reading them all could take the square of the file's size.
    """

    def __init__(self, size: int):
        self.left = pickles.FREE_MEMORY + READS * size

    def count(self, length: int) -> None:
        self.left -= length
        if self.left < 0:
            raise Refused(f"its tensors share storages in a way that reads the file more than {READS} times")


def _allowed(content: Callable[[str], tuple[bytes, str]], reads: _Reads) -> dict[tuple[str, str], Any]:
    """Return the stand-in of every name that such a file may use.

    content(key)   returns the bytes of a storage and their byte order; called when a tensor is read
    reads          counts the bytes that tensors are read from

    The stand-ins take any arguments and only build data. They keep nothing that the pickle can change after a check:
    what they check is a tuple of integers, or is copied. They are made anew for each file.
    """

    def tensor(storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None):
        if not isinstance(storage, _Storage):
            raise Refused("it has a tensor without a storage")
        if (type(size) is not tuple or type(stride) is not tuple or not len(size) == len(stride) <= MOST_AXES
                or not _counts(offset, *size, *stride) or metadata):
            raise Refused("it has a tensor whose offset, size or stride is invalid")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if 0 not in size and last >= storage.length:
            raise Refused(f"it has a tensor of size {size} that ends at number {last} of a storage of "
                          f"{storage.length}")
        return Stored(size, numbers(b"", storage.dtype).dtype,
                      functools.partial(_array, content, reads, storage, offset, size, stride))

    class Beside:
        """Replaces what checkpoints hold beside the weights, and drops it: devices, dtypes, NumPy's numbers, options.
        """

        def __new__(cls, *args, **options): return super().__new__(cls)
        def __init__(self, *args, **options): pass
        def __setstate__(self, state): pass

    def parameter(data, *rest): return data

    def typed(build, kind, args, state):
        if not (build is tensor or build is parameter) or type(args) is not tuple or len(args) > MOST_AXES:
            raise Refused("it rebuilds a tensor in a way that is not known")
        return build(*args)

    def size(axes=()):
        if type(axes) not in (tuple, list):
            raise Refused("it has a size that is not a tuple")
        return tuple(axes)

    Ordered = pickles.ordered_dict()

    def default(*factory): return Ordered()

    utils = {"_rebuild_tensor": tensor, "_rebuild_tensor_v2": tensor, "_rebuild_parameter": parameter,
             "_rebuild_parameter_with_state": parameter}
    beside = [("torch", "device"), ("torch", "Tensor"), ("torch.nn.parameter", "Parameter"), ("argparse", "Namespace"),
              ("numpy", "dtype"), ("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"),
              ("_codecs", "encode")]
    beside += [(builtins, name) for builtins in ("builtins", "__builtin__") for name in ("dict", "list", "set", "int")]
    beside += [("torch", name) for name in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16",
                                            "int8", "uint8", "bool")]
    return {("collections", "OrderedDict"): Ordered, ("collections", "Counter"): Ordered,
            ("collections", "defaultdict"): default, ("torch", "Size"): size,
            ("torch._tensor", "_rebuild_from_type_v2"): typed,
            **{("torch._utils", name): f for name, f in utils.items()},
            **{("torch", name): dtype for name, dtype in STORAGES.items()},
            **dict.fromkeys(beside, Beside)}


def _array(content: Callable[[str], tuple[bytes, str]], reads: _Reads, storage: _Storage, offset: int,
           size: tuple[int, ...], stride: tuple[int, ...]) -> np.ndarray:
    """Return the numbers of a tensor. Only the part of the storage that it spans is converted."""
    if 0 in size:
        return np.empty(size, numbers(b"", storage.dtype).dtype)
    raw, order = content(storage.key)
    width = itemsize(storage.dtype)
    begin = (storage.start + offset) * width
    end = begin + (1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True))) * width
    if not 0 <= begin < end <= min(storage.end, len(raw)):  # the size of the entry in the file may have been a lie
        raise Refused(f"it has a tensor in bytes {begin} to {end} of a storage of {min(storage.end, len(raw))}")
    reads.count(end - begin)
    flat = numbers(memoryview(raw)[begin:end], storage.dtype, order)
    # ndarray checks once more that the strides stay inside the buffer, which as_strided does not.
    return np.ndarray(size, flat.dtype, flat, 0, tuple(step * flat.itemsize for step in stride))


def _read_zip(file: BinaryIO) -> Any:
    archive, file_size = open_zip(file), file.seek(0, os.SEEK_END)
    entries = {info.filename: info for info in archive.infolist()}
    reads = _Reads(file_size)
    pickle_name = next((name for name in entries if f"/{name}".endswith("/data.pkl")), None)
    if pickle_name is None:
        raise Refused("it is a zip file without a data.pkl, so torch.save did not write it")
    folder = pickle_name.removesuffix("data.pkl")
    if f"{folder}constants.pkl" in entries or any(name.startswith(f"{folder}code/") for name in entries):
        raise Refused("it is a TorchScript file, which torch.jit.save writes and which holds code; load it with "
                      "torch.jit.load, and save its state_dict() with torch.save")
    if entries[pickle_name].file_size > pickles.MOST_BYTES:
        raise Refused(f"its pickle has more than {pickles.MOST_BYTES} bytes")

    @functools.lru_cache(maxsize=1)  # one is enough: tensors that share a storage follow each other
    def content(name: str) -> bytes:
        info = entries[name]
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise Refused(f"its entry {name!r} is compressed, which torch.save does not do")
        if info.file_size > file_size:
            raise Refused(f"it is damaged: its entry {name!r} claims more bytes than the file has")
        reads.count(info.file_size)
        return archive.read(info)

    order = content(f"{folder}byteorder").strip() if f"{folder}byteorder" in entries else b"little"
    if order not in (b"little", b"big"):
        raise Refused(f'its byteorder is {order[:20]!r}, expected "little" or "big"')

    def storage(pid):
        found = _storage(pid)
        info = entries.get(f"{folder}data/{found.key}")
        if info is None or info.file_size < found.end:
            raise Refused(f"storage {found.key[:40]!r}: expected {found.end} bytes, "
                          + ("but the storage is missing" if info is None else f"got {info.file_size}"))
        return found

    allowed = _allowed(lambda key: (content(f"{folder}data/{key}"), "<" if order == b"little" else ">"), reads)
    return pickles.read(io.BytesIO(content(pickle_name)), allowed, persistent=storage, encoding="latin1",
                        explained=EXPLAINED, memory=pickles.FREE_MEMORY + pickles.MEMORY * file_size)


def _read_legacy(file: BinaryIO) -> Any:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if pickles.read(file, {}) != LEGACY_MAGIC or pickles.read(file, {}) != LEGACY_VERSION:
        raise Refused("it is a pickle, but torch.save did not write it")
    pickles.read(file, {})  # the sizes of C's types are not needed: a storage's numbers have the same size everywhere
    places: dict[str, tuple[int, int]] = {}  # {key: (start, length) of the storage's bytes in the file}
    storages: dict[str, _Storage] = {}
    reads = _Reads(size)

    def storage(pid):
        found = _storage(pid)
        largest = storages.setdefault(found.key, found)
        if largest.end < found.end:
            storages[found.key] = found
        return found

    @functools.lru_cache(maxsize=1)
    def content(key: str) -> tuple[bytes, str]:
        start, length = places[key]
        reads.count(length)
        file.seek(start)
        return file.read(length), "<"

    saved = pickles.read(file, _allowed(content, reads), persistent=storage, encoding="latin1", explained=EXPLAINED)
    keys = pickles.read(file, {})
    if not isinstance(keys, list):
        raise Refused("it is damaged: it has no list of storages")
    for key in keys:
        if not isinstance(key, str) or key not in storages:
            raise Refused("its list of storages names one that no tensor uses")
        count = int.from_bytes(file.read(8), "little", signed=True)
        start, length = file.tell(), count * itemsize(storages[key].dtype)
        if not storages[key].end <= length <= size - start:
            raise Refused(f"it is damaged: storage {key[:40]!r}: expected {storages[key].end} bytes, got {length}, "
                          f"with {size - start} left in the file")
        places[key] = start, length
        file.seek(length, os.SEEK_CUR)
    if missing := storages.keys() - places.keys():
        raise Refused(f"it is damaged: {len(missing)} of its {len(storages)} storages are missing")
    return saved
