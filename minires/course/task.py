"""Describe the tasks of the course: what a submission must define, and the inputs on which it is tried.

This module needs only NumPy and the standard library, because a worker process reads it without the rest of minires.
"""
from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
HALVES = "visible", "hidden"
VISIBLE_SHARE = 0.4  # of a task's points; the hidden cases earn the rest
FREE_POINTS = 15     # of an assignment's 100; a teacher marks them by hand


@dataclass(frozen=True)
class Case:
    """One input of a task."""

    label: str                # the geometry or situation, for the student: "stride 2, padding 1"
    inputs: dict[str, Any]    # keyword arguments of the driver: arrays, numbers, text, None, and lists, tuples,
                              # slices and dictionaries of these
    driver: str = ""          # a driver other than the task's; "" for the task's own


@dataclass(frozen=True)
class Task:
    """One task of an assignment, which earns points."""

    name: str                 # "a4.3"
    title: str                # what a report names: "batch_norm_backward"
    points: int               # 40 % for the visible cases, 60 % for the hidden ones
    needs: tuple[str, ...]    # names that the submission must define, in the order of check("a4.3", *answers)
    driver: str               # name in drivers_a4.py: "batch_norm", or "batch_norm.twice" for an attribute
    visible: Callable[[np.random.Generator], list[Case]] = field(repr=False)
    hidden: Callable[[np.random.Generator], list[Case]] = field(repr=False)
    minires: bool = False     # whether the submission may import minires
    withheld: tuple[str, ...] = ()  # what is deleted from minires before the submission runs: "nn.ResidualBlock"
    cpu_seconds: int = 10     # computing time of all cases together

    @property
    def assignment(self) -> str:
        """The assignment's name: "a4"."""
        return self.name.partition(".")[0]

    def cases(self, half: str, seed: int) -> list[Case]:
        """Draw the cases of a half, "visible" or "hidden". The same seed draws the same numbers."""
        rng = np.random.default_rng([seed, HALVES.index(half), zlib.crc32(self.name.encode())])
        return (self.visible if half == "visible" else self.hidden)(rng)

    def driver_of(self, case: Case) -> str:
        """Return the name of the driver that exercises a submission on this case."""
        return case.driver or self.driver


class CourseError(ValueError):
    """What was asked of the course cannot be done; the message says what was expected and given."""


@cache
def assignments() -> tuple[str, ...]:
    """Return the names of the assignments that exist, in order: "a1", "a2", ..."""
    found = [re.fullmatch(r"tasks_(a\d+)", path.stem) for path in HERE.glob("tasks_*.py")]
    return tuple(sorted((m[1] for m in found if m), key=lambda name: int(name[1:])))


def known(assignment: str) -> str:
    """Return the assignment's name in its own spelling. Raise CourseError if there is no such assignment."""
    name = assignment.lower()
    if name not in assignments():
        raise CourseError(f"expected an assignment, one of {', '.join(assignments())}; got {assignment!r}")
    return name


@cache
def tasks(assignment: str) -> dict[str, Task]:
    """Return {name: Task} of an assignment, in the order of its tasks. Raise CourseError if it does not exist."""
    listed: list[Task] = import_module(f"{__package__}.tasks_{known(assignment)}").TASKS
    return {task.name: task for task in listed}


def find(name: str) -> Task:
    """Return a task by its name, such as "a4.3". Raise CourseError if it does not exist."""
    inside = tasks(name.partition(".")[0])
    if name.lower() not in inside:
        raise CourseError(f"expected a task, one of {', '.join(inside)}; got {name!r}")
    return inside[name.lower()]


def robust(pair: str, inputs: dict[str, Any]) -> list[Case]:
    """Return the cases that every pair of forward and backward functions is tried on besides plain values.

    pair: name of a `drivers.Pair` in the assignment's drivers
    inputs: the arguments of the forward function in order, and dy
    """
    return [Case("float32", inputs, f"{pair}.float32"),
            Case("an input that is not contiguous in memory", inputs, f"{pair}.strided"),
            Case("forward on other data before backward", inputs, f"{pair}.interleaved"),
            Case("backward twice with one cache", inputs, f"{pair}.twice"),
            Case("what backward returns is its own memory", inputs, f"{pair}.apart"),
            Case("backward does not call forward", inputs, f"{pair}.alone")]
