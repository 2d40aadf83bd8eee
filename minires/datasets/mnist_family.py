"""Read MNIST and Fashion-MNIST: 28x28 grey images of digits and of clothes, ten classes each, in IDX files.

Sources: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".
H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine
learning algorithms", arXiv:1708.07747 (2017). MIT licence, Copyright 2017 Zalando SE. See data/README.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from .download import Missing, fetch_all, megabytes
from .idx import read_idx
from .places import Root, absent, folders
from .split import Split, read_only

DIGITS = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


class Source(NamedTuple):
    """Says where the files of a data set are, on this machine and on the web, and how to recognise them."""

    classes: tuple[str, ...]
    first: list[int]            # the first training labels; they tell apart the two data sets, whose files share names
    elsewhere: tuple[str, ...]  # where other programs put the files: torchvision (in its root) and Debian's package
    sites: tuple[str, ...]
    md5: tuple[str, ...]        # of each of FILES with .gz
    sizes: tuple[int, ...]      # of these, in bytes


# The MD5 sums are those of the files as first published. Fashion-MNIST's are in Zalando's README. MNIST's page gives
# none, so MNIST's are the ones that torchvision checks.
SOURCES = {
    "mnist": Source(
        DIGITS, [5, 0, 4, 1, 9, 2, 1, 3, 1, 4], ("MNIST/raw",),
        # yann.lecun.com refuses most requests; these are its well-known mirrors, run by PyTorch and the CVDF
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
        ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432",
         "9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c"),
        (9_912_422, 28_881, 1_648_877, 4_542)),
    "fashion_mnist": Source(
        CLASSES, [9, 0, 0, 3, 0, 2, 7, 2, 5, 5], ("FashionMNIST/raw", "/usr/share/datasets/fashion-mnist"),
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),  # the address in Zalando's README
        ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe",
         "bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310"),
        (26_421_880, 29_515, 4_422_102, 5_148)),
}


def mnist(root: Root = None, *, download: bool = False) -> tuple[Split, Split]:
    """Return ``(train, test)`` of MNIST.

    images: uint8 (60000, 28, 28) and (10000, 28, 28), 0 is the background, read-only
    labels: uint8 (60000,) and (10000,), read-only

    root       the folder to search for the four IDX files, and its subfolder mnist; MINIRES_DATA or the user's cache
               folder if not given. The files may be compressed with gzip.
    download   whether to download files that are missing; an interrupted download is resumed, and the MD5 is checked
               before a file is used

    Raises FileNotFoundError, which names the file, if a file is missing.
    Raises ValueError, which names the file, if a file is damaged or does not contain what is expected.
    """
    return _load("mnist", root, download)


def fashion_mnist(root: Root = None, *, download: bool = False) -> tuple[Split, Split]:
    """Return ``(train, test)`` of Fashion-MNIST, all 60,000 + 10,000 images.

    Everything else is as for mnist. Without `root`, the folder of Debian's package dataset-fashion-mnist is also
    searched.
    """
    return _load("fashion_mnist", root, download)


def missing(name: str, root: Root) -> list[Missing]:
    """Return what has to be downloaded: those of the four files that are not found."""
    source, (looked, folder) = SOURCES[name], _place(name, root)
    into = folder or looked[0]
    return [Missing([f"{site}{file}.gz" for site in source.sites], into / f"{file}.gz", size, md5)
            for file, size, md5 in zip(FILES, source.sizes, source.md5, strict=True)
            if folder is None or _find(folder, file) is None]


def _place(name: str, root: Root) -> tuple[list[Path], Path | None]:
    """Return the folders to search, and the first of them that has one of the files; None if there is none."""
    looked = folders(root, name)
    looked += [looked[-1] / place for place in SOURCES[name].elsewhere if root is None or not place.startswith("/")]
    return looked, next((folder for folder in looked if any(_find(folder, file) for file in FILES)), None)


def _load(name: str, root: Root, download: bool) -> tuple[Split, Split]:
    source, (looked, folder) = SOURCES[name], _place(name, root)
    if download:
        fetch_all(name, missing(name, root))
    elif folder is None:
        raise absent(name, looked, f"{FILES[0]}.gz and the other three files, unpacked or not",
                     megabytes(sum(source.sizes)))
    folder = folder or looked[0]
    paths = []
    for file in FILES:
        path = _find(folder, file)
        if path is None:
            raise FileNotFoundError(f"{name}: {folder} holds some of its files, but neither {file} nor {file}.gz; "
                                    f"--download, or in Python datasets.{name}(download=True) downloads it")
        paths.append(path)
    train, test = _read(paths[0], paths[1], source.classes), _read(paths[2], paths[3], source.classes)
    if len(train) < len(test):
        raise ValueError(f"{paths[0]}: expected more images than in {paths[2]}, got {len(train)} and {len(test)}; "
                         "have the names been exchanged?")
    for other, its in SOURCES.items():
        if other != name and train.labels[:10].tolist() == its.first:
            raise ValueError(f"{paths[1]}: expected the labels of {name}, got those of {other}, whose files have the "
                             f"same names; put the right files into a folder {name}")
    return train, test


def _find(folder: Path, file: str) -> Path | None:
    """Return the path of the file under any of its usual names; None if there is none."""
    for name in file, file.replace("-idx", ".idx"):  # some programs write a dot when they unpack the file
        for path in folder / name, folder / f"{name}.gz":
            if path.is_file():
                return path
    return None


def _read(images: Path, labels: Path, classes: tuple[str, ...]) -> Split:
    x, y = read_idx(images), read_idx(labels)
    if x.dtype != np.uint8 or x.shape[1:] != (28, 28) or len(x) == 0:
        raise ValueError(f"{images}: expected images uint8 (N, 28, 28), got {x.dtype} {x.shape}")
    if y.dtype != np.uint8 or y.shape != (len(x),):
        raise ValueError(f"{labels}: expected labels uint8 ({len(x)},), one for each image, got {y.dtype} {y.shape}")
    if (highest := int(y.max())) >= len(classes):
        raise ValueError(f"{labels}: expected labels below {len(classes)}, got {highest} at index {int(y.argmax())}")
    return Split(read_only(x), read_only(y), classes)
