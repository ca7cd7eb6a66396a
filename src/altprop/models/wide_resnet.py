"""Wide residual networks for small images, of any depth and width."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from altprop.models.base import FeedForward, InputShape
from altprop.models.checks import is_positive, refuse
from altprop.nn.initialization import ConvInit, LinearBiasInit, init_convolutions, init_linear_biases
from altprop.nn.units.base import UnitsFactory
from altprop.problems import Problem
from altprop.ranges import Depth, WidthFactor


class PreActivationBlock(nn.Module):
    """Batch norm and units before each of two 3 x 3 convolutions.

    ``[batch, in, h, w]`` -> ``[batch, out, h / stride, w / stride]``. If the number of channels changes, the shortcut is a 1 x 1
    convolution of the activated input, else the input itself. The convolutions have no bias.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, units: UnitsFactory) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.units1 = units()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.units2 = units()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        changes = in_channels != out_channels
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False) if changes else None

    def forward(self, inputs: Tensor) -> Tensor:
        activated = self.units1(self.bn1(inputs))
        features = self.conv2(self.units2(self.bn2(self.conv1(activated))))
        return features + (inputs if self.shortcut is None else self.shortcut(activated))


class WideResNet(FeedForward):
    """Wide residual network (Zagoruyko and Komodakis, arXiv:1605.07146), in the form of dynamic sparse reparameterization.

    A 3 x 3 convolution with 16 channels, then three stages of (``depth`` - 4) / 6 pre-activation blocks with 16, 32 and 64 times
    ``width`` channels, rounded half to even, then batch norm, units and global average pooling (8 x 8 for 32 x 32 images), so
    that images may have any size. The second and third stage start with stride 2. The blocks are the stem and every residual
    block. Raises ``ConfigError`` if ``depth`` is not 6 n + 4 or ``width`` leaves no channel.

    Args:
        depth: Number of layers, 6 n + 4.
        width: Factor on the numbers of channels; need not be a whole number.
        conv_init: Initial weights of the convolutions.
        linear_bias_init: Initial bias of the classifier.
    """

    def __init__(
        self,
        *,
        depth: Depth = 28,
        width: WidthFactor = 2.0,
        conv_init: ConvInit = "fan_out_normal",
        linear_bias_init: LinearBiasInit = "zeros",
        units: UnitsFactory,
        input_shape: InputShape,
        num_classes: int,
    ) -> None:
        refuse(_problems(depth, width))
        super().__init__()
        self.input_shape = input_shape
        self.num_classes = num_classes
        self.conv1 = nn.Conv2d(input_shape[0], 16, 3, padding=1, bias=False)
        blocks: list[nn.Module] = [self.conv1]
        channels = 16
        for number in (1, 2, 3):
            wider = round(8 * 2**number * width)
            stage = nn.Sequential()
            for index in range((depth - 4) // 6):
                stage.append(PreActivationBlock(channels, wider, 2 if index == 0 and number > 1 else 1, units))
                channels = wider
            self.add_module(f"layer{number}", stage)
            blocks.extend(stage)
        self.bn = nn.BatchNorm2d(channels)
        self.units = units()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        init_convolutions(self, conv_init)
        init_linear_biases(self, linear_bias_init)
        self.chain(blocks, nn.Sequential(self.bn, self.units, self.avgpool, nn.Flatten(), self.fc))

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Problems in the model's own node ``config``."""
        yield from _problems(config.get("depth", 28), config.get("width", 2.0))


def _problems(depth: object, width: object) -> Iterator[Problem]:
    if not isinstance(depth, int) or not is_positive(depth - 4) or (depth - 4) % 6:
        yield Problem("model.depth", str(depth), "6 n + 4 layers: 10, 16, 22, 28, 40", "model.depth=28")
    if not isinstance(width, int | float) or round(16 * width) < 1:
        yield Problem("model.width", str(width), "a number for which round(16 * width) is at least 1", "model.width=2")
