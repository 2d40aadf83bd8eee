"""This module has the initialisation schemes for weights. Each scheme names its source and its variance.

The array functions take a shape and a keyword-only `rng`, and return a float32 NumPy array. Weights are drawn on
the CPU and then moved, so that a CPU and a GPU start from the same numbers. The shape of a weight is
(outputs, inputs, kernel height, kernel width) or (outputs, inputs), and fan-in = inputs x kernel area.
The model functions change a model that was built with the defaults (for convolutions He et al., fan-in).
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
    """Draw no weights inside this context: every weight is zero, and its memory is not touched.

    Use it to count the parameters and multiplications of networks whose weights take long to draw:

        with init.undrawn():
            net = models.build("vgg19")
    """
    token = _draws.set(False)
    try:
        yield
    finally:
        _draws.reset(token)


def fans(shape: Shape) -> tuple[int, int]:
    """Return (fan-in, fan-out): how many inputs one output sums, and how many outputs one input reaches.

    Raises ValueError if `shape` has fewer than 2 axes.
    """
    if len(shape) < 2:
        raise ValueError(f"fans: expected a weight's shape (outputs, inputs, ...), got {shape}")
    area = math.prod(shape[2:])
    return shape[1] * area, shape[0] * area


def constant(shape: Shape, value: float) -> np.ndarray:
    """Return an array filled with `value`: variance 0."""
    return np.full(shape, value, np.float32)


def normal(shape: Shape, std: float = 0.01, *, rng: np.random.Generator) -> np.ndarray:
    """Draw from N(0, std^2). Krizhevsky et al. 2012, section 5, always use std 0.01."""
    if not _draws.get():
        return np.zeros(shape, np.float32)
    _check_generator(rng)
    return rng.standard_normal(shape, np.float32) * float(std)  # float(), because np.float64 would promote


def uniform(shape: Shape, limit: float, *, rng: np.random.Generator) -> np.ndarray:
    """Draw uniformly from [-limit, limit]: variance limit^2 / 3."""
    if not _draws.get():
        return np.zeros(shape, np.float32)
    _check_generator(rng)
    return (2 * rng.random(shape, np.float32) - 1) * float(limit)


def _check_generator(rng: Any) -> None:
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng: expected a numpy.random.Generator, got {type(rng).__name__}; "
                        "numpy.random.default_rng(0) makes one from the seed 0")


def xavier_normal(shape: Shape, *, rng: np.random.Generator) -> np.ndarray:
    """Draw from a normal distribution of variance 2 / (fan-in + fan-out).

    Glorot & Bengio 2010, equation 12, derive this variance for linear units.
    """
    return normal(shape, math.sqrt(2 / sum(fans(shape))), rng=rng)


def xavier_uniform(shape: Shape, *, rng: np.random.Generator) -> np.ndarray:
    """Draw uniformly from +-sqrt(6 / (fan-in + fan-out)), which has the variance of `xavier_normal`.

    Glorot & Bengio 2010, equation 16.
    """
    return uniform(shape, math.sqrt(6 / sum(fans(shape))), rng=rng)


def fan_in_uniform(shape: Shape, *, rng: np.random.Generator) -> np.ndarray:
    """Draw uniformly from +-1 / sqrt(fan-in): variance 1 / (3 fan-in).

    Torch's linear layers start this way, and so do the classifiers of the published residual networks. A classifier
    with He initialisation has 6 times this variance. On the large features of a deep residual network, its first
    losses are so high that training starts much more slowly.
    """
    return uniform(shape, 1 / math.sqrt(fans(shape)[0]), rng=rng)


def he_normal(shape: Shape, mode: str = "fan_in", *, rng: np.random.Generator) -> np.ndarray:
    """Draw from a normal distribution of variance 2 / fan-in or 2 / fan-out.

    He et al. 2015, "Delving Deep into Rectifiers". Through ReLU layers, mode "fan_in" keeps the second moment of the
    signal (equation 10), and mode "fan_out" keeps the second moment of the gradient (equation 14).

    Raises ValueError for another mode.
    """
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f'he_normal: expected mode "fan_in" or "fan_out", got {mode!r}')
    return normal(shape, math.sqrt(2 / fans(shape)[mode == "fan_out"]), rng=rng)


# ------------------------------------------------------------------------------------ whole models

def redraw(model: Any, scheme: Any, *, rng: np.random.Generator) -> Any:
    """Draw the weight of every convolution and linear layer again: weight = scheme(shape, rng=rng).

    For example `redraw(model, xavier_normal, rng=rng)`. Returns the model.
    Raises ValueError if the model has no such weight.
    """
    weights = [t for name, t in model.state().items() if t.requires_grad and name.endswith("weight") and t.ndim >= 2]
    if not weights:
        raise ValueError("redraw: this model has no weight of a convolution or a linear layer that requires a gradient")
    for t in weights:
        _set(t, scheme(t.shape, rng=rng))
    return model


def zero_last_gamma(model: Any) -> Any:
    """Make every residual block start as its shortcut: set the gamma of the last BatchNorm in each branch to 0.

    Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 5.1. Only this gamma is 0: if all weights of a block
    were 0, no gradient would reach any of them. Returns the model.
    Raises ValueError if no residual block of the model ends in a BatchNorm.
    """
    last = [block.last_norm for block in _blocks(model, "last_norm") if block.last_norm is not None]
    if not last:
        raise ValueError("zero_last_gamma: this model has no residual block that ends in a BatchNorm")
    for norm in last:
        _set(norm.weight, np.zeros(norm.weight.shape, np.float32))
    return model


def fixup(model: Any) -> Any:
    """Initialise a residual network without BatchNorm: Zhang, Dauphin & Ma 2019, "Fixup Initialization", section 3.

    The model has L residual blocks of m = 2 layers. The first convolution of each branch is a He initialisation times
    L^(-1/(2m-2)) = L^(-1/2), so its variance is 2 / (fan-in L). The last convolution of each branch and the
    classifier are 0. The scalar biases and the multiplier of rule 3 are in `nn.FixupBlock`. Returns the model.
    Raises ValueError if the model has no Fixup block.
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
    """Set a parameter to `values`, in its dtype and on its device."""
    t.data = device.of(t.data).asarray(values, dtype=t.dtype)
