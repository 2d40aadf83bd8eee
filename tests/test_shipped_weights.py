"""The weights in data/weights/ give the errors and the answers that were recorded for them."""
import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from short import every

from minires import analysis, datasets, detection, evaluate, load_weights, shipped_file
from minires.commands import detect
from minires.runs import RunConfig

DATA = Path(__file__).resolve().parents[1] / "data"
TOLD = {(path.parent / name).relative_to(DATA / "weights").as_posix(): told
        for path in sorted((DATA / "weights").rglob("weights.json"))
        for name, told in json.loads(path.read_text(encoding="utf-8")).items()}
MORE = "recorded", "mean_response", "test_error_float16", "predicted", "generated_logits", "sha256"
CONFIGS = {name: RunConfig.from_json(told, f"weights.json, {name}", beside=MORE) for name, told in TOLD.items()}
FOLDERS = "cifar10/", "fashion-mnist/"
CHANNELS = {"cifar10": 3, "fashion_mnist_small": 1}
_SPEC = importlib.util.spec_from_file_location("make_weights", DATA / "make_weights.py")
make_weights = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(make_weights)


def shipped(name):
    net = CONFIGS[name].build(CHANNELS[TOLD[name]["dataset"]], 10)
    load_weights(net, DATA / "weights" / f"{name}.safetensors")
    return net


def test_every_file_is_told_of_and_small():
    files = [p.relative_to(DATA / "weights").with_suffix("") for p in (DATA / "weights").rglob("*.safetensors")]
    assert sorted(p.as_posix() for p in files if p.parent.name not in ("patches", "detection")) == sorted(TOLD)
    nets = "plain20", "plain56", "resnet20", "resnet56"
    assert set(TOLD) == {folder + net for folder in FOLDERS for net in nets}
    for name, told in TOLD.items():
        content = (DATA / "weights" / f"{name}.safetensors").read_bytes()
        assert hashlib.sha256(content).hexdigest() == told["sha256"] and len(content) < 2e6


@pytest.mark.parametrize("name", TOLD)
def test_generated_images_get_the_recorded_logits(name):
    """This check also works without CIFAR-10."""
    size = TOLD[name]["data"]["image_size"] or 32  # CIFAR-10's own
    logits = evaluate.logits(shipped(name), make_weights.generated(CHANNELS[TOLD[name]["dataset"]], size))
    np.testing.assert_allclose(logits, TOLD[name]["generated_logits"], rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("name", every(3, TOLD))
def test_the_test_set_gets_the_recorded_error_and_answers(name):
    try:
        sets = CONFIGS[name].inputs()
    except FileNotFoundError as e:
        pytest.skip(str(e))
    assert sets.sha256 == TOLD[name]["data_sha256"]
    again = make_weights.answers(shipped(name), *sets.test)
    assert again["test_error_float16"] == pytest.approx(TOLD[name]["test_error_float16"], abs=0.05)
    assert again["test_error_float16"] == pytest.approx(TOLD[name]["recorded"]["test_error"], abs=0.3)
    same = sum(a == b for a, b in zip(again["predicted"], TOLD[name]["predicted"], strict=True))
    assert same >= 0.99 * len(TOLD[name]["predicted"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_depth_hurts_the_plain_networks_that_ship_and_not_the_residual_ones(folder):
    error = {name.removeprefix(folder): told["recorded"]["train_error"] for name, told in TOLD.items()
             if name.startswith(folder)}
    assert error["plain56"] >= error["plain20"] + 2 and error["resnet56"] <= error["plain56"] - 2


@pytest.mark.parametrize("folder", FOLDERS)
def test_responses_are_smaller_in_the_deeper_residual_network(folder):
    """He et al. 2015, Fig. 7, on the networks that ship, from gamma and beta alone."""
    mean = {}
    for name in "plain20", "plain56", "resnet20", "resnet56":
        mean[name] = np.mean(list(analysis.responses_from_parameters(shipped(folder + name)).values()))
        assert mean[name] == pytest.approx(TOLD[folder + name]["mean_response"], abs=1e-3)
    assert mean["resnet56"] < mean["plain56"] and mean["resnet56"] < mean["resnet20"]


# ------------------------------------------------------------------------------------------------- detection

BACKBONES = "plain20", "plain56", "resnet20", "resnet56"
DETECTION = (*(f"patches/{net}" for net in BACKBONES), "detection/resnet20", "detection/resnet56")


@pytest.fixture(scope="module")
def record():
    return json.loads((DATA / "results" / "detection" / "results.json").read_text(encoding="utf-8"))


def of_detection(name):
    """Return the task and the network of a file in weights/patches or weights/detection."""
    folder, backbone = name.split("/")
    task = {"patches": "classification", "detection": "detection"}[folder]
    net = detection.build(task, backbone, rng=np.random.default_rng(0))
    load_weights(net, shipped_file(f"weights/{name}.safetensors"))
    return task, net.eval()


def test_the_record_names_the_files_of_detection_by_their_checksums(record):
    files = [p.relative_to(DATA / "weights").with_suffix("").as_posix()
             for folder in ("patches", "detection") for p in (DATA / "weights" / folder).iterdir()]
    assert sorted(files) == sorted(DETECTION) == sorted(record["shipped"])
    contents = {name: (DATA / "weights" / f"{name}.safetensors").read_bytes() for name in DETECTION}
    for name, content in contents.items():
        assert hashlib.sha256(content).hexdigest() == record["shipped"][name]["sha256"]
    assert sum(len(contents[name]) for name in DETECTION if name.startswith("detection/")) < 1e6
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    assert all(f"{len(content):,}" in readme for content in contents.values())


def test_the_record_is_one_experiment(record):
    """All trainings differ in the backbone and the seed alone, and all on one backbone start with the same weights."""
    assert record["held_back"] == {"part": "test", "scenes": 1000, "seed": 1}
    for task in "detection", "segmentation":
        assert set(record[task]) == set(BACKBONES)
        runs = [run for backbone in BACKBONES for run in record[task][backbone]]
        assert [run["seed"] for run in runs] == 4 * [0, 1, 2]
        assert all(run["recipe"] == runs[0]["recipe"] and run["width"] == 8 and run["task"] == task for run in runs)
        for backbone in BACKBONES:
            assert len({run["weights_sha256"] for run in record[task][backbone]}) == 1
    assert len({json.dumps(record["classification"][backbone]["recipe"]) for backbone in BACKBONES}) == 1


def test_every_recorded_detector_on_resnet_20_reaches_0_6(record):
    assert min(run["score"]["ap50"] for run in record["detection"]["resnet20"]) >= 0.6


def test_the_recorded_controls_are_where_they_must_be(record):
    of, trained = record["controls"], record["detection"]["resnet20"][0]["score"]["ap50"]
    assert of["true boxes and classes"] == 1
    assert max(of["true boxes, shuffled classes"], of["untrained detector"]) < 0.05
    assert of["random backbone, all layers trained"] < trained < of["true boxes as proposals"] < 1


def test_float16_costs_next_to_nothing(record):
    for name in DETECTION:
        after, (folder, backbone) = record["shipped"][name]["score"], name.split("/")
        if folder == "detection":
            before = record["detection"][backbone][0]["score"]
            assert after["ap50"] == pytest.approx(before["ap50"], abs=0.01)
            assert after["ap"] == pytest.approx(before["ap"], abs=0.01)
        else:  # measured on the same patches, at other places and in other sizes
            assert after["error"] == pytest.approx(record["classification"][backbone]["score"]["error"], abs=2)


@pytest.mark.parametrize("name", DETECTION)
def test_a_file_of_detection_reaches_about_its_recorded_score(name, record):
    """Detectors are measured on the first 100 of the 1,000 scenes, so their numbers differ by some points."""
    task, net = of_detection(name)
    again, told = detection.score(task, net, count=100, seed=1), record["shipped"][name]["score"]
    if task == "classification":
        assert again["error"] == pytest.approx(told["error"], abs=0.2)
    else:
        assert again["ap50"] == pytest.approx(told["ap50"], abs=0.1)
        assert again["ap"] == pytest.approx(told["ap"], abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DETECTION if name.startswith("detection/")])
def test_a_detector_reaches_its_recorded_score(name, record):
    task, net = of_detection(name)
    again, told = detection.score(task, net, count=1000, seed=1), record["shipped"][name]["score"]
    assert again["ap50"] == pytest.approx(told["ap50"], abs=0.003)
    assert again["localisation_scenes"] == told["localisation_scenes"]


def test_true_boxes_as_proposals_bound_the_head(record):
    """With the true boxes no proposal is missing or misplaced, so a detector that uses its head well finds more."""
    _, net = of_detection("detection/resnet20")
    held = datasets.scenes(60, 2, "test")
    images = detection.inputs(held.images)
    own, given = (detection.average_precision(net.detect(images, regions=regions), held)
                  for regions in (None, [held.objects(i)[0] for i in range(len(held))]))
    assert own.ap(0.5) + 0.02 < given.ap(0.5) < 1 and own.ap(0.75) < given.ap(0.75)


def test_a_training_begins_with_the_weights_of_patches_that_ship(record):
    for backbone in BACKBONES:
        for task in "detection", "segmentation":
            settings, path = detect.choose(task, backbone, where="cpu")
            assert path == shipped_file(f"weights/patches/{backbone}.safetensors")
            assert settings.weights == f"weights/patches/{backbone}.safetensors"
            assert settings.weights_sha256 == record["shipped"][f"patches/{backbone}"]["sha256"]
