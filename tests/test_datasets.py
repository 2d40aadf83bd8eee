"""Data sets: the images that ship are those that Zalando published, and a damaged file gives a clear error."""

import gzip
import hashlib
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minires import Tensor, datasets, models, train
from minires.datasets import (
    Split,
    average_pool,
    batches,
    epoch_rng,
    fashion_mnist_small,
    normalize,
    read_idx,
    subtract_pixel_mean,
    to_float,
)
from minires.datasets import shipped as module
from minires.files import shipped as shipped_files

ROOT = Path(__file__).resolve().parents[1]
OFFICIAL = Path("/usr/share/datasets/fashion-mnist")  # the folder of Debian's package dataset-fashion-mnist
needs_official = pytest.mark.skipif(
    not (OFFICIAL / "train-images-idx3-ubyte.gz").is_file(),
    reason="the full Fashion-MNIST is not installed (Debian: dataset-fashion-mnist)",
)


# ---- the images that ship


def test_shapes_types_and_classes():
    train, test = fashion_mnist_small()
    assert (len(train), len(test)) == (10_000, 2_000)
    for part in (train, test):
        assert part.images.shape == (len(part), 28, 28) and part.images.dtype == np.uint8
        assert part.labels.shape == (len(part),) and part.labels.dtype == np.uint8
        assert part.images.min() == 0 and part.images.max() == 255
        assert not part.images.flags.writeable and not part.labels.flags.writeable
        assert len(part.classes) == 10
    assert train.classes[0] == "T-shirt/top" and train.classes[9] == "Ankle boot"


def test_first_labels_and_class_counts():
    train, test = fashion_mnist_small()
    assert train.labels[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
    assert test.labels[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]
    assert np.bincount(train.labels).tolist() == [942, 1027, 1016, 1019, 974, 989, 1021, 1022, 990, 1000]
    assert np.bincount(test.labels).tolist() == [200, 203, 214, 190, 219, 195, 197, 200, 194, 188]


def test_no_test_image_is_a_training_image():
    train, test = fashion_mnist_small()
    seen = {image.tobytes() for image in train.images}
    shared = sum(image.tobytes() in seen for image in test.images)
    assert shared == 0


def test_data_readme_names_the_checksum_of_the_file():
    digest = hashlib.sha256((ROOT / "data" / module.SMALL).read_bytes()).hexdigest()
    assert digest == module.SMALL_SHA256
    assert digest in (ROOT / "data" / "README.md").read_text(encoding="utf-8")


def test_damaged_file_is_refused(tmp_path):
    content = bytearray((ROOT / "data" / module.SMALL).read_bytes())
    content[len(content) // 2] ^= 1
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(content)
    found = hashlib.sha256(content).hexdigest()
    with pytest.raises(
        ValueError, match=rf"damaged\.npz.*expected SHA-256 {module.SMALL_SHA256}, got {found}.*again"
    ):
        fashion_mnist_small(damaged)


def test_missing_file_says_where_it_was_looked_for(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"fashion_mnist_small: the file .*absent\.npz does not exist"):
        fashion_mnist_small(tmp_path / "absent.npz")
    monkeypatch.setattr(shipped_files, "__file__", str(tmp_path / "minires" / "files" / "shipped.py"))
    with pytest.raises(FileNotFoundError, match=r"fashion-mnist-12k\.npz: minires ships no such file") as raised:
        fashion_mnist_small()
    for folder in (tmp_path / "minires" / "data", tmp_path / "data"):
        assert str(folder / module.SMALL) in str(raised.value)


@needs_official
def test_equals_the_first_images_of_the_official_files():
    for part, stem in zip(fashion_mnist_small(), ("train", "t10k"), strict=True):
        images = read_idx(OFFICIAL / f"{stem}-images-idx3-ubyte.gz")
        labels = read_idx(OFFICIAL / f"{stem}-labels-idx1-ubyte.gz")
        assert len(images) == len(labels) == {"train": 60_000, "t10k": 10_000}[stem]
        assert np.array_equal(part.images, images[: len(part)])
        assert np.array_equal(part.labels, labels[: len(part)])


def run_make_script(*arguments):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    script = [sys.executable, str(ROOT / "data" / "make_fashion_mnist_12k.py"), *map(str, arguments)]
    return subprocess.run(
        script, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=300
    )


@needs_official
@pytest.mark.slow
def test_make_script_rebuilds_the_shipped_file(tmp_path):
    rebuilt = tmp_path / "rebuilt.npz"
    done = run_make_script(OFFICIAL, "--out", rebuilt)
    assert done.returncode == 0, done.stderr
    shipped = ROOT / "data" / module.SMALL
    with np.load(rebuilt) as ours, np.load(shipped) as theirs:
        assert sorted(ours) == sorted(theirs)
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    if zlib.ZLIB_RUNTIME_VERSION == "1.2.13":  # another zlib may compress the same arrays into other bytes
        assert rebuilt.read_bytes() == shipped.read_bytes()


def test_make_script_refuses_other_images_and_an_empty_folder(tmp_path):
    done = run_make_script(tmp_path, "--out", tmp_path / "out.npz")
    assert (
        done.returncode != 0
        and "train-images-idx3-ubyte.gz" in done.stderr
        and "found neither" in done.stderr
    )
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(np.zeros((3, 28, 28), np.uint8)))
    done = run_make_script(tmp_path, "--out", tmp_path / "out.npz")
    assert done.returncode != 0 and "expected elements with SHA-256" in done.stderr
    assert not (tmp_path / "out.npz").exists()


# ---- the IDX reader


def idx(array, code=0x08):
    """Return the bytes of an IDX file, written from the format's description."""
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "code, dtype", [(0x08, "u1"), (0x09, "i1"), (0x0B, "i2"), (0x0C, "i4"), (0x0D, "f4"), (0x0E, "f8")]
)
@pytest.mark.parametrize("shape", [(5,), (2, 3), (4, 3, 2)])
def test_idx_is_read_back(tmp_path, packed, code, dtype, shape):
    array = (np.arange(np.prod(shape)).reshape(shape) * 5).astype(dtype)
    path = tmp_path / "array-idx"
    path.write_bytes(gzip.compress(idx(array, code)) if packed else idx(array, code))
    got = read_idx(path)
    assert got.dtype == array.dtype and got.dtype.isnative and got.flags.writeable
    assert np.array_equal(got, array)


GOOD = idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
PACKED = gzip.compress(GOOD)
BAD = {
    "empty": (b"", r"starts with 4 bytes, got 0 bytes"),
    "magic cut off": (GOOD[:3], r"starts with 4 bytes, got 3 bytes"),
    "wrong magic": (b"PK" + GOOD[2:], r"starts with the bytes 00 00.*got 50 4b 08 03"),
    "unknown type": (b"\0\0\x0a" + GOOD[3:], r"a type \(08, 09, 0b, 0c, 0d, 0e\).*got 00 00 0a 03"),
    "no dimensions": (b"\0\0\x08\0" + GOOD[4:], r"a number of dimensions from 1, got 00 00 08 00"),
    "header cut off": (GOOD[:10], r"expected 3 dimensions in 12 bytes, got 6 bytes"),
    "truncated": (GOOD[:-1], r"expected 24 bytes of elements for shape \(2, 3, 4\) of uint8, got 23 bytes"),
    "trailing bytes": (
        GOOD + b"\0",
        r"expected 24 bytes of elements for shape \(2, 3, 4\) of uint8, got more",
    ),
    "packed empty": (gzip.compress(b""), r"starts with 4 bytes, got 0 bytes"),
    "packed trailing": (gzip.compress(GOOD + b"\0"), r"expected 24 bytes .* got more"),
    "gzip truncated": (PACKED[:-9], r"expected a complete gzip file, but it cannot be unpacked: .*ended"),
    "gzip checksum": (PACKED[:-8] + bytes(4) + PACKED[-4:], r"cannot be unpacked: CRC check failed"),
    "gzip content": (PACKED[:12] + b"\xff" * 8 + PACKED[20:], r"expected a complete gzip file"),
    "gzip junk after the end": (PACKED + b"junk", r"expected a complete gzip file"),
    "70 dimensions": (b"\0\0\x08\x46" + bytes(280), r"expected a shape that NumPy can hold, got \(0, 0.*64"),
    "0 x huge x huge": (b"\0\0\x08\3" + b"\xff" * 8 + bytes(4), r"can hold, got \(4294967295, 4294967295, 0\)"),
    "claims 2**92 bytes": (b"\0\0\x08\x03" + b"\xff" * 12, r"expected \d{20,} bytes .* got 0 bytes"),
    "packed, claims 2**92 bytes": (gzip.compress(b"\0\0\x08\x03" + b"\xff" * 12),
                                   r"its header promises \d{20,} bytes .*; expected at most 671\d{5} in a gzip file"),
    "web page": (b"<!doctype html>", "it is a web page"), "Git LFS": (b"version https://git-lfs", "a Git LFS point"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_idx_is_refused(tmp_path, name):
    content, message = BAD[name]
    path = tmp_path / "train-images"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="train-images: " + ".*" + message):
        read_idx(path)


def test_idx_of_a_gigabyte_in_a_megabyte_is_refused_before_it_is_unpacked(tmp_path):
    pieces = [idx(np.zeros((0, 28, 28), np.uint8))[:4] + struct.pack(">III", 1_400_000, 28, 28), *[bytes(2**20)] * 100]
    with gzip.open(tmp_path / "images", "wb", 1) as file:
        file.writelines(pieces)
    with open(tmp_path / "sparse", "wb") as file:  # not packed, and its header promises a byte less than it has
        file.write(pieces[0])
        file.truncate(16 + 1_400_000 * 784 + 1)
    tracemalloc.start()
    try:
        for name, message in (("images", "its header promises 1097600000 bytes"), ("sparse", "1097600000 .* got more")):
            with pytest.raises(ValueError, match=f"{name}: .*{message}"):
                read_idx(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


def test_idx_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing-here"):
        read_idx(tmp_path / "nothing-here")


# ---- Split


def test_split_accepts_grey_and_colour():
    labels = np.array([0, 1], np.uint8)
    assert len(Split(np.zeros((2, 4, 5), np.uint8), labels, ("a", "b"))) == 2
    assert len(Split(np.zeros((2, 4, 5, 3), np.uint8), labels, ("a", "b"))) == 2


def test_a_split_is_printed_in_one_line():
    images = np.zeros((1, 4, 5), np.uint8)
    assert repr(Split(images, np.zeros(1, np.uint8), ("a",))) == "Split(1 image of 4 x 5; 1 class: a)"
    many = Split(images.repeat(9, 0)[..., None], np.zeros(9, np.uint8), tuple("abcdefghijkl"))
    assert repr(many) == "Split(9 images of 4 x 5 x 1; 12 classes: a, b, c, d, e, f, g, h, i, j, ...)"


@pytest.mark.parametrize(
    "change, error, message",
    [
        (
            {"images": np.zeros((2, 4, 5), np.float32)},
            TypeError,
            "images: expected a uint8 NumPy array, got float32",
        ),
        ({"images": [[1]]}, TypeError, "images: expected a uint8 NumPy array, got list"),
        (
            {"labels": np.zeros(2, np.int64)},
            TypeError,
            r"labels: expected a uint8 NumPy array, got int64; np.asarray\(labels, np.uint8\) makes one",
        ),
        (
            {"images": np.zeros((2, 20), np.uint8)},
            ValueError,
            r"images: expected shape \(N, H, W\) .* got \(2, 20\)",
        ),
        (
            {"images": np.zeros((0, 4, 5), np.uint8)},
            ValueError,
            r"images: expected .* no extent of 0, got \(0, 4, 5\)",
        ),
        ({"labels": np.zeros(3, np.uint8)}, ValueError, r"labels: expected shape \(2,\).* got \(3,\)"),
        ({"labels": np.zeros((2, 1), np.uint8)}, ValueError, r"labels: expected shape \(2,\).* got \(2, 1\)"),
        (
            {"labels": np.array([0, 2], np.uint8)},
            ValueError,
            "labels: expected numbers below 2, .* got 2 at index 1",
        ),
        ({"classes": ["a", "b"]}, TypeError, "classes: expected a tuple of str"),
    ],
)
def test_split_refuses(change, error, message):
    good = {
        "images": np.zeros((2, 4, 5), np.uint8),
        "labels": np.array([0, 1], np.uint8),
        "classes": ("a", "b"),
    }
    with pytest.raises(error, match="Split: " + message):
        Split(**{**good, **change})


# ---- from a name to a network's input


def test_inputs_by_the_training_sets_channels_or_mean_image_or_as_they_are():
    learn, test = datasets.load("stripes")
    x, y = (split.images.transpose(0, 3, 1, 2) / 255 for split in (learn, test))
    mean, std = (f((0, 2, 3), keepdims=True) for f in (x.mean, x.std))
    found = datasets.prepared("stripes")
    assert found.test[0].dtype == found.train[0].dtype == np.float32 and found.classes == test.classes
    np.testing.assert_allclose(found.test[0], (y - mean[0]) / std[0], atol=2e-3)
    np.testing.assert_allclose(found.train[0], (x - mean[0]) / std[0], atol=2e-3)
    assert found.words == "(pixels / 255 - ({})) / ({})".format(
        *(", ".join(f"{round(v, 4):g}" for v in values.ravel()) for values in (mean, std)))
    for how, shift, scale, words in [
            ("pixel-mean", x.mean(0), 1, "pixels / 255 - the training set's mean image"),
            ("none", 0, 1, "pixels / 255"),
            (([0.25] * 3, [1, 1, 1]), 0.25, 1, "(pixels / 255 - (0.25, 0.25, 0.25)) / (1, 1, 1)"),
            (([0] * 3, [0.25, 0.5, 1]), 0, np.array([0.25, 0.5, 1])[:, None, None],
             "(pixels / 255 - (0, 0, 0)) / (0.25, 0.5, 1)"),
            ((np.array([0.25] * 3), None), 0.25, 1, "(pixels / 255 - (0.25, 0.25, 0.25)) / (1, 1, 1)"),
            ((None, [0.25, 0.5, 1]), 0, np.array([0.25, 0.5, 1])[:, None, None],
             "(pixels / 255 - (0, 0, 0)) / (0.25, 0.5, 1)")]:
        found = datasets.prepared("stripes", normalize=how)
        np.testing.assert_allclose(found.train[0], (x - shift) / scale, atol=1e-6)
        np.testing.assert_allclose(found.test[0], (y - shift) / scale, atol=1e-6)
        assert found.words == words


@pytest.mark.parametrize("how", ["channel", "pixel-mean", "none", ([0.5] * 3, [0.25] * 3)])
def test_the_test_images_are_the_same_without_the_training_images(how):
    whole, part = (datasets.prepared("stripes", normalize=how, image_size=8, train=train) for train in (True, False))
    assert part.test[0].tobytes() == whole.test[0].tobytes() and part.train[0].shape == (0, 3, 8, 8)
    assert part.train[1].shape == (0,) and part.train[0].base is None  # a view would keep the memory
    assert part[2:] == whole[2:] and "averaged to 8x8" in whole.words


def test_subsets_take_the_first_images_and_validation_the_last():
    learn, test = datasets.load("stripes")
    pixels = to_float(learn.images)
    found = datasets.prepared("stripes", normalize="pixel-mean", train_images=300, test_images=20)
    mean = pixels[:300].mean(0, dtype=np.float64).astype(np.float32)
    np.testing.assert_array_equal(found.train[0], pixels[:300] - mean)
    np.testing.assert_array_equal(found.test[0], to_float(test.images[:20]) - mean)
    assert np.array_equal(found.train[1], learn.labels[:300]) and np.array_equal(found.test[1], test.labels[:20])
    held = datasets.prepared("stripes", normalize="none", validation=70, train_images=900)
    np.testing.assert_array_equal(held.train[0], pixels[:900])
    np.testing.assert_array_equal(held.test[0], pixels[-70:])
    assert np.array_equal(held.train[1], learn.labels[:900]) and np.array_equal(held.test[1], learn.labels[-70:])


def test_the_digest_is_of_all_pixels_and_labels_as_stored():
    content = b"".join(a.tobytes() for split in datasets.load("stripes") for a in (split.images, split.labels))
    for options in {}, {"train_images": 10, "image_size": 8, "train": False}:
        assert datasets.prepared("stripes", **options).sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("options, message", [
    ({"normalize": "channels"}, "normalize: unknown name 'channels'; did you mean channel"),
    ({"train_images": 1001}, "stripes: train_images: expected at most 1000, got 1001"),
    ({"train_images": -1}, "stripes: train_images: expected a number from 0, got -1"),
    ({"test_images": 201}, "stripes: test_images: expected at most 200, got 201"),
    ({"validation": 1000}, "stripes: validation: expected fewer than the 1000 training images, got 1000"),
    ({"validation": -5}, "stripes: validation: expected a number from 0, got -5"),
    ({"validation": 600, "train_images": 500}, "stripes: train_images: expected at most 400, got 500"),
    ({"validation": 5, "test_images": 5}, "test_images=5 has no effect with validation=5"),
    ({"image_size": 5}, "average_pool: size: expected extents that divide the images' 16x16, got 5x5"),
    ({"normalize": ([0.5], [1.0])}, "normalize: mean: expected 3 finite numbers"),
    ({"normalize": ([0.5] * 3, [1.0, 1, 0])}, "normalize: std: expected numbers above 0"),
])
def test_inputs_that_do_not_fit(options, message):
    for with_training_images in True, False:
        with pytest.raises(ValueError, match=message):
            datasets.prepared("stripes", **options, train=with_training_images)


# ---- batches


@given(n=st.integers(1, 200), batch_size=st.integers(1, 220), seed=st.integers(0, 5))
def test_an_epoch_covers_each_index_once(n, batch_size, seed):
    epoch = list(batches(n, batch_size, rng=np.random.default_rng(seed)))
    assert sorted(np.concatenate(epoch).tolist()) == list(range(n))
    assert all(len(indices) == batch_size for indices in epoch[:-1])
    assert all(np.issubdtype(indices.dtype, np.integer) for indices in epoch)


def test_drop_last_leaves_out_the_short_batch():
    rng = np.random.default_rng(0)
    assert [len(indices) for indices in batches(10, 4, rng=rng)] == [4, 4, 2]
    assert [len(indices) for indices in batches(10, 4, rng=rng, drop_last=True)] == [4, 4]
    assert [len(indices) for indices in batches(8, 4, rng=rng, drop_last=True)] == [4, 4]


def test_the_order_comes_from_the_generator_alone():
    def two_epochs(seed):
        rng = np.random.default_rng(seed)
        return [np.concatenate(list(batches(50, 7, rng=rng))).tolist() for _ in range(2)]

    assert two_epochs(1) == two_epochs(1)
    assert two_epochs(1) != two_epochs(2)
    first, second = two_epochs(1)
    assert first != second and first != list(range(50))


@pytest.mark.parametrize(
    "n, batch_size, drop_last, message",
    [
        (0, 4, False, "n: expected at least 1 image, got 0"),
        (10, 0, False, "batch_size: expected at least 1, got 0"),
        (10, -1, False, "batch_size: expected at least 1, got -1"),
        (3, 4, True, "batch_size: expected at most n = 3 with drop_last, got 4"),
    ],
)
def test_batches_refuses_at_the_call(n, batch_size, drop_last, message):
    with pytest.raises(ValueError, match="batches: " + message):
        batches(n, batch_size, rng=np.random.default_rng(0), drop_last=drop_last)


def test_batches_wants_a_generator():
    with pytest.raises(TypeError, match=r"batches: rng: expected a numpy.random.Generator, got int"):
        batches(10, 4, rng=0)


def test_an_epochs_order_comes_from_seed_and_epoch_alone():
    def order(seed, epoch):
        return np.concatenate(list(batches(500, 32, rng=epoch_rng(seed, epoch)))).tolist()

    assert order(3, 8) == order(3, 8)  # whatever was drawn before
    orders = [order(seed, epoch) for seed in (0, 3, 8) for epoch in (0, 1, 3, 8)]
    plain = np.concatenate(list(batches(500, 32, rng=np.random.default_rng(3)))).tolist()
    assert len({tuple(o) for o in [*orders, plain]}) == 13


@pytest.mark.parametrize("seed, epoch", [(-1, 0), (0, -1)])
def test_epoch_rng_refuses_negative_numbers(seed, epoch):
    with pytest.raises(ValueError, match=rf"epoch_rng: expected a seed and an epoch from 0, got {seed} and {epoch}"):
        epoch_rng(seed, epoch)


# ---- by name, and the data sets that need no file


def test_every_name_loads_or_says_where_it_looked(tmp_path):
    for name in datasets.BY_NAME:
        if name == "digits":
            pytest.importorskip("sklearn", reason="scikit-learn, which ships the digits, is not installed")
        if name in datasets.AT_HAND:
            assert all(isinstance(part, Split) for part in datasets.load(name, tmp_path, download=True))
        else:
            with pytest.raises(FileNotFoundError, match=rf"{name}: not found\. Looked in {tmp_path}"):
                datasets.load(name, tmp_path)
    with pytest.raises(ValueError, match="data set: unknown name 'cifra10'; did you mean cifar10"):
        datasets.load("cifra10")


def test_digits():
    sklearn = pytest.importorskip("sklearn.datasets", reason="scikit-learn, which ships the digits, is not installed")
    train, test = datasets.digits()
    assert train.images.shape == (1437, 8, 8) and test.images.shape == (360, 8, 8)
    assert train.images.min() == 0 and train.images.max() == 255 and len(set(np.unique(train.images))) == 17
    again = datasets.digits()
    assert np.array_equal(train.images, again[0].images) and np.array_equal(test.labels, again[1].labels)
    ours = {(np.round(image / 255 * 16).tobytes(), int(label)) for part in (train, test)
            for image, label in zip(part.images, part.labels, strict=True)}
    theirs = sklearn.load_digits()
    assert ours == {(image.tobytes(), int(label)) for image, label in zip(theirs.images, theirs.target, strict=True)}
    assert np.bincount(test.labels).min() > 20


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"digits: .* not installed: pip install scikit-learn\. stripes\(\)"):
        datasets.digits()


def test_stripes_are_the_same_every_time_and_others_by_rng():
    learn, test = datasets.stripes()
    assert learn.images.shape == (1000, 16, 16, 3) and test.images.shape == (200, 16, 16, 3)
    assert set(np.unique(learn.labels)) == {0, 1, 2} == set(np.unique(test.labels)) and len(learn.classes) == 3
    assert np.array_equal(learn.images, datasets.stripes()[0].images)
    other = datasets.stripes(rng=np.random.default_rng(1))
    assert not np.array_equal(learn.images, other[0].images)
    assert datasets.stripes(7, 5, 9)[1].images.shape == (5, 9, 9, 3)
    with pytest.raises(ValueError, match="stripes: expected train and test from 1 and size from 8, got 0, 5 and 16"):
        datasets.stripes(0, 5)


def test_a_class_of_stripes_is_its_direction():
    """Along its stripes an image changes only by noise. So the class is the direction in which neighbouring pixels
    differ least, in the mean square."""
    learn, _ = datasets.stripes()
    x = learn.images.mean(-1, dtype=np.float64)
    # {class: steps along its stripes}; horizontal stripes run along the column index j
    steps = {0: [(0, 1)], 1: [(1, 0)], 2: [(1, -1), (1, 1)]}
    def change(step): return ((x[:, 1:-1, 1:-1] - np.roll(x, step, (1, 2))[:, 1:-1, 1:-1]) ** 2).mean((1, 2))
    changes = np.stack([np.minimum.reduce([change(step) for step in steps[c]]) for c in range(3)])
    assert (changes.argmin(0) == learn.labels).mean() > 0.97
    falling = (change(steps[2][1]) < change(steps[2][0]))[learn.labels == 2]
    assert 0.4 < falling.mean() < 0.6  # both diagonals are one class, so that a flip does not change it


def test_a_small_network_learns_stripes():
    learn, test = datasets.stripes(600, 200)
    x, x_test = datasets.subtract_pixel_mean(to_float(learn.images), to_float(test.images))
    net = models.cifar(8, width=4, num_classes=3, rng=np.random.default_rng(0))
    events = train.fit(net, (x, learn.labels), (x_test, test.labels), train.Recipe(epochs=6, batch_size=50),
                       rng=np.random.default_rng(1), augment=datasets.crop_and_flip)
    assert [event for event in events if isinstance(event, train.Epoch)][-1].test_error < 10


# ---- preparing


@pytest.mark.parametrize("size", [2, (2, 3), (6, 1), (1, 9), (6, 9), (3, 9)])
def test_average_pool_equals_a_loop(size):
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 9), dtype=np.uint8)
    if size == 2:
        images = np.ascontiguousarray(images[:, :, :8])
    h, w = (size, size) if isinstance(size, int) else size
    high, wide = images.shape[1] // h, images.shape[2] // w
    expected = np.empty((3, h, w), np.float32)
    for n in range(3):
        for i in range(h):
            for j in range(w):
                total = sum(
                    int(images[n, i * high + a, j * wide + b]) for a in range(high) for b in range(wide)
                )
                expected[n, i, j] = total / (high * wide)
    got = average_pool(images, size)
    assert got.dtype == np.float32
    assert np.array_equal(got, expected)


def test_average_pool_halves_the_shipped_images_exactly():
    train, _ = fashion_mnist_small()
    got = average_pool(train.images[:100], 14)
    assert got.shape == (100, 14, 14)
    assert np.array_equal(got * 4, np.round(got * 4))  # quarters of integers have no rounding in float32
    assert float(got.sum(dtype=np.float64)) * 4 == int(train.images[:100].sum(dtype=np.int64))


@pytest.mark.parametrize("size", [5, (3, 2), 0, (3, -3), 12])
def test_average_pool_refuses_sizes_that_do_not_divide(size):
    with pytest.raises(
        ValueError, match=r"average_pool: size: expected extents that divide the images' 6x9, got"
    ):
        average_pool(np.zeros((2, 6, 9), np.uint8), size)


def test_average_pool_refuses_other_arrays():
    with pytest.raises(ValueError, match=r"got float32 \(2, 6, 9\)"):
        average_pool(np.zeros((2, 6, 9), np.float32), 3)
    with pytest.raises(ValueError, match=r"\(N, H, W\) or \(N, H, W, C\), got uint8 \(2, 6\)"):
        average_pool(np.zeros((2, 6), np.uint8), 3)


def test_average_pool_takes_colours_one_by_one():
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 9, 2), dtype=np.uint8)
    got = average_pool(images, (2, 3))
    assert got.shape == (3, 2, 3, 2)
    for c in range(2):
        assert np.array_equal(got[..., c], average_pool(np.ascontiguousarray(images[..., c]), (2, 3)))


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 5, 1), (2, 3, 5, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_to_float_equals_a_loop(shape, dtype):
    images = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    got = to_float(images)
    channels = shape[3] if len(shape) == 4 else 1
    assert got.shape == (2, channels, 3, 5) and got.dtype == np.float32 and got.flags.c_contiguous
    for n, c, i, j in np.ndindex(got.shape):
        value = images[n, i, j, c] if len(shape) == 4 else images[n, i, j]
        assert got[n, c, i, j] == np.float32(int(value) / 255)


def test_to_float_averages_first():
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 6), np.uint8)
    np.testing.assert_array_equal(to_float(images, 2), to_float(datasets.average_pool(images, 2)))


def test_to_float_ends_at_zero_and_one():
    got = to_float(np.array([[[0, 255]]], np.uint8))
    assert got.tolist() == [[[[0.0, 1.0]]]]


@pytest.mark.parametrize(
    "images, message",
    [
        (np.zeros((2, 3, 5), np.float64), "expected uint8 or float32, got float64"),
        (np.zeros((2, 3), np.uint8), r"expected \(N, H, W\) or, channels last.* got \(2, 3\)"),
        (np.zeros((2, 3, 32, 32), np.uint8), r"expected .* channels last, .* got \(2, 3, 32, 32\)"),
        (np.full((1, 1, 1), 256, np.float32), r"expected values from 0 to 255, got 256.0 to 256.0"),
        (np.full((1, 1, 1), -1, np.float32), r"expected values from 0 to 255, got -1.0 to -1.0"),
        (np.full((1, 1, 1), np.nan, np.float32), r"expected values from 0 to 255, got nan to nan"),
    ],
)
def test_to_float_refuses(images, message):
    with pytest.raises(ValueError, match="to_float: images: " + message):
        to_float(images)


def test_subtract_pixel_mean_takes_the_training_mean_from_all():
    rng = np.random.default_rng(0)
    train, test = (rng.random((n, 2, 3, 4), dtype=np.float32) for n in (7, 5))
    before = train.copy(), test.copy()
    expected = np.empty((2, 3, 4), np.float32)
    for index in np.ndindex(expected.shape):
        expected[index] = sum(float(image[index]) for image in train) / 7
    centred = subtract_pixel_mean(train, test)
    for got, images in zip(centred, before, strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, images - expected, rtol=0, atol=1e-7)
    assert np.array_equal(train, before[0]) and np.array_equal(test, before[1])
    assert len(subtract_pixel_mean(train)) == 1


@pytest.mark.parametrize(
    "arrays, message",
    [
        (
            [np.zeros((0, 1, 3, 4), np.float32)],
            r"train: expected \(N, C, H, W\) with N from 1, got \(0, 1, 3, 4\)",
        ),
        ([np.zeros((2, 3, 4), np.float32)], r"train: expected \(N, C, H, W\) with N from 1, got \(2, 3, 4\)"),
        ([np.zeros((2, 1, 3, 4), np.uint8)], r"argument 0: expected float32 \(N, 1, 3, 4\), got uint8"),
        (
            [np.zeros((2, 1, 3, 4), np.float32), np.zeros((2, 1, 4, 3), np.float32)],
            r"argument 1: expected float32 \(N, 1, 3, 4\), got float32 \(2, 1, 4, 3\)",
        ),
    ],
)
def test_subtract_pixel_mean_refuses(arrays, message):
    with pytest.raises(ValueError, match="subtract_pixel_mean: " + message):
        subtract_pixel_mean(*arrays)


def test_normalize_equals_a_loop():
    x = np.random.default_rng(0).random((2, 3, 4, 5), dtype=np.float32)
    before, mean, std = x.copy(), (0.4914, 0.4822, 0.4465), [0.2470, 0.2435, 0.2616]
    got = normalize(x, mean, std)
    assert got.dtype == np.float32 and np.array_equal(x, before)
    for n, c, i, j in np.ndindex(got.shape):
        assert got[n, c, i, j] == (x[n, c, i, j] - np.float32(mean[c])) / np.float32(std[c])
    own = normalize(x, x.mean((0, 2, 3)), x.std((0, 2, 3)))
    np.testing.assert_allclose([own.mean((0, 2, 3)), own.std((0, 2, 3))], [[0] * 3, [1] * 3], atol=1e-5)


@pytest.mark.parametrize("images, mean, std, message", [
    (np.zeros((2, 3, 4, 5), np.uint8), [0], [1], r"images: expected float32 \(N, C, H, W\), got uint8 .*to_float"),
    (np.zeros((2, 3, 4), np.float32), [0], [1], r"images: expected float32 \(N, C, H, W\), got float32 \(2, 3, 4\)"),
    (np.zeros((2, 3, 4, 5), np.float32), [0, 0], [1, 1, 1], r"mean: expected 3 finite numbers.*got \[0.0, 0.0\]"),
    (np.zeros((2, 3, 4, 5), np.float32), [0, 0, np.nan], [1, 1, 1], "mean: expected 3 finite numbers"),
    (np.zeros((2, 3, 4, 5), np.float32), 0.5, [1, 1, 1], "mean: expected 3 finite numbers, .* got 0.5"),
    (np.zeros((2, 3, 4, 5), np.float32), [0, 0, 0], [1, 1, 0], r"std: expected numbers above 0, got \[1.0, 1.0, 0.0\]"),
])
def test_normalize_refuses(images, mean, std, message):
    with pytest.raises(ValueError, match="normalize: " + message):
        normalize(images, mean, std)


def test_stored_images_in_a_tensor_hint_at_to_float():
    with pytest.raises(TypeError, match=r"got uint8\(2, 4, 4, 3\).*stored images with datasets\.to_float"):
        Tensor(np.zeros((2, 4, 4, 3), np.uint8))
