"""Test `minires report`: a table and a figure from runs' folders, compared with means and deviations from a hand
calculation.
"""

import dataclasses
import itertools
import json

import pytest
from matplotlib.colors import to_rgb

from minires import cli, plot, recipes
from minires.runs import report

PAPER = recipes.RECIPES["paper-cifar"]


def folder(path, model="resnet20", seed=0, errors=((60.0, 61.0), (9.0, 10.0), (2.0, 9.0)), steps=None, **changes):
    """Make the folder of a run with these (training, test) errors after 1,000, 2,000, ... steps."""
    settings = json.loads(json.dumps(dataclasses.asdict(PAPER))) | changes.pop("settings", {})
    data = {"train_images": 0, "test_images": 0, "image_size": 0, "validation": 0} | changes.pop("data", {})
    key = "validation_error" if data["validation"] else "test_error"
    config = {"model": model, "model_options": {}, "dataset": "cifar10", "data": data, "recipe": "paper-cifar",
              "settings": settings, "seed": seed, "device": "cpu", "graph": False, "data_sha256": "ab" * 32,
              "steps": 1000 * len(errors) if steps is None else steps, "parameters": 270_000 + len(model),
              "root": "/home/me", "versions": {"numpy": "2.4"}, "commit": "abc",
              "command": "minires train"} | changes
    lines = [{"epoch": i + 1, "step": 1000 * (i + 1), "lr": 0.1, "train_loss": 1.0, "train_error": a, key: b,
              "seconds": 9.5 * (i + 1)} for i, (a, b) in enumerate(errors)]
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def cells(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "][1:]


def test_mean_and_deviation_over_seeds_after_the_last_epoch(tmp_path):
    for seed, test in enumerate((8.0, 9.0, 10.0)):  # the best epoch would be 1.0
        folder(tmp_path / "runs" / str(seed), seed=seed, errors=[(50.0, 1.0), (2.0 + seed, test)])
    folder(tmp_path / "plain", "plain56", errors=[(5.0, 13.0)])
    text = report.write([tmp_path / "runs", tmp_path / "plain"], tmp_path / "out")
    assert cells(text) == [["plain-56", "270,007", "1", "5.00", "13.00", "13.25"],
                           ["ResNet-20", "270,008", "3", "3.00 ± 1.00", "9.00 ± 1.00", "8.75"]]
    assert text.endswith("Trained with paper-cifar on cifar10.")
    saved = json.loads((tmp_path / "out" / "results.json").read_text())
    assert saved["table"][1] == {"network": "ResNet-20", "trained": "paper-cifar on cifar10", "parameters": 270_008,
                                 "seeds": [0, 1, 2], "train_error": [2.0, 3.0, 4.0], "test_error": [8.0, 9.0, 10.0],
                                 "paper": "8.75"}
    run = saved["runs"][0]
    assert {"model", "recipe", "settings", "seed", "device", "versions", "data_sha256", "commit"} <= set(run)
    assert run["curves"]["test_error"] == [1.0, 8.0] and run["finished"] and "root" not in run and "command" not in run
    page = (tmp_path / "out" / "report.md").read_text()
    assert text in page and "not the best one" in page and "read off the curves" in page and "(curves.png)" in page
    assert (tmp_path / "out" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_papers_values_are_the_published_ones():
    """The source is He et al. 2015, Table 6."""
    published = {"resnet20": "8.75", "resnet32": "7.51", "resnet44": "7.17", "resnet56": "6.97", "resnet1202": "7.93",
                 "resnet110": "6.43 (6.61 ± 0.16)"}
    assert {name: value for name, value in report.PAPER.items() if name in published} == published


@pytest.mark.parametrize("changes", [{"data": {"image_size": 16}}, {"settings": {"steps": 32_000}},
                                     {"model_options": {"width": 8}}, {"dataset": "cifar100"},
                                     {"data": {"validation": 5000}}], ids=str)
@pytest.mark.usefixtures("blank_pictures")
def test_nothing_of_the_papers_stands_beside_another_protocol(tmp_path, changes):
    out = report.write([folder(tmp_path / "a", **changes)], tmp_path / "out")
    assert cells(out)[0][-1] == "" and "Table 6" not in (tmp_path / "out" / "report.md").read_text()
    ((_, value),) = {**changes.get("data", {}), **changes.get("settings", {}), **changes.get("model_options", {}),
                     **{k: v for k, v in changes.items() if k == "dataset"}}.items()
    assert str(value) in out.splitlines()[-1]  # the last line says what differs


@pytest.mark.usefixtures("blank_pictures")
def test_runs_of_different_settings_are_different_rows(tmp_path):
    folder(tmp_path / "a" / "1")
    folder(tmp_path / "a" / "2", seed=1, data={"image_size": 16})
    folder(tmp_path / "a" / "3", seed=2, data_sha256="cd" * 32)  # the same data set name, but other pixels
    text = report.write([tmp_path / "a"], tmp_path / "out")
    assert sorted(row[0] for row in cells(text)) == ["ResNet-20 (1)", "ResNet-20 (2)", "ResNet-20 (3)"]
    ways = text.split("\n\n")[1:]
    assert [way[:17] for way in ways] == ["(1) Trained with ", "(2) Trained with ", "(3) Trained with "]
    assert sum("image_size 16" in way for way in ways) == 1 and sum("pixels cdcdcdcd" in way for way in ways) == 1


def test_unfinished_runs_are_drawn_but_not_counted(tmp_path):
    folder(tmp_path / "a")
    folder(tmp_path / "b", seed=1, errors=[(1.0, 1.0)], steps=64_000)
    folder(tmp_path / "c", seed=2, errors=[], steps=64_000)
    text = report.write([tmp_path / "a", tmp_path / "b", tmp_path / "c"], tmp_path / "out")
    assert cells(text)[0][2:5] == ["1", "2.00", "9.00"]
    page = (tmp_path / "out" / "report.md").read_text()
    assert ("These runs are not finished and are shown only in the figure: b (step 1000 of 64000), "
            "c (step 0 of 64000)") in page
    assert report.write([tmp_path / "c"], tmp_path / "none") == "No run is finished yet."
    assert "      1.0,\n" not in (tmp_path / "out" / "results.json").read_text()  # a list is written on one line


def test_the_same_run_twice_is_refused_and_the_same_folder_counts_once(tmp_path):
    folder(tmp_path / "runs" / "a")
    assert len(report.find([tmp_path / "runs", tmp_path / "runs" / "a"])) == 1
    folder(tmp_path / "runs" / "b")
    with pytest.raises(ValueError, match="have the same settings and seed"):
        report.find([tmp_path / "runs"])


@pytest.mark.parametrize("make, says", [
    (lambda p: None, "expected a folder, but there is none"), (lambda p: p.mkdir(), "there is no config.json in it"),
    (lambda p: (folder(p) / "metrics.jsonl").write_text('{"epoch": 1'), "metrics.jsonl, line 1 cannot be read"),
    (lambda p: (folder(p) / "config.json").write_text("{}"), "expected a run's settings"),
])
def test_folders_that_are_none_write_nothing(make, says, tmp_path, capsys):
    make(tmp_path / "run")
    assert cli.main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "out").exists()


# ----------------------------------------------------------------------------------------------------- the figure


def metrics(last, n=40, key="test_error"):
    return [{"step": 400 * (i + 1), "train_error": 80 - i, key: last + n - 1 - i} for i in range(n)]


def test_the_figure_has_a_panel_for_each_kind_and_two_lines_for_each_run():
    drawn = {"plain-20": [metrics(9.0)], "ResNet-20": [metrics(8.0), metrics(9.0)], "ResNet-56": [metrics(6.97)]}
    figure = plot.training_curves(drawn)
    plain, residual = figure.axes
    assert (plain.get_title(), residual.get_title()) == ("plain networks", "residual networks")
    assert len(plain.lines) == 2 and len(residual.lines) == 6
    dashed, solid = plain.lines
    assert list(dashed.get_ydata()) == [line["train_error"] for line in drawn["plain-20"][0]]
    assert list(solid.get_ydata()) == [line["test_error"] for line in drawn["plain-20"][0]]
    assert list(solid.get_xdata()) == [line["step"] for line in drawn["plain-20"][0]]
    assert dashed.is_dashed() and not solid.is_dashed()
    assert [text.get_text() for text in residual.texts] == ["ResNet-56  7.0", "ResNet-20  8.5"]  # the mean over seeds
    light, dark = (sum(to_rgb(residual.lines[i].get_color())) for i in (0, -1))
    assert light > 2 * dark  # distinguishable also in grey print
    assert plain.get_ylim() == residual.get_ylim() and plain.get_ylim()[1] == pytest.approx(1.12 * 60)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["training error", "test error"]


def test_labels_do_not_overlap_and_stay_in_order():
    figure = plot.training_curves({f"ResNet-{depth}": [metrics(7 + depth / 1000)] for depth in (20, 32, 44, 56, 110)})
    heights = [text.xyann[1] for text in figure.axes[0].texts]
    assert all(b - a > 0.055 for a, b in itertools.pairwise(heights))


def test_the_figure_of_nothing_of_one_epoch_and_of_validation():
    assert plot.png(plot.training_curves({"resnet20": [[]]})).startswith(b"\x89PNG")
    figure = plot.training_curves({"vgg16": [metrics(50.0, 1, "validation_error")]})
    assert [t.get_text() for t in figure.axes[0].texts] == ["vgg16  50.0"] and plot.png(figure).startswith(b"\x89PNG")
    assert figure.legends[0].get_texts()[1].get_text() == "validation error"


def test_files_that_are_no_report_are_not_overwritten(tmp_path):
    folder(tmp_path / "runs" / "a")
    for name, content in ("report.md", "mine"), ("results.json", '{"nets": {}}'):
        out = tmp_path / name.partition(".")[0]
        out.mkdir()
        (out / name).write_text(content)
        with pytest.raises(FileExistsError, match="exists already and is not a report of runs; nothing was "
                                                  "overwritten, choose another --out"):
            report.write([tmp_path / "runs"], out)
        assert [p.name for p in out.iterdir()] == [name] and (out / name).read_text() == content
