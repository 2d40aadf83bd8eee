"""Read untrusted pickles without running the code that they name.

A pickle is a program: it may name any callable of any module and call it with any arguments. CIFAR's python batches
and PyTorch's files are pickles. Reading a pickle with this module calls only what the caller of `read` allows.

A pickle can also build far more than it holds. One byte makes a list of 56 bytes, and a few bytes hand a long list to
one more call. So each operation is charged with the memory that it may take, and a pickle has a limit.
"""
from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO, ClassVar

Allowed = Mapping[tuple[str, str], Any]      # {(module, name) as written in the pickle: its stand-in here}
Explained = Mapping[tuple[str, str], str]    # {(module, name) that is not allowed: what the error says}

MOST_BYTES = 100 << 20   # of a pickle; those of PyTorch's files hold no numbers and are seldom larger than a megabyte
FREE_MEMORY = 64 << 20   # bytes of memory that every pickle may take; 14,000 tensors of one number are charged 70 MB
MEMORY = 8               # bytes of memory that a pickle may take beside that for each byte of its file
ITEMS = 4                # items that all calls together may be passed for each byte of the pickle, and 1000 more
SHOWN = 200              # how many characters of a name or a message from the file an error shows

# Bytes of memory charged for an operation; more than CPython takes. The contents of text and bytes are not charged,
# because they take at most four times their bytes in the file.
SCALAR, CONTAINER, CALL, ARGUMENT, ITEM = 64, 128, 512, 16, 128


class Refused(ValueError):
    """The pickle names something that is not allowed, or it is damaged or incomplete."""


def check_keys(keys: Iterable[Any]) -> None:
    """Check that every key of a dict is text, bytes, a number or None.

    Stand-ins that fill a dict themselves call this function first. Hashing a tuple also hashes every tuple inside it,
    so 200 bytes of nested tuples could hang the process and a megabyte could crash it. Huge numbers can be chosen so
    that all have the same hash, which makes the dict slow.

    Raises Refused for a key of another type, and for a number of more than 60 bits.
    """
    for key in keys:
        if type(key) not in (str, bytes, int, float, bool, type(None)):
            raise Refused(f"it has a {type(key).__name__} as a key, where text or a number was expected")
        if type(key) in (int, float) and not -2**60 < key < 2**60:
            raise Refused("it has a number of more than 60 bits as a key")


def ordered_dict() -> type[dict[Any, Any]]:
    """Return a new class that stands in for collections.OrderedDict: one for each pickle, which may change it.

    Python 2 calls it with a list of pairs. PyTorch sets an attribute of it, `_metadata`, which is not needed.
    """
    class Ordered(dict[Any, Any]):
        def __init__(self, items: Any = ()):
            super().__init__()
            if not isinstance(items, (list, tuple, dict)):
                raise Refused(f"it makes a dict of a {type(items).__name__}")
            for key, value in items.items() if isinstance(items, dict) else items:
                check_keys([key])
                self[key] = value

        def __setstate__(self, state: Any) -> None: pass

    return Ordered


_InPython: Any = pickle._Unpickler
_NOT_READ = {getattr(pickle, name)[0]: name for name in (
    "EXT1", "EXT2", "EXT4",                              # extensions bypass find_class
    "EMPTY_SET", "ADDITEMS", "FROZENSET", "BYTEARRAY8",  # nothing needs them
    "INST", "OBJ", "NEWOBJ_EX")}                         # further ways to call what the pickle names
_KEYS = {pickle.SETITEM: slice(-2, -1), pickle.SETITEMS: slice(None, None, 2), pickle.DICT: slice(None, None, 2)}
_CONTAINERS = {pickle.MARK, pickle.LIST, pickle.EMPTY_LIST, pickle.DICT, pickle.EMPTY_DICT, pickle.TUPLE, pickle.TUPLE1,
               pickle.TUPLE2, pickle.TUPLE3, pickle.PUT, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE}


def _put(reader: Any) -> None:
    index = int(reader.readline()[:-1])
    if not 0 <= index < 2**32:  # larger numbers can be chosen so that all have the same hash
        raise Refused("it is damaged: its memo has an entry with a number of more than 32 bits")
    reader.memo[index] = reader.stack[-1]


def _reduce(reader: Any) -> None:
    args = reader.stack.pop()
    reader.stack[-1] = reader.called(reader.stack[-1], args)(*args)


def _newobj(reader: Any) -> None:
    args = reader.stack.pop()
    kind = reader.called(reader.stack[-1], args)
    if not isinstance(kind, type):
        raise Refused("it makes an instance of something that is not a class")
    reader.stack[-1] = kind.__new__(kind, *args)


def _build(reader: Any) -> None:
    """Call __setstate__ of the class of an object; the pickle sets no attributes itself."""
    state = reader.stack.pop()
    made = reader.stack[-1]
    set_state = getattr(type(made), "__setstate__", None)
    if set_state is None:
        raise Refused(f"it sets the state of a {type(made).__name__}, which such a file does not need")
    reader.charge_call((state,))
    set_state(made, state)


_OURS = {pickle.PUT: _put, pickle.REDUCE: _reduce, pickle.NEWOBJ: _newobj, pickle.BUILD: _build}


def _charged(op: bytes, load: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return the operation with its charge in front, and for a dict with the check of its keys."""
    cost, keys = CONTAINER if op in _CONTAINERS else SCALAR, _KEYS.get(op)

    def charged(reader):
        reader.left -= cost
        if reader.left < 0:
            reader.charge(0)
        if keys is not None:
            check_keys(reader.stack[keys])
        load(reader)
    return charged


class _Operations(dict[int, Callable[[Any], None]]):
    def __missing__(self, op: int) -> Callable[[Any], None]:
        if op in _NOT_READ:
            raise Refused(f"it has the operation {_NOT_READ[op]}, which such a file does not need")
        raise Refused(f"it is damaged: it has the byte {op:#04x} where an operation of a pickle was expected")


class _Reader(_InPython):  # type: ignore[misc]
    """Extends Python's own reader by the limits of `read`.

    The base is the reader written in Python. The one written in C allocates memory for the highest memo number in the
    file, so that five bytes can cost 16 GB.
    """

    dispatch: ClassVar = _Operations({op: _charged(bytes([op]), _OURS.get(bytes([op]), load))
                                      for op, load in _InPython.dispatch.items() if op not in _NOT_READ})

    def __init__(self, file: BinaryIO, allowed: Allowed, persistent: Callable[[Any], Any] | None, encoding: str,
                 explained: Explained, memory: int | None, most: int):
        bounded = _Bounded(file, most)
        super().__init__(bounded, encoding=encoding)
        self.left = FREE_MEMORY + MEMORY * bounded.size if memory is None else memory
        self.items = 1000 + ITEMS * bounded.size
        self.allowed, self.persistent, self.explained = allowed, persistent, explained
        self.callable = {id(stand_in) for stand_in in allowed.values()}

    def charge(self, memory: int) -> None:
        """Count bytes of memory against the limit."""
        self.left -= memory
        if self.left < 0:
            raise Refused("it builds more than a file of this size needs; reading it would take too much memory")

    def charge_call(self, args: tuple[Any, ...]) -> None:
        """Charge a call with its arguments and with the items of each, because the call may copy them all.

        A pickle can pass one long list to many calls, by reference, in a few bytes each.
        """
        self.charge(CALL + ARGUMENT * len(args))
        self.items -= len(args)
        for arg in args:
            if isinstance(arg, (str, bytes, list, tuple, dict)):
                self.items -= len(arg)
                self.charge(len(arg) * (1 if isinstance(arg, (str, bytes)) else ITEM))
        if self.items < 0:
            raise Refused("it passes more arguments to its calls than a file of this size can hold")

    def called(self, stand_in: Any, args: Any) -> Any:
        """Return the stand-in, after the check that it is one, that its arguments are a tuple, and their charge."""
        if id(stand_in) not in self.callable:
            raise Refused(f"it calls a {type(stand_in).__name__}, which is not a name that it may call")
        if type(args) is not tuple:
            raise Refused(f"it passes a {type(args).__name__} as the arguments of a call, where a tuple was expected")
        self.charge_call(args)
        return stand_in

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.allowed[module, name]
        except KeyError:
            why = self.explained.get((module, name)) or (
                f"it names {module[:SHOWN]}.{name[:SHOWN]}, which such a file does not need; nothing was run")
            raise Refused(why) from None

    def persistent_load(self, pid: Any) -> Any:
        if self.persistent is None:
            raise Refused("it refers to data outside itself, which such a file does not need")
        self.charge_call(pid if type(pid) is tuple else (pid,))
        return self.persistent(pid)


def _byte_array(reader: Any) -> None:
    """Push the numbers of a writable array, which protocol 5 writes as a byte array, as bytes, which nothing changes.
    """
    reader.append(reader.read(int.from_bytes(reader.read(8), "little")))


class _ByteArrays(_Reader):
    """Also reads byte arrays, as bytes."""

    dispatch: ClassVar = _Operations({**_Reader.dispatch,
                                      pickle.BYTEARRAY8[0]: _charged(pickle.BYTEARRAY8, _byte_array)})


class _Bounded:
    """Reads a file from its position on, without reserving memory for bytes that it does not have."""

    def __init__(self, file: BinaryIO, most: int):
        start = file.tell()
        self.file, self.most, self.size = file, most, file.seek(0, os.SEEK_END) - start
        self.left = min(self.size, most)
        file.seek(start)

    def read(self, size: int) -> bytes:
        if size > self.left and self.size > self.most:  # before anything is read
            raise Refused(f"its pickle has more than {self.most} bytes")
        return self._taken(self.file.read(min(size, self.left)))

    def readline(self) -> bytes:
        return self._taken(self.file.readline(self.left))

    def _taken(self, piece: bytes) -> bytes:
        self.left -= len(piece)
        return piece


def read(file: BinaryIO, allowed: Allowed, *, persistent: Callable[[Any], Any] | None = None,
         encoding: str = "ASCII", explained: Explained | None = None, memory: int | None = None,
         most: int = MOST_BYTES, byte_arrays: bool = False) -> Any:
    """Return the object of the pickle that starts at the file's position, and leave `file` after the pickle's end.

    allowed      the names that the pickle may use, each with its stand-in
    persistent   a function from a persistent id to the object outside the pickle that the id refers to
    encoding     of Python 2's strings, as for pickle.load
    explained    for some names that are not allowed, what the error says
    memory       bytes that the objects may take, apart from the contents of text and bytes; if not given, FREE_MEMORY
                 and MEMORY for each byte of the file after its position
    most         bytes that the pickle may have
    byte_arrays  whether to read byte arrays, as bytes; without, they are refused

    Every stand-in must be harmless with ANY arguments, and its time and memory must grow no faster than the length of
    the arguments. A pickle can change the lists and dicts that it has passed: a stand-in that checks something must
    keep the checked values, not the container. A pickle sets the state of an object only through __setstate__ of the
    stand-in's class, and never that of a function or a class.

    Raises Refused, a ValueError without the file's name, if the pickle asks for anything else, builds more than
    `memory`, passes more than ITEMS to its calls, has more than `most` bytes, or is damaged.
    """
    try:
        kind = _ByteArrays if byte_arrays else _Reader
        return kind(file, allowed, persistent, encoding, explained or {}, memory, most).load()
    except Refused:
        raise
    except (MemoryError, RecursionError) as e:
        raise Refused(f"it is damaged: reading it raises {type(e).__name__}") from e
    except Exception as e:  # damaged pickles raise nearly anything: KeyError, TypeError, struct.error, ...
        raise Refused(f"it is damaged: {type(e).__name__}: {str(e)[:SHOWN]}") from e
