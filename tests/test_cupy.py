"""Test the library on CuPy arrays without a GPU, with the stand-in of fake_cupy.py.

With the reference kernels and NumPy's memory order, the results have the same bits as those of NumPy. With CuPy's
order, and with kernels/cuda.py, they are equal up to the rounding of float32, and a training run has the same losses.
"""

import functools
import math
import sys
from pathlib import Path

import fake_cupy
import numpy as np
import pytest
from helpers import difference, normal, same_bits
from short import every

from minires import Tensor, analysis, device, gradcheck, init, kernels, nn, no_grad, ops, optim, tap, train
from minires.datasets import augment

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from gpu_parity import NETS, OPERATIONS

F4 = np.float32


@pytest.fixture(params=[("reference", "K"), ("reference", "C"), ("auto", "C")], ids=["same bits", "reference", "cuda"])
def how(request):
    """Install the stand-in and return (kernels, memory order)."""
    name, order = request.param
    if name == "auto" and fake_cupy.missing():
        pytest.skip(fake_cupy.missing())
    undo = fake_cupy.install(order)
    with kernels.using(name):
        yield request.param
    undo()


def data(*shape, seed=0, dtype=F4):
    return normal(*shape, seed=seed, dtype=dtype)


def here(a):
    return a.get() if device.on_gpu(a) else np.asarray(a)


def equal(got, expected, how, tolerance=3e-6):
    got, expected = here(got), np.asarray(expected)
    if how == ("reference", "K"):
        assert same_bits(got + 0, expected + 0)  # + 0, because the sign of a zero does not matter
    else:
        assert got.dtype == expected.dtype and difference(got, expected) < tolerance


# ------------------------------------------------------------------------------------- the stand-in itself


def test_the_list_of_names_is_the_installed_cupy_s():
    cupy = pytest.importorskip("cupy", reason="compared with CuPy, which is not installed")
    if cupy.__version__ != fake_cupy.NAMES["version"]:
        pytest.skip(f"the list is for CuPy {fake_cupy.NAMES['version']}, but CuPy {cupy.__version__} is installed")
    from cupy_names import collect
    assert collect() == fake_cupy.NAMES


def test_it_has_no_name_that_cupy_has_not(cp):
    for name in "errstate", "block", "insert", "no_such":
        with pytest.raises(AttributeError, match=rf"CuPy 14\.2\.\d: cupy has no attribute '{name}'"):
            getattr(cp, name)
    with pytest.raises(AttributeError, match="ndarray has no attribute 'writeable'"):
        _ = cp.zeros(2).writeable


def test_it_binds_calls_to_cupy_s_signatures(cp):
    x = cp.zeros((2, 3), F4)
    for wrong in (lambda: cp.clip(x, min=0), lambda: cp.var(x, correction=1), lambda: x.sum(where=x > 0),
                  lambda: cp.exp(x, where=x > 0), lambda: cp.sum(x, where=x > 0)):
        with pytest.raises(TypeError):
            wrong()


def test_it_refuses_numpy_arrays(cp):
    x, h = cp.zeros(3, F4), np.zeros(3, F4)
    for wrong in (lambda: x + h, lambda: h + x, lambda: cp.concatenate([x, h]), lambda: x[np.array([0])],
                  lambda: np.asarray(x), lambda: np.exp(x), lambda: cp.where(x > 0, h, x)):
        with pytest.raises(TypeError):
            wrong()
    assert same_bits(cp.asarray(h).get(), h)
    assert (np.float64(2) * x).dtype == np.float64 and (2.0 * x).dtype == F4  # both promote as NumPy 2 does


def test_it_counts_what_waits_for_the_device(cp):
    x = cp.asarray(data(4))
    x.sum(), x + x, x.astype(np.float64), x[1:], cp.concatenate([x, x])
    assert fake_cupy.State.syncs == 0
    for wait in (float, bool, int, lambda a: a.item(), lambda a: a.get(), str, "{:.3f}".format, lambda a: a.tolist()):
        before = fake_cupy.State.syncs
        wait(x.sum())
        assert fake_cupy.State.syncs == before + 1
    _ = x[x > 0]
    assert fake_cupy.State.syncs == before + 2


def test_its_results_are_arrays_in_c_order(cp):
    x = cp.asarray(data(2, 3))
    assert device.on_gpu(x.sum()) and x.sum().shape == () and device.on_gpu(x[0, 0])
    assert (x.T + x.T).flags.c_contiguous and not x.T.flags.c_contiguous
    assert np.isnan(cp.empty(5, F4).get()).all()


def test_its_indices_wrap_and_the_last_assignment_need_not_win(cp):
    x = cp.asarray(np.arange(5.0))
    assert x[cp.asarray(np.array([5, -1, 12]))].tolist() == [0, 4, 2]
    winners = set()
    for _ in range(30):
        y = cp.zeros(2)
        y[cp.asarray(np.array([1, 1]))] = cp.asarray(np.array([7.0, 8.0]))
        winners.add(y.tolist()[1])
    assert winners == {7.0, 8.0}


def test_a_captured_stream_computes_at_every_launch_and_refuses_to_wait(cp):
    x, total = cp.asarray(np.ones(3, F4)), cp.zeros((), F4)
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        y = x * 2
        total += y.sum()
        square = cp.zeros((2, 2))
        for wrong in (lambda: total.item(), lambda: cp.asarray(np.ones(3)), lambda: square @ square):
            with pytest.raises(RuntimeError, match=r"captur"):
                wrong()
        graph = stream.end_capture()
    assert total.item() == 0 and np.isnan(y.get()).all()
    graph.launch()
    x[...] = 10
    graph.launch(stream)
    assert total.item() == 6 + 60 and y.tolist() == [20, 20, 20]


# ---------------------------------------------------------------------------------------------- operations

def test_every_operation_is_among_these():
    from minires.tensor import Function
    tried = set()
    original = Function.apply.__func__
    for f, *shapes in OPERATIONS.values():
        def note(cls, *inputs, **options):
            tried.add(cls.__name__)
            return original(cls, *inputs, **options)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Function, "apply", classmethod(note))
            f(*(Tensor(data(*s, seed=i)) for i, s in enumerate(shapes)))
    assert {f.__name__ for f in vars(ops).values() if isinstance(f, type) and issubclass(f, Function)} - {"Function"} \
        == tried


@pytest.mark.parametrize("operation", OPERATIONS)
def test_operation_and_gradients(how, operation):
    f, *shapes = OPERATIONS[operation]
    arrays = [data(*s, seed=i) for i, s in enumerate(shapes)]
    results = []
    for where in "cpu", "gpu":
        with kernels.using("reference") if where == "cpu" else kernels.using(how[0]):
            tensors = [Tensor(a.copy(), True).to(where) for a in arrays]
            y = f(*tensors)
            fake_cupy.State.syncs = 0
            y.backward(device.of(y.data).asarray(data(*y.shape, seed=9)))
            assert fake_cupy.State.syncs == 0
            results.append([y.data, *(t.grad for t in tensors)])
    for expected, got in zip(*results, strict=True):
        assert device.on_gpu(got) and got.dtype == expected.dtype
        equal(got, expected, how, 2e-5)


def test_gradcheck_s_arrays_stay_on_the_cpu(how):
    gradcheck(lambda a, b: (a @ b).tanh(), data(2, 3, dtype=np.float64), data(3, 2, dtype=np.float64))


# -------------------------------------------------------------------------------------------------- models

def net(name, where="cpu"):
    return NETS[name][0](in_channels=2, width=4, rng=np.random.default_rng(0)).to(where)


def batch(where="cpu", n=6, size=8):
    rng = np.random.default_rng(1)
    images, labels = rng.standard_normal((n, 2, size, size)).astype(F4), rng.integers(0, 10, n)
    return device.to(images, where), device.to(labels, where)


@pytest.mark.parametrize("name", every(3, NETS))
def test_models_forward_backward_and_eval(how, name):
    """Gradients of a deep network accumulate rounding, so the tolerance is NumPy's own difference from float64."""
    results = []
    for where, dtype in ("cpu", F4), ("cpu", np.float64), ("gpu", F4):
        with kernels.using("reference" if where == "cpu" else how[0]):
            model, (images, labels) = net(name, where).astype(dtype), batch(where, size=NETS[name][1])
            images = images.astype(dtype)
            fake_cupy.State.syncs = 0
            loss = ops.cross_entropy(model(Tensor(images)), labels)
            loss.backward()
            with no_grad():
                logits = model.eval()(Tensor(images)).data
            assert fake_cupy.State.syncs == 0
            results.append([loss.data, logits, *(p.grad for p in model.parameters()),
                            *(t.data for t in model.state().values())])
    if how == ("reference", "K"):
        for expected, got in zip(results[0], results[2], strict=True):
            equal(got, expected, how)
    # All gradients are joined, because the gradient of a bias before a BatchNorm is 0 and thus only rounding.
    expected, exact, got = (np.concatenate([here(a).reshape(-1) for a in r]) for r in results)
    assert difference(got, expected) < max(1e-5, 10 * difference(expected, exact)) < 1e-2


def test_a_model_moves_there_and_back(cp):
    model, alike = net("residual"), net("residual")
    for t in model.to("gpu").state().values():
        assert device.on_gpu(t.data)
    assert model.count_parameters() == alike.count_parameters()
    assert model.macs((2, 8, 8)) == alike.macs((2, 8, 8))
    model.load_state({n: t.data for n, t in model.state().items()})
    model.to("cpu")
    assert all(same_bits(a.data, b.data) for a, b in zip(model.state().values(), alike.state().values(), strict=True))
    assert "array" not in repr(model)


# ------------------------------------------------------------------------------------------------ training


def run(where, name, epochs=2, **options):
    """Return (records, the final state) of a short run with momentum, decay, augmentation and a schedule."""
    model, (images, labels) = net(name, where), batch(where, n=20)
    recipe = train.Recipe(epochs=epochs, batch_size=8, lr=0.05)
    records = list(train.fit(model, (images, labels), (images[:9], labels[:9]), recipe, rng=np.random.default_rng(3),
                             augment=augment.crop_and_flip, schedule=optim.step_decay(0.05, [3]), **options))
    return records, [here(t.data) for t in model.state().values()]


@pytest.mark.parametrize("name", every(2, ["residual", "by hand", "pre-activation", "no norm"]))
def test_a_training_run_has_numpy_s_losses(how, name):
    with kernels.using("reference"):
        records, state = run("cpu", name)
    got, got_state = run("gpu", name)
    assert [type(r) for r in got] == [type(r) for r in records] and len(got) == 2 * 3 + 2
    for a, b in zip(got, records, strict=True):
        a, b = ([v for v in record if isinstance(v, (int, float))] for record in (a, b))
        assert a == (b if how == ("reference", "K") else pytest.approx(b, rel=1e-3))
    for a, b in zip(got_state, state, strict=True):
        equal(a, b, how, 2e-3)


@pytest.mark.parametrize("graph", [False, True])
def test_training_waits_for_the_device_once_for_each_record(how, graph, monkeypatch):
    """It waits for the loss of a Step, and for the errors and the check of the weights of an Epoch.

    The recording of a graph waits too.
    """
    if graph and how[0] == "reference":
        pytest.skip("CuPy's own matrix products cannot be recorded")
    model, (images, labels) = net("residual", "gpu"), batch("gpu", n=24)
    monkeypatch.setattr(device.Replay, "__init__", functools.partialmethod(device.Replay.__init__, warm_up=0))
    waits = []
    fake_cupy.State.syncs = 0
    for record in train.fit(model, (images, labels), (images[:9], labels[:9]), train.Recipe(epochs=2, batch_size=8),
                            rng=np.random.default_rng(3), augment=augment.crop_and_flip, graph=graph):
        waits.append((type(record), fake_cupy.State.syncs))
        fake_cupy.State.syncs = 0
    expected = ([(train.Step, 1)] * 3 + [(train.Epoch, 1)]) * 2
    if graph:
        expected[0] = (train.Step, 3)  # also waits for the inputs of the recording, and for its end
    assert waits == expected


def test_what_is_not_finite_is_named(how):
    model, (images, labels) = net("residual", "gpu"), batch("gpu")
    images[2, 0, 1, 1] = math.inf
    with pytest.raises(train.NotFinite, match="first non-finite values are in the input itself"):
        train.step(model, optim.SGD(model.parameters(), 0.1), images, labels)
    clean, labels = batch("gpu")
    model.layer2[0].conv1.weight.data[0] = math.nan
    with pytest.raises(train.NotFinite, match=r"output of layer 'layer2\.0\.conv1'"):
        train.step(model, optim.SGD(model.parameters(), 0.1), clean, labels)


@pytest.mark.parametrize("before", [1, 4])
def test_a_graphed_step_names_the_layer_and_changes_nothing(how, before):
    """Neither before nor after the recording does a step whose loss is not finite update the model."""
    if how[0] == "reference":
        pytest.skip("CuPy's own matrix products cannot be recorded")
    model, (images, labels) = net("residual", "gpu"), batch("gpu")
    optimizer = optim.SGD(model.parameters(), 0.1, 0.9)
    take = train.graphed_step(model, optimizer, len(images))
    for number in range(before):
        take(images, labels, number)
    model.layer2[0].conv1.weight.data[0] = math.inf  # in place, because the recording reads this array
    kept = [here(t.data) for t in model.state().values()] + [here(optimizer.velocity)]
    with pytest.raises(train.NotFinite, match=r"step 9: the loss is nan.* output of layer 'layer2\.0\.conv1' \(Conv"):
        take(images, labels, 9)
    for t, was in zip([*(t.data for t in model.state().values()), optimizer.velocity], kept, strict=True):
        assert same_bits(here(t), was)


def test_the_error_of_wrong_labels(how):
    images, _ = batch("gpu")
    with pytest.raises(ValueError, match=r"evaluate: expected labels in 0\.\.9, got 10"):
        train.error(net("residual", "gpu"), images, device.to(np.full(6, 10), "gpu"))


def test_sgd_follows_a_model_to_the_gpu_and_skips_what_has_no_gradient(how):
    states = []
    for moves in False, True:
        model, (images, labels) = net("residual"), batch()
        optimizer = optim.SGD(model.parameters(), np.float64(0.05), 0.9, 1e-3)
        with kernels.using("reference"):
            train.step(model, optimizer, images, labels)
        where = "gpu" if moves else "cpu"
        model.to(where)
        images, labels = batch(where)
        with kernels.using(how[0] if moves else "reference"):
            ops.cross_entropy(model(Tensor(images)), labels).backward()
            model.fc.bias.grad = None
            optimizer.step()
        states.append([here(t.data) for t in model.parameters()])
    for expected, got in zip(*states, strict=True):
        equal(got, expected, how, 1e-4)


# ------------------------------------------------------------------ augmentation, taps, analyses, initialisation


def test_augmentation_draws_the_same_on_both(how):
    images = data(7, 3, 9, 8)
    for change in augment.random_crop, augment.random_flip, augment.crop_and_flip:
        expected = change(images, rng=np.random.default_rng(5))
        got = change(device.to(images, "gpu"), rng=np.random.default_rng(5))
        assert same_bits(here(got), np.ascontiguousarray(expected))


def test_taps_and_analyses(how):
    results = []
    for where in "cpu", "gpu":
        with kernels.using("reference" if where == "cpu" else how[0]):
            model, (images, labels) = net("residual", where), batch(where)
            with tap.Tap(model, nn.BatchNorm2d, nn.Conv2d) as seen:
                ops.cross_entropy(model(Tensor(images)), labels).backward()
            flow = analysis.gradient_flow(model, images, labels)
            results.append({**seen.std, **{f"g {k}": v for k, v in seen.grad_norm.items()}, **{
                f"w {k}": v for k, v in flow.weights.items()}, **analysis.responses(model, images)})
    expected, got = results
    assert list(got) == list(expected) and all(type(v) is float for v in got.values())
    assert got == (expected if how == ("reference", "K") else pytest.approx(expected, rel=1e-4))


def test_starts_change_a_model_on_the_gpu_as_on_the_cpu(how):
    for change in init.zero_last_gamma, init.fixup:
        name = "fixup" if change is init.fixup else "residual"
        a, b = change(net(name)), change(net(name, "gpu"))
        for x, y in zip(a.state().values(), b.state().values(), strict=True):
            assert same_bits(here(y.data), x.data)


def test_tensors_print_and_move(how):
    x = Tensor(data(2, 2)).to("gpu")
    assert "float32" in repr(x) and x.numpy().shape == (2, 2) and isinstance(x.sum().item(), float)
    assert same_bits(x.to("cpu").data, data(2, 2))
    with pytest.raises(TypeError, match="all arrays must be on one device"):
        x + Tensor(data(2, 2))
