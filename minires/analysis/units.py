"""This module describes the input of every nonlinearity and the share of units that are dead after it."""
from __future__ import annotations

from typing import Any, NamedTuple

from .. import device, nn, ops
from ..tensor import Tensor, topological_order, widened
from . import common


class Activation(NamedTuple):
    """An Activation describes one nonlinearity on one batch."""

    counts: list[int]  # histogram of its input over [-limit, limit]; the outermost bins include all values beyond
    limit: float
    mean: float        # of its input
    std: float         # of its input
    zero: float        # share of its outputs that are exactly 0
    dead: float        # share of its units (channels) whose output is the same for every image and position


def activations(model: nn.Module, images: Any, bins: int = 41, limit: float = 4.0, *,
                kinds: type | tuple[type, ...] = ()) -> dict[str, Activation]:
    """Describe every nonlinearity, whether it is a module or not, in train mode.

    These are ReLU, leaky ReLU, GELU, sigmoid, tanh, `ops.maximum`, `ops.clip`, and every Function from outside of
    minires that makes of one Tensor another of its shape, such as your own Softplus. One that is composed of several
    operations (x * sigmoid(x)) appears as those of its parts that are nonlinearities.

    images   one batch, (N, C, H, W) or (N, features)
    bins     the number of bins of each histogram
    limit    the histograms cover [-limit, limit]
    kinds    the types of modules to describe instead, each as a whole: nn.ReLU, or a Swish of your own

    Returns {name: Activation} in the order of the computation. A nonlinearity is named after the module whose output it
    computes, or else after the module whose output is its input. In a v1 block the names are "bn1" and, for the ReLU
    after the addition, the name of the block. A nonlinearity with neither is called "nonlinearity 1" and so on. A
    module that runs more than once has the names "act", "act, call 2", ...

    For histograms over a training see `follow`. The model is left unchanged.

    Frozen layers are included. Raises ValueError if bins < 1 or limit <= 0, if the model has no nonlinearity, or if no
    module of these kinds ran.
    """
    if bins < 1 or limit <= 0:
        raise ValueError(f"activations: expected bins >= 1 and limit > 0, got {bins} and {limit}")
    if kinds:
        return _of_kinds(model, images, bins, limit, kinds)
    names = {id(m): name for name, m in model.modules()}
    made_by: dict[int, tuple[str, Tensor]] = {}  # the Tensor is kept so that its id is not reused

    def see(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        if id(module) in names:
            made_by.setdefault(id(out), (names[id(module)], out))  # the innermost module returns first

    found: dict[str, Activation] = {}
    runs: dict[str, int] = {}
    with nn.untouched(model), nn.watched(see):
        out = model.resume_training()(Tensor(images, True))  # so that the graph includes what is frozen
        for t in topological_order(out):  # the graph has every operation, including those that are not modules
            if t.creator is not None and _is_nonlinear(t):
                x = t.creator.inputs[0]
                name, _ = made_by.get(id(t)) or made_by.get(id(x)) or (f"nonlinearity {len(found) + 1}", None)
                _add(found, runs, name, _describe(x.data, t.data, bins, limit))
    if not found:
        raise ValueError("activations: this model has no nonlinearity: no ReLU, leaky ReLU, GELU, sigmoid, tanh, "
                         "maximum, clip, or Function of its own")
    return found


def _of_kinds(model: nn.Module, images: Any, bins: int, limit: float, kinds: type | tuple[type, ...]
              ) -> dict[str, Activation]:
    found: dict[str, Activation] = {}
    runs: dict[str, int] = {}

    def see(name: str, module: nn.Module, x: Tensor, out: Tensor) -> None:
        if isinstance(module, kinds):
            _add(found, runs, name, _describe(x.data, out.data, bins, limit))

    common.run(model, images, see, train=True)
    if not found:
        wanted = kinds if isinstance(kinds, tuple) else (kinds,)
        raise ValueError("activations: no module of kind " + " or ".join(k.__name__ for k in wanted) + " ran")
    return found


def _add(found: dict[str, Activation], runs: dict[str, int], name: str, activation: Activation) -> None:
    """Add an activation under its name, or under "name, call 2" and so on if the name has one already."""
    runs[name] = run = runs.get(name, 0) + 1
    found[name if run == 1 else f"{name}, call {run}"] = activation


_NONLINEAR = ops.Relu, ops.LeakyRelu, ops.Gelu, ops.Sigmoid, ops.Tanh, ops.Maximum, ops.Clip


def _is_nonlinear(t: Tensor) -> bool:
    step: Any = t.creator
    own = not type(step).__module__.startswith("minires.") and len(step.inputs) == 1
    return (own or isinstance(step, _NONLINEAR)) and step.inputs[0].shape == t.shape


def _describe(x: Any, y: Any, bins: int, limit: float) -> Activation:
    x, xp = widened(x), device.of(x)
    counts, _ = xp.histogram(xp.clip(x, -limit, limit), bins, (-limit, limit))
    over = tuple(axis for axis in range(y.ndim) if axis != 1)  # images and positions
    zero, dead = float((y == 0).mean()), float((y.max(over) == y.min(over)).mean())
    return Activation(counts.tolist(), float(limit), float(x.mean()), float(x.std()), zero, dead)
