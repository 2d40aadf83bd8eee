"""Mark one submission or a whole class: collect, judge, write, and continue where a stopped run ended."""
from __future__ import annotations

import ast
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import Any

from .. import __version__
from ..files.atomic import check_can_hold_files, write_atomically
from . import judge, marks, solution, submission
from .judge import Cells, Mark
from .submission import Submission
from .task import HALVES, CourseError, Task, find, tasks

OTHER_SEED = 2**40 + 1  # no teacher's seed: draws the hidden cases of `minires course check`, which is no mark
Say = Callable[[str], None]


# ------------------------------------------------------------------------------------------ one submission


def mark_all(listed: Sequence[Task], cells: Cells, seed: int, pairs: bool = False) -> Iterator[Mark]:
    """Yield the mark of each task. A failure that may come from another task's answer says so."""
    failed: dict[str, str] = {}
    died: dict[bool, str] = {}  # with and without minires: a file that ends its worker does so in every task
    for task in listed:
        mark = judge.mark(task, cells, seed, pairs, died.get(task.minires, ""))
        died[task.minires] = mark.died
        needed = {} if mark.right or not failed else uses(task, cells)
        if wrong := [name for name in needed if name in failed]:
            one = sum(len(needed[name]) for name in wrong) == 1
            names = " and ".join(f"{' and '.join(needed[name])} of {name}" for name in wrong)
            words = f"{names} {'is' if one else 'are'} not right yet, and this task uses {'it' if one else 'them'}."
            mark = mark._replace(**{half: part._replace(verdict=part.verdict._replace(
                hint=f"{part.verdict.hint} {words}".strip())) for half in HALVES
                if (part := getattr(mark, half)) is not None and part.verdict.words.startswith("not yet")})
        if not mark.right:
            failed[task.name] = mark.visible.verdict.words
        yield mark


def uses(task: Task, cells: Cells) -> dict[str, list[str]]:
    """Return {another task: names of its answer that this task is tried with, or that the submission's answer calls}.

    Only the texts are searched: a submission is never parsed in this process.
    """
    answer = "\n".join(found[0] for _, source in cells for name in task.needs if name in defined(task)
                       for found in re.finditer(rf"(?ms)^(?:def|class) {name}\b.*?(?=^[A-Za-z@#%]|\Z)", source))
    found = {}
    for other in tasks(task.assignment).values():
        if other.name != task.name and (shared := [
                name for name in defined(other) if name in other.needs and name not in defined(task)
                and (name in task.needs or re.search(rf"(?<![\w.]){name}\(", answer))]):
            found[other.name] = shared
    return found


@cache
def defined(task: Task) -> tuple[str, ...]:
    """Return the functions and classes that the task's answer defines."""
    return tuple(node.name for node in ast.parse(solution.answer(task)).body
                 if isinstance(node, (ast.FunctionDef, ast.ClassDef)))


def tried(path: Path, task: str) -> Mark:
    """Return the mark of one task of a file, as `minires course check` gives it. For a test file of pytest."""
    one = find(task)
    (mark,) = mark_all([one], submission.read(path, one.assignment).code, OTHER_SEED, pairs=True)
    return mark


def line(mark: Mark) -> str:
    """Return a mark on one line: "a3.3 col2im   8 / 20   not yet: ..."."""
    parts = marks.halves(mark)
    points, most = sum(half.points for half in parts), sum(half.most for half in parts)
    return f"{mark.task:5} {mark.title:30} {points:4.3g} / {most:2.3g}   {marks.clean(words(mark))}"


def words(mark: Mark) -> str:
    """Return the report on a mark: on the first half that is not right."""
    for half in marks.halves(mark):
        if not half.verdict.right:
            other = "" if half is mark.visible else "with other inputs, "
            return half.verdict.text.replace("not yet: ", f"not yet: {other}", 1)
    return "right"


# ------------------------------------------------------------------------------------------------- a class


def student(one: Submission, assignment: str, seed: int) -> marks.Student:
    """Mark one student's submission. Whatever happens, a Student comes back."""
    start = time.monotonic()
    digest, answers, made, note = "", {}, [], one.problem
    try:
        if one.path is not None:
            written = submission.read(one.path, assignment)
            digest, answers = written.digest, written.free
            made = list(mark_all(list(tasks(assignment).values()), written.code, seed))
    except CourseError as e:
        note = str(e)
    except Exception as e:  # one submission must not stop the others
        note, made = f"the judge failed on this submission ({type(e).__name__}: {str(e)[:200]}); mark it by hand", []
        digest = ""  # a later run tries again
    return marks.Student(one.student, tuple(made), time.monotonic() - start, note, digest, answers)


def grade(folder: Path, assignment: str, out: Path, seed: int, jobs: int, free: Path | None = None,
          say: Say = print) -> dict[str, dict[str, Any]]:
    """Mark every submission in a folder, write the results into `out`, and return {student: the JSON}.

    seed: draws the hidden cases
    jobs: how many submissions are marked at the same time
    free: a free.csv with points for the free responses

    A submission that `out` holds a mark for, with the same bytes and seed, is not marked again.
    Raises CourseError if `out` holds marks of another assignment, seed or version.
    """
    listed = submission.collect(folder, assignment)
    known = marks.free_points(free, assignment) if free else {}
    if unknown := set(known) - {one.student for one in listed}:
        raise CourseError(f"{free}: {', '.join(sorted(unknown))} has no submission in {folder}")
    check_can_hold_files(out)
    out.mkdir(parents=True, exist_ok=True)
    before = marks.read_free(out / "free.csv") if (out / "free.csv").exists() else {}
    old = {one.student: _old(out / f"{one.student}.json", assignment, seed) for one in listed}
    results: dict[str, dict[str, Any]] = {}
    todo = []
    for one in listed:
        result = old[one.student]
        if result is not None and result["extra_data"]["digest"] and result["extra_data"]["digest"] == _digest(one):
            results[one.student] = result
            if not (out / f"{one.student}.md").exists():  # an earlier run stopped between the two files
                _write(out, one.student, result, assignment)
        else:
            todo.append(one)
    if len(listed) > len(todo):
        say(f"{len(listed) - len(todo)} of {len(listed)} submissions are marked already")
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(student, one, assignment, seed) for one in todo]
        try:
            for future in as_completed(futures):
                done = future.result()
                result = marks.gradescope(done, assignment, seed)
                result["extra_data"]["version"] = __version__
                _write(out, done.name, result, assignment)
                results[done.name] = result
                right = sum(mark.right for mark in done.marks)
                say(f"{marks.clean(done.name):24} {done.score:5.4g} / {marks.maximum(assignment):.3g}   "
                    + (f"{right} of {len(done.marks)} tasks right" if done.marks else f"not marked: {done.note}"))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for name, given in known.items():
        results[name] = _with_free(results[name], given, assignment)
        _write(out, name, results[name], assignment)
    write_atomically(out / "marks.csv", marks.marks_table(results, assignment))
    write_atomically(out / "free.csv", marks.free_table(results, assignment, before))
    return results


def seed_of(out: Path, new: int) -> int:
    """Return the seed of the marks in a folder, or `new` if it holds none."""
    for path in sorted(out.glob("*.json")) if out.is_dir() else ():
        try:
            return int(json.loads(path.read_text(encoding="utf-8"))["extra_data"]["seed"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return new


def _digest(one: Submission) -> str:
    try:
        return submission.digest(one.path) if one.path is not None else ""
    except CourseError:
        return ""


def _old(path: Path, assignment: str, seed: int) -> dict[str, Any] | None:
    """Return the result that an earlier run wrote, or None. Raise CourseError if it is of something else."""
    if not path.exists():
        return None
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        extra = result["extra_data"]
        found = extra["assignment"], extra["seed"], extra["version"]
        if not (isinstance(extra["digest"], str) and isinstance(result["tests"], list)):
            raise TypeError
        float(result["score"])
    except (OSError, ValueError, KeyError, TypeError):
        raise CourseError(f"{path}: expected a mark written by minires course grade; move the file away, or choose "
                          "another --out") from None
    if found != (assignment, seed, __version__):
        raise CourseError(f"{path} is the mark of {found[0]} with --seed {found[1]} by minires {found[2]}, not of "
                          f"{assignment} with --seed {seed} by minires {__version__}: choose another --out")
    return result


def _with_free(result: Mapping[str, Any], given: Mapping[str, tuple[float, str]], assignment: str) -> dict[str, Any]:
    """Return a result with the points of the free responses."""
    kept = [test for test in result["tests"] if test["name"].split(" ")[0] not in given]
    added = marks.gradescope(marks.Student("", (), 0.0), assignment, 0, given)["tests"]
    return {**result, "tests": [*kept, *added], "score": round(sum(t["score"] for t in [*kept, *added]), 2)}


def _write(out: Path, name: str, result: Mapping[str, Any], assignment: str) -> None:
    marks.write_json(out / f"{name}.json", result)
    write_atomically(out / f"{name}.md", marks.feedback(result, name, assignment))


def gradescope(place: Path, assignment: str, seed: int, results: Path) -> dict[str, Any]:
    """Mark the one submission in a folder and write Gradescope's results.json."""
    done = student(submission.inside("submission", place, assignment), assignment, seed)
    result = marks.gradescope(done, assignment, seed)
    results.parent.mkdir(parents=True, exist_ok=True)
    marks.write_json(results, result)
    return result
