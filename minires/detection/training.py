"""The recipes, and the loop that trains a classifier of patches, a detector, and a segmentation network.

    classification   pre-training: a CIFAR network learns to classify 28x28 patches that look like parts of scenes
    detection        a FasterRCNN on the pre-trained network
    segmentation     an FCN on the pre-trained network

A scene is used once, so there are no epochs and no augmentation. What step k uses depends on the seed and on k alone,
so a training that resumes at step k continues with the same bits.
"""
from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from .. import device, kernels, models, ops, optim
from ..datasets import batches, epoch_rng, patches, scenes
from ..evaluate import error
from ..names import unknown
from ..tensor import Tensor
from ..train import Progress, Step, step
from ..weights import load_weights
from .backbone import inputs
from .faster_rcnn import FasterRCNN
from .measures import average_precision, localisation_errors, mean_iou
from .segmentation import FCN

KINDS: dict[str, Any] = {"classification": models.CifarNet, "detection": FasterRCNN, "segmentation": FCN}
TASKS = tuple(KINDS)
CLASSES = 10
TRAIN_PATCHES, TEST_PATCHES = 10_000, 2_000  # one for each article


@dataclass(frozen=True)
class Recipe:
    """Says how to train.

    Raises TypeError if a number is of another type, and ValueError if it is out of its range.
    """

    images: int            # number of scenes or patches in all; for patches, 10,000 are an epoch
    batch_size: int = 8
    lr: float = 0.02       # of the trained stages; the models' groups() has the factors of the new layers
    warm_up: int = 20      # steps in which lr rises linearly
    drop: float = 0.65     # fraction of the steps after which lr is divided by 10; 1: lr falls along a cosine to 0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip: float = 0.0      # largest norm of all gradients together; 0: no limit

    def __post_init__(self) -> None:
        for field in fields(self):
            whole, value = field.type == "int", getattr(self, field.name)
            if not isinstance(value, numbers.Integral if whole else numbers.Real) or isinstance(value, bool):
                raise TypeError(f"recipe: {field.name}: expected a {'whole ' * whole}number, got {value!r}")
        if self.batch_size < 1:
            raise ValueError(f"recipe: expected batch_size from 1, got {self.batch_size}")
        if self.images < self.batch_size:
            raise ValueError(f"recipe: expected images from {self.batch_size}, which are one batch, got "
                             f"{self.images}")
        for name in "lr", "warm_up", "momentum", "weight_decay", "clip":
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"recipe: expected {name} from 0 and finite, got {getattr(self, name)}")
        if not 0 < self.drop <= 1 or self.momentum >= 1:
            raise ValueError("recipe: expected drop above 0 and at most 1, and momentum below 1, got "
                             f"{self.drop} and {self.momentum}")

    @property
    def steps(self) -> int:
        """The number of updates. A last batch that would be smaller is left out."""
        return self.images // self.batch_size

    def lr_at(self, number: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        if self.drop == 1:
            lr = optim.cosine(self.lr, self.steps)(number)
        else:
            lr = optim.step_decay(self.lr, [round(self.drop * self.steps)])(number)
        return lr * min(1.0, (number + 1) / self.warm_up) if self.warm_up else lr


RECIPES = {
    "classification": Recipe(images=10 * TRAIN_PATCHES, batch_size=50, lr=0.05, warm_up=0, drop=1),
    "detection": Recipe(images=4800),
    "segmentation": Recipe(images=6400, lr=0.05),
}


def build(task: str, backbone: str, *, weights: Any = None, width: int = 8, rng: np.random.Generator) -> Any:
    """Build the network for a task: a CifarNet, a FasterRCNN or an FCN.

    backbone: the name of a CIFAR network, such as "resnet20"
    weights: a file with the classifier's weights, from which the training starts; None: weights drawn from `rng`
    rng: draws the weights of the new layers

    Raises ValueError for an unknown task or network, and for weights that do not fit.
    """
    if task not in TASKS:
        raise unknown("task", task, TASKS)
    net: Any = models.build(backbone, in_channels=1, num_classes=CLASSES, width=width, rng=rng)
    if weights is not None:
        load_weights(net, weights)
    if task == "classification":
        return net
    return KINDS[task](net, CLASSES, rng=rng)


def fit(task: str, model: Any, recipe: Recipe, *, seed: int, at: Progress | None = None) -> Iterator[Step]:
    """Train `model` in place, and yield a Step after every update.

    seed: decides which scenes are used, and which anchors and regions are drawn
    at: is updated before every yield. If it is not at the start, training resumes from it; this needs the model's state
        at that point.

    Raises TypeError for a model of another task.
    Raises ValueError for a progress that does not belong to this model and recipe.
    Raises NotFinite if the loss is not finite; the model is then as before that step.
    """
    if task not in TASKS:
        raise unknown("task", task, TASKS)
    if not isinstance(model, KINDS[task]):
        raise TypeError(f"fit: {task}: expected a {KINDS[task].__name__}, got {type(model).__name__}")
    if task == "classification" and recipe.batch_size > TRAIN_PATCHES:
        raise ValueError(f"fit: batch_size: expected at most {TRAIN_PATCHES}, the number of patches, got "
                         f"{recipe.batch_size}")
    at = Progress() if at is None else at
    if not 0 <= at.step <= recipe.steps:
        raise ValueError(f"fit: expected at.step from 0 to {recipe.steps}, the steps of the recipe, got {at.step}")
    groups = [optim.Group(model.parameters())] if task == "classification" else model.groups()
    optimizer = optim.SGD(groups, recipe.lr, recipe.momentum, recipe.weight_decay)
    if at.step:
        if getattr(at.velocity, "shape", None) != optimizer.flat.shape:
            raise ValueError(f"fit: expected at.velocity of shape {optimizer.flat.shape} for this model, got "
                             f"{getattr(at.velocity, 'shape', None)}")
        optimizer.velocity = device.of(optimizer.flat).asarray(at.velocity, optimizer.flat.dtype)
    with kernels.session():
        while at.step < recipe.steps:
            images, labels, loss = _batch(task, model, recipe, seed, at.step)
            optimizer.lr = recipe.lr_at(at.step)
            images = device.of(optimizer.flat).asarray(images)
            value = step(model, optimizer, images, labels, at.step + 1, loss=loss, clip=recipe.clip)
            at.step, at.lr, at.velocity = at.step + 1, optimizer.lr, optimizer.velocity
            yield Step(at.step, value, len(images), optimizer.lr)


def _batch(task: str, model: Any, recipe: Recipe, seed: int, number: int
           ) -> tuple[np.ndarray, Any, Callable[[Tensor, Any], Tensor]]:
    """Return the images and the labels of a step, and the loss as a function of the model's output and the labels."""
    if task != "classification":
        found = scenes(recipe.batch_size, seed, "train", first=recipe.batch_size * number)
        return inputs(found.images), found, partial(model.loss, rng=epoch_rng(seed, number))
    epoch, batch = divmod(number, TRAIN_PATCHES // recipe.batch_size)
    order = batches(TRAIN_PATCHES, recipe.batch_size, rng=epoch_rng(seed, epoch))
    split = patches(next(islice(order, batch, None)), "train", rng=epoch_rng(seed, epoch, batch))
    labels = device.of(next(iter(model.state().values())).data).asarray(split.labels)
    return inputs(split.images), labels, ops.cross_entropy


def score(task: str, model: Any, *, count: int = 300, seed: int = 0) -> dict[str, float]:
    """Return what a trained model reaches on held-back scenes or patches, as {name: number}.

    count, seed: of the test scenes; patches are always the same 2,000

    Errors are in percent; AP and IoU are from 0 to 1.

    Raises TypeError for a model of another task, and ValueError if no scene has exactly one object, which the
    localisation error is measured on.
    """
    if task not in KINDS or not isinstance(model, KINDS[task]):
        raise TypeError(f"score: expected a task of {', '.join(TASKS)}, and its model, got {task!r} and "
                        f"{type(model).__name__}")
    xp = device.of(next(iter(model.state().values())).data)
    if task == "classification":
        split = patches(np.arange(TEST_PATCHES), "test", rng=np.random.default_rng(seed))
        return {"error": error(model, xp.asarray(inputs(split.images)), xp.asarray(split.labels))}
    held_back = scenes(count, seed, "test")
    images = xp.asarray(inputs(held_back.images))
    if task == "segmentation":
        assert held_back.masks is not None
        predicted = model.predict(images)
        mean, _ = mean_iou(predicted, held_back.masks, 1 + CLASSES)
        _, two = mean_iou((predicted > 0).astype(np.uint8), (held_back.masks > 0).astype(np.uint8), 2)
        return {"mean_iou": mean, "article_iou": float(two[1])}
    detections = model.detect(images)
    found, place = average_precision(detections, held_back), localisation_errors(detections, held_back)
    return {"ap50": found.ap(0.5), "ap75": found.ap(0.75), "ap": found.ap(),
            **{f"ap_{name}": found.ap(area=name) for name in ("small", "medium", "large")},
            "localisation_scenes": place.scenes, "localisation_class_predicted": place.class_predicted,
            "localisation_class_given": place.class_given, "localisation_box_alone": place.box_alone}
