"""How many images a network gets right: logits, tallies, scores, and the error in percent."""
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
    """What a network got right."""

    correct: int
    total: int
    per_class: dict[str, tuple[int, int]]  # class: (correct, of how many images)
    seconds: float                         # that the network took

    @property
    def error(self) -> float:
        """Percent of the images that were classified wrongly."""
        return error_percent(self.total - self.correct, self.total)

    @property
    def images_per_second(self) -> float:
        """How fast the network was."""
        return self.total / self.seconds


def error_percent(wrong: int, total: int) -> float:
    """Give the error in percent of `total` answers of which `wrong` are wrong.

    Raises ValueError where `total` is not positive or `wrong` is not between 0 and `total`.
    """
    if not 0 <= wrong <= total or total < 1:
        raise ValueError(f"error_percent: expected 0 <= wrong <= total and total >= 1, got {wrong} of {total}")
    return 100 * (int(wrong) / total)


def error(model: nn.Module, images: Any, labels: Any, batch_size: int = 500) -> float:
    """Percent of `images` that the model classifies wrongly, in eval mode; its modes are left as they were."""
    return error_of_tally(device.to(tally(model, images, labels, batch_size), "cpu"), len(images))


def logits(model: nn.Module, images: Any, batch_size: int = 500, *, each: Callable[[int], Any] | None = None) -> Any:
    """The model's output (N, K) for images (N, C, H, W), in eval mode; its modes are left as they were.

    `each(n)` is called after every batch with the number of its images. ValueError without images.
    """
    if len(images) == 0:
        raise ValueError("error: expected at least one image, got an empty set")
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
    """(N,) booleans, on the CPU: is the label's logit the highest? Integer labels (N,); ValueError for one that is not
    in 0..K-1."""
    _check(images, labels)
    return _right(logits(model, images, batch_size, each=each), labels)


def _right(found: Any, labels: Any) -> Any:
    # Both in one array: a GPU has to be waited for only once.
    predicted, labels = device.to(device.of(labels).stack([found.argmax(1), labels.astype(np.int64)]), "cpu")
    _check_range(labels.min(), labels.max(), found.shape[1])
    return predicted == labels


def tally(model: nn.Module, images: Any, labels: Any, batch_size: int = 500) -> Any:
    """(4,) integers for `error_of_tally`: wrong answers, lowest label, highest label, number of classes. They are still
    where the images are: several tallies, joined, are fetched from a GPU at once."""
    _check(images, labels)
    found, labels = logits(model, images, batch_size), labels.astype(np.int64)
    xp, wrong = device.of(found, labels), (found.argmax(1) != labels).sum()
    return xp.stack([wrong, labels.min(), labels.max(), xp.full((), found.shape[1], np.int64)])


def error_of_tally(numbers: np.ndarray, total: int) -> float:
    """The error in percent, from a fetched tally of `total` images; ValueError for labels that are not in 0..K-1."""
    wrong, lowest, highest, classes = numbers.tolist()
    _check_range(lowest, highest, classes)
    return error_percent(wrong, total)


def _check(images: Any, labels: Any) -> None:
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise ValueError(f"error: expected one label for each of {len(images)} images, an integer, got "
                         f"{labels.dtype}{labels.shape}")


def _check_range(lowest: int, highest: int, classes: int) -> None:
    if lowest < 0 or highest >= classes:
        raise ValueError(f"error: expected labels in 0..{classes - 1}, got {lowest if lowest < 0 else highest}")


def score(model: nn.Module, images: Any, labels: Any, classes: Sequence[str], batch_size: int = 500, *,
          progress: bool = False) -> Score:
    """Count what `model` gets right, of each class too; labels (N,) are indices into `classes`.

    With `progress`, a bar runs on stderr where that is a terminal, and in Jupyter.
    """
    from tqdm.auto import tqdm
    _check(images, labels)
    began = time.perf_counter()
    with tqdm(total=len(images), unit=" images", disable=None if progress else True) as bar:
        found = logits(model, images, batch_size, each=bar.update)
        right = _right(found, labels)
    seconds = time.perf_counter() - began
    if lost := int((~device.of(found).isfinite(found).all(1)).sum()):
        raise ArithmeticError(f"score: the network's output is not finite for {lost} of {len(right)} images; are its "
                              "weights damaged, or normalised otherwise than its input?")
    labels = device.to(labels, "cpu")
    per_class = {name: (int(right[labels == k].sum()), int((labels == k).sum())) for k, name in enumerate(classes)}
    return Score(int(right.sum()), len(right), per_class, seconds)
