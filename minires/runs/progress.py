"""Show the progress of a run, with a bar in a terminal and in Jupyter, and with nothing elsewhere."""
from __future__ import annotations

import sys
from typing import Any, NamedTuple

from ..files import streams


class Passed(NamedTuple):
    """Holds the progress of a run after a step."""

    images: int  # number of images trained on so far, each counted once per epoch
    total: int   # the same number at the end of the run
    text: str    # the loss and other numbers to show


class Bar:
    """Draws a progress bar. The bar starts at the progress of the first call, and stays visible after it is closed.

    position: the bar's line in the terminal, counted from 0, if several bars are drawn
    """

    def __init__(self, name: str, position: int | None = None):
        self.name, self.position = name, position
        self.drawn: Any = None

    def __call__(self, passed: Passed) -> None:
        if sys.stderr is not None:
            streams.attempt(lambda: self._draw(passed))  # the terminal may be gone

    def _draw(self, passed: Passed) -> None:
        if self.drawn is None:
            from tqdm.auto import tqdm

            self.drawn = tqdm(total=passed.total, initial=passed.images, unit=" images", desc=self.name,
                              position=self.position, disable=None)  # None: only in a terminal or in Jupyter
        self.drawn.set_postfix_str(passed.text, refresh=False)
        self.drawn.update(passed.images - self.drawn.n)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.drawn is not None:
            streams.attempt(self.drawn.close)


def say(text: str) -> None:
    """Print a line at once, even if the output goes to a file, and above the bars if there are any.

    The line is dropped if standard output cannot be written, because a run of many hours must not end for that.
    """
    from tqdm.auto import tqdm

    if sys.stdout is not None:
        streams.attempt(lambda: (tqdm.write(text), sys.stdout.flush()))
