import numpy as np
import pytest

from minires import exercise, gradcheck, ops


def wrong(message="expected 2,\ngot 3"):
    raise AssertionError(message)


def wordless(answer=2):
    if answer != 3:
        raise AssertionError


@pytest.mark.parametrize("test, says", [
    (lambda: None, "right"), (lambda: True, "right"), (lambda: np.bool_(True), "right"),
    (lambda: np.array([True, True]), "right"), (lambda: gradcheck(ops.tanh, np.ones(3)), "right"),
    (lambda: False, "not yet: the answer is not what is expected"), (lambda: np.bool_(False), "not yet: the answer"),
    (lambda: np.array([True, False]), "not yet: the answer is not what is expected"),
    (lambda: [True, False], "not yet: the answer is not"), (lambda: 0, "not yet: the answer is not what is expected"),
    (lambda: np.isclose([], [3.0]), "not yet: the answer is not what is expected"),
    (wordless, "not yet: AssertionError: in raise AssertionError\n"),
    (wrong, "not yet: AssertionError: expected 2, got 3\n"),
    (lambda: 1 / 0, "not yet: ZeroDivisionError: division by zero"),
])
def test_check_says_how_it_went_on_one_line(test, says, capsys):
    assert exercise.check(test) == says.startswith("right")
    out = capsys.readouterr().out
    assert out.startswith(says) and out.count("\n") == 1


def test_check_does_not_swallow_a_readers_interrupt():
    def interrupted(): raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exercise.check(interrupted)
