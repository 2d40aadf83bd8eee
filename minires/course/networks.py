"""Small networks for the tasks and drivers of A6 and A7, and what a measurement must leave as it was.

Drivers run in a worker process, so this module needs only NumPy and the standard library until a function is called.
"""
from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from .drivers import Space, described

# What would answer a task about networks in one call: training loops, measurements of errors and gradients.
MEASUREMENTS = ("analysis", "cuda_graph", "evaluate", "nn.modes_kept", "nn.untouched", "runs", "tap", "train")
# From where gamma and beta are drawn, so that every ReLU is open for 20 to 80 % of a channel.
RANGES = {"weight": (0.5, 1.5), "bias": (-0.4, 0.4)}
Settings = Mapping[str, Any]


def settings(rng: np.random.Generator, depth: int, width: int, residual: bool, mode: str = "train",
             shortcut: str = "A") -> dict[str, Any]:
    """Draw the settings of a network with four classes, for `network`."""
    return {"depth": depth, "width": width, "residual": residual, "shortcut": shortcut, "classes": 4, "mode": mode,
            "seed": int(rng.integers(1 << 30))}


def network(settings: Settings, gradients: bool = True) -> Any:
    """Build a network in float64 as `models.cifar` does, and draw gamma, beta and running statistics for it.

    settings: depth, width, residual, shortcut, classes, seed, and mode: "train", "eval", or "mixed", which is train
        mode with two layers in eval mode
    gradients: whether every parameter has a gradient, as after a training step
    """
    from .. import models

    rng = np.random.default_rng(settings["seed"])
    net = models.cifar(settings["depth"], settings["residual"], shortcut=settings["shortcut"],
                       num_classes=settings["classes"], in_channels=1, width=settings["width"],
                       rng=rng).astype(np.float64)
    for name, t in net.state().items():
        if t.ndim == 1 and t.requires_grad:
            t.data = rng.uniform(*RANGES[name.rpartition(".")[2]], t.shape)
        if gradients and t.requires_grad:
            t.grad = rng.standard_normal(t.shape)
    calibrate(net, rng)
    net.train(settings["mode"] != "eval")
    if settings["mode"] == "mixed":
        for name, module in net.modules():
            if name in ("bn1", "layer2.0.bn2"):
                module.eval()
    return net


def calibrate(net: Any, rng: np.random.Generator) -> None:
    """Set the running statistics to those of a batch, times and plus random numbers, and the classifier's bias so that
    the mean logits are 0. So different images get different answers, and in eval mode others than in train mode."""
    from .. import nn
    from ..tensor import Tensor, no_grad

    norms = [m for _, m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    for bn in norms:
        bn.momentum = 1.0
    x = rng.standard_normal((12, 1, 8, 8))
    with no_grad():
        net.train()(Tensor(x))
    for bn in norms:
        bn.momentum, var = 0.1, bn.running_var.data
        bn.running_mean.data = bn.running_mean.data + rng.uniform(-0.3, 0.3, var.shape) * np.sqrt(var)
        bn.running_var.data = var * rng.uniform(0.6, 1.6, var.shape)
    net.fc.bias.data = net.fc.bias.data - outputs(net, x).mean(0)


def outputs(net: Any, x: np.ndarray) -> np.ndarray:
    """Return the network's logits (N, classes) in eval mode. Its modes stay."""
    from ..tensor import Tensor, no_grad

    modes = [(m, m.training) for _, m in net.modules()]  # nn.modes_kept is withheld from these tasks
    net.eval()
    with no_grad():
        found = net(Tensor(x)).data
    for module, training in modes:
        module.training = training
    return np.array(found)


def partly_right(net: Any, x: np.ndarray, labels: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the labels, and where `right` is true the network's own answer. So an error is neither 0 nor 100 %, and
    one that is measured on a changed network differs."""
    return np.where(right, outputs(net, x).argmax(1), labels)


def weights(net: Any) -> np.ndarray:
    """Return all parameters in one vector."""
    return _joined(t.data for t in net.state().values() if t.requires_grad)


def statistics(net: Any) -> np.ndarray:
    """Return all running statistics in one vector."""
    return _joined(t.data for t in net.state().values() if not t.requires_grad)


def traces(net: Any) -> dict[str, np.ndarray]:
    """Return what a measurement must leave as it was: weights, running statistics, gradients and modes. A missing
    gradient counts as 0."""
    gradients = (np.zeros(t.shape) if t.grad is None else t.grad for t in net.parameters())
    return {"weights afterwards (exact)": weights(net), "running statistics afterwards (exact)": statistics(net),
            "gradients afterwards (exact)": _joined(gradients),
            "modes afterwards, 1 for train mode": np.array([int(m.training) for _, m in net.modules()])}


def _joined(arrays: Iterable[Any]) -> np.ndarray:
    return np.concatenate([np.ravel(a) for a in arrays])


def number(function: str, returned: Any) -> float:
    """Return a number that a function returned. Raise TypeError, with a sentence for the student, for anything else."""
    if isinstance(returned, (int, float, np.generic)) or (isinstance(returned, np.ndarray) and returned.ndim == 0):
        return float(returned)
    more = "; .item() gives the number in a Tensor" if type(returned).__name__ == "Tensor" else ""
    raise TypeError(f"{function} must return a number, not {described(returned)}{more}")


def numbers(function: str, returned: Any, known: Iterable[str], what: str, keys: str) -> dict[str, np.ndarray]:
    """Split a dictionary {name: number} that a function returned into positions and numbers.

    known: the names that can occur, in order
    what, keys: names for the two arrays: "responses", "places of the layers among net.modules()"

    Raises TypeError, with a sentence for the student, for anything else.
    """
    places = positions(function, returned, known)
    names = sorted(returned, key=places.__getitem__)  # a dictionary's order is not asked for
    return {keys: np.array([places[name] for name in names], int),
            what: np.array([number(f"{function}, {name},", returned[name]) for name in names], float)}


def positions(function: str, returned: Any, known: Iterable[str]) -> dict[str, int]:
    """Return {name: position} of the known names. Raise TypeError if a function did not return a dictionary of them."""
    places = {name: i for i, name in enumerate(known)}
    if not isinstance(returned, dict):
        raise TypeError(f"{function} must return a dictionary, not {described(returned)}")
    unknown = [name for name in returned if name not in places]
    if unknown:
        raise TypeError(f"{function} must return a dictionary whose keys are names of this network, such as "
                        f"{list(places)[-1]!r}; {unknown[0]!r} is none of its names")
    return places


@contextmanager
def lent(space: Space, **functions: Any) -> Iterator[None]:
    """Let the submission's functions find these functions under their global names, inside this context. So a mistake
    in an earlier task is not counted twice."""
    places: list[dict[str, Any]] = []
    for f in space.values():
        place = getattr(inspect.unwrap(f), "__globals__", None)
        if place is not None and not any(place is other for other in places):
            places.append(place)
    before = [{name: place[name] for name in functions if name in place} for place in places]
    for place in places:
        place.update(functions)
    try:
        yield
    finally:
        for place, old in zip(places, before, strict=True):
            for name in functions:
                del place[name]
            place.update(old)
