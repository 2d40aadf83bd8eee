"""Functions of one element: exponential, logarithm, root, activations, and dropout."""
from __future__ import annotations

import numpy as np

from .. import device
from ..tensor import Function, Tensor


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
    if not 0 <= p < 1:
        raise ValueError(f"dropout: expected a probability 0 <= p < 1, got {p}")
    if not training or p == 0:
        return x
    kept = rng.random(x.shape, np.float32) >= p
    mask = kept.astype(x.dtype) * float(1 / (1 - p))
    return Dropout.apply(x, mask=device.of(x.data).asarray(mask))
