"""Test the diagrams of blocks and networks, which draw what the modules are, and the chart of published errors."""
import numpy as np
import pytest

from minires import init, models, nn, plot
from minires.plot.diagrams import nearest

RNG = np.random.default_rng(0)


def words(axes):
    return [text.get_text() for text in axes.texts]


BLOCKS = {
    "basic": (nn.Block(64, 64, rng=RNG),
              ["3x3, 64", "BN", "ReLU", "3x3, 64", "BN", "x\n(identity)", "F(x)", "F(x) + x", "ReLU"]),
    "plain": (nn.Block(4, 4, residual=False, rng=RNG), ["3x3, 4", "BN", "ReLU", "3x3, 4", "BN", "ReLU"]),
    "bottleneck": (nn.Bottleneck(256, 256, rng=RNG),
                   ["1x1, 64", "BN", "ReLU", "3x3, 64", "BN", "ReLU", "1x1, 256", "BN", "x\n(identity)", "F(x)",
                    "F(x) + x", "ReLU"]),
    "option A": (nn.Block(4, 8, 2, rng=RNG),
                 ["3x3, 8, /2", "BN", "ReLU", "3x3, 8", "BN", "every 2nd pixel,\nzeros for 4\nnew channels", "F(x)",
                  "F(x) + shortcut", "ReLU"]),
    "option B": (nn.Block(4, 8, 2, shortcut="B", rng=RNG),
                 ["3x3, 8, /2", "BN", "ReLU", "3x3, 8", "BN", "1x1, 8, /2\nand BN", "F(x)", "F(x) + shortcut", "ReLU"]),
    "pre-activation": (nn.PreactBlock(4, 4, rng=RNG),
                       ["BN", "ReLU", "3x3, 4", "BN", "ReLU", "3x3, 4", "x\n(identity)", "F(x)", "F(x) + x"]),
    "option B, pre-activation": (nn.PreactBlock(4, 8, 2, shortcut="B", rng=RNG),
                                 ["BN", "ReLU", "3x3, 8, /2", "BN", "ReLU", "3x3, 8", "1x1, 8, /2", "F(x)",
                                  "F(x) + shortcut"]),
    "first of pre-activation": (nn.PreactBlock(4, 4, split_after_activation=True, rng=RNG),
                                ["BN", "ReLU", "3x3, 4", "BN", "ReLU", "3x3, 4", "after the ReLU\n(identity)", "F(x)",
                                 "F(x) + shortcut"]),
    "more channels": (nn.Block(4, 8, rng=RNG), ["3x3, 8", "BN", "ReLU", "3x3, 8", "BN", "zeros for 4\nnew channels",
                                                "F(x)", "F(x) + shortcut", "ReLU"]),
    "stride 3": (nn.Block(4, 4, 3, rng=RNG), ["3x3, 4, /3", "BN", "ReLU", "3x3, 4", "BN", "1 of 3 pixels", "F(x)",
                                              "F(x) + shortcut", "ReLU"]),
    "option B, no BN": (nn.Block(4, 8, shortcut="B", batch_norm=False, rng=RNG),
                        ["3x3, 8", "ReLU", "3x3, 8", "1x1, 8", "F(x)", "F(x) + shortcut", "ReLU"]),
    "no BN": (nn.Block(4, 4, batch_norm=False, rng=RNG),
              ["3x3, 4", "ReLU", "3x3, 4", "x\n(identity)", "F(x)", "F(x) + x", "ReLU"]),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_is_drawn_in_the_order_of_its_operations(name):
    block, expected = BLOCKS[name]
    (axes,) = plot.blocks(block).axes
    channels = block.conv1.weight.shape[1]
    assert [text for text in words(axes) if text != "+"] == [f"x, {channels} channels", *expected]
    assert ("+" in words(axes)) == block.residual


def test_blocks_side_by_side_have_their_weights_in_the_title():
    """The numbers are those of He et al. 2015, Fig. 5, whose two blocks cost about the same."""
    figure = plot.blocks({name: BLOCKS[name][0] for name in ("basic", "bottleneck")})
    assert figure.get_suptitle() == "Weights in the convolutions of the branch: basic 73,728; bottleneck 69,632"
    assert [axes.get_title() for axes in figure.axes] == ["basic", "bottleneck"]
    assert plot.png(figure, dpi=20).startswith(b"\x89PNG")


def test_a_network_is_drawn_layer_by_layer():
    plain, residual = plot.networks({"plain-20": models.plain20(width=4), "ResNet-20": models.resnet20(width=4)}).axes
    for axes in plain, residual:
        boxes = [text for text in words(axes) if "stage" not in text]
        assert boxes == [*["3x3, 4"] * 7, "3x3, 8, /2", *["3x3, 8"] * 5, "3x3, 16, /2", *["3x3, 16"] * 5, "fc, 10"]
        assert [text for text in words(axes) if "stage" in text] == [f"stage {i}\n6 layers" for i in (1, 2, 3)]
    arcs = [patch for patch in residual.patches if not hasattr(patch, "get_height")]
    assert len(arcs) == 9 and not [patch for patch in plain.patches if not hasattr(patch, "get_height")]
    assert [patch.get_linestyle() == "solid" for patch in arcs] == [i not in (3, 6) for i in range(9)]


def test_networks_for_imagenet_are_drawn_too():
    with init.undrawn():
        figure = plot.networks(models.resnet50())
    assert figure.get_suptitle() == "50 layers" and len(figure.axes[0].patches) == 50 + 16
    assert words(figure.axes[0]) == [f"stage {i}\n{n} layers" for i, n in enumerate((9, 12, 18, 9), 1)]  # no room


def test_what_is_no_block_or_no_network_is_refused():
    with pytest.raises(TypeError, match=r"plot.blocks: expected a basic or bottleneck block, got Linear"):
        plot.blocks(nn.Linear(2, 2, rng=RNG))
    with pytest.raises(TypeError, match=r"plot.blocks: expected a basic or bottleneck block, got PlacedBlock"):
        plot.blocks(models.placement_study("relu_only_preact", 8, width=4).layer1[0])
    with pytest.raises(TypeError, match=r"plot.networks: expected a network with stages layer1, .*, got Linear"):
        plot.networks({"mine": nn.Linear(2, 2, rng=RNG)})


def test_nothing_is_drawn_as_nothing():
    for figure in plot.blocks({}), plot.networks({}):
        assert plot.png(figure, dpi=20).startswith(b"\x89PNG")


def test_the_nested_class_comes_nearer_and_the_overlapping_one_need_not():
    """The dots are the nearest points of the ellipses that are drawn, so the picture is true to scale."""
    figure = plot.function_classes()
    far = {}
    for axes in figure.axes:
        *dots, wanted = [np.array(line.get_xydata()[0]) for line in axes.lines]
        far[axes.get_title()] = [np.linalg.norm(dot - wanted) for dot in dots]
    assert far["nested"] == sorted(far["nested"], reverse=True)
    assert far["overlapping"][1] < far["overlapping"][0] and far["overlapping"][2] > far["overlapping"][1]
    assert np.allclose(nearest(0, 0, 2, 1, (5, 0)), (2, 0))
    assert np.allclose(nearest(1, 1, 2, 1, (1, 9)), (1, 2), atol=1e-2)


def test_the_chart_of_imagenet_has_the_published_numbers():
    assert [(e.year, e.error, e.layers) for e in plot.IMAGENET] == [
        (2010, 28.2, None), (2011, 25.8, None), (2012, 16.4, 8), (2013, 11.7, 8), (2014, 7.3, 19), (2014, 6.7, 22),
        (2015, 3.57, 152)]
    figure = plot.imagenet_errors()
    assert words(figure.axes[0]) == ["28.2", "25.8", "16.4", "11.7", "7.3", "6.7", "3.57"]
    assert words(figure.axes[1]) == ["shallow", "shallow", "8", "8", "19", "22", "152"]
    assert "arXiv 1409.0575" in figure.texts[-1].get_text() and "published" in figure.get_suptitle()
    with init.undrawn():  # the depths of the networks that minires builds are the chart's
        assert len(plot.networks(models.resnet152()).axes[0].patches) == 152 + 50
