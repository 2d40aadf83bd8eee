"""A third hand's answers to A5, and the bank's bugs planted in them by sentence: see named.py."""

UNIT = '''
def unit(x, w, gamma, beta, eps, stride=1, padding=1):
    """A convolution and its BN."""
    a, conv = conv_forward(x, w, stride, padding)
    y, norm = bn_forward(a, gamma, beta, eps)
    return y, (conv, norm)


def unit_back(dy, saved):
    conv, norm = saved
    da, dgamma, dbeta = bn_backward(dy, norm)
    dx, dw = conv_backward(da, conv)
    return dx, dw, dgamma, dbeta
'''

FORWARD = UNIT + '''

def residual_forward(x, p, eps):
    memo = {}
    inner, memo["first"] = unit(x, p["w1"], p["gamma1"], p["beta1"], eps)
    h = relu(inner)
    branch, memo["second"] = unit(h, p["w2"], p["gamma2"], p["beta2"], eps)
    total = branch + x
    memo["open"] = inner > 0, total > 0
    return relu(total), memo
'''

BACKWARD = FORWARD + '''

def residual_backward(dy, cache):
    dp, (inner_open, last_open) = {}, cache["open"]
    dtotal = dy * last_open
    dh, dp["w2"], dp["gamma2"], dp["beta2"] = unit_back(dtotal, cache["second"])
    dinner = dh * inner_open
    dx, dp["w1"], dp["gamma1"], dp["beta1"] = unit_back(dinner, cache["first"])
    return dx + dtotal, dp
'''

OPTION_A = '''
def home(C, channels, pad):
    """The slice of the old channels among the new ones."""
    before = {"end": 0, "both": (channels - C) // 2}[pad]
    return slice(before, before + C)


def shortcut_a(x, stride, channels, pad):
    small = x[:, :, ::stride, ::stride]
    y = np.zeros((len(x), channels) + small.shape[2:], x.dtype)
    y[:, home(x.shape[1], channels, pad)] = small
    return y


def shortcut_a_backward(dy, shape, stride, pad):
    dx = np.zeros(shape, dy.dtype)
    dx[:, :, ::stride, ::stride] = dy[:, home(shape[1], dy.shape[1], pad)]
    return dx
'''

GENERAL = UNIT + OPTION_A + '''

def block_forward(x, p, eps, stride=1, pad="both"):
    memo = {}
    inner, memo["first"] = unit(x, p["w1"], p["gamma1"], p["beta1"], eps, stride)
    h = relu(inner)
    branch, memo["second"] = unit(h, p["w2"], p["gamma2"], p["beta2"], eps)
    if "ws" in p:
        side, memo["side"] = unit(x, p["ws"], p["gammas"], p["betas"], eps, stride, 0)
    elif stride == 1 and x.shape[1] == branch.shape[1]:
        side = x
    else:
        side, memo["picked"] = shortcut_a(x, stride, branch.shape[1], pad), (x.shape, stride, pad)
    total = branch + side
    memo["open"] = inner > 0, total > 0
    return relu(total), memo


def block_backward(dy, cache):
    dp, (inner_open, last_open) = {}, cache["open"]
    dtotal = dy * last_open
    dh, dp["w2"], dp["gamma2"], dp["beta2"] = unit_back(dtotal, cache["second"])
    dinner = dh * inner_open
    dx, dp["w1"], dp["gamma1"], dp["beta1"] = unit_back(dinner, cache["first"])
    dside = dtotal
    if "side" in cache:
        dside, dp["ws"], dp["gammas"], dp["betas"] = unit_back(dside, cache["side"])
    elif "picked" in cache:
        dside = shortcut_a_backward(dside, *cache["picked"])
    return dx + dside, dp
'''

BLOCK = '''
from minires import Tensor


class Block(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1, *, shortcut="A", pad="both", rng):
        def conv(before, size, step):
            return nn.Conv2d(before, out_channels, size, step, size // 2, rng=rng)

        self.conv1 = conv(in_channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv(out_channels, 3, 1)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.how = "as it is" if stride == 1 and in_channels == out_channels else shortcut
        self.reshaping = stride, out_channels, pad
        if self.how == "B":
            self.downsample = nn.Sequential(conv(in_channels, 1, stride), nn.BatchNorm2d(out_channels))

    def side(self, x):
        if self.how == "B":
            return self.downsample(x)
        if self.how == "A":
            return ops.subsample_and_pad(x, *self.reshaping)
        return x

    def forward(self, x):
        h = ops.relu(self.bn1(self.conv1(x)))
        branch = self.bn2(self.conv2(h))
        return ops.relu(branch + self.side(x))

    def zero_gamma(self):
        gamma = self.bn2.weight
        gamma.data = 0 * gamma.data
        return ["bn2.weight"]
'''

ANSWERS = {"a5.1": FORWARD, "a5.2": BACKWARD, "a5.3": OPTION_A, "a5.4": GENERAL, "a5.5": BLOCK}

SECOND = 'branch, memo["second"] = unit(h, p["w2"], p["gamma2"], p["beta2"], eps)'

PLANTED = {
    "a5.1": [
        (5, ("return relu(total), memo", "return total, memo")),
        (6, ("h = relu(inner)", "h = inner")),
        (8, ("total = branch + x", "x += branch\n    total = x")),
        (9, ("h = relu(inner)", "x = relu(inner)"), (SECOND, SECOND.replace("(h,", "(x,"))),
        (10, (SECOND, SECOND.replace("(h,", "(x,"))),
        (11, ("total = branch + x", "total = branch + x + x")),
        (12, (SECOND, 'branch, memo["second"] = conv_forward(h, p["w2"], 1, 1)')),
        (13, ('p["gamma2"], p["beta2"], eps', 'p["gamma1"], p["beta1"], eps')),
        (14, ("total = branch + x", "total = relu(branch) + x"), ("return relu(total), memo", "return total, memo")),
        (24, ("def residual_forward(", "memo = {}\n\n\ndef residual_forward("),
             ("    memo = {}\n    inner", "    inner")),
    ],
    "a5.2": [
        (1, ("return dx + dtotal, dp", "return dx, dp")),
        (2, ("return dx + dtotal, dp", "return dx + 2 * dtotal, dp")),
        (3, ("return dx + dtotal, dp", "dx = dtotal\n    return dx, dp")),
        (4, ("return dx + dtotal, dp", "return dx + dy, dp")),
        (5, ("dtotal = dy * last_open", "dtotal = dy.copy()")),
        (6, ("dinner = dh * inner_open", "dinner = dh")),
        (7, ('memo["open"] = inner > 0, total > 0', 'memo["open"] = inner > 0, branch > 0')),
        (8, ("total = branch + x", "x += branch\n    total = x")),
        (9, ("total = branch + x", "total = branch + h"),
            ("dinner = dh * inner_open", "dinner = (dh + dtotal) * inner_open"),
            ("return dx + dtotal, dp", "return dx, dp")),
        (10, (SECOND, SECOND.replace("(h,", "(x,"))),
        (12, ('dx, dp["w1"], dp["gamma1"], dp["beta1"] = unit_back(dinner, cache["first"])',
              'conv, norm = cache["first"]\n    dx, dp["w1"] = conv_backward(dinner, conv)\n'
              '    _, dp["gamma1"], dp["beta1"] = bn_backward(dinner, norm)')),
        (13, ('unit_back(dtotal, cache["second"])', 'unit_back(dtotal, (cache["second"][0], cache["first"][1]))')),
        (14, ("total = branch + x", "total = relu(branch) + x"),
             ('memo["open"] = inner > 0, total > 0', 'memo["open"] = inner > 0, branch > 0'),
             ("return relu(total), memo", "return total, memo"),
             ("return dx + dtotal, dp", "return dx + dy, dp")),
        (24, ("def residual_forward(", "memo = {}\n\n\ndef residual_forward("),
             ("    memo = {}\n    inner", "    inner")),
    ],
    "a5.3": [
        (20, ("dx[:, :, ::stride, ::stride] = dy[:, home(shape[1], dy.shape[1], pad)]",
              "small = dy[:, home(shape[1], dy.shape[1], pad)]\n"
              "    dx[...] = small.repeat(stride, 2).repeat(stride, 3)[:, :, :shape[2], :shape[3]]")),
        (21, ('{"end": 0, "both": (channels - C) // 2}[pad]',
              '{"end": channels - C, "both": (channels - C + 1) // 2}[pad]')),
    ],
    "a5.4": [
        (1, ("return dx + dside, dp", "return dx, dp")),
        (2, ("return dx + dside, dp", "return dx + dside + dside, dp")),
        (3, ("return dx + dside, dp", "dx = dside\n    return dx, dp")),
        (4, ("dside = dtotal\n", "dside = dy\n")),
        (5, ("dtotal = dy * last_open", "dtotal = dy.copy()")),
        (6, ("dinner = dh * inner_open", "dinner = dh")),
        (7, ('memo["open"] = inner > 0, total > 0', 'memo["open"] = inner > 0, branch > 0')),
        (8, ("total = branch + side", "if side is x:\n        x += branch\n        total = x\n"
             "    else:\n        total = branch + side")),
        (9, ("h = relu(inner)", "x = relu(inner)"), (SECOND, SECOND.replace("(h,", "(x,"))),
        (11, ("total = branch + side", "total = branch + side + side")),
        (12, (SECOND, 'branch, memo["second"] = conv_forward(h, p["w2"], 1, 1)'),
             ('dh, dp["w2"], dp["gamma2"], dp["beta2"] = unit_back(dtotal, cache["second"])',
              'dh, dp["w2"] = conv_backward(dtotal, cache["second"])\n'
              '    dp["gamma2"] = dp["beta2"] = np.zeros(dy.shape[1], dy.dtype)')),
        (13, ('p["gamma2"], p["beta2"], eps', 'p["gamma1"], p["beta1"], eps')),
        (14, ("total = branch + side", "total = relu(branch) + side"),
             ('memo["open"] = inner > 0, total > 0', 'memo["open"] = inner > 0, branch > 0'),
             ("return relu(total), memo", "return total, memo"), ("dside = dtotal\n", "dside = 1 * dy\n")),
        (15, ('p["betas"], eps, stride, 0)', 'p["betas"], eps, 1, 0)')),
        (16, (SECOND, SECOND.replace("eps)", "eps, stride)"))),
        (17, ("return dx + dside, dp", 'return dx if "side" in cache else dx + dside, dp')),
        (18, ('dside, dp["ws"], dp["gammas"], dp["betas"] = unit_back(dside, cache["side"])',
              'dside, *_ = unit_back(dside, cache["side"])')),
        (20, ("dx[:, :, ::stride, ::stride] = dy[:, home(shape[1], dy.shape[1], pad)]",
              "small = dy[:, home(shape[1], dy.shape[1], pad)]\n"
              "    dx[...] = small.repeat(stride, 2).repeat(stride, 3)[:, :, :shape[2], :shape[3]]")),
        (21, ('{"end": 0, "both": (channels - C) // 2}[pad]',
              '{"end": channels - C, "both": (channels - C + 1) // 2}[pad]')),
        (24, ("def block_forward(", "memo = {}\n\n\ndef block_forward("), ("    memo = {}\n    inner", "    inner")),
    ],
    "a5.5": [
        (1, ("return ops.relu(branch + self.side(x))", "return ops.relu(branch + Tensor(self.side(x).data))")),
        (5, ("return ops.relu(branch + self.side(x))", "return branch + self.side(x)")),
        (6, ("h = ops.relu(self.bn1(self.conv1(x)))", "h = self.bn1(self.conv1(x))")),
        (9, ("h = ops.relu(self.bn1(self.conv1(x)))", "x = ops.relu(self.bn1(self.conv1(x)))"),
            ("self.conv2(h)", "self.conv2(x)")),
        (10, ("self.conv2(h)", "self.conv2(x)")),
        (11, ("branch + self.side(x)", "branch + self.side(x) + self.side(x)")),
        (12, ("branch = self.bn2(self.conv2(h))", "branch = self.conv2(h)")),
        (13, ("branch = self.bn2(self.conv2(h))", "branch = self.bn1(self.conv2(h))")),
        (14, ("ops.relu(branch + self.side(x))", "ops.relu(branch) + self.side(x)")),
        (15, ("conv(in_channels, 1, stride)", "conv(in_channels, 1, 1)")),
        (16, ("conv(out_channels, 3, 1)", "conv(out_channels, 3, stride)")),
        (17, ("return self.downsample(x)", "return self.downsample(Tensor(x.data))")),
        (18, ("self.downsample = nn.Sequential(conv(in_channels, 1, stride), nn.BatchNorm2d(out_channels))",
              "project = nn.Sequential(conv(in_channels, 1, stride), nn.BatchNorm2d(out_channels))\n"
              "            self.projected = lambda t: project(t)"),
             ("return self.downsample(x)", "return self.projected(x)")),
        (19, ('self.how = "as it is" if stride == 1 and in_channels == out_channels else shortcut',
              'self.how = "as it is" if stride == 1 and in_channels == out_channels and shortcut == "A" '
              'else shortcut')),
        (21, ("self.reshaping = stride, out_channels, pad", 'self.reshaping = stride, out_channels, "end"')),
        (22, ("gamma = self.bn2.weight", "gamma = self.bn1.weight"), ('["bn2.weight"]', '["bn1.weight"]')),
        (23, ("    def side(self, x):", """    def train(self):
        self.training = True
        self.bn1.train()
        self.bn2.train()

    def eval(self):
        self.training = False
        self.bn1.eval()
        self.bn2.eval()

    def side(self, x):""")),
        (24, ('self.how = "as it is"',
              "Block.layers = self.conv1, self.bn1, self.conv2, self.bn2\n        self.how = \"as it is\""),
             ("h = ops.relu(self.bn1(self.conv1(x)))",
              "conv1, bn1, conv2, bn2 = Block.layers\n        h = ops.relu(bn1(conv1(x)))"),
             ("branch = self.bn2(self.conv2(h))", "branch = bn2(conv2(h))")),
    ],
}
