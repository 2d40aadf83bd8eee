"""How large the gradient is, layer by layer: what "vanishing" and "exploding" are about."""
from __future__ import annotations

from typing import Any, NamedTuple

from .. import nn, ops, tap
from ..tensor import Tensor


class GradientFlow(NamedTuple):
    """Euclidean norms, in layer order, input first: {name of a convolution or linear layer: norm}."""

    weights: dict[str, float]      # of dL/d(weight)
    activations: dict[str, float]  # of dL/d(output of the layer)


def gradient_flow(model: nn.Module, images: Any, labels: Any) -> GradientFlow:
    """Gradients of the cross-entropy on one batch in train mode; the model is left as it was.

    images (N, C, H, W), labels (N,) integers.
    """
    layers = {name: m for name, m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))
              and "downsample" not in name}  # projections lie beside the layers, not in their order
    with tap.untouched(model), tap.Tap(model, nn.Conv2d, nn.Linear) as seen:
        model.train()
        for t in model.parameters():
            t.grad = None
        ops.cross_entropy(model(Tensor(images)), labels).backward()
        weights = {name: tap.norm(m.weight.grad) for name, m in layers.items()}
    return GradientFlow(weights, {name: seen.grad_norm[name] for name in layers})
