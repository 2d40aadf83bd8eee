"""This module draws the computational graph of a Tensor with matplotlib alone: layers from top to bottom, shortcuts
beside them.

The layout is a short form of Sugiyama's. (1) A node is one layer above the topmost node that uses it. (2) An edge over
several layers passes through an empty place in each of them. (3) The places of each layer are sorted by the positions
of their neighbours, downwards and upwards in turn, several times. (4) Places move toward their neighbours, but keep a
minimum distance from each other.
"""
from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import matplotlib.patches
from matplotlib.axes import Axes
from matplotlib.path import Path

from ..names import shortened
from .labels import labelled
from .style import GREY, INK, LABEL, NODES, Figure, new_figure

WIDTH, HEIGHT, GAP = 1.75, 0.62, 0.22  # width and height of a node's box, and the gap between two boxes, in inches
Point = tuple[float, float]
EDGE = {"operation": "solid", "parameter": "solid", "constant": (0, (3, 2))}


def graph(found: Any, title: str = "", caption: str = "") -> Figure:
    """Draw names, operations and shapes of a graph, and after backward() its gradients.

    found: an analysis.Graph, or {label: such a graph}, drawn side by side

    Graphs of up to about 60 nodes are readable. Larger graphs are drawn too.
    """
    shown = labelled(found)
    layouts = {label: layout([node.inputs for node in graph.nodes]) for label, graph in shown.items()}
    sizes = [size for _, _, size in layouts.values()]
    nodes = [node for graph in shown.values() for node in graph.nodes]
    counted = {kind: sum(n.kind == kind for n in nodes) for kind in NODES}
    title = title or ", ".join(f"{n} {kind}{'s' * (n != 1)}" for kind, n in counted.items() if n) or "no graph"
    caption = f"Thick frames: leaves that require a gradient; dashed frames: constants. {caption}".strip()
    high = max((size[1] for size in sizes), default=0.0) + 1.0
    figure = new_figure(title, high, caption)
    figure.set_size_inches(max(figure.get_size_inches()[0], sum(size[0] + 0.4 for size in sizes)), high)
    panels = figure.subplots(1, max(1, len(shown)), squeeze=False,
                             width_ratios=[size[0] for size in sizes] or None)[0]
    for axes in panels:
        axes.axis("off")
    for axes, (label, graph) in zip(panels, shown.items(), strict=False):
        _draw(axes, graph.nodes, *layouts[label])
        axes.set_title(label, fontsize=LABEL, color=INK)
    return figure


def _draw(axes: Axes, nodes: Sequence[Any], boxes: list[Point], edges: list[list[Point]], size: Point) -> None:
    for line in edges:
        axes.add_patch(matplotlib.patches.FancyArrowPatch(path=curve(line), arrowstyle="-|>", mutation_scale=9,
                                                          color=GREY, linewidth=1.0, zorder=1))
    for (x, y), node in zip(boxes, nodes, strict=True):
        lines = node.lines()
        axes.add_patch(matplotlib.patches.FancyBboxPatch(
            (x - WIDTH / 2, y - HEIGHT / 2), WIDTH, HEIGHT, boxstyle="round,pad=0,rounding_size=0.09", zorder=2,
            facecolor=NODES[node.kind], edgecolor=INK, linestyle=EDGE[node.kind],
            linewidth=1.8 if node.kind == "parameter" else 1.0))
        for i, text in enumerate(lines):
            axes.text(x, y + HEIGHT * (0.5 - (i + 0.5) / len(lines)), shortened(text, 22), ha="center", va="center",
                      zorder=3, fontsize=8.5, color=INK, fontweight="bold" if i == 0 else "normal")
    axes.set_xlim(-0.1, size[0] + 0.1)
    axes.set_ylim(-0.1, size[1] + 0.1)
    axes.set_aspect("equal")


def layout(inputs: list[tuple[int, ...]]) -> tuple[list[Point], list[list[Point]], Point]:
    """Return (the centre of every node, the points of every edge, (width, height) of the whole), in inches, y upwards.

    inputs[i]: the nodes that node i is computed from, all of them before i
    """
    users: list[list[int]] = [[] for _ in inputs]
    for i, found in enumerate(inputs):
        for j in dict.fromkeys(found):
            users[j].append(i)
    level = [0] * len(inputs)  # number of layers above the result
    for i in reversed(range(len(inputs))):
        level[i] = max((level[u] + 1 for u in users[i]), default=0)

    rows: list[list[int]] = [[] for _ in range(max(level, default=0) + 1)]
    place = list(level)  # the level of every node, followed by the level of every empty place of long edges
    chains: dict[tuple[int, int], list[int]] = {}
    for i in range(len(inputs)):
        rows[level[i]].append(i)
        for u in users[i]:
            chain = [i]
            for between in range(level[i] - 1, level[u], -1):
                chain.append(len(place))
                rows[between].append(len(place))
                place.append(between)
            chains[i, u] = [*chain, u]
    near: list[tuple[list[int], list[int]]] = [([], []) for _ in place]  # (above, below)
    for chain in chains.values():
        for a, b in pairwise(chain):
            near[b][0].append(a)
            near[a][1].append(b)

    x = [0.0] * len(place)
    for row in rows:
        _set_apart(row, x, len(inputs), [float(k) for k in range(len(row))])
    for sweep in range(24):
        side = sweep % 2  # 0: downwards, by the neighbours above; 1: upwards, by the neighbours below
        for row in rows[::-1] if side == 0 else rows:
            wanted = {n: _mean([x[m] for m in near[n][side]], x[n]) for n in row}
            if sweep < 16:
                row.sort(key=lambda n: wanted[n])
            _set_apart(row, x, len(inputs), [wanted[n] for n in row])
    left = min((x[n] - _half(n, len(inputs)) for n in range(len(place))), default=0.0)
    right = max((x[n] + _half(n, len(inputs)) for n in range(len(place))), default=0.0)
    step = HEIGHT + 0.38

    def point(n: int) -> Point:
        return x[n] - left, place[n] * step + HEIGHT / 2

    edges = []
    for chain in chains.values():
        (x0, y0), *through, (x1, y1) = map(point, chain)
        bends = [(a, b + side) for a, b in through for side in (HEIGHT / 2, -HEIGHT / 2)]  # vertical beside the boxes
        edges.append([(x0, y0 - HEIGHT / 2), *bends, (x1, y1 + HEIGHT / 2)])
    return [point(n) for n in range(len(inputs))], edges, (right - left, (len(rows) - 1) * step + HEIGHT)


def _half(n: int, nodes: int) -> float:
    """Return half the width of a node or of an empty place."""
    return WIDTH / 2 if n < nodes else 0.1


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _set_apart(row: list[int], x: list[float], nodes: int, wanted: list[float]) -> None:
    """Put a row's places as near to `wanted` as their order and their minimum distances allow, by least squares.

    Places that would overlap are joined into groups, and each group gets the mean of the positions that its members
    want (pool adjacent violators).
    """
    offsets, at = [], 0.0
    for k, n in enumerate(row):
        if k:
            at += _half(row[k - 1], nodes) + GAP + _half(n, nodes)
        offsets.append(at)
    groups: list[tuple[float, int]] = []  # (mean of wanted - offset, members)
    for want, offset in zip(wanted, offsets, strict=True):
        value, count = want - offset, 1
        while groups and groups[-1][0] > value:
            other, members = groups.pop()
            value, count = (value * count + other * members) / (count + members), count + members
        groups.append((value, count))
    shifts = [value for value, count in groups for _ in range(count)]
    for n, offset, shift in zip(row, offsets, shifts, strict=True):
        x[n] = offset + shift


def curve(points: list[Point]) -> Path:
    """Return a smooth line through the points. The line is vertical where it starts and ends."""
    codes, vertices = [Path.MOVETO], [points[0]]
    for (x0, y0), (x1, y1) in pairwise(points):
        middle = (y0 + y1) / 2
        vertices += [(x0, middle), (x1, middle), (x1, y1)]
        codes += [Path.CURVE4] * 3
    return Path(vertices, codes)
