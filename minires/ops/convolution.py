"""Convolution."""
from __future__ import annotations

from typing import Any

from ..tensor import Function, Tensor
from .arguments import Pair, check_not_empty, pair


class Conv2d(Function):
    """Conv2d computes x (N, C, H, W), w (O, C, kh, kw), optional bias (O,) -> (N, O, Ho, Wo)."""

    def forward(self, x, w, *bias, stride, padding):
        check_conv2d(x, w)
        if any(b.shape != w.shape[:1] for b in bias):
            raise ValueError(f"expected a bias of shape {w.shape[:1]}")
        self.x, self.w, self.geometry = x, w, (stride, padding)
        y = self.K.conv2d(x, w, stride, padding)
        return y + bias[0].reshape(1, -1, 1, 1) if bias else y

    def backward(self, g):
        gx, gw = self.K.conv2d_backward(g, self.x, self.w, *self.geometry, need_x=self.needs[0],
                                        need_w=self.needs[1])
        return (gx, gw) if len(self.inputs) == 2 else (gx, gw, g.sum((0, 2, 3)))


def check_conv2d(x: Any, w: Any) -> None:
    """Check the arrays of a convolution. Raises ValueError if their shapes do not fit or the batch is empty."""
    if x.ndim != 4 or w.ndim != 4:
        raise ValueError("expected x (N, C, H, W) and w (O, C, kh, kw)")
    if x.shape[1] != w.shape[1]:
        raise ValueError(f"the input has {x.shape[1]} channels, the weight expects {w.shape[1]}")
    check_not_empty(x)


def conv2d(x: Tensor, w: Tensor, bias: Tensor | None = None, stride: Pair = 1, padding: Pair = 0) -> Tensor:
    """Return the cross-correlation of x with w, plus bias.

    x, w, bias: (N, C, H, W), (O, C, kh, kw), (O,) -> (N, O, Ho, Wo), Ho = (H + 2 padding - kh) // stride + 1.
    stride, padding: integers or pairs (vertical, horizontal). The padding is zeros.
    """
    inputs = (x, w) if bias is None else (x, w, bias)
    return Conv2d.apply(*inputs, stride=pair(stride, "conv2d, stride"), padding=pair(padding, "conv2d, padding"))
