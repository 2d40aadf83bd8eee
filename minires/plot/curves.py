"""The curves of training runs, from the lines of their metrics.jsonl: He et al. 2015, Figure 6."""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.lines import Line2D

from .style import COLOURS, GREY, INK, TICK, Figure, dress, legend_below, new_figure

Metrics = Sequence[Mapping[str, Any]]  # a run's epochs, in order
KINDS = {"plain": "plain networks", "resnet": "residual networks"}
OTHERS = ("#969696", "#252525")  # shallowest, deepest


def training_curves(runs: Mapping[str, Sequence[Metrics]], title: str = "", caption: str = "") -> Figure:
    """Training error (dashed) and test error (solid) against steps, a panel for each kind of network.

    runs: {label: the metrics of every seed}; a label begins with the network's name ("plain20", "ResNet-56, width 8").
    Each metric line has "step", "train_error" and "test_error" or "validation_error" (percent). Several seeds are
    drawn thin, one by one. With 20 epochs or more the axis ends, as in the paper, where the second half of training
    fits: what is higher is cut.
    """
    shown = {label: [m for m in seeds if m] for label, seeds in runs.items() if any(seeds)}
    kinds = list(dict.fromkeys(sorted((_kind(label) for label in shown), key=_place)))
    figure = new_figure(title or "Training error (dashed) and test error (solid)", 4.6, caption)
    panels = figure.subplots(1, max(1, len(kinds)), sharey=True, squeeze=False)[0]
    lines = [m for seeds in shown.values() for m in seeds]
    late = [line[key] for m in lines for line in m[len(m) // 2 if len(m) >= 20 else 0:]
            for key in ("train_error", _test(line))]
    top = min(max(1.12 * max(late, default=100.0), 2.0), 102.0)
    for axes, kind in zip(panels, kinds, strict=False):
        labels = [label for label in shown if _kind(label) == kind]
        ranks = sorted({_depth(label) for label in labels})
        colours = {label: _shade(kind, ranks, _depth(label)) for label in labels}
        for label in labels:
            for metrics in shown[label]:
                steps = [line["step"] for line in metrics]
                many = len(shown[label]) > 1
                dots = {"marker": "o", "markersize": 3} if len(steps) < 20 else {}
                axes.plot(steps, [line["train_error"] for line in metrics], color=colours[label],
                          linestyle=(0, (4, 1.6)), linewidth=0.8 if many else 1.2, **dots)
                axes.plot(steps, [line[_test(line)] for line in metrics], color=colours[label],
                          linewidth=1.1 if many else 2.0, **dots)
        axes.set_ylim(0, top)
        axes.set_xlim(0, 1.02 * max(line["step"] for m in lines for line in m))
        axes.ticklabel_format(axis="x", style="sci", scilimits=(0, 4), useMathText=True)
        _ends(axes, {label: sum(_last(m) for m in shown[label]) / len(shown[label]) for label in labels}, colours, top)
        dress(axes, KINDS.get(kind, kind), "step", "error (%)")
        axes.yaxis.set_tick_params(labelleft=True)
    if not kinds:
        dress(panels[0], "", "step", "error (%)", empty=True)
    legend_below(figure, [], styles=[
        Line2D([], [], color=INK, linestyle=(0, (4, 1.6)), linewidth=1.2, label="training error"),
        Line2D([], [], color=INK, linewidth=2.0, label=_what(lines))])
    return figure


def _test(line: Mapping[str, Any]) -> str:
    return "test_error" if "test_error" in line else "validation_error"


def _what(lines: Sequence[Metrics]) -> str:
    """What the solid lines are."""
    return " or ".join(sorted({_test(m[-1]).replace("_", " ") for m in lines}) or ["test error"])


def _last(metrics: Metrics) -> float:
    return float(metrics[-1][_test(metrics[-1])])


def _kind(label: str) -> str:
    """"resnet" of "ResNet-56, width 8"; the whole label where it does not begin with letters and a number."""
    match = re.match(r"([a-z_]+)-?\d", label.lower())
    return match[1] if match else label


def _place(kind: str) -> tuple[int, str]:
    return (list(KINDS).index(kind) if kind in KINDS else len(KINDS)), kind


def _depth(label: str) -> int:
    match = re.search(r"\d+", label)
    return int(match[0]) if match else 0


def _shade(kind: str, ranks: Sequence[int], depth: int) -> str:
    """The shallowest is light, the deepest dark, so that grey print keeps them apart."""
    share = ranks.index(depth) / (len(ranks) - 1) if len(ranks) > 1 else 1.0
    light, dark = (to_rgb(colour) for colour in COLOURS.get(kind, OTHERS))
    red, green, blue = ((1 - share) * a + share * b for a, b in zip(light, dark, strict=True))
    return to_hex((red, green, blue))


def _ends(axes: Axes, ends: Mapping[str, float], colours: Mapping[str, str], top: float) -> None:
    """"label value" right of each test curve's end, moved up where two would overlap; the value is the seeds' mean."""
    height = 0.0
    for label in sorted(ends, key=lambda label: ends[label]):
        height = max(ends[label], height + 0.06 * top if height else 0.02 * top)
        axes.annotate(f"{label}  {ends[label]:.1f}", xy=(1, min(ends[label], top)), xytext=(1.04, height / top),
                      xycoords=("axes fraction", "data"), textcoords="axes fraction", fontsize=TICK, fontweight="bold",
                      color=colours[label], va="center", annotation_clip=False,
                      arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "relpos": (0, 0.5), "shrinkA": 1,
                                  "shrinkB": 1})
