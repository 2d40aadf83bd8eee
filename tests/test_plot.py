"""Test figures: axes, lines, and titles that state a finding only if the numbers show it."""

import io
import itertools
import math
import subprocess
import sys
import threading

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import same_color
from matplotlib.text import Text
from PIL import Image
from short import every

from minires import analysis, names, plot

FINAL = {"plain-20": 21.0, "resnet-20": 14.0, "plain-56": 62.0, "resnet-56": 17.0}  # percent after 3 epochs
MEANS = {"plain-20": 0.85, "resnet-20": 0.75, "plain-56": 0.59, "resnet-56": 0.45}  # of the responses
GROWTH = {"plain": 1.21, "resnet": 1.05}  # of the gradient norm per layer, toward the input


def synthetic_net(name: str, epochs: int = 3) -> dict:
    """Return made-up numbers of a plausible size, in the demo's layout."""
    kind, depth, _ = names.network(name)
    convolutions = depth - 1
    wave = [MEANS[name] * (1 + 0.3 * (-1) ** i) for i in range(convolutions - 1)]
    norms = [0.1 * GROWTH[kind] ** (convolutions - 1 - i) for i in range(convolutions)]
    net = {
        "train_error": [FINAL[name] + 12.0 * (epochs - 1 - e) / max(epochs - 1, 1) for e in range(epochs)],
        "test_error": [
            FINAL[name] + 1.5 + 12.0 * (epochs - 1 - e) / max(epochs - 1, 1) for e in range(epochs)
        ],
        "train_loss": [FINAL[name] / 30 + epochs - 1 - e for e in range(epochs)],
        "responses": [*wave, MEANS[name]],  # the mean is MEANS[name], as 18 and 54 are even
        "responses_init": [1.0] * convolutions,
        "gradient_norms_init": [*norms, 0.3],
        "parameters": 67_818 if depth == 20 else 214_000,
        "macs": 1_950_000 if depth == 20 else 6_010_000,
        "seconds": 11.25,
        "complete": True,
    }
    if kind == "plain":
        net["gradient_norms_init_without_bn"] = [0.01 * 0.97 ** (-i) for i in range(depth)]
    return net


def synthetic_nets(*which: str, epochs: int = 3) -> dict[str, dict]:
    return {name: synthetic_net(name, epochs) for name in which or FINAL}


def title(figure) -> str:
    """Return the figure's title on one line, with plain spaces."""
    return " ".join(figure.get_suptitle().replace("\N{NO-BREAK SPACE}", " ").split())


def lines(axes) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in axes.lines if line.get_label()[0] != "_"}


def legend(figure) -> set[str]:
    return {text.get_text() for entry in figure.legends for text in entry.get_texts()}


# ---------------------------------------------------------------------------------------------------- figures


def test_error_curves_have_two_panels_one_line_per_net_and_one_scale():
    nets = synthetic_nets()
    figure = plot.error_curves(nets)
    left, right = figure.axes
    for axes, key, label in ((left, "train_error", "training error"), (right, "test_error", "test error")):
        assert axes.get_xlabel() == "epoch"
        assert axes.get_ylabel() == f"{label} (%)"
        assert lines(axes) == {names.printed(name): net[key] for name, net in nets.items()}
        written = [text.get_text() for text in axes.texts]
        assert sorted(written) == sorted(f"{names.printed(n)}  {net[key][-1]:.1f}" for n, net in nets.items())
    assert left.get_ylim() == right.get_ylim()
    figure.canvas.draw()
    low, high = left.get_xlim()
    assert [tick for tick in left.get_xticks() if low <= tick <= high] == [1, 2, 3]


def test_plain_is_dashed_residual_solid_and_all_four_lines_differ():
    drawn = plot.error_curves(synthetic_nets()).axes[0].lines
    by_name = {line.get_label(): line for line in drawn}
    assert all(by_name[f"plain-{d}"].is_dashed() and not by_name[f"ResNet-{d}"].is_dashed() for d in (20, 56))
    assert len({line.get_marker() for line in drawn}) == len({line.get_color() for line in drawn}) == 4
    assert all(
        by_name[f"{k}-56"].get_linewidth() > by_name[f"{k}-20"].get_linewidth() for k in ("plain", "ResNet")
    )


def test_labels_at_the_lines_ends_do_not_overlap():
    nets = synthetic_nets()
    for net in nets.values():
        net["train_error"] = net["test_error"] = [90.0, 50.0, 33.3]
    figure = plot.error_curves(nets)
    figure.canvas.draw()
    for axes in figure.axes:
        boxes = sorted((Text.get_window_extent(text).extents for text in axes.texts), key=lambda box: box[1])
        assert len(boxes) == 4
        for (*_, lower_top), (_, upper_bottom, *_) in itertools.pairwise(boxes):
            assert upper_bottom >= lower_top - 1  # a pixel of padding


def test_gradient_norms_use_a_log_scale_and_keep_the_classifier_apart():
    nets = synthetic_nets()
    figure = plot.gradient_norms(nets)
    assert [axes.get_title() for axes in figure.axes] == ["depth 20", "depth 56"]
    for axes, depth in zip(figure.axes, (20, 56), strict=True):
        assert axes.get_yscale() == "log"
        assert axes.get_ylabel() == "gradient norm, L2"
        assert axes.get_xlabel() == "weight layer (1 = nearest the input)"
        plain, residual = nets[f"plain-{depth}"], nets[f"resnet-{depth}"]
        assert lines(axes) == {
            "plain without BN": plain["gradient_norms_init_without_bn"][:-1],
            "plain with BN": plain["gradient_norms_init"][:-1],
            "residual with BN": residual["gradient_norms_init"][:-1],
        }
        hollow = [line for line in axes.lines if line.get_label().startswith("_")]
        assert [list(line.get_xdata()) for line in hollow] == [[depth]] * 3
        assert min(axes.get_xticks()) == 1 and max(axes.get_xticks()) == depth
    assert {"plain without BN", "plain with BN", "residual with BN"} < legend(figure)


def test_responses_are_drawn_in_order_and_sorted_with_their_control():
    nets = synthetic_nets()
    figure = plot.responses(nets)
    assert [axes.get_title() for axes in figure.axes] == [
        "depth 20, in layer order", "depth 56, in layer order", "depth 20, sorted", "depth 56, sorted",
    ]
    assert figure.get_supylabel() == "std of the 3x3 layer's output after BN"
    for i, axes in enumerate(figure.axes):
        depth = (20, 56)[i % 2]
        control = [line for line in axes.lines if "control" in line.get_label()]
        assert len(control) == 2 and all(set(line.get_ydata()) == {1.0} for line in control)
        for name in (f"plain-{depth}", f"resnet-{depth}"):
            expected = nets[name]["responses"]
            assert lines(axes)[names.printed(name)] == (sorted(expected, reverse=True) if i >= 2 else expected)
    assert legend(figure) == {"before training (control)", *map(names.printed, nets)}


def test_responses_far_above_the_rest_are_drawn_on_a_logarithmic_axis_if_wanted():
    nets = synthetic_nets()
    nets["plain-56"]["responses"][0] = 14.0
    for log, scales in (False, ["linear"] * 4), (True, ["linear", "log"] * 2):
        figure = plot.responses(nets, "what was measured", log=log)
        assert [axes.get_yscale() for axes in figure.axes] == scales
        assert "what was measured" in [text.get_text() for text in figure.texts]


FIGURES = (plot.error_curves, plot.gradient_norms, plot.responses)


PARTIAL = {
    "no net": {}, "one epoch": synthetic_nets("plain-20", epochs=1), "one net": synthetic_nets("resnet-56"),
    "unpaired": synthetic_nets("plain-56", "resnet-20"),
    "empty lists": {"plain-20": {key: [] for key in synthetic_net("plain-20")}},
    "zeros": {"plain-8": {"train_error": [0.0], "test_error": [0.0], "responses": [0.5]}},
    "zero norm": {"plain-8": {"gradient_norms_init": [0.0, 1.0, 2.0], "responses_init": [1.0]}},
    "no keys": {"plain-20": {}},
}


@pytest.mark.parametrize("name, draw", every(4, itertools.product(PARTIAL, FIGURES)))
def test_partial_input_is_drawn(name, draw):
    assert plot.png(draw(PARTIAL[name]), dpi=30).startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize("draw", FIGURES)
def test_an_empty_figure_says_so(draw):
    assert all("no data" in [text.get_text() for text in axes.texts] for axes in draw({}).axes)


def test_a_stopped_net_is_labelled_with_its_epoch():
    nets = synthetic_nets()
    for key in ("train_error", "test_error"):
        nets["plain-56"][key] = [88.0, 84.0]
    figure = plot.error_curves(nets)
    assert "plain-56  84.0 (ep. 2)" in [text.get_text() for text in figure.axes[0].texts]
    assert title(figure).startswith(
        "Training error of the plain networks: 27.0 % at 20 layers, 84.0 % at 56 after epoch 2. "
        "With the skip connection: 14.0 % at 20 layers, 17.0 % at 56"
    )


def test_one_epoch_is_too_early_for_a_finding():
    nets = synthetic_nets()
    for net in nets.values():
        for key in ("train_error", "test_error"):
            net[key] = net[key][:1]
    assert plot.depth_hurts(nets) is None and not plot.skip_helps(nets)
    assert title(plot.error_curves(nets)) == "Training and test error by epoch"


# ------------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize("draw, spelt", every(4, itertools.product(FIGURES, ["{}{}", "{}-{}", "{}_{}"])))
def test_the_key_and_the_printed_name_give_the_same_figure(draw, spelt):
    """Lines, legend and title are the same for "resnet20", "resnet-20" and "ResNet-20"."""
    nets = synthetic_nets()
    figures = [draw(nets), draw({spelt.format(*names.network(name)): net for name, net in nets.items()}),
               draw({names.printed(name): net for name, net in nets.items()})]
    shown = [(title(f), legend(f), [lines(axes) for axes in f.axes], [t.get_text() for a in f.axes for t in a.texts])
             for f in figures]
    assert shown[0] == shown[1] == shown[2] and any(shown[0][2])


OWN = ["my net", "GoogLeNet", "tiny (seed 1)"]


@pytest.mark.parametrize("draw", FIGURES)
def test_networks_of_any_name_are_drawn_under_it_and_called_nothing_else(draw):
    nets = {name: synthetic_net("plain-20") for name in OWN}
    figure = draw(nets)
    called = {text for axes in figure.axes for text in lines(axes)} | legend(figure)
    assert set(OWN) <= called
    assert "plain" not in title(figure) and "residual" not in title(figure) and "Depth" not in title(figure)
    assert called <= {*OWN, "before training (control)", "hollow: the classifier",
                      *(f"{name} without BN" for name in OWN)}
    drawn = [line for line in figure.axes[0].lines if line.get_label() in OWN]
    assert len({line.get_color() for line in drawn}) == len({line.get_marker() for line in drawn}) == 3
    assert plot.png(figure, dpi=30).startswith(b"\x89PNG")


def test_an_own_network_beside_the_four_does_not_silence_their_finding():
    nets = synthetic_nets() | {"my net": synthetic_net("resnet-20")}
    assert title(plot.error_curves(nets)) == title(plot.error_curves(synthetic_nets()))
    assert title(plot.responses(nets)) == title(plot.responses(synthetic_nets()))
    assert title(plot.gradient_norms(nets)) == title(plot.gradient_norms(synthetic_nets()))
    for figure in plot.gradient_norms(nets), plot.responses(nets):
        assert [axes.get_title().split(",")[0] for axes in figure.axes[:3]] == ["depth 20", "depth 56", "others"]
        assert ["my net" in lines(axes) for axes in figure.axes[:3]] == [False, False, True]


# ----------------------------------------------------------------------------------------------------- titles


def test_titles_state_what_the_numbers_show():
    nets = synthetic_nets()
    assert title(plot.error_curves(nets)) == (
        "Training error of the plain networks: 21.0 % at 20 layers, 62.0 % at 56. "
        "With the skip connection: 14.0 % at 20 layers, 17.0 % at 56 (one run each)"
    )
    assert title(plot.gradient_norms(nets)) == (
        "At initialisation, the gradient norm of plain-56 with BN grows toward the input: "
        f"× 1.21 per layer, × {plot.number(1.21**53)} from the last 3x3 layer to the second (one run each)"
    )
    assert title(plot.responses(nets)) == (
        "After training, the mean response of the residual network is smaller: "
        "0.75 against 0.85 at depth 20; 0.45 against 0.59 at depth 56 (one run each)"
    )


@pytest.mark.parametrize("draw", FIGURES)
def test_a_title_with_a_finding_names_the_seed(draw):
    assert title(draw(synthetic_nets(), seed=3)).endswith(" (seed 3)")
    assert "seed" not in title(draw({}, seed=3))


def test_titles_are_neutral_where_the_numbers_show_nothing():
    nets = synthetic_nets()
    nets["plain-56"]["train_error"][-1] = 22.9  # 1.9 points above plain-20
    nets["plain-56"]["gradient_norms_init"] = [1.0] * 56
    nets["resnet-20"]["responses"] = [0.9] * 19  # larger than plain-20's
    assert title(plot.error_curves(nets)) == "Training and test error by epoch"
    assert title(plot.gradient_norms(nets)) == "Gradient norm per layer at initialisation"
    assert title(plot.responses(nets)) == "Layer responses before and after training"


@pytest.mark.parametrize("nets", [{}, synthetic_nets("plain-20"), synthetic_nets("plain-20", "resnet-56")])
def test_error_title_is_neutral_without_two_plain_depths(nets):
    assert title(plot.error_curves(nets)) == "Training and test error by epoch"


@pytest.mark.parametrize("errors", list(itertools.permutations((10.0, 20.0, 30.0, 40.0))))
def test_the_error_title_is_true_for_every_order_of_the_four_errors(errors):
    """It gives the numbers of the residual networks and says nothing about what they mean."""
    nets = synthetic_nets("plain-20", "plain-56", "resnet-20", "resnet-56")
    for net, error in zip(nets.values(), errors, strict=True):
        net["train_error"][-1] = error
    plain_20, plain_56, resnet_20, resnet_56 = (f"{error:.1f} %" for error in errors)
    assert title(plot.error_curves(nets, seed=0)) == (
        f"Training error of the plain networks: {plain_20} at 20 layers, {plain_56} at 56. "
        f"With the skip connection: {resnet_20} at 20 layers, {resnet_56} at 56 (seed 0)"
        if errors[1] > errors[0] else "Training and test error by epoch")


def test_the_error_title_does_without_a_residual_network_that_is_missing():
    """Without the deep one there is nothing to compare; without the shallow one, only the deep one is named."""
    assert title(plot.error_curves(synthetic_nets("plain-20", "plain-56", "resnet-56"), seed=0)).endswith(
        ". With the skip connection: 17.0 % at 56 layers (seed 0)")
    assert title(plot.error_curves(synthetic_nets("plain-20", "plain-56", "resnet-20"), seed=0)).endswith(
        "layers, 62.0 % at 56 (seed 0)")


@pytest.mark.parametrize("residual, helps", [(17.0, True), (55.0, True), (60.0, True), (61.0, False), (80.0, False)])
def test_the_skip_connection_helps_if_it_gains_two_points(residual, helps):
    nets = synthetic_nets()
    nets["resnet-56"]["train_error"][-1] = residual
    assert plot.skip_helps(nets) == helps


def test_responses_after_different_numbers_of_epochs_are_not_compared():
    nets = synthetic_nets("plain-20", "resnet-20")
    nets["resnet-20"]["train_error"] = nets["resnet-20"]["train_error"][:1]
    assert title(plot.responses(nets)) == "Layer responses before and after training"


# ---------------------------------------------------------------------------------------------------- numbers


def test_growth_is_that_of_the_analysis_between_stem_and_classifier():
    norms = [1e-9, 8.0, 1.0, 2.0, 1.0, 1e9]  # the stem and the classifier do not count
    found = plot.growth(norms)
    assert found is not None
    assert (found.total, found.steps, found.verb) == (8.0, 3, "grows")
    assert math.isclose(found.per_layer, 2.0) and math.isclose(found.per_layer**found.steps, found.total)
    assert found.per_layer == analysis.growth_per_layer({f"layer {i}": norm for i, norm in enumerate(norms)})
    assert plot.growth([9.0, 1.0, 8.0, 5.0]).verb == "shrinks"
    assert plot.growth([9.0, 1.5, 1.0, 5.0]).verb == "stays about level"
    assert plot.growth([]) is plot.growth([1.0, 2.0, 3.0]) is plot.growth([1.0, 0.0, 1.0, 2.0]) is None


@pytest.mark.parametrize(
    "value, text",
    [(1.2112, "1.21"), (0.97, "0.97"), (14.14, "14.1"), (3731.9, "3,730"), (28431.0, "2.8e4"),
     (9.2e-4, "9.2e-4"), (0, "0"), (999.96, "1,000")],
)
def test_numbers_are_short(value, text):
    assert plot.number(value) == text


@pytest.mark.parametrize(
    "value, text",
    [(31.819999999999997, "31.82"), (0.1 + 0.2, "0.3"), (1e-4, "0.0001"), (100.0, "100"), (0.0, "0"), (64000, "64000"),
     (np.float32(0.1), "0.1"), (1234567.8, "1234568"), (2.5e-9, "2.5e-09"), ("A", "A"), (float("inf"), "inf")],
)
def test_any_value_is_written_as_a_person_writes_it(value, text):
    assert plot.written(value) == text


# --------------------------------------------------------------------------------------------- where it works


def test_pyplot_is_not_loaded():
    code = "import sys, minires.plot; minires.plot.png(minires.plot.responses({})); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = run.stdout.split()
    assert "minires.plot" in modules
    assert "matplotlib.pyplot" not in modules


def test_a_figure_shows_itself_in_a_notebook():
    figure = plot.error_curves(synthetic_nets())
    assert figure._repr_png_().startswith(b"\x89PNG")
    shown, _ = pytest.importorskip("IPython.core.formatters").DisplayFormatter().format(figure)
    assert "image/png" in shown


def test_a_picture_with_a_palette_is_small_and_looks_the_same():
    def pixels(content):
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), int)

    # There are two figures, because drawing one figure twice computes its layout again.
    exact, small = (plot.png(plot.error_curves(synthetic_nets()), dpi=100, colours=colours) for colours in (0, 256))
    assert len(small) < len(exact) / 2
    assert abs(pixels(small) - pixels(exact)).max() <= 16  # of 255, at the worst pixel


def test_a_heat_map_keeps_its_shades():
    values = [[0, 0.1, 0.15], [0.2, 0.25, 0.3], [0.8, 0.85, 1]]
    figure = plot.cka_matrix(analysis.Similarity(list("abc"), list("abc"), values))
    assert Image.open(io.BytesIO(plot.png(figure, dpi=60, colours=256))).mode == "RGB"


def named_figure(value):
    figure = plot.Figure(figsize=(1, 1))
    figure.text(0.1, 0.5, f"value {value}")
    return figure


def test_a_slider_is_a_widget_with_a_picture_for_where_nothing_runs(monkeypatch):
    pytest.importorskip("ipywidgets", reason="sliders need ipywidgets (the extra notebooks)")
    shown = plot.Slider(named_figure, [1, 2, 4], "k")
    bundle = shown._repr_mimebundle_()
    assert bundle["image/png"] == plot.png(named_figure(2), dpi=100, colours=256) and bundle["text/plain"] == "k = 2"
    assert "application/vnd.jupyter.widget-view+json" in bundle
    slider, image = shown.widget().children
    slider.value = 2  # the index: what dragging it to the last value does
    assert image.value == plot.png(named_figure(4), dpi=100, colours=256) and slider.description == "k"


def test_a_slider_shows_itself_with_ipywidgets_7_too(monkeypatch):
    """Google Colab has ipywidgets 7, whose widgets have no _repr_mimebundle_."""
    ipywidgets = pytest.importorskip("ipywidgets", reason="sliders need ipywidgets (the extra notebooks)")
    shown = plot.Slider(named_figure, [1, 2, 4], "k")
    widget, view = shown.widget(), "application/vnd.jupyter.widget-view+json"
    expected = widget._repr_mimebundle_()[view]
    monkeypatch.setattr(shown, "widget", lambda: widget)
    monkeypatch.delattr(ipywidgets.Widget, "_repr_mimebundle_")
    assert shown._repr_mimebundle_() == {view: expected, "image/png": shown.picture(1), "text/plain": "k = 2"}


def test_a_slider_without_ipywidgets_is_a_picture(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    bundle = plot.Slider(named_figure, [1, 2, 4], "k", at=-1)._repr_mimebundle_()
    assert bundle == {"image/png": plot.png(named_figure(4), dpi=100, colours=256), "text/plain": "k = 4"}
    with pytest.raises(ValueError, match="at least one value, got none"):
        plot.Slider(named_figure, [])
    with pytest.raises(ValueError, match="at: expected the index of one of 3 values, got 3"):
        plot.Slider(named_figure, range(3), at=3)


@pytest.mark.slow
def test_threads_draw_the_same_picture():
    nets = synthetic_nets()
    expected = plot.png(plot.error_curves(nets), dpi=40)
    found: list[bytes] = []

    def draw():
        found.append(plot.png(plot.error_curves(nets), dpi=40))

    threads = [threading.Thread(target=draw) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 3


def test_a_dark_style_does_not_hide_the_labels():
    with matplotlib.rc_context({"text.color": "white", "axes.labelcolor": "white", "xtick.color": "white"}):
        figure = plot.responses(synthetic_nets())
    axes = figure.axes[0]
    assert axes.xaxis.label.get_color() == plot.INK
    assert all(tick.label1.get_color() == plot.INK for tick in axes.xaxis.get_major_ticks())
    assert all(same_color(text.get_color(), plot.INK) for text in figure.legends[0].get_texts())
