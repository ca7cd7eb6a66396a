"""Published weights can be loaded: names, shapes, initial values and outputs equal those of torchvision's classes."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import nn

from altprop._torchvision import import_torchvision
from altprop.models.base import FeedForward
from altprop.models.resnet import ResNet
from altprop.models.vgg import VGG

RESNETS = {f"resnet{depth}": functools.partial(ResNet, depth=depth) for depth in (18, 34, 50, 101, 152)}
VGGS = {f"vgg{depth}": functools.partial(VGG, depth=depth, batch_norm=False) for depth in (11, 13, 16, 19)}
VGGS_BN = {f"vgg{depth}_bn": functools.partial(VGG, depth=depth, batch_norm=True) for depth in (11, 13, 16, 19)}
MODELS = {**RESNETS, **VGGS, **VGGS_BN}
COUNTS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
}


def ours(name: str, num_classes: int, size: int = 224) -> FeedForward:
    return MODELS[name](units=nn.ReLU, input_shape=(3, size, size), num_classes=num_classes)


def theirs(name: str, num_classes: int) -> Any:
    return getattr(import_torchvision().models, name)(num_classes=num_classes)


@pytest.mark.parametrize("name", MODELS)
def test_names_shapes_and_counts_are_torchvisions(name):
    with torch.device("meta"):
        model, published = ours(name, 1000), theirs(name, 1000)
    shapes = [(key, value.shape, value.dtype) for key, value in model.state_dict().items()]
    assert shapes == [(key, value.shape, value.dtype) for key, value in published.state_dict().items()]
    assert [key for key, _ in model.named_parameters()] == [key for key, _ in published.named_parameters()]
    assert sum(parameter.numel() for parameter in model.parameters()) == COUNTS[name]


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg11_bn"])
def test_initial_values_are_torchvisions(name):
    torch.manual_seed(0)
    model = ours(name, 10)
    torch.manual_seed(0)
    published = theirs(name, 10).state_dict()
    assert all(torch.equal(value, published[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(("name", "size"), [("resnet18", 40), ("resnet50", 40), ("vgg11", 32), ("vgg11_bn", 64)])
def test_outputs_are_torchvisions(name, size):
    torch.manual_seed(0)
    published = theirs(name, 10)
    for module in published.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.uniform_(0.5, 1.5)
    with torch.device("meta"):
        model = ours(name, 10, size)
    model.load_state_dict(published.state_dict(), assign=True)
    inputs = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        assert torch.equal(model.eval()(inputs), published.eval()(inputs))
