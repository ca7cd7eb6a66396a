"""Base of the algorithms on energy-based networks: parameter groups, the free phase, prediction, diagnostics, checks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypedDict

import torch
from torch import Tensor

from altprop.algorithms.base import Algorithm, gradient_of
from altprop.algorithms.context import Capabilities
from altprop.algorithms.equilibrium_propagation.diagnostics import (
    CONVERGED,
    PROBE_SAMPLES,
    History,
    activity,
    steps_to_convergence,
    weight_angles,
)
from altprop.algorithms.equilibrium_propagation.dynamics import Masks
from altprop.algorithms.equilibrium_propagation.network import LOSSES, LossName, Network, States, lowered, snapshot
from altprop.algorithms.equilibrium_propagation.relaxation import Relaxation, UpdateOrder, unrolled
from altprop.algorithms.optimization import OptimizerFactory, OptimizerStep
from altprop.algorithms.schedule import Schedule
from altprop.models.energy import EnergyModel, num_weight_layers
from altprop.nn.weights.base import WeightsRule
from altprop.problems import ConfigError, Problem
from altprop.ranges import Epsilon, Iterations, LearningRate, WeightDecay

FreeStart = Literal["zeros", "previous"]


class EnergyOptions(TypedDict, total=False):
    """The arguments of :class:`EnergyAlgorithm`, for the ``**options`` of its subclasses."""

    loss: LossName
    free_steps: Iterations
    learning_rates: Sequence[LearningRate] | None
    weight_decays: Sequence[WeightDecay] | None
    update_order: UpdateOrder
    tolerance: Epsilon | None
    free_start: FreeStart
    activate_output_in_evaluation: bool
    weights: WeightsRule | None


class EnergyAlgorithm(Algorithm):
    """Base of the algorithms on :class:`~altprop.models.energy.EnergyModel`.

    Args:
        loss: The loss that nudges the last state: ``mse`` or ``cross_entropy``.
        free_steps: Time steps of the free phase, the paper's T1.
        learning_rates: One learning rate for each weight layer (weights and bias); feedback weights take that of the forward
            layer that they belong to. None: the optimizer's own rate.
        weight_decays: The same for weight decays.
        update_order: Order in which the layers are updated, see :class:`Relaxation`.
        tolerance: A phase ends early once no state moves by more than this in a step. None: phases have their full length.
        free_start: Where a free phase of training starts. The paper starts from ``zeros``; ``previous`` starts from the states
            in which the last mini-batch of the same size ended.
        activate_output_in_evaluation: Apply the activation to linear scores in evaluation, as the published code does.
        weights: The weights rule.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(amp=True, ddp=True, clip=True, needs_energy=True)
    model: EnergyModel

    def __init__(
        self,
        *,
        loss: LossName = "mse",
        free_steps: Iterations = 20,
        learning_rates: Sequence[LearningRate] | None = None,
        weight_decays: Sequence[WeightDecay] | None = None,
        update_order: UpdateOrder = "synchronous",
        tolerance: Epsilon | None = None,
        free_start: FreeStart = "zeros",
        activate_output_in_evaluation: bool = False,
        weights: WeightsRule | None = None,
    ) -> None:
        super().__init__(loss=LOSSES[loss], weights=weights)
        self.loss_name = loss
        self.free_steps = free_steps
        self.learning_rates = learning_rates
        self.weight_decays = weight_decays
        self.update_order = update_order
        self.tolerance = tolerance
        self.free_start = free_start
        self.activate_output_in_evaluation = activate_output_in_evaluation
        self.previous: States | None = None
        self.probe: tuple[Tensor, Tensor] | None = None
        self.angles = History()

    # -- set-up ----------------------------------------------------------------------------------------------------------------

    def build(self, optimizer: OptimizerFactory, schedule: Schedule) -> Iterable[OptimizerStep]:
        return [self.optimizer_step(self.parameter_groups(), optimizer, schedule)]

    @property
    def optimization(self) -> OptimizerStep:
        """The only optimizer, which updates all parameters."""
        return self.optimizers[0]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return one group per weight layer, forward layers first, then feedback weights (section "Optimization").

        If all layers have the optimizer's own settings, there is one group for all: a fused optimizer then updates them in one
        call. Raises ConfigError if ``learning_rates`` or ``weight_decays`` do not have one entry per weight layer.
        """
        count = len(self.model.layers)
        for name, values in (("learning_rates", self.learning_rates), ("weight_decays", self.weight_decays)):
            if values is not None and len(values) != count:
                raise ConfigError([_wrong_length(f"algorithm.{name}", values, count)])
        if self.learning_rates is None and self.weight_decays is None:
            return [{"params": list(self.model.parameters())}]
        layers = [(layer, index) for index, layer in enumerate(self.model.layers)]
        layers += [(layer, index + 1) for index, layer in enumerate(self.model.feedback)]
        return [{"params": list(layer.parameters()), **self._group_settings(index)} for layer, index in layers]

    def _group_settings(self, index: int) -> dict[str, float]:
        settings = {}
        if self.learning_rates is not None:
            settings["lr"] = float(self.learning_rates[index])
        if self.weight_decays is not None:
            settings["weight_decay"] = float(self.weight_decays[index])
        return settings

    @property
    def step_kind(self) -> str | None:
        """The kind of the next step. One that may start from the last states is a kind of its own, because it costs more."""
        kind = super().step_kind
        return kind if kind is None or self.previous is None else f"{kind} from {self.previous[0].shape[0]} states"

    # -- phases ----------------------------------------------------------------------------------------------------------------

    def network(self, *, evaluation: bool = False) -> Network:
        """Return the current state of the model as a network."""
        return snapshot(
            self.model,
            self.loss_name,
            activate_output=evaluation and self.activate_output_in_evaluation,
            channels_last=self.context.channels_last,
        )

    def relaxation(self, network: Network, inputs: Tensor, masks: Masks | None = None) -> Relaxation:
        """Return the dynamics of ``inputs`` with this run's options. Convolutions are in bf16 if the run's precision is."""
        if self.context.precision == "bf16":
            network = lowered(network, torch.bfloat16)
        return Relaxation(
            network,
            inputs,
            masks=masks,
            update_order=self.update_order,
            tolerance=self.tolerance,
            compiled=self.context.compile,
        )

    def draw_masks(self, inputs: Tensor) -> Masks | None:
        """Return inverted dropout masks for the input and every state (section "Extras"); None without dropout."""
        keep = self.model.keep_probabilities
        if all(probability == 1.0 for probability in keep):
            return None
        generator = self.context.device_generator("dropout")
        shapes = [tuple(inputs.shape[1:]), *self.model.state_shapes]
        masks = []
        for probability, shape in zip(keep, shapes, strict=True):
            mask = torch.rand(inputs.shape[0], *shape, generator=generator, device=inputs.device) < probability
            masks.append(mask.to(inputs.dtype) / probability)
        return Masks(masks[0], tuple(masks[1:]))

    def free_phase(self, relaxation: Relaxation, steps: int) -> States:
        """Return the states after ``steps`` steps without a nudge, from zeros or from where the last mini-batch ended."""
        start = self.start(relaxation.batch)
        return relaxation.run_from_zeros(steps) if start is None else relaxation.run(start, steps)

    def start(self, batch: int) -> States | None:
        """Return the states from which a free phase of ``batch`` images starts; None if they are zero."""
        known = self.free_start == "previous" and self.previous is not None and self.previous[0].shape[0] == batch
        return self.previous if known else None

    def remember(self, states: States) -> None:
        """Keep ``states`` for the next free phase if ``free_start`` is ``previous``."""
        if self.free_start == "previous":
            self.previous = [state.clone() for state in states]

    def fit(self, scores: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return loss and accuracy (percent) of training scores, which come from a phase without a nudge."""
        return {"loss": self.loss(scores, targets), **self.measured(scores, targets)}

    def reference_gradient(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Backpropagate through all steps of the free phase, with the positions of max poolings held constant."""
        masks, network = self.draw_masks(inputs), self.network()
        start = self.start(inputs.shape[0]) or network.zeros(inputs.shape[0])
        states = unrolled(network, inputs, start, self.free_steps, masks=masks, update_order=self.update_order)
        return gradient_of(self.loss(network.scores(masked(states, masks)), targets), self.model)

    # -- diagnostics -----------------------------------------------------------------------------------------------------------

    def train_step(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        metrics = super().train_step(inputs, targets)
        self.probe = (inputs[:PROBE_SAMPLES], targets[:PROBE_SAMPLES])
        return metrics

    def epoch_end(self, epoch: int) -> dict[str, Tensor]:
        """Also measure convergence of the phases and activity of the layers on a few images, and angles of feedback weights."""
        metrics = super().epoch_end(epoch)
        with torch.no_grad():
            angles = weight_angles(self.model)
            for name, changes in self.probe_phases().items():
                metrics[f"convergence/{name}_steps"] = steps_to_convergence(changes)
            if self.probe is not None:
                network, states = self.probe_states()
                metrics |= {f"activity/{name}": value for name, value in activity(network, states).items()}
        if angles:
            self.angles.add(epoch, angles)
        return metrics | {f"angle/{name}": value for name, value in angles.items()}

    def probe_phases(self) -> dict[str, Tensor]:
        """Return, for each phase on the probe, the largest change of a unit in each step and layer, ``[steps, layers]``."""
        if self.probe is None:
            return {}
        network = self.network()
        relaxation = self.relaxation(network, self.probe[0])
        return {"free": relaxation.residuals(network.zeros(relaxation.batch), self.free_steps)}

    def probe_states(self) -> tuple[Network, States]:
        """Return the network and its free state on the probe."""
        assert self.probe is not None
        network = self.network()
        relaxation = self.relaxation(network, self.probe[0])
        return network, relaxation.run_from_zeros(self.free_steps)

    def figures(self, directory: Path) -> Iterable[Path]:
        """Draw activity of every layer, convergence of every phase, and angles of feedback weights over the epochs."""
        from altprop.reporting.figures import equilibrium_propagation as draw  # matplotlib is only needed at the end of a run

        files = []
        if self.probe is not None:
            with torch.no_grad():
                files.append(draw.draw_activity(self.probe_states()[1], directory / "activity.png"))
                files.append(draw.draw_convergence(self.probe_phases(), directory / "convergence.png", converged=CONVERGED))
        if self.angles.epochs:
            files.append(draw.draw_angles(self.angles.epochs, self.angles.lists(), directory / "weight_angles.png"))
        return files

    # -- prediction ------------------------------------------------------------------------------------------------------------

    def predict(self, inputs: Tensor) -> Tensor:
        """Return the class scores ``[batch, classes]`` after a free phase from zeros."""
        network = self.network(evaluation=True)
        relaxation = self.relaxation(network, inputs)
        return network.scores(relaxation.run_from_zeros(self.free_steps))

    # -- state -----------------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        probe = None if self.probe is None else [tensor.clone() for tensor in self.probe]
        return {**super().state_dict(), "previous": self.previous, "probe": probe, "angles": self.angles.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        device, previous, probe = self.context.device, state["previous"], state["probe"]
        self.previous = None if previous is None else [tensor.to(device) for tensor in previous]
        self.probe = None if probe is None else (probe[0].to(device), probe[1].to(device))
        self.angles.load_state_dict(state["angles"], device)

    # -- configuration ---------------------------------------------------------------------------------------------------------

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield the problems of phases, losses and per-layer settings."""
        yield from super().check(config, root)
        yield from at_least_one(config, "free_steps")
        model, trainer = root["model"], root["trainer"]
        if trainer["precision"] == "fp16":
            allowed = "states need the range of float32; convolutions can be in bf16"
            yield Problem("trainer.precision", "fp16", allowed, "trainer.precision=bf16")
        if model.get("softmax_readout") and config["loss"] != "cross_entropy":
            description = f"{config['loss']} with model.softmax_readout"
            yield Problem("algorithm.loss", description, "a softmax readout needs cross_entropy", "algorithm.loss=cross_entropy")
        if config.get("update_order") == "red_black" and "skip" in model:
            description = "red_black, and skips connect layers of the same color"
            yield Problem("algorithm.update_order", description, "synchronous", "algorithm.update_order=synchronous")
        if isinstance(model.get("hidden"), Sequence):
            for name in ("learning_rates", "weight_decays"):
                values = config.get(name)
                if values is not None and len(values) != num_weight_layers(model):
                    yield _wrong_length(f"algorithm.{name}", values, num_weight_layers(model))
        for name in ("learning_rates", "weight_decays"):
            for value in config.get(name) or ():
                if isinstance(value, (int, float)) and value < 0:
                    yield Problem(f"algorithm.{name}", str(value), "0 or more for every layer", f"algorithm.{name}=null")
        tolerance = config.get("tolerance")
        if isinstance(tolerance, (int, float)) and tolerance <= 0:
            yield Problem(
                "algorithm.tolerance", str(tolerance), "above 0, or null for phases of full length", "algorithm.tolerance=1e-6"
            )


def at_least_one(config: Mapping[str, Any], name: str) -> Iterator[Problem]:
    """Yield a problem if the number of steps ``name`` is below one."""
    if isinstance(config[name], int) and config[name] < 1:
        yield Problem(f"algorithm.{name}", str(config[name]), "a whole number above 0", f"algorithm.{name}=20")


def _wrong_length(key: str, values: Sequence[float], count: int) -> Problem:
    return Problem(key, f"{len(values)} entries", f"one for each of the {count} weight layers, or null", f"{key}=null")


def masked(states: States, masks: Masks | None) -> States:
    """Return ``states`` as the network sees them: unchanged, or after dropout."""
    return states if masks is None else [mask * state for mask, state in zip(masks.states, states, strict=True)]
