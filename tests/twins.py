"""The networks a second time, by PyTorch's functions alone, as the papers draw them; and the comparison with ours.

A twin takes the parameters of one of our networks by name, {name: torch.Tensor}. Nothing of minires computes in here.
"""

import numpy as np
from helpers import difference, torch

from minires import Tensor, kernels, ops


class Twin:
    """Layers by name. Every convolution here pads by half its kernel."""

    def __init__(self, p, training):
        self.p, self.training = p, training

    def conv(self, name, h, stride=1):
        w = self.p[f"{name}.weight"]
        return torch.nn.functional.conv2d(h, w, self.p.get(f"{name}.bias"), stride, w.shape[2] // 2)

    def bn(self, name, h, eps=1e-5):
        mean, var, gamma, beta = (self.p[f"{name}.{s}"] for s in ("running_mean", "running_var", "weight", "bias"))
        return torch.nn.functional.batch_norm(h, mean, var, gamma, beta, self.training, 0.1, eps)

    def linear(self, name, h):
        return h @ self.p[f"{name}.weight"].T + self.p[f"{name}.bias"]

    def shortcut(self, name, h, stride, channels, pad="both"):
        if f"{name}.downsample.0.weight" in self.p:
            h = self.conv(f"{name}.downsample.0", h, stride)
            return self.bn(f"{name}.downsample.1", h) if f"{name}.downsample.1.weight" in self.p else h
        new = channels - h.shape[1]
        before = new // 2 if pad == "both" else 0
        return torch.nn.functional.pad(h[:, :, ::stride, ::stride], (0, 0, 0, 0, before, new - before))


def post(strides=(1, 0), residual=True, pad="both"):
    """v1's block. strides[i] is 1 where convolution i takes the block's stride."""
    def block(t, name, h, stride, first):
        f = h
        for i, takes in enumerate(strides, 1):
            f = t.bn(f"{name}.bn{i}", t.conv(f"{name}.conv{i}", f, stride if takes else 1))
            f = f.relu() if i < len(strides) else f
        return (f + t.shortcut(name, h, stride, f.shape[1], pad) if residual else f).relu()
    return block


def pre(strides=(1, 0), pad="both", residual=True):
    """v2's block."""
    def block(t, name, h, stride, first):
        f = a = t.bn(f"{name}.bn1", h).relu()
        for i, takes in enumerate(strides, 1):
            f = f if i == 1 else t.bn(f"{name}.bn{i}", f).relu()
            f = t.conv(f"{name}.conv{i}", f, stride if takes else 1)
        split = a if first or f"{name}.downsample.0.weight" in t.p else h
        return f + t.shortcut(name, split, stride, f.shape[1], pad) if residual else f
    return block


V1, V15 = (1, 0, 0), (0, 1, 0)  # strides of a bottleneck's three convolutions


def resnet(t, x, block, *, imagenet=False, last_relu=False):
    h = t.conv("conv1", x, 2 if imagenet else 1)
    if "bn1.weight" in t.p:
        h = t.bn("bn1", h).relu()
    if imagenet:
        h = torch.nn.functional.max_pool2d(h, 3, 2, 1)
    for stage in range(1, 5):
        i = 0
        while f"layer{stage}.{i}.conv1.weight" in t.p:
            h = block(t, f"layer{stage}.{i}", h, 2 if stage > 1 and i == 0 else 1, stage == 1 and i == 0)
            i += 1
    if "bn.weight" in t.p:
        h = t.bn("bn", h).relu()
    if last_relu:
        h = h.relu()
    return t.linear("fc", h.mean((2, 3)))


def vgg(t, x, convolutions, batch_norm):
    i = 0
    for n in convolutions:
        for _ in range(n):
            x = t.conv(f"features.{i}", x)
            x = (t.bn(f"features.{i + 1}", x) if batch_norm else x).relu()
            i += 3 if batch_norm else 2
        x = torch.nn.functional.max_pool2d(x, 2)
        i += 1
    x = torch.nn.functional.adaptive_avg_pool2d(x, 7).flatten(1)
    return t.linear("classifier.6", t.linear("classifier.3", t.linear("classifier.0", x).relu()).relu())


def googlenet(t, x):
    F = torch.nn.functional

    def unit(name, h, stride=1):
        return t.bn(f"{name}.bn", t.conv(f"{name}.conv", h, stride), 0.001).relu()

    def inception(name, h):
        return torch.cat([unit(f"{name}.branch1", h), unit(f"{name}.branch2.1", unit(f"{name}.branch2.0", h)),
                          unit(f"{name}.branch3.1", unit(f"{name}.branch3.0", h)),
                          unit(f"{name}.branch4.1", F.max_pool2d(h, 3, 1, 1, ceil_mode=True))], 1)

    h = F.max_pool2d(unit("conv1", x, 2), 3, 2, ceil_mode=True)
    h = F.max_pool2d(unit("conv3", unit("conv2", h)), 3, 2, ceil_mode=True)
    h = F.max_pool2d(inception("inception3b", inception("inception3a", h)), 3, 2, ceil_mode=True)
    for letter in "abcde":
        h = inception(f"inception4{letter}", h)
    h = F.max_pool2d(h, 2, 2, ceil_mode=True)
    return t.linear("fc", inception("inception5b", inception("inception5a", h)).mean((2, 3)))


def randomise(net, seed=2):
    """gamma 1, beta 0 and untouched statistics would hide mistakes."""
    draw = np.random.default_rng(seed)
    for name, t in net.state().items():
        if t.ndim == 1:
            v = 0.2 * draw.standard_normal(t.shape)
            t.data = (v if name.endswith(("bias", "mean")) else 1 + v).astype(t.dtype)


def compare(net, twin, images, labels, rtol, which="auto", silent=()):
    """Logits, running statistics and all gradients of `net`, in the mode it is in, against twin(Twin, x).

    silent: names of biases that a BatchNorm in train mode takes away again; their gradients are 0 but for rounding.
    """
    randomise(net)
    p = {n: torch.tensor(t.data, requires_grad=t.requires_grad) for n, t in net.state().items()}
    x, tx = Tensor(images, True), torch.tensor(images, requires_grad=True)
    with kernels.using(which):
        logits = net(x)
        ops.cross_entropy(logits, labels).backward()
    expected = twin(Twin(p, net.training), tx)
    torch.nn.functional.cross_entropy(expected, torch.tensor(labels)).backward()

    assert logits.dtype == images.dtype and difference(logits.data, expected.detach().numpy()) < rtol
    assert difference(x.grad, tx.grad.numpy()) < rtol
    for name, t in net.state().items():
        got, want = (t.grad, p[name].grad) if t.requires_grad else (t.data, p[name])
        if name in silent:
            loud = np.linalg.norm(net.state()[name.replace("bias", "weight")].grad)
            assert np.linalg.norm(got) < rtol * loud and np.linalg.norm(want.numpy()) < rtol * loud
            continue
        assert got.dtype == images.dtype and difference(got, want.numpy()) < rtol, name
