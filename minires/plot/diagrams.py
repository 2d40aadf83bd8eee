"""This module draws diagrams: residual blocks, networks layer by layer, and classes of functions.

`blocks` and `networks` draw what they are given, not what a paper says: the layers are read from the modules.
"""
from __future__ import annotations

from typing import Any

import matplotlib.lines
import matplotlib.patches
import numpy as np
from matplotlib.axes import Axes
from matplotlib.path import Path

from .. import nn
from ..names import shortened
from .labels import labelled, listed
from .style import GREY, INK, LABEL, LIMIT, NODES, TICK, WIDTH, WINDOWS, Figure, legend_below, new_figure

WIDE, HIGH, STEP = 1.5, 0.27, 0.46  # a box's width and height, and the distance of two boxes, in inches
LEFT, RIGHT = -1.9, 2.3  # the ends of a block's panel; the branch is at 0
KNOWN = nn.Block, nn.Bottleneck, nn.PreactBlock, nn.PreactBottleneck  # a subclass may compute something else
FILLS = {"conv": NODES["operation"], "BN": NODES["parameter"], "ReLU": NODES["constant"]}


def blocks(found: Any, title: str = "", caption: str = "") -> Figure:
    """Draw the layers of a block's branch and its shortcut, from top to bottom; compare He et al. 2015, Figs. 2 and 5.

    found: an nn.Block, Bottleneck, PreactBlock or PreactBottleneck, or {label: such a block}, drawn side by side

    "3x3, 64" is a convolution with 64 output channels, and "/2" is its stride. The title counts the weights of the
    branch's convolutions, which are its multiply-accumulates per pixel of the output.

    Raises TypeError for anything else.
    """
    shown = labelled(found)
    for block in shown.values():
        if type(block) not in KNOWN:
            raise TypeError(f"plot.blocks: expected a basic or bottleneck block, got {type(block).__name__}")
    steps = {label: _steps(block) for label, block in shown.items()}
    weights = {label: sum(conv.weight.size for conv in _convolutions(block)) for label, block in shown.items()}
    counted = listed({label: f"{count:,}" for label, count in weights.items()})
    longest = max(map(len, steps.values()), default=1)
    high = STEP * (longest + 3) * min(1.0, WIDTH / (len(shown) or 1) / (RIGHT - LEFT))
    figure = new_figure(title or f"Weights in the convolutions of the branch: {counted}", high + 1.0, caption)
    panels = figure.subplots(1, max(1, len(shown)), squeeze=False)[0]
    for axes in panels:
        axes.axis("off")
    for axes, (label, block) in zip(panels, shown.items(), strict=False):
        _draw_block(axes, block, steps[label], longest)
        axes.set_title(label, fontsize=LABEL, color=INK)
    return figure


def _convolutions(block: Any) -> list[Any]:
    """Return the convolutions of the branch, in order."""
    return [m for name, m in block.modules() if isinstance(m, nn.Conv2d) and "downsample" not in name]


def _steps(block: Any) -> list[str]:
    """Return the branch's operations in order, such as ["3x3, 64", "BN", "ReLU", "3x3, 64", "BN"]."""
    norms = any(isinstance(m, nn.BatchNorm2d) for name, m in block.modules() if "downsample" not in name)
    norm = ["BN"] * norms
    if isinstance(block, (nn.PreactBlock, nn.PreactBottleneck)):
        return [step for conv in _convolutions(block) for step in (*norm, "ReLU", _said(conv))]
    return [step for conv in _convolutions(block) for step in (_said(conv), *norm, "ReLU")][:-1]


def _said(conv: Any) -> str:
    high, wide = conv.weight.shape[2:]
    stride = "" if _stride(conv) == 1 else f", /{_stride(conv)}"
    return f"{high}x{wide}, {conv.weight.shape[0]}{stride}"


def _stride(conv: Any) -> int:
    stride = getattr(conv, "stride", 1)
    return int(stride[0] if isinstance(stride, tuple) else stride)


def _draw_block(axes: Axes, block: Any, steps: list[str], longest: int) -> None:
    """Draw from top to bottom: x, the branch's steps, the addition (or the next ReLU), and the output."""
    after_sum = not isinstance(block, (nn.PreactBlock, nn.PreactBottleneck))
    top = STEP * (longest + 2)
    channels = _convolutions(block)[0].weight.shape[1]
    _text(axes, 0, top + 0.12, f"x, {channels} channels")
    levels = [top - STEP * (i + 1) for i in range(len(steps))]
    for y, step in zip(levels, steps, strict=True):
        _arrow(axes, (0, y + STEP - (0.0 if y == levels[0] else HIGH / 2)), (0, y + HIGH / 2))
        _box(axes, 0, y, step)
    end = levels[-1] - STEP
    if block.residual:
        _arrow(axes, (0, levels[-1] - HIGH / 2), (0, end + 0.11))
        axes.add_patch(matplotlib.patches.Circle((0, end), 0.11, facecolor="white", edgecolor=INK, linewidth=1.4))
        _text(axes, 0, end, "+")
        side, begin = WIDE / 2 + 0.3, levels[steps.index("ReLU")] - STEP / 2 if _splits_late(block) else top - 0.08
        route = Path([(0, begin), (side, begin), (side, begin - 0.25), (side, (begin + end) / 2), (side, end + 0.25),
                      (side, end), (0.12, end)], [Path.MOVETO, *[Path.CURVE3] * 2, Path.LINETO, Path.LINETO,
                                                  *[Path.CURVE3] * 2])
        axes.add_patch(matplotlib.patches.FancyArrowPatch(path=route, arrowstyle="-|>", mutation_scale=10, color=INK,
                                                          linewidth=1.8))
        _text(axes, side + 0.08, (begin + end) / 2, _shortcut(block), ha="left")
        _text(axes, -WIDE / 2 - 0.12, (levels[0] + levels[-1]) / 2, "F(x)", ha="right")
        _text(axes, -0.2, end, "F(x) + x" if _shortcut(block).startswith("x\n") else "F(x) + shortcut", ha="right")
    else:
        end = levels[-1]
    last = end
    if after_sum:
        last = end - STEP
        _arrow(axes, (0, end - (0.11 if block.residual else HIGH / 2)), (0, last + HIGH / 2))
        _box(axes, 0, last, "ReLU")
    _arrow(axes, (0, last - (HIGH / 2 if after_sum else 0.11)), (0, last - STEP))
    axes.set_xlim(LEFT, RIGHT)
    axes.set_ylim(-STEP * 1.2, top + 0.3)
    axes.set_aspect("equal")


def _splits_late(block: Any) -> bool:
    """Return True if the shortcut starts after the first BN and ReLU, as in v2's blocks that change the shape."""
    return getattr(block, "split_after_activation", False)


def _shortcut(block: Any) -> str:
    """Return what is on the shortcut, in words."""
    if block.downsample is not None:
        norm = any(isinstance(m, nn.BatchNorm2d) for _, m in block.downsample.modules())
        return _said(block.downsample[0]) + "\nand BN" * norm
    convolutions = _convolutions(block)
    inputs, outputs = convolutions[0].weight.shape[1], convolutions[-1].weight.shape[0]
    if block.stride == 1 and inputs == outputs:
        return ("after the ReLU" if _splits_late(block) else "x") + "\n(identity)"
    pixels = {1: "", 2: "every 2nd pixel"}.get(block.stride, f"1 of {block.stride} pixels")
    zeros = f"zeros for {outputs - inputs}\nnew channels" if outputs > inputs else ""
    return ",\n".join(filter(None, (pixels, zeros)))


def networks(found: Any, title: str = "", caption: str = "") -> Figure:
    """Draw the layers of networks from left to right, and their shortcuts as arcs; compare He et al. 2015, Figure 3.

    found: a network with stages `layer1`, `layer2`, ... such as models.cifar and models.resnet18 build, or {label: such
    a network}, drawn one below the other

    A box is a convolution or the classifier. Where there is room, its text gives the kernel's size and the output
    channels, and a stage has its number of layers. Boxes of one fill form a stage; they are lower where the maps are
    smaller. A solid arc is an identity shortcut. A dashed arc changes the shape.

    Raises TypeError for a model without stages.
    """
    shown = labelled(found)
    for net in shown.values():
        if not all(hasattr(net, part) for part in ("conv1", "layer1", "fc")):
            raise TypeError(f"plot.networks: expected a network with stages layer1, layer2, ..., got "
                            f"{type(net).__name__}")
    layers = {label: _layers(net) for label, net in shown.items()}
    most = max(map(len, layers.values()), default=1)
    arcs = [any(arc for *_, arc in row) for row in layers.values()]
    counted = listed({label: f"{len(row)} layers" for label, row in layers.items()}, ": ")
    figure = new_figure(title or counted or "Layers of networks", 1.0 + sum(1.7 + 0.4 * arc for arc in arcs), caption)
    panels = figure.subplots(max(1, len(shown)), 1, squeeze=False,
                             height_ratios=[1.7 + 0.4 * arc for arc in arcs] or None)[:, 0]
    for axes in panels:
        axes.axis("off")
    for axes, (label, row) in zip(panels, layers.items(), strict=False):
        _draw_layers(axes, row, most)
        axes.set_title(label, fontsize=LABEL, color=INK, loc="left")
    if any(arcs):
        legend_below(figure, [], styles=[
            matplotlib.lines.Line2D([], [], color=INK, linewidth=1.6, label="identity shortcut"),
            matplotlib.lines.Line2D([], [], color=INK, linewidth=1.6, linestyle=LIMIT,
                                    label="shortcut that changes the shape")])
    return figure


def _layers(net: Any) -> list[tuple[str, int, tuple[int, bool] | None]]:
    """Return (text, stage, arc) of every layer, the stem first; stage 0 is the stem and -1 the classifier.

    arc: (number of layers back to where the shortcut begins, whether it changes the shape), at a branch's last layer
    """
    stages = [name for name in (f"layer{i}" for i in range(1, 9)) if getattr(net, name, None) is not None]
    row: list[tuple[str, int, tuple[int, bool] | None]] = [(_said(net.conv1), 0, None)]
    for number, name in enumerate(stages, 1):
        for block in getattr(net, name):
            convolutions = _convolutions(block)
            changes = block.stride != 1 or convolutions[0].weight.shape[1] != convolutions[-1].weight.shape[0]
            for i, conv in enumerate(convolutions, 1):
                last = i == len(convolutions) and block.residual
                row.append((_said(conv), number, (i, changes) if last else None))
    return [*row, (f"fc, {net.fc.weight.shape[0]}", -1, None)]


def _draw_layers(axes: Axes, row: list[tuple[str, int, tuple[int, bool] | None]], most: int) -> None:
    wide = 0.72  # of a box, as a part of the distance of two boxes
    top = 1.0
    for at, (words, stage, arc) in enumerate(row):
        high = 1.0 if stage < 1 else 1.0 - 0.09 * (stage - 1)
        fill = "white" if stage < 1 else WINDOWS[(stage - 1) % len(WINDOWS)]
        axes.add_patch(matplotlib.patches.Rectangle((at - wide / 2, (top - high) / 2), wide, high, facecolor=fill,
                                                    edgecolor=INK, linewidth=0.9))
        if at:
            axes.plot([at - 1 + wide / 2, at - wide / 2], [top / 2] * 2, color=GREY, linewidth=0.9)
        if most <= 40:
            axes.text(at, top / 2, words, rotation=90, ha="center", va="center", color=INK,
                      fontsize=min(TICK - 1, 300 / most))
        if arc:
            back, changes = arc
            start, end = at - back + 0.5, at + 0.5
            curve = Path([(start, top / 2), (start, 1.75), (end, 1.75), (end, top / 2)],
                         [Path.MOVETO, *[Path.CURVE4] * 3])
            axes.add_patch(matplotlib.patches.PathPatch(curve, facecolor="none", edgecolor=INK, linewidth=1.6,
                                                        linestyle=LIMIT if changes else "solid"))
    for stage in sorted({stage for _, stage, _ in row if stage > 0}):
        places = [at for at, (_, which, _) in enumerate(row) if which == stage]
        roomy = len(places) * WIDTH > 0.8 * most  # inches
        words = f"stage {stage}\n{len(places)} layers" if roomy else str(stage)
        axes.text((places[0] + places[-1]) / 2, -0.08, words, ha="center", va="top",
                  color=INK, fontsize=TICK)
    axes.set_xlim(-0.7, most - 0.3)
    axes.set_ylim(-0.5, 1.6 if any(arc for *_, arc in row) else 1.1)


def function_classes(title: str = "", caption: str = "") -> Figure:
    """Draw classes of functions that overlap (left) and that are nested (right), with the function that is wanted.

    A class is what all networks of one architecture can compute. F1 is the smallest. The cross marks the wanted
    function, and the dot the nearest function of each class. If classes are nested, as they are with added layers that
    can be the identity (He et al. 2015, section 1), a larger class comes at least as near. If they only overlap, a
    larger class can be farther away.
    """
    title = title or ("Nested classes of functions: a larger one is never farther from the wanted function. "
                      "Overlapping classes: it can be")
    figure = new_figure(title, 4.2, caption)
    wanted = 3.9, 1.25
    overlap = [(0.0, 0.0, 1.5, 1.0), (1.0, 0.35, 2.4, 1.35), (-0.6, 0.3, 3.0, 1.9)]
    nested = [(0.0, 0.0, 1.5, 1.0), (0.35, 0.1, 2.4, 1.5), (0.65, 0.2, 3.1, 2.0)]
    for axes, (label, ellipses) in zip(figure.subplots(1, 2), {"overlapping": overlap, "nested": nested}.items(),
                                       strict=True):
        for i, (x, y, a, b) in reversed(list(enumerate(ellipses, 1))):
            fill = (NODES["constant"], "#e2e2e2", "#cfcfcf")[3 - i]
            dashes = ("solid", LIMIT, (0, (1, 1.2)))[i - 1]
            axes.add_patch(matplotlib.patches.Ellipse((x, y), 2 * a, 2 * b, facecolor=fill, alpha=0.75, edgecolor=INK,
                                                      linewidth=1.0 + 0.5 * i, linestyle=dashes))
        for i, (x, y, a, b) in enumerate(ellipses, 1):
            near = nearest(x, y, a, b, wanted)
            axes.plot(*near, "o", color=INK, markersize=5)
            axes.annotate(f"F{i}", near, xytext=(-9, -3), textcoords="offset points", ha="right", va="center",
                          fontsize=LABEL, color=INK, fontweight="bold")
        axes.plot(*wanted, "x", color=INK, markersize=9, markeredgewidth=2)
        axes.annotate("wanted", wanted, xytext=(0, 9), textcoords="offset points", ha="center", fontsize=LABEL,
                      color=INK)
        axes.set_title(label, fontsize=LABEL, color=INK)
        axes.set_xlim(-3.9, 4.7)
        axes.set_ylim(-2.2, 2.5)
        axes.set_aspect("equal")
        axes.axis("off")
    return figure


def nearest(x: float, y: float, a: float, b: float, to: tuple[float, float]) -> tuple[float, float]:
    """Return the point of an ellipse with centre (x, y) and half axes a, b that is nearest to a point outside."""
    angle = np.linspace(0, 2 * np.pi, 7201)
    points = np.stack([x + a * np.cos(angle), y + b * np.sin(angle)])
    best = points[:, ((points - np.array(to)[:, None])**2).sum(0).argmin()]
    return float(best[0]), float(best[1])


def _box(axes: Axes, x: float, y: float, words: str) -> None:
    fill = FILLS.get(words, FILLS["conv"])
    axes.add_patch(matplotlib.patches.FancyBboxPatch(
        (x - WIDE / 2, y - HIGH / 2), WIDE, HIGH, boxstyle="round,pad=0,rounding_size=0.06", facecolor=fill,
        edgecolor=INK, linewidth=1.8 if words not in FILLS else 1.0, zorder=3))
    axes.text(x, y, shortened(words, 22), ha="center", va="center", fontsize=TICK, color=INK, zorder=4)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.add_patch(matplotlib.patches.FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, color=INK,
                                                      linewidth=1.0, shrinkA=0, shrinkB=0))


def _text(axes: Axes, x: float, y: float, words: str, ha: str = "center") -> None:
    axes.text(x, y, words, ha=ha, va="center", fontsize=TICK, color=INK, zorder=4)
