"""Write figures and one self-contained report.html from results.json. Importing this module loads matplotlib.

The text of the page is computed. A sentence states a finding only if the run's numbers meet a condition, which is also
the condition for the figure's title. If a run does not show an effect, the page says so.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from .. import plot
from ..files import records
from ..files.atomic import write_atomically
from ..files.records import Between
from ..names import counted, network, printed
from ..plot import mean, number, percent, points
from ..runs.metrics import Percent
from .page import document, escaped, figure, pairs_table

Results = Mapping[str, Any]  # checked by `check_results`
Count = Annotated[int, Between(0)]
Numbers = list[Annotated[float, Between(0)]]


class Net(TypedDict):
    """Holds the numbers of one network. A list has one number per epoch, or one per layer from the input on."""

    train_error: list[Percent]
    test_error: list[Percent]
    train_loss: Numbers
    responses: Numbers
    responses_init: Numbers
    gradient_norms_init: Numbers
    gradient_norms_init_without_bn: NotRequired[Numbers]
    parameters: Count
    macs: Count
    seconds: float
    complete: bool


class Settings(TypedDict):
    """Holds the settings with which the networks were trained."""

    seed: int
    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    steps: NotRequired[int]
    drops: NotRequired[list[float]]
    warm_up_lr: NotRequired[float]
    warm_up_layers: NotRequired[int]
    crop: NotRequired[int]
    flip: NotRequired[bool]
    width: int
    shortcut: str
    image_size: int
    train_images: int
    test_images: int
    look_images: int
    dataset: str
    device: str
    quick: bool
    command: str


class Versions(TypedDict):
    """Holds the versions on which the numbers depend."""

    minires: str
    python: str
    numpy: str
    blas: str
    platform: str


class Whole(TypedDict):
    """Holds the content of results.json."""

    nets: dict[str, Net]
    settings: Settings
    versions: Versions
    started: str
    seconds: float


# --------------------------------------------------------------------------------------- reading and checking


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read and check results.json.

    Raises ValueError, which names the file and the key, if a value is missing or wrong.
    """
    return check_results(records.read(path), os.fspath(path))


def check_results(results: Any, where: str = "results") -> dict[str, Any]:
    """Check that every value has the expected type, and return the results.

    Raises ValueError, which begins with `where`, if a value is missing or wrong.
    """
    checked: dict[str, Any] = records.checked(results, Whole, where)
    for name, net in checked["nets"].items():
        found = network(name)
        if found is None or found.family not in ("plain", "resnet"):
            raise ValueError(f"{where}: nets: expected the names of plain and residual networks, got {name!r}")
        if len(net["train_error"]) != len(net["test_error"]):
            raise ValueError(f"{where}: nets.{name}: expected as many test errors as training errors, got "
                             f"{len(net['test_error'])} and {len(net['train_error'])}")
    return checked


# ---------------------------------------------------------------------------------------------------- writing


def write_report(results: Results, out_dir: str | os.PathLike[str]) -> Path:
    """Write the figures and report.html into ``out_dir``, which may not exist yet, and return the page's path."""
    check_results(results)
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    images = {draw.__name__: plot.png(draw(results["nets"], seed=results["settings"]["seed"]))
              for draw in (plot.error_curves, plot.gradient_norms, plot.responses)}
    for name, data in images.items():
        write_atomically(folder / f"{name}.png", data)
    return write_atomically(folder / "report.html", report_html(results, images))


# -------------------------------------------------------------------------------------------------- the table

HEADINGS = ("network", "layers", "parameters", "MACs", "epochs", "train error %", "test error %", "response before",
            "response after", "seconds")


def table_rows(results: Results) -> list[list[str]]:
    """Return one row of texts per network, as in HEADINGS. Errors are those after the last epoch, not the best ones."""
    return [_row(name, net, results["settings"]["epochs"]) for name, net in results["nets"].items()]


def _row(name: str, net: plot.Net, planned: int) -> list[str]:
    done = len(net["train_error"])
    errors = [f"{net[key][-1]:.1f}" if done else "-" for key in ("train_error", "test_error")]
    means = [mean(net[key]) for key in ("responses_init", "responses")]
    return [printed(name), str(plot.layers(name, net)), f"{net['parameters']:,}", f"{net['macs']:,}",
            str(done) if net["complete"] else f"{done} of {planned}, stopped", *errors,
            *("-" if value is None else f"{value:.2f}" for value in means), f"{net['seconds']:.1f}"]


def summary_table(results: Results) -> str:
    """Return the table as plain text for a terminal."""
    rows = [list(HEADINGS), *table_rows(results)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    lines = []
    for first, *others in rows:  # the name is aligned to the left, the numbers to the right
        cells = [first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(cells))
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


# -------------------------------------------------------------------------------------------------- the prose


def headline(results: Results) -> str:
    """State the measured finding in one sentence."""
    nets = results["nets"]
    pair, hurt, skip = plot.plain_pair(nets), plot.depth_hurts(nets), plot.with_skip(nets)
    if not any(net["train_error"] for net in nets.values()):
        return "The run was stopped before a network finished its first epoch, so there is nothing to compare."
    if pair is None:
        return "The run has no two plain networks of different depth, so it says nothing about depth."
    if hurt is None:
        return (f"{_run(results)} does not show that depth hurts the plain network: the training errors are "
                f"{_errors(nets, pair)}.")
    text = (f"After {counted(hurt.epoch, 'epoch')} depth hurts the plain network in training error: "
            f"{_against(nets, hurt, pair)}; ")
    if skip is None:
        return f"{text}the residual network of that depth has no finished epoch."
    if not plot.skip_helps(nets):
        return f"{text}this run does not show that the skip connection helps."
    when = "" if skip.epoch == hurt.epoch else f" after {counted(skip.epoch, 'epoch')}"
    return f"{text}with the skip connection it is {_at_depths(nets, skip)}{when} (seed {results['settings']['seed']})."


def paragraphs(results: Results) -> list[str]:
    """Return three paragraphs on what the run shows and what is not claimed: errors, gradients, responses."""
    return [about_errors(results), about_gradients(results), about_responses(results)]


def about_errors(results: Results) -> str:
    """Write paragraph 1: how depth and the skip connection changed the errors."""
    nets = results["nets"]
    pair, hurt = plot.plain_pair(nets), plot.depth_hurts(nets)
    if pair is None:
        return ("Degradation: this run has no two plain networks of different depth with a finished epoch, so it says "
                "nothing about the effect of depth or of the skip connection.")
    shallow, deep = pair
    residual = plot.residual_of(nets, deep) or printed(deep).replace("plain", "ResNet")
    if hurt is None:
        return (f"Degradation: {_run(results).lower()} {_too_little(results)} show that depth hurts a plain network. "
                f"The training errors are {_errors(nets, pair)}. So this run says nothing about the effect of the skip "
                "connection either.")
    more = points(hurt.error[deep], hurt.error[shallow])
    text = [f"Degradation: after {counted(hurt.epoch, 'epoch')} the training error of {printed(deep)} is "
            f"{percent(hurt.error[deep])}, {more:.1f} points above that of {printed(shallow)} "
            f"({percent(hurt.error[shallow])}). This is error on the very images the networks were trained on. "
            "Overfitting is a low training error with a high test error; here the training error itself is higher, so "
            "overfitting does not explain it."]
    both = plot.errors_at_common_epoch(nets, [deep, residual])
    if both is None:
        text.append(f"{printed(residual)} has no finished epoch, so the run says nothing about the skip connection.")
    elif not plot.skip_helps(nets):
        text.append(f"With the skip connection the training error is {percent(both.error[residual])} after "
                    f"{counted(both.epoch, 'epoch')}, against {percent(both.error[deep])} without: this run does not "
                    "show that the skip connection helps.")
    else:
        same = nets[deep]["parameters"] == nets[residual]["parameters"]
        text.append(f"With the skip connection{', and the same number of parameters,' if same else ''} the error is "
                    f"{percent(both.error[residual])} after {counted(both.epoch, 'epoch')}, "
                    f"{points(both.error[deep], both.error[residual]):.1f} points below {printed(deep)}.")
    text.append(_about_residual_depth(nets, plot.residual_of(nets, shallow), residual))
    return " ".join(filter(None, text))


def _about_residual_depth(nets: plot.Nets, shallow: str | None, deep: str) -> str:
    """Compare the residual networks. A run has one seed, so a small difference between them shows nothing."""
    found = plot.errors_at_common_epoch(nets, [shallow, deep])
    if found is None or shallow is None:
        return ""
    more = points(found.error[deep], found.error[shallow])
    errors = (f"{printed(deep)} has {percent(found.error[deep])} and {printed(shallow)} "
              f"{percent(found.error[shallow])} after {counted(found.epoch, 'epoch')}")
    if abs(more) < plot.ERROR_POINTS:
        return f"{errors}: a difference of {abs(more):.1f} points on one seed shows nothing about their order."
    return f"{errors}, {abs(more):.1f} points {'more' if more > 0 else 'less'}: this is one seed."


def about_gradients(results: Results) -> str:
    """Write paragraph 2: the gradients at initialisation, and what they do not explain."""
    nets = results["nets"]
    found = plot.depths(nets, "plain", "gradient_norms_init")
    depth = found[-1] if found else 0
    plain, residual = (nets.get(plot.of_depth(nets, family, depth) or "", {}) for family in ("plain", "resnet"))
    change = plot.growth(plain.get("gradient_norms_init") or ())
    not_claimed = "Not claimed: that skip connections cure vanishing gradients, or what causes the degradation."
    if change is None:
        return f"Gradients: this run has no measurement of a plain network's gradients. {not_claimed}"
    text = [f"Gradients: at initialisation, on one batch, the gradient norm of plain-{depth} with BN {change.verb} "
            f"toward the input: the norm in the second 3x3 layer is {number(change.total)} times the norm in the last "
            f"3x3 layer, a factor of {number(change.per_layer)} per layer (geometric mean over {change.steps} steps)."]
    for label, net, key in ((f"In plain-{depth} without BN", plain, "gradient_norms_init_without_bn"),
                            (f"In ResNet-{depth}", residual, "gradient_norms_init")):
        if other := plot.growth(net.get(key) or ()):
            text.append(f"{label} the norm {other.verb} (a factor of {number(other.per_layer)} per layer, "
                        f"{number(other.total)} in all).")
    if change.verb == "shrinks":
        text.append('He et al. (2015) call the degradation "unlikely to be caused by vanishing gradients". At '
                    "initialisation the gradients of this run do shrink, so this run does not support that statement.")
    else:
        text.append("So with BN the plain network's gradients do not vanish on the way to the input. This agrees with "
                    'He et al. (2015), who call the degradation "unlikely to be caused by vanishing gradients". The '
                    "gradients were measured only at initialisation, so they say nothing about later in training.")
    return " ".join([*text, not_claimed])


def about_responses(results: Results) -> str:
    """Write paragraph 3: the layer responses, and what one small run does not show."""
    nets, settings = results["nets"], results["settings"]
    text = ["Responses: the response of a 3x3 layer is the standard deviation of its output after BN and before the "
            "addition or ReLU."]
    before = [value for net in nets.values() for value in net["responses_init"]]
    if before and all(abs(value - 1) <= 0.05 for value in before):
        text.append(f"At initialisation the response must be 1 in every layer of every network, and it is (here "
                    f"{min(before):.2f} to {max(before):.2f}). This is the control.")
    elif before:
        text.append(f"At initialisation the response must be 1 in every layer, but here it is between "
                    f"{min(before):.2f} and {max(before):.2f}: the control fails, so the following numbers cannot be "
                    "trusted.")
    means = _means(nets)
    text.append(f"After training the means over the layers are {means}." if means
                else "No network was measured after training.")
    if plot.responses_smaller(nets):
        where = " and ".join(str(depth) for depth in plot.response_pairs(nets))
        text.append(f"The residual network has the smaller mean at depth {where}, which agrees with He et al. (2015), "
                    'who report "generally smaller" responses. Smaller does not mean close to zero.')
    else:
        text.append(f'{_run(results)} {_too_little(results)} show the "generally smaller" responses that He et al. '
                    "(2015) report for residual networks.")
    epochs = max((len(net["train_error"]) for net in nets.values()), default=0)
    text.append(f"All of this has limits. The run has one seed ({settings['seed']}), {counted(epochs, 'epoch')}, width "
                f"{settings['width']} and {settings['image_size']}x{settings['image_size']} images "
                f"({settings['dataset']}), while the paper trained networks of width 16 for 64,000 iterations on 32x32 "
                "images of CIFAR-10. These are not the paper's numbers, there are no error bars, another seed gives "
                "other numbers, and nothing is claimed about test accuracy.")
    return " ".join(text)


def _means(nets: plot.Nets) -> str:
    """Return the mean responses as in "plain-20 0.85, ResNet-20 0.75"."""
    means = ((printed(name), mean(nets[name]["responses"])) for name in plot.by_depth(nets))
    return ", ".join(f"{name} {value:.2f}" for name, value in means if value is not None)


def _run(results: Results) -> str:
    if results["settings"]["quick"]:
        return "This quick run"
    return "This run" if all(net["complete"] for net in results["nets"].values()) else "This interrupted run"


def _too_little(results: Results) -> str:
    return "is too short to" if _run(results) != "This run" else "does not"


def _caution(results: Results) -> str:
    """Return a caution for a quick run, no matter what its numbers show, and "" for other runs."""
    if not results["settings"]["quick"]:
        return ""
    return (f" A quick run only checks that everything works; {counted(results['settings']['epochs'], 'epoch')} on "
            f"{results['settings']['train_images']:,} images is too little to judge the networks by.")


def _errors(nets: plot.Nets, names: Sequence[str]) -> str:
    """Return the training errors as in "plain-20 21.0 %, plain-56 62.0 % after 3 epochs"."""
    found = plot.errors_at_common_epoch(nets, names)
    if found is None:
        return "none"
    errors = ", ".join(f"{printed(n)} {percent(e)}" for n, e in found.error.items())
    return f"{errors} after {counted(found.epoch, 'epoch')}"


def _at_depths(nets: plot.Nets, found: plot.Errors) -> str:
    """Return the errors from the deepest net on, as in "17.0 % with 56 layers and 14.0 % with 20"."""
    parts = [f"{percent(found.error[name])} with {plot.layers(name, nets[name])}" for name in reversed(found.error)]
    return " and ".join([f"{parts[0]} layers", *parts[1:]])


def _against(nets: plot.Nets, found: plot.Errors, pair: tuple[str, str]) -> str:
    """Return the two errors as in "62.0 % with 56 layers against 21.0 % with 20"."""
    shallow, deep = pair
    return (f"{percent(found.error[deep])} with {plot.layers(deep, nets[deep])} layers against "
            f"{percent(found.error[shallow])} with {plot.layers(shallow, nets[shallow])}")


# --------------------------------------------------------------------------------------------------- the page


def report_html(results: Results, images: Mapping[str, bytes]) -> str:
    """Return the page as HTML. It contains the images, which are given as PNG bytes by name.

    images: has the names error_curves, gradient_norms and responses
    """
    described = {"error_curves": _describe_errors(results), "gradient_norms": _describe_gradients(results),
                 "responses": _describe_responses(results)}
    figures = "\n".join(figure(images[name], alt, caption) for name, (alt, caption) in described.items())
    prose = "\n".join(f"<p>{escaped(paragraph)}</p>" for paragraph in paragraphs(results))
    seconds = f"{results['seconds']:.0f} s"
    return document("minires demo: plain and residual networks", f"""<h1>{escaped(headline(results))}</h1>
<div class="soft">Made by <code>{escaped(results["settings"]["command"])}</code>,
started at {escaped(results["started"])}; it took {seconds}.{_caution(results)}</div>
<section>
<h2>Figures</h2>
{figures}
</section>
<section>
<h2>Results</h2>
{_results_table(results)}
</section>
<section id="claims">
<h2>What this run shows, and what is not claimed</h2>
{prose}
</section>
<section>
<h2>How it was made</h2>
{pairs_table("Settings", results["settings"])}
{pairs_table("Versions", results["versions"])}
</section>""")


def _recipe(results: Results) -> str:
    s = results["settings"]
    return (f"Seed {s['seed']}, width {s['width']}, option {s['shortcut']} shortcuts, batch {s['batch_size']}, "
            f"learning rate {s['lr']}, momentum {s['momentum']}, weight decay {s['weight_decay']}; {s['dataset']} "
            f"({s['train_images']:,} training and {s['test_images']:,} test images used).")


def _describe_errors(results: Results) -> tuple[str, str]:
    """Return the text alternative and the caption of the figure of errors."""
    nets = results["nets"]
    last = "; ".join(f"{printed(n)} {percent(nets[n]['train_error'][-1])} and {percent(nets[n]['test_error'][-1])}"
                     for n in plot.by_depth(nets) if nets[n]["train_error"])
    return (f"Line charts of training and test error by epoch. After the last epoch: {last or 'no data'}.",
            "Training error (left) and test error (right) after each epoch, in eval mode. Compare He et al. (2015), "
            f"Figures 1 and 6. {_recipe(results)}")


def _describe_gradients(results: Results) -> tuple[str, str]:
    nets, settings, parts = results["nets"], results["settings"], []
    for name in plot.by_depth(nets):
        for key, label in (("gradient_norms_init_without_bn", " without BN"), ("gradient_norms_init", "")):
            if change := plot.growth(nets[name].get(key) or ()):
                parts.append(f"{printed(name)}{label} {change.verb}, factor {number(change.total)} in all")
    return ("Line charts of the gradient norm of each layer at initialisation, log scale. From the last 3x3 layer to "
            f"the second: {'; '.join(parts) or 'no data'}.",
            "L2 norm of the loss's gradient with respect to each layer's weights, before any training, in train mode "
            f"on one batch of {settings['look_images']} images; log scale. Layers differ in size, so small differences "
            "between neighbouring layers mean little. Backward goes from right to left. "
            f"Seed {settings['seed']}, width {settings['width']}.")


def _describe_responses(results: Results) -> tuple[str, str]:
    return ("Line charts of the layer responses, in layer order and sorted, before and after training. Means after "
            f"training: {_means(results['nets']) or 'no data'}.",
            "Standard deviation of each 3x3 layer's output after BN and before the addition or ReLU, in train mode on "
            "a fixed batch: in layer order (top) and sorted (bottom). The thin lines show the same measurement before "
            "training, which is the control. Each depth has its own y axis. Compare He et al. (2015), Figure 7. "
            f"{_recipe(results)}")


def _results_table(results: Results) -> str:
    head = "".join(_cell("th", title, i > 0, ' scope="col"') for i, title in enumerate(HEADINGS))
    body = "\n".join(f'<tr><th scope="row">{escaped(row[0])}</th>'
                     f'{"".join(_cell("td", text, True) for text in row[1:])}</tr>' for row in table_rows(results))
    caption = ("Errors are in percent, after the last epoch, not the best one. MACs: multiply-accumulates of one "
               "forward pass of one image. Response: mean over the 3x3 layers, before and after training.")
    return (f'<div class="wide" role="region" tabindex="0" aria-label="Results">\n<table>\n'
            f"<caption>{escaped(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n"
            "</table>\n</div>")


def _cell(tag: str, text: str, is_number: bool, more: str = "") -> str:
    kind = ' class="number"' if is_number else ""
    return f"<{tag}{kind}{more}>{escaped(text)}</{tag}>"
