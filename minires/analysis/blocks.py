"""Blocks taken apart: which a model has, what their shortcuts do, and running a model with some of them replaced."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from .. import nn, ops, tap
from ..tensor import Tensor


def blocks(model: nn.Module) -> dict[str, Any]:
    """{name: block} in layer order. A block is a module with a place for a shortcut's projection, `downsample`;
    one built with residual=False counts too. ValueError if there is none."""
    found = {name: m for name, m in model.modules() if hasattr(m, "downsample")}
    if not found:
        raise ValueError("this model has no residual or plain block (nn.Block and its relatives)")
    return found


def same_shape(named: dict[str, Any]) -> list[list[str]]:
    """The blocks' names in groups, in order: of one kind, one width, and none that changes the shape."""
    groups: dict[tuple, list[str]] = {}
    for name, block in named.items():
        if block.stride == 1 and block.downsample is None and channels_in(block) == channels_out(block):
            groups.setdefault((type(block), channels_in(block)), []).append(name)
    return list(groups.values())


def channels_in(block: Any) -> int:
    """Channels of the block's input."""
    return _convolutions(block)[0].weight.shape[1]


def channels_out(block: Any) -> int:
    """Channels of the block's output."""
    return _convolutions(block)[-1].weight.shape[0]


def _convolutions(block: Any) -> list[Any]:
    return [m for _, m in block.children() if isinstance(m, nn.Conv2d)]


def shortcut(block: Any, x: Tensor) -> Tensor:
    """What the block's shortcut does to its input: the skip connection alone, before any activation behind it."""
    if getattr(block, "split_after_activation", False):
        x = nn.bn_relu(block.bn1, x)
    if block.downsample is not None:
        return block.downsample(x)
    if block.stride == 1 and x.shape[1] == channels_out(block):
        return x
    return ops.shortcut(x, block.stride, channels_out(block), getattr(block, "pad", "both"))


def activates_last(block: Any) -> bool:
    """Does a ReLU stand behind the addition? In v1 it does, in v2's pre-activation blocks not."""
    return not hasattr(block, "split_after_activation")


@contextmanager
def replaced(model: nn.Module, forwards: dict[str, Any]) -> Iterator[None]:
    """Inside, the blocks of these names run other forwards."""
    named = blocks(model)
    with tap.untouched(model), ExitStack() as undo:
        for name, forward in forwards.items():
            block = named[name]
            before = vars(block).get("forward")  # a forward that somebody set on this one object comes back
            block.forward = forward
            undo.callback(setattr, block, "forward", before) if before else undo.callback(delattr, block, "forward")
        yield
