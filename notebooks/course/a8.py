# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # A8. Pre-activation, bottleneck, shortcuts: keep the sum clean
#
# *120 minutes, 100 points. Follows notebook 9.*
#
# A residual block adds: $x_{l+1}=x_l+F(x_l)$. If *nothing else* happens to the sum on its way, then after any number
# of blocks
#
# $$x_L=x_l+\sum_{i=l}^{L-1}F(x_i),\qquad
# \frac{\partial\mathcal L}{\partial x_l}=\frac{\partial\mathcal L}{\partial x_L}
# \Bigl(1+\frac{\partial}{\partial x_l}\sum_{i=l}^{L-1}F(x_i)\Bigr),$$
#
# exactly. The block of He et al. 2015 (*v1*, arXiv 1512.03385) does not do that: a ReLU follows the addition. He et
# al. 2016 (*v2*, arXiv 1603.05027) move it, and try what else may stand on the shortcut. You build their blocks with
# the layers of minires, count what they cost, and measure the equation above.
#
# | task | | points | minutes |
# |---|---|---:|---:|
# | 8.1 | the pre-activation block | 25 | 30 |
# | 8.2 | the bottleneck | 20 | 20 |
# | 8.3 | a scaled and a gated shortcut | 15 | 15 |
# | 8.4 | parameters and multiply-accumulates, by counting | 15 | 25 |
# | 8.5 | a pre-activation network | 10 | 10 |
# | 8.6 | predict, then explain | 15 | 20 |
#
# **How to work.** Replace each `raise NotImplementedError` by your answer, run the cell, and run the check below it.
# It says "right", or what is wrong and, if it can, why. Save the file and run `minires course check a8` in a terminal
# to see your points. For the mark, your classes also meet other shapes, eval mode, float32, and inputs that must not
# be written to.
#
# **Conventions.** $x$ has shape (N, C, H, W). Tensors record their graph, so you write no backward pass. Convolutions
# have **no bias**: the BN next to them has one. $\mathrm{relu}$ is `ops.relu`. An attribute of a Module that is a
# Module is found by its name: if `self.conv1` is an `nn.Conv2d`, then `state()` has `conv1.weight`. **Use the names
# that each task lists.** The checks give your block their own numbers by these names, so the weights that you draw at
# the start are not compared.
#
# You have `nn.Conv2d(in_channels, out_channels, kernel, stride, padding, rng=rng)`, `nn.BatchNorm2d(channels)`,
# `nn.Linear(in_features, out_features, rng=rng)`, `nn.Sequential(layer, layer, ...)`, whose parts have the names 0,
# 1, ..., and everything in `ops`. The blocks of minires (`nn.Block` and the others) and `minires.models` are not
# available where tasks are marked.

# %%
import numpy as np

from minires import Tensor, init, nn, ops
from minires.course import check, ready

# %% [markdown]
# ### Given: option A
#
# Where a block has a stride or more channels, $x$ does not fit $F(x)$. *Option A* takes every second pixel and fills
# the new channels with zeros, half of them on either side (`pad="both"`) or all at the end (`pad="end"`). *Option B*
# is a 1x1 convolution with the stride of the block.

# %%
def option_a(x, stride, channels, pad="both"):
    """Return x itself if it fits, and else every stride-th pixel of x, with channels of
    zeros."""
    if stride == 1 and x.shape[1] == channels:
        return x
    return ops.subsample_and_pad(x, stride, channels, pad)

# %% [markdown]
# ## 8.1 The pre-activation block (25 points)
#
# v2 puts BN and ReLU *in front of* each convolution. With $a=\mathrm{relu}(\mathrm{bn1}(x))$,
#
# $$y=s+F,\qquad F=\mathrm{conv2}\bigl(\mathrm{relu}(\mathrm{bn2}(\mathrm{conv1}(a)))\bigr),$$
#
# and nothing follows the addition. `conv1` is 3x3 with the stride of the block and padding 1, from `in_channels` to
# `out_channels`; `conv2` is 3x3 with stride 1 and padding 1. How many channels does each BN normalise?
#
# The shortcut $s$:
#
# | | $s$ starts at | and is |
# |---|---|---|
# | the identity, or option A | $x$ | `option_a(x, stride, out_channels, pad)` |
# | the same, with `split_after_activation=True` | $a$ | `option_a(a, stride, out_channels, pad)` |
# | `shortcut="B"` where the shape changes | $a$, always | a 1x1 convolution, stride of the block, **no BN** |
#
# "The shape changes" means that the stride is not 1, or that `in_channels` and `out_channels` differ. Where it does
# not, option B is the identity, like option A. `split_after_activation` is for the first block of a network, before
# which there is no activation yet.
#
# *Names:* `bn1`, `conv1`, `bn2`, `conv2`, and with a projection `downsample.0` (an `nn.Sequential` of one
# convolution). Keep the numbers `stride` and `out_channels` as attributes too, because the figure reads them.
# *Example.* Set `conv2.weight` to zeros: then $F=0$, and $x=(-2, 3)$ must come out as $(-2, 3)$. v1's block would
# make it $(0, 3)$. For the mark, 50 such blocks must change neither $x$ nor the gradient, to the last bit.

# %% task="a8.1" kind="answer"
class PreactBlock(nn.Module):
    """x (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W /
    stride))."""

    def __init__(self, in_channels, out_channels, stride=1, *, shortcut="A", pad="both",
                 split_after_activation=False, rng):
        ### BEGIN SOLUTION
        self.stride, self.out_channels, self.pad = stride, out_channels, pad
        self.split_after_activation = split_after_activation
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, rng=rng)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, rng=rng)
        self.downsample = None
        if shortcut == "B" and (stride != 1 or in_channels != out_channels):
            self.downsample = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1,
                                                      stride, rng=rng))
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        a = ops.relu(self.bn1(x))
        h = self.conv1(a)
        h = ops.relu(self.bn2(h))
        h = self.conv2(h)
        if self.downsample is not None:
            s = self.downsample(a)
        else:
            start = a if self.split_after_activation else x
            s = option_a(start, self.stride, self.out_channels, self.pad)
        return h + s
        ### END SOLUTION

# %% task="a8.1" kind="check" points=25
check("a8.1", PreactBlock);

# %% [markdown]
# ## 8.2 The bottleneck (20 points)
#
# Two 3x3 convolutions on many channels are expensive. The bottleneck is v1's block for deep networks, with three:
#
# | layer | kernel | channels | stride, `version="v1"` | stride, `version="v1.5"` |
# |---|---|---|---|---|
# | `conv1` | 1x1 | `in_channels` to $k$ | of the block | 1 |
# | `conv2` | 3x3, padding 1 | $k$ to $k$ | 1 | of the block |
# | `conv3` | 1x1 | $k$ to `out_channels` | 1 | 1 |
#
# where $k=$ `out_channels` / 4. Each convolution is followed by a BN (`bn1`, `bn2`, `bn3`); a ReLU follows `bn1` and
# `bn2`. This is a block of v1, so
#
# $$y=\mathrm{relu}(\mathrm{bn3}(\mathrm{conv3}(\cdots))+s),$$
#
# with the ReLU *after* the addition. The shortcut starts at $x$. It is `option_a`; with `shortcut="B"`, where the
# shape changes, it is a 1x1 convolution with the stride of the block, **followed by a BN**: `downsample.0` and
# `downsample.1`.
#
# v1 gives the stride to the first 1x1 convolution, which thus never looks at three quarters of the pixels. Later code
# ("v1.5") moved it to the 3x3. *Example.* `Bottleneck(64, 256, 2, rng=rng)` has $k=64$, and maps (N, 64, 32, 32) to
# (N, 256, 16, 16).

# %% task="a8.2" kind="answer"
class Bottleneck(nn.Module):
    """x (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W /
    stride)). 4 divides out_channels."""

    def __init__(self, in_channels, out_channels, stride=1, *, shortcut="A", pad="both",
                 version="v1", rng):
        ### BEGIN SOLUTION
        self.stride, self.out_channels, self.pad = stride, out_channels, pad
        width = out_channels // 4
        first, second = (stride, 1) if version == "v1" else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, width, 1, first, rng=rng)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, 1, rng=rng)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, rng=rng)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = None
        if shortcut == "B" and (stride != 1 or in_channels != out_channels):
            self.downsample = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1,
                                                      stride, rng=rng),
                                            nn.BatchNorm2d(out_channels))
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        h = ops.relu(self.bn1(self.conv1(x)))
        h = ops.relu(self.bn2(self.conv2(h)))
        h = self.bn3(self.conv3(h))
        if self.downsample is not None:
            s = self.downsample(x)
        else:
            s = option_a(x, self.stride, self.out_channels, self.pad)
        return ops.relu(h + s)
        ### END SOLUTION

# %% task="a8.2" kind="check" points=20
check("a8.2", Bottleneck);

# %% [markdown]
# ## 8.3 Something on the shortcut (15 points)
#
# What if the shortcut is not clean? v2 puts several things on it (its Table 1). Build two of them. Both blocks have
# v1's branch
#
# $$h=\mathrm{bn2}\bigl(\mathrm{conv2}(\mathrm{relu}(\mathrm{bn1}(\mathrm{conv1}(x))))\bigr)$$
#
# with 3x3 convolutions and padding 1, the stride in `conv1`; and $s=$ `option_a(x, stride, out_channels)`. They
# differ in how they join:
#
# - `ScaledBlock`: $y=\mathrm{relu}\bigl(\tfrac12\,s+\tfrac12\,h\bigr)$.
# - `GatedBlock`: $y=\mathrm{relu}\bigl((1-g)\,s+g\,h\bigr)$ with $g=\sigma(\mathrm{gate}(x))$. The gate is a 1x1
#   convolution of $x$ from `in_channels` to `out_channels` with the stride of the block, so $g$ has one number for
#   **each entry** of $y$. It is the only convolution here that has a bias (`nn.Conv2d(..., bias=True, rng=rng)`), and
#   this bias starts at $-6$.
#
# *Names:* `conv1`, `bn1`, `conv2`, `bn2`, and `gate`. *Example.* At the start, where the convolution of the gate
# gives about 0, $g\approx\sigma(-6)=0.0025$: the block is close to the identity. A bias is a Tensor that requires a
# gradient: `Tensor(init.constant((out_channels,), -6.0), True)`. `ops.sigmoid` is $\sigma$.

# %% task="a8.3" kind="answer"
class ScaledBlock(nn.Module):
    """v1's block with 0.5 on the shortcut and 0.5 on the branch."""

    def __init__(self, in_channels, out_channels, stride=1, *, rng):
        ### BEGIN SOLUTION
        self.stride, self.out_channels = stride, out_channels
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, rng=rng)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, rng=rng)
        self.bn2 = nn.BatchNorm2d(out_channels)
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        h = ops.relu(self.bn1(self.conv1(x)))
        h = self.bn2(self.conv2(h))
        s = option_a(x, self.stride, self.out_channels)
        return ops.relu(0.5 * s + 0.5 * h)
        ### END SOLUTION


class GatedBlock(nn.Module):
    """v1's block with a gate g on the branch and 1 - g on the shortcut."""

    def __init__(self, in_channels, out_channels, stride=1, *, rng):
        ### BEGIN SOLUTION
        self.stride, self.out_channels = stride, out_channels
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, rng=rng)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, rng=rng)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.gate = nn.Conv2d(in_channels, out_channels, 1, stride, bias=True, rng=rng)
        self.gate.bias = Tensor(init.constant((out_channels,), -6.0), True)
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        h = ops.relu(self.bn1(self.conv1(x)))
        h = self.bn2(self.conv2(h))
        s = option_a(x, self.stride, self.out_channels)
        g = ops.sigmoid(self.gate(x))
        return ops.relu((1 - g) * s + g * h)
        ### END SOLUTION

# %% task="a8.3" kind="check" points=15
check("a8.3", ScaledBlock, GatedBlock);

# %% [markdown]
# ## 8.4 What a network costs (15 points)
#
# Count without building. The networks are those for CIFAR: images of 3 x 32 x 32, ten classes, and with width $w$
#
# | | map | channels out | |
# |---|---|---|---|
# | stem: a 3x3 convolution | 32 x 32 | $w$ | |
# | stage 1: $n$ blocks | 32 x 32 | $w$ | $4w$ if the blocks are bottlenecks |
# | stage 2: $n$ blocks | 16 x 16 | $2w$ | $8w$; the first block has stride 2 |
# | stage 3: $n$ blocks | 8 x 8 | $4w$ | $16w$; the first block has stride 2 |
# | mean over the map, linear layer | | 10 | |
#
# - **Depth** counts the layers with weights, projections not included: the stem, the linear layer, and in $n$ blocks
#   of each of three stages two convolutions (`"basic"`, `"preact"`) or three (`"bottleneck"`, `"preact_bottleneck"`).
#   Work out $n$ from the depth, for both kinds.
# - **Parameters** are all numbers that an optimiser trains: the weights of the convolutions, $\gamma$ and $\beta$ of
#   each BN, weights and biases of the linear layer. Running statistics are none.
# - A **multiply-accumulate** (MAC) is one product and one addition. A convolution needs its number of weights for
#   *each pixel of its output*, the linear layer needs its number of weights. Biases, BN, ReLU and additions do not
#   count.
# - **Where BN is.** In v1 (`"basic"`, `"bottleneck"`) a BN follows every convolution, also the stem and the
#   projections. In v2 (`"preact"`, `"preact_bottleneck"`) a BN precedes every convolution of a block; stem and
#   projections have none; and one more BN follows the last block.
# - A bottleneck, of either kind, has the stride in its first 1x1 convolution (as in v1), so all three run on the
#   smaller map.
# - `shortcut="A"` adds nothing. `shortcut="B"` adds a 1x1 convolution wherever stride or channels change. With
#   bottlenecks, does that happen in stage 1?
#
# **First by hand, on paper:** the first block of stage 2 of a basic network with $w=16$ has 16 channels in and 32
# out. `conv1` has $16\cdot32\cdot9=4608$ weights and needs $4608\cdot16^2=1\,179\,648$ MACs; `conv2` has 9216 and
# needs $2\,359\,296$; its BNs have $2\cdot(32+32)=128$ parameters. With option B the projection adds 512 weights,
# 131,072 MACs and 64 parameters of its BN. Now count the whole ResNet-20: with option A it has 269,722 parameters and
# 40,551,040 MACs.

# %% task="a8.4" kind="answer"
def count(depth, width, block, shortcut):
    """Return (parameters, MACs for one image) of a network.

    block: "basic", "bottleneck", "preact" or "preact_bottleneck". shortcut: "A" or "B".
    """
    ### BEGIN SOLUTION
    bottleneck, preact = "bottleneck" in block, "preact" in block
    layers = 3 if bottleneck else 2
    n = (depth - 2) // (3 * layers)
    # channels in and out, kernel, size of the output
    convolutions = [(3, width, 3, 32)]
    norms = [] if preact else [width]   # channels
    size, channels = 32, width
    for stage in range(3):
        outside = width * 2**stage * (4 if bottleneck else 1)
        for i in range(n):
            stride = 2 if stage > 0 and i == 0 else 1
            size = size // stride
            if bottleneck:
                inside = outside // 4
                convolutions.append((channels, inside, 1, size))
                convolutions.append((inside, inside, 3, size))
                convolutions.append((inside, outside, 1, size))
                norms += ([channels, inside, inside] if preact
                          else [inside, inside, outside])
            else:
                convolutions.append((channels, outside, 3, size))
                convolutions.append((outside, outside, 3, size))
                norms += [channels, outside] if preact else [outside, outside]
            if shortcut == "B" and (stride != 1 or channels != outside):
                convolutions.append((channels, outside, 1, size))
                norms += [] if preact else [outside]
            channels = outside
    norms += [channels] if preact else []
    parameters = (sum(a * b * k * k for a, b, k, size in convolutions) + 2 * sum(norms)
                  + 10 * channels + 10)
    macs = (sum(a * b * k * k * size * size for a, b, k, size in convolutions)
            + 10 * channels)
    return parameters, macs
    ### END SOLUTION

# %% task="a8.4" kind="check" points=15
check("a8.4", count);

# %% [markdown]
# ## 8.5 A pre-activation network (10 points)
#
# This is v1's network, for any block that is built like `block(in_channels, out_channels, stride, rng=rng)`. The
# figure at the end uses it. Note that a list of Modules is found too: `layer1.0.conv1.weight`.

# %%
class V1Net(nn.Module):
    """v1's network of 6n + 2 layers: images (N, 3, H, W) -> logits (N, 10)."""

    def __init__(self, depth, width, block, rng):
        n = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, rng=rng)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = [block(width, width, 1, rng=rng) for i in range(n)]
        self.layer2 = [block(width * (2 if i else 1), 2 * width, 1 if i else 2, rng=rng)
                       for i in range(n)]
        self.layer3 = [block(width * (4 if i else 2), 4 * width, 1 if i else 2, rng=rng)
                       for i in range(n)]
        self.fc = nn.Linear(4 * width, 10, rng=rng)

    def forward(self, x):
        h = ops.relu(self.bn1(self.conv1(x)))
        for block in [*self.layer1, *self.layer2, *self.layer3]:
            h = block(h)
        return self.fc(ops.mean(h, (2, 3)))

# %% [markdown]
# Now v2's, with blocks of 8.1 and option A. What is different, and why:
#
# - No BN and no ReLU follow the stem `conv1`. Each block begins with its own.
# - So nothing has been activated before the **very first** block, and its two paths split after *its* activation:
#   `split_after_activation=True` there, and only there.
# - Each block ends in the addition, so the last sum has seen no activation either. A BN of the name `bn` and a ReLU
#   follow it.
# - Then the mean over the map's pixels, and `fc`.
#
# *Names:* `conv1`, `layer1`, `layer2` and `layer3` (lists of blocks), `bn`, `fc`. *Example.*
# `preact_net(20, 16, rng)` has 269,722 parameters, as many as v1's ResNet-20: moving the BNs costs nothing. (If 8.1
# is not finished: `nn.PreactBlock` of minires takes the same arguments, and is available where *this* task is
# marked.)

# %% task="a8.5" kind="answer"
class PreactNet(nn.Module):
    """v2's network of 6n + 2 layers: images (N, 3, H, W) -> logits (N, 10)."""

    def __init__(self, depth, width, rng):
        ### BEGIN SOLUTION
        n = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, rng=rng)
        self.layer1 = [PreactBlock(width, width, 1, split_after_activation=i == 0,
                                   rng=rng) for i in range(n)]
        self.layer2 = [PreactBlock(width * (2 if i else 1), 2 * width, 1 if i else 2,
                                   rng=rng) for i in range(n)]
        self.layer3 = [PreactBlock(width * (4 if i else 2), 4 * width, 1 if i else 2,
                                   rng=rng) for i in range(n)]
        self.bn = nn.BatchNorm2d(4 * width)
        self.fc = nn.Linear(4 * width, 10, rng=rng)
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        h = self.conv1(x)
        for block in [*self.layer1, *self.layer2, *self.layer3]:
            h = block(h)
        h = ops.relu(self.bn(h))
        h = ops.mean(h, (2, 3))
        return self.fc(h)
        ### END SOLUTION


def preact_net(depth, width, rng):
    """Return the network of this depth, 6n + 2, and width."""
    return PreactNet(depth, width, rng)

# %% task="a8.5" kind="check" points=10
check("a8.5", preact_net);

# %% [markdown]
# ## The sum, measured
#
# The cell trains a v1 and a v2 network of 32 layers for one epoch, and follows 100 images through them, block by block.
# $x_0$ is the output of the first block; where option A changes the shape, it is applied to $x_0$ and to the sum too.
# Above: how far $x_l$ has moved from $x_0$, how large each $F_l$ is, and what the sum of all $F$ so far does *not*
# explain of the way from $x_0$ to $x_l$. Below: v1's network with your shortcuts, trained for two epochs, next to what
# v2 reports. It takes about a minute on two cores.

# %%
PAPER = {"identity": 6.61, "0.5 and 0.5": 12.35, "gate, bias -6": 8.70,
         "1x1 convolution": 12.22}


def data(count):
    """Return `count` images of Fashion-MNIST averaged to 14 x 14, in three equal
    channels, and their labels."""
    from minires import datasets

    learn, _ = datasets.fashion_mnist_small()
    x = datasets.subtract_pixel_mean(datasets.to_float(learn.images[:count], 14))[0]
    return np.repeat(x, 3, axis=1), learn.labels[:count]


def trained(net, x, labels, epochs):
    """Train the network and return the loss of each step."""
    from minires import datasets, optim, train

    optimizer, losses = optim.SGD(net.parameters(), 0.1, 0.9, 1e-4), []
    for epoch in range(epochs):
        for rows in datasets.batches(len(x), 100, rng=datasets.epoch_rng(8, epoch)):
            losses.append(train.step(net, optimizer, x[rows], labels[rows]))
    return losses


def norm(a):
    """Return the mean over the images of the Euclidean norm."""
    return float(np.sqrt((a * a).sum((1, 2, 3))).mean())


def followed(net, images):
    """Return {what: one number for each block but the first}: |x_l - x_0|, |F_l|, and
    what the sum of F misses."""
    from minires import no_grad

    found = {"moved": [], "branch": [], "missed": []}
    net.eval()
    with no_grad():
        h = net.conv1(Tensor(images))
        h = h if hasattr(net, "bn") else ops.relu(net.bn1(h))
        for k, block in enumerate([*net.layer1, *net.layer2, *net.layer3]):
            x, h = h, block(h)
            if k == 0:
                start, total = h, 0 * h
                continue
            if hasattr(net, "bn"):
                f = block.conv2(
                    ops.relu(block.bn2(block.conv1(ops.relu(block.bn1(x))))))
            else:
                f = block.bn2(block.conv2(ops.relu(block.bn1(block.conv1(x)))))
            start, total = (option_a(a, block.stride, block.out_channels)
                            for a in (start, total))
            total = total + f
            found["moved"].append(norm((h - start).data))
            found["branch"].append(norm(f.data))
            found["missed"].append(norm((h - start - total).data))
    return found


figure = None
if ready("a8.1", "a8.3", "a8.5"):
    import os
    from functools import partial

    from minires.plot.style import (
        GREY,
        INK,
        TICK,
        dress,
        every,
        layer_ticks,
        new_figure,
        series,
    )

    depth, width, many = ((14, 4, 600) if os.environ.get("MINIRES_FAST") == "1"
                          else (32, 8, 10_000))
    x, labels = data(many)
    make = lambda block: V1Net(depth, width, block, np.random.default_rng(0))
    v1, v2 = make(nn.Block), preact_net(depth, width, np.random.default_rng(0))
    for net in v1, v2:
        trained(net, x, labels, 1)
    ways = {"v1: a ReLU follows the addition": followed(v1, x[:100]),
            "v2: nothing follows the addition": followed(v2, x[:100])}
    blocks = {"identity": nn.Block, "0.5 and 0.5": ScaledBlock,
              "gate, bias -6": GatedBlock,
              "1x1 convolution": partial(nn.Block, shortcut="C")}
    losses = {name: trained(make(block), x, labels, 2)
              for name, block in blocks.items()}

    figure = new_figure("The sum of the branches explains the whole way in v2, and not "
                        "in v1 (one seed)", 7.6,
                        f"Above: {depth} layers, width {width}, one epoch on "
                        f"{len(x):,} images of Fashion-MNIST at 14 x 14; eval mode, "
                        "mean over 100 images. x_0: output of block 1. Below left: the "
                        "same data and v1's network, two epochs, running mean of 20 "
                        "steps; one seed. Below right: He et al. 2016, Table 1, "
                        "quoted.")
    (left, right), (curves, bars) = figure.subplots(2, 2)
    lines = {"moved": ("$|x_l - x_0|$", INK, "solid", "o"),
             "branch": ("$|F_l|$", GREY, (0, (1.2, 1.2)), "^"),
             "missed": ("$|x_l - x_0 - \\sum F|$", "#9e5db5", (0, (5, 1.8)), "s")}
    for axes, (heading, way) in zip((left, right), ways.items(), strict=True):
        for what, (label, colour, dashes, marker) in lines.items():
            axes.plot(range(2, len(way[what]) + 2), way[what], color=colour,
                      linestyle=dashes, marker=marker,
                      markersize=5, label=label)
        dress(axes, heading, "block l", "Euclidean norm")
        top = 1.3 * max(max(way[what]) for way in ways.values() for what in lines)
        axes.set_ylim(0, top)
        axes.set_xticks(layer_ticks(depth // 2 - 1, 2))
        for stage in 2, 3:  # its first block, where option A changes the shape
            first = (stage - 1) * (depth - 2) // 6 + 1
            axes.axvline(first, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)))
            axes.text(first + 0.15, 0.81 * top, f"stage {stage}", color=GREY,
                      fontsize=TICK)
        axes.legend(fontsize=TICK, frameon=False, ncols=3, loc="upper center",
                    handlelength=2, columnspacing=1)
    for name, style in series(losses).items():
        smooth = (np.convolve(losses[name], np.ones(20) / 20, "valid")
                  if len(losses[name]) > 20 else losses[name])
        curves.plot(np.arange(len(smooth)) + 20, smooth,
                    markevery=every(len(smooth), 6), **style)
        bars.barh(name, PAPER[name], color=style["color"], height=0.6)
        bars.text(PAPER[name] + 0.2, name, f"{PAPER[name]:.2f} %", va="center")
    dress(curves, "training, measured here", "step", "training loss")
    dress(bars, "ResNet-110 on CIFAR-10, quoted", "test error in %", "")
    curves.legend(fontsize=TICK, frameon=False)
    bars.set_xlim(0, 16)
    bars.invert_yaxis()
    for name, way in ways.items():
        print(f"{name}: of the way {way['moved'][-1]:.3g} to the last block, the sum "
              f"misses {way['missed'][-1]:.2g}")
figure

# %% [markdown] task="a8.6" kind="free" points=15
# ## 8.6 Predict, then explain
#
# Answer 1 and 2 with pencil and paper *before* you run the figure. Take 110 layers, that is $L=54$ blocks, and leave
# out the ReLU after the addition.
#
# 1. All blocks are `ScaledBlock`s. Write $x_L$ as a sum over $x_0$ and the branches $h_0,\dots,h_{L-1}$. By which
#    factor does $x_0$ arrive? By which factor does a gradient return to $x_0$ through the shortcuts alone? Each $h_l$
#    leaves a BN, so all have about the same size: how many of the 54 branches decide $x_L$, to one percent?
# 2. All blocks are `GatedBlock`s, at the start of training. By which factor do the shortcuts carry $x_0$ now, and how
#    much of a branch gets through? What must a block do to use its branch, and what does it pay? v2 also tried a gate
#    that acts on the shortcut alone, $(1-g)\,s+h$ (6.91 % with bias $-6$, against 8.70 %): why is it better?
# 3. Run the figure. Report the two printed numbers, and the order of the four training curves. Name two reasons why
#    this order need not be that of the quoted errors.
# 4. In v1, how do $x_L$ and $x_l+\sum F$ differ? Write the difference as a sum over the blocks. Which sign does each
#    of its entries have, and what does this do to the signal over many blocks?
#
# *Your answer here.*
#
# ### BEGIN SOLUTION
# **Model answer.** 1. $x_L=2^{-L}x_0+\sum_l 2^{-(L-l)}h_l$. $x_0$ arrives with $2^{-54}=5.6\cdot10^{-17}$, and the
# gradient through the shortcuts alone has the same factor: added to a number of size 1, float32 loses both. The
# weights of the branches are $\frac12,\frac14,\frac18,\dots$ from the last one back. They sum to 1, and the last seven
# hold $1-2^{-7}=99.2\,\%$: $x_L$ depends on the last seven branches directly, however deep the network is, and on
# everything earlier only through them. The whole gradient need not vanish, because the branches carry it too; but
# nothing passes unchanged.
#
# 2. $g=\sigma(-6)=0.0025$, so the shortcuts carry $(1-0.0025)^{54}=0.87$ of $x_0$, and only 0.25 % of each branch
#    gets through. To use its branch a block must open the gate, and every bit of $g$ closes its shortcut: $1-g$ can
#    be near 1 or $g$ can be, not both. With the gate on the shortcut alone the branch always has its full size, and
#    the bias $-6$ leaves the shortcut nearly clean, so the block is nearly the identity plus a branch.
#
# 3. The numbers of our run: in v2 the sum misses 5e-6 of a way of 89, which is the rounding of float32; in v1 it misses
#    68 of a way of 45. Training loss, from low to high: identity, 1x1 convolution, 0.5 and 0.5, gate. The curves are
#    training losses after two epochs, the quoted numbers are test errors after a full schedule; 32 layers against 110;
#    one seed against a median of five; grey images of 14 x 14 against CIFAR-10. The gate begins slowly because it lets
#    so little of each branch through, and two epochs show mostly the beginning.
#
# 4. $\mathrm{relu}(z)=z+\max(0,-z)$, so $x_L=x_l+\sum_i F(x_i)+\sum_i\max\bigl(0,-(x_i+F(x_i))\bigr)$. Every entry of
#    the additional terms is zero or positive: what a branch subtracts below zero is put back. A branch can take away
#    only what is there, and each ReLU pushes the signal up by an amount that no branch has computed.
#
# **Points.** 1: the sum 2, the factor for signal and gradient 1, about seven branches 1. 2: 0.87 and 0.0025 1, the
# conflict between $g$ and $1-g$ 2, the comparison 1. 3: both numbers 1, the order 1, two reasons 1. 4: the sum 2, the
# sign 1, its consequence 1.
# ### END SOLUTION
