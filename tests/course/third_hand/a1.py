"""A third hand's answers to A1, and the bank's bugs planted in them by sentence: see named.py."""

VALUE = '''
def as_value(x):
    return x if isinstance(x, Value) else Value(x)


def joined(number, *ways):
    """A Value made from pairs (parent, how fast the number grows with it)."""
    slopes = [s for _, s in ways]
    return Value(number, tuple(p for p, _ in ways), lambda g: tuple(g * s for s in slopes))


class Value:
    def __init__(self, data, parents=(), shares=None):
        self.data = data
        self.grad = 0.0
        self.parents = parents
        self.shares = shares

    def __repr__(self):
        return f"Value({self.data}, grad={self.grad})"

    def __add__(self, other):
        other = as_value(other)

        def shares(g):
            return g, g

        return Value(self.data + other.data, (self, other), shares)

    def __radd__(self, other):
        return self + other

    def __neg__(self):
        return joined(-self.data, (self, -1))

    def __sub__(self, other):
        other = as_value(other)
        return joined(self.data - other.data, (self, 1), (other, -1))

    def __rsub__(self, number):
        return joined(number - self.data, (self, -1))

    def __mul__(self, other):
        other = as_value(other)
        here, there = self.data, other.data
        return joined(here * there, (self, there), (other, here))

    def __rmul__(self, number):
        return self * number

    def __truediv__(self, other):
        other = as_value(other)
        bottom = other.data
        ratio = self.data / bottom
        return joined(ratio, (self, 1 / bottom), (other, -ratio / bottom))

    def __rtruediv__(self, number):
        bottom = self.data
        return joined(number / bottom, (self, -number / (bottom * bottom)))

    def __pow__(self, n):
        base = self.data
        return joined(base ** n, (self, n * base ** (n - 1)))
'''

FUNCTIONS = '''
def exp(x):
    a = math.exp(x.data)
    return Value(a, (x,), lambda g: (a * g,))


def log(x):
    a = x.data
    return Value(math.log(a), (x,), lambda g: (g / a,))


def tanh(x):
    a = math.tanh(x.data)
    return Value(a, (x,), lambda g: (g - g * a * a,))


def relu(x):
    switched_on = x.data > 0
    return Value(x.data if switched_on else 0.0, (x,), lambda g: (g if switched_on else 0.0,))
'''

TOPOLOGICAL = '''
from collections import Counter


def topological(result):
    uses, everything = Counter(), [result]
    for v in everything:  # the list grows while it is read
        for p in v.parents:
            if not uses[p]:
                everything.append(p)
            uses[p] += 1
    backwards, free = [], [result]
    while free:
        v = free.pop()
        backwards.append(v)
        for p in v.parents:
            uses[p] -= 1
            if uses[p] == 0:
                free.append(p)
    return backwards[::-1]
'''

SWEEP = '''
def sweep(order):
    arrived = {v: 0.0 for v in order}
    arrived[order[-1]] = 1.0
    for v in order[::-1]:
        total = arrived[v]
        if v.parents:
            v.grad = total
            for p, share in zip(v.parents, v.shares(total)):
                arrived[p] += share
        else:
            v.grad += total
'''

ANSWERS = {"a1.1": VALUE, "a1.2": VALUE + FUNCTIONS, "a1.3": TOPOLOGICAL, "a1.4": SWEEP}

BODY = TOPOLOGICAL[TOPOLOGICAL.index("    uses, everything"):].rstrip("\n")

PLANTED = {
    "a1.1": [
        (2, ("slopes = [s for _, s in ways]", "slopes = dict(ways)"),
            ("return Value(number, tuple(p for p, _ in ways), lambda g: tuple(g * s for s in slopes))",
             "return Value(number, tuple(slopes), lambda g: tuple(g * s for s in slopes.values()))")),
        (8, ("(self, there), (other, here)", "(self, here), (other, there)")),
        (9, ("tuple(g * s for s in slopes)", "tuple(slopes)")),
        (11, ("n * base ** (n - 1)", "n * base ** n")),
        (14, ("joined(number - self.data, (self, -1))", "joined(number - self.data, (self, 1))"),
             ("(self, -number / (bottom * bottom))", "(self, 1 / number)")),
        (17, ("slopes = [s for _, s in ways]",
              "parts = []\n    for _, s in ways:\n        parts.append(lambda g: g * s)"),
             ("tuple(g * s for s in slopes)", "tuple(part(g) for part in parts)")),
    ],
    "a1.2": [
        (9, ("lambda g: (a * g,)", "lambda g: (a,)"), ("lambda g: (g / a,)", "lambda g: (1 / a,)"),
            ("lambda g: (g - g * a * a,)", "lambda g: (1 - a * a,)"),
            ("lambda g: (g if switched_on else 0.0,)", "lambda g: (1.0 if switched_on else 0.0,)")),
        (10, ("switched_on = x.data > 0", "switched_on = x.data >= 0")),
        (12, ("lambda g: (a * g,)", "lambda g: (x.data * g,)")),
        (13, ("lambda g: (g - g * a * a,)", "lambda g: (g - g * x.data * x.data,)")),
        (17, ("return Value(math.log(a), (x,), lambda g: (g / a,))",
              "shares = lambda g: (g / a,)\n    a = math.log(a)\n    return Value(a, (x,), shares)")),
    ],
    "a1.3": [
        (4, ("return backwards[::-1]", "return backwards")),
        (5, (BODY, """    met, seen, todo = [], set(), [result]
    while todo:
        v = todo.pop()
        if v in seen:
            continue
        seen.add(v)
        met.append(v)
        todo.extend(v.parents)
    return met[::-1]""")),
        (6, (BODY, """    everything, seen = [result], {result}
    for v in everything:  # the list grows while it is read
        for p in v.parents:
            if p not in seen:
                seen.add(p)
                everything.append(p)
    return everything[::-1]""")),
        # Planted for bug 7. Each Value takes its place when it is first met, so the sentence of bug 5 describes it too.
        (5, ("            uses[p] += 1", "                uses[p] = 1")),
        (16, (BODY, """    order, seen = [], set()

    def visit(v):
        if v in seen:
            return
        seen.add(v)
        for p in v.parents:
            visit(p)
        order.append(v)

    visit(result)
    return order""")),
        (18, ("if not uses[p]:", "if not uses[p.data]:"), ("uses[p] += 1", "uses[p.data] += 1"),
             ("uses[p] -= 1", "uses[p.data] -= 1"), ("if uses[p] == 0:", "if uses[p.data] == 0:")),
    ],
    "a1.4": [
        (1, ("arrived[p] += share", "arrived[p] = share")),
        (2, ("for p, share in zip(v.parents, v.shares(total)):",
             "for p, share in dict(zip(v.parents, v.shares(total))).items():")),
        (3, ("    arrived[order[-1]] = 1.0\n", "")),
        (4, ("for v in order[::-1]:", "for v in order:")),
        (7, ("arrived = {v: 0.0 for v in order}\n    arrived[order[-1]] = 1.0", "arrived = {order[-1]: 1.0}"),
            ("arrived[p] += share", "if p not in arrived:\n                    arrived[p] = share")),
        (9, ("v.shares(total)", "v.shares(1.0)")),
        (15, ("arrived = {v: 0.0 for v in order}", "arrived = {v: v.grad if v.parents else 0.0 for v in order}")),
        (18, ("arrived = {v: 0.0 for v in order}", "arrived = {v.data: 0.0 for v in order}"),
             ("arrived[order[-1]] = 1.0", "arrived[order[-1].data] = 1.0"),
             ("total = arrived[v]", "total = arrived[v.data]"),
             ("arrived[p] += share", "arrived[p.data] += share")),
    ],
}
