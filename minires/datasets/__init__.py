"""Data sets: read from their official files, checked, and prepared. NumPy and the standard library only."""

from .batches import batches
from .fashion_mnist import fashion_mnist_small
from .idx import read_idx
from .prepare import average_pool, subtract_pixel_mean, to_float
from .split import Split

__all__ = [
    "Split",
    "average_pool",
    "batches",
    "fashion_mnist_small",
    "read_idx",
    "subtract_pixel_mean",
    "to_float",
]
