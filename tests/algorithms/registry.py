"""All algorithms by name. A line here is enough to run the suite on a new one; weights rules are in ``altprop.testing``."""

from __future__ import annotations

from functools import partial

from torch import nn

from altprop.algorithms.delayed.gradients import DelayedGradients
from altprop.algorithms.equilibrium_propagation.algorithm import EquilibriumPropagation
from altprop.algorithms.equilibrium_propagation.bptt import BackpropThroughTime
from altprop.algorithms.equilibrium_propagation.continual import ContinualEquilibriumPropagation
from altprop.algorithms.feedback.alignment import FeedbackAlignment
from altprop.algorithms.feedback.direct import DirectFeedbackAlignment
from altprop.algorithms.forward_forward.algorithm import ForwardForward
from altprop.algorithms.greedy.asynchronous import AsynchronousGreedy
from altprop.algorithms.greedy.sequential import SequentialGreedy
from altprop.algorithms.predictive_coding.algorithm import PredictiveCoding
from altprop.algorithms.synthetic.gradients import SyntheticGradients
from altprop.algorithms.target_propagation.difference import DifferenceTargetPropagation
from altprop.models.energy import EnergyConvNet
from altprop.models.mlp import MLP
from altprop.testing import ALGORITHMS as KINDS
from altprop.testing import SMALL_MLP, WEIGHTS_RULES, Case
from altprop.testing.examples import ADAM, ENERGY_MLP, HARD_MLP, LINEAR_HEAD, sparse

__all__ = [
    "ADAM",
    "ALGORITHMS",
    "ENERGY_MLP",
    "HARD_MLP",
    "LINEAR_HEAD",
    "SMALL_ENERGY_NET",
    "SMALL_MLP",
    "WEIGHTS_RULES",
    "sparse",
]

TANH_MLP = partial(MLP, hidden=(16, 12), units=nn.Tanh)
FORWARD_MLP = partial(MLP, hidden=(48, 32), batch_norm=False, units=nn.ReLU)
SMALL_ENERGY_NET = partial(EnergyConvNet, channels=(8,), kernels=(3,), strides=(1,), paddings=(1,), pools=("max",), hidden=(16,))

ALGORITHMS: dict[str, Case] = {
    **KINDS,
    "sequential_greedy": Case(lambda weights: SequentialGreedy(head=LINEAR_HEAD, weights=weights), SMALL_MLP, epochs=4),
    "synthetic_gradients": Case(
        lambda weights: SyntheticGradients(context=True, weights=weights), SMALL_MLP, ADAM, epochs=20, learns_to=90
    ),
    "asynchronous_greedy": Case(lambda weights: AsynchronousGreedy(head=LINEAR_HEAD, buffer_size=2, weights=weights), SMALL_MLP),
    "delayed_gradients": Case(lambda weights: DelayedGradients(weights=weights), SMALL_MLP),
    "equilibrium_propagation_vector_field": Case(
        lambda weights: EquilibriumPropagation(
            beta=0.2, nudging="random_sign", nudge_steps=8, free_start="previous", weights=weights
        ),
        partial(SMALL_ENERGY_NET, vector_field=True),
        ADAM,
        epochs=20,
    ),
    "continual_equilibrium_propagation": Case(
        lambda weights: ContinualEquilibriumPropagation(beta=0.2, third_phase="symmetric", weights=weights), ENERGY_MLP
    ),
    "backprop_through_time": Case(lambda weights: BackpropThroughTime(weights=weights), SMALL_ENERGY_NET, ADAM, epochs=20),
    "direct_feedback_alignment": Case(lambda weights: DirectFeedbackAlignment(weights=weights), SMALL_MLP),
    "feedback_alignment": Case(lambda weights: FeedbackAlignment(weights=weights), SMALL_MLP),
    "feedback_alignment_batchwise": Case(
        lambda weights: FeedbackAlignment(mode="batchwise_random_sign", weights=weights), SMALL_MLP
    ),
    "difference_target_propagation": Case(
        lambda weights: DifferenceTargetPropagation(inverse_units="tanh", weights=weights), TANH_MLP, ADAM, learns_to=90
    ),
    "forward_forward": Case(
        lambda weights: ForwardForward(label_scale=2.0, weights=weights), FORWARD_MLP, ADAM, epochs=30, learns_to=85
    ),
    "predictive_coding": Case(
        lambda weights: PredictiveCoding(inference_steps=5, step_size=0.3, weights=weights), SMALL_MLP, ADAM
    ),
    "features_replay": Case(lambda weights: DelayedGradients(semantics="replay", weights=weights), SMALL_MLP),
}
