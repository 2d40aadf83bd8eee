"""Run notebooks from a fresh kernel and keep their outputs: python notebooks/run.py [FILE.ipynb ...] [--pictures DIR]

It needs `pip install -e ".[notebooks]"`. Without files, it runs all notebooks. A notebook that ends in an error, or
that writes to stderr (for example a warning), is left unchanged. MINIRES_FAST=1 in the environment shortens training;
use it to try a notebook, not to keep its outputs.
"""
from __future__ import annotations

import argparse
import base64
import time
from pathlib import Path

import nbclient
import nbformat

from minires.files.atomic import write_atomically

HERE = Path(__file__).resolve().parent
WIDGET = "application/vnd.jupyter.widget-view+json"


def run(notebook: nbformat.NotebookNode, folder: Path = HERE, timeout: float = 600) -> None:
    """Execute a notebook in place, in `folder`, in a kernel of its own.

    Raises RuntimeError if a cell wrote to stderr.
    """
    nbclient.NotebookClient(notebook, timeout=timeout, record_timing=False, store_widget_state=False,
                            coalesce_streams=True,  # one output for all that a cell prints
                            resources={"metadata": {"path": folder}}).execute()
    for cell, output in outputs(notebook):
        if output.get("name") == "stderr":
            raise RuntimeError(f"a cell wrote to stderr: {output.text}\nthe cell:\n{cell.source}")
        output.get("data", {}).pop(WIDGET, None)  # a widget needs a kernel, so only its picture is kept


def outputs(notebook: nbformat.NotebookNode):
    """Return every (cell, output), in order."""
    return [(cell, output) for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def pictures(notebook: nbformat.NotebookNode) -> list[bytes]:
    """Return the PNG files in the outputs of a notebook, in order."""
    return [base64.b64decode(output.data["image/png"]) for _, output in outputs(notebook)
            if "image/png" in output.get("data", {})]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*", metavar="FILE.ipynb", default=sorted(HERE.glob("*.ipynb")))
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="also write the figures to this folder")
    args = parser.parse_args()
    for path in args.files:
        notebook, start = nbformat.read(path, as_version=4), time.monotonic()
        run(notebook, path.resolve().parent)
        notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                             "language_info": {"name": "python"}}
        text = nbformat.writes(notebook) + "\n"
        write_atomically(path, text)
        found = pictures(notebook)
        print(f"{path.name}: {time.monotonic() - start:.0f} s, {len(found)} figures, {len(text) / 1e3:.0f} kB")
        for i, content in enumerate(found, 1):
            if args.pictures:
                args.pictures.mkdir(parents=True, exist_ok=True)
                (args.pictures / f"{path.stem}-{i:02}.png").write_bytes(content)


if __name__ == "__main__":
    main()
