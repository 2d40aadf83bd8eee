"""Names that a person types: found, or refused with the nearest ones."""
from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown(what: str, given: object, known: Iterable[str]) -> ValueError:
    """The error to raise where `given` is none of the `known` names: says which come nearest, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(str(given), names, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}"
    return ValueError(f"{what}: unknown name {given!r}; {hint}")
