"""Code that is written wrong: each mistake is refused with a sentence, or does what was meant.

Docstrings say what happened before these were refused, in minires 0.1.
"""

import copy
import operator
import pickle

import numpy as np
import pytest
from helpers import normal, same_bits

from minires import Function, Tensor, detect_changes, nn, ops, optim, residual, tap

X = normal(4, 3)


def leaf(a):
    return Tensor(np.array(a, np.float64), True)


# -------------------------------------------------------------------------------------- Functions written wrong


def made(forward, backward=lambda g: g):
    class Made(Function):
        def forward(self, *arrays): return forward(*arrays)
        def backward(self, g): return backward(g)

    return Made


@pytest.mark.parametrize("result, says", [
    (None, "None (is its `return` missing?)"), ((1, 2), "a tuple of 2"), ([1.0], "a list of 1"), (2.0, "a float"),
    (Tensor([1.0]), "float32 for float64 inputs"),
])
def test_a_forward_that_returns_no_array_is_named(result, says):
    """Without a return the result was a NaN; a tuple or a list was stacked into a float32 array."""
    with pytest.raises(TypeError) as caught:
        made(lambda x: result).apply(leaf([1, 2]))
    assert str(caught.value).startswith("Made.forward returned ") and says in str(caught.value)


def test_a_backward_without_return_is_named():
    """No gradient came back, as if the input had none, and the layer was not trained."""
    with pytest.raises(TypeError, match=r"Made\.backward returned None \(is its `return` missing\?\); return \(None,\) "
                                        "for an input without a gradient"):
        made(lambda x: x * 1, lambda g: None).apply(leaf([1, 2])).sum().backward()
    x = leaf([1, 2])
    made(lambda x: x * 1, lambda g: (None,)).apply(x).sum().backward()  # meant so
    assert x.grad is None


@pytest.mark.parametrize("grads, says", [
    (lambda g: (g,), "returned 1 gradients for 2 inputs"), (lambda g: [g, g, g], "returned 3 gradients for 2 inputs"),
    (lambda g: g, "returned 1 gradients for 2 inputs"), (lambda g: (g, 1.0), "returned a float as a gradient"),
    (lambda g: (g, (g, g)), "returned a tuple of 2 as a gradient"),
    (lambda g: (g, Tensor(g)), "returned a Tensor as a gradient"),
])
def test_gradients_of_the_wrong_count_or_kind_are_named(grads, says):
    """A number as a gradient was an AttributeError without the Function's name."""
    a, b = leaf([1, 2]), leaf([3, 4])
    with pytest.raises(TypeError, match=r"^Made\.backward " + says):
        made(lambda a, b: a + b, grads).apply(a, b).sum().backward()


def test_gradients_in_a_list_are_as_good_as_in_a_tuple():
    a, b = leaf([1, 2]), leaf([3, 4])
    made(lambda a, b: a + 2 * b, lambda g: [g, 2 * g]).apply(a, b).sum().backward()
    assert b.grad.tolist() == [2, 2]


# ----------------------------------------------------------------------------------------- Tensors among arrays


def test_comparisons_are_element_by_element():
    """`tensor == array` was False, whatever the numbers."""
    x, a = leaf([1, 2, 3]), np.array([1.0, 0.0, 3.0])
    for found, expected in [(x == a, [1, 0, 1]), (a == x, [1, 0, 1]), (x == leaf(a), [1, 0, 1]), (x != a, [0, 1, 0]),
                            (x < 2, [1, 0, 0]), (x <= 2, [1, 1, 0]), (x > 2, [0, 0, 1]), (x >= 2, [0, 1, 1])]:
        assert isinstance(found, np.ndarray) and found.dtype == bool and found.tolist() == [bool(e) for e in expected]
    assert x[x > 1].data.tolist() == [2, 3]
    with pytest.raises(ValueError, match="ambiguous"):
        assert x == a
    assert {x: 1}[x] == 1 and len({x, leaf([1, 2, 3])}) == 2  # identity, in sets and dicts


@pytest.mark.parametrize("function", [np.sum, np.mean, np.max, np.reshape, np.concatenate, np.where, np.stack, np.dot])
def test_numpy_s_functions_are_refused_with_what_to_do(function):
    """np.sum: "sum() got an unexpected keyword argument 'out'"."""
    arguments = {np.reshape: (leaf(X), (12,)), np.concatenate: ([leaf(X)],), np.stack: ([leaf(X)],),
                 np.where: (X > 0, leaf(X), 0), np.dot: (leaf(X), X.T)}
    with pytest.raises(TypeError, match=rf"numpy\.{function.__name__} cannot take a Tensor; use minires\.ops or the "
                                        r"Tensor's own methods, which have gradients, or give it \.numpy\(\)"):
        function(*arguments.get(function, (leaf(X),)))


@pytest.mark.parametrize("refused", [
    lambda x: np.exp(x), lambda x: np.exp(x, out=np.zeros(2)), lambda x: np.add(np.ones(2), x), lambda x: np.add(x, 1),
    lambda x: np.maximum(x, 0), lambda x: np.add.reduce(x), lambda x: np.multiply.outer(np.ones(2), x)])
def test_ufuncs_say_what_to_write_instead(refused):
    """NumPy alone: "operand 'Tensor' does not support ufuncs (__array_ufunc__=None)"."""
    with pytest.raises(TypeError, match=r"use minires\.ops .* \(x\.exp\(\) or ops\.exp\(x\) for numpy\.exp\(x\)\)"):
        refused(leaf([1, 2]))


@pytest.mark.parametrize("left", [np.array([1.0, 2.0]), np.float64(2), np.float32(2), np.int64(2), np.array(2.0)],
                         ids=lambda left: f"{left.dtype}{left.shape}")
def test_numpy_on_the_left_of_an_operator(left):
    x = leaf([1, 2])
    for how in (operator.add, operator.sub, operator.mul, operator.truediv, operator.pow):
        y = how(left, x)
        assert isinstance(y, Tensor) and y.dtype == x.dtype
        assert np.allclose(y.data, how(np.float64(left), x.data))
    for how in (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne):
        assert how(left, x).tolist() == how(left, x.data).tolist()


def test_conversions_are_refused_or_right():
    x, one, a = leaf([1, 2]), leaf(3), np.zeros(2)
    for refused in (lambda: np.asarray(x), lambda: np.array([x, x]), lambda: a.__setitem__(slice(None), x),
                    lambda: Tensor([x, x]), lambda: Tensor([one, one]), lambda: a.__setitem__(x, 1)):
        with pytest.raises(TypeError, match=r"NumPy's functions cannot take a Tensor; use .* or give them x\.numpy"):
            refused()
    with pytest.raises(ValueError, match="sequence"):
        a[0] = x
    a[1] = one
    assert a.tolist() == [0, 3] and float(one) == 3
    total = a
    total += x  # like any other sum: a new Tensor
    assert isinstance(total, Tensor) and total.data.tolist() == [1, 5] and a.tolist() == [0, 3]
    one.data += one
    with pytest.raises(TypeError, match="data is a Tensor already"):
        one * 2


def test_iteration_and_truth():
    """A Tensor of no dimensions was an empty sequence."""
    assert [t.item() for t in leaf([1, 2])] == [1, 2] and 2.0 in leaf([1, 2]) and 5.0 not in leaf([1, 2])
    with pytest.raises(TypeError, match="unsized"):
        list(leaf(3))
    with pytest.raises(TypeError, match="truth value of a Tensor is ambiguous"):
        bool(leaf(3))


# ----------------------------------------------------------------------------------------------- unusual arrays


@pytest.mark.parametrize("code", ["f2", "f4", "f8"])
def test_foreign_byte_order_is_converted(code):
    """A big-endian array was taken as it was; kernels that read memory saw other numbers."""
    a = X.astype(">" + code)
    t = Tensor(a)
    assert t.dtype == np.dtype(code) and t.dtype.isnative and np.array_equal(t.data, a)
    assert Tensor(np.float64(2).astype(">f8")).dtype.isnative


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_subclasses_and_unaligned_arrays_are_converted():
    """np.matrix multiplied as a matrix under `*`."""
    t = Tensor(np.matrix([[1.0, 2.0], [3.0, 4.0]]), True)
    assert type(t.data) is np.ndarray and (t * t).data.tolist() == [[1, 4], [9, 16]]
    packed = np.zeros(3, np.dtype([("tag", "u1"), ("value", "f8")]))["value"]
    assert not packed.flags.aligned and Tensor(packed).data.flags.aligned
    held = np.arange(3.0)
    assert Tensor(held).data is held


class Foreign:
    dtype, shape = np.dtype("f4"), (2,)


@pytest.mark.parametrize("data, says", [
    (np.ma.masked_array([1.0, 2.0], [0, 1]), r"got MaskedArray; .*\.filled"),
    (np.zeros(2, np.longdouble), r"expected floating-point numbers, got float\d+|longdouble"),
    (Foreign(), "got Foreign; convert it with numpy.asarray"), (np.zeros(2, object), "got object"),
    (np.zeros(2, [("a", "f4")]), "expected floating-point"), (np.zeros(2, "M8[s]"), "got datetime64"),
], ids=["masked", "longdouble", "foreign", "object", "structured", "datetime"])
def test_other_arrays_are_refused_where_the_tensor_is_made(data, says):
    """A mask was dropped at the first operation, a long double failed inside a kernel."""
    if getattr(data, "dtype", None) == np.float64 and not hasattr(data, "mask"):
        pytest.skip("long doubles are doubles here")
    with pytest.raises(TypeError, match=says):
        Tensor(data)


# ------------------------------------------------------------------- what changes between forward and backward


def changed(f, *arguments):
    """Whether f(x, *arguments)'s gradient differs if the arguments change before backward."""
    grads = []
    for change in (False, True):
        x, given = leaf(X), copy.deepcopy(arguments)
        y = f(x, *given)
        for a in given if change else ():
            a[:] = a[::-1] if isinstance(a, list) else np.roll(a, 1)
        y.backward(normal(*y.shape, seed=1))
        grads.append(x.grad)
    return not np.array_equal(*grads)


@pytest.mark.parametrize("f, arguments", [
    (ops.cross_entropy, [np.array([0, 2, 1, 2])]), (ops.cross_entropy, [[0, 2, 1, 2]]),
    (lambda x, i: x[i], [np.array([0, 2, 0])]), (lambda x, i: x[i], [[0, 2, 3]]),
    (lambda x, i: x[i], [np.array([True, False, False, True])]), (lambda x, i, j: x[i, j], [np.array([0, 3]), [0, 2]]),
    (lambda x, m, v: ops.batch_norm_eval(x, Tensor(np.ones(3)), Tensor(np.ones(3)), m, v),
     [np.array([0.0, 1, 2]), np.array([1.0, 2, 3])]),
    (lambda x, w: ops.pad(x, w), [[[1, 0], [0, 2]]]), (lambda x, axes: x.transpose(axes), [[1, 0]]),
], ids=["labels", "list of labels", "index", "list", "mask", "two indices", "statistics", "widths", "axes"])
def test_arguments_that_the_caller_changes_do_not_change_the_gradient(f, arguments):
    """Labels and index arrays were kept, not copied: a buffer for the next batch changed this one's gradient."""
    assert not changed(f, *arguments)


def test_leaf_arrays_that_are_changed_in_place_are_found_while_debugging():
    """An update in place between forward and backward changed the gradient without a word. Still so, and documented:
    detect_changes finds it."""
    w, x = leaf([1, 2]), leaf([3, 4])
    (w * x).sum().backward()  # as it should be
    right = w.grad
    w.grad = None
    y = (w * x).sum()
    x.data *= 2
    y.backward()
    assert not np.array_equal(w.grad, right)
    with detect_changes():
        y = (w * x).sum()
    x.data *= 2
    with pytest.raises(RuntimeError, match=r"Mul\(float64\(2,\), float64\(2,\)\): self\.b was changed in place between "
                                           "the forward and the backward pass"):
        y.backward()
    with detect_changes():
        net = nn.Sequential(nn.Conv2d(1, 2, 3, rng=np.random.default_rng(0)), nn.BatchNorm2d(2), nn.ReLU(),
                            nn.GlobalAvgPool2d(), nn.Linear(2, 3, rng=np.random.default_rng(1)))
        optimizer = optim.SGD(net.parameters(), 0.1)
        for _ in range(2):
            loss = ops.cross_entropy(net(Tensor(normal(4, 1, 5, 5, dtype=np.float32))), np.array([0, 1, 2, 1]))
            loss.backward()  # no false alarm, also after an update
            optimizer.step()
    y = (w * x).sum()
    x.data *= 2
    y.backward()  # outside again


def test_adding_does_not_save_anything_so_a_change_is_no_fault():
    x = leaf([1, 2])
    with detect_changes():
        y = (x + 1).sum()
    x.data *= 2
    y.backward()
    assert x.grad.tolist() == [1, 1]


# ------------------------------------------------------------------------------------------------------ float16


LABELS = np.arange(5) % 3
IMAGE, WEIGHT, C = normal(2, 3, 6, 5), normal(4, 3, 3, 2, seed=1), normal(3, seed=2)
BLOCK = [normal(2, 3, 4, 4), normal(3, 3, 3, 3, seed=1), C, C, normal(3, 3, 3, 3, seed=3), C, C]
HALF = {  # a case for every operation: (function, arrays)
    ops.Add: (lambda a, b: a + b, [X, X[0]]), ops.Sub: (lambda a, b: a - b, [X, X[0]]),
    ops.Mul: (lambda a, b: a * b, [X, X[0]]), ops.Div: (lambda a, b: a / b, [X, X[0]]), ops.Neg: (lambda a: -a, [X]),
    ops.Pow: (lambda a: a ** 3, [X]), ops.Exp: (ops.exp, [X]), ops.Log: (ops.log, [abs(X) + 1]),
    ops.Sqrt: (ops.sqrt, [abs(X) + 1]), ops.Tanh: (ops.tanh, [X]), ops.Sigmoid: (ops.sigmoid, [X]),
    ops.Relu: (ops.relu, [X]), ops.Abs: (ops.abs, [X]), ops.Maximum: (ops.maximum, [X, X[::-1].copy()]),
    ops.Power: (lambda a, b: a ** b, [abs(X) + 1, X]), ops.Clip: (lambda a: a.clip(-0.5, 0.5), [X]),
    ops.Where: (lambda a, b: ops.where(X > 0, a, b), [X, X[0]]), ops.LeakyRelu: (ops.leaky_relu, [X]),
    ops.Gelu: (ops.gelu, [X]), ops.Std: (lambda a: a.std(0) * 1000.0, [normal(70000, 1)]),
    ops.AsType: (lambda a: a.astype(a.dtype), [X]), ops.MatMul: (lambda a, b: a @ b, [X, X.T.copy()]),
    ops.Linear: (ops.linear, [X, normal(2, 3), normal(2)]), ops.Sum: (lambda a: a.sum(0), [normal(3000, 2)]),
    ops.Mean: (lambda a: a.mean(0) * 1000.0, [np.ones((70000, 1))]),
    ops.Var: (lambda a: a.var(0) * 1000.0, [normal(70000, 1)]),
    ops.Max: (lambda a: a.max(0), [X]), ops.Reshape: (lambda a: a.reshape(12), [X]),
    ops.Transpose: (ops.transpose, [X]), ops.GetItem: (lambda a: a[np.zeros(3000, int)], [X]),
    ops.Concatenate: (lambda a, b: ops.concatenate([a, b]), [X, X]),
    ops.Pad: (lambda a: ops.pad(a, ((1, 0), (0, 1))), [X]),
    ops.BroadcastTo: (lambda a: ops.broadcast_to(a, (3000, 4, 3)), [X]),
    ops.Conv2d: (lambda x, w: ops.conv2d(x, w, stride=2, padding=1), [IMAGE, WEIGHT]),
    ops.MaxPool2d: (lambda x: ops.max_pool2d(x, 3, 2, 1), [IMAGE]),
    ops.AvgPool2d: (lambda x: ops.avg_pool2d(x, 260) * 1000.0, [normal(1, 1, 260, 260)]),
    ops.AdaptiveAvgPool2d: (lambda x: ops.adaptive_avg_pool2d(x, (2, 1)) * 1000.0, [normal(1, 1, 260, 260)]),
    ops.SubsampleAndPad: (lambda x: ops.subsample_and_pad(x, 2, 7), [IMAGE]),
    ops.BatchNorm: (lambda x, g, b: ops.batch_norm(x, g, b)[0], [normal(70000, 3), C, C]),
    ops.BatchNormRelu: (lambda x, g, b: ops.batch_norm_relu(x, g, b)[0], [normal(70000, 3), C, C]),
    ops.BatchNormEval: (lambda x, g, b: ops.batch_norm_eval(x, g, b, C.astype(x.dtype), abs(C).astype(x.dtype)),
                        [normal(70000, 3), C, C]),
    ops.Dropout: (lambda x: ops.dropout(x, 0.5, rng=np.random.default_rng(0)), [X]),
    ops.LogSoftmax: (lambda x: ops.log_softmax(x, 0), [normal(70000, 1)]),
    ops.Softmax: (lambda x: ops.softmax(x, 0) * 1000.0, [normal(3000, 1)]),
    ops.CrossEntropy: (lambda z: ops.cross_entropy(z * 1.0, np.arange(70000) % 3) * 1000.0, [normal(70000, 3)]),
    residual.Residual: (lambda *t: residual.Residual.apply(*t, stride=1, pad="both", eps=[1e-5] * 2, stats=[]), BLOCK),
    residual.PreactResidual: (lambda x, w, g, b, v, h, c: residual.PreactResidual.apply(
        x, g, b, w, h, c, v, stride=1, pad="both", eps=[1e-5] * 2, stats=[], split_after_activation=False), BLOCK),
}


@pytest.mark.parametrize("operation", HALF, ids=lambda o: o.__name__)
def test_float16_is_right_for_every_operation(operation):
    """Sums, means and variances over more than 65,504 numbers divided by infinity: the mean of 70,000 ones had the
    gradient 0.0 instead of 1.43e-5."""
    f, arrays = HALF[operation]
    arrays = [a.astype(np.float16).astype(np.float64) for a in arrays]
    results = []
    for dtype in (np.float64, np.float16):
        tensors = [Tensor(a.astype(dtype), True) for a in arrays]
        y = f(*tensors)
        y.backward(normal(*y.shape, seed=3).astype(np.float16).astype(dtype))
        assert y.dtype == dtype and all(t.grad.dtype == dtype for t in tensors)
        results.append([y.data, *(t.grad for t in tensors)])
    for exact, half in zip(*results, strict=True):
        assert np.linalg.norm(half.astype(np.float64) - exact) <= 4e-3 * np.linalg.norm(exact)


def test_every_operation_has_its_case_in_float16():
    operations = {f for module in (ops, residual) for f in vars(module).values()
                  if isinstance(f, type) and issubclass(f, Function) and f is not Function}
    assert operations == set(HALF)


def test_a_mean_of_70_000_float16_ones():
    x = Tensor(np.ones(70_000, np.float16), True)
    x.mean().backward()
    assert x.mean().item() == 1 and x.grad[0] == np.float16(1 / 70_000) > 0
    with pytest.warns(RuntimeWarning, match="overflow encountered in cast"):
        assert x.sum().item() == np.inf  # 70,000 is too large for float16


def test_float16_modules():
    bn = nn.BatchNorm1d(3).astype(np.float16)
    x = Tensor(normal(70_000, 3, dtype=np.float16), True)
    y = bn(x)
    assert y.dtype == bn.running_mean.dtype == bn.running_var.dtype == np.float16
    assert abs(bn.running_var.data - 1).max() < 0.01
    with tap.Tap(bn) as seen:
        (bn.eval()(x) * 0.1).sum().backward()
    assert abs(seen.std[""] - 1) < 0.02 and abs(seen.grad_norm[""] - 2_100 ** 0.5) < 0.1


# -------------------------------------------------------------------------------------------- copies and pickles


@pytest.mark.parametrize("again", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
def test_an_optimiser_is_copied_with_its_model(again):
    """"cannot pickle 'module' object"."""
    def steps(net, optimizer, count, first=0):
        for i in range(first, first + count):
            optimizer.zero_grad()
            ops.cross_entropy(net(Tensor(normal(5, 3, seed=i, dtype=np.float32))), LABELS).backward()
            optimizer.step()

    net = nn.Linear(3, 3, rng=np.random.default_rng(0))
    optimizer = optim.SGD(net.parameters(), 0.1, 0.9, 1e-3)
    steps(net, optimizer, 3)
    net.bias.data = net.bias.data + 1  # replaced since the last step
    other, its = again((net, optimizer))
    assert its.parameters[0] is other.weight and np.shares_memory(other.weight.data, its.flat)
    steps(net, optimizer, 3, first=3)
    before = other.weight.data.copy()
    assert not np.array_equal(before, net.weight.data)  # independent
    steps(other, its, 3, first=3)
    assert same_bits(other.weight.data, net.weight.data) and same_bits(other.bias.data, net.bias.data)
    assert same_bits(its.velocity, optimizer.velocity)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_tensor_inside_a_graph_is_not_copied(again):
    """deepcopy copied the whole graph, silently; its gradients reached copies of the leaves."""
    with pytest.raises(TypeError, match=r"part of a graph, which cannot be copied or pickled; take \.detach\(\)"):
        again(leaf([1, 2]) * 2)
    x = leaf([1, 2])
    (x * 2).sum().backward()
    twin = pickle.loads(pickle.dumps(x))
    assert twin.requires_grad and twin.data.tolist() == [1, 2] and twin.grad.tolist() == [2, 2]
    assert copy.deepcopy((x * 2).detach()).data.tolist() == [2, 4]
