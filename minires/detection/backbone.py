"""What the detector and the segmentation network take over from a trained classifier, and how it is kept fixed.

He et al. 2015, appendix A, put ResNet-101 into Faster R-CNN: the stages conv1 to conv4 compute a feature map once for
the whole image, and conv5 runs on the map that was cut out for each region, where a VGG network has its fully connected
layers. The CIFAR networks have three stages, so here stages 1 and 2 are shared and stage 3 runs on regions:

    images (N, 1, H, W)  ->  conv1, stage 1  ->  stage 2  ->  shared map (N, 2 width, H / 2, W / 2), rounded up

The BatchNorms are frozen (appendix A): they are a fixed scale and shift of each channel, because the statistics of a
few scenes are too noisy. conv1 and stage 1 are fixed too, as Girshick 2015, section 4.5, fixes VGG's first layers.
"""
from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import device, nn
from ..datasets import Scenes
from ..models import CifarNet
from ..names import check_whole
from ..tensor import Tensor, no_grad

MEAN = 0.2863    # of the pixels of Fashion-MNIST, 0 to 1. One mean for all pixels, because objects may be anywhere
STRIDE = 2       # pixels of the image for each cell of the shared map, along both axes
SMALLEST = 8     # height and width of the smallest image: 2 cells of the map on which anchors lie


def inputs(images: np.ndarray) -> np.ndarray:
    """Return images as the networks of this package take them: uint8 (N, H, W) -> float32 (N, 1, H, W).

    Raises ValueError for other arrays, and for images smaller than 8x8.
    """
    if getattr(images, "dtype", None) != np.uint8 or images.ndim != 3 or min(images.shape[1:]) < SMALLEST:
        given = f"{images.dtype}{images.shape}" if hasattr(images, "dtype") else type(images).__name__
        raise ValueError(f"detection: expected images uint8 (N, H, W) with H and W from {SMALLEST}, got {given}")
    return images[:, None].astype(np.float32) / 255 - MEAN


class OnBackbone(nn.Module):
    """OnBackbone is the base of the networks that use the stages of a trained classifier. Its layers keep their names.

    backbone: a CIFAR network with BatchNorm, plain or residual, which has been trained with `inputs`. Its layers become
        part of this network; its classifier `fc` does not.
    num_classes: the number of classes of objects, without the ground

    `unfreeze()` makes all layers trained ones, and the BatchNorms use the statistics of each batch in training. A
    backbone with random weights needs that.

    Raises ValueError for another kind of network, and for a number of classes that is not a whole number from 1.
    """

    def __init__(self, backbone: CifarNet, num_classes: int):
        if not isinstance(backbone, CifarNet) or not isinstance(backbone.bn1, nn.BatchNorm2d):
            raise ValueError("detection: expected a CIFAR network with a BatchNorm after conv1 as the backbone, such "
                             f"as models.resnet20(in_channels=1, width=8), got {type(backbone).__name__}")
        net: Any = backbone
        check_whole("detection: num_classes", num_classes)
        self.num_classes = num_classes
        self.conv1, self.bn1 = net.conv1, net.bn1
        self.layer1, self.layer2, self.layer3 = net.layer1, net.layer2, net.layer3
        self.channels = net.layer2[-1].out_channels, net.layer3[-1].out_channels  # of stages 2 and 3
        self.freeze("conv1", "bn1", "layer1", *(m for _, m in self.modules() if isinstance(m, nn.BatchNorm)))

    def shared(self, images: Tensor) -> Tensor:
        """Return the shared map (N, C, ceil(H / 2), ceil(W / 2)) of images (N, 1, H, W).

        Raises ValueError for images smaller than 8x8.
        """
        if min(images.shape[2:], default=0) < SMALLEST:
            raise ValueError(f"detection: expected images (N, 1, H, W) with H and W from {SMALLEST}, got "
                             f"{images.shape}")
        first = [self.conv1, self.bn1, *self.layer1]
        fixed = not images.requires_grad and not any(t.requires_grad for m in first for t in m.state().values())
        with no_grad() if fixed else contextlib.nullcontext():  # no graph is needed where nothing is trained
            h = nn.conv_bn_relu(self.conv1, self.bn1, images)
            h = run(self.layer1, h)
        return run(self.layer2, h)

    def trained_stages(self) -> list[Tensor]:
        """Return the parameters of the backbone that are trained."""
        return [t for m in (self.conv1, self.bn1, *self.layer1, *self.layer2, *self.layer3) for t in m.parameters()]


def check_scenes(operation: str, scenes: Scenes, count: int, size: Sequence[int], given: Sequence[int]) -> None:
    """Check that what a network computed belongs to these scenes.

    count: the number of images
    size, given: height and width that the scenes' images lead to, and those that were computed

    Raises ValueError, which begins with `operation`, if it does not.
    """
    if (len(scenes), *size) != (count, *given):
        raise ValueError(f"{operation}: expected the output for {scenes!r}, {len(scenes)} of height and width "
                         f"{tuple(size)}, got {count} of height and width {tuple(given)}")


def check_batches(operation: str, images: Any, batch_size: int) -> None:
    """Raise ValueError, which begins with `operation`, unless there are images, and batches of at least one."""
    if not len(images):
        raise ValueError(f"{operation}: expected at least one image, got none")
    check_whole(f"{operation}: batch_size", batch_size)


def check_finite(operation: str, outputs: Any, first: int = 0) -> None:
    """Check the outputs (N, ...) of a network for images; `first` is the number of the first image.

    Raises ValueError, which begins with `operation` and names the image, for outputs that are not finite. NaN has no
    order, so a network with such a weight would otherwise find nothing, and say nothing.
    """
    valid = device.of(outputs).isfinite(outputs).reshape(len(outputs), -1).all(1)
    if not valid.all():
        raise ValueError(f"{operation}: image {first + int(valid.argmin())}: the network's output is not finite; are "
                         "all its weights and all pixels finite?")


def run(blocks: list[Any], h: Tensor) -> Tensor:
    """Return the output of a stage."""
    for block in blocks:
        h = block(h)
    return h
