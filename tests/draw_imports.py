"""Draw which room of minires imports which: python tests/draw_imports.py tests/imports.png

A room is a file or folder of minires/. Its row is the longest chain of imports below it, so every arrow points down;
a circle of imports has no such row and raises graphlib.CycleError. An import that a longer chain implies is not drawn.
"""

import argparse
import sys
from graphlib import TopologicalSorter
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

from test_codebase import FACADE, FILES, imports_of_all, room  # noqa: E402

from minires import plot  # noqa: E402
from minires.plot.style import GREY, INK, new_figure  # noqa: E402


def rooms():
    """Return {room: the rooms that it imports}, including lazy imports. The facade and __main__ are left out."""
    found = {room(path): set() for path in FILES if room(path) not in (FACADE, "__main__")}
    for path, name, _ in imports_of_all():
        if room(path) in found and name.startswith("minires."):
            found[room(path)].add(name.split(".")[1])
    return {mine: {other for other in others if other in found and other != mine} for mine, others in found.items()}


def rows(found):
    """Return {room: row}, in which rows are counted from the bottom."""
    height = {}
    for mine in TopologicalSorter(found).static_order():
        height[mine] = 1 + max((height[other] for other in found[mine]), default=-1)
    return height


def reached(found, start):
    """Return all rooms that `start` imports directly or through others."""
    seen, waiting = set(), list(found[start])
    while waiting:
        other = waiting.pop()
        if other not in seen:
            seen.add(other)
            waiting += found[other]
    return seen


def direct(found):
    """Return [(room, imported room)] without the imports that other imports imply."""
    return [(mine, other) for mine, others in found.items() for other in sorted(others)
            if not any(other in reached(found, between) for between in others - {other})]


def places(found, height):
    """Return {room: (x, y)}. Each row spans the width, with its rooms in the order of the rooms that they import."""
    at = {}
    for row in range(max(height.values()) + 1):
        members = sorted((mine for mine in found if height[mine] == row),
                         key=lambda mine: (sum(at[o][0] for o in found[mine]) / max(1, len(found[mine])), mine))
        for i, mine in enumerate(members):
            at[mine] = (i + 0.5) / len(members), row
    return at


def draw(path):
    """Write the picture as a PNG file to `path`."""
    found = rooms()
    height = rows(found)
    at = places(found, height)
    figure = new_figure("Which room of minires imports which: every arrow points down", 6.4)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(-0.6, max(height.values()) + 0.6))
    boxes = {mine: axes.text(x, y, mine, ha="center", va="center", fontsize=9, color=INK, bbox={
        "boxstyle": "round,pad=0.3", "facecolor": "white", "edgecolor": INK, "linewidth": 0.8}).get_bbox_patch()
        for mine, (x, y) in at.items()}
    for mine, other in direct(found):
        axes.annotate("", xy=at[other], xytext=at[mine], zorder=0, arrowprops={
            "arrowstyle": "-|>", "color": GREY, "linewidth": 0.9, "patchA": boxes[mine], "patchB": boxes[other],
            "shrinkA": 0, "shrinkB": 1})
    path.write_bytes(plot.png(figure))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, metavar="PNG")
    draw(parser.parse_args().path)
