"""The command line: an error is one clear line and writes nothing; help texts; exit statuses; bugs."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minires import cli, info, models, nn, save_weights
from minires.commands import inspect as inspection
from minires.names import UsageError

BAD = os.fsdecode(b"caf\xe9")  # a file's name that is not UTF-8


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return the current folder, which contains everything that is not valid input: junk files, folders, half a run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIRES_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("MINIRES_DEBUG", raising=False)
    for name in "folder", "no-json", "no-run", "folder-for-a-file/config.json":
        Path(name).mkdir(parents=True)
    Path("no-json/config.json").write_bytes(b"\xff\xfe\x00junk")
    Path("no-run/config.json").write_text("{}")
    Path("junk").write_bytes(bytes(range(256)) * 8)
    Path("junk.npz").write_bytes(b"PK\x03\x04junk")
    Path("empty").touch()
    Path("half.json").write_text("[1, 2")
    Path("list.json").write_text("[]")
    Path("latin.json").write_bytes(b'{"models": ["\xe9"]}')
    return tmp_path


def tree(folder):
    return sorted((path, path.read_bytes() if path.is_file() else b"") for path in folder.rglob("*"))


DATA = "--dataset", "stripes"
NETWORK = "resnet20", "junk", *DATA

WRONG = [
    ((), "the following arguments are required: COMMAND"),
    (("nope",), "invalid choice: 'nope'"),
    (("models", "x"), "unrecognized arguments: x"),
    (("info", "--json"), "unrecognized arguments: --json"),

    (("evaluate", ""), "argument MODEL|RUN: expected a name or a path, got an empty string"),
    (("evaluate", "resnet20", ""), "argument WEIGHTS: expected a name or a path, got an empty string"),
    (("evaluate", "folder"), "folder is not the folder of a run: there is no config.json in it"),
    (("evaluate", "folder", "junk", *DATA), "folder is a folder: leave out junk to evaluate the run in it, or name a"),
    (("evaluate", "junk"), "junk is a file: give the name of its network before it"),
    (("evaluate", BAD), r"caf\udce9 is neither the folder of a run nor the name of a network"),
    (("evaluate", "no-json"), "no-json/config.json cannot be read"),
    (("evaluate", "no-run"), "no-run/config.json: expected a run's settings; missing: model, "),
    (("evaluate", "folder-for-a-file"), "folder-for-a-file/config.json: Is a directory"),
    (("evaluate", "resnet20", "nothing", *DATA), "nothing: No such file or directory"),
    (("evaluate", "resnet20", BAD, *DATA), r"caf\udce9: No such file or directory"),
    (("evaluate", "resnet20", "folder", *DATA), "folder: Is a directory"),
    (("evaluate", "resnet20", "empty", *DATA), "load_weights: empty: it is empty"),
    (("evaluate", *NETWORK), "load_weights: junk: it does not begin like a .safetensors, .npz or PyTorch file"),
    (("evaluate", "resnet20", "junk.npz", *DATA), "load_weights: junk.npz: it is damaged"),
    (("evaluate", "resnet20", "junk/file", *DATA), "junk/file: Not a directory"),
    (("evaluate", "resnet21", "junk", *DATA), "model: unknown name 'resnet21'; did you mean resnet"),
    (("evaluate", "resnet20", "junk", "--dataset", ""), "data set: unknown name ''; there are cifar10"),
    (("evaluate", "resnet20", "junk", "--dataset", "mnist", "--data-dir", ""), "argument --data-dir: expected a name"),
    (("evaluate", "resnet20", "junk", "--dataset", "mnist", "--data-dir", "junk"), "mnist: not found. Looked in junk"),
    (("evaluate", "resnet20", "junk", "--dataset", "cifar10"), "cifar10: not found. Looked in "),
    (("evaluate", *NETWORK, "--mean", "nan", "0", "0", "--std", "1", "1", "1"), "mean: expected 3 finite numbers"),
    (("evaluate", *NETWORK, "--mean", "0", "0", "0", "--std", "inf", "1", "1"), "std: expected 3 finite numbers"),
    (("evaluate", *NETWORK, "--mean", "x", "--std", "1"), "argument --mean: invalid float value: 'x'"),
    (("evaluate", *NETWORK, "--mean", "0.5", "0.5"), "mean: expected 3 finite numbers"),
    (("evaluate", *NETWORK, "--std", "0", "1", "1"), "std: expected numbers above 0"),
    (("evaluate", *NETWORK, "--batch-size", "-1"), "argument --batch-size: expected a whole number >= 1, got -1"),
    (("evaluate", *NETWORK, "--batch-size", "nan"), "argument --batch-size: expected a whole number >= 1, got nan"),
    (("evaluate", *NETWORK, "--image-size", "5"), "expected extents that divide the images' 16x16, got 5x5"),
    (("evaluate", *NETWORK, "--width", "9" * 30), "there is not enough memory: Maximum allowed dimension exceeded"),
    (("evaluate", *NETWORK, "--pad", "left"), "argument --pad: invalid choice: 'left'"),
    (("evaluate", *NETWORK, "--rename", "fc"), "argument --rename: expected OLD=NEW or s/OLD/NEW/, got fc"),
    (("evaluate", *NETWORK, "--normalize", "none", "--mean", "0", "--std", "1"), "contradicts --mean and --std"),

    (("inspect", ""), "argument WEIGHTS|RUN: expected a name or a path, got an empty string"),
    (("inspect", "runs/nowhere"), "runs/nowhere is neither the folder of a run nor a file with weights"),
    (("inspect", "junk"), "--model is missing: say which network junk holds weights for"),
    (("inspect", "folder"), "folder is not the folder of a run"),
    (("inspect", "no-run", "--width", "8"), "no-run/config.json: expected a run's settings"),
    (("inspect", "nothing", "--model", "resnet20"), "nothing: No such file or directory"),
    (("inspect", "junk", "--model", ""), "model: unknown name ''"),
    (("inspect", "junk", "--model", "resnet20", *DATA), "load_weights: junk: "),
    (("inspect", "junk", "--model", "resnet20", "--images", "0"),
     "argument --images: expected a whole number >= 1, got 0"),
    (("inspect", "junk", "--model", "resnet20", "--seed", "-1"),
     "argument --seed: expected a whole number >= 0, got -1"),
    (("inspect", "junk", "--model", "resnet20", "--mean", "1", "--std", "1"), "--mean, --std without --dataset"),
    (("inspect", "junk", "--model", "resnet20", *DATA, "--in-channels", "3"), "leave out --in-channels"),
    (("inspect", "junk", "--model", "resnet20", "--out", ""), "argument --out: expected a name or a path"),
    (("inspect", "junk", "--model", "resnet20", "--out", "junk"), "junk: Not a directory"),
    (("inspect", "junk", "--model", "resnet20", "--out", "junk/new"), "junk: Not a directory"),

    (("train",), "MODEL is missing"),
    (("train", ""), "MODEL is missing"),
    (("train", "resnet20", "--dataset", ""), "data set: unknown name ''"),
    (("train", "resnet20", *DATA, "--recipe", ""), "recipe: unknown name ''"),
    (("train", "resnet20", *DATA, "--set", ""), "setting: expected key=value, got ''"),
    (("train", "resnet20", *DATA, "--set", "lr=nan"), "expected lr to be finite and >= 0, got nan"),
    (("train", "resnet20", *DATA, "--set", "lr=x"), "setting lr: expected a number, got 'x'"),
    (("train", "resnet20", *DATA, "--set", "image_size=-1"), "expected numbers >= 0, got image_size -1"),
    (("train", "resnet20", *DATA, "--time-limit", "nan"), "argument --time-limit: expected a number of seconds"),
    (("train", "resnet20", *DATA, "--checkpoint-steps", "0"),
     "argument --checkpoint-steps: expected a whole number >= 1"),
    (("train", "resnet20", *DATA, "--out", ""), "argument --out: expected a name or a path"),
    (("train", "resnet20", *DATA, "--out", "junk"), "junk is a file, and a run needs a folder"),
    (("train", "resnet20", *DATA, "--out", "junk/new"), "junk/new: Not a directory"),
    (("train", "resnet20", *DATA, "--out", "x" * 300), "File name too long"),
    (("train", "resnet20", "--dataset", "mnist"), "mnist: not found"),
    (("train", "resnet20", "--dataset", "mnist", "--out", "new/folder"), "mnist: not found"),
    (("train", "resnet20", "--dataset", "mnist", "--out", "folder"), "mnist: not found"),
    (("train", "resnet20", *DATA, "--set", "train_images=1001"), "train_images: expected at most 1000, got 1001"),
    (("train", "resnet20", *DATA, "--set", "image_size=5", "--out", "folder/new"), "divide the images' 16x16, got 5x5"),
    (("train", "resnet20", *DATA, "--set", "model.width=0"), "cifar: expected width as an integer >= 1, got 0"),
    (("train", "resnet20", *DATA, "--set", f"model.width={'9' * 30}"), "Maximum allowed dimension exceeded"),
    (("train", "resnet20", *DATA, "--set", "model.norm=x"), 'expected norm "batch", "none" or "fixup", got'),
    (("train", "--resume", "--out", "nothing"), "nothing: found no run to resume"),
    (("train", "--resume", "--out", "no-json"), "no-json/config.json cannot be read"),
    (("train", "--resume", "--out", "no-run"), "no-run/config.json: expected a run's settings"),

    (("sweep", ""), "argument SPEC: expected a name or a path"),
    (("sweep", "nothing"), "nothing: No such file or directory"),
    (("sweep", "folder"), "folder: Is a directory"),
    (("sweep", "junk"), "junk cannot be read: 'utf-8' codec can't decode"),
    (("sweep", "empty"), "empty cannot be read: Expecting value"),
    (("sweep", "half.json"), "half.json cannot be read"),
    (("sweep", "list.json"), "list.json: expected keys and values, got a list of 0"),
    (("sweep", "latin.json"), "latin.json cannot be read"),
    (("sweep", BAD), r"caf\udce9: No such file or directory"),

    (("report", "nothing", "--out", "r"), "nothing: expected a folder, but there is none of this name"),
    (("report", "junk", "--out", "r"), "junk: expected a folder, but there is none of this name"),
    (("report", "folder", "--out", "r"),
     "folder: expected the folder of a run, or a folder that holds the folders of runs"),
    (("report", "no-run", "--out", "r"), "no-run/config.json: expected a run's settings"),
    (("report", "folder"), "the following arguments are required: --out"),

    (("bench", "--depth", "7"), "expected depth = 6n + 2"),
    (("bench", "--depth", "8", "--batch", "9" * 30), "there is not enough memory"),
    (("bench", "--threads", "0"), "argument --threads: expected a whole number >= 1, got 0"),
    (("bench", "--batch", "1.5"), "argument --batch: expected a whole number >= 1, got 1.5"),
    (("demo", "--out", ""), "argument --out: expected a name or a path"),
    (("demo", "--quick", "--out", "junk"), "junk: File exists"),
    (("demo", "--quick", "--out", "junk/new"), "junk/new: Not a directory"),
    (("demo", "--epochs", "nan"), "argument --epochs: expected a whole number >= 1, got nan"),
    (("demo", "--jobs", "0"), "argument --jobs: expected a whole number >= 1, got 0"),
]


@pytest.mark.parametrize("arguments, message", WRONG, ids=[ascii(" ".join(a))[:70] for a, _ in WRONG])
def test_what_is_wrong_ends_in_one_clear_line_and_nothing_is_written(arguments, message, here, capsys):
    before = tree(here)
    try:
        status = cli.main(arguments)
    except SystemExit as stop:  # argparse's own errors, after the usage
        status = stop.code
    out, err = capsys.readouterr()
    *usage, line = err.splitlines()
    assert (status, out) == (2, "") and line.startswith("minires") and "error: " in line and message in line
    assert usage == [] or (usage[0].startswith("usage: minires") and all(u.startswith("  ") for u in usage[1:]))
    assert tree(here) == before


def test_a_network_that_the_images_are_too_small_for_leaves_nothing_behind(here, monkeypatch, capsys):
    def pooling(in_channels=3, num_classes=10, rng=None):
        return nn.Sequential(nn.MaxPool2d(40), nn.Flatten(), nn.Linear(in_channels, num_classes, rng=rng))

    monkeypatch.setitem(models.BY_NAME, "pooling", pooling)
    before = tree(here)
    assert cli.main(["train", "pooling", *DATA, "--out", "new/folder"]) == 2
    assert "a kernel of 40x40 is larger than the input of 16x16" in capsys.readouterr().err and tree(here) == before


def test_a_file_that_may_not_be_read(here, capsys, monkeypatch):
    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied", "junk")

    monkeypatch.setattr("builtins.open", refuse)
    assert cli.main(["evaluate", *NETWORK]) == 2
    monkeypatch.undo()
    assert capsys.readouterr().err == "minires evaluate: error: junk: Permission denied\n"


def test_a_folder_that_may_not_be_written_is_refused_before_the_work(here, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != "folder")
    with pytest.raises(PermissionError, match="Permission denied: 'folder'"):
        inspection.check_folder(Path("folder/a/b"))
    inspection.check_folder(Path("new/a/b"))


# ------------------------------------------------------------------------------------------------ bugs


def broken(monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setattr(info, "text", fail)


BUGS = [KeyError("x"), TypeError("y"), AttributeError("z"), IndexError(), AssertionError(), RecursionError("deep"),
        ZeroDivisionError("division by zero"), NotImplementedError("later"), ValueError(),
        ImportError("cannot import name 'a' from 'minires.b'", name="minires.b")]


@pytest.mark.parametrize("error", BUGS, ids=repr)
def test_a_bug_is_not_disguised_as_bad_input(error, monkeypatch, capsys):
    monkeypatch.delenv("MINIRES_DEBUG", raising=False)
    broken(monkeypatch, error)
    assert cli.main(["info"]) == 1
    assert capsys.readouterr().err == (f"minires info: error: this is a bug in minires, not in your command: "
                                       f"{type(error).__name__}: {error}; set MINIRES_DEBUG=1 in the environment to "
                                       "see the traceback\n")


@pytest.mark.parametrize("error, line", [
    (UsageError("no such thing"), "no such thing"),
    (ValueError("two\nlines"), "two lines"),
    (RuntimeError("no GPU"), "no GPU"),
    (ArithmeticError("not finite"), "not finite"),
    (FileNotFoundError("the run is not there"), "the run is not there"),
    (FileNotFoundError(2, "No such file or directory", "w.npz"), "w.npz: No such file or directory"),
    (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
    (MemoryError(), "there is not enough memory"),
    (MemoryError("Unable to allocate 9 GiB"), "there is not enough memory: Unable to allocate 9 GiB"),
    (ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib"),
     "No module named 'matplotlib': pip install matplotlib"),
    (ModuleNotFoundError("No module named 'sklearn.x'", name="sklearn.x"),
     "No module named 'sklearn.x': pip install scikit-learn"),
    (ModuleNotFoundError("digits: pip install scikit-learn", name="sklearn"), "digits: pip install scikit-learn"),
], ids=repr)
def test_errors_of_use_are_one_line(error, line, monkeypatch, capsys):
    monkeypatch.delenv("MINIRES_DEBUG", raising=False)
    broken(monkeypatch, error)
    assert cli.main(["info"]) == 2
    assert capsys.readouterr().err == f"minires info: error: {line}\n"


@pytest.mark.parametrize("error, status", [(KeyError("x"), 1), (UsageError("no such thing"), 2)], ids=repr)
def test_minires_debug_shows_the_traceback(error, status, monkeypatch, capsys):
    broken(monkeypatch, error)
    monkeypatch.setenv("MINIRES_DEBUG", "1")
    assert cli.main(["info"]) == status
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):" and "raise error" in lines[-3].strip()
    assert lines[-1].startswith("minires info: error: ") and "MINIRES_DEBUG" not in lines[-1]
    monkeypatch.setenv("MINIRES_DEBUG", "0")
    assert cli.main(["info"]) == status and "Traceback" not in capsys.readouterr().err


def test_ctrl_c_ends_in_a_line_of_its_own(monkeypatch, capsys):
    broken(monkeypatch, KeyboardInterrupt())
    assert cli.main(["info"]) == 130 and capsys.readouterr().err == "minires info: stopped\n"


def test_a_missing_package_is_named_with_the_command_that_installs_it(here, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    before = tree(here)
    assert cli.main(["inspect", "junk", "--model", "resnet20"]) == 2
    assert capsys.readouterr().err.endswith(": pip install tqdm\n") and tree(here) == before


# -------------------------------------------------------------------------------------- help texts


def parsers():
    """Return {command: its parser}, with the main parser under ""."""
    whole = cli._parser()  # private: gives what argparse prints, without a process for each command
    # private: argparse has no public list of its arguments
    commands = next(a for a in whole._actions if isinstance(a, argparse._SubParsersAction))
    return {"": whole, **commands.choices}


@pytest.mark.parametrize("command", parsers())
def test_every_argument_has_its_help_and_all_fits_a_terminal(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    parser = parsers()[command]
    text = parser.format_help()
    assert text.startswith(f"usage: minires {command}".rstrip()) and max(map(len, text.splitlines())) <= 80
    # private: as above
    assert [a.dest for a in parser._actions if not a.help and not isinstance(a, argparse._SubParsersAction)] == []
    assert "None" not in text and "==SUPPRESS==" not in text


def test_the_help_of_all_names_the_commands_the_exit_statuses_and_minires_debug():
    text = " ".join(parsers()[""].format_help().split())
    assert all(f" {command} " in text for command in parsers() if command)
    assert "MINIRES_DEBUG=1 in the environment to see the traceback" in text and "The exit status is 0" in text


def program(*arguments, **environment):
    return subprocess.run([sys.executable, "-W", "error", "-m", "minires", *arguments], capture_output=True, text=True,
                          timeout=120, env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1]),
                                            **environment})


def test_python_m_minires_is_minires():
    done = program("models", "--json", "x")
    assert done.returncode == 2 and done.stderr.startswith("usage: minires [-h] [--version] COMMAND ...\n")
    assert done.stderr.endswith("minires: error: unrecognized arguments: x\n")


@pytest.mark.parametrize("name", ["MINIRES_KERNELS", "MINIRES_THREADS"])
def test_a_wrong_environment_is_one_line(name):
    done = program("info", **{name: "nope"})
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"minires info: error: {name}: expected ")


# --------------------------------------------------------------------------------------- file names of any bytes


@pytest.mark.parametrize("name", [BAD, "cost$x_{$"], ids=["not UTF-8", "like mathematics"])
def test_files_may_have_any_name(name, here, monkeypatch, capsys):
    weights, out = f"{name}.npz", Path(f"{name}-out")
    save_weights(models.resnet20(width=2, num_classes=3), weights)
    network = "--dataset", "stripes", "--width", "2"
    assert cli.main(["evaluate", "resnet20", weights, *network, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["weights"] == weights
    monkeypatch.setattr(inspection, "BATCH", 20)
    assert cli.main(["inspect", weights, "--model", "resnet20", *network, "--images", "20", "--responses", "--out",
                     str(out)]) == 0
    shown = weights.encode("utf-8", "backslashreplace").decode()
    assert shown in (out / "inspect.html").read_text(encoding="utf-8")
    assert json.loads((out / "inspect.json").read_text())["subject"]["weights"] == weights
