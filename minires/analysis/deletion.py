"""Lesions: delete blocks of a trained network, or exchange them, and see what is left.

Veit, Wilber & Belongie 2016, "Residual Networks Behave Like Ensembles of Relatively Shallow Networks", sections 4.1 to
4.3. A deleted block is replaced by what its shortcut does (the identity, or where shapes change its projection or
option A); a plain network has no shortcut, and is given the one that a residual network would have there.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from .. import nn, ops
from ..evaluate import error
from . import common
from .blocks import activates_last, blocks, changes_shape, replaced, same_shape, shortcut_output


class Lesions(NamedTuple):
    """Errors in percent, in eval mode, of one network with all its blocks and without each of them."""

    whole: float                         # with nothing deleted
    without: dict[str, float]            # {name of a block: error without it}, in layer order
    changes_shape: tuple[str, ...] = ()  # the blocks whose output has another shape than their input


def lesions(model: nn.Module, images: Any, labels: Any, progress: common.Progress = iter) -> Lesions:
    """Delete one block at a time and measure the error.

    images (N, C, H, W), labels (N,). The model is left as it was. progress=tqdm.auto.tqdm shows a bar.
    """
    whole, without = error(model, images, labels), {}
    named = blocks(model)
    for name in progress(list(named)):
        with deleted(model, [name]):
            without[name] = error(model, images, labels)
    return Lesions(whole, without, tuple(name for name, block in named.items() if changes_shape(block)))


def delete_k(model: nn.Module, images: Any, labels: Any, counts: Sequence[int], trials: int = 5, *,
             rng: np.random.Generator, progress: common.Progress = iter) -> dict[int, list[float]]:
    """{k: errors without k random blocks, one for each trial}, in percent. Veit et al. 2016, section 4.2."""
    names = list(blocks(model))
    if any(not 0 <= k <= len(names) for k in counts):
        raise ValueError(f"delete_k: expected counts between 0 and the {len(names)} blocks, got {list(counts)}")
    found: dict[int, list[float]] = {k: [] for k in counts}
    for k in progress([k for k in counts for _ in range(trials)]):
        with deleted(model, rng.choice(names, k, replace=False).tolist()):
            found[k].append(error(model, images, labels))
    return found


class Shuffled(NamedTuple):
    """One network with its blocks in another order."""

    correlation: float  # Kendall's rank correlation of the new order with the old: 1 as it was, -1 reversed
    error: float        # percent


def swap_blocks(model: nn.Module, images: Any, labels: Any, swaps: Sequence[int], *, rng: np.random.Generator,
                progress: common.Progress = iter) -> list[Shuffled]:
    """Error after exchanging so many random pairs of blocks of one shape. Veit et al. 2016, section 4.3.

    Blocks that change the shape stay where they are.
    """
    named = blocks(model)
    groups = [g for g in same_shape(named) if len(g) > 1]
    if not groups:
        raise ValueError("swap_blocks: this model has no two blocks of one shape")
    pairs = [pair for g in groups for pair in combinations(g, 2)]
    order, found = list(named), []
    for count in progress(list(swaps)):
        place = dict(zip(order, order, strict=True))  # which block runs at which place
        for i in rng.integers(len(pairs), size=count):
            a, b = pairs[i]
            place[a], place[b] = place[b], place[a]
        with replaced(model, {at: named[name].forward for at, name in place.items()}):
            rank = {name: i for i, name in enumerate(order)}
            found.append(Shuffled(kendall([rank[place[name]] for name in order]), error(model, images, labels)))
    return found


def kendall(ranks: Sequence[int]) -> float:
    """Kendall's rank correlation of a permutation with the sorted order: (pairs in order - pairs out of it) / pairs."""
    pairs = list(combinations(ranks, 2))
    return sum(1 if a < b else -1 for a, b in pairs) / len(pairs)


@contextmanager
def deleted(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Inside, the blocks of these names are reduced to their shortcuts (with the ReLU that follows in v1)."""
    named = blocks(model)
    missing = [name for name in names if name not in named]
    if missing:
        raise ValueError(f"deleted: no block named {', '.join(missing)}; there are {', '.join(named)}")

    def without(block):
        return lambda x: ops.relu(shortcut_output(block, x)) if activates_last(block) else shortcut_output(block, x)

    with replaced(model, {name: without(named[name]) for name in names}):
        yield
