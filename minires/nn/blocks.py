"""This module has the residual blocks: basic and bottleneck blocks of v1 and v2, and Fixup's block without BN."""
from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from .. import init, kernels, ops
from ..residual import PreactResidual, Residual
from ..tensor import Tensor, recording
from .hooks import being_watched
from .layers import BatchNorm2d, Conv2d, Identity, Sequential
from .module import Module, is_exactly


def bn_relu(bn: Any, x: Tensor, skip: Tensor | None = None) -> Tensor:
    """Return relu(bn(x)) or relu(bn(x) + skip), as one fused operation in train mode unless a hook is active."""
    if is_exactly(bn, BatchNorm2d) and bn.training and not being_watched():
        y, mean, var = ops.batch_norm_relu(x, bn.weight, bn.bias, bn.eps, skip)
        bn.update(mean, var, x.size // x.shape[1])
        return y
    h = bn(x)
    return ops.relu(h if skip is None else h + skip)


def conv_bn_relu(conv: Conv2d, bn: Any, x: Tensor, skip: Tensor | None = None) -> Tensor:
    """Return relu(bn(conv(x))) or relu(bn(conv(x)) + skip).

    In eval mode BatchNorm is a fixed scale and shift of each channel. If no graph is recorded and no hook is active,
    this function folds it into the weights of the convolution:

        w' = w gamma / sqrt(var + eps)          b' = beta + (b - mean) gamma / sqrt(var + eps)
    """
    # float16 is a storage dtype: the product of a weight and a scale may be too large for it.
    foldable = is_exactly(conv, Conv2d) and is_exactly(bn, BatchNorm2d) and x.dtype != np.float16
    if not foldable or bn.training or recording() or being_watched():
        return bn_relu(bn, conv(x), skip)
    scale = bn.weight.data * (bn.running_var.data + float(bn.eps)) ** -0.5
    shift = bn.bias.data + ((0 if conv.bias is None else conv.bias.data) - bn.running_mean.data) * scale
    w = Tensor(conv.weight.data * scale.reshape(-1, 1, 1, 1))
    return conv_bias_relu(x, w, Tensor(shift), skip, conv.stride, conv.padding, conv.dilation, conv.groups)


def conv_bias_relu(x: Tensor, w: Tensor, bias: Tensor, skip: Tensor | None, stride: Any, padding: Any,
                   dilation: Any = 1, groups: int = 1) -> Tensor:
    """Return relu(conv2d(x, w, bias) + skip). One pass over memory if the kernels can and no graph is recorded."""
    dilation = ops.pair(dilation)
    dense = dilation == (1, 1) and groups == 1
    fused = getattr(kernels.of(x.data), "conv2d_bias_relu", None) if dense and not recording() else None
    if fused is not None:
        with contextlib.suppress(TypeError, ValueError):  # the separate operations below say what is wrong
            return Tensor(fused(x.data, w.data, ops.pair(stride), ops.pair(padding), bias.data,
                                None if skip is None else skip.data, True))
    h = ops.conv2d(x, w, bias, stride, padding, dilation, groups)
    return ops.relu(h if skip is None else h + skip)


class ResidualBlock(Module):
    """ResidualBlock is the base class of all blocks: a branch of convolutions, and the shortcut around this branch.

    option: the kind of shortcut (He et al. 2015, sections 3.3 and 4.1).
        "A": the identity; where the shape changes, subsampling and zero channels.
        "B": the identity; where the shape changes, a 1x1 convolution (`downsample`).
        "C": a 1x1 convolution everywhere.
    pad: where option A puts the zero channels, "both" or "end" (see `ops.subsample_and_pad`).
    residual: False leaves out the shortcut. The result has the layers of a plain network, with the same names.
    by_hand: True if the subclass may run its hand-written Function.

    Raises ValueError for an unknown `pad` or `option`, or for `by_hand` without shortcut or BatchNorm.
    """

    expansion = 1  # out_channels as a multiple of the channels of the 3x3 convolutions
    kind = ""      # appears in repr
    downsample: Any = None

    def __init__(self, out_channels: int, stride: int, residual: bool, option: str, pad: str, by_hand: bool = False,
                 batch_norm: bool = True):
        if pad not in ("both", "end"):
            raise ValueError(f'pad: expected "both" or "end", got {pad!r}')
        if option not in ("A", "B", "C"):
            raise ValueError(f'shortcut: expected "A", "B" or "C", got {option!r}')
        if by_hand and not (residual and batch_norm):
            raise ValueError("by_hand=True supports only residual blocks with BatchNorm; build this block without it")
        self.out_channels, self.stride, self.residual = out_channels, stride, residual
        self.option, self.pad, self.by_hand = option, pad, by_hand

    def project(self, in_channels: int, *norm: Module, bias: bool = False, rng: np.random.Generator) -> None:
        """Create the projection if the shortcut has one: a 1x1 convolution, followed by `norm`."""
        changes = self.stride != 1 or in_channels != self.out_channels
        if self.residual and (self.option == "C" or (self.option == "B" and changes)):
            conv = Conv2d(in_channels, self.out_channels, 1, self.stride, bias=bias, rng=rng)
            self.downsample = Sequential(conv, *norm)

    def shortcut(self, x: Tensor) -> Tensor:
        """Return what is added to the output of the branch: x, its projection, or x subsampled with zero channels."""
        if self.downsample is not None:
            return self.downsample(x)
        if self.stride == 1 and x.shape[1] == self.out_channels:
            return x
        return ops.subsample_and_pad(x, self.stride, self.out_channels, self.pad)

    def describe(self) -> str:
        return ("residual" if self.residual else "plain") + self.kind


class Block(ResidualBlock):
    """Block is v1's basic block: He et al. 2015, Fig. 2 and Table 1.

        relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))

    residual, shortcut, pad: see ResidualBlock. A projection is followed by BN.
    by_hand: True runs the block as one Function with a hand-written backward (residual.py), if every layer is in train
        mode and no hook is active. Otherwise the block runs composed of operations, with the same result.
    batch_norm: False leaves out BN and gives the convolutions a bias.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, residual: bool = True,
                 shortcut: str = "A", pad: str = "both", by_hand: bool = False, batch_norm: bool = True,
                 rng: np.random.Generator):
        super().__init__(out_channels, stride, residual, shortcut, pad, by_hand, batch_norm)
        bn: Any = BatchNorm2d if batch_norm else lambda channels: Identity()
        self.conv1 = Conv2d(in_channels, out_channels, 3, stride, 1, not batch_norm, rng=rng)
        self.bn1 = bn(out_channels)
        self.conv2 = Conv2d(out_channels, out_channels, 3, 1, 1, not batch_norm, rng=rng)
        self.bn2 = bn(out_channels)
        self.project(in_channels, bn(out_channels), bias=not batch_norm, rng=rng)

    @property
    def last_norm(self) -> Module | None:
        """The BatchNorm at the end of the residual branch, or None."""
        return self.bn2 if self.residual and isinstance(self.bn2, BatchNorm2d) else None

    def branch(self) -> list[tuple[Conv2d, Any]]:
        """Each convolution of the residual branch with the norm that follows it."""
        return [(self.conv1, self.bn1), (self.conv2, self.bn2)]

    def forward(self, x: Tensor) -> Tensor:
        if _can_run_by_hand(self, layers_of_projection=2):
            return self.forward_by_hand(x)
        h = conv_bn_relu(self.conv1, self.bn1, x)
        skip = self.shortcut(x) if self.residual else None
        return conv_bn_relu(self.conv2, self.bn2, h, skip)

    def forward_by_hand(self, x: Tensor) -> Tensor:
        norms: list[Any] = [self.bn1, self.bn2]
        inputs = [x, self.conv1.weight, self.bn1.weight, self.bn1.bias,
                  self.conv2.weight, self.bn2.weight, self.bn2.bias]
        if self.downsample is not None:
            conv, bn = self.downsample
            inputs += [conv.weight, bn.weight, bn.bias]
            norms.append(bn)
        return _by_hand(Residual, inputs, norms, stride=self.stride, pad=self.pad)


class Bottleneck(ResidualBlock):
    """Bottleneck is v1's bottleneck block: He et al. 2015, Fig. 5 and Table 1.

        relu(bn3(conv3(relu(bn2(conv2(relu(bn1(conv1(x)))))))) + shortcut(x))

    conv1 is 1x1 and reduces x to out_channels / 4 channels, conv2 is 3x3, and conv3 is 1x1 and expands to out_channels.

    version: which convolution has the stride.
        "v1": the first 1x1 convolution, as in the paper.
        "v1.5": the 3x3 convolution, as in most published weights (fb.resnet.torch, torchvision). ResNet-50 then needs
        6 % more work, and no pixel is skipped.
        Shapes and names are the same in both versions. So weights of one version load into the other, but the
        network then computes something else.
    groups, width_per_group: The 3x3 convolution has `groups` groups, and out_channels / 4 * width_per_group / 64
        channels in each. The defaults are the paper's bottleneck; more channels make it wide (Zagoruyko & Komodakis
        2016), more groups make it ResNeXt's (Xie et al. 2017). The names are torchvision's.
    The other arguments are those of Block. There is no hand-written backward.

    Raises ValueError for an unknown version, if out_channels is not a multiple of 4, or if a group gets no channel.
    """

    expansion = 4
    kind = ", bottleneck"

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, residual: bool = True,
                 shortcut: str = "A", pad: str = "both", version: str = "v1", groups: int = 1,
                 width_per_group: int = 64, rng: np.random.Generator):
        super().__init__(out_channels, stride, residual, shortcut, pad)
        width, first, second = _bottleneck(out_channels, stride, version)
        if width * width_per_group < 64 or groups < 1:
            raise ValueError(f"Bottleneck: expected one channel or more in each of 1 or more groups, got groups="
                             f"{groups} and {width} * width_per_group={width_per_group} / 64 channels")
        width = width * width_per_group // 64 * groups
        self.conv1 = Conv2d(in_channels, width, 1, first, rng=rng)
        self.bn1 = BatchNorm2d(width)
        self.conv2 = Conv2d(width, width, 3, second, 1, groups=groups, rng=rng)
        self.bn2 = BatchNorm2d(width)
        self.conv3 = Conv2d(width, out_channels, 1, rng=rng)
        self.bn3 = BatchNorm2d(out_channels)
        self.project(in_channels, BatchNorm2d(out_channels), rng=rng)

    @property
    def last_norm(self) -> Module | None:
        """The BatchNorm at the end of the residual branch, or None."""
        return self.bn3 if self.residual else None

    def branch(self) -> list[tuple[Conv2d, Any]]:
        """Each convolution of the residual branch with the norm that follows it."""
        return [(self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)]

    def forward(self, x: Tensor) -> Tensor:
        h = conv_bn_relu(self.conv1, self.bn1, x)
        h = conv_bn_relu(self.conv2, self.bn2, h)
        skip = self.shortcut(x) if self.residual else None
        return conv_bn_relu(self.conv3, self.bn3, h, skip)


class PreactBlock(ResidualBlock):
    """PreactBlock is v2's full pre-activation block: arXiv 1603.05027, Fig. 1b.

        conv2(relu(bn2(conv1(relu(bn1(x)))))) + shortcut(x)

    The shortcut starts at x itself, so that it stays an identity from block to block. A projection is a 1x1
    convolution without BN, and its shortcut starts after relu(bn1(x)).

    split_after_activation: True starts the shortcut after relu(bn1(x)) in any case, as in the first block of a network
        (v2, appendix on implementation).
    The other arguments are those of Block.
    """

    kind = ", pre-activation"

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, residual: bool = True,
                 shortcut: str = "A", pad: str = "both", split_after_activation: bool = False, by_hand: bool = False,
                 rng: np.random.Generator):
        super().__init__(out_channels, stride, residual, shortcut, pad, by_hand)
        self.bn1 = BatchNorm2d(in_channels)
        self.conv1 = Conv2d(in_channels, out_channels, 3, stride, 1, rng=rng)
        self.bn2 = BatchNorm2d(out_channels)
        self.conv2 = Conv2d(out_channels, out_channels, 3, 1, 1, rng=rng)
        self.project(in_channels, rng=rng)
        self.split_after_activation = split_after_activation or self.downsample is not None

    def forward(self, x: Tensor) -> Tensor:
        if _can_run_by_hand(self, layers_of_projection=1):
            return self.forward_by_hand(x)
        a = bn_relu(self.bn1, x)
        h = self.conv2(conv_bn_relu(self.conv1, self.bn2, a))
        if self.residual:
            h = h + self.shortcut(a if self.split_after_activation else x)
        return h

    def forward_by_hand(self, x: Tensor) -> Tensor:
        inputs = [x, self.bn1.weight, self.bn1.bias, self.conv1.weight, self.bn2.weight, self.bn2.bias,
                  self.conv2.weight]
        if self.downsample is not None:
            inputs.append(self.downsample[0].weight)
        return _by_hand(PreactResidual, inputs, [self.bn1, self.bn2], stride=self.stride, pad=self.pad,
                        split_after_activation=self.split_after_activation)


class PreactBottleneck(ResidualBlock):
    """PreactBottleneck is v2's bottleneck, the block of ResNet-164 and ResNet-1001: arXiv 1603.05027, section 4.

        conv3(relu(bn3(conv2(relu(bn2(conv1(relu(bn1(x))))))))) + shortcut(x)

    The arguments are those of Bottleneck and PreactBlock.
    """

    expansion = 4
    kind = ", pre-activation bottleneck"

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, residual: bool = True,
                 shortcut: str = "A", pad: str = "both", split_after_activation: bool = False, version: str = "v1",
                 rng: np.random.Generator):
        super().__init__(out_channels, stride, residual, shortcut, pad)
        width, first, second = _bottleneck(out_channels, stride, version)
        self.bn1 = BatchNorm2d(in_channels)
        self.conv1 = Conv2d(in_channels, width, 1, first, rng=rng)
        self.bn2 = BatchNorm2d(width)
        self.conv2 = Conv2d(width, width, 3, second, 1, rng=rng)
        self.bn3 = BatchNorm2d(width)
        self.conv3 = Conv2d(width, out_channels, 1, rng=rng)
        self.project(in_channels, rng=rng)
        self.split_after_activation = split_after_activation or self.downsample is not None

    def forward(self, x: Tensor) -> Tensor:
        a = bn_relu(self.bn1, x)
        h = conv_bn_relu(self.conv1, self.bn2, a)
        h = self.conv3(conv_bn_relu(self.conv2, self.bn3, h))
        if self.residual:
            h = h + self.shortcut(a if self.split_after_activation else x)
        return h


class FixupBlock(ResidualBlock):
    """FixupBlock is a residual block without BatchNorm: Zhang, Dauphin & Ma 2019, "Fixup Initialization", Fig. 1 right.

        relu(scale * conv2(relu(conv1(x + bias1a) + bias1b) + bias2a) + bias2b + shortcut(x))

    Four scalar biases, which start at 0, and one scalar multiplier, which starts at 1, replace BN. Initialise the
    model with `init.fixup(model)`.
    """

    kind = ", Fixup"

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, pad: str = "both",
                 rng: np.random.Generator):
        def scalar(value: float) -> Tensor:
            return Tensor(init.constant((1,), value), True)

        super().__init__(out_channels, stride, True, "A", pad)
        self.bias1a, self.bias1b, self.bias2a, self.bias2b = (scalar(0) for _ in range(4))
        self.scale = scalar(1)
        self.conv1 = Conv2d(in_channels, out_channels, 3, stride, 1, rng=rng)
        self.conv2 = Conv2d(out_channels, out_channels, 3, 1, 1, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        h = ops.relu(self.conv1(x + self.bias1a) + self.bias1b)
        h = self.conv2(h + self.bias2a) * self.scale + self.bias2b
        return ops.relu(h + self.shortcut(x))


def _can_run_by_hand(block: Any, layers_of_projection: int) -> bool:
    """Return True if the hand-written Function computes the same as the composed block: every layer still has the kind
    and geometry that the constructor gave it, every BatchNorm is in train mode, and no hook is active."""
    if not (block.by_hand and block.residual and block.training) or being_watched():
        return False
    if "shortcut" in vars(block) or type(block).shortcut is not ResidualBlock.shortcut:
        return False
    stride = block.stride, block.stride
    convolutions, norms = [(block.conv1, stride, (1, 1)), (block.conv2, (1, 1), (1, 1))], [block.bn1, block.bn2]
    if block.downsample is not None:
        inside = [*block.downsample] if is_exactly(block.downsample, Sequential) else []
        if len(inside) != layers_of_projection:
            return False
        convolutions.append((inside[0], stride, (0, 0)))
        norms += inside[1:]
    return (all(is_exactly(bn, BatchNorm2d) and bn.training for bn in norms)
            and all(is_exactly(conv, Conv2d) and conv.bias is None and (conv.stride, conv.padding) == (s, p)
                    and conv.is_dense
                    for conv, s, p in convolutions))


def _bottleneck(out_channels: int, stride: int, version: str) -> tuple[int, int, int]:
    """Return the channels between the 1x1 convolutions, the stride of the first 1x1 and the stride of the 3x3."""
    if version not in ("v1", "v1.5"):
        raise ValueError(f'version: expected "v1" or "v1.5", got {version!r}')
    if out_channels % 4:
        raise ValueError(f"out_channels: expected a multiple of 4 for a bottleneck, got {out_channels}")
    return (out_channels // 4, stride, 1) if version == "v1" else (out_channels // 4, 1, stride)


def _by_hand(function: Any, inputs: list[Tensor], norms: list[Any], **options: Any) -> Tensor:
    """Apply a hand-written block and update the running statistics of its BatchNorms."""
    stats: list[Any] = []
    y = function.apply(*inputs, eps=[float(bn.eps) for bn in norms], stats=stats, **options)
    for bn, (mean, var, count) in zip(norms, stats, strict=True):
        bn.update(mean, var, count)
    return y
