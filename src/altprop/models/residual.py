"""Residual blocks with torchvision's parameter names (He et al., arXiv:1512.03385, figures 2 and 5)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from altprop.nn.units.base import UnitsFactory


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions around a shortcut: ``[batch, in, h, w]`` -> ``[batch, planes, h / stride, w / stride]``.

    ``downsample`` is the shortcut, None for the identity. There are two activations; the second follows the addition.
    """

    expansion: ClassVar[int] = 1

    def __init__(self, in_channels: int, planes: int, stride: int, downsample: nn.Module | None, units: UnitsFactory) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.units1 = units()
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.units2 = units()
        self.downsample = downsample

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.units1(self.bn1(self.conv1(inputs)))
        features = self.bn2(self.conv2(features))
        shortcut = inputs if self.downsample is None else self.downsample(inputs)
        return self.units2(features + shortcut)


class Bottleneck(nn.Module):
    """Three convolutions around a shortcut: ``[batch, in, h, w]`` -> ``[batch, 4 planes, h / stride, w / stride]``.

    1 x 1 to ``planes`` channels, 3 x 3, and 1 x 1 to four times as many. The stride is in the 3 x 3 convolution ("version 1.5",
    as in torchvision). There are three activations; the third follows the addition.
    """

    expansion: ClassVar[int] = 4

    def __init__(self, in_channels: int, planes: int, stride: int, downsample: nn.Module | None, units: UnitsFactory) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.units1 = units()
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.units2 = units()
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.units3 = units()
        self.downsample = downsample

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.units1(self.bn1(self.conv1(inputs)))
        features = self.units2(self.bn2(self.conv2(features)))
        features = self.bn3(self.conv3(features))
        shortcut = inputs if self.downsample is None else self.downsample(inputs)
        return self.units3(features + shortcut)


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Build the shortcut with parameters (option B): 1 x 1 convolution with ``stride``, then batch norm, no activation."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))
