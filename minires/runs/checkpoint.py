"""Checkpoints: each one file, there completely or not at all, with a checksum inside; the last two are kept.

A checkpoint is a safetensors file: named arrays, and in its metadata a "header" (JSON) and the SHA-256 of both.
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
    """The file is no checkpoint, or not all of it, or not as it was written."""


def save(folder: str | os.PathLike[str], number: int, arrays: Mapping[str, np.ndarray], header: Any) -> Path:
    """Write checkpoint `number` (a higher one is newer) into `folder`, then remove all but it and the one before it.

    The file gets its name only when it is complete and on the disk. OSError, and the earlier ones are as they were,
    where that fails. `header` is anything that JSON can hold.
    """
    from safetensors.numpy import save as as_bytes

    text = json.dumps(header)
    ordered = {name: np.array(a, order="C") for name, a in arrays.items()}  # safetensors writes memory as it lies
    content = as_bytes(ordered, {"header": text, "sha256": _checksum(text, ordered)})
    path = write_atomically(Path(folder) / f"checkpoint-{number:09}.safetensors", content)
    before = next(([other] for other in _in(folder) if _number(other) < number and _whole(other)), [])
    for other in _in(folder):  # one with a higher number was damaged: a run that goes on went past it
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
        raise Damaged(f"{path}: its checksum does not fit its content")
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
    """(arrays, header) of the newest undamaged checkpoint in `folder`, or None; and a sentence on each damaged one."""
    damaged: list[str] = []
    for path in _in(folder):
        try:
            return read(path), damaged
        except Damaged as e:
            damaged.append(str(e))
    return None, damaged


def undamaged(folder: str | os.PathLike[str]) -> Iterator[tuple[Arrays, Any]]:
    """(arrays, header) of every undamaged checkpoint in `folder`, newest first."""
    for path in _in(folder):
        with contextlib.suppress(Damaged):
            yield read(path)


def _in(folder: str | os.PathLike[str]) -> list[Path]:
    """The folder's checkpoints, newest first."""
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
