"""Foreign models with every algorithm that takes feed-forward models: they train and resume, or are refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch

from altprop.algorithms.base import Algorithm
from altprop.algorithms.blocks import output_shapes
from altprop.algorithms.delayed.gradients import DelayedGradients
from altprop.algorithms.feedback.alignment import FeedbackAlignment
from altprop.algorithms.feedback.direct import DirectFeedbackAlignment
from altprop.algorithms.forward_forward.algorithm import ForwardForward
from altprop.algorithms.greedy.asynchronous import AsynchronousGreedy
from altprop.algorithms.greedy.decoupled import DecoupledGreedy
from altprop.algorithms.greedy.sequential import SequentialGreedy
from altprop.algorithms.predictive_coding.algorithm import PredictiveCoding
from altprop.algorithms.synthetic.gradients import SyntheticGradients
from altprop.algorithms.target_propagation.algorithm import TargetPropagation
from altprop.algorithms.target_propagation.difference import DifferenceTargetPropagation
from altprop.nn.estimators.tanh import SoftHinge
from altprop.nn.heads.local import ConvHead, cnn_head, mlp_head, mlp_sr_head
from altprop.nn.units.hard import SignStep
from altprop.nn.weights.base import WeightsRule
from altprop.problems import ConfigError
from altprop.testing import INPUT_SHAPE, NUM_CLASSES, WEIGHTS_RULES, Case, Training, assert_equal
from altprop.testing.examples import ADAM
from tests.zoo.models import ZOO

ALGORITHMS: dict[str, Callable[[WeightsRule], Algorithm]] = {
    "feedback_alignment": lambda weights: FeedbackAlignment(weights=weights),
    "direct_feedback_alignment": lambda weights: DirectFeedbackAlignment(weights=weights),
    "decoupled_greedy": lambda weights: DecoupledGreedy(head=partial(mlp_sr_head, mlp_layers=1), weights=weights),
    "sequential_greedy": lambda weights: SequentialGreedy(head=cnn_head, weights=weights),
    "asynchronous_greedy": lambda weights: AsynchronousGreedy(head=partial(mlp_head, mlp_layers=1), weights=weights),
    "synthetic_gradients": lambda weights: SyntheticGradients(context=True, kernel_size=3, weights=weights),
    "delayed_gradients": lambda weights: DelayedGradients(weights=weights),
    "delayed_gradients_current": lambda weights: DelayedGradients(semantics="current", weights=weights),
    "features_replay": lambda weights: DelayedGradients(semantics="replay", weights=weights),
    "difference_target_propagation": lambda weights: DifferenceTargetPropagation(weights=weights),
    "forward_forward": lambda weights: ForwardForward(weights=weights),
    "predictive_coding": lambda weights: PredictiveCoding(inference_steps=3, weights=weights),
    "predictive_coding_fixed": lambda weights: PredictiveCoding(inference_steps=4, fixed_prediction=True, weights=weights),
    "target_propagation": lambda weights: TargetPropagation(estimator=SoftHinge(), weights=weights),
}
REFUSED = {
    ("feedback_alignment", "vit"): "algorithm: has no feedback weights for stages.0.1.attention.in_proj_weight, ",
    ("feedback_alignment", "transformer"): "algorithm: has no feedback weights for stages.0.1.self_attn.in_proj_weight, ",
    ("feedback_alignment", "lstm"): "algorithm: has no feedback weights for stages.0.1.layer.weight_ih_l0, ",
}
TRAINS = ADAM


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", ZOO)
def test_trains_and_resumes_under_a_sparse_rule(name: str, algorithm: str) -> None:
    units = SignStep if algorithm == "target_propagation" else torch.nn.ReLU
    case = Case(ALGORITHMS[algorithm], partial(ZOO[name], units=units), TRAINS)
    freezes = ALGORITHMS[algorithm](WeightsRule()).capabilities.freezes
    rule = WEIGHTS_RULES["static_sparse" if freezes else "set"]
    if (algorithm, name) in REFUSED:
        with pytest.raises(ConfigError) as caught:
            Training(case, rule())
        assert str(caught.value).startswith(REFUSED[algorithm, name])
        assert "\n" not in str(caught.value)
        return
    training = Training(case, rule())
    before = {key: value.detach().clone() for key, value in training.algorithm.model.named_parameters()}
    vectors = {key: value.clone() for key, value in training.algorithm.model.named_buffers() if key.endswith("._u")}
    training.run(3)
    resumed = Training(case, rule()).restore(training.state())
    assert_equal(training.run(3).state(), resumed.run(3).state())
    after = dict(training.algorithm.model.named_parameters())
    assert all(torch.isfinite(value).all() for value in after.values())
    moved = {key for key, value in before.items() if not torch.equal(value, after[key])}
    frozen = {key for key, value in after.items() if not value.requires_grad}
    assert not moved & frozen
    waiting = ("stages.1", "stages.2", "classifier") if algorithm == "sequential_greedy" else ()  # for their turn
    buffers = dict(training.algorithm.model.named_buffers())
    assert not [key for key, value in vectors.items() if torch.equal(value, buffers[key]) and not key.startswith(waiting)]
    assert not [key for key in set(before) - moved - frozen if not key.startswith(waiting)]


@pytest.mark.parametrize("head", [mlp_head, mlp_sr_head, cnn_head, ConvHead])
@pytest.mark.parametrize("shape", [(6, 9), (6, 5, 4), (7,)])
def test_heads_of_sequences(head: Callable[..., torch.nn.Module], shape: tuple[int, ...]) -> None:
    if head is ConvHead and len(shape) == 1:
        with pytest.raises(ConfigError, match="flat features"):
            head(shape, NUM_CLASSES)
        return
    assert head(shape, NUM_CLASSES)(torch.randn(3, *shape)).shape == (3, NUM_CLASSES)
    with pytest.raises(ConfigError, match=r"^model: a block of this model outputs features of shape \[2, 3, 4, 5\]; "):
        head((2, 3, 4, 5), NUM_CLASSES)


def test_blocks_that_return_no_tensor_are_refused() -> None:
    block = torch.nn.Sequential(torch.nn.Flatten(2), torch.nn.LSTM(64, 3, batch_first=True))
    with pytest.raises(ConfigError, match=r"^model: block 1 returns a tuple; "):
        output_shapes([block], INPUT_SHAPE, torch.device("cpu"))
