"""Plant known bugs in a function, to learn whether a test finds them.

A test that passes on the right function shows little. `survivors` runs it on wrong ones: what it does not reject, it
does not test.
"""
from __future__ import annotations
import __future__

import ast
import contextlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from types import CodeType, FunctionType
from typing import Any

import numpy as np

Change = tuple[str, str]


class PlantingError(ValueError):
    """A bug does not fit the function; the message says what was expected and found."""


def survivors(test: Callable[..., Any], function: Any, bugs: Mapping[str, Change | Sequence[Change]]) -> list[str]:
    """Return the names of the planted bugs that `test` does not find. For a good test it is empty.

    test: finds a bug by raising an exception or returning False. If it has a parameter without a default, it gets the
        function; otherwise it calls the function by the name it knows. While `test` runs, both are the wrong function.
    function: a function or method written in Python; or a class, in one of whose methods each text is looked for.
    bugs: {name: (old, new)}, or {name: [(old, new), ...]} for several changes at once. Each old text must occur exactly
        once in the source, where white space does not count; see `changed`.

    Raises AssertionError if the test fails, or is skipped, on the function as it is; PlantingError, a ValueError, if a
    bug does not fit the source. An endless loop in a planted bug is not stopped.
    """
    __tracebackhide__ = True  # pytest shows the caller's line and the message
    if why := _failure(test, function):
        raise AssertionError(f"survivors: the test must pass on {_name(function)} as it is, but {why}")
    found = []
    for name, changes in bugs.items():
        pairs = [changes] if isinstance(changes[0], str) else list(changes)
        try:
            with planted(function, *pairs):
                if not _failure(test, function):
                    found.append(name)
        except PlantingError as e:
            raise PlantingError(f"survivors: bug {name!r}: {e}") from None
    return found


def _failure(test: Callable[..., Any], function: Any) -> str:
    """Run the test and return how it failed; "" if it passed."""
    try:
        result = test(function) if _takes_the_function(test) else test()
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as e:  # pytest.fail raises a BaseException
        if type(e).__name__ == "Skipped":
            raise AssertionError(f"survivors: the test was skipped ({e}), so it finds no bug") from None
        return f"it raises {type(e).__name__}: {e}"
    return "it returns False" if isinstance(result, (bool, np.bool_)) and not result else ""


def _takes_the_function(test: Callable[..., Any]) -> bool:
    parameters = inspect.signature(test).parameters.values()
    return any(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


# ------------------------------------------------------------------------------------------------- planting


@contextlib.contextmanager
def planted(function: Any, *changes: Change) -> Iterator[None]:
    """Change the code of `function` inside this context: (old text, new text), ...

    Whoever holds the function, under whatever name, calls the changed code. function: as for `survivors`.

    Raises PlantingError if the source is not available or a change does not fit it.
    """
    target, source = _place(function, changes)
    original = target.__code__
    code = _compiled(target, changed(source, *changes))
    target.__code__ = code
    try:
        yield
    finally:
        target.__code__ = original


def _place(function: Any, changes: Sequence[Change]) -> tuple[FunctionType, str]:
    """Return the function whose code changes, and its source."""
    if isinstance(function, type):
        own = {name: member for name, member in vars(function).items() if isinstance(_plain(member), FunctionType)}
        fitting = [member for member in own.values() if _fits(_source(_plain(member)), changes)]
        if len(fitting) != 1:
            raise PlantingError(f"expected {changes[0][0]!r} exactly once in one method of {function.__name__} "
                          f"({', '.join(own)}), found it in {len(fitting)}")
        function = fitting[0]
    target = _plain(function)
    if not isinstance(target, FunctionType):
        raise PlantingError(f"expected a function or class written in Python, got {type(function).__name__}")
    return target, _source(target)


def _plain(function: Any) -> Any:
    """Return the function without decorators that functools.wraps marks, and without a bound object."""
    function = getattr(function, "__func__", function)
    return inspect.unwrap(function) if callable(function) else function


def _source(function: FunctionType) -> str:
    try:
        return textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        raise PlantingError(f"the source of {function.__name__} is not available") from None


def _name(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _fits(source: str, changes: Sequence[Change]) -> bool:
    return all(len([*_pattern(old).finditer(source)]) == 1 for old, _ in changes)


def _compiled(function: FunctionType, source: str) -> CodeType:
    """Return the code of a changed source. It keeps the variables that the function has from the functions around it.

    The source is compiled inside functions and classes like those around the original, and nothing of it is run.
    """
    node = ast.parse(source).body[0]
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        raise PlantingError(f"expected the source of {function.__name__} to be a def, got {type(node).__name__}")
    node.decorator_list = []
    free = function.__code__.co_freevars
    if free:  # a change may remove the only use of one
        node.body.append(ast.parse(f"if 0: {', '.join(free)},").body[0])
    owner = function.__qualname__.rpartition(".")[0].rpartition(".")[2]
    in_class = bool(owner) and owner != "<locals>"
    text = f"def around({', '.join(name for name in free if name != '__class__')}):\n"
    around: Any = ast.parse(text + (f" class {owner}:\n  pass" if in_class else " pass"))
    (around.body[0].body[0] if in_class else around.body[0]).body = [node]
    flags = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names
                if function.__code__.co_flags & getattr(__future__, name).compiler_flag)
    code: CodeType = compile(ast.fix_missing_locations(around), f"<a bug in {function.__name__}>", "exec", flags,
                             dont_inherit=True)
    for name in ["around", *([owner] if in_class else []), node.name]:
        code = next(c for c in code.co_consts if isinstance(c, CodeType) and c.co_name == name)
    if code.co_freevars != free:
        raise PlantingError(f"the changed {function.__name__} uses other variables of the functions around it")
    return code


# ------------------------------------------------------------------------------------------- changing text


def changed(source: str, *changes: Change, indent: bool = False) -> str:
    """Return a source text with every old text replaced by its new text.

    White space in an old text matches any white space, also none next to a sign; words are matched whole. Each old text
    must occur exactly once when its turn comes, and the syntax tree must change.

    indent: indent the lines of a new text after its first like the line that they are put into

    Raises PlantingError if one of these does not hold, or if the result is not valid Python.
    """
    text = source
    for old, new in changes:
        places = list(_pattern(old).finditer(text))
        if len(places) != 1:
            raise PlantingError(f"expected {old!r} exactly once, found it {len(places)} times in\n{text}")
        (place,) = places
        new = new.strip()
        if indent:
            line = text[text.rfind("\n", 0, place.start()) + 1:]
            new = new.replace("\n", "\n" + line[:len(line) - len(line.lstrip())])
        text = text[:place.start()] + new + text[place.end():]
    try:
        if ast.dump(ast.parse(text)) == ast.dump(ast.parse(source)):
            raise PlantingError(f"{list(changes)} change nothing in\n{source}")
    except SyntaxError as e:
        raise PlantingError(f"after {list(changes)} the text is not valid Python: {e.msg}, in\n{text}") from None
    return text


_WORD = re.compile(r"\w+|[^\w\s]")


@cache
def _pattern(old: str) -> re.Pattern[str]:
    """Return a pattern that matches the text whatever its white space."""
    words = _WORD.findall(old)
    if not words:
        raise PlantingError("expected an old text that is not empty")
    pattern = r"(?<!\w)" if _is_word(words[0]) else ""
    for before, word in zip(["", *words], words, strict=False):
        between = r"\s+" if _is_word(before) and _is_word(word) else r"\s*"
        pattern += (between if before else "") + re.escape(word)
    return re.compile(pattern + (r"(?!\w)" if _is_word(words[-1]) else ""))


def _is_word(token: str) -> bool:
    return bool(re.match(r"\w", token))
