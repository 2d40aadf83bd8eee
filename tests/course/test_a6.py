"""The solution of A6 agrees with the library, with PyTorch and with closed forms."""

from itertools import pairwise

import numpy as np
import pytest

from minires import Tensor, analysis, datasets, evaluate, models, ops, optim, train
from minires.course import solution

ANSWERS = solution.plain_space("a6")
LABELS = np.random.default_rng(5).integers(0, 10, 22)
IMAGES = np.random.default_rng(6).standard_normal((22, 1, 8, 8))


def small(residual=True, shortcut="A"):
    """A network of 8 layers in float64, whose running statistics are not at their start."""
    net = models.cifar(8, residual, shortcut=shortcut, in_channels=1, width=2, rng=np.random.default_rng(3))
    net.astype(np.float64).train()(Tensor(2 * IMAGES + 0.3))
    return net


def flat(net):
    return np.concatenate([t.data.ravel() for t in net.state().values()])


def test_prepare_is_what_the_data_sets_do():
    learn, test = (np.random.default_rng(i).integers(0, 256, (n, 5, 4), np.uint8) for i, n in ((0, 30), (1, 7)))
    expected = datasets.subtract_pixel_mean(datasets.to_float(learn), datasets.to_float(test))
    for mine, theirs in zip(ANSWERS["prepare"](learn, test), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-7)
        assert mine.dtype == np.float32


def test_the_pair_differs_in_the_shortcuts_alone():
    plain, residual = ANSWERS["pair"](14, 3, 7)
    for name, t in plain.state().items():
        np.testing.assert_array_equal(t.data, residual.state()[name].data)
    assert plain.count_parameters() == residual.count_parameters() == sum(
        t.size for t in models.cifar(14, False, in_channels=1, width=3).parameters())
    before = flat(residual)
    for t in plain.parameters():
        t.data += 1
    np.testing.assert_array_equal(flat(residual), before)
    assert [b.residual for b in plain.blocks() + residual.blocks()] == [False] * 6 + [True] * 6


def test_sgd_takes_the_steps_of_minires():
    rng = np.random.default_rng(0)
    w, grads, v = Tensor(rng.standard_normal((4, 3)), True), rng.standard_normal((3, 4, 3)), np.zeros((4, 3))
    optimizer, mine = optim.SGD([w], 0.2, 0.9, 0.1), w.data.copy()
    for g, lr in zip(grads, (0.2, 0.2, 0.05), strict=True):
        w.grad, optimizer.lr = g, lr
        optimizer.step()
        mine, v = ANSWERS["sgd"](mine, g, v, lr, 0.9, 0.1)
    np.testing.assert_allclose(mine, w.data, rtol=1e-12)


def test_sgd_takes_the_steps_of_pytorch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    start, grads, v = rng.standard_normal(5), rng.standard_normal((3, 5)), np.zeros(5)
    w, mine = torch.tensor(start, requires_grad=True), start
    optimizer = torch.optim.SGD([w], 0.2, 0.8, weight_decay=0.3)
    for g, lr in zip(grads, (0.2, 0.1, 0.1), strict=True):
        optimizer.param_groups[0]["lr"] = lr
        w.grad = torch.tensor(g)
        optimizer.step()
        mine, v = ANSWERS["sgd"](mine, g, v, lr, 0.8, 0.3)
    np.testing.assert_allclose(mine, w.detach().numpy(), rtol=1e-12)


def test_a_constant_gradient_brings_the_velocity_to_its_limit():
    w, v = np.zeros(1), np.zeros(1)
    for _ in range(200):
        w, v = ANSWERS["sgd"](w, np.ones(1), v, 0.0, 0.9, 0.0)
    np.testing.assert_allclose(v, 1 / (1 - 0.9))


def test_the_learning_rate_is_the_schedule_of_minires():
    schedule = optim.warm_up(optim.step_decay(0.5, [6, 9, 10]), 3, 0.05)
    mine = [ANSWERS["learning_rate"](step, 0.5, 3, [6, 9, 10]) for step in range(14)]
    np.testing.assert_allclose(mine, [schedule(step) for step in range(14)], rtol=1e-12)


@pytest.mark.parametrize("residual", [True, False])
def test_an_epoch_is_an_epoch_of_fit(residual):
    mine, theirs = small(residual).eval(), small(residual)
    loss = ANSWERS["train_epoch"](mine, IMAGES, LABELS, optim.SGD(mine.parameters(), 0.1, 0.9, 1e-2), 8,
                                  np.random.default_rng(2))
    recipe = train.Recipe(epochs=1, batch_size=8, lr=0.1, momentum=0.9, weight_decay=1e-2, drops=())
    events = list(train.fit(theirs, (IMAGES, LABELS), (IMAGES, LABELS), recipe, rng=np.random.default_rng(2),
                            augment=lambda images, rng: images))
    steps = [e for e in events if isinstance(e, train.Step)]
    assert [s.images for s in steps] == [8, 8, 6]
    np.testing.assert_allclose(loss, sum(s.loss * s.images for s in steps) / 22, rtol=1e-12)
    np.testing.assert_allclose(flat(mine), flat(theirs), rtol=1e-10)


@pytest.mark.parametrize("batch_size", [1, 5, 22, 100])
def test_the_error_is_that_of_evaluate(batch_size):
    net = small()
    net.bn1.eval()
    modes = [m.training for _, m in net.modules()]
    expected = evaluate.error(net, IMAGES, LABELS)
    assert ANSWERS["error"](net, IMAGES, LABELS, batch_size) == pytest.approx(expected, rel=1e-12)
    assert [m.training for _, m in net.modules()] == modes
    sets = (IMAGES[:9], LABELS[:9]), (IMAGES[9:], LABELS[9:])
    found = ANSWERS["errors"](net, *sets, batch_size)
    assert (9 * found["train_error"] + 13 * found["test_error"]) / 22 == pytest.approx(expected)
    assert found["test_error"] == pytest.approx(evaluate.error(net, *sets[1]), rel=1e-12)


@pytest.mark.parametrize("residual", [True, False])
def test_gradient_norms_are_those_of_gradient_flow(residual):
    net = small(residual)
    flow = analysis.gradient_flow(net, IMAGES, LABELS).weights
    found, modules = ANSWERS["gradient_norms"](net, IMAGES, LABELS), dict(net.modules())
    assert list(found) == [name for name in flow if name != "fc"]
    for name, value in found.items():
        assert value == pytest.approx(flow[name] / np.linalg.norm(modules[name].weight.data), rel=1e-12)


def test_a_norm_is_a_directional_derivative():
    net = small()
    weight = net.conv1.weight
    value = ANSWERS["gradient_norms"](net, IMAGES, LABELS)["conv1"]
    ops.cross_entropy(net(Tensor(IMAGES)), LABELS).backward()
    along, start, losses = weight.grad / np.linalg.norm(weight.grad), weight.data, []
    for step in (-1e-6, 1e-6):
        weight.data = start + step * along
        losses.append(ops.cross_entropy(net(Tensor(IMAGES)), LABELS).item())
    slope = next(b - a for a, b in pairwise(losses)) / 2e-6
    assert value == pytest.approx(slope / np.linalg.norm(start), rel=1e-4)
