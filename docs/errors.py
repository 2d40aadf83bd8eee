"""Find every error message of minires in its source, and write the page that lists them all, with what to do.

The list cannot become outdated, because it is read from the source. What to do is often part of the message: what was
expected, or an instruction after a semicolon. For other messages ADVICE says it. A test requires that every entry of
ADVICE still fits a message, and that every message is on the page.
"""
from __future__ import annotations

import ast
import builtins
import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import reference
from reference import PACKAGE, tree_of

HOLE = "…"  # what a message fills in: a name, a shape, a number


class Message(NamedTuple):
    """Holds one `raise` statement."""

    error: str  # the exception's name
    text: str   # the message, with HOLE for each value that it fills in
    path: str   # "minires/ops.py"
    line: int


# ---------------------------------------------------------------------------------------- reading the messages


@functools.cache
def messages() -> list[Message]:
    """Return every message that minires can raise, in the order of the source."""
    trees = {path: tree_of(path) for path in sorted(PACKAGE.rglob("*.py"))}
    errors = exceptions(trees.values())
    return [m for path, tree in trees.items() for m in _of_file(path, tree, errors)]


def exceptions(trees: Iterable[ast.Module]) -> set[str]:
    """Return the names of Python's exceptions and of those that the trees define."""
    found = {name for name, value in vars(builtins).items() if isinstance(value, type)
             and issubclass(value, Exception) and not issubclass(value, Warning)} | {"ArgumentTypeError"}
    classes = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
    while new := {c.name for c in classes if any(ast.unparse(b).rpartition(".")[2] in found for b in c.bases)} - found:
        found |= new
    return found


def _of_file(path: Path, tree: ast.Module, errors: set[str]) -> Iterator[Message]:
    """Yield the exceptions that a file makes, at a `raise` or in a function that returns one."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    for call in sorted(calls, key=lambda call: call.lineno):
        name = getattr(call.func, "id", "") or getattr(call.func, "attr", "")
        if name == "unknown":
            error, text = "UsageError", f"{_text(call.args[0])}: unknown name {HOLE}; did you mean {HOLE}?"
        elif name in errors:
            error, text = name, _text(call.args[0])
        else:
            continue
        text = re.sub(rf"{HOLE}(?:\s?{HOLE})+", HOLE, text)
        # Not a module's __getattr__, which uses Python's own words, and not a text that is made elsewhere.
        if name != "AttributeError" and len(re.sub(rf"{HOLE}|\W", "", text)) > 3:
            yield Message(error, text, path.relative_to(PACKAGE.parent).as_posix(), call.lineno)


def _text(node: ast.expr) -> str:
    """Return the text of an expression, with HOLE for what is only known when it runs."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return HOLE


# ---------------------------------------------------------------------------------------------- what to do

# (pattern for the error, a colon and the message; what to do). The first that fits decides.
ADVICE: list[tuple[str, str]] = [
    (r"^Refused: it is damaged|became shorter", "The file is not what its author wrote. Fetch it again, and compare "
     "its checksum if there is one."),
    (r"^Refused: .*(pickle|code|global|opcode|memo|stack)", "The file asks for code, or for something that a file of "
     "weights does not need. minires does not run it. Load the file with the program that wrote it, and save the "
     "arrays alone, as .safetensors or .npz."),
    (r"^Refused: ", "The file is not in the format that was expected, or is damaged. Fetch it again; if it is in "
     "another format, convert it with the program that wrote it."),
    (r"^Unavailable: ", "Nothing, unless you want the faster kernels: minires then uses its kernels in NumPy. "
     "`minires info` prints this reason. Install a C compiler, or name one in the environment variable CC."),
    (r": native kernels: |: nothing to (convolve|normalise)|kernels .native. were asked for", "These kernels were "
     "asked for by name. Leave MINIRES_KERNELS at `auto`, which uses them only where they fit; `minires info` says why "
     "they are not available."),
    (r"cublas|copy_all|channels on a GPU", "Use the CPU for this network (`device=\"cpu\"`), or set "
     "MINIRES_KERNELS=reference."),
    (r"No GPU|device .gpu. was requested", "See [on a GPU](gpu.md). `minires info` prints the reason."),
    (r"NotFinite", "The loss is NaN or infinite. The message names the layer that was first: use a smaller learning "
     "rate, and check the input's scale."),
    (r"\.(forward|backward) returned", "A Function of yours breaks the engine's rules: one array with the dtype of the "
     "inputs forward; one gradient for each input, with the input's shape and dtype, backward. See "
     "[your own layer](your-own-layer.md)."),
    (r"already consumed", "Each graph gives its gradients once. Run the forward pass again."),
    (r"cannot be read", "The named file is damaged, or was not written by minires. Restore it, or start the run in "
     "another folder."),
    (r"UsageError: .*unknown name", "Correct the spelling; the message lists the names that are most similar."),
    (r"NotImplementedError", "Define this method in your class."),
    (r"this model has no|the model has no", "The analysis or initialisation is for networks with this kind of layer; "
     "choose another one, or a network that has such layers."),
    (r"does not exist|there is no config|there is no option|is not found", "Name something that exists: check the "
     "spelling, the folder, and the options."),
]
# Where none of these fits: by the part of minires that raises it.
ELSEWHERE = {
    "analysis": "Compare the arguments with the [reference](../reference/analysis.md).",
    "cli": "`minires COMMAND --help` lists what the command takes.",
    "commands": "`minires COMMAND --help` lists what the command takes.",
    "course": "The message names the task and the file.",
    "datasets": "Compare the file or the arguments with the [reference](../reference/datasets.md).",
    "detection": "Compare the arguments with the [reference](../reference/detection.md).",
    "files": "The named file is damaged or of another kind. Fetch it again.",
    "gradient_check": "See [check gradients](gradient-checks.md).",
    "kernels": "The arrays do not fit each other. Compare their shapes with the operation's "
               "[reference](../reference/ops.md).",
    "models": "Compare the arguments with the [reference](../reference/models.md).",
    "names": "Correct the name or the pattern that the message quotes.",
    "nn": "Compare the arguments with the [reference](../reference/nn.md).",
    "ops": "Compare the shapes in the message with the operation's [reference](../reference/ops.md).",
    "plot": "Compare the arguments with the [reference](../reference/plot.md).",
    "recipes": "Compare the settings with `recipes.Recipe`.",
    "residual": "Compare the shapes in the message with the operation's [reference](../reference/residual.md).",
    "runs": "Start the run in another folder, or with the settings that the folder holds.",
    "tensor": "See [your own layer](your-own-layer.md).",
    "testing": "See [check gradients](gradient-checks.md).",
    "train": "Compare the arguments with `train.fit`.",
    "weights": "Compare the file's names with `model.state()`. See [fine-tune](fine-tune.md).",
}
PARTS = {  # heading: rooms
    "Tensors, operations and layers": ["tensor", "ops", "residual", "nn", "init", "models"],
    "Gradient checks": ["gradient_check", "testing", "exercise"],
    "Devices and kernels": ["device", "kernels", "cuda_graph"],
    "Training": ["optim", "train", "recipes", "evaluate"],
    "Weights and other files": ["weights", "files"],
    "Data sets": ["datasets"],
    "Looking inside": ["tap", "analysis", "plot"],
    "Detection and segmentation": ["detection"],
    "Runs and the command line": ["runs", "commands", "cli", "info", "names"],
    "The course": ["course"],
}
DO = re.compile(r"^\s*(use|give|convert|call|move|pass|put|wrap|check|try|load|save|run|set|fetch|leave|choose|take|"
                r"scale|install|reduce|make|start|name|delete|return|change|build|write|fix|add|raise|shorten|remove|"
                r"replace|did you mean|is |which |to_float|average_pool|np\.)", re.IGNORECASE)


def room_of(path: str) -> str:
    """Return the file or folder of minires that a path is in: "ops" for minires/ops.py."""
    return path.split("/")[1].removesuffix(".py")


def advice(message: Message) -> str | None:
    """Return what to do about a message, as Markdown; None if the message itself says it.

    A message says it with an instruction, or with what was expected. Then the advice is at most where to read more.
    """
    function = functions().get(re.split(r"[:,(]", message.text)[0])
    more = f"See `{function}`." if function else None
    if says_what_to_do(message.text):
        return more
    for pattern, text in ADVICE:
        if re.search(pattern, f"{message.error}: {message.text}"):
            return text
    if "expected" in message.text:
        return more
    return more or ELSEWHERE.get(room_of(message.path),
                                 "Compare the arguments with the [reference](../reference/index.md).")


@functools.cache
def functions() -> dict[str, str]:
    """Return {name: name with its module} of the public functions and classes whose name is in one module only."""
    found: dict[str, list[str]] = {}
    for module in reference.modules():
        for name in reference.names(module):
            if callable(getattr(module, name)):
                found.setdefault(name, []).append(f"{reference.title(module)}.{name}")
    return {name: places[0] for name, places in found.items() if len(places) == 1}


def says_what_to_do(text: str) -> bool:
    """Return whether the part after a semicolon, or a last sentence, begins like an instruction."""
    return "pip install" in text or any(DO.match(part) for part in re.split(r"[;.] ", text)[1:])


# -------------------------------------------------------------------------------------------------- the page


def page() -> str:
    """Return the list of all messages, in parts, as Markdown."""
    found = messages()
    out = []
    for heading, rooms in PARTS.items():
        mine = [m for room in rooms for m in found if room_of(m.path) == room]
        if mine:
            out += [f"### {heading}", *_listed(mine)]
    return "\n\n".join(out)


def _listed(found: list[Message]) -> Iterator[str]:
    seen: dict[tuple[str, str], list[Message]] = {}
    for m in found:
        seen.setdefault((m.error, m.text), []).append(m)
    for (error, text), places in seen.items():
        where = ", ".join(f"[{m.path.removeprefix('minires/')}:{m.line}](/{m.path}#L-{m.line})" for m in places)
        code = text.replace("`", "'").replace("\n", " ").strip()
        said = advice(places[0])
        yield f"`{error}` `{code}`\n: {said + ' ' if said else ''}({where})"
