"""The small CIFAR network of the comparison with synthetic gradients."""

from __future__ import annotations

from torch import nn

from altprop.models.base import FeedForward, InputShape
from altprop.models.checks import require_size
from altprop.nn.initialization import BatchNormInit, init_batch_norm
from altprop.nn.units.base import UnitsFactory
from altprop.ranges import PositiveInt


class DniCNN(FeedForward):
    """Three blocks of 5 x 5 convolution with bias, batch norm, units and 3 x 3 pooling, then a linear classifier.

    The network of Jaderberg et al. (2017, arXiv:1608.05343) in the form of Belilovsky et al. (2020). The first block has max
    pooling, the others average pooling, all with stride 3: 32 x 32 pixels become 10 x 10, 3 x 3 and 1 x 1. Raises ``ConfigError``
    for images below 27 x 27 pixels.
    """

    def __init__(
        self,
        *,
        width: PositiveInt = 128,
        batch_norm_init: BatchNormInit = "ones",
        units: UnitsFactory,
        input_shape: InputShape,
        num_classes: int,
    ) -> None:
        require_size("dni_cnn", input_shape, 27, "model=convnet")
        super().__init__()
        self.input_shape = input_shape
        self.num_classes = num_classes
        channels = input_shape[0]
        blocks = []
        for pool in (nn.MaxPool2d(3), nn.AvgPool2d(3), nn.AvgPool2d(3)):
            blocks.append(nn.Sequential(nn.Conv2d(channels, width, 5, padding=2), nn.BatchNorm2d(width), units(), pool))
            channels = width
        height, breadth = (side // 27 for side in input_shape[1:])
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(width * height * breadth, num_classes))
        init_batch_norm(self, batch_norm_init)
        self.chain(blocks, self.classifier)
