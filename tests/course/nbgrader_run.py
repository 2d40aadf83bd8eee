"""Take an assignment through nbgrader without a browser, from its source to the students' feedback.

    pip install nbgrader==0.9.6
    python tests/course/nbgrader_run.py FOLDER [--assignment a4] [--students solution blank wrong copied]

FOLDER must not exist; the course is made in it. The script builds nbgrader's source, generates the release, collects
synthetic submissions, runs the autograder, replaces its marks by the judge's, and writes the feedback. It ends with
status 0 if the gradebook then holds the points that each synthetic student must have.
"""
from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from minires.course import master, solution
from minires.course.bank import bugs, changed
from minires.course.task import tasks

GRADEBOOK = "gradebook.db"


def run(folder: Path, *command: str, seconds: float = 600) -> str:
    """Run a command in a folder and return what it prints. End the script if it fails."""
    print("$", *command, flush=True)
    environment = {**os.environ, "JUPYTER_PLATFORM_DIRS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout + done.stderr


def submission(kind: str, assignment: str, released: str) -> tuple[str, float]:
    """Return (notebook, points it must have): the released notebook with its answers filled in one of several ways."""
    notebook, listed = json.loads(released), tasks(assignment)
    texts = {name: solution.answer(task) for name, task in listed.items()}
    points = float(sum(task.points for task in listed.values()))
    if kind == "blank":
        return released, 0.0
    if kind == "wrong":  # the first bug that a single task has
        bug, name = next((bug, name) for bug in bugs(assignment) for name in bug.changes)
        texts[name] = changed(texts[name], *bug.changes[name][0])
        points -= listed[name].points
    cells = []
    for cell in notebook["cells"]:
        name = cell["metadata"].get("minires", {}).get("task", "")
        kept = cell["metadata"].get("minires", {}).get("kind", "")
        if kept == "answer" and name in texts:
            cell["source"] = texts.pop(name)
        elif kept == "answer":
            cell["source"] = ""  # a task's second cell: the first holds all of its answer
        cells.append(cell)
        if kind == "copied" and kept == "check":
            cells.append(json.loads(json.dumps(cell)) | {"id": f"copy{len(cells)}"})
        if kind == "stripped":
            cell["metadata"] = {}
    if kind == "cheat":
        for cell in cells:
            if cell["metadata"].get("minires", {}).get("kind") == "answer":
                cell["source"] = "import numpy as np\nnp.allclose = lambda *a, **k: True\n"
            if cell["metadata"].get("minires", {}).get("kind") == "check":
                cell["source"] = "check = lambda *a: True\n" + "".join(cell["source"])
        points = 0.0
    if kind == "exits":
        cells.insert(2, {"cell_type": "code", "id": "exits", "metadata": {}, "source": "import os; os._exit(0)",
                         "outputs": [], "execution_count": None})
    return json.dumps({**notebook, "cells": cells}), points


KINDS = "solution", "blank", "wrong", "copied", "stripped", "cheat", "exits"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--assignment", default="a4")
    parser.add_argument("--students", nargs="+", choices=KINDS, default=list(KINDS))
    args = parser.parse_args()
    folder, name = args.folder.resolve(), args.assignment
    if folder.exists():
        sys.exit(f"{folder} exists; name a new folder")
    if not shutil.which("nbgrader", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])):
        sys.exit("nbgrader is not installed: pip install nbgrader==0.9.6")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    minires = [sys.executable, "-m", "minires"]
    folder.mkdir(parents=True)
    run(folder, *minires, "course", "build", ".", name, "--as", "nbgrader")
    run(folder, "nbgrader", "generate_assignment", name)
    released = (folder / "release" / name / f"{name}.ipynb").read_text(encoding="utf-8")
    assert "BEGIN SOLUTION" not in released and "Model answer" not in released
    assert sorted(path.name for path in (folder / "release" / name).iterdir()) == [f"{name}.ipynb"]
    wanted = {}
    for student in args.students:
        place = folder / "submitted" / student / name
        place.mkdir(parents=True)
        text, wanted[student] = submission(student, name, released)
        (place / f"{name}.ipynb").write_text(text, encoding="utf-8")
    print(run(folder, *minires, "course", "clean", "submitted"))
    for student in wanted:  # one at a time: a submission that ends the kernel must not stop the others
        try:
            run(folder, "nbgrader", "autograde", name, "--student", student, seconds=900)
        except (SystemExit, subprocess.TimeoutExpired) as e:
            print(f"{student}: nbgrader could not run this submission: {str(e)[-300:]}")
    print(run(folder, *minires, "course", "grade", "submitted", "--assignment", name, "--out", "marks", "--seed", "7",
              "--gradebook", f"sqlite:///{GRADEBOOK}"))
    for student in wanted:
        if (folder / "autograded" / student / name / f"{name}.ipynb").exists():
            run(folder, "nbgrader", "generate_feedback", name, "--student", student)
    compare(folder, name, wanted)


def compare(folder: Path, name: str, wanted: dict[str, float]) -> None:
    """Print each student's points in the gradebook, and end with status 1 if they are not what they must be."""
    from nbgrader.api import Gradebook

    wrong = []
    with Gradebook(f"sqlite:///{folder / GRADEBOOK}") as book:
        for student, points in wanted.items():
            notebook = book.find_submission_notebook(name, name, student)
            found = sum(grade.auto_score or 0.0 for grade in notebook.grades
                        if grade.name.endswith("-check"))
            feedback = folder / "feedback" / student / name / f"{name}.html"
            print(f"{student:10} {found:5.4g} points, expected {points:5.4g}; feedback: {feedback.exists()}")
            wrong += [student] if abs(found - points) > 0.01 else []
    titles = {cell.task for cell in master.master(name) if cell.kind == "free"}
    print(f"to mark by hand: {', '.join(sorted(titles))}")
    if wrong:
        sys.exit(f"wrong points: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
