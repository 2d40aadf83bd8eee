"""Test the programs of the recorded experiments with tiny sizes, and that recorded results are those of their files."""

import importlib
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from minires import analysis, datasets, models, plot, runs
from minires.runs import sweep
from minires.tensor import Tensor

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS, RESULTS = ROOT / "data" / "experiments", ROOT / "data" / "results"
if not PROGRAMS.is_dir():
    pytest.skip("there are no experiments beside these tests", allow_module_level=True)


@pytest.fixture
def program(monkeypatch):
    monkeypatch.syspath_prepend(str(PROGRAMS))

    def load(name):
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return load


def call(module, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, words)])
    module.main()


# ------------------------------------------------------------------------------------------ the programs


SMALL = {"blocks": [1, 8], "hidden": 3, "rates": [0.01], "seeds": [0], "steps": 4, "training_points": 8,
         "test_points": 11, "batch_size": 4}


def test_the_stacks_of_numbers_are_trained_and_resumed(program, monkeypatch, tmp_path, capsys):
    one, out = program("one_dimension"), tmp_path / "results.json"
    monkeypatch.setattr(one, "SETTINGS", one.SETTINGS | SMALL)
    call(one, monkeypatch, "--out", out)
    whole = json.loads(out.read_text())
    keys = [tuple(run[key] for key in ("target", "stack", "blocks", "rate", "seed")) for run in whole["runs"]]
    assert len(keys) == len(set(keys)) == 3 * 3 * 2
    for run in whole["runs"]:
        if run["stack"] == "residual, starts as the identity" and run["target"] == "identity":
            assert run["before"] == run["after"] == 0  # the control
        assert run["before"] >= 0 and ("curves" in run) == (run["blocks"] == 8)
        if "curves" in run:
            assert np.array(run["curves"]["after"]).shape == (9, 3)
    near = next(run for run in whole["runs"] if run["target"] == "near the identity" and "curves" in run
                and run["stack"] == "residual, starts as the identity")
    x = np.array(near["curves"]["before"][0])
    assert near["curves"]["before"][-1] == near["curves"]["before"][0]
    assert near["before"] == pytest.approx(0.2 * np.sqrt((np.sin(np.pi * np.linspace(-1, 1, 11)) ** 2).mean()), 1e-5)
    assert len(x) == 3
    out.write_text(json.dumps(whole | {"runs": whole["runs"][:-2]}))
    assert capsys.readouterr().out.count("\n") == 18
    call(one, monkeypatch, "--out", out)
    assert capsys.readouterr().out.count("\n") == 2  # only what was missing
    assert json.loads(out.read_text())["runs"] == whole["runs"]
    monkeypatch.setattr(one, "SETTINGS", one.SETTINGS | {"steps": 5})
    with pytest.raises(SystemExit, match="has other settings"):
        call(one, monkeypatch, "--out", out)


def test_a_training_that_overflows_is_recorded(program, monkeypatch):
    one = program("one_dimension")
    monkeypatch.setattr(one, "SETTINGS", one.SETTINGS | SMALL)
    monkeypatch.setitem(one.TARGETS, "huge", lambda x: 1e30 * x)
    assert one.fit("huge", "residual", 1, 0.01, 0)["after"] is None


def test_negative_sums_of_runs_are_measured_once(program, monkeypatch, tmp_path, finished_run, capsys):
    sums, out = program("negative_sums"), tmp_path / "sums.json"
    shutil.copytree(finished_run, tmp_path / "runs" / "one")
    for lines in 1, 0:
        call(sums, monkeypatch, tmp_path / "runs", "--out", out)
        assert capsys.readouterr().out.count("\n") == lines
    (run,) = json.loads(out.read_text())["runs"]
    found = runs.read(finished_run)
    assert (run["model"], run["images"]) == ("resnet20", 20)
    assert run["after"] == pytest.approx(analysis.negative_sums(found.model, found.images), abs=1e-4)
    assert run["before"] != run["after"] and run["before"].keys() == run["after"].keys()


def record(model, seed, error, loss=(1.0, 0.55, 0.4), **settings):
    options = settings.pop("options", {"width": 8})
    return {"model": model, "model_options": options, "seed": seed, "finished": True,
            "settings": {"warm_up_lr": 0.0, **settings},
            "curves": {"step": [100, 200, 300], "train_loss": list(loss), "train_error": [90.0, 50.0, error],
                       "test_error": [90.0, 50.0, error + 1]}}


def write(folder, name, found):
    (folder / name).mkdir()
    (folder / name / "results.json").write_text(json.dumps({"runs": found}))


def test_the_networks_of_cifar10_are_measured_once_and_reported(program, monkeypatch, tmp_path, capsys):
    cifar10, report, out = program("cifar10"), program("report"), tmp_path / "cifar10" / "analyses.json"
    draw = np.random.default_rng(0)
    part = draw.standard_normal((12, 3, 8, 8), np.float32), np.arange(12) % 10
    sets = datasets.Prepared(part, part, tuple("abcdefghij"), "", "")
    monkeypatch.setattr(datasets, "prepared", lambda *_, **__: sets)
    monkeypatch.setattr(cifar10, "network", lambda name: models.cifar(  # shallow and narrow
        14 if "56" in name else 8, "res" in name, width=4, rng=np.random.default_rng(0)))
    for name, few in ("lesions_batch", {"batch_size": 5}), ("line", {"points": 3}), ("surface", {"points": 3}):
        monkeypatch.setitem(cifar10.SETTINGS, name, cifar10.SETTINGS[name] | few)
    for lines in 4 * 4 + 2, 0:
        call(cifar10, monkeypatch, "--out", out)
        assert capsys.readouterr().out.count("\n") == lines
    whole, net = json.loads(out.read_text()), cifar10.network("resnet20")
    assert whole["lesions"]["resnet20"] == cifar10.rounded(json.loads(json.dumps(
        analysis.lesions(net, *part)._asdict())))
    with analysis.deleted(net, ["layer2.0"]):
        wrong = sum(int((net.train()(Tensor(part[0][i:i + 5])).data.argmax(1) != part[1][i:i + 5]).sum())
                    for i in (0, 5, 10))
    assert whole["lesions_batch"]["resnet20"]["without"]["layer2.0"] == pytest.approx(100 * wrong / 12, abs=1e-3)
    assert whole["line"]["plain56"]["curvatures"][0] == whole["line"]["plain56"]["curvature"]
    assert set(whole["surface"]) == {"plain56", "resnet56"} and len(whole["line"]["plain20"]["curvatures"]) == 3
    assert cifar10.rounded({"a": (1.23456789, float("inf")), "b": 3}) == {"a": [1.23457, None], "b": 3}

    whole["line"]["plain56"]["loss"][0] = whole["surface"]["plain56"]["loss"][0][0] = None  # an overflow
    out.write_text(json.dumps(whole))
    (tmp_path / "cifar10" / "results.json").write_text(json.dumps({"runs": [
        record(name, 0, error) for name, error in zip(report.NETWORKS, (20.0, 15.0, 40.0, 14.0), strict=True)]}))
    call(report, monkeypatch, "cifar10", "--results", tmp_path)
    text, cut = capsys.readouterr().out, whole["lesions"]["resnet56"]
    for line in ("- plain-56: training error 40.00 %, test error 41.00 %; the paper's test error after 164 epochs: "
                 "about 13 %", "- plain-20 minus ResNet-56: training error 6.00, test error 6.00 points",
                 f"- ResNet-56, lesions, eval mode: whole {cut['whole']:.2f} %, without one block "
                 f"{np.mean(list(cut['without'].values())):.2f} % on average",
                 f"without one that down-samples: {cut['without']['layer2.0']:.2f}, {cut['without']['layer3.0']:.2f} %",
                 f"- ResNet-20, mean response: {np.mean(list(whole['responses']['resnet20'].values())):.3f}"):
        assert line in text, text
    assert {path.stem for path in out.parent.glob("*.png")} == {"lesions", "lesions_batch", "line", "surface",
                                                                "responses"}
    monkeypatch.setitem(cifar10.SETTINGS, "line", {"points": 4})
    with pytest.raises(SystemExit, match="has other settings"):
        call(cifar10, monkeypatch, "--out", out)


def test_the_report_says_what_the_numbers_say(program, monkeypatch, tmp_path, capsys):
    report = program("report")
    write(tmp_path, "placement", [record(name.format(110), seed, 10.0 * i + seed, warm_up_lr=lr)
                                  for i, name in enumerate(report.UNITS.values(), 1) for seed in (0, 1)
                                  for lr in (0.0, 0.01)])
    (tmp_path / "placement" / "negative_sums.json").write_text(json.dumps({"runs": [
        {"model": "resnet110", "seed": seed, "warm_up_lr": 0.0, "before": {"a": 0.4, "b": 0.2},
         "after": {"a": 0.1, "b": 0.1}} for seed in (0, 1)]}))
    write(tmp_path, "convergence", [record(model, seed, 20.0, (1.0, loss, 0.3)) for seed in (0, 1)
                                    for model, loss in (("plain20", 0.8), ("resnet20", 0.5))])
    write(tmp_path, "overfitting", [record(f"resnet{depth}", seed, depth / 10) for depth in (20, 56, 110)
                                    for seed in (0, 1)])
    write(tmp_path, "bottleneck", [record("resnet56", seed, 20.0 + i, options=options) for seed in (0, 1) for i, options
                                   in enumerate(({"width": 8}, {"width": 10, "block": "bottleneck", "shortcut": "B"}))])
    write(tmp_path, "depth", [record(model, seed, error + seed) for seed in (0, 1) for model, error in
                              (("plain20", 15.0), ("plain56", 30.0), ("resnet20", 13.0), ("resnet56", 12.0))])
    call(report, monkeypatch, "--results", tmp_path)
    text = capsys.readouterr().out
    for line in ("- plain-56 minus plain-20, test error: 15.00 (15.00 to 15.00, 2 seeds) points",
                 "- ResNet-20 minus ResNet-56, test error: 1.00 (1.00 to 1.00, 2 seeds) points",
                 "- original minus pre-activation, without warm-up: -20.00 (-20.00 to -20.00, 2 seeds) points",
                 "- no warm-up minus warm-up, original: 0.00 (0.00 to 0.00, 2 seeds) points",
                 "- original, before training: 30.00 (30.00 to 30.00, 2 seeds) %",
                 "- original, after training: 10.00 (10.00 to 10.00, 2 seeds) %",
                 "- plain-20, steps to a loss of 0.6: 240.00 (240.00 to 240.00, 2 seeds), reached by 2 of 2 seeds",
                 "- plain-20 minus ResNet-20, steps to 0.6: 60.00 (60.00 to 60.00, 2 seeds) steps",
                 "- ResNet-110 minus ResNet-20, test error: 9.00 (9.00 to 9.00, 2 seeds) points",
                 "- bottleneck minus basic, test error: 1.00 (1.00 to 1.00, 2 seeds) points"):
        assert line in text, text
    assert "## one-dimension" not in text
    pictures = {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/*.png")}
    assert {"depth/errors.png", "placement/training_error_110.png", "placement/curves_110.png",
            "placement/negative_sums_110.png", "convergence/curves.png", "overfitting/test_error.png",
            "bottleneck/errors.png"} <= pictures
    with pytest.raises(SystemExit):
        call(report, monkeypatch, "nothing")


def test_the_report_of_stacks_of_numbers(program, monkeypatch, tmp_path, capsys):
    report = program("report")
    runs_of = [{"target": target, "stack": stack, "blocks": blocks, "rate": 0.01, "seed": seed,
                "after": after * blocks if stack == "plain" else after,
                **({"curves": {"after": [[-1.0, 0, 1]] * 9}} if blocks == 8 and seed == 0 else {})}
               for target in ("identity", "near the identity") for blocks in (1, 8) for seed in (0, 1)
               for stack, after in (("plain", 0.1), ("residual", 0.05), ("residual, starts as the identity", 0.0))]
    runs_of[-1]["after"] = None  # an overflow
    (tmp_path / "one-dimension").mkdir()
    (tmp_path / "one-dimension" / "results.json").write_text(json.dumps(
        {"settings": {"blocks": [1, 8], "rates": [0.01, 0.1], "seeds": [0, 1]}, "runs": runs_of}))
    call(report, monkeypatch, "one-dimension", "--results", tmp_path)
    text = capsys.readouterr().out
    assert "- plain, identity, 8 blocks / 1 block: 8 (8 to 8, 2 seeds)" in text
    assert "- identity, 8 blocks, plain / residual: 16 (16 to 16, 2 seeds)" in text
    assert "learning rate 0.1: 0 of 24 trainings are done, too few to compare" in text
    assert {path.name for path in tmp_path.glob("*/*.png")} == {"errors_0.01.png", "curves.png"}
    assert plot.png  # matplotlib draws without a display


# ------------------------------------------------------------------------------------------ the results


SWEEPS = sorted(RESULTS.glob("*/*.toml"))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.relative_to(RESULTS).as_posix())
def test_a_sweep_can_be_repeated_and_its_command_is_written_down(path):
    assert len(sweep.read(path).runs("cpu")) > 0
    text = "".join((ROOT / name).read_text(encoding="utf-8")
                   for name in ("data/results/EXPERIMENTS.md", "data/README.md"))
    assert f"minires sweep {path.relative_to(ROOT).as_posix()}" in text


def choices(run):
    """Return a recorded run's choices, without those settings that later versions have added."""
    kept = ("epochs", "batch_size", "lr", "momentum", "weight_decay", "drops", "warm_up_lr", "crop", "flip")
    return json.dumps([run["model"], run["seed"], run["dataset"], run["model_options"], run["data"],
                       {key: run["settings"][key] for key in kept}], sort_keys=True)


@pytest.mark.parametrize("folder", sorted({path.parent for path in SWEEPS if (path.parent / "results.json").exists()}),
                         ids=lambda folder: folder.name)
def test_recorded_runs_are_those_of_the_sweeps(folder):
    recorded = json.loads((folder / "results.json").read_text(encoding="utf-8"))["runs"]
    planned = set()
    for path in folder.glob("*.toml"):
        for config in sweep.read(path).runs("cpu").values():
            raw = config.to_json()
            raw["settings"] = json.loads(json.dumps(vars(config.recipe)))
            planned.add(choices(raw))
    assert {choices(run) for run in recorded} <= planned
    assert all(run["finished"] for run in recorded)


def test_every_experiment_has_a_command_and_a_condition():
    text = (RESULTS / "EXPERIMENTS.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert len(sections) > 4
    for section in sections:
        assert re.search(r"^    (minires|python) ", section, re.MULTILINE) and "| refuted if |" in section, section[:60]
