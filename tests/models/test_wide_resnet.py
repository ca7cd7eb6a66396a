from __future__ import annotations

import pytest
import torch
from torch import nn

from altprop.models.wide_resnet import WideResNet
from altprop.problems import ConfigError
from tests.models.feed_forward_suite import CountingUnits, assert_feed_forward, num_parameters

CIFAR = {"units": nn.ReLU, "input_shape": (3, 32, 32), "num_classes": 10}


@pytest.mark.parametrize("width", [0.5, 1, 2])
@pytest.mark.parametrize("input_shape", [(3, 32, 32), (1, 28, 28), (3, 9, 5)])
def test_satisfies_the_contract(width, input_shape):
    units = CountingUnits()
    model = WideResNet(depth=10, width=width, units=units, input_shape=input_shape, num_classes=5)
    assert len(units.built) == 7
    assert_feed_forward(model, units, torch.randn(2, *input_shape))


# section 3.2 of the specification of dynamic sparse reparameterization: sparsifiable convolutions, everything else
@pytest.mark.parametrize(
    ("width", "sparsifiable", "fixed"),
    [
        (2, 1_451_520, 16_090),
        (0.75, 205_200, 3_930),
        (0.98, 351_063, 5_313),
        (1.15, 484_875, 6_970),
        (1.33, 643_491, 8_602),
        (1.47, 785_493, 9_984),
    ],
)
def test_published_parameter_counts(width, sparsifiable, fixed):
    with torch.device("meta"):
        model = WideResNet(depth=28, width=width, **CIFAR)
    inner = [m for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and name != "conv1" and "shortcut" not in name]
    assert num_parameters(inner) == sparsifiable
    assert num_parameters(model) == sparsifiable + fixed


def test_sizes_of_the_sparse_tensors():
    with torch.device("meta"):
        model = WideResNet(depth=28, width=2, **CIFAR)
    sizes = [
        m.weight.numel() for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and n != "conv1" and "shortcut" not in n
    ]
    assert sizes == [4608, *[9216] * 7, 18432, *[36864] * 7, 73728, *[147456] * 7]


def test_only_blocks_that_change_the_channels_have_a_shortcut():
    with torch.device("meta"):
        narrow = WideResNet(depth=28, width=0.98, **CIFAR)
        features, sizes = torch.empty(1, 3, 32, 32), []
        for block in narrow.blocks:
            features = block(features)
            sizes.append(tuple(features.shape[1:3]))
    assert sizes == [(16, 32)] * 5 + [(31, 16)] * 4 + [(63, 8)] * 4
    assert [name for name, _ in narrow.named_modules() if name.endswith("shortcut")] == ["layer2.0.shortcut", "layer3.0.shortcut"]


def test_the_shortcut_takes_the_activated_input():
    block = WideResNet(depth=10, width=1, **CIFAR).layer2[0].eval()
    with torch.no_grad():
        block.conv2.weight.zero_()
        inputs = torch.randn(2, 16, 8, 8)
        expected = block.shortcut(block.bn1(inputs).relu())
        torch.testing.assert_close(block(inputs), expected)


def test_initial_values():
    torch.manual_seed(0)
    model = WideResNet(depth=16, width=2, **CIFAR)
    assert model.layer3[1].conv2.weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.01)
    assert model.layer3[0].shortcut.weight.std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.05)
    assert not model.fc.bias.any()
    bound = 128**-0.5
    assert 0.95 * bound < model.fc.weight.abs().max() <= bound


@pytest.mark.parametrize(
    ("depth", "width", "key"), [(27, 2, "depth"), (4, 2, "depth"), (28, 0.01, "width"), (28, "wide", "width")]
)
def test_impossible_options_raise(depth, width, key):
    with pytest.raises(ConfigError, match=rf"model\.{key}: "):
        WideResNet(depth=depth, width=width, **CIFAR)
    assert [problem.key for problem in WideResNet.check({"depth": depth, "width": width}, {})] == [f"model.{key}"]
