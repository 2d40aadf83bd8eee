"""Build each network a second time in PyTorch, from the papers and torch.nn alone, and compare it with minires.

Each network has one twin for all tests. The parameters of a twin get their names and shapes from torchvision, not from
minires, so a comparison first checks that the state of the minires network fits. No code of minires computes the
twin's results. This file imports PyTorch, so tests import it where they use it and are marked `needs_torch`.

The same person read the papers for a twin and for its minires network, so both can share a mistake. These tests are
independent of the twins: torchvision_names.txt, written by torchvision; the shipped weights; and the formulas of the
blocks in NumPy, their Jacobians and finite differences, in test_residual.py, test_models_study.py and
test_gradcheck.py.
"""
import numpy as np
import torch
from helpers import difference
from torch import nn
from torch.nn import functional as F

from minires import Tensor, kernels, ops


class Block(nn.Module):
    """A Block has two 3x3 convolutions or is a bottleneck. With "preact" BN and ReLU come before each convolution.

    first: True for the first block of a network.
    gate: True adds a 1x1 convolution with bias.
    run: run(block, x) replaces the forward of the block.
    """

    def __init__(self, block, channels, out, stride=1, first=False, *, residual=True, shortcut="A", pad="both",
                 version="v1", groups=1, width_per_group=64, gate=False, run=None):
        super().__init__()
        self.preact, self.residual, self.stride, self.pad, self.run = "preact" in block, residual, stride, pad, run
        if "bottleneck" in block:
            one, three = (stride, 1) if version == "v1" else (1, stride)
            inside = out // 4 * width_per_group // 64 * groups  # torchvision's Bottleneck
            convs = [(channels, inside, 1, one, 1), (inside, inside, 3, three, groups), (inside, out, 1, 1, 1)]
        else:
            convs = [(channels, out, 3, stride, 1), (out, out, 3, 1, 1)]
        self.layers = len(convs)
        for i, (c, o, k, s, g) in enumerate(convs, 1):
            setattr(self, f"conv{i}", nn.Conv2d(c, o, k, s, k // 2, groups=g, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(c if self.preact else o))
        changes = stride > 1 or channels != out
        if residual and (shortcut == "C" or (shortcut == "B" and changes)):
            norm = () if self.preact else (nn.BatchNorm2d(out),)
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), *norm)
        if gate:
            self.gate = nn.Conv2d(channels, out, 1, stride)
        self.skip_from_relu = self.preact and (first or hasattr(self, "downsample"))

    def pairs(self):
        """Return (convolution, BN) of each layer."""
        return [(getattr(self, f"conv{i}"), getattr(self, f"bn{i}")) for i in range(1, self.layers + 1)]

    def skip(self, x, channels):
        if hasattr(self, "downsample"):
            return self.downsample(x)
        new = channels - x.shape[1]
        before = new // 2 if self.pad == "both" else 0
        return F.pad(x[:, :, ::self.stride, ::self.stride], (0, 0, 0, 0, before, new - before))

    def forward(self, x):
        if self.run is not None:
            return self.run(self, x)
        h = x
        for i, (conv, bn) in enumerate(self.pairs(), 1):
            if self.preact:
                h = F.relu(bn(h))
                if i == 1 and self.skip_from_relu:
                    x = h
                h = conv(h)
            else:
                h = bn(conv(h))
                h = F.relu(h) if i < self.layers else h
        h = h + self.skip(x, h.shape[1]) if self.residual else h
        return h if self.preact else F.relu(h)


class ResNet(nn.Module):
    """A ResNet is a CIFAR or ImageNet network.

    stem: kernel size of the first convolution, 3 (CIFAR) or 7 (ImageNet, followed by a max pool).
    channels: output channels of each stage.
    """

    def __init__(self, stem, width, block, channels, blocks, num_classes, *, in_channels=3, last_relu=False, **options):
        super().__init__()
        self.stem, self.preact, self.stages, self.last_relu = stem, "preact" in block, len(channels), last_relu
        self.conv1 = nn.Conv2d(in_channels, width, stem, 1 if stem == 3 else 2, stem // 2, bias=False)
        last = width
        if not self.preact:
            self.bn1 = nn.BatchNorm2d(width)
        for s, (out, n) in enumerate(zip(channels, blocks, strict=True), 1):
            made = []
            for i in range(n):
                made.append(Block(block, last, out, 2 if s > 1 and i == 0 else 1, s == 1 and i == 0, **options))
                last = out
            setattr(self, f"layer{s}", nn.Sequential(*made))
        if self.preact:
            self.bn = nn.BatchNorm2d(last)
        self.fc = nn.Linear(last, num_classes)

    def forward(self, x):
        h = self.conv1(x)
        if not self.preact:
            h = F.relu(self.bn1(h))
        if self.stem == 7:
            h = F.max_pool2d(h, 3, 2, 1)
        for s in range(1, self.stages + 1):
            h = getattr(self, f"layer{s}")(h)
        if self.preact:
            h = F.relu(self.bn(h))
        if self.last_relu:
            h = F.relu(h)
        return self.fc(h.mean((2, 3)))


def cifar(depth, residual=True, block="basic", *, width=4, num_classes=10, **options):
    """Build a CIFAR network of 6n + 2 layers, or 9n + 2 with bottlenecks."""
    layers, expansion = (9, 4) if "bottleneck" in block else (6, 1)
    assert depth % layers == 2
    return ResNet(3, width, block, [c * width * expansion for c in (1, 2, 4)], [depth // layers] * 3, num_classes,
                  residual=residual, **options)


def imagenet(depth, residual=True, *, shortcut="B", version="v1.5", width=4, num_classes=7, **options):
    """Build a network of Table 1 of He et al. 2015."""
    blocks = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}[depth]
    block, expansion = ("basic", 1) if depth < 50 else ("bottleneck", 4)
    return ResNet(7, width, block, [c * width * expansion for c in (1, 2, 4, 8)], blocks, num_classes,
                  residual=residual, shortcut=shortcut, version=version, **options)


class VGG(nn.Module):
    """VGG is column D or E of Table 1 of Simonyan & Zisserman 2014."""

    def __init__(self, depth, batch_norm=False, *, width=4, hidden, num_classes=7, dropout):
        super().__init__()
        layers, last = [], 3
        for n, multiple in zip({16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}[depth], (1, 2, 4, 8, 8), strict=True):
            for _ in range(n):
                layers.append(nn.Conv2d(last, multiple * width, 3, padding=1))
                last = multiple * width
                layers += [nn.BatchNorm2d(last), nn.ReLU()] if batch_norm else [nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
        self.features, self.avgpool = nn.Sequential(*layers), nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(nn.Linear(last * 49, hidden), nn.ReLU(), nn.Dropout(dropout),
                                        nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout),
                                        nn.Linear(hidden, num_classes))

    def forward(self, x): return self.classifier(self.avgpool(self.features(x)).flatten(1))


class BasicConv(nn.Module):
    """BasicConv is the convolution of GoogLeNet, with BN and ReLU."""

    def __init__(self, channels, out, kernel, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x): return F.relu(self.bn(self.conv(x)))


class Inception(nn.Module):
    """Inception is Fig. 2b of Szegedy et al. 2014, with a 3x3 convolution instead of the 5x5."""

    def __init__(self, channels, a, b1, b2, c1, c2, d):
        super().__init__()
        self.branch1 = BasicConv(channels, a, 1)
        self.branch2 = nn.Sequential(BasicConv(channels, b1, 1), BasicConv(b1, b2, 3))
        self.branch3 = nn.Sequential(BasicConv(channels, c1, 1), BasicConv(c1, c2, 3))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), BasicConv(channels, d, 1))
        self.out = a + b2 + c2 + d

    def forward(self, x):
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class GoogLeNet(nn.Module):
    """GoogLeNet is Table 1 of Szegedy et al. 2014 with BN. width: channels of the first convolution (paper: 64)."""

    def __init__(self, *, width, num_classes=7, dropout):
        super().__init__()
        rows = {"3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64), "4a": (192, 96, 208, 16, 48, 64),
                "4b": (160, 112, 224, 24, 64, 64), "4c": (128, 128, 256, 24, 64, 64),
                "4d": (112, 144, 288, 32, 64, 64), "4e": (256, 160, 320, 32, 128, 128),
                "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128)}
        self.conv1 = BasicConv(3, width, 7, 2)
        self.conv2 = BasicConv(width, width, 1)
        self.conv3 = BasicConv(width, 3 * width, 3)
        last = 3 * width
        for name, row in rows.items():
            module = Inception(last, *(c * width // 64 for c in row))
            setattr(self, f"inception{name}", module)
            last = module.out
        self.dropout, self.fc = nn.Dropout(dropout), nn.Linear(last, num_classes)

    def forward(self, x):
        def pool(h, kernel=3): return F.max_pool2d(h, kernel, 2, ceil_mode=True)
        h = pool(self.conv3(self.conv2(pool(self.conv1(x)))))
        h = pool(self.inception3b(self.inception3a(h)))
        for name in "abcde":
            h = getattr(self, f"inception4{name}")(h)
        h = self.inception5b(self.inception5a(pool(h, 2)))
        return self.fc(self.dropout(h.mean((2, 3))))


LATER = {"wide_resnet50_2": {"width_per_group": 128}, "resnext50_32x4d": {"groups": 32, "width_per_group": 4}}


def build(name, **options):
    """Build an ImageNet network by its name."""
    if name == "googlenet":
        return GoogLeNet(**options)
    if name.startswith("vgg"):
        return VGG(int(name[3:5]), name.endswith("_bn"), **options)
    if name in LATER:
        return imagenet(50, **LATER[name], **options)
    return imagenet(int(name.removeprefix("resnet").removeprefix("plain")), name.startswith("resnet"), **options)


# -------------------------------------------------------------------------------------------- comparison


def loaded(twin, model):
    """Load dtype, mode and state of a minires `model` into `twin`. AssertionError unless names and shapes fit."""
    state = {name: torch.tensor(t.data) for name, t in model.state().items()}
    twin = twin.to(next(iter(state.values())).dtype).train(model.training)
    missing, unexpected = twin.load_state_dict(state, strict=False)
    assert unexpected == [] and all(name.endswith("num_batches_tracked") for name in missing), (missing, unexpected)
    assert {n for n, _ in twin.named_parameters()} == {n for n, t in model.state().items() if t.requires_grad}
    return twin


def compare(model, twin, images, labels, rtol, which="auto", silent=(), floor=0.0):
    """Compare one step of a model and its loaded twin: logits, running statistics, and all gradients.

    silent: names of biases that a BatchNorm in train mode cancels. Their gradients are 0 except for rounding.
    floor: gradients smaller than `floor` times the largest gradient are compared relative to that size instead of
        relative to their own.
    """
    x, tx = Tensor(images, True), torch.tensor(images, requires_grad=True)
    with kernels.using(which):
        logits = model(x)
        ops.cross_entropy(logits, labels).backward()
    expected = twin(tx)
    F.cross_entropy(expected, torch.tensor(labels)).backward()

    assert logits.dtype == images.dtype and difference(logits.data, expected.detach().numpy()) < rtol
    assert difference(x.grad, tx.grad.numpy()) < rtol
    parameters, buffers = dict(twin.named_parameters()), dict(twin.named_buffers())
    largest = max(float(p.grad.norm()) for p in parameters.values())
    for name, t in model.state().items():
        got, want = (t.grad, parameters[name].grad.numpy()) if t.requires_grad else (t.data, buffers[name].numpy())
        assert got.dtype == images.dtype and got.shape == want.shape, name
        if name in silent:
            loud = np.linalg.norm(model.state()[name.replace("bias", "weight")].grad)
            assert np.linalg.norm(got) < rtol * loud and np.linalg.norm(want) < rtol * loud, name
        elif t.requires_grad and floor:
            assert np.linalg.norm(got - want) < rtol * max(np.linalg.norm(want), floor * largest), name
        else:
            assert difference(got, want) < rtol, name


def randomised(twin, seed=0):
    """Randomise the weights of `twin`, and the running statistics and affine parameters of its norms."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, t in [*twin.named_parameters(), *twin.named_buffers()]:
            if t.ndim == 0:
                t.fill_(17)  # num_batches_tracked
            elif t.ndim == 1:
                t.copy_(0.3 * torch.randn(t.shape, generator=draw) + (0 if name.endswith(("bias", "mean")) else 1))
                if name.endswith("var"):
                    t.square_().add_(0.1)
            else:
                t.copy_(torch.randn(t.shape, generator=draw) * (2 / t[0].numel()) ** 0.5)
    return twin
