"""These context managers watch a model while it runs, or restore the model after temporary changes."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import numpy as np

See = Callable[[Any, tuple[Any, ...], Any], None]  # of a module, its inputs and its output
watchers: ContextVar[tuple[See, ...]] = ContextVar("watchers", default=())


@contextmanager
def watched(see: See) -> Iterator[None]:
    """Call the hook `see(module, inputs, output)` after the forward of every module, inside this context.

    `tap.Tap` and the analyses use it.
    """
    hook = partial(see)  # an object of its own, because `see` may be watching already
    watchers.set((*watchers.get(), hook))
    try:
        yield
    finally:  # by identity: a context that nobody closed ends in the garbage collector, which may run anywhere
        watchers.set(tuple(one for one in watchers.get() if one is not hook))


def being_watched() -> bool:
    """Return True if a hook is active. Then every module runs on its own, and no modules are fused."""
    return bool(watchers.get())


@contextmanager
def modes_kept(model: Any) -> Iterator[None]:
    """Restore the mode, train or eval, of every module at the end of this context."""
    modes = [(m, m.training) for _, m in model.modules()]
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training


@contextmanager
def untouched(model: Any) -> Iterator[Any]:
    """Restore the state, modes, gradients, generators and what is frozen at the end of this context, bit for bit.

    A generator is any NumPy Generator that is an attribute of a module, such as the `rng` of Dropout.
    """
    generators = [g for _, m in model.modules() for g in vars(m).values() if isinstance(g, np.random.Generator)]
    drawn = [(g.bit_generator, g.bit_generator.state) for g in generators]
    freezes = [(m, m.frozen, m.kept) for _, m in model.modules()]
    state = {name: (t, t.data, t.grad, t.requires_grad) for name, t in model.state().items()}
    copies = {name: data.copy() for name, (_, data, _, _) in state.items()}
    try:
        with modes_kept(model):
            yield model
    finally:
        for m, frozen, kept in freezes:
            if (m.frozen, m.kept) != (frozen, kept):
                m.frozen, m.kept = frozen, kept
        for name, (t, data, grad, requires_grad) in state.items():
            if getattr(data.flags, "writeable", True):  # a read-only array cannot have changed
                data[...] = copies[name]  # in place, because other code may hold the array itself
            t.data, t.grad, t.requires_grad = data, grad, requires_grad
        for bits, before in drawn:
            bits.state = before
