# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # A2. Broadcasting and shapes
#
# *120 minutes, 100 points. Follows notebook 1, sections 5 and 6.*
#
# In A1 a Value held one number. In minires a `Tensor` holds an array, and each step of a computation is a `Function`.
# You write the Functions that every network needs: arithmetic with broadcasting, matrix products, reductions, shapes,
# and the loss of a classifier. At the end they train one, in the real engine.
#
# | task | | points | minutes |
# |---|---|---:|---:|
# | 2.1 | the transpose of broadcasting | 15 | 15 |
# | 2.2 | arithmetic | 20 | 20 |
# | 2.3 | matrix products | 15 | 15 |
# | 2.4 | sum, mean and maximum over axes | 15 | 25 |
# | 2.5 | reshape, transpose, index | 10 | 10 |
# | 2.6 | cross-entropy | 10 | 15 |
# | 2.7 | predict, then explain | 15 | 20 |
#
# **How to work.** Replace each `raise NotImplementedError` by your answer, run the cell, and run the check below it.
# Save this file and run `minires course check a2` in a terminal to see your points. For the mark, your answers are also
# run on inputs that the checks do not show. Use NumPy only, not `minires.ops`.

# %%
import numpy as np

from minires import Function, Tensor, gradcheck
from minires.course import check, ready
from minires.plot.style import GREY, INK, LABEL, TICK, new_figure

# %% [markdown]
# ## A Function
#
# A Function has two methods, on plain arrays:
#
# - `forward(self, x, ...)` computes the result $y$ and saves on `self` what backward needs;
# - `backward(self, g)` gets $g = \partial L/\partial y$, an array with the shape of $y$, and returns one array **for
#   each array that forward got**, $\partial L/\partial x$ with the shape and dtype of $x$. With two inputs it returns
#   two arrays, `return da, db`.
#
# `Square.apply(t)` runs forward on a Tensor's array and records the step; `Tensor.backward` later calls backward.

# %%
class Square(Function):
    """x^2, element by element."""

    def forward(self, x):
        self.x = x
        return x * x

    def backward(self, g):
        return 2 * self.x * g


t = Tensor([1.0, 2.0, 3.0], requires_grad=True)
Square.apply(t).backward(np.float32([1, 1, 10]))
print(t.grad)
print(gradcheck(Square.apply, np.random.default_rng(0).standard_normal((2, 3))))

# %% [markdown]
# `gradcheck` compares your backward with finite differences of your forward. Use it whenever you are stuck: it names
# the input and the entry that are wrong. It cannot see a wrong forward.
#
# Four rules hold in all tasks. The hidden part of the mark tests them:
#
# 1. **Write into nothing that you were given**, and into nothing that you saved: backward may be called twice.
# 2. **float32 in, float32 out.** An array that you make yourself is float64 unless you say otherwise:
#    `np.zeros(shape)`, `np.eye(n)`, `mask * 1.0`. Give it a dtype, `np.zeros(shape, g.dtype)`, or multiply by the
#    mask itself. NumPy's integers make float64 of float32, too: `mask.astype(int)`, or a count from `np.prod`. Take
#    `int(np.prod(...))`: Python's own numbers change no dtype.
# 3. Save on `self`, not in a global variable: forward may run again, in another instance, before backward of the first.
# 4. Arrays need not be contiguous in memory.
#
# ## 2.1 The transpose of broadcasting (15 points)
#
# NumPy broadcasts an array of shape `shape` to a larger shape in two ways. It aligns the two shapes at their
# **right** ends, repeats the array along each leading axis that it does not have, and repeats it along each axis
# where it has length 1.
#
# Repeating is linear, and the backward pass of a linear map is its transpose. An element that was used several times
# gets the sum of the gradients of all its copies. So `unbroadcast(g, shape)` sums `g` over the axes that were
# repeated, and returns an array of shape `shape`. For
#
# $$g = \begin{pmatrix} 1 & 2 & 3 \\ 4 & 5 & 6 \end{pmatrix}$$
#
# | `shape` | result |
# |---|---|
# | `(3,)` | `[5, 7, 9]` |
# | `(1, 3)` | `[[5, 7, 9]]` |
# | `(2, 1)` | `[[6], [15]]` |
# | `()` | `21`, a 0-d array |
# | `(2, 3)` | `g` |
#
# `shape` can always be broadcast to `g.shape`; you need not test that. `g.sum(axes, keepdims=True)` takes a tuple of
# axes, and with `()` it sums over none. The check tries 12 pairs of shapes with up to three axes, the mark 30 more with
# up to four.

# %% task="a2.1" kind="answer"
def unbroadcast(g, shape):
    """Return g summed over the axes along which broadcasting repeated an array of shape
    `shape`.

    g: an array. shape: a tuple that can be broadcast to g.shape. Returns an array of
    shape `shape`.
    """
    ### BEGIN SOLUTION
    lead = g.ndim - len(shape)
    summed = g.sum(tuple(range(lead)))
    repeated = tuple(i for i, n in enumerate(shape) if n == 1)
    return summed.sum(repeated, keepdims=True)
    ### END SOLUTION

# %% task="a2.1" kind="check" points=15
check("a2.1", unbroadcast);

# %% [markdown]
# ## 2.2 Arithmetic (20 points)
#
# Write five Functions of two arrays whose shapes broadcast: $a + b$, $a - b$, $a b$, $a / b$ and $\max(a, b)$,
# element by element. The gradient of one element is the product of $g$ and the partial derivative, as in A1. This
# product has the shape of the *result*; `unbroadcast` brings it to the shape of the input.
#
# For the maximum, the gradient goes to the larger of the two. In a **tie**, $a = b$, all of it goes to $a$.
#
# An example to try: $a = (3, 1)$, $b = 2$ and $g = (1, 10)$. `Div` gives $y = (1.5, 0.5)$,
# $\partial L/\partial a = (0.5, 5)$ and $\partial L/\partial b = -(1 \cdot 3 + 10 \cdot 1)/4 = -3.25$. `Maximum` gives
# $y = (3, 2)$, $(1, 0)$ and $10$.
#
# Test with `gradcheck(Div.apply, a, b)`, with float64 arrays of different shapes. It cannot judge a tie.

# %% task="a2.2" kind="answer"
class Add(Function):
    """a + b"""

    def forward(self, a, b):
        ### BEGIN SOLUTION
        self.shapes = a.shape, b.shape
        return a + b
        ### END SOLUTION

    def backward(self, g):
        ### BEGIN SOLUTION
        return unbroadcast(g, self.shapes[0]), unbroadcast(g, self.shapes[1])
        ### END SOLUTION


class Sub(Function):
    """a - b"""

    def forward(self, a, b):
        ### BEGIN SOLUTION
        self.shapes = a.shape, b.shape
        return a - b
        ### END SOLUTION

    def backward(self, g):
        ### BEGIN SOLUTION
        return unbroadcast(g, self.shapes[0]), unbroadcast(-g, self.shapes[1])
        ### END SOLUTION


class Mul(Function):
    """a * b"""

    def forward(self, a, b):
        ### BEGIN SOLUTION
        self.a, self.b = a, b
        return a * b
        ### END SOLUTION

    def backward(self, g):
        ### BEGIN SOLUTION
        da = g * self.b
        db = g * self.a
        return unbroadcast(da, self.a.shape), unbroadcast(db, self.b.shape)
        ### END SOLUTION


class Div(Function):
    """a / b"""

    def forward(self, a, b):
        ### BEGIN SOLUTION
        self.a, self.b = a, b
        return a / b
        ### END SOLUTION

    def backward(self, g):
        ### BEGIN SOLUTION
        da = g / self.b
        db = -g * self.a / (self.b * self.b)
        return unbroadcast(da, self.a.shape), unbroadcast(db, self.b.shape)
        ### END SOLUTION


class Maximum(Function):
    """max(a, b). In a tie the gradient goes to a."""

    def forward(self, a, b):
        ### BEGIN SOLUTION
        self.shapes = a.shape, b.shape
        self.a_wins = a >= b
        return np.maximum(a, b)
        ### END SOLUTION

    def backward(self, g):
        ### BEGIN SOLUTION
        da = g * self.a_wins
        db = g * ~self.a_wins
        return unbroadcast(da, self.shapes[0]), unbroadcast(db, self.shapes[1])
        ### END SOLUTION

# %% task="a2.2" kind="check" points=20
check("a2.2", Add, Sub, Mul, Div, Maximum);

# %% [markdown]
# ## 2.3 Matrix products (15 points)
#
# Let $y = a\,b$ with matrices $a$ $(n, k)$ and $b$ $(k, m)$: $y_{ij} = \sum_l a_{il}\, b_{lj}$. The element $a_{il}$
# occurs in row $i$ of $y$, in every column $j$, with the factor $b_{lj}$. So
#
# $$\frac{\partial L}{\partial a_{il}} = \sum_j g_{ij}\, b_{lj} .$$
#
# Read this as a product of two matrices, and derive $\partial L/\partial b_{lj}$ in the same way. The shapes are a good
# test, as long as $n$, $k$ and $m$ differ.
#
# `a @ b` also multiplies **stacks** of matrices, $(\ldots, n, k)$ and $(\ldots, k, m)$: the last two axes are the
# matrices, and the axes before them broadcast. For example (5, 1, 3, 4) @ (2, 4, 6) has the shape (5, 2, 3, 6). In
# backward, transpose only the last two axes, with `np.swapaxes`, and sum over the leading axes that were repeated.
# Both arrays have at least two axes.
#
# The check tries matrices, a stack, and a stack times one matrix; the mark, more stacks that broadcast. Try
# `gradcheck(MatMul.apply, a, b)` for the shapes above.

# %% task="a2.3" kind="answer"
class MatMul(Function):
    """a @ b of shapes (..., n, k) and (..., k, m). Leading axes broadcast."""

    def forward(self, a, b):
        ### BEGIN SOLUTION
        self.a, self.b = a, b
        return a @ b
        ### END SOLUTION

    def backward(self, g):
        ### BEGIN SOLUTION
        da = g @ np.swapaxes(self.b, -1, -2)
        db = np.swapaxes(self.a, -1, -2) @ g
        return unbroadcast(da, self.a.shape), unbroadcast(db, self.b.shape)
        ### END SOLUTION

# %% task="a2.3" kind="check" points=15
check("a2.3", MatMul);

# %% [markdown]
# ## 2.4 Sum, mean and maximum over axes (15 points)
#
# `x.sum(axis, keepdims=keepdims)` sums over one axis (a number), over several (a tuple), or over all (`None`). Negative
# axes count from the end. With `keepdims=True` the result keeps the summed axes with length 1. `axes_of` below turns
# every such `axis` into a sorted tuple of numbers that are not negative.
#
# **Backward of the sum.** Every element of $x$ has the factor 1 in exactly one element of $y$, so it gets that
# element's gradient. In arrays: put the summed axes back into $g$, with length 1 and **each at its own place**, then
# repeat along them. For $x$ of shape (2, 3, 4) and `axis=(0, 2)`, $g$ has shape (3,) or (1, 3, 1); make it (1, 3, 1),
# then (2, 3, 4). `np.broadcast_to` repeats without copying. Write this first, as `put_back`: sum and mean both use it.
#
# **Backward of the mean.** The mean is the sum divided by $n$, the number of elements that are averaged into *one*
# element of $y$.
#
# **Backward of the maximum.** All of the gradient goes to the largest element; in a tie, to the **first** in the
# order of `argmax`: reading the reduced axes in C order. `to_rows` below turns $x$ into rows of elements that compete
# with each other, so that you can work along the last axis; `from_rows` is its inverse. In each row, $g$ has one
# number, whatever `keepdims` was: reshape it to fit. For example, `Max` of `[[1, 3, 3], [5, 5, 2]]` over axis 1 with
# $g = (1, 10)$ has the gradient `[[0, 1, 0], [10, 0, 0]]`, and over all axes with $g = 1$ it has
# `[[0, 0, 0], [1, 0, 0]]`.
#
# The engine calls `forward(x, axis=..., keepdims=...)`, so keep these names. Test with
# `gradcheck(lambda t: Sum.apply(t, axis=(0, 2), keepdims=False), x)`.

# %%
def axes_of(axis, ndim):
    """Return `axis` (None, a number or a tuple) as a sorted tuple of axes in 0 ... ndim
    - 1."""
    if axis is None:
        return tuple(range(ndim))
    axes = axis if isinstance(axis, tuple) else (axis,)
    return tuple(sorted(i % ndim for i in axes))


def to_rows(x, axes):
    """Return x as (kept axes..., n): the reduced axes, a sorted tuple, are moved to the
    end and joined into one."""
    kept = tuple(i for i in range(x.ndim) if i not in axes)
    return x.transpose(kept + axes).reshape([x.shape[i] for i in kept] + [-1])


def from_rows(rows, shape, axes):
    """Return the array x of shape `shape` for which to_rows(x, axes) is `rows`."""
    kept = tuple(i for i in range(len(shape)) if i not in axes)
    order = kept + axes
    return rows.reshape([shape[i] for i in order]).transpose(np.argsort(order))


x = np.arange(24).reshape(2, 3, 4)
rows = to_rows(x, (0, 2))
print(axes_of(-1, 3), axes_of((2, 0), 3), rows.shape,
      np.array_equal(from_rows(rows, x.shape, (0, 2)), x))

# %% task="a2.4" kind="answer"
def put_back(g, shape, axes):
    """Return g with the reduced axes put back and repeated: an array of shape
    `shape`."""
    ### BEGIN SOLUTION
    kept = [1 if i in axes else n for i, n in enumerate(shape)]
    return np.broadcast_to(g.reshape(kept), shape)
    ### END SOLUTION


class Sum(Function):
    """The sum of x over `axis`: a number, a tuple, or None for all axes."""

    def forward(self, x, axis, keepdims):
        ### BEGIN SOLUTION
        self.shape, self.axes = x.shape, axes_of(axis, x.ndim)
        return x.sum(self.axes, keepdims=keepdims)
        ### END SOLUTION

    def backward(self, g):
        ### BEGIN SOLUTION
        return put_back(g, self.shape, self.axes)
        ### END SOLUTION


class Mean(Function):
    """The mean of x over `axis`: a number, a tuple, or None for all axes."""

    def forward(self, x, axis, keepdims):
        ### BEGIN SOLUTION
        self.shape, self.axes = x.shape, axes_of(axis, x.ndim)
        y = x.mean(self.axes, keepdims=keepdims)
        self.count = x.size // y.size
        return y
        ### END SOLUTION

    def backward(self, g):
        ### BEGIN SOLUTION
        return put_back(g, self.shape, self.axes) / self.count
        ### END SOLUTION


class Max(Function):
    """The maximum of x over `axis`: a number, a tuple, or None.

    In a tie the gradient goes to the first.
    """

    def forward(self, x, axis, keepdims):
        ### BEGIN SOLUTION
        self.shape, self.axes = x.shape, axes_of(axis, x.ndim)
        rows = to_rows(x, self.axes)
        first = rows.argmax(-1)
        self.won = np.arange(rows.shape[-1]) == first[..., None]
        return x.max(self.axes, keepdims=keepdims)
        ### END SOLUTION

    def backward(self, g):
        ### BEGIN SOLUTION
        one_a_row = g.reshape((*self.won.shape[:-1], 1))
        return from_rows(one_a_row * self.won, self.shape, self.axes)
        ### END SOLUTION

# %% task="a2.4" kind="check" points=15
check("a2.4", Sum, Mean, Max);

# %% [markdown]
# ## 2.5 Reshape, transpose, index (10 points)
#
# These Functions only move numbers. Their backward passes move them back.
#
# - `Reshape(x, shape)`: $y$ has the same elements in C order, the last index running fastest, and so has backward. The
#   memory of `g` may be in another order; `reshape` without further arguments does not care.
# - `Transpose(x, axes)`: axis $i$ of $y$ is axis `axes[i]` of $x$, as in `x.transpose(axes)`. `axes` is a permutation
#   of $0 \ldots$ ndim $- 1$. Backward needs the permutation that undoes it. For `(1, 2, 0)`, which is not its own
#   inverse, that is `(2, 0, 1)`.
# - `GetItem(x, index)`: $y =$ `x[index]`, for every index that NumPy takes: numbers, slices, arrays of integers, a
#   boolean array, alone or in a tuple. An element that was not taken gets 0. An element that was taken several times,
#   as in `x[[0, 2, 0]]`, gets the sum. `dx[index] += g` does not do that: it adds to the *old* values, and where it
#   writes twice the last number stays. Use `np.add.at`. For $g = (1, 10, 100)$ and $x$ of length 4, the gradient is
#   $(101, 0, 10, 0)$.

# %% task="a2.5" kind="answer"
class Reshape(Function):
    """x in another shape."""

    def forward(self, x, shape):
        ### BEGIN SOLUTION
        self.shape = x.shape
        return x.reshape(shape)
        ### END SOLUTION

    def backward(self, g):
        ### BEGIN SOLUTION
        return g.reshape(self.shape)
        ### END SOLUTION


class Transpose(Function):
    """x with its axes in the order `axes`."""

    def forward(self, x, axes):
        ### BEGIN SOLUTION
        self.axes = axes
        return x.transpose(axes)
        ### END SOLUTION

    def backward(self, g):
        ### BEGIN SOLUTION
        return g.transpose(np.argsort(self.axes))
        ### END SOLUTION


class GetItem(Function):
    """x[index]"""

    def forward(self, x, index):
        ### BEGIN SOLUTION
        self.shape, self.index = x.shape, index
        return x[index]
        ### END SOLUTION

    def backward(self, g):
        ### BEGIN SOLUTION
        dx = np.zeros(self.shape, g.dtype)
        np.add.at(dx, self.index, g)
        return dx
        ### END SOLUTION

# %% task="a2.5" kind="check" points=10
check("a2.5", Reshape, Transpose, GetItem);

# %% [markdown]
# ## 2.6 Cross-entropy (10 points)
#
# A classifier gives $K$ numbers for each of $N$ images, the logits $z$ $(N, K)$. Softmax makes probabilities of each
# row, and the loss is the mean of $-\log$ of the probability of the right class, $c_i$ = `labels[i]`:
#
# $$p_{ik} = \frac{e^{z_{ik}}}{\sum_j e^{z_{ij}}}, \qquad L = -\frac{1}{N} \sum_i \log p_{i c_i} .$$
#
# $e^{z}$ overflows for $z > 710$. Subtract from each row its maximum first: this does not change $p$, because
# numerator and denominator get the same factor. And compute $\log p_{ik} = z_{ik} - \log \sum_j e^{z_{ij}}$ from the
# shifted $z$, not the logarithm of $p$: a small $p$ is rounded to 0, and $\log 0 = -\infty$.
#
# From this formula for $\log p$ follows
#
# $$\frac{\partial (-\log p_{i c_i})}{\partial z_{ik}} = p_{ik} - [k = c_i],$$
#
# where the bracket is 1 if $k$ is the right class and 0 otherwise. Do not forget the $1/N$ of the mean. Here $g$ is the
# gradient of the mean itself, a 0-d array, and need not be 1.
#
# An example: $z = (0, 0, \log 2)$ with label 2 has $p = (1/4, 1/4, 1/2)$, the loss $\log 2$ and the gradient
# $(1/4, 1/4, -1/2)$. The check also tries logits of $\pm 10^4$ and calls backward twice.

# %% task="a2.6" kind="answer"
class CrossEntropy(Function):
    """The mean of -log softmax(z)[label] over the rows: z (N, K), labels (N,) integers
    -> 0-d."""

    def forward(self, z, labels):
        ### BEGIN SOLUTION
        shifted = z - z.max(1, keepdims=True)
        exponentials = np.exp(shifted)
        total = exponentials.sum(1, keepdims=True)
        self.labels, self.p = labels, exponentials / total
        log_p = shifted - np.log(total)
        return -log_p[np.arange(len(z)), labels].mean()
        ### END SOLUTION

    def backward(self, g):
        ### BEGIN SOLUTION
        dz = self.p.copy()
        dz[np.arange(len(dz)), self.labels] -= 1
        dz *= g / len(dz)
        return dz
        ### END SOLUTION

# %% task="a2.6" kind="check" points=10
check("a2.6", CrossEntropy);

# %% [markdown]
# ## What a linear classifier looks for
#
# The simplest classifier of images: $z = x\,W + b$, with $x$ the 784 pixels of an image minus the mean image, and
# cross-entropy plus a penalty $\lambda \sum W^2$, which keeps weights small that the loss does not need. The data are
# the 12,000 images of clothes that come with minires. Every step of the computation below is one of your Functions.

# %%
def classify(x, w, b):
    """Return the logits (N, 10) of images x (N, 784)."""
    return Add.apply(MatMul.apply(Tensor(x), w), b)


def train(x, labels, w, b, epochs, rng, lr=0.05, penalty=0.005, batch=100):
    """Train W and b by gradient descent on batches."""
    for _ in range(epochs):
        for chosen in rng.permutation(len(x)).reshape(-1, batch):
            size = Sum.apply(Mul.apply(w, w), axis=None, keepdims=False)
            loss = CrossEntropy.apply(classify(x[chosen], w, b), labels=labels[chosen])
            loss = Add.apply(loss, Mul.apply(Tensor(np.float32(penalty)), size))
            loss.backward()
            for p in w, b:
                p.data = p.data - np.float32(lr) * p.grad
                p.grad = None


def draw(weights, names, labels, guess):
    """Return a figure of the ten columns of W (784, 10) as pictures, with the
    percentage of right answers."""
    largest = np.quantile(np.abs(weights), 0.995)
    right = 100 * np.mean(guess == labels)
    figure = new_figure(f"What a linear classifier looks for: {right:.0f} % of the "
                        "answers are right", 4.7,
                        "The ten columns of W as pictures, after training on 10,000 "
                        "images of Fashion-MNIST. Below the name of a class: the "
                        "percentage of its test images, about 200, that get the right "
                        "answer.")
    panels = figure.subplots(2, 5)
    for k, (axes, picture, name) in enumerate(zip(panels.ravel(), weights.T, names,
                                                  strict=True)):
        share = 100 * np.mean(guess[labels == k] == k)
        image = axes.imshow(picture.reshape(28, 28), cmap="Greys_r", vmin=-largest,
                            vmax=largest)
        axes.set_title(f"{name}\n{share:.0f} %", fontsize=TICK, color=INK)
        axes.set_xticks([])
        axes.set_yticks([])
        for side in axes.spines.values():
            side.set_color(GREY)
    bar = figure.colorbar(image, ax=panels, shrink=0.8, pad=0.02,
                          ticks=[-largest, 0, largest])
    bar.ax.set_yticklabels(["speaks\nagainst", "0", "speaks\nfor"], fontsize=TICK)
    bar.set_label("weight of a bright pixel", fontsize=LABEL)
    return figure

# %%
figure = None
if ready("a2.1", "a2.2", "a2.3", "a2.4", "a2.6"):
    import os

    from minires.datasets import fashion_mnist_small

    seen, unseen = fashion_mnist_small()
    x, x_test = (part.images.reshape(-1, 784) / np.float32(255)
                 for part in (seen, unseen))
    mean = x.mean(0)
    w, b = (Tensor(np.zeros((784, 10), np.float32), True),
            Tensor(np.zeros(10, np.float32), True))
    epochs = 1 if os.environ.get("MINIRES_FAST") == "1" else 10
    train(x - mean, seen.labels, w, b, epochs, np.random.default_rng(1))
    figure = draw(w.numpy(), unseen.classes, unseen.labels,
                  classify(x_test - mean, w, b).numpy().argmax(1))
figure

# %% [markdown] task="a2.7" kind="free" points=15
# ## 2.7 Predict, then explain (15 points)
#
# 1. Add the ten pictures, pixel by pixel: `w.numpy().sum(1)`. **Before you compute it**, write down what you expect,
#    and why.
# 2. Compute it, and print its largest absolute value next to the largest absolute weight. Explain the result from
#    your formula for $\partial L/\partial z$ and your backward of the matrix product. Take the penalty into account.
# 3. Start from random weights instead of zeros, once with `penalty=0` and once as above. Predict first what the sum of
#    the ten pictures is then, and after how many steps it is a tenth of what it was. Run both, and compare.
# 4. Why does this sum make no difference to the classifier?
#
# *Your answer here.*
#
# ### BEGIN SOLUTION
# **Model answer.** (1, 2) The sum is 0 at every pixel, up to rounding (about $3 \cdot 10^{-7}$, where the largest
# weight is $0.25$). Each row of $\partial L/\partial z = (p - [k = c])/N$ sums to $1 - 1 = 0$. By $\partial
# L/\partial W = x^T\,\partial L/\partial z$ the sum of its columns is $x^T$ times the row sums, so 0. The penalty
# adds $2 \lambda W$, whose column sum is $2 \lambda$ times that of $W$. With $s$ the sum of the ten columns, a step
# makes $s \leftarrow (1 - 2 \eta \lambda)\, s$, with the learning rate $\eta$. It starts at 0 and stays there.
#
# (3) Without penalty $s$ keeps its initial value for ever: the sum shows the initial noise, though each picture looks
# trained. With $\eta = 0.05$ and $\lambda = 0.005$ it shrinks by $1 - 0.0005$ a step, to a tenth after
# $\ln 10 / 0.0005 \approx 4{,}600$ steps; after the 1,000 steps here, to $e^{-0.5} = 0.61$ of its start.
#
# (4) Adding one picture $v$ to all ten columns adds the same number $x \cdot v$ to all ten logits of an image. Softmax
# does not change, as in 2.6, so neither do probabilities, loss and answers. (The penalty does: $s = 0$ is its choice.)
#
# **Rubric.** 2 points: a prediction with a reason, before the computation (a wrong one earns them too, if the answer
# says what was wrong). 4: the rows of $\partial L/\partial z$ sum to 0. 2: so do the columns of $x^T \partial
# L/\partial z$. 2: the penalty scales the sum and keeps 0. 3: random start: constant without penalty; with it, the
# factor $1 - 2\eta\lambda$ a step and a number of steps that follows from it, compared with a run. 2: the same number
# added to all logits changes no probability.
# ### END SOLUTION
