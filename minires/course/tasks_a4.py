"""The tasks of A4, batch normalisation."""
from __future__ import annotations

from typing import Any

import numpy as np

from .task import Case, Task, robust

Rng = np.random.Generator
Inputs = dict[str, Any]
VISIBLE = ((3, 4, 2, 5), 1e-2), ((2, 3, 4, 3), 0.1), ((7, 3), 0.05)
HIDDEN = ((5, 2, 3, 1), 0.02), ((4, 3, 1, 1), 0.05), ((2, 5, 3, 6), 0.03), ((9, 4), 0.2)
FAR, HUGE = 3e7, 3.0  # a channel's mean, when its spread is HUGE: the difference of two squares loses the variance


def arrays(rng: Rng, shape: tuple[int, ...], eps: float) -> Inputs:
    """Draw the inputs of a forward and a backward pass."""
    channels = shape[1]
    return {"x": rng.standard_normal(shape) * 1.7 + rng.uniform(0.5, 1.5, (channels, *[1] * (len(shape) - 2))),
            "gamma": rng.uniform(0.5, 2, channels) * rng.choice([-1, 1], channels),
            "beta": rng.standard_normal(channels), "eps": eps, "dy": rng.standard_normal(shape) + 0.5}


def forward(rng: Rng, shape: tuple[int, ...], eps: float) -> Inputs:
    """Draw the inputs of a forward pass."""
    found = arrays(rng, shape, eps)
    del found["dy"]
    return found


def staged(rng: Rng, shape: tuple[int, ...], eps: float) -> Inputs:
    """Draw the inputs of batch_norm_staged."""
    found = arrays(rng, shape, eps)
    return {name: found[name] for name in ("dy", "x", "gamma", "eps")}


def constant(inputs: Inputs) -> Inputs:
    """Make the first channel constant."""
    x = inputs["x"].copy()
    x[:, 0] = 0.3
    return {**inputs, "x": x}


def far(inputs: Inputs) -> Inputs:
    """Put the channels far from zero, so that only differences from the mean give the variance."""
    x = inputs["x"]
    return {**inputs, "x": HUGE * (x - x.mean()) + FAR}


def shaped(draw: Any, shapes: Any, driver: str = "") -> Any:
    """Return a function that draws a case for each shape."""
    return lambda rng: [Case(f"x of shape {shape}", draw(rng, shape, eps), driver) for shape, eps in shapes]


def forward_hidden(rng: Rng) -> list[Case]:
    """Other extents, a constant channel, a channel far from zero, float32, memory with gaps."""
    return [*shaped(forward, HIDDEN)(rng),
            Case("a constant channel", constant(forward(rng, (3, 2, 2, 4), 0.01))),
            Case("channels far from zero", far(forward(rng, (4, 3, 5, 2), 0.01))),
            Case("float32", forward(rng, (3, 2, 4, 5), 0.01), "forward.float32"),
            Case("an input that is not contiguous in memory", forward(rng, (3, 2, 4, 5), 0.01), "forward.strided")]


def staged_hidden(rng: Rng) -> list[Case]:
    """Other extents, a constant channel, float32."""
    return [*shaped(staged, HIDDEN)(rng),
            Case("a constant channel", constant(staged(rng, (3, 2, 2, 4), 0.05))),
            Case("float32", staged(rng, (3, 2, 4, 5), 0.05), "staged_float32")]


def backward_hidden(rng: Rng) -> list[Case]:
    """Other extents, a constant channel, and good manners."""
    return [*shaped(arrays, HIDDEN)(rng),
            Case("a constant channel", constant(arrays(rng, (3, 2, 2, 4), 0.05))),
            *robust("batch_norm", arrays(rng, (4, 3, 3, 2), 0.05))]


def statistics(rng: Rng, channels: int, momentum: float, count: int) -> Inputs:
    """Draw the inputs of running."""
    return {"mean": rng.standard_normal(channels), "var": rng.uniform(0.5, 2, channels),
            "batch_mean": rng.standard_normal(channels) + 2, "batch_var": rng.uniform(2, 4, channels),
            "momentum": momentum, "count": count}


def running_visible(rng: Rng) -> list[Case]:
    """Small and large counts, two momentums, and a count of one."""
    return [Case("momentum 0.1, 6 values per channel", statistics(rng, 3, 0.1, 6)),
            Case("momentum 0.3, 20 values per channel", statistics(rng, 4, 0.3, 20)),
            Case("one value per channel", statistics(rng, 2, 0.1, 1), "running_refused")]


def running_hidden(rng: Rng) -> list[Case]:
    """Other numbers, the momentum 1, float32."""
    return [Case("momentum 0.02, 2 values per channel", statistics(rng, 5, 0.02, 2)),
            Case("momentum 1, 4 values per channel", statistics(rng, 3, 1.0, 4)),
            Case("momentum 1: the arrays of the batch are used again", statistics(rng, 3, 1.0, 5), "running_apart"),
            Case("float32", statistics(rng, 4, 0.1, 9), "running_float32"),
            Case("one value per channel", statistics(rng, 3, 0.2, 1), "running_refused")]


def evaluated(rng: Rng, shape: tuple[int, ...], eps: float) -> Inputs:
    """Draw the inputs of a forward and a backward pass in eval mode: the statistics are not the batch's."""
    found = arrays(rng, shape, eps)
    return {"x": found["x"], "gamma": found["gamma"], "beta": found["beta"], "mean": rng.standard_normal(shape[1]),
            "var": rng.uniform(0.3, 3, shape[1]), "eps": eps, "dy": found["dy"]}


def evaluated_hidden(rng: Rng) -> list[Case]:
    """Other extents, one value per channel, and good manners."""
    return [*shaped(evaluated, HIDDEN)(rng), Case("a batch of one vector", evaluated(rng, (1, 4), 0.05)),
            *robust("batch_norm_eval", evaluated(rng, (4, 3, 3, 2), 0.05))]


def layer(rng: Rng, modes: str, shapes: list[tuple[int, ...]], eps: float, momentum: float) -> Inputs:
    """Draw batches for one layer. modes: one letter for each batch, t for train and e for eval mode."""
    channels = shapes[0][1]
    return {"modes": [{"t": "train", "e": "eval"}[letter] for letter in modes],
            "xs": [rng.standard_normal(shape) * 1.5 + 1 for shape in shapes],
            "dys": [rng.standard_normal(shape) + 0.5 for shape in shapes],
            "weight": rng.uniform(0.5, 2, channels), "bias": rng.standard_normal(channels), "eps": eps,
            "momentum": momentum}


def loaded(rng: Rng, inputs: Inputs) -> Inputs:
    """Add running statistics from elsewhere. At its start a layer has the variance 1, which equals its root."""
    channels = len(inputs["weight"])
    return {**inputs, "running_mean": rng.standard_normal(channels), "running_var": rng.uniform(0.3, 3, channels)}


def layer_visible(rng: Rng) -> list[Case]:
    """The state, one batch in train mode, and a sequence of modes."""
    return [Case("the names in state()", {"channels": 3}, "layer_state"),
            Case("one batch", layer(rng, "t", [(3, 4, 2, 5)], 0.02, 0.1)),
            Case("train, then eval", layer(rng, "te", [(2, 3, 4, 3), (5, 3, 2, 1)], 0.05, 0.2))]


def layer_hidden(rng: Rng) -> list[Case]:
    """Longer sequences of modes with batches of other sizes, channels far from zero, float32, one value per channel."""
    distant = layer(rng, "te", [(4, 2, 3, 3), (4, 2, 3, 3)], 0.01, 0.5)
    distant["xs"] = [HUGE * x + FAR for x in distant["xs"]]
    return [Case("train, train, eval, train, eval", layer(
                rng, "ttete", [(3, 2, 4, 3), (5, 2, 2, 3), (1, 2, 3, 2), (2, 2, 3, 4), (4, 2, 1, 1)], 0.03, 0.3)),
            Case("eval first, with running statistics that were loaded",
                 loaded(rng, layer(rng, "et", [(1, 3, 2, 4), (3, 3, 2, 2)], 0.01, 0.1))),
            Case("channels far from zero", distant),
            Case("float32", layer(rng, "tet", [(3, 4, 2, 5), (2, 4, 2, 3), (3, 4, 3, 3)], 0.05, 0.1), "layer_float32"),
            Case("the names in state()", {"channels": 5}, "layer_state"),
            Case("one value per channel", {"x": rng.standard_normal((1, 3, 1, 1))}, "layer_refused")]


PAIR = "batch_norm_forward", "batch_norm_backward"
PAIR_EVAL = "batch_norm_eval_forward", "batch_norm_eval_backward"
WITHHELD = ("nn.BatchNorm1d", "nn.BatchNorm2d", "nn.layers.BatchNorm", "ops.batch_norm", "ops.batch_norm_relu",
            "ops.batch_norm_eval", "ops.BatchNorm", "ops.BatchNormRelu", "ops.BatchNormEval", "residual")

TASKS = [
    Task("a4.1", "batch_norm_forward", 10, PAIR[:1], "forward", shaped(forward, VISIBLE), forward_hidden),
    Task("a4.2", "batch_norm_staged", 20, ("batch_norm_staged",), "staged", shaped(staged, VISIBLE), staged_hidden),
    Task("a4.3", "batch_norm_backward", 20, PAIR, "batch_norm", shaped(arrays, VISIBLE), backward_hidden),
    Task("a4.4", "running", 10, ("running",), "running", running_visible, running_hidden),
    Task("a4.5", "batch_norm_eval", 10, PAIR_EVAL, "batch_norm_eval", shaped(evaluated, VISIBLE), evaluated_hidden),
    Task("a4.6", "BatchNorm2d", 15, ("BatchNorm2d",), "layer", layer_visible, layer_hidden, minires=True,
         withheld=WITHHELD),
]
