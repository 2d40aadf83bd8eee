"""Fetch a published file once, whole and checked. urllib does it: no library at hand resumes a transfer."""
from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

_PIECE = 1 << 20
TIMEOUT = 30  # seconds without a byte


def fetch(urls: Sequence[str], path: Path, md5: str) -> Path:
    """Download the file that all `urls` offer, the first that answers, to `path`; returns `path`.

    The bytes gather in `path` + ".part", where a later call goes on; the file takes its name when it is whole and its
    MD5 is `md5`. Shows a progress bar. FileExistsError if `path` is there: nothing is overwritten. ConnectionError
    where no site gives the file or the transfer breaks, ValueError for another MD5, OSError for a full disk.
    """
    if path.exists():
        raise FileExistsError(f"{path}: expected no file of that name, which is about to be downloaded; nothing was "
                              "changed")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    failed = []
    for url in urls:
        try:
            _transfer(url, part)
            break
        except urllib.error.HTTPError as e:
            e.close()
            failed.append(f"{url} answers {e.code} {e.reason}")
        except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError) as e:
            failed.append(f"{url}: {getattr(e, 'reason', e) or type(e).__name__}")
    else:
        raise ConnectionError(f"{path.name}: could not be downloaded: {'; '.join(failed)}. Try again (what has arrived "
                              f"is kept), or put the file into {path.parent} by other means")
    with open(part, "rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != md5:
        part.unlink()
        raise ValueError(f"{url}: expected a file with MD5 {md5}, got {found}; it was deleted. Try again; if it stays "
                         "so, the site offers another file than the published one")
    os.replace(part, path)
    return path


def _transfer(url: str, part: Path) -> None:
    """Bring `part` to the length of what `url` offers."""
    from tqdm.auto import tqdm

    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "minires"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as e:
        if e.code != 416 or not have:
            raise
        e.close()  # nothing lies behind what we have: it is whole, or no part of this file, and the MD5 tells
        return
    with response:
        if response.status != 206:  # this site cannot resume
            have = 0
        left = response.headers.get("Content-Length")
        total = have + int(left) if left else None
        with (open(part, "r+b" if have else "wb") as file,
              tqdm(total=total, initial=have, desc=part.stem, unit="B", unit_scale=True, disable=None) as bar):
            file.seek(have)
            while piece := response.read(_PIECE):
                try:
                    file.write(piece)
                    file.flush()
                except OSError as e:
                    raise OSError(e.errno, f"{e.strerror}; {have} of {total or 'unknown'} bytes are written. Free some "
                                  "space and try again: it goes on from there", str(part)) from e
                have += len(piece)
                bar.update(len(piece))
    if total is not None and have < total:
        raise ConnectionError(f"the transfer ended after {have} of {total} bytes")
