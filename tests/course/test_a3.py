"""The solution of assignment a3 against other ways: plain loops, minires' kernels, PyTorch, and gradcheck."""
import numpy as np
import pytest

from minires import Function, gradcheck
from minires.course import solution, tasks_a3
from minires.kernels import reference

GEOMETRIES = [*tasks_a3.VISIBLE, *tasks_a3.HIDDEN[:4]]
A3 = solution.plain_space("a3")


def normal(*shape, seed=0):
    return np.random.default_rng([7, seed]).standard_normal(shape)


def conv_arguments(geometry):
    (H, W), kernel, stride, padding = geometry
    return normal(2, 3, H, W), normal(4, 3, *kernel, seed=1), normal(4, seed=2), stride, padding


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_windows_are_those_of_a_plain_loop(geometry):
    (H, W), (kh, kw), (sh, sw), (ph, pw) = geometry
    x = normal(2, 3, H, W)
    padded = np.zeros((2, 3, H + 2 * ph, W + 2 * pw))
    padded[:, :, ph:ph + H, pw:pw + W] = x
    windows = [padded[n, :, top:top + kh, left:left + kw].ravel() for n in range(2)
               for top in range(0, H + 2 * ph - kh + 1, sh) for left in range(0, W + 2 * pw - kw + 1, sw)]
    cols = A3["im2col"](x, *geometry[1:])
    np.testing.assert_array_equal(cols, np.transpose(windows))
    np.testing.assert_array_equal(cols, reference.im2col(x, *geometry[1:]))
    Ho, Wo = A3["output_size"](*geometry)
    assert Ho * Wo * 2 == len(windows) and (Ho, Wo) == reference.output_size(*geometry)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_scatter_is_the_transpose(geometry):
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 10, (2, 3, *geometry[0]))
    cols = A3["im2col"](x, *geometry[1:])
    D = rng.integers(-9, 10, cols.shape)
    back = A3["col2im"](D, x.shape, *geometry[1:])
    assert (cols * D).sum() == (x * back).sum()
    np.testing.assert_array_equal(back, reference.col2im(D, x.shape, *geometry[1:]))


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_convolution_is_that_of_the_loops_and_of_minires(geometry):
    x, w, b, stride, padding = conv_arguments(geometry)
    y, cache = A3["conv2d_forward"](x, w, b, stride, padding)
    np.testing.assert_allclose(y, A3["convolution_by_loops"](x, w, b, stride, padding), atol=1e-12)
    np.testing.assert_allclose(y, reference.conv2d(x, w, stride, padding) + b.reshape(1, -1, 1, 1), atol=1e-12)
    dy = normal(*y.shape, seed=3)
    dx, dw, db = A3["conv2d_backward"](dy, cache)
    for mine, expected in zip((dx, dw), reference.conv2d_backward(dy, x, w, stride, padding), strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-12)
    np.testing.assert_allclose(db, dy.sum((0, 2, 3)), atol=1e-12)


@pytest.mark.parametrize("geometry", tasks_a3.VISIBLE)
def test_the_gradients_of_the_convolution_pass_gradcheck(geometry):
    x, w, b, stride, padding = conv_arguments(geometry)

    class Convolution(Function):
        def forward(self, x, w, b):
            y, self.cache = A3["conv2d_forward"](x, w, b, stride, padding)
            return y

        def backward(self, g):
            return A3["conv2d_backward"](g, self.cache)

    gradcheck(Convolution.apply, x, w, b)


@pytest.mark.parametrize("geometry", [*tasks_a3.POOL_VISIBLE, *tasks_a3.POOL_HIDDEN])
@pytest.mark.parametrize("drawn", [tasks_a3.pooled, tasks_a3.tied])
def test_pooling_is_that_of_minires(geometry, drawn):
    inputs = drawn(np.random.default_rng(1), geometry, 0)
    dy, (x, *window) = inputs.pop("dy"), inputs.values()
    y, cache = A3["max_pool_forward"](x, *window)
    expected, winner = reference.max_pool2d(x, *window)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_allclose(A3["max_pool_backward"](dy, cache),
                               reference.max_pool2d_backward(dy, winner, x.shape, *window), atol=1e-12)
    y, cache = A3["avg_pool_forward"](x, *window)
    np.testing.assert_allclose(y, reference.avg_pool2d(x, *window), atol=1e-12)
    np.testing.assert_allclose(A3["avg_pool_backward"](dy, cache),
                               reference.avg_pool2d_backward(dy, x.shape, *window), atol=1e-12)


@pytest.mark.parametrize("geometry", [tasks_a3.VISIBLE[0], tasks_a3.VISIBLE[1]])
def test_all_of_it_agrees_with_pytorch(geometry):
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    x, w, b, stride, padding = conv_arguments(geometry)
    tensors = [torch.from_numpy(a).requires_grad_() for a in (x, w, b)]
    out = F.conv2d(*tensors, stride=stride, padding=padding)
    y, cache = A3["conv2d_forward"](x, w, b, stride, padding)
    np.testing.assert_allclose(y, out.detach().numpy(), atol=1e-12)
    dy = normal(*y.shape, seed=3)
    out.backward(torch.from_numpy(dy))
    for mine, tensor in zip(A3["conv2d_backward"](dy, cache), tensors, strict=True):
        np.testing.assert_allclose(mine, tensor.grad.numpy(), atol=1e-12)
    for name, theirs in ("max_pool", F.max_pool2d), ("avg_pool", F.avg_pool2d):
        leaf = torch.from_numpy(x).requires_grad_()
        out = theirs(leaf, geometry[1], stride, padding)
        y, cache = A3[f"{name}_forward"](x, *geometry[1:])
        np.testing.assert_allclose(y, out.detach().numpy(), atol=1e-12)
        dy = normal(*y.shape, seed=4)
        out.backward(torch.from_numpy(dy))
        np.testing.assert_allclose(A3[f"{name}_backward"](dy, cache), leaf.grad.numpy(), atol=1e-12)


def test_the_examples_in_the_prose():
    assert A3["output_size"]((6, 8), (3, 3), (2, 2), (1, 1)) == (3, 4)
    x = np.arange(12.0).reshape(1, 1, 3, 4)
    window = (2, 2), (1, 2), (0, 0)
    X = A3["im2col"](x, *window)
    assert X.tolist() == [[0, 2, 4, 6], [1, 3, 5, 7], [4, 6, 8, 10], [5, 7, 9, 11]]
    assert A3["col2im"](X, x.shape, *window)[0, 0].tolist() == [[0, 1, 2, 3], [8, 10, 12, 14], [8, 9, 10, 11]]
    dy = np.array([10.0, 20, 40]).reshape(1, 1, 1, 3)
    y, cache = A3["max_pool_forward"](np.array([1.0, 3, 3, 2]).reshape(1, 1, 1, 4), (1, 2), (1, 1), (0, 0))
    assert y.ravel().tolist() == [3, 3, 3] and A3["max_pool_backward"](dy, cache).ravel().tolist() == [0, 30, 40, 0]
    y, cache = A3["avg_pool_forward"](np.array([2.0, 4]).reshape(1, 1, 1, 2), (1, 2), (1, 1), (0, 1))
    assert y.ravel().tolist() == [1, 3, 2] and A3["avg_pool_backward"](dy, cache).ravel().tolist() == [15, 30]


def test_the_numbers_in_the_model_answer():
    def seen(shape, *window):
        ones = np.ones((1, 1, *shape))
        return A3["col2im"](A3["im2col"](ones, *window), ones.shape, *window)[0, 0]

    rows, columns = [1, 2, 1, 2, 1, 2, 1, 1], [1, 2, 1, 2, 1, 2, 1, 2, 1]
    np.testing.assert_array_equal(seen((8, 9), (3, 3), (2, 2), (1, 1)), np.outer(rows, columns))
    assert (seen((8, 8), (1, 1), (2, 2), (0, 0)) > 0).mean() == 0.25
    assert (seen((8, 8), (2, 2), (2, 2), (0, 0)) == 1).all()
    for stride, factor in ((1, 9), (2, 9 / 4)):
        x = np.ones((2, 3, 8, 6))
        assert A3["im2col"](x, (3, 3), (stride, stride), (1, 1)).size == factor * x.size
