"""Rebuild fashion-mnist-12k.npz from the four official files of Fashion-MNIST.

    python data/make_fashion_mnist_12k.py FOLDER [--out FILE]

FOLDER holds train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, each
unpacked or as a .gz file. The result has the first 10,000 training and the first 2,000 test images in their order. Two
runs give the same bytes; another version of zlib may compress the same arrays to other bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np

from minires.datasets.idx import read_idx
from minires.datasets.shipped import SMALL, SMALL_SHA256
from minires.files.atomic import write_atomically

# (name in the result, official file, SHA-256 of its elements without the header, number of images or labels to take)
PARTS = (
    (
        "train_images",
        "train-images-idx3-ubyte",
        "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
        10_000,
    ),
    (
        "train_labels",
        "train-labels-idx1-ubyte",
        "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
        10_000,
    ),
    (
        "test_images",
        "t10k-images-idx3-ubyte",
        "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
        2_000,
    ),
    (
        "test_labels",
        "t10k-labels-idx1-ubyte",
        "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
        2_000,
    ),
)


def official(folder: Path, name: str, sha256: str) -> np.ndarray:
    """Return the array in one official file.

    Raises ValueError if its elements are not the official ones, and FileNotFoundError if there is no such file.
    """
    places = [folder / f"{name}.gz", folder / name]
    for path in places:
        if path.is_file():
            array = read_idx(path)
            found = hashlib.sha256(array.tobytes()).hexdigest()
            if found != sha256:
                raise ValueError(f"{path}: expected elements with SHA-256 {sha256}, got {found}")
            return array
    raise FileNotFoundError(f"expected {places[0]} or {places[1].name} beside it, found neither")


def pack(arrays: dict[str, np.ndarray]) -> bytes:
    """Return the arrays as an .npz file without time, user or system, so that two runs give the same bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            content = io.BytesIO()
            np.lib.format.write_array(
                content, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False
            )
            archive.writestr(entry, content.getvalue(), compresslevel=9)
    return packed.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description="Rebuild fashion-mnist-12k.npz from the official files.")
    parser.add_argument("folder", type=Path, help="where the four official IDX files are")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).with_name(SMALL), help="default: %(default)s"
    )
    options = parser.parse_args()
    content = pack({name: official(options.folder, file, sha256)[:n] for name, file, sha256, n in PARTS})
    found = hashlib.sha256(content).hexdigest()
    write_atomically(options.out, content)
    print(f"{options.out}: {len(content):,} bytes, SHA-256 {found}")
    if found != SMALL_SHA256:
        print(
            f"these are not the shipped bytes, whose SHA-256 is {SMALL_SHA256}; fashion_mnist_small() reads only those"
        )


if __name__ == "__main__":
    main()
