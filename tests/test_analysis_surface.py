"""Test shattered gradients and the loss surface against theory, closed forms and invariances."""

import itertools

import numpy as np
import pytest
from helpers import difference, normal

from minires import Tensor, init, models, nn, ops
from minires.analysis import (
    autocorrelation,
    curvature,
    gradient_correlation,
    gradient_on_a_line,
    input_gradients,
    loss_line,
    loss_surface,
    random_direction,
)


def rng(seed=0):
    return np.random.default_rng(seed)


# ------------------------------------------------------------------------------------------------ shattering


class Skip(nn.Module):
    """A residual layer: x + relu(W x), or x + W relu(BN x) with BN."""

    def __init__(self, width, seed, norm=False):
        self.linear = init.redraw(nn.Linear(width, width, bias=False, rng=rng(seed)), init.he_normal, rng=rng(seed))
        self.norm = nn.BatchNorm1d(width) if norm else None

    def forward(self, x):
        return x + (self.linear(ops.relu(self.norm(x))) if self.norm else ops.relu(self.linear(x)))


def hidden(depth, residual, width=192, seed=0, norm=False):
    if residual:
        return nn.Sequential(*(Skip(width, [seed, i], norm) for i in range(depth)))
    layers = []
    for _ in range(depth):
        layers += [nn.Linear(width, width, rng=rng()), nn.BatchNorm1d(width), nn.ReLU()]
    return init.redraw(nn.Sequential(*layers), init.he_normal, rng=rng(seed))


def correlation(depth, residual, seeds=4, norm=False):
    found = []
    for s in range(seeds):
        net = hidden(depth, residual, seed=s, norm=norm)
        found.append(gradient_correlation(net, normal(64, 192, seed=s, dtype=np.float32), rng=rng(s)))
    return np.mean(found)


@pytest.mark.parametrize("depth, expected", [(1, 0.5), (2, 0.25), (3, 0.125)])
def test_in_a_plain_network_the_correlation_halves_with_every_layer(depth, expected):
    assert correlation(depth, residual=False) == pytest.approx(expected, abs=0.03)


def test_with_shortcuts_it_falls_much_more_slowly():
    assert correlation(1, residual=True) == pytest.approx(0.75, abs=0.03)
    assert correlation(2, residual=True) == pytest.approx(0.75**2, abs=0.03)


def test_at_50_layers_it_has_stopped_falling_without_bn_and_falls_slowly_with_bn():
    """Without BN it stays near 0.3, far above (3/4)^50. With BN it is near 50^-1/2 = 0.14, and a little less."""
    assert 0.2 < correlation(50, residual=True, seeds=2) < 0.4
    assert 0.05 < correlation(50, residual=True, seeds=2, norm=True) < 0.14


def test_input_gradients_are_one_inputs_own():
    """BN's statistics are constants, so each row is the gradient of its image alone in an eval-mode network."""
    net, x = models.cifar(8, in_channels=1, width=4, rng=rng()).astype(np.float64), normal(5, 1, 8, 8)
    g = input_gradients(net, x, rng=rng(3))
    for _, m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.momentum = 1.0
    net(Tensor(x))
    net.eval()
    mixture = rng(3).standard_normal(10)
    for i in range(5):
        t = Tensor(x[i : i + 1], True)
        (net(t) * mixture).sum().backward()
        assert difference(g[i], t.grad.ravel()) < 1e-12
    cosines = [a @ b / np.sqrt(a @ a * (b @ b)) for a, b in itertools.combinations(g, 2)]
    assert gradient_correlation(net, x, rng=rng(3)) == pytest.approx(np.mean(cosines), rel=1e-10)
    assert gradient_correlation(net, np.repeat(x[:1], 3, 0), rng=rng()) == pytest.approx(1)
    with pytest.raises(ValueError, match="expected two or more inputs, got 1"):
        gradient_correlation(net, x[:1], rng=rng())


def test_autocorrelation():
    wave = np.sin(np.arange(4000) * 2 * np.pi / 40)
    assert autocorrelation(wave, [0, 10, 20, 40]) == pytest.approx([1, 0, -1, 1], abs=0.02)
    noise = rng().standard_normal(20_000)
    assert autocorrelation(noise, [1, 7]) == pytest.approx([0, 0], abs=0.02)
    walk = [0.0]
    for e in noise:
        walk.append(0.8 * walk[-1] + e)
    assert autocorrelation(walk, [1, 3]) == pytest.approx([0.8, 0.8**3], abs=0.02)
    with pytest.raises(ValueError, match="not all equal"):
        autocorrelation([1, 1], [1])
    with pytest.raises(ValueError, match=r"expected lags from 0 to 1, got \[2\]"):
        autocorrelation([1, 2], [2])


def test_on_a_line_a_deep_plain_networks_gradient_is_white_and_a_residual_ones_is_not():
    def mean(*settings):
        lines = (gradient_on_a_line(*settings, width=100, rng=rng(seed)) for seed in range(4))
        return np.mean([autocorrelation(line, [1])[0] for line in lines])

    assert mean(24) == pytest.approx(-0.02, abs=0.1)
    assert mean(50, 0.1) == pytest.approx(0.90, abs=0.05)
    assert mean(1) > 0.95


def test_the_gradient_on_a_line_is_the_slope_of_the_function():
    """The function of depth 0 is linear, so its slope is W2 W1 at every x."""
    values = gradient_on_a_line(0, width=7, points=5, rng=rng(2))
    assert len(values) == 5 and np.ptp(values) < 1e-12 and abs(values[0]) > 0


# ------------------------------------------------------------------------------------------------- landscape


def blobs(n=60, features=5, classes=3):
    x = normal(n, features)
    return x, (x @ normal(features, classes, seed=1)).argmax(1)


def test_the_curvature_of_a_linear_model_has_a_closed_form():
    """For z = W x + b along W + a D: d2L/da2 = mean over images of Var_p(D x), where p is the softmax."""
    x, labels = blobs()
    net = nn.Linear(5, 3, rng=rng()).astype(np.float64)
    direction = random_direction(net, rng=rng(1))
    z, dz = x @ net.weight.data.T + net.bias.data, x @ direction["weight"].T
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    expected = ((p * dz**2).sum(1) - (p * dz).sum(1) ** 2).mean()
    assert curvature(net, x, labels, direction, 1e-3) == pytest.approx(expected, rel=1e-5)
    line = loss_line(net, x, labels, direction, points=21)
    assert line.curvature == pytest.approx(expected, rel=1e-2)
    h = line.at[11] - line.at[10]
    assert (line.loss[9] - 2 * line.loss[10] + line.loss[11]) / h**2 == pytest.approx(expected, rel=0.01)
    for a, loss in zip(line.at, line.loss, strict=True):
        shifted = z + a * dz
        logp = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        assert loss == pytest.approx(-logp[range(60), labels].mean(), rel=1e-9)
    assert line.at[10] == 0 and line.error[10] == pytest.approx(100 * (z.argmax(1) != labels).mean())


def small(seed=0):
    net = models.cifar(8, in_channels=1, width=4, rng=rng(seed)).astype(np.float64)
    net(Tensor(normal(20, 1, 8, 8)))  # the running statistics differ from their initial values
    return net.eval()


def test_directions_are_filter_normalised_and_leave_norms_and_biases_alone():
    net = small()
    direction = random_direction(net, rng=rng(1))
    weights = {n: t for n, t in net.state().items() if t.ndim > 1}
    assert list(direction) == list(weights) and "bn1.weight" in net.state() and "fc.bias" in net.state()
    for name, d in direction.items():
        assert d.shape == weights[name].shape and d.dtype == np.float64
        for mine, theirs in zip(d, weights[name].data, strict=True):
            assert np.linalg.norm(mine) == pytest.approx(np.linalg.norm(theirs))


def test_a_surface_does_not_change_when_weights_are_scaled_to_no_effect():
    """relu(c W1 x) and W2 / c compute the same function, and filter normalisation gives both the same surface."""
    x, labels = blobs()
    surfaces = []
    for c in (1.0, 8.0):
        net = nn.Sequential(nn.Linear(5, 6, bias=False, rng=rng()), nn.ReLU(), nn.Linear(6, 3, rng=rng(1)))
        net = net.astype(np.float64)
        first, _, last = net
        first.weight.data, last.weight.data = first.weight.data * c, last.weight.data / c
        one, two = random_direction(net, rng=rng(2)), random_direction(net, rng=rng(3))
        surfaces.append(loss_surface(net, x, labels, one, two, points=5))
    a, b = surfaces
    assert difference(b.loss, a.loss) < 1e-12 and b.curvature == pytest.approx(a.curvature, rel=1e-6)


def test_the_surfaces_axes_are_the_lines():
    net = small()
    x, labels = normal(20, 1, 8, 8), rng().integers(0, 10, 20)
    one, two = random_direction(net, rng=rng(2)), random_direction(net, rng=rng(3))
    bars = []
    surface = loss_surface(net, x, labels, one, two, 3, 0.5, progress=lambda p: bars.append(len(p)) or p)
    assert bars == [9] and surface.at == [-0.5, 0, 0.5]
    assert [row[1] for row in surface.loss] == loss_line(net, x, labels, one, 3, 0.5).loss
    assert surface.loss[1] == loss_line(net, x, labels, two, 3, 0.5).loss
    assert surface.loss[1][1] == pytest.approx(ops.cross_entropy(net(Tensor(x)), labels).item())
    for points, radius in ((1, 1.0), (3, 0.0)):
        with pytest.raises(ValueError, match="expected points >= 2 and radius > 0"):
            loss_line(net, x, labels, one, points, radius)
