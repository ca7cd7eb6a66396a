"""Masked layers, penalties, layer selection, published counts and the times of the updates."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from altprop.models.mlp import MLP
from altprop.models.resnet import ResNet
from altprop.models.wide_resnet import WideResNet
from altprop.nn.weights.layers import select, weight_layers
from altprop.nn.weights.penalties import Penalty, patch_norms, penalty, penalty_gradient
from altprop.nn.weights.sparse.base import StaticSparse
from altprop.nn.weights.sparse.distribution import active_count
from altprop.nn.weights.sparse.dynamic import DynamicSparse
from altprop.nn.weights.sparse.layout import Layout
from altprop.nn.weights.sparse.strategies import FractionPrune, RandomGrow, WithinTensor
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
def test_inactive_entries_get_exactly_no_gradient(build, granularity):
    trained = Trained(StaticSparse(0.7, granularity=granularity), build())
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
def test_without_sparsity_nothing_changes(build):
    plain, masked = Trained(StaticSparse(0.0, dense=[]), build()), build()
    one, other = gradients(plain.model), gradients(masked)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("granularity", [1, 2, 3])
def test_the_weights_of_a_unit_are_active_together(granularity):
    trained = Trained(StaticSparse(0.5, granularity=granularity, layers=["conv"]), small_wrn())
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
def test_whether_active_weights_depend_on_what_is_stored_elsewhere(build, granularity, kind, independent):
    """Section 10.12: never under any weight decay and plain L1; under the group lasso where a part of a slice may be inactive.

    There the inactive rest enters the norm of the slice.
    """
    runs = []
    for noise in (0.0, 3.0):
        rule = StaticSparse(0.6, granularity=granularity, penalty=Penalty(1e-3, kind))
        trained = Trained(rule, build(), weight_decay=1e-2)
        with torch.no_grad():
            for weight, mask in zip(stored(trained.model), masks(trained.model)):
                weight.add_((1 - mask) * noise)
        trained.steps(12)
        runs.append([weight.detach() * mask for weight, mask in zip(stored(trained.model), masks(trained.model))])
    assert all(torch.equal(one, other) for one, other in zip(*runs)) == independent


@given(st.integers(0, 20), st.sampled_from([(3, 4), (2, 3, 3, 3), (2, 2, 1, 1)]), st.sampled_from(["l1", "group_lasso"]))
def test_penalty_gradients(seed, shape, kind):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(penalty(weight, kind), weight)
    torch.testing.assert_close(penalty_gradient(weight.detach(), kind), expected)
    assert not penalty_gradient(torch.zeros(shape), kind).any()


def test_group_lasso_of_a_patch():
    weight = torch.randn(2, 3, 3, 3, dtype=torch.float64)
    expected = torch.tensor([[(weight[o, i].norm() ** 2 + 1e-12) ** 0.5 for i in range(3)] for o in range(2)])
    torch.testing.assert_close(patch_norms(weight)[:, :, 0, 0], expected.double())
    patch = weight[0, 0]
    torch.testing.assert_close(penalty_gradient(weight, "group_lasso")[0, 0], patch / (patch.norm() ** 2 + 1e-12).sqrt())


def test_a_penalty_of_zero_changes_nothing_and_another_shrinks():
    runs = {c: Trained(StaticSparse(0.5, penalty=Penalty(c)), small_mlp()).steps(10) for c in (None, 0.0, 0.05) if c is not None}
    plain = Trained(StaticSparse(0.5), small_mlp()).steps(10)
    assert all(torch.equal(a, b) for a, b in zip(stored(plain.model), stored(runs[0.0].model)))
    assert sum(w.abs().sum() for w in stored(runs[0.05].model)) < 0.9 * sum(w.abs().sum() for w in stored(plain.model))
    metrics = runs[0.05].algorithm.epoch_end(1)
    total = sum(w.abs().sum() for w in stored(runs[0.05].model))
    torch.testing.assert_close(metrics["weights/penalty"], 0.05 * total.detach())
    assert "weights/penalty" not in plain.algorithm.epoch_end(1)


# -- selection -------------------------------------------------------------------------------------------------------------


def test_roles():
    with torch.device("meta"):
        model = WideResNet(depth=10, width=1, units=nn.ReLU, input_shape=(3, 32, 32), num_classes=10)
        mlp = MLP(hidden=(5,), units=nn.ReLU, input_shape=(3, 2, 2), num_classes=10)
    roles = {layer.name: layer.roles for layer in weight_layers(model)}
    assert roles["conv1"] == {"conv", "first", "stem"}
    assert roles["layer2.0.shortcut"] == {"conv", "shortcut"}
    assert roles["fc"] == {"linear", "classifier"}
    assert [sorted(layer.roles) for layer in weight_layers(mlp)] == [["first", "linear"], ["classifier", "linear"]]
    chosen = select(model, ["conv"], ["stem", "layer3.*"])
    assert {layer.name.split(".")[0] for layer in chosen} == {"layer1", "layer2"}
    with pytest.raises(ConfigError, match=r"algorithm\.weights\.dense: 'layer4\.\*' fits no layer"):
        select(model, ["conv"], ["layer4.*"])
    with pytest.raises(ConfigError, match="selects nothing"):
        select(mlp, ["linear"], ["linear"])


def test_sparsity_by_role_and_name():
    rule = StaticSparse({"linear": 0.5, "classifier": 0.25, "features.1*": 0.75}, dense=[])
    assert active(Trained(rule, small_mlp()).model) == [96, 24, 30]
    with pytest.raises(ConfigError, match="nothing in"):
        Trained(StaticSparse({"conv": 0.5}, dense=[]), small_mlp())


@pytest.mark.parametrize("distribution", ["erk", "uniform"])
def test_layers_that_a_distribution_makes_dense_are_left_alone(distribution):
    trained = Trained(StaticSparse(0.3, dense=[], distribution=distribution), small_mlp())
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
    """Active weights, free values of the tied form, and everything else, from shapes alone."""
    shapes = [tuple(layer.module.weight.shape) for layer in select(model, ["conv", "linear"], dense)]
    layout = Layout.of(shapes, granularity)
    kept = sum(active_count(sparsity, size) * width for size, width in zip(layout.sizes, layout.widths))
    tied = sum(bank_size(sparsity, size * width) for size, width in zip(layout.sizes, layout.widths))
    total = sum(size * width for size, width in zip(layout.sizes, layout.widths))
    return kept, tied, sum(parameter.numel() for parameter in model.parameters()) - total


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
    trained = Trained(StaticSparse(0.9, dense=["stem", "shortcut", "classifier"], granularity=granularity), model)
    metrics = trained.rule.epoch_end(0)
    assert metrics["nonzero_parameters"] == expected[0] + expected[2]


def test_operations_of_a_forward_pass():
    """Two per multiply-add; checked against torch's own counter on the dense network."""
    from torch.utils.flop_counter import FlopCounterMode

    model = small_wrn(torch.float32)
    with FlopCounterMode(display=False) as counter:
        copy.deepcopy(model).eval()(torch.zeros(1, 1, 4, 4))
    dense = Trained(StaticSparse(0.0), model).rule.epoch_end(0)
    assert dense["forward_flops"] == counter.get_total_flops()
    assert dense["flops_share"] == 1
    half = Trained(StaticSparse(0.5, dense=[]), small_wrn(torch.float32)).rule.epoch_end(0)
    assert half["flops_share"].item() == pytest.approx(0.5, abs=0.01)


# -- times of the updates --------------------------------------------------------------------------------------------------


def updates(period: dict[int, int], stop: int, steps_per_epoch: int, epochs: int) -> list[int]:
    rule = DynamicSparse(0.9, FractionPrune(0.1), WithinTensor(), RandomGrow(), period, stop_epoch=stop)
    found = []
    for epoch in range(min(epochs, stop)):
        rule.epoch = epoch
        smallest = min(value for key, value in period.items() if key <= epoch)
        first = -(-epoch * steps_per_epoch // smallest) * smallest
        found += [step for step in range(first, (epoch + 1) * steps_per_epoch, smallest) if rule.due(step)]
    return found


def test_times_of_the_published_updates():
    """Section 5.2: how many updates there are, the first at iteration 100 and the last at 94400."""
    published = {10: 49, 20: 99, 30: 136, 40: 161, 50: 186, 60: 211, 70: 236, 80: 261, 90: 274, 100: 286, 110: 299, 120: 311}
    published |= {130: 324, 140: 336, 150: 342, 160: 348, 170: 355, 180: 361, 190: 367}
    for stop, count in published.items():
        found = updates(PERIODS["wrn"], stop, 500, 200)
        assert len(found) == count
        assert found[0] == 100
    assert found[-1] == 94_400
    imagenet = updates(PERIODS["r50"], 95, 5005, 100)
    assert (len(imagenet), imagenet[-1]) == (232, 472_000)


def test_nothing_moves_from_the_stop_epoch_on_and_period_one_is_every_step():
    rule = DynamicSparse(0.9, FractionPrune(0.1), WithinTensor(), RandomGrow(), {0: 1, 1: 3}, stop_epoch=2)
    rule.epoch = 0
    assert all(rule.due(step) for step in range(3))
    rule.epoch = 1
    assert [rule.due(step) for step in (0, 2, 3)] == [False, False, True]
    rule.epoch = 2
    assert not rule.due(3)
