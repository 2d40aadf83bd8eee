"""Write a file completely or not at all; lock a file for one process."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp", re.DOTALL)  # names of the files that write_atomically renames


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> Path:
    """Write ``content`` to ``path`` and return the path.

    Text is written as UTF-8. Lone surrogates, which Python puts into a file name for each byte that is not UTF-8, are
    written as ``\\udc..``.

    The bytes go to a temporary file in the same folder, which is then renamed to ``path`` in one step. If the write
    fails or is interrupted, the old file is unchanged and the temporary file is deleted.

    Raises OSError, which names ``path``, if the file cannot be written.
    """
    path = Path(path)
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")  # has the form of TEMPORARY
    try:
        with open(temporary, "xb") as file:  # "x": never write into an existing file
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # the bytes must be on disk before the name points to them
        os.replace(temporary, path)
    except BaseException as e:  # the temporary file must also be deleted after Ctrl-C
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(e, OSError):  # a full disk's error names no file, and others name the temporary one
            e.filename, e.filename2 = str(path), None
        raise
    return path


def check_can_hold_files(folder: Path) -> None:
    """Raise OSError if files cannot be written into `folder`, which need not exist yet. Nothing is changed.

    Call this before a long computation. It cannot foresee what happens during the computation.
    """
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))


@contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Lock the file ``path`` for this process, and create the file if it does not exist.

    The lock is released even if the process is killed. Windows has no such lock, so nothing is locked there.

    Raises RuntimeError if another process holds the lock.
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
            raise RuntimeError(f"{path} is held by another process, which is working in this folder; wait until it "
                               "ends") from None
        yield
