"""Decide whether answers are right, state facts about a wrong answer, and name its cause if a bug of the bank fits.

Both sides' outcome is a list with one entry for each case: named arrays, or an exception.

Right   same names, shapes and kinds of numbers, and |s - r| <= t (|s| + |r|) in the 2-norm for every array, where r is
        the solution's array and t is 1e-6 in float64 and 1e-4 in float32. Names that end in "(exact)", whole numbers
        and booleans are compared exactly. "seconds" may be 20 times the solution's.
Facts   hold by construction: the shape, NaN, a constant factor, the share of right entries, the worst entry.
Cause   a bug fits if the student's numbers are the bug's, in every case: |s - b| <= 1e-7 (|s| + |b|). In exact
        arithmetic the same mistake gives the same numbers, whoever wrote it. Rounding errors in an array that must be
        exact depend on the order of the steps, so all of them are alike. If no bug fits all wrong arrays, each array is
        explained by itself, together with its variants ("dx" and "dx, backward called twice"), unless it is zero
        everywhere. If no bug fits, no cause is named.
"""
from __future__ import annotations

import itertools
import math
import re
import time
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from . import solution
from .bank import bugs
from .task import Case, CourseError, Task
from .worker import Outcome, Raised

Arrays = dict[str, np.ndarray]
TOLERANCE = {2: 2e-2, 4: 1e-4, 8: 1e-6}  # {bytes of the float type: t}
FIT = 0.1                                # a bug fits within this share of the tolerance
SLOWEST = 20.0                           # times the solution's computing time
LEAST_SECONDS = 1e-3                     # a solution's computing time counts as at least this


class Verdict(NamedTuple):
    """The report on one task, or on one half of it."""

    right: bool
    words: str    # "right", "not written yet", or the facts and the cause
    hint: str = ""  # the cause alone: "This is what you get when ...", or ""
    causes: tuple[int, ...] = ()  # numbers of the bugs that are named

    @property
    def text(self) -> str:
        """The whole of it on one line."""
        return f"{self.words} {self.hint}".strip()


# ------------------------------------------------------------------------------------------------- right?


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return |a - b| / (|a| + |b|) in the 2-norm, and inf if shapes differ or only one has a NaN or inf somewhere."""
    if a.shape != b.shape:
        return math.inf
    if a.size == 0:
        return 0.0
    a, b = a.astype(np.result_type(a, np.float64)), b.astype(np.result_type(b, np.float64))
    finite = np.isfinite(b)
    if not np.array_equal(np.isfinite(a), finite) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return math.inf
    largest = max(np.abs(a[finite]).max(initial=0.0), np.abs(b[finite]).max(initial=0.0))
    if largest == 0:
        return 0.0
    a, b = a[finite] / largest, b[finite] / largest  # so that squares neither overflow nor vanish
    return float(np.linalg.norm(a - b) / (np.linalg.norm(a) + np.linalg.norm(b)))


def kinds_differ(name: str, got: np.ndarray, expected: np.ndarray) -> bool:
    """Return whether an array has another kind of numbers than expected. A single whole number may stand for a float,
    and booleans and whole numbers for each other."""
    if got.dtype.kind in "biu" and expected.dtype.kind in "biu":
        return False
    if name == "seconds" or (got.ndim == expected.ndim == 0 and got.dtype.kind in "biu"):
        return False
    return got.dtype != expected.dtype


def accepted(name: str, got: np.ndarray, expected: np.ndarray) -> bool:
    """Return whether one array is right."""
    if got.shape != expected.shape or kinds_differ(name, got, expected):
        return False
    if name == "seconds":
        return bool(got <= SLOWEST * np.maximum(expected, LEAST_SECONDS))
    if name.endswith("(exact)") or expected.dtype.kind in "biu":
        return np.array_equal(got, expected, equal_nan=expected.dtype.kind in "fc")
    return distance(got, expected) <= tolerance(expected)


def tolerance(expected: np.ndarray) -> float:
    """Return the distance up to which an array is right."""
    return TOLERANCE[np.finfo(expected.dtype).bits // 8] if expected.dtype.kind in "fc" else 0.0


def wrong(got: Outcome, expected: Arrays) -> list[str]:
    """Return the names of the arrays that are wrong in one case; all of them for an exception."""
    if isinstance(got, Raised) or list(got) != list(expected):
        return list(expected)
    return [name for name in expected if not accepted(name, got[name], expected[name])]


def all_right(got: Sequence[Outcome], expected: Sequence[Arrays]) -> bool:
    """Return whether every array is right in every case."""
    return len(got) == len(expected) and not any(map(wrong, got, expected))


# ------------------------------------------------------------------------------------------------- verdict


def verdict(task: Task, cases: Sequence[Case], expected: Sequence[Arrays], got: Sequence[Outcome], *,
            bank: Sequence[Known] = (), pairs: Iterable[Known] = ()) -> Verdict:
    """Compare a submission's outcomes with the solution's.

    bank: the outcomes of the task's bugs on the same cases, from `known_bugs`
    pairs: likewise of two bugs at once, from `known_pairs`; looked at only if no bug fits
    """
    bad = [k for k, (g, r) in enumerate(zip(got, expected, strict=True)) if wrong(g, r)]
    if not bad:
        return Verdict(True, "right")
    errors = [g for g in got if isinstance(g, Raised)]
    if len(errors) == len(bad) and all(e.error == "NotImplementedError" for e in errors):
        return Verdict(False, "not written yet")
    if errors and errors[0].error == "Missing":
        return Verdict(False, f"not yet: {errors[0].text}")
    names, causes = cause(got, expected, bank, pairs)
    return Verdict(False, f"not yet: {fact(task, cases, expected, got, bad[0])}", names, causes)


def fact(task: Task, cases: Sequence[Case], expected: Sequence[Arrays], got: Sequence[Outcome], k: int) -> str:
    """Say what is known for certain about the first wrong array of case k."""
    where = f"{cases[k].label}: " if cases[k].label else ""
    g, r = got[k], expected[k]
    if isinstance(g, Raised):
        return where + exception(g)
    if list(g) != list(r):
        return f"{where}expected {', '.join(r)}; got {', '.join(g)}"
    names = wrong(g, r)
    name = names[0]
    others = [n for n in names[1:] if "(exact)" not in n]
    right = [n for n in r if n not in names]
    more = f" Also wrong: {', '.join(others)}." * bool(others) + f" Right: {', '.join(right)}." * bool(right)
    return f"{where}{about(name, g[name], r[name], k, got, expected)}.{more}"


def exception(e: Raised) -> str:
    """Describe an exception in a submission."""
    if "read-only" in e.text and e.error == "ValueError":
        what = "you write into an array that you were given: work on a copy"
    elif e.error.startswith("Died") or (e.error == "TypeError" and not e.place):
        what = e.text
    elif e.error == "NotImplementedError":
        what = "not written yet"
    else:
        what = f"{e.error}: {e.text}" if e.text else e.error
    return what + (f" ({e.place})" if e.place else "")


def about(name: str, s: np.ndarray, r: np.ndarray, k: int, got: Sequence[Outcome], expected: Sequence[Arrays]) -> str:
    """Say what is wrong with one array, the most telling fact first. s: the student's; r: the solution's."""
    if name == "seconds":
        return f"it takes {float(s):.2g} s of computing, where the solution takes {float(r):.2g} s"
    if r.dtype.kind == "b" and r.ndim == 0:
        return f"{name}: expected {bool(r)}, got {bool(s)}"
    if s.shape != r.shape:
        return f"{name}: expected shape {shape(r)}, got {shape(s)}{rearranged(s, r)}"
    if kinds_differ(name, s, r):
        return f"{name}: expected {r.dtype}, got {s.dtype}"
    if r.ndim == 0:
        return f"{name}: expected {number(r)}, got {number(s)}"
    full = f"{name} {shape(r)}"
    if s.dtype.kind in "fc" and np.isnan(s).any() and not np.isnan(r).any():
        return f"{full}: NaN in {percent(np.isnan(s))} of the entries"
    if not s.any() and r.any():
        return f"{full}: zero everywhere, expected numbers up to {number(np.abs(r).max())}"
    if told := factor(name, got, expected):
        return f"{full}: {told}"
    if name.endswith("(exact)") and distance(s, r) <= tolerance(r):
        return f"{full}: right up to rounding, but every bit must be equal{differing(s, r)}"
    for other, array in expected[k].items():
        if other != name and array.dtype == s.dtype and array.size > 1 and accepted(other, s, array):
            return f"{full}: this is what is expected for {other}"
    if same := rearranged(s, r):
        return f"{full}{same}"
    return f"{full}: {entries(name, s, r)}"


def entries(name: str, s: np.ndarray, r: np.ndarray) -> str:
    """Say how many entries are right, and show the worst."""
    both = s.astype(np.result_type(s, np.float64)), r.astype(np.result_type(r, np.float64))
    off = np.abs(both[0] - both[1])
    exact = name.endswith("(exact)") or r.dtype.kind in "biu"
    scale = np.abs(both[0]) + np.abs(both[1])
    limit = 0.0 if exact else tolerance(r) * np.maximum(scale, np.sqrt((both[1] * both[1].conj()).real.mean()))
    ok = off <= limit
    worst = np.unravel_index(int(np.argmax(np.where(np.isfinite(off), off, np.inf))), off.shape)
    index = f"({', '.join(map(str, worst))}{',' * (len(worst) == 1)})"
    return f"right in {percent(ok)} of the entries. Index {index}: got {number(s[worst])}, expected {number(r[worst])}"


def differing(s: np.ndarray, r: np.ndarray) -> str:
    """Say how many entries differ, and show the first."""
    index = tuple(map(int, np.argwhere(s != r)[0]))
    return (f". {percent(s != r)} of the entries differ. Index ({', '.join(map(str, index))}"
            f"{',' * (len(index) == 1)}): got {s[index].item()!r}, expected {r[index].item()!r}")


def percent(mask: np.ndarray) -> str:
    """Return the share of True as text: "38 %". Only nothing is 0 %, and only everything is 100 %."""
    share = 100 * float(mask.mean())
    return f"{share:.0f} %" if share in (0, 100) else f"{min(max(share, 1), 99):.0f} %"


def number(value: Any) -> str:
    """Return a number with four digits. Whole numbers have all their digits."""
    value = np.asarray(value)[()]
    return f"{value}" if value.dtype.kind in "biu" else f"{value:.4g}"


def shape(array: np.ndarray) -> str:
    """Return a shape as text."""
    return f"({', '.join(map(str, array.shape))}{',' * (array.ndim == 1)})"


def rearranged(s: np.ndarray, r: np.ndarray) -> str:
    """Say if s holds r's numbers in another shape or order of axes; "" if not."""
    if s.size != r.size or s.size < 2 or np.unique(r).size < 2:
        return ""
    if s.ndim == r.ndim <= 4:
        for axes in itertools.permutations(range(r.ndim)):
            if axes != tuple(range(r.ndim)) and distance(s, r.transpose(axes)) <= 1e-9:
                return f": the right numbers, with the axes in the order {axes}"
    if s.shape != r.shape and distance(s.ravel(), r.ravel()) <= 1e-9:
        return ": the right numbers in another shape"
    if distance(np.sort(s, None), np.sort(r, None)) <= 1e-9:
        return ": the right numbers in another order"
    return ""


def factor(name: str, got: Sequence[Outcome], expected: Sequence[Arrays]) -> str:
    """Say if an array is a constant times what is expected, in every case that has it; "" if not."""
    ratios, sizes = [], []
    for g, r in zip(got, expected, strict=True):
        if name not in r:
            continue
        if isinstance(g, Raised) or name not in g or g[name].shape != r[name].shape or r[name].dtype.kind not in "fc":
            return ""
        a, b = g[name].astype(float).ravel(), r[name].astype(float).ravel()
        if np.count_nonzero(b) < 2 or not np.isfinite(a).all() or not np.isfinite(b).all():
            return ""
        ratio = float(a @ b / (b @ b))
        slack = 1e-9 + 0.1 * tolerance(r[name]) * (r[name].dtype.itemsize < 8)
        if ratio == 0 or abs(ratio - 1) <= 1e-6 or distance(a, ratio * b) > slack:
            return ""
        ratios.append(ratio)
        sizes.append(extents(r))
    for words, value in candidates(sizes):
        if all(abs(ratio - value(size)) <= 1e-6 * abs(ratio) for ratio, size in zip(ratios, sizes, strict=True)):
            return words
    if ratios and max(ratios) - min(ratios) <= 1e-6 * abs(ratios[0]):
        return f"{ratios[0]:.4g} times what is expected"
    return ""


def extents(arrays: Arrays) -> dict[str, int]:
    """Return {"N": images, "H W": pixels of an image, "N H W": pixels of all} of the largest array, as far as it has
    them."""
    largest = max(arrays.values(), key=lambda a: (a.ndim, a.size))
    if largest.ndim == 4:
        n, _, h, w = largest.shape
        return {"N": n, "H W": h * w, "N H W": n * h * w}
    return {"N": largest.shape[0]} if largest.ndim else {}


def candidates(sizes: Sequence[dict[str, int]]) -> list[tuple[str, Any]]:
    """Return (words, function from extents to the factor) of the factors that have a name."""
    found: list[tuple[str, Any]] = [("the sign is wrong: minus what is expected", lambda size: -1.0)]
    for value, words in (2.0, "twice"), (0.5, "half"), (-2.0, "minus twice"), (-0.5, "minus half"):
        found.append((f"{words} what is expected", lambda size, value=value: value))
    shared = set.intersection(*map(set, sizes)) if sizes else set()
    for key in ("N", "H W", "N H W"):
        if key in shared:
            plain = key.replace(" ", "·")
            found.append((f"1/{key if ' ' not in key else f'({plain})'} of what is expected",
                          lambda size, key=key: 1 / size[key]))
            found.append((f"{plain} times what is expected", lambda size, key=key: float(size[key])))
    return found


# --------------------------------------------------------------------------------------------------- cause


class Known(NamedTuple):
    """One bug, or two at once, and what the changed solution answers."""

    numbers: tuple[int, ...]
    sentences: tuple[str, ...]
    outcomes: list[Outcome]
    wrong: frozenset[str]      # names of the arrays that are wrong in some case


@cache
def known_bugs(task: Task, half: str, seed: int) -> list[Known]:
    """Run every realisation of the task's bugs on a half's cases. Made once for a task, half and seed."""
    cases, expected = solution.drawn(task, half, seed)
    return [_known((bug.number,), (bug.sentence,), solution.outcomes(task, names, cases), expected)
            for bug, _, names in solution.planted(task)]


def known_pairs(task: Task, half: str, seed: int, seconds: float = 10.0) -> Iterable[Known]:
    """Run every two bugs at once, as far as their changes can be combined.

    seconds: stop after this time; the pairs are an explanation, and a student waits for it
    """
    cases, expected = solution.drawn(task, half, seed)
    end = time.monotonic() + seconds
    single = [(bug, bug.changes[task.name][0]) for bug in bugs(task.assignment) if task.name in bug.changes]
    for (a, first), (b, second) in itertools.combinations(single, 2):
        if time.monotonic() > end:
            return
        try:
            names = solution.space(task.assignment, {task.name: [*first, *second]})
        except CourseError:  # they change the same place
            continue
        yield _known((a.number, b.number), (a.sentence, b.sentence), solution.outcomes(task, names, cases), expected)


def _known(numbers: tuple[int, ...], sentences: tuple[str, ...], outcomes: list[Outcome],
           expected: Sequence[Arrays]) -> Known:
    return Known(numbers, sentences, outcomes, frozenset(n for g, r in zip(outcomes, expected, strict=True)
                                                         for n in wrong(g, r)))


def cause(got: Sequence[Outcome], expected: Sequence[Arrays], bank: Sequence[Known],
          pairs: Iterable[Known] = ()) -> tuple[str, tuple[int, ...]]:
    """Return (the sentence that names the cause, the numbers of the bugs in it), or ("", ()) if no cause fits."""
    bad = frozenset(n for g, r in zip(got, expected, strict=True) for n in wrong(g, r))
    names = [n for r in expected for n in r]
    names = list(dict.fromkeys(n for n in names if n in bad))
    whole = [b for b in bank if b.wrong == bad and all(fits(got, b, n, expected) is not None for n in names)
             and any(fits(got, b, n, expected) for n in names)]
    if whole:
        return _either(whole)
    for b in pairs:
        if b.wrong == bad and all(fits(got, b, n, expected) is not None for n in names) \
                and any(fits(got, b, n, expected) for n in names):
            return f"There are two causes: {b.sentences[0]}; and {b.sentences[1]}.", b.numbers
    said: dict[str, list[str]] = {}
    numbers: list[int] = []
    families: dict[str, list[str]] = {}
    for n in names:
        families.setdefault(kin(n), []).append(n)
    for family, listed in families.items():
        if not any(telling(n, got) for n in listed):
            continue
        fitting = [b for b in bank if all(fits(got, b, n, expected) is not None for n in listed)
                   and any(fits(got, b, n, expected) for n in listed)]
        if fitting and not any(vanishes(got, n, expected) for n in listed):
            words, more = _either(fitting, start="this is what you get when")
            said.setdefault(words, []).append(family)
            numbers += more
    return " ".join(f"For {' and '.join(arrays)}, {words}" for words, arrays in said.items()), \
        tuple(dict.fromkeys(numbers))


def kin(name: str) -> str:
    """Return the array that a name is a variant of: "dx" for "dx, backward called twice" and "dx of float32 inputs"."""
    return re.split(r", | of float32| in float32", name)[0]


def vanishes(got: Sequence[Outcome], name: str, expected: Sequence[Arrays]) -> bool:
    """Return whether an array is zero everywhere in some case, and should not be. Many causes fit such an array, and it
    names none of them."""
    return any(isinstance(g, dict) and name in g and not g[name].any() and r[name].any()
               for g, r in zip(got, expected, strict=True) if name in r)


def telling(name: str, got: Sequence[Outcome]) -> bool:
    """Return whether an array alone can show a cause. Zeros, one truth value or one small number agree by chance."""
    arrays = [g[name] for g in got if not isinstance(g, Raised) and name in g]
    return any(a.any() and (a.size > 1 or a.dtype.kind in "fc" or abs(int(a.ravel()[0])) > 1000) for a in arrays)


def _either(fitting: Sequence[Known], start: str = "This is what you get when") -> tuple[str, tuple[int, ...]]:
    sentences = list(dict.fromkeys(b.sentences[0] for b in fitting))
    numbers = tuple(dict.fromkeys(b.numbers[0] for b in fitting))
    return f"{start} {'either ' * (len(sentences) > 1)}{', or '.join(sentences)}.", numbers


def fits(got: Sequence[Outcome], bug: Known, name: str, expected: Sequence[Arrays]) -> bool | None:
    """Return None if the bug's array differs from the student's in some case; otherwise whether numbers show it: in
    some case the bug is wrong there and the two were compared.

    An exception fits an exception, but alone it explains nothing.
    """
    shown = False
    for g, b, r in zip(got, bug.outcomes, expected, strict=True):
        if name not in r:
            continue
        if isinstance(g, Raised) or isinstance(b, Raised):
            if not (isinstance(g, Raised) and isinstance(b, Raised)):
                return None
            continue
        if name not in g or name not in b:
            return None
        both_drifted = drifted(name, g[name], r[name]) and drifted(name, b[name], r[name])
        if not both_drifted and not alike(name, g[name], b[name]):
            return None
        shown = shown or not accepted(name, b[name], r[name])
    return shown


def drifted(name: str, s: np.ndarray, r: np.ndarray) -> bool:
    """Return whether an array that must be exact is right up to rounding errors, which depend on the order of steps."""
    return name.endswith("(exact)") and s.dtype.kind in "fc" and not accepted(name, s, r) \
        and distance(s, r) <= FIT * tolerance(r)


def alike(name: str, s: np.ndarray, b: np.ndarray) -> bool:
    """Return whether a student's array is a bug's, more narrowly than "right" asks."""
    if name == "seconds":
        return True
    if s.shape != b.shape or kinds_differ(name, s, b):
        return False
    if name.endswith("(exact)") or b.dtype.kind in "biu":
        return np.array_equal(s, b, equal_nan=b.dtype.kind in "fc")
    return distance(s, b) <= FIT * tolerance(b)
