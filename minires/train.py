"""The training loop: a generator that yields what happened, so that whoever runs it can plot, print or stop."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from . import device, kernels, nn, ops
from .datasets.batches import batches
from .evaluate import is_right
from .optim import SGD, Schedule
from .tap import untouched
from .tensor import Tensor, no_grad

Arrays = tuple[Any, Any]  # images float32 (N, C, H, W), labels integer (N,)


@dataclass(frozen=True)
class Recipe:
    """How to train. The defaults are those of `minires demo`."""

    epochs: int = 3
    batch_size: int = 100
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4


class Step(NamedTuple):
    """After each update."""

    step: int     # counted from 1
    loss: float   # mean over the batch, before the update
    images: int   # in the batch


class Epoch(NamedTuple):
    """After each pass over the training set. Errors in percent, in eval mode, over the whole sets."""

    epoch: int         # counted from 1
    train_loss: float  # mean of the steps' losses
    train_error: float
    test_error: float


class NotFinite(ArithmeticError):
    """The loss became NaN or infinite; the model is as it was before that step. Or, at an epoch's end, the weights."""


def fit(model: nn.Module, train: Arrays, test: Arrays, recipe: Recipe, *, rng: np.random.Generator,
        augment: Callable[..., Any] | None = None, schedule: Schedule | None = None) -> Iterator[Step | Epoch]:
    """Train `model` in place by SGD; yield a Step after every update and an Epoch after every pass.

    `rng` shuffles the training set. `augment(images, rng=rng)`, if given, changes every batch before the step
    (`datasets.crop_and_flip`); errors are measured on the images as they are. `schedule` (optim.step_decay, warm_up)
    gives the learning rate of each step, counted from 0, in place of recipe.lr. NotFinite where the loss is not finite,
    or the weights after an epoch are not.
    """
    with kernels.session():
        yield from _fit(model, train, test, recipe, rng, augment, schedule)


def _fit(model, train, test, recipe, rng, augment, schedule):
    optimizer = SGD(model.parameters(), recipe.lr, recipe.momentum, recipe.weight_decay)
    images, labels = train
    for what, (x, y) in ("train", train), ("test", test):
        if not hasattr(y, "shape"):
            raise TypeError(f"fit, {what}: expected labels as an array, got {type(y).__name__}; np.asarray makes one")
        if y.shape != (len(x),):
            raise ValueError(f"fit, {what}: expected one label for each of {len(x)} images, got shape {y.shape}")
    count = 0
    for epoch in range(1, recipe.epochs + 1):
        losses = []
        for rows in batches(len(images), recipe.batch_size, rng=rng):
            if schedule is not None:
                optimizer.lr = schedule(count)
            count += 1
            rows = device.of(images).asarray(rows)
            batch = images[rows] if augment is None else augment(images[rows], rng=rng)
            losses.append(step(model, optimizer, batch, labels[rows], count))
            yield Step(count, losses[-1], len(rows))
        if not bool(optimizer.xp.isfinite(optimizer.flat).all()):  # the last update's work: no later loss would tell
            raise NotFinite(f"step {count}: the weights are not finite after it; the loss before it was {losses[-1]}. "
                            f"A smaller learning rate (it is {optimizer.lr}) may help")
        yield Epoch(epoch, float(np.mean(losses)), error(model, *train), error(model, *test))


def step(model: nn.Module, optimizer: SGD, images: Any, labels: Any, number: int = 1) -> float:
    """Forward, backward, update: returns the batch's loss. NotFinite if that is NaN or infinite."""
    model.train()
    optimizer.zero_grad()
    running = [(t, t.data) for t in model.state().values() if not t.requires_grad]
    with np.errstate(over="ignore", invalid="ignore"):  # reported below, by layer
        loss = ops.cross_entropy(model(Tensor(images)), labels)
    value = loss.item()
    if not math.isfinite(value):
        for t, data in running:  # BatchNorm replaces its statistics, so these are still the old ones
            t.data = data
        raise NotFinite(f"step {number}: the loss is {value}, expected a finite number; first not finite is "
                        f"{first_not_finite(model, images)}. A smaller learning rate (it is {optimizer.lr}) or a look "
                        "at the input may help")
    with np.errstate(over="ignore", invalid="ignore"):  # the next step's loss tells
        loss.backward()
        optimizer.step()
    return value


def first_not_finite(model: nn.Module, images: Any) -> str:
    """In words: the input, the first module whose output on `images` holds NaN or infinity, or the loss itself."""
    names = {id(m): name for name, m in model.modules()}
    found: list[str] = []

    def see(module, inputs, out):
        if not found and not bool(device.of(out.data).isfinite(out.data).all()):
            found.append(f"the output of layer {names[id(module)] or 'model'!r} ({type(module).__name__})")

    if not bool(device.of(images).isfinite(images).all()):
        return "the input itself"
    with untouched(model), nn.watched(see), no_grad(), np.errstate(over="ignore", invalid="ignore"):
        model.train()
        model(Tensor(images))
    return found[0] if found else "the loss itself: every layer's output is finite"


def error(model: nn.Module, images: Any, labels: Any, batch_size: int = 500) -> float:
    """Percent of `images` that the model classifies wrongly, in eval mode; its modes are left as they were."""
    return 100 * float((~is_right(model, images, labels, batch_size)).mean())
