"""Read the IDX file format of MNIST and Fashion-MNIST.

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits". A file consists of two zero bytes, a
byte for the type, a byte for the number of dimensions, one big-endian uint32 for each dimension, and the elements in C
order, big-endian. It is often compressed with gzip.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from typing import BinaryIO

import numpy as np

from ..files.kinds import HEAD, other_kind

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_PIECE = 1 << 20
FREE = 64 << 20  # bytes to which every gzip file may unpack, also a small one; MNIST's images have 47 MB
RATIO = 64       # bytes more for each byte of a gzip file; MNIST's files unpack to at most 5 times their size


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Read one IDX file, plain or compressed with gzip, and return an array with its shape and type.

    The file's content, not its name, decides whether it is compressed. The array has the machine's byte order. The
    memory used depends on what the file holds, not on what its header claims. A gzip file may unpack to at most FREE
    bytes and RATIO times its size.

    Raises ValueError, which names the file, what was expected and what was found, if the file is not exactly one
    complete IDX array.
    Raises FileNotFoundError if there is no such file.
    """
    path = os.fspath(path)
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(HEAD)
        file.seek(0)
        if kind := other_kind(head):
            raise ValueError(f"{path}: {kind}")
        if head[:2] != b"\x1f\x8b":
            return _read(file, path, size)
        try:
            with gzip.open(file) as unpacked:
                return _read(unpacked, path, FREE + RATIO * size)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(
                f"{path}: expected a complete gzip file, but it cannot be unpacked: {error}"
            ) from error


def _read(file: BinaryIO | gzip.GzipFile, path: str, most: int) -> np.ndarray:
    """Return the array. `most`: how many bytes `file` has, or may unpack to."""
    magic = _at_most(file, 4)
    if len(magic) < 4:
        raise ValueError(f"{path}: expected an IDX file, which starts with 4 bytes, got {len(magic)} bytes")
    if magic[:2] != b"\0\0" or magic[2] not in _TYPES or magic[3] == 0:
        types = ", ".join(f"{code:02x}" for code in _TYPES)
        raise ValueError(
            f"{path}: expected an IDX file, which starts with the bytes 00 00, a type ({types}) and a number "
            f"of dimensions from 1, got {magic.hex(' ')}"
        )
    dtype, dimensions = np.dtype(_TYPES[magic[2]]), magic[3]
    sizes = _at_most(file, 4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise ValueError(
            f"{path}: expected {dimensions} dimensions in {4 * dimensions} bytes, got {len(sizes)} bytes"
        )
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    expected = math.prod(shape) * dtype.itemsize
    left = most - 4 - 4 * dimensions
    promised = f"{path}: expected {expected} bytes of elements for shape {shape} of {dtype.name}, got"
    if isinstance(file, gzip.GzipFile):
        if expected > left:
            raise ValueError(f"{path}: its header promises {expected} bytes of elements for shape {shape} of "
                             f"{dtype.name}; expected at most {left} in a gzip file of its size")
    elif expected != left:
        raise ValueError(f"{promised} {'more' if left > expected else f'{left} bytes'}")
    content = _at_most(
        file, expected + 1
    )  # one byte more shows whether bytes are left over, and makes gzip check its checksum
    if len(content) != expected:
        raise ValueError(f"{promised} {'more' if len(content) > expected else f'{len(content)} bytes'}")
    try:
        return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)
    except ValueError as error:  # more than 64 dimensions, or an extent of 0 beside huge extents
        raise ValueError(f"{path}: expected a shape that NumPy can hold, got {shape}: {error}") from error


def _at_most(file: BinaryIO | gzip.GzipFile, length: int) -> bytearray:
    """Return the next `length` bytes of the file, or all that are left if there are fewer."""
    content = bytearray()
    # In pieces, because read(length) may allocate memory for a length that only the header claims.
    while piece := file.read(min(_PIECE, length - len(content))):
        content += piece
    return content
