"""Define the commands `minires demo`, `train`, `sweep`, `report`, `evaluate`, `inspect`, `animate`, `detect`, `models`,
`bench` and `info`, and add `minires course` from course/cli.py.

Each command has one function that adds its parser, and after it one function that calls the code that does the work.
"""
from __future__ import annotations

import argparse
import os
import shlex
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .commands import arguments
from .files import streams

if TYPE_CHECKING:
    from .commands.subject import Told
    from .runs.run import Outcome

STATUS = {"Ctrl-C": 130, "SIGTERM": 143, "SIGHUP": 129}  # exit status after a training run was stopped
DATASETS = "cifar10, cifar100, mnist, fashion_mnist, fashion_mnist_small (ships with minires), digits or stripes"
TRAINS_ON = "where to train; auto, the default, is the GPU if one works, else the CPU"
DATA_DIR = "folder with the data set (default: the environment variable MINIRES_DATA, or else the user's cache folder)"
DOWNLOAD = ("download the files of the data set that are missing, after a line that says which and how large they are; "
            "an interrupted download is resumed, and the published checksum is checked (cifar10 170 MB, cifar100 169 "
            "MB, mnist 12 MB, fashion_mnist 31 MB)")
DEVICES = "auto", "cpu", "gpu"
ABSENT = argparse.SUPPRESS  # an option that is not given does not become an attribute
Commands = Any  # the type that argparse's add_subparsers returns, which has no public name


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status.

    0    the command is done
    1    there is a bug in minires, which one line on stderr reports
    2    the command cannot be carried out, and one line on stderr says why
    130  Ctrl-C stopped the command; 129: SIGHUP; 143: SIGTERM
    141  the reader of the output has closed the pipe

    `train`, `sweep` and `demo` write their results into files, so they do not fail if nobody can read what they print.

    With MINIRES_DEBUG=1 in the environment the traceback is printed before that line.
    """
    streams.open_missing()
    for stream in sys.stdout, sys.stderr:  # file names may contain characters that the terminal cannot show
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        return _status(argv)
    finally:
        streams.drop_pending()


def _status(argv: Sequence[str] | None) -> int:
    """Run one command and return the exit status."""
    args = _parser().parse_args(argv)
    args.typed = shlex.join(["minires", *(sys.argv[1:] if argv is None else argv)])
    try:
        status = args.run(args)
        sys.stdout.flush()  # a BrokenPipeError can be caught here, but not when the interpreter exits
        return status
    except BrokenPipeError:  # the reader of the output, `head` for example, has closed the pipe
        return 141  # the exit status of a program that SIGPIPE stops
    except KeyboardInterrupt as e:  # `runs.stop_signals` gives it the name of the signal
        streams.attempt(lambda: print(f"minires {args.command}: stopped", file=sys.stderr))
        return STATUS.get(str(e), 130)
    except Exception as e:
        if debug := os.environ.get("MINIRES_DEBUG", "0") not in ("", "0"):
            streams.attempt(traceback.print_exc)
        status, what = _explained(e, debug)
        line = f"minires {args.command}: error: {' '.join(what.splitlines())}"
        streams.attempt(lambda: print(line, file=sys.stderr))
        return status


BUGS = NotImplementedError, RecursionError, ZeroDivisionError, OverflowError, FloatingPointError
TOO_BIG = "Maximum allowed dimension exceeded", "array is too big"  # NumPy's messages for sizes that no memory can hold
PIP_NAMES = {"sklearn": "scikit-learn"}  # packages whose pip name differs from their import name


def _explained(e: Exception, debug: bool) -> tuple[int, str]:
    """Return the exit status for an error, and the message to print."""
    what = str(e)
    if isinstance(e, ImportError) and e.name and e.name.partition(".")[0] != "minires":
        package = e.name.partition(".")[0]
        return 2, what if "pip install" in what else f"{what}: pip install {PIP_NAMES.get(package, package)}"
    if isinstance(e, MemoryError) or what.startswith(TOO_BIG):
        return 2, f"there is not enough memory{': ' * bool(what)}{what}"
    if isinstance(e, OSError) and e.filename is not None and e.strerror:
        return 2, f"{e.filename}: {e.strerror}"
    if isinstance(e, (ValueError, OSError, RuntimeError, ArithmeticError)) and not isinstance(e, BUGS) and what:
        return 2, what
    how = "" if debug else "; set MINIRES_DEBUG=1 in the environment to see the traceback"
    return 1, f"this is a bug in minires, not in your command: {type(e).__name__}: {what}{how}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="minires", description="Deep residual learning from scratch, on NumPy and CuPy.",
        epilog="`minires COMMAND --help` describes a command. The exit status is 0 if the command is done, 2 if it "
               "cannot be carried out, and 1 for a bug in minires. Set MINIRES_DEBUG=1 in the environment to see the "
               "traceback of an error.")
    parser.add_argument("--version", action="version", version=f"minires {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_add_demo, _add_train, _add_sweep, _add_report, _add_evaluate, _add_inspect, _add_animate, _add_detect,
                _add_models, _add_bench, _add_info, _add_course):
        add(commands)
    return parser


# ------------------------------------------------------------------------------------------------------- demo


def _add_demo(commands: Commands) -> None:
    demo = commands.add_parser(
        "demo", help="train plain and residual networks on real images, and show what depth does to them",
        description="Train plain-20, ResNet-20, plain-56 and ResNet-56 (width 8, option A shortcuts) on 10,000 "
                    "Fashion-MNIST images averaged to 14x14 pixels. Write results.json, three figures, report.html and "
                    "the folders of the four runs.",
        epilog="Ctrl-C stops the demo and keeps what is done; `minires demo --resume --out DIR` resumes it.")
    demo.add_argument("--out", type=arguments.path, metavar="DIR",
                      help="folder for the results (default: minires-demo, or minires-demo-2, ... if that exists)")
    demo.add_argument("--resume", action="store_true", help="resume the stopped demo in the folder --out")
    demo.add_argument("--epochs", type=arguments.positive, default=ABSENT, metavar="N",
                      help="number of passes over the training images (default: 3)")
    demo.add_argument("--seed", type=arguments.not_negative, default=ABSENT, metavar="S",
                      help="seed of the initial weights and of the order of the images (default: 0)")
    demo.add_argument("--device", choices=DEVICES, default=ABSENT, help=TRAINS_ON)
    demo.add_argument("--jobs", type=arguments.positive, metavar="N",
                      help="number of networks to train at the same time, each in its own process (default: the "
                           "environment variable MINIRES_THREADS, or else one per core, but at most 4; on a GPU 1). "
                           "The results do not depend on it")
    demo.add_argument("--quick", action="store_true", default=ABSENT,
                      help="train for 1 epoch on 1,000 images: this shows that everything runs, but is too short to "
                           "show degradation")
    demo.set_defaults(run=_demo)


def _demo(args: argparse.Namespace) -> int:
    from . import kernels, recipes
    from .commands import demo
    from .names import UsageError

    given = _given(args, "epochs", "seed", "device", "quick")
    if args.resume and not args.out:
        raise UsageError("--resume needs --out DIR, the folder of the demo to resume")
    if args.resume and not given:
        nets = demo.begun(args.out)
    else:
        nets = demo.choose(recipes.Recipe(epochs=given.get("epochs", 3)), seed=given.get("seed", 0),
                           where=given.get("device", "auto"), quick=given.get("quick", False))
    config = next(iter(nets.values()))
    length = "--quick" if "quick" in given else f"--epochs {config.recipe.epochs}"
    command = f"minires demo {length} --seed {config.seed} --device {given.get('device', 'auto')}"
    _, stopped = demo.run(args.out or _free(Path("minires-demo")), nets, resume=args.resume, command=command,
                          jobs=args.jobs or (1 if config.device == "gpu" else min(kernels.parallel.threads(), 4)))
    return STATUS.get(stopped, 0)


# ------------------------------------------------------------------------------------------------------ train


def _add_train(commands: Commands) -> None:
    train = commands.add_parser(
        "train", help="train one network with a recipe, in a folder from which the run can be resumed",
        description="Train MODEL (`minires models` lists the networks). Write config.json, metrics.jsonl, checkpoints, "
                    "weights.safetensors and curves.png into the run's folder.",
        epilog="Ctrl-C writes a checkpoint and stops. The same command with --resume, or `minires train --resume --out "
               "DIR` alone, resumes the run. On the same CPU, with the same versions and number of threads, the "
               "results have the same bits as without the stop. SIGTERM and SIGHUP stop the run in the same way.")
    train.add_argument("model", nargs="?", metavar="MODEL",
                       help="name of the network to train; can be left out with --resume --out DIR")
    train.add_argument("--dataset", default=ABSENT, metavar="NAME", help=DATASETS)
    train.add_argument("--data-dir", type=arguments.path, metavar="DIR", dest="root", help=DATA_DIR)
    train.add_argument("--download", action="store_true", help=DOWNLOAD)
    train.add_argument("--recipe", default=ABSENT, metavar="NAME",
                       help="paper-cifar (64,000 steps; the default), short-cifar (8 epochs) or demo (3 epochs)")
    train.add_argument("--seed", type=arguments.not_negative, default=ABSENT, metavar="S",
                       help="seed of the initial weights, of the order of the images and of their augmentation "
                            "(default: 0)")
    train.add_argument("--device", choices=DEVICES, default=ABSENT, help=TRAINS_ON)
    train.add_argument("--graph", action="store_true", default=ABSENT,
                       help="on a GPU, launch each training step as one CUDA graph; the numbers stay the same")
    train.add_argument("--out", type=arguments.path, metavar="DIR",
                       help="the run's folder (default: minires-runs/MODEL-DATASET-RECIPE-seedS)")
    train.add_argument("--resume", action="store_true",
                       help="resume the run in the folder; if the folder is empty or missing, begin the run")
    train.add_argument("--time-limit", type=arguments.seconds, default=float("inf"), metavar="SECONDS",
                       help="write a checkpoint and stop before this many seconds have passed (default: no limit)")
    train.add_argument("--checkpoint-seconds", type=arguments.seconds, default=600.0, metavar="SECONDS",
                       help="seconds between checkpoints; one is also written after every epoch (default: 600)")
    train.add_argument("--checkpoint-steps", type=arguments.positive, default=0, metavar="N",
                       help="also write a checkpoint every N steps (default: off)")
    train.add_argument("--set", nargs="+", action="extend", default=ABSENT, metavar="KEY=VALUE",
                       help="change a setting of the recipe (lr=0.05, optimizer=adamw, schedule=cosine, clip=1.0, "
                            "label_smoothing=0.1, ...), of the images (train_images=10000, image_size=16, "
                            "validation=5000) or of the model (model.width=8, model.shortcut=B)")
    train.set_defaults(run=_train)


def _train(args: argparse.Namespace) -> int:
    from . import runs
    from .runs.config import configure

    given = _given(args, "dataset", "recipe", "seed", "device", "set", "graph")
    if args.model:
        if "dataset" not in given:
            raise ValueError("--dataset is missing: give the data set to train on, for example --dataset "
                             "fashion_mnist_small")
        chosen = configure(args.model, given["dataset"], given.get("recipe", "paper-cifar"), given.get("seed", 0),
                           given.get("device", "auto"), given.get("set", []), given.get("graph", False))
        name = f"{chosen.model}-{chosen.dataset}-{chosen.recipe_name}-seed{chosen.seed}"
        out = args.out or Path("minires-runs", name)
    else:
        chosen, out = None, _resumed(args, given, "MODEL", "MODEL is missing: give the network to train, or --resume "
                                     "--out DIR to resume the run in DIR")
    done = runs.train(chosen, out, resume=args.resume, root=args.root, time_limit=args.time_limit,
                      every_seconds=args.checkpoint_seconds, every_steps=args.checkpoint_steps, command=args.typed,
                      download=args.download)
    return _ended(done, f"{out / 'metrics.jsonl'}, weights.safetensors and curves.png", "minires train", out)


def _given(args: argparse.Namespace, *choices: str) -> dict[str, Any]:
    """Return the choices that the command line made, {name: value}."""
    return {name: getattr(args, name) for name in choices if hasattr(args, name)}


def _resumed(args: argparse.Namespace, given: Mapping[str, Any], network: str, missing: str) -> Path:
    """Return the folder that --resume names. Raises UsageError unless it was given alone.

    network: the argument that was left out
    missing: the error's text if there is nothing to resume either
    """
    from .names import UsageError

    if not (args.resume and args.out):
        raise UsageError(missing)
    if given:
        raise UsageError(f"--resume without {network} takes all settings from the folder: leave out "
                         f"--{', --'.join(given)}, or give {network} too")
    out: Path = args.out
    return out


def _ended(done: Outcome, written: str, command: str, out: Path) -> int:
    """Say how a training ended, and return the exit status."""
    from .runs.progress import say

    if done.finished:
        say(f"Done: {written}")
        return 0
    say(f"Stopped by {done.stopped} at step {done.step} of {done.steps}, with a checkpoint. To resume:\n"
        f"  {command} --resume --out {shlex.quote(str(out))}")
    return STATUS.get(done.stopped, 0)


# ------------------------------------------------------------------------------------------ sweep and report


def _add_sweep(commands: Commands) -> None:
    sweep = commands.add_parser(
        "sweep", help="train a grid of models and seeds, on this machine or a Dask cluster, and write one table",
        description='Train every model with every seed of SPEC, a JSON or TOML file: {"models": [...], "seeds": [...], '
                    '"dataset": ..., "recipe": ..., "set": {"lr": 0.05, "model.width": 8}, "graph": true, "data_dir": '
                    '..., "device": "cpu"}. Only models and dataset are required. After a stop, the same command '
                    "resumes the runs.")
    sweep.add_argument("spec", type=arguments.path, metavar="SPEC", help="file that describes the grid")
    sweep.add_argument("--out", type=arguments.path, metavar="DIR",
                       help="folder of the runs (default: minires-runs/NAME for a SPEC file called NAME.json or "
                            "NAME.toml)")
    sweep.add_argument("--jobs", type=arguments.positive, metavar="N",
                       help="number of runs at the same time, which share the cores (default: one per core; on a GPU "
                            "1)")
    sweep.add_argument("--scheduler", metavar="ADDRESS",
                       help="address of a Dask scheduler, for example tcp://10.0.0.1:8786; its workers must see the "
                            "same folders as this machine")
    sweep.add_argument("--checkpoint-seconds", type=arguments.seconds, default=600.0, metavar="SECONDS",
                       help="seconds between a run's checkpoints; one is also written after every epoch (default: 600)")
    sweep.set_defaults(run=_sweep)


def _sweep(args: argparse.Namespace) -> int:
    from .runs import sweep
    from .runs.progress import say

    spec = sweep.read(args.spec)
    out = args.out or Path("minires-runs", args.spec.stem)
    table, failed = sweep.run(spec, out, jobs=args.jobs, scheduler=args.scheduler,
                              every_seconds=args.checkpoint_seconds, command=args.typed)
    say(table)
    return 2 if failed else 0


def _add_report(commands: Commands) -> None:
    report = commands.add_parser(
        "report", help="write Fig. 6 and Table 6 of He et al. 2015 for any set of runs",
        description="Write report.md, curves.png and results.json for a set of runs, with errors after the last epoch.")
    report.add_argument("folders", type=arguments.path, nargs="+", metavar="DIR",
                        help="the folder of a run, or a folder that holds the folders of runs")
    report.add_argument("--out", type=arguments.path, required=True, metavar="DIR", help="folder for the three files")
    report.set_defaults(run=_report)


def _report(args: argparse.Namespace) -> int:
    from .runs import report

    print(report.write(args.folders, args.out))
    return 0


# --------------------------------------------------------------------------------------- evaluate and inspect


def _add_evaluate(commands: Commands) -> None:
    evaluate = commands.add_parser(
        "evaluate", help="count the test images that a trained network classifies correctly",
        description="Load weights (safetensors, npz, or a PyTorch file, whose code is not run) into a network, and "
                    "count the test images of a data set that the network classifies correctly. For the folder of a "
                    "finished run, the run gives the weights, the test images and their normalisation.",
        epilog="Examples: minires evaluate resnet20 resnet20.th --dataset cifar10 --mean 0.485 0.456 0.406 "
               "--std 0.229 0.224 0.225; minires evaluate minires-runs/resnet20-cifar10-paper-cifar-seed0")
    evaluate.add_argument("model", type=arguments.text, metavar="MODEL|RUN",
                          help="name of the network, for example resnet20, or a folder that `minires train` wrote")
    evaluate.add_argument("weights", type=arguments.path, metavar="WEIGHTS", nargs="?",
                          help="file with the network's weights")
    _add_network_options(evaluate)
    evaluate.add_argument("--batch-size", type=arguments.positive, default=500, metavar="N",
                          help="number of images to evaluate at a time (default: %(default)s)")
    evaluate.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    evaluate.set_defaults(run=_evaluate)


def _evaluate(args: argparse.Namespace) -> int:
    from .commands import evaluate

    found = evaluate.find(args.model, args.weights, _told(args), root=args.root, where=args.device,
                          download=args.download)
    print(evaluate.run(found, batch_size=args.batch_size, as_json=args.json))
    return 0


def _add_inspect(commands: Commands) -> None:
    inspect = commands.add_parser(
        "inspect", help="measure a trained network: responses, gradients, lesions, loss landscape",
        description="Measure layer responses, gradients, lesions and the loss landscape of a trained network. Write "
                    "figures, inspect.json and one page, inspect.html. If no part is chosen, measure all parts that "
                    "the network and the data allow.",
        epilog="Examples: minires inspect minires-runs/resnet20-cifar10-paper-cifar-seed0; minires inspect resnet20.th "
               "--model resnet20 --dataset cifar10 --lesion")
    inspect.add_argument("source", type=arguments.path, metavar="WEIGHTS|RUN",
                         help="a file with weights (needs --model), or a folder that `minires train` wrote")
    for part, measured in (
            ("responses", "measure the responses of the 3x3 layers (He et al. 2015, Fig. 7); works without --dataset"),
            ("gradients", "measure the gradients layer by layer, at initialisation and after training, and dead units"),
            ("lesion", "measure the error with each block deleted"),
            ("landscape", "measure the loss along random directions, and its curvature")):
        inspect.add_argument(f"--{part}", action="append_const", const=part, dest="parts", help=measured)
    inspect.add_argument("--out", type=arguments.path, metavar="DIR",
                         help="folder for the results (default: minires-inspect, or minires-inspect-2, ... if that "
                              "exists)")
    inspect.add_argument("--model", metavar="NAME", help="name of the network that the weights belong to")
    inspect.add_argument("--images", type=arguments.positive, default=500, metavar="N",
                         help="use the first N test images, or all if there are fewer (default: %(default)s)")
    inspect.add_argument("--seed", type=arguments.not_negative, default=0, metavar="S",
                         help="seed of the landscape's directions (default: %(default)s)")
    inspect.add_argument("--in-channels", type=arguments.positive, metavar="C",
                         help="number of channels of the images, if --dataset is not given (default: the network's "
                              "own, 3)")
    _add_network_options(inspect)
    inspect.set_defaults(run=_inspect)


def _inspect(args: argparse.Namespace) -> int:
    from tqdm.auto import tqdm

    from .commands import inspect

    out = args.out or _free(Path("minires-inspect"))
    inspect.check_folder(out)  # fail before the long computation, not after it
    told = _told(args, args.model, args.in_channels)
    found = inspect.find(args.source, told, images=args.images, root=args.root, where=args.device,
                         download=args.download)
    print(inspect.run(found, out, args.parts or (), seed=args.seed, command=args.typed,
                      progress=lambda items: tqdm(items, disable=None)))
    return 0


def _add_animate(commands: Commands) -> None:
    animate = commands.add_parser(
        "animate", help="film the training of a plain and a residual network on one page",
        description="Train the plain and the residual network of one depth (width 8, option A shortcuts) on 10,000 "
                    "Fashion-MNIST images averaged to 14x14 pixels. Measure gradients, layer responses, the first "
                    "filters and the errors every few steps, and write one HTML page that plays them side by side. The "
                    "page opens from disk and loads nothing.")
    animate.add_argument("--out", type=arguments.path, metavar="FILE",
                         help="the page (default: minires-animation.html, or minires-animation-2.html, ... if that "
                              "exists)")
    animate.add_argument("--depth", type=arguments.positive, default=56, metavar="D",
                         help="number of layers of both networks: 20, 32, 44, 56 or 110 (default: %(default)s)")
    animate.add_argument("--epochs", type=arguments.positive, default=3, metavar="N",
                         help="number of passes over the training images (default: %(default)s)")
    animate.add_argument("--every", type=arguments.positive, default=0, metavar="N",
                         help="number of steps from one picture to the next (default: about 60 pictures)")
    animate.add_argument("--seed", type=arguments.not_negative, default=0, metavar="S",
                         help="seed of the initial weights and of the order of the images (default: %(default)s)")
    animate.add_argument("--device", choices=DEVICES, default="auto",
                         help=TRAINS_ON)
    animate.set_defaults(run=_animate)


def _animate(args: argparse.Namespace) -> int:
    from . import recipes
    from .commands import animate

    nets = animate.choose(args.depth, recipes.Recipe(epochs=args.epochs), seed=args.seed, where=args.device)
    animate.run(args.out or _free(Path("minires-animation.html")), nets, args.every, command=args.typed)
    return 0


def _add_network_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for a network whose weights are in a file: data set, pixels, and how the network is built."""
    add = parser.add_argument
    add("--dataset", metavar="NAME", help=DATASETS)
    add("--data-dir", type=arguments.path, metavar="DIR", dest="root", help=DATA_DIR)
    add("--download", action="store_true", help=DOWNLOAD)
    add("--mean", type=float, nargs="+", metavar="M",
        help="mean to subtract from pixels / 255, one number per channel (default: see --normalize; 0 if only --std is "
             "given)")
    add("--std", type=float, nargs="+", metavar="S",
        help="standard deviation to divide by after --mean is subtracted, one number per channel (default: see "
             "--normalize; 1 if only --mean is given)")
    add("--normalize", choices=("channel", "pixel-mean", "none"),
        help="without --mean and --std: subtract the training set's mean of each channel and divide by the channel's "
             "standard deviation (channel, the default), subtract the training set's mean image (pixel-mean), or leave "
             "pixels / 255 unchanged (none)")
    add("--image-size", type=arguments.positive, metavar="N",
        help="average the images to this height and width (default: their own size)")
    add("--rename", type=arguments.rule, action="append", metavar="OLD=NEW",
        help="translate the name OLD in the file to the network's name NEW, for example classifier=fc; or give a "
             "regular expression as 's/OLD/NEW/', for example 's/stage(\\d)/layer{\\1+1}/' if the file counts from 0, "
             "which may repeat characters but no groups; can be given several times")
    add("--pad", choices=("both", "end"),
        help="where an option A shortcut adds its zero channels: half at each side, or all at the end (default: both)")
    add("--shortcut", choices=("A", "B", "C"),
        help="shortcut option, see He et al. 2015, section 4.1 (default: the network's own)")
    add("--width", type=arguments.positive, metavar="W",
        help="number of channels of the first stage (default: the network's own)")
    add("--device", choices=DEVICES,
        help="where to compute (default: auto, the GPU if one works, else the CPU; for a run, the device it was "
             "trained on)")


def _told(args: argparse.Namespace, model: str | None = None, in_channels: int | None = None) -> Told:
    """Collect the options about the network by name."""
    from .commands.subject import Told

    return Told(model=model, dataset=args.dataset, mean=args.mean, std=args.std, normalize=args.normalize,
                image_size=args.image_size, in_channels=in_channels, rename=arguments.rules(args.rename),
                pad=args.pad, shortcut=args.shortcut, width=args.width)


# ----------------------------------------------------------------------------------------------------- detect


def _add_detect(commands: Commands) -> None:
    detect = commands.add_parser(
        "detect", help="train and measure detectors and segmentation networks on the stages of a CIFAR network",
        description="Faster R-CNN and an FCN on a residual or plain network, on generated scenes of Fashion-MNIST.")
    actions = detect.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_detect_train(actions)
    _add_detect_evaluate(actions)
    _add_detect_show(actions)


def _add_detect_train(actions: Commands) -> None:
    train = actions.add_parser(
        "train", help="train a detector, a segmentation network, or a classifier of patches for them to start from",
        description="Train a network on BACKBONE, such as resnet20. Write config.json, metrics.jsonl, checkpoints, "
                    "weights.safetensors and results.json into the folder.",
        epilog="Ctrl-C writes a checkpoint and stops. The same command with --resume, or `minires detect train "
               "--resume --out DIR` alone, resumes the training. The results have the same bits as without the stop.")
    train.add_argument("backbone", nargs="?", metavar="BACKBONE",
                       help="CIFAR network with BatchNorm; can be left out with --resume --out DIR")
    train.add_argument("--task", default=ABSENT, metavar="TASK",
                       help="detection (Faster R-CNN; the default), segmentation (FCN) or classification (pre-training "
                            "on 28x28 patches)")
    train.add_argument("--weights", type=arguments.text, default=ABSENT, metavar="FILE",
                       help="weights to start from, or none for random weights (default: those that ship with minires, "
                            "which are for plain and residual networks of 20 and 56 layers, width 8)")
    train.add_argument("--images", type=arguments.positive, default=ABSENT, metavar="N",
                       help="number of scenes, each used once, or of patches, of which 10,000 are an epoch (default: "
                            "4,800 scenes for detection, 6,400 for segmentation, 100,000 patches)")
    train.add_argument("--width", type=arguments.positive, default=ABSENT, metavar="W",
                       help="number of channels of the first stage (default: 8)")
    train.add_argument("--seed", type=arguments.not_negative, default=ABSENT, metavar="S",
                       help="seed of the scenes, of the new layers and of what is drawn from each scene (default: 0)")
    train.add_argument("--device", choices=DEVICES, default=ABSENT, help=TRAINS_ON)
    train.add_argument("--out", type=arguments.path, metavar="DIR",
                       help="folder of the training (default: minires-runs/TASK-BACKBONE-seedS)")
    train.add_argument("--resume", action="store_true",
                       help="resume the training in the folder; if the folder is empty or missing, begin it")
    train.add_argument("--time-limit", type=arguments.seconds, default=float("inf"), metavar="SECONDS",
                       help="write a checkpoint and stop after this many seconds (default: no limit)")
    train.add_argument("--checkpoint-seconds", type=arguments.seconds, default=600.0, metavar="SECONDS",
                       help="seconds between checkpoints; one is also written 20 times in a training (default: 600)")
    train.set_defaults(run=_detect_train)


def _detect_train(args: argparse.Namespace) -> int:
    from .commands import detect

    given = _given(args, "task", "weights", "images", "width", "seed", "device")
    if args.backbone:
        if "device" in given:
            given["where"] = given.pop("device")
        chosen = detect.choose(given.pop("task", "detection"), args.backbone, **given)
        out = args.out or Path("minires-runs", f"{chosen[0].task}-{chosen[0].backbone}-seed{chosen[0].seed}")
    else:
        chosen, out = None, _resumed(args, given, "BACKBONE", "BACKBONE is missing: give the network to train on, or "
                                     "--resume --out DIR to resume the training in DIR")
    done = detect.train(chosen, out, resume=args.resume, time_limit=args.time_limit,
                        every_seconds=args.checkpoint_seconds)
    return _ended(done, f"{out / 'results.json'}, metrics.jsonl and weights.safetensors", "minires detect train", out)


TRAINED_DETECTOR = ("folder of a finished training; or resnet20 or resnet56, the detectors that ship with minires. A "
                    "folder of that name comes first")


def _scene_options(parser: argparse.ArgumentParser, count: int | None, default: str) -> None:
    parser.add_argument("--scenes", type=arguments.path, metavar="FILE",
                        help=".npz file with scenes of your own: images uint8 (N, H, W), boxes (M, 4) as x0, y0, x1, "
                             "y1 in pixels with exclusive ends, labels (M,) from 0 to 9, scene (M,), the image of each "
                             "box, and perhaps masks uint8 (N, H, W) (default: generated test scenes)")
    parser.add_argument("--count", type=arguments.positive, default=count, metavar="N",
                        help=f"number of scenes; with --scenes, at most this many of the file (default: {default})")
    parser.add_argument("--seed", type=arguments.not_negative, metavar="S", help="seed of the test scenes (default: 0)")
    parser.add_argument("--device", choices=DEVICES, default="",
                        help="where to compute (default: the device of the training)")


def _add_detect_evaluate(actions: Commands) -> None:
    evaluate = actions.add_parser(
        "evaluate", help="measure a trained network, or detections in COCO's format: AP, localisation, IoU of masks",
        description="Measure the network of the training in DIR, or the detections in a JSON file in COCO's format: "
                    'a list of {"image_id": from 0, "category_id": class + 1, "bbox": [x, y, width, height], "score": '
                    "...}.")
    evaluate.add_argument("folder", nargs="?", type=arguments.path, metavar="DIR", help=TRAINED_DETECTOR)
    evaluate.add_argument("--detections", type=arguments.path, metavar="FILE", help="JSON file, instead of DIR")
    evaluate.add_argument("--write", type=arguments.path, metavar="FILE",
                          help="write the detections of the network into this file, in COCO's format")
    _scene_options(evaluate, None, "300; with --scenes, all")
    evaluate.set_defaults(run=_detect_evaluate)


def _detect_evaluate(args: argparse.Namespace) -> int:
    from .commands import detect

    print(detect.evaluate(args.folder, detections=args.detections, scenes=args.scenes, count=args.count,
                          seed=args.seed, where=args.device, write=args.write))
    return 0


def _add_detect_show(actions: Commands) -> None:
    show = actions.add_parser(
        "show", help="draw scenes with the boxes or masks that a trained network finds",
        description="Draw scenes with what the network of the training in DIR finds: boxes, right and wrong, or masks.")
    show.add_argument("folder", type=arguments.path, metavar="DIR", help=TRAINED_DETECTOR)
    show.add_argument("--out", type=arguments.path, default=Path("scenes.png"), metavar="FILE",
                      help="the picture, a .png file (default: %(default)s)")
    show.add_argument("--first", type=arguments.not_negative, default=0, metavar="I",
                      help="number of the first scene (default: 0)")
    show.add_argument("--least-score", type=float, default=0.3, metavar="P",
                      help="boxes with this score or a lower one are not drawn (default: %(default)s)")
    _scene_options(show, 6, "6")
    show.set_defaults(run=_detect_show)


def _detect_show(args: argparse.Namespace) -> int:
    from .commands import detect

    detect.show(args.folder, args.out, scenes=args.scenes, count=args.count, seed=args.seed, first=args.first,
                least_score=args.least_score, where=args.device)
    print(f"Wrote {args.out}")
    return 0


# -------------------------------------------------------------------------------------- models, bench and info


def _add_models(commands: Commands) -> None:
    models = commands.add_parser(
        "models", help="list the networks with their layers, parameters and multiply-accumulates",
        description="List every named network with its layers, parameters and multiply-accumulates (MACs) for one "
                    "image. All numbers are counted on the network itself.")
    models.add_argument("--json", action="store_true", help="print one JSON list, with exact numbers")
    models.set_defaults(run=_models)


def _models(args: argparse.Namespace) -> int:
    from .commands import models

    print(models.text(as_json=args.json))
    return 0


def _add_bench(commands: Commands) -> None:
    bench = commands.add_parser(
        "bench", help="measure the time of a training step on this machine, and where the time goes",
        description="Measure the time of training steps of a CIFAR ResNet on random 32x32 images.",
        epilog="The folder benchmarks/ of the repository compares minires with other libraries.")
    bench.add_argument("--depth", type=arguments.positive, default=20, metavar="D",
                       help="number of layers of the network, 6n + 2 (default: %(default)s)")
    bench.add_argument("--batch", type=arguments.positive, default=128, metavar="N",
                       help="number of images in a step (default: %(default)s)")
    bench.add_argument("--steps", type=arguments.positive, default=10, metavar="K",
                       help="number of steps to time (default: %(default)s)")
    bench.add_argument("--threads", type=arguments.positive, metavar="T",
                       help="number of threads of the kernels (default: the environment variable MINIRES_THREADS, or "
                            "else one per core)")
    bench.add_argument("--profile", action="store_true", help="also show each operation's share of the time")
    bench.set_defaults(run=_bench)


def _bench(args: argparse.Namespace) -> int:
    from .commands import bench

    print(bench.bench(args.depth, args.batch, args.steps, args.threads, args.profile))
    return 0


def _add_info(commands: Commands) -> None:
    info = commands.add_parser(
        "info", help="show versions, BLAS, threads, and which GPU is used or why none is",
        description="Show what this installation runs on: versions, BLAS, threads, and which GPU is used or why none "
                    "is.")
    info.set_defaults(run=_info)


def _info(args: argparse.Namespace) -> int:
    from . import info

    print(info.text())
    return 0


def _add_course(commands: Commands) -> None:
    from .course import cli

    cli.add(commands)


def _free(path: Path) -> Path:
    """Return the first of a.html, a-2.html, a-3.html, ... that does not exist, for a folder of a, a-2, a-3, ..."""
    names = (path, *(path.with_name(f"{path.stem}-{i}{path.suffix}") for i in range(2, 10_000)))
    return next(p for p in names if not p.exists())


if __name__ == "__main__":
    sys.exit(main())
