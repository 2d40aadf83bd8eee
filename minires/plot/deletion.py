"""This module draws the results for networks with blocks deleted, exchanged or added."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from .labels import labelled, listed, said
from .numbers import number, percent
from .style import (
    GREY,
    INK,
    LIMIT,
    Figure,
    dress,
    layer_ticks,
    legend_below,
    new_figure,
    series,
)

ERROR = "error (%)"


def lesions(found: Any, caption: str = "") -> Figure:
    """Draw the error without each block.

    found: what analysis.lesions returns, or {label: such a result}, with one panel for each

    The dashed line is the error with all blocks. Blocks that change the shape have hollow bars.
    """
    shown = labelled(found)
    figure = new_figure(_lesion_title(shown), 1.4 + 2.6 * max(1, len(shown)), caption)
    panels = figure.subplots(max(1, len(shown)), 1, squeeze=False)[:, 0]
    for axes, (label, style) in zip(panels, series(shown).items(), strict=False):
        errors, hollow = shown[label].without, set(shown[label].changes_shape)
        for changes, says in ((False, "one block deleted"), (True, "deleted block changes the shape")):
            bars = {at: e for at, (name, e) in enumerate(errors.items(), 1) if (name in hollow) == changes}
            if bars:
                axes.bar(list(bars), list(bars.values()), width=0.75, label=says, linewidth=1.4,
                         color="white" if changes else style["color"], edgecolor=style["color"],
                         hatch="//" if changes else "")
        axes.axhline(shown[label].whole, color=INK, linewidth=1.3, linestyle=LIMIT, label="no block deleted")
        axes.set_ylim(0, min(105.0, 1.15 * max([shown[label].whole, *errors.values()]) + 1))
        axes.set_xticks(layer_ticks(max(len(errors), 1)))
        dress(axes, label, "deleted block (1 = nearest the input)", ERROR)
    if not shown:
        dress(panels[0], "", "deleted block", ERROR, empty=True)
    legend_below(figure, list(panels))
    return figure


def _lesion_title(shown: Mapping[str, Any]) -> str:
    means = {label: float(np.mean(list(cut.without.values()))) for label, cut in shown.items() if cut.without}
    words = listed({label: f"{percent(mean)} and {percent(shown[label].whole)}" for label, mean in means.items()})
    return f"Mean error without one block, and of the whole network: {words}" if words else \
        "Error with one block deleted"


def delete_k(found: Any, caption: str = "") -> Figure:
    """Draw the error of each trial, and the trials' mean, against the number of random blocks deleted.

    found: what analysis.delete_k returns, or {label: such a result}
    """
    shown = labelled(found, 1)
    common = sorted(set.intersection(*(set(errors) for errors in shown.values()))) if shown else []
    k = common[len(common) // 2] if common else 0
    words = listed({label: percent(float(np.mean(errors[k]))) for label, errors in shown.items()}) if k else ""
    figure = new_figure(f"Mean error with {k} random block{'s' * (k > 1)} deleted: {words}" if words else
                        "Error with random blocks deleted", 4.2, caption)
    axes = figure.subplots()
    for label, style in series(shown).items():
        errors = shown[label]
        for k, values in errors.items():
            axes.plot([k] * len(values), values, linestyle="none", marker=style["marker"], markersize=4,
                      color=style["color"], markerfacecolor="white")
        style["label"] = said(style["label"], "mean", ", ")
        axes.plot(list(errors), [np.mean(v) for v in errors.values()], **style)
    axes.set_ylim(0, 100)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    dress(axes, "", "number of blocks deleted", ERROR, empty=not shown)
    legend_below(figure, [axes], extra="hollow: one trial" if shown else "")
    return figure


def swap_blocks(found: Any, caption: str = "") -> Figure:
    """Draw the error against the rank correlation of the blocks' order with the original order.

    found: what analysis.swap_blocks returns, or {label: such a result}
    """
    shown = {label: orders for label, orders in labelled(found).items() if orders}
    ranked = {label: sorted(orders, key=lambda s: -s.correlation) for label, orders in shown.items()}
    words = listed({label: f"{percent(first.error)} at rank correlation {first.correlation:.2f}, "
                           f"{percent(last.error)} at {last.correlation:.2f}"
                    for label, (first, *_, last) in ranked.items() if len(ranked[label]) > 1})
    figure = new_figure("Error with blocks exchanged" + (f": {words}" if words else ""), 4.2, caption)
    axes = figure.subplots()
    for label, style in series(shown).items():
        axes.plot([s.correlation for s in shown[label]], [s.error for s in shown[label]],
                  **style | {"linestyle": "none"})
    axes.set_xlim(1.02, min((s.correlation for orders in shown.values() for s in orders), default=0) - 0.02)
    axes.set_ylim(0, 100)
    dress(axes, "", "Kendall's rank correlation with the original order (1 = unchanged)", ERROR, empty=not shown)
    legend_below(figure, [axes])
    return figure


def construction(found: Any, caption: str = "") -> Figure:
    """Draw the logits of a network against those of the deeper network built from it. Equal logits are on the diagonal.

    found: what analysis.construction returns, or {label: such a result}
    """
    shown = labelled(found)
    words = listed({label: number(built.difference) for label, built in shown.items()})
    figure = new_figure("Logits before and after adding identity blocks" + (f"; largest difference: {words}"
                                                                            if words else ""), 4.6, caption)
    axes = figure.subplots()
    both = [np.ravel(a) for built in shown.values() for a in (built.shallow, built.deep)]
    if both:
        ends = [min(a.min() for a in both), max(a.max() for a in both)]
        axes.plot(ends, ends, color=GREY, linewidth=1.0, label="equal")
    for label, style in series(shown).items():
        style |= {"linestyle": "none", "markersize": 4, "label": said(style["label"], "one logit of one image", ": ")}
        axes.plot(np.ravel(shown[label].shallow), np.ravel(shown[label].deep), **style)
    dress(axes, "", "logit of the original network", "logit of the deeper network", empty=not shown)
    legend_below(figure, [axes])
    return figure
