"""The part of Fashion-MNIST that ships with minires. See data/README.md."""

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
    """The first 10,000 training and the first 2,000 test images of Fashion-MNIST, which ship with minires.

    Returns ``(train, test)``: images uint8 (N, 28, 28) with 0 for the background, labels uint8 (N,), both
    read-only. ``path`` is another copy of the file. Raises FileNotFoundError where there is none, and
    ValueError where its SHA-256 is not the published one.
    """
    path = shipped_file(SMALL) if path is None else Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"fashion_mnist_small: there is no file {path}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != SMALL_SHA256:
        raise ValueError(
            f"{path}: the file is damaged or another one: expected SHA-256 {SMALL_SHA256}, got {found}. "
            "Install minires again, or in a checkout: git checkout -- data/" + SMALL
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        train, test = (
            Split(read_only(arrays[f"{part}_images"]), read_only(arrays[f"{part}_labels"]), CLASSES)
            for part in ("train", "test")
        )
    return train, test
