"""Test plot.live, which shows a training while it runs, and figures whose networks have any name."""

import sys
import types

import numpy as np
import pytest
from short import every

from minires import models, plot, train
from minires.plot import training
from minires.train import Epoch, Recipe, Step

EVENTS = [Step(1, 2.5, 5, 0.1), Step(2, 2.0, 5, 0.1), Epoch(1, 2.25, 80.0, 90.0), Step(3, 1.0, 5, 0.1),
          Epoch(2, 1.0, 31.82, 40.5)]


@pytest.fixture
def notebook(monkeypatch):
    """Stand in for IPython in a running notebook, and return the figures that it was asked to show."""
    shown = []

    class Handle:
        def update(self, figure): shown.append(("again", figure))

    def display(figure, display_id=False):
        assert display_id
        shown.append(("first", figure))
        return Handle()

    module = types.ModuleType("IPython")
    module.version_info = 8, 24  # matplotlib asks for it
    module.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    module.display = types.ModuleType("IPython.display")
    module.display.display = display
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(sys.modules, "IPython.display", module.display)
    return shown


def test_the_events_are_passed_on_and_lines_printed(capsys):
    assert list(plot.live(EVENTS)) == EVENTS
    assert capsys.readouterr().out.splitlines() == [
        "epoch 1: mean loss 2.25, training error 80, test error 90",
        "epoch 2: mean loss 1, training error 31.82, test error 40.5"]
    said = []
    assert list(plot.live(EVENTS, seconds=0, say=said.append)) == EVENTS
    assert said[:2] == ["step 1: loss 2.5, lr 0.1", "step 2: loss 2, lr 0.1"] and len(said) == 5


def test_a_notebook_draws_one_figure_again_and_again(notebook, capsys):
    assert training.in_notebook()
    assert list(plot.live(iter(EVENTS), seconds=0)) == EVENTS
    assert [how for how, _ in notebook] == ["first"] + ["again"] * 5 and capsys.readouterr().out == ""
    figure = notebook[-1][1]
    left, right = figure.axes
    assert left.lines[0].get_xdata().tolist() == [1, 2, 3] and left.lines[0].get_ydata().tolist() == [2.5, 2.0, 1.0]
    assert [line.get_ydata().tolist() for line in right.lines] == [[80.0, 31.82], [90.0, 40.5]]
    assert figure.get_suptitle() == "epoch 2: mean loss 1, training error 31.82, test error 40.5"
    assert plot.png(figure, dpi=30).startswith(b"\x89PNG") and left.get_xlabel() == "step"


def test_it_is_not_a_notebook_in_a_terminal(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not training.in_notebook()
    module = types.ModuleType("IPython")
    module.get_ipython = lambda: None  # IPython was imported, and does not run
    monkeypatch.setitem(sys.modules, "IPython", module)
    assert not training.in_notebook()


def test_many_steps_are_averaged():
    seen = training.Seen()
    for step in range(1, 1001):
        seen.add(Step(step, 1 / step, 5, 0.1))
    left, right = seen.figure("my run").axes
    assert len(left.lines[0].get_xdata()) == 334 and left.get_ylabel() == "loss, mean of 3 steps"
    assert left.lines[0].get_ydata()[0] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert "no data" in [text.get_text() for text in right.texts]


def test_stopping_early_stops_the_training():
    rng = np.random.default_rng(0)
    data = rng.standard_normal((10, 1, 8, 8), np.float32), np.arange(10)
    events = plot.live(train.fit(models.cifar(8, in_channels=1, width=1), data, data, Recipe(batch_size=5), rng=0))
    assert isinstance(next(events), Step)
    events.close()


# ------------------------------------------------------------------------------------------------- any names

ODD = "my net", "plain-20, mine", "_underscored", "$odd_{ 5 %", "ResNet-20", "a very long name of a network " * 3
EPOCHS = [{"step": 10, "train_error": 50.0, "test_error": 60.0}, {"step": 20, "train_error": 31.82, "test_error": 40.0}]
NET = {"train_error": [50.0, 31.819999999999997], "test_error": [60.0, 40.0], "gradient_norms_init": [1.0, 2.0, 3.0],
       "gradient_norms_init_without_bn": [1.0, 2.0, 30.0], "responses": [0.5, 0.25, 1 / 3],
       "responses_init": [1.0, 1.0, 1.0]}
FIGURES = {
    "error_curves": lambda names: plot.error_curves(dict.fromkeys(names, NET), "a $caption"),
    "gradient_norms": lambda names: plot.gradient_norms(dict.fromkeys(names, NET)),
    "responses": lambda names: plot.responses(dict.fromkeys(names, NET)),
    "training_curves": lambda names: plot.training_curves({name: [EPOCHS] for name in names}),
    "errors_by_depth": lambda names: plot.errors_by_depth({name: {8: [31.819999999999997], 14: [30.0]}
                                                           for name in names}),
    "error_gaps": lambda names: plot.error_gaps(dict.fromkeys(names, (31.819999999999997, 40.0))),
    "heat_maps": lambda names: plot.heat_maps({name: [[1 / 3, 2.0]] for name in names}, [0.1], [1, 2], ("a", "b", "c")),
    "matrices": lambda names: plot.matrices({name: np.eye(2) for name in names}, "t", "rows", "columns", "values"),
    "grids": lambda names: plot.grids({name: np.array([[1 / 3, 2.0]]) for name in names}, "t"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_takes_any_names(name):
    figure = FIGURES[name](ODD)
    texts = [figure.get_suptitle()] + [text.get_text() for axes in figure.axes for text in (axes.title, *axes.texts)]
    assert not [text for text in texts if "819999" in text or ("333333" in text and name != "grids")]


@pytest.mark.parametrize("name", every(4, FIGURES))
def test_a_figure_with_any_names_becomes_a_picture(name):
    assert plot.png(FIGURES[name](ODD), dpi=20).startswith(b"\x89PNG")


def test_a_dollar_sign_is_drawn_and_powers_of_ten_are_powers():
    figure = plot.second_moments({"$5 and $6": {"input": 1.0, "a": 1e6, "b": 1e12}})
    plot.png(figure, dpi=20)
    (label,) = [text for entry in figure.legends for text in entry.get_texts()]
    assert label.get_text() == "$5 and $6" and not label.get_parse_math()
    ticks = figure.axes[0].get_yticklabels()
    assert any("10^" in tick.get_text() for tick in ticks) and all(tick.get_parse_math() for tick in ticks)


def test_the_figure_is_drawn_when_the_training_breaks_off(notebook):
    def events():
        yield EVENTS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(plot.live(events(), seconds=1e9))
    assert [how for how, _ in notebook] == ["first"] and notebook[0][1].axes[0].lines[0].get_ydata().tolist() == [2.5]


def test_other_losses_and_measures_are_seen():
    """A loss below 0 was outside the axis, and the axis said error (%) for any measure."""
    seen = training.Seen("correlation")
    for event in Step(1, -2.0, 5, 0.1), Step(2, -3.0, 5, 0.1), Epoch(1, -2.5, -0.5, 0.25):
        seen.add(event)
    left, right = seen.figure().axes
    assert left.get_ylim()[0] < -3 and right.get_ylim()[0] < -0.5 and right.get_ylabel() == "correlation"


def test_a_training_without_epochs_has_one_panel(notebook):
    steps = [event for event in EVENTS if isinstance(event, Step)]
    assert list(plot.live(iter(steps), "losses", seconds=0, measured="")) == steps
    (axes,) = notebook[-1][1].axes
    assert axes.lines[0].get_ydata().tolist() == [2.5, 2.0, 1.0] and axes.get_ylabel() == "loss"


def test_what_is_no_event_is_refused():
    with pytest.raises(TypeError, match=r"live: expected the events of train\.fit, got float"):
        list(plot.live([0.5]))
