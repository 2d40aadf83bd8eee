"""Read the index of weights that are in several files, as Hugging Face's libraries write it next to the files:

    {"metadata": {"total_size": 123}, "weight_map": {"conv1.weight": "model-00001-of-00002.safetensors", ...}}
"""
from __future__ import annotations

import os
from typing import BinaryIO

from . import tensors
from .pickles import SHOWN, Refused

MOST_BYTES = 16 << 20  # of an index; one entry of a network takes about 100 bytes
MOST_FILES = 200       # all of which are open at the same time


def is_index(head: bytes) -> bool:
    """Return whether a file that begins with `head` may be such an index: a safetensors file with these bytes would
    have 2^56 bytes."""
    return head[:1] == b"{" and 0 not in head[:8]


def read(file: BinaryIO) -> dict[str, list[str]]:
    """Return {name of a file in the folder of the index: names of the arrays that it holds}.

    Raises Refused if the file is not such an index, or if it names a file outside its folder.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size > MOST_BYTES:
        raise Refused(f"it is a JSON file of more than {MOST_BYTES} bytes, which holds no weights")
    index = tensors.parsed(file.read(MOST_BYTES), "it")
    places = index.get("weight_map") if isinstance(index, dict) else None
    if places is None:
        raise Refused("it is a JSON file, which holds no weights; an index of weights in several files has a "
                      '"weight_map"')
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise Refused('it is damaged: expected its "weight_map" as the name of a file for each name of an array')
    files: dict[str, list[str]] = {}
    for name, place in places.items():
        if place in ("", ".", "..") or any(sign in place for sign in "/\\:\0") or len(place) > SHOWN:
            raise Refused(f"it says that {name[:SHOWN]} is in {place[:SHOWN]!r}, which is not the name of a file in "
                          "the folder of the index")
        files.setdefault(place, []).append(name)
    if len(files) > MOST_FILES:
        raise Refused(f"it names {len(files)} files; expected at most {MOST_FILES}")
    return files
