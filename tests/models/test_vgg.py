from __future__ import annotations

import pytest
import torch
from torch import nn

from altprop.models.vgg import VGG
from altprop.problems import ConfigError
from tests.models.feed_forward_suite import CountingUnits, activations_called, num_parameters


def blocks_of(depth: int) -> VGG:
    with torch.device("meta"):
        return VGG(depth=depth, units=nn.ReLU, input_shape=(3, 224, 224), num_classes=1000)


def test_satisfies_the_contract():
    """Like :func:`assert_feed_forward`, but without copies: the classifier alone has 120 million parameters."""
    units = CountingUnits()
    with torch.device("meta"):
        model = VGG(depth=11, units=units, input_shape=(1, 33, 40), num_classes=10)
        inputs = torch.empty(2, 1, 33, 40)
        assert activations_called(model, units, inputs) == [1] * 10
        assert model(inputs).shape == (2, 10)
    parameters = [id(parameter) for module in (*model.blocks, model.head) for parameter in module.parameters()]
    assert parameters == [id(parameter) for parameter in model.parameters()]
    layers = [layer for module in (*model.blocks, model.head[:1]) for layer in module]
    assert layers == list(model.features)


def test_vgg13_blocks_are_the_modules_of_decoupled_greedy_learning():
    """Each module is one convolution, including the max-pool before it (specification 3.7)."""
    model = blocks_of(13)
    wide = 2_360_832
    counts = [1_920, 37_056, 74_112, 147_840, 295_680, 590_592, 1_181_184, wide, wide, wide]
    assert [num_parameters(block) for block in model.blocks] == counts
    assert num_parameters(model.head) == 123_642_856
    pooled = [isinstance(block[0], nn.MaxPool2d) for block in model.blocks]
    assert pooled == [False, False, True, False, True, False, True, False, True, False]
    features, sizes = torch.empty(1, 3, 224, 224, device="meta"), []
    for block in model.blocks:
        features = block(features)
        sizes.append(features.shape[-1])
    assert sizes == [224, 224, 112, 112, 56, 56, 28, 28, 14, 14]


@pytest.mark.parametrize(
    ("depth", "size", "counts"),
    [
        (13, 3, [113_088, 1_034_112, 5_902_848, 2_360_832]),
        (19, 4, [260_928, 2_067_456, 8_263_680, 9_443_328]),
        (19, 8, [2_328_384, 17_707_008]),
    ],
)
def test_parameter_counts_of_modules_with_several_convolutions(depth, size, counts):
    blocks = blocks_of(depth).blocks
    assert [num_parameters(blocks[start : start + size]) for start in range(0, len(blocks), size)] == counts


def test_dropout_is_an_option():
    with torch.device("meta"):
        model = VGG(depth=11, dropout=0.0, units=nn.ReLU, input_shape=(3, 32, 32), num_classes=10)
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == [0.0, 0.0]
    with pytest.raises(ConfigError, match=r"model\.dropout: 1\.5; a probability"):
        VGG(depth=11, dropout=1.5, units=nn.ReLU, input_shape=(3, 32, 32), num_classes=10)
    assert [problem.key for problem in VGG.check({"dropout": -0.1}, {})] == ["model.dropout"]


def test_images_that_are_too_small_raise():
    with pytest.raises(ConfigError, match=r"dataset: images of 28 x 28 pixels; vgg16 needs at least 32 x 32"):
        VGG(depth=16, units=nn.ReLU, input_shape=(1, 28, 28), num_classes=10)


def test_the_width_scales_channels_and_hidden_units() -> None:
    model = VGG(depth=11, width=0.125, units=nn.ReLU, input_shape=(3, 32, 32), num_classes=4)
    channels = [layer.out_channels for layer in model.features if isinstance(layer, nn.Conv2d)]
    assert channels == [8, 16, 32, 32, 64, 64, 64, 64]
    assert [layer.out_features for layer in model.classifier if isinstance(layer, nn.Linear)] == [512, 512, 4]
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 4)
    with pytest.raises(ConfigError, match=r"model\.width"):
        VGG(width=0.001, units=nn.ReLU, input_shape=(3, 32, 32), num_classes=4)
