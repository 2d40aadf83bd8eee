"""What blocked.py runs its loops on: blocks of images, the threads that share them, and the memory of results.

    blocks_of(images, bytes)     the batch cut so that a block fits the cache, and how many threads are worth waking
    share(work, blocks)          run a loop over the blocks on those threads, BLAS held at one thread meanwhile
    empty(shape, dtype)          memory for a result; within a `session` that of arrays that have died

Nothing here knows what is computed. Nothing depends on which thread is faster.
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
from pathlib import Path
from typing import Any

import numpy as np

Block = tuple[int, slice]  # (its number, which images)


# ------------------------------------------------------------------------------------ threads

_threads: ContextVar[int | None] = ContextVar("minires threads", default=None)


class _Shared:
    """What all threads of the process share. Whoever reads or changes it, or the kept memory, holds `lock`."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.lock = threading.RLock()
        self.sessions = 0                 # open ones
        self.holders = 0                  # kernels that run now
        self.blas_before: list[int] = []  # each BLAS's number of threads before the first of them


_shared = _Shared()


@functools.cache
def _blas() -> list[Any]:
    """Handles that set the number of threads of every BLAS in the process; none without threadpoolctl."""
    try:
        from threadpoolctl import ThreadpoolController
    except ModuleNotFoundError:
        return []
    return ThreadpoolController().select(user_api="blas").lib_controllers


@functools.cache
def _default_threads() -> int:
    """MINIRES_THREADS, or as many as there are cores."""
    asked = os.environ.get("MINIRES_THREADS")
    if asked is not None:
        if not asked.isdecimal() or int(asked) < 1:
            raise ValueError(f"MINIRES_THREADS: expected a whole number >= 1, got {asked!r}")
        return int(asked)
    return cores()


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads() -> int:
    """How many threads share a kernel's blocks.

    Just one, with BLAS left as it is, where BLAS cannot be held to one thread: threads that each start a
    BLAS on all cores gain nothing.
    """
    return (_threads.get() or _default_threads()) if _blas() else 1


@contextlib.contextmanager
def session(threads: int | None = None) -> Iterator[None]:
    """Around a loop of many steps: the memory of arrays that die is kept for the next ones, until it ends.

    Sessions nest, also across threads. `threads` sets how many share a kernel's blocks meanwhile.
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
            _shared.sessions = max(0, _shared.sessions - 1)  # a fork within a session has begun anew
            if _shared.sessions == 0:
                memory.forget()
        if token is not None:
            _threads.reset(token)


@contextlib.contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Hold BLAS at one thread while a kernel runs, then give it back the number it had. The first to come holds
    it, the last to leave restores it."""
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
    """One number of threads for each BLAS."""
    for lib, number in zip(_blas(), numbers, strict=True):
        # Newer threadpoolctls obey one thread and silently ignore all others. Sessions may end in any thread.
        release = getattr(lib, "clear_controlling_thread", lambda force: None)
        release(force=True)
        lib.set_num_threads(number)
        release(force=True)


@functools.cache
def _pool(workers: int) -> Any:
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(workers, thread_name_prefix="minires")


def _after_fork() -> None:
    """A forked child has none of its parent's threads: it makes its own at first need."""
    _shared.begin()
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def share(work: Callable[[Iterator[Block]], None], blocks: Blocks) -> None:
    """Call work(its blocks) in every thread; together they get each block once, whoever is free the next.

    `work` allocates its scratch memory, then loops over its blocks. One thread is the caller's.
    """
    waiting, job = deque(enumerate(blocks)), [work]

    def mine() -> Iterator[Block]:
        while True:
            try:
                yield waiting.popleft()  # atomic
            except IndexError:
                return

    def help_out() -> None:
        _set_blas([1] * len(_blas()))  # said again in this thread: a BLAS built on OpenMP counts per thread
        job[0](mine())

    with _one_blas_thread():
        helpers = min(blocks.threads, len(blocks)) - 1
        # Each in a copy of the caller's context: np.errstate and no_grad hold in there, too.
        running = [_pool(threads() - 1).submit(copy_context().run, help_out) for _ in range(helpers)]
        try:
            work(mine())
        finally:
            waiting.clear()  # nothing left, unless an exception has come: then nobody starts another block
            errors = [f.exception() for f in running if not f.cancel()]
            job.clear()  # a cancelled helper stays in the pool's queue for a while, but keeps no array alive
        for error in errors:
            if error is not None:
                raise error


# -------------------------------------------------------------------------------------- memory
#
# The C library returns large arrays to the system when they die, and the next ones arrive as pages that the
# system clears one by one at first touch: an eighth of a training step. A step's arrays are those of the step
# before, so while a session lasts their memory is kept and given to the next array of the same size.

LARGE = 1 << 20  # bytes


class Memory:
    """The memory of arrays that died in an open session, and how much of it there is."""

    def __init__(self) -> None:
        self.free: dict[int, list[Any]] = {}  # by size in bytes
        self.kept = 0                         # bytes in `free`
        self.lent = self.most_lent = 0        # bytes in living arrays, and the most there were

    def take(self, size: int) -> Any:
        """`size` bytes, used before if there are such."""
        with _shared.lock:
            if self.free.get(size):
                taken = self.free[size].pop()
                self.kept -= size
            else:
                taken = np.empty(size, np.uint8)
            self.lent += size
            self.most_lent = max(self.most_lent, self.lent)
        return taken

    def give_back(self, taken: Any) -> None:
        """Keep it, but never more in all than once was alive at a time: sizes that are no longer asked for go."""
        with _shared.lock:
            self.lent -= taken.nbytes
            if not _shared.sessions:
                return
            if self.kept + taken.nbytes > self.most_lent:
                self.free.clear()
                self.kept = 0
            self.free.setdefault(taken.nbytes, []).append(taken)
            self.kept += taken.nbytes

    def forget(self) -> None:
        """Let go of all that is kept."""
        self.free.clear()
        self.most_lent, self.kept = self.lent, 0


memory = Memory()


def empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """np.empty, in the memory of a dead array if one of this size has died in this session."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < LARGE:
        return np.empty(shape, dtype)
    taken = memory.take(size)
    # The array and all its views refer to `lease`, and nothing else does. So it dies with the last of them.
    lease = (ctypes.c_char * size).from_buffer(taken)
    weakref.finalize(lease, memory.give_back, taken).atexit = False
    return np.ndarray(shape, dtype, lease)


# ------------------------------------------------------------------------------------- blocks

DEFAULT_CACHE = 1 << 20  # bytes of second-level cache per core, where the system does not say


@functools.cache
def cache_bytes() -> int:
    """Bytes of second-level cache for each thread, as Linux tells it; elsewhere DEFAULT_CACHE."""
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            if (index / "level").read_text().strip() == "2":
                size = (index / "size").read_text().strip()  # such as 2048K
                unit = {"K": 1 << 10, "M": 1 << 20}[size[-1]]
                mask = int((index / "shared_cpu_map").read_text().replace(",", ""), 16)
                return max(1, int(size[:-1]) * unit // max(1, mask.bit_count()))
        except (OSError, ValueError, KeyError, IndexError):
            break
    return DEFAULT_CACHE


def images_per_block(images: int, bytes_per_image: int, cache: int, threads: int, least: int = 1) -> int:
    """As many images as fit the cache, or `least` if those are fewer; but leave work for every thread."""
    return max(1, min(max(least, cache // max(1, bytes_per_image)), -(-images // threads)))


def threads_worth(work: int, cache: int, threads: int) -> int:
    """How many threads to share `work` bytes among: each is to have at least a cache full, as to wake one for less
    takes longer than it saves."""
    return max(1, min(threads, work // cache))


class Blocks(list[slice]):
    """The images of each block, and how many threads share them."""

    def __init__(self, blocks: Iterable[slice], threads: int):
        super().__init__(blocks)
        self.threads = threads


def blocks_of(images: int, bytes_per_image: int, least: int = 1) -> Blocks:
    """The batch cut into blocks of nearly equal size, equally many for each thread. Nothing timed matters."""
    n = threads_worth(images * bytes_per_image, cache_bytes(), threads())
    count = -(-images // images_per_block(images, bytes_per_image, cache_bytes(), n, least))
    count = min(images, -(-count // n) * n)
    return Blocks((slice(images * i // count, images * (i + 1) // count) for i in range(count)), n)


def longest(blocks: list[slice]) -> int:
    """Images in the largest block, for which scratch memory is set aside."""
    return max(b.stop - b.start for b in blocks)
