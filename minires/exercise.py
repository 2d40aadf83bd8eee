"""Exercises with a check that runs: `check` says "right", or "not yet" and why, and lets the notebook go on."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def check(test: Callable[[], Any]) -> bool:
    """Run `test()` and say how it went, on one line: "right", or "not yet" and why. Returns whether it is right.

    `test` raises while the answer is wrong (an assertion, `minires.gradcheck`, the NotImplementedError of an answer not
    yet written) or returns False, so that ``check(lambda: answer == 3)`` does what it looks like.
    """
    try:
        result = test()
    except Exception as e:  # whatever an unfinished answer may do
        print("not yet:", " ".join(f"{type(e).__name__}: {e}".split()))
        return False
    if isinstance(result, (bool, np.bool_, np.ndarray)) and not np.all(result):
        print("not yet: the answer is not what is expected")
        return False
    print("right")
    return True
