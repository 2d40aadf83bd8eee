"""Test the benchmarks with tiny sizes: they run, compare equal work, and report what they measured.

No test here measures speed. The profile of `minires bench` is tested here too.
"""

import functools
import importlib
import importlib.util
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import needs_torch
from short import every

from minires import Function, Tensor, models, ops, optim
from minires.commands import bench
from minires.kernels import native

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
if not BENCHMARKS.is_dir():
    pytest.skip("there are no benchmarks beside these tests", allow_module_level=True)
TINY = ["--rounds", "2", "--pause", "0"]
SMALL = {
    "train_step": ["--threads", 1, "--steps", 2, "--batch", 4, "--depth", 8, "--width", 4],
    "ops": ["--threads", 1, "--repeats", 1, "--batch", 2, "--width", 4, "--size", 8],
    "scaling": ["--steps", 1, "--base", "8,4,4", "--base-threads", 1],
    "shortcut": ["--threads", 1, "--steps", 2, "--batch", 4, "--depth", "8,14", "--width", 4],
    "data_path": ["--repeats", 1, "--images", 500],
    "import_time": [],
}
pytestmark = pytest.mark.system


def run(name, *words, env=None):
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)


def result(folder, name, *words, env=None):
    """Run a benchmark, which must succeed, and return (the JSON, the printed table, stderr)."""
    out = folder / f"{name}.json"
    done = run(name, *TINY, *SMALL[name], *words, "--out", out, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text(encoding="utf-8")), done.stdout, done.stderr


def module(monkeypatch, name):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(name)


HEADER = {"benchmark": str, "command": str, "date": str, "machine": dict, "load_before": list, "load_after": list}
DEPTHS = ["--only", "depth", "--depth", "20,56"]  # what scaling changes
SYSTEM = {"versions": dict, "parameters": int, "losses": list, "ms": list, "round_ms": list, "median_ms": float,
          "best_ms": float, "images_per_s": float, "peak_rss_mb": float}


def holds(entry, schema):
    assert {k: type(entry[k]) for k in schema} == schema


def check_header(r, name):
    holds(r, HEADER)
    assert r["benchmark"] == name and r["command"].startswith(f"python benchmarks/{name}.py")
    assert r["date"].startswith("20") and {"cpu", "cores", "system", "python"} <= set(r["machine"])
    text = json.dumps(r)
    assert str(ROOT) not in text and not re.search(r"(?<![\w.])/(home|root|tmp|usr|Users|work)/", text)


def check_times(entry, rounds, count):
    """Check that the reported numbers follow from the times of every round."""
    ms = entry["ms"]
    assert len(ms) == rounds and all(len(r) == count and min(r) > 0 for r in ms)
    everything = [t for r in ms for t in r]
    assert entry["median_ms"] == statistics.median(everything) and entry["best_ms"] == min(everything)


def check_ratio(entry, base, name):
    """Check that the ratio to `base` was taken round by round."""
    again = [statistics.median(a) / statistics.median(b) for a, b in zip(entry["ms"], base["ms"], strict=True)]
    assert entry[f"ratio_to_{name}"] == pytest.approx(again)
    assert entry[f"median_ratio_to_{name}"] == pytest.approx(statistics.median(again))


def check_train_step(r):
    check_header(r, "train_step")
    systems = r["systems"]
    minires = systems["minires"]
    for entry in systems.values():
        holds(entry, SYSTEM)
        check_times(entry, r["rounds"], r["steps"])
        assert entry["images_per_s"] == pytest.approx(1000 * r["work"]["batch_size"] / entry["median_ms"])
        assert entry["parameters"] == minires["parameters"]
        assert np.isfinite(entry["losses"]).all()
        np.testing.assert_allclose(entry["losses"][0], minires["losses"][0], rtol=1e-3)
        for base in "torch", "minires":
            if base in systems:
                check_ratio(entry, systems[base], base)
                assert entry[f"memory_ratio_to_{base}"] == entry["peak_rss_mb"] / systems[base]["peak_rss_mb"]
            else:
                assert entry[f"ratio_to_{base}"] is entry[f"median_ratio_to_{base}"] is None
    assert not set(systems) & set(r["left_out"])


def check_ops(r):
    check_header(r, "ops")
    assert sum(case["count"] for case in r["layers"] if case["op"] == "conv") == 19
    assert sum(case["count"] for case in r["layers"] if case["op"] == "bn") == 19
    for case in r["layers"]:
        for way in "forward", "backward":
            for entry in case[way].values():
                check_times(entry, r["rounds"], r["repeats"])
                if "torch" in case[way]:
                    check_ratio(entry, case[way]["torch"], "torch")


@pytest.mark.parametrize("system", ["auto", pytest.param("torch", marks=needs_torch)])
def test_the_convolutions_with_groups_and_gaps(monkeypatch, system):
    """In this process, which is quicker: `ops.py --grouped` gives these cases to its workers."""
    workers, cases = module(monkeypatch, "workers"), module(monkeypatch, "ops").grouped(2, 4, 16)
    monkeypatch.setenv("MINIRES_KERNELS", "auto")
    assert {case["groups"] for case in cases} == {1, 2, 8, 32, 16} and {case["dilation"] for case in cases} == {1, 2, 4}
    for case in cases:
        made = workers.torch_layer(case, 1) if system == "torch" else workers.minires_layer(case, system)
        gx, gw = made["backward"]()
        assert [*made["forward"]().shape] == [*gx.shape] == case["shape"]
        assert tuple(gw.shape) == (case["out"], case["shape"][1] // case["groups"], 3, 3)


@needs_torch
@pytest.mark.slow
def test_groups_and_gaps_are_compared_with_torch(tmp_path):
    r, printed, _ = result(tmp_path, "ops", "--grouped")
    assert len(r["layers"]) == 6 and not r["left_out"] and printed.startswith("3x3 convolutions: median ms")
    for case in r["layers"]:
        for way in "forward", "backward":
            for entry in case[way].values():
                check_times(entry, r["rounds"], r["repeats"])
                check_ratio(entry, case[way]["torch"], "torch")


def check_scaling(r):
    check_header(r, "scaling")
    for entries in r["groups"].values():
        for entry in entries:
            assert entry["macs_to_first"] == entry["macs"] / entries[0]["macs"]
            for system in {"minires", "torch"} & set(entry):
                check_times(entry[system], r["rounds"], r["steps"])
                again = [statistics.median(a) / statistics.median(b) for a, b in
                         zip(entry[system]["ms"], entries[0][system]["ms"], strict=True)]
                assert entry[system]["ratio_to_first"] == pytest.approx(again)
                assert entry[system]["parameters"] == entry["minires"]["parameters"]


def check_shortcut(r):
    check_header(r, "shortcut")
    for depth, ratios in r["residual_to_plain"].items():
        residual, plain = (r["ms"][f"{kind}-{depth}"] for kind in ("residual", "plain"))
        assert [len(t) for t in residual + plain] == [r["steps"]] * r["rounds"] * 2
        assert ratios == pytest.approx([statistics.median(a) / statistics.median(b)
                                        for a, b in zip(residual, plain, strict=True)])
        assert r["parameters"][f"residual-{depth}"] == r["parameters"][f"plain-{depth}"] > 0


def check_import_time(r):
    check_header(r, "import_time")
    times = r["seconds"]
    assert {len(t) for t in times.values()} == {r["rounds"]}
    for name in "minires", "numpy":
        differences = [a - b for a, b in zip(times[name], times["nothing"], strict=True)]
        assert r[f"import_{name}_s"] == pytest.approx(statistics.median(differences))
    assert r["numpy_share"] == r["import_numpy_s"] / r["import_minires_s"]


def check_data_path(r):
    check_header(r, "data_path")
    for times in r["ms"].values():
        assert [len(t) for t in times] == [r["repeats"]] * r["rounds"] and all(v > 0 for t in times for v in t)
    for name in "floats", "bytes":
        again = [100 * statistics.median(a) / statistics.median(b)
                 for a, b in zip(r["ms"][name], r["ms"]["step"], strict=True)]
        assert r["percent_of_step"][name] == pytest.approx(again)


CHECKS = {"train_step": check_train_step, "ops": check_ops, "scaling": check_scaling, "shortcut": check_shortcut,
          "data_path": check_data_path, "import_time": check_import_time}


# --------------------------------------------------------------------------------------- the benchmarks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder of the small results."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def results(folder):
    """Return a function that makes a small result once, as where PyTorch is not installed: to load it takes long."""
    bare = folder / "bare-python"  # a Python without installed packages
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n', encoding="utf-8")
    bare.chmod(0o755)
    (folder / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\")", encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
    peers = ["--peers", "reference,dezero,chainer", "--python", f"dezero={folder / 'no-such-python'}",
             "--python", f"chainer={bare}"]
    words = {"train_step": peers, "scaling": DEPTHS}
    return functools.cache(lambda name: result(folder, name, *words.get(name, []), env=env))


@pytest.mark.parametrize("name", every(5, CHECKS))
def test_the_numbers_follow_from_the_times(results, name):
    found, printed, _ = results(name)
    CHECKS[name](found)
    title, table = printed.split("\n\n")[:2]
    rows = table.splitlines()
    assert title and len(rows) > 2 and len({row.count("|") for row in rows}) == 1


def test_a_peer_that_cannot_run_is_named_and_left_out(results):
    r, printed, errors = results("train_step")
    assert r["left_out"]["dezero"] == "no-such-python cannot be started (No such file or directory)"
    assert "No module named 'numpy'" in r["left_out"]["chainer"]
    for name, reason in r["left_out"].items():
        assert f"Left out: {name} ({reason})." in printed and f"left out: {name}" in errors
    assert set(r["systems"]) == {"minires", "minires-reference"}


def test_the_command_is_told_without_anybodys_folders(results):
    words = results("train_step")[0]["command"].split()
    assert "dezero=no-such-python" in words and words[-2:] == ["--out", "train_step.json"]


@needs_torch
@pytest.mark.slow
def test_torch_is_compared_in_every_benchmark(tmp_path):
    r, printed, _ = result(tmp_path, "train_step", "--peers", "reference,torch")
    check_train_step(r)
    assert set(r["systems"]) == {"minires", "minires-reference", "torch", "torch-channels-last"}
    assert "torch-channels-last" in printed and not r["left_out"]
    r, _, _ = result(tmp_path, "ops")
    check_ops(r)
    assert r["layers"][0]["forward"]["torch"]["ratio_to_torch"] == [1, 1]
    r, _, _ = result(tmp_path, "scaling", *DEPTHS)
    check_scaling(r)
    assert [e["torch"]["ratio_to_torch"] for e in r["groups"]["depth"]] == [[1, 1], [1, 1]]


@pytest.mark.slow
def test_where_torch_is_missing_it_is_left_out(results):
    assert set(results("ops")[0]["layers"][0]["forward"]) == {"minires", "minires-reference"}
    assert all("torch" not in entry for entry in results("scaling")[0]["groups"]["depth"])
    for name in "ops", "scaling":
        errors = results(name)[2]
        assert "left out: torch" in errors and "No module named 'torch'" in errors


def test_the_reference_kernels_run_where_they_are_named(results):
    systems = results("train_step")[0]["systems"]
    assert systems["minires"]["versions"]["kernels"] == ("native" if native.ready() else "blocked")
    assert systems["minires-reference"]["versions"]["kernels"] == "reference"


@pytest.mark.slow
def test_everything_that_scaling_can_change(tmp_path):
    changing = ["--batch", "2,4", "--depth", "8,14", "--width", "4,8", "--threads", "1,2"]
    r, printed, _ = result(tmp_path, "scaling", *changing)
    check_scaling(r)
    assert [[e["value"] for e in entries] for entries in r["groups"].values()] == [[2, 4], [8, 14], [4, 8], [1, 2]]
    assert r["groups"]["batch"][1]["macs_to_first"] == 2 and r["groups"]["threads"][1]["macs_to_first"] == 1
    assert "ResNet-56 / ResNet-20" not in printed


@pytest.mark.slow
def test_the_ratio_of_depths_is_taken_round_by_round(results, monkeypatch):
    r, printed, _ = results("scaling")
    found = module(monkeypatch, "scaling").depth_ratios(r)
    shallow, deep = r["groups"]["depth"]
    again = [b / a for a, b in zip(shallow["minires"]["round_ms"], deep["minires"]["round_ms"], strict=True)]
    assert found["rounds"]["minires"] == again and found["minires"] == statistics.median(again)
    macs = [models.cifar(d, width=4).macs((3, 32, 32)) for d in (20, 56)]
    assert found["macs"] == macs[1] / macs[0] and f"ResNet-56 / ResNet-20: {found['macs']:.2f} times" in printed


def test_inference_and_a_missing_torch(tmp_path):
    words = ["--inference", "--steps", 1, "--depth", 20, "--width", 16, "--peers"]
    installed = importlib.util.find_spec("tinygrad")
    r, printed, _ = result(tmp_path, "train_step", *words, "none" if installed else "tinygrad")
    check_train_step(r)
    assert set(r["systems"]) == {"minires"} and r["systems"]["minires"]["parameters"] == 269_722
    assert r["systems"]["minires"]["losses"] == [r["systems"]["minires"]["losses"][0]] * 3  # nothing was trained
    assert printed.startswith("Inference")
    assert installed or "No module named 'tinygrad'" in r["left_out"]["tinygrad"]


WRONG = [
    ("train_step", "--peers caffe", "expected any of reference, by-hand, torch"),
    ("train_step", "--depth 21", "--depth: expected 6n + 2"),
    ("train_step", "--width 6", "--width: expected a multiple of 4, got 6"),
    ("train_step", "--image 14x14", "expected CxHxW, such as 1x14x14, got '14x14'"),
    ("train_step", "--rounds 0", "expected a whole number >= 1, got '0'"),
    ("train_step", "--python dezero", "expected NAME=PATH, such as dezero=venv/bin/python, got 'dezero'"),
    ("ops", "--size 6", "--size: expected a multiple of 4, got 6"),
    ("scaling", "--depth 20,21", "--depth: expected values of 6n + 2"),
    ("shortcut", "--depth 20,21", "--depth: expected values of 6n + 2"),
    ("scaling", "--base 20,16", "expected DEPTH,WIDTH,BATCH, got '20,16'"),
]


@pytest.mark.slow
def test_cpu_writes_a_file_for_each_of_its_cases(monkeypatch, tmp_path, capsys):
    cpu = module(monkeypatch, "cpu")
    small = ["--peers", "blocked", "--threads", "1", "--steps", "1", "--batch", "4", "--depth", "8", "--width", "4"]
    monkeypatch.setattr(cpu, "CASES", {"one": small, "two": [*small, "--image", "1x14x14"], "three": small})
    assert cpu.main(["--rounds", "2", "--out", str(tmp_path), "--cases", "one,two"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"one.json", "two.json"}
    found = json.loads((tmp_path / "two.json").read_text(encoding="utf-8"))
    assert found["work"]["image"] == [1, 14, 14] and set(found["systems"]) == {"minires", "minires-blocked"}
    assert "images 1x14x14, 1 thread, 2 rounds of 1" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cpu.main(["--out", str(tmp_path), "--cases", "four"])


@pytest.mark.parametrize("name, words, message", WRONG)
def test_errors_of_use_end_in_one_line(monkeypatch, capsys, name, words, message):
    with pytest.raises(SystemExit) as e:
        module(monkeypatch, name).main(words.split())
    assert e.value.code == 2 and message in capsys.readouterr().err


def test_other_work_is_not_compared(monkeypatch):
    train_step, common = module(monkeypatch, "train_step"), module(monkeypatch, "common")
    mine = {"parameters": 269_722, "losses": [3.0, 2.5, 2.0]}
    check = lambda told, **options: train_step.check_same_work(
        {**mine, **told}, options.pop("mine", mine), **{"inference": False, "resnet20": True, **options})
    check({})
    check({"losses": [3.001, 2.52, 2.01]})
    check({"losses": [3.0] * 3}, mine={**mine, "losses": [3.0] * 3}, inference=True)
    few = {"parameters": 270_000}
    for told, options, why in [
        (few, {}, "its work differs: 270,000 parameters, minires has 269,722, ResNet-20 269,722"),
        (few, {"mine": {**mine, **few}}, "its work differs"),
        ({"losses": [3.0, float("nan"), 2.0]}, {}, "not finite"),
        ({"losses": [3.0, 3.0, 3.0]}, {}, "does not decrease"),
        ({"losses": [3.1, 2.5, 2.0]}, {}, "the loss of step 1 is 3.1, minires has 3"),
        ({"losses": [3.0, 2.5, 1.9]}, {}, "the loss of step 3 is 1.9, minires has 2"),
    ]:
        with pytest.raises(common.Failed, match=re.escape(why)):
            check(told, **options)


def test_turns_are_interleaved(monkeypatch):
    common = module(monkeypatch, "common")
    order = []
    times = common.interleave({name: lambda name=name: order.append(name) or [1.0] for name in "ABC"}, 3, pause=0)
    assert "".join(order) == "ABCABCABC" and times == dict.fromkeys("ABC", [[1.0]] * 3)


# --------------------------------------------------------------------------------------- the tables


def test_the_readme_is_what_the_results_say():
    done = run("tables", "--check")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", sorted((BENCHMARKS / "results").glob("*.json")), ids=lambda p: p.name)
def test_committed_results_are_whole(path):
    r = json.loads(path.read_text(encoding="utf-8"))
    CHECKS[r["benchmark"]](r)


@pytest.mark.slow
def test_tables_are_written_between_the_markers(results, folder, tmp_path):
    told = {name: results(name) for name in CHECKS}
    readme = tmp_path / "README.md"
    shutil.copy(BENCHMARKS / "README.md", readme)
    before = readme.read_text(encoding="utf-8")
    words = ["--results", folder, "--readme", readme]
    assert run("tables", *words, "--check").returncode == 1 and readme.read_text(encoding="utf-8") == before
    assert run("tables", *words).returncode == 0
    after = readme.read_text(encoding="utf-8")
    assert after.partition("<!--")[0] == before.partition("<!--")[0]
    for r, printed, _ in told.values():
        assert printed.strip().partition("\n\n")[2] in after and r["command"] in after
    assert f"{told['import_time'][0]['import_minires_s']:.3f}" in after.partition("### ")[2]
    assert run("tables", *words, "--check").returncode == 0
    readme.write_text("no markers", encoding="utf-8")
    assert "README.md: expected one line" in run("tables", *words).stderr


def test_goals_are_next_to_the_range_of_all_that_was_measured(monkeypatch):
    tables = module(monkeypatch, "tables")

    def cells(results):
        rows = tables.summary(results).splitlines()[4:]
        return [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]

    systems = {"minires": {"ms": [[7], [8]], "memory_ratio_to_torch": 0.5}, "torch": {"ms": [[10], [10]]},
               "minires-blocked": {"ms": [[14], [14]]}, "torch-channels-last": {"ms": [[8], [8]]},
               "dezero-as-is": {"ratio_to_minires": [20, 19.5]}, "dezero": {"ratio_to_minires": [15]}}
    step = {"benchmark": "train_step", "work": {"depth": 20, "width": 16, "batch_size": 128, "inference": False},
            "threads": 2, "systems": systems}
    what = "training step, ResNet-20, width 16, batch 128, 2 threads: minires / PyTorch"
    rest = [[f"{what} channels_last", "0.94 (0.88–1.00)", "<= 0.95", "<= 0.75"],
            ["peak RSS of the training step, minires / PyTorch, 2 threads", "0.50", "<= 0.55", "<= 0.47"],
            ["training step without a C compiler, minires / PyTorch eager, 2 threads", "1.40", "<= 1.5", "<= 1.25"],
            ["training step, DeZero as it is installed / minires, 2 threads", "19.8 (19.5–20.0)", ">= 18", ">= 22"],
            ["training step, DeZero with its gradients kept in float32 / minires, 2 threads", "15.0", "–", "–"]]
    assert cells({"a.json": step}) == [[f"{what} eager", "0.75 (0.70–0.80)", "<= 0.80", "<= 0.60"], *rest]
    scaling = {"benchmark": "scaling", "base": {"depth": 20, "width": 16, "batch": 128, "threads": 2},
               "groups": {"batch": [{"value": 128, "minires": {"ratio_to_torch": [0.9]}},
                                    {"value": 64, "minires": {"ratio_to_torch": [5.0]}}]}}
    assert cells({"a.json": step, "b.json": scaling}) == [
        [f"{what} eager", "0.80 (0.70–0.90)", "<= 0.80", "<= 0.60"], *rest]  # the worse run counts too
    demo = {**step, "work": {**step["work"], "width": 8, "image": [1, 14, 14], "batch_size": 100}}
    assert [row[0] for row in cells({"a.json": demo})] == [
        "training step, ResNet-20, width 8, images 1x14x14, batch 100, 2 threads: minires / PyTorch eager"]
    step["work"]["batch_size"] = 64
    assert tables.summary({"a.json": step}) == "" and tables.generate({}) == "No results yet."


# --------------------------------------------------------------------------------------- the profile


def functions():
    below = lambda c: [c, *(d for s in c.__subclasses__() for d in below(s))]
    return {(c, name): vars(c)[name] for c in below(Function) for name in ("apply", "pull", "forward", "backward")
            if name in vars(c)}


@pytest.fixture
def small():
    rng = np.random.default_rng(0)
    model = models.cifar(8, width=2, rng=rng)
    return (model, rng.standard_normal((4, 3, 8, 8), np.float32), rng.integers(0, 10, 4),
            optim.SGD(model.parameters(), 0.01, 0.9, 1e-4))


def test_a_profile_adds_up_to_the_step(small):
    before = functions()
    seconds = bench.profile_step(*small, steps=2)
    assert functions() == before
    assert {"Conv2d forward", "Conv2d backward", "CrossEntropy forward", "SGD step"} <= set(seconds)
    assert list(seconds)[-1] == bench.REST and min(seconds.values()) > 0
    shares = bench.shares(seconds)
    assert list(shares) == list(seconds) and sum(shares.values()) == pytest.approx(100)
    table = bench.text(seconds).splitlines()
    assert len(table) == len(seconds) + 2 and table[-1].startswith("a step") and table[-1].endswith("100.0 %")
    assert all(f"{share:.1f} %" in row for share, row in zip(shares.values(), table[1:-1], strict=True))


def test_profiling_trains_as_a_step_does(small):
    from minires import train

    model, images, labels, optimizer = small
    bench.profile_step(model, images, labels, optimizer, steps=2)
    twin = models.cifar(8, width=2, rng=np.random.default_rng(0))
    again = optim.SGD(twin.parameters(), 0.01, 0.9, 1e-4)
    for _ in range(2):
        train.step(twin, again, images, labels)
    for name, t in twin.state().items():
        np.testing.assert_array_equal(t.data, model.state()[name].data, err_msg=name)


def test_the_wrapping_is_removed_after_an_exception(small):
    model, images, labels, optimizer = small
    before, seconds = functions(), {}
    with pytest.raises(ValueError, match="Conv2d"):
        bench.profile_step(model, images[:, :2], labels, optimizer)
    assert functions() == before

    def interrupted():
        with bench.timed(seconds):
            assert functions() != before
            ops.tanh(Tensor([1.0]))
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert functions() == before and list(seconds) == ["Tanh forward"]


def test_an_operation_within_another_counts_once():
    class Outer(Function):
        def forward(self, x):
            return ops.exp(Tensor(x)).data

        def backward(self, g):
            return g

    seconds = {}
    with bench.timed(seconds):
        Outer.apply(Tensor([1.0], True)).backward(np.ones(1, np.float32))
        with pytest.raises(ValueError, match="Reshape"):
            ops.reshape(Tensor([1.0]), 2, 2)
        ops.exp(Tensor([1.0]))
    assert list(seconds) == ["Outer forward", "Outer backward", "Reshape forward", "Exp forward"]


def test_bench_says_what_it_ran():
    lines = bench.bench(8, 4, 2, threads=1, profile=True).splitlines()
    kernels = r"(native, 1 thread|blocked, 1 thread(; not native: .+)?)"
    assert re.fullmatch(rf"ResNet-8, [\d,]+ parameters, batch 4; kernels {kernels}", lines[0])
    assert re.fullmatch(r"a training step takes [\d.]+ ms \(median of 2; best [\d.]+\): [\d,]+ images/s", lines[1])
    assert lines[2] == "" and lines[-1].startswith("a step")
    assert len(bench.bench(8, 4, 1).splitlines()) == 2
    with pytest.raises(ValueError, match="bench: expected steps >= 1, got 0"):
        bench.bench(8, 4, 0)
    with pytest.raises(ValueError, match="profile_step: expected steps >= 1, got 0"):
        bench.profile_step(None, None, None, None, 0)
