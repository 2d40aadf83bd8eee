"""This module draws errors, gradients and responses of the networks of a run, as `minires demo` measures them.

Every function takes ``nets``, {name of a network: dict of lists}, as in results.json under ``"nets"``. A network can
have any name. Networks are compared if their names can be read as a family and a depth, such as "plain-20" or
"resnet56".
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..names import printed, shortened
from .findings import (
    Nets,
    by_depth,
    depth_hurts,
    depths,
    growth,
    layers,
    of_depth,
    response_pairs,
    responses_smaller,
    with_skip,
)
from .labels import labelled, listed
from .numbers import number, percent
from .style import (
    COLOURS,
    CONTROL,
    DASHES,
    GREY,
    INK,
    LABEL,
    MARKERS,
    THEORY,
    TICK,
    Figure,
    depth,
    dress,
    every,
    layer_ticks,
    legend_below,
    log_scale,
    new_figure,
    series,
)


def error_curves(nets: Nets, caption: str = "", seed: int | None = None) -> Figure:
    """Draw training error (left) and test error (right) by epoch; compare He et al. 2015 (v1), Figures 1 and 6.

    nets[name]["train_error"] and ["test_error"]: percent, (epochs,)
    seed: the seed of the runs; a title that states a finding names it

    Both panels have the same y axis. A net without a finished epoch is left out.
    """
    figure = new_figure(_error_title(nets, seed), 4.5, caption)
    left, right = figure.subplots(1, 2, sharey=True)
    shown = [name for name in by_depth(nets) if nets[name].get("train_error")]
    styles = _styles(by_depth(nets))
    largest = max(
        (e for n in shown for key in ("train_error", "test_error") for e in nets[n].get(key) or ()),
        default=100.0,
    )
    top = min(1.08 * max(largest, 1.0), 102.0)  # an error of 100 % stays visible below the edge
    for axes, key, label in ((left, "train_error", "training error"), (right, "test_error", "test error")):
        ends = {}
        for name in shown:
            values = nets[name].get(key) or []
            if not values:
                continue
            axes.plot(range(1, len(values) + 1), values, markevery=every(len(values), 12), **styles[name])
            ends[name] = (len(values), values[-1])
        axes.set_ylim(0, top)
        last = max((epoch for epoch, _ in ends.values()), default=1)
        axes.set_xlim((0.8, last + 0.2) if last > 1 else (0.5, 1.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, nbins=8))
        _label_ends(axes, ends, styles, top)
        dress(axes, label, "epoch", f"{label} (%)", empty=not shown)
        axes.yaxis.set_tick_params(labelleft=True)  # the axis is shared, but numbers make it easier to read
    return figure


def gradient_norms(nets: Nets, caption: str = "", seed: int | None = None) -> Figure:
    """Draw the gradient norm of every weight layer at initialisation, log scale; compare He et al. 2015, section 4.1.

    nets[name]["gradient_norms_init"] and ["gradient_norms_init_without_bn"]: L2 norms of dLoss/dWeight, (layers,),
    input first, classifier last
    seed: the seed of the runs; a title that states a finding names it

    There is one panel per depth, and one for networks without a depth in their names. The classifier is a hollow
    marker, because it is not a 3x3 layer. A norm of 0 has no position on a log axis and is left out.
    """
    figure = new_figure(_gradient_title(nets, seed), 4.6, caption)
    key = "gradient_norms_init"
    pairs = sorted({*depths(nets, "plain", key), *depths(nets, "resnet", key)})
    paired = {name for d in pairs for family in FAMILIES if (name := of_depth(nets, family, d))}
    others = [name for name, net in nets.items() if name not in paired and net.get(key)]
    panels = figure.subplots(1, max(1, len(pairs) + bool(others)), sharey=True, squeeze=False)[0]
    for axes, d in zip(panels, pairs, strict=False):
        plain, residual = (nets.get(of_depth(nets, family, d) or "", {}) for family in FAMILIES)
        _draw_norms(axes, plain.get(key + "_without_bn"), WITHOUT_BN | {"label": "plain without BN"})
        _draw_norms(axes, plain.get(key), _paired("plain", 1) | {"label": "plain with BN"})
        _draw_norms(axes, residual.get(key), _paired("resnet", 0) | {"label": "residual with BN"})
        _dress_norms(axes, f"depth {d}", max(len(net.get(key) or ()) for net in (plain, residual)), len(panels))
    if others:
        for name, style in _styles(others).items():
            without = WITHOUT_BN | {"marker": style["marker"], "label": f"{printed(name)} without BN"}
            _draw_norms(panels[-1], nets[name].get(key + "_without_bn"), without)
            _draw_norms(panels[-1], nets[name].get(key), style)
        _dress_norms(panels[-1], "others" if pairs else "", max(len(nets[name][key]) for name in others), len(panels))
    if not pairs and not others:
        panels[0].set_yscale("log")
        panels[0].set_xticks([])
        dress(panels[0], "", "weight layer (1 = nearest the input)", "gradient norm, L2", empty=True)
    legend_below(figure, panels, extra="hollow: the classifier" if pairs or others else "")
    return figure


def responses(found: Any, caption: str = "", log: bool = False, seed: int | None = None) -> Figure:
    """Draw layer responses in layer order and sorted, descending; compare He et al. 2015, Figure 7.

    found   what `analysis.responses`, `responses_closed_form` or `responses_from_parameters` returns, {layer:
            response}; or {label: such a result}; or the nets of a run, of which ``nets[name]["responses"]`` (after
            training) and ``["responses_init"]`` (before training) are drawn
    log     whether the y axis is logarithmic in panels whose largest response is over 3; other y axes start at 0
    seed    the seed of a run; a title that states a finding names it

    The response is the standard deviation of each 3x3 layer's output after BN, without a unit. Before training every
    response is 1 by construction. The thin line shows this control.

    If names have different depths, each depth has its own panels, and so do names without a depth. The panels of a
    depth have their own y axis, because the responses of a deep plain net early in training reach many times the range
    of the other nets.
    """
    measured = _measured(found)
    means = listed({m.label: f"{np.mean(m.after):.2f}" for m in measured if len(m.after)})
    title = (_response_title(found, seed) if _is_run(found) else
             f"Mean response of the 3x3 layers: {means}" if means else "Layer responses")
    told = {depth(m.label) for m in measured}
    columns: list[int | None] = [*sorted(d for d in told if d)]
    columns = [] if len(columns) < 2 else columns + [None] * (None in told)
    places = [f"depth {d}" if d else "others" for d in columns]
    figure = new_figure(title, 6.6 if columns else 4.4, caption)
    # There is a column for each depth and a row for each order. With a single depth the orders are side by side.
    grid = figure.subplots(2, len(columns), sharey="col", sharex="col", squeeze=False) if columns else \
        figure.subplots(1, 2, sharey=True, squeeze=False).T
    styles = series(m.label for m in measured)
    for row, order in enumerate(("in layer order", "sorted")):
        for column, axes in enumerate(grid[row]):
            mine = [m for m in measured if not columns or depth(m.label) == columns[column]]
            count, largest = 0, 1.0
            for m in mine:
                after = styles[m.label] | {"markevery": every(len(m.after), 18)}
                for values, style in (m.before, BEFORE), (m.after, after):
                    if not len(values):
                        continue
                    count, largest = max(count, len(values)), max(largest, *values)
                    arranged = sorted(values, reverse=True) if order == "sorted" else values
                    axes.plot(range(1, len(values) + 1), arranged, **style)
            if log and largest > 3:
                log_scale(axes)
            else:
                axes.set_ylim(0, 1.08 * largest)
            axes.set_xticks(layer_ticks(count, len(columns)) if count else [])
            x = "3x3 layer (1 = nearest the input)" if row == 0 else "rank (1 = largest response)"
            y = "std of the output after BN" if not columns and row == 0 else ""
            dress(axes, f"{places[column]}, {order}" if columns else order, x, y, empty=not count)
            axes.tick_params(labelbottom=True, labelleft=True)
    if columns:
        figure.supylabel("std of the 3x3 layer's output after BN", fontsize=LABEL, color=INK)
    legend_below(figure, list(grid[0]), columns=5)
    return figure


FAMILIES = "plain", "resnet"
BEFORE: dict[str, Any] = {"color": GREY, "linewidth": 1.1, "linestyle": THEORY, "label": "before training (control)"}
WITHOUT_BN: dict[str, Any] = {"color": GREY, "linestyle": CONTROL, "marker": "v"}


class _Measured(NamedTuple):
    """A _Measured holds the responses of one network by layer."""

    label: str
    after: Sequence[float]
    before: Sequence[float]


def _is_run(found: Any) -> bool:
    """Return whether `found` is the nets of a run, which hold lists. Results of an analysis hold numbers."""
    nets = found.values() if isinstance(found, Mapping) else ()
    return any(isinstance(value, (list, tuple)) for net in nets if isinstance(net, Mapping) for value in net.values())


def _measured(found: Any) -> list[_Measured]:
    if not _is_run(found):
        return [_Measured(label, list(values.values()), [1.0] * len(values))
                for label, values in labelled(found, 1).items()]
    seen = (_Measured(printed(name), found[name].get("responses") or [], found[name].get("responses_init") or [])
            for name in by_depth(found))
    return [m for m in seen if m.after or m.before]


def _response_title(nets: Nets, seed: int | None) -> str:
    if not responses_smaller(nets):
        return "Layer responses before and after training"
    means = "; ".join(f"{r:.2f} against {p:.2f} at depth {d}" for d, (p, r) in response_pairs(nets).items())
    return f"After training, the mean response of the residual network is smaller: {means} {_once(seed)}"


def _error_title(nets: Nets, seed: int | None) -> str:
    """State the training errors, of plain and of residual nets; neutral if the plain ones do not differ enough.

    The words are right for any order of the errors of the residual nets.
    """
    hurt, skip = depth_hurts(nets), with_skip(nets)
    if hurt is None:
        return "Training and test error by epoch"
    # With an interrupted net, the comparison is at an epoch that is not the last one drawn, so the title names it.
    last = max(len(net.get("train_error") or ()) for net in nets.values())
    title = f"Training error of the plain networks: {_at_depths(nets, hurt.error)}{_after(hurt.epoch, last)}"
    if skip is not None:
        title += f". With the skip connection: {_at_depths(nets, skip.error)}{_after(skip.epoch, last)}"
    return f"{title} {_once(seed)}"


def _at_depths(nets: Nets, errors: Mapping[str, float]) -> str:
    """Return the errors from the shallowest net on, as in "21.0 % at 20 layers, 62.0 % at 56"."""
    parts = [f"{percent(error)} at {layers(name, nets[name])}" for name, error in errors.items()]
    return ", ".join([f"{parts[0]} layers", *parts[1:]])


def _once(seed: int | None) -> str:
    """Return how a title says that it rests on one run of each network."""
    return "(one run each)" if seed is None else f"(seed {seed})"


def _after(epoch: int, last: int) -> str:
    return "" if epoch == last else f" after epoch {epoch}"


def _gradient_title(nets: Nets, seed: int | None) -> str:
    neutral = "Gradient norm per layer at initialisation"
    found = depths(nets, "plain", "gradient_norms_init")
    deepest = of_depth(nets, "plain", found[-1]) if found else None
    change = growth(nets[deepest]["gradient_norms_init"]) if deepest else None
    if deepest is None or change is None or change.verb == "stays about level":
        return neutral
    return (
        f"At initialisation, the gradient norm of {printed(deepest)} with BN {change.verb} toward the input: "
        f"× {change.per_layer:.2f} per layer, × {number(change.total)} from the last 3x3 layer to the second "
        f"{_once(seed)}"
    )


def _styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return {name of a net: style of its line}, labelled with its printed name."""
    styles = series(names)
    return {name: style | {"label": printed(name), "markersize": 6} for name, style in styles.items()}


def _paired(kind: str, shade: int) -> dict[str, Any]:
    """Return the style for the only network of its kind in a panel."""
    return {"color": COLOURS[kind][shade], "linestyle": DASHES[kind], "marker": MARKERS[kind][kind == "plain"]}


def _draw_norms(axes: Axes, norms: Sequence[float] | None, style: Mapping[str, Any]) -> None:
    """Draw a line for all layers except the classifier, and a hollow marker for the classifier."""
    if not norms:
        return
    axes.plot(range(1, len(norms)), norms[:-1],
              **{**style, "linewidth": 1.9, "markersize": 5, "markevery": every(len(norms), 18)})
    axes.plot(
        [len(norms)],
        norms[-1:],
        linestyle="none",
        marker=style["marker"],
        markersize=6,
        markerfacecolor="white",
        markeredgecolor=style["color"],
    )


def _dress_norms(axes: Axes, title: str, count: int, panels: int) -> None:
    axes.set_yscale("log", nonpositive="mask")
    axes.set_xticks(layer_ticks(count, panels))
    dress(axes, title, "weight layer (1 = nearest the input)", "gradient norm, L2")
    axes.yaxis.set_tick_params(labelleft=True)


def _label_ends(axes: Axes, ends: Mapping[str, tuple[int, float]], styles: Mapping[str, Mapping[str, Any]],
                top: float) -> None:
    """Write "name value" at the right edge beside each line's end, moved apart where they would overlap."""
    gap = 0.066 * top
    names = sorted(ends, key=lambda name: ends[name][1])
    heights: list[float] = []
    for name in names:
        heights.append(max(ends[name][1], heights[-1] + gap if heights else 0.02 * top))
    for i in range(len(heights) - 1, -1, -1):  # then back down from the upper edge
        heights[i] = min(heights[i], 0.97 * top - gap * (len(heights) - 1 - i))
    right = axes.get_xlim()[1]
    span = right - axes.get_xlim()[0]
    last = max((epoch for epoch, _ in ends.values()), default=0)
    for name, height in zip(names, heights, strict=True):
        epoch, value = ends[name]
        colour = styles[name]["color"]
        # The leader of an interrupted net crosses epochs that were not trained. It is dotted, unlike a curve.
        stopped = epoch < last
        axes.annotate(
            f"{shortened(printed(name))}  {value:.1f}" + (f" (ep. {epoch})" if stopped else ""),
            xy=(epoch, value),
            xytext=(right + 0.04 * span, height),
            fontsize=TICK,
            fontweight="bold",
            color=colour,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": GREY if stopped else colour,
                "linewidth": 0.7,
                "linestyle": "dotted" if stopped else "solid",
                "relpos": (0, 0.5),  # start at the text's left edge, not in the text below
                "shrinkA": 1,
                "shrinkB": 4,
            },
        )
