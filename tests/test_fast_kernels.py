"""blocked.py and native.py equal reference.py, whatever the shape, memory layout and thread count."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import (
    CONVOLUTIONS,
    EPS,
    LAYOUTS,
    NORMS,
    POOLS,
    SPARSE,
    all_kernels,
    arguments,
    assert_close,
    check_batch_norm,
    check_convolution,
    every_other,
    f64,
    normal,
)

from minires.kernels import blocked, grouped, native, parallel, reference


@pytest.fixture(scope="module", params=[blocked, native], ids=["blocked", "native"])
def K(request):
    if request.param is native and not native.ready():
        pytest.skip(native.reason())
    return request.param


@pytest.fixture(autouse=True)
def _share_small_work_too(monkeypatch):
    """The arrays here are small; without this one thread would do it all and nothing about threads be tested."""
    monkeypatch.setattr(parallel, "threads_worth", lambda work, cache, threads: threads)
    monkeypatch.setattr(native, "WORTH_SHARING", 0)
    monkeypatch.setattr(native, "SMALL", 1)
    with parallel.session(threads=2):
        yield


# --------------------------------------------------------------------------------- convolution

@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolution_equals_reference(K, case):
    check_convolution(K, *case)


@pytest.mark.parametrize("layout", ["channels last", "every other"])
@pytest.mark.parametrize("case", SPARSE, ids=str)
def test_convolution_with_dilation_and_groups_equals_reference(K, case, layout):
    *dense, dilation, groups = case
    check_convolution(K, *dense, layout=LAYOUTS[layout], dilation=dilation, groups=groups)


def test_gradients_of_groups_that_are_not_needed_are_none(K):
    x, w = normal(0, 2, 6, 5, 4), normal(1, 6, 3, 3, 3)
    g, geometry = normal(2, 2, 6, 5, 4), ((1, 1), (1, 1))
    gx, gw = K.conv2d_backward(g, x, w, *geometry, groups=2)
    for need_x, need_w in (True, False), (False, True), (False, False):
        one, other = K.conv2d_backward(g, x, w, *geometry, need_x, need_w, groups=2)
        assert (one is None) != need_x and (other is None) != need_w
        for got, want in (one, gx), (other, gw):
            if got is not None:
                assert_close(got, want.astype(np.float64), 1e-6)


@pytest.mark.parametrize("groups, channels, n", [(4, 8, 2), (4, 16, 1), (32, 4, 4), (6, 3, 6), (5, 1, 5), (9, 6, 3)])
def test_groups_are_joined_until_they_fill_a_vector(groups, channels, n):
    w = normal(0, groups * channels, channels, 2, 1)
    assert grouped.joined(w, groups) == n
    dense = grouped.dense(w, groups, n)
    assert dense.shape == (groups // n, n * channels, n * channels, 2, 1)
    assert (dense != 0).sum() == w.size
    assert (grouped.diagonal(dense, w, groups, n) == w).all()
    c = normal(1, *dense.shape)  # <dense(w), c> = <w, diagonal(c)>
    np.testing.assert_allclose((dense * c).sum(dtype=np.float64),
                               (w * grouped.diagonal(c, w, groups, n)).sum(dtype=np.float64), rtol=1e-4, atol=1e-4)


def test_max_pooling_with_dilation_equals_reference(K):
    x, window = normal(0, 3, 5, 9, 8), ((2, 3), (2, 1), (1, 1), (2, 2))
    y, winner = K.max_pool2d(x, *window)
    expected, places = reference.max_pool2d(x.astype(np.float64), *window)
    assert_close(y, expected)
    g = normal(1, *y.shape)
    assert_close(K.max_pool2d_backward(g, winner, x.shape, *window),
                 reference.max_pool2d_backward(g.astype(np.float64), places, x.shape, *window))


@pytest.mark.parametrize("case", [CONVOLUTIONS[i] for i in (3, 4, 8)], ids=str)
def test_gradients_not_needed_are_none_and_the_other_is_right(K, case):
    N, C, H, W, O, kernel, stride, padding = case
    x, w = normal(0, N, C, H, W), normal(1, O, C, *kernel)
    g = normal(2, *K.conv2d(x, w, stride, padding).shape)
    expected_x, expected_w = reference.conv2d_backward(*f64(g, x, w), stride, padding)
    gx, gw = K.conv2d_backward(g, x, w, stride, padding, need_x=False)
    assert gx is None
    assert_close(gw, expected_w)
    gx, gw = K.conv2d_backward(g, x, w, stride, padding, need_w=False)
    assert gw is None
    assert_close(gx, expected_x)
    assert K.conv2d_backward(g, x, w, stride, padding, need_x=False, need_w=False) == (None, None)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", [(6, 5, 9, 7, 4, (3, 3), (1, 1), (1, 1)),
                                  (6, 5, 9, 7, 4, (3, 2), (2, 3), (1, 0))], ids=str)
def test_convolution_takes_any_memory_layout(K, case, layout):
    check_convolution(K, *case, layout=LAYOUTS[layout])


def test_convolution_takes_weights_in_any_layout_and_a_broadcast_gradient(K):
    x, w = normal(0, 4, 3, 6, 6), normal(1, 5, 3, 3, 3)
    for odd_w in (every_other(w), np.asfortranarray(w), w[:, :, ::-1, ::-1].copy()[:, :, ::-1, ::-1]):
        assert_close(K.conv2d(x, odd_w, (1, 1), (1, 1)), reference.conv2d(*f64(x, w), (1, 1), (1, 1)))
        g = np.broadcast_to(np.float32(0.5), (4, 5, 6, 6))  # the gradient of a mean
        got = K.conv2d_backward(g, x, odd_w, (1, 1), (1, 1))
        for a, b in zip(got, reference.conv2d_backward(*f64(g, x, w), (1, 1), (1, 1)), strict=True):
            assert_close(a, b)


def test_convolution_rejects_a_kernel_larger_than_the_input(K):
    with pytest.raises(ValueError, match="larger than the input"):
        K.conv2d(normal(0, 1, 1, 2, 2), normal(0, 1, 1, 3, 3), (1, 1), (0, 0))


pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), pairs,
       pairs, st.tuples(st.integers(0, 4), st.integers(0, 4)), st.sampled_from(sorted(LAYOUTS)))
def test_any_small_convolution_equals_reference(K, N, C, H, W, O, kernel, stride, padding, layout):
    if H + 2 * padding[0] >= kernel[0] and W + 2 * padding[1] >= kernel[1]:
        check_convolution(K, N, C, H, W, O, kernel, stride, padding, LAYOUTS[layout])


def test_a_convolution_of_the_batch_is_that_of_its_images(K):
    x, w = LAYOUTS["channels last"](normal(0, 23, 8, 12, 12)), normal(1, 8, 8, 3, 3)
    one_by_one = np.concatenate([K.conv2d(x[i:i + 1], w, (1, 1), (1, 1)) for i in range(len(x))])
    assert_close(K.conv2d(x, w, (1, 1), (1, 1)), one_by_one.astype(np.float64), 1e-6)


# ---------------------------------------------------------------------------------- batch norm

@pytest.mark.parametrize("with_skip", [False, True])
@pytest.mark.parametrize("case", NORMS, ids=str)
def test_batch_norm_equals_reference(K, case, with_skip):
    shape, mean, std = case
    check_batch_norm(K, normal(0, *shape, mean=mean, std=std), normal(1, *shape) if with_skip else None)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_batch_norm_takes_any_memory_layout(K, layout):
    x, skip = normal(0, 7, 5, 6, 4, mean=3), normal(1, 7, 5, 6, 4)
    check_batch_norm(K, x, skip, LAYOUTS[layout])


@settings(max_examples=60)  # thousands of examples would include sums that cancel to an error of 1.2e-5 in float32
@given(st.integers(2, 9), st.integers(1, 9), st.integers(1, 7), st.integers(1, 7),
       st.sampled_from([0.0, 1.0, 5.0, -30.0, 1e4]), st.booleans())
def test_any_small_batch_norm_equals_reference(K, N, C, H, W, mean, with_skip):
    x = normal(0, N, C, 2 * H, W, mean=mean)  # at least four values per channel, because with two dL/dx is all rounding
    check_batch_norm(K, x, normal(1, *x.shape) if with_skip else None)


def test_batch_norm_with_blocks_that_have_nothing_in_common(K, monkeypatch):
    """Give every image a mean far from all others, which needs an exact combination of the blocks."""
    monkeypatch.setattr(parallel, "cache_bytes", lambda: 1)  # one image per block
    x = normal(0, 12, 3, 8, 8) + np.arange(12, dtype=np.float32).reshape(-1, 1, 1, 1) * 1000
    check_batch_norm(K, x, None)
    check_batch_norm(K, x[::-1] - 1e4, normal(1, *x.shape))


def test_batch_norm_with_channels_of_very_different_means(K):
    x = normal(0, 16, 4, 8, 8)
    x += np.array([0, 1e4, -3, 300], np.float32).reshape(1, -1, 1, 1)
    check_batch_norm(K, x, normal(1, *x.shape))


def test_constant_channels_come_out_as_beta_exactly_enough(K):
    x = np.full((8, 3, 4, 4), 7.3, np.float32)
    x[:, 1] = 0
    gamma, beta = normal(1, 3), normal(2, 3)
    y, mean, var, saved = K.batch_norm(x, gamma, beta, EPS)
    np.testing.assert_allclose(y, np.broadcast_to(beta.reshape(1, 3, 1, 1), x.shape), atol=1e-4)
    np.testing.assert_allclose(mean, x.mean((0, 2, 3)), rtol=1e-6)
    assert (var >= 0).all() and (var < 1e-9).all()
    assert all(np.isfinite(v).all() for v in K.batch_norm_backward(normal(3, *x.shape), gamma, saved))


@pytest.mark.parametrize("mean", [0.0, 1e4])
@pytest.mark.parametrize("shape", [(9, 5, 6, 4), (3, 513, 1, 1), (1, 1, 7, 7), (6, 4)], ids=str)
def test_batch_norm_eval_equals_reference(K, shape, mean):
    C = shape[1]
    x, gamma, beta, g = normal(0, *shape, mean=mean), normal(1, C), normal(2, C), normal(3, *shape)
    running_mean, running_var = normal(4, C, mean=mean), np.abs(normal(5, C)) + np.float32(0.5)
    y, saved = K.batch_norm_eval(x, gamma, beta, running_mean, running_var, EPS)
    expected, expected_saved = reference.batch_norm_eval(*f64(x, gamma, beta, running_mean, running_var), EPS)
    assert_close(y, expected)
    got = K.batch_norm_eval_backward(g, gamma, saved)
    for a, b in zip(got, reference.batch_norm_eval_backward(*f64(g, gamma), expected_saved), strict=True):
        assert_close(a, b)


def test_nan_is_seen_and_not_hidden(K):
    x = normal(0, 4, 3, 5, 5)
    x[2, 1, 3, 3] = np.nan
    ones = np.ones(3, np.float32)
    y = K.batch_norm_relu(x, ones, ones, EPS)[0]
    assert np.isnan(y[:, 1]).all() and not np.isnan(y[:, [0, 2]]).any()
    seen = np.isnan(K.conv2d(x, normal(1, 2, 3, 3, 3), (1, 1), (1, 1)))
    assert seen[2, :, 2:5, 2:5].all() and seen.sum() == 2 * 9


def test_the_mask_is_closed_at_zero(K):
    """Test that dL/dx of relu at exactly 0 is 0, as in the reference."""
    x = np.zeros((4, 2, 3, 3), np.float32)
    gamma, beta = np.ones(2, np.float32), np.zeros(2, np.float32)
    skip = normal(0, *x.shape)
    skip[0] = 0
    saved = K.batch_norm_relu(x, gamma, beta, EPS, skip)[3]
    gskip = K.batch_norm_relu_backward(np.ones_like(x), gamma, saved)[3]
    np.testing.assert_array_equal(gskip, (skip > 0).astype(np.float32))


# ------------------------------------------------------------------------- pooling and shortcut

@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", POOLS, ids=str)
def test_pooling_equals_reference(K, case, layout):
    shape, *window = case
    x = LAYOUTS[layout](np.round(normal(0, *shape) * 2))  # rounded, for many ties
    y, saved = K.max_pool2d(x, *window)
    expected, winner = reference.max_pool2d(x.astype(np.float64), *window)
    np.testing.assert_array_equal(y, expected)
    g = normal(1, *y.shape)
    got = K.max_pool2d_backward(g, saved, shape, *window)
    assert_close(got, reference.max_pool2d_backward(g.astype(np.float64), winner, shape, *window))
    assert_close(K.avg_pool2d(x, *window), reference.avg_pool2d(x.astype(np.float64), *window))
    got = K.avg_pool2d_backward(g, shape, *window)
    assert_close(got, reference.avg_pool2d_backward(g.astype(np.float64), shape, *window))


def test_max_pooling_treats_nan_and_minus_infinity_as_the_reference_does(K):
    x = normal(0, 3, 2, 6, 6)
    x[0, 0, 0, 0] = x[0, 0, 0, 1] = x[1, 1, 3, 3] = np.nan
    x[2] = -np.inf
    window = (3, 3), (2, 2), (1, 1)
    (y, saved), (expected, winner) = K.max_pool2d(x, *window), reference.max_pool2d(x, *window)
    np.testing.assert_array_equal(y, expected)
    g = normal(1, *y.shape)
    np.testing.assert_allclose(K.max_pool2d_backward(g, saved, x.shape, *window),
                               reference.max_pool2d_backward(g, winner, x.shape, *window), rtol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pad", ["both", "end"])
@pytest.mark.parametrize("shape, stride, channels",
                         [((5, 4, 8, 8), 2, 8), ((2, 3, 7, 5), 2, 6), ((1, 1, 3, 3), 1, 4)])
def test_shortcut_equals_reference(K, shape, stride, channels, pad, layout):
    x = normal(0, *shape)
    y = K.shortcut(LAYOUTS[layout](x), stride, channels, pad)
    np.testing.assert_array_equal(y, reference.shortcut(x, stride, channels, pad))
    g = normal(1, *y.shape)
    got = K.shortcut_backward(LAYOUTS[layout](g), shape, stride, pad)
    np.testing.assert_array_equal(got, reference.shortcut_backward(g, shape, stride, pad))


# ---------------------------------------------------------------------------- properties of all kernels

@pytest.mark.parametrize("layout", ["channels last", "channels first"])
def test_inputs_are_never_written_to_nor_handed_back(K, layout):
    x, g, *rest = arguments(N=5)
    given = [LAYOUTS[layout](x), LAYOUTS[layout](g), *rest]
    before = [v.copy() for v in given]
    for v in given:
        v.flags.writeable = False
    out = all_kernels(K, *given)
    for v, old in zip(given, before, strict=True):
        np.testing.assert_array_equal(v, old)
    for i, y in enumerate(out):
        assert y.dtype == np.float32, f"output {i} is {y.dtype}"
        assert not any(np.shares_memory(y, v) for v in given), f"output {i} shares memory with an input"
        assert y.flags.writeable
        of_weights = y.shape[2:] == (3, 3)
        assert y.ndim != 4 or of_weights or y.transpose(0, 2, 3, 1).flags.c_contiguous, f"output {i}"



@pytest.mark.parametrize("one", LAYOUTS)
@pytest.mark.parametrize("other", LAYOUTS)
def test_addition_is_numpys_to_the_bit(K, one, other, monkeypatch):
    monkeypatch.setattr(blocked, "LARGE", 1)  # small arrays too
    for a, b in (normal(1, 5, 7, 6, 3), normal(2, 5, 7, 6, 3)), (normal(1, 1, 2, 3, 1), normal(2, 1, 2, 3, 1)):
        got = K.add(LAYOUTS[one](a), LAYOUTS[other](b))
        assert got.dtype == np.float32 and np.array_equal(got, a + b)
        if one == other == "channels last":
            assert got.strides == LAYOUTS[one](a).strides


def test_addition_takes_any_number_of_dimensions(K, monkeypatch):
    monkeypatch.setattr(blocked, "LARGE", 1)
    for shape in (), (9,), (4, 3), (5, 0), (2, 3, 4), (2, 3, 4, 5, 6):
        a, b = normal(1, *shape), normal(2, *shape)
        assert np.array_equal(K.add(a, b), a + b)


def test_outputs_of_one_kernel_share_no_memory(K):
    x, g, _, gamma, beta = arguments(N=5)
    saved = K.batch_norm_relu(x, gamma, beta, EPS, x)[3]
    gx, _, _, gskip = K.batch_norm_relu_backward(g, gamma, saved)
    assert not np.shares_memory(gx, gskip)


def test_every_public_function_has_its_twins_signature(K):
    import inspect

    for name in K.__all__:
        fast, slow = getattr(K, name), getattr(reference, name)
        assert inspect.signature(fast) == inspect.signature(slow), name
