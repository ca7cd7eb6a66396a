"""ResNet-18 to 152 with torchvision's parameter names, shapes, counts and initial values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from torch import nn

from altprop.models.base import FeedForward, InputShape
from altprop.models.checks import list_of_sizes, refuse
from altprop.models.residual import BasicBlock, Bottleneck, projection
from altprop.nn.initialization import (
    BatchNormInit,
    ConvInit,
    LinearBiasInit,
    init_batch_norm,
    init_convolutions,
    init_linear_biases,
)
from altprop.nn.units.base import UnitsFactory
from altprop.problems import Problem
from altprop.ranges import PositiveInt, WidthFactor

STAGES: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(FeedForward):
    """Deep residual network for ImageNet (He et al., arXiv:1512.03385, table 1), or with a stem for small images.

    ``stem="imagenet"`` is a 7 x 7 convolution with stride 2 and a 3 x 3 max-pool with stride 2; ``"cifar"`` is a 3 x 3
    convolution with stride 1. The stages, four of them by default, have p, 2p, 4p, 8p, … planes with p = round(64 * ``width``),
    half to even. The blocks are the stem and every residual block; the head pools globally, so images may have any size. With the
    default options the initial values are torchvision's. Raises ``ConfigError`` if ``width`` leaves no channel, or if ``stages``
    is not a list of numbers from 1 on.

    Args:
        depth: Number of layers, as in the paper. Up to 34 the residual blocks are pairs of 3 x 3 convolutions, then bottlenecks.
        stages: Number of residual blocks in each stage, such as ``[1, 1, 2, 1]``; None for those of ``depth``, which then only
            says of which kind the blocks are.
        width: Factor on all numbers of planes.
        stem: First layers, ``imagenet`` or ``cifar``.
        conv_init: Initial weights of the convolutions.
        batch_norm_init: Initial weights of the batch norms.
        linear_bias_init: Initial bias of the classifier.
    """

    def __init__(
        self,
        *,
        depth: Literal[18, 34, 50, 101, 152] = 18,
        width: WidthFactor = 1.0,
        stem: Literal["imagenet", "cifar"] = "imagenet",
        conv_init: ConvInit = "fan_out_normal",
        batch_norm_init: BatchNormInit = "ones",
        linear_bias_init: LinearBiasInit = "default",
        stages: Sequence[PositiveInt] | None = None,
        units: UnitsFactory,
        input_shape: InputShape,
        num_classes: int,
    ) -> None:
        refuse(_problems(width, stages))
        super().__init__()
        self.input_shape = input_shape
        self.num_classes = num_classes
        planes = round(64 * width)
        if stem == "cifar":
            self.conv1 = nn.Conv2d(input_shape[0], planes, 3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(input_shape[0], planes, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.units = units()
        first: list[nn.Module] = [self.conv1, self.bn1, self.units]
        if stem == "imagenet":
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
            first.append(self.maxpool)
        block, counts = STAGES[depth]
        channels = planes
        blocks: list[nn.Module] = [nn.Sequential(*first)]
        for number, count in enumerate(counts if stages is None else stages, start=1):
            stage = _stage(block, channels, planes, count, 1 if number == 1 else 2, units)
            self.add_module(f"layer{number}", stage)
            blocks.extend(stage)
            channels = planes * block.expansion
            planes *= 2
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        init_convolutions(self, conv_init)
        init_batch_norm(self, batch_norm_init)
        init_linear_biases(self, linear_bias_init)
        self.chain(blocks, nn.Sequential(self.avgpool, nn.Flatten(), self.fc))

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Problems in the model's own node ``config``."""
        yield from _problems(config.get("width", 1.0), config.get("stages"))


def _stage(
    block: type[BasicBlock] | type[Bottleneck],
    in_channels: int,
    planes: int,
    count: int,
    stride: int,
    units: UnitsFactory,
) -> nn.Sequential:
    """Build ``count`` residual blocks, the first with ``stride`` and, if the shape changes, a projection."""
    channels = planes * block.expansion
    changes = stride != 1 or in_channels != channels
    # the projection is built before the block's own layers, as in torchvision, so that a seed gives the same initial values
    downsample = projection(in_channels, channels, stride) if changes else None
    blocks = [block(in_channels, planes, stride, downsample, units)]
    blocks.extend(block(channels, planes, 1, None, units) for _ in range(1, count))
    return nn.Sequential(*blocks)


def _problems(width: object, stages: object) -> Iterator[Problem]:
    if stages is not None:
        yield from list_of_sizes("model.stages", stages, "model.stages=[1,1,2,1]")
        if not stages:
            yield Problem("model.stages", "[]", "at least one stage", "model.stages=[1,1,2,1]")
    if not isinstance(width, int | float) or round(64 * width) < 1:
        allowed = "a number for which round(64 * width), the channels of the first stage, is at least 1"
        yield Problem("model.width", str(width), allowed, "model.width=1.0")
