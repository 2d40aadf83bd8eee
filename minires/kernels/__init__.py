"""Array arithmetic in forward/backward pairs: no graph and no modules in here.

`reference.py` defines every kernel in textbook form, for NumPy and CuPy arrays and any float dtype. `native.py` holds
the same functions for float32 on the CPU in C, compiled at first use; `blocked.py` in NumPy, arranged for caches and
cores, for where there is no compiler; `cuda.py` for float32 on a GPU, fused into few launches, with `cublas.py` for its
matrix products. This file is the one place that chooses between them.
MINIRES_KERNELS in the environment, or `with using(name):`, says which: "auto", the fastest that suit an array;
"native" or "blocked" for float32 on the CPU; "reference", the definitions everywhere.
`with using("shapes"):` takes those of `shapes.py`, which compute no numbers at all.
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
    """Read at first use, not at import: a wrong name then ends as any other error of use."""
    return _checked(os.environ.get("MINIRES_KERNELS", "auto"), "MINIRES_KERNELS")


_chosen: ContextVar[str | None] = ContextVar("kernels", default=None)


def _wanted() -> str:
    return _chosen.get() or _at_start()


@contextmanager
def using(name: str) -> Iterator[None]:
    """Inside, new operations use these kernels: "reference"; "native" or "blocked" for float32 on the CPU; "auto",
    which is the fastest that suits an array; or "shapes", whose results have the right shape and no right number."""
    token = _chosen.set(_checked(name, "kernels.using", (*NAMES, "shapes")))
    try:
        yield
    finally:
        _chosen.reset(token)


def choice() -> str:
    """Which kernels are wanted, in words: "auto" or another name, and whether products may use TF32."""
    return _wanted() + (", TF32" if tf32_allowed() else "")


def session(threads: int | None = None) -> AbstractContextManager[None]:
    """Hold one around a loop of many steps, as train.fit does: `parallel.session`, unless using the reference."""
    return nullcontext() if _wanted() in ("reference", "shapes") else parallel.session(threads)


def of(x: Any) -> ModuleType:
    """The module whose kernels suit `x`, by its device and dtype.

    Raises RuntimeError where "native" is asked for and cannot be had.
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
