"""Run notebooks from a fresh kernel and keep their outputs: python notebooks/run.py [FILE.ipynb ...] [--pictures DIR]

Needs `pip install -e ".[notebooks]"`. Without files: all of them. A notebook that ends in an error, or writes to stderr
(a warning, for one), is left as it was. MINIRES_FAST=1 in the environment shortens training: to try, not to keep.
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
    """Execute it in place, in `folder`, in a kernel of its own. RuntimeError for what it wrote to stderr."""
    nbclient.NotebookClient(notebook, timeout=timeout, record_timing=False, store_widget_state=False,
                            coalesce_streams=True,  # what a cell prints stays together
                            resources={"metadata": {"path": folder}}).execute()
    for cell, output in outputs(notebook):
        if output.get("name") == "stderr":
            raise RuntimeError(f"a cell wrote to stderr: {output.text}\nthe cell:\n{cell.source}")
        output.get("data", {}).pop(WIDGET, None)  # widgets live in a kernel: their picture is what is kept


def outputs(notebook: nbformat.NotebookNode):
    """(cell, output), in order."""
    return [(cell, output) for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def pictures(notebook: nbformat.NotebookNode) -> list[bytes]:
    """The PNG files in its outputs, in order."""
    return [base64.b64decode(output.data["image/png"]) for _, output in outputs(notebook)
            if "image/png" in output.get("data", {})]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*", metavar="FILE.ipynb", default=sorted(HERE.glob("*.ipynb")))
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="write the figures there too, to look at")
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
