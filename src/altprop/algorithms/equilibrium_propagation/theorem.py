"""The theorem behind equilibrium propagation, checked step by step (section "Theorem check"; Ernoult et al., 2019).

In the limit of a small nudge, the updates of the nudged phase, forward in time, equal the gradients of backpropagation through
time, backward from the free fixed point: for every parameter at every step, and for every neuron up to the slope of its
activation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from altprop.algorithms.alignment import Alignment, align_all, bias_ratio, series_error, sign_error
from altprop.algorithms.equilibrium_propagation.contrasts import Gradients, added, readout_gradient, state_contrast
from altprop.algorithms.equilibrium_propagation.dynamics import Nudge, step
from altprop.algorithms.equilibrium_propagation.network import LOSSES, Network, States, detached, one_hot
from altprop.algorithms.equilibrium_propagation.relaxation import Relaxation
from altprop.nn.energy.edges import to_layer_layout, to_working_layout, up

Series = dict[str, Tensor]
"""``[time, *shape]`` by name: parameters as in :data:`Gradients`, neurons as ``states.<i>`` with shape ``[batch, *shape]``."""

CONTINUAL_RATE = 1e-5
"""Learning rate of continual updates during a check."""


@dataclass(frozen=True)
class GradientCheck:
    """Updates along the nudged phase (``forward``) and gradients backward in time (``backward``), each ``[time, *shape]``.

    ``opposite`` are the updates of the nudge with the other sign, if requested. ``readout`` names the softmax readout layer, if
    there is one: its two series do not correspond (see :meth:`errors`), so it has no estimate to align.
    """

    forward: Series
    backward: Series
    opposite: Series | None = None
    readout: str | None = None

    def errors(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the relative root mean square difference over time and the share of opposite signs, by name.

        A softmax readout always has an error near 1 although nothing is wrong: its forward series is a difference of loss
        gradients, its backward series is all at time 0. Neurons differ by the slope of their activation,
        forward = slope * backward.
        """
        return {
            name: (series_error(forward, self.backward[name]), sign_error(forward, self.backward[name]))
            for name, forward in self.forward.items()
        }

    def alignments(self) -> dict[str, Alignment]:
        """Return angle, ratio of norms and relative error of whole estimates with respect to whole gradients, by parameter."""
        update = self._comparable(self.forward)
        if self.opposite is not None:
            opposite = self._comparable(self.opposite)
            update = {name: 0.5 * (value + opposite[name]) for name, value in update.items()}
        return align_all(update, self._comparable(self.backward))

    def bias_ratios(self) -> dict[str, float]:
        """Return the share of the one-sided error that the symmetric estimate keeps, by weight; empty without ``opposite``."""
        if self.opposite is None:
            return {}
        right, left, truth = (self._comparable(series) for series in (self.forward, self.opposite, self.backward))
        return {name: float(bias_ratio(right[name], left[name], truth[name])) for name in right if name.endswith("weight")}

    def _comparable(self, series: Series) -> Gradients:
        return {
            name: value
            for name, value in self.estimates(series).items()
            if self.readout is None or not name.startswith(f"{self.readout}.")
        }

    @staticmethod
    def estimates(series: Series) -> Gradients:
        """Return the sum over time of every parameter: the estimate of a whole phase."""
        return {name: values.sum(dim=0) for name, values in series.items() if not name.startswith("states")}


def check_gradients(
    network: Network,
    inputs: Tensor,
    targets: Tensor,
    *,
    free_steps: int,
    steps: int,
    beta: float,
    opposite: bool = False,
    same_update: bool = False,
    continual: bool = False,
) -> GradientCheck:
    """Return both sides of the theorem for one mini-batch of ``network``, whose parameters do not change.

    Memory grows with ``steps`` times the number of parameters.

    Args:
        network: The network to check.
        inputs: ``[batch, channels, height, width]``.
        targets: ``[batch]`` integers.
        free_steps: Time steps of the free phase.
        steps: Time steps of the nudged phase, and the number of differentiated steps at the end of the free phase.
        beta: Strength of the nudge.
        opposite: Also run the nudged phase with ``-beta``.
        same_update: As in :func:`.contrasts.state_contrast`.
        continual: Let a copy of the parameters follow the updates of the nudged phase.

    Raises:
        ValueError: ``steps`` is not between 1 and ``free_steps``.
    """
    if not 1 <= steps <= free_steps:
        raise ValueError(f"steps must be between 1 and free_steps ({free_steps}), not {steps}")
    network = detached(network)
    with torch.no_grad():
        start = Relaxation(network, inputs).run_from_zeros(free_steps - steps)
    backward, final = backward_series(network, inputs, targets, start, steps)
    options = {"same_update": same_update, "continual": continual}
    forward = forward_series(network, inputs, targets, final, steps, beta, **options)
    other = forward_series(network, inputs, targets, final, steps, -beta, **options) if opposite else None
    readout = f"layers.{len(network.edges) - 1}" if network.softmax_readout else None
    return GradientCheck(forward, backward, other, readout)


def backward_series(network: Network, inputs: Tensor, targets: Tensor, start: States, steps: int) -> tuple[Series, States]:
    """Return the gradients of the mean loss after ``steps`` differentiated steps from ``start``, and the states after them.

    Entry ``t`` of a parameter is the gradient of the copy used ``t`` steps before the end. Entry ``t`` of a neuron is minus the
    batch size times the gradient of its state ``t`` steps before the end. The whole gradient of a readout is at time 0.
    """
    copies = [_leaves(network) for _ in range(steps)]
    readout = _leaves(network)
    states, visited = start, []
    with torch.enable_grad():
        for copy in copies:
            drive, _ = up(copy.edges[0], inputs, copy.weights[0], copy.biases[0])
            states = step(copy, drive, states)
            visited.append(states)
        loss = LOSSES[network.loss](readout.scores(states), targets)
        sources = [tensor for copy in copies for tensor in _parameters(copy).values()]
        sources += [state for moment in visited for state in moment] + [*_parameters(readout).values()]
        gradients = iter(torch.autograd.grad(loss, sources, allow_unused=True, materialize_grads=True))
    per_copy = [{name: next(gradients) for name in _parameters(copy)} for copy in copies]
    per_state = [[next(gradients) for _ in moment] for moment in visited]
    per_readout = {name: next(gradients) for name in _parameters(readout)}
    if network.softmax_readout:
        last = f"layers.{len(network.edges) - 1}"
        for name in (f"{last}.weight", f"{last}.bias"):
            per_copy[-1][name] = per_readout[name]
    series = {
        name: torch.stack([_layer_layout(network, name, copy[name]) for copy in reversed(per_copy)]) for name in per_copy[0]
    }
    for index in range(network.num_states):
        series[f"states.{index}"] = torch.stack([-len(inputs) * moment[index] for moment in reversed(per_state)])
    return series, [state.detach() for state in states]


@torch.no_grad()
def forward_series(
    network: Network,
    inputs: Tensor,
    targets: Tensor,
    start: States,
    steps: int,
    beta: float,
    *,
    same_update: bool = False,
    continual: bool = False,
) -> Series:
    """Return the updates at every step of a nudged phase from ``start``, with the same nudge in both energies.

    With ``continual`` the parameters of a copy follow their updates at :data:`CONTINUAL_RATE`.
    """
    hot = one_hot(targets, inputs.new_empty(len(inputs), network.edges[-1].above[0]))
    nudge = Nudge(hot, hot.new_full((len(inputs), 1), beta))
    states, moments = start, []
    relaxation = Relaxation(network, inputs)
    for _ in range(steps):
        new = relaxation.run(states, 1, nudge)
        update = added(
            [
                state_contrast(network, inputs, new, states, states, factor=-1.0 / beta, same_update=same_update),
                readout_gradient(network, new, hot),
                readout_gradient(network, states, hot, -1.0),
            ]
        )
        moved = {f"states.{index}": (one - other) / beta for index, (one, other) in enumerate(zip(new, states, strict=True))}
        moments.append({**update, **moved})
        if continual:
            network = _moved(network, update)
            relaxation = Relaxation(network, inputs)
        states = new
    return {name: torch.stack([moment[name] for moment in moments]) for name in moments[0]}


def _leaves(network: Network) -> Network:
    """Return a network on leaves that share the storage of the parameters of ``network``."""
    weights = tuple(weight.detach().requires_grad_() for weight in network.weights)
    feedback = weights[1 : network.num_states]
    if network.vector_field:
        feedback = tuple(weight.detach().requires_grad_() for weight in network.feedback)
    biases = tuple(bias.detach().requires_grad_() for bias in network.biases)
    return replace(network, weights=weights, biases=biases, feedback=feedback)


def _parameters(network: Network) -> dict[str, Tensor]:
    named: dict[str, Tensor] = {}
    for index, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        named[f"layers.{index}.weight"], named[f"layers.{index}.bias"] = weight, bias
    if network.vector_field:
        named.update({f"feedback.{index}.weight": weight for index, weight in enumerate(network.feedback)})
    return named


def _layer_layout(network: Network, name: str, gradient: Tensor) -> Tensor:
    kind, index, attribute = name.split(".")
    edge = network.edges[int(index) + (kind == "feedback")]
    return to_layer_layout(edge, gradient) if attribute == "weight" else gradient


def _moved(network: Network, update: Mapping[str, Tensor]) -> Network:
    """Return ``network`` after a step of :data:`CONTINUAL_RATE` along ``update``."""

    def after(kind: str, index: int, attribute: str, value: Tensor) -> Tensor:
        name = f"{kind}.{index}.{attribute}"
        if name not in update:
            return value
        edge = network.edges[index + (kind == "feedback")]
        change = to_working_layout(edge, update[name]) if attribute == "weight" else update[name]
        return value - CONTINUAL_RATE * change

    weights = tuple(after("layers", index, "weight", value) for index, value in enumerate(network.weights))
    feedback = weights[1 : network.num_states]
    if network.vector_field:
        feedback = tuple(after("feedback", index, "weight", value) for index, value in enumerate(network.feedback))
    biases = tuple(after("layers", index, "bias", value) for index, value in enumerate(network.biases))
    return replace(network, weights=weights, biases=biases, feedback=feedback)
