"""This module has the variants of the residual block in v2: He et al. 2016, arXiv 1603.05027, Tables 1 and 2.

In Table 1, v1's block has another operation on its shortcut. In Table 2, BN and ReLU are in other places. v2 reports
these test errors on CIFAR-10, in %:

    shortcut_study, ResNet-110                placement_study            ResNet-110   ResNet-164
    identity                        6.61      original                      6.61         5.93
    constant scaling 0.5 / 0.5     12.35      bn_after_addition             8.17         6.50
    constant scaling 0.5 / 1       fails      relu_before_addition          7.84         6.14
    exclusive gating, bias -6       8.70      relu_only_preact              6.71         5.91
    shortcut-only gating, bias 0   12.86      full_preact                   6.37         5.46
    shortcut-only gating, bias -6   6.91
    1x1 convolution                12.22
    dropout 0.5                    fails

Where shapes change, the shortcut is option A or B as in other networks, and a gate has the stride and channels of its
block.
"""
from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from .. import init, nn, ops
from ..names import unknown
from ..tensor import Tensor
from .cifar_resnet import CifarNet, blocks_per_stage, cifar

# ------------------------------------------------------------------------------------------ Table 1


class _Impeded(nn.Block):
    """_Impeded computes relu(join(skip, branch, x)), where Block computes relu(skip + branch)."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, residual=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn2(self.conv2(nn.conv_bn_relu(self.conv1, self.bn1, x)))
        return ops.relu(self.join(self.shortcut(x), branch, x))

    def join(self, skip: Tensor, branch: Tensor, x: Tensor) -> Tensor:
        raise NotImplementedError


class ConstantScaling(_Impeded):
    """ConstantScaling joins by scales[0] * shortcut + scales[1] * branch.

    Through n blocks, the signal on the shortcut shrinks by scales[0]^n.
    """

    kind = ", scaled"

    def __init__(self, *args: Any, scales: tuple[float, float] = (0.5, 0.5), **options: Any):
        super().__init__(*args, **options)
        of_shortcut, of_branch = scales
        self.scales = float(of_shortcut), float(of_branch)

    def join(self, skip: Tensor, branch: Tensor, x: Tensor) -> Tensor:
        return skip * self.scales[0] + branch * self.scales[1]


class ExclusiveGating(_Impeded):
    """ExclusiveGating joins by (1 - g) * shortcut + g * branch, with the gate g(x) = sigmoid(1x1 convolution of x).

    A Highway Network does the same (Srivastava et al. 2015). The bias of the gate starts at `gate_bias`. If this is
    well below 0, the block starts close to the identity.
    """

    kind = ", gated"

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, gate_bias: float = -6.0,
                 rng: np.random.Generator, **options: Any):
        super().__init__(in_channels, out_channels, stride, rng=rng, **options)
        self.gate = nn.Conv2d(in_channels, out_channels, 1, stride, bias=True, rng=rng)
        self.gate.bias = Tensor(init.constant((out_channels,), gate_bias), True)

    def join(self, skip: Tensor, branch: Tensor, x: Tensor) -> Tensor:
        g = ops.sigmoid(self.gate(x))
        return (1 - g) * skip + g * branch


class ShortcutOnlyGating(ExclusiveGating):
    """ShortcutOnlyGating joins by (1 - g) * shortcut + branch, with the gate of ExclusiveGating."""

    kind = ", shortcut gated"

    def join(self, skip: Tensor, branch: Tensor, x: Tensor) -> Tensor:
        return (1 - ops.sigmoid(self.gate(x))) * skip + branch


class DropoutShortcut(_Impeded):
    """DropoutShortcut joins by dropout(shortcut) + branch, which drops elements of the shortcut at random.

    v2 describes this as a scale of 1 - drop. Here the elements that remain are divided by 1 - drop, so that the mean is
    unchanged.
    """

    kind = ", shortcut dropout"

    def __init__(self, *args: Any, drop: float = 0.5, rng: np.random.Generator, **options: Any):
        super().__init__(*args, rng=rng, **options)
        self.dropout = nn.Dropout(drop, rng=rng)

    def join(self, skip: Tensor, branch: Tensor, x: Tensor) -> Tensor:
        return self.dropout(skip) + branch


SHORTCUTS: dict[str, Any] = {
    "identity": nn.Block, "constant_scaling": ConstantScaling, "exclusive_gating": ExclusiveGating,
    "shortcut_only_gating": ShortcutOnlyGating, "conv1x1": partial(nn.Block, shortcut="C"), "dropout": DropoutShortcut}
OPTIONS = {"constant_scaling": "scales", "exclusive_gating": "gate_bias", "shortcut_only_gating": "gate_bias",
           "dropout": "drop"}


def shortcut_study(kind: str, depth: int = 110, *, pad: str = "both", num_classes: int = 10, in_channels: int = 3,
                   width: int = 16, rng: np.random.Generator | None = None, **option: Any) -> CifarNet:
    """Build a network of v2's Table 1: v1's CIFAR network of 6n + 2 layers with an operation on its shortcuts.

    kind: one of these, with its option and default:
        "identity"
        "constant_scaling": scales=(0.5, 0.5), of shortcut and branch
        "exclusive_gating", "shortcut_only_gating": gate_bias=-6.0
        "conv1x1": with BN, as after all convolutions here. This is option C of v1.
        "dropout": drop=0.5

    Raises ValueError for another kind, or for an option that this kind does not have.
    """
    if kind not in SHORTCUTS:
        raise unknown("shortcut_study, kind", kind, SHORTCUTS)
    for name in option:
        if name != OPTIONS.get(kind):
            raise ValueError(f"shortcut_study: {kind!r} has no option {name!r}; "
                             + (f"it has {OPTIONS[kind]!r}" if kind in OPTIONS else "it has none"))
    return CifarNet(blocks_per_stage(depth, "basic"), partial(SHORTCUTS[kind], pad=pad, **option),
                    num_classes=num_classes, in_channels=in_channels, width=width, rng=rng)


# ------------------------------------------------------------------------------------------ Table 2


MOVED = ("bn_after_addition", "relu_before_addition", "relu_only_preact")


class _Placed:
    """_Placed is a block with the layers of nn.Block or nn.Bottleneck, but with BNs and ReLUs in other places (v2,
    Fig. 4)."""

    branch: Any
    shortcut: Any

    def place(self, placement: str, kind: str) -> None:
        """Set the placement to one of MOVED. Raises ValueError for another."""
        if placement not in MOVED:
            raise unknown("placement", placement, MOVED)
        self.placement, self.kind = placement, kind

    @property
    def last_norm(self) -> nn.Module | None:
        """The BatchNorm at the end of the branch, or None if it comes after the addition."""
        return None if self.placement == "bn_after_addition" else self.branch()[-1][1]

    def forward(self, x: Tensor) -> Tensor:
        *inner, (conv, bn) = self.branch()
        skip = self.shortcut(x)
        if self.placement == "relu_only_preact":                 # Fig. 4d
            for c, b in self.branch():
                x = b(c(ops.relu(x)))
            return x + skip
        for c, b in inner:
            x = nn.conv_bn_relu(c, b, x)
        if self.placement == "bn_after_addition":                # Fig. 4b
            return nn.bn_relu(bn, conv(x) + skip)
        return nn.conv_bn_relu(conv, bn, x) + skip               # Fig. 4c, ReLU before addition


class PlacedBlock(_Placed, nn.Block):
    """PlacedBlock has two 3x3 convolutions, for the ResNet-110 column of v2's Table 2."""

    def __init__(self, *args: Any, placement: str, **options: Any):
        super().__init__(*args, residual=True, **options)
        self.place(placement, f", {placement}")


class PlacedBottleneck(_Placed, nn.Bottleneck):
    """PlacedBottleneck is a bottleneck, for the ResNet-164 column of v2's Table 2."""

    def __init__(self, *args: Any, placement: str, **options: Any):
        super().__init__(*args, residual=True, **options)
        self.place(placement, f", bottleneck, {placement}")


def placement_study(placement: str, depth: int = 110, *, bottleneck: bool = False, shortcut: str = "A",
                    pad: str = "both", num_classes: int = 10, in_channels: int = 3, width: int = 16,
                    rng: np.random.Generator | None = None) -> CifarNet:
    """Build a network of v2's Table 2: a CIFAR network with its BNs and ReLUs in other places.

    placement: "original" (v1), "bn_after_addition", "relu_before_addition", "relu_only_preact", "full_preact" (v2).
    depth: 6n + 2, or 9n + 2 with bottlenecks.

    With "relu_only_preact", one ReLU follows the stem before the paths split, and another ReLU follows the last
    addition. v2, in its appendix on implementation, does this for both kinds of pre-activation.

    Raises ValueError for another placement or an impossible depth.
    """
    known = {"original": ("basic", "bottleneck"), "full_preact": ("preact", "preact_bottleneck")}
    if placement not in (*known, *MOVED):
        raise unknown("placement_study, placement", placement, (*known, *MOVED))
    sizes: dict[str, Any] = {"num_classes": num_classes, "in_channels": in_channels, "width": width, "rng": rng}
    if placement in known:
        return cifar(depth, True, known[placement][bottleneck], shortcut, pad, **sizes)
    cls: Any = PlacedBottleneck if bottleneck else PlacedBlock
    last = (lambda channels: nn.Identity()) if placement == "relu_only_preact" else None  # Identity: ReLU alone
    return CifarNet(blocks_per_stage(depth, "bottleneck" if bottleneck else "basic"),
                    partial(cls, placement=placement, shortcut=shortcut, pad=pad), expansion=cls.expansion,
                    last_norm=last, **sizes)


# v2's Table 2 by name, for runs and sweeps. The other two of its rows are resnet110 and preact_resnet110.
bn_after_addition_resnet110, relu_before_addition_resnet110, relu_only_preact_resnet110 = (
    partial(placement_study, placement) for placement in MOVED)
bn_after_addition_resnet164, relu_before_addition_resnet164, relu_only_preact_resnet164 = (
    partial(placement_study, placement, 164, bottleneck=True, shortcut="B") for placement in MOVED)
