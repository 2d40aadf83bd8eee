"""The networks of the papers, built from nn's modules."""
from typing import Any

from .. import nn
from ..names import unknown
from .cifar import (
    CifarNet,
    cifar,
    plain20,
    plain32,
    plain44,
    plain56,
    plain110,
    resnet20,
    resnet32,
    resnet44,
    resnet56,
    resnet110,
    resnet1202,
)

__all__ = ["CifarNet", "build", "cifar", "plain20", "plain32", "plain44", "plain56", "plain110", "resnet20",
           "resnet32", "resnet44", "resnet56", "resnet110", "resnet1202"]

BY_NAME = {"plain20": plain20, "plain32": plain32, "plain44": plain44, "plain56": plain56, "plain110": plain110,
           "resnet20": resnet20, "resnet32": resnet32, "resnet44": resnet44, "resnet56": resnet56,
           "resnet110": resnet110, "resnet1202": resnet1202}


def build(name: str, **options: Any) -> nn.Module:
    """The network of this name ("resnet20", "ResNet-20") with its function's options. ValueError for no such name."""
    plain = name.lower().replace("-", "")
    if plain not in BY_NAME:
        raise unknown("model", name, BY_NAME)
    return BY_NAME[plain](**options)
