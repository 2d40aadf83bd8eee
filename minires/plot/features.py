"""This module draws what layers represent and see: refinement, CKA, filters and patches."""
from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from .labels import labelled, listed, said
from .style import (
    LABEL,
    TICK,
    Figure,
    colour_bar,
    dress,
    layer_ticks,
    legend_below,
    new_figure,
    series,
    square_panels,
)


def refinement(found: Any, caption: str = "") -> Figure:
    """Draw how much each block changes the features, and how far its output is from the stage's output.

    found: what analysis.refinement returns, or {label: such a result}
    """
    shown = labelled(found, 1)
    means = listed({label: f"{np.mean([r.change for r in values.values()]):.2f}"
                    for label, values in shown.items() if values})
    title = f"Mean relative change of the features by one block: {means}" if means else "Refinement by block"
    figure = new_figure(title, 4.2, caption)
    panels = figure.subplots(1, 3)
    for axes, (key, (says, y)) in zip(panels, MEASURES.items(), strict=True):
        most = 1
        for label, style in series(shown).items():
            blocks = list(shown[label].values())
            most = max(most, len(blocks))
            ends = [i for i, r in enumerate(blocks, 1) if r.distance == 0]  # last blocks of stages: a line ends there
            for first, last in pairwise([0, *ends, len(blocks)]):
                numbers = [getattr(r, key) for r in blocks[first:last]]
                axes.plot(range(first + 1, last + 1), numbers, **style)
                style["label"] = ""  # one entry in the legend
        axes.set_ylim(bottom=0)
        axes.set_xticks(layer_ticks(most, 3))
        dress(axes, says, "block that keeps the shape", y, empty=not shown)
    legend_below(figure, panels)
    return figure


MEASURES = {"change": ("change from input x to output y", "|y - x| / |x|"),
            "cosine": ("cosine of input and output", "cosine of x and y"),
            "distance": ("distance from the stage's output", "|y - last| / |last|")}


def cka_matrix(found: Any, caption: str = "", row_label: str = "layer", column_label: str = "layer") -> Figure:
    """Draw how similar layers are. White is a CKA of 1.

    found: what analysis.cka_matrix returns, or {label: such a result}, with one panel for each
    """
    shown = labelled(found)
    longest = max((len(name) for alike in shown.values() for name in alike.rows + alike.columns), default=0)
    title = "Linear CKA: how similarly two layers represent the same images"
    figure, panels = square_panels(title, caption, len(shown), 0.08 * longest)
    image, room = None, 20 if len(shown) < 2 else 10
    for axes, (label, alike) in zip(panels, shown.items(), strict=False):
        image = axes.imshow(np.asarray(alike.values, float), cmap="gray", vmin=0, vmax=1, origin="lower",
                            interpolation="nearest", aspect="auto")
        for names, set_ticks in ((alike.columns, axes.set_xticks), (alike.rows, axes.set_yticks)):
            ticks = [i - 1 for i in layer_ticks(len(names))] if len(names) > room else range(len(names))
            set_ticks(list(ticks), [names[i] for i in ticks])
        dress(axes, label, column_label, row_label if axes in panels[::2] else "")
        axes.tick_params(axis="x", rotation=90)
        axes.grid(False)
    if image is None:
        dress(panels[0], "", column_label, row_label, empty=True)
    else:
        colour_bar(figure, image, list(panels), "CKA")
    return figure


def matrices(found: Mapping[str, Any], title: str, row_label: str, column_label: str, value_label: str,
             caption: str = "") -> Figure:
    """Draw matrices side by side on one scale: middle grey is 0, larger values are lighter, smaller values are darker.

    found: {name: (rows, columns)}
    """
    figure = new_figure(title, 4.6, caption)
    panels = figure.subplots(1, max(1, len(found)), squeeze=False)[0]
    most = max((float(abs(np.asarray(m)).max()) for m in found.values()), default=1.0) or 1.0
    for axes, (name, m) in zip(panels, found.items(), strict=False):
        image = axes.imshow(np.asarray(m), cmap="gray", vmin=-most, vmax=most, interpolation="nearest", aspect="auto")
        dress(axes, name, column_label, row_label)
        axes.grid(False)
    if found:
        colour_bar(figure, image, panels, value_label)
    return figure


def first_filters(found: Any, caption: str = "") -> Figure:
    """Draw the filters of the first layer.

    found: what analysis.first_filters returns, (filters, height, width, channels) in [0, 1], or {label: such an array},
    with rows for each
    """
    shown = {label: np.asarray(images) for label, images in labelled(found).items()}
    most = max((len(images) for images in shown.values()), default=1)
    columns = min(16, max(8, math.ceil(math.sqrt(most))))
    rows = {label: math.ceil(len(images) / columns) for label, images in shown.items()}
    sizes = listed({label: f"{len(v)} of size {v.shape[1]}x{v.shape[2]}" for label, v in shown.items()})
    figure = new_figure("Filters of the first layer" + f": {sizes}" * bool(sizes) + "; middle grey is 0" * bool(shown),
                        0.9 + 0.75 * sum(rows.values()) + (0.3 if caption else 0), caption)
    grid = figure.subplots(max(1, sum(rows.values())), columns, squeeze=False)
    places = iter(grid)
    for axes in grid.flat:
        _bare(axes)
    for label, images in shown.items():
        block = np.concatenate([next(places) for _ in range(rows[label])])
        _beside(block[0], label)
        for axes, image in zip(block, images, strict=False):
            axes.imshow(_shown(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    if not shown:
        dress(grid[0][0], "", "", "", empty=True)
    return figure


def exciting_patches(found: Any, caption: str = "") -> Figure:
    """Draw the patches that excite a channel most, the strongest first.

    found: what analysis.exciting_patches returns, or {label: such a result}, with one row for each

    All patches are drawn at one size. The label on the left gives the patches' size in pixels, and the number below a
    patch is the activation.
    """
    shown = {label: places for label, places in labelled(found).items() if places}
    figure = new_figure("The image patches that excite a channel most, with their size in pixels and the activation",
                        1.0 + 0.95 * max(1, len(shown)) + (0.3 if caption else 0), caption)
    columns = max((len(p) for p in shown.values()), default=1)
    grid = figure.subplots(max(1, len(shown)), columns, squeeze=False)
    for axes in grid.flat:
        _bare(axes)
    for row, (label, places) in zip(grid, shown.items(), strict=False):
        high, wide = places[0].pixels.shape[:2]
        _beside(row[0], said(label, f"{high}x{wide}", "\n"))
        values = [p.pixels for p in places]
        low, top = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
        for axes, place in zip(row, places, strict=False):
            pixels = place.pixels
            if pixels.dtype != np.uint8:  # a network's input has no fixed range: each row has one scale
                pixels = (pixels - low) / ((top - low) or 1)
            axes.imshow(_shown(pixels), cmap="gray", interpolation="nearest")
            axes.set_xlabel(f"{place.value:.2f}", fontsize=TICK - 2)
    if not shown:
        dress(grid[0][0], "", "", "", empty=True)
    return figure


def _bare(axes: Any) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_frame_on(False)


def _beside(axes: Any, label: str) -> None:
    """Write a row's label to its left."""
    lines = "\n".join(textwrap.fill(line, 24) for line in label.split("\n"))
    axes.set_ylabel(lines, fontsize=LABEL - 1.5, rotation=0, ha="right", va="center")


def _shown(image: Any) -> Any:
    """Return the image to show: (H, W, 3) in colour, (H, W) in grey, and the mean of any other number of channels."""
    if image.ndim == 3 and image.shape[2] != 3:
        return image.mean(2)
    return image
