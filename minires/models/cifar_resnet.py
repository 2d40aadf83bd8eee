"""This module has the networks for 32x32 images.

The plain and residual networks are from He et al. 2015, section 4.2; the networks with bottlenecks or pre-activation
are from He et al. 2016, arXiv 1603.05027.

    layers                     output map    channels
    1: 3x3 stem                32 x 32       16
    n blocks: stage 1          32 x 32       16        times 4 where the blocks are bottlenecks
    n blocks: stage 2          16 x 16       32        the first block has stride 2
    n blocks: stage 3           8 x 8        64        the first block has stride 2
    1: average pool over the map, 10-way linear, softmax

A basic block has 2 layers, so a network has 6n + 2 layers with weights: n = 3, 5, 7, 9, 18, 200 give 20, 32, 44, 56,
110, 1202. A bottleneck has 3 layers, so a network has 9n + 2: n = 18 and 111 give 164 and 1001.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .. import init, nn
from .resnet import ResNet, with_biases

STAGES = ((1, 1), (2, 2), (4, 2))  # (channels as a multiple of the width, stride of the first block)
BLOCKS: dict[str, Any] = {"basic": nn.Block, "bottleneck": nn.Bottleneck, "preact": nn.PreactBlock,
                          "preact_bottleneck": nn.PreactBottleneck}


class CifarNet(ResNet):
    """CifarNet runs conv1 - bn1 - relu - layer1 - layer2 - layer3 - pool - fc. Build it with `cifar` or by name
    (`resnet20`).

    A pre-activation network (v2) has no bn1 and relu after the stem, but a bn and relu after its last block.
    """

    def __init__(self, blocks_per_stage: int, block: Callable[..., Any], *, expansion: int = 1,
                 first_norm: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
                 last_norm: Callable[[int], nn.Module] | None = None, num_classes: int, in_channels: int, width: int,
                 rng: np.random.Generator | None):
        rng = np.random.default_rng(0) if rng is None else rng
        bn1 = first_norm(width) if first_norm else None
        conv1 = nn.Conv2d(in_channels, width, 3, 1, 1, bias=isinstance(bn1, nn.Identity), rng=rng)
        stages = [(multiple * width * expansion, blocks_per_stage, stride) for multiple, stride in STAGES]
        super().__init__(conv1, bn1, stages, block, num_classes, last_norm=last_norm, rng=rng)


def blocks_per_stage(depth: int, block: str) -> int:
    """Return n, the number of blocks per stage, from depth = 6n + 2, or 9n + 2 with bottlenecks.

    Raises ValueError if there is no such n, or for an unknown block.
    """
    if block not in BLOCKS:
        raise ValueError(f'cifar: expected block "basic", "bottleneck", "preact" or "preact_bottleneck", got {block!r}')
    layers, such = (9, "11, 20, 29, 164, 1001") if "bottleneck" in block else (6, "8, 14, 20, 32, 44, 56, 110")
    if depth < layers + 2 or (depth - 2) % layers:
        raise ValueError(f"cifar: expected depth = {layers}n + 2 ({such}, ...) with block {block!r}, got {depth}")
    return (depth - 2) // layers


def cifar(depth: int, residual: bool = True, block: str = "basic", shortcut: str = "A", pad: str = "both",
          num_classes: int = 10, in_channels: int = 3, width: int = 16, *, norm: str = "batch", bias: bool = False,
          by_hand: bool = False, rng: np.random.Generator | None = None) -> CifarNet:
    """Build a network of `depth` layers for images (N, in_channels, H, W) of 4 x 4 pixels or more.

    block: "basic" (v1) or "preact" (v2) for depth 6n + 2, "bottleneck" or "preact_bottleneck" for depth 9n + 2.
    residual: False builds the plain network with the same layers.
    shortcut, pad: see `nn.ResidualBlock`.
    norm: "batch"; "none", where the convolutions have a bias instead; or "fixup", initialised by `init.fixup`. The last
        two are for basic blocks.
    bias: True gives the convolutions a bias beside BN, for weights from such networks.
    by_hand: True uses the hand-written backward of the blocks (residual networks with BN, no bottlenecks).
    rng: draws the weights. Without it they are drawn with seed 0, so that the result is still reproducible.

    Raises ValueError for an impossible depth or combination of arguments.
    """
    n = blocks_per_stage(depth, block)
    for name, size in ("num_classes", num_classes), ("in_channels", in_channels), ("width", width):
        if not isinstance(size, int | np.integer) or size < 1:
            raise ValueError(f"cifar: expected {name} as an integer >= 1, got {size!r}")
    if norm not in ("batch", "none", "fixup"):
        raise ValueError(f'cifar: expected norm "batch", "none" or "fixup", got {norm!r}')
    if norm != "batch" and (block != "basic" or by_hand):
        raise ValueError(f'cifar: block {block!r} and by_hand={by_hand} need norm="batch", got norm={norm!r}')
    if norm == "fixup" and (not residual or shortcut != "A"):
        raise ValueError('cifar: norm="fixup" is for residual networks with shortcut "A"')
    if by_hand and bias:
        raise ValueError("cifar: by_hand=True supports only convolutions without a bias, got bias=True")
    if by_hand and "bottleneck" in block:
        raise ValueError(f'cifar: by_hand=True supports only blocks "basic" and "preact", got {block!r}')
    options: dict[str, Any] = {"residual": residual, "shortcut": shortcut, "pad": pad}
    if block == "basic":
        options["batch_norm"] = norm == "batch"
    if by_hand:
        options["by_hand"] = True
    build = partial(nn.FixupBlock, pad=pad) if norm == "fixup" else partial(BLOCKS[block], **options)
    sizes: dict[str, Any] = {"num_classes": num_classes, "in_channels": in_channels, "width": width, "rng": rng}
    if "preact" in block:
        net = CifarNet(n, build, expansion=BLOCKS[block].expansion, first_norm=None, last_norm=nn.BatchNorm2d, **sizes)
        return with_biases(net) if bias else net
    first_norm: Any = nn.BatchNorm2d if norm == "batch" else lambda channels: nn.Identity()
    net = CifarNet(n, build, expansion=BLOCKS[block].expansion, first_norm=first_norm, **sizes)
    net = init.fixup(net) if norm == "fixup" else net
    return with_biases(net) if bias else net


plain20, plain32, plain44, plain56, plain110 = (partial(cifar, d, False) for d in (20, 32, 44, 56, 110))
resnet20, resnet32, resnet44, resnet56, resnet110, resnet1202 = (
    partial(cifar, d, True) for d in (20, 32, 44, 56, 110, 1202))
# With bottlenecks, the first block of every stage changes the number of channels. The authors' networks project there.
resnet164, resnet1001 = (partial(cifar, d, block="bottleneck", shortcut="B") for d in (164, 1001))
preact_resnet20, preact_resnet32, preact_resnet44, preact_resnet56, preact_resnet110 = (
    partial(cifar, d, block="preact") for d in (20, 32, 44, 56, 110))
preact_resnet164, preact_resnet1001 = (partial(cifar, d, block="preact_bottleneck", shortcut="B") for d in (164, 1001))
