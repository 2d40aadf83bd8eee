"""A Tap measures the outputs and gradients of a model's modules without changing the model.

    with Tap(model, nn.BatchNorm2d) as tap:                    # which kinds of module to look at
        ops.cross_entropy(model(x), labels).backward()
    tap.std, tap.grad_norm                                     # {module name: number}
    tap.calls["bn1"]                                           # one Call for every time that bn1 ran

    with Tap(model, nn.Conv2d, arrays=True) as tap:            # also keep the arrays
        model(x)
    tap.output["conv1"].shape
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from . import nn
from .tensor import widened


@dataclass
class Call:
    """A Call describes one run of a module."""

    std: float                       # standard deviation of the output, over all its elements
    grad_norm: float | None = None   # Euclidean norm of dL/d(output), after backward
    output: Any = None               # the output's array, if the Tap keeps arrays
    grad: Any = None                 # dL/d(output), if the Tap keeps arrays, after backward


class Tap:
    """A Tap records two numbers for every module of the given kinds, or for all modules if no kind is given.

    std: {module name: standard deviation of the output, over all its elements}, in the order the modules ran.
    grad_norm: {module name: Euclidean norm of dL/d(output)}, filled in by backward.
    calls: {module name: list of Calls}, one for every run of the module in the last pass through the model.
    output, grad: {module name: array}, with arrays=True. They are the model's own arrays: do not change them.

    For a module that runs more than once, as a shared one does, `calls` has every run, and the others have its last.
    Without arrays=True, no array is kept.
    Raises ValueError if the model has no module of these kinds.
    """

    def __init__(self, model: nn.Module, *kinds: type, arrays: bool = False):
        self.names = {id(m): name for name, m in model.modules() if not kinds or isinstance(m, kinds)}
        if not self.names:
            raise ValueError(f"Tap: the model has no module of kind {' or '.join(k.__name__ for k in kinds)}")
        self.model, self.arrays = model, arrays
        self.std: dict[str, float] = {}
        self.grad_norm: dict[str, float] = {}
        self.output: dict[str, Any] = {}
        self.grad: dict[str, Any] = {}
        self.calls: dict[str, list[Call]] = {}
        self.runs: dict[str, int] = {}
        self._passed = False  # whether the model has returned since the first of `calls`

    def __enter__(self) -> Tap:
        self._watching = nn.watched(self._see)
        self._watching.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._watching.__exit__(*exc)

    def _see(self, module: nn.Module, inputs: tuple[Any, ...], out: Any) -> None:
        name = self.names.get(id(module))
        if name is not None:
            self._record(name, out)
        if module is self.model:
            self._passed = True

    def _record(self, name: str, out: Any) -> None:
        if self._passed:
            self.calls, self._passed = {}, False
        call = Call(float(widened(out.data).std()))
        self.calls.setdefault(name, []).append(call)
        self.std[name] = call.std
        self.runs[name] = run = self.runs.get(name, 0) + 1
        if self.arrays:
            self.output[name] = call.output = out.data

        def see(g: Any) -> None:
            call.grad_norm = norm(g)
            call.grad = g if self.arrays else None
            if self.runs[name] == run:  # backward reaches the last run first, then earlier runs
                self.grad_norm[name] = call.grad_norm
                if self.arrays:
                    self.grad[name] = g

        if out.requires_grad:
            out.on_grad(see)


def norm(g: Any) -> float:
    """Return the Euclidean norm of an array. The array is first scaled so that its largest element is 1: in float32
    the square of 1e-23 is 0, and vanishing gradients must not read as zero."""
    largest = float(abs(g).max()) if g.size else 0.0
    if largest == 0 or not math.isfinite(largest):
        return largest
    g = widened(g) / largest
    return largest * float((g * g).sum()) ** 0.5
