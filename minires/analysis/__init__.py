"""This package holds the experiments of the papers, one per file.

An experiment takes a model and arrays, and returns numbers or arrays. It leaves the model unchanged.
Experiments that take long have an argument `progress`: `progress=tqdm.auto.tqdm` shows a progress bar.
"""
from .common import follow
from .composition import after_each_block
from .computation import Graph, graph
from .convergence import steps_to
from .deepening import Construction, construction, deepen
from .deletion import Lesions, Shuffled, delete_k, deleted, lesions, swap_blocks
from .gradients import GradientFlow, gradient_flow, growth_per_layer
from .iterative import Refined, refinement
from .landscape import Line, Surface, curvature, loss_line, loss_surface, random_direction
from .layer_responses import responses, responses_closed_form, responses_from_parameters
from .paths import PathGradients, gradient_shares, gradients_by_length, path_gradient, path_gradients, path_shares
from .seeds import Interval, interval, paired
from .shattering import autocorrelation, gradient_correlation, gradient_on_a_line, input_gradients
from .signal import second_moments
from .similarity import Similarity, cka, cka_matrix
from .sums import negative_sums
from .units import Activation, activations
from .updates import update_ratios
from .vision import Field, Patch, exciting_patches, first_filters, receptive_fields

__all__ = ["Activation", "Construction", "Field", "GradientFlow", "Graph", "Interval", "Lesions", "Line", "Patch",
           "PathGradients", "Refined", "Shuffled", "Similarity", "Surface", "activations", "after_each_block",
           "autocorrelation", "cka", "cka_matrix", "construction", "curvature", "deepen", "delete_k", "deleted",
           "exciting_patches", "first_filters", "follow", "gradient_correlation", "gradient_flow", "gradient_on_a_line",
           "gradient_shares", "gradients_by_length", "graph", "growth_per_layer", "input_gradients", "interval",
           "lesions", "loss_line", "loss_surface", "negative_sums", "paired", "path_gradient", "path_gradients",
           "path_shares", "random_direction", "receptive_fields", "refinement", "responses", "responses_closed_form",
           "responses_from_parameters", "second_moments", "steps_to", "swap_blocks", "update_ratios"]
