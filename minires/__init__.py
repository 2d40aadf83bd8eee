"""minires is deep residual learning from scratch, on NumPy arrays and, unchanged, on CuPy arrays.

`import minires` loads NumPy and the standard library, nothing else.
"""
from importlib import import_module

from . import device, init, kernels, nn, ops
from .gradient_check import gradcheck
from .tensor import Function, Tensor, no_grad

__version__ = "0.2.0"
__all__ = ["Function", "Tensor", "device", "gradcheck", "init", "kernels", "nn", "no_grad", "ops"]

# These are loaded at first use, so that `import minires` stays quick.
_ROOMS = ("analysis", "cuda_graph", "datasets", "evaluate", "exercise", "models", "optim", "plot", "recipes",
          "residual", "runs", "tap", "train", "weights")
_NAMES = {"load_weights": "weights", "save_weights": "weights", "shipped_file": "files.shipped"}


def __getattr__(name):
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name in _NAMES:
        return getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_ROOMS, *_NAMES})
