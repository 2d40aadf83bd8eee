"""The networks of the papers, built from nn's modules."""
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

__all__ = ["CifarNet", "cifar", "plain20", "plain32", "plain44", "plain56", "plain110", "resnet20", "resnet32",
           "resnet44", "resnet56", "resnet110", "resnet1202"]
