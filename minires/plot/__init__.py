"""Figures from plain numbers. The only room that imports matplotlib: import it only when a figure is wanted.

Every function returns a Figure that shows itself in a notebook; ``png(figure)`` gives its bytes and
``figure.savefig(path)`` writes it. pyplot is not used: no global state, no window, safe in threads.

A title states a finding only where the numbers show it. findings.py decides for the networks of a run, and the
report's sentences use the same functions.
"""
from .computation import graph
from .convolution import grids, im2col
from .curves import training_curves
from .deletion import construction, deleted_blocks, gradient_by_length, lesions, paths, swapped_blocks
from .depth import error_gaps, errors_by_depth
from .features import cka, filters, matrices, patches, refinement
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
from .flow import activation_histograms, gradient_flow, layer_responses, signal_growth, update_ratios
from .heat import heat_maps
from .landscape import loss_line, loss_surface
from .nets import error_curves, gradient_norms, responses
from .shattering import gradient_correlation, gradients_on_a_line
from .slider import Slider
from .style import COLOURS, DASHES, GREY, GRID, INK, MARKERS, Figure, png

__all__ = ["COLOURS", "DASHES", "GREY", "GRID", "INK", "MARKERS", "Errors", "Figure", "Growth", "Net", "Nets", "Slider",
           "activation_histograms", "by_depth", "cka", "construction", "deleted_blocks", "depth_hurts", "depths",
           "error_curves", "error_gaps", "errors_at_common_epoch", "errors_by_depth", "filters", "gradient_by_length",
           "gradient_correlation", "gradient_flow", "gradient_norms", "gradients_on_a_line", "graph", "grids", "growth",
           "heat_maps", "im2col", "layer_responses", "layers", "lesions", "loss_line", "loss_surface", "matrices",
           "mean", "number", "patches", "paths", "percent", "plain_pair", "png", "points", "pretty", "refinement",
           "response_pairs", "responses", "responses_smaller", "signal_growth", "skip_repairs", "split_name",
           "swapped_blocks", "training_curves", "update_ratios"]
