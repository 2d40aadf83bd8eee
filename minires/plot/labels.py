"""This module reads the input of figures, which is one result or several results by label."""
from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any


def labelled(found: Any, depth: int = 0) -> dict[str, Any]:
    """Return {label: result} in the order given, from {label: result} or from one result, whose label is then "".

    depth: how many mappings deep one result is: 0 for a list, an array or a named tuple, 1 for {layer: number}, 2 for
    {step: {layer: number}}

    Labels can be any text. An integer is a step of a training, as in `analysis.follow`.

    Raises ValueError for any other depth.
    """
    if isinstance(found, Mapping) and not found:
        return {}
    levels = nested(found)
    if levels not in (depth, depth + 1):
        raise ValueError(f"plot: expected one result or {{label: result}}, where a result is {_form(depth)}; got "
                         f"{_form(levels)}")
    return {"": found} if levels == depth else {text(label): result for label, result in found.items()}


def nested(found: Any) -> int:
    """Return how many mappings deep `found` is: 0 if it is not a mapping, 1 for {layer: number}."""
    return 1 + max((nested(value) for value in found.values()), default=0) if isinstance(found, Mapping) else 0


def text(label: Any) -> str:
    """Return a label as printed text: "step 10" for 10, and text unchanged."""
    return f"step {label}" if isinstance(label, Integral) else str(label)


def said(label: str, words: str, between: str = " ") -> str:
    """Return a title's words for one label, such as "ResNet-20 8.3 %"; without a label, the words alone."""
    return f"{label}{between}{words}" if label else words


def listed(parts: Mapping[str, str], between: str = " ", most: int = 4) -> str:
    """Return a title's words for all labels; "" for more than `most` labels, for which a title has no room."""
    return "; ".join(said(label, words, between) for label, words in parts.items()) if len(parts) <= most else ""


def _form(levels: int) -> str:
    return "not a mapping" if levels == 0 else "{...: " * levels + "..." + "}" * levels
