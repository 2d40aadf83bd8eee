"""docs/conventions.md: where minires and PyTorch differ on infinities and NaN. The table there is made by this file.

    python tests/test_conventions.py     writes the table anew
"""

import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import needs_torch, torch

from minires import Tensor, kernels, ops

PAGE = Path(__file__).resolve().parents[1] / "docs" / "conventions.md"
BEGIN, END = "<!-- the table: python tests/test_conventions.py -->\n", "<!-- the end of the table -->\n"
NAN, INF, TINY = np.nan, np.inf, 4.94e-321
VALUES = [0.0, -0.0, 1.0, -1.0, INF, -INF, NAN, TINY, 1e308]
PAIRS = [(2.0, 1.0), (1.0, 1.0), (NAN, 1.0), (1.0, NAN), (NAN, NAN), (INF, 1.0), (INF, INF)]
LARGE = [(a, b) for a in VALUES for b in VALUES]

# operation: (minires, PyTorch, why they differ; "" where they do not)
UNARY = {
    "relu": (ops.relu, lambda x: torch.relu(x),
             "the mask multiplies, and 0 times a gradient that is not finite is NaN, so an overflow is seen; the mask "
             "is `x > 0`, which is false for NaN"),
    "abs": (ops.abs, lambda x: torch.abs(x), "the sign of NaN is NaN"),
    "leaky_relu": (ops.leaky_relu, lambda x: torch.nn.functional.leaky_relu(x), ""),
    "gelu": (ops.gelu, lambda x: torch.nn.functional.gelu(x), ""),
    # No bound is among VALUES: at a bound PyTorch's gradient is 1 or 0, depending on the vectors of the CPU.
    "clip(x, -2, 2)": (lambda x: x.clip(-2, 2), lambda x: x.clamp(-2, 2), "the mask multiplies"),
    "2 ** x": (lambda x: 2 ** x, lambda x: 2 ** x, ""),
    "where(x > 0, x, 1)": (lambda x: ops.where(x > 0, x, 1), lambda x: torch.where(x > 0, x, 1.0), ""),
    "exp": (ops.exp, lambda x: torch.exp(x), ""), "log": (ops.log, lambda x: torch.log(x), ""),
    "sqrt": (ops.sqrt, lambda x: torch.sqrt(x), ""), "tanh": (ops.tanh, lambda x: torch.tanh(x), ""),
    "sigmoid": (ops.sigmoid, lambda x: torch.sigmoid(x), ""), "-x": (lambda x: -x, lambda x: -x, ""),
    "x ** 0": (lambda x: x ** 0, lambda x: x ** 0, "the gradient is g times 0"),
    "x ** 0.5": (lambda x: x ** 0.5, lambda x: x ** 0.5, "the slope is computed as 0.5 x ** -0.5, and (-inf) ** -0.5 "
                 "is 0"),
    "x ** 1": (lambda x: x ** 1, lambda x: x ** 1, ""), "x ** 2": (lambda x: x ** 2, lambda x: x ** 2, ""),
    "x ** 3": (lambda x: x ** 3, lambda x: x ** 3, ""), "x ** -1": (lambda x: x ** -1, lambda x: x ** -1, ""),
}
ROWS = {
    "maximum(a, b)": (lambda x: ops.maximum(x[:, 0], x[:, 1]), lambda x: torch.maximum(x[:, 0], x[:, 1]),
                      "a tie goes to a; b gets the gradient unless a >= b, which is false for NaN; the mask "
                      "multiplies"),
    "max(x, axis), amax": (lambda x: ops.max(x, 1), lambda x: x.amax(1),
                           "a tie goes to the first, and so do several NaN; the mask multiplies"),
    "max(x, axis), max": (lambda x: ops.max(x, 1), lambda x: x.max(1)[0], "the mask multiplies"),
    "minimum(a, b)": (lambda x: ops.minimum(x[:, 0], x[:, 1]), lambda x: torch.minimum(x[:, 0], x[:, 1]),
                      "as maximum(-a, -b)"),
    "max_pool2d": (lambda x: ops.max_pool2d(x.reshape(-1, 1, 1, 2), (1, 2)),
                   lambda x: torch.max_pool2d(x.reshape(-1, 1, 1, 2), (1, 2)), "the mask multiplies"),
    "sum": (lambda x: x.sum(1), lambda x: x.sum(1), ""), "mean": (lambda x: x.mean(1), lambda x: x.mean(1), ""),
    "var": (lambda x: x.var(1), lambda x: x.var(1, correction=0), ""),
    "std": (lambda x: x.std(1), lambda x: x.std(1, correction=0), "where the result is 0, the gradient is g times 0"),
    "softmax": (lambda x: ops.softmax(x, 1), lambda x: torch.softmax(x, 1), ""),
    "log_softmax": (lambda x: ops.log_softmax(x, 1), lambda x: torch.log_softmax(x, 1), ""),
    "cross_entropy": (lambda x: ops.cross_entropy(x, np.zeros(len(x), int)),
                      lambda x: torch.nn.functional.cross_entropy(x, torch.zeros(len(x), dtype=int)),
                      "(softmax - one-hot) times g is computed in one step: no infinities of different signs are "
                      "added"),
    "batch_norm": (lambda x: ops.batch_norm(x.T, Tensor(np.ones(len(x))), Tensor(np.zeros(len(x))))[0],
                   lambda x: torch.nn.functional.batch_norm(x.T, None, None, training=True), ""),
    "x @ w": (lambda x: x @ Tensor(np.eye(2)), lambda x: x @ torch.eye(2, dtype=float), ""),
}
DIVISION = {"a * b": (lambda x: x[:, 0] * x[:, 1], lambda x: x[:, 0] * x[:, 1], ""),
            "a / b": (lambda x: x[:, 0] / x[:, 1], lambda x: x[:, 0] / x[:, 1], ""),
           "a ** b": (lambda x: x[:, 0] ** x[:, 1], lambda x: x[:, 0] ** x[:, 1],
                      "the gradient by a is g times b times the rest, computed as b a ** (b - 1)")}


def both(mine, theirs, x, g):
    """((result, gradient) of minires, (result, gradient) of PyTorch)"""
    t, u = Tensor(x.copy(), True), torch.tensor(x, requires_grad=True)
    with kernels.using("reference"), np.errstate(all="ignore"):
        y = mine(t)
        y.backward(np.full(y.shape, g))
    z = theirs(u)
    z.backward(torch.full(z.shape, g, dtype=z.dtype))
    return (y.data, t.grad), (z.detach().numpy(), u.grad.numpy())


def same(a, b):
    """Element by element; gradients that are nothing but rounding count as 0."""
    with np.errstate(all="ignore"):
        return (np.isnan(a) & np.isnan(b)) | (a == b) | (abs(a - b) <= 1e-12 * abs(b) + 1e-15)


def text(value):
    values = [{NAN: "NaN"}.get(v, "NaN" if np.isnan(v) else "denormal" if 0 < abs(v) < 1e-300 else f"{v:g}")
              for v in np.atleast_1d(value).tolist()]
    return values[0] if len(values) == 1 else f"({', '.join(values)})"


def differences():
    """{(operation, g, gradient of minires, of PyTorch): [inputs]}, and what differs in the forward pass."""
    found, forward = {}, []
    for cases, inputs in (UNARY, VALUES), (ROWS, PAIRS), (DIVISION, LARGE):
        for name, (mine, theirs, _) in cases.items():
            for g in 1.0, INF, NAN:
                for one in inputs:
                    (y, gx), (z, gz) = both(mine, theirs, np.array([one]), g)
                    if not same(y.ravel(), z.ravel()).all():
                        forward.append((name, one, y, z))
                    if not same(gx, gz).all():
                        found.setdefault((name, text(g), text(gx[0]), text(gz[0])), []).append(text(one))
    return found, forward


def table():
    why = {name: reason for cases in (UNARY, ROWS, DIVISION) for name, (*_, reason) in cases.items()}
    lines = ["| operation | input | incoming gradient | minires | PyTorch | why |", "|---|---|---|---|---|---|"]
    found, _ = differences()
    for (name, g, mine, theirs), inputs in found.items():
        lines.append(f"| {name} | {'; '.join(inputs)} | {g} | {mine} | {theirs} | {why[name]} |")
        why[name] = '"' if why[name] else ""
    return "\n".join(lines) + "\n"


@needs_torch
def test_the_table_lists_every_difference():
    page = PAGE.read_text(encoding="utf-8")
    assert page.partition(BEGIN)[2].partition(END)[0] == table(), "python tests/test_conventions.py writes it anew"


@needs_torch
def test_results_do_not_differ_and_every_difference_in_a_gradient_has_a_reason():
    found, forward = differences()
    assert forward == []
    why = {name: reason for cases in (UNARY, ROWS, DIVISION) for name, (*_, reason) in cases.items()}
    assert {name for name, *_ in found} == {name for name, reason in why.items() if reason}
    assert not any(g == "1" and "NaN" not in "".join(inputs) and name in ("relu", "abs", "max_pool2d")
                   for (name, g, *_), inputs in found.items())


@needs_torch
@pytest.mark.parametrize("dtype, b", [(np.float32, 1e-25), (np.float32, 1e25), (np.float64, 1e-170),
                                      (np.float64, TINY)])
def test_division_does_not_square_its_divisor(dtype, b):
    """b * b underflowed to 0 or overflowed, so that 1e-30 / 1e-25 had the gradient -inf where it is -1e20."""
    a = Tensor(np.array([b * 1e-5 * 3, 0.0], dtype), True)
    d = Tensor(np.array([b, b], dtype), True)
    with np.errstate(all="ignore"):
        (a / d).backward(np.ones(2, dtype))
    u, v = (torch.tensor(t.data, requires_grad=True) for t in (a, d))
    (u / v).backward(torch.ones(2, dtype=u.dtype))
    assert same(a.grad, u.grad.numpy()).all() and same(d.grad, v.grad.numpy()).all()


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    PAGE.write_text(before + BEGIN + table() + END + rest.partition(END)[2], encoding="utf-8")
    sys.stdout.write(table())
