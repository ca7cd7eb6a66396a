"""The six networks of iterative training: parameter counts, layer positions, initial values (section 3 of our specification)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from altprop.models.cifar_resnet import padded_shortcut
from altprop.nn.weights.layers import weight_layers
from tests.models.feed_forward_suite import compose_model

MLP_FORM = ("model.batch_norm_logits=true", "model.bias_before_norm=true")
NETS = {
    "300": (("model=mlp", "model.hidden=[300,100]", *MLP_FORM), (1, 28, 28), 10, 267_430, 266_200),
    "784": (("model=mlp", "model.hidden=[784,784]", *MLP_FORM), (1, 28, 28), 10, 1_241_886, 1_237_152),
    "vgg5": (("model=vgg5",), (3, 32, 32), 10, 4_302_942, 4_300_992),
    "vgg9": (("model=vgg9",), (3, 32, 32), 10, 2_265_438, 2_261_184),
    "resnet20": (
        ("model=resnet20", "model.shortcut_padding=both_sides", "model.conv_init=default"),
        (3, 32, 32),
        10,
        269_722,
        268_336,
    ),
    "resnet21": (("model=resnet21",), (3, 64, 64), 1000, 11_689_512, 11_678_912),
}
STAGE = {16: 6, 32: 6, 64: 6}
SHAPES = {
    "300": [(300, 784), (100, 300), (10, 100)],
    "784": [(784, 784), (784, 784), (10, 784)],
    "vgg5": [(64, 3, 3, 3), (64, 64, 3, 3), (256, 16384), (256, 256), (10, 256)],
    "vgg9": [
        *[(64, 3, 3, 3), (64, 64, 3, 3), (128, 64, 3, 3), (128, 128, 3, 3), (256, 128, 3, 3), (256, 256, 3, 3)],
        *[(256, 4096), (256, 256), (10, 256)],
    ],
    "resnet20": [
        (16, 3, 3, 3),
        *[(16, 16, 3, 3)] * 6,
        (32, 16, 3, 3),
        *[(32, 32, 3, 3)] * 5,
        (64, 32, 3, 3),
        *[(64, 64, 3, 3)] * 5,
        (10, 64),
    ],
    "resnet21": [
        (64, 3, 7, 7),
        *[(64, 64, 3, 3)] * 4,
        *[(128, 64, 3, 3), (128, 128, 3, 3), (128, 64, 1, 1), (128, 128, 3, 3), (128, 128, 3, 3)],
        *[(256, 128, 3, 3), (256, 256, 3, 3), (256, 128, 1, 1), (256, 256, 3, 3), (256, 256, 3, 3)],
        *[(512, 256, 3, 3), (512, 512, 3, 3), (512, 256, 1, 1), (512, 512, 3, 3), (512, 512, 3, 3)],
        (1000, 512),
    ],
}


def build(net):
    overrides, shape, classes, *_ = NETS[net]
    torch.manual_seed(0)
    return compose_model(list(overrides), input_shape=shape, num_classes=classes)


@pytest.mark.parametrize("net", NETS)
def test_counts_and_positions(net):
    """Section 10, check 1, and the tables of section 3.1. Forward order is registration order."""
    *_, parameters, weights = NETS[net]
    with torch.device("meta"):
        model = build(net)
    layers = weight_layers(model)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert sum(layer.module.weight.numel() for layer in layers) == weights
    assert [tuple(layer.module.weight.shape) for layer in layers] == SHAPES[net]


@pytest.mark.parametrize("net", ["300", "vgg9", "resnet20"])
def test_default_initial_values(net):
    """Weights are uniform in +-1/sqrt(fan_in)."""
    for layer in weight_layers(build(net)):
        weight = layer.module.weight.detach()
        bound = 1 / math.sqrt(weight[0].numel())
        assert weight.abs().max() <= bound * (1 + 1e-6)
        if weight.numel() > 500:
            assert weight.std() == pytest.approx(bound / math.sqrt(3), rel=0.06)


def test_initial_values_of_resnet21():
    """Convolutions are normal with std = sqrt(2 / (k k out)), without biases; batch norms start at 1 and 0."""
    model = build("resnet21")
    for layer in weight_layers(model):
        weight = layer.module.weight.detach()
        if weight.dim() == 4:
            expected = math.sqrt(2 / (weight.shape[0] * weight.shape[2] * weight.shape[3]))
            assert weight.std() == pytest.approx(expected, rel=0.05)
            assert layer.module.bias is None
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            assert module.bias.abs().max() == 0


@pytest.mark.parametrize("net", ["300", "784", "vgg5", "vgg9"])
def test_chains_end_in_a_batch_norm_and_have_biases_everywhere(net):
    with torch.device("meta"):
        model = build(net)
    assert isinstance(list(model.modules())[-1], nn.BatchNorm1d)
    assert all(layer.module.bias is not None for layer in weight_layers(model))


def test_residual_networks_end_in_a_plain_linear_layer():
    for net in ("resnet20", "resnet21"):
        with torch.device("meta"):
            *_, last = build(net).modules()
        assert isinstance(last, nn.Linear)
        assert last.bias is not None


def test_the_loss_of_equal_logits_is_ln_10():
    """Section 10, check 11."""
    loss = nn.functional.cross_entropy(torch.full((7, 10), 0.3, dtype=torch.float64), torch.arange(7))
    assert loss.item() == pytest.approx(math.log(10))


def test_shortcut_pads_on_both_sides():
    """Section 10, check 14."""
    inputs = torch.randn(2, 16, 8, 8)
    padded = padded_shortcut(inputs, 16, "both_sides")
    assert padded.shape == (2, 32, 4, 4)
    assert torch.equal(padded[:, 8:24], inputs[:, :, ::2, ::2])
    assert padded[:, :8].abs().max() == padded[:, 24:].abs().max() == 0


@pytest.mark.parametrize("block", ["layer1.1", "layer2.0"])
def test_block_without_weights_is_its_shortcut(block):
    """Section 10, check 14."""
    module = build("resnet20").get_submodule(block)
    inputs = torch.randn(4, 16, 8, 8)
    with torch.no_grad():
        for convolution in (module.conv1, module.conv2):
            convolution.weight.zero_()
        shortcut = inputs if module.downsample is None else module.downsample(inputs)
        assert torch.equal(module(inputs), shortcut.relu())
