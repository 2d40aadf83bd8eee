"""Layer responses: He et al. 2015, section 4.2 and Fig. 7.

The response of a 3x3 layer is the standard deviation of its output after BN and before the nonlinearity (ReLU or
addition). In train mode BN fixes it exactly: over the channels c with batch variance var,

    response^2 = mean_c(gamma_c^2 var_c / (var_c + eps)) + Var_c(beta_c)

so at initialisation (gamma 1, beta 0) every layer of every network has response 1: what differs between trained
networks is what training did to gamma and beta. eps is small beside var, so gamma and beta alone tell the figure.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .. import device, nn
from ..tensor import Tensor
from . import common

Measure = Callable[[Any, Tensor, Tensor], float]  # of a BatchNorm, its input and its output


def responses(model: nn.Module, images: Any) -> dict[str, float]:
    """{name of the BatchNorm: response} for every 3x3 convolution followed by one, in layer order.

    images (N, C, H, W): one batch, normalised by its own statistics (train mode). The model is left as it was.
    ValueError if no 3x3 convolution is followed by a BatchNorm.
    """
    return _measure(model, images, lambda bn, x, out: float(out.data.std()))


def responses_closed_form(model: nn.Module, images: Any) -> dict[str, float]:
    """The same numbers by the formula above, from gamma, beta and the variance of what each BatchNorm receives."""
    def measure(bn: Any, x: Tensor, out: Tensor) -> float:
        var = x.data.var((0, 2, 3))
        return _response(bn, var / (var + bn.eps))

    return _measure(model, images, measure)


def responses_from_parameters(model: nn.Module, image_size: tuple[int, int] = (32, 32)) -> dict[str, float]:
    """The same figure from gamma and beta alone, without data: sqrt(mean(gamma^2) + Var(beta)).

    For a trained network it lies within about 2 % of the measured one. A black image of `image_size` (H, W) is sent
    through, to see which BatchNorm stands behind a 3x3 convolution; its values play no part.
    """
    first = next((m for m in common.weight_layers(model).values() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        raise ValueError("responses_from_parameters: this model has no convolution")
    weight = first.weight
    black = device.of(weight.data).zeros((1, weight.shape[1], *image_size), weight.dtype)
    return _measure(model, black, lambda bn, x, out: _response(bn, 1.0), train=False)


def _response(bn: Any, share: Any) -> float:
    """From gamma, beta, and the share of each channel's variance that eps leaves."""
    return math.sqrt(float((bn.weight.data ** 2 * share).mean()) + float(bn.bias.data.var()))


def _measure(model: nn.Module, images: Any, measure: Measure, train: bool = True) -> dict[str, float]:
    found: dict[str, float] = {}
    last: list[Any] = [None]  # the output of the 3x3 convolution that ran last

    def see(name: str, module: nn.Module, x: Tensor, out: Tensor) -> None:
        if isinstance(module, nn.Conv2d) and module.weight.shape[2:] == (3, 3):
            last[0] = out
        elif isinstance(module, nn.BatchNorm2d) and x is last[0]:
            found[name] = measure(module, x, out)

    common.run(model, images, see, train=train)
    if not found:
        raise ValueError("responses: this model has no 3x3 convolution followed by a BatchNorm2d")
    return found
