"""Test that kernels/blocked.py equals kernels/reference.py for every shape, memory layout and thread count."""
from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import tracemalloc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minires.kernels import blocked, parallel, reference

# The expected values come from reference.py in float64. A float32 kernel rounds every sum of K products by about
# sqrt(K) * 6e-8 of its norm, which is 1e-6 for the longest sums here. 1e-5 leaves a factor of ten. A single value
# among 10,000 that is missing, doubled or misplaced already changes the norm by 1e-2.
TOLERANCE = 1e-5
THREADS_WORTH = parallel.threads_worth
EPS = 1e-5


@pytest.fixture(autouse=True)
def _share_small_work_too(monkeypatch):
    """Share small work too, because otherwise one thread would process these small arrays and threads were untested."""
    monkeypatch.setattr(parallel, "threads_worth", lambda work, cache, threads: threads)


def f64(*arrays):
    return tuple(a.astype(np.float64) for a in arrays)


def assert_close(got, expected, tolerance=TOLERANCE, name=""):
    assert got.dtype == np.float32, f"{name}: expected float32, got {got.dtype}"
    assert got.shape == expected.shape, f"{name}: expected shape {expected.shape}, got {got.shape}"
    error = np.linalg.norm((got - expected).ravel())
    assert error <= tolerance * np.linalg.norm(expected.ravel()) + 1e-30, \
        f"{name}: relative error {error / (np.linalg.norm(expected.ravel()) + 1e-30):.1e}"


def normal(seed, *shape, mean=0.0, std=1.0):
    return (np.random.default_rng(seed).standard_normal(shape) * std + mean).astype(np.float32)


def every_other(x):
    """Return x as a slice of a larger array in which no two values of x are neighbours."""
    memory = np.full([2 * n for n in x.shape], np.nan, x.dtype)
    view = memory[tuple(slice(1, None, 2) for _ in x.shape)]
    view[...] = x
    return view


LAYOUTS = {  # the same values and shape (N, C, H, W) in different memory layouts
    "channels last": lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "channels first": np.ascontiguousarray,
    "channel outermost": lambda x: np.ascontiguousarray(x.transpose(1, 0, 2, 3)).transpose(1, 0, 2, 3),
    "every other": every_other,
    "backwards": lambda x: np.ascontiguousarray(x[::-1, ::-1, ::-1, ::-1])[::-1, ::-1, ::-1, ::-1],
    "columns first": lambda x: np.asfortranarray(x),
}


# --------------------------------------------------------------------------------- convolution

CONVOLUTIONS = [  # N, C, H, W, O, kernel, stride, padding
    (37, 16, 32, 32, 16, (3, 3), (1, 1), (1, 1)),  # a batch that does not fill its blocks
    (9, 32, 16, 16, 32, (3, 3), (1, 1), (1, 1)),
    (7, 64, 8, 8, 64, (3, 3), (1, 1), (1, 1)),
    (5, 3, 32, 32, 16, (3, 3), (1, 1), (1, 1)),
    (6, 16, 32, 32, 32, (3, 3), (2, 2), (1, 1)),   # a leftover row and column
    (4, 3, 7, 5, 6, (3, 2), (2, 2), (0, 0)),
    (4, 3, 6, 8, 5, (3, 3), (2, 2), (1, 1)),
    (3, 4, 9, 9, 5, (1, 1), (1, 1), (0, 0)),
    (3, 4, 9, 8, 5, (1, 1), (2, 2), (0, 0)),
    (3, 4, 9, 8, 5, (1, 1), (3, 2), (0, 0)),
    (1, 5, 11, 6, 7, (3, 3), (1, 1), (1, 1)),      # one image
    (1, 1, 1, 1, 1, (1, 1), (1, 1), (0, 0)),
    (2, 1, 8, 8, 4, (3, 3), (1, 1), (1, 1)),       # C = 1
    (2, 4, 8, 8, 1, (3, 3), (1, 1), (1, 1)),       # O = 1
    (2, 513, 5, 4, 3, (3, 3), (1, 1), (1, 1)),
    (2, 3, 5, 4, 513, (3, 3), (2, 1), (1, 1)),
    (2, 256, 7, 7, 256, (3, 3), (1, 1), (1, 1)),   # even one image row is too large for a small product
    (2, 192, 9, 9, 192, (3, 3), (2, 2), (1, 1)),
    (3, 2, 20, 17, 4, (7, 7), (2, 2), (3, 3)),
    (3, 2, 9, 12, 4, (5, 1), (1, 2), (2, 0)),
    (3, 2, 9, 12, 4, (2, 4), (3, 1), (1, 2)),
    (3, 2, 10, 10, 4, (2, 2), (3, 3), (0, 0)),     # pixels that no window contains
    (3, 2, 4, 4, 3, (3, 3), (1, 1), (4, 5)),       # windows that contain only padding
    (3, 2, 4, 4, 3, (3, 3), (2, 3), (5, 4)),
    (3, 2, 4, 5, 3, (4, 5), (1, 1), (0, 0)),       # one window
]


def check_convolution(N, C, H, W, O, kernel, stride, padding, layout=LAYOUTS["channels last"], seed=0):
    x, w = normal(seed, N, C, H, W), normal(seed + 1, O, C, *kernel)
    y = blocked.conv2d(layout(x), w, stride, padding)
    expected = reference.conv2d(*f64(x, w), stride, padding)
    assert_close(y, expected, name="y")
    g = normal(seed + 2, *expected.shape)
    expected_x, expected_w = reference.conv2d_backward(*f64(g, x, w), stride, padding)
    gx, gw = blocked.conv2d_backward(layout(g), layout(x), w, stride, padding)
    assert_close(gx, expected_x, name="gx")
    assert_close(gw, expected_w, name="gw")


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolution_equals_reference(case):
    check_convolution(*case)


@pytest.mark.parametrize("case", [CONVOLUTIONS[i] for i in (3, 4, 8)], ids=str)
def test_gradients_not_needed_are_none_and_the_other_is_right(case):
    N, C, H, W, O, kernel, stride, padding = case
    x, w = normal(0, N, C, H, W), normal(1, O, C, *kernel)
    g = normal(2, *blocked.conv2d(x, w, stride, padding).shape)
    expected_x, expected_w = reference.conv2d_backward(*f64(g, x, w), stride, padding)
    gx, gw = blocked.conv2d_backward(g, x, w, stride, padding, need_x=False)
    assert gx is None
    assert_close(gw, expected_w)
    gx, gw = blocked.conv2d_backward(g, x, w, stride, padding, need_w=False)
    assert gw is None
    assert_close(gx, expected_x)
    assert blocked.conv2d_backward(g, x, w, stride, padding, need_x=False, need_w=False) == (None, None)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", [(6, 5, 9, 7, 4, (3, 3), (1, 1), (1, 1)),
                                  (6, 5, 9, 7, 4, (3, 2), (2, 3), (1, 0))], ids=str)
def test_convolution_takes_any_memory_layout(case, layout):
    check_convolution(*case, layout=LAYOUTS[layout])


def test_convolution_takes_weights_in_any_layout_and_a_broadcast_gradient():
    x, w = normal(0, 4, 3, 6, 6), normal(1, 5, 3, 3, 3)
    for odd_w in (every_other(w), np.asfortranarray(w), w[:, :, ::-1, ::-1].copy()[:, :, ::-1, ::-1]):
        assert_close(blocked.conv2d(x, odd_w, (1, 1), (1, 1)), reference.conv2d(*f64(x, w), (1, 1), (1, 1)))
        g = np.broadcast_to(np.float32(0.5), (4, 5, 6, 6))  # the gradient of a mean
        got = blocked.conv2d_backward(g, x, odd_w, (1, 1), (1, 1))
        for a, b in zip(got, reference.conv2d_backward(*f64(g, x, w), (1, 1), (1, 1)), strict=True):
            assert_close(a, b)


def test_convolution_rejects_a_kernel_larger_than_the_input():
    with pytest.raises(ValueError, match="larger than the input"):
        blocked.conv2d(normal(0, 1, 1, 2, 2), normal(0, 1, 1, 3, 3), (1, 1), (0, 0))


pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), pairs,
       pairs, st.tuples(st.integers(0, 4), st.integers(0, 4)), st.sampled_from(sorted(LAYOUTS)))
def test_any_small_convolution_equals_reference(N, C, H, W, O, kernel, stride, padding, layout):
    if H + 2 * padding[0] >= kernel[0] and W + 2 * padding[1] >= kernel[1]:
        check_convolution(N, C, H, W, O, kernel, stride, padding, LAYOUTS[layout])


def test_a_convolution_of_the_batch_is_that_of_its_images():
    x, w = LAYOUTS["channels last"](normal(0, 23, 8, 12, 12)), normal(1, 8, 8, 3, 3)
    one_by_one = np.concatenate([blocked.conv2d(x[i:i + 1], w, (1, 1), (1, 1)) for i in range(len(x))])
    assert_close(blocked.conv2d(x, w, (1, 1), (1, 1)), one_by_one.astype(np.float64), 1e-6)


# ---------------------------------------------------------------------------------- batch norm

NORMS = [  # shape, mean, std
    ((37, 16, 32, 32), 0.0, 1.0),
    ((9, 32, 16, 16), 0.5, 2.0),
    ((1, 5, 7, 3), 0.0, 1.0),
    ((6, 1, 5, 4), 0.0, 1.0),
    ((3, 513, 2, 3), 0.0, 1.0),
    ((13, 7), 0.0, 1.0),
    ((5, 3, 11), 1.0, 1.0),
    ((33, 6, 8, 8), 1e4, 1.0),
    ((33, 6, 8, 8), -1e4, 100.0),
    ((33, 6, 8, 8), 5.0, 1.0),
    ((2, 3, 1, 1), 0.0, 1.0),
]


def check_batch_norm(x, skip, layout=lambda a: a):
    C = x.shape[1]
    gamma, beta, g = normal(5, C), normal(6, C), normal(7, *x.shape)
    wide = f64(x, gamma, beta)
    # The test uses the kernel's own mask, because at the kink of the ReLU a float32 sum may round to the other side.
    for relu in (False, True):
        if relu:
            skips = (None, None) if skip is None else (layout(skip), skip.astype(np.float64))
            y, mean, var, saved = blocked.batch_norm_relu(layout(x), gamma, beta, EPS, skips[0])
            expected = reference.batch_norm_relu(*wide, EPS, skips[1])
        else:
            y, mean, var, saved = blocked.batch_norm(layout(x), gamma, beta, EPS)
            expected = reference.batch_norm(*wide, EPS)
        assert_close(y, expected[0], name="y")
        assert_close(mean, expected[1], name="mean")
        assert_close(var, expected[2], name="var")
        plain = reference.batch_norm(*wide, EPS)[3]
        if relu:
            masked = g * (y > 0)
            *got, gskip = blocked.batch_norm_relu_backward(layout(g), gamma, saved)
            if skip is None:
                assert gskip is None
            else:
                assert_close(gskip, masked.astype(np.float64), name="gskip")
        else:
            masked, got = g, blocked.batch_norm_backward(layout(g), gamma, saved)
        expected = reference.batch_norm_backward(masked.astype(np.float64), gamma.astype(np.float64), plain)
        for name, a, b in zip(("gx", "ggamma", "gbeta"), got, expected, strict=True):
            assert_close(a, b, name=f"{name}, relu {relu}")


@pytest.mark.parametrize("with_skip", [False, True])
@pytest.mark.parametrize("case", NORMS, ids=str)
def test_batch_norm_equals_reference(case, with_skip):
    shape, mean, std = case
    check_batch_norm(normal(0, *shape, mean=mean, std=std), normal(1, *shape) if with_skip else None)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_batch_norm_takes_any_memory_layout(layout):
    x, skip = normal(0, 7, 5, 6, 4, mean=3), normal(1, 7, 5, 6, 4)
    check_batch_norm(x, skip, LAYOUTS[layout])


@settings(max_examples=60)  # thousands of examples would include sums that cancel to an error of 1.2e-5 in float32
@given(st.integers(2, 9), st.integers(1, 9), st.integers(1, 7), st.integers(1, 7),
       st.sampled_from([0.0, 1.0, 5.0, -30.0, 1e4]), st.booleans())
def test_any_small_batch_norm_equals_reference(N, C, H, W, mean, with_skip):
    x = normal(0, N, C, 2 * H, W, mean=mean)  # at least four values per channel, because with two dL/dx is all rounding
    check_batch_norm(x, normal(1, *x.shape) if with_skip else None)


def test_batch_norm_with_blocks_that_have_nothing_in_common(monkeypatch):
    """Give every image a mean far from all others, which needs an exact combination of the blocks."""
    monkeypatch.setattr(parallel, "cache_bytes", lambda: 1)  # one image per block
    x = normal(0, 12, 3, 8, 8) + np.arange(12, dtype=np.float32).reshape(-1, 1, 1, 1) * 1000
    check_batch_norm(x, None)
    check_batch_norm(x[::-1] - 1e4, normal(1, *x.shape))


def test_batch_norm_with_channels_of_very_different_means():
    x = normal(0, 16, 4, 8, 8)
    x += np.array([0, 1e4, -3, 300], np.float32).reshape(1, -1, 1, 1)
    check_batch_norm(x, normal(1, *x.shape))


def test_constant_channels_come_out_as_beta_exactly_enough():
    x = np.full((8, 3, 4, 4), 7.3, np.float32)
    x[:, 1] = 0
    gamma, beta = normal(1, 3), normal(2, 3)
    y, mean, var, saved = blocked.batch_norm(x, gamma, beta, EPS)
    np.testing.assert_allclose(y, np.broadcast_to(beta.reshape(1, 3, 1, 1), x.shape), atol=1e-4)
    np.testing.assert_allclose(mean, x.mean((0, 2, 3)), rtol=1e-6)
    assert (var >= 0).all() and (var < 1e-9).all()
    assert all(np.isfinite(v).all() for v in blocked.batch_norm_backward(normal(3, *x.shape), gamma, saved))


@pytest.mark.parametrize("mean", [0.0, 1e4])
@pytest.mark.parametrize("shape", [(9, 5, 6, 4), (3, 513, 1, 1), (1, 1, 7, 7), (6, 4)], ids=str)
def test_batch_norm_eval_equals_reference(shape, mean):
    C = shape[1]
    x, gamma, beta, g = normal(0, *shape, mean=mean), normal(1, C), normal(2, C), normal(3, *shape)
    running_mean, running_var = normal(4, C, mean=mean), np.abs(normal(5, C)) + np.float32(0.5)
    y, saved = blocked.batch_norm_eval(x, gamma, beta, running_mean, running_var, EPS)
    expected, expected_saved = reference.batch_norm_eval(*f64(x, gamma, beta, running_mean, running_var), EPS)
    assert_close(y, expected)
    got = blocked.batch_norm_eval_backward(g, gamma, saved)
    for a, b in zip(got, reference.batch_norm_eval_backward(*f64(g, gamma), expected_saved), strict=True):
        assert_close(a, b)


def test_nan_is_seen_and_not_hidden():
    x = normal(0, 4, 3, 5, 5)
    x[2, 1, 3, 3] = np.nan
    ones = np.ones(3, np.float32)
    y = blocked.batch_norm_relu(x, ones, ones, EPS)[0]
    assert np.isnan(y[:, 1]).all() and not np.isnan(y[:, [0, 2]]).any()
    seen = np.isnan(blocked.conv2d(x, normal(1, 2, 3, 3, 3), (1, 1), (1, 1)))
    assert seen[2, :, 2:5, 2:5].all() and seen.sum() == 2 * 9


def test_the_mask_is_closed_at_zero():
    """Test that dL/dx of relu at exactly 0 is 0, as in the reference."""
    x = np.zeros((4, 2, 3, 3), np.float32)
    gamma, beta = np.ones(2, np.float32), np.zeros(2, np.float32)
    skip = normal(0, *x.shape)
    skip[0] = 0
    saved = blocked.batch_norm_relu(x, gamma, beta, EPS, skip)[3]
    gskip = blocked.batch_norm_relu_backward(np.ones_like(x), gamma, saved)[3]
    np.testing.assert_array_equal(gskip, (skip > 0).astype(np.float32))


# ------------------------------------------------------------------------- pooling and shortcut

POOLS = [  # shape, kernel, stride, padding
    ((5, 3, 8, 8), (2, 2), (2, 2), (0, 0)),
    ((5, 3, 9, 7), (3, 3), (2, 2), (1, 1)),
    ((2, 1, 6, 5), (3, 2), (1, 3), (1, 1)),
    ((3, 513, 4, 4), (4, 4), (4, 4), (0, 0)),
    ((1, 4, 7, 7), (1, 1), (2, 2), (0, 0)),
    ((1, 2, 20, 20), (17, 17), (2, 2), (0, 0)),  # more elements than fit in a byte
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", POOLS, ids=str)
def test_pooling_equals_reference(case, layout):
    shape, *window = case
    x = LAYOUTS[layout](np.round(normal(0, *shape) * 2))  # rounded, for many ties
    y, saved = blocked.max_pool2d(x, *window)
    expected, winner = reference.max_pool2d(x.astype(np.float64), *window)
    np.testing.assert_array_equal(y, expected)
    g = normal(1, *y.shape)
    got = blocked.max_pool2d_backward(g, saved, shape, *window)
    assert_close(got, reference.max_pool2d_backward(g.astype(np.float64), winner, shape, *window))
    assert_close(blocked.avg_pool2d(x, *window), reference.avg_pool2d(x.astype(np.float64), *window))
    got = blocked.avg_pool2d_backward(g, shape, *window)
    assert_close(got, reference.avg_pool2d_backward(g.astype(np.float64), shape, *window))


def test_max_pooling_treats_nan_and_minus_infinity_as_the_reference_does():
    x = normal(0, 3, 2, 6, 6)
    x[0, 0, 0, 0] = x[0, 0, 0, 1] = x[1, 1, 3, 3] = np.nan
    x[2] = -np.inf
    window = (3, 3), (2, 2), (1, 1)
    (y, saved), (expected, winner) = blocked.max_pool2d(x, *window), reference.max_pool2d(x, *window)
    np.testing.assert_array_equal(y, expected)
    g = normal(1, *y.shape)
    np.testing.assert_allclose(blocked.max_pool2d_backward(g, saved, x.shape, *window),
                               reference.max_pool2d_backward(g, winner, x.shape, *window), rtol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pad", ["both", "end"])
@pytest.mark.parametrize("shape, stride, channels",
                         [((5, 4, 8, 8), 2, 8), ((2, 3, 7, 5), 2, 6), ((1, 1, 3, 3), 1, 4)])
def test_shortcut_equals_reference(shape, stride, channels, pad, layout):
    x = normal(0, *shape)
    y = blocked.shortcut(LAYOUTS[layout](x), stride, channels, pad)
    np.testing.assert_array_equal(y, reference.shortcut(x, stride, channels, pad))
    g = normal(1, *y.shape)
    got = blocked.shortcut_backward(LAYOUTS[layout](g), shape, stride, pad)
    np.testing.assert_array_equal(got, reference.shortcut_backward(g, shape, stride, pad))


# ---------------------------------------------------------------------------- properties of all kernels

def all_kernels(x, g, w, gamma, beta):
    """Run every kernel once, with equal numbers of input and output channels. Return all resulting arrays."""
    skip, one, window = x, (1, 1), ((3, 3), (2, 2), (1, 1))
    out = [blocked.conv2d(x, w, one, one), *blocked.conv2d_backward(g, x, w, one, one),
           blocked.conv2d(x, w, (2, 2), one)]
    out += blocked.conv2d_backward(out[-1], x, w, (2, 2), one)
    y, mean, var, saved = blocked.batch_norm(x, gamma, beta, EPS)
    out += [y, mean, var, *blocked.batch_norm_backward(g, gamma, saved)]
    for s in (None, skip):
        y, mean, var, saved = blocked.batch_norm_relu(x, gamma, beta, EPS, s)
        gradients = blocked.batch_norm_relu_backward(g, gamma, saved)
        out += [y, mean, var, *(v for v in gradients if v is not None)]
    y, saved = blocked.batch_norm_eval(x, gamma, beta, beta, abs(gamma) + 1, EPS)
    out += [y, *blocked.batch_norm_eval_backward(g, gamma, saved)]
    y, winner = blocked.max_pool2d(x, *window)
    out += [y, blocked.max_pool2d_backward(y, winner, x.shape, *window), blocked.avg_pool2d(x, *window)]
    out.append(blocked.avg_pool2d_backward(out[-1], x.shape, *window))
    out.append(blocked.shortcut(x, 2, 2 * x.shape[1], "both"))
    return [*out, blocked.shortcut_backward(out[-1], x.shape, 2, "both")]


def arguments(N=33, C=8, H=16, W=16):
    last = LAYOUTS["channels last"]
    x, g = last(normal(0, N, C, H, W)), last(normal(1, N, C, H, W))
    return x, g, normal(2, C, C, 3, 3), normal(3, C), normal(4, C)


@pytest.mark.parametrize("layout", ["channels last", "channels first"])
def test_inputs_are_never_written_to_nor_handed_back(layout):
    x, g, *rest = arguments(N=5)
    given = [LAYOUTS[layout](x), LAYOUTS[layout](g), *rest]
    before = [v.copy() for v in given]
    for v in given:
        v.flags.writeable = False
    out = all_kernels(*given)
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
def test_addition_is_numpys_to_the_bit(one, other, monkeypatch):
    monkeypatch.setattr(blocked, "LARGE", 1)  # small arrays too
    for a, b in (normal(1, 5, 7, 6, 3), normal(2, 5, 7, 6, 3)), (normal(1, 1, 2, 3, 1), normal(2, 1, 2, 3, 1)):
        got = blocked.add(LAYOUTS[one](a), LAYOUTS[other](b))
        assert got.dtype == np.float32 and np.array_equal(got, a + b)
        if one == other == "channels last":
            assert got.strides == LAYOUTS[one](a).strides


def test_addition_takes_any_number_of_dimensions(monkeypatch):
    monkeypatch.setattr(blocked, "LARGE", 1)
    for shape in (), (9,), (4, 3), (5, 0), (2, 3, 4), (2, 3, 4, 5, 6):
        a, b = normal(1, *shape), normal(2, *shape)
        assert np.array_equal(blocked.add(a, b), a + b)


def test_addition_is_shared_among_threads_once_it_is_worth_it(monkeypatch):
    shared, share = [], blocked.share
    monkeypatch.setattr(blocked, "share", lambda work, blocks: (shared.append(len(blocks)), share(work, blocks)))
    large = LAYOUTS["channels last"](normal(1, 16, 16, 32, 33))
    with parallel.session(threads=2):
        assert np.array_equal(blocked.add(large, large), 2 * large)
        blocked.add(large[:1], large[:1])
    assert len(shared) == 1 and shared[0] >= (2 if parallel.threads() > 1 else 1)


def test_outputs_of_one_kernel_share_no_memory():
    x, g, _, gamma, beta = arguments(N=5)
    saved = blocked.batch_norm_relu(x, gamma, beta, EPS, x)[3]
    gx, _, _, gskip = blocked.batch_norm_relu_backward(g, gamma, saved)
    assert not np.shares_memory(gx, gskip)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_twenty_runs_give_the_same_bits(threads, monkeypatch):
    monkeypatch.setattr(parallel, "cache_bytes", lambda: 100_000)  # many blocks for the threads to compete for
    given = arguments()
    with parallel.session(threads=threads):
        first = [v.tobytes() for v in all_kernels(*given)]
        for run in range(19):
            for i, (v, old) in enumerate(zip(all_kernels(*given), first, strict=True)):
                assert v.tobytes() == old, f"output {i} changed in run {run + 2}"


def test_bits_do_not_depend_on_which_thread_is_late(monkeypatch):
    """Delay the first blocks, then the last. A sum in the order of finishing would change."""
    given = arguments()
    monkeypatch.setattr(parallel, "cache_bytes", lambda: 100_000)
    share = parallel.share
    results = []
    for slow in (0, -1):
        def delayed(work, blocks, slow=slow):
            late = threading.Event()

            def late_work(mine):
                def watched():
                    for k, at in mine:
                        if k == slow % len(blocks):
                            late.wait(0.003)
                        yield k, at
                work(watched())
            share(late_work, blocks)
        monkeypatch.setattr(blocked, "share", delayed)
        with parallel.session(threads=2):
            results.append([v.tobytes() for v in all_kernels(*given)])
    assert results[0] == results[1]


def test_every_thread_count_agrees():
    given = arguments()
    with parallel.session(threads=1):
        one = all_kernels(*given)
    for threads in (2, 3, 40):
        with parallel.session(threads=threads):
            for a, b in zip(all_kernels(*given), one, strict=True):
                assert_close(a, b.astype(np.float64))


# ------------------------------------------------------------------------------- threads and blocks

# private: no result shows how BLAS is limited to one thread and restored, and by which thread
libraries, set_blas, one_blas_thread = parallel._blas, parallel._set_blas, parallel._one_blas_thread
pool = parallel._pool  # private: as above


def blas_threads():
    return [lib.num_threads for lib in libraries()]


@pytest.fixture
def two_blas_threads():
    if not libraries():
        pytest.skip("threadpoolctl is not installed or finds no BLAS, so there is nothing to limit")
    before = blas_threads()
    set_blas([2] * len(before))
    yield blas_threads()
    set_blas(before)


def test_blas_is_held_inside_and_restored_after(two_blas_threads, monkeypatch):
    seen, outer = [], blocked._outer  # private: it runs within a kernel, while BLAS is limited

    def watched(a, b):
        seen.append(blas_threads())
        return outer(a, b)

    monkeypatch.setattr(blocked, "_outer", watched)  # private: as above
    all_kernels(*arguments(N=3))
    assert seen and all(set(s) == {1} for s in seen)
    assert blas_threads() == two_blas_threads


@pytest.mark.parametrize("threads", [1, 2])
def test_blas_is_restored_after_an_exception_in_any_thread(threads, two_blas_threads):
    class Planted(Exception):
        pass

    def fail_in_helper(mine):
        main = threading.current_thread() is threading.main_thread()
        for k, _ in mine:
            if main and threads == 2:
                started.wait(5)  # leave a block for the helper
            else:
                started.set()
                raise Planted(k)

    started = threading.Event()
    with parallel.session(threads=threads), pytest.raises(Planted):
        parallel.share(fail_in_helper, parallel.blocks_of(8, 1))
    assert blas_threads() == two_blas_threads
    check_convolution(*CONVOLUTIONS[6])  # the pool still works


def test_a_thread_that_set_the_number_before_does_not_prevent_it(two_blas_threads):
    """threadpoolctl obeys only one controlling thread as long as it lives, and silently ignores all others."""
    done, leave = threading.Event(), threading.Event()

    def ruler():
        for lib in libraries():
            lib.set_num_threads(2)
        done.set()
        leave.wait(10)

    thread = threading.Thread(target=ruler)
    thread.start()
    try:
        done.wait(10)
        with one_blas_thread():
            assert set(blas_threads()) == {1}
        assert blas_threads() == two_blas_threads
    finally:
        leave.set()
        thread.join()


def test_holds_nest_also_across_threads(two_blas_threads):
    inside, leave = threading.Event(), threading.Event()

    def other():
        with one_blas_thread():
            inside.set()
            leave.wait(5)

    thread = threading.Thread(target=other)
    with one_blas_thread():
        with one_blas_thread():
            assert set(blas_threads()) == {1}
        thread.start()
        inside.wait(5)
    assert set(blas_threads()) == {1}, "the other thread is still open"
    leave.set()
    thread.join()
    assert blas_threads() == two_blas_threads


def test_kernels_may_be_called_from_several_threads_at_once(two_blas_threads):
    given = arguments()
    with parallel.session(threads=2):
        expected = [v.tobytes() for v in all_kernels(*given)]
    results = [None] * 4

    def call(i):
        with parallel.session(threads=2):
            results[i] = [v.tobytes() for v in all_kernels(*given)]

    callers = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for t in callers:
        t.start()
    for t in callers:
        t.join()
    assert all(r == expected for r in results)
    assert blas_threads() == two_blas_threads


def test_the_context_of_the_caller_holds_in_the_helpers():
    """np.errstate and no_grad are context variables, which a plain thread would not see."""
    if not libraries():
        pytest.skip("without threadpoolctl there are no helpers")
    both, seen = threading.Barrier(2, timeout=10), {}

    def work(mine):
        for _ in mine:
            both.wait()  # so that each thread gets one of the two blocks
            seen[threading.get_ident()] = np.geterr()["over"]

    with parallel.session(threads=2), np.errstate(over="raise"):
        parallel.share(work, parallel.Blocks([slice(0, 1), slice(1, 2)], 2))
    assert list(seen.values()) == ["raise", "raise"]


def test_a_helper_that_never_started_keeps_nothing_alive():
    """While the pool is busy, a kernel ends without a helper, and its arrays are freed."""
    if not libraries():
        pytest.skip("without threadpoolctl there are no helpers")
    leave = threading.Event()

    def kernel():
        array = np.zeros(10)
        parallel.share(lambda mine: [array.sum() for _ in mine], parallel.Blocks([slice(0, 1), slice(1, 2)], 2))
        return weakref.ref(array)

    gc.disable()
    try:
        with parallel.session(threads=2):
            busy = pool(1).submit(leave.wait, 10)
            assert kernel()() is None
    finally:
        gc.enable()
        leave.set()
    busy.result()


def test_sessions_reject_no_threads():
    with pytest.raises(ValueError, match="expected threads >= 1, got 0"), parallel.session(threads=0):
        pass


def test_blocks_react_to_the_cache_and_leave_work_for_every_thread():
    per_block = parallel.images_per_block
    assert per_block(128, 100_000, cache=1_000_000, threads=2) == 10
    assert per_block(128, 100_000, cache=2_000_000, threads=2) == 20
    assert per_block(128, 100_000, cache=50_000, threads=2) == 1
    assert per_block(128, 100_000, cache=50_000, threads=2, least=7) == 7
    assert per_block(12, 100_000, cache=2_000_000, threads=4) == 3
    assert per_block(1, 1, cache=1, threads=8) == 1


@pytest.mark.parametrize("images, need, cache, threads", [
    (128, 543_000, 1 << 21, 2), (7, 10, 1 << 20, 3), (1, 10, 1, 2), (129, 1000, 10_000, 2), (5, 1000, 1, 16)])
def test_blocks_cover_the_batch_once_and_evenly(images, need, cache, threads, monkeypatch):
    monkeypatch.setattr(parallel, "cache_bytes", lambda: cache)
    with parallel.session(threads=threads):
        blocks, threads = parallel.blocks_of(images, need), parallel.threads()
    assert [i for b in blocks for i in range(b.start, b.stop)] == list(range(images))
    sizes = [b.stop - b.start for b in blocks]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) * need <= cache or max(sizes) == 1
    assert len(blocks) % threads == 0 or len(blocks) == images


@pytest.mark.parametrize("work, threads, expected", [
    (1, 2, 1), (1999, 2, 1), (2000, 2, 2), (9000, 2, 2), (2999, 4, 2), (1, 1, 1), (9000, 1, 1), (9000, 16, 9)])
def test_a_thread_is_woken_for_a_cache_full_of_work(work, threads, expected):
    assert THREADS_WORTH(work, 1000, threads) == expected


def test_little_work_is_cut_for_the_cache_but_stays_in_one_thread(monkeypatch):
    monkeypatch.setattr(parallel, "threads_worth", THREADS_WORTH)
    monkeypatch.setattr(parallel, "cache_bytes", lambda: 1000)
    with parallel.session(threads=2):
        assert (len(little := parallel.blocks_of(19, 100)), little.threads) == (2, 1)
        assert (len(much := parallel.blocks_of(40, 100)), much.threads) == (4, parallel.threads())


def test_cache_size_is_plausible():
    assert 1 << 14 <= parallel.cache_bytes() <= 1 << 30


@pytest.mark.parametrize("cache", [1, 300_000, 1 << 40])
def test_results_do_not_depend_on_the_cache_beyond_rounding(cache, monkeypatch):
    monkeypatch.setattr(parallel, "cache_bytes", lambda: cache)
    check_convolution(13, 5, 9, 8, 6, (3, 3), (1, 1), (1, 1))
    check_convolution(13, 5, 9, 8, 6, (3, 3), (2, 2), (1, 1))
    check_batch_norm(normal(0, 13, 5, 9, 8, mean=2), normal(1, 13, 5, 9, 8))


def test_saved_keeps_no_second_activation_alive():
    """Batch norm keeps only a few vectors for backward, in addition to x and y, which the network keeps in any case."""
    x, _, _, gamma, beta = arguments(N=64)
    blocked.batch_norm_relu(x, gamma, beta, EPS)  # warm up, for memory that is allocated only once
    gc.collect()
    tracemalloc.start()
    y, *kept_too = blocked.batch_norm_relu(x, gamma, beta, EPS, x)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept_too and kept < 1.1 * y.nbytes, f"{kept} bytes are kept, y has {y.nbytes}"


def test_memory_of_dead_arrays_is_used_again_within_a_session_and_let_go_after(monkeypatch):
    monkeypatch.setattr(parallel, "LARGE", 1)
    x, g, w, gamma, beta = arguments(N=4)
    expected = [v.copy() for v in all_kernels(x, g, w, gamma, beta)]
    with parallel.session():
        y = blocked.conv2d(x, w, (1, 1), (1, 1))
        address = y.ctypes.data
        del y
        assert blocked.conv2d(x, w, (1, 1), (1, 1)).ctypes.data == address
        for _ in range(3):  # now in reused memory
            for a, b in zip(all_kernels(x, g, w, gamma, beta), expected, strict=True):
                np.testing.assert_array_equal(a, b)
        assert parallel.memory.free
    assert not parallel.memory.free
    late = blocked.conv2d(x, w, (1, 1), (1, 1))
    del late
    assert not parallel.memory.free


def test_a_session_leaves_blas_alone_between_kernels(two_blas_threads):
    with parallel.session(threads=2):
        assert parallel.threads() == 2
        assert blas_threads() == two_blas_threads


def test_kept_memory_is_bounded_by_what_was_alive_at_once(monkeypatch):
    monkeypatch.setattr(parallel, "LARGE", 1)
    w = np.ones((2, 3, 3, 3), np.float32)
    with parallel.session():
        for n in range(1, 40):  # every batch has a different size
            y = blocked.conv2d(np.ones((n, 3, 8, 8), np.float32), w, (1, 1), (1, 1))
            kept = sum(m.nbytes for arrays in parallel.memory.free.values() for m in arrays)
            assert kept == parallel.memory.kept <= parallel.memory.most_lent <= 2 * y.nbytes
        del y
    assert parallel.memory.kept == 0 and not parallel.memory.free


def test_memory_is_not_used_again_while_any_view_of_it_lives(monkeypatch):
    monkeypatch.setattr(parallel, "LARGE", 1)
    x, _, w, _, _ = arguments(N=4)
    with parallel.session():
        y = blocked.conv2d(x, w, (1, 1), (1, 1))
        view = y.transpose(1, 0, 2, 3)[2, 1:, ::2]
        old = view.copy()
        del y
        others = [blocked.conv2d(x + i, w, (1, 1), (1, 1)) for i in range(4)]
        assert not any(np.shares_memory(view, v) for v in others)
        np.testing.assert_array_equal(view, old)
        arrays = [blocked.conv2d(x, w, (1, 1), (1, 1)) for _ in range(5)]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])


def test_memory_stays_flat_without_the_garbage_collector(no_collector):
    given = arguments(N=64)
    try:
        with parallel.session():
            all_kernels(*given)
            tracemalloc.start()
            all_kernels(*given)
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(10):
                all_kernels(*given)
            assert tracemalloc.get_traced_memory()[0] < before + 100_000
    finally:
        tracemalloc.stop()


def python(code, **environment):
    environment = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def test_threads_follow_the_environment_and_default_to_the_affinity_mask():
    code = "from minires.kernels import parallel; print(parallel.threads() if parallel._blas() else 'one')"
    assert python(code, MINIRES_THREADS="3").stdout.strip() in ("3", "one")
    bad = python(code, MINIRES_THREADS="none")
    assert "MINIRES_THREADS: expected a whole number >= 1, got 'none'" in bad.stderr or "one" in bad.stdout
    code = ("import os; os.environ.pop('MINIRES_THREADS', None)\n"
            "from minires.kernels import parallel as b\n"
            "cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()\n"
            "assert b.threads() == (cores if b._blas() else 1)")
    assert python(code).returncode == 0


def test_importing_starts_and_loads_nothing_and_forks_work():
    code = """
import sys, threading
from minires.kernels import blocked, parallel
assert "threadpoolctl" not in sys.modules and "concurrent.futures" not in sys.modules, "loaded at import"
assert threading.active_count() == 1
import os, numpy as np
x, w = np.ones((8, 3, 8, 8), np.float32), np.ones((4, 3, 3, 3), np.float32)
with parallel.session(threads=2):
    y = blocked.conv2d(x, w, (1, 1), (1, 1))
if hasattr(os, "fork"):
    child = os.fork()
    if child == 0:
        import signal
        signal.alarm(20)  # ends a child that waits for threads of its parent
        both = threading.Barrier(2, timeout=10)  # breaks unless the child starts a helper
        with parallel.session(threads=2):
            if parallel.threads() == 2:
                parallel.share(lambda mine: [both.wait() for _ in mine], parallel.Blocks([slice(0, 1), slice(1, 2)], 2))
            os._exit(0 if (blocked.conv2d(x, w, (1, 1), (1, 1)) == y).all() else 3)
    assert os.waitpid(child, 0)[1] == 0
"""
    result = python(code)
    assert result.returncode == 0, result.stderr


def test_without_threadpoolctl_one_thread_does_the_work():
    code = """
import sys
sys.modules["threadpoolctl"] = None  # importing it raises ModuleNotFoundError
import threading, numpy as np
from minires.kernels import blocked, parallel, reference
assert parallel.threads() == 1
x, w = np.ones((8, 3, 8, 8), np.float32), np.ones((4, 3, 3, 3), np.float32)
with parallel.session(threads=4):
    y = blocked.conv2d(x, w, (1, 1), (1, 1))
assert np.allclose(y, reference.conv2d(x, w, (1, 1), (1, 1)))
assert threading.active_count() == 1
"""
    result = python(code, MINIRES_THREADS="2")
    assert result.returncode == 0, result.stderr


def test_every_public_function_has_its_twins_signature():
    import inspect

    for name in blocked.__all__:
        fast, slow = getattr(blocked, name), getattr(reference, name)
        assert inspect.signature(fast) == inspect.signature(slow), name
