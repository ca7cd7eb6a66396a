"""Local heads: the small classifiers that give the blocks of a network their own losses.

Belilovsky, Eickenberg and Oyallon (2020), *Decoupled Greedy Learning of CNNs*. A head is built for the real output shape of its
block, ``(channels, height, width)``, ``(channels, positions)`` or ``(features,)``, and returns class scores ``[batch, classes]``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil
from typing import Any, Literal

from torch import Tensor, nn

from altprop.nn.features import FeatureShape, as_map
from altprop.nn.heads.conv_chain import conv_chain
from altprop.nn.initialization import BatchNormInit, init_batch_norm
from altprop.nn.pooling import AdaptiveAvgPool2d
from altprop.nn.units.base import UnitsFactory
from altprop.problems import ConfigError, Problem
from altprop.ranges import ImageSize, KernelSize, NonNegativeDepth, PositiveInt, WidthFactor

HeadInit = Literal["default", "vgg"]
"""``default``: torch's own. ``vgg``: convolutions N(0, 2 / fan_out), linear weights N(0, 0.01^2), biases 0."""

FINAL_SIZE = 2
"""Side of the map that is flattened; smaller if the features are smaller."""


class LocalHead(nn.Module):
    """Average pooling, convolutions, average pooling to 2 x 2, fully connected layers, class scores.

    Convolutions (without bias) and fully connected layers are each followed by batch norm and ``units``. The fully connected
    layers are as wide as the flattened map; without them a batch norm precedes the flattening. Flat features
    ``[batch, features]`` have no positions, so that only the fully connected layers remain. Sequences ``[batch, channels,
    positions]`` are maps of height 1, whose kernels have the height 1, too.

    ``map_norm`` also exists, unused, with fully connected layers, because the published networks count its parameters. It never
    receives a gradient, so no optimizer changes it.

    Args:
        shape: Output shape of the block, without the batch.
        num_classes: Number of class scores.
        reduction: Pool maps to ``ceil(side / reduction)`` first; None keeps the full size.
        conv_layers: Number of convolutions.
        kernel_size: Of the convolutions, which keep height and width if it is odd.
        mlp_layers: Number of fully connected layers before the class scores.
        pooled_size: Pool to this side instead of ``ceil(side / reduction)``.
        width: Channels of the convolutions; None for ``widen`` times the block's channels.
        widen: See ``width``.
        init: Initial values of convolutions and linear layers.
        batch_norm_init: Initial weights of the batch norms.
        units: Builds the activations.
    """

    def __init__(
        self,
        shape: FeatureShape,
        num_classes: int,
        *,
        reduction: int | None,
        conv_layers: NonNegativeDepth,
        kernel_size: KernelSize,
        mlp_layers: NonNegativeDepth,
        pooled_size: ImageSize | None = None,
        width: PositiveInt | None = None,
        widen: WidthFactor = 1.0,
        init: HeadInit = "default",
        batch_norm_init: BatchNormInit = "ones",
        units: UnitsFactory = nn.ReLU,
    ) -> None:
        super().__init__()
        self.is_sequence = len(shape) == 2
        shape = as_map(shape)
        channels = shape[0]
        kernel = (1, kernel_size) if self.is_sequence else (kernel_size, kernel_size)
        self.reduce: nn.Module = nn.Identity()
        self.convolutions = nn.Sequential()
        self.pool: nn.Module = nn.Identity()
        self.map_norm: nn.Module | None = None
        self.norm_before_flatten = mlp_layers == 0 and len(shape) == 3
        features = channels
        if len(shape) == 3:
            size = (shape[1], shape[2])
            if reduction is not None:
                size = tuple(min(side, pooled_size or ceil(side / reduction)) for side in size)  # type: ignore[assignment]
                self.reduce = AdaptiveAvgPool2d(size)
            out_channels = (width or max(1, round(widen * channels))) if conv_layers else channels
            for _ in range(conv_layers):
                self.convolutions += nn.Sequential(
                    nn.Conv2d(channels, out_channels, kernel, padding=(kernel[0] // 2, kernel[1] // 2), bias=False),
                    nn.BatchNorm2d(out_channels),
                    units(),
                )
                channels = out_channels
            final = (min(FINAL_SIZE, size[0]), min(FINAL_SIZE, size[1]))
            self.pool = AdaptiveAvgPool2d(final)
            self.map_norm = nn.BatchNorm2d(channels)
            features = channels * final[0] * final[1]
        layers: list[nn.Module] = []
        for _ in range(mlp_layers):
            layers += [nn.Linear(features, features), nn.BatchNorm1d(features), units()]
        self.classifier = nn.Sequential(*layers, nn.Linear(features, num_classes))
        initialize_head(self, init, batch_norm_init)

    def forward(self, features: Tensor) -> Tensor:
        """Class scores ``[batch, classes]`` of the block's output."""
        features = features.unsqueeze(2) if self.is_sequence else features
        maps = self.pool(self.convolutions(self.reduce(features)))
        if self.norm_before_flatten and self.map_norm is not None:
            maps = self.map_norm(maps)
        return self.classifier(maps.flatten(1))


def mlp_sr_head(
    shape: FeatureShape,
    num_classes: int,
    *,
    conv_layers: NonNegativeDepth = 3,
    mlp_layers: NonNegativeDepth = 3,
    pooled_size: ImageSize | None = None,
    init: HeadInit = "default",
    batch_norm_init: BatchNormInit = "ones",
) -> LocalHead:
    """MLP-SR-aux ("spatial reduction"): 1 x 1 convolutions on maps pooled to a quarter of the side, then an MLP.

    ``pooled_size`` fixes the side of the pooled maps; the published ResNet-152 uses 2, although a quarter of 14 would be 4.
    """
    return LocalHead(
        shape,
        num_classes,
        reduction=4,
        conv_layers=conv_layers,
        kernel_size=1,
        mlp_layers=mlp_layers,
        pooled_size=pooled_size,
        init=init,
        batch_norm_init=batch_norm_init,
    )


def mlp_head(
    shape: FeatureShape,
    num_classes: int,
    *,
    mlp_layers: NonNegativeDepth = 3,
    init: HeadInit = "default",
    batch_norm_init: BatchNormInit = "ones",
    units: UnitsFactory = nn.ReLU,
) -> LocalHead:
    """MLP-aux: average pooling to 2 x 2 and an MLP. With two layers it is the final classifier of the CIFAR nets."""
    return LocalHead(
        shape,
        num_classes,
        reduction=4,
        conv_layers=0,
        kernel_size=1,
        mlp_layers=mlp_layers,
        init=init,
        batch_norm_init=batch_norm_init,
        units=units,
    )


def cnn_head(
    shape: FeatureShape,
    num_classes: int,
    *,
    conv_layers: NonNegativeDepth = 2,
    mlp_layers: NonNegativeDepth = 0,
    width: PositiveInt | None = None,
    widen: WidthFactor = 1.0,
    init: HeadInit = "default",
    batch_norm_init: BatchNormInit = "ones",
) -> LocalHead:
    """CNN-aux: 3 x 3 convolutions at full size, pooling to 2 x 2, batch norm, linear.

    The heads of the published asynchronous script have 256 channels that double whenever the blocks' 128 do: ``widen=2``.
    """
    return LocalHead(
        shape,
        num_classes,
        reduction=None,
        conv_layers=conv_layers,
        kernel_size=3,
        mlp_layers=mlp_layers,
        width=width,
        widen=widen,
        init=init,
        batch_norm_init=batch_norm_init,
    )


class ConvHead(nn.Module):
    """Head of the comparison with synthetic gradients: a synthesizer's convolutions, global average pooling, linear.

    Three ``kernel_size`` x ``kernel_size`` convolutions with bias, and batch norm and ReLU between them. The last one's weight
    starts at zero (its bias only with ``zero_bias``), so that at first all samples have the same scores and no gradient passes
    below it. Raises ``ConfigError`` for flat features; it needs ``(channels, height, width)`` or ``(channels, positions)``.
    """

    def __init__(
        self,
        shape: FeatureShape,
        num_classes: int,
        *,
        kernel_size: KernelSize = 5,
        zero_bias: bool = False,
        batch_norm_init: BatchNormInit = "ones",
    ) -> None:
        if len(as_map(shape)) != 3:
            raise ConfigError([flat_features("a block of this model outputs flat features")])
        super().__init__()
        self.is_sequence = len(shape) == 2
        self.convolutions = conv_chain(shape[0], kernel_size=kernel_size, zero_bias=zero_bias, sequence=self.is_sequence)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(shape[0], num_classes)
        init_batch_norm(self, batch_norm_init)

    def forward(self, features: Tensor) -> Tensor:
        """Class scores ``[batch, classes]`` of maps ``[batch, channels, height, width]`` or of sequences without the height."""
        features = features.unsqueeze(2) if self.is_sequence else features
        return self.classifier(self.pool(self.convolutions(features)).flatten(1))


def flat_features(reason: str) -> Problem:
    """The problem of a :class:`ConvHead` on flat features; ``reason`` says where they come from."""
    return Problem("algorithm.head", f"conv, but {reason}", "for feature maps only", "algorithm/head=mlp")


def head_problems(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the problems in a head's own node ``config`` that are visible without the model."""
    for name, least in (("conv_layers", 0), ("mlp_layers", 0), ("pooled_size", 1), ("width", 1)):
        value = config.get(name)
        if value is not None and value < least:
            yield Problem(
                f"algorithm.head.{name}", str(value), f"a whole number of at least {least}", f"algorithm.head.{name}={least}"
            )
    if config.get("kernel_size", 1) < 1 or config.get("kernel_size", 1) % 2 == 0:
        yield Problem(
            "algorithm.head.kernel_size", str(config["kernel_size"]), "odd and positive", "algorithm.head.kernel_size=5"
        )
    widen = config.get("widen", 1.0)
    if widen <= 0:
        yield Problem("algorithm.head.widen", str(widen), "a factor above 0", "algorithm.head.widen=1.0")
    elif widen != 1 and config.get("width") is not None:
        description = f"{widen} with algorithm.head.width={config['width']}"
        yield Problem("algorithm.head.widen", description, "only one of the two", "algorithm.head.width=null")


def initialize_head(head: nn.Module, init: HeadInit, batch_norm_init: BatchNormInit) -> None:
    """Draw the initial values of ``head`` in place."""
    if init == "vgg":
        for layer in head.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)
    init_batch_norm(head, batch_norm_init)
