"""The tasks of assignment a3: convolution by im2col, and pooling."""
from __future__ import annotations

from typing import Any

import numpy as np

from .task import Case, Task, robust

Pair = tuple[int, int]
Geometry = tuple[Pair, Pair, Pair, Pair]  # size, kernel, stride, padding
Rng = np.random.Generator

# The first two of the visible geometries catch all classical mistakes: the first has padding and a leftover row, the
# second has a kernel that is not square, no padding, and a leftover column. In the third, the directions differ.
VISIBLE: tuple[Geometry, ...] = (((6, 8), (3, 3), (2, 2), (1, 1)), ((7, 5), (3, 2), (2, 2), (0, 0)),
                                 ((5, 7), (2, 3), (1, 2), (1, 0)))
HIDDEN: tuple[Geometry, ...] = (((9, 6), (2, 3), (3, 2), (0, 1)), ((6, 9), (2, 3), (2, 3), (0, 0)),
                                ((5, 4), (1, 1), (2, 1), (0, 0)), ((1, 1), (1, 1), (1, 1), (0, 0)),
                                ((32, 32), (3, 3), (2, 2), (1, 1)))
BATCHES = (2, 3), (3, 2), (4, 3), (3, 4), (2, 1)  # N, C of the cases in turn


def words(geometry: Geometry) -> str:
    """Describe a geometry: "6x8 pixels, kernel 3x3, stride (2, 2), padding (1, 1)"."""
    (H, W), (kh, kw), stride, padding = geometry
    return f"{H}x{W} pixels, kernel {kh}x{kw}, stride {stride}, padding {padding}"


def outputs(geometry: Geometry) -> Pair:
    """Return (Ho, Wo)."""
    high, wide = ((n + 2 * p - k) // s + 1 for n, k, s, p in zip(*geometry, strict=True))
    return high, wide


def window(geometry: Geometry) -> dict[str, Any]:
    """Return the arguments kernel, stride and padding."""
    return dict(zip(("kernel", "stride", "padding"), geometry[1:], strict=True))


# --------------------------------------------------------------------------------------- 3.1: the size


def sizes_visible(rng: Rng) -> list[Case]:
    """The two fixed geometries, and six drawn ones."""
    fixed = Case("6x8 pixels, kernel 3x3, stride 2, padding 1; then 7x5 pixels, kernel 3x2, stride 2",
                 {"geometries": list(VISIBLE[:2])})
    return [fixed, Case("six other geometries", {"geometries": drawn_geometries(rng, 6)})]


def sizes_hidden(rng: Rng) -> list[Case]:
    """Other geometries, and thirty drawn ones."""
    return [Case("geometries of this half", {"geometries": list(HIDDEN)}),
            Case("thirty geometries", {"geometries": drawn_geometries(rng, 30)})]


def drawn_geometries(rng: Rng, count: int) -> list[Geometry]:
    """Draw geometries whose directions differ, and in which two pixels of three are left over at the end."""
    found: list[Geometry] = []
    while len(found) < count:
        size, kernel, stride, padding = (tuple(map(int, rng.integers(*ends, 2)))
                                         for ends in ((8, 15), (1, 5), (1, 5), (0, 3)))
        left = [(n + 2 * p - k) % s for n, k, s, p in zip(size, kernel, stride, padding, strict=True)]
        if size[0] != size[1] and kernel[0] != kernel[1] and (len(found) % 2 or 2 * max(left) > max(stride)):
            found.append((size, kernel, stride, padding))  # type: ignore[arg-type]
    return found


# -------------------------------------------------------------------------- 3.2 and 3.3: gather and scatter


def gather(rng: Rng, geometry: Geometry, which: int, driver: str = "", what: str = "") -> Case:
    """Return a case of im2col."""
    N, C = BATCHES[which]
    inputs = {"x": rng.standard_normal((N, C, *geometry[0])), **window(geometry)}
    return Case(what or words(geometry), inputs, driver)


def gather_visible(rng: Rng) -> list[Case]:
    """Return a case for each visible geometry."""
    return [gather(rng, geometry, i) for i, geometry in enumerate(VISIBLE)]


def gather_hidden(rng: Rng) -> list[Case]:
    """Other geometries, float32, memory with gaps, and columns that are written."""
    one = {"x": rng.standard_normal((1, 3, 4, 5)), "kernel": (1, 1), "stride": (1, 1), "padding": (0, 0)}
    unpadded: Geometry = ((6, 7), (3, 2), (1, 2), (0, 0))
    return [*(gather(rng, geometry, i) for i, geometry in enumerate(HIDDEN)),
            gather(rng, VISIBLE[2], 0, "im2col.float32", "float32"),
            gather(rng, unpadded, 1, "im2col.strided", "an input that is not contiguous in memory"),
            Case("one image, kernel 1x1: the columns must not be a view of x", one, "im2col.overwritten")]


def scatter(rng: Rng, geometry: Geometry, which: int, driver: str = "", what: str = "") -> Case:
    """Return a case of col2im."""
    N, C = BATCHES[which]
    (kh, kw), (Ho, Wo) = geometry[1], outputs(geometry)
    inputs = {"cols": rng.standard_normal((C * kh * kw, N * Ho * Wo)), "shape": (N, C, *geometry[0]),
              **window(geometry)}
    return Case(what or words(geometry), inputs, driver)


def transpose(rng: Rng, geometry: Geometry) -> Case:
    """Return a case that tests the definition of col2im in integers, which float64 holds without rounding."""
    (N, C), (kh, kw), (Ho, Wo) = BATCHES[0], geometry[1], outputs(geometry)
    x = rng.integers(-9, 10, (N, C, *geometry[0])).astype(float)
    cols = rng.integers(-9, 10, (C * kh * kw, N * Ho * Wo)).astype(float)
    return Case("the definition of the transpose, in integers", {"cols": cols, "x": x, **window(geometry)}, "adjoint")


def scatter_visible(rng: Rng) -> list[Case]:
    """Return a case for each visible geometry, and the definition of the transpose."""
    return [*(scatter(rng, geometry, i) for i, geometry in enumerate(VISIBLE)), transpose(rng, VISIBLE[0])]


def scatter_hidden(rng: Rng) -> list[Case]:
    """Other geometries, the definition of the transpose, float32, memory with gaps."""
    return [*(scatter(rng, geometry, i) for i, geometry in enumerate(HIDDEN)), transpose(rng, HIDDEN[0]),
            scatter(rng, VISIBLE[2], 0, "col2im.float32", "float32"),
            scatter(rng, VISIBLE[0], 1, "col2im.strided", "an input that is not contiguous in memory")]


# ------------------------------------------------------------------------------ 3.4 and 3.5: convolution


def layer(rng: Rng, geometry: Geometry, which: int) -> dict[str, Any]:
    """Draw the arguments of conv2d_forward. N, C and O differ."""
    N, C = BATCHES[which]
    O = 5 - which % 2
    return {"x": rng.standard_normal((N, C, *geometry[0])), "w": rng.standard_normal((O, C, *geometry[1])),
            "b": rng.standard_normal(O), "stride": geometry[2], "padding": geometry[3]}


def with_dy(rng: Rng, geometry: Geometry, which: int) -> dict[str, Any]:
    """Draw the arguments of conv2d_forward, and dy."""
    arguments = layer(rng, geometry, which)
    dy = rng.standard_normal((len(arguments["x"]), len(arguments["w"]), *outputs(geometry)))
    return {**arguments, "dy": dy}


def forward_visible(rng: Rng) -> list[Case]:
    """Return a case for each visible geometry."""
    return [Case(words(geometry), layer(rng, geometry, i)) for i, geometry in enumerate(VISIBLE)]


def forward_hidden(rng: Rng) -> list[Case]:
    """Other geometries, a single 1, float32, memory with gaps, a second call, computing time."""
    delta = layer(rng, ((5, 6), (3, 2), (1, 1), (0, 0)), 0)
    delta["x"] = np.zeros_like(delta["x"])
    delta["x"][1, 2, 2, 3] = 1.0
    # With two filters the product is so small that no library spreads it over threads, whose waiting would count.
    fast = {"x": rng.standard_normal((8, 8, 16, 16)), "w": rng.standard_normal((2, 8, 3, 2)),
            "b": rng.standard_normal(2), "stride": (1, 1), "padding": (1, 0)}
    return [*(Case(words(geometry), layer(rng, geometry, i)) for i, geometry in enumerate(HIDDEN)),
            Case("a single 1 in x gives the rotated kernel", delta),
            Case("float32", layer(rng, VISIBLE[2], 0), "forward.float32"),
            Case("inputs that are not contiguous in memory", layer(rng, VISIBLE[1], 1), "forward.strided"),
            Case("a second call on other data", layer(rng, VISIBLE[0], 0), "forward.kept"),
            Case("CPU time for x (8, 8, 16, 16), kernel 3x2", fast, "forward.seconds")]


def backward_visible(rng: Rng) -> list[Case]:
    """Return a case for each visible geometry."""
    return [Case(words(geometry), with_dy(rng, geometry, i)) for i, geometry in enumerate(VISIBLE)]


def backward_hidden(rng: Rng) -> list[Case]:
    """Other geometries, and the robustness cases."""
    return [*(Case(words(geometry), with_dy(rng, geometry, i)) for i, geometry in enumerate(HIDDEN)),
            *robust("convolution", with_dy(rng, VISIBLE[2], 1))]


# ---------------------------------------------------------------------------------- 3.6 and 3.7: pooling

# The windows of the first overlap and meet the border; those of the second leave a column over.
POOL_VISIBLE: tuple[Geometry, ...] = (((6, 8), (3, 3), (2, 2), (1, 1)), ((7, 5), (3, 2), (1, 2), (0, 0)))
POOL_HIDDEN: tuple[Geometry, ...] = (((5, 7), (2, 3), (1, 2), (1, 0)), ((6, 9), (2, 3), (2, 3), (0, 0)),
                                     ((4, 3), (1, 1), (1, 1), (0, 0)), ((16, 18), (3, 3), (2, 2), (1, 1)))


def pooled(rng: Rng, geometry: Geometry, which: int) -> dict[str, Any]:
    """Draw the arguments of a pooling layer, and dy. Most numbers of x are negative, so that padding by 0 shows."""
    N, C = BATCHES[which]
    return {"x": rng.standard_normal((N, C, *geometry[0])) - 1, **window(geometry),
            "dy": rng.standard_normal((N, C, *outputs(geometry)))}


def tied(rng: Rng, geometry: Geometry, which: int) -> dict[str, Any]:
    """Draw the arguments of a pooling layer, and dy. Many pixels of x are equal, as after a ReLU."""
    inputs = pooled(rng, geometry, which)
    return {**inputs, "x": np.maximum(rng.integers(-3, 4, inputs["x"].shape), 0).astype(float)}


def pool_visible(rng: Rng) -> list[Case]:
    """Return a case for each visible geometry."""
    return [Case(words(geometry), pooled(rng, geometry, i)) for i, geometry in enumerate(POOL_VISIBLE)]


def pool_hidden(rng: Rng) -> list[Case]:
    """Return a case for each hidden geometry."""
    return [Case(words(geometry), pooled(rng, geometry, i)) for i, geometry in enumerate(POOL_HIDDEN)]


def max_visible(rng: Rng) -> list[Case]:
    """Return a case for each visible geometry, and one with ties."""
    ties = Case("many equal pixels, as after a ReLU", tied(rng, POOL_VISIBLE[0], 2))
    return [*pool_visible(rng), ties]


def max_hidden(rng: Rng) -> list[Case]:
    """Other geometries, ties, and the robustness cases."""
    ties = Case("many equal pixels, as after a ReLU", tied(rng, POOL_HIDDEN[0], 3))
    return [*pool_hidden(rng), ties, *robust("max_pool", pooled(rng, POOL_VISIBLE[1], 1))]


def avg_hidden(rng: Rng) -> list[Case]:
    """Other geometries, and the robustness cases."""
    return [*pool_hidden(rng), *robust("avg_pool", pooled(rng, POOL_VISIBLE[0], 1))]


TASKS = [
    Task("a3.1", "output_size", 5, ("output_size",), "output_size", sizes_visible, sizes_hidden),
    Task("a3.2", "im2col", 15, ("im2col",), "im2col", gather_visible, gather_hidden),
    Task("a3.3", "col2im", 20, ("col2im",), "col2im", scatter_visible, scatter_hidden),
    Task("a3.4", "conv2d_forward", 10, ("conv2d_forward",), "forward", forward_visible, forward_hidden),
    Task("a3.5", "conv2d_backward", 15, ("conv2d_forward", "conv2d_backward"), "convolution", backward_visible,
         backward_hidden),
    Task("a3.6", "max pooling", 12, ("max_pool_forward", "max_pool_backward"), "max_pool", max_visible, max_hidden),
    Task("a3.7", "average pooling", 8, ("avg_pool_forward", "avg_pool_backward"), "avg_pool", pool_visible, avg_hidden),
]
