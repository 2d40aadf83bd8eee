"""This module measures how much each block of a stage changes its input features.

Greff et al. 2017, "Highway and Residual Networks learn Unrolled Iterative Estimation", propose that the blocks of a
stage refine one estimate instead of computing new ones, except the first block, which changes the shape. In that case
each block changes the features little in size and in direction, and the distance to the stage's final features shrinks
from block to block.
"""
from __future__ import annotations

from typing import Any, NamedTuple

from .. import nn
from ..tensor import Tensor
from . import common
from .blocks import blocks


class Refined(NamedTuple):
    """A Refined describes one block that keeps the shape, as means over the images. x is its input and y its output."""

    change: float    # ||y - x|| / ||x||
    cosine: float    # between x and y
    distance: float  # ||y - last|| / ||last||, where `last` is the output of the stage's last block


def refinement(model: nn.Module, images: Any) -> dict[str, Refined]:
    """Measure how much each block that keeps the shape changes its input, in eval mode.

    images: (N, C, H, W)
    Returns {name of a block: Refined} in layer order.

    A stage is a series of blocks with outputs of one shape. Its first block is listed only if it keeps the shape. The
    model is left unchanged.

    Raises ValueError if the model has no block.
    """
    wanted = set(blocks(model))
    stages: list[list[tuple[str, Any, Any]]] = []

    def see(name: str, module: nn.Module, x: Tensor, out: Tensor) -> None:
        if name in wanted:
            if not stages or stages[-1][-1][2].shape != out.shape:
                stages.append([])
            stages[-1].append((name, x.data, out.data))

    common.run(model, images, see)
    found = {}
    for stage in stages:
        last = stage[-1][2]
        for name, x, y in stage:
            if x.shape == y.shape:
                found[name] = Refined(_mean(_norms(y - x) / _norms(x)), _mean(_dots(x, y) / (_norms(x) * _norms(y))),
                                      _mean(_norms(y - last) / _norms(last)))
    return found


def _dots(a: Any, b: Any) -> Any:
    """Return the inner product for each image: float64 (N,)."""
    return (a.reshape(len(a), -1).astype("f8") * b.reshape(len(b), -1)).sum(1)


def _norms(a: Any) -> Any:
    return _dots(a, a) ** 0.5


def _mean(a: Any) -> float:
    return float(a.mean())
