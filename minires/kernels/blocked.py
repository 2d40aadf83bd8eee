"""This module has the kernels for float32 on the CPU: the arithmetic of reference.py, arranged for caches and cores.

    channels last   An array of shape (N, C, H, W) is stored as (N, H, W, C), so the shape is a transposed view. The
                    channels of a pixel are adjacent, so one copy moves them all, and the rows of a matrix product
                    are pixels. Inputs may have any memory layout; results are channels last.
    blocks          A kernel processes the batch in blocks of a few images. The blocks are so small that the data of
                    a block stays in the second-level cache from the first pass to the last.
    threads         A few threads share the blocks, and each matrix product runs on one thread. A sum over blocks is
                    kept per block and added in the order of the blocks, never in the order in which threads finish.
                    So the same input and thread count give the same bits (parallel.py).

reference.py defines every kernel; the docstrings here name that definition. Windows with dilation come from there, too.
"""
from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from . import grouped, reference
from .parallel import LARGE, Block, Blocks, blocks_of, empty, longest, share
from .reference import (
    ONE,
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
    running_statistics,
    sgd,
    windows,
)

__all__ = [
    "add", "avg_pool2d", "avg_pool2d_backward", "batch_norm", "batch_norm_backward", "batch_norm_eval",
    "batch_norm_eval_backward", "batch_norm_relu", "batch_norm_relu_backward", "conv2d", "conv2d_backward",
    "copy_all", "cross_entropy", "cross_entropy_backward", "join", "log_softmax", "matmul", "max_pool2d",
    "max_pool2d_backward", "output_size", "per_channel", "relu", "running_statistics", "sgd", "shortcut",
    "shortcut_backward",
]

# --------------------------------------------------------------------------------- convolution
#
# im2col copies every pixel kh*kw times. Here every pixel is copied kw times: for every column of the output and for
# ALL image rows of the padded input, `rows` holds the kw horizontal neighbours next to each other:
#
#     rows[n, r, c] = padded[n, r, sw*c : sw*c + kw]               (Wo, kw*C) for every image row r
#
# The kh vertical neighbours need no copy. Kernel row i meets the image rows i, i + sh, i + 2 sh, ... These are a slice
# `rows_i` of the same memory, because image rows with the same remainder by sh are stored next to each other. So a
# convolution is the sum of kh products with shifted slices:
#
#     y = sum over i of rows_i @ w_i               (n, Ho, Wo, O) = (n, Ho, Wo, kw*C) (kw*C, O)
#
# NumPy lets other threads run during an operation and must wait for them afterwards. So the operations here are few
# and large: the product of rows_i, for all images of a block, is one matmul.

SMALL_PRODUCT = 1_000_000  # OpenBLAS does not repack the operands of a product with up to this many multiplications


class _Rows:
    """_Rows builds `rows` of x for one block of images after the other, in the same memory."""

    def __init__(self, x: Any, kernel: Pair, stride: Pair, before: Pair, out: Pair, longest: int):
        """`before` is the padding above and to the left; if it is negative, x is cropped there instead. Below and to
        the right, x is padded or cropped to the size that `out` windows need."""
        (_, C, H, W), (kh, kw), (sh, sw), (Ho, Wo) = x.shape, kernel, stride, out
        self.per_rest = Ho + (kh - 1) // sh  # number of image rows with the same remainder by sh
        height, width = size = sh * self.per_rest, sw * (Wo - 1) + kw
        (of_x_h, at_h), (of_x_w, at_w) = (_overlap(*v) for v in zip((H, W), before, size, strict=True))
        self.kernel, self.stride, self.out, self.length = kernel, stride, out, kw * C
        self.x = x.transpose(0, 2, 3, 1)[:, of_x_h, of_x_w]
        self.padded = np.zeros((longest, height, width, C), x.dtype)
        self.inside = self.padded[:, at_h, at_w]  # the border around it stays zero
        self.memory = np.empty(longest * height * Wo * kw * C, x.dtype)

    def fill(self, at: slice, width: int) -> list[Any]:
        """Copy the images `at` into the padded block, then copy every window row, which is contiguous there.

        Returns rows_i for every i, (n, pieces, pixels, kw*C), for products with matrices of `width` columns. Each piece
        has as many image rows as still make a small product, which is up to 1.7 times as fast. If one image row is
        already too much, there is one piece.
        """
        n, K, (Ho, Wo), (sh, sw) = at.stop - at.start, self.length, self.out, self.stride
        self.inside[:n] = self.x[at]
        item = f"V{K * self.x.itemsize}"  # a window row, declared as one opaque element so that it is copied at once
        image, row, column, _ = self.padded.strides
        shape = n, sh, self.per_rest, Wo
        windows = np.ndarray(shape, item, self.padded, strides=(image, row, sh * row, sw * column))
        self.memory.view(item)[:windows.size].reshape(shape)[...] = windows
        rows = self.memory[:windows.size * K].reshape(n, sh, self.per_rest, Wo, K)
        fit = [d for d in range(1, Ho + 1) if Ho % d == 0 and d * Wo * K * width <= SMALL_PRODUCT]
        pieces = Ho // max(fit, default=Ho)
        return [rows[:, i % sh, i // sh:i // sh + Ho].reshape(n, pieces, -1, K) for i in range(self.kernel[0])]


def _overlap(size: int, before: int, padded: int) -> tuple[slice, slice]:
    """Return which part of an axis of length `size` appears in the padded axis, and where it appears there."""
    start, stop = max(0, before), max(0, before, min(padded, before + size))
    return slice(start - before, stop - before), slice(start, stop)


def _conv(rows: list[Any], taps: Any, y: Any, memory: Any) -> None:
    """Compute y = sum over i of rows_i @ taps[i], for contiguous y (n, Ho, Wo, L). `memory` holds one summand."""
    y = y.reshape(*rows[0].shape[:3], -1)
    summand = memory[:y.size].reshape(y.shape)
    np.matmul(rows[0], taps[0], out=y)
    for rows_i, tap in zip(rows[1:], taps[1:], strict=True):
        np.matmul(rows_i, tap, out=summand)
        y += summand


def _outer(a: Any, rows: list[Any]) -> Any:
    """Return a^T rows_i, summed over all pixels, as (kh, L, kw*C), for a (n, Ho, Wo, L)."""
    a = np.ascontiguousarray(a).reshape(*rows[0].shape[:3], -1).swapaxes(2, 3)
    return np.array([np.matmul(a, rows_i).sum((0, 1)) for rows_i in rows])


def _conv_blocks(images: int, w: Any, out: Pair) -> Blocks:
    """Return the blocks for a convolution to `out`: `rows` and two partial results, which are read repeatedly, fit the
    cache. A block has at least as many bytes as the weights, because it reads all of them and sums their gradient.
    """
    O, C, kh, kw = w.shape
    need = w.itemsize * (out[0] + kh) * out[1] * (kw * C + 2 * O)
    return blocks_of(images, need, -(-w.nbytes // need))


def conv2d(x: Any, w: Any, stride: Pair, padding: Pair, dilation: Pair = ONE, groups: int = 1) -> Any:
    """Compute reference.conv2d."""
    if dilation != ONE:
        return reference.conv2d(x, w, stride, padding, dilation, groups)
    if groups != 1:
        return grouped.conv2d(conv2d, x, w, groups, stride, padding)
    O, _, kh, kw = w.shape
    out = output_size(x.shape[2:], (kh, kw), stride, padding)
    y = empty((len(x), *out, O), x.dtype)
    taps = np.ascontiguousarray(w.transpose(2, 3, 1, 0)).reshape(kh, -1, O)
    blocks = _conv_blocks(len(x), w, out)

    def work(mine: Iterator[Block]) -> None:
        rows = _Rows(x, (kh, kw), stride, padding, out, longest(blocks))
        memory = np.empty(longest(blocks) * y[0].size, x.dtype)
        for _, at in mine:
            _conv(rows.fill(at, O), taps, y[at], memory)

    share(work, blocks)
    return y.transpose(0, 3, 1, 2)


def conv2d_backward(g: Any, x: Any, w: Any, stride: Pair, padding: Pair, need_x: bool = True, need_w: bool = True,
                    dilation: Pair = ONE, groups: int = 1) -> tuple[Any, Any]:
    """Compute reference.conv2d_backward. With stride 1 both gradients come from the same `rows` of g."""
    if dilation != ONE:
        return reference.conv2d_backward(g, x, w, stride, padding, need_x, need_w, dilation, groups)
    if groups != 1:
        return grouped.conv2d_backward(conv2d_backward, g, x, w, groups, stride, padding, need_x, need_w)
    gx = gw = None
    if need_x:
        gx, gw = _gradient_of_input(g, x, w, stride, padding, need_w and stride == (1, 1))
    if need_w and gw is None:
        gw = _gradient_of_weights(g, x, w, stride, padding)
    return gx, gw


def _gradient_of_weights(g: Any, x: Any, w: Any, stride: Pair, padding: Pair) -> Any:
    """Compute dL/dw_i = g^T rows_i, with the `rows` of the forward pass, which are built again."""
    (O, C, kh, kw), out = w.shape, g.shape[2:]
    G = g.transpose(0, 2, 3, 1)
    blocks = _conv_blocks(len(x), w, out)
    sums: list[Any] = [None] * len(blocks)

    def work(mine: Iterator[Block]) -> None:
        rows = _Rows(x, (kh, kw), stride, padding, out, longest(blocks))
        for k, at in mine:
            sums[k] = _outer(G[at], rows.fill(at, O))

    share(work, blocks)
    return np.ascontiguousarray(_in_order(sums).reshape(kh, O, kw, C).transpose(1, 3, 0, 2))


def _in_order(sums: list[Any]) -> Any:
    """Add the sums of the blocks from the first to the last, whichever was ready first."""
    return functools.reduce(np.add, sums)


def _gradient_of_input(g: Any, x: Any, w: Any, stride: Pair, padding: Pair, need_w: bool) -> tuple[Any, Any]:
    """Compute dL/dx as a convolution of g, with inputs and outputs exchanged and the kernel rotated by 180 degrees.

    Every pixel of x gathers from the windows that contained it, so nothing is scattered. For one image axis, with p
    the padding,

        dL/dx[s q + a - p] = sum over t of g[q - t] w[a + s t]              0 <= a < s, 0 <= t < ceil(k/s)

    So one window of ceil(k/s) elements of g, which is the same for all a, yields the next s elements of x. For columns
    one product does this, with sw*C columns. For rows there is one product for each a.

    With stride 1 the same `rows` also give dL/dw in reverse order, dL/dw_i = x^T rows_(kh-1-i), so one gather serves
    both gradients.
    """
    (N, C, H, W), (O, _, kh, kw), (sh, sw), (ph, pw) = x.shape, w.shape, stride, padding
    th, tw = -(-kh // sh), -(-kw // sw)
    q, u = ph // sh, pw // sw  # q is the first q with a row in x, and u is the same for columns
    Q, U = (ph + H - 1) // sh - q + 1, (pw + W - 1) // sw - u + 1
    turned = np.zeros((O, C, th * sh, tw * sw), w.dtype)  # zeros where the stride does not divide the kernel
    turned[:, :, :kh, :kw] = w
    turned = turned.reshape(O, C, th, sh, tw, sw)[:, :, ::-1, :, ::-1].transpose(3, 2, 4, 0, 5, 1)
    turned = turned.reshape(sh, th, tw * O, sw * C)

    X, gx = x.transpose(0, 2, 3, 1), empty((N, H, W, C), x.dtype)
    blocks = _conv_blocks(N, turned[0].reshape(th, tw, O, sw * C).transpose(3, 2, 0, 1), (Q, U))
    sums: list[Any] = [None] * len(blocks)

    def work(mine: Iterator[Block]) -> None:
        builder = _Rows(g, (th, tw), (1, 1), (th - 1 - q, tw - 1 - u), (Q, U), longest(blocks))
        memory = np.empty(longest(blocks) * Q * U * sw * C, x.dtype)
        yields = None if stride == (1, 1) else np.empty((longest(blocks), Q, U * sw, C), x.dtype)
        for k, at in mine:
            rows = builder.fill(at, sw * C)
            for a in range(sh):
                first = (a - ph) % sh  # the first row of x that this a yields; `skip` is its row in the product
                skip, count = (first + ph) // sh - q, len(range(first, H, sh))
                t = sum(a + sh * t >= kh for t in range(th))  # number of taps beyond the kernel
                if t == th:
                    gx[at, first::sh] = 0
                elif yields is None:
                    _conv(rows, turned[a], gx[at], memory)
                else:
                    pixels = yields[:at.stop - at.start]
                    _conv(rows[t:], turned[a, t:], pixels, memory)
                    gx[at, first::sh] = pixels[:, skip:skip + count, pw - sw * u:pw - sw * u + W]
            if need_w:
                sums[k] = _outer(X[at], rows)

    share(work, blocks)
    gw = None
    if need_w:
        gw = np.ascontiguousarray(_in_order(sums).reshape(kh, C, kw, O)[::-1, :, ::-1].transpose(3, 1, 0, 2))
    return gx.transpose(0, 3, 1, 2), gw


# ---------------------------------------------------------------------------------- batch norm
#
# An activation is viewed as lines, (pixels/k, k*C): each line has all channels of k pixels. A vector of C values is
# tiled to one line. Lines are long, because NumPy passes shorter lines through a buffer, which takes half as much time
# again. A block is a number of lines. The cache only needs to hold what is written, because each input is read once.

NUMPY_BUFFER = 8192  # values; the default of np.getbufsize()


@functools.cache
def _pixels_per_line(pixels: int, C: int) -> int:
    """Return a divisor of `pixels`: the smallest that fills NumPy's buffer, or the largest that does not."""
    full = -(-NUMPY_BUFFER // C)
    enough = (k for k in range(full, min(8 * full, pixels) + 1) if pixels % k == 0)
    return next(enough, 0) or max(k for k in range(1, min(full, pixels + 1)) if pixels % k == 0)


def _lines(x: Any) -> Any:
    """Return (N, C, ...) as (lines, k*C): a view if x is channels last, else a copy."""
    C = x.shape[1]
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)).reshape(-1, C * _pixels_per_line(x.size // C, C))


def _image(lines: Any, shape: tuple[int, ...]) -> Any:
    """Invert `_lines` for an array of this shape (N, C, ...)."""
    return np.moveaxis(lines.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


def _line(v: Any, like: Any) -> Any:
    """Tile (C,) to one line (k*C,) in the dtype of `like`."""
    return np.tile(v.astype(like.dtype), like.shape[1] // len(v))


def _short(lines: Any, C: int) -> Any:
    """Return the same values in lines of at most 32 pixels, so that fewer values remain after adding the lines."""
    return lines.reshape(-1, C * math.gcd(lines.shape[1] // C, 32))


def _sum(lines: Any, C: int) -> Any:
    """Return the sums per channel, (C,). BLAS adds lines faster than np.sum; the rest is added in float64."""
    v = _short(lines, C)
    return (np.ones(len(v), v.dtype) @ v).reshape(-1, C).sum(0, dtype=np.float64)


def _dot(a: Any, b: Any, C: int) -> Any:
    """Return the sums of a * b per channel. einsum needs no memory for the products."""
    return np.einsum("rl,rl->l", _short(a, C), _short(b, C)).reshape(-1, C).sum(0, dtype=np.float64)


def _moments(x: Any, C: int) -> tuple[Any, Any]:
    """Return the mean and the sum of squared deviations of a block, each (C,) in float64.

    sum(x^2) - mean sum(x) is fast but loses digits when |mean| >> std. In that case it is computed again with x - mean.
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
    """Return the mean and variance of all lines: the moments of the blocks, combined as in Chan et al. (1979)."""
    blocks = blocks_of(len(X), X[0].nbytes)
    means, squares = np.empty((2, len(blocks), C))
    sizes = np.array([[X[at].size // C] for at in blocks])

    def work(mine: Iterator[Block]) -> None:
        for k, at in mine:
            means[k], squares[k] = _moments(X[at], C)

    share(work, blocks)
    mean = (sizes * means).sum(0) / sizes.sum()
    return mean, (squares + sizes * (means - mean) ** 2).sum(0) / sizes.sum()


def _normalise(X: Any, gamma: Any, beta: Any, mean: Any, var: Any, eps: float, relu: bool = False,
               skip: Any = None) -> tuple[Any, Any]:
    """Compute gamma (x - mean) / sqrt(var + eps) + beta (+ skip), (relu), on each block while it is in the cache.

    With a = gamma / sqrt(var + eps), the form a x + (beta - a mean) saves a pass. For |mean| >= 10 std this is not
    accurate enough. Then `shift`, the mean in float32, is subtracted first, and only the rest of the mean goes into
    beta.
    """
    shift = mean.astype(X.dtype) if (mean * mean > 100 * var).any() else None
    rest = mean if shift is None else mean - shift
    inv = (var + eps) ** -0.5
    scale, offset = _line(gamma * inv, X), _line(beta - gamma * inv * rest, X)
    shift = None if shift is None else _line(shift, X)
    zero, Y, S = np.zeros_like(offset), empty(X.shape, X.dtype), None if skip is None else _lines(skip)
    blocks = blocks_of(len(X), X[0].nbytes)

    def work(mine: Iterator[Block]) -> None:
        for _, at in mine:
            y = Y[at]
            np.multiply(X[at] if shift is None else np.subtract(X[at], shift, out=y), scale, out=y)
            y += offset
            if S is not None:
                y += S[at]
            if relu:
                np.maximum(y, zero, out=y)

    share(work, blocks)
    return Y, (X, inv, shift, rest)


def _gradient(g: Any, gamma: Any, saved: Any, y: Any = None, keep: bool = False,
              constant: bool = False) -> tuple[Any, Any, Any, Any]:
    """Return (dL/dx, dL/dgamma, dL/dbeta, masked g). With xc = x - shift and rest = mean - shift,

        dL/dgamma = inv (sum(g xc) - rest sum(g))        dL/dx = a g + b xc + c        (a, b, c per channel)

    There are two rounds over the blocks, because a, b and c need the sums over all blocks. If y is given, g is first
    multiplied by y > 0, the mask of the ReLU. With `keep` this product has its own memory, else it uses the memory of
    dL/dx. With `constant` statistics b = c = 0.
    """
    X, inv, shift, rest = saved
    C, G, GX = len(gamma), _lines(g), empty(X.shape, X.dtype)
    masked = G if y is None else empty(X.shape, X.dtype) if keep else GX
    blocks = blocks_of(len(X), 2 * X[0].nbytes)
    sums = np.empty((2, len(blocks), C))

    def gather(mine: Iterator[Block]) -> None:
        for k, at in mine:
            m, xc = masked[at], X[at] if shift is None else X[at] - shift
            if y is not None:
                np.greater(y[at], 0, out=m)
                m *= G[at]
            sums[0, k], sums[1, k] = _sum(m, C), _dot(m, xc, C)

    share(gather, blocks)
    gbeta, ggamma = sums.sum(1)
    ggamma = inv * (ggamma - rest * gbeta)
    a = gamma * inv
    b = -a * inv * ggamma / (X.size // C)
    c = -a * gbeta / (X.size // C) - b * rest
    a_line, b_line, c_line = (_line(v, X) for v in (a, b, c))

    def scatter(mine: Iterator[Block]) -> None:
        memory = np.empty_like(X[:longest(blocks)])
        for _, at in mine:
            gx, t = np.multiply(masked[at], a_line, out=GX[at]), memory[:at.stop - at.start]
            if not constant:
                np.multiply(X[at] if shift is None else np.subtract(X[at], shift, out=t), b_line, out=t)
                gx += t
                gx += c_line

    share(scatter, blocks)
    gskip = _image(masked, g.shape) if keep else None
    return _image(GX, g.shape), ggamma.astype(g.dtype), gbeta.astype(g.dtype), gskip


def batch_norm(x: Any, gamma: Any, beta: Any, eps: float) -> tuple[Any, Any, Any, Any]:
    """Compute reference.batch_norm. Saves x and a few vectors, not xhat."""
    X = _lines(x)
    mean, var = _statistics(X, len(gamma))
    y, saved = _normalise(X, gamma, beta, mean, var, eps)
    return _image(y, x.shape), mean.astype(x.dtype), var.astype(x.dtype), saved


def batch_norm_backward(g: Any, gamma: Any, saved: Any) -> tuple[Any, Any, Any]:
    """Compute reference.batch_norm_backward."""
    return _gradient(g, gamma, saved)[:3]


def batch_norm_eval(x: Any, gamma: Any, beta: Any, mean: Any, var: Any, eps: float) -> tuple[Any, Any]:
    """Compute reference.batch_norm_eval."""
    y, saved = _normalise(_lines(x), gamma, beta, mean.astype(np.float64), var.astype(np.float64), eps)
    return _image(y, x.shape), saved


def batch_norm_eval_backward(g: Any, gamma: Any, saved: Any) -> tuple[Any, Any, Any]:
    """Compute reference.batch_norm_eval_backward."""
    return _gradient(g, gamma, saved, constant=True)[:3]


def batch_norm_relu(x: Any, gamma: Any, beta: Any, eps: float, skip: Any = None) -> tuple[Any, Any, Any, Any]:
    """Compute reference.batch_norm_relu. The mask is y > 0; y is kept in any case, as the input of the next layer."""
    X = _lines(x)
    mean, var = _statistics(X, len(gamma))
    y, saved = _normalise(X, gamma, beta, mean, var, eps, True, skip)
    return _image(y, x.shape), mean.astype(x.dtype), var.astype(x.dtype), (saved, y, skip is not None)


def batch_norm_relu_backward(g: Any, gamma: Any, saved: Any) -> tuple[Any, Any, Any, Any]:
    """Compute reference.batch_norm_relu_backward. The fourth gradient is None if there was no skip."""
    saved, y, skip = saved
    return _gradient(g, gamma, saved, y, keep=skip)


# ------------------------------------------------------------------------------------ addition

def add(a: Any, b: Any) -> Any:
    """Compute reference.add. NumPy adds small arrays, and arrays that are not both channels last."""
    if a.ndim < 2 or a.nbytes < LARGE or a.strides != b.strides or not np.moveaxis(a, 1, -1).flags.c_contiguous:
        return a + b
    A, B = _lines(a), _lines(b)
    Y, blocks = empty(A.shape, A.dtype), blocks_of(len(A), 3 * A[0].nbytes)

    def work(mine: Iterator[Block]) -> None:
        for _, at in mine:
            np.add(A[at], B[at], out=Y[at])

    share(work, blocks)
    return _image(Y, a.shape)


# ------------------------------------------------------------------------------------- pooling

def _padded(x: Any, padding: Pair, value: float) -> Any:
    """Pad (n, H, W, C) to (n, H + 2 ph, W + 2 pw, C) with `value`. Without padding, return x itself."""
    if padding == (0, 0):
        return x
    n, H, W, C = x.shape
    out = np.full((n, H + 2 * padding[0], W + 2 * padding[1], C), value, x.dtype)
    out[:, padding[0]:padding[0] + H, padding[1]:padding[1] + W] = x
    return out


def _taps(kernel: Pair, stride: Pair, out: Pair) -> Iterator[tuple[int, Any]]:
    """Yield (number, index): `index` selects the element with this number of every window from (n, Hp, Wp, C)."""
    for k, (_, _, (_, rows, columns)) in enumerate(windows(kernel, stride, out)):
        yield k, (slice(None), rows, columns)


def max_pool2d(x: Any, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = ONE) -> tuple[Any, Any]:
    """Compute reference.max_pool2d. The number of the winner is stored in one byte if that is enough."""
    if dilation != ONE:
        return reference.max_pool2d(x, kernel, stride, padding, dilation)
    (N, C, H, W), out = x.shape, output_size(x.shape[2:], kernel, stride, padding)
    X, y = x.transpose(0, 2, 3, 1), empty((N, *out, C), x.dtype)
    winner = np.zeros(y.shape, np.uint8 if kernel[0] * kernel[1] <= 256 else np.int32)
    blocks = blocks_of(N, 2 * x.itemsize * C * H * W)

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
                np.add(who, better * np.subtract(k, who), out=who)  # faster than who[better] = k

    share(work, blocks)
    return y.transpose(0, 3, 1, 2), winner


def max_pool2d_backward(g: Any, winner: Any, shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair,
                        dilation: Pair = ONE) -> Any:
    """Compute reference.max_pool2d_backward."""
    if dilation != ONE:
        return reference.max_pool2d_backward(g, winner, shape, kernel, stride, padding, dilation)
    (N, C, H, W), (ph, pw) = shape, padding
    G, gx = g.transpose(0, 2, 3, 1), empty((N, H, W, C), g.dtype)
    blocks = blocks_of(N, 3 * gx[0].nbytes)

    def work(mine: Iterator[Block]) -> None:
        for _, at in mine:
            padded = np.zeros((at.stop - at.start, H + 2 * ph, W + 2 * pw, C), g.dtype)
            for k, tap in _taps(kernel, stride, g.shape[2:]):
                padded[tap] += G[at] * (winner[at] == k)
            gx[at] = padded[:, ph:ph + H, pw:pw + W]

    share(work, blocks)
    return gx.transpose(0, 3, 1, 2)


def avg_pool2d(x: Any, kernel: Pair, stride: Pair, padding: Pair) -> Any:
    """Compute reference.avg_pool2d. Image rows are added first, then columns: kh + kw additions, not kh*kw."""
    (Ho, Wo), (sh, sw) = output_size(x.shape[2:], kernel, stride, padding), stride
    x = _padded(x.transpose(0, 2, 3, 1), padding, 0)
    rows = functools.reduce(np.add, (x[:, i:i + sh * Ho:sh] for i in range(kernel[0])))
    total = functools.reduce(np.add, (rows[:, :, j:j + sw * Wo:sw] for j in range(kernel[1])))
    return (total * (1 / (kernel[0] * kernel[1]))).transpose(0, 3, 1, 2)


def avg_pool2d_backward(g: Any, shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair) -> Any:
    """Compute reference.avg_pool2d_backward. The gradient is spread over columns, then over image rows."""
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
    """Compute reference.shortcut. The result is channels last, which is the fast layout for `add`."""
    x = x.transpose(0, 2, 3, 1)[:, ::stride, ::stride]
    before = (channels - x.shape[3]) // 2 if pad == "both" else 0
    y = empty((*x.shape[:3], channels), x.dtype)
    y[...] = 0
    y[..., before:before + x.shape[3]] = x
    return y.transpose(0, 3, 1, 2)


def shortcut_backward(g: Any, shape: tuple[int, ...], stride: int, pad: str) -> Any:
    """Compute reference.shortcut_backward."""
    N, C, H, W = shape
    before = (g.shape[1] - C) // 2 if pad == "both" else 0
    gx = empty((N, H, W, C), g.dtype)
    gx[...] = 0
    gx[:, ::stride, ::stride] = g.transpose(0, 2, 3, 1)[..., before:before + C]
    return gx.transpose(0, 3, 1, 2)
