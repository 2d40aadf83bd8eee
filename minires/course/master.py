"""Read an assignment's master, a percent file, and make the student's, the solution's and nbgrader's files from it.

A master has cells like these. Cells without a kind are prose and given code, which every product contains:

    # %% [markdown]
    # ## 3. The closed form
    # %% task="a4.3" kind="answer"
    def batch_norm_backward(dy, cache):
        ### BEGIN SOLUTION
        ...
        ### END SOLUTION
    # %% task="a4.3" kind="check" points=20
    check("a4.3", batch_norm_forward, batch_norm_backward);
    # %% [markdown] task="a4.7" kind="free" points=15
    # **Predict, then explain.** ... *Your answer here.*
    # ### BEGIN SOLUTION
    # ...
    # ### END SOLUTION

This module needs only the standard library.
"""
from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from .task import CourseError, known

PACKAGE = Path(__file__).resolve().parent
PLACES = PACKAGE / "masters", PACKAGE.parents[1] / "notebooks" / "course"  # in an installed wheel; in a checkout
KINDS = "answer", "check", "free"


class Cell(NamedTuple):
    """One cell of a notebook."""

    type: str                # "code" or "markdown"
    source: str
    meta: dict[str, Any]     # task, kind and points, as far as the cell has them

    @property
    def kind(self) -> str:
        """ "answer", "check" or "free"; "" for prose and given code."""
        return str(self.meta.get("kind", ""))

    @property
    def task(self) -> str:
        """The task's name, such as "a4.3"; "" for prose and given code."""
        return str(self.meta.get("task", ""))


# ------------------------------------------------------------------------------------------------- reading


def master_path(assignment: str) -> Path:
    """Return the path of an assignment's master. Raise CourseError if it does not exist."""
    name = known(assignment)
    for place in PLACES:
        if (place / f"{name}.py").is_file():
            return place / f"{name}.py"
    raise CourseError(f"{name}: the assignment's master is missing: neither {PLACES[0] / name}.py nor "
                      f"{PLACES[1] / name}.py exists. Install minires again")


@cache
def master(assignment: str) -> tuple[Cell, ...]:
    """Return the cells of an assignment's master."""
    return tuple(read(master_path(assignment).read_text(encoding="utf-8")))


def read(text: str) -> list[Cell]:
    """Return the cells of a percent file. Text before the first cell is left out, except if there are no cells.

    Raises CourseError if a cell has a kind that does not exist, or a kind and no task.
    """
    body = re.sub(r"\A# ---\n(?:#.*\n)*?# ---\n", "", text.replace("\r\n", "\n"))
    cells = []
    for part in re.split(r"(?m)^# ?%%", body)[1:]:
        head, _, source = part.partition("\n")
        meta = {key: json.loads(value) for key, value in re.findall(r'\b(task|kind|points)=("[^"]*"|\d+)', head)}
        source = source.strip("\n")
        if "[markdown]" in head:
            source = "\n".join(re.sub(r"^# ?", "", line) for line in source.split("\n"))
        cell = Cell("markdown" if "[markdown]" in head else "code", source, meta)
        if cell.kind not in ("", *KINDS) or bool(cell.kind) != bool(cell.task):
            raise CourseError(f"a cell has a task and a kind, {', '.join(KINDS)}, or neither; got: # %%{head}")
        cells.append(cell)
    return cells


def title(assignment: str) -> str:
    """Return the assignment's heading, such as "A4. Batch normalisation"."""
    return next(line.lstrip("# ") for cell in master(assignment) if cell.type == "markdown"
                for line in cell.source.split("\n") if line.startswith("# "))


def free_tasks(assignment: str) -> dict[str, int]:
    """Return {task: points} of the free-response questions."""
    return {cell.task: int(cell.meta["points"]) for cell in master(assignment) if cell.kind == "free"}


# ------------------------------------------------------------------------------------------------ products

_BEGIN, _END = r"[ \t]*#+ BEGIN SOLUTION[ \t]*\n", r"[ \t]*#+ END SOLUTION[ \t]*"
_BLOCK = re.compile(rf"(?ms)^([ \t]*)#+ BEGIN SOLUTION[ \t]*\n.*?^{_END}$")
_MARKERS = re.compile(rf"(?m)^(?:{_BEGIN}|{_END}\n?)")


def student(cells: Iterable[Cell]) -> list[Cell]:
    """Return the cells of the student's file: each solution becomes NotImplementedError, and the rubric goes."""
    return [cell._replace(source=blank(cell)) for cell in cells]


def blank(cell: Cell) -> str:
    """Return a cell's source without its solution."""
    if cell.type == "markdown":
        return re.sub(r"\n*^#+ BEGIN SOLUTION.*?^#+ END SOLUTION[ \t]*$", "", cell.source, flags=re.S | re.M).rstrip()
    def stub(block: re.Match[str]) -> str:
        inside = cell.source[:block.start()].rstrip("\n").split("\n")
        around = next((line for line in reversed(inside) if line.strip() and _indent(line) < len(block[1])), "")
        stop = f'raise NotImplementedError("task {cell.task}")'
        if around.startswith("class "):  # the class must exist, so only making an object of it may raise
            return f"{block[1]}def __init__(self, *args, **kwargs):\n{block[1]}    {stop}"
        return block[1] + stop

    return _BLOCK.sub(stub, cell.source)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def solution(cells: Iterable[Cell]) -> list[Cell]:
    """Return the cells of the solution: only the markers go."""
    return [cell._replace(source=_MARKERS.sub("", cell.source + "\n").rstrip("\n")) for cell in cells]


def percent(cells: Iterable[Cell]) -> str:
    """Return cells as a percent file."""
    parts = []
    for cell in cells:
        source = cell.source
        if cell.type == "markdown":
            source = "\n".join(f"# {line}".rstrip() for line in source.split("\n"))
        meta = "".join(f" {key}={json.dumps(value)}" for key, value in cell.meta.items())
        parts.append(f"# %%{' [markdown]' * (cell.type == 'markdown')}{meta}\n{source}")
    return "\n\n".join(parts) + "\n"


def notebook(name: str, cells: Iterable[Cell], nbgrader: bool = False) -> str:
    """Return cells as a notebook, the same bytes for the same cells.

    name: seed of the cells' ids
    nbgrader: whether to add nbgrader's metadata (schema version 3)
    """
    made = []
    for i, cell in enumerate(cells):
        entry: dict[str, Any] = {
            "cell_type": cell.type, "id": hashlib.sha256(f"{name} {i}".encode()).hexdigest()[:8],
            "metadata": ({"minires": cell.meta} if cell.meta else {}) | (nbgrader_metadata(cell) if nbgrader else {}),
            "source": cell.source.splitlines(keepends=True)}
        if cell.type == "code":
            entry = {"cell_type": "code", "execution_count": None, "id": entry["id"], "metadata": entry["metadata"],
                     "outputs": [], "source": entry["source"]}
        made.append(entry)
    whole = {"cells": made, "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python",
                                                        "name": "python3"}, "language_info": {"name": "python"}},
             "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def nbgrader_metadata(cell: Cell) -> dict[str, Any]:
    """Return nbgrader's metadata of a cell, {} for prose and given code."""
    if not cell.kind:
        return {}
    graded = cell.kind in ("check", "free")
    found = {"grade_id": grade_id(cell.task, cell.kind), "schema_version": 3, "grade": graded,
             "solution": cell.kind in ("answer", "free"), "locked": cell.kind == "check", "task": False}
    if graded:
        found["points"] = cell.meta["points"]
    return {"nbgrader": found}


def grade_id(task: str, kind: str) -> str:
    """Return nbgrader's name of a cell: "a4-3-check"."""
    return f"{task.replace('.', '-')}-{kind}"
