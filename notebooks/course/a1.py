# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # A1. A scalar engine
#
# *90 minutes, 100 points. Follows notebook 1.*
#
# You write an engine for automatic differentiation: numbers that remember what they were computed from, and one sweep
# that turns this memory into gradients. It takes about eighty lines. At the end your lines train a small network.
#
# | task | | points | minutes |
# |---|---|---:|---:|
# | 1.1 | arithmetic | 25 | 25 |
# | 1.2 | functions of one number | 15 | 10 |
# | 1.3 | the order of the sweep | 20 | 20 |
# | 1.4 | the sweep | 25 | 15 |
# | 1.5 | predict, then explain | 15 | 20 |
#
# **How to work.** Replace each `raise NotImplementedError` by your answer, run the cell, and run the check below it.
# The check says "right", or what is wrong. You need Python and `math`, nothing else. Save this file and run
# `minires course check a1` in a terminal to see your points. For the mark, your functions are also run on inputs that
# the checks do not show; each task says of which kind.

# %%
import math

import numpy as np

from minires.course import check, ready
from minires.plot.style import MARK, OTHERS, dress, legend_below, new_figure

# %% [markdown]
# ## The idea
#
# A `Value` holds one number, `data`. If it was computed, it also holds
#
# - `parents`, a tuple of the Values that it was computed from, in order, and
# - `shares`, a function. Let $L$ be the end result of a computation and $g = \partial L/\partial v$ the gradient of
#   the Value `v`. Then `v.shares(g)` returns a tuple with **one number for each parent**: $g$ times the derivative of
#   `v` with respect to that parent, the other parents held fixed. This is what `v` contributes to the parent's
#   gradient.
#
# A Value that was not computed is a **leaf**. It has no parents: its `parents` is `()`.
#
# For example, let $v = a + b$. Both derivatives are 1, so `v.shares(g)` is `(g, g)`. Let $w = a \cdot a$ at $a = 3$.
# Its parents are `(a, a)`, and `w.shares(g)` is `(3 g, 3 g)`: one share for the left factor, one for the right.
# Together they are $6 g = 2 a g$, the derivative of $a^2$ that you know.
#
# Nobody adds up the shares yet. That is the sweep's work, in task 1.4.
#
# ## 1.1 Arithmetic (25 points)
#
# Addition is written for you. Write the other operations in the same way: compute the number, define `shares`, return a
# new Value. Four rules from school are all you need: difference, product, quotient and power.
#
# - An operand can be a number: `x * 2`, `2 - x`. `as_value` makes a leaf of it. For `2 - x` Python calls
#   `x.__rsub__(2)`, because the number 2 cannot subtract a Value; for `2 / x` it calls `x.__rtruediv__(2)`. In these
#   methods `self` is the **right** operand.
# - The exponent of `x ** n` is a number, positive or negative, whole or not. It is not a Value.
# - You may write one operation with others, `x - y` as `x + (-y)`. Then Values in between are the parents of the
#   result, and that is right, too: only the result and the gradients of the leaves are compared.
# - `shares` runs later, long after the operation. Let it use numbers that you saved for it, under names that you do not
#   bind again. A tuple with one element needs a comma: `(g,)`.
#
# An example to try: with `x = Value(4.0)` and `y = 2 / x`, `y.data` is 0.5, and the gradient of `x` is
# $-2/4^2 = -0.125$. If `x` is a parent of `y`, this is its share in `y.shares(1.0)`.
#
# The check runs small programs like `a = x * w; y = a * a + a` with your Values. It compares the result, and the
# gradients of the leaves that its own sweep computes from your `parents` and `shares`. For the mark: 50 random
# programs, whole numbers as data, and Values that meet themselves, as in `x / x`.

# %% task="a1.1" kind="answer"
def as_value(x):
    """Return x itself if it is a Value, and a leaf if it is a number."""
    return x if isinstance(x, Value) else Value(x)


class Value:
    """A Value is a number that remembers what it was computed from."""

    def __init__(self, data, parents=(), shares=None):
        self.data = data        # the number
        self.grad = 0.0         # its gradient; task 1.4 writes into it
        self.parents = parents  # a tuple of Values; () for a leaf
        # a function: g -> a tuple with one number for each parent; None for a leaf
        self.shares = shares

    def __repr__(self):
        return f"Value({self.data}, grad={self.grad})"

    def __add__(self, other):
        """Return self + other. `other` is a Value or a number."""
        other = as_value(other)

        def shares(g):
            return g, g

        return Value(self.data + other.data, (self, other), shares)

    def __radd__(self, other):
        """Return other + self, for a number `other`."""
        return self + other

    def __neg__(self):
        """Return -self."""
        ### BEGIN SOLUTION
        def shares(g):
            return (-1 * g,)

        return Value(-self.data, (self,), shares)
        ### END SOLUTION

    def __sub__(self, other):
        """Return self - other. `other` is a Value or a number."""
        ### BEGIN SOLUTION
        other = as_value(other)

        def shares(g):
            return g, -g

        return Value(self.data - other.data, (self, other), shares)
        ### END SOLUTION

    def __rsub__(self, other):
        """Return other - self, for a number `other`."""
        ### BEGIN SOLUTION
        return as_value(other) - self
        ### END SOLUTION

    def __mul__(self, other):
        """Return self * other. `other` is a Value or a number."""
        ### BEGIN SOLUTION
        other = as_value(other)
        a, b = self.data, other.data

        def shares(g):
            return g * b, g * a

        return Value(a * b, (self, other), shares)
        ### END SOLUTION

    def __rmul__(self, other):
        """Return other * self, for a number `other`."""
        ### BEGIN SOLUTION
        return self * other
        ### END SOLUTION

    def __truediv__(self, other):
        """Return self / other. `other` is a Value or a number."""
        ### BEGIN SOLUTION
        other = as_value(other)
        a, b = self.data, other.data

        def shares(g):
            return g / b, -g * a / (b * b)

        return Value(a / b, (self, other), shares)
        ### END SOLUTION

    def __rtruediv__(self, other):
        """Return other / self, for a number `other`."""
        ### BEGIN SOLUTION
        return as_value(other) / self
        ### END SOLUTION

    def __pow__(self, exponent):
        """Return self ** exponent. `exponent` is a number."""
        ### BEGIN SOLUTION
        a = self.data

        def shares(g):
            return (g * exponent * a ** (exponent - 1),)

        return Value(a ** exponent, (self,), shares)
        ### END SOLUTION

# %% task="a1.1" kind="check" points=25
check("a1.1", Value);

# %% [markdown]
# ## 1.2 Functions of one number (15 points)
#
# Write four functions that take a Value and return a Value:
#
# - $\exp x$ and $\log x$, the natural logarithm;
# - $\tanh x$, with the derivative $1 - \tanh^2 x$;
# - $\mathrm{relu}\,x = \max(x, 0)$. It has a kink at 0. We choose the derivative **0** there, as most libraries do.
#
# The derivatives of exp and tanh are easiest to write with the *result*, which you have computed already. `math.exp`,
# `math.log` and `math.tanh` take the number, `x.data`. The formula of tanh with exponentials overflows for large
# numbers; `math.tanh` does not.
#
# An example to try: at $x = 0$, `exp(x).shares(5.0)` is `(5.0,)`, `tanh(x).shares(5.0)` is `(5.0,)` and
# `relu(x).shares(5.0)` is `(0.0,)`.
#
# The check tries the functions alone and inside each other, as in `exp(relu(x))`, at positive and negative numbers and
# at 0. For the mark: other numbers, also large ones, $\pm 400$ for tanh and relu.

# %% task="a1.2" kind="answer"
def exp(x):
    """Return e to the power of the Value x, as a Value."""
    ### BEGIN SOLUTION
    y = math.exp(x.data)

    def shares(g):
        return (g * y,)

    return Value(y, (x,), shares)
    ### END SOLUTION


def log(x):
    """Return the natural logarithm of the Value x, which is positive, as a Value."""
    ### BEGIN SOLUTION
    a = x.data

    def shares(g):
        return (g / a,)

    return Value(math.log(a), (x,), shares)
    ### END SOLUTION


def tanh(x):
    """Return the hyperbolic tangent of the Value x, as a Value."""
    ### BEGIN SOLUTION
    y = math.tanh(x.data)

    def shares(g):
        return (g * (1 - y * y),)

    return Value(y, (x,), shares)
    ### END SOLUTION


def relu(x):
    """Return max(x, 0) of the Value x, as a Value. Its derivative at 0 is 0."""
    ### BEGIN SOLUTION
    y = max(x.data, 0.0)

    def shares(g):
        return (g * (y > 0),)

    return Value(y, (x,), shares)
    ### END SOLUTION

# %% task="a1.2" kind="check" points=15
check("a1.2", Value, exp, log, tanh, relu);

# %%
# With this, x.tanh() is tanh(x).
Value.exp, Value.log, Value.tanh, Value.relu = exp, log, tanh, relu

# %% [markdown]
# ## 1.3 The order of the sweep (20 points)
#
# A Value may pass its gradient on only when the gradient is complete: when everything that was computed from the
# Value has handed in its shares. So the sweep needs a list of all Values in which **every Value comes after its
# parents**. Such a list is a *topological order*. The sweep reads it from the end.
#
# Write `topological(result)`. It returns a list of everything that `result` was computed from, leaves too, with each
# Value **once**, each after its parents. The last one is therefore `result`.
#
# Take $a = x w$, $b = a + x$, $c = a b$. Two orders are right, `[x, w, a, b, c]` and `[w, x, a, b, c]`. The order
# `[x, w, b, a, c]` is wrong: read from the end, $a$ passes its gradient on before $b$ has handed in its share.
#
# - The obvious orders are wrong: neither the order in which a search from the result meets the Values first (depth
#   first or breadth first), nor its reverse, is topological in general. A Value is finished only after all its
#   parents are.
# - Do not call the function inside itself. Python stops a recursion after about a thousand calls; a network has longer
#   chains. Keep a list of what is still to do. One way: an entry is a pair (Value, "are its parents done?"). When
#   you take out (v, no) for the first time, put back (v, yes), and on top of it the parents with "no"; skip v if you
#   take it out with "no" again. When you take out (v, yes), v is the next in the list. Another way: count for every
#   Value how many of its uses are not placed yet.
# - Two Values with the same number are two Values. Use a `set` of the Values themselves, not of their `data`.
#
# The check hands you graphs of its own Values, which have `data`, `parents`, `shares` and `grad` like yours, but no
# arithmetic. A name like `a = x * w; b = a + x` says who the parents are; the derivatives are other numbers. The
# check sweeps your list from the end and compares the gradient that each Value has at its turn. For the mark: 50
# random graphs, skips of every length, and a chain of 20,000 Values.

# %% task="a1.3" kind="answer"
def topological(result):
    """Return a list of all Values that `result` was computed from, and itself: each
    once, each after its parents."""
    ### BEGIN SOLUTION
    order, seen, todo = [], set(), [(result, False)]
    while todo:
        v, parents_done = todo.pop()
        if parents_done:
            order.append(v)
        elif v not in seen:
            seen.add(v)
            todo.append((v, True))
            for parent in v.parents:
                todo.append((parent, False))
    return order
    ### END SOLUTION

# %% task="a1.3" kind="check" points=20
check("a1.3", topological);

# %% [markdown]
# ## 1.4 The sweep (25 points)
#
# Write `sweep(order)`. It gets a list from `topological`, so `order[-1]` is the result $L$, and writes gradients into
# `.grad`. It returns nothing. After `sweep(order)`
#
# - the `.grad` of every **computed** Value is $\partial L/\partial v$ of this sweep, whatever it was before;
# - the `.grad` of every **leaf** has grown by $\partial L/\partial v$. So two losses with common weights add their
#   gradients, and a second sweep of the same list adds the same gradients again. That is why a training loop sets the
#   gradients of its weights to 0 before each step.
#
# Start with $\partial L/\partial L = 1$. A result can be a leaf, then `order` has one element, and its `.grad` grows
# by 1. A Value that is used several times, also twice by one operation as in `x * x`, gets the **sum** of all shares.
#
# An example to try, from notebook 1: $x = 3$, $y = 2$, $a = xy$, $b = a + x$, $c = ab$ gives $\bar x = 36$,
# $\bar y = 45$ and $\bar a = 15$, and after a second sweep 72, 90 and 15.
#
# The check again uses its own Values, in a right order. For the mark: 50 random graphs, leaves whose `.grad` is not 0
# at the start, two results that share their leaves, and a chain of 20,000 Values.

# %% task="a1.4" kind="answer"
def sweep(order):
    """Compute the gradients of order[-1] with respect to all Values in `order`.

    order: Values, each after its parents. A computed Value's .grad is set; a leaf's
    .grad grows.
    """
    ### BEGIN SOLUTION
    for v in order:
        if v.parents:
            v.grad = 0.0
    order[-1].grad += 1.0
    for v in reversed(order):
        if v.shares is not None:
            for parent, share in zip(v.parents, v.shares(v.grad), strict=True):
                parent.grad += share
    ### END SOLUTION

# %% task="a1.4" kind="check" points=25
check("a1.4", sweep);

# %%
def backward(self):
    """Add d self / d leaf to the .grad of every leaf that this Value was computed
    from."""
    sweep(topological(self))


Value.backward = backward

# %% [markdown]
# ## Your eighty lines learn
#
# The data are 60 points in two interleaved arcs. The network has two inputs, 16 hidden units and one output,
#
# $$s(x) = b + \sum_{j=1}^{16} w_j \tanh(u_{j1} x_1 + u_{j2} x_2 + c_j),$$
#
# and says "upper arc" where $s > 0$. The loss of a point is $\log(1 + e^{-t s})$ with $t = 1$ for the upper and $-1$
# for the lower arc. Every one of the 65 weights is one of your Values, and so is every sum, product and tanh: about
# 7,000 Values a step. Gradient descent takes it from there. It runs for about half a minute.

# %%
def two_arcs(count, rng):
    """Return `count` points (count, 2) on two arcs with noise, and their sides t, 1 or
    -1."""
    angle = rng.uniform(0, np.pi, count)
    t = np.where(np.arange(count) % 2 == 0, 1, -1)
    points = np.stack([np.cos(angle) - 0.5 * t, t * (np.sin(angle) - 0.25)], axis=1)
    return points + rng.normal(0, 0.12, (count, 2)), t


def new_network(hidden, rng):
    """Return the weights: for each hidden unit [u1, u2, c, w], and the last entry
    [b]."""
    return ([[Value(float(v)) for v in rng.standard_normal(4) * (1, 1, 1, 0.3)]
             for _ in range(hidden)] + [[Value(0.0)]])


def score(network, x1, x2, bend=tanh):
    """Return s(x): a Value, positive on the side of the upper arc."""
    *hidden, (s,) = network
    for u1, u2, c, w in hidden:
        s = s + w * bend(u1 * x1 + u2 * x2 + c)
    return s


def train(network, points, sides, steps, lr, bend=tanh):
    """Train by gradient descent on all points at once.

    Yield (number of steps done, mean loss), from 0 to `steps`.
    """
    for step in range(steps + 1):
        loss = Value(0.0)
        for (x1, x2), t in zip(points.tolist(), sides.tolist(), strict=True):
            loss = loss + (1 + (-t * score(network, x1, x2, bend)).exp()).log()
        loss = loss / len(points)
        yield step, loss.data
        for unit in network:
            for p in unit:
                p.grad = 0.0
        loss.backward()
        for unit in network:
            for p in unit:
                p.data = p.data - lr * p.grad


def scores(network, line_1, line_2, bend=np.tanh):
    """Return s on a grid, (len(line_2), len(line_1)), as an array: only the numbers,
    without a graph."""
    *hidden, (s,) = [[p.data for p in unit] for unit in network]
    x1, x2 = np.meshgrid(line_1, line_2)
    return s + sum(w * bend(u1 * x1 + u2 * x2 + c) for u1, u2, c, w in hidden)

# %%
def draw(panels, points, sides, caption):
    """Return a figure of scores {title: s on a grid}: the boundary s = 0, and where the
    network is sure."""
    figure = new_figure("A network of Values learns to separate two arcs", 3.5, caption)
    for axes, (title, s) in zip(figure.subplots(1, len(panels), sharey=True),
                                panels.items(), strict=True):
        shades = axes.contourf(LINE_1, LINE_2, 1 / (1 + np.exp(-s)),
                               levels=np.linspace(0, 1, 11), cmap="Greys",
                               vmin=-0.1, vmax=1.7)
        axes.contour(LINE_1, LINE_2, s, levels=[0.0], colors=MARK, linewidths=2.4)
        for side, (colour, _, marker), name in ((1, OTHERS[0], "upper arc"),
                                                (-1, OTHERS[3], "lower arc")):
            axes.plot(*points[sides == side].T, linestyle="none", marker=marker,
                      markersize=5, color=colour,
                      markerfacecolor=colour if side == 1 else "white", label=name)
        dress(axes, title, "first coordinate", "second coordinate"
              if axes.get_subplotspec().is_first_col() else "")
        axes.grid(False)
        axes.set_aspect("equal")
    axes.plot([], [], color=MARK, linewidth=2.4, label="boundary, s = 0")
    bar = figure.colorbar(shades, ax=figure.axes, shrink=0.75, pad=0.02,
                          ticks=[0, 0.5, 1])
    bar.set_label("1 / (1 + exp(-s))", fontsize=10)
    legend_below(figure, [axes])
    return figure


LINE_1, LINE_2 = np.linspace(-2, 2, 121), np.linspace(-1.5, 1.5, 91)
figure = None
if ready("a1.1", "a1.2", "a1.3", "a1.4"):
    import os

    points, sides = two_arcs(60, np.random.default_rng(1))
    network = new_network(16, np.random.default_rng(2))
    # tests train shorter
    panels, last = {}, 30 if os.environ.get("MINIRES_FAST") == "1" else 400
    for step, loss in train(network, points, sides, last, lr=1.0):
        if step in (0, 20, last):
            panels[f"{step} steps, loss {loss:.3f}"] = scores(network, LINE_1, LINE_2)
    figure = draw(panels, points, sides, "2-16-1 network with tanh, gradient descent "
                  "on all 60 points, learning rate 1")
figure

# %% [markdown] task="a1.5" kind="free" points=15
# ## 1.5 Predict, then explain (15 points)
#
# Replace tanh by relu. Copy the cell of the figure into a new cell, start from a new network, train with
# `train(network, points, sides, last, lr=0.3, bend=relu)`, and take
# `scores(network, LINE_1, LINE_2, bend=lambda v: np.maximum(v, 0))` for the picture.
#
# 1. **Before you run it**, write down: what will the boundary look like, and why? Where in the plane can its shape
#    change? At how many places at most can the slope of $s$ change along a straight path through the plane?
# 2. Run it, and look at the figure of your run. Was your prediction right?
# 3. Some hidden units may be 0 at all 60 points, at the start or after some steps. What do your rules of 1.2 say about
#    the gradients of their four weights, and can such a unit come back? Count these units in your trained network.
#    Can the same happen with tanh?
#
# *Your answer here.*
#
# ### BEGIN SOLUTION
# **Model answer.** (1) Each unit is 0 on one side of the line $u_{j1} x_1 + u_{j2} x_2 + c_j = 0$ and linear in $x$
# on the other. So the 16 lines cut the plane into polygons, and $s$ is linear (affine) on each polygon. The boundary
# $s = 0$ is a straight piece in each polygon that it crosses, and it can have corners only where it meets one of the
# lines. A straight path crosses each line at most once, so the slope of $s$ changes at most 16 times along it. With
# tanh the boundary is smooth.
#
# (2) The picture shows a chain of straight pieces, usually with fewer than ten visible corners, because several lines
# do not cross the region of the data or meet the boundary at small angles.
#
# (3) If $u_j \cdot x + c_j \le 0$ at all points, relu' is 0 at all of them. So $w_j$ gets $g \cdot 0$, because its
# partial is the unit's output, and $u_{j1}, u_{j2}, c_j$ get $g\, w_j \cdot 0 \cdot x$. All four gradients are
# exactly 0. Nothing that the other units do changes this, since the unit's own weights decide its input: it never
# comes back. tanh' is positive everywhere (in exact arithmetic), so a saturated unit learns slowly but is not lost.
# The count is the number of units with `max over the points of u1 x1 + u2 x2 + c` $\le 0$. With the
# seed of the figure's network it is 1, from the start; other seeds have 0 to 6, most of them 1 to 3.
#
# **Rubric.** 3 points: the prediction is there and was written before the run (a wrong one earns them too, if the
# answer says what was wrong). 4: linear on each polygon, so straight pieces. 3: corners only on the units' lines, at
# most 16 along a straight path. 3: all four gradients are exactly 0, derived from the rules, and the unit never comes
# back. 2: the count, and tanh is slow but not dead.
# ### END SOLUTION
