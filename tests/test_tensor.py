"""Test the engine: Tensors, graphs and the reverse sweep. The expected values are derivatives computed by hand."""

import gc
import threading

import numpy as np
import pytest
from helpers import normal, read_only

from minires import Function, Tensor, no_grad, ops
from minires.tensor import unbroadcast


def leaf(*values):
    """Return a float64 leaf that requires a gradient: a vector, or a scalar for a single value."""
    return Tensor(np.array(values if len(values) > 1 else values[0], np.float64), True)


# ---------------------------------------------------------------------------------- construction


@pytest.mark.parametrize("data", [3, 2.5, True, [1, 2], [[1.0, 2.0], [3.0, 4.0]], (1, 2, 3)])
def test_numbers_become_float32(data):
    x = Tensor(data)
    assert x.dtype == np.float32 and x.data.tolist() == np.array(data, float).tolist()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_float_array_is_kept_as_it_is(dtype):
    a = np.arange(6, dtype=dtype).reshape(2, 3)
    x = Tensor(a)
    assert x.data is a and x.numpy() is a
    assert (x.shape, x.dtype, x.ndim, x.size, len(x)) == ((2, 3), dtype, 2, 6, 2)
    assert Tensor(dtype(2)).data.shape == () and Tensor(dtype(2)).dtype == dtype  # a NumPy scalar too


@pytest.mark.parametrize("data", [np.arange(3), np.array([True]), np.array([1j]), np.array(["a"]), np.int64(3)])
def test_other_arrays_are_refused(data):
    with pytest.raises(TypeError, match=rf"Tensor\(data\): expected floating-point numbers, got {data.dtype}\("):
        Tensor(data)


def test_a_tensor_of_a_tensor_is_refused():
    with pytest.raises(TypeError, match="is a Tensor already"):
        Tensor(Tensor([1.0]))


@pytest.mark.parametrize("combine", [lambda a, b: a + b, lambda a, b: a * b, ops.maximum, lambda a, b: a @ b,
                                     lambda a, b: ops.concatenate([a, b])])
def test_mixed_dtypes_are_refused_by_name(combine):
    a, b = Tensor(np.ones((2, 2), np.float32)), Tensor(np.ones((2, 2)))
    with pytest.raises(TypeError, match=r"^(Add|Mul|Maximum|MatMul|Concatenate): all inputs must have one dtype, got "
                                        r"float32\(2, 2\), float64\(2, 2\); convert with \.astype\(\) first"):
        combine(a, b)
    assert combine(a.astype(np.float64), b).dtype == np.float64


def test_an_array_on_the_left_asks_the_tensor():
    a, x = np.array([1.0, 2.0]), leaf(3.0, 4.0)
    for y, expected in [(a + x, [4, 6]), (a - x, [-2, -2]), (a * x, [3, 8]), (a / x, [1 / 3, 1 / 2])]:
        assert isinstance(y, Tensor) and y.data.tolist() == expected


def test_repr():
    x = Tensor(np.array([1.0, 2.5]), True)
    assert repr(x) == "Tensor([1.  2.5], float64, requires_grad)"
    assert repr(x * 2) == "Tensor([2. 5.], float64, by Mul)"
    assert repr(x.detach()) == "Tensor([1.  2.5], float64)"
    assert len(repr(Tensor(np.zeros((100, 100))))) < 400
    y = (x * 2).sum()
    y.backward()
    repr(y)  # a consumed graph can still be printed


def test_item_detach_bool_and_iteration():
    x = leaf(1.0, 2.0)
    assert x[1].item() == 2.0 and type(x[1].item()) is float
    assert Tensor(np.array([[3.0]])).item() == 3.0
    assert x.detach().data is x.data and not x.detach().requires_grad
    assert [t.item() for t in x] == [1.0, 2.0]
    with pytest.raises(ValueError, match=r"item\(\): expected one element, got shape \(2,\)"):
        x.item()
    with pytest.raises(TypeError, match="the truth value of a Tensor is ambiguous"):
        bool(x)


# ---------------------------------------------------------------------------------------- graphs


def square_plus(x):  # x^2 + 3x, a diamond in the graph
    return x * x + x * 3


GRAPHS = {  # name: (function, its derivative)
    "leaf": (lambda x: x, lambda x: 1),
    "chain": (lambda x: (x * 2).exp().log() * 3, lambda x: 6),
    "x + x": (lambda x: x + x, lambda x: 2),
    "x * x": (lambda x: x * x, lambda x: 2 * x),
    "x - x": (lambda x: x - x, lambda x: 0),
    "diamond": (square_plus, lambda x: 2 * x + 3),
    "diamond on a non-leaf": (lambda x: square_plus(x * 2), lambda x: 2 * (2 * (2 * x) + 3)),
    "uneven branches": (lambda x: (lambda h: h + ((h * h) * h) * 2)(x * 3), lambda x: 3 * (1 + 6 * (3 * x) ** 2)),
    "uneven, long branch first": (lambda x: (lambda h: ((h * h) * h) * 2 + h)(x * 3),
                                  lambda x: 3 * (1 + 6 * (3 * x) ** 2)),
    "two stacked skips": (lambda x: (lambda h: h + h * h)((lambda h: h + h * h)(x * 2)),
                          lambda x: 2 * (1 + 2 * (2 * x)) * (1 + 2 * (2 * x + 4 * x * x))),
    "two stacked skips, branch first": (lambda x: (lambda h: h * h + h)((lambda h: h * h + h)(x * 2)),
                                        lambda x: 2 * (1 + 2 * (2 * x)) * (1 + 2 * (2 * x + 4 * x * x))),
    "skip over a skip": (lambda x: (lambda h: h + (lambda k: k + k * k)(h * 2))(x * x),
                         lambda x: 2 * x * (1 + 2 * (1 + 2 * (2 * x * x)))),
    "used at three depths": (lambda x: (lambda h: h * h.exp() + h)(x * x),
                             lambda x: 2 * x * (np.exp(x * x) * (1 + x * x) + 1)),
    "used again at the end": (lambda x: ((x * x) * x) * x, lambda x: 4 * x ** 3),
}


@pytest.mark.parametrize("f, df", GRAPHS.values(), ids=GRAPHS)
def test_graphs(f, df):
    x = leaf(0.7, -1.3)
    g = np.array([0.6, -2.0])
    f(x).backward(g)
    np.testing.assert_allclose(x.grad, g * df(x.data), rtol=1e-14)


def test_many_stacked_skips_add_up_exactly():  # each h -> h + h doubles, so the result is 2^30, exact in integers
    x = h = leaf(1.0, 3.0)
    for _ in range(30):
        h = h + h
    h.backward(np.array([1.0, -1.0]))
    assert x.grad.tolist() == [2.0 ** 30, -2.0 ** 30]


@pytest.mark.parametrize("length", [5_000, 20_000])
def test_a_long_chain(length):
    x = h = leaf(1.0, 2.0)
    for _ in range(length):
        h = h + 1.0
    h.backward(np.array([2.0, 5.0]))
    assert h.data.tolist() == [1.0 + length, 2.0 + length] and x.grad.tolist() == [2.0, 5.0]


@pytest.mark.parametrize("length", [5_000, 20_000])
def test_a_long_graph_can_be_dropped_without_backward(length):
    x = h = leaf(1.0)
    for _ in range(length):
        h = -h
    del h
    assert x.grad is None


def test_the_graph_leaves_no_cycles(no_collector):
    x = leaf(1.0, 2.0)
    for keep in (True, False):
        y = square_plus(x * 2).sum()
        if keep:
            y.backward()
        del y
    assert gc.collect() == 0


def test_two_losses_in_one_backward_and_in_two():
    x = leaf(2.0)
    (x * x + x * 5).backward()
    once = x.grad.copy()
    x.grad = None
    (x * x).backward()
    (x * 5).backward()
    assert once == x.grad == 9.0


@pytest.mark.parametrize("build", [lambda x: x, lambda x: x * x, lambda x: x + x], ids=["leaf", "x * x", "x + x"])
def test_the_gradient_of_a_scalar_leaf_is_an_array(build):  # NumPy turns sums of 0-d arrays into scalars
    x = leaf(3.0)
    for _ in range(2):
        build(x).backward()
        assert isinstance(x.grad, np.ndarray) and x.grad.shape == () and x.grad.dtype == np.float64


# ------------------------------------------------------------------------------- accumulation, memory


def test_gradients_accumulate_over_backward_calls():
    x = leaf(1.0, 2.0)
    (x * 3).backward(np.array([1.0, 1.0]))
    first = x.grad
    (x * x).backward(np.array([1.0, 10.0]))
    assert x.grad.tolist() == [3 + 2, 3 + 40]
    assert first.tolist() == [3, 3]  # a reference to the first gradient still sees the first gradient


@pytest.mark.parametrize("f", [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: ops.concatenate([a, b]).sum(),
                               lambda a, b: (a + b).reshape(6), lambda a, b: (a + b).sum(0), lambda a, b: (a + b).T])
def test_gradients_share_no_memory(f):
    a, b = Tensor(read_only(normal(2, 3)), True), Tensor(read_only(normal(2, 3, seed=1)), True)
    y = f(a, b)
    g = read_only(normal(*y.shape))
    y.backward(g)
    arrays = [a.grad, b.grad, g, a.data, b.data]
    assert not any(np.shares_memory(p, q) for i, p in enumerate(arrays) for q in arrays[:i])
    before = b.grad.copy()
    a.grad += 1  # NumPy would refuse if this were a view of the read-only g
    assert (b.grad == before).all()


def test_a_leaf_used_as_the_root_copies_the_gradient():
    x, g = leaf(1.0, 2.0), np.array([1.0, 2.0])
    x.backward(g)
    assert x.grad.tolist() == [1, 2] and not np.shares_memory(x.grad, g)


# ------------------------------------------------------------------------------------ backward(g)


def test_a_scalar_starts_from_one_and_anything_else_from_g():
    x = leaf(1.0, 2.0)
    (x * x).sum().backward()
    assert x.grad.tolist() == [2, 4]
    y = Tensor(np.array([[3.0]]), True)
    (y * 2).backward()  # one element is enough, in any shape
    assert y.grad.tolist() == [[2.0]]
    with pytest.raises(ValueError, match=r"backward\(\): expected a scalar, got shape \(2,\); reduce it with "):
        (x * x).backward()


@pytest.mark.parametrize("g, given", [
    (np.ones(3), r"float64\(3,\)"), (np.ones((1, 2)), r"float64\(1, 2\)"), (np.float64(1), r"float64\(\)"),
    (np.ones(2, np.float32), r"float32\(2,\)"), (np.ones(2, int), r"int64\(2,\)"), ([1.0, 1.0], r"\[1\.0, 1\.0\]"),
    (1.0, r"1\.0")])
def test_g_is_checked(g, given):
    x = leaf(1.0, 2.0)
    with pytest.raises(ValueError, match=rf"backward\(g\): expected a float64\(2,\) array, got {given}"):
        (x * 2).backward(g)
    assert x.grad is None


def test_nothing_to_differentiate():
    for y in (Tensor([1.0]), Tensor([1.0]) * 2):
        with pytest.raises(RuntimeError, match=r"backward\(\): nothing to differentiate"):
            y.backward()


# --------------------------------------------------------------------------------- backward twice


def test_backward_twice_is_refused():
    x = leaf(1.0, 2.0)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match=r"already consumed by an earlier backward\(\); run the forward pass again, "
                                           r"or add the losses"):
        y.backward()
    assert x.grad.tolist() == [2, 4]


def test_a_consumed_subgraph_is_found_before_anything_is_accumulated():
    x, w = leaf(1.0, 2.0), leaf(5.0, 6.0)
    h = x * x
    first, second = (h * 2).sum(), (h * w + w).sum()
    first.backward()
    with pytest.raises(RuntimeError, match="already consumed"):
        second.backward()
    assert x.grad.tolist() == [4, 8] and w.grad is None


def test_a_detached_part_can_be_used_again():
    x = leaf(1.0, 2.0)
    h = x * x
    h.sum().backward()
    (h.detach() * x).sum().backward()
    assert x.grad.tolist() == [2 + 1, 4 + 4]


# ----------------------------------------------------------------------------- retain_grad, on_grad


def test_retain_grad():
    x = leaf(1.0, 2.0)
    h = (x * 3).retain_grad()
    k = h * h
    k.sum().backward()
    assert h.grad.tolist() == [6, 12] and k.grad is None and x.grad.tolist() == [18, 36]
    assert not np.shares_memory(h.grad, x.grad)


def test_on_grad_sees_the_whole_gradient_once():
    x = leaf(1.0, 2.0)
    h = x * 3
    seen = []
    h.on_grad(lambda g: seen.append(g.tolist()))
    h.on_grad(lambda g: seen.append("second"))
    x.on_grad(lambda g: seen.append("leaf"))
    (h * h + h).sum().backward()
    assert seen == [[7, 13], "second", "leaf"]


# ------------------------------------------------------------------------------- no_grad, requires_grad


def test_no_grad_records_nothing_and_ends_even_with_an_exception():
    x = leaf(1.0)
    with no_grad():
        y = x * 2
        with no_grad():
            pass
        assert not (x * 2).requires_grad  # the inner one does not end the outer one
    assert not y.requires_grad and y.creator is None and (x * 2).requires_grad

    def fails():
        with no_grad():
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        fails()
    assert (x * 2).requires_grad


def test_no_grad_as_a_decorator():
    @no_grad()
    def f(x):
        return x * 2

    x = leaf(1.0)
    assert not f(x).requires_grad and not f(x).requires_grad and (x * 2).requires_grad


def test_no_grad_holds_in_its_own_thread_only():
    x, found = leaf(1.0), []
    with no_grad():
        thread = threading.Thread(target=lambda: found.append((x * 2).requires_grad))
        thread.start()
        thread.join()
        assert not (x * 2).requires_grad
    assert found == [True]


def test_branches_that_want_no_gradient_get_none():
    x, c = leaf(1.0, 2.0), Tensor(np.array([3.0, 4.0]))
    d = c * c
    y = x * d + c
    assert d.creator is None and y.requires_grad
    y.sum().backward()
    assert x.grad.tolist() == [9, 16] and c.grad is None and d.grad is None


def test_a_function_that_returns_none_stops_the_gradient():
    class Stop(Function):
        def forward(self, x): return x * 1
        def backward(self, g): return (None,)

    x = leaf(1.0, 2.0)
    (Stop.apply(x * 2) + x).sum().backward()
    assert x.grad.tolist() == [1, 1]


def test_needs_tells_which_gradients_are_wanted():
    seen = []

    class Look(Function):
        def forward(self, a, b): return a + b

        def backward(self, g):
            seen.append(self.needs)
            return g, None

    x, c = leaf(1.0), Tensor(np.array(2.0))
    Look.apply(x, c).backward()
    assert seen == [(True, False)]


# ------------------------------------------------------------------------ the engine checks every op


@pytest.mark.parametrize("wrong, message", [
    (lambda g: g[:1], r"Wrong\.backward returned a float64\(1,\) gradient for a float64\(2,\) input"),
    (lambda g: g[None], r"Wrong\.backward returned a float64\(1, 2\) gradient for a float64\(2,\) input"),
    (lambda g: g.astype(np.float32), r"Wrong\.backward returned a float32\(2,\) gradient for a float64\(2,\) input"),
    (lambda g: g.sum(), r"Wrong\.backward returned a float64\(\) gradient for a float64\(2,\) input"),
    (lambda g: (g, g), r"Wrong\.backward returned 2 gradients for 1 inputs"),
    (lambda g: (), r"Wrong\.backward returned 0 gradients for 1 inputs")])
def test_a_wrong_backward_is_named(wrong, message):
    class Wrong(Function):
        def forward(self, x): return x * 2
        def backward(self, g): return wrong(g)

    x = leaf(1.0, 2.0)
    with pytest.raises(TypeError, match=message):
        Wrong.apply(x).backward(np.ones(2))
    assert x.grad is None


def test_a_wrong_broadcasting_backward_is_named():
    class Wrong(Function):
        broadcasts = True
        def forward(self, a, b): return a + b
        def backward(self, g): return g, g.astype(np.float32)

    with pytest.raises(TypeError, match=r"Wrong\.backward returned a float32\(2,\) gradient for a float64\(2,\)"):
        Wrong.apply(Tensor(np.ones((3, 2))), leaf(1.0, 2.0)).sum().backward()


def test_a_forward_that_fails_is_named():
    class Picky(Function):
        def forward(self, x): raise ValueError("too small")

    with pytest.raises(ValueError, match=r"^Picky\(float64\(2,\)\): too small"):
        Picky.apply(leaf(1.0, 2.0))


@pytest.mark.parametrize("apply", [ops.relu, ops.exp, lambda a: ops.log_softmax(a), lambda a: ops.sum(a)])
def test_an_array_where_a_tensor_is_expected_is_named(apply):
    with pytest.raises(TypeError, match=r"(Relu|Exp|LogSoftmax|Sum): expected .*Tensor.*ndarray"):
        apply(np.ones((2, 2)))


# ----------------------------------------------------------------------------------- unbroadcast


@pytest.mark.parametrize("shape, big", [
    ((), (2, 3)), ((1,), (2, 3)), ((3,), (2, 3)), ((1, 3), (2, 3)), ((2, 1), (2, 3)), ((1, 1), (2, 3)),
    ((2, 3), (2, 3)), ((1, 3, 1), (4, 2, 3, 5)), ((2, 1, 5), (4, 2, 3, 5)), ((1, 2, 3, 1), (4, 2, 3, 5)),
    ((1,), (1,)), ((1, 1), (1, 4))])
def test_unbroadcast_is_the_transpose_of_broadcasting(shape, big):
    rng = np.random.default_rng(0)  # <broadcast(x), g> == <x, unbroadcast(g)>, exactly, in integers
    x, g = rng.integers(-9, 10, shape).astype(float), rng.integers(-9, 10, big).astype(float)
    back = unbroadcast(g, shape)
    assert back.shape == shape
    assert (np.broadcast_to(x, big) * g).sum() == (x * back).sum()
