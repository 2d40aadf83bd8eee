"""Functions of one element: exponential, logarithm, root, activations, and dropout."""
from __future__ import annotations

import math
import numbers

import numpy as np

from .. import device
from ..kernels.reference import normal_cdf
from ..tensor import Function, Tensor
from .arguments import check_number


class Exp(Function):
    def forward(self, x):
        self.y = self.xp.exp(x)
        return self.y

    def backward(self, g): return g * self.y


def exp(x: Tensor) -> Tensor: return Exp.apply(x)


class Log(Function):
    def forward(self, x):
        self.x = x
        return self.xp.log(x)

    def backward(self, g): return g / self.x


def log(x: Tensor) -> Tensor: return Log.apply(x)


class Sqrt(Function):
    def forward(self, x):
        self.y = self.xp.sqrt(x)
        return self.y

    def backward(self, g): return g * 0.5 / self.y


def sqrt(x: Tensor) -> Tensor: return Sqrt.apply(x)


class Tanh(Function):
    def forward(self, x):
        self.y = self.xp.tanh(x)
        return self.y

    def backward(self, g): return g * (1 - self.y * self.y)


def tanh(x: Tensor) -> Tensor: return Tanh.apply(x)


class Sigmoid(Function):
    def forward(self, x):
        e = self.xp.exp(-self.xp.abs(x))  # 1 / (1 + exp(-x)) would overflow for x << 0
        self.y = self.xp.where(x >= 0, 1, e) / (1 + e)
        return self.y

    def backward(self, g): return g * self.y * (1 - self.y)


def sigmoid(x: Tensor) -> Tensor: return Sigmoid.apply(x)


class Relu(Function):
    """Relu computes max(x, 0). Its derivative at 0 is defined as 0."""

    def forward(self, x):
        y, self.on = self.K.relu(x)
        return y

    def backward(self, g): return g * self.on


def relu(x: Tensor) -> Tensor: return Relu.apply(x)


class LeakyRelu(Function):
    """LeakyRelu computes x for x > 0 and slope * x elsewhere. Its derivative at 0 is defined as the slope."""

    def forward(self, x, slope):
        self.on, self.slope = x > 0, slope
        return self.xp.where(self.on, x, x * slope)

    def backward(self, g): return self.xp.where(self.on, g, g * self.slope)


def leaky_relu(x: Tensor, slope: float = 0.01) -> Tensor:
    """Return x for x > 0 and slope * x elsewhere. Raises ValueError if `slope` is not a number."""
    return LeakyRelu.apply(x, slope=check_number("leaky_relu, slope", slope))


class Gelu(Function):
    """Gelu computes x P(Z <= x) for a standard normal Z: Hendrycks & Gimpel 2016, arXiv 1606.08415."""

    def forward(self, x):
        self.x, self.below = x, normal_cdf(x)
        return x * self.below

    def backward(self, g):
        density = self.xp.exp(self.x * self.x * -0.5) * (1 / math.sqrt(2 * math.pi))
        return g * (self.below + self.x * density)


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """Return x P(Z <= x) for a standard normal Z.

    approximate: "tanh" computes 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) instead, as GPT-2 does.
    Raises ValueError for another word.
    """
    check_approximate("gelu", approximate)
    if approximate == "none":
        return Gelu.apply(x)
    return 0.5 * x * (1 + tanh((x + 0.044715 * x ** 3) * math.sqrt(2 / math.pi)))


def check_approximate(name: str, approximate: str) -> None:
    """Check the option of `gelu`. Raises ValueError, naming the operation or layer `name`, if it is invalid."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f'{name}, approximate: expected "none" or "tanh", got {approximate!r}')


class Abs(Function):
    """Abs computes |x|. Its derivative at 0 is defined as 0."""

    def forward(self, x):
        self.sign = self.xp.sign(x)
        return self.xp.abs(x)

    def backward(self, g): return g * self.sign


def abs(x: Tensor) -> Tensor: return Abs.apply(x)


class Dropout(Function):
    def forward(self, x, mask):
        self.mask = mask
        return x * mask

    def backward(self, g): return g * self.mask


def dropout(x: Tensor, p: float = 0.5, training: bool = True, *, rng: np.random.Generator) -> Tensor:
    """Set each element to zero with probability p and divide the others by 1 - p. If not training, return x itself.

    rng: draws the mask, on the host.
    Raises ValueError unless 0 <= p < 1.
    """
    check_probability("dropout", p)
    if not training or p == 0:
        return x
    kept = rng.random(x.shape, np.float32) >= p
    mask = kept.astype(x.dtype) * float(1 / (1 - p))
    return Dropout.apply(x, mask=device.of(x.data).asarray(mask))


def check_probability(name: str, p: float) -> None:
    """Check the option of `dropout`. Raises ValueError, naming the operation or layer `name`, unless 0 <= p < 1."""
    if not isinstance(p, numbers.Real) or not 0 <= p < 1:
        raise ValueError(f"{name}: expected a probability 0 <= p < 1, got {p!r}")
