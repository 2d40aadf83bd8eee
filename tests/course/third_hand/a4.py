"""A third hand's answers to A4, and the bank's bugs planted in them by sentence: see named.py."""

ROWS = '''
def rows(t):
    """One row for each channel."""
    return t.swapaxes(0, 1).reshape(t.shape[1], -1)


def unrows(r, shape):
    return r.reshape(shape[1], shape[0], *shape[2:]).swapaxes(0, 1)


def average(r):
    return r.mean(1, keepdims=True)
'''

FORWARD = ROWS + '''

def batch_norm_forward(x, gamma, beta, eps):
    r = rows(x)
    away = r - average(r)
    spread = average(away * away)
    s = 1 / np.sqrt(spread + eps)
    unit = away * s
    return unrows(gamma[:, None] * unit + beta[:, None], x.shape), (unit, s, gamma[:, None])
'''

COLS = '''
def add(t):
    """Sum everything of a channel."""
    return t.sum(tuple(i for i in range(t.ndim) if i != 1))


def wide(v, t):
    """Give a vector of channels the axes of t."""
    return v.reshape([-1 if i == 1 else 1 for i in range(t.ndim)])
'''

STAGED = COLS + '''

def batch_norm_staged(dy, x, gamma, eps):
    d, m = {}, x.size // x.shape[1]
    off = x - wide(add(x) / m, x)
    s = (add(off * off) / m + eps) ** -0.5
    d["dbeta"] = add(dy)
    d["dgamma"] = add(dy * off * wide(s, x))
    d["dxhat"] = dy * wide(gamma, x)
    d["dinv"] = add(d["dxhat"] * off)
    d["dvar"] = d["dinv"] * s * s * s / -2
    from_square = off * wide(d["dvar"] * 2, x) / m
    d["dxc"] = d["dxhat"] * wide(s, x) + from_square
    d["dmu"] = -add(d["dxc"])
    d["dx"] = d["dxc"] + wide(d["dmu"], x) / m
    return d
'''

BOTH = FORWARD + '''

def batch_norm_backward(dy, cache):
    unit, s, scale = cache
    d = rows(dy)
    g = scale * d
    along_one, along_unit = average(g), average(g * unit)
    dx = s * (g - along_one - unit * along_unit)
    return unrows(dx, dy.shape), (d * unit).sum(1), d.sum(1)
'''

RUNNING = '''
def running(mean, var, batch_mean, batch_var, momentum, count):
    if count < 2:
        raise ValueError("one value per channel has no variance")

    def move(old, new):
        return old + momentum * (new - old)

    return move(mean, batch_mean), move(var, batch_var * (count / (count - 1)))
'''

EVAL = COLS + '''

def batch_norm_eval_forward(x, gamma, beta, mean, var, eps):
    s = 1 / np.sqrt(var + eps)
    xhat = (x - wide(mean, x)) * wide(s, x)
    return xhat * wide(gamma, x) + wide(beta, x), (xhat, s, gamma)


def batch_norm_eval_backward(dy, cache):
    xhat, s, gamma = cache
    dx = dy * wide(gamma * s, dy)
    return dx, add(dy * xhat), add(dy)
'''

LAYER = '''
class BatchNorm2d(nn.Module):
    def __init__(self, channels, eps=1e-5, momentum=0.1):
        def filled(number, learns):
            return Tensor(np.full(channels, number, np.float32), learns)

        self.weight = filled(1, True)
        self.bias = filled(0, True)
        self.running_mean = filled(0, False)
        self.running_var = filled(1, False)
        self.eps, self.momentum, self.column = eps, momentum, (1, channels, 1, 1)

    def average(self, t):
        return t.mean((0, 2, 3), keepdims=True)

    def move(self, mean, var, n):
        """Move the running statistics towards these two Tensors."""
        if n < 2:
            raise ValueError("one value per channel has no variance")
        for kept, new in ((self.running_mean, mean.data), (self.running_var, var.data * (n / (n - 1)))):
            kept.data = kept.data + self.momentum * (new.reshape(-1) - kept.data)

    def forward(self, x):
        if self.training:
            mean = self.average(x)
            away = x - mean
            var = self.average(away * away)
            self.move(mean, var, x.shape[0] * x.shape[2] * x.shape[3])
        else:
            mean = self.running_mean.reshape(self.column)
            away = x - mean
            var = self.running_var.reshape(self.column)
        root = (var + self.eps).sqrt()
        return away / root * self.weight.reshape(self.column) + self.bias.reshape(self.column)
'''

ANSWERS = {"a4.1": FORWARD, "a4.2": STAGED, "a4.3": BOTH, "a4.4": RUNNING, "a4.5": EVAL, "a4.6": LAYER}

PLANTED = {
    "a4.1": [
        (12, ("r.mean(1, keepdims=True)", "r.mean(0, keepdims=True)")),
        (13, ("s = 1 / np.sqrt(spread + eps)", "s = 1 / (np.sqrt(spread) + eps)")),
        (23, ("r = rows(x)\n    away = r - average(r)",
              "x -= unrows(average(rows(x)) * np.ones_like(rows(x)), x.shape)\n    away = rows(x)")),
        (24, ("spread = average(away * away)", "spread = average(r * r) - average(r) ** 2")),
    ],
    "a4.2": [
        (1, ('d["dxhat"] * wide(s, x) + from_square', 'd["dxhat"] * wide(s, x)'),
            ('d["dx"] = d["dxc"] + wide(d["dmu"], x) / m', 'd["dx"] = d["dxc"]')),
        (2, ('d["dxhat"] * wide(s, x) + from_square', 'd["dxhat"] * wide(s, x)')),
        (3, ('d["dx"] = d["dxc"] + wide(d["dmu"], x) / m', 'd["dx"] = d["dxc"]')),
        (4, ('off * wide(d["dvar"] * 2, x) / m', 'off * wide(d["dvar"] * 2, x) / (m - 1)')),
        (5, ('d["dxhat"] = dy * wide(gamma, x)', 'd["dxhat"] = dy.copy()')),
        (6, ('d["dxhat"] * wide(s, x) + from_square', 'd["dxhat"] * wide(s * s, x) + from_square')),
        (7, ('d["dinv"] * s * s * s / -2', 'd["dinv"] * s * s * s / 2')),
        (8, ('add(dy * off * wide(s, x))', 'add(dy * x)')),
        (9, ('d["dbeta"] = add(dy)', 'd["dbeta"] = add(dy) / m')),
        (11, ('off * wide(d["dvar"] * 2, x) / m', 'off * wide(d["dvar"] * 2, x) / len(x)'),
             ('d["dxc"] + wide(d["dmu"], x) / m', 'd["dxc"] + wide(d["dmu"], x) / len(x)')),
        (13, ("s = (add(off * off) / m + eps) ** -0.5", "s = (add(off * off) / m) ** -0.5")),
        (26, ('d["dbeta"] = add(dy)', 'd["dbeta"] = wide(add(dy), x)'),
             ('d["dgamma"] = add(dy * off * wide(s, x))', 'd["dgamma"] = wide(add(dy * off * wide(s, x)), x)')),
    ],
    "a4.3": [
        (1, ("s * (g - along_one - unit * along_unit)", "s * g")),
        (2, ("s * (g - along_one - unit * along_unit)", "s * (g - along_one)")),
        (3, ("s * (g - along_one - unit * along_unit)", "s * (g - unit * along_unit)")),
        (4, ("average(g), average(g * unit)", "average(g), (g * unit).sum(1, keepdims=True) / (g.shape[1] - 1)")),
        (5, ("g = scale * d", "g = d")),
        (6, ("s * (g - along_one - unit * along_unit)", "s * s * (g - along_one - unit * along_unit)")),
        (7, ("s * (g - along_one - unit * along_unit)", "s * (g - along_one + unit * along_unit)")),
        (8, ("(unit, s, gamma[:, None])", "(unit, s, gamma[:, None], r.copy())"),
            ("unit, s, scale = cache", "unit, s, scale, r = cache"), ("(d * unit).sum(1)", "(d * r).sum(1)")),
        (9, ("(d * unit).sum(1), d.sum(1)", "(d * unit).sum(1), d.mean(1)")),
        (10, ("s * (g - along_one - unit * along_unit)", "0 * g")),
        (11, ("along_one, along_unit = average(g), average(g * unit)",
              "along_one, along_unit = (t.sum(1, keepdims=True) / len(dy) for t in (g, g * unit))")),
        (12, ("r.mean(1, keepdims=True)", "r.mean(0, keepdims=True)")),
        (13, ("s = 1 / np.sqrt(spread + eps)", "s = 1 / (np.sqrt(spread) + eps)")),
        (26, ("(d * unit).sum(1), d.sum(1)", "(d * unit).sum(1, keepdims=True), d.sum(1, keepdims=True)")),
    ],
    "a4.4": [
        (17, ("old + momentum * (new - old)", "new + momentum * (old - new)")),
        (18, ("move(var, batch_var * (count / (count - 1)))", "move(var, batch_var)")),
        (19, ("return old + momentum * (new - old)",
              "new *= momentum\n        new += (1 - momentum) * old\n        return new")),
        (25, ('    if count < 2:\n        raise ValueError("one value per channel has no variance")\n', "")),
    ],
    "a4.5": [
        (5, ("wide(gamma * s, dy)", "wide(s, dy)")),
        (6, ("wide(gamma * s, dy)", "wide(gamma * s * s, dy)")),
        (8, ("(xhat, s, gamma)", "(x.copy(), s, gamma)")),
        (9, ("add(dy * xhat), add(dy)", "add(dy * xhat), add(dy) / (dy.size // len(s))")),
        (10, ("dx = dy * wide(gamma * s, dy)", "dx = 0 * dy")),
        (13, ("1 / np.sqrt(var + eps)", "1 / np.sqrt(var)")),
        (14, ("s = 1 / np.sqrt(var + eps)",
              "m = x.size // len(gamma)\n    mean = add(x) / m\n    var = add((x - wide(mean, x)) ** 2) / m\n"
              "    s = 1 / np.sqrt(var + eps)")),
        (22, ("dx = dy * wide(gamma * s, dy)",
              "m = dy.size // len(s)\n    g = dy * wide(gamma, dy)\n"
              "    dx = wide(s, dy) * (g - wide(add(g) / m, dy) - xhat * wide(add(g * xhat) / m, dy))")),
        (23, ("xhat = (x - wide(mean, x)) * wide(s, x)", "x -= wide(mean, x)\n    xhat = x * wide(s, x)")),
        (26, ("return dx, add(dy * xhat), add(dy)", "return dx, wide(add(dy * xhat), dy), wide(add(dy), dy)")),
    ],
    "a4.6": [
        (1, ("mean = self.average(x)", "mean = Tensor(self.average(x).data)"),
            ("var = self.average(away * away)", "var = Tensor(self.average(away * away).data)")),
        (2, ("var = self.average(away * away)", "var = Tensor(self.average(away * away).data)")),
        (3, ("mean = self.average(x)", "mean = Tensor(self.average(x).data)")),
        (12, ("t.mean((0, 2, 3), keepdims=True)", "t.mean((2, 3), keepdims=True)"),
             ("new.reshape(-1) - kept.data", "new.mean(0).reshape(-1) - kept.data")),
        (13, ("root = (var + self.eps).sqrt()", "root = var.sqrt() + self.eps")),
        (14, ("""        if self.training:
            mean = self.average(x)
            away = x - mean
            var = self.average(away * away)
            self.move(mean, var, x.shape[0] * x.shape[2] * x.shape[3])
        else:
            mean = self.running_mean.reshape(self.column)
            away = x - mean
            var = self.running_var.reshape(self.column)
""", """        mean = self.average(x)
        away = x - mean
        var = self.average(away * away)
        if self.training:
            self.move(mean, var, x.shape[0] * x.shape[2] * x.shape[3])
""")),
        (15, ("mean = self.running_mean.reshape(self.column)",
              "mean = self.average(x)\n"
              "            self.move(mean, self.average((x - mean) * (x - mean)), "
              "x.shape[0] * x.shape[2] * x.shape[3])\n"
              "            mean = self.running_mean.reshape(self.column)")),
        (16, ("        if self.training:\n            mean = self.average(x)\n            away = x - mean\n"
              "            var = self.average(away * away)\n"
              "            self.move(mean, var, x.shape[0] * x.shape[2] * x.shape[3])\n        else:\n"
              "            mean = self.running_mean.reshape(self.column)\n            away = x - mean\n"
              "            var = self.running_var.reshape(self.column)\n",
              "        if self.training:\n            mean = self.average(x)\n            away = x - mean\n"
              "            var = self.average(away * away)\n"
              "            self.move(mean, var, x.shape[0] * x.shape[2] * x.shape[3])\n"
              "        away = x - self.running_mean.reshape(self.column)\n"
              "        var = self.running_var.reshape(self.column)\n")),
        (17, ("kept.data + self.momentum * (new.reshape(-1) - kept.data)",
              "self.momentum * kept.data + (1 - self.momentum) * new.reshape(-1)")),
        (18, ("var.data * (n / (n - 1))", "var.data")),
        (20, ("filled(0, False)", "filled(0, True)"), ("filled(1, False)", "filled(1, True)")),
        (21, ("filled(1, True)", "filled(1, False)"), ("filled(0, True)", "filled(0, False)")),
        (24, ("var = self.average(away * away)", "var = self.average(x * x) - mean * mean")),
        (25, ('        if n < 2:\n            raise ValueError("one value per channel has no variance")\n', "")),
    ],
}
