"""Feasible target propagation as a search for targets, layer by layer from the output (FTPROP)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from altprop.algorithms.base import Algorithm
from altprop.algorithms.context import Capabilities
from altprop.algorithms.optimization import OptimizerFactory, OptimizerStep
from altprop.algorithms.schedule import Schedule
from altprop.algorithms.target_propagation.beam import hinge_losses, propose_targets
from altprop.names import class_of
from altprop.nn.losses.output import class_margins, hinge
from altprop.nn.units.hard import SignStep
from altprop.nn.units.levels import sign_step
from altprop.problems import ConfigError, Problem
from altprop.ranges import Iterations

CHECK_EVERY = 20
"""Steps of a fit between two checks of whether all targets are reached."""

FIX = "model=mlp model.batch_norm=false model/units=sign_step"


class TargetSearch(Algorithm):
    """The paper's recursive search for feasible targets with a beam, for small data sets (section 2.5 of our specification).

    **An addition:** the published code only has the mini-batch form. Hidden layers get targets in {-1, +1} for every sample. With
    fixed targets each unit is a perceptron, and its problem, a hinge loss, is convex. One step is one search over the whole
    training set, which must be one mini-batch:

    1. Fit a layer to its targets.
    2. If it does not reach all of them, propose targets for the layer below (:func:`propose_targets`).
    3. Search that layer in turn, and fit the first layer again to the new output of the layer below.
    4. Accept the proposal if fewer targets are unreached, otherwise try the next one.

    A search without improvement is followed by one from new random weights, which are kept if its result is better. Training is
    complete when every target is reached, because then every unit's problem is separable. Output targets are one-vs-rest. The
    search makes its decisions on the host, so a step synchronizes with the device many times.

    Raises ``ConfigError`` for models other than linear layers with sign units, and for several mini-batches per epoch.

    Args:
        rounds: Maximum number of rounds of proposals for the output layer.
        hidden_rounds: Maximum number of rounds of proposals for each other layer.
        beam: Number of proposals per round.
        candidates: Number of units that the search for proposals tries to flip.
        flips: Maximum number of flipped units per sample in a proposal.
        fit_steps: Maximum number of optimizer steps per fit.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        clip=True, probe=False, weights_rules=False, needs_blocks=True, needs_hard_units=True, native_hard_units=True
    )

    def __init__(
        self,
        *,
        rounds: Iterations = 20,
        hidden_rounds: Iterations = 1,
        beam: Iterations = 4,
        candidates: Iterations = 8,
        flips: Iterations = 3,
        fit_steps: Iterations = 200,
    ) -> None:
        super().__init__(loss=hinge)
        self.rounds = rounds
        self.hidden_rounds = hidden_rounds
        self.beam = beam
        self.candidates = candidates
        self.flips = flips
        self.fit_steps = fit_steps
        self.reached = False
        self.stalled = False
        self.best: tuple[float, float] = (math.inf, math.inf)
        """Number of unreached output targets, and output loss, of the best weights so far."""

    def build(self, optimizer: OptimizerFactory, schedule: Schedule) -> Iterable[OptimizerStep]:
        problems = []
        if self.context.steps_per_epoch != 1:
            description = f"{self.context.batch_size}, which makes {self.context.steps_per_epoch} mini-batches"
            problems.append(Problem("dataset.batch_size", description, "the search needs the whole training set in one"))
        self.layers = list(linear_layers(self.model))
        if not self.layers:
            problems.append(Problem("model", type(self.model).__name__, "linear layers with sign units between them", FIX))
        if problems:
            raise ConfigError(problems)
        return [self.optimizer_step(layer.parameters(), optimizer, schedule) for layer in self.layers]

    def update(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        features = inputs.flatten(1)
        output_targets = class_margins(features.new_ones(len(targets), self.context.num_classes), targets)
        before = self._weights()
        if self.stalled:
            self._draw_weights()
        search = _Search(self, features)
        self.reached, outputs = search.reach(len(self.layers) - 1, output_targets)
        with torch.no_grad():
            score = (int((outputs != output_targets).sum()), float(self.loss(self.layers[-1](search.activations[-1]), targets)))
        better = score < self.best
        if self.stalled and not better:
            set_values(self._parameters(), before)
        self.best, self.stalled = min(score, self.best), not better
        with torch.no_grad():
            scores = self.model(inputs)
        unreached, fits = (torch.tensor(float(value), device=inputs.device) for value in (self.best[0], search.fits))
        loss = self.loss(scores, targets)
        return {"loss": loss, **self.measured(scores, targets), "search/unreached": unreached, "search/fits": fits}

    def _parameters(self) -> list[nn.Parameter]:
        return [value for layer in self.layers for value in layer.parameters()]

    def _weights(self) -> list[Tensor]:
        return [value.detach().clone() for value in self._parameters()]

    def _draw_weights(self) -> None:
        """Draw new weights and biases, uniform within 1 / sqrt(inputs) of 0 like the initial values of a layer."""
        generator = self.context.generator("search")
        values = []
        for layer in self.layers:
            bound = layer.in_features**-0.5
            values += [(2 * torch.rand(value.shape, generator=generator) - 1) * bound for value in layer.parameters()]
        set_values(self._parameters(), values)

    @property
    def finished(self) -> bool:
        return self.reached

    def fit(self, index: int, inputs: Tensor, targets: Tensor) -> tuple[int, float, Tensor]:
        """Fit layer ``index`` to ``targets``. Returns the number of unreached targets, the layer loss, and outputs in {-1, +1}.

        The optimizer is reset, because every fit is an independent convex problem.
        """
        layer, step = self.layers[index], self.optimizers[index]
        step.optimizer.state.clear()
        for number in range(self.fit_steps):
            step.zero_grad()
            potentials = layer(inputs)
            if number % CHECK_EVERY == 0 and torch.equal(sign_step(potentials.detach()), targets):
                break
            step.backward(hinge_losses(potentials, targets).mean())
            step.step()
        step.zero_grad()
        with torch.no_grad():
            potentials = layer(inputs)
        outputs = sign_step(potentials)
        return int((outputs != targets).sum()), float(hinge_losses(potentials, targets).sum()), outputs

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "reached": self.reached, "stalled": self.stalled, "best": list(self.best)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.reached, self.stalled = state["reached"], state["stalled"]
        self.best = (state["best"][0], state["best"][1])

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield problems of the search's own numbers, batch norm, hard units other than sign, and schedules per step."""
        for name in ("rounds", "hidden_rounds", "beam", "candidates", "flips", "fit_steps"):
            if not isinstance(config.get(name, 1), int) or config.get(name, 1) < 1:
                yield Problem(f"algorithm.{name}", str(config[name]), "a whole number from 1 on", f"algorithm.{name}=1")
        model, schedule = root.get("model") or {}, root.get("schedule") or {}
        if model.get("batch_norm") or model.get("batch_norm_logits"):
            yield Problem(
                "model.batch_norm", "true", "each unit must be a perceptron of its inputs only", "model.batch_norm=false"
            )
        units = class_of(model.get("units"))
        if units is not None and not issubclass(units, SignStep):
            yield Problem("model.units", units.__name__, "targets are -1 and +1: sign units", "model/units=sign_step")
        if schedule.get("scheduler") and schedule.get("interval") == "step":
            allowed = "the number of optimizer steps in a search is not known in advance"
            yield Problem("schedule.interval", "step", allowed, "schedule.interval=epoch or schedule=constant")


class _Search:
    """One search: the activations for the present weights of the layers, and the number of fits."""

    def __init__(self, algorithm: TargetSearch, inputs: Tensor) -> None:
        self.algorithm = algorithm
        self.fits = 0
        self.activations = [inputs]
        with torch.no_grad():
            for layer in algorithm.layers[:-1]:
                self.activations.append(sign_step(layer(self.activations[-1])))

    def reach(self, index: int, targets: Tensor) -> tuple[bool, Tensor]:
        """Try to make layer ``index`` output ``targets`` ``[samples, units]``. Returns whether it does, and its output."""
        algorithm = self.algorithm
        layer = algorithm.layers[index]
        unreached, loss, outputs = self._fit(index, targets)
        if unreached == 0 or index == 0:
            return unreached == 0, outputs
        best = (unreached, loss, outputs, self._snapshot(index))
        for _ in range(algorithm.rounds if index == len(algorithm.layers) - 1 else algorithm.hidden_rounds):
            proposals = propose_targets(
                self.activations[index],
                layer.weight.detach(),
                layer.bias.detach(),
                targets,
                beam=algorithm.beam,
                candidates=algorithm.candidates,
                flips=algorithm.flips,
            )
            for proposal in proposals:
                _, self.activations[index] = self.reach(index - 1, proposal)
                unreached, loss, outputs = self._fit(index, targets)
                if unreached == 0:
                    return True, outputs
                if (unreached, loss) < best[:2]:
                    best = (unreached, loss, outputs, self._snapshot(index))
                    break
                self._restore(best[3])
            else:
                break
        return False, best[2]

    def _fit(self, index: int, targets: Tensor) -> tuple[int, float, Tensor]:
        self.fits += 1
        return self.algorithm.fit(index, self.activations[index], targets)

    def _snapshot(self, index: int) -> tuple[list[Tensor], list[Tensor]]:
        """Return the weights of the layers up to ``index`` and their input activations."""
        weights = [value.detach().clone() for layer in self.algorithm.layers[: index + 1] for value in layer.parameters()]
        return weights, self.activations[: index + 1]

    def _restore(self, snapshot: tuple[list[Tensor], list[Tensor]]) -> None:
        weights, activations = snapshot
        self.activations[: len(activations)] = activations
        set_values([value for layer in self.algorithm.layers for value in layer.parameters()][: len(weights)], weights)


def set_values(parameters: Iterable[nn.Parameter], values: Iterable[Tensor]) -> None:
    """Overwrite ``parameters`` with ``values``."""
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)


def linear_layers(model: nn.Module) -> Iterator[nn.Linear]:
    """Yield the linear layers of a network that has only sign units between them. Yields nothing for other networks."""
    leaves = [module for module in model.modules() if not list(module.children()) and not isinstance(module, nn.Flatten)]
    linear, units = leaves[::2], leaves[1::2]
    kinds = [isinstance(module, nn.Linear) for module in linear] + [isinstance(module, SignStep) for module in units]
    if all(kinds) and len(linear) == len(units) + 1:
        yield from (module for module in linear if isinstance(module, nn.Linear))
