"""Every notebook runs from a fresh kernel, without warning or error, and is committed with its outputs."""
from pathlib import Path

import pytest

import minires

nbformat = pytest.importorskip("nbformat", reason="the notebooks need nbformat and nbclient")
nbclient = pytest.importorskip("nbclient", reason="the notebooks need nbformat and nbclient")

NOTEBOOKS = sorted((Path(minires.__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))


def outputs(notebook):
    return [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]


@pytest.mark.parametrize("path", [pytest.param(p, id=p.stem) for p in NOTEBOOKS])
def test_runs_from_a_fresh_kernel(path):
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": path.parent}}).execute()
    assert not [o for o in outputs(notebook) if o.output_type == "error" or o.get("name") == "stderr"]


@pytest.mark.parametrize("path", [pytest.param(p, id=p.stem) for p in NOTEBOOKS])
def test_is_committed_with_outputs_and_small(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(cell.outputs for cell in code)
    assert path.stat().st_size < 1_000_000


def test_there_are_notebooks():
    assert NOTEBOOKS
