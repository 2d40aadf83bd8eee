"""Write marks: Gradescope's JSON and a feedback text for each student, one table for all, and the free responses.

The JSON has the fields of Gradescope's autograder specification: score, execution_time, output, visibility,
stdout_visibility, extra_data, and tests with name, number, score, max_score, status, output and visibility.
"""
from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..files.atomic import write_atomically
from . import master
from .judge import Half, Mark, points_of
from .task import CourseError, tasks

LONGEST = 30_000  # characters of a free response that are kept; a cell of a spreadsheet holds 32,767
FREE_COLUMNS = "student", "task", "max points", "points", "comment", "answer"


class Student(NamedTuple):
    """All marks of one student's submission."""

    name: str
    marks: tuple[Mark, ...]       # in the order of the tasks; () if the submission could not be marked
    seconds: float                # wall time
    note: str = ""                # why it could not be marked, or ""
    digest: str = ""              # SHA-256 of the submission
    free: Mapping[str, str] = {}  # {task: the answer to a free-response question}

    @property
    def score(self) -> float:
        """The points by machine."""
        return round(sum(h.points for m in self.marks for h in halves(m)), 2)


def halves(mark: Mark) -> list[Half]:
    """Return the halves of a mark that were tried."""
    return [half for half in (mark.visible, mark.hidden) if half is not None]


def clean(text: str) -> str:
    """Return a student's text without control characters, which could move a terminal's cursor."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def shortened(text: str) -> str:
    """Return a text that fits into a cell of a spreadsheet."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... ({len(text) - LONGEST} more characters)"


# ---------------------------------------------------------------------------------------------- Gradescope


def gradescope(student: Student, assignment: str, seed: int,
               free: Mapping[str, tuple[float, str]] | None = None) -> dict[str, Any]:
    """Return what Gradescope reads from results.json.

    free: {task: (points, comment)} of the free responses that are marked
    """
    tests: list[dict[str, Any]] = []
    for mark in student.marks:
        number = mark.task.partition(".")[2]
        for half, suffix, words, shown in ((mark.visible, "", "", "visible"),
                                           (mark.hidden, "h", ", other inputs", "after_published")):
            if half is not None:
                tests.append({"name": f"{mark.task} {mark.title}{words}", "number": f"{_chapter(assignment)}.{number}"
                              f"{suffix}", "score": half.points, "max_score": half.most, "status":
                              "passed" if half.verdict.right else "failed", "visibility": shown,
                              "output": clean(half.verdict.text)})
    for task, (points, comment) in (free or {}).items():
        tests.append({"name": f"{task} free response", "number": f"{_chapter(assignment)}.{task.partition('.')[2]}",
                      "score": points, "max_score": float(master.free_tasks(assignment)[task]),
                      "visibility": "after_published", "output": clean(comment)})
    return {"score": round(sum(test["score"] for test in tests), 2), "execution_time": round(student.seconds, 2),
            "visibility": "visible", "stdout_visibility": "hidden", "output": clean(_overall(student)),
            "extra_data": {"assignment": assignment, "seed": seed, "digest": student.digest,
                           "note": clean(student.note), "answers": {task: shortened(clean(text)) for task, text in
                                                                    student.free.items()}}, "tests": tests}


def _chapter(assignment: str) -> str:
    return assignment.removeprefix("a")


def _overall(student: Student) -> str:
    lines = [f"Not marked: {student.note}"] if student.note else []
    notes = dict.fromkeys(note for mark in student.marks for note in mark.notes)
    lines += ["Left out of your file:", *(f"  {note}" for note in notes)] if notes else []
    printed = next((mark.printed for mark in student.marks if mark.printed.strip()), "")
    lines += ["Your code printed:", *(f"  {line}" for line in printed.splitlines()[:40])] if printed else []
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------ feedback


def feedback(result: Mapping[str, Any], student: str, assignment: str) -> str:
    """Return a student's feedback as Markdown, from the JSON: points, facts and causes, and no hidden input."""
    tests = result["tests"]
    most = sum(test["max_score"] for test in tests)
    free = any("free response" in test["name"] for test in tests)
    lines = [f"# {master.title(assignment)}", "",
             f"Feedback for {_escaped(student)}: **{result['score']:g} of {most:g} points**"
             + ", without the free response" * (not free) + "."]
    if result["output"]:
        lines += ["", *(f"    {line}" for line in result["output"].splitlines())]
    for test in tests:
        lines += ["", f"**{test['name']}**, {test['score']:g} / {test['max_score']:g}: {_escaped(test['output'])}"]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Return text in which Markdown and HTML have no meaning."""
    return "".join(f"\\{c}" if c in "\\`*_<>[]#|" else c for c in " ".join(text.split()))


# ------------------------------------------------------------------------------------------------- tables


def safe(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula. `_plain` gives the text back."""
    if isinstance(value, str) and value.lstrip("'").lstrip(" ")[:1] in ("=", "+", "-", "@", "\t", "\r", "\n"):
        return f"'{value}"
    return value


def table(rows: Iterable[Sequence[Any]]) -> str:
    """Return rows as CSV, safe against formulas."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([safe(cell) for cell in row] for row in rows)
    return out.getvalue()


def points(result: Mapping[str, Any]) -> dict[str, float]:
    """Return {task: points} of one student's JSON, whose tests are named after the tasks."""
    earned: dict[str, float] = {}
    for test in result["tests"]:
        name = test["name"].split(" ")[0]
        earned[name] = round(earned.get(name, 0.0) + test["score"], 2)
    return earned


def marks_table(results: Mapping[str, Mapping[str, Any]], assignment: str) -> str:
    """Return marks.csv: a row for each student, a column for each task, the free responses and the total.

    results: {student: the JSON}
    """
    listed, free = tasks(assignment), master.free_tasks(assignment)
    rows: list[list[Any]] = [["student", *listed, "by machine", *free, "total", "note"],
                             ["(maximum)", *(t.points for t in listed.values()), sum(t.points for t in listed.values()),
                              *free.values(), sum(t.points for t in listed.values()) + sum(free.values()), ""]]
    for student, result in sorted(results.items()):
        earned = points(result)
        note = result["extra_data"]["note"]
        machine = [earned.get(name, "") for name in listed]
        rows.append([student, *machine, round(sum(earned.get(name, 0.0) for name in listed), 2),
                     *(earned.get(name, "") for name in free), result["score"], note])
    return table(rows)


def free_table(results: Mapping[str, Mapping[str, Any]], assignment: str,
               known: Mapping[tuple[str, str], tuple[str, str]]) -> str:
    """Return free.csv: a row for each student and free-response question, with room for points and a comment.

    known: {(student, task): (points, comment)} as the file had them before
    """
    rows: list[Sequence[Any]] = [FREE_COLUMNS]
    for student, result in sorted(results.items()):
        for task, most in master.free_tasks(assignment).items():
            points, comment = known.get((student, task), ("", ""))
            rows.append([student, task, most, points, comment,
                         clean(result["extra_data"].get("answers", {}).get(task, ""))])
    return table(rows)


def read_free(path: Path) -> dict[tuple[str, str], tuple[str, str]]:
    """Return {(student, task): (points as text, comment)} of a free.csv.

    Raises CourseError if it is not one.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as e:
        raise CourseError(f"{path}: expected the file free.csv of a run, in UTF-8 ({e})") from None
    needed = {"student", "task", "points"}
    if rows and not needed <= set(rows[0]):
        raise CourseError(f"{path}: expected the columns {', '.join(FREE_COLUMNS)}, got {', '.join(map(str, rows[0]))}")
    return {(_plain(row["student"] or ""), row["task"] or ""): ((row["points"] or "").strip(),
                                                                _plain(row.get("comment") or "")) for row in rows}


def _plain(text: str) -> str:
    """Return the text that `safe` has changed."""
    return text[1:] if text[:1] == "'" and safe(text[1:]) != text[1:] else text


def free_points(path: Path, assignment: str) -> dict[str, dict[str, tuple[float, str]]]:
    """Return {student: {task: (points, comment)}} of the rows of a free.csv that have points.

    Raises CourseError if points are not a number from 0 to the question's maximum.
    """
    most = master.free_tasks(assignment)
    found: dict[str, dict[str, tuple[float, str]]] = {}
    for (student, task), (text, comment) in read_free(path).items():
        if not text:
            continue
        try:
            points = float(text.replace(",", "."))
        except ValueError:
            points = -1.0
        if task not in most:
            raise CourseError(f"{path}: expected a question of {assignment}, one of {', '.join(most)}; got {task!r}")
        if not 0 <= points <= most[task]:
            raise CourseError(f"{path}: {student}, {task}: expected points from 0 to {most[task]}, got {text!r}")
        found.setdefault(student, {})[task] = points, comment
    return found


def write_json(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result as JSON."""
    write_atomically(path, json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def maximum(assignment: str) -> float:
    """Return the points by machine of an assignment."""
    return sum(points_of(task, half) for task in tasks(assignment).values() for half in ("visible", "hidden"))
