"""Answers to A7 in three styles, written from the prose alone, and the bank's bugs planted in them by sentence."""
from named import Other, Planted

# ------------------------------------------------------------------------------------------------ 7.1 responses

# A hook remembers which module made each Tensor.
RESPONSES_MADE = '''
def responses(net, images):
    names = {id(m): name for name, m in net.modules()}
    modes = [(m, m.training) for _, m in net.modules()]
    arrays = [(t, t.data) for t in net.state().values()]
    made, found = [], {}

    def see(module, inputs, out):
        if isinstance(module, nn.Conv2d):
            made.append((out, module))
        if isinstance(module, nn.BatchNorm2d):
            for tensor, conv in made:
                if tensor is inputs[0] and conv.weight.shape[2:] == (3, 3):
                    found[names[id(module)]] = float(out.data.std())

    net.train()
    try:
        with no_grad(), nn.watched(see):
            net(Tensor(images))
    finally:
        for m, training in modes:
            m.training = training
        for t, data in arrays:
            t.data = data
    return found
'''
# The last convolution is remembered; the BN after it looks whether its input is that convolution's output.
RESPONSES_LAST = '''
class Probe:
    def __init__(self, net):
        self.names = dict((id(m), n) for n, m in net.modules())
        self.last, self.values = (None, None), {}

    def __call__(self, module, inputs, out):
        if isinstance(module, nn.Conv2d):
            self.last = module, out
        elif isinstance(module, nn.BatchNorm2d):
            conv, tensor = self.last
            if inputs[0] is tensor and tuple(conv.weight.shape)[-1] == 3:
                squares = np.square(out.data - out.data.mean())
                self.values[self.names[id(module)]] = float(np.sqrt(squares.mean()))


def responses(net, images):
    probe = Probe(net)
    before = {name: t.data for name, t in net.state().items()}
    modes = {name: m.training for name, m in net.modules()}
    with ExitStack() as stack:
        stack.callback(restore, net, before, modes)
        stack.enter_context(no_grad())
        stack.enter_context(nn.watched(probe))
        net.train()
        net(Tensor(images))
    return probe.values


def restore(net, before, modes):
    for name, t in net.state().items():
        t.data = before[name]
    for name, m in net.modules():
        m.training = modes[name]
'''
# All outputs are kept; what follows what is worked out at the end.
RESPONSES_ALL = '''
@contextmanager
def as_before(net):
    kept = [(t, t.data, t.grad) for t in net.state().values()]
    modes = [(m, m.training) for _, m in net.modules()]
    try:
        yield
    finally:
        for t, t.data, t.grad in kept:
            pass
        for m, m.training in modes:
            pass


def responses(net, images):
    calls = []
    with as_before(net):
        net.train()
        with no_grad(), nn.watched(lambda module, inputs, out: calls.append((module, inputs, out))):
            net(Tensor(images))
    source = {id(out): module for module, _, out in calls if isinstance(module, nn.Conv2d)}
    answer = {}
    for name, bn in net.modules():
        for module, inputs, out in calls:
            if module is bn and isinstance(bn, nn.BatchNorm2d) and source[id(inputs[0])].weight.shape[3] == 3:
                answer[name] = float(np.std(out.data))
    return answer
'''

# -------------------------------------------------------------------------------------------- 7.2 one block less

WITHOUT_ASSIGNED = '''
@contextmanager
def without(net, name):
    block = dict(net.modules())[name]
    old = block.forward
    block.forward = lambda x: ops.relu(block.shortcut(x))
    try:
        yield
    finally:
        block.forward = old
'''
WITHOUT_CLASS = '''
class without:
    def __init__(self, net, name):
        self.block = [m for n, m in net.modules() if n == name][0]

    def __enter__(self):
        self.had = "forward" in vars(self.block)
        self.before = self.block.forward
        self.block.forward = self.reduced

    def reduced(self, x):
        return ops.relu(self.block.shortcut(x))

    def __exit__(self, *error):
        if self.had:
            self.block.forward = self.before
        else:
            del self.block.forward
        return False
'''
WITHOUT_STACK = '''
@contextmanager
def without(net, name):
    block = dict(net.modules())[name]

    def reduced(x):
        s = block.shortcut(x)
        return ops.maximum(s, 0.0)

    with ExitStack() as stack:
        if "forward" in vars(block):
            stack.callback(setattr, block, "forward", block.forward)
        else:
            stack.callback(delattr, block, "forward")
        setattr(block, "forward", reduced)
        yield
'''

# --------------------------------------------------------------------------------------------------- 7.3 lesions

LESIONS_PLAIN = '''
def percent_wrong(net, x, labels):
    wrong = logits(net, x).argmax(1) != labels
    return 100 * float(wrong.mean())


def lesions(net, x, labels):
    errors = {}
    for name in block_names(net):
        with without(net, name):
            errors[name] = percent_wrong(net, x, labels)
    return errors


def delete_k(net, x, labels, k, rng):
    chosen = rng.choice(block_names(net), k, replace=False)
    with ExitStack() as stack:
        for name in chosen:
            stack.enter_context(without(net, name))
        return percent_wrong(net, x, labels)
'''
LESIONS_RECURSIVE = '''
def error_without(net, names, x, labels):
    if len(names) == 0:
        right = np.count_nonzero(np.argmax(logits(net, x), axis=1) == labels)
        return 100.0 * (len(labels) - right) / len(labels)
    with without(net, names[0]):
        return error_without(net, names[1:], x, labels)


def lesions(net, x, labels):
    return {name: error_without(net, [name], x, labels) for name in block_names(net)}


def delete_k(net, x, labels, k, rng):
    return error_without(net, list(rng.choice(block_names(net), k, replace=False)), x, labels)
'''
LESIONS_COUNTED = '''
def cut(net, names):
    stack = ExitStack()
    for name in names:
        stack.enter_context(without(net, str(name)))
    return stack


def count_errors(net, x, labels):
    wrong = 0
    for row, label in zip(logits(net, x), labels):
        if int(np.argmax(row)) != int(label):
            wrong += 1
    return wrong / len(labels) * 100


def lesions(net, x, labels):
    found = dict.fromkeys(block_names(net))
    for name in found:
        with cut(net, [name]):
            found[name] = count_errors(net, x, labels)
    return found


def delete_k(net, x, labels, k, rng):
    names = rng.choice(block_names(net), k, replace=False)
    with cut(net, names):
        return count_errors(net, x, labels)
'''

# ---------------------------------------------------------------------------------- 7.4 which paths carry it

PATHS_PLAIN = '''
def input_gradient(net, x, labels):
    grads = [(t, t.grad) for t in net.parameters()]
    modes = [(m, m.training) for _, m in net.modules()]
    images = Tensor(x, True)
    net.eval()
    try:
        ops.cross_entropy(net(images), labels).backward()
    finally:
        for t, grad in grads:
            t.grad = grad
        for m, training in modes:
            m.training = training
    return images.grad


def path_shares(norms):
    n = len(norms) - 1
    carried = np.array([math.comb(n, k) * norms[k] for k in range(n + 1)], float)
    return carried / carried.sum()
'''
PATHS_PASCAL = '''
@contextmanager
def traceless(net):
    state, modes = net.state(), {m: m.training for _, m in net.modules()}
    grads = {name: t.grad for name, t in state.items()}
    yield
    for name, t in state.items():
        t.grad = grads[name]
    for m in modes:
        m.training = modes[m]


def input_gradient(net, x, labels):
    with traceless(net):
        net.eval()
        inputs = Tensor(np.array(x), True)
        loss = ops.cross_entropy(net(inputs), labels)
        loss.backward()
    return np.array(inputs.grad)


def path_shares(norms):
    row = [1]
    for _ in range(len(norms) - 1):
        row = [a + b for a, b in zip([0, *row], [*row, 0])]
    weighted = [float(c) * float(g) for c, g in zip(row, norms)]
    total = math.fsum(weighted)
    return np.array([w / total for w in weighted])
'''
# The gradients are kept away while the net runs, and set back by name; the binomials are a product of quotients.
PATHS_PRODUCT = '''
def input_gradient(net, x, labels):
    parameters = net.parameters()
    kept = [t.grad for t in parameters]
    training = [m.training for _, m in net.modules()]
    for _, m in net.modules():
        m.training = False
    t = Tensor(x, True)
    z = net(t)
    p = ops.log_softmax(z)
    loss = -ops.mean(p[np.arange(len(x)), labels])
    loss.backward()
    for parameter, g in zip(parameters, kept):
        parameter.grad = g
    for (_, m), mode in zip(net.modules(), training):
        m.training = mode
    return t.grad


def path_shares(norms):
    norms = np.asarray(norms, float)
    n = norms.size - 1
    k = np.arange(1, n + 1)
    binomial = np.concatenate([[1.0], np.cumprod((n + 1 - k) / k)])
    return binomial * norms / np.dot(binomial, norms)
'''

# ----------------------------------------------------------------------------------------------- 7.5 directions

DIRECTION_LOOP = '''
def direction(net, rng):
    result = {}
    for name, t in net.state().items():
        if not t.requires_grad:
            continue
        if t.ndim == 1:
            result[name] = np.zeros_like(t.data)
            continue
        d = rng.standard_normal(t.shape)
        for i in range(len(d)):
            d[i] *= np.linalg.norm(t.data[i]) / np.linalg.norm(d[i])
        result[name] = d.astype(t.data.dtype)
    return result
'''
DIRECTION_ROWS = '''
def rows(a):
    return np.sqrt((a.reshape(len(a), -1) ** 2).sum(1, keepdims=True))


def scaled(t, rng):
    d = rng.standard_normal(t.shape)
    flat = d.reshape(len(d), -1)
    flat = flat / rows(d) * rows(t.data)
    return flat.reshape(t.shape).astype(t.data.dtype)


def direction(net, rng):
    return {name: scaled(t, rng) if len(t.shape) > 1 else np.zeros(t.shape, t.data.dtype)
            for name, t in net.state().items() if t.requires_grad}
'''
DIRECTION_AXES = '''
def direction(net, rng):
    parameters = [(name, t) for name, t in net.state().items() if t.requires_grad]
    out = {name: 0 * t.data for name, t in parameters}
    for name, t in parameters:
        if t.ndim > 1:
            axes = tuple(range(1, t.ndim))
            draw = rng.standard_normal(t.shape)
            length = lambda a: np.sqrt(np.sum(a * a, axis=axes, keepdims=True))
            out[name] = (draw * (length(t.data) / length(draw))).astype(t.data.dtype)
    return out
'''

# ------------------------------------------------------------------------------------- 7.6 the loss around weights

SURFACE_PLAIN = '''
def loss_surface(net, x, labels, d1, d2, alphas, betas):
    state = net.state()
    kept = {name: state[name].data for name in d1}
    surface = np.zeros((len(alphas), len(betas)))
    try:
        for i, alpha in enumerate(alphas):
            for j, beta in enumerate(betas):
                for name, w in kept.items():
                    state[name].data = w + float(alpha) * d1[name] + float(beta) * d2[name]
                surface[i, j] = ops.cross_entropy(Tensor(logits(net, x)), labels).item()
    finally:
        for name, w in kept.items():
            state[name].data = w
    return surface
'''
SURFACE_CONTEXT = '''
@contextmanager
def moved(net, step):
    tensors = {name: net.state()[name] for name in step}
    weights = {name: t.data for name, t in tensors.items()}
    for name, t in tensors.items():
        t.data = weights[name] + step[name]
    try:
        yield
    finally:
        for name, t in tensors.items():
            t.data = weights[name]


def loss_surface(net, x, labels, d1, d2, alphas, betas):
    def loss(alpha, beta):
        with moved(net, {name: float(alpha) * d1[name] + float(beta) * d2[name] for name in d1}):
            z = logits(net, x)
        return ops.cross_entropy(Tensor(z), labels).item()

    return np.array([[loss(alpha, beta) for beta in betas] for alpha in alphas])
'''
# The loss is computed in NumPy, and points are visited in one flat loop.
SURFACE_FLAT = '''
def loss_surface(net, x, labels, d1, d2, alphas, betas):
    state = net.state()
    copies = [(state[name], state[name].data, d1[name], d2[name]) for name in d1]
    points = [(float(alpha), float(beta)) for alpha in alphas for beta in betas]
    values = []
    try:
        for a, b in points:
            for t, w, u, v in copies:
                t.data = w + (a * u + b * v)
            z = logits(net, x)
            z = z - z.max(1, keepdims=True)
            log = z[np.arange(len(z)), labels] - np.log(np.exp(z).sum(1))
            values.append(-log.mean())
    finally:
        for t, w, *_ in copies:
            t.data = w
    return np.reshape(np.array(values, float), (len(alphas), len(betas)))
'''

ALTERNATES = {
    "a7.1": [RESPONSES_MADE, RESPONSES_LAST, RESPONSES_ALL],
    "a7.2": [WITHOUT_ASSIGNED, WITHOUT_CLASS, WITHOUT_STACK],
    "a7.3": [LESIONS_PLAIN, LESIONS_RECURSIVE, LESIONS_COUNTED],
    "a7.4": [PATHS_PLAIN, PATHS_PASCAL, PATHS_PRODUCT],
    "a7.5": [DIRECTION_LOOP, DIRECTION_ROWS, DIRECTION_AXES],
    "a7.6": [SURFACE_PLAIN, SURFACE_CONTEXT, SURFACE_FLAT],
}

# Planted(style, bug, *changes), each from the bug's sentence in the list of bugs alone.
PLANTED = {
    "a7.1": [
        Planted(0, 1, ("float(out.data.std())", "float(np.maximum(out.data, 0).std())")),
        Planted(1, 1, ("squares = np.square(out.data - out.data.mean())",
                       "y = np.maximum(out.data, 0)\nsquares = np.square(y - y.mean())")),
        Planted(2, 1, ("np.std(out.data)", "np.std(out.data * (out.data > 0))")),
        Planted(0, 3, ("float(out.data.std())", "float(np.mean([image.std() for image in out.data]))")),
        Planted(1, 3, ("float(np.sqrt(squares.mean()))", "float(out.data.std((1, 2, 3)).mean())")),
        Planted(2, 3, ("np.std(out.data)", "np.mean(np.std(out.data.reshape(len(out.data), -1), 1))")),
        Planted(0, 4, ("net.train()", "net.eval()")),
        Planted(1, 4, ("net.train()", "net.eval()")),
        Planted(2, 4, ("net.train()", "net.eval()")),
        Planted(0, 5, ("if tensor is inputs[0] and conv.weight.shape[2:] == (3, 3):", "if tensor is inputs[0]:")),
        Planted(1, 5, ("and tuple(conv.weight.shape)[-1] == 3", "")),
        Planted(2, 5, (" and source[id(inputs[0])].weight.shape[3] == 3", "")),
        Planted(0, 11, ("for t, data in arrays:\n            t.data = data", "pass")),
        Planted(1, 11, ("for name, t in net.state().items():\n        t.data = before[name]", "pass")),
        Planted(2, 11, ("for t, t.data, t.grad in kept", "for t, _, t.grad in kept")),
        Planted(0, 6, ("with no_grad(), nn.watched(see):\n            net(Tensor(images))",
                       "nn.hooks.watchers.set((*nn.hooks.watchers.get(), see))\n"
                       "with no_grad():\n    net(Tensor(images))")),
        Planted(1, 6, ("stack.enter_context(nn.watched(probe))",
                        "nn.hooks.watchers.set((*nn.hooks.watchers.get(), probe))")),
        Planted(2, 2, ("return answer", "for module, inputs, out in calls:\n    if isinstance(module, nn.Block):\n"
                                        "        (bn2,) = [o for m, _, o in calls if m is module.bn2]\n"
                                        "        (key,) = [n for n, m in net.modules() if m is module.bn2]\n"
                                        "        answer[key] = float((bn2.data +"
                                        " module.shortcut(inputs[0]).data).std())\n"
                                        "return answer")),
    ],
    "a7.2": [
        Planted(0, 8, ("ops.relu(block.shortcut(x))", "ops.relu(0 * block.shortcut(x))")),
        Planted(1, 8, ("return ops.relu(self.block.shortcut(x))", "return self.block.shortcut(x) * 0.0")),
        Planted(2, 8, ("return ops.maximum(s, 0.0)", "return Tensor(np.zeros_like(s.data))")),
        Planted(0, 9,
                ("ops.relu(block.shortcut(x))", "x if block.shortcut(x).shape == x.shape else 0 * block.shortcut(x)")),
        Planted(1, 9, ("return ops.relu(self.block.shortcut(x))",
                       "s = self.block.shortcut(x)\nreturn ops.relu(s) if s.shape == x.shape else Tensor(0 * s.data)")),
        Planted(2, 9, ("return ops.maximum(s, 0.0)", "return ops.maximum(s, 0.0) if x.shape == s.shape else 0.0 * s")),
        Planted(0, 10,
                ("try:\n        yield\n    finally:\n        block.forward = old", "yield\nblock.forward = old")),
        Planted(0, 10, ("block.forward = old", "pass")),
        Planted(1, 10, ("if self.had:", "if error[0] is not None:\n    return False\nif self.had:")),
        Planted(1, 10, ("del self.block.forward", "pass")),
        Planted(2, 10, ("with ExitStack() as stack:", "stack = ExitStack()\nif True:")),
    ],
    "a7.3": [
        Planted(0, 12, ("k, replace=False", "k")),
        Planted(1, 12, ("k, replace=False", "k, replace=True")),
        Planted(2, 12, ("k, replace=False", "k, True")),
        Planted(0, 13, ("100 * float(wrong.mean())", "float(wrong.mean())")),
        Planted(1, 13, ("100.0 * (len(labels) - right) / len(labels)", "100.0 * right / len(labels)")),
        Planted(2, 13, ("wrong / len(labels) * 100", "wrong / len(labels)")),
        Planted(0, 13, ("argmax(1) != labels", "argmax(1) == labels")),
        Planted(1, 13, ("100.0 * (len(labels) - right) / len(labels)", "right / len(labels)")),
        Planted(1, 10, ("with without(net, names[0]):\n        return error_without(net, names[1:], x, labels)",
                        "KEPT.append(without(net, names[0]))\nKEPT[-1].__enter__()\nreturn error_without(net,"
                        " names[1:], x, labels)"),
                ("def error_without(net, names, x, labels):",
                 "KEPT = []\n\n\ndef error_without(net, names, x, labels):")),
    ],
    "a7.4": [
        Planted(0, 19, ("math.comb(n, k) * norms[k]", "norms[k]")),
        Planted(1, 19, ("float(c) * float(g)", "float(g)")),
        Planted(2, 19, ("binomial * norms / np.dot(binomial, norms)", "norms / norms.sum()")),
        Planted(0, 7, ("for t, grad in grads:\n            t.grad = grad", "pass")),
        Planted(1, 7, ("t.grad = grads[name]", "pass")),
        Planted(2, 7, ("parameter.grad = g", "pass")),
        Planted(0, 11, ("net.eval()", "net.train()")),
        Planted(1, 11, ("net.eval()", "net.train()")),
    ],
    "a7.5": [
        Planted(0, 14, ("for i in range(len(d)):\n            d[i] *= np.linalg.norm(t.data[i]) / np.linalg.norm(d[i])",
                        "d *= np.linalg.norm(t.data) / np.linalg.norm(d)")),
        Planted(1, 14, ("flat / rows(d) * rows(t.data)", "flat / np.linalg.norm(d) * np.linalg.norm(t.data)")),
        Planted(2, 14, ("axes = tuple(range(1, t.ndim))", "axes = None")),
        Planted(0, 15, ("result[name] = np.zeros_like(t.data)", "d = rng.standard_normal(t.shape)\nresult[name] = "
                        "(d * np.linalg.norm(t.data) / np.linalg.norm(d)).astype(t.data.dtype)")),
        Planted(1, 15, ("scaled(t, rng) if len(t.shape) > 1 else np.zeros(t.shape, t.data.dtype)", "scaled(t, rng)")),
        Planted(2, 15, ("if t.ndim > 1:", "if t.ndim:")),
        Planted(0, 15, ("result[name] = np.zeros_like(t.data)", "result[name] = rng.standard_normal(t.shape)")),
        Planted(0, 15, ("result[name] = np.zeros_like(t.data)", "d = rng.standard_normal(t.shape)\nresult[name] = d"
                        " * abs(t.data) / abs(d)")),
        Planted(0, 17, ("result = {}", "result, rng = {}, np.random.default_rng(0)")),
        Planted(1, 17, ("return {name: scaled", "rng = np.random.default_rng(0)\nreturn {name: scaled")),
        Planted(2, 17, ("out = {name", "from copy import deepcopy\nrng = deepcopy(rng)\nout = {name")),
    ],
    "a7.6": [
        Planted(0, 18, ("return surface", "return surface.T")),
        Planted(1, 18, ("[[loss(alpha, beta) for beta in betas] for alpha in alphas]",
                        "[[loss(alpha, beta) for alpha in alphas] for beta in betas]")),
        Planted(2, 18, ("for alpha in alphas for beta in betas", "for beta in betas for alpha in alphas")),
        Planted(2, 18, ("(len(alphas), len(betas)))", "(len(alphas), len(betas))).T")),
        Planted(0, 16, ("state[name].data = w + float(alpha) * d1[name] + float(beta) * d2[name]",
                        "state[name].data = state[name].data + float(alpha) * d1[name] + float(beta) * d2[name]"),
                ("labels).item()",
                 "labels).item()\nfor name in kept:\n    state[name].data = state[name].data - float(alpha)"
                 " * d1[name] - float(beta) * d2[name]"),
                ("finally:\n        for name, w in kept.items():\n            state[name].data = w",
                 "finally:\n    pass")),
        Planted(1, 16, ("finally:\n        for name, t in tensors.items():\n            t.data = weights[name]",
                        "finally:\n    for name, t in tensors.items():\n        t.data = t.data - step[name]")),
        Planted(2, 16, ("t.data = w + (a * u + b * v)", "t.data = t.data + (a * u + b * v)"),
                ("values.append(-log.mean())", "values.append(-log.mean())\nfor t, w, u, v in copies:\n"
                 "    t.data = t.data - (a * u + b * v)"), ("for t, w, *_ in copies:\n            t.data = w", "pass")),
    ],
}

# Mistakes of the same kind that the bank does not hold.
OTHERS = {
    "a7.1": [Other(0, ("out.data.std()", "out.data.var()")), Other(2, ("np.std(out.data)", "np.abs(out.data).mean()"))],
    "a7.2": [Other(0, ("lambda x: ops.relu(block.shortcut(x))",
                       "lambda x: ops.relu(block.bn2(block.conv2(ops.relu(block.bn1(block.conv1(x))))))")),
             Other(0, ("ops.relu(block.shortcut(x))", "ops.relu(-block.shortcut(x))")),
             Other(1, ("ops.relu(self.block.shortcut(x))", "0.5 * ops.relu(self.block.shortcut(x))"))],
    "a7.3": [Other(0, (".argmax(1)", ".argmin(1)")), Other(2, ("/ len(labels) * 100", "/ (len(labels) + 1) * 100"))],
    "a7.4": [Other(0, ("t.grad = grad\n", "t.grad = None\n")), Other(0, ("math.comb(n, k)", "math.comb(n + 1, k)")),
             Other(1, ("np.array(inputs.grad)", "len(x) * np.array(inputs.grad)"))],
    "a7.5": [Other(0, ("rng.standard_normal(t.shape)", "rng.random(t.shape)")),
             Other(2, ("length(t.data) / length(draw)", "1 / length(draw)"))],
    "a7.6": [Other(0, ("+ float(beta)", "- float(beta)")), Other(2, ("-log.mean()", "-log.sum()"))],
}
