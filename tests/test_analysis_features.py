"""Test CKA, refinement, receptive fields, patches, and the graph as data."""

import re

import numpy as np
import pytest
from helpers import difference, normal

from minires import Tensor, init, models, nn, ops
from minires.analysis import (
    cka,
    cka_matrix,
    deepen,
    exciting_patches,
    first_filters,
    graph,
    receptive_fields,
    refinement,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def cifar(depth=8, **options):
    return models.cifar(depth, in_channels=1, width=4, rng=rng(), **options).astype(np.float64).eval()


# ------------------------------------------------------------------------------------------------------- CKA


@pytest.mark.parametrize("debiased", [False, True], ids=["biased", "debiased"])
def test_cka_does_not_see_rotation_scale_or_shift(debiased):
    x, y = normal(30, 7), normal(30, 5, seed=1) + normal(30, 7) @ normal(7, 5)
    rotation, _ = np.linalg.qr(normal(7, 7))
    value = cka(x, y, debiased)
    assert 0.1 < value < 0.95
    assert cka(3 * x @ rotation + 4, -0.1 * y, debiased) == pytest.approx(value, rel=1e-10)
    assert cka(y, x, debiased) == pytest.approx(value, rel=1e-12) and cka(x, x, debiased) == pytest.approx(1)
    assert abs(cka(x @ np.diag([9, 1, 1, 1, 1, 1, 1]), y, debiased) - value) > 0.01  # another linear map


@pytest.mark.parametrize("n, value", [(7, 0.1), (8, 0.3), (10, 0.1), (11, 0.7)])
def test_a_constant_representation_has_no_cka_whatever_its_mean_is_rounded_to(n, value):
    constant = np.full((n, 3), value)
    assert all(np.isnan(cka(constant, other)) for other in (normal(n, 3), constant))


def test_cka_equals_its_form_in_features():
    """CKA is ||Y^T X||^2 / (||X^T X|| ||Y^T Y||): Kornblith et al. 2019, section 3, over features instead of images."""
    x, y = normal(12, 4), normal(12, 3, seed=1)
    a, b = x - x.mean(0), y - y.mean(0)
    expected = np.linalg.norm(b.T @ a) ** 2 / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))
    assert cka(x, y) == pytest.approx(expected, rel=1e-12)


def test_debiased_cka_of_unrelated_features_is_near_zero():
    pairs = [(normal(40, 400, seed=s), normal(40, 400, seed=100 + s)) for s in range(10)]
    assert np.mean([cka(x, y) for x, y in pairs]) > 0.8  # the plain form is large for many features and few images
    assert np.mean([cka(x, y, True) for x, y in pairs]) == pytest.approx(0, abs=0.03)


def test_cka_matrix():
    net, other, x = cifar(), cifar(14), normal(10, 1, 8, 8)
    names, same, values = cka_matrix(net, x)
    assert names == same and "fc" in names and difference(values, np.transpose(values)) < 1e-12
    assert np.diag(values) == pytest.approx(np.ones(len(names)))
    rows, columns, values = cka_matrix(net, x, other, kinds=(nn.Block,), debiased=True)
    assert (len(rows), len(columns)) == (3, 6) == (len(values), len(values[0]))
    outputs = []
    for model in (net, other):
        h = {}
        block = {id(m): n for n, m in model.modules()}
        with nn.watched(lambda m, inputs, out, h=h, block=block: h.update({block[id(m)]: out.data})):
            model(Tensor(x))
        outputs.append(h)
    assert values[1][4] == pytest.approx(cka(outputs[0]["layer2.0"], outputs[1]["layer3.0"], True), rel=1e-9)


def test_cka_refuses_what_it_cannot_compare():
    with pytest.raises(ValueError, match="representations of the same inputs, got 3 and 4"):
        cka(normal(3, 2), normal(4, 2))
    with pytest.raises(ValueError, match="expected four or more inputs, got 3"):
        cka(normal(3, 2), normal(3, 2), True)
    with pytest.raises(ValueError, match="no module of the kinds to compare"):
        cka_matrix(cifar(), normal(4, 1, 8, 8), kinds=(nn.MaxPool2d,))
    assert np.isnan(cka(np.ones((5, 2)), normal(5, 2)))


# ----------------------------------------------------------------------------------------------- refinement


def test_a_silent_block_refines_nothing():
    net = deepen(cifar(), 2, rng=rng())
    found = refinement(net, normal(6, 1, 8, 8))
    assert list(found) == ["layer1.0", "layer1.1", "layer1.2", "layer2.1", "layer2.2", "layer3.1", "layer3.2"]
    for name, r in found.items():
        if name != "layer1.0":
            assert (r.change, r.distance) == (0, 0) and r.cosine == pytest.approx(1)
    assert found["layer1.0"].change > 0.1 and found["layer1.0"].distance == 0


def test_refinement_is_numpys():
    net, x = cifar(14), normal(4, 1, 8, 8)
    ins, outs, names = {}, {}, {id(m): n for n, m in net.modules()}

    def see(m, inputs, out):
        ins[names[id(m)]], outs[names[id(m)]] = inputs[0].data.reshape(4, -1), out.data.reshape(4, -1)

    with nn.watched(see):
        net(Tensor(x))
    a, b, last = ins["layer1.0"], outs["layer1.0"], outs["layer1.1"]
    norm = lambda v: np.linalg.norm(v, axis=1)
    found = refinement(net, x)["layer1.0"]
    assert found.change == pytest.approx((norm(b - a) / norm(a)).mean())
    assert found.cosine == pytest.approx(((a * b).sum(1) / norm(a) / norm(b)).mean())
    assert found.distance == pytest.approx((norm(b - last) / norm(last)).mean())


# ----------------------------------------------------------------------------------------- receptive fields


@pytest.mark.parametrize("name, layer, size", [("resnet18", "layer4.1", 435), ("resnet50", "layer4.2", 427),
                                               ("googlenet", "inception3a", 43)])
def test_receptive_fields_of_the_networks_for_imagenet(name, layer, size):
    """ResNet-18 has 435, as in published tables, and ResNet-50 has v1's strides. GoogLeNet's first module has
    torchvision's 3x3 convolution instead of the 5x5: 7 + 2 * 2 + 2 * 4 + 2 * 4 + 2 * 8."""
    with init.undrawn():
        net = models.build(name, num_classes=2)
    fields = receptive_fields(net, np.zeros((1, 3, 64, 64), np.float32))
    assert fields[layer].size == (size, size)


def test_receptive_fields_of_a_resnet_20_by_the_textbook():
    """Each 3x3 convolution adds 2 x the product of the strides before it (for a stage's first, before the stage)."""
    net = models.resnet20(width=2, rng=rng())
    fields = receptive_fields(net, normal(1, 3, 32, 32, dtype=np.float32))
    sizes = {name: f.size for name, f in fields.items()}
    assert sizes["conv1"] == (3, 3)
    assert sizes["layer1.2"] == (3 + 6 * 2,) * 2
    assert sizes["layer2.2"] == (15 + 2 + 5 * 4,) * 2
    assert sizes["layer3.2"] == (37 + 4 + 5 * 8,) * 2
    assert fields["layer3.2"].jump == (4, 4) and "fc" not in fields
    assert receptive_fields(models.resnet56(width=2, rng=rng()), normal(1, 3, 32, 32, dtype=np.float32))[
        "layer1.8"].size == (39, 39)


class Odd(nn.Module):
    """A network whose extents all differ, with a pool, and with a branch that sees more than the other."""

    def __init__(self):
        self.conv = nn.Conv2d(1, 2, (3, 2), (2, 1), (1, 0), rng=rng())
        self.wide = nn.Conv2d(2, 2, (1, 5), 1, (0, 2), rng=rng(1))
        self.pool = nn.AvgPool2d((2, 3), (1, 2), (1, 0))

    def forward(self, x):
        h = self.conv(x)
        h = ops.pad(ops.relu(h + self.wide(h)), ((0, 0), (0, 0), (1, 0), (2, 1)))
        return self.pool(h)


MODELS = {"odd": (Odd, (13, 19)), "v1": (cifar, (16, 16)), "plain": (lambda: cifar(residual=False), (16, 16)),
          "option B": (lambda: cifar(shortcut="B"), (16, 16)),
          "v2": (lambda: cifar(block="preact"), (16, 16))}


@pytest.mark.parametrize("build, size", MODELS.values(), ids=MODELS)
def test_receptive_fields_are_where_gradients_arrive(build, size):
    """With positive weights every position in the computed field gets a gradient, and no position outside does."""
    net = build().astype(np.float64).eval()
    for t in net.state().values():
        t.data = abs(t.data) + 0.1
    x = abs(normal(1, 1, *size)) + 20  # so large that no norm's shift silences a ReLU
    fields = receptive_fields(net, x)
    assert len(fields) >= 3
    for name, f in fields.items():
        outputs = []
        module = dict(net.modules())[name]
        t = Tensor(x, True)
        with nn.watched(lambda m, inputs, out, o=outputs, wanted=module: o.append(out) if m is wanted else None):
            net(t)
        out = outputs[0]
        row, column = out.shape[2] // 2, out.shape[3] - 1
        g = np.zeros(out.shape)
        g[0, 0, row, column] = 1
        out.backward(g)
        seen = np.zeros(size, bool)
        corner = [i * j + low for i, j, low in zip((row, column), f.jump, f.low, strict=True)]
        seen[max(corner[0], 0) : corner[0] + f.size[0], max(corner[1], 0) : corner[1] + f.size[1]] = True
        assert (seen == (t.grad[0, 0] != 0)).all(), name


class Attending(nn.Module):
    """A branch that sees all positions, and a branch that doubles the height."""

    def __init__(self, wanted):
        self.conv, self.wanted = nn.Conv2d(1, 2, 3, 1, 1, rng=rng()), wanted

    def forward(self, x):
        h = self.conv(x)
        if self.wanted == "mean":
            return h * ops.sigmoid(h.mean((2, 3), keepdims=True))
        return ops.concatenate([h, h], 1 if self.wanted == "channels" else 2)


@pytest.mark.parametrize("wanted, has_field", [("mean", False), ("rows", False), ("channels", True)])
def test_what_sees_all_positions_has_no_receptive_field(wanted, has_field):
    fields = receptive_fields(Attending(wanted), normal(1, 1, 8, 8, dtype=np.float32))
    assert fields["conv"].size == (3, 3) and ("" in fields) == has_field


# -------------------------------------------------------------------------------------- filters and patches


def test_first_filters_are_scaled_for_the_eye():
    net = cifar()
    w = net.conv1.weight.data
    shown = first_filters(net)
    assert shown.shape == (4, 3, 3, 1) and shown.min() >= 0 and shown.max() <= 1
    for f, s in zip(w, shown, strict=True):
        assert s[..., 0] == pytest.approx(0.5 + 0.5 * f[0] / abs(f).max(), abs=1e-6)
    net.conv1.weight.data = w * 0
    assert (first_filters(net) == 0.5).all()
    with pytest.raises(ValueError, match="no convolution"):
        first_filters(nn.Linear(3, 2, rng=rng()))


def test_a_planted_pattern_is_found_at_its_place():
    pattern = normal(3, 3)
    net = nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1, rng=rng()), nn.ReLU()).astype(np.float64)
    net[0].weight.data[1, 0] = pattern
    x = 0.05 * normal(6, 1, 9, 11)
    x[4, 0, 3:6, 5:8] = pattern       # seen by output (2, 3): rows 2 * 2 - 1 ... + 2
    x[2, 0, :2, :2] = 0.5 * pattern[1:, 1:]  # at the corner, partly outside
    found = exciting_patches(net, x, "1", 1, top=2, batch_size=4)
    assert [(p.image, p.row, p.column) for p in found] == [(4, 3, 5), (2, -1, -1)]
    assert (found[0].pixels[..., 0] == pattern).all() and found[0].value == pytest.approx((pattern**2).sum())
    assert (found[1].pixels[0] == 0).all() and (found[1].pixels[1:, 1:, 0] == 0.5 * pattern[1:, 1:]).all()
    colours = rng().integers(0, 256, (6, 9, 11, 3), np.uint8)
    shown = exciting_patches(net, x, "1", 1, top=1, pixels=colours)
    assert (shown[0].pixels == colours[4, 3:6, 5:8]).all()
    large = colours.repeat(2, 1).repeat(2, 2)
    shown = exciting_patches(net, x, "1", 1, top=2, pixels=large)
    assert [(p.row, p.column) for p in shown] == [(6, 10), (-2, -2)]
    assert (shown[0].pixels == large[4, 6:12, 10:16]).all()


def test_a_field_larger_than_the_image_is_cut_to_it():
    """layer2.0 of this network sees 13 x 13 pixels: from any position all of a 7 x 7 image, but not of an 8 x 8 one."""
    for side, size in (8, (13, 13)), (7, (7, 7)):
        x = normal(3, 1, side, side)
        first, *_ = exciting_patches(cifar(), x, "layer2.0", 0, top=2)
        assert first.pixels.shape[:2] == size
    assert (first.row, first.column) == (0, 0) and (first.pixels[..., 0] == x[first.image, 0]).all()


def test_patches_say_what_is_wrong():
    net, x = cifar(), normal(3, 1, 8, 8)
    with pytest.raises(ValueError, match=r"'fc' has no receptive field; the layers that have one are conv1, bn1"):
        exciting_patches(net, x, "fc", 0)
    with pytest.raises(ValueError, match="expected top from 1 to 3, the number of images, got 9"):
        exciting_patches(net, x, "conv1", 0)
    with pytest.raises(ValueError, match=r"expected a channel in 0\.\.3, got 4"):
        exciting_patches(net, x, "conv1", 4, top=1)
    with pytest.raises(ValueError, match=r"pixels of 3 images of size 8x8 or .* of it, got shape \(3, 20, 16\)"):
        exciting_patches(net, x, "conv1", 0, top=1, pixels=np.zeros((3, 20, 16)))


# ------------------------------------------------------------------------------------------------- the graph


def test_the_graph_of_a_small_expression():
    a, b = Tensor([2.0], True), Tensor([3.0])
    result = (a * b + a).relu()
    g = graph(result, {"a": a, "b": b})
    assert [(n.name, n.operation, n.kind) for n in g.nodes] == [
        ("a", "", "parameter"), ("b", "", "constant"), ("", "Mul", "operation"), ("", "Add", "operation"),
        ("", "Relu", "operation")]
    assert [n.inputs for n in g.nodes] == [(), (), (0, 1), (2, 0), (3,)]
    assert g.nodes[0].lines() == ["a", "2"] and g.nodes[2].lines() == ["Mul", "6"]


def test_gradients_appear_after_backward():
    w, x = Tensor(normal(3, 2), True), Tensor(normal(4, 2))
    h = ops.matmul(x, w.T)
    loss = (h * h).sum()
    g = graph(loss, {"w": w, "h": h, "x": x}, retain=True)
    assert all(len(n.lines()) == 2 for n in g.nodes)
    loss.backward()
    lines = {n.name or n.operation: n.lines() for n in g.nodes}
    assert lines["w"] == ["w", "3 × 2", f"|grad| {np.linalg.norm(w.grad):.3g}"]
    assert lines["h"] == ["h = MatMul", "4 × 3", f"|grad| {np.linalg.norm(2 * h.data):.3g}"]
    assert lines["Sum"][2] == "grad 1" and lines["x"] == ["x", "4 × 2"]
    with pytest.raises(RuntimeError, match=r"call graph\(\) before backward\(\), and draw its result afterwards"):
        graph(loss)


def test_a_models_names_are_taken_and_dot_is_well_formed():
    net = cifar(residual=False)
    g = graph(ops.cross_entropy(net(Tensor(normal(2, 1, 8, 8))), [0, 1]), net)
    assert {n.name for n in g.nodes} >= {"conv1.weight", "layer3.0.bn2.bias", "fc.bias"}
    text = g.dot()
    assert text.startswith("digraph {") and text.endswith("}\n")
    assert set(re.findall(r"^  (\d+) \[", text, re.M)) == {str(i) for i in range(len(g.nodes))}
    assert set(re.findall(r"^  (\d+ -> \d+);", text, re.M)) == {f"{j} -> {i}" for i, n in enumerate(g.nodes)
                                                                for j in n.inputs}
    tricky = graph(Tensor([1.0]), {'a "quoted" \\ name': Tensor([1.0])}).dot()
    assert tricky.count('"') == 2
    quoted = Tensor([1.0], True)
    assert '\\"q\\"' in graph(quoted, {'"q"': quoted}).dot()


def test_a_long_chain_does_not_exhaust_the_stack():
    t = Tensor([1.0], True)
    for _ in range(5000):
        t = -t
    assert len(graph(t).nodes) == 5001
