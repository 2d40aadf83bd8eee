"""Test layer responses and gradient flow against closed forms, autograd used directly, and PyTorch."""

import itertools

import numpy as np
import pytest
from helpers import needs_torch, torch
from short import every

from minires import Tensor, analysis, models, nn, ops
from minires.analysis import gradient_flow, responses

F8 = np.float64


def net(depth=8, dtype=F8, width=4, seed=0, **options):
    return models.cifar(depth, in_channels=1, width=width, rng=np.random.default_rng(seed), **options).astype(dtype)


def batch(n=16, size=8, dtype=F8, seed=1):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 1, size, size)).astype(dtype), rng.integers(0, 10, n)


NETS = {
    "plain": {"residual": False}, "residual": {}, "by hand": {"by_hand": True}, "deep": {"depth": 20},
    "option B": {"shortcut": "B"}, "option B by hand": {"shortcut": "B", "by_hand": True},
    "option C": {"shortcut": "C"},
}
PREACT = {"pre-activation": {"block": "preact"}, "pre-activation by hand": {"block": "preact", "by_hand": True}}
ALL_NETS = NETS | PREACT


def norms_in_order(model):
    """Return the names of a v1 network's BatchNorms in the order in which He et al. count its 3x3 layers."""
    blocks = [f"layer{s}.{i}" for s in (1, 2, 3) for i in range(len(getattr(model, f"layer{s}")))]
    return ["bn1", *(f"{b}.bn{k}" for b in blocks for k in (1, 2))]


def module(model, name):
    return dict(model.modules())[name]


# ------------------------------------------------------------------------------------------------ responses


@pytest.mark.parametrize("options", NETS.values(), ids=NETS)
def test_responses_are_one_at_initialisation(options):
    """With gamma 1 and beta 0 the response is sqrt(mean(var / (var + eps))), below 1 by about eps / (2 var)."""
    model = net(**options)
    found = responses(model, batch()[0])
    assert list(found) == norms_in_order(model)
    for value in found.values():
        assert 1 - 1e-3 < value < 1
    assert responses(net(**options), batch()[0]) == found


@pytest.mark.parametrize("options", NETS.values(), ids=NETS)
def test_responses_equal_the_closed_form(options):
    """response^2 = mean(gamma^2 var / (var + eps)) + Var(beta). The running variance gives the batch's var."""
    model = net(**options)
    rng = np.random.default_rng(2)
    for _, m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.weight.data, m.bias.data = rng.uniform(0.2, 2, m.weight.shape), rng.standard_normal(m.bias.shape)
            m.eps, m.momentum = 0.1, 1.0  # eps is large to have an effect; with momentum 1, running_var is this batch's
    images = batch()[0]
    found = responses(model, images)
    model.train()
    shapes = {}
    with nn.watched(lambda m, inputs, out: shapes.update({id(m): out.shape})):
        model(Tensor(images))
    for name, value in found.items():
        bn = module(model, name)
        n, _, h, w = shapes[id(bn)]
        var = bn.running_var.data * (n * h * w - 1) / (n * h * w)  # biased
        expected = np.mean(bn.weight.data**2 * var / (var + 0.1)) + np.var(bn.bias.data)
        assert value == pytest.approx(expected**0.5, rel=1e-10)
    assert len({round(v, 6) for v in found.values()}) == len(found)


def test_responses_leave_projections_out():
    model = net(shortcut="C")
    assert any("downsample" in name for name in model.state())
    assert not any("downsample" in name for name in responses(model, batch()[0]))


def test_responses_need_a_norm_behind_a_3x3():
    with pytest.raises(ValueError, match="no 3x3 convolution followed by a BatchNorm2d"):
        responses(net(norm="none"), batch()[0])


def test_responses_of_a_layer_that_training_scaled():
    model = net()
    module(model, "layer2.0.bn2").weight.data *= 0.25
    found = responses(model, batch()[0])
    assert found.pop("layer2.0.bn2") == pytest.approx(0.25, rel=1e-3)
    assert all(v == pytest.approx(1, rel=1e-3) for v in found.values())


# -------------------------------------------------------------------------------------------- gradient flow


@pytest.mark.parametrize("options", ALL_NETS.values(), ids=ALL_NETS)
def test_gradient_flow_is_what_autograd_gives(options):
    images, labels = batch()
    flow = gradient_flow(net(**options), images, labels)
    model, outputs = net(**options), {}
    names = {id(m): name for name, m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    with nn.watched(lambda m, inputs, out: id(m) in names and outputs.update({names[id(m)]: out.retain_grad()})):
        ops.cross_entropy(model(Tensor(images)), labels).backward()
    layers = [name for name in names.values() if "downsample" not in name]
    if options.get("block") != "preact":
        assert layers == ["conv1", *(n.replace("bn", "conv") for n in norms_in_order(model)[1:]), "fc"]
    assert list(flow.weights) == list(flow.activations) == layers
    for name in layers:
        weight, output = module(model, name).weight.grad, outputs[name].grad
        assert flow.weights[name] == pytest.approx(np.linalg.norm(weight), rel=1e-12)
        assert flow.activations[name] == pytest.approx(np.linalg.norm(output), rel=1e-12)


@needs_torch
def test_gradient_flow_follows_pytorch():
    import twins

    images, labels = batch()
    model = net(residual=False)
    flow = gradient_flow(model, images, labels)
    twin, outputs = twins.loaded(twins.cifar(8, False, in_channels=1), model), {}

    def keep(name):
        def see(module, inputs, out):
            out.retain_grad()
            outputs[name] = out
        return see

    for name, m in twin.named_modules():
        if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear)):
            m.register_forward_hook(keep(name))
    torch.nn.functional.cross_entropy(twin(torch.tensor(images)), torch.tensor(labels)).backward()
    assert list(outputs) == list(flow.weights)
    for name, out in outputs.items():
        weight = twin.get_parameter(f"{name}.weight")
        assert flow.weights[name] == pytest.approx(weight.grad.norm().item(), rel=1e-9)
        assert flow.activations[name] == pytest.approx(out.grad.norm().item(), rel=1e-9)


# ------------------------------------------------------------------------------------- the model untouched


# Every analysis that runs a model: (model, images, labels) -> any result
LOOKS = {
    "responses": lambda m, x, y: responses(m, x),
    "responses_closed_form": lambda m, x, y: analysis.responses_closed_form(m, x),
    "responses_from_parameters": lambda m, x, y: analysis.responses_from_parameters(m, (8, 8)),
    "gradient_flow": gradient_flow,
    "second_moments": lambda m, x, y: analysis.second_moments(m, x),
    "activations": lambda m, x, y: analysis.activations(m, x),
    "construction": lambda m, x, y: analysis.construction(m, x, 1, rng=np.random.default_rng(0)),
    "lesions": analysis.lesions,
    "delete_k": lambda m, x, y: analysis.delete_k(m, x, y, [2], 2, rng=np.random.default_rng(0)),
    "swap_blocks": lambda m, x, y: analysis.swap_blocks(m, x, y, [1], rng=np.random.default_rng(0)),
    "path_gradient": lambda m, x, y: analysis.path_gradient(m, x, y, ["layer1.0"]),
    "path_gradients": lambda m, x, y: analysis.path_gradients(m, x, y, [1], 2, rng=np.random.default_rng(0)),
    "gradients_by_length": analysis.gradients_by_length,
    "gradient_correlation": lambda m, x, y: analysis.gradient_correlation(m, x, rng=np.random.default_rng(0)),
    "loss_line": lambda m, x, y: analysis.loss_line(m, x, y, direction(m), 3),
    "loss_surface": lambda m, x, y: analysis.loss_surface(m, x, y, direction(m), direction(m), 2),
    "curvature": lambda m, x, y: analysis.curvature(m, x, y, direction(m)),
    "refinement": lambda m, x, y: analysis.refinement(m, x),
    "cka_matrix": lambda m, x, y: analysis.cka_matrix(m, x),
    "receptive_fields": lambda m, x, y: analysis.receptive_fields(m, x),
    "exciting_patches": lambda m, x, y: analysis.exciting_patches(m, x, "layer3.0.bn2", 1),
    "negative_sums": lambda m, x, y: analysis.negative_sums(m, x),
}


def direction(model):
    return analysis.random_direction(model, rng=np.random.default_rng(0))


def settings(model):
    """Return all attributes of all modules except Tensors and children."""
    return [{k: v for k, v in vars(m).items() if not isinstance(v, (Tensor, nn.Module, list))}
            for _, m in model.modules()]


@pytest.mark.parametrize("name, fails, options", every(3, itertools.product(
    LOOKS, [False, True], [{}, {"by_hand": True, "shortcut": "B"}])))
def test_the_model_is_left_bit_for_bit_as_it_was(name, fails, options, monkeypatch):
    look = LOOKS[name]
    model = net(14, dtype=np.float32, **options)
    model.maxpool = nn.Dropout(0.3, rng=np.random.default_rng(5))  # after the stem: draws numbers in train mode
    images, labels = batch(dtype=np.float32)
    ops.cross_entropy(model(Tensor(images)), labels).backward()  # gradients and statistics differ from the initial ones
    model.eval()
    model.layer1[0].training = True  # modes differ between modules
    if fails:
        def broken(x):
            raise KeyboardInterrupt
        monkeypatch.setattr(model.fc, "forward", broken)
    objects = [(t, t.data, t.grad) for t in model.state().values()]
    bits = [(d.tobytes(), None if g is None else g.tobytes()) for _, d, g in objects]
    others, drawn = settings(model), model.maxpool.rng.bit_generator.state
    if fails:
        with pytest.raises(KeyboardInterrupt):
            look(model, images, labels)
    else:
        look(model, images, labels)
    for (t, data, grad), (data_bits, grad_bits) in zip(objects, bits, strict=True):
        assert t.data is data and t.grad is grad
        assert data.tobytes() == data_bits and (grad is None or grad.tobytes() == grad_bits)
    assert settings(model) == others and model.maxpool.rng.bit_generator.state == drawn
    monkeypatch.undo()
    assert responses(model, images) == responses(model, images)  # no hook is left


def test_no_analysis_is_forgotten_here():
    rest = {"follow", "deepen", "deleted", "graph", "growth_per_layer", "update_ratios", "random_direction",
            "path_shares", "gradient_shares", "autocorrelation", "gradient_on_a_line", "input_gradients", "cka",
            "first_filters", "interval", "paired", "steps_to", "after_each_block"}
    assert {n for n in analysis.__all__ if n[0].islower()} == rest | set(LOOKS)


# ------------------------------------------------------------------------------- how gradients grow and vanish


def test_gradients_grow_in_a_deep_plain_net_and_hardly_in_a_residual_one():
    images, labels = batch(24, dtype=np.float32)
    rates = []
    for residual in False, True:
        model = net(56, np.float32, 8, residual=residual)
        rates.append(analysis.growth_per_layer(gradient_flow(model, images, labels).activations, skip=3))
    plain, residual = rates
    assert plain > 1.1
    assert 1 < residual < 1.08 and residual**50 < plain**50 / 20
