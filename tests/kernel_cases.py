"""Shapes, layouts and comparisons with reference.py in float64, for the tests of blocked.py and native.py."""

import numpy as np

from minires.kernels import reference

# The expected values come from reference.py in float64. A float32 kernel rounds every sum of K products by about
# sqrt(K) * 6e-8 of its norm, which is 1e-6 for the longest sums here. 1e-5 leaves a factor of ten. A single value
# among 10,000 that is missing, doubled or misplaced already changes the norm by 1e-2.
TOLERANCE = 1e-5
EPS = 1e-5


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
    (3, 128, 5, 6, 9, (1, 1), (1, 1), (0, 0)),     # pixels of 512 bytes: the native frames keep them further apart
    (2, 128, 9, 6, 40, (3, 2), (2, 1), (0, 1)),    # the same with rows and columns that no window sees
    (2, 128, 1, 1, 3, (1, 1), (3, 3), (1, 1)),     # and a frame that ends where the image would begin
    (2, 192, 9, 9, 192, (3, 3), (2, 2), (1, 1)),
    (3, 2, 20, 17, 4, (7, 7), (2, 2), (3, 3)),
    (3, 2, 9, 12, 4, (5, 1), (1, 2), (2, 0)),
    (3, 2, 9, 12, 4, (2, 4), (3, 1), (1, 2)),
    (3, 2, 10, 10, 4, (2, 2), (3, 3), (0, 0)),     # pixels that no window contains
    (3, 2, 4, 4, 3, (3, 3), (1, 1), (4, 5)),       # windows that contain only padding
    (3, 2, 4, 4, 3, (3, 3), (2, 3), (5, 4)),
    (3, 2, 4, 5, 3, (4, 5), (1, 1), (0, 0)),       # one window
    (300, 3, 4, 3, 5, (3, 3), (1, 1), (1, 1)),     # images so small that several are taken at once
    (70, 2, 7, 6, 3, (2, 2), (2, 2), (0, 0)),
]


SPARSE = [  # N, C, H, W, O, kernel, stride, padding, dilation, groups
    (3, 5, 11, 12, 7, (3, 3), (1, 1), (2, 2), (2, 2), 1),
    (3, 4, 11, 12, 6, (3, 2), (2, 3), (1, 0), (2, 3), 1),
    (2, 3, 13, 12, 4, (3, 3), (2, 2), (1, 1), (2, 2), 1),  # pixels between the taps, which no window contains
    (2, 2, 9, 9, 3, (2, 2), (3, 3), (0, 0), (3, 3), 1),
    (3, 8, 7, 6, 12, (3, 3), (1, 1), (1, 1), (1, 1), 4),
    (3, 64, 9, 8, 64, (3, 3), (2, 2), (1, 1), (1, 1), 32),  # eight groups are joined
    (2, 40, 6, 7, 40, (3, 3), (1, 1), (1, 1), (1, 1), 40),
    (2, 36, 6, 7, 12, (1, 1), (1, 1), (0, 0), (1, 1), 3),
    (2, 12, 9, 10, 6, (3, 2), (2, 1), (2, 1), (2, 3), 3),
]


def check_convolution(K, N, C, H, W, O, kernel, stride, padding, layout=LAYOUTS["channels last"], seed=0,
                      dilation=(1, 1), groups=1):
    x, w, sparse = normal(seed, N, C, H, W), normal(seed + 1, O, C // groups, *kernel), (dilation, groups)
    y = K.conv2d(layout(x), w, stride, padding, *sparse)
    expected = reference.conv2d(*f64(x, w), stride, padding, *sparse)
    assert_close(y, expected, name="y")
    g = normal(seed + 2, *expected.shape)
    expected_x, expected_w = reference.conv2d_backward(*f64(g, x, w), stride, padding, True, True, *sparse)
    gx, gw = K.conv2d_backward(layout(g), layout(x), w, stride, padding, True, True, *sparse)
    assert_close(gx, expected_x, name="gx")
    assert_close(gw, expected_w, name="gw")


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


def check_batch_norm(K, x, skip, layout=lambda a: a):
    C = x.shape[1]
    gamma, beta, g = normal(5, C), normal(6, C), normal(7, *x.shape)
    wide = f64(x, gamma, beta)
    # The test uses the kernel's own mask, because at the kink of the ReLU a float32 sum may round to the other side.
    for relu in (False, True):
        if relu:
            skips = (None, None) if skip is None else (layout(skip), skip.astype(np.float64))
            y, mean, var, saved = K.batch_norm_relu(layout(x), gamma, beta, EPS, skips[0])
            expected = reference.batch_norm_relu(*wide, EPS, skips[1])
        else:
            y, mean, var, saved = K.batch_norm(layout(x), gamma, beta, EPS)
            expected = reference.batch_norm(*wide, EPS)
        assert_close(y, expected[0], name="y")
        assert_close(mean, expected[1], name="mean")
        assert_close(var, expected[2], name="var")
        plain = reference.batch_norm(*wide, EPS)[3]
        if relu:
            masked = g * (y > 0)
            *got, gskip = K.batch_norm_relu_backward(layout(g), gamma, saved)
            if skip is None:
                assert gskip is None
            else:
                assert_close(gskip, masked.astype(np.float64), name="gskip")
        else:
            masked, got = g, K.batch_norm_backward(layout(g), gamma, saved)
        expected = reference.batch_norm_backward(masked.astype(np.float64), gamma.astype(np.float64), plain)
        for name, a, b in zip(("gx", "ggamma", "gbeta"), got, expected, strict=True):
            assert_close(a, b, name=f"{name}, relu {relu}")


POOLS = [  # shape, kernel, stride, padding
    ((5, 3, 8, 8), (2, 2), (2, 2), (0, 0)),
    ((5, 3, 9, 7), (3, 3), (2, 2), (1, 1)),
    ((2, 1, 6, 5), (3, 2), (1, 3), (1, 1)),
    ((3, 513, 4, 4), (4, 4), (4, 4), (0, 0)),
    ((1, 4, 7, 7), (1, 1), (2, 2), (0, 0)),
    ((1, 2, 20, 20), (17, 17), (2, 2), (0, 0)),  # more elements than fit in a byte
]


def all_kernels(K, x, g, w, gamma, beta):
    """Run every kernel once, with equal numbers of input and output channels. Return all resulting arrays."""
    skip, one, window = x, (1, 1), ((3, 3), (2, 2), (1, 1))
    out = [K.conv2d(x, w, one, one), *K.conv2d_backward(g, x, w, one, one),
           K.conv2d(x, w, (2, 2), one)]
    out += K.conv2d_backward(out[-1], x, w, (2, 2), one)
    y, mean, var, saved = K.batch_norm(x, gamma, beta, EPS)
    out += [y, mean, var, *K.batch_norm_backward(g, gamma, saved)]
    for s in (None, skip):
        y, mean, var, saved = K.batch_norm_relu(x, gamma, beta, EPS, s)
        gradients = K.batch_norm_relu_backward(g, gamma, saved)
        out += [y, mean, var, *(v for v in gradients if v is not None)]
    y, saved = K.batch_norm_eval(x, gamma, beta, beta, abs(gamma) + 1, EPS)
    out += [y, *K.batch_norm_eval_backward(g, gamma, saved)]
    y, winner = K.max_pool2d(x, *window)
    out += [y, K.max_pool2d_backward(y, winner, x.shape, *window), K.avg_pool2d(x, *window)]
    out.append(K.avg_pool2d_backward(out[-1], x.shape, *window))
    out.append(K.shortcut(x, 2, 2 * x.shape[1], "both"))
    return [*out, K.shortcut_backward(out[-1], x.shape, 2, "both")]


def arguments(N=33, C=8, H=16, W=16):
    last = LAYOUTS["channels last"]
    x, g = last(normal(0, N, C, H, W)), last(normal(1, N, C, H, W))
    return x, g, normal(2, C, C, 3, 3), normal(3, C), normal(4, C)


def every_kernel_agrees(K):
    """Each of K's kernels gives what the reference gives, on small arrays of many kinds."""
    for (N, C, O), (H, W), kernel, stride, padding in (
            ((5, 3, 4), (7, 6), (3, 3), (1, 1), (1, 1)), ((5, 2, 3), (7, 8), (3, 3), (2, 2), (1, 1)),
            ((3, 2, 5), (9, 7), (3, 2), (2, 1), (0, 1)), ((2, 4, 3), (5, 6), (1, 1), (2, 2), (0, 0)),
            ((3, 18, 40), (5, 5), (3, 3), (1, 1), (1, 1))):  # more channels than a few vectors hold
        x, w, s = drawn((N, C, H, W), (O, C, *kernel), (N, C, H, W), seed=H)
        (y,) = same(K, "conv2d", x, w, stride, padding)
        (g,) = drawn(y.shape, seed=1)
        same(K, "conv2d_backward", g, x, w, stride, padding)
        gamma, beta, mean, var = drawn((C,), (C,), (C,), (C,), seed=2)
        for offset in 0, 1e3 * mean.reshape(-1, 1, 1):  # |mean| far above the standard deviation
            for skip in None, s:
                *_, saved = same(K, "batch_norm_relu", x + offset, gamma, beta, 1e-5, skip, tolerance=1e-3)
                same(K, "batch_norm_relu_backward", s, gamma, saved, tolerance=1e-3)
            *_, saved = same(K, "batch_norm_eval", x + offset, gamma, beta, mean, var * var, 1e-5, tolerance=1e-3)
            same(K, "batch_norm_eval_backward", s, gamma, saved, tolerance=1e-3)
        for ties in x, np.round(x), np.where(x > 1, np.nan, x):
            if kernel[0] > 1:
                y, winner = same(K, "max_pool2d", ties, kernel, stride, padding)
                same(K, "max_pool2d_backward", *drawn(y.shape), winner, x.shape, kernel, stride, padding)
        (y,) = same(K, "avg_pool2d", x, kernel, stride, padding)
        same(K, "avg_pool2d_backward", *drawn(y.shape), x.shape, kernel, stride, padding)
        (y,) = same(K, "shortcut", x, 2, C + 3, "both")
        same(K, "shortcut_backward", *drawn(y.shape), x.shape, 2, "both")
        same(K, "add", x, s)
        same(K, "relu", x)
        same(K, "running_statistics", mean, var, gamma, beta, 0.1, 5)
        same(K, "sgd", x.reshape(-1), s.reshape(-1), x.reshape(-1) + 1, 0.1, 0.9, 1e-2)


def drawn(*shapes, seed=0):
    rng = np.random.default_rng([2015, seed])
    return [rng.standard_normal(s) for s in shapes]


def same(K, name, *args, tolerance=1e-5):
    """Return the reference's results, after a look whether those of K agree. What a forward function saves for the
    backward one comes as a pair.

    Arguments are float64 for the reference and float32, channels last, for the other.
    """
    def last(a):
        a = a.astype(np.float32)
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1) if a.ndim == 4 else a

    is_array = lambda a: isinstance(a, np.ndarray) and a.dtype == np.float64
    slow = getattr(reference, name)(*(a[0] if isinstance(a, Both) else a.copy() if is_array(a) else a for a in args))
    fast = getattr(K, name)(*(last(a) if is_array(a) else a[1] if isinstance(a, Both) else a for a in args))
    slow, fast = (r if isinstance(r, tuple) else (r,) for r in (slow, fast))
    out = []
    for a, b in zip(slow, fast, strict=True):
        if is_array(a) and b is not None:  # a skip's gradient, where there was no skip
            near = np.linalg.norm(np.nan_to_num(a - b)) <= tolerance * np.linalg.norm(np.nan_to_num(a)) + 1e-12
            same_shape = a.shape == b.shape and (np.isnan(a) == np.isnan(b)).all()
            assert near and same_shape, f"{name}: fast and reference differ"
        out.append(a if is_array(a) else Both((a, b)))
    return out


class Both(tuple):
    """(what the reference saved, what the fast kernel saved)."""
