"""A Module is a tree of Tensors. It finds its Tensors by walking its attributes in the order they were set.

The names equal torchvision's names (`layer1.0.bn1.running_mean`, `fc.weight`). Sizes are explicit, and randomness comes
from the argument `rng`.
"""
from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from typing import Any

import numpy as np

from .. import device, kernels, ops
from ..names import fits, shortened, unknown
from ..tensor import Tensor, recording, topological_order
from .hooks import modes_kept, watched, watchers


def misfits(mine: Mapping[str, Tensor], theirs: Mapping[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """Return the reasons why the arrays `theirs` cannot replace the state `mine`, as three lists of texts: missing
    names, unexpected names, wrong shapes."""
    return ([f"missing {n}" for n in mine if n not in theirs], [f"unexpected {n}" for n in theirs if n not in mine],
            [f"{n}: expected shape {t.shape}, got {getattr(theirs[n], 'shape', type(theirs[n]).__name__)}"
             for n, t in mine.items() if n in theirs and getattr(theirs[n], "shape", None) != t.shape])


def is_exactly(module: Any, kind: type) -> bool:
    """Return True if `module` is a `kind` and computes exactly what that class computes.

    The result is False for a subclass, for any other module, and for an object with a forward of its own, because these
    may compute something else. A fused operation may replace only layers for which the result is True.
    """
    return type(module) is kind and "forward" not in vars(module)


class Module:
    """Module is the base class of all layers.

    An attribute that is a Tensor is state; it is a parameter if and only if it requires a gradient. An attribute that
    is a Module is a child. Both are found in lists, tuples and dicts too, however nested, with names like
    `blocks.0.1.weight` and `heads.digits.bias`; in other containers they are refused.

    `train()` and `eval()` switch the mode of a Module and of all below it. A Module that overrides `train()` decides
    for all below itself. To fine-tune a part of a model, `freeze` the rest: frozen parameters get no gradient, and
    frozen BatchNorms keep their statistics. A layer that was put into eval mode alone (`model.bn1.eval()`) stays there
    while `train.step` and `train.fit` train the model, but not after `model.train()`.
    """

    training = True
    frozen = False                # True after freeze(): stays in eval mode
    kept: tuple[str, ...] = ()    # the names of the attributes whose requires_grad freeze() has changed
    multiplies = False            # True if the output is a product with self.weight, which counts as MACs
    unused: tuple[str, ...] = ()  # what published weights contain in addition, by the first part of its name

    def forward(self, *inputs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward()")

    def __call__(self, *inputs: Any) -> Tensor:
        out = self.forward(*inputs)
        for see in watchers.get():
            see(self, inputs, out)
        return out

    def children(self) -> Iterator[tuple[str, Module]]:
        return ((name, m) for name, m in _held(self) if isinstance(m, Module))

    def modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield (name, module) for this module (named "") and all modules below it, in the order they were set.

        Raises ValueError if a Module contains itself.
        """
        stack: list[tuple[str, Module | None]] = [(prefix, self)]
        above: list[Module] = []
        inside: set[int] = set()
        while stack:
            name, m = stack.pop()
            if m is None:  # everything below the last of `above` was yielded
                inside.remove(id(above.pop()))
                continue
            if id(m) in inside:
                raise ValueError(f"{name}: this {type(m).__name__} contains itself; a Module may not be an attribute "
                                 "of what it contains: pass what is needed as an argument instead")
            yield name, m
            below = [(f"{name}.{child}" if name else child, c) for child, c in m.children()]
            if below:
                above.append(m)
                inside.add(id(m))
                stack += [("", None), *reversed(below)]

    def state(self) -> dict[str, Tensor]:
        """Return {name: Tensor} of all parameters and running statistics."""
        found: dict[str, Tensor] = {}
        for prefix, m in self.modules():
            for name, t in _held(m):
                if isinstance(t, Tensor):
                    name = f"{prefix}.{name}" if prefix else name
                    if name in found:
                        raise ValueError(f"two Tensors of this {type(self).__name__} have the name {name!r}; use other "
                                         "keys in its dicts")
                    found[name] = t
        return found

    def parameters(self, *which: str | Module | Tensor) -> list[Tensor]:
        """Return the Tensors that an optimiser trains, in order, each once.

        which: the parts whose Tensors are returned, as for freeze(): net.parameters("layer[12]", "fc"). By default, the
            whole model.

        Raises ValueError for a name that does not exist.
        """
        state = self.state()
        chosen = self._chosen("parameters", which) if which else {id(t) for t in state.values()}
        return list({id(t): t for t in state.values() if t.requires_grad and id(t) in chosen}.values())

    def _chosen(self, operation: str, which: Sequence[Any]) -> set[int]:
        """Return the ids of the Modules and Tensors that `which` chooses, and of all that are in these Modules."""
        modules, state = dict(self.modules()), self.state()
        chosen: set[int] = set()
        for one in which:
            known: dict[str, Any] = {**state, **modules}
            names = [name for name, m in known.items() if one is m or (isinstance(one, str) and fits(name, one))]
            if not names and isinstance(one, str):
                raise unknown(operation, one, filter(None, modules))
            if not names:
                raise ValueError(f"{operation}: expected names, Modules or Tensors of this {type(self).__name__}, got "
                                 f"{'another ' * isinstance(one, Module | Tensor)}{type(one).__name__}")
            for part in map(known.__getitem__, names):
                chosen |= {id(part)} if isinstance(part, Tensor) else {
                    id(inside) for inside in (*(m for _, m in part.modules()), *part.state().values())}
        return chosen

    def load_state(self, arrays: Mapping[str, Any]) -> None:
        """Copy the arrays {name: array or Tensor} into the state.

        Raises ValueError, and changes nothing, unless all names and shapes match.
        """
        mine = self.state()
        arrays = {n: a.data if isinstance(a, Tensor) else a for n, a in arrays.items()}
        wrong = list(chain(*misfits(mine, arrays)))
        if wrong:
            raise ValueError(f"load_state: {len(wrong)} of {len(mine)} entries do not fit: " + "; ".join(wrong[:6]))
        for name, a in arrays.items():
            if (dtype := getattr(a, "dtype", None)) is not None and dtype.kind not in "fiub":
                raise ValueError(f"load_state: {name}: expected an array of real numbers, got {dtype}")
        # First convert all arrays, so that an error in one leaves the whole state unchanged.
        new = [device.of(t.data).array(arrays[name], dtype=t.dtype) for name, t in mine.items()]
        for t, data in zip(mine.values(), new, strict=True):
            t.data = data

    def train(self, on: bool = True) -> Module:
        stack: list[Module] = [self]
        seen: set[int] = set()
        while stack:
            m = stack.pop()
            if m is not self and m.decides():
                m.train(on)
            elif id(m) not in seen:
                seen.add(id(m))
                m.training = on and not m.frozen
                stack += [child for _, child in m.children()]
        return self

    def decides(self) -> bool:
        """Return True if this module has a train() of its own."""
        return type(self).train is not Module.train or "train" in vars(self)

    def resume_training(self) -> Module:
        """Put the module into train mode if it is in eval mode. Returns self.

        If it is in train mode, layers that were put into eval mode one by one stay there; only modules with a train()
        of their own have it called. `train.step` and the analyses in train mode begin with this.
        """
        if not self.training or self.decides():
            return self.train()
        for m in [m for _, m in self.modules() if m.decides() and m.training]:
            m.train()
        return self

    def freeze(self, *which: str | Module | Tensor) -> Module:
        """Stop the training of a part of the model.

        The parameters of this part require no gradient and stay unchanged. Its modules stay in eval mode, even after
        train(): a BatchNorm normalises by its running statistics, which stay unchanged, and a Dropout drops nothing.

        which: names of modules, of lists of modules or of parameters ("layer1", "layer1.0.conv1", "fc.bias"), patterns
        for such names ("layer[12]", "*.bn?"), or the Modules and Tensors themselves. By default, the whole model.

        An optimiser that was made before leaves frozen parameters unchanged. Returns self.
        Raises ValueError for a name that does not exist.
        """
        return self._freeze(which, True)

    def unfreeze(self, *which: str | Module | Tensor) -> Module:
        """Train a frozen part again; `which` is as for freeze(). Returns self.

        Only the parameters that required a gradient before freeze() require one again.
        """
        return self._freeze(which, False)

    def _freeze(self, which: tuple[Any, ...], frozen: bool) -> Module:
        chosen = self._chosen("freeze" if frozen else "unfreeze", which or [self])
        for _, m in self.modules():
            whole = id(m) in chosen
            if whole and (m is not self or not any(m.children())):  # the model itself keeps its mode
                m.frozen = frozen
                m.training = self.training and not frozen
            for name, t in list(_held(m)):
                if not isinstance(t, Tensor) or id(t) not in chosen:
                    continue
                if frozen and t.requires_grad:
                    t.requires_grad, t.grad = False, None
                    m.kept = (*m.kept, name)
                elif not frozen and name in m.kept:
                    t.requires_grad = True
                    m.kept = tuple(other for other in m.kept if other != name)
        return self

    def eval(self) -> Module:
        return self.train(False)

    def to(self, where: str) -> Module:
        """Move all state to "cpu", "gpu" or "auto", in place. Drops the gradients. Returns self."""
        for t in self.state().values():
            t.data, t.grad = device.to(t.data, where), None
        return self

    def astype(self, dtype: Any) -> Module:
        """Convert all state to `dtype`, in place (float64 for gradient checks). Drops the gradients. Returns self."""
        for t in self.state().values():
            t.data, t.grad = t.data.astype(dtype), None
        return self

    def count_parameters(self) -> int:
        return sum(t.size for t in self.parameters())

    def macs(self, input_shape: Sequence[int]) -> int:
        """Return the multiply-accumulates (MACs) of the convolutions and linear layers for ONE input.

        input_shape: (C, H, W). Only shapes are propagated through the model; no number is computed.
        """
        return sum(macs for _, _, macs in _traced(self, input_shape)[1])

    def depth(self, input_shape: Sequence[int]) -> int:
        """Return the number of layers with weights on the longest path from input to output, as the papers count.

        input_shape: (C, H, W). Projections and gates are not on that path.
        Raises RuntimeError under no_grad().
        """
        if not recording():
            raise RuntimeError("depth: needs the graph of a forward pass, and no_grad() records no graph; call depth "
                               "outside no_grad()")
        out, _ = _traced(self, input_shape)
        behind: dict[int, int] = {}
        for t in topological_order(out):
            step = t.creator
            before = max((behind.get(id(x), 0) for x in step.inputs), default=0) if step else 0
            behind[id(t)] = before + isinstance(step, (ops.Conv2d, ops.Linear))
        return behind[id(out)]

    def summary(self, input_shape: Sequence[int]) -> None:
        """Print a table of all layers: output shape, parameters and MACs for ONE input.

        input_shape: (C, H, W). Consecutive equal blocks share a line.

        A line has 80 characters at most: "/2" is a stride, the padding is left out, and if necessary the middle of a
        long name.
        """
        _, ran = _traced(self, input_shape)
        shapes = {id(m): "x".join(map(str, shape)) for m, shape, _ in ran}
        macs: Counter[int] = Counter()
        for m, _, n in ran:
            macs[id(m)] += n
        table = [("layer", "kind", "output", "parameters", "MACs"), *_rows("", self, shapes, macs, set()),
                 ("total", "", "", f"{self.count_parameters():,}", f"{macs.total():,}")]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        room = max(WIDTH - sum(widths[1:]) - len("      "), 8)  # for the names
        table = [(shortened(name, room), *rest) for name, *rest in table]
        widths[0] = min(widths[0], room)
        for row in table:
            texts, numbers = zip(row[:2], widths[:2], strict=True), zip(row[2:], widths[2:], strict=True)
            print("  ".join([*(text.ljust(w) for text, w in texts), " ".join(n.rjust(w) for n, w in numbers)]))

    def describe(self) -> str:
        """Return the text between the parentheses of repr, without the children."""
        return ""

    def __repr__(self) -> str:
        looks: dict[tuple[str, str, tuple[tuple[str, int], ...]], int] = {}  # kind, description, children: its number
        number: dict[int, int] = {}
        for _, m in reversed(list(self.modules())):  # children before their parents
            rows = []
            for first, *more in _alike(m.children(), lambda child: number[id(child)]):
                name = first[0] + (f" ... {more[-1][0]} ({len(more) + 1} alike)" if more else "")
                rows.append((f"{name}: ", number[id(first[1])]))
            number[id(m)] = looks.setdefault((type(m).__name__, m.describe(), tuple(rows)), len(looks))
        known, lines = list(looks), []
        stack: list[tuple[int, str, int | None]] = [(0, "", number[id(self)])]
        while stack:
            depth, text, look = stack.pop()
            if look is not None:
                kind, description, below = known[look]
                text += f"{kind}({description}" + ")" * (not below)
                if below:
                    stack += [(depth, ")", None), *((depth + 1, name, child) for name, child in reversed(below))]
            lines.append(("\n" + text).replace("\n", "\n" + "  " * depth)[1:])
        return "\n".join(lines)


def _held(module: Module) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of every Module and Tensor in the attributes, and in lists, tuples and dicts there."""
    for name, v in vars(module).items():
        if isinstance(v, (Module, Tensor)):
            yield name, v
        elif isinstance(v, _CONTAINERS):
            yield from _contained(module, name, v)


_CONTAINERS = (list, tuple, dict, set, frozenset, deque)


def _contained(module: Module, name: str, container: Any, inside: tuple[int, ...] = ()) -> Iterator[tuple[str, Any]]:
    if id(container) in inside:
        raise ValueError(f"{name}: this {type(container).__name__} of a {type(module).__name__} contains itself")
    ordered = isinstance(container, (list, tuple, dict))
    for key, v in container.items() if isinstance(container, dict) else enumerate(container):
        if isinstance(v, (Module, Tensor)):
            if not ordered:
                raise TypeError(f"{name}: a {type(module).__name__} holds a {type(v).__name__} in a "
                                f"{type(container).__name__}, where it would not be trained; use a list or a dict")
            yield f"{name}.{key}", v
        elif isinstance(v, _CONTAINERS):
            yield from _contained(module, f"{name}.{key}", v, (*inside, id(container)))


def _alike(children: Iterable[tuple[str, Module]], key: Callable[[Module], Any]) -> list[list[tuple[str, Module]]]:
    """Return the children in order, in lists: consecutive numbered children with the same key share a list."""
    def kind(child: tuple[str, Module]) -> Any:
        name, m = child
        return key(m) if name.rpartition(".")[2].isdigit() else name

    return [list(group) for _, group in groupby(children, kind)]


WIDTH = 80  # characters of a line of a summary


def _brief(module: Module) -> str:
    """Return a module's kind and options for a summary, which shows the channels in its column of shapes."""
    text = re.sub(r"\((\d+), \1\)", r"\1", module.describe())
    text = re.sub(r", stride (\d+)", r", /\1", text)  # as He et al. 2015 write it in Fig. 3
    text = re.sub(r", /1(?!\d)|, padding (?:\d+|\(\d+, \d+\))|^\d+ -> \d+, ", "", text)
    return f"{type(module).__name__}({text})"


def _rows(name: str, module: Module, shapes: Mapping[int, str], macs: Counter[int], counted: set[int]
          ) -> Iterator[tuple[str, ...]]:
    """Yield the lines of a summary for `module` and below, given the output shape and own MACs of each module by id.

    counted: the ids of the Modules and Tensors in earlier lines. What is shared counts in its first line only, so that
        the lines add up to the total
    """
    def new(things: Iterable[Any]) -> list[Any]:
        found = list({id(thing): thing for thing in things if id(thing) not in counted}.values())
        counted.update(map(id, found))
        return found

    def numbers(modules: Iterable[Module]) -> tuple[str, str]:
        fresh = new(modules)
        tensors = new(t for m in fresh for _, t in _held(m) if isinstance(t, Tensor) and t.requires_grad)
        return f"{sum(t.size for t in tensors):,}", f"{sum(macs[id(m)] for m in fresh):,}"

    children = list(module.children())
    if not children or any(isinstance(t, Tensor) and t.requires_grad for _, t in _held(module)):
        yield name, _brief(module), shapes.get(id(module), "not used"), *numbers([module])
    prefix = f"{name}." if name else ""
    for (first, block), *more in _alike(children, lambda m: (repr(m), shapes.get(id(m)))):
        yield from _rows(prefix + first, block, shapes, macs, counted)
        if more:
            names = prefix + (more[0][0] if len(more) == 1 else f"{more[0][0]} ... {more[-1][0]}")
            yield (names, f"{len(more)} more like {prefix}{first}", shapes.get(id(block), "not used"),
                   *numbers(part for _, m in more for _, part in m.modules()))


def _traced(model: Module, input_shape: Sequence[int]) -> tuple[Tensor, list[tuple[Module, tuple[int, ...], int]]]:
    """Run an input of shape (C, H, W), and return the output and, for each module that ran, (the module, its output
    shape without the batch, its own MACs). This runs in eval mode on shapes alone, so large networks take no time."""
    ran = []

    def see(module: Any, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        macs = module.weight.size * out.size // len(module.weight) if module.multiplies else 0
        ran.append((module, out.shape[1:], macs))

    first = next((t.data for t in model.state().values()), np.zeros(0, np.float32))
    image = Tensor(device.of(first).zeros((1, *input_shape), first.dtype), requires_grad=True)
    with modes_kept(model), watched(see), kernels.using("shapes"):
        return model.eval()(image), ran
