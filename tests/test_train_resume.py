"""Test recipes, and that training resumes from any step with the same bits."""

import copy
import dataclasses

import numpy as np
import pytest
from planting import plant

from minires import datasets, models, recipes, train
from minires.recipes import RECIPES, Recipe, override, parse
from minires.train import Epoch, Progress, Step, fit

RECIPE = Recipe(epochs=3, batch_size=5, lr=0.2, drops=(0.5, 0.8), warm_up_lr=0.01, warm_up_layers=8, crop=1, flip=True)


def net():
    return models.cifar(8, in_channels=1, width=2, rng=np.random.default_rng(0))


def data(n, seed):
    """Return images from which the class can be learned, so that the warm-up ends."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, n)
    images = rng.standard_normal((n, 1, 8, 8), np.float32) / 4
    images[np.arange(n), 0, labels % 8, labels // 2] += 4
    return images, labels


TRAIN, TEST = data(23, 1), data(9, 2)  # 5 steps per epoch, the last of which has 3 images


def run(model, at, recipe=RECIPE, seed=7):
    return list(fit(model, TRAIN, TEST, recipe, rng=seed, at=at))


def bits(model, at):
    arrays = [t.data.tobytes() for t in model.state().values()]
    return arrays, at.velocity.tobytes(), dataclasses.replace(at, velocity=0)


@pytest.fixture(scope="module")
def whole():
    """Return (events, a copy of (model, progress) after each event, final bits) of a run without interruption."""
    model, at, events, moments = net(), Progress(), [], []
    for event in fit(model, TRAIN, TEST, RECIPE, rng=7, at=at):
        events.append(event)
        moments.append(copy.deepcopy(({n: t.data for n, t in model.state().items()}, at)))
    return events, moments, bits(model, at)


def gone_on(moment):
    arrays, at = copy.deepcopy(moment)
    model = models.cifar(8, in_channels=1, width=2, rng=np.random.default_rng(99))
    model.load_state(arrays)
    return run(model, at), bits(model, at)


@pytest.mark.parametrize("after", range(1, 19))
def test_a_run_that_goes_on_from_anywhere_gives_the_same_bits(whole, after):
    events, moments, final = whole
    assert gone_on(moments[after - 1]) == (events[after:], final)


STATE = {"step": 0, "epoch": 0, "batch": 0, "loss_sum": 0.0, "warming_up": False, "velocity": None}


@pytest.mark.parametrize("field", STATE)
def test_no_part_of_the_progress_can_be_left_out(whole, field):
    """In the second epoch, in which the warm-up has just ended or still lasts, every part has an effect."""
    events, moments, final = whole
    arrays, at = copy.deepcopy(moments[1])  # still in the warm-up
    assert at.warming_up and at.batch == 2
    if field == "epoch":
        arrays, at = copy.deepcopy(moments[7])
    nothing = np.zeros_like(at.velocity) if field == "velocity" else STATE[field]
    assert gone_on((arrays, dataclasses.replace(at, **{field: nothing})))[1] != final or field == "loss_sum"
    if field == "loss_sum":
        later = [e for e in gone_on((arrays, dataclasses.replace(at, loss_sum=0.0)))[0] if isinstance(e, Epoch)]
        assert later[0].train_loss < next(e for e in events if isinstance(e, Epoch)).train_loss


def test_the_order_follows_from_seed_and_epoch_alone(monkeypatch):
    seen = []
    monkeypatch.setattr(train, "step", lambda model, optimizer, x, labels, number: seen.append(x[:, 0, 0, 0]) or 0.0)
    # private: the steps are replaced, so there is nothing to measure
    monkeypatch.setattr(train, "_measured", lambda *args: (True, [0.0, 0.0]))
    images = np.arange(23, dtype=np.float32).reshape(23, 1, 1, 1) * np.ones((1, 1, 8, 8), np.float32)
    for seed, at in (7, Progress()), (8, Progress()), (7, Progress(epoch=1, step=5, velocity=0)):
        seen.append("run")
        if at.step:
            at.velocity = np.zeros(sum(p.size for p in net().parameters()), np.float32)
        list(fit(net(), (images, TRAIN[1]), TEST, Recipe(epochs=2, batch_size=5), rng=seed, at=at))
    starts = [i for i, rows in enumerate(seen) if isinstance(rows, str)]
    first, other, second_epoch = (np.concatenate(seen[a + 1:b]).astype(int).tolist()
                                  for a, b in zip(starts, [*starts[1:], None], strict=True))
    assert sorted(first[:23]) == sorted(first[23:]) == list(range(23)) and first[:23] != first[23:]
    assert other != first and second_epoch == first[23:]


@pytest.mark.parametrize("name, old, new", [
    ("_fit", "islice(order, at.batch, ANY)", "islice(order, 0, ANY)"), ("_fit", "ANY or at.batch", "ANY"),
    ("_fit", "_draws(rng, at.epoch + 1, at.batch + 1)", "np.random.default_rng()"),
    ("_go_on", "setattr(optimizer, name, ANY)", "pass"),
])
def test_a_bug_planted_in_the_loop_is_caught(whole, name, old, new, monkeypatch):
    plant(monkeypatch, train, name, old, new)
    events, moments, final = whole
    assert any(gone_on(moments[after]) != (events[after + 1:], final) for after in (2, 16))


def test_the_order_is_that_of_epoch_rng():
    draws = train._draws  # private: its draws must equal those of the public function
    assert draws(3, 5).random() == datasets.epoch_rng(3, 5).random() != draws(3, 5, 1).random()


def test_a_generator_cannot_go_on():
    model, at = net(), Progress()
    next(fit(model, TRAIN, TEST, RECIPE, rng=np.random.default_rng(0), at=at))
    with pytest.raises(ValueError, match="to resume from step 1, expected rng to be the seed of that run"):
        next(fit(model, TRAIN, TEST, RECIPE, rng=np.random.default_rng(0), at=at))


def test_the_momentum_of_another_model_is_refused():
    at = Progress(step=1, batch=1, velocity=np.zeros(3, np.float32))
    with pytest.raises(ValueError, match=r"expected at.velocity of shape \(\d+,\) for this model, got \(3,\)"):
        next(fit(net(), TRAIN, TEST, RECIPE, rng=0, at=at))


# ----------------------------------------------------------------------------------------- what a recipe does


def rates(recipe, monkeypatch, errors=(0.0,) * 9):
    """Return the learning rate of every step for these training errors after the epochs."""
    told = iter(errors)
    # private: real training cannot be made to give these errors
    monkeypatch.setattr(train, "_measured", lambda *args: (True, [next(told), 50.0]))
    monkeypatch.setattr(train, "step", lambda *args: 0.0)
    return [event.lr for event in run(net(), Progress(), recipe) if isinstance(event, Step)]


def test_lr_drops_at_the_shares_of_the_run(monkeypatch):
    found = rates(Recipe(steps=8, batch_size=5, lr=0.1, drops=(0.5, 0.75)), monkeypatch)
    assert found == pytest.approx([0.1] * 4 + [0.01] * 2 + [0.001] * 2, rel=1e-12)


def test_the_papers_drops_are_at_32k_and_48k():
    paper = RECIPES["paper-cifar"]
    assert [share * paper.total_steps(50_000) for share in paper.drops] == [32_000, 48_000]
    assert paper.total_steps(50_000) == paper.total_steps(45_000) == 64_000
    assert (paper.batch_size, paper.lr, paper.momentum, paper.weight_decay) == (128, 0.1, 0.9, 1e-4)
    assert (paper.crop, paper.flip, paper.warm_up_lr, paper.warm_up_layers) == (4, True, 0.01, 110)
    short = RECIPES["short-cifar"]
    assert short.total_steps(50_000) == 8 * 391 and dataclasses.replace(short, epochs=3, steps=64_000) == paper
    assert RECIPES["demo"] == Recipe()


@pytest.mark.parametrize("layers, lr", [(8, 0.01), (9, 0.1)])
def test_the_warm_up_ends_below_80_percent_and_serves_deep_networks(layers, lr, monkeypatch):
    recipe = Recipe(epochs=4, batch_size=12, lr=0.1, warm_up_lr=0.01, warm_up_layers=layers)
    assert rates(recipe, monkeypatch, [91.0, 80.0, 79.9, 95.0]) == [lr] * 6 + [0.1] * 2


def test_a_run_may_end_within_an_epoch():
    events = run(net(), Progress(), Recipe(steps=7, batch_size=5))
    assert [type(e) for e in events] == [Step] * 5 + [Epoch] + [Step] * 2 + [Epoch]
    assert events[-1].train_loss == pytest.approx((events[-2].loss + events[-3].loss) / 2)


def test_the_recipes_augmentation_is_the_papers(monkeypatch):
    seen = []
    monkeypatch.setattr(train, "step", lambda model, optimizer, x, *rest: seen.append(x) or 0.0)
    run(net(), Progress(), Recipe(epochs=1, batch_size=23, crop=4, flip=True))
    rng = np.random.default_rng(np.random.SeedSequence(7, spawn_key=(1,)))
    order = rng.permutation(23)
    draws = np.random.default_rng(np.random.SeedSequence(7, spawn_key=(1, 1)))
    np.testing.assert_array_equal(seen[0], datasets.crop_and_flip(TRAIN[0][order], rng=draws))


# -------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize("kind, text, value", [(int, "12", 12), (float, "1e-3", 0.001), (bool, "True", True),
                                               (bool, "false", False), (str, "B", "B"),
                                               (tuple[float, ...], "0.5,0.75", (0.5, 0.75)),
                                               (tuple[float, ...], "", ())])
def test_settings_are_read_by_their_type(kind, text, value):
    read = parse("key", text, kind)
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize("kind, text, says", [(int, "1.5", "a whole number, got '1.5'"), (float, "x", "a number, got"),
                                              (bool, "maybe", "true or false"),
                                              (tuple[float, ...], "a,b", "numbers, as in 0.5,0.75")])
def test_settings_of_another_type_are_refused(kind, text, says):
    with pytest.raises(ValueError, match=f"setting lr: expected {says}"):
        parse("lr", text, kind)


def test_override_reads_every_field_of_a_recipe():
    texts = {"epochs": "5", "lr": "0.3", "drops": "0.1", "flip": "true"}
    assert override(Recipe(), texts) == Recipe(epochs=5, lr=0.3, drops=(0.1,), flip=True)


@pytest.mark.parametrize("wrong, says", [({"epochs": 0}, "epochs >= 1, got 0"), ({"batch_size": 0}, "batch_size >= 1"),
                                         ({"lr": float("nan")}, "lr to be finite"), ({"crop": -1}, "crop >= 0"),
                                         ({"drops": (0.5, 0.5)}, "drops to rise"),
                                         ({"drops": (1.0,)}, "between 0 and 1")])
def test_recipes_that_make_no_sense_are_refused(wrong, says):
    with pytest.raises(ValueError, match=f"recipe: expected .*{says}"):
        Recipe(**wrong)


def test_an_unknown_recipe_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="'paper-cifr'; did you mean paper-cifar"):
        recipes.named("paper-cifr")


def test_a_graphed_run_gives_the_same_bits_and_goes_on_too(whole):
    events, moments, expected = whole
    model, at = net(), Progress()
    assert list(fit(model, TRAIN, TEST, RECIPE, rng=7, at=at, graph=True)) == events and bits(model, at) == expected

    model, at = net(), copy.deepcopy(moments[7][1])
    model.load_state(moments[7][0])
    assert list(fit(model, TRAIN, TEST, RECIPE, rng=7, at=at, graph=True)) == events[8:]
    assert bits(model, at) == expected


def test_a_graphed_run_that_diverges_ends_as_one_that_is_not_graphed():
    ends, recipe = [], dataclasses.replace(RECIPE, lr=1e30, warm_up_lr=0)
    for graph in False, True:
        model, at = net(), Progress()
        with pytest.raises(train.NotFinite, match=r"step \d+: the loss is (nan|inf).*non-finite values are in the "
                                                  r"output") as e:
            list(fit(model, TRAIN, TEST, recipe, rng=7, at=at, graph=graph))
        ends.append((str(e.value), bits(model, at)))
    assert ends[0] == ends[1]


def test_a_warm_up_that_never_ends_keeps_to_the_drops():
    noise = np.random.default_rng(3)
    images, labels = noise.standard_normal((40, 1, 8, 8), np.float32), np.arange(40) % 10
    recipe = Recipe(epochs=4, batch_size=10, drops=(0.25, 0.5), warm_up_lr=0.01, warm_up_layers=8)
    events = list(fit(net(), (images, labels), TEST, recipe, rng=7))
    rates = [e.lr for e in events if isinstance(e, Step)]
    assert [e.train_error for e in events if isinstance(e, Epoch)] >= [80] * 4
    assert rates == pytest.approx([0.01] * 8 + [0.001] * 8)
