from __future__ import annotations

import pytest
import torch
from torch import nn

from altprop.models.resnet import ResNet
from altprop.problems import ConfigError
from tests.models.feed_forward_suite import CountingUnits, assert_feed_forward, num_parameters

IMAGENET = {"units": nn.ReLU, "input_shape": (3, 224, 224), "num_classes": 1000}
CIFAR = {"units": nn.ReLU, "input_shape": (3, 32, 32), "num_classes": 10}


@pytest.mark.parametrize(("depth", "activations"), [(18, 17), (50, 49)])
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_satisfies_the_contract(depth, activations, stem):
    units = CountingUnits()
    model = ResNet(depth=depth, width=0.25, stem=stem, units=units, input_shape=(3, 16, 16), num_classes=5)
    assert len(units.built) == activations
    assert_feed_forward(model, units, torch.randn(2, 3, 16, 16))


@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
@pytest.mark.parametrize("input_shape", [(1, 28, 28), (3, 32, 32), (2, 7, 11), (1, 1, 1)])
def test_images_may_have_any_size(stem, input_shape):
    model = ResNet(depth=18, width=0.125, stem=stem, units=nn.ReLU, input_shape=input_shape, num_classes=5)
    assert model(torch.randn(2, *input_shape)).shape == (2, 5)


def test_blocks_are_the_stem_and_the_residual_blocks():
    with torch.device("meta"):
        model = ResNet(depth=152, **IMAGENET)
        assert len(model.blocks) == 51
        assert [tuple(model.blocks[0](torch.empty(1, 3, 224, 224)).shape)] == [(1, 64, 56, 56)]
    # the two modules of decoupled greedy learning (specification 3.8)
    assert num_parameters(model.blocks[:26]) == 18_601_024
    assert num_parameters(model.blocks[26:]) == 39_542_784
    assert num_parameters(model.head) == 2_049_000


@pytest.mark.parametrize(("width", "count"), [(1.0, 25_557_032), (0.54, 8_167_095), (0.46, 5_771_217)])
def test_parameter_counts_of_the_thin_networks(width, count):
    with torch.device("meta"):
        model = ResNet(depth=50, width=width, linear_bias_init="zeros", **IMAGENET)
        assert model(torch.empty(2, 3, 224, 224)).shape == (2, 1000)
    assert num_parameters(model) == count


def test_the_form_for_cifar():
    with torch.device("meta"):
        model = ResNet(depth=18, stem="cifar", **CIFAR)
        assert num_parameters(model) == 11_173_962
        features, sizes = torch.empty(2, 3, 32, 32), []
        for block in model.blocks:
            features = block(features)
            sizes.append(features.shape[-1])
    assert sizes == [32, 32, 32, 16, 16, 8, 8, 4, 4]
    assert features.shape == (2, 512, 4, 4)


def test_initial_values():
    torch.manual_seed(0)
    model = ResNet(depth=18, width=0.5, linear_bias_init="zeros", **CIFAR)
    weight = model.layer4[1].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)
    assert not model.fc.bias.any()
    old = ResNet(depth=18, width=0.5, stem="cifar", conv_init="default", batch_norm_init="uniform", **CIFAR)
    bound = (1 / (9 * 256)) ** 0.5
    assert 0.99 * bound < old.layer4[1].conv2.weight.abs().max() <= bound
    norms = torch.cat([module.weight for module in old.modules() if isinstance(module, nn.BatchNorm2d)])
    assert norms.min() >= 0
    assert norms.max() < 1
    assert norms.mean().item() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("width", [0, -1, 0.001, "wide"])
def test_a_width_without_channels_raises(width):
    with pytest.raises(ConfigError, match=r"model\.width: "):
        ResNet(depth=18, width=width, **CIFAR)
    assert [problem.key for problem in ResNet.check({"width": width}, {})] == ["model.width"]


def test_stages_replace_those_of_the_depth() -> None:
    model = ResNet(depth=18, stages=[1, 1, 2, 1], units=nn.ReLU, input_shape=(3, 32, 32), num_classes=4)
    assert [len(getattr(model, f"layer{number}")) for number in range(1, 5)] == [1, 1, 2, 1]
    assert len(model.blocks) == 1 + 5
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 4)
    two = ResNet(depth=50, stages=[1, 2], units=nn.ReLU, input_shape=(3, 32, 32), num_classes=4)
    assert two.fc.in_features == 128 * 4
    for stages in ([], [0], [1.5], 3):
        with pytest.raises(ConfigError, match=r"model\.stages"):
            ResNet(stages=stages, units=nn.ReLU, input_shape=(3, 32, 32), num_classes=4)
