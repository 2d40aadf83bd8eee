"""This benchmark measures how a training step of minires and of PyTorch scales with batch, depth, width and threads.

    python benchmarks/scaling.py --out benchmarks/results/scaling.json

One setting changes at a time, starting from ResNet-20, width 16, batch 128, on all cores. All values of one setting are
timed in the same interleaved rounds, so that their ratios (ResNet-56 to ResNet-20, 1 thread to 2) are ratios within a
round.
"""
from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial
from typing import Any

import common
from common import Failed, Worker, Workers
from train_step import check_same_work

SYSTEMS = "minires", "torch"
GROUPS = "batch", "depth", "width", "threads"


def main(argv: Sequence[str]) -> int:
    """Measure, print, write."""
    n = common.cores()
    p = common.parser("Time a training step for several values of batch, depth, width and number of threads.",
                      rounds=5)
    p.add_argument("--steps", type=common.positive, default=3, metavar="N", help="timed steps in each turn")
    p.add_argument("--batch", type=common.positives, default="32,64,128,256", metavar="N,N", help="batches to time")
    p.add_argument("--depth", type=common.positives, default="20,32,44,56,110", metavar="N,N", help="depths to time")
    p.add_argument("--width", type=common.positives, default="8,16,32,64", metavar="N,N", help="widths to time")
    p.add_argument("--threads", type=common.positives, default=",".join(map(str, thread_counts(n))), metavar="N,N",
                   help="numbers of threads to time")
    p.add_argument("--base", type=base, default="20,16,128", metavar="DEPTH,WIDTH,BATCH",
                   help="depth, width and batch while another setting changes")
    p.add_argument("--base-threads", type=common.positive, default=n, metavar="N",
                   help="number of threads while another setting changes")
    p.add_argument("--only", choices=GROUPS, action="append", help="change only this setting; repeatable")
    common.add_pythons(p)
    args = p.parse_args(argv)
    if any(d < 8 or (d - 2) % 6 for d in [*args.depth, args.base["depth"]]):
        p.error(f"--depth: expected values of 6n + 2 (8, 14, 20, 56, ...), got {','.join(map(str, args.depth))}")
    if any(w % 4 for w in [*args.width, args.base["width"]]):
        p.error(f"--width: expected multiples of 4, got {','.join(map(str, args.width))}")

    result = common.header("scaling", argv)
    result |= {"base": {**args.base, "threads": args.base_threads}, "rounds": args.rounds, "steps": args.steps,
               "groups": {}, "left_out": {}}
    for group in args.only or GROUPS:
        measure(group, args, result)
    common.finish(result, table(result), getattr(args, "out", None))
    return 0


def thread_counts(n: int) -> list[int]:
    """Return 1, 2, 4, ... and n itself."""
    return sorted({n, *(2 ** i for i in range(n.bit_length()) if 2 ** i <= n)})


def base(text: str) -> dict[str, int]:
    """Parse the value of --base, such as "20,16,128"."""
    values = common.positives(text)
    if len(values) != 3:
        raise common.argparse.ArgumentTypeError(f"expected DEPTH,WIDTH,BATCH, got {text!r}")
    return dict(zip(("depth", "width", "batch"), values, strict=True))


def measure(group: str, args: Any, result: dict[str, Any]) -> None:
    """Time all values of one group and add them to the result."""
    python = common.pythons(args)
    told: dict[tuple[str, int], dict[str, Any]] = {}
    turns: dict[tuple[str, int], common.Turn] = {}
    with Workers() as workers:
        for value in getattr(args, group):
            work = {**args.base, "threads": args.base_threads, group: value}
            for system in SYSTEMS:
                # A process has one number of threads. It holds the networks of all values with this number of threads.
                label = f"{system}, {common.plural(work['threads'], 'thread')}"
                prepare = partial(build, work=work, minires=told.get(("minires", value)))
                if label in workers.running:
                    try:
                        told[system, value] = prepare(workers.running[label])
                    except Failed as e:
                        raise SystemExit(f"{label}, {group} {value}: {e}") from e
                elif label not in workers.left_out:
                    told[system, value] = workers.start(label, system, python(system), work["threads"], prepare)
                if label in workers.running:
                    turns[system, value] = workers.running[label].turn(key(work), args.steps)
        times = common.interleave(turns, args.rounds, args.pause)
        result["left_out"] |= {label.partition(",")[0]: why for label, why in workers.left_out.items()}

    first = getattr(args, group)[0]
    found = result["groups"][group] = []
    for value in getattr(args, group):
        images = [v if group == "batch" else args.base["batch"] for v in (value, first)]
        macs = [count * told["minires", v]["macs"] for v, count in zip((value, first), images, strict=True)]
        entry: dict[str, Any] = {"value": value, "macs": macs[0], "macs_to_first": macs[0] / macs[1]}
        for system in SYSTEMS:
            if (system, value) in times:
                ms, torch = times[system, value], times.get(("torch", value))
                entry[system] = {
                    "ms": ms, "round_ms": common.per_round(ms), "median_ms": common.median(ms),
                    "best_ms": common.best(ms), "parameters": told[system, value]["parameters"],
                    "ratio_to_first": common.ratios(ms, times[system, first]),
                    "ratio_to_torch": common.ratios(ms, torch) if torch else None,
                }
        found.append(entry)
    result.setdefault("versions", {system: facts["versions"] for (system, _), facts in told.items() if facts})


def key(work: dict[str, int]) -> str:
    """Return the name that a worker uses for one of its networks."""
    return f"depth {work['depth']}, width {work['width']}, batch {work['batch']}"


def build(worker: Worker, work: dict[str, int], minires: dict[str, Any] | None) -> dict[str, Any]:
    """Build one network in a worker, and check that it does the same work as the network of minires."""
    told = worker.ask("train", key=key(work), depth=work["depth"], width=work["width"], batch_size=work["batch"],
                      inference=False, warm_up=2)
    check_same_work(told, minires or told, inference=False, resnet20=work["depth"] == 20 and work["width"] == 16)
    return told


def depth_ratios(result: dict[str, Any], shallow: int = 20, deep: int = 56) -> dict[str, Any] | None:
    """Return ratios of ResNet-56 to ResNet-20: multiply-accumulates, and the steps of each system round by round."""
    by_depth = {entry["value"]: entry for entry in result["groups"].get("depth", [])}
    if not {shallow, deep} <= set(by_depth):
        return None
    a, b = by_depth[deep], by_depth[shallow]
    steps = {s: [x / y for x, y in zip(a[s]["round_ms"], b[s]["round_ms"], strict=True)] for s in SYSTEMS if s in a}
    return {"macs": a["macs"] / b["macs"], **{s: statistics.median(r) for s, r in steps.items()}, "rounds": steps}


def table(result: dict[str, Any]) -> str:
    """Return the result as Markdown tables, one for each setting that changed."""
    n, base = common.number, result["base"]
    parts = [f"Training step, one setting changed from ResNet-{base['depth']}, width {base['width']}, "
             f"batch {base['batch']}, {common.plural(base['threads'], 'thread')}: "
             f"{common.plural(result['rounds'], 'round')} of {result['steps']}"]
    for group, entries in result["groups"].items():
        systems = [s for s in SYSTEMS if s in entries[0]]
        heads = [group, "million MACs, forward", "x first", *(f"{s} {what}" for s in systems
                                                               for what in ("ms", "x first")), "minires / torch"]
        rows = [[str(e["value"]), n(e["macs"] / 1e6), n(e["macs_to_first"], 2),
                 *(cell for s in systems for cell in (n(e[s]["median_ms"], 1),
                                                      n(statistics.median(e[s]["ratio_to_first"]), 2))),
                 common.spread(e["minires"]["ratio_to_torch"])] for e in entries]
        parts.append(common.table(heads, rows))
    found = depth_ratios(result)
    if found:
        parts.append(f"ResNet-56 / ResNet-20: {found['macs']:.2f} times the multiply-accumulates, "
                     + ", ".join(f"{found[s]:.2f} times {s}' step" if s.endswith("s") else
                                 f"{found[s]:.2f} times {s}'s step" for s in SYSTEMS if s in found) + ".")
    parts += [f"Left out: {name} ({reason})." for name, reason in result["left_out"].items()]
    return "\n\n".join(parts)


if __name__ == "__main__":
    common.script(main)
