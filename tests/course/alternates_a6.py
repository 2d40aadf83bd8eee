"""Answers to A6 in three styles, written from the prose alone, and the bank's bugs planted in them by sentence."""
from named import Other, Planted

# ------------------------------------------------------------------------------------------------- 6.1 the images

PREPARE_PLAIN = '''
def prepare(train_images, test_images):
    train = train_images.astype(np.float32) / np.float32(255)
    test = test_images.astype(np.float32) / np.float32(255)
    mean = train.mean(axis=0, dtype=np.float64).astype(np.float32)
    return (train - mean)[:, None], (test - mean)[:, None]
'''
PREPARE_SUMS = '''
def scaled(images):
    return (images.reshape(len(images), 1, *images.shape[1:]) / 255).astype(np.float32)


def prepare(train_images, test_images):
    x, x_test = scaled(train_images), scaled(test_images)
    total = np.zeros(x.shape[1:], np.float64)
    for image in x:
        total += image
    typical = np.float32(total / len(x))
    return np.stack([image - typical for image in x]), np.stack([image - typical for image in x_test])
'''
PREPARE_BYTES = '''
def prepare(train_images, test_images):
    mean = train_images.mean(axis=0, keepdims=True, dtype=np.float64)

    def ready(images):
        return np.expand_dims((images.astype(np.float64) - mean) / 255.0, 1).astype("float32")

    return ready(train_images), ready(test_images)
'''

# --------------------------------------------------------------------------- 6.2 two networks that differ in one thing

PAIR_PLAIN = '''
def pair(depth, width, seed):
    plain = models.cifar(depth, residual=False, in_channels=1, width=width, rng=np.random.default_rng(seed))
    residual = models.cifar(depth, residual=True, in_channels=1, width=width, rng=np.random.default_rng(seed))
    return plain, residual
'''
PAIR_LOOP = '''
def pair(depth, width, seed):
    made = []
    for skip in (False, True):
        generator = np.random.default_rng(seed)
        made.append(models.cifar(depth, skip, in_channels=1, width=width, rng=generator))
    return tuple(made)
'''
# The residual network takes copies of the plain one's numbers.
PAIR_LOADED = '''
def pair(depth, width, seed):
    options = dict(in_channels=1, width=width)
    plain = models.cifar(depth, residual=False, rng=np.random.default_rng(seed), **options)
    residual = models.cifar(depth, residual=True, rng=np.random.default_rng(0), **options)
    source = plain.state()
    for name, t in residual.state().items():
        t.data = np.array(source[name].data)
    return plain, residual
'''

# ------------------------------------------------------------------------------------------------------ 6.3 one step

SGD_PLAIN = '''
def sgd(w, g, v, lr, momentum, weight_decay):
    v = momentum * v + (g + weight_decay * w)
    return w - lr * v, v
'''
SGD_IN_PLACE = '''
def sgd(w, g, v, lr, momentum, weight_decay):
    velocity, weight = v.copy(), w.copy()
    velocity *= momentum
    velocity += g
    velocity += weight_decay * w
    weight -= lr * velocity
    return weight, velocity
'''
SGD_GRADIENT = '''
def sgd(w, g, v, lr, momentum, weight_decay):
    slope = np.add(g, np.multiply(w, weight_decay))
    new_v = np.add(np.multiply(v, momentum), slope)
    return np.subtract(w, np.multiply(new_v, lr)), new_v
'''

# ---------------------------------------------------------------------------------------------- 6.4 the learning rate

RATE_COUNTED = '''
def learning_rate(step, base, warm_up, drops):
    if step < warm_up:
        return base / 10
    return base * 0.1 ** sum(step >= drop for drop in drops)
'''
RATE_WALKED = '''
def learning_rate(step, base, warm_up, drops):
    rate = base
    for drop in sorted(drops):
        if drop <= step:
            rate = rate / 10
    if step <= warm_up - 1:
        rate = rate / 10
    return rate
'''
RATE_SEARCHED = '''
def learning_rate(step, base, warm_up, drops):
    passed = int(np.searchsorted(np.sort(np.array(drops, int)), step, side="right"))
    early = 1 if step in range(warm_up) else 0
    return float(base * 10.0 ** -(passed + early))
'''

# ------------------------------------------------------------------------------------------------------- 6.5 one pass

EPOCH_PLAIN = '''
def train_epoch(net, x, labels, optimizer, batch_size, rng):
    net.train()
    order = rng.permutation(len(x))
    total = 0.0
    for start in range(0, len(x), batch_size):
        rows = order[start:start + batch_size]
        optimizer.zero_grad()
        loss = ops.cross_entropy(net(Tensor(x[rows])), labels[rows])
        loss.backward()
        optimizer.step()
        total += loss.item() * len(rows)
    return total / len(x)
'''
EPOCH_SPLIT = '''
def one_step(net, optimizer, images, answers):
    optimizer.zero_grad()
    loss = ops.cross_entropy(net(Tensor(images)), answers)
    number = float(loss.data)
    loss.backward()
    optimizer.step()
    return number


def train_epoch(net, x, labels, optimizer, batch_size, rng):
    net.train()
    order = rng.permutation(len(x))
    x, labels = x[order], labels[order]
    cuts = range(batch_size, len(x), batch_size)
    losses, sizes = [], []
    for images, answers in zip(np.split(x, cuts), np.split(labels, cuts)):
        losses.append(one_step(net, optimizer, images, answers))
        sizes.append(len(answers))
    return float(np.average(losses, weights=sizes))
'''
EPOCH_WHILE = '''
def train_epoch(net, x, labels, optimizer, batch_size, rng):
    waiting = list(rng.permutation(len(x)))
    net.train()
    per_image = []
    while waiting:
        now, waiting = waiting[:batch_size], waiting[batch_size:]
        images, answers = np.stack([x[i] for i in now]), np.array([labels[i] for i in now])
        loss = ops.cross_entropy(net(Tensor(images)), answers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        per_image += [loss.item()] * len(now)
    return sum(per_image) / len(per_image)
'''

# ------------------------------------------------------------------------------------------------------ 6.6 the error

ERROR_PLAIN = '''
def error(net, x, labels, batch_size):
    modes = [(m, m.training) for _, m in net.modules()]
    net.eval()
    wrong = 0
    try:
        with no_grad():
            for start in range(0, len(x), batch_size):
                answers = net(Tensor(x[start:start + batch_size])).data.argmax(1)
                wrong += int((answers != labels[start:start + batch_size]).sum())
    finally:
        for m, training in modes:
            m.training = training
    return 100 * wrong / len(x)


def errors(net, train, test, batch_size):
    return {"train_error": error(net, *train, batch_size), "test_error": error(net, *test, batch_size)}
'''
ERROR_CONCATENATED = '''
def error(net, x, labels, batch_size):
    before = {name: m.training for name, m in net.modules()}
    net.eval()
    with no_grad():
        batches = [x[i:i + batch_size] for i in range(0, len(x), batch_size)]
        scores = np.concatenate([net(Tensor(batch)).data for batch in batches])
    for name, m in net.modules():
        m.training = before[name]
    right = np.argmax(scores, axis=1) == labels
    return 100.0 - 100.0 * float(np.mean(right))


def errors(net, train, test, batch_size):
    (x, labels), (x_test, labels_test) = train, test
    found = {}
    found["train_error"] = error(net, x, labels, batch_size)
    found["test_error"] = error(net, x_test, labels_test, batch_size)
    return found
'''
ERROR_CONTEXT = '''
from contextlib import contextmanager


@contextmanager
def asleep(net):
    awake = [m for _, m in net.modules() if m.training]
    for m in awake:
        m.training = False
    yield net
    for m in awake:
        m.training = True


def error(net, x, labels, batch_size):
    marks = []
    with asleep(net), no_grad():
        rest = np.arange(len(x))
        while len(rest):
            z = net(Tensor(x[rest[:batch_size]])).data
            marks.extend(z.argmax(1) != labels[rest[:batch_size]])
            rest = rest[batch_size:]
    return 100 * float(np.mean(marks))


def errors(net, train, test, batch_size):
    sets = {"train_error": train, "test_error": test}
    return {name: error(net, images, labels, batch_size) for name, (images, labels) in sets.items()}
'''

# --------------------------------------------------------------------------------- 6.7 a measurement without a trace

NORMS_PLAIN = '''
def gradient_norms(net, x, labels):
    kept = [(t, t.data, t.grad) for t in net.state().values()]
    modes = [(m, m.training) for _, m in net.modules()]
    for t in net.parameters():
        t.grad = None
    try:
        net.train()
        ops.cross_entropy(net(Tensor(x)), labels).backward()
        return {name: float(np.linalg.norm(m.weight.grad) / np.linalg.norm(m.weight.data))
                for name, m in net.modules() if isinstance(m, nn.Conv2d)}
    finally:
        for t, data, grad in kept:
            t.data, t.grad = data, grad
        for m, training in modes:
            m.training = training
'''
NORMS_NAMED = '''
def length(a):
    return np.sqrt((np.asarray(a, np.float64) ** 2).sum())


def gradient_norms(net, x, labels):
    state = net.state()
    data, grads = {n: t.data for n, t in state.items()}, {n: t.grad for n, t in state.items()}
    training = {n: m.training for n, m in net.modules()}
    for t in state.values():
        t.grad = None
    net.train()
    loss = ops.cross_entropy(net(Tensor(x)), labels)
    loss.backward()
    result = {}
    for name in state:
        layer = name.rpartition(".")[0]
        if name.endswith("weight") and isinstance(dict(net.modules())[layer], nn.Conv2d):
            result[layer] = float(length(state[name].grad) / length(state[name].data))
    for n, t in state.items():
        t.data, t.grad = data[n], grads[n]
    for n, m in net.modules():
        m.training = training[n]
    return result
'''
NORMS_CONTEXT = '''
from contextlib import ExitStack


def gradient_norms(net, x, labels):
    with ExitStack() as after:
        for t in net.state().values():
            after.callback(setattr, t, "data", t.data)
            after.callback(setattr, t, "grad", t.grad)
            t.grad = None
        for _, m in net.modules():
            after.callback(setattr, m, "training", m.training)
            m.training = True
        z = net(Tensor(x))
        log = ops.log_softmax(z)
        (-ops.mean(log[np.arange(len(x)), labels])).backward()
        convolutions = [(name, m.weight) for name, m in net.modules() if isinstance(m, nn.Conv2d)]
        return {name: float(np.sqrt(np.vdot(w.grad, w.grad) / np.vdot(w.data, w.data))) for name, w in convolutions}
'''

ALTERNATES = {
    "a6.1": [PREPARE_PLAIN, PREPARE_SUMS, PREPARE_BYTES],
    "a6.2": [PAIR_PLAIN, PAIR_LOOP, PAIR_LOADED],
    "a6.3": [SGD_PLAIN, SGD_IN_PLACE, SGD_GRADIENT],
    "a6.4": [RATE_COUNTED, RATE_WALKED, RATE_SEARCHED],
    "a6.5": [EPOCH_PLAIN, EPOCH_SPLIT, EPOCH_WHILE],
    "a6.6": [ERROR_PLAIN, ERROR_CONCATENATED, ERROR_CONTEXT],
    "a6.7": [NORMS_PLAIN, NORMS_NAMED, NORMS_CONTEXT],
}

# Planted(style, bug, *changes), each from the bug's sentence in the list of bugs alone.
PLANTED = {
    "a6.1": [
        Planted(0, 12, ("(test - mean)", "(test - test.mean(axis=0, dtype=np.float64).astype(np.float32))")),
        Planted(1, 12, ("image - typical for image in x_test",
                        "image - np.float32(x_test.mean(0, dtype=float)) for image in x_test")),
        Planted(2, 12, ("return np.expand_dims((images.astype(np.float64) - mean)",
                        "return np.expand_dims((images - images.mean(axis=0, keepdims=True, dtype=np.float64))")),
    ],
    "a6.2": [
        Planted(0, 8, ("residual=True, in_channels=1", "residual=True, shortcut='B', in_channels=1")),
        Planted(1, 8, ("depth, skip, in_channels=1", "depth, skip, shortcut='B' if skip else 'A', in_channels=1")),
        Planted(2, 8, ("residual=True, rng", "residual=True, shortcut='B', rng"),
                ("t.data = np.array(source[name].data)",
                 "t.data = np.array(source[name].data) if name in source else t.data")),
        Planted(0, 9, ("return plain, residual", "for name, t in residual.state().items():\n"
                                                 "    t.data = plain.state()[name].data\nreturn plain, residual")),
        Planted(2, 9, ("np.array(source[name].data)", "source[name].data")),
        Planted(1, 9, ("return tuple(made)", "made[1].load_state(made[0].state())\n"
                                             "for a, b in zip(*(net.parameters() for net in made)):\n"
                                             "    b.data = a.data\nreturn tuple(made)")),
    ],
    "a6.3": [
        Planted(0, 10, ("(g + weight_decay * w)", "(g + (1 - momentum) * weight_decay * w)")),
        Planted(1, 10, ("velocity += weight_decay * w", "velocity += (1 - momentum) * weight_decay * w")),
        Planted(2, 10, ("np.multiply(w, weight_decay)", "np.multiply(w, weight_decay * (1 - momentum))")),
        Planted(0, 11,
                ("momentum * v + (g + weight_decay * w)", "momentum * v + (1 - momentum) * (g + weight_decay * w)")),
        Planted(1, 11, ("velocity += g", "velocity += (1 - momentum) * g"),
                ("velocity += weight_decay * w", "velocity += (1 - momentum) * weight_decay * w")),
        Planted(2, 11, ("np.multiply(v, momentum), slope", "np.multiply(v, momentum), (1 - momentum) * slope")),
        Planted(0, 11, ("(g + weight_decay * w)", "((1 - momentum) * g + weight_decay * w)")),
    ],
    "a6.4": [
        Planted(0, 13, ("step >= drop", "step > drop")),
        Planted(1, 13, ("drop <= step", "drop < step")),
        Planted(2, 13, ('side="right"', 'side="left"')),
        Planted(0, 13, ("if step < warm_up", "if step <= warm_up")),
        Planted(1, 13, ("step <= warm_up - 1", "step <= warm_up")),
        Planted(2, 13, ("range(warm_up)", "range(warm_up + 1)"), ('side="right"', 'side="left"')),
        Planted(0, 13, ("if step < warm_up", "step = step - 1\nif step < warm_up")),
    ],
    "a6.5": [
        Planted(0, 1, ("optimizer.zero_grad()", "pass")),
        Planted(1, 1, ("optimizer.zero_grad()", "pass")),
        Planted(2, 1, ("optimizer.zero_grad()", "pass")),
        Planted(0, 1, ("optimizer.zero_grad()", "pass"), ("total = 0.0", "total = 0.0\noptimizer.zero_grad()")),
        Planted(0, 4, ("labels[rows])", "labels[start:start + batch_size])")),
        Planted(1, 4, ("x, labels = x[order], labels[order]", "x = x[order]")),
        Planted(2, 4, ("labels[i] for i in now", "labels[len(x) - 1 - i] for i in now")),
        Planted(2, 4, ("waiting = list(rng.permutation(len(x)))",
                       "waiting, other = list(rng.permutation(len(x))), list(rng.permutation(len(x)))"),
                ("labels[i] for i in now", "labels[other.pop(0)] for i in now")),
        Planted(0, 5, ("loss.item() * len(rows)", "loss.item()"),
                ("total / len(x)", "total / -(-len(x) // batch_size)")),
        Planted(0, 5, ("loss.item() * len(rows)", "loss.item() * batch_size")),
        Planted(1, 5, ("float(np.average(losses, weights=sizes))", "float(np.mean(losses))")),
        Planted(2, 5, ("[loss.item()] * len(now)", "[loss.item()]")),
        Planted(1, 5, ("sizes.append(len(answers))", "sizes.append(batch_size)")),
        Planted(0, 15, ("range(0, len(x), batch_size)", "range(0, len(x) - batch_size + 1, batch_size)")),
        Planted(0, 15, ("range(0, len(x), batch_size)", "range(0, len(x) - batch_size + 1, batch_size)"),
                ("total / len(x)", "total / (len(x) // batch_size * batch_size)")),
        Planted(1, 15, ("losses.append(one_step", "if len(answers) < batch_size:\n    continue\n"
                                                  "losses.append(one_step")),
        Planted(2, 15, ("while waiting:", "while len(waiting) >= batch_size:")),
        Planted(0, 16, ("total += loss.item() * len(rows)", "total = total + loss * float(len(rows))"),
                ("return total / len(x)", "return total.item() / len(x)")),
        Planted(2, 16, ("per_image = []", "total = 0.0"),
                ("per_image += [loss.item()] * len(now)", "total = total + loss * float(len(now))"),
                ("return sum(per_image) / len(per_image)", "return (total / float(len(x))).item()")),
        Planted(0, 3, ("net.train()\n    order", "order")),
        Planted(1, 3, ("net.train()\n    order", "order")),
        Planted(2, 3, ("net.train()\n    per_image", "per_image")),
    ],
    "a6.6": [
        Planted(0, 2, ("net.eval()", "net.train()")),
        Planted(1, 2, ("net.eval()", "pass")),
        Planted(2, 2, ("m.training = False", "m.training = True")),
        Planted(0, 3, ("for m, training in modes:\n            m.training = training", "pass")),
        Planted(1, 3, ("for name, m in net.modules():\n        m.training = before[name]", "pass")),
        Planted(2, 3, ("m.training = True", "m.training = False")),
        Planted(0, 5, ("wrong += int((answers != labels[start:start + batch_size]).sum())",
                       "wrong += float((answers != labels[start:start + batch_size]).mean())"),
                ("100 * wrong / len(x)", "100 * wrong / -(-len(x) // batch_size)")),
        Planted(2, 5, ("marks.extend(z.argmax(1) != labels[rest[:batch_size]])",
                       "marks.append(np.mean(z.argmax(1) != labels[rest[:batch_size]]))")),
        Planted(0, 14,
                ('"train_error": error(net, *train, batch_size)', '"train_error": error(net, *test, batch_size)')),
        Planted(1, 14, ('found["train_error"] = error(net, x, labels, batch_size)',
                        'found["train_error"] = error(net, x_test, labels_test, batch_size)')),
        Planted(2, 14, ('"train_error": train', '"train_error": test')),
        Planted(0, 15, ("range(0, len(x), batch_size)", "range(0, len(x) - batch_size + 1, batch_size)")),
        Planted(1, 15, ("range(0, len(x), batch_size)]", "range(0, len(x) - batch_size + 1, batch_size)]"),
                ("== labels", "== labels[:len(scores)]")),
        Planted(2, 15, ("while len(rest):", "while len(rest) >= batch_size:")),
    ],
    "a6.7": [
        Planted(0, 1, ("t.grad = None", "pass")),
        Planted(1, 1, ("t.grad = None", "pass")),
        Planted(2, 1, ("t.grad = None", "pass")),
        Planted(0, 7, (" / np.linalg.norm(m.weight.data)", "")),
        Planted(1, 7, (" / length(state[name].data)", "")),
        Planted(2, 7, (" / np.vdot(w.data, w.data)", "")),
        Planted(0, 6, ("np.linalg.norm(m.weight.grad)", "np.linalg.norm(0 if grads[m] is None else grads[m])"),
                ("return {name",
                 "grads = {m: old for _, m in net.modules() if isinstance(m, nn.Conv2d) for t, _, old in kept if t is"
                 " m.weight}\n"
                                 "return {name")),
        Planted(1, 6, ("loss.backward()", "loss.backward()\nfor t in state.values():\n    t.grad = 0 * t.data")),
        Planted(2, 6, ("convolutions = [", "for t in net.parameters():\n    t.grad = np.zeros_like(t.data)\n"
                                           "convolutions = [")),
        Planted(0, 3, ("net.train()", "net.eval()")),
        Planted(1, 3, ("net.train()", "net.eval()")),
        Planted(2, 3, ("m.training = True", "m.training = False")),
        Planted(0, 3, ("for m, training in modes:\n            m.training = training", "net.eval()")),
    ],
}

# Mistakes of the same kind that the bank does not hold.
OTHERS = {
    "a6.1": [Other(0, ("(train - mean)", "(train + mean)")), Other(2, ("/ 255.0", "/ 256.0"))],
    "a6.2": [Other(0, ("depth, residual=True", "depth + 6, residual=True")),
             Other(1, ("width=width", "width=width + 1"))],
    "a6.3": [Other(0, ("w - lr * v", "w + lr * v")),
             Other(2, ("np.multiply(new_v, lr)", "np.multiply(new_v, lr * lr)"))],
    "a6.4": [Other(0, ("base / 10", "base / 2")), Other(1, ("if drop <= step:\n            rate = rate / 10",
                                                          "if drop <= step:\n    rate = rate / 2"))],
    "a6.5": [Other(0, ("range(0, len(x), batch_size)", "range(batch_size, len(x), batch_size)")),
             Other(1, ("return number", "return number ** 2"))],
    "a6.6": [Other(0, (".argmax(1)", ".argmin(1)")),
             Other(2, ("100 * float(np.mean(marks))", "100 * float(np.std(marks))"))],
    "a6.7": [Other(0, ("np.linalg.norm(m.weight.grad)", "abs(m.weight.grad).max()")),
             Other(2, ("(-ops.mean(log", "(ops.sum(log"))],
}
