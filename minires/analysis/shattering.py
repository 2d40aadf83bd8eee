"""This module measures how similar the gradients at different inputs are.

Source: Balduzzi et al. 2017, "The Shattered Gradients Problem: If resnets are the answer, then what is the question?"

In a plain rectifier network the correlation of the gradients at two inputs halves with every layer: 2^-L. In a
residual network with BN it falls slowly, about as L^-1/2. For a residual network without BN the theory gives (3/4)^L.
The measured correlation follows that for a few layers and then stays between 0.25 and 0.3. Along a line through input
space the gradient of a deep plain network looks like white noise. The gradient of a residual network does so much less.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import device, init, nn
from ..tensor import Tensor, no_grad

ENDS = -2.0, 2.0  # first and last x of `gradient_on_a_line`


def input_gradients(model: nn.Module, x: Any, *, rng: np.random.Generator) -> Any:
    """Return, for each input, the gradient of one random mixture of the outputs. Its weights are drawn from N(0, 1).

    x: (N, ...), of the model's dtype
    Returns an array (N, size of an input).

    BN normalises by this batch's mean and unbiased variance, held constant, so that an output depends on its own input
    alone. The model is left unchanged.
    """
    norms = [m for _, m in model.modules() if isinstance(m, nn.BatchNorm)]
    momenta = [m.momentum for m in norms]
    t = Tensor(x, True)
    with nn.untouched(model):
        try:
            for m in norms:
                m.momentum = 1.0  # after one pass, the running statistics are this batch's
            with no_grad():
                model.resume_training()(t)
        finally:
            for m, momentum in zip(norms, momenta, strict=True):
                m.momentum = momentum
        out = model.eval()(t)
        mixture = device.of(x).asarray(rng.standard_normal(out.shape[1:]), dtype=out.dtype)
        (out * mixture).sum().backward()
    return t.grad.reshape(len(x), -1)


def gradient_correlation(model: nn.Module, x: Any, *, rng: np.random.Generator) -> float:
    """Return the mean over all pairs of inputs of <g_i, g_j> / (|g_i| |g_j|), where g_i is the gradient at input i.

    x: (N, ...), N >= 2, of the model's dtype

    For a plain network of L hidden layers (ReLU, BN) and independent inputs, theory gives 2^-L. The model is left
    unchanged.

    Raises ValueError for fewer than two inputs.
    """
    if len(x) < 2:
        raise ValueError(f"gradient_correlation: expected two or more inputs, got {len(x)}")
    g = input_gradients(model, x, rng=rng)
    g = g / ((g * g).sum(1, keepdims=True) ** 0.5)
    n = len(g)
    return float(((g @ g.T).sum() - n) / (n * (n - 1)))


def autocorrelation(values: Sequence[float], lags: Sequence[int]) -> list[float]:
    """Return the correlation of a series with itself at each lag: 1 at lag 0; for white noise near 0 at all other lags.

    Raises ValueError for fewer than two values, for values that are all equal, or for a lag outside 0 ... N - 1.
    """
    v = np.asarray(values, np.float64)
    if v.ndim != 1 or len(v) < 2 or not np.ptp(v):
        raise ValueError(f"autocorrelation: expected two or more values that are not all equal, got shape {v.shape}")
    if any(not 0 <= lag < len(v) for lag in lags):
        raise ValueError(f"autocorrelation: expected lags from 0 to {len(v) - 1}, got {list(lags)}")
    v = v - v.mean()
    return [float((v[:len(v) - lag] * v[lag:]).sum() / (v * v).sum()) for lag in lags]


def gradient_on_a_line(depth: int, beta: float | None = None, width: int = 200, points: int = 256, *,
                       rng: np.random.Generator) -> list[float]:
    """Return df/dx of a random function f at `points` values of x from -2 to 2, as in the paper's Fig. 1.

    f is a random network with one input, one output and `depth` hidden layers: h <- W relu(BN(h)), or with `beta`
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
