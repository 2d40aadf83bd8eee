"""What all figures share: the Figure, its title, axes and legend."""
from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib.figure
import matplotlib.lines
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

# Orange against blue survives colour blindness, light against dark survives grey print, and dashes and
# markers do the rest. Text and lines are dark enough on white (4:1) to be read.
COLOURS = {"plain": ("#d94801", "#7f2704"), "resnet": ("#3182bd", "#08306b")}  # shallowest, deepest
MARKERS = {"plain": ("s", "D"), "resnet": ("o", "^")}
DASHES = {"plain": (0, (4, 1.6)), "resnet": "solid"}
SERIES = (("#08306b", "solid", "o"), ("#d94801", (0, (5, 1.8)), "s"), ("#238b45", (0, (1.2, 1.2)), "^"),
          ("#6b6b6b", (0, (6, 1.5, 1.2, 1.5)), "D"), ("#9e5db5", (0, (3, 1, 1, 1, 1, 1)), "v"))
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


def new_figure(title: str, height: float, caption: str = "") -> Figure:
    """An empty figure 8.6 inches wide under its title, above its caption (data, seed, settings)."""
    figure = Figure(figsize=(8.6, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)  # the canvas that draws into memory
    title = title.replace(" %", "\N{NO-BREAK SPACE}%").replace("× ", "×\N{NO-BREAK SPACE}")
    figure.suptitle(textwrap.fill(title, 80), fontsize=TITLE, fontweight="bold", color=INK)
    if caption:
        figure.supxlabel(textwrap.fill(caption, 118), x=0.01, ha="left", fontsize=9, color=GREY)
    return figure


def layer_ticks(count: int) -> list[int]:
    """Ticks for layers 1 ... count: the first, round numbers, and the last if it has room."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500) if count / step < 7 or step == 500)
    ticks = [1, *(i for i in range(step, count + 1, step) if i > 1)]
    return [*ticks, count] if count - ticks[-1] >= step / 2 else ticks


def dress(axes: Axes, title: str, x: str, y: str, empty: bool = False) -> None:
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


def legend_below(figure: Figure, panels: Sequence[Axes], extra: str = "", columns: int = 4) -> None:
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


def series(i: int) -> dict[str, Any]:
    """Colour, dashes and marker of the i-th line of several that have no kind: told apart in grey by all three."""
    colour, dashes, marker = SERIES[i % len(SERIES)]
    return {"color": colour, "linestyle": dashes, "marker": marker, "linewidth": 1.8, "markersize": 5}


def every(count: int, wanted: int = 15) -> int:
    """`markevery` that leaves about so many markers on a line of `count` points."""
    return max(1, count // wanted)


def colour_bar(figure: Figure, image: Any, axes: Any, label: str) -> None:
    """What the colours mean, to the right of `axes`."""
    bar = figure.colorbar(image, ax=axes, shrink=0.9, pad=0.02)
    bar.set_label(label, fontsize=LABEL, color=INK)
    bar.ax.tick_params(labelsize=TICK, colors=INK)
