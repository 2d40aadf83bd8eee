"""Helpers that several test files share: arrays, comparisons, and PyTorch if it is installed."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minires import Tensor

try:
    import torch
except ImportError:
    torch = None
needs_torch = pytest.mark.skipif(torch is None, reason="compared with PyTorch, which is not installed")


def normal(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def read_only(a):
    a.setflags(write=False)
    return a


def same_bits(a, b):
    """Return True if shape, dtype and every bit of the elements are equal. 0.0 differs from -0.0."""
    a, b = np.asarray(a), np.asarray(b)
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def difference(got, expected):
    """Return the Euclidean norm of the difference, relative to the norm of `expected`. Shapes must be equal."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, (got.shape, expected.shape)
    if not expected.size:
        return 0.0
    scale = np.linalg.norm(expected.astype(np.float64).ravel())
    error = np.linalg.norm((got.astype(np.float64) - expected).ravel())
    return float(error / scale) if scale else float(error)


def output_and_grads(f, arrays, seed=7):
    """Return (output of f, the gradient sent back, the gradient of every argument). All arrays passed are read-only."""
    tensors = [Tensor(read_only(a.copy(order="K")), True) for a in arrays]
    y = f(*tensors)
    g = read_only(normal(*y.shape, seed=seed).astype(y.dtype))
    y.backward(g)
    return y.data, g, [t.grad for t in tensors]


def torch_output_and_grads(f, arrays, g):
    """Return (output of f, the gradient of every argument) from PyTorch, as NumPy arrays. None becomes zeros."""
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    y = f(*tensors)
    y.backward(torch.tensor(g).reshape(y.shape))
    return y.detach().numpy(), [np.zeros_like(a) if t.grad is None else t.grad.numpy()
                                for a, t in zip(arrays, tensors, strict=True)]


def randomise(net, seed=2):
    """Randomise BatchNorms, their statistics, and biases, because gamma 1, beta 0 and mean 0 would hide mistakes."""
    draw = np.random.default_rng(seed)
    for name, t in net.state().items():
        if t.ndim == 1:
            v = 0.2 * draw.standard_normal(t.shape)
            t.data = (v if name.endswith(("bias", "mean")) else 1 + v).astype(t.dtype)


# The command of the fixture `finished_run`, but for --out: 12 steps, 4 an epoch.
SMALL_RUN = ["train", "ResNet-20", "--dataset", "fashion_mnist_small", "--recipe", "short-cifar", "--device", "cpu",
             "--set", "train_images=50", "test_images=20", "image_size=7", "model.width=2", "batch_size=16", "crop=1",
             "epochs=3", "warm_up_layers=20"]


def build_wheel(out):
    """Build the wheel into the folder `out`, from the source distribution, so both are complete. Return its path.

    Nothing is downloaded. Skips the test if the tools are not installed.
    """
    for module in ("build", "hatchling"):
        pytest.importorskip(module, reason=f"{module} is not installed (pip install -e '.[test]')")
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.suffix for path in out.iterdir()) == [".gz", ".whl"]
    return next(out.glob("*.whl"))
