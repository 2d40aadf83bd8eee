"""The weights in data/weights/ give the errors that were recorded for them, and say what they said."""
import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from minires import config, evaluate, load_weights

DATA = Path(__file__).resolve().parents[1] / "data"
TOLD = json.loads((DATA / "weights" / "weights.json").read_text(encoding="utf-8"))
_SPEC = importlib.util.spec_from_file_location("make_weights", DATA / "make_weights.py")
make_weights = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(make_weights)


def shipped(name):
    net = config.build(TOLD[name], 3, 10)
    load_weights(net, DATA / "weights" / f"{name}.safetensors")
    return net


def test_every_file_is_told_of_and_small():
    assert sorted(p.stem for p in (DATA / "weights").glob("*.safetensors")) == sorted(TOLD)
    assert {"plain20", "plain56", "resnet20", "resnet56"} <= set(TOLD)
    for name, told in TOLD.items():
        content = (DATA / "weights" / f"{name}.safetensors").read_bytes()
        assert hashlib.sha256(content).hexdigest() == told["sha256"] and len(content) < 2e6


@pytest.mark.parametrize("name", TOLD)
def test_generated_images_get_the_recorded_logits(name):
    """Where there is no CIFAR-10."""
    logits = evaluate.logits(shipped(name), make_weights.generated(TOLD[name]["data"]["image_size"]))
    np.testing.assert_allclose(logits, TOLD[name]["generated_logits"], rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("name", TOLD)
def test_the_test_set_gets_the_recorded_error_and_answers(name):
    try:
        _, (images, labels), digest, _ = config.prepared(TOLD[name], None)
    except FileNotFoundError as e:
        pytest.skip(str(e))
    assert digest == TOLD[name]["data_sha256"]
    again = make_weights.answers(shipped(name), images, labels)
    assert again["test_error_float16"] == pytest.approx(TOLD[name]["test_error_float16"], abs=0.05)
    assert again["test_error_float16"] == pytest.approx(TOLD[name]["recorded"]["test_error"], abs=0.3)
    same = sum(a == b for a, b in zip(again["predicted"], TOLD[name]["predicted"], strict=True))
    assert same >= 0.99 * len(TOLD[name]["predicted"])


def test_depth_hurts_the_plain_networks_that_ship_and_not_the_residual_ones():
    error = {name: told["recorded"]["train_error"] for name, told in TOLD.items()}
    assert error["plain56"] >= error["plain20"] + 2 and error["resnet56"] <= error["plain56"] - 2
