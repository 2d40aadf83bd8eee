"""Count how many planted bugs the diagnosis names: `python tests/course/named.py a3 a4`.

With `--write docs/course/teachers.md` the counts go into named.json, beside this file, and as a table into that page.
With `--third` it counts the plantings in third_hand/, from which the bank has not learned, for a table of their own.

The files alternates_aN.py beside this one hold right answers that were written from the prose alone, by another hand
than the bank's, in several styles. Into these answers the bank's bugs are planted, each from its sentence alone. What
the diagnosis says about them is counted:

named     the bug that was planted, and no other
among     the planted bug and another that gives the same numbers
fact      no cause, but the report states the exception with its line, or a wrong shape, type or factor
silent    no cause, only how many entries are right
wrongly   only other bugs

Other wrong answers (noise, shuffles, signs, half precision, mistakes that the bank does not hold) must be named never.
"""
from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

from minires.course import diagnose, solution
from minires.course.bank import changed
from minires.course.diagnose import Verdict
from minires.course.task import HALVES, Task, tasks
from minires.course.worker import Outcome, Raised, Space, define
from minires.testing import planting

HERE = Path(__file__).parent
KINDS = "named", "among", "fact", "silent", "wrongly"
ANSWER = "cell of the answer"
NETWORKS = {"a6", "a7", "a8"}  # assignments whose cases take seconds
OTHER_ANSWERS = 20  # wrong answers a task that are no bug of the bank
RECORD = HERE / "named.json"
BEGIN = "<!-- written by tests/course/named.py -->\n", "<!-- written by tests/course/named.py --third -->\n"
END = "<!-- end of what it wrote -->"
THIRD = "third hand, "  # before the names of its assignments in the record
HEAD = ("| assignment | planted | named alone | named among two | seen as a fact | silent | named wrongly | explained "
        "| other answers | of these named |\n|---|---|---|---|---|---|---|---|---|---|")
Counts = dict[str, int]  # how often each of KINDS, "survived", "others" and "others named"


class Planted:
    """A bug of the bank, planted in an answer by its sentence: style, number of the bug, changes of the text."""

    def __init__(self, style: int, bug: int, *changes: tuple[str, str]) -> None:
        self.style, self.bug, self.changes = style, bug, changes


class Other:
    """A mistake that the bank does not hold: style, changes of the text."""

    def __init__(self, style: int, *changes: tuple[str, str]) -> None:
        self.style, self.changes = style, changes


def seeds(assignment: str) -> range:
    """Return the seeds of the slow tests: a hundred, or twenty where cases take seconds and MINIRES_ALL is not set."""
    return range(20 if assignment in NETWORKS and "MINIRES_ALL" not in os.environ else 100)


def written() -> tuple[str, ...]:
    """Return the assignments that have alternates, in order."""
    return tuple(sorted(path.stem.partition("_")[2] for path in HERE.glob("alternates_a*.py")))


def alternates(assignment: str) -> ModuleType:
    """Return the module of an assignment's alternates."""
    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))
    return importlib.import_module(f"alternates_{assignment}")


@cache
def third_hand(assignment: str) -> ModuleType:
    """Return the module of an assignment's answers by a third hand: ANSWERS and PLANTED, {task: [(bug, *changes)]}."""
    spec = importlib.util.spec_from_file_location(f"third_{assignment}", HERE / "third_hand" / f"{assignment}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def given(assignment: str) -> list[tuple[str, str]]:
    """Return the given cells of an assignment, without its answers."""
    return [(cell, source) for cell, task, source in solution.sources(assignment) if not task]


def defined(task: Task, text: str) -> Space:
    """Return the names that the given cells and an answer's text define, as a worker defines them."""
    names: Space = {"__name__": "submission"}
    notes = define([*given(task.assignment), (ANSWER, text)], names, {"minires"})
    assert not [note for note in notes if note.startswith(ANSWER)], notes  # given cells may need other tasks' answers
    return names


def outcomes(task: Task, text: str, half: str, seed: int) -> list[Outcome]:
    """Return what an answer's text answers to a half's cases."""
    return solution.outcomes(task, defined(task, text), solution.drawn(task, half, seed)[0])


@cache
def diagnosed_pairs(task: Task, half: str, seed: int) -> list[diagnose.Known]:
    """Return what two bugs at once answer, as far as `minires course check` gets in its time."""
    return list(diagnose.known_pairs(task, half, seed, seconds=60.0))


def verdicts(task: Task, got: dict[str, Sequence[Outcome]], seed: int, pairs: bool = False) -> dict[str, Verdict]:
    """Return the verdict on each half, as a student or a teacher reads it."""
    found = {}
    for half, answers in got.items():
        cases, expected = solution.drawn(task, half, seed)
        found[half] = diagnose.verdict(task, cases, expected, answers, bank=diagnose.known_bugs(task, half, seed),
                                       pairs=diagnosed_pairs(task, half, seed) if pairs else ())
    return found


def kind(task: Task, bug: int, found: dict[str, Verdict]) -> str:
    """Return how the report explains a planted bug: one of KINDS, or "survived" if no half rejects it.

    The first half that names a cause counts. A name that is wrong in any half counts as wrong.
    """
    wrong = [verdict for verdict in found.values() if not verdict.right]
    causes = [verdict.causes for verdict in wrong if verdict.causes]
    if not wrong:
        return "survived"
    if any(bug not in numbers for numbers in causes):
        return "wrongly"
    if causes:
        return "named" if causes[0] == (bug,) else "among"
    return "silent" if "of the entries" in wrong[0].words else "fact"


def plantings(task: Task, third: bool = False) -> Iterator[tuple[Planted, str]]:
    """Yield (planting, the changed text) of a task."""
    if third:
        for bug, *changes in third_hand(task.assignment).PLANTED[task.name]:
            yield Planted(0, bug, *changes), planting.changed(third_hand(task.assignment).ANSWERS[task.name], *changes)
        return
    module = alternates(task.assignment)
    for planted in module.PLANTED.get(task.name, ()):
        yield planted, changed(module.ALTERNATES[task.name][planted.style], *planted.changes)


# ------------------------------------------------------------------------------------ other wrong answers


def _noise(size: float) -> object:
    return lambda a, rng: a + size * (np.abs(a).max(initial=0) + 1e-3) * rng.standard_normal(a.shape)


DISTORTIONS = {
    "noise of 10 %": _noise(0.1), "noise of 0.1 %": _noise(1e-3), "noise of 0.01 %": _noise(1e-4),
    "shuffled": lambda a, rng: rng.permutation(a.ravel()).reshape(a.shape),
    "reversed": lambda a, rng: a.ravel()[::-1].reshape(a.shape),
    "moved by one": lambda a, rng: np.roll(a.ravel(), 1).reshape(a.shape),
    "random signs": lambda a, rng: a * rng.choice([-1, 1], a.shape),
    "half precision": lambda a, rng: np.clip(a, -6e4, 6e4).astype(np.float16).astype(a.dtype),
    "three times": lambda a, rng: 3 * a, "0.9 times": lambda a, rng: 0.9 * a, "plus 0.01": lambda a, rng: a + 0.01,
    "clipped": lambda a, rng: np.clip(a, -0.5, 0.5), "absolute": lambda a, rng: np.abs(a),
    "squared": lambda a, rng: a * a, "sorted": lambda a, rng: np.sort(a, None).reshape(a.shape),
    "half of it missing": lambda a, rng: a * (rng.random(a.shape) < 0.5),
}


def distorted(outcome: Outcome, how: str, only_last: bool, rng: np.random.Generator) -> Outcome:
    """Return an outcome whose arrays, or whose last array, are changed in one of the ways of DISTORTIONS."""
    if isinstance(outcome, Raised):
        return outcome
    names = [n for n, a in outcome.items() if a.dtype.kind in "fiu" and n != "seconds"]
    changed_names = names[-1:] if only_last else names
    made = {n: np.asarray(DISTORTIONS[how](a, rng)) for n, a in outcome.items() if n in changed_names}
    made = {n: a for n, a in made.items() if outcome[n].dtype.kind == "f" or np.array_equal(a, a.astype(int))}
    return {n: made.get(n, a).astype(a.dtype) for n, a in outcome.items()}


def other_answers(task: Task, seed: int) -> Iterator[tuple[str, dict[str, list[Outcome]]]]:
    """Yield (description, outcomes of each half) of wrong answers that are no bug of the bank.

    Mistakes of the assignment's OTHERS come first, then distorted right answers, OTHER_ANSWERS in all.
    """
    module, count = alternates(task.assignment), 0
    for other in getattr(module, "OTHERS", {}).get(task.name, ()):
        text = changed(module.ALTERNATES[task.name][other.style], *other.changes)
        yield f"style {other.style}: {other.changes}", {half: outcomes(task, text, half, seed) for half in HALVES}
        count += 1
    right = {half: solution.drawn(task, half, seed)[1] for half in HALVES}
    for only_last in False, True:
        for how in DISTORTIONS:
            rng = np.random.default_rng([seed, count])
            got: dict[str, list[Outcome]] = {half: [distorted(r, how, only_last, rng) for r in expected]
                                             for half, expected in right.items()}
            if count < OTHER_ANSWERS and not all(diagnose.all_right(got[half], right[half]) for half in HALVES):
                yield f"{how}{', last array' * only_last}", got
                count += 1


# ---------------------------------------------------------------------------------------------- the count


class Count(NamedTuple):
    """The counts of one assignment."""

    kinds: dict[str, int]
    others: int
    others_named: int
    lines: list[str]  # what is silent, among others, or wrong

    @property
    def planted(self) -> int:
        """The number of plantings."""
        return sum(self.kinds.values())

    @property
    def counts(self) -> Counts:
        """The numbers alone, which are recorded."""
        return {**self.kinds, "others": self.others, "others named": self.others_named}


def count(assignment: str, seed: int = 0, others: bool = True, pairs: bool = False,
          only: str | None = None, third: bool = False) -> Count:
    """Diagnose every planting and the other wrong answers of an assignment."""
    kinds = dict.fromkeys((*KINDS, "survived"), 0)
    lines, wrong, named = [], 0, 0
    for task in tasks(assignment).values():
        if only not in (None, task.name):
            continue
        for planted, text in plantings(task, third):
            found = verdicts(task, {half: outcomes(task, text, half, seed) for half in HALVES}, seed, pairs)
            how = kind(task, planted.bug, found)
            kinds[how] += 1
            if how != "named":
                said = "; ".join(f"{half} {v.causes}: {v.text}" for half, v in found.items() if not v.right)
                lines.append(f"{how:8} {task.name} bug {planted.bug} in style {planted.style}: {said}")
        for what, got in other_answers(task, seed) if others and not third else ():
            found = verdicts(task, got, seed, pairs)
            wrong += 1
            for half, verdict in found.items():
                if verdict.right and all(v.right for v in found.values()):
                    lines.append(f"RIGHT    {task.name} {what}")
                if verdict.causes:
                    named += 1
                    lines.append(f"NAMED    {task.name} {what}: {half} {verdict.causes}: {verdict.text}")
    return Count(kinds, wrong, named, lines)


def row(name: str, counts: Counts) -> str:
    """Return a row of the table."""
    planted = sum(counts[k] for k in (*KINDS, "survived"))
    explained = counts["named"] + counts["among"] + counts["fact"]
    return (f"| {name} | {planted} | {' | '.join(str(counts[k]) for k in KINDS)} "
            f"| {100 * explained / max(planted, 1):.0f} % | {counts['others']} | {counts['others named']} |")


def total(record: Iterable[Counts]) -> Counts:
    """Return the sums of the counts of several assignments."""
    listed = list(record)
    return {k: sum(counts[k] for counts in listed) for k in (*KINDS, "survived", "others", "others named")}


def table(record: dict[str, Counts], third: bool = False) -> str:
    """Return the counts {assignment: counts} of the alternates, or of the third hand, as a table."""
    mine = {name.removeprefix(THIRD): counts for name, counts in record.items() if name.startswith(THIRD) == third}
    rows = [row(name.upper(), counts) for name, counts in sorted(mine.items())]
    return "\n".join([HEAD, *rows, row("all", total(mine.values()))])


def recorded() -> dict[str, Counts]:
    """Return what was counted last, {assignment: counts}."""
    record: dict[str, Counts] = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    return record


def page_with(text: str, record: dict[str, Counts]) -> str:
    """Return a page's text with both tables between their marks. Raise ValueError if it lacks the marks."""
    for third, begin in enumerate(BEGIN):
        before, mark, rest = text.partition(begin)
        _, end, after = rest.partition(END)
        if not (mark and end):
            raise ValueError(f"expected the lines {begin.strip()} and {END} in the page")
        text = f"{before}{begin}{table(record, bool(third))}\n{end}{after}"
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table. Return 1 if a planting is named wrongly or survives, or another wrong answer is named."""
    parser = argparse.ArgumentParser(prog="python tests/course/named.py", description=main.__doc__)
    parser.add_argument("assignments", nargs="*", default=list(written()), metavar="ASSIGNMENT")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="draws the cases (default: 0)")
    parser.add_argument("--task", metavar="NAME", help="only this task, such as a4.3")
    parser.add_argument("--pairs", action="store_true", help="also look for two causes, as `minires course check` does")
    parser.add_argument("--third", action="store_true", help="count the plantings of the third hand")
    parser.add_argument("-v", "--verbose", action="store_true", help="print every planting that is not named alone")
    parser.add_argument("--write", type=Path, metavar="PAGE",
                        help="also record the counts, and write the table of all that is recorded into this page")
    args = parser.parse_args(arguments)
    if args.write and (args.task or args.pairs or args.seed):
        parser.error("--write records whole assignments with seed 0: leave out --task, --pairs and --seed")
    print(HEAD)
    counted: dict[str, Counts] = {}
    for assignment in args.assignments:
        one = count(assignment, args.seed, pairs=args.pairs, only=args.task, third=args.third)
        counted[assignment] = one.counts
        print(row(assignment.upper(), one.counts), flush=True)
        for line in one.lines:
            if args.verbose or not line.startswith(("fact", "among", "silent")):
                print(line)
    everything = total(counted.values())
    if len(counted) > 1:
        print(row("all", everything))
    if args.write:
        record = recorded() | {THIRD * args.third + name: counts for name, counts in counted.items()}
        text = page_with(args.write.read_text(encoding="utf-8"), record)
        RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        args.write.write_text(text, encoding="utf-8")
    return 1 if everything["wrongly"] + everything["survived"] + everything["others named"] else 0


if __name__ == "__main__":
    sys.exit(main())
