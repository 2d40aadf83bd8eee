"""The graders accept the solution, and reject and tell apart every bug of the bank.

All tests look at every assignment that there is. The short ones use one seed; the slow ones a hundred, or
twenty for the assignments with networks, unless MINIRES_ALL=1 is in the environment.
test_alternates.py does the same with right answers of other hands.
"""
import pytest
from named import seeds

from minires.course import diagnose, kill, solution
from minires.course.bank import Bug, bugs, changed
from minires.course.task import FREE_POINTS, HALVES, CourseError, assignments, find, tasks

BUGS = {"a1": 18, "a2": 21, "a3": 25, "a4": 26, "a5": 24, "a6": 16, "a7": 19, "a8": 16}  # 165
TASKS = [task for name in assignments() for task in tasks(name)]
SHORT = 17  # a seed of the short tests that no other test uses


def not_right(task, names, seeds):
    """Return the seeds and halves in which the names are not right."""
    return [(seed, half) for seed in seeds for half in HALVES for cases, expected in [solution.drawn(task, half, seed)]
            if not diagnose.all_right(solution.outcomes(task, names, cases), expected)]


def clear():
    """Forget what was drawn: a hundred seeds of every task need much memory."""
    solution.drawn.cache_clear()
    diagnose.known_bugs.cache_clear()


@pytest.mark.parametrize("name", assignments())
def test_points_and_numbers_of_bugs(name):
    assert sum(task.points for task in tasks(name).values()) == 100 - FREE_POINTS
    assert [bug.number for bug in bugs(name)] == list(range(1, BUGS[name] + 1))
    assert {task for bug in bugs(name) for task in bug.changes} <= set(tasks(name))
    assert all(bug.changes and all(bug.changes.values()) for bug in bugs(name))


@pytest.mark.parametrize("name", assignments())
def test_a_sentence_completes_what_the_student_reads(name):
    for bug in bugs(name):
        assert bug.sentence[-1] not in ".!?," and bug.sentence == " ".join(bug.sentence.split()), bug.sentence
        first = bug.sentence.split()[0]
        written_so = len(first) == 1 or "'" in first or first in ("Python", "Maximum", ".T")
        assert written_so or not first.istitle(), bug.sentence


@pytest.mark.parametrize("name", assignments())
def test_every_bug_fits_the_solution(name):
    """Every old text occurs exactly once, and the syntax tree changes."""
    for bug in bugs(name):
        for task, realisations in bug.changes.items():
            for changes in realisations:
                assert changed(solution.answer(find(task)), *changes) != solution.answer(find(task))


QUICK = [list(tasks(name))[SHORT % len(tasks(name))] for name in assignments()]  # one task of each assignment


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in TASKS if n not in QUICK)])
def test_the_solution_is_right_and_a_bug_is_rejected(name):
    task = find(name)
    assert not_right(task, solution.space(task.assignment), [SHORT]) == []
    mine = [bug for bug in bugs(task.assignment) if name in bug.changes]
    bug = mine[SHORT % len(mine)]
    names = solution.space(task.assignment, {name: bug.changes[name][-1]})
    assert not_right(task, names, [SHORT]), f"bug {bug.number} survives"
    clear()


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_every_bug_is_rejected_on_every_seed(name):
    assert kill.survivors(find(name), seeds(name[:2])) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_the_solution_is_accepted_on_every_seed(name):
    task = find(name)
    for seed in seeds(name[:2]):
        assert not_right(task, solution.space(task.assignment), [seed]) == []
        clear()


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_two_bugs_differ_or_share_a_sentence(name):
    for seed in range(3):
        assert kill.too_near(find(name), seed) == []
    clear()


@pytest.mark.parametrize("name", ["a4.3", *(pytest.param(n, marks=pytest.mark.slow) for n in TASKS if n != "a4.3")])
def test_every_realisation_of_a_bug_is_named_by_its_sentence(name):
    """A bug that shows itself in values is named, and nothing else is, when the student makes exactly this mistake."""
    task = find(name)
    cases, expected = solution.drawn(task, "visible", 0)
    for bug, _, names in solution.planted(task):
        got = solution.outcomes(task, names, cases)
        found = diagnose.verdict(task, cases, expected, got, bank=diagnose.known_bugs(task, "visible", 0))
        numbers = any(isinstance(g, dict) and diagnose.wrong(g, r) for g, r in zip(got, expected, strict=True))
        if numbers:
            assert bug.sentence in found.hint and "either" not in found.hint, (bug.number, found)
    clear()


# ------------------------------------------------------------------------------------------------- changed


def test_changed_ignores_white_space_and_matches_words_whole():
    source = "def f(x):\n    if x:\n        y = x +  1\n    return yy\n"
    assert changed(source, ("y=x+1", "y = x")) == source.replace("x +  1", "x")
    assert changed(source, ("y = x + 1", "y = x\nz = y")) == source.replace("y = x +  1", "y = x\n        z = y")
    assert changed(source, ("return yy", "return y"), ("x + 1", "2")) == \
        "def f(x):\n    if x:\n        y = 2\n    return y\n"


@pytest.mark.parametrize("changes, words", [
    ([("x", "z")], "found it 4 times"), ([("nowhere", "z")], "found it 0 times"), ([("y = x + 1", "y = (x+1)")],
    "change nothing"), ([("x + 1", "x +")], "not valid Python"), ([("return y", "return 1")], "found it 0 times")])
def test_changed_refuses(changes, words):
    source = "def f(x):\n    if x:\n        y = x +  1\n    return yy + x\n"
    with pytest.raises(CourseError, match=words):
        changed(source, *changes)


def test_a_bug_says_how_it_is_seen():
    with pytest.raises(ValueError, match="one of values, fact"):
        Bug(1, "s", {}, seen="smell")
