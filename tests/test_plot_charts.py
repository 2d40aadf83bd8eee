"""Test the charts for numbers of one's own: lines, ranges, bars, pictures, points in a plane and decision regions."""
import numpy as np
import pytest

from minires import plot


def texts(axes):
    return [text.get_text() for text in axes.texts]


def legend(figure):
    return [text.get_text() for entry in figure.legends for text in entry.get_texts()]


def test_lines_start_at_1_or_at_their_x():
    figure = plot.lines(plot.Panel({"a": [3.0, 4.0], "b": ([0.5, 2], [1.0, 2.0])}, "x (s)", "y (m)", "head"), "T", "C")
    (axes,) = figure.axes
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[1, 3], [2, 4]], [[0.5, 1], [2, 2]]]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("x (s)", "y (m)", "head")
    assert figure.get_suptitle() == "T" and figure.texts[-1].get_text() == "C" and legend(figure) == ["a", "b"]
    assert plot.png(figure, dpi=20).startswith(b"\x89PNG")


def test_a_label_looks_the_same_in_every_panel_and_is_once_in_the_legend():
    panels = [plot.Panel({"b": [1, 2]}, "x", "y"), plot.Panel({"a": [1, 2], "b": [2, 1]}, "x", "y")]
    figure = plot.lines(panels, "T")
    left, right = figure.axes
    looks = [(line.get_color(), line.get_linestyle(), line.get_marker()) for line in (*left.lines, *right.lines)]
    assert looks[0] == looks[2] != looks[1] and legend(figure) == ["b", "a"]


def test_axes_start_at_0_where_all_values_are_positive():
    for values, bottom in ([5.0, 6.0], True), ([5.0, -1.0], False), ([np.nan, 2.0], True):
        (axes,) = plot.lines(plot.Panel({"a": values}, "x", "y"), "T").axes
        assert (axes.get_ylim()[0] == 0) == bottom
    (axes,) = plot.lines(plot.Panel({"a": [5.0, 6.0]}, "x", "y", limits=(4, 7)), "T").axes
    assert axes.get_ylim() == (4, 7)


@pytest.mark.parametrize("log, scales", [("", ("linear", "linear")), ("x", ("log", "linear")),
                                         ("y", ("linear", "log")), ("xy", ("log", "log"))])
def test_scales(log, scales):
    (axes,) = plot.lines(plot.Panel({"a": ([1, 10, 100], [1, 10, 100])}, "x", "y", log=log), "T").axes
    assert (axes.get_xscale(), axes.get_yscale()) == scales


def test_theory_levels_edges_and_bands_are_drawn_beside_the_measured_line():
    panel = plot.Panel({"measured": [1.0, 2.0, 3.0]}, "x", "y", dots=["measured"], theory={"law": [1.0, 2.0, 4.0]},
                       levels={"chance": 2.5}, edges=[2], bands={"measured": ([0, 1, 2], [2, 3, 4])}, ticks={1: "one"})
    figure = plot.lines(panel, "T")
    (axes,) = figure.axes
    measured, law, level, edge = axes.lines
    assert measured.get_linestyle() == "None" and law.get_color() == level.get_color() == plot.GREY
    assert set(level.get_ydata()) == {2.5} and set(edge.get_xdata()) == {2} and len(axes.collections) == 1
    assert legend(figure) == ["measured", "law", "chance"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["one"]


def test_lines_refuse_what_they_cannot_draw():
    with pytest.raises(ValueError, match="'a': expected as many x as values, got 2 and 3"):
        plot.lines(plot.Panel({"a": ([1, 2], [1, 2, 3])}, "x", "y"), "T")
    with pytest.raises(ValueError, match=r"log: expected .*, got 'z'"):
        plot.lines(plot.Panel({"a": [1]}, "x", "y", log="z"), "T")


def test_ranges_have_a_row_for_every_label():
    figure = plot.ranges({"slow": (1.0, 2.0, 4.0), "fast": (10.0, 20.0, 30.0)}, "images per second", "T", log=True)
    (axes,) = figure.axes
    assert [line.get_xdata().tolist() if hasattr(line.get_xdata(), "tolist") else list(line.get_xdata())
            for line in axes.lines] == [[1, 4], [2], [10, 30], [20]]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["slow", "fast"] and axes.get_xscale() == "log"


def test_bars_have_their_values_and_marks():
    figure = plot.bars({"left": {"a": 1, "b": 30}, "right": {"a": 2, "b": 3}}, "class", "images", "T",
                       marks={"a": 5, "b": 6})
    left, right = figure.axes
    assert [bar.get_height() for bar in left.patches] == [1, 30] and texts(left) == ["1", "30"]
    assert list(left.lines[0].get_ydata()) == [5, 6] and [a.get_title() for a in figure.axes] == ["left", "right"]
    assert left.get_ylabel() == "images" and right.get_ylabel() == "" and left.get_xlabel() == "class"
    (single,) = plot.bars({"a": -2.0, "b": 3.0}, "x", "y", "T").axes
    assert single.get_ylim()[0] < -2


def test_pictures_show_small_whole_numbers_as_numbers_and_0_as_middle_grey():
    signed, positive = np.array([[-2.0, 0.5]]), np.array([[0.0, 0.25]])
    figure = plot.pictures([[("kernel", [[1, 0], [0, -1]]), ("none", None)], [("s", signed), ("p", positive)]], "T")
    kernel, empty, *shown = figure.axes
    assert texts(kernel) == ["1", "0", "0", "-1"] and empty.get_title() == "" and not empty.images
    assert [axes.images[0].get_clim() for axes in shown] == [(-2, 2), (0, 0.25)]
    figure = plot.pictures([[("s", signed), ("p", positive)]], "T", same_scale=True)
    assert [axes.images[0].get_clim() for axes in figure.axes] == [(-2, 2), (0, 2)]


def test_the_complex_plane_has_one_scale_and_marks():
    figure = plot.complex_plane({"a": np.array([1 + 2j, 3j])}, "T", marks={"0": 0j, "1": 1 + 0j})
    (axes,) = figure.axes
    assert axes.lines[0].get_xydata().tolist() == [[1, 2], [0, 3]] and axes.get_aspect() == 1
    assert legend(figure) == ["a", "0", "1"] and axes.lines[2].get_xydata().tolist() == [[1, 0]]


def test_decision_regions_ask_the_classifier_everywhere():
    points, asked = np.array([[1.0, 1], [-1, -1], [-1, 1]]), []

    def classify(places):
        asked.append(places)
        return (places[:, 0] > 0).astype(int)

    figure = plot.decision_regions(classify, points, np.array([1, 0, 0]), "T")
    assert asked[0].dtype == np.float32 and abs(asked[0]).max() > 1 and legend(figure) == ["class 0", "class 1"]
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [2, 1]


EMPTY = {"lines": lambda: plot.lines([], "T"), "panel": lambda: plot.lines(plot.Panel({}, "x", "y"), "T"),
         "ranges": lambda: plot.ranges({}, "x", "T"), "bars": lambda: plot.bars({}, "x", "y", "T"),
         "plane": lambda: plot.complex_plane({}, "T")}


@pytest.mark.parametrize("draw", EMPTY.values(), ids=EMPTY)
def test_an_empty_chart_says_so(draw):
    figure = draw()
    assert "no data" in [text for axes in figure.axes for text in texts(axes)]
    assert plot.png(figure, dpi=20).startswith(b"\x89PNG")


def test_numbers_above_bars_keep_their_digits_and_no_mark_is_left_out():
    (axes,) = plot.bars({"a": 0.3, "b": 1.4, "c": 1234.0}, "x", "y", "T").axes
    assert {text.get_text() for text in axes.texts} == {"0.3", "1.4", "1,234"}
    marks = {str(i): complex(i, 1) for i in range(6)}
    (axes,) = plot.complex_plane(np.array([1 + 1j]), "T", marks=marks).axes
    assert len(axes.lines) == 1 + len(marks)
