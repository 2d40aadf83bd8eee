"""A grid of runs, models x seeds: processes on this machine, or tasks on a Dask cluster. Each run has its folder and
its checkpoints (runs.py), so a worker that dies costs its run what it did since the last one, and nothing else."""
from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .. import info, models, runs
from ..names import unknown
from . import report
from .config import CHOSEN, configure, differences

KEYS = {"models": list, "seeds": list, "dataset": str, "recipe": str, "device": str, "set": dict, "data_dir": str,
        "graph": bool}
DEATHS = 3  # of one run, after which it is given up

Spec = dict[str, Any]
Say = Callable[[str], None]


def read(path: Path) -> Spec:
    """The SPEC file, TOML by its name's end or else JSON, checked: ValueError says which key is wrong and how."""
    try:
        text = path.read_text(encoding="utf-8")
        spec = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except ValueError as e:
        raise ValueError(f"{path} cannot be read: {e}") from e
    if not isinstance(spec, dict):
        raise ValueError(f"{path}: expected keys and values, got {type(spec).__name__}")
    for key, value in spec.items():
        if key not in KEYS:
            raise unknown(f"{path}: key", key, KEYS)
        if not isinstance(value, KEYS[key]):
            raise ValueError(f"{path}: {key}: expected a {KEYS[key].__name__}, got {value!r}")
    if missing := [key for key in ("models", "dataset") if not spec.get(key)]:
        raise ValueError(f"{path}: {' and '.join(missing)} must be given")
    spec = {"seeds": [0], "recipe": "paper-cifar", "device": "auto", "set": {}, "data_dir": None,
            "graph": False} | spec
    if all(type(name) is str for name in spec["models"]):
        spec["models"] = [models.canonical(name) for name in spec["models"]]
    for key, kind in ("models", str), ("seeds", int):
        if not spec[key] or not all(type(v) is kind for v in spec[key]) or len(set(spec[key])) < len(spec[key]):
            raise ValueError(f"{path}: {key}: expected different {kind.__name__}s, got {spec[key]}")
    return spec


def plan(spec: Spec) -> dict[str, dict[str, Any]]:
    """{folder's name: arguments of configure} for every model and seed."""
    settings = [f"{key}={','.join(map(str, v)) if isinstance(v, list) else v}" for key, v in spec["set"].items()]
    return {f"{model}-seed{seed}": {"model": model, "dataset": spec["dataset"], "recipe": spec["recipe"], "seed": seed,
                                    "where": spec["device"], "settings": settings, "graph": spec.get("graph", False)}
            for seed in spec["seeds"] for model in spec["models"]}


def run(spec: Spec, out: Path, *, jobs: int | None = None, scheduler: str | None = None, every_seconds: float = 600,
        say: Say = print) -> tuple[str, dict[str, str]]:
    """Train the whole grid in folders of `out`, going on with what is there; (the table, {run that failed: why}).

    Here `jobs` runs share the cores; with `scheduler`, the address of a Dask scheduler, its workers do the work. Their
    folders must be this machine's, and each should have one thread for tasks (dask worker --nthreads 1) and
    MINIRES_THREADS in its environment. What is wrong with any of the runs' settings is said before the first begins.
    """
    todo = plan(spec)
    out = out.resolve()
    for name, asked in todo.items():
        chosen = configure(**{**asked, "where": "cpu"} if scheduler else asked)
        if (out / name / "config.json").exists():
            keys = [key for key in CHOSEN if key != "device" or not scheduler]
            if found := differences(runs.read_config(out / name), chosen, keys):
                raise ValueError(f"{out / name} holds a run of other settings: {'; '.join(found)}. Choose another "
                                 "--out")
    root = Path(spec["data_dir"]).resolve() if spec["data_dir"] else None
    if scheduler:
        failed = _on_cluster(todo, out, scheduler, root, every_seconds, say)
    else:
        failed = _here(todo, out, jobs, root, every_seconds, say)
    for name, why in failed.items():
        say(f"{name} failed: {why}")
    return (report.write([out], out) if list(out.glob("*/config.json")) else "No run has begun."), failed


def _here(todo: dict[str, dict[str, Any]], out: Path, jobs: int | None, root: Path | None, every_seconds: float,
          say: Say) -> dict[str, str]:
    where = configure(**next(iter(todo.values())))["device"]
    jobs = min(jobs or {"gpu": 1}.get(where, info.cores()), info.cores(), len(todo))  # a GPU's memory is not shared out
    env = {**os.environ, "MINIRES_THREADS": str(max(1, info.cores() // jobs))}
    say(f"{len(todo)} runs, {jobs} at a time, with {env['MINIRES_THREADS']} threads each")

    def train(name: str) -> str:
        """What went wrong, "" if nothing did."""
        asked = todo[name]
        command = [sys.executable, "-m", "minires", "train", asked["model"], "--resume", "--out", str(out / name),
                   "--dataset", asked["dataset"], "--recipe", asked["recipe"], "--seed", str(asked["seed"]),
                   "--device", asked["where"], "--checkpoint-seconds", str(every_seconds)]
        command += ["--data-dir", str(root)] if root else []
        command += ["--graph"] if asked["graph"] else []
        command += ["--set", *asked["settings"]] if asked["settings"] else []
        for _ in range(DEATHS):
            last = ""
            with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True) as process:
                for last in process.stdout or ():
                    say(last.rstrip())
            status = process.returncode
            if status >= 0:
                return last.strip() or f"its process ended with status {status}" if status else ""
            say(f"{name}: killed by signal {-status}; going on from its last checkpoint")
        return f"its process was killed {DEATHS} times"

    with ThreadPoolExecutor(jobs) as pool:  # a thread waits for each process
        try:
            outcomes = dict(zip(todo, pool.map(train, todo), strict=True))
        except KeyboardInterrupt:  # the processes have it too, and stop at a checkpoint
            pool.shutdown(cancel_futures=True)
            raise
    return {name: why for name, why in outcomes.items() if why}


def _on_cluster(todo: dict[str, dict[str, Any]], out: Path, scheduler: str, root: Path | None, every_seconds: float,
                say: Say) -> dict[str, str]:
    try:
        from distributed import Client, as_completed
    except ModuleNotFoundError as e:
        raise RuntimeError('--scheduler needs Dask: pip install "minires[cluster]"') from e
    failed = {}
    with Client(scheduler) as client:
        say(f"{len(todo)} runs on {len(client.scheduler_info(n_workers=-1)['workers'])} workers of {scheduler}")
        # A task whose worker dies is given to another one, which finds the run's last checkpoint.
        futures = {client.submit(_task, asked, out / name, root, every_seconds, pure=False): name
                   for name, asked in todo.items()}
        for future in as_completed(futures):
            name = futures[future]
            if future.status == "finished":
                say(f"{name}: {future.result()}")
            else:
                failed[name] = str(future.exception())
    return failed


def _task(asked: dict[str, Any], out: Path, root: Path | None, every_seconds: float) -> str:
    """One run, on a worker of the cluster."""
    done = runs.train(configure(**asked), out, resume=True, root=root, every_seconds=every_seconds,
                      command=f"minires sweep, {out.name}")
    return f"finished, {done.steps} steps"
