"""ResNet-20 to 110 for small images, with shortcuts that have no parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.functional import pad

from altprop.models.base import FeedForward, InputShape
from altprop.models.checks import is_positive, refuse
from altprop.models.residual import BasicBlock
from altprop.nn.initialization import (
    BatchNormInit,
    ConvInit,
    LinearInit,
    init_batch_norm,
    init_convolutions,
    init_linear_weights,
)
from altprop.nn.units.base import UnitsFactory
from altprop.problems import Problem
from altprop.ranges import Depth

ShortcutPadding = Literal["after", "both_sides"]


def padded_shortcut(inputs: Tensor, extra: int, padding: ShortcutPadding) -> Tensor:
    """Take every second pixel of ``inputs`` ``[batch, channels, h, w]`` and add ``extra`` channels of zeros.

    They are added ``after`` the real channels, or half of them on each side. Returns
    ``[batch, channels + extra, ceil(h / 2), ceil(w / 2)]``.
    """
    in_front = extra // 2 if padding == "both_sides" else 0
    return pad(inputs[:, :, ::2, ::2], (0, 0, 0, 0, in_front, extra - in_front))


class PaddedShortcut(nn.Module):
    """The shortcut without parameters (He et al., arXiv:1512.03385, option A); see :func:`padded_shortcut`."""

    def __init__(self, extra: int, padding: ShortcutPadding) -> None:
        super().__init__()
        self.extra = extra
        self.padding = padding

    def forward(self, inputs: Tensor) -> Tensor:
        return padded_shortcut(inputs, self.extra, self.padding)


class CifarResNet(FeedForward):
    """Deep residual network for CIFAR (He et al., arXiv:1512.03385, section 4.2).

    A 3 x 3 convolution, then three stages of (``depth`` - 2) / 6 basic blocks with 16, 32 and 64 channels, then global average
    pooling, so that images may have any size. The blocks are the stem and every residual block. Raises ``ConfigError`` if
    ``depth`` is not 6 n + 2.

    Args:
        depth: Number of layers, 6 n + 2.
        shortcut_padding: Where shortcuts add their channels of zeros.
        conv_init: Initial weights of the convolutions.
        batch_norm_init: Initial weights of the batch norms.
        linear_init: Initial weights of the classifier.
    """

    def __init__(
        self,
        *,
        depth: Depth = 20,
        shortcut_padding: ShortcutPadding = "after",
        conv_init: ConvInit = "fan_out_normal",
        batch_norm_init: BatchNormInit = "ones",
        linear_init: LinearInit = "default",
        units: UnitsFactory,
        input_shape: InputShape,
        num_classes: int,
    ) -> None:
        refuse(_problems(depth))
        super().__init__()
        self.input_shape = input_shape
        self.num_classes = num_classes
        self.conv1 = nn.Conv2d(input_shape[0], 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.units = units()
        blocks: list[nn.Module] = [nn.Sequential(self.conv1, self.bn1, self.units)]
        channels = 16
        for number, planes in enumerate((16, 32, 64), start=1):
            stage = nn.Sequential()
            for _ in range((depth - 2) // 6):
                narrower = channels != planes
                shortcut = PaddedShortcut(planes - channels, shortcut_padding) if narrower else None
                stage.append(BasicBlock(channels, planes, 2 if narrower else 1, shortcut, units))
                channels = planes
            self.add_module(f"layer{number}", stage)
            blocks.extend(stage)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        init_convolutions(self, conv_init)
        init_batch_norm(self, batch_norm_init)
        init_linear_weights(self, linear_init)
        self.chain(blocks, nn.Sequential(self.avgpool, nn.Flatten(), self.fc))

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Problems in the model's own node ``config``."""
        yield from _problems(config.get("depth", 20))


def _problems(depth: object) -> Iterator[Problem]:
    if not isinstance(depth, int) or not is_positive(depth - 2) or (depth - 2) % 6:
        yield Problem("model.depth", str(depth), "6 n + 2 layers: 20, 32, 44, 56, 110", "model.depth=20")
