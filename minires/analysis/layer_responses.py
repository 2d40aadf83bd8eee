"""This module measures layer responses: He et al. 2015, section 4.2 and Fig. 7.

The response of a 3x3 layer is the standard deviation of its output after BN and before the nonlinearity (ReLU or
addition). In train mode BN determines the response exactly. Over the channels c with batch variance var,

    response^2 = mean_c(gamma_c^2 var_c / (var_c + eps)) + Var_c(beta_c)

At initialisation (gamma 1, beta 0) every layer of every network has a response of 1, up to eps. So the responses of
trained networks differ by what training did to gamma and beta. eps is small compared with var, so gamma and beta alone
nearly determine the response.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .. import device, nn
from ..tensor import Tensor
from . import common

Measure = Callable[[Any, Tensor, Tensor], float]  # from a BatchNorm, its input and its output


def responses(model: nn.Module, images: Any) -> dict[str, float]:
    """Measure the response of every 3x3 convolution that is followed by a BatchNorm.

    images: (N, C, H, W), one batch, normalised by its own statistics (train mode)
    Returns {name of the BatchNorm: response} in layer order.

    The model is left unchanged.

    Raises ValueError if no 3x3 convolution is followed by a BatchNorm.
    """
    return _measure(model, images, lambda bn, x, out: float(out.data.std()))


def responses_closed_form(model: nn.Module, images: Any) -> dict[str, float]:
    """Compute the responses by the formula at the top of this module.

    The formula takes gamma, beta and the variance of each BatchNorm's input. Argument, result and errors are as for
    `responses`.
    """
    def measure(bn: Any, x: Tensor, out: Tensor) -> float:
        var = x.data.var((0, 2, 3))
        return _response(bn, var / (var + bn.eps))

    return _measure(model, images, measure)


def responses_from_parameters(model: nn.Module, image_size: tuple[int, int] = (32, 32)) -> dict[str, float]:
    """Compute the responses from gamma and beta alone, without data: sqrt(mean(gamma^2) + Var(beta)).

    image_size: (H, W)
    Returns {name of the BatchNorm: response} in layer order.

    For a trained network the result is within about 2 % of the measured responses. A black image of this size is sent
    through the model to find the BatchNorms that follow a 3x3 convolution. Its values do not affect the result. The
    model is left unchanged.

    Raises ValueError if the model has no convolution, or if no 3x3 convolution is followed by a BatchNorm.
    """
    first = next((m for m in common.weight_layers(model).values() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        raise ValueError("responses_from_parameters: this model has no convolution")
    weight = first.weight
    black = device.of(weight.data).zeros((1, weight.shape[1], *image_size), weight.dtype)
    return _measure(model, black, lambda bn, x, out: _response(bn, 1.0), train=False)


def _response(bn: Any, share: Any) -> float:
    """Return the response from gamma, beta and `share`, which is var / (var + eps) of each channel."""
    return math.sqrt(float((bn.weight.data ** 2 * share).mean()) + float(bn.bias.data.var()))


def _measure(model: nn.Module, images: Any, measure: Measure, train: bool = True) -> dict[str, float]:
    found: dict[str, float] = {}
    last: list[Any] = [None]  # the output of the 3x3 convolution that ran most recently

    def see(name: str, module: nn.Module, x: Tensor, out: Tensor) -> None:
        if isinstance(module, nn.Conv2d) and module.weight.shape[2:] == (3, 3):
            last[0] = out
        elif isinstance(module, nn.BatchNorm2d) and x is last[0]:
            found[name] = measure(module, x, out)

    common.run(model, images, see, train=train)
    if not found:
        raise ValueError("responses: this model has no 3x3 convolution followed by a BatchNorm2d")
    return found
