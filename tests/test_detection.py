"""Test the arithmetic of detection: boxes, RoIAlign, average precision, the other measures; and plant bugs in it.

The expected values are closed forms, plain loops over pixels and boxes, pycocotools, and torchvision's formulas.
"""

import contextlib
import io

import numpy as np
import pytest
from planting import plant

from minires import Tensor, detection, gradcheck, ops
from minires.datasets import Scenes, scenes
from minires.detection import (
    COCO_AREAS,
    Detections,
    average_precision,
    boxes,
    faster_rcnn,
    localisation_errors,
    mean_iou,
    measures,
    regions,
    segmentation,
)

F4 = np.float32


def drawn_boxes(n, seed=0, size=56, whole=False):
    rng = np.random.default_rng(seed)
    corner, sides = rng.uniform(0, size - 12, (n, 2)), rng.uniform(2, 12, (n, 2)) * [1, 0.6]
    found = np.concatenate([corner, corner + sides], 1)
    return np.round(found) + np.array([0, 0, 1, 1]) if whole else found


# --------------------------------------------------------------------------------------------------- boxes


def iou_is_right():
    """Count the pixels of whole-number boxes, and compare with closed forms."""
    a, b = drawn_boxes(20, 1, 20, whole=True), drawn_boxes(30, 2, 20, whole=True)
    canvas = np.zeros((50, 40, 40), bool)
    for i, (x0, y0, x1, y1) in enumerate(np.concatenate([a, b]).astype(int)):
        canvas[i, y0:y1, x0:x1] = True
    pixels = [[(p & q).sum() / (p | q).sum() for q in canvas[20:]] for p in canvas[:20]]
    np.testing.assert_allclose(boxes.iou(a, b), pixels, rtol=1e-14, err_msg="IoU")
    apart = np.array([[0.0, 0, 2, 2], [5, 5, 9, 9], [2, 0, 4, 2]])
    assert boxes.iou(apart, apart).tolist() == np.eye(3).tolist(), "IoU of boxes that are apart or touch"


def offsets_are_right():
    """The closed form on one box, and the inverse on many, for anchors that are not square."""
    anchor, box = np.array([10.0, 20, 30, 60]), np.array([20.0, 25, 30, 105])
    expected = [5 / 20, 25 / 40, np.log(10 / 20), np.log(80 / 40)]
    np.testing.assert_allclose(boxes.encode(box, anchor), expected, rtol=1e-14, err_msg="offsets")
    a, b = drawn_boxes(40, 3), drawn_boxes(40, 4)
    np.testing.assert_allclose(boxes.decode(boxes.encode(b, a), a), b, rtol=1e-10, err_msg="decode(encode)")
    np.testing.assert_allclose(boxes.decode(np.array(expected), anchor), box, rtol=1e-14, err_msg="decode")


def plain_nms(b, scores, threshold, labels):
    """The definition, with no array operation."""
    left, kept = sorted(range(len(b)), key=lambda i: -scores[i]), []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [i for i in left if labels[i] != labels[best] or boxes.iou(b[[i]], b[[best]])[0, 0] <= threshold]
    return kept


def nms_is_right():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        b, scores = drawn_boxes(40, seed, 30), rng.integers(0, 12, 40) / 12  # many scores are equal
        labels = rng.integers(0, 3, 40)
        for threshold in 0.1, 0.3:
            one = boxes.nms(b, scores, threshold).tolist()
            assert one == plain_nms(b, scores, threshold, np.zeros(40)), "NMS"
            many = boxes.nms(b, scores, threshold, labels).tolist()
            assert many == plain_nms(b, scores, threshold, labels), "NMS by class"
            assert len(one) < len(many) < 40


@pytest.mark.parametrize("check", [iou_is_right, offsets_are_right, nms_is_right])
def test_boxes(check):
    check()


def test_float32_stays_float32_and_batches_keep_their_axes():
    a, b = drawn_boxes(6, 0).astype(F4).reshape(2, 3, 4), drawn_boxes(8, 1).astype(F4).reshape(2, 4, 4)
    overlaps = boxes.iou(a, b)
    assert overlaps.shape == (2, 3, 4) and overlaps.dtype == F4
    np.testing.assert_array_equal(overlaps[1], boxes.iou(a[1], b[1]))
    assert boxes.decode(boxes.encode(a, a), a).dtype == boxes.clip(a, 5, 5).dtype == F4


def test_clip_and_the_largest_growth():
    found = boxes.clip(np.array([[-3.0, 5, 70, 60], [60, 0, 80, 9]]), 50, 56)
    assert found.tolist() == [[0, 5, 56, 50], [56, 0, 56, 9]]
    (x0, y0, x1, y1), = boxes.decode(np.array([[0.0, 0, 900, -1]]), np.array([[0.0, 0, 2, 4]]))
    np.testing.assert_allclose([x1 - x0, y1 - y0], [32, 4 * np.exp(-1)])


@pytest.mark.parametrize("scores, text", [
    (np.array([0.5, np.nan]), "nms: score 1 is NaN"),
    (np.array([0.5]), r"nms: expected boxes \(N, 4\) and scores \(N,\), got \(2, 4\) and \(1,\)")])
def test_nms_refuses_wrong_scores(scores, text):
    with pytest.raises(ValueError, match=text):
        boxes.nms(drawn_boxes(2), scores, 0.5)


INVERTED, GOOD_BOX = np.array([[0.0, 0, 1, 1], [5, 5, 5, 9]]), np.array([[0.0, 0, 4, 4]])


@pytest.mark.parametrize("f, error, text", [
    (lambda: boxes.iou(GOOD_BOX, INVERTED), ValueError,
     r"iou: b: box 1: expected x0 < x1 and y0 < y1, from .*, got \[5.0, 5.0"),
    (lambda: boxes.iou(GOOD_BOX * np.nan, GOOD_BOX), ValueError, "iou: a: box 0: expected x0 < x1"),
    (lambda: boxes.iou(GOOD_BOX, np.array([[0, 0, np.inf, 1]])), ValueError, "iou: b: box 0: expected"),
    (lambda: boxes.iou(GOOD_BOX > 1, GOOD_BOX), TypeError, "iou: a: expected an array of numbers, got bool"),
    (lambda: boxes.iou(GOOD_BOX[0], GOOD_BOX), ValueError,
     r"iou: a: expected shape \(N, 4\), got \(4,\); write one box as a\[None\]"),
    (lambda: boxes.nms(GOOD_BOX[0], np.ones(4), 0.5), ValueError, r"nms: boxes: expected shape \(N, 4\), got \(4,\)"),
    (lambda: boxes.iou(GOOD_BOX.tolist(), GOOD_BOX), TypeError, "iou: a: expected an array .*, got list"),
    (lambda: boxes.iou(GOOD_BOX, np.ones((2, 5))), ValueError, r"iou: b: expected shape \(N, 4\), got \(2, 5\)"),
    (lambda: boxes.encode(INVERTED, INVERTED), ValueError, "encode: boxes: box 1: expected"),
    (lambda: boxes.encode(GOOD_BOX, INVERTED), ValueError, "encode: anchors: box 1: expected"),
    (lambda: boxes.decode(INVERTED, INVERTED), ValueError, "decode: anchors: box 1: expected"),
    (lambda: boxes.clip(GOOD_BOX > 1, 300, 300), TypeError, "clip: boxes: expected an array of numbers, got bool"),
    (lambda: boxes.nms(INVERTED, np.ones(2), 0.5), ValueError, "nms: boxes: box 1: expected"),
    (lambda: boxes.nms(drawn_boxes(3), np.ones(3, np.uint8), 0.5), TypeError, "nms: scores: expected .*, got uint8"),
    (lambda: boxes.nms(drawn_boxes(3), np.ones(3), 0.5, np.array([1])), ValueError,
     r"nms: expected boxes \(N, 4\) and labels \(N,\), got \(3, 4\) and \(1,\)"),
    (lambda: boxes.nms(drawn_boxes(3), np.ones(3), 0.5, [1, 2, 3]), TypeError, "nms: labels: expected .*, got list"),
    (lambda: boxes.nms(drawn_boxes(3), np.ones(3), np.nan), ValueError, "nms: threshold: expected .* from 0 to 1"),
    (lambda: regions.roi_align(Tensor(np.ones((1, 2, 4, 4))), INVERTED[None], 2), ValueError, "roi_align: boxes: box"),
    (lambda: regions.roi_align(Tensor(np.ones((1, 2, 4, 4))), GOOD_BOX[None], 2, samples=0), ValueError,
     "roi_align: expected stride, bins and samples from 1, got 2, 7 and 0"),
    (lambda: regions.roi_align(Tensor(np.ones((2, 4, 4))), GOOD_BOX[None], 2), ValueError,
     r"roi_align: expected features \(N, C, H, W\)"),
    (lambda: segmentation.upsample(Tensor(np.ones((1, 2, 4, 4))), 0, 4, 4), ValueError, "upsample: expected stride, "),
    (lambda: faster_rcnn.smooth_l1(Tensor(np.ones(2)), 0), ValueError, "smooth_l1: beta: expected a number above 0")])
def test_wrong_boxes_and_numbers_are_refused_and_named(f, error, text):
    with pytest.raises(error, match=text):
        f()


@pytest.mark.parametrize("dtype", [np.int64, np.uint8])
def test_whole_numbers_become_float64(dtype):
    """Scenes.boxes are int64. Unsigned numbers have no negative differences, so a wrong IoU would show here."""
    a, b = drawn_boxes(12, 1, 20, whole=True), drawn_boxes(12, 2, 20, whole=True)
    i, j, scores = a.astype(dtype), b.astype(dtype), np.linspace(1, 0.5, 12)
    features = Tensor(np.random.default_rng(0).standard_normal((1, 2, 10, 10)).astype(F4))
    for got, expected in [(boxes.iou(i, j), boxes.iou(a, b)), (boxes.encode(i, j), boxes.encode(a, b)),
                          (boxes.decode(boxes.encode(a, b), j), boxes.decode(boxes.encode(a, b), b)),
                          (boxes.clip(i, 9, 9), boxes.clip(a, 9, 9)),
                          (boxes.nms(i, scores, 0.1), boxes.nms(a, scores, 0.1)),
                          (regions.roi_align(features, i[None], 2).data,
                           regions.roi_align(features, a.astype(F4)[None], 2).data)]:
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


def test_detections_and_average_precision_print_on_one_line():
    held = scenes(3, 0, "test")
    found = Detections(held.boxes, np.linspace(0.9, 0.5, len(held.boxes)), held.labels, held.scene)
    assert repr(found) == f"Detections({len(held.boxes)} boxes in 3 images)"
    assert repr(found[:1]) == "Detections(1 box in 1 image)" and repr(found[:0]) == "Detections(0 boxes in 0 images)"
    perfect = average_precision(found, held)
    assert repr(perfect) == "AveragePrecision(AP 1.000, AP at IoU 0.50 1.000)"
    other = average_precision(found, held, ranges={"tiny": (0, 1)}, thresholds=[0.9])
    assert repr(other) == "AveragePrecision(AP nan; tiny objects)"
    for one in 0, np.int64(0):
        with pytest.raises(TypeError, match=r"expected a slice, as in found\[:8\].*; one detection is found\[i:i"):
            found[one]
    with pytest.raises(ValueError, match=r"thresholds 0.50, 0.55, 0.60, 0.65, .*, 0.95, got 0.62"):
        perfect.ap(0.62)


def test_iou_of_very_small_boxes():
    """In normalised coordinates an object can have an area of 1e-14."""
    for dtype in np.float64, F4:
        small = (np.array([[0.0, 0, 1, 1], [0, 0, 2, 1]]) * 1e-7).astype(dtype)
        np.testing.assert_allclose(boxes.iou(small, small), [[1, 0.5], [0.5, 1]], rtol=1e-6)


def test_nms_of_no_boxes():
    assert boxes.nms(np.zeros((0, 4)), np.zeros(0), 0.5).tolist() == []


# ------------------------------------------------------------------------------------------------- RoIAlign


def plain_roi_align(features, rois, stride, bins, samples):
    """torchvision's formula with aligned=True, one sample after the other."""
    N, C, H, W = features.shape
    result = np.zeros((N, len(rois[0]), C, bins, bins))
    for n, k in np.ndindex(*rois.shape[:2]):
        x0, y0, x1, y1 = rois[n, k] / stride - 0.5
        for i, j, s, t in np.ndindex(bins, bins, samples, samples):
            y = y0 + (y1 - y0) / bins * (i + (s + 0.5) / samples)
            x = x0 + (x1 - x0) / bins * (j + (t + 0.5) / samples)
            y, x = min(max(y, 0), H - 1), min(max(x, 0), W - 1)
            top, left = min(int(y), H - 2), min(int(x), W - 2)
            v, u = y - top, x - left
            f = features[n, :, top:top + 2, left:left + 2]
            value = f[:, 0, 0] * (1 - v) * (1 - u) + f[:, 0, 1] * (1 - v) * u + f[:, 1, 0] * v * (1 - u) \
                + f[:, 1, 1] * v * u
            result[n, k, :, i, j] += value / samples**2
    return result.reshape(-1, C, bins, bins)


def roi_align_is_right():
    rng = np.random.default_rng(0)
    features, rois = rng.standard_normal((2, 3, 7, 9)), drawn_boxes(8, 5, 14).reshape(2, 4, 4)
    rois[..., 2:] = np.minimum(rois[..., 2:], [18, 14])
    for bins, samples in (3, 2), (4, 1):
        got = regions.roi_align(Tensor(features), rois, 2, bins, samples).data
        np.testing.assert_allclose(got, plain_roi_align(features, rois, 2, bins, samples), rtol=1e-11, atol=1e-13,
                                   err_msg="RoIAlign")


def test_roi_align():
    roi_align_is_right()


def test_roi_align_of_a_ramp_is_exact():
    """The mean of a linear function over a bin is its value at the bin's centre."""
    y, x = np.mgrid[:10, :12] + 0.5
    ramp = (3 * x + 5 * y)[None, None]
    got = regions.roi_align(Tensor(ramp), np.array([[[4.0, 6, 16, 10]]]), 2, bins=2).data[0, 0]
    assert np.allclose(got, [[3 * c + 5 * r for c in (3.5, 6.5)] for r in (3.5, 4.5)])


def test_the_gradient_of_roi_align():
    rois = drawn_boxes(6, 5, 12).reshape(2, 3, 4)
    gradcheck(lambda f: regions.roi_align(f, rois, 2, 3), np.random.default_rng(0).standard_normal((2, 3, 6, 8)))


def test_roi_align_refuses_boxes_that_do_not_fit():
    features = Tensor(np.zeros((2, 3, 6, 8), F4))
    for wrong in np.zeros((3, 5, 4), F4), np.zeros((2, 5, 4)), np.zeros((2, 4), F4):
        with pytest.raises(ValueError, match=r"roi_align: expected boxes \(2, K, 4\) of float32"):
            regions.roi_align(features, wrong, 2)


def test_the_formulas_of_torchvision():
    """torchvision's own functions in Python, where it is installed beside a PyTorch that it was built for."""
    try:
        import torchvision.ops as theirs
    except (ImportError, RuntimeError) as e:
        pytest.skip(f"compared with torchvision, which does not load: {e}")
    import torch

    a, b = drawn_boxes(20, 1), drawn_boxes(30, 2)
    np.testing.assert_allclose(boxes.iou(a, b), theirs.box_iou(torch.tensor(a), torch.tensor(b)).numpy(), rtol=1e-13)
    scores = np.random.default_rng(0).uniform(size=20)
    kept = theirs.nms(torch.tensor(a), torch.tensor(scores), 0.2).tolist()
    assert boxes.nms(a, scores, 0.2).tolist() == kept
    features = np.random.default_rng(0).standard_normal((2, 3, 28, 28))
    rois = a.reshape(2, 10, 4)
    expected = theirs.roi_align(torch.tensor(features), list(torch.tensor(rois)), 7, 0.5, 2, aligned=True)
    np.testing.assert_allclose(regions.roi_align(Tensor(features), rois, 2).data, expected.numpy(), rtol=1e-12,
                               atol=1e-13)


# ----------------------------------------------------------------------------------------------- upsampling


def test_upsampling_keeps_the_cells_and_is_linear_between_them():
    cells = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    big = segmentation.upsample(Tensor(cells), 2, 8, 10).data
    np.testing.assert_allclose(big[:, :, ::2, ::2], cells, rtol=1e-14)
    np.testing.assert_allclose(big[:, :, ::2, 1:9:2], (cells[..., :-1] + cells[..., 1:]) / 2, rtol=1e-13)
    np.testing.assert_array_equal(big[:, :, 7], big[:, :, 6])  # after the last cell
    gradcheck(lambda s: segmentation.upsample(s, 4, 9, 7), cells[:, :, :3, :2])


def test_upsampling_is_a_transposed_convolution():
    """Scatter each cell with the kernel (1 - |p / s|) (1 - |q / s|). This is the gradient of a convolution of stride s.
    The last rows and columns differ, because after the last cell there is no next one."""
    s, cells = 4, np.random.default_rng(0).standard_normal((2, 1, 4, 5))
    hat = 1 - abs(np.arange(1 - s, s)) / s
    kernel = Tensor((hat[:, None] * hat)[None, None])
    image = Tensor(np.zeros((2, 1, 4 * s + s - 1, 5 * s + s - 1)), True)
    ops.conv2d(image, kernel, stride=s).backward(cells)
    big = segmentation.upsample(Tensor(cells), s, 4 * s, 5 * s).data
    inside = image.grad[:, :, s - 1:s - 1 + 3 * s + 1, s - 1:s - 1 + 4 * s + 1]
    np.testing.assert_allclose(big[:, :, :3 * s + 1, :4 * s + 1], inside, rtol=1e-13)


# --------------------------------------------------------------------------------------------------- losses


def smooth_l1_is_right():
    x = np.array([-3.0, -0.4, -0.05, 0.0, 0.1, 0.3, 2.0])
    for beta in 1.0, 1 / 9:
        expected = [v * v / (2 * beta) if abs(v) < beta else abs(v) - beta / 2 for v in x]
        np.testing.assert_allclose(faster_rcnn.smooth_l1(Tensor(x), beta).data, expected, rtol=1e-14, atol=1e-300,
                                   err_msg="smooth L1")
        gradcheck(lambda t, beta=beta: faster_rcnn.smooth_l1(t, beta), x)


def test_smooth_l1():
    smooth_l1_is_right()
    assert faster_rcnn.smooth_l1(Tensor(np.ones(2, F4)), 1 / 9).dtype == F4


def test_binary_cross_entropy():
    z, labels = np.array([-800.0, -2, 0.5, 3, 800]), np.array([0.0, 1, 0, 1, 1])
    p = 1 / (1 + np.exp(-z[1:4]))
    expected = [0, -np.log(p[0]), -np.log(1 - p[1]), -np.log(p[2]), 0]
    np.testing.assert_allclose(faster_rcnn.binary_cross_entropy(Tensor(z), Tensor(labels)).data, expected, atol=1e-15)
    gradcheck(lambda t: faster_rcnn.binary_cross_entropy(t, Tensor(labels[1:4])), z[1:4])


# ---------------------------------------------------------------------------------------- average precision


def made(truths, answers, size=200, classes=3):
    """Return (Scenes, Detections) from [(image, label, box)] and [(image, label, box, score)]."""
    count = 1 + max([t[0] for t in truths] + [a[0] for a in answers], default=0)
    truths = sorted(truths, key=lambda t: t[0])
    def column(rows, i, dtype, *shape): return np.array([r[i] for r in rows], dtype).reshape(-1, *shape)
    return (Scenes(np.zeros((count, size, size), np.uint8), column(truths, 2, float, 4), column(truths, 1, int),
                   column(truths, 0, int), tuple("abcdefghij"[:classes])),
            Detections(column(answers, 2, float, 4), column(answers, 3, float), column(answers, 1, int),
                       column(answers, 0, int)))


A, B, FAR = (0, 0, 10, 10), (20, 20, 30, 30), (50, 50, 60, 60)


def test_average_precision_by_hand():
    """Two objects. Right, wrong, right: the precision is 1 up to recall 1/2, and 2/3 up to recall 1."""
    held, found = made([(0, 0, A), (0, 0, B)], [(0, 0, A, 0.9), (0, 0, FAR, 0.8), (0, 0, B, 0.7)])
    expected = (51 + 50 * 2 / 3) / 101
    result = average_precision(found, held)
    assert np.isclose(result.ap(), expected) and np.isclose(result.ap(0.5), expected)
    assert np.isclose(result.ap(0.5, label=0), expected) and np.isnan(result.ap(label=1))
    assert result.ar(100) == 1 and result.ar(1) == 0.5
    with pytest.raises(ValueError, match="expected one of the thresholds"):
        result.ap(0.52)


def the_precision_never_rises_with_recall():
    """Wrong, right: the precision is 1/2 at every recall up to 1. Right, wrong, wrong, right, right: it has a dip."""
    held, found = made([(0, 0, A)], [(0, 0, FAR, 0.9), (0, 0, A, 0.8)])
    assert np.isclose(average_precision(found, held).ap(0.5), 0.5), "AP"
    held, found = made([(i, 0, A) for i in range(3)],
                       [(0, 0, A, 0.9), (0, 0, FAR, 0.8), (1, 0, FAR, 0.7), (1, 0, A, 0.6), (2, 0, A, 0.5)])
    expected = (34 + 67 * 3 / 5) / 101  # the precision 2/4 at recall 2/3 is lower than 3/5 later
    assert np.isclose(average_precision(found, held).ap(0.5), expected), "AP"


def a_second_detection_is_wrong():
    held, found = made([(0, 0, A), (1, 0, A)], [(0, 0, A, 0.9), (0, 0, A, 0.8), (1, 0, A, 0.7)])
    assert np.isclose(average_precision(found, held).ap(0.5), (51 + 50 * 2 / 3) / 101), "AP"


def random_answers(seed, images=60, size=200):
    """Return objects of all sizes in three classes, and detections near them and elsewhere, many with equal scores."""
    rng = np.random.default_rng(seed)

    def box(n):
        sides = np.round(np.exp(rng.uniform(1, 4.9, (n, 2))))
        corner = np.floor(rng.uniform(0, 1, (n, 2)) * (size - sides))
        return np.concatenate([corner, corner + sides], 1)

    truths, answers = [], []
    for i in range(images):
        here = box(rng.integers(0, 7))
        truths += [(i, int(rng.integers(0, 3)), b) for b in here]
        for _, label, b in truths[len(truths) - len(here):]:
            for _ in range(rng.integers(0, 4)):
                near = np.clip(b + np.round((b[2:] - b[:2]).mean() * rng.normal(0, 0.06, 4)), 0, size)
                if (near[2:] > near[:2]).all():
                    answers.append((i, label if rng.random() < 0.9 else int(rng.integers(0, 3)), near,
                                    rng.integers(3, 9) / 8))
        answers += [(i, int(rng.integers(0, 3)), b, rng.integers(1, 7) / 8) for b in box(rng.integers(0, 5))]
        if i == 0:
            answers += [(i, 0, b, rng.integers(1, 60) / 99) for b in box(130)]  # more than 100 of one class
    return made(truths, answers, size)


def coco_evaluation(held, found):
    """Return precision and recall of pycocotools."""
    pytest.importorskip("pycocotools", reason="compared with pycocotools, which is not installed")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def entries(b, labels, scene):
        return [{"id": n + 1, "image_id": int(i), "category_id": int(c),
                 "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]]}
                for n, (box, c, i) in enumerate(zip(b.tolist(), labels, scene, strict=True))]

    truth = COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        objects = entries(held.boxes, held.labels, held.scene)
        truth.dataset = {"images": [{"id": i} for i in range(len(held))],
                         "categories": [{"id": c} for c in range(len(held.classes))],
                         "annotations": [o | {"iscrowd": 0, "area": o["bbox"][2] * o["bbox"][3]} for o in objects]}
        truth.createIndex()
        answers = entries(found.boxes, found.labels, found.scene)
        theirs = truth.loadRes([a | {"score": s} for a, s in zip(answers, found.scores.tolist(), strict=True)])
        evaluation = COCOeval(truth, theirs, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


@pytest.mark.parametrize("seed", [0, 1])
def test_average_precision_is_pycocotools(seed):
    held, found = random_answers(seed)
    precision, recall = coco_evaluation(held, found)
    result = average_precision(found, held, ranges=COCO_AREAS)
    assert precision.shape == result.precision.shape and len(found) > 300
    assert abs(precision - result.precision).max() < 1e-12 and abs(recall - result.recall).max() < 1e-12
    values = [result.ap(area=name) for name in COCO_AREAS]
    assert len({round(v, 6) for v in values}) == 4 and all(0.02 < v < 0.95 for v in values), values


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_average_precision_is_pycocotools_for_thousands(seed):
    held, found = random_answers(seed, images=400)
    precision, recall = coco_evaluation(held, found)
    result = average_precision(found, held, ranges=COCO_AREAS)
    assert abs(precision - result.precision).max() < 1e-12 and abs(recall - result.recall).max() < 1e-12
    assert len(found) > 2000


@pytest.mark.parametrize("check", [the_precision_never_rises_with_recall, a_second_detection_is_wrong])
def test_average_precision(check):
    check()


def test_the_controls():
    """True boxes with true labels score 1; true boxes with shuffled labels are near 0."""
    held = scenes(60, 0, "test")
    scores = np.random.default_rng(0).uniform(size=len(held.boxes))
    perfect = Detections(held.boxes, scores, held.labels.astype(int), held.scene)
    assert average_precision(perfect, held).ap() == 1 == average_precision(perfect, held).ap(area="small")
    place = localisation_errors(perfect, held)
    assert place[1:] == (0, 0, 0) and place.scenes > 5
    shuffled = Detections(held.boxes, scores, np.random.default_rng(1).permutation(perfect.labels), held.scene)
    assert average_precision(shuffled, held).ap() < 0.1


def test_an_image_without_objects_and_an_image_without_detections():
    held, found = made([(2, 0, A)], [(0, 0, A, 0.9), (2, 0, A, 0.8)])
    assert np.isclose(average_precision(found, held).ap(), 0.5)  # the detection in the empty image is wrong
    _, none = made([], [])
    assert average_precision(none, held).ap() == 0
    with pytest.raises(ValueError, match="the scenes have no objects"):
        average_precision(none, made([], [(0, 0, A, 1)])[0])


def test_unsigned_numbers_are_ranked_as_numbers():
    """The negative of an unsigned 0 is 0, and of 200 it is 56: sorted by it, the lowest score would be the first."""
    held, found = made([(0, 0, A)], [(0, 0, FAR, 0), (0, 0, A, 200)])
    small = Detections(found.boxes.astype(np.uint8), found.scores.astype(np.uint8), found.labels.astype(np.uint8),
                       found.scene.astype(np.uint8))
    for answers in small, Detections(small.boxes, (found.scores - 100).astype(np.int8), small.labels, small.scene):
        assert np.isclose(average_precision(answers, held).ap(), 1)
        assert localisation_errors(answers, held)[1:] == (0, 0, 0)
    both, _ = made([(0, 0, A)], [])
    twice = Detections(small.boxes[[1, 1]], small.scores, small.labels, small.scene)
    assert measures.true_positives(twice, both).tolist() == [False, True]


@pytest.mark.parametrize("f, error, text", [
    (lambda held, found: average_precision(held, found), TypeError, "expected Detections and then Scenes, got Scenes"),
    (lambda held, found: average_precision(found, held, thresholds=[np.nan]), ValueError, "thresholds above 0"),
    (lambda held, found: average_precision(found, held, thresholds=[]), ValueError, "expected thresholds above 0"),
    (lambda held, found: average_precision(found, held, ranges={}), ValueError, "ranges: expected at least one"),
    (lambda held, found: average_precision(found, held, ranges={"all": (5, 0)}), ValueError, "ranges: expected"),
    (lambda held, found: average_precision(found, held).ap(area="huge"), ValueError,
     "range of areas: expected one of all, small, medium, large, got 'huge'"),
    (lambda held, found: average_precision(found, held).ap(label=-1), ValueError, "class: expected one of 0, 1, 2"),
    (lambda held, found: average_precision(found, held).ar(5), ValueError, "number: expected one of 1, 10, 100, got 5"),
    (lambda held, found: measures.true_positives(found, held, np.nan), ValueError, "expected thresholds above 0"),
    (lambda held, found: mean_iou(np.zeros((2, 2), int), np.zeros((2, 2), int), 2.5), ValueError,
     "mean_iou: num_classes: expected a whole number from 1, got 2.5")])
def test_settings_that_do_not_exist_are_refused(f, error, text):
    with pytest.raises(error, match=text):
        f(*made([(0, 0, A)], [(0, 0, A, 0.9)]))


@pytest.mark.parametrize("answer, text", [
    ((0, 3, A, 0.5), "detection 1: expected a class from 0 to 2, got 3"),
    ((1, 0, A, 0.5), "detection 1: expected an image from 0 to 0, got 1")])
def test_classes_and_images_that_do_not_exist_are_refused(answer, text):
    held, _ = made([(0, 0, A)], [])
    _, found = made([], [(0, 0, A, 0.9), answer])
    for measure in average_precision, localisation_errors:
        with pytest.raises(ValueError, match=text):
            measure(found, held)


@pytest.mark.parametrize("change, error, text", [
    ({"scores": np.array([0.5, np.nan])}, ValueError, "detection 1: expected a finite score, got nan"),
    ({"boxes": np.array([A, (3, 3, 3, 5)])}, ValueError,
     r"detection 1: expected a box with x0 < x1 and y0 < y1, got \[3, 3, 3, 5\]"),
    ({"boxes": np.array([A, (3, 3, np.inf, 5)])}, ValueError, "detection 1: expected a box"),
    ({"boxes": np.array([A, (0, 0, 1e308, 1e308)])}, ValueError, "detection 1: expected a box with coordinates from"),
    ({"labels": np.array([-1, 0])}, ValueError, "detection 0: expected a label from 0, got -1"),
    ({"scene": np.array([0, -2])}, ValueError, "detection 1: expected an image from 0, got -2"),
    ({"labels": np.array([0.0, 1.0])}, TypeError, "labels: expected a NumPy array of whole numbers, got float64"),
    ({"scores": np.array([0.5])}, ValueError, r"expected boxes \(M, 4\), and scores, labels and scene \(M,\)")])
def test_wrong_detections_are_refused_and_named(change, error, text):
    given = {"boxes": np.array([A, B]), "scores": np.array([0.5, 0.25]), "labels": np.array([0, 1]),
             "scene": np.array([0, 0])} | change
    with pytest.raises(error, match=text):
        Detections(**given)


# ----------------------------------------------------------------------------------------- the other measures


def test_localisation_errors_by_hand():
    """Scene 3 has two objects, and does not count. The best detection: 0 right; 1 wrong class; 2 wrong box; 4 none."""
    held, found = made([(0, 0, A), (1, 0, A), (2, 0, A), (3, 0, A), (3, 1, B), (4, 2, A)],
                       [(0, 0, A, 0.9), (0, 1, B, 0.8), (1, 1, A, 0.9), (1, 0, A, 0.8), (2, 0, FAR, 0.9),
                        (2, 0, A, 0.8)])
    assert localisation_errors(found, held) == (4, 75.0, 50.0, 50.0)
    with pytest.raises(ValueError, match="expected at least one scene with exactly one object"):
        localisation_errors(found[found.scene == 3], held[3:4][np.array([0])])


def test_mean_iou_by_hand():
    masks, predicted = np.array([[[0, 0, 1], [1, 2, 2]]]), np.array([[[0, 1, 1], [1, 1, 2]]])
    mean, each = mean_iou(predicted, masks, 4)
    assert each[:3].tolist() == [1 / 2, 2 / 4, 1 / 2] and np.isnan(each[3]) and mean == 0.5
    assert mean_iou(masks, masks, 4)[0] == 1
    for wrong, text in ((predicted[:, 1:], "two equal shapes"), (predicted + 2, "predicted: expected whole numbers"),
                        (predicted * 0.5, "predicted: expected whole numbers from 0 to 3, got float64")):
        with pytest.raises(ValueError, match=f"mean_iou: .*{text}"):
            mean_iou(wrong, masks, 4)


# --------------------------------------------------------------------------------------------- on the stand-in


def test_boxes_and_regions_on_cupy_arrays(cp):
    """The same results as on NumPy arrays, up to rounding."""
    a, b, scores = drawn_boxes(12, 1).astype(F4), drawn_boxes(15, 2).astype(F4), np.linspace(1, 0, 12).astype(F4)
    labels = np.arange(12) % 2
    on = cp.asarray
    for ours, expected in [
            (boxes.iou(on(a), on(b)), boxes.iou(a, b)), (boxes.encode(on(a), on(a[::-1].copy())),
                                                         boxes.encode(a, a[::-1])),
            (boxes.decode(on(a) / 50, on(a)), boxes.decode(a / 50, a)), (boxes.clip(on(a), 9, 8), boxes.clip(a, 9, 8)),
            (boxes.nms(on(a), on(scores), 0.1, on(labels)), boxes.nms(a, scores, 0.1, labels))]:
        assert ours.dtype == expected.dtype
        np.testing.assert_allclose(ours.get(), expected, rtol=1e-5, atol=1e-6)
    features = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(F4)
    got = regions.roi_align(Tensor(on(features)), on(a.reshape(2, 6, 4)), 2, 3).data
    np.testing.assert_allclose(got.get(), regions.roi_align(Tensor(features), a.reshape(2, 6, 4), 2, 3).data,
                               rtol=1e-4, atol=1e-5)
    got = segmentation.upsample(Tensor(on(features)), 2, 16, 16).data.get()
    np.testing.assert_allclose(got, segmentation.upsample(Tensor(features), 2, 16, 16).data, rtol=1e-5, atol=1e-6)


# --------------------------------------------------------------------------------------------- planted bugs

BUGS = {
    "RoIAlign with x and y exchanged": (
        [(regions, "roi_align", "cut.reshape(N * K, bins, bins, C).transpose(0, 3, 2, 1)",
          "cut.reshape(N * K, bins, bins, C).transpose(0, 3, 1, 2)")], roi_align_is_right),
    "RoIAlign with X for rows": (
        [(regions, "roi_align", "((0, W), (1, H))", "((1, W), (0, H))")], roi_align_is_right),
    "RoIAlign half a cell off": (
        [(regions, "_weights", "interpolation(pixels / stride - 0.5, size)", "interpolation(pixels / stride, size)")],
        roi_align_is_right),
    "areas with inclusive ends": (
        [(boxes, "areas", "boxes[..., 2] - boxes[..., 0]", "boxes[..., 2] - boxes[..., 0] + 1")], iou_is_right),
    "IoU without the clip at 0": ([(boxes, "iou", "xp.maximum(sides, 0)", "sides")], iou_is_right),
    "IoU divides by the sum of the areas": (
        [(boxes, "iou", "areas(a) + areas(b) - shared", "areas(a) + areas(b)")], iou_is_right),
    "offsets with x and y exchanged": (
        [(boxes, "encode", "(x - xa) / wa", "(y - ya) / wa", "(y - ya) / ha", "(x - xa) / ha")], offsets_are_right),
    "offsets decoded without the anchor's size": (
        [(boxes, "decode", "(xa + tx * wa, ya + ty * ha)", "(xa + tx, ya + ty)")], offsets_are_right),
    "NMS compares with removed boxes": (
        [(boxes, "nms", "if left[i]:\n    kept.append(i)\n    left &= ~removes[i]",
          "if left[i]:\n    kept.append(i)\nleft &= ~removes[i]")], nms_is_right),
    "NMS across classes": (
        [(boxes, "nms", "overlaps &= labels[:, None] == labels", "overlaps &= labels[:, None] >= 0")], nms_is_right),
    "NMS whose sort is not stable": (
        [(boxes, "nms", "np.argsort(-ranked, kind='stable')", "np.argsort(ranked, kind='stable')[::-1]")],
        nms_is_right),
    "smooth L1 with the branches exchanged": (
        [(faster_rcnn, "smooth_l1", "abs(x.data) < beta", "abs(x.data) >= beta")], smooth_l1_is_right),
    "smooth L1 with a jump": (
        [(faster_rcnn, "smooth_l1", "ops.abs(x) - 0.5 * beta", "ops.abs(x) - 0.5")], smooth_l1_is_right),
    "AP without the running maximum": (
        [(measures, "_curve", "np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]", "precision")],
        the_precision_never_rises_with_recall),
    "AP counts a second detection as right": (
        [(measures, "_matched", "~taken & (row >= least_iou)", "(row >= least_iou) & (taken >= 0)")],
        a_second_detection_is_wrong),
}


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name, monkeypatch):
    places, check = BUGS[name]
    for place in places:
        plant(monkeypatch, *place)
    with pytest.raises(AssertionError):
        check()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16])
def test_the_iou_of_large_boxes_is_a_number(dtype):
    box = np.array([[0, 0, 300, 300]], dtype)
    assert boxes.iou(box, box).tolist() == [[1.0]]
    assert list(boxes.nms(np.concatenate([box, box]), np.array([0.9, 0.8]), 0.5)) == [0]


def test_a_box_that_is_too_far_away_for_an_area_is_refused():
    far = np.array([[0.0, 0.0, 1e200, 1e200]])
    with pytest.raises(ValueError, match=r"iou: a: box 0: expected x0 < x1 and y0 < y1, from -1e\+09 to 1e\+09, got"):
        boxes.iou(far, far)


def test_the_gradient_of_the_binary_cross_entropy_is_p_minus_label_at_0_too():
    z = Tensor(np.array([0.0, 0.0, 2.0, -30.0, 800.0]), True)
    labels = np.array([0.0, 1.0, 1.0, 0.0, 0.0])
    y = faster_rcnn.binary_cross_entropy(z, Tensor(labels))
    y.sum().backward()
    p = 1 / (1 + np.exp(-z.data))
    assert z.grad == pytest.approx(p - labels, abs=1e-12)
    assert y.data == pytest.approx([np.log(2), np.log(2), np.log1p(np.exp(-2)), np.exp(-30), 800], rel=1e-12)


@pytest.mark.parametrize("task, model", [("foo", None), ("detection", None)])
def test_a_score_needs_a_known_task_and_its_model(task, model):
    with pytest.raises(TypeError, match="score: expected a task of classification, detection, segmentation, and its"):
        detection.score(task, model)
