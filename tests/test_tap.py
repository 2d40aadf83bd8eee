"""Test taps: their numbers against NumPy, that they change nothing and are removed, and `untouched`."""

import numpy as np
import pytest
from helpers import normal, same_bits

from minires import Tensor, models, nn, no_grad, ops, tap
from minires.nn import untouched
from minires.tap import Tap


def rng(seed=0):
    return np.random.default_rng(seed)


def small(dtype=np.float64):
    model = nn.Sequential(nn.Linear(5, 4, rng=rng()), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3, rng=rng(1)))
    return model.astype(dtype)


def test_std_and_grad_norm_are_numpys():
    model, x, g = small(), normal(6, 5), normal(6, 3, seed=1)
    with Tap(model) as tap:
        model(Tensor(x)).backward(g)
    w0, b0, w3, b3 = (model.state()[n].data for n in ("0.weight", "0.bias", "3.weight", "3.bias"))
    h0 = x @ w0.T + b0
    h1 = (h0 - h0.mean(0)) / np.sqrt(h0.var(0) + 1e-5)
    h2 = np.maximum(h1, 0)
    g2 = g @ w3
    g1 = g2 * (h1 > 0)
    std = {"0": h0, "1": h1, "2": h2, "3": h2 @ w3.T + b3, "": h2 @ w3.T + b3}
    norm = {"1": g1, "2": g2, "3": g, "": g}
    assert list(tap.std) == ["0", "1", "2", "3", ""]  # in the order they ran
    for name, a in std.items():
        np.testing.assert_allclose(tap.std[name], a.std(), rtol=1e-12)
    for name, a in norm.items():
        np.testing.assert_allclose(tap.grad_norm[name], np.linalg.norm(a), rtol=1e-12)
    assert all(type(v) is float for v in [*tap.std.values(), *tap.grad_norm.values()])


def test_the_kinds_select_modules():
    model = small()
    with Tap(model, nn.Linear) as linears, Tap(model, nn.BatchNorm, nn.ReLU) as others:
        model(Tensor(normal(6, 5)))
    assert list(linears.std) == ["0", "3"] and list(others.std) == ["1", "2"]
    with pytest.raises(ValueError, match="Tap: the model has no module of kind Conv2d or MaxPool2d"):
        Tap(model, nn.Conv2d, nn.MaxPool2d)


def test_a_tap_changes_no_bit_of_a_training_step():
    left = []
    for tapped in (True, False):
        net = models.resnet20(width=4, rng=rng(3))
        x = Tensor(normal(4, 3, 8, 8, dtype=np.float32))
        if tapped:
            with Tap(net) as tap:
                ops.cross_entropy(net(x), [0, 1, 2, 3]).backward()
            assert set(tap.std) == {n for n, _ in net.modules()} and tap.grad_norm.keys() == tap.std.keys()
        else:
            ops.cross_entropy(net(x), [0, 1, 2, 3]).backward()
        left.append([*(t.data for t in net.state().values()), *(t.grad for t in net.parameters())])
    assert all(same_bits(a, b) for a, b in zip(*left, strict=True))


def test_a_tap_removes_itself_even_after_an_exception():
    model = small()
    tap = Tap(model)

    def fails():
        with tap:
            model(Tensor(normal(6, 5)))
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        fails()
    before = dict(tap.std)
    model(Tensor(3 * normal(6, 5)))
    assert tap.std == before and nn.hooks.watchers.get() == ()


def test_a_tap_sees_its_own_model_only():
    a, b = small(), small()
    with Tap(a) as tap:
        b(Tensor(normal(6, 5)))
    assert tap.std == {}


def test_nested_taps():
    model, x = small(), normal(6, 5)
    with Tap(model) as outer:
        with Tap(model) as inner:
            model(Tensor(x))
        seen = dict(inner.std)
        assert seen == outer.std
        model(Tensor(2 * x))
        assert inner.std == seen and outer.std["0"] != seen["0"]


def test_a_module_that_runs_twice_is_recorded_as_it_ran_last():
    layer = nn.Linear(4, 4, rng=rng()).astype(np.float64)
    x, g, w = normal(6, 4), normal(6, 4, seed=1), layer.weight.data
    with Tap(layer) as tap:
        layer(ops.tanh(layer(Tensor(x)))).backward(g)
    np.testing.assert_allclose(tap.std[""], (np.tanh(x @ w.T) @ w.T).std(), rtol=1e-12)
    np.testing.assert_allclose(tap.grad_norm[""], np.linalg.norm(g), rtol=1e-12)


def test_a_tap_over_several_steps_shows_the_last():
    model = small()
    with Tap(model, nn.Linear) as tap:
        for scale in (1, 2, 3):
            model(Tensor(normal(6, 5))).backward(scale * normal(6, 3, seed=1))
            np.testing.assert_allclose(tap.grad_norm["3"], scale * np.linalg.norm(normal(6, 3, seed=1)), rtol=1e-12)


def test_no_gradient_no_norm():
    model = small()
    with Tap(model) as tap, no_grad():
        model(Tensor(normal(6, 5)))
    assert len(tap.std) == 5 and tap.grad_norm == {}


def test_response_of_a_batch_norm_is_known_from_gamma_and_beta():
    """In train mode response^2 = mean_c(gamma^2 var / (var + eps)) + Var_c(beta)."""
    model = small()
    bn = model.state()
    bn["1.weight"].data, bn["1.bias"].data = normal(4, seed=3), normal(4, seed=4)
    x = normal(50, 5)
    with Tap(model, nn.BatchNorm) as tap:
        model(Tensor(x))
    var = (x @ bn["0.weight"].data.T).var(0)
    expected = (bn["1.weight"].data ** 2 * var / (var + 1e-5)).mean() + bn["1.bias"].data.var()
    np.testing.assert_allclose(tap.std["1"] ** 2, expected, rtol=1e-12)


# --------------------------------------------------------------------------------------------- untouched


@pytest.mark.parametrize("by_hand", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_untouched_restores_every_bit(by_hand, fails):
    net = models.resnet20(width=4, by_hand=by_hand, rng=rng())
    x = Tensor(normal(4, 3, 8, 8, dtype=np.float32))
    ops.cross_entropy(net(x), [0, 1, 2, 3]).backward()
    net.layer2[0].eval()
    arrays = {n: (t.data, t.data.copy(), t.grad, None if t.grad is None else t.grad.copy())
              for n, t in net.state().items()}
    modes = [m.training for _, m in net.modules()]

    def meddle():
        with untouched(net) as same:
            assert same is net
            net.train()
            ops.cross_entropy(net(x), [1, 1, 1, 1]).backward()  # moves running statistics, adds gradients
            for t in net.state().values():
                t.data[...] = 7  # change arrays in place
            net.conv1.weight.data = np.zeros((4, 3, 3, 3), np.float32)  # and replace one
            net.fc.weight.grad = None
            net.eval()
            if fails:
                raise KeyError("inside")

    if fails:
        with pytest.raises(KeyError):
            meddle()
    else:
        meddle()
    for name, t in net.state().items():
        data, copy, grad, grad_copy = arrays[name]
        assert t.data is data and same_bits(data, copy)
        assert t.grad is grad and (grad is None or same_bits(grad, grad_copy))
    assert [m.training for _, m in net.modules()] == modes


def test_untouched_works_on_weights_that_cannot_be_written():
    """Such weights are read from a memory-mapped file, or shared between processes."""
    model = small()
    for t in model.state().values():
        t.data.setflags(write=False)
    before = {n: t.data for n, t in model.state().items()}
    with untouched(model):
        model(Tensor(normal(6, 5)))
    assert all(t.data is before[n] for n, t in model.state().items())


def test_a_vanishing_gradient_is_not_reported_as_zero():
    g = np.full((4, 4), 1e-30, np.float32)  # whose squares are 0 in float32
    assert tap.norm(g) == pytest.approx(4e-30, rel=1e-6)
    assert tap.norm(np.zeros(3, np.float32)) == 0
    assert np.isnan(tap.norm(np.array([1, np.nan], np.float32)))


class Shared(nn.Module):
    """Applies one layer three times."""

    def __init__(self): self.act, self.fc = nn.ReLU(), nn.Linear(3, 3, rng=np.random.default_rng(0))

    def forward(self, x):
        for _ in range(3):
            x = self.act(self.fc(x))
        return x


def test_every_call_of_a_shared_module_and_its_arrays():
    net, x = Shared(), np.random.default_rng(1).standard_normal((4, 3), np.float32)
    expected, h = [], x
    for _ in range(3):
        h = np.maximum(h @ net.fc.weight.data.T + net.fc.bias.data, 0)
        expected.append(h)
    with tap.Tap(net, nn.ReLU, arrays=True) as seen:
        y = net(Tensor(x))
        assert [call.grad_norm for call in seen.calls["act"]] == [None] * 3 and seen.grad == {}
        (y * 2.0).sum().backward()
    calls = seen.calls["act"]
    for call, y in zip(calls, expected, strict=True):
        np.testing.assert_allclose(call.output, y, rtol=1e-6)
        assert call.std == pytest.approx(y.std(), rel=1e-5)
        assert call.grad_norm == pytest.approx(np.linalg.norm(call.grad), rel=1e-6)
    assert seen.output["act"] is calls[-1].output and seen.grad["act"] is calls[-1].grad
    assert (seen.std["act"], seen.grad_norm["act"]) == (calls[-1].std, calls[-1].grad_norm)
    np.testing.assert_allclose(calls[-1].grad, 2)
    below = (calls[-1].grad * (expected[-1] > 0)) @ net.fc.weight.data
    np.testing.assert_allclose(calls[1].grad, below, rtol=1e-5)


def test_calls_are_those_of_the_last_pass():
    net, x = Shared(), np.ones((2, 3), np.float32)
    with tap.Tap(net) as seen:
        for _ in range(5):
            net(Tensor(x))
    assert {name: len(calls) for name, calls in seen.calls.items()} == {"act": 3, "fc": 3, "": 1}
    assert seen.runs["act"] == 15 and seen.output == {} and seen.calls["act"][0].output is None
