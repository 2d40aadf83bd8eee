"""A training run in a folder of its own: begun, stopped anywhere, gone on with to the same bits, finished.

    config.json             everything that was chosen, and what it ran on; written first, never changed
    metrics.jsonl           a line per epoch
    checkpoint-*.safetensors  the last two (checkpoint.py); the newest holds all of the above lines too
    weights.safetensors, curves.png   at the end
"""
from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import inspect
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import checkpoint, datasets, device, info, models, nn, recipes
from .files import locked, write_atomically
from .kernels import blocked
from .names import unknown
from .train import Epoch, NotFinite, Progress, Step, fit

Config = dict[str, Any]
CHOSEN = "model", "model_options", "dataset", "data", "recipe", "settings", "seed", "device"  # decide every number
BY_DATA = "num_classes", "in_channels", "rng"  # arguments of a model that follow from the data set and the seed


@dataclass(frozen=True)
class Data:
    """Which images of a data set, and in which form. 0: all, or as they are."""

    train_images: int = 0  # the first so many
    test_images: int = 0
    image_size: int = 0    # averaged to this height and width
    validation: int = 0    # the last so many training images are held out, and stand in for the test set

    def __post_init__(self) -> None:
        if negative := [f"{name} {n}" for name, n in dataclasses.asdict(self).items() if n < 0]:
            raise ValueError(f"data: expected numbers from 0, got {', '.join(negative)}")


# -------------------------------------------------------------------------------------------------- what to train


def configure(model: str, dataset: str, recipe: str = "paper-cifar", seed: int = 0, where: str = "auto",
              settings: Sequence[str] = ()) -> Config:
    """The CHOSEN part of a config. `settings`: "key=value", a field of Recipe or Data or "model.<option>".

    ValueError, with the nearest name, for a model, data set, recipe or key that does not exist, and for a value of
    another type; RuntimeError for a device that is not there.
    """
    name = model.lower().replace("-", "")
    if name not in models.BY_NAME:
        raise unknown("model", model, models.BY_NAME)
    if dataset not in datasets.BY_NAME:
        raise unknown("data set", dataset, datasets.BY_NAME)
    chosen, data = recipes.named(recipe), Data()
    options = {f"model.{n}": p for n, p in inspect.signature(models.BY_NAME[name]).parameters.items()
               if n not in BY_DATA}
    texts: dict[str, str] = {}
    for setting in settings:
        key, equals, text = (part.strip() for part in setting.partition("="))
        if not equals:
            raise ValueError(f"setting: expected key=value, got {setting!r}")
        if not (hasattr(chosen, key) or hasattr(data, key) or key in options):
            raise unknown("setting", key, [*vars(chosen), *vars(data), *options])
        texts[key] = text
    return {
        "model": name,
        "model_options": {key.removeprefix("model."): recipes.parse(key, text, type(options[key].default))
                          for key, text in texts.items() if key in options},
        "dataset": dataset,
        "data": dataclasses.asdict(recipes.override(data, {k: t for k, t in texts.items() if hasattr(data, k)})),
        "recipe": recipe,
        "settings": dataclasses.asdict(recipes.override(chosen, {k: t for k, t in texts.items()
                                                                 if hasattr(chosen, k)})),
        "seed": seed,
        "device": device.use(where),
    }


def recipe_of(config: Config) -> recipes.Recipe:
    """The recipe with the settings of a config, which may have been read from JSON."""
    return recipes.Recipe(**{**config["settings"], "drops": tuple(config["settings"]["drops"])})


def prepared(config: Config, root: Path | None) -> tuple[Any, Any, str, int]:
    """(train, test, SHA-256 of the pixels and labels as stored, number of classes). Each of the two is (images
    float32 (N, C, H, W) less the training images' mean at every pixel, labels), on the config's device."""
    data = Data(**config["data"])
    learn, test = datasets.load(config["dataset"], root)
    digest = hashlib.sha256()
    for split in learn, test:
        digest.update(np.ascontiguousarray(split.images))
        digest.update(np.ascontiguousarray(split.labels))
    for key, have in ("train_images", len(learn) - data.validation), ("test_images", len(test)):
        if not getattr(data, key) <= have or have < 1:
            raise ValueError(f"{config['dataset']}: {key}: expected at most {have}, got {getattr(data, key)}")
    if data.validation:
        learn, test = learn[:-data.validation], learn[-data.validation:]
    learn, test = learn[:data.train_images or None], test[:data.test_images or None]
    images = datasets.subtract_pixel_mean(*(datasets.to_float(
        datasets.average_pool(s.images, data.image_size) if data.image_size else s.images) for s in (learn, test)))
    train_set, test_set = ((device.to(x, config["device"]), device.to(split.labels, config["device"]))
                           for x, split in zip(images, (learn, test), strict=True))
    return train_set, test_set, digest.hexdigest(), len(learn.classes)


def build(config: Config, in_channels: int, num_classes: int) -> nn.Module:
    """The model of a config with its first weights, drawn from the seed."""
    given = {"in_channels": in_channels, "num_classes": num_classes, "rng": np.random.default_rng(config["seed"])}
    takes = inspect.signature(models.BY_NAME[config["model"]]).parameters
    options = {name: value for name, value in given.items() if name in takes}
    return models.build(config["model"], **config["model_options"], **options).to(config["device"])


# ----------------------------------------------------------------------------------------------------- the folder


def differences(there: Mapping[str, Any], asked: Mapping[str, Any], keys: Sequence[str] = CHOSEN) -> list[str]:
    """Where two configs differ, in words: "settings.lr: 0.1 there, 0.2 asked for"."""
    found = []
    for key in keys:
        a, b = there.get(key), json.loads(json.dumps(asked.get(key)))  # as JSON has it: tuples are lists
        if isinstance(a, dict) and isinstance(b, dict):
            found += [f"{key}.{text}" for text in differences(a, b, sorted({*a, *b}))]
        elif a != b:
            found.append(f"{key}: {a} there, {b} asked for")
    return found


def read_config(folder: Path) -> Config:
    """config.json of a run's folder. FileNotFoundError where there is none, ValueError where it is none of ours."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} is no run's folder: there is no config.json in it") from None
    except ValueError as e:
        raise ValueError(f"{folder / 'config.json'} cannot be read: {e}") from e
    if missing := [key for key in (*CHOSEN, "steps") if not isinstance(config, dict) or key not in config]:
        raise ValueError(f"{folder / 'config.json'}: expected a run's settings; there is no {', '.join(missing)}")
    return config


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, none where it is not there yet."""
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]
    except FileNotFoundError:
        return []
    except ValueError as e:
        raise ValueError(f"{folder / 'metrics.jsonl'} cannot be read: {e}") from e


@contextlib.contextmanager
def _folder(out: Path, chosen: Config | None, resume: bool) -> Iterator[Config | None]:
    """Hold the run's folder. Gives the config that is in it, or None for a new run; all that can be wrong is said
    before anything is written."""
    inside = [p for p in out.iterdir() if not p.name.startswith(".")] if out.is_dir() else []
    if not resume and (inside or out.is_file()):
        raise FileExistsError(f"{out} is not empty: --resume goes on with the run in it, another --out begins one")
    if resume and chosen is None and not inside:
        raise FileNotFoundError(f"{out}: there is no run to go on with; give MODEL and --dataset to begin one")
    there = read_config(out) if inside else None
    if there and chosen and (found := differences(there, chosen)):
        raise ValueError(f"{out} holds a run of other settings: {'; '.join(found)}. Leave these as they are there, or "
                         "choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / ".lock"):
        for left in out.glob(".*.tmp"):  # of a process that was killed while it wrote
            left.unlink()
        yield there


# ------------------------------------------------------------------------------------------------------- the run


@dataclass
class Outcome:
    """How a call ended: finished, or stopped ("the time limit", "Ctrl-C", "SIGTERM") with a checkpoint written."""

    out: Path
    step: int
    steps: int
    stopped: str = ""

    @property
    def finished(self) -> bool:
        return not self.stopped


def train(chosen: Config | None, out: Path, *, resume: bool = False, root: Path | None = None,
          time_limit: float = math.inf, every_seconds: float = 600, every_steps: int = 0,
          command: str = "", say: Callable[[str], None] | None = None) -> Outcome:
    """Begin the run `chosen` (`configure`) in the folder `out`, or with `resume` go on with the one in it.

    With resume, `chosen` may be None: all is as config.json says. A checkpoint is written after every epoch, every
    `every_seconds`, every `every_steps` (0: not), and when stopping: `time_limit` seconds from now at the latest, at
    Ctrl-C or SIGTERM. `root`: the data set's folder. On the CPU with the same number of threads the finished run's
    weights and metrics (but for their seconds) have the same bits however often it was stopped or killed.
    NotFinite, with the last good checkpoint kept, where the loss is not finite.
    """
    began = time.monotonic()
    with _folder(out, chosen, resume) as there, _stop_signals() as stop:
        run = _Run(there or chosen or {}, out, root, new=there is None, command=command)
        return run.go(began, time_limit, every_seconds, every_steps, stop, say)


class _Run:
    """One call's work on a run: the model, where it stands, and what it has measured."""

    def __init__(self, config: Config, out: Path, root: Path | None, new: bool, command: str):
        self.out, self.notes = out, []
        root = root or (Path(config["root"]) if config.get("root") else None)
        device.use(config["device"])  # it may have been another machine's
        self.train, self.test, digest, classes = prepared(config, root)
        self.model = build(config, self.train[0].shape[1], classes)
        self.recipe = recipe_of(config)
        images = len(self.train[0])
        now = {"data_sha256": digest, "steps": self.recipe.total_steps(images), "threads": blocked.threads(),
               "versions": info.versions(), "commit": info.commit()}
        if new:
            config = {**config, **now, "parameters": self.model.count_parameters(), "train_images": images,
                      "test_images": len(self.test[0]), "root": str(root) if root else None, "command": command,
                      "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
            write_atomically(out / "config.json", json.dumps(config, indent=1) + "\n")
        elif config["data_sha256"] != digest:
            raise ValueError(f"{out}: the run began with other pixels or labels of {config['dataset']}: SHA-256 "
                             f"{config['data_sha256'][:12]}..., and {digest[:12]}... now")
        elif other := differences(config, now, ("threads", "versions", "commit")):
            self.notes.append(f"not as it began, the bits may differ: {'; '.join(other).replace('asked for', 'now')}")
        self.config = config
        self.at, self.seconds, self.metrics = Progress(), 0.0, []
        self.takes = {"step": 0.0, "epoch": 0.0, "save": 0.5}  # seconds that each took, the longest of late
        if not new:
            self._load()

    def _load(self) -> None:
        found, damaged = checkpoint.newest(self.out)
        self.notes += [f"damaged checkpoint passed over: {text}" for text in damaged]
        if found is None:
            if damaged:
                raise ValueError(f"{self.out}: no checkpoint can be read: {'; '.join(damaged)}. Begin the run again in "
                                 "another folder")
            self.notes.append("there is no checkpoint yet: beginning at step 0")
            return
        arrays, header = found
        if wrong := differences(header.get("run", {}), self.config):
            raise ValueError(f"{self.out}: the checkpoint is of another run: {'; '.join(wrong)}")
        velocity = arrays.pop("velocity", None)
        self.model.load_state({name.removeprefix("model."): a for name, a in arrays.items()})
        self.at = Progress(**header["at"], velocity=velocity)
        self.seconds, self.metrics, self.takes = header["seconds"], header["metrics"], header["takes"]
        self._write_metrics()  # a kill may have come between the checkpoint and this
        self.notes.append(f"going on from step {self.at.step} of {self.config['steps']}")

    def save(self, seconds: float) -> None:
        """A checkpoint, then metrics.jsonl. NotFinite, and nothing written, where the weights are not finite."""
        state = {f"model.{name}": device.to(t.data, "cpu") for name, t in self.model.state().items()}
        if bad := [name for name, a in state.items() if not np.isfinite(a).all()]:
            raise NotFinite(f"step {self.at.step}: after it {bad[0].removeprefix('model.')} is not finite")
        at = {f.name: getattr(self.at, f.name) for f in dataclasses.fields(self.at) if f.name != "velocity"}
        header = {"run": {key: self.config[key] for key in CHOSEN}, "at": at, "seconds": seconds,
                  "metrics": self.metrics, "takes": self.takes}
        if self.at.velocity is not None:
            state["velocity"] = device.to(self.at.velocity, "cpu")
        start = time.monotonic()
        try:
            checkpoint.save(self.out, self.at.step, state, header)
            self._write_metrics()
        except OSError as e:
            raise OSError(f"step {self.at.step} could not be written: {e}. {self._kept()}; make room and go on with "
                          "--resume") from e
        self.takes["save"] = max(self.takes["save"], time.monotonic() - start)

    def _write_metrics(self) -> None:
        write_atomically(self.out / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in self.metrics))

    def go(self, began: float, limit: float, every_seconds: float, every_steps: int, stop: list[str],
           say: Callable[[str], None] | None) -> Outcome:
        from tqdm.auto import tqdm  # a bar in a terminal and in Jupyter; disable=None: silent anywhere else

        clock, at, steps = time.monotonic, self.at, self.config["steps"]
        earlier, saved, first = self.seconds, clock(), at.step
        events = fit(self.model, self.train, self.test, self.recipe, rng=self.config["seed"], at=at)
        with contextlib.closing(events), tqdm(total=self._images(steps), initial=self._images(at.step), unit=" images",
                                              desc=self.out.name, disable=None) as bar:
            say = say or bar.write
            for note in self.notes:
                say(f"{self.out}: {note}")
            while at.step < steps or at.batch:
                too_late = clock() - began + self._next_takes() > limit
                if too_late and (at.step, self.seconds) == (first, earlier):
                    raise ValueError(f"--time-limit {limit:g} is too short to get on: {clock() - began:.1f} s went by at "
                                     f"the start, and what comes next takes about {self._next_takes():.1f} s")
                if stop or too_late:
                    self.save(earlier + clock() - began)
                    return Outcome(self.out, at.step, steps, stop[0] if stop else "the time limit")
                start = clock()
                event = self._next(events)
                self.seconds = earlier + clock() - began
                kind = "step" if isinstance(event, Step) else "epoch"
                self.takes[kind] = max(clock() - start, 0.9 * self.takes[kind])
                if isinstance(event, Step):
                    bar.update(event.images)
                    bar.set_postfix_str(f"step {at.step}, loss {event.loss:.3f}, {self._errors()}lr {event.lr:.4g}", False)
                else:
                    self.metrics.append(self._line(event))
                    say(f"{self.out.name}: epoch {event.epoch}, step {at.step} of {steps}, loss {event.train_loss:.3f}, "
                        f"{self._errors()}lr {at.lr:.4g}, {self.seconds:.0f} s")
                if (isinstance(event, Epoch) or clock() - saved >= every_seconds
                        or (every_steps and at.step % every_steps == 0)):
                    self.save(self.seconds)
                    saved = clock()
        self._finish()
        return Outcome(self.out, at.step, steps)

    def _next(self, events: Iterator[Step | Epoch]) -> Step | Epoch:
        try:
            return next(events)
        except NotFinite as e:
            raise NotFinite(f"{e}. {self._kept()}") from e

    def _kept(self) -> str:
        found, _ = checkpoint.newest(self.out)
        return f"The checkpoint of step {found[1]['at']['step']} is kept in {self.out}" if found else (
            "No checkpoint had been written yet")

    def _images(self, step: int) -> int:
        """How many images have passed when `step` steps are done."""
        images = len(self.train[0])
        epochs, batches = divmod(step, math.ceil(images / self.recipe.batch_size))
        return epochs * images + min(batches * self.recipe.batch_size, images)

    def _next_takes(self) -> float:
        """Seconds, generously: for the next step, or the errors at an epoch's end, and for writing a checkpoint."""
        images, at = len(self.train[0]), self.at
        ends = at.batch and (at.step == self.config["steps"] or at.batch * self.recipe.batch_size >= images)
        step = self.takes["step"]
        # Not measured yet: a pass forward takes about a third of a step, a half to be sure.
        epoch = self.takes["epoch"] or step / self.recipe.batch_size / 2 * (images + len(self.test[0]))
        return 1.2 * (epoch if ends else step) + self.takes["save"]

    def _errors(self) -> str:
        if not self.metrics:
            return ""
        kind = "validation" if self.config["data"]["validation"] else "test"
        last = self.metrics[-1]
        return f"training error {last['train_error']:.2f} %, {kind} error {last[f'{kind}_error']:.2f} %, "

    def _line(self, epoch: Epoch) -> dict[str, Any]:
        kind = "validation" if self.config["data"]["validation"] else "test"
        return {"epoch": epoch.epoch, "step": self.at.step, "lr": float(f"{self.at.lr:.6g}"),
                "train_loss": epoch.train_loss, "train_error": epoch.train_error, f"{kind}_error": epoch.test_error,
                "seconds": round(self.seconds, 3)}

    def _finish(self) -> None:
        from safetensors.numpy import save as as_bytes

        from . import plot  # loads matplotlib, which training does not need
        weights = {name: device.to(t.data, "cpu") for name, t in self.model.state().items()}
        write_atomically(self.out / "weights.safetensors", as_bytes(weights))
        curves = plot.training_curves({self.config["model"]: [self.metrics]})
        write_atomically(self.out / "curves.png", plot.png(curves))


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[str]]:
    """Inside, Ctrl-C and SIGTERM are noted in the list instead of breaking a step in two; a second one breaks it."""
    asked: list[str] = []
    if threading.current_thread() is not threading.main_thread():  # only there can signals be caught
        yield asked
        return

    def note(number, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
