# %% [markdown]
# # A7. Reading a ResNet: responses, lesions, paths, landscape
# *120 minutes, 100 points. It follows notebooks 7, Layer responses, and 8, Why it works.*
#
# Trained networks ship with minires, among them plain-20 and ResNet-20, of width 8, trained for 30 epochs on the same
# 10,000 images of clothes. These two have the same layers and the same number of parameters. In this assignment you
# write the instruments with which such networks are read, and then you read them.
#
# An instrument must do two things. It must measure what its name says, and nothing that merely looks similar. And it
# must leave the patient as it was: weights, running statistics, gradients, modes and hooks, bit for bit, because the
# next measurement, or the training, continues with the same network.
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
# tries your answer on small random networks in float64 and prints one line; the trained networks wait for you in the
# figures at the end. `minires course check a7` shows your points, on these networks and on others. The mark comes from
# your teacher, who draws other numbers. The answers do not depend on each other: you can leave one out. (7.3 calls your
# `without`, but `check` lends it a right one.)

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
# | `t.data`, `t.grad`, `t.shape`, `t.ndim` | the array in a Tensor, its gradient (an array or `None`), their shape |
# | `loss.item()`, `loss.backward()` | the number; add dL/dt to `t.grad` of every Tensor that requires a gradient |
# | `Tensor(x, True)` | a Tensor that requires a gradient, as parameters do (`t.requires_grad`) |
# | `net.parameters()` | list of the Tensors that are trained |
# | `net.state()` | dict {name: Tensor} of all parameters **and** the running statistics of BatchNorm, in layer order |
# | `net.modules()` | pairs (name, module): the network itself, named `""`, and everything inside, in layer order |
# | `net.train()`, `net.eval()`, `m.training` | set the mode of everything; `True` if module `m` is in train mode |
# | `with no_grad():` | records no graph inside, which saves memory where no backward follows |
# | `with nn.watched(see):` | inside, calls your hook `see(module, inputs, out)` after each module ran |
#
# In eval mode BatchNorm (BN) normalises by its running statistics and changes nothing. In train mode it normalises by
# the batch, and assigns new arrays to `.data` of its running statistics. The old arrays do not change, so it is
# enough to keep them and to assign them again.
#
# The networks have blocks named `layer1.0`, `layer1.1`, ... `layer3.2`, which are of class `nn.Block`:
#
# $$ y = \mathrm{relu}\big(F(x) + s(x)\big), \qquad
#    F = \mathrm{bn2} \circ \mathrm{conv2} \circ \mathrm{relu} \circ \mathrm{bn1} \circ \mathrm{conv1}. $$
#
# conv1 and conv2 are 3x3. The shortcut $s$ is the identity, or, in the first block of stages 2 and 3, which halves
# the image and doubles the channels, "option A": every second pixel, and channels of zeros. Some networks have
# "option B" there: a *projection*, that is, a 1x1 convolution with a BN of its own (`layer2.0.downsample`). In a
# plain network the block is $y = \mathrm{relu}(F(x))$. In all of them `block.shortcut(x)` returns $s(x)$ for a Tensor
# $x$; a plain block, which does not use it, returns what a residual block of its shape would.
#
# Two helpers are given, for your answers:

# %%
def logits(net, x):
    """Return the logits (N, classes) of the images x in eval mode, an array.

    Every module keeps its mode.
    """
    modes = [(m, m.training) for _, m in net.modules()]
    net.eval()
    try:
        with no_grad():
            return np.concatenate([net(Tensor(x[i:i + 250])).data
                                   for i in range(0, len(x), 250)])
    finally:
        for m, training in modes:
            m.training = training


def block_names(net):
    """Return the names of all blocks, in layer order: "layer1.0", "layer1.1", ..."""
    return [name for name, m in net.modules() if isinstance(m, nn.Block)]


# %% [markdown]
# ## 7.1 Responses
#
# The *response* of a 3x3 convolution is the standard deviation of its output **after its BN and before anything
# else**: before the ReLU, and before the shortcut is added (section 4.2 and Fig. 7 of the paper). It is one standard
# deviation over all elements of the array, `array.std()`: over images, channels and places together. The network runs
# one batch in train mode.
#
# Write `responses(net, images)`, which returns `{name of the BN: response}`, a float for every BN that follows a 3x3
# convolution, by the BN's name in `net.modules()`: `bn1`, `layer1.0.bn1`, `layer1.0.bn2`, and so on. The BN of a
# projection follows a 1x1 convolution and is not among them. The order of the keys does not count.
#
# Use a hook, a function `see(module, inputs, out)`; `inputs` is a tuple of Tensors and `out` a Tensor.
# `nn.watched(see)` calls it after each module, from the inside out: first `conv1`, then `bn1`, ..., then the block
# that contains them. Inside `see`, `out` of a BN is what you want to measure, and you know the convolution before it
# by looking at Tensors: the BN's input `inputs[0]` **is** the `out` of that convolution, the same object. A
# convolution is an `nn.Conv2d`; the last two extents of its `weight.shape` are the kernel's size. A BN is an
# `nn.BatchNorm2d`. `see` gets a module and not its name: before you run the network, make a dictionary from
# `id(module)` to the name. A network with a hook computes exactly the same numbers.
#
# Afterwards running statistics, modes and everything else must be as before, and no hook may be left.
#
# *Why eval mode is wrong here, and why the answer before training is boring:* in train mode BN has just divided by
# the standard deviation of the batch. So before training, with $\gamma = 1$ and $\beta = 0$, every response is 1,
# whatever the images. What differs from 1 in a trained network is what training did to $\gamma$ and $\beta$:
# $\text{response}^2 \approx \mathrm{mean}(\gamma^2) + \mathrm{Var}(\beta)$ over the channels. You can test your
# function with this.

# %% task="a7.1" kind="answer"
def responses(net, images):
    """Return {name of a BN that follows a 3x3 convolution: standard deviation of its
    output} for one batch.

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
# What does a network lose without one of its blocks? To *delete* a block means to reduce it to its shortcut: its
# branch $F$ goes, and
#
# $$ y = \mathrm{relu}\big(s(x)\big) $$
#
# stays. (After an identity this ReLU changes nothing, because $x$ comes from a ReLU; after a projection it does.) The
# block is not replaced by zeros: then nothing of the image would arrive, and every network would fail. A block that
# changes the shape keeps its $s$, option A or the projection, because the next block needs the new shape. A plain
# block has no shortcut. It is reduced to what a residual block of its shape would have there, `block.shortcut(x)`.
#
# Write `without(net, name)`, a context manager: inside `with without(net, "layer1.2"):` the block of this name is
# reduced, and after it the network is what it was, **also if an exception ends the inside**.
#
# The module with this name is `dict(net.modules())[name]`. Calling a module calls its `forward`. So `block.forward =
# f` on this one object makes the network run `f(x)` for this block, where `x` and the result are Tensors. Keep the
# old `block.forward`, and put it back.
#
# *Reminder.* With `@contextmanager` a function becomes a context manager: what is before `yield` runs at the
# beginning of the `with` block, what follows it at the end. An exception from inside appears *at the yield*, so only
# a `finally` around it is certain to run:
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
    """Reduce the block with this name to relu(shortcut(x)) inside the context.

    It is restored in any case.
    """
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
# Veit, Wilber and Belongie (2016) deleted blocks of trained networks, one at a time and then several, and looked at
# the error. The error is the percentage of images whose largest logit is not at their label. 3 wrong of 12 is 25.0:
# neither 0.25, nor the 75 that are right. Use the given `logits` and `block_names`, and your `without`.
#
# Write
#
# - `lesions(net, x, labels)`: `{name of a block: error without this one block}` for every block;
# - `delete_k(net, x, labels, k, rng)`: the error without k different blocks, drawn at random. Draw them with a single
#   call, `rng.choice(block_names(net), k, replace=False)`, so that everybody draws the same. k may be 0.
#
# You need k contexts at once, where k is known only at run time. `ExitStack` from `contextlib` holds any number of
# them, and leaves them all at the end:
#
# ```python
# with ExitStack() as stack:
#     for thing in things:
#         stack.enter_context(quiet(thing))
#     ...                                     # here all things are quiet
# ```

# %% task="a7.3" kind="answer"
def lesions(net, x, labels):
    """Return {name of a block: error in percent without this block}. labels: integers
    (N,)"""
    ### BEGIN SOLUTION
    found = {}
    for name in block_names(net):
        with without(net, name):
            wrong = logits(net, x).argmax(1) != labels
        found[name] = 100 * float(wrong.mean())
    return found
    ### END SOLUTION


def delete_k(net, x, labels, k, rng):
    """Return the error in percent without k different random blocks. rng: a NumPy
    Generator"""
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
# Multiply out the blocks of a residual network: each adds $F(x)$ to $x$, so n blocks make $2^n$ **paths** from the
# input to the output, each of which goes through or past every block. The gradient of the loss is a sum over these
# paths, too. Which of them matter?
#
# **The whole gradient.** Write `input_gradient(net, x, labels)`: dL/dx of the mean cross-entropy of the batch in eval
# mode, an array like `x`. Wrap the images so that they get a gradient: `Tensor(x, True)`. backward also adds to
# `.grad` of every parameter. That is a trace: afterwards each `.grad` must be what it was (an array or `None`).
# backward assigns new arrays, so it is enough to keep the old ones and to assign them again. The modes must be what
# they were, too.
#
# **The shares.** Let $g_k$ be the mean norm of the gradient along **one** path through k blocks, for k = 0 ... n.
# There are $\binom{n}{k}$ paths of length k, as many as ways to choose k blocks of n. If each of them carries $g_k$,
# the share of length k in the whole is
#
# $$ \frac{\binom nk\, g_k}{\sum_j \binom nj\, g_j}. $$
#
# (This is the estimate of Veit et al. Norms do not add up where paths cancel, so it is not exact.)
#
# Write `path_shares(norms)` for the array `norms` of $g_0 \ldots g_n$; it returns an array of the same length, whose
# sum is 1. `math.comb(n, k)` is the binomial coefficient.
#
# *Example.* `path_shares(np.array([1, 0.5, 0.25]))`: there are 1, 2 and 1 paths, they carry 1, 1 and 0.25 together,
# and the shares are 4/9, 4/9 and 1/9. A long path can be rare twice: because few paths are long, and because each
# carries little.

# %% task="a7.4" kind="answer"
def input_gradient(net, x, labels):
    """Return dL/dx in eval mode, an array like x (N, 1, H, W), where L is the mean
    cross-entropy of the batch.

    labels: integers (N,). Gradients of parameters and modes of `net` are as before
    afterwards.
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
    """Return the share (n + 1,) of each path length, from the norm along one path of
    each length (n + 1,)."""
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
# directions. A plain Gaussian direction is misleading. Multiply the weight of a convolution by 10: the BN that
# follows it divides by 10 again, the network computes the same, but a step of a given length is now ten times smaller
# relative to the weight, and the loss looks flatter. Li et al. (2018) therefore scale the direction **filter by
# filter** to the weight's own norm.
#
# Write `direction(net, rng)`, which returns `{name: array}` for every *parameter* in `net.state()`
# (`t.requires_grad`; running statistics are not parameters). Go through `net.state()` in its order.
#
# - A parameter with one axis, which is gamma or beta of a BN or a bias, does not move: an array of zeros. Draw
#   nothing for it.
# - Any other parameter is a weight $W$ whose first axis counts its filters: (O, C, 3, 3) in a convolution, (K, C) in
#   the linear layer. Draw `d = rng.standard_normal(t.shape)`. Then for every filter $i$
#
# $$ d_i \leftarrow d_i\, \frac{\lVert W_i\rVert}{\lVert d_i\rVert}, $$
#
# where both norms run over all axes except the first. Arrays have the shape and the dtype of their parameter
# (`.astype(t.data.dtype)`, because `standard_normal` draws float64).
#
# Two calls with one generator must give two different directions, as they do if you draw from `rng` itself.
#
# *Example.* A weight (2, 2) with rows (3, 4) and (0, 1), and a draw with rows (1, 0) and (2, 2): the rows of the
# direction are (5, 0) and (0.707, 0.707).

# %% task="a7.5" kind="answer"
def direction(net, rng):
    """Return {name of a parameter: array like it}: random, each filter with its
    weight's norm; 0 for BN and biases."""
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
# Write `loss_surface(net, x, labels, d1, d2, alphas, betas)`. With the weights $w$ of the network it returns the
# array
#
# $$ S_{ij} = L(w + \alpha_i\, d_1 + \beta_j\, d_2), \qquad \text{shape } (\text{len}(\alpha), \text{len}(\beta)), $$
#
# where $L$ is the mean cross-entropy of the images in eval mode: `ops.cross_entropy` of a Tensor with the given
# `logits`. `d1` and `d2` are dictionaries with the same keys, names in `net.state()`, as `direction` returns them.
#
# To move a parameter, assign a new array to `t.data`. Afterwards every weight must be **bit for bit** what it was,
# also if an exception ends the function. Adding a step and subtracting it again does not do that: `(0.1 + 0.7) - 0.7`
# is 0.10000000000000009. Keep the arrays themselves, start from them at every point, and put them back.
#
# A trap of dtypes: `alphas` and `betas` are float64. An element of such an array times a float32 array is float64,
# and float32 images do not go into a float64 network. Multiply by `float(alpha)`, a plain number, which leaves the
# array's dtype as it is.

# %% task="a7.6" kind="answer"
def loss_surface(net, x, labels, d1, d2, alphas, betas):
    """Return the loss (len(alphas), len(betas)) at the weights + alphas[i] d1 +
    betas[j] d2, in eval mode.

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
# On the 2,000 test images plain-20 is wrong in 14.7 %, ResNet-20 in 13.5 %.
#
# **Before** you run the figures, write down your guesses, with a number each:
#
# - (a) the mean error of plain-20 without one of its nine blocks, and the same for ResNet-20;
# - (b) which block ResNet-20 misses most, and how large its error is without it;
# - (c) ResNet-56 has 27 blocks, so paths of 13 and 14 blocks are the most numerous. Which length carries the largest
#   share of the gradient?
#
# Then run the figures and answer in about ten sentences. Where were you wrong? Why does plain-20 fail without *any*
# of its blocks, although both networks have the same layers? Which blocks does ResNet-20 miss most, and why? Is a
# network that survives a lesion an ensemble of shallower networks? Give one observation of yours that supports this,
# and one reason why it does not prove it. What do the two surfaces show, and what do they not show?
#
# *Your answer here.*
#
# ### BEGIN SOLUTION
# **Model answer.** Without one block plain-20 is wrong in 61 to 96 % of the images, ResNet-20 in 17 to 57 %; the
# means are 85 and 28 %. A plain network is a single path. Without a block the next one gets an input unlike anything
# that it was trained on, and every later layer inherits that. In a residual network the next block gets the same
# signal with a correction missing. ResNet-20 misses the first block of each stage most, layer1.0 (57 %), 3.0 (41 %)
# and 2.0 (37 %). In stages 2 and 3 these are the blocks that change the shape: all that remains of them is option A,
# whose new channels are empty. layer1.0 is the first to work on the output of the stem, and changes it most. The
# other six cost 4 to 11 points each. This, and the fact that the gradient's paths are shorter than the average path,
# fits an ensemble of shallow networks. It proves none: the remaining blocks were trained together with the deleted
# one, the statistics of BN do not fit any more, and two or three blocks less already ruin ResNet-20, as removing
# members of an ensemble would not. In ResNet-56 paths of about 7 blocks carry most, not those of 13 or 14, because
# each block on the path multiplies the gradient by a factor well below 1. The surfaces show the loss along two random
# directions of 67,000, in steps that are measured by each filter's own size. Both are bowls without other valleys;
# that of ResNet-20 is wider, as the line of loss 1 shows, and further out the two do not differ much. They say
# nothing about the directions that training takes, nor about the landscape where it begins.
#
# **Rubric.** 2 points: guesses with numbers for (a) to (c), made before the figures and left as they were. 3:
# plain-20 is a single path, and what follows a cut sees inputs unlike those in training. 3: the first blocks of the
# stages, with numbers, and why (option A's empty channels; the first block changes most). 3: one supporting
# observation and one reason against. 2: the gradient comes through paths shorter than the most numerous, because each
# block shrinks it. 2: what the surfaces show, and that they are two random directions at the end of training.
# ### END SOLUTION

# %% [markdown]
# ## The figures: trained networks, read with your instruments
#
# The first figure has your `responses`, as in Fig. 7 of the paper, your `lesions`, and the error as `delete_k`
# removes more and more blocks. It takes half a minute on two cores.

# %%
def trained(*files):
    """Return ([networks that ship], (training images, labels), (test images, labels)).
    files: "plain20", ..."""
    from minires import datasets, load_weights, models, shipped_file

    learn, test = datasets.fashion_mnist_small()
    x, x_test = datasets.subtract_pixel_mean(*(datasets.to_float(s.images, 14)
                                               for s in (learn, test)))
    nets = [models.build(file, in_channels=1, width=8) for file in files]
    for file, net in zip(files, nets, strict=True):
        load_weights(net, shipped_file(f"weights/fashion-mnist/{file}.safetensors"))
    return nets, (x, learn.labels), (x_test, test.labels)


def fast():
    """Return whether MINIRES_FAST=1 asks for quick figures from few images."""
    import os

    return os.environ.get("MINIRES_FAST") == "1"


def responses_and_lesions():
    """Draw responses and lesions of plain-20 and ResNet-20."""
    from minires.plot.style import (
        COLOURS,
        INK,
        LIMIT,
        dress,
        legend_below,
        new_figure,
        series,
    )

    (plain, residual), (x, _), (x_test, labels) = trained("plain20", "resnet20")
    nets = {"plain-20": plain, "ResNet-20": residual}
    count, draws = (100, 1) if fast() else (2000, 5)
    x_test, labels = x_test[:count], labels[:count]
    whole = {name: 100 * float((logits(net, x_test).argmax(1) != labels).mean())
             for name, net in nets.items()}
    cut = {name: lesions(net, x_test, labels) for name, net in nets.items()}
    means = ", ".join(f"{name} {whole[name]:.0f} to "
                      f"{np.mean(list(cut[name].values())):.0f}" for name in nets)
    figure = new_figure(f"Mean error with one block deleted, %: {means} (seed 0)", 4.5,
                        "Fashion-MNIST at 14x14, width 8, 30 epochs, seed 0. "
                        "Responses: train mode, 500 training images. Lesions: "
                        f"{count:,} test images; hatched: blocks that change the "
                        f"shape. Right: the first {min(count, 300)} test images; draws "
                        f"for each k: {draws}.")
    panels = figure.subplots(1, 3, width_ratios=(1.1, 1.45, 0.9))
    fills = {"plain-20": COLOURS["plain"][0], "ResNet-20": "#c6dbef"}
    for i, (name, style) in enumerate(series(list(nets)).items()):
        values = list(responses(nets[name], x[:500]).values())
        panels[0].plot(range(1, len(values) + 1), values, **style)
        changes = [block in ("layer2.0", "layer3.0") for block in cut[name]]
        panels[1].bar(np.arange(9) + 0.4 * i - 0.2, list(cut[name].values()), 0.4,
                      color=fills[name], edgecolor=INK,
                      linewidth=0.8, hatch=["///" if c else "" for c in changes],
                      label=f"{name}, bar")
        rng = np.random.default_rng(0)
        errors = [np.mean([delete_k(nets[name], x_test[:300], labels[:300], k, rng)
                           for _ in range(draws)])
                  for k in range(6)]
        panels[2].plot(range(6), errors, **style | {"label": "_"})
    panels[0].axhline(1, color=INK, linestyle=LIMIT, linewidth=1.2,
                      label="before training")
    panels[0].set(ylim=(0, 1.4), xticks=(1, 5, 10, 15, 19))
    panels[1].set(ylim=(0, 100))
    panels[1].set_xticks(range(9), [block.removeprefix("layer")
                                    for block in cut["plain-20"]])
    panels[2].set(ylim=(0, 100), xticks=range(6))
    dress(panels[0], "responses", "3x3 layer, from the input",
          "standard deviation after BN")
    dress(panels[1], "one block deleted", "deleted block (stage.block)",
          "test error (%)")
    dress(panels[2], "k blocks deleted", "k", "test error (%)")
    legend_below(figure, list(panels), columns=5)
    return figure


responses_and_lesions() if ready("a7.1", "a7.2", "a7.3") else None


# %% [markdown]
# The second figure begins with an identity. `analysis.gradients_by_length` splits ResNet-56's gradient at the input
# into 28 parts, along all paths through 0, 1, ..., 27 blocks. Their sum over all 134,217,728 paths must be *your*
# `input_gradient`. Then it draws your `path_shares` of the gradient, which bends the bell curve of the paths, and
# your `loss_surface` of two networks along two of your `direction`s. It takes about a minute.

# %%
def paths_and_surfaces():
    """Draw the shares of path lengths in ResNet-56, and the loss around the weights of
    plain-20 and ResNet-20."""
    from minires import analysis
    from minires.plot.style import (
        COLOURS,
        INK,
        colour_bar,
        dress,
        legend_below,
        new_figure,
    )

    (plain, residual, deep), _, (x_test, labels) = trained(
        "plain20", "resnet20", "resnet56")
    count, samples, side = (4, 1, 3) if fast() else (50, 10, 15)
    x, y = x_test[:count], labels[:count]
    whole = input_gradient(deep, x, y)
    away = np.linalg.norm(sum(analysis.gradients_by_length(deep, x, y))
                          - whole) / np.linalg.norm(whole)
    print("The gradients along all paths add up to yours: relative difference "
          f"{away:.0e}")
    single = analysis.path_gradients(deep, x, y, range(28), samples,
                                     rng=np.random.default_rng(0)).norms
    shares = path_shares(np.array([np.mean(single[k]) for k in range(28)]))
    at = np.linspace(-1, 1, side)
    surfaces = {}
    for name, net in ("plain-20", plain), ("ResNet-20", residual):
        rng = np.random.default_rng(1)
        surfaces[name] = loss_surface(net, x_test[:6 * count], labels[:6 * count],
                                      direction(net, rng),
                                      direction(net, rng), at, at)

    figure = new_figure("ResNet-56: of 27 blocks, the gradient's mean path takes "
                        f"{shares @ np.arange(28):.1f} (seed 0)", 4.2,
                        "Fashion-MNIST at 14x14, eval mode. Random paths of each "
                        f"length: {samples}, on {count} test images. Surfaces: "
                        f"{6 * count} test images, two random directions, "
                        "filter-normalised; lines at losses 1, 2, 4, 8, ...; cross: "
                        "the trained weights.")
    panels = figure.subplots(1, 3, width_ratios=(1.2, 1, 1))
    panels[0].bar(range(28), shares, 0.85, color=COLOURS["resnet"][0], edgecolor=INK,
                  linewidth=0.6,
                  label="share of the gradient")
    panels[0].plot(range(28), path_shares(np.ones(28)), color=INK, marker="o",
                   markersize=3.5, linewidth=1.2,
                   label="share of the paths")
    panels[0].set_xticks(range(0, 28, 9))
    dress(panels[0], "paths in ResNet-56", "blocks on the path", "share")
    logs = {name: np.log2(surface) for name, surface in surfaces.items()}
    low, high = min(a.min() for a in logs.values()), max(a.max() for a in logs.values())
    for axes, (name, surface) in zip(panels[1:], logs.items(), strict=True):
        image = axes.contourf(at, at, surface.T, np.linspace(low, high, 33),
                              cmap="Greys")
        lines = axes.contour(at, at, surface.T, range(8), colors="#d94801",
                             linewidths=1.0)
        axes.clabel(lines, fmt=lambda value: f"{2.0 ** value:.0f}",
                    fontsize=8, colors=INK)
        axes.plot(0, 0, "+", color=INK, markersize=10)
        axes.set(aspect="equal", xticks=(-1, 0, 1), yticks=(-1, 0, 1))
        dress(axes, f"loss around {name}", "alpha", "beta")
        axes.grid(False)
    colour_bar(figure, image, list(panels[1:]), "loss",
               form=lambda value, _: f"{2.0 ** value:.3g}")
    figure.axes[-1].set_yticks(range(int(np.ceil(low)), int(high) + 1))
    legend_below(figure, [panels[0]])
    return figure


paths_and_surfaces() if ready("a7.4", "a7.5", "a7.6") else None
