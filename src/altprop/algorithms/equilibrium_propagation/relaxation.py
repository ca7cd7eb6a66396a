"""The phases: many time steps with weights and input fixed, computed with as little work and memory as they need.

What :func:`.dynamics.step` does, written in place: the input's drive is computed once per mini-batch, an edge's one convolution
serves the drive above it and the pooling positions below, a new state is written over the old one as soon as nobody needs that,
and scale and center of the activation ride along with matrix products and biases. Memory does not grow with the number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from altprop.algorithms.equilibrium_propagation.dynamics import Masks, Nudge, input_drive, pull, step
from altprop.algorithms.equilibrium_propagation.network import Network, States
from altprop.nn.energy.edges import Routing, convolve, down, flatten, pool, unflatten, unpool, up
from altprop.nn.energy.fixed_edges import Apply, fixed_convolution, fixed_transpose

UpdateOrder = Literal["synchronous", "red_black"]
RESIDUAL_INTERVAL = 5
"""Steps between two looks at the residual where a phase may end early: every look waits for the device."""


class Relaxation:
    """The dynamics of one mini-batch.

    ``update_order`` ``synchronous`` is the paper's step. ``red_black`` updates the even layers, then the odd ones from those;
    with max pooling that converges to another fixed point, because the routing depends on the path. ``tolerance`` ends a phase
    once no state moves by more than that in a step. ``compiled`` computes synchronous steps with torch.compile. Raises
    ``ValueError`` for an unknown ``update_order``. Runs without a graph.
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
        """Steps of the last :meth:`run`: fewer than asked for where it ended early."""
        # Dropout multiplies potentials, which leaves nothing to fold; a compiler fuses what is not folded.
        self.folds = masks is None and not compiled and all(factor == 1.0 for factor in network.factors)
        self._folded: dict[int, Tensor] = {}
        with torch.no_grad():
            self.inputs = inputs if masks is None else inputs * masks.inputs
            first = network.edges[0]
            convolve_inputs = fixed_convolution(first, network.weights[0], network.biases[0], self.batch)
            drive, self.routing = pool(first, convolve_inputs(self.inputs))
            self.drive = drive.contiguous(memory_format=torch.channels_last) if drive.dim() == 4 else drive
            if self.folds and update_order == "synchronous":
                self.edges = [_Between(network, index, self.batch) for index in range(network.num_states - 1)]

    @torch.no_grad()
    def run(self, start: Sequence[Tensor], steps: int, nudge: Nudge | None = None) -> States:
        """The states after at most ``steps`` steps from ``start``, which is left as it is.

        ``start`` may hold several copies of the mini-batch one behind the other, so that phases run side by side.
        """
        advance, states = self._start(start, nudge)
        self.steps_taken = steps
        for count in range(1, steps + 1):
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
        """The largest change of any unit in every step and layer, ``[steps, layers]``: how a phase converges."""
        advance, states = self._start(start, nudge)
        changes = []
        for _ in range(steps):
            before = [state.clone() for state in states]
            advance(states)
            changes.append(largest_change(before, states))
        return torch.stack(changes) if changes else self.drive.new_zeros(0, len(states))

    def _start(self, start: Sequence[Tensor], nudge: Nudge | None) -> tuple[Callable[[States], None], States]:
        copies = start[0].shape[0] // self.batch
        states = [_working_copy(state) for state in start]
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
        return _Synchronous(self.network, self._folded[copies], self.edges, nudge, states), states

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
    """What :meth:`Relaxation.run` computes without a nudge, with the graph of all ``steps`` steps: memory grows with them."""
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

    ``bias`` has the center of the upper activation taken off. ``up`` is the convolution with it, ``feedback_up`` the one whose
    pooling routes what comes down, where that is another, ``down`` the transposed convolution; linear edges are used directly.
    """

    def __init__(self, network: Network, index: int, batch: int) -> None:
        edge, weight, feedback = network.edges[index + 1], network.weights[index + 1], network.feedback[index]
        center = network.activations[index + 1].center
        self.bias = network.biases[index + 1] - center if center else network.biases[index + 1]
        self.feedback_up: Apply | None = None
        if edge.is_convolution:
            self.up = fixed_convolution(edge, weight, self.bias, batch)
            self.down = fixed_transpose(edge, feedback, batch)
            if network.vector_field and edge.pool == "max":
                self.feedback_up = fixed_convolution(edge, feedback, None, batch)


class _Synchronous:
    """One step of ``states``, in place. ``drive`` is ``scale * (up_1 - center)``; ``between`` are the edges behind the first.

    A state meets the edge above it once in every step. What a meeting needs is looked up here: with small networks, looking it up
    in every step would take a noticeable part of it.
    """

    def __init__(self, network: Network, drive: Tensor, between: Sequence[_Between], nudge: Nudge | None, states: States) -> None:
        self.network, self.drive, self.nudge = network, drive, nudge
        self.output = network.activations[-1]
        self.squash_output = self.output.squasher()
        if nudge is not None:
            strength = nudge.strength * self.output.scale
            self.strength = strength.view(-1, *(1,) * (states[-1].dim() - 1))
        if states[-1].dim() == 2:
            # Products with few columns are written fastest column by column.
            states[-1] = states[-1].t().contiguous().t()
        self.meetings = [
            (_meet_convolution if network.edges[index + 1].is_convolution else _meet_linear)(network, edge, index, states)
            for index, edge in enumerate(between)
        ]

    def __call__(self, states: States) -> None:
        ahead = self.drive
        for meet in self.meetings:
            ahead = meet(ahead)
        if self.nudge is not None:
            ahead = ahead.clone() if ahead is self.drive else ahead
            ahead.addcmul_(self.network.output_error(states, self.nudge.targets), self.strength, value=-1.0)
        self.squash_output(ahead, states[-1])


def _meet_linear(network: Network, between: _Between, index: int, states: States) -> Apply:
    """Updates hidden state ``index``, given its bottom-up drive; returns the drive of the state above."""
    scale, squash = network.activations[index].scale, network.activations[index].squasher()
    gain, beta = _gain(network, index), scale if index else 1.0
    state, above, upper = flatten(states[index]), states[index + 1], torch.empty_like(states[index + 1])
    transposed, feedback, bias = network.weights[index + 1].t(), network.feedback[index], between.bias

    def meet(ahead: Tensor) -> Tensor:
        torch.addmm(bias, state, transposed, beta=gain, alpha=gain, out=upper)
        torch.addmm(flatten(ahead), above, feedback, beta=beta, alpha=scale, out=state)
        squash(state, state)
        return upper

    return meet


def _meet_convolution(network: Network, between: _Between, index: int, states: States) -> Apply:
    """The same for a state below a convolution."""
    scale, squash, gain = network.activations[index].scale, network.activations[index].squasher(), _gain(network, index)
    edge, state, above = network.edges[index + 1], states[index], states[index + 1]
    unpooled: Tensor | None = None

    def meet(ahead: Tensor) -> Tensor:
        nonlocal unpooled
        upper, routing = pool(edge, between.up(state))
        if between.feedback_up is not None:
            _, routing = pool(edge, between.feedback_up(state))
        unpooled = unpool(edge, above, routing, unpooled)
        total = between.down(unpooled)
        if index == 0:
            torch.add(ahead, total, alpha=scale, out=total)
        else:
            total.add_(ahead)
            if scale != 1.0:
                total.mul_(scale)
        squash(total, state)
        return upper if gain == 1.0 else upper * gain

    return meet


def _gain(network: Network, index: int) -> float:
    """What the drive of state ``index + 1`` is multiplied with: the output's scale, which is folded into it."""
    return network.activations[-1].scale if index + 2 == network.num_states else 1.0


class _RedBlack:
    """One sweep: the even layers from the odd ones and themselves, then the odd layers from the new even ones.

    What an edge's convolution says of a state is kept until that state changes, so a sweep computes each of them once.
    """

    def __init__(self, network: Network, drive: Tensor, nudge: Nudge | None, masks: Masks | None) -> None:
        self.network, self.drive, self.nudge, self.masks = network, drive, nudge, masks
        self.ahead: dict[int, tuple[Tensor, Routing | None]] = {}

    def __call__(self, states: States) -> None:
        for first in (1, 0):
            changed = range(first, len(states), 2)
            new = {index: self._update(index, states) for index in changed}
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
    """:func:`.dynamics.step` through torch.compile, which makes one kernel of what lies between two convolutions."""
    return torch.compile(step, dynamic=False)


def largest_change(before: Sequence[Tensor], after: Sequence[Tensor]) -> Tensor:
    """The largest absolute difference in every layer, ``[layers]``."""
    return torch.stack([(new - old).abs().amax() for old, new in zip(before, after, strict=True)])


def _working_copy(state: Tensor) -> Tensor:
    """A copy whose :func:`flatten` is a view, so that a matrix product can write into it."""
    copy = unflatten(torch.empty_like(flatten(state)), tuple(state.shape[1:]))
    return copy.copy_(state)
