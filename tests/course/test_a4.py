"""The solution of assignment a4 against other ways: the definition, the engine, minires, PyTorch, and gradcheck."""
import numpy as np
import pytest

from minires import Function, Tensor, gradcheck, nn
from minires.course import solution
from minires.kernels import reference

A4 = solution.plain_space("a4")
SHAPES = (3, 4, 2, 5), (2, 3, 4, 3), (4, 3, 1, 1), (7, 3)
EPS = 0.02


def normal(*shape, seed=0):
    return np.random.default_rng([4, seed]).standard_normal(shape)


def arguments(shape):
    """Return x, gamma, beta and dy; the channels have different means and spreads."""
    per_channel = (1, shape[1], *[1] * (len(shape) - 2))
    x = normal(*shape) * np.arange(1, shape[1] + 1).reshape(per_channel) + normal(*per_channel, seed=1)
    return x, normal(shape[1], seed=2), normal(shape[1], seed=3), normal(*shape, seed=4)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_forward_pass_is_the_definition_value_by_value(shape):
    x, gamma, beta, _ = arguments(shape)
    y, _ = A4["batch_norm_forward"](x, gamma, beta, EPS)
    for c in range(shape[1]):
        values = [float(v) for v in x[:, c].ravel()]
        mean = sum(values) / len(values)
        var = sum((v - mean) ** 2 for v in values) / len(values)
        expected = [gamma[c] * (v - mean) / (var + EPS) ** 0.5 + beta[c] for v in values]
        np.testing.assert_allclose(y[:, c].ravel(), expected, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_both_backward_passes_are_those_of_minires(shape):
    x, gamma, beta, dy = arguments(shape)
    y, cache = A4["batch_norm_forward"](x, gamma, beta, EPS)
    expected_y, _, _, saved = reference.batch_norm(x, gamma, beta, EPS)
    np.testing.assert_allclose(y, expected_y, atol=1e-12)
    staged = A4["batch_norm_staged"](dy, x, gamma, EPS)
    closed = A4["batch_norm_backward"](dy, cache)
    expected = reference.batch_norm_backward(dy, gamma, saved)
    for name, mine, theirs in zip(("dx", "dgamma", "dbeta"), closed, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(staged[name], theirs, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_stage_is_the_gradient_on_the_engine(shape):
    """Each stage is the gradient of a Tensor in the middle of the forward pass."""
    x, gamma, beta, dy = arguments(shape)
    axes, per_channel = (0, *range(2, len(shape))), (1, shape[1], *[1] * (len(shape) - 2))
    made = {"x": Tensor(x, True)}
    made["mu"] = made["x"].mean(axes, keepdims=True)
    made["xc"] = made["x"] - made["mu"]
    made["var"] = (made["xc"] * made["xc"]).mean(axes, keepdims=True)
    made["inv"] = (made["var"] + EPS) ** -0.5
    made["xhat"] = made["xc"] * made["inv"]
    for t in made.values():
        t.retain_grad()
    y = made["xhat"] * Tensor(gamma.reshape(per_channel)) + Tensor(beta.reshape(per_channel))
    y.backward(dy)
    staged = A4["batch_norm_staged"](dy, x, gamma, EPS)
    for name, t in made.items():
        np.testing.assert_allclose(staged[f"d{name}"].ravel(), t.grad.ravel(), atol=1e-10, err_msg=name)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("given", [False, True], ids=["batch", "eval"])
def test_the_gradients_pass_gradcheck(shape, given):
    x, gamma, beta, _ = arguments(shape)
    statistics = (normal(shape[1], seed=5), normal(shape[1], seed=6) ** 2) if given else ()
    name = "batch_norm_eval" if given else "batch_norm"

    class Normalisation(Function):
        def forward(self, x, gamma, beta):
            y, self.cache = A4[f"{name}_forward"](x, gamma, beta, *statistics, EPS)
            return y

        def backward(self, g):
            return A4[f"{name}_backward"](g, self.cache)

    gradcheck(Normalisation.apply, x, gamma, beta)


def test_the_gradient_of_the_input_is_orthogonal_to_ones_and_to_xhat():
    """As the figure shows; exactly so without eps."""
    x, gamma, beta, dy = arguments((3, 4, 2, 5))
    y, cache = A4["batch_norm_forward"](x, gamma, beta, 0.0)
    dx, _, _ = A4["batch_norm_backward"](dy, cache)
    xhat = (y - beta.reshape(1, -1, 1, 1)) / gamma.reshape(1, -1, 1, 1)
    np.testing.assert_allclose(dx.sum((0, 2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose((dx * xhat).sum((0, 2, 3)), 0, atol=1e-12)


def test_the_examples_in_the_text():
    one = np.ones(1)
    y, _ = A4["batch_norm_forward"](np.array([[1.0], [3.0]]), 3 * one, 10 * one, 0.0)
    np.testing.assert_allclose(y, [[7], [13]])
    staged = A4["batch_norm_staged"](np.array([[1.0], [0.0]]), np.array([[1.0], [3.0]]), one, 3.0)
    assert staged["dxhat"].ravel().tolist() == [1, 0]
    assert (staged["dinv"], staged["dvar"]) == (-1, 1 / 16)
    _, var = A4["running"](0 * one, one, 0 * one, 4 * one, 0.1, 5)
    np.testing.assert_allclose(var, 1.4)


@pytest.mark.parametrize("count", [0, 1])
def test_running_statistics_of_too_few_values_are_refused(count):
    with pytest.raises(ValueError, match="at least 2"):
        A4["running"](*np.ones((4, 3)), 0.1, count)


def test_the_layer_is_that_of_minires():
    """The same outputs, gradients and running statistics over three batches, then in eval mode."""
    mine, theirs = A4["BatchNorm2d"](4), nn.BatchNorm2d(4)
    gamma, beta = (normal(4, seed=s).astype(np.float32) for s in (7, 8))
    for layer in mine, theirs:
        layer.weight.data, layer.bias.data = gamma.copy(), beta.copy()
    for batch in range(4):
        if batch == 3:
            mine.eval(), theirs.eval()
        x, _, _, dy = arguments((3, 4, 2, 5))
        inputs = [Tensor((x + batch).astype(np.float32), True) for _ in (mine, theirs)]
        outputs = [layer(t) for layer, t in zip((mine, theirs), inputs, strict=True)]
        for y in outputs:
            y.backward(dy.astype(np.float32))
        pairs = {"y": [y.data for y in outputs], "dx": [t.grad for t in inputs],
                 **{name: [getattr(layer, name).data for layer in (mine, theirs)]
                    for name in ("running_mean", "running_var")},
                 **{f"d{name}": [getattr(layer, name).grad for layer in (mine, theirs)] for name in ("weight", "bias")}}
        for name, (a, b) in pairs.items():
            assert a.dtype == b.dtype == np.float32, name
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4, err_msg=f"{name}, batch {batch}")


@pytest.mark.parametrize("shape", SHAPES)
def test_all_of_it_agrees_with_pytorch(shape):
    torch = pytest.importorskip("torch")
    x, gamma, beta, dy = arguments(shape)
    running = normal(shape[1], seed=5), normal(shape[1], seed=6) ** 2
    for train in True, False:
        t, g, b = (torch.tensor(a, requires_grad=True) for a in (x, gamma, beta))
        mean, var = (torch.tensor(a) for a in running)
        out = torch.nn.functional.batch_norm(t, mean, var, g, b, train, 0.1, EPS)
        out.backward(torch.tensor(dy))
        if train:
            y, cache = A4["batch_norm_forward"](x, gamma, beta, EPS)
            gradients = A4["batch_norm_backward"](dy, cache)
            axes = (0, *range(2, x.ndim))
            new = A4["running"](*running, x.mean(axes), x.var(axes), 0.1, x.size // x.shape[1])
            for mine, theirs in zip(new, (mean, var), strict=True):
                np.testing.assert_allclose(mine, theirs.numpy(), atol=1e-12)
        else:
            y, cache = A4["batch_norm_eval_forward"](x, gamma, beta, *running, EPS)
            gradients = A4["batch_norm_eval_backward"](dy, cache)
        np.testing.assert_allclose(y, out.detach().numpy(), atol=1e-12)
        for mine, theirs in zip(gradients, (t.grad, g.grad, b.grad), strict=True):
            np.testing.assert_allclose(mine, theirs.numpy(), atol=1e-10)


def test_the_claims_of_the_model_answer():
    """Two values a channel: xhat is 1 and -1 and dx is 0. A constant channel: dx is dy minus its mean, times 316."""
    one = np.ones(1)
    x, dy = np.array([[2.0], [-5.0]]), np.array([[0.3], [1.7]])
    y, cache = A4["batch_norm_forward"](x, one, 0 * one, 1e-12)
    np.testing.assert_allclose(y, [[1], [-1]], atol=1e-9)
    np.testing.assert_allclose(A4["batch_norm_backward"](dy, cache)[0], 0, atol=1e-9)
    dy = normal(9, 1)
    _, cache = A4["batch_norm_forward"](np.full((9, 1), 3.0), one, 0 * one, 1e-5)
    np.testing.assert_allclose(A4["batch_norm_backward"](dy, cache)[0], 1e-5 ** -0.5 * (dy - dy.mean()), atol=1e-9)
