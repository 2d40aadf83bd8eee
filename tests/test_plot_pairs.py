"""Test that plot.X draws what analysis.X returns for any network: one result, or {label: result} with any labels."""

import re

import numpy as np
import pytest
from short import every

from minires import Tensor, analysis, models, nn, ops, plot, train
from minires.recipes import Recipe


def rng(seed=0):
    return np.random.default_rng(seed)


def cifar(depth=14, **options):
    return models.cifar(depth, in_channels=1, width=4, rng=rng(), **options)


def own():
    """Return a user's own network, of a kind that `models` does not have."""
    return nn.Sequential(nn.Conv2d(1, 4, 3, 1, 1, rng=rng(1)), nn.BatchNorm2d(4), nn.ReLU(),
                         nn.Conv2d(4, 4, 3, 2, 1, rng=rng(2)), nn.BatchNorm2d(4), nn.ReLU(),
                         nn.Conv2d(4, 6, 3, 2, 1, rng=rng(3)), nn.ReLU(), nn.Flatten(), nn.Linear(24, 10, rng=rng(4)))


NETS = {"residual": cifar, "plain": lambda: cifar(residual=False), "v2": lambda: cifar(20, block="preact"),
        "bottleneck": lambda: cifar(29, block="bottleneck"), "own": own}
X, LABELS = rng(7).standard_normal((12, 1, 8, 8), np.float32), np.arange(12) % 10


def direction(net, seed=0):
    return analysis.random_direction(net, rng=rng(seed))


def trained(net):
    return train.fit(net, (X, LABELS), (X, LABELS), Recipe(epochs=2, batch_size=6), rng=0)


def graph_of(net):
    return analysis.graph(ops.cross_entropy(net(Tensor(X)), LABELS), net)


# {analysis: (a function from a network to the result, the plot function of the result)}
PAIRS = {
    "activations": (lambda net: analysis.activations(net, X), plot.activations),
    "after_each_block": (lambda net: analysis.after_each_block(models.scalar_stack(3), X[0, 0, 0]),
                         plot.after_each_block),
    "cka_matrix": (lambda net: analysis.cka_matrix(net, X), plot.cka_matrix),
    "construction": (lambda net: analysis.construction(net, X, 1, rng=rng()), plot.construction),
    "delete_k": (lambda net: analysis.delete_k(net, X, LABELS, [0, 1, 2], 2, rng=rng()), plot.delete_k),
    "exciting_patches": (
        lambda net: analysis.exciting_patches(net, X, next(iter(analysis.common.weight_layers(net))), 1, 3),
        plot.exciting_patches),
    "first_filters": (analysis.first_filters, plot.first_filters),
    "gradient_correlation": (lambda net: {len(analysis.common.weight_layers(net)):
                                          analysis.gradient_correlation(net, X, rng=rng())}, plot.gradient_correlation),
    "gradient_flow": (lambda net: analysis.gradient_flow(net, X, LABELS), plot.gradient_flow),
    "gradient_on_a_line": (lambda net: analysis.gradient_on_a_line(3, width=8, points=32, rng=rng()),
                           plot.gradient_on_a_line),
    "gradients_by_length": (lambda net: analysis.gradients_by_length(net, X, LABELS), plot.gradients_by_length),
    "graph": (graph_of, plot.graph),
    "lesions": (lambda net: analysis.lesions(net, X, LABELS), plot.lesions),
    "loss_line": (lambda net: analysis.loss_line(net, X, LABELS, direction(net), 5), plot.loss_line),
    "loss_surface": (lambda net: analysis.loss_surface(net, X, LABELS, direction(net), direction(net, 1), 3),
                     plot.loss_surface),
    "negative_sums": (lambda net: analysis.negative_sums(net, X), plot.negative_sums),
    "path_gradients": (lambda net: analysis.path_gradients(net, X, LABELS, [0, 2, 6], 2, rng=rng()),
                       plot.path_gradients),
    "refinement": (lambda net: analysis.refinement(net, X), plot.refinement),
    "responses": (lambda net: analysis.responses(net, X), plot.responses),
    "responses_closed_form": (lambda net: analysis.responses_closed_form(net, X), plot.responses),
    "responses_from_parameters": (lambda net: analysis.responses_from_parameters(net, (8, 8)), plot.responses),
    "second_moments": (lambda net: analysis.second_moments(net, X, *([nn.ReLU] if isinstance(net, nn.Sequential)
                                                                     else [])), plot.second_moments),
    "swap_blocks": (lambda net: analysis.swap_blocks(net, X, LABELS, [0, 1, 2], rng=rng()), plot.swap_blocks),
    "update_ratios": (lambda net: analysis.update_ratios(net, trained(net)), plot.update_ratios),
}

# {analysis without a figure: why it has none}
WITHOUT = {
    "autocorrelation": "plot.gradient_on_a_line computes and draws it under the line",
    "cka": "a number",
    "curvature": "a number, which the title of plot.loss_line gives",
    "deepen": "returns a network",
    "deleted": "a context in which a network runs without some blocks",
    "follow": "returns {step: result}, which the figure of the result takes as {label: result}",
    "gradient_shares": "plot.gradients_by_length computes and draws them",
    "growth_per_layer": "a number, which the title of plot.gradient_flow gives",
    "interval": "three numbers, which plot.seed_intervals computes and draws",
    "input_gradients": "arrays that gradient_correlation compares",
    "paired": "three numbers",
    "path_gradient": "an array for one path, shaped like the images; plot.path_gradients draws the norms of many paths",
    "path_shares": "plot.path_gradients and plot.gradients_by_length draw them beside the gradient",
    "random_direction": "weights to move along: plot.loss_line and plot.loss_surface draw the loss there",
    "receptive_fields": "a table of sizes; plot.exciting_patches draws what units see",
    "steps_to": "a number",
}

# {figure of something other than an analysis's result: what it draws}
OTHER_FIGURES = {
    "error_curves": "the epochs of a run", "training_curves": "the metrics of runs",
    "gradient_norms": "the nets of a run",
    "errors_by_depth": "errors of trainings", "error_gaps": "errors of trainings", "heat_maps": "any grid of numbers",
    "matrices": "any matrices", "im2col": "a convolution's windows", "grids": "small arrays",
    "boxed": "boxes in images", "detected": "boxes in scenes", "segmented": "masks of scenes",
    "blocks": "modules", "networks": "modules", "function_classes": "an idea", "imagenet_errors": "published results",
    "lines": "numbers of one's own", "ranges": "numbers of one's own", "bars": "numbers of one's own",
    "pictures": "any arrays", "complex_plane": "complex numbers", "decision_regions": "a classifier",
    "mean_curves": "curves of several seeds", "seed_intervals": "numbers of several seeds",
    "errors_by_blocks": "errors of trainings",
}

# {(analysis, network): why the analysis refuses the network}
BLOCKS, PATH = "this model has no residual or plain block", "a plain network has a single path"
REFUSED = {
    **{(name, "own"): BLOCKS for name in ("delete_k", "gradients_by_length", "lesions", "negative_sums",
                                          "path_gradients", "refinement", "swap_blocks")},
    ("construction", "own"): "expected a model with lists of blocks",
    ("negative_sums", "plain"): "expected residual blocks of the kinds",
    ("gradients_by_length", "plain"): PATH, ("path_gradients", "plain"): PATH,
}

LABELLED = "my net", "plain-20, mine", "_underscored", "$odd_{ 5 %"
PICTURES = {"exciting_patches", "first_filters", "graph"}  # figures without numbers on their axes


@pytest.fixture(scope="module")
def results():
    """Return a function from (analysis, network) to the result, which is measured once."""
    found = {}

    def measured(name, kind):
        if (name, kind) not in found:
            found[name, kind] = PAIRS[name][0](NETS[kind]())
        return found[name, kind]

    return measured


def texts(figure):
    """Return all text except tick labels: title, panels' titles, axis labels, legends, and text in the panels."""
    found = [figure.get_suptitle(), figure.get_supylabel()]
    for axes in figure.axes:
        found += [axes.get_title(), axes.get_xlabel(), axes.get_ylabel(), *(text.get_text() for text in axes.texts)]
    return [" ".join(text.split()) for text in found + legend(figure) if text]


def legend(figure):
    return [text.get_text() for entry in figure.legends for text in entry.get_texts()]


# Drawing does not depend on the kind of network: these kinds are enough in a plain run.
FEW = "own", "residual"
CASES = [pytest.param(name, kind, id=f"{name}-{kind}", marks=[pytest.mark.slow] * (kind not in FEW))
         for name in PAIRS for kind in NETS
         if (name, kind) not in REFUSED and not (name == "gradient_on_a_line" and kind != "own")]  # it has no network
NO_NETWORK = {"after_each_block", "gradient_on_a_line"}  # these measure networks of their own
CASES = [pytest.param(name, kind, id=f"{name}-{kind}") for name in PAIRS for kind in NETS
         if (name, kind) not in REFUSED and not (name in NO_NETWORK and kind != "own")]


DRAWN = [(name, kind) for kind in FEW for name in PAIRS if (name, kind) in {case.values for case in CASES}]


@pytest.mark.parametrize("name, kind", CASES)
def test_one_result_is_drawn(results, name, kind):
    figure = PAIRS[name][1](results(name, kind))
    check(figure, name)
    assert "" not in legend(figure) and "no data" not in texts(figure) and "None" not in " ".join(texts(figure))


@pytest.mark.parametrize("name, kind", every(2, DRAWN))
def test_results_are_drawn_under_their_labels(results, name, kind):
    result = results(name, kind)
    figure = PAIRS[name][1](dict.fromkeys(LABELLED, result))
    check(figure, name)
    places = texts(figure)
    for label in LABELLED:  # each label is beside its line, over its panel or beside its row, not only in the title
        assert any(label in text for text in places[1:]), (label, places)


@pytest.mark.parametrize("name, kind", every(9, DRAWN))
def test_figures_with_such_labels_become_pictures(results, name, kind):
    figure = PAIRS[name][1](dict.fromkeys(LABELLED, results(name, kind)))
    assert plot.png(figure, dpi=30).startswith(b"\x89PNG")


@pytest.mark.parametrize("name, kind", REFUSED)
def test_what_a_network_cannot_show_is_refused_by_the_analysis(name, kind):
    with pytest.raises(ValueError, match=REFUSED[name, kind]):
        PAIRS[name][0](NETS[kind]())


def check(figure, name):
    written = texts(figure)
    assert figure.get_suptitle() and not [text for text in written if re.search(r"\d\.\d{6}", text)]
    if name not in PICTURES:
        panels = [axes for axes in figure.axes if axes.lines and axes.yaxis.get_label_position() == "left"]
        assert all(axes.get_xlabel() or axes.get_subplotspec().rowspan.start == 0 for axes in panels)
        assert figure.axes[0].get_ylabel() or figure.get_supylabel()


def test_steps_of_a_training_are_labels_too():
    net = own()
    history = analysis.follow(trained(net), lambda: analysis.gradient_flow(net, X, LABELS), at=[1, 4])
    assert {"step 0", "step 1", "step 4"} == set(legend(plot.gradient_flow(history)))
    responses = {step: {"1": 0.5 + step} for step in (0, 3)}
    assert {"step 0", "step 3"} < set(legend(plot.responses(responses)))
    history = {step: analysis.activations(net, X) for step in (0, 10)}
    figure = plot.activations(history, names=["2"])
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["0", "10"]
    assert figure.axes[0].get_title() == "2" and figure.axes[0].get_xlabel() == "step"


def test_no_analysis_and_no_figure_is_forgotten_here():
    assert {n for n in analysis.__all__ if n[0].islower()} == {*PAIRS, *WITHOUT}
    drawn = {function.__name__ for _, function in PAIRS.values()}
    functions = {n for n in plot.__all__ if getattr(getattr(plot, n), "__annotations__", {}).get("return") == "Figure"}
    assert functions == drawn | set(OTHER_FIGURES)
    assert [name for name, (_, function) in PAIRS.items() if not name.startswith(function.__name__)] == []


@pytest.mark.parametrize("wrong", [5, [1.0], {"a": {"b": {"c": 1.0}}}])
def test_what_is_no_result_is_refused(wrong):
    with pytest.raises(ValueError, match=r"expected one result or \{label: result\}, where a result is"):
        plot.second_moments(wrong)
