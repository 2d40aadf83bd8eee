"""Train runs in separate processes, several at a time.

If a process is killed, its run loses only the work since its last checkpoint.

`python -m minires.runs.workers` is such a process. It reads a Job as JSON, and writes events as JSON, one per line.
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

from ..files import streams
from ..kernels import parallel
from ..train import NotFinite
from .config import RunConfig
from .progress import Passed
from .run import Outcome, stop_signals, train

DEATHS = 3  # killed processes of one run after which the run has failed
# The errors that the parent of a process raises again with the same type; any other error becomes a RuntimeError.
RAISED = {kind.__name__: kind for kind in (ValueError, RuntimeError, ArithmeticError, MemoryError, OSError,
                                           FileNotFoundError, FileExistsError, PermissionError, NotFinite)}

# Ctrl-C, and the SIGHUP of a terminal that closes, reach every process of the terminal, but the parent decides.
DECIDED_BY_PARENT = [signal.SIGINT, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]

Event = str | Passed                 # a line of text, or a run's progress after a step
Tell = Callable[[str, Event], None]  # called with the run's name and the event


@dataclass(frozen=True)
class Job:
    """Describes a run to begin in the folder `out`, or to resume if the folder holds it."""

    config: RunConfig
    out: Path
    root: Path | None = None    # the data set's folder; None: the default folder
    every_seconds: float = 600  # between checkpoints
    threads: int | None = None  # of the kernels; None: the default number
    command: str = ""

    def train(self, say: Callable[[str], None] | None = None,
              watch: Callable[[Passed], None] | None = None) -> Outcome:
        """Train in this process, and return how the run ended; see `runs.train`."""
        with parallel.session(self.threads):
            return train(self.config, self.out, resume=True, root=self.root, every_seconds=self.every_seconds,
                         command=self.command, say=say, watch=watch)


def in_turn(jobs: Mapping[str, Job], tell: Tell) -> tuple[dict[str, Outcome], str]:
    """Train one run after the other in this process, until one is stopped.

    Return {name: how the run ended}, and what stopped the runs, or "" if all of them are finished.

    Raises what a run raises.
    """
    outcomes: dict[str, Outcome] = {}
    with stop_signals() as stop:
        for name, job in jobs.items():
            if stop:
                break
            outcomes[name] = job.train(partial(tell, name), partial(tell, name))
    return outcomes, _stopped(jobs, outcomes, stop)


def _stopped(jobs: Mapping[str, Job], outcomes: Mapping[str, Outcome], stop: list[str]) -> str:
    """Return what stopped the runs: a signal to this process or to a run's process; "" if all runs are finished."""
    if sum(outcome.finished for outcome in outcomes.values()) == len(jobs):
        return ""
    return next((reason for reason in (*stop, *(o.stopped for o in outcomes.values())) if reason), "")


def side_by_side(jobs: Mapping[str, Job], at_a_time: int, tell: Tell,
                 failed: Callable[[str, Exception], None]) -> tuple[dict[str, Outcome], str]:
    """Train in processes, `at_a_time` at the same time, started in the given order.

    Return {name: how the run ended}, and what stopped the runs, or "" if nothing did.

    tell: is called with a run's name and each of its events
    failed: is called with a run's name and the error that the run raised, or a RuntimeError for a process that died;
        if `failed` raises, all runs are stopped

    If a signal kills a process, a new process resumes the run; when DEATHS processes of a run were killed, the run has
    failed. Ctrl-C, SIGTERM and SIGHUP stop all runs at checkpoints; a second Ctrl-C kills the processes.

    Raises ValueError for `at_a_time` below 1.
    """
    if at_a_time < 1:
        raise ValueError(f"side_by_side: expected at least one run at the same time, got {at_a_time}")
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
                elif not (process.asked_to_stop or stop):  # a process dies from a signal that comes before its main()
                    deaths[name] += 1
                    if deaths[name] == DEATHS:
                        failed(name, RuntimeError(f"its process was killed {DEATHS} times"))
                    else:
                        tell(name, f"{name}: killed by signal {end}; resuming from its last checkpoint")
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
    """Holds a process that trains, and a thread that puts the process's events into the queue, and None at the end."""

    def __init__(self, name: str, job: Job, arrived: queue.Queue[tuple[str, Event | None]]):
        self.name, self.arrived, self.asked_to_stop = name, arrived, False
        self.result: Outcome | Exception | None = None
        root = str(Path(__file__).resolve().parents[2])
        # The process must import the same minires as this one.
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen([sys.executable, "-m", __name__, str(job.out)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, encoding="utf-8",
                                        env={**os.environ, "PYTHONPATH": paths})
        asked = {**vars(job), "config": job.config.to_json(), "out": str(job.out),
                 "root": str(job.root) if job.root else None}
        assert self.process.stdin and self.process.stdout
        with suppress(BrokenPipeError), self.process.stdin as pipe:  # if the process is dead already, `end` reports it
            pipe.write(json.dumps(asked))
        self.reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self.reader.start()

    def _read(self, lines: IO[str]) -> None:
        with lines:
            for line in lines:
                try:
                    [(kind, value)] = json.loads(line).items()
                except ValueError:  # a killed process can leave half a line
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
        """Ask the process to stop at a checkpoint."""
        if not self.asked_to_stop:
            self.asked_to_stop = True
            self.process.terminate()

    def kill(self) -> None:
        """Kill the process at once."""
        self.process.kill()

    def end(self) -> Outcome | Exception | int:
        """Wait until the process ends. Return how its run ended, what it raised, or the signal that killed it."""
        self.reader.join()
        status = self.process.wait()
        if self.result is not None:
            return self.result
        return -status if status < 0 else RuntimeError(f"its process ended with status {status}")


def main() -> None:
    """Train the Job from standard input. Events go to standard output, and anything printed goes to standard error."""
    for number in DECIDED_BY_PARENT:
        signal.signal(number, signal.SIG_IGN)
    streams.open_missing()
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(kind: str, value: Any) -> None:
        try:
            channel.write(json.dumps({kind: value}) + "\n")
            channel.flush()
        except BrokenPipeError:  # the parent is gone: stop at a checkpoint
            signal.raise_signal(signal.SIGTERM)

    with stop_signals():  # also before and after the training: SIGTERM may come at any time, and from several senders
        try:
            asked = json.loads(sys.stdin.read())
            job = Job(**asked | {"config": RunConfig.from_json(asked["config"], "the job"), "out": Path(asked["out"]),
                                 "root": Path(asked["root"]) if asked["root"] else None})
            send("outcome", dataclasses.asdict(job.train(partial(send, "say"), partial(send, "passed"))))
        except Exception as e:
            send(type(e).__name__, str(e))


if __name__ == "__main__":
    main()
