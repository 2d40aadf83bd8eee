"""Exercise the answers to assignment a3: windows, convolution and pooling.

Drivers run next to a submission, so this module needs only NumPy and the standard library.
"""
from __future__ import annotations

import time
from typing import Any

import numpy as np

from .drivers import Forward, Gradients, One, Pair, Space, described

im2col = One("im2col", "columns")
col2im = One("col2im", "dx")


def output_size(space: Space, geometries: list[list[tuple[int, int]]]) -> dict[str, Any]:
    """Return Ho and Wo of every geometry (size, kernel, stride, padding)."""
    sizes = []
    for geometry in geometries:
        size = space["output_size"](*geometry)
        if not isinstance(size, (tuple, list)) or len(size) != 2:
            raise TypeError(f"output_size must return two integers, (Ho, Wo), not {described(size)}")
        sizes.append([np.asarray(n) for n in size])
    return {"Ho": np.array([high for high, _ in sizes]), "Wo": np.array([wide for _, wide in sizes])}


def adjoint(space: Space, cols: np.ndarray, x: np.ndarray, kernel: Any, stride: Any, padding: Any) -> dict[str, Any]:
    """Return <x, col2im(D)> in integers, which must be <im2col(x), D>."""
    dx = col2im(space, cols=cols, shape=x.shape, kernel=kernel, stride=stride, padding=padding)["dx"]
    if dx.shape != x.shape:
        raise TypeError(f"col2im must return an array of shape {x.shape}, not {dx.shape}")
    return {"<x, col2im(D)>, which must be <im2col(x), D> (exact)": (x * dx).sum()}


convolution = Gradients("conv2d_forward", "conv2d_backward", ("dx", "dw", "db"))
max_pool = Pair("max_pool_forward", "max_pool_backward")
avg_pool = Pair("avg_pool_forward", "avg_pool_backward")


class Timed(Forward):
    """Timed adds a driver that measures computing time."""

    def seconds(self, space: Space, **arguments: Any) -> dict[str, Any]:
        """Return y, and the least of three CPU times of four calls, of this thread: a product may wake others."""
        y = np.array(self.pair.forward(space, arguments)[0])
        times = []
        for _ in range(3):
            start = time.thread_time()
            for _ in range(4):
                self.pair.forward(space, arguments)
            times.append(time.thread_time() - start)
        return {"y": y, "seconds": min(times)}


forward = Timed("conv2d_forward")
