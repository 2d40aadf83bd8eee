"""Time training steps and inference of all networks that minires has goals for, next to its peers, on the CPU.

    python benchmarks/cpu.py --out benchmarks/results

Every network is one run of train_step.py with its own file in the folder. The networks are ResNet-20 with batches of
128 and 32 images, with one thread, in evaluation mode and four times as wide, and the networks of `minires demo`.
"""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import common
import train_step

DEMO = ["--width", "8", "--image", "1x14x14", "--batch", "100"]
CASES = {  # {name of the file: options of train_step.py}
    "train_step": ["--peers", "torch,blocked,reference,dezero,dezero-as-is,chainer,tinygrad"],
    "train_step_1_thread": ["--peers", "torch,blocked", "--threads", "1"],
    "train_step_batch_32": ["--peers", "torch,blocked", "--batch", "32", "--steps", "10"],
    "train_step_width_64": ["--peers", "torch,blocked", "--width", "64", "--batch", "16", "--steps", "3"],
    "demo_20": ["--peers", "torch,blocked", *DEMO, "--steps", "20"],
    "demo_56": ["--peers", "torch,blocked", *DEMO, "--depth", "56", "--steps", "10"],
    "inference": ["--peers", "torch,blocked", "--inference"],
}


def main(argv: Sequence[str]) -> int:
    """Run every case, or those that --cases names."""
    p = common.argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the JSON files")
    p.add_argument("--rounds", type=common.positive, default=9, metavar="N", help="interleaved rounds")
    p.add_argument("--cases", default=",".join(CASES), metavar="A,B", help="any of the default")
    common.add_pythons(p)
    args = p.parse_args(argv)
    names = args.cases.split(",")
    if unknown := [name for name in names if name not in CASES]:
        p.error(f"--cases: expected any of {', '.join(CASES)}, got {unknown[0]!r}")
    pythons = [word for name, path in getattr(args, "python", []) for word in ("--python", f"{name}={path}")]
    for name in names:
        words = [*CASES[name], "--rounds", str(args.rounds), *pythons, "--out", str(args.out / f"{name}.json")]
        train_step.main(words)
        print()
    return 0


if __name__ == "__main__":
    common.script(main)
