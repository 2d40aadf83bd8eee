"""One part of a data set: images, labels, and what the labels mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)  # == of two arrays is an array, so equality of splits has no plain answer
class Split:
    """The training or the test part of a data set.

    ``images`` are uint8 of shape (N, H, W) or (N, H, W, C), ``labels`` uint8 of shape (N,), each label an
    index into ``classes``. Raises TypeError or ValueError where they are not.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        for name, array in (("images", self.images), ("labels", self.labels)):
            if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
                given = getattr(array, "dtype", type(array).__name__)
                raise TypeError(f"Split: {name}: expected a uint8 NumPy array, got {given}")
        if self.images.ndim not in (3, 4) or self.images.size == 0:
            raise ValueError(
                "Split: images: expected shape (N, H, W) or (N, H, W, C) with no extent of 0, "
                f"got {self.images.shape}"
            )
        if self.labels.shape != (len(self.images),):
            raise ValueError(
                f"Split: labels: expected shape ({len(self.images)},), one label for each image, "
                f"got {self.labels.shape}"
            )
        if not isinstance(self.classes, tuple) or not all(isinstance(name, str) for name in self.classes):
            raise TypeError(f"Split: classes: expected a tuple of str, got {self.classes!r}")
        highest = int(self.labels.max())
        if highest >= len(self.classes):
            raise ValueError(
                f"Split: labels: expected numbers below {len(self.classes)}, the number of classes, "
                f"got {highest} at index {int(self.labels.argmax())}"
            )

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    def __getitem__(self, rows: slice) -> Split:
        """The images of a slice, for example ``train[:1000]``."""
        if not isinstance(rows, (slice, np.ndarray)):
            raise TypeError(f"Split: expected a slice, as in split[:1000], got {rows!r}; one image is split.images[i]")
        return Split(self.images[rows], self.labels[rows], self.classes)


def read_only(array: np.ndarray) -> np.ndarray:
    """The array itself: a careless in-place change would spoil every later experiment."""
    array.setflags(write=False)
    return array
