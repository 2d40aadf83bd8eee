"""This module draws scenes with the boxes and the masks that a network found."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.patches
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D

from ..names import counted
from .style import COLOURS, GREY, INK, LABEL, TICK, WIDTH, Figure, legend_below, new_figure

COLUMNS = 3
TRUE, RIGHT, WRONG = "#ffffff", COLOURS["resnet"][0], "#fd8d3c"  # on a dark ground
WRONG_DASHES: Any = (0, (1.4, 0.9))  # so that right and wrong differ in grey print
NAMED = 12  # pixels of a class in a mask, from which its name is written there
# Colours and dashes of kinds of boxes, in turn. The first is drawn grey in a legend, which is white.
KINDS: tuple[tuple[str, Any], ...] = ((TRUE, (0, (3, 2))), (WRONG, "solid"), ("#66c2ff", (0, (1, 1))),
                                      ("#a1d99b", (0, (5, 1, 1, 1))))
# One colour for the ground and one for each class of Fashion-MNIST; further classes begin again after the ground.
MASKS = ("#000000", "#e41a1c", "#377eb8", "#4daf4a", "#984ea3", "#ff7f00", "#ffff33", "#a65628", "#f781bf", "#bdbdbd",
         "#66c2a5")


def detected(images: Any, true: tuple[Any, Any, Any], found: tuple[Any, Any, Any, Any, Any], classes: Sequence[str],
             title: str = "", caption: str = "") -> Figure:
    """Draw scenes with the true boxes (white, dashed), and those that were found: blue and solid if right, else
    orange and dotted.

    images: (N, H, W) grey levels from 0 to 255
    true: boxes (M, 4) in pixels with exclusive ends, classes (M,), and the image of each (M,)
    found: boxes (K, 4), classes (K,), images (K,), scores (K,), and whether each is right (K,)
    classes: the classes' names

    A found box has its class and its score above it, or inside if it is at the top of the image. If only the class is
    wrong, that of the true box follows in brackets: "Dress (Shirt) 0.71".
    """
    images = np.asarray(images)
    right = int(np.asarray(found[4], bool).sum())
    boxes, scenes = "box" if len(found[0]) == 1 else "boxes", "scene has" if len(images) == 1 else "scenes have"
    title = title or (f"{len(found[0])} {boxes} found, {right} of them right; the {scenes} "
                      f"{counted(len(true[0]), 'object')}")
    figure, panels = _panels(len(images), min(COLUMNS, len(images)), title, caption, most=3.4)
    for number, axes in enumerate(panels):
        _image(axes, images[number])
        for box, _, scene in zip(*true, strict=True):
            if scene == number:
                _box(axes, box, TRUE, (0, (3, 2)))
        for box, label, scene, score, is_right in zip(*found, strict=True):
            if scene == number:
                colour = RIGHT if is_right else WRONG
                _box(axes, box, colour, "solid" if is_right else WRONG_DASHES)
                name = classes[int(label)]
                if not is_right and (real := _class_there(box, number, true)) not in (None, int(label)):
                    name = f"{name} ({classes[real]})"
                above = box[1] > 5  # pixels that a line of text needs
                axes.text(box[0] - 0.5, box[1] - 1 if above else box[1], f"{name} {float(score):.2f}",
                          fontsize=7, color="white", va="bottom" if above else "top", clip_on=True,
                          bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8, "alpha": 0.85})
    legend_below(figure, [], styles=[
        Line2D([], [], color="#8c8c8c", linestyle=(0, (3, 2)), label="true box"),
        Line2D([], [], color=RIGHT, linestyle="solid", label="right: IoU at least 0.5, and the right class"),
        Line2D([], [], color=WRONG, linestyle=WRONG_DASHES, label="wrong; in brackets: the true class")])
    return figure


def _class_there(box: Any, number: int, true: tuple[Any, Any, Any]) -> int | None:
    """Return the class of the true box of an image with the largest IoU, or None if no IoU is 0.5 or more."""
    from ..detection import iou  # late: the other figures need no detector

    boxes, labels, scene = (np.asarray(array) for array in true)
    ious = iou(np.asarray(box, np.float64)[None], boxes[scene == number].astype(np.float64))[0]
    return int(labels[scene == number][ious.argmax()]) if ious.max(initial=0) >= 0.5 else None


def boxed(images: Any, kinds: Mapping[str, Sequence[Any]], title: str, caption: str = "",
          headings: Sequence[str] = ()) -> Figure:
    """Draw images with boxes of one kind or several: true boxes, anchors, proposals.

    images: (N, H, W) grey levels from 0 to 255
    kinds: {name: the boxes (K, 4) of each image}, in pixels with exclusive ends. A kind has a colour and dashes of its
        own; the first is white and dashed, as true boxes are in `detected`
    headings: a line of text above each image

    Parts of boxes outside an image are drawn too.

    Raises ValueError for a kind that has not one array of boxes for each image, and for more than four kinds.
    """
    images = np.asarray(images)
    if len(kinds) > len(KINDS):
        raise ValueError(f"boxed: expected at most {len(KINDS)} kinds of boxes, got {len(kinds)}")
    figure, panels = _panels(len(images), min(COLUMNS, len(images)), title, caption, most=3.4)
    for (kind, boxes), (colour, dashes) in zip(kinds.items(), KINDS, strict=False):
        if len(boxes) != len(images):
            raise ValueError(f"boxed, {kind!r}: expected boxes for each of {len(images)} images, got {len(boxes)}")
        for axes, mine in zip(panels, boxes, strict=True):
            for box in np.asarray(mine).reshape(-1, 4):
                _box(axes, box, colour, dashes)
    height, width = images.shape[1:]
    every = np.concatenate([[[0, 0, width, height]], *(np.asarray(mine, float).reshape(-1, 4)
                                                       for boxes in kinds.values() for mine in boxes)])
    (x0, y0), (x1, y1) = every[:, :2].min(0), every[:, 2:].max(0)
    for number, (axes, image) in enumerate(zip(panels, images, strict=True)):
        _image(axes, image)
        if (x0, y0, x1, y1) != (0, 0, width, height):
            axes.set_xlim(x0 - 1.5, x1 + 0.5)
            axes.set_ylim(y1 + 0.5, y0 - 1.5)
            axes.set_facecolor(GREY)  # around the image
        if number < len(headings):
            axes.set_title(headings[number], fontsize=TICK, color=INK)
    legend_below(figure, [], styles=[
        Line2D([], [], color=GREY if colour == TRUE else colour, linestyle=dashes, label=kind)
        for kind, (colour, dashes) in zip(kinds, KINDS, strict=False)])
    return figure


def segmented(images: Any, masks: Any | None, predicted: Any, classes: Sequence[str], title: str = "",
              caption: str = "") -> Figure:
    """Draw scenes, their true masks if there are any, and the predicted masks, one scene in each row.

    Each class of a mask has a colour, and its name is written on it.

    images: (N, H, W) grey levels from 0 to 255
    masks, predicted: (N, H, W), the class of each pixel plus 1, or 0 for the ground
    classes: the classes' names
    """
    columns = {"image": np.asarray(images), "predicted mask": np.asarray(predicted)}
    if masks is not None:
        columns = {"image": columns["image"], "true mask": np.asarray(masks), "predicted mask": np.asarray(predicted)}
    count = len(columns["image"])
    if not title and masks is not None:
        title = f"{100 * float((columns['true mask'] == columns['predicted mask']).mean()):.0f} % of the pixels have " \
                "the right class"
    figure, panels = _panels(count * len(columns), len(columns), title or "Predicted masks", caption)
    colours = ListedColormap([MASKS[0], *(MASKS[1 + i % 10] for i in range(len(classes)))])
    for number, axes in enumerate(panels):
        row, column = divmod(number, len(columns))
        name = list(columns)[column]
        if name == "image":
            _image(axes, columns[name][row])
        else:
            axes.imshow(columns[name][row], cmap=colours, vmin=-0.5, vmax=len(classes) + 0.5, interpolation="nearest")
            _bare(axes)
            _name_classes(axes, columns[name][row], classes)
        if row == 0:
            axes.set_title(name, fontsize=LABEL)
    present = sorted({int(v) for name in columns if name != "image" for v in np.unique(columns[name])} - {0})
    legend_below(figure, [], styles=[
        Line2D([], [], linestyle="none", marker="s", markersize=8, color=colours(v), label=classes[v - 1])
        for v in present])
    return figure


def _name_classes(axes: Axes, mask: np.ndarray, classes: Sequence[str]) -> None:
    """Write the name of each class at the pixel of the class that is nearest to the mean of its pixels."""
    for value in set(np.unique(mask).tolist()) - {0}:
        pixels = np.argwhere(mask == value)
        if len(pixels) >= NAMED:
            y, x = pixels[((pixels - pixels.mean(0)) ** 2).sum(1).argmin()]
            axes.text(x, y, classes[value - 1], fontsize=7, color="white", ha="center", va="center", clip_on=True,
                      bbox={"facecolor": INK, "edgecolor": "none", "pad": 0.8, "alpha": 0.7})


def _panels(count: int, columns: int, title: str, caption: str, most: float = WIDTH) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` square panels, with sides of at most `most` inches."""
    rows = -(-count // columns)
    figure = new_figure(title, rows * min(most, WIDTH / columns) + 1.5, caption)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[count:]:
        axes.remove()
    return figure, list(panels[:count])


def _image(axes: Axes, image: Any) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    _bare(axes)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.tick_params(labelsize=TICK)


def _box(axes: Axes, box: Any, colour: str, dashes: Any) -> None:
    """Draw the edge of a box. imshow centres the pixel (0, 0) at (0, 0), so its first edge is at -0.5."""
    x0, y0, x1, y1 = (float(v) for v in box)
    axes.add_patch(matplotlib.patches.Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, edgecolor=colour,
                                                linewidth=1.5, linestyle=dashes))
