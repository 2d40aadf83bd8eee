"""Test that the composed residual block, with autograd, and the hand-written block agree bit for bit."""

from itertools import product

import numpy as np
import pytest
from helpers import difference, needs_torch, normal, read_only, same_bits, torch
from short import every

from minires import Tensor, gradcheck, kernels, models, nn, no_grad, ops, tap
from minires.optim import SGD
from minires.residual import PreactResidual, Residual

# {name: (class, in, out, options)}: identity, option A with both paddings, B, C, and stride 2 with equal channels.
KINDS = {
    "v1 identity": (nn.Block, 4, 4, {}),
    "v1 A both": (nn.Block, 3, 6, {"shortcut": "A", "pad": "both"}),
    "v1 A end": (nn.Block, 3, 6, {"shortcut": "A", "pad": "end"}),
    "v1 A odd": (nn.Block, 2, 5, {"shortcut": "A", "pad": "both"}),
    "v1 B": (nn.Block, 3, 6, {"shortcut": "B"}),
    "v1 C": (nn.Block, 4, 4, {"shortcut": "C"}),
    "v2 identity": (nn.PreactBlock, 4, 4, {}),
    "v2 A both": (nn.PreactBlock, 3, 6, {"shortcut": "A", "pad": "both"}),
    "v2 A end": (nn.PreactBlock, 3, 6, {"shortcut": "A", "pad": "end"}),
    "v2 B": (nn.PreactBlock, 3, 6, {"shortcut": "B"}),
    "v2 C": (nn.PreactBlock, 4, 4, {"shortcut": "C"}),
    "v2 identity, split after relu": (nn.PreactBlock, 4, 4, {"split_after_activation": True}),
    "v2 A, split after relu": (nn.PreactBlock, 3, 6, {"split_after_activation": True}),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
both_strides = pytest.mark.parametrize("stride", [1, 2])


def build(kind, stride, by_hand, seed=0, dtype=np.float64):
    """Build a block with random gammas, betas and running statistics, because initial values would hide mistakes."""
    cls, i, o, options = KINDS[kind]
    block = cls(i, o, stride, by_hand=by_hand, rng=np.random.default_rng(seed), **options).astype(dtype)
    rng = np.random.default_rng(seed + 1)
    for name, t in block.state().items():
        if t.ndim == 1:
            v = rng.standard_normal(t.shape)
            t.data = (v ** 2 + 0.5 if "var" in name else v).astype(dtype)
    return block


@pytest.fixture(autouse=True)
def _reference_kernels():
    """Use the reference kernels, because only with them the two blocks agree bit for bit."""
    with kernels.using("reference"):
        yield


def run(block, x, g, wants_x=True):
    """Run one forward and backward, and return all their results."""
    x = Tensor(read_only(x.copy()), wants_x)
    y = block(x)
    y.backward(read_only(g.copy()))
    left = {"y": y.data, "dx": x.grad}
    for name, t in block.state().items():
        left[f"d {name}" if t.requires_grad else name] = t.grad if t.requires_grad else t.data
    return left


def arrays(kind, stride, seed=0, dtype=np.float64):
    _, i, o, _ = KINDS[kind]
    return (normal(3, i, 7, 6, seed=seed, dtype=dtype),
            normal(3, o, -(-7 // stride), -(-6 // stride), seed=seed + 50, dtype=dtype))


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert [name for name in a if not (a[name] is b[name] is None or same_bits(a[name], b[name]))] == []


# ------------------------------------------------------------------------------------------ bit for bit


@pytest.mark.parametrize("kind, stride, dtype", every(3, product(KINDS, [1, 2], [np.float32, np.float64])))
def test_by_hand_equals_composed_bit_for_bit(kind, stride, dtype):
    for seed in range(10):
        x, g = arrays(kind, stride, seed, dtype)
        ours = run(build(kind, stride, True, seed, dtype), x, g)
        assert all(v.dtype == dtype for v in ours.values())
        assert_same(ours, run(build(kind, stride, False, seed, dtype), x, g))


@every_kind
@both_strides
def test_by_hand_equals_composed_with_the_fast_kernels(kind, stride):
    x, g = arrays(kind, stride, dtype=np.float32)
    with kernels.using("auto"):
        ours, composed = (run(build(kind, stride, h, dtype=np.float32), x, g) for h in (True, False))
    exact = run(build(kind, stride, False), x.astype(np.float64), g.astype(np.float64))
    assert ours.keys() == composed.keys() == exact.keys()
    for name in exact:
        assert difference(ours[name], composed[name]) < 1e-5 and difference(ours[name], exact[name]) < 1e-4, name


@every_kind
def test_the_function_is_really_used(kind):
    for by_hand in (True, False):
        block = build(kind, 1, by_hand)
        y = block(Tensor(arrays(kind, 1)[0]))
        assert isinstance(y.creator, (Residual, PreactResidual)) == by_hand


@every_kind
def test_names_are_the_same_either_way(kind):
    a, b = build(kind, 2, True), build(kind, 2, False)
    assert list(a.state()) == list(b.state()) and a.count_parameters() == b.count_parameters()
    a.load_state({name: 2 * t.data for name, t in b.state().items()})
    assert all(same_bits(t.data, 2 * b.state()[name].data) for name, t in a.state().items())


@every_kind
@both_strides
def test_an_input_that_wants_no_gradient(kind, stride):
    x, g = arrays(kind, stride)
    ours = run(build(kind, stride, True), x, g, wants_x=False)
    assert ours["dx"] is None
    assert_same(ours, run(build(kind, stride, False), x, g, wants_x=False))


@every_kind
def test_frozen_parameters_get_no_gradient(kind):
    x, g = arrays(kind, 2)
    blocks = build(kind, 2, True), build(kind, 2, False)
    for block in blocks:
        block.conv1.weight.requires_grad = block.bn2.bias.requires_grad = False
    ours, composed = (run(block, x, g) for block in blocks)
    assert "d conv1.weight" not in ours
    assert_same(ours, composed)


@every_kind
def test_eval_mode_and_train_eval_train(kind):
    blocks = build(kind, 2, True), build(kind, 2, False)
    x, g = arrays(kind, 2)
    for mode in (True, False, True):
        ours, composed = (run(block.train(mode), x[:2 + mode], g[:2 + mode]) for block in blocks)
        assert_same(ours, composed)
    before = {n: t.data for n, t in blocks[0].state().items()}
    blocks[0].eval()(Tensor(x))
    assert all(t.data is before[n] for n, t in blocks[0].state().items())


@pytest.mark.parametrize("kind, stride, dtype, which", every(5, product(
    KINDS, [1, 2], [np.float32, np.float64], ["auto", "reference"])))
def test_eval_mode_without_gradients_folds_to_the_same(kind, stride, dtype, which):
    rtol = 1e-13 if dtype is np.float64 else 1e-5
    x = Tensor(arrays(kind, stride, dtype=dtype)[0])
    for by_hand in (True, False):
        block = build(kind, stride, by_hand, dtype=dtype).eval()
        with kernels.using(which):
            recorded = block(x).data
            with no_grad():
                assert difference(block(x).data, recorded) < rtol


@every_kind
def test_no_grad_gives_the_same_output_and_statistics(kind):
    x, _ = arrays(kind, 2)
    outputs = []
    for by_hand in (True, False):
        block = build(kind, 2, by_hand)
        with no_grad():
            y = block(Tensor(x))
        assert y.creator is None
        outputs.append({"y": y.data, **{n: t.data for n, t in block.state().items()}})
    assert_same(*outputs)


@every_kind
def test_taps_see_inside_and_change_nothing(kind):
    x, g = arrays(kind, 2)
    block = build(kind, 2, True)
    with tap.Tap(block) as t:
        tapped = run(block, x, g)
    assert {"conv1", "bn1", "conv2", "bn2", ""} <= t.std.keys() == t.grad_norm.keys()
    assert_same(tapped, run(build(kind, 2, True), x, g))


@pytest.mark.parametrize("kind", [k for k, (_, i, o, _) in KINDS.items() if i == o])
def test_two_stacked_blocks(kind):
    x, g = arrays(kind, 1)
    ours, composed = (run(nn.Sequential(build(kind, 1, h, 1), build(kind, 1, h, 2)), x, g) for h in (True, False))
    assert_same(ours, composed)


@pytest.mark.parametrize("block, shortcut, pad", [
    ("basic", "A", "both"), ("basic", "A", "end"), ("basic", "B", "both"), ("basic", "C", "both"),
    ("preact", "A", "both"), ("preact", "B", "end")])
def test_three_steps_of_a_whole_network_give_the_same_bits(block, shortcut, pad):
    images, labels = normal(6, 3, 8, 8, dtype=np.float32), np.array([0, 1, 2, 3, 4, 5])
    left = []
    for by_hand in (True, False):
        net = models.resnet20(width=4, block=block, shortcut=shortcut, pad=pad, by_hand=by_hand,
                              rng=np.random.default_rng(5))
        optimizer = SGD(net.parameters(), 0.1, 0.9, 1e-4)
        for step in range(3):
            optimizer.zero_grad()
            loss = ops.cross_entropy(net(Tensor(images + step)), labels)
            loss.backward()
            optimizer.step()
        left.append({"loss": loss.data, **{n: t.data for n, t in net.state().items()},
                     **{f"d {n}": t.grad for n, t in net.state().items()}})
    assert_same(*left)


# These functions change a hand-written block in ways that residual.py does not compute.
def biased(conv):
    conv.bias = Tensor(np.arange(1.0, 1 + len(conv.weight)), True)


def padded(block):
    block.conv1.padding, block.conv2.padding = (0, 0), (2, 2)


def strides_exchanged(block):
    block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride


def projection_changed(block):
    if block.downsample is not None:
        setattr(block.downsample, "0", nn.Sequential(block.downsample[0], nn.ReLU()))


def projection_longer(block):
    if block.downsample is not None:
        setattr(block.downsample, str(len(block.downsample)), nn.ReLU())


CHANGES = {
    "a bias in conv1": lambda b: biased(b.conv1), "a bias in conv2": lambda b: biased(b.conv2), "padding": padded,
    "strides exchanged": strides_exchanged, "another projection": projection_changed,
    "a longer projection": projection_longer, "residual=False": lambda b: setattr(b, "residual", False),
    "another shortcut": lambda b: setattr(b, "shortcut", lambda x: type(b).shortcut(b, x) * 2),
    "bn1's forward": lambda b: setattr(b.bn1, "forward", lambda x: x * 2),
    "conv2's forward": lambda b: setattr(b.conv2, "forward", lambda x: nn.Conv2d.forward(b.conv2, x) * 2),
}


@pytest.mark.parametrize("kind, change", every(3, product(KINDS, CHANGES)))
def test_a_block_that_somebody_changed_computes_what_it_says(kind, change):
    stride = 1 if change == "padding" else 2  # at stride 2 the branch's output would have another size
    x, g = arrays(kind, stride)
    blocks = build(kind, stride, True), build(kind, stride, False)
    for block in blocks:
        CHANGES[change](block)
    ours, composed = (run(block, x, g) for block in blocks)
    assert_same(ours, composed)


def test_a_subclass_with_another_shortcut_is_not_run_by_hand():
    class Doubled(nn.Block):
        def shortcut(self, x):
            return super().shortcut(x) * 2

    made = [Doubled(4, 4, by_hand=hand, rng=np.random.default_rng(0)).astype(np.float64) for hand in (True, False)]
    assert_same(*(run(block, *arrays("v1 identity", 1)) for block in made))


# -------------------------------------------------------------------------------- finite differences


@pytest.mark.parametrize("stride, kind", every(2, product([1, 2], KINDS)))  # every kind with one of the strides
def test_gradcheck(kind, stride):
    i = KINDS[kind][1]
    block = build(kind, stride, True)
    names = [n for n, t in block.state().items() if t.requires_grad]
    x = normal(2, i, 5, 4, seed=3)

    def f(x, *parameters):
        for name, t in zip(names, parameters, strict=True):
            module, _, attribute = name.rpartition(".")
            setattr(dict(block.modules())[module], attribute, t)
        y = block(x)
        assert isinstance(y.creator, (Residual, PreactResidual)) or not y.requires_grad
        return y

    gradcheck(f, x, *(t.data for n, t in block.state().items() if n in names), rtol=1e-5, entries=25)


# ------------------------------------------------------------------------------- the formula, written out


def branch_jacobian(block, x):
    """Return dF/dx of v1's branch, before the addition, with one column for each entry of x, by forward passes alone.

    The complex step subtracts nothing, so it is exact up to rounding. ReLU uses the real part.
    """
    def norm(bn, a):
        axes, column = (0, 2, 3), (1, -1, 1, 1)
        centred = a - a.mean(axes).reshape(column)
        inv = ((centred * centred).mean(axes) + bn.eps) ** -0.5
        return centred * (bn.weight.data * inv).reshape(column) + bn.bias.data.reshape(column)

    def conv(a, w):
        a = np.pad(a, ((0, 0), (0, 0), (1, 1), (1, 1)))
        return np.einsum("nchwij,ocij->nohw", np.lib.stride_tricks.sliding_window_view(a, (3, 3), (2, 3)), w)

    columns = []
    for step in np.eye(x.size) * 1e-30j:
        h = norm(block.bn1, conv(x + step.reshape(x.shape), block.conv1.weight.data))
        columns.append(norm(block.bn2, conv(h * (h.real > 0), block.conv2.weight.data)).imag.ravel() / 1e-30)
    return np.stack(columns, 1)


@pytest.mark.parametrize("by_hand", [True, False])
def test_dx_is_the_identity_and_the_branchs_jacobian_transposed(by_hand):
    """Test dL/dx = (I + J_F)^T dL/dz with dL/dz = dL/dy [z > 0], the derivative of He et al. 2015, Fig. 2."""
    block = build("v1 identity", 1, by_hand)
    x, g = normal(2, 4, 3, 5, seed=7), normal(2, 4, 3, 5, seed=57)
    left = run(block, x, g)
    dz = (g * (left["y"] > 0)).ravel()
    expected = (np.eye(x.size) + branch_jacobian(block, x)).T @ dz
    assert abs(left["dx"].ravel() - expected).max() < 1e-9
    assert abs(left["dx"].ravel() - dz).max() > 0.1  # the branch contributes too


# ------------------------------------------------------------------------------------------ exact limits


def silence_branch(block):
    for t in (block.bn2.weight, block.bn2.bias):
        t.data = np.zeros_like(t.data)


@pytest.mark.parametrize("by_hand", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_silent_branch_leaves_relu_of_the_identity(by_hand, dtype):
    block = build("v1 identity", 1, by_hand, dtype=dtype)
    silence_branch(block)
    x, g = arrays("v1 identity", 1, dtype=dtype)
    left = run(block, x, g)
    assert (left["y"] == np.maximum(x, 0)).all() and (left["dx"] == g * (x > 0)).all()
    assert not left["d conv1.weight"].any() and not left["d conv2.weight"].any()
    assert left["d bn2.weight"].any() and left["d bn2.bias"].any()  # these gradients let the branch grow again


@pytest.mark.parametrize("by_hand", [True, False])
@pytest.mark.parametrize("kind, before", [("v1 A both", 1), ("v1 A end", 0)])
def test_a_silent_branch_leaves_relu_of_option_a(by_hand, kind, before):
    block = build(kind, 2, by_hand)
    silence_branch(block)
    x, g = arrays(kind, 2)
    left = run(block, x, g)
    expected, back = np.zeros_like(g), np.zeros_like(x)
    expected[:, before:before + 3] = x[:, :, ::2, ::2]
    back[:, :, ::2, ::2] = (g * (expected > 0))[:, before:before + 3]
    assert (left["y"] == np.maximum(expected, 0)).all() and (left["dx"] == back).all()


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_silent_preactivation_branch_leaves_the_identity(by_hand):
    block = build("v2 identity", 1, by_hand)
    block.conv2.weight.data = np.zeros_like(block.conv2.weight.data)
    x, g = arrays("v2 identity", 1)
    left = run(block, x, g)
    assert (left["y"] == x).all() and (left["dx"] == g).all()


# ------------------------------------------------------------------------------------- against PyTorch


@needs_torch
@pytest.mark.parametrize("kind, stride, by_hand", every(3, product(KINDS, [1, 2], [True, False])))
def test_against_pytorch(kind, stride, by_hand):
    import twins

    block = build(kind, stride, by_hand)
    assert ("downsample.0.weight" in block.state()) == (kind[3] == "C" or kind[3] == "B")
    cls, i, o, options = KINDS[kind]
    options = dict(options)
    first = options.pop("split_after_activation", False)
    twin = twins.loaded(twins.Block("preact" if cls is nn.PreactBlock else "basic", i, o, stride, first, **options),
                        block)
    x, g = arrays(kind, stride)
    tx = torch.tensor(x, requires_grad=True)
    y = twin(tx)
    y.backward(torch.tensor(g))
    expected = {"y": y.detach(), "dx": tx.grad} | {f"d {n}": p.grad for n, p in twin.named_parameters()}
    expected |= {n: a for n, a in twin.named_buffers() if not n.endswith("num_batches_tracked")}
    left = run(block, x, g)
    assert left.keys() == expected.keys()
    for name, value in left.items():
        assert difference(value, expected[name].numpy()) < 1e-11, name


# --------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("make, message", [
    (lambda **k: nn.Block(4, 4, by_hand=True, batch_norm=False, **k), "by_hand=True supports only residual blocks"),
    (lambda **k: nn.Block(4, 4, by_hand=True, residual=False, **k), "by_hand=True supports only residual blocks"),
    (lambda **k: nn.PreactBlock(4, 4, by_hand=True, residual=False, **k), "by_hand=True supports only residual"),
    (lambda **k: nn.Block(4, 4, shortcut="D", **k), r'shortcut: expected "A", "B" or "C", got \'D\''),
    (lambda **k: nn.PreactBlock(4, 4, shortcut=None, **k), 'shortcut: expected "A", "B" or "C", got None')])
def test_blocks_that_cannot_be_built(make, message):
    with pytest.raises(ValueError, match=message):
        make(rng=np.random.default_rng(0))


@pytest.mark.parametrize("cls", [nn.Block, nn.PreactBlock])
@pytest.mark.parametrize("by_hand", [True, False])
def test_a_wrong_pad_is_refused_either_way(cls, by_hand):
    rng, x = np.random.default_rng(0), Tensor(normal(2, 3, 4, 4, dtype=np.float32))
    with pytest.raises(ValueError, match=r'pad: expected "both" or "end", got \'left\''):
        cls(3, 6, 2, pad="left", by_hand=by_hand, rng=rng)(x)


@pytest.mark.parametrize("cls", [nn.Block, nn.PreactBlock])
@pytest.mark.parametrize("by_hand", [True, False])
def test_option_a_cannot_drop_channels(cls, by_hand):
    with pytest.raises(ValueError, match=r"channels: expected at least the input's 6, got 3"):
        cls(6, 3, by_hand=by_hand, rng=np.random.default_rng(0))(Tensor(normal(2, 6, 4, 4, dtype=np.float32)))


@pytest.mark.parametrize("shape", [(2, 5, 4, 4), (2, 4, 4), (0, 4, 4, 4)])
@pytest.mark.parametrize("cls", [nn.Block, nn.PreactBlock])
@pytest.mark.parametrize("by_hand", [True, False])
def test_a_wrong_input_is_refused_either_way(shape, cls, by_hand):
    block = cls(4, 4, by_hand=by_hand, rng=np.random.default_rng(0))
    before = {name: t.data for name, t in block.state().items()}
    with pytest.raises(ValueError, match=r"^\w+.*(channels|expected.*\(N, |statistics of shape|4-dimensional|empty)"):
        block(Tensor(np.ones(shape, np.float32)))
    assert all(t.data is before[name] for name, t in block.state().items())


@pytest.mark.parametrize("by_hand", [True, False])
def test_one_value_per_channel_is_refused_either_way(by_hand):
    block = nn.Block(4, 4, by_hand=by_hand, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="expected more than one value per channel in train mode, got 1"):
        block(Tensor(np.ones((1, 4, 1, 1), np.float32)))
