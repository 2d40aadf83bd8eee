"""This module draws signal, gradients, activations and updates over depth and over training time."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator

from .findings import GROWTH_TOTAL, growth
from .labels import labelled, listed, nested, said
from .numbers import number
from .style import (
    BAND,
    INK,
    LABEL,
    LIMIT,
    MARK,
    SECOND,
    THEORY,
    TICK,
    Figure,
    colour_bar,
    dress,
    every,
    layer_ticks,
    legend_below,
    log_scale,
    new_figure,
    series,
)


def second_moments(found: Any, caption: str = "") -> Figure:
    """Draw the second moment of every block's output on a log scale.

    found: what analysis.second_moments returns, or {label: such a result}
    """
    shown = labelled(found, 1)
    factors = {label: _factor(list(values.values())) for label, values in shown.items()}
    words = listed({label: words for label, words in factors.items() if words})
    figure = new_figure(f"Second moment by block: {words}" if words else "Second moment by block", 4.4, caption)
    axes = figure.subplots()
    for label, style in series(shown).items():
        values = list(shown[label].values())
        axes.plot(range(len(values)), values, markevery=every(len(values)), **style)
    log_scale(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    dress(axes, "", "block (0 = the first block's input)", "second moment of the output", empty=not shown)
    legend_below(figure, [axes])
    return figure


def _factor(moments: Sequence[float]) -> str:
    """Describe the signal's growth after the first block: a factor or a step per block, or level for less than x 2."""
    if len(moments) < 4 or min(moments) <= 0:
        return ""
    v, at = np.asarray(moments[1:]), np.arange(len(moments) - 1)
    factor, start = np.polyfit(at, np.log(v), 1)
    if abs(factor * at[-1]) < math.log(GROWTH_TOTAL):
        return "about level"
    step, first = np.polyfit(at, v, 1)
    line = first + step * at
    if line.min() <= 0 or (np.log(v / line) ** 2).sum() > ((np.log(v) - start - factor * at) ** 2).sum():
        return f"× {number(math.exp(factor))} per block"
    return f"{step:+.2f} per block"


def gradient_flow(found: Any, caption: str = "") -> Figure:
    """Draw the gradient norms of weights (left) and activations (right) by layer.

    found: what analysis.gradient_flow returns, or {label: such a result}; labels can be networks, or steps of a
    training ({0: ..., 100: ...}, from `follow`)

    The scale is logarithmic, and norms of 0 are left out. The title gives analysis.growth_per_layer for up to four
    labels.
    """
    shown = labelled(found)
    figure = new_figure(_flow_title(shown), 4.4, caption)
    panels = figure.subplots(1, 2)
    for axes, kind in zip(panels, ("weights", "activations"), strict=True):
        most = 0
        for label, style in series(shown).items():
            norms = list(getattr(shown[label], kind).values())
            most = max(most, len(norms))
            axes.plot(range(1, len(norms) + 1), norms, markevery=every(len(norms), 8), **style)
        log_scale(axes)
        axes.set_xticks(layer_ticks(max(most, 1)))
        dress(axes, f"gradient of the {kind}", "layer (1 = nearest the input)", "gradient norm, L2", empty=not shown)
    legend_below(figure, panels, columns=5)
    return figure


def _flow_title(shown: Mapping[str, Any]) -> str:
    rates = {label: growth(list(flow.activations.values())) for label, flow in shown.items()}
    words = listed({label: f"× {number(rate.per_layer)}" for label, rate in rates.items() if rate})
    return f"Gradient of the activations, growth per layer toward the input: {words}" if words else \
        "Gradient norm per layer"


def activations(found: Any, caption: str = "", names: Sequence[str] = ()) -> Figure:
    """Draw the distributions of the nonlinearities' inputs.

    found   what analysis.activations returns, {label: such a result}, or {step: such a result} over a training, from
            `follow`
    names   the nonlinearities to draw; by default all, or over a training the first, the middle and the last

    The colour shows how often a value occurs, and the line shows the share of dead units. Each network has a panel,
    with a column for each nonlinearity. Over a training each nonlinearity has a panel, with a column for each step.

    Raises ValueError for a name that a result does not have.
    """
    over_time = nested(found) == 2 and all(isinstance(step, Integral) for step in found)
    shown = {str(step): found[step] for step in sorted(found)} if over_time else labelled(found, 1)
    shown = {label: result for label, result in shown.items() if result}
    known = list(next(iter(shown.values()), {}))
    missing = [n for n in names if any(n not in result for result in shown.values())]
    if missing and shown:
        raise ValueError(f"activations: no nonlinearity named {', '.join(missing)}; the names are " + ", ".join(known))
    panels: dict[str, dict[str, Any]]  # {title: {column: Activation}}
    if over_time:
        chosen = list(names) or [known[i] for i in sorted({0, len(known) // 2, len(known) - 1})] if known else []
        panels = {name: {step: result[name] for step, result in shown.items()} for name in chosen}
    else:
        panels = {label: {n: a for n, a in result.items() if n in (names or result)} for label, result in shown.items()}
    figure = new_figure(_dead_title(panels, over_time), 4.2, caption)
    grid = figure.subplots(1, max(1, len(panels)), sharey=True, squeeze=False)[0]
    image = None
    for axes, (title, columns) in zip(grid, panels.items(), strict=False):
        image = _histograms(axes, list(columns.values()), last=axes is grid[-1])
        ticks = sorted({round(i) for i in np.linspace(0, len(columns) - 1, min(len(columns), 5))})
        axes.set_xticks(ticks, [list(columns)[i] if over_time else str(i + 1) for i in ticks])
        x = "step" if over_time else "nonlinearity (1 = nearest the input)"
        dress(axes, title, x, "input of the nonlinearity" if axes is grid[0] else "")
        axes.grid(False)
    if image is not None:
        colour_bar(figure, image, list(grid), "share of the inputs")
    else:
        dress(grid[0], "", "step", "input of the nonlinearity", empty=True)
    return figure


def _dead_title(panels: Mapping[str, Mapping[str, Any]], over_time: bool) -> str:
    """Return a title with the largest share of dead units: at a training's last step, or over all nonlinearities."""
    dead = [(list(columns.items())[-1][1].dead, "", title) for title, columns in panels.items()] if over_time else \
        [(a.dead, label, name) for label, columns in panels.items() for name, a in columns.items()]
    share, label, name = max(dead, key=lambda found: found[0], default=(0.0, "", ""))
    if not share:
        return "Inputs of the nonlinearities" + " during training" * over_time
    words = f"{100 * share:.0f} % of the units after {name} are dead"
    return f"At step {list(panels[name])[-1]}, {words}" if over_time else said(label, words, ": ")


def _histograms(axes: Axes, columns: Sequence[Any], last: bool) -> Any:
    """Draw the histograms side by side, and over them the share of dead units if there are any."""
    counts = np.array([a.counts for a in columns], float).T
    shares = counts / counts.sum(0)
    limit = columns[0].limit
    image = axes.imshow(np.where(shares > 0, shares, np.nan), aspect="auto", origin="lower", cmap="Greys",
                        norm=LogNorm(1e-4, 1), interpolation="nearest",
                        extent=(-0.5, len(columns) - 0.5, -limit, limit))
    axes.axhline(0, color=MARK, linewidth=1.0, linestyle=LIMIT)
    dead = [100 * a.dead for a in columns]
    if max(dead) > 0:
        twin = axes.twinx()
        twin.plot(range(len(dead)), dead, color="white", linewidth=4.5)  # a rim, as the line crosses dark areas
        twin.plot(range(len(dead)), dead, color=SECOND, linewidth=2, marker="o", markersize=5, markeredgecolor="white")
        twin.set_ylim(0, 105)
        twin.set_ylabel("dead units (%), line" if last else "", fontsize=LABEL, color=SECOND)
        twin.tick_params(labelsize=TICK, colors=SECOND)
    return image


def update_ratios(found: Any, caption: str = "") -> Figure:
    """Draw ||update|| / ||weight|| of every layer over a training, on a log scale.

    found: what analysis.update_ratios returns, {step: {layer: ratio}}, or {label: such a result}, with one panel for
    each

    A band reaches from the layer with the smallest ratio to the layer with the largest. Lines show the first, the
    middle and the last layer.
    """
    shown = {label: history for label, history in labelled(found, 2).items() if any(history.values())}
    layers = {label: [n for n in history[max(history)] if all(history[s].get(n) for s in history)]
              for label, history in shown.items()}
    means = {label: math.exp(float(np.mean(np.log([history[max(history)][n] for n in layers[label]]))))
             for label, history in shown.items() if layers[label]}
    words = listed({label: f"{number(mean)} at step {max(shown[label])}" for label, mean in means.items()})
    figure = new_figure("Update-to-weight ratio per step" + (f": {words}, geometric mean over the layers"
                                                             if words else ""), 4.2, caption)
    panels = figure.subplots(1, max(1, len(means)), sharey=True, squeeze=False)[0]
    for axes, label in zip(panels, means, strict=False):
        steps, names = sorted(shown[label]), layers[label]
        grid = np.array([[shown[label][s][n] for n in names] for s in steps])
        axes.fill_between(steps, grid.min(1), grid.max(1), color=BAND, label="smallest to largest layer")
        at = sorted({0, len(names) // 2, len(names) - 1})
        # Layers of several networks have different names, so the legend gives their position.
        called = [names[i] for i in at] if len(means) == 1 else ["first layer", "middle layer", "last layer"][:len(at)]
        for i, style in zip(at, series(called).values(), strict=True):
            axes.plot(steps, grid[:, i], markevery=every(len(steps)), **style)
    for axes in panels:
        axes.axhline(1e-3, color=INK, linewidth=0.9, linestyle=THEORY, label="rule of thumb, 1e-3")
        log_scale(axes)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes, label in zip(panels, means or [""], strict=False):
        dress(axes, label, "step", "|update| / |weight|" if axes is panels[0] else "", empty=not means)
    legend_below(figure, panels, columns=5)
    return figure
