"""Test signal, activations, updates and gradients over depth and training time against closed forms and NumPy."""

import math
from pathlib import Path

import numpy as np
import pytest
from helpers import normal

from minires import Tensor, analysis, init, models, nn, ops, optim, train
from minires.analysis import (
    activations,
    follow,
    gradient_flow,
    growth_per_layer,
    responses,
    responses_closed_form,
    responses_from_parameters,
    second_moments,
    update_ratios,
)

ROOT = Path(__file__).resolve().parents[1]
GROWTH = math.sqrt(math.pi / (math.pi - 1))  # 1.2112


def rng(seed=0):
    return np.random.default_rng(seed)


def cifar(depth=8, width=4, seed=0, **options):
    return models.cifar(depth, in_channels=1, width=width, rng=rng(seed), **options)


# --------------------------------------------------------------------------------------- the signal's growth


class Branch(nn.Module):
    """A block x + F(x) on vectors, in the variants whose growth is known."""

    def __init__(self, kind, width, seed):
        self.kind = kind
        self.first, self.second = (nn.Linear(width, width, bias=False, rng=rng([seed, i])) for i in (0, 1))
        init.redraw(self, init.he_normal, rng=rng([seed, 2]))
        self.bn1, self.bn2 = (nn.BatchNorm1d(width) if kind == "pre, BN" else nn.Identity() for _ in (0, 1))

    def forward(self, x):
        h = self.first(x if self.kind in ("inner", "post") else ops.relu(self.bn1(x)))
        y = x + self.second(ops.relu(self.bn2(h)))
        return ops.relu(y) if self.kind == "post" else y


def moments(kind, blocks, seed=0, width=256):
    net = nn.Sequential(*(Branch(kind, width, 10 * seed + i) for i in range(blocks)))
    x = rng(100 + seed).standard_normal((256, width), np.float32)
    return list(second_moments(net, np.maximum(x, 0) if kind == "post" else x, Branch).values())


@pytest.mark.parametrize("kind, factor, within", [("pre", 2, 0.05), ("inner", 3, 0.1), ("post", 2.3, 0.1)])
def test_without_batch_norm_the_signal_grows_by_a_factor_per_block(kind, factor, within):
    rates = [(m[-1] / m[1]) ** (1 / (len(m) - 2)) for m in (moments(kind, 12, seed) for seed in range(3))]
    assert np.mean(rates) == pytest.approx(factor, abs=within)


def test_with_batch_norm_it_grows_by_one_per_block():
    found = np.mean([moments("pre, BN", 20, seed) for seed in range(3)], axis=0)
    steps = np.diff(found)
    assert found[0] == pytest.approx(1, abs=0.02) and np.mean(steps) == pytest.approx(1, abs=0.03)
    shares = steps / found[1:]  # the branch's share of a block's output
    assert shares == pytest.approx([1 / (l + 1) for l in range(1, 21)], abs=0.02)
    assert found == pytest.approx(np.arange(1, 22), rel=0.05)


def test_second_moments_are_numpys_and_name_the_blocks():
    net, x = cifar(), normal(6, 1, 8, 8, dtype=np.float32)
    outputs = {}
    names = {id(m): name for name, m in net.modules()}
    with nn.watched(lambda m, inputs, out: outputs.update({names[id(m)]: out.data})):
        net(Tensor(x))
    found = second_moments(net, x)
    assert list(found) == ["input", "layer1.0", "layer2.0", "layer3.0"]
    assert found["layer2.0"] == pytest.approx((outputs["layer2.0"].astype("f8") ** 2).mean(), rel=1e-6)
    assert list(second_moments(net, x, nn.Linear)) == ["input", "fc"]
    with pytest.raises(ValueError, match="no residual or plain block"):
        second_moments(nn.Linear(3, 2, rng=rng()), normal(4, 3))
    with pytest.raises(ValueError, match="no module of kind MaxPool2d"):
        second_moments(net, x, nn.MaxPool2d)


# ----------------------------------------------------------------------------------------- gradients over depth


def mlp(depth, norm, scheme=init.he_normal, width=192, seed=0):
    layers = []
    for _ in range(depth):
        layers += [nn.Linear(width, width, rng=rng(seed)), *([nn.BatchNorm1d(width)] if norm else []), nn.ReLU()]
    return init.redraw(nn.Sequential(*layers, nn.Linear(width, 10, rng=rng(seed))), scheme, rng=rng(seed))


def batch(seed, n=128, width=192):
    return rng(100 + seed).standard_normal((n, width), np.float32), rng(200 + seed).integers(0, 10, n)


def test_the_gradient_grows_by_1_211_per_layer_with_batch_norm():
    """In 54 layers of 192 units with batches of 128, the gradient explodes toward the input and does not vanish."""
    rates = [growth_per_layer(gradient_flow(mlp(54, True, seed=s), *batch(s)).activations, skip=3) for s in range(3)]
    assert np.mean(rates) == pytest.approx(1.211, abs=0.02)
    assert pytest.approx(1.2112, abs=1e-4) == GROWTH


def test_without_batch_norm_he_keeps_it_and_xavier_halves_its_square():
    def rate(scheme, depth):
        flows = (gradient_flow(mlp(depth, False, scheme, seed=s), *batch(s)) for s in range(3))
        return np.mean([growth_per_layer(flow.activations, skip=2) for flow in flows])

    assert rate(init.he_normal, 30) == pytest.approx(0.97, abs=0.05)
    assert rate(init.xavier_normal, 30) ** 2 == pytest.approx(0.5, abs=0.05)


def test_xavier_with_relu_halves_the_signal_per_layer():
    net = mlp(30, False, init.xavier_normal)
    found = list(second_moments(net, batch(0)[0], nn.ReLU).values())[1:]
    assert (found[-1] / found[0]) ** (1 / 29) == pytest.approx(0.5, abs=0.03)
    assert 1e-10 < found[-1] < 1e-8  # 2^-30 = 9e-10


def test_growth_per_layer_is_a_geometric_mean_toward_the_input():
    assert growth_per_layer({"a": 9.0, "b": 8.0, "c": 5.0, "d": 2.0, "e": 7.0}) == 2.0
    for norms, skip in (({"a": 1.0, "b": 2.0, "c": 3.0}, 1), ({"a": 0.0, "b": 1.0}, 0)):
        with pytest.raises(ValueError, match="two or more positive norms"):
            growth_per_layer(norms, skip)


# ------------------------------------------------------------------------------------------------- responses


@pytest.mark.parametrize("options", [{}, {"residual": False}, {"shortcut": "C"}], ids=["residual", "plain", "C"])
def test_responses_two_ways_and_from_parameters_alone(options):
    net = cifar(14, **options)
    r = rng(3)
    for _, m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.weight.data = r.uniform(0.2, 2, m.weight.shape).astype("f4")
            m.bias.data = r.standard_normal(m.bias.shape).astype("f4")
    x = normal(12, 1, 8, 8, dtype=np.float32)
    measured = responses(net, x)
    assert responses_closed_form(net, x) == pytest.approx(measured, rel=1e-5)
    assert responses_from_parameters(net, (8, 8)) == pytest.approx(measured, rel=0.02)
    assert list(responses_from_parameters(net)) == list(measured)
    with pytest.raises(ValueError, match="no convolution"):
        responses_from_parameters(nn.Linear(3, 2, rng=rng()))


# -------------------------------------------------------------------------------- activations and dead units


def test_activations_of_a_small_network_by_hand():
    net = nn.Sequential(nn.Linear(3, 4, rng=rng()), nn.ReLU(), nn.Linear(4, 2, rng=rng(1)))
    net[0].bias.data[1] = -100  # no input activates this unit
    x = normal(50, 3, dtype=np.float32)
    h = x @ net[0].weight.data.T + net[0].bias.data
    found = activations(net, x, bins=8, limit=2)
    assert list(found) == ["1"]
    a = found["1"]
    assert a.dead == 0.25 and a.zero == pytest.approx((h <= 0).mean())
    assert a.counts == np.histogram(np.clip(h, -2, 2), 8, (-2, 2))[0].tolist() and sum(a.counts) == h.size
    assert a.mean == pytest.approx(h.mean(), rel=1e-5) and a.std == pytest.approx(h.std(), rel=1e-5)


@pytest.mark.parametrize(
    "options, names",
    [({}, ["bn1", "layer1.0.bn1", "layer1.0", "layer2.0.bn1", "layer2.0", "layer3.0.bn1", "layer3.0"]),
     ({"block": "preact"}, ["layer1.0.bn1", "layer1.0.bn2", "layer2.0.bn1", "layer2.0.bn2", "layer3.0.bn1",
                            "layer3.0.bn2", "bn"]),
     ({"residual": False, "norm": "none"},
      ["conv1", "layer1.0.conv1", "layer1.0", "layer2.0.conv1", "layer2.0", "layer3.0.conv1", "layer3.0"])],
    ids=["v1", "v2", "no norm"],
)
def test_every_relu_is_found_whether_it_is_a_module_or_not(options, names):
    found = activations(cifar(by_hand=False, **options), normal(8, 1, 8, 8, dtype=np.float32))
    assert sorted(found) == sorted(names) and max(a.dead for a in found.values()) < 0.5


def test_a_nonlinearity_that_runs_twice_has_two_names():
    bend, x = nn.ReLU(), normal(8, 3, dtype=np.float32)
    net = nn.Sequential(nn.Linear(3, 3, rng=rng()), bend, nn.Linear(3, 3, rng=rng(1)), bend)
    found, of_kind = activations(net, x), activations(net, x, kinds=nn.ReLU)
    assert list(found) == list(of_kind) and len(found) == 2
    first, second = found
    assert second == f"{first}, call 2" and found == of_kind


def test_activations_of_a_float16_network_do_not_overflow():
    net = nn.Sequential(nn.Linear(3, 200, rng=rng()), nn.ReLU())
    x = normal(50, 3, dtype=np.float32) * 100
    wide, half = (activations(net.astype(dtype), x.astype(dtype))["1"] for dtype in (np.float32, np.float16))
    assert half.std == pytest.approx(wide.std, rel=0.01) and half.mean == pytest.approx(wide.mean, abs=1)


def test_a_channel_that_training_silenced_is_counted():
    net = cifar(8, width=4)
    net.layer2[0].bn1.bias.data[:6] = -50
    found = activations(net, normal(8, 1, 8, 8, dtype=np.float32))
    assert found["layer2.0.bn1"].dead == 6 / 8


def test_saturated_sigmoids_are_dead_too():
    class Net(nn.Module):
        def __init__(self):
            self.linear = nn.Linear(3, 4, rng=rng())

        def forward(self, x):
            return ops.sigmoid(self.linear(x) * 1.0)

    net = Net()
    net.linear.bias.data[:2] = 100
    found = activations(net, normal(9, 3, dtype=np.float32))
    assert [a.dead for a in found.values()] == [0.5]


def test_activations_of_every_nonlinearity_that_minires_has():
    """Regression: a network with nn.LeakyReLU or nn.GELU had no nonlinearity."""
    class Clipped(nn.Module):
        def forward(self, x): return x.clip(0, 6)

    net = nn.Sequential(nn.LeakyReLU(), nn.GELU(), Clipped(), nn.ReLU())
    found = activations(net, normal(9, 3, dtype=np.float32))
    assert list(found) == ["0", "1", "2", "3"] and found["0"].zero == 0 and found["2"].zero > 0


def test_activations_refuse_what_they_cannot_describe():
    x = normal(5, 3, dtype=np.float32)
    with pytest.raises(ValueError, match=r"no nonlinearity: no ReLU, leaky ReLU, .* clip, or Function of its own"):
        activations(nn.Linear(3, 2, rng=rng()), x)
    with pytest.raises(ValueError, match="expected bins >= 1 and limit > 0, got 0 and 4"):
        activations(cifar(), x, bins=0)
    assert list(activations(nn.ReLU(), x)) == [""]  # no parameter is needed


# ------------------------------------------------------------------------------------------------- over time


def training(net, epochs=1, optimizer=None):
    x, y = normal(40, 1, 8, 8, dtype=np.float32), rng(9).integers(0, 10, 40)
    recipe = train.Recipe(epochs=epochs, batch_size=10, lr=0.05, weight_decay=0)
    return train.fit(net, (x, y), (x, y), recipe, rng=rng(4), optimizer=optimizer)


def test_follow_looks_before_and_at_the_steps_asked_for():
    net = cifar()
    x, y = normal(10, 1, 8, 8, seed=5, dtype=np.float32), rng(1).integers(0, 10, 10)
    seen = follow(training(net, epochs=2), lambda: gradient_flow(net, x, y), at=(1, 4, 8))
    assert list(seen) == [0, 1, 4, 8]
    assert seen[0] == gradient_flow(cifar(), x, y) and seen[8] == gradient_flow(net, x, y) != seen[4]


def test_looking_does_not_disturb_a_training():
    looked, alone = cifar(), cifar()
    x = normal(10, 1, 8, 8, seed=5, dtype=np.float32)
    follow(training(looked), lambda: (activations(looked, x), second_moments(looked, x)), at=range(9))
    for _ in training(alone):
        pass
    for a, b in zip(looked.state().values(), alone.state().values(), strict=True):
        assert a.data.tobytes() == b.data.tobytes()


def test_update_ratios_of_plain_descent_are_lr_times_gradient_over_weight():
    """Without momentum and decay the step is -lr g, so the gradient alone determines the ratio."""
    net = cifar()
    expected = {}

    class Spy(optim.SGD):
        def step(self):
            for name, t in net.state().items():
                if t.requires_grad and t.ndim > 1:
                    expected[name] = 0.05 * np.linalg.norm(t.grad) / np.linalg.norm(t.data)
            super().step()

    events = training(net, optimizer=Spy(net.parameters(), 0.05))
    found = update_ratios(net, events, every=4)
    assert list(found) == [4]
    assert {f"{name}.weight": r for name, r in found[4].items()} == pytest.approx(expected, rel=1e-3)


def test_update_ratios_leave_out_weights_that_start_at_zero():
    net = cifar(norm="fixup")
    found = update_ratios(net, training(net))
    assert list(found) == [1, 2, 3, 4]
    assert "fc" not in found[1] and "layer1.0.conv2" not in found[1] and "fc" in found[2]
    with pytest.raises(ValueError, match="expected every >= 1, got 0"):
        update_ratios(net, [], every=0)


class Swish(nn.Module):
    def forward(self, x): return x * ops.sigmoid(x)


class TwiceSwish(nn.Module):
    """Runs one Swish twice."""

    def __init__(self): self.act, self.fc = Swish(), nn.Linear(3, 3, rng=np.random.default_rng(0))

    def forward(self, x): return self.act(self.fc(self.act(x)))


def test_activations_of_kinds_of_modules_and_of_every_call():
    net, x = TwiceSwish(), np.random.default_rng(1).standard_normal((50, 3), np.float32)
    assert list(analysis.activations(net, x)) != ["act", "act, call 2"]  # its parts: two sigmoids
    found = analysis.activations(net, x, kinds=Swish)
    assert list(found) == ["act", "act, call 2"]
    assert found["act"].mean == pytest.approx(x.mean(), abs=1e-6) and sum(found["act"].counts) == x.size
    first = x / (1 + np.exp(-x))
    second = first @ net.fc.weight.data.T + net.fc.bias.data
    assert found["act, call 2"].std == pytest.approx(second.std(), rel=1e-5) and found["act"].zero == 0
    assert analysis.activations(net, x, kinds=(Swish, nn.ReLU)) == found
    with pytest.raises(ValueError, match="activations: no module of kind ReLU or Dropout ran"):
        analysis.activations(net, x, kinds=(nn.ReLU, nn.Dropout))
