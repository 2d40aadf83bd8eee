"""The kernels in textbook form: what every faster version must equal. Valid on NumPy and CuPy arrays.

Notation: x (N, C, H, W) input, w (O, C, kh, kw) weights, y (N, O, Ho, Wo) output, g = dL/dy.
`kernel`, `stride` and `padding` are pairs (vertical, horizontal).

Shapes are (N, C, H, W) at the surface. In memory the channel comes first, (C, N, H, W): a convolution
is then ONE matrix product whose result already is the next activation, and a channel's statistics run
over contiguous memory. `x.transpose(1, 0, 2, 3)` changes between the two views without a copy.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .. import device

Pair = tuple[int, int]


# ------------------------------------------------------------------------------------ addition

def add(a: Any, b: Any) -> Any:
    """a + b, of one shape: where a shortcut meets its branch, and the two gradients of a value that was used twice."""
    return a + b


# ------------------------------------------------------------------------------------- windows

def output_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Pair:
    """(Ho, Wo): how many windows fit. Rows and columns that do not fill a window are left over.

    ValueError if not even one window fits.
    """
    if min(kernel) < 1 or min(stride) < 1 or min(padding) < 0:
        raise ValueError(f"windows: expected kernel >= 1, stride >= 1 and padding >= 0, got kernel {kernel}, "
                         f"stride {stride}, padding {padding}")
    out = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True))
    if min(out) < 1:
        raise ValueError(f"windows: a kernel of {kernel[0]}x{kernel[1]} is larger than the input of {size[0]}x"
                         f"{size[1]} padded by {padding}; use a smaller kernel or more padding")
    return out[0], out[1]


def windows(kernel: Pair, stride: Pair, out: Pair) -> Iterator[tuple[int, int, Any]]:
    """(i, j, index): `index` picks, from a padded array, element (i, j) of every window."""
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            yield i, j, (..., slice(i, i + stride[0] * out[0], stride[0]), slice(j, j + stride[1] * out[1], stride[1]))


def pad2d(x: Any, padding: Pair, value: float = 0.0) -> Any:
    """(..., H, W) -> (..., H + 2 ph, W + 2 pw), the border filled with `value`."""
    (ph, pw), (H, W) = padding, x.shape[-2:]
    out = device.of(x).full((*x.shape[:-2], H + 2 * ph, W + 2 * pw), value, x.dtype)
    out[..., ph:ph + H, pw:pw + W] = x
    return out


def crop2d(x: Any, padding: Pair) -> Any:
    """Transpose of pad2d: the border is dropped."""
    (ph, pw), (H, W) = padding, x.shape[-2:]
    return x[..., ph:H - ph, pw:W - pw]  # not [p:-p]: that would be empty for p = 0


# --------------------------------------------------------------------------------- convolution

def matmul(a: Any, b: Any) -> Any:
    """(..., n, k) times (..., k, m) -> (..., n, m); leading axes broadcast."""
    return a @ b


def im2col(x: Any, kernel: Pair, stride: Pair, padding: Pair) -> Any:
    """(N, C, H, W) -> (C*kh*kw, N*Ho*Wo): every column is one window of the padded input."""
    N, C, H, W = x.shape
    out = output_size((H, W), kernel, stride, padding)
    x = pad2d(x.transpose(1, 0, 2, 3), padding)
    cols = device.of(x).empty((C, *kernel, N, *out), x.dtype)
    for i, j, at in windows(kernel, stride, out):
        cols[:, i, j] = x[at]
    return cols.reshape(C * kernel[0] * kernel[1], -1)


def col2im(cols: Any, shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair) -> Any:
    """Transpose of im2col, (C*kh*kw, N*Ho*Wo) -> (N, C, H, W): the same walk, with the two sides of
    the assignment swapped and = turned into +=, because windows overlap."""
    N, C, H, W = shape
    out = output_size((H, W), kernel, stride, padding)
    cols = cols.reshape(C, *kernel, N, *out)
    x = device.of(cols).zeros((C, N, H + 2 * padding[0], W + 2 * padding[1]), cols.dtype)
    for i, j, at in windows(kernel, stride, out):
        x[at] += cols[:, i, j]
    return crop2d(x, padding).transpose(1, 0, 2, 3)


def conv2d(x: Any, w: Any, stride: Pair, padding: Pair) -> Any:
    """Cross-correlation of x with w, as deep learning means by convolution:

        Y = W X_col      (O, N*Ho*Wo) = (O, C*kh*kw) (C*kh*kw, N*Ho*Wo)
    """
    out = output_size(x.shape[2:], w.shape[2:], stride, padding)
    y = w.reshape(len(w), -1) @ im2col(x, w.shape[2:], stride, padding)
    return y.reshape(len(w), len(x), *out).transpose(1, 0, 2, 3)


def conv2d_backward(g: Any, x: Any, w: Any, stride: Pair, padding: Pair, need_x: bool = True,
                    need_w: bool = True) -> tuple[Any, Any]:
    """(dL/dx, dL/dw), None for one that is not needed. The chain rule for a matrix product, twice:

        dL/dW = G X_col^T          dL/dx = col2im(W^T G)

    X_col is built again rather than kept from the forward pass: kh*kw times less memory in between.
    """
    g = g.transpose(1, 0, 2, 3).reshape(len(w), -1)
    gw = (g @ im2col(x, w.shape[2:], stride, padding).T).reshape(w.shape) if need_w else None
    gx = col2im(w.reshape(len(w), -1).T @ g, x.shape, w.shape[2:], stride, padding) if need_x else None
    return gx, gw


# ---------------------------------------------------------------------------------- batch norm

def per_channel(v: Any, ndim: int) -> Any:
    """(C,) -> (1, C, 1, ..., 1), to broadcast along axis 1 of an array of `ndim` dimensions."""
    return v.reshape((1, -1) + (1,) * (ndim - 2))


def batch_norm(x: Any, gamma: Any, beta: Any, eps: float) -> tuple[Any, Any, Any, Any]:
    """Normalise every channel over all other axes (Ioffe & Szegedy 2015, Algorithm 1):

        y = gamma xhat + beta,    xhat = (x - mean) / sqrt(var + eps)

    Returns y, the batch's mean (C,) and biased variance (C,), and what backward needs. The variance is
    the mean of squared deviations, not E[x^2] - mean^2, which loses all digits when |mean| >> std.
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
    """(dL/dx, dL/dgamma, dL/dbeta). mean and var depend on x too, and their share is what is subtracted:

        dL/dx = gamma / sqrt(var + eps) * (g - mean(g) - xhat * mean(g * xhat))
    """
    xhat, inv = saved
    axes, m = (0, *range(2, g.ndim)), g.size // g.shape[1]
    gbeta, ggamma = g.sum(axes), (g * xhat).sum(axes)
    gx = (g - per_channel(gbeta / m, g.ndim) - xhat * per_channel(ggamma / m, g.ndim)) \
        * per_channel(gamma * inv, g.ndim)
    return gx, ggamma, gbeta


def batch_norm_eval(x: Any, gamma: Any, beta: Any, mean: Any, var: Any, eps: float) -> tuple[Any, Any]:
    """y with given statistics instead of the batch's, and what backward needs."""
    inv = (var + eps) ** -0.5
    xhat = (x - per_channel(mean, x.ndim)) * per_channel(inv, x.ndim)
    return xhat * per_channel(gamma, x.ndim) + per_channel(beta, x.ndim), (xhat, inv)


def batch_norm_eval_backward(g: Any, gamma: Any, saved: Any) -> tuple[Any, Any, Any]:
    """As batch_norm_backward, with the statistics constant: nothing is subtracted."""
    xhat, inv = saved
    axes = (0, *range(2, g.ndim))
    return g * per_channel(gamma * inv, g.ndim), (g * xhat).sum(axes), g.sum(axes)


def running_statistics(old_mean: Any, old_var: Any, mean: Any, var: Any, momentum: float, count: int) \
        -> tuple[Any, Any]:
    """Both moved by `momentum` towards a batch's mean and UNBIASED variance; `var` is its biased one over `count`
    values. All (C,)."""
    var = var * (count / (count - 1))
    return (1 - momentum) * old_mean + momentum * mean, (1 - momentum) * old_var + momentum * var


def relu(x: Any) -> tuple[Any, Any]:
    """max(x, 0), and where x > 0. NaN stays NaN, so that it is seen and not hidden."""
    on = x > 0
    return device.of(x).maximum(x, 0), on


def batch_norm_relu(x: Any, gamma: Any, beta: Any, eps: float, skip: Any = None) -> tuple[Any, Any, Any, Any]:
    """relu(batch_norm(x)), or relu(batch_norm(x) + skip): the two ways in which a residual block ends a
    convolution, as one kernel. Returns what batch_norm returns, y after the ReLU."""
    h, mean, var, saved = batch_norm(x, gamma, beta, eps)
    y, on = relu(h if skip is None else h + skip)
    return y, mean, var, (saved, on)


def batch_norm_relu_backward(g: Any, gamma: Any, saved: Any) -> tuple[Any, Any, Any, Any]:
    """(dL/dx, dL/dgamma, dL/dbeta, dL/dskip). The last is g behind the ReLU's mask: an addition hands the
    same gradient to both of its sides."""
    saved, on = saved
    g = g * on
    return *batch_norm_backward(g, gamma, saved), g


# ------------------------------------------------------------------------------------- pooling

def max_pool2d(x: Any, kernel: Pair, stride: Pair, padding: Pair) -> tuple[Any, Any]:
    """Every window's maximum, and which of its kh*kw elements that was. Ties go to the first; NaN wins.

    The border of the padding counts as -inf: it never wins.
    """
    xp, out = device.of(x), output_size(x.shape[2:], kernel, stride, padding)
    x = pad2d(x, padding, -float("inf"))
    best = winner = None
    for i, j, at in windows(kernel, stride, out):
        v = x[at]
        if best is None:
            best, winner = v.copy(), xp.zeros(v.shape, xp.int32)
        else:
            better = (v > best) | (v != v)
            best = xp.where(better, v, best)
            winner = xp.where(better, xp.int32(i * kernel[1] + j), winner)
    return best, winner


def max_pool2d_backward(g: Any, winner: Any, shape: tuple[int, ...], kernel: Pair, stride: Pair,
                        padding: Pair) -> Any:
    """dL/dx: every window's gradient goes to the element that won it."""
    return _spread(lambda i, j: g * (winner == i * kernel[1] + j), g, shape, kernel, stride, padding)


def avg_pool2d(x: Any, kernel: Pair, stride: Pair, padding: Pair) -> Any:
    """Every window's mean over its kh*kw elements, the zeros of the padding counted among them."""
    out = output_size(x.shape[2:], kernel, stride, padding)
    x = pad2d(x, padding)
    total = sum(x[at] for _, _, at in windows(kernel, stride, out))
    return total * (1 / (kernel[0] * kernel[1]))


def avg_pool2d_backward(g: Any, shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair) -> Any:
    """dL/dx: every window's gradient is shared equally by its elements."""
    share = g * (1 / (kernel[0] * kernel[1]))
    return _spread(lambda i, j: share, g, shape, kernel, stride, padding)


def _spread(part: Any, g: Any, shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair) -> Any:
    """Add part(i, j), the gradient of element (i, j) of every window, where those elements came from."""
    gx = device.of(g).zeros((*shape[:2], shape[2] + 2 * padding[0], shape[3] + 2 * padding[1]), g.dtype)
    for i, j, at in windows(kernel, stride, g.shape[2:]):
        gx[at] += part(i, j)
    return crop2d(gx, padding)


# ----------------------------------------------------------------------- shortcut without weights

def shortcut(x: Any, stride: int, channels: int, pad: str) -> Any:
    """Option A of He et al. 2015, section 3.3: every stride-th pixel, new channels filled with zeros.

    (N, C, H, W) -> (N, channels, ceil(H/stride), ceil(W/stride)). `pad` says where the new channels go:
    "end" behind the old ones, "both" half before and half behind (both are found in published networks).
    """
    x = x[:, :, ::stride, ::stride].transpose(1, 0, 2, 3)
    before = (channels - len(x)) // 2 if pad == "both" else 0
    y = device.of(x).zeros((channels, *x.shape[1:]), x.dtype)
    y[before:before + len(x)] = x
    return y.transpose(1, 0, 2, 3)


def shortcut_backward(g: Any, shape: tuple[int, ...], stride: int, pad: str) -> Any:
    """dL/dx: back to the pixels and channels that were taken; all others had no influence."""
    N, C, H, W = shape
    before = (g.shape[1] - C) // 2 if pad == "both" else 0
    gx = device.of(g).zeros((C, N, H, W), g.dtype).transpose(1, 0, 2, 3)
    gx[:, :, ::stride, ::stride] = g[:, before:before + C]
    return gx


# ----------------------------------------------------------------------- softmax cross-entropy

def log_softmax(z: Any, axis: int) -> Any:
    """z - log(sum(exp(z))) along `axis`; the maximum is subtracted first, so that exp cannot overflow."""
    xp = device.of(z)
    z = z - z.max(axis, keepdims=True)
    return z - xp.log(xp.exp(z).sum(axis, keepdims=True))


def cross_entropy(z: Any, labels: Any) -> tuple[Any, Any]:
    """Mean over the batch of -log softmax(z)[label], for logits z (N, K); and what backward needs."""
    log_p = log_softmax(z, 1)
    return -log_p[device.of(z).arange(len(z)), labels].mean(), log_p


def cross_entropy_backward(g: Any, log_p: Any, labels: Any) -> Any:
    """dL/dz = (softmax(z) - one_hot(labels)) / N, times the gradient g of the loss."""
    xp = device.of(log_p)
    gz = xp.exp(log_p)
    gz[xp.arange(len(gz)), labels] -= 1
    return gz * (g / len(gz))


# ----------------------------------------------------------------------------------- the update

def sgd(w: Any, g: Any, v: Any, lr: Any, momentum: float, weight_decay: float) -> tuple[Any, Any]:
    """(new w, new v) for weights w, gradient g and velocity v, all of one shape; g is overwritten.

        v = momentum v + (g + weight_decay w)          w = w - lr v
    """
    if weight_decay:
        g += weight_decay * w
    if momentum:
        g += momentum * v
    return w - lr * g, g


def copy_all(pairs: list[tuple[Any, Any]], if_finite: Any = None) -> None:
    """Copy every pair's first array into its second, of the same shape and dtype; none where the one number in the
    array `if_finite` is not finite, which a GPU decides without telling the host."""
    for source, target in pairs:
        xp = device.of(source, target)
        target[...] = source if if_finite is None else xp.where(xp.isfinite(if_finite), source, target)


def join(arrays: list[Any]) -> Any:
    """The elements of all arrays, one array behind the other, in one long array."""
    return device.of(*arrays).concatenate([a.reshape(-1) for a in arrays])
