"""This benchmark measures how long `import minires` takes, and how much of this time is NumPy.

    python benchmarks/import_time.py --out benchmarks/results/import_time.json

It measures the wall time of whole interpreters, which are started in turns: one does nothing, one imports NumPy, one
imports minires. The time of an import is the difference within a round.
"""
from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import common

CACHE = os.path.join(tempfile.gettempdir(), "minires-import-time")
CODE = {"nothing": "pass", "numpy": "import numpy", "minires": "import minires"}


def main(argv: Sequence[str]) -> int:
    """Measure, print, write."""
    args = common.parser("Time `import minires` in new interpreters.", rounds=25).parse_args(argv)
    result = common.header("import_time", argv) | measure(args.rounds, args.pause)
    common.finish(result, table(result), getattr(args, "out", None))
    return 0


def measure(rounds: int, pause: float) -> dict[str, Any]:
    """Return the seconds of every run, and the medians of the differences."""
    for name in CODE:  # warm up, so that bytecode is compiled and files are in memory
        run(name)
    times = {name: [r[0] for r in t] for name, t in
             common.interleave({name: partial(run, name) for name in CODE}, rounds, pause).items()}
    minires, numpy = (statistics.median(a - b for a, b in zip(times[name], times["nothing"], strict=True))
                      for name in ("minires", "numpy"))
    return {"rounds": rounds, "seconds": times, "interpreter_s": statistics.median(times["nothing"]),
            "import_minires_s": minires, "import_numpy_s": numpy, "numpy_share": numpy / minires}


def run(name: str) -> list[float]:
    """Return the seconds that a new interpreter takes from start to end."""
    # Compiled modules are kept in a separate folder, because an installed package has compiled modules too.
    env = {**os.environ, "PYTHONPATH": str(common.HERE.parent), "PYTHONPYCACHEPREFIX": CACHE}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", CODE[name]], env=env, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{CODE[name]}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    return [seconds]


def table(result: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    rows = [["the interpreter alone", common.number(result["interpreter_s"], 3)],
            ["import numpy, above that", common.number(result["import_numpy_s"], 3)],
            ["import minires, above that (NumPy included)", common.number(result["import_minires_s"], 3)]]
    return "\n\n".join([f"Import: median seconds of {result['rounds']} rounds; NumPy is "
                        f"{100 * result['numpy_share']:.0f} % of `import minires`", common.table(["", "s"], rows)])


if __name__ == "__main__":
    common.script(main)
