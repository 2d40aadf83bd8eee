"""Write and read checkpoints. A checkpoint is one file, which is complete or does not exist. The last two are kept.

The file is a safetensors file with named arrays. Its metadata holds a "header" (JSON), and the SHA-256 of the arrays
and the header.
"""
from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..files import records, tensors
from ..files.atomic import write_atomically

Arrays = dict[str, np.ndarray]


class Damaged(ValueError):
    """The file is not a checkpoint, or it is incomplete or changed."""


def save(folder: str | os.PathLike[str], number: int, arrays: Mapping[str, np.ndarray], header: Any) -> Path:
    """Write checkpoint `number` into `folder`, then delete all others except the newest undamaged one before it.

    number: a higher number means a newer checkpoint
    header: anything that JSON can hold

    The file gets its name only when it is complete and on the disk.

    Raises OSError if the file cannot be written; the earlier checkpoints are then unchanged.
    """
    from safetensors.numpy import save as as_bytes

    text = json.dumps(header)
    ordered = {name: np.array(a, order="C") for name, a in arrays.items()}  # safetensors writes in memory order
    content = as_bytes(ordered, {"header": text, "sha256": _checksum(text, ordered)})
    path = write_atomically(Path(folder) / f"checkpoint-{number:09}.safetensors", content)
    before = next(([other] for other in _in(folder) if _number(other) < number and _whole(other)), [])
    for other in _in(folder):  # one with a higher number is damaged: the run was resumed from an earlier one
        if other not in (path, *before):
            other.unlink()
    return path


def read(path: str | os.PathLike[str]) -> tuple[Arrays, Any]:
    """Return (arrays, header) of one file.

    Raises Damaged, which names the file, if its content is not what was written.
    """
    try:
        with open(path, "rb") as file:
            content = tensors.read(file)
            arrays = {name: stored.read() for name, stored in content.arrays.items()}
        text = content.metadata.get("header", "")
    except (OSError, ValueError) as e:
        raise Damaged(f"{path} cannot be read: {e}") from e
    if _checksum(text, arrays) != content.metadata.get("sha256"):
        raise Damaged(f"{path}: the checksum does not match the content")
    try:
        return arrays, records.parse(text, f"{path}, its header")
    except ValueError as e:
        raise Damaged(str(e)) from e


def _whole(path: Path) -> bool:
    try:
        read(path)
    except Damaged:
        return False
    return True


def newest(folder: str | os.PathLike[str]) -> tuple[tuple[Arrays, Any] | None, list[str]]:
    """Return (arrays, header) of the newest undamaged checkpoint in `folder`, or None if there is none.

    The second result is a list with one message for each damaged checkpoint that was skipped.
    """
    damaged: list[str] = []
    for path in _in(folder):
        try:
            return read(path), damaged
        except Damaged as e:
            damaged.append(str(e))
    return None, damaged


def undamaged(folder: str | os.PathLike[str]) -> Iterator[tuple[Arrays, Any]]:
    """Yield (arrays, header) of every undamaged checkpoint in `folder`, newest first."""
    for path in _in(folder):
        with contextlib.suppress(Damaged):
            yield read(path)


def _in(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the folder's checkpoints, newest first."""
    return sorted((p for p in Path(folder).iterdir() if re.fullmatch(r"checkpoint-\d{9,}\.safetensors", p.name)),
                  key=_number, reverse=True)


def _number(path: Path) -> int:
    return int(path.stem.split("-")[1])


def _checksum(header: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(header.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()
