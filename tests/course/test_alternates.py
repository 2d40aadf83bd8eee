"""Right answers of another hand are accepted, and the bugs planted in them are named: see named.py."""
import named
import pytest

from minires.course import diagnose, solution
from minires.course.task import HALVES, tasks

TASKS = [pytest.param(task, id=task.name) for a in named.written() for task in tasks(a).values()]


def rejected(task, text, seeds):
    """Return the seeds and halves on which an answer is not right."""
    space = named.defined(task, text)
    return [(seed, half) for seed in seeds for half in HALVES
            for cases, expected in [solution.drawn(task, half, seed)]
            if not diagnose.all_right(solution.outcomes(task, space, cases), expected)]


@pytest.mark.parametrize("task", TASKS)
def test_right_answers_of_other_hands_are_accepted(task):
    texts = named.alternates(task.assignment).ALTERNATES[task.name]
    assert len(texts) >= 3 and len(set(texts)) == len(texts)
    for text in texts:
        assert rejected(task, text, [0]) == []


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_right_answers_are_accepted_on_every_seed(task):
    for text in named.alternates(task.assignment).ALTERNATES[task.name]:
        assert rejected(task, text, range(1, 100)) == []


@pytest.mark.slow
@pytest.mark.parametrize("assignment", named.written())
def test_planted_bugs_are_named_and_nothing_else_is(assignment):
    found = named.count(assignment)
    assert found.kinds["wrongly"] == found.kinds["survived"] == found.others_named == 0, "\n".join(found.lines)
    explained = found.kinds["named"] + found.kinds["among"] + found.kinds["fact"]
    assert explained >= 0.85 * found.planted, "\n".join(found.lines)
