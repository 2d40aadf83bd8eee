"""Run one task of a submission and answer with arrays. This file judges nothing.

The judge starts it in a process of its own, `python -I worker.py SETTINGS`, with NumPy and the standard library alone.
The judge imports it as well, for the protocol, and to run the master's solution in the same way.
"""
from __future__ import annotations

import ast
import linecache
import os
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

Space = dict[str, Any]
ALLOWED = {"__future__", "numpy", "math", "itertools", "functools", "collections", "dataclasses", "typing", "operator",
           "contextlib", "copy"}
GIVEN = {"minires", "matplotlib"}  # imports of the given cells, which are left out without a note
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIBRARIES = os.path.dirname(os.__file__), os.path.dirname(os.path.abspath(np.__file__))
TEXT = 500                         # characters of an exception's message that are kept


class Raised(NamedTuple):
    """What happened instead of arrays."""

    error: str       # the exception's type, or "Missing" for a name that is not defined
    text: str        # its message
    place: str = ""  # "cell 7, line 3: x -= mean"


Outcome = dict[str, np.ndarray] | Raised


# ---------------------------------------------------------------------------------- what counts of a file


class Absent:
    """Absent stands for a name that a submission imports and cannot have here. It raises when it is used."""

    def __init__(self, name: str) -> None:
        self.__dict__["_name"] = name

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise NameError(f"{self.__dict__['_name']} is not available to this task where it is marked")

    __call__ = __getattr__ = __setattr__ = __mro_entries__ = __getitem__ = _refuse


def define(cells: Iterable[tuple[str, str]], space: Space, allowed: Iterable[str] = ()) -> list[str]:
    """Define in `space` what counts of a file, and return notes about what was left out.

    cells: (the cell's name, its source), in order
    allowed: modules that may be imported besides ALLOWED

    Imports, functions, classes, and assignments without calls count. A later definition replaces an earlier one. A cell
    that cannot be parsed and a statement that raises are noted and skipped.
    """
    notes: list[str] = []
    modules = ALLOWED | set(allowed)
    for cell, source in cells:
        text = "\n".join("" if line.lstrip()[:1] in ("%", "!") else line for line in source.split("\n"))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # for example an escape sequence that does not exist
                body = ast.parse(text).body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
            where = f", line {e.lineno}" if isinstance(e, SyntaxError) and e.lineno else ""
            notes.append(f"{cell}{where}: this cell is no valid Python and was left out ({getattr(e, 'msg', e)})")
            continue
        file = f"<{cell}>"
        linecache.cache[file] = len(text), None, text.splitlines(True), file
        for node in body:
            try:
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    notes += _imported(node, cell, space, modules)
                elif counts(node):
                    exec(compile(ast.Module([node], []), file, "exec"), space)
            except Exception as e:
                notes.append(f"{cell}, line {node.lineno}: {type(e).__name__}: {str(e)[:TEXT]}")
    return notes


def counts(node: ast.stmt) -> bool:
    """Return whether a statement counts: a function, a class, or an assignment without a call outside a lambda."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return True
    return isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None and not _calls(node.value)


def _calls(node: ast.AST) -> bool:
    if isinstance(node, ast.Lambda):
        return False
    return isinstance(node, (ast.Call, ast.Await)) or any(map(_calls, ast.iter_child_nodes(node)))


def _imported(node: ast.Import | ast.ImportFrom, cell: str, space: Space, modules: set[str]) -> list[str]:
    """Carry out one import, name by name. What is not allowed becomes Absent; return a note if the student wrote it."""
    notes = []
    for alias in node.names:
        module = alias.name if isinstance(node, ast.Import) else "." * node.level + (node.module or "")
        package = module.partition(".")[0]
        one = ast.Import([alias]) if isinstance(node, ast.Import) else ast.ImportFrom(node.module, [alias], node.level)
        try:
            if package not in modules or f"{module}.".startswith("minires.course."):
                raise ImportError(f"{module} is not among the modules that count: {', '.join(sorted(modules))}")
            code = ast.fix_missing_locations(ast.Module([ast.copy_location(one, node)], []))
            exec(compile(code, f"<{cell}>", "exec"), space)
        except ImportError as e:
            if alias.name != "*":
                name = alias.asname or alias.name.partition(".")[0]
                space[name] = Absent(name)
            if package not in GIVEN:
                notes.append(f"{cell}, line {node.lineno}: the import of {module} was left out ({str(e)[:TEXT]})")
    return notes


# ----------------------------------------------------------------------------------------- one case


def run(driver: Callable[..., dict[str, Any]], space: Space, needs: Sequence[str], inputs: dict[str, Any]) -> Outcome:
    """Exercise the names `needs` of a submission with a driver, and return its arrays, or what happened instead.

    The driver gets copies of the inputs, which are read-only.
    """
    missing = [name for name in needs if name not in space]
    if missing:
        return Raised("Missing", f"{' and '.join(missing)} is not defined" if len(missing) == 1 else
                      f"{', '.join(missing)} are not defined")
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answered = driver({name: space[name] for name in needs}, **protected(inputs))
            return {name: plain(name, value) for name, value in answered.items()}
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as e:  # SystemExit too
        return raised(e)


def plain(name: str, value: Any) -> np.ndarray:
    """Return a copy of an answer as a plain array of numbers. Raise TypeError if the answer is something else."""
    try:
        array = np.array(value, subok=False)
    except ValueError:
        array = np.array(None, object)
    if array.dtype.kind not in "biufc":
        raise TypeError(f"{name}: expected an array of numbers, got {type(value).__name__}")
    return array


def protected(value: Any) -> Any:
    """Return a copy whose arrays are read-only."""
    if isinstance(value, dict):
        return {name: protected(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(protected, value))
    if isinstance(value, np.ndarray):
        value = value.copy(order="K")
        value.setflags(write=False)
    return value


def raised(e: BaseException) -> Raised:
    """Describe an exception: its type, its message, and the submission's line."""
    frames = [f for f in traceback.extract_tb(e.__traceback__) if _of_the_submission(f.filename)]
    place = ""
    if frames:
        last = frames[-1]
        where = last.filename[1:-1] if last.filename.startswith("<") else last.name
        place = f"{where}, line {last.lineno}: {last.line}"
    return Raised(type(e).__name__, str(e)[:TEXT], place[:TEXT])


def _of_the_submission(file: str) -> bool:
    """Return whether a frame's file is a cell or a file of the student, not of minires, NumPy or Python."""
    if file.startswith("<"):
        return file.startswith(("<cell", "<ipython"))
    return not file.startswith((PACKAGE, *LIBRARIES)) and "site-packages" not in file


def found(module: Any, name: str) -> Callable[..., dict[str, Any]]:
    """Return the driver `name` of a module of drivers: "batch_norm", or "batch_norm.twice" for an attribute."""
    for part in name.split("."):
        module = getattr(module, part)
    driver: Callable[..., dict[str, Any]] = module
    return driver
