"""This benchmark measures what the shortcut costs: the training step of residual and of plain networks.

    python benchmarks/shortcut.py --out benchmarks/results/shortcut.json

Both networks of a depth have the same layers and the same initial weights, and see the same batch. All networks take
turns in every round, and a ratio compares two networks within a round.
"""
from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import common
from data_path import timed

KINDS = {"plain": False, "residual": True}


def main(argv: Sequence[str]) -> int:
    """Measure, print, write."""
    p = common.parser("Time the training step of plain and residual CIFAR networks (option A, 3x32x32, float32).",
                      rounds=9)
    p.add_argument("--steps", type=common.positive, default=3, metavar="N", help="timed steps in each turn")
    p.add_argument("--batch", type=common.positive, default=128, metavar="N", help="images in a batch")
    p.add_argument("--depth", type=common.positives, default="20,56,110", metavar="N,N", help="layers, 6n + 2")
    p.add_argument("--width", type=common.positive, default=16, metavar="N", help="channels of the first stage")
    p.add_argument("--threads", type=common.positive, default=common.cores(), metavar="N", help="of the kernels")
    args = p.parse_args(argv)
    if any(d < 8 or (d - 2) % 6 for d in args.depth):
        p.error(f"--depth: expected values of 6n + 2 (8, 14, 20, 56, ...), got {','.join(map(str, args.depth))}")
    result = common.header("shortcut", argv) | measure(args)
    common.finish(result, table(result), getattr(args, "out", None))
    return 0


def measure(args: Any) -> dict[str, Any]:
    """Return the milliseconds of every step, and the ratios residual / plain of all rounds."""
    sys.path.insert(0, str(common.HERE.parent))  # so that this checkout is measured
    from minires import info, kernels

    with kernels.session(args.threads):
        nets = {f"{kind}-{depth}": network(depth, residual, args.width, args.batch)
                for depth in args.depth for kind, residual in KINDS.items()}
        for step, _ in nets.values():
            step()  # starts the threads and allocates the memory
        turns = {name: partial(timed, step, args.steps) for name, (step, _) in nets.items()}
        times = common.interleave(turns, args.rounds, args.pause)
        told = info.versions()
    ratios = {str(d): common.ratios(times[f"residual-{d}"], times[f"plain-{d}"]) for d in args.depth}
    return {"work": {"width": args.width, "batch_size": args.batch}, "threads": args.threads, "rounds": args.rounds,
            "steps": args.steps, "ms": times, "parameters": {name: count for name, (_, count) in nets.items()},
            "residual_to_plain": ratios,
            "versions": {"minires": {key: told[key] for key in ("minires", "numpy", "blas")}}}


def network(depth: int, residual: bool, width: int, batch: int) -> tuple[Callable[[], float], int]:
    """Return a function that makes one training step, and the number of the network's parameters."""
    import numpy as np

    from minires import models, optim, train

    rng = np.random.default_rng(0)
    net = models.cifar(depth, residual, width=width, rng=rng)
    images, labels = rng.standard_normal((batch, 3, 32, 32), np.float32), rng.integers(0, 10, batch)
    sgd = optim.SGD(net.parameters(), 0.01, 0.9, 1e-4)
    return partial(train.step, net, sgd, images, labels), net.count_parameters()


def table(result: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    n = common.number
    rows = [[depth, *(n(common.median(result["ms"][f"{kind}-{depth}"]), 1) for kind in KINDS), common.spread(ratios)]
            for depth, ratios in result["residual_to_plain"].items()]
    title = (f"Training step with and without shortcuts (option A): width {result['work']['width']}, batch "
             f"{result['work']['batch_size']}, {common.plural(result['threads'], 'thread')}, "
             f"{common.plural(result['rounds'], 'round')} of {result['steps']}")
    return "\n\n".join([title, common.table(["layers", "plain ms", "residual ms", "residual / plain"], rows)])


if __name__ == "__main__":
    common.script(main)
