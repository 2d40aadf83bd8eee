"""Find the folders for data sets on this machine."""
from __future__ import annotations

import os
import sys
from pathlib import Path

Root = str | os.PathLike[str] | None


def home() -> Path:
    """Return the folder used when no `root` is given: MINIRES_DATA if it is set, else the user's cache folder."""
    if given := os.environ.get("MINIRES_DATA"):
        return Path(given).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "minires"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "minires"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minires"


def folders(root: Root, name: str) -> list[Path]:
    """Return the folders to search for the data set with this name: its own folder in `root`, and `root` itself."""
    root = home() if root is None else Path(root)
    return [root / name, root]


def absent(name: str, looked: list[Path], wanted: str, size: str) -> FileNotFoundError:
    """Return the error to raise when none of the folders `looked` has the files of a data set.

    size: of the download, as text
    """
    return FileNotFoundError(
        f"{name}: not found. Looked in {', '.join(map(str, looked))} for {wanted}. "
        "To search another folder, set root, --data-dir or MINIRES_DATA; to download the data set "
        f"({size}), give --download, or in Python datasets.{name}(download=True)")
