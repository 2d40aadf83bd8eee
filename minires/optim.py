"""This module has stochastic gradient descent with momentum and weight decay, and learning-rate schedules."""
from __future__ import annotations

import itertools
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

from . import device, kernels
from .tensor import Tensor


class SGD:
    """SGD updates each weight w by its gradient g:  v = momentum v + (g + weight_decay w);  w = w - lr v.

    The learning rate is not part of v, so a new learning rate takes full effect at once. This is PyTorch's form.
    Caffe's form, v = m v + lr g, differs only after a change of lr. Weight decay acts on every parameter, as in
    He et al. 2015.

    All parameters are stored one after the other in one array, and the `.data` of each is a view into this array. An
    update is then a few operations on long arrays, not a few operations for each parameter. An update creates a new
    array and leaves the old array unchanged, so a graph that still uses the old weights stays valid.

    Raises ValueError if there is no parameter, if their dtypes differ, or if a number is negative.
    """

    def __init__(self, parameters: Sequence[Tensor], lr: float, momentum: float = 0.0, weight_decay: float = 0.0):
        self.parameters = list(parameters)
        if not self.parameters:
            raise ValueError("SGD: expected at least one parameter, got none; is anything set to requires_grad=True?")
        for name, value in ("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay):
            if not value >= 0:
                raise ValueError(f"SGD: expected {name} >= 0, got {value}")
        self.lr: Any = float(lr)
        self.momentum, self.weight_decay = float(momentum), float(weight_decay)
        self.shapes = [p.shape for p in self.parameters]
        self.ends = list(itertools.accumulate(p.size for p in self.parameters))
        self._lay_out(self._joined([p.data for p in self.parameters]))
        self.velocity = self.xp.zeros_like(self.flat)

    def step(self) -> None:
        """Update the parameters from their `.grad`. A parameter without a gradient, and its velocity, stay unchanged.

        Raises ValueError if the shape or dtype of a gradient differs from its parameter.
        """
        # A schedule may have set a NumPy number, which would promote float32. cuda_graph.py sets arrays of one element.
        self.lr = float(self.lr) if isinstance(self.lr, numbers.Real) else self.lr
        self.momentum, self.weight_decay = float(self.momentum), float(self.weight_decay)
        if any(p.data is not view for p, view in zip(self.parameters, self.views, strict=True)):
            self._lay_out(self._joined([p.data for p in self.parameters]))  # weights were loaded, moved or cast
            self.velocity = self.xp.asarray(device.to(self.velocity, "cpu"), self.flat.dtype)  # v must follow them
        dtype, grads = self.flat.dtype, [p.grad for p in self.parameters]
        for i, (p, g, view) in enumerate(zip(self.parameters, grads, self.views, strict=True)):
            if g is not None and (g.shape != view.shape or g.dtype != dtype):
                raise ValueError(f"SGD: parameter {i}: expected a {self.flat.dtype}{p.shape} gradient, got "
                                 f"{p.grad.dtype}{p.grad.shape}; scale it by float(number), not a NumPy number")
        idle = [i for i, g in enumerate(grads) if g is None]
        w, v = self.flat, self.velocity
        g = self._joined([self.xp.zeros_like(view) if g is None else g
                          for g, view in zip(grads, self.views, strict=True)])
        new_w, new_v = kernels.of(w).sgd(w, g, v, self.lr, self.momentum, self.weight_decay)
        for i in idle:
            at = slice(self.ends[i] - self.parameters[i].size, self.ends[i])
            new_w[at], new_v[at] = w[at], v[at]
        self.adopt(new_w, new_v)

    def adopt(self, flat: Any, velocity: Any) -> None:
        """Use these two long arrays to hold the parameters and their velocities."""
        self.velocity = velocity
        self._lay_out(flat)

    def zero_grad(self) -> None:
        for p in self.parameters:
            p.grad = None

    def __getstate__(self) -> dict[str, Any]:  # for copy.deepcopy and pickle; copy the model in the same call
        return {name: value for name, value in vars(self).items() if name not in ("xp", "flat", "views")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lay_out(self._joined([p.data for p in self.parameters]))

    def _joined(self, arrays: list[Any]) -> Any:
        if len(dtypes := {a.dtype for a in arrays}) > 1:
            raise ValueError(f"SGD: expected parameters of one dtype, got {', '.join(sorted(map(str, dtypes)))}")
        self.xp = device.of(*arrays, operation="SGD")
        return kernels.of(arrays[0]).join(arrays)

    def _lay_out(self, flat: Any) -> None:
        """Make the `.data` of every parameter a view into `flat`."""
        self.flat = flat
        self.views = []
        for p, end, shape in zip(self.parameters, self.ends, self.shapes, strict=True):
            p.data = flat[end - math.prod(shape):end].reshape(shape)
            self.views.append(p.data)


Schedule = Callable[[int], float]  # step, counted from 0 -> learning rate


def constant(lr: float) -> Schedule:
    """Return a schedule that is `lr` at every step."""
    return lambda step: lr


def step_decay(lr: float, at: Sequence[int], factor: float = 0.1) -> Schedule:
    """Return a schedule that starts at `lr` and multiplies it by `factor` at each of the steps `at`.

    He et al. 2015, section 4.2, use factor 0.1 at the steps (32000, 48000).
    """
    return lambda step: lr * factor ** sum(step >= s for s in at)


def warm_up(schedule: Schedule, steps: int, lr: float) -> Schedule:
    """Return a schedule that is `lr` for the first `steps` steps, then `schedule`.

    He et al. 2015, section 4.2, start a network of 110 layers with 0.01 for about 400 steps.
    """
    return lambda step: lr if step < steps else schedule(step)
