"""Find the files that ship with minires: images, trained weights, recorded results."""
from __future__ import annotations

from pathlib import Path


def shipped_file(name: str) -> Path:
    """Return the path of a file that ships with minires.

    `name` is the file's path in the repository's folder data/, such as "weights/fashion-mnist/resnet20.safetensors".
    An installed package contains these files. data/README.md describes them.

    Raises FileNotFoundError, which names both places searched, if there is no such file.
    """
    package = Path(__file__).resolve().parents[1]
    places = [package / "data" / name, package.parent / "data" / name]  # in an installed wheel; in a checkout
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(f"{name}: minires ships no such file, or the file was removed: neither {places[0]} nor "
                            f"{places[1]} exists. Check the name, or install minires again")
