"""This module is the autograd engine: Tensor, Function and the reverse sweep.

A `Function` is one step of a computation. Applying a Function to Tensors computes the result at once. If a
gradient may be needed, the result also records the Function that created it (`.creator`). The Tensors and
their creators form a graph. `Tensor.backward` walks this graph once, from the result back to the leaves, and
applies the chain rule at every step:

    dL/dinput = (d output / d input)^T  dL/doutput          one Function.backward per node
"""
from __future__ import annotations

import numbers
import operator
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from . import device, kernels

_recording: ContextVar[bool] = ContextVar("recording", default=True)


@contextmanager
def no_grad() -> Iterator[None]:
    """Record no graph inside `with no_grad():`, or inside a function decorated with `@no_grad()`."""
    token = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(token)


def recording() -> bool:
    """Return True if operations record a graph, False under no_grad."""
    return _recording.get()


_HALF = np.dtype(np.float16)
_detecting: ContextVar[bool] = ContextVar("detecting", default=False)


@contextmanager
def detect_changes() -> Iterator[None]:
    """Find arrays that are changed in place between the forward and the backward pass.

    A Function saves arrays, not copies of them, so `w.data -= 0.1` before backward() silently changes the gradient.
    For a graph that was recorded inside this context, backward() raises RuntimeError and names the operation and the
    array. Every saved array is read twice more, so use this to debug.
    """
    token = _detecting.set(True)
    try:
        yield
    finally:
        _detecting.reset(token)


class Function:
    """A Function is one differentiable step, applied with `TheFunction.apply(*tensors, **options)`.

    A subclass defines `forward(*arrays, **options)` and `backward(g)` next to each other, on plain arrays.
    `forward` saves on self what `backward` needs. `backward` returns one array per input, with the shape and
    dtype of that input, or None for an input without a gradient; with a single input that is `return (None,)`.
    float16 is a dtype of storage: a Function gets float32 arrays instead, and the engine rounds what it returns.
    """

    broadcasts = False  # True: the engine sums each gradient back to its input's shape
    converts = False    # True: the dtype of the result may differ from the dtype of the inputs
    xp: Any                  # numpy or cupy, whichever the inputs belong to
    K: Any                   # the kernels for the inputs, in forward and backward (chosen in kernels/__init__.py)
    needs: tuple[bool, ...]  # for each input: whether its gradient is needed
    inputs: tuple[Tensor, ...]
    checksums: dict[str, int] | None = None  # of the saved arrays, under detect_changes()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def backward(self, g: Any) -> Any:
        raise NotImplementedError

    @classmethod
    def apply(cls, *inputs: Tensor, **options: Any) -> Tensor:
        for t in inputs:
            if not isinstance(t, Tensor):
                raise TypeError(f"{cls.__name__}: expected Tensors, got {type(t).__name__}; wrap it: Tensor(array)")
        f = cls()
        arrays = [t.data for t in inputs]
        f.xp = device.of(*arrays, operation=cls.__name__)
        if len({a.dtype for a in arrays}) > 1:
            raise TypeError(f"{cls.__name__}: all inputs must have one dtype, got "
                            + ", ".join(f"{a.dtype}{a.shape}" for a in arrays)
                            + "; convert with .astype() first (nothing is promoted silently)")
        half = arrays[0].dtype == _HALF
        if half:  # counts above 65,504 and most sums of squares are infinite in float16
            arrays, options = list(map(widened, arrays)), {key: widened(v) for key, v in options.items()}
        f.K = kernels.of(arrays[0])
        f.needs = tuple(t.requires_grad and _recording.get() for t in inputs)
        try:
            result = f.forward(*arrays, **options)
        except (ValueError, IndexError) as e:
            given = ", ".join(f"{t.dtype}{t.shape}" for t in inputs)
            raise type(e)(f"{cls.__name__}({given}): {e}") from e
        if not hasattr(result, "dtype"):
            raise TypeError(f"{cls.__name__}.forward returned {_described(result)}; expected one array")
        if result.dtype != arrays[0].dtype and not cls.converts:
            raise TypeError(f"{cls.__name__}.forward returned {result.dtype} for {arrays[0].dtype} inputs")
        out = Tensor(result.astype(_HALF) if half and not cls.converts else result)
        if any(f.needs):
            f.inputs, out.creator, out.requires_grad = inputs, f, True
            if _detecting.get():
                f.checksums = f.checksum()
        return out

    def pull(self, g: Any) -> Iterator[tuple[Tensor, Any]]:
        """Yield (input, its gradient) for every input that needs one, after checking shape and dtype."""
        name = type(self).__name__
        if self.checksums is not None:
            self._check_saved(self.checksums)
        grads = self.backward(widened(g))
        if grads is None:
            raise TypeError(f"{name}.backward returned {_described(None)}; return (None,) for an input without a "
                            "gradient")
        grads = tuple(grads) if isinstance(grads, (tuple, list)) else (grads,)
        if len(grads) != len(self.inputs):
            raise TypeError(f"{name}.backward returned {len(grads)} gradients for {len(self.inputs)} inputs")
        for x, gx, needed in zip(self.inputs, grads, self.needs, strict=True):
            if not needed or gx is None:
                continue
            if isinstance(gx, np.generic):   # NumPy turns 0-d results into scalars
                gx = np.asarray(gx)
            if not hasattr(gx, "dtype") or isinstance(gx, Tensor):
                raise TypeError(f"{name}.backward returned {_described(gx)} as a gradient; expected an array")
            if self.broadcasts:
                gx = unbroadcast(gx, x.shape)
            if x.dtype == _HALF and gx.dtype == np.float32:
                gx = gx.astype(_HALF)
            if gx.shape != x.shape or gx.dtype != x.dtype:
                raise TypeError(f"{name}.backward returned a {gx.dtype}{gx.shape} gradient "
                                f"for a {x.dtype}{x.shape} input")
            yield x, gx

    def checksum(self) -> dict[str, int]:
        """Return {name: checksum} of the arrays on self, that is, of what forward saved for backward."""
        mine = {name: value for name, value in vars(self).items() if name not in ("inputs", "checksums", "xp", "K")}
        return {name: zlib.crc32(device.to(a, "cpu").tobytes()) for name, a in _arrays(mine, "self")}

    def _check_saved(self, before: dict[str, int]) -> None:
        changed = [name for name, crc in self.checksum().items() if before.get(name) != crc]
        if changed:
            shapes = ", ".join(f"{t.dtype}{t.shape}" for t in self.inputs)
            raise RuntimeError(f"{type(self).__name__}({shapes}): {', '.join(changed)} was changed in place between "
                               "the forward and the backward pass, so the gradient would be wrong; change it after "
                               "backward(), or make a new array")


def widened(value: Any) -> Any:
    """Return a float16 array as float32, and anything else unchanged."""
    return value.astype(np.float32) if getattr(value, "dtype", None) == _HALF else value


def _arrays(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield (name, array) for every array in nested tuples, lists and dicts."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        yield name, value
    elif isinstance(value, dict):
        for key, v in value.items():
            yield from _arrays(v, f"{name}.{key}")
    elif isinstance(value, (tuple, list)):
        for i, v in enumerate(value):
            yield from _arrays(v, f"{name}[{i}]")


def _numbers(value: Any) -> np.ndarray:
    """Return numbers, nested in lists, as float32.

    NumPy alone would read None as NaN and "3" as 3. Whole numbers beyond 64 bits and fractions arrive as objects.
    """
    try:
        array = np.asarray(value)
    except ValueError as e:
        raise ValueError(f"Tensor(data): expected lists of equal lengths: {e}") from e
    if array.dtype.kind not in "fiub":
        for one in array.ravel().tolist():
            if not isinstance(one, numbers.Real):
                raise TypeError("Tensor(data): expected numbers, nested in lists, got "
                                f"{'a list with ' * (array.ndim > 0)}{type(one).__name__}")
    return array.astype(np.float32)


def _described(value: Any) -> str:
    """Return a description, for an error, of a value that should have been an array."""
    if value is None:
        return "None (is its `return` missing?)"
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, (tuple, list)) else "")


def _compared(how: Callable[[Any, Any], Any]) -> Callable[[Tensor, Any], Any]:
    return lambda a, b: how(a.data, b.data if isinstance(b, Tensor) else b)


_Unary = Callable[["Tensor"], "Tensor"]
_Binary = Callable[["Tensor", Any], "Tensor"]
_Other = Callable[..., "Tensor"]


class Tensor:
    """A Tensor is an array through which gradients can be computed.

    data: a floating-point NumPy or CuPy array, used without a copy; or numbers, nested in lists, stored as float32.
    requires_grad: True for a leaf whose gradient `backward` adds to `.grad`. Results of operations inherit it.

    An array in foreign byte order or of a subclass of numpy.ndarray is converted. Operations save arrays without a
    copy: change one in place only after backward() (`detect_changes` finds where that was not so).

    Raises TypeError if `data` is a Tensor, a masked array, text, None, or not float16, float32 or float64.
    Raises ValueError if the lists in `data` have different lengths.
    """

    __slots__ = ("__weakref__", "creator", "data", "grad", "hooks", "requires_grad", "retains_grad")
    __array_priority__ = 1000  # so that array + Tensor calls Tensor.__radd__, not NumPy

    data: Any
    grad: Any
    creator: Function | None

    def __init__(self, data: Any, requires_grad: bool = False):
        if isinstance(data, Tensor):
            raise TypeError("Tensor(data): data is a Tensor already; use .data or .detach()")
        if not hasattr(data, "dtype"):
            data = _numbers(data)
        elif not device.is_array(data):
            if not isinstance(data, (np.ndarray, np.generic)) or hasattr(data, "mask"):
                raise TypeError(f"Tensor(data): expected a NumPy or CuPy array or numbers, got {type(data).__name__}; "
                                "convert it with numpy.asarray first, a masked array with .filled(value)")
            data = np.asarray(data)
        if data.dtype.kind != "f" or data.dtype.itemsize > 8:
            raise TypeError(f"Tensor(data): expected floating-point numbers, got {data.dtype}{tuple(data.shape)}; "
                            "convert with .astype(numpy.float32) first, stored images with datasets.to_float")
        if not (data.dtype.isnative and getattr(data.flags, "aligned", True)):
            data = data.astype(data.dtype.newbyteorder("="))
        self.data, self.requires_grad = data, requires_grad
        self.grad, self.creator, self.retains_grad = None, None, False
        self.hooks: tuple[Callable[[Any], None], ...] = ()

    if TYPE_CHECKING:  # ops/ defines these operators and methods; editors and type checkers read them here
        __neg__: ClassVar[_Unary]; __abs__: ClassVar[_Unary]; abs: ClassVar[_Unary]; exp: ClassVar[_Unary]
        log: ClassVar[_Unary]; sqrt: ClassVar[_Unary]; tanh: ClassVar[_Unary]; sigmoid: ClassVar[_Unary]
        relu: ClassVar[_Unary]
        __add__: ClassVar[_Binary]; __radd__: ClassVar[_Binary]; __sub__: ClassVar[_Binary]
        __rsub__: ClassVar[_Binary]; __mul__: ClassVar[_Binary]; __rmul__: ClassVar[_Binary]
        __truediv__: ClassVar[_Binary]; __rtruediv__: ClassVar[_Binary]; __matmul__: ClassVar[_Binary]
        __rmatmul__: ClassVar[_Binary]; __pow__: ClassVar[_Binary]; __rpow__: ClassVar[_Binary]
        __getitem__: ClassVar[_Binary]
        astype: ClassVar[_Binary]
        sum: ClassVar[_Other]; mean: ClassVar[_Other]; var: ClassVar[_Other]; std: ClassVar[_Other]
        max: ClassVar[_Other]; min: ClassVar[_Other]; clip: ClassVar[_Other]
        reshape: ClassVar[_Other]; transpose: ClassVar[_Other]
        T: Any

    shape = property(lambda self: self.data.shape)
    dtype = property(lambda self: self.data.dtype)
    ndim = property(lambda self: self.data.ndim)
    size = property(lambda self: self.data.size)

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    # Comparisons are element by element and have no gradient: they return arrays of booleans. In sets and dicts, every
    # Tensor is equal to itself only.
    __eq__, __ne__ = _compared(operator.eq), _compared(operator.ne)
    __lt__, __le__ = _compared(operator.lt), _compared(operator.le)
    __gt__, __ge__ = _compared(operator.gt), _compared(operator.ge)
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        made = f", by {type(self.creator).__name__}" if self.creator else ""
        grad = ", requires_grad" if self.requires_grad and not self.creator else ""
        return f"Tensor({np.array2string(self.numpy(), threshold=20, precision=4)}, {self.dtype}{made}{grad})"

    def __bool__(self) -> bool:
        raise TypeError("the truth value of a Tensor is ambiguous; use .data or .item()")

    def numpy(self) -> np.ndarray:
        """Return the values as a NumPy array: `.data` itself on the CPU, a copy if `.data` is on the GPU."""
        return device.to(self.data, "cpu")

    def item(self) -> float:
        """Return the only element as a Python float.

        Raises ValueError if this Tensor does not have exactly one element.
        """
        if self.size != 1:
            raise ValueError(f"item(): expected one element, got shape {self.shape}")
        return float(self.numpy().reshape(()))

    def __float__(self) -> float:
        return self.item()

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("NumPy's functions cannot take a Tensor; use minires.ops or the Tensor's own methods, which "
                        "have gradients (x.exp() or ops.exp(x) for numpy.exp(x)), or give them x.numpy()")

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise TypeError(f"numpy.{function.__name__} cannot take a Tensor; use minires.ops or the Tensor's own methods, "
                        "which have gradients, or give it .numpy()")

    def __getstate__(self) -> Any:
        if self.creator is not None:
            raise TypeError("this Tensor is part of a graph, which cannot be copied or pickled; take .detach()")
        return self.data, self.requires_grad, self.grad

    def __setstate__(self, state: Any) -> None:
        self.__init__(*state[:2])  # type: ignore[misc]
        self.grad = state[2]

    def detach(self) -> Tensor:
        """Return a new Tensor that shares this array but is not part of the graph."""
        return Tensor(self.data)

    def to(self, where: str) -> Tensor:
        """Return a leaf with the same values on "cpu" or "gpu", or self if the values are already there.

        Raises RuntimeError if this Tensor is the result of an operation and would have to move.
        """
        moved = device.to(self.data, where)
        if moved is self.data:
            return self
        if self.creator is not None:
            raise RuntimeError(f"to({where!r}): this Tensor was computed by {type(self.creator).__name__}, and a graph "
                               "does not cross devices; move the leaves before computing, or .detach() first")
        return Tensor(moved, self.requires_grad)

    def retain_grad(self) -> Tensor:
        """Keep `.grad` on this intermediate result as well, for inspection. Returns self."""
        self.retains_grad = True
        return self

    def on_grad(self, see: Callable[[Any], None]) -> None:
        """Register `see` as a hook: a later backward calls see(dL/dself). The hook must not change the gradient."""
        self.hooks += (see,)

    def backward(self, g: Any = None) -> None:
        """Add dL/dleaf to `.grad` of every leaf that this Tensor was computed from.

        g: dL/dself, an array with the shape and dtype of this Tensor. The default for a scalar is 1.

        The sweep consumes the graph: each node's memory is freed once its gradient has been passed on.
        Raises RuntimeError if no input requires a gradient, or if an earlier backward consumed the graph.
        Raises ValueError if `g` does not fit, or if it is missing and this Tensor is not a scalar.
        """
        if not self.requires_grad:
            raise RuntimeError("backward(): nothing to differentiate: no input of this Tensor requires a gradient, "
                               "or it was computed under no_grad()")
        if g is None:
            if self.size != 1:
                raise ValueError(f"backward(): expected a scalar, got shape {self.shape}; reduce it with .sum() or "
                                 ".mean() first, or pass the gradient to start from: backward(g)")
            g = device.of(self.data).ones_like(self.data)
        if isinstance(g, Tensor):
            raise TypeError("backward(g): expected an array, got a Tensor; pass its .data")
        if not hasattr(g, "dtype") or g.shape != self.shape or g.dtype != self.dtype:
            given = f"{g.dtype}{g.shape}" if hasattr(g, "dtype") else repr(g)
            raise ValueError(f"backward(g): expected a {self.dtype}{self.shape} array, got {given}")
        device.of(self.data, g, operation="backward(g)")

        order = topological_order(self)      # inputs first; the sweep pops from the end, where the result is
        pending = {id(self): g}              # gradients of Tensors not visited yet
        while order:
            t = order.pop()
            g = pending.pop(id(t), None)
            if g is None:                    # backward returned None on every path to this Tensor
                continue
            for see in t.hooks:
                see(g)
            if t.creator is None or t.retains_grad:
                # array() copies, because g may be shared, and turns a 0-d sum, which is a scalar, into an array.
                t.grad = device.of(t.data).array(g if t.grad is None else t.grad + g)
            if t.creator is None:
                continue
            for x, gx in t.creator.pull(g):  # never +=: another node may share the array
                pending[id(x)] = kernels.of(gx).add(pending[id(x)], gx) if id(x) in pending else gx
            t.creator = _CONSUMED


class _Consumed(Function):
    """_CONSUMED replaces the creator of a Tensor after backward has passed it."""

    inputs = ()


_CONSUMED = _Consumed()


def topological_order(root: Tensor) -> list[Tensor]:
    """Return `root` and every Tensor it was computed from that requires a gradient, each after its inputs.

    The search is iterative, so memory limits the depth of the graph, not Python's stack.
    Raises RuntimeError if an earlier backward consumed part of the graph.
    """
    order: list[Tensor] = []
    seen: set[int] = set()
    stack = [(root, False)]
    while stack:
        t, inputs_done = stack.pop()
        if inputs_done:
            order.append(t)
        elif id(t) not in seen:
            if t.creator is _CONSUMED:
                raise RuntimeError("backward(): this graph was already consumed by an earlier backward(); run the "
                                   "forward pass again, or add the losses and call backward() once")
            seen.add(id(t))
            stack.append((t, True))
            if t.creator is not None:
                stack += [(x, False) for x in t.creator.inputs if x.requires_grad]
    return order


def unbroadcast(g: Any, shape: tuple[int, ...]) -> Any:
    """Sum `g` over the axes that broadcasting repeated. This is the transpose of broadcasting `shape` to g.shape."""
    if g.shape == shape:
        return g
    lead = g.ndim - len(shape)
    repeated = tuple(range(lead)) + tuple(lead + i for i, n in enumerate(shape) if n == 1 != g.shape[lead + i])
    return g.sum(repeated, keepdims=True).reshape(shape)
