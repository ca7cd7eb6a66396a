"""Masked layers, the published counts of weights, and the times of structure updates."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from altprop.models.mlp import MLP
from altprop.models.resnet import ResNet
from altprop.models.wide_resnet import WideResNet
from altprop.nn.weights.layers import select
from altprop.nn.weights.penalties import Penalty
from altprop.nn.weights.sparse.distribution import active_count
from altprop.nn.weights.sparse.dynamic import DynamicSparse
from altprop.nn.weights.sparse.grow import RandomGrow
from altprop.nn.weights.sparse.layout import Layout
from altprop.nn.weights.sparse.prune import FractionPrune
from altprop.nn.weights.sparse.redistribute import WithinTensor
from altprop.nn.weights.sparse.static import StaticSparse
from altprop.nn.weights.tied import bank_size
from altprop.problems import ConfigError
from tests.nn.weights.training import Trained, active, batch, masks, small_mlp, small_wrn, stored

PERIODS = {
    "wrn": {0: 100, 25: 200, 80: 400, 140: 800},
    "r50": {0: 1000, 25: 2000, 50: 4000, 75: 8000},
}


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    inputs, targets = batch(0)
    model.zero_grad()
    nn.functional.cross_entropy(model.train()(inputs), targets).backward()
    return {name.replace("parametrizations.weight.original", "weight"): p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("build", [small_mlp, small_wrn])
@pytest.mark.parametrize("granularity", [1, 2, 3, 4])
def test_the_gradient_of_inactive_entries_is_exactly_zero(build, granularity):
    trained = Trained(StaticSparse(sparsity=0.7, granularity=granularity), build())
    effective = build()
    with torch.no_grad():
        for layer in trained.rule.weights.layers:
            effective.get_submodule(layer.name).weight.copy_(layer.module.weight)
    dense = gradients(effective)
    sparse = gradients(trained.model)
    for layer, mask in zip(trained.rule.weights.layers, masks(trained.model)):
        name = f"{layer.name}.weight"
        assert not sparse[name][mask == 0].any()
        torch.testing.assert_close(sparse[name][mask == 1], dense[name][mask == 1])


@pytest.mark.parametrize("build", [small_mlp, small_wrn])
def test_sparsity_zero_gives_the_dense_gradients(build):
    plain, masked = Trained(StaticSparse(sparsity=0.0, dense=[]), build()), build()
    one, other = gradients(plain.model), gradients(masked)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("granularity", [1, 2, 3])
def test_the_weights_of_a_unit_are_active_together(granularity):
    trained = Trained(StaticSparse(sparsity=0.5, granularity=granularity, layers=["conv"]), small_wrn())
    assert all(mask.flatten(granularity).std(dim=-1).max() == 0 for mask in masks(trained.model))
    rows = {mask.flatten(granularity)[..., 0].float().mean().item() for mask in masks(trained.model)}
    assert all(0 < row < 1 for row in rows)


@pytest.mark.parametrize(
    ("build", "granularity", "kind", "independent"),
    [
        (small_mlp, 4, "l1", True),
        *((small_wrn, granularity, "l1", True) for granularity in (1, 2, 3, 4)),
        (small_wrn, 1, "group_lasso", True),
        (small_wrn, 2, "group_lasso", True),
        (small_wrn, 3, "group_lasso", False),
        (small_wrn, 4, "group_lasso", False),
    ],
)
def test_whether_active_weights_depend_on_stored_inactive_ones(build, granularity, kind, independent):
    """Section 10.12: they never do under weight decay and plain L1, but under the group lasso if part of a slice may be inactive.

    Then the inactive rest enters the norm of the slice.
    """
    runs = []
    for noise in (0.0, 3.0):
        rule = StaticSparse(sparsity=0.6, granularity=granularity, penalty=Penalty(coefficient=1e-3, kind=kind))
        trained = Trained(rule, build(), weight_decay=1e-2)
        with torch.no_grad():
            for weight, mask in zip(stored(trained.model), masks(trained.model)):
                weight.add_((1 - mask) * noise)
        trained.steps(12)
        runs.append([weight.detach() * mask for weight, mask in zip(stored(trained.model), masks(trained.model))])
    assert all(torch.equal(one, other) for one, other in zip(*runs)) == independent


# -- selection -------------------------------------------------------------------------------------------------------------


def test_sparsity_by_role_and_name():
    rule = StaticSparse(sparsity={"linear": 0.5, "classifier": 0.25, "features.1*": 0.75}, dense=[])
    assert active(Trained(rule, small_mlp()).model) == [96, 24, 30]
    with pytest.raises(ConfigError, match="nothing in"):
        Trained(StaticSparse(sparsity={"conv": 0.5}, dense=[]), small_mlp())


@pytest.mark.parametrize("distribution", ["erk", "uniform"])
def test_layers_that_a_distribution_makes_dense_are_not_masked(distribution):
    trained = Trained(StaticSparse(sparsity=0.3, dense=[], distribution=distribution), small_mlp())
    names = trained.rule.weights.names
    assert names == (
        ["features.0.linear", "features.1.linear"] if distribution == "erk" else ["features.1.linear", "classifier.linear"]
    )
    total = 192 + 96 + 40
    if distribution == "erk":
        assert sum(active(trained.model)) + 40 == pytest.approx(0.7 * total, abs=2)
    else:
        assert active(trained.model) == [67, 28]


# -- published counts ------------------------------------------------------------------------------------------------------


def counts(model: nn.Module, dense: list[str], sparsity: float, granularity: int) -> tuple[int, int, int]:
    """Return active weights, free values of the tied form, and all other parameters, computed from shapes alone."""
    shapes = [tuple(layer.module.weight.shape) for layer in select(model, ["conv", "linear"], dense)]
    layout = Layout.of(shapes, granularity)
    weights = sum(active_count(sparsity, size) * width for size, width in zip(layout.sizes, layout.widths))
    tied = sum(bank_size(sparsity, size * width) for size, width in zip(layout.sizes, layout.widths))
    total = sum(size * width for size, width in zip(layout.sizes, layout.widths))
    return weights, tied, sum(parameter.numel() for parameter in model.parameters()) - total


@pytest.mark.parametrize(
    ("sparsity", "weights", "slices", "tied"),
    [
        (0.5, 725_760, 725_760, 725_760),
        (0.6, 580_597, 580_491, 580_605),
        (0.7, 435_442, 435_366, 435_457),
        (0.8, 290_294, 290_178, 290_303),
        (0.9, 145_139, 145_053, 145_155),
    ],
)
def test_wide_resnet_counts(sparsity, weights, slices, tied):
    with torch.device("meta"):
        model = WideResNet(depth=28, width=2, units=nn.ReLU, input_shape=(3, 32, 32), num_classes=10)
    dense = ["stem", "shortcut", "classifier"]
    assert counts(model, dense, sparsity, 4) == (weights, tied, 16_090)
    assert counts(model, dense, sparsity, 2)[0] == slices


@pytest.mark.parametrize(
    ("sparsity", "weights", "slices", "tied", "with_shortcuts"),
    [(0.8, 4_544_896, 4_544_838, 4_544_923, 5_098_673), (0.9, 2_272_437, 2_272_371, 2_272_459, 2_549_325)],
)
def test_resnet50_counts(sparsity, weights, slices, tied, with_shortcuts):
    with torch.device("meta"):
        model = ResNet(depth=50, units=nn.ReLU, input_shape=(3, 224, 224), num_classes=1000)
    assert counts(model, ["stem", "shortcut"], sparsity, 4) == (weights, tied, 2_832_424)
    assert counts(model, ["stem", "shortcut"], sparsity, 2)[0] == slices
    assert counts(model, ["stem"], sparsity, 4)[::2] == (with_shortcuts, 63_528)


def test_mnist_mlp_counts():
    with torch.device("meta"):
        model = MLP(
            hidden=(300, 100), batch_norm=True, batch_norm_logits=True, units=nn.ReLU, input_shape=(1, 28, 28), num_classes=10
        )
    assert counts(model, [], 0.98, 4) == (5_324, 5_324, 820)


@pytest.mark.parametrize("granularity", [2, 4])
def test_drawn_masks_have_the_published_counts(granularity):
    model = WideResNet(depth=28, width=2, units=nn.ReLU, input_shape=(3, 32, 32), num_classes=10)
    expected = counts(model, ["stem", "shortcut", "classifier"], 0.9, granularity)
    trained = Trained(StaticSparse(sparsity=0.9, dense=["stem", "shortcut", "classifier"], granularity=granularity), model)
    metrics = trained.rule.epoch_end(0)
    assert metrics["nonzero_parameters"] == expected[0] + expected[2]


def test_operations_of_a_forward_pass():
    """Two per multiply-add, compared with torch's own counter on the dense network."""
    from torch.utils.flop_counter import FlopCounterMode

    model = small_wrn(torch.float32)
    with FlopCounterMode(display=False) as counter:
        copy.deepcopy(model).eval()(torch.zeros(1, 1, 4, 4))
    dense = Trained(StaticSparse(sparsity=0.0), model).rule.epoch_end(0)
    assert dense["forward_flops"] == counter.get_total_flops()
    assert dense["flops_share"] == 1
    half = Trained(StaticSparse(sparsity=0.5, dense=[]), small_wrn(torch.float32)).rule.epoch_end(0)
    assert half["flops_share"].item() == pytest.approx(0.5, abs=0.01)


# -- times of the updates --------------------------------------------------------------------------------------------------


def updates(period: dict[int, int], stop: int, steps_per_epoch: int, epochs: int) -> list[int]:
    """The steps after which an update is due."""
    rule = DynamicSparse(
        sparsity=0.9,
        prune=FractionPrune(fraction=0.1),
        redistribute=WithinTensor(),
        grow=RandomGrow(),
        period=period,
        stop_epoch=stop,
    )
    steps = []
    for epoch in range(min(epochs, stop)):
        rule.epoch = epoch
        smallest = min(value for key, value in period.items() if key <= epoch)
        first = -(-epoch * steps_per_epoch // smallest) * smallest
        steps += [step for step in range(first, (epoch + 1) * steps_per_epoch, smallest) if rule.due(step)]
    return steps


def test_times_of_the_published_updates():
    """Section 5.2: the number of updates, the first at iteration 100 and the last at 94400."""
    published = {10: 49, 20: 99, 30: 136, 40: 161, 50: 186, 60: 211, 70: 236, 80: 261, 90: 274, 100: 286, 110: 299, 120: 311}
    published |= {130: 324, 140: 336, 150: 342, 160: 348, 170: 355, 180: 361, 190: 367}
    for stop, count in published.items():
        steps = updates(PERIODS["wrn"], stop, 500, 200)
        assert len(steps) == count
        assert steps[0] == 100
    assert steps[-1] == 94_400
    imagenet = updates(PERIODS["r50"], 95, 5005, 100)
    assert (len(imagenet), imagenet[-1]) == (232, 472_000)


def test_nothing_moves_from_the_stop_epoch_on_and_period_one_is_every_step():
    rule = DynamicSparse(
        sparsity=0.9,
        prune=FractionPrune(fraction=0.1),
        redistribute=WithinTensor(),
        grow=RandomGrow(),
        period={0: 1, 1: 3},
        stop_epoch=2,
    )
    rule.epoch = 0
    assert all(rule.due(step) for step in range(3))
    rule.epoch = 1
    assert [rule.due(step) for step in (0, 2, 3)] == [False, False, True]
    rule.epoch = 2
    assert not rule.due(3)
