"""This benchmark compares one training step of a CIFAR ResNet between minires and its peers.

    python benchmarks/train_step.py --out benchmarks/results/train_step.json

Every system runs in its own process and has its turn in every round while the others wait. All systems start from the
same weights, see the same batch and must get the same losses. `--inference` times the forward pass in evaluation mode.
"""
from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import common
from common import Failed, Worker, Workers

PEERS = {  # {name for --peers: its systems}
    "reference": ["minires-reference"], "by-hand": ["minires-by-hand"], "torch": ["torch", "torch-channels-last"],
    "blocked": ["minires-blocked"],
    "dezero": ["dezero"], "dezero-as-is": ["dezero-as-is"], "chainer": ["chainer"], "tinygrad": ["tinygrad"],
}
DEFAULT = "reference,torch,dezero,chainer,tinygrad"
BASES = "torch", "minires"  # the systems that all others are compared with
RESNET20 = 269_722          # parameters with option A; He et al. 2015, Table 6, report 0.27M


def main(argv: Sequence[str]) -> int:
    """Measure, print, write."""
    p = common.parser("Time a training step of a CIFAR ResNet (option A, 3x32x32, float32, SGD with momentum) for "
                      "minires and its peers.", rounds=7)
    p.add_argument("--peers", type=peers, default=DEFAULT, metavar="A,B",
                   help=f"any of {', '.join(PEERS)}, or none; a peer that cannot run is reported and left out")
    p.add_argument("--steps", type=common.positive, default=5, metavar="N", help="timed steps in each turn")
    p.add_argument("--warm-up", type=common.positive, default=3, metavar="N", help="steps before the first round")
    p.add_argument("--batch", type=common.positive, default=128, metavar="N", help="images in a batch")
    p.add_argument("--depth", type=common.positive, default=20, metavar="N", help="layers, 6n + 2")
    p.add_argument("--width", type=common.positive, default=16, metavar="N", help="channels of the first stage")
    p.add_argument("--image", type=image, default="3x32x32", metavar="CxHxW", help="shape of an image")
    p.add_argument("--threads", type=common.positive, default=common.cores(), metavar="N", help="for every system")
    p.add_argument("--inference", action="store_true", help="time the forward pass in evaluation mode, not a step")
    common.add_pythons(p)
    args = p.parse_args(argv)
    if args.depth < 8 or (args.depth - 2) % 6:
        p.error(f"--depth: expected 6n + 2 (8, 14, 20, 56, ...), got {args.depth}")
    if args.width % 4:
        p.error(f"--width: expected a multiple of 4, got {args.width}")

    result = common.header("train_step", argv)
    result |= measure(args)
    common.finish(result, table(result), getattr(args, "out", None))
    return 0


def image(text: str) -> list[int]:
    """Parse the value of --image, such as "1x14x14"."""
    values = [common.positive(part) for part in text.split("x")]
    if len(values) != 3:
        raise common.argparse.ArgumentTypeError(f"expected CxHxW, such as 1x14x14, got {text!r}")
    return values


def peers(text: str) -> list[str]:
    """Parse the value of --peers and return the systems to compare with."""
    names = [] if text == "none" else text.split(",")
    unknown = [n for n in names if n not in PEERS]
    if unknown:
        raise common.argparse.ArgumentTypeError(f"expected any of {', '.join(PEERS)}, or none, got {unknown[0]!r}")
    return [system for n in names for system in PEERS[n]]


def measure(args: Any) -> dict[str, Any]:
    """Start every system, check that all do the same work, and time them in turns."""
    work = {"depth": args.depth, "width": args.width, "batch_size": args.batch, "inference": args.inference,
            "image": args.image}
    python = common.pythons(args)
    facts: dict[str, dict[str, Any]] = {}

    def prepare(worker: Worker) -> dict[str, Any]:
        told = worker.ask("train", key="step", warm_up=max(args.warm_up, 2), **work)
        resnet20 = (args.depth, args.width, args.image[0]) == (20, 16, 3)
        check_same_work(told, facts.get("minires", told), inference=args.inference, resnet20=resnet20)
        return told

    with Workers() as workers:
        for system in ["minires", *args.peers]:
            told = workers.start(system, system, python(system), args.threads, prepare)
            if told:
                facts[system] = told
        times = common.interleave({s: w.turn("step", args.steps) for s, w in workers.running.items()}, args.rounds,
                                  args.pause)
        memory = {s: w.ask("peak_rss_mb") for s, w in workers.running.items()}
        left_out = workers.left_out

    systems = {}
    for name, ms in times.items():
        told = facts[name]
        systems[name] = {
            "versions": told["versions"], "parameters": told["parameters"], "losses": told["losses"],
            "ms": ms, "round_ms": common.per_round(ms), "median_ms": common.median(ms), "best_ms": common.best(ms),
            "images_per_s": 1000 * args.batch / common.median(ms), "peak_rss_mb": memory[name],
        }
        for base in BASES:
            known = base in times
            ratios = common.ratios(ms, times[base]) if known else None
            systems[name][f"ratio_to_{base}"] = ratios
            systems[name][f"median_ratio_to_{base}"] = statistics.median(ratios) if ratios else None
            systems[name][f"memory_ratio_to_{base}"] = memory[name] / memory[base] if known else None
    return {"work": work, "threads": args.threads, "rounds": args.rounds, "steps": args.steps, "systems": systems,
            "left_out": left_out}


def check_same_work(told: dict[str, Any], minires: dict[str, Any], *, inference: bool, resnet20: bool) -> None:
    """Check that a system has as many parameters as minires, and the same losses before and after the updates.

    Raises Failed if not.
    """
    losses = told["losses"]
    if told["parameters"] != minires["parameters"] or (resnet20 and told["parameters"] != RESNET20):
        raise Failed(f"its work differs: {told['parameters']:,} parameters, minires has {minires['parameters']:,}, "
                     f"ResNet-20 {RESNET20:,}")
    if not all(map(math.isfinite, losses)):
        raise Failed(f"its loss is not finite: {losses}")
    if not inference and not losses[-1] < losses[0]:
        raise Failed(f"its loss does not decrease: {losses}")
    for step, (mine, other) in enumerate(zip(minires["losses"], losses, strict=True), start=1):
        if not math.isclose(mine, other, rel_tol=1e-3 if step == 1 else 2e-2):
            raise Failed(f"its work differs: the loss of step {step} is {other:.6g}, minires has {mine:.6g}")


def shape_of(work: dict[str, Any]) -> list[int]:
    """Return the shape of the images of a result."""
    return work.get("image", [3, 32, 32])


def table(result: dict[str, Any]) -> str:
    """Return the result as a Markdown table, and a line for each system that was left out."""
    n, heads = common.number, ["", "median ms", "best ms", "images/s", "peak RSS MB", "x torch", "x minires"]
    rows = [[name, n(s["median_ms"], 1), n(s["best_ms"], 1), n(s["images_per_s"]), n(s["peak_rss_mb"]),
             common.spread(s["ratio_to_torch"]), common.spread(s["ratio_to_minires"])]
            for name, s in result["systems"].items()]
    work = result["work"]
    what = "Inference (evaluation mode)" if work["inference"] else "Training step"
    title = (f"{what}: ResNet-{work['depth']}, width {work['width']}, batch {work['batch_size']}"
             f"{'' if shape_of(work) == [3, 32, 32] else ', images ' + 'x'.join(map(str, work['image']))}, "
             f"{common.plural(result['threads'], 'thread')}, {common.plural(result['rounds'], 'round')} of "
             f"{result['steps']}")
    left_out = [f"Left out: {name} ({reason})." for name, reason in result["left_out"].items()]
    return "\n\n".join([title, common.table(heads, rows), *left_out])


if __name__ == "__main__":
    common.script(main)
