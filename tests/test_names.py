"""Names that a person types, through the places where they are typed."""
import numpy as np
import pytest

from minires import datasets, models


def test_a_model_by_name_is_the_model():
    net = models.build("ResNet-20", width=4, rng=np.random.default_rng(3))
    same = models.resnet20(width=4, rng=np.random.default_rng(3))
    assert all((a.data == b.data).all() for a, b in zip(net.parameters(), same.parameters(), strict=True))


@pytest.mark.parametrize("call, given, near", [(models.build, "resnet21", "resnet20"),
                                               (datasets.load, "fashion_mnist_smal", "fashion_mnist_small")])
def test_an_unknown_name_is_answered_with_the_nearest(call, given, near):
    with pytest.raises(ValueError, match=f"{given}.*did you mean .*{near}"):
        call(given)


def test_where_nothing_is_near_all_names_are_listed():
    with pytest.raises(ValueError, match=r"'xyz'; there are .*plain110, .*resnet56"):
        models.build("xyz")
