"""What layers represent and see: refinement, CKA, filters, patches."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from .style import LABEL, TICK, Figure, colour_bar, dress, layer_ticks, legend_below, new_figure, series


def refinement(found: Mapping[str, Mapping[str, Any]], caption: str = "") -> Figure:
    """How much each block changes features, and their distance from the stage's last; {label: analysis.refinement}."""
    means = "; ".join(f"{label} {np.mean([r.change for r in values.values()]):.2f}" for label, values in found.items()
                      if values)
    title = f"Mean change of the features by one block, relative to them: {means}" if means else "Refinement by block"
    figure = new_figure(title, 4.2, caption)
    panels = figure.subplots(1, 3)
    for axes, (key, text) in zip(panels, MEASURES.items(), strict=True):
        most = 1
        for label, style in series(found).items():
            blocks = list(found[label].values())
            most = max(most, len(blocks))
            ends = [i for i, r in enumerate(blocks, 1) if r.distance == 0]  # of stages: a line must not join two
            for first, last in pairwise([0, *ends, len(blocks)]):
                numbers = [getattr(r, key) for r in blocks[first:last]]
                axes.plot(range(first + 1, last + 1), numbers, **style)
                style["label"] = "_" + str(label)  # one entry in the legend
        axes.set_ylim(bottom=0)
        axes.set_xticks(layer_ticks(most))
        dress(axes, text, "block that keeps the shape", "", empty=not found)
    legend_below(figure, panels)
    return figure


MEASURES = {"change": "|y - x| / |x|", "cosine": "cosine of x and y", "distance": "|y - last| / |last|"}


def cka(rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float]], caption: str = "",
        row_label: str = "layer", column_label: str = "layer") -> Figure:
    """How alike layers are: the three results of analysis.cka_matrix. White is 1."""
    figure = new_figure("Linear CKA: how alike two layers represent the same images", 6.2, caption)
    axes = figure.subplots()
    image = axes.imshow(np.asarray(values, float), cmap="gray", vmin=0, vmax=1, origin="lower", interpolation="nearest")
    for names, set_ticks in ((columns, axes.set_xticks), (rows, axes.set_yticks)):
        shown = [i - 1 for i in layer_ticks(len(names))] if len(names) > 20 else range(len(names))
        set_ticks(list(shown), [names[i] for i in shown])
    dress(axes, "", column_label, row_label)
    axes.tick_params(axis="x", rotation=90)
    axes.grid(False)
    colour_bar(figure, image, axes, "CKA")
    return figure


def matrices(found: Mapping[str, Any], title: str, row_label: str, column_label: str, value_label: str,
             caption: str = "") -> Figure:
    """Matrices side by side, {name: (rows, columns)}: middle grey is 0, white above, black below, on one scale."""
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


def filters(images: Any, caption: str = "") -> Figure:
    """First-layer filters, (filters, height, width, channels) in [0, 1], as analysis.first_filters gives them."""
    images = np.asarray(images)
    columns = min(16, max(8, math.ceil(math.sqrt(len(images)))))
    rows = math.ceil(len(images) / columns)
    size = images.shape[1]
    figure = new_figure(f"The {len(images)} filters of the first layer, {size}x{images.shape[2]}; grey is weight 0",
                        0.9 + 0.75 * rows + (0.3 if caption else 0), caption)
    grid = figure.subplots(rows, columns, squeeze=False)
    for i, axes in enumerate(grid.flat):
        axes.axis("off")
        if i < len(images):
            axes.imshow(_shown(images[i]), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    return figure


def patches(found: Mapping[str, Sequence[Any]], caption: str = "") -> Figure:
    """The patches that excite a channel most, a row for each {label: analysis.exciting_patches(...)}, best first.

    Patches are scaled to one size; the number on the left is how many pixels wide they are.
    """
    figure = new_figure("The image patches that excite a channel most, and how much of the image its units see",
                        1.0 + 0.95 * max(1, len(found)) + (0.3 if caption else 0), caption)
    columns = max((len(p) for p in found.values()), default=1)
    grid = figure.subplots(max(1, len(found)), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_frame_on(False)
    for row, (label, places) in zip(grid, found.items(), strict=False):
        high, wide = places[0].pixels.shape[:2]
        row[0].set_ylabel(f"{label}\n{high}x{wide}", fontsize=LABEL - 1.5, rotation=0, ha="right", va="center")
        values = [p.pixels for p in places]
        low, top = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
        for axes, place in zip(row, places, strict=False):
            pixels = place.pixels
            if pixels.dtype != np.uint8:  # what a network takes has no fixed range: one scale for the row
                pixels = (pixels - low) / ((top - low) or 1)
            axes.imshow(_shown(pixels), cmap="gray", interpolation="nearest")
            axes.set_xlabel(f"{place.value:.2f}", fontsize=TICK - 2)
    return figure


def _shown(image: Any) -> Any:
    """(H, W, 3) in colour, (H, W) and (H, W, 1) in grey; of another number of channels their mean."""
    if image.ndim == 3 and image.shape[2] != 3:
        return image.mean(2)
    return image
