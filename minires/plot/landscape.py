"""The loss surface: Li et al. 2018, Figures 1 and 2."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .findings import number
from .style import INK, Figure, colour_bar, dress, every, legend_below, log_scale, new_figure, series


def loss_line(found: Mapping[str, Any], caption: str = "") -> Figure:
    """Loss (left, log scale) and error (right) along a direction, {label: analysis.loss_line(...)}."""
    sharp = "; ".join(f"{label} {number(line.curvature)}" for label, line in found.items())
    title = f"Curvature of the loss at the trained weights: {sharp}" if found else "Loss along a direction"
    figure = new_figure(title, 4.2, caption)
    left, right = figure.subplots(1, 2)
    for label, style in series(found).items():
        line = found[label]
        style["markevery"] = every(len(line.at), 10)
        left.plot(line.at, line.loss, **style)
        right.plot(line.at, line.error, **style)
    log_scale(left)
    right.set_ylim(bottom=0)
    dress(left, "", "along a filter-normalised direction", "cross-entropy", empty=not found)
    dress(right, "", "along a filter-normalised direction", "error (%)", empty=not found)
    legend_below(figure, [left])
    return figure


def loss_surface(found: Mapping[str, Any], caption: str = "") -> Figure:
    """Contours of the loss over two directions, one panel for each {label: analysis.loss_surface(...)}."""
    ranges = "; ".join(f"{label} {number(s.loss[len(s.at) // 2][len(s.at) // 2])} at the centre, up to "
                       f"{number(_largest(s.loss))}" for label, s in found.items())
    title = f"Loss around the trained weights: {ranges}" if found else "Loss surface"
    figure = new_figure(title, 4.6, caption)
    panels = figure.subplots(1, max(1, len(found)), squeeze=False)[0]
    logs = {label: np.log10(np.maximum(np.asarray(s.loss, float), 1e-12)) for label, s in found.items()}
    low = min((_largest(-v) * -1 for v in logs.values()), default=0.0)
    high = max((_largest(v) for v in logs.values()), default=1.0)
    levels = np.linspace(low, max(high, low + 1e-6), 15)
    image = None
    for axes, (label, surface) in zip(panels, found.items(), strict=False):
        image = axes.contourf(surface.at, surface.at, logs[label].T, levels=levels, cmap="Greys", extend="both")
        axes.contour(surface.at, surface.at, logs[label].T, levels=levels, colors=INK, linewidths=0.5,
                     linestyles="solid")
        axes.plot([0], [0], marker="+", color="#d94801", markersize=12, markeredgewidth=2)
        dress(axes, label, "first direction", "second direction" if axes is panels[0] else "")
        axes.grid(False)
        axes.set_aspect("equal")
        axes.set_xticks(axes.get_yticks()[::2])
        axes.set_xlim(surface.at[0], surface.at[-1])
    if image is None:
        dress(panels[0], "", "first direction", "second direction", empty=True)
    else:
        colour_bar(figure, image, list(panels), "log10 of the cross-entropy", "%.1f")
    return figure


def _largest(values: Any) -> float:
    """Of those that are finite: far from the weights a loss may not be."""
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    return float(finite.max()) if finite.size else 0.0
