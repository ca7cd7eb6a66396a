"""The two kinds of blocks in plain chains: a linear layer or a convolution, then batch norm, then units."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from altprop.nn.units.base import UnitsFactory


def linear_block(
    in_features: int,
    out_features: int,
    units: UnitsFactory | None,
    *,
    batch_norm: bool,
    bias_before_norm: bool,
    before: Sequence[tuple[str, nn.Module]] = (),
) -> nn.Sequential:
    """Build ``before``, linear layer, batch norm, units: ``[batch, in_features]`` -> ``[batch, out_features]``.

    The linear layer has a bias if no batch norm follows, or with ``bias_before_norm``. ``units`` None leaves out the activation.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(before)
    layers["linear"] = nn.Linear(in_features, out_features, bias=bias_before_norm or not batch_norm)
    if batch_norm:
        layers["norm"] = nn.BatchNorm1d(out_features)
    if units is not None:
        layers["units"] = units()
    return nn.Sequential(layers)


def conv_block(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    units: UnitsFactory,
    *,
    batch_norm: bool,
    bias_before_norm: bool,
    stride: int = 1,
    before: Sequence[tuple[str, nn.Module]] = (),
) -> nn.Sequential:
    """Build ``before``, convolution, batch norm, units: ``[batch, in, h, w]`` -> ``[batch, out, h / stride, w / stride]``.

    ``kernel_size`` must be odd. The convolution has a bias if no batch norm follows, or with ``bias_before_norm``.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(before)
    bias = bias_before_norm or not batch_norm
    padding = kernel_size // 2
    layers["conv"] = nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=bias)
    if batch_norm:
        layers["norm"] = nn.BatchNorm2d(out_channels)
    layers["units"] = units()
    return nn.Sequential(layers)
