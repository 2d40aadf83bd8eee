"""This module draws the loss surface, as in Li et al. 2018, Figures 1 and 2."""
from __future__ import annotations

from typing import Any

import numpy as np

from .labels import labelled, listed
from .numbers import number
from .style import (
    INK,
    MARK,
    Figure,
    colour_bar,
    dress,
    every,
    legend_below,
    log_scale,
    new_figure,
    series,
    square_panels,
)


def loss_line(found: Any, caption: str = "") -> Figure:
    """Draw loss (left, log scale) and error (right) along a direction.

    found: what analysis.loss_line returns, or {label: such a result}
    """
    shown = labelled(found)
    sharp = listed({label: number(line.curvature) for label, line in shown.items()})
    figure = new_figure(f"Curvature of the loss at the network's weights: {sharp}" if sharp else
                        "Loss along a direction", 4.2, caption)
    left, right = figure.subplots(1, 2)
    for label, style in series(shown).items():
        line = shown[label]
        style["markevery"] = every(len(line.at), 10)
        left.plot(line.at, line.loss, **style)
        right.plot(line.at, line.error, **style)
    log_scale(left)
    right.set_ylim(bottom=0)
    dress(left, "", "position along a filter-normalised direction", "cross-entropy", empty=not shown)
    dress(right, "", "position along a filter-normalised direction", "error (%)", empty=not shown)
    legend_below(figure, [left])
    return figure


def loss_surface(found: Any, caption: str = "") -> Figure:
    """Draw contours of the loss over two directions. The cross marks the network's own weights.

    found: what analysis.loss_surface returns, or {label: such a result}, with one panel for each
    """
    shown = labelled(found)
    ranges = listed({label: f"{number(s.loss[len(s.at) // 2][len(s.at) // 2])} at the centre, up to "
                            f"{number(_largest(s.loss))}" for label, s in shown.items()}, most=2)
    title = f"Loss around the network's weights: {ranges}" if ranges else "Loss surface"
    figure, panels = square_panels(title, caption, len(shown))
    logs = {label: np.log10(np.maximum(np.asarray(s.loss, float), 1e-12)) for label, s in shown.items()}
    low = min((_largest(-v) * -1 for v in logs.values()), default=0.0)
    high = max((_largest(v) for v in logs.values()), default=1.0)
    levels = np.linspace(low, max(high, low + 1e-6), 15)
    image = None
    for axes, (label, surface) in zip(panels, shown.items(), strict=False):
        image = axes.contourf(surface.at, surface.at, logs[label].T, levels=levels, cmap="Greys", extend="both")
        axes.contour(surface.at, surface.at, logs[label].T, levels=levels, colors=INK, linewidths=0.5,
                     linestyles="solid")
        axes.plot([0], [0], marker="+", color=MARK, markersize=12, markeredgewidth=2)
        dress(axes, label, "first direction", "second direction" if axes in panels[::2] else "")
        axes.grid(False)
        axes.set_xticks(axes.get_yticks()[::2])
        axes.set_xlim(surface.at[0], surface.at[-1])
    if image is None:
        dress(panels[0], "", "first direction", "second direction", empty=True)
    else:
        colour_bar(figure, image, list(panels), "log10 of the cross-entropy", lambda v, _: f"{round(v, 1) + 0.0:.1f}")
    return figure


def _largest(values: Any) -> float:
    """Return the largest finite value, because far from the weights a loss can be infinite; 0 if there is none."""
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    return float(finite.max()) if finite.size else 0.0
