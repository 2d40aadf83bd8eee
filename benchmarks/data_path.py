"""This benchmark compares the time to fetch a batch with the time of the training step that uses it.

    python benchmarks/data_path.py --out benchmarks/results/data_path.json

To fetch a batch is to select 128 of 50,000 images of CIFAR's size and to apply a random crop and flip. One way starts
from images that were normalised beforehand, as train.fit takes them. The other way starts from stored bytes, which are
converted and normalised batch by batch. The training step is ResNet-20's on such a batch.
"""
from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import common

BATCH = 128
WAYS = {"step": "the training step", "floats": "a batch from normalised images", "bytes": "a batch from stored bytes"}


def main(argv: Sequence[str]) -> int:
    """Measure, print, write."""
    p = common.parser("Time the fetching of batches and the training step.", rounds=9)
    p.add_argument("--repeats", type=common.positive, default=3, metavar="K", help="timed runs of each in a round")
    p.add_argument("--images", type=common.positive, default=50_000, metavar="N", help="images to select from")
    args = p.parse_args(argv)
    result = common.header("data_path", argv) | measure(args.rounds, args.repeats, args.pause, args.images)
    common.finish(result, table(result), getattr(args, "out", None))
    return 0


def measure(rounds: int, repeats: int, pause: float, images: int) -> dict[str, Any]:
    """Return the milliseconds of every run, and the share of each way in a step, round by round."""
    with_minires = ways(images)
    for way in with_minires.values():  # warm up, so that threads are started and memory is allocated
        way()
    times = common.interleave({name: partial(timed, way, repeats) for name, way in with_minires.items()}, rounds, pause)
    return {"rounds": rounds, "repeats": repeats, "batch_size": BATCH, "ms": times,
            "percent_of_step": {name: [100 * r for r in common.ratios(times[name], times["step"])]
                                for name in ("floats", "bytes")}}


def timed(way: Callable[[], Any], repeats: int) -> list[float]:
    """Return the milliseconds of each of `repeats` runs."""
    ms = []
    for _ in range(repeats):
        start = time.perf_counter()
        way()
        ms.append(1000 * (time.perf_counter() - start))
    return ms


def ways(count: int) -> dict[str, Callable[[], Any]]:
    """Return {name: a function that runs it once}, for a training set of `count` images."""
    sys.path.insert(0, str(common.HERE.parent))  # so that this checkout is measured
    import numpy as np

    from minires import datasets, models, optim, train

    rng = np.random.default_rng(0)
    stored = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 10, count)
    normalised = datasets.to_float(stored)
    net = models.resnet20(rng=rng)
    sgd = optim.SGD(net.parameters(), 0.01, 0.9, 1e-4)
    images = datasets.crop_and_flip(normalised[:BATCH], rng=rng)

    rows = (rows for _ in itertools.count() for rows in datasets.batches(count, BATCH, rng=rng))

    def prepared():
        return datasets.normalize(datasets.to_float(stored[next(rows)]), (0.49, 0.48, 0.45), (0.25, 0.24, 0.26))

    return {"step": lambda: train.step(net, sgd, images, labels[:BATCH]),
            "floats": lambda: datasets.crop_and_flip(normalised[next(rows)], rng=rng),
            "bytes": lambda: datasets.crop_and_flip(prepared(), rng=rng)}


def table(result: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    rows = [[what, common.number(common.median(result["ms"][name]), 2),
             common.spread(result["percent_of_step"].get(name))] for name, what in WAYS.items()]
    return "\n\n".join([f"Fetching a batch of {result['batch_size']}, and ResNet-20's training step, "
                        f"{result['rounds']} rounds of {result['repeats']}",
                        common.table(["", "median ms", "% of the step"], rows)])


if __name__ == "__main__":
    common.script(main)
