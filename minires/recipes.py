"""Define how to train as plain data: recipes by name, and single settings from text that a user typed."""
from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

from .names import unknown

MOST = 2**31 - 1  # largest value of a count
OPTIMIZERS = "sgd", "adam", "adamw"
SCHEDULES = "steps", "cosine", "one-cycle"
# What the fields' types mean, and their names in errors.
KINDS: dict[str, tuple[type, str]] = {
    "int": (numbers.Integral, "a whole number"), "float": (numbers.Real, "a number"), "bool": (bool, "True or False"),
    "str": (str, "text"), "tuple[float, ...]": (tuple, "a tuple of numbers")}
Settings = TypeVar("Settings")  # any dataclass


@dataclass(frozen=True)
class Recipe:
    """Says how to train. The defaults are those of `minires demo`.

    epochs = 3              number of passes over the training set
    batch_size = 100        images in a batch; 128 in He et al. 2015, section 4.2
    lr = 0.1                learning rate, the factor of each update; 0.1 in He et al. 2015, section 4.2
    momentum = 0.9          share of SGD's velocity that an update keeps, or beta1 of Adam; 0.9 in He et al. 2015,
                            section 4.2
    weight_decay = 0.0001   factor of the weights in their gradient (`optim.SGD`), or in AdamW's decay; 0.0001 in He et
                            al. 2015, section 4.2
    steps = 0               number of updates, instead of epochs; 64,000 in He et al. 2015, section 4.2. 0: `epochs`
                            decides
    drops = ()              shares of the run, rising between 0 and 1, at which lr is divided by 10; (0.5, 0.75) in He
                            et al. 2015, section 4.2, which are 32,000 and 48,000 of 64,000 updates
    warm_up_lr = 0.0        limit of lr until the training error after an epoch is below 80 %; 0.01 in He et al. 2015,
                            section 4.2, for 110 layers. 0: no warm-up
    warm_up_layers = 110    number of layers with weights, below which a network is not warmed up
    crop = 0                pixels: pad each image with this many zeros on each side, and cut out a random window of the
                            image's size; 4 in He et al. 2015, section 4.2. 0: no crop
    flip = False            mirror each image left to right with probability 1/2, as in He et al. 2015, section 4.2
    drop_last = False       leave out an epoch's last batch if it would be smaller than the others
    optimizer = "sgd"       or "adam" or "adamw", as in `optim`
    beta2 = 0.999           share that Adam's and AdamW's mean of squares keeps: Kingma & Ba 2015, Algorithm 1
    nesterov = False        look one step of SGD's velocity ahead, as in `optim.SGD`
    decay_vectors = True    False: no weight decay for biases and BatchNorm's gamma and beta. He et al. 2015 decay all
    schedule = "steps"      how lr changes. "steps": as `drops` say. "cosine": to 0 along half a cosine. "one-cycle": up
                            to lr in the first 30 %, then down. The formulas are in `optim`
    label_smoothing = 0.0   share of the target distribution, from 0 to below 1, that is uniform over the classes, as in
                            `ops.cross_entropy`
    clip = 0.0              largest norm of all gradients together, as in `optim.clip_gradients`. 0: no limit

    Raises TypeError if a field has another type, and ValueError if a number is out of its range.
    """

    epochs: int = 3
    batch_size: int = 100
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    steps: int = 0
    drops: tuple[float, ...] = ()
    warm_up_lr: float = 0.0
    warm_up_layers: int = 110
    crop: int = 0
    flip: bool = False
    drop_last: bool = False
    optimizer: str = "sgd"
    beta2: float = 0.999
    nesterov: bool = False
    decay_vectors: bool = True
    schedule: str = "steps"
    label_smoothing: float = 0.0
    clip: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, (kind, wanted) = getattr(self, field.name), KINDS[str(field.type)]
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise TypeError(f"recipe: expected {field.name} as {wanted}, got {value!r}")
        if not all(isinstance(share, numbers.Real) for share in self.drops):
            raise TypeError(f"recipe: expected drops as a tuple of numbers, got {self.drops!r}")
        for name, least in ("epochs", 1), ("batch_size", 1), ("steps", 0), ("warm_up_layers", 0), ("crop", 0):
            if getattr(self, name) < least:
                raise ValueError(f"recipe: expected {name} >= {least}, got {getattr(self, name)}")
            if getattr(self, name) > MOST:
                raise ValueError(f"recipe: expected {name} <= {MOST}, got a larger number")
        for name in "lr", "momentum", "weight_decay", "warm_up_lr", "clip":
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"recipe: expected {name} to be finite and >= 0, got {getattr(self, name)}")
        if any(not 0 < share < 1 for share in self.drops) or list(self.drops) != sorted(set(self.drops)):
            raise ValueError(f"recipe: expected drops to rise, each between 0 and 1, got {self.drops}")
        for name, known in ("optimizer", OPTIMIZERS), ("schedule", SCHEDULES):
            if getattr(self, name) not in known:
                raise unknown(f"recipe: {name}", getattr(self, name), known)
        adam = self.optimizer != "sgd"
        for name, most in ("beta2", 1), ("label_smoothing", 1), *((("momentum", 1),) if adam else ()):
            if not 0 <= getattr(self, name) < most:
                raise ValueError(f"recipe: expected {name} from 0 to below {most}, got {getattr(self, name)}")
        if self.nesterov and (adam or not self.momentum):
            raise ValueError(f"recipe: nesterov needs SGD with a momentum above 0, got optimizer {self.optimizer} and "
                             f"momentum {self.momentum}")
        if self.drops and self.schedule != "steps":
            raise ValueError(f"recipe: expected no drops with schedule {self.schedule}, which lowers lr itself, got "
                             f"{self.drops}")

    def steps_per_epoch(self, images: int) -> int:
        """Return the number of updates in one pass over `images` images, of which the last may see fewer images.

        Raises ValueError if drop_last leaves no batch.
        """
        if self.drop_last and images < self.batch_size:
            raise ValueError(f"recipe: drop_last leaves no batch of {self.batch_size} in {images} images; lower "
                             "batch_size")
        return images // self.batch_size if self.drop_last else -(-images // self.batch_size)

    def total_steps(self, images: int) -> int:
        """Return the number of updates for a training set of `images` images."""
        each = self.steps_per_epoch(images)
        return self.steps or self.epochs * each

    def images_per_epoch(self, images: int) -> int:
        """Return how many of `images` images one pass trains on."""
        return min(images, self.batch_size * self.steps_per_epoch(images))


# The fields that are not in the config.json of a run that 0.1.0 began. A file without them means the defaults.
ADDED = ("drop_last", "optimizer", "beta2", "nesterov", "decay_vectors", "schedule", "label_smoothing", "clip")

RECIPES = {
    # He et al. 2015, section 4.2: lr 0.1, divided by 10 at 32k and at 48k iterations, and 64k iterations in all.
    # BatchNorm here sees the whole batch of 128; in the paper each of two GPUs normalised 64 images.
    "paper-cifar": Recipe(steps=64_000, batch_size=128, drops=(0.5, 0.75), warm_up_lr=0.01, crop=4, flip=True),
    # The same schedule in 8 epochs: they already show which networks are better, but not yet the paper's errors.
    "short-cifar": Recipe(epochs=8, batch_size=128, drops=(0.5, 0.75), warm_up_lr=0.01, crop=4, flip=True),
    "demo": Recipe(),
}


def named(name: str) -> Recipe:
    """Return the recipe with this name.

    Raises ValueError, which lists the most similar names, if there is none.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]


def parse(key: str, text: str, kind: Any) -> Any:
    """Convert a setting's text to int, float, bool, str or tuple[float, ...] ("0.5,0.75").

    Raises ValueError, which names the setting and what was expected, if the text does not fit.
    """
    expected = {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "numbers, as in 0.5,0.75")
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind in (int, float, str):
            return kind(text)
        return tuple(float(part) for part in text.split(",") if part.strip())
    except (KeyError, ValueError):
        raise ValueError(f"setting {key}: expected {expected}, got {text!r}") from None


def override(settings: Settings, texts: Mapping[str, str]) -> Settings:
    """Return a copy of the dataclass `settings`, in which the fields named in `texts` are replaced.

    Each text is converted to the type of its field.

    Raises ValueError if a text does not fit.
    """
    kinds = get_type_hints(type(settings))
    values = {key: parse(key, text, kinds[key]) for key, text in texts.items()}
    return dataclasses.replace(settings, **values)  # type: ignore[type-var]
