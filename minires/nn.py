"""Modules: a tree of Tensors, found by walking attributes in the order they were set.

Names equal torchvision's (`layer1.0.bn1.running_mean`, `fc.weight`). Sizes are explicit; randomness is `rng=`.
"""
from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import chain, groupby
from typing import Any

import numpy as np

from . import device, init, kernels, ops
from .residual import PreactResidual, Residual
from .tensor import Tensor, recording, topological_order

_watchers: ContextVar[tuple[Callable, ...]] = ContextVar("watchers", default=())


@contextmanager
def watched(see: Callable[[Module, tuple, Any], None]) -> Iterator[None]:
    """Inside, `see(module, inputs, output)` is called after every module's forward. What taps stand on."""
    token = _watchers.set((*_watchers.get(), see))
    try:
        yield
    finally:
        _watchers.reset(token)


def being_watched() -> bool:
    """Does something look inside? Then every module runs by itself, and nothing is made one."""
    return bool(_watchers.get())


@contextmanager
def modes_kept(model: Module) -> Iterator[None]:
    """Inside, switch between train and eval mode as you like: afterwards every module's mode is as it was."""
    modes = [(m, m.training) for _, m in model.modules()]
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training


def misfits(mine: Mapping[str, Tensor], theirs: Mapping[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """What keeps {name: array} `theirs` from taking the place of the state `mine`, in words: what is missing, what is
    unexpected, what has another shape."""
    return ([f"missing {n}" for n in mine if n not in theirs], [f"unexpected {n}" for n in theirs if n not in mine],
            [f"{n}: expected shape {t.shape}, got {getattr(theirs[n], 'shape', type(theirs[n]).__name__)}"
             for n, t in mine.items() if n in theirs and getattr(theirs[n], "shape", None) != t.shape])


class Module:
    """Base of all layers. A Tensor attribute is state, and a parameter iff it requires a gradient; an attribute
    that is a Module, or a list of Modules, is a child."""

    training = True
    unused: tuple[str, ...] = ()  # what published weights hold besides, by the first part of its name

    def forward(self, *inputs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward()")

    def __call__(self, *inputs: Any) -> Any:
        out = self.forward(*inputs)
        for see in _watchers.get():
            see(self, inputs, out)
        return out

    def children(self) -> Iterator[tuple[str, Module]]:
        for name, v in vars(self).items():
            if isinstance(v, Module):
                yield name, v
            elif isinstance(v, (list, tuple)):
                yield from ((f"{name}.{i}", m) for i, m in enumerate(v) if isinstance(m, Module))

    def modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(name, module) of this module ("") and of all below it, in the order they were set."""
        yield prefix, self
        for name, m in self.children():
            yield from m.modules(f"{prefix}.{name}" if prefix else name)

    def state(self) -> dict[str, Tensor]:
        """{name: Tensor}: parameters and running statistics alike."""
        return {f"{prefix}.{name}" if prefix else name: t for prefix, m in self.modules()
                for name, t in vars(m).items() if isinstance(t, Tensor)}

    def parameters(self) -> list[Tensor]:
        """What an optimiser trains, in order, each once."""
        return list({id(t): t for t in self.state().values() if t.requires_grad}.values())

    def load_state(self, arrays: Mapping[str, Any]) -> None:
        """Copy {name: array or Tensor} in; ValueError, and nothing changed, unless names and shapes all match."""
        mine = self.state()
        arrays = {n: a.data if isinstance(a, Tensor) else a for n, a in arrays.items()}
        wrong = list(chain(*misfits(mine, arrays)))
        if wrong:
            raise ValueError(f"load_state: {len(wrong)} of {len(mine)} entries do not fit: " + "; ".join(wrong[:6]))
        new = [device.of(t.data).array(arrays[name], dtype=t.dtype) for name, t in mine.items()]  # all, or none
        for t, data in zip(mine.values(), new, strict=True):
            t.data = data

    def train(self, on: bool = True) -> Module:
        for _, m in self.modules():
            m.training = on
        return self

    def eval(self) -> Module:
        return self.train(False)

    def to(self, where: str) -> Module:
        """Move all state to "cpu", "gpu" or "auto", in place; returns self."""
        for t in self.state().values():
            t.data, t.grad = device.to(t.data, where), None
        return self

    def astype(self, dtype: Any) -> Module:
        """Convert all state, in place (float64 for gradient checks); returns self."""
        for t in self.state().values():
            t.data, t.grad = t.data.astype(dtype), None
        return self

    def count_parameters(self) -> int:
        return sum(t.size for t in self.parameters())

    def macs(self, input_shape: Sequence[int]) -> int:
        """Multiply-accumulates of the convolutions and linear layers for ONE input of shape (C, H, W).

        Counted by sending that shape through and looking at the shapes that arise; no number is computed.
        """
        return sum(macs for _, _, macs in _traced(self, input_shape)[1])

    def depth(self, input_shape: Sequence[int]) -> int:
        """Layers with weights on the longest way from the input, (C, H, W), to the output: what the papers count.

        Projections and gates lie beside that way. RuntimeError under no_grad().
        """
        if not recording():
            raise RuntimeError("depth: follows the graph from output to input, and under no_grad() there is none")
        out, _ = _traced(self, input_shape)
        behind: dict[int, int] = {}
        for t in topological_order(out):
            step = t.creator
            before = max((behind.get(id(x), 0) for x in step.inputs), default=0) if step else 0
            behind[id(t)] = before + isinstance(step, (ops.Conv2d, ops.Linear))
        return behind[id(out)]

    def summary(self, input_shape: Sequence[int]) -> None:
        """Print a table of all layers: output shape, parameters and MACs for ONE input of shape (C, H, W).

        Blocks that repeat the one before them share a line.
        """
        _, ran = _traced(self, input_shape)
        shapes = {id(m): " x ".join(map(str, shape)) for m, shape, _ in ran}
        macs: Counter[int] = Counter()
        for m, _, n in ran:
            macs[id(m)] += n
        table = [("layer", "kind", "output", "parameters", "MACs"), *_rows("", self, shapes, macs),
                 ("total", "", "", f"{self.count_parameters():,}", f"{macs.total():,}")]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for row in table:
            texts, numbers = zip(row[:2], widths[:2], strict=True), zip(row[2:], widths[2:], strict=True)
            print("  ".join([*(text.ljust(w) for text, w in texts), *(n.rjust(w) for n, w in numbers)]))

    def describe(self) -> str:
        """What stands between the parentheses of repr, without children."""
        return ""

    def __repr__(self) -> str:
        children = []
        for first, *more in _alike(self.children(), repr):
            name = first[0] + (f" ... {more[-1][0]} ({len(more) + 1} alike)" if more else "")
            children.append(f"  {name}: {first[1]!r}".replace("\n", "\n  "))
        head = f"{type(self).__name__}({self.describe()}"
        return head + ("\n" + "\n".join(children) + "\n" if children else "") + ")"


def _alike(children: Iterable[tuple[str, Module]], key: Callable[[Module], Any]) -> list[list[tuple[str, Module]]]:
    """Children in order; numbered ones that follow each other and have the same key stand in one list."""
    def kind(child):
        name, m = child
        return key(m) if name.rpartition(".")[2].isdigit() else name

    return [list(group) for _, group in groupby(children, kind)]


def _rows(name: str, module: Module, shapes: Mapping[int, str], macs: Counter[int]) -> Iterator[tuple[str, ...]]:
    """The lines of a summary below `module`, given every module's output shape and its own MACs by id."""
    own = sum(t.size for t in vars(module).values() if isinstance(t, Tensor) and t.requires_grad)
    children = list(module.children())
    if own or not children:
        kind = f"{type(module).__name__}({module.describe()})"
        yield name, kind, shapes.get(id(module), "not used"), f"{own:,}", f"{macs[id(module)]:,}"
    prefix = f"{name}." if name else ""
    for (first, block), *more in _alike(children, lambda m: (repr(m), shapes.get(id(m)))):
        yield from _rows(prefix + first, block, shapes, macs)
        if more:
            names = prefix + (more[0][0] if len(more) == 1 else f"{more[0][0]} ... {more[-1][0]}")
            total = sum(macs[id(part)] for _, m in more for _, part in m.modules())
            yield (names, f"{len(more)} more like {prefix}{first}", shapes.get(id(block), "not used"),
                   f"{sum(m.count_parameters() for _, m in more):,}", f"{total:,}")


def _traced(model: Module, input_shape: Sequence[int]) -> tuple[Tensor, list[tuple[Module, tuple[int, ...], int]]]:
    """Send an input of shape (C, H, W) through: the output, and for each module that ran itself, its output's shape
    without the batch, and its own MACs. In eval mode and by the shapes alone, so also large networks take no time."""
    ran = []

    def see(module, inputs, out):
        weighs = isinstance(module, (Conv2d, Linear))
        ran.append((module, out.shape[1:], module.weight.size * out.size // out.shape[1] if weighs else 0))

    first = next((t.data for t in model.state().values()), np.zeros(0, np.float32))
    image = Tensor(device.of(first).zeros((1, *input_shape), first.dtype), requires_grad=True)
    with modes_kept(model), watched(see), kernels.using("shapes"):
        return model.eval()(image), ran


# ------------------------------------------------------------------------------------------ layers


class Conv2d(Module):
    """3x3 and others: (N, in, H, W) -> (N, out, Ho, Wo). Weights start as He et al. 2015b, fan-in."""

    def __init__(self, in_channels: int, out_channels: int, kernel: Any, stride: Any = 1, padding: Any = 0,
                 bias: bool = False, *, rng: np.random.Generator):
        shape = (out_channels, in_channels, *ops.pair(kernel))
        if min(shape) < 1:
            raise ValueError(f"Conv2d: expected channels and a kernel from 1, got {in_channels} -> {out_channels}, "
                             f"kernel {kernel}")
        self.weight = Tensor(init.he_normal(shape, rng=rng), True)
        self.bias = Tensor(init.constant((out_channels,), 0), True) if bias else None
        self.stride, self.padding = ops.pair(stride), ops.pair(padding)

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv2d(x, self.weight, self.bias, self.stride, self.padding)

    def describe(self) -> str:
        o, c, kh, kw = self.weight.shape
        return f"{c} -> {o}, {kh}x{kw}, stride {self.stride}, padding {self.padding}"


class Linear(Module):
    """(N, in) -> (N, out). Weights start uniform on +-1 / sqrt(in), biases at 0."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, rng: np.random.Generator):
        self.weight = Tensor(init.fan_in_uniform((out_features, in_features), rng=rng), True)
        self.bias = Tensor(init.constant((out_features,), 0), True) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return ops.linear(x, self.weight, self.bias)

    def describe(self) -> str:
        return f"{self.weight.shape[1]} -> {self.weight.shape[0]}"


class BatchNorm(Module):
    """Batch normalisation per channel (Ioffe & Szegedy 2015); use BatchNorm1d or BatchNorm2d.

    Train mode normalises by the batch's mean and biased variance, and moves the running statistics by `momentum`
    towards the batch's mean and UNBIASED variance; eval mode normalises by the running statistics. (PyTorch's
    conventions.) eps is added to the variance, inside the square root.
    """

    ndim = 0

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1):
        self.weight = Tensor(init.constant((channels,), 1), True)
        self.bias = Tensor(init.constant((channels,), 0), True)
        self.running_mean = Tensor(init.constant((channels,), 0))
        self.running_var = Tensor(init.constant((channels,), 1))
        self.eps, self.momentum = eps, momentum

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != self.ndim:
            raise ValueError(f"{type(self).__name__}: expected a {self.ndim}-dimensional input, got {x.shape}")
        if not self.training:
            return ops.batch_norm_eval(x, self.weight, self.bias, self.running_mean.data, self.running_var.data,
                                       self.eps)
        y, mean, var = ops.batch_norm(x, self.weight, self.bias, self.eps)
        self.update(mean, var, x.size // x.shape[1])
        return y

    def update(self, mean: Any, var: Any, count: int) -> None:
        """Move the running statistics towards a batch's mean and biased variance over `count` values."""
        if count < 2:
            raise ValueError(f"{type(self).__name__}: expected more than one value per channel in train mode, got "
                             f"{count}; use a larger batch or .eval()")
        momentum = float(self.momentum)  # a NumPy number would promote float32
        self.running_mean.data, self.running_var.data = kernels.of(mean).running_statistics(
            self.running_mean.data, self.running_var.data, mean, var, momentum, count)

    def describe(self) -> str:
        return f"{self.weight.size}"


class BatchNorm1d(BatchNorm):
    """For (N, C)."""
    ndim = 2


class BatchNorm2d(BatchNorm):
    """For (N, C, H, W)."""
    ndim = 4


class ReLU(Module):
    """max(x, 0), any shape."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.relu(x)


class Identity(Module):
    """x itself: stands where BatchNorm is left out."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class MaxPool2d(Module):
    """Maximum of every window; stride defaults to the kernel. ceil_mode: see `ops.max_pool2d`."""

    def __init__(self, kernel: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False):
        self.kernel, self.stride, self.padding, self.ceil_mode = kernel, stride, padding, ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        return ops.max_pool2d(x, self.kernel, self.stride, self.padding, self.ceil_mode)

    def describe(self) -> str:
        rounded = ", ceil" if self.ceil_mode else ""
        return f"{self.kernel}, stride {self.stride or self.kernel}, padding {self.padding}{rounded}"


class AvgPool2d(Module):
    """Mean of every window, padding zeros included; stride defaults to the kernel."""

    def __init__(self, kernel: Any, stride: Any = None, padding: Any = 0):
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return ops.avg_pool2d(x, self.kernel, self.stride, self.padding)

    def describe(self) -> str:
        return f"{self.kernel}, stride {self.stride or self.kernel}, padding {self.padding}"


class AdaptiveAvgPool2d(Module):
    """(N, C, H, W) -> (N, C, size, size) from any H and W: means over `size` bands of rows and of columns, band i from
    floor(i H / size) to ceil((i + 1) H / size). That is a product with two matrices of weights: Y = A X B^T."""

    def __init__(self, size: int):
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        N, C, H, W = x.shape
        if x.shape[2:] == (self.size, self.size):
            return x
        rows, columns = (Tensor(_bands(device.of(x.data), x.dtype, self.size, n)) for n in (H, W))
        y = x.reshape(-1, W) @ columns  # two products of matrices, which a CUDA graph may hold; those of stacks not
        y = y.reshape(N, C, H, self.size).transpose(0, 1, 3, 2).reshape(-1, H) @ rows
        return y.reshape(N, C, self.size, self.size).transpose(0, 1, 3, 2)

    def describe(self) -> str:
        return f"{self.size}"


@functools.cache  # because a CUDA graph may not hold a copy from the host, and what it reads has to stay
def _bands(xp: Any, dtype: Any, size: int, n: int) -> Any:
    """(n, size): column i takes the mean of band i."""
    a = np.zeros((n, size))
    for i in range(size):
        band = slice(i * n // size, -(-(i + 1) * n // size))
        a[band, i] = 1 / (band.stop - band.start)
    return xp.asarray(a, dtype)


class GlobalAvgPool2d(Module):
    """(N, C, H, W) -> (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.global_avg_pool2d(x)


class Flatten(Module):
    """(N, ...) -> (N, everything else)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], -1)


class Dropout(Module):
    """Zeroes with probability p in train mode. `rng` draws a new mask at every call."""

    def __init__(self, p: float = 0.5, *, rng: np.random.Generator):
        self.p, self.rng = p, rng

    def forward(self, x: Tensor) -> Tensor:
        return ops.dropout(x, self.p, self.training, rng=self.rng)

    def describe(self) -> str:
        return f"{self.p}"


class Sequential(Module):
    """One module after the other; children are named "0", "1", ..."""

    def __init__(self, *layers: Module):
        for i, layer in enumerate(layers):
            setattr(self, str(i), layer)

    def layers(self) -> list[Any]:
        return [layer for _, layer in self.children()]

    def forward(self, x: Any) -> Any:
        for layer in self.layers():
            x = layer(x)
        return x


# ----------------------------------------------------------------------------------- residual blocks


def bn_relu(bn: Any, x: Tensor, skip: Tensor | None = None) -> Tensor:
    """relu(bn(x)), or relu(bn(x) + skip): one operation in train mode while nothing looks inside."""
    if type(bn) is BatchNorm2d and bn.training and not being_watched():  # a subclass has a forward of its own
        y, mean, var = ops.batch_norm_relu(x, bn.weight, bn.bias, bn.eps, skip)
        bn.update(mean, var, x.size // x.shape[1])
        return y
    h = bn(x)
    return ops.relu(h if skip is None else h + skip)


def conv_bn_relu(conv: Conv2d, bn: Any, x: Tensor, skip: Tensor | None = None) -> Tensor:
    """relu(bn(conv(x))), or relu(bn(conv(x)) + skip). In eval mode, where no gradient is wanted and nothing looks
    inside, BatchNorm is a fixed scale and shift of each channel: it is folded into the convolution's weights,

        w' = w gamma / sqrt(var + eps)          b' = beta + (b - mean) gamma / sqrt(var + eps)
    """
    ours = type(conv) is Conv2d and type(bn) is BatchNorm2d  # a subclass may compute something else
    if not ours or bn.training or recording() or being_watched():
        return bn_relu(bn, conv(x), skip)
    scale = bn.weight.data * (bn.running_var.data + float(bn.eps)) ** -0.5
    shift = bn.bias.data + ((0 if conv.bias is None else conv.bias.data) - bn.running_mean.data) * scale
    w = Tensor(conv.weight.data * scale.reshape(-1, 1, 1, 1))
    h = ops.conv2d(x, w, Tensor(shift), conv.stride, conv.padding)
    return ops.relu(h if skip is None else h + skip)


class ResidualBlock(Module):
    """What all blocks share: a branch of convolutions, and the shortcut that leads around it.

    `option` says which shortcut (He et al. 2015, sections 3.3 and 4.1): "A" identity, and where shapes change
    subsampling and zero channels (`pad` "both" or "end"); "B" there a 1x1 convolution, `downsample`; "C" that
    everywhere.
    residual=False leaves the shortcut out: the layers of a plain network, with the same names.
    """

    expansion = 1  # out_channels as a multiple of the channels of the 3x3 convolutions
    kind = ""      # for repr
    downsample: Any = None

    def __init__(self, stride: int, residual: bool, option: str, pad: str, by_hand: bool = False,
                 batch_norm: bool = True):
        if pad not in ("both", "end"):
            raise ValueError(f'pad: expected "both" or "end", got {pad!r}')
        if option not in ("A", "B", "C"):
            raise ValueError(f'shortcut: expected "A", "B" or "C", got {option!r}')
        if by_hand and not (residual and batch_norm):
            raise ValueError("by_hand=True is written for residual blocks with BatchNorm; build this block without it")
        self.stride, self.residual, self.option, self.pad, self.by_hand = stride, residual, option, pad, by_hand

    def project(self, in_channels: int, out_channels: int, *norm: Module, bias: bool = False,
                rng: np.random.Generator) -> None:
        """Give the shortcut its weights if it has any: a 1x1 convolution, and `norm` behind it."""
        changes = self.stride != 1 or in_channels != out_channels
        if self.residual and (self.option == "C" or (self.option == "B" and changes)):
            conv = Conv2d(in_channels, out_channels, 1, self.stride, bias=bias, rng=rng)
            self.downsample = Sequential(conv, *norm)

    def shortcut(self, x: Tensor, channels: int) -> Tensor:
        """What is added to a branch of `channels` channels."""
        if self.downsample is not None:
            return self.downsample(x)
        if self.stride == 1 and x.shape[1] == channels:
            return x
        return ops.shortcut(x, self.stride, channels, self.pad)

    def describe(self) -> str:
        return ("residual" if self.residual else "plain") + self.kind


class Block(ResidualBlock):
    """v1's basic block, relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x)): He et al. 2015, Fig. 2 and Table 1.

    residual, shortcut, pad: see ResidualBlock; a projection is followed by BN.
    by_hand=True runs the same block as one Function with its backward written out (residual.py). It serves train
    mode (of every layer: not with a frozen BatchNorm) while nothing looks inside; otherwise the block runs composed,
    with the same result.
    batch_norm=False leaves BN out and gives the convolutions a bias.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, residual: bool = True,
                 shortcut: str = "A", pad: str = "both", by_hand: bool = False, batch_norm: bool = True,
                 rng: np.random.Generator):
        super().__init__(stride, residual, shortcut, pad, by_hand, batch_norm)
        bn: Any = BatchNorm2d if batch_norm else lambda channels: Identity()
        self.conv1 = Conv2d(in_channels, out_channels, 3, stride, 1, not batch_norm, rng=rng)
        self.bn1 = bn(out_channels)
        self.conv2 = Conv2d(out_channels, out_channels, 3, 1, 1, not batch_norm, rng=rng)
        self.bn2 = bn(out_channels)
        self.project(in_channels, out_channels, bn(out_channels), bias=not batch_norm, rng=rng)

    @property
    def last_norm(self) -> Module | None:
        """The BatchNorm that ends the residual branch."""
        return self.bn2 if self.residual and isinstance(self.bn2, BatchNorm2d) else None

    def layers(self) -> list[tuple[Conv2d, Any]]:
        """The branch: each convolution with the norm that follows it."""
        return [(self.conv1, self.bn1), (self.conv2, self.bn2)]

    def forward(self, x: Tensor) -> Tensor:
        if _can_run_by_hand(self):
            return self.forward_by_hand(x)
        h = conv_bn_relu(self.conv1, self.bn1, x)
        skip = self.shortcut(x, self.conv2.weight.shape[0]) if self.residual else None
        return conv_bn_relu(self.conv2, self.bn2, h, skip)

    def forward_by_hand(self, x: Tensor) -> Tensor:
        norms: list[Any] = [self.bn1, self.bn2]
        inputs = [x, self.conv1.weight, self.bn1.weight, self.bn1.bias,
                  self.conv2.weight, self.bn2.weight, self.bn2.bias]
        if self.downsample is not None:
            conv, bn = self.downsample.layers()
            inputs += [conv.weight, bn.weight, bn.bias]
            norms.append(bn)
        return _by_hand(Residual, inputs, norms, stride=self.stride, pad=self.pad)


class Bottleneck(ResidualBlock):
    """v1's bottleneck: a 1x1 convolution down to out_channels / 4 channels, a 3x3, a 1x1 up to out_channels, each with
    BN. relu(bn3(conv3(relu(bn2(conv2(relu(bn1(conv1(x)))))))) + shortcut(x)): He et al. 2015, Fig. 5 and Table 1.

    version: where a block strides. "v1" in the first 1x1 convolution, as in the paper; "v1.5" in the 3x3, as most
    published weights have it (fb.resnet.torch, torchvision): 6 % more work for ResNet-50, and no pixel is skipped.
    Shapes and names are the same for both, so weights for one load into the other and compute something else.
    Other arguments as Block's; its backward is not written by hand.
    """

    expansion = 4
    kind = ", bottleneck"

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, residual: bool = True,
                 shortcut: str = "A", pad: str = "both", version: str = "v1", rng: np.random.Generator):
        super().__init__(stride, residual, shortcut, pad)
        width, first, second = _bottleneck(out_channels, stride, version)
        self.conv1 = Conv2d(in_channels, width, 1, first, rng=rng)
        self.bn1 = BatchNorm2d(width)
        self.conv2 = Conv2d(width, width, 3, second, 1, rng=rng)
        self.bn2 = BatchNorm2d(width)
        self.conv3 = Conv2d(width, out_channels, 1, rng=rng)
        self.bn3 = BatchNorm2d(out_channels)
        self.project(in_channels, out_channels, BatchNorm2d(out_channels), rng=rng)

    @property
    def last_norm(self) -> Module | None:
        """The BatchNorm that ends the residual branch."""
        return self.bn3 if self.residual else None

    def layers(self) -> list[tuple[Conv2d, Any]]:
        """The branch: each convolution with the norm that follows it."""
        return [(self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)]

    def forward(self, x: Tensor) -> Tensor:
        h = conv_bn_relu(self.conv1, self.bn1, x)
        h = conv_bn_relu(self.conv2, self.bn2, h)
        skip = self.shortcut(x, self.conv3.weight.shape[0]) if self.residual else None
        return conv_bn_relu(self.conv3, self.bn3, h, skip)


class PreactBlock(ResidualBlock):
    """v2's full pre-activation block, conv2(relu(bn2(conv1(relu(bn1(x)))))) + shortcut(x): Fig. 1b, arXiv 1603.05027.

    The shortcut starts at x itself, so that it stays an identity from block to block; behind relu(bn1(x)) if
    `split_after_activation` (the first block of a network: v2, section 5) and where it is a projection (1x1
    convolution, no BN: the activation stands before it). Other arguments as Block's.
    """

    kind = ", pre-activation"

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, residual: bool = True,
                 shortcut: str = "A", pad: str = "both", split_after_activation: bool = False, by_hand: bool = False,
                 rng: np.random.Generator):
        super().__init__(stride, residual, shortcut, pad, by_hand)
        self.bn1 = BatchNorm2d(in_channels)
        self.conv1 = Conv2d(in_channels, out_channels, 3, stride, 1, rng=rng)
        self.bn2 = BatchNorm2d(out_channels)
        self.conv2 = Conv2d(out_channels, out_channels, 3, 1, 1, rng=rng)
        self.project(in_channels, out_channels, rng=rng)
        self.split_after_activation = split_after_activation or self.downsample is not None

    def forward(self, x: Tensor) -> Tensor:
        if _can_run_by_hand(self):
            return self.forward_by_hand(x)
        a = bn_relu(self.bn1, x)
        h = self.conv2(conv_bn_relu(self.conv1, self.bn2, a))
        if self.residual:
            h = h + self.shortcut(a if self.split_after_activation else x, h.shape[1])
        return h

    def forward_by_hand(self, x: Tensor) -> Tensor:
        inputs = [x, self.bn1.weight, self.bn1.bias, self.conv1.weight, self.bn2.weight, self.bn2.bias,
                  self.conv2.weight]
        if self.downsample is not None:
            inputs += [conv.weight for conv in self.downsample.layers()]
        return _by_hand(PreactResidual, inputs, [self.bn1, self.bn2], stride=self.stride, pad=self.pad,
                        split_after_activation=self.split_after_activation)


class PreactBottleneck(ResidualBlock):
    """v2's bottleneck, conv3(relu(bn3(conv2(relu(bn2(conv1(relu(bn1(x))))))))) + shortcut(x): the block of
    ResNet-164 and ResNet-1001 (arXiv 1603.05027, section 4). Arguments as Bottleneck's and PreactBlock's."""

    expansion = 4
    kind = ", pre-activation bottleneck"

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, residual: bool = True,
                 shortcut: str = "A", pad: str = "both", split_after_activation: bool = False, version: str = "v1",
                 rng: np.random.Generator):
        super().__init__(stride, residual, shortcut, pad)
        width, first, second = _bottleneck(out_channels, stride, version)
        self.bn1 = BatchNorm2d(in_channels)
        self.conv1 = Conv2d(in_channels, width, 1, first, rng=rng)
        self.bn2 = BatchNorm2d(width)
        self.conv2 = Conv2d(width, width, 3, second, 1, rng=rng)
        self.bn3 = BatchNorm2d(width)
        self.conv3 = Conv2d(width, out_channels, 1, rng=rng)
        self.project(in_channels, out_channels, rng=rng)
        self.split_after_activation = split_after_activation or self.downsample is not None

    def forward(self, x: Tensor) -> Tensor:
        a = bn_relu(self.bn1, x)
        h = conv_bn_relu(self.conv1, self.bn2, a)
        h = self.conv3(conv_bn_relu(self.conv2, self.bn3, h))
        if self.residual:
            h = h + self.shortcut(a if self.split_after_activation else x, h.shape[1])
        return h


class FixupBlock(ResidualBlock):
    """A residual block without BatchNorm: Zhang, Dauphin & Ma 2019, "Fixup Initialization", Fig. 1 right.

        relu(scale * conv2(relu(conv1(x + bias1a) + bias1b) + bias2a) + bias2b + shortcut(x))

    Four scalar biases (0) and one scalar multiplier (1) take the place of BN. Start it with `init.fixup(model)`.
    """

    kind = ", Fixup"

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, pad: str = "both",
                 rng: np.random.Generator):
        def scalar(value):
            return Tensor(init.constant((1,), value), True)

        super().__init__(stride, True, "A", pad)
        self.bias1a, self.bias1b, self.bias2a, self.bias2b = (scalar(0) for _ in range(4))
        self.scale = scalar(1)
        self.conv1 = Conv2d(in_channels, out_channels, 3, stride, 1, rng=rng)
        self.conv2 = Conv2d(out_channels, out_channels, 3, 1, 1, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        h = ops.relu(self.conv1(x + self.bias1a) + self.bias1b)
        h = self.conv2(h + self.bias2a) * self.scale + self.bias2b
        return ops.relu(h + self.shortcut(x, h.shape[1]))


def _can_run_by_hand(block: Any) -> bool:
    """Train mode throughout, no layer that somebody replaced by a subclass, and nothing looks inside."""
    inside = [m for _, m in block.modules() if m is not block]
    return (block.by_hand and block.training and not being_watched()
            and all(m.training and type(m) in (Conv2d, BatchNorm2d, Sequential) for m in inside))


def _bottleneck(out_channels: int, stride: int, version: str) -> tuple[int, int, int]:
    """Channels between the 1x1 convolutions, and the strides of the first 1x1 and of the 3x3."""
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
