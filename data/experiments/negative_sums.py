"""Measure the share of negative sums in the blocks of finished runs, before and after training:

    python data/experiments/negative_sums.py runs/placement/warm-up ... --out data/results/placement/negative_sums.json

Each folder holds the folders of runs. The file is written after every run, and the same command goes through the runs
that it does not contain yet.
"""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from minires import analysis, info, kernels, runs
from minires.files import records
from minires.files.atomic import write_atomically

IMAGES = 500  # the first test images, one batch in train mode


def measure(folder: Path) -> dict[str, Any]:
    """Return what was trained in this folder, and the shares of every block before and after training."""
    found = runs.read(folder)
    images, config = found.images[:IMAGES], found.config
    return {"model": config.model, "seed": config.seed, "warm_up_lr": config.recipe.warm_up_lr, "images": len(images),
            **{when: {name: round(share, 4) for name, share in analysis.negative_sums(model, images).items()}
               for when, model in (("before", found.fresh()), ("after", found.model))}}


def main() -> None:
    """Measure the runs that the file does not contain yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="folder with the folders of runs")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json", help="the results")
    args = parser.parse_args()
    whole: dict[str, Any] = records.read(args.out) if args.out.exists() else {
        "command": f"python data/experiments/negative_sums.py ... --out {args.out.name}", "versions": info.versions(),
        "machine": info.machine(), "commit": info.commit(), "runs": []}
    done = {(run["model"], run["seed"], run["warm_up_lr"]) for run in whole["runs"]}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with kernels.session(threads=1):
        for folder in (path.parent for at in args.folders for path in sorted(at.glob("*/weights.safetensors"))):
            config = runs.read_config(folder)
            if (config.model, config.seed, config.recipe.warm_up_lr) not in done:
                whole["runs"].append(measure(folder))
                write_atomically(args.out, records.text(whole) + "\n")
                print(folder, flush=True)


if __name__ == "__main__":
    main()
