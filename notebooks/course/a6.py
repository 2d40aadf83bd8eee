# %% [markdown]
# # A6. Plain against residual: a fair experiment
# *120 minutes, 100 points. It follows notebook 5, Degradation.*
#
# He, Zhang, Ren and Sun (2015) trained plain networks of 20 and of 56 layers on the same images. The deeper network
# was worse, and not only on test images: it was worse **on the images it was trained on**. Then they added shortcuts,
# which have no parameters, and the effect was gone. In this assignment you write that experiment, piece by piece, and
# run it on 10,000 images of clothes.
#
# Each piece is short. What makes the experiment worth anything is care: every task has a mistake that raises no
# error, prints plausible numbers, and turns the comparison into nonsense.
#
# | task | you write | points | minutes |
# |---|---|---:|---:|
# | 6.1 | `prepare`: images as the networks take them | 10 | 10 |
# | 6.2 | `pair`: two networks that differ in one thing | 15 | 15 |
# | 6.3 | `sgd`: one step with momentum and weight decay | 8 | 10 |
# | 6.4 | `learning_rate`: warm-up and drops | 7 | 10 |
# | 6.5 | `train_epoch`: one pass over the images | 20 | 20 |
# | 6.6 | `error` and `errors`: percent, in eval mode | 10 | 15 |
# | 6.7 | `gradient_norms`: a measurement without a trace | 15 | 20 |
# | 6.8 | predict, then explain (free response) | 15 | 20 |
#
# Write each answer where the cell says `raise NotImplementedError`, then run the cell and the `check` below it. `check`
# tries your answer on inputs in float64 and prints one line. `minires course check a6` shows your points, on these
# inputs and on others. The mark comes from your teacher, who draws other numbers. The answers do not depend on each
# other: you can leave one out.

# %%
import numpy as np

from minires import Tensor, models, nn, no_grad, ops
from minires.course import check, ready

# %% [markdown]
# ## What you need from minires
#
# A network `net` is an `nn.Module`: a tree of layers, which are Modules too. Its numbers are Tensors.
#
# | expression | what it is |
# |---|---|
# | `net(Tensor(x))` | the logits (N, classes), a Tensor, for an array `x` (N, channels, H, W) |
# | `ops.cross_entropy(logits, labels)` | the mean loss of the batch, a Tensor; `labels` is an integer array (N,) |
# | `loss.item()` | the number in it, a float; `loss.backward()` adds dL/dt to `t.grad` of every parameter `t` |
# | `t.data`, `t.grad` | arrays of one shape; `t.grad` is `None` before the first backward |
# | `net.parameters()` | list of the Tensors that are trained |
# | `net.state()` | dict {name: Tensor} of all parameters **and** the running statistics of BatchNorm |
# | `net.modules()` | pairs (name, module) of the network itself (its name is `""`) and of everything inside it |
# | `net.train()`, `net.eval()` | put the network and everything inside it into that mode |
# | `m.training` | `True` if the module `m` is in train mode; it can be set for each module by itself |
# | `with no_grad():` | records no graph inside, which saves memory where no backward follows |
#
# BatchNorm (BN) depends on the mode. In train mode it normalises by the statistics of the batch, and moves its
# running statistics towards them. In eval mode it normalises by the running statistics, and changes nothing.
#
# Arrays keep their dtype: a network in float64 takes images in float64, so do not convert inside your functions.

# %% [markdown]
# ## 6.1 The images
#
# An image is stored as bytes, 0 to 255, with shape (H, W). A set of N images has shape (N, H, W) and dtype uint8. The
# networks take float32 of shape (N, 1, H, W); the 1 counts the channels, and grey images have one. Write
# `prepare(train_images, test_images)`, which returns both sets in that form:
#
# 1. divide by 255, so that values are between 0 and 1;
# 2. subtract the **mean image** of the training set: for every pixel, the mean of this pixel over all training
#    images.
#
# Subtract the same image from the test set. A test image must be treated as if it came alone, years later: it may not
# have a share in any number that the experiment uses, not even in a mean. And a network that saw its training images
# relative to one grey level must see test images relative to the same one.
#
# Two details. uint8 arithmetic wraps around (3 - 5 gives 254), so convert first. And a mean over many float32 numbers
# loses digits, so sum in float64, `mean(axis=0, dtype=np.float64)`, and convert the result to float32.
#
# *Example.* Two training images of a single pixel, 0 and 255, become 0 and 1; their mean is 0.5, so `x` holds -0.5
# and 0.5. The test image 51 becomes 0.2 - 0.5 = -0.3, whatever the other test images are.

# %% task="a6.1" kind="answer"
def prepare(train_images, test_images):
    """Return (x, x_test), float32 (N, 1, H, W) and (M, 1, H, W), from uint8 (N, H, W)
    and (M, H, W)."""
    ### BEGIN SOLUTION
    x = train_images[:, None].astype(np.float32) / 255
    x_test = test_images[:, None].astype(np.float32) / 255
    mean = x.mean(axis=0, dtype=np.float64).astype(np.float32)
    return x - mean, x_test - mean
    ### END SOLUTION


# %% task="a6.1" kind="check" points=10
check("a6.1", prepare);

# %% [markdown]
# ## 6.2 Two networks that differ in one thing
#
# `models.cifar(depth, residual=True, in_channels=1, width=8, rng=generator)` builds the network of section 4.2 of the
# paper with `depth` = 6n + 2 layers: a 3x3 convolution, then three stages of n blocks with `width`, 2 `width` and 4
# `width` channels, then average pooling and a linear layer with 10 outputs. Every block has two 3x3 convolutions with
# BN. With `residual=False` the same layers have no shortcuts.
#
# Where a shortcut has to change the shape of its input there are two kinds, chosen by the argument `shortcut`. Option
# `"A"`, the default, takes every second pixel and fills up with channels of zeros. Option `"B"` uses a 1x1
# convolution with BN, a *projection*, which has weights of its own.
#
# Write `pair(depth, width, seed)`, which returns `(plain, residual)`, both for images of one channel, such that
#
# - both have **the same number of parameters**, so that the residual network cannot owe its success to more of them;
# - both have **the same start**: each draws its weights from a new generator `np.random.default_rng(seed)`. A
#   generator moves on with every number it gives, so one generator for both would give the second network other
#   weights;
# - they **share no array**: training one must not change the other.
#
# *Example.* `pair(8, 3, 0)` gives two networks with 2,839 parameters each, and each network's first weight
# `net.conv1.weight.data[0, 0, 0, 0]` is 0.5269 (rounded).

# %% task="a6.2" kind="answer"
def pair(depth, width, seed):
    """Return (plain, residual), two networks of this depth and width for images with
    one channel."""
    ### BEGIN SOLUTION
    plain = models.cifar(depth, residual=False, in_channels=1, width=width,
                         rng=np.random.default_rng(seed))
    residual = models.cifar(depth, residual=True, in_channels=1, width=width,
                            rng=np.random.default_rng(seed))
    return plain, residual
    ### END SOLUTION


# %% task="a6.2" kind="check" points=15
check("a6.2", pair);

# %% [markdown]
# ## 6.3 One step
#
# Both networks are trained by stochastic gradient descent with momentum $m$ and weight decay $\lambda$. A weight $w$
# has a gradient $g$ and a velocity $v$, which starts at 0. A step with learning rate $\eta$ is
#
# $$v \leftarrow m\,v + (g + \lambda w), \qquad w \leftarrow w - \eta\,v .$$
#
# The $w$ inside the parentheses is the weight before the step: $\lambda w$ is the gradient of
# $\tfrac{\lambda}{2}\lVert w\rVert^2$, so weight decay is simply a part of the gradient. There are other conventions
# in the world (a factor $1-m$ in front of the gradient, a decay that does not pass through $v$, an $\eta$ inside
# $v$). They are all called SGD with momentum, and a learning rate that is good for one is wrong for another. Keep to
# this one.
#
# Write `sgd(w, g, v, lr, momentum, weight_decay)`, which returns the new `(w, v)` as new arrays. The given arrays may
# not change.
#
# *Example.* $w = 1$, $g = 0.5$, $v = 2$, $\eta = 0.1$, $m = 0.9$, $\lambda = 0.2$: the new $v$ is $1.8 + 0.5 + 0.2 =
# 2.5$, and the new $w$ is $1 - 0.25 = 0.75$.

# %% task="a6.3" kind="answer"
def sgd(w, g, v, lr, momentum, weight_decay):
    """Return (w, v) after one step: new arrays with the shape and dtype of w. g is
    dL/dw, v the velocity before."""
    ### BEGIN SOLUTION
    decayed = g + weight_decay * w
    v = momentum * v + decayed
    w = w - lr * v
    return w, v
    ### END SOLUTION


# %% task="a6.3" kind="check" points=8
check("a6.3", sgd);

# %% [markdown]
# ## 6.4 The learning rate, step by step
#
# Steps are counted from 0. The learning rate is `base`, with two exceptions.
#
# - **Warm-up.** The first `warm_up` steps, numbers 0 to `warm_up - 1`, use a tenth of `base`. (The paper starts its
#   network of 110 layers with 0.01 instead of 0.1 for about 400 steps.)
# - **Drops.** `drops` lists numbers of steps. From each of these steps, that step included, the rate is a tenth of
#   what it was.
#
# No drop falls into the warm-up. *Example.* With `base` 0.5, `warm_up` 2 and `drops` [4, 5], steps 0 to 6 have the
# rates 0.05, 0.05, 0.5, 0.5, 0.05, 0.005, 0.005.

# %% task="a6.4" kind="answer"
def learning_rate(step, base, warm_up, drops):
    """Return the learning rate of step number `step`, counted from 0. drops: a list or
    tuple of steps, or empty."""
    ### BEGIN SOLUTION
    if step < warm_up:
        return 0.1 * base
    passed = sum(step >= drop for drop in drops)
    return base * 0.1 ** passed
    ### END SOLUTION


# %% task="a6.4" kind="check" points=7
check("a6.4", learning_rate);

# %% [markdown]
# ## 6.5 One pass over the training images
#
# Write `train_epoch(net, x, labels, optimizer, batch_size, rng)`. It shows the network every image once and returns
# the mean loss **per image**, a float.
#
# 1. The network may be in eval mode when your function is called. Train it in train mode.
# 2. Draw the order of the images once: `rng.permutation(len(x))`. (Both networks of a pair see the same order if both
#    get a generator of the same seed. `check` relies on it, so draw nothing else.)
# 3. Batch by batch, the next `batch_size` images of this order: forget the old gradients, compute the loss, run
#    backward, and take a step. If `batch_size` does not divide the number of images, the last batch is shorter. It is
#    used as well.
# 4. `ops.cross_entropy` returns the mean over its batch. The mean per image weights each batch by the number of its
#    images: 4 images with mean loss 1 and 2 images with mean loss 4 have the mean 2 per image, not 2.5. Use the
#    losses that backward starts from, before each step.
#
# The optimizer has two methods. `optimizer.zero_grad()` sets every `t.grad` to `None`; without it backward would
# *add* to the gradients of the step before. `optimizer.step()` updates the weights from the gradients.
#
# Add up numbers, not Tensors. A Tensor knows what it was computed from, its *graph*, so a sum of Tensors keeps a
# piece of every step in memory. `check` counts them.

# %% task="a6.5" kind="answer"
def train_epoch(net, x, labels, optimizer, batch_size, rng):
    """Train `net` on every image once, in random order, and return the mean loss per
    image as a float.

    x: (N, 1, H, W). labels: integers (N,)
    """
    ### BEGIN SOLUTION
    net.train()
    order = rng.permutation(len(x))
    total = 0.0
    for start in range(0, len(x), batch_size):
        rows = order[start:start + batch_size]
        optimizer.zero_grad()
        loss = ops.cross_entropy(net(Tensor(x[rows])), labels[rows])
        loss.backward()
        optimizer.step()
        total += loss.item() * len(rows)
    return total / len(x)
    ### END SOLUTION


# %% task="a6.5" kind="check" points=20
check("a6.5", train_epoch);

# %% [markdown]
# ## 6.6 The error, in percent
#
# The answer of a network to an image is the class with the largest logit, `logits.argmax(1)`. Its error on a set is
# the percentage of images whose answer is not their label: 3 wrong of 12 is 25.0.
#
# Write `error(net, x, labels, batch_size)`. Run the network **in eval mode**: in train mode an image's answer would
# depend on the other images of its batch, and the test images would move the running statistics. Go through the
# images in their order, `batch_size` at a time; the last batch may be shorter. No backward follows, so record no
# graph.
#
# A measurement may not change what it measures. Afterwards every module must be in the mode in which it was before.
# Remember that modes belong to single modules: somebody may have put one layer into eval mode and left the others in
# train mode.
#
# Then write `errors(net, train, test, batch_size)` with your `error`. `train` and `test` are pairs `(x, labels)`, and
# the result is `{"train_error": ..., "test_error": ...}`. Degradation is a statement about the first of these two
# numbers.

# %% task="a6.6" kind="answer"
def error(net, x, labels, batch_size):
    """Return the percentage of the images x (N, 1, H, W) that `net` classifies wrongly
    in eval mode, a float.

    labels: integers (N,). Afterwards every module of `net` has its former mode.
    """
    ### BEGIN SOLUTION
    modes = [(module, module.training) for _, module in net.modules()]
    net.eval()
    wrong = 0
    with no_grad():
        for start in range(0, len(x), batch_size):
            rows = slice(start, start + batch_size)
            predicted = net(Tensor(x[rows])).data.argmax(1)
            wrong += int((predicted != labels[rows]).sum())
    for module, training in modes:
        module.training = training
    return 100 * wrong / len(x)
    ### END SOLUTION


def errors(net, train, test, batch_size):
    """Return {"train_error": percent, "test_error": percent}. train, test: pairs (x,
    labels)."""
    ### BEGIN SOLUTION
    return {"train_error": error(net, *train, batch_size),
            "test_error": error(net, *test, batch_size)}
    ### END SOLUTION


# %% task="a6.6" kind="check" points=10
check("a6.6", error, errors);

# %% [markdown]
# ## 6.7 Do gradients vanish? Measure without a trace
#
# The usual suspect for a deep network that trains badly is a gradient that vanishes on its way to the first layers.
# So look at it. For every convolution with weight $W$ measure
#
# $$\frac{\lVert \partial L/\partial W \rVert}{\lVert W \rVert},$$
#
# where both norms are Euclidean, over all elements of the array: the root of the sum of squares, `np.linalg.norm`.
# The quotient says how fast, relative to its size, a unit learning rate would move this weight.
#
# Write `gradient_norms(net, x, labels)` for one batch **in train mode**, as in training. It returns `{name:
# quotient}`, a float for every `nn.Conv2d` in `net.modules()`, by its name there (`isinstance(module, nn.Conv2d)`;
# its weight is `module.weight`, a Tensor).
#
# Leave no trace, because the function will be called in the middle of a training:
#
# - no gradient from before may be part of what you measure, and afterwards every `t.grad` must be what it was, an array
#   or `None`;
# - a pass in train mode moves the running statistics. Afterwards they must be what they were. BN does not change
#   their arrays: it assigns a new array to `t.data`. So it is enough to keep the old `t.data` of every Tensor in
#   `net.state()` and to assign it again;
# - every module must have its former mode.
#
# In short: keep `t.data` and `t.grad` of every Tensor in `net.state()`, and `.training` of every module; then set
# every `t.grad` of `net.parameters()` to `None` before you begin.

# %% task="a6.7" kind="answer"
def gradient_norms(net, x, labels):
    """Return {name of a convolution: norm of dL/dW divided by the norm of W} for one
    batch in train mode.

    x: (N, 1, H, W). labels: integers (N,). Weights, gradients, running statistics and
    modes of `net` do not change.
    """
    ### BEGIN SOLUTION
    layers = {name: m for name, m in net.modules() if isinstance(m, nn.Conv2d)}
    modes = [(m, m.training) for _, m in net.modules()]
    kept = [(t, t.data, t.grad) for t in net.state().values()]
    net.train()
    for t in net.parameters():
        t.grad = None
    loss = ops.cross_entropy(net(Tensor(x)), labels)
    loss.backward()
    norms = {name: np.linalg.norm(m.weight.grad) / np.linalg.norm(m.weight.data)
             for name, m in layers.items()}
    for t, data, grad in kept:
        t.data, t.grad = data, grad
    for m, training in modes:
        m.training = training
    return norms
    ### END SOLUTION


# %% task="a6.7" kind="check" points=15
check("a6.7", gradient_norms);

# %% [markdown] task="a6.8" kind="free" points=15
# ## 6.8 Predict, then explain
#
# **Before** you run the figure below, write down
#
# 1. the order of the four networks plain-20, plain-56, ResNet-20 and ResNet-56 by *training* error after three
#    epochs, with a guess in percent for each;
# 2. for plain-56: where is the gradient larger relative to the weight, in the first convolutions or in the last, or
#    is it the same everywhere?
#
# Then run the figure, and answer in about ten sentences: Where were you wrong? Is what you see overfitting? Is it
# vanishing gradients? Which numbers of your figure decide that? A plain network of 56 layers that is at least as good
# as the one of 20 layers exists: how would you build it, and what does that say about the cause? Name one thing that
# your experiment leaves open, and what you would run to settle it.
#
# *Your answer here.*
#
# ### BEGIN SOLUTION
# **Model answer.** After three epochs the training errors are about 12 % for ResNet-20, 14 % for ResNet-56, 20 % for
# plain-20 and 45 % for plain-56 (the last digits depend on the machine; plain-56 may differ by many points). It is
# not overfitting: an overfitted network has a small training error and a larger test error. Plain-56 has by far the
# largest *training* error, and its test error is about the same. It is not vanishing gradients: relative to the
# weight the gradient of plain-56 *grows* towards the first convolutions, by three orders of magnitude, because BN
# keeps the signal at a fixed scale and the gradient grows by a factor of up to about 1.2 in each plain layer. With
# shortcuts it grows far less. An equally good plain-56 exists: take the trained plain-20 and add 36 layers that
# compute the identity. That is possible, because the input of a block is the output of a ReLU and so not negative: a
# 3x3 kernel with a single 1 in its centre, and a BN that undoes itself. The family of functions is therefore not the
# problem; the optimiser does not find the good ones. With a shortcut, such a block needs only F = 0. Open: one seed,
# three epochs, one learning rate. Perhaps plain-56 is only slower. More epochs with drops in the learning rate, a
# smaller rate for plain-56, and several seeds would settle it (notebook 5 shows 30 epochs).
#
# **Rubric.** 2 points: a prediction with numbers, made before the figure and left as it was, right or wrong. 3: the
# order that the figure shows, with its numbers. 3: not overfitting, because the training error itself is high. 3: not
# vanishing gradients, with the direction in which the norms change. 2: the construction with identity layers, and
# that it blames the optimisation. 2: an open question that this experiment cannot answer, with a run that can.
# ### END SOLUTION

# %% [markdown]
# ## The figure: your own degradation plot
#
# Everything below is driven by your functions: `prepare` makes the images, `pair` builds four networks, `sgd` moves
# every weight at a rate from `learning_rate`, `train_epoch` trains, `errors` and `gradient_norms` measure. The images
# are those of Fashion-MNIST that ship with minires, averaged to 14x14. It takes one to three minutes on two cores.
#
# Left and middle: the errors after every epoch, as in Fig. 6 of the paper; on the training images dashed, on the test
# images solid. Right: your gradient norms before the first step, from the first convolution to the last.

# %%
class Optimizer:
    """An optimizer takes the steps of `sgd` for all parameters of a network."""

    def __init__(self, net, lr, momentum, weight_decay):
        self.parameters, self.lr, self.momentum, self.weight_decay = (
            net.parameters(), lr, momentum, weight_decay)
        self.velocities = [np.zeros_like(t.data) for t in self.parameters]

    def zero_grad(self):
        """Forget the gradients."""
        for t in self.parameters:
            t.grad = None

    def step(self):
        """Move every parameter."""
        for i, t in enumerate(self.parameters):
            t.data, self.velocities[i] = sgd(t.data, t.grad, self.velocities[i],
                                             self.lr, self.momentum,
                                             self.weight_decay)


# %%
ALL = "a6.1", "a6.2", "a6.3", "a6.4", "a6.5", "a6.6", "a6.7"


def experiment(count, epochs, batch_size):
    """Train four networks on the first `count` images, and return two dictionaries with
    their names.

    The first has the errors before training and after each epoch, the second the
    gradient norms before training.
    """
    from minires import datasets, kernels

    learn, test = datasets.fashion_mnist_small()
    x, x_test = prepare(*(datasets.average_pool(s.images, 14).round().astype(np.uint8)
                          for s in (learn, test)))
    train, held_out = ((x[:count], learn.labels[:count]),
                       (x_test[:count], test.labels[:count]))
    steps = -(-count // batch_size)
    nets, curves, norms = {}, {}, {}
    for depth in 20, 56:
        nets[f"plain-{depth}"], nets[f"ResNet-{depth}"] = pair(depth, 8, seed=0)
    for name, net in nets.items():
        norms[name] = gradient_norms(net, x[:100], learn.labels[:100])
        optimizer, rng = Optimizer(net, 0.1, 0.9, 1e-4), np.random.default_rng(1)
        curves[name] = [errors(net, train, held_out, 500)]
        for epoch in range(epochs):
            optimizer.lr = learning_rate(epoch * steps, 0.1, 0, [(epochs - 1) * steps])
            with kernels.session():  # uses the cores for a loop of many steps
                loss = train_epoch(net, *train, optimizer, batch_size, rng)
            curves[name].append(errors(net, train, held_out, 500))
        end = curves[name][-1]
        print(f"{name:9}  mean loss of the last epoch {loss:.2f}, training error "
              f"{end['train_error']:.1f} %, test error {end['test_error']:.1f} %",
              flush=True)
    return curves, norms


def degradation(curves, norms, caption):
    """Draw the errors of plain and residual networks, and the gradient norms before
    training."""
    from minires.plot.style import dress, legend_below, log_scale, new_figure, series

    last = {name: f"{curve[-1]['train_error']:.0f}" for name, curve in curves.items()}
    title = (f"Training error, 20 and 56 layers: plain {last['plain-20']} and "
             f"{last['plain-56']} %, residual {last['ResNet-20']} and "
             f"{last['ResNet-56']} % (seed 0)")
    figure = new_figure(title, 4.4, caption)
    panels = figure.subplots(1, 3)
    top = max(max(e.values()) for curve in curves.values() for e in curve)
    epochs = range(len(curves["plain-20"]))
    for axes, kind, title in zip(panels, ("plain", "ResNet"),
                                 ("plain networks", "residual networks"), strict=False):
        for name, style in series([name for name in curves
                                   if name.startswith(kind)]).items():
            for key, look in (("train_error", {"linestyle": (0, (4, 1.6)),
                                               "label": "_"}),
                              ("test_error",
                               {"linestyle": "solid", "markerfacecolor": "white"})):
                axes.plot(epochs, [e[key] for e in curves[name]], **style | look)
        axes.set(ylim=(0, 1.08 * top), xticks=epochs)
        dress(axes, title, "epoch", "error (%)")
    for name, style in series(list(norms)).items():
        places = np.linspace(0, 1, len(norms[name]))
        panels[2].plot(places, list(norms[name].values()),
                       **style | {"label": "_", "markevery": len(places) // 8})
    panels[2].set_xticks([0, 1], ["first", "last"])
    log_scale(panels[2])
    dress(panels[2], "before the first step", "convolution", "|dL/dW| / |W|")
    legend_below(figure, list(panels))
    return figure


def run():
    """Run the experiment and return its figure."""
    import os

    count, epochs, batch_size = ((60, 1, 30) if os.environ.get("MINIRES_FAST") == "1"
                                 else (10_000, 3, 100))
    curves, norms = experiment(count, epochs, batch_size)
    return degradation(curves, norms,
                       f"Fashion-MNIST, {count:,} images at 14x14; width 8, option A, "
                       f"batches of {batch_size}, learning rate 0.1, in the last epoch "
                       "0.01; one seed (0). Dashed: training error; solid: test error. "
                       "Right: the first 100 images.")


run() if ready(*ALL) else None
