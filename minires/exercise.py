"""Check the exercises in the notebooks. `check` prints "right", or "not yet" and why; the notebook then continues."""
from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import numpy as np


def check(test: Callable[[], Any]) -> bool:
    """Run `test()`, print on one line "right", or "not yet" and why, and return whether the answer is right.

    While the answer is wrong, `test` raises or returns False. It may raise from an assertion, from
    `minires.gradcheck`, or NotImplementedError from an answer that is not written yet. So a plain comparison works too:
    ``check(lambda: answer == 3)``. If `test` returns an array or a list, it must not be empty, and all its elements
    must be true.
    """
    try:
        result = test()
        right = result is None or (np.size(result) > 0 and bool(np.all(result)))
    except Exception as e:  # an unfinished answer may raise anything
        why = str(e) or f"in {traceback.extract_tb(e.__traceback__)[-1].line}"  # for an assertion without a message
        print("not yet:", " ".join(f"{type(e).__name__}: {why}".split()))
        return False
    if not right:
        print("not yet: the answer is not what is expected")
        return False
    print("right")
    return True
