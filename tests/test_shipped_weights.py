"""The weights in data/weights/ give the errors and the answers that were recorded for them."""
import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from short import every

from minires import analysis, evaluate, load_weights
from minires.runs import RunConfig

DATA = Path(__file__).resolve().parents[1] / "data"
TOLD = {(path.parent / name).relative_to(DATA / "weights").as_posix(): told
        for path in sorted((DATA / "weights").rglob("weights.json"))
        for name, told in json.loads(path.read_text(encoding="utf-8")).items()}
MORE = "recorded", "mean_response", "test_error_float16", "predicted", "generated_logits", "sha256"
CONFIGS = {name: RunConfig.from_json(told, f"weights.json, {name}", beside=MORE) for name, told in TOLD.items()}
FOLDERS = "", "fashion-mnist/"
CHANNELS = {"cifar10": 3, "fashion_mnist_small": 1}
_SPEC = importlib.util.spec_from_file_location("make_weights", DATA / "make_weights.py")
make_weights = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(make_weights)


def shipped(name):
    net = CONFIGS[name].build(CHANNELS[TOLD[name]["dataset"]], 10)
    load_weights(net, DATA / "weights" / f"{name}.safetensors")
    return net


def test_every_file_is_told_of_and_small():
    files = (DATA / "weights").rglob("*.safetensors")
    assert sorted(p.relative_to(DATA / "weights").with_suffix("").as_posix() for p in files) == sorted(TOLD)
    nets = "plain20", "plain56", "resnet20", "resnet56"
    assert set(TOLD) == {folder + net for folder in FOLDERS for net in nets}
    for name, told in TOLD.items():
        content = (DATA / "weights" / f"{name}.safetensors").read_bytes()
        assert hashlib.sha256(content).hexdigest() == told["sha256"] and len(content) < 2e6


@pytest.mark.parametrize("name", TOLD)
def test_generated_images_get_the_recorded_logits(name):
    """This check also works without CIFAR-10."""
    logits = evaluate.logits(shipped(name), make_weights.generated(CHANNELS[TOLD[name]["dataset"]],
                                                                   TOLD[name]["data"]["image_size"]))
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
             if name.startswith(folder) and "/" not in name.removeprefix(folder)}
    assert error["plain56"] >= error["plain20"] + 2 and error["resnet56"] <= error["plain56"] - 2


@pytest.mark.parametrize("folder", FOLDERS)
def test_responses_are_smaller_in_the_deeper_residual_network(folder):
    """He et al. 2015, Fig. 7, on the networks that ship, from gamma and beta alone."""
    mean = {}
    for name in "plain20", "plain56", "resnet20", "resnet56":
        mean[name] = np.mean(list(analysis.responses_from_parameters(shipped(folder + name)).values()))
        assert mean[name] == pytest.approx(TOLD[folder + name]["mean_response"], abs=1e-3)
    assert mean["resnet56"] < mean["plain56"] and mean["resnet56"] < mean["resnet20"]
