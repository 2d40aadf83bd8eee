"""Matrix products."""
from __future__ import annotations

import math

from ..tensor import Function, Tensor


class MatMul(Function):
    """MatMul computes (..., n, k) @ (..., k, m) -> (..., n, m). Leading axes broadcast."""

    broadcasts = True

    def forward(self, a, b):
        self.a, self.b = a, b
        return self.K.matmul(a, b)

    def backward(self, g):
        return self.K.matmul(g, self.b.swapaxes(-1, -2)), self.K.matmul(self.a.swapaxes(-1, -2), g)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return a @ b as NumPy does: (..., n, k) @ (..., k, m) -> (..., n, m). Leading axes broadcast.

    A vector `a` counts as one row, and a vector `b` as one column.
    """
    if a.ndim == 1:
        y = matmul(a.reshape(1, -1), b)
        return y.reshape(y.shape[:-2] + y.shape[-1:]) if b.ndim > 1 else y.reshape(())
    if b.ndim == 1:
        y = matmul(a, b.reshape(-1, 1))
        return y.reshape(y.shape[:-1])
    return MatMul.apply(a, b)


class Linear(Function):
    """Linear computes x w^T + bias: x (..., I), w (O, I), optional bias (O,) -> (..., O)."""

    def forward(self, x, w, *bias):
        if x.ndim < 1 or w.ndim != 2 or x.shape[-1] != w.shape[1] or any(b.shape != w.shape[:1] for b in bias):
            raise ValueError("expected x (..., I), w (O, I) and bias (O,)")
        # One matrix: a row for each vector of x. (-1 instead of their number fails for vectors without elements.)
        self.shape, self.x, self.w = x.shape, x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), w
        y = self.K.matmul(self.x, w.T)
        return (y + bias[0] if bias else y).reshape(*x.shape[:-1], len(w))

    def backward(self, g):
        g = g.reshape(len(self.x), len(self.w))
        gx = self.K.matmul(g, self.w).reshape(self.shape)
        return (gx, self.K.matmul(g.T, self.x), g.sum(0))[:len(self.inputs)]


def linear(x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x w^T + bias: x (..., I), w (O, I), bias (O,) -> (..., O)."""
    return Linear.apply(x, w) if bias is None else Linear.apply(x, w, bias)
