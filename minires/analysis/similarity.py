"""This module computes linear CKA, which measures how similarly two layers represent the same images.

Source: Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited", section 3.

CKA is 1 for representations that differ by a rotation and a scale. This is why it is used: units have no order, and
layers have no common scale. For representations that differ by any other linear map, CKA is below 1.
"""
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import device, nn
from ..tensor import Tensor
from . import common


def cka(x: Any, y: Any, debiased: bool = False) -> float:
    """Return the linear CKA of two representations of the same N inputs, in [0, 1]; NaN if one is constant.

    x, y       (N, ...)
    debiased   whether to correct for many features and few inputs; needs N >= 4

    With far more features than inputs, even unrelated representations get a high CKA. debiased=True corrects for this
    (Nguyen et al. 2021, with the unbiased HSIC of Song et al. 2012). The result can then be slightly below 0.

    Raises ValueError for different numbers of inputs, or for debiased=True with fewer than four inputs.
    """
    if len(x) != len(y):
        raise ValueError(f"cka: expected representations of the same inputs, got {len(x)} and {len(y)}")
    return _alike(_gram(x), _gram(y), debiased)


class Similarity(NamedTuple):
    """A Similarity holds the CKA of every layer of one network with every layer of another, or of the same network."""

    rows: list[str]            # layers of the first network
    columns: list[str]         # layers of the second network
    values: list[list[float]]  # values[i][j]: CKA of rows[i] with columns[j]


def cka_matrix(model: nn.Module, images: Any, other: nn.Module | None = None, *, kinds: tuple[type, ...] = (),
               debiased: bool = False) -> Similarity:
    """Compute the CKA of every layer of `model` with every layer of `other`, in eval mode.

    images     (N, C, H, W)
    other      a second model; without it, `model` is compared with itself
    kinds      the types of the modules to compare; by default convolutions and linear layers
    debiased   as for `cka`

    Only an N x N matrix is kept of every layer. The models are left unchanged.

    Raises ValueError if a model has no module of these kinds, or for debiased=True with fewer than four images.
    """
    mine = _grams(model, images, kinds)
    theirs = mine if other is None else _grams(other, images, kinds)
    rows = [[_alike(a, b, debiased) for b in theirs.values()] for a in mine.values()]
    return Similarity(list(mine), list(theirs), rows)


def _grams(model: nn.Module, images: Any, kinds: tuple[type, ...]) -> dict[str, np.ndarray]:
    wanted = {n for n, m in model.modules() if isinstance(m, kinds)} if kinds else set(common.weight_layers(model))
    if not wanted:
        raise ValueError("cka_matrix: the model has no module of the kinds to compare")
    found: dict[str, np.ndarray] = {}

    def see(name: str, module: nn.Module, x: Tensor, out: Tensor) -> None:
        if name in wanted:
            found[name] = _gram(out.data)

    common.run(model, images, see)
    return found


def _gram(x: Any) -> np.ndarray:
    """Return the inner products of the N representations, with each feature's mean subtracted: float64 (N, N)."""
    flat = x.reshape(len(x), -1).astype("f8")
    constant = flat.max(0) == flat.min(0)  # its mean is rounded, so that the difference would not be 0
    flat = device.of(flat).where(constant, 0.0, flat - flat.mean(0))
    return device.to(flat @ flat.T, "cpu")


def _alike(k: np.ndarray, l: np.ndarray, debiased: bool) -> float:
    hsic = _hsic_unbiased if debiased else lambda a, b: float((a * b).sum())
    if debiased and len(k) < 4:
        raise ValueError(f"cka: debiased: expected four or more inputs, got {len(k)}")
    scale = hsic(k, k) * hsic(l, l)
    return hsic(k, l) / scale ** 0.5 if scale > 0 else float("nan")  # a layer with a constant output has no CKA


def _hsic_unbiased(k: np.ndarray, l: np.ndarray) -> float:
    """Return the unbiased HSIC: Song et al. 2012, equation 5. It leaves out the diagonals, which compare inputs with
    themselves."""
    n = len(k)
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))
    total = (k * l).sum() + k.sum() * l.sum() / ((n - 1) * (n - 2)) - 2 * (k.sum(0) @ l.sum(0)) / (n - 2)
    return float(total / (n * (n - 3)))
