"""This module has GoogLeNet, with BN. It has 22 layers: Szegedy et al. 2014, arXiv 1409.4842, Table 1.

An Inception module runs four branches in parallel and concatenates their channels:

    x --- 1x1 ------------------.
      |-- 1x1 ---- 3x3 ---------|
      |-- 1x1 ---- 5x5 ---------+--- y
      `-- 3x3 max pool -- 1x1 --'
"""
from __future__ import annotations

import numpy as np

from .. import nn, ops
from ..tensor import Tensor

# Table 1 of the paper gives the output channels of these convolutions: 1x1; 1x1 before the 3x3; 3x3; 1x1 before the
# 5x5; 5x5; 1x1 after the pool. A max pool of stride 2 comes before 3a, 4a and 5a.
TABLE_1: dict[str, tuple[int, ...]] = {
    "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64), "4b": (160, 112, 224, 24, 64, 64), "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64), "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128),
}


class BasicConv2d(nn.Module):
    """BasicConv2d computes relu(bn(conv(x))). Its eps is 0.001, as in published weights."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0, *,
                 rng: np.random.Generator):
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, rng=rng)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return nn.conv_bn_relu(self.conv, self.bn, x)


class Inception(nn.Module):
    """Inception runs four branches and concatenates their outputs to `out_channels` channels.

    channels: a row of TABLE_1.

    The paper's 5x5 branch has a 3x3 convolution here, because torchvision's published weights were trained with one.
    Only with 3x3 does GoogLeNet have the published 6,624,904 parameters.
    """

    def __init__(self, in_channels: int, channels: tuple[int, ...], *, rng: np.random.Generator):
        one, to3, three, to5, five, pool = channels
        self.out_channels = one + three + five + pool
        self.branch1 = BasicConv2d(in_channels, one, 1, rng=rng)
        self.branch2 = nn.Sequential(BasicConv2d(in_channels, to3, 1, rng=rng),
                                     BasicConv2d(to3, three, 3, 1, 1, rng=rng))
        self.branch3 = nn.Sequential(BasicConv2d(in_channels, to5, 1, rng=rng),
                                     BasicConv2d(to5, five, 3, 1, 1, rng=rng))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), BasicConv2d(in_channels, pool, 1, rng=rng))

    def forward(self, x: Tensor) -> Tensor:
        return ops.concatenate([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class GoogLeNet(nn.Module):
    """GoogLeNet runs conv1 - pool - conv2 - conv3 - pool - 3a 3b - pool - 4a 4b 4c 4d 4e - pool - 5a 5b - average pool
    - dropout - fc."""

    unused = "aux1", "aux2"  # the auxiliary classifiers, which are used only in training

    def __init__(self, num_classes: int, in_channels: int, width: int, dropout: float, *, rng: np.random.Generator):
        def inception(in_channels: int, row: str) -> Inception:
            return Inception(in_channels, tuple(c * width // 64 for c in TABLE_1[row]), rng=rng)

        self.conv1 = BasicConv2d(in_channels, width, 7, 2, 3, rng=rng)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = BasicConv2d(width, width, 1, rng=rng)
        self.conv3 = BasicConv2d(width, 3 * width, 3, 1, 1, rng=rng)
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception3a = inception(3 * width, "3a")
        self.inception3b = inception(self.inception3a.out_channels, "3b")
        self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception4a = inception(self.inception3b.out_channels, "4a")
        self.inception4b = inception(self.inception4a.out_channels, "4b")
        self.inception4c = inception(self.inception4b.out_channels, "4c")
        self.inception4d = inception(self.inception4c.out_channels, "4d")
        self.inception4e = inception(self.inception4d.out_channels, "4e")
        self.maxpool4 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.inception5a = inception(self.inception4e.out_channels, "5a")
        self.inception5b = inception(self.inception5a.out_channels, "5b")
        self.avgpool = nn.GlobalAvgPool2d()
        self.dropout = nn.Dropout(dropout, rng=rng)
        self.fc = nn.Linear(self.inception5b.out_channels, num_classes, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        h = self.maxpool1(self.conv1(x))
        h = self.maxpool2(self.conv3(self.conv2(h)))
        h = self.maxpool3(self.inception3b(self.inception3a(h)))
        h = self.inception4b(self.inception4a(h))
        h = self.inception4e(self.inception4d(self.inception4c(h)))
        h = self.inception5b(self.inception5a(self.maxpool4(h)))
        return self.fc(self.dropout(self.avgpool(h)))


def googlenet(*, num_classes: int = 1000, in_channels: int = 3, width: int = 64, dropout: float = 0.2,
              rng: np.random.Generator | None = None) -> GoogLeNet:
    """Build GoogLeNet (Inception v1) with BN and without the auxiliary classifiers: 6,624,904 parameters.

    Its images are (N, in_channels, H, W) with 15 x 15 pixels or more, 224 x 224 in the paper. The names and shapes of
    its weights equal torchvision's.

    Like torchvision, this network departs from the paper in two ways: BN after every convolution, and 3x3 convolutions
    in the branches that the paper calls 5x5 (see `Inception`). torchvision's published weights also expect images
    normalised as for Inception, (x - 0.5) / 0.5 for x in 0..1. torchvision's `transform_input` does this; here the
    caller must do it.

    width: channels of conv1, 64 in the paper. All other layers change in proportion.
    rng: draws the weights and the dropout masks. Without it they are drawn with seed 0.

    Raises ValueError unless `width` is a multiple of 4.
    """
    if width < 4 or width % 4:
        raise ValueError(f"googlenet: expected a width that is a multiple of 4, got {width}")
    return GoogLeNet(num_classes, in_channels, width, dropout, rng=np.random.default_rng(0) if rng is None else rng)
