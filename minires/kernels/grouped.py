"""Convolution with groups of channels on the CPU, by a kernel that convolves all channels of its input.

Groups of few channels would leave most of a vector register empty. So neighbouring groups are joined until they have
LEAST channels, and their weights become the blocks on the diagonal of one dense weight:

    w_1 (2, 1)      w_1  0
    w_2 (2, 1)  ->   0  w_2      (4, 2)

The zeros cost multiplications in lanes that would be idle otherwise. A value of x that is not finite times such a zero
is NaN, so it can spread to the other groups that are joined with its own.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

LEAST = 16  # channels of a convolution on joined groups, if there are so many


def joined(w: Any, groups: int) -> int:
    """Return how many groups are joined: the smallest divisor of `groups` that gives LEAST channels in and out."""
    channels = min(w.shape[1], len(w) // groups)
    return next(n for n in range(1, groups + 1) if groups % n == 0 and (n * channels >= LEAST or n == groups))


def dense(w: Any, groups: int, n: int) -> Any:
    """Return the weights (O, C/groups, kh, kw) as (groups/n, O', C', kh, kw), with zeros between the n groups joined.

    O' and C' are the channels of n groups.
    """
    O, C, *kernel = w.shape
    out = np.zeros((groups // n, n, O // groups, n, C, *kernel), w.dtype)
    for i in range(n):
        out[:, i, :, i] = w.reshape(groups // n, n, O // groups, C, *kernel)[:, i]
    return out.reshape(groups // n, n * (O // groups), n * C, *kernel)


def diagonal(blocks: Any, w: Any, groups: int, n: int) -> Any:
    """Return the blocks on the diagonal as (O, C/groups, kh, kw). This is the transpose of `dense`."""
    O, C, *kernel = w.shape
    blocks = blocks.reshape(groups // n, n, O // groups, n, C, *kernel)
    return np.stack([blocks[:, i, :, i] for i in range(n)], 1).reshape(w.shape)


def _parts(a: Any, count: int) -> list[Any]:
    """Return (N, C, H, W) as `count` arrays of C / count channels."""
    return np.split(a, count, 1)


def _joined(parts: list[Any]) -> Any:
    """Return the arrays (N, C, H, W) side by side, channels last in memory."""
    return np.concatenate([part.transpose(0, 2, 3, 1) for part in parts], 3).transpose(0, 3, 1, 2)


def conv2d(convolve: Callable[..., Any], x: Any, w: Any, groups: int, *geometry: Any) -> Any:
    """Compute reference.conv2d for several groups, with convolve(x, w, *geometry) for each set of joined groups."""
    weights = dense(w, groups, joined(w, groups))
    return _joined([convolve(*both, *geometry) for both in zip(_parts(x, len(weights)), weights, strict=True)])


def conv2d_backward(convolve_backward: Callable[..., Any], g: Any, x: Any, w: Any, groups: int, stride: Any,
                    padding: Any, need_x: bool, need_w: bool, *dilation: Any) -> tuple[Any, Any]:
    """Compute reference.conv2d_backward for several groups, with convolve_backward for each set of joined groups."""
    n = joined(w, groups)
    weights = dense(w, groups, n)
    each = zip(_parts(g, len(weights)), _parts(x, len(weights)), weights, strict=True)
    gx, gw = zip(*(convolve_backward(*three, stride, padding, need_x, need_w, *dilation) for three in each),
                 strict=True)
    return _joined(list(gx)) if need_x else None, diagonal(np.stack(gw), w, groups, n) if need_w else None
