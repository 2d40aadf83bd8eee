"""Exercise pairs of functions `forward(*arguments) -> (y, cache)` and `backward(dy, cache) -> gradients`.

Drivers run in a worker process next to the submission, so this module needs only NumPy and the standard library.
A driver takes the names that the submission defines and a case's inputs, and returns named arrays.

A driver that needs minires, for a task that allows it, imports it inside the function: `from ..tensor import Tensor`.
For other tasks, `from minires import Function` in a submission gives what the drivers' module lists in a dictionary
`MINIRES = {"Function": ...}`, and nothing else.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

Space = dict[str, Any]


class Pair:
    """Drivers for one forward and one backward function.

    forward, backward: names that the submission defines
    gradients: names of what backward returns, in order: "dx", "dw", "db"

    The inputs of a case are the arguments of forward, in order, and `dy`.
    """

    def __init__(self, forward: str, backward: str, gradients: Sequence[str] = ("dx",), y: str = "y") -> None:
        self.names, self.gradients, self.y = (forward, backward), tuple(gradients), y

    def __call__(self, space: Space, dy: np.ndarray, **arguments: Any) -> dict[str, Any]:
        """Return y and the gradients."""
        y, cache = self.forward(space, arguments)
        kept = np.array(y)
        return {self.y: kept, **self.backward(space, dy, cache)}

    def forward(self, space: Space, arguments: dict[str, Any]) -> tuple[Any, Any]:
        """Call forward. Raise TypeError if it does not return y and a cache."""
        returned = space[self.names[0]](*arguments.values())
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise TypeError(f"{self.names[0]} must return two things, y and the cache, not {described(returned)}")
        return returned

    def backward(self, space: Space, dy: np.ndarray, cache: Any) -> dict[str, Any]:
        """Call backward. Raise TypeError if it does not return one array for each gradient."""
        return named(self.names[1], space[self.names[1]](dy, cache), self.gradients)

    def float32(self, space: Space, **inputs: Any) -> dict[str, Any]:
        """Float32 goes in and must come out."""
        found = self(space, **{name: single(value) for name, value in inputs.items()})
        return {f"{name} of float32 inputs": value for name, value in found.items()}

    def strided(self, space: Space, **inputs: Any) -> dict[str, Any]:
        """Pass arrays whose elements are not next to each other in memory."""
        found = self(space, **{name: spread(value) for name, value in inputs.items()})
        return {f"{name}, inputs not contiguous": value for name, value in found.items()}

    def interleaved(self, space: Space, dy: np.ndarray, **arguments: Any) -> dict[str, Any]:
        """Call forward on other data before backward of the first."""
        _, cache = self.forward(space, arguments)
        self.forward(space, {name: other(value) for name, value in arguments.items()})
        found = self.backward(space, dy, cache)
        return {f"{name}, forward called again in between": value for name, value in found.items()}

    def twice(self, space: Space, dy: np.ndarray, **arguments: Any) -> dict[str, Any]:
        """Call backward twice with one cache: the second result must equal the first."""
        _, cache = self.forward(space, arguments)
        copies = {name: np.array(value) for name, value in self.backward(space, dy, cache).items()}
        again = self.backward(space, dy, cache)
        return {**{f"{name}, first of two calls": copies[name] for name in self.gradients},
                **{f"{name}, backward called twice": again[name] for name in self.gradients}}

    def apart(self, space: Space, dy: np.ndarray, **arguments: Any) -> dict[str, Any]:
        """Show for each gradient whether it shares memory with dy, which a later += would change."""
        _, cache = self.forward(space, arguments)
        found = self.backward(space, dy, cache)
        return {f"{name} shares memory with dy": np.shares_memory(np.asarray(value), dy)
                for name, value in found.items()}

    def alone(self, space: Space, dy: np.ndarray, **arguments: Any) -> dict[str, Any]:
        """Count how often backward calls forward: that would be a numerical derivative."""
        _, cache = self.forward(space, arguments)
        with counted(space, self.names[0]) as calls:
            self.backward(space, dy, cache)
        return {f"calls of {self.names[0]} inside {self.names[1]}": len(calls)}


class Gradients(Pair):
    """Gradients is a Pair whose y is not judged, because another task does that."""

    def __call__(self, space: Space, dy: np.ndarray, **arguments: Any) -> dict[str, Any]:
        _, cache = self.forward(space, arguments)
        return self.backward(space, dy, cache)


class One:
    """Drivers for one function that returns one array.

    function: name that the submission defines
    result: what the function returns, as the student reads it: "columns"

    The inputs of a case are the arguments of the function, in order.
    """

    def __init__(self, function: str, result: str) -> None:
        self.function, self.result = function, result

    def __call__(self, space: Space, **arguments: Any) -> dict[str, Any]:
        """Return the function's result. Raise TypeError if it is not an array."""
        found = space[self.function](*arguments.values())
        if not isinstance(found, np.ndarray):
            raise TypeError(f"{self.function} must return an array, not {described(found)}")
        return {self.result: found}

    def float32(self, space: Space, **arguments: Any) -> dict[str, Any]:
        """Float32 goes in and must come out."""
        found = self(space, **{name: single(value) for name, value in arguments.items()})
        return {f"{self.result} of float32 inputs": found[self.result]}

    def strided(self, space: Space, **arguments: Any) -> dict[str, Any]:
        """Pass arrays whose elements are not next to each other in memory."""
        found = self(space, **{name: spread(value) for name, value in arguments.items()})
        return {f"{self.result}, input not contiguous": found[self.result]}

    def overwritten(self, space: Space, **arguments: Any) -> dict[str, Any]:
        """Write into the result: the input must stay as it was."""
        name, first = next(iter(arguments.items()))
        mine = first.copy()
        found = self(space, **{**arguments, name: mine})[self.result]
        kept = found.copy()
        if found.flags.writeable:
            found[...] = -1
        elif np.shares_memory(found, mine):
            raise TypeError(f"{self.function} must return an array of its own, not a view of {name}")
        return {self.result: kept, f"{name} after {self.result} were overwritten (exact)": mine}


class Forward:
    """Drivers for a forward function alone, which returns y and a cache.

    The inputs of a case are its arguments, in order.
    """

    def __init__(self, forward: str) -> None:
        self.pair = Pair(forward, "")

    def __call__(self, space: Space, **arguments: Any) -> dict[str, Any]:
        return {"y": self.pair.forward(space, arguments)[0]}

    def float32(self, space: Space, **arguments: Any) -> dict[str, Any]:
        """Float32 goes in and must come out."""
        found = self(space, **{name: single(value) for name, value in arguments.items()})
        return {"y of float32 inputs": found["y"]}

    def strided(self, space: Space, **arguments: Any) -> dict[str, Any]:
        """Pass arrays whose elements are not next to each other in memory."""
        found = self(space, **{name: spread(value) for name, value in arguments.items()})
        return {"y, inputs not contiguous": found["y"]}

    def kept(self, space: Space, **arguments: Any) -> dict[str, Any]:
        """Call the function on other data: what the first call returned must stay as it was."""
        y, cache = self.pair.forward(space, arguments)
        before = [array.copy() for array in arrays(cache)]
        first = np.array(y)
        self.pair.forward(space, {name: other(value) for name, value in arguments.items()})
        changed = sum(not np.array_equal(a, b) for a, b in zip(before, arrays(cache), strict=True))
        return {"y": first, "arrays in the first cache that a second call changed": changed}


@contextmanager
def counted(space: Space, name: str) -> Iterator[list[None]]:
    """Count the calls of a function that the submission makes through its global name: one entry for each call."""
    original = space[name]
    calls: list[None] = []

    def noted(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return original(*args, **kwargs)

    places = [f.__globals__ for f in space.values()
              if hasattr(f, "__globals__") and f.__globals__.get(name) is original]
    for place in places:
        place[name] = noted
    try:
        yield calls
    finally:
        for place in places:
            place[name] = original


def named(function: str, returned: Any, names: Sequence[str]) -> dict[str, Any]:
    """Give names to what a function returned. Raise TypeError, with a sentence for the student, if the number differs.

    A function with one name may return the value itself or a tuple of one value.
    """
    values = returned if isinstance(returned, (tuple, list)) else (returned,)
    if len(values) != len(names) or any(value is None for value in values):
        raise TypeError(f"{function} must return {', '.join(names)}, not {described(returned)}")
    return dict(zip(names, values, strict=True))


def described(value: Any) -> str:
    """Say in a few words what a function returned: "a tuple of 3", "an array of shape (2, 3)", "None"."""
    if value is None:
        return "None"
    if isinstance(value, (tuple, list, dict)):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    return f"an object of type {type(value).__name__}"


def single(value: Any) -> Any:
    """Return a float64 array as float32, and the arrays inside dictionaries likewise; anything else unchanged."""
    if isinstance(value, dict):
        return {name: single(part) for name, part in value.items()}
    return frozen(value.astype(np.float32)) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value


def spread(value: Any) -> Any:
    """Return an array with equal elements, which has a gap after each of them in memory; anything else unchanged."""
    if isinstance(value, dict):
        return {name: spread(part) for name, part in value.items()}
    if not isinstance(value, np.ndarray) or value.ndim == 0:
        return value
    wide = np.full((*value.shape[:-1], 2 * value.shape[-1]), 7, value.dtype)
    wide[..., ::2] = value
    return frozen(wide)[..., ::2]


def other(value: Any) -> Any:
    """Return different numbers of the same shape; anything that is not a float array unchanged."""
    if isinstance(value, dict):
        return {name: other(part) for name, part in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return frozen(np.cos(3 * value) + value[..., ::-1] if value.ndim else np.cos(3 * value))
    return value


def frozen(array: np.ndarray) -> np.ndarray:
    """Make an array read-only, and return it."""
    array.setflags(write=False)
    return array


def arrays(value: Any) -> Iterator[np.ndarray]:
    """Yield the arrays in a cache: in tuples, lists, dictionaries and the attributes of objects, in order."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from arrays(part)
    elif isinstance(value, dict):
        yield from arrays(list(value.values()))
    elif type(value).__module__ not in ("builtins", "numpy") and hasattr(value, "__dict__"):
        yield from arrays(vars(value))
