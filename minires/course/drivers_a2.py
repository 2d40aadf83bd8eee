"""Exercise the answers of assignment A2: Functions of arrays, each with its forward and backward method.

The inputs of a case are the arrays that forward gets, `dy`, and forward's options, such as `axis`.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from .drivers import Pair, Space, named


class Function:
    """Function stands for minires' where minires is not installed or may not be used: two methods on plain arrays."""

    broadcasts = converts = False
    xp = np


MINIRES = {"Function": Function}  # what `from minires import ...` gives a submission, where the drivers run it


class Step(Pair):
    """Drivers for one Function.

    operation: its name
    inputs: names of the arrays that forward gets; the other arguments of a case are its options
    """

    def __init__(self, operation: str, *inputs: str) -> None:
        super().__init__(f"{operation}.forward", f"{operation}.backward", [f"d{name}" for name in inputs])
        self.operation, self.inputs = operation, inputs

    def forward(self, space: Space, arguments: dict[str, Any]) -> tuple[Any, Any]:
        """Make a Function and call its forward. Return y and the Function, which is the cache."""
        f = space[self.operation]()
        f.xp, f.needs = np, (True,) * len(self.inputs)
        arrays = [arguments[name] for name in self.inputs]
        options = {name: value for name, value in arguments.items() if name not in self.inputs}
        y = f.forward(*arrays, **options)
        if y is None:
            raise TypeError(f"{self.names[0]} must return an array, not None")
        return y, f

    def backward(self, space: Space, dy: np.ndarray, cache: Any) -> dict[str, Any]:
        """Call backward. Raise TypeError if it does not return one array for each input."""
        return named(self.names[1], cache.backward(dy), self.gradients)


Add, Sub, Mul = Step("Add", "a", "b"), Step("Sub", "a", "b"), Step("Mul", "a", "b")
Div, Maximum, MatMul = Step("Div", "a", "b"), Step("Maximum", "a", "b"), Step("MatMul", "a", "b")
Sum, Mean, Max = Step("Sum", "x"), Step("Mean", "x"), Step("Max", "x")
Reshape, Transpose, GetItem = Step("Reshape", "x"), Step("Transpose", "x"), Step("GetItem", "x")
CrossEntropy = Step("CrossEntropy", "z")


def unbroadcast(space: Space, g: np.ndarray, shape: tuple[int, ...]) -> dict[str, Any]:
    """Call unbroadcast."""
    return {"result": space["unbroadcast"](g, tuple(shape))}
