"""This module carries out the construction argument of He et al. 2015, section 1.

A deeper network can compute whatever a shallower one computes: copy the layers of the shallower network, and let the
added layers be identity mappings. So if the deeper network trains worse, a good solution exists, but the optimiser does
not find it. Identity blocks are added at the end of every stage. After a ReLU the signal is >= 0, so relu(x) = x:

    plain       two 3x3 Dirac kernels, each with BN set to the identity in eval mode (mean 0, var 1 - eps, gamma 1,
                beta 0). Every weight of both layers must have exactly these values.
    residual    gamma = beta = 0 in the last BN: the branch adds nothing, whatever the weights of its convolutions are.
"""
from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np

from .. import device, nn
from ..evaluate import logits
from .blocks import ACTIVATES_LAST, blocks, channels_out, last_convolution


class Construction(NamedTuple):
    """A Construction is a deeper network, and the difference of its logits from those of the original network."""

    model: Any           # the deeper network
    blocks: int          # number of blocks added
    difference: float    # largest |difference of logits| on the images, in eval mode
    shallow: np.ndarray  # logits (N, classes) of the original network, on the CPU
    deep: np.ndarray     # logits (N, classes) of the deeper network, on the CPU


def construction(model: Any, images: Any, extra: int, *, rng: np.random.Generator) -> Construction:
    """Append `extra` identity blocks to every stage of a copy of `model`, and compare both networks on `images`.

    images   (N, C, H, W)
    extra    blocks per stage; 6 turns depth 20 into depth 56
    rng      draws the weights that do not affect the output

    A stage is a list of blocks, as in `models.cifar`. The model is left unchanged.

    Raises ValueError as `deepen` does.
    """
    deeper = deepen(model, extra, rng=rng)
    shallow, deep = (device.to(logits(net, images), "cpu") for net in (model, deeper))
    more = len(blocks(deeper)) - len(blocks(model))
    return Construction(deeper, more, float(abs(shallow - deep).max()), shallow, deep)


def deepen(model: Any, extra: int, *, rng: np.random.Generator) -> Any:
    """Return a copy of `model` with `extra` identity blocks at the end of every stage.

    rng      draws the weights that do not affect the output

    Raises ValueError if extra < 0, if the model has no list of blocks, or if its blocks cannot be the identity.
    """
    if extra < 0:
        raise ValueError(f"deepen: expected extra >= 0, got {extra}")
    deeper = copy.deepcopy(model)
    stages = [stage for _, m in deeper.modules() for stage in vars(m).values()
              if isinstance(stage, list) and stage and all(isinstance(b, nn.ResidualBlock) for b in stage)]
    if not stages:
        raise ValueError("deepen: expected a model with lists of blocks, as models.cifar builds it, found no such list")
    for stage in stages:
        stage += [_identity_behind(stage[-1], rng) for _ in range(extra)]
    return deeper


def dirac(shape: tuple[int, ...]) -> np.ndarray:
    """Return the kernel with which a convolution of padding k // 2 returns its input.

    shape: (C, C, k, k), k odd; height and width may differ
    Returns a float32 array of this shape.

    Raises ValueError for any other shape.
    """
    if len(shape) != 4 or shape[0] != shape[1] or shape[2] % 2 == 0 or shape[3] % 2 == 0:
        raise ValueError(f"dirac: expected a shape (C, C, odd, odd), got {shape}")
    kernel = np.zeros(shape, np.float32)
    kernel[range(shape[0]), range(shape[0]), shape[2] // 2, shape[3] // 2] = 1
    return kernel


def _identity_behind(block: Any, rng: np.random.Generator) -> Any:
    """Return a block of the same kind that takes this block's output and, in eval mode, returns it."""
    kind, channels = type(block), channels_out(block)
    if not block.residual and kind is not nn.Block:
        raise ValueError(f"deepen: a plain {kind.__name__} cannot be the identity: a ReLU comes before its "
                         "convolutions, or its convolutions have fewer channels than its input")
    if kind is nn.Block:
        new: Any = nn.Block(channels, channels, residual=block.residual, by_hand=block.by_hand,
                            batch_norm=isinstance(block.bn1, nn.BatchNorm2d), rng=rng)
    elif kind in ACTIVATES_LAST:
        new = kind(channels, channels, rng=rng)
        new.by_hand = block.by_hand
    else:
        raise ValueError(f"deepen: expected blocks of the kinds {', '.join(k.__name__ for k in ACTIVATES_LAST)}, got "
                         f"{kind.__name__}")
    if block.residual:
        _silence(new)
    else:
        _pass(new)
    like = last_convolution(block).weight
    for t in new.state().values():  # to the dtype and the device of the block before it
        t.data = device.of(like.data).asarray(t.data, dtype=like.dtype)
    return new.train(block.training)


def _silence(block: Any) -> None:
    """Make the branch add 0: zero gamma and beta of its last BN or, without BN, the weights of its last convolution."""
    last = getattr(block, "last_norm", None) or last_convolution(block)
    for t in vars(last).values():
        if getattr(t, "requires_grad", False):
            t.data = np.zeros(t.shape, np.float32)


def _pass(block: Any) -> None:
    """Make both layers of a plain block return their input."""
    for conv, norm in (block.conv1, block.bn1), (block.conv2, block.bn2):
        conv.weight.data = dirac(conv.weight.shape)
        if isinstance(norm, nn.BatchNorm2d):  # gamma 1, beta 0 and mean 0 are its initial values
            norm.running_var.data = np.full(norm.running_var.shape, 1 - norm.eps, np.float32)
