"""Batch normalisation, alone and with the ReLU that follows it."""
from __future__ import annotations

from typing import Any

from .. import device
from ..tensor import Function, Tensor
from .arguments import check_not_empty


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
    check_not_empty(x)


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
