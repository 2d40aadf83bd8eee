"""This module deletes or exchanges blocks of a trained network and measures the error.

Source: Veit, Wilber & Belongie 2016, "Residual Networks Behave Like Ensembles of Relatively Shallow Networks", sections
4.1 to 4.3. A deleted block is replaced by its shortcut: the identity or, where the shape changes, the projection or
option A. A plain block has no shortcut, so it is replaced by the shortcut that a residual network would have there.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from .. import nn, ops
from ..evaluate import error
from ..tensor import Tensor
from . import common
from .blocks import activates_last, blocks, changes_shape, replaced, same_shape, shortcut_output


class Lesions(NamedTuple):
    """A Lesions holds one network's errors in percent, in eval mode: with all its blocks, and without each block."""

    whole: float                         # with all blocks
    without: dict[str, float]            # {name of a block: error without it}, in layer order
    changes_shape: tuple[str, ...] = ()  # names of the blocks whose output and input differ in shape


def lesions(model: nn.Module, images: Any, labels: Any, progress: common.Progress = iter) -> Lesions:
    """Delete one block at a time and measure the error.

    images     (N, C, H, W)
    labels     (N,)
    progress   tqdm.auto.tqdm shows a progress bar

    The model is left unchanged.

    Raises ValueError if the model has no block, or a block of unknown structure.
    """
    whole, without = error(model, images, labels), {}
    named = blocks(model)
    for name in progress(list(named)):
        with deleted(model, [name]):
            without[name] = error(model, images, labels)
    return Lesions(whole, without, tuple(name for name, block in named.items() if changes_shape(block)))


def delete_k(model: nn.Module, images: Any, labels: Any, counts: Sequence[int], trials: int = 5, *,
             rng: np.random.Generator, progress: common.Progress = iter) -> dict[int, list[float]]:
    """Delete k random blocks at a time and measure the error: Veit et al. 2016, section 4.2.

    images   (N, C, H, W)
    labels   (N,)
    counts   the values of k
    trials   the number of random choices for each k

    Returns {k: errors in percent, one for each trial}. The model is left unchanged.

    Raises ValueError for a count below 0 or above the number of blocks.
    """
    names = list(blocks(model))
    if any(not 0 <= k <= len(names) for k in counts):
        raise ValueError(f"delete_k: expected counts from 0 to {len(names)}, the number of blocks, got {list(counts)}")
    found: dict[int, list[float]] = {k: [] for k in counts}
    for k in progress([k for k in counts for _ in range(trials)]):
        with deleted(model, rng.choice(names, k, replace=False).tolist()):
            found[k].append(error(model, images, labels))
    return found


class Shuffled(NamedTuple):
    """A Shuffled describes one network with its blocks in another order."""

    correlation: float  # Kendall's rank correlation of the new order with the old: 1 unchanged, -1 reversed
    error: float        # percent


def swap_blocks(model: nn.Module, images: Any, labels: Any, swaps: Sequence[int], *, rng: np.random.Generator,
                progress: common.Progress = iter) -> list[Shuffled]:
    """Exchange random pairs of blocks of one shape and measure the error: Veit et al. 2016, section 4.3.

    images   (N, C, H, W)
    labels   (N,)
    swaps    the number of exchanges before each measurement; each measurement starts from the original order

    Returns one Shuffled for each number in `swaps`. Blocks that change the shape stay in their places. The model is
    left unchanged.

    Raises ValueError if the model has no two blocks of one shape.
    """
    named = blocks(model)
    groups = [g for g in same_shape(named) if len(g) > 1]
    if not groups:
        raise ValueError("swap_blocks: this model has no two blocks of one shape")
    pairs = [pair for g in groups for pair in combinations(g, 2)]
    order, found = list(named), []
    for count in progress(list(swaps)):
        place = dict(zip(order, order, strict=True))  # {place: name of the block that runs there}
        for i in rng.integers(len(pairs), size=int(count)):
            a, b = pairs[i]
            place[a], place[b] = place[b], place[a]
        with replaced(model, {at: named[name].forward for at, name in place.items()}):
            rank = {name: i for i, name in enumerate(order)}
            found.append(Shuffled(kendall([rank[place[name]] for name in order]), error(model, images, labels)))
    return found


def kendall(ranks: Sequence[int]) -> float:
    """Return Kendall's rank correlation of a permutation with the sorted order.

    It is (pairs in order - pairs out of order) / pairs.
    """
    pairs = list(combinations(ranks, 2))
    return sum(1 if a < b else -1 for a, b in pairs) / len(pairs)


@contextmanager
def deleted(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Reduce the blocks with these names to their shortcuts while the context lasts.

    In v1 the ReLU that follows the addition stays.

    Raises ValueError for a name that no block has.
    """
    named = blocks(model)
    missing = [name for name in names if name not in named]
    if missing:
        raise ValueError(f"deleted: no block named {', '.join(missing)}; the blocks are {', '.join(named)}")

    def without(block: Any) -> Callable[[Tensor], Tensor]:
        return lambda x: ops.relu(shortcut_output(block, x)) if activates_last(block) else shortcut_output(block, x)

    with replaced(model, {name: without(named[name]) for name in names}):
        yield
