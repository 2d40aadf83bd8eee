"""Implement `minires demo`, which shows degradation and the effect of the skip connection on real images in minutes.

The demo trains four networks of He et al. 2015, section 4.2 (6n + 2 layers, option A shortcuts): plain and residual, 20
and 56 layers, at width 8, on Fashion-MNIST averaged to 14 x 14 pixels. All networks use the same seed, and the same
images in the same order. Each network is a run in its own folder, as `minires train` makes it. All numbers on the
report page are read or measured from these folders.
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
from ..names import counted, printed
from ..recipes import Recipe
from ..runs import RunConfig, progress, workers
from ..runs.config import Data, Recorded
from ..runs.run import load_after_epoch

NETS = {"plain-20": "plain20", "resnet-20": "resnet20", "plain-56": "plain56", "resnet-56": "resnet56"}
WIDTH, IMAGE_SIZE = 8, 14
LOOK = 200  # number of images in the fixed batch on which responses and gradients are measured
QUICK = Data(train_images=1000, test_images=500, image_size=IMAGE_SIZE)

Results = dict[str, Any]  # see demo_report.Whole
Nets = Mapping[str, RunConfig]  # {name in NETS: config}; the configs differ only in the model


def choose(recipe: Recipe | None = None, *, seed: int = 0, where: str = "auto", quick: bool = False) -> Nets:
    """Return the configs of the networks that the demo trains.

    where: "auto", "cpu" or "gpu"
    quick: whether to train for one epoch, on 1,000 training images and with 500 test images

    Raises RuntimeError if the device is not available.
    """
    recipe = recipe or Recipe()
    if quick:
        recipe = dataclasses.replace(recipe, epochs=1)
    config = RunConfig(model=next(iter(NETS.values())), dataset="fashion_mnist_small", recipe_name="demo",
                       recipe=recipe, seed=seed, device=device.use(where), model_options={"width": WIDTH},
                       data=QUICK if quick else Data(image_size=IMAGE_SIZE))
    return _of_all(config)


def begun(out: Path) -> Nets:
    """Return the configs of the networks of the demo in the folder `out`.

    Raises FileNotFoundError if no demo was begun there.
    """
    for name in NETS.values():
        if (out / "runs" / name / "config.json").exists():
            return _of_all(runs.read_config(out / "runs" / name))
    gone = " in another folder: the runs of this demo are gone" if (out / "results.json").exists() else ""
    raise FileNotFoundError(f"{out}: found no demo to resume; leave out --resume to begin one{gone}")


def _of_all(config: RunConfig) -> Nets:
    return {name: dataclasses.replace(config, model=model, recorded=Recorded())
            for name, model in NETS.items()}


def run(out: Path, nets: Nets, *, jobs: int = 1, resume: bool = False, command: str = "minires demo",
        say: Callable[[str], None] | None = None) -> tuple[Results, str]:
    """Train the four networks, and write results.json, the figures and report.html into `out`.

    Return the results, and what stopped the demo, or "" if nothing did.

    jobs: number of networks to train at the same time. With more than one, each network is trained in its own process;
        the results do not depend on it
    resume: whether to resume the demo in `out`

    After Ctrl-C, SIGTERM or SIGHUP the results so far are written. If no run has begun, nothing is written.

    Raises FileExistsError if `out` holds a demo already and `resume` is not set.
    """
    if jobs < 1:
        raise ValueError(f"demo: expected jobs >= 1, got {jobs}")
    if taken := [path for path in (out / "results.json", out / "runs") if _holds_files(path) and not resume]:
        raise FileExistsError(f"{taken[0]} exists already; choose another --out, or give --resume to resume a stopped "
                              "demo. Nothing was overwritten")
    say = say or progress.say
    began, config = time.monotonic(), next(iter(nets.values()))
    earlier, sets = _seconds_before(out), config.inputs()
    out.mkdir(parents=True, exist_ok=True)
    say(f"Training {', '.join(map(printed, nets))} on {len(sets.train[0]):,} images of Fashion-MNIST, "
        f"{counted(config.recipe.epochs, 'epoch')} each, {f'{jobs} networks at a time, ' if jobs > 1 else ''}on the "
        f"{config.device}. Results go to {out}.")
    stopped = _train(out, nets, sets, jobs, _command_before(out, nets) or command, say)
    results = collect(out, nets, sets)
    if stopped and not results["nets"]:
        say(f"Stopped by {stopped} before any run began. There is nothing to resume, and the same command works again.")
        return results, stopped
    if stopped:
        say(f"Stopped by {stopped}; what is done is kept. To resume: minires demo --resume --out "
            f"{shlex.quote(str(out))}")
    results["seconds"] = round(earlier + time.monotonic() - began, 1)
    write_atomically(out / "results.json", records.text(results) + "\n")
    from . import demo_report
    page = demo_report.write_report(results, out)
    say(demo_report.summary_table(results))
    say(f"{'Incomplete. ' if stopped else ''}Report: {page}")
    return results, stopped


def _holds_files(path: Path) -> bool:
    """Return whether `path` is a file or a folder with files. Locks and temporary files do not count: a process that
    was killed before its run began can leave them."""
    return path.is_file() or any(p.is_file() and not p.name.startswith(".") for p in path.rglob("*"))


def _seconds_before(out: Path) -> float:
    """Return the seconds of earlier calls according to results.json, or 0 if it does not exist."""
    from .demo_report import load
    return load(out / "results.json")["seconds"] if (out / "results.json").exists() else 0.0


def _command_before(out: Path, nets: Nets) -> str:
    """Return the command that began the demo in `out`, or "" if no run has begun.

    The runs that a resumed demo begins record this command too, because a command with --resume repeats nothing.
    """
    folders = (out / "runs" / config.model for config in nets.values())
    return next((runs.read_config(folder).recorded.command for folder in folders
                 if (folder / "config.json").exists()), "")


# ------------------------------------------------------------------------------------------------------- training


def _train(out: Path, nets: Nets, sets: Prepared, jobs: int, command: str, say: Callable[[str], None]) -> str:
    """Train all networks, with a progress bar for each in a terminal. Return what stopped them, or ""."""
    # With one thread the results do not depend on `jobs`. A second thread gains nothing on such small arrays.
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
        else:  # the deepest first: it takes longest, and the others can run at the same time
            _, stopped = workers.side_by_side(dict(reversed(todo.items())), jobs, tell, failed)
    return stopped


def _macs(config: RunConfig, sets: Prepared) -> int:
    shape = sets.train[0].shape[1:]
    return config.build(shape[0], len(sets.classes)).macs(shape)


class Estimate:
    """Estimates once how long the training takes.

    For the networks in training, the estimate uses the times of their first steps. For the others it uses these times
    and the networks' multiply-accumulates.

    macs: {network: multiply-accumulates for one image}
    errors: time for measuring the errors after an epoch, as a fraction of the epoch's training time
    """

    STEPS = 8  # number of steps to measure of each network in training

    def __init__(self, macs: Mapping[str, int], jobs: int, errors: float, clock: Callable[[], float] = time.monotonic):
        self.macs, self.jobs, self.errors, self.clock = macs, jobs, errors, clock
        self.began, self.start = clock(), 0.0  # seconds until the first network began
        self.told = False
        self.left: dict[str, int] = {}            # images left, for each network with an event
        self.last: dict[str, float] = {}          # time of its last event
        self.paces: dict[str, list[float]] = {}   # its seconds per image, for every step

    def after(self, name: str, passed: progress.Passed) -> str:
        """Return the text to print after a step: once the estimate, and "" at all other times."""
        if self.told:
            return ""
        now, left = self.clock(), passed.total - passed.images
        self.start = self.start or now - self.began
        if name in self.last and left < self.left[name]:  # not after a process that was killed and resumed
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
        """Estimate the seconds from the faster half (0) or the slower half (1) of the measured steps.

        The start of the first network is added for each network that has not started, and for half=1 once more for each
        network's work after its training.
        """
        pace = {name: fmean(np.array_split(sorted(self.paces[name]), 2)[half]) for name in known}
        for_a_mac = (min, max)[half](pace[name] / self.macs[name] for name in known)
        ends = [0.0] * self.jobs  # when each process has finished its networks
        for name in sorted(todo, key=lambda name: name not in known):
            seconds = todo[name] * (1 + self.errors) * pace.get(name, for_a_mac * self.macs[name])
            ends[ends.index(min(ends))] += seconds + self.start * ((name not in self.last) + half)
        return max(ends)


def between(low: float, high: float) -> str:
    """Return a range of seconds in words, as in "35 to 50 s" or "2 to 4 min"."""
    unit, seconds, step = ("s", 1, 5) if high < 100 else ("min", 60, 1) if high < 6000 else ("h", 3600, 1)
    first, last = math.floor(low / seconds / step) * step, math.ceil(high / seconds / step) * step
    return f"{first} to {last} {unit}" if first else f"up to {last} {unit}"


# ------------------------------------------------------------------------------------------------------ measuring


def collect(out: Path, nets: Nets, sets: Prepared) -> Results:
    """Return all numbers of the report page for the networks that have begun, read from the folders of their runs."""
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
    """Return the errors of one network after every epoch, and what is measured on one batch of training images.

    These are the responses at initialisation and after the last epoch, and the gradients at initialisation.
    """
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
        if config.model.startswith("plain"):  # the control: He initialisation, no BN, biases in the convolutions
            bare = dataclasses.replace(config, model_options={**config.model_options, "norm": "none"})
            net["gradient_norms_init_without_bn"] = gradient_norms(build(bare))
        if load_after_epoch(folder, model, len(lines)):
            net["responses"] = list(analysis.responses(model, images).values())
    return net
