"""Run the master's solution, as it is or with bugs planted, on a task's cases."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

from .bank import Bug, Change, bugs, changed
from .master import master, solution
from .task import Case, CourseError, Task
from .worker import Outcome, Space, define, found, run


@cache
def sources(assignment: str) -> tuple[tuple[str, str, str], ...]:
    """Return (the cell's name, the task it answers or "", its source) of every code cell that can count."""
    return tuple((f"cell {number}", cell.task if cell.kind == "answer" else "", cell.source)
                 for number, cell in enumerate(solution(master(assignment)), 1)
                 if cell.type == "code" and cell.kind in ("", "answer"))


def answer(task: Task) -> str:
    """Return the solution's text of a task."""
    return "\n\n".join(source for _, name, source in sources(task.assignment) if name == task.name)


def space(assignment: str, changes: Mapping[str, Sequence[Change]] | None = None) -> Space:
    """Return the names that the solution defines.

    changes: {task: (old, new) changes of its answer}; see `bank.changed`

    Raises CourseError if the solution itself cannot be defined, or a change does not fit.
    """
    changes = changes or {}
    cells, done = [], set()
    for cell, task, source in sources(assignment):
        if task in changes and task not in done:
            answers = [text for _, name, text in sources(assignment) if name == task]
            source = changed("\n\n".join(answers), *changes[task])
        elif task in changes:
            continue  # its text is part of the task's first cell already
        done.add(task)
        cells.append((cell, source))
    if unknown := set(changes) - done:
        raise CourseError(f"{assignment} has no answers for {', '.join(sorted(unknown))}")
    names: Space = {"__name__": f"solution_{assignment}"}
    notes = define(cells, names, {"minires"})
    if notes and not changes:
        raise CourseError(f"the solution of {assignment} cannot be defined: {'; '.join(notes)}")
    return names


@cache
def plain_space(assignment: str) -> Space:
    """Return the names that the unchanged solution defines, made once."""
    return space(assignment)


def driver(task: Task, case: Case) -> Callable[..., dict[str, Any]]:
    """Return the function that exercises a submission on this case."""
    return found(import_module(f"{__package__}.drivers_{task.assignment}"), task.driver_of(case))


def outcomes(task: Task, names: Space, cases: Sequence[Case]) -> list[Outcome]:
    """Exercise the names that a submission defines on every case, in this process."""
    return [run(driver(task, case), names, task.needs, case.inputs) for case in cases]


@cache
def drawn(task: Task, half: str, seed: int) -> tuple[tuple[Case, ...], tuple[dict[str, Any], ...]]:
    """Return (the cases, what the solution answers for each): drawn and computed once.

    Raises CourseError if the solution raises, which is an error of the assignment.
    """
    cases = tuple(task.cases(half, seed))
    expected = []
    for case, outcome in zip(cases, outcomes(task, plain_space(task.assignment), cases), strict=True):
        if not isinstance(outcome, dict):
            raise CourseError(f"the solution of {task.name} fails on its own case {case.label!r}: {outcome}")
        expected.append(outcome)
    return cases, tuple(expected)


def planted(task: Task) -> list[tuple[Bug, int, Space]]:
    """Return (bug, number of its realisation, names that the changed solution defines) for the task's bugs."""
    return [(bug, i, space(task.assignment, {task.name: changes}))
            for bug in bugs(task.assignment) for i, changes in enumerate(bug.changes.get(task.name, ()))]
