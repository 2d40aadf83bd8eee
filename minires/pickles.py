"""Pickles from elsewhere, read without running what they ask for.

A pickle is a program: it may name any callable of any module and have it called with any arguments. CIFAR's python
batches and PyTorch's files are pickles. Reading one here can call what its reader has allowed, and nothing else.
"""
from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

Allowed = Mapping[tuple[str, str], Any]  # (module, name) as the pickle says them: what stands in for it here


class Refused(ValueError):
    """The pickle names something that is not allowed, or is no whole pickle."""


class _Reader(pickle._Unpickler):  # the one in Python: the one in C takes 64 GB where a damaged byte asks for it
    def __init__(self, file: BinaryIO, allowed: Allowed, persistent: Callable[[Any], Any] | None, encoding: str):
        super().__init__(file, encoding=encoding)
        self.allowed, self.persistent = allowed, persistent

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

    `allowed`: what it may name, and what stands in for each, which must be harmless with ANY arguments. A class of ours
    among them needs a __setstate__, and a function must not be there: a pickle may set the attributes of both.
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
