"""This module treats a residual network as a sum over paths, and measures the gradient that each path length carries.

Unrolled, n residual blocks make 2^n paths from input to output: a path goes either through or past each block. Path
lengths are binomially distributed. Veit et al. 2016, section 5, find that gradients shrink exponentially with a path's
length, so that the gradient that training uses comes through relatively short paths. In a network of 54 blocks nearly
all of it comes through paths of 5 to 17 blocks, which are 0.45 % of all paths. Their measurement multiplies the norm
along a single path, from `path_gradients`, by the number of paths of its length. Norms do not add up where paths
cancel, so `gradients_by_length` computes the sums themselves.
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import device, nn, ops, tap
from ..tensor import Tensor
from . import common
from .blocks import activates_last, blocks, replaced, shortcut_output


def path_shares(blocks: int) -> list[float]:
    """Return the share of each length 0 ... blocks among all 2^blocks paths: comb(blocks, length) / 2^blocks.

    Raises ValueError if blocks < 0.
    """
    if blocks < 0:
        raise ValueError(f"path_shares: expected blocks >= 0, got {blocks}")
    return [math.comb(blocks, k) / 2 ** blocks for k in range(blocks + 1)]  # exact integers until the division


def path_gradient(model: nn.Module, images: Any, labels: Any, through: Iterable[str]) -> Any:
    """Return dL/d(images) along the one path through the blocks named in `through` and past all other blocks.

    images    (N, C, H, W)
    labels    (N,)

    Returns an array shaped like images.

    The forward pass runs the whole network, in eval mode. Only the gradient is limited to one path. The sum over all
    2^n paths is exactly the whole gradient, because every path uses the ReLU masks and BN constants of the same forward
    pass. The model is left unchanged.

    Raises ValueError for a name that no block has, or if a block has no shortcut.
    """
    named = _residual(model)
    through = set(through)
    unknown = sorted(through - set(named))
    if unknown:
        raise ValueError(f"path_gradient: no block named {', '.join(unknown)}; the blocks are {', '.join(named)}")
    x = Tensor(images, True)
    with replaced(model, {name: _one_way(block, name in through) for name, block in named.items()}):
        model.eval()
        ops.cross_entropy(model(x), labels).backward()
    return x.grad


class PathGradients(NamedTuple):
    """A PathGradients holds gradient norms along single paths of one network."""

    blocks: int                    # number of blocks in the network
    norms: dict[int, list[float]]  # {path length: Euclidean norms of the gradient at the input, one for each path}


def path_gradients(model: nn.Module, images: Any, labels: Any, lengths: Sequence[int], samples: int = 5, *,
                   rng: np.random.Generator, progress: common.Progress = iter) -> PathGradients:
    """Measure the norm of the gradient at the input along random paths: Veit et al. 2016, section 5 and Fig. 6b.

    images    (N, C, H, W)
    labels    (N,)
    lengths   path lengths, in blocks
    samples   the number of random paths of each length

    The model is left unchanged.

    Raises ValueError for a length below 0 or above the number of blocks, or if a block has no shortcut.
    """
    names = list(blocks(model))
    if any(not 0 <= k <= len(names) for k in lengths):
        raise ValueError(f"path_gradients: expected lengths from 0 to {len(names)}, the number of blocks, got "
                         f"{list(lengths)}")
    found: dict[int, list[float]] = {k: [] for k in lengths}
    for k in progress([k for k in lengths for _ in range(samples)]):
        through = rng.choice(names, k, replace=False).tolist()
        found[k].append(tap.norm(path_gradient(model, images, labels, through)))
    return PathGradients(len(names), found)


def gradients_by_length(model: nn.Module, images: Any, labels: Any) -> list[Any]:
    """Return [dL/d(images) along all paths through k blocks together, for k = 0 ... n] in a network of n blocks.

    images: (N, C, H, W)
    labels: (N,)
    Returns n + 1 arrays shaped like images. Their sum is the whole gradient.

    The result is exact, and does not need 2^n passes: backward keeps one gradient for each number k of blocks that the
    gradient has gone through. Every block splits the gradient of k into one that went past the block (still k) and one
    that went through the block (now k + 1). As in `path_gradient`, the forward pass runs the whole network in eval
    mode. The time is that of n + 1 times as many images; so is the memory, but only for one block at a time. The model
    is left unchanged.

    Raises ValueError if a block has no shortcut.
    """
    named = _residual(model)
    names = {id(block): name for name, block in named.items()}
    inputs: dict[str, Tensor] = {}
    ends: list[Tensor] = []

    def see(module: nn.Module, arguments: tuple[Tensor, ...], out: Tensor) -> None:
        if id(module) in names:
            inputs[names[id(module)]] = arguments[0]
            ends[:] = [out]

    with nn.untouched(model):
        model.eval()
        with nn.watched(see):
            loss = ops.cross_entropy(model(Tensor(images, True)), labels)
        found: list[Any] = []
        ends[0].on_grad(found.append)
        loss.backward()                    # found: the gradient at the last block's output, through 0 blocks so far
        for name, block in reversed(named.items()):
            x = inputs[name].data
            past, through = (_pull(_one_way(block, way), x, found) for way in (False, True))
            found = [past[0], *(a + b for a, b in zip(past[1:], through, strict=False)), through[-1]]
        first = next(iter(named))

        def stem(x: Tensor) -> Tensor:
            with nn.watched(see):
                model(x)
            return inputs[first]

        return _pull(stem, images, found)


def gradient_shares(parts: Sequence[Any]) -> list[float]:
    """Return the share of each path length in the whole gradient: <part, whole> / <whole, whole>.

    parts: what `gradients_by_length` returns; the whole gradient is their sum

    The shares sum to 1. Where paths cancel, a share can be below 0 or above 1.

    Raises ValueError if the whole gradient is 0.
    """
    arrays = [device.to(part, "cpu").astype(np.float64) for part in parts]
    whole = sum(arrays)
    square = float(np.sum(whole * whole))
    if not square:
        raise ValueError("gradient_shares: the whole gradient is 0")
    return [float((part * whole).sum()) / square for part in arrays]


def _pull(forward: Any, x: Any, gradients: list[Any]) -> list[Any]:
    """Return the gradient at x for each of these gradients at forward(x).

    In eval mode images do not affect each other, so one pass over copies of x is enough.
    """
    xp = device.of(x)
    t = Tensor(xp.concatenate([x] * len(gradients)), True)
    forward(t).backward(xp.concatenate(gradients))
    return xp.split(t.grad, len(gradients))


def _residual(model: nn.Module) -> dict[str, Any]:
    """Return the model's blocks. Raise ValueError if one has no shortcut."""
    named = blocks(model)
    plain = [name for name, b in named.items() if not getattr(b, "residual", True)]
    if plain:
        raise ValueError(f"path gradients: {plain[0]} has no shortcut; a plain network has a single path")
    return named


def _one_way(block: Any, through: bool) -> Any:
    """Return a forward with the block's output, but with the gradient of its branch alone, or of its shortcut alone.

    In v1 a ReLU follows the addition, and its mask m multiplies both terms (in v2, m is 1). So the block's gradient is
    that of m * branch + m * shortcut, and the branch's part is the gradient of y - m * shortcut.
    """
    forward = block.forward

    def run(x: Tensor) -> Tensor:
        y, skip = forward(x), shortcut_output(block, x)
        if activates_last(block):
            skip = skip * Tensor((y.data > 0).astype(y.dtype))
        return y - skip + skip.detach() if through else skip + (y - skip).detach()

    return run
