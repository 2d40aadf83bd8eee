"""Answers to A4 in three styles, written from the prose alone, and the bank's bugs planted in them by their sentences."""
from named import Other, Planted

# ------------------------------------------------------------------------------------------------ helpers of the styles

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

# ---------------------------------------------------------------------------------------------------------- 4.5 eval mode

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

# --------------------------------------------------------------------------------------------- 4.6 a layer on the engine

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
PLANTED = {}
OTHERS = {}
