"""Forward-forward: gradients in closed form, labels, negatives, and both ways to predict."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from altprop.algorithms.forward_forward.algorithm import ForwardForward
from altprop.algorithms.forward_forward.goodness import (
    goodness,
    hard_negatives,
    neutral_labels,
    normalized,
    uniform_negatives,
    with_labels,
)
from altprop.config.checks.validation import problems_of
from altprop.config.compose import compose
from altprop.models.mlp import MLP
from altprop.problems import ConfigError
from tests.algorithms.harness import Case, Training

PLAIN = partial(MLP, hidden=(16, 12), batch_norm=False, units=nn.ReLU)


def training(**options: Any) -> Training:
    return Training(Case(lambda weights: ForwardForward(weights=weights, **options), PLAIN), dtype=torch.float64)


@pytest.mark.parametrize(("of", "threshold"), [("mean", 1.0), ("mean", 0.3), ("sum", 1.0)])
def test_gradients_are_those_worked_out_by_hand(of: Any, threshold: float) -> None:
    """``dL/dy = 2 y s (sigmoid(g - theta) - [positive]) / n``, with ``s = 1 / units`` for the mean."""
    run = training(goodness=of, threshold=threshold, negatives="uniform", label_scale=2.0)
    inputs, targets = next(run.train_split.batches())
    algorithm = run.algorithm
    noise = torch.rand(
        len(targets), 4, generator=torch.Generator().manual_seed(run.context.generator("negatives").initial_seed())
    )
    wrong = uniform_negatives(targets, 4, noise)
    labels = functional.one_hot(torch.cat([targets, wrong]), 4).double()
    below = with_labels(torch.cat([inputs, inputs]), labels, 2.0).flatten(1)
    is_positive = torch.arange(2 * len(targets)) < len(targets)
    expected = {}
    for number, block in enumerate(algorithm.model.blocks):  # type: ignore[union-attr, arg-type]
        outputs = functional.linear(below, block.linear.weight, block.linear.bias).relu().detach()
        units = outputs.shape[1]
        theta, factor = (threshold, 1.0 / units) if of == "mean" else (threshold * units, 1.0)
        value = factor * outputs.square().sum(dim=1)
        share = (torch.sigmoid(value - theta) - is_positive.double()) / len(targets)
        delta = 2.0 * factor * share[:, None] * outputs
        expected[f"features.{number}.linear.weight"] = delta.T @ below
        expected[f"features.{number}.linear.bias"] = delta.sum(dim=0)
        below = outputs * (outputs.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
    algorithm.update(inputs, targets)
    named = dict(algorithm.model.named_parameters())
    for name, gradient in expected.items():
        assert torch.allclose(named[name].grad, gradient, rtol=1e-10, atol=1e-13), name


def test_the_readout_follows_its_gradient_and_does_not_change_the_blocks() -> None:
    run = training()
    batch = next(run.train_split.batches())
    expected = run.algorithm.reference_gradient(*batch)
    run.algorithm.update(*batch)
    for name, parameter in run.algorithm.model.named_parameters():
        exact = torch.allclose(parameter.grad, expected[name], rtol=1e-10, atol=1e-13)
        assert exact == name.startswith("classifier"), name


def test_a_label_is_in_the_first_pixels_of_the_first_channel() -> None:
    images = torch.rand(3, 2, 2, 5)
    labels = functional.one_hot(torch.tensor([0, 3, 6]), 7)
    labeled = with_labels(images, labels, 2.0)
    assert torch.equal(labeled[:, 0].flatten(1)[:, :7], 2.0 * labels.float())
    assert torch.equal(labeled[:, 0].flatten(1)[:, 7:], images[:, 0].flatten(1)[:, 7:])
    assert torch.equal(labeled[:, 1], images[:, 1])
    assert torch.equal(neutral_labels(3, 4, images), torch.full((3, 4), 0.25))


def test_normalized_outputs_do_not_tell_their_goodness() -> None:
    outputs = torch.rand(5, 3, 4, 4, dtype=torch.float64) * torch.arange(1, 6).view(-1, 1, 1, 1)
    assert torch.allclose(goodness(normalized(outputs), "mean"), torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-6)


def test_negatives_are_wrong_and_hard_ones_follow_the_readout() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(4000) % 4
    noise = torch.rand(4000, 4, generator=generator)
    scores = torch.tensor([0.0, 1.0, 2.0, 3.0]).expand(4000, 4)
    for negatives in (uniform_negatives(targets, 4, noise), hard_negatives(targets, scores, noise)):
        assert not bool((negatives == targets).any())
    counts = torch.bincount(hard_negatives(targets, scores, noise)[targets == 0], minlength=4) / 1000
    assert torch.allclose(counts[1:], torch.tensor([1.0, 2.0, 3.0]).softmax(dim=0), rtol=0, atol=0.05)
    counts = torch.bincount(uniform_negatives(targets, 4, noise)[targets == 0], minlength=4) / 1000
    assert torch.allclose(counts[1:], torch.full((3,), 1 / 3), rtol=0, atol=0.05)


@pytest.mark.parametrize("predict_by", ["goodness", "readout"])
def test_both_predictions_are_evaluated(predict_by: Any) -> None:
    run = training(predict_by=predict_by)
    other = "readout" if predict_by == "goodness" else "goodness"
    inputs, _ = next(run.test_split.batches())
    with run.algorithm.inference():
        predictions = run.algorithm.predictions(inputs)
        assert predictions.keys() == {"", other}
        assert torch.equal(predictions[""], run.algorithm.predict(inputs))
    assert f"{other}/accuracy" in run.evaluate()


@pytest.mark.parametrize("skip_first", [True, False])
def test_the_predicted_label_is_that_with_the_largest_sum_of_goodness(skip_first: bool) -> None:
    run = training(skip_first=skip_first)
    inputs, _ = next(run.test_split.batches())
    first, second = run.algorithm.model.blocks  # type: ignore[union-attr, misc]
    with run.algorithm.inference():
        scores = run.algorithm.predict(inputs)
        for label in range(4):
            labels = functional.one_hot(torch.full((len(inputs),), label), 4)
            lower: Tensor = first(with_labels(inputs, labels, 1.0))
            expected = second(normalized(lower)).square().mean(dim=1)
            expected = expected if skip_first else expected + lower.square().mean(dim=1)
            assert torch.allclose(scores[:, label], expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "options", [{"threshold": 0}, {"label_scale": -1}, {"goodness": "max"}, {"negatives": "none"}, {"predict_by": "label"}]
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"algorithm\.{next(iter(options))}"):
        ForwardForward(**options)


def test_hard_units_are_refused_in_one_line() -> None:
    (problem,) = problems_of(compose(["algorithm=forward_forward", "model/units=sign_step"]))
    assert str(problem).startswith("model.units: hard units have outputs of a fixed size")
