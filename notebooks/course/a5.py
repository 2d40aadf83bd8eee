# %% [markdown]
# # A5. The skip connection by hand: a sum copies its gradient, a shared value adds its gradients
#
# *150 minutes, 100 points. Follows notebook 6.*
#
# You write the residual block of He et al. 2015 forward and backward, in NumPy: first with the identity as shortcut,
# then with the two shortcuts for blocks that change the shape of their input, and last as a `Module` on the engine.
# The layers are given; you write how gradients flow *between* them. At the end you send a gradient through thirty
# blocks, with and without skip.
#
# **How it works.** Replace every `raise NotImplementedError` by your code. Each task ends with a cell that calls
# `check`, which prints "right", or what is wrong and, if it can, why. When you have saved the notebook,
# `minires course check a5` tries the saved file in a process of its own.
#
# **Rules** for the whole assignment:
#
# - `dy` is $\partial L/\partial y$ for a scalar loss $L$, `dx` is $\partial L/\partial x$, and so on. A gradient has
#   the shape of its array.
# - `cache` is whatever your backward pass needs from your forward pass; nobody else reads it. It stays valid when the
#   forward pass is called again on other data, as for the next block of a network, and when the backward pass is
#   called twice.
# - Do not change any input. Most checks pass arrays that are read-only. A gradient that you return does not share
#   memory with `dy`.
# - float32 inputs give float32 results, float64 inputs give float64.
# - Your mark comes from further inputs too: other shapes with odd heights and widths, several blocks one after the
#   other, a branch that is zero (then y is relu(x) bit for bit), arrays that are not contiguous in memory, float32.

# %%
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from minires import nn, ops
from minires.course import check, ready

# %% [markdown]
# ## Given: the layers
#
# | call | shapes |
# |---|---|
# | `y, cache = conv_forward(x, w, stride, padding)` | x (N, C, H, W), w (O, C, k, k); stride, padding: integers |
# | `dx, dw = conv_backward(dy, cache)` | |
# | `y, cache = bn_forward(x, gamma, beta, eps)` | x (N, C, H, W), gamma, beta (C,); with the batch's statistics |
# | `dx, dgamma, dbeta = bn_backward(dy, cache)` | |
# | `y = relu(x)` | any shape |
# | `dx = relu_backward(dy, x)` | `x` is the **input** of the ReLU. The gradient at exactly 0 is 0 |

# %%
def windows(x, size, stride, padding):
    """Return the windows of the padded x, as a view (N, C, Ho, Wo, size, size)."""
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    return sliding_window_view(padded, (size, size), (2, 3))[:, :, ::stride, ::stride]


def conv_forward(x, w, stride, padding):
    y = np.tensordot(windows(x, w.shape[2], stride, padding), w, ((1, 4, 5), (1, 2, 3)))
    return y.transpose(0, 3, 1, 2), (x, w, stride, padding)


def conv_backward(dy, cache):
    x, w, stride, padding = cache
    (N, C, H, W), size, (Ho, Wo) = x.shape, w.shape[2], dy.shape[2:]
    dw = np.tensordot(dy, windows(x, size, stride, padding), ((0, 2, 3), (0, 2, 3)))
    parts = np.tensordot(w, dy, (0, 1))  # (C, size, size, N, Ho, Wo)
    padded = np.zeros((N, C, H + 2 * padding, W + 2 * padding), dy.dtype)
    for i in range(size):
        for j in range(size):
            padded[:, :, i:i + stride * Ho:stride,
                   j:j + stride * Wo:stride] += parts[:, i, j].transpose(1, 0, 2, 3)
    return padded[:, :, padding:padding + H, padding:padding + W], dw


def column(v):
    """Return (C,) as (1, C, 1, 1)."""
    return v.reshape(1, -1, 1, 1)


def bn_forward(x, gamma, beta, eps):
    centred = x - column(x.mean((0, 2, 3)))
    inv = ((centred * centred).mean((0, 2, 3)) + eps) ** -0.5
    xhat = centred * column(inv)
    return column(gamma) * xhat + column(beta), (xhat, inv, gamma)


def bn_backward(dy, cache):
    xhat, inv, gamma = cache
    dbeta, dgamma, m = (dy.sum((0, 2, 3)), (dy * xhat).sum((0, 2, 3)),
                        dy.size // dy.shape[1])
    dx = column(gamma * inv) * (dy - column(dbeta / m) - xhat * column(dgamma / m))
    return dx, dgamma, dbeta


def relu(x):
    return np.maximum(x, 0)


def relu_backward(dy, x):
    return dy * (x > 0)

# %% [markdown]
# ## 5.1 The block, forward
#
#     x ---- conv 3x3 -- BN -- ReLU ---- conv 3x3 -- BN ----(+)---- ReLU ----> y
#       \                                                   /
#        `-------------------- shortcut -------------------'
#
# In formulas, with the names that this assignment uses:
#
# $$a_1 = \mathrm{conv}(x, w_1) \quad b_1 = \mathrm{BN}(a_1, \gamma_1, \beta_1) \quad h = \mathrm{relu}(b_1) \quad
#   a_2 = \mathrm{conv}(h, w_2) \quad F = \mathrm{BN}(a_2, \gamma_2, \beta_2)$$
#
# $$z = F + x \qquad y = \mathrm{relu}(z)$$
#
# Both convolutions have stride 1 and padding 1, so all these arrays have the shape of x. The last ReLU comes *after*
# the addition. The parameters are in a dictionary: `p["w1"]` (C, C, 3, 3), `p["gamma1"]` and `p["beta1"]` (C,), and
# in the same way `w2`, `gamma2` and `beta2`. Both BNs use `eps`. Before you choose what to put into the cache, read
# 5.2: which arrays does the way back need?

# %% task="a5.1" kind="answer"
def residual_forward(x, p, eps):
    """Return (y, cache) of a residual block with the identity as shortcut; x and y are
    (N, C, H, W)."""
    ### BEGIN SOLUTION
    a1, conv1 = conv_forward(x, p["w1"], 1, 1)
    b1, bn1 = bn_forward(a1, p["gamma1"], p["beta1"], eps)
    h = relu(b1)
    a2, conv2 = conv_forward(h, p["w2"], 1, 1)
    F, bn2 = bn_forward(a2, p["gamma2"], p["beta2"], eps)
    z = F + x
    y = relu(z)
    cache = x, conv1, a1, bn1, b1, conv2, bn2, F, z
    return y, cache
    ### END SOLUTION

# %% task="a5.1" kind="check" points=10
check("a5.1", residual_forward);

# %% [markdown]
# ## 5.2 The block, backward
#
# Go back from y to x, one step at a time. Each layer has its backward function above. Besides, you need two rules:
#
# - **A sum copies its gradient.** $z = F + x$, so a change of $F$ changes $z$ by as much, and a change of the
#   shortcut does too: both get $\partial L/\partial z$, the same numbers.
# - **A shared value adds its gradients.** x is used twice, by the first convolution and by the addition. $L$ changes
#   by both ways, so $\partial L/\partial x$ is the sum of what comes back from each.
#
# *Example* with numbers instead of images: $F(x) = 3x - 4$, $x = 2$, so $F = 2$, $z = 4$, $y = \mathrm{relu}(4) = 4$.
# Let $\partial L/\partial y = 10$. The last ReLU is open, so $\partial L/\partial z = 10$. The branch returns
# $3 \cdot 10 = 30$, the shortcut returns 10, and $\partial L/\partial x = 40$. With $x = 0.5$, $z = -2.5 + 0.5 = -2$,
# and the last ReLU is closed: $\partial L/\partial x = 0$, through the branch *and* through the shortcut.
#
# In terms of the Jacobian $J_F$ of the branch, you compute
# $\partial L/\partial x = (I + J_F)^T\, \partial L/\partial z$, without ever writing a Jacobian down.

# %% task="a5.2" kind="answer"
def residual_backward(dy, cache):
    """Return (dx, dp) for the cache of residual_forward; dp is a dictionary with the
    keys of p."""
    ### BEGIN SOLUTION
    x, conv1, a1, bn1, b1, conv2, bn2, F, z = cache
    dz = relu_backward(dy, z)
    dF = dz
    dskip = dz
    da2, dgamma2, dbeta2 = bn_backward(dF, bn2)
    dh, dw2 = conv_backward(da2, conv2)
    db1 = relu_backward(dh, b1)
    da1, dgamma1, dbeta1 = bn_backward(db1, bn1)
    dbranch, dw1 = conv_backward(da1, conv1)
    dx = dbranch + dskip
    dp = {"w1": dw1, "gamma1": dgamma1, "beta1": dbeta1, "w2": dw2, "gamma2": dgamma2,
          "beta2": dbeta2}
    return dx, dp
    ### END SOLUTION

# %% task="a5.2" kind="check" points=25
check("a5.2", residual_forward, residual_backward);

# %% [markdown]
# ## 5.3 Where the shape changes: option A
#
# Some blocks halve height and width and return more channels than they get. Then x has the wrong shape for the
# addition. Option A repairs this without any parameter: it keeps every `stride`-th row and column, beginning with 0,
# and fills the new channels with zeros. x (N, C, H, W) becomes (N, channels, $\lceil H/s \rceil$,
# $\lceil W/s \rceil$), where `channels` is at least C. The C old channels stay in their order:
#
# - `pad="end"`: the old channels come first, all zeros after them;
# - `pad="both"`: the zeros are divided. $\lfloor(\mathrm{channels} - C)/2\rfloor$ channels of zeros come before the old
#   channels, the others after them.
#
# *Example:* one channel, stride 2, 4 channels. The picked pixels are those in even rows and columns:
#
# $$x = \begin{pmatrix} 1&2&3\\ 4&5&6\\ 7&8&9 \end{pmatrix} \;\longrightarrow\; \begin{pmatrix} 1&3\\ 7&9 \end{pmatrix},
#   \quad\text{in channel 0 for "end", in channel } \lfloor 3/2 \rfloor = 1 \text{ for "both"}.$$
#
# Backward, ask of every pixel of x: where did its value go? Both functions return new arrays, also where nothing
# changes (stride 1 and `channels` = C).

# %% task="a5.3" kind="answer"
def shortcut_a(x, stride, channels, pad):
    """Return y (N, channels, ceil(H/stride), ceil(W/stride)) for x (N, C, H, W)."""
    ### BEGIN SOLUTION
    N, C, H, W = x.shape
    picked = x[:, :, ::stride, ::stride]
    before = (channels - C) // 2 if pad == "both" else 0
    y = np.zeros((N, channels, *picked.shape[2:]), x.dtype)
    y[:, before:before + C] = picked
    return y
    ### END SOLUTION


def shortcut_a_backward(dy, shape, stride, pad):
    """Return dx of the given shape (N, C, H, W) for dy, which has the shape of
    shortcut_a's result."""
    ### BEGIN SOLUTION
    N, C, H, W = shape
    first = (dy.shape[1] - C) // 2 if pad == "both" else 0
    part = dy[:, first:first + C]
    dx = np.zeros(shape, dy.dtype)
    dx[:, :, ::stride, ::stride] = part
    return dx
    ### END SOLUTION

# %% task="a5.3" kind="check" points=10
check("a5.3", shortcut_a, shortcut_a_backward);

# %% [markdown]
# ## 5.4 The general block
#
# Now w1 is (O, C, 3, 3), w2 is (O, O, 3, 3), and gamma1, beta1, gamma2, beta2 are (O,). The **first** convolution has
# the stride, the second has stride 1; both have padding 1. The shortcut $s$ in $z = F + s$ is
#
# - **option B** if p has the key `"ws"`: a 1x1 convolution with weights `ws` (O, C, 1, 1), with the block's stride
#   and without padding, followed by BN with `gammas` and `betas` (O,):
#   $s = \mathrm{BN}(\mathrm{conv}(x, w_s), \gamma_s, \beta_s)$;
# - otherwise **the identity** if it fits: stride 1 and C = O;
# - otherwise **option A** with `pad`.
#
# On the way back, the rule for shared values still gives dx, but what comes back through the shortcut is no longer
# $\partial L/\partial z$ itself: it has to go through the shortcut's own layers. dp has the keys of p: also `ws`,
# `gammas` and `betas`, if p has them.

# %% task="a5.4" kind="answer"
def block_forward(x, p, eps, stride=1, pad="both"):
    """Return (y, cache) for x (N, C, H, W); y is (N, O, ceil(H/stride),
    ceil(W/stride))."""
    ### BEGIN SOLUTION
    channels = len(p["w1"])
    a1, conv1 = conv_forward(x, p["w1"], stride, 1)
    b1, bn1 = bn_forward(a1, p["gamma1"], p["beta1"], eps)
    h = relu(b1)
    a2, conv2 = conv_forward(h, p["w2"], 1, 1)
    F, bn2 = bn_forward(a2, p["gamma2"], p["beta2"], eps)
    convs = bns = None
    if "ws" in p:
        projected, convs = conv_forward(x, p["ws"], stride, 0)
        s, bns = bn_forward(projected, p["gammas"], p["betas"], eps)
    elif stride == 1 and channels == x.shape[1]:
        s = x
    else:
        s = shortcut_a(x, stride, channels, pad)
    z = F + s
    y = relu(z)
    cache = x, conv1, a1, bn1, b1, conv2, bn2, F, convs, bns, z, stride, pad
    return y, cache
    ### END SOLUTION


def block_backward(dy, cache):
    """Return (dx, dp) for the cache of block_forward; dp is a dictionary with the keys
    of p."""
    ### BEGIN SOLUTION
    x, conv1, a1, bn1, b1, conv2, bn2, F, convs, bns, z, stride, pad = cache
    dz = relu_backward(dy, z)
    dF = dz
    ds = dz
    da2, dgamma2, dbeta2 = bn_backward(dF, bn2)
    dh, dw2 = conv_backward(da2, conv2)
    db1 = relu_backward(dh, b1)
    da1, dgamma1, dbeta1 = bn_backward(db1, bn1)
    dbranch, dw1 = conv_backward(da1, conv1)
    dp = {"w1": dw1, "gamma1": dgamma1, "beta1": dbeta1, "w2": dw2, "gamma2": dgamma2,
          "beta2": dbeta2}
    if convs is not None:
        dprojected, dgammas, dbetas = bn_backward(ds, bns)
        dskip, dws = conv_backward(dprojected, convs)
        dp.update(ws=dws, gammas=dgammas, betas=dbetas)
    elif dz.shape == x.shape:
        dskip = ds
    else:
        dskip = shortcut_a_backward(ds, x.shape, stride, pad)
    dx = dbranch + dskip
    return dx, dp
    ### END SOLUTION

# %% task="a5.4" kind="check" points=20
check("a5.4", block_forward, block_backward);

# %% [markdown]
# ## 5.5 The block as a Module
#
# The same block on minires' engine, which finds the gradients itself. What is left to do is to build it well: names,
# modes, parameters. Your class replaces the block from which minires builds its ResNets, so both must compute the same
# thing.
#
# - The layers are the attributes `conv1`, `bn1`, `conv2` and `bn2`, created in this order, and the projection last:
#   each convolution draws its weights from `rng`, so equal seeds give equal weights. A convolution is
#   `nn.Conv2d(channels before, channels after, kernel, stride, padding, rng=rng)`, without bias, and a BN is
#   `nn.BatchNorm2d(channels)`. Which convolution has the stride is as in 5.4. `nn.Module` needs no
#   `super().__init__()`.
# - `shortcut="B"`: where the shape changes (`stride` is not 1, or the channels differ), the projection is
#   `self.downsample = nn.Sequential(conv, bn)`, so that the names in `block.state()` are `downsample.0.weight`,
#   `downsample.1.weight`, `downsample.1.running_mean`, ... Where the identity fits, there is no projection.
# - `shortcut="A"`: no parameters. Where the shape changes, use `ops.subsample_and_pad(x, stride, channels, pad)`,
#   which is your `shortcut_a` on the engine.
# - `block.train()` and `block.eval()` switch the mode of all BNs. nn.Module does this for the layers that are
#   attributes of your block.
# - `zero_gamma()` makes the block start as $y = \mathrm{relu}(s)$: it sets the gamma of **one** BN to zeros and
#   returns a list of one name, the name of this array in `block.state()`. Which BN is it, so that everything in the
#   branch can still learn? (A BN's gamma is its `weight`, a Tensor. Assign a new array to its `.data`.)
#
# A layer is called like a function, `self.conv1(x)`. `ops.relu(t)` is the ReLU, and Tensors are added with `+`.
# minires' own blocks are not available where this is marked.

# %% task="a5.5" kind="answer"
class Block(nn.Module):
    """A residual block: relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))."""

    def __init__(self, in_channels, out_channels, stride=1, *, shortcut="A",
                 pad="both", rng):
        ### BEGIN SOLUTION
        self.out_channels = out_channels
        self.stride = stride
        self.pad = pad
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, rng=rng)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, rng=rng)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = None
        changes = stride != 1 or in_channels != out_channels
        if shortcut == "B" and changes:
            projection = nn.Conv2d(in_channels, out_channels, 1, stride, rng=rng)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(out_channels))
        ### END SOLUTION

    def forward(self, x):
        """Return the Tensor y for the Tensor x (N, C, H, W)."""
        ### BEGIN SOLUTION
        h = ops.relu(self.bn1(self.conv1(x)))
        F = self.bn2(self.conv2(h))
        if self.downsample is not None:
            s = self.downsample(x)
        elif self.stride == 1 and x.shape[1] == self.out_channels:
            s = x
        else:
            s = ops.subsample_and_pad(x, self.stride, self.out_channels, self.pad)
        return ops.relu(F + s)
        ### END SOLUTION

    def zero_gamma(self):
        """Set one gamma to zeros, so that the block starts as relu(shortcut(x)).

        Return [its name in the state].
        """
        ### BEGIN SOLUTION
        self.bn2.weight.data = np.zeros_like(self.bn2.weight.data)
        return ["bn2.weight"]
        ### END SOLUTION

# %% task="a5.5" kind="check" points=20
check("a5.5", Block);

# %% [markdown]
# ## The figure: thirty blocks, and three blocks as eight paths
#
# **Above.** Thirty blocks with random weights. A gradient enters at the top, and your `block_backward` sends it down. A
# *plain* network comes from your code too: a projection whose `gammas` and `betas` are zero gives $s = 0$, so that
# $y = \mathrm{relu}(F)$ and nothing returns through the shortcut.
#
# **Below.** Three blocks. At each of them the gradient divides: one part goes through the branch, the other through
# the skip. That makes $2^3 = 8$ paths from top to bottom. The skip's part is `relu_backward(dy, y)`, since y is
# positive exactly where z is, and the branch's part is the rest of the dx that `residual_backward` returns.
#
# Before you run the next cell, answer part (a) of 5.6.

# %%
def drawn_parameters(rng, channels, skip=True):
    """Return the parameters of a block as they start: He et al.'s normal weights, gamma
    1, beta 0."""
    p = {}
    for i in "12":
        normal = rng.standard_normal((channels, channels, 3, 3))
        p[f"w{i}"] = normal * np.sqrt(2 / (9 * channels))
        p[f"gamma{i}"], p[f"beta{i}"] = np.ones(channels), np.zeros(channels)
    if not skip:
        p["ws"] = np.zeros((channels, channels, 1, 1))
        p["gammas"] = p["betas"] = np.zeros(channels)
    return p


def norms_through(blocks, skip, seed=0):
    """Return the norm of the gradient at the output of the last block and at the input
    of each, from the top down."""
    rng = np.random.default_rng(seed)
    x = relu(rng.standard_normal((8, 16, 8, 8)))
    dy = rng.standard_normal(x.shape)
    caches = []
    for _ in range(blocks):
        x, cache = block_forward(x, drawn_parameters(rng, 16, skip), 1e-5)
        caches.append(cache)
    norms = [np.linalg.norm(dy)]
    for cache in reversed(caches):
        dy, _ = block_backward(dy, cache)
        norms.append(np.linalg.norm(dy))
    return np.array(norms)


def eight_paths(seed=0):
    """Return ({blocks whose branch a path takes: gradient along the path}, the whole
    gradient) for three blocks."""
    rng = np.random.default_rng(seed)
    x = relu(rng.standard_normal((8, 16, 8, 8)))
    whole = rng.standard_normal(x.shape)
    made = []
    for number in (1, 2, 3):
        x, cache = residual_forward(x, drawn_parameters(rng, 16), 1e-5)
        made.append((number, x, cache))
    paths = {(): whole}
    for number, y, cache in reversed(made):
        whole, _ = residual_backward(whole, cache)
        below = {}
        for taken, dy in paths.items():
            through_skip = relu_backward(dy, y)
            below[taken] = through_skip
            below[(number, *taken)] = residual_backward(dy, cache)[0] - through_skip
        paths = below
    return dict(sorted(paths.items(), key=lambda path: (len(path[0]), path[0]))), whole

# %%
figure = None
if ready("a5.2", "a5.4"):
    from minires.plot.style import COLOURS, dress, new_figure

    with_skip, without = norms_through(30, True), norms_through(30, False)
    paths, whole = eight_paths()
    difference = abs(sum(paths.values()) - whole).max() / abs(whole).max()
    shares = [100 * (path * whole).sum() / (whole * whole).sum()
              for path in paths.values()]

    figure = new_figure("Through 30 blocks the gradient grows "
                        f"{without[-1] / without[0]:,.0f}-fold without skip, "
                        f"{with_skip[-1] / with_skip[0]:,.0f}-fold with it (seed 0)",
                        7.2,
                        "Random weights, BN in train mode, 16 channels, 8 images of "
                        "8x8, seed 0. Share of a path: its projection on dL/dx.")
    above, below = figure.subplots(2, 1, height_ratios=(1.15, 1))
    at = np.arange(31, 0, -1)
    above.plot(at, without / without[0], color=COLOURS["plain"][0],
               linestyle=(0, (4, 1.6)), marker="s", markersize=4,
               label="without skip")
    above.plot(at, with_skip / with_skip[0], color=COLOURS["resnet"][1], marker="o",
               markersize=4, label="with skip")
    above.set_yscale("log")
    above.set_xticks([1, 5, 10, 15, 20, 25, 31],
                     ["1", "5", "10", "15", "20", "25", "out"])
    dress(above, "", "at the input of block ... (out: at the output of block 30)",
          "|gradient| / |gradient at out|")
    above.legend(frameon=False, fontsize=10)
    names = [" and ".join(map(str, taken)) if taken else "none" for taken in paths]
    bars = below.bar(names, shares, color=["#c6dbef", *["#6baed6"] * 3,
                                           *["#2171b5"] * 3, "#08306b"],
                     edgecolor="black")
    below.bar_label(bars, [f"{share:.1f} %" for share in shares],
                    fontsize=10, padding=2)
    below.axhline(0, color="black", linewidth=0.8)
    below.margins(y=0.15)
    dress(below, "The eight gradients add up to dL/dx (relative difference "
          f"{difference:.0e})",
          "blocks whose branch the path takes", "share of dL/dx (%)")
figure

# %% [markdown] task="a5.6" kind="free" points=15
# ## 5.6 Predict, then explain
#
# **(a)** *Before you run the figure:* each network has thirty blocks as they are drawn at the start of a training,
# with BN. Going from the top to the bottom, will the gradient vanish, keep its size or explode: without skip? With
# skip? Sketch both curves.
#
# **(b)** Run the figure. With skip the curve is flat near the output and steep near the input. Explain this. BN gives
# the branch's output $F$ about the same size in every block, whatever the size of x. What does the addition do to the
# size of x from block to block? And how does the size of x enter $J_F$? (Measure both, if you like.)
#
# **(c)** Suppose that `gamma2` of block 2 were 0. Which of the eight bars would be exactly 0? With n blocks instead
# of three, how many paths go through exactly k branches?
#
# **(d)** At the start all beta are 0. Compare setting `gamma2` to 0 with setting `gamma1` to 0 (everything else as
# drawn): which of the six gradients in `dp` are zero at the first step, and which parameters of the branch can ever
# learn? Try it with your own code, and explain with the chain of 5.2.
#
# *Your answer here.*
#
# ### BEGIN SOLUTION
# **(a)** Here nothing vanishes. Without skip the gradient grows exponentially, by about 1.4 per block and 20,000 to
# 30,000 times over thirty blocks, which is a straight line on the log axis. With skip it grows about 30 times, most
# of it in the first blocks. (Gradients can vanish in networks without BN; a prediction may say so.)
#
# **(b)** The sum $z = F + x$ adds an $F$ of constant size, and the two are nearly independent, so the mean square of
# x grows by about a constant in each block, and the size of x like the square root of the block's number (measured: 0.7
# at block 1, 5.1 at block 30). The first BN of the branch divides by the size of conv(x), so $F$ does not change if x
# is scaled, and $J_F$ is proportional to 1 / size of x. Near the output x is large, $J_F$ is small against $I$, and
# $\partial L/\partial x = (I + J_F)^T\, \partial L/\partial z$ changes little. Near the input $J_F$ is as large as
# $I$ or larger (measured: 2.1 times at block 1, 0.3 at block 30).
#
# **(c)** The four whose name contains 2: their gradient goes through the branch of block 2, where
# $\partial L/\partial a_2$ is $\gamma_2$ times something. There are $\binom{n}{k}$ paths through k branches.
#
# **(d)** `gamma2` = 0: $F = 0$, but $\partial L/\partial F = \partial L/\partial z$ is not zero, so dgamma2 and
# dbeta2 are not zero. The other four are zero at the first step, because $\partial L/\partial a_2 = 0$. After that
# step `gamma2` is not zero, and everything learns. `gamma1` = 0: $b_1 = 0$, so $h = 0$, $a_2 = 0$ and $\hat a_2 = 0$.
# dw2 = 0 (h is 0), dgamma2 = 0 ($\hat a_2$ is 0), and the inner ReLU is closed at 0, so dgamma1, dbeta1 and dw1 are
# 0. Only dbeta2 is not zero, and a step in beta2 changes nothing of this: the branch stays dead for ever.
#
# **Rubric.** (a) 3 points: any prediction with a reason 1, the comparison with the figure 2. (b) 4 points: x grows 1,
# by the sum of $F$s 1, $J_F$ falls with the size of x and why 2. (c) 3 points: four bars 1, the reason 1, the
# binomial coefficient 1. (d) 5 points: the two lists 2, the reason for gamma2 1, closed ReLU and $h = 0$ for gamma1
# 1, learns after one step / never 1.
# ### END SOLUTION
