"""What flows through a network: signal, gradients, activations and updates, over depth and over time."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator

from .findings import GROWTH_TOTAL, number
from .style import (
    GREY,
    INK,
    LABEL,
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

Layers = Mapping[str, float]  # {layer: number}, in layer order


def signal_growth(found: Mapping[str, Layers], caption: str = "") -> Figure:
    """Second moment of every block's output, {label: analysis.second_moments(...)}, log scale."""
    factors = {label: _factor(list(values.values())) for label, values in found.items()}
    title = "Signal over depth: " + "; ".join(f"{label} {text}" for label, text in factors.items() if text)
    figure = new_figure(title if any(factors.values()) else "Signal over depth", 4.4, caption)
    axes = figure.subplots()
    for label, style in series(found).items():
        values = list(found[label].values())
        axes.plot(range(len(values)), values, markevery=every(len(values)), **style)
    log_scale(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    dress(axes, "", "block (0 = the first block's input)", "second moment of the output", empty=not found)
    legend_below(figure, [axes])
    return figure


def _factor(moments: Sequence[float]) -> str:
    """How the signal grows in words, leaving out the first block: by a factor, or by a sum, if by a factor of two."""
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


def gradient_flow(found: Mapping[str, Any], caption: str = "") -> Figure:
    """Gradient norms of weights (left) and activations (right) per layer, {label: analysis.gradient_flow(...)}.

    Labels may be steps of a training ({0: ..., 100: ...}, from `follow`) or networks. Log scale, without norms of 0.
    """
    figure = new_figure(_flow_title(found), 4.4, caption)
    panels = figure.subplots(1, 2)
    for axes, kind in zip(panels, ("weights", "activations"), strict=True):
        most = 0
        for label, style in series(found).items():
            norms = list(getattr(found[label], kind).values())
            most = max(most, len(norms))
            style["label"] = f"step {label}" if isinstance(label, int) else label
            axes.plot(range(1, len(norms) + 1), norms, markevery=every(len(norms), 8), **style)
        log_scale(axes)
        axes.set_xticks(layer_ticks(max(most, 1)))
        dress(axes, f"of the {kind}", "layer (1 = nearest the input)", "gradient norm, L2", empty=not found)
    legend_below(figure, panels, columns=5)
    return figure


def _flow_title(found: Mapping[Any, Any]) -> str:
    parts = []
    for label, flow in found.items():
        norms = list(flow.activations.values())[1:-1]
        if len(norms) > 2 and min(norms[0], norms[-1]) > 0:
            rate = (norms[0] / norms[-1]) ** (1 / (len(norms) - 1))
            parts.append(f"{'step ' if isinstance(label, int) else ''}{label} × {number(rate)}")
    if not parts or len(parts) > 4:
        return "Gradient norm per layer"
    return "Gradient of the activations, per layer toward the input: " + "; ".join(parts)


def activation_histograms(history: Mapping[int, Mapping[str, Any]], names: Sequence[str] = (),
                          caption: str = "") -> Figure:
    """What goes into the nonlinearities over a training, {step: analysis.activations(...)}: colour is how often a value
    occurs; the line is the share of dead units. One panel for each of `names` (default: first, middle and last)."""
    steps = sorted(history)
    known = list(history[steps[0]]) if steps else []
    missing = [n for n in names if n not in known]
    if missing:
        raise ValueError(f"activation_histograms: no activation named {', '.join(missing)}; there are "
                         + ", ".join(known))
    shown = list(names) or [known[i] for i in sorted({0, len(known) // 2, len(known) - 1})] if known else []
    dead = {n: history[steps[-1]][n].dead for n in shown}
    worst = max(dead, key=lambda n: dead[n], default="")
    title = (f"At step {steps[-1]}, {100 * dead[worst]:.0f} % of the units behind {worst} are dead"
             if worst and dead[worst] > 0 else "What goes into the nonlinearities, over the training")
    figure = new_figure(title, 4.2, caption)
    panels = figure.subplots(1, max(1, len(shown)), sharey=True, squeeze=False)[0]
    image = None
    for axes, name in zip(panels, shown, strict=False):
        first = history[steps[0]][name]
        counts = np.array([history[s][name].counts for s in steps], float).T
        image = axes.imshow(np.where(counts > 0, counts, np.nan), aspect="auto", origin="lower", cmap="Greys",
                            norm=LogNorm(1, max(2.0, counts.max())), interpolation="nearest",
                            extent=(-0.5, len(steps) - 0.5, -first.limit, first.limit))
        axes.axhline(0, color="#d94801", linewidth=1.0, linestyle=(0, (4, 2)))
        dress(axes, name, "step", "input of the nonlinearity" if axes is panels[0] else "")
        axes.grid(False)
        ticks = sorted({round(i) for i in np.linspace(0, len(steps) - 1, min(len(steps), 5))})
        axes.set_xticks(ticks, [str(steps[i]) for i in ticks])
        share = [100 * history[s][name].dead for s in steps]
        if max(share) > 0:
            twin = axes.twinx()
            twin.plot(range(len(steps)), share, color="white", linewidth=4.5)  # a rim: the line crosses dark ground
            twin.plot(range(len(steps)), share, color="#08519c", linewidth=2, marker="o", markersize=5,
                      markeredgecolor="white")
            twin.set_ylim(0, 105)
            twin.set_ylabel("dead units (%), line" if axes is panels[-1] else "", fontsize=LABEL, color="#08519c")
            twin.tick_params(labelsize=TICK, colors="#08519c")
    if image is not None:
        colour_bar(figure, image, list(panels), "count")
    else:
        dress(panels[0], "", "step", "input of the nonlinearity", empty=True)
    return figure


def update_ratios(history: Mapping[int, Layers], caption: str = "") -> Figure:
    """||update|| / ||weight|| of every layer over a training, {step: {layer: ratio}} of analysis.update_ratios.

    A band from the smallest to the largest layer, and lines for the first, the middle and the last; log scale.
    """
    steps = sorted(history)
    layers = [n for n in (history[steps[-1]] if steps else ()) if all(history[s].get(n) for s in steps)]
    last = [history[steps[-1]][n] for n in layers] if steps else []
    title = "Update-to-weight ratio per step"
    if last:
        mean = math.exp(float(np.mean(np.log(last))))
        title += f": {number(mean)} at step {steps[-1]}, geometric mean over the layers"
    figure = new_figure(title, 4.2, caption)
    axes = figure.subplots()
    if layers:
        grid = np.array([[history[s][n] for n in layers] for s in steps])
        axes.fill_between(steps, grid.min(1), grid.max(1), color="#c6c6c6", label="smallest to largest layer")
        shown = [layers[i] for i in sorted({0, len(layers) // 2, len(layers) - 1})]
        for name, style in series(shown).items():
            axes.plot(steps, grid[:, layers.index(name)], markevery=every(len(steps)), **style)
    axes.axhline(1e-3, color=INK, linewidth=0.9, linestyle=(0, (1, 2)), label="rule of thumb, 1e-3")
    log_scale(axes)
    dress(axes, "", "step", "|update| / |weight|", empty=not layers)
    legend_below(figure, [axes], columns=5)
    return figure


def layer_responses(found: Mapping[str, Layers], caption: str = "") -> Figure:
    """Layer responses of any network in layer order (left) and sorted (right), {label: analysis.responses(...)}.

    The line at 1 is every network's before training: the control. Compare He et al. 2015, Figure 7; for the networks
    of a run side by side see `responses`.
    """
    means = "; ".join(f"{label} {np.mean(list(values.values())):.2f}" for label, values in found.items() if values)
    figure = new_figure(f"Mean response of the 3x3 layers: {means}" if means else "Layer responses", 4.2, caption)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, order in zip(panels, ("in layer order", "sorted"), strict=True):
        count = max((len(values) for values in found.values()), default=0)
        for label, style in series(found).items():
            values = list(found[label].values())
            values = sorted(values, reverse=True) if order == "sorted" else values
            axes.plot(range(1, len(values) + 1), values, markevery=every(len(values)), **style)
        axes.axhline(1, color=GREY, linewidth=1.1, linestyle=(0, (1, 2)), label="before training (control)")
        axes.set_ylim(bottom=0)
        axes.set_xticks(layer_ticks(max(count, 1)))
        x = "3x3 layer (1 = nearest the input)" if order != "sorted" else "rank (1 = largest response)"
        dress(axes, order, x, "std of the output after BN" if order != "sorted" else "", empty=not found)
    legend_below(figure, panels)
    return figure
