"""The bank of bugs: mistakes that students make, each as a change of the master's solution and a sentence.

A bug tests the graders, which must reject it, and explains a student's failure: "This is what you get when ..." ends
with the sentence of a bug that gives the student's numbers. `python -m minires.course.bank a4` prints which bugs are
rejected, by which half of a task's cases, and how near two bugs come to each other.
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module

from ..testing import planting
from ..testing.planting import Change as Change
from .task import CourseError, known

SEEN = "values", "fact", "exception", "time"


@dataclass(frozen=True)
class Bug:
    """One mistake, in one or more realisations."""

    number: int     # within the assignment
    sentence: str   # completes "This is what you get when ..."
    changes: dict[str, list[list[Change]]]  # {task: realisations}; a realisation is a list of (old, new)
    seen: str = "values"  # how a student's failure shows it: "values", "fact", "exception" or "time"

    def __post_init__(self) -> None:
        if self.seen not in SEEN:
            raise ValueError(f"bug {self.number}: expected seen to be one of {', '.join(SEEN)}, got {self.seen!r}")


@cache
def bugs(assignment: str) -> tuple[Bug, ...]:
    """Return the bugs of an assignment, in the order of their numbers."""
    return tuple(sorted(import_module(f"{__package__}.bank_{known(assignment)}").BUGS, key=lambda bug: bug.number))


def changed(source: str, *changes: Change) -> str:
    """Return a source text with every old text replaced by its new text.

    White space in the old text matches any white space, also none between signs. Each old text must occur exactly once
    when its turn comes, and the syntax tree must change. The lines of a new text after its first are indented further,
    by the indentation of the line that they are put into.

    Raises CourseError if one of these does not hold.
    """
    try:
        return planting.changed(source, *changes, indent=True)
    except planting.PlantingError as e:
        raise CourseError(str(e)) from None


if __name__ == "__main__":
    import sys

    from minires.course.kill import main  # by its full name: this file itself is __main__

    sys.exit(main())
