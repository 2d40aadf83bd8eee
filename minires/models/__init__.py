"""This package has the networks of the papers, built from the modules of minires.nn."""
from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from .. import init, nn
from ..names import key, unknown
from .cifar_resnet import (
    CifarNet,
    cifar,
    plain20,
    plain32,
    plain44,
    plain56,
    plain110,
    preact_resnet20,
    preact_resnet32,
    preact_resnet44,
    preact_resnet56,
    preact_resnet110,
    preact_resnet164,
    preact_resnet1001,
    resnet20,
    resnet32,
    resnet44,
    resnet56,
    resnet110,
    resnet164,
    resnet1001,
    resnet1202,
)
from .imagenet_resnet import (
    imagenet,
    plain18,
    plain34,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    resnext50_32x4d,
    wide_resnet50_2,
)
from .inception import GoogLeNet, googlenet
from .resnet import ResNet
from .scalar import ScalarBlock, scalar_stack
from .study import (
    bn_after_addition_resnet110,
    bn_after_addition_resnet164,
    placement_study,
    relu_before_addition_resnet110,
    relu_before_addition_resnet164,
    relu_only_preact_resnet110,
    relu_only_preact_resnet164,
    shortcut_study,
)
from .vgg_net import VGG, vgg, vgg16, vgg16_bn, vgg19, vgg19_bn

# {family: (image shape in the paper, {name: function})}
FAMILIES: dict[str, tuple[tuple[int, int, int], dict[str, Callable[..., nn.Module]]]] = {
    "CIFAR, plain (2015)": ((3, 32, 32), {
        "plain20": plain20, "plain32": plain32, "plain44": plain44, "plain56": plain56, "plain110": plain110}),
    "CIFAR, residual, option A (2015)": ((3, 32, 32), {
        "resnet20": resnet20, "resnet32": resnet32, "resnet44": resnet44, "resnet56": resnet56,
        "resnet110": resnet110, "resnet1202": resnet1202}),
    "CIFAR, bottleneck, option B (2016)": ((3, 32, 32), {"resnet164": resnet164, "resnet1001": resnet1001}),
    "CIFAR, pre-activation (2016)": ((3, 32, 32), {
        "preact_resnet20": preact_resnet20, "preact_resnet32": preact_resnet32, "preact_resnet44": preact_resnet44,
        "preact_resnet56": preact_resnet56, "preact_resnet110": preact_resnet110,
        "preact_resnet164": preact_resnet164, "preact_resnet1001": preact_resnet1001}),
    "CIFAR, BN and ReLU in other places (2016, Table 2)": ((3, 32, 32), {
        "bn_after_addition_resnet110": bn_after_addition_resnet110,
        "relu_before_addition_resnet110": relu_before_addition_resnet110,
        "relu_only_preact_resnet110": relu_only_preact_resnet110,
        "bn_after_addition_resnet164": bn_after_addition_resnet164,
        "relu_before_addition_resnet164": relu_before_addition_resnet164,
        "relu_only_preact_resnet164": relu_only_preact_resnet164}),
    "ImageNet, plain (2015)": ((3, 224, 224), {"plain18": plain18, "plain34": plain34}),
    "ImageNet, residual, option B, v1.5 strides (2015)": ((3, 224, 224), {
        "resnet18": resnet18, "resnet34": resnet34, "resnet50": resnet50, "resnet101": resnet101,
        "resnet152": resnet152}),
    "ImageNet, wide or grouped bottlenecks (2016, 2017)": ((3, 224, 224), {
        "wide_resnet50_2": wide_resnet50_2, "resnext50_32x4d": resnext50_32x4d}),
    "VGG (2014)": ((3, 224, 224), {"vgg16": vgg16, "vgg16_bn": vgg16_bn, "vgg19": vgg19, "vgg19_bn": vgg19_bn}),
    "GoogLeNet, with BN (2014)": ((3, 224, 224), {"googlenet": googlenet}),
}
BY_NAME: dict[str, Callable[..., nn.Module]] = {n: f for _, members in FAMILIES.values() for n, f in members.items()}

__all__ = ["BY_NAME", "FAMILIES", "VGG", "CifarNet", "GoogLeNet", "Listed", "ResNet", "ScalarBlock",
           "bn_after_addition_resnet110", "bn_after_addition_resnet164", "build", "canonical", "cifar", "googlenet",
           "imagenet", "listing", "placement_study", "plain18", "plain20", "plain32", "plain34", "plain44", "plain56",
           "plain110", "preact_resnet20", "preact_resnet32", "preact_resnet44", "preact_resnet56", "preact_resnet110",
           "preact_resnet164", "preact_resnet1001", "relu_before_addition_resnet110", "relu_before_addition_resnet164",
           "relu_only_preact_resnet110", "relu_only_preact_resnet164", "resnet18", "resnet20", "resnet32", "resnet34",
           "resnet44", "resnet50", "resnet56", "resnet101", "resnet110", "resnet152", "resnet164", "resnet1001",
           "resnet1202", "resnext50_32x4d", "scalar_stack", "shortcut_study", "vgg", "vgg16", "vgg16_bn", "vgg19",
           "vgg19_bn", "wide_resnet50_2"]


def canonical(name: str) -> str:
    """Return the key in BY_NAME for a name in any common spelling: "resnet20" for "ResNet-20".

    Raises ValueError, with the most similar names, if there is no such network.
    """
    if key(name) not in BY_NAME:
        raise unknown("model", name, BY_NAME)
    return key(name)


def build(name: str, **options: Any) -> nn.Module:
    """Build the network with this name. `options` are those of its function, such as num_classes=100.

    Raises ValueError for an unknown name or option.
    """
    function = BY_NAME[canonical(name)]
    known = inspect.signature(function).parameters
    for option in options:
        if option not in known:
            raise ValueError(f"model {name}: there is no option {option!r}; the options are {', '.join(known)}")
    return function(**options)


class Listed(NamedTuple):
    """Listed is one line of `listing`."""

    family: str
    name: str
    layers: int      # with weights, on the longest path from input to output
    parameters: int
    macs: int        # multiply-accumulates for one image
    input_shape: tuple[int, int, int]


def listing() -> Iterator[Listed]:
    """Yield every named network with its size, family by family.

    The sizes are counted from the network itself, without drawing weights or computing an image.
    """
    for family, (shape, members) in FAMILIES.items():
        for name, function in members.items():
            with init.undrawn():
                net = function()
            yield Listed(family, name, net.depth(shape), net.count_parameters(), net.macs(shape), shape)
