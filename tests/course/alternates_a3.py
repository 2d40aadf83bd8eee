"""Answers to A3 in four styles, written from the prose alone, and the bank's bugs planted in them by sentence."""
from named import Other, Planted

# ------------------------------------------------------------------------------------- 3.1 how many windows fit

SIZE_PAIRED = '''
def output_size(size, kernel, stride, padding):
    return tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding))
'''
SIZE_LISTED = '''
def output_size(size, kernel, stride, padding):
    (H, W), (kh, kw), (sh, sw), (ph, pw) = size, kernel, stride, padding
    tops = range(-ph, H + ph - kh + 1, sh)
    lefts = range(-pw, W + pw - kw + 1, sw)
    return len(tops), len(lefts)
'''
SIZE_COUNTED = '''
def places(pixels, window, step):
    count, end = 0, window
    while end <= pixels:
        count += 1
        end += step
    return count


def output_size(size, kernel, stride, padding):
    return (places(size[0] + 2 * padding[0], kernel[0], stride[0]),
            places(size[1] + 2 * padding[1], kernel[1], stride[1]))
'''

# ------------------------------------------------------------------ 3.2 and 3.3: the columns, and their transpose

GATHER_SLICES = SIZE_PAIRED + '''
def im2col(x, kernel, stride, padding):
    N, C, H, W = x.shape
    kh, kw = kernel
    sh, sw = stride
    ph, pw = padding
    Ho, Wo = output_size((H, W), kernel, stride, padding)
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    X = np.empty((C, kh, kw, N, Ho, Wo), x.dtype)
    for u in range(kh):
        for v in range(kw):
            X[:, u, v] = padded[:, :, u:u + sh * Ho:sh, v:v + sw * Wo:sw].transpose(1, 0, 2, 3)
    return X.reshape(C * kh * kw, N * Ho * Wo)
'''
SCATTER_SLICES = SIZE_PAIRED + '''
def col2im(cols, shape, kernel, stride, padding):
    N, C, H, W = shape
    kh, kw = kernel
    sh, sw = stride
    ph, pw = padding
    Ho, Wo = output_size((H, W), kernel, stride, padding)
    X = cols.reshape(C, kh, kw, N, Ho, Wo)
    padded = np.zeros((N, C, H + 2 * ph, W + 2 * pw), cols.dtype)
    for u in range(kh):
        for v in range(kw):
            padded[:, :, u:u + sh * Ho:sh, v:v + sw * Wo:sw] += X[:, u, v].transpose(1, 0, 2, 3)
    return padded[:, :, ph:ph + H, pw:pw + W].copy()
'''

GATHER_WINDOWS = '''
def im2col(x, kernel, stride, padding):
    N, C, H, W = x.shape
    kh, kw = kernel
    sh, sw = stride
    ph, pw = padding
    wall = np.zeros((N, C, H + 2 * ph, W + 2 * pw), dtype=x.dtype)
    wall[:, :, ph:ph + H, pw:pw + W] = x
    windows = []
    for image in wall:
        for top in range(0, wall.shape[2] - kh + 1, sh):
            for left in range(0, wall.shape[3] - kw + 1, sw):
                windows.append(image[:, top:top + kh, left:left + kw].ravel())
    return np.stack(windows, axis=1)
'''
SCATTER_WINDOWS = '''
def col2im(cols, shape, kernel, stride, padding):
    N, C, H, W = shape
    kh, kw = kernel
    sh, sw = stride
    ph, pw = padding
    wall = np.zeros((N, C, H + 2 * ph, W + 2 * pw), dtype=cols.dtype)
    column = 0
    for image in wall:
        for top in range(0, wall.shape[2] - kh + 1, sh):
            for left in range(0, wall.shape[3] - kw + 1, sw):
                image[:, top:top + kh, left:left + kw] += cols[:, column].reshape(C, kh, kw)
                column += 1
    return np.array(wall[:, :, ph:ph + H, pw:pw + W])
'''

INDICES = '''
def indices(size, kernel, stride, padding):
    (kh, kw), (sh, sw) = kernel, stride
    Ho = (size[0] + 2 * padding[0] - kh) // sh + 1
    Wo = (size[1] + 2 * padding[1] - kw) // sw + 1
    row = np.arange(kh)[:, None, None, None] + sh * np.arange(Ho)[None, None, :, None]
    column = np.arange(kw)[None, :, None, None] + sw * np.arange(Wo)[None, None, None, :]
    return row, column
'''
GATHER_INDICES = INDICES + '''
def im2col(x, kernel, stride, padding):
    around = [(0, 0), (0, 0), (padding[0], padding[0]), (padding[1], padding[1])]
    row, column = indices(x.shape[2:], kernel, stride, padding)
    picked = np.pad(x, around)[:, :, row, column]
    return np.moveaxis(picked, 0, 3).reshape(x.shape[1] * kernel[0] * kernel[1], -1)
'''
SCATTER_INDICES = INDICES + '''
def col2im(cols, shape, kernel, stride, padding):
    N, C, H, W = shape
    ph, pw = padding
    row, column = indices((H, W), kernel, stride, padding)
    Ho, Wo = row.shape[2], column.shape[3]
    total = np.zeros((N, C, H + 2 * ph, W + 2 * pw), cols.dtype)
    parts = cols.reshape(C, kernel[0], kernel[1], N, Ho, Wo).transpose(3, 0, 1, 2, 4, 5)
    np.add.at(total, (slice(None), slice(None), row, column), parts)
    return total[:, :, ph:H + ph, pw:W + pw] * 1
'''

GATHER_STRIDES = '''
def im2col(x, kernel, stride, padding):
    N, C = x.shape[:2]
    (kh, kw), (sh, sw), (ph, pw) = kernel, stride, padding
    if ph or pw:
        x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    Ho, Wo = (x.shape[2] - kh) // sh + 1, (x.shape[3] - kw) // sw + 1
    n, c, h, w = x.strides
    windows = np.lib.stride_tricks.as_strided(x, (C, kh, kw, N, Ho, Wo), (c, h, w, n, sh * h, sw * w), writeable=False)
    return windows.copy().reshape(C * kh * kw, N * Ho * Wo)
'''
SCATTER_COUNTED = '''
def numbered(shape, kernel, stride, padding):
    N, C, H, W = shape
    (kh, kw), (sh, sw), (ph, pw) = kernel, stride, padding
    number = np.full((N, C, H + 2 * ph, W + 2 * pw), N * C * H * W)
    number[:, :, ph:ph + H, pw:pw + W] = np.arange(N * C * H * W).reshape(shape)
    windows = np.lib.stride_tricks.sliding_window_view(number, (kh, kw), axis=(2, 3))[:, :, ::sh, ::sw]
    return windows.transpose(1, 4, 5, 0, 2, 3)


def col2im(cols, shape, kernel, stride, padding):
    pixel = numbered(shape, kernel, stride, padding).ravel()
    pixels = shape[0] * shape[1] * shape[2] * shape[3]
    sums = np.bincount(pixel, weights=cols.ravel(), minlength=pixels + 1)
    return sums[:pixels].reshape(shape).astype(cols.dtype)
'''

# ----------------------------------------------------------------------------------------- 3.4 and 3.5: convolution

PRODUCT = GATHER_SLICES + SCATTER_SLICES.replace(SIZE_PAIRED, "") + '''
def conv2d_forward(x, w, b, stride, padding):
    O, C, kh, kw = w.shape
    N, _, H, W = x.shape
    columns = im2col(x, (kh, kw), stride, padding)
    Ho, Wo = output_size((H, W), (kh, kw), stride, padding)
    Y = w.reshape(O, -1) @ columns + b[:, None]
    y = Y.reshape(O, N, Ho, Wo).transpose(1, 0, 2, 3)
    return y, (x.shape, columns, w, stride, padding)


def conv2d_backward(dy, cache):
    shape, columns, w, stride, padding = cache
    O, C, kh, kw = w.shape
    G = dy.transpose(1, 0, 2, 3).reshape(O, -1)
    dw = (G @ columns.T).reshape(w.shape)
    db = G.sum(axis=1)
    dcolumns = w.reshape(O, -1).T @ G
    dx = col2im(dcolumns, shape, (kh, kw), stride, padding)
    return dx, dw, db
'''

# One product for every element of the kernel; no columns at all.
OFFSETS = '''
def seen(u, v, stride, out):
    return (slice(None), slice(None), slice(u, u + stride[0] * (out[0] - 1) + 1, stride[0]),
            slice(v, v + stride[1] * (out[1] - 1) + 1, stride[1]))


def conv2d_forward(x, w, b, stride, padding):
    ph, pw = padding
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    kh, kw = w.shape[2:]
    out = (padded.shape[2] - kh) // stride[0] + 1, (padded.shape[3] - kw) // stride[1] + 1
    y = np.zeros((len(x), len(w), *out), x.dtype)
    for u in range(kh):
        for v in range(kw):
            y += np.einsum("oc,ncij->noij", w[:, :, u, v], padded[seen(u, v, stride, out)])
    y += b.reshape(1, -1, 1, 1)
    return y, dict(padded=padded, w=w, stride=stride, padding=padding, size=x.shape[2:])


def conv2d_backward(dy, cache):
    padded, w, stride = cache["padded"], cache["w"], cache["stride"]
    out = dy.shape[2:]
    dpadded, dw = np.zeros_like(padded), np.zeros_like(w)
    for u in range(w.shape[2]):
        for v in range(w.shape[3]):
            place = seen(u, v, stride, out)
            dw[:, :, u, v] = np.einsum("noij,ncij->oc", dy, padded[place])
            dpadded[place] += np.einsum("oc,noij->ncij", w[:, :, u, v], dy)
    (ph, pw), (H, W) = cache["padding"], cache["size"]
    dx = dpadded[:, :, ph:ph + H, pw:pw + W]
    return dx, dw, np.einsum("noij->o", dy)
'''

# dx as a convolution of dy, spread out by the stride, with the kernel turned by 180 degrees.
SPREAD = '''
def windows_of(x, kernel, stride):
    view = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=(2, 3))
    return view[:, :, ::stride[0], ::stride[1]]


def conv2d_forward(x, w, b, stride, padding):
    wide = np.pad(x, [(0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2])
    seen = windows_of(wide, w.shape[2:], stride)
    y = np.tensordot(w, seen, ((1, 2, 3), (1, 4, 5)))
    y = np.moveaxis(y, 0, 1) + b[:, None, None]
    return y, (seen, w, x.shape, stride, padding)


def conv2d_backward(dy, cache):
    seen, w, (N, C, H, W), (sh, sw), (ph, pw) = cache
    O, _, kh, kw = w.shape
    Ho, Wo = dy.shape[2:]
    dw = np.einsum("nohw,nchwij->ocij", dy, seen)
    db = dy.sum(3).sum(2).sum(0)
    spread = np.zeros((N, O, H + 2 * ph + kh - 1, W + 2 * pw + kw - 1), dy.dtype)
    spread[:, :, kh - 1:kh - 1 + sh * Ho:sh, kw - 1:kw - 1 + sw * Wo:sw] = dy
    turned = w[:, :, ::-1, ::-1]
    full = np.tensordot(windows_of(spread, (kh, kw), (1, 1)), turned, ((1, 4, 5), (0, 2, 3)))
    dx = np.moveaxis(full, 3, 1)[:, :, ph:ph + H, pw:pw + W]
    return np.ascontiguousarray(dx), dw, db
'''

# Columns image by image, a stack of products, and the scatter with add.at.
STACKED = INDICES + '''
def conv2d_forward(x, w, b, stride, padding):
    ph, pw = padding
    N, C, H, W = x.shape
    O, _, kh, kw = w.shape
    row, column = indices((H, W), (kh, kw), stride, padding)
    Ho, Wo = row.shape[2], column.shape[3]
    picked = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))[:, :, row, column].reshape(N, C * kh * kw, Ho * Wo)
    y = np.matmul(w.reshape(1, O, C * kh * kw), picked)
    y = y + b.reshape(O, 1)
    return y.reshape(N, O, Ho, Wo), [picked, w, x.shape, stride, padding]


def conv2d_backward(dy, cache):
    picked, w, (N, C, H, W), stride, (ph, pw) = cache
    O, _, kh, kw = w.shape
    G = dy.reshape(N, O, -1)
    dw = np.matmul(G, picked.transpose(0, 2, 1)).sum(0)
    db = G.sum((0, 2))
    dpicked = np.matmul(w.reshape(O, -1).T, G)
    row, column = indices((H, W), (kh, kw), stride, (ph, pw))
    total = np.zeros((N, C, H + 2 * ph, W + 2 * pw), dy.dtype)
    np.add.at(total, (slice(None), slice(None), row, column), dpicked.reshape(N, C, kh, kw, *dy.shape[2:]))
    return total[:, :, ph:ph + H, pw:pw + W], dw.reshape(w.shape), db
'''

# ----------------------------------------------------------------------------------------- 3.6 and 3.7: pooling

MAX_COLUMNS = GATHER_SLICES + SCATTER_SLICES.replace(SIZE_PAIRED, "") + '''
def max_pool_forward(x, kernel, stride, padding):
    N, C, H, W = x.shape
    ph, pw = padding
    padded = np.pad(x.reshape(N * C, 1, H, W), ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=-np.inf)
    columns = im2col(padded, kernel, stride, (0, 0))
    winner = columns.argmax(0)
    y = columns[winner, np.arange(winner.size)]
    Ho, Wo = output_size((H, W), kernel, stride, padding)
    return y.reshape(N, C, Ho, Wo), (winner, x.shape, kernel, stride, padding)


def max_pool_backward(dy, cache):
    winner, shape, kernel, stride, padding = cache
    N, C, H, W = shape
    columns = np.zeros((kernel[0] * kernel[1], winner.size), dy.dtype)
    columns[winner, np.arange(winner.size)] = dy.ravel()
    return col2im(columns, (N * C, 1, H, W), kernel, stride, padding).reshape(shape)
'''

# Window by window, on the unpadded image: a window at the border is cut off.
MAX_WINDOWS = '''
def spans(size, kernel, stride, padding):
    for i, top in enumerate(range(-padding[0], size[0] + padding[0] - kernel[0] + 1, stride[0])):
        for j, left in enumerate(range(-padding[1], size[1] + padding[1] - kernel[1] + 1, stride[1])):
            yield i, j, slice(max(top, 0), top + kernel[0]), slice(max(left, 0), left + kernel[1])


def max_pool_forward(x, kernel, stride, padding):
    Ho = (x.shape[2] + 2 * padding[0] - kernel[0]) // stride[0] + 1
    Wo = (x.shape[3] + 2 * padding[1] - kernel[1]) // stride[1] + 1
    y = np.zeros((x.shape[0], x.shape[1], Ho, Wo), x.dtype)
    for n, c in np.ndindex(x.shape[:2]):
        for i, j, rows, columns in spans(x.shape[2:], kernel, stride, padding):
            y[n, c, i, j] = x[n, c, rows, columns].max()
    return y, (x, kernel, stride, padding)


def max_pool_backward(dy, cache):
    x, kernel, stride, padding = cache
    dx = np.zeros_like(x)
    for n, c in np.ndindex(x.shape[:2]):
        for i, j, rows, columns in spans(x.shape[2:], kernel, stride, padding):
            window = x[n, c, rows, columns]
            a, b = np.unravel_index(np.argmax(window), window.shape)
            dx[n, c, rows, columns][a, b] += dy[n, c, i, j]
    return dx
'''

# A knock-out: the elements of the kernel come in turn, and one that is larger than all before it takes over.
MAX_TURNS = '''
def turns(x, kernel, stride, out):
    for u in range(kernel[0]):
        for v in range(kernel[1]):
            yield u * kernel[1] + v, x[:, :, u:u + stride[0] * out[0]:stride[0], v:v + stride[1] * out[1]:stride[1]]


def max_pool_forward(x, kernel, stride, padding):
    N, C, H, W = x.shape
    padded = np.full((N, C, H + 2 * padding[0], W + 2 * padding[1]), -np.inf, x.dtype)
    padded[:, :, padding[0]:padding[0] + H, padding[1]:padding[1] + W] = x
    out = [(n - k) // s + 1 for n, k, s in zip(padded.shape[2:], kernel, stride)]
    y = np.full((N, C, *out), -np.inf, x.dtype)
    who = np.zeros(y.shape, int)
    for turn, part in turns(padded, kernel, stride, out):
        better = part > y
        y = np.where(better, part, y)
        who = np.where(better, turn, who)
    return y, (who, padded.shape, (H, W), kernel, stride, padding)


def max_pool_backward(dy, cache):
    who, shape, (H, W), kernel, stride, (ph, pw) = cache
    dpadded = np.zeros(shape, dy.dtype)
    for turn, part in turns(dpadded, kernel, stride, who.shape[2:]):
        part += dy * (who == turn)
    return dpadded[:, :, ph:ph + H, pw:pw + W]
'''

AVERAGE_COLUMNS = GATHER_SLICES + SCATTER_SLICES.replace(SIZE_PAIRED, "") + '''
def avg_pool_forward(x, kernel, stride, padding):
    N, C, H, W = x.shape
    columns = im2col(x.reshape(N * C, 1, H, W), kernel, stride, padding)
    y = columns.mean(axis=0)
    Ho, Wo = output_size((H, W), kernel, stride, padding)
    return y.reshape(N, C, Ho, Wo), (x.shape, kernel, stride, padding)


def avg_pool_backward(dy, cache):
    shape, kernel, stride, padding = cache
    N, C, H, W = shape
    share = dy.reshape(1, -1) / (kernel[0] * kernel[1])
    columns = np.repeat(share, kernel[0] * kernel[1], axis=0)
    return col2im(columns, (N * C, 1, H, W), kernel, stride, padding).reshape(shape)
'''

AVERAGE_WINDOWS = '''
def spans(size, kernel, stride, padding):
    for i, top in enumerate(range(-padding[0], size[0] + padding[0] - kernel[0] + 1, stride[0])):
        for j, left in enumerate(range(-padding[1], size[1] + padding[1] - kernel[1] + 1, stride[1])):
            yield i, j, slice(max(top, 0), top + kernel[0]), slice(max(left, 0), left + kernel[1])


def avg_pool_forward(x, kernel, stride, padding):
    Ho = (x.shape[2] + 2 * padding[0] - kernel[0]) // stride[0] + 1
    Wo = (x.shape[3] + 2 * padding[1] - kernel[1]) // stride[1] + 1
    y = np.zeros((x.shape[0], x.shape[1], Ho, Wo), x.dtype)
    for i, j, rows, columns in spans(x.shape[2:], kernel, stride, padding):
        y[:, :, i, j] = x[:, :, rows, columns].sum((2, 3)) / (kernel[0] * kernel[1])
    return y, (x.shape, kernel, stride, padding)


def avg_pool_backward(dy, cache):
    shape, kernel, stride, padding = cache
    dx = np.zeros(shape, dy.dtype)
    for i, j, rows, columns in spans(shape[2:], kernel, stride, padding):
        dx[:, :, rows, columns] += dy[:, :, i:i + 1, j:j + 1] / (kernel[0] * kernel[1])
    return dx
'''

# The mean of a window is a mean over its rows, then over its columns: two small matrices; backward their transposes.
AVERAGE_MATRICES = '''
def averages(pixels, window, step, border, dtype):
    count = (pixels + 2 * border - window) // step + 1
    matrix = np.zeros((count, pixels + 2 * border), dtype)
    for place in range(count):
        matrix[place, place * step:place * step + window] = 1
    return matrix[:, border:border + pixels] / window


def avg_pool_forward(x, kernel, stride, padding):
    A = averages(x.shape[2], kernel[0], stride[0], padding[0], x.dtype)
    B = averages(x.shape[3], kernel[1], stride[1], padding[1], x.dtype)
    return A @ x @ B.T, (A, B)


def avg_pool_backward(dy, cache):
    A, B = cache
    return A.T @ dy @ B
'''

CONVOLUTIONS = [PRODUCT, OFFSETS, SPREAD, STACKED]
ALTERNATES = {
    "a3.1": [SIZE_PAIRED, SIZE_LISTED, SIZE_COUNTED],
    "a3.2": [GATHER_SLICES, GATHER_WINDOWS, GATHER_INDICES, GATHER_STRIDES],
    "a3.3": [SCATTER_SLICES, SCATTER_WINDOWS, SCATTER_INDICES, SCATTER_COUNTED],
    "a3.4": CONVOLUTIONS,
    "a3.5": CONVOLUTIONS,
    "a3.6": [MAX_COLUMNS, MAX_WINDOWS, MAX_TURNS],
    "a3.7": [AVERAGE_COLUMNS, AVERAGE_WINDOWS, AVERAGE_MATRICES],
}

# Planted(style, bug, *changes), each from the bug's sentence in the list of bugs alone.
PLANTED = {
    "a3.1": [
        Planted(0, 5, ("return tuple(", "return tuple(reversed([*("),
                ("zip(size, kernel, stride, padding))", "zip(size, kernel, stride, padding))]))")),
        Planted(1, 5, ("return len(tops), len(lefts)", "return len(lefts), len(tops)")),
        Planted(1, 6, ("W + pw - kw + 1", "W + pw - kh + 1")),
        Planted(2, 6, ("kernel[1]", "kernel[0]")),
        Planted(0, 10, ("// s + 1", "// s")),
        Planted(0, 10, ("(n + 2 * p - k) // s + 1", "round((n + 2 * p - k) / s) + 1")),
        Planted(1, 10, ("H + ph - kh + 1", "H + ph - kh"), ("W + pw - kw + 1", "W + pw - kw")),
        Planted(2, 10, ("count, end = 0, window", "count, end = 0, window + step")),
    ],
    "a3.2": [
        Planted(0, 5, ("N, C, H, W = x.shape", "N, C, W, H = x.shape")),
        Planted(1, 6, ("[:, top:top + kh, left:left + kw].ravel()",
                       "[:, top:top + kh, left:left + kw].swapaxes(1, 2).ravel()")),
        Planted(2, 6, ("row = np.arange(kh)[:, None, None, None]", "row = np.arange(kh)[None, :, None, None]"),
                ("column = np.arange(kw)[None, :, None, None]", "column = np.arange(kw)[:, None, None, None]")),
        Planted(0, 6, ("kh, kw = kernel", "kh = kw = kernel[0]")),
        Planted(1, 6, ("left:left + kw", "left:left + kh")),
        Planted(3, 6, ("(kh, kw), (sh, sw), (ph, pw) = kernel, stride, padding",
                       "(kh, kw), (sh, sw), (ph, pw) = (kernel[0], kernel[0]), stride, padding")),
        Planted(0, 14, ("return X.reshape", "return X.transpose(1, 2, 0, 3, 4, 5).reshape")),
        Planted(1, 14, (".ravel()", ".transpose(1, 2, 0).ravel()")),
        Planted(2, 14, ("return np.moveaxis(picked, 0, 3)", "return picked.transpose(2, 3, 1, 0, 4, 5)")),
        Planted(3, 14, ("(C, kh, kw, N, Ho, Wo), (c, h, w, n, sh * h, sw * w)",
                        "(kh, kw, C, N, Ho, Wo), (h, w, c, n, sh * h, sw * w)")),
        Planted(3, 16, ("windows.copy().reshape", "windows.reshape"), (", writeable=False", "")),
        Planted(3, 17, ("n, c, h, w = x.strides", "n, c, h, w = (x.itemsize * np.cumprod([1, x.shape[3], x.shape[2],"
                        " C]))[::-1].tolist()")),
        Planted(0, 24, ("np.empty((C, kh, kw, N, Ho, Wo), x.dtype)", "np.empty((C, kh, kw, N, Ho, Wo))")),
        Planted(1, 24, (", dtype=x.dtype", "")),
    ],
    "a3.3": [
        Planted(0, 1, ("+= X", "= X")),
        Planted(1, 1, ("+= cols", "= cols")),
        Planted(2, 1, ("np.add.at(total, (slice(None), slice(None), row, column), parts)",
                       "total[:, :, row, column] = parts")),
        Planted(2, 1, ("np.add.at(total, (slice(None), slice(None), row, column), parts)",
                       "total[:, :, row, column] += parts")),
        Planted(0, 2, ("u:u + sh * Ho:sh, v:v + sw * Wo:sw", "u:u + Ho, v:v + Wo")),
        Planted(2, 2, ("+ sh * np.arange", "+ np.arange"), ("+ sw * np.arange", "+ np.arange"),
                ),
        Planted(3, 2, ("[:, :, ::sh, ::sw]", "[:, :, :(H + 2 * ph - kh) // sh + 1, :(W + 2 * pw - kw) // sw + 1]")),
        Planted(0, 6, ("kh, kw = kernel", "kh = kw = kernel[0]")),
        Planted(1, 6, ("kh, kw = kernel", "kh, kw = kernel[0], kernel[0]")),
        Planted(0, 7, ("return padded[:, :, ph:ph + H, pw:pw + W].copy()", "return padded")),
        Planted(1, 7, ("wall[:, :, ph:ph + H, pw:pw + W]", "wall")),
        Planted(0, 8, ("[:, :, ph:ph + H, pw:pw + W]", "[:, :, ph:-ph, pw:-pw]")),
        Planted(2, 8, ("[:, :, ph:H + ph, pw:W + pw]", "[:, :, ph:-ph, pw:-pw]")),
        Planted(0, 9, ("(N, C, H + 2 * ph, W + 2 * pw)", "(N, C, (Ho - 1) * sh + kh, (Wo - 1) * sw + kw)")),
        Planted(2, 9, ("(N, C, H + 2 * ph, W + 2 * pw)", "(N, C, row.max() + 1, column.max() + 1)")),
        Planted(0, 14, ("X = cols.reshape(C, kh, kw, N, Ho, Wo)",
                        "X = cols.reshape(kh, kw, C, N, Ho, Wo).transpose(2, 0, 1, 3, 4, 5)")),
        Planted(1, 14, ("cols[:, column].reshape(C, kh, kw)", "cols[:, column].reshape(kh, kw, C).transpose(2, 0, 1)")),
        Planted(0, 24, ("(N, C, H + 2 * ph, W + 2 * pw), cols.dtype)", "(N, C, H + 2 * ph, W + 2 * pw))")),
        Planted(3, 24, (".astype(cols.dtype)", "")),
    ],
    "a3.4": [
        Planted(0, 4, ("Y = w.reshape(O, -1)", "Y = w[:, :, ::-1, ::-1].reshape(O, -1)")),
        Planted(1, 4, ('"oc,ncij->noij", w[:, :, u, v]', '"oc,ncij->noij", w[:, :, kh - 1 - u, kw - 1 - v]')),
        Planted(2, 4, ("np.tensordot(w, seen", "np.tensordot(np.flip(w, (2, 3)), seen")),
        Planted(3, 4, ("np.matmul(w.reshape(1, O, C * kh * kw)", "np.matmul(np.rot90(w, 2, (2, 3)).reshape(1, O, -1)")),
        Planted(0, 14, ("X[:, u, v] = padded", "X[u, v] = padded"), ("np.empty((C, kh, kw,", "np.empty((kh, kw, C,")),
        Planted(3, 14, (".reshape(N, C * kh * kw, Ho * Wo)",
                        ".transpose(0, 2, 3, 1, 4, 5).reshape(N, C * kh * kw, Ho * Wo)")),
        Planted(0, 15, ("y = Y.reshape(O, N, Ho, Wo).transpose(1, 0, 2, 3)", "y = Y.reshape(N, O, Ho, Wo)")),
        Planted(2, 15, ("y = np.moveaxis(y, 0, 1) + b[:, None, None]",
                        "y = y.reshape(y.shape[1], y.shape[0], *y.shape[2:]) + b[:, None, None]")),
        Planted(0, 19, ("+ b[:, None]", "+ C * kh * kw * b[:, None]")),
        Planted(2, 19, ("np.tensordot(w, seen, ((1, 2, 3), (1, 4, 5)))",
                        "np.einsum('ocijnhw->onhw', np.einsum('ocij,nchwij->ocijnhw', w, seen)"
                        " + (b - b / w[0].size)[:, None, None, None, None, None, None])")),
        Planted(3, 19, ("y = y + b.reshape(O, 1)", "y = y + w[0].size * b.reshape(O, 1)")),
        Planted(2, 25, ("y = np.tensordot(w, seen, ((1, 2, 3), (1, 4, 5)))",
                        """y = np.zeros((len(w), *seen.shape[:1], *seen.shape[2:4]), x.dtype)
for n in range(seen.shape[0]):
    for c in range(seen.shape[1]):
        for o in range(len(w)):
            for i in range(seen.shape[2]):
                for j in range(seen.shape[3]):
                    y[o, n, i, j] += (w[o, c] * seen[n, c, i, j]).sum()""")),
    ],
    "a3.5": [
        Planted(0, 1, ("+= X", "= X")),
        Planted(1, 1, ("dpadded[place] +=", "dpadded[place] =")),
        Planted(3, 1, ("np.add.at(total, (slice(None), slice(None), row, column), dpicked.reshape(N, C, kh, kw,"
                       " *dy.shape[2:]))", "total[:, :, row, column] += dpicked.reshape(N, C, kh, kw, *dy.shape[2:])")),
        Planted(0, 2, ("u:u + sh * Ho:sh, v:v + sw * Wo:sw] += X", "u:u + Ho, v:v + Wo] += X")),
        Planted(1, 2, ("dpadded[place] +=", "dpadded[:, :, u:u + out[0], v:v + out[1]] +=")),
        Planted(2, 2, ("kh - 1:kh - 1 + sh * Ho:sh, kw - 1:kw - 1 + sw * Wo:sw",
                       "kh - 1:kh - 1 + Ho, kw - 1:kw - 1 + Wo")),
        Planted(3, 2, ("row, column = indices((H, W), (kh, kw), stride, (ph, pw))",
                       "row, column = indices([kh + dy.shape[2] - 1, kw + dy.shape[3] - 1], (kh, kw), "
                       "(1, 1), (0, 0))")),
        Planted(0, 3, ("dcolumns = w.reshape", "dcolumns = w[:, :, ::-1, ::-1].reshape")),
        Planted(1, 3, ("w[:, :, u, v], dy)", "w[:, :, -1 - u, -1 - v], dy)")),
        Planted(2, 3, ("turned = w[:, :, ::-1, ::-1]", "turned = w")),
        Planted(0, 4, ("O, C, kh, kw = w.shape\n    N", "w = w[:, :, ::-1, ::-1]\nO, C, kh, kw = w.shape\nN"),
                ("dw = (G @ columns.T).reshape(w.shape)", "dw = (G @ columns.T).reshape(w.shape)[:, :, ::-1, ::-1]")),
        Planted(2, 4, ("wide = np.pad", "w = np.flip(w, (2, 3))\nwide = np.pad"),
                ("np.ascontiguousarray(dx), dw, db", "np.ascontiguousarray(dx), np.flip(dw, (2, 3)), db")),
        Planted(0, 11, ("dw = (G @ columns.T)", "dw = (G @ columns.T / len(dy))")),
        Planted(2, 11, ('"nohw,nchwij->ocij", dy, seen)', '"nohw,nchwij->ocij", dy, seen) / N')),
        Planted(3, 11, (".transpose(0, 2, 1)).sum(0)", ".transpose(0, 2, 1)).mean(0)")),
        Planted(1, 12, ('np.einsum("noij->o", dy)', "dy.sum(0)")),
        Planted(2, 12, ("dy.sum(3).sum(2).sum(0)", "dy.sum(0)")),
        Planted(0, 13, ("G.sum(axis=1)", "G.mean(axis=1)")),
        Planted(1, 13, ('np.einsum("noij->o", dy)', "dy.mean((0, 2, 3))")),
        Planted(3, 13, ("G.sum((0, 2))", "G.mean((0, 2))")),
        Planted(0, 15, ("G = dy.transpose(1, 0, 2, 3).reshape(O, -1)", "G = dy.reshape(O, -1)")),
        Planted(0, 15, ("G = dy.transpose(1, 0, 2, 3).reshape(O, -1)", "G = dy.reshape(O, -1)"),
                ("y = Y.reshape(O, N, Ho, Wo).transpose(1, 0, 2, 3)", "y = Y.reshape(N, O, Ho, Wo)")),
        Planted(0, 18, ("return y, (x.shape,", "conv2d_forward.columns = columns\nreturn y, (x.shape,"),
                ("G = dy", "columns = conv2d_forward.columns\nG = dy")),
        Planted(1, 18, ("return y, dict(padded=padded, w=w", "STORE['padded'] = padded\nreturn y, dict(w=w"),
                ("padded, w, stride = cache[\"padded\"]", "padded, w, stride = STORE['padded']"),
                ("def seen", "STORE = {}\n\n\ndef seen")),
    ],
    "a3.6": [
        Planted(2, 20, ("who = np.zeros(y.shape, int)", "first = y"),
                ("better = part > y", "pass"), ("y = np.where(better, part, y)", "y = np.maximum(y, part)"),
                ("who = np.where(better, turn, who)", "pass"),
                ("return y, (who,", "return y, ((y, padded),"),
                ("who, shape, (H, W)", "(y, padded), shape, (H, W)"),
                ("stride, who.shape[2:])", "stride, y.shape[2:])"),
                ("dy * (who == turn)", "dy * (dict(turns(padded, kernel, stride, y.shape[2:]))[turn] == y)")),
        Planted(1, 20, ("a, b = np.unravel_index(np.argmax(window), window.shape)", "mask = window == window.max()"),
                ("[a, b] += dy[n, c, i, j]", "[mask] += dy[n, c, i, j]")),
        Planted(0, 21, ("+= X", "= X")),
        Planted(1, 21, ("[a, b] += dy", "[a, b] = dy")),
        Planted(2, 21, ("part += dy * (who == turn)", "part[...] = np.where(who == turn, dy, part)")),
        Planted(2, 21, ("part += dy * (who == turn)", "part[...] = dy * (who == turn)")),
        Planted(0, 22, (", constant_values=-np.inf", "")),
        Planted(2, 22, ("padded = np.full((N, C, H + 2 * padding[0], W + 2 * padding[1]), -np.inf, x.dtype)",
                        "padded = np.zeros((N, C, H + 2 * padding[0], W + 2 * padding[1]), x.dtype)")),
    ],
    "a3.7": [
        Planted(0, 21, ("+= X", "= X")),
        Planted(1, 21, ("dx[:, :, rows, columns] += dy[:, :, i:i + 1, j:j + 1]",
                        "dx[:, :, rows, columns] = dy[:, :, i:i + 1, j:j + 1]")),
        Planted(1, 23, ("y[:, :, i, j] = x[:, :, rows, columns].sum((2, 3)) / (kernel[0] * kernel[1])",
                        "y[:, :, i, j] = x[:, :, rows, columns].mean((2, 3))"),
                ("dy[:, :, i:i + 1, j:j + 1] / (kernel[0] * kernel[1])",
                 "dy[:, :, i:i + 1, j:j + 1] / dx[0, 0, rows, columns].size")),
        Planted(1, 23, ("y[:, :, i, j] = x[:, :, rows, columns].sum((2, 3)) / (kernel[0] * kernel[1])",
                        "y[:, :, i, j] = x[:, :, rows, columns].mean((2, 3))")),
        Planted(2, 23, ("return matrix[:, border:border + pixels] / window",
                        "matrix = matrix[:, border:border + pixels]\nreturn matrix / matrix.sum(1, keepdims=True)")),
    ],
}

# Mistakes of the same kind that the bank does not hold.
OTHERS = {
    "a3.1": [Other(0, ("// s + 1", "// s + 3")), Other(0, ("2 * p", "3 * p")),
             Other(1, ("return len(tops), len(lefts)", "return len(tops) * len(lefts), len(lefts)")),
             Other(2, ("end += step", "end += step + 1"))],
    "a3.2": [Other(1, ("return np.stack(windows, axis=1)", "return np.stack(windows[::-1], axis=1)")),
             Other(3, ("(c, h, w, n, sh * h, sw * w)", "(c, w, h, n, sh * h, sw * w)"))],
    "a3.3": [Other(1, ("+= cols[:, column]", "-= cols[:, column]")),
             Other(3, ("np.full((N, C, H + 2 * ph, W + 2 * pw), N * C * H * W)",
                       "np.full((N, C, H + 2 * ph, W + 2 * pw), 0)"))],
    "a3.4": [Other(1, ("b.reshape(1, -1, 1, 1)", "b.mean()")), Other(2, ("+ b[:, None, None]", "- b[:, None, None]"))],
    "a3.5": [Other(0, ("dw = (G @ columns.T)", "dw = (G @ columns.T + w.reshape(O, -1))")),
             Other(3, ("db = G.sum((0, 2))", "db = G.max((0, 2))"))],
    "a3.6": [Other(1, ("np.argmax(window)", "np.argmin(window)")),
             Other(2, ("who = np.where(better, turn, who)", "who = np.where(better, turn, 0)"))],
    "a3.7": [Other(2, ("return matrix[:, border:border + pixels] / window",
                       "return matrix[:, border:border + pixels] / window ** 0.5")),
             Other(0, ("columns.mean(axis=0)", "np.median(columns, axis=0)"))],
}
