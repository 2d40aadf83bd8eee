"""Test the claims of notebooks 8 and 12 on the networks and images that ship with the project."""
from pathlib import Path

import numpy as np
import pytest

from minires import Tensor, analysis, datasets, load_weights, models, ops

WEIGHTS = Path(__file__).resolve().parents[1] / "data" / "weights" / "fashion-mnist"


@pytest.fixture(scope="module")
def data():
    """Return 125 test images as the networks take them, and their labels."""
    sets = datasets.fashion_mnist_small()
    _, x = datasets.subtract_pixel_mean(*(datasets.to_float(datasets.average_pool(s.images, 14)) for s in sets))
    return x[:125], sets[1].labels[:125]


def net(name):
    model = getattr(models, name)(in_channels=1, width=8)
    load_weights(model, WEIGHTS / f"{name}.safetensors")
    return model.eval()


@pytest.mark.slow
def test_a_deep_residual_network_survives_the_loss_of_a_block_and_a_plain_one_does_not(data):
    """See Veit et al. 2016, section 4.1. Measured on 500 images: ResNet-56 12.6 -> 15.2 %, plain-56 35.2 -> 89.2 %."""
    def mean_rise(name):
        found = analysis.lesions(net(name), *data)
        return found.whole, np.mean(list(found.without.values()))

    whole, without = mean_rise("resnet56")
    assert whole < 18 and without < whole + 6
    whole, without = mean_rise("plain56")
    assert whole < 45 and without > 75


def test_the_gradient_comes_through_short_paths(data):
    """Of all paths, half go through 14 or more of the 27 blocks, and carry almost no gradient.

    Measured: 0.01 % of the gradient, mean length 5.5.
    """
    x, labels = data[0][:8], data[1][:8]
    model = net("resnet56")
    parts = analysis.gradients_by_length(model, x, labels)
    t = Tensor(x, True)
    ops.cross_entropy(model(t), labels).backward()
    assert abs(sum(parts) - t.grad).max() < 1e-5 * abs(t.grad).max()
    carried = [float((part * t.grad).sum() / (t.grad**2).sum()) for part in parts]
    assert abs(sum(carried[14:])) < 0.01 and 3 < sum(k * share for k, share in enumerate(carried)) < 9


def test_blocks_of_a_residual_network_refine(data):
    """Compare the cosine between a block's input and output. Measured: ResNet-56 0.96, plain-56 0.33."""
    cosine = {name: np.mean([r.cosine for r in analysis.refinement(net(name), data[0][:100]).values()])
              for name in ("resnet56", "plain56")}
    assert cosine["resnet56"] > 0.9 and cosine["plain56"] < 0.6
