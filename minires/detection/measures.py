"""How good detections, single boxes and masks are: COCO's average precision, the localisation error, the mean IoU.

Average precision of one class, at one threshold t of the IoU:

    1. Go through the detections of the class, the highest score first. A detection is right if its IoU with an object
       of the class is t or more and no earlier detection took this object. It takes the object with the largest IoU.
    2. After every detection, precision is right / all so far, and recall is right / number of objects.
    3. At each of 101 recalls 0, 0.01, ..., 1 take the highest precision at this recall or a higher one, or 0 if the
       recall is not reached. AP is the mean.

COCO's AP is the mean over the classes and the ten thresholds 0.5, 0.55, ..., 0.95. The numbers equal those of
pycocotools, with its order of detections with equal scores. Regions that stand for a crowd are not supported.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..datasets import Scenes
from ..names import check_whole
from .boxes import Detections, areas, iou

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MOST = (1, 10, 100)  # detections of a class in an image that count, the best ones
# {name: areas in pixels, both ends included}
COCO_AREAS = {"all": (0.0, 1e5**2), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e5**2)}
SCENE_AREAS = {"all": (0.0, 1e5**2), "small": (0.0, 200.0), "medium": (200.0, 400.0), "large": (400.0, 1e5**2)}


@dataclass(frozen=True, eq=False)  # eq=False: == of two arrays is an array, not a bool
class AveragePrecision:
    """Holds the precision and the recall for all settings. The layout of the arrays is that of pycocotools.

    precision: (thresholds, 101 recalls, classes, ranges of areas, most); -1 where a class has no object
    recall: (thresholds, classes, ranges of areas, most), the highest recall; -1 where a class has no object
    """

    precision: np.ndarray
    recall: np.ndarray
    thresholds: np.ndarray
    ranges: tuple[str, ...]
    most: tuple[int, ...]

    def __repr__(self) -> str:
        """Return the AP, not the arrays: "AveragePrecision(AP 0.462, AP at IoU 0.50 0.754)"."""
        area = "all" if "all" in self.ranges else self.ranges[0]
        half = f", AP at IoU 0.50 {self.ap(0.5, area):.3f}" if np.isclose(self.thresholds, 0.5).any() else ""
        return f"AveragePrecision(AP {self.ap(area=area):.3f}{half}{f'; {area} objects' * (area != 'all')})"

    def ap(self, threshold: float | None = None, area: str = "all", label: int | None = None) -> float:
        """Return the mean precision, 0 to 1, with the largest number of detections; NaN if there is no object.

        threshold: of the IoU; None: the mean over all thresholds
        area: the range of areas of the objects
        label: a class; None: the mean over the classes that have objects

        Raises ValueError for a threshold, a range or a class that was not measured.
        """
        return self._mean(self.precision, threshold, area, label, self.most[-1])

    def ar(self, most: int, area: str = "all") -> float:
        """Return the mean recall over thresholds and classes with at most `most` detections of a class in an image."""
        return self._mean(self.recall, None, area, None, most)

    def _mean(self, found: np.ndarray, threshold: float | None, area: str, label: int | None, most: int) -> float:
        found = found[..., _place("range of areas", area, self.ranges), _place("number", most, self.most)]
        if threshold is not None:
            (at,) = np.nonzero(np.isclose(self.thresholds, threshold))
            if not at.size:
                raise ValueError("average precision: expected one of the thresholds "
                                 f"{', '.join(f'{t:.2f}' for t in self.thresholds)}, got {threshold}")
            found = found[at]
        found = found if label is None else found[..., _place("class", label, range(found.shape[-1]))]
        return float(found[found > -1].mean()) if (found > -1).any() else float("nan")


def _place(what: str, given: Any, known: Sequence[Any]) -> int:
    if given not in known:
        raise ValueError(f"average precision: {what}: expected one of {', '.join(map(str, known))}, got {given!r}")
    return known.index(given)


def average_precision(detections: Detections, scenes: Scenes, *,
                      ranges: Mapping[str, tuple[float, float]] = SCENE_AREAS,
                      thresholds: np.ndarray = THRESHOLDS) -> AveragePrecision:
    """Return COCO's average precision of the detections in these scenes.

    ranges: {name: (least, most)}, the areas of the boxes in pixels. For a range, objects of other areas are ignored:
        they do not count as objects, and a detection that takes one counts neither as right nor as wrong. Neither does
        a detection that takes no object, if its own area is outside the range.
    thresholds: of the IoU, above 0 and at most 1

    Raises ValueError, which names the detection, for a class or an image that the scenes do not have, and if the scenes
    have no object at all, and for thresholds or ranges that do not exist.
    """
    _check_known(detections, scenes)
    thresholds = _thresholds("average_precision", thresholds)
    if not ranges or not all(least <= most for least, most in ranges.values()):
        raise ValueError(f"average_precision: ranges: expected at least one (least, most), got {dict(ranges)}")
    if not len(scenes.boxes):
        raise ValueError("average_precision: the scenes have no objects, so there is no precision to measure")
    shape = len(thresholds), len(RECALLS), len(scenes.classes), len(ranges), len(MOST)
    precision, recall = np.full(shape, -1.0), np.full((shape[0], *shape[2:]), -1.0)
    for label in range(len(scenes.classes)):
        images = _images_of(label, detections, scenes)
        for a, (least, largest) in enumerate(ranges.values()):
            found = [_matched(*image, least, largest, thresholds) for image in images]
            for m, most in enumerate(MOST):
                curve = _curve(found, most)
                if curve is not None:
                    precision[:, :, label, a, m], recall[:, label, a, m] = curve
    return AveragePrecision(precision, recall, thresholds, tuple(ranges), MOST)


def _thresholds(operation: str, given: Any) -> np.ndarray:
    found = np.asarray(given, np.float64)
    if found.ndim != 1 or not found.size or not ((found > 0) & (found <= 1)).all():
        raise ValueError(f"{operation}: expected thresholds above 0 and at most 1, got {found.tolist()}")
    return found


def _check_known(detections: Detections, scenes: Scenes) -> None:
    if not isinstance(detections, Detections) or not isinstance(scenes, Scenes):
        raise TypeError(f"expected Detections and then Scenes, got {type(detections).__name__} and "
                        f"{type(scenes).__name__}")
    for name, given, count in (("class", detections.labels, len(scenes.classes)),
                               ("image", detections.scene, len(scenes))):
        if (given >= count).any():
            at = int((given >= count).argmax())
            raise ValueError(f"detection {at}: expected {'a' if name == 'class' else 'an'} {name} from 0 to "
                             f"{count - 1}, got {int(given[at])}")


def _images_of(label: int, detections: Detections, scenes: Scenes) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return (objects' boxes, detections' boxes, scores) of one class for each image with any, best scores first."""
    mine, theirs = _ranked(detections[detections.labels == label]), scenes.labels == label
    boxes, scene = scenes.boxes[theirs].astype(np.float64), scenes.scene[theirs]
    found, scores = mine.boxes.astype(np.float64), mine.scores.astype(np.float64)
    numbers = np.union1d(scene, mine.scene)
    images = zip(_places(scene, numbers), _places(mine.scene, numbers), strict=True)
    return [(boxes[b:e], found[d:f][:max(MOST)], scores[d:f][:max(MOST)]) for (b, e), (d, f) in images]


def _ranked(detections: Detections) -> Detections:
    """Return the detections in the order of `_best_first`."""
    return detections[_best_first(detections)]


def _best_first(detections: Detections) -> np.ndarray:
    """Return the order in which the images follow each other, and in each image the highest score is first.

    The sort is stable, as in pycocotools, so detections with equal scores keep their order.
    """
    return np.lexsort((-detections.scores.astype(np.float64), detections.scene))  # unsigned numbers have no negatives


def _places(scene: np.ndarray, numbers: np.ndarray) -> list[tuple[int, int]]:
    """Return for each image in `numbers` where its entries in the sorted array `scene` begin and end."""
    begin, end = (np.searchsorted(scene, numbers, side).tolist() for side in ("left", "right"))
    return list(zip(begin, end, strict=True))


class _Match(NamedTuple):
    """Holds what happened to the detections of one class in one image."""

    scores: np.ndarray   # (D,), the highest first
    right: np.ndarray    # bool (T, D): took an object, at each threshold
    ignored: np.ndarray  # bool (T, D): counts neither as right nor as wrong
    objects: int         # that count


def _matched(objects: np.ndarray, boxes: np.ndarray, scores: np.ndarray, least: float, largest: float,
             thresholds: np.ndarray) -> _Match:
    """Give each detection, the best first, the object with the largest IoU that is left, at all thresholds at once.

    Objects that are ignored are taken only if no other object fits. Of two objects with the same IoU the later one is
    taken, as in pycocotools.
    """
    outside = (areas(objects) < least) | (areas(objects) > largest)
    overlaps = iou(boxes, objects)
    least_iou = np.minimum(thresholds, 1 - 1e-10)[:, None]  # so that an IoU of 1 that is rounded down is enough
    taken = np.zeros((len(thresholds), len(objects)), bool)
    right, ignored = np.zeros((2, len(thresholds), len(boxes)), bool)
    every = np.arange(len(thresholds))
    for d, row in enumerate(overlaps if len(objects) else []):
        fits = ~taken & (row >= least_iou)
        real = fits & ~outside
        fits = np.where(real.any(1)[:, None], real, fits)
        best = len(row) - 1 - np.where(fits, row, -1)[:, ::-1].argmax(1)  # the last one of the largest
        right[:, d] = fits.any(1)
        taken[every, best] |= right[:, d]
        ignored[:, d] = right[:, d] & outside[best]
    far = (areas(boxes) < least) | (areas(boxes) > largest)
    return _Match(scores, right, ignored | (~right & far), int((~outside).sum()))


def _curve(found: list[_Match], most: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the precision (T, 101) and the highest recall (T,) of one class, or None if it has no object."""
    objects = sum(match.objects for match in found)
    if not objects:
        return None
    order = np.argsort(-np.concatenate([match.scores[:most] for match in found]), kind="stable")
    right = np.concatenate([match.right[:, :most] for match in found], 1)[:, order]
    ignored = np.concatenate([match.ignored[:, :most] for match in found], 1)[:, order]
    hits, misses = ((flags & ~ignored).cumsum(1, dtype=np.float64) for flags in (right, ~right))
    recall, precision = hits / objects, hits / (hits + misses + np.spacing(1))
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]  # at this recall or a higher one
    at_recall = np.zeros((len(right), len(RECALLS)))
    for t in range(len(right)):
        place = np.searchsorted(recall[t], RECALLS)
        reached = place < recall.shape[1]
        at_recall[t, reached] = highest[t, place[reached]]
    return at_recall, recall[:, -1] if recall.shape[1] else np.zeros(len(right))


def true_positives(detections: Detections, scenes: Scenes, threshold: float = 0.5) -> np.ndarray:
    """Return which detections are right, bool (M,): the first of the three steps above, for pictures.

    threshold: of the IoU, above 0 and at most 1

    Raises ValueError for a class or an image that the scenes do not have, and for another threshold.
    """
    _check_known(detections, scenes)
    thresholds = _thresholds("true_positives", [threshold])
    found, order = np.zeros(len(detections), bool), _best_first(detections)
    numbers = np.unique(detections.scene)
    for number, (begin, end) in zip(numbers.tolist(), _places(detections.scene[order], numbers), strict=True):
        boxes, labels = scenes.objects(number)
        for label in np.unique(labels):
            here = order[begin:end][detections.labels[order[begin:end]] == label]
            match = _matched(boxes[labels == label].astype(np.float64), detections.boxes[here].astype(np.float64),
                             detections.scores[here], 0, np.inf, thresholds)
            found[here] = match.right[0]
    return found


# ----------------------------------------------------------------------------------------- localisation and masks


class Localisation(NamedTuple):
    """Holds errors in percent over the scenes with exactly one object, of which the best detection must be right.

    The box is right if its IoU with the object is 0.5 or more, as in ImageNet's task (He et al. 2015, appendix C).
    """

    scenes: int             # with exactly one object
    class_predicted: float  # the best detection needs the right class and the right box
    class_given: float      # the best detection of the right class needs the right box
    box_alone: float        # the best detection needs the right box


def localisation_errors(detections: Detections, scenes: Scenes) -> Localisation:
    """Return the localisation errors of the detections in the scenes that have exactly one object.

    Raises ValueError if no scene has exactly one object, and for a class or an image that the scenes do not have.
    """
    _check_known(detections, scenes)
    alone = np.flatnonzero(np.bincount(scenes.scene, minlength=len(scenes)) == 1)
    if not alone.size:
        raise ValueError("localisation_errors: expected at least one scene with exactly one object, got none")
    wrong, ranked = np.zeros(3), _ranked(detections)
    for number, (begin, end) in zip(alone.tolist(), _places(ranked.scene, alone), strict=True):
        (box,), (label,) = scenes.objects(number)
        fits = iou(ranked.boxes[begin:end].astype(np.float64), box.astype(np.float64)[None])[:, 0] >= 0.5
        same = ranked.labels[begin:end] == label
        wrong += [not (fits & same)[:1].any(), not fits[same][:1].any(), not fits[:1].any()]
    return Localisation(len(alone), *(100 * float(w) / len(alone) for w in wrong))


def mean_iou(predicted: Any, masks: Any, num_classes: int) -> tuple[float, np.ndarray]:
    """Return the mean over the classes of the IoU of their pixels, and the IoU of each class (Long et al. 2015, 4).

        IoU of class c = pixels that are c in both / pixels that are c in at least one

    predicted, masks: whole numbers from 0 to num_classes - 1, of one shape; all images count together
    num_classes: with the ground, class 0
    result: the mean, and (num_classes,), NaN for a class that is in neither; the mean leaves these out

    Raises ValueError for other shapes and numbers.
    """
    check_whole("mean_iou: num_classes", num_classes)
    predicted, masks = np.asarray(predicted), np.asarray(masks)
    if predicted.shape != masks.shape or not masks.size:
        raise ValueError(f"mean_iou: expected two equal shapes with pixels, got {predicted.shape} and {masks.shape}")
    for name, given in ("predicted", predicted), ("masks", masks):
        if given.dtype.kind not in "iu" or given.min() < 0 or given.max() >= num_classes:
            raise ValueError(f"mean_iou: {name}: expected whole numbers from 0 to {num_classes - 1}, got {given.dtype} "
                             f"from {given.min()} to {given.max()}")
    pairs = num_classes * masks.astype(np.int64).reshape(-1) + predicted.astype(np.int64).reshape(-1)
    table = np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)  # [true, predicted]
    both, either = table.diagonal(), table.sum(0) + table.sum(1) - table.diagonal()
    with np.errstate(invalid="ignore"):
        each = both / either
    return float(np.nanmean(each)), each
