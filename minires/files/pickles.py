"""Pickles from elsewhere, read without running what they ask for.

A pickle is a program: it may name any callable of any module and have it called with any arguments. CIFAR's python
batches and PyTorch's files are pickles. Reading one here can call what its reader has allowed, and nothing else.
"""
from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO, ClassVar

Allowed = Mapping[tuple[str, str], Any]  # (module, name) as the pickle says them: what stands in for it here


class Refused(ValueError):
    """The pickle names something that is not allowed, or is no whole pickle."""


def check_keys(keys: Iterable[Any]) -> None:
    """Refused unless every key is text, bytes, a number or None. For stand-ins that fill a dict themselves.

    A hash follows tuples in tuples to their end: 200 bytes could hang the process, a megabyte crash it. And whoever
    chooses huge numbers chooses their hash, the same for all.
    """
    for key in keys:
        if type(key) not in (str, bytes, int, float, bool, type(None)):
            raise Refused(f"it has a {type(key).__name__} for a key, where text or a number was expected")
        if type(key) in (int, float) and not -2**60 < key < 2**60:
            raise Refused("it has a number of more than 60 bits for a key")


_InPython: Any = pickle._Unpickler
_NOT_READ = (pickle.EXT1, pickle.EXT2, pickle.EXT4,              # extensions: they pass by find_class
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
    """Python's own reader, but the one written in Python: the one in C sets memory aside for the highest memo number
    that the file names, 16 GB for five bytes. And with a look at the keys of dictionaries before they are hashed."""

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
        """A call may copy what it is given. What is given often, by reference, would cost the square of the file."""
        self.left -= items
        if self.left < 0:
            raise Refused("its calls are given more, over and over, than the whole file holds")

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.allowed[module, name]
        except KeyError:
            raise Refused(f"it names {module}.{name}, which such a file has no need of; nothing was run") from None

    def persistent_load(self, pid: Any) -> Any:
        if self.persistent is None:
            raise Refused("it refers to data outside itself, which such a file has no need of")
        return self.persistent(pid)


def read(file: BinaryIO, allowed: Allowed, *, persistent: Callable[[Any], Any] | None = None,
         encoding: str = "ASCII") -> Any:
    """The object of the pickle that starts at the file's position; `file` then stands behind it.

    `allowed`: what it may name, and what stands in for each, which must be harmless with ANY arguments. A pickle may
    also set the attributes of functions and classes that it gets: give classes a __setstate__, and make functions anew
    for each file, so that none outlives it.
    `persistent(pid)` gives what it refers to outside itself. `encoding`: of Python 2's strings, as pickle.load's.
    Refused, a ValueError without the file's name, for whatever else it asks for and for damage of any kind.
    """
    try:
        return _Reader(file, allowed, persistent, encoding).load()
    except Refused:
        raise
    except (MemoryError, RecursionError) as e:
        raise Refused(f"it is damaged: reading it ends in a {type(e).__name__}") from e
    except Exception as e:  # damaged pickles raise nearly anything: KeyError, TypeError, struct.error, ...
        raise Refused(f"it is damaged: {type(e).__name__}: {e}") from e
