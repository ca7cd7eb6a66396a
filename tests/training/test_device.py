"""The device of a run and the memory format of its model."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from altprop.models.convnet import ConvNet
from altprop.models.mlp import MLP
from altprop.nn.units.hard import SignStep
from altprop.training.device import uses_channels_last

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
CONVOLUTIONS, LINEAR = ConvNet, partial(MLP, hidden=(4,))


@pytest.mark.parametrize(
    ("model", "units", "device", "expected"),
    [
        (CONVOLUTIONS, nn.ReLU, CUDA, True),
        (CONVOLUTIONS, nn.ReLU, CPU, False),
        (CONVOLUTIONS, SignStep, CUDA, False),
        (LINEAR, nn.ReLU, CUDA, False),
    ],
)
def test_auto_is_channels_last_for_convolutions_with_graded_units_on_cuda(model, units, device, expected) -> None:
    net = model(units=units, input_shape=(1, 8, 8), num_classes=2)
    assert uses_channels_last("auto", net, device) is expected
    assert uses_channels_last(True, net, device) is True
    assert uses_channels_last(False, net, device) is False
