"""Lesions, construction and paths."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from .findings import number, percent
from .style import GREY, INK, Figure, dress, layer_ticks, legend_below, log_scale, new_figure, series

_DOTS: dict[str, Any] = {"color": INK, "linestyle": "none", "marker": "o", "markersize": 4}


def lesions(found: Mapping[str, Mapping[str, float]], shape_changes: Sequence[str] = (), caption: str = "") -> Figure:
    """Error without each block, {label: analysis.lesions(...)}; the dashed line is the whole network's.

    shape_changes: names of the blocks that change the shape, drawn hollow.
    """
    figure = new_figure(_lesion_title(found), 1.2 + 2.6 * max(1, len(found)), caption)
    panels = figure.subplots(max(1, len(found)), 1, squeeze=False)[:, 0]
    for axes, (label, style) in zip(panels, series(found).items(), strict=False):
        errors = found[label]
        names = [n for n in errors if n]
        hollow = [n in shape_changes for n in names]
        for shape, text in ((False, "one block deleted"), (True, "deleted block changes the shape")):
            at = [k + 1 for k, h in enumerate(hollow) if h == shape]
            if at:
                axes.bar(at, [errors[names[k - 1]] for k in at], width=0.75, label=text, linewidth=1.4,
                         color="white" if shape else style["color"], edgecolor=style["color"],
                         hatch="//" if shape else "")
        if "" in errors:
            axes.axhline(errors[""], color="#1a1a1a", linewidth=1.3, linestyle=(0, (4, 2)), label="nothing deleted")
        axes.set_ylim(0, min(105.0, 1.15 * max(errors.values(), default=100) + 1))
        axes.set_xticks(layer_ticks(max(len(names), 1)))
        dress(axes, label, "deleted block (1 = nearest the input)", "error (%)")
    if not found:
        dress(panels[0], "", "deleted block", "error (%)", empty=True)
    legend_below(figure, list(panels))
    return figure


def _lesion_title(found: Mapping[str, Mapping[str, float]]) -> str:
    parts = []
    for label, errors in found.items():
        without = [e for n, e in errors.items() if n]
        if without and "" in errors:
            parts.append(f"{label} {percent(errors[''])} to {percent(sum(without) / len(without))}")
    return "Deleting one block raises the mean error: " + "; ".join(parts) if parts and all(
        sum(e for n, e in errors.items() if n) > errors.get("", 0) * (len(errors) - 1) for errors in found.values()
    ) else "Error with one block deleted"


def deleted_blocks(found: Mapping[str, Mapping[int, Sequence[float]]], caption: str = "") -> Figure:
    """Error against the number of random blocks deleted, {label: analysis.delete_k(...)}: mean, and each trial."""
    common = sorted(set.intersection(*(set(errors) for errors in found.values()))) if found else []
    k = common[len(common) // 2] if common else 0
    title = f"Error with {k} random block{'s' * (k > 1)} deleted, mean: " + "; ".join(
        f"{label} {percent(float(np.mean(errors[k])))}" for label, errors in found.items())
    figure = new_figure(title if k else "Error with several random blocks deleted", 4.2, caption)
    axes = figure.subplots()
    for label, style in series(found).items():
        errors = found[label]
        for k, values in errors.items():
            axes.plot([k] * len(values), values, linestyle="none", marker=style["marker"], markersize=4,
                      color=style["color"], markerfacecolor="white")
        axes.plot(list(errors), [np.mean(v) for v in errors.values()], **style | {"label": f"{label}, mean"})
    axes.set_ylim(0, 100)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    dress(axes, "", "blocks deleted", "error (%)", empty=not found)
    legend_below(figure, [axes], extra="hollow: one trial" if found else "")
    return figure


def swapped_blocks(found: Sequence[Any], caption: str = "") -> Figure:
    """Error against how far the blocks' order was disturbed: the list of analysis.swap_blocks."""
    title, ranked = "Error with blocks exchanged", sorted(found, key=lambda s: -s.correlation)
    if len(ranked) > 1:
        title += f": {percent(ranked[0].error)} at rank correlation {ranked[0].correlation:.2f}, " \
                 f"{percent(ranked[-1].error)} at {ranked[-1].correlation:.2f}"
    figure = new_figure(title, 4.0, caption)
    axes = figure.subplots()
    axes.plot([s.correlation for s in found], [s.error for s in found], **_DOTS)
    axes.set_xlim(1.02, min([s.correlation for s in found], default=0) - 0.02)
    axes.set_ylim(0, 100)
    dress(axes, "", "Kendall's rank correlation with the original order (1: undisturbed)", "error (%)", empty=not found)
    return figure


def construction(shallow: Any, deep: Any, caption: str = "") -> Figure:
    """Logits of a network and of the deeper one built from it, (N, classes) each: they lie on the diagonal."""
    a, b = np.asarray(shallow, float).ravel(), np.asarray(deep, float).ravel()
    difference = float(abs(a - b).max()) if a.size else 0.0
    title = f"The deeper network built by identity layers: largest difference of logits {number(difference)}"
    figure = new_figure(title, 4.6, caption)
    axes = figure.subplots()
    if a.size:
        ends = [min(a.min(), b.min()), max(a.max(), b.max())]
        axes.plot(ends, ends, color=GREY, linewidth=1.0, label="equal")
    axes.plot(a, b, label="one logit of one image", **_DOTS)
    dress(axes, "", "logit of the shallow network", "logit of the deeper one", empty=not a.size)
    legend_below(figure, [axes])
    return figure


def paths(shares: Sequence[float], gradients: Mapping[int, Sequence[float]], caption: str = "") -> Figure:
    """Paths by length: how many there are, how much gradient one carries, and the product (Veit et al. 2016, Fig. 6).

    shares: analysis.path_shares; gradients: analysis.path_gradients, {length: norms}. Lengths that were not measured
    between two that were are filled in on the log scale.
    """
    lengths = np.arange(len(shares))
    measured = sorted(k for k, v in gradients.items() if len(v) and np.mean(v) > 0)
    title, product = "Paths by length", None
    if measured:
        means = np.log([np.mean(gradients[k]) for k in measured])
        inside = (lengths >= measured[0]) & (lengths <= measured[-1])
        product = np.where(inside, np.exp(np.interp(lengths, measured, means)) * np.asarray(shares), 0)
        product = product / product.sum()
        low, high = _middle(product, 0.9)
        share = 100 * sum(shares[low:high + 1])
        title = (f"Number of paths times norm of one: 90 % at lengths of {low} to {high} blocks, {number(share)} % of "
                 f"all paths (measured: lengths {measured[0]} to {measured[-1]})")
    figure = new_figure(title, 3.9, caption)
    left, middle, right = figure.subplots(1, 3)
    line = {"color": INK, "linewidth": 2.0}
    left.plot(lengths, shares, **line)
    dress(left, "how many", "path length (blocks)", "share of all paths")
    for k in measured:
        values = gradients[k]
        middle.plot([k] * len(values), values, linestyle="none", marker="o", markersize=3.5, markerfacecolor="white",
                    color=GREY)
    if measured:
        middle.plot(measured, np.exp(means), **line)
        right.plot(lengths, product, **line)
    log_scale(middle)
    for axes in (left, middle, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    dress(middle, "gradient of one path", "path length (blocks)", "norm at the input", empty=not measured)
    dress(right, "their product", "path length (blocks)", "share of the product", empty=not measured)
    return figure


def gradient_by_length(shares: Sequence[float], carried: Sequence[float], caption: str = "") -> Figure:
    """The share of all paths and the share of the gradient at every length 0, 1, ..., both of which sum to 1.

    shares: analysis.path_shares. carried: of analysis.gradients_by_length, projected on the whole gradient, so that
    shares add up; where paths cancel, one may be below 0 or above 1.
    """
    title = "Gradient by path length"
    if len(carried):
        positive = np.maximum(carried, 0)
        low, high = _middle(positive / positive.sum(), 0.9)
        title = (f"Paths of {low} to {high} blocks: {percent(100 * sum(carried[low:high + 1]))} of the gradient, "
                 f"{number(100 * sum(shares[low:high + 1]))} % of all paths")
    figure = new_figure(title, 4.0, caption)
    axes = figure.subplots()
    drawn = {"share of all paths": shares, "share of the gradient": carried}
    for label, style in series(drawn).items():
        axes.plot(range(len(drawn[label])), drawn[label], **style)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    dress(axes, "", "path length (blocks)", "share", empty=not len(carried))
    legend_below(figure, [axes])
    return figure


def _middle(weights: Any, share: float) -> tuple[int, int]:
    """The shortest run of lengths that holds so much of the weight."""
    total = np.concatenate([[0.0], np.cumsum(weights)])
    runs = [(high - low, low, high - 1) for low in range(len(weights)) for high in range(low + 1, len(total))
            if total[high] - total[low] >= share - 1e-12]
    _, low, high = min(runs)
    return low, high
