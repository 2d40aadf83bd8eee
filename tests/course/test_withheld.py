"""What a task withholds of minires cannot be reached in a roundabout way, and the right answer still works."""
import pytest

from minires.course import judge, solution
from minires.course.task import assignments, find, tasks

CHEATS = {
    "the subclasses of Module": """
from minires import nn
def known():
    every = nn.Module.__subclasses__()
    for one in every:
        every += one.__subclasses__()
    return {one.__name__: one for one in every}
class Block(nn.Module):
    def __init__(self, *args, **kwargs):
        kwargs.pop("rng")
        self.inner = known()["Block"](*args, **kwargs)
    def forward(self, x):
        return self.inner(x)
""",
    "the garbage collector": """
from minires import nn
class Block(nn.Module):
    def __new__(cls, *args, **kwargs):
        gc = __import__("gc")
        for one in gc.get_objects():
            if isinstance(one, type) and one.__module__ == "minires.nn.blocks" and one.__name__ == "Block":
                return one(*args, **kwargs)
""",
}


@pytest.mark.system
@pytest.mark.parametrize("way", CHEATS)
def test_a_withheld_class_earns_nothing(way):
    task = find("a5.5")
    cases, _ = solution.drawn(task, "visible", 0)
    (got,), _, _ = judge.answers(task, [("cell 1", CHEATS[way])], cases[:1])
    assert (got.error, got.text) == ("NameError", "nn.Block is not available to this task")


WITHHOLDING = [name for a in assignments() for name, task in tasks(a).items() if task.withheld]


def test_tasks_withhold_something():
    assert len(WITHHOLDING) >= 10


@pytest.mark.system
@pytest.mark.slow
@pytest.mark.parametrize("name", WITHHOLDING)
def test_the_solution_is_right_where_its_own_class_is_withheld(name):
    from minires.course import diagnose

    task = find(name)
    for half in "visible", "hidden":
        cases, expected = solution.drawn(task, half, 0)
        got, _, _ = judge.answers(task, [(cell, text) for cell, _, text in solution.sources(task.assignment)], cases)
        assert diagnose.all_right(got, expected), [one for one in got if type(one).__name__ == "Raised"][:1]
