"""A Tap measures the outputs and gradients of a model's modules without changing the model.

    with Tap(model, nn.BatchNorm2d) as tap:                    # which kinds of module to look at
        ops.cross_entropy(model(x), labels).backward()
    tap.std, tap.grad_norm                                     # {module name: number}
"""
from __future__ import annotations

import math
from typing import Any

from . import nn


class Tap:
    """A Tap records two numbers for every module of the given kinds, or for all modules if no kind is given.

    std: {module name: standard deviation of the output, over all its elements}, in the order the modules ran.
    grad_norm: {module name: Euclidean norm of dL/d(output)}, filled in by backward.

    No array is kept. For a module that runs more than once, the Tap keeps the numbers of its last run.
    Raises ValueError if the model has no module of these kinds.
    """

    def __init__(self, model: nn.Module, *kinds: type):
        self.names = {id(m): name for name, m in model.modules() if not kinds or isinstance(m, kinds)}
        if not self.names:
            raise ValueError(f"Tap: the model has no module of kind {' or '.join(k.__name__ for k in kinds)}")
        self.std: dict[str, float] = {}
        self.grad_norm: dict[str, float] = {}
        self.runs: dict[str, int] = {}

    def __enter__(self) -> Tap:
        self._watching = nn.watched(self._see)
        self._watching.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._watching.__exit__(*exc)

    def _see(self, module: nn.Module, inputs: tuple[Any, ...], out: Any) -> None:
        name = self.names.get(id(module))
        if name is None:
            return
        self.std[name] = float(_wide(out.data).std())
        self.runs[name] = run = self.runs.get(name, 0) + 1

        def see(g: Any) -> None:
            if self.runs[name] == run:  # backward reaches the last run first, then earlier runs
                self.grad_norm[name] = norm(g)

        if out.requires_grad:
            out.on_grad(see)


def _wide(a: Any) -> Any:
    """float16 as float32: sums of squares overflow in float16."""
    return a.astype("f4") if a.dtype == "f2" else a


def norm(g: Any) -> float:
    """Return the Euclidean norm of an array. The array is first scaled so that its largest element is 1: in float32
    the square of 1e-23 is 0, and vanishing gradients must not read as zero."""
    largest = float(abs(g).max()) if g.size else 0.0
    if largest == 0 or not math.isfinite(largest):
        return largest
    g = _wide(g) / largest
    return largest * float((g * g).sum()) ** 0.5
