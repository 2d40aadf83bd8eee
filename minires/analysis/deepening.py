"""The construction argument of He et al. 2015, section 1, carried out.

A deeper network can always do what a shallower one does: take the shallow one's layers, and let the added ones be
identity mappings. So where the deeper one trains worse, it is not that a good solution does not exist: the optimiser
does not find it. Identity blocks, added at the end of every stage where the signal is >= 0 (behind a ReLU):

    plain       two 3x3 Dirac kernels, each with BN set to the identity in eval mode (mean 0, var 1 - eps, gamma 1,
                beta 0); relu(x) = x does the rest. Every weight of both layers has to come out just so.
    residual    gamma = beta = 0 in the last BN: the branch adds nothing, whatever its convolutions hold.
"""
from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np

from .. import device, nn
from ..evaluate import logits
from .blocks import ACTIVATES_LAST, blocks, channels_out, last_convolution


class Construction(NamedTuple):
    """A deeper network, and how far it is from computing the same."""

    model: Any           # the deeper network
    blocks: int          # how many it has more
    difference: float    # largest |difference of logits| on the images, in eval mode
    shallow: np.ndarray  # logits (N, classes) of the network itself, on the CPU
    deep: np.ndarray     # of the deeper one


def construction(model: Any, images: Any, extra: int, *, rng: np.random.Generator) -> Construction:
    """Append `extra` identity blocks to every stage of a copy of `model`, and compare the two on `images` (N, C, H, W).

    From depth 20 to 56: extra=6. A stage is a list of blocks, as `models.cifar` has them. `rng` draws the weights that
    do not matter. The model is left as it was.
    """
    deeper = deepen(model, extra, rng=rng)
    shallow, deep = (device.to(logits(net, images), "cpu") for net in (model, deeper))
    more = len(blocks(deeper)) - len(blocks(model))
    return Construction(deeper, more, float(abs(shallow - deep).max()), shallow, deep)


def deepen(model: Any, extra: int, *, rng: np.random.Generator) -> Any:
    """A copy of `model` with `extra` identity blocks at the end of every stage."""
    if extra < 0:
        raise ValueError(f"deepen: expected extra >= 0, got {extra}")
    deeper = copy.deepcopy(model)
    stages = [stage for _, m in deeper.modules() for stage in vars(m).values()
              if isinstance(stage, list) and stage and all(isinstance(b, nn.ResidualBlock) for b in stage)]
    if not stages:
        raise ValueError("deepen: expected a model with lists of blocks (models.cifar), found none")
    for stage in stages:
        stage += [_identity_behind(stage[-1], rng) for _ in range(extra)]
    return deeper


def dirac(shape: tuple[int, ...]) -> np.ndarray:
    """The kernel (C, C, k, k), k odd, with which a convolution of padding k // 2 returns its input."""
    if len(shape) != 4 or shape[0] != shape[1] or shape[2] % 2 == 0 or shape[3] % 2 == 0:
        raise ValueError(f"dirac: expected a shape (C, C, odd, odd), got {shape}")
    kernel = np.zeros(shape, np.float32)
    kernel[range(shape[0]), range(shape[0]), shape[2] // 2, shape[3] // 2] = 1
    return kernel


def _identity_behind(block: Any, rng: np.random.Generator) -> Any:
    """A block of this one's kind, for what it puts out, that computes the identity in eval mode."""
    kind, channels = type(block), channels_out(block)
    if not block.residual and kind is not nn.Block:
        raise ValueError(f"deepen: a plain {kind.__name__} cannot be the identity: a ReLU stands in front of its "
                         "convolutions, or they have fewer channels than its input")
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
    for t in new.state().values():  # of the dtype, and on the device, of the block it stands behind
        t.data = device.of(like.data).asarray(t.data, dtype=like.dtype)
    return new.train(block.training)


def _silence(block: Any) -> None:
    """Let the branch add 0: by gamma and beta of the BN that ends it, or by its last convolution where none does."""
    last = getattr(block, "last_norm", None) or last_convolution(block)
    for t in vars(last).values():
        if getattr(t, "requires_grad", False):
            t.data = np.zeros(t.shape, np.float32)


def _pass(block: Any) -> None:
    """Let both layers of a plain block return their input."""
    for conv, norm in (block.conv1, block.bn1), (block.conv2, block.bn2):
        conv.weight.data = dirac(conv.weight.shape)
        if isinstance(norm, nn.BatchNorm2d):  # gamma 1, beta 0 and mean 0 are what it starts with
            norm.running_var.data = np.full(norm.running_var.shape, 1 - norm.eps, np.float32)
