"""This module measures how often the sum of shortcut and branch is negative, block by block.

In v1 a ReLU follows the addition, so every negative sum is cut off and the shortcut is not an identity there. With full
pre-activation (He et al. 2016, arXiv 1603.05027) nothing follows the addition, and a negative sum passes unchanged.
"""
from __future__ import annotations

from typing import Any

from .. import nn
from ..models.study import PlacedBlock, PlacedBottleneck
from ..tensor import Tensor
from . import common
from .blocks import ACTIVATES_LAST, blocks


def negative_sums(model: nn.Module, images: Any, *, train: bool = True) -> dict[str, float]:
    """Measure the share of negative values in the sum of shortcut and branch of every residual block.

    images: one batch, (N, C, H, W)
    train: whether the batch is normalised by its own statistics (train mode) or by the running ones (eval mode)
    Returns {name of a block: share from 0 to 1} in layer order.

    The sum is what comes directly out of the addition: before the ReLU in v1's blocks, and before the BN of
    "bn_after_addition" (`models.placement_study`). In v1's blocks, where only the ReLU's output can be seen, a sum of
    exactly 0 counts as negative. The model is left unchanged.

    Raises ValueError if the model has no block, a block without a shortcut, or a block of unknown structure.
    """
    named = blocks(model)
    known = (*ACTIVATES_LAST, PlacedBlock, PlacedBottleneck)
    for name, block in named.items():
        if type(block) not in known or not block.residual:
            raise ValueError(f"negative_sums: expected residual blocks of the kinds "
                             f"{', '.join(kind.__name__ for kind in known)}, got block {name!r}, {block!r}")
    norms = {f"{name}.{_last_norm(block)}": name for name, block in named.items() if _normalises_sum(block)}
    found: dict[str, float] = {}

    def see(name: str, module: nn.Module, x: Tensor, out: Tensor) -> None:
        if name in norms:
            found[norms[name]] = float((x.data < 0).mean())
        elif name in named and not _normalises_sum(module):
            cut_off = ACTIVATES_LAST.get(type(module), False)
            found[name] = float((out.data == 0 if cut_off else out.data < 0).mean())

    common.run(model, images, see, train=train)
    return {name: found[name] for name in named}


def _normalises_sum(block: Any) -> bool:
    return getattr(block, "placement", "") == "bn_after_addition"


def _last_norm(block: Any) -> str:
    """Return the attribute that holds the last BatchNorm of the block's branch."""
    last = block.branch()[-1][1]
    return next(name for name, module in block.children() if module is last)
