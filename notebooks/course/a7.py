# %% [markdown]
# # A7. Reading a ResNet: responses, lesions, paths, landscape
# *120 minutes, 100 points. It follows notebooks 7, Layer responses, and 8, Why it works.*
#
# Two trained networks ship with minires: plain-20 and ResNet-20, of width 8, trained for 30 epochs on the same 10,000
# images of clothes. They have the same layers and the same number of parameters. In this assignment you write the
# instruments with which such networks are read, and then you read these two.
#
# An instrument must do two things. It must measure what its name says, and nothing that merely looks similar. And it must
# leave the patient as it was: weights, running statistics, gradients, modes and hooks, bit for bit, because the next
# measurement, or the training, continues with the same network.
#
# | task | you write | points | minutes |
# |---|---|---:|---:|
# | 7.1 | `responses`: how strongly a layer answers | 20 | 25 |
# | 7.2 | `without`: a network with one block cut out, for a while | 15 | 15 |
# | 7.3 | `lesions` and `delete_k`: the error without one block, and without k | 15 | 15 |
# | 7.4 | `input_gradient` and `path_shares`: which paths carry the gradient | 10 | 15 |
# | 7.5 | `direction`: a random direction that can be compared between networks | 10 | 15 |
# | 7.6 | `loss_surface`: the loss around the trained weights | 15 | 15 |
# | 7.7 | predict, then explain (free response) | 15 | 20 |
#
# Write each answer where the cell says `raise NotImplementedError`, then run the cell and the `check` below it. `check`
# tries your answer on small random networks in float64 and prints one line; the two trained networks wait for you in the
# figures at the end. Marks come from `minires course check a7` and from your teacher, who tries other networks as well.
# The answers do not depend on each other: you can leave one out. (7.3 calls your `without`, but `check` lends it a right
# one.)

# %%
import math
from contextlib import ExitStack, contextmanager

import numpy as np

from minires import Tensor, nn, no_grad, ops
from minires.course import check, ready

# %% [markdown]
# ## What you need from minires
#
# A network `net` is an `nn.Module`: a tree of layers, which are Modules too. Its numbers are Tensors.
#
# | expression | what it is |
# |---|---|
# | `net(Tensor(x))` | the logits (N, classes), a Tensor, for an array `x` (N, channels, H, W) |
# | `ops.relu(t)`, `ops.cross_entropy(logits, labels)` | Tensors; the second is the mean loss of the batch |
# | `t.data`, `t.grad`, `t.shape`, `t.ndim` | the array in a Tensor, its gradient (an array or `None`), and their shape |
# | `loss.item()`, `loss.backward()` | the number in it; add dL/dt to `t.grad` of every Tensor that requires a gradient |
# | `Tensor(x, True)` | a Tensor that requires a gradient, as parameters do (`t.requires_grad`) |
# | `net.parameters()` | list of the Tensors that are trained |
# | `net.state()` | dict {name: Tensor} of all parameters **and** the running statistics of BatchNorm, in layer order |
# | `net.modules()` | pairs (name, module) of the network itself (its name is `""`) and everything inside it, in layer order |
# | `net.train()`, `net.eval()`, `m.training` | set the mode of everything; `True` if module `m` is in train mode |
# | `with no_grad():` | records no graph inside, which saves memory where no backward follows |
# | `with nn.watched(see):` | calls your hook `see(module, inputs, out)` after each module ran; `inputs` is a tuple of Tensors, `out` a Tensor |
#
# In eval mode BatchNorm (BN) normalises by its running statistics and changes nothing. In train mode it normalises by
# the batch, and assigns new arrays to `.data` of its running statistics. The old arrays do not change, so it is enough
# to keep them and to assign them again.
#
# The networks have blocks named `layer1.0`, `layer1.1`, ... `layer3.2`, which are of class `nn.Block`:
#
# $$ y = \mathrm{relu}\big(F(x) + s(x)\big), \qquad
#    F = \mathrm{bn2} \circ \mathrm{conv2} \circ \mathrm{relu} \circ \mathrm{bn1} \circ \mathrm{conv1}. $$
#
# conv1 and conv2 are 3x3. The shortcut $s$ is the identity, or, in the first block of stages 2 and 3, which halves the
# image and doubles the channels, "option A": every second pixel, and channels of zeros. Some networks have "option B"
# there: a *projection*, that is, a 1x1 convolution with a BN of its own (`layer2.0.downsample`). In a plain network the
# block is $y = \mathrm{relu}(F(x))$. In all of them `block.shortcut(x)` returns $s(x)$ for a Tensor $x$; a plain block,
# which does not use it, returns what a residual block of its shape would.
#
# Two helpers are given, for your answers:

# %%
def logits(net, x):
    """Return the logits (N, classes) of the images x in eval mode, an array. Every module keeps its mode."""
    modes = [(m, m.training) for _, m in net.modules()]
    net.eval()
    try:
        with no_grad():
            return np.concatenate([net(Tensor(x[i:i + 250])).data for i in range(0, len(x), 250)])
    finally:
        for m, training in modes:
            m.training = training


def block_names(net):
    """Return the names of all blocks, in layer order: "layer1.0", "layer1.1", ..."""
    return [name for name, m in net.modules() if isinstance(m, nn.Block)]


# %% [markdown]
# ## 7.1 Responses
#
# The *response* of a 3x3 convolution is the standard deviation of its output **after its BN and before anything else**:
# before the ReLU, and before the shortcut is added (section 4.2 and Fig. 7 of the paper). It is one standard deviation
# over all elements of the array, `array.std()`: over images, channels and places together. The network runs one batch in
# train mode.
#
# Write `responses(net, images)`, which returns `{name of the BN: response}`, a float for every BN that follows a 3x3
# convolution, by the BN's name in `net.modules()`: `bn1`, `layer1.0.bn1`, `layer1.0.bn2`, and so on. The BN of a
# projection follows a 1x1 convolution and is not among them.
#
# Use a hook. `nn.watched(see)` calls it after each module, from the inside out: first `conv1`, then `bn1`, ..., then the
# block that contains them. Inside `see`, `out` of a BN is what you want to measure, and you know the convolution before
# it by looking at Tensors: the BN's input `inputs[0]` **is** the `out` of that convolution, the same object. A
# convolution is an `nn.Conv2d`; the last two extents of its `weight.shape` are the kernel's size. A BN is an
# `nn.BatchNorm2d`. A network with a hook computes exactly the same numbers.
#
# Afterwards running statistics, modes and everything else must be as before, and no hook may be left.
#
# *Why eval mode is wrong here, and why the answer before training is boring:* in train mode BN has just divided by the
# standard deviation of the batch. So before training, with $\gamma = 1$ and $\beta = 0$, every response is 1, whatever
# the images. What differs from 1 in a trained network is what training did to $\gamma$ and $\beta$:
# $\text{response}^2 \approx \mathrm{mean}(\gamma^2) + \mathrm{Var}(\beta)$ over the channels. You can test your function
# with this.

# %% task="a7.1" kind="answer"
def responses(net, images):
    """Return {name of a BN that follows a 3x3 convolution: standard deviation of its output} for one batch.

    images: (N, 1, H, W). The network runs in train mode, and is as before afterwards.
    """
    ### BEGIN SOLUTION
    names = {id(module): name for name, module in net.modules()}
    modes = [(module, module.training) for _, module in net.modules()]
    kept = [(t, t.data) for t in net.state().values()]
    found, last = {}, [None]

    def see(module, inputs, out):
        if isinstance(module, nn.Conv2d) and module.weight.shape[2:] == (3, 3):
            last[0] = out
        elif isinstance(module, nn.BatchNorm2d) and inputs[0] is last[0]:
            found[names[id(module)]] = float(out.data.std())

    try:
        net.train()
        with nn.watched(see), no_grad():
            net(Tensor(images))
    finally:
        for t, data in kept:
            t.data = data
        for module, training in modes:
            module.training = training
    return found
    ### END SOLUTION


# %% task="a7.1" kind="check" points=20
check("a7.1", responses);

# %% [markdown]
# ## 7.2 One block less
#
# What does a network lose without one of its blocks? To *delete* a block means to reduce it to its shortcut: its branch
# $F$ goes, and
#
# $$ y = \mathrm{relu}\big(s(x)\big) $$
#
# stays. (After an identity this ReLU changes nothing, because $x$ comes from a ReLU; after a projection it does.) The
# block is not replaced by zeros: then nothing of the image would arrive, and every network would fail. A block that
# changes the shape keeps its $s$, option A or the projection, because the next block needs the new shape. A plain block
# has no shortcut. It is reduced to what a residual block of its shape would have there, `block.shortcut(x)`.
#
# Write `without(net, name)`, a context manager: inside `with without(net, "layer1.2"):` the block of this name is
# reduced, and after it the network is what it was, **also if an exception ends the inside**.
#
# Calling a module calls its `forward`. So `block.forward = f` on this one object makes the network run `f(x)` for this
# block, where `x` and the result are Tensors. Keep the old `block.forward`, and put it back.
#
# *Reminder.* With `@contextmanager` a function becomes a context manager: what is before `yield` runs at the beginning of
# the `with` block, what follows it at the end. An exception from inside appears *at the yield*, so only a `finally`
# around it is certain to run:
#
# ```python
# @contextmanager
# def quiet(thing):
#     thing.off()
#     try:
#         yield
#     finally:
#         thing.on()
# ```

# %% task="a7.2" kind="answer"
@contextmanager
def without(net, name):
    """Reduce the block with this name to relu(shortcut(x)) inside the context. It is restored in any case."""
    ### BEGIN SOLUTION
    block = dict(net.modules())[name]
    forward = block.forward

    def shortcut_alone(x):
        return ops.relu(block.shortcut(x))

    block.forward = shortcut_alone
    try:
        yield
    finally:
        block.forward = forward
    ### END SOLUTION


# %% task="a7.2" kind="check" points=15
check("a7.2", without);

# %% [markdown]
# ## 7.3 Lesions
#
# Veit, Wilber and Belongie (2016) deleted blocks of trained networks, one at a time and then several, and looked at the
# error. The error is the percentage of images whose largest logit is not at their label. 3 wrong of 12 is 25.0: neither
# 0.25, nor the 75 that are right. Use the given `logits` and `block_names`, and your `without`.
#
# Write
#
# - `lesions(net, x, labels)`: `{name of a block: error without this one block}` for every block;
# - `delete_k(net, x, labels, k, rng)`: the error without k different blocks, drawn at random. Draw them with a single
#   call, `rng.choice(block_names(net), k, replace=False)`, so that everybody draws the same. k may be 0.
#
# You need k contexts at once, where k is known only at run time. `ExitStack` from `contextlib` holds any number of them,
# and leaves them all at the end:
#
# ```python
# with ExitStack() as stack:
#     for thing in things:
#         stack.enter_context(quiet(thing))
#     ...                                     # here all things are quiet
# ```

# %% task="a7.3" kind="answer"
def lesions(net, x, labels):
    """Return {name of a block: error in percent without this block}. labels: integers (N,)"""
    ### BEGIN SOLUTION
    found = {}
    for name in block_names(net):
        with without(net, name):
            wrong = logits(net, x).argmax(1) != labels
        found[name] = 100 * float(wrong.mean())
    return found
    ### END SOLUTION


def delete_k(net, x, labels, k, rng):
    """Return the error in percent without k different random blocks. rng: a NumPy Generator"""
    ### BEGIN SOLUTION
    with ExitStack() as stack:
        for name in rng.choice(block_names(net), k, replace=False):
            stack.enter_context(without(net, str(name)))
        missed = logits(net, x).argmax(1) != labels
    return 100 * float(missed.mean())
    ### END SOLUTION


# %% task="a7.3" kind="check" points=15
check("a7.3", lesions, delete_k);

# %% [markdown]
# ## 7.4 Which paths carry the gradient?
#
# Multiply out the blocks of a residual network: each adds $F(x)$ to $x$, so n blocks make $2^n$ **paths** from the input
# to the output, each of which goes through or past every block. The gradient of the loss is a sum over these paths,
# too. Which of them matter?
#
# **The whole gradient.** Write `input_gradient(net, x, labels)`: dL/dx of the mean cross-entropy of the batch in eval
# mode, an array like `x`. Wrap the images so that they get a gradient: `Tensor(x, True)`. backward also adds to `.grad` of
# every parameter. That is a trace: afterwards each `.grad` must be what it was (an array or `None`). backward assigns new
# arrays, so it is enough to keep the old ones and to assign them again. The modes must be what they were, too.
#
# **The shares.** Let $g_k$ be the mean norm of the gradient along **one** path through k blocks, for k = 0 ... n. There
# are $\binom{n}{k}$ paths of length k, as many as ways to choose k blocks of n. If each of them carries $g_k$, the share
# of length k in the whole is
#
# $$ \frac{\binom nk\, g_k}{\sum_j \binom nj\, g_j}. $$
#
# Write `path_shares(norms)` for the array `norms` of $g_0 \ldots g_n$; it returns an array of the same length, whose sum
# is 1. `math.comb(n, k)` is the binomial coefficient.
#
# *Example.* `path_shares(np.array([1, 0.5, 0.25]))`: there are 1, 2 and 1 paths, they carry 1, 1 and 0.25 together, and the
# shares are 4/9, 4/9 and 1/9. A long path can be rare twice: because few paths are long, and because each carries little.

# %% task="a7.4" kind="answer"
def input_gradient(net, x, labels):
    """Return dL/dx in eval mode, an array like x (N, 1, H, W), where L is the mean cross-entropy of the batch.

    labels: integers (N,). Gradients of parameters and modes of `net` are as before afterwards.
    """
    ### BEGIN SOLUTION
    modes = [(module, module.training) for _, module in net.modules()]
    grads = [(t, t.grad) for t in net.parameters()]
    images = Tensor(x, True)
    net.eval()
    ops.cross_entropy(net(images), labels).backward()
    for t, grad in grads:
        t.grad = grad
    for module, training in modes:
        module.training = training
    return images.grad
    ### END SOLUTION


def path_shares(norms):
    """Return the share (n + 1,) of each path length, from the norm along one path of each length (n + 1,)."""
    ### BEGIN SOLUTION
    n = len(norms) - 1
    paths = np.array([math.comb(n, k) for k in range(n + 1)], float)
    carried = paths * norms
    return carried / carried.sum()
    ### END SOLUTION


# %% task="a7.4" kind="check" points=10
check("a7.4", input_gradient, path_shares);

# %% [markdown]
# ## 7.5 A direction that can be compared
#
# How does the loss change around the trained weights? Weights have thousands of dimensions, so one looks along random
# directions. A plain Gaussian direction is misleading. Multiply the weight of a convolution by 10: the BN that follows it
# divides by 10 again, the network computes the same, but a step of a given length is now ten times smaller relative to
# the weight, and the loss looks flatter. Li et al. (2018) therefore scale the direction **filter by filter** to the
# weight's own norm.
#
# Write `direction(net, rng)`, which returns `{name: array}` for every *parameter* in `net.state()` (`t.requires_grad`;
# running statistics are not parameters). Go through `net.state()` in its order.
#
# - A parameter with one axis, which is gamma or beta of a BN or a bias, does not move: an array of zeros. Draw nothing
#   for it.
# - Any other parameter is a weight $W$ whose first axis counts its filters: (O, C, 3, 3) in a convolution, (K, C) in the
#   linear layer. Draw `d = rng.standard_normal(t.shape)`. Then for every filter $i$
#
# $$ d_i \leftarrow d_i\, \frac{\lVert W_i\rVert}{\lVert d_i\rVert}, $$
#
# where both norms run over all axes except the first. Arrays have the shape and the dtype of their parameter
# (`.astype(t.data.dtype)`, because `standard_normal` draws float64).
#
# Two calls with one generator must give two different directions, as they do if you draw from `rng` itself.
#
# *Example.* A weight (2, 2) with rows (3, 4) and (0, 1), and a draw with rows (1, 0) and (2, 2): the rows of the direction
# are (5, 0) and (0.707, 0.707).

# %% task="a7.5" kind="answer"
def direction(net, rng):
    """Return {name of a parameter: array like it}: random, each filter with its weight's norm; 0 for BN and biases."""
    ### BEGIN SOLUTION
    found = {}
    for name, t in net.state().items():
        if not t.requires_grad:
            continue
        if t.ndim < 2:
            found[name] = np.zeros_like(t.data)
            continue
        d = rng.standard_normal(t.shape)
        axes = tuple(range(1, t.ndim))
        wanted = np.sqrt((t.data ** 2).sum(axes, keepdims=True))
        drawn = np.sqrt((d ** 2).sum(axes, keepdims=True))
        found[name] = (d * wanted / drawn).astype(t.data.dtype)
    return found
    ### END SOLUTION


# %% task="a7.5" kind="check" points=10
check("a7.5", direction);

# %% [markdown]
# ## 7.6 The loss around the weights
#
# Write `loss_surface(net, x, labels, d1, d2, alphas, betas)`. With the weights $w$ of the network it returns the array
#
# $$ S_{ij} = L(w + \alpha_i\, d_1 + \beta_j\, d_2), \qquad \text{shape } (\text{len}(\alpha), \text{len}(\beta)), $$
#
# where $L$ is the mean cross-entropy of the images in eval mode: `ops.cross_entropy` of a Tensor with the given `logits`.
# `d1` and `d2` are dictionaries with the same keys, names in `net.state()`, as `direction` returns them.
#
# To move a parameter, assign a new array to `t.data`. Afterwards every weight must be **bit for bit** what it was, also if
# an exception ends the function. Adding a step and subtracting it again does not do that: `(0.1 + 0.7) - 0.7` is
# 0.10000000000000009. Keep the arrays themselves, start from them at every point, and put them back.
#
# A trap of dtypes: `alphas` and `betas` are float64. An element of such an array times a float32 array is float64, and
# float32 images do not go into a float64 network. Multiply by `float(alpha)`, a plain number, which leaves the array's
# dtype as it is.

# %% task="a7.6" kind="answer"
def loss_surface(net, x, labels, d1, d2, alphas, betas):
    """Return the loss (len(alphas), len(betas)) at the weights + alphas[i] d1 + betas[j] d2, in eval mode.

    labels: integers (N,). d1, d2: {name: array}. The network is as before afterwards.
    """
    ### BEGIN SOLUTION
    weights = net.state()
    start = {name: weights[name].data for name in d1}
    surface = np.empty((len(alphas), len(betas)))
    try:
        for i, a in enumerate(alphas):
            for j, b in enumerate(betas):
                for name, w in start.items():
                    weights[name].data = w + float(a) * d1[name] + float(b) * d2[name]
                surface[i, j] = ops.cross_entropy(Tensor(logits(net, x)), labels).item()
    finally:
        for name, w in start.items():
            weights[name].data = w
    return surface
    ### END SOLUTION


# %% task="a7.6" kind="check" points=15
check("a7.6", loss_surface);

# %% [markdown] task="a7.7" kind="free" points=15
# ## 7.7 Predict, then explain
#
# The two networks classify the 2,000 test images with these errors: plain-20 14.7 %, ResNet-20 13.0 %.
#
# **Before** you run the figures, write down your guesses for (a) the error of plain-20 without one block of stage 1, and of
# ResNet-20 without the same block; (b) which of ResNet-20's nine blocks is missed most; (c) the length k of the paths that
# carry most of the gradient in a network with 9 blocks, of which the longest paths are the deepest network.
#
# Then run the figures and answer in about ten sentences. Where were you wrong? Why does plain-20 fail without *any* of its
# blocks, although both networks have the same layers? Why are some of ResNet-20's blocks missed more than others? Is a
# network that survives a lesion an ensemble of shallower networks? Give one observation of yours that supports this, and
# one reason why it does not prove it. What do the two surfaces show, and what do they not show?
#
# *Your answer here.*
#
# ### BEGIN SOLUTION
# **Model answer.** {ANSWER}
#
# **Rubric.** 2 points: guesses for (a) to (c), made before the figures and left as they were. 3: plain-20 has only one
# path, and the next block gets an input that it never saw. 3: the blocks that change the shape are missed most, because
# what remains, option A, has half of its channels empty; inside a stage the identity carries everything. 3: a supporting
# observation with numbers (small damage, or the short paths' share) and a reason against (the rest was trained together
# with the block; BN's statistics no longer fit; the error grows with k). 2: the shares: paths of medium length are the
# most numerous, the gradient comes through shorter ones. 2: the surfaces: same scale of steps thanks to 7.5; two random
# directions of thousands, near the end of training, nothing about the way there.
# ### END SOLUTION

# %% [markdown]
# ## The figures: two networks, read with your instruments
#
# The first figure has your `responses` on the left, as in Fig. 7 of the paper, and your `lesions` on the right. The second
# has your `path_shares` and your `loss_surface` along two of your `direction`s. They take about a minute on two cores.

# %%
def trained():
    """Return ({name: network}, (training images, labels), (test images, labels)): what ships with minires."""
    from minires import datasets, load_weights, models, shipped_file

    learn, test = datasets.fashion_mnist_small()
    x, x_test = datasets.subtract_pixel_mean(*(datasets.to_float(s.images, 14) for s in (learn, test)))
    nets = {}
    for name, file in ("plain-20", "plain20"), ("ResNet-20", "resnet20"):
        nets[name] = models.build(file, in_channels=1, width=8)
        load_weights(nets[name], shipped_file(f"weights/fashion-mnist/{file}.safetensors"))
    return nets, (x, learn.labels), (x_test, test.labels)


def fast():
    """Return whether MINIRES_FAST=1 asks for small figures."""
    import os

    return os.environ.get("MINIRES_FAST") == "1"


def responses_and_lesions():
    """Draw the responses and the lesions of both networks."""
    from minires.plot.style import INK, LIMIT, dress, legend_below, new_figure, series

    nets, (x, _), (x_test, labels) = trained()
    count = 200 if fast() else 2000
    x_test, labels = x_test[:count], labels[:count]
    whole = {name: 100 * float((logits(net, x_test).argmax(1) != labels).mean()) for name, net in nets.items()}
    cut = {name: lesions(net, x_test, labels) for name, net in nets.items()}
    means = ", ".join(f"{name} {whole[name]:.0f} to {np.mean(list(cut[name].values())):.0f}" for name in nets)
    figure = new_figure(f"Mean error with one block deleted, %: {means}", 4.6,
                        f"Fashion-MNIST at 14x14, width 8, 30 epochs, seed 0. Responses: train mode, 500 training images. "
                        f"Errors: {count:,} test images; hatched: blocks that change the shape; dashed: no block deleted.")
    left, right = figure.subplots(1, 2)
    for i, (name, style) in enumerate(series(list(nets)).items()):
        values = list(responses(nets[name], x[:500]).values())
        left.plot(range(1, len(values) + 1), values, **style)
        places = np.arange(len(cut[name])) + 0.4 * i - 0.2
        first = [block.endswith(".0") and block != "layer1.0" for block in cut[name]]
        right.bar(places, list(cut[name].values()), 0.38, color=style["color"], edgecolor=INK, linewidth=0.8,
                  hatch=["///" if changes else "" for changes in first])
        right.axhline(whole[name], color=style["color"], linestyle=LIMIT, linewidth=1.4)
    left.axhline(1, color=INK, linestyle=LIMIT, linewidth=1.2, label="before training")
    left.set(xlim=(0, 20), ylim=(0, None), xticks=(1, 5, 10, 15, 19))
    right.set(ylim=(0, 100))
    right.set_xticks(range(9), [block.removeprefix("layer") for block in cut["plain-20"]])
    dress(left, "responses", "3x3 layer (1 = nearest the input)", "standard deviation after BN")
    dress(right, "lesions", "deleted block (stage.block)", "test error (%)")
    legend_below(figure, [left])
    return figure


responses_and_lesions() if ready("a7.1", "a7.2", "a7.3") else None


# %% [markdown]
# The next cell tests an identity before it draws. `analysis.gradients_by_length` returns ResNet-20's gradient at the input
# split into ten parts, along all paths through 0, 1, ..., 9 blocks together. Their sum over all 512 paths must be *your*
# `input_gradient`.

# %%
def paths_and_surfaces():
    """Draw the shares of path lengths in ResNet-20, and the loss around both networks' weights."""
    from minires import analysis
    from minires.plot.style import INK, colour_bar, dress, new_figure, series

    nets, _, (x_test, labels) = trained()
    few = slice(0, 40 if fast() else 200)
    x, labels, resnet = x_test[few], labels[few], nets["ResNet-20"]
    whole = input_gradient(resnet, x, labels)
    away = np.linalg.norm(sum(analysis.gradients_by_length(resnet, x, labels)) - whole) / np.linalg.norm(whole)
    print(f"The gradients along all 512 paths add up to yours: relative difference {away:.0e}")
    samples = 2 if fast() else 10
    single = analysis.path_gradients(resnet, x, labels, range(10), samples, rng=np.random.default_rng(0)).norms
    shares = path_shares(np.array([np.mean(single[k]) for k in range(10)]))
    count = path_shares(np.ones(10))
    mean = float(shares @ np.arange(10))
    at = np.linspace(-1, 1, 5 if fast() else 13)
    surfaces = {}
    for name, net in nets.items():
        rng = np.random.default_rng(1)
        surfaces[name] = loss_surface(net, x, labels, direction(net, rng), direction(net, rng), at, at)

    figure = new_figure(f"ResNet-20: the mean path of the gradient goes through {mean:.1f} of 9 blocks", 4.0,
                        f"{len(x)} test images of Fashion-MNIST at 14x14, eval mode. Paths: {samples} random paths of each "
                        "length. Surfaces: two random directions, filter-normalised; lines at losses 1, 2, 4, 8, ...")
    panels = figure.subplots(1, 3, width_ratios=(1.15, 1, 1))
    look = series(["ResNet-20"])["ResNet-20"]
    panels[0].bar(range(10), shares, 0.8, color=look["color"], edgecolor=INK, linewidth=0.8, label="of the gradient")
    panels[0].plot(range(10), count, color=INK, marker="o", markersize=4, linewidth=1.2, label="of the paths")
    panels[0].set_xticks(range(0, 10, 3))
    panels[0].legend(fontsize=9, frameon=False)
    dress(panels[0], "shares of path lengths", "blocks on the path", "share")
    top = np.log2(max(s.max() for s in surfaces.values()))
    low = np.log2(min(s.min() for s in surfaces.values()))
    for axes, (name, surface) in zip(panels[1:], surfaces.items(), strict=True):
        image = axes.contourf(at, at, np.log2(surface).T, np.linspace(low, top, 25), cmap="Greys")
        lines = axes.contour(at, at, surface.T, [2.0 ** k for k in range(8)], colors=INK, linewidths=0.8)
        axes.clabel(lines, fmt="%g", fontsize=8)
        axes.plot(0, 0, "+", color="#d94801", markersize=10)
        dress(axes, f"loss around {name}", "alpha", "beta")
        axes.set_aspect("equal")
        axes.grid(False)
    colour_bar(figure, image, list(panels[1:]), "loss", form=lambda value, _: f"{2 ** value:.2g}")
    return figure


paths_and_surfaces() if ready("a7.4", "a7.5", "a7.6") else None
