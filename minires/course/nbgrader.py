"""Write the judge's marks into the gradebook of nbgrader 0.9.6, and make submissions fit for its autograder.

nbgrader is not a dependency of minires: `pip install nbgrader==0.9.6`. It is imported when marks are written.
"""
from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files.atomic import write_atomically
from . import marks, master, submission
from .task import CourseError, tasks

CONFIG = '''"""nbgrader's settings for the assignments of minires. Start nbgrader in this folder."""
c = get_config()  # noqa: F821 (nbgrader defines it)
c.CourseDirectory.course_id = "minires"
c.CourseDirectory.ignore = [".ipynb_checkpoints", "*.pyc", "__pycache__", "*.py"]  # files with solutions stay here
c.ClearSolutions.code_stub = {"python": "raise NotImplementedError"}
c.OverwriteCells.add_missing_cells = True  # a deleted check comes back
c.ExecutePreprocessor.timeout = 60         # seconds for a cell; the marks come from minires course grade
'''


def write_marks(gradebook: str, assignment: str, results: Mapping[str, Mapping[str, Any]]) -> int:
    """Set the automatic score of every task in nbgrader's gradebook, and return how many students were marked.

    gradebook: address of the database, such as sqlite:///gradebook.db
    results: {student: the JSON of a mark}

    Run `nbgrader autograde` first. A submission that it could not run gets its entry here. A submission that was not
    marked is left out, and points of free responses are not changed.
    Raises CourseError if the gradebook does not know the assignment.
    """
    try:
        from nbgrader.api import Gradebook, MissingEntry
    except ModuleNotFoundError:
        raise CourseError("--gradebook needs nbgrader: pip install nbgrader==0.9.6") from None
    if gradebook.startswith("sqlite:///") and not Path(gradebook.removeprefix("sqlite:///")).is_file():
        raise CourseError(f"{gradebook}: there is no such gradebook; nbgrader autograde makes it")
    marked = 0
    with Gradebook(gradebook) as book:
        try:
            book.find_notebook(assignment, assignment)
        except MissingEntry:
            raise CourseError(f"{gradebook}: this gradebook has no assignment {assignment}; run nbgrader "
                              f"generate_assignment {assignment} first") from None
        for student, result in results.items():
            if result["extra_data"]["note"]:
                continue
            earned = marks.points(result)
            try:
                notebook = book.find_submission_notebook(assignment, assignment, student)
            except MissingEntry:
                book.update_or_create_student(student)
                book.add_submission(assignment, student)
                notebook = book.find_submission_notebook(assignment, assignment, student)
            marked += 1
            grades = {grade.name: grade for grade in notebook.grades}
            for task in tasks(assignment):
                grade = grades.get(master.grade_id(task, "check"))
                if grade is not None:
                    grade.auto_score, grade.needs_manual_grade = earned.get(task, 0.0), False
        book.db.commit()
    return marked


def clean(folder: Path) -> list[Path]:
    """Take nbgrader's metadata off every repeated cell of the notebooks in a folder, and return the changed files.

    nbgrader stops at a notebook in which two cells have one name, as a copied cell does. The first keeps its name. The
    notebook as it was stays beside the changed one, as NAME.ipynb.orig, unless there is one already.
    """
    if not folder.is_dir():
        raise CourseError(f"{folder}: expected the folder with the students' submissions")
    changed = []
    for path in sorted(folder.rglob("*.ipynb")):
        if any(part.startswith(".") for part in path.relative_to(folder).parts) or path.is_symlink():
            continue  # a link could lead to another student's file
        try:
            data = submission.content(path)
            notebook = json.loads(data)
            cells = notebook["cells"]
        except (CourseError, ValueError, KeyError, TypeError, RecursionError):
            continue  # `grade` says what is wrong with it
        seen: set[str] = set()
        repeated = 0
        for cell in cells if isinstance(cells, list) else ():
            meta = cell.get("metadata") if isinstance(cell, dict) else None
            found = meta.get("nbgrader") if isinstance(meta, dict) else None
            name = str(found.get("grade_id", "")) if isinstance(found, dict) else ""
            if meta is not None and name and name in seen:
                del meta["nbgrader"]
                repeated += 1
            seen.add(name)
        if repeated:
            original = path.with_name(f"{path.name}.orig")
            if not original.exists():
                write_atomically(original, data)
            write_atomically(path, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
            changed.append(path)
    return changed
