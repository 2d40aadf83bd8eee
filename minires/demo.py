"""`minires demo`: degradation, and the skip connection that undoes it, on real images in a few minutes.

Four networks of He et al. 2015, section 4.2 (6n + 2 layers, option A) at width 8 learn Fashion-MNIST averaged to
14 x 14: plain and residual, 20 and 56 layers, each from the same seed, with the same images in the same order.
"""
from __future__ import annotations

import dataclasses
import datetime
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import analysis, datasets, device, info, train
from .files import write_atomically
from .models import cifar

NETS = {"plain-20": (20, False), "resnet-20": (20, True), "plain-56": (56, False), "resnet-56": (56, True)}
WIDTH, IMAGE_SIZE = 8, 14
LOOK = 200  # images in the fixed batch that responses and gradients are measured on
QUICK = {"train": 1000, "test": 500, "epochs": 1}

Results = dict[str, Any]


def run(out: Path, recipe: train.Recipe, *, seed: int = 0, where: str = "auto", quick: bool = False,
        command: str = "minires demo", say: Callable[[str], None] = print) -> tuple[Results, bool]:
    """Train the four networks; write results.json, the figures and report.html into `out`.

    Returns the results and whether all was done: Ctrl-C stops, and what was done until then is written.
    FileExistsError if `out` holds results already, RuntimeError if the device is not there.
    """
    where = device.use(where)
    if (out / "results.json").exists():
        raise FileExistsError(f"{out / 'results.json'} exists already; choose another --out, nothing is overwritten")
    out.mkdir(parents=True, exist_ok=True)

    learn, test = datasets.fashion_mnist_small()
    if quick:
        recipe = dataclasses.replace(recipe, epochs=QUICK["epochs"])
        learn, test = learn[:QUICK["train"]], test[:QUICK["test"]]
    images = datasets.subtract_pixel_mean(
        *(datasets.to_float(datasets.average_pool(split.images, IMAGE_SIZE)) for split in (learn, test)))
    data = [(device.to(x, where), device.to(split.labels, where))
            for x, split in zip(images, (learn, test), strict=True)]

    results: Results = {
        "nets": {},
        "settings": {**dataclasses.asdict(recipe), "seed": seed, "width": WIDTH, "shortcut": "A",
                     "image_size": IMAGE_SIZE, "train_images": len(learn), "test_images": len(test),
                     "look_images": min(LOOK, len(learn)), "device": where, "quick": quick, "command": command,
                     "dataset": f"Fashion-MNIST, first {len(learn):,} training and {len(test):,} test images, "
                                f"averaged to {IMAGE_SIZE}x{IMAGE_SIZE}, training mean subtracted per pixel"},
        "versions": info.versions(),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": 0.0,
    }
    began, done = time.perf_counter(), False
    try:
        for name, (depth, residual) in NETS.items():
            _one_net(results, name, depth, residual, data, recipe, seed, where,
                     save=lambda: save(results, out, began))
        done = True
    except KeyboardInterrupt:
        say("Stopped by Ctrl-C; keeping what is done.")
    save(results, out, began)
    from . import report  # loads matplotlib, which training does not need
    page = report.write_report(results, out)
    say(report.summary_table(results))
    say(f"{'' if done else 'Incomplete. '}Report: {page}")
    return results, done


def save(results: Results, out: Path, began: float) -> None:
    """Write results.json, with the seconds since `began`, whole or not at all."""
    results["seconds"] = round(time.perf_counter() - began, 1)
    write_atomically(out / "results.json", json.dumps(results, indent=1) + "\n")


def _one_net(results: Results, name: str, depth: int, residual: bool, data: Any, recipe: train.Recipe, seed: int,
             where: str, save: Callable[[], None]) -> None:
    """Measure at initialisation, train, measure again; `results` grows on the way and is saved after every epoch."""
    (images, labels), test = data
    look = images[:LOOK], labels[:LOOK]

    def build(norm="batch"):
        net = cifar(depth, residual, in_channels=1, width=WIDTH, norm=norm, rng=np.random.default_rng(seed))
        return net.to(where)

    def gradient_norms(net):
        return list(analysis.gradient_flow(net, *look).weights.values())

    began = time.perf_counter()
    net = build()
    record: Results = {"train_error": [], "test_error": [], "train_loss": [],
                       "responses": [], "responses_init": list(analysis.responses(net, look[0]).values()),
                       "gradient_norms_init": gradient_norms(net)}
    if not residual:  # the control: He initialisation alone, the convolutions with biases
        record["gradient_norms_init_without_bn"] = gradient_norms(build(norm="none"))
    record |= {"parameters": net.count_parameters(), "macs": net.macs(images.shape[1:]), "seconds": 0.0,
               "complete": False}
    results["nets"][name] = record

    from tqdm.auto import tqdm  # a bar in a terminal and in Jupyter; disable=None: silent anywhere else
    with tqdm(total=recipe.epochs * len(images), desc=f"{name:9}", unit=" images", disable=None) as bar:
        # The order of the images is drawn apart from the weights: the same for all four networks.
        for event in train.fit(net, data[0], test, recipe, rng=np.random.default_rng([seed, 1])):
            if isinstance(event, train.Step):
                bar.update(event.images)
                bar.set_postfix(loss=f"{event.loss:.2f}", refresh=False)
                continue
            record["train_loss"].append(round(event.train_loss, 4))
            record["train_error"].append(round(event.train_error, 3))
            record["test_error"].append(round(event.test_error, 3))
            record["responses"] = list(analysis.responses(net, look[0]).values())
            record["complete"] = event.epoch == recipe.epochs
            record["seconds"] = round(time.perf_counter() - began, 1)
            save()
