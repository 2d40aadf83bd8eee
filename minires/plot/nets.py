"""Errors, gradients and responses of the networks of a run, as `minires demo` measures them.

Every function takes ``nets``, the dict found under ``"nets"`` in results.json: names such as "plain-20" or
"resnet-56" against a dict of lists.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.ticker import MaxNLocator

from .findings import (
    Nets,
    by_depth,
    depth_hurts,
    depths,
    growth,
    layers,
    number,
    percent,
    plain_pair,
    pretty,
    response_pairs,
    responses_smaller,
    skip_repairs,
    split_name,
)
from .style import (
    COLOURS,
    DASHES,
    GREY,
    INK,
    LABEL,
    MARKERS,
    TICK,
    Figure,
    dress,
    layer_ticks,
    legend_below,
    log_scale,
    new_figure,
)


def error_curves(nets: Nets, caption: str = "") -> Figure:
    """Training error (left) and test error (right) by epoch; compare He et al. 2015 (v1), Figures 1 and 6.

    Uses ``nets[name]["train_error"]`` and ``["test_error"]``: one number per epoch, percent, (epochs,).
    Both panels have the same y axis. A net without a finished epoch is left out.
    """
    figure = new_figure(_error_title(nets), 4.5, caption)
    left, right = figure.subplots(1, 2, sharey=True)
    shown = [name for name in by_depth(nets) if nets[name].get("train_error")]
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
            epochs = range(1, len(values) + 1)
            axes.plot(epochs, values, **_line(name, nets), markevery=max(1, len(values) // 12))
            ends[name] = (len(values), values[-1])
        axes.set_ylim(0, top)
        last = max((epoch for epoch, _ in ends.values()), default=1)
        axes.set_xlim((0.8, last + 0.2) if last > 1 else (0.5, 1.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, nbins=8))
        _label_ends(axes, ends, nets, top)
        dress(axes, label, "epoch", f"{label} (%)", empty=not shown)
        axes.yaxis.set_tick_params(labelleft=True)  # shared, but easier to read with numbers
    return figure


def gradient_norms(nets: Nets) -> Figure:
    """Gradient norm of every weight layer at initialisation, log scale. v1 says it in words, in section 4.1.

    One panel per depth. Uses ``nets[name]["gradient_norms_init"]`` and, for plain nets,
    ``["gradient_norms_init_without_bn"]``: L2 norms of dLoss/dWeight, (layers,), input first, classifier
    last. The classifier is drawn as a hollow marker, because it is not a 3x3 layer. A norm of zero has no
    place on a log axis and is left out.
    """
    figure = new_figure(_gradient_title(nets), height=4.6)
    key = "gradient_norms_init"
    found = sorted({*depths(nets, "plain", key), *depths(nets, "resnet", key)})
    panels = figure.subplots(1, max(1, len(found)), sharey=True, squeeze=False)[0]
    for axes, depth in zip(panels, found, strict=False):
        plain, residual = nets.get(f"plain-{depth}", {}), nets.get(f"resnet-{depth}", {})
        _draw_norms(axes, plain.get(key + "_without_bn"), "plain without BN", GREY, (0, (1, 1.4)), "v")
        _draw_norms(axes, plain.get(key), "plain with BN", COLOURS["plain"][1], DASHES["plain"], "D")
        _draw_norms(axes, residual.get(key), "residual with BN", COLOURS["resnet"][0], DASHES["resnet"], "o")
        axes.set_yscale("log", nonpositive="mask")
        axes.set_xticks(layer_ticks(max(len(plain.get(key) or ()), len(residual.get(key) or ()))))
        dress(axes, f"depth {depth}", "weight layer (1 = nearest the input)", "gradient norm, L2")
        axes.yaxis.set_tick_params(labelleft=True)
    if not found:
        panels[0].set_yscale("log")
        panels[0].set_xticks([])
        dress(panels[0], "", "weight layer (1 = nearest the input)", "gradient norm, L2", empty=True)
    legend_below(figure, panels, extra="hollow: the classifier" if found else "")
    return figure


def responses(nets: Nets, caption: str = "", log: bool = False) -> Figure:
    """Layer responses in layer order (top) and sorted, descending (bottom); compare v1, Figure 7.

    One column per depth, each with its own y axis, from 0, or with `log` logarithmic where the largest is over 3. Uses
    ``nets[name]["responses"]`` (after training) and ``["responses_init"]`` (before): the standard deviation of each 3x3
    layer's output after BN, (3x3 layers,), no unit. Before training the response of every layer is 1 by construction:
    the thin line, which is the control.
    """
    figure = new_figure(_response_title(nets), 6.6, caption)
    shown = [n for n in by_depth(nets) if nets[n].get("responses") or nets[n].get("responses_init")]
    columns = sorted({split_name(name)[1] for name in shown})
    # Each depth has a y axis of its own: a deep plain net early in training reaches many times the others' range.
    grid = figure.subplots(2, max(1, len(columns)), sharey="col", sharex="col", squeeze=False)
    for row, order in enumerate(("in layer order", "sorted")):
        arrange = _descending if order == "sorted" else list
        for column, depth in enumerate(columns):
            axes, count, largest = grid[row][column], 0, 1.0
            for name in (n for n in shown if split_name(n)[1] == depth):
                style = _line(name, nets)
                before, after = nets[name].get("responses_init") or [], nets[name].get("responses") or []
                count, largest = max(count, len(before), len(after)), max(largest, *before, *after)
                if before:
                    axes.plot(
                        range(1, len(before) + 1),
                        arrange(before),
                        label="before training (control)",
                        color=GREY,
                        linewidth=1.1,
                        linestyle=(0, (1, 2)),
                    )
                if after:
                    style |= {"markersize": 4.5, "linewidth": 1.6, "markevery": max(1, len(after) // 18)}
                    axes.plot(range(1, len(after) + 1), arrange(after), **style)
            if log and largest > 3:
                log_scale(axes)
            else:
                axes.set_ylim(0, 1.08 * largest)
            axes.set_xticks(layer_ticks(count))
            x = "3x3 layer (1 = nearest the input)" if row == 0 else "rank (1 = largest response)"
            dress(axes, f"depth {depth}, {order}", x, "")
            axes.tick_params(labelbottom=True, labelleft=True)
        if not columns:
            grid[row][0].set_xticks([])
            dress(grid[row][0], order, "layer" if row == 0 else "rank", "", empty=True)
    figure.supylabel("std of the 3x3 layer's output after BN", fontsize=LABEL, color=INK)
    legend_below(figure, grid[0], columns=5)
    return figure


def _error_title(nets: Nets) -> str:
    pair, hurt, repair = plain_pair(nets), depth_hurts(nets), skip_repairs(nets)
    if pair is None or hurt is None:
        return "Training and test error by epoch"
    shallow, deep = pair
    # An interrupted net is compared at an epoch that is not the last one drawn: say which.
    last = max(len(net.get("train_error") or ()) for net in nets.values())
    title = (
        f"Depth hurts the plain network in training error: {percent(hurt.error[deep])} at "
        f"{layers(deep, nets[deep])} layers against {percent(hurt.error[shallow])} at "
        f"{layers(shallow, nets[shallow])}{_after(hurt.epoch, last)}"
    )
    if repair is None:
        return title
    verb, found = repair
    residual = deep.replace("plain", "resnet")
    reached = f"{percent(found.error[residual])} with {pretty(residual)}{_after(found.epoch, last)}"
    return f"{title}. The skip connection {verb} it: {reached}"


def _after(epoch: int, last: int) -> str:
    return "" if epoch == last else f" after epoch {epoch}"


def _gradient_title(nets: Nets) -> str:
    neutral = "Gradient norm per layer at initialisation"
    found = depths(nets, "plain", "gradient_norms_init")
    change = growth(nets[f"plain-{found[-1]}"]["gradient_norms_init"]) if found else None
    if change is None or change.verb == "stays about level":
        return neutral
    return (
        f"At initialisation the gradient of plain-{found[-1]} with BN {change.verb} toward the input: "
        f"× {change.per_layer:.2f} per layer, × {number(change.total)} in all"
    )


def _response_title(nets: Nets) -> str:
    if not responses_smaller(nets):
        return "Layer responses before and after training"
    means = "; ".join(f"{r:.2f} against {p:.2f} at depth {d}" for d, (p, r) in response_pairs(nets).items())
    return f"After training the residual network's responses are smaller on average: {means}"


def _line(name: str, nets: Nets) -> dict[str, Any]:
    """Colour, dashes, width and marker of a net's line: its kind and its rank among the depths shown."""
    kind, depth = split_name(name)
    ranked = sorted({split_name(other)[1] for other in nets})
    # A single depth is drawn dark. Between the shallowest and the deepest the shade is mixed.
    share = ranked.index(depth) / (len(ranked) - 1) if len(ranked) > 1 else 1.0
    light, dark = (to_rgb(colour) for colour in COLOURS[kind])
    red, green, blue = ((1 - share) * a + share * b for a, b in zip(light, dark, strict=True))
    return {
        "label": pretty(name),
        "color": to_hex((red, green, blue)),
        "linestyle": DASHES[kind],
        "linewidth": 1.5 + share,
        "marker": MARKERS[kind][share > 0.5],
        "markersize": 6,
    }


def _descending(values: Sequence[float]) -> list[float]:
    return sorted(values, reverse=True)


def _draw_norms(
    axes: Axes, norms: Sequence[float] | None, label: str, colour: str, dashes: Any, marker: str
) -> None:
    if not norms:
        return
    axes.plot(
        range(1, len(norms)),
        norms[:-1],
        label=label,
        color=colour,
        linestyle=dashes,
        linewidth=1.9,
        marker=marker,
        markersize=5,
        markevery=max(1, len(norms) // 18),
    )
    axes.plot(
        [len(norms)],
        norms[-1:],
        linestyle="none",
        marker=marker,
        markersize=6,
        markerfacecolor="white",
        markeredgecolor=colour,
    )


def _label_ends(axes: Axes, ends: Mapping[str, tuple[int, float]], nets: Nets, top: float) -> None:
    """Write "name value" at the right edge beside each line's end, moved apart where they would overlap."""
    gap = 0.066 * top
    names = sorted(ends, key=lambda name: ends[name][1])
    heights: list[float] = []
    for name in names:
        heights.append(max(ends[name][1], heights[-1] + gap if heights else 0.02 * top))
    for i in range(len(heights) - 1, -1, -1):  # and back down from the upper edge
        heights[i] = min(heights[i], 0.97 * top - gap * (len(heights) - 1 - i))
    right = axes.get_xlim()[1]
    span = right - axes.get_xlim()[0]
    last = max((epoch for epoch, _ in ends.values()), default=0)
    for name, height in zip(names, heights, strict=True):
        epoch, value = ends[name]
        colour = _line(name, nets)["color"]
        # An interrupted net's leader crosses epochs that were not trained: dotted, so that it is no curve.
        stopped = epoch < last
        axes.annotate(
            f"{pretty(name)}  {value:.1f}" + (f" (ep. {epoch})" if stopped else ""),
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
                "relpos": (0, 0.5),  # leave the text at its left, not through the one below
                "shrinkA": 1,
                "shrinkB": 4,
            },
        )
