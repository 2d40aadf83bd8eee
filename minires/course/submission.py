"""Find submissions and read their cells, from notebooks and percent files.

Nothing of a submission is parsed or run here. Only the worker parses a cell, because a text can crash the parser.
"""
from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from . import master
from .task import CourseError, assignments

LARGEST = 50_000_000  # bytes of a submission
MOST_CODE = 900_000   # bytes of its code, as a message to the worker holds them
MOST_CELLS = 10_000      # in a .py file
MOST_VALUES = 1_000_000  # lists and dictionaries in a notebook, each of which takes memory
LONGEST_NAME = 150    # bytes of a student's name; files are named after it
SUFFIXES = ".ipynb", ".py"
MOST_LINES = 1_000_000  # empty lines that are added to the cells of a .py file


class Written(NamedTuple):
    """A submission's file, read."""

    code: list[tuple[str, str]]  # (the cell's name, its source), in order: "cell 7" counts all cells of a notebook.
                                 # Empty lines before the source of "cell 7 of a3.py" make its lines those of the file
    free: dict[str, str]         # {task: the answer to its free-response question}
    digest: str                  # SHA-256 of the bytes


class Submission(NamedTuple):
    """One student's submission, or why there is none."""

    student: str
    path: Path | None
    problem: str = ""


# ------------------------------------------------------------------------------------------------- reading


def read(path: Path, assignment: str) -> Written:
    """Read a submission. Raises CourseError, with a sentence for the student, if it cannot be read."""
    data = content(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise CourseError(f"{path.name}: expected UTF-8, but byte {e.start} is {data[e.start]:#04x}: save the file as "
                          "UTF-8") from None
    if not text.strip():
        raise CourseError(f"{path.name}: this file is empty")
    is_notebook = path.suffix.lower() == ".ipynb"
    cells = _notebook(path.name, text) if is_notebook else _percent(path.name, text)
    above = [] if is_notebook else _lines_above(text, len(cells))
    code = [(f"cell {number} of {assignment}.py", "\n" * above[number - 1] + source) if above else
            (f"cell {number}", source) for number, (kind, source, _) in enumerate(cells, 1) if kind == "code"]
    if not code:
        raise CourseError(f"{path.name}: this file has no code cells")
    if (size := len(json.dumps(code))) > MOST_CODE:
        raise CourseError(f"{path.name}: expected at most {MOST_CODE} bytes of code, got {size}: leave data out of the "
                          "code cells")
    return Written(code, _free(cells, assignment), digest(path))


def digest(path: Path) -> str:
    """Return the SHA-256 of a submission's bytes. Raises CourseError if it cannot be read."""
    return hashlib.sha256(content(path)).hexdigest()


def content(path: Path) -> bytes:
    """Return a submission's bytes. Raises CourseError if it is not a file, cannot be read, or is too large."""
    try:
        if path.exists() and not path.is_file():  # a named pipe would never end
            raise CourseError(f"{path.name}: expected a file, got something else")
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as e:
        raise CourseError(f"{path.name}: this file cannot be read ({e.strerror or e})") from None
    if len(data) > LARGEST:
        raise CourseError(f"{path.name}: expected at most {LARGEST / 1e6:.0f} MB: clear the notebook's outputs")
    return data


_Cells = list[tuple[str, str, dict[str, Any]]]  # (type, source, task and kind as far as they are known)


def _notebook(name: str, text: str) -> _Cells:
    if text.count("{") + text.count("[") > MOST_VALUES:
        raise CourseError(f"{name}: expected at most {MOST_VALUES} lists and dictionaries in a notebook: clear the "
                          "notebook's outputs")
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise CourseError(f"{name}: expected a notebook, but the file is not JSON ({str(e)[:100]})") from None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise CourseError(f"{name}: expected a notebook of format 4, but the file has no list of cells")
    cells = []
    for cell in notebook["cells"]:
        cell = cell if isinstance(cell, dict) else {}
        source, meta = cell.get("source", ""), cell.get("metadata")
        if isinstance(source, list):
            source = "".join(part for part in source if isinstance(part, str))
        meta = meta if isinstance(meta, dict) else {}
        own = meta.get("minires")
        known: dict[str, Any] = own if isinstance(own, dict) else _from_nbgrader(meta)
        cells.append((str(cell.get("cell_type", "")), source if isinstance(source, str) else "", known))
    return cells


def _from_nbgrader(meta: dict[str, Any]) -> dict[str, Any]:
    """Return task and kind from nbgrader's name of a cell, such as "a4-7-free"."""
    found = meta.get("nbgrader")
    parts = str(found.get("grade_id", "")).split("-") if isinstance(found, dict) else []
    return {"task": f"{parts[0]}.{parts[1]}", "kind": parts[2]} if len(parts) == 3 else {}


def _percent(name: str, text: str) -> _Cells:
    if len(re.findall("(?m)^# ?%%", text)) > MOST_CELLS:
        raise CourseError(f"{name}: expected at most {MOST_CELLS} cells")
    try:
        cells = master.read(text)
    except (CourseError, ValueError):  # an edited line of metadata
        cells = master.read("\n".join("# %% [markdown]" if line.startswith("# %% [markdown]") else
                                      "# %%" if line.startswith("# %%") else line for line in text.split("\n")))
    if not cells:  # without marks of cells, the whole file is one
        return [("code", text, {})]
    return [(cell.type, cell.source, cell.meta) for cell in cells]


def _lines_above(text: str, count: int) -> list[int]:
    """Return how many lines of a percent file are above each cell's source; [] if that is unknown or too much."""
    lines = text.replace("\r\n", "\n").split("\n")
    above = []
    for at in [i for i, line in enumerate(lines) if re.match("# ?%%", line)]:
        first = at + 1
        while first < len(lines) and not lines[first]:
            first += 1
        above.append(first)
    return above if len(above) == count and sum(above) <= MOST_LINES else []


def _free(cells: _Cells, assignment: str) -> dict[str, str]:
    """Return {task: answer}: the text of the question's cell without the question, and of the cells added after it."""
    given = {cell.source.strip() for cell in master.student(master.master(assignment))}
    found = {}
    for question in master.master(assignment):
        if question.kind != "free":
            continue
        asked = master.blank(question).split("\n")
        at = [i for i, (kind, source, meta) in enumerate(cells) if kind == "markdown"
              and (meta.get("task") == question.task or source.split("\n")[0] == asked[0])]
        if not at:
            continue
        kept = [line for line in cells[at[0]][1].split("\n") if line.strip() and line not in asked]
        for kind, source, meta in cells[at[0] + 1:]:
            if kind != "markdown" or meta or source.strip() in given:
                break
            kept.append(source)
        found[question.task] = "\n".join(kept).strip()
    return found


# ------------------------------------------------------------------------------------------------- finding


def collect(folder: Path, assignment: str) -> list[Submission]:
    """Return the submissions in a folder that holds one file or one folder for each student, sorted by student.

    Raises CourseError if the folder does not exist or holds no submission.
    """
    if not folder.is_dir():
        raise CourseError(f"{folder}: expected a folder with one notebook, .py file or folder for each student")
    by_student: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "__")) or (path.is_file() and path.suffix.lower() not in SUFFIXES):
            continue
        by_student.setdefault(student_name(path.name if path.is_dir() else path.stem), []).append(path)
    if not by_student:
        raise CourseError(f"{folder}: this folder holds no notebook, no .py file and no folder of a student")
    return [_one(student, paths, assignment) for student, paths in sorted(by_student.items())]


def student_name(name: str) -> str:
    """Return the name of a student's file or folder as text that every file and table can hold. What cannot be printed
    is written as \\n or \\x1b, and a long name is shortened and gets a checksum."""
    data = os.fsencode(name)
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode()
                   for c in data.decode("utf-8", "backslashreplace"))
    if len(text.encode()) <= LONGEST_NAME:
        return text
    return f"{text.encode()[:LONGEST_NAME - 9].decode('utf-8', 'ignore')}-{hashlib.sha256(data).hexdigest()[:8]}"


def _one(student: str, paths: list[Path], assignment: str) -> Submission:
    if len(paths) > 1:
        listed = _listed(path.name for path in paths)
        return Submission(student, None, f"expected one submission, got {listed}: leave one")
    return inside(student, paths[0], assignment)


def inside(student: str, place: Path, assignment: str) -> Submission:
    """Return the submission in a file or a student's folder: the file named after the assignment, or the only one."""
    if place.is_symlink() or not place.is_dir():
        return _unless_link(student, place)
    files = []
    for top, folders, names in os.walk(place):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        files += [Path(top, name) for name in sorted(names)
                  if Path(name).suffix.lower() in SUFFIXES and not name.startswith((".", "test_"))]
    named = [path for path in files if path.stem.lower() == assignment]
    others = [path for path in files if path.stem.lower() not in assignments()]
    fitting = named or others
    if len(fitting) == 1:
        return _unless_link(student, fitting[0])
    listed = _listed(path.relative_to(place).as_posix() for path in fitting)
    return Submission(student, None, f"expected one file {assignment}.ipynb or {assignment}.py, got {listed}")


def _unless_link(student: str, path: Path) -> Submission:
    """Return the submission in a file, unless it is a symbolic link, which could lead to another student's file."""
    if path.is_symlink():
        return Submission(student, None, f"{path.name} is a symbolic link: submit the file itself")
    return Submission(student, path)


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    return " and ".join(found[:5]) + f" and {len(found) - 5} more" * (len(found) > 5) if found else "none"
