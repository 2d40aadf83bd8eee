"""This module has networks from one number to one number, on which H(x) = F(x) + x can be seen whole.

He et al. 2015, section 3.1, argue that a stack of layers that should be close to the identity is easier to train if it
learns the difference F(x) = H(x) - x. With numbers instead of images, every block is a curve that can be drawn.
"""
from __future__ import annotations

import numpy as np

from .. import init, nn, ops
from ..tensor import Tensor


class ScalarBlock(nn.Module):
    """ScalarBlock computes F(x) + x, or F(x) with residual=False, where F(x) = W2 relu(W1 x + b1) + b2.

    Input and output: (N, 1). F is piecewise linear with up to `hidden` kinks. Its weights are He's. b1 is uniform in
    [-1, 1], so that the kinks are spread out; b2 is 0.

    zero_last: True starts W2 at 0, so that the block starts as its shortcut.
    """

    def __init__(self, hidden: int = 8, *, residual: bool = True, zero_last: bool = False, rng: np.random.Generator):
        self.residual = residual
        self.first, self.last = nn.Linear(1, hidden, rng=rng), nn.Linear(hidden, 1, rng=rng)
        self.first.weight = Tensor(init.he_normal((hidden, 1), rng=rng), True)
        self.first.bias = Tensor(init.uniform((hidden,), 1.0, rng=rng), True)
        drawn = init.he_normal((1, hidden), rng=rng)
        self.last.weight = Tensor(np.zeros_like(drawn) if zero_last else drawn, True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.last(ops.relu(self.first(x)))
        return h + x if self.residual else h

    def describe(self) -> str:
        return "residual" if self.residual else "plain"


def scalar_stack(blocks: int, hidden: int = 8, *, residual: bool = True, zero_last: bool = False,
                 rng: np.random.Generator | None = None) -> nn.Sequential:
    """Build a stack of ScalarBlocks, which has 2 * blocks layers with weights. Input and output: (N, 1).

    hidden: number of units between the two layers of a block
    zero_last: True makes a residual stack start as the identity. A plain stack that starts so gives the same number for
        every x, and no gradient reaches its first layers.
    rng: draws the weights. Without it they are drawn with seed 0. Stacks with the same seed and sizes have the same
        weights, with and without shortcuts.

    Raises ValueError for fewer than one block or hidden unit, and for zero_last without residual.
    """
    if blocks < 1 or hidden < 1:
        raise ValueError(f"scalar_stack: expected one block and one hidden unit or more, got {blocks} and {hidden}")
    if zero_last and not residual:
        raise ValueError("scalar_stack: zero_last=True needs residual=True: a plain stack that starts at 0 learns only "
                         "its last bias")
    rng = np.random.default_rng(0) if rng is None else rng
    return nn.Sequential(*(ScalarBlock(hidden, residual=residual, zero_last=zero_last, rng=rng)
                           for _ in range(blocks)))
