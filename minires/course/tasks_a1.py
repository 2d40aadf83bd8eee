"""The tasks of assignment A1, a scalar engine, and the cases on which a submission is tried."""
from __future__ import annotations

from typing import Any

import numpy as np

from .task import Case, Task

Graph = list[Any]
MANY = 50      # random programs and graphs
LONG = 20_000  # Values in a chain


def drawn(rng: np.random.Generator, *names: str) -> dict[str, float]:
    """Return {name: a number}, positive or negative, between 0.5 and 2 in size; a name with + gets a positive one."""
    sizes = rng.uniform(0.5, 2, len(names)) * rng.choice((-1, 1), len(names))
    return {name.rstrip("+"): float(abs(size) if name.endswith("+") else size)
            for name, size in zip(names, sizes, strict=True)}


def programs(rng: np.random.Generator, leaves: dict[str, float], *texts: str) -> list[Case]:
    """Return one case for each program. The label is the program."""
    return [Case(f"{text}, at " + ", ".join(f"{name} = {n:.4g}" for name, n in leaves.items() if name in words(text)),
                 {"program": lines(text), "leaves": leaves}) for text in texts]


def lines(text: str) -> list[str]:
    """Return the assignments of a program: "x * w" is "y = x * w"."""
    return text.split("; ") if " = " in text else [f"y = {text}"]


def words(text: str) -> set[str]:
    """Return the names in a program."""
    return set("".join(c if c.isalnum() else " " for c in text).split())


# ---------------------------------------------------------------------------- 1.1 arithmetic


def arithmetic_visible(rng: np.random.Generator) -> list[Case]:
    """Draw the visible cases of arithmetic."""
    return programs(rng, drawn(rng, "x", "w", "b"), "x * w", "x + x", "x * x", "x + x * w", "a = x * w; y = a * a + a",
                    "3 * (x - w) - 2 * (-b)", "x / w * b", "2 - x * w", "3 / (x * w)", "b * (x * w) ** 3",
                    "b / (x * x + 1) ** 2", "a = x * w + b; y = (a - x) * (a - w) / (a * a + 2) - a / 4")


def arithmetic_hidden(rng: np.random.Generator) -> list[Case]:
    """Draw the hidden cases of arithmetic."""
    leaves = drawn(rng, "x", "w", "b")
    positive = drawn(rng, "x+", "w+", "b+")
    return [*programs(rng, leaves, "x - x + w", "x / x * w", "x * x * x - w", "2 + x * w", "(2 - x) * (x - 2)",
                      "1 / x / 2", "b * x ** -2", "x ** 1 + w ** 2", "-(-x) * w"),
            *programs(rng, positive, "w * x ** 0.5", "b * (x + w) ** -1.5"),
            *programs(rng, {"x": 3, "w": -2, "b": 5}, "x / w", "x ** 2 * w - b / x", "(b - 7) ** 3 / w"),
            Case(f"{MANY} random programs", {"programs": [random_program(rng) for _ in range(MANY)], "leaves": leaves},
                 "run_all")]


STEPS = ("{a} + {b}", "({a} - {b}) / 2", "{a} * {b} / ({b} * {b} + 1)", "{a} / ({b} * {b} + 2)", "2 - {a}",
         "1.5 / ({a} ** 2 + 1)", "-{a}", "0.5 * {a} - {b}", "({a} * {a} + 1) ** -0.5")


def random_program(rng: np.random.Generator) -> list[str]:
    """Return a program of 10 steps, whose operands are any of the values before: uneven depths, Values used often."""
    names = ["x", "w", "b"]
    program = []
    for i in range(10):
        a, b = names[-1], names[rng.integers(len(names))]
        if rng.random() < 0.5:
            a, b = b, a
        program.append(f"v{i} = " + STEPS[rng.integers(len(STEPS))].format(a=a, b=b))
        names.append(f"v{i}")
    return program


# -------------------------------------------------------------------------- 1.2 functions


def functions_visible(rng: np.random.Generator) -> list[Case]:
    """Draw the visible cases of functions."""
    plus, minus = drawn(rng, "x+"), {"x": -drawn(rng, "x+")["x"]}
    return [*programs(rng, plus, "exp(x)", "log(x)", "tanh(x)", "relu(x)", "log(exp(tanh(x)))", "tanh(log(x))",
                      "exp(exp(log(x)))", "tanh(relu(x))", "relu(log(exp(x)))", "tanh(tanh(exp(x)))"),
            *programs(rng, minus, "exp(x)", "tanh(x)", "relu(x)", "exp(relu(x))", "relu(tanh(x))"),
            *programs(rng, {"x": 0.0}, "exp(relu(x))", "tanh(x)")]


def functions_hidden(rng: np.random.Generator) -> list[Case]:
    """Draw the hidden cases of functions."""
    plus, minus = drawn(rng, "x+"), {"x": -drawn(rng, "x+")["x"]}
    return [*programs(rng, plus, "exp(tanh(log(x)))", "log(log(exp(exp(x))))", "tanh(relu(exp(x)))",
                      "exp(log(tanh(x)))"),
            *programs(rng, minus, "exp(tanh(exp(x)))", "tanh(exp(relu(x)))", "log(exp(x))"),
            *programs(rng, {"x": 0}, "relu(tanh(x))", "exp(x)"), *programs(rng, {"x": -0.0}, "relu(x)"),
            *programs(rng, {"x": 400.0}, "tanh(x)", "relu(x)", "log(x)", "log(exp(x))"),
            *programs(rng, {"x": -400.0}, "tanh(x)", "relu(x)", "exp(x)")]


# ------------------------------------------------------------------- 1.3, 1.4 graphs


def graph(rng: np.random.Generator, *parents: tuple[int, ...], data: tuple[float, ...] = ()) -> Graph:
    """Return a graph with given parents and random numbers."""
    numbers = list(data) or rng.uniform(0.5, 2, len(parents)).tolist()
    return [[n, list(p), (rng.uniform(0.5, 1.5, len(p)) * rng.choice((-1, 1), len(p))).tolist()]
            for n, p in zip(numbers, parents, strict=True)]


L: tuple[int, ...] = ()  # a leaf
SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {
    "x * w": (L, L, (0, 1)),
    "a chain of four": (L, (0,), (1,), (2,)),
    "x * x": (L, (0, 0)),
    "x + x * w": (L, L, (0, 1), (0, 2)),
    "a = x * w; y = a * a + a": (L, L, (0, 1), (2, 2), (3, 2)),
    "a = x * w; b = a + x; y = a * b": (L, L, (0, 1), (2, 0), (2, 3)),
    "a = x * w; b = a + x; y = b * a": (L, L, (0, 1), (2, 0), (3, 2)),
    "two stacked skips": (L, (0,), (0, 1), (2,), (2, 3), (4,)),
    "two stacked skips, written the other way round": (L, (0,), (1, 0), (2,), (3, 2), (4,)),
    "a long and a short path": (L, (0,), (1,), (2,), (3,), (1, 4), (5, 0)),
    "a short and a long path": (L, (0,), (1,), (2,), (3,), (4, 1), (0, 5)),
}


def graphs_visible(rng: np.random.Generator) -> list[Case]:
    """Draw the visible cases of graphs."""
    return [*(Case(name, {"graph": graph(rng, *parents)}) for name, parents in SHAPES.items()),
            Case("a single leaf", {"graph": graph(rng, L)}),
            Case("a = x * w; b = a + x; y = b * a, where x and w are the same number, and a and b are",
                 {"graph": graph(rng, *SHAPES["a = x * w; b = a + x; y = b * a"], data=(2.0, 2.0, 4.0, 4.0, 16.0))})]


def random_graph(rng: np.random.Generator) -> Graph:
    """Return a graph of 12 Values in which every Value is used, many several times, and some have equal numbers."""
    parents: list[tuple[int, ...]] = [L, L, L]
    unused = {0, 1, 2}
    for i in range(3, 11):
        a, b = int(rng.integers(i)), int(rng.choice((i - 1, int(rng.integers(i)))))
        parents.append((a,) if rng.random() < 0.2 else (a, b))
        unused = (unused | {i}) - set(parents[-1])
    parents.append(tuple(int(i) for i in rng.permutation(sorted(unused))))
    return graph(rng, *parents, data=tuple(rng.integers(1, 4, len(parents)).tolist()))


def chain(rng: np.random.Generator, driver: str) -> Case:
    """Return a case with a chain of 20,000 Values."""
    return Case(f"a chain of {LONG:,} Values", {"derivatives": 1 + 1e-2 * rng.standard_normal(LONG - 1)}, driver)


def skips(rng: np.random.Generator, count: int) -> Graph:
    """Return stacked skips, x + f(x), of which every second is written f(x) + x."""
    parents: list[tuple[int, ...]] = [L]
    for i in range(count):
        n = len(parents) - 1
        parents += [(n,), (n, n + 1) if i % 2 else (n + 1, n)]
    return graph(rng, *parents)


def order_hidden(rng: np.random.Generator) -> list[Case]:
    """Draw the hidden cases of order."""
    return [Case(f"{MANY} random graphs", {"graphs": [random_graph(rng) for _ in range(MANY)]}, "order_all"),
            Case("eight stacked skips", {"graph": skips(rng, 8)}), chain(rng, "order_chain")]


def sweep_hidden(rng: np.random.Generator) -> list[Case]:
    """Draw the hidden cases of sweep."""
    shared = graph(rng, L, L, (0, 1), (2, 0), (1, 3), (2, 4))
    return [Case(f"{MANY} random graphs", {"graphs": [random_graph(rng) for _ in range(MANY)]}, "sweep_all"),
            Case("leaves whose .grad is not 0 at the start", {"graph": graph(rng, *SHAPES["x + x * w"]),
                                                              "grads": rng.uniform(1, 3, 2).tolist()}),
            Case("eight stacked skips", {"graph": skips(rng, 8)}),
            Case("two results that share their leaves", {"graph": shared, "first": 3}, "sweep_two"),
            chain(rng, "sweep_chain")]


TASKS = [
    Task("a1.1", "arithmetic of Value", 25, ("Value",), "run", arithmetic_visible, arithmetic_hidden),
    Task("a1.2", "exp, log, tanh, relu", 15, ("Value", "exp", "log", "tanh", "relu"), "run", functions_visible,
         functions_hidden),
    Task("a1.3", "topological", 20, ("topological",), "order", graphs_visible, order_hidden),
    Task("a1.4", "sweep", 25, ("sweep",), "sweep", graphs_visible, sweep_hidden),
]
