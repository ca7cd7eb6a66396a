"""A perceptron on images of reduced size, with few weights."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from altprop.models.base import FeedForward, InputShape


class PooledMLP(FeedForward):
    """Average pooling to ``size`` x ``size`` pixels, one hidden layer, linear class scores.

    Args:
        size: Height and width after the pooling.
        hidden: Width of the hidden layer.
        units: Makes the activation function.
        input_shape: Channels, height and width of an image; altprop supplies it.
        num_classes: Number of classes; altprop supplies it.
    """

    def __init__(
        self, *, size: int = 7, hidden: int = 16, units: Callable[[], nn.Module], input_shape: InputShape, num_classes: int
    ) -> None:
        super().__init__()
        self.input_shape, self.num_classes = input_shape, num_classes
        pixels = input_shape[0] * size * size
        self.body = nn.Sequential(nn.AdaptiveAvgPool2d(size), nn.Flatten(), nn.Linear(pixels, hidden), units())
        self.classifier = nn.Linear(hidden, num_classes)
        self.chain([self.body], self.classifier)  # the blocks, for algorithms that train block by block, and the classifier
