"""Where data sets lie on this machine."""
from __future__ import annotations

import os
import sys
from pathlib import Path

Root = str | os.PathLike[str] | None


def home() -> Path:
    """The folder that holds the data sets where no `root` is given: MINIRES_DATA, else the user's cache folder."""
    if given := os.environ.get("MINIRES_DATA"):
        return Path(given).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "minires"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "minires"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minires"


def folders(root: Root, name: str) -> list[Path]:
    """Where a data set of this name may lie: in a folder of its own in `root`, or in `root` itself."""
    root = home() if root is None else Path(root)
    return [root / name, root]


def absent(name: str, looked: list[Path], wanted: str) -> FileNotFoundError:
    """The error to raise where a data set's files are in none of the folders `looked`."""
    return FileNotFoundError(
        f"{name}: not found. Looked in {', '.join(map(str, looked))} for {wanted}. "
        "root, --data-dir or MINIRES_DATA says where else to look; to fetch it: "
        f'python -c "from minires import datasets; datasets.{name}(download=True)"')
