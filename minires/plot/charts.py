"""This module draws numbers that a notebook has computed itself: lines, ranges, bars, pictures, and points in a plane.

Figures of the results of `analysis` have functions of their own, which know what the numbers mean. These functions
know only the style.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from .convolution import grid
from .labels import labelled
from .numbers import number, written
from .style import (
    BAND,
    GREY,
    INK,
    LIMIT,
    NODES,
    THEORY,
    TICK,
    Figure,
    dress,
    every,
    legend_below,
    log_scale,
    new_figure,
    series,
)


@dataclass
class Panel:
    """A Panel is one pair of axes with lines, for `lines`.

    lines    {label: values}, or {label: (x, values)}; without x, the first value is at `start`, the next one at
             `start` + 1
    x, y     the labels of the axes, with units
    heading  the title over the panel
    log      "x", "y" or "xy": the axes with a logarithmic scale. Other y axes start at 0 if all values are positive
    dots     the labels that are drawn as points without a line
    bands    {label of a line: (lowest, highest)}, drawn as a band around the line
    theory   thin grey lines, in the form of `lines`
    levels   {label: height of a horizontal line}
    edges    places of vertical lines
    ticks    places of the ticks on the x axis, or {place: text}
    limits   the ends of the y axis
    start    x of the first value
    """

    lines: Mapping[str, Any]
    x: str
    y: str
    heading: str = ""
    log: str = ""
    dots: Sequence[str] = ()
    bands: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    theory: Mapping[str, Any] = field(default_factory=dict)
    levels: Mapping[str, float] = field(default_factory=dict)
    edges: Sequence[float] = ()
    ticks: Any = ()
    limits: tuple[float, float] | None = None
    start: float = 1


def lines(panels: Panel | Sequence[Panel], title: str, caption: str = "", *, height: float = 4.2,
          columns: int = 4) -> Figure:
    """Draw panels of lines side by side, with one legend.

    height   of the figure, in inches
    columns  of the legend, at most

    A label has the same colour, dashes and marker in all panels.

    Raises ValueError for a line whose x and values differ in number, or for an unknown `log`.
    """
    shown = [panels] if isinstance(panels, Panel) else list(panels)
    figure = new_figure(title, height, caption)
    dots = {label for panel in shown for label in panel.dots}
    styles = series(sorted(dict.fromkeys(label for panel in shown for label in panel.lines), key=dots.__contains__))
    drawn = figure.subplots(1, max(1, len(shown)), squeeze=False)[0]
    for axes, panel in zip(drawn, shown, strict=False):
        _draw_lines(axes, panel, styles)
    if not shown:
        dress(drawn[0], "", "", "", empty=True)
    legend_below(figure, list(drawn), columns=columns)
    return figure


def _draw_lines(axes: Axes, panel: Panel, styles: Mapping[str, Any]) -> None:
    if panel.log not in ("", "x", "y", "xy"):
        raise ValueError(f'plot.lines: log: expected "x", "y", "xy" or "", got {panel.log!r}')
    lowest = 0.0
    for label, given in panel.lines.items():
        at, values = _points(label, given, panel.start)
        style = dict(styles[label])
        if label in panel.bands:
            axes.fill_between(at, *panel.bands[label], color=BAND, zorder=1)
        if label in panel.dots:
            style |= {"linestyle": "none", "markersize": 4}
        elif len(at) > 60:
            style |= {"marker": ""}
        axes.plot(at, values, **style | {"markevery": every(len(at), 15)} if label not in panel.dots else style)
        lowest = min([lowest, *values[np.isfinite(values)]])
    for i, (label, given) in enumerate(panel.theory.items()):
        at, values = _points(label, given, panel.start)
        axes.plot(at, values, color=GREY, linewidth=1.1, linestyle=(THEORY, LIMIT, (0, (4, 3)))[i % 3], label=label)
    for i, (label, level) in enumerate(panel.levels.items()):
        axes.axhline(level, color=GREY, linewidth=1.2, linestyle=(THEORY, LIMIT, (0, (4, 3)))[i % 3], label=label)
    for edge in panel.edges:
        axes.axvline(edge, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
    if panel.limits is not None:
        axes.set_ylim(*panel.limits)
    if "x" in panel.log:
        axes.set_xscale("log")
    if "y" in panel.log:
        log_scale(axes)
    elif panel.limits is None and lowest >= 0:
        axes.set_ylim(bottom=0)
    if len(panel.ticks):
        axes.set_xticks(list(panel.ticks), list(panel.ticks.values()) if isinstance(panel.ticks, Mapping) else
                        [written(tick) for tick in panel.ticks])
        axes.minorticks_off() if "x" in panel.log and "y" not in panel.log else None
    elif all(not isinstance(given, tuple) for given in panel.lines.values()):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    dress(axes, panel.heading, panel.x, panel.y, empty=not panel.lines)


def _points(label: str, given: Any, start: float) -> tuple[Any, Any]:
    """Return (x, values) of a line as arrays."""
    at, values = given if isinstance(given, tuple) else (None, given)
    values = np.asarray(list(values) if not hasattr(values, "shape") else values, float)
    at = start + np.arange(len(values)) if at is None else np.asarray(list(at), float)
    if at.shape != values.shape:
        raise ValueError(f"plot.lines: {label!r}: expected as many x as values, got {len(at)} and {len(values)}")
    return at, values


def ranges(found: Mapping[str, tuple[float, float, float]], x: str, title: str, caption: str = "", *,
           log: bool = False) -> Figure:
    """Draw a row for every label, with a point at the middle value and a line from the lowest to the highest.

    found: {label: (lowest, middle, highest)}
    x: the label of the axis, with its unit
    log: whether the axis is logarithmic
    """
    figure = new_figure(title, 1.5 + 0.36 * len(found), caption)
    axes = figure.subplots()
    for i, (low, middle, high) in enumerate(found.values()):
        axes.plot([low, high], [i, i], color=INK, linewidth=1.6, marker="|", markersize=9)
        axes.plot(middle, i, color=INK, marker="o", markersize=8)
    axes.set_yticks(range(len(found)), list(found))
    axes.set_ylim(max(1, len(found)) - 0.5, -0.5)
    if log:
        axes.set_xscale("log")
    dress(axes, "", x, "", empty=not found)
    return figure


def bars(found: Mapping[str, Any], x: str, y: str, title: str, caption: str = "", *,
         marks: Mapping[str, float] | None = None, height: float = 3.8) -> Figure:
    """Draw bars with their values above them.

    found  {label of a bar: value}, or {panel: {label: value}}, with the panels side by side
    x, y   the labels of the axes, with units
    marks  {label of a bar: value to compare with}, drawn as a short horizontal line
    """
    panels = {name: {str(k): float(v) for k, v in values.items()} for name, values in labelled(found, 1).items()}
    figure = new_figure(title, height, caption)
    drawn = figure.subplots(1, max(1, len(panels)), sharey=True, squeeze=False)[0]
    for axes, (name, values) in zip(drawn, panels.items(), strict=False):
        places = range(len(values))
        found_bars = axes.bar(places, list(values.values()), color="#c6c6c6", edgecolor=INK)
        if len(values) <= 20 // len(panels):
            axes.bar_label(found_bars, [f"{value:,.0f}" if value.is_integer() else number(value)
                                        for value in values.values()], fontsize=TICK, padding=2)
        if marks:
            axes.plot(places, [marks[label] for label in values], "_", color=INK, markersize=14, markeredgewidth=2)
        axes.set_xticks(places, list(values))
        axes.set_ylim(min(0.0, 1.25 * min(values.values(), default=0.0)), None)
        axes.margins(y=0.12)
        dress(axes, name, x, y if axes is drawn[0] else "")
    if not panels:
        dress(drawn[0], "", x, y, empty=True)
    return figure


def pictures(rows: Sequence[Sequence[tuple[str, Any]]], title: str, caption: str = "", *,
             same_scale: bool = False) -> Figure:
    """Draw arrays of two dimensions as grey pictures, in rows, with their names above them.

    rows        [(name, array), ...] for each row; None instead of an array leaves its place empty
    same_scale  True draws all pictures of the figure on one scale; False scales each by its largest magnitude

    White is the largest value. Middle grey is 0 in pictures with negative values, and black is 0 in all others. An
    array of at most 4 by 4 whole numbers is drawn as these numbers.
    """
    widest = max((len(row) for row in rows), default=1)
    high = len(rows) * min(1.7, 8.0 / max(widest, 1) + 0.3)
    figure = new_figure(title, 0.8 + (0.3 if caption else 0.1) + high, caption)
    places = figure.subplots(max(1, len(rows)), widest, squeeze=False)
    for axes in places.flat:
        axes.axis("off")
    largest = max((float(abs(np.asarray(a)).max()) for row in rows for _, a in row if a is not None), default=1.0)
    for line, row in zip(places, rows, strict=False):
        for axes, (name, given) in zip(line, row, strict=False):
            if given is None:
                continue
            picture = np.asarray(given, float)
            if max(picture.shape) <= 4 and not (picture % 1).any():
                axes.axis("on")
                grid(axes, picture, [["white"] * picture.shape[1]] * picture.shape[0])
            else:
                most = (largest if same_scale else float(abs(picture).max())) or 1.0
                axes.imshow(picture, cmap="gray", vmin=-most if picture.min() < 0 else 0, vmax=most,
                            interpolation="nearest")
            axes.set_title(name, fontsize=TICK, color=INK)
    return figure


def complex_plane(found: Any, title: str, caption: str = "", *, marks: Mapping[str, complex] | None = None,
                  height: float = 5.0) -> Figure:
    """Draw complex numbers as points, on axes of one scale.

    found: an array of complex numbers, or {label: such an array}
    marks: {label: a number to be marked with a large symbol}
    """
    figure = new_figure(title, height, caption)
    axes, shown = figure.subplots(), labelled(found)
    for i, (label, style) in enumerate(series(shown).items()):
        values = np.asarray(shown[label])
        fill = "white" if i % 2 else style["color"]
        axes.plot(values.real, values.imag,
                  **style | {"linestyle": "none", "markersize": 4, "markerfacecolor": fill})
    for (label, at), marker in zip((marks or {}).items(), cycle("xPD*"), strict=False):
        axes.plot([at.real], [at.imag], marker, color=INK if marker == "x" else "white", markeredgecolor=INK,
                  markersize=11, markeredgewidth=2 if marker == "x" else 1.2, linestyle="none", label=label)
    axes.set_aspect("equal", "datalim")
    dress(axes, "", "real part", "imaginary part", empty=not shown)
    legend_below(figure, [axes])
    return figure


def decision_regions(classify: Callable[[Any], Any], points: Any, labels: Any, title: str, caption: str = "", *,
                     height: float = 4.6) -> Figure:
    """Draw points of the plane by class, over the class that a classifier gives to every place.

    classify: a function from float32 points (n, 2) to their classes (n,)
    points: (n, 2)
    labels: (n,), whole numbers from 0
    """
    points, labels = np.asarray(points), np.asarray(labels)
    figure = new_figure(title, height, caption)
    axes = figure.subplots()
    span = 1.08 * float(abs(points).max())
    line = np.linspace(-span, span, 150, dtype=np.float32)
    places = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    classes = [str(k) for k in range(int(labels.max()) + 1)]
    shades = ("#dcdcdc", "#f4f4f4", "#bdbdbd", *NODES.values())
    axes.contourf(line, line, np.asarray(classify(places)).reshape(150, 150),
                  levels=[k - 0.5 for k in range(len(classes) + 1)], colors=list(shades[:len(classes)]))
    for k, style in enumerate(series(classes).values()):
        axes.plot(*points[labels == k].T, linestyle="none", marker=style["marker"], color=style["color"], markersize=4,
                  label=f"class {k}")
    axes.set_aspect("equal")
    dress(axes, "", "first coordinate", "second coordinate")
    axes.grid(visible=False)
    legend_below(figure, [axes], columns=5)
    return figure
