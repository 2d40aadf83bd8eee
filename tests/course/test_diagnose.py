"""What the diagnosis says about wrong arrays, and when it names no cause."""
import numpy as np
import pytest

from minires.course import diagnose
from minires.course.task import Case, Task

TASK = Task("a0.1", "f", 10, ("f",), "f", lambda rng: [], lambda rng: [])
EXACT = np.array([0.1, 0.25, 3.0, 4.0])
DRIFTED, DRIFTED_OTHERWISE = np.array([0.1 + 0.7 - 0.7, 0.25, 3, 4]), np.array([0.1, 0.25, np.nextafter(3, 4), 4])


def said(expected, got, bank=()):
    """Return the verdict on one case."""
    return diagnose.verdict(TASK, [Case("", {})], [expected], [got], bank=bank)


def bug(number, expected, outcome):
    """Return what is known about a bug with this outcome."""
    return diagnose.Known((number,), (f"sentence {number}",), [outcome], frozenset(diagnose.wrong(outcome, expected)))


def test_rounding_errors_in_an_exact_array_are_called_so():
    found = said({"weights (exact)": EXACT}, {"weights (exact)": DRIFTED})
    assert found.words == ("not yet: weights (exact) (4,): right up to rounding, but every bit must be equal. 25 % of "
                           "the entries differ. Index (0,): got 0.09999999999999998, expected 0.1.")
    assert "twice what is expected" in said({"weights (exact)": EXACT}, {"weights (exact)": 2 * EXACT}).words


@pytest.mark.parametrize("factor", [2.0, -1.0, 0.25])
def test_a_factor_is_stated(factor):
    found = said({"dx": EXACT, "y": EXACT}, {"dx": factor * EXACT, "y": EXACT})
    assert "what is expected" in found.words and "1 times" not in found.words


def test_a_factor_of_one_is_no_fact():
    """Of float32 arrays, one that is a little off is still a multiple of the other up to rounding."""
    r = np.float32([1, 2, 3, 4])
    assert diagnose.factor("dx", [{"dx": r}], [{"dx": r}]) == ""
    assert diagnose.factor("dx", [{"dx": r * np.float32(1 + 1e-7)}], [{"dx": r}]) == ""


def test_rounding_errors_have_one_cause_whatever_their_order():
    expected = {"weights (exact)": EXACT}
    restored = bug(1, expected, {"weights (exact)": DRIFTED})
    assert said(expected, {"weights (exact)": DRIFTED_OTHERWISE}, [restored]).causes == (1,)
    assert said(expected, {"weights (exact)": EXACT + 0.01}, [restored]).causes == ()


@pytest.mark.parametrize("right, wrong", [(False, True), (5, 231), (np.ones(3), np.zeros(3))])
def test_what_agrees_by_chance_names_no_cause_alone(right, wrong):
    """Here y is wrong too, and its numbers are not the bug's."""
    expected, mistake = {"y": EXACT, "count": np.asarray(right)}, {"y": EXACT, "count": np.asarray(wrong)}
    known = [bug(1, expected, mistake)]
    assert said(expected, {**mistake, "y": EXACT + 1}, known).causes == ()
    assert said(expected, mistake, known).causes == (1,)
