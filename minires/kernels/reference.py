"""This module has the kernels in textbook form, for NumPy and CuPy arrays. Every faster version must equal them.

Notation: x (N, C, H, W) input, w (O, C, kh, kw) weights, y (N, O, Ho, Wo) output, g = dL/dy.
`kernel`, `stride`, `padding` and `dilation` are pairs (vertical, horizontal). With dilation d, the elements of a window
are d pixels apart. `groups` divides the channels of a convolution into groups of equal size that do not meet: then w is
(O, C/groups, kh, kw).

All arguments and results have the shape (N, C, H, W). In memory the channel comes first, (C, N, H, W). A convolution
is then ONE matrix product, whose result already is the next activation, and the statistics of a channel are sums over
contiguous memory. `x.transpose(1, 0, 2, 3)` changes between the two views without a copy.
"""
from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import device

Pair = tuple[int, int]
ONE = (1, 1)


# ------------------------------------------------------------------------------------ addition

def add(a: Any, b: Any) -> Any:
    """Return a + b for arrays of one shape: a shortcut and its branch, or the two gradients of a value used twice."""
    return a + b


# ------------------------------------------------------------------------------------- windows

def output_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = ONE) -> Pair:
    """Return (Ho, Wo), the number of windows that fit. Rows and columns that do not fill a window are left over.

    Raises ValueError if not even one window fits, or if a number is too small.
    """
    if min(*kernel, *stride, *dilation) < 1 or min(padding) < 0:
        raise ValueError(f"windows: expected kernel >= 1, stride >= 1, padding >= 0 and dilation >= 1, got kernel "
                         f"{kernel}, stride {stride}, padding {padding}, dilation {dilation}")
    span = extent(kernel, dilation)
    out = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, span, stride, padding, strict=True))
    if min(out) < 1:
        dilated = "" if dilation == ONE else f" with dilation {dilation}"
        raise ValueError(f"windows: a kernel of {kernel[0]}x{kernel[1]}{dilated} is larger than the input of {size[0]}x"
                         f"{size[1]} padded by {padding}; use a smaller kernel or more padding")
    return out[0], out[1]


def extent(kernel: Pair, dilation: Pair) -> Pair:
    """Return the rows and columns that a window spans: d (k - 1) + 1 with k elements that are d pixels apart."""
    return dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1


def windows(kernel: Pair, stride: Pair, out: Pair, dilation: Pair = ONE) -> Iterator[tuple[int, int, Any]]:
    """Yield (i, j, index): `index` selects element (i, j) of every window from a padded array."""
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            h, w = i * dilation[0], j * dilation[1]
            yield i, j, (..., slice(h, h + stride[0] * out[0], stride[0]), slice(w, w + stride[1] * out[1], stride[1]))


def pad2d(x: Any, padding: Pair, value: float = 0.0) -> Any:
    """Pad (..., H, W) to (..., H + 2 ph, W + 2 pw) with a border of `value`."""
    (ph, pw), (H, W) = padding, x.shape[-2:]
    out = device.of(x).full((*x.shape[:-2], H + 2 * ph, W + 2 * pw), value, x.dtype)
    out[..., ph:ph + H, pw:pw + W] = x
    return out


def crop2d(x: Any, padding: Pair) -> Any:
    """Drop the border. This is the transpose of pad2d."""
    (ph, pw), (H, W) = padding, x.shape[-2:]
    return x[..., ph:H - ph, pw:W - pw]  # not [p:-p], which is empty for p = 0


# --------------------------------------------------------------------------------- convolution

def matmul(a: Any, b: Any) -> Any:
    """Multiply (..., n, k) by (..., k, m) -> (..., n, m). Leading axes broadcast."""
    return a @ b


def im2col(x: Any, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = ONE) -> Any:
    """Return the windows of the padded input as columns: (N, C, H, W) -> (C*kh*kw, N*Ho*Wo)."""
    N, C, H, W = x.shape
    out = output_size((H, W), kernel, stride, padding, dilation)
    x = pad2d(x.transpose(1, 0, 2, 3), padding)
    cols = device.of(x).empty((C, *kernel, N, *out), x.dtype)
    for i, j, at in windows(kernel, stride, out, dilation):
        cols[:, i, j] = x[at]
    return cols.reshape(C * kernel[0] * kernel[1], -1)


def col2im(cols: Any, shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = ONE) -> Any:
    """Compute the transpose of im2col: (C*kh*kw, N*Ho*Wo) -> (N, C, H, W).

    The loop is that of im2col with the two sides of the assignment swapped. The = becomes += because windows overlap.
    """
    N, C, H, W = shape
    out = output_size((H, W), kernel, stride, padding, dilation)
    cols = cols.reshape(C, *kernel, N, *out)
    x = device.of(cols).zeros((C, N, H + 2 * padding[0], W + 2 * padding[1]), cols.dtype)
    for i, j, at in windows(kernel, stride, out, dilation):
        x[at] += cols[:, i, j]
    return crop2d(x, padding).transpose(1, 0, 2, 3)


def by_group(rows: Any, groups: int) -> Any:
    """Return a matrix (groups*n, k) as one matrix for each group, (groups, n, k), or the matrix itself if there is one.

    Output and input channels come first in W, X_col and G, so the rows of a group are adjacent in all three.
    """
    return rows if groups == 1 else rows.reshape(groups, -1, rows.shape[1])


def conv2d(x: Any, w: Any, stride: Pair, padding: Pair, dilation: Pair = ONE, groups: int = 1) -> Any:
    """Return the cross-correlation of x with w, which deep learning calls convolution:

        Y = W X_col      (O, N*Ho*Wo) = (O, C*kh*kw) (C*kh*kw, N*Ho*Wo)          for each group
    """
    out = output_size(x.shape[2:], w.shape[2:], stride, padding, dilation)
    cols = im2col(x, w.shape[2:], stride, padding, dilation)
    y = by_group(w.reshape(len(w), -1), groups) @ by_group(cols, groups)
    return y.reshape(len(w), len(x), *out).transpose(1, 0, 2, 3)


def conv2d_backward(g: Any, x: Any, w: Any, stride: Pair, padding: Pair, need_x: bool = True, need_w: bool = True,
                    dilation: Pair = ONE, groups: int = 1) -> tuple[Any, Any]:
    """Return (dL/dx, dL/dw), with None for a gradient that is not needed. Both follow from the matrix product:

        dL/dW = G X_col^T          dL/dx = col2im(W^T G)          for each group

    X_col is built again, because keeping it from the forward pass would take kh*kw times the memory of x.
    """
    geometry = w.shape[2:], stride, padding, dilation
    g = by_group(g.transpose(1, 0, 2, 3).reshape(len(w), -1), groups)
    gx = gw = None
    if need_w:
        gw = (g @ by_group(im2col(x, *geometry), groups).swapaxes(-1, -2)).reshape(w.shape)
    if need_x:
        gcols = by_group(w.reshape(len(w), -1), groups).swapaxes(-1, -2) @ g
        gx = col2im(gcols.reshape(-1, gcols.shape[-1]), x.shape, *geometry)
    return gx, gw


# ---------------------------------------------------------------------------------- batch norm

def per_channel(v: Any, ndim: int) -> Any:
    """Reshape (C,) to (1, C, 1, ..., 1), which broadcasts along axis 1 of an array of `ndim` dimensions."""
    return v.reshape((1, -1) + (1,) * (ndim - 2))


def batch_norm(x: Any, gamma: Any, beta: Any, eps: float) -> tuple[Any, Any, Any, Any]:
    """Normalise every channel over all other axes (Ioffe & Szegedy 2015, Algorithm 1):

        y = gamma xhat + beta,    xhat = (x - mean) / sqrt(var + eps)

    Returns y, the mean (C,) and biased variance (C,) of the batch, and what backward needs. The variance is computed
    as the mean of squared deviations, because E[x^2] - mean^2 loses all digits when |mean| >> std.
    """
    axes = (0, *range(2, x.ndim))
    mean = x.mean(axes)
    centred = x - per_channel(mean, x.ndim)
    var = (centred * centred).mean(axes)
    inv = (var + eps) ** -0.5
    xhat = centred * per_channel(inv, x.ndim)
    y = xhat * per_channel(gamma, x.ndim) + per_channel(beta, x.ndim)
    return y, mean, var, (xhat, inv)


def batch_norm_backward(g: Any, gamma: Any, saved: Any) -> tuple[Any, Any, Any]:
    """Return (dL/dx, dL/dgamma, dL/dbeta):

        dL/dx = gamma / sqrt(var + eps) * (g - mean(g) - xhat * mean(g * xhat))

    The two subtracted terms are the gradients through mean and var, which also depend on x.
    """
    xhat, inv = saved
    axes, m = (0, *range(2, g.ndim)), g.size // g.shape[1]
    gbeta, ggamma = g.sum(axes), (g * xhat).sum(axes)
    gx = (g - per_channel(gbeta / m, g.ndim) - xhat * per_channel(ggamma / m, g.ndim)) \
        * per_channel(gamma * inv, g.ndim)
    return gx, ggamma, gbeta


def batch_norm_eval(x: Any, gamma: Any, beta: Any, mean: Any, var: Any, eps: float) -> tuple[Any, Any]:
    """Return y, normalised by given statistics instead of those of the batch, and what backward needs."""
    inv = (var + eps) ** -0.5
    xhat = (x - per_channel(mean, x.ndim)) * per_channel(inv, x.ndim)
    return xhat * per_channel(gamma, x.ndim) + per_channel(beta, x.ndim), (xhat, inv)


def batch_norm_eval_backward(g: Any, gamma: Any, saved: Any) -> tuple[Any, Any, Any]:
    """Return what batch_norm_backward returns, for constant statistics: nothing is subtracted in dL/dx."""
    xhat, inv = saved
    axes = (0, *range(2, g.ndim))
    return g * per_channel(gamma * inv, g.ndim), (g * xhat).sum(axes), g.sum(axes)


def running_statistics(old_mean: Any, old_var: Any, mean: Any, var: Any, momentum: float, count: int) \
        -> tuple[Any, Any]:
    """Return the running mean and variance, moved by `momentum` towards the mean and UNBIASED variance of a batch.

    `mean` and `var` are the mean and the BIASED variance of the batch over `count` values. All are (C,).
    """
    var = var * (count / (count - 1))
    return (1 - momentum) * old_mean + momentum * mean, (1 - momentum) * old_var + momentum * var


def relu(x: Any) -> tuple[Any, Any]:
    """Return max(x, 0), and where x > 0. NaN stays NaN, so that errors remain visible."""
    on = x > 0
    return device.of(x).maximum(x, 0), on


STEPS, REACH = 64, 39  # of the table below: its points for each unit, and its last point, whose P is 1 - 1e-333


@functools.cache
def _cdf_table(xp: Any, dtype: Any) -> Any:
    points = range(-STEPS * REACH, STEPS * REACH + 1)
    return xp.asarray(np.array([0.5 * math.erfc(-k / STEPS / math.sqrt(2)) for k in points], dtype))


def normal_cdf(x: Any) -> Any:
    """Return P(Z <= x) for a standard normal Z, in x's dtype, with an absolute error below 1e-15 in
    float64. NumPy has no error function.

    A table has P at the points c = k / STEPS. Around the nearest point, with d = x - c and the density p(c), five terms
    of Taylor's series give the rest: |d| <= 1/128, so the sixth is below 1e-15.
    """
    xp = device.of(x)
    near = xp.where(x == x, xp.clip(x, -REACH, REACH), 0)
    k = xp.rint(near * STEPS)
    c = k / STEPS
    d = xp.clip(x, -REACH, REACH) - c  # NaN stays NaN
    density = xp.exp(c * c * -0.5) * (1 / math.sqrt(2 * math.pi))
    series = (d - c * d**2 / 2 + (c**2 - 1) * d**3 / 6 - (c**3 - 3 * c) * d**4 / 24
              + (c**4 - 6 * c**2 + 3) * d**5 / 120)
    return _cdf_table(xp, x.dtype)[k.astype(np.int32) + STEPS * REACH] + density * series


def batch_norm_relu(x: Any, gamma: Any, beta: Any, eps: float, skip: Any = None) -> tuple[Any, Any, Any, Any]:
    """Compute relu(batch_norm(x)) or relu(batch_norm(x) + skip), the two operations that follow the convolutions of a
    residual block, in one kernel. Returns what batch_norm returns, with y after the ReLU."""
    h, mean, var, saved = batch_norm(x, gamma, beta, eps)
    y, on = relu(h if skip is None else h + skip)
    return y, mean, var, (saved, on)


def batch_norm_relu_backward(g: Any, gamma: Any, saved: Any) -> tuple[Any, Any, Any, Any]:
    """Return (dL/dx, dL/dgamma, dL/dbeta, dL/dskip). dL/dskip is g after the mask of the ReLU, because an addition
    passes the same gradient to both of its terms."""
    saved, on = saved
    g = g * on
    return *batch_norm_backward(g, gamma, saved), g


# ------------------------------------------------------------------------------------- pooling

def max_pool2d(x: Any, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = ONE) -> tuple[Any, Any]:
    """Return the maximum of every window, and the number of its element among the kh*kw. The first wins a tie.

    NaN wins over every number. The padding counts as -inf, so it never wins.
    """
    xp, out = device.of(x), output_size(x.shape[2:], kernel, stride, padding, dilation)
    x = pad2d(x, padding, -float("inf"))
    best = winner = None
    for i, j, at in windows(kernel, stride, out, dilation):
        v = x[at]
        if best is None:
            best, winner = v.copy(), xp.zeros(v.shape, xp.int32)
        else:
            better = (v > best) | (v != v)
            best = xp.where(better, v, best)
            winner = xp.where(better, xp.int32(i * kernel[1] + j), winner)
    return best, winner


def max_pool2d_backward(g: Any, winner: Any, shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair,
                        dilation: Pair = ONE) -> Any:
    """Return dL/dx: the gradient of each window goes to the element that was its maximum."""
    return _spread(lambda i, j: g * (winner == i * kernel[1] + j), g, shape, kernel, stride, padding, dilation)


def avg_pool2d(x: Any, kernel: Pair, stride: Pair, padding: Pair) -> Any:
    """Return the mean of every window over its kh*kw elements, including the zeros of the padding."""
    out = output_size(x.shape[2:], kernel, stride, padding)
    x = pad2d(x, padding)
    total = sum(x[at] for _, _, at in windows(kernel, stride, out))
    return total * (1 / (kernel[0] * kernel[1]))


def avg_pool2d_backward(g: Any, shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair) -> Any:
    """Return dL/dx: the gradient of each window is divided equally among its elements."""
    share = g * (1 / (kernel[0] * kernel[1]))
    return _spread(lambda i, j: share, g, shape, kernel, stride, padding)


def _spread(part: Any, g: Any, shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair,
            dilation: Pair = ONE) -> Any:
    """Add part(i, j), the gradient of element (i, j) of every window, to the places these elements came from."""
    gx = device.of(g).zeros((*shape[:2], shape[2] + 2 * padding[0], shape[3] + 2 * padding[1]), g.dtype)
    for i, j, at in windows(kernel, stride, g.shape[2:], dilation):
        gx[at] += part(i, j)
    return crop2d(gx, padding)


# ----------------------------------------------------------------------- shortcut without weights

def shortcut(x: Any, stride: int, channels: int, pad: str) -> Any:
    """Return option A of He et al. 2015, section 3.3: every stride-th pixel, with zeros in the new channels.

    x: (N, C, H, W) -> (N, channels, ceil(H/stride), ceil(W/stride)).
    pad: "end" puts the new channels after the old channels; "both" puts half before and half after. Published networks
        use either.
    """
    x = x[:, :, ::stride, ::stride].transpose(1, 0, 2, 3)
    before = (channels - len(x)) // 2 if pad == "both" else 0
    y = device.of(x).zeros((channels, *x.shape[1:]), x.dtype)
    y[before:before + len(x)] = x
    return y.transpose(1, 0, 2, 3)


def shortcut_backward(g: Any, shape: tuple[int, ...], stride: int, pad: str) -> Any:
    """Return dL/dx: the gradient goes to the pixels and channels that were selected. For all others it is zero."""
    N, C, H, W = shape
    before = (g.shape[1] - C) // 2 if pad == "both" else 0
    gx = device.of(g).zeros((C, N, H, W), g.dtype).transpose(1, 0, 2, 3)
    gx[:, :, ::stride, ::stride] = g[:, before:before + C]
    return gx


# ----------------------------------------------------------------------- softmax cross-entropy

def log_softmax(z: Any, axis: int) -> Any:
    """Return z - log(sum(exp(z))) along `axis`. The maximum is subtracted first, so that exp cannot overflow."""
    xp = device.of(z)
    z = z - z.max(axis, keepdims=True)
    return z - xp.log(xp.exp(z).sum(axis, keepdims=True))


def cross_entropy(z: Any, labels: Any) -> tuple[Any, Any]:
    """Return the mean over the batch of -log softmax(z)[label], for logits z (N, K), and what backward needs."""
    log_p = log_softmax(z, 1)
    return -log_p[device.of(z).arange(len(z)), labels].mean(), log_p


def cross_entropy_backward(g: Any, log_p: Any, labels: Any) -> Any:
    """Return dL/dz = (softmax(z) - one_hot(labels)) / N, times the gradient g of the loss."""
    xp = device.of(log_p)
    gz = xp.exp(log_p)
    gz[xp.arange(len(gz)), labels] -= 1
    return gz * (g / len(gz))


# ----------------------------------------------------------------------------------- the update

def sgd(w: Any, g: Any, v: Any, lr: Any, momentum: float, weight_decay: float) -> tuple[Any, Any]:
    """Return (new w, new v) for weights w, gradient g and velocity v, all of one shape. Overwrites g.

        v = momentum v + (g + weight_decay w)          w = w - lr v
    """
    if weight_decay:
        g += weight_decay * w
    if momentum:
        g += momentum * v
    return w - lr * g, g


def copy_all(pairs: list[tuple[Any, Any]], if_finite: Any = None) -> None:
    """Copy the first array of every pair into the second, which has the same shape and dtype.

    If the one number in the array `if_finite` is not finite, nothing is copied. A GPU decides this without the host.
    """
    for source, target in pairs:
        xp = device.of(source, target)
        target[...] = source if if_finite is None else xp.where(xp.isfinite(if_finite), source, target)


def join(arrays: list[Any]) -> Any:
    """Join the elements of all arrays, one array after the other, in one long array."""
    return device.of(*arrays).concatenate([a.reshape(-1) for a in arrays])
