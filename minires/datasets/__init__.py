"""Read data sets from their official files, check them and prepare them. This needs only NumPy, except for `digits`
(scikit-learn) and downloads (tqdm)."""

from __future__ import annotations

from .augment import crop_and_flip, random_crop, random_flip
from .batching import batches, epoch_rng
from .by_name import AT_HAND, BY_NAME, FROM_FILES, load
from .cifar import cifar10, cifar100
from .idx import read_idx
from .inputs import NORMALIZE, MeanAndStd, Prepared, prepared
from .mnist_family import fashion_mnist, mnist
from .places import Root, home
from .prepare import average_pool, normalize, subtract_pixel_mean, to_float
from .scene import Scenes, patches, scenes
from .shipped import fashion_mnist_small
from .small import digits, stripes
from .split import Split

__all__ = [
    "AT_HAND",
    "BY_NAME",
    "FROM_FILES",
    "NORMALIZE",
    "MeanAndStd",
    "Prepared",
    "Root",
    "Scenes",
    "Split",
    "average_pool",
    "batches",
    "cifar10",
    "cifar100",
    "crop_and_flip",
    "digits",
    "epoch_rng",
    "fashion_mnist",
    "fashion_mnist_small",
    "home",
    "load",
    "mnist",
    "normalize",
    "patches",
    "prepared",
    "random_crop",
    "random_flip",
    "read_idx",
    "scenes",
    "stripes",
    "subtract_pixel_mean",
    "to_float",
]
