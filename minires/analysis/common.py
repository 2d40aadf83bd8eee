"""What the experiments share: which modules are layers, and runs of a model that leave no trace."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .. import nn
from ..tensor import Tensor, no_grad

Progress = Callable[[Iterable], Iterable]  # tqdm.auto.tqdm, or `iter`, which reports nothing


def weight_layers(model: nn.Module) -> dict[str, Any]:
    """{name: convolution or linear layer} in layer order. Projections lie beside the layers, not in their order,
    and are left out."""
    beside = {id(inner) for _, m in model.modules() if isinstance(side := getattr(m, "downsample", None), nn.Module)
              for _, inner in side.modules()}
    return {name: m for name, m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear)) and id(m) not in beside}


def run(model: nn.Module, images: Any, see: Callable[[str, Any, Tensor, Tensor], None], *, train: bool = False) -> Any:
    """Send `images` through; `see(name, module, input, output)` after every module. Returns the output's array.

    No graph is recorded, and the model is left as it was.
    """
    names = {id(m): name for name, m in model.modules()}

    def watch(module, inputs, out):
        if id(module) in names:
            see(names[id(module)], module, inputs[0], out)

    with nn.untouched(model), nn.watched(watch), no_grad():
        return model.train(train)(Tensor(images)).data


def follow(events: Iterable[Any], look: Callable[[], Any], at: Iterable[int]) -> dict[int, Any]:
    """{step: look()} before a training (step 0) and after each of its steps that are in `at`.

    events: what `train.fit` yields; the training runs to its end. For example

        follow(fit(net, ...), lambda: gradient_flow(net, x, labels), at=range(50, 1001, 50))
    """
    at, found = set(at), {0: look()}
    for event in events:
        step = getattr(event, "step", None)  # an Epoch has none
        if step in at:
            found[step] = look()
    return found
