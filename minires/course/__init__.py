"""The course: eight assignments, their checks, and the grading of submissions.

    from minires.course import check
    check("a4.3", batch_norm_forward, batch_norm_backward);

`minires course --help` lists the commands. docs/ has a page for students and one for teachers.
"""
from __future__ import annotations

from typing import Any

__all__ = ["check", "ready"]
_passed: set[str] = set()


def check(task: str, *answers: Any) -> bool:
    """Try answers on a task's visible cases, print one line, and return whether all are right.

    task: the task's name, such as "a4.3"
    answers: the functions or classes of the task, in the order that the notebook shows

    The answers run in this process, so this is a help and not a mark. The notebook continues if they are wrong.
    """
    from . import diagnose, solution
    from .task import find

    one = find(task)
    if len(answers) != len(one.needs):
        raise TypeError(f'expected check("{one.name}", {", ".join(one.needs)}), got {len(answers)} answers')
    cases, expected = solution.drawn(one, "visible", 0)
    got = solution.outcomes(one, dict(zip(one.needs, answers, strict=True)), cases)
    found = diagnose.verdict(one, cases, expected, got)
    if not found.right and found.words.startswith("not yet"):
        found = diagnose.verdict(one, cases, expected, got, bank=diagnose.known_bugs(one, "visible", 0),
                                 pairs=diagnose.known_pairs(one, "visible", 0))
    (_passed.add if found.right else _passed.discard)(one.name)
    print(f"{one.name} {one.title}: {found.text}", flush=True)
    return found.right


def ready(*tasks: str) -> bool:
    """Return whether `check` has found all these tasks right in this session. If not, print which are missing.

    A figure that uses the answers is drawn after `if ready("a4.3"):`, so that a notebook without them still runs.
    """
    missing = [task for task in tasks if task not in _passed]
    if missing:
        print(f"This cell needs {' and '.join(missing)}: run it again when check prints \"right\" there.")
    return not missing
