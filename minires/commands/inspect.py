"""`minires inspect`: the analyses of a trained network, as figures, JSON and one HTML page.

Each part measures, draws, and says in a sentence or two what was measured and what it does not show.
"""
from __future__ import annotations

import datetime
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import analysis, datasets, device, info, models, nn, plot, runs
from ..analysis.blocks import blocks, channels_in, channels_out
from ..evaluate import is_right
from ..files.atomic import write_atomically
from ..weights import Rename, load_weights
from . import page

BATCH = 200  # images in the one batch that responses and gradients are measured on, and under the loss surface
POINTS = 21, 9  # along a line, and along each axis of the surface


@dataclass
class Subject:
    """What is looked at."""

    name: str                       # "ResNet-20"
    model: nn.Module                # trained, in eval mode
    fresh: Callable[[], nn.Module]  # the same network at initialisation
    images: Any = None              # float (N, C, H, W) test images as the network takes them, or None
    labels: Any = None              # (N,)
    words: dict[str, Any] = field(default_factory=dict)  # where all this comes from, for the page


class Part(NamedTuple):
    """One analysis of the page."""

    title: str
    numbers: dict[str, Any]         # for inspect.json
    figures: dict[str, Any]         # {file name without suffix: plot.Figure}
    text: str                       # what was measured, what it shows and what not


# ----------------------------------------------------------------------------------------- what is looked at


def from_run(folder: Path, root: datasets.Root = None, images: int = 500, where: str = "") -> Subject:
    """The network of a folder that `minires train` wrote, and the first test images of the data it was trained on.
    `where`: as for `runs.read`."""
    run = runs.read(folder, Path(root) if root else None, where)
    chosen = run.config
    words = {"network": chosen["model"], "weights": str(folder / "weights.safetensors"), "data": chosen["dataset"],
             "input": "pixels / 255 - the training set's mean image", "recipe": chosen["recipe"],
             "seed of the training": chosen["seed"]}
    return Subject(_spelt(chosen["model"]), run.model, run.fresh, run.images[:images], run.labels[:images], words)


def from_weights(weights: Path, model: str, dataset: str | None = None, *, root: datasets.Root = None,
                 images: int = 500, rename: Rename | None = None, where: str = "auto",
                 normalize: str | datasets.MeanAndStd = "channel", image_size: int = 0, **options: Any) -> Subject:
    """A network by name with weights from a file; without `dataset` there are no images, and less can be measured."""
    where = device.use(where)
    words = {"network": model, "weights": str(weights), "options": ", ".join(f"{k} {v}" for k, v in options.items())}
    x = y = None
    if dataset is not None:
        data = datasets.prepared(dataset, root, normalize=normalize, image_size=image_size, train=False, where=where)
        x, y = (array[:images] for array in data.test)
        options |= {"num_classes": len(data.classes), "in_channels": x.shape[1]}
        words |= {"input": data.words, "data": dataset}

    def fresh():
        return models.build(model, **options).to(where)

    net = fresh()
    load_weights(net, weights, rename)
    return Subject(_spelt(model), net.eval(), fresh, x, y, {k: v for k, v in words.items() if v})


def _spelt(model: str) -> str:
    """ "ResNet-20" for "resnet20"; other names as they are."""
    letters = model.rstrip("0123456789").rstrip("-").lower()
    number = model[len(model.rstrip("0123456789")):]
    return f"{ {'resnet': 'ResNet', 'plain': 'plain'}[letters]}-{number}" if letters in ("resnet", "plain") else model


# ------------------------------------------------------------------------------------------------- the parts


def look_at_responses(s: Subject, seed: int, progress: Any) -> Part:
    """He et al. 2015, Fig. 7."""
    size = s.images.shape[2:] if s.images is not None else (32, 32)
    found = {"from gamma and beta": analysis.responses_from_parameters(s.model, tuple(size))}
    if s.images is not None:
        found = {"measured": analysis.responses(s.model, s.images[:BATCH])} | found
    means = {label: float(np.mean(list(values.values()))) for label, values in found.items()}
    listed = ", ".join(f"{m:.3f} {label}" for label, m in means.items())
    text = (f"The response of a 3x3 layer is the standard deviation of its output after BN, before the ReLU or the "
            f"addition, in train mode{_on(s)} (He et al. 2015, section 4.2). Mean over the layers: {listed}. Before "
            "training it is 1 in every layer of every network: what differs is what training did to gamma and beta. "
            "One network alone does not show that residual networks respond less; that takes its plain twin.")
    return Part("Layer responses", {"per_layer": found, "mean": means},
                {"responses": plot.layer_responses(found, _caption(s))}, text)


def look_at_gradients(s: Subject, seed: int, progress: Any) -> Part:
    """Before and after training."""
    x, y = s.images[:BATCH], s.labels[:BATCH]
    models = {"at initialisation": s.fresh(), "trained": s.model}
    flows = {label: analysis.gradient_flow(model, x, y) for label, model in models.items()}
    seen = analysis.activations(s.model, x)
    dead = {name: a.dead for name, a in seen.items()}
    numbers: dict[str, Any] = {label: flow._asdict() for label, flow in flows.items()} | {"dead_units": dead}
    numbers["growth_per_layer"] = rates = {k: analysis.growth_per_layer(f.activations) for k, f in flows.items()}
    listed = ", ".join(f"{rate:.3f} {label}" for label, rate in rates.items())
    silent = 100 * float(np.mean(list(dead.values())))
    text = (f"Euclidean norms of the gradient of the cross-entropy{_on(s)}, in train mode. Per layer toward the input "
            f"the gradient of the activations changes by a factor of {listed} (geometric mean). Of the units behind "
            f"nonlinearities {silent:.1f} % give one and the same value on all these images. A small gradient on "
            "images that are classified well is no vanishing gradient.")
    return Part("Gradients", numbers, {"gradients": plot.gradient_flow(flows, _caption(s))}, text)


def look_at_lesions(s: Subject, seed: int, progress: Any) -> Part:
    """Veit et al. 2016."""
    found = analysis.lesions(s.model, s.images, s.labels, progress)
    changes = [n for n, b in blocks(s.model).items() if b.stride != 1 or channels_in(b) != channels_out(b)]
    one = [error for name, error in found.items() if name]
    worst = max((name for name in found if name), key=lambda name: found[name])
    text = (f"Error on {len(s.images)} test images with one block deleted at a time, that is reduced to its shortcut, "
            "in a plain network to the shortcut it would have (Veit et al. 2016): "
            f"{found['']:.1f} % with nothing deleted, {float(np.mean(one)):.1f} % on average with one, "
            f"{found[worst]:.1f} % without {worst}.")
    numbers = {"error": found[""], "error_without": {n: e for n, e in found.items() if n}, "changes_shape": changes}
    return Part("Lesions", numbers, {"lesions": plot.lesions({s.name: found}, changes, _caption(s))}, text)


def look_at_landscape(s: Subject, seed: int, progress: Any) -> Part:
    """Li et al. 2018."""
    x, y = s.images[:BATCH], s.labels[:BATCH]
    one, two = (analysis.random_direction(s.model, rng=np.random.default_rng([seed, i])) for i in (0, 1))
    line = analysis.loss_line(s.model, x, y, one, POINTS[0], progress=progress)
    surface = analysis.loss_surface(s.model, x, y, one, two, POINTS[1], progress=progress)
    text = (f"Cross-entropy{_on(s)}, in eval mode, along two random directions (seed {seed}) in which every filter has "
            "the norm of the network's own; BN's gamma and beta and biases are left alone (Li et al. 2018). Curvature "
            f"at the weights: {surface.curvature[0]:.3g} and {surface.curvature[1]:.3g}. Two directions of very many, "
            "on few images: a picture, not a proof.")
    return Part("Loss landscape", {"line": line._asdict(), "surface": surface._asdict()},
                {"loss_line": plot.loss_line({s.name: line}, _caption(s)),
                 "loss_surface": plot.loss_surface({s.name: surface}, _caption(s))}, text)


PARTS: dict[str, Callable[[Subject, int, Any], Part]] = {
    "responses": look_at_responses, "gradients": look_at_gradients, "lesion": look_at_lesions,
    "landscape": look_at_landscape}
WITHOUT_IMAGES = {"responses"}


def _on(s: Subject) -> str:
    return "" if s.images is None else f" on {min(BATCH, len(s.images))} test images"


def _caption(s: Subject) -> str:
    return ". ".join(filter(None, (f"{s.name}, {Path(s.words['weights']).name}",
                                   f"{s.words['data']}, {s.words['input']}" if "data" in s.words else "")))


# -------------------------------------------------------------------------------------------------- the page


def run(subject: Subject, out: Path, parts: Sequence[str] = (), *, seed: int = 0, command: str = "minires inspect",
        progress: Any = iter) -> Path:
    """Measure `parts` (names of PARTS); write inspect.json, the figures and inspect.html into `out`. The page's path.

    Without `parts` all are done that can be: what a network of this kind cannot show is left out, with the reason.
    A part that is asked for and cannot be done is a ValueError. Nothing is written before all is measured.
    """
    if (out / "inspect.json").exists():
        raise FileExistsError(f"{out / 'inspect.json'} exists already; choose another --out, nothing is overwritten")
    done: dict[str, Part] = {}
    left_out: dict[str, str] = {}
    for name in parts or PARTS:
        try:
            if subject.images is None and name not in WITHOUT_IMAGES:
                raise ValueError(f"{name} needs images: name a data set, for example --dataset cifar10")
            done[name] = PARTS[name](subject, seed, progress)
        except ValueError as e:
            if parts:
                raise
            left_out[name] = str(e)
    if not done:
        raise ValueError("; ".join(left_out.values()))
    facts = dict(subject.words)
    if subject.images is not None:
        wrong = 100 * (1 - float(is_right(subject.model, subject.images, subject.labels).mean()))
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
    write_atomically(out / "inspect.json", json.dumps(_plain(results), indent=1, allow_nan=False) + "\n")
    return write_atomically(out / "inspect.html", html)


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
    return page.document(f"minires inspect: {subject.name}", f"""<h1>{page.escaped(subject.name)}, looked into</h1>
<div class="soft">Made by <code>{page.escaped(command)}</code>.</div>
{chr(10).join(sections)}
<section>
<h2>How it was made</h2>
{page.pairs_table("What was looked at", facts)}
{page.pairs_table("Versions", info.versions())}
</section>""")


def _title(figure: Any) -> str:
    return " ".join(figure.get_suptitle().split())


def _plain(value: Any) -> Any:
    """As JSON has it: no number that is infinite or NaN (a loss far from the weights may be)."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
