"""Figures from plain numbers. The only file that imports matplotlib: import it only when a figure is wanted.

Every function takes ``nets``, the dict found under ``"nets"`` in results.json: names such as "plain-20" or
"resnet-56" against a dict of lists. It returns a Figure that shows itself in a notebook; ``png(figure)``
gives its bytes and ``figure.savefig(path)`` writes it. pyplot is not used: no global state, no window, safe
in threads.

A title states a finding only where the numbers show it. The functions that decide are in the first half of
this file, take numbers and return numbers, and the report's sentences use the same ones.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.figure
import matplotlib.lines
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.ticker import MaxNLocator

Net = Mapping[str, Any]
Nets = Mapping[str, Net]

# Smaller differences than these are not called a finding.
ERROR_POINTS = 2.0  # percentage points
RESPONSE_SHARE = 0.02  # of the plain net's mean response
GROWTH_TOTAL = 2.0  # between the first and the last 3x3 layer; below 1/2 is "shrinks"


# --------------------------------------------------------------------------------------- what the numbers say


def split_name(name: str) -> tuple[str, int]:
    """The kind and depth in a name: ("resnet", 56) for "resnet-56"."""
    match = re.fullmatch(r"(plain|resnet)-([1-9][0-9]*)", name)
    if match is None:
        raise ValueError(f"name of a net: expected 'plain-<depth>' or 'resnet-<depth>', got {name!r}")
    return match[1], int(match[2])


def pretty(name: str) -> str:
    """The spelling used in text: "ResNet-56" for "resnet-56"."""
    return name.replace("resnet", "ResNet")


def by_depth(nets: Nets) -> list[str]:
    """Names from shallow to deep, plain before residual."""
    return sorted(nets, key=lambda name: (split_name(name)[1], split_name(name)[0]))


def depths(nets: Nets, kind: str, key: str) -> list[int]:
    """Depths of the nets of this kind ("plain", "resnet") whose list ``key`` is not empty, ascending."""
    return sorted(d for k, d, net in ((*split_name(n), nets[n]) for n in nets) if k == kind and net.get(key))


def layers(name: str, net: Net) -> int:
    """Number of weight layers: as counted in the net if it was measured, else as its name says."""
    return len(net.get("gradient_norms_init") or ()) or split_name(name)[1]


def mean(values: Sequence[float]) -> float | None:
    """Arithmetic mean, None for an empty list."""
    return math.fsum(values) / len(values) if len(values) else None


def percent(value: float) -> str:
    """12.34 -> "12.3 %"."""
    return f"{value:.1f} %"


def points(value: float, other: float) -> float:
    """value - other in percentage points, of the rounded numbers, so that a reader's subtraction agrees."""
    return round(round(value, 1) - round(other, 1), 1)


@dataclass(frozen=True)
class Errors:
    """Errors in percent of several nets after the same number of epochs."""

    epoch: int
    error: dict[str, float]


def errors_at_common_epoch(nets: Nets, names: Sequence[str], key: str = "train_error") -> Errors | None:
    """Errors after the last epoch that all ``names`` have finished, or None. An interrupted net has fewer."""
    epoch = min((len(nets[name].get(key) or ()) if name in nets else 0 for name in names), default=0)
    return Errors(epoch, {name: float(nets[name][key][epoch - 1]) for name in names}) if epoch else None


def plain_pair(nets: Nets) -> tuple[str, str] | None:
    """Names of the shallowest and the deepest plain net with a finished epoch, if there are two."""
    found = depths(nets, "plain", "train_error")
    return (f"plain-{found[0]}", f"plain-{found[-1]}") if len(found) > 1 else None


def depth_hurts(nets: Nets) -> Errors | None:
    """Training errors of the shallowest and the deepest plain net, if the deepest is worse by 2 points.

    Not after a single epoch: that shows how fast networks start, and is too early for a finding.
    """
    pair = plain_pair(nets)
    found = errors_at_common_epoch(nets, pair) if pair else None
    if pair is None or found is None or found.epoch < 2:
        return None
    return found if points(found.error[pair[1]], found.error[pair[0]]) >= ERROR_POINTS else None


def skip_repairs(nets: Nets) -> tuple[str, Errors] | None:
    """How far the residual net of the deepest plain net's depth takes the effect of depth back, if it does.

    "undoes": its training error is not above the shallow plain net's. "undoes most of": at least half of the
    gap is gone. "reduces": 2 points or more are gone. All three nets are compared after the same epoch.
    """
    pair = plain_pair(nets)
    if pair is None or depth_hurts(nets) is None:
        return None
    shallow, deep = pair
    residual = deep.replace("plain", "resnet")
    found = errors_at_common_epoch(nets, [shallow, deep, residual])
    if found is None:
        return None
    gap = points(found.error[deep], found.error[shallow])
    gone = points(found.error[deep], found.error[residual])
    if gap < ERROR_POINTS or gone < ERROR_POINTS:
        return None
    return ("undoes" if gone >= gap else "undoes most of" if gone >= gap / 2 else "reduces"), found


@dataclass(frozen=True)
class Growth:
    """How the gradient norm changes from the last 3x3 layer to the first, the way it travels."""

    total: float  # first layer's norm / last layer's norm
    per_layer: float  # geometric mean of the ratios of neighbouring layers
    steps: int

    @property
    def verb(self) -> str:
        if self.total >= GROWTH_TOTAL:
            return "grows"
        return "shrinks" if self.total <= 1 / GROWTH_TOTAL else "stays about level"


def growth(norms: Sequence[float]) -> Growth | None:
    """Growth over the 3x3 layers of ``norms`` (input first; the last entry, the classifier, is left out)."""
    convolutions = norms[:-1]
    if len(convolutions) < 2 or min(convolutions[0], convolutions[-1]) <= 0:
        return None
    total = convolutions[0] / convolutions[-1]
    steps = len(convolutions) - 1
    return Growth(total, total ** (1 / steps), steps)


def response_pairs(nets: Nets) -> dict[int, tuple[float, float]]:
    """{depth: (plain net's mean response, residual net's)} where measured after equally many epochs."""
    pairs = {}
    for depth in depths(nets, "plain", "responses"):
        plain, residual = nets[f"plain-{depth}"], nets.get(f"resnet-{depth}", {})
        trained = [len(net.get("train_error") or ()) for net in (plain, residual)]
        p, r = mean(plain["responses"]), mean(residual.get("responses") or ())
        if p is not None and r is not None and trained[0] == trained[1]:
            pairs[depth] = (p, r)
    return pairs


def responses_smaller(nets: Nets) -> bool:
    """Whether the residual net's mean response is smaller by 2 % or more at every depth measured."""
    pairs = response_pairs(nets).values()
    return bool(pairs) and all(r <= (1 - RESPONSE_SHARE) * p for p, r in pairs)


# ---------------------------------------------------------------------------------------------------- drawing

# Orange against blue survives colour blindness, light against dark survives grey print, and dashes and
# markers do the rest. Text and lines are dark enough on white (4:1) to be read.
COLOURS = {"plain": ("#d94801", "#7f2704"), "resnet": ("#3182bd", "#08306b")}  # shallowest, deepest
MARKERS = {"plain": ("s", "D"), "resnet": ("o", "^")}
DASHES = {"plain": (0, (4, 1.6)), "resnet": "solid"}
INK, GREY, GRID = "#1a1a1a", "#6b6b6b", "#dcdcdc"
TITLE, LABEL, TICK = 12.5, 11.0, 10.0  # points; figures are about 8.5 inches wide


class Figure(matplotlib.figure.Figure):
    """A matplotlib Figure that a notebook shows when a cell returns it.

    Jupyter learns to show plain Figures only when pyplot is imported. This method needs no pyplot.
    """

    def _repr_png_(self) -> bytes:
        return png(self, dpi=100)


def png(figure: matplotlib.figure.Figure, dpi: float = 150) -> bytes:
    """The figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


def error_curves(nets: Nets) -> Figure:
    """Training error (left) and test error (right) by epoch; compare He et al. 2015 (v1), Figures 1 and 6.

    Uses ``nets[name]["train_error"]`` and ``["test_error"]``: one number per epoch, percent, (epochs,).
    Both panels have the same y axis. A net without a finished epoch is left out.
    """
    figure = _figure(_error_title(nets), height=4.5)
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
        _dress(axes, label, "epoch", f"{label} (%)", empty=not shown)
        axes.yaxis.set_tick_params(labelleft=True)  # shared, but easier to read with numbers
    return figure


def gradient_norms(nets: Nets) -> Figure:
    """Gradient norm of every weight layer at initialisation, log scale. v1 says it in words, in section 4.1.

    One panel per depth. Uses ``nets[name]["gradient_norms_init"]`` and, for plain nets,
    ``["gradient_norms_init_without_bn"]``: L2 norms of dLoss/dWeight, (layers,), input first, classifier
    last. The classifier is drawn as a hollow marker, because it is not a 3x3 layer. A norm of zero has no
    place on a log axis and is left out.
    """
    figure = _figure(_gradient_title(nets), height=4.6)
    key = "gradient_norms_init"
    found = sorted({*depths(nets, "plain", key), *depths(nets, "resnet", key)})
    panels = figure.subplots(1, max(1, len(found)), sharey=True, squeeze=False)[0]
    for axes, depth in zip(panels, found, strict=False):
        plain, residual = nets.get(f"plain-{depth}", {}), nets.get(f"resnet-{depth}", {})
        _draw_norms(axes, plain.get(key + "_without_bn"), "plain without BN", GREY, (0, (1, 1.4)), "v")
        _draw_norms(axes, plain.get(key), "plain with BN", COLOURS["plain"][1], DASHES["plain"], "D")
        _draw_norms(axes, residual.get(key), "residual with BN", COLOURS["resnet"][0], DASHES["resnet"], "o")
        axes.set_yscale("log", nonpositive="mask")
        axes.set_xticks(_layer_ticks(max(len(plain.get(key) or ()), len(residual.get(key) or ()))))
        _dress(axes, f"depth {depth}", "weight layer (1 = nearest the input)", "gradient norm, L2")
        axes.yaxis.set_tick_params(labelleft=True)
    if not found:
        panels[0].set_yscale("log")
        panels[0].set_xticks([])
        _dress(panels[0], "", "weight layer (1 = nearest the input)", "gradient norm, L2", empty=True)
    _legend_below(figure, panels, extra="hollow: the classifier" if found else "")
    return figure


def responses(nets: Nets) -> Figure:
    """Layer responses in layer order (top) and sorted, descending (bottom); compare v1, Figure 7.

    One column per depth, each with its own y axis. Uses ``nets[name]["responses"]`` (after training) and
    ``["responses_init"]`` (before): the standard deviation of each 3x3 layer's output after BN, (3x3 layers,), no unit.
    Before training the response of every layer is 1 by construction: the thin line, which is the control.
    """
    figure = _figure(_response_title(nets), height=6.6)
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
            axes.set_ylim(0, 1.08 * largest)
            axes.set_xticks(_layer_ticks(count))
            x = "3x3 layer (1 = nearest the input)" if row == 0 else "rank (1 = largest response)"
            _dress(axes, f"depth {depth}, {order}", x, "")
            axes.tick_params(labelbottom=True, labelleft=True)
        if not columns:
            grid[row][0].set_xticks([])
            _dress(grid[row][0], order, "layer" if row == 0 else "rank", "", empty=True)
    figure.supylabel("std of the 3x3 layer's output after BN", fontsize=LABEL, color=INK)
    _legend_below(figure, grid[0], columns=5)
    return figure


# ----------------------------------------------------------------------------------------------------- titles


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


def number(value: float) -> str:
    """Three digits: "1.21", "14.1", "3,730", and "2.8e4" where that is shorter to read."""
    if value == 0 or 0.001 <= abs(value) < 9999.5:
        rounded = float(f"{value:.3g}")
        return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:.3g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


# ----------------------------------------------------------------------------------------------------- pieces


def _figure(title: str, height: float) -> Figure:
    figure = Figure(figsize=(8.6, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)  # the canvas that draws into memory
    title = title.replace(" %", "\N{NO-BREAK SPACE}%").replace("× ", "×\N{NO-BREAK SPACE}")
    figure.suptitle(textwrap.fill(title, 80), fontsize=TITLE, fontweight="bold", color=INK)
    return figure


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


def _layer_ticks(count: int) -> list[int]:
    """Ticks for layers 1 ... count: the first, round numbers, and the last if it has room."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500) if count / step < 7 or step == 500)
    ticks = [1, *(i for i in range(step, count + 1, step) if i > 1)]
    return [*ticks, count] if count - ticks[-1] >= step / 2 else ticks


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


def _dress(axes: Axes, title: str, x: str, y: str, empty: bool = False) -> None:
    """Labels, grid and frame. Colours and sizes are given here, so a user's style cannot hide them."""
    axes.set_title(title, fontsize=LABEL, color=INK)
    axes.set_xlabel(x, fontsize=LABEL, color=INK)
    axes.set_ylabel(y, fontsize=LABEL, color=INK)
    axes.tick_params(labelsize=TICK, colors=INK)
    axes.set_facecolor("white")
    axes.grid(True, which="major", color=GRID, linewidth=0.8, linestyle="solid")
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
    if empty:
        axes.text(
            0.5,
            0.5,
            "no data",
            transform=axes.transAxes,
            ha="center",
            va="center",
            fontsize=LABEL,
            color=GREY,
        )


def _legend_below(figure: Figure, panels: Sequence[Axes], extra: str = "", columns: int = 4) -> None:
    """One legend for all panels, under them, where it hides no data."""
    handles: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if extra:
        handles[extra] = matplotlib.lines.Line2D(
            [], [], linestyle="none", marker="o", markersize=6, markerfacecolor="white", markeredgecolor=INK
        )
    if handles:
        figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside lower center",
            ncols=min(columns, len(handles)),
            fontsize=TICK,
            frameon=False,
            labelcolor=INK,
            handlelength=2.8,
        )
