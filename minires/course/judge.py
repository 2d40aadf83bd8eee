"""Run submissions in processes of their own, compare their answers with the solution's, and decide the marks.

One worker process answers one task of one submission. It gets the submission's cells and the cases' inputs, and answers
with arrays. Expected arrays and verdicts never leave the judge's process.

Limits of a worker: computing time (from the moment NumPy is loaded), 1 GiB of memory, files of 16 MB, and a wall time
that only stops code that sleeps; on Linux a worker that computes on a busy machine gets more of it. Linux enforces all
of these, macOS all but the memory, Windows the wall time. The worker's audit hook refuses child processes, sockets, and
files outside its own empty folder. This stops accidents and simple tricks; a process of the same user is not a wall
against an attacker, so grade an open contest in a container.
"""
from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import diagnose, solution
from .diagnose import Verdict
from .master import PLACES
from .task import HERE, VISIBLE_SHARE, Case, Task
from .worker import NOTES, TEXT, NoAnswer, Outcome, Raised, define, message, next_message, packed

MEMORY, FILE = 1 << 30, 16 << 20  # bytes
START = 120.0                     # seconds of wall time for Python and NumPy to load, on a machine that is busy
LEAST_WALL, WALL = 60.0, 6.0      # seconds of wall time: at least, and for each second of computing time
BUSY, PATIENCE = 0.02, 10         # a worker that computes for this share of its wall time gets it again, this often
NO_PROCESSES = sys.platform in ("emscripten", "wasi")
PRINTED = 4096                    # bytes of what a submission prints that are kept
EARLY = "Died early"              # a Raised's error if the worker died before any case
Cells = Sequence[tuple[str, str]]
_alone = threading.Lock()         # one thread at a time runs the solution or its bugs in this process


class Died(Exception):
    """A worker gives no answer any more; the message completes "your code ..."."""


class DiedEarly(Died):
    """A worker died while it defined the submission's names, before any case."""


def computing_time(pid: int) -> float:
    """Return the seconds of computing time of a process, or 0.0 where the system has no /proc."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0


class Worker:
    """A process that has defined a submission's names and answers cases. Use it as a context manager.

    task: the task, which decides about the drivers and the limits
    cells: (the cell's name, its source), in order

    Raises Died while it starts or answers.
    """

    def __init__(self, task: Task, cells: Cells, memory: int = MEMORY, wall: float | None = None) -> None:
        self.task, self.notes = task, []
        self.wall = max(LEAST_WALL, WALL * task.cpu_seconds) if wall is None else wall
        self.folder = Path(tempfile.mkdtemp(prefix="minires-worker-"))
        package, numpy = HERE.parent, Path(np.__file__).resolve().parents[1]
        libraries = {sys.prefix, sys.base_prefix, *(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib",
                     "purelib", "platlib")), str(numpy), str(package / "data"), str(package.parent / "data")}
        settings = {"course": str(HERE), "paths": [str(numpy), str(package.parent)], "minires": task.minires,
                    "drivers": f"drivers_{task.assignment}", "needs": task.needs, "withheld": task.withheld,
                    "readable": sorted(libraries), "closed": [str(package), *map(str, PLACES)], "memory": memory,
                    "file": FILE, "cpu": task.cpu_seconds}
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "MINIRES_THREADS"), "1")
        kept = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH")
        # What BLAS and NumPy compute with decides the last bits, which some tasks compare with the solution's here.
        environment = {name: value for name, value in os.environ.items()
                       if name in kept or name.startswith(("OPENBLAS_", "MKL_", "NPY_"))}
        environment |= threads | {"MINIRES_KERNELS": "reference", "PYTHONUTF8": "1", "PYTHONHASHSEED": "0",
                                  **dict.fromkeys(("HOME", "TMPDIR", "TEMP", "TMP", "USERPROFILE"), str(self.folder))}
        own = {"start_new_session": True} if os.name == "posix" else {}
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-B", str(HERE / "worker.py"), json.dumps(settings)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=self.folder, env=environment, **own)  # type: ignore[call-overload]
        self.answers: queue.Queue[Any] = queue.Queue()
        self.wanted, self.closed = threading.Semaphore(0), False
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self._allow(START)
            self._receive()  # hello
            self._allow(self.wall)
            try:
                head, _ = self._exchange({"cells": list(map(list, cells))})
            except Died as e:
                raise DiedEarly(f"{e}, before any of it was called") from None
            notes = head.get("notes", ())
            self.notes = [str(note)[:TEXT] for note in notes[:NOTES]] if isinstance(notes, list) else []
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def ask(self, case: Case) -> Outcome:
        """Return the submission's answer to a case. Raise Died if there is none."""
        arrays: list[np.ndarray] = []
        inputs = packed(case.inputs, arrays)
        head, values = self._exchange({"driver": self.task.driver_of(case), "inputs": inputs}, arrays)
        if head.get("kind") == "raised":
            return Raised(*(str(head.get(name, ""))[:TEXT] for name in Raised._fields))
        names = head.get("names")
        if head.get("kind") != "values" or not isinstance(names, list) or len(names) != len(values):
            raise Died("answered something that is not an answer")
        return dict(zip(map(str, names), values, strict=True))

    def printed(self) -> str:
        """Return the beginning of what the submission has printed so far."""
        try:
            with open(self.folder / "stdout.txt", "rb") as file:
                return file.read(PRINTED).decode("utf-8", "replace")
        except OSError:
            return ""

    def _exchange(self, head: dict[str, Any], arrays: Sequence[np.ndarray] = ()) -> tuple[dict[str, Any], Any]:
        data, done = message(head, arrays), threading.Event()

        def write() -> None:  # in a thread, because a worker that does not read would stop it for ever
            try:
                assert self.process.stdin is not None
                self.process.stdin.write(data)
                self.process.stdin.flush()
            except (OSError, ValueError):  # the worker is gone, which the reader notices
                pass
            done.set()

        threading.Thread(target=write, daemon=True).start()
        while not done.wait(max(0.0, self.end - time.monotonic())):
            self._wait_longer()
        return self._receive()

    def _allow(self, seconds: float) -> None:
        """Start the clock."""
        self.allowed, self.end = seconds, time.monotonic() + seconds
        self.extensions, self.computed = PATIENCE, computing_time(self.process.pid)

    def _wait_longer(self) -> None:
        """Wait longer for a worker that computes, on a machine that is busy. Raise Died if it sleeps."""
        before, self.computed = self.computed, computing_time(self.process.pid)
        if self.computed - before < BUSY * self.allowed or self.extensions == 0:
            raise Died(f"did not answer within {self.wall:.0f} s")
        self.extensions -= 1
        self.end = time.monotonic() + self.allowed

    def _receive(self) -> tuple[dict[str, Any], list[np.ndarray]]:
        self.wanted.release()
        while True:
            try:
                got = self.answers.get(timeout=max(0.0, self.end - time.monotonic()))
                break
            except queue.Empty:
                self._wait_longer()
        if got is None:
            raise Died(self._why())
        if isinstance(got, Exception) or not isinstance(got[0], dict):
            raise Died("answered something that is not an answer")
        answer: tuple[dict[str, Any], list[np.ndarray]] = got
        return answer

    def _read(self) -> None:
        assert self.process.stdout is not None
        got: Any = ()
        while isinstance(got, tuple):
            self.wanted.acquire()  # a message that nobody has asked for stays in the pipe, which holds little
            if self.closed:
                return
            try:
                got = next_message(self.process.stdout)
            except NoAnswer as e:
                got = e
            except (OSError, ValueError, MemoryError):  # the pipe was closed
                got = None
            self.answers.put(got)

    def _why(self) -> str:
        try:
            status = self.process.wait(2)
        except subprocess.TimeoutExpired:
            return "closed the pipe on which it should answer"
        if status >= 0:
            return f"ended the process, with exit status {status}"
        if -status in (getattr(signal, "SIGXCPU", 0), signal.SIGTERM if os.name == "nt" else signal.SIGKILL):
            return f"was stopped after {self.task.cpu_seconds} s of computing"
        if -status in (signal.SIGSEGV, getattr(signal, "SIGBUS", 0), signal.SIGABRT):
            return "crashed: a recursion without end, or no memory left"
        return f"was ended by {signal.Signals(-status).name}"

    def close(self) -> None:
        """End the process and everything that it started, and delete its folder."""
        if os.name == "posix":
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        self.closed = True
        self.wanted.release()
        for pipe in self.process.stdin, self.process.stdout:
            with contextlib.suppress(OSError):  # bytes that nobody read
                if pipe is not None:
                    pipe.close()
        with contextlib.suppress(RecursionError):  # folders in folders, thousands of them
            shutil.rmtree(self.folder, ignore_errors=True)


# --------------------------------------------------------------------------------------------------- marks


class Half(NamedTuple):
    """The mark of one half of a task's cases."""

    points: float
    most: float
    verdict: Verdict


class Mark(NamedTuple):
    """The mark of one task of one submission."""

    task: str
    title: str
    visible: Half
    hidden: Half | None      # None where only the visible cases were tried
    notes: tuple[str, ...]   # what was left out of the file
    printed: str = ""        # the beginning of what it printed
    died: str = ""           # how the worker died before any case, or ""

    @property
    def right(self) -> bool:
        """Whether everything that was tried is right."""
        return self.visible.verdict.right and (self.hidden is None or self.hidden.verdict.right)


def answers(task: Task, cells: Cells, cases: Sequence[Case], memory: int = MEMORY,
            wall: float | None = None) -> tuple[list[Outcome], tuple[str, ...], str]:
    """Return (the submission's answer to each case, notes about the file, what it printed).

    A case has a `Raised` if the worker died before it. Where there are no processes, in a browser, the submission runs
    in this one, without limits.
    """
    if NO_PROCESSES:
        names: dict[str, Any] = {"__name__": "submission"}
        left_out = define(cells, names, {"minires"})
        return solution.outcomes(task, names, cases), tuple(left_out), ""
    found: list[Outcome] = []
    notes: tuple[str, ...] = ()
    printed = ""
    try:
        with Worker(task, cells, memory, wall) as worker:
            try:
                notes = tuple(worker.notes)
                for case in cases:
                    found.append(worker.ask(case))
            finally:
                printed = worker.printed()
    except Died as e:
        error = EARLY if isinstance(e, DiedEarly) else "Died"
        found += [Raised(error, f"your code {e}")] * (len(cases) - len(found))
    return found, notes, printed


def mark(task: Task, cells: Cells, seed: int | None, pairs: bool = False, died: str = "") -> Mark:
    """Mark one task of a submission.

    seed: draws the hidden cases; None to try only the visible ones
    pairs: whether to explain a failure by two bugs at once, too, which takes seconds
    died: how a worker for another task died before any case; then no worker is started for this one

    Raises CourseError if the task's own solution fails.
    """
    seeds = {"visible": 0} if seed is None else {"visible": 0, "hidden": seed}
    with _alone:
        drawn = [solution.drawn(task, half, number) for half, number in seeds.items()]
    tried = [case for cases, _ in drawn for case in cases]
    got, notes, printed = ([Raised(EARLY, died)] * len(tried), (), "") if died else answers(task, cells, tried)
    died = died or next((g.text for g in got if isinstance(g, Raised) and g.error == EARLY), "")
    made, at = [], 0
    for (half, number), (cases, expected) in zip(seeds.items(), drawn, strict=True):
        mine = got[at:at + len(cases)]
        at += len(cases)
        verdict = diagnose.verdict(task, cases, expected, mine)
        if verdict.words.startswith("not yet"):
            with _alone:
                verdict = diagnose.verdict(task, cases, expected, mine, bank=diagnose.known_bugs(task, half, number),
                                           pairs=diagnose.known_pairs(task, half, number) if pairs else ())
        most = points_of(task, half)
        made.append(Half(most if verdict.right else 0.0, most, verdict))
    return Mark(task.name, task.title, made[0], made[1] if len(made) > 1 else None, notes, printed, died)


def points_of(task: Task, half: str) -> float:
    """Return the points of a half of a task: 40 % of them for the visible cases, the rest for the hidden ones."""
    visible = round(VISIBLE_SHARE * task.points, 2)
    return visible if half == "visible" else round(task.points - visible, 2)
