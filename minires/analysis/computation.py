"""The computational graph of a Tensor as data: for a picture (plot.graph) or for Graphviz (`Graph.dot`)."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .. import nn, tap
from ..tensor import Tensor


class Node(NamedTuple):
    """One Tensor of the graph."""

    tensor: Tensor
    name: str              # "" if it was given none
    operation: str         # that made it: "Relu"; "" for a leaf
    inputs: tuple[int, ...]  # indices into Graph.nodes

    @property
    def kind(self) -> str:
        """"operation", "parameter" (a leaf whose gradient is wanted) or "constant"."""
        return "operation" if self.operation else "parameter" if self.tensor.requires_grad else "constant"

    def lines(self) -> list[str]:
        """What to write into its box: name and operation; shape, or the value of a single number; its gradient."""
        t = self.tensor
        head = " = ".join(filter(None, (self.name, self.operation))) or self.kind
        body = f"{t.item():.4g}" if t.size == 1 else " × ".join(map(str, t.shape))
        if t.grad is None:
            return [head, body]
        grad = f"grad {float(t.grad.reshape(())):.4g}" if t.size == 1 else f"|grad| {tap.norm(t.grad):.3g}"
        return [head, body, grad]


class Graph(NamedTuple):
    """Nodes in an order in which each stands behind its inputs; the last is the result."""

    nodes: list[Node]

    def dot(self) -> str:
        """The graph in Graphviz's language; `dot -Tsvg` draws it."""
        shapes = {"operation": "box, style=rounded", "parameter": "box, style=bold", "constant": "box, style=dashed"}
        text = ["digraph {", "  node [fontname=sans, fontsize=10];"]
        for i, node in enumerate(self.nodes):
            label = "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in node.lines())
            text.append(f'  {i} [label="{label}", shape={shapes[node.kind]}];')
            text += [f"  {j} -> {i};" for j in node.inputs]
        return "\n".join([*text, "}"]) + "\n"


def graph(result: Tensor, names: Mapping[str, Any] | nn.Module | None = None, *, retain: bool = False) -> Graph:
    """The graph of all that `result` was computed from.

    names: {name: Tensor}, or a model, whose state's names are taken. Take the graph BEFORE backward(), which consumes
    it; drawn afterwards it shows the gradients of leaves, and those of intermediate results that `.retain_grad()` was
    called on: retain=True does so for all.
    """
    if isinstance(names, nn.Module):
        names = names.state()
    known = {id(t): name for name, t in (names or {}).items()}
    nodes: list[Node] = []
    place: dict[int, int] = {}
    stack = [(result, False)]
    while stack:  # iterative, as the engine's own sweep is; constants belong to the picture too
        t, ready = stack.pop()
        if id(t) in place:
            continue
        inputs = t.creator.inputs if t.creator is not None else ()
        if t.creator is not None and not inputs:
            raise RuntimeError("graph: backward() has consumed this graph; take the graph before it, and draw it after")
        if not ready:
            stack.append((t, True))
            stack += [(x, False) for x in reversed(inputs)]
            continue
        operation = type(t.creator).__name__ if t.creator is not None else ""
        place[id(t)] = len(nodes)
        nodes.append(Node(t, known.get(id(t), ""), operation, tuple(place[id(x)] for x in inputs)))
        if retain and operation:
            t.retain_grad()
    return Graph(nodes)
