"""Test the choices of a recipe and of train.fit: optimisers, schedules, clipping, losses, batches of one's own."""

import ast
import copy
import dataclasses
import functools
import json
import math
import re
import shutil
import weakref

import numpy as np
import pytest
from helpers import same_bits

from minires import cli, cuda_graph, models, nn, ops, optim, recipes, runs, train
from minires.recipes import Recipe
from minires.runs.config import FORMAT, RunConfig, configure
from minires.train import Epoch, Progress, Step, fit

FAST = Recipe(epochs=2, batch_size=5, lr=0.01)


def net(seed=0):
    return models.cifar(8, in_channels=1, width=2, rng=np.random.default_rng(seed))


def data(n, seed):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 1, 8, 8), np.float32), rng.integers(0, 10, n)


TRAIN, TEST = data(23, 1), data(9, 2)


def trained(recipe=FAST, learn=TRAIN, test=TEST, **options):
    model, at = options.pop("model", None) or net(), options.pop("at", Progress())
    events = list(fit(model, learn, test, recipe, rng=7, at=at, **options))
    return events, {name: t.data for name, t in model.state().items()}, at


def same(one, other):
    return one[0] == other[0] and all(same_bits(one[1][name], other[1][name]) for name in one[1])


# ------------------------------------------------------------------------------------------------------- recipes


@pytest.mark.parametrize("wrong, says", [
    ({"optimizer": "adm"}, "recipe: optimizer: unknown name 'adm'; did you mean adam"),
    ({"schedule": "cosin"}, "recipe: schedule: unknown name 'cosin'; did you mean cosine"),
    ({"label_smoothing": 1.0}, "recipe: expected label_smoothing from 0 to below 1, got 1.0"),
    ({"beta2": 1.0}, "recipe: expected beta2 from 0 to below 1"),
    ({"optimizer": "adam", "momentum": 1.0}, "recipe: expected momentum from 0 to below 1, got 1.0"),
    ({"clip": -1.0}, "recipe: expected clip to be finite and >= 0"),
    ({"nesterov": True, "momentum": 0.0}, "recipe: nesterov needs SGD with a momentum above 0"),
    ({"nesterov": True, "optimizer": "adamw"}, "recipe: nesterov needs SGD .*, got optimizer adamw"),
    ({"drops": (0.5,), "schedule": "cosine"}, "recipe: expected no drops with schedule cosine"),
])
def test_recipes_that_make_no_sense_are_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        Recipe(**wrong)


@pytest.mark.parametrize("wrong, says", [
    ({"lr": "fast"}, "expected lr as a number, got 'fast'"), ({"epochs": 1.5}, "epochs as a whole number, got 1.5"),
    ({"epochs": True}, "epochs as a whole number, got True"), ({"flip": "no"}, "flip as True or False, got 'no'"),
    ({"optimizer": None}, "expected optimizer as text, got None"), ({"drops": [0.5]}, "drops as a tuple of numbers"),
    ({"drops": ("a",)}, "drops as a tuple of numbers"), ({"clip": None}, "expected clip as a number, got None")])
def test_a_field_of_another_type_is_refused(wrong, says):
    with pytest.raises(TypeError, match=f"recipe: .*{says}"):
        Recipe(**wrong)


def test_help_explains_every_field_with_its_default():
    rows = dict(re.findall(r"^ {4}(\w+) = (\S+) {2,}\S", Recipe.__doc__, re.MULTILINE))
    assert {name: ast.literal_eval(text) for name, text in rows.items()} == vars(Recipe())
    assert list(rows) == [field.name for field in dataclasses.fields(Recipe)]


def test_drop_last_leaves_out_the_small_batch():
    recipe = dataclasses.replace(FAST, drop_last=True)
    events, _, _ = trained(recipe)
    assert [e.images for e in events if isinstance(e, Step)] == [5] * 8 and recipe.total_steps(23) == 8
    assert FAST.total_steps(23) == 10 and recipe.images_per_epoch(23) == 20 and FAST.images_per_epoch(23) == 23
    with pytest.raises(ValueError, match="drop_last leaves no batch of 5 in 4 images"):
        dataclasses.replace(recipe, steps=9).total_steps(4)


@pytest.mark.parametrize("schedule, rates", [("cosine", optim.cosine(0.01, 10)),
                                             ("one-cycle", optim.one_cycle(0.01, 10))])
def test_the_schedules_span_the_run(schedule, rates):
    events, _, _ = trained(dataclasses.replace(FAST, schedule=schedule))
    assert [e.lr for e in events if isinstance(e, Step)] == [rates(step) for step in range(10)]


CHOICES = {
    "adam": {"optimizer": "adam"}, "adamw": {"optimizer": "adamw", "decay_vectors": False, "weight_decay": 0.1},
    "smooth": {"label_smoothing": 0.2}, "nesterov": {"nesterov": True}, "clip": {"clip": 0.1},
    "one cycle": {"schedule": "one-cycle", "drop_last": True},
}


@pytest.mark.parametrize("choice", CHOICES)
def test_a_run_resumes_to_the_same_bits(choice):
    recipe = dataclasses.replace(FAST, **CHOICES[choice])
    model, at, moments = net(), Progress(), []
    for _ in fit(model, TRAIN, TEST, recipe, rng=7, at=at):
        moments.append(copy.deepcopy(({n: t.data for n, t in model.state().items()}, at)))
    whole = trained(recipe)
    assert not same(whole, trained())  # the choice has an effect
    for after in 3, 6, 8:
        arrays, at = copy.deepcopy(moments[after - 1])
        again = net(99)
        again.load_state(arrays)
        events, state, end = trained(recipe, model=again, at=at)
        assert same((events, state), (whole[0][after:], whole[1]))
        kept = [(getattr(end, name), getattr(whole[2], name)) for name in train.KEPT]
        assert all(a is b is None or same_bits(a, b) for a, b in kept) and any(a is not None for a, _ in kept)


def test_a_recipe_makes_the_optimiser():
    adamw = train.optimizer_of(net(), Recipe(optimizer="adamw", momentum=0.8, beta2=0.95, weight_decay=0.1, lr=0.3,
                                             decay_vectors=False))
    assert type(adamw) is optim.AdamW and adamw.betas == (0.8, 0.95) and adamw.lr == 0.3
    assert [group.weight_decay for group in adamw.groups] == [None, 0.0] and adamw.weight_decay == 0.1
    sgd = train.optimizer_of(net(), Recipe(nesterov=True))
    assert type(sgd) is optim.SGD and sgd.nesterov and len(sgd.groups) == 1
    assert type(train.optimizer_of(net(), Recipe(optimizer="adam"))) is optim.Adam


def test_adam_without_its_arrays_is_refused():
    _, state, at = trained(dataclasses.replace(FAST, optimizer="adam", epochs=1))
    model = net()
    model.load_state(state)
    with pytest.raises(ValueError, match=r"fit: expected at.velocity of shape \(\d+,\) for this model, got None"):
        trained(FAST, model=model, at=at)


def test_clipping_limits_the_norm(monkeypatch):
    found = []
    clip = optim.clip_gradients
    monkeypatch.setattr(optim, "clip_gradients", lambda parameters, most: found.append(
        (float(clip(parameters, most)), float(clip(parameters, 1e9)))))
    trained(dataclasses.replace(FAST, clip=0.25, epochs=1))
    assert len(found) == 5 and max(before for before, _ in found) > 0.25
    assert all(after == pytest.approx(min(before, 0.25), rel=1e-4) for before, after in found)


# ------------------------------------------------------------------------------------- losses, optimisers, measures


def test_a_loss_of_ones_own():
    calls = []

    def loss(output, labels):
        calls.append(labels)
        return ops.cross_entropy(output, labels) * 2

    events, _state, _ = trained(loss=loss)
    plain, _, _ = trained()
    assert events[0].loss == pytest.approx(2 * plain[0].loss, rel=1e-6) and len(calls) == 10
    assert same(trained(loss=ops.cross_entropy), trained())


def test_targets_that_are_not_classes():
    """Regression: another loss, and another measure than the error."""
    targets, tested = (x.mean((1, 2, 3), keepdims=True)[:, 0, 0] * np.ones(10, "f4") for x in (TRAIN[0], TEST[0]))
    seen = []

    def measure(model, images, labels):
        seen.append(len(images))
        return 12.5

    events, _, _ = trained(learn=(TRAIN[0], targets), test=(TEST[0], tested), measure=measure,
                           loss=lambda output, labels: ((output - labels) ** 2).mean())
    steps = [e.loss for e in events if isinstance(e, Step)]
    assert seen == [23, 9] * 2 and steps[-1] < steps[0]
    assert [(e.train_error, e.test_error) for e in events if isinstance(e, Epoch)] == [(12.5, 12.5)] * 2
    with pytest.raises(ValueError, match=r"got shape \(23, 10\); for labels of another shape, give loss= and measure="):
        trained(learn=(TRAIN[0], targets))


def test_a_measure_does_not_keep_the_batches():
    """Batches that a generator makes may be larger than the memory, together."""
    alive = []

    def batches(epoch):
        for i in range(4):
            x = TRAIN[0][i:i + 5].copy()
            alive.append(weakref.ref(x))
            yield x, TRAIN[1][i:i + 5]
            del x

    def measure(model, images, labels):
        living.append(sum(ref() is not None for ref in alive))
        return 0.0

    living = []
    trained(dataclasses.replace(FAST, steps=4), learn=batches, test=batches, measure=measure)
    assert living and max(living) <= 2


@pytest.mark.parametrize("loss, says", [(lambda y, labels: y, r"got shape \(5, 10\); .mean\(\) makes one"),
                                        (lambda y, labels: 1.0, "got float; compute it with operations on"),
                                        (lambda y, labels: y.data.mean(), "got float32"),
                                        (lambda y, labels: None, "got NoneType")])
def test_a_loss_that_is_not_one_number_is_refused(loss, says):
    with pytest.raises(TypeError, match=f"step, loss: expected a Tensor with one number, {says}"):
        trained(loss=loss)


def test_a_loss_that_no_parameter_reaches_is_refused():
    with pytest.raises(ValueError, match="step, loss: expected a Tensor that was computed from the model's output"):
        trained(loss=lambda y, labels: y.detach().mean())


def test_a_graphed_step_takes_the_same_losses():
    """Regression: targets that are floats were cut to integers, and a loss that is an array had no attribute."""
    targets, tested = (x.mean((1, 2, 3), keepdims=True)[:, 0, 0] * np.ones(10, "f4") for x in (TRAIN[0], TEST[0]))
    own = {"learn": (TRAIN[0], targets), "test": (TEST[0], tested), "measure": lambda *_: 1.0,
           "loss": lambda output, labels: ((output - labels) ** 2).mean()}
    assert same(trained(graph=True, **own), trained(**own))
    for loss, error, says in ((lambda y, labels: np.ones(3), TypeError, "with one number, got ndarray"),
                              (lambda y, labels: y.detach().mean(), ValueError, "got a constant")):
        with pytest.raises(error, match=f"GraphedStep, loss: .*{says}"):
            trained(graph=True, loss=loss)


OTHER = optim.SGD(net().parameters(), 0.1)  # of another model


@pytest.mark.parametrize("options, error, says", [
    ({"loss": "mse"}, TypeError, "fit, loss: expected a function, got str"),
    ({"augment": 3}, TypeError, "fit, augment: expected a function, got int"),
    ({"schedule": 0.1}, TypeError, "fit, schedule: expected a function, got float"),
    ({"schedule": lambda step: "fast"}, TypeError, "fit, schedule: expected it to return a number, got str"),
    ({"schedule": lambda step: -0.1}, ValueError, "fit, schedule: expected it to return a finite number >= 0, got -"),
    ({"schedule": lambda step: math.nan}, ValueError, "expected it to return a finite number >= 0, got nan"),
    ({"measure": lambda *_: None}, TypeError, "fit, measure: expected it to return a number, got NoneType"),
    ({"measure": lambda *_: np.ones(3)}, TypeError, "fit, measure: expected it to return a number, got ndarray"),
    ({"optimizer": optim.Adam}, TypeError, "fit, optimizer: expected an Optimizer, such as .*, got type"),
    ({"optimizer": OTHER}, ValueError, "fit, optimizer: it has no parameter of this model, so nothing would be"),
    ({"at": 5}, TypeError, "fit, at: expected a Progress, got int"),
    ({"recipe": "demo"}, TypeError, r"fit, recipe: expected a Recipe, such as recipes.named\(.demo.\), got str"),
    ({"model": lambda x: x}, TypeError, "fit, model: expected a Module, got function"),
    ({"learn": (TRAIN[0][:0], TRAIN[1][:0])}, ValueError, "fit, train: expected at least one image, got none"),
])
def test_wrong_arguments_are_refused(options, error, says):
    with pytest.raises(error, match=says):
        trained(**options)


@pytest.mark.parametrize("rng", [None, "0", 1.5, np.random, np.random.RandomState(0)], ids=lambda rng: str(rng)[:9])
def test_what_is_no_source_of_randomness_is_refused(rng):
    with pytest.raises(TypeError, match=r"fit, rng: expected a numpy\.random\.Generator or a whole number as seed"):
        list(fit(net(), TRAIN, TEST, FAST, rng=rng))


def test_label_smoothing_is_that_of_the_operation():
    smooth = dataclasses.replace(FAST, label_smoothing=0.2)
    loss = functools.partial(ops.cross_entropy, label_smoothing=0.2)
    assert same(trained(smooth), trained(loss=loss)) and same(trained(smooth, graph=True), trained(smooth))


def test_label_smoothing_beside_a_loss_is_refused():
    with pytest.raises(ValueError, match=r"recipe.label_smoothing=0.1 is part of the cross-entropy"):
        trained(dataclasses.replace(FAST, label_smoothing=0.1), loss=ops.cross_entropy)


def test_an_optimiser_of_ones_own_has_its_own_rates():
    model = net()
    head = model.fc.parameters()
    trunk = [p for p in model.parameters() if all(p is not q for q in head)]
    before = {name: t.data.copy() for name, t in model.state().items()}
    its = optim.SGD([optim.Group(trunk, lr_factor=0.0), optim.Group(head)], 0.1)
    trained(model=model, optimizer=its, schedule=optim.constant(0.5))
    moved = [name for name, t in model.state().items() if t.requires_grad and not same_bits(t.data, before[name])]
    assert moved == ["fc.weight", "fc.bias"] and its.lr == 0.5


def test_adam_is_not_recorded():
    with pytest.raises(ValueError, match="GraphedStep: expected SGD, got Adam, whose number of updates is on the host"):
        trained(dataclasses.replace(FAST, optimizer="adam"), graph=True)


@pytest.mark.parametrize("choice", ["nesterov", "clip"])
def test_a_graphed_run_has_the_same_bits(choice):
    recipe = dataclasses.replace(FAST, **CHOICES[choice])
    assert same(trained(recipe, graph=True), trained(recipe))


def test_another_factor_causes_a_new_recording():
    model = net()
    its = optim.SGD([optim.Group(model.parameters())], 0.1)
    step = cuda_graph.GraphedStep(model, its, TRAIN[0][:5], TRAIN[1][:5], loss=ops.cross_entropy, clip=1.0)
    first = step.recorded_with
    its.groups[0].lr_factor = 0.0
    before = model.fc.weight.data.copy()
    step(TRAIN[0][:5], TRAIN[1][:5])
    assert step.recorded_with != first and same_bits(model.fc.weight.data, before)


# ------------------------------------------------------------------------------------------------------- batches


def cut(arrays, order):
    return [(arrays[0][rows], arrays[1][rows]) for rows in order]


class Passes:
    """A data set that counts how often it is iterated over."""

    def __init__(self, batches): self.batches, self.passes = batches, 0

    def __len__(self): return len(self.batches)

    def __iter__(self):
        self.passes += 1
        return iter(self.batches)


def test_batches_train_as_the_arrays_that_they_are_cut_from():
    from minires.datasets import batches, epoch_rng

    def epoch(number):
        return cut(TRAIN, batches(23, 5, rng=epoch_rng(7, number)))

    whole = trained()
    recipe = dataclasses.replace(FAST, epochs=99, steps=10, batch_size=1)
    assert same(trained(recipe, learn=epoch), whole)
    assert same(trained(recipe, learn=epoch, test=cut(TEST, [slice(0, 4), slice(4, 9)])), whole)
    assert same(trained(FAST, learn=epoch), whole)  # a list has a length, so the epochs decide
    assert same(trained(recipe, learn=lambda number: iter(epoch(number))), whole)


@pytest.mark.parametrize("after", [3, 5, 6, 8])
def test_batches_resume_to_the_same_bits(after):
    def epoch(number):
        yield from cut(TRAIN, np.random.default_rng(number).permutation(23)[:20].reshape(4, 5))

    recipe = dataclasses.replace(FAST, steps=8, crop=1, flip=True)
    whole = trained(recipe, learn=epoch)
    model, at = net(), Progress()
    for number, _ in enumerate(fit(model, epoch, TEST, recipe, rng=7, at=at), 1):
        if number == after:
            break
    events, state, _ = trained(recipe, learn=epoch, model=model, at=at)
    assert same((events, state), (whole[0][after:], whole[1]))


def test_a_list_of_batches_and_what_is_measured():
    passes = Passes(cut(TRAIN, [slice(0, 7), slice(7, 23)]))
    events, _, _ = trained(dataclasses.replace(FAST, steps=3, warm_up_lr=1e-3, warm_up_layers=8), learn=passes)
    assert [e.images for e in events if isinstance(e, Step)] == [7, 16, 7]
    assert passes.passes == 5  # the images' shape for the warm-up; two epochs, each measured once more
    assert all(e.lr == 1e-3 for e in events if isinstance(e, Step))
    errors = [e.train_error for e in events if isinstance(e, Epoch)]
    assert errors[1] * 7 / 100 == pytest.approx(round(errors[1] * 7 / 100))  # over the batch it trained on
    endless = (lambda number: (TRAIN for _ in iter(int, 1)))
    assert len(trained(dataclasses.replace(FAST, steps=3), learn=endless)[0]) == 4


def test_a_measure_of_batches_is_their_mean():
    events, _, _ = trained(dataclasses.replace(FAST, steps=2), learn=cut(TRAIN, [slice(0, 3), slice(3, 23)]),
                           measure=lambda model, x, y: float(len(x)))
    assert events[-1].train_error == pytest.approx((3 * 3 + 20 * 20) / 23)


@pytest.mark.parametrize("learn, recipe, error, says", [
    (lambda n: iter(cut(TRAIN, [slice(0, 5)])), FAST, ValueError, "batches without a length need recipe.steps"),
    (iter(cut(TRAIN, [slice(0, 5)])), dataclasses.replace(FAST, steps=3), ValueError,
     "fit, train: expected batches that can be read once for each epoch, got a list_iterator; give a list"),
    (lambda n: [], dataclasses.replace(FAST, steps=3), ValueError, "fit, train: epoch 1 has no batch"),
    (3, FAST, TypeError, r"fit, train: expected \(images, labels\) or an iterable of such batches, got int"),
    ([TRAIN[0]], FAST, ValueError, r"expected every batch as \(images, labels\), two arrays"),
    ([(TRAIN[0], TRAIN[1][:4])], FAST, ValueError, r"got arrays of shapes \(23, 1, 8, 8\) and \(4,\)"),
    ([*TRAIN], FAST, ValueError, r"got ndarray; a whole data set is a tuple \(images, labels\)"),
    (np.zeros((3, 2)), FAST, ValueError, r"got arrays of shapes \(\) and \(\)"),
    ([*zip(*TRAIN, strict=True)], FAST, ValueError, r"got arrays of shapes \(1, 8, 8\) and \(\)"),
    ([], FAST, ValueError, "fit, train: expected at least one batch, got none"),
    (lambda: [TRAIN], FAST, TypeError, "fit, train: expected a function of one argument, the number of an"),
    (lambda n: None, dataclasses.replace(FAST, steps=3), TypeError, "to return an iterable, got NoneType"),
    (cut(TRAIN, [slice(0, 5)]), dataclasses.replace(FAST, drop_last=True), ValueError, "drop_last has no effect on"),
])
def test_wrong_batches_are_refused(learn, recipe, error, says):
    with pytest.raises(error, match=says):
        trained(recipe, learn=learn)


class Ends(Passes):
    """A data set whose later passes end early."""

    def __iter__(self): return iter([*super().__iter__()][:1 if self.passes > 2 else None])


def test_batches_that_end_early_are_noticed():
    """Regression: the run made up for them with more epochs than the recipe has."""
    batches = cut(TRAIN, [slice(0, 7), slice(7, 23)])
    with pytest.raises(ValueError, match=r"fit, train: epoch 2 had 1 batches, and len\(\) says 2; with recipe.steps"):
        trained(learn=Ends(batches))
    assert len(trained(dataclasses.replace(FAST, steps=4), learn=Ends(batches))[0]) == 4 + 3


def test_no_test_batch():
    with pytest.raises(ValueError, match="fit, test: expected at least one batch, got none"):
        trained(test=[])


# ------------------------------------------------------------------------------------------------ runs and files


SETTINGS = ["train_images=50", "test_images=20", "image_size=7", "model.width=2", "batch_size=16", "epochs=2"]
MORE = ["optimizer=adamw", "schedule=cosine", "clip=1.5", "decay_vectors=false", "drop_last=true", "beta2=0.99"]


def test_set_reaches_every_field():
    for name in recipes.ADDED:
        text = {"optimizer": "adam", "schedule": "cosine", "nesterov": "true", "decay_vectors": "false",
                "drop_last": "true"}.get(name, "0.5")
        config = configure("plain20", "fashion_mnist_small", "short-cifar", 0, "cpu", [f"{name}={text}"])
        assert str(getattr(config.recipe, name)).lower() == text
        assert config.to_json()["settings"][name] == getattr(config.recipe, name)
    assert set(recipes.ADDED) < set(vars(Recipe()))


def test_old_files_are_read_and_old_versions_read_new_files():
    plain = configure("plain20", "fashion_mnist_small", "short-cifar", 0, "cpu", SETTINGS)
    new = configure("plain20", "fashion_mnist_small", "short-cifar", 0, "cpu", [*SETTINGS, *MORE])
    raw = plain.to_json()
    # The keys of 0.1.0, whose reader refuses any other key.
    old = {"epochs", "batch_size", "lr", "momentum", "weight_decay", "steps", "drops", "warm_up_lr", "warm_up_layers",
           "crop", "flip"}
    assert raw["format"] == 1 and set(raw["settings"]) == old
    assert new.to_json()["format"] == FORMAT == 2 and set(new.to_json()["settings"]) > old
    for config in plain, new:
        assert RunConfig.from_json(json.dumps(config.to_json()), "x") == config
    assert plain.differences(new) == [
        "settings.beta2: 0.999 there, 0.99 asked for", "settings.clip: 0.0 there, 1.5 asked for",
        "settings.decay_vectors: True there, False asked for", "settings.drop_last: False there, True asked for",
        "settings.drops: [0.5, 0.75] there, [] asked for", "settings.optimizer: sgd there, adamw asked for",
        "settings.schedule: steps there, cosine asked for"]


@pytest.mark.slow
def test_a_run_with_adam_resumes_from_its_checkpoint(tmp_path, capsys):
    begin = ["train", "plain20", "--dataset", "fashion_mnist_small", "--recipe", "short-cifar", "--device", "cpu",
             "--out", str(tmp_path / "whole"), "--set", *SETTINGS, *MORE]
    assert cli.main(begin) == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    newest = max((tmp_path / "again").glob("checkpoint-*"))
    newest.unlink()
    (tmp_path / "again" / "weights.safetensors").unlink()
    assert cli.main(["train", "--resume", "--out", str(tmp_path / "again")]) == 0
    assert "resuming from step 3 of 6" in capsys.readouterr().out
    whole, again = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "again"))
    assert whole == again
    assert runs.read(tmp_path / "again").config.recipe.optimizer == "adamw"


def test_events_print_as_a_person_writes_them():
    assert str(Step(3, 2.302585092994046, 5, 0.05)) == "step 3: loss 2.303, lr 0.05"
    assert str(Epoch(1, 2.31, 31.819999999999997, 50.0)) == ("epoch 1: mean loss 2.31, training error 31.82, "
                                                             "test error 50")
    assert math.isclose(eval(repr(Step(3, 2.5, 5, 0.05)), {"Step": Step}).loss, 2.5)


def test_freezing_and_adam():
    model = net()
    model.freeze("layer1")
    frozen = {name: t.data.copy() for name, t in model.state().items() if name.startswith("layer1")}
    trained(dataclasses.replace(FAST, optimizer="adam", epochs=1), model=model)
    assert frozen and all(same_bits(model.state()[name].data, a) for name, a in frozen.items())
    assert isinstance(model.fc, nn.Linear)
