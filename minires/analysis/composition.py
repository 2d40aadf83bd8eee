"""This module follows numbers through a stack of blocks, to draw what each block does to them."""
from __future__ import annotations

from typing import Any

import numpy as np

from .. import device, nn
from . import common


def after_each_block(model: nn.Sequential, x: Any) -> np.ndarray:
    """Return x and the output of every layer of a Sequential that maps one number to one number.

    model: for example `models.scalar_stack(8)`
    x: (N,), the numbers
    Returns an array (layers + 1, N): row 0 is x, and row i is the output after layer i. The model is left unchanged.

    Raises ValueError for another shape of x, or if a layer's output has another shape than (N, 1).
    """
    if getattr(x, "ndim", None) != 1:
        raise ValueError(f"after_each_block: expected x of shape (N,), got {getattr(x, 'shape', type(x).__name__)}")
    names = [str(i) for i in range(len(model))]
    rows: dict[str, Any] = {}

    def see(name: str, module: nn.Module, inputs: Any, out: Any) -> None:
        if name in names:
            if out.shape != (len(x), 1):
                raise ValueError(f"after_each_block: expected layer {name} to return shape {(len(x), 1)}, got "
                                 f"{out.shape}")
            rows[name] = device.to(out.data, "cpu")[:, 0]

    common.run(model, x[:, None], see)
    return np.stack([device.to(x, "cpu"), *(rows[name] for name in names)])
