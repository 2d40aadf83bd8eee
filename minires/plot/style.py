"""This module has what all figures share: the Figure, its title, axes and legend, and the colours of networks."""
from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.figure
import matplotlib.lines
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FuncFormatter, LogLocator, NullFormatter

from ..names import network
from .numbers import number

# Readers with colour blindness can tell orange from blue, and in grey print light differs from dark. Dashes and markers
# separate the remaining lines. Text and lines have a contrast of 4:1 or more on white.
COLOURS = {"plain": ("#d94801", "#7f2704"), "resnet": ("#3182bd", "#08306b")}  # shallowest, deepest
MARKERS = {"plain": ("s", "D", "v", "X"), "resnet": ("o", "^", "P", "p")}
DASHES: dict[str, Any] = {"plain": (0, (4, 1.6)), "resnet": "solid"}
OTHERS: tuple[tuple[str, Any, str], ...] = (  # colour, dashes and marker of all other lines
    ("#1a1a1a", "solid", "o"), ("#238b45", (0, (1.2, 1.2)), "^"), ("#d94801", (0, (5, 1.8)), "s"),
    ("#3182bd", (0, (6, 1.5, 1.2, 1.5)), "D"), ("#9e5db5", (0, (3, 1, 1, 1, 1, 1)), "v"))
INK, GREY, GRID, MARK = "#1a1a1a", "#6b6b6b", "#dcdcdc", "#d94801"  # MARK: a line or cross over shades of grey
THEORY, LIMIT = (0, (1, 2)), (0, (4, 2))  # dashes of a line that is not measured, and of a line to compare with
CONTROL = (0, (1, 1.4))  # dashes of a network without the part that is examined
BAND, SECOND = "#c6c6c6", "#08519c"  # an area between lines; a second y axis and its line
WINDOWS = ("#fdd0a2", "#c6dbef", "#c7e9c0", "#dadaeb")  # fills in turn: light, for dark numbers
EMPTY, PADDING, FRAME = "#ffffff", "#ececec", "#9a9a9a"  # fills and edge of a square with a number
NODES = {"operation": "#e6eef7", "parameter": "#fde0c8", "constant": "#f2f2f2"}  # fills in a graph
TITLE, LABEL, TICK = 12.5, 11.0, 10.0  # font sizes in points
WIDTH = 8.6  # of a figure, in inches


class Figure(matplotlib.figure.Figure):
    """A Figure is a matplotlib Figure that a notebook shows when a cell returns it, without pyplot.

    Jupyter learns to show matplotlib's own Figures only when pyplot is imported.
    """

    caption_share = 0.0  # the caption's share of the height, at the bottom

    def keep_free(self, share: float) -> None:
        """Make the layout leave this share of the height empty at the bottom."""
        engine: Any = self.get_layout_engine()
        engine.set(rect=(0, share, 1, 1 - share))

    def draw(self, renderer: Any) -> None:
        """Draw the figure. A name that contains $ is not mathematics; only the numbers on axes are."""
        numbers = {id(text) for axes in self.axes for axis in (axes.xaxis, axes.yaxis)
                   if not isinstance(axis.get_major_formatter(), FixedFormatter)
                   for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
                   for text in (axis.offsetText, tick.label1, tick.label2)}
        for text in self.findobj(Text):
            if id(text) not in numbers:
                text.set_parse_math(False)
        super().draw(renderer)

    def _repr_png_(self) -> bytes:
        return png(self, dpi=100, colours=256)


def png(figure: matplotlib.figure.Figure, dpi: float = 150, colours: int = 0) -> bytes:
    """Return the figure as the bytes of a PNG file.

    dpi       dots per inch
    colours   size of the palette, 256 at most; 0 for no palette

    A file with a palette is much smaller. No palette is used if it would change areas and not only edges, as in a heat
    map, which has more shades.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    if not colours:
        return buffer.getvalue()
    from PIL import Image  # matplotlib requires it

    small = io.BytesIO()
    exact = Image.open(buffer).convert("RGB")
    # An octree keeps colours that only few pixels have, such as the colour of a single marker. The median cut does not.
    few = exact.quantize(colours, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    error = abs(np.asarray(exact, np.int16) - np.asarray(few.convert("RGB"), np.int16)).max(-1)
    (exact if (error > 3).mean() > 0.07 else few).save(small, "PNG", optimize=True)
    return small.getvalue()


def new_figure(title: str, height: float, caption: str = "") -> Figure:
    """Return an empty figure, 8.6 inches wide, with its title above and its caption (data, seed, settings) below."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)  # the canvas that draws into memory
    title = title.replace(" %", "\N{NO-BREAK SPACE}%").replace(" × ", "\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}")
    figure.suptitle(textwrap.fill(title, 80), fontsize=TITLE, fontweight="bold", color=INK)
    if caption:
        lines = textwrap.wrap(caption, 118)
        figure.caption_share = (0.17 * len(lines) + 0.06) / height  # inches of the height
        figure.keep_free(figure.caption_share)
        figure.text(0.01, 0.04 / height, "\n".join(lines), va="bottom", fontsize=9, color=GREY, in_layout=False)
    return figure


def square_panels(title: str, caption: str, count: int, names: float = 0.0) -> tuple[Figure, list[Axes]]:
    """Return a figure of nearly square panels, two in a row or one in the middle, with tick labels of `names` inches.

    Only the figure's height makes the panels square, because matplotlib's layout lets titles overlap if an axes has a
    fixed aspect.
    """
    columns = 2 if count > 1 else 1
    rows = -(-count // columns) or 1
    side = (WIDTH - 2.2) / 2 - names if columns == 2 else 3.4
    figure = new_figure(title, rows * (side + 0.75 + names) + 0.9, caption)
    if columns == 1:
        return figure, [figure.add_subplot(figure.add_gridspec(1, 3, width_ratios=(1, 4, 1))[0, 1])]
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[count:]:
        axes.remove()
    return figure, list(panels[:count])


def layer_ticks(count: int, panels: int = 1) -> list[int]:
    """Return ticks for layers 1 ... count: the first, round numbers, and the last if `panels` panels leave room."""
    most = 7 if panels < 3 else 4
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500) if count / step < most or step == 500)
    ticks = [1, *(i for i in range(step, count + 1, step) if i > 1)]
    return [*ticks, count] if count - ticks[-1] >= step / 2 else ticks


def dress(axes: Axes, title: str, x: str, y: str, empty: bool = False) -> None:
    """Set labels, grid and frame. Their colours and sizes are explicit, so a user's style cannot hide the labels."""
    grid = axes.get_gridspec()
    panels = grid.ncols if grid else 1
    axes.set_title(textwrap.fill(title, max(16, 72 // panels)), fontsize=LABEL, color=INK)
    axes.set_xlabel(textwrap.fill(x, max(16, 84 // panels)), fontsize=LABEL, color=INK)
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


def legend_below(figure: Figure, panels: Sequence[Axes], extra: str = "", columns: int = 4,
                 styles: Sequence[matplotlib.lines.Line2D] = ()) -> None:
    """Draw one legend for all panels, below them so that it hides no data.

    extra    the label of an entry with a hollow marker
    styles   lines of entries that no panel contains
    """
    handles: dict[str, Any] = {str(line.get_label()): line for line in styles}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if extra:
        handles[extra] = matplotlib.lines.Line2D(
            [], [], linestyle="none", marker="o", markersize=6, markerfacecolor="white", markeredgecolor=INK
        )
    if not handles:
        return
    columns = _columns(list(handles), columns, figure.get_size_inches()[0])
    place: dict[str, Any] = {"loc": "outside lower center"}
    if figure.caption_share:  # matplotlib makes room for one artist outside the axes, but not for two
        rows = -(-len(handles) // columns)
        figure.keep_free(figure.caption_share + (0.24 * rows + 0.1) / figure.get_size_inches()[1])
        place = {"loc": "lower center", "bbox_to_anchor": (0.5, figure.caption_share)}
    figure.legend(
        list(handles.values()),
        list(handles),
        **place,
        ncols=columns,
        fontsize=TICK,
        frameon=False,
        labelcolor=INK,
        handlelength=2.8,
    )


def _columns(labels: Sequence[str], most: int, width: float) -> int:
    """Return how many columns of a legend fit into this width, in inches."""
    for columns in range(min(most, len(labels)), 1, -1):
        rows, longer = divmod(len(labels), columns)  # as matplotlib fills them: the first columns are longer
        ends = np.cumsum([rows + (i < longer) for i in range(columns)])
        parts = np.split(np.array([len(label) for label in labels]), ends[:-1])
        if sum(0.68 + 0.073 * int(part.max()) for part in parts) <= width:  # a line, and letters of 10 points
            return columns
    return 1


def kind(label: str) -> str:
    """Return "plain" or "resnet" if the label begins with such a network's name or with its kind; else ""."""
    if (found := network(label, more=True)) is not None:
        return "resnet" if found.residual else "plain" if found.family == "plain" else ""
    word = re.match(r"(plain|resnet|residual)\b", label, re.IGNORECASE)
    return "" if word is None else "plain" if word[1].lower() == "plain" else "resnet"


def depth(label: str) -> int | None:
    """Return 56 for "plain-56, width 8", and None for a label that does not begin with a network's name."""
    found = network(label, more=True)
    return found.depth or None if found else None


def series(labels: Iterable[Any]) -> dict[Any, dict[str, Any]]:
    """Return {label: colour, dashes and marker} of several lines, which differ even in grey print.

    In every figure plain networks are orange and dashed, and residual networks are blue and solid. The shallowest is
    light and the deepest is dark. If the names do not have different depths, the first is light and the last is dark.
    Other labels get the other colours in turn.
    """
    labels = list(labels)
    by_kind: dict[str, list[Any]] = {}
    for label in labels:
        by_kind.setdefault(kind(str(label)), []).append(label)
    found: dict[Any, dict[str, Any]] = {}
    for which, members in by_kind.items():
        depths = [depth(str(label)) or 0 for label in members]
        if which and 0 not in depths and len(set(depths)) == len(depths):
            members = [label for _, label in sorted(zip(depths, members, strict=True), key=lambda pair: pair[0])]
        for i, label in enumerate(members):
            share = i / (len(members) - 1) if len(members) > 1 else 0.0
            if which:
                colour, dashes = _mixed(which, share), DASHES[which]
                marker = MARKERS[which][i % len(MARKERS[which])]
            else:
                (colour, dashes, _), marker = OTHERS[i % 5], OTHERS[(i + i // 5) % 5][2]
            shown = f" {label}" if str(label).startswith("_") else label  # matplotlib's legends leave out "_..."
            found[label] = {"label": shown, "color": colour, "linestyle": dashes, "marker": marker,
                            "linewidth": 1.6 + 0.6 * share if which else 1.8, "markersize": 5}
    return {label: found[label] for label in labels}


def _mixed(which: str, share: float) -> str:
    """Return a colour between the shallowest network's (share 0) and the deepest network's (share 1)."""
    red, green, blue = ((1 - share) * a + share * b for a, b in zip(*map(to_rgb, COLOURS[which]), strict=True))
    return to_hex((red, green, blue))


def log_scale(axes: Axes) -> None:
    """Make the y axis of drawn lines logarithmic, with ticks at 1, 2 and 5 times powers of ten for a small range."""
    axes.set_yscale("log", nonpositive="mask")
    low, high = axes.get_ylim()
    if high < 40 * low:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        axes.yaxis.set_minor_formatter(NullFormatter())


def every(count: int, wanted: int = 15) -> int:
    """Return the `markevery` that leaves about `wanted` markers on a line of `count` points."""
    return max(1, count // wanted)


def colour_bar(figure: Figure, image: Any, axes: Any, label: str, form: Any = None) -> None:
    """Draw a colour bar, which says what the colours mean, to the right of `axes`."""
    bar = figure.colorbar(image, ax=axes, shrink=0.9, pad=0.02, format=form)
    bar.set_label(label, fontsize=LABEL, color=INK)
    bar.ax.tick_params(labelsize=TICK, colors=INK)
