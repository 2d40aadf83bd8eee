"""Figures from plain numbers. The only room that imports matplotlib: import it only when a figure is wanted.

Every function returns a Figure that shows itself in a notebook; ``png(figure)`` gives its bytes and
``figure.savefig(path)`` writes it. pyplot is not used: no global state, no window, safe in threads.

A title states a finding only where the numbers show it. findings.py decides for the networks of a run, and the
report's sentences use the same functions.
"""
from .findings import (
 Errors,
 Growth,
 Net,
 Nets,
 by_depth,
 depth_hurts,
 depths,
 errors_at_common_epoch,
 growth,
 layers,
 mean,
 number,
 percent,
 plain_pair,
 points,
 pretty,
 response_pairs,
 responses_smaller,
 skip_repairs,
 split_name,
)
from .runs import training_curves
from .style import COLOURS, DASHES, GREY, GRID, INK, MARKERS, Figure, png
from .training import error_curves, gradient_norms, responses

__all__ = [
 "COLOURS",
 "DASHES",
 "GREY",
 "GRID",
 "INK",
 "MARKERS",
 "Errors",
 "Figure",
 "Growth",
 "Net",
 "Nets",
 "by_depth",
 "depth_hurts",
 "depths",
 "error_curves",
 "errors_at_common_epoch",
 "gradient_norms",
 "growth",
 "layers",
 "mean",
 "number",
 "percent",
 "plain_pair",
 "png",
 "points",
 "pretty",
 "response_pairs",
 "responses",
 "responses_smaller",
 "skip_repairs",
 "split_name",
 "training_curves",
]
