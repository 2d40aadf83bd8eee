"""minires is deep residual learning from scratch, on NumPy arrays and, unchanged, on CuPy arrays.

`import minires` loads NumPy and the standard library, nothing else.
"""
from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import device, init, kernels, nn, ops
from .gradient_check import gradcheck, gradcheck_module
from .tensor import Function, Tensor, detect_changes, no_grad

__version__ = "0.2.0"
__all__ = ["Function", "Tensor", "analysis", "cuda_graph", "datasets", "detect_changes", "device", "evaluate",
           "exercise", "gradcheck", "gradcheck_module", "init", "kernels", "load_weights", "models", "nn", "no_grad",
           "ops", "optim", "plot", "read_weights", "recipes", "residual", "runs", "save_weights", "shipped_file", "tap",
           "testing", "train", "weights"]

# These are loaded at first use, so that `import minires` stays quick; `from minires import *` uses them all.
_ROOMS = ("analysis", "cuda_graph", "datasets", "evaluate", "exercise", "models", "optim", "plot", "recipes",
          "residual", "runs", "tap", "testing", "train", "weights")
_NAMES = {"load_weights": "weights", "read_weights": "weights", "save_weights": "weights",
          "shipped_file": "files.shipped"}


if TYPE_CHECKING:
    from . import (
        analysis,
        cuda_graph,
        datasets,
        evaluate,
        exercise,
        models,
        optim,
        plot,
        recipes,
        residual,
        runs,
        tap,
        testing,
        train,
        weights,
    )
    from .files.shipped import shipped_file
    from .weights import load_weights, read_weights, save_weights
else:
    def __getattr__(name: str) -> Any:
        if name in _ROOMS:
            return import_module(f"{__name__}.{name}")
        if name in _NAMES:
            return getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS, *_NAMES})
