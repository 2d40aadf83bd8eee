"""Look at a model while it runs, or borrow it: afterwards it is as it was."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

See = Callable[[Any, tuple[Any, ...], Any], None]  # of a module, its inputs and its output
watchers: ContextVar[tuple[See, ...]] = ContextVar("watchers", default=())


@contextmanager
def watched(see: See) -> Iterator[None]:
    """Inside, `see(module, inputs, output)` is called after every module's forward. What taps stand on."""
    token = watchers.set((*watchers.get(), see))
    try:
        yield
    finally:
        watchers.reset(token)


def being_watched() -> bool:
    """Does something look inside? Then every module runs by itself, and nothing is made one."""
    return bool(watchers.get())


@contextmanager
def modes_kept(model: Any) -> Iterator[None]:
    """Inside, switch between train and eval mode as you like: afterwards every module's mode is as it was."""
    modes = [(m, m.training) for _, m in model.modules()]
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training


@contextmanager
def untouched(model: Any) -> Iterator[Any]:
    """Inside, do with the model's state, modes and gradients what you like: afterwards they are as they were,
    bit for bit, and its generators (a Dropout's `rng`) stand where they stood."""
    generators = [g for _, m in model.modules() for g in vars(m).values() if isinstance(g, np.random.Generator)]
    drawn = [(g.bit_generator, g.bit_generator.state) for g in generators]
    state = {name: (t, t.data, t.grad) for name, t in model.state().items()}
    copies = {name: data.copy() for name, (_, data, _) in state.items()}
    try:
        with modes_kept(model):
            yield model
    finally:
        for name, (t, data, grad) in state.items():
            if getattr(data.flags, "writeable", True):  # a read-only array cannot have changed
                data[...] = copies[name]  # in place, for those who hold the array itself
            t.data, t.grad = data, grad
        for bits, before in drawn:
            bits.state = before
