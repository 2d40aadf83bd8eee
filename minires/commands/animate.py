"""Implement `minires animate`, which films the training of a plain and a residual network on one HTML page.

Both networks have the same depth, the same seed and the same images in the same order, as in `minires demo`. At every
few steps the gradients, the responses, the filters of the first layer and the errors are measured on fixed images. The
page holds the numbers and one script, and loads nothing.
"""
from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import analysis, kernels, train
from ..evaluate import error
from ..files.atomic import check_can_hold_files, write_atomically
from ..models import canonical
from ..names import UsageError
from ..plot import COLOURS
from ..recipes import Recipe
from ..runs import RunConfig, progress
from . import demo, page

LOOK = 200     # number of training images on which gradients and responses are measured
TESTED = 500   # number of training images, and of test images, on which the errors are measured
FRAMES = 60    # how many steps are filmed if `every` is not given
MOST_BYTES = 1 << 20  # of the page

Record = dict[str, Any]


def choose(depth: int, recipe: Recipe, seed: int = 0, where: str = "auto") -> dict[str, RunConfig]:
    """Return {name: config} of the plain and the residual network of this depth.

    where: "auto", "cpu" or "gpu"

    Raises UsageError if there is no plain network of this depth.
    Raises RuntimeError if the device is not available.
    """
    first = next(iter(demo.choose(recipe, seed=seed, where=where).values()))
    try:
        return {name: dataclasses.replace(first, model=canonical(name))
                for name in (f"plain-{depth}", f"ResNet-{depth}")}
    except ValueError as e:
        raise UsageError(f"--depth: expected the depth of a plain network of He et al. 2015, 20, 32, 44, 56 or 110, "
                         f"got {depth}") from e


def run(out: Path, nets: Mapping[str, RunConfig], every: int = 0, command: str = "minires animate",
        say: Callable[[str], None] | None = None) -> Path:
    """Train the networks, measure them every `every` steps, and write the page. Return its path.

    every: 0 chooses the number so that about FRAMES steps are filmed

    Raises FileExistsError if `out` exists.
    Raises UsageError if the page would be larger than MOST_BYTES.
    """
    say = say or progress.say
    if out.exists():
        raise FileExistsError(f"{out} exists already; choose another --out. Nothing was overwritten")
    check_can_hold_files(out.parent)
    began = time.monotonic()
    text = html(film(nets, every, say) | {"command": command})
    if len(text.encode()) > MOST_BYTES:
        raise UsageError(f"the page would have {len(text.encode()):,} bytes, more than {MOST_BYTES:,}; give a larger "
                         "--every")
    out.parent.mkdir(parents=True, exist_ok=True)
    path = write_atomically(out, text)
    say(f"{path}: {len(text.encode()) / 1e3:.0f} kB, {time.monotonic() - began:.0f} s")
    return path


# -------------------------------------------------------------------------------------------------- filming


def film(nets: Mapping[str, RunConfig], every: int = 0, say: Callable[[str], None] | None = progress.say) -> Record:
    """Train the networks one after the other, and return what the page shows: the steps, and each network's frames.

    say: is called with a line for each network, beside a progress bar; None: neither
    """
    config = next(iter(nets.values()))
    sets = config.inputs()
    total = config.recipe.total_steps(len(sets.train[0]))
    every = every or math.ceil(total / FRAMES)
    steps = [*range(0, total, every), total]
    found = []
    for name, one in nets.items():
        if say:
            say(f"{name}: {total} steps, filmed at {len(steps)} of them")
        shown = progress.Bar(name) if say else contextlib.nullcontext(lambda passed: None)
        with kernels.session(threads=1), shown as bar:
            found.append({"name": name, "kind": "plain" if name.startswith("plain") else "resnet",
                          **_columns(frames(one, sets, steps, bar), len(steps) * len(nets))})
    recipe, first = config.recipe, config.build(sets.train[0].shape[1], len(sets.classes))
    return {"steps": steps, "filters": list(analysis.first_filters(first).shape[:3]), "nets": found, "settings": {
        "images": f"Fashion-MNIST, {len(sets.train[0]):,} images averaged to {config.data.image_size}x"
                  f"{config.data.image_size}",
        "width": demo.WIDTH, "seed": config.seed, "epochs": recipe.epochs, "batch size": recipe.batch_size,
        "learning rate": recipe.lr, "momentum": recipe.momentum, "weight decay": recipe.weight_decay,
        "gradients and responses": f"on the first {LOOK} training images, in train mode",
        "errors": f"on the first {TESTED} training images and the first {TESTED} test images, in eval mode"}}


def frames(config: RunConfig, sets: Any, steps: Sequence[int], watch: Callable[[progress.Passed], None]
           ) -> Iterator[Record]:
    """Train one network and yield what is measured at each of these steps, of which the first is 0."""
    (images, labels), (test, test_labels) = sets.train, sets.test
    model = config.build(images.shape[1], len(sets.classes))
    wanted, total = set(steps), len(images) * config.recipe.epochs
    yield _look(model, images, labels, test, test_labels)
    seen = 0
    for event in train.fit(model, sets.train, (test[:1], test_labels[:1]), config.recipe, rng=config.seed,
                           measure=lambda *_: 0.0):  # the frames have the errors
        if isinstance(event, train.Step):
            seen += event.images
            watch(progress.Passed(seen, total, f"loss {event.loss:.3f}"))
            if event.step in wanted:
                yield _look(model, images, labels, test, test_labels)


def _look(model: Any, images: Any, labels: Any, test: Any, test_labels: Any) -> Record:
    filters = analysis.first_filters(model).mean(3)
    return {"gradients": _short(analysis.gradient_flow(model, images[:LOOK], labels[:LOOK]).weights.values()),
            "responses": _short(analysis.responses(model, images[:LOOK]).values()),
            "filters": (255 * filters).round().astype(int).ravel().tolist(),
            "train_error": round(error(model, images[:TESTED], labels[:TESTED]), 2),
            "test_error": round(error(model, test[:TESTED], test_labels[:TESTED]), 2)}


def _short(values: Any) -> list[float | None]:
    """Return numbers with three digits, and None for one that is not finite, which JSON cannot hold."""
    return [float(f"{value:.3g}") if math.isfinite(value) else None for value in values]


def _columns(found: Iterator[Record], count: int) -> Record:
    """Return {key: its value in every frame}.

    count: the number of frames of all networks

    Raises UsageError after the first frame if so many of them would be too large for a page.
    """
    rows = [next(found)]
    if (size := count * len(json.dumps(rows[0]))) > MOST_BYTES:
        raise UsageError(f"the page would have about {size:,} bytes, more than {MOST_BYTES:,}; give a larger --every")
    rows += found
    return {key: [row[key] for row in rows] for key in rows[0]}


# ---------------------------------------------------------------------------------------------------- the page

STYLE = """
body { max-width: 64rem; }
.controls { position: sticky; top: 0; background: var(--paper); padding: 0.5rem 0; display: flex; flex-wrap: wrap;
            gap: 0.5rem 1rem; align-items: center; z-index: 1; border-bottom: 1px solid var(--line); }
.controls input { flex: 1 1 12rem; }
.controls button { min-width: 5rem; font: inherit; padding: 0.3rem 0.8rem; }
.controls select { font: inherit; }
#now { margin: 0.5rem 0; font-variant-numeric: tabular-nums; min-height: 1.6em; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 0 2rem; }
figure { margin: 0.3rem 0; }
h2 { margin-top: 1.2rem; }
h3 { font-size: 1rem; margin: 1rem 0 0; }
svg { width: 100%; height: auto; display: block; }
.tick { font: 11px system-ui, sans-serif; fill: var(--ink); }
.middle { text-anchor: middle; }
.end { text-anchor: end; }
.grid { stroke: var(--line); stroke-width: 0.6; }
.now { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 2 2; }
.control { fill: none; stroke: var(--soft); stroke-width: 0.8; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.plain { stroke: PLAIN; stroke-dasharray: 6 2.4; }
.resnet { stroke: RESIDUAL; }
.test_error { stroke-width: 0.9; }
.key { display: inline-block; width: 2.6rem; height: 0.6rem; vertical-align: middle; }
""".replace("PLAIN", COLOURS["plain"][0]).replace("RESIDUAL", COLOURS["resnet"][0])


def html(record: Record) -> str:
    """Return the page for what `film` returns and the command that made it."""
    names, shown = [net["name"] for net in record["nets"]], page.escaped
    data = json.dumps({key: record[key] for key in ("steps", "filters", "nets")}, separators=(",", ":"))
    data = data.replace("<", "\\u003c")  # no text in the data can end the element that holds it
    columns = "\n".join(f"""<section aria-label="{shown(name)}">
<h2>{_key(net["kind"])} {shown(name)}</h2>
<h3>Gradient norm of each weight layer</h3>
<figure id="gradients-{i}"></figure>
<h3>Response of each 3x3 layer</h3>
<figure id="responses-{i}"></figure>
<h3>Filters of the first layer</h3>
<figure id="filters-{i}"></figure>
</section>""" for i, (name, net) in enumerate(zip(names, record["nets"], strict=True)))
    title = f"Training {' and '.join(names)}, step by step"
    return page.document(title, f"""<h1>{shown(title)}</h1>
<p class="soft">Made by <code>{shown(record["command"])}</code>.</p>
<noscript><p>This page moves with a script that is part of it, and your browser does not run scripts. The script loads
nothing from anywhere.</p></noscript>
<div class="controls">
<button id="play" type="button">Play</button>
<label for="step">step</label> <input id="step" type="range" min="0" value="0" step="1">
<label for="speed">speed</label>
<select id="speed"><option value="2">slow</option><option value="6" selected>normal</option>
<option value="20">fast</option></select>
</div>
<p id="now" role="status"></p>
<section>
<h2>Errors</h2>
<p class="soft">Thick: training error. Thin: test error. Compare He et al. 2015, Figures 1 and 6.
Space plays and pauses, the arrow keys go back and forth by one picture, Home and End to the first and last.</p>
<figure id="errors"></figure>
</section>
<div class="pair">
{columns}
</div>
<section>
<h2>What is shown</h2>
<p>The gradient norm is that of the loss with respect to the weights of each layer, from the input to the classifier.
The response of a 3x3 layer is the standard deviation of its output after BN, before the addition or the ReLU (He et
al. 2015, section 4.2). Both have logarithmic axes, which are the same for both networks and for all steps. The thin
line is step 0, before training. Each filter is scaled by its own largest weight; middle grey is 0. This is one seed:
other seeds give other curves, and small differences are no finding.</p>
{page.pairs_table("Settings", record["settings"])}
</section>
<script id="record" type="application/json">{data}</script>""", script(), STYLE)


def script() -> str:
    """Return the page's script."""
    return Path(__file__).with_name("animation.js").read_text(encoding="utf-8")


def _key(kind: str) -> str:
    dashes = ' stroke-dasharray="6 2.4"' if kind == "plain" else ""
    return (f'<svg class="key" viewBox="0 0 42 10" aria-hidden="true"><line x1="0" y1="5" x2="42" y2="5" '
            f'class="line {kind}" stroke-width="3"{dashes}/></svg>')
