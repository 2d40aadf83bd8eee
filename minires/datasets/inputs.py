"""Turn the name of a data set into a network's input: choose the images, resize them, and normalise their pixels."""
from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import device
from ..names import UsageError, unknown
from .by_name import load
from .places import Root
from .prepare import normalize as normalized
from .prepare import subtract_pixel_mean, to_float
from .split import Split

NORMALIZE = ("channel", "pixel-mean", "none")
MeanAndStd = tuple[Sequence[float] | None, Sequence[float] | None]
Arrays = tuple[Any, Any]  # images float32 (N, C, H, W), labels uint8 (N,)


class Prepared(NamedTuple):
    """Holds a data set as a network takes it, on one device."""

    train: Arrays             # (images, labels)
    test: Arrays              # (images, labels) of the test set, or of the images held out for validation
    classes: tuple[str, ...]  # the classes' names, in the order of the labels
    words: str                # how the pixels were changed, as text
    sha256: str               # SHA-256 of all pixels and labels of the stored data set


def prepared(name: str, root: Root = None, *, normalize: str | MeanAndStd = "channel", image_size: int = 0,
             train_images: int = 0, test_images: int = 0, validation: int = 0, train: bool = True,
             where: str = "cpu", download: bool = False) -> Prepared:
    """Load the data set with this name and return its images as the arrays that a network takes.

    Images are averaged to `image_size`, pixels are divided by 255, and then normalised:

    normalize      "channel"     subtract each channel's mean and divide by its standard deviation, both to 4 decimals
                   "pixel-mean"  subtract the mean image (He et al. 2015, section 4.2)
                   "none"        no change
                   (mean, std)   subtract these means and divide by these standard deviations, one of each per channel;
                                 None in the place of one of them skips its step
    image_size     height and width in pixels; 0: as stored
    train_images   N: use the first N training images; 0: all
    test_images    N: use the first N test images; 0: all
    validation     N: hold out the last N training images, which replace the test set; 0: none
    train          False leaves the training arrays empty, which saves their memory
    where          "cpu" or "gpu"
    download       whether to download files that are missing

    "channel" and "pixel-mean" are computed from the training images that are used.

    Raises UsageError for a name or a number of images that does not fit.
    Raises ValueError for means, standard deviations or sizes that do not fit.
    Raises FileNotFoundError if the data set is not found.
    """
    if isinstance(normalize, str) and normalize not in NORMALIZE:
        raise unknown("normalize", normalize, NORMALIZE)
    if validation and test_images:
        raise UsageError(f"{name}: test_images={test_images} has no effect with validation={validation}, whose images "
                         "replace the test set; leave one of the two out")
    stored = load(name, root, download=download)
    learn, test = _chosen(name, *stored, train_images, test_images, validation)
    images, words = _normalised(learn.images, test.images, normalize, image_size, train)
    x, y = ((device.to(part, where), device.to(split.labels[:len(part)], where))
            for part, split in zip(images, (learn, test), strict=True))
    return Prepared(x, y, test.classes, words, _sha256(stored))


def _chosen(name: str, learn: Split, test: Split, train_images: int, test_images: int, validation: int
            ) -> tuple[Split, Split]:
    for key, asked, have in (("validation", validation, len(learn)), ("test_images", test_images, len(test)),
                             ("train_images", train_images, len(learn) - validation)):
        if asked < 0:
            raise UsageError(f"{name}: {key}: expected a number from 0, got {asked}")
        if key == "validation" and asked >= have:
            raise UsageError(f"{name}: validation: expected fewer than the {have} training images, got {asked}")
        if asked > have:
            raise UsageError(f"{name}: {key}: expected at most {have}, got {asked}")
    test = test[:test_images or None]
    if validation:
        learn, test = learn[:-validation], learn[-validation:]
    return learn[:train_images or None], test


def _normalised(learn: np.ndarray, test: np.ndarray, how: str | MeanAndStd, size: int, train: bool
                ) -> tuple[tuple[Any, Any], str]:
    """Return ((training images, test images), what was done as text). Without `train`, there are no training images."""
    words = "pixels / 255" + (f", averaged to {size}x{size}" if size else "")
    needed = train or (isinstance(how, str) and how != "none")
    x, y = (to_float(images, size) for images in (learn if needed else learn[:1], test))
    if how == "pixel-mean":
        x, y = subtract_pixel_mean(x, y)
        words += " - the training set's mean image"
    elif how != "none":
        mean, std = ([f((0, 2, 3), dtype=np.float64).round(4).tolist() for f in (x.mean, x.std)]
                     if isinstance(how, str) else how)
        mean, std = (given if given is not None else [unchanged] * y.shape[1]
                     for given, unchanged in ((mean, 0.0), (std, 1.0)))
        x, y = (normalized(images, mean, std) for images in (x if train else x[:0], y))
        words = f"({words} - ({', '.join(f'{m:g}' for m in mean)})) / ({', '.join(f'{s:g}' for s in std)})"
    return (x if train else x[:0].copy(), y), words


def _sha256(splits: tuple[Split, Split]) -> str:
    digest = hashlib.sha256()
    for split in splits:
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(np.ascontiguousarray(split.labels).data)
    return digest.hexdigest()
