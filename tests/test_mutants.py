"""Plant bugs in the library's code, and test that the library's checks catch each one.

A bug is one entry of BUGS. Its name says what the bug changes; its value has the places that change, the check that
must fail, and the message of the check. planting.py explains how a place is found. Before a bug is planted, the test
asserts that the check passes on the unchanged library. No check needs PyTorch.

The checks use gradcheck (random gradients), the engine's check of shapes and dtypes, plain loops, closed forms, the
identity <im2col(x), c> = <x, col2im(c)> in integers, and the comparison of the hand-written with the composed block.
"""

import ast
import contextlib
import inspect
import math

import numpy as np
import pytest
from kernel_cases import drawn, every_kernel_agrees
from planting import changed, plant, tree_of

from minires import Tensor, gradcheck, nn, ops, optim, residual, tensor
from minires.kernels import blocked, parallel
from minires.kernels import reference as kernels

F8 = np.float64


# ----------------------------------------------------------------------------------- checks: the graph


def accumulation():
    """Use a Tensor twice, in two operations and in one, as a leaf and as an intermediate result, in two backwards."""
    (x,) = drawn((2, 3))
    gradcheck(lambda a: a * a, x)
    gradcheck(lambda a: a + a, x)
    gradcheck(lambda a: a.exp() * 2.0 + a * a * a, x)
    gradcheck(lambda a: (lambda h: h * h + h.exp() + h)(a.tanh()), x)
    t = Tensor(x, True)
    for _ in range(2):
        (t * t).sum().backward()
    np.testing.assert_allclose(t.grad, 4 * x, rtol=1e-15, err_msg="two backwards do not add up")


def graphs():
    """Check two stacked skips on an intermediate result, and branches of uneven depth in both orders."""
    (x,) = drawn((2, 3))
    skip = lambda h: h + (h * h).tanh().exp()
    gradcheck(lambda a: skip(skip(a.tanh())), x)
    long = lambda h: h.tanh().exp().tanh().exp()
    gradcheck(lambda a: (lambda h: long(h) * h)(a.exp()), x)
    gradcheck(lambda a: (lambda h: h * long(h))(a.exp()), x)


def backward_once():
    t = Tensor(np.ones(2), True)
    y = (t * t).sum()
    y.backward()
    with contextlib.suppress(RuntimeError):
        y.backward()
        raise AssertionError("a second backward passes")


def gradients_are_nobody_elses():
    """d and e share one gradient array, so adding to the gradient of one must not change the other."""
    (x,) = drawn((2, 3))
    gradcheck(lambda a: (lambda d, e: (d + e) * d.exp() + e * 3.0)(a.tanh(), a.exp()), x)


def broadcasting():
    for left, right in ((4, 2, 3), (3,)), ((4, 2, 3), (2, 1)), ((4, 1, 3), (1, 2, 1)), ((2, 1), (4, 1, 1)):
        for f in (lambda a, b: a + b), (lambda a, b: a * b), (lambda a, b: a / (b * b + 1.0)), ops.maximum:
            gradcheck(f, *drawn(left, right))


# ------------------------------------------------------------------------------ checks: small operations


def small_operations():
    x, y = drawn((2, 3, 4), (2, 4, 3))
    for f in ops.exp, ops.tanh, ops.sigmoid, lambda a: (a * a + 1.0).sqrt(), lambda a: (a * a + 1.0).log():
        gradcheck(f, x)
    gradcheck(lambda a: ops.softmax(a, 1), x)
    gradcheck(lambda a: ops.log_softmax(a, 1), x)
    gradcheck(lambda a, b: a @ b, x, y)


def reductions():
    (x,) = drawn((2, 3, 5))
    for axis in None, 0, 1, (0, 2), -1:
        for f in ops.mean, ops.sum, ops.var, ops.max:
            gradcheck(lambda a, f=f, axis=axis: f(a, axis), x)


def transposition():
    gradcheck(lambda a: ops.transpose(a, 2, 0, 1), *drawn((2, 3, 4)))


def transposition_of_a_cube():
    gradcheck(lambda a: ops.transpose(a, 2, 0, 1), *drawn((3, 3, 3)))


def indexing():
    (x,) = drawn((4, 3))
    gradcheck(lambda a: a[1:, ::2], x)
    gradcheck(lambda a: a[np.array([0, 2, 0, 0])], x)


def softmax_of_large_numbers():
    with np.errstate(all="ignore"):
        got = ops.log_softmax(Tensor(np.array([[1000.0, 0.0, -1000.0]]))).data
    np.testing.assert_array_equal(got, [[0, -1000, -2000]], err_msg="closed form of log_softmax")


def cross_entropy_gradient():
    gradcheck(lambda z: ops.cross_entropy(z, np.array([0, 3, 1, 3, 2])), *drawn((5, 4)))


def cross_entropy_value():
    got = ops.cross_entropy(Tensor(np.zeros((5, 4))), np.array([0, 3, 1, 3, 2])).item()
    np.testing.assert_allclose(got, np.log(4), rtol=1e-15, err_msg="closed form of cross_entropy")


# --------------------------------------------------------------------- checks: convolution and pooling

GEOMETRY = [  # H, W, kernel, stride, padding: different extents, leftover rows, tall and wide kernels
    (6, 8, (3, 3), (2, 2), (1, 1)), (7, 5, (3, 2), (2, 2), (0, 0)),
    (5, 7, (2, 3), (1, 1), (0, 1)), (4, 6, (1, 1), (2, 1), (0, 0)),
]


def windows_of(x, kernel, stride, padding, border=0):
    """Return all windows as (N, C, Ho, Wo, kh, kw), by NumPy's sliding windows."""
    x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)], constant_values=border)
    return np.lib.stride_tricks.sliding_window_view(x, kernel, (2, 3))[:, :, :: stride[0], :: stride[1]]


def conv_gradient():
    for H, W, k, s, p in GEOMETRY:
        gradcheck(lambda x, w, b, s=s, p=p: ops.conv2d(x, w, b, s, p), *drawn((2, 3, H, W), (4, 3, *k), (4,)))


SPARSE = [(7, 8, (3, 2), (1, 2), (1, 0), (2, 3), 1), (6, 7, (2, 3), (2, 1), (0, 1), (1, 2), 2)]  # ... dilation, groups


def sparse_conv_gradient():
    for H, W, k, s, p, d, groups in SPARSE:
        x, w = drawn((2, 4, H, W), (6, 4 // groups, *k))
        gradcheck(lambda x, w, a=(s, p, d, groups): ops.conv2d(x, w, None, *a), x, w)


def sparse_conv_value():
    for H, W, k, s, p, d, groups in SPARSE:
        x, w = drawn((2, 4, H, W), (6, 4 // groups, *k))
        got = ops.conv2d(Tensor(x), Tensor(w), None, s, p, d, groups).data
        span = tuple(step * (n - 1) + 1 for step, n in zip(d, k, strict=True))
        cut = windows_of(x, span, s, p)[..., ::d[0], ::d[1]]
        expected = np.zeros((2, 6, *cut.shape[2:4]))
        for n, o, i, j in np.ndindex(expected.shape):
            first = o // (6 // groups) * (4 // groups)
            expected[n, o, i, j] = (cut[n, first:first + 4 // groups, i, j] * w[o]).sum()
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12, err_msg="plain loop")


def pooling_options():
    (x,) = drawn((2, 3, 7, 8))
    got = ops.max_pool2d(Tensor(x), 2, 1, 0, dilation=(2, 3)).data
    np.testing.assert_array_equal(got, windows_of(x, (3, 4), (1, 1), (0, 0))[..., ::2, ::3].max((4, 5)), "plain loop")
    gradcheck(lambda a: ops.max_pool2d(a, 2, 1, 0, dilation=(2, 3)), x)
    for padded in True, False:
        got = ops.avg_pool2d(Tensor(np.ones((1, 1, 4, 4))), 3, 2, 1, True, padded).data[0, 0]
        expected = np.outer((2, 3, 1), (2, 3, 1)) / np.outer((3, 3, 2), (3, 3, 2)) if padded else np.ones((3, 3))
        np.testing.assert_allclose(got, expected, rtol=1e-15, err_msg="plain loop")
    got = ops.adaptive_avg_pool2d(Tensor(x), (3, 5)).data
    np.testing.assert_allclose(got[:, :, 1, 2], x[:, :, 2:5, 3:5].mean((2, 3)), rtol=1e-12, err_msg="plain loop")
    gradcheck(lambda a: ops.adaptive_avg_pool2d(a, (3, 5)), x)


def choices():
    x, y = drawn((2, 3, 4), (3, 1))
    gradcheck(lambda a, b: ops.where(x > 0, a, b), x, y)
    gradcheck(lambda a: ops.clip(a, -0.5, 0.5), x)
    gradcheck(lambda a: ops.leaky_relu(a, 0.2), x)
    gradcheck(ops.gelu, x)
    gradcheck(ops.minimum, x, y)
    gradcheck(lambda a, b: (a * a + 1.0) ** b, x, y)
    gradcheck(lambda a: ops.std(a, (0, 2), correction=1), x)
    gradcheck(lambda a, b: ops.linear(a, b), *drawn((2, 5, 3), (4, 3)))
    between = [0.99, -2.005, 0.31]  # the points of the table
    expected = [0.5 * v * math.erfc(-v / math.sqrt(2)) for v in between]
    np.testing.assert_allclose(ops.gelu(Tensor(np.array(between))).data, expected, 1e-13, err_msg="closed form of gelu")


def cross_entropy_options():
    z, labels, w = drawn((5, 4))[0], np.array([0, 3, 1, 3, 2]), np.array([0.5, 2.0, 1.0, 3.0])
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    counts = labels != 1
    each = -1.0 * counts * (0.8 * w[labels] * log_p[range(5), labels] + 0.05 * (w * log_p).sum(1))
    got = ops.cross_entropy(Tensor(z), labels, w, 1, 0.2).item()
    np.testing.assert_allclose(got, each.sum() / (counts * w[labels]).sum(), rtol=1e-13, err_msg="closed form")
    gradcheck(lambda a: ops.cross_entropy(a, labels, w, 1, 0.2), z)


def conv_value():
    for H, W, k, s, p in GEOMETRY:
        x, w = drawn((2, 3, H, W), (4, 3, *k))
        got, cut = ops.conv2d(Tensor(x), Tensor(w), None, s, p).data, windows_of(x, k, s, p)
        expected = np.zeros((2, 4, *cut.shape[2:4]))
        for n, o, i, j in np.ndindex(expected.shape):
            expected[n, o, i, j] = (cut[n, :, i, j] * w[o]).sum()
        assert got.shape == expected.shape, f"plain loop: shape {expected.shape}, conv2d {got.shape}"
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12, err_msg="plain loop")


def adjoint():
    rng = np.random.default_rng(0)
    for H, W, k, s, p in GEOMETRY:
        x = rng.integers(-9, 10, (2, 3, H, W))
        cols = kernels.im2col(x, k, s, p)
        c = rng.integers(-9, 10, cols.shape)
        assert (cols * c).sum() == (x * kernels.col2im(c, x.shape, k, s, p)).sum(), "im2col and col2im: not adjoint"


def pooling_gradient():
    for H, W, k, s, p in GEOMETRY[:3]:
        gradcheck(lambda x, k=k, s=s, p=p: ops.max_pool2d(x, k, s, p), *drawn((2, 3, H, W)))
        gradcheck(lambda x, k=k, s=s, p=p: ops.avg_pool2d(x, k, s, p), *drawn((2, 3, H, W)))


def pooling_value():
    for H, W, k, s, p in GEOMETRY:
        x = drawn((2, 3, H, W))[0] - 3
        for f, reduce, border in (ops.max_pool2d, np.max, -np.inf), (ops.avg_pool2d, np.mean, 0):
            expected = reduce(windows_of(x, k, s, p, border), (4, 5))
            np.testing.assert_allclose(f(Tensor(x), k, s, p).data, expected, rtol=1e-12, err_msg="plain loop")


def shortcut_value():
    (x,) = drawn((2, 3, 5, 4))
    for pad, before in ("both", 2), ("end", 0):
        expected = np.zeros((2, 7, 3, 2))
        for n, c, i, j in np.ndindex(2, 3, 3, 2):
            expected[n, before + c, i, j] = x[n, c, 2 * i, 2 * j]
        np.testing.assert_array_equal(ops.subsample_and_pad(Tensor(x), 2, 7, pad).data, expected, err_msg="plain loop")


def shortcut_gradient():
    for pad in "both", "end":
        gradcheck(lambda x, pad=pad: ops.subsample_and_pad(x, 2, 7, pad), *drawn((2, 3, 5, 4)))


# --------------------------------------------------------------------------- checks: batch norm and SGD


def batch_norm_gradient():
    for shape in (5, 3), (2, 3, 4, 5):
        gradcheck(lambda x, g, b: ops.batch_norm(x, g, b)[0], *drawn(shape, (3,), (3,)))


def batch_norm_value():
    for shape, axes in ((5, 3), (0,)), ((2, 3, 4, 5), (0, 2, 3)):
        x, gamma, beta = drawn(shape, (3,), (3,))
        g, b = (v.reshape(3, *(1,) * (x.ndim - 2)) for v in (gamma, beta))
        expected = g * (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-3) + b
        got = ops.batch_norm(Tensor(x), Tensor(gamma), Tensor(beta), 1e-3)[0].data
        np.testing.assert_allclose(got, expected, rtol=1e-10, err_msg="closed form of batch_norm")


def running_statistics():
    (x,) = drawn((2, 3, 4, 5))
    bn = nn.BatchNorm2d(3).astype(F8)
    bn(Tensor(x))
    mean, var = 0.1 * x.mean((0, 2, 3)), 0.9 + 0.1 * x.var((0, 2, 3), ddof=1)
    np.testing.assert_allclose(bn.running_mean.data, mean, rtol=1e-12, err_msg="running mean")
    np.testing.assert_allclose(bn.running_var.data, var, rtol=1e-12, err_msg="running variance")


def batch_norm_eval():
    x, mean, var, gamma, beta = (abs(a) for a in drawn((5, 3), (3,), (3,), (3,), (3,)))
    bn = nn.BatchNorm1d(3).astype(F8).eval()
    bn.running_mean.data, bn.running_var.data, bn.weight.data, bn.bias.data = mean, var, gamma, beta
    expected = gamma * (x - mean) / np.sqrt(var + 1e-5) + beta
    np.testing.assert_allclose(bn(Tensor(x)).data, expected, rtol=1e-12, err_msg="eval mode")
    gradcheck(lambda x, g, b: ops.batch_norm_eval(x, g, b, mean, var), x, gamma, beta)


def sgd():
    w, g1, g2 = drawn((3,), (3,), (3,))
    p = Tensor(w, True)
    optimizer = optim.SGD([p], 0.1, 0.9, 0.01)
    v = 0
    for g, lr in (g1, 0.1), (g2, 0.02):
        optimizer.lr, p.grad = lr, g
        optimizer.step()
        v = 0.9 * v + g + 0.01 * w
        w = w - lr * v
        np.testing.assert_allclose(p.data, w, rtol=1e-12, err_msg="closed form of SGD")


def adam():
    """Two groups; in the second update the parameter of the second group has no gradient."""
    for rule, decoupled in (optim.Adam, False), (optim.AdamW, True):
        w, g1, g2 = drawn((3,), (3,), (3,))
        p, q = Tensor(w, True), Tensor(w.copy(), True)
        optimizer = rule([optim.Group([p]), optim.Group([q], lr_factor=0.5)], 0.1, (0.8, 0.9), 1e-3, 0.2)
        at, m, v = [w, w.copy()], [0, 0], [0, 0]
        for t, g in enumerate((g1, g2, g1), 1):
            p.grad, q.grad = g, None if t == 2 else g
            optimizer.step()
            for i, (lr, count) in enumerate(((0.1, t), (0.05, min(t, 2)))):
                if i == 1 and t == 2:
                    continue
                here = g if decoupled else g + 0.2 * at[i]
                at[i] = at[i] * (1 - lr * 0.2) if decoupled else at[i]
                m[i], v[i] = 0.8 * m[i] + 0.2 * here, 0.9 * v[i] + 0.1 * here**2
                at[i] = at[i] - lr * (m[i] / (1 - 0.8**count)) / (np.sqrt(v[i] / (1 - 0.9**count)) + 1e-3)
            for t_, expected in zip((p, q), at, strict=True):
                np.testing.assert_allclose(t_.data, expected, rtol=1e-12, err_msg="closed form of Adam")


def clipping_of_small():
    p, q = Tensor(np.zeros(2), True), Tensor(np.zeros(1), True)
    for most, factor in (1.0, 1 / 5), (10.0, 1):
        p.grad, q.grad = np.array([3.0, 0.0]), np.array([4.0])
        optim.clip_gradients([p, q], most)
        np.testing.assert_allclose([*p.grad, *q.grad], np.array([3, 0, 4]) * factor, rtol=1e-6,
                                   err_msg="closed form of clipping")


def nesterov_and_clipping():
    w, g = drawn((3,), (3,))
    p = Tensor(w, True)
    optimizer = optim.SGD([p], 0.1, 0.9, 0.01, nesterov=True)
    v = 0
    for _ in range(2):
        p.grad = g
        norm = optim.clip_gradients([p], 0.5)
        optimizer.step()
        here = g * min(1, 0.5 / (np.linalg.norm(g) + 1e-6)) + 0.01 * w
        v = 0.9 * v + here
        w = w - 0.1 * (here + 0.9 * v)
        np.testing.assert_allclose(norm, np.linalg.norm(g), rtol=1e-12, err_msg="closed form of the norm")
        np.testing.assert_allclose(p.data, w, rtol=1e-12, err_msg="closed form of Nesterov")


# ----------------------------------------------------------------------------- checks: residual blocks

KINDS = [(nn.Block, {}), (nn.Block, {"stride": 2}), (nn.Block, {"stride": 2, "pad": "end"}),
         (nn.Block, {"stride": 2, "shortcut": "B"}), (nn.PreactBlock, {}), (nn.PreactBlock, {"stride": 2}),
         (nn.PreactBlock, {"split_after_activation": True}), (nn.PreactBlock, {"stride": 2, "shortcut": "B"})
         ]


def built(kind, options, by_hand):
    rng = np.random.default_rng(3)
    block = kind(2, 2 * options.get("stride", 1), **options, by_hand=by_hand, rng=rng).astype(F8)
    for t in block.parameters():
        t.data = rng.standard_normal(t.shape)
    return block


def by_hand():
    """Compare output, every gradient and the running statistics with those of the composed block, bit for bit.

    With a hook, a block runs module by module and fuses nothing. Without a hook, BN and ReLU may be fused.
    """
    for kind, options in KINDS:
        seen = []
        for hand, watching in (True, False), (False, True), (False, False):
            block = built(kind, options, hand)
            x = Tensor(drawn((3, 2, 5, 4))[0], True)
            with nn.watched(lambda *_: None) if watching else contextlib.nullcontext():
                y = block(x)
            y.backward(drawn(y.shape, seed=1)[0])
            grads = {f"gradient of {n}": t.grad for n, t in block.state().items() if t.requires_grad}
            state = {n: t.data for n, t in block.state().items()}
            seen.append({"output": y.data, "gradient of x": x.grad} | grads | state)
        for name, by_hand in seen[0].items():
            for composed in seen[1:]:
                np.testing.assert_array_equal(by_hand, composed[name], err_msg=f"by hand and composed differ: {name}")


def block_gradient():
    for kind, options in KINDS:
        block = built(kind, options, True)
        names = [n for n, t in block.state().items() if t.requires_grad]

        def f(x, *parameters, block=block, names=names):
            for name, t in zip(names, parameters, strict=True):
                *path, last = name.split(".")
                module = block
                for part in path:
                    module = getattr(module, part)
                setattr(module, last, t)
            return block(x)

        arrays = [block.state()[n].data for n in names]
        gradcheck(f, drawn((3, 2, 5, 4))[0], *arrays, rtol=1e-5, entries=12)


# ---------------------------------------------------------------------------- checks: the fast kernels


def fast_kernels():
    """Compare blocked.py with reference.py, on blocks of few images and short lines, shared by two threads."""
    with pytest.MonkeyPatch.context() as patch, parallel.session(threads=2):
        patch.setattr(parallel, "cache_bytes", lambda: 1500)
        # private: so that small arrays are cut like large arrays
        patch.setattr(blocked, "_pixels_per_line", lambda pixels, C: next(k for k in (7, 5, 3, 1) if pixels % k == 0))
        patch.setattr(blocked, "LARGE", 1)
        every_kernel_agrees(blocked)


# --------------------------------------------------------------------------------------- the mutants

WRONG, SHAPE, HAND, LOOP = "differs from finite", "backward returned a", "by hand and composed", "plain loop"
K, R = kernels, residual.Residual
PENDING = "kernels.of(gx).add(pending[id(x)], gx) if id(x) in pending else gx"
PREORDER = ["return order", "return order[::-1]", "stack.append((t, True))", "order.append(t)"]
BN_DX = "g - per_channel(gbeta / m, g.ndim) - xhat * per_channel(ggamma / m, g.ndim)"
UNMASKED = ["parameter_free_shortcut_backward(K, gz, x.shape, self.stride, self.pad)",
            "parameter_free_shortcut_backward(K, ARG1, x.shape, self.stride, self.pad)"]
NOT_MASKED = ["ga1, ggamma1, gbeta1, _ = K.batch_norm_relu_backward(gh, gamma1, self.bn1)",
              "ga1, ggamma1, gbeta1 = K.batch_norm_backward(gh, gamma1, self.bn1[0])"]
CROP = "x[..., ph:H - ph, pw:W - pw]"

# {name: (places, check, message of the check)}. A place is (owner, function, old, new, old, new, ...).
SHIPPED = {
    "gradient assigned instead of accumulated": ([(tensor.Tensor, "backward", PENDING, "gx")], accumulation, WRONG),
    "gradient assigned by the second backward": (
        [(tensor.Tensor, "backward", "t.grad + g", "g")], accumulation, "two backwards"),
    "same tensor twice counted once": (
        [(tensor.Tensor, "backward", "t.creator.pull(g)", "{id(p[0]): p for p in t.creator.pull(g)}.values()")],
        accumulation, WRONG),
    "order depth-first, not topological": (
        [(tensor, "topological_order", *PREORDER)],
        graphs, WRONG),
    "order breadth-first, not topological": (
        [(tensor, "topological_order", *PREORDER,
          "stack.pop()", "stack.pop(0)")], graphs, WRONG),
    "broadcast not summed": ([(tensor, "unbroadcast", "g.shape == shape", "True")], broadcasting, SHAPE),
    "broadcast not summed over leading axes": (
        [(tensor, "unbroadcast", "g.sum(repeated, keepdims=True).reshape(shape)",
          "g.sum(repeated[g.ndim - len(shape):], keepdims=True)[(0,) * (g.ndim - len(shape))].reshape(shape)")],
        broadcasting, WRONG),
    "broadcast not summed over size-1 axes": (
        [(tensor, "unbroadcast", "g.sum(repeated, keepdims=True).reshape(shape)",
          "g.sum(tuple(range(g.ndim - len(shape))))[tuple(slice(size) for size in shape)]")], broadcasting, WRONG),
    "broadcast axes averaged": (
        [(tensor, "unbroadcast", "g.sum(repeated, keepdims=True)", "g.mean(repeated, keepdims=True)")],
        broadcasting, WRONG),
    "mean divides by the size of everything": (
        [(ops.Mean, "forward", "_count(x.shape, self.axes)", "x.size")], reductions, WRONG),
    "mean divides by the size of the result": (
        [(ops.Mean, "backward", "ANY / self.count", "ANY / ARG1.size")], reductions, WRONG),
    "transpose without argsort": ([(ops.Transpose, "backward", "inverse(self.axes)", "self.axes")],
        transposition, SHAPE),
    "transpose without argsort, of a cube": (
        [(ops.Transpose, "backward", "inverse(self.axes)", "self.axes")], transposition_of_a_cube, WRONG),
    "duplicate fancy index lost": (
        [(ops.GetItem, "backward", "self.xp.add.at(gx, self.index, g)", "gx[self.index] += g")], indexing, WRONG),
    "softmax not shifted": (
        [(K, "log_softmax", "z = z - z.max(axis, keepdims=True)", "z = z + 0")],
        softmax_of_large_numbers, "closed form"),
    "cross-entropy without 1/N in backward": (
        [(K, "cross_entropy_backward", "g / len(gz)", "g")], cross_entropy_gradient, "ratio 5"),
    "cross-entropy without 1/N in both": (
        [(K, "cross_entropy_backward", "g / len(gz)", "g"), (K, "cross_entropy", "ANY.mean()", "ANY.sum()")],
        cross_entropy_value, "closed form"),
    "col2im assigns": ([(K, "col2im", "x[at] += ANY", "x[at] = ANY")], adjoint, "not adjoint"),
    "col2im assigns, seen by gradcheck": ([(K, "col2im", "x[at] += ANY", "x[at] = ANY")], conv_gradient, WRONG),
    "stride missing in col2im": (
        [(K, "col2im", "windows(ARG3, ARG4, out, ARG6)", "windows(ARG3, (1, 1), out, ARG6)")], adjoint, "not adjoint"),
    "stride missing in col2im, seen by gradcheck": (
        [(K, "col2im", "windows(ARG3, ARG4, out, ARG6)", "windows(ARG3, (1, 1), out, ARG6)")], conv_gradient, WRONG),
    "kernel height used for width, output size": (
        [(K, "output_size", "zip(size, kernel, stride, padding, strict=True)",
          "zip(size, kernel[:1] * 2, stride, padding, strict=True)")], conv_value, "could not broadcast"),
    "kernel height used for width, columns": (
        [(K, "col2im", "cols.reshape(C, *kernel, N, *out)", "cols.reshape(C, *kernel[::-1], N, *out).swapaxes(1, 2)")],
        conv_gradient, WRONG),
    "kernel height used for width, pooling": (
        [(K, "max_pool2d", "i * kernel[1] + j", "i * kernel[0] + j"),
         (K, "max_pool2d_backward", "i * kernel[1] + j", "i * kernel[0] + j")], pooling_gradient, WRONG),
    "kernel height used for width, mean of a window": (
        [(K, "avg_pool2d", "kernel[0] * kernel[1]", "kernel[0] * kernel[0]"),
         (K, "avg_pool2d_backward", "kernel[0] * kernel[1]", "kernel[0] * kernel[0]")], pooling_value, LOOP),
    "padding stripped with [p:-p]": ([(K, "crop2d", CROP, "x[..., ph:-ph, pw:-pw]")], conv_gradient, SHAPE),
    "BN statistics treated as constants": ([(K, "batch_norm_backward", BN_DX, "g")], batch_norm_gradient, WRONG),
    "BN without the variance term": (
        [(K, "batch_norm_backward", "ANY - xhat * per_channel(ggamma / m, g.ndim)", "ANY")],
        batch_norm_gradient, WRONG),
    "BN without the mean term": (
        [(K, "batch_norm_backward", "ANY - per_channel(gbeta / m, g.ndim)", "ANY")], batch_norm_gradient, WRONG),
    "gamma missing in dx": (
        [(K, "batch_norm_backward", "per_channel(gamma * inv, g.ndim)", "per_channel(inv, g.ndim)")],
        batch_norm_gradient, WRONG),
    "gamma missing in dx, eval mode": (
        [(K, "batch_norm_eval_backward", "per_channel(gamma * inv, g.ndim)", "per_channel(inv, g.ndim)")],
        batch_norm_eval, WRONG),
    "eval mode using batch statistics": (
        [(nn.BatchNorm, "forward", "not self.training", "False")], batch_norm_eval, "eval mode"),
    "skip gradient dropped": ([(R, "backward", "gx = K.add(gx, gx_s)", "gx = gx")], by_hand, HAND),
    "skip gradient doubled": ([(R, "backward", "gx = K.add(gx, gx_s)", "gx = gx + 2 * gx_s")], by_hand, HAND),
    "skip gradient taken before the outer ReLU's mask": (
        [(R, "backward", *UNMASKED)],
        by_hand, HAND),
}

P = residual.PreactResidual
MORE = {
    "skip gradient dropped, seen by gradcheck": (
        [(R, "backward", "gx = K.add(gx, gx_s)", "gx = gx")], block_gradient, WRONG),
    "skip gradient doubled, seen by gradcheck": (
        [(R, "backward", "gx = K.add(gx, gx_s)", "gx = gx + 2 * gx_s")], block_gradient, WRONG),
    "skip gradient before the mask, seen by gradcheck": (
        [(R, "backward", *UNMASKED)],
        block_gradient, WRONG),
    "projection's gradient before the mask": (
        [(R, "backward", "K.batch_norm_backward(gz, gamma_s, self.bn_s)",
          "K.batch_norm_backward(ARG1, gamma_s, self.bn_s)")], by_hand, HAND),
    "projection's input gradient overwrites": ([(R, "backward", "gx = K.add(gx, gx_s)", "gx = gx_s")], by_hand, HAND),
    "relu' = 1 at the inner ReLU": (
        [(R, "backward", *NOT_MASKED)], by_hand, HAND),
    "relu' = 1 at the inner ReLU, seen by gradcheck": (
        [(R, "backward", *NOT_MASKED)], block_gradient, WRONG),
    "relu' = 1 in the fused kernel": ([(K, "batch_norm_relu_backward", "g = g * on", "g = g + 0")], by_hand, HAND),
    "relu' = 1 in the operation": ([(ops.Relu, "backward", "g * self.on", "g + 0")], by_hand, HAND),
    "pre-activation: skip gradient dropped": (
        [(P, "backward", "if not self.split_after_activation: gx = K.add(gx, gstart)", "pass")], by_hand, HAND),
    "pre-activation: skip gradient dropped after the activation": (
        [(P, "backward", "if self.split_after_activation: gh1 = K.add(gh1, gstart)", "pass")], by_hand, HAND),
    "pre-activation: skip gradient at the wrong end": (
        [(P, "backward", "if self.split_after_activation: gh1 = K.add(gh1, gstart)", "pass",
          "if not self.split_after_activation: gx = K.add(gx, gstart)",
          "if self.split_after_activation: gx = K.add(gx, gstart)")],
        by_hand, HAND),
    "by hand: statistics not updated": ([(nn.blocks, "_by_hand", "bn.update(mean, var, count)", "pass")],
        by_hand, "running_mean"),
    "by hand: gamma and beta swapped": (
        [(nn.Block, "forward_by_hand",
          "inputs = [x, self.conv1.weight, self.bn1.weight, self.bn1.bias, ANY, self.bn2.weight, self.bn2.bias]",
          "inputs = [x, self.conv1.weight, self.bn1.bias, self.bn1.weight, ANY, self.bn2.weight, self.bn2.bias]")],
        by_hand, HAND),
    "by hand: no shortcut at all": (
        [(R, "forward", "K.batch_norm_relu(a2, gamma2, beta2, ANY, skip=skip)",
          "K.batch_norm_relu(a2, gamma2, beta2, ANY, skip=None)"),
         (R, "backward", "gx = K.add(gx, gx_s)", "gx = gx")], by_hand, "differ: output"),
    "Bessel's m - 1 in BN backward": (
        [(K, "batch_norm_backward", "g.size // g.shape[1]", "g.size // g.shape[1] - 1")], batch_norm_gradient, WRONG),
    "BN's ggamma and gbeta swapped": (
        [(K, "batch_norm_backward", "return gx, ggamma, gbeta", "return gx, gbeta, ggamma")],
        batch_norm_gradient, WRONG),
    "BN's backward is zero": (
        [(K, "batch_norm_backward", "return gx, ggamma, gbeta", "return gx * 0, ggamma, gbeta")],
        batch_norm_gradient, "got -?0,"),
    "BN with eps outside the root": (
        [(K, "batch_norm", "(var + eps) ** -0.5", "1 / (var**0.5 + eps)")], batch_norm_value, "closed form"),
    "BN normalises by the unbiased variance": (
        [(K, "batch_norm", "(centred * centred).mean(axes)",
          "(centred * centred).sum(axes) / (centred.size // centred.shape[1] - 1)")], batch_norm_value, "closed form"),
    "running variance biased": (
        [(kernels, "running_statistics", "var = var * (count / (count - 1))", "pass")], running_statistics,
        "running variance"),
    "momentum weighs the old batch": (
        [(nn.BatchNorm, "update", "momentum = float(self.momentum)", "momentum = 1 - float(self.momentum)")],
        running_statistics, "running mean"),
    "kernel flipped, consistently": (
        [(K, "windows", "i * dilation[0]", "(ARG1[0] - 1 - i) * dilation[0]")], conv_value, LOOP),
    "dilation of the columns used for rows": (
        [(K, "windows", "i * dilation[0]", "i * dilation[1]")], sparse_conv_value, "broadcast|plain loop"),
    "dilation forgotten in the gradient of x": (
        [(K, "col2im", "windows(ARG3, ARG4, out, ARG6)", "windows(ARG3, ARG4, out)")],
        sparse_conv_gradient, WRONG),
    "groups: the weights of another group": (
        [(K, "conv2d_backward", "by_group(w.reshape(len(w), -1), groups).swapaxes(-1, -2) @ g",
          "by_group(w.reshape(len(w), -1), groups)[::-1].swapaxes(-1, -2) @ g")], sparse_conv_gradient,
        WRONG),
    "max pooling: dilation forgotten in backward": (
        [(K, "max_pool2d_backward", "_spread(ANY, ARG1, ARG3, ARG4, ARG5, ARG6, ARG7)",
          "_spread(ANY, ARG1, ARG3, ARG4, ARG5, ARG6, (1, 1))")], pooling_options, "differs|broadcast"),
    "mean pooling: what extends beyond the padding counts": (
        [(ops, "avg_pool2d", "y * Tensor(rows[:, None] * columns)", "y")], pooling_options, LOOP),
    "adaptive pooling: rows and columns exchanged": (
        [(ops.AdaptiveAvgPool2d, "forward", "map(_bands, size, x.shape[2:])", "map(_bands, size[::-1], x.shape[2:])")],
        pooling_options, LOOP),
    "adaptive pooling: the gradient counts only the rows of a band": (
        [(ops.AdaptiveAvgPool2d, "backward", "(r.stop - r.start) * (c.stop - c.start)", "r.stop - r.start")],
        pooling_options, WRONG),
    "where: both sides get the gradient": (
        [(ops.Where, "backward", "self.xp.where(self.condition, 0, g)", "g")], choices, WRONG),
    "clip: the gradient passes everywhere": ([(ops.Clip, "backward", "g * self.inside", "g + 0")], choices, WRONG),
    "leaky ReLU: the slope of a ReLU": (
        [(ops.LeakyRelu, "backward", "g * self.slope", "g * 0")], choices, WRONG),
    "GELU: the density forgotten": (
        [(ops.Gelu, "backward", "self.below + self.x * density", "self.below + 0 * density")], choices, WRONG),
    "GELU: two terms of the series": (
        [(ops.elementwise, "normal_cdf", "(c**2 - 1) * d**3 / 6", "0 * d")], choices,
        "closed form of gelu|differs from finite"),
    "power: the derivative by the exponent without the logarithm": (
        [(ops.Power, "backward", "g * self.y * xp.log(ANY)", "g * self.y")], choices, WRONG),
    "power: the exponent kept": (
        [(ops.Power, "backward", "xp.where(b == 0, 1, b) - 1", "b")], choices, WRONG),
    "standard deviation: the root forgotten": (
        [(ops.Std, "backward", "self.xp.where(self.y == 0, 1, self.y) * self.divisor", "self.divisor")], choices,
        WRONG),
    "linear: only the first matrix counts": (
        [(ops.Linear, "backward", "self.K.matmul(g.T, self.x)", "self.K.matmul(g[:5].T, self.x[:5])")], choices, WRONG),
    "cross-entropy: the mean over all labels": (
        [(ops.losses, "_general_cross_entropy", "(w * one_hot).sum(dtype=logits.dtype)",
          "np.asarray(ARG2.size, logits.dtype)")], cross_entropy_options, "closed form"),
    "cross-entropy: ignored labels count": (
        [(ops.losses, "_general_cross_entropy", "labels != ignore_index", "labels == labels")],
        cross_entropy_options, "closed form"),
    "cross-entropy: smoothing without the weights": (
        [(ops.losses, "_general_cross_entropy",
          "w * (one_hot * (1 - smoothing) + smoothing / K)", "w * one_hot * (1 - smoothing) + smoothing / K")],
        cross_entropy_options, "closed form"),
    "kernel's rows and columns exchanged in im2col": (
        [(K, "im2col", "cols.reshape(ANY, -1)", "cols.swapaxes(1, 2).reshape(ANY, -1)")], adjoint, "not adjoint"),
    "kernel's rows and columns exchanged in both": (
        [(K, "im2col", "cols.reshape(ANY, -1)", "cols.swapaxes(1, 2).reshape(ANY, -1)"),
         (K, "col2im", "cols.reshape(C, *kernel, N, *out)", "cols.reshape(C, *kernel[::-1], N, *out).swapaxes(1, 2)")],
        conv_value, LOOP),
    "channels last in the columns": (
        [(K, "im2col", "cols.reshape(ANY, -1)", "cols.transpose(1, 2, 0, 3, 4, 5).reshape(ANY, -1)")],
        conv_value, LOOP),
    "gradient of w transposed": (
        [(K, "conv2d_backward", "ANY.reshape(w.shape)", "ANY.T.reshape(w.shape)")], conv_gradient, WRONG),
    "bias's gradient averaged": ([(ops.Conv2d, "backward", "g.sum((0, 2, 3))", "g.mean((0, 2, 3))")],
        conv_gradient, WRONG),
    "max pooling: every tie wins": (
        [(K, "max_pool2d_backward", "g * (winner == i * kernel[1] + j)", "g * (winner >= 0)")],
        pooling_gradient, WRONG),
    "max pooling pads with zeros": (
        [(K, "max_pool2d", '-float("inf")', "0.0")], pooling_value, LOOP),
    "shortcut: channels at the wrong place, forward": (
        [(K, "shortcut", "(channels - len(x)) // 2", "channels - len(x)")], shortcut_gradient, WRONG),
    "shortcut: channels at the wrong place, both": (
        [(K, "shortcut", "(channels - len(x)) // 2", "(channels - len(x)) // 2 + 1"),
         (K, "shortcut_backward", "(g.shape[1] - C) // 2", "(g.shape[1] - C) // 2 + 1")], shortcut_value, LOOP),
    "shortcut: the odd pixels": (
        [(K, "shortcut", "x[:, :, ::stride, ::stride]", "x[:, :, ::stride, ::stride][:, :, :, ::-1]")],
        shortcut_value, LOOP),
    "shortcut: gradient on every pixel": (
        [(K, "shortcut_backward", "gx[:, :, ::stride, ::stride] = g[:, before:before + C]",
          "gx[:] = g[:, before:before + C].repeat(stride, 2).repeat(stride, 3)[:, :, :gx.shape[2], :gx.shape[3]]")],
        shortcut_gradient, WRONG),
    "graph not consumed": ([(tensor.Tensor, "backward", "t.creator = _CONSUMED", "pass")],
        backward_once, "second backward"),
    "gradients added in place": (
        [(tensor.Tensor, "backward", PENDING, "pending[id(x)].__iadd__(gx) if id(x) in pending else gx")],
        gradients_are_nobody_elses, WRONG),
    "a gradient in float32": (
        [(ops.Sqrt, "backward", "g * 0.5 / self.y", "(g * 0.5 / self.y).astype('f4')")], small_operations, SHAPE),
    "softmax's backward is zero": (
        [(ops.Softmax, "backward", "return ANY", "return 0 * (ANY)")], small_operations, WRONG),
    "log_softmax without the sum": (
        [(ops.LogSoftmax, "backward", "g.sum(self.axis, keepdims=True)", "1")], small_operations, WRONG),
    "tanh' = 1 - x^2": ([(ops.Tanh, "backward", "1 - self.y * self.y", "1 - self.y")], small_operations, WRONG),
    "matrix product's sides exchanged": (
        [(ops.MatMul, "backward", "self.K.matmul(g, self.b.swapaxes(-1, -2))", "(self.b @ g).swapaxes(-1, -2)")],
        small_operations, WRONG),
    "variance with N - 1 in backward only": (
        [(ops.Var, "backward", "2 / self.divisor", "2 / (self.divisor - 1)")], reductions, WRONG),
    "max: the axes not put back": (
        [(ops.Max, "backward", "inverse(self.order)", "self.order")], reductions, SHAPE),
    "quotient without the square": (
        [(ops.Div, "backward", "self.a / self.b / self.b", "self.a / self.b")], broadcasting, WRONG),
    "SGD: weight decay forgotten": ([(kernels, "sgd", "g += ARG6 * w", "pass")], sgd, "closed form"),
    "SGD: momentum forgotten": ([(kernels, "sgd", "g += ARG5 * v", "pass")], sgd, "closed form"),
    "SGD: velocity not kept": ([(optim.Optimizer, "adopt", "setattr(self, name, array)", "pass")], sgd, "closed form"),
    "SGD: dampened": (
        [(kernels, "sgd", "g += ARG5 * v", "g += ARG5 * (v - g)")], sgd, "closed form"),
    "SGD: the velocity holds the learning rate": (
        [(kernels, "sgd", "g += ARG5 * v", "g += ARG5 * v * (0.1 / ARG4)")],
        sgd, "closed form"),
    "Adam: no correction of the bias": (
        [(optim.Adam, "_unbiased", "beta ** np.maximum(self.updates[members], 1).astype(np.float64)",
          "0 * np.maximum(self.updates[members], 1).astype(np.float64)")], adam, "closed form"),
    "Adam: the betas exchanged": (
        [(optim.Adam, "_rule", "self.betas[1] * v", "self.betas[0] * v")], adam, "closed form"),
    "Adam: eps inside the root": (
        [(optim.Adam, "_rule", "self.xp.sqrt(v) / two**0.5 + self.eps", "self.xp.sqrt(v + self.eps) / two**0.5")],
        adam, "closed form"),
    "Adam: updates counted for a parameter that rests": (
        [(optim.Adam, "_count", "more[idle] = 0", "pass")], adam, "closed form"),
    "AdamW: the decay without the learning rate": (
        [(optim.AdamW, "_decayed", "1 - lr * decay", "1 - decay")], adam, "closed form"),
    "groups: one learning rate for all": (
        [(optim.Optimizer, "_updated", "self.lr * float(group.lr_factor)", "self.lr")], adam, "closed form"),
    "groups: a parameter in the wrong group": (
        [(optim.Optimizer, "_updated", "slice(begin, self.ends[last - 1])", "slice(0, self.ends[0])")],
        adam, "closed form"),
    "Nesterov: with the old velocity": (
        [(optim.SGD, "_rule", "w - lr * (g + self.momentum * v)", "w - lr * (g + v - g)")],
        nesterov_and_clipping, "closed form"),
    "clipping: small gradients scaled up": (
        [(optim, "clip_gradients", "xp.minimum(float(most) / (norm + 1e-6), 1.0)", "float(most) / (norm + 1e-6)")],
        clipping_of_small, "closed form"),
    "clipping: the norm of each parameter alone": (
        [(optim, "clip_gradients", "xp.sqrt(sum(xp.square(p.grad.astype(np.float64)).sum() for p in given))",
          "max(xp.sqrt(xp.square(p.grad.astype(np.float64)).sum()) for p in given)")],
        clipping_of_small, "closed form"),
}

B = blocked
ROWS = blocked._Rows  # private: bugs are planted in the code that does the work
IN_FAST_KERNELS = {
    "rows: the border is not zero": [(ROWS, "__init__", "np.zeros", "np.ones")],
    "rows: a stride's remainders mixed up": [
        (ROWS, "fill", "rows[:, i % sh, i // sh:i // sh + Ho]", "rows[:, 0, i // sh:i // sh + Ho]")],
    "rows: the kernel's second row read one row low": [
        (ROWS, "fill", "rows[:, i % sh, i // sh:i // sh + Ho]",
         "rows[:, i % sh, (i + 1) // sh:(i + 1) // sh + Ho]")],
    "convolution: only the last kernel row counts": [(B, "_conv", "y += summand", "y[...] = summand")],
    "dL/dw: only the first image of a block": [(B, "_outer", "ANY.sum((0, 1))", "ANY[0].sum(0)")],
    "dL/dw: blocks lost": [(B, "_in_order", "functools.reduce(np.add, sums)", "sums[0]")],
    "dL/dw: the rows of the kernel not turned back": [
        (B, "_gradient_of_input", "ANY[::-1, :, ::-1]", "ANY[:, :, ::-1]")],
    "dL/dx: the kernel's columns not turned": [
        (B, "_gradient_of_input", "ANY[:, :, ::-1, :, ::-1]", "ANY[:, :, ::-1, :, :]")],
    "dL/dx: the padding forgotten in the rows": [(B, "_gradient_of_input", "(a - ph) % sh", "a % sh")],
    "BN: blocks of different size count alike": [
        (B, "_statistics", "(sizes * means).sum(0) / sizes.sum()", "means.mean(0)")],
    "BN: what lies between the blocks' means forgotten": [
        (B, "_statistics", "squares + sizes * (means - mean) ** 2", "squares")],
    "BN: digits lost at a large mean": [(B, "_moments", "10 * squares", "1e30 * squares")],
    "BN: the rest of the mean forgotten in dL/dgamma": [(B, "_gradient", "ggamma - rest * gbeta", "ggamma")],
    "BN, eval mode: statistics get a gradient": [(B, "_gradient", "not constant", "True")],
    "BN + ReLU: gradient not masked": [(B, "_gradient", "np.greater(y[at], 0, out=m)", "m[...] = 1")],
    "BN + ReLU: the skip is added after the ReLU": [
        (B, "_normalise", "y += S[at]", "pass", "np.maximum(y, zero, out=y)",
         "np.add(np.maximum(y, zero, out=y), 0 if S is None else S[at], out=y)")],
    "BN + ReLU: the skip's gradient is dL/dx": [
        (B, "_gradient", "G if y is None else ANY if keep else GX", "G if y is None else GX")],
    "max pool: NaN does not win": [(B, "max_pool2d", "better |= v != v", "pass")],
    "max pool: overlapping windows overwrite": [(B, "max_pool2d_backward", "padded[tap] += ANY", "padded[tap] = ANY")],
    "mean pool: the rows' stride used for columns": [
        (B, "avg_pool2d", "(Ho, Wo), (sh, sw) = ANY, stride", "(Ho, Wo), (sh, sw) = ANY, (stride[0], stride[0])")],
    "option A: new channels at the wrong end": [
        (B, "shortcut", "(channels - x.shape[3]) // 2", "channels - x.shape[3]")],
    "option A: its gradient from the wrong channels": [(B, "shortcut_backward", "(g.shape[1] - C) // 2", "0")],
    "a sum of two gradients is the first one": [
        (B, "add", "np.add(A[at], B[at], out=Y[at])", "np.add(A[at], 0, out=Y[at])")],
}
FAST = {name: (places, fast_kernels, "fast and reference differ|could not be broadcast|mismatch")
        for name, places in IN_FAST_KERNELS.items()}

BUGS = SHIPPED | MORE | FAST
passed = set()  # checks that have passed on the unchanged library


@pytest.mark.parametrize("places, check, says", BUGS.values(), ids=BUGS)
def test_a_planted_bug_is_caught(places, check, says, monkeypatch):
    if check not in passed:
        check()
        passed.add(check)
    for place in places:
        plant(monkeypatch, *place)
    with pytest.raises((AssertionError, TypeError, ValueError), match=says):
        check()


@pytest.mark.parametrize("name", ["kernel flipped, consistently", "kernel's rows and columns exchanged in both",
                                  "cross-entropy without 1/N in both"])
def test_gradcheck_alone_cannot_see_a_consistently_wrong_forward(name, monkeypatch):
    """This is why every forward is also compared with a plain loop or a closed form."""
    for place in BUGS[name][0]:
        plant(monkeypatch, *place)
    conv_gradient()
    adjoint()
    cross_entropy_gradient()
    with pytest.raises(AssertionError):
        BUGS[name][1]()


# ---------------------------------------------------------------------------------- how a place is found


def test_a_pattern_that_fits_nowhere_or_twice_is_an_error(monkeypatch):
    with pytest.raises(AssertionError, match=r"'a.no_such_name' is found 0 times in\ndef backward"):
        plant(monkeypatch, ops.Mean, "backward", "a.no_such_name", "a")
    with pytest.raises(AssertionError, match="'self' is found 5 times"):
        plant(monkeypatch, ops.Mean, "backward", "self", "self")
    with pytest.raises(AssertionError, match="change nothing"):
        plant(monkeypatch, ops.Mean, "backward", "ANY / self.count", "ANY / self.count")


def locals_of(tree):
    return {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)} | {
        n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)} - {"_"}


class Renamed(ast.NodeTransformer):
    """Renamed gives other names to parameters, local variables and the attributes of self."""

    def __init__(self, names):
        self.names = {name: f"other_{name}" for name in names - {"self"}}

    def visit_Name(self, node):
        return ast.Name(self.names.get(node.id, node.id), node.ctx)

    def visit_arg(self, node):
        return ast.arg(self.names.get(node.arg, node.arg), node.annotation)

    def visit_Attribute(self, node):
        if ast.unparse(node.value) == "self":
            return ast.Attribute(node.value, f"other_{node.attr}", node.ctx)
        return self.generic_visit(node)


PLACES = {f"{owner.__name__}.{name}: {changes[0]}": (owner, name, *changes)
          for places, _, _ in BUGS.values() for owner, name, *changes in places}


@pytest.mark.parametrize("owner, name, changes", [(o, n, c) for o, n, *c in PLACES.values()], ids=PLACES)
def test_a_place_is_found_whatever_the_variables_are_called(owner, name, changes):
    function = inspect.getattr_static(owner, name)
    other = Renamed(locals_of(tree_of(function)))
    here, there = tree_of(function), other.visit(tree_of(function))
    assert ast.unparse(other.visit(changed(here, function.__globals__, *changes))) == \
        ast.unparse(changed(there, function.__globals__, *changes))
