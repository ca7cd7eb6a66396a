"""Plain convolutional networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from torch import nn

from altprop.models.base import FeedForward, InputShape
from altprop.models.checks import is_positive, list_of_sizes, refuse, require_size
from altprop.models.layers import conv_block, linear_block
from altprop.nn.initialization import BatchNormInit, LinearBiasInit, init_batch_norm, init_linear_biases
from altprop.nn.units.base import UnitsFactory
from altprop.problems import Problem
from altprop.ranges import KernelSize, PositiveInt

POOLING: dict[str, type[nn.MaxPool2d] | type[nn.AvgPool2d]] = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}


class ConvNet(FeedForward):
    """A list of convolutions and 2 x 2 poolings, then fully connected layers.

    Each convolution and each hidden layer is one block; a pooling belongs to the block of the layer that follows it, or to the
    head. Raises ``ConfigError`` for an even ``kernel_size``, sizes below 1, or images too small for the poolings.

    Args:
        channels: The layers in forward order. A number is a convolution (stride 1, same size) to that many channels with batch
            norm and units; ``"pool"`` halves height and width, rounding down.
        kernel_size: Of the convolutions; odd.
        pooling: Kind of pooling.
        hidden: Widths of the fully connected layers after the convolutions.
        batch_norm: Normalize convolutions and hidden layers.
        batch_norm_logits: Normalize the class scores.
        bias_before_norm: Give layers a bias even if a batch norm follows; those without batch norm always have one.
        batch_norm_init: Initial weights of the batch norms.
        linear_bias_init: Initial biases of the linear layers.
    """

    def __init__(
        self,
        *,
        channels: Sequence[PositiveInt | Literal["pool"]] = (32, "pool", 64, "pool", 128, "pool"),
        kernel_size: KernelSize = 3,
        pooling: Literal["max", "average"] = "max",
        hidden: Sequence[PositiveInt] = (),
        batch_norm: bool = True,
        batch_norm_logits: bool = False,
        bias_before_norm: bool = False,
        batch_norm_init: BatchNormInit = "ones",
        linear_bias_init: LinearBiasInit = "default",
        units: UnitsFactory,
        input_shape: InputShape,
        num_classes: int,
    ) -> None:
        refuse(_problems(channels, kernel_size, hidden))
        scale = 2 ** sum(entry == "pool" for entry in channels)
        require_size("this convnet", input_shape, scale, "model=mlp")
        super().__init__()
        self.input_shape = input_shape
        self.num_classes = num_classes
        width, *size = input_shape
        norm = {"batch_norm": batch_norm, "bias_before_norm": bias_before_norm}
        blocks = []
        before: list[tuple[str, nn.Module]] = []
        for entry in channels:
            if entry == "pool":
                before.append((f"pool{len(before)}", POOLING[pooling](2)))
            else:
                blocks.append(conv_block(width, entry, kernel_size, units, before=before, **norm))
                width, before = entry, []
        width *= (size[0] // scale) * (size[1] // scale)
        before.append(("flatten", nn.Flatten()))
        for entry in hidden:
            blocks.append(linear_block(width, entry, units, before=before, **norm))
            width, before = entry, []
        self.features = nn.Sequential(*blocks)
        self.classifier = linear_block(
            width, num_classes, None, before=before, batch_norm=batch_norm_logits, bias_before_norm=bias_before_norm
        )
        init_linear_biases(self, linear_bias_init)
        init_batch_norm(self, batch_norm_init)
        self.chain(blocks, self.classifier)

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Problems in the model's own node ``config``."""
        yield from _problems(config.get("channels", ()), config.get("kernel_size", 3), config.get("hidden", ()))


def _problems(channels: object, kernel_size: object, hidden: object) -> Iterator[Problem]:
    yield from list_of_sizes("model.channels", channels, "model.channels=[32,pool,64,pool]", words=("pool",))
    yield from list_of_sizes("model.hidden", hidden, "model.hidden=[128]")
    if not isinstance(kernel_size, int) or not is_positive(kernel_size) or kernel_size % 2 == 0:
        allowed = "an odd whole number, so that a convolution keeps height and width"
        yield Problem("model.kernel_size", str(kernel_size), allowed, "model.kernel_size=3")
