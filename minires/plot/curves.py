"""This module draws the curves of training runs from the lines of their metrics.jsonl, as in He et al. 2015, Figure 6.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ..names import shortened
from .style import DASHES, GREY, INK, TICK, Figure, dress, kind, legend_below, new_figure, series

Metrics = Sequence[Mapping[str, Any]]  # a run's epochs, in order
KINDS = {"plain": "plain networks", "resnet": "residual networks", "": "other networks"}
TRAINING = DASHES["plain"]  # dashes of training errors; the lines of test errors are solid


def training_curves(runs: Mapping[str, Sequence[Metrics]], title: str = "", caption: str = "") -> Figure:
    """Draw training error (dashed) and test error (solid) against steps.

    runs: {label: the metrics of every seed}, with labels such as "plain20" and "ResNet-56, width 8", or any other text

    Each line of the metrics has "step", "train_error" and "test_error" or "validation_error" (percent).

    Plain networks have a panel, residual networks have one, and networks whose label begins with neither name have one.
    Several seeds are drawn as one thin line each. For runs of 20 epochs or more the y axis shows, as in the paper, the
    range of the second half of training, and larger errors are cut off.
    """
    shown = {label: [m for m in seeds if m] for label, seeds in runs.items() if any(seeds)}
    kinds = [which for which in KINDS if which in map(kind, shown)]
    styles = series(shown)
    figure = new_figure(title or "Training error (dashed) and test error (solid)", 4.6, caption)
    panels = figure.subplots(1, max(1, len(kinds)), sharey=True, squeeze=False)[0]
    lines = [m for seeds in shown.values() for m in seeds]
    late = [line[key] for m in lines for line in m[len(m) // 2 if len(m) >= 20 else 0:]
            for key in ("train_error", _test(line))]
    top = min(max(1.12 * max(late, default=100.0), 2.0), 102.0)
    for axes, which in zip(panels, kinds, strict=False):
        labels = [label for label in shown if kind(label) == which]
        colours = {label: styles[label]["color"] for label in labels}
        for label in labels:
            for metrics in shown[label]:
                steps = [line["step"] for line in metrics]
                many = len(shown[label]) > 1
                dots = {"marker": "o", "markersize": 3} if len(steps) < 20 else {}
                axes.plot(steps, [line["train_error"] for line in metrics], color=colours[label],
                          linestyle=TRAINING, linewidth=0.8 if many else 1.2, **dots)
                axes.plot(steps, [line[_test(line)] for line in metrics], color=colours[label],
                          linewidth=1.1 if many else 2.0, **dots)
        axes.set_ylim(0, top)
        axes.set_xlim(0, 1.02 * max(line["step"] for m in lines for line in m))
        axes.ticklabel_format(axis="x", style="sci", scilimits=(0, 4), useMathText=True)
        _ends(axes, {label: sum(_last(m) for m in shown[label]) / len(shown[label]) for label in labels}, colours, top)
        dress(axes, KINDS[which] if which or len(kinds) > 1 else "", "step", "error (%)")
        axes.yaxis.set_tick_params(labelleft=True)
    if not kinds:
        dress(panels[0], "", "step", "error (%)", empty=True)
    legend_below(figure, [], styles=[
        Line2D([], [], color=INK, linestyle=TRAINING, linewidth=1.2, label="training error"),
        Line2D([], [], color=INK, linewidth=2.0, label=_what(lines))])
    return figure


def _test(line: Mapping[str, Any]) -> str:
    return "test_error" if "test_error" in line else "validation_error"


def _what(lines: Sequence[Metrics]) -> str:
    """Return the legend's text for the solid lines."""
    return " or ".join(sorted({_test(m[-1]).replace("_", " ") for m in lines}) or ["test error"])


def _last(metrics: Metrics) -> float:
    return float(metrics[-1][_test(metrics[-1])])


def _ends(axes: Axes, ends: Mapping[str, float], colours: Mapping[str, str], top: float) -> None:
    """Write "label value" to the right of each test curve's end, moved up where two would overlap.

    The value is the seeds' mean.
    """
    height = 0.0
    for label in sorted(ends, key=lambda label: ends[label]):
        height = max(ends[label], height + 0.06 * top if height else 0.02 * top)
        axes.annotate(f"{shortened(label)}  {ends[label]:.1f}", xy=(1, min(ends[label], top)),
                      xytext=(1.04, height / top), xycoords=("axes fraction", "data"), textcoords="axes fraction",
                      fontsize=TICK, fontweight="bold", color=colours[label], va="center", annotation_clip=False,
                      arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "relpos": (0, 0.5), "shrinkA": 1,
                                  "shrinkB": 1})
