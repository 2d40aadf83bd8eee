"""minires course new, check, grade, build and clean: what they write, and one sentence for every bad input."""
import ast
import csv
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from minires import cli
from minires.course import build, grade, judge, marks, master, nbgrader, submission
from minires.course.task import CourseError, assignments, find, tasks

ROOT = Path(__file__).resolve().parents[2]
NAMES = assignments()
QUICK = "a4"  # the assignment of the tests that run submissions


def solved(name=QUICK):
    return master.percent(master.solution(master.master(name)))


def blank(name=QUICK):
    return master.percent(master.student(master.master(name)))


def table(path):
    """Return the rows of a CSV file."""
    return list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))


def course(*arguments):
    return cli.main(["course", *map(str, arguments)])


# -------------------------------------------------------------------------------------------- the products


@pytest.mark.parametrize("name", NAMES)
def test_a_student_file_holds_no_solution(name):
    made = build.files("student", [name]) | build.files("student", [name], percent=True)
    for text in made[f"{name}.ipynb"], made[f"{name}.py"]:
        assert "SOLUTION" not in text and "NotImplementedError" in text
        for cell in master.master(name):
            if cell.kind in ("answer", "free"):
                block = re.search("BEGIN SOLUTION\n(.*?)\n[^\n]*END SOLUTION", cell.source, re.DOTALL)[1]
                assert block not in text and json.dumps(block)[1:-1] not in text
    answers = [cell for cell in master.master(name) if cell.kind == "answer"]
    for cell in answers:
        lines = set(cell.source.split("\n")) - set(master.blank(cell).split("\n"))
        assert any(line.strip() not in blank(name) for line in lines), f"{cell.task} loses nothing"


@pytest.mark.parametrize("name", NAMES)
def test_the_tracked_notebook_is_the_one_made_from_the_master(name):
    path = ROOT / "notebooks" / "course" / f"{name}.ipynb"
    same = path.exists() and path.read_text(encoding="utf-8") == build.files("student", [name])[path.name]
    assert same, "run minires course build notebooks/course --as student --replace"


@pytest.mark.parametrize("name", NAMES)
def test_a_master_has_a_check_for_every_task_and_one_free_response(name):
    cells = master.master(name)
    checks = {cell.task: cell for cell in cells if cell.kind == "check"}
    assert list(checks) == list(tasks(name))
    assert {cell.task for cell in cells if cell.kind == "answer"} == set(tasks(name))
    for task in tasks(name).values():
        cell = checks[task.name]
        assert cell.meta["points"] == task.points
        (call,) = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)
                   and ast.unparse(node.func) == "check"]
        assert [ast.unparse(a) for a in call.args] == [repr(task.name), *task.needs]
    assert sum(master.free_tasks(name).values()) == 15
    assert [key for cell in cells for key in cell.meta if key not in ("task", "kind", "points")] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_percent_file_and_the_notebook_have_the_same_cells(name, tmp_path):
    for maker in (master.student, master.solution):
        cells = maker(master.master(name))
        assert master.read(master.percent(cells)) == cells
        (tmp_path / "a.ipynb").write_text(master.notebook(name, cells), encoding="utf-8")
        (tmp_path / "a.py").write_text(master.percent(cells), encoding="utf-8")
        notebook, percent = (submission.read(tmp_path / file, name) for file in ("a.ipynb", "a.py"))
        assert [source for _, source in notebook.code] == [source.lstrip("\n") for _, source in percent.code]
        assert [cell for cell, _ in percent.code] == [f"{cell} of {name}.py" for cell, _ in notebook.code]
        assert notebook.free == percent.free


def test_a_line_of_a_percent_file_has_its_number_in_the_file(tmp_path):
    text = solved()
    (tmp_path / "a4.py").write_text(text, encoding="utf-8")
    at = next(i for i, line in enumerate(text.split("\n")) if line.startswith("def batch_norm_backward"))
    (source,) = (s for _, s in submission.read(tmp_path / "a4.py", "a4").code if "def batch_norm_backward" in s)
    assert source.split("\n")[at].startswith("def batch_norm_backward")
    many = "# %%\n" * 3000  # so many empty lines would cost more than they tell
    (tmp_path / "a4.py").write_text(many, encoding="utf-8")
    assert submission.read(tmp_path / "a4.py", "a4").code[-1] == ("cell 3000", "")


def test_a_failure_names_the_answers_that_it_calls():
    task, cells = find("a3.7"), submission.read(master.PLACES[1] / "a3.py", "a3").code
    assert grade.uses(task, cells) == {"a3.1": ["output_size"], "a3.2": ["im2col"], "a3.3": ["col2im"]}
    own = [("cell 1", "def avg_pool_forward(x, kernel,\n        stride, padding):\n    # im2col is too slow\n"
                      "    return columns.im2col(x)\n\n\ndef avg_pool_backward(dy, cache):\n    return dy\n\n\n"
                      "def conv2d_forward(x, w, b, stride, padding):\n    return im2col(x)")]
    assert grade.uses(task, own) == {}
    assert grade.uses(find("a3.5"), own) == {"a3.4": ["conv2d_forward"]}


@pytest.mark.parametrize("kind", build.KINDS)
def test_products_are_the_same_bytes_every_time(kind):
    assert build.files(kind, [QUICK]) == build.files(kind, [QUICK])


@pytest.mark.slow
def test_nbformat_accepts_the_products():
    nbformat = pytest.importorskip("nbformat")
    for kind in "student", "solution", "nbgrader":
        for name, text in build.files(kind, NAMES).items():
            if name.endswith(".ipynb"):
                nbformat.validate(nbformat.reads(text, as_version=4))


def test_jupytext_reads_the_percent_file_into_the_same_cells():
    jupytext = pytest.importorskip("jupytext", reason="needs jupytext")
    for name in NAMES:
        cells = master.student(master.master(name))
        read = jupytext.reads(master.percent(cells), fmt="py:percent")
        assert [(c.cell_type, c.source) for c in read.cells] == [(c.type, c.source) for c in cells]


def test_the_nbgrader_source_has_a_name_for_every_graded_cell():
    notebook = json.loads(build.files("nbgrader", [QUICK])[f"source/{QUICK}/{QUICK}.ipynb"])
    found = [cell["metadata"]["nbgrader"] for cell in notebook["cells"] if "nbgrader" in cell["metadata"]]
    names = [meta["grade_id"] for meta in found]
    assert len(names) == len(set(names)) == 2 * len(tasks(QUICK)) + 1
    assert sum(meta.get("points", 0) for meta in found) == 100 and {m["schema_version"] for m in found} == {3}


def test_the_gradescope_zip_has_its_scripts_at_the_root(tmp_path):
    wheel = tmp_path / "minires-9-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    with zipfile.ZipFile(io.BytesIO(build.gradescope_zip(QUICK, 5, wheel))) as archive:
        assert set(archive.namelist()) == {"setup.sh", "run_autograder", wheel.name}
        assert all(archive.getinfo(name).external_attr >> 16 & 0o111 for name in ("setup.sh", "run_autograder"))
        assert "--seed 5" in archive.read("run_autograder").decode() and wheel.name in archive.read("setup.sh").decode()


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.parametrize("name", NAMES)
def test_a_solution_runs_from_top_to_bottom(name, tmp_path):
    """Also the figure: `ready` is true after every check. A blank file runs, too, and says what is not written."""
    for text, words in (solved(name), "right"), (blank(name), "not written yet"):
        text = "\n".join(line for line in text.split("\n") if not line.startswith("%"))
        (tmp_path / "file.py").write_text(text, encoding="utf-8")
        done = subprocess.run([sys.executable, "file.py"], cwd=tmp_path, capture_output=True, text=True, timeout=900,
                              env={**os.environ, "PYTHONPATH": str(ROOT), "MINIRES_FAST": "1", "MPLBACKEND": "agg"})
        assert done.returncode == 0, done.stderr
        lines = [line for line in done.stdout.splitlines() if line.split(" ")[0] in tasks(name)]
        assert len(lines) == len(tasks(name)) and all(line.endswith(f": {words}") for line in lines), done.stdout


# ------------------------------------------------------------------------------------------- new and build


def test_new_writes_every_assignment_and_never_overwrites(tmp_path, capsys):
    folder = tmp_path / "course"
    assert course("new", folder) == 0
    made = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(made) == {"README.md", *(f"{name}.ipynb" for name in NAMES)}
    (folder / f"{QUICK}.ipynb").write_text("my work")
    (folder / "README.md").unlink()
    capsys.readouterr()
    assert course("new", folder) == 0
    assert (folder / f"{QUICK}.ipynb").read_text() == "my work" and (folder / "README.md").exists()
    assert "kept" in (said := capsys.readouterr().out) and f"{QUICK}.ipynb" in said and len(said.splitlines()) == 2
    assert course("new", folder, QUICK, "--py") == 0
    assert (folder / f"{QUICK}.py").exists() and (folder / f"test_{QUICK}.py").exists()


def test_build_replaces_only_when_told(tmp_path, capsys):
    assert course("build", tmp_path, QUICK, "--as", "solution") == 0
    assert course("build", tmp_path, QUICK, "--as", "solution") == 0  # the same bytes
    (tmp_path / f"{QUICK}.py").write_text("other")
    assert course("build", tmp_path, QUICK, "--as", "solution") == 2
    assert (tmp_path / f"{QUICK}.py").read_text() == "other" and "--replace" in capsys.readouterr().err
    assert course("build", tmp_path, QUICK, "--as", "solution", "--replace") == 0
    assert (tmp_path / f"{QUICK}.py").read_text(encoding="utf-8") == solved()


@pytest.mark.parametrize("arguments", [["{}", "a4", "--py"], ["{}", "--py", "a4"], ["--py", "{}", "a4"]])
def test_options_stand_anywhere(arguments, tmp_path):
    assert course("new", *(a.format(tmp_path) for a in arguments)) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "a4.py", "test_a4.py"}


@pytest.mark.parametrize("arguments, words", [
    (["new", "{}", "a9"], "expected an assignment, one of"), (["build", "{}", "b1", "--as", "student"], "got 'b1'"),
    (["grade", "{}", "--assignment", "a9"], "expected an assignment, one of"),
    (["check", "a9"], "expected an assignment"), (["check", "a4.9"], "no a4.ipynb and no a4.py"),
    (["check", "{}/none.py"], "there is no such file"),
    (["grade", "{}/none", "--assignment", "a4"], "expected a folder"),
    (["grade", "{}", "--assignment", "a4"], "holds no notebook"), (["clean", "{}/none"], "expected the folder"),
    (["build", "{}", "--as", "gradescope", "--wheel", "{}/none.whl"], "there is no such file"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_wrong_use_has_one_sentence(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert course(*(a.format(tmp_path) for a in arguments)) == 2
    said = capsys.readouterr()
    assert said.out == "" and words in said.err and len(said.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user whom permissions stop")
def test_an_unwritable_folder(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert course("new", tmp_path / "course") == 2 and "Permission denied" in capsys.readouterr().err


def test_a_file_instead_of_a_folder(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert course("new", tmp_path / "file") == 2 and course("build", tmp_path / "file", "--as", "solution") == 2
    assert capsys.readouterr().err.count("Not a directory") == 2


# --------------------------------------------------------------------------------------------------- check


@pytest.mark.system
def test_check_a_task_of_the_saved_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a4.py").write_text(solved().replace("inv * (g - mean_term - var_term)", "inv * g"), encoding="utf-8")
    assert course("check", "a4.4") == 0
    assert capsys.readouterr().out.splitlines()[1] == f"a4.4  {'running':30}   10 / 10   right"
    assert course("check", "a4.3") == 1
    line = capsys.readouterr().out.splitlines()[1]
    assert line.startswith(f"a4.3  {'batch_norm_backward':30}    0 / 20   not yet: ")
    assert line.endswith("This is what you get when the batch's statistics are treated as constants.")
    (tmp_path / "a4.ipynb").write_text("{}")
    assert course("check", "a4") == 2 and "name the file" in capsys.readouterr().err


@pytest.mark.system
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_blank_file_has_no_points_and_the_solution_all(name, tmp_path):
    for text, points in (blank(name), 0), (solved(name), 85):
        path = tmp_path / f"{name}.py"
        path.write_text(text, encoding="utf-8")
        found = list(grade.mark_all(list(tasks(name).values()), submission.read(path, name).code, 11))
        assert sum(half.points for mark in found for half in marks.halves(mark)) == points, \
            [grade.line(mark) for mark in found]


# --------------------------------------------------------------------------------------------------- grade


@pytest.fixture
def few_tasks(monkeypatch):
    """Mark only one task of A4, so that a class takes little time."""
    one = {"a4.4": tasks("a4")["a4.4"]}
    for module in grade, marks, nbgrader:
        monkeypatch.setattr(module, "tasks", lambda name: one)


BROKEN = {
    "not_json.ipynb": ("{", "not JSON"), "no_cells.ipynb": ("{}", "no list of cells"), "empty.py": ("", "is empty"),
    "empty.ipynb": ('{"cells": []}', "no code cells"), "latin.py": ("\xff\xfe", "expected UTF-8"),
    "deep.ipynb": ("[" * 100_000, "not JSON"),
}


@pytest.mark.system
def test_a_class_with_every_kind_of_broken_file(tmp_path, few_tasks, capsys):
    place, out = tmp_path / "submitted", tmp_path / "marks"
    place.mkdir()
    for name, (text, _) in BROKEN.items():
        (place / name).write_bytes(text.encode("latin-1"))
    (place / "=ann.py").write_text(solved(), encoding="utf-8")
    (place / "no_marks_of_cells.py").write_text("x = 1\n")
    for name in "twice.py", "twice.ipynb":
        (place / name).write_text("x = 1")
    (place / "folder").mkdir()
    (place / "bob" / "a4").mkdir(parents=True)
    (place / "bob" / "a4" / "a4.py").write_text(blank(), encoding="utf-8")
    (place / "bob" / "a3.py").write_text("x = 1")
    (place / "notes.txt").write_text("not a submission")
    assert course("grade", place, "--assignment", "a4", "--out", out, "--seed", 3, "--jobs", 2) == 0
    head, *lines = table(out / "marks.csv")
    rows = {line[0]: dict(zip(head, line, strict=True)) for line in lines}
    assert rows["'=ann"]["total"] == "10.0" and rows["bob"]["total"] == "0.0"  # no spreadsheet takes =ann for a formula
    assert set(rows) == {"(maximum)", "'=ann", "bob", "folder", "twice", "no_marks_of_cells",
                         *(name.partition(".")[0] for name in BROKEN if not name.startswith("empty")), "empty"}
    for name, (_, words) in BROKEN.items():
        if not name.startswith("empty"):
            assert words in rows[name.partition(".")[0]]["note"]
    assert "expected one submission" in rows["twice"]["note"] and "got none" in rows["folder"]["note"]
    assert "expected one submission" in rows["empty"]["note"]  # empty.py and empty.ipynb
    assert json.loads((out / "bob.json").read_text())["tests"][0]["output"] == "not written yet"

    before = {path: path.read_bytes() for path in out.iterdir()}
    monkeypatched = judge.mark
    try:
        judge.mark = None  # nothing is marked again
        capsys.readouterr()
        assert course("grade", place, "--assignment", "a4", "--out", out, "--jobs", 2) == 0
    finally:
        judge.mark = monkeypatched
    assert "3 of 10 submissions are marked already" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in out.iterdir() if "execution_time" not in path.read_text()} == \
        {path: content for path, content in before.items() if b"execution_time" not in content}
    assert course("grade", place, "--assignment", "a4", "--out", out, "--seed", 4) == 2
    assert "choose another --out" in capsys.readouterr().err


@pytest.mark.parametrize("name", list(BROKEN))
def test_a_broken_file_has_one_sentence(name, tmp_path):
    text, words = BROKEN[name]
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(CourseError, match=words):
        submission.read(tmp_path / name, "a4")


@pytest.mark.system
@pytest.mark.skipif(sys.platform != "linux", reason="needs named pipes, and names that are not UTF-8")
def test_a_class_with_names_links_and_pipes_that_attack(tmp_path, few_tasks, capsys):
    place, out = tmp_path / "submitted", tmp_path / "marks"
    (place / "eve").mkdir(parents=True)
    os.mkfifo(place / "eve" / "a4.ipynb")
    os.mkfifo(place / "pipe.py")
    (place / "ann.ipynb").write_text(master.notebook("a4", master.solution(master.master("a4"))), encoding="utf-8")
    (place / "link.ipynb").symlink_to("ann.ipynb")
    (place / "linked").mkdir()
    (place / "linked" / "a4.ipynb").symlink_to("../ann.ipynb")
    (place / "gone.py").symlink_to("nowhere")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a4.ipynb").write_bytes((place / "ann.ipynb").read_bytes())
    (place / "folder").symlink_to(tmp_path / "other")
    for name in b"byte\xff", b"two\nlines", b"x" * 250, b"'=1":
        with open(os.fsencode(place) + b"/" + name + b".py", "w") as file:
            file.write("# %%\nx = 1\n")
    bomb = '{"cells": [' + "{}," * 1_000_001 + "{}]}"
    (place / "bomb.ipynb").write_text(bomb)
    (place / "code.py").write_text(f"x = {'1 + ' * 300_000} 1\n")
    free = [{"cell_type": "markdown", "metadata": {"minires": {"task": "a4.7", "kind": "free"}},
             "source": "\ud800" + "long " * 40_000}, {"cell_type": "code", "metadata": {}, "source": "x = '\ud800'"}]
    (place / "free.ipynb").write_text(json.dumps({"cells": free}))
    notes = {"eve": "expected a file, got something else", "pipe": "expected a file, got something else",
             "link": "is a symbolic link", "linked": "is a symbolic link", "gone": "is a symbolic link",
             "folder": "is a symbolic link",
             "bomb": "at most 1000000 lists", "code": "bytes of code"}
    for _ in range(2):  # the second run reads what the first has written
        assert course("grade", place, "--assignment", "a4", "--out", out, "--seed", 3, "--jobs", 2) == 0
        head, *lines = table(out / "marks.csv")
        rows = {line[0]: dict(zip(head, line, strict=True)) for line in lines}
        assert rows["ann"]["by machine"] == "10.0" and rows["ann"]["note"] == ""
        assert all(float(rows[name]["total"]) == 0 for name in notes)
        assert all(words in rows[name]["note"] for name, words in notes.items())
        (long,) = (name for name in rows if name.startswith("xxx"))
        assert {r"byte\xff", r"two\nlines", "''=1", "free"} < set(rows) and len(long) == 150
        (answer,) = (line[-1] for line in table(out / "free.csv") if line[0] == "free")
        assert answer.endswith(" more characters)") and len(answer) < 32_768
    (out / "ann.md").unlink()  # as after a run that was killed between the two files
    assert course("grade", place, "--assignment", "a4", "--out", out) == 0 and (out / "ann.md").exists()
    assert marks._plain(marks.safe("'=1")) == "'=1" and marks._plain(marks.safe("=1")) == "=1"


def made_student(**changes):
    """Return a student with one right half and one wrong one."""
    half = judge.Half(4.0, 4.0, judge.Verdict(True, "right"))
    wrong = judge.Half(0.0, 6.0, judge.Verdict(False, "not yet: x", "This is what you get when *y*.", (1,)))
    mark = judge.Mark("a4.4", "running", half, wrong, ("a note",), "\x1b[2Jprinted\n")
    return marks.Student(**{"name": "ann", "marks": (mark,), "seconds": 1.0, "digest": "d", "free": {"a4.7": "=2"},
                            **changes})


def test_gradescope_json_has_the_fields_of_its_specification():
    result = marks.gradescope(made_student(), "a4", 3, {"a4.7": (12.5, "good")})
    assert {*result} == {"score", "execution_time", "output", "visibility", "stdout_visibility", "extra_data", "tests"}
    assert result["score"] == 16.5 == sum(test["score"] for test in result["tests"])
    assert [(t["number"], t.get("status"), t["visibility"], t["max_score"]) for t in result["tests"]] == [
        ("4.4", "passed", "visible", 4.0), ("4.4h", "failed", "after_published", 6.0),
        ("4.7", None, "after_published", 15.0)]
    assert {*result["tests"][0]} == {"name", "number", "score", "max_score", "status", "visibility", "output"}
    assert "\x1b" not in result["output"] and "a note" in result["output"] and "[2Jprinted" in result["output"]
    assert json.loads(json.dumps(result)) == result


def test_feedback_is_text_that_markdown_leaves_alone():
    text = marks.feedback(marks.gradescope(made_student(), "a4", 3), "<b>ann</b>", "a4")
    assert "\\<b\\>ann" in text and r"when \*y\*" in text and "**4 of 10 points**, without the free response" in text


def test_free_responses_come_back_with_their_points(tmp_path, capsys):
    results = {"=ann": marks.gradescope(made_student(name="=ann"), "a4", 3)}
    path = tmp_path / "free.csv"
    path.write_text(marks.free_table(results, "a4", {}), encoding="utf-8")
    rows = table(path)
    assert rows[1] == ["'=ann", "a4.7", "15", "", "", "'=2"]
    rows[1][3:5] = "12,5", "-- fine"
    with open(path, "w", encoding="utf-8", newline="") as file:  # as a spreadsheet saves it
        csv.writer(file).writerows(rows)
    assert marks.free_points(path, "a4") == {"=ann": {"a4.7": (12.5, "-- fine")}}
    assert list(csv.reader(io.StringIO(marks.free_table(results, "a4", marks.read_free(path)))))[1][3] == "12,5"  # kept
    for points in "16", "-1", "many", "nan":
        rows[1][3] = points
        path.write_text(marks.table(rows), encoding="utf-8")
        with pytest.raises(CourseError, match="expected points from 0 to 15"):
            marks.free_points(path, "a4")
    path.write_text("a,b\n1,2\n")
    with pytest.raises(CourseError, match="expected the columns student"):
        marks.read_free(path)


@pytest.mark.system
def test_a_class_with_free_responses(tmp_path, few_tasks, capsys):
    place, out = tmp_path / "submitted", tmp_path / "marks"
    place.mkdir()
    text = solved().replace("# *Your answer here.*", "# I predict zero.")
    (place / "ann.py").write_text(text, encoding="utf-8")
    run = ("grade", place, "--assignment", "a4", "--out", out, "--seed", 3)
    assert course(*run) == 0
    rows = table(out / "free.csv")
    assert "I predict zero." in rows[1][5]
    rows[1][3] = "9"
    (out / "free.csv").write_text(marks.table(rows), encoding="utf-8")
    assert course(*run, "--free", out / "free.csv") == 0
    assert json.loads((out / "ann.json").read_text())["score"] == 19.0
    assert "**19 of 25 points**." in (out / "ann.md").read_text()
    assert table(out / "free.csv")[1][3] == "9"


def test_the_judge_failing_on_one_submission_costs_a_note(tmp_path, few_tasks, monkeypatch):
    monkeypatch.setattr(judge, "mark", lambda *a, **k: 1 / 0)
    (tmp_path / "ann.py").write_text(solved(), encoding="utf-8")
    found = grade.student(submission.Submission("ann", tmp_path / "ann.py"), "a4", 3)
    assert "the judge failed on this submission (ZeroDivisionError" in found.note and found.marks == ()


@pytest.mark.system
def test_one_submission_for_gradescope(tmp_path, few_tasks):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "my file.py").write_text(solved(), encoding="utf-8")
    assert course("grade", tmp_path / "in", "--assignment", "a4", "--seed", 5, "--gradescope",
                  tmp_path / "results" / "results.json") == 0
    assert json.loads((tmp_path / "results" / "results.json").read_text())["score"] == 10.0


# ------------------------------------------------------------------------------------------------ nbgrader


def test_clean_takes_the_names_of_copied_cells(tmp_path, capsys):
    notebook = json.loads(build.files("nbgrader", [QUICK])[f"source/{QUICK}/{QUICK}.ipynb"])
    text = json.dumps(notebook)
    (tmp_path / "same.ipynb").write_text(text)
    check = next(cell for cell in notebook["cells"] if cell["metadata"].get("nbgrader", {}).get("grade"))
    notebook["cells"].append(check)
    (tmp_path / "copied.ipynb").write_text(json.dumps(notebook))
    (tmp_path / "broken.ipynb").write_text("{")
    (tmp_path / "eve").mkdir()
    (tmp_path / "eve" / "link.ipynb").symlink_to(tmp_path / "copied.ipynb")
    os.mkfifo(tmp_path / "eve" / "pipe.ipynb")  # would never end
    assert course("clean", tmp_path) == 0
    assert (tmp_path / "eve" / "link.ipynb").is_symlink()
    assert capsys.readouterr().out == f"changed {tmp_path / 'copied.ipynb'}\n"
    cells = json.loads((tmp_path / "copied.ipynb").read_text())["cells"]
    assert "nbgrader" not in cells[-1]["metadata"] and "nbgrader" in check["metadata"]
    assert json.loads((tmp_path / "copied.ipynb.orig").read_text()) == notebook
    assert (tmp_path / "same.ipynb").read_text() == text and not (tmp_path / "same.ipynb.orig").exists()


def test_marks_for_a_gradebook_that_does_not_exist(tmp_path):
    with pytest.raises(CourseError, match=r"nbgrader==0\.9\.6|there is no such gradebook"):
        nbgrader.write_marks(f"sqlite:///{tmp_path / 'none.db'}", "a4", {})


@pytest.mark.slow
@pytest.mark.system
def test_nbgrader_from_release_to_feedback(tmp_path):
    pytest.importorskip("nbgrader", reason="needs nbgrader 0.9.6")
    done = subprocess.run([sys.executable, ROOT / "tests" / "course" / "nbgrader_run.py", tmp_path / "course"],
                          capture_output=True, text=True, timeout=3600, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stdout + done.stderr


# --------------------------------------------------------------------------------------- an installed wheel


@pytest.mark.system
def test_an_installed_wheel_has_the_masters(site, tmp_path):
    code = ("import os, sys, minires.course.master as m; from minires import cli; print(m.master_path('a4'));"
            "run = lambda *a: cli.main(['course', *a]) and sys.exit(1);"
            "run('build', 'course', 'a4', '--as', 'solution'); os.remove('course/a4.ipynb'); run('check', 'a4.4')")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=600,
                          env={**os.environ, "PYTHONPATH": str(site)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[0] == str(site / "minires" / "course" / "masters" / "a4.py")
    assert done.stdout.rstrip().endswith("10 / 10   right")


def test_a_percent_file_that_attacks_the_reader_is_read_or_refused(tmp_path):
    """The head of a cell is searched in linear time, and cells are counted before they are made."""
    (tmp_path / "long.py").write_text(f"# %% {'a' * 10**6}\nx = 1\n")
    assert [source for _, source in submission.read(tmp_path / "long.py", QUICK).code] == ["\nx = 1"]
    (tmp_path / "many.py").write_text("# %%\n" * (submission.MOST_CELLS + 1))
    with pytest.raises(CourseError, match=r"many\.py: expected at most 10000 cells"):
        submission.read(tmp_path / "many.py", QUICK)


def test_the_seed_of_gradescope_is_drawn_and_told(tmp_path, capsys):
    for name, more in ("drawn", ()), ("given", ("--seed", 5)):
        assert course("build", tmp_path / name, QUICK, "--as", "gradescope", *more) == 0
    told = re.findall(r"hidden inputs with --seed (\d+)", capsys.readouterr().out)
    for name, seed in zip(("drawn", "given"), told, strict=True):
        with zipfile.ZipFile(tmp_path / name / f"{QUICK}.zip") as archive:
            assert f"--seed {seed} " in archive.read("run_autograder").decode()
    assert told[1] == "5"


def test_a_file_with_a_suffix_in_capitals_is_a_submission(tmp_path):
    (tmp_path / "bob.IPYNB").write_text(master.notebook(QUICK, master.solution(master.master(QUICK))))
    (tmp_path / "ann").mkdir()
    (tmp_path / "ann" / "A4.PY").write_text(solved())
    found = submission.collect(tmp_path, QUICK)
    assert [one.student for one in found] == ["ann", "bob"]
    assert [cell[1] for cell in submission.read(found[1].path, QUICK).code] and \
        submission.read(found[0].path, QUICK).code
