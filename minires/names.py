"""Convert networks' names between keys and text, and report names that are unknown.

A network has one key, which is the name of its function in `models`, and one printed name:

    key                 printed                      also read
    plain20             plain-20                     Plain-20, plain_20
    resnet20            ResNet-20                    resnet-20, ResNet20
    preact_resnet164    pre-activation ResNet-164    preact-resnet-164
    bn_after_addition_resnet110   BN-after-addition ResNet-110   bn-after-addition-resnet-110
    vgg16_bn            VGG-16 with BN               vgg-16-bn
    googlenet           GoogLeNet
    wide_resnet50_2     Wide ResNet-50-2             wide-resnet-50-2
    resnext50_32x4d     ResNeXt-50 32x4d             ResNeXt50-32x4d
"""
from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable
from fnmatch import fnmatchcase
from numbers import Integral
from typing import Any, NamedTuple

_NETWORK = re.compile(r"(?:(?P<family>plain|(?:(?P<placed>(?:bn[-_ ]after|relu[-_ ]before)[-_ ]addition[-_ ]"
                      r"|relu[-_ ]only[-_ ](?:preact|pre-activation)[-_ ])"
                      r"|(?P<preact>(?:preact|pre-activation)[-_ ]?))?"
                      r"resnet)"
                      r"[-_ ]?(?P<depth>[1-9][0-9]*)|vgg[-_ ]?(?P<vgg>[1-9][0-9]*)(?P<bn>[-_]bn| with BN)?"
                      r"|(?P<googlenet>googlenet)|(?P<wide>wide[-_ ]?resnet[-_ ]?50[-_ ]2)"
                      r"|(?P<next>resnext[-_ ]?50[-_ ]32x4d))(?!\w)", re.IGNORECASE)
_PRINTED = {"plain": "plain", "resnet": "ResNet", "preact_resnet": "pre-activation ResNet", "vgg": "VGG",
            "googlenet": "GoogLeNet", "wide_resnet": "Wide ResNet", "resnext": "ResNeXt",
            "bn_after_addition_resnet": "BN-after-addition ResNet",
            "relu_before_addition_resnet": "ReLU-before-addition ResNet",
            "relu_only_preact_resnet": "ReLU-only pre-activation ResNet"}
_AFTER_DEPTH = {"wide_resnet": ("_2", "-2"), "resnext": ("_32x4d", " 32x4d")}  # in the key, in the printed name


class Network(NamedTuple):
    """Describes a network of the papers, as far as the network's name does."""

    family: str       # the key without numbers and BN: "plain", "resnet", "preact_resnet", "vgg", "wide_resnet"
    depth: int        # number of layers with weights; 0 if the name has no number
    batch_norm: bool  # whether the name contains BN, as "vgg16_bn" does

    @property
    def residual(self) -> bool:
        """Whether the network has shortcuts."""
        return self.family.endswith(("resnet", "resnext"))

    @property
    def key(self) -> str:
        """The name of the network's function in `models`: "resnet20"."""
        return f"{self.family}{self.depth or ''}{_AFTER_DEPTH.get(self.family, ('', ''))[0]}{'_bn' * self.batch_norm}"

    @property
    def printed(self) -> str:
        """The network's name in text and figures: "ResNet-20"."""
        depth = f"-{self.depth}" if self.depth else ""
        after = _AFTER_DEPTH.get(self.family, ("", ""))[1]
        return f"{_PRINTED[self.family]}{depth}{after}{' with BN' * self.batch_norm}"


def network(label: str, *, more: bool = False) -> Network | None:
    """Read a network's name in any of its spellings. Return None if `label` is not such a name.

    more: whether other text may follow the name, as in "ResNet-56, width 8"
    """
    found = _NETWORK.match(label) if more else _NETWORK.fullmatch(label)
    if found is None:
        return None
    if found["googlenet"]:
        return Network("googlenet", 0, False)
    if found["wide"] or found["next"]:
        return Network("wide_resnet" if found["wide"] else "resnext", 50, False)
    if found["vgg"]:
        return Network("vgg", int(found["vgg"]), bool(found["bn"]))
    if found["placed"]:
        words = re.split("[-_ ]", found["placed"].lower().replace("pre-activation", "preact"))
        return Network("_".join(words) + "resnet", int(found["depth"]), False)
    return Network("preact_resnet" if found["preact"] else found["family"].lower(), int(found["depth"]), False)


def printed(name: str) -> str:
    """Return a network's name for text and figures: "ResNet-20" for "resnet20". Any other name is unchanged."""
    found = network(name)
    return found.printed if found else name


def key(name: str) -> str:
    """Return a network's key in `models.BY_NAME`: "plain20" for "plain-20". Any other name is unchanged."""
    found = network(name)
    return found.key if found else name


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: "1 thread" or "2 threads"."""
    return f"{count} {noun}{'s' * (count != 1)}"


def check_whole(what: str, value: Any, least: int = 1) -> None:
    """Raise ValueError, which begins with `what`, unless `value` is a whole number from `least` on."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{what}: expected a whole number from {least}, got {value!r}")


def shortened(name: str, most: int = 32) -> str:
    """Return a name of at most `most` characters, without its middle if it is longer."""
    return name if len(name) <= most else f"{name[:(most - 1) // 2]}…{name[len(name) - most // 2:]}"


def fits(name: str, pattern: str) -> bool:
    """Return True if the name, or the name of something that contains it, has this pattern: "layer1", "*.bn?"."""
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[:i]), pattern) for i in range(1, len(parts) + 1))


class Substitution:
    r"""Changes a name by a regular expression, as sed does.

        Substitution(r"s/block(\d+)/layer{\1+1}/")("block0.conv1.weight") == "layer1.conv1.weight"

    text: "s/OLD/NEW/", with any other sign instead of the slash. NEW may refer to the groups of OLD as \1 to \9, and
        {\1+1} or {\1-3} is a group's whole number plus or minus another. With "g" at the end every match is replaced,
        without it the first

    The search tries every way to repeat what OLD says may repeat, so some regular expressions take years. OLD therefore
    may repeat one character, as in \d+ or [a-z]*, but no group with *, + or {}; it has no (?...) and no \1; and
    `check` counts the ways to try.

    Raises ValueError if the text has another form, or if OLD is not such a regular expression.
    """

    def __init__(self, text: str):
        form = _SUBSTITUTION.fullmatch(text) if isinstance(text, str) else None
        if form is None:
            raise ValueError(f"rename: expected s/OLD/NEW/ with a regular expression OLD, got {text!r}")
        sign, old, self.new, every = form.groups()
        self.text, self.count = text, 0 if every else 1
        old, self.new = (part.replace(f"\\{sign}", sign) for part in (old, self.new))
        self.repeats, self.choices = _ways(text, old)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # of what a later Python will read in another way
                self.old = re.compile(old)
        except (re.error, OverflowError, RecursionError, Warning) as e:
            raise ValueError(f"rename: {text[:SHOWN]!r}: {old[:SHOWN]!r} is not a regular expression: {e}") from e
        for number in re.findall(r"\\(\d)", self.new):
            if not 0 < int(number) <= self.old.groups:
                raise ValueError(f"rename: {text!r}: \\{number} refers to a group that {old!r} does not have")

    def __call__(self, name: str) -> str:
        self.check([name])
        return self.old.sub(self._filled, name, count=self.count)

    def check(self, names: Iterable[str]) -> None:
        """Raise ValueError if there are too many ways to match OLD with the names.

        q repeats share a name of n characters in at most (n + q + 1) choose (q + 1) ways, where the match may begin
        anywhere. Each "?" and each "|" doubles the number.
        """
        q = self.repeats
        ways = sum(math.comb(len(name) + q + 1, q + 1) for name in names) << self.choices
        if ways > MOST_WAYS:
            raise ValueError(f"rename: {self.text[:SHOWN]!r}: there may be {ways:.1g} ways to match it with these "
                             f"names, and at most {MOST_WAYS:.0g} are tried; write it with fewer *, +, {{}}, ? and |")

    def _filled(self, found: re.Match[str]) -> str:
        def number(reference: re.Match[str]) -> str:
            group = found[int(reference[1])] or ""
            if not group.isdecimal() or len(group) > 18:
                raise ValueError(f"rename: {self.text!r}: expected \\{reference[1]} to be a whole number, got "
                                 f"{group[:SHOWN]!r} in {found.string[:SHOWN]!r}")
            return str(int(group) + int(reference[2]))

        text = re.sub(r"\{\\(\d)([+-]\d+)\}", number, self.new)
        return re.sub(r"\\(\d)", lambda reference: found[int(reference[1])] or "", text)


_SUBSTITUTION = re.compile(r"s([^\w\\])((?:\\.|(?!\1)[^\\])+)\1((?:\\.|(?!\1)[^\\])*)\1(g?)", re.DOTALL)
MOST_WAYS = 2 * 10**8  # which take a few seconds at most


def _ways(text: str, old: str) -> tuple[int, int]:
    """Return how many repeats of one character a regular expression has, and how many "?" and "|".

    Raises ValueError, which names the whole `text`, for what a Substitution may not have.
    """
    if refused := re.search(r"\\[1-9]", old.replace(r"\\", "")):
        raise ValueError(f"rename: {text[:SHOWN]!r}: expected no reference such as {refused[0]} in OLD, only in "
                         "NEW")
    plain = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "x", old, flags=re.DOTALL)  # escapes and sets are one character
    if "(?" in plain:
        raise ValueError(f"rename: {text[:SHOWN]!r}: expected groups as (...), got {plain[plain.index('(?'):][:3]}")
    if refused := re.search(r"\)(?:[*+]|\{\d*,?\d*\})", plain):
        raise ValueError(f"rename: {text[:SHOWN]!r}: expected no group to repeat, got {refused[0]} after one; repeat "
                         "one character, as in [a-z]+, or write the group several times")
    repeats = re.findall(r"[*+]|\{\d*,?\d*\}", plain)
    return len(repeats), plain.count("?") + plain.count("|")


class UsageError(ValueError):
    """A name or an option that the user typed or chose is wrong, or several of them do not fit together."""


SHOWN = 60  # how many names an error lists: enough for all networks, but not for all weights of a network


def unknown(what: str, given: object, known: Iterable[str]) -> UsageError:
    """Return the error to raise if `given` is not a known name. It lists the most similar names, or, if there are none,
    all known names. Of many names with dots it lists the first parts: of all weights of a network, its layers."""
    names = sorted(known)
    import difflib  # late, because only an error needs it

    near = difflib.get_close_matches(str(given), names, n=3)
    if len(names) > SHOWN:
        names = sorted({name.partition(".")[0] for name in names})
    more = f" and {len(names) - SHOWN} more" * (len(names) > SHOWN)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names[:SHOWN])}{more}"
    return UsageError(f"{what}: unknown name {given!r:.200}; {hint}")
