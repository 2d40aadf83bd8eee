"""Change a batch of training images at random: He et al. 2015, section 4.2. Every function returns a new array."""
from __future__ import annotations

from typing import Any

import numpy as np

from .. import device


def random_crop(images: Any, padding: int = 4, *, rng: np.random.Generator) -> Any:
    """Pad every image with `padding` zeros on each side, and cut out a random window of the image's size.

    images: (N, C, H, W), NumPy or CuPy

    Each image gets its own window. All (2 padding + 1)^2 windows have the same probability.

    Raises ValueError for another number of dimensions, no images, or a negative padding.
    """
    _check("random_crop", images)
    if padding < 0:
        raise ValueError(f"random_crop: expected padding >= 0, got {padding}")
    xp, (n, _, h, w) = device.of(images), images.shape
    padded = xp.pad(images, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = xp.lib.stride_tricks.sliding_window_view(padded, (h, w), axis=(2, 3))  # a view: nothing is copied yet
    top, left = xp.asarray(rng.integers(0, 2 * padding + 1, (2, n)))
    return windows[xp.arange(n), :, top, left]


def random_flip(images: Any, *, rng: np.random.Generator) -> Any:
    """Mirror each image left to right with probability 1/2.

    images: (N, C, H, W), NumPy or CuPy

    Raises ValueError for another number of dimensions or no images.
    """
    _check("random_flip", images)
    xp = device.of(images)
    flipped = xp.asarray(rng.random(len(images)) < 0.5)
    return xp.where(flipped[:, None, None, None], images[..., ::-1], images)


def crop_and_flip(images: Any, *, rng: np.random.Generator) -> Any:
    """Apply the paper's augmentation: pad by 4, crop at random, flip at random.

    images: (N, C, H, W), NumPy or CuPy
    """
    return random_flip(random_crop(images, rng=rng), rng=rng)


def _check(name: str, images: Any) -> None:
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(f"{name}: expected images (N, C, H, W) with N >= 1, got {images.shape}")
