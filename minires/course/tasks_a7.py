"""The tasks of A7, reading a ResNet."""
from __future__ import annotations

from typing import Any

import numpy as np

from .networks import MEASUREMENTS, settings
from .task import Case, Task

Rng = np.random.Generator


def images(rng: Rng, n: int, height: int, width: int) -> np.ndarray:
    """Draw images as a network takes them. They differ in brightness and contrast."""
    return (rng.standard_normal((n, 1, height, width)) * rng.uniform(0.3, 2, (n, 1, 1, 1))
            + rng.standard_normal((n, 1, 1, 1)))


def labelled(rng: Rng, n: int, height: int, width: int) -> dict[str, Any]:
    """Draw images, labels, and for which images the label is to be the network's own answer."""
    return {"x": images(rng, n, height, width), "labels": rng.integers(0, 4, n), "right": rng.random(n) < 0.75}


# ------------------------------------------------------------------------------------------------ 7.1


def responses_visible(rng: Rng) -> list[Case]:
    """A network with projections, and a plain one."""
    return [Case("residual network with projections, in eval mode before",
                 {"net": settings(rng, 8, 2, True, "eval", "B"), "x": images(rng, 5, 8, 8)}),
            Case("plain network", {"net": settings(rng, 8, 3, False), "x": images(rng, 4, 6, 8)})]


def responses_hidden(rng: Rng) -> list[Case]:
    """Other networks and modes."""
    return [Case("residual network, some layers in eval mode before",
                 {"net": settings(rng, 14, 2, True, "mixed"), "x": images(rng, 6, 8, 6)}),
            Case("projections in every block",
                 {"net": settings(rng, 8, 3, True, "train", "C"), "x": images(rng, 3, 8, 8)})]


# ------------------------------------------------------------------------------------------------ 7.2


def cut(rng: Rng, net: dict[str, Any], names: list[str], interrupted: bool = False) -> dict[str, Any]:
    """Draw the inputs of a lesion."""
    return {"net": net, "x": images(rng, 4, 8, 8), "names": names, "interrupted": interrupted}


def without_visible(rng: Rng) -> list[Case]:
    """Blocks that keep the shape and blocks that change it, of residual and plain networks, and an exception."""
    return [Case("residual network without layer1.0", cut(rng, settings(rng, 8, 2, True), ["layer1.0"])),
            Case("residual network without layer2.0, which changes the shape",
                 cut(rng, settings(rng, 8, 3, True, "eval"), ["layer2.0"])),
            Case("residual network without layer3.0, which has a projection",
                 cut(rng, settings(rng, 8, 2, True, "train", "B"), ["layer3.0"])),
            Case("plain network without layer2.0", cut(rng, settings(rng, 8, 2, False), ["layer2.0"])),
            Case("an exception inside", cut(rng, settings(rng, 14, 2, True), ["layer2.1"], True))]


def without_hidden(rng: Rng) -> list[Case]:
    """Other blocks, two at a time, and an exception in a plain network."""
    return [Case("two blocks at a time", cut(rng, settings(rng, 14, 2, True), ["layer1.1", "layer3.0"])),
            Case("plain network without layer3.0, an exception inside",
                 cut(rng, settings(rng, 8, 3, False, "eval"), ["layer3.0"], True)),
            Case("projections in every block", cut(rng, settings(rng, 8, 2, True, "mixed", "C"), ["layer1.0"])),
            Case("every block", cut(rng, settings(rng, 8, 3, True), ["layer1.0", "layer2.0", "layer3.0"]))]


# ------------------------------------------------------------------------------------------------ 7.3


def lesions_visible(rng: Rng) -> list[Case]:
    """A residual and a plain network, then random blocks."""
    return [Case("lesions of a residual network", {"net": settings(rng, 8, 3, True), **labelled(rng, 41, 8, 8)}),
            Case("lesions of a plain network", {"net": settings(rng, 14, 2, False, "eval"), **labelled(rng, 30, 6, 8)}),
            Case("1 to 6 random blocks of 6", {"net": settings(rng, 14, 2, True), **labelled(rng, 40, 8, 8),
                                               "counts": [3, 5, 2, 6, 4, 1], "seed": int(rng.integers(1 << 30))},
                 "delete_k")]


def lesions_hidden(rng: Rng) -> list[Case]:
    """Other networks, and no block at all."""
    return [Case("lesions of a network with projections",
                 {"net": settings(rng, 8, 2, True, "mixed", "B"), **labelled(rng, 36, 8, 6)}),
            Case("0 to 5 random blocks of 6", {"net": settings(rng, 14, 2, True, "eval"), **labelled(rng, 37, 8, 8),
                                               "counts": [4, 0, 5, 3, 4], "seed": int(rng.integers(1 << 30))},
                 "delete_k")]


# ------------------------------------------------------------------------------------------------ 7.4


def gradient_of(rng: Rng, net: dict[str, Any], n: int, gradients: bool = True) -> dict[str, Any]:
    """Draw the inputs of a gradient."""
    return {"net": net, "x": images(rng, n, 8, 6), "labels": rng.integers(0, 4, n), "gradients": gradients}


def falling(rng: Rng, blocks: int, factor: float) -> np.ndarray:
    """Draw norms that shrink by about this factor from one length of path to the next."""
    return factor ** np.arange(blocks + 1) * rng.uniform(0.8, 1.25, blocks + 1)


def path_shares_visible(rng: Rng) -> list[Case]:
    """Two networks' gradients, then the shares of short and of longer paths."""
    return [Case("residual network in train mode before", gradient_of(rng, settings(rng, 8, 2, True), 3)),
            Case("plain network in eval mode before", gradient_of(rng, settings(rng, 8, 3, False, "eval"), 4)),
            Case("paths through 0 to 3 blocks", {"norms": falling(rng, 3, 0.5)}, "path_shares"),
            Case("paths through 0 to 9 blocks", {"norms": falling(rng, 9, 0.3)}, "path_shares")]


def path_shares_hidden(rng: Rng) -> list[Case]:
    """Other networks, a single block, and the paper's 54 blocks."""
    return [Case("network without gradients before", gradient_of(rng, settings(rng, 8, 2, True), 2, False)),
            Case("some layers in eval mode before", gradient_of(rng, settings(rng, 8, 2, True, "mixed", "B"), 5)),
            Case("1 block", {"norms": falling(rng, 1, 0.7)}, "path_shares"),
            Case("54 blocks", {"norms": falling(rng, 54, 0.25)}, "path_shares")]


# ------------------------------------------------------------------------------------------------ 7.5


def drawing(rng: Rng, net: dict[str, Any], scale: float = 1.0, single: bool = False) -> dict[str, Any]:
    """Draw the inputs of two directions."""
    return {"net": net, "seed": int(rng.integers(1 << 30)), "scale": scale, "single": single}


def direction_visible(rng: Rng) -> list[Case]:
    """A residual network with projections, and a plain one."""
    return [Case("network with projections", drawing(rng, settings(rng, 8, 2, True, "train", "B"))),
            Case("plain network", drawing(rng, settings(rng, 8, 3, False, "eval")))]


def direction_hidden(rng: Rng) -> list[Case]:
    """A weight that is ten times as large, a deeper network, and float32."""
    return [Case("the first convolution's weight times 10", drawing(rng, settings(rng, 8, 3, True), 10.0)),
            Case("14 layers", drawing(rng, settings(rng, 14, 2, True, "mixed"))),
            Case("float32", drawing(rng, settings(rng, 8, 2, True), 1.0, True))]


# ------------------------------------------------------------------------------------------------ 7.6


def grid(rng: Rng, net: dict[str, Any], alphas: int, betas: int, single: bool = False) -> dict[str, Any]:
    """Draw the inputs of a surface."""
    return {"net": net, **labelled(rng, 5, 8, 6), "alphas": rng.uniform(-1, 1, alphas),
            "betas": rng.uniform(-1, 1, betas), "single": single}


def loss_surface_visible(rng: Rng) -> list[Case]:
    """More rows than columns, and as many of each."""
    return [Case("3 alphas, 2 betas", grid(rng, settings(rng, 8, 2, True), 3, 2)),
            Case("2 alphas, 2 betas, plain network", grid(rng, settings(rng, 8, 3, False, "eval"), 2, 2))]


def loss_surface_hidden(rng: Rng) -> list[Case]:
    """Other sizes, float32, and a network with projections."""
    return [Case("1 alpha, 4 betas, some layers in eval mode before",
                 grid(rng, settings(rng, 8, 2, True, "mixed"), 1, 4)),
            Case("float32", grid(rng, settings(rng, 8, 2, True), 2, 3, True)),
            Case("network with projections", grid(rng, settings(rng, 8, 2, True, "train", "B"), 2, 1))]


TASKS = [
    Task("a7.1", "responses", 20, ("responses",), "responses", responses_visible, responses_hidden, minires=True,
         withheld=MEASUREMENTS),
    Task("a7.2", "without", 15, ("without",), "without", without_visible, without_hidden, minires=True,
         withheld=MEASUREMENTS),
    Task("a7.3", "lesions and delete_k", 15, ("lesions", "delete_k"), "lesions", lesions_visible, lesions_hidden,
         minires=True, withheld=MEASUREMENTS),
    Task("a7.4", "input_gradient and path_shares", 10, ("input_gradient", "path_shares"), "input_gradient",
         path_shares_visible, path_shares_hidden, minires=True, withheld=MEASUREMENTS),
    Task("a7.5", "direction", 10, ("direction",), "direction", direction_visible, direction_hidden, minires=True,
         withheld=MEASUREMENTS),
    Task("a7.6", "loss_surface", 15, ("loss_surface",), "loss_surface", loss_surface_visible, loss_surface_hidden,
         minires=True, withheld=MEASUREMENTS),
]
