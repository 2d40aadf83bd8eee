"""Test the analyses on a published network: akamaster's CIFAR-10 ResNet-20 (option A) from pytorch_resnet_cifar10.

The tests need its weights as akamaster_resnet20.safetensors in the folder MINIRES_REFERENCE (default: shared/reference
beside the repository). Tests with images also need CIFAR-10 in MINIRES_DATA or MINIRES_CIFAR10. Without these files the
tests are skipped.
"""

import os
from pathlib import Path

import numpy as np
import pytest

import minires
from minires import analysis, datasets, models

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def net():
    beside = Path(__file__).resolve().parents[2] / "shared" / "reference"
    path = Path(os.environ.get("MINIRES_REFERENCE") or beside, "akamaster_resnet20.safetensors")
    if not path.exists():
        pytest.skip("the published weights are missing (folder MINIRES_REFERENCE)")
    model = models.resnet20()
    minires.load_weights(model, path)
    return model.eval()


@pytest.fixture(scope="module")
def data():
    """Return (images as the network takes them, labels, pixels) of 1,000 test images."""
    root = os.environ.get("MINIRES_CIFAR10") or os.environ.get("MINIRES_DATA")
    try:
        test = datasets.cifar10(root)[1][:1000]
    except FileNotFoundError:
        pytest.skip("CIFAR-10 is missing (folder MINIRES_DATA or MINIRES_CIFAR10)")
    return datasets.normalize(datasets.to_float(test.images), MEAN, STD), test.labels, test.images


def mean(values):
    return float(np.mean(list(values)))


def test_mean_response_from_gamma_and_beta_alone(net):
    assert mean(analysis.responses_from_parameters(net).values()) == pytest.approx(0.73, abs=0.02)


def test_responses_measured_by_formula_and_from_parameters(net, data):
    images = data[0][:250]
    measured = analysis.responses(net, images)
    assert len(measured) == 19 and mean(measured.values()) == pytest.approx(0.73, abs=0.02)
    assert analysis.responses_closed_form(net, images) == pytest.approx(measured, rel=1e-4)
    assert analysis.responses_from_parameters(net) == pytest.approx(measured, rel=0.02)


def test_construction_on_a_trained_network(net, data):
    """A network with 36 more layers has the same logits."""
    assert analysis.construction(net, data[0][:100], 6, rng=np.random.default_rng(0)).difference < 1e-4


def test_lesions_of_a_trained_network(net, data):
    """ResNet-20 is not robust: without a block the error rises from 8 % to a third on average.

    As Veit et al. 2016 say, the blocks that change the shape matter most. On 2,000 images:
    8.35 % whole, 34.5 % without a block on average, 26.5 % without one of the blocks that keep the shape.
    """
    images, labels, _ = data
    found = analysis.lesions(net, images[:250], labels[:250])
    inner = [error for name, error in found.without.items() if name not in found.changes_shape]
    assert found.changes_shape == ("layer2.0", "layer3.0") and found.whole < 12
    assert 18 < mean(inner) < 35 and min(inner) >= found.whole - 1
    assert min(found.without[name] for name in found.changes_shape) > max(inner) + 5


def test_what_a_trained_networks_first_layer_and_patches_show(net, data):
    images, _, pixels = data
    filters = analysis.first_filters(net)
    assert filters.shape == (16, 3, 3, 3) and filters.std() > 0.1
    patches = analysis.exciting_patches(net, images, "layer2.1", 5, pixels=pixels)
    assert len(patches) == 9 and patches[0].pixels.shape == (29, 29, 3) and patches[0].value >= patches[8].value > 0
