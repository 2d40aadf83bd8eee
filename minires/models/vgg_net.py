"""This module has VGG: Simonyan & Zisserman 2014, arXiv 1409.1556, Table 1.

The plain baselines of the residual networks follow VGG. All its convolutions are 3x3. A 2x2 max pool halves the map
after each stage. The three linear layers at the end have most of the parameters. VGG-16 is column D of Table 1, and
VGG-19 is column E.
"""
from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from .. import nn
from ..tensor import Tensor

# TABLE_1 has the number of convolutions in each stage; their channels are 1, 2, 4, 8, 8 times the width.
TABLE_1 = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
MULTIPLES = (1, 2, 4, 8, 8)


class Features(nn.Sequential):
    """Features runs its layers one after the other, like nn.Sequential.

    Unless a hook is active, consecutive Conv2d, BatchNorm2d and ReLU layers run as one call of `nn.conv_bn_relu`, which
    can fuse them.
    """

    def forward(self, x: Tensor) -> Tensor:
        layers = [*self]
        while layers:
            if _conv_bn_relu_first(layers) and not nn.being_watched():
                conv, bn, _, *layers = layers
                x = nn.conv_bn_relu(conv, bn, x)
            else:
                layer, *layers = layers
                x = layer(x)
        return x


def _conv_bn_relu_first(layers: list[Any]) -> bool:
    kinds = nn.Conv2d, nn.BatchNorm2d, nn.ReLU
    return len(layers) >= 3 and all(nn.is_exactly(m, kind) for m, kind in zip(layers[:3], kinds, strict=True))


class VGG(nn.Module):
    """VGG runs features - 7x7 average pool - classifier. Build it with `vgg16` or `vgg19`.

    features and classifier are nn.Sequential: the layers of the paper, each named by its number.
    """

    def __init__(self, features: Features, classifier: nn.Sequential):
        self.features, self.avgpool, self.classifier = features, nn.AdaptiveAvgPool2d(7), classifier

    def forward(self, x: Tensor) -> Tensor:
        h = self.avgpool(self.features(x))
        return self.classifier(h.reshape(len(h), -1))


def vgg(depth: int, *, batch_norm: bool = False, num_classes: int = 1000, in_channels: int = 3, width: int = 64,
        hidden: int = 4096, dropout: float = 0.5, rng: np.random.Generator | None = None) -> VGG:
    """Build VGG-16 or VGG-19 for images (N, in_channels, H, W) of 32 x 32 pixels or more, 224 x 224 in the paper.

    The names and shapes of the weights equal those of torchvision's vgg16, vgg16_bn, vgg19 and vgg19_bn. For sizes
    other than 224 the last map is averaged to 7 x 7, as in torchvision.

    batch_norm: True adds BN after each convolution. In the paper only a ReLU follows it.
    hidden: width of the two linear layers before the last linear layer. A ReLU and dropout follow each of them.
    rng: draws the weights and the dropout masks. Without it they are drawn with seed 0.

    Raises ValueError for another depth.
    """
    if depth not in TABLE_1:
        raise ValueError(f"vgg: expected depth 16 or 19, got {depth}")
    rng = np.random.default_rng(0) if rng is None else rng
    layers: list[nn.Module] = []
    channels = in_channels
    for convolutions, multiple in zip(TABLE_1[depth], MULTIPLES, strict=True):
        for _ in range(convolutions):
            layers.append(nn.Conv2d(channels, multiple * width, 3, 1, 1, bias=True, rng=rng))
            channels = multiple * width
            layers += [nn.BatchNorm2d(channels), nn.ReLU()] if batch_norm else [nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    classifier = nn.Sequential(
        nn.Linear(channels * 7 * 7, hidden, rng=rng), nn.ReLU(), nn.Dropout(dropout, rng=rng),
        nn.Linear(hidden, hidden, rng=rng), nn.ReLU(), nn.Dropout(dropout, rng=rng),
        nn.Linear(hidden, num_classes, rng=rng))
    return VGG(Features(*layers), classifier)


vgg16, vgg19 = partial(vgg, 16), partial(vgg, 19)
vgg16_bn, vgg19_bn = partial(vgg, 16, batch_norm=True), partial(vgg, 19, batch_norm=True)
