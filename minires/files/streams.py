"""Write to standard output and standard error, which may be closed, broken or on a full disk."""
from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import TextIO


def open_missing() -> None:
    """Give the descriptors 0, 1 and 2 a file if they are closed, as after `>&-`.

    Otherwise the next file that is opened gets the free descriptor, and what is printed goes into that file. Writing to
    the new standard output or standard error fails, as it does on a closed descriptor.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            got = os.open(os.devnull, os.O_RDONLY)  # the lowest free descriptor, which is `number`
            os.set_inheritable(got, True)           # also for the processes that train
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, buffering=1)


def attempt(write: Callable[[], object]) -> None:
    """Call `write`, which prints. If a standard stream cannot be written, drop the text.

    Later text is written again if the stream has recovered, as after space on a full disk was freed.
    """
    try:
        write()
    except (OSError, ValueError):  # ValueError: Python's object for the stream is closed
        drop_pending()


def drop_pending() -> None:
    """Drop text that the standard streams hold and cannot write, so that the interpreter's exit does not fail."""
    for number, stream in (1, sys.stdout), (2, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # AttributeError: the stream is None
            if stream.fileno() == number:
                _drop(stream, number)


def _drop(stream: TextIO, number: int) -> None:
    try:
        stream.flush()
    except OSError:
        kept, nowhere = os.dup(number), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, number)
            stream.flush()
        finally:
            os.dup2(kept, number)
            os.close(kept)
            os.close(nowhere)
