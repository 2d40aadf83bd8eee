"""Exercise the answers of A4, batch normalisation."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .drivers import Forward, Pair, Space, described, named, single

GRADIENTS = "dx", "dgamma", "dbeta"
STAGES = "dxhat", "dinv", "dvar", "dxc", "dmu", "dx", "dgamma", "dbeta"  # from the last line to the first
STATE = "weight", "bias", "running_mean", "running_var"

batch_norm = Pair("batch_norm_forward", "batch_norm_backward", GRADIENTS)
forward = Forward("batch_norm_forward")
batch_norm_eval = Pair("batch_norm_eval_forward", "batch_norm_eval_backward", GRADIENTS)


def staged(space: Space, **inputs: Any) -> dict[str, Any]:
    """Return every gradient of the chain, in the chain's order."""
    found = space["batch_norm_staged"](*inputs.values())
    if not isinstance(found, dict) or set(found) != set(STAGES):
        keys = f"the keys {', '.join(map(str, found))}" if isinstance(found, dict) else described(found)
        raise TypeError(f"batch_norm_staged must return a dictionary with the keys {', '.join(STAGES)}, not {keys}")
    return {name: found[name] for name in STAGES}


def staged_float32(space: Space, **inputs: Any) -> dict[str, Any]:
    """Float32 goes in and must come out."""
    return {f"{name} of float32 inputs": value for name, value in staged(space, **single(inputs)).items()}


def running(space: Space, **inputs: Any) -> dict[str, Any]:
    """Return the new running statistics."""
    return named("running", space["running"](*inputs.values()), ("mean", "var"))


def running_float32(space: Space, **inputs: Any) -> dict[str, Any]:
    """Float32 goes in and must come out."""
    return {f"{name} of float32 inputs": value for name, value in running(space, **single(inputs)).items()}


def running_apart(space: Space, **inputs: Any) -> dict[str, Any]:
    """Show the new statistics after the batch's arrays were used for something else."""
    batch = {name: np.array(inputs[name]) for name in ("batch_mean", "batch_var")}
    found = running(space, **{**inputs, **batch})
    for array in batch.values():
        array[...] = 7
    return {f"{name}, after the batch's arrays were changed": value for name, value in found.items()}


def running_refused(space: Space, **inputs: Any) -> dict[str, Any]:
    """Show whether ValueError is raised."""
    return {"ValueError for one value per channel": refused(lambda: running(space, **inputs))}


def refused(call: Callable[[], Any]) -> bool:
    """Return whether the call raises ValueError."""
    try:
        call()
    except ValueError:
        return True
    return False


def layer(space: Space, modes: list[str], xs: list[np.ndarray], dys: list[np.ndarray], weight: np.ndarray,
          bias: np.ndarray, eps: float, momentum: float, **loaded: np.ndarray) -> dict[str, Any]:
    """Pass batches through one layer in the given modes, each forward and backward.

    loaded: running_mean and running_var before the first batch, if they are not those of a new layer

    Return for each batch y, the gradients, and the running statistics after it.
    """
    from ..tensor import Tensor

    made = space["BatchNorm2d"](len(weight), eps, momentum).astype(weight.dtype)
    made.weight.data, made.bias.data = weight, bias
    for name, array in loaded.items():
        getattr(made, name).data = np.array(array)
    found: dict[str, Any] = {}
    for i, (mode, x, dy) in enumerate(zip(modes, xs, dys, strict=True), 1):
        (made.train if mode == "train" else made.eval)()
        t = Tensor(x, True)
        made.weight.grad = made.bias.grad = None
        y = made(t)
        y.backward(dy)
        found |= {f"{name}, batch {i} ({mode} mode)": value for name, value in (
            ("y", y.data), ("dx", t.grad), ("dweight", made.weight.grad), ("dbias", made.bias.grad),
            ("running_mean", np.array(made.running_mean.data)), ("running_var", np.array(made.running_var.data)))}
    if missing := [name for name, value in found.items() if value is None]:
        raise TypeError(f"there is no gradient for {missing[0]}: is it computed from Tensors, by operations?")
    return found


def layer_float32(space: Space, **inputs: Any) -> dict[str, Any]:
    """Float32 goes in and must come out."""
    return {f"{name} in float32": value
            for name, value in layer(space, **{k: narrow(v) for k, v in inputs.items()}).items()}


def narrow(value: Any) -> Any:
    """Return arrays in float32, also inside a list."""
    return [single(part) for part in value] if isinstance(value, list) else single(value)


def layer_state(space: Space, channels: int) -> dict[str, Any]:
    """Return which names are in the state, which of them require a gradient, and their values at the start."""
    state = space["BatchNorm2d"](channels).state()
    found: dict[str, Any] = {}
    for name in STATE:
        found[f"{name} is in state()"] = name in state
        found[f"{name} is a parameter"] = name in state and bool(state[name].requires_grad)
        found[f"{name} at the start"] = state[name].data if name in state else np.zeros(0)
    found["number of names in state()"] = len(state)
    return found


def layer_refused(space: Space, x: np.ndarray) -> dict[str, Any]:
    """Show whether ValueError is raised."""
    from ..tensor import Tensor

    made = space["BatchNorm2d"](x.shape[1]).astype(x.dtype)
    return {"ValueError for one value per channel": refused(lambda: made(Tensor(x)))}
