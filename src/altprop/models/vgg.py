"""VGG-11 to 19 with torchvision's parameter names, shapes, counts and initial values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from torch import nn

from altprop.models.base import FeedForward, InputShape
from altprop.models.checks import refuse, require_size
from altprop.nn.pooling import AdaptiveAvgPool2d
from altprop.nn.units.base import UnitsFactory
from altprop.problems import Problem
from altprop.ranges import Probability, WidthFactor

CONVOLUTIONS: dict[int, tuple[int, int, int, int, int]] = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
"""Depth -> number of convolutions in each of the five groups, which end in a pooling."""
CHANNELS = (64, 128, 256, 512, 512)


class VGG(FeedForward):
    """Very deep convolutional network (Simonyan and Zisserman, arXiv:1409.1556, table 1: A, B, D and E).

    3 x 3 convolutions with bias in five groups, a 2 x 2 max-pool after each group, adaptive pooling to 7 x 7, and three linear
    layers with ``dropout`` between them. Each convolution with its batch norm and units is one block. A max-pool belongs to the
    block of the convolution that follows it, the last one to the head with everything after it (the cut of decoupled greedy
    learning, arXiv:1901.08164). Raises ``ConfigError`` for images below 32 x 32 pixels, for a ``dropout`` outside [0, 1] and for
    a ``width`` that leaves no channel.

    Args:
        depth: Number of layers, as in the paper.
        batch_norm: Whether a batch norm follows every convolution.
        dropout: Probability of dropout between the linear layers.
        width: Factor on all numbers of channels and of hidden units, which are then rounded, half to even.
    """

    def __init__(
        self,
        *,
        depth: Literal[11, 13, 16, 19] = 11,
        batch_norm: bool = True,
        dropout: Probability = 0.5,
        width: WidthFactor = 1.0,
        units: UnitsFactory,
        input_shape: InputShape,
        num_classes: int,
    ) -> None:
        refuse(_problems(dropout, width))
        require_size(f"vgg{depth}", input_shape, 2 ** len(CHANNELS), "model=convnet")
        super().__init__()
        self.input_shape = input_shape
        self.num_classes = num_classes
        self.features = nn.Sequential()
        blocks: list[nn.Sequential] = []
        channels = input_shape[0]
        pool: list[nn.Module] = []
        for count, full in zip(CONVOLUTIONS[depth], CHANNELS, strict=True):
            planes = round(full * width)
            for _ in range(count):
                layers = [*pool, nn.Conv2d(channels, planes, 3, padding=1)]
                layers += [nn.BatchNorm2d(planes), units()] if batch_norm else [units()]
                self.features.extend(layers)
                blocks.append(nn.Sequential(*layers))
                channels, pool = planes, []
            pool = [nn.MaxPool2d(2, 2)]
        self.features.extend(pool)
        self.avgpool = AdaptiveAvgPool2d(7)
        hidden = round(4096 * width)
        self.classifier = nn.Sequential(
            nn.Linear(channels * 7 * 7, hidden),
            units(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            units(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )
        self._init_weights()
        self.chain(blocks, nn.Sequential(*pool, self.avgpool, nn.Flatten(), self.classifier))

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Problems in the model's own node ``config``."""
        yield from _problems(config.get("dropout", 0.5), config.get("width", 1.0))

    def _init_weights(self) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)


def _problems(dropout: object, width: object) -> Iterator[Problem]:
    if not isinstance(width, int | float) or round(CHANNELS[0] * width) < 1:
        allowed = f"a number for which round({CHANNELS[0]} * width), the channels of the first group, is at least 1"
        yield Problem("model.width", str(width), allowed, "model.width=1.0")
    if not isinstance(dropout, int | float) or not 0 <= dropout <= 1:
        yield Problem("model.dropout", str(dropout), "a probability from 0 to 1", "model.dropout=0.5")
