"""This package has the array arithmetic in forward/backward pairs. It has no graph and no modules.

`reference.py` defines every kernel in textbook form, for NumPy and CuPy arrays of any float dtype. `native.py` has the
same functions for float32 on the CPU in C, compiled at first use. `blocked.py` has them in NumPy, arranged for caches
and cores, for machines without a C compiler. `cuda.py` has them for float32 on a GPU, fused into few launches, with
`cublas.py` for matrix products. This file is the only place that chooses between them.
MINIRES_KERNELS in the environment, or `with using(name):`, selects the kernels: "auto", the fastest that fit an array;
"native" or "blocked" for float32 on the CPU; "reference", the textbook kernels everywhere.
`with using("shapes"):` selects the kernels of `shapes.py`, which compute shapes but no numbers.
"""
from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import numpy as np

from .. import device
from . import blocked, cuda, native, parallel, reference, shapes
from .cublas import tf32, tf32_allowed

__all__ = ["blocked", "choice", "cuda", "native", "of", "parallel", "reference", "session", "shapes", "tf32", "using"]
NAMES = ("auto", "native", "blocked", "reference")


def _checked(name: str, where: str, names: tuple[str, ...] = NAMES) -> str:
    if name not in names:
        raise ValueError(f"{where}: expected one of {', '.join(names)}, got {name!r}")
    return name


@functools.cache
def _at_start() -> str:
    """Return the choice in the environment, read at first use: a wrong name must not make the import fail."""
    return _checked(os.environ.get("MINIRES_KERNELS", "auto"), "MINIRES_KERNELS")


_chosen: ContextVar[str | None] = ContextVar("kernels", default=None)


def _wanted() -> str:
    return _chosen.get() or _at_start()


@contextmanager
def using(name: str) -> Iterator[None]:
    """Use the kernels `name` for new operations inside this context.

    name: "reference"; "native" or "blocked" for float32 on the CPU; "auto", the fastest kernels that fit an array; or
        "shapes", whose results have the right shape but no meaningful numbers.
    Raises ValueError for another name.
    """
    token = _chosen.set(_checked(name, "kernels.using", (*NAMES, "shapes")))
    try:
        yield
    finally:
        _chosen.reset(token)


def choice(x: Any = None) -> str:
    """Describe the selected kernels: "auto" or another name, followed by ", TF32" if matrix products may use TF32.

    x: an array, for which "auto" is followed by the kernels it stands for, such as "auto (native)".
    """
    name = _wanted()
    if name == "auto" and x is not None:
        name += f" ({of(x).__name__.rpartition('.')[2]})"
    return name + (", TF32" if tf32_allowed() else "")


def session(threads: int | None = None) -> AbstractContextManager[None]:
    """Return a context for a loop of many steps, as in train.fit: `parallel.session`, or nothing for "reference"."""
    return nullcontext() if _wanted() in ("reference", "shapes") else parallel.session(threads)


def of(x: Any) -> ModuleType:
    """Return the module whose kernels fit the device and dtype of `x`.

    Raises RuntimeError if "native" is selected and unavailable.
    """
    wanted = _wanted()
    if wanted == "shapes":
        return shapes
    if wanted == "reference" or x.dtype != np.float32:
        return reference
    if device.on_gpu(x):
        return cuda
    if wanted == "blocked":
        return blocked
    if native.ready():
        return native
    if wanted == "native":
        raise RuntimeError(f'kernels "native" were asked for: {native.reason()}')
    return blocked
