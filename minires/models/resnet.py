"""This module has what all residual networks share: a stem, stages of equal blocks, and a classifier."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .. import init, nn, ops
from ..tensor import Tensor


def stage(block: Callable[..., Any], in_channels: int, out_channels: int, blocks: int, stride: int, *,
          rng: np.random.Generator) -> list[Any]:
    """Build a list of `blocks` blocks. The first has the stride and changes the number of channels; the others keep the
    shape."""
    return [block(out_channels if i else in_channels, out_channels, 1 if i else stride, rng=rng) for i in range(blocks)]


def with_biases(net: Any) -> Any:
    """Give a bias to every convolution of `net` that has none, for weights of networks with biases. Return `net`.

    The biases start at 0. Before a BatchNorm in train mode a bias changes nothing, and its gradient is 0.
    """
    for _, module in net.modules():
        if isinstance(module, nn.Conv2d) and module.bias is None:
            module.bias = Tensor(init.constant(module.weight.shape[:1], 0), True)
    return net


class ResNet(nn.Module):
    """ResNet runs conv1 - bn1 - relu - (maxpool) - layer1 - layer2 - ... - average pool - fc, with torchvision's names.

    conv1: the stem.
    first_norm: bn1, or None before pre-activation blocks, which begin with a BN of their own.
    stages: (channels, blocks, stride) for each of layer1, layer2, ...
    block: block(in_channels, out_channels, stride, rng=...) builds one block.
    maxpool: a layer after the stem, or None.
    last_norm: last_norm(channels) builds the norm that follows the last block, with a ReLU. It is for blocks that end
        in the addition.
    """

    def __init__(self, conv1: nn.Conv2d, first_norm: nn.Module | None, stages: Iterable[tuple[int, int, int]],
                 block: Callable[..., Any], num_classes: int, *, maxpool: nn.Module | None = None,
                 last_norm: Callable[[int], nn.Module] | None = None, rng: np.random.Generator):
        self.conv1, self.bn1, self.maxpool = conv1, first_norm, maxpool
        channels, self.stages = conv1.weight.shape[0], 0
        for out_channels, blocks, stride in stages:
            self.stages += 1
            setattr(self, f"layer{self.stages}", stage(block, channels, out_channels, blocks, stride, rng=rng))
            channels = out_channels
        if hasattr(self.blocks()[0], "split_after_activation"):
            self.blocks()[0].split_after_activation = True  # v2, appendix: no activation comes before it
        self.bn = last_norm(channels) if last_norm else None
        self.fc = nn.Linear(channels, num_classes, rng=rng)

    def blocks(self) -> list[Any]:
        """Return all blocks of all stages, in order."""
        return [block for i in range(1, self.stages + 1) for block in getattr(self, f"layer{i}")]

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(x) if self.bn1 is None else nn.conv_bn_relu(self.conv1, self.bn1, x)
        if self.maxpool is not None:
            h = self.maxpool(h)
        for block in self.blocks():
            h = block(h)
        if self.bn is not None:
            h = nn.bn_relu(self.bn, h)
        return self.fc(ops.global_avg_pool2d(h))
