"""A training run in a folder of its own: begun, stopped anywhere, gone on with to the same bits, finished.

    config.json                       everything that was chosen, and what it ran on; written first, never changed
    metrics.jsonl                     a line for each epoch
    checkpoint-*.safetensors          the last two (checkpoint.py), which hold those lines too
    weights.safetensors, curves.png   at the end
"""
from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import device, info, kernels, nn
from ..files.atomic import locked, write_atomically
from ..kernels import parallel
from ..train import Epoch, NotFinite, Progress, Step, fit
from ..weights import load_weights, save_weights
from . import checkpoint
from .config import CHOSEN, Config, build, differences, prepared, pretty, recipe_of

# ----------------------------------------------------------------------------------------------------- the folder


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


class Trained(NamedTuple):
    """What a finished run made, and the data as its network took them, on one device."""

    config: Config
    model: nn.Module                # its last weights, in eval mode
    fresh: Callable[[], nn.Module]  # the same network with its first weights
    images: Any                     # float32 (N, C, H, W), of the test set or of what stood in for it
    labels: Any                     # (N,)
    classes: Sequence[str]


def read(folder: Path, root: Path | None = None, where: str = "") -> Trained:
    """The network of a finished run, and its test images. `root`: the data set's folder, if not the run's own. `where`:
    "auto", "cpu" or "gpu", if not the run's own: it may have been trained on another machine.

    FileNotFoundError for another folder, a run that is not finished, or a data set that is not there; ValueError where
    the pixels are not those of the run; RuntimeError where its device is not there.
    """
    config = read_config(folder)
    config["device"] = device.use(where or config["device"])
    weights = folder / "weights.safetensors"
    if not weights.exists():
        raise FileNotFoundError(f"{folder}: the run is not finished, there is no weights.safetensors in it; "
                                f"minires train --resume --out {folder} goes on with it")
    given = root or config.get("root")
    learn, (images, labels), digest, classes = prepared(config, Path(given) if given else None)
    if digest != config.get("data_sha256", digest):
        raise ValueError(f"{folder}: expected the {config['dataset']} that it was trained on (SHA-256 "
                         f"{config['data_sha256'][:12]}...), got other pixels or labels ({digest[:12]}...)")
    fresh = functools.partial(build, config, learn[0].shape[1], len(classes))
    model = fresh().eval()
    load_weights(model, weights)
    return Trained(config, model, fresh, images, labels, classes)


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
    new = [path for path in (out / ".lock", out, *out.parents) if not path.exists()]
    out.mkdir(parents=True, exist_ok=True)
    try:
        with locked(out / ".lock"):
            for left in out.glob(".*.tmp"):  # of a process that was killed while it wrote
                left.unlink()
            yield there
    except BaseException:
        with contextlib.suppress(OSError):  # a folder stays once there is a run in it
            for path in new:
                path.rmdir() if path.is_dir() else path.unlink()
        raise


# ------------------------------------------------------------------------------------------------------- the run


MARGIN = 1.5  # seconds for what a process does before and after its run: starting, drawing the curves


@dataclass
class Outcome:
    """How a call ended: finished, or stopped ("the time limit", "Ctrl-C", "SIGTERM") with a checkpoint written."""

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
    pace = _Pace(time_limit, every_seconds, every_steps)
    with _folder(out, chosen, resume) as there, _stop_signals() as stop:
        return _Run(there or chosen or {}, out, root, pace, new=there is None, command=command).go(stop, say)


class _Pace:
    """Time: how long things take, when the next checkpoint is due, and whether the limit leaves room for more."""

    def __init__(self, limit: float, every_seconds: float, every_steps: int):
        self.limit, self.every_seconds, self.every_steps = limit, every_seconds, every_steps
        self.began = self.saved = time.monotonic()
        self.earlier = 0.0  # seconds of the run in earlier calls
        self.takes = {"step": 0.0, "errors": 0.0, "checkpoint": 0.5}  # seconds, the longest of late
        self.errors_in_steps = 0.0  # what "errors" takes, in steps, until it was measured

    def spent(self) -> float:
        """Seconds of this call."""
        return time.monotonic() - self.began

    @contextlib.contextmanager
    def measured(self, what: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.takes[what] = max(time.monotonic() - start, 0.9 * self.takes[what])

    def too_late(self, what: str) -> bool:
        """Would one more of "step" or "errors", and a checkpoint behind it, pass the limit?"""
        needed = self.takes[what] or self.errors_in_steps * self.takes["step"]
        return self.spent() + 1.2 * needed + self.takes["checkpoint"] + MARGIN > self.limit

    def checkpoint_due(self, step: int) -> bool:
        return (time.monotonic() - self.saved >= self.every_seconds
                or (self.every_steps > 0 and step % self.every_steps == 0))


class _Run:
    """One call's work on a run: the model, where it stands, and what it has measured."""

    def __init__(self, config: Config, out: Path, root: Path | None, pace: _Pace, new: bool, command: str):
        self.out, self.pace, self.notes = out, pace, list[str]()
        root = root or (Path(config["root"]) if config.get("root") else None)
        device.use(config["device"])  # the run may have begun on another machine
        self.train, self.test, digest, classes = prepared(config, root)
        self.model = build(config, self.train[0].shape[1], len(classes))
        self.recipe = recipe_of(config)
        self.images = len(self.train[0])
        self.model.macs(self.train[0].shape[1:])  # ValueError for images too small for it, before a file is written
        # A forward pass is a third of a step's work; a half, to be sure.
        pace.errors_in_steps = (self.images + len(self.test[0])) / self.recipe.batch_size / 2
        now = {"data_sha256": digest, "steps": self.recipe.total_steps(self.images), "threads": parallel.threads(),
               "kernels": kernels.choice(), "versions": info.versions(), "commit": info.commit()}
        if new:
            config = {**config, **now, "parameters": self.model.count_parameters(), "train_images": self.images,
                      "test_images": len(self.test[0]), "root": str(root.resolve()) if root else None,
                      "command": command,
                      "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
            write_atomically(out / "config.json", json.dumps(config, indent=1) + "\n")
        elif config["data_sha256"] != digest:
            raise ValueError(f"{out}: the run began with other pixels or labels of {config['dataset']}: SHA-256 "
                             f"{config['data_sha256'][:12]}... there, {digest[:12]}... now")
        elif other := differences(config, now, ("threads", "kernels", "versions", "commit")):
            self.notes.append("not as it began, the bits may differ: " + "; ".join(other).replace("asked for", "now"))
        self.config, self.at, self.metrics = config, Progress(), list[dict[str, Any]]()
        self.notes.append(f"{pretty(config['model'])}, {config['parameters']:,} parameters, {self.images:,} images, "
                          f"{config['steps']:,} steps on the {config['device']}; errors follow after each pass")
        self.tested = "validation_error" if config["data"]["validation"] else "test_error"
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
        for name, generator in self._generators():
            generator.bit_generator.state = header["generators"][name]
        self.at = Progress(**header["at"], velocity=velocity)
        self.metrics, self.pace.earlier, self.pace.takes = header["metrics"], header["seconds"], header["takes"]
        self._write_metrics()  # a kill may have come between the checkpoint and this
        self.notes.append(f"going on from step {self.at.step} of {self.config['steps']}")

    def save(self) -> None:
        """A checkpoint, then metrics.jsonl. NotFinite, and nothing written, where the weights are not finite."""
        arrays = {f"model.{name}": device.to(t.data, "cpu") for name, t in self.model.state().items()}
        if bad := [name for name, a in arrays.items() if not np.isfinite(a).all()]:
            raise NotFinite(f"step {self.at.step}: after it {bad[0].removeprefix('model.')} is not finite. "
                            f"{self._kept()}")
        if self.at.velocity is not None:
            arrays["velocity"] = device.to(self.at.velocity, "cpu")
        at = {f.name: getattr(self.at, f.name) for f in dataclasses.fields(self.at) if f.name != "velocity"}
        header = {"run": {key: self.config[key] for key in CHOSEN}, "at": at, "metrics": self.metrics,
                  "generators": {name: generator.bit_generator.state for name, generator in self._generators()},
                  "seconds": self.pace.earlier + self.pace.spent(), "takes": self.pace.takes}
        try:
            with self.pace.measured("checkpoint"):
                checkpoint.save(self.out, self.at.step, arrays, header)
                self._write_metrics()
        except OSError as e:
            raise OSError(f"the checkpoint of step {self.at.step} could not be written: {e}. {self._kept()}. Make room "
                          "and go on with --resume") from e
        self.pace.saved = time.monotonic()

    def _generators(self) -> Iterator[tuple[str, np.random.Generator]]:
        """What layers draw from in training: Dropout's masks."""
        for name, m in self.model.modules():
            yield from ((f"{name}.{key}", v) for key, v in vars(m).items() if isinstance(v, np.random.Generator))

    def _write_metrics(self) -> None:
        write_atomically(self.out / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in self.metrics))

    def go(self, stop: list[str], say: Callable[[str], None] | None) -> Outcome:
        """To the end, to the time limit, or until `stop` holds a reason."""
        from tqdm.auto import tqdm  # a bar in a terminal and in Jupyter; disable=None: silent anywhere else

        at, pace, steps, before = self.at, self.pace, self.config["steps"], (self.at.step, self.at.epoch)
        events: Any = fit(self.model, self.train, self.test, self.recipe, rng=self.config["seed"], at=at,
                          graph=self.config["graph"])
        with contextlib.closing(events), tqdm(total=self._images_at(steps), initial=self._images_at(at.step),
                                              unit=" images", desc=self.out.name, disable=None) as bar:
            say = say or bar.write
            for note in self.notes:
                say(f"{self.out}: {note}")
            while at.step < steps or at.batch:  # as in fit
                pass_done = at.step == steps or (at.batch > 0 and self._images_at(at.step) % self.images == 0)
                what = "errors" if pass_done else "step"
                late = pace.too_late(what)
                if late and not stop and (at.step, at.epoch) == before:
                    raise ValueError(f"--time-limit {pace.limit:g} is too short to get on: {pace.spent():.1f} s went "
                                     f"by at the start, and what comes next, the {what}, would not be done in time")
                if stop or late:
                    self.save()
                    return Outcome(at.step, steps, stop[0] if stop else "the time limit")
                with pace.measured(what):
                    event = self._next(events)
                if isinstance(event, Step):
                    bar.update(event.images)
                    bar.set_postfix_str(f"step {at.step}, loss {event.loss:.3f}{self._errors()}, lr {at.lr:.4g}", False)
                else:
                    self.metrics.append(self._line(event))
                    say(f"{self.out.name}: epoch {at.epoch}, step {at.step} of {steps}, loss {event.train_loss:.3f}"
                        f"{self._errors()}, lr {at.lr:.4g}, {self.metrics[-1]['seconds']:.0f} s")
                if isinstance(event, Epoch) or pace.checkpoint_due(at.step):
                    self.save()
        self._finish()
        return Outcome(at.step, steps)

    def _next(self, events: Iterator[Step | Epoch]) -> Step | Epoch:
        try:
            return next(events)
        except NotFinite as e:
            raise NotFinite(f"{e}. {self._kept()}") from e

    def _kept(self) -> str:
        found, _ = checkpoint.newest(self.out)
        return (f"The checkpoint of step {found[1]['at']['step']} is kept in {self.out}" if found
                else "No checkpoint had been written yet")

    def _images_at(self, step: int) -> int:
        """How many images have passed when `step` steps are done."""
        size = self.recipe.batch_size
        epochs, batches = divmod(step, math.ceil(self.images / size))
        return epochs * self.images + min(batches * size, self.images)

    def _line(self, epoch: Epoch) -> dict[str, Any]:
        return {"epoch": epoch.epoch, "step": self.at.step, "lr": float(f"{self.at.lr:.6g}"),
                "train_loss": epoch.train_loss, "train_error": epoch.train_error, self.tested: epoch.test_error,
                "seconds": round(self.pace.earlier + self.pace.spent(), 3)}

    def _errors(self) -> str:
        last = self.metrics[-1] if self.metrics else {}
        return "".join(f", {key.replace('_', ' ').replace('train ', 'training ')} {last[key]:.2f} %"
                       for key in ("train_error", self.tested) if last)

    def _finish(self) -> None:
        from .. import plot  # loads matplotlib, which training does not need

        save_weights(self.model, self.out / "weights.safetensors")
        curves = plot.training_curves({pretty(self.config["model"]): [self.metrics]})
        write_atomically(self.out / "curves.png", plot.png(curves))


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[str]]:
    """Inside, Ctrl-C and SIGTERM are noted in the list instead of breaking a step in two; a second one breaks it."""
    asked: list[str] = []
    if threading.current_thread() is not threading.main_thread():  # only there can signals be caught
        yield asked
        return

    def note(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
