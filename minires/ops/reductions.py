"""Reductions over axes: sum, mean, variance and maximum."""
from __future__ import annotations

import math
from typing import Any

from ..tensor import Function, Tensor
from .arguments import Axis, axes_of, check_number, inverse


def _count(shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
    """Return how many elements are reduced to one. Zero is an error."""
    n = math.prod(shape[a] for a in axes)
    if n == 0:
        raise ValueError("nothing to reduce: the array is empty along the axes")
    return n


def _unreduced(g: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    """Return g with the reduced axes restored, each of length 1."""
    return g.reshape([1 if a in axes else n for a, n in enumerate(shape)])


def _deviations(x: Any, axis: Any, correction: float) -> tuple[Any, float, Any]:
    """Return the axes, the divisor of the variance, and x minus its mean over the axes."""
    axes = axes_of(axis, x.ndim)
    count, correction = _count(x.shape, axes), check_number("correction", correction)
    if count <= correction:
        raise ValueError(f"expected more elements than correction={correction:g}, got {count}")
    return axes, count - correction, x - x.mean(axes, keepdims=True)


class Sum(Function):
    def forward(self, x, axis, keepdims):
        self.shape, self.axes = x.shape, axes_of(axis, x.ndim)
        return x.sum(self.axes, keepdims=keepdims)

    def backward(self, g): return self.xp.broadcast_to(_unreduced(g, self.shape, self.axes), self.shape)


def sum(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    return Sum.apply(x, axis=axis, keepdims=keepdims)


class Mean(Function):
    def forward(self, x, axis, keepdims):
        self.shape, self.axes = x.shape, axes_of(axis, x.ndim)
        self.count = _count(x.shape, self.axes)
        return x.mean(self.axes, keepdims=keepdims)

    def backward(self, g):
        return self.xp.broadcast_to(_unreduced(g, self.shape, self.axes) / self.count, self.shape)


def mean(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    return Mean.apply(x, axis=axis, keepdims=keepdims)


class Var(Function):
    """Var computes the sum of squared deviations from the mean, divided by count - correction."""

    def forward(self, x, axis, keepdims, correction):
        self.axes, self.divisor, self.centred = _deviations(x, axis, correction)
        return (self.centred * self.centred).sum(self.axes, keepdims=keepdims) / self.divisor

    def backward(self, g):  # the gradient through the mean is zero, because the deviations sum to zero
        return _unreduced(g, self.centred.shape, self.axes) * self.centred * (2 / self.divisor)


def var(x: Tensor, axis: Axis = None, keepdims: bool = False, correction: float = 0) -> Tensor:
    """Return the variance: biased with correction=0, as in batch normalisation, or unbiased with correction=1."""
    return Var.apply(x, axis=axis, keepdims=keepdims, correction=correction)


class Std(Function):
    """Std computes the root of the variance that Var computes. Its derivative is defined as 0 where it is 0."""

    def forward(self, x, axis, keepdims, correction):
        self.axes, self.divisor, self.centred = _deviations(x, axis, correction)
        self.y = self.xp.sqrt((self.centred * self.centred).sum(self.axes, keepdims=keepdims) / self.divisor)
        return self.y

    def backward(self, g):
        g = g / (self.xp.where(self.y == 0, 1, self.y) * self.divisor)
        return _unreduced(g, self.centred.shape, self.axes) * self.centred


def std(x: Tensor, axis: Axis = None, keepdims: bool = False, correction: float = 0) -> Tensor:
    """Return the standard deviation, the root of the variance: see `var`."""
    return Std.apply(x, axis=axis, keepdims=keepdims, correction=correction)


class Max(Function):
    """Max computes the largest element over the axes. In a tie the gradient goes to the first."""

    def forward(self, x, axis, keepdims):
        self.shape = x.shape
        self.axes = tuple(sorted(axes_of(axis, x.ndim)))       # sorted: "first" in the order of the axes
        count = _count(x.shape, self.axes)
        kept = [a for a in range(x.ndim) if a not in self.axes]
        self.order = (*kept, *self.axes)                       # reduced axes last
        self.ordered_shape = tuple(x.shape[a] for a in self.order)
        self.kept_shape = self.ordered_shape[:len(kept)]
        # The reduced axes are joined into one. (-1 instead of their count fails for arrays without elements.)
        self.winner = x.transpose(self.order).reshape(*self.kept_shape, count).argmax(-1)
        return x.max(self.axes, keepdims=keepdims)

    def backward(self, g):
        count = _count(self.shape, self.axes)
        won = self.xp.arange(count) == self.winner[..., None]
        gx = (g.reshape(*self.kept_shape, 1) * won).reshape(self.ordered_shape)
        return gx.transpose(inverse(self.order))


def max(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the largest element over the axes. In a tie the gradient goes to the first."""
    return Max.apply(x, axis=axis, keepdims=keepdims)


def min(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the smallest element over the axes. In a tie the gradient goes to the first."""
    return -max(-x, axis, keepdims)
