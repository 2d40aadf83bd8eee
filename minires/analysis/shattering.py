"""Shattered gradients: Balduzzi et al. 2017, "The Shattered Gradients Problem: If resnets are the answer, then what is
the question?"

How alike are the gradients at two different inputs? In a plain rectifier network the correlation halves with every
layer, 2^-L; with shortcuts and no BN it falls as (3/4)^L only. Along a line through input space the gradient of a deep
plain network looks like white noise, that of a residual one much less so.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import device, init, nn
from ..tensor import Tensor, no_grad

ENDS = -2.0, 2.0  # of the line of `gradient_on_a_line`


def input_gradients(model: nn.Module, x: Any, *, rng: np.random.Generator) -> Any:
    """(N, size of an input): for each input the gradient of one random mixture of the outputs, drawn once from N(0, 1).

    BN normalises by this batch's statistics, held constant, so that an input's gradient is its own alone. x: (N, ...),
    of the model's dtype; the model is left as it was.
    """
    norms = [m for _, m in model.modules() if isinstance(m, nn.BatchNorm)]
    momenta = [m.momentum for m in norms]
    t = Tensor(x, True)
    with nn.untouched(model):
        try:
            for m in norms:
                m.momentum = 1.0  # one pass, and the running statistics are this batch's
            with no_grad():
                model.train()(t)
        finally:
            for m, momentum in zip(norms, momenta, strict=True):
                m.momentum = momentum
        out = model.eval()(t)
        mixture = device.of(x).asarray(rng.standard_normal(out.shape[1:]), dtype=out.dtype)
        (out * mixture).sum().backward()
    return t.grad.reshape(len(x), -1)


def gradient_correlation(model: nn.Module, x: Any, *, rng: np.random.Generator) -> float:
    """Mean over all pairs of inputs of <g_i, g_j> / (|g_i| |g_j|), where g_i is the gradient at input i.

    2^-L for a plain network of L hidden layers (ReLU, BN) and independent inputs. x: (N, ...), N >= 2.
    """
    if len(x) < 2:
        raise ValueError(f"gradient_correlation: expected two or more inputs, got {len(x)}")
    g = input_gradients(model, x, rng=rng)
    g = g / ((g * g).sum(1, keepdims=True) ** 0.5)
    n = len(g)
    return float(((g @ g.T).sum() - n) / (n * (n - 1)))


def autocorrelation(values: Sequence[float], lags: Sequence[int]) -> list[float]:
    """Correlation of a series with itself `lag` steps on: 1 at lag 0, near 0 at all others for white noise."""
    v = np.asarray(values, np.float64)
    if v.ndim != 1 or len(v) < 2 or not np.ptp(v):
        raise ValueError(f"autocorrelation: expected two or more values that are not all equal, got shape {v.shape}")
    if any(not 0 <= lag < len(v) for lag in lags):
        raise ValueError(f"autocorrelation: expected lags from 0 to {len(v) - 1}, got {list(lags)}")
    v = v - v.mean()
    return [float((v[:len(v) - lag] * v[lag:]).sum() / (v * v).sum()) for lag in lags]


def gradient_on_a_line(depth: int, beta: float | None = None, width: int = 200, points: int = 256, *,
                       rng: np.random.Generator) -> list[float]:
    """The one-dimensional picture (the paper's Fig. 1): df/dx at `points` values of x from -2 to 2.

    f is a random network of one input, one output and `depth` hidden layers: h <- W relu(BN(h)), or with `beta`
    h <- h + beta W relu(BN(h)). BN normalises over the points.
    """
    x = np.linspace(*ENDS, points, dtype=np.float64).reshape(-1, 1)
    hidden = [_Layer(width, beta, rng=rng) for _ in range(depth)]
    net = nn.Sequential(nn.Linear(1, width, rng=rng), *hidden, nn.Linear(width, 1, rng=rng))
    init.redraw(net, init.he_normal, rng=rng)
    return input_gradients(net.astype(x.dtype), x, rng=rng)[:, 0].tolist()


class _Layer(nn.Module):
    def __init__(self, width: int, beta: float | None, *, rng: np.random.Generator):
        self.bn, self.linear, self.beta = nn.BatchNorm1d(width), nn.Linear(width, width, rng=rng), beta

    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(nn.bn_relu(self.bn, x))
        return h if self.beta is None else x + h * self.beta
