"""Train a model with SGD. The training loop is a generator of events, so its caller can plot, print or stop."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from . import device, kernels, nn, ops
from .cuda_graph import GraphedStep
from .datasets.augment import random_crop, random_flip
from .datasets.batching import batches, epoch_rng
from .evaluate import error as error  # train.error is public
from .evaluate import error_of_tally, tally
from .nn import untouched
from .optim import SGD, Schedule, step_decay
from .recipes import Recipe as Recipe  # train.Recipe is public
from .tensor import Tensor, no_grad

Arrays = tuple[Any, Any]  # images float32 (N, C, H, W), labels integer (N,)


class Step(NamedTuple):
    """Holds the result of one update."""

    step: int     # counted from 1
    loss: float   # mean over the batch, before the update
    images: int   # number of images in the batch
    lr: float     # of this update


class Epoch(NamedTuple):
    """Holds the results after one pass over the training set. Errors are in percent, in eval mode, over whole sets."""

    epoch: int         # counted from 1
    train_loss: float  # mean of the losses of the epoch's steps
    train_error: float
    test_error: float


class NotFinite(ArithmeticError):
    """The loss of a step, or a weight after an epoch, is NaN or infinite.

    A step whose loss is not finite leaves the model unchanged.
    """


@dataclass
class Progress:
    """Holds the progress of a run between two steps.

    The progress, the model's state, the recipe and the seed determine all that follows. A run that saves its progress
    and gives it to `fit` again therefore resumes as if it had never stopped.
    """

    step: int = 0            # number of updates
    epoch: int = 0           # number of complete epochs, whose errors have been measured
    batch: int = 0           # number of updates in the current epoch
    loss_sum: float = 0.0    # sum of the losses of these updates
    lr: float = 0.0          # of the last update
    warming_up: bool = True  # whether the training error has not been below 80 % yet (recipe.warm_up_lr)
    velocity: Any = None     # SGD's array for all parameters: copy it to keep it. None before the first step


def fit(model: nn.Module, train: Arrays, test: Arrays, recipe: Recipe, *, rng: np.random.Generator | int,
        augment: Callable[..., Any] | None = None, schedule: Schedule | None = None,
        at: Progress | None = None, graph: bool = False) -> Iterator[Step | Epoch]:
    """Train `model` in place with SGD. Yield a Step after every update and an Epoch after every pass.

    train, test: images float32 (N, C, H, W) and labels integer (N,)
    rng: shuffles the training set and draws the augmentation: a Generator or a seed. With a seed, the order of an epoch
        depends only on the seed and the epoch's number, and the augmentation of a batch also on the batch's number
    augment: `augment(images, rng=rng)` returns the images of a batch to train on, instead of the recipe's crop and
        flip. Errors are measured on unchanged images
    schedule: returns the learning rate of each step, counted from 0, instead of recipe.lr and its drops
        (optim.step_decay, optim.warm_up). The recipe's warm-up limits it to recipe.warm_up_lr
    at: is updated before every yield. If it is not at the start, training resumes from it; this needs a seed, and the
        model's state at that point
    graph: on a GPU, run every step with one launch of a CUDA graph (cuda_graph.py), with the same numbers; on the CPU,
        this changes nothing

    Raises NotFinite if the loss is not finite, or if the weights are not finite after an epoch.
    Raises TypeError if the labels are not an array, and ValueError if there is not one label for each image.
    Raises ValueError if `at` does not fit the model, or if training resumes with a Generator.
    """
    with kernels.session():
        yield from _fit(model, train, test, recipe, rng, augment, schedule, Progress() if at is None else at, graph)


def _fit(model: nn.Module, train: Arrays, test: Arrays, recipe: Recipe, rng: np.random.Generator | int,
         augment: Callable[..., Any] | None, schedule: Schedule | None, at: Progress, graph: bool
         ) -> Iterator[Step | Epoch]:
    _check_labels(train=train, test=test)
    optimizer = SGD(model.parameters(), recipe.lr, recipe.momentum, recipe.weight_decay)
    if at.step:
        _go_on(optimizer, at, rng)
    images, labels = train
    total = recipe.total_steps(len(images))
    augment = augment or _augmentation(recipe)
    schedule = schedule or step_decay(recipe.lr, [math.ceil(share * total - 1e-6) for share in recipe.drops])
    at.warming_up &= recipe.warm_up_lr > 0 and model.depth(images.shape[1:]) >= recipe.warm_up_layers
    take = graphed_step(model, optimizer, recipe.batch_size) if graph else partial(step, model, optimizer)

    while at.step < total or at.batch:  # at.batch > 0: the errors of the current epoch are not measured yet
        order = batches(len(images), recipe.batch_size, rng=_draws(rng, at.epoch + 1))
        for rows in islice(order, at.batch, at.batch + total - at.step):
            lr = schedule(at.step)
            optimizer.lr = at.lr = min(lr, recipe.warm_up_lr) if at.warming_up else lr
            rows = device.of(images).asarray(rows)
            batch = augment(images[rows], rng=_draws(rng, at.epoch + 1, at.batch + 1))
            loss = take(batch, labels[rows], at.step + 1)
            at.step, at.batch = at.step + 1, at.batch + 1
            at.loss_sum, at.velocity = at.loss_sum + loss, optimizer.velocity
            yield Step(at.step, loss, len(rows), at.lr)
        finite, errors = _measured(model, optimizer, train, test)
        if not finite:  # after the last update no loss follows that would show this
            raise NotFinite(f"step {at.step}: the weights are not finite after this step; the mean loss of its epoch "
                            f"was {at.loss_sum / at.batch}. Try a smaller learning rate than {at.lr}")
        done = Epoch(at.epoch + 1, at.loss_sum / at.batch, *errors)
        at.epoch, at.batch, at.loss_sum = at.epoch + 1, 0, 0.0
        at.warming_up &= done.train_error >= 80
        yield done


def _check_labels(**sets: Arrays) -> None:
    for name, (x, y) in sets.items():
        if not hasattr(y, "shape"):
            raise TypeError(f"fit, {name}: expected labels as an array, got {type(y).__name__}; np.asarray makes one")
        if y.shape != (len(x),):
            raise ValueError(f"fit, {name}: expected one label for each of {len(x)} images, got shape {y.shape}")


def _go_on(optimizer: SGD, at: Progress, rng: Any) -> None:
    if isinstance(rng, np.random.Generator):
        raise ValueError(f"fit: to resume from step {at.step}, expected rng to be the seed of that run, got a "
                         "Generator, whose earlier state is unknown")
    if at.velocity is None or at.velocity.shape != optimizer.velocity.shape:
        raise ValueError(f"fit: expected at.velocity of shape {optimizer.velocity.shape} for this model, got "
                         f"{getattr(at.velocity, 'shape', None)}")
    optimizer.velocity = optimizer.xp.asarray(at.velocity, optimizer.flat.dtype)


def _measured(model: nn.Module, optimizer: SGD, *sets: Arrays) -> tuple[bool, list[float]]:
    """Return whether the weights are finite, and each set's error. Fetch one array: every fetch waits for the GPU."""
    xp = optimizer.xp
    numbers = [xp.isfinite(optimizer.flat).all().reshape(1), *(tally(model, *s) for s in sets)]
    finite, *tallies = np.split(device.to(xp.concatenate(numbers), "cpu"), range(1, 4 * len(sets), 4))
    return bool(finite[0]), [error_of_tally(t, len(x)) for t, (x, _) in zip(tallies, sets, strict=True)]


def _draws(rng: np.random.Generator | int, epoch: int, *batch: int) -> np.random.Generator:
    """Return a Generator itself, or for a seed the generator of this epoch or batch, independent of all others."""
    if isinstance(rng, np.random.Generator):
        return rng
    return epoch_rng(rng, epoch, *batch)


def _augmentation(recipe: Recipe) -> Callable[..., Any]:
    def augment(images: Any, *, rng: np.random.Generator) -> Any:
        if recipe.crop:
            images = random_crop(images, recipe.crop, rng=rng)
        return random_flip(images, rng=rng) if recipe.flip else images
    return augment


def step(model: nn.Module, optimizer: SGD, images: Any, labels: Any, number: int = 1) -> float:
    """Run one training step, which is forward, backward and update, and return the loss.

    images: (N, C, H, W)
    labels: (N,) integers
    number: the step's number, for error messages

    Raises NotFinite if the loss is NaN or infinite; the model is then unchanged.
    """
    model.resume_training()
    optimizer.zero_grad()
    running = [(t, t.data) for t in model.state().values() if not t.requires_grad]
    with np.errstate(over="ignore", invalid="ignore"):  # the error below names the layer
        loss = ops.cross_entropy(model(Tensor(images)), labels)
    value = loss.item()
    if not math.isfinite(value):
        for t, data in running:  # BatchNorm replaces the arrays of its statistics, so these hold the old values
            t.data = data
        raise _not_finite(number, value, model, images, optimizer.lr)
    with np.errstate(over="ignore", invalid="ignore"):  # the loss of the next step shows it
        loss.backward()
        optimizer.step()
    return value


def graphed_step(model: nn.Module, optimizer: SGD, batch_size: int) -> Callable[[Any, Any, int], float]:
    """Return `step` for this model and optimiser as one CUDA graph, which the first full batch records."""
    recorded: GraphedStep | None = None

    def take(images: Any, labels: Any, number: int) -> float:
        nonlocal recorded
        if recorded is None and len(images) < batch_size:
            return step(model, optimizer, images, labels, number)
        with np.errstate(over="ignore", invalid="ignore"):  # the error below reports it
            recorded = recorded or GraphedStep(model, optimizer, images, labels)
            value = float(recorded(images, labels))
        if not math.isfinite(value):
            raise _not_finite(number, value, model, images, optimizer.lr)
        return value

    return take


def _not_finite(number: int, loss: float, model: nn.Module, images: Any, lr: float) -> NotFinite:
    """Return the error for a model that is unchanged by this step."""
    return NotFinite(f"step {number}: the loss is {loss}, expected a finite number; the first non-finite values are in "
                     f"{first_not_finite(model, images)}. Try a smaller learning rate than {lr}, or check the input")


def first_not_finite(model: nn.Module, images: Any) -> str:
    """Name the input, the first module whose output for `images` has NaN or infinity, or the loss itself."""
    names = {id(m): name for name, m in model.modules()}
    found: list[str] = []

    def see(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        if not found and not bool(device.of(out.data).isfinite(out.data).all()):
            found.append(f"the output of layer {names[id(module)] or 'model'!r} ({type(module).__name__})")

    if not bool(device.of(images).isfinite(images).all()):
        return "the input itself"
    with untouched(model), nn.watched(see), no_grad(), np.errstate(over="ignore", invalid="ignore"):
        model.resume_training()
        model(Tensor(images))
    return found[0] if found else "the loss itself: every layer's output is finite"
