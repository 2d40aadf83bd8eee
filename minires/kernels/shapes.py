"""These kernels compute only the shape of a result. They serve to count the layers and multiplications of a network.

Each result is one zero, broadcast to the shape of the result. This takes no memory and no arithmetic. There are only
forward kernels.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from .. import device
from .reference import ONE, Pair, cross_entropy, log_softmax, output_size

__all__ = ["add", "avg_pool2d", "batch_norm", "batch_norm_eval", "batch_norm_relu", "conv2d", "cross_entropy",
           "log_softmax", "matmul", "max_pool2d", "relu", "running_statistics", "shortcut"]


def zero(like: Any, *shape: int) -> Any:
    """Return a read-only array of this shape, with the dtype and on the device of `like`."""
    xp = device.of(like)
    return xp.broadcast_to(xp.zeros((), like.dtype), shape)


def add(a: Any, b: Any) -> Any:
    """Return the shape of a, which is also the shape of b."""
    return zero(a, *a.shape)


def matmul(a: Any, b: Any) -> Any:
    """Return the shape of a product: (..., n, k) times (..., k, m) -> (..., n, m). Leading axes broadcast."""
    if a.shape[-1] != b.shape[-2]:
        return a @ b  # raises the usual error
    return zero(a, *np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])


def conv2d(x: Any, w: Any, stride: Pair, padding: Pair, dilation: Pair = ONE, groups: int = 1) -> Any:
    """Return the shape of a convolution: (N, C, H, W) -> (N, O, Ho, Wo)."""
    return zero(x, len(x), len(w), *output_size(x.shape[2:], w.shape[2:], stride, padding, dilation))


def batch_norm(x: Any, gamma: Any, beta: Any, eps: float) -> tuple[Any, Any, Any, Any]:
    """Return y with the shape of x, and mean and variance (C,)."""
    return zero(x, *x.shape), zero(x, len(gamma)), zero(x, len(gamma)), None


def batch_norm_eval(x: Any, gamma: Any, beta: Any, mean: Any, var: Any, eps: float) -> tuple[Any, Any]:
    """Return y with the shape of x."""
    return zero(x, *x.shape), None


def batch_norm_relu(x: Any, gamma: Any, beta: Any, eps: float, skip: Any = None) -> tuple[Any, Any, Any, Any]:
    """Return the shapes that batch_norm returns."""
    return batch_norm(x, gamma, beta, eps)


def running_statistics(old_mean: Any, old_var: Any, mean: Any, var: Any, momentum: float, count: int) \
        -> tuple[Any, Any]:
    """Return the old statistics, unchanged."""
    return old_mean, old_var


def relu(x: Any) -> tuple[Any, Any]:
    """Return y with the shape of x."""
    return zero(x, *x.shape), None


def max_pool2d(x: Any, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = ONE) -> tuple[Any, Any]:
    """Return the shape after pooling: (N, C, H, W) -> (N, C, Ho, Wo)."""
    return zero(x, *x.shape[:2], *output_size(x.shape[2:], kernel, stride, padding, dilation)), None


def avg_pool2d(x: Any, kernel: Pair, stride: Pair, padding: Pair) -> Any:
    """Return the shape after pooling: (N, C, H, W) -> (N, C, Ho, Wo)."""
    return zero(x, *x.shape[:2], *output_size(x.shape[2:], kernel, stride, padding))


def shortcut(x: Any, stride: int, channels: int, pad: str) -> Any:
    """Return the shape of option A: (N, C, H, W) -> (N, channels, ceil(H/stride), ceil(W/stride))."""
    return zero(x, len(x), channels, *x[0, 0, ::stride, ::stride].shape)
