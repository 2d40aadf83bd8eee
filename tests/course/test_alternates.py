"""Right answers of another hand are accepted, and the bugs planted in them are named: see named.py."""
from pathlib import Path

import named
import pytest

from minires.course import diagnose, solution
from minires.course.task import HALVES, tasks

PAGE = Path(__file__).resolve().parents[2] / "docs" / "course" / "teachers.md"
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
    assert found.counts == named.recorded().get(assignment), "run python tests/course/named.py --write " + PAGE.name


def test_the_teachers_page_has_what_was_counted():
    text, record = PAGE.read_text(encoding="utf-8"), named.recorded()
    assert record and named.page_with(text, record) == text
    assert named.row("A4", record["a4"]) in text and named.row("all", named.total(record.values())) in text


def test_a_table_is_written_between_its_marks():
    counts = dict.fromkeys((*named.KINDS, "survived", "others", "others named"), 0) | {"named": 3, "silent": 1}
    text = named.page_with(f"a\n{named.BEGIN}old\n{named.END}\nb\n", {"a1": counts})
    assert text.startswith("a\n") and text.endswith("\nb\n") and "old" not in text
    assert "| A1 | 4 | 3 | 0 | 0 | 1 | 0 | 75 % | 0 | 0 |" in text
    with pytest.raises(ValueError, match="expected the lines"):
        named.page_with("no marks", {})
