"""Fixtures for pytest. A test file or a conftest.py asks for them: `pytest_plugins = ["minires.testing.plugin"]`.

There is no entry point, so a run of pytest that does not ask for them does not load minires.
"""
from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .. import gradient_check
from . import pairs, planting


@pytest.fixture
def check_backward() -> Callable[..., Any]:
    """Return `minires.testing.check_backward`."""
    return pairs.check_backward


@pytest.fixture
def gradcheck() -> Callable[..., Any]:
    """Return `minires.gradcheck`."""
    return gradient_check.gradcheck


@pytest.fixture
def mutate() -> Iterator[Callable[..., None]]:
    """Return mutate(function, (old, new), ...), which plants a bug until the test ends: `minires.testing.planted`."""
    with contextlib.ExitStack() as stack:
        def plant(function: Any, *changes: planting.Change) -> None:
            stack.enter_context(planting.planted(function, *changes))

        yield plant
