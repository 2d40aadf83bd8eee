"""Every code block of every guide runs, and prints what the guide shows.

A guide is one program: its blocks run from top to bottom, in an empty folder. What a block prints must stand in the
`text` block below it, where ... stands for any text. Comments before a block direct its test:

    <!-- fast: epochs=4 -> epochs=1 -->    what the short test replaces, in this block and in all others
    <!-- slow -->                          the short test does not run the block, but checks its syntax and arguments
    <!-- needs: FILE -->                   the block runs where this published file is, in the long test
"""
import contextlib
import io
import linecache
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from minires import cli

ROOT = Path(__file__).resolve().parents[1]
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
PUBLISHED = Path(os.environ.get("MINIRES_REFERENCE") or ROOT.parent / "shared" / "reference")
ELSEWHERE = re.compile(r"cifar10|tcp://|--device gpu|dask ")  # commands that need what a test does not have
BLOCK = re.compile(r"(?:^<!-- (?P<note>.+?) -->\n)?^```(?P<kind>\w+)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """One code block of a guide."""

    kind: str    # "python", "console", "text" or "toml"
    code: str
    note: str
    shown: str | None  # the text block below it


def blocks(text, fast):
    """Return the blocks of a guide, without the text blocks, which are part of the blocks above them."""
    for old, new in [change.split(" -> ") for note in re.findall(r"<!-- fast: (.+?) -->", text)
                     for change in note.split("; ")] if fast else []:
        assert old in text.replace(f"{old} -> ", ""), f"the guide has no {old!r}"
        text = text.replace(old, new)
    found = list(BLOCK.finditer(text))
    below = [m["code"] if m["kind"] == "text" else None for m in [*found[1:], *found[:0]]] + [None]
    return [Block(m["kind"], m["code"], m["note"] or "", shown) for m, shown in zip(found, below, strict=True)
            if m["kind"] != "text"]


def check_printed(printed, block):
    """Compare what a block prints with what the guide shows below it."""
    if block.shown is None:
        assert printed.strip() == "", f"the guide does not show what this prints: {printed}"
        return
    pattern = r"[\s\S]*?".join(map(re.escape, block.shown.strip().split("...")))
    told = f"{block.code}\nprints\n{printed}\nand the guide shows\n{block.shown}"
    assert re.fullmatch(pattern, printed.strip()), told


def python(block, names, number, guide):
    """Run a Python block, or write it to the file that its first line names."""
    if written(block):
        return
    name = f"<{guide}, block {number}>"
    linecache.cache[name] = len(block.code), None, block.code.splitlines(keepends=True), name  # for inspect.getsource
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(compile(block.code, name, "exec"), names)
    check_printed(said.getvalue(), block)


def written(block):
    """Write a block to a file if its first line says so. Return whether it does."""
    if file := re.match(r"# file: (\S+)\n", block.code):
        Path(file[1]).write_text(block.code.partition("\n")[2], encoding="utf-8")
    return bool(file)


def console(block, only_parse):
    """Run the commands of a console block; check the arguments of those that cannot run in a test."""
    for part in re.split(r"^\$ ", block.code, flags=re.MULTILINE)[1:]:
        line, _, shown = part.partition("\n")
        words = [word for word in shlex.split(line) if not re.fullmatch(r"[A-Z_]+=\S+", word)]
        if words[0] == "minires":
            run_minires(words[1:], only_parse or ELSEWHERE.search(line))
        elif words[0] == "pytest" and not only_parse:
            done = subprocess.run([sys.executable, "-m", "pytest", *words[1:]], text=True, capture_output=True,
                                  timeout=100)
            assert shown.strip("\n. ").partition("...")[0] in done.stdout and done.returncode == 0, done.stdout
        elif words[0] == "python":
            script = (ROOT / words[1]).read_text(encoding="utf-8")
            assert all(f'"{word}"' in script for word in words if word.startswith("--"))
        else:
            assert words[0] in {"pip", "dask", "pytest"}, line


def run_minires(arguments, only_parse):
    if only_parse:
        parser = cli._parser()  # private: parses only, and runs nothing
        parser.parse_args(arguments)
        return
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(io.StringIO()) as wrong:
        assert cli.main(arguments) == 0, said.getvalue() + wrong.getvalue()


def run(guide, folder, fast):
    """Run a guide in a folder. Return the published files that it needs and that are not here."""
    names, missing = {"__name__": "guide"}, []
    with contextlib.chdir(folder):
        for number, block in enumerate(blocks(guide.read_text(encoding="utf-8"), fast), 1):
            if block.note.startswith("needs: "):
                file = PUBLISHED / block.note.removeprefix("needs: ")
                if fast or not file.is_file():
                    missing.append(file.name)
                    continue
                shutil.copy(file, folder)
            if block.kind == "python" and fast and block.note == "slow":
                compile(block.code, guide.name, "exec")
            elif block.kind == "python":
                python(block, names, number, guide.name)
            elif block.kind == "console":
                console(block, fast and block.note == "slow")
            else:
                assert block.kind == "toml" and written(block), block.kind
    return missing


each_guide = pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)


@each_guide
def test_every_block_of_a_guide_runs(guide, tmp_path):
    """With the shorter numbers that the guide's comments give."""
    run(guide, tmp_path, fast=True)


@pytest.mark.slow
@each_guide
def test_every_block_of_a_guide_runs_as_it_is_printed(guide, tmp_path):
    if missing := run(guide, tmp_path, fast=False):
        pytest.skip(f"the rest of the guide ran; {', '.join(missing)} is not in {PUBLISHED}")


def test_the_guides_are_found_and_have_code():
    assert len(GUIDES) >= 9
    kinds = {block.kind for guide in GUIDES for block in blocks(guide.read_text(encoding="utf-8"), False)}
    assert kinds == {"python", "console", "toml"}
    for guide in GUIDES:
        text = guide.read_text(encoding="utf-8")
        fences = len(re.findall(r"^```", text, re.MULTILINE))
        assert fences == 2 * len(BLOCK.findall(text)), f"{guide.name}: a block is not recognised"


def test_a_wrong_output_is_found():
    block = Block("python", "print(1)", "", "1 ... 3")
    check_printed("1 2 3", block)
    with pytest.raises(AssertionError, match="and the guide shows"):
        check_printed("1 2", block)
    with pytest.raises(AssertionError, match="does not show"):
        check_printed("1", block._replace(shown=None))
