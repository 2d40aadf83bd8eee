"""The command line: `minires demo`, `train`, `sweep`, `report`, `evaluate`, `inspect`, `models`, `bench`, `info`."""
from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import __version__

DATASETS = "cifar10, cifar100, mnist, fashion_mnist, fashion_mnist_small (ships with minires), ..."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Errors of use end in one line and status 2."""
    args = _parser().parse_args(argv)
    args.typed = shlex.join(["minires", *(sys.argv[1:] if argv is None else argv)])
    try:
        status = args.run(args)
        sys.stdout.flush()  # here, where it can be caught
        return status
    except BrokenPipeError:  # who reads our output, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as programs end that SIGPIPE stops
    except (ValueError, OSError, RuntimeError, ArithmeticError) as e:
        print(f"minires {args.command}: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"minires {args.command}: stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="minires",
                                     description="Deep residual learning from scratch, on NumPy and CuPy.")
    parser.add_argument("--version", action="version", version=f"minires {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo", help="train plain and residual networks on real images and draw what depth does to them",
        description="Trains plain-20, ResNet-20, plain-56 and ResNet-56 (width 8, option A) on 10,000 Fashion-MNIST "
                    "images averaged to 14x14, and writes results.json, three figures and report.html.",
        epilog="Ctrl-C stops and keeps what is done.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    demo.add_argument("--out", type=Path, metavar="DIR", default=argparse.SUPPRESS,
                      help="folder for the results (default: minires-demo, or minires-demo-2, ... if that is taken)")
    demo.add_argument("--epochs", type=_positive, default=3, metavar="N", help="passes over the training images")
    demo.add_argument("--seed", type=_not_negative, default=0, metavar="S", help="of the weights and the images' order")
    demo.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto", help="auto: a GPU where one works")
    demo.add_argument("--jobs", type=_positive, metavar="N", default=argparse.SUPPRESS,
                      help="networks trained at a time, each in a process of its own (default: one for each core, up "
                           "to four; on a GPU one). The numbers do not depend on it")
    demo.add_argument("--quick", action="store_true",
                      help="1 epoch on 1,000 images: shows that everything runs, too short to show degradation")
    demo.set_defaults(run=_demo)

    learn = commands.add_parser(
        "train", help="train one network by a recipe, in a folder from which it can go on after any stop",
        description="Trains MODEL (minires models lists them) and writes config.json, metrics.jsonl, "
                    "checkpoints, weights.safetensors and curves.png into a folder.",
        epilog="Ctrl-C stops at a checkpoint. The same command with --resume goes on, to the same bits as if it had "
               "never stopped; so does --resume --out DIR alone.")
    absent = argparse.SUPPRESS
    learn.add_argument("model", nargs="?", metavar="MODEL", help="may be left out with --resume")
    learn.add_argument("--dataset", default=absent, metavar="NAME", help=DATASETS)
    learn.add_argument("--data-dir", type=Path, metavar="DIR", dest="root",
                       help="folder with the data set (default: MINIRES_DATA, or the user's cache folder)")
    learn.add_argument("--recipe", default=absent, metavar="NAME",
                       help="paper-cifar (64,000 steps; the default), short-cifar (8 epochs), demo (3 epochs)")
    learn.add_argument("--seed", type=_not_negative, default=absent, metavar="S",
                       help="of the weights, the images' order and their augmentation (default: 0)")
    learn.add_argument("--device", choices=("auto", "cpu", "gpu"), default=absent,
                       help="auto, the default: a GPU where one works")
    learn.add_argument("--graph", action="store_true", default=absent,
                       help="on a GPU, each training step as one CUDA graph: one launch, the same numbers")
    learn.add_argument("--out", type=Path, metavar="DIR",
                       help="the run's folder (default: minires-runs/MODEL-DATASET-RECIPE-seedS)")
    learn.add_argument("--resume", action="store_true", help="go on with the run in the folder, if there is one")
    learn.add_argument("--time-limit", type=_seconds, default=float("inf"), metavar="SECONDS",
                       help="stop at a checkpoint before so many seconds have passed")
    learn.add_argument("--checkpoint-seconds", type=_seconds, default=600.0, metavar="SECONDS",
                       help="write a checkpoint so often, besides after every epoch (default: 600)")
    learn.add_argument("--checkpoint-steps", type=_positive, default=0, metavar="N", help="and every N steps")
    learn.add_argument("--set", nargs="+", action="extend", default=absent, metavar="KEY=VALUE",
                       help="change a recipe's field (lr=0.05), the images (train_images=10000, image_size=16, "
                            "validation=5000) or the model (model.width=8, model.shortcut=B)")
    learn.set_defaults(run=_train)

    sweep = commands.add_parser(
        "sweep", help="train a grid of models and seeds, here or on a Dask cluster, and collect one table",
        description='SPEC is a JSON or TOML file: {"models": [...], "seeds": [...], "dataset": ..., "recipe": ..., '
                    '"set": {"lr": 0.05, "model.width": 8}, "graph": true, "data_dir": ..., "device": "cpu"}; all but '
                    "models and dataset may be left out. The same command goes on with what is there.")
    sweep.add_argument("spec", type=Path, metavar="SPEC")
    sweep.add_argument("--out", type=Path, metavar="DIR",
                       help="folder of the runs (default: minires-runs/ and SPEC's name)")
    sweep.add_argument("--jobs", type=_positive, metavar="N",
                       help="runs at a time, which share the cores (default: as many as there are cores)")
    sweep.add_argument("--scheduler", metavar="ADDRESS",
                       help="of a Dask scheduler, as in tcp://10.0.0.1:8786; its workers must see the same folders")
    sweep.add_argument("--checkpoint-seconds", type=_seconds, default=600.0, metavar="SECONDS",
                       help="how often each run writes a checkpoint, besides after every epoch (default: 600)")
    sweep.set_defaults(run=_sweep)

    results = commands.add_parser(
        "report", help="the paper's Fig. 6 and Table 6 from any set of runs",
        description="Writes report.md, curves.png and results.json from runs' folders, or folders of such folders.")
    results.add_argument("folders", type=Path, nargs="+", metavar="DIR")
    results.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the three files")
    results.set_defaults(run=_report)

    score = commands.add_parser(
        "evaluate", help="how many test images a trained network gets right",
        description="Loads weights (safetensors, npz, or a PyTorch file, of which no code is run) into a network and "
                    "counts what it gets right of a data set's test images. Or counts that for a finished run, on the "
                    "images and pixels of the run.",
        epilog="Examples: minires evaluate resnet20 resnet20.th --dataset cifar10 --mean 0.485 0.456 0.406 "
               "--std 0.229 0.224 0.225; minires evaluate minires-runs/resnet20-cifar10-paper-cifar-seed0",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    score.add_argument("model", metavar="MODEL|RUN",
                       help="name of the network, such as resnet20, or a folder that `minires train` wrote")
    score.add_argument("weights", metavar="WEIGHTS", nargs="?", default=argparse.SUPPRESS,
                       help="file with the network's weights")
    score.add_argument("--dataset", metavar="NAME", default=argparse.SUPPRESS, help=DATASETS)
    _network_options(score)
    score.add_argument("--batch-size", type=_positive, default=500, metavar="N", help="images at a time")
    score.add_argument("--device", dest="where", choices=("auto", "cpu", "gpu"), default=argparse.SUPPRESS,
                       help="default: a GPU where one works; a run's own")
    score.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    score.set_defaults(run=_evaluate)

    look = commands.add_parser(
        "inspect", help="look into a trained network: responses, gradients, lesions, loss landscape",
        description="Measures what a trained network does inside, and writes figures, inspect.json and one page, "
                    "inspect.html. Without a choice of parts, all that the network and the data allow.",
        epilog="Examples: minires inspect minires-runs/resnet20-cifar10-paper-cifar-seed0; minires inspect resnet20.th "
               "--model resnet20 --dataset cifar10 --lesion", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    look.add_argument("source", type=Path, metavar="WEIGHTS|RUN",
                      help="a file with weights (needs --model), or a folder that `minires train` wrote")
    look.add_argument("--responses", action="append_const", const="responses", dest="parts", default=argparse.SUPPRESS,
                      help="of the 3x3 layers: He et al. 2015, Fig. 7; can do without --dataset")
    look.add_argument("--gradients", action="append_const", const="gradients", dest="parts", default=argparse.SUPPRESS,
                      help="layer by layer, trained and at initialisation; dead units")
    look.add_argument("--lesion", action="append_const", const="lesion", dest="parts", default=argparse.SUPPRESS,
                      help="error with each block deleted")
    look.add_argument("--landscape", action="append_const", const="landscape", dest="parts", default=argparse.SUPPRESS,
                      help="loss along random directions, and its curvature")
    look.add_argument("--out", type=Path, metavar="DIR", default=argparse.SUPPRESS,
                      help="folder for the results (default: minires-inspect, or minires-inspect-2, ... if taken)")
    look.add_argument("--model", metavar="NAME", default=argparse.SUPPRESS, help="the network that the weights are for")
    look.add_argument("--dataset", metavar="NAME", default=argparse.SUPPRESS, help=DATASETS)
    look.add_argument("--images", type=_positive, default=500, metavar="N", help="the first so many test images")
    look.add_argument("--seed", type=_not_negative, default=0, metavar="S", help="of the landscape's directions")
    look.add_argument("--in-channels", type=_positive, metavar="C", default=argparse.SUPPRESS,
                      help="of its images, without --dataset (default: the network's own, 3)")
    _network_options(look)
    look.add_argument("--device", dest="where", choices=("auto", "cpu", "gpu"), default=argparse.SUPPRESS,
                      help="default: a GPU where one works; a run's own")
    look.set_defaults(run=_inspect)

    models = commands.add_parser(
        "models", help="the networks there are: layers, parameters and multiply-accumulates",
        description="Lists every network that has a name, with its layers, parameters and multiply-accumulates (MACs) "
                    "for one image, counted from the network itself.")
    models.add_argument("--json", action="store_true", help="one JSON list on stdout, with exact numbers")
    models.set_defaults(run=_models)

    bench = commands.add_parser(
        "bench", help="how long a training step takes here, and where the time goes",
        description="Times training steps of a CIFAR ResNet on random 32x32 images.",
        epilog="Comparisons with other libraries: benchmarks/ in the repository.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    bench.add_argument("--depth", type=_positive, default=20, metavar="D", help="layers of the network, 6n + 2")
    bench.add_argument("--batch", type=_positive, default=128, metavar="N", help="images in a step")
    bench.add_argument("--steps", type=_positive, default=10, metavar="K", help="steps that are timed")
    bench.add_argument("--threads", type=_positive, default=argparse.SUPPRESS, metavar="T",
                       help="threads of the kernels (default: MINIRES_THREADS, or the cores there are)")
    bench.add_argument("--profile", action="store_true", help="also the share of each operation")
    bench.set_defaults(run=_bench)

    about = commands.add_parser("info", help="versions, BLAS and threads, and whether a GPU is used and if not why",
                                description="Prints what this installation runs on.")
    about.set_defaults(run=_info)
    return parser


def _network_options(score: argparse.ArgumentParser) -> None:
    """How a network is built that weights are for, and what its images look like."""
    score.add_argument("--data-dir", metavar="DIR", dest="root", default=argparse.SUPPRESS,
                       help="folder with the data set (default: MINIRES_DATA, or the user's cache folder)")
    score.add_argument("--mean", type=float, nargs="+", metavar="M", default=argparse.SUPPRESS,
                       help="subtracted from pixels / 255, one number for each channel (default: see --normalize)")
    score.add_argument("--std", type=float, nargs="+", metavar="S", default=argparse.SUPPRESS,
                       help="what the difference is divided by, one number for each channel")
    score.add_argument("--normalize", choices=("channel", "pixel-mean", "none"), default=argparse.SUPPRESS,
                       help="without --mean and --std: by the training set's mean and deviation of each channel (the "
                            "default), minus its mean image, or not at all")
    score.add_argument("--image-size", type=_positive, metavar="N", default=argparse.SUPPRESS,
                       help="average the images to this height and width (default: as they are)")
    score.add_argument("--rename", type=_pair, action="append", metavar="OLD=NEW", default=argparse.SUPPRESS,
                       help="name of a layer in the file, and the network's for it; can be given several times")
    score.add_argument("--pad", choices=("both", "end"), default=argparse.SUPPRESS,
                       help="where option A puts the new channels (default: both)")
    score.add_argument("--shortcut", choices=("A", "B", "C"), default=argparse.SUPPRESS,
                       help="of He et al. 2015, section 4.1 (default: the network's own)")
    score.add_argument("--width", type=_positive, metavar="W", default=argparse.SUPPRESS,
                       help="channels of the first stage (default: the network's own)")


def _demo(args: argparse.Namespace) -> int:
    from . import device, kernels, train
    from .commands import demo

    length = "--quick" if args.quick else f"--epochs {args.epochs}"
    command = f"minires demo {length} --seed {args.seed} --device {args.device}"
    out = getattr(args, "out", None) or _free_folder(Path("minires-demo"))
    jobs = getattr(args, "jobs", 1 if device.use(args.device) == "gpu" else min(kernels.parallel.threads(), 4))
    _, done = demo.run(out, train.Recipe(epochs=args.epochs), seed=args.seed, where=args.device, quick=args.quick,
                       jobs=jobs, command=command)
    return 0 if done else 130


def _train(args: argparse.Namespace) -> int:
    from . import runs
    from .runs.config import configure

    choices = "dataset", "recipe", "seed", "device", "set", "graph"
    given = {name: getattr(args, name) for name in choices if hasattr(args, name)}
    if args.model:
        if "dataset" not in given:
            raise ValueError("--dataset is missing: say what to train on, for example --dataset fashion_mnist_small")
        chosen = configure(args.model, given["dataset"], given.get("recipe", "paper-cifar"), given.get("seed", 0),
                           given.get("device", "auto"), given.get("set", []), given.get("graph", False))
        out = args.out or Path("minires-runs", "{model}-{dataset}-{recipe}-seed{seed}".format(**chosen))
    elif not (args.resume and args.out):
        raise ValueError("MODEL is missing; only --resume --out DIR goes without, to go on with the run in DIR")
    elif given:
        raise ValueError("--resume without MODEL takes everything from the folder: leave out "
                         f"--{', --'.join(given)}, or give MODEL too")
    else:
        chosen, out = None, args.out
    done = runs.train(chosen, out, resume=args.resume, root=args.root, time_limit=args.time_limit,
                      every_seconds=args.checkpoint_seconds, every_steps=args.checkpoint_steps, command=args.typed)
    if done.finished:
        print(f"Done: {out / 'metrics.jsonl'}, weights.safetensors and curves.png")
        return 0
    print(f"Stopped by {done.stopped} at step {done.step} of {done.steps}, with a checkpoint. To go on:\n"
          f"  minires train --resume --out {shlex.quote(str(out))}")
    return {"Ctrl-C": 130, "SIGTERM": 143}.get(done.stopped, 0)


def _sweep(args: argparse.Namespace) -> int:
    from .runs import sweep

    spec = sweep.read(args.spec)
    out = args.out or Path("minires-runs", args.spec.stem)
    table, failed = sweep.run(spec, out, jobs=args.jobs, scheduler=args.scheduler,
                              every_seconds=args.checkpoint_seconds, say=print)
    print(table)
    return 2 if failed else 0


def _report(args: argparse.Namespace) -> int:
    from .runs import report

    print(report.write(args.folders, args.out))
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    from . import evaluate

    given = {name: value for name, value in vars(args).items()
             if name not in ("command", "run", "json", "typed", "model", "batch_size")}
    name, folder = args.model, Path(args.model)
    if "weights" not in given and folder.is_dir():
        from . import runs

        root, where = given.pop("root", None), given.pop("where", "")
        _leave_out(folder, given)
        trained = runs.read(folder, Path(root) if root else None, where)
        name, weights, dataset = trained.config["model"], str(folder / "weights.safetensors"), trained.config["dataset"]
        score = evaluate.score(trained.model, trained.images, trained.labels, trained.classes, args.batch_size,
                               progress=True)
        words = "as in the run"
    elif missing := [what for what in ("weights", "dataset") if what not in given]:
        raise ValueError(f"{' and '.join(missing)} missing: a network's name needs both, as in minires evaluate "
                         f"resnet20 resnet20.th --dataset cifar10; a run's folder, which {name} is not, needs neither")
    else:
        given["rename"] = dict(given.get("rename", ()))
        _name_mean_and_std(given)
        weights, dataset = given["weights"], given["dataset"]
        score, words = evaluate.run(name, batch_size=args.batch_size, **given)
    if args.json:
        print(json.dumps({"model": name, "weights": weights, "dataset": dataset, "input": words,
                          "correct": score.correct, "total": score.total, "error": score.error,
                          "per_class": {name: {"correct": c, "total": n} for name, (c, n) in score.per_class.items()},
                          "images_per_second": score.images_per_second}))
    else:
        print(f"{name} on {dataset}, {score.total} test images; input {words}\n{evaluate.text(score)}")
    return 0


def _name_mean_and_std(given: dict[str, Any]) -> None:
    """Put --mean and --std, which only together say how the pixels are normalised, in the place of --normalize."""
    told = [name for name in ("mean", "std") if name in given]
    if len(told) == 1:
        other = "std" if told == ["mean"] else "mean"
        raise ValueError(f"--{told[0]} is given without --{other}: give both; a --mean of 0 or a "
                         "--std of 1 for each channel changes nothing")
    if told and "normalize" in given:
        raise ValueError(f"--normalize {given['normalize']} contradicts --mean and --std: leave one of them out")
    if told:
        given["normalize"] = given.pop("mean"), given.pop("std")


def _leave_out(folder: Path, given: dict[str, object]) -> None:
    """ValueError for options beside a run's folder."""
    if given:
        raise ValueError(f"{folder} is a run's folder, which says all about the network: leave out "
                         f"--{', --'.join(given)}")


def _inspect(args: argparse.Namespace) -> int:
    from tqdm.auto import tqdm

    from .commands import inspect

    given = {name: value for name, value in vars(args).items()
             if name not in ("command", "run", "typed", "source", "parts", "out", "seed", "images", "root")}
    source, root = args.source, getattr(args, "root", None)
    if source.is_dir():
        where = given.pop("where", "")
        _leave_out(source, given)
        subject = inspect.from_run(source, root, args.images, where)
    elif "model" not in given:
        raise ValueError(f"--model is missing: say which network {source} holds weights for, as in --model resnet20")
    else:
        given["rename"] = dict(given.get("rename", ()))
        _name_mean_and_std(given)
        subject = inspect.from_weights(source, given.pop("model"), given.pop("dataset", None), root=root,
                                          images=args.images, **given)
    out = getattr(args, "out", None) or _free_folder(Path("minires-inspect"))
    print(inspect.run(subject, out, getattr(args, "parts", ()), seed=args.seed, command=args.typed,
                         progress=lambda items: tqdm(items, disable=None)))
    return 0


def _models(args: argparse.Namespace) -> int:
    from . import models

    if args.json:
        print(json.dumps([net._asdict() for net in models.listing()], indent=1))
        return 0
    family = ""
    for net in models.listing():
        if net.family != family:
            family = net.family
            print(f"{family}; images {' x '.join(map(str, net.input_shape))}\n"
                  f"    {'':18}{'layers':>6}{'parameters':>14}{'million MACs':>15}")
        print(f"    {net.name:18}{net.layers:6}{net.parameters:14,}{net.macs / 1e6:15,.2f}")
    return 0


def _bench(args: argparse.Namespace) -> int:
    from .commands import bench

    print(bench.bench(args.depth, args.batch, args.steps, getattr(args, "threads", None), args.profile))
    return 0


def _info(args: argparse.Namespace) -> int:
    from . import info

    print(info.text())
    return 0


def _free_folder(path: Path) -> Path:
    """`path`, or path-2, path-3, ...: the first that does not exist."""
    names = (path, *(path.with_name(f"{path.name}-{i}") for i in range(2, 10_000)))
    return next(p for p in names if not p.exists())


def _pair(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not old or not equals:
        raise argparse.ArgumentTypeError(f"expected OLD=NEW, got {text}")
    return old, new


def _positive(text: str) -> int:
    return _whole(text, 1)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected seconds, a number above 0, got {text}")
    return value


def _not_negative(text: str) -> int:
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"expected a number from {least}, got {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
