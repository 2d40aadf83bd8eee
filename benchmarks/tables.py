"""This program writes the tables of benchmarks/README.md from benchmarks/results/*.json: no number is typed by hand.

    python benchmarks/tables.py            # rewrites the part between the two markers
    python benchmarks/tables.py --check    # changes nothing; exits with status 1 if the README would change
"""
from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import common
import data_path
import import_time
import ops
import scaling
import train_step

BEGIN = "<!-- tables.py writes from here -->"
END = "<!-- tables.py writes to here -->"
BENCHMARKS: dict[str, Any] = {"train_step": train_step, "ops": ops, "scaling": scaling, "data_path": data_path,
                              "import_time": import_time}

Results = dict[str, dict[str, Any]]  # {file name: result}


def main(argv: Sequence[str]) -> int:
    """Rewrite or check the README."""
    p = argparse.ArgumentParser(description="Write the tables of the README from the results.")
    p.add_argument("--results", type=Path, default=common.HERE / "results", metavar="DIR",
                   help="folder of the JSON files (default: results/ next to this file)")
    p.add_argument("--readme", type=Path, default=common.HERE / "README.md", metavar="FILE",
                   help="file to write into (default: README.md next to this file)")
    p.add_argument("--check", action="store_true", help="change nothing; exit with status 1 if the file would change")
    args = p.parse_args(argv)

    old = args.readme.read_text(encoding="utf-8")
    if old.count(BEGIN) != 1 or old.count(END) != 1 or old.index(BEGIN) > old.index(END):
        raise SystemExit(f"{args.readme.name}: expected one line {BEGIN!r}, followed by one line {END!r}")
    new = old[:old.index(BEGIN) + len(BEGIN)] + "\n\n" + generate(read(args.results)) + "\n\n" + old[old.index(END):]
    if args.check:
        if new != old:
            print(f"{args.readme.name} does not match the results; run python benchmarks/tables.py", file=sys.stderr)
        return int(new != old)
    args.readme.write_text(new, encoding="utf-8")
    return 0


def read(folder: Path) -> Results:
    """Return every result in the folder, by file name."""
    results = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    for name, result in results.items():
        if result.get("benchmark") not in BENCHMARKS:
            raise SystemExit(f"{name}: expected the result of one of {', '.join(BENCHMARKS)}")
    return results


def generate(results: Results) -> str:
    """Return the text between the markers."""
    if not results:
        return "No results yet."
    order = list(BENCHMARKS)
    sections = [summary(results)]
    for name, result in sorted(results.items(), key=lambda item: (order.index(item[1]["benchmark"]), item[0])):
        title, _, rest = BENCHMARKS[result["benchmark"]].table(result).partition("\n\n")
        sections.append(f"### {title}\n\n{rest}\n\n{provenance(name, result)}")
    return "\n\n".join(filter(None, sections))


def provenance(name: str, result: dict[str, Any]) -> str:
    """Describe how, when and on which machine a result was measured."""
    machine, load = result["machine"], result["load_before"]
    told = {s: v["versions"] for s, v in result.get("systems", {}).items()} or result.get("versions", {})
    versions = {f"{k} {v}": None for each in told.values() for k, v in each.items()
                if k in ("minires", "numpy", "torch", "dezero", "chainer", "tinygrad")}
    return (f"`{result['command']}` ({machine['cpu']}, {machine['cores']} cores, {result['date'][:10]}, Python "
            f"{machine['python']}{''.join(f', {v}' for v in versions)}; load before {load[0] if load else 'unknown'}). "
            f"All times: [results/{name}](results/{name}).")


# ------------------------------------------------------------------------------------- the goals


def summary(results: Results) -> str:
    """Return the table of measurements and goals, with a row for each goal that a result covers."""
    rows = [[what, common.number(value, digits), goal, aim] for what, value, digits, goal, aim in figures(results)]
    if not rows:
        return ""
    return "### Measured against the goals\n\n" + common.table(["", "measured", "at least", "aim"], rows)


def figures(results: Results) -> Iterator[tuple[str, float, int, str, str]]:
    """Yield (what, measured, digits, goal, aim)."""
    for r in results.values():
        if r["benchmark"] == "train_step" and (r["work"]["depth"], r["work"]["width"], r["work"]["batch_size"]) \
                == (20, 16, 128):
            yield from step_figures(r)
        elif r["benchmark"] == "scaling" and r["base"]["width"] == 16 and (found := scaling.depth_ratios(r)):
            yield (f"ResNet-56 / ResNet-20 step (multiply-accumulates: {found['macs']:.2f})", found["minires"], 2,
                   f"<= {1.02 * found['macs']:.2f}", f"<= {found['macs']:.2f}")
        elif r["benchmark"] == "data_path":
            yield ("fetching and augmenting a batch, % of a training step",
                   statistics.median(r["percent_of_step"]["floats"]), 1, "<= 5", "<= 5")
        elif r["benchmark"] == "import_time":
            yield "`import minires`, seconds", r["import_minires_s"], 3, "<= 0.15", "<= 0.1"


def step_figures(r: dict[str, Any]) -> Iterator[tuple[str, float, int, str, str]]:
    """Yield the figures of a training step or of inference."""
    systems, threads = r["systems"], common.plural(r["threads"], "thread")
    minires, dezero = systems["minires"], systems.get("dezero")
    ratio, memory = minires["median_ratio_to_torch"], minires["memory_ratio_to_torch"]
    if r["work"]["inference"]:
        if ratio is not None:
            yield f"inference, minires / PyTorch, {threads}", ratio, 2, "<= 1.6", "<= 1.3"
        return
    if ratio is not None:
        goal, aim = ("<= 1.35", "<= 1.2") if r["threads"] == 1 else ("<= 1.5", "<= 1.25")
        yield f"training step, minires / PyTorch eager, {threads}", ratio, 2, goal, aim
        yield f"peak RSS of the training step, minires / PyTorch, {threads}", memory, 2, "<= 0.8", "<= 0.55"
    if dezero:
        yield f"training step, DeZero / minires, {threads}", dezero["median_ratio_to_minires"], 1, ">= 8", ">= 11"


if __name__ == "__main__":
    common.script(main)
