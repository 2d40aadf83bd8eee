"""The solution of assignment a1 against other ways: minires' Tensor, PyTorch, sums over all paths, closed forms."""
import math

import numpy as np
import pytest

from minires import Tensor, ops
from minires.course import drivers_a1, grade, master, solution, tasks_a1
from minires.course.task import find

A1 = solution.plain_space("a1")
Value = A1["Value"]
LEAVES = {"x": 0.7, "w": -1.3, "b": 1.9}


def run(program, leaf, **functions):
    """Run a program with leaves made by `leaf(number)`; return (leaves, result)."""
    leaves = {name: leaf(number) for name, number in LEAVES.items()}
    scope = {**functions, **leaves}
    for line in program:
        target, expression = line.split(" = ")
        scope[target] = eval(expression, scope)
    return list(leaves.values()), scope[target]


def programs():
    rng = np.random.default_rng(0)
    cases = tasks_a1.arithmetic_visible(rng) + tasks_a1.arithmetic_hidden(rng)
    written = [case.inputs["program"] for case in cases if "program" in case.inputs and "0.5" not in case.label
               and "1.5" not in case.label]
    return written + [tasks_a1.random_program(rng) for _ in range(50)]


@pytest.mark.parametrize("engine", ["minires", "PyTorch"])
def test_programs_have_the_gradients_of_another_engine(engine):
    tried = programs()
    make = lambda n: Tensor(np.float64(n), True)
    if engine == "PyTorch":
        torch = pytest.importorskip("torch")
        tried = tried[::4]  # PyTorch is slow with single numbers
        make = lambda n: torch.tensor(n, dtype=torch.float64, requires_grad=True)
    for program in tried:
        mine, result = run(program, Value)
        result.backward()
        theirs, expected = run(program, make)
        expected.backward()
        assert math.isclose(result.data, expected.item(), rel_tol=1e-12), program
        grads = [0.0 if leaf.grad is None else float(leaf.grad) for leaf in theirs]
        np.testing.assert_allclose([leaf.grad for leaf in mine], grads, rtol=1e-10, atol=1e-12, err_msg=str(program))


@pytest.mark.parametrize("name", ["exp", "log", "tanh", "relu"])
def test_functions_have_the_gradients_of_minires(name):
    for x in 0.3, 1.7, -0.6, 0.0, 30.0, -30.0:
        if name == "log" and x <= 0:
            continue
        mine = Value(x)
        (A1[name](mine) * 3).backward()
        theirs = Tensor(np.float64(x), True)
        (getattr(ops, name)(theirs) * 3.0).backward()
        assert math.isclose(mine.grad, theirs.grad, rel_tol=1e-12, abs_tol=1e-300)
        assert math.isclose(A1[name](mine).data, getattr(ops, name)(theirs).item(), rel_tol=1e-12)


def by_paths(graph, i, leaf):
    """Return d Value i / d leaf as a sum over all paths."""
    if i == leaf:
        return 1.0
    _, parents, derivatives = graph[i]
    return sum(d * by_paths(graph, parent, leaf) for parent, d in zip(parents, derivatives, strict=True))


def graphs():
    rng = np.random.default_rng(1)
    return [tasks_a1.graph(rng, *parents) for parents in tasks_a1.SHAPES.values()] + [
        *(tasks_a1.random_graph(rng) for _ in range(50)), tasks_a1.skips(rng, 8)]


def test_gradients_are_the_sums_over_all_paths_and_a_second_sweep_adds_to_leaves_only():
    for graph in graphs():
        made = drivers_a1.nodes(graph)
        order = A1["topological"](made[-1])
        for times in 1, 2:
            A1["sweep"](order)
            for i, v in enumerate(made[:-1]):
                if v.parents:  # its gradient is that of a leaf in its place
                    cut = [[data, [] if j == i else parents, [] if j == i else d]
                           for j, (data, parents, d) in enumerate(graph)]
                    assert math.isclose(v.grad, by_paths(cut, len(graph) - 1, i), rel_tol=1e-9, abs_tol=1e-12)
                else:
                    assert math.isclose(v.grad, times * by_paths(graph, len(graph) - 1, i), rel_tol=1e-9, abs_tol=1e-12)


def test_the_order_has_every_value_once_after_its_parents():
    for graph in graphs():
        made = drivers_a1.nodes(graph)
        order = A1["topological"](made[-1])
        place = {id(v): i for i, v in enumerate(order)}
        assert len(order) == len(place) == len(made)
        assert all(place[id(parent)] < place[id(v)] for v in order for parent in v.parents)


def test_the_gradient_of_a_long_chain_is_the_product():
    derivatives = 1 + 1e-2 * np.random.default_rng(2).standard_normal(tasks_a1.LONG - 1)
    made = drivers_a1.chain(derivatives)
    A1["sweep"](A1["topological"](made[-1]))
    assert math.isclose(made[0].grad, math.prod(derivatives.tolist()), rel_tol=1e-9)
    assert len(made) == tasks_a1.LONG


def test_the_examples_in_the_text():
    x = Value(4.0)
    y = 2 / x
    assert y.data == 0.5
    assert dict(zip(map(id, y.parents), y.shares(1.0), strict=True))[id(x)] == -0.125
    zero = Value(0.0)
    assert [A1[name](zero).shares(5.0) for name in ("exp", "tanh", "relu")] == [(5.0,), (5.0,), (0.0,)]
    x, y = Value(3.0), Value(2.0)
    a = x * y
    b = a + x
    c = a * b
    order = A1["topological"](c)
    A1["sweep"](order)
    assert (x.grad, y.grad, a.grad) == (36, 45, 15)
    A1["sweep"](order)
    assert (x.grad, y.grad, a.grad) == (72, 90, 15)


def test_the_figures_scores_are_the_networks_and_it_learns():
    points, sides = A1["two_arcs"](12, np.random.default_rng(1))
    network = A1["new_network"](4, np.random.default_rng(2))
    by_values = [[A1["score"](network, x1, x2).data for x1 in (-1.0, 0.5)] for x2 in (0.0, 1.0, 2.0)]
    grid = A1["scores"](network, np.array([-1.0, 0.5]), np.array([0.0, 1.0, 2.0]))
    np.testing.assert_allclose(grid, by_values, rtol=1e-12)
    losses = [loss for _, loss in A1["train"](network, points, sides, 30, lr=1.0)]
    assert len(losses) == 31 and losses[-1] < losses[0] / 2


def test_the_model_answer_about_relu_units_that_are_always_off():
    network = A1["new_network"](3, np.random.default_rng(3))
    network[0] = [Value(1.0), Value(0.0), Value(-9.0), Value(0.7)]  # 0 at every point
    points, sides = A1["two_arcs"](10, np.random.default_rng(1))
    before = [p.data for p in network[0]]
    for _ in A1["train"](network, points, sides, 5, lr=0.3, bend=A1["relu"]):
        pass
    assert [p.grad for p in network[0]] == [0, 0, 0, 0] and [p.data for p in network[0]] == before


@pytest.mark.parametrize("end", ["order[:-1]", "[v for v in order if not v.parents]"])
def test_a_list_that_repeats_values_after_the_result_is_not_right(end):
    """The last Value of the list has to be the result."""
    cells = [(f"cell {i}", cell.source) for i, cell in enumerate(master.solution(master.master("a1")))
             if cell.type == "code"]
    wrong = f"""
own = topological
def topological(result):
    order = own(result)
    return order + {end}
"""
    (mark,) = grade.mark_all([find("a1.3")], [*cells, ("wrong", wrong)], 3)
    assert not mark.visible.verdict.right and not mark.hidden.verdict.right
