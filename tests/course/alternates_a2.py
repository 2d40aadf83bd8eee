"""Answers to A2 in three styles, written from the prose alone, and the bank's bugs planted in them by sentence."""
from named import Other, Planted

# ------------------------------------------------------------ 2.1 the transpose of broadcasting

BACK_AXES = '''
def unbroadcast(g, shape):
    lead = g.ndim - len(shape)
    repeated = tuple(i + lead for i, n in enumerate(shape) if n == 1)
    return g.sum(tuple(range(lead)) + repeated, keepdims=True).reshape(shape)
'''
BACK_STEPS = '''
def unbroadcast(g, shape):
    while g.ndim > len(shape):
        g = g.sum(0)
    for axis in range(len(shape)):
        if shape[axis] == 1 and g.shape[axis] != 1:
            g = g.sum(axis, keepdims=True)
    return np.asarray(g)
'''
# Number the elements of the small array, let NumPy broadcast the numbers, and add up what has the same number.
BACK_NUMBERS = '''
def unbroadcast(g, shape):
    size = int(np.prod(shape))
    number = np.broadcast_to(np.arange(size).reshape(shape), g.shape)
    total = np.zeros(size, g.dtype)
    np.add.at(total, number.ravel(), g.ravel())
    return total.reshape(shape)
'''

# ------------------------------------------------------------ 2.2 arithmetic

PAIRS_PLAIN = BACK_AXES + '''

class Add(Function):
    def forward(self, a, b):
        self.shapes = a.shape, b.shape
        return a + b

    def backward(self, g):
        return unbroadcast(g, self.shapes[0]), unbroadcast(g, self.shapes[1])


class Sub(Function):
    def forward(self, a, b):
        self.shapes = a.shape, b.shape
        return a - b

    def backward(self, g):
        return unbroadcast(g, self.shapes[0]), unbroadcast(-g, self.shapes[1])


class Mul(Function):
    def forward(self, a, b):
        self.a, self.b = a, b
        return a * b

    def backward(self, g):
        a, b = self.a, self.b
        return unbroadcast(g * b, a.shape), unbroadcast(g * a, b.shape)


class Div(Function):
    def forward(self, a, b):
        self.a, self.b = a, b
        return a / b

    def backward(self, g):
        a, b = self.a, self.b
        da = g / b
        db = -g * a / (b * b)
        return unbroadcast(da, a.shape), unbroadcast(db, b.shape)


class Maximum(Function):
    def forward(self, a, b):
        self.shapes = a.shape, b.shape
        self.first = a >= b
        return np.maximum(a, b)

    def backward(self, g):
        da, db = g * self.first, g * ~self.first
        return unbroadcast(da, self.shapes[0]), unbroadcast(db, self.shapes[1])
'''
# One backward for all: each Function gives its two partial derivatives.
PAIRS_PARTIALS = BACK_STEPS + '''

class Pair(Function):
    def forward(self, a, b):
        self.a, self.b = a, b
        return self.result(a, b)

    def backward(self, g):
        da, db = self.partials(self.a, self.b)
        return unbroadcast(g * da, self.a.shape), unbroadcast(g * db, self.b.shape)


class Add(Pair):
    def result(self, a, b):
        return np.add(a, b)

    def partials(self, a, b):
        return 1, 1


class Sub(Pair):
    def result(self, a, b):
        return np.subtract(a, b)

    def partials(self, a, b):
        return 1, -1


class Mul(Pair):
    def result(self, a, b):
        return np.multiply(a, b)

    def partials(self, a, b):
        return b, a


class Div(Pair):
    def result(self, a, b):
        return np.divide(a, b)

    def partials(self, a, b):
        inverse = 1 / b
        return inverse, -a * inverse ** 2


class Maximum(Pair):
    def result(self, a, b):
        return np.where(b > a, b, a)

    def partials(self, a, b):
        second = b > a
        return ~second, second
'''
# Save only what is needed, and use the result: d(a / b)/db = -y / b.
PAIRS_RESULTS = BACK_NUMBERS + '''

def back(function, *gradients):
    return tuple(unbroadcast(d, shape) for d, shape in zip(gradients, function.saved["shapes"]))


class Add(Function):
    def forward(self, a, b):
        self.saved = {"shapes": (a.shape, b.shape)}
        return a + b

    def backward(self, g):
        return back(self, g, g)


class Sub(Function):
    def forward(self, a, b):
        self.saved = {"shapes": (a.shape, b.shape)}
        return a - b

    def backward(self, g):
        return back(self, g, np.negative(g))


class Mul(Function):
    def forward(self, a, b):
        self.saved = {"shapes": (a.shape, b.shape), "factors": (b, a)}
        return a * b

    def backward(self, g):
        for_a, for_b = self.saved["factors"]
        return back(self, for_a * g, for_b * g)


class Div(Function):
    def forward(self, a, b):
        y = a / b
        self.saved = {"shapes": (a.shape, b.shape), "b": b, "y": y}
        return y

    def backward(self, g):
        quotient = g / self.saved["b"]
        return back(self, quotient, -quotient * self.saved["y"])


class Maximum(Function):
    def forward(self, a, b):
        self.saved = {"shapes": (a.shape, b.shape), "smaller": np.less(a, b)}
        return np.where(self.saved["smaller"], b, a)

    def backward(self, g):
        smaller = self.saved["smaller"]
        zero = np.zeros_like(g)
        return back(self, np.where(smaller, zero, g), np.where(smaller, g, zero))
'''

# ------------------------------------------------------------ 2.3 matrix products

MATMUL_SWAP = BACK_AXES + '''

class MatMul(Function):
    def forward(self, a, b):
        self.a, self.b = a, b
        return a @ b

    def backward(self, g):
        da = g @ np.swapaxes(self.b, -1, -2)
        db = np.swapaxes(self.a, -1, -2) @ g
        return unbroadcast(da, self.a.shape), unbroadcast(db, self.b.shape)
'''
MATMUL_EINSUM = BACK_STEPS + '''

class MatMul(Function):
    def forward(self, a, b):
        self.factors = a, b
        return np.einsum("...il,...lj->...ij", a, b)

    def backward(self, g):
        a, b = self.factors
        da = np.einsum("...ij,...lj->...il", g, b)
        db = np.einsum("...il,...ij->...lj", a, g)
        return unbroadcast(da, a.shape), unbroadcast(db, b.shape)
'''
# Matrix by matrix: broadcast the leading axes first, and add each product where its matrix came from.
MATMUL_LOOP = '''
class MatMul(Function):
    def forward(self, a, b):
        self.a, self.b = a, b
        self.lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        y = np.empty(self.lead + (a.shape[-2], b.shape[-1]), np.result_type(a, b))
        for at in np.ndindex(self.lead):
            y[at] = self.pick(a, at) @ self.pick(b, at)
        return y

    def pick(self, stack, at):
        lead = stack.shape[:-2]
        at = at[len(at) - len(lead):]
        return stack[tuple(i if n > 1 else 0 for i, n in zip(at, lead))]

    def backward(self, g):
        da, db = np.zeros(self.a.shape, self.a.dtype), np.zeros(self.b.shape, self.b.dtype)
        for at in np.ndindex(self.lead):
            part_a, part_b = self.pick(da, at), self.pick(db, at)
            part_a += np.dot(g[at], self.pick(self.b, at).T)
            part_b += np.dot(self.pick(self.a, at).T, g[at])
        return da, db
'''

# ------------------------------------------------------------ 2.4 reductions

REDUCE_EXPAND = '''
def put_back(g, shape, axes):
    return np.broadcast_to(g.reshape([1 if i in axes else n for i, n in enumerate(shape)]), shape)


class Sum(Function):
    def forward(self, x, axis, keepdims):
        self.shape, self.axes = x.shape, axes_of(axis, x.ndim)
        return x.sum(self.axes, keepdims=keepdims)

    def backward(self, g):
        return put_back(g, self.shape, self.axes)


class Mean(Function):
    def forward(self, x, axis, keepdims):
        self.shape, self.axes = x.shape, axes_of(axis, x.ndim)
        self.n = int(np.prod([x.shape[i] for i in self.axes]))
        return x.mean(self.axes, keepdims=keepdims)

    def backward(self, g):
        return put_back(g / self.n, self.shape, self.axes)


class Max(Function):
    def forward(self, x, axis, keepdims):
        self.shape, self.axes = x.shape, axes_of(axis, x.ndim)
        rows = to_rows(x, self.axes)
        self.winner = rows.argmax(-1)
        self.rows = rows.shape
        return x.max(self.axes, keepdims=keepdims)

    def backward(self, g):
        rows = np.zeros(self.rows, g.dtype)
        np.put_along_axis(rows, self.winner[..., None], g.reshape(self.winner.shape)[..., None], -1)
        return from_rows(rows, self.shape, self.axes)
'''
# expand_dims, axis by axis; the maximum by a mask with its first True alone.
REDUCE_STEPS = '''
def put_back(g, shape, axes):
    if g.ndim < len(shape):
        for axis in sorted(axes):
            g = np.expand_dims(g, axis)
    for axis in axes:
        g = np.repeat(g, shape[axis], axis)
    return g


class Sum(Function):
    def forward(self, x, axis, keepdims):
        self.saved = x.shape, axes_of(axis, x.ndim)
        return np.sum(x, axis=axis, keepdims=keepdims)

    def backward(self, g):
        shape, axes = self.saved
        return put_back(g, shape, axes)


class Mean(Function):
    def forward(self, x, axis, keepdims):
        self.saved = x.shape, axes_of(axis, x.ndim)
        y = np.mean(x, axis=axis, keepdims=keepdims)
        self.n = x.size // y.size
        return y

    def backward(self, g):
        shape, axes = self.saved
        return put_back(g, shape, axes) / self.n


class Max(Function):
    def forward(self, x, axis, keepdims):
        self.saved = x.shape, axes_of(axis, x.ndim)
        y = np.max(x, axis=axis, keepdims=keepdims)
        best = put_back(y, *self.saved)
        rows = to_rows(x == best, self.saved[1])
        first = rows & (np.cumsum(rows, -1) == 1)
        self.mask = from_rows(first, *self.saved)
        return y

    def backward(self, g):
        return put_back(g, *self.saved) * self.mask
'''
# Everything through rows of elements that compete or are added.
REDUCE_ROWS = '''
def put_back(g, shape, axes):
    kept = [n for i, n in enumerate(shape) if i not in axes]
    n = int(np.prod([shape[i] for i in axes]))
    return from_rows(np.broadcast_to(g.reshape(kept + [1]), kept + [n]), shape, axes)


class Rows(Function):
    def forward(self, x, axis, keepdims):
        self.shape, self.axes = x.shape, axes_of(axis, x.ndim)
        y = self.reduced(to_rows(x, self.axes))
        if keepdims:
            y = y.reshape([1 if i in self.axes else n for i, n in enumerate(x.shape)])
        return y


class Sum(Rows):
    def reduced(self, rows):
        return rows.sum(-1)

    def backward(self, g):
        return put_back(g, self.shape, self.axes)


class Mean(Rows):
    def reduced(self, rows):
        self.n = rows.shape[-1]
        return rows.sum(-1) / self.n

    def backward(self, g):
        return put_back(g, self.shape, self.axes) * (1 / self.n)


class Max(Rows):
    def reduced(self, rows):
        self.places = rows.shape[-1]
        self.winner = np.argmax(rows, axis=-1)
        return np.take_along_axis(rows, self.winner[..., None], -1)[..., 0]

    def backward(self, g):
        hit = np.arange(self.places) == self.winner[..., None]
        share = g.reshape(self.winner.shape)[..., None]
        return from_rows(np.where(hit, share, g.dtype.type(0)), self.shape, self.axes)
'''

# ------------------------------------------------------------ 2.5 reshape, transpose, index

MOVE_PLAIN = '''
class Reshape(Function):
    def forward(self, x, shape):
        self.shape = x.shape
        return x.reshape(shape)

    def backward(self, g):
        return g.reshape(self.shape)


class Transpose(Function):
    def forward(self, x, axes):
        self.axes = axes
        return x.transpose(axes)

    def backward(self, g):
        return g.transpose(np.argsort(self.axes))


class GetItem(Function):
    def forward(self, x, index):
        self.shape, self.index = x.shape, index
        return x[index]

    def backward(self, g):
        dx = np.zeros(self.shape, g.dtype)
        np.add.at(dx, self.index, g)
        return dx
'''
MOVE_LISTS = '''
class Reshape(Function):
    def forward(self, x, shape):
        self.before = x.shape
        return np.reshape(x, shape)

    def backward(self, g):
        flat = g.flatten()
        back = np.empty(self.before, g.dtype)
        back.flat = flat
        return back


class Transpose(Function):
    def forward(self, x, axes):
        self.undo = [axes.index(i) for i in range(len(axes))]
        return np.transpose(x, axes)

    def backward(self, g):
        return np.transpose(g, self.undo)


class GetItem(Function):
    def forward(self, x, index):
        self.size, self.shape = x.size, x.shape
        self.taken = np.arange(x.size).reshape(x.shape)[index]
        return x[index]

    def backward(self, g):
        sums = np.bincount(np.ravel(self.taken), weights=np.ravel(g), minlength=self.size)
        return sums.reshape(self.shape).astype(g.dtype)
'''
MOVE_LOOPS = '''
class Reshape(Function):
    def forward(self, x, shape):
        self.x = x
        return x.copy().reshape(shape)

    def backward(self, g):
        return np.ascontiguousarray(g).reshape(*self.x.shape)


class Transpose(Function):
    def forward(self, x, axes):
        self.axes = tuple(axes)
        return np.moveaxis(x, self.axes, range(x.ndim))

    def backward(self, g):
        return np.moveaxis(g, range(g.ndim), self.axes)


class GetItem(Function):
    def forward(self, x, index):
        self.like = x
        self.numbers = np.arange(x.size).reshape(x.shape)[index]
        return x[index]

    def backward(self, g):
        dx = np.zeros_like(self.like)
        view = dx.reshape(-1)
        for number, share in zip(np.asarray(self.numbers).ravel(), np.asarray(g).ravel()):
            view[number] += share
        return view.reshape(dx.shape)
'''

# ------------------------------------------------------------ 2.6 cross-entropy

LOSS_LOGS = '''
class CrossEntropy(Function):
    def forward(self, z, labels):
        rows = np.arange(len(z))
        shifted = z - z.max(1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        self.p = np.exp(logs)
        self.rows, self.labels = rows, labels
        return -logs[rows, labels].mean()

    def backward(self, g):
        dz = self.p.copy()
        dz[self.rows, self.labels] -= 1
        return dz * (g / len(dz)).astype(dz.dtype)
'''
LOSS_ONE_HOT = '''
class CrossEntropy(Function):
    def forward(self, z, labels):
        N, K = z.shape
        self.target = (np.arange(K) == labels[:, None]).astype(z.dtype)
        top = z.max(axis=1)[:, None]
        e = np.exp(z - top)
        total = e.sum(axis=1)[:, None]
        self.p = e / total
        loss = np.log(total) + top - (z * self.target).sum(1, keepdims=True)
        return loss.sum() / z.dtype.type(N)

    def backward(self, g):
        return g * (self.p - self.target) / self.p.dtype.type(len(self.p))
'''
LOSS_LOOP = '''
class CrossEntropy(Function):
    def forward(self, z, labels):
        self.kept = []
        total = z.dtype.type(0)
        for row, label in zip(z, labels):
            row = row - np.max(row)
            weights = np.exp(row)
            normal = np.sum(weights)
            total = total + np.log(normal) - row[label]
            self.kept.append((weights / normal, int(label)))
        return np.asarray(total / z.dtype.type(len(z)))

    def backward(self, g):
        rows = []
        for p, label in self.kept:
            row = p / p.dtype.type(len(self.kept))
            row[label] = (p[label] - 1) / p.dtype.type(len(self.kept))
            rows.append(g * row)
        return np.array(rows)
'''

ALTERNATES = {
    "a2.1": [BACK_AXES, BACK_STEPS, BACK_NUMBERS],
    "a2.2": [PAIRS_PLAIN, PAIRS_PARTIALS, PAIRS_RESULTS],
    "a2.3": [MATMUL_SWAP, MATMUL_EINSUM, MATMUL_LOOP],
    "a2.4": [REDUCE_EXPAND, REDUCE_STEPS, REDUCE_ROWS],
    "a2.5": [MOVE_PLAIN, MOVE_LISTS, MOVE_LOOPS],
    "a2.6": [LOSS_LOGS, LOSS_ONE_HOT, LOSS_LOOP],
}

# Planted(style, bug, *changes), each from the bug's sentence in the list of bugs alone.
PLANTED = {
    "a2.1": [
        Planted(0, 1, ("return g.sum(tuple(range(lead)) + repeated, keepdims=True).reshape(shape)", "return g")),
        Planted(1, 1, ("while g.ndim > len(shape):\n        g = g.sum(0)", "return g")),
        Planted(0, 2, (" + repeated, keepdims=True).reshape(shape)", ")")),
        Planted(1, 2, ("g = g.sum(axis, keepdims=True)", "pass")),
        Planted(0, 3, (".sum(tuple(range(lead)) + repeated, keepdims=True)",
                       ".sum(tuple(range(lead)), keepdims=True).mean(repeated, keepdims=True)")),
        Planted(1, 3, ("g = g.sum(axis, keepdims=True)", "g = g.mean(axis, keepdims=True)"),
                ("g = g.sum(0)", "g = g.mean(0)")),
        Planted(1, 3, ("g = g.sum(axis, keepdims=True)", "g = g.mean(axis, keepdims=True)")),
        Planted(2, 3, ("return total.reshape(shape)", "return total.reshape(shape) * g.dtype.type(size / g.size)")),
    ],
    "a2.2": [
        Planted(0, 1, ("return unbroadcast(g * b, a.shape), unbroadcast(g * a, b.shape)", "return g * b, g * a")),
        Planted(1, 1, ("return unbroadcast(g * da, self.a.shape), unbroadcast(g * db, self.b.shape)",
                       "return g * da, g * db")),
        Planted(0, 13, ("unbroadcast(-g, self.shapes[1])", "unbroadcast(+g, self.shapes[1])")),
        Planted(1, 13, ("return 1, -1", "return 1, +1")),
        Planted(2, 13, ("np.negative(g)", "g")),
        Planted(0, 14, ("g * ~self.first", "g * self.last"),
                ("self.first = a >= b", "self.first, self.last = a >= b, b >= a")),
        Planted(1, 14, ("return ~second, second",
                        "return a >= b, b >= a")),
        Planted(2, 14, ("np.where(smaller, g, zero)", "np.where(self.saved[\"tie\"] | smaller, g, zero)"),
                ("\"smaller\": np.less(a, b)}", "\"smaller\": np.less(a, b), \"tie\": np.equal(a, b)}")),
        Planted(0, 18, ("da = g / b", "da = g / b * np.ones(1)")),
        Planted(0, 18, ("da, db = g * self.first, g * ~self.first",
                        "da, db = g * np.where(self.first, 1.0, 0.0), g * np.where(self.first, 0.0, 1.0)")),
        Planted(1, 18, ("return ~second, second",
                        "return 1 - second * np.float64(1), second * np.float64(1)")),
        Planted(2, 18, ("zero = np.zeros_like(g)", "zero = np.zeros(g.shape)")),
        Planted(0, 20, ("-g * a / (b * b)", "-g * a / b")),
        Planted(0, 20, ("-g * a / (b * b)", "g * a / (b * b)")),
        Planted(1, 20, ("-a * inverse ** 2", "-a * inverse")),
        Planted(1, 20, ("-a * inverse ** 2", "a * inverse ** 2")),
        Planted(2, 20, ("-quotient * self.saved[\"y\"]", "quotient * self.saved[\"y\"]")),
    ],
    "a2.3": [
        Planted(0, 7, ("g @ np.swapaxes(self.b, -1, -2)", "np.swapaxes(self.b, -1, -2) @ g")),
        Planted(0, 7, ("np.swapaxes(self.a, -1, -2) @ g", "g @ np.swapaxes(self.a, -1, -2)")),
        Planted(1, 7, ("return unbroadcast(da, a.shape), unbroadcast(db, b.shape)",
                       "return unbroadcast(db, b.shape), unbroadcast(da, a.shape)")),
        Planted(0, 8, ("np.swapaxes(self.b, -1, -2)", "self.b.T"), ("np.swapaxes(self.a, -1, -2)", "self.a.T")),
        Planted(1, 8, ("np.einsum(\"...ij,...lj->...il\", g, b)", "g @ b.T"),
                ("np.einsum(\"...il,...ij->...lj\", a, g)", "a.T @ g")),
        Planted(0, 9, ("return unbroadcast(da, self.a.shape), unbroadcast(db, self.b.shape)", "return da, db")),
        Planted(1, 9, ("return unbroadcast(da, a.shape), unbroadcast(db, b.shape)", "return da, db")),
        Planted(2, 9, ("part_a += np.dot", "part_a[...] = np.dot"), ("part_b += np.dot", "part_b[...] = np.dot")),
        Planted(2, 18, ("np.zeros(self.a.shape, self.a.dtype)", "np.zeros(self.a.shape)")),
    ],
    "a2.4": [
        Planted(0, 4, ("g.reshape([1 if i in axes else n for i, n in enumerate(shape)])",
                       "g.reshape(g.shape + (1,) * (len(shape) - g.ndim))")),
        Planted(1, 4, ("for axis in sorted(axes):\n            g = np.expand_dims(g, axis)",
                       "for axis in sorted(axes, reverse=True):\n    g = np.expand_dims(g, min(axis, g.ndim))")),
        Planted(1, 4, ("for axis in sorted(axes):\n            g = np.expand_dims(g, axis)",
                       "for axis in axes:\n    g = np.expand_dims(g, axes[0])")),
        Planted(0, 5, ("self.n = int(np.prod([x.shape[i] for i in self.axes]))", "self.n = x.size")),
        Planted(1, 5, ("self.n = x.size // y.size", "self.n = x.size")),
        Planted(2, 5, ("* (1 / self.n)", "* (1 / np.prod(self.shape).item())")),
        Planted(0, 6, ("put_back(g / self.n,", "put_back(1 * g,")),
        Planted(1, 6, ("put_back(g, shape, axes) / self.n", "put_back(g, shape, axes) / 1")),
        Planted(2, 6, (" * (1 / self.n)", "")),
        Planted(0, 12, ("self.winner = rows.argmax(-1)",
                 "self.winner = rows.argmax(-1)\nself.ties = rows == rows.max(-1)[..., None]"),
                ("np.put_along_axis(rows, self.winner[..., None], g.reshape(self.winner.shape)[..., None], -1)",
                 "rows += self.ties * g.reshape(self.winner.shape)[..., None]")),
        Planted(1, 12, ("first = rows & (np.cumsum(rows, -1) == 1)", "first = rows")),
        Planted(2, 12, ("self.winner = np.argmax(rows, axis=-1)",
                 "self.winner = np.argmax(rows, axis=-1)\nself.data = rows"),
                ("hit = np.arange(self.places) == self.winner[..., None]",
                 "hit = self.data == self.data.max(-1, keepdims=True)")),
        Planted(0, 18, ("rows = np.zeros(self.rows, g.dtype)", "rows = np.zeros(self.rows)")),
        Planted(1, 18, ("put_back(g, shape, axes) / self.n", "put_back(g, shape, axes) / np.float64(self.n)")),
    ],
    "a2.5": [
        Planted(0, 10, ("np.argsort(self.axes)", "self.axes")),
        Planted(1, 10, ("[axes.index(i) for i in range(len(axes))]", "list(axes)")),
        Planted(2, 10, ("np.moveaxis(g, range(g.ndim), self.axes)", "np.moveaxis(g, self.axes, range(g.ndim))")),
        Planted(0, 11, ("np.add.at(dx, self.index, g)", "dx[self.index] += g")),
        Planted(0, 11, ("np.add.at(dx, self.index, g)", "dx[self.index] = g")),
        Planted(1, 11, ("sums = np.bincount(np.ravel(self.taken), weights=np.ravel(g), minlength=self.size)",
                        "sums = np.zeros(self.size)\nsums[np.ravel(self.taken)] = np.ravel(g)")),
        Planted(2, 11, ("view[number] += share", "view[number] = share")),
        Planted(0, 18, ("dx = np.zeros(self.shape, g.dtype)", "dx = np.zeros(self.shape)")),
        Planted(1, 18, ("sums.reshape(self.shape).astype(g.dtype)", "sums.reshape(self.shape)")),
        Planted(0, 19, ("dx = np.zeros(self.shape, g.dtype)\n        np.add.at(dx, self.index, g)\n        return dx",
                 "return g")),
        Planted(1, 19, ("return sums.reshape(self.shape).astype(g.dtype)", "return 1 * g")),
        Planted(0, 21, ("g.reshape(self.shape)", "g.ravel(order=\"K\").reshape(self.shape)")),
        Planted(1, 21, ("flat = g.flatten()", "flat = g.flatten(\"K\")")),
        Planted(2, 21, ("np.ascontiguousarray(g).reshape(*self.x.shape)", "np.ravel(g, \"K\").reshape(*self.x.shape)")),
    ],
    "a2.6": [
        Planted(0, 15, ("(g / len(dz)).astype(dz.dtype)", "g.astype(dz.dtype)")),
        Planted(1, 15, ("g * (self.p - self.target) / self.p.dtype.type(len(self.p))", "g * (self.p - self.target)")),
        Planted(2, 15, ("row = p / p.dtype.type(len(self.kept))", "row = 1 * p"),
                ("(p[label] - 1) / p.dtype.type(len(self.kept))", "(p[label] - 1)")),
        Planted(0, 16, ("shifted = z - z.max(1, keepdims=True)", "shifted = z")),
        Planted(1, 16, ("top = z.max(axis=1)[:, None]", "top = z[:, :1] * 0")),
        Planted(2, 16, ("row = row - np.max(row)", "row = 1 * row")),
        Planted(0, 17, ("dz = self.p.copy()", "dz = self.p")),
        Planted(1, 17, ("return g * (self.p - self.target)", "self.p -= self.target\nreturn g * self.p")),
        Planted(2, 17,
                ("row = p / p.dtype.type(len(self.kept))\n            row[label] = (p[label] - 1) "
                        "/ p.dtype.type(len(self.kept))",
                        "p[label] -= 1\nrow = p / p.dtype.type(len(self.kept))")),
        Planted(1, 18, (".astype(z.dtype)", ".astype(float)")),
        Planted(0, 18, ("(g / len(dz)).astype(dz.dtype)", "(g * np.float64(1) / np.array([len(dz)]))")),
    ],
}

# Mistakes of the same kind that the bank does not hold.
OTHERS = {
    "a2.1": [Other(1, ("g.sum(axis, keepdims=True)", "g.max(axis, keepdims=True)")), Other(2,
                   ("g.ravel())", "-g.ravel())"))],
    "a2.2": [Other(0, ("-g * a / (b * b)", "-g / (b * b)")), Other(1, ("return b, a", "return b, b")),
             Other(2, ("return back(self, g, g)", "return back(self, g, g * g)"))],
    "a2.3": [Other(0, ("da = g @ np.swapaxes(self.b, -1, -2)", "da = 0.3 * g @ np.swapaxes(self.b, -1, -2)")),
             Other(2, ("part_a += np.dot", "part_a -= np.dot"))],
    "a2.4": [Other(0, ("rows.argmax(-1)", "rows.argmin(-1)")), Other(1,
                   ("np.cumsum(rows, -1) == 1", "np.cumsum(rows, -1) == 2")),
             Other(2, ("* (1 / self.n)", "* (1 / self.n ** 2)"))],
    "a2.5": [Other(0, ("return g.reshape(self.shape)", "return g[::-1].reshape(self.shape)")),
             Other(2, ("view[number] += share", "view[number] -= share"))],
    "a2.6": [Other(0, ("-= 1", "+= 1")), Other(1, ("self.p - self.target", "self.p * self.target")),
             Other(2, ("(p[label] - 1)", "p[label]"))],
}
