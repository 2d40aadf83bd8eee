"""Exercise the answers of A8: blocks, a count and a network."""
from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .drivers import Space, described, single, spread

NORM = "weight", "bias", "running_mean", "running_var"
LAYERS = {"PreactBlock": ("bn1", "conv1", "bn2", "conv2"), "ScaledBlock": ("conv1", "bn1", "conv2", "bn2"),
          "Bottleneck": ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3"),
          "GatedBlock": ("conv1", "bn1", "conv2", "bn2", "gate")}


def state_names(layers: Iterable[str]) -> list[str]:
    """Return the names in state() of the named layers: four of a BN, weight and bias of fc and gate, else weight."""
    found = []
    for layer in layers:
        kind = layer.rpartition(".")[2]
        parts = NORM if kind.startswith("bn") else NORM[:2] if kind in ("fc", "gate") else NORM[:1]
        found += [f"{layer}.{part}" for part in parts]
    return found


def filled(module: Any, what: str, expected: Sequence[str], seed: int, dtype: Any) -> dict[str, Any]:
    """Give every state of a module numbers that depend on its name, its shape and the seed. Return the state.

    Raises TypeError, with a sentence for the student, if `module` is not a Module or a name is missing.
    """
    from ..nn import Module

    if not isinstance(module, Module):
        raise TypeError(f"{what} must be an nn.Module, not {described(module)}")
    state = module.astype(dtype).state()
    missing, more = [n for n in expected if n not in state], [n for n in state if n not in expected]
    if missing:
        raise TypeError(f"{what}: state() must have the names {', '.join(expected)}. Missing: {', '.join(missing)}."
                        + f" Unexpected: {', '.join(more)}." * bool(more))
    for name, t in state.items():
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        if name.endswith("running_var"):
            new = rng.uniform(0.5, 2, t.shape)
        elif t.ndim == 1 and name.endswith("weight"):  # of a normalisation
            new = rng.uniform(0.6, 1.4, t.shape) * rng.choice([-1, 1], t.shape)
        elif t.ndim == 1:
            new = rng.uniform(-0.3, 0.3, t.shape)
        else:
            new = rng.standard_normal(t.shape) / np.sqrt(t.size / t.shape[0])
        t.data = new.astype(dtype)
    return state


def passed(module: Any, state: dict[str, Any], gradients: Sequence[str], x: np.ndarray, dy: np.ndarray, what: str
           ) -> dict[str, Any]:
    """Pass x forward and dy backward. Return the number of numbers in the parameters, y, and the gradients.

    Without a gradient of the right shape to send back, the gradients are empty.
    """
    from ..tensor import Tensor

    t = Tensor(x, True)
    y = module(t)
    if not isinstance(y, Tensor):
        raise TypeError(f"{what} must return a Tensor, not {described(y)}")
    found = {"numbers in the parameters": sum(p.size for p in state.values() if p.requires_grad), "y": y.data}
    tensors = {"dx": t, **{f"d {name}": state[name] for name in gradients}}
    if y.shape == dy.shape and y.requires_grad:
        y.backward(dy)
        found |= {name: np.zeros_like(p.data) if p.grad is None else p.grad for name, p in tensors.items()}
    else:
        found |= {name: np.zeros(0) for name in tensors}
    return {**found, "x after the forward pass (exact)": t.data}


def block(space: Space, name: str, sizes: Sequence[int], x: np.ndarray, dy: np.ndarray, seed: int,
          mode: str = "train", first: np.ndarray | None = None, **options: Any) -> dict[str, Any]:
    """Build a block, give it numbers, and pass x and dy through it.

    sizes: in_channels, out_channels, stride
    first: a batch that goes through the block in train mode before
    """
    made = space[name](*sizes, **options, rng=np.random.default_rng(0))
    expected = state_names(LAYERS[name])
    if options.get("shortcut") == "B" and (sizes[2] != 1 or sizes[0] != sizes[1]):
        expected += ["downsample.0.weight", *(f"downsample.1.{part}" for part in NORM if name == "Bottleneck")]
    start = np.array(made.state()["gate.bias"].data) if name == "GatedBlock" and "gate.bias" in made.state() else None
    state = filled(made, name, expected, seed, x.dtype)
    if first is not None:
        from ..tensor import Tensor

        made.train()(Tensor(np.array(first)))
    (made.train if mode == "train" else made.eval)()
    found = passed(made, state, [n for n in expected if "running" not in n], x, dy, name)
    return found if start is None else {"gate.bias before training": start, **found}


def writable(space: Space, x: np.ndarray, **inputs: Any) -> dict[str, Any]:
    """Pass an x that may be written to, which shows who does it."""
    return block(space, x=np.array(x), **inputs)


def float32(space: Space, **inputs: Any) -> dict[str, Any]:
    """Float32 goes in and must come out."""
    found = block(space, **{name: single(value) for name, value in inputs.items()})
    return {f"{name} of float32 inputs": value for name, value in found.items()}


def strided(space: Space, x: np.ndarray, **inputs: Any) -> dict[str, Any]:
    """Pass an x whose elements are not next to each other in memory."""
    return {f"{name}, x not contiguous": value for name, value in block(space, x=spread(x), **inputs).items()}


def stack(space: Space, channels: int, x: np.ndarray, dy: np.ndarray, blocks: int) -> dict[str, Any]:
    """Pass x and dy through many pre-activation blocks whose branch is zero: nothing may change, to the last bit."""
    from ..tensor import Tensor

    t = y = Tensor(np.array(x), True)
    for i in range(blocks):
        made = space["PreactBlock"](channels, channels, rng=np.random.default_rng(0))
        state = filled(made, "PreactBlock", state_names(LAYERS["PreactBlock"]), i, x.dtype)
        state["conv2.weight"].data = np.zeros_like(state["conv2.weight"].data)
        y = made(y)
    out = np.array(y.data)
    y.backward(dy)
    dx = np.zeros_like(x) if t.grad is None else t.grad
    return {f"y after {blocks} blocks with F = 0 (exact)": out, f"dx after {blocks} blocks with F = 0 (exact)": dx}


def count(space: Space, depth: int, width: int, block: str, shortcut: str) -> dict[str, Any]:
    """Return both numbers."""
    returned = space["count"](depth, width, block, shortcut)
    if not isinstance(returned, (tuple, list)) or len(returned) != 2 or any(value is None for value in returned):
        raise TypeError(f"count must return two numbers, parameters and MACs, not {described(returned)}")
    whole = [int(value) if value == int(value) else float(value) for value in returned]
    return {"parameters": whole[0], "multiply-accumulates": whole[1]}


def net(space: Space, depth: int, width: int, x: np.ndarray, dy: np.ndarray, seed: int, mode: str = "train"
        ) -> dict[str, Any]:
    """Build the network, give it numbers, and pass images and the logits' gradient through it."""
    made = space["preact_net"](depth, width, np.random.default_rng(0))
    blocks = [f"layer{stage}.{i}" for stage in (1, 2, 3) for i in range((depth - 2) // 6)]
    layers = ["conv1", *(f"{block}.{layer}" for block in blocks for layer in LAYERS["PreactBlock"]), "bn", "fc"]
    state = filled(made, "preact_net", state_names(layers), seed, x.dtype)
    (made.train if mode == "train" else made.eval)()
    last = f"{blocks[-1]}.conv2.weight"
    return passed(made, state, ["conv1.weight", "layer1.0.bn1.weight", last, "bn.weight", "fc.weight"], x, dy,
                  "preact_net")


def net_float32(space: Space, **inputs: Any) -> dict[str, Any]:
    """Float32 goes in and must come out."""
    found = net(space, **{name: single(value) for name, value in inputs.items()})
    return {f"{name} of float32 images": value for name, value in found.items()}
