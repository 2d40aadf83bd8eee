"""This package has the modules: layers, residual blocks, and hooks that watch a model or restore it after use.

module.py has Module and its state, layers.py the layers, blocks.py the residual blocks, hooks.py the hooks.
"""
from .blocks import (
    Block,
    Bottleneck,
    FixupBlock,
    PreactBlock,
    PreactBottleneck,
    ResidualBlock,
    bn_relu,
    conv_bn_relu,
)
from .hooks import being_watched, modes_kept, untouched, watched
from .layers import (
    GELU,
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm,
    BatchNorm1d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Identity,
    LeakyReLU,
    Linear,
    MaxPool2d,
    ReLU,
    Sequential,
)
from .module import Module, is_exactly, misfits

__all__ = ["GELU", "AdaptiveAvgPool2d", "AvgPool2d", "BatchNorm", "BatchNorm1d", "BatchNorm2d", "Block", "Bottleneck",
           "Conv2d", "Dropout", "FixupBlock", "Flatten", "GlobalAvgPool2d", "Identity", "LeakyReLU", "Linear",
           "MaxPool2d", "Module", "PreactBlock", "PreactBottleneck", "ReLU", "ResidualBlock", "Sequential",
           "being_watched", "bn_relu", "conv_bn_relu", "is_exactly", "misfits", "modes_kept", "untouched", "watched"]
