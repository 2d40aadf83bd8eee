"""Test training in separate processes: every kind of stop leaves a checkpoint, and errors reach the parent process."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from short import every

from minires import runs
from minires.runs import checkpoint, run, workers
from minires.runs.config import configure
from minires.runs.progress import Passed
from minires.train import NotFinite

pytest.importorskip("safetensors", reason="checkpoints are safetensors files, and the package is not installed")

pytestmark = pytest.mark.system
ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ["train_images=1000", "test_images=20", "image_size=7", "model.width=2", "batch_size=2", "epochs=9"]


def job(out, *settings):
    """Return a job that would train for a long time if nothing stopped it."""
    return workers.Job(configure("plain20", "fashion_mnist_small", "demo", 0, "cpu", [*SETTINGS, *settings]), out,
                       threads=1, command="a test")


def step_of(folder):
    return checkpoint.newest(folder)[0][1]["at"]["step"]


def never(name, error):
    raise AssertionError(f"{name} failed: {error}")


def test_what_is_raised_while_they_train_stops_all_of_them_at_checkpoints(tmp_path):
    jobs, passed = {name: job(tmp_path / name) for name in "ab"}, {}

    def tell(name, event):
        if isinstance(event, Passed):
            passed[name] = event.images
        if min(passed.values(), default=0) >= 6 and len(passed) == 2:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        workers.side_by_side(jobs, 2, tell, never)
    for name in jobs:
        assert passed[name] // 2 <= step_of(tmp_path / name) < 4500
        assert runs.read_config(tmp_path / name).recorded.command == "a test"


@pytest.mark.parametrize("number, name", every(2, [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")]))
def test_a_signal_stops_those_that_run_and_begins_no_other(tmp_path, number, name):
    """The signal is sent only to the first process."""
    said = []

    def tell(who, event):
        said.append((who, event))
        if isinstance(event, Passed) and event.images == 6:
            os.kill(os.getpid(), number)

    outcomes, stopped = workers.side_by_side({who: job(tmp_path / who) for who in "ab"}, 1, tell, never)
    assert stopped == name
    assert set(outcomes) == {"a"} == {who for who, _ in said} and not (tmp_path / "b").exists()
    assert outcomes["a"].stopped == name and 3 <= outcomes["a"].step == step_of(tmp_path / "a") < 4500
    assert outcomes["a"].steps == 4500 and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_that_every_process_gets_more_than_once_stops_all_at_checkpoints(tmp_path, monkeypatch, capfd):
    """`timeout` and batch systems send SIGTERM to all processes, and this process sends it to the others again."""
    jobs, passed, started, popen = {name: job(tmp_path / name) for name in "ab"}, {}, [], subprocess.Popen

    def noted(*args, **options):
        started.append(popen(*args, **options))
        return started[-1]

    def tell(name, event):
        if isinstance(event, Passed):
            passed.setdefault(name, event.images // 2)
        if len(passed) == 2 and not sent:
            sent.extend([*(process.pid for process in started), os.getpid()] * 2)
            for number in sent:
                os.kill(number, signal.SIGTERM)

    sent = []
    monkeypatch.setattr(subprocess, "Popen", noted)
    outcomes, stopped = workers.side_by_side(jobs, 2, tell, never)
    assert len(sent) == 6 and stopped == "SIGTERM" and set(outcomes) == {"a", "b"}
    for name, outcome in outcomes.items():
        assert outcome.stopped == "SIGTERM" and passed[name] <= outcome.step == step_of(tmp_path / name) < 4500
    assert "Traceback" not in capfd.readouterr().err


def test_what_a_training_raises_is_raised_with_its_name_and_the_others_go_on(tmp_path):
    jobs = {"wild": job(tmp_path / "wild", "lr=1e30"), "short": job(tmp_path / "short", "train_images=20", "epochs=1")}
    failed = {}
    outcomes, stopped = workers.side_by_side(jobs, 2, lambda *event: None, failed.__setitem__)
    assert stopped == ""
    assert set(failed) == {"wild"} and type(failed["wild"]) is NotFinite and "step 2: " in str(failed["wild"])
    assert outcomes["short"].finished and outcomes["short"].step == 10


@pytest.mark.parametrize("script, says", [
    ("exit 3", "its process ended with status 3"), ("echo '{\"KeyError\": \"x\"}'", "KeyError: x"),
    ("echo 'no JSON'; exit 4", "status 4"), ("echo '{\"say\": \"half", "its process ended with status"),
])
def test_a_process_that_ends_otherwise_is_told(script, says, tmp_path, monkeypatch):
    (tmp_path / "python").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    failed = {}
    assert workers.side_by_side({"a": job(tmp_path / "a")}, 1, never, failed.__setitem__) == ({}, "")
    assert type(failed["a"]) is RuntimeError and says in str(failed["a"])


@pytest.mark.parametrize("at_once", every(2, [False, True]))
def test_a_process_whose_parent_is_gone_stops_at_a_checkpoint(tmp_path, at_once):
    told = job(tmp_path / "a")
    asked = json.dumps({**vars(told), "config": told.config.to_json(), "out": str(told.out)})
    process = subprocess.Popen([sys.executable, "-m", "minires.runs.workers"], stdin=subprocess.PIPE, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    with process:
        if at_once:
            process.stdout.close()
        process.stdin.write(asked)
        process.stdin.close()
        for line in [] if at_once else process.stdout:
            if json.loads(line).get("passed", [0])[0] >= 6:
                break
        process.stdout.close()
        process.wait(60)
        assert process.stderr.read() == ""
    assert (0 if at_once else 3) <= step_of(tmp_path / "a") < (1 if at_once else 4500)


def test_one_after_the_other_in_this_process(tmp_path):
    """After a run is stopped, no other run begins."""
    short = {name: job(tmp_path / name, "train_images=20", "epochs=1") for name in "abc"}
    said = []

    def tell(name, event):
        said.append(name)
        if name == "b" and isinstance(event, Passed) and event.images == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    outcomes, stopped = workers.in_turn(short, tell)
    assert stopped == "SIGTERM"
    assert list(outcomes) == ["a", "b"] and list(dict.fromkeys(said)) == ["a", "b"]
    assert outcomes["a"].finished and outcomes["b"].stopped == "SIGTERM"
    assert outcomes["b"].step == step_of(tmp_path / "b")


def test_a_signal_at_the_very_end_of_one_stops_before_the_next(tmp_path, monkeypatch):
    """The run finishes in spite of the signal, and the next run does not begin."""
    save_weights = run.save_weights

    def save_and_signal(*arguments):
        save_weights(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(run, "save_weights", save_and_signal)
    jobs = {name: job(tmp_path / name, "train_images=20", "epochs=1") for name in "ab"}
    outcomes, stopped = workers.in_turn(jobs, lambda *event: None)
    assert list(outcomes) == ["a"] and outcomes["a"].finished and stopped == "SIGTERM"
    assert workers.in_turn({"b": jobs["b"]}, lambda *event: None)[1] == ""  # all runs are finished


@pytest.mark.parametrize("count", [0, -1])
def test_no_run_at_a_time_is_refused(count):
    with pytest.raises(ValueError, match="side_by_side: expected at least one run at the same time, got"):
        workers.side_by_side({"a": None}, count, lambda *_: None, lambda *_: None)
