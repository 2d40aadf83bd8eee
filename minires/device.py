"""Where arrays live: NumPy arrays on the CPU, CuPy arrays on the GPU. The only file that imports CuPy.

    minires.device.use("auto")     # "gpu" where one works, else "cpu"
    minires.device.reason          # one sentence: the GPU that is used, or why none is
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
    """(cupy, which GPU) if a GPU really computes, else (None, why not). Runs once, at first need.

    CuPy imports without a driver, and a driver may be there without the CUDA libraries: the only
    honest test is to compute something and look at the answer.
    """
    try:
        import cupy as cp

        ones = cp.ones((8, 8), dtype=cp.float32)
        total = float((ones @ ones).sum().get())
        if total != 512.0:
            return None, f"No GPU is used: a test product on it gave {total} where 512 was expected."
        name = cp.cuda.runtime.getDeviceProperties(0)["name"].decode()
        return cp, f"GPU: {name}, through CuPy {cp.__version__}."
    except ModuleNotFoundError as e:
        if e.name != "cupy":
            return None, f"No GPU is used: CuPy is installed but does not work ({type(e).__name__}: {e})."
        return None, ("No GPU is used: CuPy is not installed "
                      '(pip install "minires[cuda12]" or "minires[cuda13]" where there is an NVIDIA GPU).')
    except Exception as e:  # a broken CuPy, driver or CUDA library must never break the CPU
        first_line = (str(e).splitlines() or [""])[0]
        return None, f"No GPU is used: CuPy is installed but does not work ({type(e).__name__}: {first_line})."


def use(name: str = "auto") -> str:
    """Resolve "auto", "cpu" or "gpu" to "cpu" or "gpu"; "auto" is the GPU where one works.

    RuntimeError if "gpu" is asked for and none works (with `reason`), ValueError for another name.
    """
    if name == "cpu":
        return "cpu"
    if name not in ("auto", "gpu"):
        raise ValueError(f'device: expected "auto", "cpu" or "gpu", got {name!r}')
    cp, why = _probe()
    if cp is None and name == "gpu":
        raise RuntimeError(f'device "gpu" was asked for. {why} Use "cpu" or "auto".')
    return "cpu" if cp is None else "gpu"


def on_gpu(array: Any) -> bool:
    """True if `array` is a CuPy array. Does not import CuPy: without it there are none."""
    return type(array).__module__.partition(".")[0] == "cupy"


def of(*arrays: Any, operation: str = "an operation") -> Any:
    """The array module, numpy or cupy, that all `arrays` belong to.

    TypeError if they live on different devices: nothing moves between devices unasked.
    """
    places = {on_gpu(a) for a in arrays}
    if len(places) > 1:
        given = ", ".join(f"{tuple(a.shape)} on the {'gpu' if on_gpu(a) else 'cpu'}" for a in arrays)
        raise TypeError(f'{operation}: all arrays must be on one device, got {given}; move them with .to("cpu") '
                        'or .to("gpu")')
    return sys.modules["cupy"] if places == {True} else np


def to(array: Any, name: str) -> Any:
    """`array` on "cpu", "gpu" or "auto"; itself, not a copy, if it is there already."""
    where = use(name)
    if where == "gpu":
        cp, _ = _probe()
        assert cp is not None
        return cp.asarray(array)
    return array.get() if on_gpu(array) else array


class Replay:
    """f() called again and again: on the GPU recorded once as a CUDA graph, which one launch replays; on the CPU f().

    `like` is an array that says where f computes. The first `warm_up` calls run f, so that everything is compiled and
    its memory is at hand; the next one records. A recording keeps addresses, not values: f must read its inputs from
    arrays that stay and write its results into arrays that stay, allocate the same at every call, and neither wait for
    the device nor copy from the host. Memory for what f makes in between comes from a pool of its own, which nobody
    else uses: a replay writes there again.
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
            self.xp.cuda.get_current_stream().synchronize()  # what f reads is there
            with self.stream, self.xp.cuda.using_allocator(self.pool.malloc):
                if self.runs_left:
                    self.f()
                else:
                    self.graph = self._recorded()
                self.stream.synchronize()
            self.runs_left -= 1
        if self.graph is not None:
            self.graph.launch()  # on the current stream, behind the work that is there

    def _recorded(self) -> Any:
        self.stream.begin_capture()
        try:
            self.f()
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to tell
                self.stream.end_capture()
            raise
        return self.stream.end_capture()


def __getattr__(name: str) -> str:
    if name == "reason":
        return _probe()[1]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
