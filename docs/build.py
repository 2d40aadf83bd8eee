"""Build the documentation site:  python docs/build.py [--out DIR]

It needs `pip install -e ".[docs]"`, and no network. The pages come from docs/, the notebooks, the masters of the
course, the docstrings and the error messages of the source. They are first copied or written into one folder, so that
nothing is written into the repository, and then Sphinx makes HTML of them. A warning is an error.
"""
from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import errors
import reference

from minires.course import master

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
PROJECT = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "data/README.md", "benchmarks/README.md",
           "data/results/EXPERIMENTS.md"]
SHOWN = {".py": "python", ".c": "c", ".h": "c", ".toml": "toml", ".json": "json", ".cff": "yaml", "": "bash"}
MOST_BYTES = 200_000  # of a source file that is shown
COURSE, MESSAGES = "<!-- the course's chapters -->", "<!-- every error message -->"
CONVENTIONS = "<!-- the README's table -->"
TARGET = re.compile(r"\]\(([^)\s]+)\)")  # the second half of a link


def documents() -> dict[str, str]:
    """Return {path in the repository: path among the pages, without suffix} of everything that becomes a page."""
    found = {path.relative_to(ROOT).as_posix(): path.relative_to(DOCS).with_suffix("").as_posix()
             for path in sorted(DOCS.rglob("*.md"))}
    for path in sorted([*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "notebooks" / "course").glob("a*.py")]):
        found[path.relative_to(ROOT).as_posix()] = path.relative_to(ROOT).with_suffix("").as_posix()
    for name in PROJECT:
        folder, _, file = name.rpartition("/")
        found[name] = f"project/{folder if folder and file == 'README.md' else Path(file).stem.lower()}"
    return found


def _conventions() -> str:
    """Return the README's table of conventions."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Conventions")[2].partition("\n## ")[0]
    return "\n".join(line for line in text.splitlines() if line.startswith("|") and "conventions.md" not in line)


class Stage:
    """A Stage writes all pages into one folder, and rewrites their links to files of the repository."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.pages = documents()
        self.modules = {reference.title(module) for module in reference.modules()}
        self.sources: set[str] = set()  # files of the repository that are shown as pages
        self.missing: list[str] = []    # links that lead nowhere

    def write(self) -> None:
        """Write everything. Raises ValueError, which lists them, for links that lead nowhere."""
        for name in "conf.py", "extension.py", "reference.py", "theme.css":
            shutil.copy(DOCS / name, self.folder)
        for name, page in self.pages.items():
            if name.startswith("notebooks/"):
                self._notebook(name, page)
            else:
                self.add(page, self.rewritten((ROOT / name).read_text(encoding="utf-8"), name, page))
        for module, text in reference.pages().items():
            page = f"reference/{module}"
            self.add(page, self.rewritten(text, f"docs/{page}.md", page))
        self.sources |= {path.relative_to(ROOT).as_posix() for path in reference.PACKAGE.rglob("*.py")}
        for name in sorted(self.sources):
            self._source(name)
        if self.missing:
            raise ValueError("these links lead nowhere: " + "; ".join(sorted(set(self.missing))))

    def add(self, page: str, text: str) -> None:
        """Write one page."""
        path = self.folder / f"{page}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def rewritten(self, text: str, name: str, page: str) -> str:
        """Return a page's text with what is generated filled in, and with links that fit the site."""
        if name.startswith(("docs/guides/", "docs/course/")):  # what a block prints, in which long lines are wrapped
            text = text.replace("```text\n", "```{code-block} text\n:class: printed\n\n")
        for marker, write in (MESSAGES, errors.page), (COURSE, self._course), (CONVENTIONS, _conventions):
            if marker in text:
                text = text.replace(marker, write())
        parts = re.split(r"(^(?P<ticks>`{3,}).*?^(?P=ticks)$)", text, flags=re.DOTALL | re.MULTILINE)
        parts = [part for i, part in enumerate(parts) if i % 3 != 2]  # without the group `ticks`
        prose = re.compile(r"^`{3,}(?!\{py)", re.MULTILINE)
        return "".join(part if prose.match(part) else self._linked(part, name, page) for part in parts)

    def _course(self) -> str:
        """Return the list of the course's chapters, after the pages of docs/ that index.md does not list."""
        listed = (DOCS / "index.md").read_text(encoding="utf-8").split()
        found = [f"/{page}" for name, page in self.pages.items() if name.startswith("docs/") and page != "index"
                 and page not in listed]
        found += [f"/{page}" for name, page in self.pages.items() if name.startswith("notebooks/course/")]
        head = ["```{toctree}", ":caption: The course", ":maxdepth: 1", ":hidden:", ""]
        return "\n".join([*head, *found, "```"] if found else [])

    def _linked(self, text: str, name: str, page: str) -> str:
        """Return a text with other targets for its links to files of the repository."""
        out, at = [], 0
        for found in TARGET.finditer(text):
            begin, depth = found.start(), 1
            while depth and begin > at:  # find the bracket that opens the link's text
                begin -= 1
                depth += {"]": 1, "[": -1}.get(text[begin], 0)
            if depth:
                continue
            picture = begin > at and text[begin - 1] == "!"
            out += [text[at:begin - picture], self._link(text[begin + 1:found.start()], found[1], picture, name, page)]
            at = found.end()
        return "".join([*out, text[at:]])

    def _link(self, text: str, target: str, picture: bool, name: str, page: str) -> str:
        """Return one link as Markdown."""
        path, sharp, part = target.partition("#")
        path = re.sub(r"(notebooks/course/a\d+)\.ipynb$", r"\1.py", path)  # the page is made from the master
        there = path[1:] if path.startswith("/") else os.path.normpath(os.path.join(os.path.dirname(name), path))
        if re.match(r"[a-z]+:", target) or not path or there.startswith("docs/reference/"):
            return f"{'!' * picture}[{text}]({target})"
        file, module = ROOT / there, there.removeprefix("minires/").replace("/", ".")
        if there in self.pages:
            goal = f"{self.pages[there]}{'.ipynb' if there.startswith('notebooks/') else '.md'}{sharp}{part}"
        elif picture:
            goal = f"files/{there}"
            (self.folder / goal).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, self.folder / goal)
        elif file.is_dir() and module in self.modules:
            goal = f"reference/{module}.md"
        elif file.is_file() and file.suffix in SHOWN and file.stat().st_size < MOST_BYTES:
            self.sources.add(there)
            goal = f"source/{there}.md"
            if part.startswith("L-"):  # MyST does not know the anchors of the lines, so this is not one of its links
                return f'<a href="{os.path.relpath(f"source/{there}.html", os.path.dirname(page))}#{part}">{text}</a>'
        else:  # a folder, or a file that is not shown: the text alone
            self.missing += [f"{name}: {target}"] * (not file.exists())
            return text
        return f"{'!' * picture}[{text}]({os.path.relpath(goal, os.path.dirname(page))})"

    def _notebook(self, name: str, page: str) -> None:
        text = (ROOT / name).read_text(encoding="utf-8")
        if name.endswith(".py"):  # a master of the course: show what students get, which has no solutions
            text = master.notebook(name, master.student(master.read(text)))
        notebook = json.loads(text)
        for number, cell in enumerate(notebook["cells"]):
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                cell["source"] = self.rewritten(source, name, page)
            elif number == 1 and "MINIRES_REPOSITORY" in source:  # finds minires, where the notebook runs alone
                cell["metadata"].setdefault("tags", []).append("hide-input")
        path = self.folder / f"{page}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(notebook), encoding="utf-8")

    def _source(self, name: str) -> None:
        copy = self.folder / "files" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy)
        self.add(f"source/{name}", f"""---
orphan: true
nosearch: true
---
# {name}

```{{literalinclude}} /files/{name}
:language: {SHOWN[Path(name).suffix]}
:linenos:
```
""")


def build(out: Path) -> int:
    """Build the site in `out` and return Sphinx's exit status, which is not 0 after a warning.

    Raises ValueError if `out` holds something other than a site that this program wrote.
    """
    if out.exists() and not (out / ".buildinfo").is_file() and (out.is_file() or any(out.iterdir())):
        raise ValueError(f"{out} holds something other than a site; choose another --out, or delete it")
    with tempfile.TemporaryDirectory() as work:
        stage, made = Stage(Path(work, "pages")), Path(work, "html")
        stage.folder.mkdir()
        stage.write()
        command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-j", "auto", "-d",
                   str(Path(work, "doctrees")), str(stage.folder), str(made)]
        if status := subprocess.run(command, check=False).returncode:
            return status
        if out.exists():
            shutil.rmtree(out)
        shutil.copytree(made, out)  # alone, because MyST-NB writes a folder of its own next to the pages
    return 0


def main() -> int:
    """Build the site where the command line says."""
    parser = argparse.ArgumentParser(description="Build the documentation site of minires. It needs no network.")
    parser.add_argument("--out", type=Path, default=Path("minires-docs"), metavar="DIR",
                        help="folder for the site (default: minires-docs)")
    args = parser.parse_args()
    if reference.PACKAGE.parent != ROOT:
        parser.error(f"expected minires from {ROOT}, got {reference.PACKAGE}; install it there with: "
                     'pip install -e ".[docs]"')
    if missing := [name for name in ("sphinx", "myst_nb", "latex2mathml") if importlib.util.find_spec(name) is None]:
        parser.error(f'{", ".join(missing)} cannot be imported; install what is missing with: pip install -e ".[docs]"')
    try:
        status = build(args.out)
    except ValueError as e:
        parser.error(str(e))
    if status == 0:
        print(f"Open {args.out / 'index.html'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
