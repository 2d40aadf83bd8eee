"""What a run trains: chosen by names and key=value, checked, and kept as one dict that config.json holds."""
from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import datasets, device, models, nn, recipes
from ..names import unknown

Config = dict[str, Any]
# What decides every number.
CHOSEN = "model", "model_options", "dataset", "data", "recipe", "settings", "seed", "device", "graph"
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
        if self.validation and self.test_images:
            raise ValueError(f"data: test_images={self.test_images} has no effect with validation={self.validation}, "
                             "whose images stand in for the test set; leave one out")


def configure(model: str, dataset: str, recipe: str = "paper-cifar", seed: int = 0, where: str = "auto",
              settings: Sequence[str] = (), graph: bool = False) -> Config:
    """The CHOSEN part of a config. `settings`: "key=value", a field of Recipe or Data or "model.<option>". `graph`: see
    train.fit.

    ValueError, with the nearest name, for a model, data set, recipe or key that does not exist, and for a value of
    another type; RuntimeError for a device that is not there.
    """
    name = models.canonical(model)
    if dataset not in datasets.BY_NAME:
        raise unknown("data set", dataset, datasets.BY_NAME)
    chosen, data = recipes.named(recipe), Data()
    options = {f"model.{n}": type(p.default) for n, p in inspect.signature(models.BY_NAME[name]).parameters.items()
               if n not in BY_DATA and isinstance(p.default, (bool, int, float, str))}
    texts: dict[str, str] = {}
    for setting in settings:
        key, equals, text = (part.strip() for part in setting.partition("="))
        if not equals:
            raise ValueError(f"setting: expected key=value, got {setting!r}")
        if key not in (known := {**vars(chosen), **vars(data), **options}):
            raise unknown("setting", key, known)
        texts[key] = text
    if "epochs" in texts and "steps" not in texts:
        texts["steps"] = "0"  # a recipe that counts in steps counts in epochs from here on
    elif {"epochs", "steps"} <= set(texts):
        raise ValueError("setting: epochs and steps both say how long; give one of them")
    return {
        "model": name,
        "model_options": {key.removeprefix("model."): recipes.parse(key, text, options[key])
                          for key, text in texts.items() if key in options},
        "dataset": dataset,
        "data": dataclasses.asdict(recipes.override(data, {k: t for k, t in texts.items() if k in vars(data)})),
        "recipe": recipe,
        "settings": dataclasses.asdict(recipes.override(chosen, {k: t for k, t in texts.items() if k in vars(chosen)})),
        "seed": seed,
        "device": device.use(where),
        "graph": graph,
    }


def pretty(model: str) -> str:
    """A network's name as it is written in text: "ResNet-20" for "resnet20"."""
    return re.sub(r"(?<=[a-z])(?=\d)", "-", model, count=1).replace("resnet", "ResNet")


def recipe_of(config: Config) -> recipes.Recipe:
    """The recipe with the settings of a config, which may have been read from JSON."""
    return recipes.Recipe(**{**config["settings"], "drops": tuple(config["settings"]["drops"])})


def prepared(config: Config, root: Path | None) -> tuple[Any, Any, str, Sequence[str]]:
    """(train, test, SHA-256 of the pixels and labels as stored, names of the classes). Each of the two is (images
    float32 (N, C, H, W) less the training images' mean at every pixel, labels), on the config's device."""
    found = datasets.prepared(config["dataset"], root, normalize="pixel-mean", where=config["device"], **config["data"])
    return found.train, found.test, found.sha256, found.classes


def build(config: Config, in_channels: int, num_classes: int) -> nn.Module:
    """The model of a config with its first weights, drawn from the seed."""
    given = {"in_channels": in_channels, "num_classes": num_classes, "rng": np.random.default_rng(config["seed"])}
    takes = inspect.signature(models.BY_NAME[config["model"]]).parameters
    options = {name: value for name, value in given.items() if name in takes}
    return models.build(config["model"], **config["model_options"], **options).to(config["device"])


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
