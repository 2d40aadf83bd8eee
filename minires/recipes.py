"""How to train, as plain data: recipes by name, and single settings as a person types them."""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

from .names import unknown

MOST = 2**31 - 1  # of anything that is counted
Settings = TypeVar("Settings")  # any dataclass


@dataclass(frozen=True)
class Recipe:
    """How to train. The defaults are those of `minires demo`. ValueError where a number makes no sense."""

    epochs: int = 3
    batch_size: int = 100
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    steps: int = 0                 # updates in all, in place of epochs; 0: as many as the epochs hold
    drops: tuple[float, ...] = ()  # shares of the run, in order: from each of them on lr is a tenth of what it was
    warm_up_lr: float = 0.0        # lr until the training error at an epoch's end is below 80 %; 0: no warm-up
    warm_up_layers: int = 110      # networks with fewer weight layers need no warm-up
    crop: int = 0                  # every image padded by so many zeros, a random window of its old size cut out
    flip: bool = False             # every second image, at random, mirrored left to right

    def __post_init__(self) -> None:
        for name, least in ("epochs", 1), ("batch_size", 1), ("steps", 0), ("warm_up_layers", 0), ("crop", 0):
            if getattr(self, name) < least:
                raise ValueError(f"recipe: expected {name} >= {least}, got {getattr(self, name)}")
            if getattr(self, name) > MOST:
                raise ValueError(f"recipe: expected {name} <= {MOST}, got a larger number")
        for name in "lr", "momentum", "weight_decay", "warm_up_lr":
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"recipe: expected {name} to be finite and >= 0, got {getattr(self, name)}")
        if any(not 0 < share < 1 for share in self.drops) or list(self.drops) != sorted(set(self.drops)):
            raise ValueError(f"recipe: expected drops to rise, each between 0 and 1, got {self.drops}")

    def total_steps(self, images: int) -> int:
        """Updates in all, for a training set of so many images; the last batch of an epoch may be smaller."""
        return self.steps or self.epochs * -(-images // self.batch_size)


RECIPES = {
    # He et al. 2015, section 4.2: lr 0.1, a tenth from 32k and again from 48k iterations on, 64k in all. Our BatchNorm
    # sees the whole batch of 128; the paper's two GPUs normalised 64 images each.
    "paper-cifar": Recipe(steps=64_000, batch_size=128, drops=(0.5, 0.75), warm_up_lr=0.01, crop=4, flip=True),
    # The same shape in 8 epochs: the order of the networks shows already, the errors are not yet the paper's.
    "short-cifar": Recipe(epochs=8, batch_size=128, drops=(0.5, 0.75), warm_up_lr=0.01, crop=4, flip=True),
    "demo": Recipe(),
}


def named(name: str) -> Recipe:
    """The recipe of this name. ValueError, with the nearest, for no such name."""
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]


def parse(key: str, text: str, kind: Any) -> Any:
    """A setting's text as int, float, bool, str or tuple[float, ...] ("0.5,0.75"). ValueError says which and why."""
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
    """`settings`, a dataclass, with the fields named in `texts` replaced, each read by its field's type."""
    kinds = get_type_hints(type(settings))
    values = {key: parse(key, text, kinds[key]) for key, text in texts.items()}
    return dataclasses.replace(settings, **values)  # type: ignore[type-var]
