"""AlexNet in the form of DoReFa-Net, without its grouped convolutions and dropout."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from altprop.models.base import FeedForward, InputShape
from altprop.models.checks import require_size
from altprop.nn.initialization import BatchNormInit, init_batch_norm
from altprop.nn.units.base import UnitsFactory

SMALLEST = 60
"""Shortest side of an image in pixels."""


class AlexNetDoReFa(FeedForward):
    """Five convolutions and two layers of 4096 units; 62,394,344 parameters with batch norm for ImageNet, 62,384,968 without.

    A block consists of a convolution or linear layer, batch norm, max-pool and units. The first convolution (12 x 12, stride 4,
    no padding: 54 x 54 maps from 224 x 224 images) has no batch norm and, in a network with batch norm, no bias either. Without
    batch norm every layer has a bias. Raises ``ConfigError`` for images below 60 x 60 pixels.
    """

    def __init__(
        self,
        *,
        batch_norm: bool = True,
        batch_norm_init: BatchNormInit = "ones",
        units: UnitsFactory,
        input_shape: InputShape,
        num_classes: int,
    ) -> None:
        require_size("alexnet_dorefa", input_shape, SMALLEST, "model=convnet4")
        super().__init__()
        self.input_shape = input_shape
        self.num_classes = num_classes
        bias = not batch_norm

        def conv(sizes: tuple[int, int], kernel: int, padding: int, pool_padding: int | None = None) -> nn.Sequential:
            layers: OrderedDict[str, nn.Module] = OrderedDict(conv=nn.Conv2d(*sizes, kernel, padding=padding, bias=bias))
            if batch_norm:
                layers["norm"] = nn.BatchNorm2d(sizes[1], eps=1e-4)
            if pool_padding is not None:
                layers["pool"] = nn.MaxPool2d(3, stride=2, padding=pool_padding)
            layers["units"] = units()
            return nn.Sequential(layers)

        def linear(in_features: int, flatten: bool) -> nn.Sequential:
            layers: OrderedDict[str, nn.Module] = OrderedDict()
            if flatten:
                layers["flatten"] = nn.Flatten()
            layers["linear"] = nn.Linear(in_features, 4096, bias=bias)
            if batch_norm:
                layers["norm"] = nn.BatchNorm1d(4096, eps=1e-4)
            layers["units"] = units()
            return nn.Sequential(layers)

        stem = nn.Sequential(OrderedDict(conv=nn.Conv2d(input_shape[0], 96, 12, stride=4, bias=bias), units=units()))
        height, width = (_map_size(size) for size in input_shape[1:])
        self.features = nn.Sequential(
            stem,
            conv((96, 256), 5, 2, pool_padding=1),
            conv((256, 384), 3, 1, pool_padding=0),
            conv((384, 384), 3, 1),
            conv((384, 256), 3, 1, pool_padding=0),
            linear(256 * height * width, flatten=True),
            linear(4096, flatten=False),
        )
        self.classifier = nn.Linear(4096, num_classes)
        init_batch_norm(self, batch_norm_init)
        self.chain(list(self.features), self.classifier)


def _map_size(size: int) -> int:
    """Return the height or width of the last convolution's pooled map: 224 -> 54 -> 27 -> 13 -> 6."""
    size = (size - 12) // 4 + 1
    size = (size + 2 - 3) // 2 + 1
    for _ in range(2):
        size = (size - 3) // 2 + 1
    return size
