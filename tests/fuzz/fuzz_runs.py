"""Read damaged files of runs and sweeps: each is refused cleanly or read as what its type says.

    cd tests && python -m fuzz.fuzz_runs [N] [--seed S]

The files are those of tests/old_run, data/results/demo/results.json, detections in COCO's format, and a sweep's grid as
JSON and as TOML. The damage
is to any bytes, to values of the JSON, and to the header of a checkpoint, whose checksum is then put right.
"""
import contextlib
import json
import pathlib
import shutil
import tempfile

import numpy as np
from fuzz.mutations import damaged, deepened, edited, main

from minires import datasets
from minires.commands import demo_report, detect
from minires.files import records
from minires.runs import checkpoint, metrics, run, sweep
from minires.runs.config import RunConfig

HERE = pathlib.Path(__file__).resolve().parents[1]
OLD, RESULTS = HERE / "old_run", HERE.parent / "data" / "results" / "demo" / "results.json"
GRID = {"models": ["plain20", "resnet20"], "seeds": [0, 1], "dataset": "fashion_mnist_small", "recipe": "short-cifar",
        "device": "cpu", "set": {"train_images": 100, "lr": 0.1, "model.width": 2, "drops": [0.5]}, "graph": False}


def toml(value):
    """Return a dict as TOML, with odd values as they are in JSON."""
    def text(value):
        if isinstance(value, dict):
            return "{" + ", ".join(f"{json.dumps(k)} = {text(v)}" for k, v in value.items()) + "}"
        return "[" + ", ".join(map(text, value)) + "]" if isinstance(value, list) else json.dumps(value)
    lines = value.items() if isinstance(value, dict) else [("models", value)]
    return "".join(f"{json.dumps(key)} = {text(item)}\n" for key, item in lines)


@contextlib.contextmanager
def cases():
    """Return {name: case} for mutations.run."""
    config, lines = (OLD / "config.json").read_bytes(), (OLD / "metrics.jsonl").read_bytes()
    whole, = OLD.glob("checkpoint-*.safetensors")
    arrays, header = checkpoint.read(whole)
    results, grid = RESULTS.read_bytes(), json.dumps(GRID).encode()
    held = datasets.scenes(3, 0, "test")
    detections = json.dumps([{"image_id": i % 3, "category_id": 1 + i, "bbox": [i, 2.5, 10, 9], "score": i / 8}
                             for i in range(6)]).encode()

    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)

        def reads(name, content, read):
            path = folder / name
            path.write_bytes(content)
            return lambda: read(path), [str(path)]

        def a_config(path):
            assert run.read_config(path.parent).recorded.steps > 0

        def some_lines(path):
            assert all(0 <= line["train_error"] <= 100 for line in metrics.read(path.parent))

        def a_checkpoint(path):
            """As a run that is resumed reads it."""
            try:
                found, said = checkpoint.read(path)
            except checkpoint.Damaged as e:
                raise ValueError(str(e)) from e
            assert all(isinstance(a, np.ndarray) for a in found.values())
            said = records.checked(said, run.Header, str(path))
            RunConfig.from_json(said["run"], str(path))
            metrics.checked(said["metrics"], str(path))

        def saved(rng):
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            (folder / "checkpoints").mkdir()
            path = checkpoint.save(folder / "checkpoints", 1, arrays, edited(header, rng))
            return lambda: a_checkpoint(path), [str(path)]

        def a_grid(path):
            assert sweep.read(path).runs(where="cpu")

        def some_results(path):
            assert demo_report.load(path)["nets"] is not None

        def some_detections(path):
            found = detect.read_detections(path, held)
            assert found.boxes.shape == (len(found), 4) and np.isfinite(found.scores).all()

        def values(content, write=json.dumps):
            value = json.loads(content)
            return lambda rng: deepened(write(edited(value, rng)), rng).encode()

        def lines_changed(rng):
            found = [json.loads(line) for line in lines.splitlines()]
            found = edited(found, rng)
            found = found if isinstance(found, list) else [found]
            return deepened("".join(json.dumps(line) + "\n" for line in found), rng).encode()

        def case(name, change, read): return lambda rng: reads(name, change(rng), read)

        # What reading imports and compiles at first use is imported and compiled here: the watch refuses both.
        for name, content, read in (("config.json", config, a_config), ("metrics.jsonl", lines, some_lines),
                                    ("results.json", results, some_results),
                                    ("detections.json", detections, some_detections), ("grid.json", grid, a_grid),
                                    ("c.safetensors", whole.read_bytes(), a_checkpoint),
                                    ("grid.toml", toml(GRID).encode(), a_grid)):
            for damage in content, b"\xff", b"[" * 10**5, content.replace(b"e", b"x", 3):
                with contextlib.suppress(ValueError):
                    reads(name, damage, read)[0]()
            reads(name, content, read)[0]()

        yield {
            "config.json, any bytes": case("config.json", lambda rng: damaged(config, rng, grid), a_config),
            "config.json, values": case("config.json", values(config), a_config),
            "metrics.jsonl, any bytes": case("metrics.jsonl", lambda rng: damaged(lines, rng, config), some_lines),
            "metrics.jsonl, values": case("metrics.jsonl", lines_changed, some_lines),
            "checkpoint, any bytes": case("c.safetensors", lambda rng: damaged(whole.read_bytes(), rng), a_checkpoint),
            "checkpoint, header": saved,
            "results.json, any bytes": case("results.json", lambda rng: damaged(results, rng, grid), some_results),
            "results.json, values": case("results.json", values(results), some_results),
            "detections.json, any bytes": case("detections.json", lambda rng: damaged(detections, rng, grid),
                                               some_detections),
            "detections.json, values": case("detections.json", values(detections), some_detections),
            "grid.json, any bytes": case("grid.json", lambda rng: damaged(grid, rng, config), a_grid),
            "grid.json, values": case("grid.json", values(grid), a_grid),
            "grid.toml, any bytes": case("grid.toml", lambda rng: damaged(toml(GRID).encode(), rng, grid), a_grid),
            "grid.toml, values": case("grid.toml", values(grid, toml), a_grid),
        }


if __name__ == "__main__":
    with cases() as found:
        main(__doc__.splitlines()[0], found)
