"""Test the code base itself: imports, dtypes, memory, reproducibility, docstrings, sizes of files."""

import ast
import functools
import gc
import hashlib
import importlib
import json
import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from short import every

import minires
from minires import Function, Tensor, kernels, models, nn, no_grad, ops, optim, tap
from minires.kernels import blocked, native, reference

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(minires.__file__).resolve().parent
FILES = sorted(PACKAGE.rglob("*.py"))


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


# ------------------------------------------------------------------------------------------------- imports

# The layers from the lowest to the highest. A room (file or folder) imports only from lower layers and from itself.
LAYERS = [
    ["device"],
    ["kernels"],
    ["tensor"],
    ["ops"],
    ["residual", "init", "optim"],
    ["nn"],
    ["models", "weights", "tap", "cuda_graph", "evaluate", "gradient_check"],
    ["analysis", "train", "info", "testing"],
    ["detection"],
    ["plot"],
    ["runs"],
    ["commands"],
    ["course"],
    ["cli"],
]
HEIGHT = {room: height for height, rooms in enumerate(LAYERS) for room in rooms}
# These rooms belong to no layer: {room: all it may import}.
APART = {"names": set(), "files": {"names"}, "datasets": {"device", "names", "files"}, "recipes": {"names"},
         "exercise": set()}
# Only these rooms may import them: {room: which of them}.
ABOVE_APART = {"nn": {"names"}, "models": {"names"}, "weights": {"names", "files"}, "train": {"datasets", "recipes"},
               "detection": {"datasets", "names"}, "info": {"names"},
               "plot": {"names"},
               "runs": {"datasets", "names", "recipes", "files"}, "commands": set(APART),
               "course": {"names", "files"}, "cli": set(APART)}
FACADE = "__init__"  # minires/__init__.py has the public names; at import it may load any room except these
NOT_AT_START = {"plot", "detection", "commands", "course", "cli", "runs"}


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path, tree):
    """Yield (absolute module name, True if it runs when the file is imported) for every import, also in functions."""
    package = ["minires", *path.relative_to(PACKAGE).parts[:-1]]
    lazy = {id(n) for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.Lambda)) for n in ast.walk(f)}
    lazy |= {id(n) for f in ast.walk(tree) if isinstance(f, ast.If) and ast.unparse(f.test) == "TYPE_CHECKING"
             for branch in f.body for n in ast.walk(branch)}  # for type checkers only
    for node in ast.walk(tree):
        top = id(node) not in lazy
        if isinstance(node, ast.Import):
            yield from ((alias.name, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((f"{module}.{alias.name}", top) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from ((a.value, top) for a in node.args[:1] if isinstance(a, ast.Constant))


def test_the_reader_of_imports_reads_them_all(tmp_path):
    source = ("import a.b\nfrom .. import device\nfrom .x import y\ndef f():\n    import c\n    import_module('d')\n"
              "if TYPE_CHECKING:\n    import e\nelse:\n    import g\n")
    path = PACKAGE / "kernels" / "new.py"
    assert list(imports(path, ast.parse(source))) == [
        ("a.b", True), ("minires.device", True), ("minires.kernels.x.y", True), ("c", False), ("e", False),
        ("g", True), ("d", False)]


@functools.cache
def imports_of_all():
    return [(path, *found) for path in FILES for found in imports(path, tree_of(path))]


def test_imports_point_down():
    assert {room(path) for path in FILES} == {*HEIGHT, *APART, FACADE, "__main__"}, "add a new room to LAYERS"
    for path, name, top in imports_of_all():
        if not name.startswith("minires."):
            continue
        mine, other = room(path), name.split(".")[1]
        if other in (mine, "__version__") or mine == "__main__":
            continue
        if mine == FACADE:
            assert not (top and other in NOT_AT_START), f"minires/__init__.py loads {other} at import"
        elif mine in APART:
            assert other in APART[mine], f"{path.name} imports {other}, which APART does not allow for {mine}"
        elif other in APART:
            assert other in ABOVE_APART.get(mine, ()), f"{path.name} imports {other}"
        else:
            assert HEIGHT[other] < HEIGHT[mine], f"{path.name} imports {other}, which is not below {mine}"


ONLY_IN = {"cupy": "device", "cupyx": "device", "matplotlib": "plot", "PIL": "plot", "pytest": "testing"}
WHEN_USED = {"cupy", "cupyx", "tqdm", "threadpoolctl", "safetensors", "sklearn", "torch", "distributed", "IPython",
             "ipywidgets", "PIL", "nbgrader"}


def test_other_packages_are_imported_where_they_belong():
    for path, name, top in imports_of_all():
        package = name.partition(".")[0]
        if package in ("minires", "numpy", *sys.stdlib_module_names):
            continue
        assert package in {*ONLY_IN, *WHEN_USED}, f"{path.name} imports {package}, which is not a dependency"
        assert ONLY_IN.get(package, room(path)) == room(path), f"{path.name} imports {package}"
        assert not (top and package in WHEN_USED), f"{path.name} imports {package} before it is used"


def python(code, *options, **environment):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), **environment}
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_minires_loads_numpy_and_the_standard_library_only():
    code = "import json, sys, numpy\nold = {*sys.modules}\nimport minires\nprint(json.dumps([*{*sys.modules} - old]))"
    new = json.loads(python(code, "-W", "error"))
    assert {"minires", "minires.nn"} <= set(new)
    assert {name.partition(".")[0] for name in new} <= {"minires", "numpy", *sys.stdlib_module_names}
    assert not {f"minires.{name}" for name in NOT_AT_START} & set(new)


# -------------------------------------------------------------------------------------------- the source

LONGEST = 800


def test_no_file_is_too_long_to_read():
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {path: number for path, number in lines.items() if number > LONGEST} == {}


def test_no_name_hides_a_module():
    """`minires.a.b` is the module a/b.py, not a function of the same name from a/__init__.py."""
    modules = [".".join(("minires", *path.relative_to(PACKAGE).with_suffix("").parts)) for path in FILES]
    modules = [name for name in modules if not name.endswith(("__init__", "__main__"))]
    for name in modules:
        importlib.import_module(name)
    hidden = [name for name in modules
              if getattr(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2], None) is not sys.modules[name]]
    assert len(modules) > 60 and hidden == []


def test_the_top_level_stays_small():
    entries = [path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 32 and {"nn", "runs", "commands", "files", "plot"} <= set(entries)


def test_everything_public_has_a_docstring():
    """One-line Functions and functions of ops/ need no docstring, because their code is clear."""
    for path in FILES:
        tree, short = tree_of(path), room(path) == "ops"
        public = [n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith("_")]
        missing = [n.name for n in public if not ast.get_docstring(n)
                   and not (short and (isinstance(n, ast.ClassDef) or len(n.body) == 1))]
        assert ast.get_docstring(tree) and missing == [], path


def applied(statement):
    """Return the Functions that a statement of a module applies: A and B if it contains A.apply and B.apply."""
    return {n.value.id for n in ast.walk(statement)
            if isinstance(n, ast.Attribute) and n.attr == "apply" and isinstance(n.value, ast.Name)}


def gaps(tree):
    """Return {Function: (lines from its end to the first statement that applies it, lines from its start to the end of
    the last such statement, the Functions that begin in between)}."""
    functions = [n for n in tree.body if isinstance(n, ast.ClassDef) and ast.unparse(n.bases[0]) == "Function"]
    found = {}
    for f in functions:
        users = [n for n in tree.body if f.name in applied(n)]
        first, last = min(n.lineno for n in users), max(n.end_lineno for n in users)
        between = [g.name for g in functions if f.end_lineno < g.lineno < last]
        found[f.name] = first - f.end_lineno, last - f.lineno + 1, between
    return found


def test_an_operation_is_one_screen():
    """In ops/ a Function, the check of its arguments and the function or operator for users are together."""
    found = {name: gap for path in FILES if room(path) == "ops" for name, gap in gaps(tree_of(path)).items()}
    listed = {name for name, f in vars(ops).items() if isinstance(f, type) and issubclass(f, Function)}
    assert set(found) == listed and len(found) > 30
    for name, (gap, screen, between) in found.items():
        assert 0 < gap <= 20 and screen <= 40 and between == [], f"{name}: {gap} lines to its function, {screen} in all"


def test_the_look_at_operations_sees_one_that_is_torn_apart():
    near = "class A(Function):\n    pass\ndef a(x): return A.apply(x)\n"
    far = "class A(Function):\n    pass\nclass B(Function):\n    pass\ndef b(x): B.apply(x)\ndef a(x): A.apply(x)\n"
    assert gaps(ast.parse(near)) == {"A": (1, 3, [])}
    assert gaps(ast.parse(far)) == {"A": (4, 6, ["B"]), "B": (1, 3, [])}


def test_no_state_of_a_module_is_assigned_by_its_functions():
    """State that changes while the library runs is an attribute of an object or a context variable, not a `global`."""
    said = [f"{path.name}:{n.lineno}" for path in FILES for n in ast.walk(tree_of(path)) if isinstance(n, ast.Global)]
    assert said == [] and any(isinstance(n, ast.Global) for n in ast.walk(ast.parse("def f():\n    global x\n")))


# Documented there: checking the labels and their weights on a GPU would wait for the device.
BRANCHES = {("losses.py", "_check_labels"), ("losses.py", "_check_divisor")}
TELLERS = {"cli", "commands", "runs"}  # these report to the user which device is used


def test_no_branch_asks_for_the_device():
    asks = re.compile(r"on_gpu|is_gpu|cupy|\bcp\b|['\"](gpu|cuda)['\"]")
    functions = [(path, f) for path in FILES if room(path) not in {"device", "kernels", *TELLERS}
                 for f in ast.walk(tree_of(path)) if isinstance(f, ast.FunctionDef)]
    for path, function in functions:
        if (path.name, function.name) in BRANCHES:
            continue
        for node in ast.walk(function):
            if isinstance(node, (ast.If, ast.IfExp, ast.While)):
                condition = ast.unparse(node.test)
                assert not asks.search(condition), f"{path.name}: {function.name}: if {condition}"


def test_the_readme_mentions_every_command():
    readme, cli = ROOT / "README.md", PACKAGE / "cli.py"
    for needed in readme, cli:
        if not needed.exists():
            pytest.skip(f"there is no {needed.name} yet")
    commands = [n.args[0].value for n in ast.walk(tree_of(cli))
                if isinstance(n, ast.Call) and ast.unparse(n.func) == "commands.add_parser"]
    assert {"demo", "info"} <= set(commands)
    text = readme.read_text(encoding="utf-8")
    assert [c for c in commands if f"minires {c}" not in text] == []


# ---------------------------------------------------------------------------------------------- the tests

TESTS = sorted(Path(__file__).resolve().parent.glob("*.py"))
NAMED_TUPLES = {"_replace", "_asdict", "_fields", "_make"}  # public in spite of their underscores


def private(name):
    return name.startswith("_") and not name.endswith("_") and name not in NAMED_TUPLES


def private_names(tree):
    """Yield (line, name) for names of other objects that are read, imported, or passed to setattr and getattr."""
    own = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
           and ast.unparse(node.value) == "self"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr not in own and ast.unparse(node.value) not in ("self", "cls"):
            yield node.lineno, node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("setattr", "getattr")):
            yield from ((a.lineno, a.value) for a in node.args if isinstance(a, ast.Constant) and type(a.value) is str)


def without_reason(source):
    """Return (line, name) of the private names without a comment `# private: why` on their line or above it."""
    lines = ["", *source.splitlines()]
    return [(number, name) for number, name in private_names(ast.parse(source)) if private(name)
            and "# private: " not in lines[number] and not lines[number - 1].lstrip().startswith("# private: ")]


def test_a_private_name_has_a_reason_beside_it():
    found = {path.name: without_reason(path.read_text(encoding="utf-8")) for path in TESTS}
    assert {name: places for name, places in found.items() if places} == {}


def test_the_search_for_private_names_finds_them():
    source = """
from minires.a import b, _c
m._x + m._y  # private: here
# private: above
setattr(m, "_z", 1)
patch.setattr(m, "_w", 1)
self._mine = other._mine + value._replace(a=1) + figure._repr_png_() + self._own
m.f()._last
"""
    assert sorted(without_reason(source)) == [(2, "_c"), (6, "_w"), (8, "_last")]


# ----------------------------------------------------------------------------------------- a training step


def batch(n=6, size=8, dtype=np.float32):
    rng = np.random.default_rng(1)
    return rng.standard_normal((n, 1, size, size)).astype(dtype), rng.integers(0, 10, n)


def train_step(model, optimizer, x, labels):
    optimizer.zero_grad()
    loss = ops.cross_entropy(model(Tensor(x)), labels)
    loss.backward()
    optimizer.step()


small = functools.partial(models.cifar, 8, width=2)
NETS = {  # {name: a function that builds the network}
    "residual": small, "plain": functools.partial(small, residual=False),
    "by hand": functools.partial(small, by_hand=True),
    "by hand, option B": functools.partial(small, by_hand=True, shortcut="B"),
    "pre-activation": functools.partial(small, block="preact"),
    "pre-activation by hand": functools.partial(small, block="preact", by_hand=True),
    "no norm": functools.partial(small, residual=False, norm="none"), "fixup": functools.partial(small, norm="fixup"),
    "wide_resnet50_2": functools.partial(models.wide_resnet50_2, width=2, num_classes=10),
    "resnext50_32x4d": functools.partial(models.resnext50_32x4d, width=16, num_classes=10),
}


def net(name):
    return NETS[name](in_channels=1, rng=np.random.default_rng(0))


class Seen(np.ndarray):
    """A Seen array records itself, and every array computed from it, in `largest`: {dtype: largest size}."""

    largest = {}  # noqa: RUF012

    def __array_finalize__(self, parent):
        self.largest[self.dtype] = max(self.size, self.largest.get(self.dtype, 0))


def arrays_in(value):
    """Yield every array in nested tuples, lists and dicts."""
    if isinstance(value, (np.ndarray, np.generic)):
        yield value
    elif isinstance(value, (tuple, list, dict)):
        for v in value.values() if isinstance(value, dict) else value:
            yield from arrays_in(v)


KERNELS = [name for name, f in vars(reference).items() if f"{name}_backward" in vars(reference) or "backward" in name]


@pytest.fixture
def notes(monkeypatch):
    """Record {(dtype, where): size of the largest array} for the arrays that Tensors hold, Functions keep and return,
    and kernels take and return. Return this dict and the function that records."""
    Seen.largest.clear()
    seen = {}

    def note(where, *values):
        for a in arrays_in(values):
            seen[a.dtype, where] = max(a.size, seen.get((a.dtype, where), 0))

    pull, init = Function.pull, Tensor.__init__

    def noted_pull(self, g):
        note("kept for backward", {k: v for k, v in vars(self).items() if k != "inputs"})
        for x, gx in pull(self, g):
            note("gradient", g, gx)
            yield x, gx

    def noted_init(self, data, requires_grad=False):
        init(self, data, requires_grad)
        note("Tensor", self.data)

    def noted_kernel(f):
        def noted(*args, **options):
            out = f(*args, **options)
            note("kernel", args, out)
            return out
        return noted

    monkeypatch.setattr(Function, "pull", noted_pull)
    monkeypatch.setattr(Tensor, "__init__", noted_init)
    for module in reference, blocked, native:
        for name in KERNELS:
            monkeypatch.setattr(module, name, noted_kernel(getattr(module, name)))
    return seen, note


def too_wide(seen, inside_kernels=0):
    """Return the records of arrays that are not float32, integer or boolean.

    inside_kernels: the size up to which kernels may use other dtypes.
    """
    limits = {"kernel": inside_kernels, "kept for backward": inside_kernels}
    return {key: n for key, n in seen.items() if key[0].kind in "fc" and key[0] != np.float32
            and n > limits.get(key[1], 0)}


@pytest.mark.parametrize("which", [
    "reference", "blocked",
    pytest.param("native", marks=pytest.mark.skipif(not native.ready(), reason=native.reason() or "ready"))])
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in models.BY_NAME))
                                  for name in NETS])
def test_no_float64_in_a_float32_training_step(name, which, notes):
    """Fast kernels may sum in float64, with two numbers for each channel, but no image is float64."""
    seen, note = notes
    model = net(name)
    channels = max(len(t.data) for t in model.state().values() if t.ndim == 4)
    inside_kernels = 0 if which == "reference" else 2 * channels
    for t in model.state().values():
        t.data = t.data.view(Seen)
    optimizer = optim.SGD(model.parameters(), 0.1, 0.9, 1e-4)
    x, labels = batch()
    with kernels.using(which):
        for _ in range(2):
            train_step(model, optimizer, x.view(Seen), labels)
            note("state", [(t.data, t.grad) for t in model.state().values()], vars(optimizer))
        model.eval()
        with no_grad():
            model(Tensor(x.view(Seen)))
    assert {where for _, where in seen} == {"Tensor", "gradient", "kept for backward", "kernel", "state"}
    assert too_wide(seen, inside_kernels) == {}
    assert Seen.largest[np.dtype("f4")] >= x.size and Seen.largest.get(np.dtype("f8"), 0) <= inside_kernels


def test_the_search_for_float64_finds_one(notes):
    seen, note = notes
    (Tensor(np.ones(2, np.float32).view(Seen), True) * 2.0).sum().backward()
    assert too_wide(seen) == {} and set(Seen.largest) == {np.dtype("f4")}
    np.ones(3, np.float32).view(Seen) * np.sqrt(2)  # NumPy 2 promotes this to float64
    note("here", {"a": [np.ones(5)]})
    Tensor(np.ones(1))
    assert too_wide(seen, 16) == {(np.dtype("f8"), "here"): 5, (np.dtype("f8"), "Tensor"): 1}
    assert Seen.largest[np.dtype("f8")] == 3


# ------------------------------------------------------------------------------------------------- memory


def ours(o):
    return str(type(o).__module__).startswith("minires")


def garbage():
    """Return the types of the library's objects that only the cycle collector can free."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    found = [type(o).__name__ for o in gc.garbage if ours(o)]
    gc.garbage.clear()
    return found


@pytest.mark.parametrize("name", every(3, NETS))
def test_a_training_step_leaves_no_reference_cycle(name, no_collector):
    model = net(name)
    optimizer = optim.SGD(model.parameters(), 0.1, 0.9, 1e-4)
    train_step(model, optimizer, *batch())
    with tap.Tap(model) as seen:
        train_step(model, optimizer, *batch())
    model(Tensor(batch()[0]))  # this graph is not consumed by a backward
    assert len(seen.grad_norm) > 5 and garbage() == []


def test_the_search_for_cycles_finds_one(no_collector):
    t = Tensor([1.0])
    t.grad = t
    del t
    assert garbage() == ["Tensor"]


def held():
    """Return (bytes in living arrays, number of living objects of the library)."""
    arrays = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
    traces = tracemalloc.take_snapshot().filter_traces([arrays]).traces
    return sum(t.size for t in traces), sum(ours(o) for o in gc.get_objects())


@pytest.mark.parametrize("name", every(3, ["residual", "plain", "by hand"]))
def test_memory_is_flat_over_a_hundred_steps(name, no_collector):
    """With the cycle collector off, no array and no object is added."""
    model = net(name)
    optimizer = optim.SGD(model.parameters(), 0.1, 0.9, 1e-4)
    x, labels = batch()
    tracemalloc.start()
    try:
        for _ in range(10):
            train_step(model, optimizer, x, labels)
        before = held()
        kept = model(Tensor(x))
        assert held()[0] > before[0] + 10_000 and held()[1] > before[1] + 10  # a graph in memory is detected
        del kept
        for _ in range(100):
            train_step(model, optimizer, x, labels)
        assert held() == before
    finally:
        tracemalloc.stop()


def test_the_sweep_frees_memory_as_it_passes():
    """The backward of a chain holds one gradient at a time, and frees the values on its way."""
    x = Tensor(np.ones(100_000), True)
    y = x
    for _ in range(20):
        y = y.exp() * 0.3
    loss = y.sum()
    del y
    tracemalloc.start()
    try:
        loss.backward()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * x.data.nbytes


def test_a_chain_of_20_000_operations():
    x = Tensor(np.ones(2), True)
    y = x
    for _ in range(10_000):
        y = (y * 1.0001) + x
    y.sum().backward()
    n, q = 10_000, 1.0001  # y = q^n x + (1 + q + ... + q^(n-1)) x
    np.testing.assert_allclose(x.grad, q**n + (q**n - 1) / (q - 1), rtol=1e-9)


def test_a_long_chain_can_be_dropped_without_a_backward():
    code = "import minires\ny = minires.Tensor([1.0], True)\nfor _ in range(20_000): y = y * 1.0\ndel y\nprint(1)"
    assert python(code) == "1\n"


# ------------------------------------------------------------------------------------- same seed, same bits

TRAINING = """
import hashlib
import numpy as np
from minires import models, train
rng = np.random.default_rng(5)
model = models.cifar(8, in_channels=1, width=2, by_hand=True, rng=rng)
data = rng.standard_normal((40, 1, 8, 8), np.float32), rng.integers(0, 10, 40)
records = list(train.fit(model, data, data, train.Recipe(epochs=2, batch_size=7), rng=rng))
digest = hashlib.sha256(repr(records).encode())
for name, t in model.state().items():
    digest.update(name.encode() + t.data.tobytes())
result = digest.hexdigest()
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_same_seed_same_bits_here_and_in_another_process(threads, monkeypatch):
    monkeypatch.setattr(kernels.parallel, "threads_worth", lambda work, cache, threads: threads)  # small work too
    with kernels.session(threads=threads):
        digests = []
        for _ in range(2):
            exec(TRAINING, names := {})
            digests.append(names["result"])
        code = "from minires.kernels import parallel\nparallel.threads_worth = lambda work, cache, threads: threads\n"
        digests.append(python(f"{code}{TRAINING}print(result)", "-W", "error", MINIRES_THREADS=str(threads)).strip())
        assert len(set(digests)) == 1
        exec(TRAINING.replace("default_rng(5)", "default_rng(6)"), names := {})
    assert names["result"] not in digests
    assert len(digests[0]) == len(hashlib.sha256().hexdigest())


def test_the_nets_of_this_file_are_nets():
    assert all(isinstance(net(name), nn.Module) for name in NETS)


@pytest.mark.system
def test_the_import_loads_what_only_some_uses_need_later():
    code = "import sys, numpy; before = set(sys.modules); import minires; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    late = {"difflib", "pathlib", "shutil", "subprocess", "tempfile", "threadpoolctl", "matplotlib",
            "minires.kernels.compiler", "minires.models", "minires.plot"}
    assert not late & set(done.stdout.split())
