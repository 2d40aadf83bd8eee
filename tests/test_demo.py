"""The main job end to end, as a user runs it."""
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from minires import cli, kernels, train
from minires.commands import demo, demo_report

LAYERS = {"plain-20": 20, "resnet-20": 20, "plain-56": 56, "resnet-56": 56}


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The command itself, in a process of its own, in an empty folder: (folder, finished process)."""
    out = tmp_path_factory.mktemp("quick")
    done = subprocess.run([sys.executable, "-W", "error", "-m", "minires.cli", "demo", "--quick", "--out", "results"],
                          cwd=out, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return out / "results", done


def test_writes_results_figures_and_a_report(quick):
    out, _ = quick
    assert {p.name for p in out.iterdir()} == {"results.json", "report.html", "error_curves.png", "gradient_norms.png",
                                               "responses.png"}
    assert all((out / f).read_bytes().startswith(b"\x89PNG") for f in ("error_curves.png", "responses.png"))
    assert (out / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_results_follow_the_schema(quick):
    results = demo_report.load(quick[0] / "results.json")
    assert list(results["nets"]) == list(LAYERS)
    for name, net in results["nets"].items():
        depth = LAYERS[name]
        assert len(net["train_error"]) == len(net["test_error"]) == results["settings"]["epochs"] == 1
        assert 0 <= net["train_error"][0] <= 100
        assert len(net["responses"]) == len(net["responses_init"]) == depth - 1        # every 3x3 layer
        assert len(net["gradient_norms_init"]) == depth                                # and the classifier
        assert ("gradient_norms_init_without_bn" in net) == name.startswith("plain")
        assert net["responses_init"] == pytest.approx([1] * (depth - 1), abs=1e-3)     # the control
        assert net["complete"] and net["seconds"] > 0
    assert results["nets"]["plain-56"]["parameters"] == results["nets"]["resnet-56"]["parameters"]
    assert results["settings"]["seed"] == 0 and results["settings"]["quick"] is True
    assert results["versions"]["numpy"] == np.__version__


def test_is_quiet_when_output_is_not_a_terminal(quick):
    out, done = quick
    assert done.stderr == ""
    assert "plain-56" in done.stdout and done.stdout.rstrip().endswith(str(out.relative_to(out.parent) / "report.html"))
    assert "\r" not in done.stdout


def test_overwrites_nothing(quick, capsys):
    out, _ = quick
    before = (out / "results.json").read_bytes()
    assert cli.main(["demo", "--quick", "--out", str(out)]) == 2
    assert "results.json exists already; choose another --out" in capsys.readouterr().err
    assert (out / "results.json").read_bytes() == before


@pytest.mark.parametrize("jobs, finished, interrupted, waiting", [
    ("1", "plain-20", "resnet-20", "plain-56"),
    ("2", "resnet-56", "resnet-20", None),  # the deepest first
])
def test_a_bar_in_a_terminal_and_ctrl_c_keeps_what_is_done(jobs, finished, interrupted, waiting, tmp_path):
    """In a pseudo-terminal: a bar is drawn; Ctrl-C during a later network leaves the first one's results."""
    pty = pytest.importorskip("pty", reason="needs a Unix pseudo-terminal")
    import fcntl
    import struct
    import termios
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # a bar needs a width
    process = subprocess.Popen([sys.executable, "-m", "minires.cli", "demo", "--quick", "--jobs", jobs, "--out",
                                str(tmp_path)],
                               stdout=child, stderr=child, stdin=child, start_new_session=True)
    os.close(child)
    seen = b""
    deadline = time.time() + 300
    sent = False
    while time.time() < deadline:
        try:
            seen += os.read(parent, 4096)
        except OSError:  # the other side is closed
            break
        if not sent and interrupted.encode() in seen and b"images/s" in seen.split(interrupted.encode())[-1]:
            process.send_signal(signal.SIGINT)
            sent = True
    os.close(parent)
    assert process.wait(60) == 130
    text = seen.decode()
    assert "loss=" in text and finished in text and "Stopped by Ctrl-C" in text and "Incomplete" in text
    results = demo_report.load(tmp_path / "results.json")
    assert results["nets"][finished]["complete"] is True
    assert results["nets"].get(interrupted, {"complete": False})["complete"] is False
    assert waiting not in results["nets"]
    assert (tmp_path / "report.html").exists()


def test_same_seed_same_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "NETS", {"plain-20": (8, False), "resnet-20": (8, True)})
    runs = [demo.run(tmp_path / str(i), train.Recipe(), seed=seed, quick=True, say=lambda text: None)[0]["nets"]
            for i, seed in enumerate((3, 3, 4))]
    for nets in runs:
        for net in nets.values():
            del net["seconds"]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_the_numbers_do_not_depend_on_how_many_networks_train_at_a_time(quick, tmp_path):
    """The command trains one network for each core at a time, here one after the other in this process."""
    alone, _ = demo.run(tmp_path, train.Recipe(), quick=True, jobs=1, say=lambda text: None)
    together = demo_report.load(quick[0] / "results.json")
    for nets in alone["nets"], together["nets"]:
        for net in nets.values():
            net["seconds"] = 0
    assert json.loads(json.dumps(alone["nets"])) == together["nets"]
    assert list(alone["nets"]) == list(together["nets"]) == list(LAYERS)


def test_a_process_that_dies_ends_the_run_with_its_name(tmp_path, monkeypatch):
    import multiprocessing.process

    start = multiprocessing.process.BaseProcess.start

    def start_and_kill(process):
        start(process)
        process.kill()

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", start_and_kill)
    with pytest.raises(RuntimeError, match=r"-56: its process ended with status -9"):
        demo.run(tmp_path, train.Recipe(), quick=True, jobs=2, say=lambda text: None)


def test_a_loss_that_is_not_finite_ends_in_one_clear_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "Recipe", lambda epochs: _recipe(epochs, lr=1e30))
    assert cli.main(["demo", "--quick", "--jobs", "1", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "minires demo: error: step " in error
    assert "expected a finite number; first not finite is the output of layer" in error


def test_an_error_in_a_process_of_its_own_arrives_as_it_is(tmp_path):
    with pytest.raises(train.NotFinite, match=r"step \d+: .*first not finite is the output of layer"):
        demo.run(tmp_path, train.Recipe(lr=1e30), quick=True, jobs=2, say=lambda text: None)


def _recipe(epochs, lr, kind=train.Recipe):
    return kind(epochs=epochs, lr=lr)


def test_info(capsys):
    assert cli.main(["info"]) == 0
    text = capsys.readouterr().out
    assert np.__version__ in text and "BLAS" in text and "cores" in text
    assert "device   cpu. No GPU is used: " in text or "device   gpu. GPU: " in text


def test_bench(capsys):
    assert cli.main(["bench", "--depth", "8", "--batch", "4", "--steps", "1", "--profile"]) == 0
    text = capsys.readouterr().out
    assert "ResNet-8, " in text and "images/s" in text and "Conv2d" in text


@pytest.mark.parametrize("argv, said", [
    (["demo", "--epochs", "0"], "expected a number from 1"),
    (["demo", "--seed", "-1"], "expected a number from 0"),
    (["demo", "--device", "tpu"], "invalid choice: 'tpu'"),
    (["dmeo"], "invalid choice: 'dmeo'"),
    ([], "the following arguments are required: COMMAND"),
])
def test_wrong_arguments(argv, said, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--help"], ["demo", "--help"], ["info", "--help"], ["bench", "--help"]])
def test_help_fits_a_terminal(argv, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    text = capsys.readouterr().out
    assert stop.value.code == 0 and text.startswith("usage: minires")
    assert max(map(len, text.splitlines())) <= 80


def test_no_gpu_is_a_clear_error(tmp_path, capsys):
    from minires import device
    if device.use("auto") == "gpu":
        pytest.skip("there is a GPU here")
    assert cli.main(["demo", "--device", "gpu", "--out", str(tmp_path)]) == 2
    assert 'device "gpu" was asked for. No GPU is used: ' in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.system
def test_depth_hurts_the_plain_network_and_the_skip_connection_undoes_it(tmp_path):
    """The main claim, at the defaults: the longest test, some minutes."""
    results, done = demo.run(tmp_path, train.Recipe(), jobs=min(kernels.parallel.threads(), 4))
    final = {name: net["train_error"][-1] for name, net in results["nets"].items()}
    assert done
    assert final["plain-56"] >= final["plain-20"] + 15
    assert final["resnet-56"] <= final["plain-56"] - 25
