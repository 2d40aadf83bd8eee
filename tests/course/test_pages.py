"""docs/course says what the course does: its commands exist, its reports are real, its numbers are the source's."""
import contextlib
import csv
import importlib.util
import io
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from minires import cli
from minires.course import build, diagnose, grade, judge, marks, master, nbgrader, solution, worker
from minires.course.bank import bugs, changed
from minires.course.task import FREE_POINTS, VISIBLE_SHARE, assignments, find, tasks

ROOT = Path(__file__).resolve().parents[2]
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs" / "course").glob("*.md"))}
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMANDS = [line for text in PAGES.values() for kind, code in BLOCK.findall(text) if kind == "console"
            for line in re.sub(r"\\\n +", "", code).splitlines()]


def shown(page, beginning):
    """Return the text block of a page that begins in this way."""
    (code,) = [code for kind, code in BLOCK.findall(PAGES[page]) if kind == "text" and code.startswith(beginning)]
    return code


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_exists(line):
    assert line.startswith("$ "), "a console block shows commands only"
    words = shlex.split(line.removeprefix("$ "))
    if words[0] == "minires":
        cli._parser().parse_args(words[1:])  # private: parses only, and runs nothing
    elif words[0] == "python" and words[1] != "-m":
        script = (ROOT / words[1]).read_text(encoding="utf-8")
        assert all(f'"{word}"' in script for word in words if word.startswith("--"))
    else:
        assert words[0] in {"pip", "jupyter", "pytest", "nbgrader", "python", "for"}, line
    for module in re.findall(r"python -m ([\w.]+)", line):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file()


def test_commands_are_found():
    assert len(COMMANDS) > 20 and "$ minires course check a3" in COMMANDS


@pytest.mark.system
def test_the_report_that_students_see_is_real(tmp_path, monkeypatch, capsys):
    """Of a file with two right answers and one wrong one."""
    (bug,) = (bug for bug in bugs("a3") if bug.number == 1)
    answers = {name: solution.answer(find(name)) for name in ("a3.1", "a3.2", "a3.3")}
    answers["a3.3"] = changed(answers["a3.3"], *bug.changes["a3.3"][0])
    notebook = json.loads(build.files("student", ["a3"])["a3.ipynb"])
    for cell in notebook["cells"]:
        meta = cell["metadata"].get("minires", {})
        if meta.get("kind") == "answer" and meta["task"] in answers:
            cell["source"] = answers.pop(meta["task"])
    (tmp_path / "course").mkdir()
    (tmp_path / "course" / "a3.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert not answers and cli.main(["course", "check", "a3"]) == 1
    assert capsys.readouterr().out == shown("students", "course/a3.ipynb")


REPORTED = {  # a phrase that the page explains: what of it is in the source that writes reports
    "not written yet": "not written yet", "col2im is not defined": "is not defined",
    "6x8 pixels, kernel 3x3, ...:": "{cases[k].label}: ", "with other inputs": "with other inputs, ",
    "right in 42 % of the entries": "of the entries. Index", "zero everywhere": "zero everywhere",
    "NaN in 3 % of the entries": "NaN in {", "twice what is expected": "{words} what is expected",
    "1/(N·H·W) of what is expected": "of what is expected", "Right: y, dgamma": " Right: {",
    "the right numbers, with the axes in the order (0, 1, 3, 2)": "right numbers, with the axes in the order {axes}",
    "expected float32, got float64": "expected {r.dtype}, got {s.dtype}",
    "you write into an array that you were given": "you write into an array that you were given",
    "IndexError: ... (cell 12, line 4: ...)": "{e.error}: {e.text}", "either ..., or ...": "either ",
    "was stopped after 10 s of computing": "was stopped after {self.task.cpu_seconds} s of computing",
    "col2im of a3.3 is not right yet, and this task uses it": "not right yet, and this task uses {",
    "This is what you get when ...": "This is what you get when", "There are two causes: ...; and ...": "two causes: {",
}


def test_the_phrases_that_are_explained_are_in_the_reports():
    source = "".join(Path(module.__file__).read_text(encoding="utf-8") for module in (diagnose, grade, judge, worker))
    explained = [line.split(" | ")[0] for line in PAGES["students"].splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`([^`]+)`", "".join(explained))) == set(REPORTED)
    assert [part for part in REPORTED.values() if part not in source] == []


def test_the_table_of_assignments_is_complete():
    rows = re.findall(r"^\| \[(A\d)\. (.+?)\]\((.+?)\) \| (\d+) \|", PAGES["students"], re.MULTILINE)
    assert [name.lower() for name, *_ in rows] == list(assignments())
    for name, title, link, minutes in rows:
        text = master.master_path(name.lower()).read_text(encoding="utf-8")
        assert master.title(name.lower()).startswith(f"{name}. {title}") and f"*{minutes} minutes, 100 points." in text
        assert (ROOT / "docs" / "course" / link).is_file()


def test_the_numbers_are_those_of_the_source():
    students, teachers = (" ".join(PAGES[name].split()) for name in ("students", "teachers"))
    listed = re.findall(r"`(\w+)`", students.partition("these modules of Python: ")[2].partition(". Some tasks")[0])
    assert set(listed) == worker.ALLOWED - {"numpy", "__future__"}
    assert {task.cpu_seconds for name in assignments() for task in tasks(name).values()} == {10}
    assert "10 seconds of computing for a task" in students and "10 s of computing time" in teachers
    assert (VISIBLE_SHARE, FREE_POINTS) == (0.4, 15)
    for text in students, teachers:
        assert "40 %" in text and "60 %" in text and "15 points" in text
    assert f"{judge.MEMORY >> 30} GiB of memory" in teachers and (
        f"at most {worker.MOST_FILES} files, of {judge.FILE >> 20} MB each" in teachers)
    assert f"{judge.LEAST_WALL:.0f} s" in teachers
    assert f"{sum(len(bugs(name)) for name in assignments())} mistakes" in teachers


@pytest.mark.system
def test_the_marks_that_teachers_see_are_real(tmp_path, monkeypatch):
    """Of one task, for a right file, a wrong one, and one that is not a notebook; the other tasks are made up."""
    text = shown("teachers", "student,")
    head = next(csv.reader(io.StringIO(text)))
    assert head == next(csv.reader(io.StringIO(marks.marks_table({}, "a4"))))
    one = {"a4.3": tasks("a4")["a4.3"]}
    for module in grade, marks, nbgrader:
        monkeypatch.setattr(module, "tasks", lambda name: one)
    right = master.percent(master.solution(master.master("a4")))
    place = tmp_path / "submitted"
    place.mkdir()
    (place / "ann.py").write_text(right, encoding="utf-8")
    (place / "bob.py").write_text(right.replace("inv * (g - mean_term - var_term)", "inv * g"), encoding="utf-8")
    (place / "dan.ipynb").write_text("{")
    with contextlib.redirect_stdout(io.StringIO()):
        results = grade.grade(place, "a4", tmp_path / "marks", 20617, 2)
    rows = {row["student"]: row for row in csv.DictReader(io.StringIO(text))}
    assert {name: float(rows[name]["a4.3"] or 0) for name in results} == {
        name: result["score"] for name, result in results.items()}
    assert rows["dan"]["note"] == results["dan"]["extra_data"]["note"]
    feedback = (tmp_path / "marks" / "bob.md").read_text(encoding="utf-8")
    (line,) = [line for line in feedback.splitlines() if line.startswith("**a4.3 batch_norm_backward**")]
    assert f"{line}\n" == shown("teachers", "**a4.3")


@pytest.mark.system
def test_a_small_class_is_measured(monkeypatch, capsys):
    """benchmarks/course.py, with one of each kind of submission and one task."""
    spec = importlib.util.spec_from_file_location("course_benchmark", ROOT / "benchmarks" / "course.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for module in script, grade, marks:
        monkeypatch.setattr(module, "tasks", lambda name: {"a4.4": tasks("a4")["a4.4"]})
    monkeypatch.setattr(sys, "argv", ["course.py", "--assignment", "a4", "--students", "5"])
    script.main()
    said = capsys.readouterr().out
    assert re.fullmatch(r"5 students x 1 tasks of a4: \d+ s in the judge, \d+ s in the workers, [\d.]+ CPU minutes; "
                        r"every mark is as it must be\n", said)
