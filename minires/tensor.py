"""Tensor, Function and the reverse sweep: the engine, nothing else.

A `Function` is one step of a computation. Applying it to Tensors computes the result at once and,
where a gradient may be wanted, lets the result remember the step that made it (`.creator`). The
Tensors and their creators form a graph; `Tensor.backward` walks it once, from the result back to the
leaves, and applies the chain rule at every step:

    dL/dinput = (d output / d input)^T  dL/doutput          one Function.backward per node
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from . import device, kernels

_recording: ContextVar[bool] = ContextVar("recording", default=True)


@contextmanager
def no_grad() -> Iterator[None]:
    """Inside `with no_grad():` (or a function decorated by it) no graph is recorded."""
    token = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(token)


def recording() -> bool:
    """Are results remembering how they were made? False under no_grad."""
    return _recording.get()


class Function:
    """One differentiable step, applied with `TheFunction.apply(*tensors, **options)`.

    `forward(*arrays, **options)` and `backward(g)` see plain arrays and stand next to each other.
    What backward needs, forward keeps on self. `backward` returns one array for each input, of that
    input's shape and dtype, or None where there is no gradient.
    """

    broadcasts = False  # True: the engine sums each gradient back to its input's shape
    converts = False    # True: the result may have another dtype than the inputs
    xp: Any                  # numpy or cupy, whichever the inputs belong to
    K: Any                   # the kernels that suit the inputs, forward and backward alike (kernels/__init__.py)
    needs: tuple[bool, ...]  # for each input: is its gradient wanted?
    inputs: tuple[Tensor, ...]

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
        f.K = kernels.of(arrays[0])
        f.needs = tuple(t.requires_grad and _recording.get() for t in inputs)
        try:
            out = Tensor(f.forward(*arrays, **options))
        except (ValueError, IndexError) as e:
            given = ", ".join(f"{a.dtype}{a.shape}" for a in arrays)
            raise type(e)(f"{cls.__name__}({given}): {e}") from e
        if out.dtype != arrays[0].dtype and not cls.converts:
            raise TypeError(f"{cls.__name__}.forward returned {out.dtype} for {arrays[0].dtype} inputs")
        if any(f.needs):
            f.inputs, out.creator, out.requires_grad = inputs, f, True
        return out

    def pull(self, g: Any) -> Iterator[tuple[Tensor, Any]]:
        """(input, its gradient) for every input that wants one, checked against the input."""
        grads = self.backward(g)
        grads = grads if isinstance(grads, tuple) else (grads,)
        if len(grads) != len(self.inputs):
            raise TypeError(f"{type(self).__name__}.backward returned {len(grads)} gradients "
                            f"for {len(self.inputs)} inputs")
        for x, gx, needed in zip(self.inputs, grads, self.needs, strict=True):
            if not needed or gx is None:
                continue
            if isinstance(gx, np.generic):   # NumPy turns 0-d results into scalars
                gx = np.asarray(gx)
            if self.broadcasts:
                gx = unbroadcast(gx, x.shape)
            if gx.shape != x.shape or gx.dtype != x.dtype:
                raise TypeError(f"{type(self).__name__}.backward returned a {gx.dtype}{gx.shape} gradient "
                                f"for a {x.dtype}{x.shape} input")
            yield x, gx


_Unary = Callable[["Tensor"], "Tensor"]
_Binary = Callable[["Tensor", Any], "Tensor"]
_Other = Callable[..., "Tensor"]


class Tensor:
    """An array that can be differentiated through.

    `data`: a float array (NumPy or CuPy; kept as it is, not copied), or numbers in lists (float32).
    `requires_grad`: True for a leaf whose `.grad` is wanted. Results of operations inherit it.
    """

    __slots__ = ("__weakref__", "creator", "data", "grad", "hooks", "requires_grad", "retains_grad")
    __array_ufunc__ = None  # so that array + Tensor asks the Tensor, not NumPy

    data: Any
    grad: Any
    creator: Function | None

    def __init__(self, data: Any, requires_grad: bool = False):
        if isinstance(data, Tensor):
            raise TypeError("Tensor(data): data is a Tensor already; use .data or .detach()")
        if not hasattr(data, "dtype"):
            data = np.asarray(data, np.float32)
        elif isinstance(data, np.generic):
            data = np.asarray(data)
        if data.dtype.kind != "f":
            raise TypeError(f"Tensor(data): expected floating-point numbers, got {data.dtype}{tuple(data.shape)}; "
                            "convert with .astype(numpy.float32) first, stored images with datasets.to_float")
        self.data, self.requires_grad = data, requires_grad
        self.grad, self.creator, self.retains_grad = None, None, False
        self.hooks: tuple[Callable[[Any], None], ...] = ()

    if TYPE_CHECKING:  # the operators and methods that ops.py defines, for editors and type checkers
        __neg__: ClassVar[_Unary]; __abs__: ClassVar[_Unary]; abs: ClassVar[_Unary]; exp: ClassVar[_Unary]
        log: ClassVar[_Unary]; sqrt: ClassVar[_Unary]; tanh: ClassVar[_Unary]; sigmoid: ClassVar[_Unary]
        relu: ClassVar[_Unary]
        __add__: ClassVar[_Binary]; __radd__: ClassVar[_Binary]; __sub__: ClassVar[_Binary]
        __rsub__: ClassVar[_Binary]; __mul__: ClassVar[_Binary]; __rmul__: ClassVar[_Binary]
        __truediv__: ClassVar[_Binary]; __rtruediv__: ClassVar[_Binary]; __matmul__: ClassVar[_Binary]
        __rmatmul__: ClassVar[_Binary]; __pow__: ClassVar[_Binary]; __getitem__: ClassVar[_Binary]
        astype: ClassVar[_Binary]
        sum: ClassVar[_Other]; mean: ClassVar[_Other]; var: ClassVar[_Other]; max: ClassVar[_Other]
        reshape: ClassVar[_Other]; transpose: ClassVar[_Other]
        T: Any

    shape = property(lambda self: self.data.shape)
    dtype = property(lambda self: self.data.dtype)
    ndim = property(lambda self: self.data.ndim)
    size = property(lambda self: self.data.size)

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        made = f", by {type(self.creator).__name__}" if self.creator else ""
        grad = ", requires_grad" if self.requires_grad and not self.creator else ""
        return f"Tensor({np.array2string(self.numpy(), threshold=20, precision=4)}, {self.dtype}{made}{grad})"

    def __bool__(self) -> bool:
        raise TypeError("the truth of a Tensor is ambiguous; ask its .data or .item()")

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array: `.data` itself on the CPU, a copy from the GPU."""
        return device.to(self.data, "cpu")

    def item(self) -> float:
        """The single value as a Python float; ValueError if there is not exactly one."""
        if self.size != 1:
            raise ValueError(f"item(): expected one element, got shape {self.shape}")
        return float(self.numpy().reshape(()))

    def __float__(self) -> float:
        return self.item()

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("NumPy cannot take a Tensor; give it .numpy()")

    def detach(self) -> Tensor:
        """The same array outside the graph."""
        return Tensor(self.data)

    def to(self, where: str) -> Tensor:
        """A leaf with the same values on "cpu" or "gpu" (itself if it is there already)."""
        moved = device.to(self.data, where)
        if moved is self.data:
            return self
        if self.creator is not None:
            raise RuntimeError(f"to({where!r}): this Tensor was computed by {type(self.creator).__name__}, and a graph "
                               "does not cross devices; move the leaves before computing, or .detach() first")
        return Tensor(moved, self.requires_grad)

    def retain_grad(self) -> Tensor:
        """Keep `.grad` on this intermediate result too, to look at; returns self."""
        self.retains_grad = True
        return self

    def on_grad(self, see: Callable[[Any], None]) -> None:
        """Call `see(g)` with dL/dself when a later backward reaches this Tensor. It may look, not touch."""
        self.hooks += (see,)

    def backward(self, g: Any = None) -> None:
        """Add dL/dleaf to `.grad` of every leaf that this Tensor was computed from.

        `g` is dL/dself, an array of this Tensor's shape and dtype; a scalar starts from 1 without it.
        The graph is consumed on the way: its memory goes as the sweep passes.
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

        order = topological_order(self)      # inputs first; the sweep pops from the other end
        pending = {id(self): g}              # gradients of Tensors not visited yet
        while order:
            t = order.pop()
            g = pending.pop(id(t), None)
            if g is None:                    # every path from here on returned None
                continue
            for see in t.hooks:
                see(g)
            if t.creator is None or t.retains_grad:
                # A copy, because g may be shared; array() too because 0-d sums are scalars, not arrays.
                t.grad = device.of(t.data).array(g if t.grad is None else t.grad + g)
            if t.creator is None:
                continue
            for x, gx in t.creator.pull(g):  # never +=: the array may belong to another node too
                pending[id(x)] = kernels.of(gx).add(pending[id(x)], gx) if id(x) in pending else gx
            t.creator = _CONSUMED


class _Consumed(Function):
    """Stands where a creator was until backward passed."""

    inputs = ()


_CONSUMED = _Consumed()


def topological_order(root: Tensor) -> list[Tensor]:
    """`root` and all it was computed from that needs a gradient, every Tensor after its inputs.

    Iterative, so that depth is limited by memory and not by Python's stack.
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
    """Transpose of broadcasting `shape` to g.shape: the sum over what was repeated."""
    if g.shape == shape:
        return g
    lead = g.ndim - len(shape)
    repeated = tuple(range(lead)) + tuple(lead + i for i, n in enumerate(shape) if n == 1 != g.shape[lead + i])
    return g.sum(repeated, keepdims=True).reshape(shape)
