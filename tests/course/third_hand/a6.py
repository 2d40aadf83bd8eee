"""A third hand's answers to A6, and the bank's bugs planted in them by sentence: see named.py."""

PREPARE = '''
def lifted(images):
    return np.float32(images)[:, None] / 255


def prepare(train_images, test_images):
    x, x_test = lifted(train_images), lifted(test_images)
    usual = np.float32(x.mean(axis=0, dtype=np.float64))
    return x - usual, x_test - usual
'''

PAIR = '''
def pair(depth, width, seed):
    def one(skips):
        return models.cifar(depth, residual=skips, in_channels=1, width=width, rng=np.random.default_rng(seed))

    plain, residual = one(False), one(True)
    return plain, residual
'''

SGD = '''
def sgd(w, g, v, lr, momentum, weight_decay):
    pull = g + weight_decay * w
    speed = momentum * v + pull
    return w - lr * speed, speed
'''

RATE = '''
def learning_rate(step, base, warm_up, drops):
    tenths = sum(step >= d for d in drops) + (step < warm_up)
    return base / 10 ** tenths
'''

EPOCH = '''
def train_epoch(net, x, labels, optimizer, batch_size, rng):
    net.train()
    waiting = rng.permutation(len(x))
    total = 0.0
    while len(waiting):
        now, waiting = waiting[:batch_size], waiting[batch_size:]
        optimizer.zero_grad()
        loss = ops.cross_entropy(net(Tensor(x[now])), labels[now])
        loss.backward()
        total += loss.item() * len(now)
        optimizer.step()
    return total / len(x)
'''

ERROR = '''
def error(net, x, labels, batch_size):
    before = {m: m.training for _, m in net.modules()}
    net.eval()
    missed = 0
    try:
        with no_grad():
            for start in range(0, len(x), batch_size):
                part = slice(start, start + batch_size)
                said = net(Tensor(x[part])).data.argmax(1)
                missed += int((said != labels[part]).sum())
    finally:
        for m, mode in before.items():
            m.training = mode
    return 100.0 * missed / len(x)


def errors(net, train, test, batch_size):
    return {"train_error": error(net, *train, batch_size), "test_error": error(net, *test, batch_size)}
'''

NORMS = '''
def gradient_norms(net, x, labels):
    kept = [(t, t.data, t.grad) for t in net.state().values()]
    modes = [(m, m.training) for _, m in net.modules()]
    found = {}
    try:
        for t in net.parameters():
            t.grad = None
        net.train()
        ops.cross_entropy(net(Tensor(x)), labels).backward()
        for name, m in net.modules():
            if isinstance(m, nn.Conv2d):
                found[name] = float(np.linalg.norm(m.weight.grad) / np.linalg.norm(m.weight.data))
    finally:
        for t, data, grad in kept:
            t.data, t.grad = data, grad
        for m, mode in modes:
            m.training = mode
    return found
'''

ANSWERS = {"a6.1": PREPARE, "a6.2": PAIR, "a6.3": SGD, "a6.4": RATE, "a6.5": EPOCH, "a6.6": ERROR, "a6.7": NORMS}

MEASURE = """        for name, m in net.modules():
            if isinstance(m, nn.Conv2d):
                found[name] = float(np.linalg.norm(m.weight.grad) / np.linalg.norm(m.weight.data))
"""

PLANTED = {
    "a6.1": [
        (12, ("return x - usual, x_test - usual",
              "usual_test = np.float32(x_test.mean(axis=0, dtype=np.float64))\n"
              "    return x - usual, x_test - usual_test")),
    ],
    "a6.2": [
        (8, ("in_channels=1, width=width,", 'in_channels=1, width=width, shortcut="B",')),
        (9, ("    return plain, residual",
             "    for a, b in zip(plain.parameters(), residual.parameters()):\n        b.data = a.data\n"
             "    return plain, residual")),
    ],
    "a6.3": [
        (10, ("pull = g + weight_decay * w", "pull = g + (1 - momentum) * weight_decay * w")),
        (11, ("speed = momentum * v + pull", "speed = momentum * v + (1 - momentum) * pull")),
    ],
    "a6.4": [
        (13, ("sum(step >= d for d in drops) + (step < warm_up)", "sum(step > d for d in drops) + (step <= warm_up)")),
    ],
    "a6.5": [
        (1, ("        optimizer.zero_grad()\n", "")),
        (3, ("    net.train()\n", "")),
        (4, ("    total = 0.0\n", "    total = 0.0\n    answers = rng.permutation(labels)\n    done = 0\n"),
            ("labels[now])", "answers[done:done + len(now)])\n        done += len(now)")),
        (5, ("    total = 0.0\n", "    total, count = 0.0, 0\n"),
            ("total += loss.item() * len(now)", "total += loss.item()\n        count += 1"),
            ("return total / len(x)", "return total / count")),
        (15, ("while len(waiting):", "while len(waiting) >= batch_size:")),
        (16, ("total += loss.item() * len(now)", "total += loss * len(now)"),
             ("return total / len(x)", "return total.item() / len(x)")),
    ],
    "a6.6": [
        (2, ("    net.eval()\n", "    net.train()\n")),
        (3, ("        for m, mode in before.items():\n            m.training = mode\n", "        pass\n")),
        (5, ("    missed = 0\n", "    shares = []\n"),
            ("missed += int((said != labels[part]).sum())", "shares.append((said != labels[part]).mean())"),
            ("return 100.0 * missed / len(x)", "return 100.0 * float(np.mean(shares))")),
        (14, ('"train_error": error(net, *train, batch_size)', '"train_error": error(net, *test, batch_size)')),
        (15, ("range(0, len(x), batch_size)", "range(0, len(x) - batch_size + 1, batch_size)")),
    ],
    "a6.7": [
        (1, ("        for t in net.parameters():\n            t.grad = None\n", "")),
        (3, ("        net.train()\n", "")),
        (6, (MEASURE, ""), ("    return found", MEASURE.replace("        for", "    for").replace(
            "            if", "        if").replace("                found", "            found")
            + "    return found")),
        (7, ("float(np.linalg.norm(m.weight.grad) / np.linalg.norm(m.weight.data))",
             "float(np.linalg.norm(m.weight.grad))")),
    ],
}
