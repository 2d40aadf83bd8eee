"""VGG, which the residual networks' plain baselines follow: Simonyan & Zisserman 2014, arXiv 1409.1556, Table 1.

Only 3x3 convolutions; a 2x2 max pool halves the map after each stage; three linear layers at the end, which hold
most of the parameters. VGG-16 is column D, VGG-19 column E.
"""
from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from .. import nn
from ..tensor import Tensor

# Convolutions in each stage; their channels are 1, 2, 4, 8, 8 times the width.
TABLE_1 = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
MULTIPLES = (1, 2, 4, 8, 8)


class Features(nn.Sequential):
    """Its layers one after the other, as nn.Sequential runs them. Where a Conv2d, a BatchNorm2d and a ReLU follow each
    other and nothing looks inside, the three go through `nn.conv_bn_relu`, which makes one operation of them."""

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
    """features - 7x7 average pool - classifier. Build it with `vgg16` or `vgg19`.

    features and classifier are nn.Sequential: the papers' layers in a row, each by its number.
    """

    def __init__(self, features: Features, classifier: nn.Sequential):
        self.features, self.avgpool, self.classifier = features, nn.AdaptiveAvgPool2d(7), classifier

    def forward(self, x: Tensor) -> Tensor:
        h = self.avgpool(self.features(x))
        return self.classifier(h.reshape(len(h), -1))


def vgg(depth: int, *, batch_norm: bool = False, num_classes: int = 1000, in_channels: int = 3, width: int = 64,
        hidden: int = 4096, dropout: float = 0.5, rng: np.random.Generator | None = None) -> VGG:
    """VGG-16 or VGG-19 for (N, in_channels, H, W) images from 32 x 32 up, 224 x 224 in the paper; names and shapes
    as torchvision's vgg16, vgg16_bn, vgg19, vgg19_bn.

    Without BN, as in the paper, the convolutions are followed by ReLU alone. hidden: width of the two linear layers
    before the last, each followed by dropout. At sizes other than 224 the last map is averaged to 7 x 7, as
    torchvision does. Weights and dropout are drawn from `rng`, without it from seed 0.
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
