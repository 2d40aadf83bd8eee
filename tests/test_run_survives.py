"""Test what a run survives: a hangup, closed output, a folder that disappears. Test its record of the machine."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import SMALL_RUN
from short import every

from minires import cli, info, runs, train
from minires.kernels import parallel
from minires.runs import checkpoint, config

pytest.importorskip("safetensors", reason="checkpoints are safetensors files, and the package is not installed")
pytestmark = pytest.mark.usefixtures("blank_pictures")
hangup = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")

ROOT = Path(__file__).resolve().parents[1]
COMPLETE = ["config.json", "curves.png", "metrics.jsonl", "weights.safetensors"]
SHORT = [*SMALL_RUN, "epochs=1"]


def at_step(monkeypatch, number, act):
    """Call `act` before step `number`."""
    step = train.step

    def acting(model, optimizer, images, labels, count=1):
        if count == number:
            act()
        return step(model, optimizer, images, labels, count)

    monkeypatch.setattr(train, "step", acting)


def shell(command):
    """Run a command with minires in a shell, where `minires` starts this installation."""
    minires = f"minires() {{ {shlex.quote(sys.executable)} -m minires \"$@\"; }}; "
    return subprocess.run(["sh", "-c", minires + command], cwd=ROOT, text=True, capture_output=True, timeout=120)


def weights(out):
    return (out / "weights.safetensors").read_bytes()


def complete(out):
    return [name for name in COMPLETE if (out / name).exists()] == COMPLETE


# ---------------------------------------------------------------------------------------------------- SIGHUP


@hangup
def test_a_hangup_stops_a_run_at_a_checkpoint(finished_run, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    at_step(monkeypatch, 6, lambda: os.kill(os.getpid(), signal.SIGHUP))
    before = signal.signal(signal.SIGHUP, lambda number, frame: None)  # otherwise a failure would end pytest itself
    try:
        assert cli.main([*SMALL_RUN, "--out", str(out)]) == 129
    finally:
        signal.signal(signal.SIGHUP, before)
    assert "Stopped by SIGHUP at step 6 of 12" in capsys.readouterr().out
    monkeypatch.undo()
    assert cli.main(["train", "--resume", "--out", str(out)]) == 0
    assert weights(out) == weights(finished_run)


@hangup
def test_an_ignored_hangup_stays_ignored(finished_run, tmp_path, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        at_step(monkeypatch, 6, lambda: os.kill(os.getpid(), signal.SIGHUP))
        assert cli.main([*SMALL_RUN, "--out", str(tmp_path / "run")]) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert weights(tmp_path / "run") == weights(finished_run)


@pytest.mark.system
@pytest.mark.parametrize("command, number, status", every(6, [  # test_demo.py stops the demo with Ctrl-C
    ("sweep", "SIGTERM", 143), ("sweep", "SIGHUP", 129), ("sweep", "SIGINT", 130), ("demo", "SIGTERM", 143),
    ("demo", "SIGHUP", 129), ("demo", "SIGINT", 130)]))
def test_a_signal_stops_several_runs_at_checkpoints(command, number, status, tmp_path):
    """A terminal sends Ctrl-C, and SIGHUP when it closes, to all processes in it; `kill` sends SIGTERM to one."""
    if not hasattr(signal, number):
        pytest.skip(f"this system has no {number}")
    spec, out = tmp_path / "spec.json", tmp_path / "out"
    spec.write_text(json.dumps({"models": ["plain20", "resnet20"], "dataset": "fashion_mnist_small", "device": "cpu",
                                "set": {"train_images": 2000, "test_images": 20, "image_size": 7, "model.width": 2,
                                        "batch_size": 2, "crop": 0}}))
    asked = ["sweep", str(spec), "--jobs", "2"] if command == "sweep" else ["demo", "--jobs", "2", "--device", "cpu"]
    process = subprocess.Popen([sys.executable, "-m", "minires", *asked, "--out", str(out)], cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    with process:
        for line in process.stdout:
            if "errors are measured after each epoch" in line:
                (os.kill if number == "SIGTERM" else os.killpg)(process.pid, getattr(signal, number))
                break
        said, errors = process.communicate(timeout=120)
    assert process.returncode == status, errors
    assert ("give the same command again" if command == "sweep" else "minires demo --resume --out") in said
    assert "Traceback" not in errors
    begun = [path.parent for path in out.rglob("config.json")]
    assert begun and any(checkpoint.newest(folder)[0] for folder in begun)


# ------------------------------------------------------------------------------------ closed or broken output


@pytest.mark.system
@pytest.mark.skipif(os.name != "posix", reason="the redirections are those of a POSIX shell")
@pytest.mark.parametrize("redirection", every(4, [">/dev/full 2>&1", ">/dev/full", ">&-", "2>&-", "| head -n 1",
                                                  ">&- 2>&-", "<&- >&- 2>&-"]))
def test_a_run_whose_output_cannot_be_written_reaches_its_end(redirection, tmp_path):
    if "/dev/full" in redirection and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    out = tmp_path / "run"
    status = tmp_path / "status"
    command = f"{shlex.join(['minires', *SHORT, '--out', str(out)])}; echo $? > {shlex.quote(str(status))}"
    done = shell(f"{{ {command}; }} {redirection}")
    assert status.read_text().strip() == "0", done.stderr
    assert complete(out)
    assert not done.stderr and (out / ".lock").read_bytes() == b""


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.skipif(os.name != "posix", reason="the redirections are those of a POSIX shell")
@pytest.mark.parametrize("redirection", [">&- 2>&-", "| true"])
def test_a_sweep_whose_output_cannot_be_written_reaches_its_end(redirection, tmp_path):
    (tmp_path / "spec.json").write_text(json.dumps({
        "models": ["plain20", "resnet20"], "dataset": "fashion_mnist_small", "recipe": "demo", "device": "cpu",
        "set": {"train_images": 50, "test_images": 20, "image_size": 7, "model.width": 2, "crop": 0, "epochs": 1}}))
    out, status = tmp_path / "runs", tmp_path / "status"
    asked = shlex.join(["minires", "sweep", str(tmp_path / "spec.json"), "--jobs", "2", "--out", str(out)])
    shell(f"{{ {asked}; echo $? > {shlex.quote(str(status))}; }} {redirection}")
    assert status.read_text().strip() == "0"
    assert complete(out / "plain20-seed0") and complete(out / "resnet20-seed0") and (out / "results.json").exists()


@pytest.mark.system
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("redirection", every(2, [">/dev/full", ">&-"]))
def test_a_command_that_only_prints_fails_if_its_output_is_lost(redirection):
    done = shell(f"minires info {redirection}")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("minires info: error: ") and "bug" not in line


def test_a_broken_output_that_recovers_is_used_again(tmp_path, monkeypatch, capfd):
    class Broken:
        """Fails in the middle of the run, as a pipe or a terminal does that is gone."""

        encoding, broken = "utf-8", False

        def write(self, text):
            if self.broken:
                raise BrokenPipeError
            said.append(text)

        def flush(self):
            if self.broken:
                raise BrokenPipeError

    said, stream = [], Broken()
    monkeypatch.setattr(sys, "stdout", stream)
    at_step(monkeypatch, 2, lambda: setattr(stream, "broken", True))
    assert runs.train(config.configure("resnet20", "fashion_mnist_small", "short-cifar", 0, "cpu", SHORT[9:]),
                      tmp_path / "run").finished
    assert complete(tmp_path / "run")
    stream.broken = False
    runs.progress.say("again")
    assert "parameters" in "".join(said) and "epoch 1" not in "".join(said) and "again" in "".join(said)


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_python_without_standard_streams_can_train(name, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, name, None)  # as in pythonw, and after >&-
    assert cli.main([*SHORT, "--out", str(tmp_path / "run")]) == 0
    assert complete(tmp_path / "run")


# --------------------------------------------------------------------------------------------- a deleted folder


@pytest.mark.parametrize("deleted", ["run", "parent"])
def test_a_folder_deleted_during_the_run_is_named(deleted, tmp_path, monkeypatch, capsys):
    out = tmp_path / "parent" / "run"
    at_step(monkeypatch, 2, lambda: shutil.rmtree(out if deleted == "run" else out.parent))
    assert cli.main([*SHORT, "--out", str(out)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "the checkpoint of step 4 could not be written" in line
    assert f"{out} was deleted or moved while the run trained" in line and "disk space" not in line
    assert not out.exists()


def test_a_folder_deleted_at_the_very_end_is_named(tmp_path, monkeypatch, capsys):
    save = runs.run.metrics.write

    def save_and_delete(folder, lines):
        save(folder, lines)
        shutil.rmtree(folder)

    monkeypatch.setattr(runs.run.metrics, "write", save_and_delete)
    assert cli.main([*SHORT, "--out", str(tmp_path / "run")]) == 2
    assert "the files of the finished run could not be written" in capsys.readouterr().err


def test_a_deleted_lock_file_does_not_matter(finished_run, tmp_path, monkeypatch):
    at_step(monkeypatch, 2, (tmp_path / "run" / ".lock").unlink)
    assert cli.main([*SMALL_RUN, "--out", str(tmp_path / "run")]) == 0
    assert weights(tmp_path / "run") == weights(finished_run)


# ---------------------------------------------------------------------------------- refused runs leave nothing


@pytest.mark.parametrize("more, says", [
    (["--set", "crop=8"], "crop: expected at most 7, the images' height or width, got 8"),
    (["--set", "crop=100000"], "crop: expected at most 7"),
    (["--time-limit", "0.01"], "--time-limit 0.01 is too short"),
    (["--set", "batch_size=0"], "batch_size >= 1"),
])
def test_a_refused_run_leaves_no_files(more, says, tmp_path, capsys):
    assert cli.main([*SMALL_RUN, "--out", str(tmp_path / "a" / "b"), *more]) == 2
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_in_its_first_step_leaves_no_files(tmp_path, monkeypatch, capsys):
    def fail():
        raise MemoryError("Unable to allocate 1 TiB")

    at_step(monkeypatch, 1, fail)
    assert cli.main([*SMALL_RUN, "--out", str(tmp_path / "a" / "b")]) == 2
    assert "not enough memory" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_that_fails_in_its_first_step_keeps_its_config(tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, 2, lambda: signal.raise_signal(signal.SIGTERM))
        assert cli.main([*SMALL_RUN, "--out", str(out)]) == 143
    for path in out.glob("checkpoint*"):
        path.unlink()

    def fail():
        raise MemoryError

    at_step(monkeypatch, 1, fail)
    assert cli.main(["train", "--resume", "--out", str(out)]) == 2
    assert (out / "config.json").exists()


@pytest.mark.parametrize("package", ["safetensors", "matplotlib"])
def test_a_missing_package_is_named_before_the_run_begins(package, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    assert cli.main([*SHORT, "--out", str(tmp_path / "run")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith(f"a run needs {package}, which is not installed: pip install {package}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--dataset", "digits"], []])
def test_evaluate_of_a_folder_without_a_run_says_so(arguments, tmp_path, capsys):
    assert cli.main(["evaluate", str(tmp_path), *arguments]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith(f"{tmp_path} is not the folder of a run: there is no config.json in it")


# ------------------------------------------------------------------------------------------- the machine's record


def test_the_record_holds_what_decides_the_bits(finished_run):
    recorded = runs.read_config(finished_run).recorded
    assert recorded.machine == info.machine() and set(recorded.machine) == {"cpu", "cache", "blas", "simd"}
    assert recorded.machine["cache"] == f"{parallel.cache_bytes()} bytes" and all(recorded.machine.values())


def test_a_resumed_run_warns_of_another_machine(finished_run, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(finished_run, out)
    written = json.loads((out / "config.json").read_text())
    here = written["machine"]
    (out / "config.json").write_text(json.dumps(written | {"machine": dict.fromkeys(here, "another")}))
    assert cli.main(["train", "--resume", "--out", str(out)]) == 0
    said = capsys.readouterr().out.partition("so the bits may differ: ")[2]
    for key in "cpu", "cache", "blas", "simd":
        assert f"machine.{key}: another there, {here[key]} now" in said


def test_an_older_record_without_a_machine_is_read_and_gives_no_warning(finished_run, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(finished_run, out)
    written = json.loads((out / "config.json").read_text())
    del written["machine"], written["kernels"]
    (out / "config.json").write_text(json.dumps(written))
    assert cli.main(["train", "--resume", "--out", str(out)]) == 0
    assert "may differ" not in capsys.readouterr().out
    assert runs.read_config(out).recorded.machine == {}


BITS = """
import hashlib, os
from minires import train
from minires.info import machine
from minires.kernels import parallel
from minires.runs.config import configure
if "CACHE" in os.environ:
    parallel.cache_bytes = lambda: int(os.environ["CACHE"])
chosen = configure("resnet20", "fashion_mnist_small", "demo", 0, "cpu", ["train_images=200", "test_images=1",
                   "image_size=14", "model.width=8", "batch_size=100", "epochs=1"])
sets, model = chosen.inputs(), chosen.build(1, 10)
list(train.fit(model, sets.train, sets.test, chosen.recipe, rng=0))
digest = hashlib.sha256(b"".join(t.data.tobytes() for t in model.state().values())).hexdigest()
print(digest, parallel.threads(), *machine().values(), sep="|")
"""


@pytest.mark.slow
@pytest.mark.system
def test_where_the_record_is_the_same_the_bits_are_the_same():
    """Choose kernels of other CPUs, other caches and threads. Where the bits differ, the record must differ too."""
    def measured(**environment):
        done = subprocess.run([sys.executable, "-c", BITS], cwd=ROOT, text=True, capture_output=True, check=True,
                              env=os.environ | {"MINIRES_THREADS": "2"} | environment)
        return tuple(done.stdout.strip().split("|", 1))

    above_baseline = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    found = [measured(), measured(), measured(OPENBLAS_NUM_THREADS="1"), measured(MINIRES_THREADS="1"),
             measured(CACHE="100000"), measured(CACHE="400000"),
             *(measured(OPENBLAS_CORETYPE=core) for core in ("Haswell", "Sandybridge", "Prescott")),
             measured(NPY_DISABLE_CPU_FEATURES=" ".join(above_baseline))]
    assert found[0] == found[1] == found[2]
    assert len({bits for bits, _ in found}) > 2
    for bits, record in found:
        assert {other for other, same in found if same == record} == {bits}
