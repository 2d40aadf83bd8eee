"""What a figure is given: one result, or several by label."""
from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any


def labelled(found: Any, depth: int = 0) -> dict[str, Any]:
    """{label: result} in the order given, from {label: result} or from one result, whose label then is "".

    depth: how many mappings deep one result is: 0 for a list, an array or a named tuple, 1 for {layer: number}, 2 for
    {step: {layer: number}}. Labels may be any text; a whole number is a step of a training, as in `analysis.follow`.
    ValueError for anything nested less or more deeply.
    """
    if isinstance(found, Mapping) and not found:
        return {}
    levels = nested(found)
    if levels not in (depth, depth + 1):
        raise ValueError(f"a figure: expected one result or {{label: result}}, a result being {_form(depth)}; got "
                         f"{_form(levels)}")
    return {"": found} if levels == depth else {text(label): result for label, result in found.items()}


def nested(found: Any) -> int:
    """How many mappings deep this is: 0 if it is none, 1 for {layer: number}."""
    return 1 + max((nested(value) for value in found.values()), default=0) if isinstance(found, Mapping) else 0


def text(label: Any) -> str:
    """A label as it is printed: "step 10" for 10; text as it is."""
    return f"step {label}" if isinstance(label, Integral) else str(label)


def said(label: str, words: str, between: str = " ") -> str:
    """What is said of one label in a title: "ResNet-20 8.3 %"; without a label the words alone."""
    return f"{label}{between}{words}" if label else words


def listed(parts: Mapping[str, str], between: str = " ", most: int = 4) -> str:
    """What is said of every label, for a title; "" for more than `most`, which no title has room for."""
    return "; ".join(said(label, words, between) for label, words in parts.items()) if len(parts) <= most else ""


def _form(levels: int) -> str:
    return "no mapping" if levels == 0 else "{...: " * levels + "..." + "}" * levels
