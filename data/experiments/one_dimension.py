"""Fit functions of one number with stacks of small layers, with and without shortcuts:

    python data/experiments/one_dimension.py --out data/results/one-dimension/results.json

The file is written after every training, and the same command resumes it. data/results/EXPERIMENTS.md has the question
and the predictions.
"""
from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from minires import analysis, info, kernels, models, train
from minires.files import records
from minires.files.atomic import write_atomically
from minires.tensor import Tensor, no_grad

TARGETS = {
    "identity": lambda x: x,
    "near the identity": lambda x: x + 0.2 * np.sin(np.pi * x),
    "minus the identity": lambda x: -x,  # the control: as simple as the identity, but far from it
}
STACKS: dict[str, dict[str, bool]] = {
    "plain": {"residual": False},
    "residual": {},
    "residual, starts as the identity": {"zero_last": True},
}
SETTINGS: dict[str, Any] = {
    "blocks": [1, 2, 4, 8, 32], "hidden": 8, "rates": [0.01, 0.001], "seeds": [0, 1, 2], "optimizer": "adam",
    "schedule": "cosine", "steps": 1000, "batch_size": 64, "training_points": 256, "test_points": 201,
    "range": [-1, 1]}
DRAWN = {"blocks": 8, "rate": 0.01, "seed": 0}  # of these trainings the curves after each block are kept, too


def points(count: int) -> np.ndarray:
    """Return numbers at equal distances over the range: float32 (count, 1)."""
    return np.linspace(*SETTINGS["range"], count, dtype=np.float32)[:, None]


def squares(out: Tensor, wanted: Any) -> Tensor:
    """Return the mean square of the errors."""
    e = out - Tensor(wanted)
    return (e * e).mean()


def rms(model: Any, x: Any, wanted: Any) -> float:
    """Return the root of the mean square of the errors."""
    with no_grad():
        return math.sqrt(float(np.square(model.eval()(Tensor(x)).data - wanted, dtype="f8").mean()))


def fit(target: str, stack: str, blocks: int, rate: float, seed: int) -> dict[str, Any]:
    """Train one stack. Return its error on the test points before and after; after is None if the loss overflowed."""
    net = models.scalar_stack(blocks, SETTINGS["hidden"], rng=np.random.default_rng(seed), **STACKS[stack])
    x, x_test = points(SETTINGS["training_points"]), points(SETTINGS["test_points"])
    y, y_test = (TARGETS[target](v).astype(np.float32) for v in (x, x_test))
    recipe = train.Recipe(steps=SETTINGS["steps"], batch_size=SETTINGS["batch_size"], lr=rate, weight_decay=0.0,
                          optimizer=SETTINGS["optimizer"], schedule=SETTINGS["schedule"])
    drawn = {"blocks": blocks, "rate": rate, "seed": seed} == DRAWN
    found = {"target": target, "stack": stack, "blocks": blocks, "rate": rate, "seed": seed,
             "before": rms(net, x_test, y_test), "after": None}
    curves = [analysis.after_each_block(net, x_test[::5, 0])]
    try:
        for _ in train.fit(net, (x, y), (x[:1], y[:1]), recipe, rng=seed, loss=squares,
                           measure=lambda model, images, labels: 0.0):
            pass
        found["after"] = rms(net, x_test, y_test)
    except train.NotFinite:
        pass
    if drawn:
        curves.append(analysis.after_each_block(net, x_test[::5, 0]))
        found["curves"] = {when: np.round(c, 4).tolist() for when, c in zip(("before", "after"), curves, strict=True)}
    return found


def main() -> None:
    """Train what the file does not contain yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json", help="the results")
    out = parser.parse_args().out
    whole: dict[str, Any] = {"command": f"python data/experiments/one_dimension.py --out {out.name}",
                             "settings": SETTINGS, "versions": info.versions(), "machine": info.machine(),
                             "commit": info.commit(), "runs": []}
    if out.exists():
        earlier = records.read(out)
        if earlier.get("settings") != SETTINGS:
            sys.exit(f"{out} has other settings; choose another --out")
        whole = earlier
    done = {tuple(run[key] for key in ("target", "stack", "blocks", "rate", "seed")) for run in whole["runs"]}
    out.parent.mkdir(parents=True, exist_ok=True)
    todo = [(target, stack, blocks, rate, seed) for rate in SETTINGS["rates"] for seed in SETTINGS["seeds"]
            for blocks in SETTINGS["blocks"] for stack in STACKS for target in TARGETS]
    with kernels.session(threads=1):
        for i, one in enumerate(todo, 1):
            if one not in done:
                whole["runs"].append(fit(*one))
                write_atomically(out, records.text(whole) + "\n")
                print(f"{i} of {len(todo)}: {one}, {whole['runs'][-1]['after']}", flush=True)


if __name__ == "__main__":
    main()
