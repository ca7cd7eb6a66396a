"""Multilayer perceptrons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

from torch import nn

from altprop.models.base import FeedForward, InputShape
from altprop.models.checks import list_of_sizes, refuse
from altprop.models.layers import linear_block
from altprop.nn.initialization import BatchNormInit, LinearBiasInit, init_batch_norm, init_linear_biases
from altprop.nn.units.base import UnitsFactory
from altprop.problems import Problem
from altprop.ranges import PositiveInt


class MLP(FeedForward):
    """Fully connected layers: flatten, then linear, batch norm and units per hidden layer, then linear class scores.

    Each hidden layer is one block. Raises ``ConfigError`` for widths below 1.

    Args:
        hidden: Widths of the hidden layers; an empty list is multinomial logistic regression.
        batch_norm: Normalize the hidden layers.
        batch_norm_logits: Normalize the class scores.
        bias_before_norm: Give linear layers a bias even if a batch norm follows; those without batch norm always have one.
        batch_norm_init: Initial weights of the batch norms.
        linear_bias_init: Initial biases of the linear layers.
    """

    def __init__(
        self,
        *,
        hidden: Sequence[PositiveInt] = (300, 100),
        batch_norm: bool = True,
        batch_norm_logits: bool = False,
        bias_before_norm: bool = False,
        batch_norm_init: BatchNormInit = "ones",
        linear_bias_init: LinearBiasInit = "default",
        units: UnitsFactory,
        input_shape: InputShape,
        num_classes: int,
    ) -> None:
        refuse(_problems(hidden))
        super().__init__()
        self.input_shape = input_shape
        self.num_classes = num_classes
        features = prod(input_shape)
        before: list[tuple[str, nn.Module]] = [("flatten", nn.Flatten())]
        blocks = []
        for width in hidden:
            blocks.append(
                linear_block(features, width, units, batch_norm=batch_norm, bias_before_norm=bias_before_norm, before=before)
            )
            features, before = width, []
        self.features = nn.Sequential(*blocks)
        self.classifier = linear_block(
            features, num_classes, None, batch_norm=batch_norm_logits, bias_before_norm=bias_before_norm, before=before
        )
        init_linear_biases(self, linear_bias_init)
        init_batch_norm(self, batch_norm_init)
        self.chain(blocks, self.classifier)

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Problems in the model's own node ``config``."""
        yield from _problems(config.get("hidden", ()))


def _problems(hidden: object) -> Iterator[Problem]:
    yield from list_of_sizes("model.hidden", hidden, "model.hidden=[300,100]")
