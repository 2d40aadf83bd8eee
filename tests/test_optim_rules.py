"""Test Adam, AdamW, Nesterov, groups, clipping and schedules against PyTorch and against numbers computed by hand."""

import copy
import math
import pickle

import numpy as np
import pytest
from helpers import difference, needs_torch, normal, same_bits, torch

from minires import Tensor, models, nn, ops, optim
from minires.optim import SGD, Adam, AdamW, Group

RULES = {
    "SGD": lambda of: of.SGD, "Adam": lambda of: of.Adam, "AdamW": lambda of: of.AdamW,
}
CASES = {
    "nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "adam": ("Adam", {"lr": 0.01}),
    "adam, weight decay": ("Adam", {"lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-3}),
    "adamw": ("AdamW", {"lr": 0.01}),
    "adamw, more decay": ("AdamW", {"lr": 0.02, "weight_decay": 0.3, "betas": (0.5, 0.9)}),
}


def drawn(*shapes, dtype=np.float64):
    return [Tensor(normal(*shape, seed=i, dtype=dtype), True) for i, shape in enumerate(shapes)]


def follow(ours, theirs, mine, its, steps=20, rests=()):
    """Give both optimisers the same gradients, which depend on the weights, and compare the weights after each step."""
    for step in range(steps):
        for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            p.grad = None if (step, i) in rests else np.sin(p.data) + normal(*p.shape, seed=100 + 7 * step + i)
            q.grad = None if p.grad is None else torch.tensor(p.grad)
        mine.step()
        its.step()
        for p, q in zip(ours, theirs, strict=True):
            assert difference(p.data, q.detach().numpy()) < 1e-12, step


@needs_torch
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rests", [(), {(0, 1), (1, 1), (5, 0)}], ids=["all", "some parameters rest"])
def test_twenty_steps_as_pytorch(case, rests):
    rule, options = CASES[case]
    ours = drawn((3, 4), (5,))
    theirs = [torch.tensor(p.data, requires_grad=True) for p in ours]
    follow(ours, theirs, RULES[rule](optim)(ours, **options), RULES[rule](torch.optim)(theirs, **options), rests=rests)


@needs_torch
@pytest.mark.parametrize("rule", RULES)
def test_three_learning_rates_as_pytorchs_groups(rule):
    ours = drawn((2, 3), (4,), (3, 3, 2), (2,))
    theirs = [torch.tensor(p.data, requires_grad=True) for p in ours]
    mine = RULES[rule](optim)([Group(ours[:1], lr_factor=0.1), Group(ours[1:3]),
                               Group(ours[3:], lr_factor=3, weight_decay=0.0)], lr=0.02, weight_decay=0.1)
    its = RULES[rule](torch.optim)([{"params": theirs[:1], "lr": 0.002}, {"params": theirs[1:3]},
                                    {"params": theirs[3:], "lr": 0.06, "weight_decay": 0.0}], lr=0.02, weight_decay=0.1)
    follow(ours, theirs, mine, its, rests={(0, 1), (3, 2)})


def test_two_steps_of_adam_by_hand():
    p = Tensor(np.array([1.0]), True)
    adam = Adam([p], lr=0.1, betas=(0.5, 0.75), eps=0.0)
    p.grad = np.array([2.0])
    adam.step()  # m = 1, v = 1; m' = 2, v' = 4: the first step is lr times the sign of the gradient
    np.testing.assert_allclose(p.data, [0.9], rtol=1e-14)
    p.grad = np.array([-1.0])
    adam.step()  # m = 0, so nothing moves
    np.testing.assert_allclose(p.data, [0.9], rtol=1e-14)
    assert adam.square.tolist() == [0.75 + 0.25] and adam.updates.tolist() == [2]


def test_decoupled_decay_is_not_divided_by_the_root():
    p, q = Tensor(np.array([10.0]), True), Tensor(np.array([10.0]), True)
    p.grad = q.grad = np.array([1e-3])
    AdamW([p], lr=0.1, weight_decay=0.5).step()
    Adam([q], lr=0.1, weight_decay=0.5).step()
    assert p.data[0] == pytest.approx(10 * (1 - 0.05) - 0.1, rel=1e-4)  # the decay, and a step of size lr
    assert q.data[0] == pytest.approx(10 - 0.1, rel=1e-4)  # a step of size lr, however large the weight


@pytest.mark.parametrize("rule", [Adam, AdamW, lambda p, **o: SGD(p, momentum=0.9, nesterov=True, **o)])
def test_arrays_are_replaced_and_float32_stays(rule):
    p, q = drawn((3,), (2, 2), dtype=np.float32)
    its = rule([Group([p]), Group([q], lr_factor=0.5)], lr=np.float64(0.01))
    for _ in range(3):
        p.grad, q.grad = np.ones(3, np.float32), np.ones((2, 2), np.float32)
        held = [p.data, q.data, p.grad, q.grad, *(getattr(its, name) for name in its.saved)]
        copies = [a.copy() for a in held]
        its.step()
        assert all(same_bits(a, c) for a, c in zip(held, copies, strict=True))
        assert {a.dtype for a in (p.data, q.data, *(getattr(its, name) for name in its.kept))} == {np.dtype("f4")}
        its.lr = np.float64(0.02)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
def test_adam_is_copied_with_its_model(again):
    def steps(net, optimizer, first):
        for i in range(first, first + 3):
            optimizer.zero_grad()
            x = Tensor(normal(5, 3, seed=i, dtype=np.float32))
            ops.cross_entropy(net(x), np.array([0, 1, 2, 0, 1])).backward()
            optimizer.step()

    net = nn.Linear(3, 3, rng=np.random.default_rng(0))
    optimizer = AdamW([Group([net.weight]), Group([net.bias], weight_decay=0.0)], 0.01)
    steps(net, optimizer, 0)
    other, its = again((net, optimizer))
    assert its.parameters[0] is other.weight and its.groups[0].parameters[0] is other.weight
    steps(net, optimizer, 3)
    assert not np.array_equal(other.weight.data, net.weight.data)  # independent
    steps(other, its, 3)
    assert same_bits(other.weight.data, net.weight.data) and same_bits(other.bias.data, net.bias.data)
    assert all(same_bits(getattr(its, name), getattr(optimizer, name)) for name in its.saved)


def test_one_group_of_all_has_the_bits_of_no_group():
    ends = []
    for chosen in (lambda p: p), (lambda p: [Group(p)]), (lambda p: [Group(p[:2]), Group(p[2:])]):
        p = drawn((3, 4), (5,), (7, 2), dtype=np.float32)
        sgd = SGD(chosen(p), 0.1, 0.9, 1e-3)
        for step in range(3):
            for q in p:
                q.grad = normal(*q.shape, seed=step, dtype=np.float32)
            sgd.step()
        ends.append(b"".join(q.data.tobytes() for q in p))
    assert ends[0] == ends[1] and len(ends[0]) == len(ends[2])
    np.testing.assert_allclose(np.frombuffer(ends[0], "f4"), np.frombuffer(ends[2], "f4"), rtol=1e-6)


def test_decay_spares_batch_norms_and_biases():
    net = models.cifar(8, width=2, shortcut="B")
    decayed, spared = optim.decay_matrices_only(net.parameters())
    names = {id(t): name for name, t in net.state().items()}
    kinds = {id(getattr(m, key)): type(m) for _, m in net.modules() for key in ("weight", "bias") if hasattr(m, key)}
    assert {kinds[id(p)] for p in decayed.parameters} == {nn.Conv2d, nn.Linear}
    assert all(names[id(p)].endswith("weight") for p in decayed.parameters)
    assert {names[id(p)] for p in spared.parameters if kinds[id(p)] is nn.Linear} == {"fc.bias"}
    assert len(decayed.parameters) + len(spared.parameters) == len(net.parameters())
    sgd = SGD([decayed, spared], 0.1, weight_decay=0.5)
    before = {name: t.data.copy() for name, t in net.state().items()}
    for p in net.parameters():
        p.grad = np.zeros_like(p.data)
    sgd.step()
    for name, t in net.state().items():
        same = same_bits(t.data, before[name]) or not before[name].any()
        assert same == (t.data.ndim < 2), name


@pytest.mark.parametrize("make, error, says", [
    (lambda p: Adam(p, betas=(0.9, 1.0)), ValueError, r"Adam: expected two betas, each from 0 to below 1, got \(0.9"),
    (lambda p: AdamW(p, lr=-1), ValueError, "AdamW: expected lr >= 0, got -1"),
    (lambda p: Adam(p, eps=float("nan")), ValueError, "Adam: expected eps >= 0, got nan"),
    (lambda p: Adam(p * 2), ValueError, "Adam: expected every parameter once, got one of them twice"),
    (lambda p: SGD([Group(p), Group(p)], 0.1), ValueError, "SGD: expected every parameter once"),
    (lambda p: SGD([{"params": p}], 0.1), TypeError, r"SGD: expected parameters as Tensors or optim.Groups, got dict"),
    (lambda p: SGD([Group(p), *drawn((2,))], 0.1), TypeError, "SGD: expected either Tensors or Groups, got both"),
    (lambda p: SGD([Group([])], 0.1), ValueError, "SGD: expected at least one parameter, got none"),
    (lambda p: SGD(p, 0.1, nesterov=True), ValueError, "SGD: expected momentum > 0 with nesterov=True"),
    (lambda p: Adam(drawn((2,), dtype=np.float16)), TypeError, "Adam: expected parameters of float32 or float64, got "),
    (lambda p: optim.clip_gradients(p, 0), ValueError, "clip_gradients: expected a norm above 0, got 0"),
    (lambda p: optim.cosine(0.1, 0), ValueError, "cosine: expected steps >= 1, got 0"),
    (lambda p: optim.one_cycle(0.1, 10, rise=1), ValueError, "one_cycle: expected steps >= 2, rise between"),
    (lambda p: optim.one_cycle(-0.1, 10), ValueError, "one_cycle: expected lr >= 0, got -0.1"),
    (lambda p: optim.constant("fast"), TypeError, "constant: expected lr as a number, got 'fast'"),
    (lambda p: optim.constant(-0.1), ValueError, "constant: expected lr >= 0, got -0.1"),
    (lambda p: optim.step_decay(0.1, 5), TypeError, "step_decay, at: expected a list of steps, got 5"),
    (lambda p: optim.step_decay(0.1, ["5"]), TypeError, "step_decay, at: expected step as a number, got '5'"),
    (lambda p: optim.cosine(0.1, 5, end=math.nan), ValueError, "cosine: expected end >= 0, got nan"),
    (lambda p: optim.warm_up(0.1, 5, 0.01), TypeError, "warm_up: expected a schedule, such as .*, got 0.1"),
    (lambda p: Adam(p, betas=0.9), ValueError, "Adam: expected two betas, each from 0 to below 1, got 0.9"),
    (lambda p: Adam(p, betas=("a", "b")), ValueError, "Adam: expected two betas"),
    (lambda p: Adam(p, lr="fast"), TypeError, "Adam: expected lr as a number, got 'fast'"),
    (lambda p: SGD(nn.Sequential(nn.ReLU()), 0.1), TypeError, "SGD: expected a list of Tensors, .*, got Sequential"),
    (lambda p: SGD(5, 0.1), TypeError, "SGD: expected a list of Tensors, such as .*, got int"),
    (lambda p: Group(p, lr_factor=-1.0), ValueError, "Group: expected lr_factor >= 0, got -1.0"),
    (lambda p: Group(p, lr_factor="x"), TypeError, "Group: expected lr_factor as a number, got 'x'"),
    (lambda p: Group(p, weight_decay=math.nan), ValueError, "Group: expected weight_decay >= 0, got nan"),
    (lambda p: optim.clip_gradients(p, "1"), ValueError, "clip_gradients: expected a norm above 0, got '1'"),
    (lambda p: optim.clip_gradients([Group(p)], 1), TypeError, "clip_gradients: expected a list of Tensors, .* Group"),
])
def test_wrong_use_is_refused(make, error, says):
    with pytest.raises(error, match=says):
        make(drawn((2, 2)))


# ------------------------------------------------------------------------------------------------------- clipping


@needs_torch
@pytest.mark.parametrize("most", [0.5, 1e6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clipping_as_pytorch(most, dtype):
    ours = drawn((3, 4), (5,), (), dtype=dtype)
    theirs = [torch.tensor(p.data, requires_grad=True) for p in ours]
    for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
        if i != 1:
            p.grad = np.asarray(normal(*p.shape, seed=50 + i, dtype=dtype))
            q.grad = torch.tensor(p.grad)
    held = [p.grad for p in ours]
    norm = optim.clip_gradients(ours, most)
    assert float(norm) == pytest.approx(float(torch.nn.utils.clip_grad_norm_(theirs, most)), rel=1e-6)
    for p, q, old in zip(ours, theirs, held, strict=True):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            assert isinstance(p.grad, np.ndarray) and p.grad.dtype == dtype and p.grad is not old
            np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=1e-6)


def test_the_norm_of_very_small_and_large_gradients():
    for size in 1e-30, 1e30:
        p = Tensor(np.zeros(4, np.float32), True)
        p.grad = np.full(4, size, np.float32)
        assert float(optim.clip_gradients([p], 1.0)) == pytest.approx(2 * size, rel=1e-6)
        np.testing.assert_allclose(p.grad, min(size, 0.5), rtol=1e-6)
    assert optim.clip_gradients([Tensor(np.zeros(2), True)], 1.0) == 0


# ------------------------------------------------------------------------------------------------------ schedules


@needs_torch
def test_the_cosine_is_pytorchs():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20, eta_min=0.02)
    ours = optim.cosine(0.3, 20, end=0.02)
    for step in range(21):
        assert ours(step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        theirs.step()
    assert ours(0) == 0.3 and ours(20) == ours(1000) == 0.02 and ours(10) == pytest.approx(0.16)


@needs_torch
@pytest.mark.parametrize("rise", [0.3, 0.5])
def test_one_cycle_is_pytorchs(rise):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.4, 30, pct_start=rise)
    ours = optim.one_cycle(0.4, 30, rise=rise)
    for step in range(30):
        assert ours(step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9), step
        if step < 29:
            optimizer.step()
            theirs.step()


def test_one_cycle_by_its_ends():
    schedule = optim.one_cycle(1.0, 101, rise=0.5)
    assert schedule(0) == pytest.approx(0.04) and max(map(schedule, range(101))) <= 1
    assert schedule(100) == schedule(500) == pytest.approx(0.04 / 1e4) and not math.isnan(optim.one_cycle(1.0, 2)(0))
