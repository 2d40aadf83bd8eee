"""How far a training step moves each layer: ||new weight - old weight|| / ||old weight||.

A rule of thumb puts it near 1e-3. Much less in some layers says that they hardly learn at this learning rate.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .. import nn, tap
from . import common


def update_ratios(model: nn.Module, events: Iterable[Any], every: int = 1) -> dict[int, dict[str, float]]:
    """{step: {layer: ratio}} for every `every`-th step of a training, counted from 1.

    events: what `train.fit(model, ...)` yields; the training runs to its end. A layer whose weight is 0 before the step
    (a zero start) has no ratio at that step and is left out.
    """
    if every < 1:
        raise ValueError(f"update_ratios: expected every >= 1, got {every}")
    weights = {name: m.weight for name, m in common.weight_layers(model).items()}
    found: dict[int, dict[str, float]] = {}
    before = {name: w.data.copy() for name, w in weights.items()}
    for event in events:
        step = getattr(event, "step", None)
        if step is None:
            continue
        if step % every == 0:
            norms = {name: tap.norm(old) for name, old in before.items()}
            found[step] = {name: tap.norm(weights[name].data - before[name]) / n for name, n in norms.items() if n}
        if (step + 1) % every == 0:
            before = {name: w.data.copy() for name, w in weights.items()}
    return found
