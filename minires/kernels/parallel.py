"""This module runs the loops of blocked.py: blocks of images, the threads that share them, and memory for results.

    blocks_of(images, bytes)     cut the batch so that a block fits the cache, and choose the number of threads
    share(work, blocks)          run a loop over the blocks on these threads, with BLAS limited to one thread
    empty(shape, dtype)          allocate a result; within a `session`, reuse the memory of arrays that were freed

This module does not know what is computed. No result depends on which thread is faster.
"""
from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar, copy_context
from typing import Any

import numpy as np

Block = tuple[int, slice]  # (number of the block, its images)


# ------------------------------------------------------------------------------------ threads

_threads: ContextVar[int | None] = ContextVar("minires threads", default=None)


class _Shared:
    """_Shared is the state shared by all threads of the process. Hold `lock` to read or change it, or `memory`."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.lock = threading.RLock()
        self.sessions = 0                 # open sessions
        self.holders = 0                  # kernels that are running
        self.blas_before: list[int] = []  # number of threads of each BLAS before the first of these kernels


_shared = _Shared()


@functools.cache
def _blas() -> list[Any]:
    """Return handles that set the number of threads of every BLAS in the process; none without threadpoolctl."""
    try:
        from threadpoolctl import ThreadpoolController
    except ModuleNotFoundError:
        return []
    return ThreadpoolController().select(user_api="blas").lib_controllers


@functools.cache
def _default_threads() -> int:
    """Return MINIRES_THREADS, or the number of cores."""
    asked = os.environ.get("MINIRES_THREADS")
    if asked is not None:
        if not asked.isdecimal() or int(asked) < 1:
            raise ValueError(f"MINIRES_THREADS: expected a whole number >= 1, got {asked!r}")
        return int(asked)
    return cores()


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_asked() -> int:
    """Return the number of threads wanted: the innermost session's, else MINIRES_THREADS, else one for each core."""
    return _threads.get() or _default_threads()


def threads() -> int:
    """Return how many threads share the blocks of a kernel.

    If BLAS cannot be limited to one thread, the result is 1 and BLAS keeps its threads: several threads that each use
    a BLAS on all cores would gain nothing.
    """
    return threads_asked() if _blas() else 1


@contextlib.contextmanager
def session(threads: int | None = None) -> Iterator[None]:
    """Reuse the memory of freed arrays for new arrays inside this context. Use it around a loop of many steps.

    Sessions may be nested, also across threads.
    threads: how many threads share the blocks of a kernel inside the session.
    Raises ValueError if `threads` is less than 1.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"session: expected threads >= 1, got {threads}")
    token = _threads.set(threads) if threads is not None else None
    with _shared.lock:
        _shared.sessions += 1
    try:
        yield
    finally:
        with _shared.lock:
            _shared.sessions = max(0, _shared.sessions - 1)  # a fork within the session has reset the count to 0
            if _shared.sessions == 0:
                memory.forget()
        if token is not None:
            _threads.reset(token)


@contextlib.contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread while a kernel runs, then restore its number of threads. If several kernels run at once,
    the first limits BLAS and the last restores it."""
    with _shared.lock:
        if _shared.holders == 0:
            _shared.blas_before = [lib.num_threads for lib in _blas()]
            _set_blas([1] * len(_blas()))
        _shared.holders += 1
    try:
        yield
    finally:
        with _shared.lock:
            _shared.holders -= 1
            if _shared.holders == 0:
                _set_blas(_shared.blas_before)


def _set_blas(numbers: list[int]) -> None:
    """Set the number of threads of each BLAS."""
    for lib, number in zip(_blas(), numbers, strict=True):
        # Newer versions of threadpoolctl obey only one controlling thread and silently ignore all other threads.
        # Sessions may end in any thread, so the control is released before and after.
        release = getattr(lib, "clear_controlling_thread", lambda force: None)
        release(force=True)
        lib.set_num_threads(number)
        release(force=True)


@functools.cache
def _pool(workers: int) -> Any:
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(workers, thread_name_prefix="minires")


def _after_fork() -> None:
    """Reset the state in a forked child, which has none of its parent's threads. It creates its own when needed."""
    _shared.begin()
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def share(work: Callable[[Iterator[Block]], None], blocks: Blocks) -> None:
    """Call work(blocks of the thread) in every thread. Each block is processed once, by the next thread that is free.

    `work` allocates its scratch memory, then loops over its blocks. One of the threads is the calling thread.
    """
    waiting, job = deque(enumerate(blocks)), [work]

    def mine() -> Iterator[Block]:
        while True:
            try:
                yield waiting.popleft()  # atomic
            except IndexError:
                return

    def help_out() -> None:
        _set_blas([1] * len(_blas()))  # set again in this thread, because a BLAS built on OpenMP has a limit per thread
        job[0](mine())

    with _one_blas_thread():
        helpers = min(blocks.threads, len(blocks)) - 1
        # Each helper runs in a copy of the caller's context, so that np.errstate and no_grad apply there too.
        running = [_pool(threads() - 1).submit(copy_context().run, help_out) for _ in range(helpers)]
        try:
            work(mine())
        finally:
            waiting.clear()  # after an exception, no thread may start another block
            errors = [f.exception() for f in running if not f.cancel()]
            job.clear()  # a cancelled helper stays in the pool's queue for a while and must not keep arrays alive
        for error in errors:
            if error is not None:
                raise error


# -------------------------------------------------------------------------------------- memory
#
# The C library returns large arrays to the system when they are freed. New arrays then arrive as pages that the system
# clears one by one at first touch, which takes an eighth of a training step. Every step allocates arrays of the same
# sizes, so a session keeps their memory and gives it to the next array of the same size.

LARGE = 1 << 17  # bytes
# The backward pass needs its largest arrays while the small ones that it has freed lie idle. In a ResNet, the arrays of
# each size, at their most numerous, add up to four thirds of what is in use at a time.
MOST_KEPT = 1.5


class Memory:
    """Memory holds the memory of arrays that were freed in an open session, and counts its bytes."""

    def __init__(self) -> None:
        self.free: dict[int, list[Any]] = {}  # {bytes: free pieces of memory}; the size requested last is at the end
        self.kept = 0                         # bytes in `free`
        self.lent = self.most_lent = 0        # bytes in arrays in use, and their maximum so far

    def take(self, size: int) -> Any:
        """Return `size` bytes, from freed memory of this size if there is any."""
        with _shared.lock:
            taken = self._drawn(size) if size in self.free else np.empty(size, np.uint8)
            if size in self.free:
                self.free[size] = self.free.pop(size)  # to the end
            self.lent += size
            self.most_lent = max(self.most_lent, self.lent)
        return taken

    def give_back(self, taken: Any) -> None:
        """Keep the memory `taken`, but never more in total than MOST_KEPT times what was once in use at a time. If it
        would be more, drop the memory of the sizes that were requested longest ago."""
        with _shared.lock:
            self.lent -= taken.nbytes
            if not _shared.sessions:
                return
            self.free.setdefault(taken.nbytes, []).append(taken)
            self.kept += taken.nbytes
            while self.kept > MOST_KEPT * self.most_lent:
                self._drawn(next(iter(self.free)))

    def _drawn(self, size: int) -> Any:
        """Return a free piece of this size, which is no longer kept."""
        pieces = self.free[size]
        taken = pieces.pop()
        self.kept -= size
        if not pieces:
            del self.free[size]
        return taken

    def forget(self) -> None:
        """Drop all kept memory."""
        self.free.clear()
        self.most_lent, self.kept = self.lent, 0


memory = Memory()


def empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """Return np.empty(shape, dtype), in the memory of an array of this size that was freed in this session, if any."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < LARGE:
        return np.empty(shape, dtype)
    taken = memory.take(size)
    # Only the array and its views refer to `lease`. So `lease` is freed with the last of them.
    lease = (ctypes.c_char * size).from_buffer(taken)
    weakref.finalize(lease, memory.give_back, taken).atexit = False
    return np.ndarray(shape, dtype, lease)


# ------------------------------------------------------------------------------------- blocks

LEAST_SHARE = 2 << 20  # bytes of work for a thread that has to be woken, however small its cache is
LEAST_CACHE = 1 << 20  # bytes of a block: threads that share smaller ones wait for the interpreter more than they gain


@functools.cache
def cache_bytes() -> int:
    """Return the bytes that a block may have: the second-level cache of a thread, as Linux reports it, but at least
    LEAST_CACHE. Elsewhere LEAST_CACHE."""
    from pathlib import Path  # late, as `import minires` needs it for nothing else

    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            if (index / "level").read_text().strip() == "2":
                size = (index / "size").read_text().strip()  # such as 2048K
                unit = {"K": 1 << 10, "M": 1 << 20}[size[-1]]
                mask = int((index / "shared_cpu_map").read_text().replace(",", ""), 16)
                return max(LEAST_CACHE, int(size[:-1]) * unit // max(1, mask.bit_count()))
        except (OSError, ValueError, KeyError, IndexError):
            break
    return LEAST_CACHE


def images_per_block(images: int, bytes_per_image: int, cache: int, threads: int, least: int = 1) -> int:
    """Return how many images fit the cache, but at least `least`, and at most an equal share for each thread."""
    return max(1, min(max(least, cache // max(1, bytes_per_image)), -(-images // threads)))


def threads_worth(work: int, cache: int, threads: int) -> int:
    """Return how many threads should share `work` bytes. Each thread gets at least as many bytes as fit its cache,
    because waking a thread for less takes more time than it saves."""
    return max(1, min(threads, work // cache))


class Blocks(list[slice]):
    """Blocks lists the images of each block, and has the number of threads that share the blocks."""

    def __init__(self, blocks: Iterable[slice], threads: int):
        super().__init__(blocks)
        self.threads = threads


def blocks_of(images: int, bytes_per_image: int, least: int = 1) -> Blocks:
    """Cut the batch into blocks of nearly equal size, with the same number of blocks for each thread. The result does
    not depend on any measured time."""
    n = threads_worth(images * bytes_per_image, max(cache_bytes(), LEAST_SHARE), threads())
    count = -(-images // images_per_block(images, bytes_per_image, cache_bytes(), n, least))
    count = min(images, -(-count // n) * n)
    return Blocks((slice(images * i // count, images * (i + 1) // count) for i in range(count)), n)


def longest(blocks: list[slice]) -> int:
    """Return the number of images in the largest block, which is the size of scratch memory."""
    return max(b.stop - b.start for b in blocks)
