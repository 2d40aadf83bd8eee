"""Blocks taken apart: which a model has, what their shortcuts do, and running a model with some of them replaced."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from .. import nn
from ..tensor import Tensor

# The blocks whose parts are known, and whether a ReLU stands behind their addition: in v1 it does, in v2 not.
ACTIVATES_LAST = {nn.Block: True, nn.Bottleneck: True, nn.FixupBlock: True, nn.PreactBlock: False,
                  nn.PreactBottleneck: False}


def blocks(model: nn.Module) -> dict[str, Any]:
    """{name: block} in layer order; blocks built with residual=False count too. ValueError if there is none."""
    found = {name: m for name, m in model.modules() if isinstance(m, nn.ResidualBlock)}
    if not found:
        raise ValueError("this model has no residual or plain block (nn.Block and its relatives)")
    return found


def activates_last(block: Any) -> bool:
    """Does a ReLU stand behind the addition? ValueError for a block of another kind than those above."""
    if type(block) not in ACTIVATES_LAST:
        known = ", ".join(kind.__name__ for kind in ACTIVATES_LAST)
        raise ValueError(f"expected blocks of the kinds {known}, got {type(block).__name__}, which is put together "
                         "in another way")
    return ACTIVATES_LAST[type(block)]


def shortcut_output(block: Any, x: Tensor) -> Tensor:
    """What the block's shortcut does to its input: the skip connection alone, before any ReLU behind the addition."""
    if getattr(block, "split_after_activation", False):
        x = nn.bn_relu(block.bn1, x)
    return block.shortcut(x)


def same_shape(named: dict[str, Any]) -> list[list[str]]:
    """The blocks' names in groups, in order: of one kind, one width, and none that changes the shape."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, block in named.items():
        if block.stride == 1 and block.downsample is None and channels_in(block) == channels_out(block):
            key = type(block), channels_in(block), getattr(block, "split_after_activation", False)
            groups.setdefault(key, []).append(name)
    return list(groups.values())


def changes_shape(block: Any) -> bool:
    """Whether the block's output has another shape than its input: fewer places, or another number of channels."""
    return block.stride != 1 or channels_in(block) != channels_out(block)


def channels_in(block: Any) -> int:
    """Channels of the block's input."""
    return _convolutions(block)[0].weight.shape[1]


def channels_out(block: Any) -> int:
    """Channels of the block's output."""
    return last_convolution(block).weight.shape[0]


def last_convolution(block: Any) -> Any:
    """The convolution that ends the block's branch."""
    return _convolutions(block)[-1]


def _convolutions(block: Any) -> list[Any]:
    return [m for _, m in block.children() if isinstance(m, nn.Conv2d)]


@contextmanager
def replaced(model: nn.Module, forwards: dict[str, Any]) -> Iterator[None]:
    """Inside, the blocks of these names run other forwards."""
    named = blocks(model)
    with nn.untouched(model), ExitStack() as undo:
        for name, forward in forwards.items():
            block = named[name]
            before = vars(block).get("forward")  # a forward that somebody set on this one object comes back
            block.forward = forward
            undo.callback(setattr, block, "forward", before) if before else undo.callback(delattr, block, "forward")
        yield
