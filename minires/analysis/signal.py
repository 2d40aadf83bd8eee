"""This module measures how the signal grows from block to block: the second moment E[y^2] of every block's output.

At initialisation, with He's weights (each weight layer after a ReLU keeps the second moment):

    no BN   pre-activation, x + F(x)              x 2 per block: E[F^2] = E[x^2], and F is independent of x
            x + W2 relu(W1 x)                     x 3 per block: no ReLU comes before W1, so W1 doubles the moment
            relu(x + W2 relu(W1 x)), as in v1     about x 2.3 per block
    BN      pre-activation                        + 1 per block: F has second moment 1 for every x

So without BN the signal of a deep residual network explodes, and so does its gradient. With BN the branch's share of
block l's output is 1 / (l + 1): BN biases deep blocks toward the identity (De & Smith 2020).
"""
from __future__ import annotations

from typing import Any

from .. import nn
from ..tensor import Tensor
from . import common
from .blocks import blocks


def second_moments(model: nn.Module, images: Any, *kinds: type) -> dict[str, float]:
    """Measure the second moment of every block's output, in train mode.

    images   one batch, (N, C, H, W) or (N, features)
    kinds    the types of the modules to measure instead of the blocks

    Returns {"input": E[x^2] of the first block's input, name of a block: E[y^2] of its output}. The model is left
    unchanged.

    Raises ValueError if the model has no block, or no module of these kinds.
    """
    if kinds:
        wanted = {name for name, m in model.modules() if isinstance(m, kinds)}
        if not wanted:
            raise ValueError("second_moments: the model has no module of kind "
                             + " or ".join(k.__name__ for k in kinds))
    else:
        wanted = set(blocks(model))
    found: dict[str, float] = {}

    def see(name: str, module: nn.Module, x: Tensor, out: Tensor) -> None:
        if name in wanted:
            if not found:
                found["input"] = _second_moment(x.data)
            found[name] = _second_moment(out.data)

    common.run(model, images, see, train=True)
    return found


def _second_moment(a: Any) -> float:
    return float((a.astype("f8") ** 2).mean())  # in float32 the sum would overflow early for an exploding signal
