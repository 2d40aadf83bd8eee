# %% [markdown]
# # A3. Convolution by im2col: the scatter is the gather's transpose
#
# *150 minutes, 100 points. Follows notebook 2.*
#
# You write a convolution layer and two pooling layers, each with its backward pass, in NumPy alone. All of them use two
# functions. `im2col` gathers the windows of an image as the columns of a matrix. `col2im`, its transpose, scatters the
# columns back. With these two, a convolution is one matrix product, and so is each of its gradients.
#
# **How it works.** Replace every `raise NotImplementedError` by your code. Each task ends with a cell that calls
# `check`, which prints "right", or what is wrong and, if it can, why. When you have saved the notebook,
# `minires course check a3` tries the saved file in a process of its own. Later tasks may call your earlier answers, so
# correct a wrong one before you continue.
#
# **Notation and rules** for the whole assignment:
#
# | name | meaning |
# |---|---|
# | `x` (N, C, H, W) | N images of C channels, H rows and W columns |
# | `w` (O, C, kh, kw), `b` (O,) | the weights of O filters and their biases |
# | `y` (N, O, Ho, Wo) | the result of a layer |
# | `dy`, `dx`, `dw`, `db` | $\partial L/\partial y$ and so on, for a scalar loss $L$; each has the shape of its array |
# | `kernel`, `stride`, `padding` | pairs of integers, (vertical, horizontal): `kernel` = (kh, kw) |
# | `cache` | whatever your backward pass needs from your forward pass; nobody else reads it |
#
# - Indices start at 0. $p$ pixels of padding are added on *each* side of the image.
# - Do not write into an input: in the checks all inputs are read-only. Return new arrays, which do not share memory
#   with an input.
# - float32 inputs give float32 results, float64 inputs give float64.
# - A cache stays valid when the forward pass is called again on other data, and when the backward pass is called twice.
# - Your mark comes from further inputs too: kernels of 1x1 and of the size of the stride, rows left over, images of one
#   pixel and of 32x32, arrays that are not contiguous in memory, float32.

# %%
import numpy as np

from minires.course import check, ready

# %% [markdown]
# ## The definition
#
# The layer slides a window of kh x kw pixels over the padded image, sh rows and sw columns at a time. Each filter
# multiplies the window by its weights, entry by entry, and adds up the products and its bias:
#
# $$y_{n,o,i,j} \;=\; b_o + \sum_{c=0}^{C-1} \sum_{u=0}^{k_h-1} \sum_{v=0}^{k_w-1} w_{o,c,u,v}\;
#   \bar x_{n,\,c,\;s_h i + u,\;s_w j + v}$$
#
# where $\bar x$ is $x$ with $p_h$ rows of zeros above and below, and $p_w$ columns of zeros left and right. The kernel
# is *not* rotated. Seven indices make seven loops, which are correct and hopelessly slow. Whenever you are in doubt,
# compare your own functions with this one.

# %%
def convolution_by_loops(x, w, b, stride, padding):
    """Return y (N, O, Ho, Wo) from the definition."""
    (N, C, H, W), (O, _, kh, kw) = x.shape, w.shape
    (sh, sw), (ph, pw) = stride, padding
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    results = []
    for n in range(N):
        for o in range(O):
            for top in range(0, H + 2 * ph - kh + 1, sh):
                for left in range(0, W + 2 * pw - kw + 1, sw):
                    total = b[o]
                    for c in range(C):
                        for i in range(kh):
                            for j in range(kw):
                                total = (total + w[o, c, i, j]
                                         * padded[n, c, top + i, left + j])
                    results.append(total)
    wide = len(range(0, W + 2 * pw - kw + 1, sw))
    return np.array(results, x.dtype).reshape(N, O, -1, wide)

# %% [markdown]
# ## 3.1 How many windows fit
#
# A window of $k$ pixels on $n + 2p$ pixels, moved by $s$ each time, has
#
# $$\left\lfloor \frac{n + 2p - k}{s} \right\rfloor + 1$$
#
# places: the first one, and one more for every whole step that fits. Pixels at the end that do not fill a window are
# left over. Each direction has its own numbers. *Example:* size (6, 8), kernel (3, 3), stride (2, 2) and padding (1, 1)
# give (3, 4): $\lfloor 5/2 \rfloor + 1$ rows and $\lfloor 7/2 \rfloor + 1$ columns.

# %% task="a3.1" kind="answer"
def output_size(size, kernel, stride, padding):
    """Return (Ho, Wo), two integers, for an image of size (H, W)."""
    ### BEGIN SOLUTION
    high = (size[0] + 2 * padding[0] - kernel[0]) // stride[0] + 1
    wide = (size[1] + 2 * padding[1] - kernel[1]) // stride[1] + 1
    return high, wide
    ### END SOLUTION

# %% task="a3.1" kind="check" points=5
check("a3.1", output_size);

# %% [markdown]
# ## 3.2 Gather: im2col
#
# `im2col` writes every window as one column of a matrix $X$ with C kh kw rows and N Ho Wo columns:
#
# - **row** $(c\,k_h + u)\,k_w + v$ is the element $(c, u, v)$ of a window: channel first, then row, then column. This
#   is the order in which `w.reshape(O, -1)` holds the weights of a filter.
# - **column** $(n\,H_o + i)\,W_o + j$ is the window in place $(i, j)$ of image $n$.
#
# $$X_{(c,u,v),\,(n,i,j)} = \bar x_{n,\,c,\;s_h i + u,\;s_w j + v}$$
#
# *Example:* one image with one channel, kernel (2, 2), stride (1, 2), no padding. There are 2 x 2 windows.
#
# $$x = \begin{pmatrix} 0&1&2&3\\ 4&5&6&7\\ 8&9&10&11 \end{pmatrix} \qquad
#   X = \begin{pmatrix} 0&2&4&6\\ 1&3&5&7\\ 4&6&8&10\\ 5&7&9&11 \end{pmatrix}$$
#
# Do not loop over windows: there are many. Loop over the elements $(u, v)$ of the kernel, of which there are few. For
# a fixed $(u, v)$, the pixels $\bar x_{\,s_h i + u,\; s_w j + v}$ of *all* windows are one slice with a step,
# `padded[:, :, u:...:sh, v:...:sw]`. It must have exactly Ho rows and Wo columns, so think about where it ends. The
# slice has the shape (N, C, Ho, Wo). An array of shape (C, kh, kw, N, Ho, Wo) is a good place to collect the slices;
# there N and C are the other way round.

# %% task="a3.2" kind="answer"
def im2col(x, kernel, stride, padding):
    """Return the windows of x (N, C, H, W) as a matrix (C*kh*kw, N*Ho*Wo)."""
    ### BEGIN SOLUTION
    N, C, H, W = x.shape
    kh, kw = kernel
    sh, sw = stride
    ph, pw = padding
    Ho, Wo = output_size((H, W), kernel, stride, padding)
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    cols = np.empty((C, kh, kw, N, Ho, Wo), x.dtype)
    for i in range(kh):
        for j in range(kw):
            rows = slice(i, i + sh * Ho, sh)
            columns = slice(j, j + sw * Wo, sw)
            cols[:, i, j] = padded[:, :, rows, columns].transpose(1, 0, 2, 3)
    return cols.reshape(C * kh * kw, N * Ho * Wo)
    ### END SOLUTION

# %% task="a3.2" kind="check" points=15
check("a3.2", im2col);

# %% [markdown]
# ## 3.3 Scatter: col2im
#
# `im2col` is a linear map. Nobody writes its matrix down, which has only zeros and ones, with a one where an entry of
# $X$ is copied from a pixel of $x$. The transpose of this map, `col2im`, goes the other way. It is *defined* by
#
# $$\langle \mathrm{im2col}(x),\, D \rangle \;=\; \langle x,\, \mathrm{col2im}(D) \rangle
#   \qquad\text{for all } x \text{ and all } D,$$
#
# where $\langle A, B \rangle$ is the sum of all products of entries. Read it pixel by pixel: pixel $q$ of $x$ is
# copied into several entries of $X$, so on the left it is multiplied by the *sum* of the entries of $D$ in those
# places. So `col2im` adds up, for every pixel, the entries of $D$ in all places where `im2col` puts this pixel.
# Entries that belong to the padding are dropped. A pixel that lies in no window gets 0.
#
# This is what backpropagation needs. If $X = \mathrm{im2col}(x)$ and $D = \partial L/\partial X$, then
# $\partial L/\partial x = \mathrm{col2im}(D)$: a value that was used many times gets the sum of its gradients.
#
# *Example:* in the example of 3.2 with $D = X$, each pixel of the middle row lies in two windows, all others in one:
#
# $$\mathrm{col2im}(X) = \begin{pmatrix} 0&1&2&3\\ 8&10&12&14\\ 8&9&10&11 \end{pmatrix}$$
#
# The loop is that of `im2col` with the two sides of the assignment exchanged. Think about `=`, and about where the
# result begins and ends: `shape` is the shape of x, which may be larger than the windows reach.

# %% task="a3.3" kind="answer"
def col2im(cols, shape, kernel, stride, padding):
    """Return dx of the given shape (N, C, H, W) from cols (C*kh*kw, N*Ho*Wo): the
    transpose of im2col."""
    ### BEGIN SOLUTION
    N, C, H, W = shape
    kh, kw = kernel
    sh, sw = stride
    ph, pw = padding
    Ho, Wo = output_size((H, W), kernel, stride, padding)
    parts = cols.reshape(C, kh, kw, N, Ho, Wo)
    padded = np.zeros((N, C, H + 2 * ph, W + 2 * pw), cols.dtype)
    for i in range(kh):
        for j in range(kw):
            rows = slice(i, i + sh * Ho, sh)
            columns = slice(j, j + sw * Wo, sw)
            padded[:, :, rows, columns] += parts[:, i, j].transpose(1, 0, 2, 3)
    return padded[:, :, ph:ph + H, pw:pw + W]
    ### END SOLUTION

# %% task="a3.3" kind="check" points=20
check("a3.3", col2im);

# %% [markdown]
# The definition is also a test, and in integers it holds without any rounding. Both numbers must be equal:

# %%
if ready("a3.2", "a3.3"):
    geometry = (3, 2), (2, 1), (1, 0)  # kernel, stride, padding
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 10, (2, 3, 6, 5))
    D = rng.integers(-9, 10, im2col(x, *geometry).shape)
    print((im2col(x, *geometry) * D).sum(), (x * col2im(D, x.shape, *geometry)).sum())

# %% [markdown]
# ## 3.4 Convolution, forward
#
# Let $W$ be `w.reshape(O, C*kh*kw)`, and $X$ the columns. In the definition the sum over $(c, u, v)$ is a row of $W$
# times a column of $X$, so all of it is one matrix product:
#
# $$Y = W X + b\,\mathbf 1^T, \qquad (O \times N H_o W_o) = (O \times C k_h k_w)\,(C k_h k_w \times N H_o W_o)$$
#
# Row $o$ of $Y$ holds filter $o$'s results for *all* images, in the order of the columns. The layer returns
# (N, O, Ho, Wo). A reshape alone cannot exchange two axes.
#
# This function is timed, with a generous limit. One loop over images, channels or places passes; nested Python loops
# over single numbers do not.

# %% task="a3.4" kind="answer"
def conv2d_forward(x, w, b, stride, padding):
    """Return (y, cache) for x (N, C, H, W), w (O, C, kh, kw) and b (O,); y is (N, O,
    Ho, Wo)."""
    ### BEGIN SOLUTION
    N, C, H, W = x.shape
    O, _, kh, kw = w.shape
    Ho, Wo = output_size((H, W), (kh, kw), stride, padding)
    cols = im2col(x, (kh, kw), stride, padding)
    products = w.reshape(O, C * kh * kw) @ cols
    Y = products + b.reshape(O, 1)
    y = Y.reshape(O, N, Ho, Wo).transpose(1, 0, 2, 3)
    cache = x.shape, w, cols, stride, padding
    return y, cache
    ### END SOLUTION

# %% task="a3.4" kind="check" points=10
check("a3.4", conv2d_forward);

# %% [markdown]
# ## 3.5 Convolution, backward
#
# Let $G$ be the (O, N Ho Wo) matrix of $\partial L/\partial Y$, which holds the numbers of `dy` in the order of $Y$. A
# small change of $W$, $X$ and $b$ changes the loss by
#
# $$dL = \langle G,\, dY \rangle = \langle G,\; dW\,X + W\,dX + db\,\mathbf 1^T \rangle$$
#
# Write this as $\langle\,?, dW \rangle + \langle\,?, dX \rangle + \langle\,?, db \rangle$, with
# $\langle A, BC \rangle = \langle A C^T, B \rangle = \langle B^T A, C \rangle$. The three question marks are
# $\partial L/\partial W$, $\partial L/\partial X$ and $\partial L/\partial b$. Task 3.3 leads from
# $\partial L/\partial X$ to $\partial L/\partial x$. The loss adds up over images and pixels, so nothing is averaged
# here.

# %% task="a3.5" kind="answer"
def conv2d_backward(dy, cache):
    """Return (dx, dw, db) for dy (N, O, Ho, Wo) and the cache of conv2d_forward."""
    ### BEGIN SOLUTION
    shape, w, cols, stride, padding = cache
    O, C, kh, kw = w.shape
    G = dy.transpose(1, 0, 2, 3).reshape(O, -1)
    db = G.sum(1)
    dW = G @ cols.T
    dw = dW.reshape(O, C, kh, kw)
    dcols = w.reshape(O, C * kh * kw).T @ G
    dx = col2im(dcols, shape, (kh, kw), stride, padding)
    return dx, dw, db
    ### END SOLUTION

# %% task="a3.5" kind="check" points=15
check("a3.5", conv2d_forward, conv2d_backward);

# %% [markdown]
# ## 3.6 Max pooling
#
# Max pooling takes the largest element of every window of kh x kw pixels, in each channel separately: x (N, C, H, W)
# gives y (N, C, Ho, Wo). Its padding never wins: it counts as $-\infty$, not as 0. (The padding is at most half the
# kernel, so every window contains a pixel.) If several elements of a window are equal, the **first** wins, in the order
# of the rows of `im2col`. This is not a rare case: after a ReLU many pixels are exactly 0.
#
# A change of the winner changes the maximum by the same amount; a change of any other element does nothing. So the
# gradient of a window goes to its winner, whole. A pixel that wins in several windows gets the sum.
#
# *Example:* kernel (1, 2), stride (1, 1), no padding: the row $(1, 3, 3, 2)$ has the windows $(1, 3)$, $(3, 3)$ and
# $(3, 2)$, so $y = (3, 3, 3)$. With $dy = (10, 20, 40)$, $dx = (0, 30, 40, 0)$: in the second window the first 3 wins.
#
# *Hint:* see x as N*C images of one channel, `x.reshape(N * C, 1, H, W)`. Then every window is one column of kh*kw
# numbers in `im2col`'s matrix. Forward you need the `argmax` of each column (NumPy's returns the first), backward the
# `col2im` of a matrix with one entry in each column; to reach these entries, index with two arrays, `[rows, columns]`.
# `im2col` pads with 0, so pad with `-np.inf` yourself, and call it with padding (0, 0). The windows are the same, so
# `col2im` takes the shape of the image without padding, and the real padding.

# %% task="a3.6" kind="answer"
def max_pool_forward(x, kernel, stride, padding):
    """Return (y, cache) for x (N, C, H, W); y is (N, C, Ho, Wo)."""
    ### BEGIN SOLUTION
    N, C, H, W = x.shape
    ph, pw = padding
    Ho, Wo = output_size((H, W), kernel, stride, padding)
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=-np.inf)
    planes = padded.reshape(N * C, 1, H + 2 * ph, W + 2 * pw)
    cols = im2col(planes, kernel, stride, (0, 0))
    winner = cols.argmax(0)
    best = cols[winner, np.arange(winner.size)]
    cache = x.shape, winner, kernel, stride, padding
    return best.reshape(N, C, Ho, Wo), cache
    ### END SOLUTION


def max_pool_backward(dy, cache):
    """Return dx (N, C, H, W) for dy (N, C, Ho, Wo)."""
    ### BEGIN SOLUTION
    shape, winner, kernel, stride, padding = cache
    N, C, H, W = shape
    dcols = np.zeros((kernel[0] * kernel[1], winner.size), dy.dtype)
    dcols[winner, np.arange(winner.size)] = dy.reshape(-1)
    dx = col2im(dcols, (N * C, 1, H, W), kernel, stride, padding)
    return dx.reshape(N, C, H, W)
    ### END SOLUTION

# %% task="a3.6" kind="check" points=12
check("a3.6", max_pool_forward, max_pool_backward);

# %% [markdown]
# ## 3.7 Average pooling
#
# Average pooling takes the mean of every window: the sum of its elements divided by kh*kw, always. Padding counts as
# elements with value 0, so a window at the border is divided by kh*kw too. Backward, each element of a window gets an
# equal share of the gradient of its window.
#
# *Example:* kernel (1, 2), stride (1, 1), padding (0, 1): the row $(2, 4)$ becomes $(0, 2, 4, 0)$, so
# $y = (1, 3, 2)$. With $dy = (10, 20, 40)$ the three windows give the elements 5, 10 and 20 each, so
# $dx = (5 + 10,\; 10 + 20) = (15, 30)$.

# %% task="a3.7" kind="answer"
def avg_pool_forward(x, kernel, stride, padding):
    """Return (y, cache) for x (N, C, H, W); y is (N, C, Ho, Wo)."""
    ### BEGIN SOLUTION
    N, C, H, W = x.shape
    Ho, Wo = output_size((H, W), kernel, stride, padding)
    area = kernel[0] * kernel[1]
    cols = im2col(x.reshape(N * C, 1, H, W), kernel, stride, padding)
    means = cols.sum(0) / area
    cache = x.shape, kernel, stride, padding
    return means.reshape(N, C, Ho, Wo), cache
    ### END SOLUTION


def avg_pool_backward(dy, cache):
    """Return dx (N, C, H, W) for dy (N, C, Ho, Wo)."""
    ### BEGIN SOLUTION
    shape, kernel, stride, padding = cache
    N, C, H, W = shape
    elements = kernel[0] * kernel[1]
    share = dy.reshape(1, -1) / elements
    dcols = np.repeat(share, elements, 0)
    dx = col2im(dcols, (N * C, 1, H, W), kernel, stride, padding)
    return dx.reshape(N, C, H, W)
    ### END SOLUTION

# %% task="a3.7" kind="check" points=8
check("a3.7", avg_pool_forward, avg_pool_backward);

# %% [markdown]
# ## The figure: who looks at which pixel
#
# `col2im(im2col(ones))` counts, for every pixel, the windows that contain it. Before you run the next cell, answer part
# (a) of 3.8.

# %%
figure = None
if ready("a3.2", "a3.3"):
    from minires.plot.convolution import grid
    from minires.plot.style import LABEL, new_figure

    geometries = {"kernel 3x3, stride 1, padding 1": ((3, 3), (1, 1), (1, 1)),
                  "kernel 3x3, stride 2, padding 1": ((3, 3), (2, 2), (1, 1)),
                  "kernel 3x2, stride 2, no padding": ((3, 2), (2, 2), (0, 0)),
                  "kernel 2x2, stride 3, no padding": ((2, 2), (3, 3), (0, 0))}
    ones = np.ones((1, 1, 8, 9))
    figure = new_figure("How many windows contain each pixel", 7.4,
                        "col2im(im2col(ones)) for an image of 8 rows and 9 columns. "
                        "Darker is more windows; white pixels are in none.")
    for axes, (name, geometry) in zip(figure.subplots(2, 2).flat, geometries.items(),
                                      strict=True):
        count = col2im(im2col(ones, *geometry), ones.shape, *geometry)[0, 0]
        grid(axes, count, [[str(1 - 0.055 * seen) for seen in row] for row in count])
        axes.set_title(name, fontsize=LABEL)
        axes.set_xticks(range(9))
        axes.set_yticks(range(8))
        axes.set_xlabel("column of the image", fontsize=LABEL)
        axes.set_ylabel("row of the image", fontsize=LABEL)
figure

# %% [markdown] task="a3.8" kind="free" points=15
# ## 3.8 Predict, then explain
#
# **(a)** *Before you run the figure:* an image of 8 rows and 9 columns, kernel 3x3, stride 2, padding 1. In how many
# windows is each of the 8 rows? Each of the 9 columns? Which numbers will the picture show, and where is the largest?
#
# **(b)** Run the figure. Why is it also a picture of $\partial L/\partial x$, for a layer with one channel and one
# filter whose nine weights are all 1, and a loss that is the sum of all outputs? Residual networks use a 1x1 kernel
# with stride 2 in some shortcuts. What share of the pixels of an 8x8 image gets any gradient through it? And with a
# 2x2 kernel and stride 2?
#
# **(c)** How many times larger than x is the matrix of columns for a 3x3 kernel with padding 1, at stride 1 and at
# stride 2 (H and W even)? Your cache keeps this matrix from forward to backward. Name an alternative, and what it
# costs.
#
# *Your answer here.*
#
# ### BEGIN SOLUTION
# **(a)** There are $\lfloor (8 + 2 - 3)/2 \rfloor + 1 = 4$ rows of windows. They contain the image rows 0-1, 1-3, 3-5
# and 5-7. So the rows 0, ..., 7 are in 1, 2, 1, 2, 1, 2, 1, 1 windows. There are
# $\lfloor (9 + 2 - 3)/2 \rfloor + 1 = 5$ columns of windows: columns 0-1, 1-3, 3-5, 5-7 and 7-8, so the columns 0,
# ..., 8 are in 1, 2, 1, 2, 1, 2, 1, 2, 1 windows. A pixel is in (count of its row) x (count of its column) windows:
# 1, 2 and 4 in a checkered pattern, with 4 where row and column are both odd (row 7 excepted).
#
# **(b)** With $G = \mathbf 1$ and all weights 1, $\partial L/\partial X = W^T G$ is a matrix of ones, and
# $\partial L/\partial x = \mathrm{col2im}(\mathbf 1)$. For an image of ones, im2col gives ones too, except for the
# padding, which col2im drops. So both are the count of windows. At 1x1 and stride 2 only the pixels in even rows and
# columns are in a window: one in four, 25 %. The others get no gradient through this path. With a 2x2 kernel and
# stride 2 each pixel is in exactly one window: 100 %.
#
# **(c)** $9\,H_o W_o / (H W)$: 9 times at stride 1, 9/4 at stride 2. Alternative: keep only x and call im2col again
# in backward. This costs the time of one more gather, which is small compared to the two matrix products. (Or work on
# a few images at a time.)
#
# **Rubric.** (a) 5 points: 2 for the row counts, 1 for the column counts, 2 for the product rule with the place of
# the 4s; a wrong prediction that is corrected after the figure, with the reason, gets all 5. (b) 6 points: 3
# for $\partial L/\partial X$ = ones and col2im of it, 2 for 25 % with the reason, 1 for 100 %. (c) 4 points: 1 for 9,
# 1 for 9/4, 2 for an alternative together with its cost.
# ### END SOLUTION
