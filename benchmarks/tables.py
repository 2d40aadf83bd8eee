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
import shortcut
import train_step

BEGIN = "<!-- tables.py writes from here -->"
END = "<!-- tables.py writes to here -->"
BENCHMARKS: dict[str, Any] = {"train_step": train_step, "ops": ops, "scaling": scaling, "shortcut": shortcut,
                              "data_path": data_path, "import_time": import_time}

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
    vectors = f" with {machine['vectors']}" if "vectors" in machine else ""
    return (f"`{result['command']}` ({machine['cpu']}{vectors}, {machine['cores']} cores, {result['date'][:10]}, "
            f"Python {machine['python']}{''.join(f', {v}' for v in versions)}; load before "
            f"{load[0] if load else 'unknown'}). All times: [results/{name}](results/{name}).")


# ------------------------------------------------------------------------------------- the goals


def summary(results: Results) -> str:
    """Return the table of measurements and goals, with a row for each goal that a result covers.

    A measurement is the median over all rounds of all results that measured it, and their range.
    """
    measured: dict[tuple[str, int, str, str], list[float]] = {}
    for what, values, digits, goal, aim in figures(results):
        measured.setdefault((what, digits, goal, aim), []).extend(values)
    rows = [[what, spread(values, digits), goal, aim] for (what, digits, goal, aim), values in measured.items()]
    if not rows:
        return ""
    return "### Measured against the goals\n\n" + common.table(["", "measured", "at least", "aim"], rows)


def spread(values: list[float], digits: int) -> str:
    """Return the median of the values, and their range if they differ."""
    middle, low, high = (common.number(v, digits) for v in (statistics.median(values), min(values), max(values)))
    return middle if low == high else f"{middle} ({low}–{high})"


def figures(results: Results) -> Iterator[tuple[str, list[float], int, str, str]]:
    """Yield (what, measured in each round, digits, goal, aim)."""
    for r in results.values():
        if r["benchmark"] == "train_step":
            yield from step_figures(r)
        elif r["benchmark"] == "scaling":
            yield from scaling_figures(r)
        elif r["benchmark"] == "data_path":
            yield ("fetching and augmenting a batch, % of a training step", r["percent_of_step"]["floats"], 1,
                   "<= 5", "<= 5")
        elif r["benchmark"] == "import_time":
            yield "`import minires`, seconds", [r["import_minires_s"]], 3, "<= 0.15", "<= 0.1"


# {(depth, width, image, batch, inference): [(peer, threads, goal, aim)]}, for the kernels in C
RATIOS = {
    (20, 16, "3x32x32", 128, False): [("torch", 2, "0.80", "0.60"), ("torch-channels-last", 2, "0.95", "0.75"),
                                      ("torch", 1, "0.85", "0.65")],
    (20, 16, "3x32x32", 32, False): [("torch", 2, "0.85", "0.65")],
    (20, 8, "1x14x14", 100, False): [("torch", 2, "0.95", "0.75")],
    (56, 8, "1x14x14", 100, False): [("torch", 2, "0.95", "0.75")],
    (20, 16, "3x32x32", 128, True): [("torch", 2, "0.85", "0.60")],
    (20, 64, "3x32x32", 16, False): [("torch", 2, "1.10", "0.90")],
}
NAMES = {"torch": "PyTorch eager", "torch-channels-last": "PyTorch channels_last"}


def ratio_row(work: tuple[Any, ...], threads: int, peer: str) -> tuple[str, str, str] | None:
    """Return (what, goal, aim) of the ratio to a peer, or None if there is no goal."""
    depth, width, image, batch, inference = work
    for name, count, goal, aim in RATIOS.get(work, []):
        if (name, count) == (peer, threads):
            what = "inference" if inference else "training step"
            images = "" if image == "3x32x32" else f", images {image}"
            what += f", ResNet-{depth}, width {width}{images}, batch {batch}, {common.plural(threads, 'thread')}"
            return f"{what}: minires / {NAMES[peer]}", f"<= {goal}", f"<= {aim}"
    return None


def step_figures(r: dict[str, Any]) -> Iterator[tuple[str, list[float], int, str, str]]:
    """Yield the figures of a training step or of inference."""
    systems, threads, w = r["systems"], r["threads"], r["work"]
    work = (w["depth"], w["width"], "x".join(map(str, train_step.shape_of(w))), w["batch_size"], w["inference"])
    minires = systems["minires"]
    for peer in NAMES:
        if peer in systems and (row := ratio_row(work, threads, peer)):
            yield row[0], common.ratios(minires["ms"], systems[peer]["ms"]), 2, row[1], row[2]
    if work != (20, 16, "3x32x32", 128, False):
        return
    if "torch" in systems:
        yield (f"peak RSS of the training step, minires / PyTorch, {common.plural(threads, 'thread')}",
               [minires["memory_ratio_to_torch"]], 2, "<= 0.55", "<= 0.47")
        if "minires-blocked" in systems:
            blocked = common.ratios(systems["minires-blocked"]["ms"], systems["torch"]["ms"])
            yield (f"training step without a C compiler, minires / PyTorch eager, {common.plural(threads, 'thread')}",
                   blocked, 2, "<= 1.5", "<= 1.25")
    for name, what, goals in (("dezero-as-is", "DeZero as it is installed", (">= 18", ">= 22")),
                              ("dezero", "DeZero with its gradients kept in float32", ("–", "–"))):
        if name in systems:
            yield (f"training step, {what} / minires, {common.plural(threads, 'thread')}",
                   systems[name]["ratio_to_minires"], 1, *goals)


def scaling_figures(r: dict[str, Any]) -> Iterator[tuple[str, list[float], int, str, str]]:
    """Yield the figures of a result of scaling.py: the ratio to PyTorch of each network that has a goal."""
    base = r["base"]
    for group, entries in r["groups"].items():
        for entry in entries:
            w = {**base, group: entry["value"]}
            row = ratio_row((w["depth"], w["width"], "3x32x32", w["batch"], False), w["threads"], "torch")
            if row and entry["minires"]["ratio_to_torch"]:
                yield row[0], entry["minires"]["ratio_to_torch"], 2, row[1], row[2]
    if base["width"] == 16 and (found := scaling.depth_ratios(r)):
        yield (f"ResNet-56 / ResNet-20 step (multiply-accumulates: {found['macs']:.2f})", found["rounds"]["minires"], 2,
               f"<= {1.02 * found['macs']:.2f}", f"<= {found['macs']:.2f}")


if __name__ == "__main__":
    common.script(main)
