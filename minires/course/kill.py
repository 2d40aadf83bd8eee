"""Count which bugs of the bank the graders reject, and how far two bugs are apart: the kill matrix."""
from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from . import diagnose, solution
from .bank import bugs
from .diagnose import Known
from .task import HALVES, Task, assignments, tasks
from .worker import Raised

APART = 1e-4  # the least distance of two bugs that have different sentences


class Row(NamedTuple):
    """One realisation of a bug in one task: on how many seeds each half rejects it."""

    task: str
    bug: int
    realisation: int
    visible: int
    hidden: int
    either: int
    sentence: str


def matrix(task: Task, seeds: Iterable[int]) -> list[Row]:
    """Return a row for every realisation of the task's bugs."""
    drawn = {seed: [solution.drawn(task, half, seed) for half in HALVES] for seed in seeds}
    rows = []
    for bug, i, space in solution.planted(task):
        caught = [[not diagnose.all_right(solution.outcomes(task, space, cases), expected)
                   for cases, expected in halves] for halves in drawn.values()]
        rows.append(Row(task.name, bug.number, i, sum(v for v, _ in caught), sum(h for _, h in caught),
                        sum(v or h for v, h in caught), bug.sentence))
    return rows


def survivors(task: Task, seeds: Iterable[int]) -> list[tuple[int, int, int]]:
    """Return (bug, realisation, seed) where no case rejects a bug. The cases after the first that does are not run."""
    planted, found = solution.planted(task), []
    for seed in seeds:
        cases = [pair for half in HALVES for pair in zip(*solution.drawn(task, half, seed), strict=True)]
        found += [(bug.number, i, seed) for bug, i, space in planted
                  if not any(diagnose.wrong(solution.outcomes(task, space, [case])[0], expected)
                             for case, expected in cases)]
        solution.drawn.cache_clear()  # a hundred seeds of every task need much memory
    return found


def apart(a: Known, b: Known) -> float:
    """Return the largest distance of two bugs' arrays over all cases; inf if one has an exception or another shape."""
    furthest = 0.0
    for x, y in zip(a.outcomes, b.outcomes, strict=True):
        if isinstance(x, Raised) or isinstance(y, Raised):
            furthest = max(furthest, 0.0 if isinstance(x, Raised) and isinstance(y, Raised) else math.inf)
        else:
            furthest = max([furthest, *(diagnose.distance(x[n], y[n]) if n in x and n in y else math.inf
                                        for n in {*x, *y} if n != "seconds")])
    return furthest


def too_near(task: Task, seed: int = 0) -> list[tuple[int, int, float]]:
    """Return (a bug, another, their distance) for bugs of a task that answer alike on all cases of a seed and have
    different sentences. Bugs that only raise are left out, because an exception explains nothing."""
    halves = [diagnose.known_bugs(task, half, seed) for half in HALVES]
    whole = [Known(v.numbers, v.sentences, v.outcomes + h.outcomes, v.wrong | h.wrong)
             for v, h in zip(*halves, strict=True)]
    return [(a.numbers[0], b.numbers[0], apart(a, b)) for a, b in itertools.combinations(whole, 2)
            if a.sentences != b.sentences and apart(a, b) < APART
            and not all(isinstance(x, Raised) for x in (*a.outcomes, *b.outcomes))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the kill matrix. Return 1 if a bug survives a seed, two bugs answer alike, or a number is missing."""
    parser = argparse.ArgumentParser(prog="python -m minires.course.bank", description=main.__doc__)
    parser.add_argument("assignments", nargs="*", default=list(assignments()), metavar="ASSIGNMENT",
                        help=f"default: {' '.join(assignments())}")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="try the seeds 0 ... N - 1 (default: 5)")
    parser.add_argument("--task", metavar="NAME", help="only this task, such as a4.3")
    args = parser.parse_args(arguments)
    bad, planted = [], 0
    for assignment in args.assignments:
        print(f"{assignment}: rejected on how many of {args.seeds} seeds\n"
              f"{'task':8}{'bug':>4} {'visible':>8} {'hidden':>8} {'either':>8}  this is what you get when ...")
        for task in tasks(assignment).values():
            if args.task not in (None, task.name):
                continue
            for row in matrix(task, range(args.seeds)):
                planted += 1
                survives = row.either < args.seeds
                bad += [f"{row.task}: bug {row.bug}, realisation {row.realisation}, survives"] * survives
                print(f"{row.task:8}{row.bug:4} {row.visible:8} {row.hidden:8} {row.either:8}  "
                      f"{row.sentence}{' SURVIVES' * survives}", flush=True)
            bad += [f"{task.name}: bugs {a} and {b} answer alike (distance {d:.1e}), with different sentences"
                    for a, b, d in too_near(task)]
        numbers = [bug.number for bug in bugs(assignment)]
        if numbers != list(range(1, len(numbers) + 1)):
            bad.append(f"{assignment}: the bugs' numbers are {numbers}")
        print(f"{assignment}: {len(numbers)} bugs\n")
    print("\n".join(bad) or f"all {planted} plantings are rejected on every seed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
