"""How far a run is: a bar in a terminal and in Jupyter, nothing anywhere else."""
from __future__ import annotations

import sys
from typing import Any, NamedTuple


class Passed(NamedTuple):
    """Where a run stands after a step."""

    images: int  # that have passed through the network in training
    total: int   # that will have passed at the end
    text: str    # the loss and what else a person wants to see


class Bar:
    """Draws what it is called with. The bar begins where the first call finds the run, and stays when it is closed.

    position: the line of the terminal, counted from 0, where several bars are drawn.
    """

    def __init__(self, name: str, position: int | None = None):
        self.name, self.position = name, position
        self.drawn: Any = None

    def __call__(self, passed: Passed) -> None:
        if self.drawn is None:
            from tqdm.auto import tqdm

            self.drawn = tqdm(total=passed.total, initial=passed.images, unit=" images", desc=self.name,
                              position=self.position, disable=None)  # None: only where a person looks
        self.drawn.set_postfix_str(passed.text, refresh=False)
        self.drawn.update(passed.images - self.drawn.n)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.drawn is not None:
            self.drawn.close()


def say(text: str) -> None:
    """Print a line at once, also into a file, and above the bars where there are some."""
    from tqdm.auto import tqdm

    tqdm.write(text)
    sys.stdout.flush()
