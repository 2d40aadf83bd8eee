"""Open zip files and read tar files from elsewhere: what they list costs no more than a file of their size needs.

zipfile and tarfile keep an object for every entry, believe the sizes that the entries claim, and tarfile calls itself
for every long name that follows another.
"""
from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, Protocol

from .pickles import Refused

FREE_LIST = 2 << 20      # bytes that the list of entries of every zip file may have, also of a small one
MOST_HEADERS = 1000      # of a tar file
MOST_MORE = 64 << 10     # bytes of an additional header of a tar file: a long name, or pax records
MOST_IN_A_ROW = 8        # additional headers of one member
BLOCK = 512


def most_list(size: int) -> int:
    """Return how many bytes the list of what a file of `size` bytes holds may have: a zip file's entries, or the header
    of a safetensors file. An entry takes about 20 times its bytes in memory.
    """
    return FREE_LIST + size // 16


def open_zip(file: BinaryIO) -> zipfile.ZipFile:
    """Return the open zip file.

    Raises Refused if its list of entries is longer than a file of its size needs.
    Raises whatever zipfile raises if the file is damaged.
    """
    size = file.seek(0, 2)
    file.seek(0)
    guarded: Any = _Guarded(file, most_list(size))
    archive = zipfile.ZipFile(guarded)
    guarded.most = size
    return archive


class _Guarded:
    """Passes everything on to a file, and refuses to read more than `most` bytes at once. zipfile reads the list of
    entries at once.
    """

    def __init__(self, file: BinaryIO, most: int):
        self.file, self.most = file, most

    def read(self, size: int = -1) -> bytes:
        if size > self.most:
            raise Refused(f"its list of entries has {size} bytes; expected at most {self.most} for a file of its size")
        return self.file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


class Stream(Protocol):
    """Bytes that can be read from the beginning to the end."""

    def read(self, size: int, /) -> bytes: ...


class Member(NamedTuple):
    """Describes a file in a tar file."""

    name: str
    plain: bool  # whether it is a plain file; otherwise it is a folder, a link or a device
    size: int    # in bytes


def tar_members(stream: Stream, most: int) -> Iterator[tuple[Member, Stream]]:
    """Yield each member of a tar file and a stream of its content, which may be read until the next one is asked for.

    most   bytes; no member may be larger

    Raises Refused if the file is damaged, and for more than MOST_HEADERS headers, for a member larger than `most`, and
    for additional headers larger than MOST_MORE.
    """
    more: dict[str, str] = {}  # what additional headers say about the next member
    row = 0
    for number in range(MOST_HEADERS + 1):
        head = stream.read(BLOCK)
        if not head and not number:
            raise Refused("it is empty")
        if not head or head == bytes(BLOCK):
            return
        if number == MOST_HEADERS:
            raise Refused(f"it has more than {MOST_HEADERS} members")
        try:
            info = tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
        except tarfile.HeaderError as e:
            raise Refused(f"it is damaged: {e}") from e
        additional = info.type in (b"x", b"g", b"X", b"L", b"K")
        try:
            size = info.size if additional else int(more.get("size", info.size))
        except ValueError as e:
            raise Refused("it is damaged: the size of a member is not a number") from e
        if not 0 <= size <= (MOST_MORE if additional else most):
            raise Refused(f"it has a member of {_shown(size)} bytes; expected at most "
                          f"{MOST_MORE if additional else most}")
        content = _Part(stream, size)
        if additional:
            row += 1
            if row > MOST_IN_A_ROW:
                raise Refused(f"it has more than {MOST_IN_A_ROW} additional headers in a row")
            said = content.read(size)
            if info.type == b"L":
                more["path"] = said.partition(b"\0")[0].decode("utf-8", "surrogateescape")
            elif info.type != b"K":
                more |= _pax(said)
        else:
            yield Member(more.get("path", info.name), info.isreg() and not info.issparse(), size), content
            more, row = {}, 0
        content.skip()


def _shown(size: int) -> str:
    return str(size) if abs(size) < 2**63 else "2^63 or more"


def _pax(records: bytes) -> dict[str, str]:
    """Return the path and the size from the records "LENGTH KEY=VALUE\\n" of a pax header."""
    found = {}
    at = 0
    while at < len(records) and records[at:at + 1] != b"\0":
        length, space, _ = records[at:at + 20].partition(b" ")
        if not space or not length.isdigit() or int(length) <= len(length) + 1 or at + int(length) > len(records):
            raise Refused("it is damaged: a pax header has a record without its length")
        key, _, value = records[at + len(length) + 1:at + int(length) - 1].partition(b"=")
        if key in (b"path", b"size"):
            found[key.decode()] = value.decode("utf-8", "surrogateescape")
        elif key.startswith(b"GNU.sparse"):
            raise Refused("it has a sparse member, which such a file does not need")
        at += int(length)
    return found


class _Part:
    """Reads `size` bytes of a stream, and skips what is left of them and of their last block."""

    def __init__(self, stream: Stream, size: int):
        self.stream, self.left, self.after = stream, size, -size % BLOCK

    def read(self, size: int) -> bytes:
        piece = self.stream.read(min(size, self.left))
        if not piece and size and self.left:
            raise Refused("it is damaged: it ends inside a member")
        self.left -= len(piece)
        return piece

    def skip(self) -> None:
        while self.left:
            self.read(1 << 20)
        self.stream.read(self.after)
