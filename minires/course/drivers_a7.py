"""Exercise the answers of A7, reading a ResNet."""
from __future__ import annotations

import contextvars
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from .drivers import Space, described
from .networks import Settings, lent, network, number, numbers, outputs, partly_right, positions, traces


def responses(space: Space, net: Settings, x: np.ndarray) -> dict[str, Any]:
    """Measure the responses, and look at what that leaves in the network."""
    from .. import nn

    model = network(net)
    context = contextvars.copy_context()  # a hook that is left in it does not reach other measurements
    found = context.run(space["responses"], model, x)
    hooked = context.run(nn.being_watched) or any(map(_has_own_forward, (m for _, m in model.modules())))
    return {**numbers("responses", found, [name for name, _ in model.modules()], "responses",
                      "places of the layers among net.modules()"), **traces(model), "a hook is left": hooked}


def _has_own_forward(module: Any) -> bool:
    """Return whether a module runs another forward than its class defines."""
    forward = vars(module).get("forward")
    return forward is not None and getattr(forward, "__func__", None) is not type(module).forward


class Interruption(Exception):
    """Interruption is raised inside a context to see what the context restores."""


def without(space: Space, net: Settings, x: np.ndarray, names: Sequence[str], interrupted: bool) -> dict[str, Any]:
    """Run a network without some blocks, and again afterwards."""
    model = network(net)
    try:
        with ExitStack() as stack:
            for name in names:
                context = space["without"](model, name)
                if not hasattr(context, "__enter__"):
                    raise TypeError(f"without must return a context manager, not {described(context)}; is "
                                    "@contextmanager above the function, and yield inside it?")
                stack.enter_context(context)
            inside = outputs(model, x)
            if interrupted:
                raise Interruption
    except Interruption:
        pass
    return {"logits inside": inside, "logits afterwards (exact)": outputs(model, x), **traces(model)}


@contextmanager
def right_without(net: Any, name: str) -> Iterator[None]:
    """Reduce one block to its shortcut. It stands for the submission's own `without` in the tasks that use it."""
    from .. import ops

    block = dict(net.modules())[name]
    before = vars(block).get("forward")
    block.forward = lambda x: ops.relu(block.shortcut(x))
    try:
        yield
    finally:
        if before is None:
            del block.forward
        else:
            block.forward = before


def lesions(space: Space, net: Settings, x: np.ndarray, labels: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """Measure the error without each block."""
    model = network(net)
    labels = partly_right(model, x, labels, right)
    with lent(space, without=right_without):
        found = space["lesions"](model, x, labels)
    return {**numbers("lesions", found, [name for name, _ in model.modules()], "errors without one block, in percent",
                      "places of the blocks among net.modules()"), **traces(model)}


def delete_k(space: Space, net: Settings, x: np.ndarray, labels: np.ndarray, right: np.ndarray, counts: Sequence[int],
             seed: int) -> dict[str, Any]:
    """Delete random blocks several times, with one generator."""
    model, rng = network(net), np.random.default_rng(seed)
    labels = partly_right(model, x, labels, right)
    with lent(space, without=right_without):
        found = [number("delete_k", space["delete_k"](model, x, labels, k, rng)) for k in counts]
    return {"errors without k blocks, in percent": np.array(found), **traces(model)}


def input_gradient(space: Space, net: Settings, x: np.ndarray, labels: np.ndarray, gradients: bool) -> dict[str, Any]:
    """Compute the gradient at the input, and look at what that leaves in the network."""
    model = network(net, gradients)
    found = space["input_gradient"](model, x, labels)
    if not isinstance(found, np.ndarray):
        raise TypeError(f"input_gradient must return an array, not {described(found)}")
    return {"dL/dx": found, **traces(model)}


def path_shares(space: Space, norms: np.ndarray) -> dict[str, Any]:
    """Ask for the shares."""
    return {"shares": space["path_shares"](norms)}


def direction(space: Space, net: Settings, seed: int, scale: float, single: bool) -> dict[str, Any]:
    """Draw two directions with one generator.

    scale: multiplies the first convolution's weight
    single: whether the network is in float32
    """
    model, rng = network(net), np.random.default_rng(seed)
    first = model.conv1.weight
    first.data = scale * first.data
    if single:
        model.astype(np.float32)
    found: dict[str, Any] = {}
    state = model.state()
    for which in ("first", "second"):
        drawn = space["direction"](model, rng)
        places = positions("direction", drawn, state)
        names = sorted(drawn, key=lambda name: places[name])
        for name in names:
            if np.shape(drawn[name]) != state[name].shape:
                raise TypeError(f"direction: {name} must have the shape {state[name].shape} of the parameter, not "
                                f"{np.shape(drawn[name])}")
        found[f"places of the {which} direction's arrays in net.state()"] = np.array(
            [places[name] for name in names], int)
        for what, chosen in (("filters", [n for n in names if state[n].ndim > 1]),
                             ("BN and biases", [n for n in names if state[n].ndim == 1])):
            parts = [np.ravel(drawn[name]) for name in chosen]
            found[f"{which} direction, {what}"] = np.concatenate(parts) if parts else np.zeros(0)
    return {**found, **traces(model)}


def loss_surface(space: Space, net: Settings, x: np.ndarray, labels: np.ndarray, right: np.ndarray, alphas: np.ndarray,
                 betas: np.ndarray, single: bool) -> dict[str, Any]:
    """Measure a surface along two directions that are 0 for BN and biases.

    single: whether network, images and directions are in float32
    """
    model = network(net)
    labels = partly_right(model, x, labels, right)
    rng = np.random.default_rng(net["seed"] + 1)
    dtype = np.float32 if single else np.float64
    model.astype(dtype)
    directions = [{name: (0.3 * abs(t.data).mean() * rng.standard_normal(t.shape) * (t.ndim > 1)).astype(dtype)
                   for name, t in model.state().items() if t.requires_grad} for _ in range(2)]
    found = space["loss_surface"](model, x.astype(dtype), labels, *directions, alphas, betas)
    if not isinstance(found, np.ndarray):
        raise TypeError(f"loss_surface must return an array, not {described(found)}")
    return {"surface": found.astype(np.float32) if single else found, **traces(model)}
