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
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np

from .. import device, info, kernels, nn
from ..datasets import Prepared
from ..files import records
from ..files.atomic import locked, write_atomically
from ..kernels import parallel
from ..names import printed
from ..train import Epoch, NotFinite, Progress, Step, fit
from ..weights import load_weights, save_weights
from . import checkpoint, metrics, progress
from .config import Count, Recorded, RunConfig
from .metrics import Line, NotNegative
from .progress import Passed

# ----------------------------------------------------------------------------------------------------- the folder


def read_config(folder: Path) -> RunConfig:
    """config.json of a run's folder. FileNotFoundError where there is none, ValueError where it is none of ours."""
    path = folder / "config.json"
    try:
        raw = records.read(path)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{folder} is no run's folder: there is no config.json in it") from None
    config = RunConfig.from_json(raw, path)
    if not config.recorded.steps:
        raise ValueError(f"{path}: steps: expected a whole number >= 1, got {raw.get('steps', 'nothing')}")
    return config


class At(TypedDict):
    """`train.Progress`, without the velocity, which is an array."""

    step: Count
    epoch: Count
    batch: Count
    loss_sum: float
    lr: NotNegative
    warming_up: bool


class Header(TypedDict):
    """What a checkpoint holds besides arrays."""

    run: dict[str, Any]         # what was chosen, as in config.json
    at: At
    metrics: list[Any]          # checked by metrics.py
    generators: dict[str, Any]  # NumPy's own, checked there
    seconds: float
    takes: dict[str, float]     # _Pace.takes


class Trained(NamedTuple):
    """What a finished run made, and the data as its network took them, on one device."""

    config: RunConfig
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
    config = dataclasses.replace(config, device=device.use(where or config.device))
    weights = folder / "weights.safetensors"
    if not weights.exists():
        raise FileNotFoundError(f"{folder}: the run is not finished, there is no weights.safetensors in it; "
                                f"minires train --resume --out {folder} goes on with it")
    sets = inputs(config, folder, root)
    (images, labels), classes = sets.test, sets.classes
    fresh = functools.partial(_built, config, folder, sets)
    model = fresh().eval()
    load_weights(model, weights)
    return Trained(config, model, fresh, images, labels, classes)


def inputs(config: RunConfig, folder: Path, root: Path | None = None) -> Prepared:
    """The images that the run in `folder` sees. `root`: the data set's folder, if not the run's own.

    ValueError where they are not the ones that it was trained on.
    """
    recorded = config.recorded
    root = root or (Path(recorded.root) if recorded.root else None)
    with _naming(folder):
        sets = config.inputs(root)
    if sets.sha256 != (recorded.data_sha256 or sets.sha256):
        raise ValueError(f"{folder / 'config.json'}: expected the {config.dataset} that the run was trained on, with "
                         f"data_sha256 {recorded.data_sha256[:12]}..., got other pixels or labels "
                         f"({sets.sha256[:12]}...)")
    return sets


def load_after_epoch(folder: Path, model: nn.Module, epoch: int) -> bool:
    """Load into `model` the weights of the run in `folder` as they were after `epoch`, its last one so far, if they are
    still there."""
    if (folder / "weights.safetensors").exists():  # it is finished
        load_weights(model, folder / "weights.safetensors")
        return True
    for arrays, raw in checkpoint.undamaged(folder):
        header: Header = records.checked(raw, Header, f"{folder}, a checkpoint")
        if header["at"]["epoch"] == epoch > 0 and header["at"]["batch"] == 0:
            model.load_state(_state(arrays))
            return True
    return False


def _state(arrays: checkpoint.Arrays) -> dict[str, np.ndarray]:
    """The model's arrays of a checkpoint."""
    return {name.removeprefix("model."): a for name, a in arrays.items() if name.startswith("model.")}


def _built(config: RunConfig, folder: Path, sets: Prepared) -> nn.Module:
    with _naming(folder):
        return config.build(sets.train[0].shape[1], len(sets.classes))


@contextlib.contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Inside, a ValueError begins with the name of the folder's config.json, if there is one: somebody wrote it."""
    try:
        yield
    except ValueError as e:
        path = folder / "config.json"
        if not path.exists():
            raise
        raise ValueError(f"{path}: {e}") from e


@contextlib.contextmanager
def _folder(out: Path, chosen: RunConfig | None, resume: bool) -> Iterator[RunConfig | None]:
    """Hold the run's folder. Gives the config that is in it, or None for a new run; all that can be wrong is said
    before anything is written."""
    inside = [p for p in out.iterdir() if not p.name.startswith(".")] if out.is_dir() else []
    if not resume and (inside or out.is_file()):
        raise FileExistsError(f"{out} is not empty: --resume goes on with the run in it, another --out begins one")
    if resume and chosen is None and not inside:
        raise FileNotFoundError(f"{out}: there is no run to go on with; give MODEL and --dataset to begin one")
    there = read_config(out) if inside else None
    if there and chosen and (found := there.differences(chosen)):
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


def train(chosen: RunConfig | None, out: Path, *, resume: bool = False, root: Path | None = None,
          time_limit: float = math.inf, every_seconds: float = 600, every_steps: int = 0,
          command: str = "", say: Callable[[str], None] | None = None,
          watch: Callable[[Passed], None] | None = None) -> Outcome:
    """Begin the run `chosen` (`configure`) in the folder `out`, or with `resume` go on with the one in it.

    With resume, `chosen` may be None: all is as config.json says. A checkpoint is written after every epoch, every
    `every_seconds`, every `every_steps` (0: not), and when stopping: `time_limit` seconds from now at the latest, at
    Ctrl-C or SIGTERM. `root`: the data set's folder. On the CPU with the same number of threads the finished run's
    weights and metrics (but for their seconds) have the same bits however often it was stopped or killed.
    `say` is called with a line of text at the beginning and after every epoch, `watch` before the first step and after
    every step; without them lines are printed, and a bar is drawn where a person looks.
    NotFinite, with the last good checkpoint kept, where the loss is not finite.
    """
    pace = _Pace(time_limit, every_seconds, every_steps)
    with _folder(out, chosen, resume) as there, stop_signals() as stop:
        config = there or chosen
        assert config is not None  # _folder refuses
        run = _Run(config, out, root, pace, new=there is None, command=command)
        with progress.Bar(out.name) as bar:
            return run.go(stop, say or progress.say, watch or bar)


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

    def __init__(self, config: RunConfig, out: Path, root: Path | None, pace: _Pace, new: bool, command: str):
        self.out, self.pace, self.notes = out, pace, list[str]()
        device.use(config.device)  # the run may have begun on another machine
        sets = inputs(config, out, root)
        self.train, self.test = sets.train, sets.test
        self.model = _built(config, out, sets)
        self.images = len(self.train[0])
        with _naming(out):
            self.model.macs(self.train[0].shape[1:])  # ValueError for images too small, before a file is written
        # A forward pass is a third of a step's work; a half, to be sure.
        pace.errors_in_steps = (self.images + len(self.test[0])) / config.recipe.batch_size / 2
        now = Recorded(
            data_sha256=sets.sha256, steps=config.recipe.total_steps(self.images), threads=parallel.threads(),
            kernels=kernels.choice(), versions=info.versions(), commit=info.commit(),
            parameters=self.model.count_parameters(), train_images=self.images, test_images=len(self.test[0]),
            root=str(root.resolve()) if root else None, command=command,
            started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
        if new:
            config = dataclasses.replace(config, recorded=now)
            write_atomically(out / "config.json", records.text(config.to_json()) + "\n")
        elif config.recorded.steps != now.steps:
            raise ValueError(f"{out / 'config.json'}: steps: expected {now.steps}, as the other settings say, got "
                             f"{config.recorded.steps}")
        elif other := config.recorded.differences(now, ("threads", "kernels", "versions", "commit")):
            self.notes.append(f"not as it began, the bits may differ: {'; '.join(other)}")
        self.config, self.steps, self.at, self.metrics = config, now.steps, Progress(), list[Line]()
        self.notes.append(f"{printed(config.model)}, {now.parameters:,} parameters, {self.images:,} images, "
                          f"{now.steps:,} steps on the {config.device}; errors follow after each pass")
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
        arrays, where = found[0], f"{self.out}, its newest checkpoint"
        header: Header = records.checked(found[1], Header, where)
        if wrong := RunConfig.from_json(header["run"], where).differences(self.config):
            raise ValueError(f"{self.out / 'config.json'}: the checkpoint is of another run: {'; '.join(wrong)}")
        self.model.load_state(_state(arrays))
        for name, generator in self._generators():
            try:
                generator.bit_generator.state = header["generators"][name]
            except (KeyError, TypeError, ValueError) as e:
                raise ValueError(f"{where}: generators.{name}: expected the state of a NumPy generator: {e}") from e
        self.at = at = Progress(**header["at"], velocity=arrays.get("velocity"))
        self.metrics = metrics.checked(header["metrics"], f"{where}, metrics", self.config.tested)
        a_pass = -(-self.images // self.config.recipe.batch_size)
        steps = at.epoch * a_pass + at.batch if at.batch else min(at.epoch * a_pass, self.steps)
        if at.batch > a_pass or at.step != steps or at.step > self.steps or len(self.metrics) != at.epoch:
            raise ValueError(f"{where}: at: expected a moment of this run, got {header['at']}")
        self.pace.earlier, self.pace.takes = header["seconds"], self.pace.takes | header["takes"]
        metrics.write(self.out, self.metrics)  # a kill may have come between the checkpoint and this
        self.notes.append(f"going on from step {self.at.step} of {self.steps}")

    def save(self) -> None:
        """A checkpoint, then metrics.jsonl. NotFinite, and nothing written, where the weights are not finite."""
        arrays = {f"model.{name}": device.to(t.data, "cpu") for name, t in self.model.state().items()}
        if bad := [name for name, a in arrays.items() if not np.isfinite(a).all()]:
            raise NotFinite(f"step {self.at.step}: after it {bad[0].removeprefix('model.')} is not finite. "
                            f"{self._kept()}")
        if self.at.velocity is not None:
            arrays["velocity"] = device.to(self.at.velocity, "cpu")
        at = {f.name: getattr(self.at, f.name) for f in dataclasses.fields(self.at) if f.name != "velocity"}
        header = {"run": self.config.chosen(), "at": at, "metrics": self.metrics,
                  "generators": {name: generator.bit_generator.state for name, generator in self._generators()},
                  "seconds": self.pace.earlier + self.pace.spent(), "takes": self.pace.takes}
        try:
            with self.pace.measured("checkpoint"):
                checkpoint.save(self.out, self.at.step, arrays, header)
                metrics.write(self.out, self.metrics)
        except OSError as e:
            raise OSError(f"the checkpoint of step {self.at.step} could not be written: {e}. {self._kept()}. Make room "
                          "and go on with --resume") from e
        self.pace.saved = time.monotonic()

    def _generators(self) -> Iterator[tuple[str, np.random.Generator]]:
        """What layers draw from in training: Dropout's masks."""
        for name, m in self.model.modules():
            yield from ((f"{name}.{key}", v) for key, v in vars(m).items() if isinstance(v, np.random.Generator))

    def go(self, stop: list[str], say: Callable[[str], None], watch: Callable[[Passed], None]) -> Outcome:
        """To the end, to the time limit, or until `stop` holds a reason."""
        at, pace, steps, before = self.at, self.pace, self.steps, (self.at.step, self.at.epoch)
        for note in self.notes:
            say(f"{self.out}: {note}")
        watch(self._passed(""))
        events: Any = fit(self.model, self.train, self.test, self.config.recipe, rng=self.config.seed, at=at,
                          graph=self.config.graph)
        with contextlib.closing(events):
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
        found, _ = checkpoint.newest(self.out)
        return (f"The checkpoint of step {found[1]['at']['step']} is kept in {self.out}" if found
                else "No checkpoint had been written yet")

    def _images_at(self, step: int) -> int:
        """How many images have passed when `step` steps are done."""
        size = self.config.recipe.batch_size
        epochs, batches = divmod(step, math.ceil(self.images / size))
        return epochs * self.images + min(batches * size, self.images)

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
        from .. import plot  # loads matplotlib, which training does not need

        save_weights(self.model, self.out / "weights.safetensors")
        curves = plot.training_curves({printed(self.config.model): [self.metrics]})
        write_atomically(self.out / "curves.png", plot.png(curves))


class _Note:
    """A handler of signals that notes the first one, and breaks off at the second."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, number: int, frame: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked.append("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)


@contextlib.contextmanager
def stop_signals() -> Iterator[list[str]]:
    """Inside, Ctrl-C and SIGTERM are noted in the list instead of breaking a step in two; a second one breaks it.

    A signal that is ignored outside stays ignored, as in other programs that stop in an orderly way. Within another
    `stop_signals` it is the same list: what comes at the very end of one run stops the next one.
    """
    outer = signal.getsignal(signal.SIGTERM)
    if isinstance(outer, _Note) or threading.current_thread() is not threading.main_thread():
        yield outer.asked if isinstance(outer, _Note) else []  # only in the main thread can signals be caught
        return
    note = _Note()
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)
              if signal.getsignal(number) is not signal.SIG_IGN}
    try:
        yield note.asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
