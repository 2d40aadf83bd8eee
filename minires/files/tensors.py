"""Read safetensors files: named arrays and a little text.

    8 bytes      the length of the header, little-endian
    the header   JSON: {name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ...}, and under
                 "__metadata__" text by name
    the rest     the numbers; the offsets count bytes from here, and the arrays fill the rest without gaps

Source: https://huggingface.co/docs/safetensors, "Format".
"""
from __future__ import annotations

import functools
import json
import math
import os
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .archives import most_list
from .pickles import SHOWN, Refused
from .torchfile import BFLOAT16, MOST_AXES, Stored, itemsize, numbers

TYPES = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": BFLOAT16, "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
         "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "?"}


class Content(NamedTuple):
    """Holds what a file's header says. The arrays are readable while the file is open."""

    arrays: dict[str, Stored]
    metadata: dict[str, str]


def parsed(content: bytes, what: str) -> Any:
    """Return the value of a JSON text. Raises Refused, which calls it `what`, if it is damaged."""
    try:
        return json.loads(content.decode())
    except RecursionError as e:
        raise Refused(f"it is damaged: {what} is nested too deeply") from e
    except ValueError as e:
        raise Refused(f"it is damaged: {what} is not JSON: {str(e)[:SHOWN]}") from e


def read(file: BinaryIO) -> Content:
    """Read the header and check it completely against the file's size. No array is read.

    Raises Refused if the file is damaged or is not a safetensors file.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    most = min(most_list(size), max(size - 8, 0))
    if not 2 <= length <= most:
        raise Refused(f"it is damaged: its header claims {length} bytes, where 2 to {most} fit a file of {size}")
    header = parsed(file.read(length), "its header")
    if not isinstance(header, dict):
        raise Refused("it is damaged: its header is not a dict")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Refused("it is damaged: its metadata is not text")
    places = {name: _place(name, described) for name, described in header.items()}
    end = 0
    for _, _, begin, stop in sorted(places.values(), key=lambda place: place[2:]):
        if begin != end:
            raise Refused(f"it is damaged: an array begins at byte {begin}, where {end} was expected")
        end = stop
    if end != size - 8 - length:
        raise Refused(f"it is damaged: its arrays have {end} bytes, and the file has {size - 8 - length} for them")
    return Content({name: Stored(shape, numbers(b"", dtype).dtype,
                                 functools.partial(_array, file, 8 + length + begin, stop - begin, dtype, shape))
                    for name, (dtype, shape, begin, stop) in sorted(places.items())}, metadata)


def _place(name: str, described: Any) -> tuple[str, tuple[int, ...], int, int]:
    """Return (dtype, shape, begin, end) of one array from its entry in the header."""
    shown = name[:SHOWN]
    if not isinstance(described, dict) or described.keys() != {"dtype", "shape", "data_offsets"}:
        raise Refused(f"it is damaged: {shown}: expected its dtype, shape and data_offsets")
    dtype, shape, offsets = described["dtype"], described["shape"], described["data_offsets"]
    if not isinstance(dtype, str) or dtype not in TYPES:
        raise Refused(f"{shown} has type {str(dtype)[:20]}; expected one of {', '.join(TYPES)}")
    if not _counts(shape) or len(shape) > MOST_AXES or not _counts(offsets) or len(offsets) != 2:
        raise Refused(f"it is damaged: {shown}: expected whole numbers from 0 as its shape and data_offsets")
    begin, end = offsets
    if end - begin != math.prod(shape) * itemsize(TYPES[dtype]):
        raise Refused(f"it is damaged: {shown}: shape {shape} of {dtype} does not have {end - begin} bytes")
    return TYPES[dtype], tuple(shape), begin, end


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _array(file: BinaryIO, start: int, length: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    file.seek(start)
    content = bytearray(length)
    if file.readinto(content) != length:  # type: ignore[attr-defined]
        raise Refused("it is damaged: it became shorter while it was read")
    return numbers(content, dtype).reshape(shape)
