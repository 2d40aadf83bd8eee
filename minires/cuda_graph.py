"""A training step that a GPU runs with one launch: forward, backward and update, recorded as a CUDA graph.

A step of ResNet-20 is some hundreds of kernels, and most are done before the host has launched the next one. A graph
launches them all at once. The price is that everything stays where it is: the batch is copied into arrays that the
recording knows, the learning rate lies on the device, and the new weights are copied back into the old ones' place.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from . import device, kernels, nn, ops
from .optim import SGD
from .tensor import Tensor


class GraphedStep:
    """step(images, labels): what train.step does, with the same losses; on the CPU too, where nothing is recorded.

        step = GraphedStep(model, optimizer, images[:128], labels[:128])
        losses.append(step(images[rows], labels[rows]))     # 0-d arrays on the device: to fetch one is to wait for it

    `images` and `labels` are a batch on the model's device, for its shape. A batch of another shape (an epoch's last)
    runs as an ordinary step. `optimizer.lr` may change from step to step; a change of momentum or weight decay records
    again; layers' modes, kernels and precision are those of the recording. A step whose loss is not finite changes
    nothing but itself: it returns the loss. ValueError for Dropout, whose masks are drawn on the host.
    """

    def __init__(self, model: nn.Module, optimizer: SGD, images: Any, labels: Any):
        xp = device.of(images, labels, optimizer.flat, operation="GraphedStep")
        if images.dtype != optimizer.flat.dtype or labels.shape != images.shape[:1]:
            raise ValueError(f"GraphedStep: expected {optimizer.flat.dtype} images and a label for each, got "
                             f"{images.dtype}{images.shape} and {labels.dtype}{labels.shape}")
        if dropout := [name for name, m in model.modules() if isinstance(m, nn.Dropout) and m.p > 0]:
            raise ValueError(f"GraphedStep: {dropout[0]} is Dropout, whose masks are drawn on the host and cannot be "
                             "recorded; set its p to 0, or train with train.step")
        self.model, self.optimizer = model, optimizer
        self.images, self.labels = xp.array(images), xp.array(labels, np.int32)
        self.lr, self.loss = xp.zeros((), images.dtype), xp.zeros((), images.dtype)
        # The arrays that hold the state between steps, for as long as this object lives.
        self.flat, self.velocity = optimizer.flat, xp.array(optimizer.velocity)
        self.running = [(t, xp.array(t.data)) for t in model.state().values() if not t.requires_grad]
        self._keep_state()
        self._record_anew()

    def __call__(self, images: Any, labels: Any) -> Any:
        """One update; returns the batch's loss before it, a new 0-d array."""
        device.of(images, labels, self.flat, operation="GraphedStep")
        if (self.optimizer.momentum, self.optimizer.weight_decay) != self.recorded_with:
            self._record_anew()
        self._keep_state()
        self.lr[...] = float(self.optimizer.lr)
        if images.shape == self.images.shape:
            self.images[...], self.labels[...] = images, labels
            self.replay()
        else:
            self._step(images, labels)
        return self.loss.copy()

    def _record_anew(self) -> None:
        self.recorded_with = self.optimizer.momentum, self.optimizer.weight_decay
        self.replay = device.Replay(lambda: self._step(self.images, self.labels), self.images)

    def _step(self, images: Any, labels: Any) -> None:
        optimizer, lr = self.optimizer, self.optimizer.lr
        try:
            self.model.train()
            optimizer.zero_grad()
            loss = ops.cross_entropy(self.model(Tensor(images)), labels)
            loss.backward()
            optimizer.lr = self.lr
            optimizer.step()
            kernels.of(self.flat).copy_all([(loss.data, self.loss)])
            self._keep_state(self.loss)
        except BaseException:
            self._point_back()  # our arrays still hold the state before this step
            raise
        finally:
            optimizer.lr = lr

    def _keep_state(self, if_finite: Any = None) -> None:
        """Copy state that lies elsewhere (after an update, or where somebody loaded weights) into our arrays; or, where
        the one number in `if_finite` is not finite, let go of it."""
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
