"""Modules: a tree of Tensors, found by walking attributes in the order they were set.

Names equal torchvision's (`layer1.0.bn1.running_mean`, `fc.weight`). Sizes are explicit; randomness is `rng=`.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from typing import Any

import numpy as np

from .. import device, kernels, ops
from ..tensor import Tensor, recording, topological_order
from .hooks import modes_kept, watched, watchers


def misfits(mine: Mapping[str, Tensor], theirs: Mapping[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """What keeps {name: array} `theirs` from taking the place of the state `mine`, in words: what is missing, what is
    unexpected, what has another shape."""
    return ([f"missing {n}" for n in mine if n not in theirs], [f"unexpected {n}" for n in theirs if n not in mine],
            [f"{n}: expected shape {t.shape}, got {getattr(theirs[n], 'shape', type(theirs[n]).__name__)}"
             for n, t in mine.items() if n in theirs and getattr(theirs[n], "shape", None) != t.shape])


def is_exactly(module: Any, kind: type) -> bool:
    """Whether `module` is a `kind` and computes what that class computes.

    False for a subclass, for any other module, and where a forward was set on the object: these may compute something
    else. A fused operation may stand only for layers of which this is true.
    """
    return type(module) is kind and "forward" not in vars(module)


class Module:
    """Base of all layers. A Tensor attribute is state, and a parameter iff it requires a gradient; an attribute
    that is a Module, or a list of Modules, is a child."""

    training = True
    multiplies = False            # is the output a product with self.weight, whose multiply-accumulates count?
    unused: tuple[str, ...] = ()  # what published weights hold besides, by the first part of its name

    def forward(self, *inputs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward()")

    def __call__(self, *inputs: Any) -> Tensor:
        out = self.forward(*inputs)
        for see in watchers.get():
            see(self, inputs, out)
        return out

    def children(self) -> Iterator[tuple[str, Module]]:
        for name, v in vars(self).items():
            if isinstance(v, Module):
                yield name, v
            elif isinstance(v, (list, tuple)):
                yield from ((f"{name}.{i}", m) for i, m in enumerate(v) if isinstance(m, Module))

    def modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(name, module) of this module ("") and of all below it, in the order they were set."""
        yield prefix, self
        for name, m in self.children():
            yield from m.modules(f"{prefix}.{name}" if prefix else name)

    def state(self) -> dict[str, Tensor]:
        """{name: Tensor}: parameters and running statistics alike."""
        return {f"{prefix}.{name}" if prefix else name: t for prefix, m in self.modules()
                for name, t in vars(m).items() if isinstance(t, Tensor)}

    def parameters(self) -> list[Tensor]:
        """What an optimiser trains, in order, each once."""
        return list({id(t): t for t in self.state().values() if t.requires_grad}.values())

    def load_state(self, arrays: Mapping[str, Any]) -> None:
        """Copy {name: array or Tensor} in; ValueError, and nothing changed, unless names and shapes all match."""
        mine = self.state()
        arrays = {n: a.data if isinstance(a, Tensor) else a for n, a in arrays.items()}
        wrong = list(chain(*misfits(mine, arrays)))
        if wrong:
            raise ValueError(f"load_state: {len(wrong)} of {len(mine)} entries do not fit: " + "; ".join(wrong[:6]))
        new = [device.of(t.data).array(arrays[name], dtype=t.dtype) for name, t in mine.items()]  # all, or none
        for t, data in zip(mine.values(), new, strict=True):
            t.data = data

    def train(self, on: bool = True) -> Module:
        for _, m in self.modules():
            m.training = on
        return self

    def eval(self) -> Module:
        return self.train(False)

    def to(self, where: str) -> Module:
        """Move all state to "cpu", "gpu" or "auto", in place; returns self."""
        for t in self.state().values():
            t.data, t.grad = device.to(t.data, where), None
        return self

    def astype(self, dtype: Any) -> Module:
        """Convert all state, in place (float64 for gradient checks); returns self."""
        for t in self.state().values():
            t.data, t.grad = t.data.astype(dtype), None
        return self

    def count_parameters(self) -> int:
        return sum(t.size for t in self.parameters())

    def macs(self, input_shape: Sequence[int]) -> int:
        """Multiply-accumulates of the convolutions and linear layers for ONE input of shape (C, H, W).

        Counted by sending that shape through and looking at the shapes that arise; no number is computed.
        """
        return sum(macs for _, _, macs in _traced(self, input_shape)[1])

    def depth(self, input_shape: Sequence[int]) -> int:
        """Layers with weights on the longest way from the input, (C, H, W), to the output: what the papers count.

        Projections and gates lie beside that way. RuntimeError under no_grad().
        """
        if not recording():
            raise RuntimeError("depth: follows the graph from output to input, and under no_grad() there is none")
        out, _ = _traced(self, input_shape)
        behind: dict[int, int] = {}
        for t in topological_order(out):
            step = t.creator
            before = max((behind.get(id(x), 0) for x in step.inputs), default=0) if step else 0
            behind[id(t)] = before + isinstance(step, (ops.Conv2d, ops.Linear))
        return behind[id(out)]

    def summary(self, input_shape: Sequence[int]) -> None:
        """Print a table of all layers: output shape, parameters and MACs for ONE input of shape (C, H, W).

        Blocks that repeat the one before them share a line.
        """
        _, ran = _traced(self, input_shape)
        shapes = {id(m): " x ".join(map(str, shape)) for m, shape, _ in ran}
        macs: Counter[int] = Counter()
        for m, _, n in ran:
            macs[id(m)] += n
        table = [("layer", "kind", "output", "parameters", "MACs"), *_rows("", self, shapes, macs),
                 ("total", "", "", f"{self.count_parameters():,}", f"{macs.total():,}")]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for row in table:
            texts, numbers = zip(row[:2], widths[:2], strict=True), zip(row[2:], widths[2:], strict=True)
            print("  ".join([*(text.ljust(w) for text, w in texts), *(n.rjust(w) for n, w in numbers)]))

    def describe(self) -> str:
        """What stands between the parentheses of repr, without children."""
        return ""

    def __repr__(self) -> str:
        children = []
        for first, *more in _alike(self.children(), repr):
            name = first[0] + (f" ... {more[-1][0]} ({len(more) + 1} alike)" if more else "")
            children.append(f"  {name}: {first[1]!r}".replace("\n", "\n  "))
        head = f"{type(self).__name__}({self.describe()}"
        return head + ("\n" + "\n".join(children) + "\n" if children else "") + ")"


def _alike(children: Iterable[tuple[str, Module]], key: Callable[[Module], Any]) -> list[list[tuple[str, Module]]]:
    """Children in order; numbered ones that follow each other and have the same key stand in one list."""
    def kind(child: tuple[str, Module]) -> Any:
        name, m = child
        return key(m) if name.rpartition(".")[2].isdigit() else name

    return [list(group) for _, group in groupby(children, kind)]


def _rows(name: str, module: Module, shapes: Mapping[int, str], macs: Counter[int]) -> Iterator[tuple[str, ...]]:
    """The lines of a summary below `module`, given every module's output shape and its own MACs by id."""
    own = sum(t.size for t in vars(module).values() if isinstance(t, Tensor) and t.requires_grad)
    children = list(module.children())
    if own or not children:
        kind = f"{type(module).__name__}({module.describe()})"
        yield name, kind, shapes.get(id(module), "not used"), f"{own:,}", f"{macs[id(module)]:,}"
    prefix = f"{name}." if name else ""
    for (first, block), *more in _alike(children, lambda m: (repr(m), shapes.get(id(m)))):
        yield from _rows(prefix + first, block, shapes, macs)
        if more:
            names = prefix + (more[0][0] if len(more) == 1 else f"{more[0][0]} ... {more[-1][0]}")
            total = sum(macs[id(part)] for _, m in more for _, part in m.modules())
            yield (names, f"{len(more)} more like {prefix}{first}", shapes.get(id(block), "not used"),
                   f"{sum(m.count_parameters() for _, m in more):,}", f"{total:,}")


def _traced(model: Module, input_shape: Sequence[int]) -> tuple[Tensor, list[tuple[Module, tuple[int, ...], int]]]:
    """Send an input of shape (C, H, W) through: the output, and for each module that ran itself, its output's shape
    without the batch, and its own MACs. In eval mode and by the shapes alone, so also large networks take no time."""
    ran = []

    def see(module: Any, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        macs = module.weight.size * out.size // out.shape[1] if module.multiplies else 0
        ran.append((module, out.shape[1:], macs))

    first = next((t.data for t in model.state().values()), np.zeros(0, np.float32))
    image = Tensor(device.of(first).zeros((1, *input_shape), first.dtype), requires_grad=True)
    with modes_kept(model), watched(see), kernels.using("shapes"):
        return model.eval()(image), ran
