"""Data sets: read from their official files, checked, and prepared. NumPy and the standard library only."""

from __future__ import annotations

import os

from ..names import unknown
from .augment import crop_and_flip, random_crop, random_flip
from .batches import batches
from .fashion_mnist import fashion_mnist_small
from .idx import read_idx
from .prepare import average_pool, subtract_pixel_mean, to_float
from .split import Split

__all__ = [
    "Split",
    "average_pool",
    "batches",
    "crop_and_flip",
    "fashion_mnist_small",
    "load",
    "random_crop",
    "random_flip",
    "read_idx",
    "subtract_pixel_mean",
    "to_float",
]

BY_NAME = {"fashion_mnist_small": fashion_mnist_small}


def load(name: str, root: str | os.PathLike[str] | None = None) -> tuple[Split, Split]:
    """``(train, test)`` of the data set of this name. ``root`` is the folder with its files, if not the usual one.

    Raises ValueError for a name that is not in ``BY_NAME``.
    """
    if name not in BY_NAME:
        raise unknown("data set", name, BY_NAME)
    return BY_NAME[name](root)
