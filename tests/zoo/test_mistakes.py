"""Foreign models that algorithms or weights rules refuse, each in one line, and how the axes of sequences are found."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

from altprop.algorithms.backprop import Backprop
from altprop.nn.features import has_channels_last
from altprop.problems import ConfigError
from altprop.testing import INPUT_SHAPE, NUM_CLASSES, WEIGHTS_RULES, Case, Training
from tests.zoo.models import Joined, LSTMNet, NoOwner, Normalized, TwiceUsed, ViT


def train(model: Any, rule: str = "dense") -> Training:
    return Training(Case(lambda weights: Backprop(weights=weights), model), WEIGHTS_RULES[rule]()).run(1)


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (TwiceUsed, "model: stages.0.1.weight, stages.0.1.bias: in block 1 and block 2; each parameter is in one block or "),
        (NoOwner, "model: scale: in no block and not in the classifier; each parameter is in one block or in the classifier"),
    ],
)
def test_every_parameter_belongs_to_one_block(model: Any, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        train(model)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("rule", ["static_sparse", "n_of_m", "binary", "tied"])
@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Joined, "stages.0.1.weight and stages.0.3.weight are one parameter"),
        (partial(Normalized, parametrizations.weight_norm), "the weight of stages.0.1 is computed by WeightNorm"),
        (partial(Normalized, weight_norm), "the weight of stages.0.1 is computed in a hook"),
    ],
)
def test_weights_that_no_rule_can_compute(model: Any, reason: str, rule: str) -> None:
    train(model)  # dense weights may be computed in any way
    with pytest.raises(ConfigError) as caught:
        train(model, rule)
    assert str(caught.value).splitlines()[0].startswith(f"algorithm.weights: {reason}")


def test_axes_of_sequences() -> None:
    vit = ViT(input_shape=INPUT_SHAPE, num_classes=NUM_CLASSES)
    lstm = LSTMNet(input_shape=INPUT_SHAPE, num_classes=NUM_CLASSES)
    assert [has_channels_last(block, (4, 8)) for block in vit.blocks] == [True, True]
    assert [has_channels_last(block, shape) for block, shape in zip(lstm.blocks, [(8, 16), (8, 8)])] == [True, True]
    convolution = nn.Sequential(nn.Conv1d(3, 5, 1), nn.ReLU())
    assert not has_channels_last(convolution, (5, 9))
    assert has_channels_last(nn.Sequential(convolution, nn.Linear(9, 4)), (5, 4))
    assert not has_channels_last(nn.Linear(3, 5), (5,))
    patches = nn.Sequential(nn.Conv2d(1, 6, 2), nn.Flatten(2))
    assert not has_channels_last(patches, (6, 49))
    assert has_channels_last(patches, (49, 6))
    convolution.channels_last = True
    assert has_channels_last(convolution, (5, 9))
