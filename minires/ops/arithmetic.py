"""Arithmetic: the operators of Tensor, the larger of two, and a change of dtype."""
from __future__ import annotations

import numbers
from typing import Any

from ..tensor import Function, Tensor
from .arguments import as_tensor


class Add(Function):
    broadcasts = True
    def forward(self, a, b): return self.K.add(a, b) if a.shape == b.shape else a + b
    def backward(self, g): return g, g


Tensor.__add__ = Tensor.__radd__ = lambda a, b: Add.apply(a, as_tensor(b, a))


class Sub(Function):
    broadcasts = True
    def forward(self, a, b): return a - b
    def backward(self, g): return g, -g


Tensor.__sub__ = lambda a, b: Sub.apply(a, as_tensor(b, a))
Tensor.__rsub__ = lambda a, b: Sub.apply(as_tensor(b, a), a)


class Mul(Function):
    broadcasts = True

    def forward(self, a, b):
        self.a, self.b = a, b
        return a * b

    def backward(self, g): return g * self.b, g * self.a


Tensor.__mul__ = Tensor.__rmul__ = lambda a, b: Mul.apply(a, as_tensor(b, a))


class Div(Function):
    broadcasts = True

    def forward(self, a, b):
        self.a, self.b = a, b
        return a / b

    def backward(self, g): return g / self.b, -g * (self.a / self.b / self.b)  # b * b could underflow


Tensor.__truediv__ = lambda a, b: Div.apply(a, as_tensor(b, a))
Tensor.__rtruediv__ = lambda a, b: Div.apply(as_tensor(b, a), a)


class Neg(Function):
    def forward(self, x): return -x
    def backward(self, g): return -g


Tensor.__neg__ = lambda x: Neg.apply(x)


class Pow(Function):
    def forward(self, x, exponent):
        self.x, self.n = x, exponent
        return x ** exponent

    def backward(self, g):
        if self.n == 0:  # x ** 0 is constant; the formula below would give 0 * inf at x = 0
            return g * 0
        return g * (self.n * self.x ** (self.n - 1))


def pow(x: Tensor, exponent: float) -> Tensor:
    """Return x ** exponent for a constant exponent. Raises TypeError if `exponent` is not a number."""
    if not isinstance(exponent, numbers.Real):
        raise TypeError(f"pow: expected a number as exponent, got {type(exponent).__name__}; "
                        "for two Tensors write exp(b * log(a))")
    return Pow.apply(x, exponent=exponent if isinstance(exponent, int) else float(exponent))


class Maximum(Function):
    """Maximum computes the larger of a and b, element by element. In a tie the gradient goes to a."""

    broadcasts = True

    def forward(self, a, b):
        self.a_wins = a >= b
        return self.xp.maximum(a, b)

    def backward(self, g): return g * self.a_wins, g * ~self.a_wins


def maximum(a: Tensor, b: Any) -> Tensor:
    """Return max(a, b), element by element. In a tie the gradient goes to a."""
    return Maximum.apply(a, as_tensor(b, a))


class AsType(Function):
    converts = True

    def forward(self, x, dtype):
        self.dtype = x.dtype
        return x.astype(dtype)

    def backward(self, g): return g.astype(self.dtype)


Tensor.astype = lambda x, dtype: AsType.apply(x, dtype=dtype)
