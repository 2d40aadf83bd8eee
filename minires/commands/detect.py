"""Carry out `minires detect`: train a network of the package `detection` in a folder, measure it, and draw its answers.

    config.json                       all choices, and what was recorded at the start; written first, never changed
    metrics.jsonl                     20 lines over the run: the mean loss since the line before
    checkpoint-*.safetensors          the last two checkpoints, which also hold these lines
    weights.safetensors, results.json written at the end: the network, and what it reaches on held-back scenes

A training can be stopped at any moment and resumed, and then gives the same bits, as one of `minires train` does.
"""
from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypedDict

import numpy as np

from .. import datasets, detection, device, info, init, kernels
from ..datasets import Scenes
from ..detection import Detections, Recipe
from ..detection.training import TEST_PATCHES
from ..files import records
from ..files.atomic import check_can_hold_files, write_atomically
from ..files.records import Between
from ..files.shipped import shipped_file
from ..kernels import parallel
from ..models import canonical
from ..names import UsageError, counted, key, printed, unknown
from ..runs import checkpoint, metrics, progress
from ..runs.progress import Passed
from ..runs.run import Outcome, arrays_of, has_begun, locked_folder, not_finite, state_of, stop_signals
from ..train import NotFinite, Progress
from ..weights import load_weights, read_weights, save_weights

FORMAT = 1              # of config.json
LINES = 20              # of metrics.jsonl in a whole run
HELD_BACK = 300         # test scenes on which a finished network is measured, with seed 0
MOST_PIXELS = 64 << 20  # of the user's own scenes
LARGEST = 4 << 20       # pixels of one of them; a network needs about 500 bytes for each
AT_ONCE = 50 * 56 * 56  # pixels of the images that a network sees together
MOST_SHOWN = 60         # scenes in one picture
RANGE = "AP, AR and IoU are from 0 to 1; higher is better"
PERCENT = "{:.1f} %"
MEASURES = {  # {a number of detection.score: how it is printed}
    "ap": ("AP, mean over IoU 0.50 to 0.95", "{:.3f}"), "ap50": ("AP at IoU 0.50", "{:.3f}"),
    "ap75": ("AP at IoU 0.75", "{:.3f}"), "ap_small": ("AP of small objects", "{:.3f}"),
    "ap_medium": ("AP of medium objects", "{:.3f}"), "ap_large": ("AP of large objects", "{:.3f}"),
    "localisation_scenes": ("scenes with one object", "{:.0f}"),
    "localisation_class_predicted": ("localisation error, class predicted", PERCENT),
    "localisation_class_given": ("localisation error, class given", PERCENT),
    "localisation_box_alone": ("localisation error, box alone", PERCENT),
    "mean_iou": ("mean IoU of the classes and the ground", "{:.3f}"), "article_iou": ("IoU of all articles", "{:.3f}"),
    "error": ("error", "{:.2f} %")}
Count = Annotated[int, Between(0)]
NotNegative = Annotated[float, Between(0)]

DETECTORS = "resnet20", "resnet56"  # those that ship, in weights/detection: a name is enough for them

# Where a training begins if no file is given: the network trained on 14x14 images, and the one trained on patches.
BEGIN = {"classification": "weights/fashion-mnist", "detection": "weights/patches", "segmentation": "weights/patches"}


@dataclass(frozen=True)
class Settings:
    """Holds the choices for a training, which determine its results, and separately what was recorded at its start.

    Raises ValueError for an unknown task, network or device.
    """

    task: str
    backbone: str
    recipe: Recipe
    seed: Count = 0
    width: Annotated[int, Between(1)] = 8
    device: str = "cpu"
    weights: str = ""         # the file's name, or "none" for random weights
    weights_sha256: str = ""  # of the file; "": random weights
    recorded: dict[str, Any] = field(default_factory=dict)  # versions, machine, commit, threads, start: not a choice
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.task not in detection.RECIPES:
            raise unknown("task", self.task, detection.RECIPES)
        if canonical(self.backbone) != self.backbone:
            raise ValueError(f"backbone: expected {canonical(self.backbone)!r}, got {self.backbone!r}")
        if self.device not in ("cpu", "gpu"):
            raise unknown("device", self.device, ("cpu", "gpu"))
        if self.format > FORMAT:
            raise ValueError(f"format: expected at most {FORMAT}, got {self.format}: a later version of minires wrote "
                             "the file; use that version to read it")

    def choices(self) -> dict[str, Any]:
        """Return the choices, without what was recorded."""
        return {key: value for key, value in dataclasses.asdict(self).items() if key not in ("recorded", "format")}

    def build(self, weights: Path | None) -> Any:
        """Return the network with the weights of its first step."""
        rng = np.random.default_rng(self.seed)
        net = detection.build(self.task, self.backbone, weights=weights, width=self.width, rng=rng)
        return net.to(self.device)


class Line(TypedDict):
    """Holds a line of metrics.jsonl."""

    step: Count
    images: Count         # scenes or patches so far
    loss: NotNegative     # mean over the steps since the line before
    lr: NotNegative       # of the last step
    seconds: NotNegative  # of the training so far, summed over its calls


class Header(TypedDict):
    """Holds what a checkpoint contains besides arrays."""

    choices: dict[str, Any]
    step: Count
    lr: NotNegative
    losses: list[float]   # of the steps since the last line
    lines: list[Line]
    seconds: NotNegative


def choose(task: str, backbone: str, *, weights: str = "", seed: int = 0, width: int = 8, where: str = "auto",
           images: int = 0) -> tuple[Settings, Path | None]:
    """Return the settings of a training, and the file with the weights to start from, or None for random weights.

    weights: a file; "none" for random weights; "" for the file that ships with minires
    images: the number of scenes, or of patches; 0: the recipe's

    Raises FileNotFoundError if there is no such file, and ValueError for an unknown name.
    """
    backbone = canonical(backbone)
    if task not in detection.RECIPES:
        raise unknown("task", task, detection.RECIPES)
    recipe = detection.RECIPES[task]
    if 0 < images < recipe.batch_size:
        raise UsageError(f"--images: expected at least {recipe.batch_size}, because {task} trains on batches of "
                         f"{recipe.batch_size} images, got {images}")
    recipe = dataclasses.replace(recipe, images=images) if images else recipe
    path = None
    if weights != "none":
        path = Path(weights) if weights else _shipped(task, backbone)
        weights = weights or f"{BEGIN[task]}/{backbone}.safetensors"
    sha256 = ""
    if path:
        _check_plain(path)
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Settings(task, backbone, recipe, seed, width, device.use(where), weights, sha256), path


def _check_plain(path: Path) -> None:
    if path.exists() and not path.is_file():  # a named pipe would never end
        raise ValueError(f"{path}: expected a file, got a folder, a pipe or a device")


def _shipped(task: str, backbone: str) -> Path:
    try:
        return shipped_file(f"{BEGIN[task]}/{backbone}.safetensors")
    except FileNotFoundError as e:
        first = "" if task == "classification" else (
            f", for example the weights.safetensors of `minires detect train {backbone} --task classification`")
        raise FileNotFoundError(f"{task}: minires ships no weights of {printed(backbone)} to start from; give a file "
                                f"with --weights FILE{first}, or --weights none for random weights") from e


def read_settings(folder: Path) -> Settings:
    """Return the settings of the training in `folder`.

    Raises FileNotFoundError if there is no config.json.
    Raises ValueError, which names the file and the key, if it is not the config of such a training.
    """
    path = folder / "config.json"
    try:
        raw = records.read(path)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{folder} is not the folder of a training: there is no config.json in it") from None
    settings: Settings = records.checked(raw, Settings, str(path))
    return settings


def load(folder: Path, where: str = "") -> tuple[Settings, Any]:
    """Return the settings and the network of a finished training.

    folder: of the training; or the name of a detector that ships, such as "resnet20", if there is no such folder
    where: "auto", "cpu" or "gpu"; "": the device of the training

    Raises FileNotFoundError if `folder` is neither the folder of a finished training nor such a name.
    """
    if name := shipped_detector(folder):
        settings, weights = _recorded(name), shipped_file(f"weights/detection/{name}.safetensors")
    elif not folder.exists() and len(folder.parts) == 1:
        raise FileNotFoundError(f"{folder} is not the folder of a training: there is no such folder; and minires ships "
                                f"no detector of this name. It ships {' and '.join(DETECTORS)}")
    else:
        settings, weights = read_settings(folder), folder / "weights.safetensors"
    if not weights.exists():
        raise FileNotFoundError(f"{folder}: the training is not finished, so there is no weights.safetensors in it; "
                                f"minires detect train --resume --out {folder} resumes it")
    with init.undrawn():  # config.json may ask for more weights than the file has: then nothing was drawn
        net = dataclasses.replace(settings, device=device.use(where or settings.device)).build(None)
    load_weights(net, weights)
    return settings, net.eval()


def shipped_detector(folder: Path) -> str:
    """Return the name of the detector that ships if `folder` is its name and does not exist, or else ""."""
    name = key(str(folder))
    return name if name in DETECTORS and not folder.exists() else ""


def _recorded(name: str) -> Settings:
    """Return the settings of a detector that ships, from the record of its training."""
    path = shipped_file("results/detection/results.json")
    run = next(run for run in records.read(path)["detection"][name] if run["seed"] == 0)
    known = {field.name for field in dataclasses.fields(Settings)}
    settings: Settings = records.checked({k: v for k, v in run.items() if k in known}, Settings, str(path))
    return settings


# ---------------------------------------------------------------------------------------------------- training


def train(chosen: tuple[Settings, Path | None] | None, out: Path, *, resume: bool = False,
          time_limit: float = math.inf, every_seconds: float = 600,
          say: Callable[[str], None] | None = None) -> Outcome:
    """Begin the training `chosen` in the folder `out`, or with `resume` resume the one there. Return how it ended.

    chosen: what `choose` returns; with `resume` it may be None, and config.json decides
    time_limit: stop after this many seconds
    every_seconds: how often to write a checkpoint, besides with every line of metrics.jsonl
    say: is called with a line of text; None: print the line

    The time limit, Ctrl-C, SIGTERM and SIGHUP stop the training after a checkpoint. On one CPU, with the same number of
    threads, a resumed training ends in the same bits as one that was not stopped.

    Raises NotFinite if the loss is not finite; the last checkpoint is kept.
    Raises ValueError for a folder that holds a training with other settings, FileExistsError for one that is not empty
    without `resume`, and FileNotFoundError for one without a training to resume.
    If a new training fails before its first step ends, nothing stays in `out`.
    """
    with _folder(out, chosen, resume) as (there, settings, weights), stop_signals() as stop:
        at = Progress()
        try:
            run = _Training(settings, weights, out, at, say or progress.say, there, begin=chosen is not None)
            with progress.Bar(out.name) as bar:
                return run.go(stop, time_limit, every_seconds, bar)
        except Exception as e:
            if isinstance(e, OSError) and at.step:
                raise OSError(f"{e.filename}: {e.strerror}. The last checkpoint in {out} is kept; minires detect train "
                              f"--resume --out {out} resumes from it") from e
            if not there and at.step == 0:  # nothing has been trained, so nothing is kept
                for path in out / "config.json", *out.glob("checkpoint-*.safetensors"):
                    path.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _folder(out: Path, chosen: tuple[Settings, Path | None] | None, resume: bool
            ) -> Iterator[tuple[bool, Settings, Path | None]]:
    """Lock the folder. Yield whether a training is there, its settings, and the file to start from."""
    begun = has_begun(out, resume, "training")
    if not begun and chosen is None:
        raise FileNotFoundError(f"{out}: found no training to resume; give BACKBONE to begin one")
    there = read_settings(out) if begun else None
    if there and chosen:
        mine, theirs = (choices.pop("recipe") | choices for choices in (chosen[0].choices(), there.choices()))
        if found := [f"{key}: {theirs[key]} there, {mine[key]} asked for" for key in mine if mine[key] != theirs[key]]:
            raise ValueError(f"{out} holds a training with other settings: {'; '.join(found)}. Use the settings of "
                             "that training, or choose another --out")
    with locked_folder(out):
        settings, weights = chosen or (there, None)
        assert settings is not None
        yield begun, there or settings, weights


class _Training:
    """Does the work of one call, and holds the network, its progress and its lines."""

    def __init__(self, settings: Settings, weights: Path | None, out: Path, at: Progress, say: Callable[[str], None],
                 there: bool, begin: bool):
        """Begin a training, or continue the one that is `there`. `begin`: it may begin if it has no checkpoint yet."""
        self.out, self.say, self.steps = out, say, settings.recipe.steps
        device.use(settings.device)  # raises if the device is missing: the training may be from another machine
        self.at, self.lines, self.losses, self.earlier = at, list[Line](), list[float](), 0.0
        self.net = settings.build(weights)
        now = {"versions": info.versions(), "machine": info.machine(), "commit": info.commit(),
               "threads": parallel.threads(), "kernels": kernels.choice(next(iter(self.net.state().values())).data)}
        if not there:
            if bad := not_finite(arrays_of(self.net)):
                raise ValueError(f"{weights}: {bad} is not finite")
            started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            settings = dataclasses.replace(settings, recorded=now | {"started": started})
            write_atomically(out / "config.json", records.text(dataclasses.asdict(settings)) + "\n")
        elif other := [key for key, value in now.items() if settings.recorded.get(key, value) != value]:
            say(f"{out}: the environment has changed since the training began, so the bits may differ: "
                f"{', '.join(other)}")
        self.settings = settings
        if not (there and self._load(begin)):
            checkpoint.save(out, 0, self._arrays(), self._header(0.0))
        say(f"{out}: {settings.task} with {printed(settings.backbone)}, {self.net.count_parameters():,} trained "
            f"parameters, {_trained_on(settings.recipe)}, step {self.at.step} of {self.steps}")

    def _load(self, begin: bool) -> bool:
        """Continue from the newest checkpoint. Return False if there is none, and the training may `begin`."""
        found, damaged = checkpoint.newest(self.out)
        for text in damaged:
            self.say(f"{self.out}: skipped a damaged checkpoint: {text}")
        if found is None and begin and not damaged:  # it was killed between config.json and its first checkpoint
            return False
        if found is None:
            raise ValueError(f"{self.out}: found no checkpoint to resume from; begin again in another folder")
        arrays, where = found[0], f"{self.out}, its newest checkpoint"
        header: Header = records.checked(found[1], Header, where)
        if header["choices"] != json.loads(json.dumps(self.settings.choices())) or header["step"] > self.steps:
            raise ValueError(f"{where}: it belongs to another training")
        if header["step"] and "velocity" not in arrays:
            raise ValueError(f"{where}: there is no velocity in it")
        self.net.load_state(state_of(arrays))
        self.at.step, self.at.lr, self.at.velocity = header["step"], header["lr"], arrays.get("velocity")
        self.lines, self.losses, self.earlier = header["lines"], header["losses"], header["seconds"]
        metrics.write(self.out, self.lines)
        return True

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = arrays_of(self.net)
        if self.at.velocity is not None:
            arrays["velocity"] = device.to(self.at.velocity, "cpu")
        if bad := not_finite(arrays):
            raise NotFinite(f"step {self.at.step}: {bad} is not finite. The last good checkpoint is kept in {self.out}")
        return arrays

    def _header(self, seconds: float) -> Mapping[str, Any]:
        return {"choices": self.settings.choices(), "step": self.at.step, "lr": self.at.lr, "losses": self.losses,
                "lines": self.lines, "seconds": seconds}

    def go(self, stop: list[str], limit: float, every_seconds: float, watch: Callable[[Passed], None]) -> Outcome:
        """Train to the end, to the time limit, or until `stop` holds a reason."""
        recipe, at, began, size = self.settings.recipe, self.at, time.monotonic(), self.settings.recipe.batch_size
        saved = began

        def seconds() -> float: return self.earlier + time.monotonic() - began

        def save() -> None:
            checkpoint.save(self.out, at.step, self._arrays(), self._header(seconds()))
            metrics.write(self.out, self.lines)

        watch(Passed(at.step * size, self.steps * size, ""))
        for event in detection.fit(self.settings.task, self.net, recipe, seed=self.settings.seed, at=at):
            self.losses.append(event.loss)
            watch(Passed(at.step * size, self.steps * size, f"step {at.step}, loss {event.loss:.3f}, lr {at.lr:.4g}"))
            due = at.step * LINES // self.steps > (at.step - 1) * LINES // self.steps
            if due:
                loss = float(np.mean(self.losses))
                self.lines.append({"step": at.step, "images": at.step * size, "loss": loss,
                                   "lr": float(f"{at.lr:.6g}"), "seconds": round(seconds(), 3)})
                self.losses = []
                self.say(f"{self.out.name}: step {at.step} of {self.steps}, loss {loss:.3f}, lr {at.lr:.4g}, "
                         f"{seconds():.0f} s")
            late = time.monotonic() - began > limit
            if due or stop or late or time.monotonic() - saved > every_seconds:
                save()
                saved = time.monotonic()
            if (stop or late) and at.step < self.steps:
                return Outcome(at.step, self.steps, stop[0] if stop else "the time limit")
        self._finish(seconds())
        return Outcome(at.step, self.steps)

    def _finish(self, seconds: float) -> None:
        settings = self.settings
        held = {"part": "test", "seed": 0} | ({} if settings.task == "classification" else {"scenes": HELD_BACK})
        found = detection.score(settings.task, self.net, count=HELD_BACK)
        save_weights(self.net, self.out / "weights.safetensors")
        content = {**settings.choices(), "recorded": settings.recorded, "held_back": held, "score": found,
                   "seconds": round(seconds, 1)}
        write_atomically(self.out / "results.json", records.text(content) + "\n")
        count = f"{TEST_PATCHES:,} test patches" if settings.task == "classification" else (
            counted(HELD_BACK, "test scene"))
        scale = "" if settings.task == "classification" else f". {RANGE}"
        self.say(f"{self.out.name}: measured on {count} that were held back{scale}")
        for name, value in found.items():
            self.say(_measure(name, value))


def _trained_on(recipe: Recipe) -> str:
    """Return how many images a training uses: whole batches, so these may be fewer than the recipe has."""
    used = recipe.steps * recipe.batch_size
    batches = f"{recipe.steps:,} batch{'es' * (recipe.steps != 1)} of {recipe.batch_size}"
    return f"{used:,} images ({batches}{f'; {recipe.images:,} were asked for' * (used < recipe.images)})"


def _measure(name: str, value: float) -> str:
    """Return a line of text with one of the numbers that `detection.score` returns."""
    label, form = MEASURES.get(name, (name, "{:.3f}"))
    return _row(label, form.format(value))


def _row(label: str, value: str) -> str:
    return f"{label:<44}{value:>10}"


# -------------------------------------------------------------------------------------------- scenes and answers


def read_scenes(path: Path) -> Scenes:
    """Return the scenes in a .npz file: arrays images, boxes, labels, scene and, if there are masks, masks.

    The arrays are those of `datasets.Scenes`, with the ten classes of Fashion-MNIST.

    Raises ValueError, which names the file, if an array is missing or does not fit, for images smaller than 8x8, and
    for more pixels than the bounds of this module allow.
    """
    _check_plain(path)
    arrays = read_weights(path)
    needed = "images", "boxes", "labels", "scene"
    records.only(arrays, {*needed, "masks"}, str(path))
    if missing := [name for name in needed if name not in arrays]:
        raise ValueError(f"{path}: expected the arrays {', '.join(needed)}; missing: {', '.join(missing)}")
    if arrays["images"].size > MOST_PIXELS:
        raise ValueError(f"{path}: images: expected at most {MOST_PIXELS} pixels, got {arrays['images'].size}")
    try:
        found = Scenes(arrays["images"], arrays["boxes"], arrays["labels"], arrays["scene"], masks=arrays.get("masks"))
        if found.images[0].size > LARGEST:
            raise ValueError(f"images: expected at most {LARGEST} pixels each, got {found.images[0].size}")
        detection.inputs(found.images[:1])
        return found
    except (TypeError, ValueError) as e:
        raise ValueError(f"{path}: {e}") from e


def read_detections(path: Path, scenes: Scenes) -> Detections:
    """Return the detections in a JSON file in COCO's format, for these scenes:

        [{"image_id": 0, "category_id": 1, "bbox": [x, y, width, height], "score": 0.9}, ...]

    image_id: the number of the scene, from 0
    category_id: the class plus 1, as in the masks

    Raises ValueError, which names the file and the detection, for an image or a category that the scenes do not have,
    a score that is not a finite number, and a box without extent or with coordinates out of range.
    """
    raw = records.read(path)
    if not isinstance(raw, list):
        raise ValueError(f"{path}: expected a list of detections, got {type(raw).__name__}")
    rows = []
    for number, entry in enumerate(raw):
        where = f"{path}: detection {number}"
        if not isinstance(entry, Mapping):
            raise ValueError(f"{where}: expected keys and values, got {type(entry).__name__}")
        found: _Entry = records.checked({k: v for k, v in entry.items() if k in _Entry.__annotations__}, _Entry, where)
        for name, given, low, high in (("image_id", found["image_id"], 0, len(scenes) - 1),
                                       ("category_id", found["category_id"], 1, len(scenes.classes))):
            if not low <= given <= high:
                raise ValueError(f"{where}: {name}: expected one from {low} to {high}, got {_short(given)}")
        box = found["bbox"]
        if len(box) != 4 or not min(box[2:]) > 0:
            raise ValueError(f"{where}: bbox: expected [x, y, width, height] with width and height above 0, got "
                             f"{_short(box)}")
        rows.append((box[0], box[1], box[0] + box[2], box[1] + box[3], found["score"], found["category_id"] - 1,
                     found["image_id"]))
    table = np.array(rows, np.float64).reshape(-1, 7)
    try:
        return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64), table[:, 6].astype(np.int64))
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


class _Entry(TypedDict):
    image_id: int
    category_id: int
    bbox: list[float]
    score: float


def coco(detections: Detections) -> str:
    """Return detections as JSON text in COCO's format, which `read_detections` reads."""
    rows = zip(detections.scene.tolist(), detections.labels.tolist(), detections.boxes.astype(float).tolist(),
               detections.scores.astype(float).tolist(), strict=True)
    return json.dumps([{"image_id": i, "category_id": label + 1, "bbox": [x0, y0, x1 - x0, y1 - y0], "score": score}
                       for i, label, (x0, y0, x1, y1), score in rows])


def evaluate(folder: Path | None, *, detections: Path | None = None, scenes: Path | None = None,
             count: int | None = None, seed: int | None = None, where: str = "",
             write: Path | None = None) -> str:
    """Return a table of what a trained network, or a file of detections, reaches on scenes.

    folder: of a finished training, or the name of a detector that ships; or
    detections: a JSON file in COCO's format
    scenes: a .npz file with the user's own scenes; None: generated test scenes
    seed: of generated scenes or patches; None: 0
    count: the number of test scenes, or the most scenes of the file, its first ones; None: 300, or all of the file
    write: a file to which the network's detections are written, in COCO's format

    Raises UsageError unless there is either a folder or detections, and for an option that has no effect.
    """
    if (folder is None) == (detections is None):
        raise UsageError("give either the folder of a training or --detections FILE, and not both")
    if folder is None:
        if write:
            raise UsageError("--write needs the folder of a detector, whose detections it writes")
        if where:
            raise UsageError("--device needs the folder of a training: a file of detections needs no network")
        held = _held_back(scenes, count, seed)
        assert detections is not None
        return _measured(read_detections(detections, held), held, str(detections))
    settings, net = load(folder, where)
    source = "which ships with minires" if shipped_detector(folder) else folder
    title = f"{settings.task} with {printed(settings.backbone)}, {source}"
    if write:
        if settings.task != "detection":
            raise UsageError(f"--write needs the folder of a detector; {folder} holds a training of {settings.task}")
        _check_writable(write)
    if settings.task == "classification":
        if scenes:
            raise UsageError(f"--scenes: {folder} holds a classifier of patches, which is measured on patches")
        if count is not None:
            raise UsageError(f"--count: {folder} holds a classifier of patches, which is measured on {TEST_PATCHES:,} "
                             "patches")
        error = detection.score(settings.task, net, seed=seed or 0)["error"]
        return f"{title}\nerror on {TEST_PATCHES:,} test patches: {error:.2f} %"
    held = _held_back(scenes, count, seed)
    images = device.to(detection.inputs(held.images), device.use(where or settings.device))
    if settings.task == "segmentation":
        if held.masks is None:
            raise ValueError(f"{scenes}: expected masks, which segmentation is measured with")
        mean, each = detection.mean_iou(net.predict(images, together(held)), held.masks, 1 + len(held.classes))
        lines = [f"{name:<14}{value:>8.3f}" for name, value in zip(("ground", *held.classes), each, strict=True)]
        return "\n".join([title, RANGE, f"{'IoU of':<14}{counted(len(held), 'scene')}", *lines,
                          f"{'mean':<14}{mean:>8.3f}"])
    found = net.detect(images, batch_size=together(held))
    if write:
        write_atomically(write, coco(found))
    return _measured(found, held, title)


def _held_back(scenes: Path | None, count: int | None, seed: int | None) -> Scenes:
    drawn_from = _scene_seed(scenes, seed)
    return read_scenes(scenes)[:count] if scenes else datasets.scenes(count or HELD_BACK, drawn_from, "test")


def _scene_seed(scenes: Path | None, seed: int | None) -> int:
    """Return the seed of generated scenes, 0 if none is given. Raise UsageError for a seed with scenes of a file."""
    if scenes and seed is not None:
        raise UsageError("--seed has no effect on the scenes of a file; leave it out")
    return seed or 0


def together(held: Scenes) -> int:
    """Return how many images a network should see together, so that large ones do not fill the memory."""
    return min(50, max(1, AT_ONCE // held.images[0].size))


def _check_writable(path: Path) -> None:
    """Raise OSError if the file cannot be written, before a long computation."""
    check_can_hold_files(path.parent)
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))


def _measured(found: Detections, held: Scenes, title: str) -> str:
    """Return the AP table of COCO, the AP of each class, and the localisation errors if a scene has one object."""
    result = detection.average_precision(found, held)
    rows = [(MEASURES[name][0], value) for name, value in (
        ("ap", result.ap()), ("ap50", result.ap(0.5)), ("ap75", result.ap(0.75)))]
    for name, (least, most) in detection.SCENE_AREAS.items():
        if name != "all":
            size = f"from {least:g}" + (f" to {most:g}" if most < 1e9 else "")
            rows.append((f"AP of {name} objects, {size} pixels", result.ap(area=name)))
    rows += [(f"AR with {most} for each class and image", result.ar(most)) for most in result.most]
    rows += [(f"AP of {name}", result.ap(label=i)) for i, name in enumerate(held.classes)]
    counts = (len(held), "scene"), (len(held.boxes), "object"), (len(found), "detection")
    lines = [title, ", ".join(counted(*each) for each in counts), RANGE,
             *(_row(name, "no object" if math.isnan(value) else f"{value:.3f}") for name, value in rows)]
    if (np.bincount(held.scene, minlength=len(held)) == 1).any():
        place = detection.localisation_errors(found, held)
        lines += [f"localisation errors over {counted(place.scenes, 'scene')} with one object, in percent",
                  *(_row(name, f"{value:.1f}") for name, value in (
                      ("class predicted", place.class_predicted), ("class given", place.class_given),
                      ("box alone", place.box_alone)))]
    return "\n".join(lines)


def show(folder: Path, out: Path, *, scenes: Path | None = None, count: int = 6, seed: int | None = None,
         first: int = 0, least_score: float = 0.3, where: str = "") -> None:
    """Draw scenes with the answers of a trained network: boxes, right and wrong, or masks.

    folder: of a finished training, or the name of a detector that ships
    out: the picture to write, a .png file
    scenes: a .npz file with the user's own scenes; None: generated test scenes
    seed: of generated scenes; None: 0
    count, first: how many scenes to draw, and the number of the first one
    least_score: boxes with this score or a lower one are not drawn

    Raises ValueError for a classifier, which has no answer to draw, for a picture of another kind, for more than 60
    scenes, and for a `first` that the file does not have.
    """
    from .. import plot  # loads matplotlib

    if out.suffix.lower() != ".png":
        raise ValueError(f"{out}: expected a file name that ends in .png")
    if count > MOST_SHOWN:
        raise ValueError(f"--count: expected at most {MOST_SHOWN} scenes in one picture, got {count}")
    _check_writable(out)
    drawn_from = _scene_seed(scenes, seed)
    settings, net = load(folder, where)
    if settings.task == "classification":
        raise ValueError(f"{folder}: a classifier of patches finds neither boxes nor masks; give the folder of a "
                         "detector or a segmentation network")
    if scenes:
        held = read_scenes(scenes)
        if first >= len(held):
            raise ValueError(f"--first: expected a number from 0 to {len(held) - 1}, because {scenes} has "
                             f"{counted(len(held), 'scene')}, got {first}")
        held = held[first:first + count]
    else:
        held = datasets.scenes(count, drawn_from, "test", first=first)
    images = device.to(detection.inputs(held.images), device.use(where or settings.device))
    caption = f"{printed(settings.backbone)}, trained with seed {settings.seed} on {settings.recipe.images:,} scenes; "
    caption += _drawn(scenes, first, len(held), drawn_from)
    if settings.task == "segmentation":
        predicted = net.predict(images, together(held))
        figure = plot.segmented(held.images, held.masks, predicted, held.classes, caption=caption)
    else:
        found = net.detect(images, least_score, together(held))
        right = detection.true_positives(found, held)
        figure = plot.detected(held.images, (held.boxes, held.labels, held.scene),
                               (found.boxes, found.labels, found.scene, found.scores, right), held.classes,
                               caption=f"{caption}; boxes with a score above {least_score:g}")
    write_atomically(out, plot.png(figure))


def _drawn(scenes: Path | None, first: int, count: int, seed: int) -> str:
    """Return which scenes a picture shows."""
    which = f"{'scene' if count == 1 else 'scenes'} {first}{f' to {first + count - 1}' * (count > 1)}"
    return f"{which} of {scenes}" if scenes else f"test {which} of seed {seed}"
