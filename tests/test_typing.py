"""The public names are annotated, and a program that uses the installed package passes `mypy --strict`."""

import importlib
import inspect
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import minires
from minires import Function

CLIENT = Path(__file__).resolve().parent / "typed_client.py"
ROOMS = ["analysis", "cuda_graph", "datasets", "device", "evaluate", "exercise", "gradient_check", "init", "kernels",
         "models", "nn", "ops", "optim", "plot", "recipes", "runs", "tap", "tensor", "testing", "train", "weights"]


def public(module):
    """Yield (name, function) for the functions that a module defines or lists, and for its classes' methods."""
    listed = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    for name in listed:
        thing = getattr(module, name)
        if not str(getattr(thing, "__module__", "")).startswith(module.__name__):
            continue
        if inspect.isfunction(thing):
            yield name, thing
        elif inspect.isclass(thing):
            plain = {"forward", "backward"} if issubclass(thing, Function) else set()  # arithmetic on plain arrays
            for method, function in vars(thing).items():
                function = getattr(function, "__func__", function)
                own = inspect.isfunction(function) and function.__module__ == thing.__module__
                if own and method not in plain and (not method.startswith("_") or method == "__init__"):
                    yield f"{name}.{method}", function


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_function_is_annotated(room):
    module = importlib.import_module(f"minires.{room}")
    seen, missing = 0, []
    for name, function in public(module):
        seen += 1
        parameters = list(inspect.signature(function).parameters.values())
        if "." in name and not isinstance(inspect.getattr_static(module, name.partition(".")[0]), staticmethod):
            parameters = parameters[1:]  # self or cls
        missing += [f"{name}, {p.name}" for p in parameters if p.annotation is p.empty]
        if not name.endswith("__init__") and "return" not in function.__annotations__:
            missing.append(f"{name}, result")
    assert seen and missing == []


@pytest.fixture(scope="module")
def python(tmp_path_factory, wheel):
    """Make an interpreter with minires installed as a wheel, and with all other packages installed here."""
    folder = tmp_path_factory.mktemp("typed") / "venv"
    venv.create(folder, symlinks=os.name != "nt")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    site = Path(subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
                               capture_output=True, text=True, check=True).stdout.strip())
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    elsewhere = {str(Path(p)) for p in sys.path if p and "site-packages" in p} | {sysconfig.get_path("purelib")}
    (site / "elsewhere.pth").write_text("\n".join(sorted(elsewhere)), encoding="utf-8")
    return python


def mypy(python, program, *options):
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python), "--config-file=", *options]
    done = subprocess.run([*command, program.name], cwd=program.parent, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.system
def test_a_typed_program_is_checked_against_the_installed_package(python, tmp_path):
    pytest.importorskip("mypy", reason="mypy is not installed (pip install -e '.[test]')")
    program = Path(shutil.copy(CLIENT, tmp_path))
    cache = f"--cache-dir={tmp_path / 'cache'}"
    assert mypy(python, program, cache)[0] == 0, mypy(python, program, cache)[1]
    wrong = {
        "print(minires.no_such_name)": "has no attribute",
        "print(minires.train.Recipe(epochs='3'))": "incompatible type",
        "x: int = minires.Tensor([1.0]) * 2": "Incompatible types in assignment",
        "print(minires.models.no_such_net())": "has no attribute",
        "minires.load_weights(minires.models.resnet20())": "Missing positional argument",
    }
    program.write_text("import minires\n\n" + "\n".join(wrong) + "\n", encoding="utf-8")
    status, said = mypy(python, program, cache)
    lines = [line for line in said.splitlines() if ": error:" in line]
    assert status == 1 and len(lines) == len(wrong), said
    for line, what in zip(lines, wrong.values(), strict=True):
        assert what in line


@pytest.mark.system
def test_the_typed_program_runs(python, tmp_path):
    done = subprocess.run([python, "-W", "error", CLIENT], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.splitlines() == ["right", "cpu"], done.stderr


def test_py_typed_is_there():
    assert Path(minires.__file__).with_name("py.typed").is_file()
