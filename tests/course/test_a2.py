"""The solution of assignment a2 against other ways: gradcheck, minires' operations, PyTorch, and explicit matrices."""
import numpy as np
import pytest

from minires import Function, Tensor, gradcheck, ops
from minires.course import solution, tasks_a2
from minires.course.task import tasks

A2 = solution.plain_space("a2")
THEIRS = {  # minires' operations
    "Add": lambda a, b: a + b, "Sub": lambda a, b: a - b, "Mul": lambda a, b: a * b, "Div": lambda a, b: a / b,
    "Maximum": ops.maximum, "MatMul": ops.matmul, "Sum": ops.sum, "Mean": ops.mean, "Max": ops.max,
    "Reshape": lambda x, shape: x.reshape(shape), "Transpose": lambda x, axes: x.transpose(*axes),
    "GetItem": lambda x, index: x[index], "CrossEntropy": lambda z, labels: ops.cross_entropy(z, labels)}


def split(case):
    """(arrays, options, dy) of a case."""
    inputs = dict(case.inputs)
    dy = inputs.pop("dy")
    arrays = {name: inputs.pop(name) for name in ("a", "b", "x", "z") if name in inputs}
    return arrays, inputs, dy


def cases_of(operation):
    """The cases of an operation in float64, visible and hidden."""
    found = [case for task in list(tasks("a2").values())[1:] for half in ("visible", "hidden")
             for case in task.cases(half, 3) if task.driver_of(case) == operation]
    assert len(found) >= 7
    return found


def gradients(apply, arrays, options, dy):
    """(y, gradients) in the real engine."""
    leaves = [Tensor(array.copy(), True) for array in arrays.values()]
    y = apply(*leaves, **options)
    y.backward(np.asarray(dy))
    return [y.numpy(), *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("operation", THEIRS)
def test_the_functions_in_the_real_engine_are_minires_operations(operation):
    assert issubclass(A2[operation], Function)
    for case in cases_of(operation):
        arrays, options, dy = split(case)
        mine = gradients(A2[operation].apply, arrays, options, dy)
        theirs = gradients(THEIRS[operation], arrays, options, dy)
        for got, expected in zip(mine, theirs, strict=True):
            assert got.shape == expected.shape and got.dtype == expected.dtype
            np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-13, err_msg=case.label)


GRADCHECKED = {
    "Add": [((2, 1, 3), (4, 1))], "Sub": [((3,), (2, 3)), ((), (2,))], "Mul": [((2, 3), (2, 1)), ((2, 3, 4), (3, 1))],
    "Div": [((3, 1), (1, 4))], "Maximum": [((3, 1), (1, 4))], "MatMul": [((5, 1, 3, 4), (2, 4, 6)), ((3, 4), (4, 2))]}


@pytest.mark.parametrize("operation, shapes", [(name, pair) for name, pairs in GRADCHECKED.items() for pair in pairs])
def test_functions_of_two_arrays_pass_gradcheck(operation, shapes):
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal(shapes[0]), rng.uniform(0.5, 2, shapes[1])
    gradcheck(A2[operation].apply, a, b, entries=20)


@pytest.mark.parametrize("operation, options", [
    *((name, {"axis": axis, "keepdims": keep}) for name in ("Sum", "Mean", "Max")
      for axis, keep in ((None, False), ((0, 2), False), (-2, True))),
    ("Reshape", {"shape": (4, 6)}), ("Transpose", {"axes": (1, 2, 0)}), ("GetItem", {"index": np.array([1, 0, 1])})])
def test_functions_of_one_array_pass_gradcheck(operation, options):
    x = np.random.default_rng(1).standard_normal((2, 3, 4))
    gradcheck(lambda t: A2[operation].apply(t, **options), x)


def test_cross_entropy_passes_gradcheck_and_has_the_closed_form():
    z, labels = np.random.default_rng(1).standard_normal((5, 4)), np.array([0, 3, 1, 3, 2])
    gradcheck(lambda t: A2["CrossEntropy"].apply(t, labels=labels), z)
    got = A2["CrossEntropy"].apply(Tensor(np.array([[0.0, 0.0, np.log(2)]])), labels=np.array([2])).item()
    assert abs(got - np.log(2)) < 1e-15


@pytest.mark.parametrize("operation", sorted({*THEIRS} - {"GetItem", "Maximum", "Max"}))  # PyTorch splits ties
def test_the_functions_are_those_of_pytorch(operation):
    torch = pytest.importorskip("torch")
    reduce = lambda f: lambda x, axis, keepdims: f(x, dim=axis if axis is not None else tuple(range(x.ndim)),
                                                   keepdim=keepdims)
    way = {"Sum": reduce(torch.sum), "Mean": reduce(torch.mean), "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul,
           "Div": torch.div, "MatMul": torch.matmul, "Reshape": torch.reshape,
           "Transpose": lambda x, axes: x.permute(axes),
           "CrossEntropy": lambda z, labels: torch.nn.functional.cross_entropy(z, torch.tensor(labels))}
    for case in cases_of(operation):
        arrays, options, dy = split(case)
        leaves = [torch.tensor(array, requires_grad=True) for array in arrays.values()]
        y = way[operation](*leaves, **options)
        y.backward(torch.tensor(dy.copy()))
        mine = gradients(A2[operation].apply, arrays, options, dy)
        for got, expected in zip(mine, [y.detach(), *(leaf.grad for leaf in leaves)], strict=True):
            np.testing.assert_allclose(got, expected.numpy(), rtol=1e-10, atol=1e-12, err_msg=case.label)


def test_unbroadcast_is_the_transpose_of_broadcasting():
    rng = np.random.default_rng(0)
    for case in [*tasks_a2.sums_visible(rng), *tasks_a2.sums_hidden(rng)]:
        g, shape = case.inputs["g"].astype(np.float64), case.inputs["shape"]
        size = int(np.prod(shape))
        B = np.stack([np.broadcast_to(e.reshape(shape), g.shape).ravel() for e in np.eye(size)], axis=1)
        got = A2["unbroadcast"](g, shape)
        assert got.shape == shape
        np.testing.assert_allclose(np.ravel(got), B.T @ g.ravel(), rtol=1e-12, atol=1e-12)


def backward(operation, g, *arrays, **options):
    """The gradients, as the text's examples state them."""
    f = A2[operation]()
    f.forward(*map(np.asarray, arrays), **options)
    return f.backward(np.asarray(g))


def test_the_examples_in_the_text():
    g = np.array([[1.0, 2, 3], [4, 5, 6]])
    for shape, expected in ((3,), [5, 7, 9]), ((1, 3), [[5, 7, 9]]), ((2, 1), [[6], [15]]), ((), 21), ((2, 3), g):
        np.testing.assert_array_equal(A2["unbroadcast"](g, shape), expected)
    da, db = backward("Div", [1.0, 10.0], [3.0, 1.0], 2.0)
    assert da.tolist() == [0.5, 5] and db == -3.25
    da, db = backward("Maximum", [1.0, 10.0], [3.0, 1.0], 2.0)
    assert da.tolist() == [1, 0] and db == 10
    x = [[1.0, 3, 3], [5, 5, 2]]
    assert backward("Max", [1.0, 10.0], x, axis=1, keepdims=False).tolist() == [[0, 1, 0], [10, 0, 0]]
    assert backward("Max", 1.0, x, axis=None, keepdims=False).tolist() == [[0, 0, 0], [1, 0, 0]]
    assert np.argsort((1, 2, 0)).tolist() == [2, 0, 1]
    assert backward("GetItem", [1.0, 10, 100], np.zeros(4), index=[0, 2, 0]).tolist() == [101, 0, 10, 0]
    np.testing.assert_allclose(backward("CrossEntropy", 1.0, [[0, 0, np.log(2)]], labels=np.array([2])),
                               [[0.25, 0.25, -0.5]], atol=1e-15)


def test_the_helpers_of_2_4_are_inverse_to_each_other():
    x = np.random.default_rng(1).standard_normal((2, 3, 4, 5))
    for axis in None, 1, (0, 2), (-1, 0):
        axes = A2["axes_of"](axis, 4)
        rows = A2["to_rows"](x, axes)
        np.testing.assert_array_equal(rows.max(-1), x.max(axes))
        np.testing.assert_array_equal(A2["from_rows"](rows, x.shape, axes), x)


@pytest.mark.parametrize("penalty, start, factor", [(0.005, 0.0, 1), (0.0, 1.0, 1), (0.005, 1.0, (1 - 5e-4) ** 4)])
def test_the_model_answer_about_the_sum_of_the_pictures(penalty, start, factor):
    rng = np.random.default_rng(1)
    x, labels = rng.standard_normal((40, 784)).astype(np.float32), rng.integers(0, 10, 40)
    w = Tensor(start * rng.standard_normal((784, 10)).astype(np.float32), True)
    b, before = Tensor(np.zeros(10, np.float32), True), w.numpy().sum(1)
    A2["train"](x, labels, w, b, 4, rng, lr=0.05, penalty=penalty, batch=40)
    assert abs(w.numpy()).max() > 1e-3
    np.testing.assert_allclose(w.numpy().sum(1), factor * before, atol=2e-5)
