"""Pooling, and the subsampling of the shortcut without weights."""
from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from .. import device
from ..kernels.reference import extent
from ..tensor import Function, Tensor
from .arguments import Pair, check_image, pair
from .reductions import mean
from .shapes import pad as pad_axes


def _sees_only_padding(size: int, wide: int, stride: int, padding: int, dilation: int) -> bool:
    """Return True if a window along one axis, `wide` with its gaps, has no pixel of the image."""
    if padding < 1 or dilation == 1 or min(wide, stride, dilation) < 1 or wide > size + 2 * padding:
        return False  # or another error follows
    first = np.arange(-padding, size + padding - wide + 1, stride)
    inside = [(first + tap >= 0) & (first + tap < size) for tap in range(0, wide, dilation)]
    return not np.any(inside, 0).all()


class MaxPool2d(Function):
    def forward(self, x, kernel, stride, padding, dilation):
        check_image(x)
        wide = extent(kernel, dilation)
        if any(2 * p > k > 0 for k, p in zip(wide, padding, strict=True)):
            raise ValueError(f"padding {padding} is more than half of the kernel {kernel}: a window would be empty")
        if any(map(_sees_only_padding, x.shape[2:], wide, stride, padding, dilation)):
            raise ValueError(f"padding {padding}, dilation {dilation}: a window of the kernel {kernel} would see only "
                             "padding")
        self.geometry = x.shape, kernel, stride, padding, dilation
        y, self.winner = self.K.max_pool2d(x, kernel, stride, padding, dilation)
        return y

    def backward(self, g): return self.K.max_pool2d_backward(g, self.winner, *self.geometry)


def max_pool2d(x: Tensor, kernel: Pair, stride: Pair | None = None, padding: Pair = 0, ceil_mode: bool = False,
               dilation: Pair = 1) -> Tensor:
    """Return the maximum of every window. In a tie the gradient goes to the first element of the window.

    x: (N, C, H, W). kernel, stride, padding, dilation: integers or pairs (vertical, horizontal). The stride defaults to
        kernel. Neighbours in a window are `dilation` pixels apart.
    ceil_mode: Rows and columns at the end that do not fill a window are dropped. With ceil_mode=True they get a
        window that extends beyond the border, unless this window would contain only padding.
    """
    kernel, stride, padding = _geometry("max_pool2d", kernel, stride, padding)
    dilation = pair(dilation, "max_pool2d, dilation")
    if ceil_mode:
        x = _filled(x, extent(kernel, dilation), stride, padding, -math.inf)
    return MaxPool2d.apply(x, kernel=kernel, stride=stride, padding=padding, dilation=dilation)


def _geometry(name: str, kernel: Pair, stride: Pair | None, padding: Pair) -> tuple[tuple[int, int], ...]:
    """Return kernel, stride and padding as pairs. The stride defaults to the kernel."""
    kernel = pair(kernel, f"{name}, kernel")
    return kernel, kernel if stride is None else pair(stride, f"{name}, stride"), pair(padding, f"{name}, padding")


def _filled(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], value: float) \
        -> Tensor:
    """Return x with `value` at the end of rows and columns, as far as the last window of ceil_mode extends."""
    if x.ndim != 4 or min(stride) < 1:
        return x  # an error follows
    over = [_overhang(*sizes) for sizes in zip(x.shape[2:], kernel, stride, padding, strict=True)]
    return pad_axes(x, ((0, 0), (0, 0), (0, over[0]), (0, over[1])), value) if any(over) else x


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


def avg_pool2d(x: Tensor, kernel: Pair, stride: Pair | None = None, padding: Pair = 0, ceil_mode: bool = False,
               count_include_pad: bool = True) -> Tensor:
    """Return the mean of every window.

    x: (N, C, H, W). kernel, stride, padding: integers or pairs (vertical, horizontal). The stride defaults to kernel.
    ceil_mode: as for max_pool2d. What extends beyond the padding does not count in the mean.
    count_include_pad: whether the zeros of the padding count in the mean.
    """
    kernel, stride, padding = _geometry("avg_pool2d", kernel, stride, padding)
    filled = _filled(x, kernel, stride, padding, 0.0) if ceil_mode else x
    y = AvgPool2d.apply(filled, kernel=kernel, stride=stride, padding=padding)
    if filled is x and (count_include_pad or padding == (0, 0)):
        return y
    if not count_include_pad and any(2 * p > k for k, p in zip(kernel, padding, strict=True)):
        raise ValueError(f"avg_pool2d: padding {padding} is more than half of the kernel {kernel}: a window would be "
                         "empty; use count_include_pad=True or less padding")
    axes = zip(x.shape[2:], y.shape[2:], kernel, stride, padding, strict=True)
    rows, columns = (_over_counted(device.of(x.data), x.dtype, *sizes, count_include_pad) for sizes in axes)
    return y * Tensor(rows[:, None] * columns)


@functools.cache  # because a CUDA graph cannot record a copy from the host, and the arrays it reads must persist
def _over_counted(xp: Any, dtype: Any, size: int, out: int, kernel: int, stride: int, padding: int,
                  padded: bool) -> Any:
    """Return, for each of `out` windows on an axis, the kernel divided by the number of its elements that count."""
    first, last = (-padding, size + padding) if padded else (0, size)
    starts = range(-padding, out * stride - padding, stride)
    return xp.asarray([kernel / (min(at + kernel, last) - max(at, first)) for at in starts], dtype)


class AdaptiveAvgPool2d(Function):
    def forward(self, x, size):
        if x.ndim != 4 or min(x.shape[2:]) < 1:
            raise ValueError("expected x (N, C, H, W) with H, W >= 1; write one image x as x.reshape(1, *x.shape)")
        self.shape, (self.rows, self.columns) = x.shape, map(_bands, size, x.shape[2:])
        return self.xp.stack([self.xp.stack([x[:, :, r, c].mean((2, 3)) for c in self.columns], 2)
                              for r in self.rows], 2)

    def backward(self, g):
        gx = self.xp.zeros(self.shape, g.dtype)
        for i, r in enumerate(self.rows):
            for j, c in enumerate(self.columns):  # bands may overlap, so the gradients add
                gx[:, :, r, c] += g[:, :, i:i + 1, j:j + 1] / ((r.stop - r.start) * (c.stop - c.start))
        return gx


def _bands(count: int, size: int) -> list[slice]:
    """Return `count` bands of `size` rows: band i goes from floor(i size / count) to ceil((i + 1) size / count)."""
    return [slice(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def adaptive_avg_pool2d(x: Tensor, size: Pair) -> Tensor:
    """Return the mean of an image of any size over `size` bands of rows and columns: (N, C, H, W) -> (N, C, *size).

    size: an integer or a pair (rows, columns), each at least 1. Band i of n rows goes from row floor(i H / n) to row
        ceil((i + 1) H / n). An image of this size is returned unchanged.
    Raises ValueError for another size, or if x is not a batch of images.
    """
    size = pair(size, "adaptive_avg_pool2d, size")
    if min(size) < 1:
        raise ValueError(f"adaptive_avg_pool2d, size: expected at least 1, got {size}")
    if isinstance(x, Tensor) and x.shape[2:] == size:
        return x
    return AdaptiveAvgPool2d.apply(x, size=size)


def global_avg_pool2d(x: Tensor) -> Tensor:
    """Return the mean of every channel: (N, C, H, W) -> (N, C)."""
    if not isinstance(x, Tensor) or x.ndim != 4:
        given = x.shape if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"global_avg_pool2d: expected a Tensor x (N, C, H, W), got {given}")
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
