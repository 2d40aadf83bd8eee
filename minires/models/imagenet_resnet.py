"""This module has the plain and residual networks for ImageNet: He et al. 2015, section 3.3 and Table 1.

    layer      output       18 layers    34 layers    50 layers     101 layers    152 layers
    conv1      112 x 112    7x7, 64, stride 2
    layer1      56 x 56     3x3 max pool, stride 2; then
                            2 blocks     3 blocks     3 bottl.      3 bottl.      3 bottl.       64 channels
    layer2      28 x 28     2            4            4             4             8             128
    layer3      14 x 14     2            6            6             23            36            256
    layer4       7 x 7      2            3            3             3             3             512
               1 x 1        average pool, 1000-way linear, softmax

The output of a bottleneck has 4 times these channels. The paper calls the stages conv2_x to conv5_x.

Two later networks change only the 3x3 convolution of the 50-layer network's bottlenecks: it is twice as wide in
wide_resnet50_2 (Zagoruyko & Komodakis 2016, arXiv 1605.07146), and has 32 groups in resnext50_32x4d (Xie et al. 2017,
arXiv 1611.05431). Both have torchvision's names and numbers.
"""
from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from .. import nn
from .resnet import ResNet, with_biases

TABLE_1: dict[int, tuple[Any, tuple[int, ...]]] = {
    18: (nn.Block, (2, 2, 2, 2)),
    34: (nn.Block, (3, 4, 6, 3)),
    50: (nn.Bottleneck, (3, 4, 6, 3)),
    101: (nn.Bottleneck, (3, 4, 23, 3)),
    152: (nn.Bottleneck, (3, 8, 36, 3)),
}


def imagenet(depth: int, residual: bool = True, *, shortcut: str = "B", pad: str = "both", version: str = "v1.5",
             num_classes: int = 1000, in_channels: int = 3, width: int = 64, groups: int = 1, width_per_group: int = 64,
             bias: bool = False, rng: np.random.Generator | None = None) -> ResNet:
    """Build a network of 18, 34, 50, 101 or 152 layers for images (N, in_channels, H, W), 224 x 224 in the paper.

    The names and shapes of its weights equal torchvision's.

    residual: False builds the plain network with the same layers.
    shortcut, pad: see `nn.ResidualBlock`. Published weights have shortcut "B".
    version: which convolution of a bottleneck has the stride (see `nn.Bottleneck`): "v1.5" for torchvision's weights,
        "v1" as in the paper. Networks of 18 and 34 layers have no bottleneck, so both versions are the same.
    groups, width_per_group: of the 3x3 convolution in each bottleneck (see `nn.Bottleneck`).
    bias: True gives the convolutions a bias beside BN, for weights from such networks.
    rng: draws the weights. Without it they are drawn with seed 0.

    Raises ValueError for another depth or version, or for groups or another width_per_group without bottlenecks.
    """
    if depth not in TABLE_1:
        raise ValueError(f"imagenet: expected depth 18, 34, 50, 101 or 152, got {depth}")
    if version not in ("v1", "v1.5"):
        raise ValueError(f'imagenet: expected version "v1" or "v1.5", got {version!r}')
    rng = np.random.default_rng(0) if rng is None else rng
    block, blocks = TABLE_1[depth]
    build = partial(block, residual=residual, shortcut=shortcut, pad=pad)
    if block is nn.Bottleneck:
        build = partial(build, version=version, groups=groups, width_per_group=width_per_group)
    elif (groups, width_per_group) != (1, 64):
        raise ValueError(f"imagenet: groups={groups} and width_per_group={width_per_group} need the bottlenecks of "
                         f"depth 50, 101 or 152, got depth {depth}")
    stages = [(width * 2**i * block.expansion, n, 1 if i == 0 else 2) for i, n in enumerate(blocks)]
    conv1 = nn.Conv2d(in_channels, width, 7, 2, 3, rng=rng)
    net = ResNet(conv1, nn.BatchNorm2d(width), stages, build, num_classes, maxpool=nn.MaxPool2d(3, 2, 1), rng=rng)
    return with_biases(net) if bias else net


resnet18, resnet34, resnet50, resnet101, resnet152 = (partial(imagenet, d) for d in (18, 34, 50, 101, 152))
wide_resnet50_2 = partial(imagenet, 50, width_per_group=128)             # twice the channels in the 3x3 convolutions
resnext50_32x4d = partial(imagenet, 50, groups=32, width_per_group=4)    # 32 groups of 4 channels in layer1
plain18, plain34 = (partial(imagenet, d, False) for d in (18, 34))
