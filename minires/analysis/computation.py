"""This module returns the computational graph of a Tensor as data, for plot.graph or for Graphviz (`Graph.dot`)."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .. import nn, tap
from ..tensor import Tensor


class Node(NamedTuple):
    """A Node is one Tensor of the graph."""

    tensor: Tensor
    name: str              # "" if it has no name
    operation: str         # the operation that computed it, such as "Relu"; "" for a leaf
    inputs: tuple[int, ...]  # indices into Graph.nodes

    @property
    def kind(self) -> str:
        """Return "operation", "parameter" (a leaf that requires a gradient) or "constant"."""
        return "operation" if self.operation else "parameter" if self.tensor.requires_grad else "constant"

    def lines(self) -> list[str]:
        """Return the lines of text for the node's box.

        The lines are the name and the operation, the shape (or the value of a single number), and the gradient's norm
        (or the value of a single number) if there is a gradient.
        """
        t = self.tensor
        head = " = ".join(filter(None, (self.name, self.operation))) or self.kind
        body = f"{t.item():.4g}" if t.size == 1 else " × ".join(map(str, t.shape))
        if t.grad is None:
            return [head, body]
        grad = f"grad {float(t.grad.reshape(())):.4g}" if t.size == 1 else f"|grad| {tap.norm(t.grad):.3g}"
        return [head, body, grad]


class Graph(NamedTuple):
    """A Graph holds nodes in an order in which each node comes after its inputs. The last node is the result."""

    nodes: list[Node]

    def dot(self) -> str:
        """Return the graph in Graphviz's language, which `dot -Tsvg` draws."""
        shapes = {"operation": "box, style=rounded", "parameter": "box, style=bold", "constant": "box, style=dashed"}
        text = ["digraph {", "  node [fontname=sans, fontsize=10];"]
        for i, node in enumerate(self.nodes):
            label = "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in node.lines())
            text.append(f'  {i} [label="{label}", shape={shapes[node.kind]}];')
            text += [f"  {j} -> {i};" for j in node.inputs]
        return "\n".join([*text, "}"]) + "\n"


def graph(result: Tensor, names: Mapping[str, Any] | nn.Module | None = None, *, retain: bool = False) -> Graph:
    """Return the graph of everything that `result` was computed from.

    names    {name: Tensor}, or a model, whose names in `model.state()` are used
    retain   whether to call `.retain_grad()` on every intermediate result

    Call this function BEFORE backward(), which consumes the graph. A figure drawn after backward() shows the gradients
    of leaves, and the gradients of those intermediate results on which `.retain_grad()` was called.

    Raises RuntimeError if backward() has already consumed the graph.
    """
    if isinstance(names, nn.Module):
        names = names.state()
    known = {id(t): name for name, t in (names or {}).items()}
    nodes: list[Node] = []
    place: dict[int, int] = {}
    stack = [(result, False)]
    while stack:  # iterative, as in the engine's backward; constants belong to the figure too
        t, ready = stack.pop()
        if id(t) in place:
            continue
        inputs = t.creator.inputs if t.creator is not None else ()
        if t.creator is not None and not inputs:
            raise RuntimeError("graph: backward() has consumed this graph; call graph() before backward(), and draw "
                               "its result afterwards")
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
