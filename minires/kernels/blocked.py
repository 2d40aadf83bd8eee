"""The kernels for float32 on the CPU: reference.py's arithmetic, arranged for caches and cores.

    channels last   An array of shape (N, C, H, W) is kept as (N, H, W, C) in memory, a transpose away: the
                    channels of a pixel lie side by side, so one copy moves them all, and the rows of a matrix
                    product are pixels. Inputs may lie in memory in any way; results lie channels last.
    blocks          A kernel walks over the batch in blocks of a few images, so small that what a block
                    needs stays in the second-level cache from its first pass to its last.
    threads         The blocks are shared out among a few threads, and each product runs on one of them.
                    Whatever is summed over blocks is kept per block and added in the blocks' order, never in
                    the order in which threads finish: same input, same thread count, same bits.

Nothing here has a definition of its own; every kernel names its twin in reference.py.
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

from .reference import (
    Pair,
    copy_all,
    cross_entropy,
    cross_entropy_backward,
    join,
    log_softmax,
    matmul,
    output_size,
    per_channel,
    relu,
    sgd,
    windows,
)

__all__ = [
    "avg_pool2d", "avg_pool2d_backward", "batch_norm", "batch_norm_backward", "batch_norm_eval",
    "batch_norm_eval_backward", "batch_norm_relu", "batch_norm_relu_backward", "conv2d", "conv2d_backward",
    "copy_all", "cross_entropy", "cross_entropy_backward", "join", "log_softmax", "matmul", "max_pool2d",
    "max_pool2d_backward", "output_size", "per_channel", "relu", "session", "sgd", "shortcut", "shortcut_backward",
    "threads",
]

Block = tuple[int, slice]  # (its number, which images)


# ------------------------------------------------------------------------------------ threads

_threads: ContextVar[int | None] = ContextVar("minires threads", default=None)
_lock = threading.RLock()
_open_sessions = 0
_holders = 0  # kernels that run now
_blas_before: list[int] = []


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
    """MINIRES_THREADS, or the number of cores that this process may use."""
    asked = os.environ.get("MINIRES_THREADS")
    if asked is not None:
        if not asked.isdecimal() or int(asked) < 1:
            raise ValueError(f"MINIRES_THREADS: expected a whole number >= 1, got {asked!r}")
        return int(asked)
    if hasattr(os, "sched_getaffinity"):
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
    global _open_sessions
    if threads is not None and threads < 1:
        raise ValueError(f"session: expected threads >= 1, got {threads}")
    token = _threads.set(threads) if threads is not None else None
    with _lock:
        _open_sessions += 1
    try:
        yield
    finally:
        with _lock:
            _open_sessions -= 1
            if _open_sessions == 0:
                _forget_memory()
        if token is not None:
            _threads.reset(token)


@contextlib.contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Hold BLAS at one thread while a kernel runs, then give it back the number it had. The first to come holds
    it, the last to leave restores it."""
    global _holders, _blas_before
    with _lock:
        if _holders == 0:
            _blas_before = [lib.num_threads for lib in _blas()]
            _set_blas([1] * len(_blas()))
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0:
                _set_blas(_blas_before)


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
    global _lock, _open_sessions, _holders
    _lock, _open_sessions, _holders = threading.RLock(), 0, 0
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _share(work: Callable[[Iterator[Block]], None], blocks: Blocks) -> None:
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
_free: dict[int, list[Any]] = {}
_lent = _most_lent = _kept = 0  # bytes in living arrays, the most there were, bytes in `_free`


def _empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """np.empty, in the memory of a dead array if one of this size has died in this session."""
    global _lent, _most_lent, _kept
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < LARGE:
        return np.empty(shape, dtype)
    with _lock:
        if _free.get(size):
            memory = _free[size].pop()
            _kept -= size
        else:
            memory = np.empty(size, np.uint8)
        _lent += size
        _most_lent = max(_most_lent, _lent)
    # The array and all its views refer to `lease`, and nothing else does. So it dies with the last of them.
    lease = (ctypes.c_char * size).from_buffer(memory)
    weakref.finalize(lease, _give_back, memory).atexit = False
    return np.ndarray(shape, dtype, lease)


def _give_back(memory: Any) -> None:
    """Keep it, but never more in all than once was alive at a time: sizes that are no longer asked for go."""
    global _lent, _kept
    with _lock:
        _lent -= memory.nbytes
        if not _open_sessions:
            return
        if _kept + memory.nbytes > _most_lent:
            _free.clear()
            _kept = 0
        _free.setdefault(memory.nbytes, []).append(memory)
        _kept += memory.nbytes


def _forget_memory() -> None:
    global _most_lent, _kept
    _free.clear()
    _most_lent, _kept = _lent, 0


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


def _blocks(images: int, bytes_per_image: int, least: int = 1) -> Blocks:
    """The batch cut into blocks of nearly equal size, equally many for each thread. Nothing timed matters."""
    n = threads_worth(images * bytes_per_image, cache_bytes(), threads())
    count = -(-images // images_per_block(images, bytes_per_image, cache_bytes(), n, least))
    count = min(images, -(-count // n) * n)
    return Blocks((slice(images * i // count, images * (i + 1) // count) for i in range(count)), n)


def _longest(blocks: list[slice]) -> int:
    return max(b.stop - b.start for b in blocks)


# --------------------------------------------------------------------------------- convolution
#
# im2col copies every pixel kh*kw times. Here it is copied kw times: `rows` holds, for every column of the
# output and for ALL image rows of the padded input, the kw horizontal neighbours side by side:
#
#     rows[r, n, c] = padded[n, r, sw*c : sw*c + kw]               (n, Wo, kw*C) for every image row r
#
# The kh vertical neighbours need no copy. Kernel row i meets the image rows i, i + sh, i + 2 sh, ...; as
# the image row is the outermost axis, they are a slice. Hence a convolution is kh products with shifted
# slices of the same memory, added up:
#
#     y = sum over i of rows_i @ w_i               (Ho, n, Wo, O) = (Ho, n, Wo, kw*C) (kw*C, O)
#
# NumPy lets other threads run during an operation and must wait for them afterwards. So operations are few
# and large: all kh products are one matmul, of an array (kh, Ho, n*Wo, kw*C) whose slices overlap in memory.

SMALL_PRODUCT = 1_000_000  # multiplications in a product up to which OpenBLAS does not repack the operands


class _Rows:
    """Builds `rows` of x for one block of images after the other, in the same memory."""

    def __init__(self, x: Any, kernel: Pair, stride: Pair, before: Pair, out: Pair, longest: int):
        """`before` is the padding above and to the left, or, if negative, how much of x is cut off there;
        below and to the right x is padded or cut off to what `out` windows need."""
        (_, C, H, W), (kh, kw), (sh, sw), (Ho, Wo) = x.shape, kernel, stride, out
        height, width = size = sh * (Ho - 1) + kh, sw * (Wo - 1) + kw
        (of_x_h, at_h), (of_x_w, at_w) = (_overlap(*v) for v in zip((H, W), before, size, strict=True))
        self.kernel, self.stride, self.out, self.length = kernel, stride, out, kw * C
        self.x = x.transpose(0, 2, 3, 1)[:, of_x_h, of_x_w]
        self.padded = np.zeros((longest, height, width, C), x.dtype)
        self.inside = self.padded[:, at_h, at_w]  # the border around it stays zero
        self.memory = np.empty(height * longest * Wo * kw * C, x.dtype)

    def fill(self, at: slice, width: int) -> Any:
        """Two copies: into the padded block, then every window row, which is contiguous there.

        Returns rows_i for all i, (kh, pieces, pixels, kw*C), to be multiplied by something `width` wide. A
        piece is an image row where that makes small products, up to 1.7 times as fast; else all there is.
        """
        n, K, kh = at.stop - at.start, self.length, self.kernel[0]
        (Ho, Wo), (sh, sw) = self.out, self.stride
        self.inside[:n] = self.x[at]
        item = f"V{K * self.x.itemsize}"  # a window row, declared one opaque element: copied in one go
        image, row, column, value = self.padded.strides
        shape = self.padded.shape[1], n, Wo
        windows = np.ndarray(shape, item, self.padded, strides=(row, image, sw * column))
        self.memory.view(item)[:windows.size].reshape(shape)[...] = windows
        pieces, pixels = (Ho, n * Wo) if sh > 1 or n * Wo * K * width <= SMALL_PRODUCT else (1, Ho * n * Wo)
        pixel, row = K * value, n * Wo * K * value
        return np.ndarray((kh, pieces, pixels, K), self.x.dtype, self.memory,
                          strides=(row, sh * row, pixel, value))


def _overlap(size: int, before: int, padded: int) -> tuple[slice, slice]:
    """Which part of an axis of length `size` is seen in the padded axis, and where there."""
    start, stop = max(0, before), max(0, before, min(padded, before + size))
    return slice(start - before, stop - before), slice(start, stop)


def _conv(rows: Any, taps: Any, memory: Any) -> Any:
    """(pixels, L) = sum over i of rows_i @ taps[i], in the first of len(taps) parts of `memory`."""
    kh, pieces, pixels, _ = rows.shape
    parts = memory[:kh * pieces * pixels * taps.shape[2]].reshape(kh, pieces, pixels, -1)
    np.matmul(rows, taps[:, None], out=parts)
    for part in parts[1:]:
        parts[0] += part
    return parts[0]


def _outer(a: Any, rows: Any) -> Any:
    """(kh, L, kw*C): a^T rows_i, summed over all pixels, for a (pixels in rows' order, L)."""
    _, pieces, pixels, _ = rows.shape
    return np.matmul(a.reshape(pieces, pixels, -1).transpose(0, 2, 1), rows).sum(1)


def _images_first(v: Any) -> Any:
    """(H, n, W, C) -> (n, H, W, C), and back."""
    return v.transpose(1, 0, 2, 3)


def _conv_blocks(images: int, w: Any, out: Pair) -> Blocks:
    """Blocks for a convolution to `out`: `rows` and two partial results, which are read repeatedly, fit the
    cache. A block weighs at least what the weights weigh: it reads all of them, and sums their gradient.
    """
    O, C, kh, kw = w.shape
    need = w.itemsize * (out[0] + kh) * out[1] * (kw * C + 2 * O)
    return _blocks(images, need, -(-w.nbytes // need))


def conv2d(x: Any, w: Any, stride: Pair, padding: Pair) -> Any:
    """Reference: reference.conv2d."""
    O, _, kh, kw = w.shape
    Ho, Wo = out = output_size(x.shape[2:], (kh, kw), stride, padding)
    y = _empty((len(x), *out, O), x.dtype)
    taps = np.ascontiguousarray(w.transpose(2, 3, 1, 0)).reshape(kh, -1, O)
    blocks = _conv_blocks(len(x), w, out)

    def work(mine: Iterator[Block]) -> None:
        rows = _Rows(x, (kh, kw), stride, padding, out, _longest(blocks))
        memory = np.empty(kh * Ho * _longest(blocks) * Wo * O, x.dtype)
        for _, at in mine:
            y[at] = _images_first(_conv(rows.fill(at, O), taps, memory).reshape(Ho, -1, Wo, O))

    _share(work, blocks)
    return y.transpose(0, 3, 1, 2)


def conv2d_backward(g: Any, x: Any, w: Any, stride: Pair, padding: Pair, need_x: bool = True,
                    need_w: bool = True) -> tuple[Any, Any]:
    """Reference: reference.conv2d_backward. With stride 1 both gradients come from the same `rows` of g."""
    gx = gw = None
    if need_x:
        gx, gw = _gradient_of_input(g, x, w, stride, padding, need_w and stride == (1, 1))
    if need_w and gw is None:
        gw = _gradient_of_weights(g, x, w, stride, padding)
    return gx, gw


def _gradient_of_weights(g: Any, x: Any, w: Any, stride: Pair, padding: Pair) -> Any:
    """dL/dw_i = g^T rows_i, with the forward pass's `rows`, built again."""
    (O, C, kh, kw), out = w.shape, g.shape[2:]
    G = g.transpose(0, 2, 3, 1)
    blocks = _conv_blocks(len(x), w, out)
    sums: list[Any] = [None] * len(blocks)

    def work(mine: Iterator[Block]) -> None:
        rows = _Rows(x, (kh, kw), stride, padding, out, _longest(blocks))
        for k, at in mine:
            sums[k] = _outer(np.ascontiguousarray(_images_first(G[at])), rows.fill(at, O))

    _share(work, blocks)
    return np.ascontiguousarray(_in_order(sums).reshape(kh, O, kw, C).transpose(1, 3, 0, 2))


def _in_order(sums: list[Any]) -> Any:
    """The blocks' sums, added from the first to the last, whichever was ready first."""
    return functools.reduce(np.add, sums)


def _gradient_of_input(g: Any, x: Any, w: Any, stride: Pair, padding: Pair, need_w: bool) -> tuple[Any, Any]:
    """dL/dx is a convolution of g, inputs and outputs exchanged, the kernel turned by 180 degrees. Nothing is
    scattered: every pixel of x gathers from the windows it was in. For one image axis, with p the padding,

        dL/dx[s q + a - p] = sum over t of g[q - t] w[a + s t]              0 <= a < s, 0 <= t < ceil(k/s)

    so one window of ceil(k/s) elements of g, the same for all a, yields the next s elements of x. Columns do
    that in the product, which is sw*C wide; rows one a after the other.

    With stride 1 the same `rows` give dL/dw, turned:  dL/dw_i = x^T rows_(kh-1-i).  One gather for both.
    """
    (N, C, H, W), (O, _, kh, kw), (sh, sw), (ph, pw) = x.shape, w.shape, stride, padding
    th, tw = -(-kh // sh), -(-kw // sw)
    q, u = ph // sh, pw // sw  # the first q with a row in x, and the same for columns
    Q, U = (ph + H - 1) // sh - q + 1, (pw + W - 1) // sw - u + 1
    turned = np.zeros((O, C, th * sh, tw * sw), w.dtype)  # zeros where the stride does not divide the kernel
    turned[:, :, :kh, :kw] = w
    turned = turned.reshape(O, C, th, sh, tw, sw)[:, :, ::-1, :, ::-1].transpose(3, 2, 4, 0, 5, 1)
    turned = turned.reshape(sh, th, tw * O, sw * C)

    X, gx = x.transpose(0, 2, 3, 1), _empty((N, H, W, C), x.dtype)
    blocks = _conv_blocks(N, turned[0].reshape(th, tw, O, sw * C).transpose(3, 2, 0, 1), (Q, U))
    sums: list[Any] = [None] * len(blocks)

    def work(mine: Iterator[Block]) -> None:
        builder = _Rows(g, (th, tw), (1, 1), (th - 1 - q, tw - 1 - u), (Q, U), _longest(blocks))
        memory = np.empty(th * Q * _longest(blocks) * U * sw * C, x.dtype)
        for k, at in mine:
            rows = builder.fill(at, sw * C)
            for a in range(sh):
                first = (a - ph) % sh  # the first row of x that this a yields, and its row in the product
                skip, count = (first + ph) // sh - q, len(range(first, H, sh))
                t = sum(a + sh * t >= kh for t in range(th))  # so many taps lie beyond the kernel
                if t == th:
                    gx[at, first::sh] = 0
                    continue
                pixels = _conv(rows[t:], turned[a, t:], memory).reshape(Q, -1, U * sw, C)
                pixels = pixels[skip:skip + count, :, pw - sw * u:pw - sw * u + W]
                gx[at, first::sh] = _images_first(pixels)
            if need_w:
                sums[k] = _outer(np.ascontiguousarray(_images_first(X[at])), rows)

    _share(work, blocks)
    gw = None
    if need_w:
        gw = np.ascontiguousarray(_in_order(sums).reshape(kh, C, kw, O)[::-1, :, ::-1].transpose(3, 1, 0, 2))
    return gx.transpose(0, 3, 1, 2), gw


# ---------------------------------------------------------------------------------- batch norm
#
# An activation is seen as lines, (pixels/k, k*C): all channels of k pixels lie in a line. A vector of C
# values is tiled to such a line. Lines are long, as NumPy takes several shorter ones through a buffer, which
# costs half as much again. Blocks are of lines; the cache holds what is written: what is read passes once.

NUMPY_BUFFER = 8192  # values: np.getbufsize()'s default


@functools.cache
def _pixels_per_line(pixels: int, C: int) -> int:
    """A divisor of `pixels`: the smallest that fills NumPy's buffer, or the largest that does not."""
    full = -(-NUMPY_BUFFER // C)
    enough = (k for k in range(full, min(8 * full, pixels) + 1) if pixels % k == 0)
    return next(enough, 0) or max(k for k in range(1, min(full, pixels + 1)) if pixels % k == 0)


def _lines(x: Any) -> Any:
    """(N, C, ...) -> (lines, k*C): a view if x lies channels last, else a copy."""
    C = x.shape[1]
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)).reshape(-1, C * _pixels_per_line(x.size // C, C))


def _image(lines: Any, shape: tuple[int, ...]) -> Any:
    """The inverse, for an array of this shape (N, C, ...)."""
    return np.moveaxis(lines.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


def _line(v: Any, like: Any) -> Any:
    """(C,) -> (k*C,), float32."""
    return np.tile(v.astype(like.dtype), like.shape[1] // len(v))


def _short(lines: Any, C: int) -> Any:
    """The same in lines of at most 32 pixels: fewer values are left once lines have been added up."""
    return lines.reshape(-1, C * math.gcd(lines.shape[1] // C, 32))


def _sum(lines: Any, C: int) -> Any:
    """Sums per channel, (C,). BLAS adds lines faster than np.sum; what is left is added in float64."""
    v = _short(lines, C)
    return (np.ones(len(v), v.dtype) @ v).reshape(-1, C).sum(0, dtype=np.float64)


def _dot(a: Any, b: Any, C: int) -> Any:
    """Sums of a * b per channel; einsum needs no memory for the products."""
    return np.einsum("rl,rl->l", _short(a, C), _short(b, C)).reshape(-1, C).sum(0, dtype=np.float64)


def _moments(x: Any, C: int) -> tuple[Any, Any]:
    """Mean and sum of squared deviations of a block, (C,) each in float64.

    sum(x^2) - mean sum(x) is fast, and loses digits when |mean| >> std: then once more, with x - mean.
    """
    m = x.size // C
    mean = _sum(x, C) / m
    squares = _dot(x, x, C) - m * mean * mean
    if (m * mean * mean > 10 * squares).any():
        shift = mean.astype(x.dtype)
        centred = x - _line(shift, x)
        rest = _sum(centred, C) / m
        mean, squares = shift + rest, np.maximum(_dot(centred, centred, C) - m * rest * rest, 0)
    return mean, squares


def _statistics(X: Any, C: int) -> tuple[Any, Any]:
    """Mean and variance of all lines: the blocks' moments, combined as in Chan et al. (1979)."""
    blocks = _blocks(len(X), X[0].nbytes)
    means, squares = np.empty((2, len(blocks), C))
    sizes = np.array([[X[at].size // C] for at in blocks])

    def work(mine: Iterator[Block]) -> None:
        for k, at in mine:
            means[k], squares[k] = _moments(X[at], C)

    _share(work, blocks)
    mean = (sizes * means).sum(0) / sizes.sum()
    return mean, (squares + sizes * (means - mean) ** 2).sum(0) / sizes.sum()


def _normalise(X: Any, gamma: Any, beta: Any, mean: Any, var: Any, eps: float, relu: bool = False,
               skip: Any = None) -> tuple[Any, Any]:
    """gamma (x - mean) / sqrt(var + eps) + beta (+ skip), (relu): all on a block while it is in the cache.

    With a = gamma / sqrt(var + eps), a x + (beta - a mean) saves a pass. Where |mean| >= 10 std that is not
    exact enough: `shift`, the mean in float32, is subtracted first, and only the rest of it goes into beta.
    """
    shift = mean.astype(X.dtype) if (mean * mean > 100 * var).any() else None
    rest = mean if shift is None else mean - shift
    inv = (var + eps) ** -0.5
    scale, offset = _line(gamma * inv, X), _line(beta - gamma * inv * rest, X)
    shift = None if shift is None else _line(shift, X)
    zero, Y, S = np.zeros_like(offset), _empty(X.shape, X.dtype), None if skip is None else _lines(skip)
    blocks = _blocks(len(X), X[0].nbytes)

    def work(mine: Iterator[Block]) -> None:
        for _, at in mine:
            y = Y[at]
            np.multiply(X[at] if shift is None else np.subtract(X[at], shift, out=y), scale, out=y)
            y += offset
            if S is not None:
                y += S[at]
            if relu:
                np.maximum(y, zero, out=y)

    _share(work, blocks)
    return Y, (X, inv, shift, rest)


def _gradient(g: Any, gamma: Any, saved: Any, y: Any = None, keep: bool = False,
              constant: bool = False) -> tuple[Any, Any, Any, Any]:
    """(dL/dx, dL/dgamma, dL/dbeta, masked g). With xc = x - shift and rest = mean - shift,

        dL/dgamma = inv (sum(g xc) - rest sum(g))        dL/dx = a g + b xc + c        (a, b, c per channel)

    In two rounds over the blocks, since a, b and c need the sums over all of them. With y, g is first
    multiplied by y > 0, the ReLU's mask; `keep` gives that product memory of its own, else it lies where
    dL/dx will. With `constant` statistics b = c = 0.
    """
    X, inv, shift, rest = saved
    C, G, GX = len(gamma), _lines(g), _empty(X.shape, X.dtype)
    masked = G if y is None else _empty(X.shape, X.dtype) if keep else GX
    blocks = _blocks(len(X), 2 * X[0].nbytes)
    sums = np.empty((2, len(blocks), C))

    def gather(mine: Iterator[Block]) -> None:
        for k, at in mine:
            m, xc = masked[at], X[at] if shift is None else X[at] - shift
            if y is not None:
                np.greater(y[at], 0, out=m)
                m *= G[at]
            sums[0, k], sums[1, k] = _sum(m, C), _dot(m, xc, C)

    _share(gather, blocks)
    gbeta, ggamma = sums.sum(1)
    ggamma = inv * (ggamma - rest * gbeta)
    a = gamma * inv
    b = -a * inv * ggamma / (X.size // C)
    c = -a * gbeta / (X.size // C) - b * rest
    a_line, b_line, c_line = (_line(v, X) for v in (a, b, c))

    def scatter(mine: Iterator[Block]) -> None:
        memory = np.empty_like(X[:_longest(blocks)])
        for _, at in mine:
            gx, t = np.multiply(masked[at], a_line, out=GX[at]), memory[:at.stop - at.start]
            if not constant:
                np.multiply(X[at] if shift is None else np.subtract(X[at], shift, out=t), b_line, out=t)
                gx += t
                gx += c_line

    _share(scatter, blocks)
    gskip = _image(masked, g.shape) if keep else None
    return _image(GX, g.shape), ggamma.astype(g.dtype), gbeta.astype(g.dtype), gskip


def batch_norm(x: Any, gamma: Any, beta: Any, eps: float) -> tuple[Any, Any, Any, Any]:
    """Reference: reference.batch_norm. Saves x and a few vectors, not xhat."""
    X = _lines(x)
    mean, var = _statistics(X, len(gamma))
    y, saved = _normalise(X, gamma, beta, mean, var, eps)
    return _image(y, x.shape), mean.astype(x.dtype), var.astype(x.dtype), saved


def batch_norm_backward(g: Any, gamma: Any, saved: Any) -> tuple[Any, Any, Any]:
    """Reference: reference.batch_norm_backward."""
    return _gradient(g, gamma, saved)[:3]


def batch_norm_eval(x: Any, gamma: Any, beta: Any, mean: Any, var: Any, eps: float) -> tuple[Any, Any]:
    """Reference: reference.batch_norm_eval."""
    y, saved = _normalise(_lines(x), gamma, beta, mean.astype(np.float64), var.astype(np.float64), eps)
    return _image(y, x.shape), saved


def batch_norm_eval_backward(g: Any, gamma: Any, saved: Any) -> tuple[Any, Any, Any]:
    """Reference: reference.batch_norm_eval_backward."""
    return _gradient(g, gamma, saved, constant=True)[:3]


def batch_norm_relu(x: Any, gamma: Any, beta: Any, eps: float, skip: Any = None) -> tuple[Any, Any, Any, Any]:
    """Reference: reference.batch_norm_relu. The mask is y > 0; y stays anyway, as the next layer's input."""
    X = _lines(x)
    mean, var = _statistics(X, len(gamma))
    y, saved = _normalise(X, gamma, beta, mean, var, eps, True, skip)
    return _image(y, x.shape), mean.astype(x.dtype), var.astype(x.dtype), (saved, y, skip is not None)


def batch_norm_relu_backward(g: Any, gamma: Any, saved: Any) -> tuple[Any, Any, Any, Any]:
    """Reference: reference.batch_norm_relu_backward. The fourth gradient is None if there was no skip."""
    saved, y, skip = saved
    return _gradient(g, gamma, saved, y, keep=skip)


# ------------------------------------------------------------------------------------- pooling

def _padded(x: Any, padding: Pair, value: float) -> Any:
    """(n, H, W, C) -> (n, H + 2 ph, W + 2 pw, C), filled up with `value`; x itself if there is none."""
    if padding == (0, 0):
        return x
    n, H, W, C = x.shape
    out = np.full((n, H + 2 * padding[0], W + 2 * padding[1], C), value, x.dtype)
    out[:, padding[0]:padding[0] + H, padding[1]:padding[1] + W] = x
    return out


def _taps(kernel: Pair, stride: Pair, out: Pair) -> Iterator[tuple[int, Any]]:
    """(number, index): `index` picks that element of every window from (n, Hp, Wp, C)."""
    for k, (_, _, (_, rows, columns)) in enumerate(windows(kernel, stride, out)):
        yield k, (slice(None), rows, columns)


def max_pool2d(x: Any, kernel: Pair, stride: Pair, padding: Pair) -> tuple[Any, Any]:
    """Reference: reference.max_pool2d. The winner's number is kept in a byte where that is enough."""
    (N, C, H, W), out = x.shape, output_size(x.shape[2:], kernel, stride, padding)
    X, y = x.transpose(0, 2, 3, 1), _empty((N, *out, C), x.dtype)
    winner = np.zeros(y.shape, np.uint8 if kernel[0] * kernel[1] <= 256 else np.int32)
    blocks = _blocks(N, 2 * x.itemsize * C * H * W)

    def work(mine: Iterator[Block]) -> None:
        for _, at in mine:
            block, best, who = _padded(X[at], padding, -np.inf), y[at], winner[at]
            for k, tap in _taps(kernel, stride, out):
                v = block[tap]
                if k == 0:
                    best[...] = v
                    continue
                better = v > best
                better |= v != v  # NaN wins
                np.maximum(best, v, out=best)
                np.add(who, better * np.subtract(k, who), out=who)  # who[better] = k takes longer

    _share(work, blocks)
    return y.transpose(0, 3, 1, 2), winner


def max_pool2d_backward(g: Any, winner: Any, shape: tuple[int, ...], kernel: Pair, stride: Pair,
                        padding: Pair) -> Any:
    """Reference: reference.max_pool2d_backward."""
    (N, C, H, W), (ph, pw) = shape, padding
    G, gx = g.transpose(0, 2, 3, 1), _empty((N, H, W, C), g.dtype)
    blocks = _blocks(N, 3 * gx[0].nbytes)

    def work(mine: Iterator[Block]) -> None:
        for _, at in mine:
            padded = np.zeros((at.stop - at.start, H + 2 * ph, W + 2 * pw, C), g.dtype)
            for k, tap in _taps(kernel, stride, g.shape[2:]):
                padded[tap] += G[at] * (winner[at] == k)
            gx[at] = padded[:, ph:ph + H, pw:pw + W]

    _share(work, blocks)
    return gx.transpose(0, 3, 1, 2)


def avg_pool2d(x: Any, kernel: Pair, stride: Pair, padding: Pair) -> Any:
    """Reference: reference.avg_pool2d. Adds image rows, then columns: kh + kw additions, not kh*kw."""
    (Ho, Wo), (sh, sw) = output_size(x.shape[2:], kernel, stride, padding), stride
    x = _padded(x.transpose(0, 2, 3, 1), padding, 0)
    rows = functools.reduce(np.add, (x[:, i:i + sh * Ho:sh] for i in range(kernel[0])))
    total = functools.reduce(np.add, (rows[:, :, j:j + sw * Wo:sw] for j in range(kernel[1])))
    return (total * (1 / (kernel[0] * kernel[1]))).transpose(0, 3, 1, 2)


def avg_pool2d_backward(g: Any, shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair) -> Any:
    """Reference: reference.avg_pool2d_backward. Spreads over columns, then over image rows."""
    (N, C, H, W), (Ho, Wo), (sh, sw), (ph, pw) = shape, g.shape[2:], stride, padding
    share = (g * (1 / (kernel[0] * kernel[1]))).transpose(0, 2, 3, 1)
    rows = np.zeros((N, Ho, W + 2 * pw, C), g.dtype)
    for j in range(kernel[1]):
        rows[:, :, j:j + sw * Wo:sw] += share
    gx = np.zeros((N, H + 2 * ph, W + 2 * pw, C), g.dtype)
    for i in range(kernel[0]):
        gx[:, i:i + sh * Ho:sh] += rows
    return np.ascontiguousarray(gx[:, ph:ph + H, pw:pw + W]).transpose(0, 3, 1, 2)


# ----------------------------------------------------------------------- shortcut without weights

def shortcut(x: Any, stride: int, channels: int, pad: str) -> Any:
    """Reference: reference.shortcut. Channels last, as the addition wants it."""
    x = x.transpose(0, 2, 3, 1)[:, ::stride, ::stride]
    before = (channels - x.shape[3]) // 2 if pad == "both" else 0
    y = _empty((*x.shape[:3], channels), x.dtype)
    y[...] = 0
    y[..., before:before + x.shape[3]] = x
    return y.transpose(0, 3, 1, 2)


def shortcut_backward(g: Any, shape: tuple[int, ...], stride: int, pad: str) -> Any:
    """Reference: reference.shortcut_backward."""
    N, C, H, W = shape
    before = (g.shape[1] - C) // 2 if pad == "both" else 0
    gx = _empty((N, H, W, C), g.dtype)
    gx[...] = 0
    gx[:, ::stride, ::stride] = g.transpose(0, 2, 3, 1)[..., before:before + C]
    return gx.transpose(0, 3, 1, 2)
