"""This module has what the benchmarks share: worker processes, interleaved rounds, ratios, tables, machine facts.

It imports little, and only from the standard library. A process that starts another passes its own peak memory on to
it, so the process that measures memory must be small.
"""
from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
Times = list[list[float]]  # milliseconds: one list for each round
Turn = Callable[[], list[float]]


class Failed(Exception):
    """A worker cannot do its work. The text is the reason."""


class Worker:
    """A Worker runs one system in its own process. Between requests the process waits for a line on its pipe."""

    def __init__(self, system: str, python: str, threads: int):
        # Every library reads the variable that it knows. For minires the path starts with this checkout, so that this
        # checkout is measured.
        env = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
                                              "MINIRES_THREADS", "NUM_CPU_THREADS"), str(threads))}
        env.pop("MINIRES_KERNELS", None)  # the worker chooses its kernels
        if system.startswith("minires"):
            env["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), *filter(None, [env.get("PYTHONPATH")])])
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (close() closes it)
        try:
            self.process = subprocess.Popen([python, str(HERE / "workers.py"), system, str(threads)], text=True,
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, env=env)
        except OSError as e:
            raise Failed(f"{Path(python).name} cannot be started ({e.strerror})") from e

    def ask(self, do: str, **arguments: Any) -> Any:
        """Send one request and return its answer. Raises Failed if the process ends or answers with an error."""
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.errors.seek(0)
            last = (self.errors.read().strip().splitlines() or ["nothing on stderr"])[-1]
            raise Failed(f"the process ended with status {self.process.wait()}: {without_paths(last)}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(without_paths(answer["error"]))
        return answer["value"]

    def turn(self, key: str, count: int) -> Turn:
        """Return a function that times `count` runs of the network or layer `key`."""
        return lambda: self.ask("time", key=key, count=count)

    def close(self) -> None:
        """End the process by closing its pipe, which ends its loop."""
        self.process.communicate()
        self.errors.close()


class Workers:
    """Workers holds the running workers by label, and ends them all at the end of the `with`.

    `left_out` has the workers that failed, each with its reason.
    """

    def __init__(self) -> None:
        self.running: dict[str, Worker] = {}
        self.left_out: dict[str, str] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: Any) -> None:
        for worker in self.running.values():
            worker.close()

    def start(self, label: str, system: str, python: str, threads: int, check: Callable[[Worker], Any]) -> Any:
        """Start a worker and return the result of `check`, its first requests; None if it fails and is left out.

        Raises SystemExit if minires itself fails.
        """
        try:
            worker = Worker(system, python, threads)
            self.running[label] = worker
            return check(worker)
        except Failed as e:
            if label in self.running:
                self.running.pop(label).close()
            if system == "minires":
                raise SystemExit(f"minires: {e}") from e
            self.left_out[label] = str(e)
            print(f"left out: {label}: {e}", file=sys.stderr)
            return None


def interleave(turns: dict[Any, Turn], rounds: int, pause: float) -> dict[Any, Times]:
    """Run all turns in order, A B C A B C ..., for a number of rounds. Return {key: the times of each round}.

    Changes in the speed of the machine then affect all turns equally.

    pause: seconds before each turn, because the threads of BLAS and OpenMP spin for a while before they sleep.
    """
    times: dict[Any, Times] = {key: [] for key in turns}
    for number in range(rounds):
        for key, turn in turns.items():
            time.sleep(pause)
            times[key].append(turn())
        if sys.stderr.isatty():
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return times


def per_round(times: Times) -> list[float]:
    """Return the median of every round."""
    return [statistics.median(r) for r in times]


def median(times: Times) -> float:
    """Return the median of all times."""
    return statistics.median(t for r in times for t in r)


def best(times: Times) -> float:
    """Return the shortest of all times."""
    return min(t for r in times for t in r)


def ratios(times: Times, base: Times) -> list[float]:
    """Return times / base, round by round. Two times are comparable only within a round."""
    return [a / b for a, b in zip(per_round(times), per_round(base), strict=True)]


def without_paths(text: str) -> str:
    """Return `text` without the folders of absolute paths."""
    return re.sub(r"(?<![\w.])(/[^\s/'\":,()]+)+/", "", text)


# ---------------------------------------------------------------------------------- the machine


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu() -> str:
    """Return the name of the processor."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def vectors() -> str:
    """Return the name of the widest vectors that the processor offers, "AVX-512", "AVX2" or "NEON", or "unknown"."""
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        words = set()
    found = [name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2"), ("asimd", "NEON")) if flag in words]
    return found[0] if found else "unknown"


def load() -> list[float]:
    """Return the load of the machine over the last 1, 5 and 15 minutes."""
    return [round(v, 2) for v in os.getloadavg()] if hasattr(os, "getloadavg") else []


def header(benchmark: str, argv: Sequence[str]) -> dict[str, Any]:
    """Return the head of every result: the command, the date and the machine."""
    return {"benchmark": benchmark, "command": command(benchmark, argv),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": {"cpu": cpu(), "vectors": vectors(), "cores": cores(), "system": platform.system(),
                        "python": platform.python_version()},
            "load_before": load()}


def command(benchmark: str, argv: Sequence[str]) -> str:
    """Return the command line that repeats a run. Absolute paths lose their folders, which only one machine has."""
    words = ["python", f"benchmarks/{benchmark}.py"]
    for word in argv:
        option, equals, value = word.rpartition("=")
        words.append(option + equals + (Path(value).name if Path(value).is_absolute() else value))
    return " ".join(words)


# --------------------------------------------------------------------------- options and output


def parser(description: str, *, rounds: int) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--rounds", type=positive, default=rounds, metavar="N", help="interleaved rounds")
    p.add_argument("--pause", type=float, default=0.1, metavar="S", help="seconds to wait before each turn")
    p.add_argument("--out", type=Path, default=argparse.SUPPRESS, metavar="FILE.json",
                   help="also write every number to this file")
    return p


def add_pythons(p: argparse.ArgumentParser) -> None:
    """Add the option --python NAME=PATH, for peers that are installed in another virtual environment."""
    p.add_argument("--python", action="append", type=_python, default=argparse.SUPPRESS, metavar="NAME=PATH",
                   help="the Python that runs a peer, if it is installed in another virtual environment; repeatable")


def pythons(args: argparse.Namespace) -> Callable[[str], str]:
    """Return a function from a system to its Python: the one given for the system, or for its peer, or this one."""
    by_name: dict[str, str] = dict(getattr(args, "python", []))
    return lambda system: by_name.get(system, by_name.get(system.partition("-")[0], sys.executable))


def _python(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"expected NAME=PATH, such as dezero=venv/bin/python, got {text!r}")
    return name, path


def positive(text: str) -> int:
    """Parse a whole number of at least 1, for argparse."""
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number >= 1, got {text!r}")
    return value


def positives(text: str) -> list[int]:
    """Parse whole numbers of at least 1, separated by commas, for argparse."""
    return [positive(part) for part in text.split(",")]


def plural(count: int, word: str) -> str:
    """Return a count with its noun: plural(2, "thread") is "2 threads"."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, aligned for a terminal. The first column is text, the other columns are numbers."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    def line(cells: Sequence[str]) -> str:
        padded = [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
        return f"| {' | '.join(padded)} |"
    rule = [":" + "-" * (widths[0] - 1), *("-" * (w - 1) + ":" for w in widths[1:])]
    return "\n".join([line(heads), f"| {' | '.join(rule)} |", *map(line, rows)])


def number(value: float | None, digits: int = 0) -> str:
    """Format `value` for a table, with a thousands separator. None becomes a dash."""
    return "–" if value is None else f"{value:,.{digits}f}"


def spread(values: Sequence[float] | None) -> str:
    """Format the median and range of the ratios of all rounds."""
    if not values:
        return "–"
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def script(main: Callable[[Sequence[str]], int]) -> None:
    """Run the main of a benchmark with the arguments of the command line. Report errors in one line."""
    try:
        sys.exit(main(sys.argv[1:]))
    except Failed as e:
        sys.exit(f"{Path(sys.argv[0]).name}: {e}")
    except KeyboardInterrupt:
        sys.exit(130)


def finish(result: dict[str, Any], text: str, out: Path | None) -> None:
    """Print the table and write the JSON."""
    result["load_after"] = load()
    print(text)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
