"""Faster R-CNN (Ren et al. 2015) on a residual network for small images, as in He et al. 2015, appendix A.

    images -> shared map -+-> proposals: is there an object at this anchor, and where exactly?     "region proposal
                          |        |                                                                network"
                          +-> RoIAlign of the best proposals -> stage 3 -> class and exact box     "head"

An anchor is a box of a fixed size at a position of a grid. For every anchor a small network predicts whether there is
an object (objectness), and by which offsets to move the anchor onto the object. The best boxes are the proposals. The
head classifies each proposal, as one of the classes or as ground, and moves its box once more, differently for every
class. Both halves use the shared map, and are trained together.

Half pixels: with padding 1 a cell i of the shared map is centred at pixel 2i + 0.5, but RoIAlign assumes 2i + 1. All
offsets are learned, so they absorb this constant.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import device, init, kernels, nn, ops
from ..datasets import Scenes
from ..models import CifarNet
from ..optim import Group
from ..tensor import Tensor, no_grad
from .backbone import STRIDE, OnBackbone, check_batches, check_finite, check_scenes, run
from .boxes import Detections, clip, decode, encode, iou, nms
from .regions import roi_align

# (width, height) in pixels: the centres that k-means finds among the boxes of training scenes
ANCHORS = (9, 17), (14, 14), (14, 24), (18, 9), (22, 22), (24, 13)
ANCHOR_STRIDE = 2 * STRIDE  # pixels between two positions of anchors

# What proposals are trained on. The rest of the anchors is not used.
OBJECT, GROUND_BELOW = 0.7, 0.3                   # IoU of an anchor with an object, for the two labels
ANCHORS_USED, ANCHORS_POSITIVE = 32, 16           # of each scene; the second is a maximum
# From anchors to proposals
RANKED, PROPOSAL_NMS, KEPT, KEPT_TEST = 60, 0.7, 16, 20  # best by score, IoU, and proposals kept in training and test
# What the head is trained on
REGIONS, REGIONS_POSITIVE, SAME = 12, 6, 0.5      # of each scene; at most; IoU of a region with its object
BINS = 7                                          # RoIAlign's; stage 3, of stride 2, makes 4x4 cells of 7x7
CELLS = 4
OFFSET_SCALE = 0.1, 0.1, 0.2, 0.2                 # the head's offsets are divided by these, so that they are near 1
BOX_WEIGHT = 0.5                                  # of the head's offsets in the loss
# When a trained detector answers
LEAST_SCORE, DETECTION_NMS = 0.05, 0.5
UNUSED = -1                                       # label of an anchor or a region that no loss counts


def grid_anchors(height: int, width: int, sizes: Sequence[tuple[int, int]] = ANCHORS,
                 stride: int = ANCHOR_STRIDE) -> np.ndarray:
    """Return the anchors on a grid of height x width positions: (len(sizes) * height * width, 4), float64, in pixels.

    The order is that of an output (len(sizes), height, width) of a convolution. Position i is centred at pixel
    stride * (i + 1/2). Anchors may extend beyond the image.
    """
    y, x = ((np.arange(count) + 0.5) * stride for count in (height, width))
    w, h = np.array(sizes, np.float64).T[:, :, None, None]
    x0, y0, x1, y1 = np.broadcast_arrays(x - w / 2, y[:, None] - h / 2, x + w / 2, y[:, None] + h / 2)
    return np.stack([x0, y0, x1, y1], -1).reshape(-1, 4)


def smooth_l1(x: Tensor, beta: float = 1.0) -> Tensor:
    """Return the smooth L1 loss of each element: Girshick 2015, equation 3, where beta is 1.

        x^2 / (2 beta)     if |x| < beta
        |x| - beta / 2     otherwise

    Near 0 it is a parabola, so the gradient vanishes at the target. Far away the gradient is 1 at most, so one object
    that is far off does not dominate a step.

    Raises ValueError for a beta that is not above 0.
    """
    if not beta > 0:
        raise ValueError(f"smooth_l1: beta: expected a number above 0, got {beta}")
    return ops.where(abs(x.data) < beta, x * x * (0.5 / beta), ops.abs(x) - 0.5 * beta)


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return -log p for label 1 and -log(1 - p) for label 0, element by element, with p = sigmoid(logits).

    This is log(1 + exp(z)) - label z, written so that no exponential can overflow. |z| has the slope 0 at 0, so the
    gradient is p - label there too; that of relu(z) instead of (z + |z|) / 2 would not be.
    """
    size = ops.abs(logits)
    return (logits + size) * 0.5 - logits * labels + ops.log(ops.exp(-size) + 1.0)


class FasterRCNN(OnBackbone):
    """FasterRCNN detects objects: `detect` returns boxes, classes and scores, and `loss` is what training minimises.

    backbone: a trained classifier; see OnBackbone
    num_classes: the number of classes of objects, without the ground
    rng: draws the weights of the new layers: normal, with a standard deviation of 0.01 (Ren et al. 2015, section
        3.1.3), and of 0.001 for the offsets of the head (Girshick 2015, section 2.3)
    """

    def __init__(self, backbone: CifarNet, num_classes: int = 10, *, rng: np.random.Generator):
        super().__init__(backbone, num_classes)
        shared, last = self.channels
        self.rpn = nn.Conv2d(shared, 32, 3, 2, 1, bias=True, rng=rng)
        self.objectness = nn.Conv2d(32, len(ANCHORS), 1, bias=True, rng=rng)
        self.anchor_offsets = nn.Conv2d(32, 4 * len(ANCHORS), 1, bias=True, rng=rng)
        self.class_scores = nn.Linear(last, 1 + num_classes, rng=rng)            # class 0 is the ground
        # The paper predicts offsets from the average over the map too, which has 2,048 channels. Here it has 32 for
        # width 8, and says too little about the place, so the offsets see every cell.
        self.box_offsets = nn.Linear(CELLS * CELLS * last, 4 * num_classes, rng=rng)
        # Most anchors have no object, so their objectness begins at -2, which is a probability of 0.12.
        new: list[tuple[Any, float, float]] = [
            (self.rpn, 0.01, 0), (self.objectness, 0.01, -2), (self.anchor_offsets, 0.01, 0),
            (self.class_scores, 0.01, 0), (self.box_offsets, 0.001, 0)]
        for layer, std, bias in new:
            layer.weight.data = init.normal(layer.weight.shape, std, rng=rng)
            layer.bias.data = init.constant(layer.bias.shape, bias)

    # ------------------------------------------------------------------------------------- the three networks

    def forward(self, images: Tensor) -> Tensor:
        """Return the shared map (N, C, H / 2, W / 2), rounded up, of images (N, 1, H, W). All the rest works on it."""
        return self.shared(images)

    def anchor_outputs(self, features: Tensor) -> tuple[Tensor, Tensor, np.ndarray]:
        """Return for all A anchors the objectness (N, A), the offsets (N, A, 4), and the anchors (A, 4) themselves."""
        h = ops.relu(self.rpn(features))
        N, _, height, width = h.shape
        objectness = self.objectness(h).reshape(N, -1)
        offsets = self.anchor_offsets(h).reshape(N, len(ANCHORS), 4, height, width)
        return objectness, offsets.transpose(0, 1, 3, 4, 2).reshape(N, -1, 4), grid_anchors(height, width)

    def head(self, features: Tensor, regions: Any) -> tuple[Tensor, Tensor]:
        """Return class scores (N K, 1 + classes) and offsets (N K, classes, 4) for regions (N, K, 4) in pixels."""
        h = run(self.layer3, roi_align(features, regions, STRIDE, BINS))
        offsets = self.box_offsets(h.reshape(len(h), -1))
        return self.class_scores(ops.global_avg_pool2d(h)), offsets.reshape(len(h), self.num_classes, 4)

    # ------------------------------------------------------------------------------------------------ training

    def loss(self, features: Tensor, scenes: Scenes, *, rng: np.random.Generator) -> Tensor:
        """Return the loss of a batch, one number: Ren et al. 2015, equation 1, plus Girshick 2015, equation 1.

            objectness / 32 + offsets of anchors / 32  +  classes / 12 + 0.5 offsets of regions / 12      per scene

        features: the output of `forward` for the images of `scenes`
        rng: draws the anchors and the regions that are used

        Raises ValueError if the features do not belong to the scenes, and for a label that the network does not have.
        """
        xp, dtype, N = device.of(features.data), features.dtype, len(features)
        cells = [-(-pixels // STRIDE) for pixels in scenes.images.shape[1:]]
        check_scenes("FasterRCNN", scenes, N, cells, features.shape[2:])
        def constant(array: Any) -> Tensor: return Tensor(xp.asarray(array, dtype))

        objectness, offsets, anchors = self.anchor_outputs(features)
        truths = [scenes.objects(i) for i in range(N)]
        pairs = [anchor_targets(anchors, boxes, rng) for boxes, _ in truths]
        labels, targets = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
        is_object = binary_cross_entropy(objectness, constant(labels == 1)) * constant(labels != UNUSED)
        place = smooth_l1(offsets - constant(targets), 1 / 9) * constant(labels == 1).reshape(N, -1, 1)
        proposal_loss = (is_object.sum() + place.sum()) / float(N * ANCHORS_USED)
        if not np.isfinite(proposal_loss.item()):
            return proposal_loss  # there is nothing to choose from; the caller reports the loss

        # Which proposals are used, and where they are, counts as constant: no gradient flows through the choice.
        found = proposals(objectness.data, offsets.data, anchors, scenes.images.shape[1:], KEPT)
        triples = [region_targets(f, *truth, rng) for f, truth in zip(found, truths, strict=True)]
        regions, classes, targets = (np.stack(arrays) for arrays in zip(*triples, strict=True))
        used = int((classes != UNUSED).sum())
        if not used:
            return proposal_loss  # no proposal is inside its image, and no image has an object
        scores, moves = self.head(features, xp.asarray(regions, dtype))
        classes, targets = classes.reshape(-1), targets.reshape(-1, 1, 4)
        class_loss = ops.cross_entropy(scores, xp.asarray(classes), ignore_index=UNUSED)
        own = classes[:, None, None] == np.arange(1, 1 + self.num_classes)[:, None]  # only the right class's offsets
        moved = smooth_l1(moves - constant(targets)) * constant(own)
        return proposal_loss + class_loss + moved.sum() * (BOX_WEIGHT / used)

    def groups(self) -> list[Group]:
        """Return the parameters with their learning rates: the new layers learn faster than the trained stages."""
        fast = [self.rpn, self.objectness, self.anchor_offsets, self.class_scores]
        return [Group(self.trained_stages()), Group([t for m in fast for t in m.parameters()], lr_factor=4.0),
                Group(self.box_offsets.parameters(), lr_factor=2.0)]

    # ------------------------------------------------------------------------------------------------ detecting

    def detect(self, images: Any, least_score: float = LEAST_SCORE, batch_size: int = 50,
               regions: Sequence[np.ndarray] | None = None) -> Detections:
        """Return the objects that the network finds in images float32 (N, 1, H, W), prepared by `inputs`.

        least_score: a box whose class has this probability or a lower one is left out
        regions: for each image the boxes (k, 4) in pixels which the head classifies and moves; None: the network's own
            proposals. With the objects' true boxes only the head can be wrong, so the result is about the most that
            better proposals could reach

        Of boxes of one class that overlap by more than 0.5, only the best is kept. The mode of every layer is as
        before.

        Raises ValueError if there are no images, for a number out of range, for regions that are not such boxes, and
        for outputs that are not finite.
        """
        check_batches("detect", images, batch_size)
        if not 0 <= least_score <= 1:
            raise ValueError(f"detect: least_score: expected a number from 0 to 1, got {least_score}")
        if regions is not None:
            _check_regions(regions, len(images))
        found = []
        with nn.modes_kept(self), no_grad(), kernels.session():
            self.eval()
            for i in range(0, len(images), batch_size):
                given = None if regions is None else [np.asarray(r, np.float64) for r in regions[i:i + batch_size]]
                found += self._detected(Tensor(images[i:i + batch_size]), least_score, i, given)
        boxes, scores, labels, scene = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
        return Detections(boxes, scores, labels, scene)

    def _detected(self, images: Tensor, least_score: float, first: int, found: list[np.ndarray] | None
                  ) -> list[tuple[np.ndarray, ...]]:
        """Return (boxes, scores, labels, image) for each image of a batch.

        first: the number of the first image
        found: the regions of each image; None: the proposals
        """
        size, features = images.shape[2:], self(images)
        if found is None:
            objectness, offsets, anchors = self.anchor_outputs(features)
            for outputs in objectness, offsets:
                check_finite("detect", outputs.data, first)
            found = proposals(objectness.data, offsets.data, anchors, size, KEPT_TEST)
        most = max(KEPT_TEST, *map(len, found))
        regions = np.stack([_filled(f, most) for f in found])
        scores, moves = self.head(features, device.of(features.data).asarray(regions, features.dtype))
        p = device.to(ops.softmax(scores).data, "cpu").reshape(len(found), most, -1)[..., 1:]
        scale = np.array(OFFSET_SCALE, np.float32)
        moves = device.to(moves.data, "cpu").reshape(*p.shape, 4) * scale
        check_finite("detect", np.concatenate([p, moves.reshape(*p.shape[:2], -1)], 2), first)
        boxes = clip(decode(moves, regions[:, :, None].astype(moves.dtype)), *size)
        results: list[tuple[np.ndarray, ...]] = []
        for i, real in enumerate(map(len, found)):
            certain = (p[i, :real] > least_score) & _has_extent(boxes[i, :real])
            region, label = np.nonzero(certain)
            b, s = boxes[i, region, label], p[i, region, label]
            kept = nms(b, s, DETECTION_NMS, label)
            results.append((b[kept], s[kept], label[kept], np.full(len(kept), first + i)))
        return results


# ------------------------------------------------------------------------------------------------- what is chosen
# These functions choose boxes. They work on NumPy arrays, on a GPU too: they handle a few numbers one by one.


def anchor_targets(anchors: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return what the anchors of one image should predict: labels (A,) and offsets (A, 4). Ren et al. 2015, 3.1.2.

    anchors, boxes: (A, 4), and (m, 4) of the objects

    The label is 1 (object) for an anchor whose IoU with an object is 0.7 or more, or the largest for that object; 0
    (ground) if the IoU with every object is below 0.3; and -1 (not used) otherwise. Of these, `rng` draws at most 16
    with label 1, and as many with label 0 as make 32 together. The others get label -1.
    """
    labels, targets = np.full(len(anchors), UNUSED), np.zeros_like(anchors)
    if len(boxes):
        overlaps = iou(boxes.astype(anchors.dtype), anchors)
        best, nearest = overlaps.max(0), overlaps.argmax(0)
        largest = overlaps.max(1, keepdims=True)
        positive = (best >= OBJECT) | ((overlaps == largest) & (largest > 0)).any(0)
        negative = (best < GROUND_BELOW) & ~positive
        targets = np.where(positive[:, None], encode(boxes[nearest].astype(anchors.dtype), anchors), 0)
    else:
        positive, negative = np.zeros(len(anchors), bool), np.ones(len(anchors), bool)
    ones, zeros = _drawn(positive, negative, ANCHORS_USED, ANCHORS_POSITIVE, rng)
    labels[ones], labels[zeros] = 1, 0
    return labels, targets


def region_targets(found: np.ndarray, boxes: np.ndarray, labels: np.ndarray, rng: np.random.Generator
                   ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the 12 regions of one image on which the head is trained: boxes (12, 4), classes (12,), offsets (12, 4).

    found, boxes, labels: proposals (k, 4), and the boxes (m, 4) and labels (m,) of the objects

    The objects' own boxes are candidates too, so that there are good ones from the first step. A region whose IoU with
    an object is 0.5 or more gets its class plus 1; the others get class 0, the ground. At most 6 of the first kind are
    drawn. If there are fewer than 12 candidates, the remaining rows have class -1, which the loss ignores.
    """
    boxes = boxes.astype(np.float64)
    candidates = np.concatenate([found, boxes])
    overlaps = iou(candidates, boxes) if len(boxes) else np.zeros((len(candidates), 1))
    best, nearest = overlaps.max(1), overlaps.argmax(1)
    ones, zeros = _drawn(best >= SAME, best < SAME, REGIONS, REGIONS_POSITIVE, rng)
    chosen = np.concatenate([ones, zeros])
    classes, targets = np.full(REGIONS, UNUSED), np.zeros((REGIONS, 4))
    classes[:len(chosen)] = 0
    if len(ones):
        classes[:len(ones)] = labels[nearest[ones]].astype(np.int64) + 1
        targets[:len(ones)] = encode(boxes[nearest[ones]], candidates[ones]) / OFFSET_SCALE
    return _filled(candidates[chosen], REGIONS), classes, targets


def proposals(objectness: Any, offsets: Any, anchors: np.ndarray, size: Sequence[int], keep: int) -> list[np.ndarray]:
    """Return the proposals (k, 4) of each image, k <= keep, float64, the best first: Ren et al. 2015, section 3.1.

    objectness, offsets: (N, A) and (N, A, 4)
    size: height and width of the images
    """
    scores, moves = (device.to(a, "cpu").astype(np.float64) for a in (objectness, offsets))
    ranked = np.argsort(-scores, axis=1, kind="stable")[:, :RANKED]
    scores, moves = np.take_along_axis(scores, ranked, 1), np.take_along_axis(moves, ranked[..., None], 1)
    found = []
    for boxes, s in zip(clip(decode(moves, anchors[ranked]), *size), scores, strict=True):
        whole = _has_extent(boxes)
        boxes, s = boxes[whole], s[whole]
        found.append(boxes[nms(boxes, s, PROPOSAL_NMS)[:keep]])
    return found


def _drawn(positive: np.ndarray, negative: np.ndarray, count: int, most: int, rng: np.random.Generator
           ) -> tuple[np.ndarray, np.ndarray]:
    """Draw the places of at most `most` positives, and of negatives so that there are `count` together if possible."""
    ones = rng.permutation(np.flatnonzero(positive))[:most]
    return ones, rng.permutation(np.flatnonzero(negative))[:count - len(ones)]


def _filled(boxes: np.ndarray, count: int) -> np.ndarray:
    """Return `count` boxes: those given, and then boxes of 1x1 pixels, which are not used."""
    return np.concatenate([boxes, np.tile([0.0, 0.0, 1.0, 1.0], (count - len(boxes), 1))])


def _check_regions(regions: Sequence[np.ndarray], count: int) -> None:
    if len(regions) != count:
        raise ValueError(f"detect: regions: expected one array for each of {count} images, got {len(regions)}")
    for i, boxes in enumerate(map(np.asarray, regions)):
        if boxes.ndim != 2 or boxes.shape[1] != 4 or not (boxes[:, :2] < boxes[:, 2:]).all():
            raise ValueError(f"detect: regions: image {i}: expected boxes (k, 4) with x0 < x1 and y0 < y1, got "
                             f"{boxes.tolist()}")


def _has_extent(boxes: np.ndarray) -> np.ndarray:
    """Return which boxes (..., 4) are at least one pixel wide and high. Clipping can make them smaller."""
    return (boxes[..., 2] - boxes[..., 0] >= 1) & (boxes[..., 3] - boxes[..., 1] >= 1)
