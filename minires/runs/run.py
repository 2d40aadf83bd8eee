"""Train a run in its own folder. A run can be stopped at any moment and resumed, and then gives the same bits.

    config.json                       all choices, and what was recorded at the start; written first, never changed
    metrics.jsonl                     one line per epoch
    checkpoint-*.safetensors          the last two checkpoints (checkpoint.py), which also hold these lines
    weights.safetensors, curves.png   written at the end
"""
from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import importlib.util
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np

from .. import device, info, init, kernels, nn
from ..datasets import Prepared
from ..files import records
from ..files.atomic import TEMPORARY, locked, write_atomically
from ..kernels import parallel
from ..names import printed
from ..train import KEPT, Epoch, NotFinite, Progress, Step, fit
from ..weights import load_weights, save_weights
from . import checkpoint, metrics, progress
from .config import Count, Recorded, RunConfig
from .metrics import Line, NotNegative
from .progress import Passed

# ----------------------------------------------------------------------------------------------------- the folder


def read_config(folder: Path) -> RunConfig:
    """Return the config of the run in `folder`.

    Raises FileNotFoundError if there is no config.json.
    Raises ValueError if config.json is not the config of a run that has begun.
    """
    path = folder / "config.json"
    try:
        raw = records.read(path)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{folder} is not the folder of a run: there is no config.json in it") from None
    config = RunConfig.from_json(raw, path)
    if not config.recorded.steps:
        raise ValueError(f"{path}: steps: expected a whole number >= 1, got {raw.get('steps', 'nothing')}")
    return config


class At(TypedDict):
    """Holds `train.Progress` without the optimiser's arrays."""

    step: Count
    epoch: Count
    batch: Count
    loss_sum: float
    lr: NotNegative
    warming_up: bool


class Header(TypedDict):
    """Holds what a checkpoint contains besides arrays."""

    run: dict[str, Any]         # the choices, as in config.json
    at: At
    metrics: list[Any]          # checked by metrics.py
    generators: dict[str, Any]  # states of NumPy generators, checked by NumPy
    seconds: float
    takes: dict[str, float]     # _Pace.takes


class Trained(NamedTuple):
    """Holds the trained network of a finished run, and the test data as the network sees them, on one device."""

    config: RunConfig
    model: nn.Module                # with the final weights, in eval mode
    fresh: Callable[[], nn.Module]  # returns the same network with its initial weights
    images: Any                     # float32 (N, C, H, W), of the test set or of the held-out images used instead
    labels: Any                     # (N,)
    classes: Sequence[str]


def read(folder: Path, root: Path | None = None, where: str = "", download: bool = False) -> Trained:
    """Return the network of a finished run, and its test images.

    root: the data set's folder; None: the folder that the run used
    where: "auto", "cpu" or "gpu"; "": the device of the run, which may have been trained on another machine
    download: whether to download files of the data set that are missing

    Raises FileNotFoundError if `folder` is not the folder of a run, if the run is not finished, or if the data set is
    not found.
    Raises ValueError if the pixels are not the ones that the run was trained on.
    Raises RuntimeError if the device is not available.
    """
    config = read_config(folder)
    config = dataclasses.replace(config, device=device.use(where or config.device))
    weights = folder / "weights.safetensors"
    if not weights.exists():
        raise FileNotFoundError(f"{folder}: the run is not finished, so there is no weights.safetensors in it; "
                                f"minires train --resume --out {folder} resumes it")
    sets = inputs(config, folder, root, download)
    (images, labels), classes = sets.test, sets.classes
    fresh = functools.partial(_built, config, folder, sets)
    with init.undrawn():  # config.json may ask for more weights than the file has: then nothing was drawn
        model = fresh().eval()
    load_weights(model, weights)
    return Trained(config, model, fresh, images, labels, classes)


def inputs(config: RunConfig, folder: Path, root: Path | None = None, download: bool = False) -> Prepared:
    """Return the images of the run in `folder`.

    root: the data set's folder; None: the folder that the run used
    download: whether to download files that are missing

    Raises ValueError if the images are not the ones that the run was trained on.
    """
    recorded = config.recorded
    root = root or (Path(recorded.root) if recorded.root else None)
    with _naming(folder):
        sets = config.inputs(root, download)
    if sets.sha256 != (recorded.data_sha256 or sets.sha256):
        raise ValueError(f"{folder / 'config.json'}: expected the {config.dataset} that the run was trained on, with "
                         f"data_sha256 {recorded.data_sha256[:12]}..., got other pixels or labels "
                         f"({sets.sha256[:12]}...)")
    return sets


def load_after_epoch(folder: Path, model: nn.Module, epoch: int) -> bool:
    """Load into `model` the weights that the run in `folder` had after `epoch`, its last complete epoch.

    Return whether these weights still exist.
    """
    if (folder / "weights.safetensors").exists():  # the run is finished
        load_weights(model, folder / "weights.safetensors")
        return True
    for arrays, raw in checkpoint.undamaged(folder):
        header: Header = records.checked(raw, Header, f"{folder}, a checkpoint")
        if header["at"]["epoch"] == epoch > 0 and header["at"]["batch"] == 0:
            model.load_state(state_of(arrays))
            return True
    return False


def arrays_of(model: nn.Module) -> checkpoint.Arrays:
    """Return the arrays of a model as a checkpoint holds them, on the CPU. `state_of` reads them."""
    return {f"model.{name}": device.to(t.data, "cpu") for name, t in model.state().items()}


def not_finite(arrays: checkpoint.Arrays) -> str:
    """Return the name of the first array with a number that is not finite, as the model knows it, or ""."""
    return next((name.removeprefix("model.") for name, a in arrays.items() if not np.isfinite(a).all()), "")


def state_of(arrays: checkpoint.Arrays) -> dict[str, np.ndarray]:
    """Return the arrays of a checkpoint that belong to the model."""
    return {name.removeprefix("model."): a for name, a in arrays.items() if name.startswith("model.")}


def _built(config: RunConfig, folder: Path, sets: Prepared) -> nn.Module:
    with _naming(folder):
        return config.build(sets.train[0].shape[1], len(sets.classes))


@contextlib.contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Prefix a ValueError inside this context with the path of config.json, if the file exists: a user may edit it."""
    try:
        yield
    except ValueError as e:
        path = folder / "config.json"
        if not path.exists():
            raise
        raise ValueError(f"{path}: {e}") from e


@contextlib.contextmanager
def _folder(out: Path, chosen: RunConfig | None, resume: bool) -> Iterator[RunConfig | None]:
    """Lock the run's folder, and yield the config in it, or None for a new run. All checks precede the first write."""
    begun = has_begun(out, resume, "run")
    if resume and chosen is None and not begun:
        raise FileNotFoundError(f"{out}: found no run to resume; give MODEL and --dataset to begin one")
    there = read_config(out) if begun else None
    if there and chosen and (found := there.differences(chosen)):
        raise ValueError(f"{out} holds a run with other settings: {'; '.join(found)}. Use the settings of that run, or "
                         "choose another --out")
    with locked_folder(out):
        yield there


def has_begun(out: Path, resume: bool, what: str) -> bool:
    """Return whether the folder has files in it.

    Raises NotADirectoryError for a file.
    Raises FileExistsError for a folder that is not empty, unless `resume` says that what is in it may be resumed.
    """
    begun = out.is_dir() and any(not p.name.startswith(".") for p in out.iterdir())
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"{out} is a file, and a {what} needs a folder: choose another --out")
    if begun and not resume:
        raise FileExistsError(f"{out} is not empty: give --resume to resume the {what} in it, or another --out for a "
                              f"new {what}")
    return begun


@contextlib.contextmanager
def locked_folder(out: Path) -> Iterator[None]:
    """Make and lock a folder. If it is still empty when this context fails, delete it and the parents made for it."""
    new = [path for path in (out, *out.parents) if not path.exists()]
    out.mkdir(parents=True, exist_ok=True)
    lock = out / ".lock"
    is_new = not lock.exists()
    try:
        with locked(lock):
            new[:0] = [lock] * is_new  # not before: if the lock is another process's, it must stay
            for left in out.glob(".*.tmp"):  # a process that was killed during a write leaves such a file
                if TEMPORARY.fullmatch(left.name) and left.is_file():
                    left.unlink()
            yield
    except BaseException:
        for path in new:
            with contextlib.suppress(OSError):  # rmdir fails, and the folder stays, once there is a run in it
                path.rmdir() if path.is_dir() else path.unlink()
        raise


# ------------------------------------------------------------------------------------------------------- the run


NEEDED = "safetensors", "matplotlib"  # packages for the checkpoints and the curves, which are loaded when used
MARGIN = 1.5  # seconds reserved for what a process does before and after the run: starting, drawing the curves


@dataclass
class Outcome:
    """Says how a call ended: the run is finished, or it was stopped after a checkpoint was written."""

    step: int
    steps: int
    stopped: str = ""  # what stopped the run: "the time limit", "Ctrl-C", "SIGTERM" or "SIGHUP"; "": finished

    @property
    def finished(self) -> bool:
        return not self.stopped


def train(chosen: RunConfig | None, out: Path, *, resume: bool = False, root: Path | None = None,
          time_limit: float = math.inf, every_seconds: float = 600, every_steps: int = 0,
          command: str = "", say: Callable[[str], None] | None = None,
          watch: Callable[[Passed], None] | None = None, download: bool = False) -> Outcome:
    """Begin the run `chosen` in the folder `out`, or with `resume` resume the run in that folder. Return how it ended.

    chosen: the config of the run (see `configure`); with `resume` it may be None, and config.json decides
    root: the data set's folder
    time_limit: stop the run before this many seconds have passed
    every_seconds, every_steps: how often to write a checkpoint, besides after every epoch; every_steps=0: not by steps
    say: is called with a line of text at the start and after every epoch; None: print the line
    watch: is called before the first step and after every step; None: draw a bar in a terminal or in Jupyter
    download: whether to download files of the data set that are missing

    The time limit, Ctrl-C, SIGTERM and SIGHUP stop the run after a checkpoint. On one CPU, with the same number of
    threads, the weights and the metrics of a finished run (except for the seconds) have the same bits, no matter how
    often the run was stopped or killed. What these bits depend on is in config.json, and a line says what differs.

    Raises NotFinite if the loss is not finite; the last good checkpoint is kept.
    Raises ModuleNotFoundError if a package that the run needs later is not installed.
    If a new run fails before its first step ends, nothing stays in `out`.
    """
    for package in NEEDED:
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"a run needs {package}, which is not installed: pip install {package}",
                                      name=package)
    pace = _Pace(time_limit, every_seconds, every_steps)
    with _folder(out, chosen, resume) as there, stop_signals() as stop:
        config = there or chosen
        assert config is not None  # _folder raises if there is neither
        run = _Run(config, out, root, pace, new=there is None, command=command, download=download)
        try:
            with progress.Bar(out.name) as bar:
                return run.go(stop, say or progress.say, watch or bar)
        except Exception:
            if there is None and run.at.step == 0:  # nothing has been trained, so nothing is kept
                (out / "config.json").unlink(missing_ok=True)
            raise


class _Pace:
    """Measures how long things take, and decides when a checkpoint is due and whether the time limit is near."""

    def __init__(self, limit: float, every_seconds: float, every_steps: int):
        self.limit, self.every_seconds, self.every_steps = limit, every_seconds, every_steps
        self.began = self.saved = time.monotonic()
        self.earlier = 0.0  # seconds of the run in earlier calls
        self.takes = {"step": 0.0, "errors": 0.0, "checkpoint": 0.5}  # seconds, the longest recent time
        self.errors_in_steps = 0.0  # estimate of the time for "errors", in steps, until it is measured

    def spent(self) -> float:
        """Return the seconds since the start of this call."""
        return time.monotonic() - self.began

    @contextlib.contextmanager
    def measured(self, what: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.takes[what] = max(time.monotonic() - start, 0.9 * self.takes[what])

    def too_late(self, what: str) -> bool:
        """Return whether one more "step" or "errors" and then a checkpoint would exceed the time limit."""
        needed = self.takes[what] or self.errors_in_steps * self.takes["step"]
        return self.spent() + 1.2 * needed + self.takes["checkpoint"] + MARGIN > self.limit

    def checkpoint_due(self, step: int) -> bool:
        return (time.monotonic() - self.saved >= self.every_seconds
                or (self.every_steps > 0 and step % self.every_steps == 0))


class _Run:
    """Does the work of one call on a run, and holds the model, its progress and its metrics."""

    def __init__(self, config: RunConfig, out: Path, root: Path | None, pace: _Pace, new: bool, command: str,
                 download: bool = False):
        self.out, self.pace, self.notes = out, pace, list[str]()
        device.use(config.device)  # raises if the device is missing: the run may have begun on another machine
        sets = inputs(config, out, root, download)
        self.train, self.test = sets.train, sets.test
        self.model = _built(config, out, sets)
        self.images = len(self.train[0])
        with _naming(out):
            self.model.macs(self.train[0].shape[1:])  # raises if the images are too small, before any file is written
        if new and config.recipe.crop > (least := min(self.train[0].shape[2:])):
            raise ValueError(f"setting crop: expected at most {least}, the images' height or width, got "
                             f"{config.recipe.crop}: most windows would hold only the zeros of the padding")
        # A forward pass takes a third of a step's time; one half leaves a margin.
        pace.errors_in_steps = (self.images + len(self.test[0])) / config.recipe.batch_size / 2
        now = Recorded(
            data_sha256=sets.sha256, steps=config.recipe.total_steps(self.images), threads=parallel.threads(),
            kernels=kernels.choice(self.train[0]), versions=info.versions(), machine=info.machine(),
            commit=info.commit(), parameters=self.model.count_parameters(), train_images=self.images,
            test_images=len(self.test[0]), root=str(root.resolve()) if root else None, command=command,
            started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
        if new:
            config = dataclasses.replace(config, recorded=now)
            write_atomically(out / "config.json", records.text(config.to_json()) + "\n")
        elif config.recorded.steps != now.steps:
            raise ValueError(f"{out / 'config.json'}: steps: expected {now.steps}, which the other settings give, got "
                             f"{config.recorded.steps}")
        elif other := config.recorded.differences(now, ("threads", "kernels", "versions", "machine", "commit")):
            self.notes.append("the environment has changed since the run began, so the bits may differ: "
                              f"{'; '.join(other)}")
        self.config, self.steps, self.at, self.metrics = config, now.steps, Progress(), list[Line]()
        self.notes.append(f"{printed(config.model)}, {now.parameters:,} parameters, {self.images:,} images, "
                          f"{now.steps:,} steps on the {config.device}; errors are measured after each epoch")
        if not new:
            self._load()

    def _load(self) -> None:
        found, damaged = checkpoint.newest(self.out)
        self.notes += [f"skipped a damaged checkpoint: {text}" for text in damaged]
        if found is None:
            if damaged:
                raise ValueError(f"{self.out}: no checkpoint can be read: {'; '.join(damaged)}. Begin the run again in "
                                 "another folder")
            self.notes.append("found no checkpoint: beginning at step 0")
            return
        arrays, where = found[0], f"{self.out}, its newest checkpoint"
        header: Header = records.checked(found[1], Header, where)
        if wrong := RunConfig.from_json(header["run"], where).differences(self.config):
            raise ValueError(f"{self.out / 'config.json'}: the checkpoint belongs to another run: {'; '.join(wrong)}")
        self.model.load_state(state_of(arrays))
        for name, generator in self._generators():
            try:
                generator.bit_generator.state = header["generators"][name]
            except (KeyError, TypeError, ValueError, OverflowError) as e:
                raise ValueError(f"{where}: generators.{name}: expected the state of a NumPy generator: {e}") from e
        self.at = at = Progress(**header["at"], **{name: arrays.get(name) for name in KEPT})
        self.metrics = metrics.checked(header["metrics"], f"{where}, metrics", self.config.tested)
        a_pass = self.config.recipe.steps_per_epoch(self.images)
        steps = at.epoch * a_pass + at.batch if at.batch else min(at.epoch * a_pass, self.steps)
        if at.batch > a_pass or at.step != steps or at.step > self.steps or len(self.metrics) != at.epoch:
            raise ValueError(f"{where}: at: expected a point that this run can reach, got {header['at']}")
        self.pace.earlier, self.pace.takes = header["seconds"], self.pace.takes | header["takes"]
        metrics.write(self.out, self.metrics)  # a kill between the checkpoint and this file leaves an old file
        self.notes.append(f"resuming from step {self.at.step} of {self.steps}")

    def save(self) -> None:
        """Write a checkpoint and then metrics.jsonl, or raise NotFinite, before any write, for non-finite weights."""
        arrays = arrays_of(self.model)
        if bad := not_finite(arrays):
            raise NotFinite(f"step {self.at.step}: {bad} is not finite after this step. {self._kept()}")
        arrays |= {name: device.to(kept, "cpu") for name in KEPT if (kept := getattr(self.at, name)) is not None}
        at = {f.name: getattr(self.at, f.name) for f in dataclasses.fields(self.at) if f.name not in KEPT}
        header = {"run": self.config.chosen(), "at": at, "metrics": self.metrics,
                  "generators": {name: generator.bit_generator.state for name, generator in self._generators()},
                  "seconds": self.pace.earlier + self.pace.spent(), "takes": self.pace.takes}
        with self._writing(f"the checkpoint of step {self.at.step}"), self.pace.measured("checkpoint"):
            checkpoint.save(self.out, self.at.step, arrays, header)
            metrics.write(self.out, self.metrics)
        self.pace.saved = time.monotonic()

    @contextlib.contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """Say in an OSError inside this context what could not be written, and what the user can do."""
        try:
            yield
        except OSError as e:
            if (self.out / "config.json").exists():
                advice = f"{self._kept()}. Free disk space, then resume with --resume"
            else:
                advice = (f"{self.out} was deleted or moved while the run trained. Without its checkpoints the run "
                          "cannot be resumed; if the folder was moved, give its new path to --resume --out")
            raise OSError(f"{what} could not be written: {e}. {advice}") from e

    def _generators(self) -> Iterator[tuple[str, np.random.Generator]]:
        """Yield the name and the generator of every layer that draws random numbers in training, such as Dropout."""
        for name, m in self.model.modules():
            yield from ((f"{name}.{key}", v) for key, v in vars(m).items() if isinstance(v, np.random.Generator))

    def go(self, stop: list[str], say: Callable[[str], None], watch: Callable[[Passed], None]) -> Outcome:
        """Train to the end, to the time limit, or until `stop` holds a reason."""
        at, pace, steps, before = self.at, self.pace, self.steps, (self.at.step, self.at.epoch)
        for note in self.notes:
            say(f"{self.out}: {note}")
        watch(self._passed(""))
        events: Any = fit(self.model, self.train, self.test, self.config.recipe, rng=self.config.seed, at=at,
                          graph=self.config.graph)
        with contextlib.closing(events):
            while at.step < steps or at.batch:  # the condition of fit
                pass_done = at.step == steps or at.batch == self.config.recipe.steps_per_epoch(self.images)
                what = "errors" if pass_done else "step"
                late = pace.too_late(what)
                if late and not stop and (at.step, at.epoch) == before:
                    raise ValueError(f"--time-limit {pace.limit:g} is too short to make progress: the start took "
                                     f"{pace.spent():.1f} s, which leaves too little time for what comes next, the "
                                     f"{what}")
                if stop or late:
                    self.save()
                    return Outcome(at.step, steps, stop[0] if stop else "the time limit")
                with pace.measured(what):
                    event = self._next(events)
                if isinstance(event, Step):
                    watch(self._passed(f"step {at.step}, loss {event.loss:.3f}{self._errors()}, lr {at.lr:.4g}"))
                else:
                    self.metrics.append(self._line(event))
                    say(f"{self.out.name}: epoch {at.epoch}, step {at.step} of {steps}, loss {event.train_loss:.3f}"
                        f"{self._errors()}, lr {at.lr:.4g}, {self.metrics[-1]['seconds']:.0f} s")
                if isinstance(event, Epoch) or pace.checkpoint_due(at.step):
                    self.save()
        self._finish()
        return Outcome(at.step, steps)

    def _passed(self, text: str) -> Passed:
        return Passed(self._images_at(self.at.step), self._images_at(self.steps), text)

    def _next(self, events: Iterator[Step | Epoch]) -> Step | Epoch:
        try:
            return next(events)
        except NotFinite as e:
            raise NotFinite(f"{e}. {self._kept()}") from e

    def _kept(self) -> str:
        found = None
        with contextlib.suppress(OSError):  # the folder may be gone
            found, _ = checkpoint.newest(self.out)
        return (f"The checkpoint of step {found[1]['at']['step']} is kept in {self.out}" if found
                else "No checkpoint had been written yet")

    def _images_at(self, step: int) -> int:
        """Return the number of images trained on in the first `step` steps."""
        recipe = self.config.recipe
        epochs, batches = divmod(step, recipe.steps_per_epoch(self.images))
        each = recipe.images_per_epoch(self.images)
        return epochs * each + min(batches * recipe.batch_size, each)

    def _line(self, epoch: Epoch) -> Line:
        line: Line = {"epoch": epoch.epoch, "step": self.at.step, "lr": float(f"{self.at.lr:.6g}"),
                      "train_loss": epoch.train_loss, "train_error": epoch.train_error,
                      self.config.tested: epoch.test_error,  # type: ignore[misc]
                      "seconds": round(self.pace.earlier + self.pace.spent(), 3)}
        return line

    def _errors(self) -> str:
        if not self.metrics:
            return ""
        line, tested = self.metrics[-1], self.config.tested
        return (f", training error {line['train_error']:.2f} %, {tested.replace('_', ' ')} "
                f"{line[tested]:.2f} %")

    def _finish(self) -> None:
        from .. import plot  # imported here because it loads matplotlib, which training does not need

        with self._writing("the files of the finished run"):
            save_weights(self.model, self.out / "weights.safetensors")
            curves = plot.training_curves({printed(self.config.model): [self.metrics]})
            write_atomically(self.out / "curves.png", plot.png(curves))


STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class _Note:
    """Handles signals: notes them, and raises KeyboardInterrupt at a Ctrl-C that is not the first signal.

    SIGTERM and SIGHUP often arrive twice: `timeout` and batch systems signal a process and also its group. Only a
    person who presses Ctrl-C again wants to stop at once.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, number: int, frame: object) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt(self.asked[0])
        self.asked.append("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)


@contextlib.contextmanager
def stop_signals() -> Iterator[list[str]]:
    """Note Ctrl-C, SIGTERM and SIGHUP in the yielded list, without interrupting a step.

    A Ctrl-C after another signal interrupts the step.
    A signal that was ignored before stays ignored, as in other programs that stop in an orderly way. A `stop_signals`
    inside another one yields the same list, so that a signal at the very end of one run stops the next run.
    """
    outer = signal.getsignal(signal.SIGTERM)
    if isinstance(outer, _Note) or threading.current_thread() is not threading.main_thread():
        yield outer.asked if isinstance(outer, _Note) else []  # signals can be caught only in the main thread
        return
    note = _Note()
    before = {number: signal.signal(number, note) for number in STOPPING
              if signal.getsignal(number) is not signal.SIG_IGN}
    try:
        yield note.asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
