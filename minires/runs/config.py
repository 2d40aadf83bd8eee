"""Define what a run trains: choices by name and by key=value, which are checked and kept in the run's config.json."""
from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from .. import __version__, datasets, device, models, nn, recipes
from ..datasets.inputs import Prepared
from ..files import records
from ..files.records import Between
from ..names import unknown
from .metrics import Tested

# Of config.json. Files without a format number are older, and are read as format 1, which has the same keys. Format 2
# adds the settings recipes.ADDED. A run that leaves them at their defaults is written in format 1, which older versions
# of minires read too.
FORMAT = 2
BY_DATA = "num_classes", "in_channels", "rng"  # arguments of a model that follow from the data set and the seed
DEVICES = "cpu", "gpu"

Count = Annotated[int, Between(0)]
Option = bool | int | float | str


@dataclass(frozen=True)
class Data:
    """Says which images of a data set are used, and in which size. 0 means all images, or their own size."""

    train_images: int = 0  # use the first N training images
    test_images: int = 0   # use the first N test images
    image_size: int = 0    # average the images to this height and width
    validation: int = 0    # hold out the last N training images, and use them instead of the test set

    def __post_init__(self) -> None:
        if negative := [f"{name} {n}" for name, n in dataclasses.asdict(self).items() if n < 0]:
            raise ValueError(f"data: expected numbers >= 0, got {', '.join(negative)}")
        if self.validation and self.test_images:
            raise ValueError(f"data: test_images={self.test_images} has no effect with validation={self.validation}, "
                             "which uses training images instead of the test set; leave out one of the two")


@dataclass(frozen=True)
class Recorded:
    """Holds what was recorded when a run began. These are not choices, and a later call may find other values."""

    data_sha256: str = ""   # "": not recorded
    steps: Count = 0        # of the whole run; 0: the run has not begun
    threads: Count = 0
    kernels: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=dict)  # info.machine(); {}: not recorded, as in older files
    commit: str | None = None
    parameters: Count = 0
    train_images: Count = 0
    test_images: Count = 0
    root: str | None = None  # folder of the data set; None: the default folder
    command: str = ""
    started: str = ""

    def differences(self, now: Recorded, keys: Sequence[str]) -> list[str]:
        """Describe where `now` differs in these keys, as in "threads: 2 there, 4 now", as far as they were recorded."""
        noted = [key for key in keys if getattr(self, key) not in (0, "", {})]
        return [f"{text} now" for text in _differences(_plain(self), _plain(now), noted)]


@dataclass(frozen=True)
class RunConfig:
    """Holds the choices for a run, which determine its results, and separately what was recorded when it began.

    Raises ValueError for an unknown model, option, data set, recipe or device, and for a seed below 0.
    """

    model: str
    dataset: str
    recipe_name: str
    recipe: recipes.Recipe  # the recipe of that name, in which settings may have been replaced
    seed: int
    device: str             # "cpu" or "gpu"
    model_options: dict[str, Option] = field(default_factory=dict)
    data: Data = Data()
    graph: bool = False
    recorded: Recorded = Recorded()

    def __post_init__(self) -> None:
        for key, name, known in (("model", self.model, models.BY_NAME), ("data set", self.dataset, datasets.BY_NAME),
                                 ("recipe", self.recipe_name, recipes.RECIPES), ("device", self.device, DEVICES)):
            if name not in known:
                raise unknown(key, name, known)
        if self.seed < 0:
            raise ValueError(f"seed: expected a whole number >= 0, got {self.seed}")
        kinds = options_of(self.model)
        records.only(self.model_options, kinds, "model_options")
        for name, value in self.model_options.items():
            records.checked(value, kinds[name], "model_options", name)

    @classmethod
    def from_json(cls, source: str | Mapping[str, Any], path: str | Path, *, beside: Collection[str] = ()) -> RunConfig:
        """Return the config from JSON text, or from a parsed JSON object, and check every value.

        path: the file, for error messages
        beside: names of other keys that the same object may have

        Raises ValueError, which names the file and the key, if a value is missing, unknown or of another type, or if a
        later version of minires wrote the file.
        """
        where = str(path)
        raw = records.parse(source, where) if isinstance(source, str) else source
        if not isinstance(raw, Mapping):
            raise ValueError(f"{where}: expected a run's settings, a JSON object with keys and values")
        form = records.checked(raw.get("format", FORMAT), Annotated[int, Between(1)], where, "format")
        if form > FORMAT:
            raise ValueError(f"{where}: format: expected at most {FORMAT}, got {form}: a later version of minires than "
                             f"this one ({__version__}) wrote the file; use that version to read it")
        noted = {f.name for f in dataclasses.fields(Recorded)}
        records.only(raw, {"format", *CHOSEN, *noted, *beside}, where)
        if missing := [key for key in CHOSEN if key not in raw]:
            raise ValueError(f"{where}: expected a run's settings; missing: {', '.join(missing)}")
        if isinstance(raw["settings"], Mapping):
            raw = {**raw, "settings": {**DEFAULTS, **raw["settings"]}}
        chosen = {key: records.checked(raw[key], kind, where, key, complete=True) for key, kind in CHOSEN.items()}
        recorded = records.checked({key: raw[key] for key in raw if key in noted}, Recorded, where)
        try:
            return cls(recipe_name=chosen.pop("recipe"), recipe=chosen.pop("settings"), recorded=recorded, **chosen)
        except ValueError as e:
            raise ValueError(f"{where}: {e}") from e

    def to_json(self) -> dict[str, Any]:
        """Return the config as a JSON object, with the format's number, and with the record if the run has begun."""
        chosen = self.chosen()
        form = FORMAT if DEFAULTS.keys() & chosen["settings"].keys() else 1
        return {"format": form, **chosen, **(_plain(self.recorded) if self.recorded.steps else {})}

    def chosen(self) -> dict[str, Any]:
        """Return the choices as a JSON object, without those settings of recipes.ADDED that have their defaults."""
        chosen = self._choices()
        chosen["settings"] = {key: value for key, value in chosen["settings"].items()
                              if key not in DEFAULTS or value != DEFAULTS[key]}
        return chosen

    def _choices(self) -> dict[str, Any]:
        return {"model": self.model, "model_options": dict(self.model_options), "dataset": self.dataset,
                "data": _plain(self.data), "recipe": self.recipe_name, "settings": _plain(self.recipe),
                "seed": self.seed, "device": self.device, "graph": self.graph}

    def differences(self, other: RunConfig, but: Collection[str] = ()) -> list[str]:
        """Describe where the choices of `other` differ, as in "settings.lr: 0.1 there, 0.2 asked for".

        but: keys that may differ
        """
        keys = [key for key in CHOSEN if key not in but]
        return [f"{text} asked for" for text in _differences(self._choices(), other._choices(), keys)]

    def inputs(self, root: Path | None = None, download: bool = False) -> Prepared:
        """Return the data set as the network sees it: pixels / 255, minus the training images' mean at every pixel.

        root: the data set's folder; None: the default folder
        download: whether to download files that are missing

        Raises FileNotFoundError if the data set is not found.
        Raises ValueError if the data set has too few images.
        """
        return datasets.prepared(self.dataset, root, normalize="pixel-mean", where=self.device,
                                 download=download, **dataclasses.asdict(self.data))

    def build(self, in_channels: int, num_classes: int) -> nn.Module:
        """Return the model with its initial weights, which are drawn from the seed.

        Raises ValueError if the model cannot be built with its options.
        """
        given = {"in_channels": in_channels, "num_classes": num_classes, "rng": np.random.default_rng(self.seed)}
        takes = inspect.signature(models.BY_NAME[self.model]).parameters
        options = {name: value for name, value in given.items() if name in takes}
        try:
            return models.build(self.model, **self.model_options, **options).to(self.device)
        except (ArithmeticError, MemoryError) as e:
            raise ValueError(f"{self.model} cannot be built with {self.model_options}: {e}") from e

    @property
    def tested(self) -> Tested:
        """Return the name of the measured error: "validation_error" if images are held out, else "test_error"."""
        return "validation_error" if self.data.validation else "test_error"

    @property
    def words(self) -> str:
        """Describe the training, as in "short-cifar (lr 0.05) on cifar10, image_size 16; networks with width 8"."""
        standard = _plain(recipes.RECIPES[self.recipe_name])
        changed = [f"{key} {value}" for key, value in _plain(self.recipe).items() if value != standard[key]]
        data = [f"{key} {value}" for key, value in _plain(self.data).items() if value]
        options = [f"{key} {value}" for key, value in self.model_options.items()]
        return (self.recipe_name + (f" ({', '.join(changed)})" if changed else "") + " on "
                + ", ".join([self.dataset, *data]) + (f"; networks with {', '.join(options)}" if options else ""))


DEFAULTS: dict[str, Any] = {key: getattr(recipes.Recipe(), key) for key in recipes.ADDED}
# The keys of config.json that hold choices, with their types; the other keys were recorded.
CHOSEN = {"model": str, "model_options": dict[str, Option], "dataset": str, "data": Data, "recipe": str,
          "settings": recipes.Recipe, "seed": int, "device": str, "graph": bool}


def configure(model: str, dataset: str, recipe: str = "paper-cifar", seed: int = 0, where: str = "auto",
              settings: Sequence[str] = (), graph: bool = False) -> RunConfig:
    """Return the config of a run.

    where: "auto", "cpu" or "gpu"
    settings: texts "key=value", in which key is a field of Recipe or Data, or "model.<option>"
    graph: see train.fit

    Raises ValueError, which lists similar names, for an unknown model, data set, recipe or key, and for a value of
    another type.
    Raises RuntimeError if the device is not available.
    """
    name = models.canonical(model)
    if dataset not in datasets.BY_NAME:
        raise unknown("data set", dataset, datasets.BY_NAME)
    chosen, data = recipes.named(recipe), Data()
    options = {f"model.{name}": kind for name, kind in options_of(name).items()}
    texts: dict[str, str] = {}
    for setting in settings:
        key, equals, text = (part.strip() for part in setting.partition("="))
        if not equals:
            raise ValueError(f"setting: expected key=value, got {setting!r}")
        if key not in (known := {**vars(chosen), **vars(data), **options}):
            raise unknown("setting", key, known)
        texts[key] = text
    if "epochs" in texts and "steps" not in texts:
        texts["steps"] = "0"  # otherwise the recipe's own number of steps would override the epochs
    elif {"epochs", "steps"} <= set(texts):
        raise ValueError("setting: epochs and steps both set how long the training is; give only one of them")
    if texts.get("schedule", "steps") != "steps" and "drops" not in texts:
        texts["drops"] = ""  # the recipe's own drops belong to its own schedule
    return RunConfig(
        model=name,
        model_options={key.removeprefix("model."): recipes.parse(key, text, options[key])
                       for key, text in texts.items() if key in options},
        dataset=dataset,
        data=recipes.override(data, {k: t for k, t in texts.items() if k in vars(data)}),
        recipe_name=recipe,
        recipe=recipes.override(chosen, {k: t for k, t in texts.items() if k in vars(chosen)}),
        seed=seed,
        device=device.use(where),
        graph=graph,
    )


def options_of(model: str) -> dict[str, type]:
    """Return {name: type} of the model's options that a run can choose."""
    return {name: type(p.default) for name, p in inspect.signature(models.BY_NAME[model]).parameters.items()
            if name not in BY_DATA and isinstance(p.default, (bool, int, float, str))}


def _plain(settings: Any) -> dict[str, Any]:
    """Return a dataclass as a JSON object, in which tuples are lists."""
    return {key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(settings).items()}


def _differences(there: Mapping[str, Any], other: Mapping[str, Any], keys: Collection[str]) -> list[str]:
    """Return texts such as "settings.lr: 0.1 there, 0.2" for those of these keys, also nested, whose values differ."""
    found = []
    for key in keys:
        a, b = there.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += [f"{key}.{text}" for text in _differences(a, b, sorted({*a, *b}))]
        elif a != b:
            found.append(f"{key}: {a} there, {b}")
    return found
