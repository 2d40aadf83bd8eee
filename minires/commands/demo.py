"""`minires demo`: degradation, and the skip connection that undoes it, on real images in a few minutes.

Four networks of He et al. 2015, section 4.2 (6n + 2 layers, option A) at width 8 learn Fashion-MNIST averaged to
14 x 14: plain and residual, 20 and 56 layers, each from the same seed, with the same images in the same order.
"""
from __future__ import annotations

import dataclasses
import datetime
import functools
import json
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

from .. import analysis, datasets, device, info, kernels, train
from ..files.atomic import write_atomically
from ..models import cifar

NETS = {"plain-20": (20, False), "resnet-20": (20, True), "plain-56": (56, False), "resnet-56": (56, True)}
WIDTH, IMAGE_SIZE = 8, 14
LOOK = 200  # images in the fixed batch that responses and gradients are measured on
QUICK = {"train": 1000, "test": 500, "epochs": 1}

Results = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Task:
    """One of the NETS, and how to train it."""

    name: str
    recipe: train.Recipe
    seed: int
    where: str
    quick: bool


def run(out: Path, recipe: train.Recipe, *, seed: int = 0, where: str = "auto", quick: bool = False, jobs: int = 1,
        command: str = "minires demo", say: Callable[[str], None] = print) -> tuple[Results, bool]:
    """Train the four networks; write results.json, the figures and report.html into `out`.

    `jobs` networks are trained at a time, each in a process of its own if there are several; the numbers are the same.
    Returns the results and whether all was done: Ctrl-C stops, and what was done until then is written.
    FileExistsError if `out` holds results already, RuntimeError if the device is not there.
    """
    where = device.use(where)
    if jobs < 1:
        raise ValueError(f"demo: expected jobs >= 1, got {jobs}")
    if (out / "results.json").exists():
        raise FileExistsError(f"{out / 'results.json'} exists already; choose another --out, nothing is overwritten")
    out.mkdir(parents=True, exist_ok=True)
    if quick:
        recipe = dataclasses.replace(recipe, epochs=QUICK["epochs"])
    (learn, _), (test, _) = _data(quick, where)
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
        _train_all(results, [Task(name, recipe, seed, where, quick) for name in NETS], len(learn), jobs,
                   save=lambda: save(results, out, began))
        done = True
    except KeyboardInterrupt:
        say("Stopped by Ctrl-C; keeping what is done.")
    save(results, out, began)
    from . import demo_report  # loads matplotlib, which training does not need
    page = demo_report.write_report(results, out)
    say(demo_report.summary_table(results))
    say(f"{'' if done else 'Incomplete. '}Report: {page}")
    return results, done


def save(results: Results, out: Path, began: float) -> None:
    """Write results.json, with the seconds since `began`, whole or not at all."""
    results["nets"] = {name: results["nets"][name] for name in NETS if name in results["nets"]}
    results["seconds"] = round(time.perf_counter() - began, 1)
    write_atomically(out / "results.json", json.dumps(results, indent=1) + "\n")


def _train_all(results: Results, tasks: list[Task], images: int, jobs: int, save: Callable[[], None]) -> None:
    """Train every task's network, with a bar for each; `results` grows on the way and is saved after every epoch."""
    from tqdm.auto import tqdm  # a bar in a terminal and in Jupyter; disable=None: silent anywhere else

    with ExitStack() as stack:
        bars: dict[str, Any] = {}
        for task, event in _side_by_side(tasks, jobs) if jobs > 1 else ((t, e) for t in tasks for e in _train(t)):
            name = task.name
            if name not in bars:
                bars[name] = stack.enter_context(tqdm(total=task.recipe.epochs * images, desc=f"{name:9}",
                                                      unit=" images", position=len(bars), disable=None))
            if isinstance(event, train.Step):
                bars[name].update(event.images)
                bars[name].set_postfix(loss=f"{event.loss:.2f}", refresh=False)
            else:
                results["nets"][name] = event
                save()


@functools.cache
def _data(quick: bool, where: str) -> list[Any]:
    """[(training images, labels), (test images, labels)], prepared, on the device."""
    splits = datasets.fashion_mnist_small()
    if quick:
        splits = splits[0][:QUICK["train"]], splits[1][:QUICK["test"]]
    images = datasets.subtract_pixel_mean(*(datasets.to_float(split.images, IMAGE_SIZE) for split in splits))
    return [(device.to(x, where), device.to(split.labels, where)) for x, split in zip(images, splits, strict=True)]


def _train(task: Task) -> Iterator[train.Step | Results]:
    """Measure at initialisation, train, measure again: yields every Step, and the record at the start and every epoch.

    One thread: these arrays are so small that a second one gains nothing, and so the numbers do not depend on `jobs`.
    """
    (depth, residual), seed = NETS[task.name], task.seed
    (images, labels), test = _data(task.quick, task.where)
    look = images[:LOOK], labels[:LOOK]

    def build(norm="batch"):
        net = cifar(depth, residual, in_channels=1, width=WIDTH, norm=norm, rng=np.random.default_rng(seed))
        return net.to(task.where)

    def gradient_norms(net):
        return list(analysis.gradient_flow(net, *look).weights.values())

    began = time.perf_counter()
    with kernels.session(threads=1):
        net = build()
        record: Results = {"train_error": [], "test_error": [], "train_loss": [],
                           "responses": [], "responses_init": list(analysis.responses(net, look[0]).values()),
                           "gradient_norms_init": gradient_norms(net)}
        if not residual:  # the control: He initialisation alone, the convolutions with biases
            record["gradient_norms_init_without_bn"] = gradient_norms(build(norm="none"))
        record |= {"parameters": net.count_parameters(), "macs": net.macs(images.shape[1:]), "seconds": 0.0,
                   "complete": False}
        yield record

        # The order of the images is drawn apart from the weights: the same for all four networks.
        for event in train.fit(net, (images, labels), test, task.recipe, rng=np.random.default_rng([seed, 1])):
            if isinstance(event, train.Step):
                yield event
                continue
            record["train_loss"].append(round(event.train_loss, 4))
            record["train_error"].append(round(event.train_error, 3))
            record["test_error"].append(round(event.test_error, 3))
            record["responses"] = list(analysis.responses(net, look[0]).values())
            record["complete"] = event.epoch == task.recipe.epochs
            record["seconds"] = round(time.perf_counter() - began, 1)
            yield record


def _side_by_side(tasks: list[Task], jobs: int) -> Iterator[tuple[Task, train.Step | Results]]:
    """What `_train` yields for each task, `jobs` of them at a time in processes of their own, the deepest first."""
    context = multiprocessing.get_context("spawn")  # a fork would copy BLAS without its threads
    waiting = sorted(tasks, key=lambda task: NETS[task.name][0])
    running: dict[Any, tuple[Task, Any]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                task = waiting.pop()
                reader, writer = context.Pipe(duplex=False)
                process = context.Process(target=_send, args=(task, writer), daemon=True)
                process.start()
                writer.close()  # the child has its own: once that is closed too, the reader comes to its end
                running[reader] = task, process
            ready: Any
            for ready in wait(list(running)):
                task, process = running[ready]
                try:
                    event = ready.recv()
                except EOFError:
                    process.join()
                    if process.exitcode != 0:
                        raise RuntimeError(f"{task.name}: its process ended with status {process.exitcode}") from None
                    del running[ready]
                    continue
                if isinstance(event, Exception):
                    raise event
                yield task, event
    finally:
        for _, process in running.values():
            process.terminate()
            process.join()


def _send(task: Task, writer: Connection) -> None:
    """In the child: what `_train` yields goes into the pipe; so does what it raises."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    try:
        for event in _train(task):
            writer.send(event)
    except Exception as e:
        writer.send(e)
