"""Where a training step's time goes: seconds of every operation's forward and backward, of the optimiser, of the rest.

    print(bench.text(bench.profile_step(model, images, labels, optimizer)))
"""
from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .. import info, models, ops
from ..kernels import parallel
from ..nn import Module
from ..optim import SGD
from ..tensor import Function, Tensor

REST = "everything else"  # the engine: graph and sweep, sums where paths meet, running statistics


@contextmanager
def timed(seconds: dict[str, float]) -> Iterator[None]:
    """Inside, every Function's forward and backward adds its seconds to `seconds["Conv2d forward"]` and the like.

    The methods themselves are wrapped, not the engine's calls of them, so that what the engine does around an
    operation counts as the engine's. At the end, also by an exception, they are what they were.
    """
    originals = [(cls, name, vars(cls)[name]) for cls in _all_functions(Function)
                 for name in ("forward", "backward") if name in vars(cls)]
    busy = False  # an operation that calls another one is counted as a whole, once

    def wrap(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def run(self: Function, *args: Any, **options: Any) -> Any:
            nonlocal busy
            if busy:
                return method(self, *args, **options)
            busy, start = True, time.perf_counter()
            try:
                return method(self, *args, **options)
            finally:
                spent, busy = time.perf_counter() - start, False
                key = f"{type(self).__name__} {name}"
                seconds[key] = seconds.get(key, 0.0) + spent

        return run

    try:
        for cls, name, method in originals:
            setattr(cls, name, wrap(name, method))
        yield
    finally:
        for cls, name, method in originals:
            setattr(cls, name, method)


def _all_functions(base: type) -> list[type]:
    """Every class below `base`, each once."""
    below: list[type] = base.__subclasses__()
    return list(dict.fromkeys(c for sub in below for c in (sub, *_all_functions(sub))))


def profile_step(model: Module, images: Any, labels: Any, optimizer: SGD, steps: int = 5) -> dict[str, float]:
    """Train `model` for `steps` steps on one batch; {what: seconds per step}, the longest first, REST at the end.

    The values add up to the whole step. The first step of a process is slow; take one before.
    """
    if steps < 1:
        raise ValueError(f"profile_step: expected steps >= 1, got {steps}")
    seconds: dict[str, float] = {}
    update = 0.0
    model.train()
    with timed(seconds):
        start = time.perf_counter()
        for _ in range(steps):
            _gradients(model, images, labels, optimizer)
            before = time.perf_counter()
            optimizer.step()
            update += time.perf_counter() - before
        total = time.perf_counter() - start
    seconds[f"{type(optimizer).__name__} step"] = update
    rest = total - sum(seconds.values())
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    return {name: s / steps for name, s in [*ordered, (REST, rest)]}


def _gradients(model: Module, images: Any, labels: Any, optimizer: SGD) -> None:
    """A step up to its update: train.step without its report of losses that are not finite."""
    optimizer.zero_grad()
    ops.cross_entropy(model(Tensor(images)), labels).backward()


def shares(seconds: dict[str, float]) -> dict[str, float]:
    """The same in percent of the step."""
    total = sum(seconds.values())
    return {name: 100 * s / total for name, s in seconds.items()}


def text(seconds: dict[str, float]) -> str:
    """A table of milliseconds per step and shares."""
    rows = [(name, 1000 * s, share) for (name, s), share in zip(seconds.items(), shares(seconds).values(), strict=True)]
    rows.append(("a step", 1000 * sum(seconds.values()), 100.0))
    width = max(len(name) for name, _, _ in rows)
    return "\n".join([f"{'':{width}} {'ms':>10} {'share':>8}",
                      *(f"{name:{width}} {ms:10.2f} {share:6.1f} %" for name, ms, share in rows)])


def bench(depth: int = 20, batch: int = 128, steps: int = 10, threads: int | None = None, profile: bool = False) -> str:
    """A quick look at this machine: training steps of a CIFAR ResNet on random images, in words and numbers.

    `threads` for the kernels; as the environment says without it. `profile` adds where the time goes.
    """
    for name, value in ("batch", batch), ("steps", steps), ("threads", threads if threads is not None else 1):
        if value < 1:
            raise ValueError(f"bench: expected {name} >= 1, got {value}")
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((batch, 3, 32, 32), np.float32), rng.integers(0, 10, batch)
    model = models.cifar(depth, rng=rng)
    optimizer = SGD(model.parameters(), 0.01, 0.9, 1e-4)
    with parallel.session(threads):
        profile_step(model, images, labels, optimizer, 1)  # threads start, memory is fetched
        times = []
        for _ in range(steps):
            start = time.perf_counter()
            _gradients(model, images, labels, optimizer)
            optimizer.step()
            times.append(time.perf_counter() - start)
        median = statistics.median(times)
        lines = [f"ResNet-{depth}, {model.count_parameters():,} parameters, batch {batch}; kernels "
                 + info.kernels_in_words(),
                 f"a training step takes {1000 * median:.1f} ms (median of {steps}; best {1000 * min(times):.1f}): "
                 f"{batch / median:,.0f} images/s"]
        if profile:
            lines += ["", text(profile_step(model, images, labels, optimizer, steps))]
    return "\n".join(lines)
