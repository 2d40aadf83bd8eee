"""Check a backward pass that is a plain function of arrays, with a cache instead of a graph.

The pair is `forward(*args) -> (y, cache)` and `backward(dy, cache) -> gradients`. `check_backward` compares the
gradients with finite differences, entry by entry (`gradcheck`), and looks for bad manners: what a backward pass may do
without a wrong number at first, and what makes it wrong as soon as it is used twice or next to other code.

A check cannot see a forward pass that computes the wrong function. Compare it with a plain loop or another library.
"""
from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from ..gradient_check import Argument, GradientError, Report, gradcheck
from ..tensor import Function, Tensor

Path = tuple[Any, ...]  # a position in the arguments: (2,) or, inside containers, (2, "w1")


@dataclass(frozen=True)
class PairReport(Report):
    """A PairReport is a Report under the name of the function that was checked, with its bad manners."""

    name: str = ""
    manners: tuple[str, ...] = ()  # one sentence each

    def __str__(self) -> str:
        text = super().__str__()
        if self.manners and not any(a.problem for a in self.arguments):
            text = "gradcheck: " + ", ".join(f"{a.name}: {a.verdict}" for a in self.arguments)
        return "\n  ".join([text.replace("gradcheck", self.name, 1), *self.manners])


def check_backward(forward: Callable[..., Any], backward: Callable[..., Any], *args: Any, wrt: Any = None,
                   rtol: float = 1e-6, entries: int = 100, seed: int = 0, float32: bool = True, fresh: bool = True,
                   reentrant: bool = True) -> PairReport:
    """Check `backward`, the gradient of `forward`, at `args`.

    forward: forward(*args) -> (y, cache). y is one array, or a number for a loss. The cache is anything.
    backward: backward(dy, cache) -> one gradient for each argument that is a float array or a dict, list or tuple of
        float arrays, in the order of the arguments. Also right: the gradient alone if there is only one, or a dict
        with the names of the arguments ("x") or these after a d ("dx"). The gradient of a dict has its keys.
    args: float arrays are checked in float64; everything else is passed on as it is.
    wrt: the names of the arguments for which backward returns a gradient; by default every argument with float arrays.
    rtol, entries, seed: as for `gradcheck`. dy is random.
    float32: require float32 results for float32 arrays.
    fresh: require gradients that share no memory with dy, with what forward saved, or with each other.
    reentrant: require that the first cache still works after forward was called on other data. False is for a pair that
        keeps its cache in one place, for example on an object.

    Further bad manners are refused always: writing into an argument, into dy or into the cache, so that a second call
    of backward gives another gradient; and another result for arrays that are not contiguous in memory.

    The names in messages are those of forward's parameters. Returns a PairReport. Raises GradientError, an
    AssertionError that lists every argument, right and wrong, and the bad manners; AssertionError if the functions do
    not return what is described above; ValueError if the arguments have no float array, or `wrt` an unknown name.
    """
    __tracebackhide__ = True  # pytest shows the caller's line and the message
    pair = _Pair(forward, backward, args, wrt)
    rng = np.random.default_rng([seed, 1204])
    given = pair.copies()
    with np.errstate(all="ignore"):
        y, cache = pair.forward(given)
        pair.check_result(y)
        dy = rng.standard_normal(y.shape)
        grads, manners = _called_twice(pair, given, y, cache, dy, fresh)
        if reentrant:
            manners += _interleaved(pair, given, dy, grads, rng)
        manners += _not_contiguous(pair, y, dy, grads)
        if float32:
            manners += _in_float32(pair, dy)
    misfits = {leaf.path: misfit for leaf in pair.wanted if (misfit := _misfit(leaf, grads[leaf.path]))}
    report = pair.compared(misfits, rtol, entries, seed, tuple(dict.fromkeys(manners)))
    if manners or any(a.problem for a in report.arguments):
        raise GradientError(report)
    return report


# ---------------------------------------------------------------------------------------- the two functions


class _Leaf(NamedTuple):
    """A _Leaf is one array among the arguments or inside them."""

    name: str
    path: Path
    array: np.ndarray


class _Pair:
    """A _Pair calls the two functions on arrays that may replace those of the arguments."""

    def __init__(self, forward: Callable[..., Any], backward: Callable[..., Any], args: Sequence[Any], wrt: Any):
        self.functions = forward, backward
        self.f, self.b = (getattr(function, "__name__", type(function).__name__) for function in self.functions)
        self.args, self.names = tuple(args), _names(forward, len(args))
        self.leaves = [leaf for i, arg in enumerate(args) for leaf in _leaves(arg, self.names[i], (i,))]
        known = list(dict.fromkeys(self.names[leaf.path[0]] for leaf in self.leaves if leaf.array.dtype.kind == "f"))
        chosen = known if wrt is None else [wrt] if isinstance(wrt, str) else list(wrt)
        if not known:
            raise ValueError(f"check_backward: expected a float array among the arguments ({', '.join(self.names)}), "
                             "got none")
        if unknown := [name for name in chosen if name not in known]:
            raise ValueError(f"check_backward: wrt: expected names of arguments with float arrays, which are "
                             f"{', '.join(known)}; got {unknown[0]!r}")
        self.chosen = [name for name in known if name in chosen]  # in the order of the arguments
        self.floats = [leaf for leaf in self.leaves if leaf.array.dtype.kind == "f"]
        self.wanted = [leaf for leaf in self.floats if self.names[leaf.path[0]] in self.chosen]

    def copies(self, dtype: Any = np.float64) -> dict[Path, np.ndarray]:
        """Return {path: copy} of all arrays, the float arrays in `dtype`."""
        return {leaf.path: leaf.array.astype(dtype if leaf.array.dtype.kind == "f" else leaf.array.dtype)
                for leaf in self.leaves}

    def forward(self, arrays: Mapping[Path, np.ndarray]) -> tuple[Any, Any]:
        """Return (y, cache). y is the array itself, or a new one for a Python number."""
        returned = self.functions[0](*(_rebuilt(arg, (i,), arrays) for i, arg in enumerate(self.args)))
        if not isinstance(returned, (tuple, list)) or len(returned) != 2:
            raise AssertionError(f"{self.f}: expected (y, cache), got {_described(returned)}")
        y, cache = returned
        if isinstance(y, (int, float, np.generic)) and not isinstance(y, bool):
            y = np.asarray(y)
        if not isinstance(y, np.ndarray):
            raise AssertionError(f"{self.f}: expected an array as the first result, got {_described(y)}")
        return y, cache

    def check_result(self, y: np.ndarray) -> None:
        """Raise AssertionError unless y is float64 and finite, and the same for the same arguments."""
        if y.dtype != np.float64:
            raise AssertionError(f"{self.f}: expected a float64 result for float64 arrays, got {y.dtype}")
        if not np.isfinite(y).all():
            raise AssertionError(f"{self.f}: expected a finite result, got NaN or infinity at these arguments")
        if not _alike(self.forward(self.copies())[0], y):
            raise AssertionError(f"{self.f}: two calls with the same arguments gave two results; fix its randomness "
                                 "(rng) inside the function")

    def backward(self, dy: np.ndarray, cache: Any) -> dict[Path, Any]:
        """Return {path: gradient}, with None where backward gives none. Raises AssertionError for a wrong structure."""
        grads = self.functions[1](dy, cache)
        of = f"the gradient{'s' * (len(self.chosen) > 1)} of {_listed(self.chosen)}"
        if grads is None:
            raise AssertionError(f"{self.b}: expected {of}, got None (is its `return` missing?)")
        top = {name: self.args[self.names.index(name)] for name in self.chosen}
        if isinstance(grads, dict) and (named := self._by_name(grads)):
            grads = named
        elif len(top) == 1 and not (isinstance(grads, tuple) and len(grads) == 1):
            grads = (grads,)
        elif not isinstance(grads, (tuple, list)) or len(grads) != len(top):
            raise AssertionError(f"{self.b}: expected {len(top)} results, {of}; got {_described(grads)}")
        found: dict[Path, Any] = {}
        for (name, arg), grad in zip(top.items(), grads, strict=True):
            found |= self._matched(arg, grad, name, (self.names.index(name),))
        return found

    def _by_name(self, grads: dict[Any, Any]) -> list[Any]:
        """Return the gradients of a dict in the order of the arguments; [] if its keys are not their names."""
        for d in "", "d":
            if set(grads) == {d + name for name in self.chosen}:
                return [grads[d + name] for name in self.chosen]
        return []

    def _matched(self, arg: Any, grad: Any, name: str, path: Path) -> dict[Path, Any]:
        """Return {path: gradient} of the float arrays in one argument."""
        if isinstance(arg, np.ndarray):
            if arg.dtype.kind != "f":
                return {}
            if isinstance(grad, (int, float, np.generic)):
                grad = np.asarray(grad)
            if grad is not None and not isinstance(grad, np.ndarray):
                raise AssertionError(f"{self.b}: expected an array as the gradient of {name}, got {_described(grad)}")
            return {path: grad}
        inside = {key: part for key, part in _parts(arg) if [*_leaves(part, "", ())]}
        if not inside:
            return {}
        given = dict(_parts(grad))
        floats = {key for key, part in inside.items() if any(leaf.array.dtype.kind == "f"
                                                             for leaf in _leaves(part, "", ()))}
        if not isinstance(grad, (dict, list, tuple)) or not floats <= set(given):
            missing = ", ".join(map(repr, sorted(floats - set(given), key=repr)))
            raise AssertionError(f"{self.b}: expected the gradient of {name} to have its keys; got {_described(grad)}"
                                 + (f" without {missing}" if given else ""))
        found: dict[Path, Any] = {}
        for key in inside:
            if key in floats:
                found |= self._matched(inside[key], given[key], _inside(name, arg, key), (*path, key))
        return found

    def compared(self, misfits: Mapping[Path, str], rtol: float, entries: int, seed: int, manners: tuple[str, ...]
                 ) -> PairReport:
        """Compare all gradients with finite differences, except those that do not fit their argument."""
        pair, floats = self, self.floats

        class Both(Function):
            """Both gives every call its own copies, so that a function that writes into them is judged too."""

            def forward(self, *arrays: Any) -> Any:
                new = pair.copies() | {leaf.path: np.array(a) for leaf, a in zip(floats, arrays, strict=True)}
                y, self.cache = pair.forward(new)
                return y

            def backward(self, g: Any) -> Any:
                grads = pair.backward(g.copy(), _copied(self.cache))
                return tuple(None if leaf.path in misfits else grads.get(leaf.path) for leaf in floats)

        Both.__name__ = self.b

        def f(*tensors: Tensor) -> Tensor:
            return Both.apply(*tensors)

        f.names = [leaf.name for leaf in floats]  # type: ignore[attr-defined]
        fitting = [leaf.name for leaf in self.wanted if leaf.path not in misfits]
        arrays = self.copies()
        try:
            found = gradcheck(f, *(arrays[leaf.path] for leaf in floats), wrt=fitting, rtol=rtol, entries=entries,
                              seed=seed).arguments
        except GradientError as e:
            found = e.report.arguments
        except (AssertionError, ValueError) as e:  # another dy may show what the first did not
            raise AssertionError("\n  ".join([str(e).replace("gradcheck", self.b, 1), *manners])) from e
        found = found + [Argument(i, leaf.name, leaf.array.shape, 0, 1, float("inf"), [], misfits[leaf.path])
                         for i, leaf in enumerate(floats) if leaf.path in misfits]
        return PairReport(sorted(found, key=lambda a: a.number), sum(leaf.array.size for leaf in self.wanted),
                          self.b, manners)


# ----------------------------------------------------------------------------------------------- manners


def _called_twice(pair: _Pair, given: dict[Path, np.ndarray], y: np.ndarray, cache: Any, dy: np.ndarray, fresh: bool
                  ) -> tuple[dict[Path, Any], list[str]]:
    """Return the gradients and the bad manners that two calls of backward with one cache show."""
    manners, before = [], pair.copies()
    if names := _different(pair, given, before):
        manners.append(f"{pair.f} writes into {_listed(names)}, which the caller still needs; work on a copy")
    before = {path: a.copy() for path, a in given.items()}
    saved, sent = list(_arrays(cache)), dy.copy()
    grads = pair.backward(sent, cache)
    kept = {path: None if g is None else np.array(g) for path, g in grads.items()}
    if not np.array_equal(sent, dy):
        manners.append(f"{pair.b} writes into dy, which other steps of a graph use too; make a new array")
    if names := _different(pair, given, before):
        manners.append(f"{pair.b} writes into {_listed(names)} through the cache; work on a copy")
    if fresh:
        manners += _shared(pair, grads, sent, [*saved, *given.values()])
    try:
        again = pair.backward(dy.copy(), cache)
    except Exception as e:  # a cache that was emptied, for example
        return kept, [*manners, f"{pair.b} fails when it is called a second time ({type(e).__name__}: {e}); leave the "
                                "cache unchanged"]
    if names := _unlike(pair, again, kept):
        manners.append(f"{pair.b} gives another gradient of {_listed(names)} when it is called a second time with the "
                       "same cache; leave the cache unchanged")
        return kept, manners
    pair.backward(2 * dy, cache)  # another dy, so that a buffer gets other numbers
    if names := _unlike(pair, again, kept):
        manners.append(f"{pair.b} returns a buffer as the gradient of {_listed(names)}, which its next call "
                       "overwrites; return a new array")
    return kept, manners


def _shared(pair: _Pair, grads: dict[Path, Any], dy: np.ndarray, saved: list[np.ndarray]) -> Iterator[str]:
    """Yield a sentence for each gradient that is not an array of its own."""
    earlier: list[tuple[str, np.ndarray]] = []
    for leaf in pair.wanted:
        g = grads[leaf.path]
        if g is None:
            continue
        other = next((name for name, a in earlier if _overlap(a, g)), "")
        whose = ("dy itself, or a view of it" if _overlap(g, dy) else
                 "an array that forward saved" if any(_overlap(g, a) for a in saved) else
                 f"the array that is the gradient of {other} too" if other else "")
        if whose:
            yield (f"{pair.b} returns {whose}, as the gradient of {leaf.name}: adding to it in place (+=) would change "
                   "both; return a new array")
        earlier.append((leaf.name, g))


def _interleaved(pair: _Pair, given: dict[Path, np.ndarray], dy: np.ndarray, expected: dict[Path, Any],
                 rng: np.random.Generator) -> Iterator[str]:
    """Call forward on other data before backward of the first: nothing of the first may be lost."""
    y, cache = pair.forward(pair.copies())
    before = np.array(y)
    floats = {leaf.path for leaf in pair.floats}
    try:
        pair.forward({path: rng.permuted(a.ravel()).reshape(a.shape) if path in floats else a.copy()
                      for path, a in given.items()})
    except Exception:  # the shuffled numbers may lie outside of forward's domain
        return
    if not _alike(y, before):
        yield f"{pair.f} returns a buffer, which its next call overwrites; return a new array"
    if names := _unlike(pair, pair.backward(dy.copy(), cache), expected):
        yield (f"{pair.b} gives another gradient of {_listed(names)} when {pair.f} was called on other data in "
               "between; keep in the cache what backward needs, and not in one place for all calls")


def _not_contiguous(pair: _Pair, y: np.ndarray, dy: np.ndarray, expected: dict[Path, Any]) -> Iterator[str]:
    """Pass arrays with a gap after every element: the results must be the same."""
    try:
        spread_y, cache = pair.forward({path: _spread(a) for path, a in pair.copies().items()})
        spread_dy = _spread(dy)
        grads = pair.backward(spread_dy, cache)
    except Exception as e:
        yield f"{pair.f} or {pair.b} fails on arrays that are not contiguous in memory ({type(e).__name__}: {e})"
        return
    names = [*(["y"] * (not _alike(spread_y, y))), *_unlike(pair, grads, expected)]
    if names:
        yield f"arrays that are not contiguous in memory give another result: {_listed(names)}"


def _in_float32(pair: _Pair, dy: np.ndarray) -> Iterator[str]:
    """Pass float32 arrays: the results must be float32."""
    try:
        y, cache = pair.forward(pair.copies(np.float32))
        grads = pair.backward(np.asarray(dy, np.float32), cache)
    except Exception as e:
        yield f"{pair.f} or {pair.b} fails on float32 arrays ({type(e).__name__}: {e})"
        return
    wide = {leaf.name: grads[leaf.path].dtype for leaf in pair.wanted
            if grads[leaf.path] is not None and grads[leaf.path].dtype != np.float32}
    if y.dtype != np.float32 and y.ndim:  # a loss may be a Python number
        yield f"{pair.f} returns {y.dtype} for float32 arrays; compute in the dtype of the arguments"
    if wide:
        dtypes = _listed(sorted({str(dtype) for dtype in wide.values()}))
        yield (f"{pair.b} returns {dtypes} for float32 arrays, as the gradient of {_listed(list(wide))}; "
               "compute in the dtype of the arguments")


def _misfit(leaf: _Leaf, grad: Any) -> str:
    """Return why a gradient cannot be one of this argument, as the end of a sentence; "" if it can."""
    if grad is None:
        return ""  # a zero gradient, which is compared
    if grad.shape != leaf.array.shape:
        return f": backward returned an array of shape {grad.shape}"
    return "" if grad.dtype == np.float64 else f": backward returned {grad.dtype} for float64 arrays"


def _different(pair: _Pair, now: Mapping[Path, np.ndarray], before: Mapping[Path, np.ndarray]) -> list[str]:
    return [leaf.name for leaf in pair.leaves
            if not np.array_equal(now[leaf.path], before[leaf.path], equal_nan=leaf.array.dtype.kind == "f")]


def _unlike(pair: _Pair, got: Mapping[Path, Any], expected: Mapping[Path, Any]) -> list[str]:
    return [leaf.name for leaf in pair.wanted if not _alike(got[leaf.path], expected[leaf.path])]


def _alike(a: Any, b: Any) -> bool:
    """Return True if the arrays are equal except for the last digits, which depend on the order of a sum."""
    if a is None or b is None:
        return a is b
    scale = float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-9, atol=1e-12 * scale, equal_nan=True))


# ----------------------------------------------------------------------------------- arguments and results


def _names(forward: Callable[..., Any], count: int) -> list[str]:
    """Return the names of the first `count` positional parameters."""
    try:
        parameters = list(inspect.signature(forward).parameters.values())
    except (TypeError, ValueError):  # some functions in C have no signature
        parameters = []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:count]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "argument")
    return names + [f"{rest}[{i}]" for i in range(count - len(names))]


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, (tuple, list)):
        yield from enumerate(value)


def _inside(name: str, container: Any, key: Any) -> str:
    return f"{name}.{key}" if isinstance(container, dict) else f"{name}[{key}]"


def _leaves(value: Any, name: str, path: Path) -> Iterator[_Leaf]:
    """Yield every array in an argument."""
    if isinstance(value, np.ndarray):
        yield _Leaf(name, path, value)
    for key, part in _parts(value):
        yield from _leaves(part, _inside(name, value, key), (*path, key))


def _rebuilt(value: Any, path: Path, arrays: Mapping[Path, np.ndarray]) -> Any:
    """Return an argument with other arrays in its places."""
    if path in arrays:
        return arrays[path]
    if isinstance(value, dict):
        return {key: _rebuilt(part, (*path, key), arrays) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        parts = [_rebuilt(part, (*path, i), arrays) for i, part in enumerate(value)]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _arrays(value: Any, depth: int = 5) -> Iterator[np.ndarray]:
    """Yield every array in a cache, also on objects."""
    if isinstance(value, np.ndarray):
        yield value
    elif depth and not isinstance(value, (type, ModuleType, FunctionType)):
        for _, part in _parts(value if isinstance(value, (dict, tuple, list)) else getattr(value, "__dict__", {})):
            yield from _arrays(part, depth - 1)


def _copied(cache: Any) -> Any:
    """Return a deep copy of a cache, or the cache itself if it holds something that cannot be copied."""
    try:
        return copy.deepcopy(cache)
    except Exception:
        return cache


def _spread(a: np.ndarray) -> np.ndarray:
    """Return an array with equal elements and a gap in memory after each of them."""
    if a.ndim == 0:
        return a
    wide = np.full((*a.shape[:-1], 2 * a.shape[-1]), 7, a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def _overlap(a: np.ndarray, b: np.ndarray) -> bool:
    """Return True if the arrays share memory, or if their strides are so involved that NumPy cannot tell quickly."""
    try:
        return bool(np.shares_memory(a, b, max_work=10_000))  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, (tuple, list, dict)):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"a {type(value).__name__}"
