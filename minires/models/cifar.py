"""The networks for 32x32 images, plain and residual: He et al. 2015, section 4.2.

    layers            output map    channels
    1: 3x3 stem       32 x 32       16
    2n: stage 1       32 x 32       16
    2n: stage 2       16 x 16       32      the first convolution has stride 2
    2n: stage 3        8 x 8        64      likewise
    1: average pool over the map, 10-way linear, softmax

6n + 2 layers with weights: n = 3, 5, 7, 9, 18, 200 give 20, 32, 44, 56, 110, 1202.
"""
from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from .. import init, nn, ops
from ..tensor import Tensor

STAGES = ((1, 1), (2, 2), (4, 2))  # (channels as a multiple of the width, stride of the first block)


class CifarNet(nn.Module):
    """conv1 - bn1 - relu - layer1 - layer2 - layer3 - pool - fc. Build it with `cifar` or by name (`resnet20`).

    A pre-activation network (v2) has no bn1 and relu behind the stem, and a bn and relu behind its last block.
    """

    def __init__(self, blocks_per_stage: int, block: Any, *, preact: bool, norm: str, num_classes: int,
                 in_channels: int, width: int, rng: np.random.Generator):
        self.preact = preact
        self.conv1 = nn.Conv2d(in_channels, width, 3, 1, 1, bias=norm != "batch", rng=rng)
        if not preact:
            self.bn1: nn.Module = nn.BatchNorm2d(width) if norm == "batch" else nn.Identity()
        stages: list[list[Any]] = []
        channels = width
        for multiple, stride in STAGES:
            stages.append([])
            for i in range(blocks_per_stage):
                stages[-1].append(block(channels, multiple * width, stride if i == 0 else 1, rng=rng))
                channels = multiple * width
        self.layer1, self.layer2, self.layer3 = stages
        if preact:
            self.layer1[0].split_after_activation = True  # v2, section 5: nothing before it has been activated yet
        if preact:
            self.bn = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, num_classes, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(x) if self.preact else nn.conv_bn_relu(self.conv1, self.bn1, x)
        for block in (*self.layer1, *self.layer2, *self.layer3):
            h = block(h)
        if self.preact:
            h = nn.bn_relu(self.bn, h)
        return self.fc(ops.global_avg_pool2d(h))


def cifar(depth: int, residual: bool = True, block: str = "basic", shortcut: str = "A", pad: str = "both",
          num_classes: int = 10, in_channels: int = 3, width: int = 16, *, norm: str = "batch", by_hand: bool = False,
          rng: np.random.Generator | None = None) -> CifarNet:
    """A network of `depth` = 6n + 2 layers for (N, in_channels, H, W) images of any size from 4 x 4 up.

    residual=False gives the plain network of the same layers. block: "basic" (v1) or "preact" (v2). shortcut, pad:
    see `nn.Block`. norm: "batch", "none" (convolutions get a bias instead) or "fixup" (started by `init.fixup`).
    by_hand: the blocks' backward written out instead of autograd's (residual networks with BN).
    rng: where the weights are drawn from; without it from seed 0, so that a forgotten seed still repeats.
    """
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"cifar: expected depth = 6n + 2 (8, 14, 20, 32, 44, 56, 110, ...), got {depth}")
    if norm not in ("batch", "none", "fixup"):
        raise ValueError(f'cifar: expected norm "batch", "none" or "fixup", got {norm!r}')
    if block not in ("basic", "preact"):
        raise ValueError(f'cifar: expected block "basic" or "preact", got {block!r}')
    if norm != "batch" and (block == "preact" or by_hand):
        raise ValueError(f'cifar: block "preact" and by_hand=True need norm="batch", got norm={norm!r}')
    if norm == "fixup" and (not residual or shortcut != "A"):
        raise ValueError('cifar: norm="fixup" is for residual networks with shortcut "A"')
    if norm == "fixup":
        build: Any = partial(nn.FixupBlock, pad=pad)
    elif block == "preact":
        build = partial(nn.PreactBlock, residual=residual, shortcut=shortcut, pad=pad, by_hand=by_hand)
    else:
        build = partial(nn.Block, residual=residual, shortcut=shortcut, pad=pad, by_hand=by_hand,
                        batch_norm=norm == "batch")
    net = CifarNet((depth - 2) // 6, build, preact=block == "preact", norm=norm, num_classes=num_classes,
                   in_channels=in_channels, width=width, rng=np.random.default_rng(0) if rng is None else rng)
    return init.fixup(net) if norm == "fixup" else net


plain20, plain32, plain44, plain56, plain110 = (partial(cifar, d, False) for d in (20, 32, 44, 56, 110))
resnet20, resnet32, resnet44, resnet56, resnet110, resnet1202 = (
    partial(cifar, d, True) for d in (20, 32, 44, 56, 110, 1202))
