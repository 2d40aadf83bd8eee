"""Test the networks of detection: what they are trained on, what stays fixed, the loss, the training, and detecting."""

import dataclasses

import numpy as np
import pytest
from helpers import same_bits
from planting import plant

from minires import Tensor, gradcheck, models, nn, ops, optim, shipped_file
from minires.datasets import Scenes, scenes
from minires.detection import (
    FCN,
    RECIPES,
    FasterRCNN,
    Recipe,
    average_precision,
    backbone,
    build,
    faster_rcnn,
    fit,
    grid_anchors,
    inputs,
    mean_iou,
    roi_align,
    score,
    training,
)
from minires.train import NotFinite, Progress

F4 = np.float32
SOME = scenes(6, 0, "train")
SHORT = Recipe(images=24, warm_up=2)


def network(kind=FasterRCNN, depth=8, seed=0, width=4, residual=True):
    rng = np.random.default_rng(seed)
    net = models.cifar(depth, residual, in_channels=1, width=width, rng=rng)
    for name, t in net.state().items():  # statistics that differ from their first values
        if "running_mean" in name:
            t.data = (0.1 * rng.standard_normal(t.shape)).astype(F4)
        elif "running_var" in name:
            t.data = (0.2 + 0.2 * rng.uniform(size=t.shape)).astype(F4)
    return kind(net, 10, rng=rng)


# ------------------------------------------------------------------------------------------------- the backbone


def test_the_shared_map_is_that_of_the_classifier():
    net = models.cifar(8, in_channels=1, width=4, rng=np.random.default_rng(0))
    x = Tensor(inputs(SOME.images))
    net.eval()
    h = nn.conv_bn_relu(net.conv1, net.bn1, x)
    for block in [*net.layer1, *net.layer2]:
        h = block(h)
    for kind in FasterRCNN, FCN:
        model = kind(models.cifar(8, in_channels=1, width=4, rng=np.random.default_rng(0)),
                     rng=np.random.default_rng(1))
        np.testing.assert_allclose(model.shared(x).data, h.data, rtol=1e-4, atol=1e-5)
        assert model.shared(x).shape == (6, 8, 28, 28)


def test_names_are_those_of_the_classifier():
    net = models.cifar(8, in_channels=1, width=4)
    names = {name for name in net.state() if not name.startswith("fc.")}
    assert names < set(network().state()) and not any(n.startswith("fc.") for n in network().state())


def test_what_is_fixed_stays_fixed():
    for task, model in ("detection", network()), ("segmentation", network(FCN)):
        before = {name: t.data.copy() for name, t in model.state().items()}
        list(fit(task, model, SHORT, seed=0))
        same = {name for name, t in model.state().items() if same_bits(t.data, before[name])}
        expected = {n for n in before if n.startswith(("conv1", "bn1", "layer1")) or ".bn" in n}
        assert same == expected and any("running_mean" in n for n in same)


def test_every_trained_parameter_is_in_one_group():
    for model in network(), network(FCN):
        grouped = [p for group in model.groups() for p in group.parameters]
        assert len({id(p) for p in grouped}) == len(grouped)
        assert {id(p) for p in grouped} == {id(p) for p in model.parameters()}


def test_a_stage_that_is_not_fixed_gets_gradients():
    model = network()
    model.unfreeze("layer1", "conv1")
    model(Tensor(inputs(SOME.images))).sum().backward()
    assert model.conv1.weight.grad is not None and model.layer1[0].conv1.weight.grad is not None


@pytest.mark.parametrize("net", [models.cifar(8, block="preact", width=4), models.cifar(8, norm="none", width=4)])
def test_a_backbone_without_batch_norm_after_conv1_is_refused(net):
    with pytest.raises(ValueError, match="expected a CIFAR network with a BatchNorm after conv1"):
        FasterRCNN(net, rng=np.random.default_rng(0))


@pytest.mark.parametrize("images", [np.zeros((2, 7, 56), "u1"), np.zeros((2, 56, 56), F4), np.zeros((56, 56), "u1")])
def test_images_that_do_not_fit_are_refused(images):
    with pytest.raises(ValueError, match=r"expected images uint8 \(N, H, W\) with H and W from 8"):
        inputs(images)


def test_inputs():
    got = inputs(np.array([[[0, 255] * 8] * 8], np.uint8))
    assert got.shape == (1, 1, 8, 16) and got.dtype == F4
    np.testing.assert_allclose(got[0, 0, 0, :2], [-backbone.MEAN, 1 - backbone.MEAN], rtol=1e-6)


# ------------------------------------------------------------------------------------------------- the choices


def test_anchors_are_in_the_order_of_the_outputs():
    anchors = grid_anchors(3, 2, ((9, 17), (4, 2)), 4).reshape(2, 3, 2, 4)
    assert anchors[0, 0, 0].tolist() == [2 - 4.5, 2 - 8.5, 2 + 4.5, 2 + 8.5]
    assert anchors[1, 2, 1].tolist() == [6 - 2, 10 - 1, 6 + 2, 10 + 1]
    model = network()
    features = model(Tensor(inputs(SOME.images)))
    objectness, offsets, anchors = model.anchor_outputs(features)
    assert objectness.shape == (6, 6 * 14 * 14) and offsets.shape == (6, 6 * 14 * 14, 4) and len(anchors) == 6 * 14 * 14
    raw = model.anchor_offsets(ops.relu(model.rpn(features))).data
    at = 4 * 14 * 14 + 3 * 14 + 5  # anchor 4 at row 3 and column 5
    np.testing.assert_array_equal(offsets.data[2, at], raw[2, 4 * 4:5 * 4, 3, 5])
    assert anchors[at].tolist() == [22 - 11, 14 - 11, 22 + 11, 14 + 11]


def anchors_get_their_labels():
    """Four anchors: on the object, near it, far from it, and the best one of an object that none fits well."""
    objects = np.array([[0, 0, 10, 10], [40, 0, 50, 10]])
    anchors = np.array([[0, 0, 10, 10], [0, 0, 10, 20], [20, 20, 30, 30], [45, 0, 55, 10]], float)
    labels, targets = faster_rcnn.anchor_targets(anchors, objects, np.random.default_rng(0))
    assert labels.tolist() == [1, -1, 0, 1], "labels of anchors"
    np.testing.assert_allclose(targets, [[0, 0, 0, 0], [0] * 4, [0] * 4, [-0.5, 0, 0, 0]], err_msg="targets")


def test_labels_of_anchors():
    anchors_get_their_labels()
    anchors = grid_anchors(14, 14)
    for i in range(6):
        labels, targets = faster_rcnn.anchor_targets(anchors, SOME.objects(i)[0], np.random.default_rng(i))
        ones = (labels == 1).sum()
        assert (labels != -1).sum() == 32 and 0 < ones <= 16
        there = faster_rcnn.decode(targets[labels == 1], anchors[labels == 1])
        assert (faster_rcnn.iou(there, SOME.objects(i)[0].astype(float)).max(1) > 1 - 1e-9).all()


def test_labels_without_objects():
    rng, none = np.random.default_rng(0), np.zeros((0, 4), int)
    labels, targets = faster_rcnn.anchor_targets(grid_anchors(14, 14), none, rng)
    assert (labels == 0).sum() == 32 and (labels == 1).sum() == 0 and not targets.any()
    found = np.array([[0.0, 0, 5, 5], [9, 9, 20, 20]])
    regions, classes, targets = faster_rcnn.region_targets(found, none, np.zeros(0, int), rng)
    assert classes.tolist() == [0, 0] + [-1] * 10 and regions.shape == (12, 4) and not targets.any()


def test_regions_get_their_classes():
    boxes, labels = np.array([[0, 0, 10, 10], [30, 30, 50, 50]]), np.array([3, 7])
    found = np.array([[0.0, 0, 10, 16], [30, 30, 50, 38], [20, 0, 30, 10]])
    regions, classes, targets = faster_rcnn.region_targets(found, boxes, labels, np.random.default_rng(0))
    rows = {tuple(r): (c, tuple(t)) for r, c, t in zip(regions[:5].tolist(), classes[:5], targets[:5], strict=True)}
    assert rows[(0, 0, 10, 10)] == (4, (0, 0, 0, 0)) and rows[(30, 30, 50, 50)][0] == 8
    assert rows[(20, 0, 30, 10)][0] == rows[(30, 30, 50, 38)][0] == 0
    near, offsets = rows[(0, 0, 10, 16)]
    assert near == 4
    np.testing.assert_allclose(offsets, [0, -3 / 16 / 0.1, 0, np.log(10 / 16) / 0.2])
    assert classes[5:].tolist() == [-1] * 7


def test_at_most_six_regions_have_objects():
    box = np.array([[10, 10, 30, 30]])
    found = np.concatenate([box + np.arange(4) * [[1], [0]] * 0.3 for _ in range(5)]).astype(float)
    far = np.array([[40.0, 40, 50, 50]]).repeat(9, 0)
    _, classes, _ = faster_rcnn.region_targets(np.concatenate([found, far]), box, np.array([2]),
                                               np.random.default_rng(0))
    assert sorted(classes.tolist()) == [0] * 6 + [3] * 6


def test_proposals_are_ranked_clipped_and_apart():
    anchors = grid_anchors(14, 14)
    rng = np.random.default_rng(0)
    objectness, offsets = rng.standard_normal((2, len(anchors))), 0.3 * rng.standard_normal((2, len(anchors), 4))
    for found, s in zip(faster_rcnn.proposals(objectness, offsets, anchors, (50, 56), 20), objectness, strict=True):
        assert 5 < len(found) <= 20 and found.min() >= 0 and (found.max(0) <= [56, 50, 56, 50]).all()
        assert np.triu(faster_rcnn.iou(found, found), 1).max() <= 0.7
        best = faster_rcnn.clip(faster_rcnn.decode(offsets[list(objectness.sum(1)).index(s.sum())][s.argmax()],
                                                   anchors[s.argmax()]), 50, 56)
        np.testing.assert_allclose(found[0], best)


# ---------------------------------------------------------------------------------------------------- the loss


def leaves(model, features):
    """Make the outputs for anchors leaves of the graph, and return them."""
    objectness, offsets, anchors = model.anchor_outputs(features)
    fixed = Tensor(objectness.data, True), Tensor(offsets.data, True), anchors
    model.anchor_outputs = lambda features: fixed
    return fixed


def unused_anchors_have_no_gradient():
    model = network()
    features = model(Tensor(inputs(SOME.images)))
    objectness, offsets, anchors = leaves(model, features)
    model.loss(features, SOME, rng=np.random.default_rng(3)).backward()
    rng = np.random.default_rng(3)
    labels = np.stack([faster_rcnn.anchor_targets(anchors, SOME.objects(i)[0], rng)[0] for i in range(6)])
    assert ((objectness.grad != 0) == (labels != -1)).all(), "unused anchors are in the loss"
    assert ((offsets.grad != 0).any(-1) == (labels == 1)).all(), "offsets of ground are in the loss"


def test_unused_anchors_have_no_gradient():
    unused_anchors_have_no_gradient()


def test_the_loss_by_hand():
    """An untrained head with weights 0: classes cost log 11, and the offsets of all that is right are their targets."""
    model = network()
    for layer in model.class_scores, model.box_offsets, model.objectness, model.anchor_offsets:
        layer.weight.data, layer.bias.data = 0 * layer.weight.data, 0 * layer.bias.data
    features = model(Tensor(inputs(SOME.images)))
    got = model.loss(features, SOME, rng=np.random.default_rng(3)).item()
    rng, anchors = np.random.default_rng(3), grid_anchors(14, 14)
    pairs = [faster_rcnn.anchor_targets(anchors, SOME.objects(i)[0], rng) for i in range(6)]
    smooth = lambda t, beta: np.where(abs(t) < beta, t * t / (2 * beta), abs(t) - beta / 2).sum()
    anchor_offsets = sum(smooth(t[labels == 1], 1 / 9) for labels, t in pairs)
    zero = np.zeros((6, len(anchors)))
    found = faster_rcnn.proposals(zero, np.zeros((6, len(anchors), 4)), anchors, (56, 56), 16)
    triples = [faster_rcnn.region_targets(f, *SOME.objects(i), rng) for i, f in enumerate(found)]
    used = sum((classes != -1).sum() for _, classes, _ in triples)
    moves = sum(smooth(t[classes > 0], 1.0) for _, classes, t in triples)
    expected = np.log(2) + anchor_offsets / (32 * 6) + np.log(11) + 0.5 * moves / used
    assert np.isclose(got, expected, rtol=1e-5)


def test_the_gradient_of_the_head():
    """By finite differences, through RoIAlign, stage 3 and both outputs of the head."""
    model = network(width=2).astype(np.float64)
    rng = np.random.default_rng(0)
    for layer in model.class_scores, model.box_offsets:
        layer.weight.data = 0.3 * rng.standard_normal(layer.weight.shape)
    regions = np.array([[[3.0, 4, 15, 13]], [[1, 0, 9, 16]]])

    def head(features):
        scores, moves = model.head(features, regions)
        return ops.concatenate([scores, moves.reshape(2, -1)], 1)

    gradcheck(head, rng.standard_normal((2, 4, 8, 8)))


def test_the_gradient_of_the_loss(monkeypatch):
    """The weights of the output layers, by finite differences in float64. The proposals count as constants, so for the
    weights of the outputs for anchors they are held fixed."""
    model, some = network(width=2).astype(np.float64), SOME[:2]
    features, rng = Tensor(model(Tensor(inputs(some.images).astype(np.float64))).data), np.random.default_rng(0)
    objectness, offsets, anchors = model.anchor_outputs(features)
    found = faster_rcnn.proposals(objectness.data, offsets.data, anchors, (56, 56), 16)
    monkeypatch.setattr(faster_rcnn, "proposals", lambda *_: found)
    for name in "class_scores", "box_offsets", "objectness", "anchor_offsets":
        layer = getattr(model, name)

        def loss(w, layer=layer):
            layer.weight = w
            return model.loss(features, some, rng=np.random.default_rng(1))

        gradcheck(loss, 0.1 * rng.standard_normal(layer.weight.shape), entries=12)


def test_float32_stays_float32():
    model = network()
    features = model(Tensor(inputs(SOME.images)))
    loss = model.loss(features, SOME, rng=np.random.default_rng(0))
    assert features.dtype == loss.dtype == F4
    loss.backward()
    assert {p.grad.dtype for p in model.parameters()} == {np.dtype(F4)}


def test_a_scene_without_objects_is_a_normal_case():
    empty = Scenes(SOME.images[:2], np.zeros((0, 4), int), np.zeros(0, int), np.zeros(0, int), masks=SOME.masks[:2] * 0)
    for model in network(), network(FCN):
        loss = model.loss(model(Tensor(inputs(empty.images))), empty, rng=np.random.default_rng(0))
        loss.backward()
        assert np.isfinite(loss.item()) and all(np.isfinite(p.grad).all() for p in model.parameters())


def test_a_batch_with_nothing_to_classify():
    """No object, and every proposal is outside its image: the head is not trained in this step."""
    empty = Scenes(SOME.images[:2], np.zeros((0, 4), int), np.zeros(0, int), np.zeros(0, int))
    model = network()
    model.anchor_offsets.bias.data += 1000
    loss = model.loss(model(Tensor(inputs(empty.images))), empty, rng=np.random.default_rng(0))
    loss.backward()
    assert np.isfinite(loss.item()) and model.class_scores.weight.grad is None
    assert np.isfinite(model.objectness.weight.grad).all()


@pytest.mark.parametrize("kind", [FasterRCNN, FCN])
def test_an_output_for_other_scenes_is_refused(kind):
    model = network(kind)
    for images, some in (SOME.images, SOME[:1]), (SOME.images[:, :28, :28], SOME):
        with pytest.raises(ValueError, match=f"{kind.__name__}: expected the output for Scenes"):
            model.loss(model(Tensor(inputs(images))), some, rng=np.random.default_rng(0))


@pytest.mark.parametrize("name", ["objectness", "anchor_offsets", "class_scores", "box_offsets"])
def test_a_network_that_is_not_finite_does_not_find_nothing(name):
    model = network()
    getattr(model, name).bias.data[0] = np.nan
    with pytest.raises(ValueError, match="detect: image 0: the network's output is not finite"):
        model.detect(inputs(SOME.images), 0.0)


def test_the_image_with_pixels_that_are_not_finite_is_named():
    x = inputs(SOME.images)
    x[4, 0, 30, 30] = np.nan
    for model, text in (network().detect, "detect"), (network(FCN).predict, "predict"):
        with pytest.raises(ValueError, match=f"{text}: image 4: the network's output is not finite"):
            model(x, batch_size=3)


@pytest.mark.parametrize("f, text", [
    (lambda x: network().detect(x, batch_size=-1), "detect: batch_size: expected a whole number from 1, got -1"),
    (lambda x: network(FCN).predict(x, 0), "predict: batch_size: expected a whole number from 1, got 0"),
    (lambda x: network().detect(x, np.nan), "detect: least_score: expected a number from 0 to 1, got nan"),
    (lambda x: network().detect(x[:, :, :2]), r"with H and W from 8, got \(6, 1, 2, 56\)"),
    (lambda x: FasterRCNN(models.cifar(8, width=4), -1, rng=np.random.default_rng(0)), "num_classes: .*1, got -1"),
    (lambda x: FCN(models.cifar(8, width=4), 256, rng=np.random.default_rng(0)), "at most 255, because masks are"),
    (lambda x: inputs(x.tolist()), "expected images uint8 .*, got list")])
def test_wrong_numbers_are_refused(f, text):
    with pytest.raises(ValueError, match=text):
        f(inputs(SOME.images))


@pytest.mark.parametrize("at, text", [
    (Progress(step=1, velocity=np.zeros(1, F4)), r"expected at.velocity of shape \(\d+,\) for this model, got \(1,\)"),
    (Progress(step=1), "expected at.velocity .* got None"),
    (Progress(step=4), "expected at.step from 0 to 3, .* got 4")])
def test_a_progress_of_another_training_is_refused(at, text):
    with pytest.raises(ValueError, match=f"fit: {text}"):
        next(fit("detection", network(), SHORT, seed=0, at=at))


def test_a_model_of_another_task_is_refused():
    for f in (lambda: next(fit("segmentation", network(), SHORT, seed=0)), lambda: score("segmentation", network())):
        with pytest.raises(TypeError, match=r"(got|and) FasterRCNN"):
            f()
    with pytest.raises(ValueError, match="batch_size: expected at most 10000"):
        next(fit("classification", models.cifar(8, in_channels=1, width=4), Recipe(20_000, batch_size=20_000), seed=0))


def test_segmentation_needs_masks():
    model, bare = network(FCN), Scenes(SOME.images, SOME.boxes, SOME.labels, SOME.scene)
    with pytest.raises(ValueError, match="FCN: expected scenes with masks"):
        model.loss(model(Tensor(inputs(bare.images))), bare)


# -------------------------------------------------------------------------------------------------- training


def test_the_recipes_have_the_schedules_of_the_guide():
    recipe = RECIPES["detection"]
    assert recipe.steps == 600
    assert [recipe.lr_at(k) for k in (0, 9, 19, 389)] == pytest.approx([0.001, 0.01, 0.02, 0.02])
    assert recipe.lr_at(390) == recipe.lr_at(599) == pytest.approx(0.002)
    cosine = RECIPES["classification"]
    assert cosine.steps == 2000 and cosine.lr_at(0) == 0.05 and cosine.lr_at(1000) == pytest.approx(0.025)
    for wrong in {"images": "24"}, {"images": 24.0}, {"lr": None}, {"batch_size": True}:
        with pytest.raises(TypeError, match=r"recipe: .*: expected a .*number, got"):
            Recipe(**{"images": 24} | wrong)
    for wrong in ({"images": 4}, {"lr": float("nan")}, {"drop": 0}, {"batch_size": 0}, {"momentum": float("nan")},
                  {"momentum": 1.0}, {"weight_decay": -1.0}, {"clip": float("inf")}):
        with pytest.raises(ValueError, match="recipe: expected"):
            Recipe(**{"images": 24} | wrong)


@pytest.mark.parametrize("task", ["detection", "segmentation", "classification"])
def test_a_training_that_resumes_has_the_same_bits(task):
    recipe = Recipe(images=12, batch_size=3, warm_up=2)

    def run(*stops):
        model = build(task, "resnet20", width=2, rng=np.random.default_rng(0))
        at, losses = Progress(), []
        for stop in stops:  # a new loop, which begins at `at`
            for event in fit(task, model, recipe, seed=5, at=at):
                losses.append(event.loss)
                if event.step == stop:
                    break
            at = Progress(step=at.step, velocity=at.velocity.copy())
        return losses, {name: t.data for name, t in model.state().items()}

    losses, state = run(4)
    assert len(set(losses)) == 4
    again, other = run(1, 3, 4)
    assert again == losses and all(same_bits(state[name], other[name]) for name in state)


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_training_lowers_the_loss(task):
    """The same four scenes again and again."""
    model = network(FCN if task == "segmentation" else FasterRCNN, width=8)
    optimizer, some = optim.SGD(model.groups(), 0.02, 0.9), SOME[:4]
    losses = []
    for i in range(12):
        optimizer.zero_grad()
        loss = model.loss(model(Tensor(inputs(some.images))), some, rng=np.random.default_rng(i))
        loss.backward()
        optim.clip_gradients(optimizer.parameters, 5.0)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]


def test_a_loss_that_is_not_finite_stops_the_training():
    model = network()
    model.anchor_offsets.bias.data += np.nan
    with pytest.raises(NotFinite, match="step 1: the loss is nan"):
        list(fit("detection", model, SHORT, seed=0))


@pytest.mark.parametrize("f", [lambda: build("detektion", "resnet20", rng=np.random.default_rng(0)),
                               lambda: next(fit("detektion", network(), SHORT, seed=0))])
def test_an_unknown_task_is_refused(f):
    with pytest.raises(ValueError, match="task: unknown name 'detektion'; did you mean detection"):
        f()


# ------------------------------------------------------------------------------------------------- detecting


def test_an_untrained_detector_scores_about_0():
    held = scenes(30, 3, "test")
    model = network()
    found = model.detect(inputs(held.images), least_score=0.0)
    assert len(found) > 1000 and average_precision(found, held).ap() < 0.02
    assert found.boxes.min() >= 0 and found.boxes.max() <= 56 and set(found.scene) == set(range(30))
    assert (found.scores > 0).all() and found.labels.max() == 9


def test_detect_does_not_depend_on_batches_and_changes_nothing():
    model = network()
    model.layer3[0].eval()
    modes = [m.training for _, m in model.modules()]
    x = inputs(SOME.images)
    one, two = model.detect(x, 0.0), model.detect(x, 0.0, batch_size=4)
    assert (one.labels == two.labels).all() and (one.scene == two.scene).all()
    np.testing.assert_allclose(one.boxes, two.boxes, rtol=1e-4, atol=1e-3)
    assert [m.training for _, m in model.modules()] == modes
    for f in model.detect, network(FCN).predict:
        with pytest.raises(ValueError, match="expected at least one image, got none"):
            f(x[:0])


def test_the_head_answers_about_given_regions(monkeypatch):
    """The network's own proposals, given as regions, lead to its own detections; other regions to others."""
    model, x, own = network(), inputs(SOME.images), []
    find = faster_rcnn.proposals
    monkeypatch.setattr(faster_rcnn, "proposals", lambda *args: own.extend(found := find(*args)) or found)
    found = model.detect(x, 0.0, batch_size=4)
    assert len(own) == 6
    same = model.detect(x, 0.0, batch_size=4, regions=own)
    assert len(own) == 6 and len(found) > 100
    assert all(same_bits(getattr(found, n), getattr(same, n)) for n in ("boxes", "scores", "labels", "scene"))
    # One region in the first image, none in the others, and more regions than the network proposes.
    one = model.detect(x, 0.0, regions=[np.array([[3, 4, 20, 30]]), *[np.zeros((0, 4))] * 5])
    assert set(one.scene) == {0} and len(one) == 10
    features = model(Tensor(x[:1]))
    scores, _ = model.head(features, np.array([[[3, 4, 20, 30]]], F4))
    np.testing.assert_allclose(np.sort(one.scores), np.sort(ops.softmax(scores).data[0, 1:]), rtol=1e-4)
    assert len(model.detect(x[:1], 0.0, regions=[np.tile([3.0, 4, 20, 30], (50, 1))])) >= 10


@pytest.mark.parametrize("regions, text", [
    ([np.zeros((0, 4))], "expected one array for each of 2 images, got 1"),
    ([np.zeros((0, 4)), np.array([[3, 4, 3, 9]])], "image 1: expected boxes .* with x0 < x1 and y0 < y1"),
    ([np.array([[0, 0, np.nan, 9]]), np.zeros((0, 4))], "image 0: expected boxes"),
    ([np.zeros(4), np.zeros((0, 4))], "image 0: expected boxes")])
def test_regions_that_are_not_boxes_are_refused(regions, text):
    with pytest.raises(ValueError, match=f"detect: regions: {text}"):
        network().detect(inputs(SOME.images[:2]), regions=regions)


def test_all_layers_of_a_random_backbone_can_be_trained():
    """After unfreeze() a training changes every parameter, and the statistics of every BatchNorm."""
    model = build("detection", "resnet20", width=2, rng=np.random.default_rng(0))
    model.unfreeze()
    before = {name: t.data.copy() for name, t in model.state().items()}
    losses = [step.loss for step in fit("detection", model, dataclasses.replace(SHORT, images=64), seed=0)]
    same = [name for name, t in model.state().items() if same_bits(t.data, before[name])]
    assert same == [] and any("running_var" in name for name in before)
    assert np.isfinite(losses).all() and np.mean(losses[-3:]) < np.mean(losses[:2])


def test_detections_of_one_class_are_apart():
    found = network().detect(inputs(SOME.images), 0.0)
    for i in range(6):
        for label in range(10):
            boxes = found.boxes[(found.scene == i) & (found.labels == label)]
            assert np.triu(faster_rcnn.iou(boxes, boxes), 1).max() <= 0.5


def test_images_of_other_sizes():
    images = np.random.default_rng(0).integers(0, 255, (2, 41, 66)).astype(np.uint8)
    found = network().detect(inputs(images), 0.0)
    assert found.boxes[:, 2].max() <= 66 and found.boxes[:, 3].max() <= 41
    assert network(FCN).predict(inputs(images)).shape == images.shape
    assert len(network().detect(inputs(images[:, :8, :8]), 0.0)) > 0


def test_predict_is_the_largest_score():
    model, x = network(FCN), inputs(SOME.images)
    masks = model.predict(x, batch_size=4)
    assert masks.dtype == np.uint8 and masks.shape == (6, 56, 56)
    assert (masks == model(Tensor(x)).data.argmax(1)).mean() > 0.999
    assert mean_iou(masks, SOME.masks, 11)[0] < 0.3


def test_score_measures_what_each_task_has():
    model = build("detection", "resnet20", width=2, rng=np.random.default_rng(0))
    found = score("detection", model, count=12)
    assert 0 <= found["ap"] <= found["ap50"] < 0.1 and found["localisation_box_alone"] > 50
    model = build("segmentation", "resnet20", width=2, rng=np.random.default_rng(0))
    assert 0 <= score("segmentation", model, count=4)["mean_iou"] < 0.3


@pytest.mark.slow
def test_a_resnet_20_detector_reaches_ap_0_6():
    """One epoch of patches, and two thirds of the recipe's scenes: half a minute on one core."""
    start = shipped_file("weights/fashion-mnist/resnet20.safetensors")
    net = build("classification", "resnet20", weights=start, rng=np.random.default_rng(0))
    list(fit("classification", net, dataclasses.replace(RECIPES["classification"], images=10_000), seed=0))
    model = FasterRCNN(net, rng=np.random.default_rng(0))
    list(fit("detection", model, Recipe(images=3200), seed=0))
    assert score("detection", model)["ap50"] >= 0.6


# -------------------------------------------------------------------------------------------- on the stand-in


def test_the_networks_on_cupy_arrays(cp):
    """One loss with its gradients, and detecting: as on NumPy arrays, up to rounding."""
    some, x = SOME[:2], inputs(SOME.images[:2])
    for kind in FasterRCNN, FCN:
        there, here = network(kind), network(kind)
        for t in there.state().values():
            t.data = cp.asarray(t.data)
        losses = []
        for model, images in (there, cp.asarray(x)), (here, x):
            losses.append(model.loss(model(Tensor(images)), some, rng=np.random.default_rng(0)))
            losses[-1].backward()
        assert np.isclose(losses[0].item(), losses[1].item(), rtol=1e-4)
        for a, b in zip(there.parameters(), here.parameters(), strict=True):
            np.testing.assert_allclose(a.grad.get(), b.grad, rtol=2e-2, atol=2e-4)
        if kind is FasterRCNN:
            found, expected = there.detect(cp.asarray(x), 0.0), here.detect(x, 0.0)
            assert abs(len(found) - len(expected)) < 0.1 * len(expected)
        else:
            assert (there.predict(cp.asarray(x)) == here.predict(x)).mean() > 0.99


# --------------------------------------------------------------------------------------------- planted bugs


def frozen_statistics_stay():
    model = network()
    before = {n: t.data.copy() for n, t in model.state().items() if "running" in n}
    list(fit("detection", model, Recipe(images=8), seed=0))
    moved = [n for n, t in model.state().items() if n in before and not same_bits(t.data, before[n])]
    assert moved == [], "running statistics moved"


BUGS = {
    "unused anchors in the loss": (
        [(FasterRCNN, "loss", "constant(labels != UNUSED)", "constant(labels <= 1)")], unused_anchors_have_no_gradient),
    "offsets of ground in the loss": (
        [(FasterRCNN, "loss", "constant(labels == 1).reshape(N, -1, 1)", "constant(labels >= 0).reshape(N, -1, 1)")],
        unused_anchors_have_no_gradient),
    "the best anchor of an object is not positive": (
        [(faster_rcnn, "anchor_targets", "((overlaps == largest) & (largest > 0)).any(0)",
          "((overlaps == largest) & (largest > 1)).any(0)")], anchors_get_their_labels),
    "anchors between the thresholds are ground": (
        [(faster_rcnn, "anchor_targets", "best < GROUND_BELOW", "best < OBJECT")], anchors_get_their_labels),
    "statistics of BatchNorm that move": (
        [(backbone.OnBackbone, "__init__",
          "self.freeze('conv1', 'bn1', 'layer1', *(m for _, m in self.modules() if isinstance(m, nn.BatchNorm)))",
          "self.freeze('conv1', 'layer1')")], frozen_statistics_stay),
}


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name, monkeypatch):
    places, check = BUGS[name]
    check()
    for place in places:
        plant(monkeypatch, *place)
    with pytest.raises(AssertionError):
        check()


def test_the_list_of_tasks():
    assert set(RECIPES) == set(training.TASKS) and roi_align is faster_rcnn.roi_align
