"""Write a file completely or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> Path:
    """Write ``content`` (text as UTF-8) to ``path`` and return the path.

    The bytes go to a temporary file in the same folder, which then takes the name in one step. An interrupted
    or failed write leaves the old file as it was, and no temporary file.
    """
    path = Path(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
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
