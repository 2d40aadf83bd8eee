"""Test device.py with fake GPUs: the CPU keeps working, and errors are clear."""

import re
import subprocess
import sys
import textwrap
import types

import numpy as np
import pytest

from minires import Tensor, device, nn, ops

FakeGpuArray = type("ndarray", (np.ndarray,), {"__module__": "cupy"})  # device.py looks at the name of the module


def on_gpu(a):
    return np.asarray(a).view(FakeGpuArray)


class Product:
    """A Product is the result of the probe's computation on a fake GPU."""

    def __init__(self, total): self.total = total
    def __matmul__(self, other): return self
    def sum(self): return self
    def get(self): return self.total


def fake_cupy(total=512.0, error=None):
    cp = types.ModuleType("cupy")

    def ones(shape, dtype):
        if error:
            raise error
        return Product(total)

    cp.ones, cp.float32, cp.__version__ = ones, np.float32, "14.9"
    runtime = types.SimpleNamespace(getDeviceProperties=lambda i: {"name": b"Pretend 100"})
    cp.cuda = types.SimpleNamespace(runtime=runtime)
    cp.asarray = lambda a: on_gpu(a)
    return cp


@pytest.fixture
def install(monkeypatch):
    """Return install(module), which makes `import cupy` return that module in this test (None: not installed)."""
    def use(module):
        monkeypatch.setitem(sys.modules, "cupy", module)
        probe.cache_clear()
    probe = device._probe  # private: it looks for a GPU once per process
    yield use
    monkeypatch.undo()
    probe.cache_clear()


# ------------------------------------------------------------------------------------- why no GPU is used


class DriverError(Exception):
    """A DriverError has many lines, like CuPy's CUDARuntimeError."""


BROKEN = {
    "not installed": (None, r"No GPU is used: CuPy is not installed \(pip install \"minires\[cuda12\]\" or"),
    "fails on use": (fake_cupy(error=RuntimeError("no kernel image")),
                     r"CuPy is installed but does not work \(RuntimeError: no kernel image\)\.$"),
    "driver too old": (fake_cupy(error=DriverError("CUDA driver version is insufficient\nsecond line")),
                       r"does not work \(DriverError: CUDA driver version is insufficient\)\.$"),
    "error without a text": (fake_cupy(error=DriverError()), r"does not work \(DriverError: \)\.$"),
    "library missing": (fake_cupy(error=ImportError("libcublas.so.12: cannot open")),
                        r"does not work \(ImportError: libcublas\.so\.12: cannot open\)\.$"),
    "a module of CuPy missing": (fake_cupy(error=ModuleNotFoundError("No module named 'fastrlock'", name="fastrlock")),
                                 r"installed but does not work \(ModuleNotFoundError: No module named 'fastrlock'"),
    "wrong numbers": (fake_cupy(total=511.0), r"a test product on the GPU gave 511\.0, expected 512\.$"),
    "an empty module": (types.ModuleType("cupy"), r"does not work \(AttributeError: .*ones"),
}


@pytest.mark.parametrize("module, reason", BROKEN.values(), ids=BROKEN)
def test_a_broken_gpu_gives_a_reason_and_leaves_the_cpu_working(install, module, reason):
    install(module)
    assert device.use() == device.use("auto") == device.use("cpu") == "cpu"
    assert re.search(reason, device.reason) and "\n" not in device.reason
    with pytest.raises(RuntimeError, match=r'device "gpu" was requested\. No GPU is used: .* Use "cpu" or "auto"\.'):
        device.use("gpu")
    with pytest.raises(RuntimeError, match=r'device "gpu" was requested'):
        Tensor([1.0]).to("gpu")
    x = Tensor(np.array([1.0, 2.0]), True)
    (x * x).sum().backward()
    assert x.grad.tolist() == [2, 4] and x.to("auto") is x


def test_cupy_that_cannot_be_imported(tmp_path):
    """Run a new process with a real package named cupy whose import fails, as with a missing CUDA library."""
    (tmp_path / "cupy").mkdir()
    (tmp_path / "cupy" / "__init__.py").write_text("raise ImportError('libcuda.so.1: cannot open shared object file')")
    code = f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        import minires
        assert "cupy" not in sys.modules
        x = minires.Tensor([1.0, 2.0], True)
        (x * x).sum().backward()
        assert x.grad.tolist() == [2.0, 4.0] and "cupy" not in sys.modules
        assert minires.device.use("cpu") == "cpu"
        print(minires.device.use("auto"), minires.device.reason)
    """
    done = subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(code)], capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("cpu No GPU is used: CuPy is installed but does not work "
                           "(ImportError: libcuda.so.1: cannot open shared object file).\n")


def test_a_gpu_that_works(install):
    install(fake_cupy())
    assert device.use() == device.use("gpu") == "gpu" and device.use("cpu") == "cpu"
    assert device.reason == "GPU: Pretend 100, through CuPy 14.9."
    x = Tensor([1.0, 2.0], True).to("gpu")
    assert device.on_gpu(x.data) and x.requires_grad
    model = nn.Linear(3, 2, rng=np.random.default_rng(0)).to("gpu")
    assert all(device.on_gpu(t.data) for t in model.state().values())


def test_it_is_asked_once(install):
    calls = []
    cp = fake_cupy()
    ones = cp.ones
    cp.ones = lambda *a, **k: calls.append(1) or ones(*a, **k)
    install(cp)
    for _ in range(3):
        device.use("auto")
        assert device.reason
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["cuda", "", None, "GPU", 0])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(ValueError, match=r'device: expected "auto", "cpu" or "gpu", got '):
        device.use(name)
    with pytest.raises(AttributeError, match="has no attribute 'cuda'"):
        _ = device.cuda


# ------------------------------------------------------------------------------------- of, to, on_gpu


def test_of_names_the_module_the_arrays_belong_to(install):
    cp = fake_cupy()
    install(cp)
    a = np.ones(2)
    assert device.of(a) is np and device.of(a, a, a) is np and device.of() is np
    assert device.of(on_gpu(a)) is cp and device.of(on_gpu(a), on_gpu(a)) is cp
    assert device.on_gpu(on_gpu(a)) and not device.on_gpu(a)


def test_a_look_alike_is_not_taken_for_cupy():
    other = type("ndarray", (np.ndarray,), {"__module__": "cupyish.core"})
    assert not device.on_gpu(np.ones(2).view(other))
    assert device.on_gpu(np.ones(2).view(type("ndarray", (np.ndarray,), {"__module__": "cupy._core.core"})))


def test_to_returns_what_is_there_already():
    a = np.ones(3)
    assert device.to(a, "cpu") is a
    x = Tensor(a, True)
    assert x.to("cpu") is x and x.numpy() is a


def test_from_the_gpu_comes_a_copy(install):
    install(fake_cupy())

    class GpuArray(np.ndarray):
        __module__ = "cupy"
        def get(self): return np.array(self)

    a = np.array([1.0, 2.0]).view(GpuArray)
    x = Tensor(a, True)
    moved = x.to("cpu")
    assert type(moved.data) is np.ndarray and moved.data.tolist() == [1, 2] and moved.requires_grad and moved is not x
    assert type(x.numpy()) is np.ndarray and "1. 2." in repr(x)


def test_a_computed_tensor_does_not_cross(install):
    install(fake_cupy())
    y = Tensor([1.0], True) * 2
    with pytest.raises(RuntimeError, match=r"to\('gpu'\): this Tensor was computed by Mul, and a graph does not cross"):
        y.to("gpu")


# -------------------------------------------------------------------------------------- mixed devices


@pytest.mark.parametrize("combine, name", [
    (lambda a, b: a + b, "Add"), (lambda a, b: ops.matmul(a, b), "MatMul"),
    (lambda a, b: ops.concatenate([a, b]), "Concatenate"), (lambda a, b: ops.linear(a, b), "Linear")])
def test_mixed_devices_are_named(combine, name):
    here, there = Tensor(np.ones((2, 2))), Tensor(on_gpu(np.ones((2, 2))))
    with pytest.raises(TypeError, match=rf'^{name}: all arrays must be on one device, got \(2, 2\) on the cpu, '
                                        r'\(2, 2\) on the gpu; move them with \.to\("cpu"\) or \.to\("gpu"\)'):
        combine(here, there)


def test_an_array_on_the_other_device_is_named():
    with pytest.raises(TypeError, match=r"Mul: all arrays must be on one device"):
        Tensor(np.ones(2)) * on_gpu(np.ones(2))
    x = Tensor(np.ones(2), True)
    with pytest.raises(TypeError, match=r"backward\(g\): all arrays must be on one device"):
        (x * 2).backward(on_gpu(np.ones(2)))
    with pytest.raises(TypeError, match=r"cross_entropy: all arrays must be on one device"):
        ops.cross_entropy(Tensor(np.ones((2, 3))), on_gpu(np.array([0, 1])))


def test_statistics_on_the_other_device_are_named():
    x, one = Tensor(np.ones((2, 3))), Tensor(np.ones(3))
    with pytest.raises(TypeError, match=r"(?i)batch_?norm_?eval: all arrays must be on one device"):
        ops.batch_norm_eval(x, one, one, on_gpu(np.ones(3)), np.ones(3))
