"""Choose the cases of a long table that run by default. The others are marked slow, and run with `pytest -m ""`."""
import pytest


def every(step, cases, ids=None):
    """Return the cases as parameters: the first and every `step`-th after it run by default.

    cases: values, or tuples of several values
    ids: their names, if the values do not give them
    """
    names = [None] * len(cases := list(cases)) if ids is None else list(ids)
    return [pytest.param(*case if isinstance(case, tuple) else (case,), id=name,
                         marks=[pytest.mark.slow] * (number % step > 0))
            for number, (case, name) in enumerate(zip(cases, names, strict=True))]
