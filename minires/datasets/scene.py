"""Generate scenes: several articles of Fashion-MNIST on one canvas, each with a box and a class, and a mask of pixels.

A scene is made of the images that ship with minires, so nothing is downloaded. Only whole numbers are used, so that the
pixels are the same on every machine.

    canvas     56x56 pixels: a bilinear ground of grey levels 0 to 48, with noise of -6 to 6
    articles   1 to 4, each mirrored with probability 1/2 and scaled to between 14 and 28 pixels
    box        (x0, y0, x1, y1) in pixels; x0 and y0 are the first column and row of the article, x1 and y1 are one more
               than the last. A box is the extent of its article before anything covers a part of it
    mask       for every pixel the class of the topmost article plus 1, or 0 for the ground

An article's pixels are those above 16 of 255. Later articles are on top of earlier ones.
"""
from __future__ import annotations

import functools
import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..names import counted, unknown
from .mnist_family import CLASSES
from .shipped import fashion_mnist_small
from .split import Split, read_only

PARTS = "train", "test"
CANVAS = 56         # height and width of a scene
PATCH = 28          # height and width of a patch, and of the stored images
SMALLEST = 14       # an article's smallest height and width before its dark border is cut off; PATCH is the largest
MOST_ARTICLES = 4
DARK = 16           # pixels up to this grey level belong to the ground
TRIES = 30          # places to try for an article, before it is left out
CELL = 7            # pixels between two points of the ground's grid
GROUND, NOISE = 48, 6


@dataclass(frozen=True, eq=False)  # eq=False: == of two arrays is an array, not a bool
class Scenes:
    """Holds images with the boxes and classes of the objects in them.

    images: uint8 (N, H, W)
    boxes: (M, 4) of whole or floating-point numbers, (x0, y0, x1, y1) in pixels with exclusive ends, of all objects of
        all images, one image after the other
    labels: whole numbers (M,), each an index into ``classes``
    scene: whole numbers (M,), the image of each object, rising
    classes: a tuple of the classes' names, at least one
    masks: uint8 (N, H, W), the class of each pixel plus 1, or 0 for the ground; None if there are none

    An image without objects is valid.

    Raises TypeError for arguments of another type or dtype.
    Raises ValueError, which names the object, for a box without extent or outside its image, and for a label or an
    image that does not exist.
    """

    images: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    scene: np.ndarray
    classes: tuple[str, ...] = CLASSES
    masks: np.ndarray | None = None

    def __post_init__(self) -> None:
        kinds = {"images": "uint8", "boxes": "numbers", "labels": "whole numbers", "scene": "whole numbers"}
        kinds |= {} if self.masks is None else {"masks": "uint8"}
        for name, kind in kinds.items():
            array: Any = getattr(self, name)
            fits = isinstance(array, np.ndarray) and {"uint8": array.dtype == np.uint8, "numbers": array.dtype.kind
                                                      in "iuf", "whole numbers": array.dtype.kind in "iu"}[kind]
            if not fits:
                raise TypeError(f"Scenes: {name}: expected a NumPy array of {kind}, got "
                                f"{getattr(array, 'dtype', type(array).__name__)}")
        if not isinstance(self.classes, tuple) or not all(isinstance(name, str) for name in self.classes or [0]):
            raise TypeError(f"Scenes: classes: expected a tuple of names, got {self.classes!r}")
        if self.images.ndim != 3 or self.images.size == 0:
            raise ValueError(f"Scenes: images: expected shape (N, H, W) with no extent of 0, got {self.images.shape}")
        objects = self.boxes.shape[:1]
        if self.boxes.shape != (*objects, 4) or self.labels.shape != objects or self.scene.shape != objects:
            raise ValueError("Scenes: expected boxes (M, 4), labels (M,) and scene (M,) of M objects, got "
                             f"{self.boxes.shape}, {self.labels.shape} and {self.scene.shape}")
        if self.masks is not None and self.masks.shape != self.images.shape:
            raise ValueError(f"Scenes: masks: expected the images' shape {self.images.shape}, got {self.masks.shape}")
        self._check_objects()

    def _check_objects(self) -> None:
        height, width = self.images.shape[1:]
        x0, y0, x1, y1 = self.boxes.astype(np.float64).T
        # A comparison with NaN is False, so every test is for what is valid.
        tests = [
            ((self.scene >= 0) & (self.scene < len(self)), self.scene, f"an image from 0 to {len(self) - 1}"),
            (self.labels < len(self.classes), self.labels, f"a label below {len(self.classes)}, the number of classes"),
            (self.labels >= 0, self.labels, "a label from 0"),
            ((x0 < x1) & (y0 < y1), self.boxes, "a box with x0 < x1 and y0 < y1"),
            ((x0 >= 0) & (y0 >= 0) & (x1 <= width) & (y1 <= height), self.boxes,
             f"a box inside its image, which is {width} pixels wide and {height} high"),
        ]
        for valid, given, expected in tests:
            if not valid.all():
                at = int(valid.argmin())
                raise ValueError(f"Scenes: object {at} of image {int(self.scene[at])}: expected {expected}, got "
                                 f"{given[at].tolist()}")
        if (self.scene[1:] < self.scene[:-1]).any():
            at = int((self.scene[1:] < self.scene[:-1]).argmax()) + 1
            raise ValueError(f"Scenes: scene: expected the objects of one image after those of another, got image "
                             f"{int(self.scene[at])} after {int(self.scene[at - 1])} at object {at}")
        if self.masks is not None and self.masks.max() > len(self.classes):
            raise ValueError(f"Scenes: masks: expected at most {len(self.classes)}, the number of classes, got "
                             f"{int(self.masks.max())}")

    def __repr__(self) -> str:
        """Return counts, not the arrays: "Scenes(300 images of 56 x 56; 742 objects of 10 classes)"."""
        size = " x ".join(map(str, self.images.shape[1:]))
        return (f"Scenes({counted(len(self), 'image')} of {size}; {counted(len(self.boxes), 'object')} of "
                f"{len(self.classes)} classes)")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, rows: slice) -> Scenes:
        """Return the scenes of a slice or of an index array, for example ``scenes[:8]``.

        Raises IndexError if there are none, or if one does not exist.
        """
        if not isinstance(rows, (slice, np.ndarray)):
            raise TypeError(f"Scenes: expected a slice, as in scenes[:8], got {rows!r}; one scene is scenes[i:i + 1]")
        chosen = np.arange(len(self))[rows]
        if chosen.ndim != 1 or not chosen.size:
            given = rows if isinstance(rows, slice) else f"an array of shape {rows.shape}"
            raise IndexError(f"Scenes: expected at least one of {counted(len(self), 'scene')} in one row, got {given}")
        begin, end = (np.searchsorted(self.scene, chosen, side) for side in ("left", "right"))
        objects = np.concatenate([np.arange(b, e) for b, e in zip(begin, end, strict=True)], dtype=np.int64)
        return Scenes(self.images[chosen], self.boxes[objects], self.labels[objects],
                      np.repeat(np.arange(len(chosen)), end - begin), self.classes,
                      None if self.masks is None else self.masks[chosen])

    def objects(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the boxes (m, 4) and the labels (m,) of the objects in one image.

        Raises IndexError for an image that does not exist.
        """
        if number not in range(len(self)):
            raise IndexError(f"Scenes: expected an image from 0 to {len(self) - 1}, got {number!r}")
        begin, end = np.searchsorted(self.scene, [number, number + 1])
        return self.boxes[begin:end], self.labels[begin:end]


def scenes(count: int, seed: int, part: str, *, first: int = 0) -> Scenes:
    """Generate `count` scenes with boxes, classes and masks.

    seed: a whole number from 0; another seed gives other scenes
    part: "train" or "test"; the articles of a training scene are training images of Fashion-MNIST, and those of a test
        scene are test images
    first: the number of the first scene. A scene depends on its number, the seed and the part alone, so
        ``scenes(8, seed, part, first=16)`` equals ``scenes(24, seed, part)[16:]``

    images: uint8 (count, 56, 56); boxes: int64 (M, 4); labels: uint8 (M,); masks: uint8 (count, 56, 56); all read-only

    Two articles may overlap by at most a quarter of the smaller box. An article for which 30 random places are too
    close to others is left out.

    Raises TypeError if a number is not whole, and ValueError for a number out of range or another part.
    """
    for name, value, least in (("count", count, 1), ("seed", seed, 0), ("first", first, 0)):
        if not isinstance(value, numbers.Integral):
            raise TypeError(f"scenes: {name}: expected a whole number, got {value!r}")
        if value < least:
            raise ValueError(f"scenes: {name}: expected at least {least}, got {value}")
    articles = _articles(part)
    drawn = [_scene(articles, np.random.default_rng([int(seed), PARTS.index(part), number]))
             for number in range(int(first), int(first) + int(count))]
    images, masks, boxes, labels = zip(*drawn, strict=True)
    return Scenes(read_only(np.stack(images)), read_only(np.concatenate(boxes)), read_only(np.concatenate(labels)),
                  read_only(np.repeat(np.arange(count), list(map(len, labels)))), CLASSES, read_only(np.stack(masks)))


def patches(rows: Any, part: str, *, rng: np.random.Generator) -> Split:
    """Generate 28x28 patches that look like parts of scenes: one article on a ground, scaled, mirrored and moved.

    rows: whole numbers (n,), which images of Fashion-MNIST's first 10,000 training or 2,000 test images to use
    part: "train" or "test"

    A backbone that is trained to classify patches has seen articles at the scale of the scenes.

    Raises ValueError for another part and for rows of another kind, and IndexError for an image that does not exist.
    """
    articles, rows = _articles(part), np.asarray(rows)
    if rows.ndim != 1 or not rows.size or rows.dtype.kind not in "iu":
        raise ValueError(f"patches: rows: expected at least one whole number, got {rows.dtype}{rows.shape}")
    if not 0 <= rows.min() <= rows.max() < len(articles):
        raise IndexError(f"patches: rows: expected whole numbers from 0 to {len(articles) - 1}, got {rows.min()} to "
                         f"{rows.max()}")
    images = []
    for row in rows:
        canvas, article = ground(PATCH, rng), _drawn(articles.images[row], rng)
        _put(canvas, article, *rng.integers(0, PATCH - len(article) + 1, 2))
        images.append(canvas)
    return Split(read_only(np.array(images, np.uint8)), read_only(articles.labels[rows]), CLASSES)


@functools.cache
def _articles(part: str) -> Split:
    if part not in PARTS:
        raise unknown("scenes: part", part, PARTS)
    return fashion_mnist_small()[PARTS.index(part)]


def _scene(articles: Split, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Return the image, the mask, the boxes and the labels of one scene."""
    canvas, mask = ground(CANVAS, rng), np.zeros((CANVAS, CANVAS), np.uint8)
    boxes: list[tuple[int, ...]] = []
    labels: list[int] = []
    for _ in range(rng.integers(1, MOST_ARTICLES + 1)):
        row = rng.integers(0, len(articles))
        article, label = _drawn(articles.images[row], rng), int(articles.labels[row])
        extent = _extent(article)
        for top, left in rng.integers(0, CANVAS - len(article) + 1, (TRIES, 2)).tolist():
            box = extent[0] + left, extent[1] + top, extent[2] + left, extent[3] + top
            if all(_far_enough(box, other) for other in boxes):
                _put(canvas, article, top, left)
                _put(mask, np.where(article > DARK, label + 1, 0), top, left, dark=0)
                boxes.append(box)
                labels.append(label)
                break
    return canvas, mask, np.array(boxes, np.int64).reshape(-1, 4), np.array(labels, np.uint8)


def _drawn(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an article, mirrored or not, in a random size."""
    mirrored, size = rng.integers(0, 2), int(rng.integers(SMALLEST, PATCH + 1))
    weights = area_weights(size)
    # 784 = 28 * 28 is the area of a new pixel, in units in which an old pixel has size * size.
    return (weights @ image[:, ::-1 if mirrored else 1].astype(np.int64) @ weights.T + 392) // 784


@functools.cache
def area_weights(size: int) -> np.ndarray:
    """Return (size, 28): how much of each old pixel lies in each new one, on a line of 28 * size units.

    An old pixel is `size` units long, and a new one 28. For size 14 the average is that of `average_pool`, rounded.
    """
    old, new = np.arange(PATCH) * size, np.arange(size)[:, None] * PATCH
    return np.maximum(np.minimum(old + size, new + PATCH) - np.maximum(old, new), 0)


def _extent(article: np.ndarray) -> tuple[int, int, int, int]:
    """Return the box around an article's pixels."""
    rows, columns = np.flatnonzero((article > DARK).any(1)), np.flatnonzero((article > DARK).any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _far_enough(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Return whether two boxes share at most a quarter of the smaller one.

    A bound on the IoU would not do: it lets a large article cover a small one.
    """
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return 4 * shared <= min((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (a, b))


def _put(canvas: np.ndarray, article: np.ndarray, top: int, left: int, dark: int = DARK) -> None:
    """Write the article's pixels that are above `dark` onto the canvas."""
    part = canvas[top:top + len(article), left:left + len(article)]
    part[article > dark] = article[article > dark]


def ground(size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a ground (size, size): random grey levels on a grid, bilinear between its points, with noise."""
    points, weights = size // CELL + 1, linear_weights(size)
    grid = rng.integers(0, GROUND + 1, (points, points))
    smooth = (weights @ grid @ weights.T + CELL * CELL // 2) // (CELL * CELL)
    return np.clip(smooth + rng.integers(-NOISE, NOISE + 1, (size, size)), 0, 255).astype(np.uint8)


@functools.cache
def linear_weights(size: int) -> np.ndarray:
    """Return (size, points): the whole-number weights of the two nearest points of the grid, which add up to 7."""
    return np.maximum(CELL - np.abs(np.arange(size)[:, None] - CELL * np.arange(size // CELL + 1)), 0)
