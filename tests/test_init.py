"""Test initialisation: the variance that each source gives, and the effect on a signal and on a block."""

import math

import numpy as np
import pytest
from helpers import normal, same_bits

from minires import Tensor, init, models, nn, no_grad, ops


def rng(seed=0):
    return np.random.default_rng(seed)


SHAPES = [(64, 48, 3, 3), (40, 90, 3, 2), (300, 200), (256, 128, 1, 1)]


def fan(shape):  # (fan-in, fan-out), counted on an array: how many weights one output or one input uses
    w = np.ones(shape)
    return int(w[0].sum()), int(w[:, 0].sum())


SCHEMES = {  # {name: (scheme, variance for fan-in i and fan-out o)}, from the papers
    "xavier_normal": (init.xavier_normal, lambda i, o: 2 / (i + o)),    # Glorot & Bengio 2010, eq. 12
    "xavier_uniform": (init.xavier_uniform, lambda i, o: 2 / (i + o)),  # eq. 16: (2 sqrt(6 / (i + o)))^2 / 12
    "he fan_in": (init.he_normal, lambda i, o: 2 / i),                  # He et al. 2015b, eq. 10
    "he fan_out": (lambda s, rng: init.he_normal(s, "fan_out", rng=rng), lambda i, o: 2 / o),  # eq. 14
    "fan_in_uniform": (init.fan_in_uniform, lambda i, o: 1 / (3 * i)),  # Torch's linear layers: +-1 / sqrt(i)
    "normal": (lambda s, rng: init.normal(s, rng=rng), lambda i, o: 1e-4),
    "normal 0.3": (lambda s, rng: init.normal(s, 0.3, rng=rng), lambda i, o: 0.09),
}


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_variance(name, shape):
    scheme, variance = SCHEMES[name]
    w = scheme(shape, rng=rng(1))
    expected = variance(*fan(shape))
    assert w.shape == shape and w.dtype == np.float32
    assert abs(w.mean()) < 5 * math.sqrt(expected / w.size)
    assert abs(w.astype(np.float64).var() / expected - 1) < 5 * math.sqrt(2 / w.size)  # five standard errors


def test_uniform_is_uniform_and_normal_is_normal():
    for scheme, limit in (init.xavier_uniform, math.sqrt(6 / 500)), (init.fan_in_uniform, 1 / math.sqrt(200)):
        w = scheme((300, 200), rng=rng())
        assert abs(w).max() <= limit and abs(w).max() > 0.999 * limit
        counts = np.histogram(w, 10, (-limit, limit))[0]
        assert abs(counts / w.size - 0.1).max() < 0.01
    z = init.he_normal((300, 200), rng=rng()) / math.sqrt(2 / 200)
    assert abs((abs(z) < 1).mean() - 0.6827) < 0.01 and abs(z).max() > 3.5


def test_fans():
    assert init.fans((5, 3, 7, 2)) == (3 * 14, 5 * 14) and init.fans((5, 3)) == (3, 5)
    with pytest.raises(ValueError, match=r"fans: expected a weight's shape \(outputs, inputs, ...\), got \(5,\)"):
        init.fans((5,))


def test_constant():
    assert same_bits(init.constant((2, 3), 0.5), np.full((2, 3), 0.5, np.float32))


@pytest.mark.parametrize("std", [np.float64(0.5), 0.5, np.sqrt(0.25)])
def test_a_numpy_std_promotes_nothing(std):
    assert init.normal((3, 4), std, rng=rng()).dtype == np.float32


def test_the_same_rng_draws_the_same_weights():
    assert same_bits(init.he_normal((3, 4), rng=rng(5)), init.he_normal((3, 4), rng=rng(5)))
    assert not same_bits(init.he_normal((3, 4), rng=rng(5)), init.he_normal((3, 4), rng=rng(6)))


def test_undrawn_weights_are_zeros_and_leave_the_generator_where_it_is():
    generator = rng()
    before = generator.bit_generator.state
    with init.undrawn():
        with init.undrawn():
            made = [init.normal((3, 2), rng=generator)]
        made += [init.he_normal((3, 2), rng=generator), init.fan_in_uniform((3, 2), rng=generator)]
    assert all(a.shape == (3, 2) and a.dtype == np.float32 and not a.any() for a in made)
    assert generator.bit_generator.state == before
    with pytest.raises(KeyError), init.undrawn():
        raise KeyError
    assert init.normal((3, 2), rng=generator).all()


def test_a_wrong_mode_is_refused():
    with pytest.raises(ValueError, match='he_normal: expected mode "fan_in" or "fan_out", got \'fan\''):
        init.he_normal((3, 4), "fan", rng=rng())


def second_moments(scheme, depth=20, width=400, forward=True):
    """Return the mean square of the signal (or of the gradient) after `depth` ReLU layers, relative to the start."""
    x = Tensor(normal(200, width, dtype=np.float32), True)
    h = x
    draw = rng(2)
    for _ in range(depth):
        h = ops.relu(ops.linear(h, Tensor(scheme((width, width), rng=draw))))
    if forward:
        return float((h.data ** 2).mean() / (x.data ** 2).mean())
    g = normal(200, width, seed=1, dtype=np.float32)
    h.backward(g)
    return float((x.grad ** 2).mean() / (g ** 2).mean())


def test_he_keeps_the_signal_through_relus_and_xavier_halves_it():
    assert 0.25 < second_moments(init.he_normal) < 4
    assert 0.25 < second_moments(lambda s, rng: init.he_normal(s, "fan_out", rng=rng), forward=False) < 4
    assert 0.2 < second_moments(init.xavier_normal) * 2 ** 20 < 5
    assert 0.2 < second_moments(init.xavier_uniform) * 2 ** 20 < 5


def test_fan_out_keeps_the_gradient_where_widths_differ():
    w = init.he_normal((600, 150), "fan_out", rng=rng())
    g = normal(300, 600, dtype=np.float32) * (normal(300, 600, seed=1) > 0)  # half of the gradients pass the ReLU
    assert abs(((g @ w) ** 2).mean() - 1) < 0.1
    w = init.he_normal((600, 150), rng=rng())
    x = np.maximum(normal(300, 150, dtype=np.float32), 0)  # the mean square of a ReLU's output is 1/2 of its input's
    assert abs(((x @ w.T) ** 2).mean() - 1) < 0.1


# ------------------------------------------------------------------------------------------ whole models


def test_redraw_takes_weights_of_convolutions_and_linear_layers_only():
    net = models.resnet20(width=4, shortcut="B", rng=rng(1))
    before = {n: t.data for n, t in net.state().items()}
    assert init.redraw(net, lambda shape, rng: np.full(shape, 7.0), rng=rng()) is net
    changed = [n for n, t in net.state().items() if t.data is not before[n]]
    assert len(changed) == 20 + 2  # 19 convolutions, the classifier, two projections
    assert all((net.state()[n].data == 7).all() and net.state()[n].dtype == np.float32 for n in changed)
    assert [n for n in before if n not in changed and before[n].ndim > 1] == []


def test_redraw_draws_in_order():
    net = nn.Sequential(nn.Linear(3, 4, rng=rng()), nn.Linear(4, 2, rng=rng()))
    init.redraw(net, init.xavier_normal, rng=rng(9))
    draw = rng(9)
    for w in (net.state()["0.weight"], net.state()["1.weight"]):
        assert same_bits(w.data, init.xavier_normal(w.shape, rng=draw))


def test_redraw_refuses_a_model_without_weights_to_draw():
    with pytest.raises(ValueError, match="redraw: this model has no weight"):
        init.redraw(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()), init.xavier_normal, rng=rng())


def test_weights_stay_in_the_dtype_of_the_model():
    net = init.zero_last_gamma(models.resnet20(width=4, rng=rng()).astype(np.float64))
    init.redraw(net, init.he_normal, rng=rng())
    assert {t.dtype for t in net.state().values()} == {np.dtype(np.float64)}


@pytest.mark.parametrize("by_hand", [True, False])
def test_zero_last_gamma_makes_every_block_its_shortcut(by_hand):
    net = models.resnet20(width=4, by_hand=by_hand, rng=rng())
    assert init.zero_last_gamma(net) is net
    zero = [n for n, t in net.state().items() if t.requires_grad and n.endswith("weight") and not t.data.any()]
    assert zero == [f"layer{s}.{i}.bn2.weight" for s in (1, 2, 3) for i in range(3)]
    x = normal(3, 4, 6, 6, dtype=np.float32)
    assert same_bits(net.layer1[0](Tensor(x)).data, np.maximum(x, 0) + np.float32(0))
    with no_grad():
        y = net.layer2[0](Tensor(x)).data
    assert (y[:, 2:6] == np.maximum(x[:, :, ::2, ::2], 0)).all() and not y[:, :2].any() and not y[:, 6:].any()


def test_zero_last_gamma_needs_residual_blocks_with_batch_norm():
    for net in (models.plain20(width=4), models.resnet20(width=4, norm="none"), nn.Sequential(nn.ReLU())):
        with pytest.raises(ValueError, match="zero_last_gamma: this model has no residual block"):
            init.zero_last_gamma(net)


# -------------------------------------------------------------------------------------------------- fixup


def test_fixup_as_the_paper_says():
    """Test Zhang, Dauphin & Ma 2019, section 3: zero classifier and last layers, He times L^(-1/(2m-2)), scalars."""
    net = models.cifar(56, norm="fixup", width=16, rng=rng(3))
    blocks = [*net.layer1, *net.layer2, *net.layer3]
    assert len(blocks) == 27
    z = []
    for block in blocks:
        fan_in = block.conv1.weight.shape[1] * 9
        z.append(block.conv1.weight.data.ravel() / math.sqrt(2 / (fan_in * 27)))  # m = 2: variance 2 / (fan-in L)
        assert not block.conv2.weight.data.any()
        assert [getattr(block, b).data.tolist() for b in ("bias1a", "bias1b", "bias2a", "bias2b")] == [[0]] * 4
        assert block.scale.data.tolist() == [1]
        assert block.conv1.bias is None and block.conv2.bias is None
    z = np.concatenate(z)
    assert abs(z.std() - 1) < 5 / math.sqrt(2 * z.size) and abs(z.mean()) < 5 / math.sqrt(z.size)
    assert not net.fc.weight.data.any() and not net.fc.bias.data.any()
    stem = net.conv1.weight.data  # not in a branch, so this is plain He
    assert abs(stem.std() / math.sqrt(2 / 27) - 1) < 5 / math.sqrt(2 * stem.size)
    assert not any("bn" in n or "running" in n for n in net.state())
    scalars = [t for t in net.parameters() if t.shape == (1,)]
    assert len(scalars) == 5 * 27


def test_a_fixup_network_starts_with_equal_logits_and_its_blocks_as_shortcuts():
    net = models.cifar(20, norm="fixup", width=4, rng=rng())
    x = normal(3, 3, 8, 8, dtype=np.float32)
    logits = net(Tensor(x))
    assert logits.shape == (3, 10) and not logits.data.any()
    h = normal(3, 4, 8, 8, dtype=np.float32)
    assert (net.layer1[1](Tensor(h)).data == np.maximum(h, 0)).all()
    loss = ops.cross_entropy(logits, [0, 1, 2])
    loss.backward()
    assert abs(loss.item() - math.log(10)) < 1e-6
    assert net.fc.weight.grad.any()  # the first step changes the classifier, the second step the branches


def test_fixup_needs_fixup_blocks():
    with pytest.raises(ValueError, match='fixup: this model has no Fixup block; build it with norm="fixup"'):
        init.fixup(models.resnet20(width=4))
