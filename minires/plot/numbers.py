"""This module writes numbers as text, short enough for a title and exact enough for a table."""
from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def number(value: float) -> str:
    """Return a number with three digits, such as "1.21", "14.1" or "3,730", or with an exponent, such as "2.8e4"."""
    if value == 0 or 0.001 <= abs(value) < 9999.5:
        rounded = float(f"{value:.3g}")
        return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:.3g}"
    if not math.isfinite(value):
        return str(value)
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def percent(value: float) -> str:
    """Return a percentage with one decimal: "12.3 %" for 12.34."""
    return f"{value:.1f} %"


def points(value: float, other: float) -> float:
    """Return value - other, in percentage points, from the rounded numbers, so that a reader's subtraction agrees."""
    return round(round(value, 1) - round(other, 1), 1)


def mean(values: Sequence[float]) -> float | None:
    """Return the arithmetic mean, or None for an empty list."""
    return math.fsum(values) / len(values) if len(values) else None


def written(value: object) -> str:
    """Return any value as a person writes it. A float has six digits, or all digits before the point, so
    31.819999999999997 is "31.82"."""
    if not isinstance(value, (float, np.floating)) or not math.isfinite(value):
        return str(value)
    x = float(value)
    if x == 0 or 1e-5 <= abs(x) < 1e15:
        return np.format_float_positional(float(f"{x:.6g}") if abs(x) < 1e5 else round(x), trim="-")
    return f"{x:.6g}"
