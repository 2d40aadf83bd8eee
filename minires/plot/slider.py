"""This module shows a figure with a slider in a running notebook, and the figure at one value anywhere else."""
from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.figure

from .numbers import written
from .style import png


class Slider:
    """A notebook shows a Slider that a cell returns as the figure `draw(value)` for the value that the reader chooses.

    draw     a function from a value to a matplotlib Figure; it runs once per value, when the figure is first needed.
             What it reads must not change until then
    values   the slider's values, in order
    name     the values' name, written before the slider
    at       the index of the value shown first, by default the middle one

    The figure at `at` is also shown without ipywidgets, and where no kernel runs: on GitHub, or in print.

    Raises ValueError for no values, or for an index without a value.
    """

    def __init__(self, draw: Callable[[Any], matplotlib.figure.Figure], values: Sequence[Any], name: str = "",
                 at: int | None = None):
        self.draw, self.values, self.name = draw, list(values), name
        count = len(self.values)
        if not count:
            raise ValueError("plot.Slider: expected at least one value, got none")
        if at is not None and not -count <= at < count:
            raise ValueError(f"plot.Slider: at: expected the index of one of {count} values, got {at}")
        self.at = (count // 2 if at is None else at) % count
        self._drawn: dict[int, bytes] = {}

    def picture(self, at: int) -> bytes:
        """Return the PNG of the value with this index."""
        if at not in self._drawn:
            self._drawn[at] = png(self.draw(self.values[at]), dpi=100, colours=256)
        return self._drawn[at]

    def widget(self) -> Any:
        """Return the slider and its picture as an ipywidgets.VBox."""
        import ipywidgets

        options = [(written(value), i) for i, value in enumerate(self.values)]
        slider = ipywidgets.SelectionSlider(options=options, value=self.at, description=self.name,
                                            style={"description_width": "initial"}, layout={"width": "60%"})
        image = ipywidgets.Image(value=self.picture(self.at), format="png")
        slider.observe(lambda change: setattr(image, "value", self.picture(change["new"])), "value")
        return ipywidgets.VBox([slider, image])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """Return the forms of the slider. A notebook shows the richest form that it can show."""
        still = {"image/png": self.picture(self.at), "text/plain": f"{self.name} = {written(self.values[self.at])}"}
        if importlib.util.find_spec("ipywidgets") is None:
            return still
        # This is what ipywidgets 8 would return. ipywidgets 7, which Google Colab has, has no _repr_mimebundle_.
        view = {"version_major": 2, "version_minor": 0, "model_id": self.widget().model_id}
        return {"application/vnd.jupyter.widget-view+json": view, **still}
