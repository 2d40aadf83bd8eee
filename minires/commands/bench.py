"""Measure the time of a training step: of every operation's forward and backward, of the optimiser, and of the rest.

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

REST = "everything else"  # the engine: building and traversing the graph, sums where paths meet, running statistics


@contextmanager
def timed(seconds: dict[str, float]) -> Iterator[None]:
    """Inside this context every Function's forward and backward adds its time to `seconds["Conv2d forward"]` etc.

    The methods themselves are wrapped, not the engine's calls of them, so that the engine's work around an operation
    counts as the engine's. On exit, also after an exception, the original methods are restored.
    """
    originals = [(cls, name, vars(cls)[name]) for cls in _all_functions(Function)
                 for name in ("forward", "backward") if name in vars(cls)]
    busy = False  # an operation that calls another operation is counted once, as a whole

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
    """Return every direct and indirect subclass of `base` once."""
    below: list[type] = base.__subclasses__()
    return list(dict.fromkeys(c for sub in below for c in (sub, *_all_functions(sub))))


def profile_step(model: Module, images: Any, labels: Any, optimizer: SGD, steps: int = 5) -> dict[str, float]:
    """Train `model` for `steps` steps on one batch, and return {what: seconds per step}.

    images: (N, C, H, W)
    labels: (N,) integers

    The largest values come first, and REST is last. The values add up to the whole step. The first step of a process is
    slow, so take one step before calling this.

    Raises ValueError if `steps` is below 1.
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
    """Run a step up to its update, as train.step does, but without the check that the loss is finite."""
    optimizer.zero_grad()
    ops.cross_entropy(model(Tensor(images)), labels).backward()


def shares(seconds: dict[str, float]) -> dict[str, float]:
    """Convert {what: seconds} to {what: percent of the step}."""
    total = sum(seconds.values())
    return {name: 100 * s / total for name, s in seconds.items()}


def text(seconds: dict[str, float]) -> str:
    """Return a table of milliseconds per step and of shares in percent."""
    rows = [(name, 1000 * s, share) for (name, s), share in zip(seconds.items(), shares(seconds).values(), strict=True)]
    rows.append(("a step", 1000 * sum(seconds.values()), 100.0))
    width = max(len(name) for name, _, _ in rows)
    return "\n".join([f"{'':{width}} {'ms':>10} {'share':>8}",
                      *(f"{name:{width}} {ms:10.2f} {share:6.1f} %" for name, ms, share in rows)])


def bench(depth: int = 20, batch: int = 128, steps: int = 10, threads: int | None = None, profile: bool = False) -> str:
    """Time training steps of a CIFAR ResNet on random images, and return the result as text.

    threads   number of threads for the kernels; if not given, the environment decides
    profile   whether to add a table that shows where the time goes

    Raises ValueError if a number is below 1, or if there is no CIFAR ResNet with this `depth`.
    """
    for name, value in ("batch", batch), ("steps", steps), ("threads", threads if threads is not None else 1):
        if value < 1:
            raise ValueError(f"bench: expected {name} >= 1, got {value}")
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((batch, 3, 32, 32), np.float32), rng.integers(0, 10, batch)
    model = models.cifar(depth, rng=rng)
    optimizer = SGD(model.parameters(), 0.01, 0.9, 1e-4)
    with parallel.session(threads):
        profile_step(model, images, labels, optimizer, 1)  # starts the threads and allocates memory
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
