"""`minires demo`: degradation, and the skip connection that undoes it, on real images in a few minutes.

Four networks of He et al. 2015, section 4.2 (6n + 2 layers, option A) at width 8 learn Fashion-MNIST averaged to
14 x 14: plain and residual, 20 and 56 layers, each from the same seed, with the same images in the same order. Each is
a run in a folder of its own, as `minires train` makes it; what the page shows is measured on these folders.
"""
from __future__ import annotations

import contextlib
import dataclasses
import math
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from .. import analysis, device, info, kernels, runs
from ..datasets.inputs import Prepared
from ..files import records
from ..files.atomic import write_atomically
from ..names import printed
from ..recipes import Recipe
from ..runs import RunConfig, progress, workers
from ..runs.config import Data, Recorded
from ..runs.run import load_after_epoch

NETS = {"plain-20": "plain20", "resnet-20": "resnet20", "plain-56": "plain56", "resnet-56": "resnet56"}
WIDTH, IMAGE_SIZE = 8, 14
LOOK = 200  # images in the fixed batch that responses and gradients are measured on
QUICK = Data(train_images=1000, test_images=500, image_size=IMAGE_SIZE)

Results = dict[str, Any]  # see demo_report.Whole
Nets = Mapping[str, RunConfig]  # by their names in NETS; they differ in their model alone


def choose(recipe: Recipe | None = None, *, seed: int = 0, where: str = "auto", quick: bool = False) -> Nets:
    """What the demo trains. `quick`: one epoch on a tenth of the images. RuntimeError if the device is not there."""
    recipe = recipe or Recipe()
    if quick:
        recipe = dataclasses.replace(recipe, epochs=1)
    config = RunConfig(model=next(iter(NETS.values())), dataset="fashion_mnist_small", recipe_name="demo",
                       recipe=recipe, seed=seed, device=device.use(where), model_options={"width": WIDTH},
                       data=QUICK if quick else Data(image_size=IMAGE_SIZE))
    return _of_all(config)


def begun(out: Path) -> Nets:
    """What the demo in the folder `out` trains. FileNotFoundError where none was begun there."""
    for name in NETS.values():
        if (out / "runs" / name / "config.json").exists():
            return _of_all(runs.read_config(out / "runs" / name))
    raise FileNotFoundError(f"{out}: there is no demo to continue; leave out --resume to begin one")


def _of_all(config: RunConfig) -> Nets:
    return {name: dataclasses.replace(config, model=model, recorded=Recorded())
            for name, model in NETS.items()}


def run(out: Path, nets: Nets, *, jobs: int = 1, resume: bool = False, command: str = "minires demo",
        say: Callable[[str], None] | None = None) -> tuple[Results, str]:
    """Train the four networks; write results.json, the figures and report.html into `out`.

    `jobs` networks are trained at a time, each in a process of its own if there are several; the numbers are the same.
    Ctrl-C and SIGTERM stop, and what was done until then is written; `resume` continues it. Returns the results and
    what stopped it, "" if nothing did.
    FileExistsError if `out` holds a demo already, unless `resume`.
    """
    if jobs < 1:
        raise ValueError(f"demo: expected jobs >= 1, got {jobs}")
    if taken := [path for path in (out / "results.json", out / "runs") if path.exists() and not resume]:
        raise FileExistsError(f"{taken[0]} exists already; choose another --out, nothing is overwritten; --resume "
                              "continues a demo that was stopped")
    say = say or progress.say
    began, config = time.monotonic(), next(iter(nets.values()))
    earlier, sets = _seconds_before(out), config.inputs()
    out.mkdir(parents=True, exist_ok=True)
    say(f"Training {', '.join(map(printed, nets))} on {len(sets.train[0]):,} images of Fashion-MNIST, "
        f"{_times(config.recipe.epochs)} each, {f'{jobs} networks at a time, ' if jobs > 1 else ''}on the "
        f"{config.device}. Results go to {out}.")
    stopped = _train(out, nets, sets, jobs, command, say)
    if stopped:
        say(f"Stopped by {stopped}; keeping what is done. minires demo --resume --out {shlex.quote(str(out))} "
            "continues.")
    results = collect(out, nets, sets)
    results["seconds"] = round(earlier + time.monotonic() - began, 1)
    write_atomically(out / "results.json", records.text(results) + "\n")
    from . import demo_report
    page = demo_report.write_report(results, out)
    say(demo_report.summary_table(results))
    say(f"{'Incomplete. ' if stopped else ''}Report: {page}")
    return results, stopped


def _times(epochs: int) -> str:
    return f"{epochs} epoch{'s' if epochs > 1 else ''}"


def _seconds_before(out: Path) -> float:
    """Of the calls before this one, as far as results.json tells."""
    from .demo_report import load
    return load(out / "results.json")["seconds"] if (out / "results.json").exists() else 0.0


# ------------------------------------------------------------------------------------------------------- training


def _train(out: Path, nets: Nets, sets: Prepared, jobs: int, command: str, say: Callable[[str], None]) -> str:
    """Train all networks, with a bar for each where a person looks; what stopped them, or ""."""
    # One thread: these arrays are so small that a second one gains nothing, and so the numbers do not depend on `jobs`.
    todo = {name: workers.Job(config, out / "runs" / config.model, threads=1, command=command)
            for name, config in nets.items()}
    bars: dict[str, progress.Bar] = {}
    estimate = Estimate({name: _macs(config, sets) for name, config in nets.items()}, jobs,
                        errors=(1 + len(sets.test[0]) / len(sets.train[0])) / 3)

    def tell(name: str, event: workers.Event) -> None:
        if isinstance(event, str):
            say(event)
            return
        if name not in bars:
            bars[name] = stack.enter_context(progress.Bar(f"{printed(name):9}", position=len(bars)))
        bars[name](event)
        if text := estimate.after(name, event):
            say(text)

    def failed(name: str, error: Exception) -> None:
        raise RuntimeError(f"{printed(name)}: {error}") if type(error) is RuntimeError else error

    with contextlib.ExitStack() as stack:
        if jobs == 1:
            _, stopped = workers.in_turn(todo, tell)
        else:  # the deepest first: the others fit beside it
            _, stopped = workers.side_by_side(dict(reversed(todo.items())), jobs, tell, failed)
    return stopped


def _macs(config: RunConfig, sets: Prepared) -> int:
    shape = sets.train[0].shape[1:]
    return config.build(shape[0], len(sets.classes)).macs(shape)


class Estimate:
    """How long training takes, told once: from the first steps of the networks that train at that time, and for the
    others from how many multiply-accumulates they need.

    macs: {network: for one image}. errors: what measuring the errors after a pass takes, as a share of the pass.
    """

    STEPS = 8  # of each network that trains

    def __init__(self, macs: Mapping[str, int], jobs: int, errors: float, clock: Callable[[], float] = time.monotonic):
        self.macs, self.jobs, self.errors, self.clock = macs, jobs, errors, clock
        self.began, self.start = clock(), 0.0  # seconds until the first network began
        self.told = False
        self.left: dict[str, int] = {}            # images, of each network that was seen
        self.last: dict[str, float] = {}          # when it was seen
        self.paces: dict[str, list[float]] = {}   # its seconds for an image, of every step

    def after(self, name: str, passed: progress.Passed) -> str:
        """What to say after a step: nothing but once."""
        if self.told:
            return ""
        now, left = self.clock(), passed.total - passed.images
        self.start = self.start or now - self.began
        if name in self.last:
            self.paces.setdefault(name, []).append((now - self.last[name]) / (self.left[name] - left))
        self.last[name], self.left[name] = now, left
        todo = {other: self.left.get(other, passed.total) for other in self.macs}
        todo = {other: images for other, images in todo.items() if images}
        known = [other for other in todo if len(self.paces.get(other, ())) >= self.STEPS]
        if not known or len(known) < min(self.jobs, len(todo)):
            return ""
        self.told = True
        return f"Training will take {between(*(self._seconds(todo, known, half) for half in (0, 1)))}"

    def _seconds(self, todo: Mapping[str, int], known: list[str], half: int) -> float:
        """If every step is as the faster half of those seen (0), or as the slower half (1), and what a network needs
        after its training takes as long as its start."""
        pace = {name: fmean(np.array_split(sorted(self.paces[name]), 2)[half]) for name in known}
        for_a_mac = (min, max)[half](pace[name] / self.macs[name] for name in known)
        ends = [0.0] * self.jobs  # of what each process has to do
        for name in sorted(todo, key=lambda name: name not in known):
            seconds = todo[name] * (1 + self.errors) * pace.get(name, for_a_mac * self.macs[name])
            ends[ends.index(min(ends))] += seconds + self.start * ((name not in self.last) + half)
        return max(ends)


def between(low: float, high: float) -> str:
    """A span of seconds in words: "35 to 50 s", "2 to 4 min"."""
    unit, seconds, step = ("s", 1, 5) if high < 100 else ("min", 60, 1) if high < 6000 else ("h", 3600, 1)
    first, last = math.floor(low / seconds / step) * step, math.ceil(high / seconds / step) * step
    return f"{first} to {last} {unit}" if first else f"up to {last} {unit}"


# ------------------------------------------------------------------------------------------------------ measuring


def collect(out: Path, nets: Nets, sets: Prepared) -> Results:
    """What the page shows, read from the runs' folders and measured on their weights; of the networks that began."""
    found = {name: runs.read_config(folder) for name, config in nets.items()
             if ((folder := out / "runs" / config.model) / "config.json").exists()}
    config = next(iter(nets.values()))
    recorded = [config.recorded for config in found.values()]
    learn, test = len(sets.train[0]), len(sets.test[0])
    size = config.data.image_size
    return {
        "nets": {name: measure(out / "runs" / config.model, config, sets) for name, config in found.items()},
        "settings": {**config.chosen()["settings"], "seed": config.seed, "width": WIDTH, "shortcut": "A",
                     "image_size": size, "train_images": learn, "test_images": test, "look_images": min(LOOK, learn),
                     "device": config.device, "quick": config.data == QUICK,
                     "command": recorded[0].command if recorded else "",
                     "dataset": f"Fashion-MNIST, first {learn:,} training and {test:,} test images, averaged to "
                                f"{size}x{size}, training mean subtracted per pixel"},
        "versions": info.versions(),
        "started": min((noted.started for noted in recorded), default=""),
        "seconds": 0.0,
    }


def measure(folder: Path, config: RunConfig, sets: Prepared) -> dict[str, Any]:
    """One network: its errors after every epoch, its responses at initialisation and after the last epoch, and its
    gradients at initialisation, on one batch of training images."""
    images, labels = (part[:LOOK] for part in sets.train)
    lines = runs.read_metrics(folder, config.tested)

    def build(config: RunConfig) -> Any:
        return config.build(images.shape[1], len(sets.classes))

    def gradient_norms(model: Any) -> list[float]:
        return list(analysis.gradient_flow(model, images, labels).weights.values())

    with kernels.session(threads=1):
        model = build(config)
        net = {
            "train_error": [round(line["train_error"], 3) for line in lines],
            "test_error": [round(line["test_error"], 3) for line in lines],
            "train_loss": [round(line["train_loss"], 4) for line in lines],
            "responses": [],
            "responses_init": list(analysis.responses(model, images).values()),
            "gradient_norms_init": gradient_norms(model),
            "parameters": model.count_parameters(), "macs": model.macs(images.shape[1:]),
            "seconds": round(lines[-1]["seconds"], 1) if lines else 0.0,
            "complete": bool(lines) and lines[-1]["step"] == config.recorded.steps}
        if config.model.startswith("plain"):  # the control: He initialisation alone, the convolutions with biases
            bare = dataclasses.replace(config, model_options={**config.model_options, "norm": "none"})
            net["gradient_norms_init_without_bn"] = gradient_norms(build(bare))
        if load_after_epoch(folder, model, len(lines)):
            net["responses"] = list(analysis.responses(model, images).values())
    return net
