"""The code in README.md and its companions runs, their commands and links exist, and their versions agree."""

import argparse
import contextlib
import io
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from short import every

import minires
from minires import cli

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DOCUMENTS = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CITATION.cff", "data/README.md",
             "benchmarks/README.md"]
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS}
every_document = pytest.mark.parametrize("name", DOCUMENTS)


# ------------------------------------------------------------------------------------------------ code


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """Run the README's Python blocks in order in an empty folder; return what they print, and the folder."""
    blocks, out, names = re.findall(r"^```python\n(.*?)^```$", TEXTS["README.md"], re.DOTALL | re.MULTILINE), [], {}
    folder = tmp_path_factory.mktemp("readme")
    with contextlib.chdir(folder):
        for block in blocks:
            with contextlib.redirect_stdout(io.StringIO()) as said:
                exec(compile(block, f"README.md: {block[:40]!r}", "exec"), names)
            out.append(said.getvalue())
    assert len(blocks) >= 7
    return "\n".join(out), folder


@pytest.mark.slow
def test_every_block_of_the_readme_runs_and_says_what_it_should(printed):
    out, folder = printed
    assert "gradcheck passed: 172 of 324 entries" in out
    assert "MACs" in out and "1,7" in out
    assert re.search(r"epoch 1: mean loss .*, test error ", out)
    assert (folder / "resnet56.safetensors").stat().st_size < 1.8e6  # float32 has twice as much


# -------------------------------------------------------------------------------------------- commands

PROGRAMS = {"minires", "python", "python3", "pip", "pytest", "ruff", "mypy", "jupyter"}


def commands(name):
    """Yield (words, whole) for every command that a document shows.

    whole: True for an indented line. Code within the text is a mention, which may leave out arguments.
    """
    text = re.sub(r"^```.*?^```$", "", TEXTS[name], flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\\\n +", "", text)
    lines = [(line.strip(), True) for line in text.splitlines() if re.match(r" {4}\S", line)]
    lines += [(re.sub(r"\s+", " ", code), False) for code in re.findall(r"`([^`]+)`", text)]
    for line, whole in lines:
        with contextlib.suppress(ValueError):  # unbalanced quotes: not a command
            words = shlex.split(line, comments=True)
            while words:
                end = words.index("&&") if "&&" in words else len(words)
                if words[0] in PROGRAMS:
                    yield words[:end], whole
                words = words[end + 1:]


COMMANDS = [pytest.param(*found, id=f"{name}: {' '.join(found[0])}") for name in DOCUMENTS for found in commands(name)]


def help_of(*command):
    with pytest.raises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as said:
        cli.main([*command, "--help"])
    return said.getvalue()


def names_of_commands():
    return set(re.findall(r"^    ([a-z]+) ", help_of(), re.MULTILINE))


@pytest.fixture
def parsed_only(monkeypatch):
    """Make minires parse its arguments and run nothing."""
    parse = argparse.ArgumentParser.parse_args

    def parse_args(self, *arguments):
        found = parse(self, *arguments)
        found.run = lambda args: 0
        return found
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)


@pytest.mark.parametrize("words, whole", COMMANDS)
def test_a_command_that_is_shown_exists(words, whole, parsed_only):
    """minires knows the arguments; for other programs the script, the module or the extra exists."""
    program, *arguments = words
    options = [word for word in arguments if word.startswith("--")]
    if program == "minires" and whole:
        assert cli.main(arguments) == 0
    elif program == "minires":
        command = [word for word in arguments[:1] if word in names_of_commands()]
        command += arguments[1:2] if command == ["course"] else []
        assert command or arguments[:1] in ([], ["COMMAND"], ["--version"])
        assert [option for option in options if not re.search(rf"{option}\b", help_of(*command))] == []
    elif program == "pip":
        extras = {extra for word in arguments for found in re.findall(r"\[(.*?)\]", word) for extra in found.split(",")}
        assert extras <= {*PROJECT["optional-dependencies"]}
    elif program.startswith("python") and "-m" in arguments:
        module = arguments[arguments.index("-m") + 1]
        file = f"{module.replace('.', '/')}.py"
        assert module in {"venv", "minires", "pip"} or any((ROOT / top / file).is_file() for top in ("tests", "."))
    else:
        scripts = [ROOT / word for word in arguments if word.endswith((".py", ".ipynb"))]
        assert [script for script in scripts if not script.is_file()] == []
        beside = {path for script in scripts for path in script.parent.glob("common.py")}  # of the benchmarks
        text = "".join(script.read_text(encoding="utf-8") for script in {*scripts, *beside})
        assert not scripts or program == "pytest" or [o for o in options if f'"{o}"' not in text] == []


def test_commands_are_found_in_the_documents():
    """The test above has commands to test."""
    found = [" ".join(words) for name in DOCUMENTS for words, _ in commands(name)]
    assert {"minires demo", "pytest", "minires inspect runs/resnet20 --out look", "python tests/kill_and_resume.py "
            "--kills 30", "python -m fuzz.fuzz_idx", "python benchmarks/tables.py"} <= set(found)
    assert {words.split()[1] for words in found if words.startswith("minires ")} >= names_of_commands()


@pytest.mark.parametrize("arguments, says", every(2, [
    ("info", "NumPy"), ("models", "resnet1202"),
    ("evaluate resnet56 data/weights/fashion-mnist/resnet56.safetensors --width 8 --dataset fashion_mnist_small "
     "--image-size 14 --normalize pixel-mean", "2000 test images"),
]))
def test_the_readmes_quick_commands_run(arguments, says, monkeypatch, capsys):
    assert f"minires {arguments.split()[0]}" in TEXTS["README.md"]
    monkeypatch.chdir(ROOT)
    assert cli.main(arguments.split()) == 0
    assert says in capsys.readouterr().out.replace(",", "")


# ----------------------------------------------------------------------------------- links, files, names


@every_document
def test_every_link_leads_to_a_file(name):
    for target in re.findall(r"\]\(([^)#\s]+)\)", TEXTS[name]):
        assert target.startswith("https://") or ((ROOT / name).parent / target).exists(), target


MADE = "runs/", "minires-demo/", "DIR/"  # beginnings of paths that a command makes


@every_document
def test_every_path_that_is_named_exists(name):
    """A path here is code in the text that has several parts."""
    places = ROOT, (ROOT / name).parent, ROOT / "data", ROOT / "minires"
    for code in re.findall(r"`([^`\n]+)`", TEXTS[name]):
        if re.fullmatch(r"\.?[\w-]+(/[\w*.-]+)+/?|[\w.-]+/", code) and not code.startswith(MADE):
            assert any([*place.glob(code)] for place in places), code


def test_the_tables_and_tests_that_contributing_names_are_in_the_files_it_links():
    """The link is in the same list item as the name."""
    checked = 0
    for item in re.split(r"\n(?=\d\. |- |\n|#)", TEXTS["CONTRIBUTING.md"]):
        files = [ROOT / target for target in re.findall(r"\]\(([\w./-]+\.py)\)", item)]
        for code in re.findall(r"`(test_\w+|[A-Z][A-Z_]+)`", item):
            sources = [path.read_text(encoding="utf-8") for path in files] or [""]
            assert any(re.search(rf"^(def )?{code}\b", source, re.MULTILINE) for source in sources), code
            checked += 1
    assert checked >= 10


def test_what_the_readme_calls_public_is_what_minires_shows():
    code = "import minires; print(*minires.__all__, *({*dir(minires)} - {*vars(minires)}))"  # part 2: loaded later
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    said = TEXTS["README.md"].partition("\nThese names are public: ")[2].partition("; the command line")[0]
    named = set(re.findall(r"`(\w+)`", said))
    assert named == set(done.stdout.split()), done.stderr
    assert all(hasattr(minires, name) for name in named)


def test_no_address_that_nobody_has_checked_is_named():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert "colab" not in path.read_text(encoding="utf-8")
    for name in DOCUMENTS:
        assert "github.com/minires" not in TEXTS[name] and "badge" not in TEXTS[name].replace("badges", ""), name
    assert "urls" not in PROJECT


# ---------------------------------------------------------------------------------------------- versions


def test_the_changelog_begins_with_this_version():
    assert re.search(r"^## \[(.+?)\]", TEXTS["CHANGELOG.md"], re.MULTILINE)[1] == minires.__version__


def test_the_citation_is_complete():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    cited = yaml.safe_load(TEXTS["CITATION.cff"])
    assert cited["cff-version"] == "1.2.0" and cited["message"] and cited["title"].startswith("minires")
    assert cited["version"] == minires.__version__ and cited["license"] == PROJECT["license"]
    assert cited["authors"] == [{"name": author["name"]} for author in PROJECT["authors"]]
    papers = {paper["url"]: paper for paper in cited["references"]}
    assert set(papers) == {"https://arxiv.org/abs/1512.03385", "https://arxiv.org/abs/1603.05027"}
    for paper in papers.values():
        assert {"type", "title", "authors", "year"} <= set(paper)
        assert [author["family-names"] for author in paper["authors"]] == ["He", "Zhang", "Ren", "Sun"]


READS = re.compile(r"pickles\.read\(|np\.load\(|read_array\(|safe_open\(|deserialize\(|tomllib\.loads\(|"
                   r"json\.loads\((?!json)")


def test_the_core_has_as_many_lines_as_the_readme_says():
    """The paragraph that says so links the core's files."""
    text = TEXTS["README.md"]
    about = text[text.index("This core is"):text.index("minires trains the plain")]
    paths = [ROOT / link for link in re.findall(r"\]\((minires/[^)]+)\)", about)]
    files = [path for link in paths for path in (sorted(link.glob("*.py")) if link.is_dir() else [link])]
    count = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
    said = int(re.search(r"([\d,]+) lines", about)[1].replace(",", ""))
    assert len(paths) == 5 and abs(count - said) < 100, f"the core has {count} lines"


def test_the_security_page_names_every_module_that_reads_files():
    readers = {path.relative_to(ROOT).as_posix() for path in (ROOT / "minires").rglob("*.py")
               if READS.search(path.read_text(encoding="utf-8"))}
    assert len(readers) >= 6 and [path for path in sorted(readers) if f"({path})" not in TEXTS["SECURITY.md"]] == []


# ---------------------------------------------------------------------------------------------- numbers


def test_the_times_in_the_readme_are_the_recorded_ones():
    demo = json.loads((ROOT / "data/results/demo/results.json").read_text(encoding="utf-8"))["seconds"]
    assert "under a minute on two cores" in TEXTS["README.md"] and 20 <= demo < 60
    table = TEXTS["benchmarks/README.md"]
    row = "training step, ResNet-20, width 16, batch 128, 2 threads: minires / PyTorch eager"
    ratio = re.search(rf"\| {row} +\| +([\d.]+)", table)
    assert f"takes {float(ratio[1]):.1f} times PyTorch's" in TEXTS["README.md"]
