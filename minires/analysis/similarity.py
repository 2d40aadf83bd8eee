"""Linear CKA: how alike two layers represent the same images. Kornblith et al. 2019, "Similarity of Neural Network
Representations Revisited", section 3.

1 for representations that differ by a rotation and a scale (which is why it is used: units have no order, layers no
common scale), less under any other linear map.
"""
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import device, nn
from ..tensor import Tensor
from . import common


def cka(x: Any, y: Any, debiased: bool = False) -> float:
    """Linear CKA of two representations of the same N inputs, (N, ...) each; in [0, 1].

    With far more features than images even unrelated representations come out alike; debiased=True corrects for that
    (Nguyen et al. 2021, the unbiased HSIC of Song et al. 2012; needs N >= 4) and may fall slightly below 0.
    """
    if len(x) != len(y):
        raise ValueError(f"cka: expected representations of the same inputs, got {len(x)} and {len(y)}")
    return _alike(_gram(x), _gram(y), debiased)


class Similarity(NamedTuple):
    """The CKA of the layers of two networks, or of one with itself."""

    rows: list[str]            # layers of the one
    columns: list[str]         # layers of the other
    values: list[list[float]]  # values[i][j]: of rows[i] with columns[j]


def cka_matrix(model: nn.Module, images: Any, other: nn.Module | None = None, *, kinds: tuple[type, ...] = (),
               debiased: bool = False) -> Similarity:
    """The CKA of every layer of `model` with every layer of `other`, in eval mode.

    Without `other` the model is compared with itself. kinds: the modules looked at (default: convolutions and linear
    layers in layer order). Only an N x N matrix is kept of every layer. Models are left as they were.
    """
    mine = _grams(model, images, kinds)
    theirs = mine if other is None else _grams(other, images, kinds)
    rows = [[_alike(a, b, debiased) for b in theirs.values()] for a in mine.values()]
    return Similarity(list(mine), list(theirs), rows)


def _grams(model: nn.Module, images: Any, kinds: tuple[type, ...]) -> dict[str, np.ndarray]:
    wanted = {n for n, m in model.modules() if isinstance(m, kinds)} if kinds else set(common.weight_layers(model))
    if not wanted:
        raise ValueError("cka_matrix: the model has no such module to look at")
    found: dict[str, np.ndarray] = {}

    def see(name: str, module: nn.Module, x: Tensor, out: Tensor) -> None:
        if name in wanted:
            found[name] = _gram(out.data)

    common.run(model, images, see)
    return found


def _gram(x: Any) -> np.ndarray:
    """Inner products of the N representations, each feature's mean subtracted: (N, N), float64."""
    flat = x.reshape(len(x), -1).astype("f8")
    flat = flat - flat.mean(0)
    return device.to(flat @ flat.T, "cpu")


def _alike(k: np.ndarray, l: np.ndarray, debiased: bool) -> float:
    hsic = _hsic_unbiased if debiased else lambda a, b: float((a * b).sum())
    if debiased and len(k) < 4:
        raise ValueError(f"cka: the debiased form needs four or more inputs, got {len(k)}")
    scale = hsic(k, k) * hsic(l, l)
    return hsic(k, l) / scale ** 0.5 if scale > 0 else float("nan")  # a layer that puts out a constant has no CKA


def _hsic_unbiased(k: np.ndarray, l: np.ndarray) -> float:
    """Song et al. 2012, equation 5: the diagonals, an input's likeness to itself, are left out."""
    n = len(k)
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))
    total = (k * l).sum() + k.sum() * l.sum() / ((n - 1) * (n - 2)) - 2 * (k.sum(0) @ l.sum(0)) / (n - 2)
    return float(total / (n * (n - 3)))
