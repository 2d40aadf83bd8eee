"""Train a model. The training loop is a generator of events, so its caller can plot, print or stop."""
from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from . import device, kernels, nn, ops, optim
from .cuda_graph import GraphedStep, check_loss
from .datasets.augment import random_crop, random_flip
from .datasets.batching import batches, epoch_rng
from .evaluate import error as error  # train.error is public
from .evaluate import error_of_tally, tally
from .nn import untouched
from .optim import Optimizer, Schedule
from .recipes import Recipe as Recipe  # train.Recipe is public
from .tensor import Tensor, no_grad

Arrays = tuple[Any, Any]  # images float32 (N, C, H, W), labels integer (N,)
Batches = Iterable[Arrays] | Callable[[int], Iterable[Arrays]]  # a pass over the data, or from an epoch's number to it
Loss = Callable[[Any, Any], Tensor]  # from the model's output and the labels of a batch to one number


class Step(NamedTuple):
    """Holds the result of one update."""

    step: int     # counted from 1
    loss: float   # mean over the batch, before the update
    images: int   # number of images in the batch
    lr: float     # of this update

    def __str__(self) -> str:
        return f"step {self.step}: loss {self.loss:.4g}, lr {self.lr:.4g}"


class Epoch(NamedTuple):
    """Holds the results after one pass over the training set. Errors are in percent, in eval mode, over whole sets."""

    epoch: int         # counted from 1
    train_loss: float  # mean of the losses of the epoch's steps
    train_error: float
    test_error: float

    def __str__(self) -> str:
        return (f"epoch {self.epoch}: mean loss {self.train_loss:.4g}, training error {self.train_error:.4g}, "
                f"test error {self.test_error:.4g}")


class NotFinite(ArithmeticError):
    """The loss of a step, or a weight after an epoch, is NaN or infinite.

    A step whose loss is not finite leaves the model unchanged.
    """


@dataclass
class Progress:
    """Holds the progress of a run between two steps.

    The progress, the model's state, the recipe and the seed determine all that follows. A run that saves its progress
    and gives it to `fit` again therefore resumes as if it had never stopped.

    The arrays are those of the optimiser: copy them to keep them. They are None before the first step, and for other
    optimisers.
    """

    step: int = 0            # number of updates
    epoch: int = 0           # number of complete epochs, whose errors have been measured
    batch: int = 0           # number of updates in the current epoch
    loss_sum: float = 0.0    # sum of the losses of these updates
    lr: float = 0.0          # of the last update
    warming_up: bool = True  # whether the training error has not been below 80 % yet (recipe.warm_up_lr)
    velocity: Any = None     # SGD's array for all parameters
    mean: Any = None         # of Adam, like the next two
    square: Any = None
    updates: Any = None


KEPT = "velocity", "mean", "square", "updates"  # the fields of Progress that are arrays


def fit(model: nn.Module, train: Arrays | Batches, test: Arrays | Batches, recipe: Recipe, *,
        rng: np.random.Generator | int, augment: Callable[..., Any] | None = None, schedule: Schedule | None = None,
        at: Progress | None = None, graph: bool = False, loss: Loss | None = None,
        optimizer: Optimizer | None = None, measure: Callable[[nn.Module, Any, Any], float] | None = None
        ) -> Iterator[Step | Epoch]:
    """Train `model` in place. Yield a Step after every update and an Epoch after every pass.

    train, test: images float32 (N, C, H, W) and labels integer (N,), or batches of them, see below
    rng: shuffles the training set and draws the augmentation: a Generator or a seed. With a seed, the order of an epoch
        depends only on the seed and the epoch's number, and the augmentation of a batch also on the batch's number
    augment: `augment(images, rng=rng)` returns the images of a batch to train on, instead of the recipe's crop and
        flip. Errors are measured on unchanged images
    schedule: returns the learning rate of each step, counted from 0, instead of recipe.lr and recipe.schedule. The
        recipe's warm-up limits it to recipe.warm_up_lr
    at: is updated before every yield. If it is not at the start, training resumes from it; this needs a seed, and the
        model's state at that point
    graph: on a GPU, run every step with one launch of a CUDA graph (cuda_graph.py), with the same numbers; on the CPU,
        this changes nothing
    loss: `loss(output, labels)` returns the loss of a batch, a Tensor with one number, instead of the cross-entropy
    optimizer: updates the parameters instead of the recipe's optimiser, for example with `optim.Group`s
    measure: `measure(model, images, labels)` returns what an Epoch reports as an error, instead of the percentage of
        wrongly classified images. With `loss` and `measure`, labels may be any array with one entry for each image

    Batches are any iterable of (images, labels): an object that can be iterated over once for each epoch, such as a
    list, or a function from the epoch's number, counted from 1, to an iterable. The iterable decides the size and the
    order of the batches, and `rng` only their augmentation. Without recipe.steps it needs a length. The training error
    is measured in another pass over the epoch's batches. A resumed run skips the batches that the epoch has trained on.
    It has the same bits if each epoch yields the same batches again; for a function, if they depend only on the epoch.

    Raises NotFinite if the loss is not finite, or if the weights are not finite after an epoch.
    Raises TypeError if an argument has another type, or if a function returns another type than described here.
    Raises ValueError if there is no image, or not one label for each image.
    Raises ValueError if an epoch has no batch, or another number of batches than their length says.
    Raises ValueError if `at` does not fit the model, if training resumes with a Generator, or if `optimizer` has no
    parameter of the model.
    """
    _check_options(recipe, rng, optimizer, at, model, augment=augment, schedule=schedule, loss=loss, measure=measure)
    if loss is not None and recipe.label_smoothing:
        raise ValueError(f"fit: recipe.label_smoothing={recipe.label_smoothing} is part of the cross-entropy, which "
                         "loss= replaces; leave out one of the two")
    smooth = partial(ops.cross_entropy, label_smoothing=recipe.label_smoothing) if recipe.label_smoothing else None
    how = {"loss": loss or smooth, "clip": recipe.clip}
    with kernels.session():
        yield from _fit(model, train, test, recipe, rng, augment, schedule, Progress() if at is None else at, graph,
                        optimizer or optimizer_of(model, recipe), measure,
                        {key: value for key, value in how.items() if value})


def _fit(model: nn.Module, train: Arrays | Batches, test: Arrays | Batches, recipe: Recipe,
         rng: np.random.Generator | int, augment: Callable[..., Any] | None, schedule: Schedule | None, at: Progress,
         graph: bool, optimizer: Optimizer, measure: Callable[..., float] | None, how: dict[str, Any]
         ) -> Iterator[Step | Epoch]:
    _check_labels(measure is not None, train=train, test=test)
    if at.step:
        _go_on(optimizer, at, rng)
    total = _total_steps(train, recipe)
    augment = augment or _augmentation(recipe)
    schedule = schedule or schedule_of(recipe, total)
    at.warming_up &= recipe.warm_up_lr > 0 and model.depth(_image_shape(train)) >= recipe.warm_up_layers
    size = recipe.batch_size if _are_arrays(train) else 1  # the first batch whose shape a graph may record
    take: Any = graphed_step(model, optimizer, size, **how) if graph else partial(step, model, optimizer, **how)

    while at.step < total or at.batch:  # at.batch > 0: the errors of the current epoch are not measured yet
        order = _order(train, recipe, rng, at.epoch + 1)
        for one in islice(order, at.batch, at.batch + total - at.step):
            lr = _rate(schedule(at.step))
            optimizer.lr = at.lr = min(lr, recipe.warm_up_lr) if at.warming_up else lr
            images, labels = _batch(train, one)
            batch = augment(images, rng=_draws(rng, at.epoch + 1, at.batch + 1))
            loss = take(batch, labels, at.step + 1)
            at.step, at.batch = at.step + 1, at.batch + 1
            at.loss_sum += loss
            for name in optimizer.saved:
                setattr(at, name, getattr(optimizer, name))
            yield Step(at.step, loss, len(images), at.lr)
        _check_epoch(train, recipe, at, total)
        seen = train if _are_arrays(train) else islice(_order(train, recipe, rng, at.epoch + 1), at.batch)
        tested = test if _are_arrays(test) else _order(test, recipe, rng, at.epoch + 1)
        finite, errors = _measured(model, optimizer, measure, seen, tested)
        if not finite:  # after the last update no loss follows that would show this
            raise NotFinite(f"step {at.step}: the weights are not finite after this step; the mean loss of its epoch "
                            f"was {at.loss_sum / at.batch:.6g}. Try a smaller learning rate than {at.lr:.6g}")
        done = Epoch(at.epoch + 1, at.loss_sum / at.batch, *errors)
        at.epoch, at.batch, at.loss_sum = at.epoch + 1, 0, 0.0
        at.warming_up &= done.train_error >= 80
        yield done


def _rate(lr: Any) -> float:
    """Return what a schedule returned. Raises TypeError or ValueError unless it is a learning rate."""
    if not isinstance(lr, numbers.Real):
        raise TypeError(f"fit, schedule: expected it to return a number, got {type(lr).__name__}")
    if not 0 <= float(lr) < math.inf:
        raise ValueError(f"fit, schedule: expected it to return a finite number >= 0, got {lr}")
    return float(lr)


def _check_epoch(train: Any, recipe: Recipe, at: Progress, total: int) -> None:
    """Raise ValueError if the epoch that ends here had no batch, or not as many as the length of its batches says."""
    if not at.batch:
        raise ValueError(f"fit, train: epoch {at.epoch + 1} has no batch")
    if not _are_arrays(train) and not recipe.steps and at.batch != total // recipe.epochs:
        raise ValueError(f"fit, train: epoch {at.epoch + 1} had {at.batch} batches, and len() says "
                         f"{total // recipe.epochs}; with recipe.steps, the number of updates, no length is needed")


def _check_options(recipe: Any, rng: Any, optimizer: Any, at: Any, model: Any, **functions: Any) -> None:
    """Check the arguments of fit that are not data."""
    for name, value, kind, wanted in (
            ("model", model, nn.Module, "a Module"),
            ("recipe", recipe, Recipe, 'a Recipe, such as recipes.named("demo")'),
            ("rng", rng, np.random.Generator | numbers.Integral, "a numpy.random.Generator or a whole number as seed"),
            ("optimizer", optimizer, Optimizer | None, "an Optimizer, such as optim.SGD(model.parameters(), 0.1)"),
            ("at", at, Progress | None, "a Progress")):
        if not isinstance(value, kind):
            raise TypeError(f"fit, {name}: expected {wanted}, got {type(value).__name__}")
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise TypeError(f"fit, {name}: expected a function, got {type(function).__name__}")
    if optimizer is not None:
        mine = {id(t) for t in model.state().values()}
        if not any(id(p) in mine for p in optimizer.parameters):
            raise ValueError("fit, optimizer: it has no parameter of this model, so nothing would be trained")


def optimizer_of(model: nn.Module, recipe: Recipe) -> Optimizer:
    """Return the recipe's optimiser for the parameters of the model.

    Raises ValueError if the model has no parameter that requires a gradient.
    """
    parameters: Any = model.parameters()
    if not recipe.decay_vectors:
        parameters = optim.decay_matrices_only(parameters)
    if recipe.optimizer == "sgd":
        return optim.SGD(parameters, recipe.lr, recipe.momentum, recipe.weight_decay, recipe.nesterov)
    kind = {"adam": optim.Adam, "adamw": optim.AdamW}[recipe.optimizer]
    return kind(parameters, recipe.lr, (recipe.momentum, recipe.beta2), weight_decay=recipe.weight_decay)


def schedule_of(recipe: Recipe, total: int) -> Schedule:
    """Return the recipe's learning rates for a run of `total` steps, without its warm-up."""
    if recipe.schedule == "cosine":
        return optim.cosine(recipe.lr, total)
    if recipe.schedule == "one-cycle":
        return optim.one_cycle(recipe.lr, max(total, 2))
    return optim.step_decay(recipe.lr, [math.ceil(share * total - 1e-6) for share in recipe.drops])


# ------------------------------------------------------------------------------------------- arrays and batches


ONCE = "give a list, an object whose __iter__ begins again, or a function from the epoch's number to an iterable"


def _are_arrays(data: Any) -> bool:
    """Return whether a data set is (images, labels), and not batches of them."""
    return isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], tuple)


def _order(data: Any, recipe: Recipe, rng: Any, epoch: int) -> Iterator[Any]:
    """Return the batches of an epoch: for arrays their rows."""
    if _are_arrays(data):
        return batches(len(data[0]), recipe.batch_size, rng=_draws(rng, epoch), drop_last=recipe.drop_last)
    one = data(epoch) if callable(data) else data
    if not isinstance(one, Iterable):
        raise TypeError(f"fit: expected the function for batches to return an iterable, got {type(one).__name__}")
    return iter(one)


def _batch(data: Any, one: Any) -> Arrays:
    """Return the images and labels of one batch of _order."""
    if _are_arrays(data):
        images, labels = data
        rows = device.of(images).asarray(one)
        return images[rows], labels[rows]
    try:
        images, labels = one
        if images.ndim and labels.shape[:1] == images.shape[:1] != (0,):
            return images, labels
        given = f"arrays of shapes {tuple(images.shape)} and {tuple(labels.shape)}"
    except (AttributeError, TypeError, ValueError):
        given = type(one).__name__
    raise ValueError(f"fit: expected every batch as (images, labels), two arrays with as many labels as images, got "
                     f"{given}; a whole data set is a tuple (images, labels) of arrays")


def _total_steps(train: Any, recipe: Recipe) -> int:
    if _are_arrays(train):
        return recipe.total_steps(len(train[0]))
    if recipe.drop_last:
        raise ValueError("fit: drop_last has no effect on batches, which train decides itself; set it to False")
    one = train(1) if callable(train) else train
    if not recipe.steps and hasattr(one, "__len__") and not len(one):
        raise ValueError("fit, train: expected at least one batch, got none")
    if not recipe.steps and not hasattr(one, "__len__"):
        raise ValueError("fit, train: batches without a length need recipe.steps, the number of updates; "
                         f"{type(one).__name__} has no __len__")
    return recipe.steps or recipe.epochs * len(one)


def _image_shape(train: Any) -> tuple[int, ...]:
    one = train if _are_arrays(train) else _batch(train, next(iter(train(1) if callable(train) else train)))
    return tuple(one[0].shape[1:])


def _check_labels(any_kind: bool, **sets: Any) -> None:
    """Check the labels of arrays. `any_kind`: whether they may be other arrays than one class for each image."""
    for name, data in sets.items():
        if not _are_arrays(data):
            if not callable(data) and not hasattr(data, "__iter__"):
                hint = ("; a Split holds stored images: give (datasets.to_float(split.images), split.labels)"
                        if hasattr(data, "images") and hasattr(data, "labels") else "")
                raise TypeError(f"fit, {name}: expected (images, labels) or an iterable of such batches, got "
                                f"{type(data).__name__}{hint}")
            if callable(data) and not _takes_epoch(data):
                raise TypeError(f"fit, {name}: expected a function of one argument, the number of an epoch from 1")
            if isinstance(data, Iterator):
                raise ValueError(f"fit, {name}: expected batches that can be read once for each epoch, got a "
                                 f"{type(data).__name__}; {ONCE}")
            continue
        x, y = data
        for what, array, make in ("images", x, "np.stack"), ("labels", y, "np.asarray"):
            if not hasattr(array, "shape"):
                raise TypeError(f"fit, {name}: expected {what} as an array, got {type(array).__name__}; "
                                f"{make} makes one")
        if not len(x):
            raise ValueError(f"fit, {name}: expected at least one image, got none")
        if y.shape[:1] != (len(x),) or (y.ndim != 1 and not any_kind):
            hint = "; for labels of another shape, give loss= and measure=" if y.shape[:1] == (len(x),) else ""
            raise ValueError(f"fit, {name}: expected one label for each of {len(x)} images, got shape {y.shape}{hint}")


def _takes_epoch(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(1)
    except TypeError:
        return False
    except ValueError:  # a function in C, whose signature is not known
        pass
    return True


def _go_on(optimizer: Optimizer, at: Progress, rng: Any) -> None:
    if isinstance(rng, np.random.Generator):
        raise ValueError(f"fit: to resume from step {at.step}, expected rng to be the seed of that run, got a "
                         "Generator, whose earlier state is unknown")
    for name in optimizer.saved:
        mine, theirs = getattr(optimizer, name), getattr(at, name)
        if theirs is None or theirs.shape != mine.shape:
            raise ValueError(f"fit: expected at.{name} of shape {mine.shape} for this model, got "
                             f"{getattr(theirs, 'shape', None)}")
        setattr(optimizer, name, device.of(mine).asarray(theirs, mine.dtype))


def _measured(model: nn.Module, optimizer: Optimizer, measure: Callable[..., float] | None, *sets: Any
              ) -> tuple[bool, list[float]]:
    """Return whether the weights are finite, and each set's error. Fetch one array: every fetch waits for the GPU."""
    xp = optimizer.xp
    finite = xp.isfinite(optimizer.flat).all().reshape(1)
    if measure is not None:
        return bool(finite), [_mean(measure, model, s) for s in sets]
    found = [_tally(model, s) for s in sets]
    there, *tallies = np.split(device.to(xp.concatenate([finite, *(t for t, _ in found)]), "cpu"),
                               range(1, 4 * len(sets), 4))
    return bool(there[0]), [error_of_tally(t, total) for t, (_, total) in zip(tallies, found, strict=True)]


def _tally(model: nn.Module, data: Any) -> tuple[Any, int]:
    """Return the tally of a set, or of its batches together, and the number of its images."""
    if _are_arrays(data):
        return tally(model, *data), len(data[0])
    found, total = None, 0
    for one in data:
        x, y = _batch(None, one)
        new, total = tally(model, x, y), total + len(x)
        if found is not None:
            xp = device.of(new)
            new = xp.stack([found[0] + new[0], xp.minimum(found[1], new[1]), xp.maximum(found[2], new[2]), new[3]])
        found = new
    if found is None:
        raise ValueError("fit, test: expected at least one batch, got none")
    return found, total


def _mean(measure: Callable[..., float], model: nn.Module, data: Any) -> float:
    """Return the measure of a set, or the mean over its batches, weighted by their numbers of images."""
    total, images = 0.0, 0
    for part in [data] if _are_arrays(data) else (_batch(None, one) for one in data):
        value = measure(model, *part)
        if not isinstance(value, numbers.Real):
            raise TypeError(f"fit, measure: expected it to return a number, got {type(value).__name__}; float(value) "
                            "makes one from an array or a Tensor with one element")
        total, images = total + float(value) * len(part[0]), images + len(part[0])
    if not images:
        raise ValueError("fit, test: expected at least one batch, got none")
    return total / images


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


def step(model: nn.Module, optimizer: Optimizer, images: Any, labels: Any, number: int = 1, *,
         loss: Loss | None = None, clip: float = 0.0) -> float:
    """Run one training step, which is forward, backward and update, and return the loss.

    images: (N, C, H, W)
    labels: (N,)
    number: the step's number, for error messages
    loss: `loss(output, labels)` returns a Tensor with one number, instead of the cross-entropy
    clip: the largest norm of all gradients together, as for optim.clip_gradients; 0: no limit

    Raises NotFinite if the loss is NaN or infinite; the model is then unchanged.
    Raises TypeError if the loss is not a Tensor with one number.
    """
    model.resume_training()
    optimizer.zero_grad()
    running = [(t, t.data) for t in model.state().values() if not t.requires_grad]
    with np.errstate(over="ignore", invalid="ignore"):  # the error below names the layer
        found = check_loss("step", (loss or ops.cross_entropy)(model(Tensor(images)), labels))
    value = found.item()
    if not math.isfinite(value):
        for t, data in running:  # BatchNorm replaces the arrays of its statistics, so these hold the old values
            t.data = data
        raise _not_finite(number, value, model, images, optimizer.lr)
    with np.errstate(over="ignore", invalid="ignore"):  # the loss of the next step shows it
        found.backward()
        if clip:
            optim.clip_gradients(optimizer.parameters, clip)
        optimizer.step()
    return value


def graphed_step(model: nn.Module, optimizer: Optimizer, batch_size: int, *, loss: Loss | None = None,
                 clip: float = 0.0) -> Callable[[Any, Any, int], float]:
    """Return `step` for this model and optimiser as one CUDA graph, which the first full batch records."""
    recorded: GraphedStep | None = None

    def take(images: Any, labels: Any, number: int) -> float:
        nonlocal recorded
        if recorded is None and len(images) < batch_size:
            return step(model, optimizer, images, labels, number, loss=loss, clip=clip)
        with np.errstate(over="ignore", invalid="ignore"):  # the error below reports it
            recorded = recorded or GraphedStep(model, optimizer, images, labels, loss=loss, clip=clip)
            value = float(recorded(images, labels))
        if not math.isfinite(value):
            raise _not_finite(number, value, model, images, optimizer.lr)
        return value

    return take


def _not_finite(number: int, loss: float, model: nn.Module, images: Any, lr: float) -> NotFinite:
    """Return the error for a model that is unchanged by this step."""
    return NotFinite(f"step {number}: the loss is {loss}, expected a finite number; the first non-finite values are in "
                     f"{first_not_finite(model, images)}. Try a smaller learning rate than {lr:.6g}, or check the "
                     "input")


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
