"""Fine-tuning: a part of a model that is frozen, or in eval mode, stays as it is to the bit while the rest trains.

Docstrings say what happened before, in minires 0.1.
"""

import copy
import itertools
from collections import deque

import numpy as np
import pytest
from helpers import normal, same_bits
from short import every

import minires.testing
from minires import Function, Tensor, analysis, cuda_graph, evaluate, models, nn, ops, optim, train

IMAGES, LABELS = normal(12, 1, 12, 12, dtype=np.float32), np.arange(12) % 3
RECIPE = train.Recipe(epochs=2, batch_size=4, crop=0, flip=False, weight_decay=1e-2)


def network(**options):
    net = models.cifar(8, in_channels=1, width=8, num_classes=3, rng=np.random.default_rng(0), **options)
    for bn in (m for _, m in net.modules() if isinstance(m, nn.BatchNorm)):
        bn.running_mean.data = np.full_like(bn.running_mean.data, 0.1)  # not as a new layer's
    return net


def fit(net, **options):
    return list(train.fit(net, (IMAGES, LABELS), (IMAGES, LABELS), RECIPE, rng=0, **options))


def one_step(net):
    train.step(net, optim.SGD(net.parameters(), 0.1, 0.9), IMAGES, LABELS)


def graphed(net):
    cuda_graph.GraphedStep(net, optim.SGD(net.parameters(), 0.1), IMAGES[:4], LABELS[:4])(IMAGES[:4], LABELS[:4])


TRAININGS = {"fit": fit, "step": one_step, "graphed step": graphed, "fit, graph": lambda net: fit(net, graph=True)}


def moved(net, before):
    """The names of the state that is not what it was, bit for bit."""
    return {name for name, t in net.state().items() if not same_bits(t.data, before[name])}


def snapshot(net):
    return {name: t.data.copy() for name, t in net.state().items()}


# ------------------------------------------------------------------------------------ eval mode, train()


@pytest.mark.parametrize("way", TRAININGS)
def test_a_batch_norm_in_eval_mode_stays_there_while_the_rest_trains(way):
    """train.step called model.train(): 38 of 38 running statistics moved, silently."""
    net = network()
    norms = [m for _, m in net.modules() if isinstance(m, nn.BatchNorm)]
    for bn in norms[:3]:
        bn.eval()
    before = snapshot(net)
    TRAININGS[way](net)
    running = {name for name in moved(net, before) if "running" in name}
    assert [bn.training for bn in norms] == [False] * 3 + [True] * 4 and net.training
    assert len(running) == 8 and not any(same_bits(before[name], net.state()[name].data) for name in running)
    assert {"bn1.weight", "conv1.weight"} <= moved(net, before)  # its parameters train


@pytest.mark.parametrize("way", TRAININGS)
def test_a_model_in_eval_mode_as_a_whole_is_trained_in_train_mode(way):
    net = network().eval()
    before = snapshot(net)
    TRAININGS[way](net)
    assert net.training and all(m.training for _, m in net.modules()) and moved(net, before) == set(before)


def test_train_and_eval_switch_everything():
    net = network()
    net.bn1.eval()
    assert net.train().bn1.training
    assert not any(m.training for _, m in net.eval().modules())


class KeepsItsNorm(nn.Module):
    """As PyTorch users write it: its own train() keeps a part in eval mode."""

    def __init__(self):
        self.bn, self.fc = nn.BatchNorm1d(3), nn.Linear(3, 3, rng=np.random.default_rng(0))

    def train(self, on=True):
        super().train(on)
        self.bn.eval()
        return self

    def forward(self, x): return self.fc(self.bn(x))


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("called", [False, True])
def test_a_module_s_own_train_is_obeyed(inside, called):
    """Only the outermost module's own train() was called."""
    part = KeepsItsNorm()
    net = nn.Sequential(part, nn.BatchNorm1d(3)) if inside else part
    if called:
        net.train()
        assert not part.bn.training and part.fc.training
    before = snapshot(net)
    train.step(net, optim.SGD(net.parameters(), 0.1), normal(4, 3, dtype=np.float32), np.array([0, 1, 2, 0]))
    running = {name for name in moved(net, before) if "running" in name}
    assert running == ({"1.running_mean", "1.running_var"} if inside else set())
    net.eval()
    assert not part.fc.training


# -------------------------------------------------------------------------------------------------- freeze


FROZEN = {  # a choice: the state that has to stay
    "names": (lambda net: ["conv1", "bn1", "layer1"], ("conv1.", "bn1.", "layer1.")),
    "modules": (lambda net: [net.conv1, net.layer1[0], net.bn1], ("conv1.", "bn1.", "layer1.")),
    "pattern": (lambda net: ["layer[12]"], ("layer1.", "layer2.")),
    "all norms": (lambda net: ["bn1", "*.bn?"], ("bn1.", "layer1.0.bn", "layer2.0.bn", "layer3.0.bn")),
    "a parameter": (lambda net: ["fc.bias", net.conv1.weight], ("fc.bias", "conv1.weight")),
    "all but the head": (lambda net: ["conv1", "bn1", "layer?"], ("conv1.", "bn1.", "layer")),
}


@pytest.mark.parametrize("part, by_hand, way", every(5, itertools.product(FROZEN, [False, True], TRAININGS)))
def test_a_frozen_part_is_unchanged_to_the_bit(part, by_hand, way):
    choice, stays = FROZEN[part]
    net = network(by_hand=by_hand)
    assert net.freeze(*choice(net)) is net
    before = snapshot(net)
    assert {id(t) for t in net.parameters()} == {id(t) for n, t in net.state().items()
                                                 if t.requires_grad and not n.startswith(stays)}
    TRAININGS[way](net)
    assert moved(net, before) == {name for name in before if not name.startswith(stays)}
    assert all(t.grad is None for name, t in net.state().items() if name.startswith(stays))


def test_a_frozen_batch_norm_normalises_by_its_running_statistics_and_dropout_lets_all_pass():
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5, rng=np.random.default_rng(0)))
    x = Tensor(normal(5, 3, dtype=np.float32))
    expected = net.eval()(x).data
    net.train().freeze()
    assert same_bits(net.train()(x).data, expected) and same_bits(net.resume_training()(x).data, expected)
    assert not net[0].training and net[0].frozen and net.training


def test_the_optimiser_may_be_older_than_the_freezing():
    """Its momentum and weight decay move nothing that is frozen."""
    net = network()
    optimizer = optim.SGD(net.parameters(), 0.1, 0.9, 1e-2)
    train.step(net, optimizer, IMAGES, LABELS)
    net.freeze("layer1", "bn1")
    before, velocity = snapshot(net), optimizer.velocity.copy()
    for _ in range(3):
        train.step(net, optimizer, IMAGES, LABELS)
    assert not any(name.startswith(("layer1", "bn1")) for name in moved(net, before))
    still = [i for i, p in enumerate(optimizer.parameters) if not p.requires_grad]
    starts = [0, *optimizer.ends]
    assert len(still) == 8
    assert all(same_bits(velocity[starts[i]:starts[i + 1]], optimizer.velocity[starts[i]:starts[i + 1]]) for i in still)


def test_the_gradient_of_the_rest_is_the_same_to_the_bit():
    """With every BatchNorm in eval mode, freezing changes nothing but what is left out."""
    whole, part = network().eval(), network().eval()
    part.freeze("conv1", "layer1")
    for net in whole, part:
        ops.cross_entropy(net(Tensor(IMAGES)), LABELS).backward()
    for (name, a), b in zip(whole.state().items(), part.state().values(), strict=True):
        assert same_bits(a.grad, b.grad) if b.requires_grad else name.startswith(("conv1", "layer1")) or a.grad is None


def test_unfreeze_gives_back_what_freeze_took():
    net = network()
    net.fc.bias.requires_grad = False  # frozen by hand: stays so
    parameters = [id(t) for t in net.parameters()]
    net.freeze().unfreeze()
    assert [id(t) for t in net.parameters()] == parameters and not any(m.frozen for _, m in net.modules())
    assert all(m.training for _, m in net.modules())
    net.freeze().unfreeze("fc")
    assert net.parameters() and {id(t) for t in net.parameters()} == {id(net.fc.weight)}
    assert net.fc.training and not net.bn1.training
    net.freeze("layer1", "bn1").unfreeze("*.bn1", net.bn1)
    assert net.layer1[0].bn1.training and not net.layer1[0].bn2.training and net.bn1.training
    assert not any(t.requires_grad for t in (net.bn1.running_mean, net.layer1[0].bn1.running_var))
    before = snapshot(net)
    fit(net)
    assert "layer1.0.bn1.running_mean" in moved(net, before) and "layer1.0.bn2.running_mean" not in moved(net, before)


def test_a_frozen_model_keeps_that_in_copies_and_outside_of_training():
    net = network().freeze("layer1")
    twin = copy.deepcopy(net)
    assert not twin.layer1[0].bn1.training and twin.layer1[0].frozen
    twin.unfreeze()
    assert len(twin.parameters()) == len(network().parameters()) > len(net.parameters())
    evaluate.error(net, IMAGES, LABELS)
    net.eval().train()
    assert not net.layer1[0].bn1.training and net.bn1.training
    assert net.count_parameters() < network().count_parameters()


@pytest.mark.parametrize("which, says", [
    ("layer9", "freeze: unknown name 'layer9'; did you mean layer"), (nn.ReLU(), "got another ReLU"),
    (Tensor([1.0]), "got another Tensor"),
], ids=str)
def test_what_does_not_exist_cannot_be_frozen(which, says):
    net = network()
    with pytest.raises(ValueError, match=says):
        net.freeze("conv1", which)
    assert net.conv1.weight.requires_grad


# ----------------------------------------------------------------------------------------- parameters of a part


def test_the_parameters_of_a_part():
    net = network()
    names = {id(t): name for name, t in net.state().items()}

    def chosen(*which):
        return [names[id(t)] for t in net.parameters(*which)]

    assert chosen() == [name for name, t in net.state().items() if t.requires_grad]
    assert chosen("layer1") == [name for name in chosen() if name.startswith("layer1.")] != []
    assert chosen("fc", net.fc.bias, "fc.weight", net.conv1) == ["conv1.weight", "fc.weight", "fc.bias"]
    assert chosen("*.bn?") == [name for name in chosen() if ".bn" in name]
    net.freeze("layer1.0")
    assert chosen("layer1.0") == []
    for which, says in ("layer9", "parameters: unknown name 'layer9'; did you mean"), (nn.ReLU(), "got another ReLU"):
        with pytest.raises(ValueError, match=says):
            net.parameters(which)


# ------------------------------------------------------------------------------ analyses of a partly frozen model


def draw():
    return np.random.default_rng(1)


ANALYSES = {
    "gradient_flow": lambda n: analysis.gradient_flow(n, IMAGES, LABELS),
    "second_moments": lambda n: analysis.second_moments(n, IMAGES),
    "responses": lambda n: analysis.responses(n, IMAGES),
    "responses_closed_form": lambda n: analysis.responses_closed_form(n, IMAGES),
    "responses_from_parameters": lambda n: analysis.responses_from_parameters(n, (12, 12)),
    "activations": lambda n: analysis.activations(n, IMAGES),
    "lesions": lambda n: analysis.lesions(n, IMAGES, LABELS),
    "delete_k": lambda n: analysis.delete_k(n, IMAGES, LABELS, [1], 2, rng=draw()),
    "path_gradients": lambda n: analysis.path_gradients(n, IMAGES, LABELS, [1], 2, rng=draw()),
    "gradients_by_length": lambda n: [g.tolist() for g in analysis.gradients_by_length(n, IMAGES, LABELS)],
    "gradient_correlation": lambda n: analysis.gradient_correlation(n, IMAGES, rng=draw()),
    "loss_line": lambda n: analysis.loss_line(n, IMAGES, LABELS, analysis.random_direction(n, rng=draw()), 3),
    "curvature": lambda n: analysis.curvature(n, IMAGES, LABELS, analysis.random_direction(n, rng=draw())),
    "refinement": lambda n: analysis.refinement(n, IMAGES),
    "cka_matrix": lambda n: [row.tolist() for row in np.asarray(analysis.cka_matrix(n, IMAGES).values)],
    "first_filters": lambda n: analysis.first_filters(n).tolist(),
    "receptive_fields": lambda n: analysis.receptive_fields(n, IMAGES),
    "exciting_patches": lambda n: [p[:4] for p in analysis.exciting_patches(n, IMAGES, "layer1.0", 0, top=2)],
    "construction": lambda n: analysis.construction(n, IMAGES, extra=1, rng=draw()).difference,
}
IN_TRAIN_MODE = {"gradient_flow", "second_moments", "responses", "responses_closed_form", "activations",
                 "gradient_correlation"}  # a frozen BatchNorm normalises in another way there
PARTS = {"stem": ["conv1", "bn1", "layer1"], "head": ["fc"], "convolutions": ["*conv?"], "all": []}


@pytest.mark.parametrize("name, part", every(3, itertools.product(ANALYSES, PARTS)))
def test_every_analysis_runs_on_a_partly_frozen_model_and_leaves_it_so(name, part):
    """gradient_flow and curvature: "'NoneType' object has no attribute 'size'"; activations left frozen layers out."""
    net = network().freeze(*PARTS[part])
    before, wanted = snapshot(net), [t.requires_grad for t in net.state().values()]
    modes = [(m.training, m.frozen) for _, m in net.modules()]
    if name == "gradient_flow" and part == "all":
        with pytest.raises(RuntimeError, match="nothing to differentiate"):
            ANALYSES[name](net)
        return
    found = ANALYSES[name](net)
    assert not moved(net, before) and modes == [(m.training, m.frozen) for _, m in net.modules()]
    assert wanted == [t.requires_grad for t in net.state().values()]
    if name not in IN_TRAIN_MODE:
        assert found == ANALYSES[name](network())
    if name == "activations":
        assert list(found) == list(ANALYSES[name](network()))


def test_gradient_flow_lists_what_has_a_gradient():
    whole = analysis.gradient_flow(network(), IMAGES, LABELS)
    flow = analysis.gradient_flow(network().freeze("conv1", "layer2.0.conv1"), IMAGES, LABELS)
    assert list(flow.weights) == [n for n in whole.weights if n not in ("conv1", "layer2.0.conv1")]
    assert list(flow.activations) == [n for n in whole.activations if n != "conv1"]
    assert all(flow.weights[n] == whole.weights[n] for n in flow.weights)  # no BatchNorm is frozen
    still = network()
    still.layer1[0].bn1.eval()
    assert analysis.gradient_flow(still, IMAGES, LABELS) != whole  # it is measured as it would train


class Softplus(Function):
    def forward(self, x):
        self.x = x
        return np.logaddexp(x, 0, dtype=x.dtype)

    def backward(self, g): return g / (1 + np.exp(-self.x))


@pytest.mark.parametrize("bend", [Softplus.apply, lambda x: ops.maximum(x, x * 0.1), ops.tanh, ops.sigmoid, ops.relu])
def test_activations_of_other_nonlinearities(bend):
    """For one's own Function and a leaky ReLU: "this model has no ReLU, sigmoid or tanh"."""
    class Bend(nn.Module):
        def forward(self, x): return bend(x)

    net = nn.Sequential(nn.Linear(3, 4, rng=draw()), Bend(), nn.Linear(4, 2, rng=draw()))
    found = analysis.activations(net, normal(50, 3, dtype=np.float32))
    assert list(found) == ["1"] and sum(found["1"].counts) == 200
    linear = nn.Sequential(nn.Linear(3, 4, rng=draw()))
    with pytest.raises(ValueError, match="this model has no nonlinearity: no ReLU, leaky ReLU, GELU, sigmoid"):
        analysis.activations(linear, normal(5, 3, dtype=np.float32))


# ---------------------------------------------------------------------------- where Modules and Tensors are found


class Holder(nn.Module):
    def __init__(self, **held):
        vars(self).update(held)

    def forward(self, x): return x


def linear(seed=0):
    return nn.Linear(2, 2, bias=False, rng=np.random.default_rng(seed))


def test_modules_and_tensors_are_found_in_nested_lists_and_dicts():
    """Only Modules directly in a list were found; what lay deeper was neither trained nor saved, silently."""
    shared = linear(4)
    net = Holder(blocks=[[linear(0), linear(1)], [linear(2)]], heads={"digits": linear(3), "pair": (shared, shared)},
                 scales=[Tensor(np.ones(1, np.float32), True), {"last": Tensor(np.ones(2, np.float32))}],
                 sizes=[1, (2,), {3: "4"}])
    names = ["scales.0", "scales.1.last", "blocks.0.0.weight", "blocks.0.1.weight", "blocks.1.0.weight",
             "heads.digits.weight", "heads.pair.0.weight", "heads.pair.1.weight"]
    assert list(net.state()) == names and len(net.parameters()) == 6
    net.eval()
    assert not net.blocks[1][0].training and not shared.training
    twin = copy.deepcopy(net)
    twin.load_state({name: np.zeros_like(t.data) for name, t in net.state().items()})
    assert not twin.heads["digits"].weight.data.any() and "heads.digits: Linear(2 -> 2)" in repr(net)
    net.freeze("heads", "scales.0")
    assert net.parameters()[0] is net.blocks[0][0].weight and len(net.parameters()) == 3


@pytest.mark.parametrize("container", [set, frozenset, deque])
@pytest.mark.parametrize("part", [linear(), Tensor([1.0], True)], ids=["Module", "Tensor"])
def test_in_a_set_they_are_refused(container, part):
    """They were not found, and not trained."""
    with pytest.raises(TypeError, match=rf"parts: a Holder holds a (Linear|Tensor) in a {container.__name__}, where it "
                                        "would not be trained; use a list or a dict"):
        Holder(parts=container([part])).state()


def test_two_tensors_of_one_name_are_refused():
    with pytest.raises(ValueError, match=r"two Tensors of this Holder have the name 'parts\.1'"):
        Holder(parts={1: Tensor([1.0]), "1": Tensor([2.0])}).state()


def test_trees_of_depth_2000_work():
    """RecursionError; and repr() took twice as long with every level."""
    net = linear()
    for _ in range(2000):
        net = nn.Sequential(net)
    (name, t), = net.state().items()
    assert name == "0." * 2000 + "weight" and len(list(net.modules())) == 2001
    assert not any(m.training for _, m in net.eval().modules())
    assert not t.requires_grad if net.freeze() else None
    assert repr(net).count("Sequential(") == 2000
    with nn.untouched(net):
        net.train()


def test_a_repr_is_as_before():
    net = nn.Sequential(nn.Sequential(nn.ReLU(), nn.ReLU(), nn.Identity()), linear())
    assert repr(net) == ("Sequential(\n  0: Sequential(\n    0 ... 1 (2 alike): ReLU()\n    2: Identity()\n  )\n"
                         "  1: Linear(2 -> 2)\n)")


@pytest.mark.parametrize("way", ["itself", "child", "list"])
def test_a_cycle_is_refused(way):
    """RecursionError: maximum recursion depth exceeded."""
    net = nn.Sequential(linear())
    if way == "list":
        net.parts = [1]
        net.parts.append(net.parts)
        says = "parts.1: this list of a Sequential contains itself"
    else:
        (net if way == "itself" else net[0]).parent = net
        says = "parent: this Sequential contains itself; a Module may not be an attribute of what it contains"
    for use in (net.state, net.parameters, lambda: repr(net), lambda: list(net.modules())):
        with pytest.raises(ValueError, match=says):
            use()


def test_a_module_in_two_places_is_no_cycle():
    part = linear()
    net = nn.Sequential(part, nn.Sequential(part, part))
    assert len(net.parameters()) == 1 and len(net.state()) == 3


def test_untouched_restores_what_is_frozen():
    net = nn.Sequential(nn.Linear(2, 2, rng=np.random.default_rng(0)), nn.BatchNorm1d(2))
    net.freeze("0")
    with nn.untouched(net):
        net.unfreeze("0")
        net.freeze("1")
    assert [(m.frozen, m.kept) for m in net] == [(True, ("weight", "bias")), (False, ())]
    assert [m.training for m in net.train()] == [False, True]


def test_frozen_parameters_are_saved_in_the_given_dtype(tmp_path):
    net = models.cifar(8, width=4, rng=np.random.default_rng(0))
    minires.save_weights(net, tmp_path / "trained.safetensors", "float16")
    minires.save_weights(net.freeze(), tmp_path / "frozen.safetensors", "float16")
    assert (tmp_path / "frozen.safetensors").read_bytes() == (tmp_path / "trained.safetensors").read_bytes()


def test_check_layer_accepts_frozen_parts():
    net = nn.Sequential(nn.Linear(2, 3, rng=np.random.default_rng(0)), nn.BatchNorm1d(3), nn.Linear(3, 2,
                        rng=np.random.default_rng(1)))
    net.freeze("1")
    minires.testing.check_layer(net, normal(5, 2))
