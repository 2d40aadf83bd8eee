"""Implement `minires inspect`, which writes the analyses of a trained network as figures, JSON and one HTML page.

Each part measures, draws, and says in a few sentences what was measured and what the result does not show.
"""
from __future__ import annotations

import datetime
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import analysis, datasets, info, plot
from ..evaluate import error
from ..files.atomic import check_can_hold_files, write_atomically
from ..names import UsageError
from . import page
from .subject import Subject, Told, from_run, from_weights

BATCH = 200  # number of images in the batch on which responses, gradients and the loss landscape are measured
POINTS = 21, 9  # number of points along the line, and along each axis of the surface


class Part(NamedTuple):
    """Holds one analysis of the page."""

    title: str
    numbers: dict[str, Any]         # for inspect.json
    figures: dict[str, Any]         # {file name without suffix: plot.Figure}
    text: str                       # what was measured, what the result shows and what it does not show


def find(source: Path, told: Told, *, images: int = 500, root: datasets.Root = None, where: str | None = None,
         download: bool = False) -> Subject:
    """Return what to inspect, with the first `images` test images.

    This is the run in the folder `source`, or the network `told.model` with the weights in the file `source`.

    Raises UsageError if an option is missing or not allowed.
    Raises what from_run and from_weights raise.
    """
    if source.is_dir():
        found = from_run(source, told, root=root, where=where, download=download)
    elif told.model is None and not source.exists():
        raise UsageError(f"{source} is neither the folder of a run nor a file with weights: it does not exist")
    elif told.model is None:
        raise UsageError(f"--model is missing: say which network {source} holds weights for, as in --model resnet20")
    else:
        found = from_weights(source, told.model, told, root=root, where=where, download=download)
    if found.images is not None:
        found.images, found.labels = found.images[:images], found.labels[:images]
    return found


# ------------------------------------------------------------------------------------------------- the parts


def look_at_responses(s: Subject, seed: int, progress: Any) -> Part:
    """Measure the layer responses: He et al. 2015, Fig. 7."""
    size = s.images.shape[2:] if s.images is not None else (32, 32)
    found = {"from gamma and beta": analysis.responses_from_parameters(s.model, tuple(size))}
    if s.images is not None:
        found = {"measured": analysis.responses(s.model, s.images[:BATCH])} | found
    means = {label: float(np.mean(list(values.values()))) for label, values in found.items()}
    listed = ", ".join(f"{m:.3f} {label}" for label, m in means.items())
    text = (f"The response of a 3x3 layer is the standard deviation of its output after BN, before the ReLU or the "
            f"addition, in train mode{_on(s)} (He et al. 2015, section 4.2). Mean over the layers: {listed}. Before "
            "training the response is 1 in every layer of every network, so differences show what training did to "
            "gamma and beta. One network alone does not show that residual networks have smaller responses; that needs "
            "a comparison with the plain network of the same depth.")
    return Part("Layer responses", {"per_layer": found, "mean": means},
                {"responses": plot.responses(found, _caption(s))}, text)


def look_at_gradients(s: Subject, seed: int, progress: Any) -> Part:
    """Measure the gradients before and after training."""
    x, y = s.images[:BATCH], s.labels[:BATCH]
    models = {"at initialisation": s.fresh(), "trained": s.model}
    flows = {label: analysis.gradient_flow(model, x, y) for label, model in models.items()}
    seen = analysis.activations(s.model, x)
    dead = {name: a.dead for name, a in seen.items()}
    numbers: dict[str, Any] = {label: flow._asdict() for label, flow in flows.items()} | {"dead_units": dead}
    numbers["growth_per_layer"] = rates = {k: analysis.growth_per_layer(f.activations) for k, f in flows.items()}
    listed = ", ".join(f"{rate:.3f} {label}" for label, rate in rates.items())
    silent = 100 * float(np.mean(list(dead.values())))
    text = (f"Euclidean norms of the gradient of the cross-entropy{_on(s)}, in train mode. The gradient of the "
            f"activations changes per layer, toward the input, by a factor of {listed} (geometric mean). On average "
            f"over the nonlinearities, {silent:.1f} % of the units have the same output for all these images. A small "
            "gradient on images that are classified well is not a vanishing gradient.")
    return Part("Gradients", numbers, {"gradients": plot.gradient_flow(flows, _caption(s))}, text)


def look_at_lesions(s: Subject, seed: int, progress: Any) -> Part:
    """Measure the error without single blocks: Veit et al. 2016."""
    found = analysis.lesions(s.model, s.images, s.labels, progress)
    worst, mean = max(found.without, key=lambda name: found.without[name]), np.mean(list(found.without.values()))
    text = (f"Error on {len(s.images)} test images with one block deleted at a time (Veit et al. 2016). Deleted means "
            "replaced by its shortcut, and in a plain network by the shortcut that a residual block would have. "
            f"The error is {found.whole:.1f} % with no block deleted, {mean:.1f} % on average with one block deleted, "
            f"and {found.without[worst]:.1f} % without {worst}, the highest error.")
    numbers = {"error": found.whole, "error_without": found.without, "changes_shape": found.changes_shape}
    return Part("Lesions", numbers, {"lesions": plot.lesions({s.name: found}, _caption(s))}, text)


def look_at_landscape(s: Subject, seed: int, progress: Any) -> Part:
    """Measure the loss along random directions: Li et al. 2018."""
    x, y = s.images[:BATCH], s.labels[:BATCH]
    one, two = (analysis.random_direction(s.model, rng=np.random.default_rng([seed, i])) for i in (0, 1))
    line = analysis.loss_line(s.model, x, y, one, POINTS[0], progress=progress)
    surface = analysis.loss_surface(s.model, x, y, one, two, POINTS[1], progress=progress)
    text = (f"Cross-entropy{_on(s)}, in eval mode, along two random directions (seed {seed}) in which every filter has "
            "the norm of the network's own filter. BN's gamma and beta, and biases, are not changed (Li et al. 2018). "
            f"Curvature at the weights: {surface.curvature[0]:.3g} and {surface.curvature[1]:.3g}. These are only two "
            "of very many directions, on few images, so they illustrate the loss landscape and prove nothing.")
    return Part("Loss landscape", {"line": line._asdict(), "surface": surface._asdict()},
                {"loss_line": plot.loss_line({s.name: line}, _caption(s)),
                 "loss_surface": plot.loss_surface({s.name: surface}, _caption(s))}, text)


FIGURES = "responses", "gradients", "lesions", "loss_line", "loss_surface"  # of all parts, as files NAME.png
PARTS: dict[str, Callable[[Subject, int, Any], Part]] = {
    "responses": look_at_responses, "gradients": look_at_gradients, "lesion": look_at_lesions,
    "landscape": look_at_landscape}
WITHOUT_IMAGES = {"responses"}


def _on(s: Subject) -> str:
    return "" if s.images is None else f" on {min(BATCH, len(s.images))} test images"


def _caption(s: Subject) -> str:
    """Return a caption that says from what a figure was made. The text is escaped, because a file's name may contain
    characters that a figure cannot draw."""
    facts = [f"{s.name}, {Path(s.words['weights']).name}"]
    if "data" in s.words:
        facts.append(f"{s.words['data']}, {s.words['input']}")
    return ". ".join(facts).encode("utf-8", "backslashreplace").decode()


# -------------------------------------------------------------------------------------------------- the page


def check_folder(out: Path) -> None:
    """Raise OSError if results cannot be written into the folder `out`, or if it has a file with the name of one."""
    for name in ("inspect.json", "inspect.html", *(f"{figure}.png" for figure in FIGURES)):
        if (out / name).exists():
            raise FileExistsError(f"{out / name} exists already; choose another --out, nothing is overwritten")
    check_can_hold_files(out)


def run(subject: Subject, out: Path, parts: Sequence[str] = (), *, seed: int = 0, command: str = "minires inspect",
        progress: Any = iter) -> Path:
    """Measure `parts` (names in PARTS), write inspect.json, inspect.html and the figures into `out`, and return the
    path of inspect.html.

    Without `parts` every part is measured that this network and its images allow. The page gives the reason for each
    part that is left out. Nothing is written before everything is measured.

    Raises ValueError if a part in `parts` cannot be measured, or if no part can be measured.
    Raises OSError if the results cannot be written, or if `out` contains results already.
    """
    check_folder(out)
    done: dict[str, Part] = {}
    left_out: dict[str, str] = {}
    for name in parts or PARTS:
        try:
            if subject.images is None and name not in WITHOUT_IMAGES:
                raise UsageError(f"{name} needs images: name a data set, for example --dataset cifar10")
            done[name] = PARTS[name](subject, seed, progress)
        except ValueError as e:
            if parts:
                raise
            left_out[name] = str(e)
    if not done:
        raise ValueError("; ".join(left_out.values()))
    facts = dict(subject.words)
    if subject.images is not None:
        wrong = error(subject.model, subject.images, subject.labels)
        facts |= {"test images": len(subject.images), "error on them": f"{wrong:.2f} %"}
    facts |= {"seed of the directions": seed}
    results = {"subject": subject.words, "images": 0 if subject.images is None else len(subject.images), "seed": seed,
               **{name: part.numbers for name, part in done.items()}, "left_out": left_out, "versions": info.versions(),
               "command": command, "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
    images = {name: plot.png(figure) for part in done.values() for name, figure in part.figures.items()}
    html = _page(subject, done, left_out, images, facts, command)
    out.mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        write_atomically(out / f"{name}.png", image)
    text = json.dumps(_plain(results), indent=1, allow_nan=False) + "\n"
    path = write_atomically(out / "inspect.html", html)
    write_atomically(out / "inspect.json", text)
    return path


def _page(subject: Subject, done: Mapping[str, Part], left_out: Mapping[str, str], images: Mapping[str, bytes],
          facts: Mapping[str, Any], command: str) -> str:
    sections = []
    for part in done.values():
        shown = "\n".join(page.figure(images[name], f"{part.title} of {subject.name}: {_title(figure)}", _title(figure))
                          for name, figure in part.figures.items())
        head = f"<h2>{page.escaped(part.title)}</h2>\n<p>{page.escaped(part.text)}</p>"
        sections.append(f"<section>\n{head}\n{shown}\n</section>")
    if left_out:
        items = "\n".join(f"<li>{page.escaped(name)}: {page.escaped(why)}</li>" for name, why in left_out.items())
        sections.append(f"<section>\n<h2>Left out</h2>\n<ul>\n{items}\n</ul>\n</section>")
    return page.document(f"minires inspect: {subject.name}", f"""<h1>Inspection of {page.escaped(subject.name)}</h1>
<div class="soft">Made by <code>{page.escaped(command)}</code>.</div>
{chr(10).join(sections)}
<section>
<h2>How it was made</h2>
{page.pairs_table("What was inspected", facts)}
{page.pairs_table("Versions", info.versions())}
</section>""")


def _title(figure: Any) -> str:
    return " ".join(figure.get_suptitle().split())


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold: infinite numbers and NaN, such as a loss far from the weights, become None."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
