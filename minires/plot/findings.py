"""This module decides from a run's numbers whether a title or a sentence may state a finding.

The figures and the report's sentences use the same functions.

A run's networks are {name: its lists}. Names can be any text. Networks whose names say that they are plain or residual,
in any spelling that `names.network` reads ("plain20", "plain-20", "ResNet-20"), are compared with each other. Other
networks are only drawn.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..analysis import growth_per_layer
from ..names import network
from .numbers import mean, points

Net = Mapping[str, Any]
Nets = Mapping[str, Net]

# Smaller differences than these are not a finding, and a finding on one run of each network names its seed.
ERROR_POINTS = 2.0  # percentage points
RESPONSE_SHARE = 0.02  # of the plain net's mean response
GROWTH_TOTAL = 2.0  # the first inner layer's norm / the last inner layer's norm; 1/2 or less is "shrinks"


def by_depth(nets: Nets) -> list[str]:
    """Return the names from shallow to deep, plain before residual, then names without a depth in the order given."""
    known = {name: found for name in nets if (found := network(name))}
    ranked = sorted(known, key=lambda name: (known[name].depth, known[name].family))
    return ranked + [name for name in nets if name not in known]


def depths(nets: Nets, family: str, key: str) -> list[int]:
    """Return the depths, ascending, of the nets of this family ("plain", "resnet") whose list ``key`` is not empty."""
    found = ((network(name), net) for name, net in nets.items())
    return sorted(n.depth for n, net in found if n and n.family == family and net.get(key))


def of_depth(nets: Nets, family: str, depth: int) -> str | None:
    """Return the name of the net of this family and depth, or None if `nets` has none."""
    return next((name for name in nets if (n := network(name)) and (n.family, n.depth) == (family, depth)), None)


def residual_of(nets: Nets, plain: str) -> str | None:
    """Return the name of the residual net as deep as this plain net, or None if there is none."""
    found = network(plain)
    return of_depth(nets, "resnet", found.depth) if found else None


def layers(name: str, net: Net) -> int:
    """Return the number of weight layers: as measured in the net, else as its name says, else 0."""
    found = network(name)
    return len(net.get("gradient_norms_init") or ()) or (found.depth if found else 0)


@dataclass(frozen=True)
class Errors:
    """An Errors holds the errors, in percent, of several nets after the same number of epochs."""

    epoch: int
    error: dict[str, float]


def errors_at_common_epoch(nets: Nets, names: Sequence[str | None], key: str = "train_error") -> Errors | None:
    """Return the errors after the last epoch that all nets in ``names`` have finished, or None if there is none.

    An interrupted net has finished fewer epochs than the others.
    """
    known = [name for name in names if name is not None and name in nets]
    epoch = min((len(nets[name].get(key) or ()) for name in known), default=0) if len(known) == len(names) else 0
    return Errors(epoch, {name: float(nets[name][key][epoch - 1]) for name in known}) if epoch else None


def plain_pair(nets: Nets) -> tuple[str, str] | None:
    """Return the names of the shallowest and the deepest plain net with a finished epoch, or None without two nets."""
    found = depths(nets, "plain", "train_error")
    pair = [of_depth(nets, "plain", depth) for depth in (found[0], found[-1])] if len(found) > 1 else []
    return (pair[0], pair[1]) if len(pair) == 2 and pair[0] and pair[1] and pair[0] != pair[1] else None


def depth_hurts(nets: Nets) -> Errors | None:
    """Return the training errors of the shallowest and the deepest plain net if the deepest is worse by 2 points.

    Otherwise return None, as after a single epoch, which shows only how fast networks start.
    """
    pair = plain_pair(nets)
    found = errors_at_common_epoch(nets, pair) if pair else None
    if pair is None or found is None or found.epoch < 2:
        return None
    return found if points(found.error[pair[1]], found.error[pair[0]]) >= ERROR_POINTS else None


def with_skip(nets: Nets) -> Errors | None:
    """Return the training errors of the residual nets as deep as those of `plain_pair`, the shallow one first.

    The shallow one is left out if it has no finished epoch. Return None without an epoch of the deep one, or without a
    `plain_pair`.
    """
    pair = plain_pair(nets)
    found = [residual_of(nets, plain) for plain in pair or ()]
    trained = [name for name in found if name and nets[name].get("train_error")]
    return errors_at_common_epoch(nets, trained) if found and found[-1] in trained else None


def skip_helps(nets: Nets) -> bool:
    """Return whether the residual net is better by 2 points than the deepest plain net, if depth hurts that one."""
    pair = plain_pair(nets)
    if pair is None or depth_hurts(nets) is None:
        return False
    residual = residual_of(nets, pair[1])
    found = errors_at_common_epoch(nets, [pair[1], residual])
    return found is not None and points(found.error[pair[1]], found.error[residual or ""]) >= ERROR_POINTS


@dataclass(frozen=True)
class Growth:
    """A Growth describes how the gradient norm changes in backward, from the last inner layer to the first."""

    total: float  # first inner layer's norm / last inner layer's norm
    per_layer: float  # analysis.growth_per_layer
    steps: int  # from the last inner layer to the first

    @property
    def verb(self) -> str:
        if self.total >= GROWTH_TOTAL:
            return "grows"
        return "shrinks" if self.total <= 1 / GROWTH_TOTAL else "stays about level"


def growth(norms: Sequence[float]) -> Growth | None:
    """Return the Growth of norms by layer, input first, without the stem and the classifier.

    Return None for fewer than two inner layers, or if the first or the last of them has a norm of 0.
    """
    try:
        per_layer = growth_per_layer(dict(enumerate(norms)))
    except ValueError:
        return None
    return Growth(norms[1] / norms[-2], per_layer, len(norms) - 3)


def response_pairs(nets: Nets) -> dict[int, tuple[float, float]]:
    """Return {depth: (mean response of the plain net, of the residual net)} for nets with equally many epochs."""
    pairs = {}
    for depth in depths(nets, "plain", "responses"):
        plain, residual = (nets.get(of_depth(nets, family, depth) or "", {}) for family in ("plain", "resnet"))
        trained = [len(net.get("train_error") or ()) for net in (plain, residual)]
        p, r = (mean(net.get("responses") or ()) for net in (plain, residual))
        if p is not None and r is not None and trained[0] == trained[1]:
            pairs[depth] = (p, r)
    return pairs


def responses_smaller(nets: Nets) -> bool:
    """Return whether the residual net's mean response is smaller by 2 % or more at every depth measured."""
    pairs = response_pairs(nets).values()
    return bool(pairs) and all(r <= (1 - RESPONSE_SHARE) * p for p, r in pairs)
