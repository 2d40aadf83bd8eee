"""Exercise the answers of A6, plain against residual."""
from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .drivers import Space, described, named
from .networks import Settings, network, number, numbers, partly_right, statistics, traces, weights


def prepare(space: Space, train_images: np.ndarray, test_images: np.ndarray) -> dict[str, Any]:
    """Prepare two sets of images."""
    return named("prepare", space["prepare"](train_images, test_images), ("x", "x_test"))


def pair(space: Space, depth: int, width: int, seed: int, x: np.ndarray) -> dict[str, Any]:
    """Build both networks, compare their arrays, and run them on x."""
    from .. import nn
    from ..tensor import Tensor, no_grad

    found = named("pair", space["pair"](depth, width, seed), ("plain", "residual"))
    for name, net in found.items():
        if not isinstance(net, nn.Module):
            raise TypeError(f"pair must return two networks; {name} is {described(net)}")
    arrays = [[t.data for t in net.state().values()] for net in found.values()]
    shared = any(np.may_share_memory(a, b) for a in arrays[0] for b in arrays[1])
    sizes = {f"number of parameters, {name}": net.count_parameters() for name, net in found.items()}
    start = {f"start of {name}": weights(net) for name, net in found.items()}
    with no_grad():
        answers = {f"output of {name} in train mode": net.astype(np.float64).train()(Tensor(x)).data
                   for name, net in found.items()}
    return {**sizes, **start, **answers, "the two networks share arrays": shared}


def sgd(space: Space, w: np.ndarray, g: np.ndarray, v: np.ndarray, lr: Sequence[float], momentum: float,
        weight_decay: float) -> dict[str, Any]:
    """Take one step for each gradient in g and each learning rate."""
    found: dict[str, Any] = {}
    for i, rate in enumerate(lr):
        w, v = named("sgd", space["sgd"](w, g[i], v, rate, momentum, weight_decay), ("w", "v")).values()
        found |= {f"w after step {i + 1}": np.array(w), f"v after step {i + 1}": np.array(v)}
    return found


def learning_rate(space: Space, steps: int, base: float, warm_up: int, drops: Sequence[int]) -> dict[str, Any]:
    """Ask for the learning rate of each step."""
    return {"learning rates, step by step": np.array([
        number("learning_rate", space["learning_rate"](step, base, warm_up, drops)) for step in range(steps)])}


def train_epoch(space: Space, net: Settings, x: np.ndarray, labels: np.ndarray, batch_size: int, seed: int,
                epochs: int) -> dict[str, Any]:
    """Train a network, and look at the losses, the network, and what stays in memory from step to step."""
    from .. import optim

    model, rng, losses = network(net), np.random.default_rng(seed), []
    optimizer = optim.SGD(model.parameters(), 0.05, 0.9, 0.01)
    with graphs_counted(optimizer) as alive:
        for _ in range(epochs):
            losses.append(number("train_epoch",
                                 space["train_epoch"](model, x, labels, optimizer, batch_size, rng)))
    return {"mean loss of each epoch": np.array(losses), "weights after training": weights(model),
            "running statistics after training": statistics(model),
            "graphs are kept from step to step": len(alive) > 1 and alive[-1] - alive[0] >= len(alive) - 1}


@contextmanager
def graphs_counted(optimizer: Any) -> Iterator[list[int]]:
    """Count, at every step of the optimizer, the results whose graph is still in memory after backward."""
    from ..tensor import Function

    made: list[weakref.ref[Any]] = []
    alive: list[int] = []
    apply, step = Function.__dict__["apply"], optimizer.step

    def applied(cls: Any, *inputs: Any, **options: Any) -> Any:
        out = apply.__func__(cls, *inputs, **options)
        made.append(weakref.ref(out))
        return out

    def counting() -> None:
        living = [t for t in (ref() for ref in made) if t is not None]
        alive.append(sum(t.creator is not None and bool(t.creator.inputs) for t in living))
        step()

    Function.apply = classmethod(applied)  # type: ignore[method-assign,assignment]
    optimizer.step = counting
    try:
        yield alive
    finally:
        Function.apply = apply  # type: ignore[method-assign]
        del optimizer.step


def error(space: Space, net: Settings, x: np.ndarray, labels: np.ndarray, right: np.ndarray, batch_size: int
          ) -> dict[str, Any]:
    """Measure one error, and look at what that leaves in the network."""
    model = network(net)
    labels = partly_right(model, x, labels, right)
    return {"error in percent": number("error", space["error"](model, x, labels, batch_size)), **traces(model)}


def errors(space: Space, net: Settings, x: np.ndarray, labels: np.ndarray, right: np.ndarray, batch_size: int,
           first_test: int) -> dict[str, Any]:
    """Measure the errors of the images before and after number `first_test`."""
    model = network(net)
    labels = partly_right(model, x, labels, right)
    sets = [(x[:first_test], labels[:first_test]), (x[first_test:], labels[first_test:])]
    found = space["errors"](model, *sets, batch_size)
    if not isinstance(found, dict) or set(found) != {"train_error", "test_error"}:
        raise TypeError('errors must return {"train_error": ..., "test_error": ...}, not '
                        + (f"a dictionary with the keys {list(found)}" if isinstance(found, dict)
                           else described(found)))
    return {name: number(f"errors, {name},", found[name]) for name in ("train_error", "test_error")}


def gradient_norms(space: Space, net: Settings, x: np.ndarray, labels: np.ndarray, gradients: bool) -> dict[str, Any]:
    """Measure the norms, and look at what that leaves in the network."""
    model = network(net, gradients)
    found = space["gradient_norms"](model, x, labels)
    names = [name for name, _ in model.modules()]
    return {**numbers("gradient_norms", found, names, "norms",
                      "places of the convolutions among net.modules()"), **traces(model)}
