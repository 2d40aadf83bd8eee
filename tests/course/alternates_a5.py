"""Answers to A5 in four styles, written from the prose alone, and the bank's bugs planted in them by sentence."""
from named import Other, Planted

# ------------------------------------------------------------------------ 5.1 and 5.2: the block, by hand

# One line for each step, with the given layers.
STEPS = '''
def residual_forward(x, p, eps):
    a1, conv1 = conv_forward(x, p["w1"], 1, 1)
    b1, bn1 = bn_forward(a1, p["gamma1"], p["beta1"], eps)
    h = relu(b1)
    a2, conv2 = conv_forward(h, p["w2"], 1, 1)
    F, bn2 = bn_forward(a2, p["gamma2"], p["beta2"], eps)
    z = F + x
    return relu(z), (x, conv1, bn1, a1, b1, conv2, bn2, F, z)


def residual_backward(dy, cache):
    x, conv1, bn1, a1, b1, conv2, bn2, F, z = cache
    dp = {}
    dz = relu_backward(dy, z)
    da2, dp["gamma2"], dp["beta2"] = bn_backward(dz, bn2)
    dh, dp["w2"] = conv_backward(da2, conv2)
    db1 = relu_backward(dh, b1)
    da1, dp["gamma1"], dp["beta1"] = bn_backward(db1, bn1)
    dx, dp["w1"] = conv_backward(da1, conv1)
    return dx + dz, dp
'''

# Each layer leaves a function on a tape that returns the gradient of its input.
TAPE = '''
def residual_forward(x, p, eps):
    tape = []

    def conv(t, name):
        out, saved = conv_forward(t, p[name], 1, 1)

        def back(g, dp):
            g, dp[name] = conv_backward(g, saved)
            return g

        tape.append(back)
        return out

    def bn(t, i):
        out, saved = bn_forward(t, p["gamma" + i], p["beta" + i], eps)

        def back(g, dp):
            g, dp["gamma" + i], dp["beta" + i] = bn_backward(g, saved)
            return g

        tape.append(back)
        return out

    def rectify(t):
        tape.append(lambda g, dp: relu_backward(g, t))
        return relu(t)

    out = rectify(bn(conv(x, "w1"), "1"))
    out = bn(conv(out, "w2"), "2")
    y = relu(out + x)
    return y, (y > 0, tape)


def residual_backward(dy, cache):
    mask, tape = cache
    skip = np.where(mask, dy, np.zeros_like(dy))
    g, dp = skip, {}
    for back in reversed(tape):
        g = back(g, dp)
    return g + skip, dp
'''

# Nothing given is used: shifted slices for the convolution, masks for ReLU, BN through its projections.
SCRATCH = '''
def shifts(size, s):
    """The output's and the input's slice for each of the three offsets of a 3x3 window, stride s, padding 1."""
    out = (size - 1) // s + 1
    for k in range(3):
        first = 1 if k == 0 else 0
        last = min(out, (size - k) // s + 1)
        yield k, slice(first, last), slice(first * s + k - 1, (last - 1) * s + k, s)


def correlate(x, w, s=1):
    y = np.zeros((len(x), len(w), (x.shape[2] - 1) // s + 1, (x.shape[3] - 1) // s + 1), x.dtype)
    for i, to_row, row in shifts(x.shape[2], s):
        for j, to_col, col in shifts(x.shape[3], s):
            y[:, :, to_row, to_col] += np.einsum("oc,nchw->nohw", w[:, :, i, j], x[:, :, row, col])
    return y


def correlate_back(dy, x, w, s=1):
    dx, dw = np.zeros(x.shape, x.dtype), np.zeros(w.shape, w.dtype)
    for i, to_row, row in shifts(x.shape[2], s):
        for j, to_col, col in shifts(x.shape[3], s):
            g = dy[:, :, to_row, to_col]
            dw[:, :, i, j] = np.einsum("nohw,nchw->oc", g, x[:, :, row, col])
            dx[:, :, row, col] += np.einsum("oc,nohw->nchw", w[:, :, i, j], g)
    return dx, dw


def standardise(a, eps):
    rows = np.moveaxis(a, 1, 0).reshape(a.shape[1], -1)
    rows = rows - rows.mean(1, keepdims=True)
    scale = np.sqrt(np.square(rows).mean(1) + eps)
    return np.moveaxis((rows / scale[:, None]).reshape(a.shape[1], a.shape[0], *a.shape[2:]), 0, 1), scale


def wide(v):
    return v[:, None, None]


def standardise_back(g, xhat, scale):
    mean = lambda t: wide(t.mean(axis=(0, 2, 3)))
    return (g - mean(g) - xhat * mean(g * xhat)) / wide(scale)


def residual_forward(x, p, eps):
    n1, s1 = standardise(correlate(x, p["w1"]), eps)
    b1 = wide(p["gamma1"]) * n1 + wide(p["beta1"])
    open1 = b1 > 0
    h = b1 * open1
    n2, s2 = standardise(correlate(h, p["w2"]), eps)
    z = wide(p["gamma2"]) * n2 + wide(p["beta2"]) + x
    open2 = z > 0
    return z * open2, dict(x=x, p=p, n1=n1, s1=s1, open1=open1, h=h, n2=n2, s2=s2, open2=open2)


def residual_backward(dy, cache):
    p, axes = cache["p"], (0, 2, 3)
    top = dy * cache["open2"]
    gamma2, beta2 = (top * cache["n2"]).sum(axes), top.sum(axes)
    inside = standardise_back(top * wide(p["gamma2"]), cache["n2"], cache["s2"])
    inside, w2 = correlate_back(inside, cache["h"], p["w2"])
    inside = inside * cache["open1"]
    gamma1, beta1 = (inside * cache["n1"]).sum(axes), inside.sum(axes)
    inside = standardise_back(inside * wide(p["gamma1"]), cache["n1"], cache["s1"])
    bottom, w1 = correlate_back(inside, cache["x"], p["w1"])
    bottom += top
    return bottom, {"w1": w1, "gamma1": gamma1, "beta1": beta1, "w2": w2, "gamma2": gamma2, "beta2": beta2}
'''

# A graph in small: every value has a name, and gradients are added up under the names.
NODES = '''
def layers(p, eps):
    return [("conv", "x", "a1", "1"), ("bn", "a1", "b1", "1"), ("relu", "b1", "h", ""),
            ("conv", "h", "a2", "2"), ("bn", "a2", "F", "2"), ("sum", ("F", "x"), "z", ""), ("relu", "z", "y", "")]


def residual_forward(x, p, eps):
    values, saved = {"x": x}, {}
    for kind, source, target, i in layers(p, eps):
        if kind == "conv":
            values[target], saved[target] = conv_forward(values[source], p["w" + i], 1, 1)
        elif kind == "bn":
            values[target], saved[target] = bn_forward(values[source], p["gamma" + i], p["beta" + i], eps)
        elif kind == "sum":
            values[target] = values[source[0]] + values[source[1]]
        else:
            values[target] = relu(values[source])
    return values["y"], (values, saved, layers(p, eps))


def residual_backward(dy, cache):
    values, saved, order = cache
    grads, dp = {"y": dy}, {}

    def add(name, g):
        grads[name] = grads[name] + g if name in grads else g

    for kind, source, target, i in reversed(order):
        g = grads[target]
        if kind == "conv":
            g, dp["w" + i] = conv_backward(g, saved[target])
            add(source, g)
        elif kind == "bn":
            g, dp["gamma" + i], dp["beta" + i] = bn_backward(g, saved[target])
            add(source, g)
        elif kind == "sum":
            for part in source:
                add(part, g)
        else:
            add(source, relu_backward(g, values[source]))
    return grads["x"], dp
'''

# ------------------------------------------------------------------------------------------ 5.3 option A

OPTION_SLICES = '''
def before(extra, pad):
    return extra // 2 if pad == "both" else 0


def shortcut_a(x, stride, channels, pad):
    small = x[:, :, ::stride, ::stride]
    first = before(channels - x.shape[1], pad)
    y = np.zeros((len(x), channels, *small.shape[2:]), x.dtype)
    y[:, first:first + x.shape[1]] = small
    return y


def shortcut_a_backward(dy, shape, stride, pad):
    first = before(dy.shape[1] - shape[1], pad)
    dx = np.zeros(shape, dy.dtype)
    dx[:, :, ::stride, ::stride] = dy[:, first:first + shape[1]]
    return dx
'''
OPTION_LOOPS = '''
def shortcut_a(x, stride, channels, pad):
    N, C, H, W = x.shape
    offset = {"end": 0, "both": (channels - C) // 2}[pad]
    y = np.zeros((N, channels, -(-H // stride), -(-W // stride)), x.dtype)
    for c in range(C):
        for i in range(y.shape[2]):
            for j in range(y.shape[3]):
                y[:, offset + c, i, j] = x[:, c, stride * i, stride * j]
    return y


def shortcut_a_backward(dy, shape, stride, pad):
    N, C, H, W = shape
    offset = {"end": 0, "both": (dy.shape[1] - C) // 2}[pad]
    dx = np.zeros(shape, dy.dtype)
    for c in range(C):
        for i in range(0, H, stride):
            for j in range(0, W, stride):
                dx[:, c, i, j] = dy[:, offset + c, i // stride, j // stride]
    return dx
'''
# A linear map along each axis: three matrices of zeros and ones, and their transposes.
OPTION_MATRICES = '''
def picks(size, stride, dtype):
    return np.eye(size, dtype=dtype)[::stride]


def places(C, channels, pad, dtype):
    first = (channels - C) // 2 if pad == "both" else 0
    return np.eye(channels, C, -first, dtype=dtype)


def shortcut_a(x, stride, channels, pad):
    N, C, H, W = x.shape
    R, S, P = picks(H, stride, x.dtype), picks(W, stride, x.dtype), places(C, channels, pad, x.dtype)
    return np.einsum("oc,nchw,ih,jw->noij", P, x, R, S, optimize=True)


def shortcut_a_backward(dy, shape, stride, pad):
    N, C, H, W = shape
    R, S, P = picks(H, stride, dy.dtype), picks(W, stride, dy.dtype), places(C, dy.shape[1], pad, dy.dtype)
    return np.einsum("oc,noij,ih,jw->nchw", P, dy, R, S, optimize=True)
'''
OPTION_PAD = '''
def shortcut_a(x, stride, channels, pad):
    missing = channels - x.shape[1]
    front = missing // 2 if pad == "both" else 0
    return np.pad(x[:, :, ::stride, ::stride], [(0, 0), (front, missing - front), (0, 0), (0, 0)]).copy()


def shortcut_a_backward(dy, shape, stride, pad):
    front = (dy.shape[1] - shape[1]) // 2 if pad == "both" else 0
    dy = dy[:, front:front + shape[1]]
    rows, columns = np.indices(shape[2:]) % stride
    spread = dy.repeat(stride, axis=2).repeat(stride, axis=3)[:, :, :shape[2], :shape[3]]
    return np.where((rows == 0) & (columns == 0), spread, np.zeros((), dy.dtype))
'''

# ------------------------------------------------------------------------------------ 5.4 the general block

GENERAL_STEPS = OPTION_SLICES + '''
def block_forward(x, p, eps, stride=1, pad="both"):
    a1, conv1 = conv_forward(x, p["w1"], stride, 1)
    b1, bn1 = bn_forward(a1, p["gamma1"], p["beta1"], eps)
    h = relu(b1)
    a2, conv2 = conv_forward(h, p["w2"], 1, 1)
    F, bn2 = bn_forward(a2, p["gamma2"], p["beta2"], eps)
    if "ws" in p:
        a3, convs = conv_forward(x, p["ws"], stride, 0)
        s, bns = bn_forward(a3, p["gammas"], p["betas"], eps)
        kind, saved = "B", (convs, bns)
    elif stride == 1 and x.shape[1] == F.shape[1]:
        s, kind, saved = x, "identity", None
    else:
        s, kind, saved = shortcut_a(x, stride, F.shape[1], pad), "A", (x.shape, stride, pad)
    z = F + s
    return relu(z), (conv1, bn1, b1, conv2, bn2, z, F, kind, saved)


def block_backward(dy, cache):
    conv1, bn1, b1, conv2, bn2, z, F, kind, saved = cache
    dp = {}
    dz = relu_backward(dy, z)
    da2, dp["gamma2"], dp["beta2"] = bn_backward(dz, bn2)
    dh, dp["w2"] = conv_backward(da2, conv2)
    db1 = relu_backward(dh, b1)
    da1, dp["gamma1"], dp["beta1"] = bn_backward(db1, bn1)
    dx, dp["w1"] = conv_backward(da1, conv1)
    if kind == "B":
        da3, dp["gammas"], dp["betas"] = bn_backward(dz, saved[1])
        ds, dp["ws"] = conv_backward(da3, saved[0])
    elif kind == "A":
        ds = shortcut_a_backward(dz, *saved)
    else:
        ds = dz
    return dx + ds, dp
'''

# The forward pass returns the backward pass as its cache.
GENERAL_CLOSURES = OPTION_PAD + '''
def conv_bn(x, p, i, stride, padding, eps):
    out, first = conv_forward(x, p["w" + i], stride, padding)
    out, second = bn_forward(out, p["gamma" + i], p["beta" + i], eps)

    def back(g):
        g, dgamma, dbeta = bn_backward(g, second)
        g, dw = conv_backward(g, first)
        return g, {"w" + i: dw, "gamma" + i: dgamma, "beta" + i: dbeta}

    return out, back


def shortcut(x, p, eps, stride, pad):
    if "ws" in p:
        return conv_bn(x, p, "s", stride, 0, eps)
    C, O = x.shape[1], len(p["w1"])
    if stride != 1 or C != O:
        return shortcut_a(x, stride, O, pad), lambda g: (shortcut_a_backward(g, x.shape, stride, pad), {})
    return x, lambda g: (g, {})


def block_forward(x, p, eps, stride=1, pad="both"):
    inner, back1 = conv_bn(x, p, "1", stride, 1, eps)
    outer, back2 = conv_bn(relu(inner), p, "2", 1, 1, eps)
    skip, back3 = shortcut(x, p, eps, stride, pad)
    total = outer + skip

    def back(dy):
        g = relu_backward(dy, total)
        through_skip, dps = back3(g)
        g, dp2 = back2(g)
        g, dp1 = back1(relu_backward(g, inner))
        return g + through_skip, {**dp1, **dp2, **dps}

    return relu(total), back


def block_backward(dy, cache):
    return cache(dy)
'''

GENERAL_SCRATCH = OPTION_MATRICES + SCRATCH.split("def residual_forward")[0] + '''
def block_forward(x, p, eps, stride=1, pad="both"):
    n1, s1 = standardise(correlate(x, p["w1"], stride), eps)
    b1 = wide(p["gamma1"]) * n1 + wide(p["beta1"])
    h = b1.clip(min=0)
    n2, s2 = standardise(correlate(h, p["w2"]), eps)
    z = wide(p["gamma2"]) * n2 + wide(p["beta2"])
    O, extra = len(p["w2"]), ()
    if "ws" in p:
        few = x[:, :, ::stride, ::stride]
        ns, ss = standardise(np.tensordot(p["ws"][:, :, 0, 0], few, (1, 1)).swapaxes(0, 1), eps)
        z = z + wide(p["gammas"]) * ns + wide(p["betas"])
        extra = few, ns, ss
    else:
        z = z + shortcut_a(x, stride, O, pad)
    return z.clip(min=0), (x, p, stride, pad, n1, s1, h, n2, s2, z > 0, extra)


def block_backward(dy, cache):
    x, p, stride, pad, n1, s1, h, n2, s2, opened, extra = cache
    total = lambda t: np.einsum("nchw->c", t)
    top, dp = dy * opened, {}
    dp["gamma2"], dp["beta2"] = total(top * n2), total(top)
    g, dp["w2"] = correlate_back(standardise_back(top * wide(p["gamma2"]), n2, s2), h, p["w2"])
    g = g * (h > 0)
    dp["gamma1"], dp["beta1"] = total(g * n1), total(g)
    dx, dp["w1"] = correlate_back(standardise_back(g * wide(p["gamma1"]), n1, s1), x, p["w1"], stride)
    if extra:
        few, ns, ss = extra
        dp["gammas"], dp["betas"] = total(top * ns), total(top)
        g = standardise_back(top * wide(p["gammas"]), ns, ss)
        dp["ws"] = np.einsum("nohw,nchw->oc", g, few)[:, :, None, None]
        dx[:, :, ::stride, ::stride] += np.einsum("oc,nohw->nchw", p["ws"][:, :, 0, 0], g)
    else:
        dx = dx + shortcut_a_backward(top, x.shape, stride, pad)
    return dx, dp
'''

# ----------------------------------------------------------------------------------------- 5.5 the Module

MODULE_PLAIN = '''
class Block(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1, *, shortcut="A", pad="both", rng):
        self.stride, self.out_channels, self.pad = stride, out_channels, pad
        self.changes = stride != 1 or in_channels != out_channels
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, rng=rng)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, rng=rng)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = None
        if shortcut == "B" and self.changes:
            self.downsample = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, 0, rng=rng),
                                            nn.BatchNorm2d(out_channels))

    def forward(self, x):
        out = ops.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        elif self.changes:
            identity = ops.subsample_and_pad(x, self.stride, self.out_channels, self.pad)
        else:
            identity = x
        return ops.relu(out + identity)

    def zero_gamma(self):
        self.bn2.weight.data = np.zeros_like(self.bn2.weight.data)
        return ["bn2.weight"]
'''
MODULE_CHOSEN = '''
class Block(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1, *, shortcut="A", pad="both", rng):
        channels = in_channels
        for i, step in ("1", stride), ("2", 1):
            setattr(self, "conv" + i, nn.Conv2d(channels, out_channels, 3, step, 1, rng=rng))
            setattr(self, "bn" + i, nn.BatchNorm2d(out_channels))
            channels = out_channels
        if (in_channels, stride) == (out_channels, 1):
            self.shortcut = lambda x: x
        elif shortcut == "A":
            self.shortcut = lambda x: ops.subsample_and_pad(x, stride, out_channels, pad)
        else:
            self.downsample = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, 0, rng=rng),
                                            nn.BatchNorm2d(out_channels))
            self.shortcut = lambda x: self.downsample(x)

    def forward(self, x):
        branch = x
        for conv, bn, last in (self.conv1, self.bn1, False), (self.conv2, self.bn2, True):
            branch = bn(conv(branch))
            if not last:
                branch = ops.relu(branch)
        return ops.relu(self.shortcut(x) + branch)

    def zero_gamma(self):
        for name, tensor in self.state().items():
            if name == "bn2.weight":
                tensor.data = 0 * tensor.data
                return [name]
'''
MODULE_FUNCTIONAL = '''
class Block(nn.Module):
    """The layers by hand from ops.conv2d; the BNs are layers, for their running statistics."""

    def __init__(self, in_channels, out_channels, stride=1, *, shortcut="A", pad="both", rng):
        conv = lambda *a: nn.Conv2d(*a, rng=rng)
        self.conv1, self.bn1 = conv(in_channels, out_channels, 3, stride, 1), nn.BatchNorm2d(out_channels)
        self.conv2, self.bn2 = conv(out_channels, out_channels, 3, 1, 1), nn.BatchNorm2d(out_channels)
        self.how, self.step, self.pad = shortcut, stride, pad
        self.fits = stride == 1 and in_channels == out_channels
        if not self.fits and shortcut == "B":
            self.downsample = nn.Sequential(conv(in_channels, out_channels, 1, stride, 0), nn.BatchNorm2d(out_channels))

    def branch(self, x):
        inner = self.bn1(ops.conv2d(x, self.conv1.weight, None, self.step, 1))
        return self.bn2(ops.conv2d(ops.maximum(inner, 0.0), self.conv2.weight, None, 1, 1))

    def skip(self, x):
        if self.fits:
            return x
        if self.how == "A":
            return ops.subsample_and_pad(x, self.step, self.conv2.weight.shape[0], self.pad)
        conv, bn = [m for _, m in self.downsample.children()]
        return bn(ops.conv2d(x, conv.weight, None, self.step, 0))

    def forward(self, x):
        return ops.relu(self.branch(x) + self.skip(x))

    def zero_gamma(self):
        gamma = self.state()["bn2.weight"]
        gamma.data = np.zeros(gamma.shape, gamma.data.dtype)
        return ["bn2.weight"]
'''

ALTERNATES = {
    "a5.1": [STEPS, TAPE, SCRATCH, NODES],
    "a5.2": [STEPS, TAPE, SCRATCH, NODES],
    "a5.3": [OPTION_SLICES, OPTION_LOOPS, OPTION_MATRICES, OPTION_PAD],
    "a5.4": [GENERAL_STEPS, GENERAL_CLOSURES, GENERAL_SCRATCH],
    "a5.5": [MODULE_PLAIN, MODULE_CHOSEN, MODULE_FUNCTIONAL],
}

# Planted(style, bug, *changes), each from the bug's sentence in the list of bugs alone.
PLANTED = {
    "a5.1": [
        Planted(0, 8, ("x, conv1, bn1, a1, b1, conv2, bn2, F, z)", "z, conv1, bn1, a1, b1, conv2, bn2, F, z)"),
                ("z = F + x", "z = x\nz += F")),
        Planted(0, 9, ("a1, conv1 = conv_forward(x,", "x, conv1 = conv_forward(x,"),
                ("b1, bn1 = bn_forward(a1,", "x, bn1 = a1, _ = bn_forward(x,"), ("h = relu(b1)", "b1 = x\n"
                                                                                                 "h = x = relu(x)")),
        Planted(1, 9, ("out = rectify(bn(conv(x,", "out = x = rectify(bn(conv(x,")),
        Planted(2, 9, ("h = b1 * open1", "h = x = b1 * open1")),
        Planted(3, 9, ('"sum", ("F", "x")', '"sum", ("F", "h")')),
        Planted(0, 10, ("conv_forward(h,", "conv_forward(x,")),
        Planted(1, 10, ('bn(conv(out, "w2"), "2")', 'bn(conv(x, "w2"), "2")')),
        Planted(2, 10, ('correlate(h, p["w2"])', 'correlate(x, p["w2"])')),
        Planted(3, 10, ('("conv", "h", "a2"', '("conv", "x", "a2"')),
        Planted(0, 11, ("z = F + x", "z = F + x + x")),
        Planted(1, 11, ("relu(out + x)", "relu(out + 2 * x)")),
        Planted(2, 11, ('wide(p["beta2"]) + x', 'wide(p["beta2"]) + x + x')),
        Planted(3, 11, ('("F", "x")', '("F", "x", "x")'),
                ("values[source[0]] + values[source[1]]", "sum(values[name] for name in source)")),
        Planted(0, 12, ("h = relu(b1)", "h = relu(a1)")),
        Planted(1, 12, ('out = bn(conv(out, "w2"), "2")', 'out = conv(out, "w2")')),
        Planted(2, 12, ('wide(p["gamma2"]) * n2 + wide(p["beta2"]) + x', 'correlate(h, p["w2"]) + x')),
        Planted(3, 12, ('("bn", "a1", "b1", "1"), ("relu", "b1"', '("relu", "a1"')),
        Planted(0, 13, ('p["gamma2"], p["beta2"], eps', 'p["gamma1"], p["beta1"], eps')),
        Planted(1, 13, ('bn(conv(out, "w2"), "2")', 'bn(conv(out, "w2"), "1")')),
        Planted(2, 13, ('wide(p["gamma2"]) * n2 + wide(p["beta2"])', 'wide(p["gamma1"]) * n2 + wide(p["beta1"])')),
        Planted(3, 13, ('("bn", "a2", "F", "2")', '("bn", "a2", "F", "1")')),
        Planted(0, 14, ("z = F + x", "z = relu(F) + x"), ("return relu(z),", "return z,")),
        Planted(1, 14, ("y = relu(out + x)", "y = relu(out) + x")),
        Planted(2, 14,
                ('z = wide(p["gamma2"]) * n2 + wide(p["beta2"]) + x', 'z = wide(p["gamma2"]) * n2 + wide(p["beta2"])'),
                ("return z * open2,", "return z * open2 + x,")),
        Planted(3, 14, ('("sum", ("F", "x"), "z", ""), ("relu", "z", "y", "")',
                        '("relu", "F", "z", ""), ("sum", ("z", "x"), "y", "")')),
    ],
    "a5.2": [
        Planted(0, 1, ("return dx + dz, dp", "return dx, dp")),
        Planted(1, 1, ("return g + skip", "return g")),
        Planted(2, 1, ("bottom += top", "pass")),
        Planted(3, 1, ("for part in source:", "for part in source[:1]:")),
        Planted(0, 2, ("return dx + dz", "return dx + 2 * dz")),
        Planted(1, 2, ("return g + skip", "return g + skip + skip")),
        Planted(2, 2, ("bottom += top", "bottom += top + top")),
        Planted(3, 2, ("for part in source:", "for part in (*source, 'x'):")),
        Planted(0, 3, ("return dx + dz, dp", "dx = dz.copy()\nreturn dx, dp")),
        Planted(1, 3, ("return g + skip", "return 1 * skip")),
        Planted(2, 3, ("bottom += top", "bottom[...] = top")),
        Planted(3, 3, ('return grads["x"], dp', 'return relu_backward(dy, values["z"]), dp')),
        Planted(0, 4, ("return dx + dz", "return dx + dy")),
        Planted(1, 4, ("return g + skip", "return g + dy")),
        Planted(2, 4, ("bottom += top", "bottom += dy")),
        Planted(3, 4, ('for part in source:\n                add(part, g)', 'add("F", g)\nadd("x", dy)')),
        Planted(0, 5, ("dz = relu_backward(dy, z)", "dz = dy")),
        Planted(1, 5, ("np.where(mask, dy, np.zeros_like(dy))", "dy")),
        Planted(2, 5, ('top = dy * cache["open2"]', "top = dy")),
        Planted(3, 5, ("relu_backward(g, values[source])", "relu_backward(g, values[source]) if source != 'z' else g")),
        Planted(0, 6, ("db1 = relu_backward(dh, b1)", "db1 = dh")),
        Planted(1, 6, ("tape.append(lambda g, dp: relu_backward(g, t))", "pass")),
        Planted(2, 6, ('inside = inside * cache["open1"]', "pass")),
        Planted(3, 6, ("relu_backward(g, values[source])", "relu_backward(g, values[source]) if source == 'z' else g")),
        Planted(0, 7, ("dz = relu_backward(dy, z)", "dz = relu_backward(dy, x)")),
        Planted(1, 7, ("return y, (y > 0, tape)", "return y, (x > 0, tape)")),
        Planted(2, 7, ("open2 = z > 0", "open2 = x > 0"), ("return z * open2", "return z * (z > 0)")),
        Planted(0, 7, ("dz = relu_backward(dy, z)", "dz = relu_backward(dy, F)")),
        Planted(1, 7, ("return y, (y > 0, tape)", "return y, (out > 0, tape)")),
        Planted(3, 7, ("add(source, relu_backward(g, values[source]))",
                       "add(source, relu_backward(g, values['F' if source == 'z' else source]))")),
        Planted(0, 7, ("db1 = relu_backward(dh, b1)", "db1 = relu_backward(dh, a1)")),
        Planted(2, 7, ("open1 = b1 > 0", "open1 = n1 > 0"), ("h = b1 * open1", "h = relu(b1)")),
        Planted(2, 7, ("open1 = b1 > 0", "open1 = correlate(x, p['w1']) > 0"), ("h = b1 * open1", "h = relu(b1)")),
        Planted(3, 7, ("add(source, relu_backward(g, values[source]))",
                       "add(source, relu_backward(g, values['x' if source == 'b1' else source]))")),
        Planted(0, 8, ("a1, conv1 = conv_forward(x,", "x = x.copy()\na1, conv1 = conv_forward(x,"),
                ("z = F + x", "x += F\nz = x")),
        Planted(1, 8, ("tape = []", "tape, x = [], np.array(x)"), ("y = relu(out + x)", "x += out\ny = relu(x)")),
        Planted(2, 8, ("n1, s1 = standardise(correlate(x,", "x = x.copy()\nn1, s1 = standardise(correlate(x,"),
                ("z = wide(p[\"gamma2\"]) * n2 + wide(p[\"beta2\"]) + x",
                 'x += wide(p["gamma2"]) * n2 + wide(p["beta2"])\nz = x')),
        Planted(0, 13, ("da2, dp[\"gamma2\"], dp[\"beta2\"] = bn_backward(dz, bn2)",
                        "da2, dp[\"gamma2\"], dp[\"beta2\"] = bn_backward(dz, bn1)")),
        Planted(0, 13, ("dp[\"beta1\"] = bn_backward(db1, bn1)", "dp[\"beta1\"] = bn_backward(db1, bn2)")),
        Planted(1, 13, ("    def bn(t, i):\n        out, saved =", "    shared = {}\n\ndef bn(t, i):\n"
                                                                   "    out, shared[0] ="),
                ("bn_backward(g, saved)", "bn_backward(g, shared[0])")),
        Planted(3, 13, ("bn_backward(g, saved[target])", "bn_backward(g, saved['F'])")),
        Planted(2, 13, ('cache["n2"]).sum(axes), top', 'cache["n1"]).sum(axes), top'),
                ('wide(p["gamma2"]), cache["n2"], cache["s2"])', 'wide(p["gamma1"]), cache["n1"], cache["s1"])')),
        Planted(0, 12, ("db1 = relu_backward(dh, b1)", "da1 = relu_backward(dh, b1)"),
                ('da1, dp["gamma1"], dp["beta1"] = bn_backward(db1, bn1)',
                 '_, dp["gamma1"], dp["beta1"] = bn_backward(da1, bn1)')),
        Planted(2, 12,
                ('inside = standardise_back(top * wide(p["gamma2"]), cache["n2"], cache["s2"])', "inside = top")),
        Planted(0, 24, ("return relu(z), (x, conv1, bn1, a1, b1, conv2, bn2, F, z)",
                        "global KEPT\nKEPT = x, conv1, bn1, a1, b1, conv2, bn2, F, z\nreturn relu(z), None"),
                ("bn2, F, z = cache", "bn2, F, z = KEPT")),
        Planted(2, 24, ("return z * open2, dict(", "KEPT.update("),
                ("open2=open2)", "open2=open2)\nreturn z * open2, KEPT"),
                ("def wide(v):", "KEPT = {}\n\n\ndef wide(v):")),
    ],
    "a5.3": [
        Planted(0, 20,
                ("dx = np.zeros(shape, dy.dtype)\n    dx[:, :, ::stride, ::stride] = dy[:, first:first + shape[1]]",
                        "dx = dy[:, first:first + shape[1]].repeat(stride, 2).repeat(stride, 3)"
                        "[:, :, :shape[2], :shape[3]]")),
        Planted(1, 20, ("for i in range(0, H, stride):", "for i in range(H):"),
                ("for j in range(0, W, stride):", "for j in range(W):")),
        Planted(2, 20, ('"oc,noij,ih,jw->nchw", P, dy, R, S', '"oc,noij,ih,jw->nchw", P, dy, '
                        "R.repeat(stride, 0)[:H].T[::stride] * 0 + (np.arange(H) // stride == np.arange(len(R))[:,"
                        " None]),"
                        " (np.arange(W) // stride == np.arange(len(S))[:, None]).astype(dy.dtype)")),
        Planted(3, 20, ("np.where((rows == 0) & (columns == 0), spread, np.zeros((), dy.dtype))", "spread.copy()")),
        Planted(0, 21,
                ("return extra // 2 if pad == \"both\" else 0", "return extra // 2 if pad == \"both\" else extra")),
        Planted(1, 21, ('offset = {"end": 0, "both": (channels - C) // 2}[pad]',
                        'offset = {"end": channels - C, "both": (channels - C) // 2}[pad]'),
                ('offset = {"end": 0, "both": (dy.shape[1] - C) // 2}[pad]',
                 'offset = {"end": dy.shape[1] - C, "both": (dy.shape[1] - C) // 2}[pad]')),
        Planted(2, 21, ("if pad == \"both\" else 0", "if pad == \"both\" else channels - C")),
        Planted(3, 21, ("(front, missing - front)", "(missing - front, front)"),
                ("front = (dy.shape[1] - shape[1]) // 2 if pad == \"both\" else 0",
                 "front = dy.shape[1] - shape[1] - ((dy.shape[1] - shape[1]) // 2 if pad == \"both\" else 0)")),
        Planted(0, 21,
                ("return extra // 2 if pad == \"both\" else 0", "return extra - extra // 2 if pad == \"both\" else 0")),
        Planted(0, 21, ("return extra // 2 if pad == \"both\" else 0", "return 0 if pad == \"both\" else extra // 2")),
    ],
    "a5.4": [
        Planted(0, 1, ("return dx + ds, dp", "return dx, dp")),
        Planted(2, 1, ("dx = dx + shortcut_a_backward(top, x.shape, stride, pad)", "pass"),
                ("dx[:, :, ::stride, ::stride] += np.einsum", "np.einsum")),
        Planted(0, 2, ("return dx + ds", "return dx + 2 * ds")),
        Planted(1, 2, ("return g + through_skip", "return g + 2 * through_skip")),
        Planted(0, 3, ("return dx + ds, dp", "return 1 * ds, dp")),
        Planted(1, 3, ("return g + through_skip", "return 1 * through_skip")),
        Planted(1, 4, ("back3(g)", "back3(dy)")),
        Planted(1, 5, ("g = relu_backward(dy, total)", "g = dy")),
        Planted(2, 5, ("top, dp = dy * opened", "top, dp = dy")),
        Planted(0, 6, ("db1 = relu_backward(dh, b1)", "db1 = dh")),
        Planted(1, 6, ("back1(relu_backward(g, inner))", "back1(g)")),
        Planted(0, 7, ("dz = relu_backward(dy, z)", "dz = relu_backward(dy, F)")),
        Planted(1, 7, ("g = relu_backward(dy, total)", "g = relu_backward(dy, outer)")),
        Planted(0, 11, ("z = F + s", "z = F + s + s")),
        Planted(1, 11, ("total = outer + skip", "total = outer + skip + skip")),
        Planted(0, 13,
                ("bn_forward(a2, p[\"gamma2\"], p[\"beta2\"], eps)",
                 "bn_forward(a2, p[\"gamma1\"], p[\"beta1\"], eps)")),
        Planted(0, 14, ("z = F + s\n    return relu(z)", "z = F\nreturn relu(z) + s")),
        Planted(1, 14, ("return relu(total), back", "return relu(outer) + skip, back")),
        Planted(0, 15, ('conv_forward(x, p["ws"], stride, 0)', 'conv_forward(x, p["ws"], 1, 0)')),
        Planted(1, 15, ('"s", stride, 0, eps', '"s", 1, 0, eps')),
        Planted(1, 15, ('"s", stride, 0, eps', '"s", stride, 1, eps')),
        Planted(2, 15, ("few = x[:, :, ::stride, ::stride]", "few = x")),
        Planted(0, 16, ('conv_forward(h, p["w2"], 1, 1)', 'conv_forward(h, p["w2"], stride, 1)')),
        Planted(1, 16, ('"2", 1, 1, eps', '"2", stride, 1, eps')),
        Planted(0, 17, ("return dx + ds, dp", "return (dx if kind == 'B' else dx + ds), dp")),
        Planted(1, 17, ("return g + through_skip,", "return g if dps else g + through_skip,")),
        Planted(2, 17, ("dx[:, :, ::stride, ::stride] += np.einsum", "np.einsum")),
        Planted(0, 18, ('da3, dp["gammas"], dp["betas"] = bn_backward(', "da3, _, _ = bn_backward("),
                ('ds, dp["ws"] = conv_backward(', "ds, _ = conv_backward(")),
        Planted(1, 18, ("{**dp1, **dp2, **dps}", "{**dp1, **dp2}")),
        Planted(2, 18, ('dp["ws"] = np', "dws = np")),
        Planted(0, 17, ("ds, dp[\"ws\"] = conv_backward(da3, saved[0])", '_, dp["ws"] = conv_backward(da3, saved[0])\n'
                                                                         "ds = 0")),
        Planted(0, 20, ("ds = shortcut_a_backward(dz, *saved)",
                        "(n, c, h, w), step, how = saved\nfirst = before(dz.shape[1] - c, how)\n"
                        "ds = dz[:, first:first + c].repeat(step, 2).repeat(step, 3)[:, :, :h, :w]")),
        Planted(1, 20, ("np.where((rows == 0) & (columns == 0), spread, np.zeros((), dy.dtype))", "spread.copy()")),
        Planted(0, 21,
                ("return extra // 2 if pad == \"both\" else 0", "return extra // 2 if pad == \"both\" else extra")),
        Planted(2, 21, ("if pad == \"both\" else 0", "if pad == \"both\" else channels - C")),
    ],
    "a5.5": [
        Planted(0, 9, ("out = ops.relu(self.bn1(self.conv1(x)))", "x = out = ops.relu(self.bn1(self.conv1(x)))")),
        Planted(1, 9, ("branch = ops.relu(branch)", "branch = x = ops.relu(branch)")),
        Planted(0, 10, ("out = self.bn2(self.conv2(out))", "out = self.bn2(self.conv2(x))")),
        Planted(2, 10,
                ("ops.conv2d(ops.maximum(inner, 0.0), self",
                 "ops.conv2d(x if self.fits else ops.maximum(inner, 0.0), self")),
        Planted(0, 11, ("ops.relu(out + identity)", "ops.relu(out + identity + identity)")),
        Planted(1, 11, ("self.shortcut(x) + branch", "self.shortcut(x) + self.shortcut(x) + branch")),
        Planted(2, 11, ("self.branch(x) + self.skip(x)", "self.branch(x) + 2.0 * self.skip(x)")),
        Planted(0, 12, ("out = self.bn2(self.conv2(out))", "out = self.conv2(out)")),
        Planted(1, 12, ("branch = bn(conv(branch))", "branch = bn(conv(branch)) if last else conv(branch)")),
        Planted(2, 12, ("return bn(ops.conv2d(x, conv", "return (ops.conv2d(x, conv")),
        Planted(0, 13, ("out = self.bn2(self.conv2(out))", "out = self.bn1(self.conv2(out))")),
        Planted(1, 13, ("(self.conv2, self.bn2, True)", "(self.conv2, self.bn1, True)")),
        Planted(2, 13, ("return self.bn2(ops.conv2d", "return self.bn1(ops.conv2d")),
        Planted(0, 13, ("self.bn2 = nn.BatchNorm2d(out_channels)", "self.bn2 = self.bn1")),
        Planted(0, 14, ("return ops.relu(out + identity)", "return ops.relu(out) + identity")),
        Planted(1, 14, ("ops.relu(self.shortcut(x) + branch)", "self.shortcut(x) + ops.relu(branch)")),
        Planted(0, 5, ("return ops.relu(out + identity)", "return out + identity")),
        Planted(0, 15, ("out_channels, 1, stride, 0, rng=rng", "out_channels, 1, 1, 0, rng=rng")),
        Planted(1, 15, ("out_channels, 1, stride, 0, rng=rng", "out_channels, 1, stride, 1, rng=rng")),
        Planted(0, 16, ("out_channels, out_channels, 3, 1, 1", "out_channels, out_channels, 3, stride, 1")),
        Planted(1, 16, ('("2", 1):', '("2", stride):')),
        Planted(2, 16, ("self.conv2.weight, None, 1, 1", "self.conv2.weight, None, self.step, 1")),
        Planted(0, 17, ("identity = self.downsample(x)", "identity = self.downsample(type(x)(x.data))")),
        Planted(2, 17, ("return bn(ops.conv2d(x, conv", "return bn(ops.conv2d(Tensor(x.data), conv"),
                ("class Block", "from minires import Tensor\n\n\nclass Block")),
        Planted(0, 18, ("self.downsample = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, 0, rng=rng),"
                        "nn.BatchNorm2d(out_channels))",
                        "self.downsample = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, 0,"
                        " rng=rng),nn.BatchNorm2d(out_channels))\n"
                        "for t in self.downsample.state().values():\n    t.requires_grad = False")),
        Planted(1, 18, ("self.downsample = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, 0, rng=rng),"
                        "nn.BatchNorm2d(out_channels))",
                        "hidden = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, 0, rng=rng),"
                        "nn.BatchNorm2d(out_channels))"), ("lambda x: self.downsample(x)", "lambda x: hidden(x)")),
        Planted(0, 19, ('if shortcut == "B" and self.changes:', 'if shortcut == "B":')),
        Planted(1, 19,
                ("if (in_channels, stride) == (out_channels, 1):",
                 "if shortcut != 'B' and (in_channels, stride) == (out_channels, 1):")),
        Planted(2, 19, ("if not self.fits and shortcut", "self.fits = self.fits and shortcut != 'B'\n"
                                                         "if not self.fits and shortcut")),
        Planted(0, 21,
                ("self.out_channels, self.pad)", "self.out_channels, {'both': 'end', 'end': 'both'}[self.pad])")),
        Planted(1, 21,
                ("ops.subsample_and_pad(x, stride, out_channels, pad)",
                 "ops.subsample_and_pad(x, stride, out_channels, 'end')")),
        Planted(2, 21, (", self.conv2.weight.shape[0], self.pad)", ", self.conv2.weight.shape[0])")),
        Planted(0, 22, ("self.bn2.weight.data = np.zeros_like(self.bn2.weight.data)\n        return [\"bn2.weight\"]",
                        'self.bn1.weight.data = np.zeros_like(self.bn1.weight.data)\nreturn ["bn1.weight"]')),
        Planted(1, 22, ('if name == "bn2.weight"', 'if name == "bn1.weight"')),
        Planted(2, 22, ('gamma = self.state()["bn2.weight"]', 'gamma = self.state()["bn1.weight"]'),
                ('return ["bn2.weight"]', 'return ["bn1.weight"]')),
        Planted(0, 23, ("def forward(self, x):", "def train(self, on=True):\n"
                                                 "    self.training = self.bn1.training = self.bn2.training = on\n"
                                                 "    return self\n\ndef forward(self, x):")),
        Planted(1, 23, ("def forward(self, x):", "def train(self, on=True):\n"
                                                 "    for m in self, self.conv1, self.bn1, self.conv2, self.bn2:\n"
                                                 "        m.training = on\n    return self\n\n"
                                                 "def forward(self, x):")),
    ],
}

# Mistakes of the same kind that the bank does not hold.
OTHERS = {
    "a5.1": [Other(0, ("h = relu(b1)", "h = np.abs(b1)")), Other(3, ('("F", "x"), "z"', '("F", "a1"), "z"'))],
    "a5.2": [Other(0, ("return dx + dz", "return dx - dz")), Other(2, ('* cache["open1"]', '* ~cache["open1"]'))],
    "a5.3": [Other(0, ("small = x[:, :, ::stride, ::stride]", "small = x[:, :, ::stride, ::stride] / stride")),
             Other(3, ("(rows == 0) & (columns == 0)", "rows == columns"))],
    "a5.4": [Other(0, ("return dx + ds", "return dx - ds")),
             Other(1, ('"1", stride, 1, eps', '"1", stride, 1, 2 * eps'))],
    "a5.5": [Other(0, ("identity = x\n", "identity = x * 0.5\n")),
             Other(1, ("self.shortcut(x) + branch", "self.shortcut(x) - branch"))],
}
