"""Test `minires sweep`: a grid of runs in local processes and on a real Dask scheduler, and workers that are killed."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minires import cli, kernels, runs
from minires.runs import checkpoint, sweep

pytest.importorskip("safetensors", reason="checkpoints are safetensors files, and the package is not installed")

pytestmark = pytest.mark.system
ROOT = Path(__file__).resolve().parents[1]
SET = {"train_images": 100, "test_images": 20, "image_size": 7, "model.width": 2, "batch_size": 10, "crop": 1,
       "epochs": 3, "drops": [0.5, 0.75]}
SPEC = {"models": ["resnet20"], "seeds": [0, 1], "dataset": "fashion_mnist_small", "recipe": "short-cifar",
        "device": "cpu", "set": SET, "data_dir": "."}
ENV = {**os.environ, "MINIRES_THREADS": "1",
       "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
NAMES = ["resnet20-seed0", "resnet20-seed1"]


def write(path, **changes):
    path.write_text(json.dumps(SPEC | changes))
    return path


def outcome(folder):
    """Return what must not depend on where a run was trained: the weights' bytes, and the metrics without seconds."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return (folder / "weights.safetensors").read_bytes(), [line | {"seconds": 0} for line in lines]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Return (folder, printed text) of a complete sweep, one process of which was killed."""
    folder = tmp_path_factory.mktemp("sweep")
    spec, out = write(folder / "grid.json"), folder / "out"
    said, killed = [], []

    def say(line):
        said.append(line)
        if "resnet20-seed0: epoch 1" in line and not killed:
            killed.append(holder(out / "resnet20-seed0"))
            os.kill(killed[0], signal.SIGKILL)

    table, failed = sweep.run(sweep.read(spec), out, every_seconds=1e-6, say=say)
    return out, "\n".join(said), table, failed, killed


def holder(folder):
    """Return the process that trains in this folder, which its command names."""
    if not Path("/proc/self").exists():
        pytest.skip("there is no /proc to find the process in")
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(folder).encode() in command and b"minires.runs.workers" in command:
            return int(path.name)
    raise AssertionError(f"no process trains in {folder}")


def test_the_whole_grid_is_trained_although_a_process_is_killed(done):
    out, said, table, failed, killed = done
    assert failed == {} and len(killed) == 1
    assert sorted(p.name for p in out.iterdir() if p.is_dir()) == NAMES
    assert "resnet20-seed0: killed by signal 9; resuming from its last checkpoint" in said
    assert all((out / name / "weights.safetensors").exists() for name in NAMES)
    assert table.count("| 2     |") == 1 and "ResNet-20" in table
    results = json.loads((out / "results.json").read_text())
    assert [row["seeds"] for row in results["table"]] == [[0, 1]] and len(results["runs"]) == 2
    assert (out / "report.md").exists() and (out / "curves.png").exists()


def alone(spec, name, folder, threads):
    """Train the run of this name in this process, and return its folder."""
    with kernels.parallel.session(threads=threads):
        runs.train(sweep.read(spec).runs()[name], folder / f"alone-{name}", say=str)
    return folder / f"alone-{name}"


def test_each_run_is_what_minires_train_makes(done, tmp_path):
    """This includes the run whose process was killed."""
    out, said = done[:2]
    threads = int(said.split("with ")[1].split()[0])
    assert outcome(alone(write(tmp_path / "s.json"), "resnet20-seed0", tmp_path, threads)) == outcome(out / NAMES[0])


def test_a_second_sweep_finds_all_done(done, tmp_path, capsys):
    out = done[0]
    before = {name: outcome(out / name) for name in NAMES}
    assert cli.main(["sweep", str(write(tmp_path / "s.json", seeds=[1])), "--out", str(out)]) == 0
    assert "resuming from step 30 of 30" in capsys.readouterr().out
    assert before == {name: outcome(out / name) for name in NAMES}


def test_a_run_that_fails_leaves_the_others(tmp_path, capsys):
    wild = SET | {"lr": 1e30, "drops": [], "warm_up_lr": 0}
    spec = write(tmp_path / "s.json", seeds=[0], set=wild, models=["plain20"])
    assert cli.main(["sweep", str(spec), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().out
    assert "plain20-seed0 failed: step" in said and "No run is finished yet." in said


def test_a_process_that_is_killed_again_and_again_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", write_killer(tmp_path / "python"))
    spec = sweep.read(write(tmp_path / "s.json", seeds=[0], models=["plain20"]))
    table, failed = sweep.run(spec, tmp_path / "out", say=str)
    assert failed == {"plain20-seed0": "its process was killed 3 times"} and table == "No run has begun."


def write_killer(path):
    path.write_text("#!/bin/sh\nkill -9 $$\n")
    path.chmod(0o755)
    return str(path)


# ------------------------------------------------------------------------------------------------------ a cluster


@pytest.fixture
def dask():
    if importlib.util.find_spec("distributed") is None:
        pytest.skip("Dask is not installed (pip install -e '.[cluster]')")


def started(folder, name, *arguments):
    command = [sys.executable, "-m", f"distributed.cli.dask_{name.rstrip('12')}", *arguments]
    with open(folder / f"{name}.log", "w") as log:
        return subprocess.Popen(command, env=ENV, stdout=log, stderr=subprocess.STDOUT, cwd=folder)


def waited(condition, what, seconds=90):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.05)
    return value


CLUSTER = """
import sys
from pathlib import Path
from distributed import LocalCluster
from minires.runs import sweep
spec, out = map(Path, sys.argv[1:])
with LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
    table, failed = sweep.run(sweep.read(spec), out, scheduler=cluster.scheduler_address)
assert failed == {}
"""


def test_a_cluster_of_two_workers(tmp_path, dask):
    """Use a scheduler and two workers that are threads of one process. The results equal those of local processes."""
    spec, out = write(tmp_path / "grid.json"), tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", CLUSTER, str(spec), str(out)], env=ENV, capture_output=True, text=True,
                          timeout=200)
    assert done.returncode == 0, done.stderr
    assert "2 runs on 2 workers of inproc://" in done.stdout and done.stdout.count("finished, 30 steps") == 2
    for name in "resnet20-seed0", "resnet20-seed1":
        assert outcome(out / name) == outcome(alone(spec, name, tmp_path, threads=1))


@pytest.mark.slow
def test_a_cluster_of_two_workers_one_of_which_is_killed(tmp_path, dask):
    """Use a scheduler and two worker processes on this machine. The results equal those of local processes."""
    spec = write(tmp_path / "grid.json", set=SET | {"epochs": 12})
    file, quiet = str(tmp_path / "scheduler.json"), ["--host", "127.0.0.1", "--no-dashboard"]
    processes = [started(tmp_path, "scheduler", *quiet, "--port", "0", "--scheduler-file", file)]
    try:
        for i in 1, 2:
            processes.append(started(tmp_path, f"worker{i}", *quiet, "--no-nanny", "--nthreads", "1",
                                     "--scheduler-file", file))
        address = json.loads(waited(lambda: Path(file).exists() and Path(file).read_text(), "the scheduler"))["address"]
        for i in 1, 2:
            waited(lambda i=i: "Registered to" in (tmp_path / f"worker{i}.log").read_text(), f"worker {i}")
        command = [sys.executable, "-m", "minires.cli", "sweep", str(spec), "--out", str(tmp_path / "out"),
                   "--scheduler", address, "--checkpoint-seconds", "0.000001"]
        client = subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        processes.append(client)
        folders = [tmp_path / "out" / f"resnet20-seed{seed}" for seed in (0, 1)]
        waited(lambda: all(list(folder.glob("checkpoint*")) for folder in folders) or client.poll(), "two checkpoints")
        processes[1].kill()
        said = client.communicate(timeout=200)[0]
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()
    assert client.returncode == 0, said + "".join(p.read_text() for p in tmp_path.glob("*.log"))
    assert "2 runs on 2 workers" in said and said.count("finished, 120 steps") == 2
    for folder in folders:
        assert outcome(folder) == outcome(alone(spec, folder.name, tmp_path, threads=1))


def test_without_dask_the_way_to_it_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    status = cli.main(["sweep", str(write(tmp_path / "s.json")), "--out", str(tmp_path / "o"), "--scheduler", "tcp://a:1"])
    assert status == 2 and 'pip install "minires[cluster]"' in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("changes, says", [
    ({"models": ["resnet21"]}, "unknown name 'resnet21'"), ({"models": []}, "models: expected one or more"),
    ({"models": ["plain20", "plain20"]}, "models: expected one or more, all different, got plain20, plain20"),
    ({"seeds": [0, 0]}, "seeds: expected one or more, all different, got 0, 0"),
    ({"seeds": [0, "1"]}, "seeds[1]: expected a whole number, got '1'"),
    ({"seeds": [True]}, "seeds[0]: expected a whole number, got True"),
    ({"seeds": [-1]}, "seed: expected a whole number >= 0, got -1"), ({"seeds": 3}, "seeds: expected a list, got 3"),
    ({"device": "tpu"}, 'device: expected "auto", "cpu" or "gpu"'), ({"graph": 1}, "graph: expected true or false"),
    ({"set": {"lr": None}}, "set.lr: expected true or false or a whole number or a finite number or text or a list"),
    ({"dataset": "cifar11"}, "unknown name 'cifar11'"), ({"set": {"epoch": 3}}, "did you mean epochs"),
    ({"set": {"lr": "fast"}}, "setting lr: expected a number"), ({"modles": []}, "did you mean models"),
])
def test_a_spec_that_is_wrong_starts_nothing(changes, says, tmp_path, capsys):
    assert cli.main(["sweep", str(write(tmp_path / "s.json", **changes)), "--out", str(tmp_path / "out")]) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_spec_that_cannot_be_read(tmp_path, capsys):
    for name, text in ("s.json", "{"), ("s.toml", "models = "), ("t.json", "[1]"):
        (tmp_path / name).write_text(text)
        assert cli.main(["sweep", str(tmp_path / name)]) == 2
    said = capsys.readouterr().err
    assert said.count("cannot be read") == 2 and "expected keys and values, got a list of 1" in said
    assert cli.main(["sweep", str(tmp_path / "none.json")]) == 2


@pytest.mark.parametrize("text, message", [
    (".".join(["a"] * 30_000) + " = 1", "line 1 has more than 200 dots"),
    ("a = 1\n[" + ".".join(["a"] * 30_000) + "]", "line 2 has more than 200 dots"),
    ("#" * 70_000, "expected at most 65536 bytes"),
    ("a = " + "[" * 60_000, "its lists and tables are nested too deeply"),
    ("<html>", "it is a web page")])
def test_a_toml_file_that_would_take_long_or_cannot_be_read(tmp_path, text, message):
    """tomllib's time for a key grows with the square of its parts: 60 kB of them take minutes."""
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(ValueError, match=rf"s\.toml cannot be read: {message}"):
        sweep.read(tmp_path / "s.toml")


def test_toml_says_the_same_as_json(tmp_path):
    settings = "\n".join(f"{json.dumps(key)} = {json.dumps(value)}" for key, value in SET.items())
    rest = "\n".join(f"{key} = {json.dumps(value)}" for key, value in SPEC.items() if key != "set")
    (tmp_path / "s.toml").write_text(f"{rest}\n[set]\n{settings}\n")
    assert sweep.read(tmp_path / "s.toml") == sweep.read(write(tmp_path / "s.json"))


def test_a_sweep_of_other_settings_says_which(done, tmp_path, capsys):
    spec = write(tmp_path / "s.json", set=SET | {"lr": 0.3})
    assert cli.main(["sweep", str(spec), "--out", str(done[0])]) == 2
    assert "holds a run with other settings: settings.lr: 0.1 there, 0.3 asked for" in capsys.readouterr().err


def test_every_run_of_a_sweep_has_checkpoints(done):
    assert all(checkpoint.newest(done[0] / name)[0][1]["at"]["step"] == 30 for name in NAMES)


def test_one_model_by_two_names_is_refused_before_anything_trains(tmp_path):
    path = tmp_path / "grid.json"
    path.write_text(json.dumps({**SPEC, "models": ["resnet20", "ResNet-20"]}))
    with pytest.raises(ValueError, match="models: expected one or more, all different, got resnet20, resnet20"):
        sweep.read(path)
