"""Layers: convolution, linear, BatchNorm, activations, pooling, and one after the other."""
from __future__ import annotations

import functools
import operator
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import device, init, kernels, ops
from ..tensor import Tensor
from .module import Module


class Conv2d(Module):
    """3x3 and others: (N, in, H, W) -> (N, out, Ho, Wo). Weights start as He et al. 2015b, fan-in."""

    multiplies = True

    def __init__(self, in_channels: int, out_channels: int, kernel: Any, stride: Any = 1, padding: Any = 0,
                 bias: bool = False, *, rng: np.random.Generator):
        shape = (out_channels, in_channels, *ops.pair(kernel))
        if min(shape) < 1:
            raise ValueError(f"Conv2d: expected channels and a kernel from 1, got {in_channels} -> {out_channels}, "
                             f"kernel {kernel}")
        self.weight = Tensor(init.he_normal(shape, rng=rng), True)
        self.bias = Tensor(init.constant((out_channels,), 0), True) if bias else None
        self.stride, self.padding = ops.pair(stride), ops.pair(padding)

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv2d(x, self.weight, self.bias, self.stride, self.padding)

    def describe(self) -> str:
        o, c, kh, kw = self.weight.shape
        return f"{c} -> {o}, {kh}x{kw}, stride {self.stride}, padding {self.padding}"


class Linear(Module):
    """(N, in) -> (N, out). Weights start uniform on +-1 / sqrt(in), biases at 0."""

    multiplies = True

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, rng: np.random.Generator):
        self.weight = Tensor(init.fan_in_uniform((out_features, in_features), rng=rng), True)
        self.bias = Tensor(init.constant((out_features,), 0), True) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return ops.linear(x, self.weight, self.bias)

    def describe(self) -> str:
        return f"{self.weight.shape[1]} -> {self.weight.shape[0]}"


class BatchNorm(Module):
    """Batch normalisation per channel (Ioffe & Szegedy 2015); use BatchNorm1d or BatchNorm2d.

    Train mode normalises by the batch's mean and biased variance, and moves the running statistics by `momentum`
    towards the batch's mean and UNBIASED variance; eval mode normalises by the running statistics. (PyTorch's
    conventions.) eps is added to the variance, inside the square root.
    """

    ndim = 0

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1):
        self.weight = Tensor(init.constant((channels,), 1), True)
        self.bias = Tensor(init.constant((channels,), 0), True)
        self.running_mean = Tensor(init.constant((channels,), 0))
        self.running_var = Tensor(init.constant((channels,), 1))
        self.eps, self.momentum = eps, momentum

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != self.ndim:
            raise ValueError(f"{type(self).__name__}: expected a {self.ndim}-dimensional input, got {x.shape}")
        if not self.training:
            return ops.batch_norm_eval(x, self.weight, self.bias, self.running_mean.data, self.running_var.data,
                                       self.eps)
        y, mean, var = ops.batch_norm(x, self.weight, self.bias, self.eps)
        self.update(mean, var, x.size // x.shape[1])
        return y

    def update(self, mean: Any, var: Any, count: int) -> None:
        """Move the running statistics towards a batch's mean and biased variance over `count` values."""
        if count < 2:
            raise ValueError(f"{type(self).__name__}: expected more than one value per channel in train mode, got "
                             f"{count}; use a larger batch or .eval()")
        momentum = float(self.momentum)  # a NumPy number would promote float32
        self.running_mean.data, self.running_var.data = kernels.of(mean).running_statistics(
            self.running_mean.data, self.running_var.data, mean, var, momentum, count)

    def describe(self) -> str:
        return f"{self.weight.size}"


class BatchNorm1d(BatchNorm):
    """For (N, C)."""
    ndim = 2


class BatchNorm2d(BatchNorm):
    """For (N, C, H, W)."""
    ndim = 4


class ReLU(Module):
    """max(x, 0), any shape."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.relu(x)


class Identity(Module):
    """x itself: stands where BatchNorm is left out."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class MaxPool2d(Module):
    """Maximum of every window; stride defaults to the kernel. ceil_mode: see `ops.max_pool2d`."""

    def __init__(self, kernel: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False):
        self.kernel, self.stride, self.padding, self.ceil_mode = kernel, stride, padding, ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        return ops.max_pool2d(x, self.kernel, self.stride, self.padding, self.ceil_mode)

    def describe(self) -> str:
        rounded = ", ceil" if self.ceil_mode else ""
        return f"{self.kernel}, stride {self.stride or self.kernel}, padding {self.padding}{rounded}"


class AvgPool2d(Module):
    """Mean of every window, padding zeros included; stride defaults to the kernel."""

    def __init__(self, kernel: Any, stride: Any = None, padding: Any = 0):
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return ops.avg_pool2d(x, self.kernel, self.stride, self.padding)

    def describe(self) -> str:
        return f"{self.kernel}, stride {self.stride or self.kernel}, padding {self.padding}"


class AdaptiveAvgPool2d(Module):
    """(N, C, H, W) -> (N, C, size, size) from any H and W: means over `size` bands of rows and of columns, band i from
    floor(i H / size) to ceil((i + 1) H / size). That is a product with two matrices of weights: Y = A X B^T."""

    def __init__(self, size: int):
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        N, C, H, W = x.shape
        if x.shape[2:] == (self.size, self.size):
            return x
        rows, columns = (Tensor(_bands(device.of(x.data), x.dtype, self.size, n)) for n in (H, W))
        y = x.reshape(-1, W) @ columns  # two products of matrices, which a CUDA graph may hold; those of stacks not
        y = y.reshape(N, C, H, self.size).transpose(0, 1, 3, 2).reshape(-1, H) @ rows
        return y.reshape(N, C, self.size, self.size).transpose(0, 1, 3, 2)

    def describe(self) -> str:
        return f"{self.size}"


@functools.cache  # because a CUDA graph may not hold a copy from the host, and what it reads has to stay
def _bands(xp: Any, dtype: Any, size: int, n: int) -> Any:
    """(n, size): column i takes the mean of band i."""
    a = np.zeros((n, size))
    for i in range(size):
        band = slice(i * n // size, -(-(i + 1) * n // size))
        a[band, i] = 1 / (band.stop - band.start)
    return xp.asarray(a, dtype)


class GlobalAvgPool2d(Module):
    """(N, C, H, W) -> (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.global_avg_pool2d(x)


class Flatten(Module):
    """(N, ...) -> (N, everything else)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], -1)


class Dropout(Module):
    """Zeroes with probability p in train mode. `rng` draws a new mask at every call."""

    def __init__(self, p: float = 0.5, *, rng: np.random.Generator):
        self.p, self.rng = p, rng

    def forward(self, x: Tensor) -> Tensor:
        return ops.dropout(x, self.p, self.training, rng=self.rng)

    def describe(self) -> str:
        return f"{self.p}"


class Sequential(Module):
    """One module after the other: the attributes "0", "1", ... in the order of these numbers.

    `net[i]` is the module number i (from the end where i < 0), `for layer in net` goes through them, `len(net)` counts
    them. Attributes of other names are no part of the sequence. TypeError for a number that holds no Module.
    """

    def __init__(self, *layers: Module):
        for i, layer in enumerate(layers):
            setattr(self, str(i), layer)
        list(self)  # the TypeError comes now, not when the network runs

    def __len__(self) -> int:
        return sum(name.isdecimal() for name in vars(self))

    def __getitem__(self, i: int) -> Any:
        number, count = range(len(self))[operator.index(i)], len(self)
        layer = vars(self).get(str(number))
        if not isinstance(layer, Module):
            raise TypeError(f"Sequential: expected a Module as number {number} of {count}, got {type(layer).__name__}; "
                            "nn.Identity() leaves a place empty")
        return layer

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def forward(self, x: Any) -> Any:
        for layer in self:
            x = layer(x)
        return x
