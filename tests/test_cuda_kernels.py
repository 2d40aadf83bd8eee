"""Test kernels/cuda.py without a GPU: NVRTC compiles every kernel, and g++ compiles the kernels for the CPU, where the
stand-in for CuPy runs them. This tests grids, addresses, strides and layouts along with the arithmetic."""

import ctypes
import importlib.util
import math
import re
from pathlib import Path

import fake_cupy
import numpy as np
import pytest
from helpers import difference, normal, same_bits
from short import every
from test_kernels import GEOMETRIES

from minires import kernels
from minires.kernels import cublas, cuda, reference

pytestmark = pytest.mark.skipif(fake_cupy.missing() is not None, reason=str(fake_cupy.missing()))
F4 = np.float32
LARGER = [((3, 5, 13, 11), (3, 3), (1, 1), (1, 1)), ((2, 4, 17, 9), (7, 5), (2, 3), (3, 2)),
          ((5, 3, 16, 16), (3, 3), (2, 2), (1, 1)), ((4, 7, 9, 8), (1, 1), (2, 2), (0, 0)),
          ((4, 7, 9, 8), (1, 1), (1, 1), (0, 0)), ((2, 3, 6, 7), (2, 3), (1, 1), (0, 1))]
CONVOLUTIONS = GEOMETRIES + LARGER


def data(*shape, seed=0):
    return normal(*shape, seed=seed, dtype=F4)


def on(cp, a, layout="rows"):
    """Return `a` on the device, stored as (C, N, H, W) ("rows"), as (N, C, H, W) ("plain"), or with gaps."""
    if a.ndim == 4 and layout == "rows":
        return cp.asarray(a.transpose(1, 0, 2, 3)).transpose(1, 0, 2, 3)
    if layout == "gaps":
        return cp.asarray(np.repeat(a, 2, axis=-1))[..., ::2]
    return cp.asarray(a)


def close(got, expected, tolerance=2e-6):
    if expected is None:
        assert got is None
        return
    assert got.shape == expected.shape and got.dtype == F4
    got, expected = got.get(), np.asarray(expected)
    assert np.array_equal(np.isnan(got), np.isnan(expected))
    assert difference(np.nan_to_num(got), np.nan_to_num(expected)) < tolerance


# ------------------------------------------------------------------------------------------- compilation


def nvrtc():
    """Return NVIDIA's compiler as a library, from its wheel."""
    spec = importlib.util.find_spec("nvidia")
    found = [lib for folder in (spec.submodule_search_locations if spec else []) for lib in
             sorted(Path(folder).rglob("libnvrtc.so*"))]
    if not found:
        pytest.skip("NVRTC is not installed (pip install nvidia-cuda-nvrtc)")
    return ctypes.CDLL(str(found[0]))


@pytest.mark.parametrize("architecture", every(2, ["sm_90", "sm_80"]))
def test_every_kernel_compiles_without_a_warning(architecture):
    compiler, source, log_size = nvrtc(), cuda.program().encode(), ctypes.c_size_t()
    made = ctypes.c_void_p()
    assert compiler.nvrtcCreateProgram(ctypes.byref(made), source, b"minires.cu", 0, None, None) == 0
    options = (ctypes.c_char_p * 2)(f"--gpu-architecture={architecture}".encode(), b"-std=c++17")
    status = compiler.nvrtcCompileProgram(made, 2, options)
    compiler.nvrtcGetProgramLogSize(made, ctypes.byref(log_size))
    log = ctypes.create_string_buffer(log_size.value)
    compiler.nvrtcGetProgramLog(made, log)
    assert (status, log.value.decode()) == (0, "")
    size = ctypes.c_size_t()
    assert compiler.nvrtcGetCUBINSize(made, ctypes.byref(size)) == 0 and size.value > 10_000


def test_the_constants_of_python_are_those_of_the_source():
    source = cuda.program()
    assert f"#define BLOCK {cuda.BLOCK}\n" in source and f"#define PIECES {cuda.PIECES}\n" in source
    assert cuda.BLOCK & (cuda.BLOCK - 1) == 0
    assert cuda.TABLE.itemsize == cuda.PIECES * (8 + 8 + 4)
    assert "atomic" not in re.sub(r"//.*", "", source)


def test_every_kernel_is_launched_and_every_launch_has_its_kernel():
    defined = {name for name, _ in fake_cupy.KERNEL.findall(cuda.program())}
    launched = set(re.findall(r'_launch\("(\w+)"', Path(cuda.__file__).read_text(encoding="utf-8")))
    assert defined == launched and len(defined) > 12


def test_cuda_has_all_that_operations_ask_for_and_names_the_twin():
    package = Path(cuda.__file__).parents[1]
    others = (path for path in package.rglob("*.py") if path.parent.name != "kernels")
    source = "".join(path.read_text(encoding="utf-8") for path in others)
    asked = {*re.findall(r"(?:\bK|kernels\.of\([^()]*\))\.(\w+)\(", source)}
    assert asked and asked <= set(cuda.__all__)
    own = [f for name in cuda.__all__ if (f := getattr(cuda, name)).__module__ in (cuda.__name__, cublas.__name__)]
    for f in own:
        assert f"reference.{f.__name__}" in f.__doc__ and hasattr(reference, f.__name__)


def test_who_gets_these_kernels(cp):
    here, there = np.zeros(1, F4), cp.zeros(1, F4)
    assert kernels.of(there) is cuda and kernels.of(here) in (kernels.native, kernels.blocked)
    assert kernels.of(there.astype(np.float64)) is reference
    with kernels.using("reference"):
        assert kernels.of(there) is reference


# ------------------------------------------------------------------------------------------- convolution


@pytest.mark.parametrize("layout", ["rows", "plain", "gaps"])
@pytest.mark.parametrize("geometry", CONVOLUTIONS, ids=str)
def test_im2col_copies_the_same_numbers_and_col2im_adds_them_in_the_same_order(cp, geometry, layout):
    shape, *windows = geometry
    x = data(*shape)
    cols = reference.im2col(x, *windows)
    assert same_bits(cuda.im2col(on(cp, x, layout), *windows).get(), cols)
    c = data(*cols.shape, seed=1)
    assert same_bits(cuda.col2im(cp.asarray(c), shape, *windows).get() + 0, reference.col2im(c, shape, *windows) + 0)


@pytest.mark.parametrize("need_x, need_w", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("geometry", CONVOLUTIONS, ids=str)
def test_convolution(cp, geometry, need_x, need_w):
    shape, kernel, stride, padding = geometry
    x, w = data(*shape), data(6, shape[1], *kernel, seed=1)
    y = reference.conv2d(x, w, stride, padding)
    close(cuda.conv2d(on(cp, x), on(cp, w, "plain"), stride, padding), y)
    g = data(*y.shape, seed=2)
    expected = reference.conv2d_backward(g, x, w, stride, padding, need_x, need_w)
    for layout in "rows", "plain":
        got = cuda.conv2d_backward(on(cp, g, layout), on(cp, x, layout), on(cp, w, "plain"), stride, padding, need_x,
                                   need_w)
        close(got[0], expected[0])
        close(got[1], expected[1])


def test_a_convolution_is_laid_out_as_the_next_one_reads_it(cp):
    x, w = on(cp, data(3, 4, 6, 5)), cp.asarray(data(4, 4, 3, 3))
    y = cuda.conv2d(x, w, (1, 1), (1, 1))
    assert y.transpose(1, 0, 2, 3).flags.c_contiguous
    gx, gw = cuda.conv2d_backward(y, x, w, (1, 1), (1, 1))
    assert gx.transpose(1, 0, 2, 3).flags.c_contiguous and gw.flags.c_contiguous


@pytest.mark.parametrize("n, k, m", [(2, 3, 5), (1, 4, 3), (4, 1, 3), (3, 4, 1), (1, 1, 1), (5, 0, 2)])
@pytest.mark.parametrize("layout_a", ["rows", "columns", "gaps"])
@pytest.mark.parametrize("layout_b", ["rows", "columns", "gaps", "part"])
def test_matrix_products_of_every_layout(cp, n, k, m, layout_a, layout_b):
    def lay(a, how):
        if how == "columns":
            return cp.asarray(a.T).T
        if how == "gaps":
            return cp.asarray(np.repeat(np.repeat(a, 2, 0), 2, 1))[::2, ::2]
        if how == "part":
            return cp.asarray(np.pad(a, ((0, 0), (1, 2))))[:, 1:-2]
        return cp.asarray(a)

    a, b = data(n, k), data(k, m, seed=1)
    got = cuda.matmul(lay(a, layout_a), lay(b, layout_b))
    assert got.flags.c_contiguous
    close(got, a @ b)


def test_precision_is_asked_of_cublas(cp, monkeypatch):
    asked = []
    original = fake_cupy.Cublas.cublasGemmEx
    monkeypatch.setattr(fake_cupy.Cublas, "cublasGemmEx", lambda *a: asked.append(a[-2]) or original(*a))
    a = cp.asarray(data(2, 3))
    cuda.matmul(a, a.T)
    with kernels.tf32():
        cuda.matmul(a, a.T)
        with kernels.tf32(False):
            cuda.matmul(a, a.T)
    assert asked == [cublas.COMPUTE, cublas.COMPUTE_TF32, cublas.COMPUTE]


def test_a_failing_cublas_is_named(cp, monkeypatch):
    monkeypatch.setattr(fake_cupy.Cublas, "cublasGemmEx", lambda *a: 13)
    with pytest.raises(RuntimeError, match=r"cublasGemmEx failed with status 13 \(cublasStatus_t\)"):
        cuda.matmul(cp.asarray(data(2, 3)), cp.asarray(data(3, 2)))


def test_without_cublas_cupy_multiplies(cp, monkeypatch):
    monkeypatch.setattr(cublas, "_library", lambda xp: None)  # private: as if the library were not installed
    opened = cublas._open  # private: it looks for the library once per process
    opened.cache_clear()
    a, b = data(2, 3), data(3, 4)
    close(cuda.matmul(cp.asarray(a), cp.asarray(b)), a @ b)
    opened.cache_clear()


# -------------------------------------------------------------------------------------------- batch norm

SHAPES = [(2, 3, 4, 5), (1, 2, 3, 3), (7, 5), (300, 2, 4, 5), (3, 1, 80, 90), (33, 1, 128, 128)]


def test_the_last_of_these_shapes_has_the_most_chunks_there_may_be():
    chunks = cuda._chunks  # private: no result shows the number of chunks of a sum
    assert chunks(2048 * 256) == (256, 2048)
    count, chunk = chunks(33 * 128 * 128)
    assert chunk > cuda.CHUNK and count <= cuda.BLOCK and (count - 1) * chunk < 33 * 128 * 128 <= count * chunk
    assert chunks(1) == (1, 2048)


@pytest.mark.parametrize("act, with_skip", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_batch_norm(cp, shape, act, with_skip):
    if shape == SHAPES[-1] and not with_skip:
        pytest.skip("a large shape: once is enough")
    x, gamma, beta = data(*shape) * 3 + 1, data(shape[1], seed=1), data(shape[1], seed=2)
    skip = data(*shape, seed=3) if with_skip else None
    g = data(*shape, seed=4)
    to64 = lambda a: None if a is None else a.astype(np.float64)
    if act:
        *expected, saved = reference.batch_norm_relu(*map(to64, (x, gamma, beta)), 1e-5, to64(skip))
        got = cuda.batch_norm_relu(on(cp, x), cp.asarray(gamma), cp.asarray(beta), 1e-5,
                                   None if skip is None else on(cp, skip, "plain"))
        back = reference.batch_norm_relu_backward(to64(g), to64(gamma), saved)
        gots = cuda.batch_norm_relu_backward(on(cp, g, "plain"), cp.asarray(gamma), got[3])
        back = (*back[:3], back[3] if with_skip else None)
    else:
        *expected, saved = reference.batch_norm(*map(to64, (x, gamma, beta)), 1e-5)
        got = cuda.batch_norm(on(cp, x), cp.asarray(gamma), cp.asarray(beta), 1e-5)
        back = reference.batch_norm_backward(to64(g), to64(gamma), saved)
        gots = cuda.batch_norm_backward(on(cp, g), cp.asarray(gamma), got[3])
    for a, b in zip((*got[:3], *gots), (*expected, *back), strict=True):
        close(a, b, 2e-5)
    if len(shape) == 4:
        assert got[0].transpose(1, 0, 2, 3).flags.c_contiguous and gots[0].transpose(1, 0, 2, 3).flags.c_contiguous


def test_batch_norm_keeps_its_digits_where_the_mean_is_large(cp):
    x = data(16, 2, 20, 20) + 1e4  # float32 represents such numbers to about 1e-3
    one, zero = np.ones(2, F4), np.zeros(2, F4)
    _, mean, var, _ = cuda.batch_norm(on(cp, x), cp.asarray(one), cp.asarray(zero), 0.0)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean.get(), exact.mean((0, 2, 3)), rtol=2e-7)
    np.testing.assert_allclose(var.get(), exact.var((0, 2, 3)), rtol=1e-4)


def test_nan_is_seen_and_the_mask_is_the_reference_s(cp):
    x = data(3, 2, 4, 4)
    x[1, 0, 2, 2] = np.nan
    one, zero = np.ones(2, F4), np.zeros(2, F4)
    y, *_ = cuda.batch_norm_relu(on(cp, x), cp.asarray(one), cp.asarray(zero), 1e-5)
    close(y, reference.batch_norm_relu(x, one, zero, 1e-5)[0])
    assert np.isnan(y.get()[:, 0]).all() and not np.isnan(y.get()[:, 1]).any()


# ------------------------------------------------------------------------- pools, shortcut, loss, update


POOLS = [g for g in CONVOLUTIONS if all(2 * p <= k for k, p in zip(g[1], g[3], strict=True))]


@pytest.mark.parametrize("geometry", POOLS, ids=str)
def test_pools(cp, geometry):
    shape, *windows = geometry
    x = np.round(data(*shape) * 2) / 2  # rounded, for ties
    x.reshape(-1)[:: 37] = np.nan
    y, winner = reference.max_pool2d(x, *windows)
    got, won = cuda.max_pool2d(on(cp, x), *windows)
    assert same_bits(got.get(), y) and np.array_equal(won.get(), winner)
    g = data(*y.shape, seed=1)
    close(cuda.max_pool2d_backward(on(cp, g, "plain"), won, shape, *windows),
          reference.max_pool2d_backward(g, winner, shape, *windows), 1e-6)
    x = data(*shape)
    close(cuda.avg_pool2d(on(cp, x), *windows), reference.avg_pool2d(x, *windows), 1e-6)
    close(cuda.avg_pool2d_backward(on(cp, g), shape, *windows), reference.avg_pool2d_backward(g, shape, *windows), 1e-6)


@pytest.mark.parametrize("pad", ["both", "end"])
@pytest.mark.parametrize("shape, stride, channels", [((2, 3, 6, 4), 2, 6), ((2, 3, 7, 5), 2, 8), ((1, 2, 4, 4), 1, 5),
                                                     ((2, 4, 9, 3), 3, 4)])
def test_shortcut_moves_the_same_numbers(cp, shape, stride, channels, pad):
    x = data(*shape)
    y = reference.shortcut(x, stride, channels, pad)
    assert same_bits(cuda.shortcut(on(cp, x), stride, channels, pad).get(), np.ascontiguousarray(y))
    g = data(*y.shape, seed=1)
    assert same_bits(cuda.shortcut_backward(on(cp, g), shape, stride, pad).get(),
                     np.ascontiguousarray(reference.shortcut_backward(g, shape, stride, pad)))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.int32])
@pytest.mark.parametrize("N, K", [(1, 2), (5, 10), (300, 3), (4, 1000)])
def test_cross_entropy(cp, N, K, dtype):
    z = data(N, K) * 30
    labels = np.random.default_rng(0).integers(0, min(K, 256), N).astype(dtype)
    loss, log_p = reference.cross_entropy(z.astype(np.float64), labels)
    got, saved = cuda.cross_entropy(cp.asarray(z), cp.asarray(labels))
    assert got.shape == () and got.dtype == F4
    np.testing.assert_allclose(got.get(), loss, rtol=1e-5, atol=1e-6)
    g = np.float32(0.7)
    gz = cuda.cross_entropy_backward(cp.asarray(np.asarray(g)), saved, cp.asarray(labels))
    np.testing.assert_allclose(gz.get(), reference.cross_entropy_backward(np.float64(g), log_p, labels), 1e-4, 1e-7)


def test_a_label_that_does_not_exist_is_seen_in_the_loss(cp):
    loss, _ = cuda.cross_entropy(cp.asarray(data(3, 4)), cp.asarray(np.array([0, 4, 1])))
    assert math.isnan(loss.item())


def test_running_statistics(cp):
    arrays = [data(300, seed=s) for s in range(4)]
    got = cuda.running_statistics(*map(cp.asarray, arrays), 0.1, 7)
    for a, b in zip(got, reference.running_statistics(*arrays, 0.1, 7), strict=True):
        close(a, b, 1e-7)


@pytest.mark.parametrize("momentum, weight_decay", [(0.0, 0.0), (0.9, 0.0), (0.0, 0.01), (0.9, 1e-4)])
@pytest.mark.parametrize("where", ["number", "device"])
def test_sgd(cp, momentum, weight_decay, where):
    w, g, v = (data(1000, seed=s) for s in range(3))
    lr = 0.1 if where == "number" else cp.asarray(np.array(0.1, F4))
    got = cuda.sgd(*(cp.asarray(a) for a in (w, g, v)), lr, momentum, weight_decay)
    for a, b in zip(got, reference.sgd(w, g.copy(), v, 0.1, momentum, weight_decay), strict=True):
        close(a, b, 1e-7)


def test_no_momentum_means_that_the_velocity_is_not_read(cp):
    bad = cp.asarray(np.full(3, np.inf, F4))
    one = cp.asarray(np.ones(3, F4))
    assert cuda.sgd(one, one, bad, 0.5, 0.0, 0.0)[0].tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("count", [1, 63, 64, 65, 200])
def test_many_arrays_are_joined_and_copied_in_few_launches(cp, count):
    arrays = [data(1 + i % 7, 3 + i % 400, seed=i) for i in range(count)]
    there = [on(cp, a, "gaps" if i % 5 == 0 else "plain") for i, a in enumerate(arrays)]
    fake_cupy.State.launches = 0
    flat = cuda.join(there)
    assert fake_cupy.State.launches == -(-count // 64) + -(-count // 5)  # plus one for each array with gaps
    assert same_bits(flat.get(), reference.join(arrays))
    targets = [cp.zeros(a.shape, F4) for a in arrays]
    cuda.copy_all(list(zip(there, targets, strict=True)))
    assert all(same_bits(t.get(), a) for t, a in zip(targets, arrays, strict=True))


def test_copy_all_refuses_what_it_would_copy_wrongly(cp):
    with pytest.raises(ValueError, match=r"copy_all: expected contiguous float32 of one shape, got float32\(3, 2\) to"):
        cuda.copy_all([(cp.asarray(data(3, 2)), cp.asarray(data(2, 3)))])
    with pytest.raises(ValueError, match=r"copy_all: expected contiguous"):
        cuda.copy_all([(cp.asarray(data(2, 3)), cp.asarray(data(3, 2)).T)])


# ------------------------------------------------------------------------------------------- determinism


def test_the_order_of_blocks_and_threads_does_not_matter(cp):
    """The stand-in shuffles both at every launch, so the same bits twice mean that no result depends on the order."""
    x, w, g = on(cp, data(9, 6, 12, 10)), cp.asarray(data(6, 6, 3, 3)), on(cp, data(9, 6, 12, 10, seed=1))
    gamma, beta = cp.asarray(data(6)), cp.asarray(data(6, seed=1))

    def everything():
        y, *stats, saved = cuda.batch_norm_relu(x, gamma, beta, 1e-5, g)
        yield from (y, *stats, *cuda.batch_norm_relu_backward(g, gamma, saved))
        yield from (cuda.conv2d(x, w, (2, 2), (1, 1)), *cuda.conv2d_backward(g, x, w, (1, 1), (1, 1)))
        yield cuda.cross_entropy(cp.asarray(data(300, 10)), cp.asarray(np.arange(300) % 10))[0]

    first = [a.get() for a in everything()]
    assert all(same_bits(a, b.get()) for a, b in zip(first, everything(), strict=True))


BARRIERS = """
extern "C" __global__ void reverse(float* x) {
    __shared__ float all[256];
    all[threadIdx.x] = x[threadIdx.x];
    BARRIER
    x[threadIdx.x] = all[255 - threadIdx.x];
}
"""


def test_the_stand_in_shows_a_forgotten_barrier(cp):
    x = data(256)
    for barrier, right in ("__syncthreads();", True), ("if (threadIdx.x > 255) __syncthreads();", False):
        there, module = cp.asarray(x), cp.RawModule(code=BARRIERS.replace("BARRIER", barrier))
        module.get_function("reverse")((1, 1, 1), (256, 1, 1), (there,))
        assert np.array_equal(there.get(), x[::-1]) == right
    with pytest.raises(RuntimeError, match="reverse: a thread ended while others wait at a barrier"):
        cp.RawModule(code=BARRIERS.replace("BARRIER", "if (threadIdx.x == 7) return; __syncthreads();")) \
            .get_function("reverse")((1, 1, 1), (256, 1, 1), (there,))


OUTSIDE = 'extern "C" __global__ void beyond(float* x, int n) { if (threadIdx.x <= n) x[threadIdx.x] = 1.f; }'


def test_the_stand_in_checks_arguments_and_memory(cp):
    beyond = cp.RawModule(code=OUTSIDE).get_function("beyond")
    launch = lambda *args: beyond((1, 1, 1), (256, 1, 1), args)
    with pytest.raises(RuntimeError, match=r"beyond: wrote outside of an array of shape \(5,\)"):
        launch(cp.empty(5, F4), np.int32(5))
    launch(cp.empty(5, F4), np.int32(4))
    for wrong in [(cp.empty(5, F4), 5), (cp.empty(5, F4), np.int64(5)), (cp.empty(5), np.int32(4)),
                  (cp.empty((5, 5), F4)[:, 0], np.int32(4)), (np.empty(5, F4), np.int32(4)), (cp.empty(5, F4),)]:
        with pytest.raises(TypeError, match="beyond: "):
            launch(*wrong)
