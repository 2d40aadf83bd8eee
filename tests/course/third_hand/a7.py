"""A third hand's answers to A7, and the bank's bugs planted in them by sentence: see named.py."""

RESPONSES = '''
def responses(net, images):
    names = {id(m): name for name, m in net.modules()}
    modes = [(m, m.training) for _, m in net.modules()]
    arrays = [(t, t.data) for t in net.state().values()]
    convolved, found = [], {}

    def see(module, inputs, out):
        if isinstance(module, nn.Conv2d):
            convolved.append((out, tuple(module.weight.shape[-2:])))
        if isinstance(module, nn.BatchNorm2d):
            kernels = [size for t, size in convolved if t is inputs[0]]
            if kernels == [(3, 3)]:
                found[names[id(module)]] = float(out.data.std())

    try:
        net.train()
        with no_grad(), nn.watched(see):
            net(Tensor(images))
    finally:
        for m, mode in modes:
            m.training = mode
        for t, data in arrays:
            t.data = data
    return found
'''

WITHOUT = '''
@contextmanager
def without(net, name):
    block = dict(net.modules())[name]
    whole = block.forward

    def rest(x):
        return ops.relu(block.shortcut(x))

    block.forward = rest
    try:
        yield
    finally:
        block.forward = whole
'''

LESIONS = WITHOUT + '''

def percent_wrong(net, x, labels):
    return 100 * float(np.mean(logits(net, x).argmax(1) != labels))


def lesions(net, x, labels):
    table = {}
    for name in block_names(net):
        with without(net, name):
            table[name] = percent_wrong(net, x, labels)
    return table


def delete_k(net, x, labels, k, rng):
    chosen = rng.choice(block_names(net), k, replace=False)
    with ExitStack() as cuts:
        for name in chosen:
            cuts.enter_context(without(net, name))
        return percent_wrong(net, x, labels)
'''

PATHS = '''
def input_gradient(net, x, labels):
    marks = [(t, t.grad) for t in net.state().values()]
    modes = [(m, m.training) for _, m in net.modules()]
    net.eval()
    try:
        images = Tensor(x, True)
        ops.cross_entropy(net(images), labels).backward()
        return images.grad
    finally:
        for t, grad in marks:
            t.grad = grad
        for m, mode in modes:
            m.training = mode


def path_shares(norms):
    n = len(norms) - 1
    carried = np.array([math.comb(n, k) * float(g) for k, g in enumerate(norms)])
    return carried / carried.sum()
'''

DIRECTION = '''
def direction(net, rng):
    arrows = {}
    for name, t in net.state().items():
        if not t.requires_grad:
            continue
        if t.ndim == 1:
            arrows[name] = np.zeros_like(t.data)
            continue
        d = rng.standard_normal(t.shape)
        for filter_, w in zip(d, t.data):
            filter_ *= np.linalg.norm(w) / np.linalg.norm(filter_)
        arrows[name] = d.astype(t.data.dtype)
    return arrows
'''

SURFACE = '''
def loss_surface(net, x, labels, d1, d2, alphas, betas):
    state = net.state()
    home = {name: state[name].data for name in d1}

    def loss_at(a, b):
        for name, w in home.items():
            state[name].data = w + a * d1[name] + b * d2[name]
        return ops.cross_entropy(Tensor(logits(net, x)), labels).item()

    try:
        return np.array([[loss_at(float(a), float(b)) for b in betas] for a in alphas])
    finally:
        for name, w in home.items():
            state[name].data = w
'''

ANSWERS = {"a7.1": RESPONSES, "a7.2": WITHOUT, "a7.3": LESIONS, "a7.4": PATHS, "a7.5": DIRECTION, "a7.6": SURFACE}

PLANTED = {
    "a7.1": [
        (1, ("float(out.data.std())", "float(ops.relu(out).data.std())")),
        (2, ("convolved, found = [], {}", "convolved, found, outs = [], {}, {}"),
            ("        if isinstance(module, nn.BatchNorm2d):", "        outs[id(module)] = out\n"
             "        if isinstance(module, nn.Block):\n"
             "            added = outs[id(module.bn2)] + module.shortcut(inputs[0])\n"
             "            found[names[id(module.bn2)]] = float(added.data.std())\n"
             "        if isinstance(module, nn.BatchNorm2d):")),
        (3, ("float(out.data.std())", "float(out.data.std((0, 2, 3)).mean())")),
        (4, ("        net.train()\n", "        net.eval()\n")),
        (5, ("if kernels == [(3, 3)]:", "if kernels:")),
        (6, ("def responses(net", "watching = []\n\n\ndef responses(net"),
            ("        with no_grad(), nn.watched(see):\n            net(Tensor(images))",
             "        watching.append(nn.watched(see))\n        watching[-1].__enter__()\n"
             "        with no_grad():\n            net(Tensor(images))")),
        (11, ("        for t, data in arrays:\n            t.data = data\n", "")),
    ],
    "a7.2": [
        (8, ("return ops.relu(block.shortcut(x))", "return 0 * ops.relu(block.shortcut(x))")),
        (9, ("return ops.relu(block.shortcut(x))",
             "s = block.shortcut(x)\n        return ops.relu(s) if s.shape == x.shape else 0 * s")),
        (10, ("    try:\n        yield\n    finally:\n        block.forward = whole",
              "    yield\n    block.forward = whole")),
    ],
    "a7.3": [
        (10, ("        with without(net, name):\n            table[name] = percent_wrong(net, x, labels)",
              "        block = dict(net.modules())[name]\n"
              "        block.forward = lambda t, block=block: ops.relu(block.shortcut(t))\n"
              "        table[name] = percent_wrong(net, x, labels)"),
             ("    with ExitStack() as cuts:\n        for name in chosen:\n"
              "            cuts.enter_context(without(net, name))\n        return percent_wrong(net, x, labels)",
              "    for name in chosen:\n        block = dict(net.modules())[name]\n"
              "        block.forward = lambda t, block=block: ops.relu(block.shortcut(t))\n"
              "    return percent_wrong(net, x, labels)")),
        (12, ("k, replace=False)", "k)")),
        (13, ("return 100 * float(np.mean(logits(net, x).argmax(1) != labels))",
              "return float(np.mean(logits(net, x).argmax(1) != labels))")),
    ],
    "a7.4": [
        (7, ("        for t, grad in marks:\n            t.grad = grad\n", "")),
        (11, ("    net.eval()\n", "    net.train()\n")),
        (19, ("math.comb(n, k) * float(g)", "float(g)")),
    ],
    "a7.5": [
        (14, ("        for filter_, w in zip(d, t.data):\n"
              "            filter_ *= np.linalg.norm(w) / np.linalg.norm(filter_)\n",
              "        d *= np.linalg.norm(t.data) / np.linalg.norm(d)\n")),
        (15, ("        if t.ndim == 1:\n            arrows[name] = np.zeros_like(t.data)\n            continue\n", ""),
             ("for filter_, w in zip(d, t.data):\n            filter_ *= np.linalg.norm(w) / np.linalg.norm(filter_)",
              "for i, w in enumerate(t.data):\n            d[i] *= np.linalg.norm(w) / np.linalg.norm(d[i])")),
        (17, ("    arrows = {}\n", "    import copy\n\n    rng = copy.deepcopy(rng)\n    arrows = {}\n")),
    ],
    "a7.6": [
        (16, ("        return ops.cross_entropy(Tensor(logits(net, x)), labels).item()",
              "        loss = ops.cross_entropy(Tensor(logits(net, x)), labels).item()\n"
              "        for name in home:\n"
              "            state[name].data = state[name].data - a * d1[name] - b * d2[name]\n"
              "        return loss"),
             ("for name, w in home.items():\n            state[name].data = w + a * d1[name] + b * d2[name]",
              "for name in home:\n            state[name].data = state[name].data + a * d1[name] + b * d2[name]"),
             ("    try:\n        return np.array([[loss_at(float(a), float(b)) for b in betas] for a in alphas])\n"
              "    finally:\n        for name, w in home.items():\n            state[name].data = w",
              "    return np.array([[loss_at(float(a), float(b)) for b in betas] for a in alphas])")),
        (18, ("[[loss_at(float(a), float(b)) for b in betas] for a in alphas]",
              "[[loss_at(float(a), float(b)) for a in alphas] for b in betas]")),
    ],
}
