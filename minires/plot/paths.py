"""This module draws the paths of a residual network: how many have each length, and how much gradient they carry."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from ..analysis import gradient_shares, path_shares
from .labels import labelled, listed
from .numbers import number, percent
from .style import GREY, INK, Figure, dress, legend_below, log_scale, new_figure, series

LENGTH = "path length (blocks)"


def path_gradients(found: Any, caption: str = "") -> Figure:
    """Draw by path length the number of paths, the gradient along one path, and the product: Veit et al. 2016, Fig. 6.

    found: what analysis.path_gradients returns, or {label: such a result}

    Between two measured lengths the norm is interpolated on the log scale.
    """
    shown = labelled(found)
    parts = {label: part for label, gradients in shown.items() if (part := _product(gradients))}
    figure = new_figure(_path_title(parts, shown), 4.0, caption)
    left, middle, right = panels = figure.subplots(1, 3)
    for label, style in series(shown).items():
        one = label == "" and len(shown) == 1
        line = {"color": INK if one else style["color"], "linestyle": style["linestyle"], "label": style["label"],
                "linewidth": 2.0}
        shares = path_shares(shown[label].blocks)
        left.plot(range(len(shares)), shares, **line)
        if label in parts:
            measured, means, product = parts[label]
            for k in measured:
                values = shown[label].norms[k]
                middle.plot([k] * len(values), values, linestyle="none", marker=style["marker"], markersize=3.5,
                            markerfacecolor="white", color=GREY if one else style["color"])
            middle.plot(measured, np.exp(means), **line)
            right.plot(range(len(product)), product, **line)
    log_scale(middle)
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    dress(left, "number of paths", LENGTH, "share of all paths", empty=not shown)
    dress(middle, "gradient along one path", LENGTH, "norm at the input, L2", empty=not parts)
    dress(right, "product", LENGTH, "share of the product", empty=not parts)
    legend_below(figure, panels)
    return figure


def _product(gradients: Any) -> tuple[list[int], Any, Any] | None:
    """Return (lengths measured, log of the mean norm at each, share of the product at every length)."""
    measured = sorted(k for k, norms in gradients.norms.items() if len(norms) and np.mean(norms) > 0)
    if not measured:
        return None
    means = np.log([np.mean(gradients.norms[k]) for k in measured])
    lengths = np.arange(gradients.blocks + 1)
    inside = (lengths >= measured[0]) & (lengths <= measured[-1])
    product = np.where(inside, np.exp(np.interp(lengths, measured, means)) * path_shares(gradients.blocks), 0)
    return measured, means, product / product.sum()


def _path_title(parts: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    found = {}
    for label, (measured, _, product) in parts.items():
        low, high = _middle(product, 0.9)
        share = 100 * sum(path_shares(shown[label].blocks)[low:high + 1])
        found[label] = f"90 % at lengths of {low} to {high} blocks, with {number(share)} % of all paths"
        if len(parts) == 1:
            found[label] += f" (measured: lengths {measured[0]} to {measured[-1]})"
    words = listed(found, most=2)
    return f"Number of paths times norm of one path: {words}" if words else "Paths by length"


def gradients_by_length(found: Any, caption: str = "") -> Figure:
    """Draw the share of all paths and the share of the gradient at every length 0, 1, .... The shares of each sum to 1.

    found: what analysis.gradients_by_length returns, or {label: such a result}, with one panel for each

    The share of the gradient is analysis.gradient_shares. Where paths cancel, it can be below 0 or above 1.
    """
    carried = {label: gradient_shares(parts) for label, parts in labelled(found).items() if len(parts)}
    shares = {label: path_shares(len(values) - 1) for label, values in carried.items()}
    found_there = {}
    for label, values in carried.items():
        positive = np.maximum(values, 0)
        low, high = _middle(positive / positive.sum(), 0.9)
        found_there[label] = (f"{percent(100 * sum(values[low:high + 1]))} in paths of {low} to {high} blocks, "
                              f"with {number(100 * sum(shares[label][low:high + 1]))} % of all paths")
    words = listed(found_there, most=2)
    figure = new_figure("Gradient by path length" + (f": {words}" if words else ""), 4.0, caption)
    panels = figure.subplots(1, max(1, len(carried)), sharey=True, squeeze=False)[0]
    for axes, label in zip(panels, carried or [""], strict=False):
        drawn: dict[str, Sequence[float]] = {}
        if carried:
            drawn = {"share of all paths": shares[label], "share of the gradient": carried[label]}
        for name, style in series(drawn).items():
            axes.plot(range(len(drawn[name])), drawn[name], **style)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        dress(axes, label, LENGTH, "share" if axes is panels[0] else "", empty=not carried)
    legend_below(figure, panels)
    return figure


def _middle(weights: Any, share: float) -> tuple[int, int]:
    """Return the first and the last length of the shortest run of lengths that holds this share of the weight."""
    total = np.concatenate([[0.0], np.cumsum(weights)])
    runs = [(high - low, low, high - 1) for low in range(len(weights)) for high in range(low + 1, len(total))
            if total[high] - total[low] >= share - 1e-12]
    _, low, high = min(runs)
    return low, high
