"""What any set of runs shows: the paper's Fig. 6 and a Table 6 with mean and standard deviation over seeds."""
from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from .. import recipes
from ..files import records
from ..files.atomic import write_atomically
from ..names import printed
from . import metrics
from .config import Data, RunConfig
from .metrics import Line
from .run import read_config

# Published test errors on CIFAR-10 in percent. ResNets: He et al. 2015, Table 6; of 110 layers the best of five runs,
# with their mean and standard deviation. Plain networks: read off the curves of its Fig. 6.
PAPER = {"plain20": "9.7", "plain32": "10.1", "plain44": "11.4", "plain56": "13.25",
         "resnet20": "8.75", "resnet32": "7.51", "resnet44": "7.17", "resnet56": "6.97",
         "resnet110": "6.43 (6.61 ± 0.16)", "resnet1202": "7.93"}
CURVES: tuple[Literal["step", "lr", "train_loss", "train_error", "test_error", "validation_error", "seconds"], ...] = (
    "step", "lr", "train_loss", "train_error", "test_error", "validation_error", "seconds")


@dataclass
class Run:
    """One run's folder."""

    folder: Path
    config: RunConfig
    metrics: list[Line]
    pixels: str = ""  # the SHA-256's beginning, where runs on other pixels have the same name

    @property
    def finished(self) -> bool:
        return bool(self.metrics) and self.metrics[-1]["step"] == self.config.recorded.steps

    @property
    def group(self) -> str:
        """The same for runs that differ in their seed, or in where they ran, alone."""
        same = {key: value for key, value in self.config.chosen().items() if key not in ("seed", "device")}
        return json.dumps(same | {"pixels": self.config.recorded.data_sha256}, sort_keys=True)

    @property
    def order(self) -> tuple[str, int, str, int]:
        """The kind of network, its size, its settings, its seed: what runs are sorted by."""
        kind = re.sub(r"\d.*", "", self.config.model)
        return kind, self.config.recorded.parameters, self.group, self.config.seed

    @property
    def trained_on(self) -> str:
        """How and on what, in words."""
        way, semicolon, options = self.config.words.partition(";")
        return way + (f", pixels {self.pixels}" if self.pixels else "") + semicolon + options


class Row(TypedDict):
    """One line of the table: a list has a value for each seed."""

    network: str
    trained: str
    parameters: int
    seeds: list[int]
    train_error: list[float]
    test_error: NotRequired[list[float]]
    validation_error: NotRequired[list[float]]
    paper: NotRequired[str]


def find(folders: Sequence[Path]) -> list[Run]:
    """The runs in these folders, each a run's own or a folder of such folders. ValueError where there is none, and
    where two have all settings and the seed in common."""
    found: dict[Path, Run] = {}
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
        inside = sorted(path.parent for path in folder.glob("*/config.json"))
        places = [folder] if (folder / "config.json").exists() else inside
        if not places:
            raise ValueError(f"{folder}: expected a run's folder, or a folder of such; there is no config.json in it")
        for place in places:
            config = read_config(place)
            found.setdefault(place.resolve(), Run(place, config, metrics.read(place, config.tested)))
    seen: dict[Any, Run] = {}
    for run in found.values():
        other = seen.setdefault((run.group, run.config.seed), run)
        if other is not run:
            raise ValueError(f"{other.folder} and {run.folder} have the same settings and seed: leave one out, it "
                             "would count twice")
    for name in {run.config.dataset for run in found.values()}:
        same = [run for run in found.values() if run.config.dataset == name]
        if len({run.config.recorded.data_sha256 for run in same}) > 1:
            for run in same:
                run.pixels = run.config.recorded.data_sha256[:8]
    return list(found.values())


def rows(found: Sequence[Run]) -> list[Row]:
    """A row for each group of runs that differ in the seed alone: errors after the last epoch, never the best one;
    runs that are not finished are left out."""
    groups: dict[str, list[Run]] = {}
    for run in sorted(found, key=lambda r: r.order):
        if run.finished:
            groups.setdefault(run.group, []).append(run)
    lines = []
    for group in groups.values():
        first, last = group[0], [run.metrics[-1] for run in group]
        row: Row = {"network": printed(first.config.model), "trained": first.trained_on,
                    "parameters": first.config.recorded.parameters, "seeds": [run.config.seed for run in group],
                    "train_error": [line["train_error"] for line in last],
                    first.config.tested: [line[first.config.tested] for line in last]}  # type: ignore[misc]
        if _comparable(first.config):
            row["paper"] = PAPER.get(first.config.model, "")
        lines.append(row)
    return lines


def table(lines: Sequence[Row]) -> str:
    """The rows as a Markdown table, laid out to be read as text too, and under it how the networks were trained.
    Errors: mean ± standard deviation over seeds."""
    ways = list(dict.fromkeys(row["trained"] for row in lines))
    cells = [["network", "parameters", "seeds", "training error %", "test error %", "paper, test error %"]]
    for row in lines:
        test = _spread(row["test_error"]) if "test_error" in row else f"{_spread(row['validation_error'])} (validation)"
        cells.append([_marked(row["network"], row["trained"], ways), f"{row['parameters']:,}", str(len(row["seeds"])),
                      _spread(row["train_error"]), test, row.get("paper", "")])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    texts = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
             for line in cells]
    trained = [_marked(f"Trained by {way}.", way, ways, before=True) for way in ways]
    return "\n".join([texts[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *texts[1:], "",
                      "\n\n".join(trained)])


def _marked(text: str, way: str, ways: Sequence[str], before: bool = False) -> str:
    """The text with the number of its way of training, where there are several."""
    if len(ways) < 2:
        return text
    mark = f"({ways.index(way) + 1})"
    return f"{mark} {text}" if before else f"{text} {mark}"


def write(folders: Sequence[Path], out: Path) -> str:
    """Write results.json, curves.png and report.md into `out`; returns the table. FileExistsError where files of these
    names are there that are none of ours."""
    _check_ours(out)
    found = find(folders)
    lines = rows(found)
    from .. import plot  # loads matplotlib
    ways = list(dict.fromkeys([row["trained"] for row in lines] + [run.trained_on for run in found]))
    by_label: dict[str, list[Any]] = {}
    for run in sorted(found, key=lambda r: r.order):
        by_label.setdefault(_marked(printed(run.config.model), run.trained_on, ways), []).append(run.metrics)
    figure = plot.png(plot.training_curves(by_label))

    out.mkdir(parents=True, exist_ok=True)
    record = {"table": lines, "paper": PAPER, "runs": [_record(run) for run in found]}
    write_atomically(out / "results.json", records.text(record) + "\n")
    write_atomically(out / "curves.png", figure)
    shown = table(lines) if lines else "No run is finished yet."
    write_atomically(out / "report.md", _page(found, lines, shown))
    return shown


def _check_ours(out: Path) -> None:
    there = [name for name in ("results.json", "curves.png", "report.md") if (out / name).exists()]
    try:
        ours = {"table", "paper", "runs"} <= set(records.read(out / "results.json"))
    except (OSError, ValueError, TypeError):
        ours = False
    if there and not ours:
        raise FileExistsError(f"{out / there[0]} exists already and is no report of runs; choose another --out, "
                              "nothing is overwritten")


def _page(found: Sequence[Run], lines: Sequence[Row], shown: str) -> str:
    text = ["# Training runs", shown,
            "Errors in percent after the last epoch, not the best one, in eval mode on whole sets; mean ± standard "
            "deviation over seeds, where there are several."]
    if any(row.get("paper") for row in lines):
        text.append("The paper's values are quoted from He et al. 2015: Table 6 for residual networks (110 layers: the "
                    "best of five runs, and their mean ± standard deviation), and for plain networks read off the "
                    "curves of its Fig. 6. They stand beside networks trained by its recipe on all of CIFAR-10 alone.")
    if unfinished := [f"{run.folder.name} (step {run.metrics[-1]['step'] if run.metrics else 0} of "
                      f"{run.config.recorded.steps})" for run in found if not run.finished]:
        text.append(f"Not finished, and in the figure alone: {', '.join(unfinished)}.")
    text.append("![Training and test error of every run](curves.png)")
    text.append("Every setting, seed, device, version and curve is in [results.json](results.json).")
    return "\n\n".join(text) + "\n"


def _record(run: Run) -> dict[str, Any]:
    """A run with all that made it, its curves as columns."""
    left_out = {"root", "command"}  # they say more about a machine's folders than about the run
    curves = {key: [round(line[key], 5) for line in run.metrics] for key in CURVES
              if run.metrics and key in run.metrics[0]}
    return {key: value for key, value in run.config.to_json().items() if key not in left_out} | {
        "finished": run.finished, "curves": curves}


def _comparable(config: RunConfig) -> bool:
    """Was it trained as the paper says, on the same images?"""
    return (config.dataset == "cifar10" and not config.model_options and config.data == Data()
            and config.recipe == recipes.RECIPES["paper-cifar"])


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean
