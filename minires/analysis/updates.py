"""This module measures how far a training step moves each layer: ||new weight - old weight|| / ||old weight||.

By a rule of thumb the ratio is near 1e-3. A layer with a much smaller ratio hardly learns at this learning rate.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .. import nn, tap
from . import common


def update_ratios(model: nn.Module, events: Iterable[Any], every: int = 1) -> dict[int, dict[str, float]]:
    """Return {step: {layer: ratio}} for every `every`-th step of a training, counted from 1.

    events: what `train.fit(model, ...)` yields; all of it is consumed, so the training runs to its end

    A layer whose weight is 0 before a step, such as one initialised to 0, has no ratio at that step and is left out.

    Raises ValueError if every < 1.
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
