"""A fully convolutional network (Long et al. 2015): give every pixel a class.

    images -> shared map (stride 2) -> stage 3 (stride 4) -> 1x1 convolution, upsampled 4 times  -+
                    |                                                                             + -> scores of pixels
                    +-------------------------------------> 1x1 convolution, upsampled 2 times  -+

Stage 3 knows the class and stage 2 the outline, so both are scored, enlarged to the image's size, and added.

Upsampling is bilinear and fixed, and interpolation is separable (regions.py), so it is `U @ S @ U.T`. With padding 1, a
3x3 convolution of stride 2 centres its output i on its input 2i. So the cells of a map with stride s lie at the pixels
0, s, 2s, ..., and pixel p is at the place p / s of the map.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from .. import device, init, kernels, nn, ops
from ..datasets import Scenes
from ..models import CifarNet
from ..optim import Group
from ..tensor import Tensor, no_grad
from .backbone import STRIDE, OnBackbone, check_batches, check_finite, check_scenes, run
from .regions import interpolation

MOST_CLASSES = 255  # of objects


def upsample(scores: Tensor, stride: int, height: int, width: int) -> Tensor:
    """Return a map (N, C, h, w), of which a cell covers stride x stride pixels, at every pixel: (N, C, height, width).

    Pixel p is at p / stride, between two cells; after the last cell its value stays.

    Raises ValueError for a number below 1.
    """
    if min(stride, height, width) < 1:
        raise ValueError(f"upsample: expected stride, height and width from 1, got {stride}, {height} and {width}")
    xp = device.of(scores.data)
    down, across = (Tensor(interpolation(xp.arange(pixels).astype(scores.dtype) / stride, cells))
                    for pixels, cells in ((height, scores.shape[2]), (width, scores.shape[3])))
    return ops.matmul(ops.matmul(down, scores), across.T)


class FCN(OnBackbone):
    """FCN gives every pixel a class: `predict` returns masks, and `loss` is what training minimises.

    backbone: a trained classifier; see OnBackbone
    num_classes: the number of classes of objects; the class 0 of a mask is the ground
    rng: draws the weights of the two new layers: normal, with a standard deviation of 0.01
    """

    def __init__(self, backbone: CifarNet, num_classes: int = 10, *, rng: np.random.Generator):
        super().__init__(backbone, num_classes)
        if num_classes > MOST_CLASSES:
            raise ValueError(f"FCN: num_classes: expected at most {MOST_CLASSES}, because masks are uint8, got "
                             f"{num_classes}")
        self.score2, self.score3 = (nn.Conv2d(channels, 1 + num_classes, 1, bias=True, rng=rng)
                                    for channels in self.channels)
        for layer in self.score2, self.score3:
            layer.weight.data = init.normal(layer.weight.shape, 0.01, rng=rng)

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores (N, 1 + classes, H, W) of every pixel of images (N, 1, H, W)."""
        shared, size = self.shared(images), images.shape[2:]
        coarse = upsample(self.score3(run(self.layer3, shared)), 2 * STRIDE, *size)
        return coarse + upsample(self.score2(shared), STRIDE, *size)

    def loss(self, scores: Tensor, scenes: Scenes, *, rng: np.random.Generator | None = None) -> Tensor:
        """Return the cross-entropy, the mean over all pixels, one number.

        scores: the output of `forward` for the images of `scenes`
        rng: is not used; training gives it to every network

        Raises ValueError if the scenes have no masks, if the scores do not belong to the scenes, or for a class that
        the network does not have.
        """
        check_scenes("FCN", scenes, len(scores), scenes.images.shape[1:], scores.shape[2:])
        if scenes.masks is None:
            raise ValueError("FCN: expected scenes with masks, got scenes without")
        pixels = scores.transpose(0, 2, 3, 1).reshape(-1, scores.shape[1])
        return ops.cross_entropy(pixels, device.of(scores.data).asarray(scenes.masks.reshape(-1)))

    def groups(self) -> list[Group]:
        """Return the parameters with their learning rates: the new layers learn faster than the trained stages."""
        new = [*self.score2.parameters(), *self.score3.parameters()]
        return [Group(self.trained_stages()), Group(new, lr_factor=4.0)]

    def predict(self, images: Any, batch_size: int = 50) -> np.ndarray:
        """Return the masks uint8 (N, H, W) of images float32 (N, 1, H, W), prepared by `inputs`.

        The mode of every layer is as before.

        Raises ValueError if there are no images, for a batch_size below 1, and for scores that are not finite.
        """
        check_batches("predict", images, batch_size)
        masks = []
        with nn.modes_kept(self), no_grad(), kernels.session():
            self.eval()
            for i in range(0, len(images), batch_size):
                scores = self(Tensor(images[i:i + batch_size])).data
                check_finite("predict", scores, i)
                masks.append(device.to(scores.argmax(1), "cpu").astype(np.uint8))
        return np.concatenate(masks)
