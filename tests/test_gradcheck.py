"""Test the gradient checker: what it must reject, what it must accept, and its messages."""

import re

import numpy as np
import pytest
from short import every

from minires import Function, Tensor, gradcheck, nn, ops
from minires.residual import Residual

RNG = np.random.default_rng(7)
X = RNG.standard_normal((4, 3))
SQUARE = RNG.standard_normal((3, 3))


def function(forward, backward):
    """Make a Function from forward(*arrays) and backward(g, *arrays)."""

    class Made(Function):
        def forward(self, *arrays):
            self.arrays = arrays
            return forward(*arrays)

        def backward(self, g): return backward(g, *self.arrays)

    return Made.apply


def batch_norm(x, gamma, beta, eps=1e-5):
    return gamma * (x - x.mean(0)) / np.sqrt(x.var(0) + eps) + beta


def batch_norm_three_terms(g, x, gamma, beta, eps=1e-5):
    """Compute the closed form of the textbooks: (m g - sum g - xhat sum g xhat) gamma / (m std)."""
    m, std = len(x), np.sqrt(x.var(0) + eps)
    xhat = (x - x.mean(0)) / std
    dx = gamma / (m * std) * (m * g - g.sum(0) - xhat * (g * xhat).sum(0))
    return dx, (g * xhat).sum(0), g.sum(0)


def batch_norm_step_by_step(g, x, gamma, beta, eps=1e-5):
    """Compute the gradients with one line for each node of the computational graph, from the result back."""
    m, centred = len(x), x - x.mean(0)
    std = np.sqrt((centred**2).mean(0) + eps)
    dxhat = g * gamma
    dinv = (dxhat * centred).sum(0)
    dvar = -dinv / std**2 * 0.5 / std
    dcentred = dxhat / std + 2 * centred * dvar / m
    return dcentred - dcentred.sum(0) / m, (g * centred / std).sum(0), g.sum(0)


def zero_for_x(g, x, gamma, beta):
    return np.zeros_like(x), *batch_norm_three_terms(g, x, gamma, beta)[1:]


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


ONES, ZEROS, GAMMA, BETA = np.ones(3), np.zeros(3), RNG.uniform(0.5, 2, 3), RNG.standard_normal(3)
zero_bn = function(batch_norm, zero_for_x)
zero_softmax = function(softmax, lambda g, x: np.zeros_like(x))

# ------------------------------------------------------------------- what other checks do not detect


@pytest.mark.parametrize(
    "blind, seeing, arrays",
    [
        (lambda x, c, b: zero_bn(x, c, b).sum(), zero_bn, (X, GAMMA, BETA)),
        (lambda x, c, b: (zero_bn(x, c, b) ** 2).sum(), zero_bn, (10 * X, ONES, ZEROS)),
        (lambda x: zero_softmax(x).sum(), zero_softmax, (X,)),
    ],
    ids=["batch_norm, all ones", "batch_norm, squares", "softmax, all ones"],
)
def test_a_zero_backward_passes_the_usual_losses_and_not_the_random_gradient(blind, seeing, arrays):
    tolerance = {"atol": 1e-3}  # the same loose tolerance for both
    gradcheck(blind, *arrays, **tolerance)
    with pytest.raises(AssertionError, match="argument 0"):
        gradcheck(seeing, *arrays, **tolerance)


# ------------------------------------------------------------------------------------ what is rejected


def one_wrong(g, x):
    gx = g * np.cos(x)
    gx[5, 7] += 1e-2
    return gx


def into_input(g, x):
    x *= g
    return x


def into_g(g, x):
    g *= np.exp(x)
    return g


WRONG = {
    "scale": (lambda x: np.exp(x), lambda g, x: g * np.exp(x) * (1 + 1e-4), X, "ratio 1.000"),
    "sign": (lambda x: np.sin(x), lambda g, x: -g * np.cos(x), X, "ratio -1"),
    "zero": (lambda x: np.sin(x), lambda g, x: g * 0, X, ", ratio -?0"),
    "transposed": (lambda x: x * x, lambda g, x: (2 * g * x).T, SQUARE, "differs from finite differences"),
    "missing": (lambda x: np.sin(x), lambda g, x: (None,), X, ", ratio -?0"),
    "NaN": (lambda x: np.sin(x), lambda g, x: g * np.where(x > 1, np.nan, np.cos(x)), X, "got nan"),
    "NaN on a kink": (lambda x: abs(x), lambda g, x: g * x / abs(x), np.array([0.0, 1.0]), "got nan"),
    "ghost": (lambda x: x * 0, lambda g, x: 1e-6 * np.sin(99 * x), X, "expected 0, ratio inf"),
    "ghost, normalised": (lambda x: x * 0 + softmax(x).sum(), lambda g, x: 1e-5 * x, X, "argument 0"),
    "half": (lambda x: x * x, lambda g, x: g * x, X, "ratio 0.5"),
    "curvature": (lambda x: 1e4 * x**2, lambda g, x: g * 2e4 * x * (1 + 1e-5), X, "ratio 1.00001"),
    "more curvature": (lambda x: np.sin(300 * x), lambda g, x: g * 300 * np.cos(300 * x) * 1.001, X, "ratio 1.001"),
    "curvature at a minimum": (lambda x: 1e4 * x**2, lambda g, x: g * (2e4 * x + 1e-2), X * 0, "got"),
    "cubic inflection": (lambda x: 1e3 * x**3, lambda g, x: g * (3e3 * x**2 + 1e-5), X * 0, "got"),
    "one entry": (lambda x: np.sin(x), one_wrong, RNG.standard_normal((10, 12)), r"index \(5, 7\)"),
}


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("forward, backward, x, says", WRONG.values(), ids=WRONG)
def test_rejects(forward, backward, x, says):
    with pytest.raises(AssertionError, match=says):
        gradcheck(function(forward, backward), x, entries=x.size)


def test_the_entries_to_look_at_are_a_choice():
    f = function(lambda x: np.sin(x), one_wrong)
    x = RNG.standard_normal((10, 12))
    looked = [s for s in range(30) if _rejects(f, x, entries=30, seed=s)]
    assert 2 <= len(looked) <= 16  # a quarter of the entries finds the error for about a quarter of the seeds
    assert all(_rejects(f, x, entries=120, seed=s) for s in range(3))


def _rejects(*args, **options):
    try:
        gradcheck(*args, **options)
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("backward", [into_input, into_g])
def test_rejects_a_backward_that_writes_into_what_it_was_given(backward):
    with pytest.raises(AssertionError, match=r"Made\.backward writes into its g or into an input.*read-only"):
        gradcheck(function(lambda x: np.exp(x), backward), X)


@pytest.mark.parametrize(
    "f, lowest",
    [(ops.exp, -1), (ops.tanh, -1), (ops.sigmoid, -1), (ops.log, 0.5), (ops.sqrt, 0.5), (lambda x: x**3, -1),
     (lambda x: x / (x * x + 1), -1), (lambda x: ops.softmax(x), -1), (lambda x: x.var(0) * x, -1)],
    ids=["exp", "tanh", "sigmoid", "log", "sqrt", "cube", "rational", "softmax", "var"],
)
def test_fails_with_a_step_of_a_tenth(f, lowest):
    """With this step, central differences have an error of step^2. A checker that still passes compares nothing."""
    x = lowest + 1.5 * np.random.default_rng(0).random((4, 3))
    assert gradcheck(f, x).worst < 1e-7
    with pytest.raises(AssertionError, match="differs from finite differences"):
        gradcheck(f, x, eps=0.1)


def test_rejects_a_function_that_changes_from_call_to_call():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="two results for the same arguments"):
        gradcheck(lambda x: ops.dropout(x, 0.5, rng=rng), X)
    gradcheck(lambda x: ops.dropout(x, 0.5, rng=np.random.default_rng(0)), X)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_result_that_is_not_finite_is_called_that():
    with pytest.raises((ValueError, AssertionError), match=r"(?i)nan|finite"):
        gradcheck(ops.log, np.array([-1.0, 2.0]))


@pytest.mark.parametrize(
    "f, arrays, says",
    [
        (ops.exp, [X.astype(np.float32)], "argument 0 must be a float64 NumPy array, got float32(4, 3)"),
        (lambda a, b: a * b, [X, X.astype(np.float32)], "argument 1 must be a float64 NumPy array, got float32(4, 3)"),
        (ops.exp, [np.arange(3)], "argument 0 must be a float64 NumPy array, got int64(3,)"),
        (ops.exp, [[1.0, 2.0]], "argument 0 must be a float64 NumPy array, got list"),
        (lambda x: x.astype(np.float32), [X], "expected f to return a float64 Tensor, got float32(4, 3)"),
        (lambda x: x.data, [X], "expected f to return a float64 Tensor, got ndarray"),
    ],
    ids=["float32", "second float32", "integers", "list", "f returns float32", "f returns an array"],
)
def test_only_float64(f, arrays, says):
    with pytest.raises(TypeError, match=re.escape(says)):
        gradcheck(f, *arrays)


# ------------------------------------------------------------------------------------ what is accepted


@pytest.mark.parametrize("backward", [batch_norm_three_terms, batch_norm_step_by_step])
@pytest.mark.parametrize("rows", [2, 5, 64])
def test_accepts_every_correct_form_of_batch_norm(backward, rows):
    x = 3 + 2 * np.random.default_rng(rows).standard_normal((rows, 3))
    report = gradcheck(function(batch_norm, backward), x, GAMMA, BETA, entries=x.size)
    assert (report.checked, report.kinks) == (x.size + 6, [])


@pytest.mark.parametrize("order", ["C", "F", "strided"])
def test_accepts_any_memory_layout(order):
    x = np.random.default_rng(0).standard_normal((6, 8))
    x = x[::2, ::-2] if order == "strided" else np.asarray(x, order=order)
    weight = np.arange(1.0, 1 + x.size).reshape(x.shape)  # a different slope for each entry
    assert gradcheck(lambda t: ops.exp(t) * Tensor(weight), x).checked == x.size


def test_leaves_its_arguments_as_they_were():
    x = X.copy()
    gradcheck(ops.exp, x)
    assert np.array_equal(x, X) and x.flags.writeable


@pytest.mark.parametrize("stride, shortcut, seed", every(7, [
    (*block, seed) for seed in range(20) for block in ((1, "A"), (2, "A"), (2, "B"))]))
def test_no_false_alarm_on_a_residual_block(stride, shortcut, seed):
    rng = np.random.default_rng(seed)
    out = 2 if stride == 1 else 4
    shapes = [(out, 2, 3, 3), (out,), (out,), (out, out, 3, 3), (out,), (out,)]
    shapes += [(out, 2, 1, 1), (out,), (out,)] if shortcut == "B" else []
    arrays = [rng.standard_normal(s) for s in [(3, 2, 5, 4), *shapes]]
    f = lambda *t: Residual.apply(*t, stride=stride, pad="both", eps=[1e-5] * 3, stats=[])
    assert gradcheck(f, *arrays, rtol=1e-5, entries=20).kinks == []


# ----------------------------------------------------------------------------------------------- kinks


def relu_with(slope_at_0):
    return function(lambda x: np.maximum(x, 0), lambda g, x: g * np.where(x == 0, slope_at_0, x > 0))


def test_away_from_kinks_there_are_none():
    x = np.array([-1.5, -0.01, 0.01, 2.0])
    for f in ops.relu, ops.abs, lambda t: ops.maximum(t, 1.0), lambda t: t.max():
        assert gradcheck(f, x).kinks == []


@pytest.mark.parametrize("slope", [0, 0.25, 1, 0.5])
def test_every_subgradient_is_accepted_and_the_kink_is_named(slope):
    """This includes the mean of the two slopes, which equals the central difference but is still at a kink."""
    x = np.array([[1.0, -1.0, 0.0], [2.0, 0.0, 3.0]])
    report = gradcheck(relu_with(slope), x)
    assert report.kinks == [(0, (0, 2)), (0, (1, 1))]
    assert (report.checked, report.total) == (4, 6)


@pytest.mark.parametrize("slope", [-0.1, 1.1, 2, -1])
def test_a_value_outside_of_the_two_slopes_is_refused(slope):
    with pytest.raises(AssertionError, match=r"argument 0 \(3,\), index \(1,\) lies on a kink: got .* \(left\) and"):
        gradcheck(relu_with(slope), np.array([1.0, 0.0, -1.0]))


@pytest.mark.parametrize(
    "f, arrays, kinks",
    [
        (ops.relu, [np.array([0.0, 1.0])], [(0, (0,))]),
        (ops.abs, [np.array([-1.0, 0.0, 1.0])], [(0, (1,))]),
        (ops.maximum, [np.array([1.0, 2.0]), np.array([1.0, 0.0])], [(0, (0,)), (1, (0,))]),
        (lambda x: x.max(1), [np.array([[1.0, 3.0, 3.0], [5.0, 4.0, 2.0]])], [(0, (0, 1)), (0, (0, 2))]),
        (lambda x: ops.max_pool2d(x, 2), [np.array([[[[7.0, 7.0], [1.0, 0.0]]]])],
         [(0, (0, 0, 0, 0)), (0, (0, 0, 0, 1))]),
        (lambda a, b: a * ops.relu(b), [X[0], np.array([1.0, 0.0, -1.0])], [(1, (1,))]),
    ],
    ids=["relu", "abs", "maximum", "max", "max_pool2d", "second argument"],
)
def test_kinks_are_named_by_argument_and_index(f, arrays, kinks):
    report = gradcheck(f, *arrays)
    assert report.kinks == kinks
    assert report.checked == report.total - len(kinks)


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("distance", [1e-9, 1e-7, 1e-6, 1.5e-6, 2e-6, 2.5e-6, 3e-6, 5e-6, 7e-6, 1e-5])
def test_a_kink_close_to_an_entry_is_no_false_alarm(distance, side):
    gradcheck(ops.relu, np.array([side * distance, 0.7, -0.4]))


@pytest.mark.parametrize("distance", [1e-6, 1.5e-6, 2e-6, 3e-6, 1e-5])
def test_a_wrong_gradient_close_to_a_kink_is_still_seen(distance):
    steep = function(lambda x: np.maximum(x, 0), lambda g, x: g * 1.1 * (x > 0))
    with pytest.raises(AssertionError, match="argument 0"):
        gradcheck(steep, np.array([distance]))


@pytest.mark.parametrize("factor, other", [(1e-3, 1.0), (1.0, 1e4), (1e4, 1.0)])
def test_a_kink_is_seen_beside_values_of_any_size(factor, other):
    assert gradcheck(lambda x: ops.relu(x) * factor, np.array([0.0, other])).kinks == [(0, (0,))]


# ------------------------------------------------------------------------------------------ the messages


def test_the_report():
    x = np.array([[0.0, 1.0, -2.0]])
    report = gradcheck(lambda a, b: ops.relu(a) * b.exp(), x, np.array([[1.0, 2.0, 3.0]]))
    assert (report.checked, report.total, report.kinks) == (5, 6, [(0, (0, 0))])
    assert 0 < report.worst < 1e-6
    assert re.fullmatch(
        r"gradcheck passed: 5 of 6 entries, worst relative error \d\.\de-\d\d\n"
        r"  kink at a, index \(0, 0\): backward gives a slope between the two sides", str(report)
    )
    large = gradcheck(ops.exp, np.zeros((50, 40)), entries=30)
    assert (large.checked, large.total) == (30, 2000) and "30 of 2000" in str(large)


def test_the_message_gives_argument_index_got_expected_and_ratio():
    """Check y = a b with a backward that doubles one entry of the gradient of b. v is the random gradient sent back."""
    a, b = np.array([2.0, 3.0, 5.0]), np.array([7.0, 11.0, 13.0])
    f = function(lambda a, b: a * b, lambda g, a, b: (g * b, g * a * np.array([1, 1, 2])))
    v = []
    seen = function(lambda a, b: a * b, lambda g, a, b: (v.append(g) or g * b, g * a))
    gradcheck(seen, a, b)
    with pytest.raises(AssertionError) as caught:
        gradcheck(f, a, b)
    says = str(caught.value)
    right = 5.0 * v[0][2]
    assert "argument 1 (3,): backward differs from finite differences" in says and "index (2,)" in says
    numbers = [float(re.search(rf"{word} (-?[\d.e+-]*\d)", says)[1]) for word in ("got", "expected", "ratio")]
    assert numbers == pytest.approx([2 * right, right, 2], rel=1e-5)
    error = float(re.search(r"relative error ([\d.e+-]+), allowed 1e-06", says)[1])
    all_right = a * v[0]
    wrong = all_right * [1, 1, 2]
    assert error == pytest.approx(abs(right) / (np.linalg.norm(wrong) + np.linalg.norm(all_right)), rel=1e-2)


def test_the_seed_is_the_gradient_that_is_sent_back():
    sent = []
    f = function(lambda x: x * x, lambda g, x: sent.append(g) or 2 * g * x)
    for seed in (0, 0, 1):
        gradcheck(f, X, seed=seed)
    assert len(sent) == 6 and all(map(np.array_equal, sent[::2], sent[1::2]))  # backward is called twice
    assert np.array_equal(sent[0], sent[2]) and not np.array_equal(sent[0], sent[4])
    assert not sent[0].flags.writeable and len(np.unique(sent[0])) == X.size


@pytest.mark.parametrize("seed", [0, 1])
def test_the_random_gradient_is_not_the_random_input(seed):
    """With v = x the gradient of a normalisation vanishes, as with all ones. Users draw x with default_rng(0) too."""
    x = np.random.default_rng(seed).standard_normal((4, 3))
    sent = []
    gradcheck(function(lambda x: x * x, lambda g, x: sent.append(g) or 2 * g * x), x, seed=seed)
    assert abs(np.corrcoef(sent[0].ravel(), x.ravel())[0, 1]) < 0.9
    gradcheck(lambda x: ops.batch_norm(x, Tensor(ONES), Tensor(ZEROS))[0], x, seed=seed)


def test_a_module_is_checked_through_its_parameters():
    """The Tensors of the module are replaced by those of the checker, as in the assignments."""
    layer = nn.Linear(3, 2, rng=np.random.default_rng(0)).astype(np.float64)

    def f(x, w, b):
        layer.weight, layer.bias = w, b
        return layer(x)

    assert gradcheck(f, X, layer.weight.data, layer.bias.data).checked == 12 + 6 + 2


@pytest.mark.parametrize("options", [{"entries": 0}, {"eps": 0.0}, {"eps": float("nan")}, {"wrt": []}], ids=repr)
def test_a_check_that_would_compare_nothing_is_refused(options):
    with pytest.raises(ValueError, match=r"gradcheck: expected (entries >= 1 and eps > 0|at least one argument)"):
        gradcheck(ops.relu, RNG.standard_normal((2, 3)), **options)
