"""GraphedStep runs a whole training step (forward, backward and update) with one launch, as a recorded CUDA graph.

A step of ResNet-20 launches several hundred kernels, and most kernels finish before the host has launched the next
one. A graph launches them all at once. In return, no array may move: each batch is copied into the arrays that the
recording reads, the learning rate is an array on the device, and the new weights are copied over the old weights.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import device, kernels, nn, ops
from .optim import SGD, Optimizer, clip_gradients
from .tensor import Tensor


def check_loss(name: str, loss: Any) -> Tensor:
    """Return what a loss function returned. Raises TypeError or ValueError, naming the operation `name`, unless it is a
    Tensor with one number that was computed from the model's output."""
    if not isinstance(loss, Tensor) or loss.size != 1:
        raise TypeError(f"{name}, loss: expected a Tensor with one number, got "
                        + (f"shape {loss.shape}; .mean() makes one" if isinstance(loss, Tensor) else
                           f"{type(loss).__name__}; compute it with operations on Tensors, from ops"))
    if not loss.requires_grad:
        raise ValueError(f"{name}, loss: expected a Tensor that was computed from the model's output, got a constant; "
                         "is every parameter frozen?")
    return loss


class GraphedStep:
    """A GraphedStep does what train.step does, with the same losses. On the CPU it records nothing.

        step = GraphedStep(model, optimizer, images[:128], labels[:128])
        losses.append(step(images[rows], labels[rows]))     # 0-d arrays on the device: reading one waits for the step

    images, labels: a batch on the model's device. It fixes the batch shape that is recorded.
    loss, clip: as for train.step

    A batch of another shape, such as the last of an epoch, runs as an ordinary step. `optimizer.lr` may change between
    steps; a new momentum, weight decay or factor of a Group causes a new recording. The modes of the layers, the
    kernels and the precision stay as they were recorded. A step with a loss that is not finite returns this loss and
    changes no state.

    Raises ValueError for another optimiser than SGD: the number of Adam's updates is on the host.
    Raises ValueError if the model has Dropout with p > 0, because its masks are drawn on the host.
    Raises ValueError if `images` and `labels` do not fit each other or the optimizer.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, images: Any, labels: Any, *,
                 loss: Callable[..., Any] | None = None, clip: float = 0.0):
        if not isinstance(optimizer, SGD):
            raise ValueError(f"GraphedStep: expected SGD, got {type(optimizer).__name__}, whose number of updates is "
                             "on the host and cannot be recorded; train with train.step, or without graph=True")
        xp = device.of(images, labels, optimizer.flat, operation="GraphedStep")
        if images.dtype != optimizer.flat.dtype or labels.shape[:1] != images.shape[:1]:
            raise ValueError(f"GraphedStep: expected {optimizer.flat.dtype} images and a label for each, got "
                             f"{images.dtype}{images.shape} and {labels.dtype}{labels.shape}")
        if dropout := [name for name, m in model.modules() if isinstance(m, nn.Dropout) and m.p > 0]:
            raise ValueError(f"GraphedStep: {dropout[0]} is Dropout, whose masks are drawn on the host and cannot be "
                             "recorded; set its p to 0, or train with train.step")
        self.model, self.optimizer, self.of, self.clip = model, optimizer, loss or ops.cross_entropy, clip
        kind = np.int32 if labels.dtype.kind in "iu" else labels.dtype  # targets of a loss of one's own may be floats
        self.images, self.labels = xp.array(images), xp.array(labels, kind)
        self.lr, self.loss = xp.zeros((), images.dtype), xp.zeros((), images.dtype)
        # These arrays hold the state between steps as long as this object lives.
        self.flat, self.velocity = optimizer.flat, xp.array(optimizer.velocity)
        self.running = [(t, xp.array(t.data)) for t in model.state().values() if not t.requires_grad]
        self._keep_state()
        self._record_anew()

    def __call__(self, images: Any, labels: Any) -> Any:
        """Run one update. Return the loss of the batch before the update, as a new 0-d array on the device."""
        device.of(images, labels, self.flat, operation="GraphedStep")
        if self.optimizer.constants() != self.recorded_with:
            self._record_anew()
        self._keep_state()
        self.lr[...] = float(self.optimizer.lr)
        if images.shape == self.images.shape and labels.shape == self.labels.shape:
            self.images[...], self.labels[...] = images, labels
            self.replay()
        else:
            self._step(images, labels)
        return self.loss.copy()

    def _record_anew(self) -> None:
        self.recorded_with = self.optimizer.constants()
        self.replay = device.Replay(lambda: self._step(self.images, self.labels), self.images)

    def _step(self, images: Any, labels: Any) -> None:
        optimizer, lr = self.optimizer, self.optimizer.lr
        try:
            self.model.resume_training()
            optimizer.zero_grad()
            loss = check_loss("GraphedStep", self.of(self.model(Tensor(images)), labels))
            loss.backward()
            if self.clip:
                clip_gradients(optimizer.parameters, self.clip)
            optimizer.lr = self.lr
            optimizer.step()
            kernels.of(self.flat).copy_all([(loss.data, self.loss)])
            self._keep_state(self.loss)
        except BaseException:
            self._point_back()  # this object's arrays still hold the state before the step
            raise
        finally:
            optimizer.lr = lr

    def _keep_state(self, if_finite: Any = None) -> None:
        """Copy state that is in other arrays (after an update, or after loading weights) into the recorded arrays.
        If the one number in `if_finite` is not finite, discard that state instead."""
        optimizer = self.optimizer
        if any(p.data is not view for p, view in zip(optimizer.parameters, optimizer.views, strict=True)):
            optimizer.adopt(kernels.of(self.flat).join([p.data for p in optimizer.parameters]), optimizer.velocity)
        pairs = [(optimizer.flat, self.flat), (optimizer.velocity, self.velocity),
                 *((t.data, array) for t, array in self.running)]
        if moved := [(a, b) for a, b in pairs if a is not b]:
            kernels.of(self.flat).copy_all(moved, if_finite)
            self._point_back()

    def _point_back(self) -> None:
        self.optimizer.adopt(self.flat, self.velocity)
        for t, array in self.running:
            t.data = array
