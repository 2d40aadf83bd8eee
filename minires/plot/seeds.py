"""This module draws numbers of several seeds: every seed, the mean, and the interval of the mean."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from ..analysis.seeds import interval
from .labels import labelled, listed
from .numbers import number
from .style import GREY, INK, LIMIT, MARK, Figure, dress, legend_below, log_scale, new_figure, series

Seeds = Sequence[float]  # one number for each seed


def seed_intervals(found: Mapping[str, Mapping[str, Seeds]], x_label: str = "error (%)", title: str = "",
                   caption: str = "") -> Figure:
    """Draw every seed's number (hollow), the mean, and its 95 % interval, one row for each network.

    found: {group: {label: the number of every seed}}; each group has one panel. A group without a number for a label
        leaves its row empty
    x_label: what the numbers are

    The interval is Student's (analysis.interval). A single seed has none. It is cut off where the axis ends, at the
    range of the seeds and a third of it on each side, because three seeds can make it much wider than that.
    """
    rows = list(dict.fromkeys(label for by_label in found.values() for label in by_label))
    figure = new_figure(title or "Every seed, the mean, and its 95 % interval", 1.7 + 0.42 * max(1, len(rows)), caption)
    panels = figure.subplots(1, max(1, len(found)), sharex=True, sharey=True, squeeze=False)[0]
    everything = [v for by_label in found.values() for values in by_label.values() for v in values]
    for axes, (group, by_label) in zip(panels, found.items(), strict=False):
        for row, label in enumerate(rows):
            if values := by_label.get(label):
                mean = interval(values)
                if mean.seeds > 1:
                    axes.plot([mean.low, mean.high], [row, row], color=GREY, linewidth=2, solid_capstyle="butt")
                axes.plot(values, [row] * len(values), "o", color=INK, markersize=5, fillstyle="none", clip_on=False)
                axes.plot([mean.mean], [row], "|", color=INK, markersize=16, markeredgewidth=2.5)
        dress(axes, group, x_label, "")
    if everything:
        margin = (max(everything) - min(everything)) / 3 or 1.0
        panels[0].set_xlim(max(0.0, min(everything) - margin) if min(everything) >= 0 else min(everything) - margin,
                           max(everything) + margin)
        panels[0].set_yticks(range(len(rows)), rows)
        panels[0].set_ylim(len(rows) - 0.5, -0.5)
    else:
        dress(panels[0], "", x_label, "", empty=True)
    return figure


def mean_curves(found: Mapping[str, Sequence[tuple[Sequence[float], Sequence[float]]]], y_label: str,
                x_label: str = "step", title: str = "", caption: str = "") -> Figure:
    """Draw the mean of several seeds' curves as a line, and their range as a band.

    found: {label: (x, y) of every seed}; all seeds of a label have the same x
    y_label, x_label: what the numbers are

    Raises ValueError if the seeds of a label differ in x.
    """
    shown = {label: seeds for label, seeds in found.items() if seeds}
    figure = new_figure(title or f"{y_label[:1].upper()}{y_label[1:]}: mean and range of the seeds", 4.4, caption)
    axes = figure.subplots()
    for label, style in series(shown).items():
        x = list(shown[label][0][0])
        if any(list(other) != x for other, _ in shown[label]):
            raise ValueError(f"mean_curves, {label!r}: expected the same {x_label} values for all seeds")
        y = np.array([values for _, values in shown[label]], float)
        if len(y) > 1:
            axes.fill_between(x, y.min(0), y.max(0), color=style["color"], alpha=0.15, linewidth=0)
        axes.plot(x, y.mean(0), **style)
    axes.set_ylim(bottom=0)
    dress(axes, "", x_label, y_label, empty=not shown)
    legend_below(figure, [axes])
    return figure


def errors_by_blocks(found: Mapping[str, Mapping[str, Mapping[int, Seeds]]], y_label: str = "error, root mean square",
                     title: str = "", caption: str = "", least: float = 1e-7) -> Figure:
    """Draw errors against the number of blocks, both on log scales: every seed, and a line through the medians.

    found: {panel: {label: {blocks: the error of every seed}}}
    least: smaller errors are drawn here, because 0 has no place on a log scale

    The median is drawn because errors of seeds that fail and of seeds that succeed differ by powers of ten.
    """
    figure = new_figure(title or "Error by number of blocks: every seed, and the median", 4.6, caption)
    panels = figure.subplots(1, max(1, len(found)), sharey=True, squeeze=False)[0]
    for axes, (panel, by_label) in zip(panels, found.items(), strict=False):
        for label, style in series(by_label).items():
            by_blocks = {blocks: np.maximum(values, least) for blocks, values in sorted(by_label[label].items())
                         if len(values)}
            axes.plot(list(by_blocks), [float(np.median(values)) for values in by_blocks.values()], **style)
            dots = [(blocks, v) for blocks, values in by_blocks.items() for v in values]
            axes.plot([b for b, _ in dots], [v for _, v in dots], linestyle="none", marker=style["marker"],
                      color=style["color"], markersize=4, fillstyle="none", alpha=0.8)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(sorted({b for by in by_label.values() for b in by})))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        log_scale(axes)
        dress(axes, panel, "blocks", y_label if axes is panels[0] else "")
    if not found:
        dress(panels[0], "", "blocks", y_label, empty=True)
    legend_below(figure, panels, columns=3)
    return figure


def negative_sums(found: Any, caption: str = "") -> Figure:
    """Draw the share of negative sums of shortcut and branch, block by block.

    found: what analysis.negative_sums returns, or {label: such a result}

    The title gives the means over the blocks for up to four labels.
    """
    shown = labelled(found, 1)
    means = listed({label: f"{100 * float(np.mean(list(shares.values()))):.1f} %" for label, shares in shown.items()
                    if shares})
    figure = new_figure(f"Mean share of negative sums: {means}" if means else "Share of negative sums by block", 4.4,
                        caption)
    axes = figure.subplots()
    most = 1
    for label, style in series(shown).items():
        shares = [100 * share for share in shown[label].values()]
        most = max(most, len(shares))
        axes.plot(range(1, len(shares) + 1), shares, markevery=max(1, len(shares) // 15), **style)
    axes.set_ylim(bottom=0)
    dress(axes, "", "block (1 = nearest the input)", "negative sums (%)", empty=not shown)
    legend_below(figure, [axes], columns=3)
    return figure


def after_each_block(found: Any, caption: str = "", wanted: Any = None) -> Figure:
    """Draw what a stack makes of its input after each block: light after the first blocks, thick and black at the end.

    found: what analysis.after_each_block returns, (layers + 1, N), or {label: such an array}, with one panel for each
    wanted: the function that the stack was fitted to, drawn dashed: a callable that takes and returns arrays; None: not
        drawn

    Each panel has its own y axis, because what unlike stacks compute on the way differs by powers of ten.
    """
    shown = {label: np.asarray(rows, float) for label, rows in labelled(found).items()}
    figure = new_figure("The function after each block, from light to dark; thick: after the last", 3.9, caption)
    panels = figure.subplots(1, max(1, len(shown)), squeeze=False)[0]
    for axes, (label, rows) in zip(panels, shown.items(), strict=False):
        x, order = rows[0], np.argsort(rows[0])
        for i, row in enumerate(rows[1:], 1):
            shade = 0.78 * (1 - i / max(1, len(rows) - 1))
            axes.plot(x[order], row[order], color=(shade, shade, shade), linewidth=1.0 if i < len(rows) - 1 else 2.2)
        if wanted is not None:
            axes.plot(x[order], wanted(x[order]), color=MARK, linestyle=LIMIT, linewidth=1.6,
                      label="the function to fit")
        dress(axes, label, "x", "output" if axes is panels[0] else "")
    if not shown:
        dress(panels[0], "", "x", "output", empty=True)
    legend_below(figure, panels)
    return figure
