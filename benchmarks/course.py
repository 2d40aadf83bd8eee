"""Measure what it costs to mark a class: python benchmarks/course.py [--assignment a3] [--students 200]

Of five submissions two are the solution, one is blank, one has a bug of the bank in each task, one replaces NumPy's
comparisons and answers wrongly, and one in forty ends in an endless loop. The numbers are computing times, so that
other programs on the machine matter less.
"""
from __future__ import annotations

import argparse
import resource
import tempfile
from pathlib import Path

from minires.course import grade, master, solution
from minires.course.bank import bugs, changed
from minires.course.task import tasks


def seconds() -> tuple[float, float]:
    """Return the computing time so far of (this process, its children), in seconds."""
    own, children = (sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own, children


def submission(name: str, number: int) -> str:
    """Return the percent file of one student."""
    solved = {cell.task: cell.source for cell in master.solution(master.master(name)) if cell.kind == "answer"}
    kind = number % 5
    if kind == 1:
        return master.percent(master.student(master.master(name)))
    parts = ["import numpy as np"] + [source for _, task, source in solution.sources(name) if not task]
    for task in tasks(name).values():
        text = solution.answer(task)
        mine = [bug for bug in bugs(name) if task.name in bug.changes]
        if kind == 2 and mine:
            text = changed(text, *mine[number % len(mine)].changes[task.name][0])
        elif kind == 3:
            head = solved[task.name].split("\n")[0]
            text = f"np.allclose = np.array_equal = lambda *a, **k: True\n{head}\n    pass"
        parts.append(text)
    if number % 40 == 39:
        parts.append("class Loop:\n    while True:\n        pass")
    return "\n\n".join(f"# %%\n{part}" for part in parts) + "\n"


def main() -> None:
    """Mark a made-up class, compare each mark with the one it must have, and print the computing times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assignment", default="a3")
    parser.add_argument("--students", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    name, listed = args.assignment, tasks(args.assignment)
    most = sum(task.points for task in listed.values())
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "submitted")
        place.mkdir()
        for number in range(args.students):
            (place / f"student{number:03}.py").write_text(submission(name, number), encoding="utf-8")
        start = seconds()
        results = grade.grade(place, name, Path(folder, "marks"), 7, args.jobs, say=lambda line: None)
        own, children = (after - before for after, before in zip(seconds(), start, strict=True))
        for number, result in enumerate(results[f"student{n:03}"] for n in range(args.students)):
            right = number % 5 in (0, 4) and number % 40 != 39
            assert result["score"] == most if right else result["score"] < most, (number, result["score"])
    print(f"{args.students} students x {len(listed)} tasks of {name}: {own:.0f} s in the judge, {children:.0f} s in "
          f"the workers, {(own + children) / 60:.1f} CPU minutes; every mark is as it must be")


if __name__ == "__main__":
    main()
