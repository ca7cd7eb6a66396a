"""The phases: many time steps with fixed weights and input, computed with as little work and memory as possible.

A step is that of :func:`.dynamics.step`, in place. The drive of the input is computed once per mini-batch. One convolution per
edge gives both the drive above it and the pooling positions below it. A new state overwrites the old one as soon as that is no
longer needed. Scale and center of the activation are folded into matrix products and biases. Memory does not grow with the number
of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from altprop.algorithms.equilibrium_propagation.dynamics import Masks, Nudge, input_drive, pull, step
from altprop.algorithms.equilibrium_propagation.network import Network, States
from altprop.nn.energy.edges import Apply, Routing, convolve, down, flatten, pool, unpool, up
from altprop.nn.energy.fixed_edges import fixed_convolution, fixed_pool, fixed_transpose

UpdateOrder = Literal["synchronous", "red_black"]
RESIDUAL_INTERVAL = 5
"""Steps between two convergence tests if a phase may end early: each of them waits for the device."""


class Relaxation:
    """The dynamics of one mini-batch, computed without a graph.

    Args:
        network: The network to relax.
        inputs: The mini-batch ``[batch, channels, height, width]``.
        masks: Dropout masks.
        update_order: ``synchronous`` is the paper's step. ``red_black`` updates the even layers, then the odd ones from the new
            even ones; with max pooling it converges to another fixed point, because the routing depends on the path.
        tolerance: A phase ends once no state moves by more than this in a step.
        compiled: Compute synchronous steps with torch.compile.

    Raises:
        ValueError: ``update_order`` is unknown, or ``red_black`` for a network with skips.
    """

    def __init__(
        self,
        network: Network,
        inputs: Tensor,
        *,
        masks: Masks | None = None,
        update_order: UpdateOrder = "synchronous",
        tolerance: float | None = None,
        compiled: bool = False,
    ) -> None:
        if update_order not in ("synchronous", "red_black"):
            raise ValueError(f"update_order must be 'synchronous' or 'red_black', not {update_order!r}")
        self.network = network
        self.masks = masks
        self.update_order = update_order
        self.tolerance = tolerance
        self.step = compiled_step() if compiled else step
        self.batch = inputs.shape[0]
        self.steps_taken = 0
        """Steps of the last :meth:`run`: fewer than requested if it ended early."""
        if network.skips and update_order == "red_black":
            raise ValueError("update_order 'red_black' needs layers whose only neighbors are the layers below and above")
        # With dropout, masks multiply the potentials, so nothing can be folded. A compiler fuses what is not folded.
        plain = masks is None and not network.skips and all(factor == 1.0 for factor in network.factors)
        self.folds = plain and not compiled and update_order == "synchronous"
        self._folded: dict[int, Tensor] = {}
        self._edges: list[_Between] = []
        with torch.no_grad():
            self.inputs = inputs if masks is None else inputs * masks.inputs
            first = network.edges[0]
            convolve_inputs = fixed_convolution(first, network.weights[0], network.biases[0], self.batch)
            drive, self.routing = pool(first, convolve_inputs(self.inputs))
            self.drive = network.arranged(drive, 0)
            if self.folds:
                self._edges = [_Between(network, index, self.batch) for index in range(network.num_states - 1)]

    @torch.no_grad()
    def run(self, start: Sequence[Tensor], steps: int, nudge: Nudge | None = None) -> States:
        """Return the states after at most ``steps`` steps from ``start``, which is not modified.

        ``start`` may hold several copies of the mini-batch, concatenated along the batch, so that phases run in parallel.
        """
        advance, states = self._start(start, nudge)
        return self._advanced(advance, states, range(1, steps + 1))

    @torch.no_grad()
    def run_from_zeros(self, steps: int) -> States:
        """Return the states after at most ``steps`` steps from zeros without a nudge.

        Weights multiply only zeros in the first step, so it is computed from the input and the biases.
        """
        if not self.folds or not steps:
            return self.run(self.network.zeros(self.batch), steps)
        advance, states = self._start(self._first_states(), None)
        return self._advanced(advance, states, range(2, steps + 1))

    @torch.no_grad()
    def run_nudged(self, start: Sequence[Tensor], steps: int, nudge: Nudge) -> States:
        """Return the states of all phases of ``nudge`` after at most ``steps`` steps, concatenated along the batch.

        All phases start at ``start`` ``[batch, *shape]``. In the first step the nudge moves the last state alone, so the other
        states are computed once for all phases.
        """
        copies = nudge.strength.shape[0] // self.batch
        network, index = self.network, len(start) - 1
        if not self.folds or not steps or index == 0:
            return self.run([torch.cat([state] * copies) for state in start], steps, nudge)
        drive, _ = up(network.edges[index], start[index - 1], network.weights[index], network.biases[index])
        last = [torch.cat([start[index]] * copies)]
        potential = torch.cat([drive] * copies) - pull(network, last, nudge)
        hidden = self.run(start, 1)[:-1]
        states = [*(torch.cat([state] * copies) for state in hidden), network.activations[index](potential)]
        advance, states = self._start(states, nudge)
        return self._advanced(advance, states, range(2, steps + 1))

    def _first_states(self) -> States:
        """Return the states after one step from zeros."""
        network, states = self.network, [self.network.activations[0](self.drive)]
        for index in range(1, network.num_states):
            bias = network.biases[index].view(-1, *(1,) * (len(network.edges[index].above) - 1))
            states.append(network.activations[index](bias).expand(self.batch, *network.edges[index].above))
        return states

    def _advanced(self, advance: Callable[[States], None], states: States, counts: range) -> States:
        """Take the steps with the numbers ``counts`` in place, until one of them moves no state by more than the tolerance."""
        self.steps_taken = counts.stop - 1
        for count in counts:
            if self.tolerance is None or count % RESIDUAL_INTERVAL:
                advance(states)
                continue
            before = [state.clone() for state in states]
            advance(states)
            if float(largest_change(before, states).max()) <= self.tolerance:
                self.steps_taken = count
                break
        return states

    @torch.no_grad()
    def residuals(self, start: Sequence[Tensor], steps: int, nudge: Nudge | None = None) -> Tensor:
        """Return the largest change of a unit in every step and layer, ``[steps, layers]``: how a phase converges."""
        advance, states = self._start(start, nudge)
        changes = []
        for _ in range(steps):
            before = [state.clone() for state in states]
            advance(states)
            changes.append(largest_change(before, states))
        return torch.stack(changes) if changes else self.drive.new_zeros(0, len(states))

    def _start(self, start: Sequence[Tensor], nudge: Nudge | None) -> tuple[Callable[[States], None], States]:
        copies = start[0].shape[0] // self.batch
        states = [self.network.arranged(state.clone(), index) for index, state in enumerate(start)]
        if self.update_order == "red_black":
            return _RedBlack(self.network, self._repeated(copies), nudge, self._masks(copies)), states
        if not self.folds:
            drive, masks = self._repeated(copies), self._masks(copies)

            def advance(states: States) -> None:
                states[:] = self.step(self.network, drive, states, nudge, masks)

            return advance, states
        if copies not in self._folded:
            first = self.network.activations[0]
            self._folded[copies] = (self._repeated(copies) - first.center).mul_(first.scale)
        return _Synchronous(self.network, self._folded[copies], self._edges, nudge, states), states

    def _repeated(self, copies: int) -> Tensor:
        return self.drive if copies == 1 else torch.cat([self.drive] * copies)

    def _masks(self, copies: int) -> Masks | None:
        if self.masks is None or copies == 1:
            return self.masks
        return Masks(self.masks.inputs, tuple(torch.cat([mask] * copies) for mask in self.masks.states))


def unrolled(
    network: Network,
    inputs: Tensor,
    start: Sequence[Tensor],
    steps: int,
    *,
    masks: Masks | None = None,
    update_order: UpdateOrder = "synchronous",
) -> States:
    """Compute :meth:`Relaxation.run` without a nudge and with the graph of all ``steps`` steps; memory grows with them."""
    drive, _ = input_drive(network, inputs if masks is None else inputs * masks.inputs)
    states = list(start)
    sweep = _RedBlack(network, drive, None, masks)
    for _ in range(steps):
        if update_order == "red_black":
            sweep(states)
        else:
            states = step(network, drive, states, masks=masks)
    return states


class _Between:
    """The edge between states ``index`` and ``index + 1`` with the weights of this mini-batch.

    The center of the upper activation is subtracted from ``bias``. A convolution has three functions: ``up`` is the convolution
    with that bias, ``down`` the transposed convolution, and ``feedback_up`` the convolution whose pooling routes the top-down
    drive, if that is another one. Linear edges have none of them.
    """

    def __init__(self, network: Network, index: int, batch: int) -> None:
        edge, weight, feedback = network.edges[index + 1], network.weights[index + 1], network.feedback[index]
        center = network.activations[index + 1].center
        self.bias = network.biases[index + 1] - center if center else network.biases[index + 1]
        self.up: Apply | None = None
        self.down: Apply | None = None
        self.feedback_up: Apply | None = None
        if edge.is_convolution:
            self.up = fixed_convolution(edge, weight, self.bias, batch)
            self.down = fixed_transpose(edge, feedback, batch)
            if network.vector_field and edge.pool == "max":
                self.feedback_up = fixed_convolution(edge, feedback, None, batch)


class _Synchronous:
    """One step of ``states``, in place. ``drive`` is ``scale * (up_1 - center)``; ``between`` are the edges after the first.

    In every step each hidden state is updated together with the drive above it. The functions that do this are prepared here:
    in small networks, looking up what they need would take a noticeable part of every step.
    """

    def __init__(self, network: Network, drive: Tensor, between: Sequence[_Between], nudge: Nudge | None, states: States) -> None:
        self.network, self.drive, self.nudge = network, drive, nudge
        self.output = network.activations[-1]
        self.squash_output = self.output.squasher()
        self.strength: Tensor | None = None
        if nudge is not None:
            strength = nudge.strength * self.output.scale
            self.strength = strength.view(-1, *(1,) * (states[-1].dim() - 1))
        if states[-1].dim() == 2:
            # Matrix products with few columns are fastest if their result is column-major.
            states[-1] = states[-1].t().contiguous().t()
        self.updates = [
            (_convolution_update if network.edges[index + 1].is_convolution else _linear_update)(network, edge, index, states)
            for index, edge in enumerate(between)
        ]

    def __call__(self, states: States) -> None:
        ahead = self.drive
        for update in self.updates:
            ahead = update(ahead)
        if self.nudge is not None and self.strength is not None:
            ahead = ahead.clone() if ahead is self.drive else ahead
            ahead.addcmul_(self.network.output_error(states, self.nudge.targets), self.strength, value=-1.0)
        self.squash_output(ahead, states[-1])


def _linear_update(network: Network, between: _Between, index: int, states: States) -> Apply:
    """Return a function that updates hidden state ``index`` from its bottom-up drive and returns the drive of the state above."""
    scale, squash = network.activations[index].scale, network.activations[index].squasher()
    gain, beta = _gain(network, index), scale if index else 1.0
    state, above, upper = flatten(states[index]), states[index + 1], torch.empty_like(states[index + 1])
    transposed, feedback, bias = network.weights[index + 1].t(), network.feedback[index], between.bias

    def update(ahead: Tensor) -> Tensor:
        torch.addmm(bias, state, transposed, beta=gain, alpha=gain, out=upper)
        torch.addmm(flatten(ahead), above, feedback, beta=beta, alpha=scale, out=state)
        squash(state, state)
        return upper

    return update


def _convolution_update(network: Network, between: _Between, index: int, states: States) -> Apply:
    """Return the same for a state below a convolution."""
    convolve_up, convolve_down, convolve_feedback = between.up, between.down, between.feedback_up
    assert convolve_up is not None
    assert convolve_down is not None
    scale, squash, gain = network.activations[index].scale, network.activations[index].squasher(), _gain(network, index)
    edge, state, above = network.edges[index + 1], states[index], states[index + 1]
    pool_up, pool_feedback = fixed_pool(edge), fixed_pool(edge)
    unpooled: Tensor | None = None

    def update(ahead: Tensor) -> Tensor:
        nonlocal unpooled
        upper, routing = pool_up(convolve_up(state))
        if convolve_feedback is not None:
            _, routing = pool_feedback(convolve_feedback(state))
        unpooled = unpool(edge, above, routing, unpooled)
        total = convolve_down(unpooled)
        if index == 0:
            torch.add(ahead, total, alpha=scale, out=total)
        else:
            total.add_(ahead)
            if scale != 1.0:
                total.mul_(scale)
        squash(total, state)
        return upper if gain == 1.0 else upper * gain

    return update


def _gain(network: Network, index: int) -> float:
    """Return the factor on the drive of state ``index + 1``: the scale of the output's activation is folded into its drive."""
    return network.activations[-1].scale if index + 2 == network.num_states else 1.0


class _RedBlack:
    """One sweep: update the even layers from the current states, then the odd layers from the new even ones.

    The result of an edge's convolution is kept until the state below it changes, so a sweep computes each of them once.
    """

    def __init__(self, network: Network, drive: Tensor, nudge: Nudge | None, masks: Masks | None) -> None:
        self.network, self.drive, self.nudge, self.masks = network, drive, nudge, masks
        self.ahead: dict[int, tuple[Tensor, Routing | None]] = {}

    def __call__(self, states: States) -> None:
        for first in (1, 0):
            new = {index: self._update(index, states) for index in range(first, len(states), 2)}
            for index, state in new.items():
                states[index] = state
                self.ahead.pop(index, None)

    def _update(self, index: int, states: States) -> Tensor:
        network, masks = self.network, self.masks
        total = self.drive if index == 0 else self._ahead(index - 1, states)[0]
        if index + 1 < len(states):
            edge = network.edges[index + 1]
            above = states[index + 1] if masks is None else masks.states[index + 1] * states[index + 1]
            total = total + down(edge, above, network.feedback[index], self._ahead(index, states)[1])
        if masks is not None:
            total = total * masks.states[index]
        if index + 1 == len(states) and self.nudge is not None:
            total = total - pull(network, states, self.nudge, masks)
        return network.activations[index](network.factors[index] * total)

    def _ahead(self, index: int, states: States) -> tuple[Tensor, Routing | None]:
        if index not in self.ahead:
            network, edge = self.network, self.network.edges[index + 1]
            state = states[index] if self.masks is None else self.masks.states[index] * states[index]
            drive, routing = up(edge, state, network.weights[index + 1], network.biases[index + 1])
            if network.vector_field and edge.pool == "max":
                _, routing = pool(edge, convolve(edge, state, network.feedback[index], None))
            self.ahead[index] = drive, routing
        return self.ahead[index]


@cache
def compiled_step() -> Callable[..., States]:
    """Return :func:`.dynamics.step` compiled: torch.compile fuses the operations between two convolutions into one kernel."""
    return torch.compile(step, dynamic=False)


def largest_change(before: Sequence[Tensor], after: Sequence[Tensor]) -> Tensor:
    """Return the largest absolute difference in every layer, ``[layers]``."""
    return torch.stack([(new - old).abs().amax() for old, new in zip(before, after, strict=True)])
