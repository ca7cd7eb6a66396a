"""float64 trajectories of every moving rule, compared with the straightforward implementation in ``reference.py``."""

from __future__ import annotations

import pytest
import torch

from altprop.nn.weights.penalties import Penalty
from altprop.nn.weights.sparse.dynamic import DynamicSparse
from altprop.nn.weights.sparse.noise import LangevinNoise
from altprop.nn.weights.sparse.prune import FractionPrune, SignChangePrune, ThresholdPrune
from altprop.nn.weights.sparse.redistribute import ProportionalToSurvivors, WithinTensor
from tests.nn.weights.sparse.reference import LowestFree, ReferenceNet, langevin_sigma
from tests.nn.weights.training import Trained, active, batch, masks, small_mlp, small_wrn, stored

STEPS = 20


def twin_generator(trained: Trained) -> torch.Generator:
    """Return a generator in the same state as the rule's."""
    return torch.Generator().set_state(trained.context.generator("weights").get_state())


def reference_of(trained: Trained, build) -> ReferenceNet:
    names = [f"{name}.weight" for name in trained.rule.weights.names]
    return ReferenceNet(build(), names, masks(trained.model))


def assert_same(trained: Trained, reference: ReferenceNet) -> None:
    for name, weight, mask in zip(reference.names, stored(trained.model), masks(trained.model)):
        assert torch.equal(mask, reference.masks[name]), name
        torch.testing.assert_close(weight.detach(), reference.theta[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("build", [small_mlp, small_wrn])
@pytest.mark.parametrize("granularity", [1, 2, 3, 4])
@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize("mode", ["threshold", "fraction"])
def test_prune_redistribute_grow(build, granularity, across, mode):
    amount = 20 if mode == "threshold" else 0.15
    prune = ThresholdPrune(target=20, initial=1e-3) if mode == "threshold" else FractionPrune(fraction=0.15)
    redistribute = ProportionalToSurvivors() if across else WithinTensor()
    rule = DynamicSparse(
        sparsity=0.5,
        prune=prune,
        redistribute=redistribute,
        grow=LowestFree(),
        period={0: 2, 2: 3},
        stop_epoch=3,
        granularity=granularity,
        dense=("stem", "shortcut"),
    )
    trained = Trained(rule, build())
    reference = reference_of(trained, build)
    updates, thresholds = 0, set()
    for step in range(STEPS):
        generator = twin_generator(trained)
        trained.step()
        epoch = step // 5
        reference.sgd_step(reference.gradients(*batch(step)))
        period = 2 if epoch < 2 else 3
        if epoch < 3 and step and step % period == 0:
            updates += 1
            reference.update(granularity, mode, amount=amount, across=across, generator=generator)
            thresholds.add(reference.threshold)
        assert_same(trained, reference)
    assert updates == 5
    if mode == "threshold":
        assert rule.prune.threshold == reference.threshold
        assert len(thresholds) > 1


@pytest.mark.parametrize("build", [small_mlp, small_wrn])
@pytest.mark.parametrize("start", ["random", "initial_weights"])
def test_deep_r(build, start):
    eta, temperature, l1 = 0.01, {0: 1e-2, 1: 1e-4}, 1e-3
    rule = DynamicSparse(
        sparsity=0.6,
        prune=SignChangePrune(reference=start),
        redistribute=WithinTensor(),
        grow=LowestFree(),
        period={0: 1},
        stop_epoch=3,
        noise=LangevinNoise(eta=eta, temperature=temperature),
        penalty=Penalty(coefficient=l1),
    )
    trained = Trained(rule, build(), weight_decay=0.0)
    reference = reference_of(trained, build)
    reference.sgd["weight_decay"] = 0.0
    initial = [part.clone() for part in rule.prune.signs.split(list(rule.weights.layout.sizes))]
    for name, signs, mask in zip(reference.names, initial, masks(trained.model)):
        signs = signs.view_as(mask)
        reference.signs[name] = signs
        if start == "random":
            assert torch.equal(signs.abs(), mask)
        else:
            assert torch.equal(signs, reference.theta[name].sign())
    moved = []
    for step in range(STEPS):
        generator = twin_generator(trained)
        trained.step()
        epoch = step // 5
        gradients = reference.gradients(*batch(step))
        sigma = langevin_sigma(eta, temperature[min(epoch, 1)]) if epoch < 3 else 0.0
        reference.add_penalty_and_noise(gradients, l1=l1, sigma=sigma, generator=generator)
        reference.sgd_step(gradients)
        if epoch < 3:
            moved.append(reference.update(4, "sign", amount=0, across=False, generator=generator))
        assert_same(trained, reference)
    share = moved[0] / sum(active(trained.model))
    assert 0.3 < share < 0.7 if start == "random" else share < 0.3  # section 9, trap 2
