"""Report any set of runs: the paper's Fig. 6, and its Table 6 with mean and standard deviation over seeds."""
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

# Published test errors on CIFAR-10 in percent. ResNets: He et al. 2015, Table 6; with 110 layers the best of five runs,
# and their mean and standard deviation. Plain networks: read off the curves of Fig. 6 there.
PAPER = {"plain20": "9.7", "plain32": "10.1", "plain44": "11.4", "plain56": "13.25",
         "resnet20": "8.75", "resnet32": "7.51", "resnet44": "7.17", "resnet56": "6.97",
         "resnet110": "6.43 (6.61 ± 0.16)", "resnet1202": "7.93"}
CURVES: tuple[Literal["step", "lr", "train_loss", "train_error", "test_error", "validation_error", "seconds"], ...] = (
    "step", "lr", "train_loss", "train_error", "test_error", "validation_error", "seconds")


@dataclass
class Run:
    """Holds the folder of one run, and what was read from it."""

    folder: Path
    config: RunConfig
    metrics: list[Line]
    pixels: str = ""  # the first digits of the data's SHA-256, if runs on the same data set have different pixels

    @property
    def finished(self) -> bool:
        return bool(self.metrics) and self.metrics[-1]["step"] == self.config.recorded.steps

    @property
    def group(self) -> str:
        """Return a key that is the same for runs that differ only in the seed or in the device."""
        same = {key: value for key, value in self.config.chosen().items() if key not in ("seed", "device")}
        return json.dumps(same | {"pixels": self.config.recorded.data_sha256}, sort_keys=True)

    @property
    def order(self) -> tuple[str, int, str, int]:
        """Return the key for sorting runs: the kind of network, its size, the settings and the seed."""
        kind = re.sub(r"\d.*", "", self.config.model)
        return kind, self.config.recorded.parameters, self.group, self.config.seed

    @property
    def trained_on(self) -> str:
        """Describe the training: the recipe, the data set and the network's options."""
        way, semicolon, options = self.config.words.partition(";")
        return way + (f", pixels {self.pixels}" if self.pixels else "") + semicolon + options


class Row(TypedDict):
    """Holds one row of the table. A list has one value per seed."""

    network: str
    trained: str
    parameters: int
    seeds: list[int]
    train_error: list[float]
    test_error: NotRequired[list[float]]
    validation_error: NotRequired[list[float]]
    paper: NotRequired[str]


def find(folders: Sequence[Path]) -> list[Run]:
    """Return the runs in these folders. Each folder is the folder of a run, or holds the folders of runs.

    Raises FileNotFoundError if a folder does not exist.
    Raises ValueError if a folder holds no run, or if two runs have the same settings and the same seed.
    """
    found: dict[Path, Run] = {}
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: expected a folder, but there is none of this name")
        inside = sorted(path.parent for path in folder.glob("*/config.json"))
        places = [folder] if (folder / "config.json").exists() else inside
        if not places:
            raise ValueError(f"{folder}: expected the folder of a run, or a folder that holds the folders of runs; "
                             "there is no config.json in it")
        for place in places:
            config = read_config(place)
            found.setdefault(place.resolve(), Run(place, config, metrics.read(place, config.tested)))
    seen: dict[Any, Run] = {}
    for run in found.values():
        other = seen.setdefault((run.group, run.config.seed), run)
        if other is not run:
            raise ValueError(f"{other.folder} and {run.folder} have the same settings and seed, and would count twice: "
                             "leave out one of the two")
    for name in {run.config.dataset for run in found.values()}:
        same = [run for run in found.values() if run.config.dataset == name]
        if len({run.config.recorded.data_sha256 for run in same}) > 1:
            for run in same:
                run.pixels = run.config.recorded.data_sha256[:8]
    return list(found.values())


def rows(found: Sequence[Run]) -> list[Row]:
    """Return one row for each group of runs that differ only in the seed or in the device.

    The errors are those after the last epoch, never the best ones. Unfinished runs are left out.
    """
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
    """Return the rows as a Markdown table that is also readable as plain text.

    The errors are in percent, mean ± standard deviation over seeds. The text below the table says how the networks
    were trained.
    """
    ways = list(dict.fromkeys(row["trained"] for row in lines))
    cells = [["network", "parameters", "seeds", "training %", "test %", "paper %"]]
    for row in lines:
        test = _spread(row["test_error"]) if "test_error" in row else f"{_spread(row['validation_error'])} (validation)"
        cells.append([_marked(row["network"], row["trained"], ways), f"{row['parameters']:,}", str(len(row["seeds"])),
                      _spread(row["train_error"]), test, _mean_of(row.get("paper", ""))])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    texts = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
             for line in cells]
    trained = [_marked(f"Trained with {way}.", way, ways, before=True) for way in ways]
    return "\n".join([texts[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *texts[1:], "",
                      "\n\n".join(trained)])


def _mean_of(published: str) -> str:
    """Return "6.61 ± 0.16" for "6.43 (6.61 ± 0.16)", the best of several runs and their mean; other text unchanged."""
    return published.partition("(")[2].rstrip(")") or published


def _marked(text: str, way: str, ways: Sequence[str], before: bool = False) -> str:
    """Return the text with the number of its way of training, if there are several ways."""
    if len(ways) < 2:
        return text
    mark = f"({ways.index(way) + 1})"
    return f"{mark} {text}" if before else f"{text} {mark}"


def write(folders: Sequence[Path], out: Path) -> str:
    """Write results.json, curves.png and report.md into `out`, and return the table.

    Raises FileExistsError if files of these names exist that are not an earlier report of runs.
    """
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
        raise FileExistsError(f"{out / there[0]} exists already and is not a report of runs; nothing was overwritten, "
                              "choose another --out")


def _page(found: Sequence[Run], lines: Sequence[Row], shown: str) -> str:
    text = ["# Training runs", shown,
            "Errors are in percent, measured in eval mode on whole sets after the last epoch, not the best one. For "
            "several seeds they are mean ± standard deviation."]
    if any(row.get("paper") for row in lines):
        text.append("The paper's values are from He et al. 2015. Those of residual networks are quoted from Table 6 "
                    "(with 110 layers: mean ± standard deviation of five runs, of which the best is 6.43). Those of "
                    "plain networks are read off the curves of Fig. 6. They are given only for networks that were "
                    "trained with the paper's recipe on all of CIFAR-10.")
    if unfinished := [f"{run.folder.name} (step {run.metrics[-1]['step'] if run.metrics else 0} of "
                      f"{run.config.recorded.steps})" for run in found if not run.finished]:
        text.append(f"These runs are not finished and are shown only in the figure: {', '.join(unfinished)}.")
    text.append("![Training and test error of every run](curves.png)")
    text.append("Every setting, seed, device, version and curve is in [results.json](results.json).")
    return "\n\n".join(text) + "\n"


def _record(run: Run) -> dict[str, Any]:
    """Return a run's config, and its curves as columns."""
    left_out = {"root", "command"}  # these describe a machine's folders rather than the run
    curves = {key: [round(line[key], 5) for line in run.metrics] for key in CURVES
              if run.metrics and key in run.metrics[0]}
    return {key: value for key, value in run.config.to_json().items() if key not in left_out} | {
        "finished": run.finished, "curves": curves}


def _comparable(config: RunConfig) -> bool:
    """Return whether the run used the paper's recipe and images, so that its errors are comparable to the paper's."""
    return (config.dataset == "cifar10" and not config.model_options and config.data == Data()
            and config.recipe == recipes.RECIPES["paper-cifar"])


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean
