"""Hold A8's solution against minires' own blocks and networks, finite differences and counts by hand."""

import math

import numpy as np
import pytest

import minires
from minires import Tensor, init, models, nn, no_grad, ops
from minires.course import diagnose, solution
from minires.course.task import tasks
from minires.course.worker import Raised
from minires.testing import check_layer

SPACE = solution.plain_space("a8")
TASKS = tasks("a8")
EXPANDED = {"Bottleneck": 4}  # divides out_channels
OTHERS = {
    "PreactBlock": [(nn.PreactBlock, options) for options in (
        {}, {"shortcut": "B"}, {"pad": "end"}, {"split_after_activation": True},
        {"shortcut": "B", "split_after_activation": True})],
    "Bottleneck": [(nn.Bottleneck, options) for options in (
        {}, {"shortcut": "B"}, {"pad": "end", "version": "v1.5"}, {"shortcut": "B", "version": "v1.5"})],
    "ScaledBlock": [(models.study.ConstantScaling, {})],
    "GatedBlock": [(models.study.ExclusiveGating, {})],
}


def drawn(net, seed=0):
    """Give the module random numbers in float64."""
    rng = np.random.default_rng(seed)
    for name, t in net.astype(np.float64).state().items():
        t.data = rng.uniform(0.5, 2, t.shape) if name.endswith("var") else rng.standard_normal(t.shape)
    return net


def passed(net, x, dy):
    t = Tensor(x, True)
    y = net(t)
    y.backward(dy)
    state = net.state()
    return [y.data, t.grad, *(state[name].grad for name in sorted(state) if state[name].requires_grad),
            *(state[name].data for name in sorted(state) if "running" in name)]


def agree(mine, other, x, on):
    """Compare output, gradients and running statistics of two modules with equal state, in one mode."""
    other.load_state(drawn(mine).state())
    other.astype(np.float64)
    other.load_state(mine.state())
    rng = np.random.default_rng(1)
    dy = rng.standard_normal(mine.train(False)(Tensor(x)).shape)
    for a, b in zip(passed(mine.train(on), x, dy), passed(other.train(on), x, dy), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", OTHERS)
def test_the_blocks_are_those_of_minires(name):
    rng = np.random.default_rng(0)
    for other, options in OTHERS[name]:
        for sizes in (8, 8, 1), (4, 8, 1), (4, 12, 2):
            x = rng.standard_normal((3, sizes[0], 5, 4))
            for on in True, False:
                agree(SPACE[name](*sizes, **options, rng=rng), other(*sizes, **options, rng=rng), x, on)


def test_the_gate_starts_where_v2_starts_it():
    block = SPACE["GatedBlock"](3, 6, 2, rng=np.random.default_rng(0))
    assert block.gate.bias.requires_grad and np.array_equal(block.gate.bias.data, np.full(6, -6, np.float32))


@pytest.mark.parametrize("name", OTHERS)
def test_the_blocks_gradients_are_those_of_finite_differences(name):
    block = SPACE[name](4, 8, 2, rng=np.random.default_rng(0))
    check_layer(block, np.random.default_rng(1).standard_normal((3, 4, 5, 4)), entries=6)


def test_the_network_is_that_of_minires():
    rng = np.random.default_rng(2)
    for depth, width in (8, 2), (14, 1):
        mine, other = SPACE["preact_net"](depth, width, rng), models.cifar(depth, block="preact", width=width)
        assert set(mine.state()) == set(other.state())
        agree(mine, other, rng.standard_normal((3, 3, 8, 12)), True)


COUNTED = {  # v1's networks as the paper and other libraries count them; the last two by hand, below
    (20, 16, "basic", "A"): (269_722, 40_551_040), (20, 16, "basic", "B"): (272_474, 40_813_184),
    (110, 16, "basic", "A"): (1_727_962, 252_887_680), (110, 16, "basic", "B"): (1_730_714, 253_149_824),
}


def by_hand():
    """Count the networks of depth 8 and 11 and width 1, one product for each layer."""
    basic = 27 + 2 * 9 + (18 + 36) + (72 + 144) + (1 * 2 + 2 * 4)  # stem, stages, projections
    norms = 1 + 2 + 4 + 8 + 2 + 4  # stem, two for each block, two projections
    macs = (27 + 18) * 1024 + (18 + 36 + 2) * 256 + (72 + 144 + 8) * 64 + 40
    bottleneck = 27 + (1 + 9 + 4) + (8 + 36 + 16) + (32 + 144 + 64)
    norms4 = 1 + (1 + 1 + 4) + (2 + 2 + 8) + (4 + 4 + 16)
    macs4 = (27 + 14) * 1024 + 60 * 256 + 240 * 64 + 160
    return {(8, 1, "basic", "B"): (basic + 2 * norms + 50, macs),
            (11, 1, "bottleneck", "A"): (bottleneck + 2 * norms4 + 170, macs4)}


def test_the_count_is_right():
    for arguments, expected in {**COUNTED, **by_hand()}.items():
        assert SPACE["count"](*arguments) == expected, arguments


@pytest.mark.parametrize("block", ["basic", "preact", "bottleneck", "preact_bottleneck"])
def test_the_count_is_that_of_the_networks_of_minires(block):
    for n in 1, 2:
        depth = (9 if "bottleneck" in block else 6) * n + 2
        for shortcut in "AB":
            with init.undrawn():
                net = models.cifar(depth, block=block, shortcut=shortcut, width=4)
            assert SPACE["count"](depth, 4, block, shortcut) == (net.count_parameters(), net.macs((3, 32, 32)))


# -------------------------------------------------------------------------------------------- the cases


@pytest.mark.parametrize("task", ["a8.1", "a8.2", "a8.3"])
def test_every_channel_is_half_open(task):
    """A channel that is open or closed everywhere would make a part of a gradient right by accident."""
    for seed in range(4):
        cases, expected = solution.drawn(TASKS[task], "visible", seed)
        for case, arrays in zip(cases, expected, strict=True):
            seen = []

            def see(module, inputs, out, seen=seen, name=case.inputs["name"]):
                last = "bn3" if name == "Bottleneck" else "bn2"
                if isinstance(module, nn.BatchNorm2d) and (name == "PreactBlock" or module is not seen[0].get(last)):
                    seen.append(out.data)

            block = SPACE[case.inputs["name"]]

            class Noted(block):
                def __init__(self, *args, seen=seen, **options):
                    super().__init__(*args, **options)
                    seen.append(vars(self))

            with nn.watched(see):
                solution.driver(TASKS[task], case)({case.inputs["name"]: Noted}, **case.inputs)
            maps = seen[1:] + ([] if case.inputs["name"] == "PreactBlock" else [arrays["y"]])
            assert len(maps) >= 2
            for a in maps:
                opened = (a > 0).mean((0, 2, 3))
                assert opened.min() >= 0.12 and opened.max() <= 0.88, (seed, case.label, opened)


def test_what_is_withheld_exists_and_is_listed_once():
    for task in TASKS.values():
        found = []
        for name in task.withheld:
            what = minires
            for part in name.split("."):
                what = getattr(what, part)
            found.append(id(what))
        assert len(set(found)) == len(found) > 5, task.name


# ------------------------------------------------------------------------------- what a student reads


def said(task, **answers):
    """Return the verdict on answers, without the bank."""
    one = TASKS[task]
    cases, expected = solution.drawn(one, "visible", 0)
    got = solution.outcomes(one, {**SPACE, **answers}, cases)
    assert not diagnose.all_right(got, expected)
    return diagnose.verdict(one, cases, expected, got).words


class Renamed(SPACE["PreactBlock"]):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.first = self.conv1
        del self.conv1


class Silent(SPACE["PreactBlock"]):
    def forward(self, x):
        return None


class Full(SPACE["Bottleneck"]):
    """Full forgets the stride, except of the shortcut."""

    def __init__(self, in_channels, out_channels, stride=1, **options):
        super().__init__(in_channels, out_channels, 1, **{**options, "shortcut": "A"})


@pytest.mark.parametrize("task, answers, says", [
    ("a8.1", {"PreactBlock": Renamed}, "Missing: conv1.weight. Unexpected: first.weight."),
    ("a8.1", {"PreactBlock": Silent}, "PreactBlock must return a Tensor, not None"),
    ("a8.1", {"PreactBlock": lambda *sizes, **options: ops.relu}, "PreactBlock must be an nn.Module"),
    ("a8.2", {"Bottleneck": Full}, "stride 2, option A"),
    ("a8.4", {"count": lambda *a: 269_722}, "count must return two numbers, parameters and MACs"),
    ("a8.4", {"count": lambda *a: (SPACE["count"](*a)[0], 1)}, "multiply-accumulates"),
])
def test_wrong_answers_get_a_sentence(task, answers, says):
    assert says in said(task, **answers)


def test_whole_numbers_may_be_floats():
    one = TASKS["a8.4"]
    cases, expected = solution.drawn(one, "visible", 0)
    floats = solution.outcomes(one, {"count": lambda *a: tuple(map(float, SPACE["count"](*a)))}, cases)
    assert diagnose.all_right(floats, expected)


def test_blocks_that_change_nothing_change_no_bit():
    one = TASKS["a8.1"]
    (case,) = [case for case in one.cases("hidden", 0) if case.driver == "stack"]
    (got,) = solution.outcomes(one, SPACE, [case])
    assert not isinstance(got, Raised)
    for array, key in zip(got.values(), ("x", "dy"), strict=True):
        assert array.tobytes() == case.inputs[key].tobytes()


# ------------------------------------------------------------------------------ the figure and the rubric


def followed(net):
    return SPACE["followed"](net, np.random.default_rng(3).standard_normal((4, 3, 8, 8)).astype(np.float32))


def test_the_sum_explains_the_way_in_v2_alone():
    rng = np.random.default_rng(4)
    v1, v2 = SPACE["V1Net"](14, 4, nn.Block, rng), SPACE["preact_net"](14, 4, rng)
    for net, least, most in (v1, 0.05, math.inf), (v2, 0, 1e-5):
        found = followed(net)
        assert [len(values) for values in found.values()] == [5, 5, 5]
        for moved, missed in zip(found["moved"], found["missed"], strict=True):
            assert least * moved <= missed <= most * moved


def test_what_the_sum_misses_in_v1_is_what_the_relu_puts_back():
    rng = np.random.default_rng(5)
    x = Tensor(np.abs(rng.standard_normal((2, 4, 5, 5))))
    total, put_back, start = 0 * x.data, 0 * x.data, x.data
    with no_grad():
        for _ in range(4):
            block = nn.Block(4, 4, rng=rng).astype(np.float64)
            f = block.bn2(block.conv2(ops.relu(block.bn1(block.conv1(x))))).data
            total, put_back = total + f, put_back + np.maximum(0, -(x.data + f))
            x = block(x)
    assert put_back.min() >= 0 < put_back.max()
    np.testing.assert_allclose(x.data, start + total + put_back, atol=1e-12)


def test_the_numbers_of_the_model_answer():
    gate = 1 / (1 + math.exp(6))
    assert f"{2.0**-54:.1e}" == "5.6e-17" and round(gate, 4) == 0.0025 and round((1 - gate) ** 54, 2) == 0.87
    assert sum(0.5**k for k in range(1, 8)) > 0.99 > sum(0.5**k for k in range(1, 7))
