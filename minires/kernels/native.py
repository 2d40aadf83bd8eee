"""This module has the kernels for float32 on the CPU in C: reference.py's arithmetic, with loops and threads in c/*.c.

The system's compiler compiles the C sources at first use (compiler.py). Each kernel is one call through ctypes, during
which other Python threads run. `ready()` returns whether that works on this machine, and `reason()` why not. Where it
does not work, the package uses blocked.py.

As in blocked.py, arrays of shape (N, C, H, W) are kept channels last, (N, H, W, C), a transpose away. Inputs may have
any memory layout; another layout costs a copy. The number of blocks of a batch depends only on shapes. A sum over
blocks is kept per block and added in the order of the blocks, so results have the same bits for any number of threads.

The C code checks nothing, so every function in this file checks dtypes, shapes, contiguity and alignment first.
Kernels that are not written in C come from blocked.py and reference.py.
"""
from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import os
import threading
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

from . import blocked, grouped, parallel, reference
from .parallel import empty
from .reference import (
    ONE,
    Pair,
    copy_all,
    cross_entropy,
    cross_entropy_backward,
    extent,
    join,
    log_softmax,
    matmul,
    output_size,
    per_channel,
)

__all__ = [
    "add", "avg_pool2d", "avg_pool2d_backward", "batch_norm", "batch_norm_backward", "batch_norm_eval",
    "batch_norm_eval_backward", "batch_norm_relu", "batch_norm_relu_backward", "conv2d", "conv2d_backward",
    "copy_all", "cross_entropy", "cross_entropy_backward", "join", "log_softmax", "matmul", "max_pool2d",
    "max_pool2d_backward", "output_size", "per_channel", "relu", "running_statistics", "sgd", "shortcut",
    "shortcut_backward",
]

# ---------------------------------------------------------------------------------------- the library

# Arguments of the functions in C, in order: p for a pointer, i for an i64, d for a double, f for a float.
SIGNATURES = {
    "add": "iiippp", "avg_pool2d": "piipp", "avg_pool2d_backward": "piipp",
    "batch_norm": "iiiiipppppdiipppp", "batch_norm_backward": "iiiiipppppppippp", "begin_anew": "",
    "conv2d": "piiipppppippi", "conv2d_backward": "pipiiippppppppi", "helpers": "", "lanes": "",
    "max_pool2d": "piippp", "max_pool2d_backward": "piippp", "packed_size": "p", "relu": "iiippp",
    "running_statistics": "ippppddpp", "scratch_forward": "p", "scratch_gradient": "p", "sgd": "ippppfff",
    "shortcut": "iiiiiiiiipp", "shortcut_backward": "iiiiiiiiipp",
}
RETURNING = {"helpers", "lanes", "packed_size", "scratch_forward", "scratch_gradient"}  # an i64; others nothing
C_TYPES = {"p": ctypes.c_void_p, "i": ctypes.c_int64, "d": ctypes.c_double, "f": ctypes.c_float}


# The library inside `using_library`, for this thread alone: others must not compute with one that is being checked.
_tried: ContextVar[Any] = ContextVar("_tried", default=None)


class _Loaded:
    """Hold the library after its first use, or the reason why there is none."""

    def __init__(self) -> None:
        self.library: Any = None
        self.why = ""
        self.lock = threading.Lock()

    @property
    def c(self) -> Any:
        """Return the functions in C. Raises RuntimeError if there are none."""
        if (tried := _tried.get()) is not None:
            return tried
        if self.library is None and not ready():
            raise RuntimeError(f"native kernels: {self.why}")
        return self.library

    def load(self) -> None:
        from . import compiler  # late: with the modules it needs it would take half the time of `import minires`

        with self.lock:
            if self.library is None and not self.why:
                try:
                    self.library = _declared(compiler.library(self.check))
                except (compiler.Unavailable, OSError, AttributeError) as e:
                    self.why = str(e)

    def check(self, library: Any) -> str | None:
        """Compare a library that was just built with reference.py on small arrays. Return what differs, or None."""
        with using_library(library):
            return _differences()

    def after_fork(self) -> None:
        """Reset the thread pool of the library: a forked child has none of the threads of its parent."""
        self.lock = threading.Lock()
        for library in self.library, _tried.get():
            if library is not None:
                library.begin_anew()


def _declared(library: Any) -> Any:
    """Declare the types of the library's functions, and return it. Raises AttributeError if one is missing."""
    for name, arguments in SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes = [C_TYPES[letter] for letter in arguments]
        function.restype = ctypes.c_int64 if name in RETURNING else None
    return library


_loaded = _Loaded()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_loaded.after_fork)


def ready() -> bool:
    """Return whether these kernels work on this machine. The first call may compile them for some seconds."""
    if _tried.get() is not None:
        return True
    if _loaded.library is None and not _loaded.why:
        _loaded.load()
    return _loaded.library is not None


def reason() -> str:
    """Return why these kernels do not work on this machine, or "" if they do."""
    return "" if ready() else _loaded.why


@contextlib.contextmanager
def using_library(library: Any) -> Iterator[None]:
    """Use `library`, a ctypes.CDLL of the same sources with other options, in this thread and inside this context."""
    token = _tried.set(_declared(library))
    try:
        yield
    finally:
        _tried.reset(token)


def _differences() -> str | None:
    """Return the first kernel whose result differs from reference.py, in words, or None."""
    rng = np.random.default_rng(0)
    for (C, O), (H, W), kernel, stride, padding in (((3, 5), (6, 7), (3, 3), (1, 1), (1, 1)),
                                                    ((18, 40), (7, 5), (3, 3), (2, 2), (1, 1)),
                                                    ((16, 32), (8, 8), (1, 1), (2, 2), (0, 0))):
        x, w = rng.standard_normal((5, C, H, W), np.float32), rng.standard_normal((O, C, *kernel), np.float32)
        gamma, beta = rng.standard_normal((2, C), np.float32)
        g = rng.standard_normal((5, O, *output_size((H, W), kernel, stride, padding)), np.float32)
        window = (3, 3), stride, (1, 1)
        for threads in 1, 2:
            with parallel.session(threads):
                for name, arguments in (("conv2d", (x, w, stride, padding)),
                                        ("conv2d_backward", (g, x, w, stride, padding)),
                                        ("batch_norm_relu", (x, gamma, beta, 1e-5, x)),
                                        ("avg_pool2d", (x, *window)), ("max_pool2d", (x, *window)), ("add", (x, x))):
                    if not _agree(globals()[name](*arguments), getattr(reference, name)(*arguments)):
                        return f"{name} differs from its definition for {x.shape}, {w.shape}, {threads} threads"
    return None


def _agree(ours: Any, theirs: Any) -> bool:
    """Compare arrays except for rounding. Values that a forward function saves for backward are not compared."""
    pairs = zip(ours, theirs, strict=True) if isinstance(ours, tuple) else [(ours, theirs)]
    return all(np.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in pairs
               if isinstance(b, np.ndarray) and b.dtype == np.float32)


# ------------------------------------------------------------------------------- arguments for C

WORTH_SHARING = 1 << 15  # values, or 64 multiplications each: below this one thread does all the work


def _threads(work: int) -> int:
    """Return the number of threads for a loop over `work` values."""
    return 1 if work < WORTH_SHARING else parallel.threads_asked()


def _at(array: Any) -> Any:
    """Return the address of an array, or None for None."""
    if array is None:
        return None
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # four times as fast as the other way
    except (TypeError, ValueError):  # a read-only or an empty array
        return array.__array_interface__["data"][0]


def _flat(x: Any) -> Any:
    """Return x if it is C-contiguous and aligned, else such a copy. Raises TypeError unless x is float32."""
    if x.dtype != np.float32:
        raise TypeError(f"native kernels: expected float32, got {x.dtype}")
    flags = x.flags
    return x if flags.c_contiguous and flags.aligned else np.array(x, np.float32, order="C")


def _last(x: Any) -> Any:
    """Return x as (N, ..., C) for (N, C, ...), contiguous as in _flat."""
    return _flat(np.moveaxis(x, 1, -1) if x.ndim != 4 else x.transpose(0, 2, 3, 1))


def _first(y: Any) -> Any:
    """Return the inverse view, (N, C, ...)."""
    return y.transpose(0, 3, 1, 2) if y.ndim == 4 else np.moveaxis(y, -1, 1)


def _of_shape(x: Any, shape: Sequence[int], what: str) -> Any:
    """Return x. Raises ValueError if it has another shape."""
    if x.shape != tuple(shape):
        raise ValueError(f"native kernels: expected {what} of shape {tuple(shape)}, got {x.shape}")
    return x


def _scratch(threads: int, floats: int) -> Any:
    """Return memory for a kernel that writes before it reads."""
    return np.empty(threads * floats, np.float32)


# --------------------------------------------------------------------------------- convolution

# Small images are processed in groups of about this many pixels, so that the weights are read once for each group. The
# groups are larger if the weights have WIDE or more values, because those are read from memory every time.
GROUP_PIXELS, WIDE_GROUP_PIXELS, WIDE = 128, 256, 1 << 17
BLOCKS = 16          # of a batch in a convolution; its gradients use half as many, because each block keeps a sum
LARGEST = 2**31 - 1  # of an offset, a 32-bit integer


class _Product(ctypes.Structure):
    """Mirror the struct Product of c/convolution.c."""

    _fields_ = [*((name, ctypes.c_int64) for name in ("height", "width", "channels", "rows", "columns", "top", "left",
                                                      "pitch", "group", "pixels", "runs", "run", "outputs", "size",
                                                      "apart")),
                *((name, ctypes.c_void_p) for name in ("pixel", "out", "tap", "taken"))]


class _Plan(NamedTuple):
    """Hold the products of a convolution or of its gradient for one shape. A plan never changes."""

    products: Any       # array of _Product
    tables: list[Any]   # that the products point to
    out: Pair           # rows and columns of y
    work: int           # for an image, as WORTH_SHARING counts
    packed: int         # floats of the packed weights
    scratch: int        # floats that a thread needs
    complete: bool      # is every result written?

    def at(self) -> int:
        return ctypes.addressof(self.products)


def _grid(rows: Any, columns: Any, row: int, column: int) -> Any:
    """Return the array (rows, columns) of row * r + column * c."""
    return np.add.outer(np.asarray(rows, np.int64) * row, np.asarray(columns, np.int64) * column)


def _product(image: Sequence[int], frame: Sequence[int], group: int, pixel: Any, out: Any, tap: Any, run: int,
             taken: Any, outputs: int, size: int, apart: int) -> tuple[Any, list[Any]]:
    """Return a _Product and its tables, given the tables of one image."""
    C, H, W = image
    rows, columns, top, left, pitch = frame
    images = np.arange(group).reshape(-1, 1)
    tables = [np.ascontiguousarray(table, np.int32).reshape(-1) for table in (
        images * (rows * columns * pitch) + pixel.reshape(1, -1), images * size + out.reshape(1, -1), tap, taken)]
    pointers = dict(zip(("pixel", "out", "tap", "taken"), map(_at, tables), strict=True))
    return _Product(H, W, C, rows, columns, top, left, pitch, group, pixel.size, tap.size, run, outputs, size,
                    apart, **pointers), tables


def _plan(made: list[tuple[Any, list[Any]]], out: Pair, complete: bool) -> _Plan:
    products = (_Product * len(made))(*(product for product, _ in made))
    c, step = _loaded.c, ctypes.sizeof(_Product)
    each = [ctypes.addressof(products) + i * step for i in range(len(made))]
    work = sum(p.pixels * p.runs * p.run * p.outputs for p in products) // 64
    return _Plan(products, [table for _, tables in made for table in tables], out, work,
                 sum(c.packed_size(at) for at in each), c.scratch_forward(each[0]) if made else 0, complete)


def _group(out: Pair, weights: tuple[int, ...]) -> int:
    """Return how many images are processed at once."""
    wanted = GROUP_PIXELS if math.prod(weights) < WIDE else WIDE_GROUP_PIXELS
    return max(1, wanted // (out[0] * out[1]))


def _pitch(C: int) -> int:
    """Return how many floats two pixels of a frame are apart: C, or more where C is a multiple of 512 bytes.

    The gradient of the weights reads one value of many pixels in turn. With a multiple of 512 bytes between them, these
    values compete for a few lines of the first-level cache.
    """
    return C if C % 128 else C + 16


@functools.lru_cache(1024)
def _forward_plan(image: tuple[int, ...], weights: tuple[int, ...], stride: Pair, padding: Pair,
                  dilation: Pair = ONE) -> _Plan | None:
    """Return the product for y, or None if its offsets do not fit into 32 bits."""
    (C, H, W), (O, _, kh, kw), (sh, sw), (ph, pw), (dh, dw) = image, weights, stride, padding, dilation
    out = Ho, Wo = output_size((H, W), (kh, kw), stride, padding, dilation)
    span = extent((kh, kw), dilation)
    rows, columns = ((Ho - 1) * sh + span[0], (Wo - 1) * sw + span[1]) if (ph, pw) != (0, 0) else (H, W)
    group, pitch = _group(out, weights), _pitch(C)
    if group * max(rows * columns * pitch, Ho * Wo * O) > LARGEST or O * C * kh * kw > LARGEST:
        return None
    pixel = _grid(np.arange(Ho) * sh, np.arange(Wo) * sw, columns * pitch, pitch)
    # The values of a kernel row are one run if they are adjacent. Otherwise those of a pixel are.
    adjacent = dw == 1 and pitch == C
    tap = _grid(np.arange(kh) * dh, np.arange(1 if adjacent else kw) * dw, columns * pitch, pitch)
    taken = np.add.outer(_grid(np.arange(kh), np.arange(kw), kw, 1), np.arange(C) * kh * kw)
    return _plan([_product((C, H, W), (rows, columns, ph, pw, pitch), group, pixel, np.arange(Ho * Wo) * O, tap,
                           kw * C if adjacent else C, taken, O, Ho * Wo * O, C * kh * kw)], out, True)


@functools.lru_cache(1024)
def _backward_plan(image: tuple[int, ...], weights: tuple[int, ...], stride: Pair, padding: Pair,
                   dilation: Pair = ONE) -> _Plan | None:
    """Return the products for dL/dx, one for each pair of remainders (a, b) by the stride. On an axis with padding p
    and dilation d,

        dL/dx[s q + a - p] = sum over i of g[q - (d i - a) / s] w[i]        0 <= a < s, 0 <= i < k, d i = a modulo s
    """
    (C, H, W), (O, _, kh, kw), (sh, sw), (ph, pw), (dh, dw) = image, weights, stride, padding, dilation
    out = Ho, Wo = output_size((H, W), (kh, kw), stride, padding, dilation)
    th, tw = dh * (kh - 1) // sh + 1, dw * (kw - 1) // sw + 1
    rows, columns = th + max((H - 1 + ph) // sh, Ho - 1), tw + max((W - 1 + pw) // sw, Wo - 1)
    group = _group(out, weights)
    if group * max(rows * columns * O, H * W * C) > LARGEST or O * C * kh * kw > LARGEST:
        return None
    made, complete = [], True
    for a in range(sh):
        for b in range(sw):
            i, j = (np.flatnonzero(np.arange(k) * d % s == r) for k, d, s, r in ((kh, dh, sh, a), (kw, dw, sw, b)))
            q = np.arange(max(0, -(-(ph - a) // sh)), (H - 1 + ph - a) // sh + 1)
            u = np.arange(max(0, -(-(pw - b) // sw)), (W - 1 + pw - b) // sw + 1)
            if not (len(i) and len(j)):
                complete &= not (len(q) and len(u))
            elif len(q) and len(u):
                pixel = _grid(q + th - 1, u + tw - 1, columns * O, O)
                tap = -_grid((dh * i - a) // sh, (dw * j - b) // sw, columns * O, O)
                taken = np.add.outer(_grid(i, j, kw, 1), np.arange(O) * C * kh * kw)
                to = _grid(q * sh + a - ph, u * sw + b - pw, W * C, C)
                made.append(_product((O, Ho, Wo), (rows, columns, th - 1, tw - 1, O), group, pixel, to, tap, O, taken,
                                     C, H * W * C, kh * kw))
    return _plan(made, out, complete)


def conv2d(x: Any, w: Any, stride: Pair, padding: Pair, dilation: Pair = ONE, groups: int = 1) -> Any:
    """Reference: reference.conv2d."""
    if groups != 1:
        return grouped.conv2d(conv2d, x, w, groups, stride, padding, dilation)
    return conv2d_bias_relu(x, w, stride, padding, dilation=dilation)


def conv2d_bias_relu(x: Any, w: Any, stride: Pair, padding: Pair, bias: Any = None, skip: Any = None,
                     relu: bool = False, dilation: Pair = ONE) -> Any:
    """Return conv2d(x, w) + bias + skip, then ReLU, in one pass. Each of the three may be absent.

    bias: (O,).
    skip: an array of the result's shape.
    """
    N, C, H, W = x.shape
    _of_shape(w, (len(w), C, *w.shape[2:]), "weights")
    if not (x.size and w.size):
        raise ValueError(f"native kernels: nothing to convolve, x {x.shape}, w {w.shape}")
    plan = _forward_plan((C, H, W), w.shape, stride, padding, dilation)
    if plan is None:
        y = blocked.conv2d(x, w, stride, padding, dilation)
        y = y if bias is None else y + bias.reshape(1, -1, 1, 1)
        y = y if skip is None else y + skip
        return reference.relu(y)[0] if relu else y
    X, w, O = _last(x), _flat(w), len(w)
    shape = (N, *plan.out, O)
    if bias is not None:  # the C code reads whole vectors, beyond the end of a bias
        bias = np.concatenate([_flat(_of_shape(bias, (O,), "a bias")), np.zeros(2 * _loaded.c.lanes(), np.float32)])
    if skip is not None:
        skip = _last(_of_shape(skip, (N, O, *plan.out), "a skip"))
    y, blocks, threads = empty(shape, np.float32), min(N, BLOCKS), _threads(N * plan.work)
    packed, scratch = _scratch(1, plan.packed), _scratch(threads, plan.scratch)
    _loaded.c.conv2d(plan.at(), N, blocks, threads, _at(X), _at(w), _at(y), _at(bias), _at(skip), relu, _at(packed),
                     _at(scratch), plan.scratch)
    return _first(y)


def conv2d_backward(g: Any, x: Any, w: Any, stride: Pair, padding: Pair, need_x: bool = True, need_w: bool = True,
                    dilation: Pair = ONE, groups: int = 1) -> tuple[Any, Any]:
    """Reference: reference.conv2d_backward."""
    if not (need_x or need_w):
        return None, None
    if groups != 1:
        return grouped.conv2d_backward(conv2d_backward, g, x, w, groups, stride, padding, need_x, need_w, dilation)
    (N, C, H, W), O = x.shape, len(w)
    _of_shape(w, (O, C, *w.shape[2:]), "weights")
    if not (x.size and w.size):
        raise ValueError(f"native kernels: nothing to convolve, x {x.shape}, w {w.shape}")
    forward = _forward_plan((C, H, W), w.shape, stride, padding, dilation)
    backward = _backward_plan((C, H, W), w.shape, stride, padding, dilation) if need_x else forward
    if forward is None or backward is None:
        return blocked.conv2d_backward(g, x, w, stride, padding, need_x, need_w, dilation)
    G, X, w = _last(_of_shape(g, (N, O, *forward.out), "g")), _last(x), _flat(w)
    blocks = min(N, BLOCKS // 2)
    threads = _threads(N * (forward.work * need_w + backward.work * need_x))
    gx = gw = sums = packed = None
    scratch, of_x, of_w, parts = 0, None, None, 0
    if need_x:
        gx, packed = empty((N, H, W, C), np.float32), _scratch(1, backward.packed)
        if not backward.complete:
            gx[...] = 0
        scratch, of_x, parts = backward.scratch, backward.at(), len(backward.products)
    if need_w:
        gw, sums = np.empty(w.shape, np.float32), _scratch(blocks, forward.packed)
        of_w = forward.at()
        scratch += _loaded.c.scratch_gradient(of_w)
    if not (parts or need_w):  # no window contains a pixel
        return _first(gx), None
    memory = _scratch(threads, scratch)
    _loaded.c.conv2d_backward(of_x, parts, of_w, N, blocks, threads, _at(G), _at(X), _at(w), _at(gx), _at(gw),
                              _at(packed), _at(sums), _at(memory), scratch)
    return None if gx is None else _first(gx), gw


# ---------------------------------------------------------------------------------- batch norm

LINE = 256  # values in a line, about; each line has values of all channels


@functools.cache
def _line(C: int) -> int:
    """Return the length of a line, a multiple of C."""
    return C * max(1, LINE // C)


def _vector(v: Any, C: int, what: str) -> Any:
    """Return v, which has one float32 for each of C channels."""
    return _flat(_of_shape(v, (C,), what))


def _lines(x: Any, C: int) -> tuple[int, int, Any]:
    """Return (length of a line, number of blocks, scratch memory) for x."""
    length = _line(C)
    blocks = min(-(-x.size // length), max(2, x.size >> 16))
    return length, blocks, _scratch(4 + 2 * blocks, length)


def _normalise(x: Any, gamma: Any, beta: Any, eps: float, given: Any = None, relu: bool = False, skip: Any = None
               ) -> tuple[Any, Any, Any, Any]:
    """Return (y, channels last; mean; var; saved) with the statistics of the batch, or with the `given` ones."""
    C = x.shape[1]
    if not x.size:
        raise ValueError(f"native kernels: nothing to normalise, x {x.shape}")
    X, gamma, beta = _last(x), _vector(gamma, C, "gamma"), _vector(beta, C, "beta")
    skip = None if skip is None else _last(_of_shape(skip, x.shape, "a skip"))
    y, saved = empty(X.shape, np.float32), np.empty((2, C))
    mean, var = np.empty((2, C), np.float32) if given is None else (_vector(v, C, "statistics") for v in given)
    length, blocks, scratch = _lines(X, C)
    _loaded.c.batch_norm(X.size, C, length, blocks, _threads(X.size), _at(X), _at(skip), _at(y), _at(gamma), _at(beta),
                         float(eps), relu, given is not None, _at(mean), _at(var), _at(saved), _at(scratch))
    return y, mean, var, (X, saved)


def _gradient(g: Any, gamma: Any, saved: Any, y: Any = None, keep: bool = False, constant: bool = False
              ) -> tuple[Any, Any, Any, Any]:
    """Return (dL/dx, dL/dgamma, dL/dbeta, masked g). With y, g counts where y > 0; `keep` returns that product."""
    X, statistics = saved
    C = X.shape[-1]
    G, gamma = _of_shape(_last(g), X.shape, "g"), _vector(gamma, C, "gamma")
    gx, masked = empty(X.shape, np.float32), empty(X.shape, np.float32) if keep else None
    ggamma, gbeta = np.empty((2, C), np.float32)
    length, blocks, scratch = _lines(X, C)
    _loaded.c.batch_norm_backward(X.size, C, length, blocks, _threads(X.size), _at(G), _at(X), _at(y), _at(gx),
                                  _at(masked), _at(gamma), _at(statistics), constant, _at(ggamma), _at(gbeta),
                                  _at(scratch))
    return _first(gx), ggamma, gbeta, None if masked is None else _first(masked)


def batch_norm(x: Any, gamma: Any, beta: Any, eps: float) -> tuple[Any, Any, Any, Any]:
    """Reference: reference.batch_norm. Saves x and two vectors, not xhat."""
    y, mean, var, saved = _normalise(x, gamma, beta, eps)
    return _first(y), mean, var, saved


def batch_norm_backward(g: Any, gamma: Any, saved: Any) -> tuple[Any, Any, Any]:
    """Reference: reference.batch_norm_backward."""
    return _gradient(g, gamma, saved)[:3]


def batch_norm_eval(x: Any, gamma: Any, beta: Any, mean: Any, var: Any, eps: float) -> tuple[Any, Any]:
    """Reference: reference.batch_norm_eval."""
    y, _, _, saved = _normalise(x, gamma, beta, eps, (mean, var))
    return _first(y), saved


def batch_norm_eval_backward(g: Any, gamma: Any, saved: Any) -> tuple[Any, Any, Any]:
    """Reference: reference.batch_norm_eval_backward."""
    return _gradient(g, gamma, saved, constant=True)[:3]


def batch_norm_relu(x: Any, gamma: Any, beta: Any, eps: float, skip: Any = None) -> tuple[Any, Any, Any, Any]:
    """Reference: reference.batch_norm_relu. The mask is y > 0; y stays anyway, as the next layer's input."""
    y, mean, var, saved = _normalise(x, gamma, beta, eps, None, True, skip)
    return _first(y), mean, var, (saved, y, skip is not None)


def batch_norm_relu_backward(g: Any, gamma: Any, saved: Any) -> tuple[Any, Any, Any, Any]:
    """Reference: reference.batch_norm_relu_backward. The fourth gradient is None if there was no skip."""
    saved, y, skip = saved
    return _gradient(g, gamma, saved, y, keep=skip)


def running_statistics(old_mean: Any, old_var: Any, mean: Any, var: Any, momentum: float, count: int
                       ) -> tuple[Any, Any]:
    """Reference: reference.running_statistics."""
    C = len(mean)
    given = [_vector(v, C, "statistics") for v in (old_mean, old_var, mean, var)]
    new_mean, new_var = np.empty((2, C), np.float32)
    _loaded.c.running_statistics(C, *map(_at, given), momentum, count, _at(new_mean), _at(new_var))
    return new_mean, new_var


# ----------------------------------------------------------------------------- one value after the other

SMALL = 1 << 13  # values: NumPy is as fast for fewer


def _pieces(values: int) -> int:
    """Return the number of blocks for a loop over `values` values."""
    return max(1, min(64, values >> 14))


def add(a: Any, b: Any) -> Any:
    """Reference: reference.add. NumPy adds small arrays and arrays of different memory layouts."""
    if a.size < SMALL or a.ndim != 4 or a.shape != b.shape or a.dtype != np.float32 or b.dtype != np.float32:
        return a + b
    A, B = a.transpose(0, 2, 3, 1), b.transpose(0, 2, 3, 1)
    if not all(v.flags.c_contiguous and v.flags.aligned for v in (A, B)):
        return a + b
    y = empty(A.shape, np.float32)
    _loaded.c.add(y.size, _pieces(y.size), _threads(y.size), _at(A), _at(B), _at(y))
    return _first(y)


def relu(x: Any) -> tuple[Any, Any]:
    """Reference: reference.relu."""
    if x.size < SMALL or x.ndim != 4:
        return reference.relu(x)
    X = _last(x)
    y, on = empty(X.shape, np.float32), np.empty(X.shape, np.bool_)
    _loaded.c.relu(X.size, _pieces(X.size), _threads(X.size), _at(X), _at(y), _at(on))
    return _first(y), _first(on)


def sgd(w: Any, g: Any, v: Any, lr: Any, momentum: float, weight_decay: float) -> tuple[Any, Any]:
    """Reference: reference.sgd. g is overwritten."""
    if not (all(a.dtype == np.float32 and a.shape == w.shape and a.flags.c_contiguous and a.flags.aligned
                for a in (w, g, v)) and g.flags.writeable):
        return reference.sgd(w, g, v, lr, momentum, weight_decay)
    new_w = np.empty_like(w)
    _loaded.c.sgd(w.size, _at(w), _at(g), _at(v), _at(new_w), float(lr), momentum, weight_decay)
    return new_w, g


# ------------------------------------------------------------------------------------- pooling


class _Windows(ctypes.Structure):
    """Mirror the struct Windows of c/pooling.c."""

    _fields_ = [(name, ctypes.c_int64) for name in (
        "images", "height", "width", "channels", "kernel_rows", "kernel_columns", "stride_rows", "stride_columns",
        "top", "left", "rows", "columns")]


def _windows(shape: Sequence[int], kernel: Pair, stride: Pair, padding: Pair) -> tuple[Any, Pair, int, int]:
    """Return (the windows for C, rows and columns of y, number of blocks, threads)."""
    N, C, H, W = shape
    out = output_size((H, W), kernel, stride, padding)
    elements = N * C * out[0] * out[1] * kernel[0] * kernel[1]
    return _Windows(N, H, W, C, *kernel, *stride, *padding, *out), out, min(N, 64), _threads(elements)


def max_pool2d(x: Any, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = ONE) -> tuple[Any, Any]:
    """Reference: reference.max_pool2d. The winner's number is kept in a byte where that is enough."""
    if kernel[0] * kernel[1] > 256 or dilation != ONE:
        return blocked.max_pool2d(x, kernel, stride, padding, dilation)
    windows, out, blocks, threads = _windows(x.shape, kernel, stride, padding)
    X = _last(x)
    y = empty((len(x), *out, x.shape[1]), np.float32)
    winner = np.empty(y.shape, np.uint8)
    _loaded.c.max_pool2d(ctypes.addressof(windows), blocks, threads, _at(X), _at(y), _at(winner))
    return _first(y), winner


def max_pool2d_backward(g: Any, winner: Any, shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair,
                        dilation: Pair = ONE) -> Any:
    """Reference: reference.max_pool2d_backward."""
    if winner.dtype != np.uint8 or dilation != ONE:
        return blocked.max_pool2d_backward(g, winner, shape, kernel, stride, padding, dilation)
    windows, out, blocks, threads = _windows(shape, kernel, stride, padding)
    G = _last(_of_shape(g, (*shape[:2], *out), "g"))
    _of_shape(winner, G.shape, "winner")
    winner = np.ascontiguousarray(winner)
    gx = empty((shape[0], *shape[2:], shape[1]), np.float32)
    _loaded.c.max_pool2d_backward(ctypes.addressof(windows), blocks, threads, _at(G), _at(winner), _at(gx))
    return _first(gx)


def avg_pool2d(x: Any, kernel: Pair, stride: Pair, padding: Pair) -> Any:
    """Reference: reference.avg_pool2d."""
    windows, out, blocks, threads = _windows(x.shape, kernel, stride, padding)
    X, y = _last(x), empty((len(x), *out, x.shape[1]), np.float32)
    _loaded.c.avg_pool2d(ctypes.addressof(windows), blocks, threads, _at(X), _at(y))
    return _first(y)


def avg_pool2d_backward(g: Any, shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair) -> Any:
    """Reference: reference.avg_pool2d_backward."""
    windows, out, blocks, threads = _windows(shape, kernel, stride, padding)
    G = _last(_of_shape(g, (*shape[:2], *out), "g"))
    gx = empty((shape[0], *shape[2:], shape[1]), np.float32)
    _loaded.c.avg_pool2d_backward(ctypes.addressof(windows), blocks, threads, _at(G), _at(gx))
    return _first(gx)


# ----------------------------------------------------------------------- shortcut without weights


def _check_shortcut(channels: int, wide: int, stride: int) -> None:
    if wide < channels or stride < 1:
        raise ValueError(f"native kernels: expected at least {channels} channels and a stride from 1, got {wide} and "
                         f"{stride}")


def shortcut(x: Any, stride: int, channels: int, pad: str) -> Any:
    """Reference: reference.shortcut."""
    N, C, H, W = x.shape
    _check_shortcut(C, channels, stride)
    X, y = _last(x), empty((N, -(-H // stride), -(-W // stride), channels), np.float32)
    before = (channels - C) // 2 if pad == "both" else 0
    _loaded.c.shortcut(N, H, W, C, stride, channels, before, min(N, 64), _threads(X.size), _at(X), _at(y))
    return _first(y)


def shortcut_backward(g: Any, shape: tuple[int, ...], stride: int, pad: str) -> Any:
    """Reference: reference.shortcut_backward."""
    N, C, H, W = shape
    channels = g.shape[1]
    _check_shortcut(C, channels, stride)
    G = _last(_of_shape(g, (N, channels, -(-H // stride), -(-W // stride)), "g"))
    gx = empty((N, H, W, C), np.float32)
    before = (channels - C) // 2 if pad == "both" else 0
    _loaded.c.shortcut_backward(N, H, W, C, stride, channels, before, min(N, 64), _threads(gx.size), _at(G), _at(gx))
    return _first(gx)
