"""Answers to A1 in three styles, written from the prose alone, and the bank's bugs planted in them by sentence."""
from named import Other, Planted

# ------------------------------------------------------------------------------------------------------ 1.1 arithmetic

VALUE_CLOSURES = '''
def as_value(x):
    return x if isinstance(x, Value) else Value(x)


class Value:
    def __init__(self, data, parents=(), shares=None):
        self.data = data
        self.grad = 0.0
        self.parents = parents
        self.shares = shares

    def __add__(self, other):
        other = as_value(other)

        def shares(g):
            return g, g

        return Value(self.data + other.data, (self, other), shares)

    def __radd__(self, other):
        return self + other

    def __neg__(self):
        def shares(g):
            return (-g,)

        return Value(-self.data, (self,), shares)

    def __sub__(self, other):
        other = as_value(other)

        def shares(g):
            return g, -g

        return Value(self.data - other.data, (self, other), shares)

    def __rsub__(self, other):
        return as_value(other) - self

    def __mul__(self, other):
        other = as_value(other)
        a, b = self.data, other.data

        def shares(g):
            return g * b, g * a

        return Value(a * b, (self, other), shares)

    def __rmul__(self, other):
        return self * other

    def __truediv__(self, other):
        other = as_value(other)
        top, bottom = self.data, other.data

        def shares(g):
            return g / bottom, -g * top / bottom ** 2

        return Value(top / bottom, (self, other), shares)

    def __rtruediv__(self, other):
        return as_value(other) / self

    def __pow__(self, exponent):
        base = self.data

        def shares(g):
            return (g * exponent * base ** (exponent - 1),)

        return Value(base ** exponent, (self,), shares)
'''

# Every operation hands over its result and the numbers of its partial derivatives.
VALUE_PARTIALS = '''
def as_value(x):
    return x if isinstance(x, Value) else Value(x)


def computed(data, parents, partials):
    return Value(data, parents, lambda g: tuple(g * p for p in partials))


class Value:
    def __init__(self, data, parents=(), shares=None):
        self.data, self.grad, self.parents, self.shares = data, 0.0, tuple(parents), shares

    def __add__(self, other):
        other = as_value(other)
        return computed(self.data + other.data, (self, other), (1.0, 1.0))

    def __sub__(self, other):
        other = as_value(other)
        return computed(self.data - other.data, (self, other), (1.0, -1.0))

    def __mul__(self, other):
        other = as_value(other)
        return computed(self.data * other.data, (self, other), (other.data, self.data))

    def __truediv__(self, other):
        other = as_value(other)
        q = self.data / other.data
        return computed(q, (self, other), (1 / other.data, -q / other.data))

    def __neg__(self):
        return computed(-self.data, (self,), (-1.0,))

    def __pow__(self, exponent):
        return computed(self.data ** exponent, (self,), (exponent * self.data ** (exponent - 1),))

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other):
        return computed(other - self.data, (self,), (-1.0,))

    def __rtruediv__(self, other):
        return computed(other / self.data, (self,), (-other / (self.data * self.data),))
'''

# As few derivatives as possible: sum, product and power; the rest is composed of these.
VALUE_COMPOSED = '''
def as_value(x):
    if isinstance(x, Value):
        return x
    return Value(x)


class Value:
    def __init__(self, data, parents=(), shares=None):
        self.data = data
        self.grad = 0.0
        self.parents = parents
        self.shares = shares

    def __add__(self, other):
        right = as_value(other)
        return Value(self.data + right.data, (self, right), lambda g: (g, g))

    def __mul__(self, other):
        right = as_value(other)
        return Value(self.data * right.data, (self, right), lambda g: (g * right.data, g * self.data))

    def __pow__(self, exponent):
        slope = exponent * self.data ** (exponent - 1)
        return Value(self.data ** exponent, (self,), lambda g: (g * slope,))

    def __neg__(self):
        return self * -1

    def __sub__(self, other):
        return self + -as_value(other)

    def __truediv__(self, other):
        return self * as_value(other) ** -1

    def __radd__(self, other):
        return self + other

    def __rmul__(self, other):
        return self * other

    def __rsub__(self, other):
        return -self + other

    def __rtruediv__(self, other):
        return self ** -1 * other
'''

# ------------------------------------------------------------------------------------- 1.2 functions of one number

FUNCTIONS_CLOSURES = VALUE_CLOSURES + '''

def exp(x):
    y = math.exp(x.data)

    def shares(g):
        return (g * y,)

    return Value(y, (x,), shares)


def log(x):
    number = x.data

    def shares(g):
        return (g / number,)

    return Value(math.log(number), (x,), shares)


def tanh(x):
    y = math.tanh(x.data)

    def shares(g):
        return (g * (1 - y * y),)

    return Value(y, (x,), shares)


def relu(x):
    number = x.data

    def shares(g):
        return (g if number > 0 else 0.0,)

    return Value(max(number, 0.0), (x,), shares)
'''
FUNCTIONS_PARTIALS = VALUE_PARTIALS + '''

def exp(x):
    result = math.exp(x.data)
    return computed(result, (x,), (result,))


def log(x):
    return computed(math.log(x.data), (x,), (1 / x.data,))


def tanh(x):
    result = math.tanh(x.data)
    return computed(result, (x,), ((1 - result) * (1 + result),))


def relu(x):
    open_ = float(x.data > 0)
    return computed(open_ * x.data, (x,), (open_,))
'''
FUNCTIONS_COMPOSED = VALUE_COMPOSED + '''

def one_number(function, derivative):
    def apply(x):
        y = function(x.data)
        return Value(y, (x,), lambda g: (g * derivative(x.data, y),))
    return apply


def exp(x):
    return one_number(math.exp, lambda v, y: y)(x)


def log(x):
    return one_number(math.log, lambda v, y: 1 / v)(x)


def tanh(x):
    return one_number(math.tanh, lambda v, y: 1 - y ** 2)(x)


def relu(x):
    if x.data > 0:
        return x * 1
    return x * 0
'''

# ------------------------------------------------------------------------------------- 1.3 the order of the sweep

ORDER_TWICE = '''
def topological(result):
    order, placed, todo = [], set(), [(result, False)]
    while todo:
        v, ready = todo.pop()
        if v in placed:
            continue
        if ready:
            placed.add(v)
            order.append(v)
        else:
            todo.append((v, True))
            for p in v.parents:
                todo.append((p, False))
    return order
'''
# Count the uses, and place a Value when all its uses are placed; then turn the list round.
ORDER_USES = '''
def topological(result):
    uses, todo = {result: 0}, [result]
    while todo:
        for p in todo.pop().parents:
            if p not in uses:
                uses[p] = 0
                todo.append(p)
            uses[p] += 1
    order, free = [], [result]
    while free:
        v = free.pop()
        order.append(v)
        for p in v.parents:
            uses[p] -= 1
            if uses[p] == 0:
                free.append(p)
    return order[::-1]
'''
# The path from the result to the Value at hand, with what is left to look at on each step of it.
ORDER_PATH = '''
def topological(result):
    met = {id(result)}
    order = []
    path = [(result, iter(result.parents))]
    while path:
        v, left = path[-1]
        for p in left:
            if id(p) not in met:
                met.add(id(p))
                path.append((p, iter(p.parents)))
                break
        else:
            order.append(v)
            path.pop()
    return order
'''

# -------------------------------------------------------------------------------------------------------- 1.4 the sweep

SWEEP_IN_PLACE = '''
def sweep(order):
    for v in order:
        if v.parents:
            v.grad = 0.0
    order[-1].grad += 1.0
    for v in reversed(order):
        if v.parents:
            for p, share in zip(v.parents, v.shares(v.grad)):
                p.grad += share
'''
SWEEP_TABLE = '''
def sweep(order):
    gradient = {id(v): 0.0 for v in order}
    gradient[id(order[-1])] = 1.0
    for k in range(len(order) - 1, -1, -1):
        v = order[k]
        g = gradient[id(v)]
        if v.parents == ():
            v.grad = v.grad + g
        else:
            v.grad = g
            shares = v.shares(g)
            for i in range(len(v.parents)):
                gradient[id(v.parents[i])] += shares[i]
'''
# Every Value asks those that use it for their shares.
SWEEP_ASKING = '''
def sweep(order):
    place = {v: k for k, v in enumerate(order)}
    received = [[] for _ in order]
    received[-1].append(1.0)
    for k in reversed(range(len(order))):
        v, g = order[k], sum(received[k])
        if len(v.parents) > 0:
            v.grad = g
            for p, share in zip(v.parents, v.shares(g)):
                received[place[p]].append(share)
        else:
            v.grad += g
'''

ALTERNATES = {
    "a1.1": [VALUE_CLOSURES, VALUE_PARTIALS, VALUE_COMPOSED],
    "a1.2": [FUNCTIONS_CLOSURES, FUNCTIONS_PARTIALS, FUNCTIONS_COMPOSED],
    "a1.3": [ORDER_TWICE, ORDER_USES, ORDER_PATH],
    "a1.4": [SWEEP_IN_PLACE, SWEEP_TABLE, SWEEP_ASKING],
}

# Planted(style, bug, *changes), each from the bug's sentence in the list of bugs alone.
PLANTED = {
    "a1.1": [
        Planted(0, 2, ("return Value(a * b, (self, other), shares)",
                       "if other is self:\n    return Value(a * b, (self,), lambda g: (g * a,))\n"
                       "return Value(a * b, (self, other), shares)")),
        Planted(1, 2, ("return Value(data, parents, lambda g: tuple(g * p for p in partials))",
                       "once = dict(zip(parents, partials))\n"
                       "return Value(data, tuple(once), lambda g: tuple(g * p for p in once.values()))")),
        Planted(2, 2, ("self.parents = parents\n        self.shares = shares",
                       "self.parents = tuple(dict.fromkeys(parents))\n"
                       "self.shares = None if shares is None else lambda g: shares(g)[:len(self.parents)]")),
        Planted(0, 8, ("return g * b, g * a", "return g * a, g * b")),
        Planted(1, 8, ("(other.data, self.data))", "(self.data, other.data))")),
        Planted(2, 8, ("(g * right.data, g * self.data)", "(g * self.data, g * right.data)")),
        Planted(0, 9, ("return g * b, g * a", "return b, a")),
        Planted(0, 9, ("return (g * exponent * base", "return (exponent * base")),
        Planted(0, 9, ("return g / bottom, -g * top / bottom ** 2", "return 1 / bottom, -top / bottom ** 2")),
        Planted(1, 9, ("tuple(g * p for p in partials)", "tuple(partials)")),
        Planted(2, 9, ("(g * right.data, g * self.data)", "(right.data, self.data)")),
        Planted(2, 9, ("(g * slope,)", "(slope,)")),
        Planted(0, 11, ("base ** (exponent - 1)", "base ** exponent")),
        Planted(1, 11, ("(exponent * self.data ** (exponent - 1),)", "(exponent * self.data ** exponent,)")),
        Planted(2, 11, ("self.data ** (exponent - 1)", "self.data ** exponent")),
        Planted(0, 14, ("return as_value(other) - self",
                        "return Value(other - self.data, (self,), lambda g: (g,))")),
        Planted(0, 14, ("return as_value(other) / self",
                        "return Value(other / self.data, (self,), lambda g: (g / other,))")),
        Planted(1, 14, ("computed(other - self.data, (self,), (-1.0,))",
                 "computed(other - self.data, (self,), (1.0,))")),
        Planted(1, 14, ("(-other / (self.data * self.data),)", "(1 / other,)")),
        Planted(2, 14, ("return -self + other", "return self - other")),
        Planted(2, 14, ("return self ** -1 * other", "return self / other")),
        Planted(0, 17, ("return Value(a * b, (self, other), shares)",
                 "a = a * b\nreturn Value(a, (self, other), shares)")),
        Planted(0, 17, ("return Value(top / bottom, (self, other), shares)",
                        "top = top / bottom\nreturn Value(top, (self, other), shares)")),
        Planted(0, 17, ("return Value(base ** exponent, (self,), shares)",
                        "base = base ** exponent\nreturn Value(base, (self,), shares)")),
        Planted(2, 17, ("return Value(self.data ** exponent, (self,), lambda g: (g * slope,))",
                        "result = Value(self.data ** exponent, (self,), lambda g: (g * slope,))\n"
                        "slope = result.data\nreturn result")),
    ],
    "a1.2": [
        Planted(0, 9, ("return (g * y,)", "return (y,)")),
        Planted(0, 9, ("return (g / number,)", "return (1 / number,)")),
        Planted(0, 9, ("return (g * (1 - y * y),)", "return (1 - y * y,)")),
        Planted(0, 9, ("return (g if number > 0 else 0.0,)", "return (1.0 if number > 0 else 0.0,)")),
        Planted(2, 9, ("(g * derivative(x.data, y),)", "(derivative(x.data, y),)")),
        Planted(0, 10, ("g if number > 0", "g if number >= 0")),
        Planted(1, 10, ("float(x.data > 0)", "float(x.data >= 0)")),
        Planted(2, 10, ("if x.data > 0:", "if x.data >= 0:")),
        Planted(0, 12, ("return (g * y,)", "return (g * x.data,)")),
        Planted(1, 12, ("computed(result, (x,), (result,))", "computed(result, (x,), (x.data,))")),
        Planted(2, 12, ("lambda v, y: y)", "lambda v, y: v)")),
        Planted(0, 13, ("(1 - y * y)", "(1 - x.data ** 2)")),
        Planted(1, 13, ("((1 - result) * (1 + result),)", "((1 - x.data) * (1 + x.data),)")),
        Planted(2, 13, ("1 - y ** 2", "1 - v ** 2")),
        Planted(0, 17, ("return Value(math.log(number), (x,), shares)",
                        "number = math.log(number)\nreturn Value(number, (x,), shares)")),
        Planted(2, 17, ("y = function(x.data)\n        return Value(y, (x,), lambda g: (g * derivative(x.data, y),))",
                        "y = function(x.data)\nresult = Value(y, (x,), lambda g: (g * derivative(x.data, y),))\n"
                        "x = result\nreturn result")),
    ],
    "a1.3": [
        Planted(0, 4, ("return order", "return order[::-1]")),
        Planted(1, 4, ("return order[::-1]", "return order")),
        Planted(2, 4, ("return order", "order.reverse()\nreturn order")),
        Planted(0, 5, ("todo.append((v, True))", "placed.add(v)\norder.append(v)"),
                ("return order", "return order[::-1]")),
        Planted(2, 5, ("met.add(id(p))", "met.add(id(p))\norder.append(p)"), ("order = []", "order = [result]"),
                ("order.append(v)", "pass"), ("return order", "return order[::-1]")),
        Planted(0, 6, ("order, placed, todo = [], set(), [(result, False)]",
                 "order, placed, todo = [], set(), [result]"),
                ("v, ready = todo.pop()", "v = todo.pop(0)"), ("if ready:", "if True:"),
                ("order.append(v)", "order.append(v)\ntodo.extend(v.parents)"), ("return order", "return order[::-1]")),
        Planted(1, 6, ("uses[p] -= 1", "uses[p], first = 0, p not in order and p not in free"),
                ("if uses[p] == 0:", "if first:"), ("v = free.pop()", "v = free.pop(0)")),
        Planted(0, 7, ("todo.append((p, False))",
                 "if p not in placed:\n    placed.add(p)\n    todo.append((p, False))"),
                ("if v in placed:", "if False:"), ("placed.add(v)", "pass")),
        Planted(1, 5, ("if uses[p] == 0:", "if p not in order and p not in free:")),
        Planted(0, 16, ("order, placed, todo = [], set(), [(result, False)]",
                        "order, placed, todo = [], set(), []\n\ndef visit(v):\n    if v not in placed:\n"
                        "        placed.add(v)\n        for p in v.parents:\n            visit(p)\n"
                        "        order.append(v)\n\nvisit(result)")),
        Planted(0, 18, ("if v in placed:", "if v.data in placed:"), ("placed.add(v)", "placed.add(v.data)")),
        Planted(2, 18, ("met = {id(result)}", "met = {result.data}"), ("if id(p) not in met:", "if p.data not in met:"),
                ("met.add(id(p))", "met.add(p.data)")),
        Planted(1, 18, ("if p not in uses:", "if p not in uses and p.data not in [q.data for q in uses]:"),
                ("uses[p] += 1", "uses[p] = uses.get(p, 0) + 1")),
    ],
    "a1.4": [
        Planted(0, 1, ("p.grad += share", "p.grad = share")),
        Planted(1, 1, ("gradient[id(v.parents[i])] += shares[i]", "gradient[id(v.parents[i])] = shares[i]")),
        Planted(2, 1, ("received[place[p]].append(share)", "received[place[p]] = [share]")),
        Planted(0, 2, ("zip(v.parents, v.shares(v.grad))", "dict(zip(v.parents, v.shares(v.grad))).items()")),
        Planted(1, 2, ("for i in range(len(v.parents)):",
                       "for i in [i for i, p in enumerate(v.parents) if p not in v.parents[:i]]:")),
        Planted(2, 2, ("for p, share in zip(v.parents, v.shares(g)):",
                       "for p, share in dict(zip(v.parents, v.shares(g))).items():")),
        Planted(0, 3, ("order[-1].grad += 1.0", "order[-1].grad += order[-1].data")),
        Planted(1, 3, ("gradient[id(order[-1])] = 1.0", "pass")),
        Planted(2, 3, ("received[-1].append(1.0)", "received[-1].append(order[-1].data)")),
        Planted(0, 4, ("for v in reversed(order):", "for v in list(order):")),
        Planted(1, 4, ("range(len(order) - 1, -1, -1)", "range(len(order))")),
        Planted(2, 4, ("reversed(range(len(order)))", "range(len(order))")),
        Planted(0, 15, ("v.grad = 0.0", "pass"), ("order[-1].grad += 1.0",
                                                  "order[-1].grad = 1.0 + order[-1].grad * (not order[-1].parents)")),
        Planted(0, 15, ("v.grad = 0.0", "pass")),
        Planted(1, 15, ("gradient = {id(v): 0.0 for v in order}",
                 "gradient = {id(v): v.grad * bool(v.parents) for v in order}"),
                ),
        Planted(2, 18, ("place = {v: k for k, v in enumerate(order)}",
                 "place = {v.data: k for k, v in enumerate(order)}"),
                ("received[place[p]]", "received[place[p.data]]")),
        Planted(1, 18, ("{id(v): 0.0 for v in order}", "{v.data: 0.0 for v in order}"),
                ("gradient[id(order[-1])]", "gradient[order[-1].data]"), ("gradient[id(v)]", "gradient[v.data]"),
                ("gradient[id(v.parents[i])]", "gradient[v.parents[i].data]")),
    ],
}

# Mistakes of the same kind that the bank does not hold.
OTHERS = {
    "a1.1": [Other(0, ("-g * top / bottom ** 2", "-g * top / bottom ** 4")), Other(1, ("1 / other.data", "other.data")),
             Other(2, ("exponent * self.data ** (exponent - 1)", "self.data ** (exponent - 1)"))],
    "a1.2": [Other(0, ("g / number", "g * number")), Other(1, ("(1 / x.data,)", "(1 / x.data ** 2,)")),
             Other(2, ("1 - y ** 2", "1 + y ** 2"))],
    "a1.3": [Other(0, ("return order", "return sorted(order, key=lambda v: v.data)")),
             Other(1, ("return order[::-1]", "return order[:0:-1] + order[:1] + order[:1]"))],
    "a1.4": [Other(0, ("p.grad += share", "p.grad -= share")), Other(1, ("v.grad = v.grad + g", "v.grad = v.grad - g")),
             Other(2, ("sum(received[k])", "max(received[k], default=0.0)"))],
}
