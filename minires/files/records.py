"""Write JSON records in a form that people can read, and check the type of every value when a record is read."""
from __future__ import annotations

import dataclasses
import functools
import json
import math
import numbers
import os
import types
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

from ..names import unknown
from .kinds import HEAD, other_kind


@dataclasses.dataclass(frozen=True)
class Between:
    """Limits the numbers that are valid for a field, as in `Annotated[float, Between(0, 100)]`."""

    least: float
    most: float = math.inf


MOST_BYTES = 16 << 20  # of a file; a list of one byte in it takes 30 bytes of memory


def read(path: str | os.PathLike[str]) -> Any:
    """Return the content of a JSON file.

    Raises ValueError, which names the file, if the content is not JSON, or if the file has more than MOST_BYTES.
    """
    return parse(content(path), os.fspath(path))


def content(path: str | os.PathLike[str], most: int = MOST_BYTES) -> str:
    """Return the text of a file.

    Raises ValueError, which names the file, if the text is not UTF-8, if the file has more than `most` bytes, and if
    it is a web page or a Git LFS pointer.
    """
    with open(path, "rb") as file:
        raw = file.read(most + 1)
    if len(raw) > most:
        raise ValueError(f"{os.fspath(path)} cannot be read: expected at most {most} bytes")
    if kind := other_kind(raw[:HEAD]):
        raise ValueError(f"{os.fspath(path)} cannot be read: {kind}")
    try:
        return raw.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as e:
        raise ValueError(f"{os.fspath(path)} cannot be read: {e}") from e


def parse(content: str, where: str) -> Any:
    """Return the value that JSON text holds.

    Raises ValueError, which begins with `where`, if the text is not JSON.
    """
    try:
        return json.loads(content)
    except RecursionError as e:
        raise ValueError(f"{where} cannot be read: its lists and objects are nested too deeply") from e
    except ValueError as e:
        raise ValueError(f"{where} cannot be read: {e}") from e


def text(value: Any, indent: int = 0) -> str:
    """Return a value as JSON text, indented by one space for each level, with every list of plain values on one line.

    Raises ValueError for numbers that JSON does not have (NaN, infinity).
    """
    inside = " " * (indent + 1)
    if isinstance(value, Mapping) and value:
        lines = [f"{inside}{json.dumps(str(key))}: {text(item, indent + 1)}" for key, item in value.items()]
    elif isinstance(value, (list, tuple)) and any(isinstance(item, (Mapping, list, tuple)) for item in value):
        lines = [inside + text(item, indent + 1) for item in value]
    else:
        return json.dumps(value, allow_nan=False)
    opening, closing = "{}" if isinstance(value, Mapping) else "[]"
    return f"{opening}\n" + ",\n".join(lines) + f"\n{' ' * indent}{closing}"


def checked(value: Any, kind: Any, where: str, key: str = "", *, complete: bool = False) -> Any:
    """Check a value from JSON, and return it as a `kind`.

    kind       a dataclass, a TypedDict, int, float, bool, str, `list[...]`, `tuple[..., ...]`, `dict[str, ...]`, a
               union of plain types and lists, or one of the numbers with `Between`
    where      what the errors begin with, such as a file's name
    complete   whether a dataclass needs all its keys; otherwise a key whose field has a default may be missing

    A whole number is accepted as a float. true and false are not accepted as numbers. A float must be finite.

    Raises ValueError, which names the key, what was expected and what was given, if the value does not fit.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Annotated, NotRequired):
        try:
            found = checked(value, parts[0], where, key, complete=complete)
            fits = all(limits.least <= found <= limits.most for limits in parts[1:])
        except ValueError:
            if origin is NotRequired:
                raise
            fits = False
        if not fits:
            raise _wrong(where, key, _words(kind), value)
        return found
    if origin in (Union, types.UnionType):
        return _one_of(value, parts, where, key)
    if dataclasses.is_dataclass(kind) or is_typeddict(kind):
        return _record(value, kind, where, key, complete)
    if origin in (list, tuple) and isinstance(value, (list, tuple)):
        return origin(checked(item, parts[0], where, f"{key}[{i}]") for i, item in enumerate(value))
    if origin is dict and isinstance(value, Mapping):
        return {name: checked(item, parts[1], where, _inside(key, name)) for name, item in value.items()}
    if kind is float and _is_finite(value):
        return float(value)
    if kind is int and isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if kind in (bool, str, types.NoneType) and type(value) is kind:
        return value
    raise _wrong(where, key, _words(kind), value)


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    """Return the types of the fields of a dataclass or a TypedDict. Python compiles them anew at every call."""
    return get_type_hints(kind, include_extras=True)


def _record(value: Any, kind: Any, where: str, key: str, complete: bool) -> Any:
    if not isinstance(value, Mapping):
        raise _wrong(where, key, "keys and values", value)
    known = _hints(kind)
    if is_typeddict(kind):
        optional = {name for name, hint in known.items() if get_origin(hint) is NotRequired}
    else:
        fields = dataclasses.fields(kind)
        optional = set() if complete else {f.name for f in fields if f.default is not dataclasses.MISSING
                                           or f.default_factory is not dataclasses.MISSING}
    only(value, known, where, key)
    if missing := [name for name in known if name not in value and name not in optional]:
        raise ValueError(f"{where}: {f'{key}: ' if key else ''}there is no {', '.join(missing)}")
    found = {name: checked(item, known[name], where, _inside(key, name)) for name, item in value.items()}
    if is_typeddict(kind):
        return found
    try:
        return kind(**found)
    except ValueError as e:  # the dataclass checks its own values
        raise ValueError(f"{where}: {f'{key}: ' if key else ''}{e}") from e


def only(value: Mapping[str, Any], known: Collection[str], where: str, key: str = "") -> None:
    """Check that every key of `value` is in `known`.

    Raises UsageError, a ValueError that lists the most similar names, for any other key.
    """
    for name in value:
        if name not in known:
            raise unknown(f"{where}: {f'{key}: ' if key else ''}key", name, known)


def _one_of(value: Any, kinds: Sequence[Any], where: str, key: str) -> Any:
    for kind in sorted(kinds, key=lambda kind: kind is float):  # float last, because it also accepts whole numbers
        plain = get_origin(kind) or kind
        if type(value) is plain or (plain is tuple and type(value) is list) or (plain is float and _is_finite(value)):
            return checked(value, kind, where, key)
    raise _wrong(where, key, " or ".join(map(_words, kinds)), value)


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that is too large for a float
        return False


def _inside(key: str, name: Any) -> str:
    return f"{key}.{name}" if key else str(name)


def _wrong(where: str, key: str, expected: str, given: Any) -> ValueError:
    return ValueError(f"{where}: {f'{key}: ' if key else ''}expected {expected}, got {_described(given)}")


def _words(kind: Any) -> str:
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Annotated, NotRequired):
        ends = [f" >= {limits.least:g}" if limits.most == math.inf else f" from {limits.least:g} to {limits.most:g}"
                for limits in parts[1:]]
        return _words(parts[0]) + "".join(ends)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_words, parts))
    if origin in (list, tuple):
        return "a list"
    return {int: "a whole number", float: "a finite number", bool: "true or false", str: "text",
            types.NoneType: "null"}.get(kind, "keys and values")


def _described(value: Any) -> str:
    """Return the value as text, or the size of a list or dict, which may be nested too deeply to be shown."""
    if isinstance(value, Mapping):
        return f"{len(value)} keys and values"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    shown = repr(value)
    return f"{shown if len(shown) <= 60 else shown[:57] + '...'} ({type(value).__name__})"
