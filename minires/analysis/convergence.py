"""This module measures how fast a training converges: how many steps it takes to a given loss."""
from __future__ import annotations

from collections.abc import Sequence


def steps_to(steps: Sequence[float], losses: Sequence[float], level: float) -> float | None:
    """Return the step at which a falling curve first reaches `level`, or None if it never does.

    steps: of the measurements, ascending
    losses: the loss at each of these steps

    Between two measurements the curve is taken as straight.

    Raises ValueError if there are not as many losses as steps, or no step.
    """
    if len(steps) != len(losses) or not steps:
        raise ValueError(f"steps_to: expected one loss for each of one or more steps, got {len(losses)} losses for "
                         f"{len(steps)} steps")
    for i, loss in enumerate(losses):
        if loss <= level:
            if i == 0:
                return float(steps[0])
            share = (losses[i - 1] - level) / (losses[i - 1] - loss)
            return float(steps[i - 1] + share * (steps[i] - steps[i - 1]))
    return None
