"""The tasks of A6, plain against residual."""
from __future__ import annotations

from typing import Any

import numpy as np

from .networks import MEASUREMENTS, settings
from .task import Case, Task

Rng = np.random.Generator


def images(rng: Rng, n: int, height: int, width: int) -> dict[str, Any]:
    """Draw images as a network takes them, and labels."""
    return {"x": rng.standard_normal((n, 1, height, width)), "labels": rng.integers(0, 4, n)}


def stored(rng: Rng, n: int, height: int, width: int, bright: float) -> np.ndarray:
    """Draw images as they are stored, the brighter the larger `bright` is, from 0 to 1."""
    return (rng.integers(0, 256, (n, height, width)) * bright + 255 * (1 - bright) * rng.random()).astype(np.uint8)


# ------------------------------------------------------------------------------------------------ 6.1


def prepare_visible(rng: Rng) -> list[Case]:
    """Two pairs of sets that differ in size, shape and brightness."""
    return [Case("5 training and 3 test images of 4x6", {"train_images": stored(rng, 5, 4, 6, 1.0),
                                                         "test_images": stored(rng, 3, 4, 6, 0.5)}),
            Case("2 training and 7 test images of 5x3", {"train_images": stored(rng, 2, 5, 3, 0.6),
                                                         "test_images": stored(rng, 7, 5, 3, 0.9)})]


def prepare_hidden(rng: Rng) -> list[Case]:
    """A single training image, many images, and arrays that are not contiguous in memory."""
    return [Case("1 training image", {"train_images": stored(rng, 1, 3, 4, 1.0),
                                      "test_images": stored(rng, 2, 3, 4, 1.0)}),
            Case("400 training images", {"train_images": stored(rng, 400, 3, 2, 0.3),
                                         "test_images": stored(rng, 5, 3, 2, 0.8)}),
            Case("images that are not contiguous in memory", {"train_images": stored(rng, 6, 5, 8, 0.7)[::2, :, ::2],
                                                              "test_images": stored(rng, 4, 4, 5, 1.0).swapaxes(1, 2)})]


# ------------------------------------------------------------------------------------------------ 6.2


def pair_of(rng: Rng, depth: int, width: int, n: int, height: int, image_width: int) -> dict[str, Any]:
    """Draw the inputs of a pair."""
    return {"depth": depth, "width": width, "seed": int(rng.integers(1 << 30)),
            "x": rng.standard_normal((n, 1, height, image_width))}


def pair_visible(rng: Rng) -> list[Case]:
    """Two sizes."""
    return [Case("depth 8, width 3", pair_of(rng, 8, 3, 3, 8, 8)),
            Case("depth 14, width 2", pair_of(rng, 14, 2, 2, 6, 9))]


def pair_hidden(rng: Rng) -> list[Case]:
    """Other sizes."""
    return [Case("depth 20, width 2", pair_of(rng, 20, 2, 2, 7, 7)),
            Case("depth 8, width 5", pair_of(rng, 8, 5, 4, 9, 5))]


# ------------------------------------------------------------------------------------------ 6.3 and 6.4


def steps(rng: Rng, shape: tuple[int, ...], lr: list[float], momentum: float, weight_decay: float) -> dict[str, Any]:
    """Draw a weight, its velocity, and one gradient for each learning rate."""
    return {"w": rng.standard_normal(shape), "g": rng.standard_normal((len(lr), *shape)),
            "v": rng.standard_normal(shape), "lr": lr, "momentum": momentum, "weight_decay": weight_decay}


def sgd_visible(rng: Rng) -> list[Case]:
    """Several steps, so that the velocity and a new learning rate count."""
    return [Case("three steps, the learning rate drops", steps(rng, (4, 3), [0.3, 0.3, 0.03], 0.8, 0.25)),
            Case("two steps, momentum 0.5", steps(rng, (5,), [0.2, 0.1], 0.5, 0.4))]


def sgd_hidden(rng: Rng) -> list[Case]:
    """Without momentum, without weight decay, a filter's shape, and float32."""
    single = {name: value.astype(np.float32) if isinstance(value, np.ndarray) else value
              for name, value in steps(rng, (3, 2), [0.1, 0.2], 0.9, 0.3).items()}
    return [Case("no momentum", steps(rng, (6,), [0.3, 0.2], 0.0, 0.5)),
            Case("no weight decay", steps(rng, (2, 4), [0.2, 0.4, 0.1], 0.9, 0.0)),
            Case("weights of shape (3, 2, 3, 3)", steps(rng, (3, 2, 3, 3), [0.1, 0.05], 0.7, 0.3)),
            Case("float32", single)]


def learning_rate_visible(rng: Rng) -> list[Case]:
    """With a warm-up and without."""
    return [Case("warm-up of 3 steps, drops at 6 and 9", {"steps": 12, "base": float(rng.uniform(0.05, 0.5)),
                                                          "warm_up": 3, "drops": [6, 9]}),
            Case("no warm-up, a drop at 4", {"steps": 7, "base": float(rng.uniform(0.05, 0.5)), "warm_up": 0,
                                             "drops": [4]})]


def learning_rate_hidden(rng: Rng) -> list[Case]:
    """No drops, drops one step apart, and drops in a tuple."""
    base = float(rng.uniform(0.05, 0.5))
    return [Case("no drops", {"steps": 5, "base": base, "warm_up": 2, "drops": []}),
            Case("drops at 3, 4 and 8", {"steps": 10, "base": base, "warm_up": 1, "drops": [3, 4, 8]}),
            Case("drops in a tuple", {"steps": 9, "base": base, "warm_up": 0, "drops": (2, 5)})]


# ------------------------------------------------------------------------------------------------ 6.5


def epoch_of(rng: Rng, net: dict[str, Any], n: int, size: tuple[int, int], batch_size: int, epochs: int
             ) -> dict[str, Any]:
    """Draw the inputs of a training."""
    return {"net": net, **images(rng, n, *size), "batch_size": batch_size, "seed": int(rng.integers(1 << 30)),
            "epochs": epochs}


def train_epoch_visible(rng: Rng) -> list[Case]:
    """A short last batch and a network in eval mode; and two epochs of full batches."""
    return [Case("11 images, batches of 4, network in eval mode before",
                 epoch_of(rng, settings(rng, 8, 2, True, "eval"), 11, (8, 8), 4, 1)),
            Case("two epochs of 6 images, batches of 3",
                 epoch_of(rng, settings(rng, 8, 3, False, "train"), 6, (6, 8), 3, 2))]


def train_epoch_hidden(rng: Rng) -> list[Case]:
    """A last batch of one image, and a batch larger than the set."""
    return [Case("9 images, batches of 4", epoch_of(rng, settings(rng, 8, 2, False, "eval"), 9, (8, 6), 4, 1)),
            Case("two epochs of 5 images, batches of 3",
                 epoch_of(rng, settings(rng, 8, 2, True, "train"), 5, (8, 8), 3, 2)),
            Case("5 images, batches of 8", epoch_of(rng, settings(rng, 8, 3, True, "train"), 5, (6, 6), 8, 1))]


# ------------------------------------------------------------------------------------------------ 6.6


def error_of(rng: Rng, net: dict[str, Any], n: int, size: tuple[int, int], batch_size: int) -> dict[str, Any]:
    """Draw the inputs of a measurement: the network is right about two thirds of the images, and not about all of the
    last batch."""
    right = rng.random(n) < 0.7
    right[-1] = False
    return {"net": net, **images(rng, n, *size), "right": right, "batch_size": batch_size}


def error_visible(rng: Rng) -> list[Case]:
    """Networks in train mode, in eval mode, and in both; then two sets at once."""
    return [Case("31 images, batches of 9, network in train mode before",
                 error_of(rng, settings(rng, 8, 2, True, "train"), 31, (8, 8), 9)),
            Case("27 images, batches of 8, some layers in eval mode before",
                 error_of(rng, settings(rng, 8, 3, False, "mixed"), 27, (6, 8), 8)),
            Case("17 training and 20 test images",
                 {**error_of(rng, settings(rng, 8, 3, True, "train"), 37, (8, 8), 6), "first_test": 17}, "errors")]


def error_hidden(rng: Rng) -> list[Case]:
    """Other networks, one batch, and batches of one image."""
    return [Case("network in eval mode before", error_of(rng, settings(rng, 8, 2, False, "eval"), 22, (8, 8), 7)),
            Case("network in train mode before, batches of 1",
                 error_of(rng, settings(rng, 8, 2, True, "train"), 9, (8, 6), 1)),
            Case("one batch, some layers in eval mode before",
                 error_of(rng, settings(rng, 8, 3, True, "mixed"), 30, (8, 8), 50)),
            Case("20 training and 11 test images",
                 {**error_of(rng, settings(rng, 8, 2, False, "train"), 31, (8, 8), 7), "first_test": 20}, "errors")]


# ------------------------------------------------------------------------------------------------ 6.7


def norms_of(rng: Rng, net: dict[str, Any], n: int, size: tuple[int, int], gradients: bool) -> dict[str, Any]:
    """Draw the inputs of a measurement of gradients."""
    return {"net": net, **images(rng, n, *size), "gradients": gradients}


def gradient_norms_visible(rng: Rng) -> list[Case]:
    """A residual network in eval mode, and a plain one in train mode."""
    return [Case("residual network in eval mode before, with gradients of a step",
                 norms_of(rng, settings(rng, 8, 2, True, "eval"), 6, (8, 8), True)),
            Case("plain network in train mode before, with gradients of a step",
                 norms_of(rng, settings(rng, 8, 3, False, "train"), 5, (6, 8), True))]


def gradient_norms_hidden(rng: Rng) -> list[Case]:
    """A network without gradients, and one with projections and layers in eval mode."""
    return [Case("network without gradients before",
                 norms_of(rng, settings(rng, 8, 3, True, "train"), 4, (8, 8), False)),
            Case("network with projections, some layers in eval mode before",
                 norms_of(rng, settings(rng, 8, 2, True, "mixed", "B"), 7, (8, 6), True))]


TASKS = [
    Task("a6.1", "prepare", 10, ("prepare",), "prepare", prepare_visible, prepare_hidden),
    Task("a6.2", "pair", 15, ("pair",), "pair", pair_visible, pair_hidden, minires=True),
    Task("a6.3", "sgd", 8, ("sgd",), "sgd", sgd_visible, sgd_hidden),
    Task("a6.4", "learning_rate", 7, ("learning_rate",), "learning_rate", learning_rate_visible, learning_rate_hidden),
    Task("a6.5", "train_epoch", 20, ("train_epoch",), "train_epoch", train_epoch_visible, train_epoch_hidden,
         minires=True, withheld=MEASUREMENTS),
    Task("a6.6", "error and errors", 10, ("error", "errors"), "error", error_visible, error_hidden, minires=True,
         withheld=MEASUREMENTS),
    Task("a6.7", "gradient_norms", 15, ("gradient_norms",), "gradient_norms", gradient_norms_visible,
         gradient_norms_hidden, minires=True, withheld=MEASUREMENTS),
]
