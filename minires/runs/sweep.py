"""Train a grid of runs, models x seeds, in processes on this machine or as tasks on a Dask cluster.

Each run has its own folder and checkpoints. If a worker dies, its run loses only the work since its last checkpoint.
"""
from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import device, models
from ..files import records
from ..kernels import parallel
from ..names import counted
from . import report
from .config import Option, RunConfig, configure
from .progress import say as say_at_once
from .run import read_config
from .workers import Event, Job, side_by_side

Say = Callable[[str], None]
MOST_BYTES = 64 << 10  # of the SPEC file
MOST_DOTS = 200        # in one of its lines, if it is TOML


@dataclass(frozen=True)
class Spec:
    """Holds the content of the SPEC file.

    Raises ValueError for an unknown name, and for a model or a seed that is given twice.
    """

    models: tuple[str, ...]
    dataset: str
    seeds: tuple[int, ...] = (0,)
    recipe: str = "paper-cifar"
    device: str = "auto"
    set: dict[str, Option | list[Option]] = field(default_factory=dict)
    data_dir: str | None = None
    graph: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "models", tuple(map(models.canonical, self.models)))
        for key in "models", "seeds":
            values = getattr(self, key)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{key}: expected one or more, all different, got {', '.join(map(str, values))}")
        if self.device not in ("auto", "cpu", "gpu"):
            raise ValueError(f'device: expected "auto", "cpu" or "gpu", got {self.device!r}')

    def runs(self, where: str | None = None) -> dict[str, RunConfig]:
        """Return {folder's name: config} for every model and seed.

        where: the device; None: the device that the file gives
        """
        settings = [f"{key}={','.join(map(str, v)) if isinstance(v, list) else v}" for key, v in self.set.items()]
        return {f"{model}-seed{seed}": configure(model, self.dataset, self.recipe, seed, where or self.device, settings,
                                                 self.graph)
                for seed in self.seeds for model in self.models}


def read(path: Path) -> Spec:
    """Read the SPEC file, and check it. It is TOML if its name ends in .toml, otherwise JSON.

    Raises ValueError, which names the file and the key, if a value is missing, unknown or of another type.
    Raises ValueError for a file of more than MOST_BYTES, and for a line with more than MOST_DOTS dots.
    """
    text, where = records.content(path, MOST_BYTES), str(path)
    if path.suffix == ".toml":
        for number, line in enumerate(text.splitlines(), 1):
            if line.count(".") > MOST_DOTS:  # the time that tomllib takes for a key grows with the square of its dots
                raise ValueError(f"{where} cannot be read: line {number} has more than {MOST_DOTS} dots")
        try:
            raw: Any = tomllib.loads(text)
        except RecursionError as e:
            raise ValueError(f"{where} cannot be read: its lists and tables are nested too deeply") from e
        except ValueError as e:
            raise ValueError(f"{where} cannot be read: {e}") from e
    else:
        raw = records.parse(text, where)
    spec: Spec = records.checked(raw, Spec, str(path))
    try:
        spec.runs(where="cpu")  # checks the settings
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e
    return spec


def run(spec: Spec, out: Path, *, jobs: int | None = None, scheduler: str | None = None, every_seconds: float = 600,
        command: str = "minires sweep", say: Say = say_at_once) -> tuple[str, dict[str, str]]:
    """Train the whole grid in folders of `out`, and resume the runs that are there. Return (table, {failed run: why}).

    jobs: number of runs at the same time on this machine, which share the cores
    scheduler: address of a Dask scheduler, whose workers then train the runs

    The workers must see the same folders as this machine. Each worker should have one thread for tasks (dask worker
    --nthreads 1), and MINIRES_THREADS in its environment. The settings of all runs are checked before the first run
    begins.

    Raises ValueError if a folder holds a run with other settings.
    Raises KeyboardInterrupt, with the name of the signal, if Ctrl-C, SIGTERM or SIGHUP stopped the runs, each of them
    after a checkpoint.
    """
    out = out.resolve()
    configs = spec.runs(where="cpu" if scheduler else None)
    for name, config in configs.items():
        if (out / name / "config.json").exists():
            there = read_config(out / name)
            if found := there.differences(config, but=("device",) if scheduler else ()):
                raise ValueError(f"{out / name} holds a run with other settings: {'; '.join(found)}. Choose another "
                                 "--out")
    root = Path(spec.data_dir).resolve() if spec.data_dir else None
    todo = {name: Job(config, out / name, root, every_seconds, command=command) for name, config in configs.items()}
    failed = _on_cluster(todo, scheduler, spec.device, say) if scheduler else _here(todo, jobs, say)
    for name, why in failed.items():
        say(f"{name} failed: {why}")
    return (report.write([out], out) if list(out.glob("*/config.json")) else "No run has begun."), failed


def _here(todo: Mapping[str, Job], jobs: int | None, say: Say) -> dict[str, str]:
    where, cores = next(iter(todo.values())).config.device, parallel.cores()
    jobs = min(jobs or {"gpu": 1}.get(where, cores), cores, len(todo))  # nothing divides a GPU's memory among runs
    threads = max(1, cores // jobs)
    say(f"{counted(len(todo), 'run')}, {jobs} at a time, with {counted(threads, 'thread')} each")
    failed: dict[str, str] = {}

    def tell(name: str, event: Event) -> None:
        if isinstance(event, str):
            say(event)

    def note(name: str, error: Exception) -> None:
        failed[name] = str(error)

    sharing = {name: dataclasses.replace(job, threads=threads) for name, job in todo.items()}
    outcomes, stopped = side_by_side(sharing, jobs, tell, note)
    for name, outcome in outcomes.items():
        if not outcome.finished:
            say(f"{name}: stopped by {outcome.stopped} at step {outcome.step} of {outcome.steps}")
    if stopped:
        say("To resume, give the same command again")
        raise KeyboardInterrupt(stopped)
    return failed


def _on_cluster(todo: Mapping[str, Job], scheduler: str, where: str, say: Say) -> dict[str, str]:
    try:
        from distributed import Client, as_completed
    except ModuleNotFoundError as e:
        raise RuntimeError('--scheduler needs Dask: pip install "minires[cluster]"') from e
    failed = {}
    with Client(scheduler) as client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        say(f"{counted(len(todo), 'run')} on {counted(len(workers), 'worker')} of {scheduler}")
        # If a worker dies, Dask gives its task to another worker, which resumes from the run's last checkpoint.
        futures = {client.submit(_task, job, where, pure=False): name for name, job in todo.items()}
        for future in as_completed(futures):
            name = futures[future]
            if future.status == "finished":
                say(f"{name}: {future.result()}")
            else:
                failed[name] = str(future.exception())
    return failed


def _task(job: Job, where: str) -> str:
    """Train one run on a worker of the cluster, whose device may differ from the device of the submitting machine."""
    config = dataclasses.replace(job.config, device=device.use(where))
    done = dataclasses.replace(job, config=config).train()
    return f"finished, {done.steps} steps"
