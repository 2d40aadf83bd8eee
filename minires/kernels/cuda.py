"""This module has the kernels for float32 on the GPU: the arithmetic of reference.py, with elementwise steps fused.

The docstring of every kernel names its definition in reference.py, and the CUDA C++ source is next to each kernel. All
kernels use one layout: arrays are stored channel first, (C, N, H, W). So a convolution is one matrix product whose
result already is the next activation, and a channel is one contiguous row of M = N*H*W numbers. There are no atomic
additions, and every sum has a fixed order: the same inputs give the same bits.

cuBLAS computes the matrix products (cublas.py, which also sets their precision). Operations without a kernel here use
reference.py unchanged, and so do convolutions with dilation or groups and max pooling with dilation.
"""
from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from .. import device
from . import reference
from .cublas import matmul
from .reference import ONE, Pair, batch_norm_eval, batch_norm_eval_backward, log_softmax, output_size

__all__ = ["add", "avg_pool2d", "avg_pool2d_backward", "batch_norm", "batch_norm_backward", "batch_norm_eval",
           "batch_norm_eval_backward", "batch_norm_relu", "batch_norm_relu_backward", "col2im", "conv2d",
           "conv2d_backward", "copy_all", "cross_entropy", "cross_entropy_backward", "im2col", "join", "log_softmax",
           "matmul", "max_pool2d", "max_pool2d_backward", "relu", "running_statistics", "sgd", "shortcut",
           "shortcut_backward"]

BLOCK = 256        # threads per block; a power of two, as block_sum requires
CHUNK = 2048       # numbers of a channel that one block sums, or more if a channel would have more than BLOCK chunks
MOST_BLOCKS = 65535  # most blocks that a grid may have along y

# Several kernels use these. block_sum adds in a fixed order: pairs 128 apart, then 64 apart, ..., then neighbours.
SOURCE = ["""
#define BLOCK 256

__device__ float block_sum(float v) {  // the sum of v over the block's threads; every thread gets it
    __shared__ float part[BLOCK];
    __syncthreads();                   // no thread still reads an earlier sum
    part[threadIdx.x] = v;
    for (int half = BLOCK / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
    }
    __syncthreads();
    return part[0];
}

__device__ float block_max(float v) {
    __shared__ float part[BLOCK];
    __syncthreads();
    part[threadIdx.x] = v;
    for (int half = BLOCK / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) part[threadIdx.x] = fmaxf(part[threadIdx.x], part[threadIdx.x + half]);
    }
    __syncthreads();
    return part[0];
}
"""]


def program() -> str:
    """Return the CUDA C++ source of all kernels: one translation unit without includes."""
    return "".join(SOURCE)


@functools.cache
def _module(xp: Any) -> Any:
    # --fmad=true is the default. fast-math is off: division and square root round as IEEE requires, and exponentials
    # are as accurate as the CUDA manual states.
    return xp.RawModule(code=program(), options=("-std=c++17",))


@functools.cache
def _kernel(xp: Any, name: str) -> Any:
    return _module(xp).get_function(name)


def _launch(name: str, blocks: Pair, like: Any, *args: Any) -> None:
    """Launch kernel `name` on a grid of `blocks`. Arrays are passed by address, int as int, float as float, and None as
    a null pointer. Raises OverflowError for an extent of 2^31 or more."""
    def passed(a: Any) -> Any:
        if a is None:
            return np.uint64(0)
        return np.int32(a) if isinstance(a, int) else np.float32(a) if isinstance(a, float) else a
    xp = device.of(like)
    _kernel(xp, name)((blocks[0], min(blocks[1], MOST_BLOCKS), 1), (BLOCK, 1, 1), tuple(passed(a) for a in args))


def _blocks(threads: int) -> int:
    return -(-threads // BLOCK)


def _rows(x: Any) -> Any:
    """Return (N, C, H, W) as contiguous (C, N, H, W), without a copy if the memory already has this layout."""
    return device.of(x).ascontiguousarray(x.transpose(1, 0, 2, 3))


def _empty(like: Any, *shape: int) -> Any:
    return device.of(like).empty(shape, np.float32)


def _turned(a: Any) -> Any:
    """Swap (N, C, ...) and (C, N, ...). CuPy stores results in the order of their shape, so they stay channel first."""
    return a.swapaxes(0, 1) if a.ndim == 4 else a


def add(a: Any, b: Any) -> Any:
    """Compute reference.add."""
    return _turned(_turned(a) + _turned(b))


def relu(x: Any) -> tuple[Any, Any]:
    """Compute reference.relu."""
    y, on = reference.relu(_turned(x))
    return _turned(y), _turned(on)


# --------------------------------------------------------------------------------- convolution

SOURCE.append("""
// cols[(c, i, j), (n, ho, wo)] = x[c, n, ho * sh + sign * (i - ph), wo * sw + sign * (j - pw)], or 0 outside.
// Each thread computes one column for a channel, with all taps, so it computes its position once.
extern "C" __global__ void im2col(const float* x, float* cols, int C, int N, int H, int W, int Ho, int Wo,
                                  int kh, int kw, int sh, int sw, int ph, int pw, int sign) {
    int column = blockIdx.x * BLOCK + threadIdx.x, columns = N * Ho * Wo;
    if (column >= columns) return;
    int wo = column % Wo, ho = column / Wo % Ho, n = column / Wo / Ho;
    for (int c = blockIdx.y; c < C; c += gridDim.y) {
        const float* image = x + ((long long)c * N + n) * H * W;
        float* out = cols + (long long)c * kh * kw * columns + column;
        for (int i = 0; i < kh; i++)
            for (int j = 0; j < kw; j++, out += columns) {
                int h = ho * sh + sign * (i - ph), w = wo * sw + sign * (j - pw);
                *out = 0 <= h && h < H && 0 <= w && w < W ? image[h * W + w] : 0.f;
            }
    }
}

// x[c, n, h, w] = the sum of every cols[(c, i, j), (n, ho, wo)] that im2col copied from there, in the order of i, j.
extern "C" __global__ void col2im(const float* cols, float* x, int C, int N, int H, int W, int Ho, int Wo,
                                  int kh, int kw, int sh, int sw, int ph, int pw) {
    int pixel = blockIdx.x * BLOCK + threadIdx.x, pixels = N * H * W, columns = N * Ho * Wo;
    if (pixel >= pixels) return;
    int w = pixel % W, h = pixel / W % H, n = pixel / W / H;
    for (int c = blockIdx.y; c < C; c += gridDim.y) {
        const float* row = cols + (long long)c * kh * kw * columns + n * Ho * Wo;
        float sum = 0.f;
        for (int i = 0; i < kh; i++)
            for (int j = 0; j < kw; j++, row += columns) {
                int ho = h + ph - i, wo = w + pw - j;
                if (ho >= 0 && wo >= 0 && ho % sh == 0 && wo % sw == 0 && ho / sh < Ho && wo / sw < Wo)
                    sum += row[ho / sh * Wo + wo / sw];
            }
        x[(long long)c * pixels + pixel] = sum;
    }
}
""")


def _plain(kernel: Pair, stride: Pair, padding: Pair) -> bool:
    """Return True if every window is one pixel and every pixel is a window. Then there is nothing to gather."""
    return kernel == (1, 1) and stride == (1, 1) and padding == (0, 0)


def im2col(x: Any, kernel: Pair, stride: Pair, padding: Pair) -> Any:
    """Compute reference.im2col. For a 1x1 kernel with stride 1 it is x itself."""
    N, C, H, W = x.shape
    out = output_size((H, W), kernel, stride, padding)
    x = _rows(x)
    if _plain(kernel, stride, padding):
        return x.reshape(C, -1)
    cols = _empty(x, C * kernel[0] * kernel[1], N * out[0] * out[1])
    _launch("im2col", (_blocks(cols.shape[1]), C), x, x, cols, C, N, H, W, *out, *kernel, *stride, *padding, 1)
    return cols


def col2im(cols: Any, shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair) -> Any:
    """Compute reference.col2im as a gather: one thread sums each pixel, so no two threads add to the same place."""
    N, C, H, W = shape
    out = output_size((H, W), kernel, stride, padding)
    if _plain(kernel, stride, padding):
        return cols.reshape(C, N, H, W).transpose(1, 0, 2, 3)
    cols, x = device.of(cols).ascontiguousarray(cols), _empty(cols, C, N, H, W)
    _launch("col2im", (_blocks(N * H * W), C), x, cols, x, C, N, H, W, *out, *kernel, *stride, *padding)
    return x.transpose(1, 0, 2, 3)


def conv2d(x: Any, w: Any, stride: Pair, padding: Pair, dilation: Pair = ONE, groups: int = 1) -> Any:
    """Compute reference.conv2d, which also serves dilation and groups."""
    if dilation != ONE or groups != 1:
        return reference.conv2d(x, w, stride, padding, dilation, groups)
    out = output_size(x.shape[2:], w.shape[2:], stride, padding)
    y = matmul(w.reshape(len(w), -1), im2col(x, w.shape[2:], stride, padding))
    return y.reshape(len(w), len(x), *out).transpose(1, 0, 2, 3)


def conv2d_backward(g: Any, x: Any, w: Any, stride: Pair, padding: Pair, need_x: bool = True, need_w: bool = True,
                    dilation: Pair = ONE, groups: int = 1) -> tuple[Any, Any]:
    """Compute reference.conv2d_backward. With stride 1 both gradients come from one gather of g."""
    if dilation != ONE or groups != 1:
        return reference.conv2d_backward(g, x, w, stride, padding, need_x, need_w, dilation, groups)
    if stride == (1, 1) and need_x and need_w and w.shape[2:] != (1, 1):
        return _both_gradients(g, x, w, padding)
    g = _rows(g).reshape(len(w), -1)
    gw = matmul(g, im2col(x, w.shape[2:], stride, padding).T).reshape(w.shape) if need_w else None
    gx = col2im(matmul(w.reshape(len(w), -1).T, g), x.shape, w.shape[2:], stride, padding) if need_x else None
    return gx, gw


def _both_gradients(g: Any, x: Any, w: Any, padding: Pair) -> tuple[Any, Any]:
    """Return (dL/dx, dL/dw) for stride 1. Tap (i, j) connects output (ho, wo) = (h - (i - ph), w - (j - pw)) to input
    (h, w). With

        G[(o, i, j), (n, h, w)] = g[o, n, h - (i - ph), w - (j - pw)]

    dL/dx is W^T G and dL/dW is (X G^T)^T, both with W as (O, kh, kw) for each input channel.
    """
    (O, C, kh, kw), (N, _, H, W) = w.shape, x.shape
    G = _empty(g, O * kh * kw, N * H * W)
    _launch("im2col", (_blocks(G.shape[1]), O), g, _rows(g), G, O, N, *g.shape[2:], H, W, kh, kw, 1, 1, *padding, -1)
    by_input = device.of(w).ascontiguousarray(w.transpose(1, 0, 2, 3)).reshape(C, -1)
    gx = matmul(by_input, G).reshape(C, N, H, W).transpose(1, 0, 2, 3)
    gw = matmul(_rows(x).reshape(C, -1), G.T).reshape(C, O, kh, kw)
    return gx, device.of(w).ascontiguousarray(gw.transpose(1, 0, 2, 3))


# ---------------------------------------------------------------------------------- batch norm
#
# The sums of a channel take two launches. First each block sums one chunk of the channel. Then every block that uses
# the sums adds the results of all chunks, in the same order. So the GPU is fully used even with few channels.

SOURCE.append("""
// For every chunk of every channel: the mean and the sum of squared deviations from this mean.
extern "C" __global__ void chunk_moments(const float* x, float* partial, int M, int chunk) {
    const float* row = x + (long long)blockIdx.y * M;
    int start = blockIdx.x * chunk, end = min(start + chunk, M);
    float sum = 0.f, squares = 0.f;
    for (int m = start + threadIdx.x; m < end; m += BLOCK) sum += row[m];
    float mean = block_sum(sum) / (end - start);
    for (int m = start + threadIdx.x; m < end; m += BLOCK) squares += (row[m] - mean) * (row[m] - mean);
    squares = block_sum(squares);
    if (threadIdx.x == 0) {
        partial[2 * (blockIdx.y * gridDim.x + blockIdx.x)] = mean;
        partial[2 * (blockIdx.y * gridDim.x + blockIdx.x) + 1] = squares;
    }
}

// y = gamma (x - mean) / sqrt(var + eps) + beta, plus skip if there is one, then relu if requested.
// mean and var combine the chunks: squared deviations within the chunks plus those between them (Chan et al. 1979).
extern "C" __global__ void normalise(const float* x, const float* skip, const float* gamma, const float* beta,
                                     const float* partial, float* y, float* mean_out, float* var_out, float* inv_out,
                                     int M, int chunk, float eps, int relu) {
    int c = blockIdx.y, t = threadIdx.x, mine = t < gridDim.x;  // thread t adds chunk t
    const float* of = partial + 2 * (c * gridDim.x + (mine ? t : 0));
    float count = mine ? min(chunk, M - t * chunk) : 0;
    float mean = block_sum(count * of[0]) / M;
    float var = block_sum(mine ? of[1] + count * (of[0] - mean) * (of[0] - mean) : 0.f) / M;
    float inv = 1.f / sqrtf(var + eps);
    if (blockIdx.x == 0 && t == 0) { mean_out[c] = mean; var_out[c] = var; inv_out[c] = inv; }
    int start = blockIdx.x * chunk, end = min(start + chunk, M);
    for (int m = start + t; m < end; m += BLOCK) {
        long long at = (long long)c * M + m;
        float v = (x[at] - mean) * inv * gamma[c] + beta[c];
        if (skip) v += skip[at];
        y[at] = relu && v <= 0.f ? 0.f : v;  // NaN <= 0 is false, so NaN stays
    }
}

// For every chunk of every channel: sum(g) and sum(g xhat). If y is given, g is first masked by y > 0.
extern "C" __global__ void chunk_gradients(const float* g, const float* x, const float* y, const float* mean,
                                           const float* inv, float* partial, int M, int chunk) {
    int c = blockIdx.y, start = blockIdx.x * chunk, end = min(start + chunk, M);
    float beta = 0.f, gamma = 0.f;
    for (int m = start + threadIdx.x; m < end; m += BLOCK) {
        long long at = (long long)c * M + m;
        float v = y && !(y[at] > 0.f) ? 0.f * g[at] : g[at];  // 0 * g, as in the reference, so NaN stays
        beta += v;
        gamma += v * ((x[at] - mean[c]) * inv[c]);
    }
    beta = block_sum(beta);
    gamma = block_sum(gamma);
    if (threadIdx.x == 0) {
        partial[2 * (c * gridDim.x + blockIdx.x)] = beta;
        partial[2 * (c * gridDim.x + blockIdx.x) + 1] = gamma;
    }
}

// dL/dx = gamma inv (g - mean(g) - xhat mean(g xhat)). The sums are dL/dbeta and dL/dgamma. dL/dskip is the masked g.
extern "C" __global__ void normalise_backward(const float* g, const float* x, const float* y, const float* gamma,
                                              const float* mean, const float* inv, const float* partial, float* gx,
                                              float* ggamma, float* gbeta, float* gskip, int M, int chunk) {
    int c = blockIdx.y, t = threadIdx.x, mine = t < gridDim.x;
    const float* of = partial + 2 * (c * gridDim.x + (mine ? t : 0));
    float beta = block_sum(mine ? of[0] : 0.f), sum = block_sum(mine ? of[1] : 0.f);
    if (blockIdx.x == 0 && t == 0) { gbeta[c] = beta; ggamma[c] = sum; }
    int start = blockIdx.x * chunk, end = min(start + chunk, M);
    for (int m = start + t; m < end; m += BLOCK) {
        long long at = (long long)c * M + m;
        float v = y && !(y[at] > 0.f) ? 0.f * g[at] : g[at], xhat = (x[at] - mean[c]) * inv[c];
        if (gskip) gskip[at] = v;
        gx[at] = (v - beta / M - xhat * (sum / M)) * (gamma[c] * inv[c]);
    }
}
""")


SOURCE.append("""
extern "C" __global__ void running_statistics(const float* old_mean, const float* old_var, const float* mean,
                                              const float* var, float* new_mean, float* new_var, float momentum,
                                              float keep, float unbiased, int C) {
    int c = blockIdx.x * BLOCK + threadIdx.x;
    if (c >= C) return;
    new_mean[c] = keep * old_mean[c] + momentum * mean[c];
    new_var[c] = keep * old_var[c] + momentum * (var[c] * unbiased);
}
""")


def _chunks(M: int) -> tuple[int, int]:
    """Return (number of chunks, length of a chunk) for a channel of M numbers. No chunk is empty."""
    chunk = max(CHUNK, -(-M // BLOCK))
    return -(-M // chunk), chunk


def _four(x: Any) -> Any:
    """Return (N, C) as (N, C, 1, 1), and four dimensions unchanged."""
    return x.reshape(*x.shape, 1, 1) if x.ndim == 2 else x


def _normalise(x: Any, gamma: Any, beta: Any, eps: float, act: bool, skip: Any) -> tuple[Any, Any, Any, Any]:
    shape, rows = x.shape, _rows(_four(x))
    C, M = len(rows), rows.size // len(rows)
    if C > MOST_BLOCKS:
        raise ValueError(f"expected at most {MOST_BLOCKS} channels on a GPU, got {C}")
    count, chunk = _chunks(M)
    partial, y = _empty(x, C, count, 2), _empty(x, *rows.shape)
    mean, var, inv = (_empty(x, C) for _ in range(3))
    _launch("chunk_moments", (count, C), x, rows, partial, M, chunk)
    _launch("normalise", (count, C), x, rows, None if skip is None else _rows(_four(skip)), gamma, beta, partial, y,
            mean, var, inv, M, chunk, float(eps), int(act))
    return (y.transpose(1, 0, 2, 3).reshape(shape), mean, var,
            (rows, y if act else None, mean, inv, skip is not None))


def _normalise_backward(g: Any, gamma: Any, saved: Any) -> tuple[Any, Any, Any, Any]:
    rows, y, mean, inv, had_skip = saved
    shape, g = g.shape, _rows(_four(g))
    C, M = len(rows), rows.size // len(rows)
    count, chunk = _chunks(M)
    partial, gx = _empty(g, C, count, 2), _empty(g, *rows.shape)
    gskip = _empty(g, *rows.shape) if had_skip else None
    ggamma, gbeta = _empty(g, C), _empty(g, C)
    _launch("chunk_gradients", (count, C), g, g, rows, y, mean, inv, partial, M, chunk)
    _launch("normalise_backward", (count, C), g, g, rows, y, gamma, mean, inv, partial, gx, ggamma, gbeta, gskip,
            M, chunk)
    def surface(v: Any) -> Any: return None if v is None else v.transpose(1, 0, 2, 3).reshape(shape)

    return surface(gx), ggamma, gbeta, surface(gskip)


def batch_norm(x: Any, gamma: Any, beta: Any, eps: float) -> tuple[Any, Any, Any, Any]:
    """Compute reference.batch_norm. Saves x and two vectors, not xhat."""
    return _normalise(x, gamma, beta, eps, False, None)


def batch_norm_backward(g: Any, gamma: Any, saved: Any) -> tuple[Any, Any, Any]:
    """Compute reference.batch_norm_backward."""
    return _normalise_backward(g, gamma, saved)[:3]


def batch_norm_relu(x: Any, gamma: Any, beta: Any, eps: float, skip: Any = None) -> tuple[Any, Any, Any, Any]:
    """Compute reference.batch_norm_relu. The mask is y > 0; y is kept in any case, as the input of the next layer."""
    return _normalise(x, gamma, beta, eps, True, skip)


def batch_norm_relu_backward(g: Any, gamma: Any, saved: Any) -> tuple[Any, Any, Any, Any]:
    """Compute reference.batch_norm_relu_backward. The fourth gradient is None if there was no skip."""
    return _normalise_backward(g, gamma, saved)


def running_statistics(old_mean: Any, old_var: Any, mean: Any, var: Any, momentum: float, count: int) \
        -> tuple[Any, Any]:
    """Compute reference.running_statistics. nn permits statistics of other dtypes, which the reference handles."""
    if not old_mean.dtype == old_var.dtype == np.float32:
        return reference.running_statistics(old_mean, old_var, mean, var, momentum, count)
    new_mean, new_var = _empty(mean, mean.size), _empty(mean, mean.size)
    _launch("running_statistics", (_blocks(mean.size), 1), mean, old_mean, old_var, mean, var, new_mean, new_var,
            momentum, 1 - momentum, count / (count - 1), mean.size)
    return new_mean, new_var


# ------------------------------------------------------------------------------------- pooling

SOURCE.append("""
// The largest element of each window and its number. The first of equal elements wins, and NaN wins over every number.
// The border counts as -infinity.
extern "C" __global__ void max_pool2d(const float* x, float* y, int* winner, int C, int N, int H, int W, int Ho, int Wo,
                                      int kh, int kw, int sh, int sw, int ph, int pw) {
    int column = blockIdx.x * BLOCK + threadIdx.x, columns = N * Ho * Wo;
    if (column >= columns) return;
    int wo = column % Wo, ho = column / Wo % Ho, n = column / Wo / Ho;
    for (int c = blockIdx.y; c < C; c += gridDim.y) {
        const float* image = x + ((long long)c * N + n) * H * W;
        float best = 0.f;
        int won = 0;
        for (int i = 0; i < kh; i++)
            for (int j = 0; j < kw; j++) {
                int h = ho * sh - ph + i, w = wo * sw - pw + j;
                float v = 0 <= h && h < H && 0 <= w && w < W ? image[h * W + w] : -1.f / 0.f;
                if ((i == 0 && j == 0) || v > best || v != v) { best = v; won = i * kw + j; }
            }
        y[(long long)c * columns + column] = best;
        winner[(long long)c * columns + column] = won;
    }
}

extern "C" __global__ void avg_pool2d(const float* x, float* y, int C, int N, int H, int W, int Ho, int Wo,
                                      int kh, int kw, int sh, int sw, int ph, int pw) {
    int column = blockIdx.x * BLOCK + threadIdx.x, columns = N * Ho * Wo;
    if (column >= columns) return;
    int wo = column % Wo, ho = column / Wo % Ho, n = column / Wo / Ho;
    for (int c = blockIdx.y; c < C; c += gridDim.y) {
        const float* image = x + ((long long)c * N + n) * H * W;
        float sum = 0.f;
        for (int i = 0; i < kh; i++)
            for (int j = 0; j < kw; j++) {
                int h = ho * sh - ph + i, w = wo * sw - pw + j;
                if (0 <= h && h < H && 0 <= w && w < W) sum += image[h * W + w];
            }
        y[(long long)c * columns + column] = sum * (1.f / (kh * kw));
    }
}

// Every pixel gathers from the windows that contain it: the whole g of each window where it is the maximum, or its
// share of g (mean, winner = null).
extern "C" __global__ void pool2d_backward(const float* g, const int* winner, float* x, int C, int N, int H, int W,
                                           int Ho, int Wo, int kh, int kw, int sh, int sw, int ph, int pw) {
    int pixel = blockIdx.x * BLOCK + threadIdx.x, pixels = N * H * W, columns = N * Ho * Wo;
    if (pixel >= pixels) return;
    int w = pixel % W, h = pixel / W % H, n = pixel / W / H;
    for (int c = blockIdx.y; c < C; c += gridDim.y) {
        float sum = 0.f;
        for (int i = 0; i < kh; i++)
            for (int j = 0; j < kw; j++) {
                int ho = h + ph - i, wo = w + pw - j;
                if (ho < 0 || wo < 0 || ho % sh || wo % sw || ho / sh >= Ho || wo / sw >= Wo) continue;
                long long at = (long long)c * columns + (n * Ho + ho / sh) * Wo + wo / sw;
                sum += winner ? (winner[at] == i * kw + j ? g[at] : 0.f * g[at]) : g[at] * (1.f / (kh * kw));
            }
        x[(long long)c * pixels + pixel] = sum;
    }
}
""")


def max_pool2d(x: Any, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = ONE) -> tuple[Any, Any]:
    """Compute reference.max_pool2d."""
    if dilation != ONE:
        return reference.max_pool2d(x, kernel, stride, padding, dilation)
    N, C, H, W = x.shape
    out = output_size((H, W), kernel, stride, padding)
    y, winner = _empty(x, C, N, *out), device.of(x).empty((C, N, *out), np.int32)
    _launch("max_pool2d", (_blocks(y.size // C), C), x, _rows(x), y, winner, C, N, H, W, *out, *kernel, *stride,
            *padding)
    return y.transpose(1, 0, 2, 3), winner.transpose(1, 0, 2, 3)


def max_pool2d_backward(g: Any, winner: Any, shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair,
                        dilation: Pair = ONE) -> Any:
    """Compute reference.max_pool2d_backward."""
    if dilation != ONE:
        return reference.max_pool2d_backward(g, winner, shape, kernel, stride, padding, dilation)
    return _pool2d_backward(g, _rows(winner), shape, kernel, stride, padding)


def avg_pool2d(x: Any, kernel: Pair, stride: Pair, padding: Pair) -> Any:
    """Compute reference.avg_pool2d."""
    N, C, H, W = x.shape
    out = output_size((H, W), kernel, stride, padding)
    y = _empty(x, C, N, *out)
    _launch("avg_pool2d", (_blocks(y.size // C), C), x, _rows(x), y, C, N, H, W, *out, *kernel, *stride, *padding)
    return y.transpose(1, 0, 2, 3)


def avg_pool2d_backward(g: Any, shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair) -> Any:
    """Compute reference.avg_pool2d_backward."""
    return _pool2d_backward(g, None, shape, kernel, stride, padding)


def _pool2d_backward(g: Any, winner: Any, shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair) -> Any:
    N, C, H, W = shape
    gx = _empty(g, C, N, H, W)
    _launch("pool2d_backward", (_blocks(N * H * W), C), g, _rows(g), winner, gx, C, N, H, W, *g.shape[2:], *kernel,
            *stride, *padding)
    return gx.transpose(1, 0, 2, 3)


# ----------------------------------------------------------------------- shortcut without weights

SOURCE.append("""
// y[before + c, n, ho, wo] = x[c, n, stride ho, stride wo], and 0 in the new channels.
extern "C" __global__ void shortcut(const float* x, float* y, int C, int N, int H, int W, int channels, int Ho, int Wo,
                                    int stride, int before) {
    int column = blockIdx.x * BLOCK + threadIdx.x, columns = N * Ho * Wo;
    if (column >= columns) return;
    int wo = column % Wo, ho = column / Wo % Ho, n = column / Wo / Ho;
    for (int k = blockIdx.y; k < channels; k += gridDim.y) {
        int c = k - before;
        y[(long long)k * columns + column] =
            0 <= c && c < C ? x[(((long long)c * N + n) * H + ho * stride) * W + wo * stride] : 0.f;
    }
}

extern "C" __global__ void shortcut_backward(const float* g, float* x, int C, int N, int H, int W, int Ho, int Wo,
                                             int stride, int before) {
    int pixel = blockIdx.x * BLOCK + threadIdx.x, pixels = N * H * W;
    if (pixel >= pixels) return;
    int w = pixel % W, h = pixel / W % H, n = pixel / W / H, taken = h % stride == 0 && w % stride == 0;
    for (int c = blockIdx.y; c < C; c += gridDim.y)
        x[(long long)c * pixels + pixel] =
            taken ? g[(((long long)(before + c) * N + n) * Ho + h / stride) * Wo + w / stride] : 0.f;
}
""")


def shortcut(x: Any, stride: int, channels: int, pad: str) -> Any:
    """Compute reference.shortcut."""
    N, C, H, W = x.shape
    before = (channels - C) // 2 if pad == "both" else 0
    y = _empty(x, channels, N, -(-H // stride), -(-W // stride))
    _launch("shortcut", (_blocks(y.size // channels), channels), x, _rows(x), y, C, N, H, W, channels, *y.shape[2:],
            stride, before)
    return y.transpose(1, 0, 2, 3)


def shortcut_backward(g: Any, shape: tuple[int, ...], stride: int, pad: str) -> Any:
    """Compute reference.shortcut_backward."""
    N, C, H, W = shape
    before = (g.shape[1] - C) // 2 if pad == "both" else 0
    gx = _empty(g, C, N, H, W)
    _launch("shortcut_backward", (_blocks(N * H * W), C), g, _rows(g), gx, C, N, H, W, *g.shape[2:], stride, before)
    return gx.transpose(1, 0, 2, 3)


# ----------------------------------------------------------------------- softmax cross-entropy

SOURCE.append("""
// One block per image: log_p = z - max - log(sum(exp(z - max))), and the loss -log_p[label].
extern "C" __global__ void cross_entropy(const float* z, const int* labels, float* log_p, float* losses, int K) {
    const float* row = z + (long long)blockIdx.x * K;
    float* out = log_p + (long long)blockIdx.x * K;
    float largest = -1.f / 0.f, sum = 0.f;
    for (int k = threadIdx.x; k < K; k += BLOCK) largest = fmaxf(largest, row[k]);
    largest = block_max(largest);
    for (int k = threadIdx.x; k < K; k += BLOCK) sum += expf(row[k] - largest);
    float log_sum = logf(block_sum(sum));
    for (int k = threadIdx.x; k < K; k += BLOCK) {
        out[k] = row[k] - largest - log_sum;
        if (k == labels[blockIdx.x]) losses[blockIdx.x] = -out[k];
    }
}

// One block in total: the mean of N numbers.
extern "C" __global__ void mean_of(const float* losses, float* mean, int N) {
    float sum = 0.f;
    for (int n = threadIdx.x; n < N; n += BLOCK) sum += losses[n];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *mean = sum / N;
}

extern "C" __global__ void cross_entropy_backward(const float* g, const float* log_p, const int* labels, float* gz,
                                                  int N, int K) {
    int at = blockIdx.x * BLOCK + threadIdx.x;
    if (at < N * K) gz[at] = (expf(log_p[at]) - (at % K == labels[at / K])) * (*g / N);
}
""")


def cross_entropy(z: Any, labels: Any) -> tuple[Any, Any]:
    """Compute reference.cross_entropy. If a label is not in 0..K-1, the loss of its image is NaN."""
    xp, (N, K) = device.of(z), z.shape
    log_p, losses, loss = _empty(z, N, K), xp.full((N,), math.nan, np.float32), _empty(z)
    labels = xp.ascontiguousarray(labels, np.int32)
    _launch("cross_entropy", (N, 1), z, xp.ascontiguousarray(z), labels, log_p, losses, K)
    _launch("mean_of", (1, 1), z, losses, loss, N)
    return loss, log_p


def cross_entropy_backward(g: Any, log_p: Any, labels: Any) -> Any:
    """Compute reference.cross_entropy_backward."""
    N, K = log_p.shape
    gz = _empty(log_p, N, K)
    _launch("cross_entropy_backward", (_blocks(N * K), 1), g, g, log_p,
            device.of(g).ascontiguousarray(labels, np.int32), gz, N, K)
    return gz


# ----------------------------------------------------------------------------------- the update

SOURCE.append("""
// The learning rate is *lr if it is on the device, else lr_value.
extern "C" __global__ void sgd(const float* w, const float* g, const float* v, float* new_w, float* new_v,
                               const float* lr, float lr_value, float momentum, float weight_decay, int count) {
    int at = blockIdx.x * BLOCK + threadIdx.x;
    if (at >= count) return;
    float d = g[at];
    if (weight_decay != 0.f) d += weight_decay * w[at];  // not 0 * infinity, which is NaN
    if (momentum != 0.f) d += momentum * v[at];
    new_v[at] = d;
    new_w[at] = w[at] - (lr ? *lr : lr_value) * d;
}

// Up to PIECES copies in one launch. The table of addresses is an argument of the kernel. If *if_finite is given and is
// NaN or infinite, nothing is copied.
#define PIECES 64
struct Table { const float* from[PIECES]; float* to[PIECES]; int size[PIECES]; };

extern "C" __global__ void copy_pieces(Table table, const float* if_finite) {
    if (if_finite && !(fabsf(*if_finite) < 1.f / 0.f)) return;
    const float* from = table.from[blockIdx.y];
    float* to = table.to[blockIdx.y];
    for (int at = blockIdx.x * BLOCK + threadIdx.x; at < table.size[blockIdx.y]; at += gridDim.x * BLOCK)
        to[at] = from[at];
}
""")
PIECES = 64
TABLE = np.dtype([("from", np.uint64, PIECES), ("to", np.uint64, PIECES), ("size", np.int32, PIECES)])


def sgd(w: Any, g: Any, v: Any, lr: Any, momentum: float, weight_decay: float) -> tuple[Any, Any]:
    """Compute reference.sgd. `lr` is a number, or an array of one element that a recorded step reads at each replay."""
    new_w, new_v = _empty(w, *w.shape), _empty(w, *w.shape)
    on_device = device.on_gpu(lr)
    _launch("sgd", (_blocks(w.size), 1), w, w, g, v, new_w, new_v, lr if on_device else None,
            0.0 if on_device else float(lr), momentum, weight_decay, w.size)
    return new_w, new_v


def copy_all(pairs: list[tuple[Any, Any]], if_finite: Any = None) -> None:
    """Compute reference.copy_all for contiguous targets."""
    pairs = [(device.of(a).ascontiguousarray(a), b) for a, b in pairs if b.size]
    for start in range(0, len(pairs), PIECES):
        some, table = pairs[start:start + PIECES], np.zeros(1, TABLE)
        for i, (a, b) in enumerate(some):
            if not b.flags.c_contiguous or a.shape != b.shape or not a.dtype == b.dtype == np.float32:
                raise ValueError(f"copy_all: expected contiguous float32 of one shape, got {a.dtype}{a.shape} to "
                                 f"{b.dtype}{b.shape}")
            table["from"][0, i], table["to"][0, i], table["size"][0, i] = a.data.ptr, b.data.ptr, a.size
        longest = max(a.size for a, _ in some)
        _launch("copy_pieces", (min(_blocks(longest), 1024), len(some)), some[0][0], table, if_finite)


def join(arrays: list[Any]) -> Any:
    """Compute reference.join."""
    flat = _empty(arrays[0], sum(a.size for a in arrays))
    ends = np.cumsum([a.size for a in arrays]).tolist()
    copy_all([(a.reshape(-1), flat[end - a.size:end]) for a, end in zip(arrays, ends, strict=True)])
    return flat
