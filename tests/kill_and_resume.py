"""Kill training runs with SIGKILL at random moments, resume each, and compare the resulting bits with those of a run
that was never interrupted. Run it with `python tests/kill_and_resume.py --kills 30`; the tests run it with 3 kills.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from minires.runs import checkpoint

ROOT = Path(__file__).resolve().parents[1]
RUN = ["resnet20", "--dataset", "fashion_mnist_small", "--recipe", "short-cifar", "--seed", "3", "--device", "cpu",
       "--checkpoint-steps", "2", "--set", "train_images=330", "test_images=100", "image_size=7", "model.width=2",
       "batch_size=16", "crop=1", "warm_up_layers=20", "epochs=4"]


def start(out, *options):
    env = {**os.environ, "MINIRES_THREADS": "1",
           "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-W", "error", "-m", "minires.cli", "train", *RUN, "--out", str(out), *options]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process):
    says = process.communicate(timeout=300)[0]
    if process.returncode:
        raise SystemExit(f"exit status {process.returncode}:\n{says}")
    return says


def result(out):
    """Return what must be equal to the last bit: the weights, the metrics without their seconds, and the momentum."""
    arrays, header = checkpoint.newest(out)[0]
    digest = hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays)))
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {"weights": hashlib.sha256((out / "weights.safetensors").read_bytes()).hexdigest(),
            "state": digest.hexdigest(), "at": header["at"],
            "metrics": [{k: v for k, v in line.items() if k != "seconds"} for line in metrics]}


def kill_and_resume(folder, kills, rng, say=print):
    """Train runs with `kills` SIGKILLs in all. Return (result without kills, results with kills, step at each kill)."""
    began = time.monotonic()
    finish(start(folder / "whole"))
    whole, longest = result(folder / "whole"), time.monotonic() - began
    others, died_at = [], []
    while len(died_at) < kills:
        out = folder / f"killed-{len(others)}"
        here = 0
        while len(died_at) < kills and here < 8:
            process = start(out, "--resume")
            time.sleep(rng.uniform(0.1, 0.7) * longest)
            if process.poll() is not None:  # it finished before the kill
                finish(process)
                break
            process.kill()
            process.communicate()
            found = checkpoint.newest(out)[0] if out.exists() else None
            died_at.append(found[1]["at"]["step"] if found else 0)
            here += 1
            say(f"kill {len(died_at)}: newest checkpoint of step {died_at[-1]} of {whole['at']['step']}")
        finish(start(out, "--resume"))
        others.append(result(out))
    return whole, others, died_at


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="seed of the moments, printed")
    args = parser.parse_args()
    print(f"seed of the moments of the kills: {args.seed}")
    with tempfile.TemporaryDirectory() as folder:
        whole, others, died_at = kill_and_resume(Path(folder), args.kills, random.Random(args.seed))
    same = sum(other == whole for other in others)
    print(f"{len(died_at)} kills, {len(set(died_at))} different steps, {len(others)} runs: {same} have the same bits")
    return 0 if same == len(others) else 1


if __name__ == "__main__":
    sys.exit(main())
