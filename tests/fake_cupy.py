"""This module is a strict stand-in for CuPy on NumPy arrays, so that every test run covers the code for the GPU.

It has only the names and signatures of CuPy 14.2 (cupy_names.json). Where CuPy differs from NumPy, the stand-in behaves
like CuPy or is stricter:

- Only asarray and array accept a NumPy array.
- Results of operations are C-contiguous, and sums are 0-d arrays.
- An index out of range wraps around.
- Of several assignments to one element, a random one wins.
- New memory holds NaN.

It counts how often the host waits for the device. g++ compiles a RawModule, and its kernels run (cuda_on_cpu.h). A
capturing stream computes nothing but records a tape, and the launch of a graph replays the tape.

The stand-in cannot show the numerics of the device's library functions, memory errors, or speed.
"""
import contextlib
import ctypes
import functools
import hashlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

import numpy as np
from once import made_once

HERE = Path(__file__).resolve().parent
NAMES = json.loads((HERE / "cupy_names.json").read_text(encoding="utf-8"))
CAPTURE_ERROR = "is not permitted while a stream captures"


class State:
    """State holds the counters and the behaviour of the stand-in, for the whole process. `make` resets it."""

    syncs = 0          # how often the host waited for the device
    launches = 0       # kernels and operations sent to the device
    tape = None        # a list while a stream captures
    kept = ()          # memory requested since the capture began, which the pool of the graph keeps
    order = "C"        # memory order of results; "K" is NumPy's order, for results with the same bits as NumPy's
    seed = 0           # seed of the order of blocks and threads
    rng = np.random.default_rng(0)


@functools.cache
def signature(owner, name):
    """Return the parameters of a CuPy function as an inspect.Signature, or None if only the name is known."""
    text = NAMES[owner][name]
    if text in ("", "ufunc"):
        return None
    made = {}
    exec(f"def f{text}: pass", made)
    return inspect.signature(made["f"])


def known(owner, name):
    if name not in NAMES[owner]:
        raise AttributeError(f"CuPy {NAMES['version']}: {owner} has no attribute {name!r}")


def sync():
    if State.tape is not None:
        raise RuntimeError(f"waiting for the device {CAPTURE_ERROR}")
    State.syncs += 1


def unwrap(value):
    """Return the arguments of a call with the NumPy arrays inside. Raises TypeError for an array not on the device."""
    if isinstance(value, ndarray):
        return value._a
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}: a NumPy array where a CuPy array was expected")
    if isinstance(value, (tuple, list)):
        return type(value)(unwrap(v) for v in value)
    return value


def wrap(value):
    if isinstance(value, (np.ndarray, np.generic)):
        return ndarray(np.asarray(value))
    if isinstance(value, (tuple, list)):
        return type(value)(wrap(v) for v in value)
    return value


def arrays_in(value):
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, (tuple, list)):
        for v in value:
            yield from arrays_in(v)
    elif isinstance(value, dict):
        yield from arrays_in(list(value.values()))


def poison(a):
    """Fill an array with what unwritten memory holds."""
    if a.dtype.kind in "fc" and a.size:
        a[...] = np.nan
    return a


def bind(owner, name, *args, **kwargs):
    """Raise TypeError for arguments that the CuPy function of this name would refuse."""
    known(owner, name)
    if (found := signature(owner, name)) is not None:
        try:
            found.bind(*args, **kwargs)
        except TypeError as e:
            raise TypeError(f"CuPy {NAMES['version']}: {owner}.{name}{found}: {e}") from None


def run(f, *args, **kwargs):
    """Run f on NumPy arrays. While a stream captures, new results are only allocated; every replay computes them."""
    args, kwargs = unwrap(args), {k: unwrap(v) for k, v in kwargs.items()}
    inputs = [*arrays_in(args), *arrays_in(kwargs)]
    with np.errstate(all="ignore"):
        result = f(*args, **kwargs)
    fresh = not any(np.may_share_memory(r, i) for r in arrays_in([result]) for i in inputs)
    if not fresh:
        return wrap(result)
    State.launches += 1
    result = settle(result)
    if State.tape is not None:
        def again():
            with np.errstate(all="ignore"):
                for old, new in zip(arrays_in([result]), arrays_in([settle(f(*args, **kwargs))]), strict=True):
                    old[...] = new
        State.tape.append(again)
        for a in arrays_in([result]):
            poison(a)
    return wrap(result)


def settle(value):
    """Return results in CuPy's memory order."""
    if isinstance(value, (tuple, list)):
        return type(value)(settle(v) for v in value)
    if isinstance(value, (np.ndarray, np.generic)):
        return np.array(value, order=State.order)
    return value


def change(f, *args):
    """Run an f that changes an array in place: now, or at every replay while a stream captures."""
    State.launches += 1
    args = unwrap(args)

    def again():
        with np.errstate(all="ignore"):
            f(*args)
    if State.tape is None:
        again()
    else:
        State.tape.append(again)


def index(key, shape):
    """Return `key` with every integer array wrapped around the axis that it indexes, because CuPy does not raise."""
    parts = list(key) if isinstance(key, tuple) else [key]
    if any(isinstance(p, (list, np.ndarray)) for p in parts):
        raise TypeError("Unsupported index: a list or a NumPy array, which would be copied to the device")
    masks = [isinstance(p, ndarray) and p.dtype == bool for p in parts]
    spans = [0 if p is None or p is Ellipsis else p.ndim if mask else 1 for p, mask in zip(parts, masks, strict=True)]
    axis, made = 0, []
    for p, mask, span in zip(parts, masks, spans, strict=True):
        if mask:
            sync()  # the size of the result depends on the values
        made.append(p._a if mask else p._a % shape[axis] if isinstance(p, ndarray) else p)
        axis += len(shape) - sum(spans) if p is Ellipsis else span
    return tuple(made)


def assign(a, key, value):
    """Run a[key] = value. Of several values for one element, a random one wins."""
    if not any(isinstance(k, np.ndarray) for k in key) or not all(
            isinstance(k, np.ndarray) and k.dtype != bool for k in key):
        a[key] = value
        return
    places = np.broadcast_arrays(*key)
    shuffled = State.rng.permutation(places[0].size)
    rest = a.shape[len(key):]
    values = np.broadcast_to(value, places[0].shape + rest).reshape(-1, *rest)
    a[tuple(p.reshape(-1)[shuffled] for p in places)] = values[shuffled]


class ndarray:
    """ndarray is cupy.ndarray on a private NumPy array."""

    __array_ufunc__ = None  # so that a NumPy number on the left calls __radd__ and similar methods
    __hash__ = None

    def __init__(self, array, guard=None):
        self._a, self._guard = array, guard

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        known("ndarray", name)
        method = getattr(np.ndarray, name)

        def call(*args, **kwargs):
            bind("ndarray", name, self, *args, **kwargs)
            return run(method, self, *args, **kwargs)
        return call

    shape = property(lambda self: self._a.shape)
    dtype = property(lambda self: self._a.dtype)
    ndim = property(lambda self: self._a.ndim)
    size = property(lambda self: self._a.size)
    nbytes = property(lambda self: self._a.nbytes)
    itemsize = property(lambda self: self._a.itemsize)
    strides = property(lambda self: self._a.strides)
    T = property(lambda self: wrap(self._a.T))
    data = property(lambda self: types.SimpleNamespace(ptr=self._a.__array_interface__["data"][0]))
    flags = property(lambda self: types.SimpleNamespace(
        c_contiguous=self._a.flags.c_contiguous, f_contiguous=self._a.flags.f_contiguous,
        owndata=self._a.flags.owndata))

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy "
                        "array explicitly.")

    def get(self, stream=None, order="C", out=None, blocking=True):
        sync()
        return np.array(self._a, order="C")

    def item(self):
        sync()
        return self._a.item()

    def tolist(self):
        sync()
        return self._a.tolist()

    def fill(self, value):
        change(lambda a, v: a.fill(v), self, value)

    def copy(self, order="C"):
        return run(lambda a: np.array(a, order=order), self)

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        return self if not copy and self.dtype == dtype else run(lambda a: np.array(a).astype(dtype), self)

    def __len__(self): return len(self._a)
    def __iter__(self): return (self[i] for i in range(len(self)))
    def __getitem__(self, key): return run(lambda a: a[index(key, a.shape)], self)
    def __setitem__(self, key, value): change(lambda a, v: assign(a, index(key, a.shape), v), self, value)
    def __float__(self): return float(self.item())
    def __int__(self): return int(self.item())
    def __bool__(self): return bool(self.item())
    def __index__(self): return self.item().__index__()
    def __repr__(self): return repr(self.get())
    def __format__(self, spec): return format(self.item(), spec)
    def __matmul__(self, other): return matmul(self, other)
    def __abs__(self): return run(np.absolute, self)
    def __neg__(self): return run(np.negative, self)
    def __invert__(self): return run(np.invert, self)


ndarray.__module__ = "cupy"
OPERATORS = {"add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "pow": "power",
             "floordiv": "floor_divide", "mod": "remainder", "and": "bitwise_and", "or": "bitwise_or"}
COMPARISONS = {"lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal",
               "ne": "not_equal"}


def _operand(other):
    """Return True if the stand-in handles this operand. `unwrap` then refuses a NumPy array."""
    return isinstance(other, (ndarray, np.ndarray, np.generic, bool, int, float))


def _define(name, ufunc):
    def forward(self, other):
        return run(ufunc, self, other) if _operand(other) else NotImplemented

    def reflected(self, other):
        return run(ufunc, other, self) if _operand(other) else NotImplemented

    def in_place(self, other):
        change(lambda a, b: ufunc(a, b, out=a, casting="same_kind"), self, other)
        return self

    setattr(ndarray, f"__{name}__", forward)
    if name in OPERATORS:
        setattr(ndarray, f"__r{name}__", reflected)
        setattr(ndarray, f"__i{name}__", in_place)


for _name, _ufunc in {**OPERATORS, **COMPARISONS}.items():
    _define(_name, getattr(np, _ufunc))


# ------------------------------------------------------------------------------------- functions of the module


def matmul(a, b, **kwargs):
    bind("cupy", "matmul", a, b, **kwargs)
    if State.tape is not None:
        raise RuntimeError("calling cuBLAS API during stream capture is currently unsupported")
    return run(np.matmul, a, b, **kwargs)


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    if isinstance(obj, ndarray):
        return run(lambda a: np.array(a, dtype), obj)
    if State.tape is not None:
        raise RuntimeError(f"a copy from the host {CAPTURE_ERROR}")
    return ndarray(np.array(obj, dtype, order="C"))


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    if isinstance(a, ndarray) and dtype in (None, a.dtype):
        return a
    return array(a, dtype)


GUARD = 64  # elements before and after every array of empty(), which no kernel may change


def empty(shape, dtype=float, order="C"):
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    size = int(np.prod(shape, dtype=np.int64))
    memory = np.full(size + 2 * GUARD, 77, dtype)
    if State.tape is not None:
        State.kept.append(memory)
    return ndarray(poison(memory[GUARD:GUARD + size].reshape(shape)), memory)


def ascontiguousarray(a, dtype=None):
    return a if a.flags.c_contiguous and dtype in (None, a.dtype) else run(lambda b: np.array(b, dtype, order="C"), a)


class Ufunc:
    """A Ufunc is cupy.add or a similar function."""

    def __init__(self, name):
        self.f = getattr(np, name)

    def __call__(self, *args, **kwargs):
        if len(args) > self.f.nin + 1 or not {*kwargs} <= {"out", "dtype", "casting"}:
            raise TypeError(f"cupy.{self.f.__name__}: {len(args)} arguments and {', '.join(kwargs)}")
        if len(args) > self.f.nin or "out" in kwargs:
            out = kwargs.pop("out", None) or args[self.f.nin]
            change(lambda o, *a: self.f(*a, out=o, **kwargs), out, *args[:self.f.nin])
            return out
        return run(self.f, *args, **kwargs)

    def __getattr__(self, name):
        known("ufunc", name)
        if name == "at":
            return lambda a, key, b: change(lambda x, v: self.f.at(x, index(key, x.shape), v), a, b)
        return lambda *args, **kwargs: run(getattr(self.f, name), *args, **kwargs)


class Namespace(types.ModuleType):
    """A Namespace is a module of CuPy with the listed names. A name in `own` gives that, else the NumPy function."""

    def __init__(self, owner, numpy, own):
        super().__init__("cupy" if owner == "cupy" else f"cupy.{owner}")
        self.__dict__.update(_owner=owner, _numpy=numpy, _own=own)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        known(self._owner, name)
        if name in self._own:
            return self._own[name]
        thing = getattr(self._numpy, name)
        if NAMES[self._owner][name] == "ufunc":
            return Ufunc(name)
        if isinstance(thing, type) or not callable(thing):
            return thing

        def call(*args, **kwargs):
            bind(self._owner, name, *args, **kwargs)
            return run(thing, *args, **kwargs)
        return call


# ------------------------------------------------------------------------------- streams, graphs, memory


class Stream:
    """A Stream does its work at once and in order. A capturing stream records a tape."""

    current: list = []  # noqa: RUF012

    def __init__(self, null=False, non_blocking=False, ptds=False, priority=None):
        self.non_blocking, self.ptr = non_blocking, id(self)

    def __enter__(self):
        Stream.current.append(self)
        return self

    def __exit__(self, *exc):
        Stream.current.pop()

    def synchronize(self): sync()
    def is_capturing(self): return State.tape is not None
    def record(self, event=None): return event
    def wait_event(self, event): pass

    def begin_capture(self, mode=None):
        if not self.non_blocking or get_current_stream() is not self or State.tape is not None:
            raise RuntimeError("only the current, non-blocking stream can capture, and one at a time")
        State.tape, State.kept = [], []

    def end_capture(self):
        tape, State.tape = State.tape, None
        return Graph(tape, State.kept)


class Graph:
    def __init__(self, tape, kept):
        self.tape, self.kept = tape, kept

    def launch(self, stream=None):
        State.launches += 1
        for work in self.tape:
            work()

    def upload(self, stream=None): pass


class Event:
    def __init__(self, block=False, disable_timing=False, interprocess=False): self.at = None
    def record(self, stream=None): self.at = time.perf_counter()
    def synchronize(self): sync()


class MemoryPool:
    def __init__(self, allocator=None): pass
    def malloc(self, size): raise NotImplementedError
    def free_all_blocks(self, stream=None): pass
    def total_bytes(self): return 0
    def used_bytes(self): return 0


NULL = Stream()
POOL = MemoryPool()


def get_current_stream(device_id=-1):
    return Stream.current[-1] if Stream.current else NULL


@contextlib.contextmanager
def using_allocator(allocator=None):
    yield


RUNTIME = types.SimpleNamespace(
    getDeviceProperties=lambda device: {"name": b"a stand-in", "multiProcessorCount": 4, "major": 9, "minor": 0},
    runtimeGetVersion=lambda: 13000, driverGetVersion=lambda: 13000, deviceSynchronize=lambda: sync(),
    memGetInfo=lambda: (1 << 30, 1 << 31))
CUDA = {"Stream": Stream, "Graph": Graph, "Event": Event, "MemoryPool": MemoryPool, "runtime": RUNTIME,
        "get_current_stream": get_current_stream, "using_allocator": using_allocator,
        "get_elapsed_time": lambda start, end: 1e3 * (end.at - start.at)}


# ----------------------------------------------------------------------------------------------- kernels

KERNEL = re.compile(r'extern "C" __global__ void (\w+)\((.*?)\)\s*\{', re.DOTALL)
C_TYPES = {"float": np.float32, "int": np.int32}


COMMAND = ["g++", "-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-Wall", "-Wno-sign-compare"]


@functools.cache
def compiled(code):
    """Compile the kernels of a program for the CPU and return the library.

    If the environment names a folder MINIRES_COMPILED, the library is kept there. Its name changes with the source, the
    header and the compiler.
    """
    launchers = "\n".join(f"LAUNCHER({name})" for name, _ in KERNEL.findall(code))
    source = f"{(HERE / 'cuda_on_cpu.h').read_text(encoding='utf-8')}\n{code}\n{launchers}\n"

    def make(library):
        done = subprocess.run([*COMMAND, "-x", "c++", "-o", str(library), "-"], input=source, capture_output=True,
                              text=True)
        if done.returncode:
            raise RuntimeError(f"g++: {done.stderr}")

    with contextlib.ExitStack() as stack:
        folder = os.environ.get("MINIRES_COMPILED") or stack.enter_context(
            tempfile.TemporaryDirectory(prefix="cuda-on-cpu-"))
        name = hashlib.sha256("\n".join([*COMMAND, compiler(), source]).encode()).hexdigest()
        return ctypes.CDLL(str(made_once(Path(folder) / f"{name}.so", make)))


@functools.cache
def compiler():
    return subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout


class RawModule:
    def __init__(self, code=None, *, path=None, options=(), backend="nvrtc", translate_cucomplex=False,
                 enable_cooperative_groups=False, name_expressions=None, jitify=None):
        self.code, self.library = code, compiled(code)
        self.parameters = dict(KERNEL.findall(code))
        starts = [m.start() for m in KERNEL.finditer(code)] + [len(code)]
        self.bodies = {m[1]: code[m.start():starts[i + 1]] for i, m in enumerate(KERNEL.finditer(code))}

    def get_function(self, name):
        return RawKernel(self, name)


class RawKernel:
    """A RawKernel is a kernel of a RawModule. It checks every argument against the source, which CuPy does not."""

    def __init__(self, module, name):
        self.module, self.name = module, name
        self.launcher = getattr(module.library, f"launch_{name}")
        self.parameters = [p.split() for p in module.parameters[name].split(",")]
        self.barriers = int(bool(re.search(r"__syncthreads|block_\w+\(", module.bodies[name])))

    def __call__(self, grid, block, args, *, shared_mem=0):
        if len(args) != len(self.parameters):
            raise TypeError(f"{self.name}: {len(args)} arguments for {len(self.parameters)} parameters")
        (gx, gy, gz), (bx, by, bz) = grid, block
        assert gz == by == bz == 1 and gx >= 1 and 1 <= gy <= 65535 and bx <= 1024, (grid, block)
        held = [self.passed(a, p) for a, p in zip(args, self.parameters, strict=True)]
        pointers = (ctypes.c_void_p * len(held))(*(h.ctypes.data for h in held))
        State.seed += 1

        def work(seed=State.seed):
            if wrong := self.launcher(pointers, gx, gy, bx, self.barriers, seed):
                raise RuntimeError(f"{self.name}: " + {1: "a thread ended while others wait at a barrier"}.get(
                    wrong, "too many threads"))
            for a in args:
                if isinstance(a, ndarray) and a._guard is not None and not (
                        (a._guard[:GUARD] == 77).all() and (a._guard[-GUARD:] == 77).all()):
                    raise RuntimeError(f"{self.name}: wrote outside of an array of shape {a.shape}")
            return held  # keeps alive what the pointers point to
        State.launches += 1
        if State.tape is None:
            work()
        else:
            State.tape.append(work)

    def passed(self, a, parameter):
        """Return the argument as an array, from whose memory the kernel copies it."""
        declared = " ".join(parameter)
        kind = declared.removeprefix("const ").split()[0].rstrip("*")
        if "*" in declared:
            if type(a) is np.uint64 and a == 0:
                return np.array([a])
            if not isinstance(a, ndarray) or a.dtype != C_TYPES[kind] or not a.flags.c_contiguous:
                raise TypeError(f"{self.name}: {declared}: got {type(a).__name__} "
                                f"{getattr(a, 'dtype', '')}{getattr(a, 'shape', '')}, or one that is not contiguous")
            return np.array([a.data.ptr], np.uint64)
        if kind in C_TYPES:
            if type(a) is not C_TYPES[kind]:
                raise TypeError(f"{self.name}: {declared}: got {type(a).__name__}")
            return np.array([a])
        if not isinstance(a, np.ndarray) or a.size != 1:
            raise TypeError(f"{self.name}: {declared}: got {type(a).__name__}")
        return a.copy()


class Cublas:
    """Cublas has the functions that kernels/cublas.py calls, on host addresses, column-major as in Fortran."""

    def cublasCreate_v2(self, handle): return 0

    def cublasSetStream_v2(self, handle, stream):
        self.ready = False  # setting the stream resets the workspace
        return 0

    def cublasSetWorkspace_v2(self, handle, address, size):
        self.ready = bool(address.value) and size.value > 0
        return 0

    def cublasGemmEx(self, handle, op_a, op_b, m, n, k, alpha, a, type_a, lda, b, type_b, ldb, beta, c, type_c, ldc,
                     compute, algorithm):
        if not self.ready or {type_a, type_b, type_c} != {0} or compute not in (68, 77) or algorithm != -1:
            return 13
        if lda < (k if op_a else m) or ldb < (n if op_b else k) or ldc < m:
            return 7  # CUBLAS_STATUS_INVALID_VALUE

        def matrix(address, rows, columns, ld):
            memory = (ctypes.c_float * (ld * (columns - 1) + rows)).from_address(address.value)
            return np.lib.stride_tricks.as_strided(np.frombuffer(memory, np.float32), (rows, columns), (4, 4 * ld))
        A, B = matrix(a, *((k, m) if op_a else (m, k)), lda), matrix(b, *((n, k) if op_b else (k, n)), ldb)
        C = matrix(c, m, n, ldc)
        change(lambda: np.copyto(C, (A.T if op_a else A) @ (B.T if op_b else B)))
        return 0


def make(order="C"):
    """Return a new `cupy` module and reset the counters."""
    State.syncs, State.launches, State.tape, State.order = 0, 0, None, order
    tricks = Namespace("lib.stride_tricks", np.lib.stride_tricks, {})
    own = {"ndarray": ndarray, "matmul": matmul, "array": array, "asarray": asarray, "empty": empty,
           "ascontiguousarray": ascontiguousarray, "RawModule": RawModule, "RawKernel": RawKernel,
           "empty_like": lambda a, dtype=None: empty(a.shape, dtype or a.dtype),
           "lib": types.SimpleNamespace(stride_tricks=tricks), "linalg": Namespace("linalg", np.linalg, {}),
           "cuda": Namespace("cuda", None, CUDA), "get_default_memory_pool": lambda: POOL}
    module = Namespace("cupy", np, own)
    module.__dict__["__version__"] = NAMES["version"]
    return module


def install(order="C"):
    """Make `import cupy` return the stand-in, with its cuBLAS. Return a function that undoes this."""
    from minires import device
    from minires.kernels import cublas

    opened, found = cublas._library, device._probe  # private: they look for libraries and a GPU
    before, workspace = sys.modules.get("cupy"), cublas.WORKSPACE
    sys.modules["cupy"] = make(order)
    cublas._library, cublas.WORKSPACE = lambda xp: Cublas(), 1024  # private: as above
    found.cache_clear()
    assert device.use("gpu") == "gpu", device.reason
    State.syncs = State.launches = 0

    def undo():
        sys.modules.pop("cupy")
        if before is not None:
            sys.modules["cupy"] = before
        cublas._library, cublas.WORKSPACE = opened, workspace  # private: as above
        found.cache_clear()
    return undo


def missing():
    """Return the reason why kernels cannot run here, or None."""
    if not sys.platform.startswith("linux"):
        return "the threads of the kernels are fibers of Linux's C library"
    return None if shutil.which("g++") else "there is no g++ to compile the kernels"
