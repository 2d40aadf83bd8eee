"""Define one part of a data set: images, labels, and the names of the classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..names import counted


@dataclass(frozen=True, eq=False)  # eq=False: == of two arrays is an array, not a bool
class Split:
    """Holds the training or the test part of a data set.

    images: uint8 (N, H, W) or (N, H, W, C)
    labels: uint8 (N,), each an index into ``classes``
    classes: a tuple of the classes' names

    Raises TypeError for arguments of another type or dtype.
    Raises ValueError for other shapes, for no images, and for a label that is not an index into ``classes``.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        for name, array in (("images", self.images), ("labels", self.labels)):
            if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
                given = getattr(array, "dtype", type(array).__name__)
                whole = isinstance(array, (list, tuple)) or getattr(given, "kind", "") in tuple("biu")
                hint = f"; np.asarray({name}, np.uint8) makes one of whole numbers from 0 to 255" if whole else ""
                raise TypeError(f"Split: {name}: expected a uint8 NumPy array, got {given}{hint}")
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
            raise TypeError(f"Split: classes: expected a tuple of str, got {str(self.classes)[:200]}")
        highest = int(self.labels.max())
        if highest >= len(self.classes):
            raise ValueError(
                f"Split: labels: expected numbers below {len(self.classes)}, the number of classes, "
                f"got {highest} at index {int(self.labels.argmax())}"
            )

    def __repr__(self) -> str:
        """Return counts and names, not the arrays: "Split(180 images of 20 x 20 x 3; 3 classes: cat, dog, owl)"."""
        some = ", ".join(self.classes[:10]) + ", ..." * (len(self.classes) > 10)
        classes = f"{len(self.classes)} class{'es' * (len(self.classes) != 1)}"
        size = " x ".join(map(str, self.images.shape[1:]))
        return f"Split({counted(len(self), 'image')} of {size}; {classes}: {some})"

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, rows: slice) -> Split:
        """Return the images and labels of a slice or an index array, for example ``train[:1000]``."""
        if not isinstance(rows, (slice, np.ndarray)):
            raise TypeError(f"Split: expected a slice, as in split[:1000], got {rows!r}; one image is split.images[i]")
        return Split(self.images[rows], self.labels[rows], self.classes)


def read_only(array: np.ndarray) -> np.ndarray:
    """Make an array read-only and return it, so that no in-place change can spoil later experiments."""
    array.setflags(write=False)
    return array
