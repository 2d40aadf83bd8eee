"""Test the kernels: adjoint pairs in exact integers, complex-step derivatives, and limits that need no tolerance."""

import numpy as np
import pytest
from helpers import difference, normal, read_only, same_bits
from hypothesis import given
from hypothesis import strategies as st

from minires import kernels
from minires.kernels import reference as K

GEOMETRIES = [  # (N, C, H, W), kernel, stride, padding
    ((2, 3, 6, 8), (3, 3), (2, 2), (1, 1)), ((2, 3, 7, 5), (3, 2), (2, 2), (0, 0)),
    ((1, 2, 8, 10), (3, 3), (2, 2), (1, 1)), ((3, 2, 5, 4), (2, 3), (1, 2), (2, 0)),
    ((2, 3, 4, 5), (1, 1), (1, 1), (0, 0)), ((2, 3, 4, 5), (1, 1), (2, 3), (0, 0)),
    ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0)), ((2, 1, 9, 8), (2, 2), (3, 3), (0, 0)),
    ((1, 2, 32, 32), (3, 3), (2, 2), (1, 1)), ((2, 3, 4, 5), (4, 5), (1, 1), (0, 0)),
    ((2, 3, 3, 2), (2, 1), (2, 2), (3, 2)),
]


def integers(*shape, seed=0):
    """Return integers in float64, whose sums and products are exact."""
    return read_only(np.random.default_rng([seed, *shape]).integers(-9, 10, shape).astype(np.float64))


def dot(a, b):
    assert a.shape == b.shape
    return float((a * b).sum())


# ------------------------------------------------------------------------------------ im2col, col2im


def test_im2col_written_out_by_hand():
    x = np.arange(1.0, 17).reshape(1, 1, 4, 4)  # 1..4 | 5..8 | 9..12 | 13..16
    cols = K.im2col(x, (3, 2), (1, 2), (0, 0))  # windows at rows 0, 1 and columns 0, 2
    assert cols.tolist() == [
        [1, 3, 5, 7],       # top left corners of the four windows
        [2, 4, 6, 8],
        [5, 7, 9, 11],
        [6, 8, 10, 12],
        [9, 11, 13, 15],
        [10, 12, 14, 16]]   # bottom right corners
    padded = K.im2col(x, (3, 3), (2, 2), (1, 1))  # windows centred on 1, 3, 9, 11
    assert padded.T.tolist() == [[0, 0, 0, 0, 1, 2, 0, 5, 6], [0, 0, 0, 2, 3, 4, 6, 7, 8],
                                 [0, 5, 6, 0, 9, 10, 0, 13, 14], [6, 7, 8, 10, 11, 12, 14, 15, 16]]


def test_im2col_puts_channels_in_rows_and_images_in_columns():
    x = np.array([1.0, 2, 3, 4, 5, 6]).reshape(2, 3, 1, 1)  # two images of three channels
    assert K.im2col(x, (1, 1), (1, 1), (0, 0)).tolist() == [[1, 4], [2, 5], [3, 6]]


def test_col2im_counts_how_often_a_pixel_is_seen():
    shape, k, s, p = (1, 1, 4, 4), (3, 3), (1, 1), (1, 1)
    once = np.ones((9, 16))
    assert K.col2im(once, shape, k, s, p)[0, 0].tolist() == [[4, 6, 6, 4], [6, 9, 9, 6], [6, 9, 9, 6], [4, 6, 6, 4]]
    assert K.col2im(np.ones((4, 1)), (1, 1, 3, 3), (2, 2), (2, 2), (0, 0))[0, 0].tolist() == [
        [1, 1, 0], [1, 1, 0], [0, 0, 0]]  # no window contains the leftover row and column


def check_adjoint(shape, kernel, stride, padding, seed=0):
    x = integers(*shape, seed=seed)
    cols = K.im2col(x, kernel, stride, padding)
    c = integers(*cols.shape, seed=seed + 1)
    back = K.col2im(c, shape, kernel, stride, padding)
    assert back.shape == shape
    assert dot(cols, c) == dot(x, back)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_col2im_is_the_transpose_of_im2col(geometry):
    check_adjoint(*geometry)


@st.composite
def geometries(draw):
    pair = lambda low, high: (draw(st.integers(low, high)), draw(st.integers(low, high)))
    kernel, stride, padding = pair(1, 4), pair(1, 4), pair(0, 3)
    size = tuple(draw(st.integers(max(1, k - 2 * p), 9)) for k, p in zip(kernel, padding, strict=True))
    return (*pair(1, 3), *size), kernel, stride, padding


@given(geometries(), st.integers(0, 1000))
def test_col2im_is_the_transpose_of_im2col_whatever_the_geometry(geometry, seed):
    check_adjoint(*geometry, seed)


@given(geometries(), st.integers(1, 4))
def test_conv2d_and_its_backward_are_adjoint_in_both_arguments(geometry, outputs):
    shape, kernel, stride, padding = geometry
    x, w = integers(*shape), integers(outputs, shape[1], *kernel, seed=1)
    y = K.conv2d(x, w, stride, padding)
    g = integers(*y.shape, seed=2)
    gx, gw = K.conv2d_backward(g, x, w, stride, padding)
    assert dot(y, g) == dot(x, gx) == dot(w, gw)
    assert K.conv2d_backward(g, x, w, stride, padding, need_x=False)[0] is None
    assert K.conv2d_backward(g, x, w, stride, padding, need_w=False)[1] is None


@pytest.mark.parametrize("padding", [(0, 0), (1, 0), (0, 2), (3, 1)])
def test_crop2d_is_the_transpose_of_pad2d(padding):
    x = integers(2, 3, 4, 5)
    y = K.pad2d(x, padding)
    g = integers(*y.shape, seed=1)
    assert y.shape == (2, 3, 4 + 2 * padding[0], 5 + 2 * padding[1]) and y.sum() == x.sum()
    assert dot(y, g) == dot(x, K.crop2d(g, padding)) and same_bits(K.crop2d(y, padding), x)


@pytest.mark.parametrize("pad, before", [("both", 1), ("end", 0)])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_shortcut_backward_is_the_transpose_of_shortcut(pad, before, stride):
    x = integers(2, 3, 5, 4)
    y = K.shortcut(x, stride, 6, pad)
    expected = np.zeros_like(y)
    expected[:, before:before + 3] = x[:, :, ::stride, ::stride]
    assert y.shape == (2, 6, -(-5 // stride), -(-4 // stride)) and same_bits(y, expected)
    g = integers(*y.shape, seed=1)
    assert dot(y, g) == dot(x, K.shortcut_backward(g, x.shape, stride, pad))


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_pooling_backward_is_the_transpose_of_pooling(geometry):
    shape, kernel, stride, padding = geometry
    x = integers(*shape)
    y = K.avg_pool2d(x, kernel, stride, padding) * (kernel[0] * kernel[1])
    g = integers(*y.shape, seed=1)
    area = kernel[0] * kernel[1]
    np.testing.assert_allclose(dot(y, g), dot(x, K.avg_pool2d_backward(g, shape, kernel, stride, padding) * area),
                               rtol=1e-12, atol=1e-9)
    if all(2 * p <= k for k, p in zip(kernel, padding, strict=True)):
        y, winner = K.max_pool2d(x, kernel, stride, padding)
        gx = K.max_pool2d_backward(g, winner, shape, kernel, stride, padding)
        assert dot(y, g) == dot(x, gx) and gx.sum() == g.sum()  # a maximum is linear for a fixed winner


# ----------------------------------------------------------------------------- complex-step derivatives
# f(x + ih) = f(x) + ih f'(x) + O(h^2). Nothing is subtracted, so h = 1e-20 gives f' to the last digit.


def complex_step(f, x, g):
    out, h = np.empty(x.shape), 1e-20
    for at in np.ndindex(x.shape):
        z = x.astype(np.complex128)
        z[at] += 1j * h
        out[at] = (f(z).imag * g).sum() / h
    return out


@pytest.mark.parametrize("shape, kernel, stride, padding", GEOMETRIES[:5] + GEOMETRIES[-1:])
def test_conv2d_backward_by_complex_step(shape, kernel, stride, padding):
    x, w = normal(*shape), normal(4, shape[1], *kernel, seed=1)
    g = normal(*K.conv2d(x, w, stride, padding).shape, seed=2)
    gx, gw = K.conv2d_backward(g, x, w, stride, padding)
    assert difference(gx, complex_step(lambda z: K.conv2d(z, w.astype(complex), stride, padding), x, g)) < 1e-13
    assert difference(gw, complex_step(lambda z: K.conv2d(x.astype(complex), z, stride, padding), w, g)) < 1e-13


@pytest.mark.parametrize("shape", [(7, 3), (3, 2, 4, 5)])
@pytest.mark.parametrize("evaluating", [False, True])
def test_batch_norm_backward_by_complex_step(shape, evaluating):
    c = shape[1]
    x, gamma, beta, g = normal(*shape), normal(c, seed=1), normal(c, seed=2), normal(*shape, seed=3)
    mean, var = normal(c, seed=4), 1 + normal(c, seed=5) ** 2

    def forward(x, gamma, beta):
        if evaluating:
            return K.batch_norm_eval(x, gamma, beta, mean, var, 1e-5)
        y, _, _, saved = K.batch_norm(x, gamma, beta, 1e-5)
        return y, saved

    backward = K.batch_norm_eval_backward if evaluating else K.batch_norm_backward
    got = backward(g, gamma, forward(x, gamma, beta)[1])
    for one, expected in zip(got, [complex_step(lambda z: forward(z, gamma, beta)[0], x, g),
                                   complex_step(lambda z: forward(x, z, beta)[0], gamma, g),
                                   complex_step(lambda z: forward(x, gamma, z)[0], beta, g)], strict=True):
        assert difference(one, expected) < 1e-13


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_log_softmax_by_complex_step(axis):
    z, g = normal(3, 4, 2), normal(3, 4, 2, seed=1)
    p = np.exp(z) / np.exp(z).sum(axis, keepdims=True)
    expected = complex_step(lambda v: K.log_softmax(v, axis), z, g)
    assert difference(g - p * g.sum(axis, keepdims=True), expected) < 1e-13


def test_cross_entropy_backward_by_complex_step():
    z, labels = normal(5, 4), np.array([3, 0, 3, 1, 2])
    _, saved = K.cross_entropy(z, labels)
    expected = complex_step(lambda v: K.cross_entropy(v, labels)[0], z, 1.7)
    assert difference(K.cross_entropy_backward(1.7, saved, labels), expected) < 1e-13


# --------------------------------------------------------------------------------------- exact limits


@pytest.mark.parametrize("i, j", [(0, 0), (1, 1), (0, 2), (2, 1)])
def test_a_delta_kernel_shifts(i, j):
    x, w = normal(2, 1, 5, 6), np.zeros((1, 1, 3, 3))
    w[0, 0, i, j] = 1
    expected = np.zeros((2, 1, 9, 10))
    expected[:, :, 2:7, 2:8] = x
    expected = expected[:, :, i + 1:i + 6, j + 1:j + 7]  # correlation, not flipped: y[r, c] = x[r + i - 1, c + j - 1]
    y = K.conv2d(x, w, (1, 1), (1, 1))
    assert (y == expected).all()
    assert (i, j) != (1, 1) or same_bits(y + 0.0, x + 0.0)


def test_convolving_a_delta_gives_the_kernel_back_flipped():
    x, w = np.zeros((1, 1, 5, 5)), normal(3, 1, 3, 3)
    x[0, 0, 2, 2] = 1
    assert (K.conv2d(x, w, (1, 1), (0, 0))[0] == w[:, 0, ::-1, ::-1]).all()


def test_a_1x1_convolution_is_a_matmul():
    x, w = integers(2, 3, 4, 5), integers(6, 3, 1, 1, seed=1)
    expected = (x.transpose(0, 2, 3, 1) @ w[:, :, 0, 0].T).transpose(0, 3, 1, 2)
    assert (K.conv2d(x, w, (1, 1), (0, 0)) == expected).all()


def test_kernel_equal_to_stride_is_a_reshape_and_a_matmul():
    x, w = integers(2, 3, 6, 8), integers(5, 3, 3, 4, seed=1)
    blocks = x.reshape(2, 3, 2, 3, 2, 4).transpose(0, 2, 4, 1, 3, 5).reshape(2, 2, 2, 36)
    assert (K.conv2d(x, w, (3, 4), (0, 0)) == (blocks @ w.reshape(5, 36).T).transpose(0, 3, 1, 2)).all()


def test_a_stride_is_the_dense_result_subsampled():
    x, w = integers(2, 3, 7, 8), integers(4, 3, 3, 2, seed=1)
    dense = K.conv2d(x, w, (1, 1), (1, 1))
    assert (K.conv2d(x, w, (2, 3), (1, 1)) == dense[:, :, ::2, ::3]).all()


# ------------------------------------------------------------------------------------- batch norm, relu


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("with_skip", [False, True])
def test_batch_norm_relu_is_its_parts_bit_for_bit(dtype, with_skip):
    x, skip, g = (read_only(normal(3, 2, 4, 5, seed=s, dtype=dtype)) for s in range(3))
    gamma, beta = (normal(2, seed=s, dtype=dtype) for s in (3, 4))
    y, mean, var, saved = K.batch_norm_relu(x, gamma, beta, 1e-5, skip if with_skip else None)
    h, mean1, var1, saved1 = K.batch_norm(x, gamma, beta, 1e-5)
    z = h + skip if with_skip else h
    assert same_bits(y, np.maximum(z, 0)) and same_bits(mean, mean1) and same_bits(var, var1)
    gz = g * (z > 0)
    for a, b in zip(K.batch_norm_relu_backward(g, gamma, saved), (*K.batch_norm_backward(gz, gamma, saved1), gz),
                    strict=True):
        assert same_bits(a, b)


def test_the_gradient_of_batch_norm_is_orthogonal_to_ones_and_to_xhat():
    x, g = normal(8, 3, 4, 5), normal(8, 3, 4, 5, seed=1)
    _, _, _, saved = K.batch_norm(x, normal(3, seed=2), np.zeros(3), 0.0)
    gx, _, _ = K.batch_norm_backward(g, normal(3, seed=2), saved)
    xhat = (x - x.mean((0, 2, 3), keepdims=True)) / x.std((0, 2, 3), keepdims=True)
    assert abs(gx.sum((0, 2, 3))).max() < 1e-12 and abs((gx * xhat).sum((0, 2, 3))).max() < 1e-12


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 2e-3), (np.float64, 1e-11)])
def test_a_batch_of_mean_10000(dtype, tolerance):
    x = (1e4 + normal(16, 3, 4, 5)).astype(dtype)
    wide = x.astype(np.longdouble)
    expected = (wide - wide.mean((0, 2, 3), keepdims=True)) / np.sqrt(wide.var((0, 2, 3), keepdims=True) + 1e-5)
    y, _, var, _ = K.batch_norm(x, np.ones(3, dtype), np.zeros(3, dtype), 1e-5)
    assert difference(y, expected.astype(np.float64)) < tolerance
    assert difference(var, wide.var((0, 2, 3)).astype(np.float64)) < tolerance


def test_relu_keeps_nan_and_is_off_at_zero():
    y, on = K.relu(np.array([-1.0, 0.0, 2.0, np.nan]))
    assert y[:3].tolist() == [0, 0, 2] and np.isnan(y[3]) and on[:3].tolist() == [False, False, True]


def test_forward_twice_then_backward_of_the_first():
    x, other, g = normal(3, 2, 4, 5), normal(5, 2, 6, 3, seed=1), normal(3, 2, 4, 5, seed=2)
    gamma, beta = np.array([1.5, -1]), np.zeros(2)
    saved = K.batch_norm(x, gamma, beta, 1e-5)[3]
    alone = K.batch_norm_backward(g, gamma, saved)
    saved = K.batch_norm(x, gamma, beta, 1e-5)[3]
    K.batch_norm(other, gamma, beta, 1e-5)  # a different batch of a different size
    assert all(same_bits(a, b) for a, b in zip(alone, K.batch_norm_backward(g, gamma, saved), strict=True))


# ------------------------------------------------------------------------------------------- the edges


@pytest.mark.parametrize("kernel, padding", [((5, 1), (0, 0)), ((1, 6), (0, 0)), ((7, 7), (1, 0))])
def test_a_kernel_larger_than_its_input_is_refused(kernel, padding):
    with pytest.raises(ValueError, match=f"a kernel of {kernel[0]}x{kernel[1]} is larger than the input of 4x5"):
        K.im2col(np.ones((1, 1, 4, 5)), kernel, (1, 1), padding)


@pytest.mark.parametrize("kernel, stride, padding", [((0, 1), (1, 1), (0, 0)), ((1, 1), (0, 1), (0, 0)),
                                                     ((1, 1), (1, 1), (-1, 0))])
def test_impossible_windows_are_refused(kernel, stride, padding):
    with pytest.raises(ValueError, match="expected kernel >= 1, stride >= 1, padding >= 0 and dilation >= 1"):
        K.output_size((4, 5), kernel, stride, padding)


def test_leftover_rows():
    assert K.output_size((32, 32), (3, 3), (2, 2), (1, 1)) == (16, 16)
    assert K.output_size((7, 5), (3, 2), (2, 2), (0, 0)) == (3, 2)
    assert K.output_size((4, 5), (4, 5), (9, 9), (0, 0)) == (1, 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_is_kept(dtype):
    x, w = normal(2, 3, 6, 5, dtype=dtype), normal(4, 3, 3, 2, dtype=dtype)
    v = np.ones(3, dtype)
    y = K.conv2d(x, w, (2, 1), (1, 0))
    pooled, winner = K.max_pool2d(x, (2, 2), (2, 2), (0, 0))
    arrays = [y, *K.conv2d_backward(y, x, w, (2, 1), (1, 0)), *K.batch_norm(x, v, v, 1e-5)[:3], pooled,
              K.max_pool2d_backward(pooled, winner, x.shape, (2, 2), (2, 2), (0, 0)),
              K.avg_pool2d(x, (2, 2), (2, 2), (1, 1)), K.shortcut(x, 2, 5, "both"), K.log_softmax(x, 1), K.relu(x)[0],
              K.batch_norm_eval(x, v, v, v, v, 1e-5)[0]]
    assert {a.dtype for a in arrays} == {np.dtype(dtype)}


def test_which_kernels_an_array_gets():
    assert kernels.of(np.ones(1)) is K and kernels.of(np.ones(1, np.float32)) is not K
    with kernels.using("reference"):
        assert kernels.of(np.ones(1, np.float32)) is K
    names = "of auto, native, blocked, reference, shapes"
    with pytest.raises(ValueError, match=rf"kernels\.using: expected one {names}, got 'fast'"), kernels.using("fast"):
        pass
