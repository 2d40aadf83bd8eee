"""Convolution."""
from __future__ import annotations

import numbers
from typing import Any

from ..tensor import Function, Tensor
from .arguments import Pair, check_not_empty, pair


class Conv2d(Function):
    """Conv2d computes x (N, C, H, W), w (O, C / groups, kh, kw), optional bias (O,) -> (N, O, Ho, Wo)."""

    def forward(self, x, w, *bias, stride, padding, dilation, groups):
        check_conv2d(x, w, groups)
        if any(b.shape != w.shape[:1] for b in bias):
            raise ValueError(f"expected a bias of shape {w.shape[:1]}")
        self.x, self.w, self.geometry = x, w, (stride, padding, dilation, groups)
        y = self.K.conv2d(x, w, *self.geometry)
        return y + bias[0].reshape(1, -1, 1, 1) if bias else y

    def backward(self, g):
        stride, padding, dilation, groups = self.geometry
        gx, gw = self.K.conv2d_backward(g, self.x, self.w, stride, padding, need_x=self.needs[0],
                                        need_w=self.needs[1], dilation=dilation, groups=groups)
        return (gx, gw) if len(self.inputs) == 2 else (gx, gw, g.sum((0, 2, 3)))


def conv2d(x: Tensor, w: Tensor, bias: Tensor | None = None, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1,
           groups: int = 1) -> Tensor:
    """Return the cross-correlation of x with w, plus bias.

    x, w, bias: (N, C, H, W), (O, C / groups, kh, kw), (O,) -> (N, O, Ho, Wo),
        Ho = (H + 2 padding - dilation (kh - 1) - 1) // stride + 1.
    stride, padding, dilation: integers or pairs (vertical, horizontal). The padding is zeros. Neighbours in a window
        are `dilation` pixels apart.
    groups: The channels are divided into this many groups of equal size, and group i of the output sees group i of the
        input only.
    """
    if not isinstance(groups, numbers.Integral):
        raise ValueError(f"conv2d, groups: expected an integer, got {groups!r}")
    inputs = (x, w) if bias is None else (x, w, bias)
    return Conv2d.apply(*inputs, stride=pair(stride, "conv2d, stride"), padding=pair(padding, "conv2d, padding"),
                        dilation=pair(dilation, "conv2d, dilation"), groups=int(groups))


def check_conv2d(x: Any, w: Any, groups: int = 1) -> None:
    """Check the arrays of a convolution. Raises ValueError if their shapes do not fit or the batch is empty."""
    if x.ndim != 4 or w.ndim != 4:
        raise ValueError("expected x (N, C, H, W) and w (O, C, kh, kw); write one image x as x.reshape(1, *x.shape)")
    if groups != 1 and (groups < 1 or x.shape[1] % groups or len(w) % groups):
        raise ValueError(f"groups: expected a divisor of {x.shape[1]} input and {len(w)} output channels, got {groups}")
    if x.shape[1] != w.shape[1] * groups:
        raise ValueError(f"the input has {x.shape[1]} channels, the weight expects {w.shape[1] * groups}")
    check_not_empty(x)
    if w.size == 0:
        raise ValueError("the weight is empty; expected at least one channel and a kernel >= 1")
