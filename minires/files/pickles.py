"""Read untrusted pickles without running the code that they name.

A pickle is a program: it may name any callable of any module and call it with any arguments. CIFAR's python batches
and PyTorch's files are pickles. Reading a pickle with this module calls only what the caller of `read` allows.
"""
from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO, ClassVar

Allowed = Mapping[tuple[str, str], Any]  # {(module, name) as written in the pickle: its stand-in here}


class Refused(ValueError):
    """The pickle names something that is not allowed, or it is damaged or incomplete."""


def check_keys(keys: Iterable[Any]) -> None:
    """Check that every key of a dict is text, bytes, a number or None.

    Stand-ins that fill a dict themselves call this function first. Hashing a tuple also hashes every tuple inside it,
    so 200 bytes of nested tuples could hang the process and a megabyte could crash it. Huge numbers can be chosen so
    that all have the same hash, which makes the dict slow.

    Raises Refused for a key of another type, and for a number of more than 60 bits.
    """
    for key in keys:
        if type(key) not in (str, bytes, int, float, bool, type(None)):
            raise Refused(f"it has a {type(key).__name__} as a key, where text or a number was expected")
        if type(key) in (int, float) and not -2**60 < key < 2**60:
            raise Refused("it has a number of more than 60 bits as a key")


_InPython: Any = pickle._Unpickler
_NOT_READ = (pickle.EXT1, pickle.EXT2, pickle.EXT4,              # extensions bypass find_class
             pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET, pickle.BYTEARRAY8)
_KEYS = {pickle.SETITEM: slice(-2, -1), pickle.SETITEMS: slice(None, None, 2), pickle.DICT: slice(None, None, 2)}


def _keys_first(load: Callable[[Any], None], where: slice) -> Callable[[Any], None]:
    def checked(reader):
        check_keys(reader.stack[where])
        load(reader)
    return checked


def _calls_weighed(load: Callable[[Any], None]) -> Callable[[Any], None]:
    def weighed(reader):
        args = reader.stack[-1]
        reader.spend(sum(1 + (len(a) if hasattr(a, "__len__") else 0) for a in args) if type(args) is tuple else 1)
        load(reader)
    return weighed


_CALLS = (pickle.REDUCE, pickle.NEWOBJ, pickle.BUILD)


class _Reader(_InPython):  # type: ignore[misc]
    """Extends Python's own reader: it checks the keys of dictionaries before they are hashed.

    The base is the reader written in Python. The one written in C allocates memory for the highest memo number in the
    file, so that five bytes can cost 16 GB.
    """

    dispatch: ClassVar = {
        op: (_keys_first(load, _KEYS[bytes([op])]) if bytes([op]) in _KEYS
             else _calls_weighed(load) if bytes([op]) in _CALLS else load)
        for op, load in _InPython.dispatch.items() if bytes([op]) not in _NOT_READ}

    def __init__(self, file: BinaryIO, allowed: Allowed, persistent: Callable[[Any], Any] | None, encoding: str):
        start = file.tell()
        self.left = 1000 + 4 * (file.seek(0, os.SEEK_END) - start)
        file.seek(start)
        super().__init__(file, encoding=encoding)
        self.allowed, self.persistent = allowed, persistent

    def spend(self, items: int) -> None:
        """Count `items` arguments against a limit. A pickle can pass one long list to many calls, by reference; if each
        call copied the list, the cost would grow with the square of the file's size."""
        self.left -= items
        if self.left < 0:
            raise Refused("it passes more arguments to its calls than a file of this size can hold")

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.allowed[module, name]
        except KeyError:
            raise Refused(f"it names {module}.{name}, which such a file does not need; nothing was run") from None

    def persistent_load(self, pid: Any) -> Any:
        if self.persistent is None:
            raise Refused("it refers to data outside itself, which such a file does not need")
        return self.persistent(pid)


def read(file: BinaryIO, allowed: Allowed, *, persistent: Callable[[Any], Any] | None = None,
         encoding: str = "ASCII") -> Any:
    """Return the object of the pickle that starts at the file's position, and leave `file` after the pickle's end.

    allowed      the names that the pickle may use, each with its stand-in
    persistent   a function from a persistent id to the object outside the pickle that the id refers to
    encoding     of Python 2's strings, as for pickle.load

    Every stand-in must be harmless with ANY arguments. A pickle may also set attributes of the functions and classes
    that it gets. So give each class a __setstate__, and make the functions anew for each file, so that what one
    file sets on them does not reach the next file.

    Raises Refused, a ValueError without the file's name, if the pickle asks for anything else or is damaged.
    """
    try:
        return _Reader(file, allowed, persistent, encoding).load()
    except Refused:
        raise
    except (MemoryError, RecursionError) as e:
        raise Refused(f"it is damaged: reading it raises {type(e).__name__}") from e
    except Exception as e:  # damaged pickles raise nearly anything: KeyError, TypeError, struct.error, ...
        raise Refused(f"it is damaged: {type(e).__name__}: {e}") from e
