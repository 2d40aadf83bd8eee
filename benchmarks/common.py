"""What the benchmarks share: worker processes, interleaved rounds, ratios, tables, and the facts of the machine.

Only the standard library, and little of it: a process that starts another hands its own peak memory down to it, so
whoever measures memory has to be small.
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
    """A worker cannot do its work; the text is the reason."""


class Worker:
    """One system in a process of its own. While it is not asked it waits for a line on its pipe."""

    def __init__(self, system: str, python: str, threads: int):
        # Every library reads the variable that it knows. The checkout comes first, so that it is what is measured.
        env = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
                                              "MINIRES_THREADS", "NUM_CPU_THREADS"), str(threads))}
        env.pop("MINIRES_KERNELS", None)  # the worker chooses
        if system.startswith("minires"):
            env["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), *filter(None, [env.get("PYTHONPATH")])])
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (close() closes it)
        try:
            self.process = subprocess.Popen([python, str(HERE / "workers.py"), system, str(threads)], text=True,
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, env=env)
        except OSError as e:
            raise Failed(f"{Path(python).name} cannot be started ({e.strerror})") from e

    def ask(self, do: str, **arguments: Any) -> Any:
        """Send one request and wait for its answer."""
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
        """What to call for `count` timed runs of the network or layer `key`."""
        return lambda: self.ask("time", key=key, count=count)

    def close(self) -> None:
        """End the process: its pipe closes, and so its loop ends."""
        self.process.communicate()
        self.errors.close()


class Workers:
    """Workers by label, all ended at the end of the `with`. Those that failed are in `left_out` with the reason."""

    def __init__(self) -> None:
        self.running: dict[str, Worker] = {}
        self.left_out: dict[str, str] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: Any) -> None:
        for worker in self.running.values():
            worker.close()

    def start(self, label: str, system: str, python: str, threads: int, check: Callable[[Worker], Any]) -> Any:
        """A new worker, and what `check` (its first requests) returned; None if it failed and is left out.

        minires itself must not fail: that ends the benchmark.
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
    """Everyone's turn, A B C A B C ..., for so many rounds: the machine's moods meet all of them alike.

    `pause`: seconds before each turn. The threads of BLAS and OpenMP spin for a while before they sleep.
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
    """The median of every round."""
    return [statistics.median(r) for r in times]


def median(times: Times) -> float:
    """The median of all that was timed."""
    return statistics.median(t for r in times for t in r)


def best(times: Times) -> float:
    """The shortest of all that was timed."""
    return min(t for r in times for t in r)


def ratios(times: Times, base: Times) -> list[float]:
    """times / base, round by round. Only within a round are two numbers comparable."""
    return [a / b for a, b in zip(per_round(times), per_round(base), strict=True)]


def without_paths(text: str) -> str:
    """`text` with the folders left out of every absolute path."""
    return re.sub(r"(?<![\w.])(/[^\s/'\":,()]+)+/", "", text)


# ---------------------------------------------------------------------------------- the machine


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu() -> str:
    """The processor's name."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def load() -> list[float]:
    """The machine's load over the last 1, 5 and 15 minutes."""
    return [round(v, 2) for v in os.getloadavg()] if hasattr(os, "getloadavg") else []


def header(benchmark: str, argv: Sequence[str]) -> dict[str, Any]:
    """What stands at the head of every result: what was run, when and on what."""
    return {"benchmark": benchmark, "command": command(benchmark, argv),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": {"cpu": cpu(), "cores": cores(), "system": platform.system(),
                        "python": platform.python_version()},
            "load_before": load()}


def command(benchmark: str, argv: Sequence[str]) -> str:
    """The command line with which to repeat a run. Absolute paths lose their folders: those mean nothing elsewhere."""
    words = ["python", f"benchmarks/{benchmark}.py"]
    for word in argv:
        option, equals, value = word.rpartition("=")
        words.append(option + equals + (Path(value).name if Path(value).is_absolute() else value))
    return " ".join(words)


# --------------------------------------------------------------------------- options and output


def parser(description: str, *, rounds: int) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--rounds", type=positive, default=rounds, metavar="N", help="interleaved rounds")
    p.add_argument("--pause", type=float, default=0.1, metavar="S", help="seconds before each turn, for others to calm")
    p.add_argument("--out", type=Path, default=argparse.SUPPRESS, metavar="FILE.json",
                   help="also write every number to this file")
    return p


def add_pythons(p: argparse.ArgumentParser) -> None:
    """--python NAME=PATH, for peers that live in another virtual environment."""
    p.add_argument("--python", action="append", type=_python, default=argparse.SUPPRESS, metavar="NAME=PATH",
                   help="the Python that runs a peer, if it is installed in another virtual environment; repeatable")


def pythons(args: argparse.Namespace) -> Callable[[str], str]:
    """The Python for a system: the one given for it, or for the peer that it belongs to, or this one."""
    by_name: dict[str, str] = dict(getattr(args, "python", []))
    return lambda system: by_name.get(system, by_name.get(system.partition("-")[0], sys.executable))


def _python(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"expected NAME=PATH, such as dezero=venv/bin/python, got {text!r}")
    return name, path


def positive(text: str) -> int:
    """A whole number from 1, for argparse."""
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return value


def positives(text: str) -> list[int]:
    """Whole numbers from 1, separated by commas, for argparse."""
    return [positive(part) for part in text.split(",")]


def plural(count: int, word: str) -> str:
    """plural(2, "thread") is "2 threads"."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the first column is text, the others are numbers. Columns line up in a terminal as well."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    def line(cells: Sequence[str]) -> str:
        padded = [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
        return f"| {' | '.join(padded)} |"
    rule = [":" + "-" * (widths[0] - 1), *("-" * (w - 1) + ":" for w in widths[1:])]
    return "\n".join([line(heads), f"| {' | '.join(rule)} |", *map(line, rows)])


def number(value: float | None, digits: int = 0) -> str:
    """`value` for a table, with thousands separated; a dash for None."""
    return "–" if value is None else f"{value:,.{digits}f}"


def spread(values: Sequence[float] | None) -> str:
    """Median and range of the rounds' ratios."""
    if not values:
        return "–"
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def script(main: Callable[[Sequence[str]], int]) -> None:
    """Run a benchmark's main with the words of the command line; errors end in one line."""
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
