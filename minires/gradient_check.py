"""Compare backward() with finite differences, in a way that neither scale nor symmetry can fool.

A check is only as good as the loss that it differentiates. With `f(x).sum()` the gradient that enters backward is all
ones, and a BatchNorm or a softmax whose backward returns zeros passes, because the sum of a normalised array is
constant. `gradcheck` sends a RANDOM gradient v back instead: it checks the loss <v, f(x)>.

What a pass means: at these arguments, every entry that was compared has the slope of the forward pass, within the
tolerance or within the rounding of the differences; and backward gives the same gradient when it is called again.

What a check cannot see: a forward pass that computes the wrong function (compare it with a plain loop or with PyTorch);
entries that were not drawn, and other arguments than the given ones (extents that are equal, gamma = 1 and beta = 0
hide mistakes); a gradient that is wrong by less than rtol, or by less than the rounding of f allows to see; and, at a
kink, which of the slopes between the two sides backward chose.
"""
from __future__ import annotations

import copy
import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from . import nn
from .tensor import Function, Tensor, topological_order

STEP = 6e-6         # of the first difference, relative to the entry: the cube root of float64's precision
SMALLEST = 1.5e-9   # of the steps that are tried where the first difference disagrees, relative to the entry
LARGEST = 0.1       # relative to the entry, to the argument's typical entry, or to 1, whichever is largest
FAR = 10.0          # likewise: a move after which every output that depends on the entry has changed
ROUNDING = 4 * 1.1e-16  # of f's outputs, relative to them
COARSE = 1e-3       # an argument whose slopes no step resolves better than this is refused
ENOUGH = 10         # wrong entries of one argument, after which its other entries get a single difference each


@dataclass(frozen=True)
class Argument:
    """An Argument holds what the check found for one argument."""

    number: int                  # its position among the arguments of f, from 0
    name: str
    shape: tuple[int, ...]
    checked: int                 # entries compared with differences
    wrong: int                   # of these, how many backward gets wrong
    worst: float                 # |got - expected| / (|got| + |expected|), in Euclidean norms
    kinks: list[tuple[int, ...]]  # their indices
    problem: str                 # a sentence; "" for a gradient that is right

    @property
    def verdict(self) -> str:
        """Return "right", "wrong", or "not checked" where differences cannot decide."""
        return "wrong" if self.wrong else "not checked" if self.problem else "right"


@dataclass(frozen=True)
class Report:
    """A Report holds what a check found, argument by argument."""

    arguments: list[Argument]
    total: int  # entries there are, over all arguments

    @property
    def checked(self) -> int:
        """Return how many entries were compared with differences."""
        return sum(a.checked for a in self.arguments)

    @property
    def worst(self) -> float:
        """Return the largest relative error of an argument."""
        return max((a.worst for a in self.arguments), default=0.0)

    @property
    def kinks(self) -> list[tuple[int, tuple[int, ...]]]:
        """Return (number of the argument, index) of every entry at a kink."""
        return [(a.number, at) for a in self.arguments for at in a.kinks]

    def __str__(self) -> str:
        problems = [a for a in self.arguments if a.problem]
        if len(self.arguments) == 1 and problems:
            return f"gradcheck: {problems[0].name} {problems[0].shape}{problems[0].problem}"
        if problems:
            verdicts = ", ".join(f"{a.name}: {a.verdict}" for a in self.arguments)
            return "\n".join([f"gradcheck: {verdicts}", *(f"  {a.name} {a.shape}{a.problem}" for a in problems)])
        kinks = "".join(f"\n  kink at {a.name}, index {at}: backward gives a slope between the two sides"
                        for a in self.arguments for at in a.kinks)
        return f"gradcheck passed: {self.checked} of {self.total} entries, worst relative error {self.worst:.1e}{kinks}"


class GradientError(AssertionError):
    """A gradient is wrong, or could not be checked. `report` holds the details of each argument."""

    def __init__(self, report: Report):
        super().__init__(str(report))
        self.report = report


def gradcheck(f: Callable[..., Any], *arrays: Any, wrt: Any = None, rtol: float = 1e-6, atol: float = 0.0,
              eps: float | None = None, entries: int = 100, seed: int = 0, fresh: bool = False) -> Report:
    """Check the gradient of `f`, a function of Tensors that returns a Tensor or several, at float64 `arrays`.

    wrt: the arguments to check, by name or number, one or several; all by default. An argument left out needs no
    gradient, and is passed on as it is if it is not a float array (labels, for example).
    rtol: every entry must fulfil |got - expected| <= rtol (|got| + |expected|) + resolution, and so must every
    argument in Euclidean norms. Expected are differences of <v, f>, v random; their resolution is measured, entry by
    entry, so that a large neighbour hides nothing. Use rtol 1e-5 for whole blocks.
    atol: tolerance beyond that, relative to the function's scale |<v, f>| / |entry|.
    eps: a step for all entries, instead of steps that fit each of them; then kinks are not looked for.
    entries: at most this many of each argument are compared, drawn at random from `seed`.
    fresh: refuse a backward that returns g itself, a view of it, or an array that it saved. The engine never writes
    into a gradient, so sharing one is right there; where gradients are added in place (+=) it corrupts the other.

    backward is called twice. One that writes into g or into an input, changes what forward saved, returns a buffer
    that its next call overwrites, or gives another gradient the second time, is an AssertionError that says so.
    Where the left and the right slope differ and stay different for smaller steps, f has a kink (ReLU at 0, a tie in a
    maximum). The report lists such an entry; backward must give a slope between the two.

    Returns a Report. Raises GradientError, an AssertionError that lists all arguments, right and wrong: which entries
    are wrong, where no step resolves the slope, where f leaves its domain. TypeError if an array is not float64;
    ValueError if f is not a function of its arguments alone, or not finite, and if there is nothing to compare.
    """
    __tracebackhide__ = True  # pytest shows the caller's line and the message
    if entries < 1 or (eps is not None and not eps > 0):
        raise ValueError(f"gradcheck: expected entries >= 1 and eps > 0, got {entries} and {eps}")
    rng = np.random.default_rng([seed, 1202])  # not default_rng(seed): with that the caller may have drawn the arrays
    names = _names(f, len(arrays))
    chosen = _chosen(wrt, names)
    if not chosen:
        raise ValueError("gradcheck: expected at least one argument to check, got none")
    for i in chosen:
        a = arrays[i]
        if not isinstance(a, np.ndarray) or a.dtype != np.float64:
            given = f"{a.dtype}{a.shape}" if isinstance(a, np.ndarray) else type(a).__name__
            raise TypeError(f"gradcheck: argument {i} must be a float64 NumPy array, got {given}; differences of "
                            "float32 values are mostly rounding")
    # Every call of f gets the same copies, because NumPy may round a sum over a strided array in another way. They are
    # read-only, so that a backward that writes into its inputs fails.
    arrays = tuple(_read_only(a) if isinstance(a, np.ndarray) else a for a in arrays)
    function = _Weighted(f, arrays, rng)
    grads = function.gradients(chosen, fresh)
    with np.errstate(all="ignore"):  # f beside the given arguments may leave its domain
        if not np.array_equal(function(chosen[0], arrays[chosen[0]]), function.y):
            raise ValueError("gradcheck: f gave two results for the same arguments; fix its randomness (rng) inside f")
        function.effect = max((_largest(grads[i] * arrays[i]) for i in chosen), default=0.0)
        found = [_Check(function, i, grads[i], names[i], rtol, atol, eps).argument(
            np.sort(rng.permutation(arrays[i].size)[:entries])) for i in chosen]
    report = Report(found, sum(arrays[i].size for i in chosen))
    if any(a.problem for a in found):
        raise GradientError(report)
    return report


def gradcheck_module(module: nn.Module, *inputs: Any, jitter: float = 0.1, rtol: float = 1e-5, **options: Any
                     ) -> Report:
    """Check the gradient of a Module at float64 `inputs`.

    The arguments are the inputs, named "input" or "input 0", "input 1" and so on, and all parameters that require a
    gradient, by their names. Inputs that are not float arrays are passed on unchanged.
    jitter: N(0, 1) times this, times the root mean square of a parameter (1 if that is 0), is added to the parameter,
    because a gamma of 1 and a beta of 0 hide mistakes.
    rtol, options: as for gradcheck.

    The function checks a copy of the module in float64, in the current mode of the module. It leaves the module
    unchanged. Returns and raises what gradcheck does.
    """
    __tracebackhide__ = True  # pytest shows the caller's line and the message
    net = copy.deepcopy(module).astype(np.float64)
    parameters: dict[int, tuple[str, Tensor]] = {}
    for name, t in net.state().items():
        if t.requires_grad:
            parameters.setdefault(id(t), (name, t))  # a shared parameter has its first name
    draw = np.random.default_rng([options.get("seed", 0), 1203])
    moved = []
    for _, t in parameters.values():
        size = float((t.data ** 2).mean()) ** 0.5 if t.size else 0.0
        moved.append(t.data + jitter * (size or 1.0) * draw.standard_normal(t.shape))
    numbers = [i for i, a in enumerate(inputs) if isinstance(a, np.ndarray) and a.dtype.kind == "f"]
    names = ["input" if len(inputs) == 1 else f"input {i}" for i in range(len(inputs))]
    names += [name for name, _ in parameters.values()]

    def f(*given: Any) -> Any:
        with nn.untouched(net):  # its running statistics and its random generators start anew at every call
            for (_, parameter), t in zip(parameters.values(), given[len(inputs):], strict=True):
                parameter.data, parameter.requires_grad = t.data, t.requires_grad
                parameter.creator = _Same.of(t) if t.requires_grad else None
            return net(*given[:len(inputs)])

    f.names = names  # type: ignore[attr-defined]
    if "wrt" not in options:
        options["wrt"] = numbers + list(range(len(inputs), len(names)))
    return gradcheck(f, *inputs, *moved, rtol=rtol, **options)


# ------------------------------------------------------------------------------------------------ arguments


def _names(f: Any, count: int) -> list[str]:
    """Return f's own names for its arguments, and "argument i" where f has none."""
    names = list(getattr(f, "names", ()))
    owner = getattr(f, "__self__", None)
    if isinstance(owner, type) and issubclass(owner, Function):  # SomeFunction.apply(*inputs): forward knows the names
        f = owner.forward.__get__(object())
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        parameters = ()  # type: ignore[assignment]
    names = names or [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return names[:count] + [f"argument {i}" for i in range(len(names), count)]


def _chosen(wrt: Any, names: list[str]) -> list[int]:
    """Return the numbers of the arguments that `wrt` names."""
    if wrt is None:
        return list(range(len(names)))
    chosen = [wrt] if isinstance(wrt, (int, str)) else list(wrt)
    for one in chosen:
        if one not in names and one not in range(len(names)):
            raise ValueError(f"gradcheck: wrt: expected names or numbers of arguments, which are {', '.join(names)}; "
                             f"got {one!r}")
    return sorted({names.index(one) if isinstance(one, str) else int(one) for one in chosen})


def _read_only(a: np.ndarray) -> np.ndarray:
    a = a.copy(order="K")
    a.setflags(write=False)
    return a


# ----------------------------------------------------------------------------------- f, and backward twice


class _Weighted:
    """A _Weighted computes f's outputs as one vector y, draws their weights v, and finds the gradient of <v, y>."""

    def __init__(self, f: Callable[..., Any], arrays: Sequence[Any], rng: np.random.Generator):
        self.f, self.arrays, self.rng = f, arrays, rng
        self.effect = 0.0     # largest |gradient * entry| over all arguments
        self.largest_g = 0.0  # of all gradients that passed through the graph

    def gradients(self, chosen: Sequence[int], fresh: bool) -> dict[int, np.ndarray]:
        """Return {number: gradient that backward gives} of the chosen arguments."""
        tensors = self._tensors(chosen)
        outputs = self._outputs(tensors)
        weights = [_read_only(self.rng.standard_normal(y.shape)) for y in outputs]
        self.y = _joined([y.data for y in outputs])
        self.v = _joined(weights)
        if not np.isfinite(self.y).all():
            raise ValueError("gradcheck: expected a finite result of f, got NaN or infinity at these arguments")
        loss = _Loss.of(outputs, weights)
        if loss.requires_grad:
            for t in topological_order(loss):
                if t.creator is not None and not isinstance(t.creator, (_Loss, _Same)):
                    t.creator = _Twice(t.creator, fresh)
                    t.on_grad(self._see)
            loss.backward()
        return {i: np.zeros(self.arrays[i].shape) if tensors[i].grad is None else tensors[i].grad for i in chosen}

    def _see(self, g: Any) -> None:
        self.largest_g = max(self.largest_g, _largest(g))

    def __call__(self, i: int, a: np.ndarray) -> np.ndarray:
        """Return y with another array as argument i."""
        tensors = self._tensors(())
        tensors[i] = Tensor(a)
        return _joined([y.data for y in self._outputs(tensors)])

    def _tensors(self, chosen: Sequence[int]) -> list[Any]:
        return [Tensor(a, i in chosen) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a
                for i, a in enumerate(self.arrays)]

    def _outputs(self, tensors: Sequence[Any]) -> Sequence[Tensor]:
        result = self.f(*tensors)
        outputs = result if isinstance(result, (tuple, list)) else (result,)
        for y in outputs:
            if not isinstance(y, Tensor) or y.dtype != np.float64:
                raise TypeError("gradcheck: expected f to return a float64 Tensor, got "
                                + (f"{y.dtype}{y.shape}" if isinstance(y, Tensor) else type(y).__name__))
        return outputs


def _largest(a: np.ndarray) -> float:
    """Return the largest |entry| that is finite."""
    return float(abs(a[np.isfinite(a)]).max(initial=0.0))


def _norm(a: np.ndarray) -> float:
    """Return the Euclidean norm, also where the squares would overflow or vanish."""
    scale = _largest(a)
    return scale * float(np.linalg.norm(a / scale)) if scale else float(np.isnan(a).any() and np.nan)


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(a) for a in arrays]) if arrays else np.zeros(0)


class _Loss(Function):
    """_Loss computes <v, y> over all outputs. Its backward sends the weights themselves, which are read-only."""

    @classmethod
    def of(cls, outputs: Sequence[Tensor], weights: Sequence[np.ndarray]) -> Tensor:
        return cls.apply(*outputs, weights=weights)

    def forward(self, *outputs: Any, weights: Sequence[np.ndarray]) -> Any:
        self.weights = weights
        return np.asarray(sum(float((y * v).sum()) for y, v in zip(outputs, weights, strict=True)))

    def backward(self, g: Any) -> Any:
        return tuple(self.weights)


class _Same(Function):
    """_Same makes a module's parameter a result of the checker's Tensor, so that the gradient reaches that Tensor."""

    @classmethod
    def of(cls, t: Tensor) -> _Same:
        step = cls()
        step.inputs, step.needs = (t,), (True,)
        return step

    def backward(self, g: Any) -> Any:
        return g


class _Twice(Function):
    """A _Twice replaces one step of f's graph: it calls the step's backward twice and checks what this changes."""

    def __init__(self, step: Function, fresh: bool):
        self.step, self.inputs, self.fresh = step, step.inputs, fresh

    def pull(self, g: Any) -> Iterator[tuple[Tensor, Any]]:
        name = f"{type(self.step).__name__}.backward"
        g = np.asarray(g)
        given, saved = g.copy(), self.step.checksum()
        first = self._gradients(name, g)
        kept = [gx.copy() for _, gx in first]
        if not np.array_equal(g, given, equal_nan=True):
            raise AssertionError(f"gradcheck: {name} writes into its g, which other steps use too; make a new array")
        after = self.step.checksum()
        if changed := [key for key in saved if after.get(key) != saved[key]]:
            raise AssertionError(f"gradcheck: {name} changes what forward saved ({', '.join(changed)}), so a second "
                                 "call gives another gradient; work on a copy")
        try:
            second = self._gradients(name, g)
        except (TypeError, AttributeError, LookupError, ValueError) as e:
            raise AssertionError(f"gradcheck: {name} fails when it is called a second time "
                                 f"({type(e).__name__}: {e}); keep what forward saved") from e
        for once, (_, gx), (_, again) in zip(kept, first, second, strict=True):
            if not _alike(once, gx):
                raise AssertionError(f"gradcheck: {name} returns a buffer that its next call overwrites; return a new "
                                     "array")
            if not _alike(once, again):
                raise AssertionError(f"gradcheck: {name} is not repeatable: called again with the same g, it gives "
                                     "another gradient")
        if self.fresh:
            self._check_fresh(name, g, [gx for _, gx in second])
        yield from second

    def _gradients(self, name: str, g: Any) -> list[tuple[Tensor, Any]]:
        try:
            return list(self.step.pull(g))
        except ValueError as e:
            if "read-only" not in str(e):
                raise
            raise AssertionError(f"gradcheck: {name} writes into its g or into an input, which other steps use too "
                                 f"({e}); make a new array") from e

    def _check_fresh(self, name: str, g: Any, grads: list[Any]) -> None:
        saved = [v for v in vars(self.step).values() if isinstance(v, np.ndarray)] + [x.data for x in self.inputs]
        for i, gx in enumerate(grads):
            whose = ("g itself" if np.may_share_memory(gx, g) else
                     "an array that it saved" if any(np.may_share_memory(gx, a) for a in saved) else
                     "one array for two inputs" if any(np.may_share_memory(gx, a) for a in grads[:i]) else "")
            if whose:
                raise AssertionError(f"gradcheck: {name} returns {whose}, not a new array: adding to this gradient in "
                                     "place (+=) would corrupt the other; return a copy")


def _alike(a: np.ndarray, b: np.ndarray) -> bool:
    """Return True if the arrays are equal except for the last digits, which may depend on how memory is aligned."""
    return bool(np.allclose(a, b, rtol=1e-9, atol=1e-12 * _largest(a), equal_nan=True))


# --------------------------------------------------------------------------------- differences, by entry


class _Slope(NamedTuple):
    """A _Slope is a central difference with the slopes of its two sides."""

    h: float
    value: float
    left: float
    right: float

    @property
    def gap(self) -> float:
        """Return how far apart the slopes of the two sides are."""
        return abs(self.right - self.left)


class _Entry(NamedTuple):
    """An _Entry is one entry's slope, as far as differences resolve it."""

    expected: float
    error: float  # of `expected`: the sum of what truncation and rounding may cause
    kink: tuple[float, float] | None = None  # (left slope, right slope)
    problem: str = ""


class _Check:
    """A _Check compares the gradient of one argument with differences."""

    def __init__(self, function: _Weighted, i: int, grad: np.ndarray, name: str, rtol: float, atol: float,
                 eps: float | None):
        self.function, self.i, self.a, self.grad, self.name = function, i, function.arrays[i], grad, name
        self.rtol, self.atol, self.eps = rtol, atol, eps
        sizes = abs(self.a[np.isfinite(self.a) & (self.a != 0)])
        self.typical = float(np.median(sizes)) if sizes.size else 1.0
        self.size = abs(function.v * function.y)
        self.largest = _largest(grad)
        self.natural = max(function.largest_g, function.effect / self.typical)  # size of a gradient that is not zero

    # ------------------------------------------------------------------------------- the whole argument

    def argument(self, picked: np.ndarray) -> Argument:
        """Judge the picked entries one by one, and then as a whole."""
        kinks: list[tuple[int, ...]] = []
        where: list[tuple[int, ...]] = []
        wrong, at_kinks, problems, got, expected, error = 0, [], [], [], [], []
        for j in picked.tolist():
            at = tuple(int(k) for k in np.unravel_index(j, self.a.shape))
            g = float(self.grad.flat[j])
            entry = self._entry(j, g, thorough=wrong < ENOUGH)
            if entry.problem:
                problems.append(f", index {at}{entry.problem}")
            elif entry.kink:
                left, right = entry.kink
                slack = 1e-3 * (abs(left) + abs(right))
                if not min(left, right) - slack <= g <= max(left, right) + slack:
                    at_kinks.append(f", index {at} lies on a kink: got {g:.10g}, expected a slope between {left:.10g} "
                                    f"(left) and {right:.10g} (right)")
                kinks.append(at)
            else:
                wrong += not self._close(g, entry, j)
                got.append(g)
                expected.append(entry.expected)
                error.append(entry.error)
                where.append(at)
        problem, worst = self._as_a_whole(np.array(got), np.array(expected), np.array(error), where, wrong)
        says = next(filter(None, [problem if wrong else "", *at_kinks, problem, *problems]), "")  # the gravest first
        return Argument(self.i, self.name, self.a.shape, len(where), wrong + len(at_kinks), worst, kinks, says)

    def _close(self, got: float, entry: _Entry, j: int) -> bool:
        tolerance = self.rtol * (abs(got) + abs(entry.expected)) + 2 * entry.error
        if self.atol:
            tolerance += self.atol * float(self.size.sum()) / self._scale(j)
        return abs(got - entry.expected) <= tolerance  # NaN is not

    def _as_a_whole(self, got: np.ndarray, expected: np.ndarray, error: np.ndarray, where: list[Any], wrong: int
                    ) -> tuple[str, float]:
        if not where:
            return "", 0.0
        off, size = abs(got - expected), _norm(got) + _norm(expected)
        relative = _norm(off) / size if size else 0.0
        if wrong:
            k = int(np.argmax(np.where(np.isnan(off), np.inf, np.maximum(off - error, 0))))
            ratio = got[k] / expected[k] if expected[k] else float("inf")
            return (f": backward differs from finite differences in {wrong} of {len(where)} entries; relative error "
                    f"{relative:.2e}, allowed {self.rtol:.0e}. Worst at index {where[k]}: got {got[k]:.10g}, expected "
                    f"{expected[k]:.10g}, ratio {ratio:.6g}"), relative
        unsure = _norm(error)
        if _norm(got) <= min(3 * unsure, 1e-10 * self.natural * len(got)):  # zero, as far as both can tell
            return "", 0.0
        if unsure > COARSE * size:
            k = int(np.argmax(error))
            return (f": no step resolves the slope, so backward is not judged. Rounding leaves "
                    f"{expected[k]:.4g} +- {error[k]:.1g} at index {where[k]}, where backward gives {got[k]:.6g}; f's "
                    "values are large beside their change: subtract a constant, or check a part of f"), relative
        return "", _norm(np.where(off <= 2 * error, error, off)) / size

    # ------------------------------------------------------------------------------------------ one entry

    def _scale(self, j: int) -> float:
        return max(abs(float(self.a.flat[j])), self.typical)

    def _entry(self, j: int, got: float, thorough: bool) -> _Entry:
        h = _power_of_two(STEP * self._scale(j)) if self.eps is None else self.eps
        first = self._slope(j, h)
        if self.eps is not None:
            return self._leaves(j, [h]) if first is None else _Entry(first.value, self._rounding(self._moved(j)) / h)
        if first is not None and first.gap <= 1e-3 * (abs(first.left) + abs(first.right)) \
                and abs(got - first.value) <= self.rtol * (abs(got) + abs(first.value)) and first.value:
            return _Entry(first.value, 0.0)
        moved = self._moved(j)
        if first is not None:
            error = self._rounding(moved) / h
            if not thorough or (got == first.value == first.gap == 0 and error <= self.rtol * self.largest):
                return _Entry(first.value, error)
            if not moved.any() and not first.value:
                return self._constant(j, got)
        return self._ladder(j, got, moved)

    def _moved(self, j: int) -> np.ndarray:
        """Return which outputs depend on entry j. The rounding of the others does not count, however large they are."""
        x, far = float(self.a.flat[j]), FAR * max(self._scale(j), 1.0)
        moved = np.zeros(self.function.y.shape, bool)
        for there in x + far, x - far, x + _power_of_two(STEP * self._scale(j)):
            y = self._at(j, there)
            moved |= False if y is None else y != self.function.y
        return moved

    def _constant(self, j: int, got: float) -> _Entry:
        """Judge an entry that changes no output at all, however far it moves."""
        h = FAR * max(self._scale(j), 1.0)
        if abs(got) <= 1e-12 * self.natural:
            return _Entry(0.0, abs(got))  # what rounding in backward leaves of a zero
        hidden = ROUNDING * float(self.size.sum()) / h
        if abs(got) > hidden:
            return _Entry(0.0, 0.0)
        return _Entry(0.0, 0.0, problem=(
            f": no step resolves the slope: f does not change when this entry moves by {h:.1g}, and backward gives "
            f"{got:.6g}; slopes below {hidden:.1g} are lost in the rounding of f"))

    def _ladder(self, j: int, got: float, moved: np.ndarray) -> _Entry:
        """Try steps from very small to large, each four times the last, until one resolves the slope.

        The error of a difference is estimated from its change since the last step, and from rounding: that of f's
        outputs, and that inside f, which is all that the smallest steps show.
        """
        x = abs(float(self.a.flat[j]))
        h = _power_of_two(SMALLEST * max(x, 1e-12 * self.typical) if x else SMALLEST * self.typical)
        most = LARGEST * max(self._scale(j), 1.0)
        slopes: list[_Slope] = []
        best: _Entry | None = None
        noise, tried = self._rounding(moved), []
        while h <= most:
            tried.append(h)
            s = self._slope(j, h)
            if s is None and not slopes and h > 2 * SMALLEST * x > 0:
                h = _power_of_two(SMALLEST * x)  # x - h < 0 may be where f leaves its domain
                continue
            if s is None:
                break
            if slopes:
                change = abs(s.value - slopes[-1].value)
                if len(slopes) <= 3:
                    noise = max(noise, change * slopes[-1].h)
                now = _Entry(s.value, 1.1 * change + noise / h)
                if best and abs(now.expected - best.expected) > now.error + best.error:
                    slopes.append(s)
                    break  # a kink, or another stretch of f, lies between
                if best is None or now.error < best.error:
                    best = now
                if len(slopes) >= 3 and now.error <= 0.1 * self.rtol * (abs(now.expected) + abs(got)):
                    slopes.append(s)
                    break
            slopes.append(s)
            h *= 4
        if best is None:
            return self._leaves(j, tried)
        kink = _kink([s for s in slopes if s.h <= 1e-3 * self._scale(j)], noise)
        if best.expected == 0 and abs(got) <= 1e-12 * self.natural:
            best = best._replace(error=max(best.error, abs(got)))  # what rounding in backward leaves of a zero
        return _Entry(0.0, 0.0, kink) if kink else best

    def _leaves(self, j: int, tried: list[float]) -> _Entry:
        x = float(self.a.flat[j])
        sides = [side for side, sign in (("x - h", -1), ("x + h", 1))
                 if any(y is None or not np.isfinite(y).all() for y in (self._at(j, x + sign * h) for h in tried))]
        return _Entry(0.0, 0.0, problem=(
            f": f is not finite at {' and '.join(sides)} (x = {x:.6g}, h = {tried[-1]:.1g}): it leaves its domain "
            "there, so this entry has no difference; move it inside"))

    def _rounding(self, moved: np.ndarray) -> float:
        return ROUNDING * float(self.size[moved].sum())

    def _at(self, j: int, x: float) -> np.ndarray | None:
        """Return the outputs with x as entry j, or None if f refuses it."""
        a = self.a.copy(order="K")
        a.flat[j] = x
        try:
            return self.function(self.i, a)
        except (ValueError, ArithmeticError):
            return None

    def _slope(self, j: int, h: float) -> _Slope | None:
        """Return the differences at entry j, or None if f is not finite there."""
        x, y, v = float(self.a.flat[j]), self.function.y, self.function.v
        up, down = self._at(j, x + h), self._at(j, x - h)
        above, below = (x + h) - x, x - (x - h)  # the steps really taken
        if up is None or down is None or not (np.isfinite(up).all() and np.isfinite(down).all()):
            return None
        right, left = float((v * (up - y)).sum()) / above, float((v * (y - down)).sum()) / below
        return _Slope(h, float((v * (up - down)).sum()) / (above + below), left, right)


def _power_of_two(h: float) -> float:
    """Return the power of two near h. For most x, x + h and x - h are then exact."""
    return float(2.0 ** round(math.log2(h)))


def _kink(slopes: list[_Slope], noise: float) -> tuple[float, float] | None:
    """Return (left slope, right slope) if the two sides differ however small the step is, else None.

    At a smooth point the gap shrinks with the step. Across a kink it stays; and a kink beside the entry is invisible to
    the steps that do not reach it.
    """
    for i, (s, larger) in enumerate(itertools.pairwise(slopes)):
        if s.gap > 6 * noise / s.h:
            blind = all(12 * noise / smaller.h >= s.gap for smaller in slopes[:i])
            return (s.left, s.right) if blind and s.gap > 0.6 * larger.gap else None
    return None
