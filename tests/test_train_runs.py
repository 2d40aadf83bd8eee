"""Test `minires train`: a run in a folder, which is stopped in every possible way and resumed to the same bits."""

import dataclasses
import json
import os
import random
import shutil
import signal

import numpy as np
import pytest
from helpers import SMALL_RUN
from kill_and_resume import kill_and_resume

from minires import cli, device, models, nn, runs, train
from minires.runs import checkpoint, config

pytest.importorskip("safetensors", reason="checkpoints are safetensors files, and the package is not installed")

pytestmark = pytest.mark.usefixtures("blank_pictures")

FILES = ["checkpoint-000000008.safetensors", "checkpoint-000000012.safetensors", "config.json", "curves.png",
         "metrics.jsonl", "weights.safetensors"]


def names(folder):
    return sorted(p.name for p in folder.iterdir() if p.name != ".lock")


def run(out, *options, command=SMALL_RUN):
    return cli.main([*command, "--out", str(out), *options])


def metrics(out):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def assert_same_bits(out, whole):
    assert metrics(out) == metrics(whole)
    assert (out / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    (a, _), (b, _) = checkpoint.newest(out)[0], checkpoint.newest(whole)[0]
    assert a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture
def whole(finished_run):
    """Return the folder of a run without interruption."""
    return finished_run


# ------------------------------------------------------------------------------------------- files of a run


def test_evaluate_gives_a_run_the_error_that_it_recorded(tmp_path, capsys, monkeypatch):
    """The images are those of the run: held-out training images, averaged, minus the mean of the images trained on."""
    out = tmp_path / "run"
    assert cli.main([*SMALL_RUN, "--set", "validation=70", "test_images=0", "epochs=1", "--out", str(out)]) == 0
    capsys.readouterr()
    assert cli.main(["evaluate", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["total"] == 70 and found["model"] == "resnet20" and found["input"] == (
        "pixels / 255, averaged to 7x7 - the training set's mean image")
    assert found["error"] == metrics(out)[-1]["validation_error"]

    there = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**there, "device": "gpu"}))  # trained on another machine
    # private: simulates a machine without a GPU
    monkeypatch.setattr(device, "_probe", lambda: (None, "No GPU is used: there is none."))
    assert cli.main(["evaluate", str(out)]) == 2
    assert 'device "gpu" was requested. No GPU is used: there is none. Use "cpu"' in capsys.readouterr().err
    assert cli.main(["evaluate", str(out), "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["correct"] == found["correct"]

    (out / "config.json").write_text(json.dumps({**there, "data_sha256": "0" * 64}))
    assert cli.main(["evaluate", str(out)]) == 2
    assert "got other pixels or labels" in capsys.readouterr().err
    (out / "weights.safetensors").unlink()
    assert cli.main(["evaluate", str(out)]) == 2
    assert "the run is not finished" in capsys.readouterr().err


def test_a_run_leaves_all_it_should(whole):
    assert names(whole) == FILES
    said = json.loads((whole / "config.json").read_text())
    assert said["model"] == "resnet20" and said["model_options"] == {"width": 2} and said["steps"] == 12
    assert said["recipe"] == "short-cifar" and said["settings"]["drops"] == [0.5, 0.75]
    assert said["settings"]["batch_size"] == 16 and said["settings"]["lr"] == 0.1
    assert said["data"] == {"train_images": 50, "test_images": 20, "image_size": 7, "validation": 0}
    assert said["command"].startswith("minires train ResNet-20 --dataset") and len(said["data_sha256"]) == 64
    assert {"seed", "device", "threads", "versions", "commit", "parameters", "started"} <= set(said)
    assert (whole / "curves.png").read_bytes().startswith(b"\x89PNG")
    seconds = [json.loads(line)["seconds"] for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert len(seconds) == 3 and seconds == sorted(seconds) and seconds[0] > 0


def test_a_run_is_fit_on_the_prepared_images(whole):
    """Train the same network by hand, without a folder."""
    from safetensors.numpy import load_file

    chosen = runs.read_config(whole)
    learn, test, classes, *_ = chosen.inputs()
    model = chosen.build(1, len(classes))
    events = list(train.fit(model, learn, test, chosen.recipe, rng=0))
    epochs = [e for e in events if isinstance(e, train.Epoch)]
    assert [(m["train_loss"], m["train_error"], m["test_error"]) for m in metrics(whole)] == [e[1:] for e in epochs]
    assert [m["step"] for m in metrics(whole)] == [4, 8, 12]
    weights = load_file(whole / "weights.safetensors")
    assert weights.keys() == model.state().keys()
    assert all(np.array_equal(weights[name], t.data) for name, t in model.state().items())
    rates = [m["lr"] for m in metrics(whole)]  # the warm-up lasts until the schedule's rate is lower
    assert rates == pytest.approx([events[i].lr for i in (3, 8, 13)]) == [0.01, 0.01, 0.001]


def test_a_finished_run_can_be_resumed_and_finishes_again(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "a")
    (tmp_path / "a" / "weights.safetensors").unlink()  # as after a kill between the last checkpoint and the weights
    assert run(tmp_path / "a", "--resume") == 0
    assert_same_bits(tmp_path / "a", whole)


def test_graphed_runs_have_the_same_bits_and_are_told_apart(whole, tmp_path, capsys):
    assert run(tmp_path / "g", "--graph") == 0
    assert_same_bits(tmp_path / "g", whole)
    assert json.loads((tmp_path / "g" / "config.json").read_text())["graph"] is True
    assert run(tmp_path / "g", "--resume") == 2
    assert "graph: True there, False asked for" in capsys.readouterr().err


def test_validation_images_are_held_out(tmp_path, capsys):
    out = tmp_path / "v"
    assert run(out, "--set", "validation=9950", "test_images=0", "epochs=1") == 0
    line = metrics(out)[0]
    assert "test_error" not in line and 0 <= line["validation_error"] <= 100
    assert "validation error" in capsys.readouterr().out
    chosen = runs.read_config(out)
    held = dataclasses.replace(chosen, data=dataclasses.replace(chosen.data, train_images=0))
    learn, held_out, *_ = held.inputs()
    everything, *_ = dataclasses.replace(chosen, data=config.Data()).inputs()
    assert len(learn[1]) == 50 and list(learn[1]) + list(held_out[1]) == list(everything[1])


def test_the_masks_of_dropout_go_on_too(tmp_path, monkeypatch):
    def dropping(in_channels=1, num_classes=10, rng=None):
        return nn.Sequential(nn.Flatten(), nn.Linear(49, 20, rng=rng), nn.Dropout(0.5, rng=rng),
                             nn.Linear(20, num_classes, rng=rng))

    monkeypatch.setitem(models.BY_NAME, "dropping", dropping)
    command = ["train", "dropping", *[a for a in SMALL_RUN[2:] if not a.startswith("model.")]]
    assert run(tmp_path / "whole", command=command) == 0
    clock = Clock(monkeypatch)
    while not (tmp_path / "limited" / "weights.safetensors").exists():
        assert run(tmp_path / "limited", "--resume", "--time-limit", "7", command=command) == 0
    assert clock.now > 18
    assert_same_bits(tmp_path / "limited", tmp_path / "whole")


# ---------------------------------------------------------------------------------------------- stopped and resumed


@pytest.mark.slow  # a sweep whose process is killed is in test_sweep.py
@pytest.mark.system
@pytest.mark.parametrize("kills", [1, 5])
def test_sigkills_at_random_moments(kills, tmp_path):
    """The script kill_and_resume.py does this with any number of kills."""
    seed = int.from_bytes(os.urandom(3))
    print(f"seed of the moments: {seed}")
    whole, others, died_at = kill_and_resume(tmp_path, kills, random.Random(seed))
    assert len(died_at) == kills and others and all(other == whole for other in others)
    assert whole["at"]["step"] == 84 and len(whole["metrics"]) == 4


class Clock:
    """Replaces the clock. Its time passes only during steps, measurements of errors, and writes of checkpoints."""

    def __init__(self, monkeypatch):
        self.now, self.patch = 0.0, monkeypatch.setattr
        self.patch(runs.run, "time", self)
        for module, name, seconds in (train, "step", 1.0), (train, "tally", 1.0), (checkpoint, "save", 0.4):
            self.patch(module, name, self.slow(getattr(module, name), seconds))

    def slow(self, function, seconds):
        def slowly(*arguments):
            self.now += seconds
            return function(*arguments)
        return slowly

    def monotonic(self):
        return self.now


def test_time_limits_add_up_to_the_same_run(whole, tmp_path, monkeypatch, capsys):
    """12 steps and 3 errors of 2 sets take 1 s each: 18 s, and the time for checkpoints, in calls of at most 7 s."""
    out, clock, ends, said = tmp_path / "limited", Clock(monkeypatch), [], ""
    while "Done" not in said:
        start = clock.now
        assert run(out, "--resume", "--time-limit", "7") == 0
        ends.append(clock.now - start)
        said = capsys.readouterr().out
        if "Done" not in said:
            assert "Stopped by the time limit at step" in said and f"minires train --resume --out {out}" in said
        assert len(ends) < 12
    assert len(ends) > 3 and max(ends) <= 7
    assert_same_bits(out, whole)
    seconds = [json.loads(line)["seconds"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert seconds[-1] == pytest.approx(sum(ends) - 0.4 * len(ends))  # of all calls, without the last write of each


def test_a_time_limit_that_leaves_no_time_says_so(tmp_path, capsys):
    assert run(tmp_path / "a", "--time-limit", "0.01") == 2
    assert "--time-limit 0.01 is too short to make progress" in capsys.readouterr().err


@pytest.mark.parametrize("number, status, name", [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")])
def test_a_signal_stops_at_a_checkpoint(whole, tmp_path, monkeypatch, capsys, number, status, name):
    out, step = tmp_path / "stopped", train.step

    def interrupted(model, optimizer, images, labels, count=1):
        if count == 6:
            os.kill(os.getpid(), number)
        return step(model, optimizer, images, labels, count)

    monkeypatch.setattr(train, "step", interrupted)
    assert run(out) == status
    assert f"Stopped by {name} at step 6 of 12" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    monkeypatch.setattr(train, "step", step)
    assert cli.main(["train", "--resume", "--out", str(out)]) == 0
    assert "resuming from step 6 of 12" in capsys.readouterr().out
    assert_same_bits(out, whole)


def test_a_second_ctrl_c_stops_at_once_and_keeps_the_last_checkpoint(whole, tmp_path, monkeypatch):
    out, step = tmp_path / "stopped", train.step

    def interrupted(model, optimizer, images, labels, count=1):
        loss = step(model, optimizer, images, labels, count)
        if count == 7:  # the weights have changed but the progress has not: this state must not be saved
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    monkeypatch.setattr(train, "step", interrupted)
    assert run(out) == 130
    monkeypatch.setattr(train, "step", step)
    assert run(out, "--resume") == 0
    assert_same_bits(out, whole)


def test_checkpoints_come_every_n_steps(tmp_path, monkeypatch):
    saved, save = [], checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *args: saved.append(args[1]) or save(*args))
    assert run(tmp_path / "a", "--checkpoint-steps", "3", "--set", "epochs=2") == 0
    assert saved == [3, 4, 6, 8]  # 4 and 8: after the epochs of 4 steps each
    saved.clear()
    assert run(tmp_path / "b", "--checkpoint-seconds", "0.000001", "--set", "epochs=1") == 0
    assert saved == [1, 2, 3, 4, 4]


def test_a_full_disk_stops_the_run_which_goes_on_later(whole, tmp_path, monkeypatch, capsys):
    out, fsync, room = tmp_path / "full", os.fsync, [4]  # config, checkpoint 1, metrics, checkpoint 2

    def full(number):
        room[0] -= 1
        if room[0] < 0:
            raise OSError(28, "No space left on device")
        return fsync(number)

    monkeypatch.setattr(os, "fsync", full)
    assert run(out, "--checkpoint-steps", "1") == 2
    said = capsys.readouterr().err
    assert "the checkpoint of step 2 could not be written" in said and "No space left" in said
    assert f"The checkpoint of step 1 is kept in {out}" in said or f"The checkpoint of step 2 is kept in {out}" in said
    monkeypatch.setattr(os, "fsync", fsync)
    assert not list(out.glob(".*.tmp"))
    assert run(out, "--resume") == 0
    assert_same_bits(out, whole)


def test_a_truncated_newest_checkpoint_is_passed_over(whole, tmp_path, capsys):
    out = tmp_path / "cut"
    shutil.copytree(whole, out)
    newest = out / "checkpoint-000000012.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    assert run(out, "--resume") == 0
    said = capsys.readouterr().out
    assert "skipped a damaged checkpoint" in said and newest.name in said and "resuming from step 8 of 12" in said
    assert_same_bits(out, whole)


def test_where_no_checkpoint_can_be_read_nothing_begins(whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / "a")
    for path in (tmp_path / "a").glob("checkpoint*"):
        path.write_bytes(b"")
    assert run(tmp_path / "a", "--resume") == 2
    assert "no checkpoint can be read" in capsys.readouterr().err


def test_a_folder_killed_before_its_first_checkpoint_begins_again(whole, tmp_path, capsys):
    out = tmp_path / "early"
    out.mkdir()
    shutil.copy(whole / "config.json", out)
    (out / ".config.json.01234567.tmp").write_text("half")
    assert run(out, "--resume") == 0
    assert "found no checkpoint: beginning at step 0" in capsys.readouterr().out
    assert names(out) == FILES
    assert_same_bits(out, whole)


def test_other_versions_are_said(whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / "a")
    said = json.loads((whole / "config.json").read_text())
    said["versions"]["numpy"] = "1.0"
    (tmp_path / "a" / "config.json").write_text(json.dumps(said))
    assert run(tmp_path / "a", "--resume") == 0
    assert "the bits may differ: versions.numpy: 1.0 there, 2." in capsys.readouterr().out


# -------------------------------------------------------------------------------------------------- not finite


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(tmp_path, capsys):
    out = tmp_path / "nan"
    assert run(out, "--checkpoint-steps", "1", "--set", "lr=1e30", "warm_up_lr=0", "drops=") == 2
    said = capsys.readouterr().err
    assert "step 2: the loss is" in said or "step 3: the loss is" in said
    assert "first non-finite values are in the output of layer '" in said and "The checkpoint of step" in said
    (arrays, header), damaged = checkpoint.newest(out)
    assert all(np.isfinite(a).all() for a in arrays.values()) and not damaged
    assert f"The checkpoint of step {header['at']['step']} is kept in {out}" in said
    assert "weights.safetensors" not in names(out)


def test_weights_that_are_not_finite_are_not_saved(tmp_path, capsys):
    out = tmp_path / "inf"
    assert run(out, "--checkpoint-steps", "1", "--set", "lr=1e39", "warm_up_lr=0", "drops=") == 2
    said = capsys.readouterr().err
    assert "step 1: conv1.weight is not finite after this step. No checkpoint had been written yet" in said
    assert names(out) == ["config.json"]


# ---------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("arguments, says", [
    (["train"], "MODEL is missing"),
    (["train", "resnet20"], "--dataset is missing"),
    (["train", "resnet21", "--dataset", "fashion_mnist_small"], "'resnet21'; did you mean"),
    (["train", "resnet20", "--dataset", "fashion_mnst_small"], "did you mean fashion_mnist_small"),
    ([*SMALL_RUN, "--recipe", "papr-cifar"], "recipe: unknown name 'papr-cifar'; did you mean paper-cifar"),
    ([*SMALL_RUN, "learning_rate=1"], "setting: unknown name 'learning_rate'"),
    ([*SMALL_RUN, "epoch=1"], "did you mean epochs"), ([*SMALL_RUN, "total_steps=1"], "unknown name 'total_steps'"),
    ([*SMALL_RUN, "model.widht=1"], "did you mean model.width"),
    ([*SMALL_RUN, "model.rng=1"], "setting: unknown name 'model.rng'"),
    ([*SMALL_RUN, "lr"], "expected key=value, got 'lr'"),
    ([*SMALL_RUN, "lr=fast"], "setting lr: expected a number, got 'fast'"),
    ([*SMALL_RUN, "epochs=0"], "recipe: expected epochs >= 1, got 0"),
    ([*SMALL_RUN, "train_images=-1"], "data: expected numbers >= 0, got train_images -1"),
    ([*SMALL_RUN, "model.by_hand=2"], "setting model.by_hand: expected true or false, got '2'"),
    (["train", "--resume", "--out", "OUT"], "found no run to resume"),
    (["train", "--resume"], "MODEL is missing"),
    (["train", "--resume", "--out", "OUT", "--seed", "1"], "leave out --seed, or give MODEL too"),
])
def test_bad_input_is_refused_before_anything_is_written(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main([a.replace("OUT", str(tmp_path / "out")) for a in arguments]) == 2
    assert says in capsys.readouterr().err
    assert names(tmp_path) == []


@pytest.mark.parametrize("setting, says", [("train_images=10001", "train_images: expected at most 10000, got 10001"),
                                           ("validation=10000", "validation: expected fewer than the 10000"),
                                           ("image_size=9", "divide the images' 28x28, got 9x9"),
                                           ("model.shortcut=D", 'expected "A", "B" or "C"')])
def test_what_only_the_data_or_the_model_can_tell(setting, says, tmp_path, capsys):
    assert run(tmp_path / "a", "--set", "test_images=0", setting) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "a").exists()


def test_test_images_beside_validation_would_be_ignored_and_is_refused(tmp_path, capsys):
    assert run(tmp_path / "a", "--set", "validation=100") == 2
    assert "test_images=20 has no effect with validation=100" in capsys.readouterr().err


def test_epochs_replace_a_recipes_steps():
    given = config.configure("resnet20", "fashion_mnist_small", "paper-cifar", where="cpu", settings=["epochs=2"])
    assert given.recipe.steps == 0 and given.recipe.epochs == 2
    with pytest.raises(ValueError, match="epochs and steps both set how long the training is; give only one"):
        config.configure("resnet20", "fashion_mnist_small", where="cpu", settings=["epochs=2", "steps=5"])


def test_a_folder_that_is_not_empty(whole, tmp_path, capsys):
    before = {p.name: p.stat().st_mtime_ns for p in whole.iterdir()}
    assert run(whole) == 2
    assert f"{whole} is not empty: give --resume to resume" in capsys.readouterr().err
    (tmp_path / "thesis.txt").write_text("years of work")
    assert run(tmp_path, "--resume") == 2
    assert "is not the folder of a run: there is no config.json" in capsys.readouterr().err
    assert run(tmp_path / "thesis.txt") == 2
    assert names(tmp_path) == ["thesis.txt"] and before == {p.name: p.stat().st_mtime_ns for p in whole.iterdir()}


def test_a_run_of_other_settings_says_which(whole, capsys):
    before = {p.name: p.stat().st_mtime_ns for p in whole.iterdir()}
    assert run(whole, "--resume", "--seed", "1", "--set", "lr=0.2", "model.shortcut=B", "image_size=14") == 2
    said = capsys.readouterr().err
    assert "holds a run with other settings" in said
    for difference in ("seed: 0 there, 1 asked for", "settings.lr: 0.1 there, 0.2 asked for",
                       "model_options.shortcut: None there, B asked for", "data.image_size: 7 there, 14 asked for"):
        assert difference in said
    assert before == {p.name: p.stat().st_mtime_ns for p in whole.iterdir()}


def test_a_checkpoint_of_another_run_or_model(whole, tmp_path, capsys):
    out = tmp_path / "b"
    other = [*SMALL_RUN[:1], "plain20", *SMALL_RUN[2:]]
    assert run(out, "--set", "epochs=1", command=other) == 0
    shutil.copy(whole / "checkpoint-000000012.safetensors", out)
    assert run(out, "--resume", "--set", "epochs=1", command=other) == 2
    said = capsys.readouterr().err
    assert "the checkpoint belongs to another run: model: resnet20 there, plain20 asked for" in said


def test_other_images_are_noticed(whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / "a")
    said = json.loads((whole / "config.json").read_text()) | {"data_sha256": "0" * 64}
    (tmp_path / "a" / "config.json").write_text(json.dumps(said))
    assert run(tmp_path / "a", "--resume") == 2
    said = capsys.readouterr().err
    assert "the fashion_mnist_small that the run was trained on, with data_sha256 000000000000..., got other" in said


@pytest.mark.parametrize("text, says", [("{", "cannot be read"), ("[]", "expected a run's settings"),
                                        ('{"model": "resnet20"}', "missing: model_options")])
def test_a_config_that_is_none(text, says, tmp_path, capsys):
    (tmp_path / "config.json").write_text(text)
    assert run(tmp_path, "--resume") == 2
    assert says in capsys.readouterr().err


def test_a_folder_in_use(whole, tmp_path, capsys):
    pytest.importorskip("fcntl", reason="this system has no such locks")
    shutil.copytree(whole, tmp_path / "a")
    from minires.files.atomic import locked

    with locked(tmp_path / "a" / ".lock"):
        assert run(tmp_path / "a", "--resume") == 2
    assert "is held by another process" in capsys.readouterr().err
