"""Draw the figures of the recorded experiments, and print the numbers that decide their predictions:

    python data/experiments/report.py                  # of all experiments in data/results that have results
    python data/experiments/report.py overfitting      # of one

The figures go beside the results. data/results/EXPERIMENTS.md has the predictions.
"""
from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from minires import analysis, plot
from minires.files import records
from minires.files.atomic import write_atomically
from minires.names import printed

RESULTS = Path(__file__).resolve().parents[1] / "results"
IMAGES = "Fashion-MNIST averaged to 14x14, width 8"
Found = tuple[list[str], dict[str, Any]]  # lines of text, {name: figure}
Runs = list[dict[str, Any]]


def runs(folder: Path) -> Runs:
    """Return the finished runs of a results.json, each with its settings and curves."""
    return [run for run in records.read(folder / "results.json")["runs"] if run["finished"]]


def last(found: Runs, key: str, **same: Any) -> dict[int, float]:
    """Return {seed: the last value of this curve} of the runs with this model and these settings."""
    return {run["seed"]: run["curves"][key][-1] for run in found
            if all((run["settings"] | run).get(name) == value for name, value in same.items())}


def difference(what: str, a: Mapping[int, float], b: Mapping[int, float], unit: str = "points") -> str:
    """Return a line with the paired difference of two networks, or one that says that there is none."""
    if not a.keys() & b.keys():
        return f"- {what}: no common seed"
    return f"- {what}: {analysis.paired(a, b)} {unit}"


def seeds_of(found: Runs) -> str:
    """Return the seeds as text."""
    seeds = sorted({run["seed"] for run in found})
    return f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}"


def errors_of(found: Runs, models: Sequence[str]) -> tuple[dict[tuple[str, str], dict[int, float]], list[str],
                                                           dict[str, dict[str, list[float]]]]:
    """Return {(model, curve): {seed: last error}}, a line for each of them, and {kind: {network: errors}} to draw."""
    errors = {(model, key): last(found, key, model=model) for model in models for key in ("train_error", "test_error")}
    lines = [f"- {printed(model)}, {key.replace('_', ' ')}: {analysis.interval(list(of.values()))} %"
             for (model, key), of in errors.items() if of]
    by_group = {name: {printed(model): list(errors[model, key].values()) for model in models if errors[model, key]}
                for name, key in (("training error", "train_error"), ("test error", "test_error"))}
    return errors, lines, by_group


# --------------------------------------------------------------------------------------------------- depth


def depth(folder: Path) -> Found:
    """Compare plain and residual networks of 20 and 56 layers."""
    found = runs(folder)
    errors, lines, by_group = errors_of(found, ("plain20", "plain56", "resnet20", "resnet56"))
    for key in "train_error", "test_error":
        for more, less in ("plain56", "plain20"), ("resnet20", "resnet56"), ("plain20", "resnet20"):
            lines.append(difference(f"{printed(more)} minus {printed(less)}, {key.replace('_', ' ')}",
                                    errors[more, key], errors[less, key]))
    caption = f"{IMAGES}, 10,000 images, 30 epochs, {seeds_of(found)}. Test errors: 2,000 images."
    return lines, {"errors": plot.seed_intervals(by_group, "error after the last epoch (%)", caption=caption)}


# ------------------------------------------------------------------------------------------------- cifar10


NETWORKS = "plain20", "resnet20", "plain56", "resnet56"
PAPER = {"plain20": "about 9.7 %, read off v1's Fig. 6", "resnet20": "8.75 % (v1, Table 6)",
         "plain56": "about 13 %, read off v1's Fig. 6", "resnet56": "6.97 % (v1, Table 6)"}  # test errors


def cifar10(folder: Path) -> Found:
    """Compare the networks on the original pixels, by their errors and by what the trained weights show."""
    found, lines, figures = runs(folder), list[str](), dict[str, Any]()
    train, test = ({name: value for name in NETWORKS for value in last(found, key, model=name).values()}
                   for key in ("train_error", "test_error"))
    lines += [f"- {printed(name)}: training error {train[name]:.2f} %, test error {test[name]:.2f} %; the paper's test "
              f"error after 164 epochs: {PAPER[name]}" for name in NETWORKS if name in train]
    for more, less in (("plain56", "plain20"), ("plain20", "resnet20"), ("plain20", "resnet56"),
                       ("resnet20", "resnet56")):
        if {more, less} <= train.keys():
            lines.append(f"- {printed(more)} minus {printed(less)}: training error {train[more] - train[less]:.2f}, "
                         f"test error {test[more] - test[less]:.2f} points")
    if (path := folder / "analyses.json").exists():
        _analyses(records.read(path), lines, figures)
    return lines, figures


def _analyses(measured: dict[str, Any], lines: list[str], figures: dict[str, Any]) -> None:
    settings, trained = measured["settings"], "CIFAR-10 at 32x32, width 16, 12 epochs, seed 0"
    for key, how in ("lesions", "eval mode"), ("lesions_batch", "the batch's statistics in every BatchNorm"):
        cut = {printed(name): analysis.Lesions(it["whole"], it["without"],
                                               tuple(measured["lesions"][name]["changes_shape"]))
               for name, it in measured[key].items()}
        for label, errors in cut.items():
            lines.append(f"- {label}, lesions, {how}: whole {errors.whole:.2f} %, without one block "
                         f"{fmean(errors.without.values()):.2f} % on average")
            if down := [errors.without[name] for name in errors.changes_shape]:
                others = [error for name, error in errors.without.items() if name not in errors.changes_shape]
                lines.append(f"- {label}, without one that down-samples: {', '.join(f'{e:.2f}' for e in down)} %; "
                             f"without another: {fmean(others):.2f} % on average, at most {max(others):.2f} %")
        figures[key] = plot.lesions(
            {label: cut[label] for label in ("plain-56", "ResNet-56") if label in cut},
            f"Test error of {settings[key]['test_images']:,} images, {how}. {trained}.")
    lines += [f"- {printed(name)}, mean response: {fmean(it.values()):.3f}"
              for name, it in measured["responses"].items()]
    figures["responses"] = plot.responses(
        {printed(name): it for name, it in measured["responses"].items()},
        f"{settings['responses']['train_images']} training images, train mode. {trained}.")
    lines += [f"- {printed(name)}, curvature along {len(it['curvatures'])} random directions: "
              f"{', '.join(f'{bend:.3g}' for bend in it['curvatures'])}" for name, it in measured["line"].items()]
    figures["line"] = plot.loss_line(
        {printed(name): analysis.Line(**{key: known(it[key]) for key in analysis.Line._fields})
         for name, it in measured["line"].items()},
        f"{settings['line']['train_images']:,} training images, eval mode, one random direction (seed 0), "
        f"filter-normalised. {trained}.")
    figures["surface"] = plot.loss_surface(
        {printed(name): analysis.Surface(**{key: known(value) for key, value in it.items()})
         for name, it in measured["surface"].items()},
        f"{settings['surface']['train_images']} training images, eval mode, two random directions (seeds 0, 1), "
        f"filter-normalised. {trained}.")


def known(value: Any) -> Any:
    """Return what was recorded, with infinity for a loss that overflowed."""
    return [known(item) for item in value] if isinstance(value, list) else math.inf if value is None else value


# ------------------------------------------------------------------------------------------- one dimension


def one_dimension(folder: Path) -> Found:
    """Compare stacks of numbers: ratios of errors at 32 blocks and at 1 block, and between stacks."""
    whole = records.read(folder / "results.json")
    least, deepest = 1e-7, max(whole["settings"]["blocks"])

    def logs(target: str, stack: str, blocks: int, rate: float) -> dict[int, float]:
        """Return {seed: log10 of the error}; a training that failed has the error of a stack that gives infinity."""
        return {run["seed"]: math.log10(max(run["after"] if run["after"] is not None else 1e9, least))
                for run in whole["runs"] if (run["target"], run["stack"], run["blocks"], run["rate"]) ==
                (target, stack, blocks, rate)}

    def ratio(what: str, a: Mapping[int, float], b: Mapping[int, float]) -> str:
        found = analysis.paired(a, b)
        return (f"- {what}: {10 ** found.mean:.3g} ({10 ** found.low:.2g} to {10 ** found.high:.2g}, {found.seeds} "
                "seeds)")

    lines: list[str] = []
    zero, plain, residual = "residual, starts as the identity", "plain", "residual"
    targets = list(dict.fromkeys(run["target"] for run in whole["runs"]))
    planned = len(targets) * len(whole["settings"]["blocks"]) * len(whole["settings"]["seeds"])
    for rate in whole["settings"]["rates"]:
        done = [sum((run["stack"], run["rate"]) == (stack, rate) for run in whole["runs"])
                for stack in (plain, residual, zero)]
        if min(done) < planned:
            lines.append(f"learning rate {rate}: {sum(done)} of {3 * planned} trainings are done, too few to compare")
            continue
        lines.append(f"learning rate {rate}, ratios of errors:")
        lines.append(ratio(f"plain, identity, {deepest} blocks / 1 block", logs("identity", plain, deepest, rate),
                           logs("identity", plain, 1, rate)))
        lines.append(ratio(f"starts as the identity, near it, {deepest} blocks / 1 block",
                           logs("near the identity", zero, deepest, rate), logs("near the identity", zero, 1, rate)))
        for target in targets:
            for stack in zero, residual:
                lines.append(ratio(f"{target}, {deepest} blocks, plain / {stack}", logs(target, plain, deepest, rate),
                                   logs(target, stack, deepest, rate)))
    count = len({run["seed"] for run in whole["runs"]})
    figures = {}
    for rate in whole["settings"]["rates"]:
        errors: dict[str, Any] = {}
        for run in whole["runs"]:
            if run["rate"] == rate and run["after"] is not None:
                errors.setdefault(run["target"], {}).setdefault(run["stack"], {}).setdefault(run["blocks"], []).append(
                    run["after"])
        caption = (f"Scalar blocks of two layers with 8 hidden units; 1,000 steps of Adam, learning rate {rate}, "
                   f"{count} seeds (hollow: each seed). Errors below 1e-7 are drawn at 1e-7.")
        if errors:
            figures[f"errors_{rate}"] = plot.errors_by_blocks(errors, title="Error after training, by number of blocks",
                                                              caption=caption)
    drawn = {run["stack"]: np.array(run["curves"]["after"]) for run in whole["runs"]
             if "curves" in run and run["target"] == "near the identity"}
    figures["curves"] = plot.after_each_block(
        drawn, "8 blocks fitted to x + 0.2 sin(pi x) (dashed), seed 0, after training.",
        wanted=lambda x: x + 0.2 * np.sin(np.pi * x))
    return lines, figures


# ------------------------------------------------------------------------------------------------ placement


UNITS = {"original": "resnet{}", "BN after addition": "bn_after_addition_resnet{}",
         "full pre-activation": "preact_resnet{}"}
WARM = {"without warm-up": 0.0, "with warm-up": 0.01}


def placement(folder: Path) -> Found:
    """Compare the placements of BN and ReLU, with and without warm-up."""
    found, lines, figures = runs(folder), list[str](), dict[str, Any]()
    for depth in 110, 164:
        error = {(unit, warm): last(found, "train_error", model=name.format(depth), warm_up_lr=lr)
                 for unit, name in UNITS.items() for warm, lr in WARM.items()}
        lines.append(f"{depth} layers, training error:")
        for key, of_seeds in error.items():
            if of_seeds:
                lines.append(f"- {', '.join(key)}: {analysis.interval(list(of_seeds.values()))} %")
        for warm in WARM:
            original = error["original", warm]
            lines.append(difference(f"original minus pre-activation, {warm}", original,
                                    error["full pre-activation", warm]))
            lines.append(difference(f"BN after addition minus original, {warm}", error["BN after addition", warm],
                                    original))
        for unit in UNITS:
            lines.append(difference(f"no warm-up minus warm-up, {unit}", error[unit, "without warm-up"],
                                    error[unit, "with warm-up"]))
        by_group = {warm: {unit: list(error[unit, warm].values()) for unit in UNITS if error[unit, warm]}
                    for warm in WARM}
        kind = {110: "basic blocks", 164: "bottlenecks"}[depth]
        caption = (f"{depth} layers ({kind}), {IMAGES}, 2,000 images, 10 epochs, {seeds_of(found)}. Errors in eval "
                   "mode after the last epoch.")
        figures[f"training_error_{depth}"] = plot.seed_intervals(
            {w: by for w, by in by_group.items() if by}, "training error (%)",
            f"Training error with {depth} layers: every seed, the mean, and its 95 % interval", caption)
        curves = {unit: [(run["curves"]["step"], run["curves"]["train_error"]) for run in found
                         if run["model"] == name.format(depth) and run["settings"]["warm_up_lr"] == 0]
                  for unit, name in UNITS.items()}
        figures[f"curves_{depth}"] = plot.mean_curves(
            curves, "training error (%)", title=f"Training error with {depth} layers, without warm-up: mean and range",
            caption=caption)
    if (path := folder / "negative_sums.json").exists():
        _sums(records.read(path)["runs"], lines, figures)
    return lines, figures


def _sums(measured: list[dict[str, Any]], lines: list[str], figures: dict[str, Any]) -> None:
    for depth in 110, 164:
        lines.append(f"{depth} layers, mean share of negative sums over the blocks, without warm-up:")
        shown: dict[str, dict[str, float]] = {}
        for unit, name in UNITS.items():
            chosen = [run for run in measured if run["model"] == name.format(depth) and run["warm_up_lr"] == 0]
            for when in "before", "after":
                each = {run["seed"]: 100 * fmean(run[when].values()) for run in chosen}
                if each:
                    lines.append(f"- {unit}, {when} training: {analysis.interval(list(each.values()))} %")
                    if unit != "BN after addition":
                        shown[f"{unit}, {when}"] = {block: fmean(run[when][block] for run in chosen)
                                                    for block in chosen[0][when]}
        if shown:
            figures[f"negative_sums_{depth}"] = plot.negative_sums(
                shown, f"{depth} layers, {IMAGES}, without warm-up, mean over {len(chosen)} seeds, 500 test images in "
                       "train mode, before and after training.")


# -------------------------------------------------------------------------- convergence, overfitting, bottleneck


LEVELS = 0.6, 0.5


def convergence(folder: Path) -> Found:
    """Compare how many steps plain-20 and ResNet-20 need to a training loss."""
    found = runs(folder)
    lines, steps = list[str](), dict[float, dict[str, list[float]]]()
    for level in LEVELS:
        to = {model: {run["seed"]: analysis.steps_to(run["curves"]["step"], run["curves"]["train_loss"], level)
                      for run in found if run["model"] == model} for model in ("plain20", "resnet20")}
        reached = {model: {seed: at for seed, at in of.items() if at is not None} for model, of in to.items()}
        for model, of in reached.items():
            if of:
                lines.append(f"- {printed(model)}, steps to a loss of {level}: {analysis.interval(list(of.values()))}, "
                             f"reached by {len(of)} of {len(to[model])} seeds")
        lines.append(difference(f"plain-20 minus ResNet-20, steps to {level}", reached["plain20"],
                                reached["resnet20"], "steps"))
        steps[level] = {printed(model): list(of.values()) for model, of in reached.items()}
    errors = [last(found, "test_error", model=model) for model in ("plain20", "resnet20")]
    lines.append(difference("plain-20 minus ResNet-20, last test error", *errors))
    caption = f"{IMAGES}, 10,000 images, learning rate 0.1 throughout, {seeds_of(found)}."
    curves = {printed(model): [(run["curves"]["step"], run["curves"]["train_loss"]) for run in found
                               if run["model"] == model] for model in ("plain20", "resnet20")}
    return lines, {
        "curves": plot.mean_curves(curves, "training loss", title="Training loss with 20 layers: mean and range of the "
                                                                  "seeds", caption=caption),
        "steps": plot.seed_intervals({f"to a loss of {level}": by for level, by in steps.items()}, "steps",
                                     "Steps to a training loss: every seed, the mean, and its 95 % interval", caption)}


def overfitting(folder: Path) -> Found:
    """Compare training and test errors of three depths on 1,000 images."""
    found = runs(folder)
    models = "resnet20", "resnet56", "resnet110"
    errors, lines, by_group = errors_of(found, models)
    for model in models[1:]:
        lines.append(difference(f"{printed(model)} minus ResNet-20, test error", errors[model, "test_error"],
                                errors["resnet20", "test_error"]))
    caption = f"{IMAGES}, the first 1,000 images, no crops or flips, 40 epochs, {seeds_of(found)}."
    panels = {name: plot.seed_intervals({name: by_group[name]}, f"{name} (%)",
                                        f"{name.capitalize()} after training on 1,000 images: every seed, the mean, "
                                        "and its 95 % interval", caption) for name in by_group}
    return lines, {name.replace(" ", "_"): figure for name, figure in panels.items()}


def bottleneck(folder: Path) -> Found:
    """Compare basic blocks and bottlenecks at equal depth and work."""
    found = runs(folder)
    names = {"basic": {"width": 8}, "bottleneck": {"width": 10, "block": "bottleneck", "shortcut": "B"}}
    errors = {(name, key): last(found, key, model_options=options) for name, options in names.items()
              for key in ("train_error", "test_error")}
    lines = [f"- {name}, {key.replace('_', ' ')}: {analysis.interval(list(of.values()))} %"
             for (name, key), of in errors.items() if of]
    lines += [difference(f"bottleneck minus basic, {key.replace('_', ' ')}", errors["bottleneck", key],
                         errors["basic", key]) for key in ("train_error", "test_error")]
    by_group = {key.replace("_", " "): {name: list(errors[name, key].values()) for name in names if errors[name, key]}
                for key in ("train_error", "test_error")}
    caption = (f"56 layers, {IMAGES} (bottlenecks: 10), 5,000 images, 10 epochs, {seeds_of(found)}; 6.60 and 6.92 "
               "million multiply-accumulates.")
    return lines, {"errors": plot.seed_intervals(by_group, "error (%)", caption=caption)}


EXPERIMENTS: dict[str, Callable[[Path], Found]] = {
    "depth": depth, "cifar10": cifar10, "one-dimension": one_dimension,
    "placement": placement, "convergence": convergence, "overfitting": overfitting, "bottleneck": bottleneck}


def main() -> None:
    """Draw and print the experiments that have results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT",
                        help=f"any of {', '.join(EXPERIMENTS)} (default: all that have results)")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR",
                        help="the folder of the experiments (default: data/results)")
    args = parser.parse_args()
    if unknown := set(args.names) - set(EXPERIMENTS):
        parser.error(f"expected any of {', '.join(EXPERIMENTS)}, got {min(unknown)}")
    for name in args.names or [n for n in EXPERIMENTS if (args.results / n / "results.json").exists()]:
        lines, figures = EXPERIMENTS[name](args.results / name)
        print("\n".join([f"## {name}", *lines, ""]))
        for key, figure in figures.items():
            write_atomically(args.results / name / f"{key}.png", plot.png(figure, dpi=100, colours=256))


if __name__ == "__main__":
    main()
