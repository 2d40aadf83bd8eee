"""Right answers of another hand are accepted, and the bugs planted in them are named: see named.py."""
from pathlib import Path

import named
import numpy as np
import pytest

from minires.course import diagnose, solution
from minires.course.bank import bugs, changed
from minires.course.task import HALVES, tasks

PAGE = Path(__file__).resolve().parents[2] / "docs" / "course" / "teachers.md"
TASKS = [pytest.param(task, id=task.name) for a in named.written() for task in tasks(a).values()]


def rejected(task, seeds):
    """Return the styles, seeds and halves in which an answer is not right."""
    spaces = [named.defined(task, text) for text in named.alternates(task.assignment).ALTERNATES[task.name]]
    found = []
    for seed in seeds:
        for half in HALVES:
            cases, expected = solution.drawn(task, half, seed)
            found += [(style, seed, half) for style, space in enumerate(spaces)
                      if not diagnose.all_right(solution.outcomes(task, space, cases), expected)]
        solution.drawn.cache_clear()  # a hundred seeds of every task need much memory
    return found


@pytest.mark.parametrize("task", TASKS)
def test_right_answers_of_other_hands_are_accepted(task):
    texts = named.alternates(task.assignment).ALTERNATES[task.name]
    assert len(texts) >= 3 and len(set(texts)) == len(texts)
    assert rejected(task, [0]) == []


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_right_answers_are_accepted_on_every_seed(task):
    assert rejected(task, named.seeds(task.assignment)[1:]) == []


@pytest.mark.parametrize("assignment", named.written())
def test_every_planting_changes_its_answer(assignment):
    module = named.alternates(assignment)
    for listed in module.PLANTED, module.OTHERS:
        for task, plantings in listed.items():
            for one in plantings:
                changed(module.ALTERNATES[task][one.style], *one.changes)
    numbers = {one.bug for plantings in module.PLANTED.values() for one in plantings}
    assert numbers == {bug.number for bug in bugs(assignment)}


def test_planted_bugs_of_one_task_are_named():
    found = named.count("a4", only="a4.3", others=False)
    assert found.kinds["wrongly"] == found.kinds["survived"] == 0 and found.planted > 30
    assert found.kinds["named"] >= 0.9 * found.planted, "\n".join(found.lines)


def test_other_wrong_answers_to_one_task_are_not_named():
    found = named.count("a4", only="a4.1")
    assert found.others == named.OTHER_ANSWERS and found.others_named == 0, "\n".join(found.lines)


OF_ANOTHER = {"a1.3": {7}}  # planted, but in a form that the sentence of another bug describes as well


def arrays(**values):
    return {name.replace("_", " "): np.array(value, float) for name, value in values.items()}


def test_an_array_that_is_explained_alone_is_explained_in_all_its_variants():
    """A single variant of an array has few numbers, which a bug may give by chance."""
    right = [arrays(dx=[1, 2], dw=[5, 6]), arrays(dx_of_float32_inputs=[3], dw_of_float32_inputs=[4])]
    bug = [arrays(dx=[-1, -2], dw=[5, 6]), arrays(dx_of_float32_inputs=[-3], dw_of_float32_inputs=[4])]
    bank = [diagnose.Known((7,), ("the sign is wrong",), bug, frozenset({"dx", "dx of float32 inputs"}))]
    both = [arrays(dx=[-1, -2], dw=[9, 9]), arrays(dx_of_float32_inputs=[-3], dw_of_float32_inputs=[9])]
    assert diagnose.cause(both, right, bank) == ("For dx, this is what you get when the sign is wrong.", (7,))
    chance = [arrays(dx=[-1, 2], dw=[9, 9]), arrays(dx_of_float32_inputs=[-3], dw_of_float32_inputs=[9])]
    assert diagnose.cause(chance, right, bank) == ("", ())


def test_an_array_of_zeros_is_not_explained_alone():
    right, bug = [arrays(dx=[1, 2], dw=[5, 6])], [arrays(dx=[0, 0], dw=[5, 6])]
    bank = [diagnose.Known((10,), ("dx is zero",), bug, frozenset({"dx"}))]
    assert diagnose.cause([arrays(dx=[0, 0], dw=[5, 6])], right, bank)[1] == (10,)
    assert diagnose.cause([arrays(dx=[0, 0], dw=[0, 0])], right, bank) == ("", ())
    right, bug = [*right, arrays(dx=[1], dw=[3])], [*bug, arrays(dx=[4], dw=[3])]
    bank = [diagnose.Known((10,), ("dx stays as it was",), bug, frozenset({"dx"}))]
    assert diagnose.cause([arrays(dx=[0, 0], dw=[0, 0]), arrays(dx=[4], dw=[3])], right, bank) == ("", ())


@pytest.mark.slow
@pytest.mark.parametrize("assignment", named.written())
def test_planted_bugs_are_named_and_nothing_else_is(assignment):
    found = named.count(assignment)
    assert found.kinds["wrongly"] == found.kinds["survived"] == found.others_named == 0, "\n".join(found.lines)
    explained = found.kinds["named"] + found.kinds["among"] + found.kinds["fact"]
    assert explained >= 0.85 * found.planted, "\n".join(found.lines)
    assert found.counts == named.recorded().get(assignment), "run python tests/course/named.py --write " + PAGE.name


@pytest.mark.slow
@pytest.mark.parametrize("assignment", named.written())
def test_a_third_hands_bugs_are_named_and_nothing_else_is(assignment):
    found = named.count(assignment, third=True)
    assert found.kinds["wrongly"] == found.kinds["survived"] == 0, "\n".join(found.lines)
    recorded = named.recorded().get(named.THIRD + assignment)
    assert found.counts == recorded, "run python tests/course/named.py --third --write " + PAGE.name


@pytest.mark.parametrize("assignment", named.written())
def test_a_third_hand_answers_every_task_and_plants_every_bug(assignment):
    module = named.third_hand(assignment)
    for task in tasks(assignment).values():
        assert diagnose.all_right(named.outcomes(task, module.ANSWERS[task.name], "visible", 0),
                                  solution.drawn(task, "visible", 0)[1])
        planted = {one.bug for one, text in named.plantings(task, third=True) if text != module.ANSWERS[task.name]}
        possible = {bug.number for bug in bugs(assignment) if task.name in bug.changes}
        assert planted | OF_ANOTHER.get(task.name, set()) == possible


def test_the_teachers_page_has_what_was_counted():
    text, record = PAGE.read_text(encoding="utf-8"), named.recorded()
    assert record and named.page_with(text, record) == text
    assert named.row("A4", record["a4"]) in text and named.row("A4", record[f"{named.THIRD}a4"]) in text
    first = [counts for name, counts in record.items() if not name.startswith(named.THIRD)]
    assert named.row("all", named.total(first)) in text


def test_a_table_is_written_between_its_marks():
    counts = dict.fromkeys((*named.KINDS, "survived", "others", "others named"), 0) | {"named": 3, "silent": 1}
    first, third = named.BEGIN
    record = {"a1": counts, f"{named.THIRD}a2": counts}
    text = named.page_with(f"a\n{first}old\n{named.END}\n{third}old\n{named.END}\nb\n", record)
    assert text.startswith("a\n") and text.endswith("\nb\n") and "old" not in text
    for name, mark in ("A1", first), ("A2", third):
        written = text.partition(mark)[2].partition(named.END)[0]
        assert f"| {name} | 4 | 3 | 0 | 0 | 1 | 0 | 75 % | 0 | 0 |" in written and written.count("| 4 |") == 2
    with pytest.raises(ValueError, match="expected the lines"):
        named.page_with("no marks", {})
