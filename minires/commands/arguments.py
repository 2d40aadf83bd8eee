"""Read the values of the command line. All functions but `rules` are types of argparse, and refuse wrong values in
words.
"""
from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from ..names import Substitution


def text(given: str) -> str:
    """Return the text; refuse ""."""
    if not given:
        raise argparse.ArgumentTypeError("expected a name or a path, got an empty string")
    return given


def path(given: str) -> Path:
    """Return the text as a path; refuse "", which would silently mean the current folder."""
    return Path(text(given))


def positive(given: str) -> int:
    """Return a whole number from 1 on."""
    return _whole(given, 1)


def not_negative(given: str) -> int:
    """Return a whole number from 0 on."""
    return _whole(given, 0)


def _whole(given: str, least: int) -> int:
    try:
        value = int(given)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"expected a whole number >= {least}, got {given}")
    return value


def seconds(given: str) -> float:
    """Return a number of seconds above 0, which may be infinite."""
    try:
        value = float(given)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, got {given}")
    return value


def rule(given: str) -> dict[str, str] | Substitution:
    """Return a rule for load_weights: of the form OLD=NEW, or s/OLD/NEW/ with a regular expression."""
    if re.match(r"s[^\w=.]", given):
        try:
            return Substitution(given)
        except ValueError as e:
            raise argparse.ArgumentTypeError(str(e).removeprefix("rename: ")) from e
    old, equals, new = given.partition("=")
    if not old or not equals:
        raise argparse.ArgumentTypeError(f"expected OLD=NEW or s/OLD/NEW/, got {given}")
    return {old: new}


def rules(given: Sequence[dict[str, str] | Substitution] | None) -> list[dict[str, str] | Substitution] | None:
    """Return the rules in order. Neighbouring pairs OLD=NEW are one rule, so that they can exchange names."""
    found: list[dict[str, str] | Substitution] = []
    for one in given or ():
        if isinstance(one, dict) and found and isinstance(found[-1], dict):
            found[-1].update(one)
        else:
            found.append(dict(one) if isinstance(one, dict) else one)
    return found or None
