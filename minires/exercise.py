"""Exercises with a check that runs: `check` says "right", or "not yet" and why, and lets the notebook go on."""
from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import numpy as np


def check(test: Callable[[], Any]) -> bool:
    """Run `test()` and say how it went, on one line: "right", or "not yet" and why. Returns whether it is right.

    `test` raises while the answer is wrong (an assertion, `minires.gradcheck`, the NotImplementedError of an answer not
    yet written) or returns False, so that ``check(lambda: answer == 3)`` does what it looks like. Of an array or a list
    all must be true, and there must be some.
    """
    try:
        result = test()
        right = result is None or (np.size(result) > 0 and bool(np.all(result)))
    except Exception as e:  # whatever an unfinished answer may do
        why = str(e) or f"in {traceback.extract_tb(e.__traceback__)[-1].line}"  # of an assertion without words
        print("not yet:", " ".join(f"{type(e).__name__}: {why}".split()))
        return False
    if not right:
        print("not yet: the answer is not what is expected")
        return False
    print("right")
    return True
