"""Names: networks' names as keys and in text, and what to say where a name that a person typed is not known.

A network has one key, which is its function's name in `models`, and one printed name:

    key                 printed                      also read
    plain20             plain-20                     Plain-20, plain_20
    resnet20            ResNet-20                    resnet-20, ResNet20
    preact_resnet164    pre-activation ResNet-164    preact-resnet-164
    vgg16_bn            VGG-16 with BN               vgg-16-bn
    googlenet           GoogLeNet
"""
from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import NamedTuple

_NETWORK = re.compile(r"(?:(?P<family>plain|(?P<preact>(?:preact|pre-activation)[-_ ]?)?resnet)"
                      r"[-_ ]?(?P<depth>[1-9][0-9]*)|vgg[-_ ]?(?P<vgg>[1-9][0-9]*)(?P<bn>[-_]bn| with BN)?"
                      r"|(?P<googlenet>googlenet))(?!\w)", re.IGNORECASE)
_PRINTED = {"plain": "plain", "resnet": "ResNet", "preact_resnet": "pre-activation ResNet", "vgg": "VGG",
            "googlenet": "GoogLeNet"}


class Network(NamedTuple):
    """A network of the papers, as far as its name tells."""

    family: str       # "plain", "resnet", "preact_resnet", "vgg" or "googlenet"
    depth: int        # layers with weights; 0 where the name has no number
    batch_norm: bool  # whether the name says so: "vgg16_bn"

    @property
    def residual(self) -> bool:
        """Whether it has shortcuts."""
        return self.family.endswith("resnet")

    @property
    def key(self) -> str:
        """Its function's name in `models`: "resnet20"."""
        return f"{self.family}{self.depth or ''}{'_bn' * self.batch_norm}"

    @property
    def printed(self) -> str:
        """Its name in text and figures: "ResNet-20"."""
        depth = f"-{self.depth}" if self.depth else ""
        return f"{_PRINTED[self.family]}{depth}{' with BN' * self.batch_norm}"


def network(label: str, *, more: bool = False) -> Network | None:
    """Read a network's name, in any of its spellings; None where `label` is not one.

    more: let other text follow the name, as in "ResNet-56, width 8".
    """
    found = _NETWORK.match(label) if more else _NETWORK.fullmatch(label)
    if found is None:
        return None
    if found["googlenet"]:
        return Network("googlenet", 0, False)
    if found["vgg"]:
        return Network("vgg", int(found["vgg"]), bool(found["bn"]))
    return Network("preact_resnet" if found["preact"] else found["family"].lower(), int(found["depth"]), False)


def printed(name: str) -> str:
    """A network's name in text and figures: "ResNet-20" for "resnet20"; a name that is no network's is unchanged."""
    found = network(name)
    return found.printed if found else name


def key(name: str) -> str:
    """A network's name as a key, as in `models.BY_NAME`: "plain20" for "plain-20"; any other name is unchanged."""
    found = network(name)
    return found.key if found else name


class UsageError(ValueError):
    """What the user typed or chose does not fit: a name, an option, or several of them together."""


SHOWN = 60  # names in an error: all networks, but not all weights of one


def unknown(what: str, given: object, known: Iterable[str]) -> UsageError:
    """The error to raise where `given` is none of the `known` names: says which come nearest, or which
    there are."""
    names = sorted(known)
    near = difflib.get_close_matches(str(given), names, n=3)
    more = f" and {len(names) - SHOWN} more" * (len(names) > SHOWN)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names[:SHOWN])}{more}"
    return UsageError(f"{what}: unknown name {given!r}; {hint}")
