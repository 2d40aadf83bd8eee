"""Write the API reference: one Markdown page for every public module, made from its docstrings.

The docstrings of minires are plain text with a few habits: `code` in backticks, `name: text` or aligned columns for
arguments, "Raises X if ..." on lines of their own, and indented lines for formulas and code. `markdown` turns these
habits into Markdown. `pages` writes the pages, with a Sphinx directive for every public name, so that the index, the
search and the links know it.
"""
from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import minires

PACKAGE = Path(minires.__file__).resolve().parent
WITHIN = {"plot": ("style",), "kernels": ("reference",)}  # modules of a package that are public, too, or shown in full
FREE = {"result", "results", "Input and output", "Source", "Sources"}  # what may stand before a colon, like an argument


# ------------------------------------------------------------------------------------- what there is to document


def modules() -> list[ModuleType]:
    """Return the public modules and packages, and the public modules inside a package, in alphabetical order."""
    rooms = [module for name in exported() if isinstance(module := getattr(minires, name), ModuleType)]
    return [module for room in rooms for module in
            (room, *(importlib.import_module(f"{room.__name__}.{inner}") for inner in WITHIN.get(title(room), ())))]


def exported() -> list[str]:
    """Return the names that minires/__init__.py lists as public, those that it loads at first use included."""
    lists = [node.value for node in tree_of(PACKAGE / "__init__.py").body + _later()
             if isinstance(node, (ast.Assign, ast.AugAssign)) and "__all__" in ast.unparse(node).partition("=")[0]]
    return sorted({name for one in lists for name in ast.literal_eval(one)})


def _later() -> list[ast.stmt]:
    """Return the statements of minires/__init__.py that are there for type checkers."""
    return [node for branch in tree_of(PACKAGE / "__init__.py").body if isinstance(branch, ast.If)
            for node in branch.body]


def names(module: ModuleType) -> list[str]:
    """Return the public names of a module, in alphabetical order: those it lists, or those that it defines."""
    if module is minires:
        return [name for name in exported() if not isinstance(getattr(minires, name), ModuleType)]
    if listed := getattr(module, "__all__", None):
        return sorted(listed, key=str.lower)
    tree, found = tree_of(source_of(module)), set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}
        elif isinstance(node, ast.ImportFrom):  # `from .x import y as y`, or in a package's own file: y is public
            inside = hasattr(module, "__path__") and node.level == 1
            found |= {alias.name for alias in node.names if inside or alias.asname == alias.name}
    return sorted((name for name in found if not name.startswith("_")), key=str.lower)


def source_of(module: ModuleType) -> Path:
    """Return the file of a module."""
    return Path(inspect.getfile(module)).resolve()


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def home_of(module: ModuleType, name: str) -> ModuleType:
    """Return the module whose file defines a name: the module itself, or one that it imports the name from."""
    for node in tree_of(source_of(module)).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name and node.module:
                    base = module.__name__ if hasattr(module, "__path__") else module.__name__.rpartition(".")[0]
                    base = ".".join(base.split(".")[:len(base.split(".")) - (node.level - 1)]) if node.level else ""
                    return importlib.import_module(f"{base}.{node.module}".strip("."))
    if module is minires:  # loaded at first use, so no import statement names it
        return importlib.import_module(getattr(minires, name).__module__)
    return module


def place(module: ModuleType, name: str) -> tuple[Path, int] | None:
    """Return (file, line) of the definition of a name, which may have a dot: "Tensor.backward". None if there is none.
    """
    first, _, rest = name.partition(".")
    path = source_of(home_of(module, first))
    body: Iterable[ast.stmt] = tree_of(path).body
    found = _defined(body, first)
    if found is not None and rest and isinstance(found, ast.ClassDef):
        found = _defined(found.body, rest)
    return (path, found.lineno) if found is not None else None


def _defined(body: Iterable[ast.stmt], name: str) -> ast.stmt | None:
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            return node
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(n, ast.Name) and n.id == name for target in targets for n in ast.walk(target)):
                return node
    return None


# ------------------------------------------------------------------------------------------ docstring to Markdown

CODE = re.compile(r"(`+)(.+?)\1")
SPECIAL = re.compile(r"([\\*_\[\]<>$|#~{}])")


def escaped(text: str) -> str:
    """Return text in which Markdown sees no markup but `code`."""
    parts, at = [], 0
    for code in CODE.finditer(text):
        parts += [SPECIAL.sub(r"\\\1", text[at:code.start()]), f"``{code[2]}``" if "`" in code[2] else f"`{code[2]}`"]
        at = code.end()
    parts.append(SPECIAL.sub(r"\\\1", text[at:]).replace("`", r"\`"))
    return re.sub(r"^(\d+)([.)])|^([-+:%=])", lambda m: f"{m[1]}\\{m[2]}" if m[1] else f"\\{m[3]}", "".join(parts))


def markdown(doc: str | None, known: Iterable[str] = ()) -> str:
    """Return a docstring as Markdown.

    known: the names that may begin a line "name: text", that is, of the arguments and attributes
    """
    known, out = {*known, *FREE}, []
    for part in _paragraphs(_cleaned(doc or "")):
        if part[0].startswith(" "):
            out.append(_fenced(part))
        elif (rows := _rows(part)) is not None:
            out.append("\n".join(rows))
        else:
            out += _items(part, known)
    return "\n\n".join(out)


def _cleaned(doc: str) -> str:
    """Return a docstring without its margin, which the line of the closing quotes shows if all its text is indented."""
    first, *lines = doc.expandtabs().split("\n")
    margins = [len(line) - len(line.lstrip()) for line in lines if line.strip()]
    if lines and not lines[-1].strip():
        margins.append(len(lines[-1]))
    return "\n".join([first.strip(), *(line[min(margins, default=0):].rstrip() for line in lines)]).strip("\n")


def _paragraphs(text: str) -> Iterator[list[str]]:
    """Yield the paragraphs, each as its lines. Indented paragraphs that follow each other are one."""
    block: list[str] = []
    for paragraph in re.split(r"\n[ \t]*\n", text):
        lines = paragraph.split("\n")
        # An indented part within a paragraph, without a blank line before it, belongs to the line above it.
        if block and not (block[0].startswith(" ") and lines[0].startswith(" ")):
            yield block
            block = []
        block += ([""] if block else []) + lines
    if any(block):
        yield block


def _fenced(lines: list[str]) -> str:
    width = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    code = "\n".join(line[width:].rstrip() for line in lines)
    try:
        tree = ast.parse(code)
        python = any(isinstance(node, (ast.Call, ast.With, ast.Assign, ast.Import)) for node in ast.walk(tree))
    except SyntaxError:
        python = False
    return f"```{'python' if python else 'text'}\n{code}\n```"


ALIGNED = re.compile(r"(?P<left>\S(?:.{0,38}?[^\s.:;,])?) {2,}(?P<right>\S.*)")


def _rows(lines: list[str]) -> list[str] | None:
    """Return aligned columns as a list of definitions, or as they are if there are more than two; None if not aligned.
    """
    found: list[tuple[str, list[str]]] = []
    for line in lines:
        row = ALIGNED.fullmatch(line)
        if row and not line.startswith(" "):
            found.append((row["left"], [row["right"]]))
        elif line.startswith("  ") and found:
            found[-1][1].append(line.strip())
        else:
            return None
    if any(ALIGNED.fullmatch(text) for _, right in found for text in right):
        return ["```text", *lines, "```"]
    out = []
    for left, right in found:
        out += [_term(left), f": {escaped(' '.join(right))}", ""]
    return out[:-1]


def _term(text: str) -> str:
    """Return what an argument's description begins with: its names as code, and other words as they are."""
    if re.fullmatch(r"[\w.*]+(, [\w.*]+)*", text):
        return ", ".join(f"`{name}`" for name in text.split(", "))
    return f"`{text}`" if re.search(r"[{}\[\]=]", text) else escaped(text)


def _items(lines: list[str], known: set[str]) -> list[str]:
    """Return the parts of a paragraph: sentences, arguments, exceptions, and indented code below a line."""
    items: list[tuple[str, list[str]]] = []  # (kind, lines)
    for line in lines:
        head = re.match(r"(\*{0,2}[\w.]+(?:, \*{0,2}[\w.]+)*|Input and output)(?: \([^)]*\))?: ", line)
        if head and all(name.strip("*") in known for name in head[1].split(", ")):
            items.append(("argument", [line]))
        elif line.startswith("Raises "):
            items.append(("raises", [line]))
        elif line.startswith("Returns ") and items:
            items.append(("returns", [line]))
        elif items:
            items[-1][1].append(line.strip())
        else:
            items.append(("text", [line]))
    return [_item(kind, " ".join(text)) for kind, text in items]


def _item(kind: str, text: str) -> str:
    if kind == "argument":
        head, _, rest = text.partition(": ")
        return f"{_term(head)}\n: {escaped(rest)}"
    if kind == "raises":
        return re.sub(r"^Raises (\w+)", r"**Raises** `\1`", escaped(text))
    if kind == "returns":
        return re.sub(r"^Returns", "**Returns**", escaped(text))
    return escaped(text)


# ------------------------------------------------------------------------------------------------- signatures


def signature(value: Any) -> str:
    """Return the signature of a function or class, as its source has it: "(x: Tensor, axis: Axis = None) -> Tensor".

    The result is "" for an object without one.
    """
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    parts: list[str] = []
    kinds = [p.kind for p in found.parameters.values()]
    for i, p in enumerate(found.parameters.values()):
        if p.kind is p.KEYWORD_ONLY and p.VAR_POSITIONAL not in kinds and kinds.index(p.KEYWORD_ONLY) == i:
            parts.append("*")
        star = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        text = f"{star}{p.name}"
        if p.annotation is not p.empty:
            text += f": {_type(p.annotation)}"
        if p.default is not p.empty:
            text += f" = {_value(p.default)}" if p.annotation is not p.empty else f"={_value(p.default)}"
        parts.append(text)
    returns = "" if found.return_annotation is found.empty or isinstance(value, type) else \
        f" -> {_type(found.return_annotation)}"
    return f"({', '.join(parts)}){returns}"


def _type(annotation: Any) -> str:
    annotation = getattr(annotation, "__forward_arg__", annotation)
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    return text.replace("typing.", "").strip("'\"")


def _value(default: Any) -> str:
    text = default.__name__ if callable(default) and hasattr(default, "__name__") else repr(default)
    try:
        ast.parse(text, mode="eval")
    except SyntaxError:
        return "..."
    return text


# ------------------------------------------------------------------------------------------------------- pages


@functools.cache
def pages() -> dict[str, str]:
    """Return {name of a page: its Markdown} of the whole reference."""
    shown = modules()
    return {"index": _index(shown), "minires": _page(minires), **{title(m): _page(m) for m in shown}}


def title(module: ModuleType) -> str:
    """Return the name of a module's page: "ops", "plot.style"."""
    return module.__name__.removeprefix("minires.")


def _index(shown: list[ModuleType]) -> str:
    rows = []
    for module in shown:
        first = escaped(re.split(r"(?<=[.])\s", " ".join((module.__doc__ or "").split()))[0])
        rows.append(f"| [{title(module)}]({title(module)}.md) | {first} |")
    toc = "\n".join(["minires", *map(title, shown)])
    return f"""# API reference

The reference is made from the docstrings, so it says what the source says. These are the public names of minires
{minires.__version__}; the names of the package itself, such as `minires.Tensor`, are on [their own page](minires.md).

| module | |
|---|---|
{chr(10).join(rows)}

```{{toctree}}
:hidden:

{toc}
```
"""


def _page(module: ModuleType) -> str:
    heading = "minires: the names of the package itself" if module is minires else module.__name__
    out = [f"# {heading}", f"```{{py:module}} {module.__name__}\n```", markdown(module.__doc__)]
    groups: dict[str, list[str]] = {}
    for name in names(module):
        groups.setdefault(home_of(module, name).__name__, []).append(name)
    package = hasattr(module, "__path__") and module is not minires
    own = [module.__name__, *sorted(home for home in groups if home != module.__name__)]
    for home in own:
        inside = groups.get(home, [])
        if package and home != module.__name__ and home.startswith(module.__name__):
            part = importlib.import_module(home)
            path = source_of(part).relative_to(PACKAGE.parent).as_posix()
            out += [f"## {Path(path).name}", markdown(part.__doc__), f"Source: [{path}](/{path})"]
        for name in _by_kind(module, inside):
            out.append(entry(module, name))
    return "\n\n".join(part for part in out if part) + "\n"


def _by_kind(module: ModuleType, inside: list[str]) -> list[str]:
    """Return functions first, then classes, then everything else."""
    def kind(name: str) -> int:
        value = getattr(module, name)
        if isinstance(value, type):
            return 2 if issubclass(value, minires.Function) and value is not minires.Function else 1
        return 0 if callable(value) else 3
    return sorted(inside, key=kind)


def entry(module: ModuleType, name: str) -> str:
    """Return the description of one public name, as a directive of Sphinx's Python domain."""
    value = getattr(module, name)
    if isinstance(value, ModuleType):
        if any(value is other for other in modules()):
            return f"## {name}\n\nSee [{value.__name__}]({title(value)}.md)."
        return f"## {name}\n\n```{{py:module}} {value.__name__}\n```\n\n{markdown(value.__doc__)}"
    if isinstance(value, functools.partial):
        given = ", ".join([*map(repr, value.args), *(f"{key}={v!r}" for key, v in value.keywords.items())])
        return directive("py:function", name + signature(value), module,
                         f"The function `{value.func.__name__}({given}, ...)`, with its other arguments.")
    if (other := _documented_elsewhere(module, name, value)) is not None:
        kind = "py:class" if isinstance(value, type) else "py:function"
        return directive(kind, name + signature(value), module, f"This is `{other}`.")
    if isinstance(value, type):
        return directive("py:class", name + signature(value), module, _class(module, name, value), fence=7)
    if callable(value) and not _is_alias(value):
        kind = "py:function"
        text = markdown(value.__doc__, _parameters(value)) if value.__doc__ else _one_line(module, name)
        return directive(kind, name + signature(value), module, text)
    return directive("py:data", name, module, _data(module, name, value))


def _is_alias(value: Any) -> bool:
    return getattr(value, "__module__", "") in ("typing", "types") or hasattr(value, "__origin__")


def _documented_elsewhere(module: ModuleType, name: str, value: Any) -> str | None:
    """Return the full name under which a name that the module only passes on is documented; else None."""
    home = home_of(module, name)
    if home is module or module is minires or home.__name__.startswith(f"{module.__name__}."):
        return None
    public = {m.__name__ for m in modules()}
    return f"{home.__name__}.{name}" if home.__name__ in public and name in names(home) else None


def directive(kind: str, what: str, module: ModuleType, text: str, fence: int = 5) -> str:
    """Return a directive with its content."""
    ticks = "`" * fence
    return f"{ticks}{{{kind}}} {what}\n:module: {module.__name__}\n\n{text}\n{ticks}"


def _parameters(value: Any) -> set[str]:
    try:
        return set(inspect.signature(value).parameters)
    except (TypeError, ValueError):
        return set()


def _one_line(module: ModuleType, name: str) -> str:
    """Return the source of a function whose code is its documentation, and of the Function that it applies."""
    home = home_of(module, name)
    source = _source(home, name)
    applied = re.search(r"(\w+)\.apply", source)
    step = _source(home_of(home, applied[1]), applied[1]) if applied else ""
    return f"```python\n{f'{step}{chr(10) * 3}' if step else ''}{source}\n```"


def _source(home: ModuleType, name: str) -> str:
    """Return the lines of a file that define a function or class; "" if it does not define the name."""
    node = _defined(tree_of(source_of(home)).body, name)
    lines = source_of(home).read_text(encoding="utf-8").splitlines()
    return "\n".join(lines[node.lineno - 1:node.end_lineno]) if node is not None else ""


def _class(module: ModuleType, name: str, value: type) -> str:
    path = source_of(home_of(module, name))
    node = _defined(tree_of(path).body, name)
    lines = path.read_text(encoding="utf-8").splitlines()
    members = list(getattr(node, "body", []))
    own = {attribute.attr for n in ast.walk(node) if isinstance(n, (ast.Assign, ast.AnnAssign))
           for attribute in ast.walk(n) if isinstance(attribute, ast.Attribute)
           and isinstance(attribute.ctx, ast.Store)} if node else set()
    fields = [n for n in members if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
              and not n.target.id.startswith("_")]
    known = {*own, *_parameters(value), *(f.target.id for f in fields)}
    doc = value.__doc__ if "__doc__" in vars(value) and not _generated(value) else ""
    out = [markdown(doc, known)]
    if not out[0] and issubclass(value, minires.Function):
        out = [f"```python\n{_source(home_of(module, name), name)}\n```"]
    out.append("\n".join(_field(f, _comment(lines, f)) for f in fields))
    for n in members:
        if isinstance(n, ast.FunctionDef) and not n.name.startswith("_") and not issubclass(value, minires.Function):
            out.append(_method(value, n))
    if value is minires.Function:
        out += [_method(value, n) for n in members if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
    return "\n\n".join(part for part in out if part)


def _field(node: ast.AnnAssign, said: str) -> str:
    value = f" = {ast.unparse(node.value)}" if node.value is not None else ""
    return f"- `{ast.unparse(node.target)}: {ast.unparse(node.annotation)}{value}`{said and f': {escaped(said)}'}"


def _generated(value: type) -> bool:
    """Return whether Python wrote the docstring: "Step(step: int, loss: float, ...)"."""
    return (value.__doc__ or "").startswith(f"{value.__name__}(")


def _comment(lines: list[str], node: ast.AnnAssign) -> str:
    """Return the comment after a field, with the comment lines that continue it."""
    end = node.end_lineno or node.lineno
    found = [lines[end - 1][node.end_col_offset or 0:].partition("#")[2].strip()]
    for line in lines[end:]:
        if not found[0] or not re.match(r" {12,}#", line):
            break
        found.append(line.partition("#")[2].strip())
    return " ".join(found).strip()


def _method(value: type, node: ast.FunctionDef) -> str:
    kinds = {ast.unparse(d) for d in node.decorator_list}
    member = inspect.getattr_static(value, node.name, None)
    function = getattr(member, "__func__", member)
    if isinstance(member, property) or "property" in kinds:
        function = getattr(member, "fget", None)
        returns = f"\n:type: {ast.unparse(node.returns)}" if node.returns else ""
        return f"`````{{py:property}} {node.name}{returns}\n\n{markdown(ast.get_docstring(node))}\n`````"
    text = signature(function) if callable(function) else ""
    bound = "staticmethod" not in kinds
    text = re.sub(r"^\((self|cls)(, )?", "(", text) if bound else text
    option = "\n:classmethod:" if "classmethod" in kinds else "\n:staticmethod:" if not bound else ""
    doc = markdown(ast.get_docstring(node), _parameters(function))
    return f"`````{{py:method}} {node.name}{text}{option}\n\n{doc}\n`````"


def _data(module: ModuleType, name: str, value: Any) -> str:
    home = home_of(module, name)
    path = source_of(home)
    node = _defined(tree_of(path).body, name)
    if node is None:
        return ""
    lines = path.read_text(encoding="utf-8").splitlines()
    above = []
    for line in reversed(lines[:node.lineno - 1]):
        if not line.startswith("# "):
            break
        above.append(line.removeprefix("# "))
    after = lines[(node.end_lineno or 1) - 1][node.end_col_offset or 0:].partition("#")[2].strip()
    said = escaped(" ".join([*reversed(above), after]).strip())
    code = ast.get_source_segment(path.read_text(encoding="utf-8"), node) or ""
    code = code if len(code) < 1500 else f"{code[:1500]} ..."
    return f"{said}\n\n```python\n{code}\n```"
