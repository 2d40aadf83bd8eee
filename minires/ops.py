"""Differentiable operations, and the operators of Tensor.

Each operation is one screen: its Function, the check of its arrays, and the function or operator that users call.
In every backward, g is dL/d(output), and the return value is dL/d(input) for each input, by the chain rule.
Arrays broadcast as in NumPy; the engine sums the gradients back (`broadcasts = True`).
The engine puts the name of the operation and the shapes of its inputs before the text of a ValueError from forward.
"""
from __future__ import annotations

import copy
import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import device
from .tensor import Function, Tensor

# ----------------------------------------------------------------------------------------- arguments

Pair = int | Sequence[int]              # one number for both, or (vertical, horizontal)
Axis = int | tuple[int, ...] | None     # None: all axes


def as_tensor(value: Any, like: Tensor) -> Tensor:
    """Return `value` as a Tensor. A number takes the dtype and device of `like`, so float32 * 2.0 stays float32."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, numbers.Real):
        return Tensor(device.of(like.data).asarray(value, like.dtype))
    return Tensor(value)


def pair(value: Any, what: str = "pair") -> tuple[int, int]:
    """Return 3 as (3, 3), and (3, 2) unchanged. Raises ValueError, naming the argument `what`, for anything else."""
    if type(value) is tuple and [*map(type, value)] == [int, int]:  # what layers keep
        return value[0], value[1]
    values = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(values) != 2 or not all(isinstance(v, numbers.Integral) for v in values):
        raise ValueError(f"{what}: expected an integer or a pair of integers (vertical, horizontal), got {value!r}")
    return int(values[0]), int(values[1])


# ---------------------------------------------------------------------------------------- arithmetic


class Add(Function):
    broadcasts = True
    def forward(self, a, b): return self.K.add(a, b) if a.shape == b.shape else a + b
    def backward(self, g): return g, g


Tensor.__add__ = Tensor.__radd__ = lambda a, b: Add.apply(a, as_tensor(b, a))


class Sub(Function):
    broadcasts = True
    def forward(self, a, b): return a - b
    def backward(self, g): return g, -g


Tensor.__sub__ = lambda a, b: Sub.apply(a, as_tensor(b, a))
Tensor.__rsub__ = lambda a, b: Sub.apply(as_tensor(b, a), a)


class Mul(Function):
    broadcasts = True

    def forward(self, a, b):
        self.a, self.b = a, b
        return a * b

    def backward(self, g): return g * self.b, g * self.a


Tensor.__mul__ = Tensor.__rmul__ = lambda a, b: Mul.apply(a, as_tensor(b, a))


class Div(Function):
    broadcasts = True

    def forward(self, a, b):
        self.a, self.b = a, b
        return a / b

    def backward(self, g): return g / self.b, -g * (self.a / self.b / self.b)  # b * b could underflow


Tensor.__truediv__ = lambda a, b: Div.apply(a, as_tensor(b, a))
Tensor.__rtruediv__ = lambda a, b: Div.apply(as_tensor(b, a), a)


class Neg(Function):
    def forward(self, x): return -x
    def backward(self, g): return -g


Tensor.__neg__ = lambda x: Neg.apply(x)


class Pow(Function):
    def forward(self, x, exponent):
        self.x, self.n = x, exponent
        return x ** exponent

    def backward(self, g):
        if self.n == 0:  # x ** 0 is constant; the formula below would give 0 * inf at x = 0
            return g * 0
        return g * (self.n * self.x ** (self.n - 1))


def pow(x: Tensor, exponent: float) -> Tensor:
    """Return x ** exponent for a constant exponent. Raises TypeError if `exponent` is not a number."""
    if not isinstance(exponent, numbers.Real):
        raise TypeError(f"pow: expected a number as exponent, got {type(exponent).__name__}; "
                        "for two Tensors write exp(b * log(a))")
    return Pow.apply(x, exponent=exponent if isinstance(exponent, int) else float(exponent))


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


class Maximum(Function):
    """Maximum computes the larger of a and b, element by element. In a tie the gradient goes to a."""

    broadcasts = True

    def forward(self, a, b):
        self.a_wins = a >= b
        return self.xp.maximum(a, b)

    def backward(self, g): return g * self.a_wins, g * ~self.a_wins


def maximum(a: Tensor, b: Any) -> Tensor:
    """Return max(a, b), element by element. In a tie the gradient goes to a."""
    return Maximum.apply(a, as_tensor(b, a))


class AsType(Function):
    converts = True

    def forward(self, x, dtype):
        self.dtype = x.dtype
        return x.astype(dtype)

    def backward(self, g): return g.astype(self.dtype)


Tensor.astype = lambda x, dtype: AsType.apply(x, dtype=dtype)


# ----------------------------------------------------------------------------------- matrix products


class MatMul(Function):
    """MatMul computes (..., n, k) @ (..., k, m) -> (..., n, m). Leading axes broadcast."""

    broadcasts = True

    def forward(self, a, b):
        self.a, self.b = a, b
        return self.K.matmul(a, b)

    def backward(self, g):
        return self.K.matmul(g, self.b.swapaxes(-1, -2)), self.K.matmul(self.a.swapaxes(-1, -2), g)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return a @ b as NumPy does: (..., n, k) @ (..., k, m) -> (..., n, m). Leading axes broadcast.

    A vector `a` counts as one row, and a vector `b` as one column.
    """
    if a.ndim == 1:
        y = matmul(a.reshape(1, -1), b)
        return y.reshape(y.shape[:-2] + y.shape[-1:]) if b.ndim > 1 else y.reshape(())
    if b.ndim == 1:
        y = matmul(a, b.reshape(-1, 1))
        return y.reshape(y.shape[:-1])
    return MatMul.apply(a, b)


class Linear(Function):
    """Linear computes x w^T + bias: x (N, I), w (O, I), optional bias (O,) -> (N, O)."""

    def forward(self, x, w, *bias):
        if x.ndim != 2 or w.ndim != 2 or x.shape[1] != w.shape[1] or any(b.shape != w.shape[:1] for b in bias):
            raise ValueError("expected x (N, I), w (O, I) and bias (O,)")
        self.x, self.w = x, w
        y = self.K.matmul(x, w.T)
        return y + bias[0] if bias else y

    def backward(self, g): return (self.K.matmul(g, self.w), self.K.matmul(g.T, self.x), g.sum(0))[:len(self.inputs)]


def linear(x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x w^T + bias: x (N, I), w (O, I), bias (O,) -> (N, O)."""
    return Linear.apply(x, w) if bias is None else Linear.apply(x, w, bias)


# ---------------------------------------------------------------------------------------- reductions


def _axes(axis: Any, ndim: int) -> tuple[int, ...]:
    """Return `axis` as a tuple of non-negative axes. None means all axes."""
    if axis is None:
        return tuple(range(ndim))
    axes = (int(axis),) if isinstance(axis, numbers.Integral) else tuple(axis)
    if any(not -ndim <= a < ndim for a in axes) or len({a % ndim for a in axes}) < len(axes):
        raise ValueError(f"axis {axis} does not name distinct axes of a {ndim}-dimensional array")
    return tuple(int(a) % ndim for a in axes)


def _count(shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
    """Return how many elements are reduced to one. Zero is an error."""
    n = math.prod(shape[a] for a in axes)
    if n == 0:
        raise ValueError("nothing to reduce: the array is empty along the axes")
    return n


def _unreduced(g: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    """Return g with the reduced axes restored, each of length 1."""
    return g.reshape([1 if a in axes else n for a, n in enumerate(shape)])


def _inverse(order: Sequence[int]) -> list[int]:
    """Return the permutation that undoes `order` (its argsort)."""
    return sorted(range(len(order)), key=order.__getitem__)


class Sum(Function):
    def forward(self, x, axis, keepdims):
        self.shape, self.axes = x.shape, _axes(axis, x.ndim)
        return x.sum(self.axes, keepdims=keepdims)

    def backward(self, g): return self.xp.broadcast_to(_unreduced(g, self.shape, self.axes), self.shape)


def sum(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    return Sum.apply(x, axis=axis, keepdims=keepdims)


class Mean(Function):
    def forward(self, x, axis, keepdims):
        self.shape, self.axes = x.shape, _axes(axis, x.ndim)
        self.count = _count(x.shape, self.axes)
        return x.mean(self.axes, keepdims=keepdims)

    def backward(self, g):
        return self.xp.broadcast_to(_unreduced(g, self.shape, self.axes) / self.count, self.shape)


def mean(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    return Mean.apply(x, axis=axis, keepdims=keepdims)


class Var(Function):
    """Var computes the sum of squared deviations from the mean, divided by count - correction."""

    def forward(self, x, axis, keepdims, correction):
        self.axes = _axes(axis, x.ndim)
        self.divisor = _count(x.shape, self.axes) - correction
        if self.divisor <= 0:
            raise ValueError(f"expected more elements than correction={correction}, got {_count(x.shape, self.axes)}")
        self.centred = x - x.mean(self.axes, keepdims=True)
        return (self.centred * self.centred).sum(self.axes, keepdims=keepdims) / self.divisor

    def backward(self, g):  # the gradient through the mean is zero, because the deviations sum to zero
        return _unreduced(g, self.centred.shape, self.axes) * self.centred * (2 / self.divisor)


def var(x: Tensor, axis: Axis = None, keepdims: bool = False, correction: int = 0) -> Tensor:
    """Return the variance: biased with correction=0, as in batch normalisation, or unbiased with correction=1."""
    return Var.apply(x, axis=axis, keepdims=keepdims, correction=int(correction))


class Max(Function):
    """Max computes the largest element over the axes. In a tie the gradient goes to the first."""

    def forward(self, x, axis, keepdims):
        self.shape, self.axes = x.shape, tuple(sorted(_axes(axis, x.ndim)))  # sorted: "first" in the order of the axes
        _count(x.shape, self.axes)
        kept = [a for a in range(x.ndim) if a not in self.axes]
        self.order = (*kept, *self.axes)                       # reduced axes last
        self.ordered_shape = tuple(x.shape[a] for a in self.order)
        self.kept_shape = self.ordered_shape[:len(kept)]
        self.winner = x.transpose(self.order).reshape(*self.kept_shape, -1).argmax(-1)  # reduced axes joined into one
        return x.max(self.axes, keepdims=keepdims)

    def backward(self, g):
        count = _count(self.shape, self.axes)
        won = self.xp.arange(count) == self.winner[..., None]
        gx = (g.reshape(*self.kept_shape, 1) * won).reshape(self.ordered_shape)
        return gx.transpose(_inverse(self.order))


def max(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the largest element over the axes. In a tie the gradient goes to the first."""
    return Max.apply(x, axis=axis, keepdims=keepdims)


# -------------------------------------------------------------------------------------------- shapes


def _one_tuple(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return (2, 3) for the arguments of both f(x, 2, 3) and f(x, (2, 3))."""
    return tuple(args[0]) if len(args) == 1 and not isinstance(args[0], numbers.Integral) else args


class Reshape(Function):
    def forward(self, x, shape):
        self.shape = x.shape
        return x.reshape(shape)

    def backward(self, g): return g.reshape(self.shape)


def reshape(x: Tensor, *shape: Any) -> Tensor:
    return Reshape.apply(x, shape=_one_tuple(shape))


class Transpose(Function):
    def forward(self, x, axes):
        self.axes = _axes(axes, x.ndim)
        return x.transpose(self.axes)

    def backward(self, g): return g.transpose(_inverse(self.axes))


def transpose(x: Tensor, *axes: Any) -> Tensor:
    """Return x with its axes permuted to the given order, or reversed if no order is given."""
    return Transpose.apply(x, axes=_one_tuple(axes) or tuple(reversed(range(x.ndim))))


class GetItem(Function):
    """GetItem computes x[index] for slices, integers, integer arrays and boolean masks."""

    def forward(self, x, index):
        if any(isinstance(i, Tensor) for i in (index if isinstance(index, tuple) else (index,))):
            raise ValueError("an index must be integers, slices or arrays, not a Tensor")
        self.shape, self.index = x.shape, copy.deepcopy(index)  # the caller may change its arrays
        return x[index]

    def backward(self, g):
        gx = self.xp.zeros(self.shape, g.dtype)
        parts = self.index if isinstance(self.index, tuple) else (self.index,)
        if any(hasattr(i, "__len__") for i in parts):
            self.xp.add.at(gx, self.index, g)  # an index array may name an element twice: both gradients add
        else:
            gx[self.index] = g
        return gx


Tensor.__getitem__ = lambda x, index: GetItem.apply(x, index=index)


class Concatenate(Function):
    def forward(self, *parts, axis):
        self.axis = axis
        self.cuts = list(np.cumsum([p.shape[axis] for p in parts[:-1]]))
        return self.xp.concatenate(parts, axis)

    def backward(self, g): return tuple(self.xp.split(g, self.cuts, self.axis))


def concatenate(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Concatenate Tensors of equal shape, except along `axis`. Raises ValueError if `tensors` is empty."""
    if not tensors:
        raise ValueError("concatenate: expected at least one Tensor, got none")
    return Concatenate.apply(*tensors, axis=axis)


class Pad(Function):
    def forward(self, x, widths, value):
        if len(widths) != x.ndim or any(len(w) != 2 or min(w) < 0 for w in widths):
            raise ValueError(f"expected one (before, after) pair >= 0 for each of {x.ndim} axes, got {widths}")
        self.inside = tuple(slice(before, before + n) for (before, _), n in zip(widths, x.shape, strict=True))
        return self.xp.pad(x, widths, constant_values=value)

    def backward(self, g): return g[self.inside]


def pad(x: Tensor, widths: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """Return x with a border of `value`. widths: one (before, after) pair of widths >= 0 for each axis."""
    return Pad.apply(x, widths=tuple(tuple(w) for w in widths), value=value)


class BroadcastTo(Function):
    broadcasts = True
    def forward(self, x, shape): return self.xp.broadcast_to(x, shape)
    def backward(self, g): return g


def broadcast_to(x: Tensor, shape: Sequence[int]) -> Tensor:
    return BroadcastTo.apply(x, shape=tuple(shape))


# --------------------------------------------------------------------------- convolution and pooling


def _not_empty(x: Any) -> None:
    if x.size == 0:
        raise ValueError("the batch is empty")


def _is_image(x: Any) -> None:
    if x.ndim != 4:
        raise ValueError("expected x (N, C, H, W)")
    _not_empty(x)


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
    _not_empty(x)


def conv2d(x: Tensor, w: Tensor, bias: Tensor | None = None, stride: Pair = 1, padding: Pair = 0) -> Tensor:
    """Return the cross-correlation of x with w, plus bias.

    x, w, bias: (N, C, H, W), (O, C, kh, kw), (O,) -> (N, O, Ho, Wo), Ho = (H + 2 padding - kh) // stride + 1.
    stride, padding: integers or pairs (vertical, horizontal). The padding is zeros.
    """
    inputs = (x, w) if bias is None else (x, w, bias)
    return Conv2d.apply(*inputs, stride=pair(stride, "conv2d, stride"), padding=pair(padding, "conv2d, padding"))


class MaxPool2d(Function):
    def forward(self, x, kernel, stride, padding):
        _is_image(x)
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
            x = pad(x, ((0, 0), (0, 0), (0, over[0]), (0, over[1])), -math.inf)
    return MaxPool2d.apply(x, kernel=kernel, stride=stride, padding=padding)


def _overhang(size: int, kernel: int, stride: int, padding: int) -> int:
    """Return how far one more window would extend beyond the padded end; 0 if at most padding is left over."""
    over = (kernel - size - 2 * padding) % stride
    start = size + 2 * padding + over - kernel
    return over if start < size + padding else 0


class AvgPool2d(Function):
    def forward(self, x, kernel, stride, padding):
        _is_image(x)
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
    _is_image(x)
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


# ------------------------------------------------------------------- batch normalisation and dropout


class BatchNorm(Function):
    """BatchNorm normalises by the batch statistics and writes them into `stats` as [mean, biased variance]."""

    def forward(self, x, gamma, beta, eps, stats):
        check_batch_norm(x, gamma, beta)
        self.gamma = gamma
        y, *stats[:], self.saved = self.K.batch_norm(x, gamma, beta, eps)
        return y

    def backward(self, g): return self.K.batch_norm_backward(g, self.gamma, self.saved)


def check_batch_norm(x: Any, *per_channel: Any) -> None:
    """Check the arrays of a batch normalisation. Raises ValueError if shapes or dtypes differ or the batch is empty."""
    if x.ndim not in (2, 4):
        raise ValueError("expected x (N, C) or (N, C, H, W)")
    if any(v.shape != x.shape[1:2] for v in per_channel):
        raise ValueError(f"expected gamma, beta and statistics of shape {x.shape[1:2]}, one for each channel, got "
                         + ", ".join(str(v.shape) for v in per_channel))
    if any(v.dtype != x.dtype for v in per_channel):
        raise ValueError(f"expected gamma, beta and statistics of dtype {x.dtype}, got "
                         + ", ".join(str(v.dtype) for v in per_channel))
    _not_empty(x)


def batch_norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float = 1e-5) -> tuple[Tensor, Any, Any]:
    """Return (y, mean, var): y = gamma xhat + beta, with xhat = x normalised by the statistics of each channel.

    x: (N, C) or (N, C, H, W). gamma, beta: (C,).
    mean, var: (C,), the mean and the biased variance, as plain arrays. The gradient of y flows through both of them.
    """
    stats: list[Any] = []
    y = BatchNorm.apply(x, gamma, beta, eps=float(eps), stats=stats)
    return y, *stats


class BatchNormRelu(Function):
    """BatchNormRelu computes relu(BatchNorm(x)) or relu(BatchNorm(x) + skip) in one kernel; `stats` as in BatchNorm."""

    def forward(self, x, gamma, beta, *skip, eps, stats):
        check_batch_norm(x, gamma, beta)
        if skip and skip[0].shape != x.shape:
            raise ValueError(f"expected a skip of the input's shape {x.shape}")
        self.gamma = gamma
        y, *stats[:], self.saved = self.K.batch_norm_relu(x, gamma, beta, eps, *skip)
        return y

    def backward(self, g):
        return self.K.batch_norm_relu_backward(g, self.gamma, self.saved)[:len(self.inputs)]


def batch_norm_relu(x: Tensor, gamma: Tensor, beta: Tensor, eps: float = 1e-5, skip: Tensor | None = None) \
        -> tuple[Tensor, Any, Any]:
    """Return (y, mean, var) as batch_norm does, with y = relu(batch_norm(x)) or relu(batch_norm(x) + skip).

    In the fast kernels, the addition and the ReLU need no pass over memory of their own.
    """
    stats: list[Any] = []
    inputs = (x, gamma, beta) if skip is None else (x, gamma, beta, skip)
    y = BatchNormRelu.apply(*inputs, eps=float(eps), stats=stats)
    return y, *stats


class BatchNormEval(Function):
    """BatchNormEval normalises by given statistics, which are constants."""

    def forward(self, x, gamma, beta, mean, var, eps):
        check_batch_norm(x, gamma, beta, mean, var)
        self.gamma = gamma
        y, self.saved = self.K.batch_norm_eval(x, gamma, beta, mean, var, eps)
        return y

    def backward(self, g): return self.K.batch_norm_eval_backward(g, self.gamma, self.saved)


def batch_norm_eval(x: Tensor, gamma: Tensor, beta: Tensor, mean: Any, var: Any, eps: float = 1e-5) -> Tensor:
    """Return x (N, C) or (N, C, H, W) normalised by given statistics, which count as constants in the gradient.

    gamma, beta: Tensors (C,). mean, var: arrays (C,).
    """
    device.of(x.data, mean, var, operation="batch_norm_eval")
    return BatchNormEval.apply(x, gamma, beta, mean=mean, var=var, eps=float(eps))


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


# ------------------------------------------------------------------------------ softmax and its loss


class LogSoftmax(Function):
    def forward(self, z, axis):
        self.axis = axis
        self.log_p = self.K.log_softmax(z, axis)
        return self.log_p

    def backward(self, g): return g - self.xp.exp(self.log_p) * g.sum(self.axis, keepdims=True)


def log_softmax(z: Tensor, axis: int = -1) -> Tensor: return LogSoftmax.apply(z, axis=axis)


class Softmax(Function):
    def forward(self, z, axis):
        self.axis = axis
        self.p = self.xp.exp(self.K.log_softmax(z, axis))
        return self.p

    def backward(self, g): return self.p * (g - (g * self.p).sum(self.axis, keepdims=True))


def softmax(z: Tensor, axis: int = -1) -> Tensor: return Softmax.apply(z, axis=axis)


class CrossEntropy(Function):
    def forward(self, z, labels):
        self.labels = labels = self.xp.array(labels)  # a copy, because the caller may fill it with the next batch
        loss, self.saved = self.K.cross_entropy(z, labels)
        return loss

    def backward(self, g): return self.K.cross_entropy_backward(g, self.saved, self.labels)


def cross_entropy(logits: Tensor, labels: Any) -> Tensor:
    """Return the mean over the batch of -log softmax(logits)[label], a scalar.

    logits: (N, K). labels: integers (N,) in 0..K-1.
    Raises ValueError if shapes do not fit, the batch is empty, the labels are not integers, or, on the CPU, a label
    is out of range.
    """
    if not hasattr(labels, "dtype"):
        labels = np.asarray(labels)
    if logits.ndim != 2 or len(logits) == 0:
        raise ValueError(f"cross_entropy: expected logits (N, K) with N >= 1, got {logits.shape}"
                         + ("; the batch is empty" if logits.size == 0 else ""))
    if isinstance(labels, Tensor) or labels.dtype.kind not in "iu" or labels.shape != logits.shape[:1]:
        raise ValueError(f"cross_entropy: expected integer labels of shape {logits.shape[:1]}, "
                         f"got {labels.dtype}{labels.shape}")
    device.of(logits.data, labels, operation="cross_entropy")
    # On a GPU this check would make every step wait for the device. The data sets check the range of their labels.
    if not device.on_gpu(labels) and (labels.min() < 0 or labels.max() >= logits.shape[1]):
        wrong = labels[(labels < 0) | (labels >= logits.shape[1])]
        raise ValueError(f"cross_entropy: expected labels in 0..{logits.shape[1] - 1}, got {int(wrong[0])}")
    return CrossEntropy.apply(logits, labels=labels)


# -------------------------------------------------------------------- Tensor's operators and methods

Tensor.__pow__ = pow
Tensor.__matmul__ = lambda a, b: matmul(a, as_tensor(b, a))
Tensor.__rmatmul__ = lambda a, b: matmul(as_tensor(b, a), a)
Tensor.__abs__ = Tensor.abs = abs
Tensor.exp, Tensor.log, Tensor.sqrt = exp, log, sqrt
Tensor.tanh, Tensor.sigmoid, Tensor.relu = tanh, sigmoid, relu
Tensor.sum, Tensor.mean, Tensor.var, Tensor.max = sum, mean, var, max
Tensor.reshape, Tensor.transpose = reshape, transpose
Tensor.T = property(transpose)
