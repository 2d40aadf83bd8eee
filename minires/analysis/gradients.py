"""This module measures gradient norms layer by layer, which show whether gradients vanish or explode."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .. import nn, ops, tap
from ..tensor import Tensor
from .common import weight_layers


class GradientFlow(NamedTuple):
    """A GradientFlow holds Euclidean norms, {name of a convolution or linear layer: norm}, in layer order."""

    weights: dict[str, float]      # of dL/d(weight)
    activations: dict[str, float]  # of dL/d(output of the layer)


def gradient_flow(model: nn.Module, images: Any, labels: Any) -> GradientFlow:
    """Measure the gradient norms of the cross-entropy on one batch in train mode.

    images: (N, C, H, W)
    labels: integers (N,)

    Before training, the norms show the effect of the initialisation. During training, call this function between the
    steps of `train.fit`, or let `follow` call it. The model is left unchanged.

    A frozen layer has no gradient and is not listed: not its weight, and not its output if all below it is frozen, too.
    Layers that were put into eval mode by themselves stay there.
    Raises RuntimeError if everything is frozen.
    """
    looked_at = weight_layers(model)
    with nn.untouched(model), tap.Tap(model, nn.Conv2d, nn.Linear) as seen:
        model.resume_training()
        for t in model.parameters():
            t.grad = None
        ops.cross_entropy(model(Tensor(images)), labels).backward()
        weights = {name: tap.norm(m.weight.grad) for name, m in looked_at.items() if m.weight.grad is not None}
    return GradientFlow(weights, {name: seen.grad_norm[name] for name in looked_at if name in seen.grad_norm})


def growth_per_layer(norms: Mapping[Any, float], skip: int = 1) -> float:
    """Return the factor by which the norms grow per layer TOWARD THE INPUT: the geometric mean over the inner layers.

    norms   {layer: norm}, input first, of weights or of activations
    skip    the number of layers to leave out at each end

    With n norms and s = `skip` the factor is

        (norms[s] / norms[n - 1 - s]) ** (1 / (n - 1 - 2 s))

    The stem and the classifier are left out because their sizes depend on the input's channels and on the classes, so
    they cannot be compared with the inner layers. For a plain network with BN and wide layers the factor is
    sqrt(pi / (pi - 1)) = 1.2112 (Yang et al. 2019, "A Mean Field Theory of Batch Normalization").

    Raises ValueError for fewer than two inner layers, or if the first or the last of them has a norm of 0.
    """
    inner = list(norms.values())[skip:len(norms) - skip]
    if len(inner) < 2 or min(inner[0], inner[-1]) <= 0:
        raise ValueError(f"growth_per_layer: expected two or more positive norms after leaving out {skip} at each "
                         f"end, got {inner}")
    return (inner[0] / inner[-1]) ** (1 / (len(inner) - 1))
