"""The CIFAR networks of decoupled greedy learning: published parameter counts and the contract of models."""

from __future__ import annotations

from functools import partial
from itertools import product

import pytest
import torch
from torch import nn

from altprop.models.dni_cnn import DniCNN
from altprop.models.greedy_cnn import GreedyCNN, space_to_depth
from altprop.problems import ConfigError
from tests.models.feed_forward_suite import CountingUnits, assert_feed_forward, num_parameters

CIFAR = {"input_shape": (3, 32, 32), "num_classes": 10}
CURVES = partial(GreedyCNN, units=nn.ReLU, **CIFAR)
SMALL = {"depth": 3, "width": 4, "downsample": (1,), "input_shape": (1, 8, 8), "num_classes": 3}


def test_the_network_of_the_curves_has_the_published_counts() -> None:
    model = CURVES()
    assert [num_parameters(block) for block in model.blocks] == [1_920, 74_112, 147_840, 295_680]
    assert num_parameters(model.head) == 2_114_058


def test_the_network_of_the_head_study_has_the_published_counts() -> None:
    model = CURVES(depth=6, width=128)
    counts = [3_840, 295_680, 590_592, 1_181_184, 2_360_832, 2_360_832]
    assert [num_parameters(block) for block in model.blocks] == counts
    assert num_parameters(model.head) == 8_422_410


def test_the_network_of_the_buffers_has_the_published_counts() -> None:
    model = CURVES(depth=6, width=128, downsample=(2, 4), bias=False, head_layers=3)
    counts = [3_712, 147_712, 295_424, 590_336, 1_180_672, 2_360_320]
    assert [num_parameters(block) for block in model.blocks] == counts
    assert num_parameters(model.head) == 12_622_858


def test_dni_cnn_has_the_published_counts() -> None:
    model = DniCNN(units=nn.ReLU, **CIFAR)
    assert [num_parameters(block) for block in model.blocks] == [9_984, 409_984, 409_984]
    assert num_parameters(model) == 831_242
    features, shapes = torch.zeros(1, 3, 32, 32), []
    for block in model.blocks:
        features = block(features)
        shapes.append(tuple(features.shape[1:]))
    assert shapes == [(128, 10, 10), (128, 3, 3), (128, 1, 1)]


@pytest.mark.parametrize(("kind", "norm"), list(product(["maxpool", "avgpool", "stride", "psi"], [True, False])))
def test_satisfies_the_contract(kind: str, norm: bool) -> None:
    units = CountingUnits()
    model = GreedyCNN(downsample_type=kind, batch_norm=norm, units=units, **SMALL)  # type: ignore[arg-type]
    assert_feed_forward(model, units, torch.randn(2, 1, 8, 8))
    convolutions = [module for module in model.features.modules() if isinstance(module, nn.Conv2d)]
    assert all(module.bias is not None for module in convolutions)
    assert [module.out_channels for module in convolutions] == [4, 8, 8]
    assert convolutions[1].in_channels == (16 if kind == "psi" else 4)
    assert model.blocks[1](model.blocks[0](torch.zeros(1, 1, 8, 8))).shape == (1, 8, 4, 4)


def test_dni_cnn_satisfies_the_contract() -> None:
    units = CountingUnits()
    assert_feed_forward(DniCNN(width=4, units=units, input_shape=(1, 28, 28), num_classes=3), units, torch.randn(2, 1, 28, 28))


def test_space_to_depth_keeps_the_channels_of_a_pixel_together() -> None:
    inputs = torch.randn(2, 3, 4, 6)
    outputs = space_to_depth(inputs)
    for dy, dx, channel in product(range(2), range(2), range(3)):
        assert torch.equal(outputs[:, (dy * 2 + dx) * 3 + channel], inputs[:, channel, dy::2, dx::2])


def test_odd_image_sizes_work() -> None:
    for kind in ("maxpool", "avgpool", "stride"):
        model = GreedyCNN(downsample_type=kind, units=nn.ReLU, **{**SMALL, "input_shape": (1, 7, 7)})  # type: ignore[arg-type]
        assert model(torch.randn(2, 1, 7, 7)).shape == (2, 3)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"downsample": (3,)}, "model.downsample"),
        ({"downsample": (1, 1)}, "model.downsample"),
        ({"depth": 0, "downsample": ()}, "model.depth"),
        ({"downsample_type": "psi", "input_shape": (1, 7, 7)}, "model.downsample_type"),
        ({"input_shape": (1, 1, 1)}, "dataset"),
    ],
)
def test_impossible_options_raise(options, key) -> None:
    with pytest.raises(ConfigError) as error:
        GreedyCNN(units=nn.ReLU, **{**SMALL, **options})
    assert error.value.problems[0].key == key


@torch.no_grad()
def test_uniform_batch_norm_weights() -> None:
    torch.manual_seed(0)
    model = CURVES(batch_norm_init="uniform")
    weights = torch.cat([module.weight for module in model.modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)])
    assert 0.45 < float(weights.mean()) < 0.55
    assert float(weights.min()) >= 0
    assert float(weights.max()) <= 1
