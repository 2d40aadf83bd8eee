"""Exercise the answers of assignment A1: Values, the order of the sweep, and the sweep.

A program is a list of assignments in Python, such as ["a = x * w", "y = a * a + a"]; its last line is the result. A
graph is a list of [data, parents, derivatives], parents first: the numbers of a Value's parents in the list, and its
derivatives with respect to them. The last entry is the result.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Space = dict[str, Any]


class Node:
    """A Node is a Value whose derivatives are given numbers."""

    def __init__(self, data: float, parents: tuple[Node, ...], derivatives: Sequence[float], grad: float = 0.0) -> None:
        self.data, self.parents, self.derivatives, self.grad = data, parents, derivatives, grad

    @property
    def shares(self) -> Callable[[float], tuple[float, ...]] | None:
        """A function: g -> one number for each parent; None for a leaf."""
        return self._shares if self.parents else None

    def _shares(self, g: float) -> tuple[float, ...]:
        return tuple([g * derivative for derivative in self.derivatives])

    def __repr__(self) -> str:
        return f"Value({self.data}, grad={self.grad})"


def nodes(graph: list[Any], grads: Sequence[float] = ()) -> list[Node]:
    """Return the Nodes of a graph. `grads` are the leaves' gradients at the start, 0 by default."""
    made: list[Node] = []
    given = iter(grads)
    for data, parents, derivatives in graph:
        grad = next(given, 0.0) if not parents else 0.0
        made.append(Node(data, tuple(made[i] for i in parents), derivatives, grad))
    return made


def chain(derivatives: np.ndarray) -> list[Node]:
    """Return a chain of Nodes: a leaf, and one Node for each derivative."""
    made = [Node(1.0, (), ())]
    for derivative in derivatives.tolist():
        made.append(Node(1.0, (made[-1],), (derivative,)))
    return made


# ----------------------------------------------------------------------------- 1.1, 1.2: Values


def run(space: Space, program: list[str], leaves: dict[str, float]) -> dict[str, Any]:
    """Run a program with the submission's Values: its result, and the gradients of the leaves."""
    names: dict[str, Any] = {name: space["Value"](data) for name, data in leaves.items()}
    starts = list(names.values())
    functions = {name: answer for name, answer in space.items() if name != "Value"}
    scope = {"__builtins__": {}, **functions, **names}
    result: Any = None
    for line in program:
        target, expression = line.split(" = ")
        result = scope[target] = eval(expression, scope)
    if not hasattr(result, "data") or not hasattr(result, "parents"):
        raise TypeError(f"{'; '.join(program)} must give a Value, not an object of type {type(result).__name__}")
    return {"result": number(result.data, "the data of the result"),
            "gradients of the leaves": gradients(result, starts)}


def run_all(space: Space, programs: list[list[str]], leaves: dict[str, float]) -> dict[str, Any]:
    """Run several programs: all results, and all gradients, one row for each program."""
    found = [run(space, program, leaves) for program in programs]
    return {name: np.stack([one[name] for one in found]) for name in found[0]}


def gradients(result: Any, leaves: Sequence[Any]) -> np.ndarray:
    """Return d result / d leaf for every leaf, from the `parents` and `shares` of the Values."""
    order: list[Any] = []
    seen: set[int] = set()
    todo = [(result, False)]
    while todo:
        v, parents_done = todo.pop()
        if parents_done:
            order.append(v)
        elif id(v) not in seen:
            seen.add(id(v))
            todo.append((v, True))
            todo += [(parent, False) for parent in parents_of(v)]
    total = dict.fromkeys(map(id, order), 0.0)
    total[id(result)] = 1.0
    for v in reversed(order):
        parents = parents_of(v)
        for parent, share in zip(parents, shares_of(v, total[id(v)], len(parents)), strict=True):
            total[id(parent)] += share
    return np.array([total.get(id(leaf), 0.0) for leaf in leaves])


def parents_of(v: Any) -> tuple[Any, ...]:
    """Return a Value's parents. Raise TypeError if they are not Values."""
    if not isinstance(v.parents, (tuple, list)) or not all(hasattr(p, "parents") for p in v.parents):
        raise TypeError(f"the parents of a Value must be a tuple of Values, got {v.parents!r}"[:200])
    return tuple(v.parents)


def shares_of(v: Any, g: float, count: int) -> list[float]:
    """Return a Value's shares. Raise TypeError if they are not one number for each parent."""
    if count == 0:
        return []
    if not callable(v.shares):
        raise TypeError(f"the shares of a Value with parents must be a function of g, got {v.shares!r}"[:200])
    shares = v.shares(g)
    shares = list(shares) if isinstance(shares, (tuple, list)) else [shares]
    if len(shares) != count:
        raise TypeError(f"shares(g) must return one number for each of the {count} parents, got {len(shares)}")
    return [float(number(share, "a share")) for share in shares]


def number(value: Any, what: str) -> np.ndarray:
    """Return a number as a 0-d array. Raise TypeError if it is something else."""
    try:
        return np.array(float(value))
    except (TypeError, ValueError):
        raise TypeError(f"{what} must be a number, not an object of type {type(value).__name__}") from None


# ------------------------------------------------------------------------------ 1.3: the order


def order(space: Space, graph: list[Any]) -> dict[str, Any]:
    """Sweep a graph from the end of topological's list: the gradient that each Value has when its turn comes."""
    return {"gradients, swept from the end of your list": at_their_turns(space, nodes(graph))}


def order_all(space: Space, graphs: list[list[Any]]) -> dict[str, Any]:
    """Do the same for several graphs."""
    return {"gradients, swept from the end of your lists": np.concatenate(
        [at_their_turns(space, nodes(graph)) for graph in graphs])}


def order_chain(space: Space, derivatives: np.ndarray) -> dict[str, Any]:
    """Do the same for a chain, of which the derivatives of each Value with respect to its parent are given."""
    return {"gradients, swept from the end of your list": at_their_turns(space, chain(derivatives))}


def at_their_turns(space: Space, made: list[Node]) -> np.ndarray:
    """Sweep Nodes from the end of topological's list. Return the gradient that each has when its turn comes.

    A Value that is missing has 0, and the shares of a Value that occurs twice are counted twice. One that occurs again
    although nothing had arrived at its first turn has 1 more. So the numbers are right if the list is: all Values, each
    once, each after its parents.
    """
    returned = space["topological"](made[-1])
    if not isinstance(returned, (list, tuple)):
        raise TypeError(f"topological must return a list of Values, not an object of type {type(returned).__name__}")
    number_of = {id(v): i for i, v in enumerate(made)}
    arrived, at_turn, idle = np.zeros(len(made)), np.zeros(len(made)), set[int]()
    arrived[-1] = 1.0
    for v in reversed(returned):
        if id(v) not in number_of:
            raise TypeError("topological must return the Values that the result was computed from, but its list has "
                            f"an object of type {type(v).__name__} that is not one of them")
        i = number_of[id(v)]
        at_turn[i] += arrived[i] + (i in idle)
        if arrived[i] == 0:
            idle.add(i)
        for parent, derivative in zip(v.parents, v.derivatives, strict=True):
            arrived[number_of[id(parent)]] += arrived[i] * derivative
    return at_turn


# ------------------------------------------------------------------------------ 1.4: the sweep


def swept(space: Space, made: list[Node]) -> None:
    """Call sweep on a list of Nodes."""
    returned = space["sweep"](list(made))
    if returned is not None:
        raise TypeError(f"sweep must return nothing and write into .grad; it returned {type(returned).__name__}")


def leaf_gradients(made: Sequence[Node]) -> np.ndarray:
    """Return the gradients of the leaves, in order."""
    return np.array([v.grad for v in made if not v.parents])


def sweep(space: Space, graph: list[Any], grads: Sequence[float] = ()) -> dict[str, Any]:
    """Sweep a graph twice: the gradients of the leaves after each sweep, and of the computed Values at the end."""
    made = nodes(graph, grads)
    swept(space, made)
    once = leaf_gradients(made)
    swept(space, made)
    return {"gradients of the leaves": once, "gradients of the leaves, after a second sweep": leaf_gradients(made),
            "gradients of the computed Values, after a second sweep": np.array([v.grad for v in made if v.parents])}


def sweep_all(space: Space, graphs: list[list[Any]]) -> dict[str, Any]:
    """Sweep several graphs, each twice."""
    found = [sweep(space, graph) for graph in graphs]
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def sweep_chain(space: Space, derivatives: np.ndarray) -> dict[str, Any]:
    """Sweep a chain, of which the derivatives of each Value with respect to its parent are given."""
    made = chain(derivatives)
    swept(space, made)
    return {"gradient of the leaf": leaf_gradients(made)}


def sweep_two(space: Space, graph: list[Any], first: int) -> dict[str, Any]:
    """Sweep from Value number `first`, whose leaves the graph shares, then from the last: both gradients add."""
    made = nodes(graph)
    swept(space, made[:first + 1])
    swept(space, made)
    return {"gradients of the leaves, of two results": leaf_gradients(made)}
