"""PyTorch twins of the networks, drawn from the papers with torch.nn alone; names as torchvision's. Needs PyTorch."""
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """kind: "basic", "bottleneck", and the same behind "preact_"; `first`: of the whole network."""

    def __init__(self, kind, channels, out, stride, first, *, residual, shortcut, pad, version):
        super().__init__()
        self.preact, self.residual, self.stride, self.pad = "preact" in kind, residual, stride, pad
        if "bottleneck" in kind:
            one, three = (stride, 1) if version == "v1" else (1, stride)
            convs = [(channels, out // 4, 1, one), (out // 4, out // 4, 3, three), (out // 4, out, 1, 1)]
        else:
            convs = [(channels, out, 3, stride), (out, out, 3, 1)]
        self.layers = len(convs)
        for i, (c, o, k, s) in enumerate(convs, 1):
            setattr(self, f"conv{i}", nn.Conv2d(c, o, k, s, k // 2, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(c if self.preact else o))
        changes = stride > 1 or channels != out
        if residual and (shortcut == "C" or (shortcut == "B" and changes)):
            norm = () if self.preact else (nn.BatchNorm2d(out),)
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), *norm)
        self.skip_from_relu = self.preact and (first or hasattr(self, "downsample"))

    def skip(self, x, channels):
        if hasattr(self, "downsample"):
            return self.downsample(x)
        new = channels - x.shape[1]
        before = new // 2 if self.pad == "both" else 0
        return F.pad(x[:, :, ::self.stride, ::self.stride], (0, 0, 0, 0, before, new - before))

    def forward(self, x):
        h = x
        for i in range(1, self.layers + 1):
            conv, bn = getattr(self, f"conv{i}"), getattr(self, f"bn{i}")
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
    """stem: 3 (CIFAR) or 7 (ImageNet, followed by a max pool). channels: of each stage's output."""

    def __init__(self, stem, width, kind, channels, blocks, classes, *, residual=True, shortcut="A", pad="both",
                 version="v1"):
        super().__init__()
        self.stem, self.preact, self.stages = stem, "preact" in kind, len(channels)
        self.conv1 = nn.Conv2d(3, width, stem, 1 if stem == 3 else 2, stem // 2, bias=False)
        last = width
        if not self.preact:
            self.bn1 = nn.BatchNorm2d(width)
        for s, (out, n) in enumerate(zip(channels, blocks, strict=True), 1):
            made = []
            for i in range(n):
                made.append(Block(kind, last, out, 2 if s > 1 and i == 0 else 1, s == 1 and i == 0, residual=residual,
                                  shortcut=shortcut, pad=pad, version=version))
                last = out
            setattr(self, f"layer{s}", nn.Sequential(*made))
        if self.preact:
            self.bn = nn.BatchNorm2d(last)
        self.fc = nn.Linear(last, classes)

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
        return self.fc(h.mean((2, 3)))


def cifar(n, kind="basic", width=4, classes=10, **options):
    """n blocks in each stage."""
    expansion = 4 if "bottleneck" in kind else 1
    return ResNet(3, width, kind, [c * width * expansion for c in (1, 2, 4)], [n] * 3, classes, **options)


def imagenet(blocks, kind="basic", width=4, classes=7, **options):
    """blocks: in each of the four stages."""
    expansion = 4 if "bottleneck" in kind else 1
    return ResNet(7, width, kind, [c * width * expansion for c in (1, 2, 4, 8)], blocks, classes, **options)


class VGG(nn.Module):
    """Columns D and E of the paper's Table 1."""

    def __init__(self, columns, width, hidden, classes, batch_norm):
        super().__init__()
        layers, last = [], 3
        for n, multiple in zip(columns, (1, 2, 4, 8, 8), strict=True):
            for _ in range(n):
                layers.append(nn.Conv2d(last, multiple * width, 3, padding=1))
                last = multiple * width
                layers += [nn.BatchNorm2d(last), nn.ReLU()] if batch_norm else [nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
        self.features, self.avgpool = nn.Sequential(*layers), nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(nn.Linear(last * 49, hidden), nn.ReLU(), nn.Dropout(0.0),
                                        nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(0.0),
                                        nn.Linear(hidden, classes))

    def forward(self, x): return self.classifier(self.avgpool(self.features(x)).flatten(1))


class BasicConv(nn.Module):
    """GoogLeNet's convolution."""

    def __init__(self, channels, out, kernel, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x): return F.relu(self.bn(self.conv(x)))


class Inception(nn.Module):
    """Fig. 2b of Szegedy et al. 2014, its 5x5 a 3x3."""

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
    """Table 1 of Szegedy et al. 2014 with BN, in quarters of sixteen: `scale` channels where the paper has 16."""

    def __init__(self, scale, classes):
        super().__init__()
        rows = {"3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64), "4a": (192, 96, 208, 16, 48, 64),
                "4b": (160, 112, 224, 24, 64, 64), "4c": (128, 128, 256, 24, 64, 64),
                "4d": (112, 144, 288, 32, 64, 64), "4e": (256, 160, 320, 32, 128, 128),
                "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128)}
        self.conv1 = BasicConv(3, 4 * scale, 7, 2)
        self.conv2 = BasicConv(4 * scale, 4 * scale, 1)
        self.conv3 = BasicConv(4 * scale, 12 * scale, 3)
        last = 12 * scale
        for name, row in rows.items():
            module = Inception(last, *(c * scale // 16 for c in row))
            setattr(self, f"inception{name}", module)
            last = module.out
        self.fc = nn.Linear(last, classes)

    def forward(self, x):
        def pool(h, kernel=3): return F.max_pool2d(h, kernel, 2, ceil_mode=True)
        h = pool(self.conv3(self.conv2(pool(self.conv1(x)))))
        h = pool(self.inception3b(self.inception3a(h)))
        for name in "abcde":
            h = getattr(self, f"inception4{name}")(h)
        h = self.inception5b(self.inception5a(pool(h, 2)))
        return self.fc(h.mean((2, 3)))


def randomised(net, seed=0):
    """`net` with random weights, and random running statistics and affine parameters in its norms."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, t in [*net.named_parameters(), *net.named_buffers()]:
            if t.ndim == 0:
                t.fill_(17)  # num_batches_tracked
            elif t.ndim == 1:
                t.copy_(0.3 * torch.randn(t.shape, generator=draw) + (0 if name.endswith(("bias", "mean")) else 1))
                if name.endswith("var"):
                    t.square_().add_(0.1)
            else:
                t.copy_(torch.randn(t.shape, generator=draw) * (2 / t[0].numel()) ** 0.5)
    return net
