"""Data sets: read from their official files, checked, and prepared. NumPy and the standard library only."""

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
    "random_crop",
    "random_flip",
    "read_idx",
    "subtract_pixel_mean",
    "to_float",
]
