"""This module has what the experiments share: a model's weight layers, and runs that leave the model unchanged."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .. import nn
from ..tensor import Tensor, no_grad

Progress = Callable[[Iterable[Any]], Iterable[Any]]  # tqdm.auto.tqdm, or `iter`, which shows nothing


def weight_layers(model: nn.Module) -> dict[str, Any]:
    """Return {name: convolution or linear layer} in layer order, without the projections of shortcuts.

    A projection runs beside other layers, so it has no place in their order.
    """
    beside = {id(inner) for _, m in model.modules() if isinstance(side := getattr(m, "downsample", None), nn.Module)
              for _, inner in side.modules()}
    return {name: m for name, m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear)) and id(m) not in beside}


def run(model: nn.Module, images: Any, see: Callable[[str, Any, Tensor, Tensor], None], *, train: bool = False) -> Any:
    """Send `images` through the model, call `see(name, module, input, output)` after every module, return the output.

    images: one batch, (N, C, H, W) or (N, features)

    The output is an array. No graph is recorded, and the model is left unchanged.
    """
    names = {id(m): name for name, m in model.modules()}

    def watch(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        if id(module) in names:
            see(names[id(module)], module, inputs[0], out)

    with nn.untouched(model), nn.watched(watch), no_grad():
        return (model.resume_training() if train else model.eval())(Tensor(images)).data


def follow(events: Iterable[Any], look: Callable[[], Any], at: Iterable[int]) -> dict[int, Any]:
    """Call `look` before a training (step 0) and after each of its steps in `at`, and return {step: look()}.

    events: what `train.fit` yields; all of it is consumed, so the training runs to its end

    For example:

        follow(fit(net, ...), lambda: gradient_flow(net, x, labels), at=range(50, 1001, 50))
    """
    at, found = set(at), {0: look()}
    for event in events:
        step = getattr(event, "step", None)  # an Epoch has no step
        if step in at:
            found[step] = look()
    return found
