from __future__ import annotations

import pytest
import torch
from torch import nn

from altprop.models.mlp import MLP
from altprop.problems import ConfigError
from tests.models.feed_forward_suite import CountingUnits, assert_feed_forward, num_parameters

MNIST = {"input_shape": (1, 28, 28), "num_classes": 10}


@pytest.mark.parametrize("options", [{}, {"batch_norm": False}, {"batch_norm_logits": True}, {"hidden": []}])
def test_satisfies_the_contract(options):
    units = CountingUnits()
    model = MLP(**{"hidden": [30, 20], **options}, units=units, **MNIST)
    if model.blocks:
        assert_feed_forward(model, units, torch.randn(4, 1, 28, 28))
    else:
        assert model(torch.randn(4, 1, 28, 28)).shape == (4, 10)
        assert num_parameters(model) == 7850


def test_there_is_one_block_per_hidden_layer():
    model = MLP(hidden=[300, 100], units=nn.ReLU, **MNIST)
    assert [block.linear.out_features for block in model.blocks] == [300, 100]


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"batch_norm": True, "batch_norm_logits": True, "bias_before_norm": True}, 267_430),
        ({"batch_norm": True, "batch_norm_logits": True}, 266_200 + 820),
        ({"batch_norm": False}, 266_200 + 410),
        ({"batch_norm": True}, 266_200 + 800 + 10),
        ({"hidden": [784, 784], "batch_norm": True, "batch_norm_logits": True, "bias_before_norm": True}, 1_241_886),
    ],
)
def test_parameter_counts_of_the_papers_networks(options, count):
    assert num_parameters(MLP(**options, units=nn.ReLU, **MNIST)) == count


def test_initial_values():
    default = MLP(units=nn.ReLU, **MNIST)
    assert torch.equal(default.features[0].norm.weight, torch.ones(300))
    assert default.classifier.linear.bias.abs().max() > 0
    other = MLP(batch_norm_init="uniform", linear_bias_init="zeros", units=nn.ReLU, **MNIST)
    drawn = other.features[0].norm.weight
    assert 0 <= drawn.min() < 0.1
    assert 0.9 < drawn.max() < 1
    assert not other.classifier.linear.bias.any()
    assert not other.features[0].norm.bias.any()


@pytest.mark.parametrize("hidden", [[300, 0], [-1], [1.5], 300, "300", [True]])
def test_impossible_widths_raise(hidden):
    with pytest.raises(ConfigError, match=r"model\.hidden: .*whole numbers above 0"):
        MLP(hidden=hidden, units=nn.ReLU, **MNIST)
    assert [problem.key for problem in MLP.check({"hidden": hidden}, {})] == ["model.hidden"]
    assert not list(MLP.check({"hidden": [10]}, {}))
