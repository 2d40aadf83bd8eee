"""Test modules: names, state, modes, running statistics of batch norm, and each layer against its formula."""

import contextvars

import numpy as np
import pytest
from helpers import difference, needs_torch, normal, randomise, same_bits, torch

from minires import Tensor, init, kernels, models, nn, no_grad, ops
from minires.nn.blocks import conv_bias_relu


def rng(seed=0):
    return np.random.default_rng(seed)


class Small(nn.Module):
    def __init__(self):
        self.first = nn.Conv2d(3, 4, 3, 2, 1, rng=rng())
        self.stages = [nn.BatchNorm2d(4), nn.Sequential(nn.ReLU(), nn.GlobalAvgPool2d())]
        self.fc = nn.Linear(4, 5, rng=rng(1))
        self.note, self.count = "not a module", 3

    def forward(self, x):
        x = self.first(x)
        for m in self.stages:
            x = m(x)
        return self.fc(x)


# --------------------------------------------------------------------------------- the tree and its names


def test_names_are_those_of_the_attributes_in_order():
    model = Small()
    assert list(model.state()) == [
        "first.weight", "stages.0.weight", "stages.0.bias", "stages.0.running_mean", "stages.0.running_var",
        "fc.weight", "fc.bias"]
    assert [n for n, _ in model.modules()] == ["", "first", "stages.0", "stages.1", "stages.1.0", "stages.1.1", "fc"]
    assert dict(model.modules())["stages.1.1"] is list(dict(model.stages[1].children()).values())[1]


def test_a_parameter_is_what_requires_a_gradient():
    model = Small()
    assert len(model.parameters()) == 5 and model.count_parameters() == 4 * 3 * 9 + 4 + 4 + 4 * 5 + 5
    model.fc.weight.requires_grad = False
    assert [t.shape for t in model.parameters()] == [(4, 3, 3, 3), (4,), (4,), (5,)]


def test_a_shared_parameter_is_trained_once():
    model = nn.Sequential(nn.Linear(3, 3, rng=rng()), nn.Linear(3, 3, rng=rng()))
    a, b = (m for _, m in model.children())
    b.weight = a.weight
    assert len(model.state()) == 4 and len(model.parameters()) == 3
    x = normal(2, 3, dtype=np.float32)
    ops.sum(model(Tensor(x))).backward()
    g = np.ones((2, 3), np.float32)  # d(x w^T w^T)/dw is the sum over both uses
    w = a.weight.data
    np.testing.assert_allclose(a.weight.grad, (g @ w).T @ x + g.T @ (x @ w.T), rtol=1e-5)


def test_train_and_eval_reach_every_module():
    model = Small()
    assert model.eval() is model and not any(m.training for _, m in model.modules())
    assert model.train() is model and all(m.training for _, m in model.modules())


def test_repr_shows_the_tree():
    text = repr(Small())
    assert text.splitlines()[0] == "Small(" and "  first: Conv2d(3 -> 4, 3x3, stride (2, 2), padding (1, 1))" in text
    assert "  stages.0: BatchNorm2d(4)" in text and "    0: ReLU()" in text and "  fc: Linear(4 -> 5)" in text


def test_a_module_without_forward_says_so():
    class Half(nn.Module):
        pass

    with pytest.raises(NotImplementedError, match=r"Half has no forward\(\)"):
        Half()(Tensor([1.0]))


# --------------------------------------------------------------------------------------------- state


def test_load_state_copies_and_keeps_dtype():
    model = Small()
    arrays = {n: normal(*t.shape, seed=3) for n, t in model.state().items()}
    model.load_state(arrays)
    for name, t in model.state().items():
        assert t.dtype == np.float32 and same_bits(t.data, arrays[name].astype(np.float32))
    arrays32 = {n: a.astype(np.float32) for n, a in arrays.items()}
    model.load_state(arrays32)
    arrays32["fc.bias"] += 1
    assert not np.shares_memory(model.fc.bias.data, arrays32["fc.bias"])
    assert same_bits(model.fc.bias.data, arrays["fc.bias"].astype(np.float32))


@pytest.mark.parametrize("change, message", [
    (lambda s: s.pop("fc.bias"), r"load_state: 1 of 7 entries do not fit: missing fc\.bias$"),
    (lambda s: s.update(extra=np.ones(1)), "unexpected extra"),
    (lambda s: s.update({"fc.weight": np.ones((4, 5))}), r"fc\.weight: expected shape \(5, 4\), got \(4, 5\)")])
def test_load_state_changes_nothing_unless_all_fits(change, message):
    model = Small()
    arrays = {n: t.data + 1 for n, t in model.state().items()}
    before = {n: t.data for n, t in model.state().items()}
    change(arrays)
    with pytest.raises(ValueError, match=message):
        model.load_state(arrays)
    assert all(t.data is before[n] for n, t in model.state().items())


def test_astype_and_to():
    model = Small()
    model(Tensor(normal(2, 3, 8, 8, dtype=np.float32))).sum().backward()
    assert model.astype(np.float64) is model
    assert {t.dtype for t in model.state().values()} == {np.dtype(np.float64)}
    assert all(t.grad is None for t in model.state().values())
    assert model.to("cpu") is model and model(Tensor(normal(2, 3, 8, 8))).dtype == np.float64


# -------------------------------------------------------------------------------------------- layers


def test_how_weights_start():
    conv, linear = nn.Conv2d(3, 4, (3, 2), bias=True, rng=rng(5)), nn.Linear(6, 4, rng=rng(6))
    assert same_bits(conv.weight.data, init.he_normal((4, 3, 3, 2), rng=rng(5)))
    assert same_bits(linear.weight.data, init.fan_in_uniform((4, 6), rng=rng(6)))
    assert not conv.bias.data.any() and not linear.bias.data.any()
    assert nn.Conv2d(3, 4, 3, rng=rng()).bias is None and nn.Linear(3, 4, bias=False, rng=rng()).bias is None


def test_layers_compute_what_their_names_say():
    x = normal(2, 3, 6, 8)
    conv = nn.Conv2d(3, 4, (3, 2), (2, 1), (1, 0), bias=True, rng=rng()).astype(np.float64)
    conv.bias.data = np.array([1.0, 2, 3, 4])
    without = ops.conv2d(Tensor(x), conv.weight, None, (2, 1), (1, 0)).data
    assert (conv(Tensor(x)).data == without + conv.bias.data.reshape(1, 4, 1, 1)).all()
    assert (nn.ReLU()(Tensor(x)).data == np.maximum(x, 0)).all()
    assert nn.Identity()(x) is x
    assert (nn.MaxPool2d(2)(Tensor(x)).data == x.reshape(2, 3, 3, 2, 4, 2).max((3, 5))).all()
    means = x.reshape(2, 3, 3, 2, 2, 4).mean((3, 5))
    np.testing.assert_allclose(nn.AvgPool2d((2, 4))(Tensor(x)).data, means, rtol=1e-12)
    assert nn.MaxPool2d(3, 2, 1)(Tensor(x)).shape == (2, 3, 3, 4)
    np.testing.assert_allclose(nn.GlobalAvgPool2d()(Tensor(x)).data, x.mean((2, 3)), rtol=1e-13)
    assert (nn.Flatten()(Tensor(x)).data == x.reshape(2, 144)).all()
    linear = nn.Linear(6, 5, rng=rng()).astype(np.float64)
    linear.bias.data = np.arange(5.0)
    v = normal(3, 6)
    np.testing.assert_allclose(linear(Tensor(v)).data, v @ linear.weight.data.T + np.arange(5.0), rtol=1e-13)


def test_dropout_draws_anew_in_train_mode_and_rests_in_eval_mode():
    layer, x = nn.Dropout(0.5, rng=rng()), Tensor(np.ones((40, 50), np.float32))
    first, second = layer(x).data, layer(x).data
    assert set(np.unique(first)) == {0, 2} and (first != second).any()
    assert layer.eval()(x) is x


def test_sequential_applies_in_order_and_numbers_its_children():
    double = type("Double", (nn.Module,), {"forward": lambda self, x: x * 2})
    plus_one = type("PlusOne", (nn.Module,), {"forward": lambda self, x: x + 1})
    many = nn.Sequential(*(double() if i % 2 else plus_one() for i in range(12)))
    assert [n for n, _ in many.children()] == [str(i) for i in range(12)]
    value = 1.0
    for i in range(12):
        value = value * 2 if i % 2 else value + 1
    assert many(Tensor([1.0])).item() == value


def test_sequential_is_a_sequence():
    parts = [nn.Linear(3, 3, rng=rng(i)) for i in range(3)]
    net = nn.Sequential(*parts)
    assert len(net) == 3 and [*net] == parts and net[1] is parts[1] and net[-1] is parts[2]
    for i in 3, -4:
        with pytest.raises(IndexError):
            net[i]
    with pytest.raises(TypeError, match="slice"):
        net[1:]
    assert len(nn.Sequential()) == 0 and same_bits(nn.Sequential()(Tensor(normal(2, 3))).data, normal(2, 3))


def test_sequential_runs_what_holds_a_number_and_nothing_else():
    x, net = Tensor(normal(2, 3)), nn.Sequential(nn.ReLU(), nn.Identity())
    net.spare = nn.Linear(3, 4, rng=rng())
    assert same_bits(net(x).data, np.maximum(x.data, 0)) and "spare.weight" in net.state()
    setattr(net, "2", nn.Linear(3, 5, rng=rng()).astype(np.float64))
    assert net(x).shape == (2, 5) and len(net) == 3
    setattr(net, "0", nn.Identity())
    assert same_bits(net(x).data, net[2](x).data)


@pytest.mark.parametrize("wrong", [ops.relu, nn.ReLU, None, [nn.ReLU()]])
def test_sequential_refuses_what_is_no_module(wrong):
    """An earlier version silently left such an attribute out."""
    said = f"Sequential: expected a Module as number 1 of 3, got {type(wrong).__name__}"
    with pytest.raises(TypeError, match=said):
        nn.Sequential(nn.ReLU(), wrong, nn.ReLU())
    net = nn.Sequential(nn.ReLU(), nn.ReLU(), nn.ReLU())
    setattr(net, "1", wrong)
    with pytest.raises(TypeError, match=said):
        net(Tensor(normal(2, 3)))


def test_sequential_refuses_a_gap():
    net = nn.Sequential(nn.ReLU(), nn.ReLU(), nn.ReLU())
    delattr(net, "1")
    with pytest.raises(TypeError, match=r"as number 1 of 2, got NoneType; put nn.Identity\(\) into an empty place"):
        net(Tensor(normal(2, 3)))


# --------------------------------------------------------------------------- batch norm's running statistics


def test_running_statistics_by_hand():
    bn = nn.BatchNorm1d(1)
    bn(Tensor(np.array([[1.0], [3.0], [8.0]], np.float32)))  # mean 4, unbiased variance (9 + 1 + 16) / 2 = 13
    np.testing.assert_allclose(bn.running_mean.data, [0.1 * 4], rtol=1e-6)
    np.testing.assert_allclose(bn.running_var.data, [0.9 * 1 + 0.1 * 13], rtol=1e-6)
    y = bn.eval()(Tensor(np.array([[2.0]], np.float32)))
    np.testing.assert_allclose(y.data, [[(2 - 0.4) / np.sqrt(2.2 + 1e-5)]], rtol=1e-6)


@needs_torch
@pytest.mark.parametrize("cls, shapes", [("BatchNorm1d", [(7, 3), (5, 3), (6, 3)]),
                                         ("BatchNorm2d", [(4, 3, 5, 2), (2, 3, 4, 6), (3, 3, 1, 2)])])
@pytest.mark.parametrize("dtype, rtol", [(np.float64, 1e-12), (np.float32, 1e-5)], ids=["float64", "float32"])
@pytest.mark.parametrize("options", [{}, {"eps": 0.1, "momentum": 0.3}], ids=["default", "eps, momentum"])
def test_batch_norm_against_pytorch_in_train_eval_train(cls, shapes, dtype, rtol, options):
    ours = getattr(nn, cls)(3, **options).astype(dtype)
    theirs = getattr(torch.nn, cls)(3, **options).to(torch.float64 if dtype == np.float64 else torch.float32)
    gamma, beta = normal(3, seed=1, dtype=dtype), normal(3, seed=2, dtype=dtype)
    ours.weight.data, ours.bias.data = gamma, beta
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(gamma))
        theirs.bias.copy_(torch.tensor(beta))
    for shape, training in zip(shapes, [True, False, True], strict=True):
        x, g = 2 + 3 * normal(*shape, dtype=dtype), normal(*shape, seed=4, dtype=dtype)
        a, b = Tensor(x, True), torch.tensor(x, requires_grad=True)
        y, z = ours.train(training)(a), theirs.train(training)(b)
        ours.weight.grad = ours.bias.grad = theirs.weight.grad = theirs.bias.grad = None
        y.backward(g)
        z.backward(torch.tensor(g))
        for got, want in [(y.data, z.detach()), (a.grad, b.grad), (ours.weight.grad, theirs.weight.grad),
                          (ours.bias.grad, theirs.bias.grad), (ours.running_mean.data, theirs.running_mean),
                          (ours.running_var.data, theirs.running_var)]:
            assert got.dtype == dtype and difference(got, want.numpy()) < rtol


def test_eval_mode_uses_and_leaves_the_running_statistics():
    bn = nn.BatchNorm2d(2).eval()
    bn.running_mean.data, bn.running_var.data = np.float32([1, 2]), np.float32([4, 9])
    before = bn.running_mean.data, bn.running_var.data
    x = normal(3, 2, 4, 5, dtype=np.float32)
    expected = (x - np.float32([1, 2]).reshape(1, 2, 1, 1)) / np.sqrt(np.float32([4, 9]) + 1e-5).reshape(1, 2, 1, 1)
    assert difference(bn(Tensor(x)).data, expected) < 1e-6
    assert bn.running_mean.data is before[0] and bn.running_var.data is before[1]
    assert (bn(Tensor(x[:1])).data == bn(Tensor(x)).data[:1]).all()  # no image depends on another image


def test_running_statistics_are_replaced_not_overwritten():
    bn = nn.BatchNorm1d(3)
    mean, var = bn.running_mean.data, bn.running_var.data
    with no_grad():
        bn(Tensor(normal(5, 3, dtype=np.float32)))  # train mode moves the statistics, also without a graph
    assert not mean.any() and (var == 1).all() and bn.running_mean.data.all()


@pytest.mark.parametrize("cls, shape", [(nn.BatchNorm1d, (4, 3)), (nn.BatchNorm2d, (4, 3, 2, 2))])
@pytest.mark.parametrize("option", ["eps", "momentum"])
def test_a_numpy_eps_or_momentum_promotes_nothing(cls, shape, option):
    bn = cls(3, **{option: np.float64(0.25)})
    y = bn(Tensor(normal(*shape, dtype=np.float32)))
    assert y.dtype == bn.running_mean.dtype == bn.running_var.dtype == np.float32


@pytest.mark.parametrize("cls", [nn.Block, nn.PreactBlock])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("by_hand", [True, False])
def test_a_numpy_eps_inside_a_block_promotes_nothing(cls, training, by_hand):
    block = cls(4, 4, by_hand=by_hand, rng=rng()).train(training)
    block.bn1.eps = block.bn2.eps = block.bn1.momentum = np.float64(0.1)
    x = Tensor(normal(2, 4, 5, 6, dtype=np.float32))
    with no_grad():
        assert block(x).dtype == np.float32
    block(x).sum().backward()
    assert {t.dtype for t in block.state().values()} == {np.dtype(np.float32)}


# ------------------------------------------------------------------------------------------------ macs


def test_macs_by_hand():
    model = Small()  # convolution: 3 -> 4, 3x3, on 8x6 with stride 2: 4x3 outputs; linear 4 -> 5
    assert model.macs((3, 8, 6)) == 4 * 3 * 9 * (4 * 3) + 4 * 5
    assert nn.Conv2d(3, 5, (3, 2), (2, 1), rng=rng()).macs((3, 7, 5)) == 5 * 3 * 6 * (3 * 4)


def test_a_module_without_weights_has_no_macs():
    assert nn.ReLU().macs((3, 8, 6)) == 0


def test_macs_leaves_the_model_as_it_was():
    model = Small()
    model.stages[0].eval()
    before = {n: t.data for n, t in model.state().items()}
    modes = [m.training for _, m in model.modules()]
    model.macs((3, 8, 8))
    assert [m.training for _, m in model.modules()] == modes
    assert all(t.data is before[n] for n, t in model.state().items())
    with pytest.raises(ValueError, match="the input has 4 channels, the weight expects 3"):
        model.macs((4, 8, 8))
    assert [m.training for _, m in model.modules()] == modes


# ------------------------------------------------------------------------------------------- the blocks


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("cls", [nn.Block, nn.PreactBlock])
def test_the_names_in_a_block_are_torchvisions(cls, residual):
    block = cls(4, 8, 2, residual=residual, shortcut="B", rng=rng())
    names = [n for n, _ in block.modules()]
    layers = ["conv1", "bn1", "conv2", "bn2"] if cls is nn.Block else ["bn1", "conv1", "bn2", "conv2"]
    below = ["downsample", "downsample.0", "downsample.1"][:3 if cls is nn.Block else 2] if residual else []
    assert names == ["", *layers, *below]


def test_a_plain_block_has_no_shortcut():
    block = nn.Block(4, 4, residual=False, rng=rng()).astype(np.float64)
    x = normal(2, 4, 5, 6)
    block.bn2.weight.data = np.zeros(4)  # without a shortcut, a branch of zeros gives zeros
    assert not block(Tensor(x)).data.any() and block.last_norm is None
    same = nn.Block(4, 4, rng=rng()).astype(np.float64)
    same.bn2.weight.data = np.zeros(4)
    assert (same(Tensor(x)).data == np.maximum(x, 0)).all() and same.last_norm is same.bn2


def test_plain_and_residual_blocks_start_from_the_same_weights():
    a, b = (nn.Block(4, 8, 2, residual=r, rng=rng(3)) for r in (True, False))
    assert all(same_bits(t.data, b.state()[n].data) for n, t in a.state().items())


def test_a_block_without_batch_norm():
    block = nn.Block(3, 6, 2, batch_norm=False, shortcut="B", rng=rng()).astype(np.float64)
    assert sorted(block.state()) == ["conv1.bias", "conv1.weight", "conv2.bias", "conv2.weight", "downsample.0.bias",
                                     "downsample.0.weight"]
    x = Tensor(normal(2, 3, 4, 6))
    h = ops.relu(ops.conv2d(x, block.conv1.weight, None, 2, 1))
    h = ops.conv2d(h, block.conv2.weight, None, 1, 1)
    skip = ops.conv2d(x, block.state()["downsample.0.weight"], None, 2)
    h = h + skip
    assert (block(x).data == np.maximum(h.data, 0)).all()


def test_a_fixup_block_is_its_formula():
    block = nn.FixupBlock(3, 6, 2, pad="end", rng=rng()).astype(np.float64)
    for i, name in enumerate(["bias1a", "bias1b", "bias2a", "bias2b", "scale"]):
        getattr(block, name).data = np.array([0.3 * (i + 1)])
    x = normal(2, 3, 4, 6)
    h = np.maximum(ops.conv2d(Tensor(x + 0.3), block.conv1.weight, None, 2, 1).data + 0.6, 0)
    h = ops.conv2d(Tensor(h + 0.9), block.conv2.weight, None, 1, 1).data * 1.5 + 1.2
    h[:, :3] += x[:, :, ::2, ::2]
    np.testing.assert_allclose(block(Tensor(x)).data, np.maximum(h, 0), rtol=1e-12)


# ------------------------------------------------------------------------------------------- watchers


def test_a_watching_context_may_end_before_another_and_in_another_context():
    """As one does that nobody closed, when the garbage collector finds it."""
    net, seen = nn.Sequential(nn.ReLU()), []
    x = Tensor(np.ones((1, 2), np.float32))
    left = nn.watched(lambda m, inputs, out: seen.append("left"))
    left.__enter__()
    with nn.watched(lambda m, inputs, out: seen.append("other")):
        contextvars.copy_context().run(left.__exit__, None, None, None)
        net(x)
        assert seen == ["left", "other"] * 2  # it ended there, and not here
        again = nn.watched(lambda m, inputs, out: seen.append("again"))
        again.__enter__()
        again.__exit__(None, None, None)
    nn.hooks.watchers.set(())
    net(x)
    assert len(seen) == 4 and not nn.hooks.being_watched()


def test_watched_sees_every_module_after_it_ran_and_ends():
    model, seen = Small(), []
    names = {id(m): n for n, m in model.modules()}
    x = Tensor(normal(2, 3, 8, 8, dtype=np.float32))
    with nn.watched(lambda m, inputs, out: seen.append((names[id(m)], inputs[0].shape, out.shape))):
        model(x)
    assert seen == [("first", (2, 3, 8, 8), (2, 4, 4, 4)), ("stages.0", (2, 4, 4, 4), (2, 4, 4, 4)),
                    ("stages.1.0", (2, 4, 4, 4), (2, 4, 4, 4)), ("stages.1.1", (2, 4, 4, 4), (2, 4)),
                    ("stages.1", (2, 4, 4, 4), (2, 4)), ("fc", (2, 4), (2, 5)), ("", (2, 3, 8, 8), (2, 5))]
    model(x)
    assert len(seen) == 7


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_subclass_put_into_a_block_runs_in_every_mode(by_hand):
    calls = []

    class Mine(nn.BatchNorm2d):
        def forward(self, x):
            calls.append("bn")
            return super().forward(x)

    class Conv(nn.Conv2d):
        def forward(self, x):
            calls.append("conv")
            return super().forward(x)

    block = nn.Block(3, 3, by_hand=by_hand, rng=np.random.default_rng(0))
    block.bn1, block.conv2 = Mine(3), Conv(3, 3, 3, 1, 1, rng=np.random.default_rng(0))
    x = Tensor(np.ones((2, 3, 4, 4), np.float32))
    block(x)
    assert calls == ["bn", "conv"]
    with no_grad():
        block.eval()(x)
    assert calls == ["bn", "conv"] * 2


def test_a_frozen_batch_norm_stays_frozen_by_hand():
    x = np.random.default_rng(1).standard_normal((2, 3, 4, 4)).astype(np.float32)
    left = []
    for by_hand in (False, True):
        block = nn.Block(3, 3, by_hand=by_hand, rng=np.random.default_rng(0))
        block.bn1.eval()
        left.append((block(Tensor(x)).data, block.bn1.running_mean.data))
    assert np.array_equal(left[0][0], left[1][0])
    assert not left[0][1].any() and not left[1][1].any()


@pytest.mark.parametrize("which", ["native", "blocked", "reference"])
@pytest.mark.parametrize("with_skip", [False, True])
def test_convolution_bias_skip_and_relu_in_one_pass_is_the_separate_operations(which, with_skip):
    if which == "native" and not kernels.native.ready():
        pytest.skip(kernels.native.reason())
    x, w, b, s = (Tensor(normal(*shape, dtype=np.float32))
                  for shape in ((3, 4, 7, 6), (5, 4, 3, 3), (5,), (3, 5, 4, 3)))
    skip = s if with_skip else None
    h = ops.conv2d(x, w, b, 2, 1)
    expected = ops.relu(h + s if with_skip else h).data
    with kernels.using(which), no_grad():
        got = conv_bias_relu(x, w, b, skip, 2, 1)
        assert got.creator is None
        np.testing.assert_allclose(got.data, expected, atol=1e-5)
        for wrong in ([x, Tensor(w.data[:, :3]), b, skip], [x, w, Tensor(b.data[:4]), skip],
                      [Tensor(x.data[:0]), w, b, skip], *([[x, w, b, x]] if with_skip else [])):
            with pytest.raises(ValueError, match=r"(Conv2d|Add)\("):
                conv_bias_relu(*wrong, 2, 1)
        with pytest.raises(TypeError, match="Conv2d: all inputs must have one dtype"):
            conv_bias_relu(x, w.astype(np.float64), b, skip, 2, 1)
    x.requires_grad = True
    conv_bias_relu(x, w, b, skip, 2, 1).sum().backward()
    assert x.grad is not None


# ------------------------------------------------------------------------- dilation, groups, biases, activations


def test_a_convolution_with_dilation_and_groups():
    conv = nn.Conv2d(6, 4, (3, 2), 2, 1, True, dilation=(1, 2), groups=2, rng=np.random.default_rng(0))
    assert conv.weight.shape == (4, 3, 3, 2) and not conv.is_dense
    assert conv.describe() == "6 -> 4, 3x2, stride (2, 2), padding (1, 1), dilation (1, 2), groups 2"
    x = Tensor(normal(2, 6, 7, 8, dtype=np.float32))
    expected = ops.conv2d(x, conv.weight, conv.bias, 2, 1, (1, 2), 2)
    assert same_bits(conv(x).data, expected.data)
    assert conv.macs((6, 7, 8)) == 4 * 3 * 3 * 2 * expected.shape[2] * expected.shape[3]


def test_eval_mode_folds_batch_norm_into_grouped_and_biased_convolutions():
    net = nn.Bottleneck(8, 8, shortcut="B", stride=2, groups=2, rng=np.random.default_rng(0))
    for conv, _ in net.branch():
        conv.bias = Tensor(np.zeros(conv.weight.shape[0], np.float32), True)
    randomise(net)
    net.eval()
    x = Tensor(normal(2, 8, 6, 5, dtype=np.float32))
    with no_grad():
        folded = net(x).data
    assert difference(folded, net(x).data) < 1e-5


@pytest.mark.parametrize("name, options", [("resnet20", {}), ("preact_resnet20", {}), ("resnet20", {"norm": "fixup"}),
                                           ("resnet50", {"num_classes": 3})])
def test_biases_beside_batch_norm(name, options):
    with_bias, without = (models.build(name, width=4, bias=b, **options) for b in (True, False))
    added = set(with_bias.state()) - set(without.state())
    convs = [n for n, m in with_bias.modules() if isinstance(m, nn.Conv2d)]
    assert {f"{n}.bias" for n in convs} - set(without.state()) == added
    assert not any(with_bias.state()[n].data.any() for n in added)
    assert all(same_bits(t.data, with_bias.state()[n].data) for n, t in without.state().items())  # the same draws


def test_activations_as_modules():
    x = Tensor(normal(2, 3))
    assert same_bits(nn.LeakyReLU(0.3)(x).data, ops.leaky_relu(x, 0.3).data) and nn.LeakyReLU().describe() == "0.01"
    assert same_bits(nn.GELU("tanh")(x).data, ops.gelu(x, "tanh").data) and nn.GELU("tanh").describe() == "tanh"
    assert same_bits(nn.GELU()(x).data, ops.gelu(x).data) and nn.GELU().describe() == ""


def test_a_linear_layer_of_three_axes_counts_every_vector():
    class Rows(nn.Module):
        def __init__(self):
            self.fc = nn.Linear(5, 3, rng=np.random.default_rng(0))

        def forward(self, x):
            return self.fc(x)

    assert Rows().macs((2, 4, 5)) == 2 * 4 * 5 * 3


def test_pools_with_their_options():
    x = Tensor(normal(2, 3, 7, 8))
    pool = nn.MaxPool2d(2, 1, 0, True, 2)
    assert same_bits(pool(x).data, ops.max_pool2d(x, 2, 1, 0, True, 2).data) and "ceil, dilation 2" in pool.describe()
    pool = nn.AvgPool2d(3, 2, 1, True, False)
    assert same_bits(pool(x).data, ops.avg_pool2d(x, 3, 2, 1, True, False).data)
    assert pool.describe() == "3, stride 2, padding 1, ceil, padding not counted"
    assert nn.AdaptiveAvgPool2d((2, 5))(x).shape == (2, 3, 2, 5)


def test_batch_norm_is_not_folded_in_float16():
    """A weight times gamma / sqrt(var + eps) may be too large for float16, where the separate operations are not."""
    net = models.cifar(8, width=4, rng=np.random.default_rng(0))
    for t in net.conv1.weight, net.bn1.running_var:
        t.data = t.data * 0 + (300 if t is net.conv1.weight else 0)
    x = Tensor(normal(2, 3, 8, 8, dtype=np.float32).astype(np.float16) * np.float16(1e-3))
    net = net.astype(np.float16).eval()
    with_graph = net(x).data
    with no_grad():
        assert np.isfinite(with_graph).all() and same_bits(net(x).data, with_graph)


@pytest.mark.parametrize("array", [np.array([["1", "2"]]), np.array([[1 + 2j, 3]]), np.array([[None, 1]])], ids=repr)
def test_load_state_takes_real_numbers_only(array):
    net = nn.Linear(2, 1, rng=np.random.default_rng(0))
    before = net.weight.data.copy()
    with pytest.raises(ValueError, match="load_state: weight: expected an array of real numbers, got"):
        net.load_state({"weight": array, "bias": np.zeros(1)})
    assert same_bits(net.weight.data, before)


def test_a_convolution_takes_a_numpy_integer_as_groups():
    conv = nn.Conv2d(4, 4, 3, groups=np.int64(2), rng=np.random.default_rng(0))
    assert "groups 2" in repr(conv) and type(conv.groups) is int
