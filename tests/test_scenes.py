"""Test the generated scenes: their bits, their boxes and masks, and what the class Scenes refuses."""

import hashlib

import numpy as np
import pytest

from minires import datasets
from minires.datasets import Scenes, average_pool, fashion_mnist_small, patches, scene, scenes

# Of the first 20 scenes with seed 0: images, masks, boxes as little-endian int64, labels
CHECKSUMS = {
    "train": "d45b36100a1fec5bb1ce5a587f55fad81c24b45d0486aa4c07f7f7f2d521717e",
    "test": "33a3ecbb64b51871e96f936be3e0f02b682f9b9d5c14fe4e94d1a291a16a48f5",
}


def checksum(found):
    digest = hashlib.sha256()
    for array in (found.images, found.masks, found.boxes.astype("<i8"), found.labels):
        digest.update(array.tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def some():
    return scenes(60, 1, "test")


@pytest.mark.parametrize("part", CHECKSUMS)
def test_the_bits_are_the_same_everywhere(part):
    found = scenes(20, 0, part)
    assert checksum(found) == CHECKSUMS[part]
    assert found.images.dtype == found.masks.dtype == found.labels.dtype == np.uint8
    assert found.boxes.dtype == np.int64 and not found.images.flags.writeable


def test_a_scene_depends_on_its_number_the_seed_and_the_part():
    assert checksum(scenes(3, 5, "train", first=4)) == checksum(scenes(7, 5, "train")[4:])
    others = [scenes(3, 5, "train"), scenes(3, 6, "train"), scenes(3, 5, "test"), scenes(3, 5, "train", first=3)]
    assert len({checksum(s) for s in others}) == 4


def test_a_box_is_the_extent_of_its_article(some):
    """The topmost article of every scene, which nothing covers: its box is the extent of its class in the mask, unless
    another article has the same class."""
    checked = 0
    for i in range(len(some)):
        boxes, labels = some.objects(i)
        if (labels == labels[-1]).sum() > 1:
            continue
        rows, columns = np.nonzero(some.masks[i] == labels[-1] + 1)
        assert boxes[-1].tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        checked += 1
    assert checked > 40


def test_masks_name_the_classes_and_lie_in_the_boxes(some):
    for i in range(len(some)):
        boxes, labels = some.objects(i)
        inside = np.zeros(some.masks[i].shape, bool)
        for x0, y0, x1, y1 in boxes:
            inside[y0:y1, x0:x1] = True
        assert not some.masks[i][~inside].any()
        assert set(np.unique(some.masks[i])) <= {0, *(labels + 1)}
        assert (some.images[i][some.masks[i] > 0] > scene.DARK).all()


def test_articles_overlap_by_at_most_a_quarter_of_the_smaller_one(some):
    most = 0
    for i in range(len(some)):
        boxes, _ = some.objects(i)
        for n, a in enumerate(boxes):
            for b in boxes[:n]:
                sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
                shared = sides.prod() if (sides > 0).all() else 0
                smaller = min((a[2:] - a[:2]).prod(), (b[2:] - b[:2]).prod())
                assert 4 * shared <= smaller
                most = max(most, shared / smaller)
    assert 0.1 < most <= 0.25
    counts = np.bincount(some.scene)
    assert set(counts) == {1, 2, 3, 4}
    sizes = some.boxes[:, 2:] - some.boxes[:, :2]
    assert sizes.max() <= 28 and sizes.min() >= 3 and sizes.max(1).min() >= 8


def test_at_half_size_an_article_is_average_pool_rounded():
    image = fashion_mnist_small()[1].images[3]
    weights = scene.area_weights(14)
    assert (weights.sum(1) == 28).all()
    assert ((weights @ image.astype(int) @ weights.T + 392) // 784
            == np.floor(average_pool(image[None], 14)[0].astype(np.float64) + 0.5)).all()
    for size in range(14, 29):
        assert (scene.area_weights(size).sum(0) == size).all() and (scene.area_weights(size).sum(1) == 28).all()


def test_the_ground_is_bilinear_with_noise():
    ground = np.stack([scene.ground(56, np.random.default_rng(i)) for i in range(20)]).astype(int)
    assert 0 <= ground.min() < 5 and 45 < ground.max() <= 54
    weights = scene.linear_weights(56)
    assert (weights.sum(1) == 7).all() and (np.count_nonzero(weights, axis=1) <= 2).all()
    assert weights[10].tolist() == [0, 4, 3, 0, 0, 0, 0, 0, 0]


def test_no_article_is_too_dark_to_have_a_box():
    weights = scene.area_weights(14)
    for part in fashion_mnist_small():
        images = part.images[:2000].astype(float)
        assert ((weights @ images @ weights.T / 784).max((1, 2)) > 2 * scene.DARK).all()


def test_patches_have_one_article_and_its_label():
    test = fashion_mnist_small()[1]
    found = patches(np.arange(50), "test", rng=np.random.default_rng(0))
    again = patches(np.arange(50), "test", rng=np.random.default_rng(0))
    assert (found.labels == test.labels[:50]).all() and found.images.shape == (50, 28, 28)
    assert (found.images == again.images).all()
    assert 20 < found.images.mean() < 120 and len({image.tobytes() for image in found.images}) == 50


def test_slices_and_single_scenes(some):
    part = some[np.array([5, 2])]
    for new, old in enumerate((5, 2)):
        for a, b in zip(part.objects(new), some.objects(old), strict=True):
            assert (a == b).all()
        assert (part.masks[new] == some.masks[old]).all()
    assert repr(some[:1]).startswith("Scenes(1 image of 56 x 56; ") and len(some[10:]) == 50
    with pytest.raises(TypeError, match=r"Scenes: expected a slice, as in scenes\[:8\], got 3"):
        some[3]


IMAGES = np.zeros((2, 20, 30), np.uint8)
BOXES, LABELS, SCENE = np.array([[0, 0, 30, 20], [1, 2, 3, 4.5]]), np.array([0, 9]), np.array([0, 1])


def test_scenes_of_ones_own_with_and_without_objects():
    assert len(Scenes(IMAGES, BOXES, LABELS, SCENE).objects(1)[0]) == 1
    empty = Scenes(IMAGES, np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, int))
    assert empty.objects(0)[0].shape == (0, 4) and len(empty[1:]) == 1


@pytest.mark.parametrize("change, error, text", [
    ({"boxes": np.array([[0, 0, 30, 20], [3, 2, 3, 4]])}, ValueError,
     r"object 1 of image 1: expected a box with x0 < x1 and y0 < y1, got \[3, 2, 3, 4\]"),
    ({"boxes": np.array([[0, 0, 31, 20], [1, 2, 3, 4]])}, ValueError,
     "object 0 of image 0: expected a box inside its image, which is 30 pixels wide and 20 high"),
    ({"boxes": np.array([[0, 0, 30, np.nan], [1, 2, 3, 4]])}, ValueError, "object 0 of image 0: expected a box with"),
    ({"labels": np.array([0, 10])}, ValueError, "object 1 of image 1: expected a label below 10, .* got 10"),
    ({"labels": np.array([-1, 0])}, ValueError, "object 0 of image 0: expected a label from 0, got -1"),
    ({"scene": np.array([0, 2])}, ValueError, "object 1 of image 2: expected an image from 0 to 1, got 2"),
    ({"scene": np.array([1, 0])}, ValueError, "expected the objects of one image after those of another"),
    ({"boxes": BOXES[:1]}, ValueError, r"expected boxes \(M, 4\), labels \(M,\) and scene \(M,\) of M objects"),
    ({"images": IMAGES[0]}, ValueError, r"images: expected shape \(N, H, W\)"),
    ({"images": IMAGES.astype(float)}, TypeError, "images: expected a NumPy array of uint8, got float64"),
    ({"labels": [0, 1]}, TypeError, "labels: expected a NumPy array of whole numbers, got list"),
    ({"masks": IMAGES[:, 1:]}, ValueError, "masks: expected the images' shape"),
    ({"masks": IMAGES + np.uint8(11)}, ValueError, "masks: expected at most 10, the number of classes, got 11"),
])
def test_wrong_scenes_are_refused_and_named(change, error, text):
    given = {"images": IMAGES, "boxes": BOXES, "labels": LABELS, "scene": SCENE} | change
    with pytest.raises(error, match=f"Scenes: .*{text}"):
        Scenes(**given)


@pytest.mark.parametrize("args, error, text", [
    ((0, 0, "train"), ValueError, "scenes: count: expected at least 1, got 0"),
    ((1, -1, "train"), ValueError, "scenes: seed: expected at least 0, got -1"),
    ((1.5, 0, "train"), TypeError, "scenes: count: expected a whole number, got 1.5"),
    ((1, 0, "tset"), ValueError, "scenes: part: unknown name 'tset'; did you mean test"),
])
def test_wrong_numbers_are_refused(args, error, text):
    with pytest.raises(error, match=text):
        scenes(*args)


@pytest.mark.parametrize("f, error, text", [
    (lambda s: s.objects(-1), IndexError, "expected an image from 0 to 59, got -1"),
    (lambda s: s.objects(60), IndexError, "expected an image from 0 to 59, got 60"),
    (lambda s: s[60:], IndexError, r"expected at least one of 60 scenes in one row, got slice\(60, None, None\)"),
    (lambda s: s[np.zeros((1, 2), int)], IndexError, r"in one row, got an array of shape \(1, 2\)"),
    (lambda s: patches(np.array([-1]), "train", rng=np.random.default_rng(0)), IndexError, "from 0 to 9999, got -1"),
    (lambda s: patches(np.array([], int), "train", rng=np.random.default_rng(0)), ValueError, "at least one whole"),
    (lambda s: Scenes(IMAGES, BOXES, LABELS, SCENE, "abcdefghij"), TypeError, "classes: expected a tuple of names"),
    (lambda s: Scenes(IMAGES, BOXES, LABELS, SCENE, ()), TypeError, "classes: expected a tuple of names")])
def test_what_does_not_exist_is_refused(f, error, text, some):
    with pytest.raises(error, match=text):
        f(some)


def test_the_number_of_a_scene_may_be_a_small_integer():
    assert checksum(scenes(8, 0, "test", first=np.uint8(250))) == checksum(scenes(8, 0, "test", first=250))


def test_the_package_has_them():
    assert datasets.scenes is scenes and {"Scenes", "scenes", "patches"} <= set(datasets.__all__)
