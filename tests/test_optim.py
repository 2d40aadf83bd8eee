"""Test SGD and schedules against PyTorch, against numbers computed by hand, and at the step numbers of the paper."""

import math

import numpy as np
import pytest
from helpers import difference, needs_torch, normal, same_bits, torch
from short import every

from minires import Tensor, nn, optim
from minires.optim import SGD


def parameter(*values, dtype=np.float64):
    return Tensor(np.array(values, dtype), True)


@needs_torch
@pytest.mark.parametrize("momentum, weight_decay", every(3, [(0, 0), (0, 1e-2), (0.9, 0), (0.9, 1e-2)]))
def test_twenty_steps_as_pytorch(momentum, weight_decay):
    ours = [Tensor(normal(3, 4), True), Tensor(normal(5, seed=1), True)]
    theirs = [torch.tensor(p.data, requires_grad=True) for p in ours]
    a = SGD(ours, 0.1, momentum, weight_decay)
    b = torch.optim.SGD(theirs, lr=0.1, momentum=momentum, weight_decay=weight_decay)
    for step in range(20):
        a.lr = b.param_groups[0]["lr"] = 0.1 if step < 10 else 0.01  # a change of lr acts at once
        for p, q in zip(ours, theirs, strict=True):
            p.grad = np.sin(p.data) + normal(*p.shape, seed=100 + step)
            q.grad = torch.tensor(p.grad)
        a.step()
        b.step()
        for p, q in zip(ours, theirs, strict=True):
            assert difference(p.data, q.detach().numpy()) < 1e-13


def test_two_steps_by_hand():
    p = parameter(1.0)
    sgd = SGD([p], lr=0.5, momentum=0.5, weight_decay=0.1)
    p.grad = np.array([2.0])
    sgd.step()  # v = 2 + 0.1 = 2.1; w = 1 - 1.05
    np.testing.assert_allclose(p.data, [-0.05], rtol=1e-14)
    sgd.step()  # v = 1.05 + 2 - 0.005 = 3.045; w = -0.05 - 1.5225
    np.testing.assert_allclose(p.data, [-1.5725], rtol=1e-14)


def test_arrays_are_replaced_not_overwritten():
    p, q = parameter(1.0, 2.0), parameter(3.0)
    sgd = SGD([p, q], 0.1, 0.9, 1e-4)
    for _ in range(3):
        p.grad, q.grad = np.array([0.5, -1.0]), np.array([2.0])
        held = [p.data, q.data, p.grad, q.grad, sgd.velocity]
        copies = [a.copy() for a in held]
        sgd.step()
        assert all(same_bits(a, c) for a, c in zip(held, copies, strict=True))
        assert not any(np.shares_memory(new, old) for new in (p.data, q.data, sgd.velocity) for old in held)
        assert not np.shares_memory(p.data, q.data)


def test_weights_that_were_loaded_in_between_are_used():
    p, q = parameter(1.0), parameter(2.0, 3.0)
    sgd = SGD([p, q], 0.5)
    p.data = np.array([10.0])
    p.grad, q.grad = np.array([2.0]), np.array([4.0, 6.0])
    sgd.step()
    assert p.data.tolist() == [9.0] and q.data.tolist() == [0.0, 0.0]
    q.data[0] = 5.0  # in place too
    sgd.step()
    assert p.data.tolist() == [8.0] and q.data.tolist() == [3.0, -3.0]


def test_a_parameter_that_rests_keeps_its_velocity():
    p, q = parameter(1.0), parameter(1.0)
    sgd = SGD([p, q], 1.0, 0.5)
    for gp, gq in [(2.0, 2.0), (None, 0.0), (0.0, 0.0)]:  # velocities of p: 2, 2 (no gradient), 1; of q: 2, 1, 0.5
        p.grad, q.grad = (None if g is None else np.array([g]) for g in (gp, gq))
        sgd.step()
    assert p.data.tolist() == [1 - 2 - 1] and q.data.tolist() == [1 - 2 - 1 - 0.5]


def test_layouts_in_memory_make_no_difference():
    a = np.arange(6.0).reshape(2, 3)
    p = Tensor(np.asfortranarray(a), True)
    p.grad = np.asfortranarray(10 * a)
    SGD([p], 0.1).step()
    np.testing.assert_allclose(p.data, a - a, atol=1e-15)


def test_a_graph_from_before_the_step_keeps_the_old_weights():
    w, x = parameter(3.0), parameter(2.0)
    y = w * x
    w.grad = np.array([1.0])
    SGD([w], 1.0).step()
    y.backward()
    assert w.data.tolist() == [2.0] and x.grad.tolist() == [3.0]


def test_a_parameter_without_a_gradient_stays():
    p, q = parameter(1.0), parameter(2.0)
    sgd = SGD([p, q], 0.1, 0.9, 0.1)
    p.grad = np.array([1.0])
    before = q.data
    sgd.step()
    assert np.array_equal(q.data, before) and p.data.tolist() != [1.0]
    sgd.zero_grad()
    assert p.grad is None and q.grad is None


@pytest.mark.parametrize("option", ["lr", "momentum", "weight_decay"])
@pytest.mark.parametrize("number", [np.float64, np.float32])
def test_numpy_options_promote_nothing(option, number):
    p = parameter(1.0, 2.0, dtype=np.float32)
    sgd = SGD([p], **{"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, option: number(0.01)})
    for _ in range(3):
        p.grad = np.ones(2, np.float32)
        sgd.step()
        assert p.data.dtype == sgd.velocity.dtype == np.float32
        setattr(sgd, option, number(0.02))  # as a schedule does


def test_a_scalar_parameter_stays_an_array():  # NumPy turns sums of 0-d arrays into scalars
    p = Tensor(np.array(1.0), True)
    sgd = SGD([p], 0.1, 0.9, 0.1)
    for _ in range(2):
        p.grad = np.array(1.0)
        sgd.step()
        assert isinstance(p.data, np.ndarray) and p.shape == ()


@pytest.mark.parametrize("options, message", [
    ({"lr": -1}, "SGD: expected lr >= 0, got -1"), ({"lr": float("nan")}, "SGD: expected lr >= 0, got nan"),
    ({"lr": 1, "momentum": -0.9}, "expected momentum >= 0, got -0.9"),
    ({"lr": 1, "weight_decay": -1e-4}, "expected weight_decay >= 0, got -0.0001"),
    ({"lr": math.inf}, "expected lr >= 0 and finite, got inf"), ({"lr": math.nan}, "expected lr >= 0, got nan")])
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SGD([parameter(1.0)], **options)


@pytest.mark.parametrize("make", [lambda p: SGD(p, 0.1), lambda p: optim.Adam(p), lambda p: optim.Group(p),
                                  lambda p: optim.decay_matrices_only(p), lambda p: optim.clip_gradients(p, 1.0)])
def test_one_tensor_is_not_a_list_of_parameters(make):
    """Its rows are new Tensors, so nothing would be trained, and no norm limited."""
    p = Tensor(np.ones((2, 3)), True)
    p.grad = np.full((2, 3), 9.0)
    with pytest.raises(TypeError, match=r"expected a list of Tensors, such as net\.fc\.parameters.*, got Tensor"):
        make(p)


def test_the_result_of_an_operation_is_not_a_parameter():
    with pytest.raises(ValueError, match="SGD: expected parameters, got the result of an operation, Mul; an update"):
        SGD([parameter(1.0) * 2], 0.1)


@pytest.mark.parametrize("grad", [[1.0], 1.0, Tensor(np.ones(1))], ids=lambda grad: type(grad).__name__)
def test_a_gradient_that_is_no_array_is_refused(grad):
    p = parameter(1.0)
    sgd, p.grad = SGD([p], 0.1), grad
    with pytest.raises(TypeError, match="SGD: parameter 0: expected an array as gradient, got"):
        sgd.step()


def test_parameters_of_two_dtypes_are_refused():
    with pytest.raises(ValueError, match="SGD: expected parameters of one dtype, got float32, float64"):
        SGD([parameter(1.0), parameter(1.0, dtype=np.float32)], 0.1)


def test_an_optimiser_needs_parameters():
    with pytest.raises(ValueError, match="SGD: expected at least one parameter, got none"):
        SGD([], 0.1)


# ---------------------------------------------------------------------------------------------- schedules


def test_the_schedule_of_the_paper():  # He et al. 2015, section 4.2: 0.1, divided by 10 at 32k and 48k
    schedule = optim.step_decay(0.1, (32_000, 48_000))
    assert schedule(0) == schedule(31_999) == 0.1
    for step, lr in [(32_000, 0.01), (47_999, 0.01), (48_000, 0.001), (63_999, 0.001)]:
        assert schedule(step) == pytest.approx(lr, rel=1e-12)


def test_the_warm_up_of_the_paper():  # 110 layers: 0.01 for about 400 iterations, then the usual schedule
    schedule = optim.warm_up(optim.step_decay(0.1, (32_000, 48_000)), 400, 0.01)
    assert [schedule(s) for s in (0, 399, 400, 31_999)] == [0.01, 0.01, 0.1, 0.1]
    assert schedule(32_000) == pytest.approx(0.01, rel=1e-12)


def test_constant():
    assert {optim.constant(0.3)(s) for s in (0, 1, 10_000)} == {0.3}


@pytest.mark.parametrize("grad", [np.ones((3, 2)), np.ones((2, 3), np.float32)])
def test_a_gradient_of_another_shape_or_dtype_is_refused(grad):
    p = Tensor(np.zeros((2, 3)), True)
    sgd, p.grad = SGD([p], 0.1), grad
    with pytest.raises(ValueError, match=r"parameter 0: expected a float64\(2, 3\) gradient"):
        sgd.step()


@pytest.mark.parametrize("given, got", [("fc", "str"), (nn.Linear(2, 2, rng=np.random.default_rng(0)), "Linear"),
                                        ([np.zeros(2)], "a ndarray in it"), (iter([]), "list_iterator")])
def test_a_group_of_something_else_than_tensors_is_refused(given, got):
    with pytest.raises(TypeError, match=rf"Group: expected a list of Tensors, such as .*, got {got}$"):
        optim.Group(given)


@pytest.mark.parametrize("shape", [(4, 3), (3, 2)])
def test_a_parameter_of_another_shape_than_before_is_refused_and_nothing_is_changed(shape):
    w, b = (Tensor(np.arange(n, dtype=np.float32).reshape(-1, 3), True) for n in (6, 3))
    sgd = SGD([w, b], 0.1)
    w.data = np.ones(shape, np.float32)
    b.grad = np.ones((1, 3), np.float32)
    with pytest.raises(ValueError, match=r"parameter 0: expected shape \(2, 3\), as when the optimiser was made, got"):
        sgd.step()
    assert w.shape == shape and (w.data == 1).all() and (b.data == np.arange(3)).all()
