"""Arrays live on the CPU as NumPy arrays, or on the GPU as CuPy arrays. This is the only file that imports CuPy.

    minires.device.use("auto")     # "gpu" if a GPU works, else "cpu"
    minires.device.reason          # one sentence: which GPU is used, or why no GPU is used
"""
from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np


@functools.cache
def _probe() -> tuple[ModuleType | None, str]:
    """Return (cupy, name of the GPU) if a GPU computes correctly, else (None, the reason). Runs once, when needed.

    CuPy imports without a driver, and a driver can be installed without the CUDA libraries. The only reliable
    test is to compute something and check the result.
    """
    try:
        import cupy as cp

        ones = cp.ones((8, 8), dtype=cp.float32)
        total = float((ones @ ones).sum().get())
        if total != 512.0:
            return None, f"No GPU is used: a test product on the GPU gave {total}, expected 512."
        name = cp.cuda.runtime.getDeviceProperties(0)["name"].decode()
        return cp, f"GPU: {name}, through CuPy {cp.__version__}."
    except ModuleNotFoundError as e:
        if e.name != "cupy":
            return None, f"No GPU is used: CuPy is installed but does not work ({type(e).__name__}: {e})."
        return None, ("No GPU is used: CuPy is not installed "
                      '(pip install "minires[cuda12]" or "minires[cuda13]" where there is an NVIDIA GPU).')
    except Exception as e:  # a broken CuPy, driver or CUDA library must not break the CPU path
        first_line = (str(e).splitlines() or [""])[0]
        return None, f"No GPU is used: CuPy is installed but does not work ({type(e).__name__}: {first_line})."


def use(name: str = "auto") -> str:
    """Resolve "auto", "cpu" or "gpu" to "cpu" or "gpu". "auto" is "gpu" if a GPU works.

    Raises RuntimeError, with `reason`, if `name` is "gpu" and no GPU works.
    Raises ValueError for any other name.
    """
    if name == "cpu":
        return "cpu"
    if name not in ("auto", "gpu"):
        raise ValueError(f'device: expected "auto", "cpu" or "gpu", got {name!r}')
    cp, why = _probe()
    if cp is None and name == "gpu":
        raise RuntimeError(f'device "gpu" was requested. {why} Use "cpu" or "auto".')
    return "cpu" if cp is None else "gpu"


def on_gpu(array: Any) -> bool:
    """Return True if `array` is a CuPy array. This does not import CuPy: a CuPy array exists only after that import."""
    return type(array).__module__.partition(".")[0] == "cupy"


def is_array(value: Any) -> bool:
    """Return True if `value` is a NumPy array (not of a subclass, which may compute something else) or a CuPy array."""
    return type(value) is np.ndarray or on_gpu(value)


def of(*arrays: Any, operation: str = "an operation") -> Any:
    """Return the array module, numpy or cupy, that all `arrays` belong to.

    Raises TypeError if the arrays are on different devices: no array moves between devices implicitly.
    """
    if all(type(a) is np.ndarray for a in arrays):
        return np
    places = {on_gpu(a) for a in arrays}
    if len(places) > 1:
        given = ", ".join(f"{tuple(a.shape)} on the {'gpu' if on_gpu(a) else 'cpu'}" for a in arrays)
        raise TypeError(f'{operation}: all arrays must be on one device, got {given}; move them with .to("cpu") '
                        'or .to("gpu")')
    return sys.modules["cupy"] if places == {True} else np


def to(array: Any, name: str) -> Any:
    """Return `array` on the device `name`: "cpu", "gpu" or "auto". An array already on that device is not copied."""
    where = use(name)
    if where == "gpu":
        cp, _ = _probe()
        assert cp is not None
        return cp.asarray(array)
    return array.get() if on_gpu(array) else array


class Replay:
    """A Replay calls f() repeatedly. On the GPU it records f once as a CUDA graph, then replays it with one launch.

    like: an array on the device on which f computes. On the CPU every call simply runs f.
    warm_up: how many calls run f before the call that records it, so that every kernel is compiled and memory is
        allocated by then.

    A recording keeps addresses, not values. So f must read its inputs from arrays that persist, write its results
    into arrays that persist, and allocate the same memory at every call. It must not wait for the device or copy from
    the host. Intermediate results of f live in a memory pool of this Replay alone, because a replay overwrites them.
    """

    def __init__(self, f: Callable[[], None], like: Any, warm_up: int = 2):
        self.f, self.xp, self.runs_left = f, of(like), warm_up
        self.graph: Any = None
        if self.xp is not np:
            self.stream, self.pool = self.xp.cuda.Stream(non_blocking=True), self.xp.cuda.MemoryPool()

    def __call__(self) -> None:
        if self.xp is np:
            self.f()
            return
        if self.graph is None:
            self.xp.cuda.get_current_stream().synchronize()  # so that the inputs of f are complete
            with self.stream, self.xp.cuda.using_allocator(self.pool.malloc):
                if self.runs_left:
                    self.f()
                else:
                    self.graph = self._recorded()
                self.stream.synchronize()
            self.runs_left -= 1
        if self.graph is not None:
            self.graph.launch()  # on the current stream, after the work already queued there

    def _recorded(self) -> Any:
        self.stream.begin_capture()
        try:
            self.f()
        except BaseException:
            with contextlib.suppress(Exception):  # report the first error, not one that follows from it
                self.stream.end_capture()
            raise
        return self.stream.end_capture()


def __getattr__(name: str) -> str:
    if name == "reason":
        return _probe()[1]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
