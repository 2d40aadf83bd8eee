"""What goes into every nonlinearity, and which units have died behind it."""
from __future__ import annotations

from typing import Any, NamedTuple

from .. import device, nn, ops
from ..tensor import Tensor, topological_order


class Activation(NamedTuple):
    """One nonlinearity on one batch."""

    counts: list[int]  # histogram of its input over [-limit, limit]; the outermost bins hold what lies beyond
    limit: float
    mean: float        # of its input
    std: float
    zero: float        # share of its outputs that are exactly 0
    dead: float        # share of its units (channels) that give one and the same value for every image and place


def activations(model: nn.Module, images: Any, bins: int = 41, limit: float = 4.0) -> dict[str, Activation]:
    """{name: Activation} of every ReLU, sigmoid and tanh, module or not, in the order of the computation.

    images: one batch, (N, C, H, W) or (N, features), in train mode; the model is left as it was. A nonlinearity is
    named after the module whose output it makes, else after the module whose output it takes: in a v1 block "bn1", and
    the block itself for the ReLU behind the addition. For histograms over time see `follow`.
    """
    if bins < 1 or limit <= 0:
        raise ValueError(f"activations: expected bins >= 1 and limit > 0, got {bins} and {limit}")
    names = {id(m): name for name, m in model.modules()}
    made_by: dict[int, tuple[str, Tensor]] = {}  # holding the Tensor keeps its id from being used again

    def see(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        if id(module) in names:
            made_by.setdefault(id(out), (names[id(module)], out))  # the innermost module returns first

    found: dict[str, Activation] = {}
    with nn.untouched(model), nn.watched(see):
        out = model.train()(Tensor(images))
        if not out.requires_grad:
            raise ValueError("activations: this model has no parameter that requires a gradient, so no graph to read")
        for t in topological_order(out):  # the graph knows every operation, also those that are no modules
            if isinstance(t.creator, (ops.Relu, ops.Sigmoid, ops.Tanh)):
                x = t.creator.inputs[0]
                name, _ = made_by.get(id(t)) or made_by.get(id(x)) or (f"nonlinearity {len(found) + 1}", None)
                found[name] = _describe(x.data, t.data, bins, limit)
    if not found:
        raise ValueError("activations: this model has no ReLU, sigmoid or tanh")
    return found


def _describe(x: Any, y: Any, bins: int, limit: float) -> Activation:
    xp = device.of(x)
    counts, _ = xp.histogram(xp.clip(x, -limit, limit), bins, (-limit, limit))
    over = tuple(axis for axis in range(y.ndim) if axis != 1)  # images and places
    zero, dead = float((y == 0).mean()), float((y.max(over) == y.min(over)).mean())
    return Activation(counts.tolist(), float(limit), float(x.mean()), float(x.std()), zero, dead)
