"""About the code base itself: who imports whom, dtypes, memory, repeatability, docstrings, sizes."""

import ast
import gc
import hashlib
import json
import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import minires
from minires import Function, Tensor, models, nn, no_grad, ops, optim, tap
from minires.kernels import reference

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(minires.__file__).resolve().parent
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
PATHS = [pytest.param(path, id=path.relative_to(PACKAGE).as_posix()) for path in FILES]

# ---------------------------------------------------------------------------------------- who imports whom

# The rooms from the ground up. A room imports from the lines before its own, and from itself.
LAYERS = [
    ["device"],
    ["kernels"],
    ["tensor"],
    ["ops", "gradcheck"],
    ["residual", "init", "optim"],
    ["nn"],
    ["models", "weights", "tap"],
    ["analysis", "train"],
    ["demo"],
    ["cli"],
]
HEIGHT = {room: height for height, rooms in enumerate(LAYERS) for room in rooms}
APART = {"datasets": set(), "files": set(), "plot": set(), "report": {"plot", "files"}}  # room: all it may import
ABOVE_APART = {"train": {"datasets"}, "demo": set(APART), "cli": set(APART)}  # layers that may use those
FACADE = "__init__"  # minires/__init__.py shows the public names and may import any room but these
NOT_AT_START = {"plot", "report", "demo", "cli"}


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path, tree):
    """(absolute module name, is it at module level?) for every import, also those inside functions."""
    package = ["minires", *path.relative_to(PACKAGE).parts[:-1]]
    lazy = {id(n) for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.Lambda)) for n in ast.walk(f)}
    for node in ast.walk(tree):
        top = id(node) not in lazy
        if isinstance(node, ast.Import):
            yield from ((alias.name, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((f"{module}.{alias.name}", top) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("import_module", "importlib.import_module", "__import__"):
            if isinstance(node.args[0], ast.Constant):
                yield node.args[0].value, top


def test_the_reader_of_imports_reads_them_all(tmp_path):
    source = "import a.b\nfrom .. import device\nfrom .x import y\ndef f():\n    import c\n    import_module('d')\n"
    path = PACKAGE / "kernels" / "new.py"
    assert list(imports(path, ast.parse(source))) == [
        ("a.b", True), ("minires.device", True), ("minires.kernels.x.y", True), ("c", False), ("d", False)]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_imports_point_down(path):
    mine = room(path)
    assert mine in {*HEIGHT, *APART, FACADE, "__main__"}, f"{mine}: a new room; give it its place in LAYERS"
    for name, top in imports(path, TREES[path]):
        if not name.startswith("minires."):
            continue
        other = name.split(".")[1]
        if other in (mine, "__version__") or mine == "__main__":
            continue
        if mine == FACADE:
            assert not (top and other in NOT_AT_START), f"minires/__init__.py loads {other} at once"
        elif mine in APART:
            assert other in APART[mine], f"{path.name} imports {other}, but {mine} stands apart"
        elif other in APART:
            assert other in ABOVE_APART.get(mine, ()), f"{path.name} imports {other}"
        else:
            assert HEIGHT[other] < HEIGHT[mine], f"{path.name} imports {other}, which is not below {mine}"


ONLY_IN = {"cupy": "device", "cupyx": "device", "matplotlib": "plot"}
WHEN_USED = {"cupy", "cupyx", "tqdm", "threadpoolctl", "safetensors", "torch", "IPython", "ipywidgets"}


@pytest.mark.parametrize("path", PATHS)
def test_other_packages_are_imported_where_they_belong(path):
    for name, top in imports(path, TREES[path]):
        package = name.partition(".")[0]
        if package in ("minires", "numpy", *sys.stdlib_module_names):
            continue
        assert package in {*ONLY_IN, *WHEN_USED}, f"{path.name} imports {package}, which is no dependency"
        assert ONLY_IN.get(package, room(path)) == room(path), f"{path.name} imports {package}"
        assert not (top and package in WHEN_USED), f"{path.name} imports {package} before it is used"


def python(code, *options):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_minires_loads_numpy_and_the_standard_library_only():
    loaded = "import json, sys, numpy; before = set(sys.modules); {}; print(json.dumps(sorted(set(sys.modules) - before)))"
    new = json.loads(python(loaded.format("import minires"), "-W", "error"))
    assert {"minires", "minires.nn"} <= set(new)
    assert {name.partition(".")[0] for name in new} <= {"minires", "numpy", *sys.stdlib_module_names}
    assert not {f"minires.{name}" for name in NOT_AT_START} & set(new)


def test_import_minires_is_quick():
    """The processor's time, best of five, NumPy included."""
    code = "import time; t = time.process_time(); import minires; print(time.process_time() - t)"
    assert min(float(python(code)) for _ in range(5)) < 0.15


# -------------------------------------------------------------------------------------------- the source

LONGEST = 700


@pytest.mark.parametrize("path", PATHS)
def test_no_file_is_too_long_to_read(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


@pytest.mark.parametrize("path", PATHS)
def test_everything_public_has_a_docstring(path):
    """ops.py's one-line Functions and functions are excepted: their line says it."""
    tree, short = TREES[path], path.name == "ops.py"
    public = [n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith("_")]
    missing = [n.name for n in public if not ast.get_docstring(n)
               and not (short and (isinstance(n, ast.ClassDef) or len(n.body) == 1))]  # fmt: skip
    assert ast.get_docstring(tree) and missing == []


BRANCHES = {("ops.py", "cross_entropy")}  # documented there: the check of the labels would wait for the device
TELLERS = {"cli", "demo"}  # they tell the user which device is used


@pytest.mark.parametrize("path", [p for p in PATHS if room(p.values[0]) not in {"device", "kernels", *TELLERS}])
def test_no_branch_asks_for_the_device(path):
    asks = re.compile(r"on_gpu|is_gpu|cupy|\bcp\b|['\"](gpu|cuda)['\"]")
    for function in ast.walk(TREES[path]):
        if not isinstance(function, ast.FunctionDef) or (path.name, function.name) in BRANCHES:
            continue
        for node in ast.walk(function):
            if isinstance(node, (ast.If, ast.IfExp, ast.While)):
                assert not asks.search(ast.unparse(node.test)), f"{path.name}: {function.name}: if {ast.unparse(node.test)}"


def test_the_readme_mentions_every_command():
    readme, cli = ROOT / "README.md", PACKAGE / "cli.py"
    for needed in readme, cli:
        if not needed.exists():
            pytest.skip(f"there is no {needed.name} yet")
    listed = re.search(r"\{([\w,-]+)\}", python("from minires.cli import main; main(['--help'])"))
    assert listed, "minires --help lists no commands"
    commands = listed[1].split(",")
    assert "demo" in commands and "info" in commands
    text = readme.read_text(encoding="utf-8")
    assert [c for c in commands if f"minires {c}" not in text] == []


# ----------------------------------------------------------------------------------------- a training step


def net(width=2, dtype=np.float32, **options):
    return models.cifar(8, in_channels=1, width=width, rng=np.random.default_rng(0), **options).astype(dtype)


def batch(n=6, size=8, dtype=np.float32):
    rng = np.random.default_rng(1)
    return rng.standard_normal((n, 1, size, size)).astype(dtype), rng.integers(0, 10, n)


def train_step(model, optimizer, x, labels):
    optimizer.zero_grad()
    loss = ops.cross_entropy(model(Tensor(x)), labels)
    loss.backward()
    optimizer.step()


NETS = {
    "plain": {"residual": False}, "residual": {}, "by hand": {"by_hand": True},
    "by hand, option B": {"by_hand": True, "shortcut": "B"}, "pre-activation": {"block": "preact"},
    "pre-activation by hand": {"block": "preact", "by_hand": True}, "no norm": {"residual": False, "norm": "none"},
    "fixup": {"norm": "fixup"},
}  # fmt: skip


class Seen(np.ndarray):
    """An array that enters its dtype, and that of everything computed from it, into a list."""

    dtypes: set = set()  # noqa: RUF012

    def __array_finalize__(self, parent):
        self.dtypes.add(self.dtype)


def arrays_in(value):
    """Every array in an object's attributes, tuples, lists and dicts."""
    if hasattr(value, "dtype"):
        yield value
    elif isinstance(value, (tuple, list)):
        for v in value:
            yield from arrays_in(v)
    elif isinstance(value, dict):
        yield from arrays_in(list(value.values()))


@pytest.fixture
def dtypes(monkeypatch):
    """{dtype: where} of all that Tensors hold, Functions keep and return, and kernels are given and return."""
    seen = {}

    def note(where, *values):
        for a in arrays_in(values):
            seen.setdefault(a.dtype, where)

    pull, init = Function.pull, Tensor.__init__

    def noted_pull(self, g):
        note(type(self).__name__, g, {k: v for k, v in vars(self).items() if k != "inputs"})
        for x, gx in pull(self, g):
            note(f"{type(self).__name__}.backward", gx)
            yield x, gx

    def noted_init(self, data, requires_grad=False):
        init(self, data, requires_grad)
        note("Tensor", self.data)

    monkeypatch.setattr(Function, "pull", noted_pull)
    monkeypatch.setattr(Tensor, "__init__", noted_init)
    for name, f in list(vars(reference).items()):
        if callable(f) and getattr(f, "__module__", "") == reference.__name__ and name != "windows":
            def noted(*args, f=f, name=name, **options):
                out = f(*args, **options)
                note(name, args, out)
                return out
            monkeypatch.setattr(reference, name, noted)
    return seen, note


def float64(dtypes):
    return [d for d in dtypes if d.kind in "fc" and d != np.float32]


@pytest.mark.parametrize("options", NETS.values(), ids=NETS)
def test_no_float64_in_a_float32_training_step(options, dtypes):
    seen, note = dtypes
    model = net(**options)
    optimizer = optim.SGD(model.parameters(), 0.1, 0.9, 1e-4)
    Seen.dtypes = set()
    for t in model.state().values():
        t.data = t.data.view(Seen)
    x, labels = batch()
    for _ in range(2):
        train_step(model, optimizer, x.view(Seen), labels)
    model.eval()
    with no_grad():
        model(Tensor(x.view(Seen)))
    for name, t in model.state().items():
        note(name, t.data, t.grad if t.grad is not None else t.data)
    note("velocity", optimizer.velocity)
    assert np.dtype(np.float32) in seen and len(seen) > 1  # float32, and masks or labels
    assert float64(seen) == [], {str(d): seen[d] for d in float64(seen)}
    assert float64(Seen.dtypes) == [], "a temporary array is not float32"


def test_the_search_for_float64_finds_one(dtypes):
    seen, note = dtypes
    Seen.dtypes = set()
    assert float64([np.dtype("f8"), np.dtype("f4"), np.dtype("i8")]) == [np.dtype("f8")]
    ((Tensor(np.ones(2, np.float32).view(Seen), True) * 2.0).sum()).backward()
    assert float64(Seen.dtypes) == float64(seen) == []
    np.ones(2, np.float32).view(Seen) * np.sqrt(2)  # what NumPy 2 promotes
    note("here", {"a": [np.ones(1)]})
    assert float64(Seen.dtypes) == float64(seen) == [np.dtype("f8")]


# ------------------------------------------------------------------------------------------------- memory


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


def garbage():
    """The library's objects that only the cycle collector can free."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    found = [type(o).__name__ for o in gc.garbage if (type(o).__module__ or "").startswith("minires")]
    gc.garbage.clear()
    return found


@pytest.mark.parametrize("options", NETS.values(), ids=NETS)
def test_a_training_step_leaves_no_reference_cycle(options, no_collector):
    model = net(**options)
    optimizer = optim.SGD(model.parameters(), 0.1, 0.9, 1e-4)
    train_step(model, optimizer, *batch())
    with tap.Tap(model) as seen:
        train_step(model, optimizer, *batch())
    model(Tensor(batch()[0]))  # a graph that no backward consumes
    assert len(seen.grad_norm) > 5 and garbage() == []


def test_the_search_for_cycles_finds_one(no_collector):
    t = Tensor([1.0])
    t.grad = t
    del t
    assert garbage() == ["Tensor"]


@pytest.mark.parametrize("options", [NETS["residual"], NETS["by hand"]], ids=["residual", "by hand"])
def test_memory_is_flat_over_a_hundred_steps(options, no_collector):
    model = net(**options)
    optimizer = optim.SGD(model.parameters(), 0.1, 0.9, 1e-4)
    x, labels = batch()
    peaks = []
    tracemalloc.start()
    try:
        for count in range(100):
            if count % 10 == 0:
                tracemalloc.reset_peak()
            train_step(model, optimizer, x, labels)
            if count % 10 == 9:
                peaks.append((tracemalloc.get_traced_memory()))
    finally:
        tracemalloc.stop()
    (held, peak), (held_last, peak_last) = peaks[1], peaks[-1]
    assert held_last - held < 4000 and peak_last - peak < 4000  # bytes; one step's graph is above 100,000
    assert peak - held > 50_000  # and it is measured


def test_the_sweep_frees_memory_as_it_passes():
    """A chain's backward holds one gradient at a time, and its values go before it ends."""
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
    code = "from minires import Tensor\nx = y = Tensor([1.0], True)\nfor _ in range(20_000): y = y * 1.0\ndel y\nprint('fine')"
    assert python(code) == "fine\n"


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


def test_same_seed_same_bits_here_and_in_another_process():
    digests = []
    for _ in range(2):
        exec(TRAINING, names := {})
        digests.append(names["result"])
    digests.append(python(TRAINING + "print(result)", "-W", "error").strip())
    assert len(set(digests)) == 1
    exec(TRAINING.replace("default_rng(5)", "default_rng(6)"), names := {})
    assert names["result"] not in digests
    assert len(digests[0]) == len(hashlib.sha256().hexdigest())


def test_the_nets_of_this_file_are_nets():
    assert all(isinstance(net(**options), nn.Module) for options in NETS.values())
