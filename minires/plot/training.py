"""This module shows a training while it runs: a figure that is drawn again and again in a notebook, lines elsewhere."""
from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from .style import COLOURS, DASHES, GREY, INK, Figure, dress, legend_below, new_figure

POINTS = 400  # of the line of losses; more steps are averaged


def live(events: Iterable[Any], title: str = "", *, seconds: float | None = None,
         say: Callable[[str], None] | None = None, measured: str = "error (%)") -> Iterator[Any]:
    """Show loss and errors of a training while it runs, and yield its events unchanged.

    events   what `train.fit` yields
    title    of the figure; the last errors if not given
    seconds  the shortest time between two drawings, or between two lines about steps (default: 2, or 10 for lines)
    say      is called with each line instead of drawing; by default, lines are printed outside of notebooks
    measured what an Epoch's errors are, for the axis: with fit(measure=...) they are its results; "" for a training
             without epochs, such as `detection.fit`: only the losses are drawn

    For example:

        for event in plot.live(train.fit(net, learn, test, recipe, rng=0)):
            pass

    In a notebook a figure appears below the cell and is drawn again while the training runs: the loss of the steps and
    the errors after every epoch. It is drawn once more when the training ends, also by an error or Ctrl-C. Anywhere
    else a line is printed for every epoch, and between them for some steps.

    Raises TypeError for an event that is neither a `train.Step` nor a `train.Epoch`.
    """
    seen = Seen(measured)
    draw = None if say is not None or not in_notebook() else _display()
    say = say or print
    seconds = (10.0 if draw is None else 2.0) if seconds is None else seconds
    shown = time.monotonic()
    try:
        for event in events:
            seen.add(event)
            epoch = not hasattr(event, "loss")
            if epoch or time.monotonic() - shown >= seconds:
                if draw is None:
                    say(str(event))
                else:
                    draw(seen.figure(title))
                shown = time.monotonic()
            yield event
    finally:
        if draw is not None and seen.losses:
            draw(seen.figure(title))


def in_notebook() -> bool:
    """Return whether this code runs in a notebook, which can draw a figure again in its place."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None


def _display() -> Callable[[Figure], None]:
    """Return a function that shows a figure below the cell, in the place of the one before."""
    from IPython.display import display

    handle: Any = None

    def draw(figure: Figure) -> None:
        nonlocal handle
        if handle is None:
            handle = display(figure, display_id=True)  # type: ignore[no-untyped-call]
        else:
            handle.update(figure)

    return draw


class Seen:
    """Holds the events of a training so far: the loss of every step, and the errors after every epoch."""

    def __init__(self, measured: str = "error (%)") -> None:
        self.measured = measured
        self.steps: list[int] = []
        self.losses: list[float] = []
        self.epochs: list[Any] = []

    def add(self, event: Any) -> None:
        """Note a Step or an Epoch. Raises TypeError for anything else."""
        if hasattr(event, "loss") and hasattr(event, "step"):
            self.steps.append(event.step)
            self.losses.append(event.loss)
        elif hasattr(event, "train_error") and hasattr(event, "test_error"):
            self.epochs.append(event)
        else:
            raise TypeError(f"live: expected the events of train.fit, got {type(event).__name__}")

    def figure(self, title: str = "") -> Figure:
        """Return the figure of what has been seen: the loss by step (left), and the errors by epoch (right)."""
        figure = new_figure(title or (str(self.epochs[-1]) if self.epochs else "Training"), 3.8)
        if not self.measured:
            self._losses(figure.subplots())
            return figure
        left, right = figure.subplots(1, 2)
        self._losses(left)
        numbers = [epoch.epoch for epoch in self.epochs]
        for key, style in ("train_error", DASHES["plain"]), ("test_error", "solid"):
            label = {"train_error": "training error", "test_error": "test error"}[key]
            right.plot(numbers, [getattr(epoch, key) for epoch in self.epochs], color=COLOURS["resnet"][1],
                       linestyle=style, marker="o", markersize=4, label=label)
        errors = [e for epoch in self.epochs for e in (epoch.train_error, epoch.test_error)]
        if not any(value < 0 for value in errors):  # a measure of the caller's own may be
            right.set_ylim(bottom=0)
        right.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        dress(right, "", "epoch", self.measured, empty=not self.epochs)
        legend_below(figure, [right])
        return figure

    def _losses(self, axes: Axes) -> None:
        """Draw the loss of the steps."""
        each = -(-len(self.losses) // POINTS) or 1
        groups = [slice(i, i + each) for i in range(0, len(self.losses), each)]
        axes.plot([self.steps[g][-1] for g in groups], [float(np.mean(self.losses[g])) for g in groups],
                  color=GREY if each == 1 and len(groups) > 40 else INK, linewidth=1.0)
        if not any(value < 0 for value in self.losses):  # a loss of the caller's own may be
            axes.set_ylim(bottom=0)
        dress(axes, "", "step", "loss" if each == 1 else f"loss, mean of {each} steps", empty=not self.losses)
