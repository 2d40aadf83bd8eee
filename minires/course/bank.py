"""The bank of bugs: mistakes that students make, each as a change of the master's solution and a sentence.

A bug tests the graders, which must reject it, and explains a student's failure: "This is what you get when ..." ends
with the sentence of a bug that gives the student's numbers. `python -m minires.course.bank a4` prints which bugs are
rejected, by which half of a task's cases, and how near two bugs come to each other.
"""
from __future__ import annotations

import ast
import itertools
import re
from dataclasses import dataclass
from functools import cache
from importlib import import_module

from .task import CourseError, known

Change = tuple[str, str]
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
    text = source
    for old, new in changes:
        places = list(_pattern(old).finditer(text))
        if len(places) != 1:
            raise CourseError(f"expected {old!r} exactly once, found it {len(places)} times in\n{text}")
        (place,) = places
        line = text[text.rfind("\n", 0, place.start()) + 1:]
        indent = line[:len(line) - len(line.lstrip())]
        text = text[:place.start()] + new.strip().replace("\n", f"\n{indent}") + text[place.end():]
    try:
        if ast.dump(ast.parse(text)) == ast.dump(ast.parse(source)):
            raise CourseError(f"{list(changes)} change nothing in\n{source}")
    except SyntaxError as e:
        raise CourseError(f"after {list(changes)} the text is not valid Python: {e.msg}, in\n{text}") from None
    return text


_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")


@cache
def _pattern(old: str) -> re.Pattern[str]:
    """Return a pattern that matches the text whatever its white space. Words stay apart and are matched whole."""
    tokens = [token for token in _TOKEN.findall(old.strip()) if not token.isspace()]
    parts = [re.escape(tokens[0])]
    for before, after in itertools.pairwise(tokens):
        both_words = (before[-1].isalnum() or before[-1] == "_") and (after[0].isalnum() or after[0] == "_")
        parts.append((r"\s+" if both_words else r"\s*") + re.escape(after))
    start = r"(?<!\w)" if re.match(r"\w", tokens[0]) else ""
    end = r"(?!\w)" if re.match(r"\w", tokens[-1]) else ""
    return re.compile(start + "".join(parts) + end)


if __name__ == "__main__":
    import sys

    from minires.course.kill import main  # by its full name: this file itself is __main__

    sys.exit(main())
