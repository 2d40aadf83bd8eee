"""How the signal grows from block to block: the second moment E[y^2] of every block's output.

At initialisation, with He's weights (each weight layer behind a ReLU keeps the second moment):

    no BN   pre-activation, x + F(x)              x 2 per block: E[F^2] = E[x^2], and F is independent of x
            x + W2 relu(W1 x)                     x 3: W1 sees no ReLU in front of it and doubles
            relu(x + W2 relu(W1 x)), as in v1     about x 2.3
    BN      pre-activation                        + 1 per block: F has second moment 1 whatever x is

So without BN a deep residual network's signal explodes (and its gradient with it), and with BN the branch's share of
block l's output is 1 / (l + 1): BN biases deep blocks toward the identity (De & Smith 2020).
"""
from __future__ import annotations

from typing import Any

from .. import nn
from ..tensor import Tensor
from . import common
from .blocks import blocks


def second_moments(model: nn.Module, images: Any, *kinds: type) -> dict[str, float]:
    """{"input": E[x^2] of what the first block receives, name of a block: E[y^2] of its output}, in train mode.

    images: one batch, (N, C, H, W) or (N, features). `kinds` of module may be named instead of the blocks.
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
    return float((a.astype("f8") ** 2).mean())  # in float32 the sum of an exploding signal overflows early
