"""Answers to A4 in three styles, written from the prose alone, and the bank's bugs planted in them by sentence."""
from named import Other, Planted

# ---------------------------------------------------------------------------------------- helpers of the styles

# Style 0: axes and a reshape, as the hint says.
AXES = '''
def axes_of(x):
    return (0,) + tuple(range(2, x.ndim))


def wide(values, x):
    return values.reshape((1, -1) + (1,) * (x.ndim - 2))
'''

# Style 1: every input becomes a matrix with one row for each channel; matrices are turned back at the end.
ROWS = '''
def rows(x):
    return np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)


def back(matrix, like):
    moved = (like.shape[1], like.shape[0]) + like.shape[2:]
    return np.moveaxis(matrix.reshape(moved), 0, 1)
'''

# Style 2: channel by channel, with the Jacobian of one channel as a matrix.
CHANNELS = '''
def channels(*arrays):
    for c in range(arrays[0].shape[1]):
        yield c, [a[:, c].ravel() for a in arrays]
'''

FORWARD_AXES = AXES + '''
def batch_norm_forward(x, gamma, beta, eps):
    mu = x.mean(axes_of(x))
    difference = x - wide(mu, x)
    var = (difference * difference).mean(axes_of(x))
    s = 1 / np.sqrt(var + eps)
    xhat = difference * wide(s, x)
    y = wide(gamma, x) * xhat + wide(beta, x)
    return y, (xhat, s, gamma)
'''
BACKWARD_AXES = FORWARD_AXES + '''
def batch_norm_backward(dy, cache):
    xhat, s, gamma = cache
    axes = axes_of(dy)
    g = wide(gamma, dy) * dy
    through_mean = wide(g.mean(axes), dy)
    through_var = xhat * wide((g * xhat).mean(axes), dy)
    dx = wide(s, dy) * (g - through_mean - through_var)
    dgamma = (dy * xhat).sum(axes)
    dbeta = dy.sum(axes)
    return dx, dgamma, dbeta
'''

FORWARD_ROWS = ROWS + '''
def batch_norm_forward(x, gamma, beta, eps):
    X = rows(x)
    m = X.shape[1]
    D = X - X.sum(1, keepdims=True) / m
    root = np.sqrt(np.einsum("cm,cm->c", D, D) / m + eps)
    Z = D / root[:, None]
    y = back(gamma[:, None] * Z + beta[:, None], x)
    return y, {"D": D, "root": root, "gamma": gamma}
'''
# The whole sum over one denominator: dx = (m g - sum g - D / root^2 * sum g D) / (m root).
BACKWARD_ROWS = FORWARD_ROWS + '''
def batch_norm_backward(dy, cache):
    D, root, gamma = cache["D"], cache["root"], cache["gamma"]
    G = rows(dy)
    m = G.shape[1]
    total = G.sum(1, keepdims=True)
    along = np.einsum("cm,cm->c", G, D)
    bracket = m * G - total - D * (along / root ** 2)[:, None]
    dX = bracket * (gamma / root)[:, None] / m
    return back(dX, dy), along / root, total[:, 0]
'''

FORWARD_CHANNELS = CHANNELS + '''
def batch_norm_forward(x, gamma, beta, eps):
    y = np.zeros_like(x)
    kept = []
    for c, (values,) in channels(x):
        mean = values.mean()
        variance = ((values - mean) ** 2).mean()
        xhat = (values - mean) / (variance + eps) ** 0.5
        y[:, c] = (gamma[c] * xhat + beta[c]).reshape(y[:, c].shape)
        kept.append((xhat, (variance + eps) ** -0.5))
    return y, (kept, gamma)
'''
BACKWARD_CHANNELS = FORWARD_CHANNELS + '''
def batch_norm_backward(dy, cache):
    kept, gamma = cache
    dx, dgamma, dbeta = np.zeros_like(dy), np.zeros_like(gamma), np.zeros_like(gamma)
    for c, (d,) in channels(dy):
        xhat, s = kept[c]
        m = len(d)
        projection = np.eye(m, dtype=d.dtype) - np.ones((m, m), d.dtype) / m
        jacobian = s * (projection - np.outer(xhat, xhat) / m)
        dx[:, c] = (gamma[c] * (jacobian @ d)).reshape(dx[:, c].shape)
        dgamma[c] = xhat @ d
        dbeta[c] = d.sum()
    return dx, dgamma, dbeta
'''

# --------------------------------------------------------------------------------------------------- 4.2 step by step

STAGED_AXES = AXES + '''
def batch_norm_staged(dy, x, gamma, eps):
    axes = axes_of(x)
    m = x.size / x.shape[1]
    xc = x - wide(x.mean(axes), x)
    var = (xc ** 2).mean(axes)
    s = (var + eps) ** -0.5
    xhat = xc * wide(s, x)
    grads = {}
    grads["dxhat"] = dxhat = wide(gamma, x) * dy
    grads["dinv"] = dinv = (dxhat * xc).sum(axes)
    grads["dvar"] = dvar = -0.5 * s ** 3 * dinv
    grads["dxc"] = dxc = dxhat * wide(s, x) + xc * wide(2 / m * dvar, x)
    grads["dmu"] = dmu = -dxc.sum(axes)
    grads["dx"] = dxc + wide(dmu, x) / m
    grads["dgamma"] = (dy * xhat).sum(axes)
    grads["dbeta"] = dy.sum(axes)
    return {name: grad.astype(x.dtype) for name, grad in grads.items()}
'''
STAGED_ROWS = ROWS + '''
def batch_norm_staged(dy, x, gamma, eps):
    X, G = rows(x), rows(dy)
    m = X.shape[1]
    D = X - X.mean(1)[:, None]
    root = np.sqrt((D * D).sum(1) / m + eps)
    H = gamma[:, None] * G
    dinv = np.einsum("cm,cm->c", H, D)
    dvar = -dinv / (2 * root ** 3)
    dD = H / root[:, None] + 2 * D * dvar[:, None] / m
    dmu = -dD.sum(1)
    dX = dD + dmu[:, None] / m
    return dict(dxhat=back(H, x), dinv=dinv, dvar=dvar, dxc=back(dD, x), dmu=dmu, dx=back(dX, x),
                dgamma=np.einsum("cm,cm->c", G, D) / root, dbeta=G.sum(1))
'''
STAGED_CHANNELS = CHANNELS + '''
def batch_norm_staged(dy, x, gamma, eps):
    answer = {"dxhat": np.zeros_like(x), "dinv": np.zeros_like(gamma), "dvar": np.zeros_like(gamma),
              "dxc": np.zeros_like(x), "dmu": np.zeros_like(gamma), "dx": np.zeros_like(x),
              "dgamma": np.zeros_like(gamma), "dbeta": np.zeros_like(gamma)}
    for c, (d, values) in channels(dy, x):
        m = values.size
        centred = values - values.mean()
        v = np.dot(centred, centred) / m
        s = 1 / (v + eps) ** 0.5
        one = {"dbeta": np.sum(d), "dgamma": np.dot(d, centred * s), "dxhat": d * gamma[c]}
        one["dinv"] = np.dot(one["dxhat"], centred)
        one["dvar"] = one["dinv"] * (-s / (2 * (v + eps)))
        direct = one["dxhat"] * s
        through_v = one["dvar"] * (2 / m) * centred
        one["dxc"] = direct + through_v
        one["dmu"] = -np.sum(one["dxc"])
        one["dx"] = one["dxc"] + one["dmu"] / m
        for name, value in one.items():
            place = answer[name][:, c] if answer[name].ndim > 1 else answer[name][c:c + 1]
            place[...] = np.reshape(value, place.shape)
    return answer
'''

# ------------------------------------------------------------------------------------------- 4.4 running statistics

RUNNING_SUMS = '''
def running(mean, var, batch_mean, batch_var, momentum, count):
    if count < 2:
        raise ValueError(f"there is no variance of {count} values: at least 2 are needed")
    unbiased = batch_var * (count / (count - 1))
    new_mean = (1 - momentum) * mean + momentum * batch_mean
    new_var = (1 - momentum) * var + momentum * unbiased
    return new_mean, new_var
'''
RUNNING_STEPS = '''
def running(mean, var, batch_mean, batch_var, momentum, count):
    if count <= 1:
        raise ValueError("one value per channel has no variance")
    moved = []
    for old, new in ((mean, batch_mean), (var, batch_var / (1 - 1 / count))):
        moved.append(old + momentum * (new - old))
    return tuple(moved)
'''
RUNNING_COPIES = '''
def running(mean, var, batch_mean, batch_var, momentum, count):
    try:
        factor = count / (count - 1) if count > 0 else 1 / 0
    except ZeroDivisionError:
        raise ValueError("a running variance needs more than one value of each channel") from None
    mean, var = mean.copy(), var.copy()
    mean *= 1 - momentum
    mean += momentum * batch_mean
    var *= 1 - momentum
    var += momentum * factor * batch_var
    return mean, var
'''

# ----------------------------------------------------------------------------------------------------- 4.5 eval mode

EVAL_AXES = AXES + '''
def batch_norm_eval_forward(x, gamma, beta, mean, var, eps):
    s = 1 / np.sqrt(var + eps)
    xhat = (x - wide(mean, x)) * wide(s, x)
    return wide(gamma, x) * xhat + wide(beta, x), (xhat, s, gamma)


def batch_norm_eval_backward(dy, cache):
    xhat, s, gamma = cache
    dx = wide(gamma * s, dy) * dy
    dgamma = (dy * xhat).sum(axes_of(dy))
    return dx, dgamma, dy.sum(axes_of(dy))
'''
EVAL_ROWS = ROWS + '''
def batch_norm_eval_forward(x, gamma, beta, mean, var, eps):
    slope = gamma / np.sqrt(var + eps)
    shift = beta - slope * mean
    return back(slope[:, None] * rows(x) + shift[:, None], x), (rows(x), slope, mean, np.sqrt(var + eps))


def batch_norm_eval_backward(dy, cache):
    X, slope, mean, root = cache
    G = rows(dy)
    dgamma = ((G * X).sum(1) - mean * G.sum(1)) / root
    return back(G * slope[:, None], dy), dgamma, G.sum(1)
'''
EVAL_CHANNELS = CHANNELS + '''
def batch_norm_eval_forward(x, gamma, beta, mean, var, eps):
    y = np.empty(x.shape, x.dtype)
    normal = np.empty(x.shape, x.dtype)
    for c, (values,) in channels(x):
        xhat = (values - mean[c]) / np.sqrt(var[c] + eps)
        normal[:, c] = xhat.reshape(x[:, c].shape)
        y[:, c] = gamma[c] * normal[:, c] + beta[c]
    return y, (normal, gamma, np.sqrt(var + eps))


def batch_norm_eval_backward(dy, cache):
    normal, gamma, root = cache
    dx, dgamma, dbeta = np.empty(dy.shape, dy.dtype), np.zeros_like(gamma), np.zeros_like(gamma)
    for c, (d, xhat) in channels(dy, normal):
        dgamma[c], dbeta[c] = d @ xhat, d.sum()
        dx[:, c] = gamma[c] * dy[:, c] / root[c]
    return dx, dgamma, dbeta
'''

# --------------------------------------------------------------------------------------- 4.6 a layer on the engine

LAYER_RUNNING = RUNNING_SUMS + '''
class BatchNorm2d(nn.Module):
    def __init__(self, channels, eps=1e-5, momentum=0.1):
        self.weight = Tensor(np.ones(channels, np.float32), True)
        self.bias = Tensor(np.zeros(channels, np.float32), True)
        self.running_mean = Tensor(np.zeros(channels, np.float32))
        self.running_var = Tensor(np.ones(channels, np.float32))
        self.eps, self.momentum = eps, momentum

    def forward(self, x):
        N, C, H, W = x.shape
        if self.training:
            mean = x.mean((0, 2, 3), keepdims=True)
            xc = x - mean
            var = (xc * xc).mean((0, 2, 3), keepdims=True)
            new = running(self.running_mean.data, self.running_var.data, mean.data.reshape(C), var.data.reshape(C),
                          self.momentum, N * H * W)
            self.running_mean.data, self.running_var.data = new
        else:
            xc = x - self.running_mean.reshape(1, C, 1, 1)
            var = self.running_var.reshape(1, C, 1, 1)
        xhat = xc / (var + self.eps).sqrt()
        return self.weight.reshape(1, C, 1, 1) * xhat + self.bias.reshape(1, C, 1, 1)
'''
# Channels last, so that everything broadcasts; its own running statistics.
LAYER_TURNED = '''
class BatchNorm2d(nn.Module):
    def __init__(self, channels, eps=1e-5, momentum=0.1):
        self.eps = eps
        self.momentum = momentum
        one, zero = np.ones(channels, "float32"), np.zeros(channels, "float32")
        self.weight = Tensor(one, True)
        self.bias = Tensor(zero, True)
        self.running_mean = Tensor(zero.copy())
        self.running_var = Tensor(one.copy())

    def forward(self, x):
        N, C, H, W = x.shape
        values = x.transpose(0, 2, 3, 1).reshape(N * H * W, C)
        if not self.training:
            slope = self.weight / (self.running_var + self.eps).sqrt()
            result = (values - self.running_mean) * slope + self.bias
        else:
            mean = values.mean(0)
            var = ((values - mean) ** 2).mean(0)
            self.remember(mean.data, var.data, N * H * W)
            result = (values - mean) / (var + self.eps).sqrt() * self.weight + self.bias
        return result.reshape(N, H, W, C).transpose(0, 3, 1, 2)

    def remember(self, mean, var, n):
        if n == 1:
            raise ValueError("a batch with one value per channel has no variance")
        keep = 1 - self.momentum
        self.running_mean.data = keep * self.running_mean.data + self.momentum * mean
        self.running_var.data = keep * self.running_var.data + self.momentum * n / (n - 1) * var
'''
# Sums for means, and a power for the root.
LAYER_SUMS = '''
class BatchNorm2d(nn.Module):
    def __init__(self, channels, eps=1e-5, momentum=0.1):
        for name, value, trained in (("weight", 1, True), ("bias", 0, True), ("running_mean", 0, False),
                                     ("running_var", 1, False)):
            setattr(self, name, Tensor(np.full(channels, value, np.float32), trained))
        self.eps, self.momentum = eps, momentum

    def forward(self, x):
        def wide(values):
            return values.reshape(1, x.shape[1], 1, 1)

        mean, var = self.running_mean, self.running_var
        if self.training:
            m = x.shape[0] * x.shape[2] * x.shape[3]
            if m < 2:
                raise ValueError("expected at least two values of each channel, got one")
            mean = x.sum((0, 2, 3)) / m
            var = ((x - wide(mean)) * (x - wide(mean))).sum((0, 2, 3)) / m
            for kept, new in (self.running_mean, mean.data), (self.running_var, var.data * (m / (m - 1))):
                kept.data = kept.data + self.momentum * (new - kept.data)
        scale = self.weight * (var + self.eps) ** -0.5
        return (x - wide(mean)) * wide(scale) + wide(self.bias)
'''

FORWARDS = [FORWARD_AXES, FORWARD_ROWS, FORWARD_CHANNELS]
ALTERNATES = {
    "a4.1": FORWARDS,
    "a4.2": [STAGED_AXES, STAGED_ROWS, STAGED_CHANNELS],
    "a4.3": [BACKWARD_AXES, BACKWARD_ROWS, BACKWARD_CHANNELS],
    "a4.4": [RUNNING_SUMS, RUNNING_STEPS, RUNNING_COPIES],
    "a4.5": [EVAL_AXES, EVAL_ROWS, EVAL_CHANNELS],
    "a4.6": [LAYER_RUNNING, LAYER_TURNED, LAYER_SUMS],
}

# Planted(style, bug, *changes), each from the bug's sentence in the list of bugs alone.
PLANTED = {
    "a4.1": [
        Planted(0, 12, ("return (0,) + tuple(range(2, x.ndim))", "return (0,)"),
                ("def wide(values, x):\n    return values.reshape((1, -1) + (1,) * (x.ndim - 2))",
                 "def wide(values, x):\n    return values.reshape((1, -1, 1, 1)[:x.ndim]) "
                 "if values.ndim == 1 else values")),
        Planted(2, 12, ("for c in range(arrays[0].shape[1]):\n        yield c, [a[:, c].ravel() for a in arrays]",
                        "for c in range(arrays[0].shape[0]):\n    yield c, [a[c].ravel() for a in arrays]"),
                ("y[:, c] = (gamma[c] * xhat + beta[c]).reshape(y[:, c].shape)",
                 "wide = (-1,) + (1,) * (x.ndim - 2)\ny[c] = xhat.reshape(y[c].shape) * gamma.reshape(wide)"
                 " + beta.reshape(wide)")),
        Planted(0, 13, ("1 / np.sqrt(var + eps)", "1 / (np.sqrt(var) + eps)")),
        Planted(1, 13, ("root = np.sqrt(np.einsum(\"cm,cm->c\", D, D) / m + eps)",
                        "root = np.sqrt(np.einsum(\"cm,cm->c\", D, D) / m) + eps")),
        Planted(2, 13, ("xhat = (values - mean) / (variance + eps) ** 0.5",
                        "xhat = (values - mean) / (variance ** 0.5 + eps)")),
        Planted(0, 23, ("difference = x - wide(mu, x)", "x -= wide(mu, x)\ndifference = x")),
        Planted(2, 23, ("y[:, c] = (gamma", "x[:, c] -= mean\ny[:, c] = (gamma")),
        Planted(0, 24, ("(difference * difference).mean(axes_of(x))", "(x * x).mean(axes_of(x)) - mu * mu")),
        Planted(1, 24, ("np.einsum(\"cm,cm->c\", D, D) / m + eps", "(X * X).mean(1) - X.mean(1) ** 2 + eps")),
        Planted(2, 24, ("((values - mean) ** 2).mean()", "values @ values / len(values) - mean ** 2")),
    ],
    "a4.2": [
        Planted(0, 1, ("dxhat * wide(s, x) + xc * wide(2 / m * dvar, x)", "dxhat * wide(s, x)"),
                ("dxc + wide(dmu, x) / m", "dxc")),
        Planted(0, 2, (" + xc * wide(2 / m * dvar, x)", "")),
        Planted(2, 2, ("one[\"dxc\"] = direct + through_v", "one[\"dxc\"] = direct")),
        Planted(0, 3, ("dxc + wide(dmu, x) / m", "dxc")),
        Planted(1, 3, ("dX = dD + dmu[:, None] / m", "dX = dD")),
        Planted(0, 4, ("2 / m * dvar", "2 / (m - 1) * dvar")),
        Planted(1, 4, ("2 * D * dvar[:, None] / m", "2 * D * dvar[:, None] / (m - 1)")),
        Planted(0, 5, ("dxhat = wide(gamma, x) * dy", "dxhat = 1 * dy")),
        Planted(2, 5, ("\"dxhat\": d * gamma[c]", "\"dxhat\": d")),
        Planted(0, 6, ("dxc = dxhat * wide(s, x)", "dxc = dxhat * wide(s * s, x)")),
        Planted(1, 6, ("dD = H / root[:, None]", "dD = H / root[:, None] ** 2")),
        Planted(0, 7, ("dvar = -0.5", "dvar = 0.5")),
        Planted(1, 7, ("dvar = -dinv", "dvar = dinv")),
        Planted(2, 7, ("direct + through_v", "direct - through_v")),
        Planted(0, 8, ("(dy * xhat).sum(axes)", "(dy * x).sum(axes)")),
        Planted(1, 8, ("np.einsum(\"cm,cm->c\", G, D) / root", "np.einsum(\"cm,cm->c\", G, X)")),
        Planted(0, 9, ("grads[\"dbeta\"] = dy.sum(axes)", "grads[\"dbeta\"] = dy.mean(axes)")),
        Planted(2, 9, ("np.sum(d),", "np.mean(d),")),
        Planted(0, 11, ("m = x.size / x.shape[1]", "m = x.shape[0]")),
        Planted(1, 11, ("dvar[:, None] / m", "dvar[:, None] / len(x)"), ("dmu[:, None] / m", "dmu[:, None] / len(x)")),
        Planted(0, 13, ("(var + eps) ** -0.5", "1 / (var ** 0.5 + eps)")),
        Planted(1, 13, ("np.sqrt((D * D).sum(1) / m + eps)", "np.sqrt((D * D).sum(1) / m)")),
        Planted(1, 26, ("dbeta=G.sum(1)", "dbeta=dy.sum((0, *range(2, dy.ndim)), keepdims=True)")),
    ],
    "a4.3": [
        Planted(0, 1, ("(g - through_mean - through_var)", "g")),
        Planted(1, 1, ("bracket = m * G - total - D * (along / root ** 2)[:, None]", "bracket = m * G")),
        Planted(2, 1, ("jacobian = s * (projection - np.outer(xhat, xhat) / m)", "jacobian = s * np.eye(m)")),
        Planted(0, 2, ("g - through_mean - through_var", "g - through_mean")),
        Planted(1, 2, (" - D * (along / root ** 2)[:, None]", "")),
        Planted(2, 2, ("(projection - np.outer(xhat, xhat) / m)", "projection")),
        Planted(0, 3, ("g - through_mean - through_var", "g - through_var")),
        Planted(1, 3, ("m * G - total - D", "m * G - D")),
        Planted(2, 3, (" - np.ones((m, m), d.dtype) / m", "")),
        Planted(0, 4, ("xhat * wide((g * xhat).mean(axes), dy)",
                       "xhat * wide((g * xhat).sum(axes) / (g[:, 0].size - 1), dy)")),
        Planted(1, 4, ("D * (along / root ** 2)[:, None]", "D * (m / (m - 1) * along / root ** 2)[:, None]")),
        Planted(2, 4, ("np.outer(xhat, xhat) / m", "np.outer(xhat, xhat) / (m - 1)")),
        Planted(0, 5, ("g = wide(gamma, dy) * dy", "g = dy")),
        Planted(1, 5, ("(gamma / root)[:, None]", "(1 / root)[:, None]")),
        Planted(2, 5, ("(gamma[c] * (jacobian @ d))", "(jacobian @ d)")),
        Planted(0, 6, ("dx = wide(s, dy)", "dx = wide(s * s, dy)")),
        Planted(1, 6, ("(gamma / root)[:, None]", "(gamma / root ** 2)[:, None]")),
        Planted(0, 7, ("- through_var)", "+ through_var)")),
        Planted(1, 7, ("total - D *", "total + D *")),
        Planted(2, 7, ("projection - np.outer", "projection + np.outer")),
        Planted(0, 8, ("return y, (xhat, s, gamma)", "return y, (xhat, s, gamma, x)"),
                ("xhat, s, gamma = cache", "xhat, s, gamma, x = cache"),
                ("(dy * xhat).sum(axes)", "(dy * x).sum(axes)")),
        Planted(1, 8, ("\"gamma\": gamma}", "\"gamma\": gamma, \"X\": X}"),
                ("return back(dX, dy), along / root,", "return back(dX, dy), (G * cache[\"X\"]).sum(1),")),
        Planted(0, 9, ("dbeta = dy.sum(axes)", "dbeta = dy.mean(axes)")),
        Planted(1, 9, ("total[:, 0]", "total[:, 0] / m")),
        Planted(2, 9, ("dbeta[c] = d.sum()", "dbeta[c] = d.mean()")),
        Planted(2, 10, ("(gamma[c] * (jacobian @ d)).reshape(dx[:, c].shape)", "0")),
        Planted(0, 10, ("return dx, dgamma", "return 0 * dx, dgamma")),
        Planted(0, 11, ("g.mean(axes)", "g.sum(axes) / len(g)"),
                ("(g * xhat).mean(axes)", "(g * xhat).sum(axes) / len(g)")),
        Planted(1, 11, ("m = G.shape[1]", "m = dy.shape[0]")),
        Planted(2, 11, ("np.ones((m, m), d.dtype) / m", "np.ones((m, m), d.dtype) / len(dy)"),
                ("np.outer(xhat, xhat) / m", "np.outer(xhat, xhat) / len(dy)")),
        Planted(0, 12, ("through_mean = wide(g.mean(axes), dy)", "through_mean = g.mean(0)"),
                ("through_var = xhat * wide((g * xhat).mean(axes), dy)", "through_var = xhat * (g * xhat).mean(0)")),
        Planted(0, 13, ("return y, (xhat, s, gamma)", "return y, (xhat, 1 / np.sqrt(var), gamma)")),
        Planted(1, 13, ("\"root\": root", "\"root\": np.sqrt((D * D).mean(1))")),
        Planted(2, 13, ("kept.append((xhat, (variance + eps) ** -0.5))", "kept.append((xhat, variance ** -0.5))")),
        Planted(2, 13, ("kept.append((xhat, (variance + eps) ** -0.5))",
                        "kept.append((xhat, 1 / (variance ** 0.5 + eps)))"),
                ("/ (variance + eps) ** 0.5", "/ (variance ** 0.5 + eps)")),
        Planted(0, 26, ("(dy * xhat).sum(axes)", "(dy * xhat).sum(axes, keepdims=True)"),
                ("dbeta = dy.sum(axes)", "dbeta = dy.sum(axes, keepdims=True)")),
        Planted(1, 26, ("along / root, total[:, 0]", "(along / root)[:, None], total")),
    ],
    "a4.4": [
        Planted(0, 17, ("(1 - momentum) * mean + momentum * batch_mean",
                 "momentum * mean + (1 - momentum) * batch_mean"),
                ("(1 - momentum) * var + momentum * unbiased", "momentum * var + (1 - momentum) * unbiased")),
        Planted(1, 17, ("old + momentum * (new - old)", "new + momentum * (old - new)")),
        Planted(2, 17, ("mean, var = mean.copy(), var.copy()",
                 "mean, var, momentum = mean.copy(), var.copy(), 1 - momentum")),
        Planted(0, 18, ("unbiased = batch_var * (count / (count - 1))", "unbiased = batch_var")),
        Planted(1, 18, ("batch_var / (1 - 1 / count)", "batch_var")),
        Planted(2, 18, ("momentum * factor * batch_var", "momentum * batch_var")),
        Planted(0, 19, ("return new_mean, new_var",
                 "return (batch_mean, unbiased) if momentum == 1 else (new_mean, new_var)")),
        Planted(2, 19, ("mean, var = mean.copy(), var.copy()", "pass")),
        Planted(0, 25, ("if count < 2:", "if count < 1:")),
        Planted(1, 25, ("if count <= 1:", "if False:")),
        Planted(0, 25, ("if count < 2:", "if False:"),
                ("count / (count - 1)", "np.float64(count) / np.float64(count - 1)")),
    ],
    "a4.5": [
        Planted(0, 5, ("wide(gamma * s, dy) * dy", "wide(s, dy) * dy")),
        Planted(1, 5, ("back(G * slope[:, None], dy)", "back(G / root[:, None], dy)")),
        Planted(2, 5, ("dx[:, c] = gamma[c] * dy[:, c] / root[c]", "dx[:, c] = dy[:, c] / root[c]")),
        Planted(0, 6, ("wide(gamma * s, dy) * dy", "wide(gamma * s * s, dy) * dy")),
        Planted(2, 6, ("dy[:, c] / root[c]", "dy[:, c] / root[c] ** 2")),
        Planted(0, 8, ("return wide(gamma, x) * xhat + wide(beta, x), (xhat, s, gamma)",
                       "return wide(gamma, x) * xhat + wide(beta, x), (x, s, gamma)")),
        Planted(1, 8, ("dgamma = ((G * X).sum(1) - mean * G.sum(1)) / root", "dgamma = (G * X).sum(1)")),
        Planted(0, 9, ("dy.sum(axes_of(dy))", "dy.mean(axes_of(dy))")),
        Planted(2, 9, ("dbeta[c] = d @ xhat, d.sum()", "dbeta[c] = d @ xhat, d.mean()")),
        Planted(0, 13, ("1 / np.sqrt(var + eps)", "1 / (np.sqrt(var) + eps)")),
        Planted(2, 13, ("(normal, gamma, np.sqrt(var + eps))", "(normal, gamma, np.sqrt(var))")),
        Planted(0, 14, ("s = 1 / np.sqrt", "mean, var = x.mean(axes_of(x)), x.var(axes_of(x))\ns = 1 / np.sqrt")),
        Planted(2, 14, ("xhat = (values - mean[c]) / np.sqrt(var[c] + eps)",
                        "xhat = (values - values.mean()) / np.sqrt(values.var() + eps)")),
        Planted(0, 22, ("dx = wide(gamma * s, dy) * dy",
                        "g = wide(gamma, dy) * dy\ndx = wide(s, dy) * (g - wide(g.mean(axes_of(dy)), dy)"
                        " - xhat * wide((g * xhat).mean(axes_of(dy)), dy))")),
        Planted(1, 22, ("back(G * slope[:, None], dy)", "back((G - G.mean(1)[:, None]) * slope[:, None], dy)")),
        Planted(2, 22, ("dx[:, c] = gamma[c] * dy[:, c] / root[c]",
                        "dx[:, c] = gamma[c] * (dy[:, c] - d.mean() - normal[:, c] * (d * xhat).mean()) / root[c]")),
        Planted(0, 26, ("(dy * xhat).sum(axes_of(dy))", "(dy * xhat).sum(axes_of(dy), keepdims=True)"),
                ("dy.sum(axes_of(dy))", "dy.sum(axes_of(dy), keepdims=True)")),
    ],
    "a4.6": [
        Planted(0, 1, ("xhat = xc / (var + self.eps).sqrt()",
                       "if self.training:\n    xc, var = x - Tensor(mean.data), Tensor(var.data)\n"
                       "xhat = xc / (var + self.eps).sqrt()")),
        Planted(1, 1, ("self.remember(mean.data, var.data, N * H * W)",
                       "self.remember(mean.data, var.data, N * H * W)\nmean, var = Tensor(mean.data), "
                       "Tensor(var.data)")),
        Planted(2, 1, ("scale = self.weight", "mean, var = Tensor(mean.data), Tensor(var.data)\nscale = self.weight")),
        Planted(0, 2, ("xhat = xc / (var + self.eps).sqrt()", "xhat = xc / (Tensor(var.data) + self.eps).sqrt()")),
        Planted(1, 2, ("self.remember(mean.data, var.data, N * H * W)",
                       "self.remember(mean.data, var.data, N * H * W)\nvar = Tensor(var.data)")),
        Planted(2, 2, ("scale = self.weight", "var = Tensor(var.data)\nscale = self.weight")),
        Planted(0, 3, ("xc = x - mean", "xc = x - Tensor(mean.data)")),
        Planted(1, 3, ("mean = values.mean(0)", "mean = Tensor(values.data.mean(0))")),
        Planted(2, 3, ("mean = x.sum((0, 2, 3)) / m", "mean = Tensor(x.data.mean((0, 2, 3)))")),
        Planted(0, 12, ("var = (xc * xc).mean((0, 2, 3), keepdims=True)",
                        "var = (xc * xc).mean((0, 1, 2, 3), keepdims=True) + 0 * mean")),
        Planted(0, 13, ("(var + self.eps).sqrt()", "(var.sqrt() + self.eps)")),
        Planted(2, 13, ("(var + self.eps) ** -0.5", "1 / (var ** 0.5 + self.eps)"),
                ("self.weight * 1 / (", "self.weight / (")),
        Planted(0, 14, ("if self.training:", "if True:")),
        Planted(1, 14, ("if not self.training:", "if False:"),
                ("self.remember(mean.data", "if self.training:\n    self.remember(mean.data")),
        Planted(2, 14, ("if self.training:", "if self.training or True:"),
                ("kept.data = kept.data + self", "kept.data = kept.data + self.training * self")),
        Planted(0, 15, ("else:\n            xc = x - self.running_mean.reshape(1, C, 1, 1)",
                        "else:\n    m, v = x.data.mean((0, 2, 3)), x.data.var((0, 2, 3))\n"
                        "    xc = x - Tensor(self.running_mean.data.reshape(1, C, 1, 1))"),
                ("var = self.running_var.reshape(1, C, 1, 1)",
                 "var = Tensor(self.running_var.data.reshape(1, C, 1, 1))\n"
                 "self.running_mean.data, self.running_var.data = running(\n"
                 "    self.running_mean.data, self.running_var.data, m, v, self.momentum, N * H * W)")),
        Planted(1, 15, ("if not self.training:", "if not self.training:\n"
                        "    self.remember(values.data.mean(0), values.data.var(0), N * H * W)")),
        Planted(0, 16, ("xhat = xc / (var + self.eps).sqrt()",
                        "xc = x - self.running_mean.reshape(1, C, 1, 1)\n"
                        "var = self.running_var.reshape(1, C, 1, 1)\nxhat = xc / (var + self.eps).sqrt()")),
        Planted(2, 16, ("scale = self.weight", "mean, var = self.running_mean, self.running_var\nscale = self.weight")),
        Planted(0, 17, ("(1 - momentum) * mean + momentum * batch_mean",
                 "momentum * mean + (1 - momentum) * batch_mean"),
                ("(1 - momentum) * var + momentum * unbiased", "momentum * var + (1 - momentum) * unbiased")),
        Planted(1, 17, ("keep * self.running_mean.data + self.momentum * mean",
                        "self.momentum * self.running_mean.data + keep * mean"),
                ("keep * self.running_var.data + self.momentum * n / (n - 1) * var",
                 "self.momentum * self.running_var.data + keep * n / (n - 1) * var")),
        Planted(0, 18, ("batch_var * (count / (count - 1))", "batch_var")),
        Planted(1, 18, ("self.momentum * n / (n - 1) * var", "self.momentum * var")),
        Planted(2, 18, ("var.data * (m / (m - 1))", "var.data")),
        Planted(0, 20, ("Tensor(np.zeros(channels, np.float32))", "Tensor(np.zeros(channels, np.float32), True)"),
                ("Tensor(np.ones(channels, np.float32))", "Tensor(np.ones(channels, np.float32), True)")),
        Planted(2, 20, ("(\"running_mean\", 0, False)", "(\"running_mean\", 0, True)"),
                ("(\"running_var\", 1, False)", "(\"running_var\", 1, True)")),
        Planted(0, 21, ("Tensor(np.ones(channels, np.float32), True)", "Tensor(1 * np.ones(channels, np.float32))"),
                ("Tensor(np.zeros(channels, np.float32), True)", "Tensor(1 * np.zeros(channels, np.float32))")),
        Planted(1, 21, ("Tensor(one, True)", "Tensor(one)"), ("Tensor(zero, True)", "Tensor(zero)")),
        Planted(1, 25, ("if n == 1:", "if n == 0:"), ("n / (n - 1) * var", "np.float32(n) / np.float32(n - 1) * var")),
        Planted(2, 25, ("if m < 2:", "if m < 1:"), ("m / (m - 1)", "np.float32(m) / np.float32(m - 1)")),
    ],
}

# Mistakes of the same kind that the bank does not hold.
OTHERS = {
    "a4.1": [Other(0, ("y = wide(gamma, x) * xhat + wide(beta, x)", "y = wide(gamma, x) * (xhat + wide(beta, x))")),
             Other(1, ("D, D) / m + eps", "D, D) / (m - 1) + eps")),
             Other(2, ("gamma[c] * xhat + beta[c]", "beta[c] * xhat + gamma[c]"))],
    "a4.2": [Other(0, ("xc * wide(2 / m * dvar, x)", "xc * wide(2 * dvar, x)")),
             Other(1, ("/ (2 * root ** 3)", "/ (2 * root)")), Other(2, ("+ one[\"dmu\"] / m", "- one[\"dmu\"] / m"))],
    "a4.3": [Other(0, ("xhat * wide((g * xhat).mean(axes), dy)", "wide((g * xhat).mean(axes), dy)")),
             Other(1, ("along / root ** 2", "along / root")),
             Other(2, ("projection - np.outer(xhat, xhat) / m", "projection @ projection * 0.5"))],
    "a4.4": [Other(0, ("momentum * unbiased", "momentum * np.sqrt(unbiased)")),
             Other(1, ("old + momentum * (new - old)", "old - momentum * (new - old)"))],
    "a4.5": [Other(0, ("wide(gamma * s, dy) * dy", "wide(gamma + s, dy) * dy")),
             Other(1, ("beta - slope * mean", "beta + slope * mean"))],
    "a4.6": [Other(0, ("self.weight.reshape(1, C, 1, 1) * xhat", "(1 + self.weight.reshape(1, C, 1, 1)) * xhat")),
             Other(2, ("** -0.5", "** -1"))],
}
