from __future__ import annotations

import pytest
import torch
from torch import nn

from altprop.models.convnet import ConvNet
from altprop.problems import ConfigError
from tests.models.feed_forward_suite import CountingUnits, assert_feed_forward, num_parameters

CIFAR = {"input_shape": (3, 32, 32), "num_classes": 10}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_norm": False, "kernel_size": 5, "hidden": [30, 20]},
        {"pooling": "average", "channels": ["pool", 8, 8, "pool", "pool", 4], "batch_norm_logits": True},
    ],
)
@pytest.mark.parametrize("input_shape", [(3, 32, 32), (1, 28, 28), (2, 16, 9)])
def test_satisfies_the_contract(options, input_shape):
    units = CountingUnits()
    model = ConvNet(**options, units=units, input_shape=input_shape, num_classes=7)
    assert_feed_forward(model, units, torch.randn(4, *input_shape))


def test_a_pooling_belongs_to_the_block_of_the_next_layer():
    channels, hidden = [8, "pool", 16, "pool"], [32]
    model = ConvNet(channels=channels, hidden=hidden, units=nn.ReLU, **CIFAR)
    features, shapes = torch.randn(2, 3, 32, 32), []
    for block in model.blocks:
        features = block(features)
        shapes.append(tuple(features.shape[1:]))
    assert shapes == [(8, 32, 32), (16, 16, 16), (32,)]
    without = ConvNet(channels=channels, units=nn.ReLU, **CIFAR)
    assert isinstance(without.head[0], nn.MaxPool2d)


@pytest.mark.parametrize(
    ("channels", "count"),
    [([64, 64, "pool"], 4_302_942), ([64, 64, "pool", 128, 128, "pool", 256, 256, "pool"], 2_265_438)],
)
def test_parameter_counts_of_the_papers_small_vggs(channels, count):
    model = ConvNet(channels=channels, hidden=[256, 256], batch_norm_logits=True, bias_before_norm=True, units=nn.ReLU, **CIFAR)
    assert num_parameters(model) == count
    assert len(model.blocks) + 1 == sum(channel != "pool" for channel in channels) + 3


def test_parameter_counts_of_the_papers_greedy_networks():
    greedy = ConvNet(channels=[64, "pool", 128, 128, "pool", 256], bias_before_norm=True, units=nn.ReLU, **CIFAR)
    assert [num_parameters(block) for block in greedy.blocks] == [1_920, 74_112, 147_840, 295_680]
    asynchronous = ConvNet(channels=[128, 128, "pool", 256, 256, "pool", 512, 512], units=nn.ReLU, **CIFAR)
    counts = [3_712, 147_712, 295_424, 590_336, 1_180_672, 2_360_320]
    assert [num_parameters(block) for block in asynchronous.blocks] == counts


def test_images_that_are_too_small_raise():
    options = {"channels": [4, "pool", 4, "pool"], "units": nn.ReLU, "num_classes": 10}
    assert ConvNet(**options, input_shape=(1, 4, 4))(torch.randn(2, 1, 4, 4)).shape == (2, 10)
    with pytest.raises(ConfigError, match=r"dataset: images of 3 x 4 pixels; .* at least 4 x 4"):
        ConvNet(**options, input_shape=(1, 3, 4))


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"channels": [8, "pol"]}, "model.channels"),
        ({"channels": [0]}, "model.channels"),
        ({"hidden": [0]}, "model.hidden"),
        ({"kernel_size": 4}, "model.kernel_size"),
    ],
)
def test_impossible_options_raise(options, key):
    with pytest.raises(ConfigError) as raised:
        ConvNet(**options, units=nn.ReLU, **CIFAR)
    assert [problem.key for problem in raised.value.problems] == [key]
    assert [problem.key for problem in ConvNet.check(options, {})] == [key]
