"""This module draws small arrays as grids of numbers, such as a convolution's windows and its column matrix."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.patches
import numpy as np
from matplotlib.axes import Axes

from .style import EMPTY, FRAME, INK, LABEL, PADDING, TICK, WINDOWS, Figure, new_figure


def im2col(padded: Any, columns: Any, outputs: Any, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1),
           padding: tuple[int, int] = (0, 0), at: int = 0, caption: str = "") -> Figure:
    """Draw one channel of one image beside its column matrix and the convolution's result, with window `at` framed.

    padded    (H + 2 ph, W + 2 pw), the image with its padding
    columns   (kh*kw, Ho*Wo), the image's im2col
    outputs   (Ho, Wo), the convolution's result
    """
    padded, columns, outputs = np.asarray(padded), np.asarray(columns), np.asarray(outputs)
    (kh, kw), (ph, pw), (high, wide) = kernel, padding, padded.shape
    row, column = divmod(at, outputs.shape[1])
    top, left = row * stride[0], column * stride[1]
    colour = [WINDOWS[i % len(WINDOWS)] for i in range(outputs.size)]

    figure = new_figure(f"Window {at} of the image is column {at} of the matrix; kernel times column is "
                        f"{outputs[row, column]:g}", 0.36 * max(high, len(columns)) + 1.3, caption)
    image, matrix, result = figure.subplots(1, 3, width_ratios=[wide + 1, columns.shape[1] + 1.5, outputs.shape[1] + 1])
    inside = np.zeros(padded.shape, bool)
    inside[ph:high - ph, pw:wide - pw] = True
    fills = np.where(inside, EMPTY, PADDING).astype(object)
    fills[top:top + kh, left:left + kw] = colour[at]
    grid(image, padded, fills)
    frame(image, top, left, kh, kw)
    grid(matrix, columns, np.array([colour] * len(columns), object))
    frame(matrix, 0, at, len(columns), 1)
    grid(result, outputs, np.array(colour, object).reshape(outputs.shape))
    frame(result, row, column, 1, 1)

    image.set_title("image" + (" (grey: padding)" if any(padding) else ""), fontsize=LABEL)
    matrix.set_title("column matrix", fontsize=LABEL)
    matrix.set_xticks(range(columns.shape[1]), [str(i) for i in range(columns.shape[1])], fontsize=TICK)
    matrix.set_xlabel("window", fontsize=LABEL)
    matrix.set_yticks(range(len(columns)), [f"{i}, {j}" for i in range(kh) for j in range(kw)], fontsize=TICK)
    matrix.set_ylabel("row, column in the kernel", fontsize=LABEL)
    result.set_title("result", fontsize=LABEL)
    return figure


def grids(arrays: Mapping[str, Any], title: str, caption: str = "") -> Figure:
    """Draw two-dimensional arrays side by side, {name: array}, with their numbers. Larger values are darker."""
    shown = {name: np.asarray(values) for name, values in arrays.items()}
    figure = new_figure(title, 0.36 * max(len(v) for v in shown.values()) + 1.2, caption)
    panels = figure.subplots(1, len(shown), squeeze=False, width_ratios=[v.shape[1] + 1 for v in shown.values()])[0]
    low, high = min(v.min() for v in shown.values()), max(v.max() for v in shown.values())
    for axes, (name, values) in zip(panels, shown.items(), strict=True):
        share = (values - low) / (high - low) if high > low else np.zeros(values.shape)
        grid(axes, values, [[str(1 - 0.45 * s) for s in line] for line in share])  # matplotlib's "0.8" is a light grey
        axes.set_title(name, fontsize=LABEL)
    return figure


def grid(axes: Axes, values: Any, fills: Sequence[Sequence[str]] | Any) -> None:
    """Draw squares with numbers in them, the first row at the top."""
    for (i, j), value in np.ndenumerate(values):
        axes.add_patch(matplotlib.patches.Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=fills[i][j],
                                                    edgecolor=FRAME, linewidth=0.7))
        axes.text(j, i, f"{value:g}", ha="center", va="center", fontsize=TICK, color=INK)
    axes.set_xlim(-0.6, values.shape[1] - 0.4)
    axes.set_ylim(values.shape[0] - 0.4, -0.6)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.tick_params(length=0, colors=INK)
    axes.set_frame_on(False)


def frame(axes: Axes, top: int, left: int, high: int, wide: int) -> None:
    """Draw a thick line around a rectangle of squares."""
    axes.add_patch(matplotlib.patches.Rectangle((left - 0.5, top - 0.5), wide, high, fill=False, edgecolor=INK,
                                                linewidth=2.4, zorder=3))
