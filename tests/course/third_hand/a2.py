"""A third hand's answers to A2, and the bank's bugs planted in them by sentence: see named.py."""

UNBROADCAST = '''
def unbroadcast(g, shape):
    extra = g.ndim - len(shape)
    kept = [extra + i for i, n in enumerate(shape) if n != 1]
    return np.einsum(g, list(range(g.ndim)), kept).reshape(shape)
'''

PAIRS = UNBROADCAST + '''

class Pair(Function):
    """What the five have in common: subclasses say the rule and how the gradient splits, before any summing."""

    def forward(self, a, b):
        self.a, self.b = a, b
        return self.rule(a, b)

    def backward(self, g):
        return tuple(unbroadcast(part, t.shape) for part, t in zip(self.split(g), (self.a, self.b)))


class Add(Pair):
    def rule(self, a, b):
        return a + b

    def split(self, g):
        return [g, g]


class Sub(Pair):
    def rule(self, a, b):
        return a - b

    def split(self, g):
        return [g, -g]


class Mul(Pair):
    def rule(self, a, b):
        return a * b

    def split(self, g):
        return [g * self.b, g * self.a]


class Div(Pair):
    def rule(self, a, b):
        return a / b

    def split(self, g):
        per_b = g / self.b
        return [per_b, -per_b * self.a / self.b]


class Maximum(Pair):
    def rule(self, a, b):
        return np.maximum(a, b)

    def split(self, g):
        wins = self.a >= self.b
        return [g * wins, g * ~wins]
'''

MATMUL = UNBROADCAST + '''

def flip(t):
    return np.einsum("...ij->...ji", t)


class MatMul(Function):
    def forward(self, a, b):
        self.pair = a, b
        return np.matmul(a, b)

    def backward(self, g):
        a, b = self.pair
        da, db = np.matmul(g, flip(b)), np.matmul(flip(a), g)
        return unbroadcast(da, a.shape), unbroadcast(db, b.shape)
'''

REDUCE = '''
def put_back(g, shape, axes):
    thin = [1 if i in axes else n for i, n in enumerate(shape)]
    return np.zeros(shape, g.dtype) + g.reshape(thin)


class Sum(Function):
    def forward(self, x, axis, keepdims):
        self.shape, self.axes = x.shape, axes_of(axis, x.ndim)
        return x.sum(self.axes, keepdims=keepdims)

    def backward(self, g):
        return put_back(g, self.shape, self.axes)


class Mean(Function):
    def forward(self, x, axis, keepdims):
        self.shape, self.axes = x.shape, axes_of(axis, x.ndim)
        return x.mean(self.axes, keepdims=keepdims)

    def backward(self, g):
        spread = put_back(g, self.shape, self.axes)
        return spread * (g.size / spread.size)


class Max(Function):
    def forward(self, x, axis, keepdims):
        self.shape, self.axes = x.shape, axes_of(axis, x.ndim)
        rows = to_rows(x, self.axes)
        self.hits = np.arange(rows.shape[-1]) == rows.argmax(-1)[..., None]
        return x.max(self.axes, keepdims=keepdims)

    def backward(self, g):
        return from_rows(self.hits * g.reshape(self.hits.shape[:-1] + (1,)), self.shape, self.axes)
'''

MOVES = '''
class Reshape(Function):
    def forward(self, x, shape):
        self.before = x.shape
        return x.reshape(shape)

    def backward(self, g):
        return g.ravel().reshape(self.before)


class Transpose(Function):
    def forward(self, x, axes):
        self.came_from = list(axes)
        return np.transpose(x, axes)

    def backward(self, g):
        undo = [self.came_from.index(i) for i in range(g.ndim)]
        return g.transpose(undo)


class GetItem(Function):
    def forward(self, x, index):
        self.shape = x.shape
        self.which = np.ravel(np.arange(x.size).reshape(x.shape)[index])  # the number of each element that was taken
        return x[index]

    def backward(self, g):
        dx = np.bincount(self.which, np.ravel(g), int(np.prod(self.shape))).astype(g.dtype)
        return dx.reshape(self.shape)
'''

CROSS = '''
class CrossEntropy(Function):
    def forward(self, z, labels):
        low = z - z.max(1, keepdims=True)
        e = np.exp(low)
        total = e.sum(1, keepdims=True)
        self.right = labels[:, None] == np.arange(z.shape[1])
        self.p = e / total
        logp = low - np.log(total)
        return np.asarray(-logp[self.right].mean())

    def backward(self, g):
        dz = self.p - self.right
        return dz * (g / len(dz))
'''

ANSWERS = {"a2.1": UNBROADCAST, "a2.2": PAIRS, "a2.3": MATMUL, "a2.4": REDUCE, "a2.5": MOVES, "a2.6": CROSS}

LEADING = [("kept = [extra + i for i, n in enumerate(shape) if n != 1]", "kept = list(range(extra, g.ndim))"),
           ("return np.einsum(g, list(range(g.ndim)), kept).reshape(shape)",
            "return np.einsum(g, list(range(g.ndim)), kept)")]
AVERAGE = ("return np.einsum(g, list(range(g.ndim)), kept).reshape(shape)",
           "total = np.einsum(g, list(range(g.ndim)), kept).reshape(shape)\n    return total / (g.size // total.size)")

PLANTED = {
    "a2.1": [
        (1, ("return np.einsum(g, list(range(g.ndim)), kept).reshape(shape)", "return g")),
        (2, *LEADING),
        (3, AVERAGE),
    ],
    "a2.2": [
        (1, ("return tuple(unbroadcast(part, t.shape) for part, t in zip(self.split(g), (self.a, self.b)))",
             "return tuple(self.split(g))")),
        (2, *LEADING),
        (3, AVERAGE),
        (13, ("return [g, -g]", "return [g, +g]")),
        (14, ("return [g * wins, g * ~wins]", "return [g * wins, g * (self.b >= self.a)]")),
        (18, ("wins = self.a >= self.b", "wins = np.where(self.a >= self.b, 1.0, 0.0)"),
             ("g * ~wins", "g * (1 - wins)")),
        (20, ("-per_b * self.a / self.b", "-per_b * self.a")),
    ],
    "a2.3": [
        (3, AVERAGE),
        (7, ("np.matmul(g, flip(b)), np.matmul(flip(a), g)", "np.matmul(flip(b), g), np.matmul(g, flip(a))")),
        (8, ('return np.einsum("...ij->...ji", t)', "return t.T")),
        (9, ("return unbroadcast(da, a.shape), unbroadcast(db, b.shape)", "return da, db")),
    ],
    "a2.4": [
        (4, ("thin = [1 if i in axes else n for i, n in enumerate(shape)]",
             "thin = [1] * len(axes) + [n for i, n in enumerate(shape) if i not in axes]")),
        (5, ("spread * (g.size / spread.size)", "spread / spread.size")),
        (6, ("return spread * (g.size / spread.size)", "return spread")),
        (12, ("self.hits = np.arange(rows.shape[-1]) == rows.argmax(-1)[..., None]",
              "self.hits = rows == rows.max(-1, keepdims=True)")),
        (18, ("np.zeros(shape, g.dtype)", "np.zeros(shape)")),
    ],
    "a2.5": [
        (10, ("return g.transpose(undo)", "return g.transpose(self.came_from)")),
        (11, ("dx = np.bincount(self.which, np.ravel(g), int(np.prod(self.shape))).astype(g.dtype)",
              "dx = np.zeros(int(np.prod(self.shape)), g.dtype)\n        dx[self.which] += np.ravel(g)")),
        (18, (".astype(g.dtype)", "")),
        (19, ("dx = np.bincount(self.which, np.ravel(g), int(np.prod(self.shape))).astype(g.dtype)", "dx = g.copy()"),
             ("return dx.reshape(self.shape)", "return dx")),
        (21, ("g.ravel().reshape(self.before)", 'g.ravel("K").reshape(self.before)')),
    ],
    "a2.6": [
        (15, ("return dz * (g / len(dz))", "return dz * g")),
        (16, ("low = z - z.max(1, keepdims=True)", "low = z")),
        (17, ("dz = self.p - self.right", "dz = self.p\n        dz -= self.right")),
        (18, ("dz = self.p - self.right", "dz = self.p - np.eye(self.p.shape[1])[self.right.argmax(1)]")),
    ],
}
