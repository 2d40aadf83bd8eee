"""Write a file completely or not at all; hold a file for one process alone."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> Path:
    """Write ``content`` to ``path`` and return the path. Text is written as UTF-8, with ``\\udc..`` for each byte of a
    file's name that is not UTF-8.

    The bytes go to a temporary file in the same folder, which then takes the name in one step. An interrupted
    or failed write leaves the old file as it was, and no temporary file.
    """
    path = Path(path)
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:  # "x": never write into a file that is already there
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # the bytes must be on disk before the name points at them
        os.replace(temporary, path)
    except BaseException:  # Ctrl-C too must not leave the temporary file behind
        temporary.unlink(missing_ok=True)
        raise
    return path


def check_can_hold_files(folder: Path) -> None:
    """Raise OSError where files could not be written into `folder`, which may not exist yet. Nothing is changed.

    For before a long computation; what happens during it is not foreseen.
    """
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))


@contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the file ``path`` (made if it is not there) for this process alone; it is let go however the process ends.

    RuntimeError if another holds it. On Windows, which has no such lock, nothing is held.
    """
    try:
        import fcntl
    except ModuleNotFoundError:
        yield
        return
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f"{path} is held by another process that works in this folder; wait for it") from None
        yield
