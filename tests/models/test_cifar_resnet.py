from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from altprop.models.cifar_resnet import CifarResNet, padded_shortcut
from altprop.problems import ConfigError
from tests.models.feed_forward_suite import CountingUnits, assert_feed_forward, num_parameters

CIFAR = {"units": nn.ReLU, "input_shape": (3, 32, 32), "num_classes": 10}


@pytest.mark.parametrize("padding", ["after", "both_sides"])
@pytest.mark.parametrize("input_shape", [(3, 32, 32), (1, 28, 28), (3, 9, 5)])
def test_satisfies_the_contract(padding, input_shape):
    units = CountingUnits()
    model = CifarResNet(depth=20, shortcut_padding=padding, units=units, input_shape=input_shape, num_classes=5)
    assert len(units.built) == 19
    assert_feed_forward(model, units, torch.randn(2, *input_shape))


@pytest.mark.parametrize(("depth", "count"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)])
def test_published_parameter_counts(depth, count):
    with torch.device("meta"):
        model = CifarResNet(depth=depth, **CIFAR)
    assert num_parameters(model) == count
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth


def test_resnet110_cut_in_two():
    """The two modules of the comparison with delayed gradients (specification of decoupled greedy learning, 3.6)."""
    with torch.device("meta"):
        model = CifarResNet(depth=110, **CIFAR)
        features = torch.empty(1, 3, 32, 32)
        for block in model.blocks[:27]:
            features = block(features)
    assert features.shape == (1, 32, 16, 16)
    assert num_parameters(model.blocks[:27]) == 228_432
    assert num_parameters(model.blocks[27:]) == 1_498_880
    assert num_parameters(model.head) == 650


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 6), st.integers(0, 5))
def test_the_shortcut_takes_every_second_pixel_and_adds_zeros(height, width, channels, half):
    inputs = torch.randn(2, channels, height, width)
    pixels = inputs[:, :, ::2, ::2]
    after = padded_shortcut(inputs, 2 * half, "after")
    assert torch.equal(after[:, :channels], pixels)
    assert not after[:, channels:].any()
    sides = padded_shortcut(inputs, 2 * half, "both_sides")
    assert torch.equal(sides[:, half : half + channels], pixels)
    assert after.shape == sides.shape
    torch.testing.assert_close(sides.abs().sum(), pixels.abs().sum())


def test_the_padding_of_the_second_stage():
    """A quarter of the new width on each side, as in iterative training's ResNet-20."""
    model = CifarResNet(depth=20, shortcut_padding="both_sides", **CIFAR)
    shortcut = model.layer2[0].downsample(torch.ones(1, 16, 4, 4))[0, :, 0, 0]
    assert shortcut.tolist() == [0.0] * 8 + [1.0] * 16 + [0.0] * 8
    assert model.layer1[0].downsample is None


def test_initial_values():
    torch.manual_seed(0)
    weight = CifarResNet(depth=20, **CIFAR).layer3[2].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    old = CifarResNet(depth=20, conv_init="default", batch_norm_init="uniform", **CIFAR)
    assert old.layer3[2].conv2.weight.abs().max() <= (1 / (9 * 64)) ** 0.5
    assert 0 <= old.bn1.weight.min() < old.bn1.weight.max() < 1


@pytest.mark.parametrize("depth", [2, 18, 21, 20.0, -4])
def test_other_depths_raise(depth):
    with pytest.raises(ConfigError, match=r"model\.depth: .* 6 n \+ 2"):
        CifarResNet(depth=depth, **CIFAR)
    assert [problem.key for problem in CifarResNet.check({"depth": depth}, {})] == ["model.depth"]
