"""The bugs of A4, batch normalisation."""
from __future__ import annotations

from .bank import Bug

DX = "dx = inv * (g - mean_term - var_term)"
BUGS = [
    Bug(1, "the batch's statistics are treated as constants",
        {"a4.3": [[(DX, "dx = inv * g")]]}),
    Bug(2, "the variance is treated as a constant",
        {"a4.3": [[(DX, "dx = inv * (g - mean_term)")]]}),
]
