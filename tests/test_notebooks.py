"""Every notebook runs from a fresh kernel, no warning, no error, keeps to one form; its exercises have answers."""
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the notebooks need nbformat and nbclient")
pytest.importorskip("nbclient", reason="the notebooks need nbformat and nbclient")

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
READ = {path.stem: nbformat.read(path, as_version=4) for path in PATHS}
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
_SPEC = importlib.util.spec_from_file_location("run_notebooks", FOLDER / "run.py")
run = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(run)


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request):
    return request.param


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(notebook, tag):
    return [cell for cell in code(notebook) if tag in cell.metadata.get("tags", ())]


def solutions(notebook):
    """The python code in the folds named Solution, in order."""
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return re.findall(r"<summary>Solution</summary>\s*```python\n(.*?)```\s*</details>", text, re.DOTALL)


def colab(path):
    """Where Google Colab opens it."""
    return f"{REPOSITORY.replace('github.com', 'colab.research.google.com/github')}/blob/main/notebooks/{path.name}"


def said(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


def solved(notebook):
    """With each exercise's solution, and its check once more, after the check."""
    answers, cells = iter(solutions(notebook)), []
    for cell in notebook.cells:
        cells.append(cell)
        if "check" in cell.metadata.get("tags", ()):
            cells.append(nbformat.v4.new_code_cell(next(answers), metadata={"tags": ["solution"]}))
            cells.append(nbformat.v4.new_code_cell(cell.source, metadata={"tags": ["solved"]}))
    notebook.cells = cells
    return notebook


# A slider draws when it is moved, by then with what later cells have made of the names that it reads.
SLIDERS = """import gc
from minires.plot import Slider
for slider in [o for o in gc.get_objects() if type(o) is Slider]:
    shown = slider.picture(slider.at)
    slider._drawn.clear()
    assert slider.picture(slider.at) == shown, f"slider {slider.name!r}: later cells have changed its picture"
"""


def execute(path, fast, monkeypatch):
    """Run it with its exercises as they stand and solved: all checks say "not yet" first and "right" afterwards."""
    monkeypatch.setenv("MINIRES_FAST", "1" if fast else "0")
    monkeypatch.setenv("PYTHONWARNINGS", "default")
    notebook = solved(nbformat.read(path, as_version=4))
    notebook.cells.append(nbformat.v4.new_code_cell(SLIDERS))
    run.run(notebook)
    for before, after in zip(tagged(notebook, "check"), tagged(notebook, "solved"), strict=True):
        assert said(before).startswith("not yet: "), before.source
        assert said(after) == "right\n", after.source + said(after)
    return notebook


QUICK = "06-skip-connection"  # the one that a run without the slow tests executes


@pytest.mark.notebooks
@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem != QUICK))
                                  for path in PATHS])
def test_runs_from_a_fresh_kernel_with_short_training(path, monkeypatch):
    shown = execute(path, fast=True, monkeypatch=monkeypatch)
    assert len(run.pictures(shown)) == len(run.pictures(READ[path.stem]))  # what is shown is not changed


@pytest.mark.notebooks
@pytest.mark.slow
def test_runs_whole(path, monkeypatch):
    execute(path, fast=False, monkeypatch=monkeypatch)


def test_is_committed_with_outputs_and_small(path):
    notebook = READ[path.stem]
    nbformat.validate(notebook)
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    for cell, output in run.outputs(notebook):
        assert output.output_type != "error" and output.get("name") != "stderr", cell.source
        assert run.WIDGET not in output.get("data", {})
    assert run.pictures(notebook) and path.stat().st_size < 1_000_000
    text = path.read_text(encoding="utf-8")
    assert str(Path.home()) not in text and "/tmp/" not in text and "object at 0x" not in text


def test_keeps_to_the_form(path):
    """What a reader finds in every one of them, in this order."""
    notebook = READ[path.stem]
    first, setup, *_ = notebook.cells
    assert re.match(r"# \d+\. ", first.source) and "**You will learn**" in first.source
    assert colab(path) in first.source
    assert setup.source == next(iter(READ.values())).cells[1].source  # the same first cell everywhere
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert text.count("**Predict") >= 2
    places = [text.find(part) for part in ("**You will learn**", "**Predict", "## Exercises", "## References")]
    assert places == sorted(places) and places[0] >= 0
    assert len(tagged(notebook, "exercise")) == len(tagged(notebook, "check")) == len(solutions(notebook)) == 3
    assert text.count("<summary>Hint</summary>") == 3
    assert all(len(cell.source.splitlines()) <= 40 for cell in code(notebook))


def test_links_lead_somewhere(path):
    for cell in READ[path.stem].cells:
        if cell.cell_type == "markdown":
            for link in re.findall(r"\]\(([^)#\s]+)", cell.source):
                assert link.startswith("https://") or (FOLDER / link).exists(), link


def test_the_first_cell_fetches_the_repository_where_there_is_none(tmp_path):
    """A notebook opened alone, as on Colab: here the repository is cloned from this one."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a git repository")
    setup = next(iter(READ.values())).cells[1].source
    assert REPOSITORY in setup
    environ = {**os.environ, "MINIRES_REPOSITORY": str(ROOT), "MINIRES_FAST": "1"}
    code = f"{setup}\nprint(FAST, minires.__file__, (ROOT / 'data/weights').is_dir())"
    for _ in "fetched", "there already":
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[-3:] == ["True", str(tmp_path / "minires-clone/minires/__init__.py"), "True"]


def test_the_readme_lists_every_notebook_with_its_badge():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in PATHS:
        assert f"(notebooks/{path.name})" in readme
        assert colab(path) in readme


def test_there_are_ten_in_order():
    assert [path.stem[:3] for path in PATHS] == [f"{i:02}-" for i in range(1, 11)]
