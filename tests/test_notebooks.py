"""Every notebook runs from a fresh kernel without warnings or errors, and has the common form and solved exercises."""
import functools
import importlib.util
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import minires

if not all(map(importlib.util.find_spec, ("nbformat", "nbclient"))):
    pytest.skip("the notebooks need nbformat and nbclient", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))


class Late:
    """A module that is imported when it is first used: these take seconds, in every process that collects tests."""

    def __init__(self, load):
        self._load = functools.cache(load)

    def __getattr__(self, name):
        if name.startswith("__"):  # pytest asks every object of a test file for __wrapped__ when it collects
            raise AttributeError(name)
        return getattr(self._load(), name)


def load_run():
    spec = importlib.util.spec_from_file_location("run_notebooks", FOLDER / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


nbformat, run = Late(lambda: importlib.import_module("nbformat")), Late(load_run)


@functools.cache
def read(path):
    return nbformat.read(path, as_version=4)


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request):
    return request.param


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(notebook, tag):
    return [cell for cell in code(notebook) if tag in cell.metadata.get("tags", ())]


def solutions(notebook):
    """Return the Python code in the folds named Solution, in order."""
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return re.findall(r"<summary>Solution</summary>\s*```python\n(.*?)```\s*</details>", text, re.DOTALL)


def said(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


def solved(notebook):
    """Add each exercise's solution after its check, and then the check again."""
    answers, cells = iter(solutions(notebook)), []
    for cell in notebook.cells:
        cells.append(cell)
        if "check" in cell.metadata.get("tags", ()):
            cells.append(nbformat.v4.new_code_cell(next(answers), metadata={"tags": ["solution"]}))
            cells.append(nbformat.v4.new_code_cell(cell.source, metadata={"tags": ["solved"]}))
    notebook.cells = cells
    return notebook


# A slider draws when it is moved. By then, later cells may have changed the names that it reads.
SLIDERS = """import gc
from minires.plot import Slider
for slider in [o for o in gc.get_objects() if type(o) is Slider]:
    shown = slider.picture(slider.at)
    slider._drawn.clear()
    assert slider.picture(slider.at) == shown, f"slider {slider.name!r}: later cells have changed its picture"
"""


def execute(path, fast, monkeypatch, extra=""):
    """Run a notebook with its exercises unsolved and then solved: each check prints "not yet" first and "right" then.

    extra: the source of a last cell
    """
    monkeypatch.setenv("MINIRES_FAST", "1" if fast else "0")
    monkeypatch.setenv("PYTHONWARNINGS", "default")
    notebook = solved(nbformat.read(path, as_version=4))
    notebook.cells += [nbformat.v4.new_code_cell(SLIDERS), nbformat.v4.new_code_cell(extra)]
    run.run(notebook, path.parent)
    for before, after in zip(tagged(notebook, "check"), tagged(notebook, "solved"), strict=True):
        assert said(before).startswith("not yet: "), before.source
        assert said(after) == "right\n", after.source + said(after)
    return notebook


QUICK = "06-skip-connection"  # the notebook that a run without the slow tests executes
SOME = [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem != QUICK)) for path in PATHS]


@pytest.mark.notebooks
@pytest.mark.parametrize("path", SOME)
def test_runs_alone_in_an_empty_folder_with_minires_installed(path, site, tmp_path, monkeypatch):
    """Training is short, and no file of the repository can be reached."""
    monkeypatch.setenv("PYTHONPATH", str(site))
    installed = f"assert minires.__file__ == {str(site / 'minires/__init__.py')!r} and ROOT is None, minires.__file__"
    shown = execute(Path(shutil.copy(path, tmp_path)), fast=True, monkeypatch=monkeypatch, extra=installed)
    assert len(run.pictures(shown)) == len(run.pictures(read(path)))  # as many figures as before


def need_more(path):
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    return any(re.search(r"\bROOT\b", "".join(cell["source"])) for cell in cells[1:])


NEED_MORE = list(filter(need_more, PATHS))


@pytest.mark.slow
@pytest.mark.notebooks
@pytest.mark.parametrize("path", NEED_MORE, ids=lambda path: path.stem)
def test_runs_in_the_repository_with_short_training(path, monkeypatch):
    """These notebooks use more of the repository than the package."""
    shown = execute(path, fast=True, monkeypatch=monkeypatch, extra="assert ROOT")
    assert len(run.pictures(shown)) == len(run.pictures(read(path)))


def test_one_notebook_needs_more_than_the_package():
    assert [path.stem for path in NEED_MORE] == ["10-gpu"]


@pytest.mark.notebooks
@pytest.mark.slow
def test_runs_whole(path, monkeypatch):
    execute(path, fast=False, monkeypatch=monkeypatch)


def test_is_committed_with_outputs_and_small(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    for cell, output in run.outputs(notebook):
        assert output.output_type != "error" and output.get("name") != "stderr", cell.source
        assert run.WIDGET not in output.get("data", {})
    assert run.pictures(notebook) and path.stat().st_size < 1_000_000
    text = path.read_text(encoding="utf-8")
    assert str(Path.home()) not in text and "/tmp/" not in text and "object at 0x" not in text


def test_keeps_to_the_form(path):
    """A reader finds the same parts in every notebook, in this order."""
    notebook = read(path)
    first, setup, *_ = notebook.cells
    assert re.match(r"# \d+\. ", first.source) and "**You will learn**" in first.source
    assert setup.source == read(PATHS[0]).cells[1].source  # the same first cell everywhere
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert text.count("**Predict") >= 2
    places = [text.find(part) for part in ("**You will learn**", "**Predict", "## Exercises", "## References")]
    assert places == sorted(places) and places[0] >= 0
    assert len(tagged(notebook, "exercise")) == len(tagged(notebook, "check")) == len(solutions(notebook)) == 3
    assert text.count("<summary>Hint</summary>") == 3
    assert all(len(cell.source.splitlines()) <= 45 for cell in code(notebook))


def test_every_prompt_has_a_place_to_write_and_a_folded_answer(path):
    """The answer opens with a click, on GitHub too. Jupyter shows the next cells' outputs folded until they run."""
    cells = read(path).cells
    asked = [i for i, cell in enumerate(cells) if cell.cell_type == "markdown" and "**Predict" in cell.source]
    places = [i for i, cell in enumerate(cells) if "prediction" in cell.metadata.get("tags", ())]
    assert [i + 1 for i in asked] == places
    for i in asked:
        question, place, answer = cells[i:i + 3]
        assert question.source.count("**Predict") == 1 and "**Predict" in question.source.split("\n\n")[-1]
        assert place.source == "*Your prediction (double-click here to write):*"
        assert re.fullmatch(r"<details><summary>Answer</summary>\n\n.+\n\n</details>", answer.source, re.DOTALL)
        shown = list(itertools.takewhile(lambda cell: cell.cell_type == "code", cells[i + 3:]))
        assert any(cell.outputs for cell in shown)
        for cell in shown:
            assert not cell.outputs or cell.metadata["jupyter"]["outputs_hidden"], cell.source


def following():
    """Return {number of a notebook: the assignments whose first lines say that they follow it}."""
    found = {int(path.stem[:2]): [] for path in PATHS}
    for master in sorted((FOLDER / "course").glob("a*.py")):
        first = master.read_text(encoding="utf-8")[:400].replace("[", "").replace("]", "")
        for number in filter(None, re.search(r"ollows notebooks? (\d)(?:, [^,]+, and (\d))?", first).groups()):
            found[int(number)].append(master.stem)
    return found


def test_says_first_how_long_it_takes_and_which_assignment_follows(path):
    number = int(path.stem[:2])
    line = " ".join(read(path).cells[0].source.split("\n\n")[1].split())
    assert re.match(r"\*About \d+ minutes with the exercises; the cells run in ", line)
    named = re.findall(r"`minires course new course (a[1-8 a]*)`", line)
    # A6 uses notebooks 4 and 5, and follows when both are read.
    expected = {4: ["a6"]}.get(number) or following()[number]
    assert " ".join(named).split() == expected
    assert expected or "No assignment follows" in line


def test_links_lead_somewhere(path):
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            for link in re.findall(r"\]\(([^)#\s]+)", cell.source):
                assert link.startswith("https://") or (FOLDER / link).exists(), link


# ------------------------------------------------------------------------------------------- the first cell


def first_cell(folder, installed=False, path=None, **environ):
    """Run the first cell in `folder` and return (status, printed, errors).

    installed: whether minires can be imported before
    path: the PATH on which git is searched
    Printed are the version, minires' file, ROOT and FAST.
    """
    hide = """import pathlib, sys
sys.path[:] = [p for p in sys.path if not (pathlib.Path(p) / "minires/tensor.py").exists()]
"""
    show = "\nprint(minires.__version__, minires.__file__, ROOT, FAST, sep='|')"
    environ = {**os.environ, "MINIRES_FAST": "1", "PYTHONWARNINGS": "error", **environ}
    environ |= {"PATH": str(path)} if path else {}
    setup = read(PATHS[0]).cells[1].source
    done = subprocess.run([sys.executable, "-c", hide * (not installed) + setup + show], cwd=folder, env=environ,
                          capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout.splitlines()[-1:], done.stderr


def shown(folder, root):
    return [f"{minires.__version__}|{folder / 'minires/__init__.py'}|{root}|True"]


needs_git = pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="not a git repository")


@pytest.fixture
def no_git(tmp_path):
    """Make a PATH without git."""
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def test_the_first_cell_takes_an_installed_minires(site, tmp_path, no_git):
    status, told, errors = first_cell(tmp_path, installed=True, path=no_git, PYTHONPATH=str(site))
    assert (status, told) == (0, shown(site, None)), errors
    assert [p.name for p in tmp_path.iterdir()] == ["bin"]


def test_the_first_cell_takes_the_repository_that_holds_the_notebook(no_git):
    status, told, errors = first_cell(FOLDER, path=no_git)
    assert (status, told) == (0, shown(ROOT, ROOT)), errors


@needs_git
def test_the_first_cell_clones_the_repository_that_it_is_told(tmp_path):
    """The repository is this one. The second time the clone is there already."""
    clone = tmp_path / "minires-repository"
    for address in str(ROOT), "":
        status, told, errors = first_cell(tmp_path, MINIRES_REPOSITORY=address)
        assert status == 0, errors
        assert told[0].split("|")[1] == str(clone / "minires/__init__.py")
    assert [p.name for p in tmp_path.iterdir()] == ["minires-repository"]


@needs_git
def test_the_first_cell_does_not_take_an_interrupted_clone_for_a_whole_one(tmp_path):
    (tmp_path / "bin").mkdir()
    git = tmp_path / "bin/git"
    git.write_text(f"""#!{sys.executable}
import os, pathlib, signal, sys
package = pathlib.Path(sys.argv[-1], "minires")
package.mkdir(parents=True)
for name in "__init__", "tensor":
    (package / f"{{name}}.py").write_text("raise ImportError('half a clone')")
os.kill(os.getppid(), signal.SIGKILL)
""", encoding="utf-8")
    git.chmod(0o755)
    folder = tmp_path / "notebook"
    folder.mkdir()
    assert first_cell(folder, path=tmp_path / "bin", MINIRES_REPOSITORY=str(ROOT))[0] == -signal.SIGKILL
    assert any(folder.rglob("tensor.py"))
    status, _, errors = first_cell(folder, MINIRES_REPOSITORY=str(ROOT))
    assert status == 0, errors
    assert [p.name for p in folder.iterdir()] == ["minires-repository"]


def test_the_first_cell_says_what_to_do_where_there_is_nothing(tmp_path, no_git):
    status, _, errors = first_cell(tmp_path, path=no_git, MINIRES_REPOSITORY="")
    assert status == 1 and errors.splitlines()[-1].startswith(
        "ModuleNotFoundError: minires is not installed, and this notebook is not in its repository. Either install "
        "minires with: pip install FOLDER_OR_WHEEL. Or ")
    assert "%env MINIRES_REPOSITORY=ADDRESS" in errors and [p.name for p in tmp_path.iterdir()] == ["bin"]


@needs_git
def test_the_first_cell_says_what_to_do_where_nothing_can_be_cloned(tmp_path):
    address = str(tmp_path / "nowhere")
    status, _, errors = first_cell(tmp_path, MINIRES_REPOSITORY=address)
    assert status == 1 and errors.splitlines()[-1] == (
        f"RuntimeError: git could not clone {address}. Check MINIRES_REPOSITORY, then run this cell again.")


@needs_git
def test_a_folder_called_minires_is_not_minires(tmp_path):
    (tmp_path / "minires").mkdir()
    assert first_cell(tmp_path, MINIRES_REPOSITORY="")[0] == 1
    status, told, errors = first_cell(tmp_path, MINIRES_REPOSITORY=str(ROOT))
    assert status == 0 and "minires-repository" in told[0], errors


# ------------------------------------------------------------------------------------------- all of them


def test_the_readme_lists_every_notebook():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in PATHS:
        assert f"(notebooks/{path.name})" in readme


def test_numbers_are_those_of_the_titles_and_no_two_are_equal():
    numbers = [int(path.stem[:2]) for path in PATHS]
    assert numbers == list(range(1, 15))
    assert numbers == [int(re.match(r"# (\d+)\. ", read(path).cells[0].source)[1]) for path in PATHS]


def widest(source):
    return max(map(len, source.split("\n")), default=0)


@pytest.mark.parametrize("path", [*PATHS, *sorted((FOLDER / "course").glob("*.ipynb"))], ids=lambda path: path.stem)
def test_a_printed_page_cuts_off_no_code(path):
    """A printed page has room for 88 columns of code, in cells and in folds."""
    for cell in read(path).cells:
        blocks = [cell.source] if cell.cell_type == "code" else re.findall(r"```\w*\n(.*?)```", cell.source, re.DOTALL)
        assert all(widest(block) <= 88 for block in blocks), cell.source


@pytest.mark.parametrize("master", sorted((FOLDER / "course").glob("*.py")), ids=lambda path: path.stem)
def test_a_printed_page_cuts_off_no_code_of_a_master(master):
    """The student's files do not have the solutions, so the masters are checked too; their prose wraps."""
    long = [line for line in master.read_text(encoding="utf-8").splitlines() if len(line) > 88 and line[0] != "#"]
    assert not long


@functools.cache
def package_lines():
    return {line for path in (ROOT / "minires").rglob("*.py") for line in path.read_text(encoding="utf-8").splitlines()}


def test_a_printed_table_fits_on_a_page(path):
    """A printed line with columns has at most 80. Other lines wrap, and so do the cells of tables in the prose."""
    for cell, output in run.outputs(read(path)):
        for line in output.get("text", "").split("\n"):
            columns = re.search(r"\S {2,}\S", line) and line not in package_lines()
            assert not columns or len(line) <= 80, (cell.source, line)


def test_plotting_code_is_in_plot(path):
    """A notebook computes numbers, and calls a function of plot that draws them."""
    for cell in code(read(path)):
        assert not re.search(r"plot\.style|\.subplots\(|new_figure\(|\baxes\.", cell.source), cell.source


@pytest.mark.parametrize("number", [1, 5, 9, 11])
def test_there_is_something_to_move(number):
    (path,) = FOLDER.glob(f"{number:02}-*.ipynb")
    assert any("plot.Slider(" in cell.source for cell in code(read(path)))
