"""This module draws shattered gradients, as in Balduzzi et al. 2017, Figures 1 and 2."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from ..analysis import autocorrelation
from ..analysis.shattering import ENDS
from .labels import labelled, listed
from .style import GREY, Figure, dress, legend_below, log_scale, new_figure, series


def gradient_correlation(found: Any, caption: str = "") -> Figure:
    """Draw the correlation of gradients at different inputs by depth, beside the theory at initialisation.

    found: {depth: what analysis.gradient_correlation returns for a network of that depth}, or {label: such a mapping}

    The theory gives 2^-depth for plain networks, and (3/4)^depth for the first layers of residual networks without BN.
    For residual networks with BN it gives about depth^-1/2. These lines end below the smallest value of `found`.
    """
    shown = labelled(found, 1)
    if wrong := [d for values in shown.values() for d in values if not isinstance(d, Integral)]:
        raise ValueError("plot: expected {depth: correlation} or {label: {depth: correlation}}, where a depth is a "
                         f"whole number; got {wrong[0]!r} as a depth")
    depths = sorted({d for values in shown.values() for d in values})
    figure = new_figure(_correlation_title(shown), 4.2, caption)
    axes = figure.subplots()
    for label, style in series(shown).items():
        axes.plot(list(shown[label]), list(shown[label].values()), **style | {"label": style["label"] or "measured"})
    least = min((v for values in shown.values() for v in values.values() if v > 0), default=0.0)
    laws: dict[str, tuple[Callable[[int], float], tuple[int, ...]]] = {
        "2^-depth": (lambda d: 2.0**-d, (1, 2)), "(3/4)^depth": (lambda d: 0.75**d, (6, 2, 1, 2)),
        "depth^-1/2": (lambda d: d**-0.5, (4, 3))}
    for label, (law, dots) in laws.items():
        at = [d for d in depths if d > 0 and law(d) > least / 2]
        axes.plot(at, [law(d) for d in at], color=GREY, linewidth=1.0, linestyle=(0, dots), label=label)
    log_scale(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    dress(axes, "", "hidden layers", "correlation", empty=not shown)
    legend_below(figure, [axes])
    return figure


def _correlation_title(shown: Mapping[str, Mapping[int, float]]) -> str:
    """Return a title with the correlation of each label's deepest network."""
    text = "Correlation of the gradients at two inputs"
    last = {label: max(values) for label, values in shown.items() if values}
    same = len(set(last.values())) == 1
    at = listed({label: f"{shown[label][depth]:.2g}" + ("" if same else f" at {depth} layers")
                 for label, depth in last.items()})
    where = f", {max(last.values())} hidden layers" if same else ""
    return f"{text}{where}: {at}" if at else f"{text} by depth"


def gradient_on_a_line(found: Any, caption: str = "", lags: int = 16) -> Figure:
    """Draw df/dx along a line (above, standardised) and its autocorrelation at lags 0, 1, 2, ... (below).

    found: what analysis.gradient_on_a_line returns, or {label: such a result}, with one column for each
    """
    shown = {label: np.asarray(values, float) for label, values in labelled(found).items()}
    alike = {label: autocorrelation(g.tolist(), range(min(lags, len(g)))) for label, g in shown.items() if np.ptp(g)}
    at_1 = listed({label: f"{values[1]:.2f}" for label, values in alike.items() if len(values) > 1})
    title = f"Autocorrelation of the gradient at lag 1: {at_1}" if at_1 else "The gradient along a line"
    figure = new_figure(title, 5.4, caption)
    grid = figure.subplots(2, max(1, len(shown)), sharey="row", squeeze=False)
    for i, (label, style) in enumerate(series(shown).items()):
        g, (above, below) = shown[label], grid[:, i]
        above.plot(np.linspace(*ENDS, len(g)), (g - g.mean()) / (g.std() or 1), color=style["color"], linewidth=0.9)
        dress(above, label, "input x", "df/dx, standardised" if i == 0 else "")
        drawn = alike.get(label, [])
        below.vlines(range(len(drawn)), 0, drawn, color=style["color"], linewidth=2.4)
        below.axhline(0, color=GREY, linewidth=0.8)
        below.xaxis.set_major_locator(MaxNLocator(integer=True))
        dress(below, "", "lag (points)", "autocorrelation" if i == 0 else "")
    if not shown:
        for axes in grid[:, 0]:
            dress(axes, "", "", "", empty=True)
    return figure
