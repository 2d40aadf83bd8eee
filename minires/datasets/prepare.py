"""Turn stored images into what a network takes. Every function takes arrays and returns new arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import device


def average_pool(images: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Shrink images: each pixel of the result is the mean of a block of pixels.

    images: uint8 (N, H, W) or (N, H, W, C)
    size: h = w, or (h, w)
    result: float32 (N, h, w) or (N, h, w, C) with values 0 ... 255

    The sum of each block is computed in integers, so the division is the only rounding.

    Raises ValueError for other images, and if h does not divide H or w does not divide W.
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
    """Convert stored images to a network's layout, with values 0 ... 1.

    images: (N, H, W) or, channels last, (N, H, W, C) with C from 1 to 4; uint8, or float32 with values 0 ... 255 as
        average_pool returns them
    size: the height and width to which uint8 images are averaged first; 0: no averaging
    result: float32 (N, C, H, W)

    Raises ValueError for other images or sizes.
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
    """Subtract the mean of each channel, and divide by the standard deviation of each channel.

    images: float32 (N, C, H, W), NumPy or CuPy, as to_float returns them
    mean, std: one number for each channel, on the same scale as the images (0 ... 1)
    result: a new array like images

    Raises ValueError for other images, for another count of numbers or numbers that are not finite, and for a std that
    is not above 0.
    """
    if images.ndim != 4 or images.dtype != np.float32:
        raise ValueError(f"normalize: images: expected float32 (N, C, H, W), got {images.dtype} {images.shape}; "
                         "to_float returns such images")
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
    """Subtract the mean image of ``train`` from ``train`` and from ``others``.

    train, others: float32 (N, C, H, W); N may differ
    result: one array of the same shape and dtype for each argument, in the order given

    The mean image has one mean for each channel and pixel. It is summed in float64, so that many images lose no
    precision.

    Raises ValueError if dtypes or shapes differ, or if ``train`` is empty.
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
