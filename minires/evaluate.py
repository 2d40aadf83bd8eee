"""Measure how many images a network classifies correctly: logits, tallies, scores, and the error in percent."""
from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import device, kernels, nn
from .tensor import Tensor, no_grad


@dataclass(frozen=True)
class Score:
    """Counts the images that a network classified correctly."""

    correct: int
    total: int
    per_class: dict[str, tuple[int, int]]  # {class: (correct images, all images)}
    seconds: float                         # the time that the network took

    @property
    def error(self) -> float:
        """The percentage of the images that were classified wrongly."""
        return error_percent(self.total - self.correct, self.total)

    @property
    def images_per_second(self) -> float:
        """The number of images that the network classified per second."""
        return self.total / self.seconds


def error_percent(wrong: int, total: int) -> float:
    """Return the error in percent, if `wrong` of `total` answers are wrong.

    Raises ValueError if `total` is not positive or `wrong` is not between 0 and `total`.
    """
    if not 0 <= wrong <= total or total < 1:
        raise ValueError(f"error_percent: expected 0 <= wrong <= total and total >= 1, got {wrong} of {total}")
    return 100 * int(wrong) / total  # 31.82, where 100 * (wrong / total) is 31.819999999999997


def error(model: nn.Module, images: Any, labels: Any, batch_size: int = 500) -> float:
    """Return the percentage of `images` that the model classifies wrongly in eval mode.

    images: (N, C, H, W)
    labels: (N,) integers in 0..K-1

    Afterwards every layer has its former mode again.

    Raises ValueError for no images, for labels of another shape or dtype, and for labels that are not in 0..K-1.
    """
    return error_of_tally(device.to(tally(model, images, labels, batch_size), "cpu"), len(images))


def logits(model: nn.Module, images: Any, batch_size: int = 500, *, each: Callable[[int], Any] | None = None) -> Any:
    """Return the model's output in eval mode.

    images: (N, C, H, W)
    each: a function that is called after every batch with the number of the batch's images
    result: (N, K), where the images are

    Afterwards every layer has its former mode again.

    Raises ValueError if there are no images.
    """
    if len(images) == 0:
        raise ValueError("evaluate: expected at least one image, got none")
    parts = []
    with nn.modes_kept(model), no_grad(), kernels.session(), np.errstate(over="ignore", invalid="ignore"):
        model.eval()
        for i in range(0, len(images), batch_size):
            parts.append(model(Tensor(images[i:i + batch_size])).data)
            if each is not None:
                each(len(parts[-1]))
    return device.of(images).concatenate(parts)


def is_right(model: nn.Module, images: Any, labels: Any, batch_size: int = 500, *,
             each: Callable[[int], Any] | None = None) -> Any:
    """Return for each image whether the logit of its label is the highest.

    images: (N, C, H, W)
    labels: (N,) integers in 0..K-1
    each: a function that is called after every batch with the number of the batch's images
    result: (N,) booleans, on the CPU

    Raises ValueError for no images, for labels of another shape or dtype, and for labels that are not in 0..K-1.
    """
    _check(images, labels)
    return _right(logits(model, images, batch_size, each=each), labels)


def _right(found: Any, labels: Any) -> Any:
    # One array holds both, because each transfer from a GPU waits for the GPU.
    predicted, labels = device.to(device.of(labels).stack([found.argmax(1), labels.astype(np.int64)]), "cpu")
    _check_range(labels.min(), labels.max(), found.shape[1])
    return predicted == labels


def tally(model: nn.Module, images: Any, labels: Any, batch_size: int = 500) -> Any:
    """Return the numbers that `error_of_tally` needs: wrong answers, lowest label, highest label, number of classes.

    images: (N, C, H, W)
    labels: (N,) integers
    result: (4,) integers, where the images are, so that several tallies can be joined and fetched from a GPU at once

    Raises ValueError for no images and for labels of another shape or dtype. error_of_tally checks the labels' range.
    """
    _check(images, labels)
    found, labels = logits(model, images, batch_size), labels.astype(np.int64)
    xp, wrong = device.of(found, labels), (found.argmax(1) != labels).sum()
    return xp.stack([wrong, labels.min(), labels.max(), xp.full((), found.shape[1], np.int64)])


def error_of_tally(numbers: np.ndarray, total: int) -> float:
    """Return the error in percent from the tally of `total` images, which is on the CPU.

    Raises ValueError for labels that are not in 0..K-1.
    """
    wrong, lowest, highest, classes = numbers.tolist()
    _check_range(lowest, highest, classes)
    return error_percent(wrong, total)


def _check(images: Any, labels: Any) -> None:
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise ValueError(f"evaluate: expected one label for each of {len(images)} images, an integer, got "
                         f"{labels.dtype}{labels.shape}")


def _check_range(lowest: int, highest: int, classes: int) -> None:
    if lowest < 0 or highest >= classes:
        raise ValueError(f"evaluate: expected labels in 0..{classes - 1}, got {lowest if lowest < 0 else highest}")


def score(model: nn.Module, images: Any, labels: Any, classes: Sequence[str], batch_size: int = 500, *,
          progress: bool = False) -> Score:
    """Count the images that `model` classifies correctly, in all and for each class.

    images: (N, C, H, W)
    labels: (N,) integers, indices into `classes`
    progress: whether to show a progress bar, in Jupyter or on stderr if stderr is a terminal

    Raises ValueError for no images, for labels of another shape or dtype, and for labels that are not in 0..K-1.
    Raises ArithmeticError if an output of the network is not finite.
    """
    from tqdm.auto import tqdm
    _check(images, labels)
    began = time.perf_counter()
    with tqdm(total=len(images), unit=" images", disable=None if progress else True) as bar:
        found = logits(model, images, batch_size, each=bar.update)
        right = _right(found, labels)
    seconds = time.perf_counter() - began
    if lost := int((~device.of(found).isfinite(found).all(1)).sum()):
        raise ArithmeticError(f"score: the network's output is not finite for {lost} of {len(right)} images. Check "
                              "the file of the weights, and give the normalisation that the network was trained with")
    labels = device.to(labels, "cpu")
    per_class = {name: (int(right[labels == k].sum()), int((labels == k).sum())) for k, name in enumerate(classes)}
    return Score(int(right.sum()), len(right), per_class, seconds)
