"""This module measures the loss around a trained network along random directions.

Source: Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets". Directions are filter-normalised (section 4):
every filter of the direction is scaled to the norm of the network's own filter. Without this, larger weights would look
like a flatter loss even where they compute the same: before BN, or before a ReLU if the next layer's weights are
smaller by the same factor. BN's gamma and beta and all biases stay fixed. The loss is measured in eval mode.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from .. import device, nn, ops
from ..evaluate import error_percent, logits
from ..tensor import Tensor, no_grad
from . import common

Direction = dict[str, Any]  # {name of a weight: array of its shape}


class Line(NamedTuple):
    """A Line holds the loss along one direction."""

    at: list[float]     # positions in units of the direction, from -radius to radius
    loss: list[float]   # mean cross-entropy
    error: list[float]  # percent
    curvature: float    # second derivative of the loss at 0


class Surface(NamedTuple):
    """A Surface holds the loss over the plane of two directions."""

    at: list[float]              # positions along each direction, from -radius to radius
    loss: list[list[float]]      # loss[i][j]: at at[i] along the first direction and at[j] along the second
    curvature: tuple[float, float]  # along the first and the second direction


def random_direction(model: nn.Module, *, rng: np.random.Generator) -> Direction:
    """Draw a Gaussian direction and filter-normalise it.

    Returns {name of a convolution's or linear layer's weight: array of its shape and dtype}.
    """
    found = {}
    for name, t in _weights(model).items():
        d = rng.standard_normal(t.shape)
        axes = tuple(range(1, t.ndim))  # a filter computes one output channel: (in, kh, kw), or a row (in,)
        w = np.asarray(t.numpy(), np.float64)
        d *= np.sqrt((w * w).sum(axes, keepdims=True) / (d * d).sum(axes, keepdims=True))
        found[name] = device.of(t.data).asarray(d, dtype=t.dtype)
    return found


def loss_line(model: nn.Module, images: Any, labels: Any, direction: Direction, points: int = 21, radius: float = 1.0,
              progress: common.Progress = iter) -> Line:
    """Measure loss and error at `points` positions from -radius to radius along `direction`.

    images: (N, C, H, W)
    labels: (N,)

    The model is left unchanged.

    Raises ValueError if points < 2 or radius <= 0.
    """
    at = _places(points, radius)
    with moving(model) as move:
        seen = []
        for a in progress(at):
            move((a, direction))
            seen.append(loss_and_error(model, images, labels))
    losses, errors = zip(*seen, strict=True)
    return Line(at, list(losses), list(errors), curvature(model, images, labels, direction))


def loss_surface(model: nn.Module, images: Any, labels: Any, first: Direction, second: Direction, points: int = 11,
                 radius: float = 1.0, progress: common.Progress = iter) -> Surface:
    """Measure the loss on a grid of points x points positions over [-radius, radius]^2.

    images: (N, C, H, W)
    labels: (N,)

    The model is left unchanged.

    Raises ValueError if points < 2 or radius <= 0.
    """
    at = _places(points, radius)
    with moving(model) as move:
        loss = []
        for a, b in progress([(a, b) for a in at for b in at]):
            move((a, first), (b, second))
            loss.append(loss_and_error(model, images, labels)[0])
    rows = [loss[i:i + points] for i in range(0, len(loss), points)]
    return Surface(at, rows, (curvature(model, images, labels, first), curvature(model, images, labels, second)))


def curvature(model: nn.Module, images: Any, labels: Any, direction: Direction, step: float = 0.05) -> float:
    """Return the second derivative of the loss along `direction` at the model's weights.

    It is the slope at +step minus the slope at -step, divided by 2 step. The slopes come from backward.

    ReLU makes the loss piecewise smooth, and much of a bowl's shape comes from its kinks. The second derivative between
    two kinks does not contain that part of the shape, so the step is large enough to cross many kinks.
    """
    slopes = []
    with moving(model) as move:
        for a in -step, step:
            move((a, direction))
            slopes.append(_slope(model, images, labels, direction))
    return (slopes[1] - slopes[0]) / (2 * step)


def loss_and_error(model: nn.Module, images: Any, labels: Any) -> tuple[float, float]:
    """Return the mean cross-entropy and the error in percent, in eval mode."""
    z = logits(model, images)
    with no_grad(), np.errstate(over="ignore", invalid="ignore"):  # far from the weights, logits can be infinite
        loss = ops.cross_entropy(Tensor(z.astype("f8")), labels)
    return loss.item(), error_percent(int((z.argmax(1) != labels).sum()), len(z))


@contextmanager
def moving(model: nn.Module) -> Iterator[Any]:
    """Yield move((a, direction), ...), which sets the weights to the model's own weights + a * direction + ....

    The model's own weights are restored when the context ends.
    """
    with nn.untouched(model):
        start = {name: (t, t.data) for name, t in _weights(model).items()}
        for t, _ in start.values():
            t.requires_grad = True  # a frozen weight has a slope, too

        def move(*parts: tuple[float, Direction]) -> None:
            for name, (t, data) in start.items():
                t.data = data + sum(float(a) * d[name] for a, d in parts)

        yield move


def _slope(model: nn.Module, images: Any, labels: Any, direction: Direction, batch_size: int = 500) -> float:
    """Return the derivative of the mean loss along `direction`, summed in float64."""
    weights, total = _weights(model), 0.0
    model.eval()
    for i in range(0, len(images), batch_size):
        for t in model.parameters():
            t.grad = None
        x, y = images[i:i + batch_size], labels[i:i + batch_size]
        ops.cross_entropy(model(Tensor(x)), y).backward()
        total += len(x) * sum(float((weights[n].grad * d).astype("f8").sum()) for n, d in direction.items())
    return total / len(images)


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights that consist of filters: those of convolutions and linear layers."""
    return {f"{name}.weight" if name else "weight": m.weight for name, m in model.modules()
            if isinstance(m, (nn.Conv2d, nn.Linear))}


def _places(points: int, radius: float) -> list[float]:
    if points < 2 or radius <= 0:
        raise ValueError(f"landscape: expected points >= 2 and radius > 0, got {points} and {radius}")
    return np.linspace(-radius, radius, points).tolist()
