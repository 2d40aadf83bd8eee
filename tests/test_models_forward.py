"""Test that a network runs its sequence of layers, with hooks, with replaced layers, and with additional attributes.

Fusing operations (BN with ReLU, a convolution with BN in eval mode, a hand-written residual block) must not change the
result: a Tap makes every module run on its own, and a replaced layer runs although its neighbours are fused.
"""

import contextlib
import itertools
import re
from functools import partial

import numpy as np
import pytest
from helpers import difference, normal, same_bits
from short import every

from minires import Tensor, kernels, models, nn, no_grad, ops, tap


def rng(seed=0):
    return np.random.default_rng(seed)


small = partial(models.cifar, 8, width=4)
bottleneck = partial(models.cifar, 11, block="bottleneck", width=4)
preact = partial(small, block="preact")
vgg = {"width": 2, "hidden": 6, "num_classes": 3}

NETS = {  # {name: (a function that builds the network, height and width of its images)}
    "plain": (partial(small, residual=False), (8, 7)),
    "A": (small, (8, 7)), "A end": (partial(small, pad="end"), (8, 7)), "B": (partial(small, shortcut="B"), (8, 7)),
    "C": (partial(small, shortcut="C"), (8, 7)),
    "A by hand": (partial(small, by_hand=True), (8, 7)),
    "B by hand": (partial(small, by_hand=True, shortcut="B"), (8, 7)),
    "C by hand": (partial(small, by_hand=True, shortcut="C"), (8, 7)),
    "without BN": (partial(small, norm="none", shortcut="B"), (8, 7)), "fixup": (partial(small, norm="fixup"), (8, 7)),
    "bottleneck": (bottleneck, (8, 7)), "bottleneck B": (partial(bottleneck, shortcut="B"), (8, 7)),
    "preact": (preact, (8, 7)), "preact C": (partial(preact, shortcut="C"), (8, 7)),
    "preact by hand": (partial(preact, by_hand=True), (8, 7)),
    "preact B by hand": (partial(preact, by_hand=True, shortcut="B"), (8, 7)),
    "preact bottleneck": (partial(models.cifar, 11, block="preact_bottleneck", shortcut="B", width=4), (8, 7)),
    "resnet18": (partial(models.resnet18, width=2, num_classes=3), (33, 34)),
    "plain18": (partial(models.plain18, width=2, num_classes=3), (33, 34)),
    "resnet50": (partial(models.resnet50, width=2, num_classes=3), (33, 34)),
    "wide_resnet50_2": (partial(models.wide_resnet50_2, width=2, num_classes=3), (33, 34)),
    "resnext50_32x4d": (partial(models.resnext50_32x4d, width=16, num_classes=3), (33, 34)),
    "vgg16": (partial(models.vgg16, **vgg), (32, 33)), "vgg16_bn": (partial(models.vgg16_bn, **vgg), (32, 33)),
    "googlenet": (partial(models.googlenet, width=4, num_classes=3), (16, 17)),
    **{f"study: {kind}": (partial(models.shortcut_study, kind, 8, width=4), (8, 7)) for kind in models.study.SHORTCUTS},
    **{f"study: {place}": (partial(models.placement_study, place, 8, width=4, shortcut="B"), (8, 7))
       for place in models.study.MOVED},
    **{f"study: {place}, bottleneck": (partial(models.placement_study, place, 11, bottleneck=True, width=4,
                                               shortcut="B"), (8, 7)) for place in models.study.MOVED},
}
MODES = {"train": (True, True), "train, no_grad": (True, False), "eval": (False, True),
         "eval, no_grad": (False, False)}  # {name: (train mode, a graph is recorded)}
FUSED = ["train", "eval, no_grad"]  # the modes in which operations are fused


def build(name, mode="train"):
    """Build the network in this mode with random numbers everywhere, because initial values would hide mistakes."""
    net = NETS[name][0](rng=rng(1))
    draw = rng(2)
    for key, t in net.state().items():
        if t.ndim == 1:
            v = draw.standard_normal(t.shape)
            t.data = (1 + v * v if key.endswith("var") else 0.5 * v).astype(np.float32)
        elif not t.data.any():  # init.fixup sets some weights to zero
            t.data = 0.5 * draw.standard_normal(t.shape, np.float32)
    return net.train(MODES[mode][0])


def images(name):
    return normal(3, 3, *NETS[name][1], dtype=np.float32)


def left(net, name, mode):
    """Run the network once and return the output, the state and, if a graph is recorded, the gradients."""
    x, graph = Tensor(images(name), True), MODES[mode][1]
    if graph:
        y = net(x)
        ops.cross_entropy(y, np.array([0, 2, 1])).backward()
    else:
        with no_grad():
            y = net(x)
    found = {"output": y.data, "dx": x.grad}
    for key, t in net.state().items():
        found[key] = t.data
        found[f"d {key}"] = t.grad
    return found


def assert_same(a, b, mode, tolerance=2e-5):
    """Check for equal bits. In eval mode without a graph, where BN is folded, compare outputs to `tolerance`."""
    assert a.keys() == b.keys()
    if mode == "eval, no_grad":
        assert difference(a.pop("output"), b.pop("output")) < tolerance
    assert [key for key in a if not (a[key] is b[key] is None or same_bits(a[key], b[key]))] == []


def kinds(net):
    return {type(m) for _, m in net.modules()}


def test_every_named_family_is_here():
    """Each network of each family has a network in NETS with all kinds of its modules."""
    here = [kinds(make()) for make, _ in NETS.values()]
    for family, (_, members) in models.FAMILIES.items():
        with models.init.undrawn():
            of_family = [kinds(make(**{"hidden": 4} if "vgg" in name else {})) for name, make in members.items()]
        assert all(any(found <= mine for mine in here) for found in of_family), family


@pytest.mark.parametrize("name, mode, which", every(7, itertools.product(NETS, MODES, ["auto", "reference"])))
def test_a_tap_changes_nothing(name, mode, which):
    with kernels.using(which):
        net = build(name, mode)
        with tap.Tap(net) as seen:
            tapped = left(net, name, mode)
        names = {n for n, m in net.modules()}
        assert seen.std.keys() == names
        assert_same(tapped, left(build(name, mode), name, mode), mode)


# ------------------------------------------------------------------------------------- one layer replaced


class Wrapper(nn.Module):
    """A Wrapper replaces a layer. It has none of the layer's attributes."""

    def __init__(self, inner):
        self.inner, self.runs, self.training = inner, 0, inner.training

    def forward(self, x):
        self.runs += 1
        return self.inner(x)


class Squashed(Wrapper):
    def forward(self, x):
        return super().forward(x).tanh()


def wrapped(net, name, wrapper=Wrapper):
    """Replace the module of this name by a wrapper, and return the wrapper."""
    path, _, last = name.rpartition(".")
    modules = dict(net.modules())
    wrapper = wrapper(modules[name])
    if path in modules:
        setattr(modules[path], last, wrapper)
    else:  # an item of a list, such as layer1.0
        path, _, attribute = path.rpartition(".")
        getattr(modules[path], attribute)[int(last)] = wrapper
    return wrapper


def subclassed(net, name):
    """Change the class of this module to a subclass whose forward counts its runs, and return the module."""
    module, base = dict(net.modules())[name], type(dict(net.modules())[name])

    def forward(self, x):
        self.runs += 1
        return base.forward(self, x)

    module.runs, module.__class__ = 0, type(f"My{base.__name__}", (base,), {"forward": forward})
    return module


def set_on_the_object(net, name):
    """Set a forward on this module itself, and return the module."""
    module = dict(net.modules())[name]

    def forward(x):
        module.runs += 1
        return type(module).forward(module, x)

    module.runs, module.forward = 0, forward
    return module


def layers(net):
    """Return the names of all modules except the network. Of many equal modules, only the first is entered."""
    alike = re.compile(r"inception(3b|4[bcde]|5b)\.|layer\d\.[1-9]\.")
    return [name for name, _ in net.modules() if name and not alike.match(name)]


@pytest.mark.parametrize("name, mode, replace", every(7, itertools.product(
    NETS, FUSED, [wrapped, subclassed, set_on_the_object])))
def test_a_layer_that_somebody_replaced_runs_once(name, mode, replace):
    """This runs on shapes alone, because it replaces every layer of every network once."""
    training, graph = MODES[mode]
    with models.init.undrawn():
        nets = NETS[name][0]
        x = Tensor(images(name), graph)
        for layer in layers(nets()):
            net = nets().train(training)
            mine = replace(net, layer)
            with kernels.using("shapes"):
                net(x)
            assert mine.runs == 1, layer


@pytest.mark.parametrize("name, mode", every(3, itertools.product(NETS, FUSED)))
def test_what_a_replaced_layer_computes_counts(name, mode):
    """Squash the output of every third layer. The network computes the same with and without a hook."""
    plain = left(build(name, mode), name, mode)["output"]
    for start in range(3):
        found = []
        for watching in (True, False):
            net = build(name, mode)
            for layer in reversed(layers(net)[start::3]):  # inner modules before outer modules
                wrapped(net, layer, Squashed)
            with nn.watched(lambda *_: None) if watching else contextlib.nullcontext():
                found.append(left(net, name, mode))
        assert difference(found[0]["output"], plain) > 1e-3
        assert_same(*found, mode)


# ------------------------------------------------------------------------- attributes outside the sequence


@pytest.mark.parametrize("name, mode", every(5, itertools.product(NETS, MODES)))
def test_an_attribute_beside_the_sequence_changes_nothing(name, mode):
    """An additional module, set on each module of the network, is state like every attribute, but it does not run."""
    net, seen = build(name, mode), []
    for _, m in list(net.modules()):
        m.spare = nn.BatchNorm2d(2)
        m.layer9 = [nn.ReLU()]
    spare = {id(m) for n, m in net.modules() if "spare" in n or "layer9" in n}
    found = left(net, name, mode)
    assert_same({k: a for k, a in found.items() if "spare" not in k}, left(build(name, mode), name, mode), mode, 1e-7)
    with nn.watched(lambda m, *_: seen.append(id(m))), no_grad():
        net(Tensor(images(name)))
    assert len(spare) >= 2 and not spare & set(seen) and any("spare" in key for key in found)
