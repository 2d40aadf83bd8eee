"""Array arithmetic in forward/backward pairs: no graph and no modules in here.

`reference.py` defines every kernel in textbook form, for NumPy and CuPy arrays and any float dtype.
This file is the one place that chooses which implementation an array gets.
"""
from __future__ import annotations

from types import ModuleType
from typing import Any

from . import reference


def of(x: Any) -> ModuleType:
    """The module whose kernels suit `x`, by its device and dtype."""
    return reference
