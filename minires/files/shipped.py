"""Find the files that ship with minires: images, trained weights, recorded results."""
from __future__ import annotations

from pathlib import Path


def shipped_file(name: str) -> Path:
    """Return the path of a file that ships with minires.

    `name` is the file's path in the repository's folder data/, such as "weights/fashion-mnist/resnet20.safetensors".
    An installed package carries these files inside it. What they hold is in data/README.md.
    FileNotFoundError, with the places looked at, if there is no such file.
    """
    package = Path(__file__).resolve().parents[1]
    places = [package / "data" / name, package.parent / "data" / name]  # in an installed wheel; in a checkout
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(f"{name}: minires ships no such file, or it was removed: there is neither {places[0]} nor "
                            f"{places[1]}")
