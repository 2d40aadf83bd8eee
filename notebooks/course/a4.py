# %% [markdown]
# # A4. Batch normalisation: a gradient through statistics
#
# *120 minutes, 100 points. Follows notebook 3.* You write batch normalisation on plain NumPy arrays: the forward pass,
# its backward pass twice (step by step, then in closed form), the running statistics and eval mode; and then the same
# layer on minires' engine, where the backward pass comes for free.
#
# Replace every `raise NotImplementedError`. Each task ends with a cell that calls `check`, which prints what is right
# and, if it can, why something is wrong. When you have saved the notebook, `minires course check a4` tries the saved
# file in a process of its own.
#
# **Conventions.** $x$ is an array of shape (N, C), a batch of vectors, or (N, C, H, W), a batch of images. Axis 1 is
# always the channel. Each channel is normalised separately, over all its values: $m = N$ of them for vectors, and
# $m = N\,H\,W$ for images. `gamma` and `beta` have shape (C,). `dy` is $\partial L/\partial y$ and has the shape of
# $y$; the other gradients are named in the same way, so `dx` is $\partial L/\partial x$. A *cache* is whatever your
# forward pass wants to hand to your backward pass: a tuple, say. All arrays that you are given are read-only, so work
# on copies; return new arrays, which do not share memory with an input. float32 inputs give float32 results.
#
# Your mark comes from further inputs too: one pixel per image, a constant channel, channels whose mean is far larger
# than their spread, float32, arrays that are not contiguous in memory, and a second forward pass before the backward
# pass of the first.

# %%
import numpy as np

from minires.course import check, ready

# %% [markdown]
# ## 4.1 The forward pass
#
# For the $m$ values $x_i$ of one channel,
#
# $$\mu=\frac1m\sum_i x_i,\qquad v=\frac1m\sum_i (x_i-\mu)^2,\qquad
# \hat x_i=\frac{x_i-\mu}{\sqrt{v+\epsilon}},\qquad y_i=\gamma\,\hat x_i+\beta .$$
#
# $\epsilon$ is added to the variance, inside the root. The variance is the biased one: it divides by $m$, as NumPy's
# `var` does. Compute it from the differences $x_i-\mu$. The formula $\overline{x^2}-\mu^2$ is the same on paper, but
# for a channel with mean $10^7$ and spread 1 it subtracts two numbers near $10^{14}$, and nothing of the variance is
# left.
#
# *Example.* The channel $(1, 3)$ with $\epsilon=0$ has $\mu=2$ and $v=1$, so $\hat x=(-1, 1)$; with $\gamma=3$ and
# $\beta=10$ the result is $y=(7, 13)$.
#
# *Hint.* To combine a vector of shape (C,) with an array of shape (N, C, H, W), reshape it to (1, C, 1, 1). The tuple
# of all axes but the channel's is (0,) for vectors and (0, 2, 3) for images.

# %% task="a4.1" kind="answer"
def batch_norm_forward(x, gamma, beta, eps):
    """Return (y, cache): y has the shape of x; the cache is what batch_norm_backward
    will need."""
    ### BEGIN SOLUTION
    axes = (0, *range(2, x.ndim))
    mu = x.mean(axes, keepdims=True)
    xc = x - mu
    var = (xc * xc).mean(axes, keepdims=True)
    inv = 1 / np.sqrt(var + eps)
    xhat = xc * inv
    y = per_channel(gamma, x) * xhat + per_channel(beta, x)
    return y, (x, xhat, inv, gamma)


def per_channel(v, x):
    """Return v (C,) in a shape that multiplies the channels of x."""
    return v.reshape(1, -1, *[1] * (x.ndim - 2))
    ### END SOLUTION

# %% task="a4.1" kind="check" points=10
check("a4.1", batch_norm_forward);

# %% [markdown]
# ## 4.2 The backward pass, step by step
#
# The channel's statistics depend on every one of its values, and so does every output. The safe way through is the
# chain rule on the forward pass, one line at a time, from the last line to the first. Write the forward pass as
#
# $$x_c=x-\mu,\qquad v=\tfrac1m\textstyle\sum x_c^2,\qquad s=(v+\epsilon)^{-1/2},\qquad \hat x=x_c\,s,\qquad
# y=\gamma\,\hat x+\beta .$$
#
# Now go back. $\hat x$ receives $\gamma$ times $dy$. $s$ is one number for the channel and multiplies every $x_c$, so
# its gradient is a sum. $x_c$ is used **twice**, in $v$ and in $\hat x$, and its two gradients add up. $\mu$ is
# subtracted from every $x$. And $x$, too, is used twice: directly, and in $\mu$.
#
# Return a dictionary with all of these, each computed from the ones before it:
#
# | name | gradient with respect to | shape |
# |---|---|---|
# | `dxhat` | $\hat x$ | like x |
# | `dinv` | $s$ | (C,) |
# | `dvar` | $v$ | (C,) |
# | `dxc` | $x_c$, both of its uses together | like x |
# | `dmu` | $\mu$ | (C,) |
# | `dx` | $x$, both of its uses together | like x |
# | `dgamma`, `dbeta` | $\gamma$, $\beta$ | (C,) |
#
# *Example.* One channel, $x=(1, 3)$, $\gamma=1$, $\epsilon=3$: $v=1$ and $s=\frac12$. For $dy=(1, 0)$:
# $d\hat x=(1, 0)$; `dinv` is $ds=\sum d\hat x\,x_c=-1$; $dv=-\frac12 s^3\,ds=\frac1{16}$; and so on.
#
# The check names the first gradient that is wrong. The ones before it are right, so that is the line to look at.

# %% task="a4.2" kind="answer"
def batch_norm_staged(dy, x, gamma, eps):
    """Return {"dxhat", "dinv", "dvar", "dxc", "dmu", "dx", "dgamma", "dbeta"} for the
    forward pass of 4.1."""
    ### BEGIN SOLUTION
    axes = (0, *range(2, x.ndim))
    m = x.size // x.shape[1]
    mu = x.mean(axes, keepdims=True)
    xc = x - mu
    var = (xc * xc).mean(axes, keepdims=True)
    inv = 1 / np.sqrt(var + eps)
    xhat = xc * inv
    dgamma = (dy * xhat).sum(axes)
    dbeta = dy.sum(axes)
    dxhat = dy * gamma.reshape(mu.shape)
    dinv = (dxhat * xc).sum(axes, keepdims=True)
    dvar = -0.5 * inv**3 * dinv
    dxc = dxhat * inv + 2 / m * xc * dvar
    dmu = -dxc.sum(axes, keepdims=True)
    dx = dxc + dmu / m
    return {"dxhat": dxhat, "dinv": dinv.ravel(), "dvar": dvar.ravel(), "dxc": dxc,
            "dmu": dmu.ravel(), "dx": dx,
            "dgamma": dgamma, "dbeta": dbeta}
    ### END SOLUTION

# %% task="a4.2" kind="check" points=20
check("a4.2", batch_norm_staged);

# %% [markdown]
# ## 4.3 The backward pass in closed form
#
# Put the lines of 4.2 into each other and simplify; $\sum_i x_{c,i}=0$ and $x_c\,s=\hat x$ make most of it disappear.
# What is left has three terms: with $g=\gamma\,dy$,
#
# $$dx_i=s\,\Bigl(g_i-\frac1m\sum_j g_j-\hat x_i\,\frac1m\sum_j g_j\,\hat x_j\Bigr).$$
#
# Derive it on paper before you type it. The first term is what you would get if the statistics were constants, the
# second comes from the mean and the third from the variance.
#
# The cache is the one that your `batch_norm_forward` returns: extend it in 4.1 if something is missing. The backward
# pass must not change it, because a second call with the same cache must give the same result. It must not call the
# forward pass either.

# %% task="a4.3" kind="answer"
def batch_norm_backward(dy, cache):
    """Return (dx, dgamma, dbeta) of batch_norm_forward: dx has the shape of x, the
    others are (C,)."""
    ### BEGIN SOLUTION
    x, xhat, inv, gamma = cache
    axes = (0, *range(2, dy.ndim))
    m = dy.size // dy.shape[1]
    dgamma = (dy * xhat).sum(axes)
    dbeta = dy.sum(axes)
    g = dy * gamma.reshape(inv.shape)
    mean_term = g.sum(axes, keepdims=True) / m
    var_term = xhat * (g * xhat).sum(axes, keepdims=True) / m
    dx = inv * (g - mean_term - var_term)
    return dx, dgamma, dbeta
    ### END SOLUTION

# %% task="a4.3" kind="check" points=20
check("a4.3", batch_norm_forward, batch_norm_backward);

# %% [markdown]
# ## 4.4 Running statistics
#
# When the network is used, the result for one image must not depend on the other images of a batch. So training also
# keeps *running* statistics, which every batch moves a little:
#
# $$\bar\mu\leftarrow(1-p)\,\bar\mu+p\,\mu,\qquad \bar v\leftarrow(1-p)\,\bar v+p\,\frac{n}{n-1}\,v .$$
#
# $p$ is the momentum, usually 0.1: here it weighs the *new* value. $v$ is the biased variance of the batch, taken over
# $n$ values (`count`). The factor $n/(n-1)$ makes the kept variance unbiased.
#
# With one value per channel there is no variance to speak of, and $n-1=0$. In that case raise `ValueError` with a
# sentence that says so.
#
# *Example.* $\bar v=1$, $v=4$, $p=0.1$, $n=5$: the new value is $0.9\cdot1+0.1\cdot\frac54\cdot4=1.4$.

# %% task="a4.4" kind="answer"
def running(mean, var, batch_mean, batch_var, momentum, count):
    """Return the new (mean, var), each (C,), and change no argument. Raise ValueError
    if count is less than 2.

    mean, var: the running statistics so far. batch_mean, batch_var: the batch's;
    batch_var is the biased variance.
    """
    ### BEGIN SOLUTION
    if count < 2:
        raise ValueError(f"expected at least 2 values per channel, got {count}")
    unbiased = batch_var * (count / (count - 1))
    new_mean = (1 - momentum) * mean + momentum * batch_mean
    new_var = (1 - momentum) * var + momentum * unbiased
    return new_mean, new_var
    ### END SOLUTION

# %% task="a4.4" kind="check" points=10
check("a4.4", running);

# %% [markdown]
# ## 4.5 Eval mode
#
# Eval mode normalises by the running statistics:
#
# $$y=\gamma\,\frac{x-\bar\mu}{\sqrt{\bar v+\epsilon}}+\beta .$$
#
# They are constants: they do not depend on this $x$. Work out what is then left of the backward pass of 4.3 for $dx$,
# and what $d\gamma$ and $d\beta$ are.

# %% task="a4.5" kind="answer"
def batch_norm_eval_forward(x, gamma, beta, mean, var, eps):
    """Return (y, cache); mean and var (C,) are the running statistics."""
    ### BEGIN SOLUTION
    shape = (1, -1, *[1] * (x.ndim - 2))
    inv = 1 / np.sqrt(var + eps)
    xhat = (x - mean.reshape(shape)) * inv.reshape(shape)
    y = gamma.reshape(shape) * xhat + beta.reshape(shape)
    return y, (x, xhat, inv.reshape(shape), gamma)
    ### END SOLUTION


def batch_norm_eval_backward(dy, cache):
    """Return (dx, dgamma, dbeta): dx has the shape of x, the others are (C,)."""
    ### BEGIN SOLUTION
    x, xhat, inv, gamma = cache
    axes = (0, *range(2, dy.ndim))
    dgamma = (dy * xhat).sum(axes)
    dbeta = dy.sum(axes)
    g = dy * gamma.reshape(inv.shape)
    dx = g * inv
    return dx, dgamma, dbeta
    ### END SOLUTION

# %% task="a4.5" kind="check" points=10
check("a4.5", batch_norm_eval_forward, batch_norm_eval_backward);

# %% [markdown]
# ## 4.6 A layer on the engine
#
# Now write the layer with minires' Tensors. Their operations record the graph, so there is no backward pass to write:
# if the mean and the variance are computed *from the Tensor x, by operations*, the gradient flows through them by
# itself.
#
# - `nn.Module` needs no `super().__init__()`. An attribute that is a Tensor is state and has its name in `state()`. It
#   is a parameter, which an optimiser trains, if and only if it requires a gradient: `Tensor(array, True)`. Plain
#   `Tensor(array)` does not.
# - The four names are those of `nn.BatchNorm2d`: `weight` ($\gamma$, starts at 1) and `bias` ($\beta$, starts at 0)
#   are parameters; `running_mean` (starts at 0) and `running_var` (starts at 1) are not. All are float32 of shape (C,);
#   `np.ones(channels)` alone is float64.
# - `self.training` is True in train mode. Train mode normalises by the batch and moves the running statistics as in
#   4.4; one value per channel raises ValueError. Eval mode normalises by the running statistics and changes nothing.
# - The running statistics are numbers, not part of the graph: read a Tensor's array with `.data`, and assign the
#   updated array to `self.running_mean.data`.
# - Float32 must stay float32. Python's numbers do not change an array's type, but NumPy's float64 numbers do.
# - Useful: `x.mean(axis, keepdims=True)`, `.reshape(...)`, `.sqrt()`, and `+ - * /` with Tensors and numbers.
#
# You may call your `running` of 4.4. `nn.BatchNorm2d` and `ops.batch_norm` are not available where this task is marked.

# %%
from minires import Tensor, nn

# %% task="a4.6" kind="answer"
class BatchNorm2d(nn.Module):
    """Normalise each channel of x (N, C, H, W)."""

    def __init__(self, channels, eps=1e-5, momentum=0.1):
        ### BEGIN SOLUTION
        self.weight = Tensor(np.ones(channels, np.float32), True)
        self.bias = Tensor(np.zeros(channels, np.float32), True)
        self.running_mean = Tensor(np.zeros(channels, np.float32))
        self.running_var = Tensor(np.ones(channels, np.float32))
        self.eps = eps
        self.momentum = momentum
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        shape = (1, -1, 1, 1)
        if self.training:
            mean = x.mean((0, 2, 3), keepdims=True)
            var = ((x - mean) * (x - mean)).mean((0, 2, 3), keepdims=True)
            self.update(mean.data.reshape(-1), var.data.reshape(-1),
                        x.size // x.shape[1])
        else:
            mean = self.running_mean.reshape(*shape)
            var = self.running_var.reshape(*shape)
        xhat = (x - mean) / (var + self.eps).sqrt()
        return xhat * self.weight.reshape(*shape) + self.bias.reshape(*shape)

    def update(self, mean, var, count):
        """Move the running statistics towards the batch's."""
        if count < 2:
            raise ValueError(f"expected at least 2 values per channel, got {count}")
        unbiased = var * (count / (count - 1))
        self.running_mean.data = ((1 - self.momentum) * self.running_mean.data
                                  + self.momentum * mean)
        self.running_var.data = ((1 - self.momentum) * self.running_var.data
                                 + self.momentum * unbiased)
        ### END SOLUTION

# %% task="a4.6" kind="check" points=15
check("a4.6", BatchNorm2d);

# %% [markdown]
# ## What batch normalisation takes out of a gradient
#
# Each group of bars is one of the twelve values of a channel: 3 images of 2 by 2 pixels. The white bar is the gradient
# that arrives, times $\gamma\,s$. The next two are what your closed form subtracts from it. The dark bar is $dx$, the
# sum. The panel on the right shows how long the projections of $\gamma\,s\,dy$ (white) and of $dx$ (dark) onto the
# vector of ones and onto $\hat x$ are.

# %%
figure = None
if ready("a4.1", "a4.3"):
    from minires.plot.style import dress, legend_below, new_figure

    rng = np.random.default_rng(4)
    x = rng.standard_normal((3, 1, 2, 2))
    # a gradient with a part along 1 and a part along x
    dy = 0.8 * rng.standard_normal(x.shape) + 0.5 + 0.6 * x
    one = np.ones(1)
    y, cache = batch_norm_forward(x, one, 0 * one, 1e-5)
    dx = batch_norm_backward(dy, cache)[0].ravel()

    xhat, g = y.ravel(), dy.ravel() / x.std()
    from_mean = -np.full(12, g.mean())
    from_variance = -xhat * (g * xhat).mean()
    assert np.allclose(g + from_mean + from_variance, dx, atol=1e-4)

    figure = new_figure("Batch normalisation removes two directions from a gradient",
                        4.4,
                        "One channel, 3 images of 2 x 2 pixels, random x and dy (seed "
                        "4), gamma 1.")
    bars, lengths = figure.subplots(1, 2, width_ratios=(3, 1))
    parts = [("γ s dy: the statistics taken as constants", g, "#ffffff", ""),
             ("through the mean", from_mean, "#c6dbef", ""),
             ("through the variance", from_variance, "#fdd0a2", "//"),
             ("dx, the sum", dx, "#08519c", "")]
    for k, (label, values, colour, hatch) in enumerate(parts):
        bars.bar(np.arange(1, 13) + 0.2 * (k - 1.5), values, 0.2, label=label,
                 color=colour, hatch=hatch,
                 edgecolor="#1a1a1a", linewidth=0.6)
    bars.set_xticks(range(1, 13))
    dress(bars, "", "value of the channel", "gradient")
    unit = {"1": np.ones(12) / 12**0.5, "$\\hat x$": xhat / np.linalg.norm(xhat)}
    for k, (values, colour) in enumerate(((g, "#ffffff"), (dx, "#08519c"))):
        lengths.bar(np.arange(2) + 0.4 * (k - 0.5),
                    [abs(values @ u) for u in unit.values()], 0.4, color=colour,
                    edgecolor="#1a1a1a", linewidth=0.6)
        for i, u in enumerate(unit.values()):
            lengths.text(i + 0.4 * (k - 0.5), abs(values @ u), f"{abs(values @ u):.1f}",
                         ha="center", va="bottom")
    lengths.set_xticks(range(2), list(unit))
    dress(lengths, "", "direction", "length of the projection")
    legend_below(figure, [bars])
    print(f"sum of dx: {dx.sum():.1e}; dx times xhat: {dx @ xhat:.1e}; dy times xhat: "
          f"{dy.ravel() @ xhat:.2f}")
figure

# %% [markdown] task="a4.7" kind="free" points=15
# ## 4.7 Predict, then explain
#
# A batch holds **two** vectors, so each channel has the two values $a$ and $b$, with $a\ne b$. Take $\epsilon=0$.
#
# 1. *Predict* $\hat x$, and then $dx$, for any $dy$ whatever. Write the prediction down before you run anything.
# 2. Run your `batch_norm_backward` on such a batch with `eps=1e-12`, and report what you see.
# 3. *Explain* it with the figure above: how many directions are there, and how many does batch normalisation remove?
# 4. Which parameters of a network whose every layer is followed by batch normalisation still learn from such batches?
#    And what does the same argument say about a channel of a *large* batch that is constant?
#
# *Your answer here.*
#
# ### BEGIN SOLUTION
# **Model answer.** With $\mu=(a+b)/2$ and $\sqrt v=|a-b|/2$, $\hat x=(\pm1, \mp1)$ whatever $a$ and $b$ are: the output
# does not depend on the size of $a$ and $b$, so $dx=0$. The run shows numbers that are zero up to rounding (and to
# $\epsilon$). There are $m=2$ directions; $dx$ is orthogonal to $(1, 1)$ and to $\hat x$, which span the plane, so
# nothing is left: the rank of the Jacobian is $m-2$. No gradient passes a batch normalisation, so no weight in front
# of one learns. Only the last layer's $\gamma$ and $\beta$, and what follows them, learn. A constant channel has
# $\hat x=0$: only the mean is removed, and $s=\epsilon^{-1/2}$ is large, so
# $dx=\gamma\,\epsilon^{-1/2}(dy-\overline{dy})$. The gradient does not vanish: for $\epsilon=10^{-5}$ it is
# multiplied by more than 300.
#
# **Points.** Prediction of $\hat x=\pm1$ and $dx=0$ with a reason: 4. The run and what it shows: 2. Two directions,
# both removed, rank $m-2$: 4. Which parameters learn: 3. The constant channel: 2.
# ### END SOLUTION
