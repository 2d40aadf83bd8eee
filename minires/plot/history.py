"""This module draws published results that the notebooks quote."""
from __future__ import annotations

from typing import NamedTuple

from .style import INK, LABEL, TICK, Figure, dress, new_figure


class Entry(NamedTuple):
    """An Entry is one network or method of the ImageNet challenge (ILSVRC), with its published numbers."""

    year: int
    name: str
    error: float  # top-5 classification error on the test set, percent
    layers: int | None  # layers with weights; None for methods that are not deep networks


# Errors of 2010 to 2014: Russakovsky et al. 2015, arXiv 1409.0575, without extra training data. VGG came second in
# 2014: Simonyan & Zisserman 2014, arXiv 1409.1556. 2015: He et al. 2015, arXiv 1512.03385, Table 5. Layers: the papers
# of Krizhevsky et al. 2012, Zeiler & Fergus 2013 (arXiv 1311.2901, for Zeiler's entry of that year), Simonyan &
# Zisserman, Szegedy et al. 2014 (arXiv 1409.4842) and He et al.
IMAGENET = (
    Entry(2010, "Lin et al.", 28.2, None),
    Entry(2011, "Sanchez & Perronnin", 25.8, None),
    Entry(2012, "AlexNet", 16.4, 8),
    Entry(2013, "Clarifai (Zeiler)", 11.7, 8),
    Entry(2014, "VGG", 7.3, 19),
    Entry(2014, "GoogLeNet", 6.7, 22),
    Entry(2015, "ResNet", 3.57, 152),
)

SOURCES = ("Errors: test set, networks as ensembles; Russakovsky et al. 2015 (arXiv 1409.0575), Simonyan & Zisserman "
           "2014 (1409.1556), He et al. 2015 (1512.03385). Layers: the networks' papers. 2010, 2011: no deep network.")


def imagenet_errors(caption: str = "") -> Figure:
    """Draw top-5 error (left) and depth (right) of the ImageNet challenge's classification entries, 2010 to 2015.

    The numbers are published ones: `plot.IMAGENET`. The errors are those of the entries on the test set, and for the
    networks those of ensembles: no single ResNet has 3.57 %. Depth is the number of layers with weights of the deepest
    network.
    """
    deepest, best = max(e.layers or 0 for e in IMAGENET), min(e.error for e in IMAGENET)
    first = IMAGENET[0]
    title = (f"ImageNet, {first.year} to {IMAGENET[-1].year} (published): top-5 error from {first.error:g} to "
             f"{best:g} %, depth up to {deepest} layers")
    figure = new_figure(title, 4.2, caption or SOURCES)
    left, right = figure.subplots(1, 2, sharey=True)
    rows = range(len(IMAGENET))
    fills = {"facecolor": "#dcdcdc", "edgecolor": INK, "height": 0.62, "linewidth": 1.0}
    left.barh(rows, [e.error for e in IMAGENET], **fills)
    right.barh(rows, [e.layers or 0 for e in IMAGENET], **fills, hatch="//")
    for at, e in enumerate(IMAGENET):
        left.text(e.error + 0.5, at, f"{e.error:g}", va="center", fontsize=TICK, color=INK)
        right.text((e.layers or 0) + 3, at, str(e.layers or "shallow"), va="center", fontsize=TICK, color=INK)
    dress(left, "", "top-5 error (%)", "")
    dress(right, "", "layers with weights", "")
    left.set_yticks(rows, [f"{e.year}  {e.name}" for e in IMAGENET], fontsize=LABEL - 0.5)
    left.invert_yaxis()
    left.set_xlim(0, 33)
    right.set_xlim(0, 178)
    for axes in (left, right):
        axes.grid(visible=False, axis="y")
    return figure
