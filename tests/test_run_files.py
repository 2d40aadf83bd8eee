"""Test the files of runs: files of this version and of older versions are read; and whatever an editor does to a value,
the error names the file.
"""

import functools
import json
import re
import shutil
from pathlib import Path

import pytest
from mutations import DEEP, refusals
from short import every

from minires import cli, datasets, plot, recipes, runs
from minires.files import records
from minires.runs import checkpoint, config, metrics, report, run, sweep
from minires.runs.config import FORMAT, Data, RunConfig, configure

pytest.importorskip("safetensors", reason="checkpoints are safetensors files, and the package is not installed")

HERE = Path(__file__).resolve().parent
OLD = HERE / "old_run"  # begun by a version whose config.json had no format number, and stopped in its second epoch
SETTINGS = ["train_images=50", "test_images=20", "image_size=7", "model.width=1", "batch_size=16", "epochs=2"]
BESIDE = "finished", "curves"  # what `minires report` adds to a run's config
every_step = pytest.mark.parametrize("step", every(2, [5, 1]))  # a plain run takes every fifth of the wrong values


@pytest.fixture
def chosen():
    return configure("plain20", "fashion_mnist_small", "short-cifar", 3, "cpu", SETTINGS)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "finished"
    there = configure("plain20", "fashion_mnist_small", "short-cifar", 3, "cpu", SETTINGS)
    assert runs.train(there, out, say=str).finished
    return out


# ------------------------------------------------------------------------------------------- writing and reading


def test_what_is_written_is_read(chosen, finished):
    there = runs.read_config(finished)
    assert there.chosen() == chosen.chosen() and there.differences(chosen) == []
    assert there.recipe == chosen.recipe == recipes.override(recipes.named("short-cifar"), {
        "batch_size": "16", "epochs": "2"})
    assert there.data == Data(train_images=50, test_images=20, image_size=7)
    assert there.recorded.steps == 8 and there.recorded.parameters == 1189 and len(there.recorded.data_sha256) == 64
    assert json.loads((finished / "config.json").read_text()) == there.to_json()
    assert RunConfig.from_json(json.dumps(there.to_json()), "x") == there
    assert RunConfig.from_json(chosen.to_json(), "x") == chosen
    assert there.to_json()["format"] == 1 < FORMAT and not set(chosen.to_json()) & set(vars(there.recorded))


def test_what_was_recorded_is_no_difference(chosen, finished):
    raw = json.loads((finished / "config.json").read_text()) | {"threads": 99, "command": "another", "versions": {}}
    assert RunConfig.from_json(raw, "x").differences(chosen) == []
    raw["settings"]["lr"], raw["model_options"]["shortcut"] = 0.2, "B"
    assert RunConfig.from_json(raw, "x").differences(chosen) == ["model_options.shortcut: B there, None asked for",
                                                                 "settings.lr: 0.2 there, 0.1 asked for"]


def test_a_run_that_an_older_version_began_is_resumed(tmp_path, capsys):
    """The older version finished the run with these numbers, on a machine on which this version gives the same bits."""
    shutil.copytree(OLD, tmp_path / "run")
    assert "format" not in json.loads((OLD / "config.json").read_text())
    assert cli.main(["train", "--resume", "--out", str(tmp_path / "run")]) == 0
    assert "resuming from step 6 of 12" in capsys.readouterr().out
    lines = runs.read_metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == [4, 8, 12] and lines[:1] == runs.read_metrics(OLD)
    losses = [2.3918598294258118, 2.3883307576179504, 2.314312994480133]
    assert [line["train_loss"] for line in lines] == pytest.approx(losses, rel=1e-3)
    assert (tmp_path / "run" / "config.json").read_bytes() == (OLD / "config.json").read_bytes()  # never changed
    assert report.find([tmp_path / "run"])[0].finished
    assert runs.read(tmp_path / "run").config.model == "plain20"


@pytest.mark.parametrize("path", sorted((HERE.parent / "data" / "results").glob("*/results.json")),
                         ids=lambda path: path.parent.name)
def test_the_runs_in_data_results_are_read(path):
    record = records.read(path)
    if "command" in record:
        pytest.skip(f"{record['command'].partition(' --')[0]} wrote it, not `minires report`")
    for raw in record.get("runs", []):
        found = RunConfig.from_json(raw, path, beside=BESIDE)
        assert found.chosen() == {key: raw[key] for key in found.chosen()}
        assert found.recorded.parameters == raw["parameters"] and found.recorded.steps == raw["steps"]


def test_a_file_of_a_later_format_is_refused(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    for form, says in ((FORMAT + 1, f"format: expected at most {FORMAT}, got {FORMAT + 1}: a later version of minires"),
                       (0, "format: expected a whole number >= 1, got 0"), ("1", "format: expected a whole number")):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"format": form}))
        with pytest.raises(ValueError, match=f"config.json: {says}"):
            runs.read_config(tmp_path / "run")


# ---------------------------------------------------------------------------------------- whatever an editor does

@pytest.fixture
def quickly(monkeypatch):
    """Skip what takes time and is not tested here: drawing curves, calling git, reading the data set again."""
    monkeypatch.setattr(plot, "training_curves", lambda *arguments: None)
    monkeypatch.setattr(plot, "png", lambda figure: b"")
    monkeypatch.setattr(run.info, "commit", lambda: None)
    monkeypatch.setattr(config.datasets, "prepared", functools.cache(datasets.prepared))


@every_step
def test_every_wrong_value_in_config_json_is_named(finished, tmp_path, quickly, step):
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run" / "config.json"

    def use():
        there = runs.read_config(path.parent)
        report.write([path.parent], tmp_path / "report")
        if there.device != "gpu":
            runs.train(None, path.parent, resume=True, say=str)

    refused, accepted = refusals(json.loads(path.read_text()), path, json.dumps, use, step)
    assert refused > 500 // step and accepted > 40 // step


@every_step
def test_every_wrong_value_in_metrics_jsonl_is_named(finished, tmp_path, quickly, step):
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run" / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]

    def write(value):
        return "\n".join(map(json.dumps, value)) if isinstance(value, list) else json.dumps(value)

    def use():
        report.write([path.parent], tmp_path / "report")

    refused, accepted = refusals(lines, path, write, use, step)
    assert refused > 200 // step and accepted > 5 // step


@pytest.mark.parametrize("line, says", [
    ('{"epoch": 1}', "line 3: there is no step, lr, train_loss, train_error, seconds"),
    ("[1]", "line 3: expected keys and values, got a list of 1"), ("{", "line 3 cannot be read"),
    ('"test_error": 101', "line 3: test_error: expected a finite number from 0 to 100, got 101"),
    ('"train_error": NaN', "line 3: train_error: expected a finite number from 0 to 100, got nan"),
    ('"train_loss": "1"', "line 3: train_loss: expected a finite number >= 0, got '1' (str)"),
    ('"step": 1.0', "line 3: step: expected a whole number >= 1, got 1.0 (float)"),
    ('"epoch": 4', "line 3: epoch: expected 3, got 4"), ('"step": 7', "line 3: step: expected at least 8"),
    ('"validation_error": 1', "line 3: expected either test_error or validation_error"),
    ('"seconds": true', "line 3: seconds: expected a finite number >= 0, got True (bool)"),
    ('"accuracy": 1', "line 3: key: unknown name 'accuracy'"),
])
def test_a_wrong_line_is_named(finished, tmp_path, line, says):
    good = (finished / "metrics.jsonl").read_text()
    if line[0] == '"':
        last = json.loads(good.splitlines()[-1]) | {"epoch": 3, "step": 12}
        line = json.dumps(last)[:-1] + f", {line}}}"  # the second of two equal keys counts
    (tmp_path / "metrics.jsonl").write_text(good + line)
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'metrics.jsonl'}, {says}")):
        runs.read_metrics(tmp_path)


def test_a_line_of_the_other_error_is_named(finished):
    with pytest.raises(ValueError, match="line 1: expected validation_error, which the run's settings require"):
        metrics.read(finished, "validation_error")


@pytest.mark.slow
@every_step
def test_every_wrong_value_in_a_checkpoints_header_is_named(finished, tmp_path, quickly, monkeypatch, step):
    """The checksum is right, as if a program had written the header. The run is resumed from the checkpoint."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    (arrays, header), _ = checkpoint.newest(finished)
    monkeypatch.setattr(checkpoint, "save", lambda *arguments: None)

    class Written:
        """Takes the place of the file that `refusals` writes."""

        def __str__(self):
            return str(out)

        def write_text(self, text):
            monkeypatch.setattr(checkpoint, "newest", lambda folder: ((dict(arrays), json.loads(text)), []))

    refused, accepted = refusals(header, Written(), json.dumps,
                                 lambda: runs.train(None, out, resume=True, say=str), step)
    assert refused > 300 // step and accepted > 20 // step


@pytest.mark.parametrize("changes, accepted", [
    ({}, True), ({"step": 7}, False), ({"epoch": 1, "batch": 4}, True), ({"epoch": 1, "batch": 3}, False),
    ({"epoch": 0, "batch": 8}, False), ({"step": 12, "epoch": 3}, False), ({"epoch": 3}, False)])
def test_a_moment_that_no_run_comes_to_is_refused(finished, tmp_path, quickly, monkeypatch, changes, accepted):
    """The run has 8 steps, 4 per epoch. A run in its second epoch has measured one epoch."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    (arrays, header), _ = checkpoint.newest(finished)
    header["at"] |= changes
    header["metrics"] = header["metrics"][:header["at"]["epoch"]]
    checkpoint.save(out, 9, arrays, header)
    if accepted:
        assert runs.train(None, out, resume=True, say=str).finished
    else:
        with pytest.raises(ValueError, match="at: expected a point that this run can reach, got"):
            runs.train(None, out, resume=True, say=str)


SPEC = {"models": ["plain20", "resnet20"], "seeds": [0, 1], "dataset": "fashion_mnist_small", "recipe": "short-cifar",
        "device": "cpu", "set": {"train_images": 100, "lr": 0.1, "model.width": 2, "drops": [0.5, 0.75], "flip": True},
        "data_dir": ".", "graph": False}


def as_toml(value):
    def text(value):
        if value is DEEP:
            return json.dumps(value)
        if isinstance(value, dict):
            return "{" + ", ".join(f"{json.dumps(k)} = {text(v)}" for k, v in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(text, value)) + "]"
        if isinstance(value, float):
            return str(value)
        return "1979-05-27" if value is None else json.dumps(value)  # TOML has dates, but no null

    if not isinstance(value, dict):
        return text(value)
    return "".join(f"{json.dumps(key)} = {text(item)}\n" for key, item in value.items())


@pytest.mark.parametrize("name, write", [("grid.json", json.dumps), ("grid.toml", as_toml)])
@every_step
def test_every_wrong_value_in_a_sweeps_file_is_named(name, write, tmp_path, step):
    path = tmp_path / name
    path.write_text(write(SPEC))
    assert len(sweep.read(path).runs()) == 4
    refused, accepted = refusals(SPEC, path, write, lambda: sweep.read(path).runs(where="cpu"), step)
    assert refused > 200 // step and accepted > 20 // step


NO_JSON = {"empty": "", "cut": "{", "zero": "\x00", "deep list": "[" * 100_000, "deep object": '{"a": ' * 100_000,
           "long number": "1" * 5000, "no UTF-8": "\ud800"}


@pytest.mark.parametrize("text", NO_JSON.values(), ids=NO_JSON)
@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "grid.json", "grid.toml"])
def test_what_is_no_json_is_named(name, text, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run" / name
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    if name == "metrics.jsonl" and not text:
        return  # this is a valid run in its first epoch
    with pytest.raises(ValueError, match=r"cannot be read|expected|there is no models") as caught:
        sweep.read(path) if "grid" in name else report.find([path.parent])
    assert str(path) in str(caught.value)


def test_only_minires_own_temporary_files_are_deleted(tmp_path):
    mine, others = tmp_path / ".metrics.jsonl.0123abcd.tmp", [tmp_path / ".mine.tmp", tmp_path / ".x.0123abcg.tmp"]
    (tmp_path / ".keep.01234567.tmp").mkdir()
    for path in mine, *others:
        path.write_bytes(b"x")
    with run.locked_folder(tmp_path):
        assert not mine.exists() and all(path.exists() for path in others)
        assert (tmp_path / ".keep.01234567.tmp").is_dir()
