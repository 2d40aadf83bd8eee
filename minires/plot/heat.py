"""This module draws numbers over a grid of two settings, as colours with the numbers written in."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .numbers import number
from .style import INK, TICK, Figure, colour_bar, dress, new_figure


def heat_maps(found: Mapping[str, Sequence[Sequence[float]]], rows: Sequence[float], columns: Sequence[float],
              labels: tuple[str, str, str], title: str = "", caption: str = "") -> Figure:
    """Draw one panel for each entry of `found`, all on one scale of colours.

    found     {panel's title: a value for every row and column}
    rows      the setting's value for every row, the lowest row first
    columns   the other setting's value for every column
    labels    of the rows, of the columns and of the values

    Dark is high, and NaN is white.

    Raises ValueError if a panel's shape is not (rows, columns).
    """
    panels = {name: np.asarray(values, float) for name, values in found.items()}
    for name, values in panels.items():
        if values.shape != (len(rows), len(columns)):
            raise ValueError(f"heat_maps, {name!r}: expected {len(rows)} rows of {len(columns)} values, got an array "
                             f"of shape {values.shape}")
    known = np.concatenate([v[np.isfinite(v)] for v in panels.values()] or [np.zeros(0)])
    low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
    figure = new_figure(title, 1.9 + 0.42 * len(rows), caption)
    image: Any = None
    axes = figure.subplots(1, max(1, len(panels)), sharey=True, squeeze=False)[0]
    for panel, (name, values) in zip(axes, panels.items(), strict=False):
        image = panel.imshow(values, origin="lower", aspect="auto", cmap="Greys", vmin=low, vmax=high)
        for (i, j), value in np.ndenumerate(values):
            colour = "white" if value > (low + high) / 2 else INK
            panel.text(j, i, number(value) if np.isfinite(value) else "",
                       ha="center", va="center", fontsize=TICK - 0.5, color=colour)
        panel.set_xticks(range(len(columns)), [number(c) for c in columns])
        panel.set_yticks(range(len(rows)), [number(r) for r in rows])
        dress(panel, name, labels[1], labels[0] if panel is axes[0] else "")
        panel.grid(False)
    if image is not None:
        colour_bar(figure, image, list(axes), labels[2])
    else:
        dress(axes[0], "", labels[1], labels[0], empty=True)
    return figure
