"""Write the files that are made from the masters: for students, for teachers, for nbgrader and for Gradescope."""
from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from .. import __version__
from ..files.atomic import check_can_hold_files, write_atomically
from . import master, nbgrader
from .task import CourseError

KINDS = "student", "solution", "nbgrader", "gradescope"

README = """# The course

Each file is one assignment. Open it, replace every `raise NotImplementedError`, and save.

    minires course check a3          # tries the saved file, and says what is right and why something is wrong
    minires course check a3.4        # only one task

In a notebook, the line `check(...)` after each task does the same at once, on the inputs that earn the first 40 % of
the points. `MINIRES_FAST=1` in the environment shortens the training in some figures. You hand in the file itself.

A .py file has cells, which begin with `# %%`. Editors that know them run them one by one and show the figures. Without
such an editor, run `python a3.py` and write the figure to a file, with `figure.savefig("a3.png")` at the end.
"""

TEST = '''"""Try the answers in {name}.py: `pytest test_{name}.py`, or `pytest -k {name}.1` for one task."""
from pathlib import Path

import pytest

from minires.course.grade import tried, words
from minires.course.task import tasks


@pytest.mark.parametrize("task", list(tasks("{name}")))
def test_answer(task):
    mark = tried(Path(__file__).with_name("{name}.py"), task)
    assert mark.right, words(mark)
'''

SETUP = """#!/usr/bin/env bash
# Gradescope runs this once, when it builds the autograder's image.
set -euo pipefail
cd /autograder/source
apt-get update
DEBIAN_FRONTEND=noninteractive apt-get install --yes python3 python3-venv
python3 -c 'import sys; assert sys.version_info >= (3, 11), "minires needs Python 3.11: choose a newer base image"'
python3 -m venv /autograder/environment
/autograder/environment/bin/pip install {package}
"""

RUN = """#!/usr/bin/env bash
# Gradescope runs this for every submission.
/autograder/environment/bin/minires course grade /autograder/submission --assignment {name} --seed {seed} \\
    --gradescope /autograder/results/results.json
"""


def files(kind: str, names: Sequence[str], *, percent: bool = False, seed: int = 0,
          wheel: Path | None = None) -> dict[str, str | bytes]:
    """Return {path inside the folder: content} of a product of assignments.

    percent: whether students get .py files and test files instead of notebooks
    seed, wheel: what Gradescope's autograder draws the hidden cases with, and installs
    """
    found: dict[str, str | bytes] = {}
    for name in names:
        cells = master.master(name)
        if kind == "student" and percent:
            found[f"{name}.py"] = master.percent(master.student(cells))
            found[f"test_{name}.py"] = TEST.format(name=name)
        elif kind == "student":
            found[f"{name}.ipynb"] = master.notebook(name, master.student(cells))
        elif kind == "solution":
            found[f"{name}.ipynb"] = master.notebook(name, master.solution(cells))
            found[f"{name}.py"] = master.percent(master.solution(cells))
        elif kind == "nbgrader":
            found[f"source/{name}/{name}.ipynb"] = master.notebook(name, cells, nbgrader=True)
        else:
            found[f"{name}.zip"] = gradescope_zip(name, seed, wheel)
    if kind == "nbgrader":
        found["nbgrader_config.py"] = nbgrader.CONFIG
    return found


def gradescope_zip(name: str, seed: int, wheel: Path | None) -> bytes:
    """Return the autograder of one assignment: a zip with setup.sh and run_autograder at its root.

    wheel: a wheel of minires to install instead of the published version
    """
    package = f"/autograder/source/{wheel.name}" if wheel else f"minires=={__version__}"
    scripts = {"setup.sh": SETUP.format(package=package), "run_autograder": RUN.format(name=name, seed=seed)}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in scripts.items():
            entry = zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0))
            entry.external_attr = 0o100755 << 16  # a regular file that may be run
            archive.writestr(entry, text)
        if wheel:
            archive.writestr(zipfile.ZipInfo(wheel.name, (2020, 1, 1, 0, 0, 0)), wheel.read_bytes())
    return out.getvalue()


def new(folder: Path, names: Sequence[str], percent: bool, say: Callable[[str], None] = print) -> None:
    """Write the students' files into a folder. A file that exists is kept, and named in what is printed."""
    made = {"README.md": README, **files("student", names, percent=percent)}
    check_can_hold_files(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kept = []
    for name, content in made.items():
        try:
            with open(folder / name, "x", encoding="utf-8", newline="\n") as file:
                file.write(str(content))
        except FileExistsError:
            kept.append(name)
    written = [name for name in made if name not in kept]
    if written:
        say(f"wrote {', '.join(str(folder / name) for name in written)}")
    if kept:
        say(f"kept {', '.join(str(folder / name) for name in kept)}, which existed already: to begin again, rename the "
            "file first")


def build(folder: Path, kind: str, names: Sequence[str], *, replace: bool = False, seed: int = 0,
          wheel: Path | None = None, say: Callable[[str], None] = print) -> None:
    """Write a product into a folder.

    replace: whether to replace files that have another content

    Raises CourseError, and writes nothing, if such a file exists and `replace` is False.
    """
    made = {name: content.encode() if isinstance(content, str) else content
            for name, content in files(kind, names, seed=seed, wheel=wheel).items()}
    check_can_hold_files(folder)
    other = [name for name, content in made.items()
             if (folder / name).exists() and ((folder / name).is_dir() or (folder / name).read_bytes() != content)]
    if other and not replace:
        raise CourseError(f"{folder / other[0]} exists and has another content; choose another folder, or replace it "
                          "with --replace")
    for name, content in made.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, content)
    say(f"wrote {', '.join(str(folder / name) for name in made)}")
