"""Stochastic gradient descent with momentum and weight decay, and learning-rate schedules."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .tensor import Tensor


class SGD:
    """v = momentum v + (g + weight_decay w);  w = w - lr v.

    The learning rate stands outside v, so that changing it acts at once (PyTorch's form; Caffe's v = m v + lr g
    differs only at the steps where lr changes). Weight decay acts on every parameter, as in He et al. 2015.
    Arrays are replaced, not written into: a graph that still holds the old weights stays right.
    """

    def __init__(self, parameters: Sequence[Tensor], lr: float, momentum: float = 0.0, weight_decay: float = 0.0):
        self.parameters = list(parameters)
        if not self.parameters:
            raise ValueError("SGD: expected at least one parameter, got none; is anything set to requires_grad=True?")
        for name, value in ("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay):
            if not value >= 0:
                raise ValueError(f"SGD: expected {name} >= 0, got {value}")
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self.velocity: list[Any] = [None] * len(self.parameters)

    def step(self) -> None:
        """One update from the gradients that backward left; a parameter without one stays as it is."""
        for i, p in enumerate(self.parameters):
            if p.grad is None:
                continue
            d = p.grad + self.weight_decay * p.data if self.weight_decay else p.grad
            if self.momentum:
                d = d if self.velocity[i] is None else self.momentum * self.velocity[i] + d
                self.velocity[i] = d
            p.data = p.data - float(self.lr) * d

    def zero_grad(self) -> None:
        for p in self.parameters:
            p.grad = None


Schedule = Callable[[int], float]  # step, counted from 0 -> learning rate


def constant(lr: float) -> Schedule:
    return lambda step: lr


def step_decay(lr: float, at: Sequence[int], factor: float = 0.1) -> Schedule:
    """lr, times `factor` from each of the steps `at` on: He et al. 2015, section 4.2, has 0.1 and (32000, 48000)."""
    return lambda step: lr * factor ** sum(step >= s for s in at)


def warm_up(schedule: Schedule, steps: int, lr: float) -> Schedule:
    """`lr` for the first `steps` steps, then `schedule`: 0.01 for about 400 steps for 110 layers, section 4.2."""
    return lambda step: lr if step < steps else schedule(step)
