"""MNIST and Fashion-MNIST: their four files are read under every usual name, and wrong files are refused by name."""
import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from fuzz import fuzz_idx, mutations
from fuzz.fuzz_idx import idx
from short import every

from minires import datasets
from minires.datasets import mnist_family
from minires.datasets.mnist_family import FILES

OFFICIAL = Path("/usr/share/datasets/fashion-mnist")  # the folder of Debian's package dataset-fashion-mnist


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda highest, *shape: rng.integers(0, highest, shape, dtype=np.uint8)
    return dict(zip(FILES, (draw(256, 30, 28, 28), draw(10, 30), draw(256, 20, 28, 28), draw(10, 20)), strict=True))


def write(folder, held, rename=lambda name: name, pack=lambda content: content):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in held.items():
        (folder / rename(name)).write_bytes(pack(idx(array)))


@pytest.mark.parametrize("read", [datasets.mnist, datasets.fashion_mnist])
@pytest.mark.parametrize("rename", [str, lambda n: n + ".gz", lambda n: n.replace("-idx", ".idx"),
                                    lambda n: n.replace("-idx", ".idx") + ".gz"], ids=["plain", "gz", "dot", "dot gz"])
@pytest.mark.parametrize("place", ["", "own", "torchvision"])
def test_every_name_and_place(tmp_path, read, rename, place):
    raw = {"mnist": "MNIST/raw", "fashion_mnist": "FashionMNIST/raw"}[read.__name__]
    folder = tmp_path / {"": "", "own": read.__name__, "torchvision": raw}[place]
    pack = gzip.compress if rename("-idx").endswith("gz") else bytes
    write(folder, arrays(), rename, pack)
    for part, images, labels in zip(read(tmp_path), FILES[::2], FILES[1::2], strict=True):
        assert np.array_equal(part.images, arrays()[images]) and np.array_equal(part.labels, arrays()[labels])
        assert part.classes == mnist_family.SOURCES[read.__name__].classes
        assert not part.images.flags.writeable and not part.labels.flags.writeable


def test_the_two_may_lie_side_by_side(tmp_path):
    write(tmp_path / "mnist", arrays(1))
    write(tmp_path / "fashion_mnist", arrays(2))
    assert np.array_equal(datasets.load("mnist", tmp_path)[0].images, arrays(1)[FILES[0]])
    assert np.array_equal(datasets.load("fashion_mnist", tmp_path)[0].images, arrays(2)[FILES[0]])


def test_absent(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"mnist: not found\. Looked in .* for train-images-idx3-ubyte\.gz and "
                                                r"the other three.*datasets\.mnist\(download=True\)"):
        datasets.mnist(tmp_path)
    monkeypatch.setenv("MINIRES_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="To search another folder, set root, --data-dir or MINIRES_DATA"):
        datasets.load("mnist")


def exchanged(held, a, b): held[a], held[b] = held[b], held[a]


def with_first(held, labels): held[FILES[1]][:10] = labels


BAD = {
    "images for labels": (lambda h: exchanged(h, FILES[0], FILES[1]), r"train-images.*images uint8 \(N, 28, 28\)"),
    "test for train": (lambda h: (exchanged(h, FILES[0], FILES[2]), exchanged(h, FILES[1], FILES[3])),
                       "train-images.*expected more images than in .*t10k-images.*, got 20 and 30; have the names"),
    "one of the two exchanged": (lambda h: exchanged(h, FILES[0], FILES[2]), r"train-labels.*uint8 \(20,\), one for"),
    "another size": (lambda h: h.update({FILES[0]: np.zeros((30, 27, 28), np.uint8)}), r"got uint8 \(30, 27, 28\)"),
    "no image": (lambda h: h.update({FILES[2]: np.zeros((0, 28, 28), np.uint8)}), r"t10k-images.*uint8 \(0, 28, 28\)"),
    "label": (lambda h: h[FILES[3]].__setitem__(7, 10), "t10k-labels.*expected labels below 10, got 10 at index 7"),
    "two labels": (lambda h: h.update({FILES[1]: np.zeros((30, 2), np.uint8)}), r"train-labels.*got uint8 \(30, 2\)"),
    "Fashion's": (lambda h: with_first(h, [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]),
                  "train-labels.*expected the labels of mnist, got those of fashion_mnist.*into a folder mnist"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_files_are_refused_by_name(tmp_path, case):
    change, message = BAD[case]
    held = arrays()
    change(held)
    write(tmp_path, held)
    with pytest.raises(ValueError, match=message):
        datasets.mnist(tmp_path)


def test_mnists_files_are_not_taken_for_fashion_mnist(tmp_path):
    held = arrays()
    with_first(held, [5, 0, 4, 1, 9, 2, 1, 3, 1, 4])
    write(tmp_path, held)
    assert datasets.mnist(tmp_path)[0].labels[0] == 5
    with pytest.raises(ValueError, match="expected the labels of fashion_mnist, got those of mnist"):
        datasets.fashion_mnist(tmp_path)


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_the_real_ones_where_debian_puts_them(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIRES_DATA", str(tmp_path / "nothing here"))
    train, test = datasets.fashion_mnist()
    assert train.images.shape == (60_000, 28, 28) and test.images.shape == (10_000, 28, 28)
    assert np.bincount(train.labels).tolist() == [6000] * 10 and np.bincount(test.labels).tolist() == [1000] * 10
    small = datasets.fashion_mnist_small()
    assert np.array_equal(train.images[:10_000], small[0].images) and train.classes == small[0].classes
    with pytest.raises(FileNotFoundError):
        datasets.fashion_mnist(tmp_path)  # only the given folder is searched
    for file in OFFICIAL.iterdir():
        shutil.copy(file, tmp_path)
    assert np.array_equal(datasets.fashion_mnist(tmp_path)[1].labels, test.labels)
    with pytest.raises(ValueError, match="expected the labels of mnist, got those of fashion_mnist"):
        datasets.mnist(tmp_path)


@pytest.mark.parametrize("number", every(2, [300, 600]))
def test_damage_of_every_kind(number):
    """Run the cases of tests/fuzz/fuzz_idx.py; the script runs them 20,000 times."""
    with fuzz_idx.cases() as cases:
        came = mutations.run(cases, number, seed=7)
    assert came.total() - came["slowest, ms"] == number
    assert all(came[f"{name}: {what}"] for name in cases for what in ("refused", "loaded"))
