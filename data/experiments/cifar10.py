"""Measure the CIFAR-10 networks that ship with minires: responses, lesions, and the loss around them.

    python data/experiments/cifar10.py --data-dir DIR --out data/results/cifar10/analyses.json

DIR holds CIFAR-10. The file is written after every measurement, and the same command goes through those that it does
not contain yet. data/results/EXPERIMENTS.md has the questions and the predictions.
"""
from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from minires import analysis, datasets, info, kernels, load_weights, models, nn, no_grad, shipped_file
from minires.analysis.blocks import blocks
from minires.files import records
from minires.files.atomic import write_atomically
from minires.tensor import Tensor

NETWORKS = "plain20", "resnet20", "plain56", "resnet56"
SETTINGS: dict[str, Any] = {
    "responses": {"train_images": 500},
    "lesions": {"test_images": 10_000}, "lesions_batch": {"test_images": 2000, "batch_size": 500},
    "line": {"train_images": 1000, "points": 17, "radius": 0.8, "directions": 3},
    "surface": {"train_images": 500, "points": 15, "radius": 0.6, "networks": ["plain56", "resnet56"]},
}


def network(name: str) -> nn.Module:
    """Return the network that ships under this name."""
    net = models.build(name)
    load_weights(net, shipped_file(f"weights/cifar10/{name}.safetensors"))
    return net


def responses(net: nn.Module, sets: datasets.Prepared, chosen: dict[str, Any]) -> dict[str, Any]:
    """Return the standard deviation of every layer's output: He et al. 2015, Fig. 7."""
    return analysis.responses(net, sets.train[0][:chosen["train_images"]])


def lesions(net: nn.Module, sets: datasets.Prepared, chosen: dict[str, Any]) -> dict[str, Any]:
    """Cut out one block at a time: Veit et al. 2016, section 4.1."""
    images, labels = (part[:chosen["test_images"]] for part in sets.test)
    return analysis.lesions(net, images, labels)._asdict()


def lesions_batch(net: nn.Module, sets: datasets.Prepared, chosen: dict[str, Any]) -> dict[str, Any]:
    """Make the same cuts, with BatchNorm using the statistics of the batch that it sees."""
    images, labels = (part[:chosen["test_images"]] for part in sets.test)

    def error(cut: list[str]) -> float:
        wrong, size = 0, chosen["batch_size"]
        with analysis.deleted(net, cut), nn.untouched(net), no_grad():
            net.train()
            for i in range(0, len(images), size):
                wrong += int((net(Tensor(images[i:i + size])).data.argmax(1) != labels[i:i + size]).sum())
        return 100 * wrong / len(images)

    return {"whole": error([]), "without": {name: error([name]) for name in blocks(net)}}


def directions(net: nn.Module, count: int) -> list[Any]:
    """Return random filter-normalised directions with seeds 0, 1, ..."""
    return [analysis.random_direction(net, rng=np.random.default_rng(seed)) for seed in range(count)]


def line(net: nn.Module, sets: datasets.Prepared, chosen: dict[str, Any]) -> dict[str, Any]:
    """Measure loss and error along the first direction, and the curvature along all: Li et al. 2018."""
    images, labels = (part[:chosen["train_images"]] for part in sets.train)
    along, *others = directions(net, chosen["directions"])
    found = analysis.loss_line(net, images, labels, along, chosen["points"], chosen["radius"])
    bends = [found.curvature, *(analysis.curvature(net, images, labels, other) for other in others)]
    return {**found._asdict(), "curvatures": bends}


def surface(net: nn.Module, sets: datasets.Prepared, chosen: dict[str, Any]) -> dict[str, Any]:
    """Measure the loss over the plane of the first two directions: Li et al. 2018, Fig. 1."""
    images, labels = (part[:chosen["train_images"]] for part in sets.train)
    return analysis.loss_surface(net, images, labels, *directions(net, 2), chosen["points"],
                                 chosen["radius"])._asdict()


def rounded(value: Any) -> Any:
    """Return numbers with 6 significant digits, as far as JSON has them: a loss that overflowed becomes None."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value if not isinstance(value, float) else float(f"{value:.6g}") if math.isfinite(value) else None


MEASUREMENTS: dict[str, Callable[[nn.Module, datasets.Prepared, dict[str, Any]], dict[str, Any]]] = {
    "responses": responses, "lesions": lesions, "lesions_batch": lesions_batch, "line": line, "surface": surface}


def main() -> None:
    """Make the measurements that the file does not contain yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder of CIFAR-10")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json", help="the results")
    args = parser.parse_args()
    whole: dict[str, Any] = records.read(args.out) if args.out.exists() else {
        "command": f"python data/experiments/cifar10.py --out {args.out.name}", "settings": SETTINGS,
        "versions": info.versions(), "machine": info.machine(), "commit": info.commit()}
    if whole["settings"] != SETTINGS:
        raise SystemExit(f"{args.out} has other settings: {whole['settings']}; this program has {SETTINGS}")
    sets = datasets.prepared("cifar10", args.data_dir, normalize="pixel-mean")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for what, measure in MEASUREMENTS.items():
        done = whole.setdefault(what, {})
        for name in SETTINGS[what].get("networks", NETWORKS):
            if name not in done:
                with kernels.session():
                    done[name] = rounded(measure(network(name), sets, SETTINGS[what]))
                write_atomically(args.out, records.text(whole) + "\n")
                print(what, name, flush=True)


if __name__ == "__main__":
    main()
