"""Softmax, and the loss of a classifier."""
from __future__ import annotations

import numbers
from typing import Any

import numpy as np

from .. import device
from ..tensor import Function, Tensor
from .arguments import check_number, one_axis
from .arithmetic import where


class LogSoftmax(Function):
    def forward(self, z, axis):
        self.axis = axis = one_axis(axis, max(z.ndim, 1))  # NumPy gives a number one axis
        self.log_p = self.K.log_softmax(z, axis)
        return self.log_p

    def backward(self, g): return g - self.xp.exp(self.log_p) * g.sum(self.axis, keepdims=True)


def log_softmax(z: Tensor, axis: int = -1) -> Tensor: return LogSoftmax.apply(z, axis=axis)


class Softmax(Function):
    def forward(self, z, axis):
        self.axis = axis = one_axis(axis, max(z.ndim, 1))  # NumPy gives a number one axis
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


def cross_entropy(logits: Tensor, labels: Any, weight: Any = None, ignore_index: int | None = None,
                  label_smoothing: float = 0.0, reduction: str = "mean") -> Tensor:
    """Return the mean over all labels of -log softmax(logits)[label], a scalar.

    logits: (N, K) or (N, K, ...), with a class k on axis 1. labels: integers (N,) or (N, ...) in 0..K-1.
    weight: numbers (K,), which have no gradient. The loss of a label counts `weight[label]` times, in the divisor of
        the mean too.
    ignore_index: an integer. Labels with this value do not count. The default is no such value; PyTorch's is -100.
    label_smoothing: The target is 1 - label_smoothing for the label plus label_smoothing / K for every class.
    reduction: "mean"; "sum"; or "none" for the losses themselves, of the labels' shape.
    Raises ValueError if shapes or options do not fit, the batch is empty, the labels are not integers, or, on the CPU,
    a label is out of range, or every label is ignored or has the weight 0.
    """
    if not isinstance(logits, Tensor):
        raise TypeError(f"cross_entropy: expected logits as a Tensor, got {type(logits).__name__}; wrap it: "
                        "Tensor(array)")
    if not isinstance(ignore_index, numbers.Integral | None):
        raise ValueError(f"cross_entropy, ignore_index: expected an integer, got {ignore_index!r}")
    labels = labels if hasattr(labels, "dtype") else np.asarray(labels)
    _check_labels(logits, labels, ignore_index, reduction)
    if logits.ndim == 2 and weight is None and (ignore_index, label_smoothing, reduction) == (None, 0, "mean"):
        return CrossEntropy.apply(logits, labels=labels)
    return _general_cross_entropy(logits, labels, weight, ignore_index, label_smoothing, reduction)


def _check_labels(logits: Tensor, labels: Any, ignore_index: int | None, reduction: str) -> None:
    if logits.ndim < 2 or logits.size == 0:
        raise ValueError(f"cross_entropy: expected logits (N, K, ...) with N >= 1, got {logits.shape}"
                         + ("; the batch is empty" if logits.size == 0 else ""))
    expected = logits.shape[:1] + logits.shape[2:]
    if isinstance(labels, Tensor) or labels.dtype.kind not in "iu" or labels.shape != expected:
        floats = labels.dtype.kind == "f" and labels.shape == logits.shape
        raise ValueError(f"cross_entropy: expected integer labels of shape {expected}, got {labels.dtype}{labels.shape}"
                         + "; for probabilities p write -(p * log_softmax(logits, 1)).sum(1).mean()" * floats)
    device.of(logits.data, labels, operation="cross_entropy")
    # On a GPU this check would make every step wait for the device. The data sets check the range of their labels.
    if not device.on_gpu(labels):
        wrong = labels[((labels < 0) | (labels >= logits.shape[1])) & (labels != ignore_index)]
        if wrong.size:
            raise ValueError(f"cross_entropy: expected labels in 0..{logits.shape[1] - 1}, got {int(wrong.flat[0])}"
                             + "; is it ignore_index?" * (ignore_index is None and int(wrong.flat[0]) == -100))
        if reduction == "mean" and ignore_index is not None and (labels == ignore_index).all():
            raise ValueError(f"cross_entropy: every label is ignore_index={ignore_index}, so there is no mean")


def _general_cross_entropy(logits: Tensor, labels: Any, weight: Any, ignore_index: int | None, label_smoothing: float,
                           reduction: str) -> Tensor:
    """Return -sum over k of target[k] log softmax(logits)[k], reduced. The target, a constant, has all the options."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'cross_entropy, reduction: expected "mean", "sum" or "none", got {reduction!r}')
    smoothing = check_number("cross_entropy, label_smoothing", label_smoothing, 0, 1)
    xp, K = device.of(logits.data), logits.shape[1]
    if isinstance(weight, Tensor) and weight.requires_grad:
        raise ValueError("cross_entropy, weight: it has no gradient here; give weight.detach(), or multiply the losses "
                         'of reduction="none" by it')
    w = xp.ones(K) if weight is None else weight.data if isinstance(weight, Tensor) else xp.asarray(weight)
    if w.shape != (K,) or w.dtype.kind not in "fiu":
        raise ValueError(f"cross_entropy, weight: expected {K} numbers, one for each class, got {w.dtype}{w.shape}")
    w = w.astype(logits.dtype)
    one_hot = labels[:, None] == xp.arange(K).reshape(K, *(1,) * (labels.ndim - 1))
    counts = labels != ignore_index if ignore_index is not None else xp.ones(labels.shape, bool)
    w = w.reshape(K, *(1,) * (labels.ndim - 1)) * counts[:, None]
    target = w * (one_hot * (1 - smoothing) + smoothing / K)
    target = target.astype(logits.dtype)
    # A class that the target excludes may have the logit -inf: 0 times its -inf would be NaN.
    losses = -(where(target != 0, log_softmax(logits, 1), 0.0) * Tensor(target)).sum(1)
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    divisor = (w * one_hot).sum(dtype=logits.dtype)
    _check_divisor(divisor)
    return losses.sum() / Tensor(divisor)


def _check_divisor(divisor: Any) -> None:
    if not device.on_gpu(divisor) and divisor == 0:  # on a GPU, as for the labels, the check would wait for the device
        raise ValueError("cross_entropy: the weights of all labels add up to 0, so there is no mean")
