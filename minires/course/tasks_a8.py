"""The tasks of A8: pre-activation, bottleneck, shortcuts."""
from __future__ import annotations

from typing import Any

import numpy as np

from .task import Case, Task

Rng = np.random.Generator
Sizes = tuple[int, int, int]  # in_channels, out_channels, stride


def through(name: str, label: str, sizes: Sizes, images: tuple[int, int, int], driver: str = "writable",
            mode: str = "train", trained: bool = False, **options: Any) -> Any:
    """Return a function that draws a case: a batch of `images` (N, H, W) and a gradient through one block."""
    def draw(rng: Rng) -> Case:
        (n, h, w), (inside, outside, stride) = images, sizes
        inputs: dict[str, Any] = {
            "name": name, "sizes": list(sizes), "x": rng.standard_normal((n, inside, h, w)),
            "dy": rng.standard_normal((n, outside, -(-h // stride), -(-w // stride))),
            "seed": int(rng.integers(2**31)), "mode": mode, **options}
        if trained:
            inputs["first"] = 2 * rng.standard_normal((n + 1, inside, h, w)) + 1
        return Case(label, inputs, driver)
    return draw


def all_of(*draws: Any) -> Any:
    """Return a function that draws these cases in order."""
    return lambda rng: [draw(rng) for draw in draws]


def stack(rng: Rng) -> Case:
    """Draw the case of 50 blocks whose branches are zero."""
    shape = 2, 3, 4, 5
    return Case("50 blocks with F = 0", {"channels": 3, "x": rng.standard_normal(shape),
                                         "dy": rng.standard_normal(shape), "blocks": 50}, "stack")


def robust(name: str, **options: Any) -> list[Any]:
    """Return what every block is tried on besides other shapes."""
    sizes, images = (4, 8, 2), (3, 5, 4)
    return [through(name, "eval mode", sizes, images, mode="eval", **options),
            through(name, "a batch in train mode, then eval mode", sizes, images, mode="eval", trained=True, **options),
            through(name, "x is read-only", sizes, images, "block", **options),
            through(name, "float32", sizes, images, "float32", **options),
            through(name, "an x that is not contiguous in memory", sizes, images, "strided", **options)]


PREACT = "PreactBlock"
preact_visible = all_of(
    through(PREACT, "the shape stays", (4, 4, 1), (3, 5, 4)),
    through(PREACT, "stride 2, option A", (3, 7, 2), (4, 5, 6), shortcut="A", pad="both"),
    through(PREACT, "stride 2, option B", (4, 6, 2), (2, 6, 7), shortcut="B"),
    through(PREACT, "split_after_activation", (5, 5, 1), (3, 4, 5), split_after_activation=True))
preact_hidden = all_of(
    through(PREACT, "option A with pad end", (3, 8, 2), (3, 7, 4), shortcut="A", pad="end"),
    through(PREACT, "option B where the shape stays", (3, 3, 1), (4, 4, 5), shortcut="B"),
    through(PREACT, "option B, stride 1", (3, 5, 1), (4, 3, 6), shortcut="B"),
    through(PREACT, "option A, split_after_activation", (3, 5, 2), (5, 4, 3), split_after_activation=True),
    stack, *robust(PREACT, shortcut="B"))

BOTTLENECK = "Bottleneck"
bottleneck_visible = all_of(
    through(BOTTLENECK, "the shape stays", (8, 8, 1), (3, 5, 4)),
    through(BOTTLENECK, "stride 2, option A, version v1", (4, 12, 2), (4, 6, 5), shortcut="A", version="v1"),
    through(BOTTLENECK, "stride 2, option B, version v1.5", (4, 8, 2), (3, 4, 7), shortcut="B", version="v1.5"))
bottleneck_hidden = all_of(
    through(BOTTLENECK, "option A with pad end, version v1.5", (5, 16, 2), (3, 7, 4), pad="end", version="v1.5"),
    through(BOTTLENECK, "option B, stride 1", (4, 12, 1), (4, 3, 5), shortcut="B"),
    through(BOTTLENECK, "option B, stride 2, version v1", (8, 16, 2), (4, 5, 3), shortcut="B", version="v1"),
    through(BOTTLENECK, "option B where the shape stays", (8, 8, 1), (3, 4, 3), shortcut="B"),
    *robust(BOTTLENECK, shortcut="B"))

SCALED, GATED = "ScaledBlock", "GatedBlock"
shortcuts_visible = all_of(
    through(SCALED, "ScaledBlock, the shape stays", (4, 4, 1), (3, 5, 4)),
    through(GATED, "GatedBlock, the shape stays", (3, 3, 1), (4, 5, 4)),
    through(GATED, "GatedBlock, stride 2", (3, 6, 2), (4, 6, 5)))
shortcuts_hidden = all_of(
    through(SCALED, "ScaledBlock, stride 2", (3, 7, 2), (3, 5, 6)),
    through(GATED, "GatedBlock, more channels", (3, 5, 1), (4, 4, 3)),
    *robust(SCALED), *robust(GATED))


def networks(*chosen: tuple[int, int, str, str]) -> Any:
    """Return a function that returns a case for each (depth, width, block, shortcut)."""
    names = "depth", "width", "block", "shortcut"
    return lambda rng: [Case(f"{block}, {depth} layers, width {width}, option {shortcut}",
                             dict(zip(names, (depth, width, block, shortcut), strict=True)))
                        for depth, width, block, shortcut in chosen]


count_visible = networks((20, 16, "basic", "A"), (20, 16, "basic", "B"), (29, 8, "bottleneck", "B"),
                         (14, 12, "preact", "B"))
count_hidden = networks((110, 16, "basic", "A"), (110, 16, "basic", "B"), (8, 10, "preact", "A"),
                        (164, 16, "bottleneck", "B"), (11, 4, "bottleneck", "A"), (1001, 16, "preact_bottleneck", "B"),
                        (20, 6, "preact_bottleneck", "A"))


def images(label: str, depth: int, width: int, shape: tuple[int, int, int], driver: str = "", mode: str = "train"
           ) -> Any:
    """Return a function that draws a case: a batch of images (N, H, W) and a gradient through the network."""
    def draw(rng: Rng) -> Case:
        n, h, w = shape
        return Case(label, {"depth": depth, "width": width, "x": rng.standard_normal((n, 3, h, w)),
                            "dy": rng.standard_normal((n, 10)), "seed": int(rng.integers(2**31)), "mode": mode}, driver)
    return draw


net_visible = all_of(images("8 layers, width 1, images of 16 x 16", 8, 1, (3, 16, 16)),
                     images("8 layers, width 3, images of 8 x 12", 8, 3, (4, 8, 12)))
net_hidden = all_of(images("14 layers, width 2, images of 8 x 8", 14, 2, (5, 8, 8)),
                    images("20 layers, width 1, images of 8 x 16", 20, 1, (3, 8, 16)),
                    images("eval mode", 8, 2, (2, 12, 8), mode="eval"),
                    images("float32", 8, 2, (4, 8, 8), "net_float32"))

BLOCKS = "nn.Block", "nn.Bottleneck", "nn.PreactBottleneck", "nn.FixupBlock", "residual", "models"
WITHHELD = (*BLOCKS, "nn.ResidualBlock", "nn.PreactBlock")
TASKS = [
    Task("a8.1", PREACT, 25, (PREACT,), "block", preact_visible, preact_hidden, True, WITHHELD),
    Task("a8.2", BOTTLENECK, 20, (BOTTLENECK,), "block", bottleneck_visible, bottleneck_hidden, True, WITHHELD),
    Task("a8.3", "ScaledBlock and GatedBlock", 15, (SCALED, GATED), "block", shortcuts_visible, shortcuts_hidden, True,
         WITHHELD),
    Task("a8.4", "count", 15, ("count",), "count", count_visible, count_hidden, True, WITHHELD),
    Task("a8.5", "preact_net", 10, ("preact_net",), "net", net_visible, net_hidden, True, BLOCKS),  # PreactBlock stays
]
