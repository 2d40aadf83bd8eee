"""What a task withholds of minires cannot be reached in a roundabout way, and the right answer still works."""
import contextlib
import functools

import pytest

from minires.course import judge, solution, worker
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
    refused = ("PermissionError", "a task may not use gc.get_objects")
    expected = refused if "gc" in CHEATS[way] else ("NameError", "nn.Block is not available to this task")
    assert (got.error, got.text) == expected


@pytest.mark.system
def test_nothing_of_a_withheld_package_is_left():
    """The modules of a package, and the functions that a decorator wraps, can be found in sys.modules."""
    source = """
def responses(net, x):
    modules = __import__("sys").modules
    left = [name for name, module in modules.items() if module is not None and name.startswith(
            ("minires.analysis", "minires.runs", "minires.tap", "minires.train", "minires.evaluate"))]
    raise KeyError(left)
"""
    task = find("a7.1")
    cases, _ = solution.drawn(task, "visible", 0)
    (got,), _, _ = judge.answers(task, [("cell 1", source)], cases[:1])
    assert (got.error, got.text) == ("KeyError", "[]")


def test_what_a_decorator_wraps_is_disabled_too():
    @contextlib.contextmanager
    def context():
        yield 1

    @functools.cache
    def cached():
        return 1

    for what in context, cached:
        worker.disable(what, "nn.x")
        with pytest.raises(NameError, match=r"nn\.x is not available to this task"):
            what.__wrapped__()


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
