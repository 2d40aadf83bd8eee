"""Softmax, and the loss of a classifier."""
from __future__ import annotations

from typing import Any

import numpy as np

from .. import device
from ..tensor import Function, Tensor


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
