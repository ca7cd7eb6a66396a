"""The plain CIFAR networks of decoupled greedy learning, one convolution per block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from altprop.models.base import FeedForward, InputShape
from altprop.models.checks import is_positive, refuse, require_size
from altprop.models.layers import conv_block
from altprop.nn.heads.local import mlp_head
from altprop.nn.initialization import BatchNormInit, init_batch_norm
from altprop.nn.units.base import UnitsFactory
from altprop.problems import Problem
from altprop.ranges import Depth, NonNegativeDepth, NonNegativeInt, PositiveInt

Downsampling = Literal["maxpool", "avgpool", "stride", "psi"]


def space_to_depth(inputs: Tensor) -> Tensor:
    """Rearrange ``[batch, channels, 2h, 2w]`` to ``[batch, 4 channels, h, w]``, the invertible down-sampling ``psi``.

    Pixel (dy, dx) of channel c goes to channel ``(2 dy + dx) channels + c``. Unlike ``pixel_unshuffle`` this keeps the channels
    of one pixel together.
    """
    batch, channels, height, width = inputs.shape
    pixels = inputs.reshape(batch, channels, height // 2, 2, width // 2, 2)
    return pixels.permute(0, 3, 5, 1, 2, 4).reshape(batch, 4 * channels, height // 2, width // 2)


class SpaceToDepth(nn.Module):
    """See :func:`space_to_depth`."""

    def forward(self, inputs: Tensor) -> Tensor:
        return space_to_depth(inputs)


class GreedyCNN(FeedForward):
    """Equal blocks of 3 x 3 convolution, batch norm and units (Belilovsky et al., 2020, arXiv:1901.08164).

    The classifier is average pooling to 2 x 2, hidden linear layers with batch norm, and a linear layer. Raises ``ConfigError``
    for sizes below 1, down-sampling outside the blocks, and images that are too small or (``psi``) not divisible.

    Args:
        depth: Number of blocks.
        width: Channels of the first block.
        downsample: 0-based blocks that halve height and width before their convolution and double the channels.
        downsample_type: Down-sample by pooling, by a convolution with stride 2, or by ``psi`` (:func:`space_to_depth`).
        bias: Give convolutions a bias even if a batch norm follows; without ``batch_norm`` they always have one.
        batch_norm: Normalize the convolutions.
        head_layers: Number of hidden layers in the classifier.
        batch_norm_init: Initial weights of the batch norms.
    """

    def __init__(
        self,
        *,
        depth: Depth = 4,
        width: PositiveInt = 64,
        downsample: Sequence[NonNegativeInt] = (1, 3),
        downsample_type: Downsampling = "maxpool",
        bias: bool = True,
        batch_norm: bool = True,
        head_layers: NonNegativeDepth = 2,
        batch_norm_init: BatchNormInit = "ones",
        units: UnitsFactory,
        input_shape: InputShape,
        num_classes: int,
    ) -> None:
        refuse(_problems(depth, width, downsample))
        scale = 2 ** len(downsample)
        require_size("this greedy_cnn", input_shape, scale, "model.downsample=[]")
        if downsample_type == "psi" and any(side % scale for side in input_shape[1:]):
            description = f"psi on images of {input_shape[1]} x {input_shape[2]} pixels"
            fix = "model.downsample_type=maxpool"
            refuse([Problem("model.downsample_type", description, f"psi needs sides divisible by {scale}", fix)])
        super().__init__()
        self.input_shape = input_shape
        self.num_classes = num_classes
        norm = {"batch_norm": batch_norm, "bias_before_norm": bias}
        blocks = []
        channels, size = input_shape[0], input_shape[1:]
        for index in range(depth):
            before: list[tuple[str, nn.Module]] = []
            stride = 1
            if index in downsample:
                # a 3 x 3 convolution with stride 2 and padding 1 rounds an odd side up, pooling rounds it down
                size = tuple((side + (downsample_type == "stride")) // 2 for side in size)  # type: ignore[assignment]
                width = 2 * width
                if downsample_type == "psi":
                    before, channels = [("space_to_depth", SpaceToDepth())], 4 * channels
                elif downsample_type == "stride":
                    stride = 2
                else:
                    before = [("pool", nn.MaxPool2d(2) if downsample_type == "maxpool" else nn.AvgPool2d(2))]
            blocks.append(conv_block(channels, width, 3, units, stride=stride, before=before, **norm))
            channels = width
        self.features = nn.Sequential(*blocks)
        self.classifier = mlp_head((channels, *size), num_classes, mlp_layers=head_layers, units=units)
        init_batch_norm(self, batch_norm_init)
        self.chain(blocks, self.classifier)

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Problems in the model's own node ``config``."""
        yield from _problems(config.get("depth", 4), config.get("width", 64), config.get("downsample", (1, 3)))


def _problems(depth: object, width: object, downsample: object) -> Iterator[Problem]:
    for key, value in (("model.depth", depth), ("model.width", width)):
        if not is_positive(value):
            yield Problem(key, str(value), "a whole number above 0", f"{key}=4")
    if isinstance(depth, int) and isinstance(downsample, Sequence):
        outside = [index for index in downsample if index not in range(depth)]
        if outside or len(set(downsample)) < len(downsample):
            allowed = f"different 0-based blocks below model.depth={depth}"
            yield Problem("model.downsample", str(list(downsample)), allowed, "model.downsample=[1]")
