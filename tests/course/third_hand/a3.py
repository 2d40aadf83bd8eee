"""A third hand's answers to A3, and the bank's bugs planted in them by sentence: see named.py."""

FIT = '''
def fit(n, k, s, p):
    return 1 + (n + 2 * p - k) // s
'''

SIZE = FIT + '''

def output_size(size, kernel, stride, padding):
    down, across = zip(size, kernel, stride, padding)
    return fit(*down), fit(*across)
'''

IM2COL = FIT + '''

def im2col(x, kernel, stride, padding):
    (kh, kw), (sh, sw), (ph, pw) = kernel, stride, padding
    N, C, H, W = x.shape
    Ho, Wo = fit(H, kh, sh, ph), fit(W, kw, sw, pw)
    big = np.zeros((N, C, H + 2 * ph, W + 2 * pw), x.dtype)
    big[:, :, ph:ph + H, pw:pw + W] = x
    down = np.arange(kh)[:, None] + sh * np.arange(Ho)
    across = np.arange(kw)[:, None] + sw * np.arange(Wo)
    seen = big[:, :, down[:, None, :, None], across[None, :, None, :]]
    return seen.transpose(1, 2, 3, 0, 4, 5).reshape(C * kh * kw, N * Ho * Wo)
'''

COL2IM_ONLY = '''

def col2im(cols, shape, kernel, stride, padding):
    (kh, kw), (sh, sw), (ph, pw) = kernel, stride, padding
    N, C, H, W = shape
    Ho, Wo = fit(H, kh, sh, ph), fit(W, kw, sw, pw)
    back = cols.reshape(C, kh, kw, N, Ho, Wo).transpose(3, 0, 1, 2, 4, 5)
    canvas = np.zeros((N, C, H + 2 * ph, W + 2 * pw), cols.dtype)
    lines = np.arange(kh)[:, None] + sh * np.arange(Ho)
    rows = np.arange(kw)[:, None] + sw * np.arange(Wo)
    place = slice(None), slice(None), lines[:, None, :, None], rows[None, :, None, :]
    np.add.at(canvas, place, back)
    return canvas[:, :, ph:ph + H, pw:pw + W]
'''
COL2IM = FIT + COL2IM_ONLY

FORWARD = IM2COL + '''

def conv2d_forward(x, w, b, stride, padding):
    O, _, *kernel = w.shape
    table = im2col(x, kernel, stride, padding)
    out = np.tensordot(w.reshape(O, -1), table, 1) + b[:, None]
    Ho, Wo = (fit(n, k, s, p) for n, k, s, p in zip(x.shape[2:], kernel, stride, padding))
    return out.reshape(O, len(x), Ho, Wo).swapaxes(0, 1), (table, w, x.shape, stride, padding)
'''

BACKWARD = FORWARD + COL2IM_ONLY + '''

def conv2d_backward(dy, cache):
    table, w, shape, stride, padding = cache
    O, C, u, v = w.shape
    G = dy.swapaxes(0, 1).reshape(O, -1)
    dw = np.einsum("op,kp->ok", G, table, optimize=True).reshape(w.shape)
    dtable = np.einsum("ok,op->kp", w.reshape(O, C * u * v), G, optimize=True)
    dx = col2im(dtable, shape, (u, v), stride, padding)
    return dx, dw, np.einsum("nohw->o", dy)
'''

PIECES = FIT + '''

def slots(kernel, stride, size):
    """For each element of the kernel in turn: the index of what it sees, in all windows at once."""
    (kh, kw), (sh, sw), (Ho, Wo) = kernel, stride, size
    return [(..., slice(u, u + sh * (Ho - 1) + 1, sh), slice(v, v + sw * (Wo - 1) + 1, sw))
            for u in range(kh) for v in range(kw)]


def frame(shape, padding, dtype, value=0):
    """An array with room for the padding, and the index of the image in it."""
    N, C, H, W = shape
    ph, pw = padding
    return np.full((N, C, H + 2 * ph, W + 2 * pw), value, dtype), (..., slice(ph, ph + H), slice(pw, pw + W))
'''

MAXPOOL = PIECES + '''

def max_pool_forward(x, kernel, stride, padding):
    size = [fit(*d) for d in zip(x.shape[2:], kernel, stride, padding)]
    big, middle = frame(x.shape, padding, x.dtype, -np.inf)
    big[middle] = x
    todo = slots(kernel, stride, size)
    best, who = big[todo[0]].copy(), np.zeros(x.shape[:2] + tuple(size), int)
    for t, slot in enumerate(todo):
        better = big[slot] > best
        best[better] = big[slot][better]
        who[better] = t
    return best, (who, todo, x.shape, padding)


def max_pool_backward(dy, cache):
    who, todo, shape, padding = cache
    grid, middle = frame(shape, padding, dy.dtype)
    for t, slot in enumerate(todo):
        grid[slot] += dy * (who == t)
    return grid[middle]
'''

AVGPOOL = PIECES + '''

def avg_pool_forward(x, kernel, stride, padding):
    kh, kw = kernel
    size = [fit(*d) for d in zip(x.shape[2:], (kh, kw), stride, padding)]
    todo = slots((kh, kw), stride, size)
    big, middle = frame(x.shape, padding, x.dtype)
    big[middle] = x
    area = kh * kw
    return sum(big[slot] for slot in todo) / area, (todo, area, x.shape, padding)


def avg_pool_backward(dy, cache):
    todo, area, shape, padding = cache
    grid, middle = frame(shape, padding, dy.dtype)
    for slot in todo:
        grid[slot] += dy / area
    return grid[middle]
'''

ANSWERS = {"a3.1": SIZE, "a3.2": IM2COL, "a3.3": COL2IM, "a3.4": FORWARD, "a3.5": BACKWARD, "a3.6": MAXPOOL,
           "a3.7": AVGPOOL}

GATHER = IM2COL[IM2COL.index("    big = np.zeros"):].rstrip("\n")
CONV = FORWARD[FORWARD.index("    table = im2col"):].rstrip("\n")
# in col2im, by the name of its shape
READ = ("(kh, kw), (sh, sw), (ph, pw) = kernel, stride, padding\n    N, C, H, W = shape",
        "(kw, kh), (sw, sh), (pw, ph) = kernel, stride, padding\n    N, C, H, W = shape")

PLANTED = {
    "a3.1": [
        (5, ("return fit(*down), fit(*across)", "return fit(*across), fit(*down)")),
        (6, ("zip(size, kernel, stride, padding)", "zip(size, (kernel[0], kernel[0]), stride, padding)")),
        (10, ("return 1 + (n + 2 * p - k) // s", "return (n + 2 * p - k) // s")),
    ],
    "a3.2": [
        (2, ("np.arange(kh)[:, None] + sh * np.arange(Ho)", "np.arange(kh)[:, None] + np.arange(Ho)"),
            ("np.arange(kw)[:, None] + sw * np.arange(Wo)", "np.arange(kw)[:, None] + np.arange(Wo)")),
        (4, ("seen.transpose(1, 2, 3, 0, 4, 5)", "seen[:, :, ::-1, ::-1].transpose(1, 2, 3, 0, 4, 5)")),
        (5, ("(kh, kw), (sh, sw), (ph, pw) = kernel", "(kw, kh), (sw, sh), (pw, ph) = kernel")),
        (6, ("(kh, kw), (sh, sw), (ph, pw) = kernel, stride, padding",
             "(sh, sw), (ph, pw) = stride, padding\n    kh = kw = kernel[0]")),
        (14, ("seen.transpose(1, 2, 3, 0, 4, 5)", "seen.transpose(2, 3, 1, 0, 4, 5)")),
        (16, ("big = np.zeros((N, C, H + 2 * ph, W + 2 * pw), x.dtype)",
              "if kh == kw == sh == sw == 1 and ph == pw == 0:  # every pixel is a window\n"
              "        return x.swapaxes(0, 1).reshape(C, N * Ho * Wo)\n"
              "    big = np.zeros((N, C, H + 2 * ph, W + 2 * pw), x.dtype)")),
        (17, (GATHER, """    big = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw))) if ph or pw else x
    h, w, one = H + 2 * ph, W + 2 * pw, x.itemsize
    seen = np.lib.stride_tricks.as_strided(
        big, (C, kh, kw, N, Ho, Wo),
        (h * w * one, w * one, one, C * h * w * one, sh * w * one, sw * one))
    return seen.reshape(C * kh * kw, N * Ho * Wo).copy()""")),
        (24, ("np.zeros((N, C, H + 2 * ph, W + 2 * pw), x.dtype)", "np.zeros((N, C, H + 2 * ph, W + 2 * pw))")),
    ],
    "a3.3": [
        (1, ("np.add.at(canvas, place, back)", "canvas[place] = back")),
        (2, ("np.arange(kh)[:, None] + sh * np.arange(Ho)", "np.arange(kh)[:, None] + np.arange(Ho)"),
            ("np.arange(kw)[:, None] + sw * np.arange(Wo)", "np.arange(kw)[:, None] + np.arange(Wo)")),
        (3, ("np.add.at(canvas, place, back)", "np.add.at(canvas, place, back[:, :, ::-1, ::-1])")),
        (5, READ),
        (6, ("cols.reshape(C, kh, kw, N, Ho, Wo).transpose(3, 0, 1, 2, 4, 5)",
             "cols.reshape(C, kw, kh, N, Ho, Wo).transpose(3, 0, 2, 1, 4, 5)")),
        (7, ("canvas[:, :, ph:ph + H, pw:pw + W]", "canvas[:, :, :H, :W]")),
        (8, ("canvas[:, :, ph:ph + H, pw:pw + W]", "canvas[:, :, ph:-ph, pw:-pw]")),
        (9, ("np.zeros((N, C, H + 2 * ph, W + 2 * pw), cols.dtype)",
             "np.zeros((N, C, (Ho - 1) * sh + kh, (Wo - 1) * sw + kw), cols.dtype)")),
        (14, ("cols.reshape(C, kh, kw, N, Ho, Wo).transpose(3, 0, 1, 2, 4, 5)",
              "cols.reshape(kh, kw, C, N, Ho, Wo).transpose(3, 2, 0, 1, 4, 5)")),
        (24, ("np.zeros((N, C, H + 2 * ph, W + 2 * pw), cols.dtype)", "np.zeros((N, C, H + 2 * ph, W + 2 * pw))")),
    ],
    "a3.4": [
        (4, ("w.reshape(O, -1)", "w[:, :, ::-1, ::-1].reshape(O, -1)")),
        (5, ("O, _, *kernel = w.shape", "O, _, *kernel = w.shape\n    stride, padding = stride[::-1], padding[::-1]")),
        (6, ("w.reshape(O, -1)", "w.swapaxes(2, 3).reshape(O, -1)")),
        (14, ("seen.transpose(1, 2, 3, 0, 4, 5)", "seen.transpose(2, 3, 1, 0, 4, 5)")),
        (15, ("out.reshape(O, len(x), Ho, Wo).swapaxes(0, 1)", "out.reshape(len(x), O, Ho, Wo)")),
        (18, ("def conv2d_forward(", "memory = {}\n\n\ndef conv2d_forward("),
             ("table = im2col(x, kernel, stride, padding)",
              "fresh = im2col(x, kernel, stride, padding)\n"
              "    table = memory.setdefault((fresh.shape, fresh.dtype), fresh)\n    table[...] = fresh")),
        (19, ("out = np.tensordot(w.reshape(O, -1), table, 1) + b[:, None]",
              "out = sum(k[:, None] * line + b[:, None] for k, line in zip(w.reshape(O, -1).T, table))")),
        (25, ("out = np.tensordot(w.reshape(O, -1), table, 1) + b[:, None]\n", ""),
             ("return out.reshape(O, len(x), Ho, Wo).swapaxes(0, 1), (table, w, x.shape, stride, padding)",
              """(kh, kw), (sh, sw), (ph, pw) = kernel, stride, padding
    big = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    y = np.zeros((len(x), O, Ho, Wo), x.dtype)
    for n in range(len(x)):
        for o in range(O):
            for i in range(Ho):
                for j in range(Wo):
                    y[n, o, i, j] = b[o]
                    for c in range(x.shape[1]):
                        y[n, o, i, j] += (w[o, c] * big[n, c, i * sh:i * sh + kh, j * sw:j * sw + kw]).sum()
    return y, (table, w, x.shape, stride, padding)""")),
    ],
    "a3.5": [
        (1, ("np.add.at(canvas, place, back)", "canvas[place] = back")),
        (2, ("lines = np.arange(kh)[:, None] + sh * np.arange(Ho)", "lines = np.arange(kh)[:, None] + np.arange(Ho)"),
            ("rows = np.arange(kw)[:, None] + sw * np.arange(Wo)", "rows = np.arange(kw)[:, None] + np.arange(Wo)")),
        (3, ("w.reshape(O, C * u * v)", "w[:, :, ::-1, ::-1].reshape(O, C * u * v)")),
        (4, ("w.reshape(O, -1)", "w[:, :, ::-1, ::-1].reshape(O, -1)"),
            ("w.reshape(O, C * u * v)", "w[:, :, ::-1, ::-1].reshape(O, C * u * v)"),
            ("optimize=True).reshape(w.shape)", "optimize=True).reshape(w.shape)[:, :, ::-1, ::-1]")),
        (5, ("G = dy.swapaxes(0, 1).reshape(O, -1)", "G = dy.transpose(1, 0, 3, 2).reshape(O, -1)")),
        (6, ("optimize=True).reshape(w.shape)", "optimize=True).reshape(O, C, v, u).swapaxes(2, 3)"),
            ("w.reshape(O, C * u * v)", "w.swapaxes(2, 3).reshape(O, C * u * v)")),
        (11, ("optimize=True).reshape(w.shape)", "optimize=True).reshape(w.shape) / len(dy)")),
        (12, ('np.einsum("nohw->o", dy)', 'np.einsum("nohw->ohw", dy)')),
        (13, ('np.einsum("nohw->o", dy)', "dy.mean((0, 2, 3))")),
        (14, ("seen.transpose(1, 2, 3, 0, 4, 5)", "seen.transpose(2, 3, 1, 0, 4, 5)"),
             ("cols.reshape(C, kh, kw, N, Ho, Wo).transpose(3, 0, 1, 2, 4, 5)",
              "cols.reshape(kh, kw, C, N, Ho, Wo).transpose(3, 2, 0, 1, 4, 5)")),
        (15, ("G = dy.swapaxes(0, 1).reshape(O, -1)", "G = dy.reshape(O, -1)")),
        (18, ("def conv2d_forward(", "memory = {}\n\n\ndef conv2d_forward("),
             ("table = im2col(x, kernel, stride, padding)",
              "table = memory['table'] = im2col(x, kernel, stride, padding)"),
             ("table, w, shape, stride, padding = cache",
              "_, w, shape, stride, padding = cache\n    table = memory['table']")),
    ],
    "a3.6": [
        (20, ("better = big[slot] > best", "better = big[slot] >= best")),
        (21, ("grid[slot] += dy * (who == t)", "grid[slot] = dy * (who == t)")),
        (22, ("frame(x.shape, padding, x.dtype, -np.inf)", "frame(x.shape, padding, x.dtype)")),
        (24, ("frame(x.shape, padding, x.dtype, -np.inf)", "frame(x.shape, padding, float, -np.inf)")),
    ],
    "a3.7": [
        (6, ("kh, kw = kernel\n    size", "kh = kw = kernel[0]\n    size")),
        (21, ("grid[slot] += dy / area", "grid[slot] = dy / area")),
        (23, ("area = kh * kw\n", "ones = np.zeros_like(big)\n    ones[middle] = 1\n"
                                  "    area = sum(ones[slot] for slot in todo)\n")),
    ],
}
