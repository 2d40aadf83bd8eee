"""Read pickled NumPy arrays without running code from the pickle: a dict or a list of arrays, as pickle.dump writes it.

    pickle.dump({"W1": array, "b1": array}, file)

An array in a pickle is one of these, in which the numbers are bytes of the pickle itself:

    protocols 0 to 4   numpy.core.multiarray._reconstruct(numpy.ndarray, (0,), b"b") makes an empty array, whose state
                       is then set to (1, shape, dtype, whether in Fortran's order, bytes)
    protocol 5         numpy.core.numeric._frombuffer(bytes, dtype, shape, "C" or "F")

NumPy 2 writes numpy._core for numpy.core.
"""
from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from . import pickles
from .pickles import Refused
from .torchfile import MOST_AXES, Stored

CODE = re.compile(r"[<>=|]?(?:b1|[iu][1248]|f(?:2|4|8|16)|c(?:8|16))")  # of a dtype of numbers
MOST_BYTES = 1 << 30  # of a file, all of which is in memory
NESTED = 4  # how many dicts deep arrays are looked for


def read(file: BinaryIO) -> Any:
    """Return the pickled object: containers unchanged, and a Stored for each array.

    Raises Refused if the pickle names anything that arrays of numbers do not need, or if it is damaged.
    """
    file.seek(0)
    found = pickles.read(file, allowed(), encoding="latin1", explained=EXPLAINED, most=MOST_BYTES, byte_arrays=True)
    if file.read(1):
        raise Refused("it has more after its first pickle, which pickled arrays do not have")
    if isinstance(found, (list, tuple)):
        found = {str(number): value for number, value in enumerate(found)}
    if not any(isinstance(value, _Array) for value in _all(found)):
        raise Refused("it is a pickle, but neither torch.save wrote it, nor does it hold NumPy arrays of numbers")
    return _stored(found, {})


def _all(value: Any) -> Iterator[Any]:
    """Yield a value, and all values in dicts in it, each once."""
    seen, stack = set[int](), [value]
    while stack:
        one = stack.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            stack += one.values() if isinstance(one, dict) else ()


def _stored(value: Any, known: dict[int, Any], depth: int = 0) -> Any:
    """Return a value in which Stored replaces every array, also in dicts. `known`: {id of a dict: its result}."""
    if isinstance(value, _Array):
        return value.stored()
    if not isinstance(value, dict) or depth > NESTED:
        return value
    if id(value) not in known:
        known[id(value)] = made = dict[Any, Any]()
        made.update((name, _stored(item, known, depth + 1)) for name, item in value.items())
    return known[id(value)]


EXPLAINED = {("numpy.ma.core", "_mareconstruct"): "it holds masked arrays; save array.filled(0) instead",
             ("numpy", "matrix"): "it holds a numpy.matrix; save numpy.asarray(matrix) instead"}


def allowed() -> dict[tuple[str, str], Any]:
    """Return the stand-in of every name that such a pickle may use. They only build data, and are made anew for each
    file, because a pickle may set the state of what it has."""
    class Dtype:
        """Stands in for numpy.dtype. `code` is what numpy.dtype takes, without the byte order, which is the state."""

        code, order = "", "="

        def __init__(self, code: Any = "", *_: Any):
            self.code = code if isinstance(code, str) and CODE.fullmatch(code) else ""

        def __setstate__(self, state: Any) -> None:
            if type(state) is not tuple or len(state) < 2 or state[1] not in ("<", ">", "=", "|"):
                raise Refused("it has a dtype whose state NumPy would not write")
            self.order = state[1]

    class Array(_Array):
        def __setstate__(self, state: Any) -> None:
            if type(state) is not tuple or len(state) != 5:
                raise Refused("it has an array whose state NumPy would not write")
            _, shape, dtype, fortran, numbers = state
            self.fill(shape, dtype, "F" if fortran is True else "C", numbers, Dtype)

    def reconstruct(kind: Any = None, *_: Any) -> Any:
        if kind is not ndarray:
            raise Refused("it makes an array of a class that is not numpy.ndarray")
        return Array()

    def from_buffer(numbers: Any = None, dtype: Any = None, shape: Any = None, order: Any = None) -> Any:
        made = Array()
        made.fill(shape, dtype, order, numbers, Dtype)
        return made

    def encode(text: Any = "", encoding: Any = "latin1") -> bytes:  # Python 3 writes bytes so in protocols 0 to 2
        if not isinstance(text, str) or encoding != "latin1":
            raise Refused("it encodes something other than bytes")
        return text.encode("latin1")

    def scalar(dtype: Any = None, numbers: Any = b"", *_: Any) -> Any:
        made = Array()
        made.fill((), dtype, "C", numbers, Dtype)
        return made

    def empty(*_: Any) -> bytes:  # bytes(), which is how Python 3 writes no bytes in these protocols
        return b""

    def ndarray(*_: Any) -> Any:
        raise Refused("it calls numpy.ndarray, which NumPy does not do in a pickle")

    found: dict[tuple[str, str], Any] = {("numpy", "ndarray"): ndarray, ("numpy", "dtype"): Dtype,
                                         ("_codecs", "encode"): encode, ("__builtin__", "bytes"): empty,
                                         ("builtins", "bytes"): empty,
                                         ("collections", "OrderedDict"): pickles.ordered_dict()}
    for core in "numpy.core", "numpy._core":
        found |= {(f"{core}.multiarray", "_reconstruct"): reconstruct, (f"{core}.multiarray", "scalar"): scalar,
                  (f"{core}.numeric", "_frombuffer"): from_buffer}
    return found


class _Array:
    """Holds an array of a pickle. What is checked is a tuple of integers, text and bytes, which nothing can change."""

    filled: tuple[tuple[int, ...], np.dtype, str, bytes | str] | None = None

    def fill(self, shape: Any, dtype: Any, order: Any, numbers: Any, dtypes: type) -> None:
        """Check and keep the parts of an array. `dtypes`: the stand-in for numpy.dtype."""
        if not isinstance(dtype, dtypes):
            raise Refused("it has an array without a dtype")
        kind: Any = dtype
        if not kind.code:
            raise Refused("it has an array whose dtype is not one of numbers")
        found = np.dtype(kind.code)
        if (type(shape) is not tuple or len(shape) > MOST_AXES or type(numbers) not in (bytes, str)
                or order not in ("C", "F") or not all(type(n) is int and 0 <= n < 2**63 for n in shape)):
            raise Refused("it has an array whose shape, order or numbers are invalid")
        if math.prod(shape) * found.itemsize != len(numbers):
            raise Refused(f"it has an array of shape {shape} and type {found} with {len(numbers)} bytes")
        self.filled = shape, found.newbyteorder(kind.order), order, numbers

    def stored(self) -> Stored:
        """Return the array, not read yet.

        Raises Refused if the pickle made it and never filled it.
        """
        if self.filled is None:
            raise Refused("it is damaged: it has an array without numbers")
        shape, dtype, order, numbers = self.filled
        return Stored(shape, dtype.newbyteorder("="), functools.partial(_numbers, shape, dtype, order, numbers))


def _numbers(shape: tuple[int, ...], dtype: np.dtype, order: Any, numbers: bytes | str) -> np.ndarray:
    # Python 2's bytes arrive as text. They are converted only now, because many arrays may share one text.
    content = numbers.encode("latin1") if isinstance(numbers, str) else numbers
    return np.frombuffer(content, dtype).reshape(shape, order=order).astype(dtype.newbyteorder("="), copy=False)
