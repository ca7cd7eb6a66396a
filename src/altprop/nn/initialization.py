"""Initial values of layers that differ from torch's own."""

from __future__ import annotations

from typing import Literal

from torch import nn

BatchNormInit = Literal["ones", "uniform"]
"""Batch-norm weights: 1, or uniform in [0, 1) as in every PyTorch up to 1.1 (pytorch issue 12259)."""

ConvInit = Literal["default", "fan_out_normal"]
"""Convolution weights: torch's default U(+-1/sqrt(fan_in)), or N(0, σ² = 2 / (kernel^2 * out_channels))."""

LinearBiasInit = Literal["default", "zeros"]
"""Biases of linear layers: torch's default U(+-1/sqrt(fan_in)), or 0."""

LinearInit = Literal["default", "kaiming_normal"]
"""Weights of linear layers: torch's default U(+-1/sqrt(fan_in)), or N(0, σ² = 2 / fan_in)."""


def init_batch_norm(module: nn.Module, init: BatchNormInit) -> None:
    """Draw the weights of every batch norm in ``module``; biases and running statistics do not change."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and layer.affine:
            if init == "uniform":
                nn.init.uniform_(layer.weight)
            else:
                nn.init.ones_(layer.weight)


def init_convolutions(module: nn.Module, init: ConvInit) -> None:
    """Draw the weights of every convolution in ``module``; ``default`` keeps what construction drew."""
    if init == "fan_out_normal":
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def init_linear_biases(module: nn.Module, init: LinearBiasInit) -> None:
    """Set the biases of every linear layer in ``module``; ``default`` keeps what construction drew."""
    if init == "zeros":
        for layer in module.modules():
            if isinstance(layer, nn.Linear) and layer.bias is not None:
                nn.init.zeros_(layer.bias)


def init_linear_weights(module: nn.Module, init: LinearInit) -> None:
    """Draw the weights of every linear layer in ``module``; ``default`` keeps what construction drew."""
    if init == "kaiming_normal":
        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
