"""Download a published file once, completely, and check it.

This uses urllib, because none of the packages that minires needs can resume a download.
"""
from __future__ import annotations

import errno
import hashlib
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

from ..files import streams
from ..files.atomic import locked

_PIECE = 1 << 20
TIMEOUT = 30  # seconds without a byte


class Missing(NamedTuple):
    """Describes a published file that is not on this machine."""

    urls: Sequence[str]  # which all offer the same file
    path: Path           # where it will be
    size: int            # in bytes
    md5: str


def fetch_all(name: str, missing: Sequence[Missing]) -> list[Path]:
    """Download the missing files of the data set `name`, after a line on stderr for each that says what will come.

    Raises what `fetch` raises.
    """
    for one in missing:
        left = one.size - (part.stat().st_size if (part := _part(one.path)).exists() else 0)
        line = (f"{name}: fetching {one.urls[0]} ({megabytes(one.size)}"
                f"{f', {megabytes(left)} of them left' if 0 < left < one.size else ''}) into {one.path.parent}")
        if sys.stderr is not None:
            streams.attempt(partial(print, line, file=sys.stderr, flush=True))
        fetch(one.urls, one.path, one.md5, 2 * one.size)
    return [one.path for one in missing]


def megabytes(size: int) -> str:
    """Return a number of bytes as text: "170 MB", "1.6 MB" or "29 kB"."""
    if size < 10**6:
        return f"{max(size / 1000, 1):.0f} kB"
    return f"{size / 10**6:.0f} MB" if size >= 10**7 else f"{size / 10**6:.1f} MB"


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def fetch(urls: Sequence[str], path: Path, md5: str, most: int | None = None) -> Path:
    """Download a file from the first of `urls` that answers, and return `path`. All `urls` offer the same file.

    The bytes are written to `path` + ".part", and a later call resumes there, also after Ctrl-C. When the file is
    complete and its MD5 is `md5`, it is renamed to `path`. On a terminal a progress bar is shown.

    most: bytes; a file with more is not downloaded. None: no limit

    Raises FileExistsError if `path` exists: nothing is overwritten.
    Raises ConnectionError if no site offers the file, or if the transfer breaks off.
    Raises ValueError for another MD5 and for more than `most` bytes, after which the partial file is deleted.
    Raises OSError if the disk is full or the folder cannot be written to.
    Raises RuntimeError if another process downloads the same file.
    """
    if path.exists():
        raise FileExistsError(f"{path}: expected no file of that name, because it is about to be downloaded; nothing "
                              "was changed")
    part = _part(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path.parent)
    except OSError as e:
        raise OSError(e.errno, f"{e.strerror}; nothing can be downloaded there. Choose another folder with "
                      "MINIRES_DATA or --data-dir, in Python with root", str(e.filename)) from e
    with locked(part):
        if path.exists():  # another process has downloaded it since
            part.unlink(missing_ok=True)
            return path
        return _fetched(urls, path, part, md5, most)


def _fetched(urls: Sequence[str], path: Path, part: Path, md5: str, most: int | None) -> Path:
    failed = []
    for url in urls:
        try:
            _transfer(url, part, most)
            break
        except _TooLong as e:
            part.unlink(missing_ok=True)
            raise ValueError(f"{url}: expected at most {most} bytes, got more; it was deleted. The site offers a file "
                             "that is not the published one") from e
        except urllib.error.HTTPError as e:
            e.close()
            failed.append(f"{url} answers {e.code} {e.reason}")
        except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError) as e:
            failed.append(f"{url}: {getattr(e, 'reason', e) or type(e).__name__}")
    else:
        if part.exists() and not part.stat().st_size:
            part.unlink()
        raise ConnectionError(f"{path.name}: could not be downloaded: {'; '.join(failed)}. Try again (what has arrived "
                              f"is kept), or put the file into {path.parent} by other means")
    with open(part, "rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != md5:
        part.unlink()
        raise ValueError(f"{url}: expected a file with MD5 {md5}, got {found}; it was deleted. Try again; if that "
                         "does not help, the site offers a file that is not the published one")
    os.replace(part, path)
    return path


class _TooLong(Exception):
    """A site offers more bytes than the file can have."""


def _transfer(url: str, part: Path, most: int | None) -> None:
    """Download from `url` to `part`, starting after the bytes that `part` already has."""
    from tqdm.auto import tqdm

    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "minires"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as e:
        if e.code != 416 or not have:
            raise
        e.close()  # the site has no bytes after these: `part` is complete or of another file; the MD5 shows which
        return
    with response:
        if response.status != 206:  # this site cannot resume, and sends the file from its beginning
            have = 0
        left = response.headers.get("Content-Length", "")
        total = have + int(left) if left.isdecimal() and len(left) < 20 else None
        if most is not None and (total or 0) > most:
            raise _TooLong
        with (open(part, "r+b" if have else "wb") as file,
              tqdm(total=total, initial=have, desc=part.stem, unit="B", unit_scale=True, disable=None) as bar):
            file.seek(have)
            while piece := response.read(_PIECE):
                try:
                    file.write(piece)
                    file.flush()
                except OSError as e:
                    raise OSError(e.errno, f"{e.strerror}; {have} of {total or 'unknown'} bytes are written. Free some "
                                  "space and try again: the download resumes", str(part)) from e
                have += len(piece)
                bar.update(len(piece))
                if most is not None and have > most:
                    raise _TooLong
    if total is not None and have < total:
        raise ConnectionError(f"the transfer ended after {have} of {total} bytes")
