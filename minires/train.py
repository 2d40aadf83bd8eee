"""The training loop: a generator that yields what happened, so that whoever runs it can plot, print or stop."""
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
    """After each update."""

    step: int     # counted from 1
    loss: float   # mean over the batch, before the update
    images: int   # in the batch
    lr: float     # of this update


class Epoch(NamedTuple):
    """After each pass over the training set. Errors in percent, in eval mode, over the whole sets."""

    epoch: int         # counted from 1
    train_loss: float  # mean of the steps' losses
    train_error: float
    test_error: float


class NotFinite(ArithmeticError):
    """The loss became NaN or infinite; the model is as it was before that step. Or, at an epoch's end, the weights."""


@dataclass
class Progress:
    """Where a run stands between two steps. With the model's state, the recipe and the seed it is all that decides
    what comes next: kept, and given to `fit` again, it lets a run go on as if it had never stopped."""

    step: int = 0            # updates made
    epoch: int = 0           # passes completed, their errors measured
    batch: int = 0           # updates made in the pass under way
    loss_sum: float = 0.0    # of their losses
    lr: float = 0.0          # of the last update
    warming_up: bool = True  # has the training error not been below 80 % yet? (recipe.warm_up_lr)
    velocity: Any = None     # SGD's own, all parameters in one array: copy what you keep. None before the first step


def fit(model: nn.Module, train: Arrays, test: Arrays, recipe: Recipe, *, rng: np.random.Generator | int,
        augment: Callable[..., Any] | None = None, schedule: Schedule | None = None,
        at: Progress | None = None, graph: bool = False) -> Iterator[Step | Epoch]:
    """Train `model` in place by SGD; yield a Step after every update and an Epoch after every pass.

    `rng` shuffles the training set and serves the augmentation: a Generator, or a seed, with which every epoch's order
    and every step's augmentation follow from the seed and their numbers alone. `augment(images, rng=rng)`, if given,
    changes every batch before the step in place of the recipe's crop and flip; errors are measured on the images as
    they are. `schedule` (optim.step_decay, warm_up) gives the learning rate of each step, counted from 0, in place of
    recipe.lr and its drops. `at` is kept up to date at every yield; one that is not at the start goes on from there
    (with a seed, and the model's state of that moment). `graph`: on a GPU every step is one launch of a CUDA graph
    (cuda_graph.py), with the same numbers; on the CPU nothing changes. NotFinite where the loss is not finite, or the
    weights after an epoch are not.
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

    while at.step < total or at.batch:  # a batch in a pass whose errors are not measured yet
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
        if not finite:  # the last update's work: no later loss would tell
            raise NotFinite(f"step {at.step}: the weights are not finite after it; the mean loss of its epoch was "
                            f"{at.loss_sum / at.batch}. A smaller learning rate (it is {at.lr}) may help")
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
        raise ValueError(f"fit: to go on from step {at.step}, give rng that run's seed; a Generator's past is lost")
    if at.velocity is None or at.velocity.shape != optimizer.velocity.shape:
        raise ValueError(f"fit: expected at.velocity of shape {optimizer.velocity.shape} for this model, got "
                         f"{getattr(at.velocity, 'shape', None)}")
    optimizer.velocity = optimizer.xp.asarray(at.velocity, optimizer.flat.dtype)


def _measured(model: nn.Module, optimizer: SGD, *sets: Arrays) -> tuple[bool, list[float]]:
    """Are the weights finite, and the error on each set. One array is fetched: a GPU is waited for at every fetch."""
    xp = optimizer.xp
    numbers = [xp.isfinite(optimizer.flat).all().reshape(1), *(tally(model, *s) for s in sets)]
    finite, *tallies = np.split(device.to(xp.concatenate(numbers), "cpu"), range(1, 4 * len(sets), 4))
    return bool(finite[0]), [error_of_tally(t, len(x)) for t, (x, _) in zip(tallies, sets, strict=True)]


def _draws(rng: np.random.Generator | int, epoch: int, *batch: int) -> np.random.Generator:
    """The Generator itself, or with a seed the one of this place in the run, independent of any other place's."""
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
    """Forward, backward, update: returns the batch's loss. NotFinite if that is NaN or infinite."""
    model.resume_training()
    optimizer.zero_grad()
    running = [(t, t.data) for t in model.state().values() if not t.requires_grad]
    with np.errstate(over="ignore", invalid="ignore"):  # reported below, by layer
        loss = ops.cross_entropy(model(Tensor(images)), labels)
    value = loss.item()
    if not math.isfinite(value):
        for t, data in running:  # BatchNorm replaces its statistics, so these are still the old ones
            t.data = data
        raise _not_finite(number, value, model, images, optimizer.lr)
    with np.errstate(over="ignore", invalid="ignore"):  # the next step's loss tells
        loss.backward()
        optimizer.step()
    return value


def graphed_step(model: nn.Module, optimizer: SGD, batch_size: int) -> Callable[[Any, Any, int], float]:
    """`step`, of model and optimiser, as one CUDA graph, recorded with the first batch of full size."""
    recorded: GraphedStep | None = None

    def take(images: Any, labels: Any, number: int) -> float:
        nonlocal recorded
        if recorded is None and len(images) < batch_size:
            return step(model, optimizer, images, labels, number)
        with np.errstate(over="ignore", invalid="ignore"):  # reported below
            recorded = recorded or GraphedStep(model, optimizer, images, labels)
            value = float(recorded(images, labels))
        if not math.isfinite(value):
            raise _not_finite(number, value, model, images, optimizer.lr)
        return value

    return take


def _not_finite(number: int, loss: float, model: nn.Module, images: Any, lr: float) -> NotFinite:
    """For a model that is as it was before this step."""
    return NotFinite(f"step {number}: the loss is {loss}, expected a finite number; first not finite is "
                     f"{first_not_finite(model, images)}. A smaller learning rate (it is {lr}) or a look at the input "
                     "may help")


def first_not_finite(model: nn.Module, images: Any) -> str:
    """In words: the input, the first module whose output on `images` holds NaN or infinity, or the loss itself."""
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
