"""A residual network as a sum over paths: how many there are of each length, and how much gradient each length carries.

Unrolled, n residual blocks make 2^n paths from input to output: each block is either gone through or skipped. Path
lengths are binomial. Veit et al. 2016, section 5: gradients shrink exponentially with a path's length, so what training
sees comes through relatively short ones; in a network of 54 blocks nearly all of it through paths of 5 to 17 blocks,
which are 0.45 % of all paths. `path_gradients` is their measurement: norms of single paths, times how many there are.
Norms do not add up where paths cancel, so `gradients_by_length` has the sums themselves.
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
    """Of all 2^blocks paths the share of each length 0 ... blocks: comb(blocks, length) / 2^blocks."""
    if blocks < 0:
        raise ValueError(f"path_shares: expected blocks >= 0, got {blocks}")
    return [math.comb(blocks, k) / 2 ** blocks for k in range(blocks + 1)]  # exact integers, divided once


def path_gradient(model: nn.Module, images: Any, labels: Any, through: Iterable[str]) -> Any:
    """dL/d(images) along the one path that goes through the blocks named in `through` and past all others.

    The forward pass is the whole network's, in eval mode; only the gradient is sent along one path. The sum over all
    2^n paths is the whole gradient, exactly: ReLU's mask and BN's constants are those of the forward pass.
    """
    named = _residual(model)
    through = set(through)
    unknown = sorted(through - set(named))
    if unknown:
        raise ValueError(f"path_gradient: no block named {', '.join(unknown)}; there are {', '.join(named)}")
    x = Tensor(images, True)
    with replaced(model, {name: _one_way(block, name in through) for name, block in named.items()}):
        model.eval()
        ops.cross_entropy(model(x), labels).backward()
    return x.grad


class PathGradients(NamedTuple):
    """The gradient along single paths of one network."""

    blocks: int                    # how many the network has
    norms: dict[int, list[float]]  # {path length: Euclidean norms of the gradient at the input, one for each path}


def path_gradients(model: nn.Module, images: Any, labels: Any, lengths: Sequence[int], samples: int = 5, *,
                   rng: np.random.Generator, progress: common.Progress = iter) -> PathGradients:
    """Norms of the gradient at the input along `samples` random paths of each of these lengths.

    images (N, C, H, W), labels (N,). The model is left as it was. Veit et al. 2016, section 5 and Fig. 6b.
    """
    names = list(blocks(model))
    if any(not 0 <= k <= len(names) for k in lengths):
        raise ValueError(f"path_gradients: expected lengths between 0 and the {len(names)} blocks, got {list(lengths)}")
    found: dict[int, list[float]] = {k: [] for k in lengths}
    for k in progress([k for k in lengths for _ in range(samples)]):
        through = rng.choice(names, k, replace=False).tolist()
        found[k].append(tap.norm(path_gradient(model, images, labels, through)))
    return PathGradients(len(names), found)


def gradients_by_length(model: nn.Module, images: Any, labels: Any) -> list[Any]:
    """[dL/d(images) along all paths through k blocks together, for k = 0 ... n], arrays shaped as images (N, C, H, W).

    Their sum is the whole gradient. Exact, and without visiting 2^n paths: on its way back the gradient is kept apart
    by the number of blocks it has gone through, and every block turns the sum over k into those over k (past it) and
    k + 1 (through it). As in `path_gradient` the forward pass is the whole network's, in eval mode. Takes the time, and
    for one block at a time the memory, of n + 1 times as many images; the model is left as it was.
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
        loss.backward()                    # found: what arrives behind the last block, through none of them yet
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
    """The share of each path length in the whole gradient: <part, whole> / <whole, whole>, the whole being their sum.

    parts: what `gradients_by_length` returns. The shares add up to 1; where paths cancel, one may be < 0 or > 1.
    ValueError where the whole gradient is 0.
    """
    arrays = [device.to(part, "cpu").astype(np.float64) for part in parts]
    whole = sum(arrays)
    square = float(np.sum(whole * whole))
    if not square:
        raise ValueError("gradient_shares: the whole gradient is 0")
    return [float((part * whole).sum()) / square for part in arrays]


def _pull(forward: Any, x: Any, gradients: list[Any]) -> list[Any]:
    """The gradient at x for each of these gradients at forward(x); in eval mode images know nothing of each other, so
    one pass over copies of x does for all."""
    xp = device.of(x)
    t = Tensor(xp.concatenate([x] * len(gradients)), True)
    forward(t).backward(xp.concatenate(gradients))
    return xp.split(t.grad, len(gradients))


def _residual(model: nn.Module) -> dict[str, Any]:
    """The model's blocks; ValueError if one has no shortcut."""
    named = blocks(model)
    plain = [name for name, b in named.items() if not getattr(b, "residual", True)]
    if plain:
        raise ValueError(f"path gradients: {plain[0]} has no shortcut; a plain network has a single path")
    return named


def _one_way(block: Any, through: bool) -> Any:
    """The block's forward with the same output, and the gradient of the branch alone, or of the shortcut alone.

    Behind the addition stands v1's ReLU: its mask multiplies both terms. With m that mask (1 in v2) the block's
    gradient is that of m * branch + m * shortcut; y - m * shortcut is left of y when the shortcut's share is taken off.
    """
    forward = block.forward

    def run(x: Tensor) -> Tensor:
        y, skip = forward(x), shortcut_output(block, x)
        if activates_last(block):
            skip = skip * Tensor((y.data > 0).astype(y.dtype))
        return y - skip + skip.detach() if through else skip + (y - skip).detach()

    return run
