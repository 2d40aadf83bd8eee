"""Plant a bug: change one expression or statement of a library function for the duration of a test.

A pattern in Python finds the place in the syntax tree of the function. Spaces, comments and line breaks do not count. A
local variable or an attribute of self in the pattern may have another name in the function, if one name always stands
for one thing and only one place matches. So a renamed variable breaks no test. ANY in the pattern matches every
expression. The replacement may use all names of the pattern, and ARG1, ARG2, ... for the parameters of the function
without self.
"""

import __future__

import ast
import builtins
import copy
import inspect
import textwrap

PARAMETER = "ARG"  # followed by a number
UNIMPORTANT = {"ctx", "kind", "type_comment"}


def plant(monkeypatch, owner, name, *changes):
    """Change the function `owner.name` until monkeypatch undoes it. `changes` are old, new, old, new, ..."""
    original = inspect.getattr_static(owner, name)
    tree = changed(tree_of(original), original.__globals__, *changes)
    made = {}
    code = compile(tree, f"<a bug in {name}>", "exec", __future__.annotations.compiler_flag)
    exec(code, original.__globals__, made)
    monkeypatch.setattr(owner, name, made[name])
    assert inspect.getattr_static(owner, name) is made[name] is not original


def tree_of(function):
    return ast.parse(textwrap.dedent(inspect.getsource(function)))


def changed(tree, names, *changes):
    """Return the tree of a function with every old replaced by its new. `names` are the globals of the function."""
    before = ast.dump(tree)
    bound = {f"{PARAMETER}{i}": ast.Name(p.arg, ast.Load()) for i, p in enumerate(parameters(tree), 1)}
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        pattern, replacement = parsed(old, new)
        place, bound = find(tree, pattern, names, bound, old)
        tree = Put(place, [Fill(bound).visit(node) for node in replacement]).visit(tree)
    assert ast.dump(tree) != before, f"{changes} change nothing in\n{ast.unparse(tree)}"
    return ast.fix_missing_locations(tree)


def parameters(tree):
    found = tree.body[0].args
    return [p for p in [*found.posonlyargs, *found.args, *found.kwonlyargs] if p.arg != "self"]


def parsed(old, new):
    """Return (pattern, nodes of the replacement): two expressions, or a statement and one or more statements."""
    try:
        return ast.parse(old, mode="eval").body, [ast.parse(new, mode="eval").body]
    except SyntaxError:
        (pattern,) = ast.parse(old).body
        return pattern, ast.parse(new).body


def find(tree, pattern, names, bound, text):
    """Return (the only matching node, what the names of the pattern stand for). First try the same names, then any."""
    for renamed in False, True:
        fits = []
        for place in ast.walk(tree):
            here = {name: node for name, node in bound.items() if name != "ANY"}
            if fit(pattern, place, here, names, renamed):
                fits.append((place, here))
        if fits:
            break
    assert len(fits) == 1, f"{text!r} is found {len(fits)} times in\n{ast.unparse(tree)}"
    return fits[0]


def fit(pattern, node, bound, names, renamed):
    """Return True if the node matches the pattern. Record in `bound` what the names of the pattern stand for."""
    if isinstance(pattern, ast.Name) and pattern.id == "ANY":
        return note("ANY", node, bound)
    if isinstance(pattern, ast.Name) and pattern.id.startswith(PARAMETER):
        return same(bound[pattern.id], node)
    if local(pattern, names):
        name = ast.unparse(pattern)
        if ast.unparse(node) != name and not (renamed and local(node, names)):
            return False
        taken = any(same(other, node) for key, other in bound.items()
                    if key not in (name, "ANY") and not key.startswith(PARAMETER))
        return note(name, node, bound) and not taken
    if type(pattern) is not type(node):
        return False
    for field, value in ast.iter_fields(pattern):
        if field in UNIMPORTANT:
            continue
        other = getattr(node, field)
        pairs = list(zip(value, other, strict=False)) if isinstance(value, list) else [(value, other)]
        if isinstance(value, list) and len(value) != len(other):
            return False
        for a, b in pairs:
            if not (fit(a, b, bound, names, renamed) if isinstance(a, ast.AST) else a == b):
                return False
    return True


def note(name, node, bound):
    return same(bound.setdefault(name, node), node)


def same(a, b):
    return ast.unparse(a) == ast.unparse(b)


def local(node, names):
    """Return True for a local variable or an attribute of self."""
    if isinstance(node, ast.Attribute):
        return isinstance(node.value, ast.Name) and node.value.id == "self"
    return isinstance(node, ast.Name) and node.id not in {"_", "self", *names} and not hasattr(builtins, node.id)


class Fill(ast.NodeTransformer):
    """Fill writes what the names of the pattern stand for into the replacement."""

    def __init__(self, bound):
        self.bound = bound

    def visit_Name(self, node):
        found = copy.deepcopy(self.bound.get(node.id, node))
        for part in ast.walk(found):
            if part is found and hasattr(part, "ctx"):
                part.ctx = node.ctx
        return found

    def visit_Attribute(self, node):
        found = self.bound.get(ast.unparse(node))
        if found is None:
            return self.generic_visit(node)
        found = copy.deepcopy(found)
        found.ctx = node.ctx
        return found


class Put(ast.NodeTransformer):
    """Put replaces one node by other nodes."""

    def __init__(self, place, nodes):
        self.place, self.nodes = place, nodes

    def visit(self, node):
        if node is not self.place:
            return super().visit(node)
        if isinstance(node, ast.expr):
            (node,) = self.nodes
            return node
        return self.nodes
