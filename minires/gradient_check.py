"""`gradcheck` compares backward() with finite differences of a random projection of the output.

A check is only as good as the loss it differentiates. With the loss `f(x).sum()`, the gradient that enters backward
is all ones. A BatchNorm or a softmax whose backward returns zeros then passes, because the sum of a normalised array
is constant. `gradcheck` instead sends a RANDOM gradient v back: it checks the loss <v, f(x)>.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from .tensor import Tensor


@dataclass(frozen=True)
class Report:
    """A Report says what a passed check compared."""

    checked: int   # entries compared with central differences
    total: int     # entries of all arguments
    worst: float   # largest |got - expected| / (|got| + |expected|), with norms over one argument
    kinks: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)  # (argument, index)

    def __str__(self) -> str:
        kinks = "".join(f"\n  kink at argument {i}, index {at}: backward gives a slope between the two sides"
                        for i, at in self.kinks)
        return f"gradcheck passed: {self.checked} of {self.total} entries, worst relative error {self.worst:.1e}{kinks}"


def gradcheck(f: Callable[..., Tensor], *arrays: np.ndarray, rtol: float = 1e-6, atol: float = 1e-9,
              eps: float = 6e-6, entries: int = 100, seed: int = 0) -> Report:
    """Check the gradient of `f`, a function of Tensors that returns one Tensor, at float64 `arrays`.

    f: called as f(*Tensors); returns one float64 Tensor.
    arrays: float64 NumPy arrays, one for each argument of `f`.
    entries: how many entries of each argument are checked at most, drawn at random with `seed`.
    rtol, atol: for every argument, |got - expected| <= rtol (|got| + |expected|) + atol, in Euclidean norms over its
        checked entries. Use rtol 1e-5 for whole blocks.
    eps: step of the central differences of <v, f>, with v random, that give the expected values.

    If the left and the right slope differ and stay different for a smaller step, f has a kink (ReLU at 0, a tie in a
    maximum). An entry at a kink is not compared with the mean of the two slopes: backward must give a value between
    the slopes, and the report lists the entry. Returns a Report.

    Raises AssertionError for every other difference, with the argument, the index, the value from backward, the
    expected value and their ratio.
    Raises TypeError if an array, or the result of f, is not float64.
    Raises ValueError if f gives two results for the same arguments, or a result that is not finite.
    """
    for i, a in enumerate(arrays):
        if not isinstance(a, np.ndarray) or a.dtype != np.float64:
            given = f"{a.dtype}{a.shape}" if isinstance(a, np.ndarray) else type(a).__name__
            raise TypeError(f"gradcheck: argument {i} must be a float64 NumPy array, got {given}; differences of "
                            "float32 values are mostly rounding")
    rng = np.random.default_rng([seed, 1202])  # not default_rng(seed), which the caller may use to draw the arrays
    # Every call of f gets the same copies, because NumPy may round a sum over a strided array differently. The copies
    # are read-only, so that a backward that writes into its inputs fails.
    arrays = tuple(_read_only(a) for a in arrays)
    tensors = [Tensor(a, True) for a in arrays]
    y = f(*tensors)
    if not isinstance(y, Tensor) or y.dtype != np.float64:
        raise TypeError("gradcheck: expected f to return a float64 Tensor, got "
                        + (f"{y.dtype}{y.shape}" if isinstance(y, Tensor) else type(y).__name__))
    v = _read_only(rng.standard_normal(y.shape))
    value, size = float((y.data * v).sum()), float(abs(y.data * v).sum())
    if not np.isfinite(size):
        raise ValueError("gradcheck: expected a finite result of f, got NaN or infinity at these arguments")

    def loss(i: int, a: np.ndarray) -> float:
        return float((f(*(Tensor(a if k == i else arrays[k]) for k in range(len(arrays)))).data * v).sum())

    if arrays and loss(0, arrays[0]) != value:
        raise ValueError("gradcheck: f gave two results for the same arguments; fix its randomness (rng) inside f")
    y.backward(v)

    kinks, worst, checked = [], 0.0, 0
    for i, a in enumerate(arrays):
        grad = tensors[i].grad if tensors[i].grad is not None else np.zeros_like(a)
        picked = np.sort(rng.permutation(a.size)[:entries])
        got, expected, where = [], [], []
        scale = float(abs(grad).max()) if a.size else 0.0
        for j in picked:
            at = tuple(int(k) for k in np.unravel_index(j, a.shape))
            slope, kink = _slope(partial(loss, i), a, int(j), eps, value, size, float(grad.flat[j]),
                                 rtol * scale + atol)
            if kink:
                left, right = kink
                slack = 1e-3 * (abs(left) + abs(right)) + atol
                if not min(left, right) - slack <= grad.flat[j] <= max(left, right) + slack:
                    raise AssertionError(
                        f"gradcheck: argument {i} {a.shape}, index {at} lies on a kink: got {grad.flat[j]:.10g}, "
                        f"expected a slope between {left:.10g} (left) and {right:.10g} (right)")
                kinks.append((i, at))
            else:
                got.append(float(grad.flat[j]))
                expected.append(slope)
                where.append(at)
        checked += len(where)
        worst = max(worst, _compare(i, a.shape, np.array(got), np.array(expected), where, rtol, atol))
    return Report(checked, sum(a.size for a in arrays), worst, kinks)


def _read_only(a: np.ndarray) -> np.ndarray:
    a = a.copy(order="K")
    a.setflags(write=False)
    return a


def _slope(loss: Callable[[np.ndarray], float], a: np.ndarray, j: int, eps: float, value: float, size: float,
           got: float, close: float) -> tuple[float, tuple[float, float] | None]:
    """Return (central difference at entry j, None), or (0, (left slope, right slope)) if the entry is at a kink."""

    def sides(h: float) -> tuple[float, float]:
        up, down = a.copy(order="K"), a.copy(order="K")
        up.flat[j] += h
        down.flat[j] -= h
        return (value - loss(down)) / h, (loss(up) - value) / h

    def noise(h: float) -> float:
        return 1e-13 * size / h  # a generous bound on the rounding error of a slope

    left, right = sides(eps)
    central, gap = (left + right) / 2, abs(right - left)
    if gap <= noise(eps) or (abs(got - central) <= close and gap <= 1e-3 * (abs(left) + abs(right))):
        return central, None
    # The slopes differ. At a smooth point they differ by curvature times the step, so at 1/32 of the step they differ
    # by 1/32 as much. Across a kink they differ by as much as before. A kink within the step but not within 1/32 of
    # it does not affect the smaller step. Two small steps are tried, because one may end just beyond a kink.
    kink, curvature = False, 0.0
    for part in (32, 40):
        left, right = sides(eps / part)
        kink |= abs(right - left) > max(2 * gap / part, noise(eps / part))
        curvature = part * abs(right - left)
    if kink:
        return 0.0, (left, right)
    return (left + right) / 2 if gap > 2 * curvature + noise(eps) else central, None


def _compare(i: int, shape: tuple[int, ...], got: np.ndarray, expected: np.ndarray, where: list[Any], rtol: float,
             atol: float) -> float:
    if not len(where):
        return 0.0
    error, size = np.linalg.norm(got - expected), np.linalg.norm(got) + np.linalg.norm(expected)
    if not error <= rtol * size + atol:  # not `error > ...`, which is False for NaN
        k = int(np.argmax(np.nan_to_num(abs(got - expected), nan=np.inf)))
        ratio = got[k] / expected[k] if expected[k] else float("inf")
        raise AssertionError(
            f"gradcheck: argument {i} {shape}: backward differs from finite differences; relative error "
            f"{error / size if size else error:.2e}, allowed {rtol:.0e}. Worst at index {where[k]}: got {got[k]:.10g}, "
            f"expected {expected[k]:.10g}, ratio {ratio:.6g}")
    return float(error / size) if size else 0.0
