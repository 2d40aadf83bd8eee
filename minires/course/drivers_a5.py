"""Exercise the answers to assignment a5: the residual block by hand, and as a Module.

Drivers run next to a submission, so this module needs only NumPy and the standard library. The drivers of `Block`
import minires when they are called.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .drivers import Forward, Pair, Space, described, single, spread

KEYS = "w1", "gamma1", "beta1", "w2", "gamma2", "beta2"
PROJECTION = "ws", "gammas", "betas"


class Parameters(Pair):
    """Drivers for a forward function of x, a dictionary of parameters and more, and its backward function.

    keys: the parameters' names; backward returns dx and a dictionary with these keys
    """

    def __init__(self, forward: str, backward: str, keys: Sequence[str] = KEYS) -> None:
        super().__init__(forward, backward, ("dx", *(f"d{key}" for key in keys)))
        self.keys = tuple(keys)

    def __call__(self, space: Space, dy: np.ndarray, **arguments: Any) -> dict[str, Any]:
        """Return y and the gradients. x may be written, so that the result shows what a write does."""
        return super().__call__(space, dy, **{**arguments, "x": arguments["x"].copy()})

    def backward(self, space: Space, dy: np.ndarray, cache: Any) -> dict[str, Any]:
        """Call backward. Raise TypeError if it does not return dx and a gradient for each parameter."""
        name, returned = self.names[1], space[self.names[1]](dy, cache)
        if not isinstance(returned, tuple) or len(returned) != 2 or not isinstance(returned[1], dict):
            raise TypeError(f"{name} must return two things, dx and a dictionary dp, not {described(returned)}")
        dx, dp = returned
        if missing := [key for key in self.keys if dp.get(key) is None]:
            raise TypeError(f"{name}: dp must have the keys of p. Missing: {', '.join(missing)}")
        if unknown := [key for key in dp if key not in self.keys]:
            raise TypeError(f"{name}: dp must have the keys of p, and {', '.join(map(str, unknown))} is none of them")
        return {"dx": dx, **{f"d{key}": dp[key] for key in self.keys}}

    def stacked(self, space: Space, dy: np.ndarray, x: np.ndarray, blocks: list[dict[str, Any]]) -> dict[str, Any]:
        """Send x up through several blocks and dy down again. blocks: the other arguments of each."""
        caches = []
        for arguments in blocks:
            x, cache = self.forward(space, {"x": x, **arguments})
            caches.append(cache)
        for cache in reversed(caches):
            dy = space[self.names[1]](dy, cache)[0]
        return {f"y of {len(blocks)} blocks": x, f"dx through {len(blocks)} blocks": dy}

    def identity(self, space: Space, dy: np.ndarray, **arguments: Any) -> dict[str, Any]:
        """Return what is exactly relu(x) and mask * dy if the branch is zero."""
        y, cache = self.forward(space, arguments)
        return {"y, which must be relu(x) (exact)": np.array(y),
                "dx, which must be dy where x > 0, else 0 (exact)": self.backward(space, dy, cache)["dx"]}


class First(Forward):
    """Drivers for residual_forward alone."""

    def __call__(self, space: Space, **arguments: Any) -> dict[str, Any]:
        """Return y, and x as it is after the call. x may be written."""
        x = arguments["x"].copy()
        y = np.array(self.pair.forward(space, {**arguments, "x": x})[0])
        return {"y": y, "x after the call (exact)": x}

    def identity(self, space: Space, **arguments: Any) -> dict[str, Any]:
        """Return what is exactly relu(x) if the branch is zero."""
        return {"y, which must be relu(x) (exact)": self.pair.forward(space, arguments)[0]}

    def stacked(self, space: Space, x: np.ndarray, blocks: list[dict[str, Any]]) -> dict[str, Any]:
        """Send x through several blocks. blocks: the other arguments of each."""
        for arguments in blocks:
            x, _ = self.pair.forward(space, {"x": x, **arguments})
        return {f"y of {len(blocks)} blocks": x}


forward = First("residual_forward")
residual = Parameters("residual_forward", "residual_backward")
block = Parameters("block_forward", "block_backward")
projected = Parameters("block_forward", "block_backward", (*KEYS, *PROJECTION))
block_forward = First("block_forward")


# ------------------------------------------------------------------------------------- 5.3: option A


def shortcut(space: Space, x: np.ndarray, stride: int, channels: int, pad: str, dy: np.ndarray) -> dict[str, Any]:
    """Return y and dx of option A."""
    y = space["shortcut_a"](x, stride, channels, pad)
    dx = space["shortcut_a_backward"](dy, x.shape, stride, pad)
    for name, value in ("shortcut_a", y), ("shortcut_a_backward", dx):
        if not isinstance(value, np.ndarray):
            raise TypeError(f"{name} must return an array, not {described(value)}")
    return {"y": y, "dx": dx}


def shortcut_float32(space: Space, **inputs: Any) -> dict[str, Any]:
    """Float32 goes in and must come out."""
    found = shortcut(space, **{name: single(value) for name, value in inputs.items()})
    return {f"{name} of float32 inputs": value for name, value in found.items()}


def shortcut_strided(space: Space, **inputs: Any) -> dict[str, Any]:
    """Pass arrays whose elements are not next to each other in memory."""
    found = shortcut(space, **{name: spread(value) for name, value in inputs.items()})
    return {f"{name}, inputs not contiguous": value for name, value in found.items()}


def shortcut_apart(space: Space, x: np.ndarray, dy: np.ndarray, **inputs: Any) -> dict[str, Any]:
    """Show whether the results share memory with the inputs."""
    found = shortcut(space, x=x, dy=dy, **inputs)
    return {**found, "y shares memory with x": np.shares_memory(found["y"], x),
            "dx shares memory with dy": np.shares_memory(found["dx"], dy)}


def shortcut_adjoint(space: Space, x: np.ndarray, dy: np.ndarray, **inputs: Any) -> dict[str, Any]:
    """Return <y, dy> and <x, dx> in integers, which must be equal."""
    found = shortcut(space, x=x, dy=dy, **inputs)
    for name, array in ("y", dy), ("dx", x):
        if found[name].shape != array.shape:
            raise TypeError(f"{name} must have the shape {array.shape}, not {found[name].shape}")
    return {"<y, dy> (exact)": (found["y"] * dy).sum(),
            "<x, dx>, which must be <y, dy> (exact)": (x * found["dx"]).sum()}


# ---------------------------------------------------------------------------------- 5.5: the Module


def refuse_blocks(one: Any) -> None:
    """Raise TypeError if a Module is or contains one of minires' own blocks, which are the answer."""
    for _, module in one.modules():
        if any(kind.__module__ == "minires.nn.blocks" for kind in type(module).__mro__):
            raise TypeError("Block must be your own class, without minires' blocks inside")


def built(space: Space, sizes: list[int], options: dict[str, str], state: dict[str, Any], dtype: str) -> Any:
    """Return the student's Block with the arrays `state`. Raise TypeError if it has no array of one of these names."""
    found = space["Block"](*sizes, rng=np.random.default_rng(11), **options).astype(dtype)
    refuse_blocks(found)
    mine = found.state()
    if missing := [name for name in state if name not in mine]:
        raise TypeError(f"the block's state must have the names {', '.join(state)}. Missing: {', '.join(missing)}")
    for name, array in state.items():
        if mine[name].shape != array.shape:
            raise TypeError(f"{name}: expected an array of shape {array.shape}, got {mine[name].shape}")
        mine[name].data = array.astype(dtype)
    return found


def trained(one: Any, x: np.ndarray, dy: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Return y, all gradients and the running statistics of a block in train mode. No gradient is an empty array."""
    from ..tensor import Tensor

    leaf = Tensor(x.copy(), True)
    y = one(leaf)
    y.backward(dy)
    state = one.state()
    found = {"y": y.data, "dx": np.zeros(0) if leaf.grad is None else leaf.grad}
    for name in names:
        if "running" in name:
            found[f"{name} after train mode"] = state[name].data
        else:
            grad = state[name].grad
            found[f"gradient of {name}"] = np.zeros(0) if grad is None else grad
    return found


def module(space: Space, sizes: list[int], options: dict[str, str], state: dict[str, Any], x: np.ndarray,
           dy: np.ndarray, dtype: str = "float64") -> dict[str, Any]:
    """Run a block in train mode, forward and backward, and then in eval mode."""
    from .. import kernels
    from ..tensor import Tensor

    with kernels.using("reference"):
        one = built(space, sizes, options, state, dtype)
        found = trained(one, x.astype(dtype), dy.astype(dtype), list(state))
        one.eval()
        found["y in eval mode"] = one(Tensor((2 * x + 1).astype(dtype))).data
        after = one.state()
        for name in state:
            if "running" in name:
                found[f"{name} after eval mode"] = after[name].data
    return {**found, "number of arrays in the state": len(after)}


def modes(space: Space, sizes: list[int], options: dict[str, str], state: dict[str, Any], x: np.ndarray,
          dy: np.ndarray) -> dict[str, Any]:
    """Run a block in eval mode, and then in train mode again."""
    from .. import kernels
    from ..tensor import Tensor

    with kernels.using("reference"):
        one = built(space, sizes, options, state, "float64")
        one.eval()
        first = one(Tensor(x.copy())).data
        one.train()
        found = trained(one, x, dy, list(state))
    return {"y in eval mode": first, **{f"{name}, eval mode before": value for name, value in found.items()}}


def start(space: Space, sizes: list[int], options: dict[str, str], seed: int, names: list[str]) -> dict[str, Any]:
    """Return the arrays of a new block."""
    state = space["Block"](*sizes, rng=np.random.default_rng(seed), **options).state()
    if missing := [name for name in names if name not in state]:
        raise TypeError(f"the block's state must have the names {', '.join(names)}. Missing: {', '.join(missing)}")
    return {**{f"{name} at the start": state[name].data for name in names},
            "number of arrays in the state": len(state)}


def zeroed(space: Space, sizes: list[int], options: dict[str, str], state: dict[str, Any], x: np.ndarray,
           dy: np.ndarray) -> dict[str, Any]:
    """Call zero_gamma, and run the block."""
    from .. import kernels

    with kernels.using("reference"):
        one = built(space, sizes, options, state, "float64")
        names = one.zero_gamma()
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"zero_gamma must return a list of names, not {described(names)}")
        arrays = one.state()
        zero = {f"{name} is zero": not arrays[name].data.any() for name in state if name.endswith("weight")}
        found = trained(one, x, dy, list(state))
        right = sorted(names) == sorted(name for name in state if name.endswith("weight")
                                        and not arrays[name].data.any())
    return {"y": found["y"], **zero, "zero_gamma names what is zero": right,
            **{name: value for name, value in found.items() if name.startswith("gradient")}}


def stacked(space: Space, blocks: list[dict[str, Any]], x: np.ndarray, dy: np.ndarray) -> dict[str, Any]:
    """Run several blocks, the first built first, forward and backward. blocks: sizes, options and state of each."""
    from .. import kernels
    from ..tensor import Tensor

    with kernels.using("reference"):
        made = [built(space, **arguments, dtype="float64") for arguments in blocks]
        leaf = y = Tensor(x.copy(), True)
        for one in made:
            y = one(y)
        y.backward(dy)
    return {f"y of {len(made)} blocks": y.data,
            f"dx through {len(made)} blocks": np.zeros(0) if leaf.grad is None else leaf.grad}
