"""This module reads the arguments that many operations share: numbers, pairs, axes and images."""
from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any

from .. import device
from ..tensor import Tensor

Pair = int | Sequence[int]              # one number for both, or (vertical, horizontal)
Axis = int | tuple[int, ...] | None     # None: all axes


def as_tensor(value: Any, like: Tensor) -> Tensor:
    """Return `value` as a Tensor. A number takes the dtype and device of `like`, so float32 * 2.0 stays float32."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, numbers.Real):
        return Tensor(device.of(like.data).asarray(value, like.dtype))
    return Tensor(value)


def both(name: str, a: Any, b: Any) -> tuple[Tensor, Tensor]:
    """Return both arguments of the operation `name` as Tensors. Raises TypeError if neither is a Tensor."""
    if isinstance(a, Tensor):
        return a, as_tensor(b, a)
    if isinstance(b, Tensor):
        return as_tensor(a, b), b
    raise TypeError(f"{name}: expected at least one Tensor, got {type(a).__name__} and {type(b).__name__}; write "
                    "Tensor(array) for an array")


def pair(value: Any, what: str = "pair") -> tuple[int, int]:
    """Return 3 as (3, 3), and (3, 2) unchanged. Raises ValueError, naming the argument `what`, for anything else."""
    if type(value) is tuple and [*map(type, value)] == [int, int]:  # what layers keep
        return value[0], value[1]
    values = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(values) != 2 or not all(isinstance(v, numbers.Integral) for v in values):
        raise ValueError(f"{what}: expected an integer or a pair of integers (vertical, horizontal), got {value!r}")
    return int(values[0]), int(values[1])


def axes_of(axis: Any, ndim: int) -> tuple[int, ...]:
    """Return `axis` as a tuple of non-negative axes. None means all axes."""
    if axis is None:
        return tuple(range(ndim))
    axes = (axis,) if isinstance(axis, numbers.Integral) else tuple(axis) if isinstance(axis, Sequence) else ()
    if not all(isinstance(a, numbers.Integral) for a in axes) or not isinstance(axis, numbers.Integral | Sequence):
        raise ValueError(f"axis: expected an integer or a tuple of integers, got {axis!r}")
    if any(not -ndim <= a < ndim for a in axes) or len({a % ndim for a in axes}) < len(axes):
        raise ValueError(f"axis {axis} does not name distinct axes of a {ndim}-dimensional array")
    return tuple(int(a) % ndim for a in axes)


def one_axis(axis: Any, ndim: int, what: str = "axis") -> int:
    """Return one axis as a non-negative integer. Raises ValueError, which calls it `what`, if there is no such axis."""
    if ndim == 0:
        raise ValueError(f"{what}: expected an array with axes, got one number")
    if not isinstance(axis, numbers.Integral) or not -ndim <= int(axis) < ndim:
        raise ValueError(f"{what}: expected an integer from {-ndim} to {ndim - 1}, got {axis!r}")
    return int(axis) % ndim


def inverse(order: Sequence[int]) -> list[int]:
    """Return the permutation that undoes `order` (its argsort)."""
    return sorted(range(len(order)), key=order.__getitem__)


def one_tuple(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return (2, 3) for the arguments of both f(x, 2, 3) and f(x, (2, 3))."""
    return tuple(args[0]) if len(args) == 1 and not isinstance(args[0], numbers.Integral) else args


def parts_of(name: str, tensors: Any) -> list[Tensor]:
    """Return a list of Tensors that the operation `name` got.

    Raises TypeError for anything else, and ValueError if the list is empty.
    """
    if isinstance(tensors, Tensor) or not isinstance(tensors, Iterable):
        raise TypeError(f"{name}: expected a list of Tensors, got {type(tensors).__name__}")
    parts = list(tensors)
    if wrong := [part for part in parts if not isinstance(part, Tensor)]:
        raise TypeError(f"{name}: expected a list of Tensors, got {type(wrong[0]).__name__} in it; wrap it: "
                        "Tensor(array)")
    if not parts:
        raise ValueError(f"{name}: expected at least one Tensor, got none")
    return parts


def check_number(what: str, value: Any, least: float = -math.inf, most: float = math.inf) -> float:
    """Return `value` as a float. Raises ValueError, which calls it `what`, unless it is a number from least to most."""
    if not isinstance(value, numbers.Real) or not least <= float(value) <= most:
        bounds = f" from {least} to {most}" if math.isfinite(most) else f" >= {least}" if math.isfinite(least) else ""
        raise ValueError(f"{what}: expected a number{bounds}, got {value!r}")
    return float(value)


def check_not_empty(x: Any) -> None:
    """Raise ValueError if x has no element."""
    if x.size == 0:
        raise ValueError("the batch is empty")


def check_image(x: Any) -> None:
    """Raise ValueError unless x is a batch of images (N, C, H, W) with at least one element."""
    if x.ndim != 4:
        raise ValueError("expected x (N, C, H, W); write one image x as x.reshape(1, *x.shape)")
    check_not_empty(x)
