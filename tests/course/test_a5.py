"""The solution of assignment a5 against other ways: the engine, minires' own block, PyTorch, and gradcheck."""
import numpy as np
import pytest

from minires import Function, Tensor, gradcheck, kernels, nn, ops
from minires.course import drivers_a5, solution, tasks_a5
from minires.kernels import reference

A5 = solution.plain_space("a5")
KINDS = {"identity": {"shape": (2, 3, 5, 4), "filters": 3},
         "A, both": {"shape": (3, 2, 5, 6), "filters": 5, "stride": 2},
         "A, end": {"shape": (3, 2, 4, 5), "filters": 5, "stride": 2, "pad": "end"},
         "A, stride 1": {"shape": (2, 2, 4, 5), "filters": 5},
         "B": {"shape": (4, 3, 6, 5), "filters": 4, "stride": 2, "projection": True},
         "B, same shape": {"shape": (3, 3, 4, 5), "filters": 3, "projection": True}}
EPS = 1e-5


def drawn(kind):
    options = {**KINDS[kind], "eps": EPS}
    shape, filters = options.pop("shape"), options.pop("filters")
    inputs = tasks_a5.with_dy(np.random.default_rng(3), tasks_a5.drawn(np.random.default_rng(2), shape, filters,
                                                                        **options))
    return inputs.pop("dy"), inputs


def composed(leaves, stride, pad):
    """Return the block of the engine's operations."""
    def bn(t, i):
        return ops.batch_norm(t, leaves[f"gamma{i}"], leaves[f"beta{i}"], EPS)[0]

    x = leaves["x"]
    h = ops.relu(bn(ops.conv2d(x, leaves["w1"], stride=stride, padding=1), "1"))
    F = bn(ops.conv2d(h, leaves["w2"], padding=1), "2")
    if "ws" in leaves:
        s = bn(ops.conv2d(x, leaves["ws"], stride=stride), "s")
    else:
        s = x if F.shape == x.shape else ops.subsample_and_pad(x, stride, F.shape[1], pad)
    return ops.relu(F + s)


@pytest.mark.parametrize("kind", KINDS)
def test_the_block_by_hand_is_the_block_on_the_engine(kind):
    dy, inputs = drawn(kind)
    y, cache = A5["block_forward"](**inputs)
    dx, dp = A5["block_backward"](dy, cache)
    leaves = {name: Tensor(array, True) for name, array in {"x": inputs["x"], **inputs["p"]}.items()}
    out = composed(leaves, inputs["stride"], inputs["pad"])
    out.backward(dy)
    np.testing.assert_allclose(y, out.data, atol=1e-12)
    assert list(dp) == list(inputs["p"])
    for name, mine in {"x": dx, **dp}.items():
        np.testing.assert_allclose(mine, leaves[name].grad, atol=1e-10, err_msg=name)


def test_the_simple_block_is_the_general_one_with_the_identity():
    dy, inputs = drawn("identity")
    general, cache = A5["block_forward"](**inputs)
    y, own = A5["residual_forward"](inputs["x"], inputs["p"], inputs["eps"])
    np.testing.assert_array_equal(y, general)
    (dx, dp), (dx2, dp2) = A5["residual_backward"](dy, own), A5["block_backward"](dy, cache)
    for mine, other in zip((dx, *dp.values()), (dx2, *dp2.values()), strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("kind", ["identity", "B"])
def test_the_gradients_pass_gradcheck(kind):
    _, inputs = drawn(kind)
    keys = list(inputs["p"])

    class Block(Function):
        def forward(self, x, *arrays):
            y, self.cache = A5["block_forward"](x, dict(zip(keys, arrays, strict=True)), EPS, inputs["stride"])
            return y

        def backward(self, g):
            dx, dp = A5["block_backward"](g, self.cache)
            return dx, *dp.values()

    gradcheck(Block.apply, inputs["x"], *inputs["p"].values())


@pytest.mark.parametrize("kind", KINDS)
def test_option_a_is_that_of_minires(kind):
    dy, inputs = drawn(kind)
    x, stride, pad = inputs["x"], inputs["stride"], inputs["pad"]
    y = A5["shortcut_a"](x, stride, dy.shape[1], pad)
    np.testing.assert_array_equal(y, reference.shortcut(x, stride, dy.shape[1], pad))
    np.testing.assert_array_equal(A5["shortcut_a_backward"](dy, x.shape, stride, pad),
                                  reference.shortcut_backward(dy, x.shape, stride, pad))
    assert np.isclose((y * dy).sum(), (x * A5["shortcut_a_backward"](dy, x.shape, stride, pad)).sum())


@pytest.mark.parametrize(("stride", "padding", "size"), [(1, 1, 3), (2, 1, 3), (2, 0, 1)])
def test_the_given_layers_agree_with_minires(stride, padding, size):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 3, 6, 5)), rng.standard_normal((4, 3, size, size))
    y, cache = A5["conv_forward"](x, w, stride, padding)
    geometry = (stride, stride), (padding, padding)
    np.testing.assert_allclose(y, reference.conv2d(x, w, *geometry), atol=1e-12)
    dy = rng.standard_normal(y.shape)
    for mine, other in zip(A5["conv_backward"](dy, cache), reference.conv2d_backward(dy, x, w, *geometry), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-12)
    gamma, beta = rng.standard_normal((2, 4))
    out, cache = A5["bn_forward"](y, gamma, beta, EPS)
    other, _, _, saved = reference.batch_norm(y, gamma, beta, EPS)
    np.testing.assert_allclose(out, other, atol=1e-12)
    for mine, other in zip(A5["bn_backward"](dy, cache), reference.batch_norm_backward(dy, gamma, saved), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-12)


@pytest.mark.parametrize("case", [case for half in ("visible", "hidden")
                                  for case in solution.drawn(tasks_a5.TASKS[4], half, 5)[0]], ids=lambda c: c.label)
def test_the_module_is_that_of_minires(case, monkeypatch):
    monkeypatch.setattr(drivers_a5, "refuse_blocks", lambda one: None)

    class Reference(nn.Block):
        def zero_gamma(self):
            self.last_norm.weight.data = np.zeros_like(self.last_norm.weight.data)
            return [name for name, t in self.state().items() if t is self.last_norm.weight]

    driver = getattr(drivers_a5, case.driver or tasks_a5.TASKS[4].driver)
    mine, other = (driver({"Block": block}, **case.inputs) for block in (A5["Block"], Reference))
    assert list(mine) == list(other)
    for name in mine:
        np.testing.assert_allclose(mine[name], other[name], atol=1e-5 if "dtype" in case.inputs else 1e-10,
                                   err_msg=name)


def test_the_block_of_minires_is_no_answer():
    class Inside(nn.Module):
        def __init__(self, *sizes, **options):
            self.inner = nn.Block(*sizes, **options)

    for answer in (type("Block", (nn.Block,), {}), Inside):
        with pytest.raises(TypeError, match="must be your own"):
            drivers_a5.built({"Block": answer}, [3, 3, 1], {}, {}, "float64")


def test_the_module_is_the_block_by_hand():
    dy, inputs = drawn("B")
    with kernels.using("reference"):
        block = drivers_a5.built(A5, [3, 4, 2], {"shortcut": "B"}, tasks_a5.state_of(np.random.default_rng(0),
                                                                                     inputs["p"]), "float64")
        leaf = Tensor(inputs["x"], True)
        y = block(leaf)
        y.backward(dy)
    expected, cache = A5["block_forward"](**inputs)
    np.testing.assert_allclose(y.data, expected, atol=1e-12)
    dx, dp = A5["block_backward"](dy, cache)
    np.testing.assert_allclose(leaf.grad, dx, atol=1e-10)
    for key, name in tasks_a5.NAMES.items():
        np.testing.assert_allclose(block.state()[name].grad, dp[key], atol=1e-10)


def test_the_block_agrees_with_pytorch():
    torch = pytest.importorskip("torch")
    dy, inputs = drawn("B")
    t = {name: torch.from_numpy(a.copy()).requires_grad_() for name, a in {"x": inputs["x"], **inputs["p"]}.items()}

    def bn(a, i):
        return torch.nn.functional.batch_norm(a, None, None, t[f"gamma{i}"], t[f"beta{i}"], True, eps=EPS)

    conv = torch.nn.functional.conv2d
    h = torch.relu(bn(conv(t["x"], t["w1"], stride=2, padding=1), "1"))
    y = torch.relu(bn(conv(h, t["w2"], padding=1), "2") + bn(conv(t["x"], t["ws"], stride=2), "s"))
    y.backward(torch.from_numpy(dy))
    mine, cache = A5["block_forward"](**inputs)
    np.testing.assert_allclose(mine, y.detach().numpy(), atol=1e-12)
    dx, dp = A5["block_backward"](dy, cache)
    for name, gradient in {"x": dx, **dp}.items():
        np.testing.assert_allclose(gradient, t[name].grad.numpy(), atol=1e-10)


def test_masks_are_open_for_some_pixels_of_every_channel():
    for inputs in (*tasks_a5.identities(np.random.default_rng(1), tasks_a5.SHAPES), drawn("B")[1], drawn("A, end")[1]):
        cache = A5["block_forward"](**{"stride": 1, "pad": "both", **{k: v for k, v in inputs.items() if k != "dy"}})[1]
        for array in cache[4], cache[10]:  # the inputs of the two ReLUs
            share = (array > 0).mean((0, 2, 3))
            assert share.min() >= 0.2 and share.max() <= 0.8


def test_the_paths_add_up_and_the_plain_network_has_no_skip():
    paths, whole = A5["eight_paths"]()
    assert len(paths) == 8
    np.testing.assert_allclose(sum(paths.values()), whole, atol=1e-9)
    rng = np.random.default_rng(0)
    x, p = rng.standard_normal((2, 3, 4, 5)), A5["drawn_parameters"](rng, 3, skip=False)
    y, cache = A5["block_forward"](x, p, EPS)
    dy = rng.standard_normal(y.shape)
    leaves = {name: Tensor(array, True) for name, array in {"x": x, **p}.items()}
    h = ops.relu(ops.batch_norm(ops.conv2d(leaves["x"], leaves["w1"], padding=1), leaves["gamma1"], leaves["beta1"])[0])
    out = ops.relu(ops.batch_norm(ops.conv2d(h, leaves["w2"], padding=1), leaves["gamma2"], leaves["beta2"])[0])
    out.backward(dy)
    np.testing.assert_allclose(y, out.data, atol=1e-12)
    np.testing.assert_allclose(A5["block_backward"](dy, cache)[0], leaves["x"].grad, atol=1e-10)


def test_the_claims_of_the_model_answer():
    rng = np.random.default_rng(0)
    x, p = rng.standard_normal((2, 3, 4, 5)), A5["drawn_parameters"](rng, 3)
    dy = rng.standard_normal(x.shape)
    for name, alive in ("gamma2", {"gamma2", "beta2"}), ("gamma1", {"beta2"}):
        _, cache = A5["residual_forward"](x, {**p, name: np.zeros(3)}, EPS)
        _, dp = A5["residual_backward"](dy, cache)
        assert {key for key, gradient in dp.items() if gradient.any()} == alive
    with_skip, without = (A5["norms_through"](30, skip) for skip in (True, False))
    assert 15e3 < without[-1] / without[0] < 35e3 and 20 < with_skip[-1] / with_skip[0] < 40
    assert with_skip[15] / with_skip[0] < 0.1 * with_skip[-1] / with_skip[0]  # most of it in the first blocks
    rng, sizes = np.random.default_rng(0), []
    x = np.maximum(rng.standard_normal((8, 16, 8, 8)), 0)
    for _ in range(30):
        sizes.append(np.sqrt((x * x).mean()))
        x, _ = A5["block_forward"](x, A5["drawn_parameters"](rng, 16), EPS)
    assert round(sizes[0], 1) == 0.7 and abs(sizes[29] - 5.1) < 0.15
