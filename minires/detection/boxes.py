"""Boxes: how much two of them overlap, how one is written as offsets from another, and which of many to keep.

A box is (x0, y0, x1, y1) in pixels with exclusive ends: x1 - x0 is the width. Arrays of boxes have the shape (..., 4).
All functions take NumPy or CuPy arrays of numbers and return arrays of the same kind, and raise TypeError for anything
else. float32 and float64 keep their dtype. float16 becomes float32, because areas would overflow. Whole numbers, such
as those of `Scenes.boxes`, become float64: unsigned numbers have no negative differences, so they would give a wrong
IoU.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import device
from ..names import counted
from ..tensor import widened

FARTHEST = 1e9              # pixels: coordinates of detections; areas then cannot overflow
MOST_GROWTH = math.log(16)  # a decoded side is at most 16 times the anchor's, because exp could overflow


def checked(operation: str, extent: bool = True, axes: int = 1, **given: Any) -> tuple[Any, ...]:
    """Return the module, NumPy or CuPy, of arrays that hold boxes or offsets, and then the arrays.

    Arrays of whole numbers become float64, and float16 becomes float32; others are returned as they are.

    extent: whether all of them must be boxes with an extent
    axes: the least number of axes; with 2, an array that is a single box (4,) is refused

    Raises TypeError, which begins with `operation`, for an array that is not of numbers.
    Raises ValueError, which names the array and the box, for another shape than (..., 4), and for a box that is not
    finite, farther than FARTHEST from 0, or not wider and higher than 0.
    """
    for name, array in given.items():
        if not hasattr(array, "dtype") or array.dtype.kind not in "iuf":
            raise TypeError(f"{operation}: {name}: expected an array of numbers, got "
                            f"{getattr(array, 'dtype', type(array).__name__)}")
        if array.shape[-1:] != (4,) or array.ndim < axes:
            one = f"; write one box as {name}[None]" if array.shape == (4,) else ""
            raise ValueError(f"{operation}: {name}: expected shape {'(N, 4)' if axes == 2 else '(..., 4)'}, got "
                             f"{array.shape}{one}")
    given = {name: widened(array) if array.dtype.kind == "f" else array.astype(np.float64)
             for name, array in given.items()}
    xp = device.of(*given.values(), operation=operation)
    for name, array in given.items() if extent else ():
        near = (abs(array) <= FARTHEST).all(-1)  # a comparison with NaN is False
        valid = (array[..., :2] < array[..., 2:]).all(-1) & near
        if not valid.all():
            at = int(valid.argmin())
            raise ValueError(f"{operation}: {name}: box {at}: expected x0 < x1 and y0 < y1, from {-FARTHEST:g} to "
                             f"{FARTHEST:g}, got {array.reshape(-1, 4)[at].tolist()}")
    return xp, *given.values()


def areas(boxes: Any) -> Any:
    """Return the areas (...,) of boxes (..., 4), in pixels."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou(a: Any, b: Any) -> Any:
    """Return the intersection over union of every box in `a` with every box in `b`.

        IoU(A, B) = |A and B| / |A or B|,        |A or B| = |A| + |B| - |A and B|

    a, b: (..., N, 4) and (..., M, 4) -> (..., N, M), from 0 to 1.

    Raises ValueError, which names the box, for a box without extent, and for one that is not finite.
    """
    xp, a, b = checked("iou", axes=2, a=a, b=b)
    a, b = a[..., :, None, :], b[..., None, :, :]
    sides = xp.minimum(a[..., 2:], b[..., 2:]) - xp.maximum(a[..., :2], b[..., :2])
    sides = xp.maximum(sides, 0)  # two boxes that are apart on both axes have two negative sides, whose product is not
    shared = sides[..., 0] * sides[..., 1]
    # The areas of boxes with sides near the smallest float are rounded to 0.
    return shared / xp.maximum(areas(a) + areas(b) - shared, float(np.finfo(shared.dtype).tiny))


def encode(boxes: Any, anchors: Any) -> Any:
    """Return the offsets (..., 4) of boxes from anchors: Ren et al. 2015, equation 2.

        tx = (x - xa) / wa     ty = (y - ya) / ha     tw = log(w / wa)     th = log(h / ha)

    x, y, w, h are a box's centre, width and height; xa, ya, wa, ha are its anchor's. The offsets of a large and of a
    small object are therefore of the same size, and do not depend on where the object is.

    Raises ValueError, which names the box, for a box without extent, and for one that is not finite.
    """
    xp, boxes, anchors = checked("encode", boxes=boxes, anchors=anchors)
    (x, y, w, h), (xa, ya, wa, ha) = _centred(boxes), _centred(anchors)
    return xp.stack([(x - xa) / wa, (y - ya) / ha, xp.log(w / wa), xp.log(h / ha)], -1)


def decode(offsets: Any, anchors: Any) -> Any:
    """Return the boxes (..., 4) with these offsets from the anchors. This is the inverse of `encode`.

    A side grows at most 16 times, because the offsets of an untrained network can be anything.

    Raises ValueError, which names the anchor, for an anchor without extent, and for one that is not finite.
    """
    checked("decode", anchors=anchors)
    xp, offsets, anchors = checked("decode", False, offsets=offsets, anchors=anchors)
    xa, ya, wa, ha = _centred(anchors)
    tx, ty, tw, th = (offsets[..., i] for i in range(4))
    x, y = xa + tx * wa, ya + ty * ha
    w, h = wa * xp.exp(xp.minimum(tw, MOST_GROWTH)), ha * xp.exp(xp.minimum(th, MOST_GROWTH))
    return xp.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1)


def _centred(boxes: Any) -> tuple[Any, Any, Any, Any]:
    """Return the centres, widths and heights (x, y, w, h) of boxes."""
    x0, y0, x1, y1 = (boxes[..., i] for i in range(4))
    return (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0


def clip(boxes: Any, height: int, width: int) -> Any:
    """Return the parts (..., 4) of boxes inside an image. A box that is outside the image gets a side of length 0."""
    xp, boxes = checked("clip", False, boxes=boxes)
    return xp.minimum(xp.maximum(boxes, 0), xp.asarray([width, height, width, height], boxes.dtype))


def nms(boxes: Any, scores: Any, threshold: float, labels: Any = None) -> Any:
    """Return the indices of the boxes that non-maximum suppression keeps, the highest score first.

        take the box with the highest score, keep it, and remove all boxes that overlap it by more than `threshold`;
        repeat with the boxes that are left

    A removed box removes nothing itself. Of equal scores the first counts as the highest.

    boxes, scores: (N, 4) and (N,)
    threshold: of the IoU, from 0 to 1
    labels: (N,), an array; if given, a box removes only boxes of its own class

    Raises ValueError for a score that is NaN, a box without extent, a threshold out of range, and shapes that do not
    fit.
    """
    xp, boxes = checked("nms", axes=2, boxes=boxes)
    for name, array in ("scores", scores), *((("labels", labels),) if labels is not None else ()):
        kinds = "f" if name == "scores" else "iuf"
        if not hasattr(array, "dtype") or array.dtype.kind not in kinds:
            raise TypeError(f"nms: {name}: expected an array of {'floating-point ' * (kinds == 'f')}numbers, got "
                            f"{getattr(array, 'dtype', type(array).__name__)}")
        if boxes.ndim != 2 or array.shape != boxes.shape[:1]:
            raise ValueError(f"nms: expected boxes (N, 4) and {name} (N,), got {boxes.shape} and {array.shape}")
    if not 0 <= threshold <= 1:
        raise ValueError(f"nms: threshold: expected a number from 0 to 1, got {threshold}")
    device.of(boxes, scores, operation="nms")
    overlaps = iou(boxes, boxes) > threshold
    if labels is not None:
        overlaps &= labels[:, None] == labels
    # The loop asks for one number after the other, for which a GPU is the wrong place.
    removes, ranked = device.to(overlaps, "cpu"), device.to(scores, "cpu")
    if np.isnan(ranked).any():
        raise ValueError(f"nms: score {int(np.isnan(ranked).argmax())} is NaN, expected a number")
    left, kept = np.ones(len(ranked), bool), []
    for i in np.argsort(-ranked, kind="stable").tolist():
        if left[i]:
            kept.append(i)
            left &= ~removes[i]
    return xp.asarray(np.array(kept, np.int64))


@dataclass(frozen=True, eq=False)  # eq=False: == of two arrays is an array, not a bool
class Detections:
    """Holds the boxes that a detector found in a set of images, in any order.

    boxes: (M, 4) floating-point or whole numbers, (x0, y0, x1, y1) in pixels with exclusive ends, from -1e9 to 1e9
    scores: (M,) numbers; a higher score is a more certain detection
    labels: (M,) whole numbers, each the index of a class
    scene: (M,) whole numbers, the image of each detection

    Raises TypeError for arguments that are not arrays of such numbers.
    Raises ValueError, which names the detection, for a score that is not finite, a box without extent or with
    coordinates out of range, and a label or an image below 0.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    scene: np.ndarray

    def __post_init__(self) -> None:
        for name, kinds in ("boxes", "iuf"), ("scores", "iuf"), ("labels", "iu"), ("scene", "iu"):
            array: Any = getattr(self, name)
            if not isinstance(array, np.ndarray) or array.dtype.kind not in kinds:
                raise TypeError(f"Detections: {name}: expected a NumPy array of {'whole ' * (kinds == 'iu')}numbers, "
                                f"got {getattr(array, 'dtype', type(array).__name__)}")
        count = self.scores.shape
        if len(count) != 1 or self.boxes.shape != (*count, 4) or {self.labels.shape, self.scene.shape} != {count}:
            raise ValueError("Detections: expected boxes (M, 4), and scores, labels and scene (M,), got "
                             f"{self.boxes.shape}, {self.scores.shape}, {self.labels.shape} and {self.scene.shape}")
        boxes = self.boxes.astype(np.float64)
        x0, y0, x1, y1 = boxes.T
        for valid, given, expected in [
                (np.isfinite(self.scores), self.scores, "a finite score"),
                ((x0 < x1) & (y0 < y1), self.boxes, "a box with x0 < x1 and y0 < y1"),
                ((abs(boxes) <= FARTHEST).all(1), self.boxes,
                 f"a box with coordinates from {-FARTHEST:g} to {FARTHEST:g}"),
                (self.labels >= 0, self.labels, "a label from 0"), (self.scene >= 0, self.scene, "an image from 0")]:
            if not valid.all():
                at = int(valid.argmin())
                raise ValueError(f"Detections: detection {at}: expected {expected}, got {given[at].tolist()}")

    def __repr__(self) -> str:
        """Return counts, not the arrays: "Detections(812 boxes in 297 images)"."""
        return f"Detections({len(self)} box{'es' * (len(self) != 1)} in {counted(len(np.unique(self.scene)), 'image')})"

    def __len__(self) -> int:
        """Return the number of detections."""
        return len(self.scores)

    def __getitem__(self, rows: Any) -> Detections:
        """Return the detections of a slice, an index array or a mask. One detection is ``found[i:i + 1]``.

        Raises TypeError for a single number.
        """
        if np.ndim(rows) == 0 and not isinstance(rows, slice):
            raise TypeError(f"Detections: expected a slice, as in found[:8], an index array or a mask, got {rows!r}; "
                            "one detection is found[i:i + 1]")
        return Detections(self.boxes[rows], self.scores[rows], self.labels[rows], self.scene[rows])
