"""Read CIFAR-10 and CIFAR-100: 32x32 colour images in ten and in a hundred classes.

Source: A. Krizhevsky, "Learning multiple layers of features from tiny images" (2009), and the data sets' page,
https://www.cs.toronto.edu/~kriz/cifar.html, which describes both formats. An image is 3072 bytes: the red plane, the
green plane, the blue plane, each row by row. The binary format puts one byte with the label before each image (in
CIFAR-100 two bytes: the coarse label and the fine label). The python format is a pickled dictionary of an array and
lists, written by Python 2.
"""
from __future__ import annotations

import gzip
import io
import posixpath
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..files import archives, pickles
from ..files.kinds import HEAD, other_kind
from ..names import unknown
from .download import Missing, fetch_all, megabytes
from .places import Root, absent, folders
from .split import Split, read_only

SITE = "https://www.cs.toronto.edu/~kriz/"
SIZES = {"cifar10": 170_052_171, "cifar100": 168_513_733}  # bytes of the binary archives
TRAIN, TEST = 50_000, 10_000  # images, in both data sets
PIXELS = 3 * 32 * 32
MORE = 10_000           # bytes for what a file holds beside images
FREE_MEMORY = 16 << 20  # bytes that a pickle may build beside a byte for each of its bytes


class Format(NamedTuple):
    """Describes one of the two formats in which a data set is published."""

    archive: str
    md5: str                  # of the archive, from the data sets' page
    folder: str               # the folder in the archive, which unpacking creates
    train: tuple[str, ...]
    test: str
    names: dict[str, str]     # {kind of label: file with its class names}; in the python format "file:key"


CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
COARSE_CLASSES = (
    "aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables", "household_electrical_devices",
    "household_furniture", "insects", "large_carnivores", "large_man-made_outdoor_things",
    "large_natural_outdoor_scenes", "large_omnivores_and_herbivores", "medium_mammals", "non-insect_invertebrates",
    "people", "reptiles", "small_mammals", "trees", "vehicles_1", "vehicles_2")
_FINE = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm"""
FINE_CLASSES = tuple(_FINE.split())

# Kinds of labels by their keys in the python format, in the order of their bytes in the binary format.
Classes = dict[str, tuple[str, ...]]
CLASSES: dict[str, Classes] = {
    "cifar10": {"labels": CIFAR10_CLASSES},
    "cifar100": {"coarse_labels": COARSE_CLASSES, "fine_labels": FINE_CLASSES},
}
FORMATS = {
    "cifar10": (
        Format("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", "cifar-10-batches-py",
               tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch",
               {"labels": "batches.meta:label_names"}),
        Format("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", "cifar-10-batches-bin",
               tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin",
               {"labels": "batches.meta.txt"})),
    "cifar100": (
        Format("cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", "cifar-100-python", ("train",), "test",
               {"coarse_labels": "meta:coarse_label_names", "fine_labels": "meta:fine_label_names"}),
        Format("cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8", "cifar-100-binary", ("train.bin",),
               "test.bin", {"coarse_labels": "coarse_label_names.txt", "fine_labels": "fine_label_names.txt"})),
}


def cifar10(root: Root = None, *, download: bool = False) -> tuple[Split, Split]:
    """Return ``(train, test)`` of CIFAR-10.

    images: uint8 (50000, 32, 32, 3) and (10000, 32, 32, 3), RGB, read-only
    labels: uint8 (50000,) and (10000,), read-only

    root       the folder to search, and its subfolder cifar10; MINIRES_DATA or the user's cache folder if not given.
               Either format is read, as the archive (which is not unpacked to disk) or as the unpacked folder.
    download   whether to download the binary archive if nothing is found; an interrupted download is resumed, and
               the MD5 is checked before the archive is used

    Raises FileNotFoundError, which names the file, if a file is missing.
    Raises ValueError, which names the file, if a file is not what the data sets' page describes.
    """
    return _load("cifar10", "labels", root, download)


def cifar100(root: Root = None, *, labels: str = "fine", download: bool = False) -> tuple[Split, Split]:
    """Return ``(train, test)`` of CIFAR-100 with its 100 "fine" or its 20 "coarse" classes.

    Everything else is as for cifar10. Raises ValueError for another value of `labels`.
    """
    if labels not in ("fine", "coarse"):
        raise unknown("cifar100, labels", labels, ("fine", "coarse"))
    return _load("cifar100", f"{labels}_labels", root, download)


# ------------------------------------------------------------------------------------------------ finding the files

def _load(name: str, kind: str, root: Root, download: bool) -> tuple[Split, Split]:
    found = _find(name, root)
    if found is None and download:
        found = FORMATS[name][1], fetch_all(name, missing(name, root))[0]
    if found is None:
        raise absent(name, folders(root, name), " or ".join(f"{f.folder}/ or {f.archive}" for f in FORMATS[name]),
                     megabytes(SIZES[name]))
    form, place = found
    files = _read_folder(place, form) if place.is_dir() else _read_archive(place, form)
    for file in (*form.train, form.test):
        if file not in files:
            raise FileNotFoundError(f"{place}: expected the files {', '.join((*form.train, form.test))}, but {file} "
                                    "is missing")
    return _splits(str(place), files, form, CLASSES[name], kind)


def missing(name: str, root: Root) -> list[Missing]:
    """Return what has to be downloaded: the binary archive, which is smaller and not a pickle, if nothing is found."""
    form = FORMATS[name][1]
    path = folders(root, name)[0] / form.archive
    return [] if _find(name, root) else [Missing([SITE + form.archive], path, SIZES[name], form.md5)]


def _find(name: str, root: Root) -> tuple[Format, Path] | None:
    """Return the first format found, and its folder or archive; None if there is none."""
    for folder in folders(root, name):
        for form in FORMATS[name]:
            for place in folder / form.folder, folder:
                if any((place / file).is_file() for file in (*form.train, form.test)):
                    return form, place
        for form in FORMATS[name]:
            if (folder / form.archive).is_file():
                return form, folder / form.archive
    return None


def most_bytes(form: Format) -> dict[str, int]:
    """Return the largest size of each file, in bytes.

    In a pickle a pixel may take two bytes, as when Python 3 writes protocol 2, and an image has a file name.
    """
    each = PIXELS + 2 if form.test.endswith(".bin") else 2 * PIXELS + 200
    sizes = dict.fromkeys(_name_files(form), MORE)
    sizes |= dict.fromkeys(form.train, TRAIN // len(form.train) * each + MORE)
    return sizes | {form.test: TEST * each + MORE}


def _read_folder(folder: Path, form: Format) -> dict[str, bytes]:
    files = {}
    for name, most in most_bytes(form).items():
        if (path := folder / name).is_file():
            if (size := path.stat().st_size) > most:
                raise ValueError(f"{path}: expected at most {most} bytes, got {size}")
            files[name] = path.read_bytes()
            if kind := other_kind(files[name][:HEAD]):
                raise ValueError(f"{path}: {kind}")
    return files


def _read_archive(path: Path, form: Format) -> dict[str, bytes]:
    """Return {name: content} of the files needed from an archive.

    The archive is read in one pass to its end, because gzip's checksum is at the end. Other files are skipped.
    """
    sizes = most_bytes(form)
    wanted = {f"{form.folder}/{name}": name for name in sizes}
    most = sum(sizes.values()) + 10 * MORE  # with the headers, and files such as readme.html
    files: dict[str, bytes] = {}
    try:
        with open(path, "rb") as file:
            if kind := other_kind(file.read(HEAD)):
                raise pickles.Refused(kind)
            file.seek(0)
            with gzip.open(file) as unpacked:
                stream = _Bounded(unpacked, most)
                for member, content in archives.tar_members(stream, most):
                    name = wanted.get(posixpath.normpath(member.name))
                    if name is None:
                        continue
                    if not member.plain or name in files or member.size > sizes[name]:
                        raise ValueError(f"{name} in it is not a plain file of at most {sizes[name]} bytes, or is "
                                         "there twice")
                    files[name] = content.read(member.size)
                while stream.read(1 << 20):
                    pass
    except (gzip.BadGzipFile, EOFError, zlib.error, ValueError) as e:
        raise ValueError(f"{path}: expected a tar.gz archive of {form.folder}, but it cannot be read: {e}") from e
    return files


class _Bounded:
    """Reads a stream, and raises ValueError once it has given more than `most` bytes, so that reading always ends."""

    def __init__(self, file: gzip.GzipFile, most: int):
        self.file, self.left = file, most

    def read(self, size: int, /) -> bytes:
        """Return `size` bytes, or fewer at the end of the stream."""
        pieces = []
        while size and (piece := self.file.read(size)):
            self.left -= len(piece)
            if self.left < 0:
                raise ValueError("it unpacks to more bytes than the data set has")
            size -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)


# ------------------------------------------------------------------------------------------------- reading the files

def _name_files(form: Format) -> set[str]:
    return {place.partition(":")[0] for place in form.names.values()}


def _splits(place: str, files: dict[str, bytes], form: Format, classes: Classes, kind: str) -> tuple[Split, Split]:
    """Return (train, test). Check every file completely, including the labels of the kinds that are not asked for."""
    for its, file in form.names.items():
        file, _, key = file.partition(":")
        if file in files:
            where = f"{place}: {file}"
            names = _batch(where, files[file]).get(key) if key else files[file].decode("latin1").split()
            if not isinstance(names, list) or tuple(map(_text, names)) != classes[its]:
                raise ValueError(f"{where}: expected the names of the classes, {', '.join(classes[its][:3])} and so "
                                 "on, got other names")
    splits = []
    for part, count, title in (form.train, TRAIN, "training batch"), ((form.test,), TEST, "testing batch"):
        images, labels = np.empty((count, 32, 32, 3), np.uint8), np.empty(count, np.uint8)
        each = count // len(part)
        for i, file in enumerate(part):
            where, rows = f"{place}: {file}", slice(i * each, (i + 1) * each)
            pixels, by_kind = (read_binary(where, files[file], each, classes) if file.endswith(".bin") else
                               read_python(where, files[file], each, classes, f"{title} {i + 1} of {len(part)}"))
            images[rows] = pixels.reshape(each, 3, 32, 32).transpose(0, 2, 3, 1)
            labels[rows] = by_kind[kind]
        splits.append(Split(read_only(images), read_only(labels), classes[kind]))
    train, test = splits
    of_each = np.bincount(test.labels, minlength=len(test.classes))
    # All CIFAR-10 files are the same size, so a renamed file shows only here: the test file has 1,000 images of each
    # class.
    if len(form.train) > 1 and np.ptp(of_each):
        raise ValueError(f"{place}: {form.test}: expected equally many images of each class, got {of_each.tolist()}; "
                         "has the file been renamed?")
    return train, test


Read = tuple[np.ndarray, dict[str, np.ndarray]]  # pixels uint8 (n, 3072), labels uint8 (n,) of each kind


def read_binary(where: str, content: bytes, n: int, classes: Classes) -> Read:
    """Return the pixels and labels of a file in the binary format, which must have n images.

    pixels: uint8 (n, 3072)
    labels: {kind: uint8 (n,)}

    Raises ValueError, which calls the file `where`, if the content is anything else.
    """
    row = len(classes) + PIXELS
    if len(content) != n * row:
        raise ValueError(f"{where}: expected {n} images of {row} bytes each, {n * row} bytes, got {len(content)}")
    rows = np.frombuffer(content, np.uint8).reshape(n, row)
    labels = {kind: rows[:, i] for i, kind in enumerate(classes)}
    for kind, names in classes.items():
        _check_labels(where, kind, labels[kind].tolist(), len(names))
    return rows[:, len(classes):], labels


def read_python(where: str, content: bytes, n: int, classes: Classes, title: str) -> Read:
    """Return the pixels and labels of a file in the python format, which must have n images.

    pixels: uint8 (n, 3072)
    labels: {kind: uint8 (n,)}

    Raises ValueError, which calls the file `where`, if the content is anything else, or if it has a "batch_label" that
    is not `title`.
    """
    batch = _batch(where, content)
    if (said := _text(batch.get("batch_label", title))) != title:
        raise ValueError(f"{where}, batch_label: expected {title!r}, got {said[:50]!r}; has the file been renamed?")
    data = batch.get("data")
    pixels = data.array if isinstance(data, _Array) else None
    if pixels is None or pixels.shape != (n, PIXELS):
        got = "no array" if pixels is None else f"shape {pixels.shape}"
        raise ValueError(f"{where}, data: expected a uint8 array of shape ({n}, {PIXELS}), got {got}")
    labels = {}
    for kind, names in classes.items():
        given = batch.get(kind)
        if not isinstance(given, list) or len(given) != n or not all(type(v) is int for v in given):
            got = f"{len(given)} items" if isinstance(given, list) else type(given).__name__
            raise ValueError(f"{where}, {kind}: expected a list of {n} integers, got {got}")
        _check_labels(where, kind, given, len(names))
        labels[kind] = np.array(given, np.uint8)
    return pixels, labels


def _check_labels(where: str, kind: str, labels: list[int], classes: int) -> None:
    for index, label in enumerate(labels):
        if not 0 <= label < classes:
            got = label if label.bit_length() < 64 else "a huge number"
            raise ValueError(f"{where}, {kind}: expected numbers from 0 to {classes - 1}, got {got} at index {index}")


# -------------------------------------------------------------------------- reading pickles without running their code

def _batch(where: str, content: bytes) -> dict[str, Any]:
    try:
        # The pixels are bytes, which take no other memory. An image has a few labels and a file name beside them.
        batch = pickles.read(io.BytesIO(content), ALLOWED, encoding="bytes", memory=FREE_MEMORY + len(content),
                             most=len(content))
    except pickles.Refused as e:
        raise ValueError(f"{where}: expected a batch in CIFAR's python format: {e}") from e
    if not isinstance(batch, dict):
        raise ValueError(f"{where}: expected a pickled dictionary, got {type(batch).__name__}")
    return {_text(key): value for key, value in batch.items()}


def _text(given: Any) -> str:
    """Return a string that Python 2 or 3 wrote as text; "" for anything else. Python 2's strings arrive as bytes."""
    return given.decode("latin1") if isinstance(given, bytes) else given if isinstance(given, str) else ""


# These stand-ins replace the names in the pickles, and can only hold uint8 pixels. A pickle may call them with any
# arguments and set any state, even that of a class. __setstate__ leaves it no way to change them.

class _Array:
    """Stands in for numpy.ndarray, and for the function that a pickle of an array calls first."""

    array: np.ndarray | None = None

    def __init__(self, *_: Any): pass

    def __setstate__(self, state: Any) -> None:
        if type(state) is not tuple or len(state) != 5 or type(state[1]) is not tuple:
            raise pickles.Refused("its array has no state that NumPy would write")
        _, shape, dtype, fortran, pixels = state
        if not isinstance(dtype, _Dtype) or dtype.name not in ("u1", "uint8", "|u1"):
            raise pickles.Refused("its array does not have dtype uint8")
        if type(pixels) is not bytes or shape != (len(pixels) // PIXELS, PIXELS):
            raise pickles.Refused(f"its array does not have the shape (n, {PIXELS})")
        self.array = np.frombuffer(pixels, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Dtype:
    """Stands in for numpy.dtype, and keeps only its name."""

    def __init__(self, name: Any = "", *_: Any):
        self.name = _text(name)

    def __setstate__(self, state: Any) -> None: pass  # byte order and fields, which uint8 does not have


class _Encoded(bytes):
    """Stands in for _codecs.encode, which Python 3 uses for bytes when it writes one of Python 2's pickle protocols."""

    def __new__(cls, text: str = "", encoding: str = "latin1") -> Any:
        if not isinstance(text, str) or encoding != "latin1":
            raise pickles.Refused("it encodes something other than bytes")
        return text.encode("latin1")

    def __setstate__(self, state: Any) -> None: pass


ALLOWED = {("numpy", "ndarray"): _Array, ("numpy", "dtype"): _Dtype, ("_codecs", "encode"): _Encoded,
           ("numpy.core.multiarray", "_reconstruct"): _Array, ("numpy._core.multiarray", "_reconstruct"): _Array}
