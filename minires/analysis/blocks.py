"""This module finds a model's blocks, computes their shortcuts alone, and runs the model with some blocks replaced."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from .. import nn
from ..tensor import Tensor

# The kinds of block whose parts are known, and whether a ReLU follows the addition: it does in v1, but not in v2.
ACTIVATES_LAST = {nn.Block: True, nn.Bottleneck: True, nn.FixupBlock: True, nn.PreactBlock: False,
                  nn.PreactBottleneck: False}


def blocks(model: nn.Module) -> dict[str, Any]:
    """Return {name: block} in layer order, including blocks built with residual=False.

    Raises ValueError if the model has no block.
    """
    found = {name: m for name, m in model.modules() if isinstance(m, nn.ResidualBlock)}
    if not found:
        raise ValueError("this model has no residual or plain block; this analysis needs blocks of the kinds "
                         f"{', '.join(kind.__name__ for kind in ACTIVATES_LAST)} of minires.nn")
    return found


def activates_last(block: Any) -> bool:
    """Return whether a ReLU follows the block's addition.

    Raises ValueError for a kind of block that ACTIVATES_LAST does not list.
    """
    if type(block) not in ACTIVATES_LAST:
        known = ", ".join(kind.__name__ for kind in ACTIVATES_LAST)
        raise ValueError(f"expected blocks of the kinds {known}, got {type(block).__name__}, whose structure is not "
                         "known here; to add a layer to a block, replace one of its parts, such as bn2, by "
                         "nn.Sequential(block.bn2, layer)")
    return ACTIVATES_LAST[type(block)]


def shortcut_output(block: Any, x: Tensor) -> Tensor:
    """Return the output of the block's shortcut alone, before any ReLU that follows the addition."""
    if getattr(block, "split_after_activation", False):
        x = nn.bn_relu(block.bn1, x)
    return block.shortcut(x)


def same_shape(named: dict[str, Any]) -> list[list[str]]:
    """Group the names of blocks that can replace each other, in layer order.

    The blocks of a group have the same kind and the same width, and none of them changes the shape.
    """
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, block in named.items():
        if block.stride == 1 and block.downsample is None and channels_in(block) == channels_out(block):
            key = type(block), channels_in(block), getattr(block, "split_after_activation", False)
            groups.setdefault(key, []).append(name)
    return list(groups.values())


def changes_shape(block: Any) -> bool:
    """Return whether the block's output differs from its input in height and width, or in the number of channels."""
    return block.stride != 1 or channels_in(block) != channels_out(block)


def channels_in(block: Any) -> int:
    """Return the number of channels of the block's input."""
    return _convolutions(block)[0].weight.shape[1]


def channels_out(block: Any) -> int:
    """Return the number of channels of the block's output."""
    return last_convolution(block).weight.shape[0]


def last_convolution(block: Any) -> Any:
    """Return the last convolution of the block's branch."""
    return _convolutions(block)[-1]


def _convolutions(block: Any) -> list[Any]:
    return [m for _, m in block.children() if isinstance(m, nn.Conv2d)]


@contextmanager
def replaced(model: nn.Module, forwards: dict[str, Any]) -> Iterator[None]:
    """Replace the forwards of some blocks while the context lasts.

    forwards: {name of a block: the function that it runs instead}

    The model is restored at the end, even after an exception.
    """
    named = blocks(model)
    with nn.untouched(model), ExitStack() as undo:
        for name, forward in forwards.items():
            block = named[name]
            before = vars(block).get("forward")  # a forward that was set on this object alone is restored
            block.forward = forward
            undo.callback(setattr, block, "forward", before) if before else undo.callback(delattr, block, "forward")
        yield
