"""The bank of assignment A1: 18 mistakes in a scalar engine."""
from __future__ import annotations

from .bank import Bug, Change

# 1.1
MUL, MUL_RESULT = "return g * b, g * a", "return Value(a * b, (self, other), shares)"
DIV, DIV_RESULT = "return g / b, -g * a / (b * b)", "return Value(a / b, (self, other), shares)"
POW, POW_RESULT = "return (g * exponent * a ** (exponent - 1),)", "return Value(a ** exponent, (self,), shares)"
SUB, NEG = "return g, -g", "return (-1 * g,)"
RSUB, RDIV = "return as_value(other) - self", "return as_value(other) / self"
SUB_RESULT = "return Value(self.data - other.data, (self, other), shares)"
ONCE: list[Change] = [
    (MUL_RESULT, "if other is self:\n    return Value(a * b, (self,), lambda g: (g * b,))\n"
     + MUL_RESULT)]
RSUB_AS: list[Change] = [(RSUB, "return Value(other - self.data, (self,), lambda g: (g,))")]
RDIV_AS: list[Change] = [(RDIV, "return Value(other / self.data, (self,), lambda g: (g / other,))")]
RSUB_SWAPPED: list[Change] = [(RSUB, "return self - other")]
RDIV_SWAPPED: list[Change] = [(RDIV, "return self / other")]

# Many students write -, / and the sign with + and *. Then a mistake in a product or a power shows in these, too.
COMPOSED: list[Change] = [
    (f"def shares(g):\n {NEG}\n return Value(-self.data, (self,), shares)", "return self * -1"),
    (f"def shares(g):\n {SUB}\n {SUB_RESULT}", "return self + (-other)"),
    (f"a, b = self.data, other.data\n def shares(g):\n {DIV}\n {DIV_RESULT}", "return self * other ** -1")]
MUL_BARE, POW_BARE = (MUL, "return b, a"), (POW, "return (exponent * a ** (exponent - 1),)")
MUL_BOUND: Change = (MUL_RESULT, "a = a * b\nreturn Value(a, (self, other), shares)")
POW_BOUND: Change = (POW_RESULT, "a = a ** exponent\nreturn Value(a, (self,), shares)")

SLOPE_BOUND: list[Change] = [(POW, "return (g * slope,)"),
                             (POW_RESULT, "slope = a ** exponent\nreturn Value(slope, (self,), shares)")]
# Parents without repetition, with the share of the first or the last of those that are the same.
SET: Change = ("self.parents = parents", "self.parents = tuple(dict.fromkeys(parents))")
SET_FIRST = [SET, ("self.shares = shares", "self.shares = shares and (lambda g: shares(g)[:len(self.parents)])")]
SET_LAST = [SET, ("self.shares = shares", "self.shares = shares and (lambda g: shares(g)[-len(self.parents):])")]
BARE: list[Change] = [MUL_BARE, POW_BARE, (DIV, "return 1 / b, -a / (b * b)"), (SUB, "return 1.0, -1.0"),
                      (NEG, "return (-1.0,)")]

# 1.3
PUSH = "for parent in v.parents:\n todo.append((parent, False))"
UNSEEN = "    if parent not in seen:\n        seen.add(parent)\n        todo.append((parent, False))"
PREORDER: list[Change] = [("if parents_done:\n order.append(v)", "if parents_done:\n    pass"),
                          ("seen.add(v)", "seen.add(v)\norder.append(v)"),
                          ("return order", "return order[::-1]")]
FIRST_FIRST: list[Change] = [("for parent in v.parents:", "for parent in reversed(v.parents):")]
SAME: list[Change] = [("elif v not in seen", "elif v.data not in seen"), ("seen.add(v)", "seen.add(v.data)")]
BREADTH: list[Change] = [("todo.pop()", "todo.pop(0)")]
# A Value is placed when all its uses have been placed, but only one of its uses was counted.
USES_ONCE: list[Change] = [
    ("order, seen, todo = [], set(), [(result, False)]", """uses, seen = {result: 0}, [result]
for v in seen:  # the list grows while it is read
    for parent in v.parents:
        if parent not in uses:
            uses[parent] = 1
            seen.append(parent)
order, todo = [], [result]"""),
    ("v, parents_done = todo.pop()\n if parents_done:\n order.append(v)\n elif v not in seen:\n seen.add(v)\n "
     "todo.append((v, True))\n for parent in v.parents:\n todo.append((parent, False))", """v = todo.pop()
order.append(v)
for parent in v.parents:
    uses[parent] -= 1
    if uses[parent] == 0:
        todo.append(parent)"""),
    ("return order", "return order[::-1]")]

# 1.4
SHARE, RESET, START = "parent.grad += share", "v.grad = 0.0", "order[-1].grad += 1.0"
LOOP = "zip(v.parents, v.shares(v.grad), strict=True)"
SWEEP = f"for v in reversed(order):\n if v.shares is not None:\n for parent, share in {LOOP}:\n {SHARE}"
BY_NUMBER: list[Change] = [(START, ""), (SWEEP, """total = {v.data: 0.0 for v in order}
total[order[-1].data] = 1.0
for v in reversed(order):
    g = total[v.data]
    v.grad = g if v.parents else v.grad + g
    if v.parents:
        for parent, share in zip(v.parents, v.shares(g), strict=True):
            total[parent.data] += share""")]
PLACE_BY_NUMBER: list[Change] = [(START, ""), (SWEEP, """place = {v.data: k for k, v in enumerate(order)}
total = [0.0] * (len(order) - 1) + [1.0]
for v, k in zip(reversed(order), range(len(order) - 1, -1, -1), strict=True):
    v.grad = total[k] if v.parents else v.grad + total[k]
    if v.parents:
        for parent, share in zip(v.parents, v.shares(total[k]), strict=True):
            total[place[parent.data]] += share""")]

BUGS = [
    Bug(1, "the gradients of a Value that is used several times are assigned, not added (= for +=)",
        {"a1.4": [[(SHARE, "parent.grad = share")]]}),
    Bug(2, "a Value that one operation uses twice, as in x * x, counts once",
        {"a1.1": [ONCE, [*COMPOSED, *ONCE],
                  [*ONCE, (SUB_RESULT, "if other is self:\n    return Value(0.0, (self,), lambda g: (-g,))\n"
                                       + SUB_RESULT)],
                  SET_FIRST, SET_LAST, [*COMPOSED, *SET_FIRST], [*COMPOSED, *SET_LAST]],
         "a1.4": [[(LOOP, f"dict({LOOP}).items()")], [(LOOP, f"dict(reversed(list({LOOP}))).items()")]]}),
    Bug(3, "the gradient of the result with respect to itself is not 1",
        {"a1.4": [[(START, "order[-1].grad += order[-1].data")]]}),
    Bug(4, "the list is in the wrong direction, or read in the wrong direction: the sweep begins at the inputs",
        {"a1.3": [[("return order", "return order[::-1]")]],
         "a1.4": [[("reversed(order)", "order")], [("reversed(order)", "order[:-1]")]]}),
    Bug(5, "the Values are in the order in which a depth-first search meets them, which is not a topological order",
        {"a1.3": [PREORDER, [*PREORDER, *FIRST_FIRST], USES_ONCE]}),
    Bug(6, "the Values are in the order in which a breadth-first search meets them, which is not a topological order",
        {"a1.3": [[*PREORDER, *BREADTH], [*PREORDER, *BREADTH, *FIRST_FIRST]]}),
    Bug(7, "a Value that is met a second time is ignored",
        {"a1.3": [[("elif v not in seen:", "else:"), ("seen.add(v)", ""),
                   (PUSH, "for parent in v.parents:\n" + UNSEEN)],
                  [("elif v not in seen:", "else:"), ("seen.add(v)", ""),
                   (PUSH, "for parent in reversed(v.parents):\n" + UNSEEN)]],
         "a1.4": [[(START, START + "\nmet = set()"),
                   (SHARE, "if parent not in met:\n    met.add(parent)\n    parent.grad += share")]]}),
    Bug(8, "the derivative of a product with respect to a factor is the factor itself, not the other one",
        {"a1.1": [[(MUL, "return g * a, g * b")], [*COMPOSED, (MUL, "return g * a, g * b")]]}),
    Bug(9, "the gradient that arrives is not multiplied in",
        {"a1.1": [[MUL_BARE], [POW_BARE], [(DIV, "return 1 / b, -a / (b * b)")], [(SUB, "return 1.0, -1.0")],
                  [(NEG, "return (-1.0,)")],
                  BARE, [*BARE, ("return g, g", "return 1.0, 1.0")],
                  [*COMPOSED, MUL_BARE], [*COMPOSED, POW_BARE], [*COMPOSED, MUL_BARE, POW_BARE]],
         "a1.2": [[("return (g * y,)", "return (y,)")], [("return (g / a,)", "return (1 / a,)")],
                  [("return (g * (1 - y * y),)", "return (1 - y * y,)")],
                  [("return (g * (y > 0),)", "return (float(y > 0),)")],
                  [("return (g * y,)", "return (y,)"), ("return (g / a,)", "return (1 / a,)"),
                   ("return (g * (1 - y * y),)", "return (1 - y * y,)"),
                   ("return (g * (y > 0),)", "return (float(y > 0),)")]],
         "a1.4": [[("v.shares(v.grad)", "v.shares(1.0)")]]}),
    Bug(10, "relu passes a gradient where its output is 0 (>= for >)",
        {"a1.2": [[("g * (y > 0)", "g * (y >= 0)")], [("g * (y > 0)", "g * (x.data >= 0)")]]}),
    Bug(11, "the derivative of a power keeps the exponent: n x^n for n x^(n - 1)",
        {"a1.1": [[(POW, "return (g * exponent * a ** exponent,)")],
                  [*COMPOSED, (POW, "return (g * exponent * a ** exponent,)")]]}),
    Bug(12, "the derivative of exp is taken to be its input, not its output",
        {"a1.2": [[("return (g * y,)", "return (g * x.data,)")]]}),
    Bug(13, "the derivative of tanh is computed from its input, 1 - x^2, not from its output",
        {"a1.2": [[("1 - y * y", "1 - x.data * x.data")]]}),
    Bug(14, "2 - x and 2 / x are differentiated as x - 2 and x / 2",
        {"a1.1": [[*RSUB_AS, *RDIV_AS], RSUB_AS, RDIV_AS, [*RSUB_SWAPPED, *RDIV_SWAPPED], RSUB_SWAPPED, RDIV_SWAPPED]}),
    Bug(15, "a second sweep starts from the old gradients of the computed Values",
        {"a1.4": [[(RESET, "v.grad += 0.0")], [(RESET, "v.grad += 0.0"), (START, "order[-1].grad = 1.0")]]}),
    Bug(16, "the search calls itself: a long chain exceeds Python's limit on recursion",
        {"a1.3": [[("while todo:", "def visit(v):\n    if v not in seen:\n        seen.add(v)\n"
                                   "        for parent in v.parents:\n            visit(parent)\n"
                                   "        order.append(v)\n\nvisit(result)\nwhile False:")]]},
        "exception"),
    Bug(17, "shares reads a variable that was bound again after it was defined",
        {"a1.1": [[MUL_BOUND], [(DIV_RESULT, "a = a / b\nreturn Value(a, (self, other), shares)")], [POW_BOUND],
                  [*COMPOSED, MUL_BOUND], [*COMPOSED, POW_BOUND], SLOPE_BOUND, [*COMPOSED, *SLOPE_BOUND]],
         "a1.2": [[("return Value(math.log(a), (x,), shares)",
                    "a = math.log(a)\nreturn Value(a, (x,), shares)")]]}),
    Bug(18, "two Values with the same number are taken for one",
        {"a1.3": [SAME, [*SAME, *FIRST_FIRST]], "a1.4": [BY_NUMBER, PLACE_BY_NUMBER]}),
]
