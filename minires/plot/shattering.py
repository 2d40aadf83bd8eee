"""Shattered gradients: Balduzzi et al. 2017, Figures 1 and 2."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from .style import GREY, SERIES, Figure, dress, legend_below, log_scale, new_figure, series


def gradient_correlation(found: Mapping[str, Mapping[int, float]], caption: str = "") -> Figure:
    """Correlation of gradients at different inputs by depth, {label: {depth: correlation}}, beside the theory at
    initialisation: 2^-depth for plain networks, (3/4)^depth for residual ones without BN."""
    depths = sorted({d for values in found.values() for d in values})
    common = [d for d in depths if all(d in values for values in found.values())]
    at = "; ".join(f"{label} {values[common[-1]]:.2g}" for label, values in found.items()) if common else ""
    figure = new_figure(f"Correlation of the gradients at two inputs, {common[-1]} layers: {at}" if common else
                        "How alike the gradients at two inputs are, by depth", 4.2, caption)
    axes = figure.subplots()
    for label, style in series(found).items():
        axes.plot(list(found[label]), list(found[label].values()), **style)
    for base, dots, label in ((2.0**-1, (1, 2), "2^-depth"), (0.75, (6, 2, 1, 2), "(3/4)^depth")):
        axes.plot(depths, [base**d for d in depths], color=GREY, linewidth=1.0, linestyle=(0, dots), label=label)
    log_scale(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    dress(axes, "", "hidden layers", "correlation", empty=not found)
    legend_below(figure, [axes])
    return figure


def gradients_on_a_line(found: Mapping[str, Sequence[float]], autocorrelations: Mapping[str, Sequence[float]],
                        caption: str = "") -> Figure:
    """df/dx along a line (above, each scaled to deviation 1) and its autocorrelation at lags 0, 1, 2, ... (below).

    found: {label: analysis.gradient_on_a_line(...)} over x from -2 to 2; autocorrelations: {label: values by lag}.
    """
    at_1 = [f"{label}: {values[1]:.2f}" for label, values in autocorrelations.items() if len(values) > 1]
    title = "Autocorrelation of the gradient at lag 1. " + "; ".join(at_1) if at_1 else "The gradient along a line"
    figure = new_figure(title, 5.4, caption)
    grid = figure.subplots(2, max(1, len(found)), sharey="row", squeeze=False)
    for i, (label, values) in enumerate(found.items()):
        colour = SERIES[""][i % 5][0]
        g = np.asarray(values, float)
        above, below = grid[0][i], grid[1][i]
        above.plot(np.linspace(-2, 2, len(g)), (g - g.mean()) / (g.std() or 1), color=colour, linewidth=0.9)
        dress(above, label, "input x", "df/dx, standardised" if i == 0 else "")
        lags = autocorrelations.get(label, ())
        below.vlines(range(len(lags)), 0, lags, color=colour, linewidth=2.4)
        below.axhline(0, color=GREY, linewidth=0.8)
        below.xaxis.set_major_locator(MaxNLocator(integer=True))
        dress(below, "", "lag (points)", "autocorrelation" if i == 0 else "")
    if not found:
        for axes in grid[:, 0]:
            dress(axes, "", "", "", empty=True)
    return figure
