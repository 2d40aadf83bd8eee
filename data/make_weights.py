"""Make weights that ship from the folders of finished runs:

    python data/make_weights.py RUN... [--data-dir DIR] --out data/weights/cifar10

For each run this writes its last weights in float16, and an entry in weights.json. The entry has the run's settings,
the errors that the run recorded, the error of the float16 weights on the same test images, their answers to the first
SAMPLE test images, and their logits for a few generated images, which can be checked without the data set.
"""
from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from minires import analysis, datasets, evaluate, load_weights, nn, runs, save_weights
from minires.files import records
from minires.files.atomic import write_atomically

SAMPLE, GENERATED = 500, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder of the data set")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the weights")
    args = parser.parse_args()
    told = {}
    for folder in args.runs:
        chosen = runs.read_config(folder)
        metrics = runs.read_metrics(folder, chosen.tested)
        if not (folder / "weights.safetensors").exists():
            raise SystemExit(f"{folder}: the run is not finished, there is no weights.safetensors")
        name = chosen.model
        sets = chosen.inputs(args.data_dir)
        images, labels = sets.test
        net = chosen.build(images.shape[1], len(sets.classes))
        load_weights(net, folder / "weights.safetensors")
        args.out.mkdir(parents=True, exist_ok=True)
        path = args.out / f"{name}.safetensors"
        save_weights(net, path, dtype="float16")
        load_weights(net, path)
        left_out = {"root", "command"}  # these describe the machine's folders rather than the run
        told[name] = {**{key: value for key, value in chosen.to_json().items() if key not in left_out},
                      "recorded": metrics[-1], **answers(net, images, labels),
                      "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        print(name, told[name]["recorded"]["test_error"], told[name]["test_error_float16"])
    write_atomically(args.out / "weights.json", records.text(told) + "\n")


def answers(net: nn.Module, images: Any, labels: Any) -> dict[str, Any]:
    """Return the network's mean layer response, its error and answers on the test images, and its logits for generated
    images."""
    predicted = evaluate.logits(net, images).argmax(1)
    responses = analysis.responses_from_parameters(net)
    return {"mean_response": round(sum(responses.values()) / len(responses), 4),  # He et al. 2015, Fig. 7
            "test_error_float16": 100 * float((predicted != labels).mean()),
            "predicted": "".join(map(str, predicted[:SAMPLE])),
            "generated_logits": evaluate.logits(net, generated(*images.shape[1:3])).round(4).tolist()}


def generated(channels: int, size: int) -> Any:
    """Return a few images of `datasets.stripes` with their first `channels` colours.

    result: float32 (N, channels, size, size), mean near 0
    """
    images = datasets.to_float(datasets.stripes(GENERATED, 1, size)[0].images)[:, :channels]
    return np.ascontiguousarray(images - np.float32(0.5))


if __name__ == "__main__":
    main()
