"""The tasks of assignment A2, Functions for the engine, and the cases on which a submission is tried."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .task import Case, Task

Shape = tuple[int, ...]
Rng = np.random.Generator
ARITHMETIC = "Add", "Sub", "Mul", "Div", "Maximum"
MANNERS = {"float32": "float32", "an input that is not contiguous in memory": "strided",
           "forward on other data before backward": "interleaved", "backward twice": "twice"}


def with_manners(operation: str, case: Case) -> list[Case]:
    """Return cases that try a Function on what 2 states as rules: dtypes, memory, and calls in another order."""
    return [Case(f"{case.label}: {words}", case.inputs, f"{operation}.{attribute}")
            for words, attribute in MANNERS.items()]


# ------------------------------------------------------------------------- 2.1, 2.2 broadcasting

PAIRS: list[tuple[Shape, Shape]] = [  # of two operands; each has another way to broadcast
    ((2, 3), (2, 3)), ((3, 1), (1, 4)), ((), (2, 3)), ((2, 3, 5), (5,)), ((2, 3), (3,)), ((2, 1), (2, 4)),
    ((1, 3), (4, 3)), ((2, 1, 4), (3, 1)), ((4,), (2, 1)), ((2, 3), ()), ((1,), (3, 2)), ((2, 1, 3), (1, 4, 1))]
SUMS: list[tuple[Shape, Shape]] = [  # (of g, what it is summed to)
    ((2, 3), (3,)), ((2, 3), (2, 1)), ((2, 3), (1, 3)), ((2, 3), ()), ((4,), (1,)), ((2, 3), (2, 3)),
    ((2, 3, 5), (5,)), ((2, 3, 4), (3, 1)), ((2, 3, 4), (2, 1, 4)), ((3, 2), (1, 1)), ((2, 3, 4), (1, 4)),
    ((2, 4, 3), (4, 3))]


def random_pairs(rng: Rng, count: int) -> list[tuple[Shape, Shape]]:
    """Return pairs of shapes with up to four axes that broadcast."""
    found: list[tuple[Shape, Shape]] = []
    for _ in range(count):
        full = [int(n) for n in rng.permutation([2, 3, 4, 5])[:rng.integers(1, 5)]]
        both = []
        for _ in range(2):
            ones = rng.random(len(full)) < 0.35
            shape = tuple(1 if one else n for one, n in zip(ones, full, strict=True))
            both.append(shape[rng.integers(len(shape) + 1) if rng.random() < 0.4 else 0:])
        found.append((both[0], both[1]))
    return found


def sums_visible(rng: Rng) -> list[Case]:
    """Draw the visible cases of sums."""
    return [Case(f"g of shape {shape} to shape {to}", {"g": rng.standard_normal(shape), "shape": to})
            for shape, to in SUMS]


def sums_hidden(rng: Rng) -> list[Case]:
    """Draw the hidden cases of sums."""
    cases = []
    for a, b in [((3, 1), (1, 4)), ((), (2, 3)), ((5,), (2, 3, 5)), *random_pairs(rng, 27)]:
        g = rng.standard_normal(np.broadcast_shapes(a, b))
        cases.append(Case(f"g of shape {g.shape} to shape {a}", {"g": g, "shape": a}))
    g = rng.standard_normal((3, 2, 4))
    return [*cases, Case("float32", {"g": g.astype(np.float32), "shape": (2, 1)}),
            Case("a g that is not contiguous in memory", {"g": np.asfortranarray(g), "shape": (3, 1, 4)})]


def two_operands(rng: Rng, operation: str, a: Shape, b: Shape) -> Case:
    """Return one case of an arithmetic operation. Maximum gets ties, and Div no divisor near 0."""
    shape = np.broadcast_shapes(a, b)
    x, y = rng.standard_normal(a), rng.standard_normal(b)
    if operation == "Div":
        y = rng.uniform(0.5, 2, b) * rng.choice((-1, 1), b)
    if operation == "Maximum":
        x, y = ties(rng, a, b)
    return Case(f"{operation}, shapes {a} and {b}", {"a": np.asarray(x), "b": np.asarray(y),
                                                     "dy": np.asarray(rng.standard_normal(shape))}, operation)


def ties(rng: Rng, a: Shape, b: Shape) -> tuple[Any, Any]:
    """Draw arrays that are equal somewhere. Where there are three elements or more, each is larger somewhere, too."""
    while True:
        x, y = rng.choice((-1.5, 0.25, 2.0), a), rng.choice((-1.5, 0.25, 2.0), b)
        found = bool(np.any(x == y)), bool(np.any(x > y)), bool(np.any(x < y))
        if found[0] and sum(found) >= min(np.broadcast(x, y).size, 3):
            return x, y


def arithmetic_visible(rng: Rng) -> list[Case]:
    """Draw the visible cases of arithmetic."""
    return [two_operands(rng, operation, *pair) for i, operation in enumerate(ARITHMETIC)
            for pair in (*PAIRS[:2], *PAIRS[2 + 2 * i:4 + 2 * i])]


def arithmetic_hidden(rng: Rng) -> list[Case]:
    """Draw the hidden cases of arithmetic."""
    pairs = [((3, 1), (1, 4)), ((), (2, 3)), ((5,), (2, 3, 5)), *random_pairs(rng, 27)]
    cases = [two_operands(rng, ARITHMETIC[i % 5], *pair) for i, pair in enumerate(pairs)]
    return cases + [case for operation in ARITHMETIC
                    for case in with_manners(operation, two_operands(rng, operation, (2, 3), (3,)))]


# --------------------------------------------------------------------------------- 2.3 products


def product(rng: Rng, a: Shape, b: Shape) -> Case:
    """Return one case of the matrix product."""
    x, y = rng.standard_normal(a), rng.standard_normal(b)
    return Case(f"shapes {a} and {b}", {"a": x, "b": y, "dy": rng.standard_normal((x @ y).shape)})


def products_visible(rng: Rng) -> list[Case]:
    """Draw the visible cases of products."""
    shapes = [((2, 3), (3, 4)), ((3, 3), (3, 3)), ((2, 3, 4), (2, 4, 5)), ((2, 3, 4), (4, 5))]
    return [product(rng, *pair) for pair in shapes]


def products_hidden(rng: Rng) -> list[Case]:
    """Draw the hidden cases of products."""
    shapes = [((5, 1, 3, 4), (2, 4, 6)), ((3, 4), (2, 4, 5)), ((1, 3, 4), (5, 4, 2)), ((3, 2, 2), (1, 2, 2)),
              ((1, 2), (2, 1)), ((4, 3, 2, 5), (4, 3, 5, 6)), ((4, 3), (3, 5))]
    return [*(product(rng, *pair) for pair in shapes), *with_manners("MatMul", product(rng, (2, 3, 4), (4, 5)))]


# ------------------------------------------------------------------------------ 2.4 reductions


def reduction(rng: Rng, operation: str, shape: Shape, axis: Any, keepdims: bool) -> Case:
    """Return one case of a reduction. Max gets ties."""
    x = rng.standard_normal(shape)
    if operation == "Max":  # few different numbers
        x = rng.choice((-1.0, 0.5, 1.75), shape)
    y = x.sum(axis, keepdims=keepdims)
    return Case(f"{operation} of shape {shape}, axis={axis}, keepdims={keepdims}",
                {"x": x, "axis": axis, "keepdims": keepdims, "dy": np.asarray(rng.standard_normal(np.shape(y)))},
                operation)


def reductions_visible(rng: Rng) -> list[Case]:
    """Draw the visible cases of reductions."""
    settings: list[tuple[Shape, Any, bool]] = [
        ((3, 5), 0, False), ((3, 4), 1, False), ((3, 4), 1, True), ((2, 5), None, False), ((2, 3, 4), -1, False),
        ((3, 4, 3), (1, 2), False), ((3, 4, 3), (0, 1), False), ((2, 3, 4), (0, 2), True)]
    return [reduction(rng, operation, *setting) for operation in ("Sum", "Mean", "Max") for setting in settings]


def reductions_hidden(rng: Rng) -> list[Case]:
    """Draw the hidden cases of reductions."""
    settings: list[tuple[Shape, Any, bool]] = [
        ((2, 3, 4, 5), (0, 2), False), ((2, 3, 4), (-1, 0), False), ((2, 3, 4), (1,), True), ((6,), 0, False),
        ((2, 3, 4), None, True), ((1, 3), 0, False), ((2, 3, 4, 2), (3, 1, 0), False), ((3, 3, 3), (-3, -1), False)]
    return [case for operation in ("Sum", "Mean", "Max")
            for case in (*(reduction(rng, operation, *setting) for setting in settings),
                         *with_manners(operation, reduction(rng, operation, (3, 4, 5), (0, 2), False)))]


# ---------------------------------------------------------------------------------- 2.5 shapes


def moved(rng: Rng, operation: str, label: str, shape: Shape, option: Any, order: str = "C") -> Case:
    """Return one case of a Function that moves numbers. order: the memory order of dy, "C" or "F" """
    x = rng.standard_normal(shape)
    forward: dict[str, Any] = {"Reshape": x.reshape, "Transpose": x.transpose, "GetItem": x.__getitem__}
    y = forward[operation](option)
    dy = np.asarray(rng.standard_normal(np.shape(y)))
    name = {"Reshape": "shape", "Transpose": "axes", "GetItem": "index"}[operation]
    return Case(f"{operation} of shape {shape}, {label}",
                {"x": x, name: option, "dy": np.asfortranarray(dy) if order == "F" else dy}, operation)


def reshapes(rng: Rng, pairs: Sequence[tuple[Shape, Shape]], order: str = "C") -> list[Case]:
    """Return a case of Reshape for each (shape, new shape).

    order: memory order of g, "C" or "F"
    """
    words = ", with g in Fortran's memory order" if order == "F" else ""
    return [moved(rng, "Reshape", f"to {to}{words}", shape, to, order) for shape, to in pairs]


def transposes(rng: Rng, pairs: Sequence[tuple[Shape, Shape]]) -> list[Case]:
    """Return a case of Transpose for each (shape, axes)."""
    return [moved(rng, "Transpose", f"axes={axes}", shape, axes) for shape, axes in pairs]


def items(rng: Rng, pairs: Sequence[tuple[Shape, str, Any]]) -> list[Case]:
    """Return a case of GetItem for each (shape, the index in words, index)."""
    return [moved(rng, "GetItem", f"x[{words}]", shape, index) for shape, words, index in pairs]


def shapes_visible(rng: Rng) -> list[Case]:
    """Draw the visible cases of shapes."""
    return [*reshapes(rng, [((2, 3, 4), (4, 6)), ((6,), (2, 3))]), *reshapes(rng, [((3, 4), (6, 2))], "F"),
            *transposes(rng, [((2, 3), (1, 0)), ((3, 3, 3), (1, 2, 0)), ((2, 3, 4), (2, 0, 1))]),
            *items(rng, [((5, 4), "1:, ::2", (slice(1, None), slice(None, None, 2))), ((4, 3), "2", 2),
                         ((4,), "[0, 2, 0]", np.array([0, 2, 0])), ((3, 2), "1, 0", (1, 0)),
                         ((4, 3), "[1, 3, 1, 1]", np.array([1, 3, 1, 1]))])]


def shapes_hidden(rng: Rng) -> list[Case]:
    """Draw the hidden cases of shapes."""
    mask = np.array([True, False, True, False, True])
    cases = [*reshapes(rng, [((2, 6), (3, 4)), ((5,), (5, 1)), ((1,), ()), ((2, 3, 2, 5), (6, 10))]),
             *reshapes(rng, [((2, 3, 4), (4, 6)), ((12,), (2, 3, 2))], "F"),
             *transposes(rng, [((2, 3, 4, 5), (3, 0, 2, 1)), ((3, 3, 3), (2, 0, 1)), ((4,), (0,)),
                               ((2, 2, 2, 2), (1, 2, 3, 0))]),
             *items(rng, [((5, 4), "[0, 4, 0], [3, 1, 3]", (np.array([0, 4, 0]), np.array([3, 1, 3]))),
                          ((5, 2), "mask", mask), ((3, 4, 5), "..., ::-2", (..., slice(None, None, -2))),
                          ((3, 4), "None, 1", (None, 1)), ((2, 5), ":, [4, 4, 0]", (slice(None), np.array([4, 4, 0]))),
                          ((6,), "-2", -2)])]
    (reshape,), (transpose,) = reshapes(rng, [((3, 4), (2, 6))]), transposes(rng, [((2, 3, 4), (1, 2, 0))])
    (item,) = items(rng, [((4, 3), "[1, 3, 1]", np.array([1, 3, 1]))])
    return [*cases, *with_manners("Reshape", reshape), *with_manners("Transpose", transpose),
            *with_manners("GetItem", item)]


# ----------------------------------------------------------------------------- 2.6 cross-entropy


def loss(rng: Rng, n: int, k: int, scale: float = 2.0, words: str = "") -> Case:
    """Return one case of the cross-entropy of n rows of k logits."""
    z, labels = scale * rng.standard_normal((n, k)), rng.integers(0, k, n)
    return Case(f"{n} rows of {k} logits{words}", {"z": z, "labels": labels, "dy": np.array(rng.uniform(1.5, 3))})


def losses_visible(rng: Rng) -> list[Case]:
    """Draw the visible cases of losses."""
    cases = [loss(rng, 5, 4), loss(rng, 3, 6), loss(rng, 7, 2), loss(rng, 6, 3, 1e4, " of about 10,000")]
    twice = loss(rng, 4, 5)
    return [*cases, Case(f"{twice.label}, backward called twice", twice.inputs, "CrossEntropy.twice")]


def losses_hidden(rng: Rng) -> list[Case]:
    """Draw the hidden cases of losses."""
    far = loss(rng, 5, 3, 1e4, " of about 10,000")
    return [loss(rng, 6, 10), loss(rng, 1, 3), loss(rng, 9, 4, 30.0), far, loss(rng, 8, 1),
            *with_manners("CrossEntropy", loss(rng, 4, 7)),
            Case(f"{far.label}, float32", far.inputs, "CrossEntropy.float32")]


TASKS = [
    Task("a2.1", "unbroadcast", 15, ("unbroadcast",), "unbroadcast", sums_visible, sums_hidden),
    Task("a2.2", "Add, Sub, Mul, Div, Maximum", 20, ARITHMETIC, "Add", arithmetic_visible, arithmetic_hidden),
    Task("a2.3", "MatMul", 15, ("MatMul",), "MatMul", products_visible, products_hidden),
    Task("a2.4", "Sum, Mean, Max", 15, ("Sum", "Mean", "Max"), "Sum", reductions_visible, reductions_hidden),
    Task("a2.5", "Reshape, Transpose, GetItem", 10, ("Reshape", "Transpose", "GetItem"), "Reshape", shapes_visible,
         shapes_hidden),
    Task("a2.6", "CrossEntropy", 10, ("CrossEntropy",), "CrossEntropy", losses_visible, losses_hidden),
]
