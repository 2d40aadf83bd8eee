"""Layer responses: He et al. 2015, section 4.2 and Fig. 7.

The response of a 3x3 layer is the standard deviation of its output after BN and before the nonlinearity (ReLU or
addition). In train mode BN fixes it exactly: over the channels c with batch variance var,

    response^2 = mean_c(gamma_c^2 var_c / (var_c + eps)) + Var_c(beta_c)

so at initialisation (gamma 1, beta 0) every layer of every network has response 1: what differs between trained
networks is what training did to gamma and beta.
"""
from __future__ import annotations

from typing import Any

from .. import nn, tap
from ..tensor import Tensor, no_grad


def responses(model: nn.Module, images: Any) -> dict[str, float]:
    """{name of the BatchNorm: response} for every 3x3 convolution followed by one, in layer order.

    images (N, C, H, W): one batch, normalised by its own statistics (train mode). The model is left as it was.
    ValueError if no 3x3 convolution is followed by a BatchNorm.
    """
    names = {id(m): name for name, m in model.modules()}
    found: dict[str, float] = {}
    last: list[Any] = [None]  # the output of the 3x3 convolution that ran last

    def see(module, inputs, out):
        if isinstance(module, nn.Conv2d) and module.weight.shape[2:] == (3, 3):
            last[0] = out
        elif isinstance(module, nn.BatchNorm2d) and inputs[0] is last[0]:
            found[names[id(module)]] = float(out.data.std())

    with tap.untouched(model), nn.watched(see), no_grad():
        model.train()
        model(Tensor(images))
    if not found:
        raise ValueError("responses: this model has no 3x3 convolution followed by a BatchNorm2d")
    return found
