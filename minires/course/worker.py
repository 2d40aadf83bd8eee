"""Run one task of a submission and answer with arrays. This file judges nothing.

The judge starts it in a process of its own, `python -I worker.py SETTINGS`, with NumPy and the standard library alone.
The judge imports it as well, for the protocol, and to run the master's solution in the same way.
"""
from __future__ import annotations

import ast
import contextlib
import importlib
import itertools
import json
import linecache
import os
import struct
import sys
import traceback
import types
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np

Space = dict[str, Any]
ALLOWED = {"__future__", "numpy", "math", "itertools", "functools", "collections", "dataclasses", "typing", "operator",
           "contextlib", "copy"}
GIVEN = {"minires", "matplotlib"}  # imports of the given cells, which are left out without a note
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIBRARIES = os.path.dirname(os.__file__), os.path.dirname(os.path.abspath(np.__file__))
TEXT = 500                         # characters of an exception's message that are kept
MOST_FILES = 16                    # opened for writing
NOTES = 20                         # about what was left out of a file, that are kept


class Raised(NamedTuple):
    """What happened instead of arrays."""

    error: str       # the exception's type, or "Missing" for a name that is not defined
    text: str        # its message
    place: str = ""  # "cell 7, line 3: x -= mean"


Outcome = dict[str, np.ndarray] | Raised


# ---------------------------------------------------------------------------------- what counts of a file


class NotHere(NameError):
    """A submission uses a name that this task cannot have."""


class Absent:
    """Absent stands for a name that a submission imports and cannot have here. It raises when it is used."""

    def __init__(self, name: str) -> None:
        self.__dict__["_name"] = name

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise NotHere(f"{self.__dict__['_name']} is not available to this task where it is marked")

    __call__ = __getattr__ = __setattr__ = __mro_entries__ = __getitem__ = _refuse


def _parsed(source: str) -> tuple[str, list[ast.stmt]]:
    """Return a cell's source and its statements. If it is not Python, its lines for Jupyter (%, !) are left out.

    Raises what ast.parse raises.
    """
    try:
        return source, ast.parse(source).body
    except SyntaxError:
        text = "\n".join("" if line.lstrip()[:1] in ("%", "!") else line for line in source.split("\n"))
        return text, ast.parse(text).body


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
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # for example an escape sequence that does not exist
                text, body = _parsed(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
            where = f", line {e.lineno}" if isinstance(e, SyntaxError) and e.lineno else ""
            notes.append(f"{cell}{where}: this cell is not valid Python and was left out ({getattr(e, 'msg', e)})")
            continue
        file = f"<{cell}>"
        linecache.cache[file] = len(text), None, text.splitlines(True), file
        for node in body:
            try:
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    notes += _imported(node, cell, space, modules)
                elif counts(node):
                    exec(compile(ast.Module([node], []), file, "exec"), space)
            except NotHere:  # a class of another task of the same file
                continue
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


# ------------------------------------------------------------------------------------------------ protocol

# A message is two lengths, a JSON head and the arrays' bytes. The head lists the type and shape of every array, so that
# nothing is allocated because a message says so, and nothing is unpickled.
LARGEST_HEAD, LARGEST_BODY = 1 << 20, 1 << 26
KINDS = "biufc"


class NoAnswer(Exception):
    """The bytes that arrived are not a message."""


def message(head: dict[str, Any], arrays: Sequence[np.ndarray] = ()) -> bytes:
    """Return the bytes of a message."""
    arrays = [np.ascontiguousarray(array).reshape(array.shape) for array in arrays]
    listed = [[array.dtype.str, list(array.shape)] for array in arrays]
    text = json.dumps({**head, "arrays": listed}).encode()
    body = b"".join(array.tobytes() for array in arrays)
    return struct.pack(">II", len(text), len(body)) + text + body


def next_message(stream: BinaryIO) -> tuple[dict[str, Any], list[np.ndarray]] | None:
    """Read one message. Return None at the end of the stream. Raise NoAnswer if the bytes are something else."""
    lengths = stream.read(8)
    if len(lengths) < 8:
        return None
    size, more = struct.unpack(">II", lengths)
    if size > LARGEST_HEAD or more > LARGEST_BODY:
        raise NoAnswer
    text, body = stream.read(size), stream.read(more)
    if len(text) < size or len(body) < more:
        return None
    try:
        head, arrays, at = json.loads(text), [], 0
        for code, shape in head["arrays"]:
            dtype = np.dtype(code)
            if dtype.kind not in KINDS or not all(type(n) is int and n >= 0 for n in shape):
                raise NoAnswer
            count = 1
            for n in shape:
                count *= n
            arrays.append(np.frombuffer(body, dtype, count, at).reshape(shape) if count else np.empty(shape, dtype))
            at += count * dtype.itemsize
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError, MemoryError):
        raise NoAnswer from None
    return head, arrays


def packed(value: Any, arrays: list[np.ndarray]) -> Any:
    """Return an input as JSON, and append its arrays to the list."""
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, np.generic):
        arrays.append(np.asarray(value))
        return {"scalar": len(arrays) - 1}
    if isinstance(value, (tuple, list)):
        return {type(value).__name__: [packed(part, arrays) for part in value]}
    if isinstance(value, dict):
        return {"dict": [[packed(key, arrays), packed(part, arrays)] for key, part in value.items()]}
    if isinstance(value, slice):
        return {"slice": [packed(part, arrays) for part in (value.start, value.stop, value.step)]}
    if value is Ellipsis:
        return {"ellipsis": 0}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a case's inputs may hold arrays, numbers, text, None, lists, tuples, slices and dictionaries, "
                    f"not {type(value).__name__}")


def unpacked(value: Any, arrays: Sequence[np.ndarray]) -> Any:
    """Return the input that `packed` has made JSON of."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "array":
        return arrays[content]
    if kind == "scalar":
        return arrays[content][()]
    if kind == "ellipsis":
        return Ellipsis
    if kind == "dict":
        return {unpacked(key, arrays): unpacked(part, arrays) for key, part in content}
    parts = [unpacked(part, arrays) for part in content]
    return tuple(parts) if kind == "tuple" else slice(*parts) if kind == "slice" else parts


# --------------------------------------------------------------------------------------------- the process

# Rooms of minires that a submission may load. They are loaded before the guard, which refuses to read their files.
ROOMS = ("nn", "ops", "init", "optim", "models", "train", "tap", "evaluate", "weights", "analysis")
FORBIDDEN = ("torch", "jax", "scipy", "tensorflow", "cupy", "autograd", "numba", "sklearn", "minires.course")
# Modules that start processes, make an interpreter without the guard, or open files without an audit event.
UNGUARDED = ("_posixsubprocess", "multiprocessing", "_multiprocessing", "_posixshmem", "_xxsubinterpreters",
             "_interpreters", "_interpchannels", "_interpqueues", "_xxinterpchannels", "concurrent.interpreters",
             "_testcapi", "_testinternalcapi", "_testlimitedcapi", "_testmultiphase", "_ctypes", "_ctypes_test", "cffi",
             "_cffi_backend", "sqlite3", "_sqlite3", "dbm", "_dbm", "_gdbm", "readline", "_curses", "_tkinter", "pty")
# What `disarm` removes, because it raises no audit event.
REMOVED = {"os": ("pidfd_open", "setpriority", "mkfifo", "mknod", "sched_setaffinity", "sched_setscheduler",
                  "sched_setparam", "setns", "unshare", "openpty", "posix_openpt"),
           "signal": ("pidfd_send_signal",), "subprocess": ("_fork_exec",), "_imp": ("create_builtin",),
           "ctypes": ("memmove", "memset", "CFUNCTYPE", "PYFUNCTYPE", "_CFuncPtr", "_c_functype_cache", "CDLL", "PyDLL",
                      "cdll", "pydll", "pythonapi", "LibraryLoader")}
CORE = {"os": ("posix", "nt"), "signal": ("_signal",)}  # these have their functions from built-in modules
REFUSED = {"subprocess.Popen", "os.system", "os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn",
           "os.startfile", "os.kill", "os.killpg", "signal.pthread_kill", "pty.spawn", "resource.setrlimit",
           "resource.prlimit", "shutil.rmtree", "os.setxattr", "os.removexattr", "os.chroot", "os.chown", "os.putenv",
           "os.link", "os.symlink", "os.mkdir", "gc.get_objects", "gc.get_referrers", "gc.get_referents",
           "sys.settrace", "sys.setprofile", "sys._current_frames", "sys._current_exceptions", "sys.addaudithook",
           "syslog.syslog", "cpython._PySys_ClearAuditHooks"}
PLACES = {"os.remove", "os.rename", "os.rmdir", "os.chmod", "os.truncate", "os.utime", "os.listdir",
          "os.scandir", "os.chdir", "shutil.move", "shutil.copyfile", "shutil.copytree"}
LISTS = {"os.listdir", "os.scandir"}  # an import lists the folders that it searches


def resolver() -> Callable[[str], str]:
    """Return a function that makes a path absolute and follows its symbolic links, as os.path.realpath does.

    It uses no name that a submission can replace: neither a global one, nor a built-in one, nor a closure.
    """
    if os.name != "posix":
        return os.path.realpath
    posix = importlib.import_module("posix")

    def resolved(path: str, readlink: Any = posix.readlink, cwd: Any = posix.getcwd, error: Any = OSError) -> str:
        left = path.split("/")[::-1] if path[:1] == "/" else path.split("/")[::-1] + cwd().split("/")[::-1]
        found, links = "", 0
        while left:
            part = left.pop()
            if part == "..":
                found = found.rpartition("/")[0]
            elif part and part != ".":
                found += "/" + part
                try:
                    target = readlink(found)
                except error:  # not a link, or not there
                    continue
                links += 1
                if links > 40:
                    return "/"
                found = "" if target[:1] == "/" else found.rpartition("/")[0]
                left += target.split("/")[::-1]
        return found or "/"
    return resolved


def guard(folder: str, readable: Sequence[str], closed: Sequence[str], forbidden: Sequence[str]) -> \
        Callable[[str, tuple[Any, ...]], None]:
    """Return an audit hook, which raises PermissionError or ImportError for what a task may not do.

    folder: the only one whose files may be written
    readable: folders whose files may be read and listed besides
    closed: folders whose Python files and notebooks may not be read, wherever they are
    forbidden: modules that may not be imported

    The submission can see the frame of the hook, in the traceback of an error that the hook raises, and can replace
    built-in functions. So everything that the hook uses is an argument with an immutable default.
    """
    def below(places: Iterable[str]) -> tuple[tuple[str, str], ...]:
        return tuple((place, place.rstrip(os.sep) + os.sep) for place in places)

    mine, known, shut = below([os.path.realpath(folder)]), below(readable), below(closed)
    modules = tuple((name, name + ".") for name in forbidden)
    write = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    follow, no_path = resolver(), (int, tuple, float, type(None))
    opened = itertools.count(1).__next__  # a submission that finds it can only raise the number

    def hook(event: str, args: Any, mine: Any = mine, known: Any = known, shut: Any = shut, modules: Any = modules,
             refused: Any = frozenset(REFUSED), places: Any = frozenset(PLACES), lists: Any = frozenset(LISTS),
             null: Any = (os.devnull, "/dev/urandom"), suffixes: Any = (".py", ".pyc", ".ipynb"), write: Any = write,
             follow: Any = follow, no_path: Any = no_path, separator: Any = os.sep, isinstance: Any = isinstance,
             type: Any = type, str: Any = str, bytes: Any = bytes, denied: Any = PermissionError,
             no_import: Any = ImportError, opened: Any = opened, most: Any = MOST_FILES) -> None:
        if event in refused or event.startswith(("socket.", "ctypes.")):
            raise denied(f"a task may not use {event}")
        if event == "object.__setattr__" and args[0] is follow:
            raise denied("a task may not change the judge's functions")
        if event == "import" and isinstance(args[0], str):
            name = str.__str__(args[0])
            for module, start in modules:
                if name == module or name.startswith(start):
                    raise no_import(f"this task may not import {name}")
        if event != "open" and event not in places:
            return
        for given in args[:1] if event == "open" else args:
            if type(given) in no_path:  # a descriptor, or a time
                continue
            if isinstance(given, bytes):
                given = bytes.decode(given, "utf-8", "surrogateescape")
            elif not isinstance(given, str):
                raise denied(f"a task may not use {event} with a path that is not text")
            given = str.__str__(given)  # a subclass can lie
            path, inside, readable, closed = follow(given), False, False, False
            for place, start in mine:
                inside = inside or path == place or path.startswith(start)
            for place, start in known:
                readable = readable or path == place or path.startswith(start)
            for place, start in shut:
                closed = closed or path == place or path.startswith(start)
            if event in lists:
                allowed = inside or readable
            else:  # after dir_fd=, of which the hook is not told, ".." could lead outside
                allowed = inside and ".." not in given.split(separator)
            if event != "open":
                if not allowed:
                    raise denied(f"a task may not use {event} outside its own folder")
                continue
            writes = args[2] & write or (args[1] is not None and args[1].strip("rbtU"))
            if writes and inside and opened() > most:
                raise denied(f"a task may not open more than {most} files for writing")
            if not inside and path not in null:
                if writes:
                    raise denied("a task may not write outside its own folder")
                if closed and path.endswith(suffixes):
                    raise denied("a task may not read the files of minires")
                if not readable or args[1] is None:  # os.open, which could open a folder
                    raise denied("a task may not read outside its own folder")
            elif args[1] is None and not allowed and path not in null:
                raise denied("a task may not read outside its own folder")
    return hook


def disarm() -> None:
    """Remove functions that end or slow down other processes, or make what the guard refuses, without an audit event.

    What is removed could be had again from a second copy of a module that is built in. So all of these are loaded, and
    none can be loaded again.
    """
    for name in sorted({*sys.builtin_module_names, "os", "signal"} - set(UNGUARDED)):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for name, functions in REMOVED.items():
        for module in (sys.modules.get(one) for one in (name, *CORE.get(name, ()))):
            for function in functions:
                if module is not None and hasattr(module, function):
                    delattr(module, function)
    for name in list(sys.modules):
        if any(name == one or name.startswith(one + ".") for one in UNGUARDED):
            del sys.modules[name]


def limit(settings: dict[str, Any]) -> None:
    """Set this process' limits of computing time, memory and file sizes, as far as the system has them."""
    try:
        import resource
    except ImportError:  # Windows
        return
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    seconds = int(used + settings["cpu"] + 0.999)
    for name, soft, hard in (("RLIMIT_CPU", seconds, seconds + 2), ("RLIMIT_AS", settings["memory"], None),
                             ("RLIMIT_FSIZE", settings["file"], None), ("RLIMIT_CORE", 0, None)):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # macOS does not limit the memory
            resource.setrlimit(getattr(resource, name), (soft, soft if hard is None else hard))


def load_drivers(settings: dict[str, Any]) -> tuple[Any, set[str]]:
    """Load the drivers and, if the task allows it, minires without what is withheld.

    Return (the module of the drivers, what a submission may import besides ALLOWED).
    """
    allowed = set()
    for module in "fft", "polynomial", "random":  # NumPy loads them at first use, which the guard would refuse
        importlib.import_module(f"numpy.{module}")
    if settings["minires"]:
        package = importlib.import_module("minires")
        for room in ROOMS:
            importlib.import_module(f"minires.{room}")
        allowed.add("minires")
    else:
        package = types.ModuleType("minires")
        package.__path__ = []
        sys.modules["minires"] = package
    course = types.ModuleType("minires.course")  # without the code of __init__.py
    course.__path__ = [settings["course"]]
    sys.modules["minires.course"] = course
    drivers = importlib.import_module(f"minires.course.{settings['drivers']}")
    course.__path__ = []
    if settings["minires"]:
        withhold(settings["withheld"])
    else:
        given = getattr(drivers, "MINIRES", {})
        vars(package).update(given)
        allowed |= {"minires"} if given else set()
    return drivers, allowed


def withhold(names: Sequence[str]) -> None:
    """Delete modules, and classes and functions wherever minires has them: "residual", "nn.ResidualBlock".

    Their functions also raise when they are called, because a deleted class can still be found, for example among
    `nn.Module.__subclasses__()`.

    Raises AttributeError if there is no such name.
    """
    owners = [module for name, module in list(sys.modules.items()) if name.split(".")[0] == "minires" and module]
    for name in names:
        what = sys.modules["minires"]
        for part in name.split("."):
            what = getattr(what, part)
        if not isinstance(what, types.ModuleType):
            disable(what, name)
        else:  # also the modules of a package
            for one in [one for one in sys.modules if one == what.__name__ or one.startswith(f"{what.__name__}.")]:
                disable(sys.modules[one], name)
                sys.modules[one] = None  # type: ignore[assignment]
        for owner in owners:
            for key in [key for key, value in vars(owner).items() if value is what]:
                delattr(owner, key)


def disable(what: Any, name: str) -> None:
    """Replace the code of a function, of a class' methods, or of all functions and classes that a module defines."""
    if isinstance(what, types.ModuleType):
        parts = [part for part in vars(what).values() if getattr(part, "__module__", None) == what.__name__]
    elif isinstance(what, type):
        parts = [getattr(part, "fget", None) or getattr(part, "__func__", part) for part in vars(what).values()]
    else:
        parts = []
    for part in parts:
        disable(part, name)
    inner = getattr(what, "__wrapped__", None)  # of functools.cache and contextlib.contextmanager
    if isinstance(inner, types.FunctionType):
        disable(inner, name)
    if isinstance(what, types.FunctionType):
        what.__code__ = refusing(name, what.__code__.co_freevars)


def refusing(name: str, closure: Sequence[str]) -> types.CodeType:
    """Return the code of a function that raises NameError. It has the same closure as the code that it replaces."""
    space: dict[str, Any] = {}
    exec(f"def outer({', '.join(closure)}):\n"
         f"    def refuse(*args, **kwargs):\n"
         f"        raise NameError({name + ' is not available to this task'!r}) from None\n"
         f"        return {', '.join(closure) or None}\n"
         f"    return refuse\n", space)
    code: types.CodeType = space["outer"](*closure).__code__
    return code


def main() -> None:
    """Answer the judge's messages until it closes the pipe."""
    settings = json.loads(sys.argv[1])
    sys.path += settings["paths"]
    inputs, outputs = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null, log = os.open(os.devnull, os.O_RDWR), os.open("stdout.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for at, to in (0, null), (1, log), (2, log):  # print() goes to a file
        os.dup2(to, at)
    drivers, allowed = load_drivers(settings)
    exit_now, write = os._exit, outputs.write

    def send(kind: str, arrays: Sequence[np.ndarray] = (), **head: Any) -> None:
        write(message({"kind": kind, **head}, arrays))
        outputs.flush()

    send("hello")  # Python, NumPy and the drivers are loaded; the limits count from here
    received = next_message(inputs)
    if received is None:
        exit_now(0)
        return
    limit(settings)
    readable = [os.path.realpath(path) for path in settings["readable"]]
    closed = [os.path.realpath(path) for path in settings["closed"]]
    disarm()
    sys.addaudithook(guard(os.getcwd(), readable, closed, (*FORBIDDEN, *UNGUARDED, *itertools.chain(*CORE.values()))))
    space: Space = {"__name__": "submission"}
    try:
        notes = define(received[0]["cells"], space, allowed)
    except BaseException as e:
        notes = [f"the file could not be read to its end: {type(e).__name__}: {str(e)[:TEXT]}"]
    send("ready", notes=[note[:TEXT] for note in notes[:NOTES]])
    while (received := next_message(inputs)) is not None:
        head, arrays = received
        outcome = run(found(drivers, head["driver"]), space, settings["needs"], unpacked(head["inputs"], arrays))
        with contextlib.suppress(Exception):  # the submission may have replaced or filled it
            sys.stdout.flush()
        if isinstance(outcome, Raised):
            send("raised", error=outcome.error, text=outcome.text, place=outcome.place)
        else:
            send("values", list(outcome.values()), names=list(outcome))
    sys.stdout.flush()
    exit_now(0)


if __name__ == "__main__":
    main()
