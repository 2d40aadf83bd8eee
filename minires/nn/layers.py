"""This module has the layers: convolution, linear, BatchNorm, activations, pooling, dropout and Sequential."""
from __future__ import annotations

import numbers
import operator
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import init, kernels, ops
from ..ops.arguments import check_number
from ..ops.elementwise import check_approximate, check_probability
from ..tensor import Tensor
from .module import Module


def _check_counts(name: str, **counts: Any) -> None:
    """Raise ValueError, naming the layer `name`, unless all of `counts` are integers >= 1."""
    for what, value in counts.items():
        if not isinstance(value, numbers.Integral) or int(value) < 1:
            raise ValueError(f"{name}: expected {what} as an integer >= 1, got {value!r}")


def _check_window(name: str, kernel: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1) -> None:
    """Raise ValueError, naming the layer `name`, unless these are integers or pairs: padding >= 0, the others >= 1."""
    for what, value, least in (("kernel", kernel, 1), ("stride", 1 if stride is None else stride, 1),
                               ("padding", padding, 0), ("dilation", dilation, 1)):
        if min(ops.pair(value, f"{name}, {what}")) < least:
            raise ValueError(f"{name}, {what}: expected at least {least}, got {value}")


class Conv2d(Module):
    """Conv2d is a convolution layer.

    Input and output: (N, in_channels, H, W) -> (N, out_channels, Ho, Wo).
    kernel, stride, padding, dilation: integers or pairs (vertical, horizontal).
    groups: see `ops.conv2d`. The weight is (out_channels, in_channels / groups, kh, kw).
    Weights start as in He et al. 2015b with fan-in, biases at 0.

    Raises ValueError if a size is not an integer in its range, or if `groups` does not divide both numbers of channels.
    """

    multiplies = True

    def __init__(self, in_channels: int, out_channels: int, kernel: Any, stride: Any = 1, padding: Any = 0,
                 bias: bool = False, *, dilation: Any = 1, groups: int = 1, rng: np.random.Generator):
        _check_counts("Conv2d", in_channels=in_channels, out_channels=out_channels, groups=groups)
        _check_window("Conv2d", kernel, stride, padding, dilation)
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"Conv2d, groups: expected a divisor of {in_channels} input and {out_channels} output "
                             f"channels, got {groups}")
        shape = (out_channels, in_channels // groups, *ops.pair(kernel))
        self.weight = Tensor(init.he_normal(shape, rng=rng), True)
        self.bias = Tensor(init.constant((out_channels,), 0), True) if bias else None
        self.stride, self.padding = ops.pair(stride, "Conv2d, stride"), ops.pair(padding, "Conv2d, padding")
        self.dilation, self.groups = ops.pair(dilation, "Conv2d, dilation"), int(groups)

    @property
    def is_dense(self) -> bool:
        """True if the windows have no gaps and every output channel sees all input channels."""
        return self.dilation == (1, 1) and self.groups == 1

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def describe(self) -> str:
        o, c, kh, kw = self.weight.shape
        more = f", dilation {self.dilation}" * (self.dilation != (1, 1)) + f", groups {self.groups}" * (self.groups > 1)
        return f"{c * self.groups} -> {o}, {kh}x{kw}, stride {self.stride}, padding {self.padding}{more}"


class Linear(Module):
    """Linear is a fully connected layer.

    Input and output: (N, in_features) -> (N, out_features).
    Weights start uniform in +-1 / sqrt(in_features), biases at 0.

    Raises ValueError if a number of features is not an integer >= 1.
    """

    multiplies = True

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, rng: np.random.Generator):
        _check_counts("Linear", in_features=in_features, out_features=out_features)
        self.weight = Tensor(init.fan_in_uniform((out_features, in_features), rng=rng), True)
        self.bias = Tensor(init.constant((out_features,), 0), True) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return ops.linear(x, self.weight, self.bias)

    def describe(self) -> str:
        return f"{self.weight.shape[1]} -> {self.weight.shape[0]}"


class BatchNorm(Module):
    """BatchNorm normalises each channel (Ioffe & Szegedy 2015). Use it as BatchNorm1d or BatchNorm2d.

    Train mode normalises by the mean and the biased variance of the batch, and moves the running statistics by
    `momentum` towards the mean and the UNBIASED variance of the batch. Eval mode normalises by the running statistics.
    These are PyTorch's conventions. eps is added to the variance, inside the square root.

    Raises ValueError for PyTorch's options momentum=None and track_running_stats=False, and says what to write instead.
    Raises ValueError if there is no channel, eps < 0, or momentum is not from 0 to 1.
    """

    ndim = 0

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1, *, track_running_stats: bool = True):
        if momentum is None:
            raise ValueError(f"{type(self).__name__}: expected a number as momentum, got None; for the mean over all "
                             "batches, set bn.momentum = 1 / n before batch number n = 1, 2, ...")
        if not track_running_stats:
            raise ValueError(f"{type(self).__name__}: expected track_running_stats=True; to normalise by the batch "
                             "while the model is in eval mode, call bn.train() after model.eval()")
        _check_counts(type(self).__name__, channels=channels)
        check_number(f"{type(self).__name__}, eps", eps, 0)
        check_number(f"{type(self).__name__}, momentum", momentum, 0, 1)
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
        """Move the running statistics towards the statistics of a batch.

        mean, var: (C,), the mean and the biased variance over `count` values of each channel.
        Raises ValueError if `count` is less than 2.
        """
        if count < 2:
            raise ValueError(f"{type(self).__name__}: expected more than one value per channel in train mode, got "
                             f"{count}; use a larger batch or .eval()")
        momentum = float(self.momentum)  # a NumPy number would promote float32
        running = self.running_mean, self.running_var
        old = [t.data for t in running]
        new = kernels.of(old[0]).running_statistics(*old, mean, var, momentum, count)
        for t, data in zip(running, new, strict=True):
            t.data = data.astype(t.dtype, copy=False)  # a float16 batch has float32 statistics

    def describe(self) -> str:
        return f"{self.weight.size}"


class BatchNorm1d(BatchNorm):
    """BatchNorm1d normalises inputs (N, C)."""
    ndim = 2


class BatchNorm2d(BatchNorm):
    """BatchNorm2d normalises inputs (N, C, H, W)."""
    ndim = 4


class ReLU(Module):
    """ReLU computes max(x, 0) for any shape."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.relu(x)


class Identity(Module):
    """Identity returns x itself. It replaces a BatchNorm that is left out."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class LeakyReLU(Module):
    """LeakyReLU computes x for x > 0 and slope * x elsewhere, for any shape."""

    def __init__(self, slope: float = 0.01):
        self.slope = check_number("LeakyReLU, slope", slope)

    def forward(self, x: Tensor) -> Tensor:
        return ops.leaky_relu(x, self.slope)

    def describe(self) -> str:
        return f"{self.slope}"


class GELU(Module):
    """GELU computes x P(Z <= x) for a standard normal Z, for any shape. `approximate` is that of `ops.gelu`."""

    def __init__(self, approximate: str = "none"):
        check_approximate("GELU", approximate)
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        return ops.gelu(x, self.approximate)

    def describe(self) -> str:
        return "" if self.approximate == "none" else self.approximate


class MaxPool2d(Module):
    """MaxPool2d computes the maximum of every window. The arguments are those of `ops.max_pool2d`.

    Raises ValueError if one of them is not in its range.
    """

    def __init__(self, kernel: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False, dilation: Any = 1):
        _check_window("MaxPool2d", kernel, stride, padding, dilation)
        self.kernel, self.stride, self.padding, self.ceil_mode = kernel, stride, padding, ceil_mode
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:
        return ops.max_pool2d(x, self.kernel, self.stride, self.padding, self.ceil_mode, self.dilation)

    def describe(self) -> str:
        more = ", ceil" * self.ceil_mode + f", dilation {self.dilation}" * (ops.pair(self.dilation) != (1, 1))
        return f"{self.kernel}, stride {self.stride or self.kernel}, padding {self.padding}{more}"


class AvgPool2d(Module):
    """AvgPool2d computes the mean of every window. The arguments are those of `ops.avg_pool2d`.

    Raises ValueError if one of them is not in its range.
    """

    def __init__(self, kernel: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
                 count_include_pad: bool = True):
        _check_window("AvgPool2d", kernel, stride, padding)
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, x: Tensor) -> Tensor:
        return ops.avg_pool2d(x, self.kernel, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def describe(self) -> str:
        more = ", ceil" * self.ceil_mode + ", padding not counted" * (not self.count_include_pad)
        return f"{self.kernel}, stride {self.stride or self.kernel}, padding {self.padding}{more}"


class AdaptiveAvgPool2d(Module):
    """AdaptiveAvgPool2d averages images of any size to `size` pixels: (N, C, H, W) -> (N, C, rows, columns).

    size: an integer or a pair (rows, columns), as for `ops.adaptive_avg_pool2d`.
    Raises ValueError for a size below 1.
    """

    def __init__(self, size: Any):
        if min(ops.pair(size, "AdaptiveAvgPool2d, size")) < 1:
            raise ValueError(f"AdaptiveAvgPool2d, size: expected at least 1, got {size}")
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return ops.adaptive_avg_pool2d(x, self.size)

    def describe(self) -> str:
        return f"{self.size}"


class GlobalAvgPool2d(Module):
    """GlobalAvgPool2d computes the mean of every channel: (N, C, H, W) -> (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.global_avg_pool2d(x)


class Flatten(Module):
    """Flatten joins all axes but the first: (N, ...) -> (N, product of the other extents)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], -1)


class Dropout(Module):
    """Dropout sets elements to zero with probability p in train mode. `rng` draws a new mask at every call.

    Raises ValueError unless 0 <= p < 1.
    """

    def __init__(self, p: float = 0.5, *, rng: np.random.Generator):
        check_probability("Dropout", p)
        self.p, self.rng = p, rng

    def forward(self, x: Tensor) -> Tensor:
        return ops.dropout(x, self.p, self.training, rng=self.rng)

    def describe(self) -> str:
        return f"{self.p}"


class Sequential(Module):
    """Sequential runs modules one after the other: the attributes "0", "1", ... in the order of these numbers.

    `net[i]` is module number i, counted from the end if i < 0. `for layer in net` iterates over the modules, and
    `len(net)` counts them. Attributes with other names are not part of the sequence.

    Raises TypeError if one of these attributes is not a Module.
    """

    def __init__(self, *layers: Module):
        for i, layer in enumerate(layers):
            setattr(self, str(i), layer)
        list(self)  # raises a TypeError now, not when the network runs

    def __len__(self) -> int:
        return sum(name.isdecimal() for name in vars(self))

    def __getitem__(self, i: int) -> Any:
        number, count = range(len(self))[operator.index(i)], len(self)
        layer = vars(self).get(str(number))
        if not isinstance(layer, Module):
            raise TypeError(f"Sequential: expected a Module as number {number} of {count}, got {type(layer).__name__}; "
                            "put nn.Identity() into an empty place")
        return layer

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def forward(self, x: Any) -> Any:
        for layer in self:
            x = layer(x)
        return x
