"""Test the figures of the analyses: what they draw, what their titles say, and the layout of graphs."""

import itertools

import numpy as np
import pytest
from short import every

from minires import Tensor, analysis, models, ops, plot
from minires.plot.computation import HEIGHT, WIDTH, curve, layout


def title(figure) -> str:
    return " ".join(figure.get_suptitle().replace("\N{NO-BREAK SPACE}", " ").split())


def legend(figure) -> set[str]:
    return {text.get_text() for entry in figure.legends for text in entry.get_texts()}


def flow(*norms):
    values = {f"layer{i}": n for i, n in enumerate(norms)}
    return analysis.GradientFlow(values, dict(values))


def activation(dead=0.0):
    return analysis.Activation([0, 5, 9, 1], 2.0, 0.1, 1.0, 0.5, dead)


def line(height=1.0):
    return analysis.Line([-1.0, 0.0, 1.0], [3 * height, height, 2 * height], [60.0, 10.0, 50.0], 2.5)


def built(difference=2e-5):
    return analysis.Construction(None, 6, difference, np.eye(3), np.eye(3) + difference)


SURFACE = analysis.Surface([-1.0, 0.0, 1.0], [[9.0, 4.0, 8.0], [3.0, 0.5, 4.0], [9.0, 5.0, float("inf")]], (1.0, 2.0))
REFINED = {"layer1.0": analysis.Refined(0.5, 0.8, 0.3), "layer1.1": analysis.Refined(0.25, 0.9, 0.0),
           "layer2.1": analysis.Refined(0.3, 0.9, 0.0)}
PATCH = analysis.Patch(3, -1, 2, 7.25, np.arange(27, dtype=np.uint8).reshape(3, 3, 3))
LESION = analysis.Lesions(10.0, {"layer1.0": 80.0, "layer2.0": 60.0}, ("layer2.0",))
PARTS = [np.array([share]) for share in (0.5, 0.45, 0.1, -0.05)]  # of a gradient of one number
CKA = analysis.Similarity(["a", "b"], ["a", "b"], [[1, 0.5], [0.5, 1]])

# name: (figure with a caption, its title, labels of its legend)
FIGURES = {
    "signal": (lambda c: plot.second_moments({"no BN": {str(i): 2.0**i for i in range(9)},
                                             "BN": {str(i): 1.0 + i for i in range(9)}}, c),
               "Second moment by block: no BN × 2 per block; BN +1.00 per block", {"no BN", "BN"}),
    "gradients": (lambda c: plot.gradient_flow({0: flow(9, 8, 4, 2, 9), 10: flow(1, 1, 1, 1, 1)}, c),
                  "Gradient of the activations, growth per layer toward the input: step 0 × 2; step 10 × 1",
                  {"step 0", "step 10"}),
    "activations": (lambda c: plot.activations({0: {"bn1": activation()}, 5: {"bn1": activation(0.25)}}, c),
                    "At step 5, 25 % of the units after bn1 are dead", set()),
    "activations of two": (lambda c: plot.activations({"a": {"bn1": activation(), "bn2": activation()},
                                                       "b": {"bn1": activation(0.1), "bn2": activation(0.25)}}, c),
                           "b: 25 % of the units after bn2 are dead", set()),
    "updates": (lambda c: plot.update_ratios({1: {"a": 1e-2, "b": 1e-3}, 2: {"a": 1e-2, "b": 1e-4}}, c),
                "Update-to-weight ratio per step: 0.001 at step 2, geometric mean over the layers",
                {"a", "b", "smallest to largest layer", "rule of thumb, 1e-3"}),
    "responses": (lambda c: plot.responses({"measured": {"bn1": 0.5, "bn2": 1.0}}, c),
                  "Mean response of the 3x3 layers: measured 0.75", {"measured", "before training (control)"}),
    "lesions": (lambda c: plot.lesions({"plain-20": LESION}, c),
                "Mean error without one block, and of the whole network: plain-20 70.0 % and 10.0 %",
                {"one block deleted", "deleted block changes the shape", "no block deleted"}),
    "deleted": (lambda c: plot.delete_k({"plain-20": {0: [10, 10], 1: [60, 80], 2: [90, 90]}}, c),
                "Mean error with 1 random block deleted: plain-20 70.0 %", {"plain-20, mean", "hollow: one trial"}),
    "swapped": (lambda c: plot.swap_blocks([analysis.Shuffled(1, 9), analysis.Shuffled(0.8, 30)], c),
                "Error with blocks exchanged: 9.0 % at rank correlation 1.00, 30.0 % at 0.80", set()),
    "construction": (lambda c: plot.construction(built(), c),
                     "Logits before and after adding identity blocks; largest difference: 2.0e-5",
                     {"equal", "one logit of one image"}),
    "by depth": (lambda c: plot.errors_by_depth({"plain": {20: [9, 11.0], 6: [5.0]}, "residual": {6: [4.0], 9: []}},
                                                caption=c),
                 "Training error (%) by depth. plain: 5.0 at 6, 10.0 at 20; residual: 4.0 at 6",
                 {"plain", "residual"}),
    "gaps": (lambda c: plot.error_gaps({"plain-20": (10.0, 12.5), "plain-56": (30, 31)}, c),
             "Test error minus training error, percentage points: plain-20 2.5, plain-56 1.0",
             {"training error", "test error"}),
    "matrices": (lambda c: plot.matrices({"J": np.eye(4), "K": np.ones((4, 3))}, "Two", "row", "column", "v", c),
                 "Two", set()),
    "run curves": (lambda c: plot.training_curves({"plain-20": [[{"step": 1, "train_error": 50, "test_error": 60}]]},
                                                  caption=c),
                   "Training error (dashed) and test error (solid)", {"training error", "test error"}),
    "epochs": (lambda c: plot.error_curves({"plain-20": {"train_error": [9.0], "test_error": [8.0]}}, c),
               "Training and test error by epoch", set()),
    "paths": (lambda c: plot.path_gradients(analysis.PathGradients(3, {0: [8.0, 8.0], 3: [1.0, 1.0]}), c),
              "Number of paths times norm of one path: 90 % at lengths of 0 to 2 blocks, with 87.5 % of all paths "
              "(measured: lengths 0 to 3)",
              set()),
    "by length": (lambda c: plot.gradients_by_length(PARTS, c),
                  "Gradient by path length: 95.0 % in paths of 0 to 1 blocks, with 50 % of all paths",
                  {"share of all paths", "share of the gradient"}),
    "correlation": (lambda c: plot.gradient_correlation({"plain, BN": {1: 0.5, 2: 0.25}}, c),
                    "Correlation of the gradients at two inputs, 2 hidden layers: plain, BN 0.25",
                    {"plain, BN", "2^-depth", "(3/4)^depth", "depth^-1/2"}),
    "correlation to other depths": (
        lambda c: plot.gradient_correlation({"plain": {1: 0.5, 8: 0.004}, "ResNet": {1: 0.7, 50: 0.08}}, c),
        "Correlation of the gradients at two inputs: plain 0.004 at 8 layers; ResNet 0.08 at 50 layers",
        {"plain", "ResNet", "2^-depth", "(3/4)^depth", "depth^-1/2"}),
    "on a line": (lambda c: plot.gradient_on_a_line({"plain": [1, 2, 0, 4.0]}, c),
                  "Autocorrelation of the gradient at lag 1: plain -0.52", set()),
    "loss line": (lambda c: plot.loss_line({"plain": line()}, c),
                  "Curvature of the loss at the network's weights: plain 2.5", {"plain"}),
    "loss surface": (lambda c: plot.loss_surface({"plain": SURFACE}, c),
                     "Loss around the network's weights: plain 0.5 at the centre, up to 9", set()),
    "refinement": (lambda c: plot.refinement({"ResNet-8": REFINED}, c),
                   "Mean relative change of the features by one block: ResNet-8 0.35", {"ResNet-8"}),
    "cka": (lambda c: plot.cka_matrix(CKA, c),
            "Linear CKA: how similarly two layers represent the same images", set()),
    "heat": (lambda c: plot.heat_maps({"a": [[90, 20.0, 3]], "b": [[1, np.nan, 2]]}, [0.5], [0.001, 0.1, 3],
                                      ("scale", "rate", "error (%)"), "With b", c), "With b", set()),
    "filters": (lambda c: plot.first_filters(np.full((5, 3, 3, 3), 0.5), c),
                "Filters of the first layer: 5 of size 3x3; middle grey is 0", set()),
    "patches": (lambda c: plot.exciting_patches({"conv1, channel 0": [PATCH, PATCH]}, c),
                "The image patches that excite a channel most, with their size in pixels and the activation", set()),
}


@pytest.mark.parametrize("draw, says, entries", FIGURES.values(), ids=FIGURES)
def test_titles_say_what_the_numbers_show(draw, says, entries):
    figure = draw("")
    assert title(figure) == says and legend(figure) == entries


@pytest.mark.parametrize("draw", every(5, [draw for draw, *_ in FIGURES.values()], FIGURES))
def test_captions_legends_and_axes_do_not_overlap(draw):
    caption = "seed 0, width 8, a batch of 200 images of a data set with a long name, averaged to 14 x 14, " * 2
    figure = draw(caption)
    figure.canvas.draw()
    (text,) = [t for t in figure.texts if t.get_text().startswith("seed 0")]
    top = text.get_window_extent().y1
    assert text.get_window_extent().y0 >= 0
    for entry in figure.legends:
        assert entry.get_window_extent().y0 >= top - 2
        assert entry.get_window_extent().x0 >= 0 and entry.get_window_extent().x1 <= figure.bbox.width
        top = entry.get_window_extent().y1
    for axes in figure.axes:
        if axes.axison or axes.images:
            assert axes.get_tightbbox().y0 >= top - 2


EMPTY = {
    "signal": lambda: plot.second_moments({}), "gradients": lambda: plot.gradient_flow({}),
    "activations": lambda: plot.activations({}), "updates": lambda: plot.update_ratios({}),
    "responses": lambda: plot.responses({}), "lesions": lambda: plot.lesions({}),
    "deleted": lambda: plot.delete_k({}), "swapped": lambda: plot.swap_blocks([]),
    "construction": lambda: plot.construction({}), "correlation": lambda: plot.gradient_correlation({}),
    "on a line": lambda: plot.gradient_on_a_line({}), "loss line": lambda: plot.loss_line({}),
    "by length": lambda: plot.gradients_by_length([]), "paths": lambda: plot.path_gradients({}),
    "loss surface": lambda: plot.loss_surface({}), "cka": lambda: plot.cka_matrix({}),
    "filters": lambda: plot.first_filters({}), "patches": lambda: plot.exciting_patches([]),
    "refinement": lambda: plot.refinement({}), "heat": lambda: plot.heat_maps({}, [], [], ("", "", "")),
    "by depth": lambda: plot.errors_by_depth({}), "gaps": lambda: plot.error_gaps({}),
}


@pytest.mark.parametrize("draw", EMPTY.values(), ids=EMPTY)
def test_an_empty_figure_says_so(draw):
    assert "no data" in [text.get_text() for axes in draw().axes for text in axes.texts]


@pytest.mark.parametrize("draw", every(5, EMPTY.values(), EMPTY))
def test_an_empty_figure_becomes_a_picture(draw):
    assert plot.png(draw(), dpi=30).startswith(b"\x89PNG")


def test_seeds_are_drawn_and_the_line_goes_through_their_means():
    (axes,) = plot.errors_by_depth({"plain": {20: [9.0, 11.0], 6: [5.0]}}).axes
    line, crosses = (list(zip(*drawn.get_data(), strict=True)) for drawn in axes.lines[:2])
    assert line == [(6, 5), (20, 10)] and crosses == [(20, 9), (20, 11)]


def test_matrices_share_one_scale():
    small, large, _ = plot.matrices({"a": np.eye(2), "b": -3 * np.eye(2)}, "Two", "row", "column", "v").axes
    assert [m.get_clim() for panel in (small, large) for m in panel.images] == [(-3, 3), (-3, 3)]


def test_no_finding_where_there_is_none():
    assert title(plot.second_moments({"short": {"a": 1.0, "b": 2.0}})) == "Second moment by block"
    level = {str(i): 1.0 - 0.01 * i for i in range(9)}
    assert title(plot.second_moments({"He": level})) == "Second moment by block: He about level"
    assert title(plot.path_gradients(analysis.PathGradients(0, {}))) == "Paths by length"
    assert title(plot.gradient_flow({"a": flow(1, 0, 0, 0, 1)})) == "Gradient norm per layer"


def test_heat_maps_share_one_scale_and_write_every_number_where_it_belongs():
    figure = plot.heat_maps({"a": [[90, 20, 3]], "b": [[1, np.nan, 2.5]]}, [0.5], [0.001, 0.1, 3], ("s", "lr", "%"))
    a, b, bar = figure.axes
    assert a.images[0].get_clim() == b.images[0].get_clim() == (1, 90) and bar.get_ylabel() == "%"
    assert [t.get_text() for t in b.get_xticklabels()] == ["0.001", "0.1", "3"]
    assert [(t.get_position(), t.get_text()) for t in b.texts] == [((0, 0), "1"), ((1, 0), ""), ((2, 0), "2.5")]
    assert [t.get_color() for t in a.texts] == ["white", plot.INK, plot.INK]  # dark on light, light on dark
    with pytest.raises(ValueError, match=r"heat_maps, .a.: expected 2 rows of 3 values, got an array of shape"):
        plot.heat_maps({"a": [[1, 2, 3]]}, [1, 2], [1, 2, 3], ("", "", ""))


def test_plain_and_residual_networks_look_the_same_in_every_figure():
    figure = plot.loss_line({"plain-20": line(), "ResNet-20": line(2)})
    lines = {drawn.get_label(): drawn for drawn in figure.axes[0].lines}
    assert lines["plain-20"].get_color() in plot.COLOURS["plain"] and lines["plain-20"].is_dashed()
    assert lines["ResNet-20"].get_color() in plot.COLOURS["resnet"] and not lines["ResNet-20"].is_dashed()


def test_an_activation_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="no nonlinearity named fc; the names are bn1"):
        plot.activations({0: {"bn1": activation()}}, names=["fc"])


def test_lines_of_two_stages_are_not_joined():
    axes = plot.refinement({"ResNet-8": REFINED}).axes[0]
    assert [list(drawn.get_xdata()) for drawn in axes.lines if len(drawn.get_xdata())] == [[1, 2], [3]]


# ------------------------------------------------------------------------------------------------ the graph


def network_graph(depth=8):
    net = models.cifar(depth, in_channels=1, width=4, rng=np.random.default_rng(0))
    x = np.random.default_rng(1).standard_normal((2, 1, 8, 8)).astype("f4")
    loss = ops.cross_entropy(net(Tensor(x)), np.array([0, 1]))
    return analysis.graph(loss, net, retain=True), loss


def test_a_graph_is_drawn_before_and_after_backward():
    found, loss = network_graph()
    before = plot.graph(found)
    loss.backward()
    after = plot.graph(found, caption="seed 0")
    assert title(before) == "19 operations, 23 parameters, 1 constant" == title(after)
    text = [t.get_text() for t in before.axes[0].texts]
    assert "conv1.weight" in text and "4 × 1 × 3 × 3" in text and not [t for t in text if "grad" in t]
    grads = [t.get_text() for t in after.axes[0].texts if "grad" in t.get_text()]
    assert len(grads) == 42  # all but the images
    assert len(before.axes[0].patches) == 43 + sum(len(set(n.inputs)) for n in found.nodes)
    assert plot.png(after, dpi=40).startswith(b"\x89PNG")


def test_text_stays_inside_its_box():
    figure = plot.graph(network_graph()[0])
    figure.canvas.draw()
    axes = figure.axes[0]
    left, right = (axes.transData.transform((x, 0))[0] for x in (0, WIDTH))
    assert all(t.get_window_extent().width <= right - left for t in axes.texts)


@pytest.mark.parametrize("depth", [8, 14, 20])
def test_boxes_do_not_overlap_and_edges_pass_beside_them(depth):
    found = network_graph(depth)[0]
    boxes, edges, (width, height) = layout([n.inputs for n in found.nodes])
    assert all(x - WIDTH / 2 + 1e-9 >= 0 and x + WIDTH / 2 <= width + 1e-9 and 0 <= y <= height for x, y in boxes)
    rows: dict[float, list[float]] = {}
    for x, y in boxes:
        rows.setdefault(round(y, 6), []).append(x)
    for xs in rows.values():
        assert all(b - a > WIDTH for a, b in itertools.pairwise(sorted(xs)))
    for points in edges:
        assert all(y0 >= y1 for (_, y0), (_, y1) in itertools.pairwise(points))  # downwards
        drawn = curve(points).cleaned(curves=False).vertices[:-1]
        for x, y in boxes:
            inside = (abs(drawn[:, 0] - x) < WIDTH / 2 - 1e-6) & (abs(drawn[:, 1] - y) < HEIGHT / 2 - 1e-6)
            assert not inside.any()


def test_the_layout_of_a_diamond_and_of_what_is_used_twice():
    boxes, edges, _ = layout([(), (0,), (0,), (1, 2)])
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = boxes
    assert y0 > y1 == y2 > y3 and x0 == pytest.approx(x3) == pytest.approx((x1 + x2) / 2) and len(edges) == 4
    boxes, edges, _ = layout([(), (0, 0)])  # x * x: one edge
    assert len(edges) == 1 and boxes[0][0] == boxes[1][0]
    assert layout([()])[1] == []


def test_a_correlation_without_a_depth_is_named():
    with pytest.raises(ValueError, match=r"expected \{depth: correlation\} or .* got 'ResNet-20' as a depth"):
        plot.gradient_correlation({"ResNet-20": 0.5})


def test_the_theory_of_shattering_does_not_stretch_the_axis():
    """2^-50 is 1e-15, which is of no interest next to a measured 0.08."""
    axes = plot.gradient_correlation({"plain": {1: 0.5, 8: 0.004}, "ResNet": {1: 0.7, 50: 0.08}}).axes[0]
    laws = {line.get_label(): list(line.get_xdata()) for line in axes.lines}
    assert laws["2^-depth"] == [1, 8] and laws["(3/4)^depth"] == [1, 8] and laws["depth^-1/2"] == [1, 8, 50]
    assert axes.get_ylim()[0] > 1e-3
