"""Test the demo from start to end, as a user runs it."""
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from minires import analysis, cli, datasets, kernels, load_weights, models, recipes, runs, train
from minires.commands import demo, demo_report
from minires.names import printed
from minires.runs import checkpoint, progress, workers

pytest.importorskip("safetensors", reason="checkpoints are safetensors files, and the package is not installed")

pytestmark = pytest.mark.system
whole = pytest.mark.slow  # a plain run stops the demo in a terminal, and runs it to its end with two small networks
LAYERS = {"plain-20": 20, "resnet-20": 20, "plain-56": 56, "resnet-56": 56}


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Run the command in its own process and an empty folder. Return (folder, finished process)."""
    out = tmp_path_factory.mktemp("quick")
    done = subprocess.run([sys.executable, "-W", "error", "-m", "minires.cli", "demo", "--quick", "--out", "results"],
                          cwd=out, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return out / "results", done


@whole
def test_writes_results_figures_a_report_and_four_runs(quick):
    out, _ = quick
    assert {p.name for p in out.iterdir()} == {"results.json", "report.html", "error_curves.png", "gradient_norms.png",
                                               "responses.png", "runs"}
    assert {p.name for p in (out / "runs").iterdir()} == set(demo.NETS.values())
    assert all((out / f).read_bytes().startswith(b"\x89PNG") for f in ("error_curves.png", "responses.png"))
    assert (out / "report.html").read_text().startswith("<!DOCTYPE html>")


@whole
def test_results_follow_the_schema(quick):
    results = demo_report.load(quick[0] / "results.json")
    assert list(results["nets"]) == list(LAYERS)
    for name, net in results["nets"].items():
        depth = LAYERS[name]
        assert len(net["train_error"]) == len(net["test_error"]) == results["settings"]["epochs"] == 1
        assert 0 <= net["train_error"][0] <= 100
        assert len(net["responses"]) == len(net["responses_init"]) == depth - 1        # every 3x3 layer
        assert len(net["gradient_norms_init"]) == depth                                # one more: the classifier
        assert ("gradient_norms_init_without_bn" in net) == name.startswith("plain")
        assert net["responses_init"] == pytest.approx([1] * (depth - 1), abs=1e-3)     # the control
        assert net["complete"] and net["seconds"] > 0
    assert results["nets"]["plain-56"]["parameters"] == results["nets"]["resnet-56"]["parameters"]
    assert results["settings"]["seed"] == 0 and results["settings"]["quick"] is True
    assert results["settings"]["command"] == "minires demo --quick --seed 0 --device auto"
    assert results["versions"]["numpy"] == np.__version__


def test_the_results_of_the_version_before_are_read():
    recorded = demo_report.load(Path(__file__).resolve().parents[1] / "data" / "results" / "demo" / "results.json")
    assert list(recorded["nets"]) == list(LAYERS) and recorded["settings"]["epochs"] == 3


@whole
def test_its_networks_are_what_minires_train_makes(quick, tmp_path):
    """Train with the demo's recipe and settings, in one thread."""
    with kernels.session(threads=1):
        assert cli.main(["train", "plain20", "--dataset", "fashion_mnist_small", "--recipe", "demo", "--out",
                         str(tmp_path / "a"), "--set", "epochs=1", "model.width=8", "image_size=14",
                         "train_images=1000", "test_images=500"]) == 0
    there = quick[0] / "runs" / "plain20"
    assert (tmp_path / "a" / "weights.safetensors").read_bytes() == (there / "weights.safetensors").read_bytes()
    assert runs.read_config(there).differences(runs.read_config(tmp_path / "a")) == []
    net = demo_report.load(quick[0] / "results.json")["nets"]["plain-20"]
    line, = runs.read_metrics(there)
    assert net["train_error"] == [round(line["train_error"], 3)] and net["test_error"] == [round(line["test_error"], 3)]
    assert net["train_loss"] == [round(line["train_loss"], 4)]


@whole
def test_its_measurements_are_those_of_the_analyses(quick):
    """Measure by hand: initial weights from the seed, final weights from the run's file, a batch of training images."""
    images, labels = datasets.prepared("fashion_mnist_small", normalize="pixel-mean", image_size=14,
                                       train_images=1000).train
    images, labels = images[:200], labels[:200]
    nets = demo_report.load(quick[0] / "results.json")["nets"]
    for name, depth in ("plain-20", 20), ("resnet-20", 20):
        def build(norm="batch", depth=depth, residual=name == "resnet-20"):
            return models.cifar(depth, residual, in_channels=1, width=8, norm=norm, rng=np.random.default_rng(0))

        with kernels.session(threads=1):
            found = {"responses_init": analysis.responses(build(), images),
                     "gradient_norms_init": analysis.gradient_flow(build(), images, labels).weights}
            if name == "plain-20":
                bare = analysis.gradient_flow(build("none"), images, labels).weights
                found["gradient_norms_init_without_bn"] = bare
            trained = build()
            load_weights(trained, quick[0] / "runs" / demo.NETS[name] / "weights.safetensors")
            found["responses"] = analysis.responses(trained, images)
        assert {key: list(values.values()) for key, values in found.items()} == {key: nets[name][key] for key in found}


@whole
def test_without_a_terminal_it_says_what_it_does_and_how_long_it_takes(quick):
    out, done = quick
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Training plain-20, ResNet-20, plain-56, ResNet-56 on 1,000 images of Fashion-MNIST, 1 "
                               "epoch each, ")
    assert lines[0].endswith(f"Results go to {out.name}.")
    for name in demo.NETS.values():
        assert len([line for line in lines if line.startswith(f"{name}: epoch 1, step 10 of 10, loss ")]) == 1
    assert len([line for line in lines if re.fullmatch(r"Training will take (up|\d+) to \d+ (s|min)", line)]) == 1
    assert "plain-56" in done.stdout and lines[-1].endswith(str(out.relative_to(out.parent) / "report.html"))
    assert "\r" not in done.stdout


@pytest.mark.slow
def test_a_log_is_written_line_by_line_and_sigterm_keeps_what_is_done(tmp_path):
    """Run and stop the demo as a batch system does. Each line is read as soon as it is written, while the demo runs."""
    command = [sys.executable, "-m", "minires", "demo", "--quick", "--jobs", "1", "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        lines = [process.stdout.readline()]
        assert lines[0].endswith(f"Results go to {tmp_path / 'out'}.\n")
        assert not (tmp_path / "out" / "results.json").exists()
        while not lines[-1].startswith("resnet20: epoch 1"):
            lines.append(process.stdout.readline())
        assert process.poll() is None
        process.terminate()
        lines += process.stdout
    assert process.returncode == 143
    said = f"Stopped by SIGTERM; what is done is kept. To resume: minires demo --resume --out {tmp_path / 'out'}\n"
    assert said in lines
    nets = demo_report.load(tmp_path / "out" / "results.json")["nets"]
    assert nets["resnet-20"]["complete"] and not nets.get("plain-56", {"complete": False})["complete"]


@whole
def test_overwrites_nothing(quick, capsys):
    out, _ = quick
    before = (out / "results.json").read_bytes()
    assert cli.main(["demo", "--quick", "--out", str(out)]) == 2
    assert "results.json exists already; choose another --out" in capsys.readouterr().err
    assert (out / "results.json").read_bytes() == before


@pytest.mark.slow
def test_a_demo_that_is_done_can_be_resumed_and_is_the_same(quick, tmp_path, capsys):
    shutil.copytree(quick[0], tmp_path / "done")
    before = demo_report.load(quick[0] / "results.json")
    (tmp_path / "done" / "report.html").unlink()
    assert cli.main(["demo", "--resume", "--jobs", "1", "--out", str(tmp_path / "done")]) == 0
    assert capsys.readouterr().out.count("resuming from step 10 of 10") == 4
    after = demo_report.load(tmp_path / "done" / "results.json")
    assert after["nets"] == before["nets"] and after["settings"] == before["settings"]
    assert after["started"] == before["started"] and after["seconds"] > before["seconds"]
    assert (tmp_path / "done" / "report.html").exists()


@whole
def test_a_resumed_demo_of_other_settings_says_which(quick, capsys):
    before = (quick[0] / "results.json").read_bytes()
    assert cli.main(["demo", "--resume", "--jobs", "1", "--seed", "3", "--out", str(quick[0])]) == 2
    said = capsys.readouterr().err
    assert "data.train_images: 1000 there, 0 asked for" in said and "seed: 0 there, 3 asked for" in said
    assert (quick[0] / "results.json").read_bytes() == before


@whole
def test_results_that_somebody_spoilt_are_refused_before_anything_trains(quick, tmp_path, capsys):
    shutil.copytree(quick[0], tmp_path / "done")
    (tmp_path / "done" / "results.json").write_text("{}")
    assert cli.main(["demo", "--resume", "--jobs", "1", "--out", str(tmp_path / "done")]) == 2
    said = capsys.readouterr()
    assert f"{tmp_path / 'done' / 'results.json'}: there is no nets" in said.err and said.out == ""


@pytest.mark.parametrize("options, says", [
    (["--resume"], "--resume needs --out DIR"),
    (["--resume", "--out", "{empty}"], "found no demo to resume; leave out --resume to begin one\n"),
    (["--resume", "--out", "{gone}"], "to begin one in another folder: the runs of this demo are gone\n"),
])
def test_nothing_to_resume(options, says, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "results.json").write_text("{}")
    names = {name: tmp_path / name for name in ("empty", "gone")}
    assert cli.main(["demo", *(option.format(**names) for option in options)]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.slow
def test_a_demo_stopped_before_any_run_began_can_begin_again(tmp_path, two_small_nets, monkeypatch, capsys):
    out, begin = tmp_path / "out", ["demo", "--quick", "--jobs", "1", "--out", str(tmp_path / "out")]

    def stopped(jobs, tell):
        (out / "runs" / "plain8").mkdir(parents=True)
        (out / "runs" / "plain8" / ".lock").touch()  # a process that is killed at its start leaves this file
        return {}, "SIGTERM"

    with monkeypatch.context() as patched:
        patched.setattr(workers, "in_turn", stopped)
        assert cli.main(begin) == 143
    assert "Stopped by SIGTERM before any run began" in capsys.readouterr().out
    assert not (out / "results.json").exists()
    assert cli.main([*begin, "--resume"]) == 0 and (out / "results.json").exists()
    shutil.rmtree(out)
    stopped({}, None)
    assert cli.main(begin) == 0 and (out / "results.json").exists()
    assert cli.main(begin) == 2  # now there is a demo


def stopped_in_a_terminal(out, jobs, finished, interrupted, waiting):
    """Run the demo in a pseudo-terminal. A bar is drawn, and Ctrl-C during a later network keeps earlier results."""
    pty = pytest.importorskip("pty", reason="needs a Unix pseudo-terminal")
    import fcntl
    import struct
    import termios
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # a bar needs a width
    process = subprocess.Popen([sys.executable, "-m", "minires.cli", "demo", "--quick", "--jobs", jobs, "--out",
                                str(out)],
                               stdout=child, stderr=child, stdin=child, start_new_session=True)
    os.close(child)
    seen = b""
    deadline = time.time() + 300
    sent = False
    bar = re.compile(interrupted.encode() + rb" *: +[1-9][0-9]?%")  # at least one step is done
    while time.time() < deadline:
        try:
            seen += os.read(parent, 4096)
        except OSError:  # the other end is closed
            break
        if not sent and bar.search(seen):
            process.send_signal(signal.SIGINT)
            sent = True
    os.close(parent)
    assert process.wait(60) == 130
    text = seen.decode()
    assert "loss " in text and finished in text and "images/s" in text
    assert "Stopped by Ctrl-C; what is done is kept. To resume: minires demo --resume --out" in text
    assert "Incomplete" in text
    results = demo_report.load(out / "results.json")
    keys = {printed(name): name for name in LAYERS}
    assert results["nets"][keys[finished]]["complete"] is True
    assert results["nets"].get(keys[interrupted], {"complete": False})["complete"] is False
    assert waiting is None or keys[waiting] not in results["nets"]
    assert (out / "report.html").exists()
    step = checkpoint.newest(out / "runs" / demo.NETS[keys[interrupted]])[0][1]["at"]["step"]
    assert 0 < step < 10  # stopped at a checkpoint, not killed
    return results


def test_a_bar_in_a_terminal_and_ctrl_c_keeps_what_is_done(tmp_path):
    stopped_in_a_terminal(tmp_path, "1", "plain-20", "ResNet-20", "plain-56")


@pytest.mark.slow
@pytest.mark.parametrize("jobs, finished, interrupted, waiting", [
    ("1", "plain-20", "ResNet-20", "plain-56"),
    ("2", "ResNet-56", "ResNet-20", None),  # the deepest first
])
def test_after_ctrl_c_a_resumed_demo_ends_with_the_same_numbers(quick, jobs, finished, interrupted, waiting, tmp_path):
    """The resumed demo ends with the numbers of a demo without a stop."""
    results = stopped_in_a_terminal(tmp_path, jobs, finished, interrupted, waiting)
    assert cli.main(["demo", "--resume", "--jobs", jobs, "--out", str(tmp_path)]) == 0
    whole, resumed = (demo_report.load(out / "results.json") for out in (quick[0], tmp_path))
    assert without_seconds(resumed["nets"]) == without_seconds(whole["nets"])
    assert resumed["settings"] == whole["settings"] and resumed["seconds"] > results["seconds"]


def test_a_resumed_demo_names_the_command_that_began_it(two_small_nets, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "QUICK", dataclasses.replace(demo.QUICK, train_images=200, test_images=100))
    out = tmp_path / "out"
    assert cli.main(["demo", "--quick", "--seed", "3", "--device", "cpu", "--jobs", "1", "--out", str(out)]) == 0
    whole = demo_report.load(out / "results.json")
    assert whole["settings"]["command"] == "minires demo --quick --seed 3 --device cpu"
    shutil.rmtree(out / "runs" / "plain8")  # as if the demo had been stopped before this network began
    assert cli.main(["demo", "--resume", "--jobs", "1", "--out", str(out)]) == 0
    resumed = demo_report.load(out / "results.json")
    assert resumed["settings"] == whole["settings"]
    assert without_seconds(resumed["nets"]) == without_seconds(whole["nets"])


def without_seconds(nets):
    return {name: net | {"seconds": 0} for name, net in nets.items()}


@pytest.fixture
def two_small_nets(monkeypatch):
    """Replace the four networks by two small ones, so that a test is fast."""
    monkeypatch.setitem(models.BY_NAME, "plain8", partial(models.cifar, 8, False))
    monkeypatch.setitem(models.BY_NAME, "resnet8", partial(models.cifar, 8, True))
    monkeypatch.setattr(demo, "NETS", {"plain-20": "plain8", "resnet-20": "resnet8"})


@pytest.mark.slow
def test_same_seed_same_numbers(tmp_path, two_small_nets, monkeypatch):
    monkeypatch.setattr(demo, "QUICK", dataclasses.replace(demo.QUICK, train_images=200, test_images=100))
    found = [demo.run(tmp_path / str(i), demo.choose(seed=seed, quick=True), say=str)[0]["nets"]
             for i, seed in enumerate((3, 3, 4))]
    first, same, other = map(without_seconds, found)
    assert first == same != other


@pytest.mark.slow
def test_a_demo_killed_between_epochs_shows_the_last_one_that_is_done(tmp_path, two_small_nets, monkeypatch):
    """A network that is stopped in its second epoch shows its responses after the first epoch."""
    nets = demo.choose(seed=3, quick=True)
    nets = {name: dataclasses.replace(config, recipe=dataclasses.replace(config.recipe, epochs=2))
            for name, config in nets.items()}
    step, after_one = train.step, demo.run(tmp_path / "one", demo.choose(seed=3, quick=True), say=str)[0]["nets"]

    def interrupted(model, optimizer, images, labels, count=1):
        if count == 15:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(model, optimizer, images, labels, count)

    monkeypatch.setattr(train, "step", interrupted)
    results, stopped = demo.run(tmp_path / "two", nets, say=str)
    assert stopped == "SIGTERM" and list(results["nets"]) == ["plain-20"]
    assert not results["nets"]["plain-20"]["complete"]
    assert without_seconds(results["nets"]) == without_seconds({"plain-20": after_one["plain-20"] | {
        "complete": False}})


@pytest.mark.slow
def test_the_numbers_do_not_depend_on_how_many_networks_train_at_a_time(quick, tmp_path):
    """The command trains one network per core at a time; this test trains one after the other in this process."""
    alone, _ = demo.run(tmp_path / "alone", demo.choose(quick=True), jobs=1, say=str)
    together = demo_report.load(quick[0] / "results.json")
    assert json.loads(json.dumps(without_seconds(alone["nets"]))) == without_seconds(together["nets"])
    assert list(alone["nets"]) == list(together["nets"]) == list(LAYERS)


def test_a_loss_that_is_not_finite_ends_in_one_clear_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(recipes, "Recipe", partial(recipes.Recipe, lr=1e30))
    for jobs in "1", "2":
        assert cli.main(["demo", "--quick", "--jobs", jobs, "--out", str(tmp_path / jobs)]) == 2
        error = capsys.readouterr().err
        assert "minires demo: error: step " in error
        assert "expected a finite number; the first non-finite values are in the output of layer" in error


def test_a_process_that_is_killed_again_and_again_ends_the_demo_with_its_name(tmp_path, monkeypatch):
    (tmp_path / "python").write_text("#!/bin/sh\nkill -9 $$\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(RuntimeError, match=r"(plain|ResNet)-56: its process was killed 3 times"):
        demo.run(tmp_path / "out", demo.choose(quick=True), jobs=2, say=str)


@pytest.mark.slow
def test_an_error_in_a_process_of_its_own_arrives_as_it_is(tmp_path):
    with pytest.raises(train.NotFinite, match=r"step \d+: .*the first non-finite values are in the output of layer"):
        demo.run(tmp_path / "out", demo.choose(recipes.Recipe(lr=1e30), quick=True), jobs=2, say=str)


# ------------------------------------------------------------------------------------------ the estimated time


def estimated(jobs, paces, total=1000, batch=10, start=4.0):
    """Return the printed estimate, and each network's number of steps by then, at paces[name] seconds per image."""
    now, steps = [0.0], dict.fromkeys(paces, 0)
    estimate = demo.Estimate({"a": 100, "b": 100, "c": 300}, jobs, errors=0.5, clock=lambda: now[0])
    moments = sorted((start + step * batch * pace, name, step)
                     for name, pace in paces.items() for step in range(total // batch + 1))
    for now[0], name, steps[name] in moments:
        if said := estimate.after(name, progress.Passed(steps[name] * batch, total, "")):
            return said, steps
    return "", steps


def test_the_estimate_counts_steps_errors_starts_and_the_networks_that_wait():
    """1000 images take 0.1 s each, and the errors half as long: 150 s for a and b, and 450 s for c, which is 3 times as
    large.

    A network that has not started takes 4 s to start, and every network takes 0 to 4 s after its training.
    """
    said, steps = estimated(1, {"a": 0.1})
    low = 1.5 * (0.1 * 920 + 0.1 * 1000 + 0.3 * 1000) + 2 * 4
    assert steps == {"a": demo.Estimate.STEPS}
    assert said == f"Training will take {demo.between(low, low + 3 * 4)}" == "Training will take 12 to 13 min"
    said, steps = estimated(2, {"a": 0.1, "c": 0.3})  # a and then b, at the same time as c
    assert steps == {"a": 24, "c": demo.Estimate.STEPS}
    low = max(1.5 * (0.1 * 760 + 0.1 * 1000) + 4, 1.5 * 0.3 * 920)
    assert said == f"Training will take {demo.between(low, low + 4)}" == "Training will take 6 to 7 min"


def test_an_estimate_waits_for_every_network_that_trains_and_is_told_once():
    assert estimated(2, {"a": 0.1}) == ("", {"a": 100})
    now = iter(range(1000))
    estimate = demo.Estimate({"a": 1}, 1, 0.0, clock=lambda: next(now))
    said = [estimate.after("a", progress.Passed(i, 60, "")) for i in range(50)]
    assert [i for i, text in enumerate(said) if text] == [demo.Estimate.STEPS]


def test_a_network_that_is_done_is_not_waited_for():
    now = iter(range(1000))
    estimate = demo.Estimate({"a": 1, "b": 1}, 2, 0.0, clock=lambda: next(now))
    assert estimate.after("a", progress.Passed(60, 60, "")) == ""
    said = [estimate.after("b", progress.Passed(i, 60, "")) for i in range(20)]
    assert sum(map(bool, said)) == 1


@pytest.mark.parametrize("low, high, text", [(2, 4, "up to 5 s"), (31, 44, "30 to 45 s"), (61, 130, "1 to 3 min"),
                                             (20, 130, "up to 3 min"), (4000, 9000, "1 to 3 h")])
def test_a_span_of_time_in_words(low, high, text):
    assert demo.between(low, high) == text


# --------------------------------------------------------------------------------------------- the other commands


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
    (["demo", "--epochs", "0"], "expected a whole number >= 1"),
    (["demo", "--seed", "-1"], "expected a whole number >= 0"),
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
    assert 'device "gpu" was requested. No GPU is used: ' in capsys.readouterr().err


@pytest.mark.slow
def test_depth_hurts_the_plain_network_and_not_the_residual_one(tmp_path):
    """Test the main claim with the default settings. This is the longest test; it takes some minutes."""
    results, stopped = demo.run(tmp_path / "out", demo.choose(), jobs=min(kernels.parallel.threads(), 4))
    final = {name: net["train_error"][-1] for name, net in results["nets"].items()}
    assert not stopped
    assert final["plain-56"] >= final["plain-20"] + 15
    assert final["resnet-56"] <= final["plain-56"] - 25


def test_a_network_that_begins_again_does_not_stop_the_estimate():
    """Its process was killed before a step, or after its last checkpoint."""
    now = iter(range(1000))
    estimate = demo.Estimate({"a": 1}, 1, 0.0, clock=lambda: next(now))
    said = [estimate.after("a", progress.Passed(i, 60, "")) for i in (0, 0, 1, 2, 1, *range(2, 20))]
    assert sum(map(bool, said)) == 1 and all(pace > 0 for pace in estimate.paces["a"])
