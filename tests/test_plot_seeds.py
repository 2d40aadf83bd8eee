"""Test the figures of several seeds and of the recorded experiments."""

import numpy as np
import pytest
from test_plot_analysis import legend, title

from minires import analysis, plot

FIGURES = {
    "intervals": (lambda c: plot.seed_intervals({"warm-up": {"a": [1.0, 2.0, 4.0], "b": [3.0]}, "none": {"b": [2.0]}},
                                                caption=c),
                  "Every seed, the mean, and its 95 % interval", set()),
    "curves": (lambda c: plot.mean_curves({"plain-20": [([1, 2], [3.0, 2.0]), ([1, 2], [5.0, 2.5])], "none": []},
                                          "training loss", caption=c),
               "Training loss: mean and range of the seeds", {"plain-20"}),
    "blocks": (lambda c: plot.errors_by_blocks({"identity": {"plain": {1: [0.1, 0.2], 32: [0.5, 0.6]},
                                                            "residual": {1: [0.0, 1e-3], 32: [0.0, 0.0]}}}, caption=c),
               "Error by number of blocks: every seed, and the median", {"plain", "residual"}),
    "negative sums": (lambda c: plot.negative_sums({"before": {"a": 0.25, "b": 0.35}, "after": {"a": 0.1, "b": 0.1}},
                                                   c),
                      "Mean share of negative sums: before 30.0 %; after 10.0 %", {"before", "after"}),
    "after each block": (lambda c: plot.after_each_block(np.outer([1, 2, 3], [0.0, 1.0, 0.5]), c, np.sin),
                         "The function after each block, from light to dark; thick: after the last",
                         {"the function to fit"}),
}


@pytest.mark.parametrize("draw, says, entries", FIGURES.values(), ids=FIGURES)
def test_titles_and_legends(draw, says, entries):
    figure = draw("seeds 0 to 2, a data set with a long name, " * 4)
    assert title(figure) == says and legend(figure) == entries
    assert plot.png(figure, dpi=40).startswith(b"\x89PNG")


@pytest.mark.parametrize("draw", [
    lambda: plot.seed_intervals({}), lambda: plot.mean_curves({}, "loss"), lambda: plot.errors_by_blocks({}),
    lambda: plot.negative_sums({}), lambda: plot.after_each_block({})])
def test_an_empty_figure_says_so(draw):
    assert "no data" in [text.get_text() for axes in draw().axes for text in axes.texts]


def test_an_interval_is_drawn_from_the_seeds():
    figure = plot.seed_intervals({"g": {"a": [1.0, 2.0, 6.0], "b": [3.0]}, "h": {"b": [2.0, 2.5]}})
    first, second = figure.axes
    bar, seeds, mean = first.lines[:3]
    expected = analysis.interval([1.0, 2.0, 6.0])
    assert list(bar.get_xdata()) == [expected.low, expected.high] and list(seeds.get_xdata()) == [1, 2, 6]
    assert list(mean.get_xdata()) == [3] and {*bar.get_ydata(), *seeds.get_ydata(), *mean.get_ydata()} == {0}
    assert len(first.lines) == 5  # a single seed has no interval
    assert [t.get_text() for t in first.get_yticklabels()] == ["a", "b"]
    assert {y for line in second.lines for y in line.get_ydata()} == {1} and first.get_title() == "g"


def test_a_curve_is_the_mean_of_the_seeds():
    (axes,) = plot.mean_curves({"a": [([1, 2], [3.0, 2.0]), ([1, 2], [5.0, 1.0])]}, "loss").axes
    assert list(axes.lines[0].get_ydata()) == [4, 1.5] and len(axes.collections) == 1
    with pytest.raises(ValueError, match="mean_curves, 'a': expected the same step values for all seeds"):
        plot.mean_curves({"a": [([1], [2.0]), ([2], [2.0])]}, "loss")


def test_an_error_of_0_is_drawn_at_the_least():
    (axes,) = plot.errors_by_blocks({"p": {"a": {4: [0.0, 2.0, 3.0], 1: [1e-9]}}}).axes
    line, dots = axes.lines
    assert list(zip(*line.get_data(), strict=True)) == [(1, 1e-7), (4, 2)]
    assert list(dots.get_ydata()) == [1e-7, 1e-7, 2, 3]


def test_later_blocks_are_darker_and_x_is_sorted():
    (axes,) = plot.after_each_block(np.array([[0.5, 0.0], [1.0, 2.0], [3.0, 4.0]])).axes
    first, last = axes.lines
    assert list(first.get_xdata()) == [0, 0.5] and list(first.get_ydata()) == [2, 1]
    assert last.get_color() == (0, 0, 0) and 0 < first.get_color()[0] < 0.8
