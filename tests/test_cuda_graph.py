"""Test that the recorded training step gives the same bits as the ordinary step, on the CPU and on the stand-in for
CuPy, whose captured streams compute nothing until the graph is launched."""

import fake_cupy
import numpy as np
import pytest
from helpers import same_bits
from short import every

from minires import device, kernels, models, nn, optim, train
from minires.cuda_graph import GraphedStep
from minires.datasets.augment import crop_and_flip

F4 = np.float32
NETS = {"residual": {}, "by hand": {"by_hand": True}, "option B": {"shortcut": "B"},
        "pre-activation": {"block": "preact"}, "plain, no norm": {"residual": False, "norm": "none"}}


@pytest.fixture(params=["cpu", "gpu"])
def where(request):
    if request.param == "gpu":
        request.getfixturevalue("gpu")
    return request.param


@pytest.fixture
def gpu(gpu_kernels, cp):
    return cp


def make(where, **options):
    model = models.cifar(8, in_channels=2, width=4, rng=np.random.default_rng(0), **options).to(where)
    return model, optim.SGD(model.parameters(), 0.05, 0.9, 1e-3)


def batches(where, count, n=6):
    rng = np.random.default_rng(1)
    for _ in range(count):
        yield (device.to(rng.standard_normal((n, 2, 8, 8)).astype(F4), where),
               device.to(rng.integers(0, 10, n), where))


def here(a):
    return a.get() if device.on_gpu(a) else np.array(a)


def state(model, optimizer):
    return [here(t.data) for t in model.state().values()] + [here(optimizer.velocity)]


@pytest.mark.parametrize("name", every(4, NETS))
def test_losses_and_weights_are_those_of_the_ordinary_step(where, name):
    model, optimizer = make(where, **NETS[name])
    expected = []
    for i, (images, labels) in enumerate(batches(where, 7)):
        optimizer.lr = 0.05 / (i + 1)
        expected.append(train.step(model, optimizer, images, labels))

    graphed, its = make(where, **NETS[name])
    step = GraphedStep(graphed, its, *next(batches(where, 1)))
    losses = []
    for i, (images, labels) in enumerate(batches(where, 7)):
        its.lr = 0.05 / (i + 1)
        losses.append(step(images, labels))
    assert [float(v) for v in losses] == expected and its.lr == 0.05 / 7
    assert len(set(expected)) == 7
    for a, b in zip(state(graphed, its), state(model, optimizer), strict=True):
        assert same_bits(a, b)


def test_a_replay_is_one_launch_and_never_waits(gpu):
    model, optimizer = make("gpu")
    step = GraphedStep(model, optimizer, *next(batches("gpu", 1)))
    for number, (images, labels) in enumerate(batches("gpu", 6)):
        fake_cupy.State.syncs = fake_cupy.State.launches = 0
        step(images, labels)
        if number > 2:  # after two warm-up runs and the recording
            # the copies of images and labels, the learning rate, the graph, the copy of the loss
            assert (fake_cupy.State.syncs, fake_cupy.State.launches) == (0, 5)
    assert step.replay.graph is not None and len(step.replay.graph.tape) > 50


def test_a_smaller_batch_between_two_recorded_ones(where):
    model, optimizer = make(where)
    graphed, its = make(where)
    step = GraphedStep(graphed, its, *next(batches(where, 1)))
    for i, ((images, labels), (few, their)) in enumerate(zip(batches(where, 6), batches(where, 6, n=3), strict=True)):
        x, y = (few, their) if i in (1, 4) else (images, labels)
        assert float(step(x, y)) == train.step(model, optimizer, x, y)
    assert all(same_bits(a, b) for a, b in zip(state(graphed, its), state(model, optimizer), strict=True))


def test_weights_that_are_loaded_in_between_are_used(where):
    model, optimizer = make(where)
    graphed, its = make(where)
    step = GraphedStep(graphed, its, *next(batches(where, 1)))
    other = {n: here(t.data) for n, t in models.cifar(8, in_channels=2, width=4, rng=np.random.default_rng(7))
             .state().items()}
    for i, (images, labels) in enumerate(batches(where, 6)):
        if i == 4:
            for m in model, graphed:
                m.load_state({n: device.to(a, where) for n, a in other.items()})
        assert float(step(images, labels)) == train.step(model, optimizer, images, labels)
    assert all(same_bits(a, b) for a, b in zip(state(graphed, its), state(model, optimizer), strict=True))


def test_evaluation_in_between_sees_the_current_weights_and_changes_nothing(where):
    model, optimizer = make(where)
    graphed, its = make(where)
    step = GraphedStep(graphed, its, *next(batches(where, 1)))
    test = next(batches(where, 1, n=5))
    for images, labels in batches(where, 5):
        assert float(step(images, labels)) == train.step(model, optimizer, images, labels)
        assert train.error(graphed, *test) == train.error(model, *test)


def test_another_momentum_records_again(where):
    model, optimizer = make(where)
    graphed, its = make(where)
    step = GraphedStep(graphed, its, *next(batches(where, 1)))
    for i, (images, labels) in enumerate(batches(where, 8)):
        if i == 4:
            optimizer.momentum = its.momentum = 0.5
        assert float(step(images, labels)) == train.step(model, optimizer, images, labels)


def test_with_the_augmentation_on_the_device(gpu):
    """Test a whole training loop: data set and augmentation on the device, followed by the graph."""
    images, labels = next(batches("gpu", 1, n=12))
    losses = []
    for graphed in False, True:
        model, optimizer = make("gpu")
        rng, found = np.random.default_rng(5), []
        step = GraphedStep(model, optimizer, images[:6], labels[:6]) if graphed else None
        for i in range(6):
            rows = device.to(rng.permutation(12)[:6], "gpu")
            batch = crop_and_flip(images[rows], rng=rng), labels[rows]
            found.append(step(*batch) if step else train.step(model, optimizer, *batch, i))
        losses.append([float(v) for v in found])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("size", [(7, 5), (2, 8), (3, 3)])
def test_adaptive_pooling_at_any_size(where, size):
    losses = []
    for graphed in False, True:
        rng = np.random.default_rng(0)
        model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, rng=rng), nn.AdaptiveAvgPool2d(3), nn.Flatten(),
                              nn.Linear(36, 10, rng=rng)).to(where)
        images = device.to(rng.standard_normal((6, 2, *size)).astype(F4), where)
        labels, optimizer = device.to(rng.integers(0, 10, 6), where), optim.SGD(model.parameters(), 0.05, 0.9)
        step = GraphedStep(model, optimizer, images, labels) if graphed else None
        losses.append([float(step(images, labels)) if step else train.step(model, optimizer, images, labels)
                       for _ in range(6)])
    assert losses[0] == losses[1] and len(set(losses[0])) == 6


def test_what_cannot_be_recorded_raises_and_leaves_the_model_as_it_was(gpu):
    model, optimizer = make("gpu")
    step = GraphedStep(model, optimizer, *next(batches("gpu", 1)))
    for i, (images, labels) in enumerate(batches("gpu", 3)):
        if i < 2:
            step(images, labels)
        else:
            before = state(model, optimizer)
            with nn.watched(lambda module, *_: float(module.weight.data[0, 0]) if module is model.fc else None), \
                    pytest.raises(RuntimeError, match="waiting for the device is not permitted while a stream capt"):
                step(images, labels)
            assert fake_cupy.State.tape is None and optimizer.lr == 0.05
            assert all(same_bits(a, b) for a, b in zip(before, state(model, optimizer), strict=True))


def test_without_cublas_a_product_of_cupy_s_cannot_be_recorded(gpu, monkeypatch):
    from minires.kernels import cublas
    monkeypatch.setattr(cublas, "_open", lambda xp: None)  # private: as if the library were not installed
    model, optimizer = make("gpu")
    step = GraphedStep(model, optimizer, *next(batches("gpu", 1)))
    data = list(batches("gpu", 3))
    step(*data[0]), step(*data[1])
    with pytest.raises(RuntimeError, match="cuBLAS API during stream capture"):
        step(*data[2])


def test_bad_input(where):
    model, optimizer = make(where)
    images, labels = next(batches(where, 1))
    with pytest.raises(ValueError, match=r"GraphedStep: expected float32 images and a label for each, got fl"):
        GraphedStep(model, optimizer, images, labels[:3])
    with pytest.raises(ValueError, match=r"GraphedStep: expected float32 images"):
        GraphedStep(model, optimizer, images.astype(np.float64), labels)
    model.drop = nn.Dropout(0.2, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="GraphedStep: drop is Dropout, whose masks are drawn on the host"):
        GraphedStep(model, optimizer, images, labels)


def test_mixed_devices_are_named(gpu):
    model, optimizer = make("gpu")
    with pytest.raises(TypeError, match="GraphedStep: all arrays must be on one device"):
        GraphedStep(model, optimizer, *next(batches("cpu", 1)))


def test_replay_on_the_cpu_is_the_function():
    calls = []
    replay = device.Replay(lambda: calls.append(1), np.zeros(1))
    for _ in range(4):
        replay()
    assert len(calls) == 4


def test_replay_warms_up_records_and_launches(gpu):
    x, calls = device.to(np.zeros(2, F4), "gpu"), []

    def f():
        calls.append(1)
        x[...] = x + 1

    replay = device.Replay(f, x)
    for n in range(1, 6):
        replay()
        assert x.tolist() == [n, n] and len(calls) == min(n, 3)
    with kernels.using("reference"):
        replay()
    assert x.tolist() == [6, 6]
