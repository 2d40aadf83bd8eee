"""How weights start. Each scheme names its source and its variance.

The array functions take a shape and a keyword-only `rng` and return float32 NumPy arrays: weights are
drawn on the CPU and then moved, so that a CPU and a GPU start from the same numbers. A weight's shape is
(outputs, inputs, kernel height, kernel width) or (outputs, inputs); fan-in = inputs x kernel area.
The model functions change a model that was built with the defaults (convolutions He et al., fan-in).
"""
from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from . import device

Shape = tuple[int, ...]

_draws: ContextVar[bool] = ContextVar("draws", default=True)


@contextmanager
def undrawn() -> Iterator[None]:
    """Inside, no weight is drawn: all are zeros, and no memory is touched. It serves to count the parameters and
    multiplications of networks that take long to draw:

        with init.undrawn():
            net = models.build("vgg19")
    """
    token = _draws.set(False)
    try:
        yield
    finally:
        _draws.reset(token)


def fans(shape: Shape) -> tuple[int, int]:
    """(fan-in, fan-out): how many inputs one output sums, and how many outputs one input reaches."""
    if len(shape) < 2:
        raise ValueError(f"fans: expected a weight's shape (outputs, inputs, ...), got {shape}")
    area = math.prod(shape[2:])
    return shape[1] * area, shape[0] * area


def constant(shape: Shape, value: float) -> np.ndarray:
    """`value` everywhere: variance 0."""
    return np.full(shape, value, np.float32)


def normal(shape: Shape, std: float = 0.01, *, rng: np.random.Generator) -> np.ndarray:
    """N(0, std^2). std 0.01 is the fixed choice of Krizhevsky et al. 2012, section 5."""
    if not _draws.get():
        return np.zeros(shape, np.float32)
    return rng.standard_normal(shape, np.float32) * float(std)  # float(): np.float64 would promote


def uniform(shape: Shape, limit: float, *, rng: np.random.Generator) -> np.ndarray:
    """Uniform on +-limit: variance limit^2 / 3."""
    if not _draws.get():
        return np.zeros(shape, np.float32)
    return (2 * rng.random(shape, np.float32) - 1) * float(limit)


def xavier_normal(shape: Shape, *, rng: np.random.Generator) -> np.ndarray:
    """Variance 2 / (fan-in + fan-out). Glorot & Bengio 2010, equation 12; derived for linear units."""
    return normal(shape, math.sqrt(2 / sum(fans(shape))), rng=rng)


def xavier_uniform(shape: Shape, *, rng: np.random.Generator) -> np.ndarray:
    """Uniform on +-sqrt(6 / (fan-in + fan-out)), the same variance. Glorot & Bengio 2010, equation 16."""
    return uniform(shape, math.sqrt(6 / sum(fans(shape))), rng=rng)


def fan_in_uniform(shape: Shape, *, rng: np.random.Generator) -> np.ndarray:
    """Uniform on +-1 / sqrt(fan-in): variance 1 / (3 fan-in). What Torch's linear layers start from, and with them
    the classifiers of the published residual networks. (A He-initialised classifier has 6 times this variance; on
    the large features of a deep residual network its first losses are so high that training starts much slower.)
    """
    return uniform(shape, 1 / math.sqrt(fans(shape)[0]), rng=rng)


def he_normal(shape: Shape, mode: str = "fan_in", *, rng: np.random.Generator) -> np.ndarray:
    """Variance 2 / fan-in, which keeps the signal's second moment through ReLU layers (He et al. 2015,
    "Delving Deep into Rectifiers", equation 10), or 2 / fan-out, which keeps the gradient's (equation 14)."""
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f'he_normal: expected mode "fan_in" or "fan_out", got {mode!r}')
    return normal(shape, math.sqrt(2 / fans(shape)[mode == "fan_out"]), rng=rng)


# ------------------------------------------------------------------------------------ whole models

def redraw(model: Any, scheme: Any, *, rng: np.random.Generator) -> Any:
    """Draw the weight of every convolution and linear layer again: weight = scheme(shape, rng=rng).

    Returns the model. For example `redraw(model, xavier_normal, rng=rng)`. ValueError where there is none to draw.
    """
    weights = [t for name, t in model.state().items() if t.requires_grad and name.endswith("weight") and t.ndim >= 2]
    if not weights:
        raise ValueError("redraw: this model has no weight of a convolution or a linear layer that is trained")
    for t in weights:
        _set(t, scheme(t.shape, rng=rng))
    return model


def zero_last_gamma(model: Any) -> Any:
    """Start every residual block as its shortcut: the gamma of the branch's last BatchNorm is 0.

    Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 5.1. Only this gamma: with all weights of a
    block at zero no gradient would reach any of them. Returns the model.
    """
    last = [block.last_norm for block in _blocks(model, "last_norm") if block.last_norm is not None]
    if not last:
        raise ValueError("zero_last_gamma: this model has no residual block that ends in a BatchNorm")
    for norm in last:
        _set(norm.weight, np.zeros(norm.weight.shape, np.float32))
    return model


def fixup(model: Any) -> Any:
    """Train a residual network without BatchNorm: Zhang, Dauphin & Ma 2019, "Fixup Initialization", section 3.

    For L residual blocks of m = 2 layers: the first convolution of each branch is He times L^(-1/(2m-2)) =
    L^(-1/2), so its variance is 2 / (fan-in L); the last convolution of each branch and the classifier are 0.
    The scalar biases and the multiplier of rule 3 are in `nn.FixupBlock`. Returns the model.
    """
    blocks = list(_blocks(model, "scale"))
    if not blocks:
        raise ValueError('fixup: this model has no Fixup block; build it with norm="fixup"')
    for block in blocks:
        w = block.conv1.weight
        _set(w, w.numpy() * len(blocks) ** -0.5)
        _set(block.conv2.weight, np.zeros(block.conv2.weight.shape, np.float32))
    for t in (model.fc.weight, model.fc.bias):
        _set(t, np.zeros(t.shape, np.float32))
    return model


def _blocks(model: Any, mark: str) -> Any:
    return (m for _, m in model.modules() if hasattr(m, mark))


def _set(t: Any, values: np.ndarray) -> None:
    """Values into a parameter, in its dtype and on its device."""
    t.data = device.of(t.data).asarray(values, dtype=t.dtype)
