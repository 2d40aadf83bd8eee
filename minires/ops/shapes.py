"""Operations that move elements and change none: shapes, indices, joining and padding."""
from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..tensor import Function, Tensor
from .arguments import axes_of, inverse, one_axis, one_tuple, parts_of


class Reshape(Function):
    def forward(self, x, shape):
        self.shape = x.shape
        return x.reshape(shape)

    def backward(self, g): return g.reshape(self.shape)


def reshape(x: Tensor, *shape: Any) -> Tensor:
    return Reshape.apply(x, shape=one_tuple(shape))


class Transpose(Function):
    def forward(self, x, axes):
        self.axes = axes_of(axes, x.ndim)
        return x.transpose(self.axes)

    def backward(self, g): return g.transpose(inverse(self.axes))


def transpose(x: Tensor, *axes: Any) -> Tensor:
    """Return x with its axes permuted to the given order, or reversed if no order is given."""
    return Transpose.apply(x, axes=one_tuple(axes) or tuple(reversed(range(x.ndim))))


class GetItem(Function):
    """GetItem computes x[index] for slices, integers, integer arrays and boolean masks."""

    def forward(self, x, index):
        if any(isinstance(i, Tensor) for i in (index if isinstance(index, tuple) else (index,))):
            raise ValueError("an index must be integers, slices or arrays, not a Tensor")
        self.shape, self.index = x.shape, copy.deepcopy(index)  # the caller may change its arrays
        return x[index]

    def backward(self, g):
        gx = self.xp.zeros(self.shape, g.dtype)
        parts = self.index if isinstance(self.index, tuple) else (self.index,)
        if any(hasattr(i, "__len__") for i in parts):
            self.xp.add.at(gx, self.index, g)  # an index array may name an element twice: both gradients add
        else:
            gx[self.index] = g
        return gx


Tensor.__getitem__ = lambda x, index: GetItem.apply(x, index=index)


class Concatenate(Function):
    def forward(self, *parts, axis):
        self.axis = axis = one_axis(axis, parts[0].ndim)
        self.cuts = list(np.cumsum([p.shape[axis] for p in parts[:-1]]))
        return self.xp.concatenate(parts, axis)

    def backward(self, g): return tuple(self.xp.split(g, self.cuts, self.axis))


def concatenate(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Concatenate Tensors of equal shape, except along `axis`. Raises ValueError if `tensors` is empty."""
    parts = parts_of("concatenate", tensors)
    return Concatenate.apply(*parts, axis=axis)


def stack(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Join Tensors of one shape along a new axis. Raises ValueError if there is none, or if the shapes differ."""
    parts = parts_of("stack", tensors)
    if len({t.shape for t in parts}) > 1:
        raise ValueError(f"stack: expected Tensors of one shape, got {', '.join(str(t.shape) for t in parts)}")
    at, shape = one_axis(axis, parts[0].ndim + 1, "stack, axis"), parts[0].shape
    return concatenate([reshape(t, *shape[:at], 1, *shape[at:]) for t in parts], at)


class Pad(Function):
    def forward(self, x, widths, value):
        if len(widths) != x.ndim or any(len(w) != 2 or min(w) < 0 for w in widths):
            raise ValueError(f"expected one (before, after) pair >= 0 for each of {x.ndim} axes, got {widths}")
        self.inside = tuple(slice(before, before + n) for (before, _), n in zip(widths, x.shape, strict=True))
        return self.xp.pad(x, widths, constant_values=value)

    def backward(self, g): return g[self.inside]


def pad(x: Tensor, widths: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """Return x with a border of `value`. widths: one (before, after) pair of widths >= 0 for each axis."""
    return Pad.apply(x, widths=tuple(tuple(w) for w in widths), value=value)


class BroadcastTo(Function):
    broadcasts = True
    def forward(self, x, shape): return self.xp.broadcast_to(x, shape)
    def backward(self, g): return g


def broadcast_to(x: Tensor, shape: Sequence[int]) -> Tensor:
    return BroadcastTo.apply(x, shape=tuple(shape))
