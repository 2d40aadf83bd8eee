"""Trainings in processes of their own, several at a time. A process that is killed costs its run what it did since its
last checkpoint, and nothing else.

`python -m minires.runs.workers` is such a process: it reads a Job as JSON and writes what happens as JSON, one event a
line.
"""
from __future__ import annotations

import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from ..kernels import parallel
from ..train import NotFinite
from .config import RunConfig
from .progress import Passed
from .run import Outcome, stop_signals, train

DEATHS = 3  # of one run's processes, after which it is given up
# What a process raises and its parent raises again; anything else becomes a RuntimeError.
RAISED = {kind.__name__: kind for kind in (ValueError, RuntimeError, ArithmeticError, MemoryError, OSError,
                                           FileNotFoundError, FileExistsError, PermissionError, NotFinite)}

Event = str | Passed                 # a line of text, or where a run stands after a step
Tell = Callable[[str, Event], None]  # called with the run's name and the event


@dataclass(frozen=True)
class Job:
    """One training: begun in the folder `out`, or resumed where that holds the run."""

    config: RunConfig
    out: Path
    root: Path | None = None    # the data set's folder, if not the usual one
    every_seconds: float = 600  # between checkpoints
    threads: int | None = None  # of the kernels, if not as many as there are
    command: str = ""

    def train(self, say: Callable[[str], None] | None = None,
              watch: Callable[[Passed], None] | None = None) -> Outcome:
        """Train in this process; see `runs.train`."""
        with parallel.session(self.threads):
            return train(self.config, self.out, resume=True, root=self.root, every_seconds=self.every_seconds,
                         command=self.command, say=say, watch=watch)


def in_turn(jobs: Mapping[str, Job], tell: Tell) -> tuple[dict[str, Outcome], str]:
    """Train one after the other in this process, until one is stopped; {name: how it ended}, and what stopped them, ""
    where all are finished. What a training raises is raised."""
    outcomes: dict[str, Outcome] = {}
    with stop_signals() as stop:
        for name, job in jobs.items():
            if stop:
                break
            outcomes[name] = job.train(partial(tell, name), partial(tell, name))
    return outcomes, _stopped(jobs, outcomes, stop)


def _stopped(jobs: Mapping[str, Job], outcomes: Mapping[str, Outcome], stop: list[str]) -> str:
    """What stopped them: a signal to this process, or to one of theirs."""
    if sum(outcome.finished for outcome in outcomes.values()) == len(jobs):
        return ""
    return next((reason for reason in (*stop, *(o.stopped for o in outcomes.values())) if reason), "")


def side_by_side(jobs: Mapping[str, Job], at_a_time: int, tell: Tell,
                 failed: Callable[[str, Exception], None]) -> tuple[dict[str, Outcome], str]:
    """Train in processes, `at_a_time` together, started in the order given; {name: how it ended}, and what stopped
    them, "" where nothing did.

    A process that a signal kills is started again and resumes its run, up to DEATHS times. `failed` is called with
    what a training raised, or a RuntimeError for a process that died; where `failed` raises, all are stopped. Ctrl-C
    and SIGTERM stop all of them at checkpoints; a second one kills them.
    """
    waiting, running = list(jobs), dict[str, _Process]()
    outcomes, deaths = dict[str, Outcome](), dict.fromkeys(jobs, 0)
    arrived: queue.Queue[tuple[str, Event | None]] = queue.Queue()
    with stop_signals() as stop:
        try:
            while running or (waiting and not stop):
                while waiting and len(running) < at_a_time and not stop:
                    name = waiting.pop(0)
                    running[name] = _Process(name, jobs[name], arrived)
                if stop:
                    for process in running.values():
                        process.stop()
                try:
                    name, event = arrived.get(timeout=0.2)
                except queue.Empty:
                    continue
                if event is not None:
                    tell(name, event)
                    continue
                process = running.pop(name)
                end = process.end()
                if isinstance(end, Outcome):
                    outcomes[name] = dataclasses.replace(end, stopped=stop[0]) if stop and end.stopped else end
                elif isinstance(end, Exception):
                    failed(name, end)
                elif not process.asked_to_stop:  # while it was starting, it did not stop but die
                    deaths[name] += 1
                    if deaths[name] == DEATHS:
                        failed(name, RuntimeError(f"its process was killed {DEATHS} times"))
                    else:
                        tell(name, f"{name}: killed by signal {end}; going on from its last checkpoint")
                        waiting.insert(0, name)
        finally:
            try:
                for process in running.values():
                    process.stop()
                for process in running.values():
                    process.end()
            except BaseException:
                for process in running.values():
                    process.kill()
                raise
    return outcomes, _stopped(jobs, outcomes, stop)


class _Process:
    """A process that trains. A thread reads what it writes, and puts events into the queue, and None at its end."""

    def __init__(self, name: str, job: Job, arrived: queue.Queue[tuple[str, Event | None]]):
        self.name, self.arrived, self.asked_to_stop = name, arrived, False
        self.result: Outcome | Exception | None = None
        root = str(Path(__file__).resolve().parents[2])
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))  # the minires that runs here
        self.process = subprocess.Popen([sys.executable, "-m", __name__, str(job.out)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, encoding="utf-8",
                                        env={**os.environ, "PYTHONPATH": paths})
        asked = {**vars(job), "config": job.config.to_json(), "out": str(job.out),
                 "root": str(job.root) if job.root else None}
        assert self.process.stdin and self.process.stdout
        with suppress(BrokenPipeError), self.process.stdin as pipe:  # it may be dead already, which its end will tell
            pipe.write(json.dumps(asked))
        self.reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self.reader.start()

    def _read(self, lines: IO[str]) -> None:
        with lines:
            for line in lines:
                try:
                    [(kind, value)] = json.loads(line).items()
                except ValueError:  # the half of a line that a killed process leaves
                    continue
                if kind == "say":
                    self.arrived.put((self.name, value))
                elif kind == "passed":
                    self.arrived.put((self.name, Passed(*value)))
                elif kind == "outcome":
                    self.result = Outcome(**value)
                else:
                    self.result = RAISED[kind](value) if kind in RAISED else RuntimeError(f"{kind}: {value}")
        self.arrived.put((self.name, None))

    def stop(self) -> None:
        """Ask it to stop at a checkpoint."""
        if not self.asked_to_stop:  # a second time would break a step in two
            self.asked_to_stop = True
            self.process.terminate()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()

    def end(self) -> Outcome | Exception | int:
        """Wait for its end: how its run ended, what it raised, or the number of the signal that killed it."""
        self.reader.join()
        status = self.process.wait()
        if self.result is not None:
            return self.result
        return -status if status < 0 else RuntimeError(f"its process ended with status {status}")


def main() -> None:
    """Train the Job on standard input. Events go to standard output; what is printed meanwhile, to standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent decides
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(kind: str, value: Any) -> None:
        try:
            channel.write(json.dumps({kind: value}) + "\n")
            channel.flush()
        except BrokenPipeError:  # the parent is gone: stop at a checkpoint
            signal.raise_signal(signal.SIGTERM)

    try:
        asked = json.loads(sys.stdin.read())
        job = Job(**asked | {"config": RunConfig.from_json(asked["config"], "the job"), "out": Path(asked["out"]),
                             "root": Path(asked["root"]) if asked["root"] else None})
        send("outcome", dataclasses.asdict(job.train(partial(send, "say"), partial(send, "passed"))))
    except Exception as e:
        send(type(e).__name__, str(e))


if __name__ == "__main__":
    main()
