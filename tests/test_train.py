"""Test the training loop: against closed forms, plain loops and PyTorch; its events; and its errors."""

import math
import re

import numpy as np
import pytest
from helpers import needs_torch, torch
from short import every

from minires import Tensor, datasets, kernels, models, nn, train
from minires.optim import SGD
from minires.train import Epoch, NotFinite, Recipe, Step, error, fit, step

F8 = np.float64


def data(n=23, size=8, channels=1, classes=10, seed=1, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, channels, size, size)).astype(dtype), rng.integers(0, classes, n)


def small(dtype=np.float32, **options):
    options = {"in_channels": 1, "width": 2} | options
    return models.cifar(8, rng=np.random.default_rng(0), **options).astype(dtype)


def linear_model(dtype=F8):
    rng = np.random.default_rng(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 4, rng=rng)).astype(dtype)


def arrays(model):
    return {name: t.data.copy() for name, t in model.state().items()}


def assert_same(model, before):
    for name, t in model.state().items():
        np.testing.assert_array_equal(t.data, before[name], err_msg=name)


# ------------------------------------------------------------------------------------------------- a step


def test_steps_follow_softmax_regression_written_out():
    """p = softmax(x w' + b); dL/dw = (p - onehot)' x / N; v = m v + g + d w; w = w - lr v."""
    rng = np.random.default_rng(3)
    x, labels = rng.standard_normal((7, 3, 2, 2)), rng.integers(0, 4, 7)
    model = linear_model()
    layer = next(m for _, m in model.modules() if isinstance(m, nn.Linear))
    layer.bias.data = rng.standard_normal(4)
    optimizer = SGD(model.parameters(), lr=0.3, momentum=0.8, weight_decay=0.05)
    w, b = layer.weight.data.copy(), layer.bias.data.copy()
    flat, onehot, vw, vb = x.reshape(7, 12), np.eye(4)[labels], 0, 0
    for _ in range(4):
        e = np.exp(flat @ w.T + b)
        p = e / e.sum(1, keepdims=True)
        loss = step(model, optimizer, x, labels)
        assert loss == pytest.approx(-np.log(p[range(7), labels]).mean(), rel=1e-12)
        vw = 0.8 * vw + (p - onehot).T @ flat / 7 + 0.05 * w
        vb = 0.8 * vb + (p - onehot).mean(0) + 0.05 * b
        w, b = w - 0.3 * vw, b - 0.3 * vb
        np.testing.assert_allclose(layer.weight.data, w, rtol=1e-11)
        np.testing.assert_allclose(layer.bias.data, b, rtol=1e-11)


def test_a_step_trains_in_train_mode_and_forgets_old_gradients():
    x, labels = data()
    model, twice = small().eval(), small()
    for t in twice.parameters():
        t.grad = np.full_like(t.data, 7)
    for m in model, twice:
        step(m, SGD(m.parameters(), 0.1), x, labels)
    assert_same(model, arrays(twice))
    assert all(m.training for _, m in model.modules())
    assert np.abs(model.bn1.running_mean.data).max() > 0


# ------------------------------------------------------------------------------------------------- records


def test_fit_yields_every_step_and_epoch_in_order():
    images, labels = data(23)
    test = data(9, seed=2)
    model = small()
    records = list(fit(model, (images, labels), test, Recipe(epochs=3, batch_size=5), rng=np.random.default_rng(0)))
    steps = [r for r in records if isinstance(r, Step)]
    assert [type(r) for r in records] == ([Step] * 5 + [Epoch]) * 3
    assert [r.step for r in steps] == list(range(1, 16))
    assert [r.images for r in steps] == [5, 5, 5, 5, 3] * 3
    epochs = [r for r in records if isinstance(r, Epoch)]
    assert [r.epoch for r in epochs] == [1, 2, 3]
    for i, r in enumerate(epochs):
        assert r.train_loss == pytest.approx(np.mean([s.loss for s in steps[5 * i : 5 * i + 5]]), rel=1e-12)
    assert epochs[-1].train_error == error(model, images, labels)
    assert epochs[-1].test_error == error(model, *test)


def test_every_image_is_seen_once_in_an_epoch_in_an_order_of_its_own(monkeypatch):
    seen = []
    monkeypatch.setattr(train, "step", lambda model, optimizer, x, labels, number: seen.append((x, labels)) or 0.0)
    images, labels = data(23)
    images = np.arange(23, dtype=np.float32).reshape(23, 1, 1, 1) * np.ones_like(images)
    # private: the steps are replaced, so there is nothing to measure
    monkeypatch.setattr(train, "_measured", lambda *args: (True, [0.0, 0.0]))
    list(fit(small(), (images, labels), (images, labels), Recipe(epochs=2, batch_size=5), rng=np.random.default_rng(0)))
    order = np.concatenate([x[:, 0, 0, 0] for x, _ in seen]).astype(int)
    np.testing.assert_array_equal(np.concatenate([l for _, l in seen]), labels[order])
    first, second = order[:23], order[23:]
    assert sorted(first) == sorted(second) == list(range(23))
    assert list(first) != list(second) and list(first) != list(range(23))


def test_fit_trains_only_as_far_as_it_is_asked():
    model = small()
    before = arrays(model)
    run = fit(model, data(), data(), Recipe(batch_size=5), rng=np.random.default_rng(0))
    assert_same(model, before)
    assert next(run).step == 1
    run.close()
    assert any((t.data != before[name]).any() for name, t in model.state().items())


def test_same_seeds_same_bits():
    runs = []
    for seed in 0, 0, 1:
        model = small(by_hand=True)
        records = list(fit(model, data(), data(9), Recipe(2, 5), rng=np.random.default_rng(seed)))
        runs.append((records, [a.tobytes() for a in arrays(model).values()]))
    assert runs[0] == runs[1] and runs[0][1] != runs[2][1]


def test_by_hand_and_composed_train_the_same():
    models_ = [small(by_hand=by_hand) for by_hand in (False, True)]
    records = [list(fit(m, data(), data(9), Recipe(2, 5), rng=np.random.default_rng(0))) for m in models_]
    assert records[0] == records[1]
    assert_same(models_[1], arrays(models_[0]))


# -------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("batch_size", [1, 4, 7, 23, 500])
def test_error_is_the_plain_loops(batch_size):
    """Compare with a loop over single images, in eval mode, that counts those whose largest logit is a wrong class."""
    images, labels = data()
    model = small(F8)
    step(model, SGD(model.parameters(), 0.1), images.astype(F8), labels)
    model.eval()
    logits = [model(Tensor(images[i : i + 1].astype(F8))).data[0] for i in range(23)]
    wrong = sum(int(np.argmax(z)) != l for z, l in zip(logits, labels, strict=True))
    assert 0 < wrong < 23
    assert error(model, images.astype(F8), labels, batch_size) == pytest.approx(100 * wrong / 23, rel=1e-12)


def test_error_restores_modes_and_touches_nothing():
    images, labels = data()
    model = small().eval()
    model.layer1[0].bn1.training = True  # a layer whose mode differs from the model's, as a frozen layer does
    modes, before = [m.training for _, m in model.modules()], arrays(model)
    error(model, images, labels)
    with pytest.raises(ValueError, match="channels"):
        error(model, np.ones((2, 3, 8, 8), np.float32), labels[:2])
    assert [m.training for _, m in model.modules()] == modes
    assert_same(model, before)
    assert all(t.grad is None for t in model.parameters())


def test_error_of_nothing():
    with pytest.raises(ValueError, match="evaluate: expected at least one image"):
        error(small(), *data(0))


# ---------------------------------------------------------------------------------------------- not finite


def stopped(model, images, labels, lr=0.1, number=17):
    before, optimizer = arrays(model), SGD(model.parameters(), lr, 0.9)
    velocity = optimizer.velocity.copy()
    with pytest.raises(NotFinite) as caught:
        step(model, optimizer, images, labels, number)
    assert_same(model, before)
    np.testing.assert_array_equal(optimizer.velocity, velocity)
    return str(caught.value)


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_not_finite_names_the_step_and_the_first_layer(value, by_hand):
    model = small(by_hand=by_hand)
    model.layer2[0].conv2.weight.data[1, 2, 0, 0] = value
    says = stopped(model, *data())
    assert says.startswith("step 17: the loss is nan, expected a finite number; ")
    assert "first non-finite values are in the output of layer 'layer2.0.conv2' (Conv2d)" in says
    assert "a smaller learning rate than 0.1, or" in says


@pytest.mark.parametrize(
    "name, layer",
    [("conv1.weight", "'conv1' (Conv2d)"), ("bn1.bias", "'bn1' (BatchNorm2d)"), ("fc.bias", "'fc' (Linear)"),
     ("layer3.0.bn2.weight", "'layer3.0.bn2' (BatchNorm2d)")],
)
def test_not_finite_names_other_layers_too(name, layer):
    model = small()
    model.state()[name].data[0] = np.nan
    assert f"the output of layer {layer}" in stopped(model, *data())


def test_not_finite_in_the_input():
    images, labels = data()
    images[4, 0, 3, 3] = np.nan
    assert "first non-finite values are in the input itself" in stopped(small(), images, labels)


def test_not_finite_only_in_the_loss():
    """The logits are finite but the loss is not: -log p overflows if the logits are far apart."""
    model = linear_model(np.float32)
    layer = next(m for _, m in model.modules() if isinstance(m, nn.Linear))
    layer.weight.data[:] = 0
    layer.bias.data[:] = [3e38, -3e38, 0, 0]
    images = np.ones((2, 3, 2, 2), np.float32)
    assert "the loss itself: every layer's output is finite" in stopped(model, images, np.array([1, 1]))


BLOW_UP = {"plain": ({"residual": False}, 1e6), "residual": ({}, 1e6), "by hand": ({"by_hand": True}, 1e6),
           "pre-activation": ({"block": "preact"}, 1e6), "no norm": ({"norm": "none", "residual": False}, 1e6),
           "no norm, slower": ({"norm": "none", "residual": False}, 100.0)}


@pytest.mark.parametrize("which", ["reference", "auto"])
@pytest.mark.parametrize("options, lr", BLOW_UP.values(), ids=BLOW_UP)
def test_a_blow_up_is_reported_and_nothing_else_is(options, lr, which):
    """No warning precedes the error: warnings are errors in these tests."""
    run = fit(small(**options), data(), data(), Recipe(60, 8, lr), rng=np.random.default_rng(0))
    with (
        kernels.using(which),
        pytest.raises(NotFinite, match=r"first non-finite values are in the (output of layer '|loss itself)") as caught,
    ):
        list(run)
    number = int(re.match(r"step (\d+): the loss is (nan|inf)", str(caught.value))[1])
    assert 2 <= number <= 180 and f"a smaller learning rate than {lr:g}, or" in str(caught.value)


def test_steps_before_the_blow_up_are_kept_and_finite():
    run = fit(small(residual=False, norm="none"), data(), data(), Recipe(60, 8, lr=1e3), rng=np.random.default_rng(0))
    steps = []
    with pytest.raises(NotFinite) as caught:
        steps += iter(lambda: [s for s in [next(run)] if isinstance(s, Step)], None)  # until it raises
    steps = [s for found in steps for s in found]
    assert steps and all(math.isfinite(s.loss) for s in steps)
    assert str(caught.value).startswith(f"step {len(steps) + 1}: ")


# ---------------------------------------------------------------------------------------------- it learns


@pytest.mark.parametrize("options", [{"residual": False}, {"by_hand": True}], ids=["plain", "residual"])
def test_a_tiny_net_learns_a_separable_set(options):
    """Class k is a bright square at position k of four, with noise."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 120)
    images = 0.3 * rng.standard_normal((120, 1, 8, 8)).astype(np.float32)
    for image, k in zip(images, labels, strict=True):
        image[0, 4 * (k // 2) :, 4 * (k % 2) :][:4, :4] += 1
    sets = (images[:80], labels[:80]), (images[80:], labels[80:])
    model = small(num_classes=4, width=4, **options)
    assert error(model, *sets[0]) > 40
    records = [r for r in fit(model, *sets, Recipe(epochs=12, batch_size=16), rng=rng) if isinstance(r, Epoch)]
    assert records[-1].train_error == records[-1].test_error == 0
    assert records[-1].train_loss < 0.1 * records[0].train_loss


# ------------------------------------------------------------------------------------------------ PyTorch


@needs_torch
@pytest.mark.parametrize("options", every(3, [{"residual": False}, {"by_hand": True}, {},
                                             {"by_hand": True, "shortcut": "B"}],
                                            ["plain", "by hand", "composed", "option B"]))
def test_thirty_steps_follow_pytorch(options):
    import twins

    images, labels = data(60, channels=3, dtype=F8)
    model = small(F8, in_channels=3, width=4, **options)
    twin = twins.loaded(twins.cifar(8, **{k: v for k, v in options.items() if k != "by_hand"}), model)
    sgd = torch.optim.SGD(twin.parameters(), 0.05, 0.9, weight_decay=1e-3)
    optimizer = SGD(model.parameters(), 0.05, 0.9, 1e-3)
    order = np.random.default_rng(4).permuted(np.tile(np.arange(60), (5, 1)), axis=1).reshape(30, 10)
    for rows in order:
        mine = step(model, optimizer, images[rows], labels[rows])
        sgd.zero_grad()
        loss = torch.nn.functional.cross_entropy(twin(torch.tensor(images[rows])), torch.tensor(labels[rows]))
        loss.backward()
        sgd.step()
        assert mine == pytest.approx(loss.item(), rel=1e-8)
    state = twin.state_dict()
    for name, t in model.state().items():
        np.testing.assert_allclose(t.data, state[name].numpy(), rtol=1e-8, atol=1e-8, err_msg=name)


def test_a_schedule_sets_the_learning_rate_of_every_step():
    images, labels = np.zeros((6, 1, 8, 8), np.float32), np.zeros(6, np.int64)
    asked, net = [], models.cifar(8, width=4, in_channels=1)
    before = {n: t.data for n, t in net.state().items() if t.requires_grad}
    events = list(train.fit(net, (images, labels), (images, labels), train.Recipe(epochs=2, batch_size=3),
                            rng=np.random.default_rng(0), schedule=lambda step: asked.append(step) or 0.0))
    assert asked == [0, 1, 2, 3] and len(events) == 6
    assert all(np.array_equal(before[n], net.state()[n].data) for n in before)  # lr 0 and not the recipe's 0.1


def test_weights_that_an_epochs_last_step_blew_up_are_reported():
    images, labels = np.random.default_rng(0).standard_normal((6, 1, 8, 8)).astype(np.float32), np.arange(6)
    with pytest.raises(train.NotFinite, match="step 1: the weights are not finite after this step"):
        list(train.fit(models.cifar(8, width=4, in_channels=1), (images, labels), (images, labels),
                       train.Recipe(epochs=1, batch_size=6, lr=1e39), rng=np.random.default_rng(0)))


@pytest.mark.parametrize("shape", [(6, 1), (5,), (6, 10)])
def test_labels_of_another_shape_are_refused(shape):
    images, labels = np.zeros((6, 1, 8, 8), np.float32), np.zeros(shape, np.int64)
    net = models.cifar(8, width=4, in_channels=1)
    with pytest.raises(ValueError, match="one label for each of 6 images"):
        next(train.fit(net, (images, labels), (images, labels), train.Recipe(), rng=np.random.default_rng(0)))
    with pytest.raises(ValueError, match="label"):
        train.error(net, images, labels)


def test_a_split_and_a_list_of_images_are_refused_with_what_to_give():
    split = datasets.Split(np.zeros((4, 8, 8), np.uint8), np.zeros(4, np.uint8), ("a", "b"))
    arrays = np.zeros((4, 1, 8, 8), np.float32), split.labels
    net = models.cifar(8, width=2, in_channels=1)
    with pytest.raises(TypeError, match=r"fit, train: .* got Split; .*give \(datasets.to_float\(split.images\), "):
        next(train.fit(net, split, arrays, train.Recipe(), rng=0))
    with pytest.raises(TypeError, match=r"fit, test: expected images as an array, got list; np\.stack makes one"):
        next(train.fit(net, arrays, (list(arrays[0]), arrays[1]), train.Recipe(), rng=0))
