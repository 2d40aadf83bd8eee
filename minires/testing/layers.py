"""Check a layer, a block or a small network: its gradients in both modes, its dtypes, and what eval mode changes."""
from __future__ import annotations

import copy
from typing import Any

import numpy as np

from .. import nn
from ..gradient_check import GradientError, gradcheck_module
from ..tensor import Tensor
from .pairs import PairReport


def check_layer(module: nn.Module, *inputs: Any, rtol: float = 1e-5, entries: int = 100, **options: Any
                ) -> dict[str, PairReport]:
    """Check a Module at `inputs`, in train mode and in eval mode.

    In each mode the gradients of the float inputs and of all parameters are compared with finite differences, in
    float64 and with jittered parameters (`gradcheck_module`, which takes `rtol`, `entries` and the other options).
    Besides, this function requires that
    - float32 inputs give a float32 result and float32 gradients;
    - forward and backward leave the inputs unchanged;
    - a forward pass in eval mode leaves parameters and running statistics unchanged, bit for bit, and gives the same
      result again;
    - train() and eval() reach every module below: none keeps the other mode.

    The checks run on copies, so the module is unchanged afterwards.

    Returns {"train": report, "eval": report}. Raises GradientError, an AssertionError that lists every argument, right
    and wrong, and what else is wrong, of the first mode in which something is; TypeError if `module` is not a Module.
    """
    __tracebackhide__ = True  # pytest shows the caller's line and the message
    if not isinstance(module, nn.Module):
        raise TypeError(f"check_layer: expected a Module, got {type(module).__name__}; for plain functions use "
                        "check_backward")
    arrays = tuple(x.astype(np.float64) if _is_float(x) else x for x in inputs)
    reports = {}
    for mode in "train", "eval":
        net = copy.deepcopy(module).train(mode == "train")
        name = f"{type(module).__name__} in {mode} mode"
        manners = tuple(_manners(net, arrays, mode))
        try:
            found = gradcheck_module(net, *arrays, rtol=rtol, entries=entries, **options)
        except GradientError as e:
            found = e.report
        reports[mode] = PairReport(found.arguments, found.total, name, manners)
        if manners or any(a.problem for a in found.arguments):
            raise GradientError(reports[mode])
    return reports


def _is_float(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype.kind == "f"


def _manners(net: nn.Module, arrays: tuple[Any, ...], mode: str) -> list[str]:
    """Return a sentence for everything besides the gradients that is wrong. Changes `net`, which is a copy."""
    manners = []
    if others := [name or "the module itself" for name, m in net.modules()
                  if m.training != (mode == "train" and not m.frozen)]:
        manners.append(f"{mode}() does not reach {', '.join(others)}")
    net.astype(np.float32)
    inputs = [x.astype(np.float32) if _is_float(x) else x for x in arrays]
    before = {name: t.data.copy() for name, t in net.state().items()}
    given = [Tensor(x.copy(), True) if _is_float(x) else x for x in inputs]
    y = net(*given)
    first = y.data.copy()
    if y.requires_grad:
        rng = np.random.default_rng(1205)
        y.backward(rng.standard_normal(y.shape).astype(y.dtype))
    tensors = [(f"input {i}" if len(given) > 1 else "input", t) for i, t in enumerate(given) if isinstance(t, Tensor)]
    wide = [f"the gradient of {name}" for name, t in [*tensors, *net.state().items()]
            if t.grad is not None and t.grad.dtype != np.float32]
    if y.dtype != np.float32:
        wide.insert(0, "the result")
    if wide:
        manners.append(f"float32 does not stay float32: {', '.join(wide)}")
    manners += [f"forward or backward writes into {name}, which the caller still needs" for (name, t), x in
                zip(tensors, [x for x in inputs if _is_float(x)], strict=True) if not _same(t.data, x)]
    if mode == "eval":
        if moved := [name for name, t in net.state().items() if not _same(t.data, before[name])]:
            manners.append(f"a forward pass in eval mode changes {', '.join(moved)}")
        elif not _same(net(*_new(inputs)).data, first):
            manners.append("two forward passes in eval mode give two results")
    return manners


def _new(inputs: list[Any]) -> list[Any]:
    return [Tensor(x.copy()) if _is_float(x) else x for x in inputs]


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
