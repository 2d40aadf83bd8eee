"""This package draws figures from the results of `analysis` and from the numbers of trainings.

It is the only package that imports matplotlib, so import it only when a figure is needed.

``plot.X`` draws what ``analysis.X`` returns, or ``{label: result}`` of several networks or of the steps of a training
(``analysis.follow``). Labels can be any text. Every function returns a Figure that shows itself in a notebook.
``png(figure)`` returns its bytes, and ``figure.savefig(path)`` writes it to a file. pyplot is not used, so there is no
global state and no window, and threads can draw at the same time.

`lines`, `ranges`, `bars`, `pictures`, `complex_plane` and `decision_regions` draw numbers that you have computed
yourself. `blocks`, `networks` and `function_classes` are diagrams, and `imagenet_errors` shows published results.

A title states a finding only if the numbers show it, and names the seed if there is one run of each network.
findings.py decides this for the networks of a run, and the report's sentences use the same functions.
"""
from .charts import Panel, bars, complex_plane, decision_regions, lines, pictures, ranges
from .computation import graph
from .convolution import grids, im2col
from .curves import training_curves
from .deletion import construction, delete_k, lesions, swap_blocks
from .depth import error_gaps, errors_by_depth
from .diagrams import blocks, function_classes, networks
from .features import cka_matrix, exciting_patches, first_filters, matrices, refinement
from .findings import (
    ERROR_POINTS,
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
    of_depth,
    plain_pair,
    residual_of,
    response_pairs,
    responses_smaller,
    skip_helps,
    with_skip,
)
from .flow import activations, gradient_flow, second_moments, update_ratios
from .heat import heat_maps
from .history import IMAGENET, imagenet_errors
from .landscape import loss_line, loss_surface
from .nets import error_curves, gradient_norms, responses
from .numbers import mean, number, percent, points, written
from .paths import gradients_by_length, path_gradients
from .scenes import boxed, detected, segmented
from .seeds import after_each_block, errors_by_blocks, mean_curves, negative_sums, seed_intervals
from .shattering import gradient_correlation, gradient_on_a_line
from .slider import Slider
from .style import COLOURS, DASHES, GREY, GRID, INK, MARKERS, Figure, png
from .training import live

__all__ = ["COLOURS", "DASHES", "ERROR_POINTS", "GREY", "GRID", "IMAGENET", "INK", "MARKERS", "Errors", "Figure",
           "Growth", "Net", "Nets", "Panel", "Slider", "activations", "after_each_block", "bars", "blocks", "boxed",
           "by_depth", "cka_matrix", "complex_plane", "construction", "decision_regions", "delete_k", "depth_hurts",
           "depths", "detected", "error_curves", "error_gaps", "errors_at_common_epoch", "errors_by_blocks",
           "errors_by_depth", "exciting_patches", "first_filters", "function_classes", "gradient_correlation",
           "gradient_flow", "gradient_norms", "gradient_on_a_line", "gradients_by_length", "graph", "grids", "growth",
           "heat_maps", "im2col", "imagenet_errors", "layers", "lesions", "lines", "live", "loss_line", "loss_surface",
           "matrices", "mean", "mean_curves", "negative_sums", "networks", "number", "of_depth", "path_gradients",
           "percent", "pictures", "plain_pair", "png", "points", "ranges", "refinement", "residual_of",
           "response_pairs", "responses", "responses_smaller", "second_moments", "seed_intervals", "segmented",
           "skip_helps", "swap_blocks", "training_curves", "update_ratios", "with_skip", "written"]
