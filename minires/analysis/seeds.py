"""This module says what several seeds show together: the mean of one number for each seed, and its uncertainty.

The interval is Student's: it contains the mean of all possible seeds in 95 % of such experiments, if the numbers are
normally distributed.
"""
from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

# The 97.5 % quantile of Student's t distribution with 1, 2, ... 30 degrees of freedom.
QUANTILES = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604,
             2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555,
             2.0518, 2.0484, 2.0452, 2.0423)


class Interval(NamedTuple):
    """An Interval holds the mean over seeds and the 95 % interval of this mean."""

    mean: float
    low: float   # nan for a single seed, like `high`
    high: float
    seeds: int

    def __str__(self) -> str:
        if self.seeds < 2:
            return f"{self.mean:.2f} (1 seed)"
        return f"{self.mean:.2f} ({self.low:.2f} to {self.high:.2f}, {self.seeds} seeds)"


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of one number for each seed, with Student's 95 % interval.

    Raises ValueError if there is no value, or if a value is not finite.
    """
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"interval: expected one finite number or more, got {list(values)}")
    count, mean = len(values), statistics.fmean(values)
    if count < 2:
        return Interval(mean, math.nan, math.nan, 1)
    half = quantile(count - 1) * statistics.stdev(values) / math.sqrt(count)
    return Interval(mean, mean - half, mean + half, count)


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> Interval:
    """Return the mean of a - b over the seeds that both have, with Student's 95 % interval.

    a, b: {seed: number}

    Two networks with one seed see the same images in the same order, so their difference varies less than each of
    them.

    Raises ValueError if there is no common seed.
    """
    common = sorted(a.keys() & b.keys())
    if not common:
        raise ValueError(f"paired: expected a common seed, got {sorted(a)} and {sorted(b)}")
    return interval([a[seed] - b[seed] for seed in common])


def quantile(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t distribution.

    freedom: degrees of freedom, the number of values minus 1

    Up to 30 degrees it is read from a table, above by an expansion in 1 / freedom around the normal quantile, whose
    error is then below 0.0002.

    Raises ValueError if freedom < 1.
    """
    if freedom < 1:
        raise ValueError(f"quantile: expected 1 degree of freedom or more, got {freedom}")
    if freedom <= len(QUANTILES):
        return QUANTILES[freedom - 1]
    z = statistics.NormalDist().inv_cdf(0.975)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
