"""Refinement within a stage: how much each block still changes the features it is given.

Greff et al. 2017, "Highway and Residual Networks learn Unrolled Iterative Estimation": the blocks of a stage refine one
estimate rather than compute a new one, except the first, which changes its shape. Then changes are small against the
features, blocks turn them little, and the distance to the stage's final features shrinks from block to block.
"""
from __future__ import annotations

from typing import Any, NamedTuple

from .. import nn
from ..tensor import Tensor
from . import common
from .blocks import blocks


class Refined(NamedTuple):
    """One block that keeps its input's shape, averaged over the images."""

    change: float    # ||y - x|| / ||x||
    cosine: float    # between x and y
    distance: float  # ||y - last|| / ||last||, `last` being what the stage's last block puts out


def refinement(model: nn.Module, images: Any) -> dict[str, Refined]:
    """{name of a block: Refined} in layer order, in eval mode. images (N, C, H, W); the model is left as it was.

    A stage is a run of blocks with outputs of one shape. Its first block is listed only if it keeps the shape.
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
    """Inner product, image by image: (N,), float64."""
    return (a.reshape(len(a), -1).astype("f8") * b.reshape(len(b), -1)).sum(1)


def _norms(a: Any) -> Any:
    return _dots(a, a) ** 0.5


def _mean(a: Any) -> float:
    return float(a.mean())
