"""Names that a person types: unknown names are reported, and networks' names are converted between keys and text."""
import numpy as np
import pytest

from minires import datasets, models, names


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


# key: (printed name, other spellings)
NETWORKS = {
    "plain20": ("plain-20", ["Plain-20", "PLAIN20", "plain_20"]),
    "resnet20": ("ResNet-20", ["resnet-20", "ResNet20", "resnet 20"]),
    "resnet1202": ("ResNet-1202", ["resnet-1202"]),
    "preact_resnet164": ("pre-activation ResNet-164", ["preact-resnet-164", "PreactResNet164"]),
    "bn_after_addition_resnet110": ("BN-after-addition ResNet-110", ["bn-after-addition-resnet-110"]),
    "relu_only_preact_resnet164": ("ReLU-only pre-activation ResNet-164", ["relu-only-pre-activation-ResNet164"]),
    "vgg16": ("VGG-16", ["VGG16", "vgg-16"]),
    "vgg16_bn": ("VGG-16 with BN", ["vgg-16-bn", "VGG-16_BN"]),
    "googlenet": ("GoogLeNet", ["GoogleNet"]),
    "wide_resnet50_2": ("Wide ResNet-50-2", ["wide-resnet-50-2", "WideResNet50-2"]),
    "resnext50_32x4d": ("ResNeXt-50 32x4d", ["resnext-50-32x4d", "ResNeXt50_32x4d"]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_has_one_key_and_one_printed_name_in_all_its_spellings(name):
    text, others = NETWORKS[name]
    for spelt in name, text, *others:
        assert names.printed(spelt) == text and names.key(spelt) == name == models.canonical(spelt)


def test_every_model_has_a_printed_name_from_which_its_key_is_read():
    texts = {name: names.printed(name) for name in models.BY_NAME}
    assert {names.key(text): text for text in texts.values()} == texts
    assert [name for name in texts if names.network(name) is None] == []


@pytest.mark.parametrize("name", ["my net", "", "resnet", "resnet-", "resnet020", "resnet20_fast", "resnet20_bn",
                                  "plain", "residual, 50 layers", "xresnet18", "ResNet-56, width 8", "vgg16 with bnx"])
def test_any_other_name_is_unchanged(name):
    assert names.printed(name) == names.key(name) == name and names.network(name) is None


def test_a_label_may_begin_with_a_networks_name():
    assert names.network("ResNet-56, width 8", more=True) == ("resnet", 56, False)
    assert names.network("plain-20 (seed 1)", more=True) == ("plain", 20, False)
    assert names.network("vgg16_bn, trained", more=True) == ("vgg", 16, True)
    for label in "my ResNet-56", "resnet20_fast", "plain, 24 layers", "":
        assert names.network(label, more=True) is None


def test_what_a_network_s_name_tells():
    assert [names.network(n).residual for n in ("plain20", "resnet20", "preact_resnet20", "vgg16")] == [
        False, True, True, False]


def test_an_unknown_name_is_an_error_of_use_that_lists_no_more_names_than_a_person_reads():
    error = names.unknown("layer", "???", [f"layer{i:03}" for i in range(100)])
    assert isinstance(error, names.UsageError) and isinstance(error, ValueError)
    assert str(error).startswith("layer: unknown name '???'; there are layer000, layer001, ")
    assert str(error).endswith(", layer059 and 40 more")
    weights = [f"layer{i}.conv{j}.weight" for i in range(9) for j in range(9)]
    layers = ", ".join(f"layer{i}" for i in range(9))
    assert str(names.unknown("only", "???", weights)) == f"only: unknown name '???'; there are {layers}"
    assert str(names.unknown("layer", "???", "ab")) == "layer: unknown name '???'; there are a, b"


@pytest.mark.parametrize("count, text", [(0, "0 runs"), (1, "1 run"), (2, "2 runs")])
def test_a_count_has_its_noun(count, text):
    assert names.counted(count, "run") == text
