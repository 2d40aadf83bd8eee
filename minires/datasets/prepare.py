"""From stored images to what a network sees: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import device


def average_pool(images: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Shrink uint8 images (N, H, W) or (N, H, W, C) to float32 (N, h, w, ...), each pixel its block's mean, 0 ... 255.

    ``size`` is h = w or (h, w). A block's sum is taken in integers, so the division is the only rounding.
    Raises ValueError if h does not divide H or w does not divide W.
    """
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ValueError("average_pool: images: expected uint8 (N, H, W) or (N, H, W, C), "
                         f"got {images.dtype} {images.shape}")
    n, height, width, *channels = images.shape
    h, w = (size, size) if isinstance(size, int) else size
    if h < 1 or w < 1 or height % h or width % w:
        raise ValueError(
            f"average_pool: size: expected extents that divide the images' {height}x{width}, got {h}x{w}"
        )
    blocks = images.reshape(n, h, height // h, w, width // w, *channels)
    pixels = (height // h) * (width // w)
    return blocks.sum(axis=(2, 4), dtype=np.uint32).astype(np.float32) / pixels


def to_float(images: np.ndarray, size: int = 0) -> np.ndarray:
    """Stored images to a network's float32 (N, C, H, W) with values 0 ... 1.

    ``images`` are (N, H, W) or, channels last, (N, H, W, C) with C from 1 to 4; uint8, or float32 with values
    0 ... 255 as average_pool returns them; with ``size`` they are averaged to that height and width first. Raises
    ValueError for anything else.
    """
    if size:
        images = average_pool(images, size)
    if images.dtype not in (np.uint8, np.float32):
        raise ValueError(f"to_float: images: expected uint8 or float32, got {images.dtype}")
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in range(1, 5)):
        raise ValueError(
            "to_float: images: expected (N, H, W) or, channels last, (N, H, W, C) with C from 1 to 4, "
            f"got {images.shape}"
        )
    if images.dtype == np.float32 and images.size and not (images.min() >= 0 and images.max() <= 255):
        raise ValueError(
            f"to_float: images: expected values from 0 to 255, got {images.min()} to {images.max()}"
        )
    channels_first = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return device.of(images).ascontiguousarray(channels_first, dtype=np.float32) / 255


def normalize(images: Any, mean: Sequence[float], std: Sequence[float]) -> Any:
    """Every channel's `mean` subtracted, then divided by its `std`. A new array; images as to_float returns them.

    images float32 (N, C, H, W), NumPy or CuPy; mean and std, one number for each channel, on the same scale (0 ... 1).
    Raises ValueError for other images, another count of numbers, and a std that is not above 0.
    """
    if images.ndim != 4 or images.dtype != np.float32:
        raise ValueError(f"normalize: images: expected float32 (N, C, H, W), got {images.dtype} {images.shape}; "
                         "to_float makes them")
    shift, scale = np.array(mean, np.float32), np.array(std, np.float32)
    for name, given in (("mean", shift), ("std", scale)):
        if given.shape != images.shape[1:2] or not np.isfinite(given).all():
            raise ValueError(f"normalize: {name}: expected {images.shape[1]} finite numbers, one for each channel, "
                             f"got {given.tolist()}")
    if not (scale > 0).all():
        raise ValueError(f"normalize: std: expected numbers above 0, got {scale.tolist()}")
    xp = device.of(images)
    return (images - xp.asarray(shift[:, None, None])) / xp.asarray(scale[:, None, None])


def subtract_pixel_mean(train: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, ...]:
    """Subtract the training images' mean, one for each channel and pixel, from them and from all the others.

    All are float32 (N, C, H, W) and so is every result, in the order given. The mean is summed in float64, so
    that many images cost no digits. Raises ValueError where dtypes or shapes differ, or ``train`` is empty.
    Source: He et al., "Deep residual learning for image recognition" (2015), section 4.2.
    """
    if train.ndim != 4 or len(train) == 0:
        raise ValueError(
            f"subtract_pixel_mean: train: expected (N, C, H, W) with N from 1, got {train.shape}"
        )
    for index, images in enumerate((train, *others)):
        if images.dtype != np.float32 or images.shape[1:] != train.shape[1:]:
            raise ValueError(
                f"subtract_pixel_mean: argument {index}: expected float32 (N, "
                f"{', '.join(map(str, train.shape[1:]))}), got {images.dtype} {images.shape}"
            )
    mean = train.mean(axis=0, dtype=np.float64).astype(np.float32)
    return tuple(images - mean for images in (train, *others))
