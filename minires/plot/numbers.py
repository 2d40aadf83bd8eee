"""Numbers as text: short enough for a title, exact enough for a table."""
from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def number(value: float) -> str:
    """Three digits: "1.21", "14.1", "3,730", and "2.8e4" where that is shorter to read."""
    if value == 0 or 0.001 <= abs(value) < 9999.5:
        rounded = float(f"{value:.3g}")
        return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:.3g}"
    if not math.isfinite(value):
        return str(value)
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def percent(value: float) -> str:
    """12.34 -> "12.3 %"."""
    return f"{value:.1f} %"


def points(value: float, other: float) -> float:
    """value - other in percentage points, of the rounded numbers, so that a reader's subtraction agrees."""
    return round(round(value, 1) - round(other, 1), 1)


def mean(values: Sequence[float]) -> float | None:
    """Arithmetic mean, None for an empty list."""
    return math.fsum(values) / len(values) if len(values) else None


def written(value: object) -> str:
    """Any value as a person writes it: a float with six digits, or all before the point, so "31.82" for
    31.819999999999997."""
    if not isinstance(value, (float, np.floating)) or not math.isfinite(value):
        return str(value)
    x = float(value)
    if x == 0 or 1e-5 <= abs(x) < 1e15:
        return np.format_float_positional(float(f"{x:.6g}") if abs(x) < 1e5 else round(x), trim="-")
    return f"{x:.6g}"
