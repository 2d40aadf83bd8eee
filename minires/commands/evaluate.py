"""Implement `minires evaluate`, which measures how many test images a trained network classifies correctly."""
from __future__ import annotations

import json
from pathlib import Path

from .. import datasets, models
from ..evaluate import Score, score
from ..names import UsageError, key
from .subject import Subject, Told, from_run, from_weights


def find(source: str, weights: Path | None, told: Told, *, root: datasets.Root = None, where: str | None = None,
         download: bool = False) -> Subject:
    """Return what to evaluate: the network named `source` with `weights`, or the run in the folder `source`.

    Raises UsageError if an argument is missing or not allowed.
    Raises what from_run and from_weights raise.
    """
    if weights is None and Path(source).is_dir():
        return from_run(Path(source), told, root=root, where=where, download=download)
    if weights is not None and Path(source).is_dir() and key(source) not in models.BY_NAME:
        raise UsageError(f"{source} is a folder: leave out {weights} to evaluate the run in it, or name a network")
    if weights is None and key(source) not in models.BY_NAME:
        raise UsageError(f"{source} is a file: give the name of its network before it, as in minires evaluate resnet20 "
                         f"{source} --dataset cifar10" if Path(source).is_file() else
                         f"{source} is neither the folder of a run nor the name of a network; `minires models` lists "
                         "the networks")
    missing = ["weights"] * (weights is None) + ["dataset"] * (told.dataset is None)
    if weights is None or missing:
        raise UsageError(f"{' and '.join(missing)} missing: a network's name needs both, as in minires evaluate "
                         f"resnet20 resnet20.th --dataset cifar10. {source} is not the folder of a run; such a folder "
                         "needs neither")
    return from_weights(weights, source, told, root=root, where=where, download=download)


def run(looked_at: Subject, *, batch_size: int = 500, as_json: bool = False) -> str:
    """Count the test images that the network classifies correctly. Return the result as text, or as one JSON object."""
    s = looked_at
    found = score(s.model, s.images, s.labels, s.classes, batch_size, progress=True)
    if as_json:
        per_class = {name: {"correct": right, "total": of} for name, (right, of) in found.per_class.items()}
        return json.dumps({"model": s.words["network"], "weights": s.words["weights"], "dataset": s.words["data"],
                           "input": s.words["input"], "shortcut": s.shortcut, "pad": s.pad,
                           "correct": found.correct, "total": found.total,
                           "error": found.error, "per_class": per_class,
                           "images_per_second": round(found.images_per_second, 1)})
    lines = [f"{s.words['network']} on {s.words['data']}, {found.total} test images", f"input {s.words['input']}"]
    if s.shortcut:
        where = {"both": "half on each side (--pad both)", "end": "at the end (--pad end)"}.get(s.pad, "")
        lines.append(f"option {s.shortcut} shortcuts" + (f", zero channels {where}" if where else ""))
    return "\n".join([*lines, text(found), *near_chance(s, found)])


def near_chance(s: Subject, found: Score) -> list[str]:
    """Return lines that say what may be wrong if hardly more images are right than by chance: fewer than twice as many.
    """
    chance = found.total / len(found.per_class)
    if found.correct >= 2 * chance or len(found.per_class) < 4:
        return []
    lines = [f"Guessing gives about {chance:.0f} correct, so the weights and the network or the input do not fit:"]
    if s.pad and "recipe" not in s.words:
        other = {"both": "end", "end": "both"}[s.pad]
        convention = "at the end" if other == "end" else "half on each side"
        lines.append(f"  --pad {other}: many published networks with option A add the zero channels\n  {convention}")
    if "recipe" not in s.words:
        lines.append("  --mean and --std, or --normalize: the input that the network was trained on")
    return [*lines, "  a network that is not trained, or another order of the classes"]


def text(found: Score) -> str:
    """Return a Score as lines to print."""
    width = max(map(len, found.per_class))
    lines = [f"{found.correct}/{found.total} correct, error {found.error:.2f} %, "
             f"{found.images_per_second:,.0f} images/s"]
    return "\n".join(lines + [f"  {name:{width}}  {right}/{of}" + (f"  {100 * right / of:.1f} %" if of else "")
                              for name, (right, of) in found.per_class.items()])
