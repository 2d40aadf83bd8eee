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

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_PIECE = 1 << 20


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Read one IDX file, plain or compressed with gzip, and return an array with its shape and type.

    The file's content, not its name, decides whether it is compressed. The array has the machine's byte order. The
    memory used depends on what the file holds, not on what its header claims.

    Raises ValueError, which names the file, what was expected and what was found, if the file is not exactly one
    complete IDX array.
    Raises FileNotFoundError if there is no such file.
    """
    path = os.fspath(path)
    with open(path, "rb") as file:
        if file.read(2) != b"\x1f\x8b":
            file.seek(0)
            return _read(file, path)
        file.seek(0)
        try:
            with gzip.open(file) as unpacked:
                return _read(unpacked, path)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(
                f"{path}: expected a complete gzip file, but it cannot be unpacked: {error}"
            ) from error


def _read(file: BinaryIO | gzip.GzipFile, path: str) -> np.ndarray:
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
    content = _at_most(
        file, expected + 1
    )  # one byte more shows whether bytes are left over, and makes gzip check its checksum
    if len(content) != expected:
        got = "more" if len(content) > expected else f"{len(content)} bytes"
        raise ValueError(
            f"{path}: expected {expected} bytes of elements for shape {shape} of {dtype.name}, got {got}"
        )
    try:
        return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="))
    except ValueError as error:  # more than 64 dimensions, or an extent of 0 beside huge extents
        raise ValueError(f"{path}: expected a shape that NumPy can hold, got {shape}: {error}") from error


def _at_most(file: BinaryIO | gzip.GzipFile, length: int) -> bytearray:
    """Return the next `length` bytes of the file, or all that are left if there are fewer."""
    content = bytearray()
    # In pieces, because read(length) may allocate memory for a length that only the header claims.
    while piece := file.read(min(_PIECE, length - len(content))):
        content += piece
    return content
