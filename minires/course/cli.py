"""Define the commands `minires course new`, `check`, `grade`, `build` and `clean`."""
from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from ..commands import arguments

Commands = Any  # the type that argparse's add_subparsers returns, which has no public name


class AnyOrder(argparse.ArgumentParser):
    """A parser whose options may stand between its arguments: `new course --py a3`."""

    _inside = False  # parse_known_intermixed_args calls parse_known_args

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments and options in any order."""
        if self._inside:
            return super().parse_known_args(args, namespace)
        self._inside = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._inside = False


def add(commands: Commands) -> None:
    """Add the parser of `minires course` to minires' commands."""
    course = commands.add_parser(
        "course", help="eight programming assignments, with checks that explain, and the grading of submissions",
        description="Assignments on autograd, convolution, batch normalisation, the skip connection, and experiments "
                    "with ResNets: for students `new` and `check`, for teachers `grade`, `build` and `clean`.")
    actions = course.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=AnyOrder)
    _add_new(actions)
    _add_check(actions)
    _add_grade(actions)
    _add_build(actions)
    _add_clean(actions)


def _add_new(actions: Commands) -> None:
    new = actions.add_parser(
        "new", help="write the assignments into a folder", description="Write the assignments into the folder DIR as "
        "notebooks, with a README.md. A file that exists is kept as it is.")
    new.add_argument("folder", type=arguments.path, metavar="DIR", help="the folder; it is made if it does not exist")
    new.add_argument("assignments", nargs="*", default=[], metavar="ASSIGNMENT", help="such as a3 (default: all)")
    new.add_argument("--py", action="store_true",
                     help="write .py files for an editor, each with a test file for pytest, instead of notebooks")
    new.set_defaults(run=_new)


def _new(args: argparse.Namespace) -> int:
    from . import build

    build.new(args.folder, _names(args.assignments), args.py)
    return 0


def _add_check(actions: Commands) -> None:
    check = actions.add_parser(
        "check", help="try the saved file of an assignment, in a process of its own",
        description="Try the answers in a saved notebook or .py file, each task in a process of its own, and say what "
                    "is right and why something is wrong. The exit status is 0 if all is right, and 1 if not.")
    check.add_argument("what", metavar="WHAT",
                       help="an assignment (a3), one task (a3.4), or a file (course/a3.ipynb). An assignment is looked "
                            "for in this folder, then in the folder course")
    check.add_argument("--assignment", metavar="NAME", help="the assignment of a file that has another name")
    check.set_defaults(run=_check)


def _check(args: argparse.Namespace) -> int:
    from . import grade, judge, marks, submission
    from .task import find, known, tasks

    path, name, task = _file(args.what, args.assignment)
    name = known(name)
    listed = [find(task)] if task else list(tasks(name).values())
    written = submission.read(path, name)
    print(f"{path}" + ": in this process and without limits, because there are no others here" * judge.NO_PROCESSES)
    notes: dict[str, None] = {}
    wrong = 0
    for mark in grade.mark_all(listed, written.code, grade.OTHER_SEED, pairs=True):
        print(grade.line(mark), flush=True)
        wrong += not mark.right
        if not mark.right:
            notes |= dict.fromkeys(mark.notes)
    for note in notes:
        print(f"note: {marks.clean(note)}")
    return 1 if wrong else 0


def _file(what: str, assignment: str | None) -> tuple[Path, str, str]:
    """Return (path, assignment, task or "") of the argument of `check`."""
    from .task import CourseError, assignments

    path = Path(what)
    if path.suffix in (".ipynb", ".py"):
        if not path.is_file():
            raise CourseError(f"{path}: there is no such file")
        return path, assignment or path.stem, ""
    name = what.partition(".")[0].lower()
    task = what.lower() if "." in what else ""
    if name not in assignments():
        raise CourseError(f"expected an assignment ({', '.join(assignments())}), a task or a file, got {what!r}")
    for folder in Path(), Path("course"):
        found = [folder / f"{name}{suffix}" for suffix in (".ipynb", ".py") if (folder / f"{name}{suffix}").is_file()]
        if len(found) == 2:
            raise CourseError(f"there are {found[0]} and {found[1]}: name the file to check")
        if found:
            return found[0], name, task
    raise CourseError(f"there is no {name}.ipynb and no {name}.py in this folder or in the folder course: "
                      f"`minires course new course {name}` writes one")


def _add_grade(actions: Commands) -> None:
    grade = actions.add_parser(
        "grade", help="mark the submissions in a folder",
        description="Mark every submission in FOLDER, which holds one file or one folder for each student. Write into "
                    "the folder --out: STUDENT.json in Gradescope's form, STUDENT.md with feedback, marks.csv, and "
                    "free.csv with the free responses. A stopped run continues with the same command.",
        epilog="Submissions run in processes with limits and without network. For an open contest, run this command "
               "in a container.")
    grade.add_argument("folder", type=arguments.path, metavar="FOLDER", help="the folder with the submissions")
    grade.add_argument("--assignment", required=True, metavar="NAME", help="such as a3")
    grade.add_argument("--out", type=arguments.path, metavar="DIR",
                       help="folder for the marks (default: marks-ASSIGNMENT)")
    grade.add_argument("--seed", type=arguments.not_negative, metavar="S",
                       help="draws the hidden inputs; keep it secret until the marks are out (default: a random number "
                            "for a new folder, or the folder's own)")
    grade.add_argument("--jobs", type=arguments.positive, default=os.cpu_count() or 1, metavar="N",
                       help="number of submissions to run at the same time (default: one per core)")
    grade.add_argument("--free", type=arguments.path, metavar="FILE",
                       help="the free.csv of a run, with the column points filled: adds these points to the marks")
    grade.add_argument("--gradebook", metavar="ADDRESS",
                       help="also write the marks into nbgrader's gradebook, such as sqlite:///gradebook.db")
    grade.add_argument("--gradescope", type=arguments.path, metavar="FILE",
                       help="FOLDER is one submission: write its results.json and nothing else")
    grade.set_defaults(run=_grade)


def _grade(args: argparse.Namespace) -> int:
    import secrets

    from . import grade, nbgrader
    from .task import CourseError, known

    name = known(args.assignment)
    if args.gradescope:
        if args.out or args.free or args.gradebook:
            raise CourseError("--gradescope writes one file and goes with --assignment and --seed alone")
        grade.gradescope(args.folder, name, args.seed or 0, args.gradescope)
        return 0
    out = args.out or Path(f"marks-{name}")
    seed = args.seed if args.seed is not None else grade.seed_of(out, secrets.randbelow(1_000_000))
    results = grade.grade(args.folder, name, out, seed, args.jobs, args.free)
    unmarked = sum(bool(result["extra_data"]["note"]) for result in results.values())
    print(f"{len(results)} submissions, {unmarked} of them not marked, with --seed {seed}: {out / 'marks.csv'}, "
          f"{out / 'free.csv'}, and a .json and .md for each student")
    if args.gradebook:
        count = nbgrader.write_marks(args.gradebook, name, results)
        print(f"wrote the marks of {count} students into {args.gradebook}")
    return 0


def _add_build(actions: Commands) -> None:
    build = actions.add_parser(
        "build", help="write solutions, nbgrader's source, or Gradescope's autograder",
        description="Write a product of the assignments into the folder DIR: the students' notebooks, the solutions as "
                    "notebooks and .py files, the source folder of nbgrader with its settings, or one zip for each "
                    "assignment to upload to Gradescope.")
    build.add_argument("folder", type=arguments.path, metavar="DIR", help="the folder; it is made if it does not exist")
    build.add_argument("assignments", nargs="*", metavar="ASSIGNMENT", help="such as a3 (default: all)")
    build.add_argument("--as", dest="kind", choices=("student", "solution", "nbgrader", "gradescope"), required=True,
                       help="the product")
    build.add_argument("--replace", action="store_true", help="replace files that exist and have another content")
    build.add_argument("--seed", type=arguments.not_negative, metavar="S",
                       help="for gradescope: draws the hidden inputs; keep it secret (default: a random number)")
    build.add_argument("--wheel", type=arguments.path, metavar="FILE",
                       help="for gradescope: a wheel of minires to install instead of the published version")
    build.set_defaults(run=_build)


def _build(args: argparse.Namespace) -> int:
    import secrets

    from . import build
    from .task import CourseError

    if args.wheel and not args.wheel.is_file():
        raise CourseError(f"{args.wheel}: there is no such file")
    seed = args.seed if args.seed is not None else secrets.randbelow(1_000_000)
    build.build(args.folder, args.kind, _names(args.assignments), replace=args.replace, seed=seed, wheel=args.wheel)
    if args.kind == "gradescope":
        print(f"hidden inputs with --seed {seed}")
    return 0


def _add_clean(actions: Commands) -> None:
    clean = actions.add_parser(
        "clean", help="make submissions fit for nbgrader's autograder",
        description="Take nbgrader's metadata off cells whose name another cell of the notebook has already, as copied "
                    "cells do: nbgrader stops at such a notebook. The notebook as it was is kept as NAME.ipynb.orig.")
    clean.add_argument("folder", type=arguments.path, metavar="FOLDER", help="the folder with the submissions")
    clean.set_defaults(run=_clean)


def _clean(args: argparse.Namespace) -> int:
    from . import nbgrader

    changed = nbgrader.clean(args.folder)
    print(f"changed {', '.join(map(str, changed))}" if changed else "no notebook has a cell whose name is repeated")
    return 0


def _names(given: list[str]) -> list[str]:
    from .task import assignments, known

    return list(dict.fromkeys(map(known, given))) or list(assignments())
