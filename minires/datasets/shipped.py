"""Read the part of Fashion-MNIST that ships with minires. See data/README.md."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import numpy as np

from ..files.shipped import shipped_file
from .mnist_family import CLASSES
from .split import Split, read_only

SMALL = "fashion-mnist-12k.npz"
SMALL_SHA256 = "7b5454ed2be5a1d3d458f9d0b6a1aa0520fda1cef05e108eaedcbea71e4a9dfa"


def fashion_mnist_small(path: str | os.PathLike[str] | None = None) -> tuple[Split, Split]:
    """Return ``(train, test)``: the first 10,000 training and the first 2,000 test images of Fashion-MNIST.

    images: uint8 (10000, 28, 28) and (2000, 28, 28), 0 is the background, read-only
    labels: uint8 (10000,) and (2000,), read-only
    path: another copy of the file that ships with minires

    Raises FileNotFoundError if there is no such file.
    Raises ValueError if the file's SHA-256 is not the published one.
    """
    path = shipped_file(SMALL) if path is None else Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"fashion_mnist_small: the file {path} does not exist") from error
    found = hashlib.sha256(content).hexdigest()
    if found != SMALL_SHA256:
        raise ValueError(
            f"{path}: the file is damaged, or it is another file: expected SHA-256 {SMALL_SHA256}, got {found}. "
            "Install minires again, or in a checkout run: git checkout -- data/" + SMALL
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        train, test = (
            Split(read_only(arrays[f"{part}_images"]), read_only(arrays[f"{part}_labels"]), CLASSES)
            for part in ("train", "test")
        )
    return train, test
