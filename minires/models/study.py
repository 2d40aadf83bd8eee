"""What one might do to a residual block, and what v2 measured: He et al. 2016, arXiv 1603.05027, Tables 1 and 2.

Table 1 puts something on the shortcut of v1's block; Table 2 moves BN and ReLU. Test error, %, on CIFAR-10:

    shortcut_study, ResNet-110                placement_study            ResNet-110   ResNet-164
    identity                        6.61      original                      6.61         5.93
    constant scaling 0.5 / 0.5     12.35      bn_after_addition             8.17         6.50
    constant scaling 0.5 / 1       fails      relu_before_addition          7.84         6.14
    exclusive gating, bias -6       8.70      relu_only_preact              6.71         5.91
    shortcut-only gating, bias 0   12.86      full_preact                   6.37         5.46
    shortcut-only gating, bias -6   6.91
    1x1 convolution                12.22
    dropout 0.5                    fails

Where shapes change, the shortcut is option A or B as everywhere, and a gate has its block's stride and channels.
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
    """relu(join(skip, branch, x)), where the identity shortcut would have relu(skip + branch)."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, residual=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn2(self.conv2(nn.conv_bn_relu(self.conv1, self.bn1, x)))
        return ops.relu(self.join(self.shortcut(x), branch, x))

    def join(self, skip: Tensor, branch: Tensor, x: Tensor) -> Tensor:
        raise NotImplementedError


class ConstantScaling(_Impeded):
    """scales[0] * shortcut + scales[1] * branch. Through n blocks the shortcut's signal shrinks by scales[0]^n."""

    kind = ", scaled"

    def __init__(self, *args: Any, scales: tuple[float, float] = (0.5, 0.5), **options: Any):
        super().__init__(*args, **options)
        of_shortcut, of_branch = scales
        self.scales = float(of_shortcut), float(of_branch)

    def join(self, skip: Tensor, branch: Tensor, x: Tensor) -> Tensor:
        return skip * self.scales[0] + branch * self.scales[1]


class ExclusiveGating(_Impeded):
    """(1 - g) * shortcut + g * branch with the gate g(x) = sigmoid(1x1 convolution of x): as a Highway Network
    (Srivastava et al. 2015). The gate's bias starts at `gate_bias`: well below 0, it begins close to the identity."""

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
    """(1 - g) * shortcut + branch, with the same gate."""

    kind = ", shortcut gated"

    def join(self, skip: Tensor, branch: Tensor, x: Tensor) -> Tensor:
        return (1 - ops.sigmoid(self.gate(x))) * skip + branch


class DropoutShortcut(_Impeded):
    """dropout(shortcut) + branch: statistically a scaling of the shortcut, by 1 - drop."""

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
    """v2, Table 1: v1's CIFAR network of 6n + 2 layers with something on its shortcuts.

    kind: "identity", "constant_scaling" (scales=(0.5, 0.5), of shortcut and branch), "exclusive_gating" and
    "shortcut_only_gating" (gate_bias=-6.0), "conv1x1" (with BN, as all convolutions here: option C of v1), "dropout"
    (drop=0.5). ValueError for another kind, or an option that belongs to another.
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
    """A block with the layers of nn.Block or nn.Bottleneck, its BNs and ReLUs in other places (v2, Fig. 4)."""

    branch: Any
    shortcut: Any

    def place(self, placement: str, kind: str) -> None:
        """Take one of the places in MOVED; ValueError for another."""
        if placement not in MOVED:
            raise unknown("placement", placement, MOVED)
        self.placement, self.kind = placement, kind

    @property
    def last_norm(self) -> nn.Module | None:
        """The BatchNorm that ends the branch; none where it stands behind the addition."""
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
    """Two 3x3 convolutions, for the left column of v2's Table 2."""

    def __init__(self, *args: Any, placement: str, **options: Any):
        super().__init__(*args, residual=True, **options)
        self.place(placement, f", {placement}")


class PlacedBottleneck(_Placed, nn.Bottleneck):
    """A bottleneck, for the right column."""

    def __init__(self, *args: Any, placement: str, **options: Any):
        super().__init__(*args, residual=True, **options)
        self.place(placement, f", bottleneck, {placement}")


def placement_study(placement: str, depth: int = 110, *, bottleneck: bool = False, shortcut: str = "A",
                    pad: str = "both", num_classes: int = 10, in_channels: int = 3, width: int = 16,
                    rng: np.random.Generator | None = None) -> CifarNet:
    """v2, Table 2: a CIFAR network of 6n + 2 layers, or 9n + 2 with bottlenecks, its BNs and ReLUs in other places.

    placement: "original" (v1), "bn_after_addition", "relu_before_addition", "relu_only_preact", "full_preact" (v2).
    With ReLU-only pre-activation a ReLU follows the stem before the paths split and another the last addition, as
    v2, section 5 asks of both kinds of pre-activation.
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
