"""Record data/results/detection and data/weights/patches: python data/make_detection.py RUNS [--write]

RUNS is the folder of the trainings: four networks pre-trained on patches, then a detector and a segmentation network on
each of them with three seeds. A training that was stopped is resumed, and a finished one is not repeated. All of them
take one thread about an hour, on a CPU of 2024. After them, every network is measured on 1,000 test scenes with seed 1.

--write  write the results, and the weights in float16, into data/; without it, only train and print
"""
from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from minires import datasets, detection, load_weights, save_weights
from minires.commands import detect
from minires.files import records
from minires.files.atomic import write_atomically

DATA = Path(__file__).resolve().parent
BACKBONES = "resnet20", "plain20", "resnet56", "plain56"
SEEDS = 0, 1, 2
SHIPPED = "resnet20", "resnet56"  # whose detectors with seed 0 ship
HELD_BACK = {"count": 1000, "seed": 1}


def trained(folder: Path, task: str, backbone: str, **options: Any) -> dict[str, Any]:
    """Train, or resume, or find the finished training in `folder`. Return its results."""
    if not (folder / "results.json").exists():
        done = detect.train(detect.choose(task, backbone, where="cpu", **options), folder, resume=True, say=print)
        if not done.finished:
            raise SystemExit(f"stopped by {done.stopped}; the same command resumes")
    return records.read(folder / "results.json")


def measured(folder: Path) -> dict[str, float]:
    """Return what the network of a finished training reaches on the scenes of the record, and keep it in its folder."""
    path = folder / "recorded.json"
    if not path.exists():
        settings, net = detect.load(folder)
        found = detection.score(settings.task, net, **HELD_BACK)
        write_atomically(path, records.text(found) + "\n")
    return records.read(path)


def controls(runs: Path) -> dict[str, float]:
    """Return the AP at an IoU of 0.5 where it is known or bounded without the experiment, and keep it in the folder."""
    path = runs / "controls.json"
    if path.exists():
        return records.read(path)
    held_back = datasets.scenes(HELD_BACK["count"], HELD_BACK["seed"], "test")
    images, boxes, rng = detection.inputs(held_back.images), held_back.boxes, np.random.default_rng(0)

    def ap50(found: detection.Detections) -> float:
        return detection.average_precision(found, held_back).ap(0.5)

    def claimed(labels: Any) -> detection.Detections:
        return detection.Detections(boxes, np.ones(len(boxes)), labels, held_back.scene)

    _, trained_one = detect.load(runs / "detection-resnet20-seed0")
    start = runs / "classification-resnet20" / "weights.safetensors"
    untrained = detection.build("detection", "resnet20", weights=start, rng=rng)
    # BatchNorms of random weights have no statistics to be frozen with, so all layers are trained.
    at_random = detection.build("detection", "resnet20", rng=np.random.default_rng(0))
    at_random.unfreeze()
    for step in detection.fit("detection", at_random, detection.RECIPES["detection"], seed=0):
        if step.step % 100 == 0:
            print(f"random backbone: {step}", flush=True)
    found = {"true boxes and classes": ap50(claimed(held_back.labels)),
             "true boxes, shuffled classes": ap50(claimed(rng.permutation(held_back.labels))),
             "untrained detector": ap50(untrained.detect(images)),
             "random backbone, all layers trained": ap50(at_random.detect(images)),
             "true boxes as proposals": ap50(trained_one.detect(images, regions=[
                 boxes[held_back.scene == i] for i in range(len(images))]))}
    write_atomically(path, records.text(found) + "\n")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, metavar="RUNS")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    told: dict[str, Any] = {"held_back": {"part": "test", "scenes": HELD_BACK["count"], "seed": HELD_BACK["seed"]},
                            "classification": {}, "detection": {}, "segmentation": {}}
    for backbone in BACKBONES:
        folder = args.runs / f"classification-{backbone}"
        told["classification"][backbone] = trained(folder, "classification", backbone)
    for task in "detection", "segmentation":
        for seed in SEEDS:
            for backbone in BACKBONES:
                weights = args.runs / f"classification-{backbone}" / "weights.safetensors"
                folder = args.runs / f"{task}-{backbone}-seed{seed}"
                found = trained(folder, task, backbone, weights=str(weights), seed=seed)
                # The path of the weights is that of this machine; their SHA-256 says which they are.
                found = {**found, "weights": f"classification/{backbone}", "score": measured(folder)}
                told[task].setdefault(backbone, []).append(found)
                print(task, backbone, seed, {k: round(v, 3) for k, v in found["score"].items()}, flush=True)
    told["controls"] = controls(args.runs)
    print(table(told))
    for name, value in told["controls"].items():
        print(f"control, AP at 0.5, {name}: {value:.3f}")
    if args.write:
        write(args.runs, told)


def table(told: dict[str, Any]) -> str:
    """Return the table of the record: the mean over the seeds, and each seed."""
    lines = [f"{'backbone':<10}{'patches, error %':>18}{'AP at 0.5':>30}{'AP':>30}{'mean IoU':>30}"]
    for backbone in BACKBONES:
        columns = [[run["score"][name] for run in told[task][backbone]]
                   for task, name in (("detection", "ap50"), ("detection", "ap"), ("segmentation", "mean_iou"))]
        texts = [f"{sum(c) / len(c):.3f} ({', '.join(f'{v:.3f}' for v in c)})" for c in columns]
        error = told["classification"][backbone]["score"]["error"]
        lines.append(f"{backbone:<10}{error:>18.2f}" + "".join(f"{text:>30}" for text in texts))
    return "\n".join(lines)


def write(runs: Path, told: dict[str, Any]) -> None:
    """Write the results and the weights into data/."""
    results, weights = DATA / "results" / "detection", DATA / "weights"
    shipped = {f"patches/{b}": runs / f"classification-{b}" for b in BACKBONES}
    shipped |= {f"detection/{b}": runs / f"detection-{b}-seed0" for b in SHIPPED}
    told["shipped"] = {}
    for name, folder in shipped.items():
        settings, net = detect.load(folder)
        path = weights / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_weights(net, path, dtype="float16")
        load_weights(net, path)  # what is measured is what ships
        told["shipped"][name] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                                 "score": detection.score(settings.task, net.eval(), **HELD_BACK)}
    results.mkdir(parents=True, exist_ok=True)
    write_atomically(results / "results.json", records.text(told) + "\n")


if __name__ == "__main__":
    main()
