"""How large the gradient is, layer by layer: what "vanishing" and "exploding" are about."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .. import nn, ops, tap
from ..tensor import Tensor
from .common import weight_layers


class GradientFlow(NamedTuple):
    """Euclidean norms, in layer order, input first: {name of a convolution or linear layer: norm}."""

    weights: dict[str, float]      # of dL/d(weight)
    activations: dict[str, float]  # of dL/d(output of the layer)


def gradient_flow(model: nn.Module, images: Any, labels: Any) -> GradientFlow:
    """Gradients of the cross-entropy on one batch in train mode; the model is left as it was.

    images (N, C, H, W), labels (N,) integers. Before training it shows what the initialisation does; during training,
    call it between the steps of `train.fit`, or let `follow` do so.
    """
    looked_at = weight_layers(model)
    with nn.untouched(model), tap.Tap(model, nn.Conv2d, nn.Linear) as seen:
        model.train()
        for t in model.parameters():
            t.grad = None
        ops.cross_entropy(model(Tensor(images)), labels).backward()
        weights = {name: tap.norm(m.weight.grad) for name, m in looked_at.items()}
    return GradientFlow(weights, {name: seen.grad_norm[name] for name in looked_at})


def growth_per_layer(norms: Mapping[Any, float], skip: int = 1) -> float:
    """The factor by which the norms grow per layer TOWARD THE INPUT: the geometric mean over the inner layers.

    norms: {layer: norm}, input first, of weights or of activations. With n norms and s = `skip` it is

        (norms[s] / norms[n - 1 - s]) ** (1 / (n - 1 - 2 s))

    The stem and the classifier are left out because they differ in size from the layers between them (channels of the
    input, classes): with them the factor would compare layers that are not alike. For a plain network with BN and wide
    layers it is sqrt(pi / (pi - 1)) = 1.2112 (Yang et al. 2019, "A Mean Field Theory of Batch Normalization").
    ValueError for fewer than two layers in between, or a norm of 0 at their ends.
    """
    inner = list(norms.values())[skip:len(norms) - skip]
    if len(inner) < 2 or min(inner[0], inner[-1]) <= 0:
        raise ValueError(f"growth_per_layer: expected two or more positive norms after leaving {skip} out at either "
                         f"end, got {inner}")
    return (inner[0] / inner[-1]) ** (1 / (len(inner) - 1))
