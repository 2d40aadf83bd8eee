"""Pooling, and the subsampling of the shortcut without weights."""
from __future__ import annotations

import math
from typing import Any

from ..tensor import Function, Tensor
from .arguments import Pair, check_image, pair
from .reductions import mean
from .shapes import pad as pad_axes


class MaxPool2d(Function):
    def forward(self, x, kernel, stride, padding):
        check_image(x)
        if any(2 * p > k for k, p in zip(kernel, padding, strict=True)):
            raise ValueError(f"padding {padding} is more than half of the kernel {kernel}: a window would be empty")
        self.geometry = x.shape, kernel, stride, padding
        y, self.winner = self.K.max_pool2d(x, kernel, stride, padding)
        return y

    def backward(self, g): return self.K.max_pool2d_backward(g, self.winner, *self.geometry)


def max_pool2d(x: Tensor, kernel: Pair, stride: Pair | None = None, padding: Pair = 0, ceil_mode: bool = False
               ) -> Tensor:
    """Return the maximum of every window. In a tie the gradient goes to the first element of the window.

    x: (N, C, H, W). kernel, stride, padding: integers or pairs (vertical, horizontal). The stride defaults to kernel.
    ceil_mode: Rows and columns at the end that do not fill a window are dropped. With ceil_mode=True they get a
        window that extends beyond the border, unless this window would contain only padding.
    """
    kernel, padding = pair(kernel, "max_pool2d, kernel"), pair(padding, "max_pool2d, padding")
    stride = kernel if stride is None else pair(stride, "max_pool2d, stride")
    if ceil_mode and x.ndim == 4 and min(stride) > 0:
        over = [_overhang(*sizes) for sizes in zip(x.shape[2:], kernel, stride, padding, strict=True)]
        if any(over):
            x = pad_axes(x, ((0, 0), (0, 0), (0, over[0]), (0, over[1])), -math.inf)
    return MaxPool2d.apply(x, kernel=kernel, stride=stride, padding=padding)


def _overhang(size: int, kernel: int, stride: int, padding: int) -> int:
    """Return how far one more window would extend beyond the padded end; 0 if at most padding is left over."""
    over = (kernel - size - 2 * padding) % stride
    start = size + 2 * padding + over - kernel
    return over if start < size + padding else 0


class AvgPool2d(Function):
    def forward(self, x, kernel, stride, padding):
        check_image(x)
        self.geometry = x.shape, kernel, stride, padding
        return self.K.avg_pool2d(x, kernel, stride, padding)

    def backward(self, g): return self.K.avg_pool2d_backward(g, *self.geometry)


def avg_pool2d(x: Tensor, kernel: Pair, stride: Pair | None = None, padding: Pair = 0) -> Tensor:
    """Return the mean of every window, with the zeros of the padding included.

    x: (N, C, H, W). kernel, stride, padding: integers or pairs (vertical, horizontal). The stride defaults to kernel.
    """
    return AvgPool2d.apply(x, kernel=pair(kernel, "avg_pool2d, kernel"),
                           stride=pair(kernel if stride is None else stride, "avg_pool2d, stride"),
                           padding=pair(padding, "avg_pool2d, padding"))


def global_avg_pool2d(x: Tensor) -> Tensor:
    """Return the mean of every channel: (N, C, H, W) -> (N, C)."""
    if x.ndim != 4:
        raise ValueError(f"global_avg_pool2d: expected x (N, C, H, W), got {x.shape}")
    return mean(x, (2, 3))


class SubsampleAndPad(Function):
    """SubsampleAndPad is option A (He et al. 2015, section 3.3): every stride-th pixel, and zeros in new channels."""

    def forward(self, x, stride, channels, pad):
        check_subsample_and_pad(x, channels, pad)
        self.geometry = x.shape, stride, pad
        return self.K.shortcut(x, stride, channels, pad)

    def backward(self, g): return self.K.shortcut_backward(g, *self.geometry)


def check_subsample_and_pad(x: Any, channels: int, pad: str) -> None:
    """Check the arguments of option A. Raises ValueError if one is invalid."""
    check_image(x)
    if pad not in ("both", "end"):
        raise ValueError(f'pad: expected "both" or "end", got {pad!r}')
    if channels < x.shape[1]:
        raise ValueError(f"channels: expected at least the input's {x.shape[1]}, got {channels}")


def subsample_and_pad(x: Tensor, stride: int, channels: int, pad: str = "both") -> Tensor:
    """Return option A of x: every stride-th pixel, with new channels of zeros.

    x: (N, C, H, W) -> (N, channels, ceil(H/stride), ceil(W/stride)).
    pad: "both" puts half of the new channels before the old channels and half after; "end" puts all of them after.
    """
    return SubsampleAndPad.apply(x, stride=stride, channels=channels, pad=pad)
