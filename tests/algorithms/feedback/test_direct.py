"""Direct feedback alignment: what is exact, what is random, and that the weights align with the feedback."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from altprop.algorithms.alignment_probe import ANGLE, AlignmentProbe
from altprop.algorithms.feedback.direct import DirectFeedbackAlignment
from altprop.models.cifar_resnet import CifarResNet
from altprop.models.mlp import MLP
from tests.algorithms.harness import Case, Training

PLAIN = partial(MLP, hidden=(16, 12), batch_norm=False, units=nn.ReLU)
LINEAR = partial(MLP, hidden=(16, 12), batch_norm=False, units=nn.Identity)


def algorithm_for(model: object, **context: object) -> DirectFeedbackAlignment:
    case = Case(lambda weights: DirectFeedbackAlignment(weights=weights), model)  # type: ignore[arg-type]
    algorithm = Training(case, dtype=torch.float64, **context).algorithm
    assert isinstance(algorithm, DirectFeedbackAlignment)
    return algorithm


def gradients_of_step(algorithm: DirectFeedbackAlignment, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """What one step hands to the optimizer, and the gradient of the loss as ``reference/<name>``."""
    reference = algorithm.reference_gradient(inputs, targets)
    algorithm.update(inputs, targets)
    gradients = {name: parameter.grad for name, parameter in algorithm.model.named_parameters() if parameter.grad is not None}
    return gradients | {f"reference/{name}": value for name, value in reference.items()}


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(10, 1, 8, 8, generator=generator, dtype=torch.float64), torch.arange(10) % 4


@pytest.mark.parametrize("model", [PLAIN, partial(CifarResNet, depth=8, units=nn.ReLU)], ids=["mlp", "resnet"])
def test_the_classifier_gets_its_exact_gradient_and_the_layers_below_do_not(model: object, batch: tuple[Tensor, Tensor]) -> None:
    algorithm = algorithm_for(model)
    names = {id(parameter): name for name, parameter in algorithm.model.named_parameters()}
    classifier = {names[id(parameter)] for parameter in algorithm.model.head.parameters()}  # type: ignore[union-attr]
    gradients = gradients_of_step(algorithm, *batch)
    assert classifier
    for name in names.values():
        exact = torch.allclose(gradients[name], gradients[f"reference/{name}"], rtol=1e-12, atol=1e-14)
        assert exact == (name in classifier), name


def test_hidden_layers_follow_the_published_rule(batch: tuple[Tensor, Tensor]) -> None:
    algorithm = algorithm_for(PLAIN)
    inputs, targets = batch
    first, second = (block.linear for block in algorithm.model.blocks)  # type: ignore[union-attr]
    x = inputs.flatten(1)
    a1 = functional.linear(x, first.weight, first.bias).detach()
    a2 = functional.linear(a1.relu(), second.weight, second.bias).detach()
    scores = algorithm.model.head(a2.relu()).detach()  # type: ignore[operator]
    error = (scores.softmax(dim=1) - functional.one_hot(targets, 4)) / len(targets)
    for layer, feedback, drive, below in ((first, 0, a1, x), (second, 1, a2, a1.relu())):
        delta = (error @ algorithm.feedback[feedback]) * (drive > 0)
        layer.expected = (delta.T @ below, delta.sum(dim=0))
    algorithm.update(inputs, targets)
    for layer in (first, second):
        assert torch.allclose(layer.weight.grad, layer.expected[0], rtol=1e-12, atol=1e-14)
        assert torch.allclose(layer.bias.grad, layer.expected[1], rtol=1e-12, atol=1e-14)


def test_a_linear_network_with_the_transposed_weights_as_feedback_is_backprop(batch: tuple[Tensor, Tensor]) -> None:
    algorithm = algorithm_for(LINEAR)
    second, head = algorithm.model.blocks[1].linear, algorithm.model.head.linear  # type: ignore[union-attr, index]
    algorithm.feedback = [(head.weight @ second.weight).detach(), head.weight.detach().clone()]
    gradients = gradients_of_step(algorithm, *batch)
    for name, _ in algorithm.model.named_parameters():
        assert torch.allclose(gradients[name], gradients[f"reference/{name}"], rtol=1e-12, atol=1e-14), name


def test_feedback_is_fixed_and_depends_on_the_seed_only() -> None:
    case = Case(lambda weights: DirectFeedbackAlignment(weights=weights), PLAIN)
    trained = Training(case).run(3)
    resumed = Training(case).restore(trained.state())
    other = Training(case, seed=1)
    for one, same, different in zip(*(run.algorithm.feedback for run in (trained, resumed, other)), strict=True):  # type: ignore[attr-defined]
        assert torch.equal(one, same)
        assert not torch.equal(one, different)
        assert float(one.abs().max()) <= one.shape[1] ** -0.5


def test_weights_align_with_the_feedback() -> None:
    """The update of the first layer, unrelated to the gradient at first, turns toward it as the network learns."""
    training = Training(Case(lambda weights: DirectFeedbackAlignment(weights=weights), PLAIN, epochs=10))
    inputs, targets = next(training.train_split.batches())
    angles = []
    for _ in range(2):
        probe = AlignmentProbe(training.algorithm)
        probe.step(inputs, targets, lambda *batch: training.algorithm.update(*batch))
        angles.append(probe.alignments[f"{ANGLE}features.0.linear"])
        training.run()
    assert angles[1] < min(80.0, angles[0] - 10.0)
