"""Test minires.testing on backward passes of several styles, right ones and ones with planted bugs."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import minires.testing
from minires import Tensor, gradient_check, nn, ops
from minires.testing import changed, check_backward, check_layer, planted, survivors

RNG = np.random.default_rng(15)


def normal(*shape):
    return RNG.standard_normal(shape)


# ----------------------------------------------------------------------- right pairs, each in its own style


def conv_forward(x, w, b, stride, padding):
    """Write one loop over the kernel's places, around a matrix product."""
    n, _, h, v = x.shape
    o, _, kh, kw = w.shape
    ho, wo = (h + 2 * padding - kh) // stride + 1, (v + 2 * padding - kw) // stride + 1
    xp = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    y = np.zeros((n, o, ho, wo), x.dtype) + b.reshape(1, -1, 1, 1)
    for i in range(kh):
        for j in range(kw):
            part = xp[:, :, i:i + stride * ho:stride, j:j + stride * wo:stride]
            y += np.einsum("nchw,oc->nohw", part, w[:, :, i, j])
    return y, (x.shape, xp, w, stride, padding)


def conv_backward(dy, cache):
    shape, xp, w, stride, padding = cache
    ho, wo = dy.shape[2:]
    dxp, dw = np.zeros_like(xp), np.zeros_like(w)
    for i in range(w.shape[2]):
        for j in range(w.shape[3]):
            rows, columns = slice(i, i + stride * ho, stride), slice(j, j + stride * wo, stride)
            dw[:, :, i, j] = np.einsum("nohw,nchw->oc", dy, xp[:, :, rows, columns])
            dxp[:, :, rows, columns] += np.einsum("nohw,oc->nchw", dy, w[:, :, i, j])
    dx = dxp[:, :, padding:padding + shape[2], padding:padding + shape[3]]
    return dx, dw, dy.sum((0, 2, 3))


def batch_norm_forward(x, gamma, beta, eps):
    centred = x - x.mean(0)
    inv = 1 / np.sqrt((centred * centred).mean(0) + eps)
    xhat = centred * inv
    return gamma * xhat + beta, {"xhat": xhat, "inv": inv, "gamma": gamma}


def batch_norm_backward(dy, cache):
    """Return a dict, with a d before each name."""
    xhat, inv, gamma = cache["xhat"], cache["inv"], cache["gamma"]
    m = len(dy)
    dbeta, dgamma = dy.sum(0), (dy * xhat).sum(0)
    dx = gamma * inv / m * (m * dy - dbeta - xhat * dgamma)
    return {"dx": dx, "dgamma": dgamma, "dbeta": dbeta}


def residual_forward(x, p):
    """Take the parameters of two layers as a dict."""
    h = x @ p["w1"] + p["b1"]
    a = np.maximum(h, 0)
    z = a @ p["w2"] + x
    return np.maximum(z, 0), (x, p, h, a, z)


def residual_backward(dy, cache):
    x, p, h, a, z = cache
    dz = dy * (z > 0)
    dw2 = a.T @ dz
    dh = (dz @ p["w2"].T) * (h > 0)
    dx = dh @ p["w1"].T + dz
    return dx, {"w1": x.T @ dh, "b1": dh.sum(0), "w2": dw2}


def cross_entropy_forward(logits, labels):
    """Return a loss, a number without axes."""
    shifted = logits - logits.max(1, keepdims=True)
    p = np.exp(shifted) / np.exp(shifted).sum(1, keepdims=True)
    return -np.log(p[np.arange(len(labels)), labels]).mean(), (p, labels)


def cross_entropy_backward(dy, cache):
    p, labels = cache
    d = p.copy()
    d[np.arange(len(labels)), labels] -= 1
    return dy * d / len(labels)


def max_pool_forward(x, size):
    n, c, h, w = x.shape
    windows = x.reshape(n, c, h // size, size, w // size, size).transpose(0, 1, 2, 4, 3, 5)
    windows = windows.reshape(n, c, h // size, w // size, size * size)
    where = windows.argmax(-1)
    return np.take_along_axis(windows, where[..., None], -1)[..., 0], (x.shape, where, size)


def max_pool_backward(dy, cache):
    (n, c, h, w), where, size = cache
    d = np.zeros((*where.shape, size * size), dy.dtype)
    np.put_along_axis(d, where[..., None], dy[..., None], -1)
    d = d.reshape(n, c, h // size, w // size, size, size).transpose(0, 1, 2, 4, 3, 5)
    return d.reshape(n, c, h, w)


class Affine:
    """Affine keeps what backward needs on itself."""

    def forward(self, x, w):
        self.x, self.w = x, w
        return x @ w, None

    def backward(self, dy, _):
        return dy @ self.w.T, self.x.T @ dy


def eval_batch_norm_forward(x, gamma, beta, mean, var):
    inv = 1 / np.sqrt(var + 1e-5)
    xhat = (x - mean) * inv
    return gamma * xhat + beta, (xhat, inv, gamma)


def eval_batch_norm_backward(dy, cache):
    xhat, inv, gamma = cache
    return dy * gamma * inv, (dy * xhat).sum(0), dy.sum(0)


CONV = normal(2, 3, 6, 5), normal(4, 3, 3, 2), normal(4), 2, 1
BATCH_NORM = normal(7, 3), normal(3), normal(3), 1e-2
RESIDUAL = normal(4, 3), {"w1": normal(3, 5), "b1": normal(5), "w2": normal(5, 3)}
LOSS = normal(5, 4), np.array([0, 3, 1, 3, 2])
POOL = normal(2, 3, 4, 6), 2
PAIRS = {
    "convolution": (conv_forward, conv_backward, CONV),
    "batch norm": (batch_norm_forward, batch_norm_backward, BATCH_NORM),
    "residual block": (residual_forward, residual_backward, RESIDUAL),
    "softmax cross-entropy": (cross_entropy_forward, cross_entropy_backward, LOSS),
    "max pool": (max_pool_forward, max_pool_backward, POOL),
}


@pytest.mark.parametrize("forward, backward, args", PAIRS.values(), ids=PAIRS)
def test_right_pairs_of_several_styles_are_accepted(forward, backward, args):
    report = check_backward(forward, backward, *args, entries=40)
    assert re.fullmatch(rf"{backward.__name__} passed: \d+ of \d+ entries, worst relative error .*", str(report))


def test_names_are_those_of_the_forward_functions_parameters():
    report = check_backward(residual_forward, residual_backward, *RESIDUAL)
    assert [a.name for a in report.arguments] == ["x", "p.w1", "p.b1", "p.w2"] and report.total == 12 + 15 + 5 + 15
    many = check_backward(lambda *xs: (xs[0] * xs[1], xs), lambda dy, xs: (dy * xs[1], dy * xs[0]), *LOSS[:1] * 2)
    assert [a.name for a in many.arguments] == ["xs[0]", "xs[1]"]


def test_only_the_wanted_arguments_need_a_gradient():
    args = normal(7, 3), normal(3), normal(3), normal(3), RNG.uniform(0.5, 2, 3)
    pair = eval_batch_norm_forward, eval_batch_norm_backward
    report = check_backward(*pair, *args, wrt=("x", "gamma", "beta"))
    assert [a.name for a in report.arguments] == ["x", "gamma", "beta"]
    with pytest.raises(AssertionError, match=r"expected 5 results, the gradients of x, gamma, beta, mean and var; got "
                                             "a tuple of 3"):
        check_backward(*pair, *args)
    with pytest.raises(ValueError, match="wrt: expected names of arguments with float arrays, which are x, gamma, "
                                         "beta, mean, var; got 'delta'"):
        check_backward(*pair, *args, wrt="delta")


def test_a_cache_on_an_object_needs_permission():
    layer = Affine()
    args = normal(4, 3), normal(3, 2)
    with pytest.raises(AssertionError, match="gives another gradient of x and w when forward was called on other data"):
        check_backward(layer.forward, layer.backward, *args)
    check_backward(layer.forward, layer.backward, *args, reentrant=False)


# ----------------------------------------------------------------------------------------- planted bugs

BUGS = {
    "convolution": {
        "overlapping windows overwrite": ("dxp[:, :, rows, columns] += np", "dxp[:, :, rows, columns] = np"),
        "no stride in dx": ("slice(i, i + stride * ho, stride)", "slice(i, i + ho)"),
        "kernel turned": ("np.einsum('nohw,oc->nchw', dy, w[:, :, i, j])".replace("'", '"'),
                          'np.einsum("nohw,oc->nchw", dy, w[:, :, -1 - i, j])'),
        "padding not cut off": ("dxp[:, :, padding:padding + shape[2], padding:padding + shape[3]]", "dxp"),
        "padding cut at one end": ("padding:padding + shape[2], padding:padding + shape[3]", ":shape[2], :shape[3]"),
        "dw averaged": ("return dx, dw,", "return dx, dw / len(dy),"),
        "db summed over the batch only": ("dy.sum((0, 2, 3))", "dy.sum(0)"),
        "db averaged": ("dy.sum((0, 2, 3))", "dy.mean((0, 2, 3))"),
    },
    "batch norm": {
        "statistics constant": ("(m * dy - dbeta - xhat * dgamma)", "(m * dy)"),
        "variance constant": ("- xhat * dgamma", ""), "mean constant": ("m * dy - dbeta", "m * dy"),
        "sign": ("- xhat * dgamma", "+ xhat * dgamma"), "m - 1": ("inv / m", "inv / (m - 1)"),
        "no gamma": ("gamma * inv / m", "inv / m"), "variance, not its root": ("gamma * inv", "gamma * inv * inv"),
        "dgamma averaged": ('"dgamma": dgamma', '"dgamma": dgamma / m'), "zero": ('"dx": dx', '"dx": 0 * dx'),
        "exchanged": ('"dgamma": dgamma, "dbeta": dbeta', '"dgamma": dbeta, "dbeta": dgamma'),
    },
    "residual block": {
        "skip dropped": ("dh @ p['w1'].T + dz".replace("'", '"'), 'dh @ p["w1"].T'),
        "skip doubled": ("+ dz", "+ 2 * dz"), "outer mask missing": ("dy * (z > 0)", "dy"),
        "inner mask missing": ("* (h > 0)", ""), "skip before the mask": ("+ dz", "+ dy"),
        "mask of the input": ("(z > 0)", "(x > 0)"), "keys exchanged": ('"w1": x.T @ dh', '"w1": x.T @ dh * 2'),
    },
    "softmax cross-entropy": {
        "no 1/N": ("/ len(labels)", ""), "dy forgotten": ("dy * d", "d"), "no label": ("-= 1", "-= 0"),
        "changes its cache": ("p.copy()", "p"),
    },
    "max pool": {
        "places exchanged": ("(0, 1, 2, 4, 3, 5)", "(0, 1, 2, 5, 3, 4)"), "averaged": ("dy[..., None], -1)",
                                                                                     "dy[..., None] / size, -1)"),
        "first place always": ("where[..., None], dy", "0 * where[..., None], dy"),
    },
}


@pytest.mark.parametrize("name", PAIRS)
def test_planted_bugs_are_caught(name):
    forward, backward, args = PAIRS[name]
    assert survivors(lambda: check_backward(forward, backward, *args, entries=10), backward, BUGS[name]) == []


def test_several_wrong_arguments_are_all_listed():
    bugs = ("return dx, dw,", "return -dx, dw,"), ("dy.sum((0, 2, 3))", "dy.sum((0, 2, 3))[:, None]")
    with planted(conv_backward, *bugs), pytest.raises(gradient_check.GradientError) as e:
        check_backward(conv_forward, conv_backward, *CONV)
    lines = str(e.value).splitlines()
    assert lines[0] == "conv_backward: x: wrong, w: right, b: wrong"
    assert re.search(r"^  x \(2, 3, 6, 5\): backward differs from .* in 100 of 100 entries; .* ratio -1$", lines[1])
    assert lines[2:] == ["  b (4,): backward returned an array of shape (4, 1)"]
    assert [a.verdict for a in e.value.report.arguments] == ["wrong", "right", "wrong"]


# -------------------------------------------------------------------------------------------- bad manners

last = {}


def scaled_forward(x, w):
    return x * w, (x, w)


def centred_in_place(x, w):
    x -= x.mean()
    return x * w, (x, w)


def scaled_in_one_place(x, w):
    last["x"] = x
    return x * w, w


def buffer_forward(x, w, out=np.zeros((4, 3))):  # noqa: B008
    np.multiply(x, w, out=out)
    return out, (x.copy(), w.copy())


def shift_forward(x, b):
    return x + b, None


def noisy(x, w, rng=np.random.default_rng(0)):  # noqa: B008
    return x * w * rng.uniform(1, 2), (x, w)


def both(dy, cache):
    return dy * cache[1], dy * cache[0]


def scaled_dy(dy, cache):
    x, w = cache
    dx = dy * w
    dy *= x
    return dx, dy


def scaled_cache(dy, cache):
    x, w = cache
    dx = dy * w
    w *= 2
    return dx, dy * x


def reused(dy, cache, out=np.zeros((4, 3))):  # noqa: B008
    return np.multiply(dy, cache[1], out=out), dy * cache[0]


def fortran(dy, cache):
    """Read memory, not elements."""
    x, w = cache
    return dy * w, dy * np.ndarray(x.shape, x.dtype, x.base if x.base is not None else x)


X, W = normal(4, 3), normal(4, 3)
MANNERS = {
    "x written to": (centred_in_place, both, "centred_in_place writes into x, which the caller still needs"),
    "dy written to": (scaled_forward, scaled_dy, "scaled_dy writes into dy"),
    "cache changed": (scaled_forward, scaled_cache, "another gradient of x when it is called a second time"),
    "an input changed through the cache": (scaled_forward, scaled_cache, "writes into w through the cache"),
    "cache emptied": (lambda x, w: (x * w, [x, w]), lambda dy, c: (dy * c.pop(), dy * c.pop()),
                      "fails when it is called a second time (IndexError"),
    "dy returned": (shift_forward, lambda dy, _: (dy, dy.copy()), "returns dy itself, or a view of it, as the gradient "
                                                                  "of x"),
    "a view of dy": (shift_forward, lambda dy, _: (dy.copy(), dy[:]), "returns dy itself, or a view of it, as the "
                                                                      "gradient of b"),
    "one array for two": (shift_forward, lambda dy, _: (dy.copy(),) * 2, "the array that is the gradient of x too"),
    "a saved array": (lambda x, w: (x * w.sum() + w * x.sum(), (x, w)), lambda dy, c: (c[0], c[1]),
                      "returns an array that forward saved"),
    "a buffer for gradients": (scaled_forward, reused, "returns a buffer as the gradient of x"),
    "a buffer for y": (buffer_forward, both, "buffer_forward returns a buffer, which its next call overwrites"),
    "one place for all calls": (scaled_in_one_place, lambda dy, w: (dy * w, dy * last["x"]),
                                "scaled_in_one_place was called on other data in between"),
    "float64 from float32": (lambda x, w: (x * w * np.ones(3), (x, w)), both, "returns float64 for float32 arrays"),
    "float64 gradients": (scaled_forward, lambda dy, c: (dy * c[1] * np.float64(1), dy * c[0]),
                          "returns float64 for float32 arrays, as the gradient of x"),
    "memory order": (scaled_forward, fortran, "not contiguous in memory give another result: w"),
}


@pytest.mark.parametrize("forward, backward, says", MANNERS.values(), ids=MANNERS)
def test_bad_manners_are_caught(forward, backward, says):
    with pytest.raises(gradient_check.GradientError, match=re.escape(says)):
        check_backward(forward, backward, X, W)


def test_manners_are_named_next_to_right_gradients():
    with pytest.raises(AssertionError) as e:
        check_backward(scaled_forward, scaled_dy, X, W)
    assert str(e.value).splitlines()[:2] == ["scaled_dy: x: right, w: right", "  scaled_dy writes into dy, which other "
                                             "steps of a graph use too; make a new array"]


def test_permissions():
    check_backward(shift_forward, lambda dy, _: (dy, dy), X, W, fresh=False)
    check_backward(lambda x, w: (x * w * np.ones(3), (x, w)), both, X, W, float32=False)


STRUCTURE = {
    "no pair": (lambda x, w: x * w, both, AssertionError, "expected (y, cache), got an array of shape (4, 3)"),
    "a Tensor": (lambda x, w: (Tensor(x), ()), both, AssertionError,
                 "expected an array as the first result, got a Tensor"),
    "float32 made": (lambda x, w: ((x * w).astype("f4"), (x, w)), both, AssertionError,
                     "expected a float64 result for float64 arrays, got float32"),
    "NaN": (lambda x, w: (x * np.nan, (x, w)), both, AssertionError, "expected a finite result, got NaN or infinity"),
    "random": (noisy, both, AssertionError, "two calls with the same arguments gave two results"),
    "no return": (scaled_forward, lambda dy, c: None, AssertionError, "the gradients of x and w, got None (is its"),
    "one of two": (scaled_forward, lambda dy, c: dy * c[1], AssertionError,
                   "expected 2 results, the gradients of x and w; got an array of shape (4, 3)"),
    "three of two": (scaled_forward, lambda dy, c: (*both(dy, c), 0), AssertionError, "got a tuple of 3"),
    "a list of numbers": (scaled_forward, lambda dy, c: ([1.0], dy), AssertionError,
                          "expected an array as the gradient of x, got a list of 1"),
    "a gradient in float32": (scaled_forward, lambda dy, c: (dy * c[1], (dy * c[0]).astype("f4")), AssertionError,
                              "w (4, 3): backward returned float32 for float64 arrays"),
    "None for a gradient": (scaled_forward, lambda dy, c: (dy * c[1], None), AssertionError, "x: right, w: wrong"),
}


@pytest.mark.parametrize("forward, backward, error, says", STRUCTURE.values(), ids=STRUCTURE)
def test_what_is_not_a_pair_gets_a_sentence(forward, backward, error, says):
    with pytest.raises(error, match=re.escape(says)):
        check_backward(forward, backward, X, W)


def test_a_missing_key_is_named():
    says = "expected the gradient of p to have its keys; got a dict of 2 without 'b1'"
    with planted(residual_backward, ('"b1": dh.sum(0),', "")), pytest.raises(AssertionError, match=says):
        check_backward(residual_forward, residual_backward, *RESIDUAL)


def test_arguments_without_float_arrays_are_refused():
    with pytest.raises(ValueError, match=r"expected a float array among the arguments \(x, w\), got none"):
        check_backward(scaled_forward, both, 3.0, np.arange(3))


def test_kinks_are_named():
    report = check_backward(lambda x: (np.maximum(x, 0), x), lambda dy, x: dy * (x > 0), np.array([0.0, 1.0, -2.0]))
    assert "kink at x, index (0,)" in str(report)


# ------------------------------------------------------------------------------------------------- layers


class Layer(nn.Module):
    """Layer is right. Its bugs are planted."""

    def __init__(self):
        self.conv = nn.Conv2d(2, 3, 3, 1, 1, rng=np.random.default_rng(0))
        self.bn = nn.BatchNorm2d(3)

    def forward(self, x):
        h = self.bn(self.conv(x))
        return ops.relu(h)


def test_right_layers_are_accepted():
    layer = Layer()
    before = {name: t.data.copy() for name, t in layer.state().items()}
    reports = check_layer(layer, normal(3, 2, 4, 5), entries=15)
    assert str(reports["eval"]).startswith("Layer in eval mode passed: ")
    assert [a.name for a in reports["train"].arguments] == ["input", "conv.weight", "bn.weight", "bn.bias"]
    assert all(np.array_equal(t.data, before[name]) and t.grad is None for name, t in layer.state().items())
    check_layer(nn.Dropout(0.5, rng=np.random.default_rng(0)), normal(3, 4))


def test_planted_bugs_in_a_layer_are_caught():
    bugs = {
        "a detached branch": ("self.conv(x)", "Tensor(self.conv(x).data)"),
        "eval moves the statistics": ("return", "self.bn.running_mean.data = 1 + self.bn.running_mean.data; return"),
        "float64": ("return ops.relu(h)", "return Tensor(ops.relu(h).data.astype('f8'))"),
        "x is written to": ("h = self.bn(self.conv(x))", "x.data[0] = 0; h = self.bn(self.conv(x))"),
        "random in eval mode": ("ops.relu(h)", "ops.relu(h * np.random.default_rng().uniform(1, 2, 1)[0].item())"),
    }
    assert survivors(lambda: check_layer(Layer(), normal(3, 2, 4, 5), entries=10), Layer, bugs) == []


def test_a_mode_that_does_not_reach_a_layer_is_named():
    class Own(Layer):
        def train(self, on=True):
            self.training = on
            return self

    own = Own()
    own.bn.training = False
    with pytest.raises(AssertionError, match=r"train\(\) does not reach .*bn"):
        check_layer(own, normal(3, 2, 4, 5), entries=5)


def test_a_function_is_not_a_layer():
    with pytest.raises(TypeError, match="check_layer: expected a Module, got function; for plain functions"):
        check_layer(conv_forward, X)


# ---------------------------------------------------------------------------------------------- survivors


def weak():
    """Look at shapes, and at one geometry in which stride and padding do nothing."""
    x, w, b = normal(1, 2, 3, 3), normal(2, 2, 3, 3), normal(2)
    y, cache = conv_forward(x, w, b, 1, 0)
    dx, dw, db = conv_backward(np.ones_like(y), cache)
    assert (dx.shape, dw.shape, db.shape) == (x.shape, w.shape, b.shape)
    np.testing.assert_allclose(dx[0], w.sum(0))


def good():
    check_backward(conv_forward, conv_backward, *CONV, entries=10)


def test_survivors_are_the_bugs_that_a_weak_test_misses():
    bugs = BUGS["convolution"]
    missed = survivors(weak, conv_backward, bugs)
    assert missed == ["overlapping windows overwrite", "no stride in dx", "padding not cut off",
                      "padding cut at one end", "dw averaged", "db averaged"]
    assert survivors(good, conv_backward, bugs) == []


def test_the_function_is_whole_again_after_a_bug():
    code = conv_backward.__code__
    survivors(weak, conv_backward, BUGS["convolution"])
    assert conv_backward.__code__ is code
    with pytest.raises(ZeroDivisionError), planted(conv_backward, ("return dx", "return 1 / 0, dx")):
        weak()
    assert conv_backward.__code__ is code
    good()


def made(factor):
    def scale(x):
        """Multiply by a variable of the function around."""
        return x * factor
    return scale


def test_a_test_may_take_the_function_and_may_return_false():
    double = made(2)
    bugs = {"no factor": ("x * factor", "x"), "added": ("x*factor", "x + factor"), "squared": ("x", "x ** 1")}
    assert survivors(lambda f: f(2) == 4, double, {"no factor": bugs["no factor"]}) == []
    assert survivors(lambda f: f(2) == 4, double, {"added": bugs["added"]}) == ["added"]
    assert survivors(lambda f: np.bool_(f(3) == 6), double, {"added": bugs["added"]}) == []


class Base:
    def value(self): return 1


class Derived(Base):
    def value(self):
        self.__hidden = super().value()
        return self.__hidden + 1

    @staticmethod
    def two(): return 2


def test_methods_and_classes_can_be_changed():
    bugs = {"one more": ("self.__hidden + 1", "self.__hidden + 2"), "no super": ("super().value()", "5")}
    assert survivors(lambda: Derived().value() == 2, Derived.value, bugs) == []
    assert survivors(lambda: Derived().value() == 2, Derived, {**bugs, "two": ("return 2", "return 3")}) == ["two"]


def passes(): pass


def fails(): raise AssertionError("no")


def skips(): pytest.skip("no data")


WRONG = {
    "fails": (fails, made, {}, AssertionError, "the test must pass on made as it is, but it raises AssertionError: no"),
    "false": (lambda: False, made, {}, AssertionError, "but it returns False"),
    "skipped": (skips, made, {}, AssertionError, "the test was skipped (no data)"),
    "not there": (passes, made, {"b": ("y", "z")}, ValueError, "bug 'b': expected 'y' exactly once, found it 0 times"),
    "twice": (passes, made, {"b": ("factor", "z")}, ValueError, "expected 'factor' exactly once, found it 2 times"),
    "no change": (passes, made, {"b": ("x * factor", "(x*factor)")}, ValueError, "change nothing"),
    "not Python": (passes, made, {"b": ("x * factor", "x *")}, ValueError, "is not valid Python"),
    "empty": (passes, made, {"b": (" ", "x")}, ValueError, "an old text that is not empty"),
    "built in": (passes, len, {"b": ("x", "y")}, ValueError, "written in Python, got builtin_function_or_method"),
    "in no method": (passes, Derived, {"b": ("y", "z")}, ValueError,
                     "in one method of Derived (value, two), found it in 0"),
    "no source": (passes, eval("lambda x: x"), {"b": ("x", "2 * x")}, ValueError, "the source of <lambda> is not"),
}


@pytest.mark.parametrize("test, function, bugs, error, says", WRONG.values(), ids=WRONG)
def test_a_bug_that_does_not_fit_is_refused(test, function, bugs, error, says):
    with pytest.raises(error, match=re.escape(says)):
        survivors(test, function, bugs)


def test_white_space_does_not_count_and_words_are_whole():
    source = "def f(x):\n    y = x  *  2\n    return x, xy, y\n"
    assert changed(source, ("x*2", "x * 3"), ("x,\nxy", "xy, x")) == "def f(x):\n    y = x * 3\n    return xy, x, y\n"
    with pytest.raises(ValueError, match="found it 0 times"):
        changed(source, ("return x, x,", "return x"))


# ------------------------------------------------------------------------------------------------ fixtures

SUITE = '''
import numpy as np
import pytest
from minires import ops

pytest_plugins = ["minires.testing.plugin"]

def forward(x): return x * x, x
def backward(dy, x): return 2 * dy * x

def test_right(check_backward, gradcheck):
    check_backward(forward, backward, np.array([1.0, 2.0]))
    gradcheck(ops.tanh, np.ones(3))

def test_wrong(check_backward, mutate):
    mutate(backward, ("2 * dy", "dy"))
    with pytest.raises(AssertionError, match="ratio 0.5"):
        check_backward(forward, backward, np.array([1.0, 2.0]))

def test_whole_again(check_backward):
    check_backward(forward, backward, np.array([1.0, 2.0]))

def test_fails(check_backward):
    check_backward(forward, lambda dy, x: dy * x, np.array([1.0, 2.0]))
'''


@pytest.mark.system
def test_the_fixtures_serve_a_teachers_own_suite(tmp_path):
    (tmp_path / "test_mine.py").write_text(SUITE, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "test_mine.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1 and "1 failed, 3 passed" in done.stdout, done.stdout + done.stderr
    assert "ratio 0.5" in done.stdout and "def check_backward" not in done.stdout  # the message, not minires' source


@pytest.mark.system
def test_the_checks_need_no_pytest_and_load_at_first_use():
    code = textwrap.dedent("""
        import sys, minires
        assert "minires.testing" not in sys.modules
        minires.testing.check_backward
        assert "pytest" not in sys.modules
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def test_the_public_names_exist():
    assert all(hasattr(minires.testing, name) for name in minires.testing.__all__)


def test_pytest_is_imported_by_the_plugin_alone():
    folder = Path(minires.testing.__file__).parent
    assert [path.name for path in sorted(folder.glob("*.py")) if "import pytest" in path.read_text()] == ["plugin.py"]
