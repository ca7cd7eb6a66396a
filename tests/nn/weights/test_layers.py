"""Roles and selection of layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from altprop.models.mlp import MLP
from altprop.models.wide_resnet import WideResNet
from altprop.nn.weights.layers import select, weight_layers
from altprop.problems import ConfigError


def test_roles_and_selection():
    with torch.device("meta"):
        model = WideResNet(depth=10, width=1, units=nn.ReLU, input_shape=(3, 32, 32), num_classes=10)
        mlp = MLP(hidden=(5,), units=nn.ReLU, input_shape=(3, 2, 2), num_classes=10)
    roles = {layer.name: layer.roles for layer in weight_layers(model)}
    assert roles["conv1"] == {"conv", "first", "stem"}
    assert roles["layer2.0.shortcut"] == {"conv", "shortcut"}
    assert roles["fc"] == {"linear", "classifier"}
    assert [sorted(layer.roles) for layer in weight_layers(mlp)] == [["first", "linear"], ["classifier", "linear"]]
    selected = select(model, ["conv"], ["stem", "layer3.*"])
    assert {layer.name.split(".")[0] for layer in selected} == {"layer1", "layer2"}
    with pytest.raises(ConfigError, match=r"algorithm\.weights\.dense: 'layer4\.\*' fits no layer"):
        select(model, ["conv"], ["layer4.*"])
    with pytest.raises(ConfigError, match="selects nothing"):
        select(mlp, ["linear"], ["linear"])
