"""Choose which images form the batch of each step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def epoch_rng(seed: int, epoch: int, *within: int) -> np.random.Generator:
    """Return the generator of one epoch.

        for rows in batches(n, batch_size, rng=epoch_rng(seed, epoch)): ...

    The generator depends only on seed and epoch, so that training resumed at this epoch gives the same bits.
    ``within`` numbers a place in the epoch, such as a batch, which then gets its own generator.
    The random numbers are independent of those of other epochs and of ``default_rng(seed)``, which may have drawn the
    weights.

    Raises ValueError for negative numbers.
    """
    if seed < 0 or epoch < 0:
        raise ValueError(f"epoch_rng: expected a seed and an epoch from 0, got {seed} and {epoch}")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch, *within)))


def batches(n: int, batch_size: int, *, rng: np.random.Generator, drop_last: bool = False) -> Iterator[np.ndarray]:
    """Return the batches of one epoch: the indices 0 ... n-1 in random order, each once.

    Each batch is an integer array of shape (batch_size,). If ``batch_size`` does not divide ``n``, the last batch is
    shorter, or left out with ``drop_last``. The order is drawn from ``rng`` at the call, so the same generator state
    gives the same epoch.

    Raises ValueError for sizes below 1, and if ``drop_last`` would leave no batch.
    Raises TypeError if ``rng`` is not a NumPy Generator.
    """
    if n < 1:
        raise ValueError(f"batches: n: expected at least 1 image, got {n}")
    if batch_size < 1:
        raise ValueError(f"batches: batch_size: expected at least 1, got {batch_size}")
    if drop_last and batch_size > n:
        raise ValueError(f"batches: batch_size: expected at most n = {n} with drop_last, got {batch_size}")
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"batches: rng: expected a numpy.random.Generator, got {type(rng).__name__}")
    order = rng.permutation(n)
    stop = n - n % batch_size if drop_last else n
    return (order[start : start + batch_size] for start in range(0, stop, batch_size))
