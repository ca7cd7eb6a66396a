"""N:M sparsity: which weights are active, their gradients, and the decay of the others."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from altprop.algorithms.backprop import Backprop
from altprop.models.convnet import ConvNet
from altprop.nn.weights.base import WeightsContext
from altprop.nn.weights.sparse.n_of_m import NOfM, n_of_m_mask
from altprop.problems import ConfigError
from tests.algorithms.harness import Case, Training


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8)])
@pytest.mark.parametrize("shape", [(5, 16), (6, 8, 3, 3)])
def test_every_group_has_its_n_largest_weights(n: int, m: int, shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    mask = n_of_m_mask(weight, n, m)
    for start in range(0, shape[1], m):
        group, active = weight[:, start : start + m].abs(), mask[:, start : start + m]
        assert bool((active.sum(dim=1) == n).all())
        smallest_active = group.masked_fill(~active, torch.inf).amin(dim=1)
        assert bool((group.masked_fill(active, -1.0).amax(dim=1) <= smallest_active).all())


def test_a_smaller_last_group_and_ties() -> None:
    weight = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.5, 0.1, 0.3], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0]])
    assert n_of_m_mask(weight, 2, 4).int().tolist() == [[1, 1, 0, 0, 1, 0, 1], [1, 1, 0, 0, 1, 0, 1]]
    assert n_of_m_mask(weight[:, :5], 2, 4).int().tolist() == [[1, 1, 0, 0, 1], [1, 1, 0, 0, 1]]


def attached(**options: Any) -> tuple[NOfM, nn.Linear]:
    torch.manual_seed(0)
    layer = nn.Linear(8, 3).double()
    rule = NOfM(dense=(), **options)
    rule.attach(nn.Sequential(layer), WeightsContext(1, 1, torch.device("cpu"), torch.Generator()))
    return rule, layer


def test_the_gradient_passes_straight_through_and_inactive_weights_decay() -> None:
    rule, layer = attached(decay=0.1)
    (latent,) = rule.latents
    mask = n_of_m_mask(latent, 2, 4)
    assert torch.equal(layer.weight, latent * mask)
    inputs, direction = torch.randn(4, 8, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    layer(inputs).backward(direction)
    assert latent.grad is not None
    plain = direction.T @ inputs
    assert torch.allclose(latent.grad, plain, rtol=1e-12, atol=1e-14)
    rule.adjust_gradients(layer.parameters())
    assert torch.allclose(latent.grad, plain + 0.1 * latent.detach() * ~mask, rtol=1e-12, atol=1e-14)


def test_trained_networks_have_the_structure_and_it_moves() -> None:
    model = partial(ConvNet, channels=(4, "pool", 8, "pool", 8), units=nn.ReLU)
    run = Training(Case(lambda weights: Backprop(weights=weights), model), NOfM())
    rule = run.algorithm.weights
    assert isinstance(rule, NOfM)
    before = [n_of_m_mask(latent, 2, 4) for latent in rule.latents]
    run.run(20)
    assert list(rule.latents.values()) == ["features.1.conv", "features.2.conv"]
    for latent, old in zip(rule.latents, before, strict=True):
        mask = n_of_m_mask(latent, 2, 4)
        assert float(mask.float().mean()) == 0.5
        assert not torch.equal(mask, old)
    metrics = rule.epoch_end(0)
    assert float(metrics["density/features.1.conv"]) == 0.5
    total = sum(parameter.numel() for parameter in run.algorithm.model.parameters())
    assert int(metrics["nonzero_parameters"]) == total - sum(latent.numel() // 2 for latent in rule.latents)


@pytest.mark.parametrize("options", [{"n": 4}, {"n": 0}, {"m": 1}, {"decay": -1.0}])
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"algorithm\.weights\.{next(iter(options))}"):
        NOfM(**options)
