"""The bank of assignment A2: 21 mistakes in Functions of arrays."""
from __future__ import annotations

from .bank import Bug, Change


def with_unbroadcast(cell: str, *body: str) -> list[Change]:
    """Return a change that gives the Functions of a cell, which begins with `cell`, another unbroadcast."""
    return [(cell, "def unbroadcast(g, shape):\n" + "".join(f"    {line}\n" for line in body) + f"\n\n{cell}")]


ADD, MATMUL = "class Add(Function):", "class MatMul(Function):"
LEADING = "return g.sum(tuple(range(g.ndim - len(shape))))"
MEAN = ("lead = g.ndim - len(shape)", "g = g.mean(tuple(range(lead))) if lead else g",
        "axes = tuple(i for i, n in enumerate(shape) if n == 1)", "return g.mean(axes, keepdims=True) if axes else g")
LEAD_SUM, REPEATED_SUM = "g.sum(tuple(range(lead)))", "return summed.sum(repeated, keepdims=True)"
LEAD_MEAN = "g.mean(tuple(range(lead))) if lead else g"
REPEATED_MEAN = "return summed.mean(repeated, keepdims=True) if repeated else summed"
QUOTIENT = "db = -g * self.a / (self.b * self.b)"
DA, DB = "da = g @ np.swapaxes(self.b, -1, -2)", "db = np.swapaxes(self.a, -1, -2) @ g"
PRODUCTS = "return unbroadcast(da, self.a.shape), unbroadcast(db, self.b.shape)"
KEPT = "kept = [1 if i in axes else n for i, n in enumerate(shape)]"
OTHERS = "[n for i, n in enumerate(shape) if i not in axes]"
COUNT, AVERAGED = "self.count = x.size // y.size", "put_back(g, self.shape, self.axes) / self.count"
WON = "np.arange(rows.shape[-1]) == first[..., None]"
ZEROS, ADD_AT = "dx = np.zeros(self.shape, g.dtype)", "np.add.at(dx, self.index, g)"
PLACE, SCALE = "dz[np.arange(len(dz)), self.labels] -= 1", "dz *= g / len(dz)"

BUGS = [
    Bug(1, "broadcasting is not summed back to the shape of the input",
        {"a2.1": [[(LEAD_SUM, "g"), (REPEATED_SUM, "return summed")]],
         "a2.2": [with_unbroadcast(ADD, "return g")]}, "fact"),
    Bug(2, "only the leading axes are summed, not those of length 1",
        {"a2.1": [[(REPEATED_SUM, "return summed")]], "a2.2": [with_unbroadcast(ADD, LEADING)]}, "fact"),
    Bug(3, "the mean is taken over the repeated axes, not the sum",
        {"a2.1": [[(LEAD_SUM, LEAD_MEAN), (REPEATED_SUM, REPEATED_MEAN)], [(LEAD_SUM, LEAD_MEAN)],
                  [(REPEATED_SUM, REPEATED_MEAN)]],
         "a2.2": [with_unbroadcast(ADD, *MEAN)], "a2.3": [with_unbroadcast(MATMUL, *MEAN)]}),
    Bug(4, "the reduced axes are put back at the wrong places",
        {"a2.4": [[(KEPT, f"kept = [1] * len(axes) + {OTHERS}")], [(KEPT, f"kept = {OTHERS} + [1] * len(axes)")]]}),
    Bug(5, "the gradient of the mean is divided by the size of the whole array",
        {"a2.4": [[(COUNT, "self.count = x.size")], [(COUNT, "self.count = x.size"),
                                                     ("x.mean(self.axes, keepdims=keepdims)",
                                                      "x.sum(self.axes, keepdims=keepdims) / x.size")]]}),
    Bug(6, "the gradient of the mean is not divided by the number of elements that are averaged",
        {"a2.4": [[(AVERAGED, "put_back(g, self.shape, self.axes)")]]}),
    Bug(7, "the factors of a matrix product are exchanged",
        {"a2.3": [[(DA, "da = np.swapaxes(self.b, -1, -2) @ g"), (DB, "db = g @ np.swapaxes(self.a, -1, -2)")],
                  [(DA, "da = np.swapaxes(self.b, -1, -2) @ g")], [(DB, "db = g @ np.swapaxes(self.a, -1, -2)")]]}),
    Bug(8, ".T reverses all axes of a stack of matrices, not the last two",
        {"a2.3": [[(DA, "da = g @ self.b.T"), (DB, "db = self.a.T @ g")], [(DA, "da = g @ self.b.T")],
                  [(DB, "db = self.a.T @ g")]]}, "exception"),
    Bug(9, "leading axes that were broadcast are not summed",
        {"a2.3": [[(PRODUCTS, "return da, db")],
                  with_unbroadcast(MATMUL, "for _ in range(g.ndim - len(shape)):", "    g = g[-1]",
                                   "for i, n in enumerate(shape):", "    g = g.take([-1], i) if n == 1 else g",
                                   "return g")]}, "fact"),
    Bug(10, "backward transposes with the same permutation as forward, not with its inverse",
        {"a2.5": [[("np.argsort(self.axes)", "self.axes")]]}),
    Bug(11, "an index that is named twice counts once",
        {"a2.5": [[(ADD_AT, "dx[self.index] += g")], [(ADD_AT, "dx[self.index] = g")]]}),
    Bug(12, "every element that ties for the maximum gets the whole gradient",
        {"a2.4": [[(WON, "rows == rows.max(-1, keepdims=True)")]]}),
    Bug(13, "a - b sends +g to b",
        {"a2.2": [[("unbroadcast(-g, self.shapes[1])", "unbroadcast(g, self.shapes[1])")]]}),
    Bug(14, "Maximum gives the gradient of a tie to both",
        {"a2.2": [[("self.a_wins = a >= b", "self.a_wins, self.b_wins = a >= b, b >= a"),
                   ("g * ~self.a_wins", "g * self.b_wins")]]}),
    Bug(15, "the gradient of the cross-entropy lacks the 1/N of the mean",
        {"a2.6": [[(SCALE, "dz *= g")]]}),
    Bug(16, "the logits are not shifted before exp, which overflows",
        {"a2.6": [[("shifted = z - z.max(1, keepdims=True)", "shifted = z")]]}, "fact"),
    Bug(17, "backward changes the probabilities that forward saved, so a second call gives another gradient",
        {"a2.6": [[("dz = self.p.copy()", "dz = self.p")],
                  [("dz = self.p.copy()", "dz = self.p"), (SCALE, "dz = dz * (g / len(dz))")]]}),
    Bug(18, "an array of float64, made in the Function, promotes float32",
        {"a2.2": [[("self.a_wins = a >= b", "self.a_wins = np.where(a >= b, 1.0, 0.0)"),
                   ("g * ~self.a_wins", "g * (1 - self.a_wins)")]],
         "a2.4": [[(f"self.won = {WON}", f"self.won = np.where({WON}, 1.0, 0.0)")],
                  [(AVERAGED, "put_back(g, self.shape, self.axes) * np.full(self.shape, 1 / self.count)")]],
         "a2.5": [[(ZEROS, "dx = np.zeros(self.shape)")]],
         "a2.6": [[("dz = self.p.copy()", "dz = self.p - np.eye(self.p.shape[1])[self.labels]"), (PLACE, "")]]},
        "fact"),
    Bug(19, "the gradient of x[index] has the shape of the part that was taken, not of x",
        {"a2.5": [[("return dx", "return g")]]}, "fact"),
    Bug(20, "the derivative of a / b with respect to b lacks the square or the sign of -a / b^2",
        {"a2.2": [[(QUOTIENT, "db = -g * self.a / self.b")], [(QUOTIENT, "db = g * self.a / (self.b * self.b)")],
                  [(QUOTIENT, "db = g * self.a / self.b")]]}),
    Bug(21, "the gradient of a reshape is read in the order of memory, not of the indices",
        {"a2.5": [[("g.reshape(self.shape)", 'g.reshape(self.shape, order="A")')],
                  [("g.reshape(self.shape)", 'g.ravel("K").reshape(self.shape)')]]}),
]
