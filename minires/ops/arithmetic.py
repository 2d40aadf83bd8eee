"""Arithmetic: the operators of Tensor, the larger of two, a choice of two, and a change of dtype."""
from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from .. import device
from ..tensor import Function, Tensor
from .arguments import as_tensor, both


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


class Power(Function):
    """Power computes a ** b for two arrays. The derivative by a is 0 where b = 0, and that by b where a = 0 <= b."""

    broadcasts = True

    def forward(self, a, b):
        self.a, self.b, self.y = a, b, a ** b
        return self.y

    def backward(self, g):
        xp, a, b, ga, gb = self.xp, self.a, self.b, None, None
        if self.needs[0]:  # with b = 1 instead of 0, no infinity is multiplied by 0
            ga = g * b * a ** (xp.where(b == 0, 1, b) - 1)
        if self.needs[1]:
            gb = g * self.y * xp.log(xp.where((a == 0) & (b >= 0), 1, a))
        return ga, gb


def _power(a: Tensor, b: Tensor) -> Tensor: return Power.apply(a, b)


class Pow(Function):
    def forward(self, x, exponent):
        self.x, self.n = x, exponent
        return x ** exponent

    def backward(self, g):
        if self.n == 0:  # x ** 0 is constant; the formula below would give 0 * inf at x = 0
            return g * 0
        return g * (self.n * self.x ** (self.n - 1))


def pow(x: Any, exponent: Any) -> Tensor:
    """Return x ** exponent, element by element. One of the two, or both, are Tensors.

    A whole number or a float as exponent keeps the sign of a negative x. A Tensor as exponent has a gradient; where x
    is negative, this gradient is NaN.
    """
    if isinstance(x, Tensor) and isinstance(exponent, numbers.Real):
        return Pow.apply(x, exponent=exponent if isinstance(exponent, int) else float(exponent))
    return _power(*both("pow", x, exponent))


Tensor.__pow__ = pow
Tensor.__rpow__ = lambda b, a: pow(a, b)


class Maximum(Function):
    """Maximum computes the larger of a and b, element by element. In a tie the gradient goes to a."""

    broadcasts = True

    def forward(self, a, b):
        self.a_wins = a >= b
        return self.xp.maximum(a, b)

    def backward(self, g): return g * self.a_wins, g * ~self.a_wins


def maximum(a: Any, b: Any) -> Tensor:
    """Return max(a, b), element by element. One may be a number. In a tie the gradient goes to a."""
    return Maximum.apply(*both("maximum", a, b))


def minimum(a: Any, b: Any) -> Tensor:
    """Return min(a, b), element by element. One may be a number. In a tie the gradient goes to a."""
    a, b = both("minimum", a, b)
    return -Maximum.apply(-a, -b)


class Clip(Function):
    """Clip computes min(max(x, low), high). The derivative is 1 for low <= x <= high and 0 elsewhere."""

    def forward(self, x, low, high):
        self.inside = (x >= low) & (x <= high)
        return self.xp.minimum(self.xp.maximum(x, low), high)

    def backward(self, g): return g * self.inside


def clip(x: Tensor, low: float | None = None, high: float | None = None) -> Tensor:
    """Return x with smaller elements raised to `low`, and larger ones lowered to `high`. None is no bound.

    Raises TypeError unless the bounds are numbers, and ValueError if low > high or there is no bound.
    """
    if not all(bound is None or isinstance(bound, numbers.Real) for bound in (low, high)):
        raise TypeError(f"clip: expected numbers as bounds, got {type(low).__name__} and {type(high).__name__}; with "
                        "Tensors write minimum(maximum(x, low), high)")
    if low is None and high is None:
        raise ValueError("clip: expected a bound, got low=None and high=None")
    low, high = -math.inf if low is None else float(low), math.inf if high is None else float(high)
    if not low <= high:
        raise ValueError(f"clip: expected low <= high, got {low} and {high}")
    return Clip.apply(x, low=low, high=high)


class Where(Function):
    """Where selects a where a condition holds, and b elsewhere. So does the gradient: the other one gets 0."""

    broadcasts = True

    def forward(self, a, b, condition):
        self.condition = condition
        return self.xp.where(condition, a, b)

    def backward(self, g): return self.xp.where(self.condition, g, 0), self.xp.where(self.condition, 0, g)


def where(condition: Any, a: Any, b: Any) -> Tensor:
    """Return a where `condition` is True, else b, element by element. One of a and b may be a number.

    condition: an array of booleans on the same device, such as x > 0. It is copied.
    Raises TypeError if `condition` is anything else.
    """
    a, b = both("where", a, b)
    if isinstance(condition, bool | list | np.bool_):
        condition = np.array(condition)
    if isinstance(condition, Tensor) or str(getattr(condition, "dtype", "")) != "bool":
        kind = getattr(condition, "dtype", type(condition).__name__)
        raise TypeError(f"where: expected an array of booleans as condition, such as x > 0, got {kind}")
    xp = device.of(a.data, b.data, condition, operation="where")
    return Where.apply(a, b, condition=xp.array(condition))


class AsType(Function):
    converts = True

    def forward(self, x, dtype):
        self.dtype = x.dtype
        return x.astype(dtype)

    def backward(self, g): return g.astype(self.dtype)


Tensor.astype = lambda x, dtype: AsType.apply(x, dtype=dtype)
