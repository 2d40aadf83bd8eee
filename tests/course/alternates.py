"""Find the alternates: right solutions of other hands, and bugs planted into them.

A file alternates_a4.py in this folder has

    ALTERNATES = {"a4.3": {"einsum": SOURCE, ...}, ...}
    PLANTED = [("a4.3", "einsum", 3, [("old", "new")]), ...]    # bug 3 of the bank, as this style makes the mistake

SOURCE defines all names that the task needs, with its imports; it runs after the cells that the assignment gives. For a
bug that `PLANTED` lists, the old text occurs exactly once in SOURCE.
"""
import importlib.util
from functools import cache
from pathlib import Path

from minires.course import solution, worker
from minires.course.bank import changed
from minires.course.task import assignments, find

HERE = Path(__file__).resolve().parent


@cache
def module(assignment):
    """Return the module of an assignment's alternates, or None."""
    path = HERE / f"alternates_{assignment}.py"
    if not path.exists():
        return None
    spec = importlib.util.spec_from_file_location(path.stem, path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def all_alternates():
    """Return (task, style, source) of every alternate."""
    return [(task, style, source) for name in assignments() if module(name)
            for task, styles in module(name).ALTERNATES.items() for style, source in styles.items()]


def all_planted():
    """Return (task, style, number of the bug, source with the bug) of every bug planted into an alternate."""
    return [(task, style, number, changed(module(name).ALTERNATES[task][style], *changes))
            for name in assignments() if module(name)
            for task, style, number, changes in getattr(module(name), "PLANTED", ())]


def defined(task, source):
    """Return the names that a source defines after the assignment's given cells."""
    given = [(cell, text) for cell, name, text in solution.sources(find(task).assignment) if not name]
    space = {"__name__": "alternate"}
    notes = worker.define([*given, ("cell 99", source)], space, {"minires"})
    assert notes == [], notes
    return space
