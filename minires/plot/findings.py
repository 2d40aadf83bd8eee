"""What the numbers of a training run say: functions of numbers that decide whether a title or a sentence may state a
finding. The figures and the report's sentences use the same ones."""
from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Net = Mapping[str, Any]
Nets = Mapping[str, Net]

# Smaller differences than these are not called a finding.
ERROR_POINTS = 2.0  # percentage points
RESPONSE_SHARE = 0.02  # of the plain net's mean response
GROWTH_TOTAL = 2.0  # between the first and the last 3x3 layer; below 1/2 is "shrinks"


def split_name(name: str) -> tuple[str, int]:
    """The kind and depth in a name: ("resnet", 56) for "resnet-56"."""
    match = re.fullmatch(r"(plain|resnet)-([1-9][0-9]*)", name)
    if match is None:
        raise ValueError(f"name of a net: expected 'plain-<depth>' or 'resnet-<depth>', got {name!r}")
    return match[1], int(match[2])


def pretty(name: str) -> str:
    """The spelling used in text: "ResNet-56" for "resnet-56"."""
    return name.replace("resnet", "ResNet")


def by_depth(nets: Nets) -> list[str]:
    """Names from shallow to deep, plain before residual."""
    return sorted(nets, key=lambda name: (split_name(name)[1], split_name(name)[0]))


def depths(nets: Nets, kind: str, key: str) -> list[int]:
    """Depths of the nets of this kind ("plain", "resnet") whose list ``key`` is not empty, ascending."""
    return sorted(d for k, d, net in ((*split_name(n), nets[n]) for n in nets) if k == kind and net.get(key))


def layers(name: str, net: Net) -> int:
    """Number of weight layers: as counted in the net if it was measured, else as its name says."""
    return len(net.get("gradient_norms_init") or ()) or split_name(name)[1]


def mean(values: Sequence[float]) -> float | None:
    """Arithmetic mean, None for an empty list."""
    return math.fsum(values) / len(values) if len(values) else None


def percent(value: float) -> str:
    """12.34 -> "12.3 %"."""
    return f"{value:.1f} %"


def points(value: float, other: float) -> float:
    """value - other in percentage points, of the rounded numbers, so that a reader's subtraction agrees."""
    return round(round(value, 1) - round(other, 1), 1)


@dataclass(frozen=True)
class Errors:
    """Errors in percent of several nets after the same number of epochs."""

    epoch: int
    error: dict[str, float]


def errors_at_common_epoch(nets: Nets, names: Sequence[str], key: str = "train_error") -> Errors | None:
    """Errors after the last epoch that all ``names`` have finished, or None. An interrupted net has fewer."""
    epoch = min((len(nets[name].get(key) or ()) if name in nets else 0 for name in names), default=0)
    return Errors(epoch, {name: float(nets[name][key][epoch - 1]) for name in names}) if epoch else None


def plain_pair(nets: Nets) -> tuple[str, str] | None:
    """Names of the shallowest and the deepest plain net with a finished epoch, if there are two."""
    found = depths(nets, "plain", "train_error")
    return (f"plain-{found[0]}", f"plain-{found[-1]}") if len(found) > 1 else None


def depth_hurts(nets: Nets) -> Errors | None:
    """Training errors of the shallowest and the deepest plain net, if the deepest is worse by 2 points.

    Not after a single epoch: that shows how fast networks start, and is too early for a finding.
    """
    pair = plain_pair(nets)
    found = errors_at_common_epoch(nets, pair) if pair else None
    if pair is None or found is None or found.epoch < 2:
        return None
    return found if points(found.error[pair[1]], found.error[pair[0]]) >= ERROR_POINTS else None


def skip_repairs(nets: Nets) -> tuple[str, Errors] | None:
    """How far the residual net of the deepest plain net's depth takes the effect of depth back, if it does.

    "undoes": its training error is not above the shallow plain net's. "undoes most of": at least half of the
    gap is gone. "reduces": 2 points or more are gone. All three nets are compared after the same epoch.
    """
    pair = plain_pair(nets)
    if pair is None or depth_hurts(nets) is None:
        return None
    shallow, deep = pair
    residual = deep.replace("plain", "resnet")
    found = errors_at_common_epoch(nets, [shallow, deep, residual])
    if found is None:
        return None
    gap = points(found.error[deep], found.error[shallow])
    gone = points(found.error[deep], found.error[residual])
    if gap < ERROR_POINTS or gone < ERROR_POINTS:
        return None
    return ("undoes" if gone >= gap else "undoes most of" if gone >= gap / 2 else "reduces"), found


@dataclass(frozen=True)
class Growth:
    """How the gradient norm changes from the last 3x3 layer to the first, the way it travels."""

    total: float  # first layer's norm / last layer's norm
    per_layer: float  # geometric mean of the ratios of neighbouring layers
    steps: int

    @property
    def verb(self) -> str:
        if self.total >= GROWTH_TOTAL:
            return "grows"
        return "shrinks" if self.total <= 1 / GROWTH_TOTAL else "stays about level"


def growth(norms: Sequence[float]) -> Growth | None:
    """Growth over the 3x3 layers of ``norms`` (input first; the last entry, the classifier, is left out)."""
    convolutions = norms[:-1]
    if len(convolutions) < 2 or min(convolutions[0], convolutions[-1]) <= 0:
        return None
    total = convolutions[0] / convolutions[-1]
    steps = len(convolutions) - 1
    return Growth(total, total ** (1 / steps), steps)


def response_pairs(nets: Nets) -> dict[int, tuple[float, float]]:
    """{depth: (plain net's mean response, residual net's)} where measured after equally many epochs."""
    pairs = {}
    for depth in depths(nets, "plain", "responses"):
        plain, residual = nets[f"plain-{depth}"], nets.get(f"resnet-{depth}", {})
        trained = [len(net.get("train_error") or ()) for net in (plain, residual)]
        p, r = mean(plain["responses"]), mean(residual.get("responses") or ())
        if p is not None and r is not None and trained[0] == trained[1]:
            pairs[depth] = (p, r)
    return pairs


def responses_smaller(nets: Nets) -> bool:
    """Whether the residual net's mean response is smaller by 2 % or more at every depth measured."""
    pairs = response_pairs(nets).values()
    return bool(pairs) and all(r <= (1 - RESPONSE_SHARE) * p for p, r in pairs)


def number(value: float) -> str:
    """Three digits: "1.21", "14.1", "3,730", and "2.8e4" where that is shorter to read."""
    if value == 0 or 0.001 <= abs(value) < 9999.5:
        rounded = float(f"{value:.3g}")
        return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:.3g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"
