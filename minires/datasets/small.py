"""Make two data sets that need no file of their own, for tests and first steps."""
from __future__ import annotations

import numpy as np

from .mnist_family import DIGITS
from .split import Split, read_only

STRIPES = ("horizontal", "vertical", "diagonal")


def digits() -> tuple[Split, Split]:
    """Return ``(train, test)`` of the handwritten digits in scikit-learn.

    images: uint8 (1437, 8, 8) and (360, 8, 8), 0 is the background, read-only
    labels: uint8 (1437,) and (360,), read-only

    The stored grey levels 0 ... 16 are scaled to 0 ... 255 and rounded. The split is random but always the same: a
    fifth of the images are test images.

    Raises ModuleNotFoundError if scikit-learn, which ships the digits, is not installed.
    Source: E. Alpaydin, C. Kaynak, "Optical recognition of handwritten digits", UCI (1998).
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as e:
        raise ModuleNotFoundError("digits: the images come with scikit-learn, which is not installed: pip install "
                                  "scikit-learn. stripes() needs no package", name=e.name) from e
    shipped = load_digits()
    images = np.round(shipped.images * (255 / 16)).astype(np.uint8)
    order = np.random.default_rng(1998).permutation(len(images))

    def of(rows: np.ndarray) -> Split:
        return Split(read_only(images[rows]), read_only(shipped.target[rows].astype(np.uint8)), DIGITS)

    return of(order[360:]), of(order[:360])


def stripes(train: int = 1000, test: int = 200, size: int = 16, *, rng: np.random.Generator | None = None
            ) -> tuple[Split, Split]:
    """Generate images of noisy stripes, and return ``(train, test)``.

    train, test: the number of images in each part
    size: height and width in pixels
    rng: a generator for the images; if not given, the images are the same at every call
    images: uint8 (N, size, size, 3), read-only
    labels: uint8 (N,), read-only

    The class is the direction of the stripes, one of STRIPES. Width, phase, contrast and colour are random. Crops and
    flips do not change the class.

    Raises ValueError if a part would be empty or `size` is below 8.
    """
    if min(train, test) < 1 or size < 8:
        raise ValueError(f"stripes: expected train and test from 1 and size from 8, got {train}, {test} and {size}")
    rng = np.random.default_rng(0) if rng is None else rng
    return _draw(train, size, rng), _draw(test, size, rng)


def _draw(n: int, size: int, rng: np.random.Generator) -> Split:
    labels = rng.integers(0, len(STRIPES), n).astype(np.uint8)
    direction = np.array([[1, 0], [0, 1], [1, 1], [1, -1]])[labels + (labels == 2) * rng.integers(0, 2, n)]
    phase, wave = rng.uniform(0, 2 * np.pi, (n, 1, 1)), rng.uniform(3, 6, (n, 1, 1))  # wave: the period in pixels
    along = direction[:, :1, None] * np.arange(size)[:, None] + direction[:, 1:, None] * np.arange(size)
    waves = np.sin(2 * np.pi * along / (wave * np.linalg.norm(direction, axis=1)[:, None, None]) + phase)
    colour = rng.uniform(20, 60, (n, 1, 1, 3))
    noise = rng.normal(0, 30, (n, size, size, 3))
    images = np.clip(np.round(128 + colour * waves[..., None] + noise), 0, 255).astype(np.uint8)
    return Split(read_only(images), read_only(labels), STRIPES)
