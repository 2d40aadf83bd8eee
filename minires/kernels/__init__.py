"""This package has the array arithmetic in forward/backward pairs. It has no graph and no modules.

`reference.py` defines every kernel in textbook form, for NumPy and CuPy arrays of any float dtype. `blocked.py` has the
same functions for float32 on the CPU, arranged for caches and cores. `cuda.py` has them for float32 on a GPU, fused
into few launches, with `cublas.py` for matrix products. This file is the only place that chooses between them.
MINIRES_KERNELS=reference in the environment, or `with using("reference"):`, selects the textbook kernels everywhere.
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
from . import blocked, cuda, parallel, reference, shapes
from .cublas import tf32, tf32_allowed

__all__ = ["blocked", "choice", "cuda", "of", "parallel", "reference", "session", "shapes", "tf32", "using"]
NAMES = ("auto", "reference")


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

    name: "reference"; "auto", the fastest kernels that fit an array; or "shapes", whose results have the right shape
        but no meaningful numbers.
    Raises ValueError for another name.
    """
    token = _chosen.set(_checked(name, "kernels.using", (*NAMES, "shapes")))
    try:
        yield
    finally:
        _chosen.reset(token)


def choice() -> str:
    """Describe the selected kernels: "auto" or "reference", followed by ", TF32" if matrix products may use TF32."""
    return _wanted() + (", TF32" if tf32_allowed() else "")


def session(threads: int | None = None) -> AbstractContextManager[None]:
    """Return a context for a loop of many steps, as in train.fit: `parallel.session` for "auto", else an empty one."""
    return parallel.session(threads) if _wanted() == "auto" else nullcontext()


def of(x: Any) -> ModuleType:
    """Return the module whose kernels fit the device and dtype of `x`."""
    wanted = _wanted()
    if wanted == "shapes":
        return shapes
    if wanted == "auto" and x.dtype == np.float32:
        return cuda if device.on_gpu(x) else blocked
    return reference
