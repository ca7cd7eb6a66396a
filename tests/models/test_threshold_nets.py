from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from altprop.models.alexnet_dorefa import AlexNetDoReFa
from altprop.models.resnet import ResNet
from altprop.models.threshold_nets import ConvNet4, ConvNet8
from altprop.nn.units.hard import SignStep
from altprop.problems import ConfigError
from tests.models.feed_forward_suite import CountingUnits, assert_feed_forward, num_parameters

CIFAR, MNIST, IMAGENET = (3, 32, 32), (1, 28, 28), (3, 224, 224)


@pytest.mark.parametrize(
    ("model", "input_shape", "classes", "parameters", "activations"),
    [
        (ConvNet4, CIFAR, 10, 4_259_274, 3),
        (ConvNet4, MNIST, 10, 3_274_634, 3),
        (partial(ConvNet4, batch_norm=True), CIFAR, 10, 4_261_450, 3),
        (ConvNet8, CIFAR, 10, 1_492_554, 7),
        (ConvNet8, (3, 40, 40), 10, 2_082_378, 7),
        (partial(ConvNet8, batch_norm=False), CIFAR, 10, 1_491_530, 7),
        (AlexNetDoReFa, IMAGENET, 1000, 62_394_344, 7),
        (partial(AlexNetDoReFa, batch_norm=False), IMAGENET, 1000, 62_384_968, 7),
        (ResNet, IMAGENET, 1000, 11_689_512, 17),
        (partial(ResNet, stem="cifar"), CIFAR, 10, 11_173_962, 17),
    ],
)
def test_published_parameter_counts(model, input_shape, classes, parameters, activations):
    units = CountingUnits(SignStep)
    with torch.device("meta"):
        built = model(units=units, input_shape=input_shape, num_classes=classes)
    assert num_parameters(built) == parameters
    assert len(units.built) == activations


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize(
    ("model", "input_shape"),
    [(ConvNet4, CIFAR), (ConvNet4, (2, 9, 14)), (ConvNet8, CIFAR), (ConvNet8, (1, 40, 40))],
)
def test_satisfies_the_contract(model, input_shape, batch_norm):
    units = CountingUnits(nn.Tanh)
    assert_feed_forward(
        model(batch_norm=batch_norm, units=units, input_shape=input_shape, num_classes=7), units, torch.randn(3, *input_shape)
    )


def test_the_smallest_images_of_alexnet():
    with torch.device("meta"):
        model = AlexNetDoReFa(units=nn.ReLU, input_shape=(3, 60, 61), num_classes=5)
        assert model(torch.empty(2, 3, 60, 61)).shape == (2, 5)
    with pytest.raises(ConfigError, match="at least 60 x 60"):
        AlexNetDoReFa(units=nn.ReLU, input_shape=(3, 59, 60), num_classes=5)


@pytest.mark.parametrize(
    ("model", "input_shape", "shapes"),
    [
        (ConvNet4, CIFAR, [(32, 17, 17), (64, 8, 8), (1024,)]),
        (ConvNet4, MNIST, [(32, 15, 15), (64, 7, 7), (1024,)]),
        (ConvNet8, CIFAR, [(48, 16, 16), (64, 16, 16), (64, 8, 8), (128, 6, 6), (128, 6, 6), (128, 4, 4), (512, 1, 1)]),
        (ConvNet8, (3, 40, 40), [(48, 18, 18), (64, 18, 18), (64, 9, 9), (128, 7, 7), (128, 7, 7), (128, 5, 5), (512, 1, 1)]),
        (AlexNetDoReFa, IMAGENET, [(96, 54, 54), (256, 27, 27), (384, 13, 13), (384, 13, 13), (256, 6, 6), (4096,), (4096,)]),
    ],
)
def test_published_shapes_of_the_units(model, input_shape, shapes):
    with torch.device("meta"):
        built = model(units=SignStep, input_shape=input_shape, num_classes=10)
        features, sizes = torch.empty(2, *input_shape), []
        for block in built.blocks:
            features = block(features)
            sizes.append(tuple(features.shape[1:]))
    assert sizes == shapes


def kinds(block: nn.Module) -> list[str]:
    return [type(module).__name__ for module in block.modules() if not list(module.children())]


def test_layers_are_in_the_order_of_the_paper():
    net4 = ConvNet4(batch_norm=True, units=SignStep, input_shape=CIFAR, num_classes=10)
    assert [kinds(block) for block in net4.blocks] == [
        ["Conv2d", "MaxPool2d", "SignStep"],
        ["Conv2d", "MaxPool2d", "SignStep", "BatchNorm2d"],
        ["Flatten", "Linear", "SignStep", "BatchNorm1d"],
    ]
    net8 = ConvNet8(units=SignStep, input_shape=CIFAR, num_classes=10)
    assert kinds(net8.blocks[0]) == ["Conv2d", "MaxPool2d", "SignStep"]
    assert kinds(net8.blocks[2]) == ["Conv2d", "BatchNorm2d", "MaxPool2d", "SignStep"]
    assert kinds(net8.blocks[6]) == ["Dropout2d", "Conv2d", "BatchNorm2d", "SignStep"]
    assert [block.conv.bias is not None for block in net8.blocks] == [True] + [False] * 6
    with torch.device("meta"):
        alexnet = AlexNetDoReFa(units=SignStep, input_shape=IMAGENET, num_classes=10)
    assert kinds(alexnet.blocks[0]) == ["Conv2d", "SignStep"]
    assert kinds(alexnet.blocks[1]) == ["Conv2d", "BatchNorm2d", "MaxPool2d", "SignStep"]
    assert all(layer.bias is None for layer in alexnet.blocks[0].children() if isinstance(layer, nn.Conv2d))
    norms = [module for net in (net8, alexnet) for module in net.modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)]
    assert {norm.eps for norm in norms} == {1e-4}


def test_channel_dropout_drops_whole_maps_of_single_samples():
    torch.manual_seed(0)
    dropout = ConvNet8(units=SignStep, input_shape=CIFAR, num_classes=10).blocks[6].dropout
    maps = dropout(torch.ones(8, 128, 4, 4)).flatten(2)
    assert torch.equal(maps.amin(dim=2), maps.amax(dim=2))
    assert set(maps.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(maps[0], maps[1])


def test_uniform_batch_norm_weights():
    for model in (ConvNet8, partial(ConvNet4, batch_norm=True)):
        built = model(batch_norm_init="uniform", units=nn.ReLU, input_shape=CIFAR, num_classes=10)
        weights = torch.cat(
            [norm.weight.detach() for norm in built.modules() if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d)]
        )
        assert 0 <= weights.min() < 0.05
        assert 0.95 < weights.max() < 1
        assert float(weights.mean()) == pytest.approx(0.5, abs=0.05)


def test_convnet8_accepts_two_sizes_only():
    with pytest.raises(ConfigError, match=r"images of 28 x 28 pixels; convnet8 takes 32 x 32 or 40 x 40"):
        ConvNet8(units=nn.ReLU, input_shape=MNIST, num_classes=10)
