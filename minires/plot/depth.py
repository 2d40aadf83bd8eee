"""This module draws the errors of finished trainings against depth, and the gap between training and test error."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

from .style import GREY, INK, Figure, dress, legend_below, new_figure, series


def errors_by_depth(found: Mapping[str, Mapping[int, Sequence[float]]], title: str = "",
                    caption: str = "") -> Figure:
    """Draw training error against depth.

    found: {label: {number of layers: the error of every seed, percent}}

    A line goes through the means, and each of several seeds has a cross. The degradation of He et al. 2015, Fig. 1, is
    an increase of this error with depth, not with training time.
    """
    means = {label: {depth: sum(e) / len(e) for depth, e in sorted(by.items()) if e} for label, by in found.items()}
    parts = [f"{label}: " + ", ".join(f"{e:.1f} at {depth}" for depth, e in by.items()) for label, by in means.items()]
    figure = new_figure(title or "Training error (%) by depth" + ". " * bool(parts) + "; ".join(parts), 4.0, caption)
    axes = figure.subplots()
    for label, style in series(found).items():
        axes.plot(list(means[label]), list(means[label].values()), **style)
        dots = [(depth, e) for depth in means[label] for e in found[label][depth] if len(found[label][depth]) > 1]
        axes.plot([d for d, _ in dots], [e for _, e in dots], "x", color=style["color"], markersize=6)
    axes.set_xticks(sorted({depth for by in found.values() for depth in by}))
    axes.set_ylim(0, None)
    dress(axes, "", "number of layers", "training error (%)", empty=not any(found.values()))
    legend_below(figure, [axes])
    return figure


def error_gaps(found: Mapping[str, tuple[float, float]], caption: str = "") -> Figure:
    """Draw two marks for every network: its training error and its test error.

    found: {name: (training error, test error)}, percent

    A wide gap between the marks means overfitting. A high training error means degradation.
    """
    gaps = ", ".join(f"{name} {test - train:.1f}" for name, (train, test) in found.items())
    figure = new_figure(f"Test error minus training error, percentage points: {gaps}" if gaps else
                        "Training and test error", 1.9 + 0.36 * len(found), caption)
    axes, rows = figure.subplots(), range(len(found))
    train, test = ([pair[i] for pair in found.values()] for i in (0, 1))
    axes.hlines(rows, train, test, GREY, linewidth=2)
    axes.plot(train, rows, "o", color=INK, markersize=7, label="training error")
    axes.plot(test, rows, "s", color=INK, markersize=7, fillstyle="none", label="test error")
    axes.set_yticks(rows, list(found))
    axes.set_ylim(max(1, len(found)) - 0.5, -0.5)
    axes.set_xlim(0, None)
    dress(axes, "", "error (%)", "", empty=not found)
    legend_below(figure, [axes])
    return figure
