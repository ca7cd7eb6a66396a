"""The contract between an algorithm and the training loop.

The loop moves batches, calls :meth:`Algorithm.train_step`, sums its metrics, evaluates, logs, saves, stops. Whatever
has to do with gradients, layers, phases, blocks or masks is inside the algorithm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from altprop.algorithms.context import Capabilities, Context
from altprop.algorithms.optimization import OptimizerFactory, OptimizerStep
from altprop.algorithms.schedule import Schedule
from altprop.nn.units.base import attach_estimator
from altprop.nn.weights.base import Dense, WeightsContext, WeightsRule
from altprop.problems import Problem

Loss = Callable[[Tensor, Tensor], Tensor]
"""``(scores [batch, classes], targets [batch]) -> scalar``, the mean over the batch."""


class Algorithm:
    """How a model is trained. Owns the model, its optimizers and schedules, and the whole step.

    Sub-classes implement :meth:`build` and :meth:`update`, and override the rest where they differ. ``weights`` is the weights
    rule, ``estimator`` what stands in for the derivative of hard units; both work with every algorithm.
    """

    capabilities: ClassVar[Capabilities] = Capabilities()

    def __init__(self, *, loss: Loss | None = None, weights: WeightsRule | None = None, estimator: object | None = None) -> None:
        self.loss: Loss = loss if loss is not None else nn.CrossEntropyLoss()
        self.weights = weights if weights is not None else Dense()
        self.estimator = estimator
        self.model: nn.Module
        self.step = 0

    # -- set-up ----------------------------------------------------------------------------------------------------------------

    def setup(self, model: nn.Module, optimizer: OptimizerFactory, schedule: Schedule, context: Context) -> None:
        """Take over ``model``, already on ``context.device``. Called once, before :meth:`load_state_dict`.

        ``optimizer`` and ``schedule`` are factories, because only the algorithm knows how many optimizers there are.
        """
        self.model = model
        self.context = context
        attach_estimator(model, self.estimator)
        self.weights.attach(
            model,
            WeightsContext(context.steps_per_epoch, context.total_epochs, context.device, context.generator("weights")),
        )
        self.optimizers: list[OptimizerStep] = list(self.build(optimizer, schedule))
        self.weights.optimizers_built([step.optimizer for step in self.optimizers])

    def build(self, optimizer: OptimizerFactory, schedule: Schedule) -> Iterable[OptimizerStep]:
        """Create what :meth:`update` needs and return the optimizer steps in use. The default: one over all parameters."""
        return [self.optimizer_step(self.model.parameters(), optimizer, schedule)]

    def optimizer_step(
        self,
        parameters: Iterable[nn.Parameter] | Iterable[Mapping[str, Any]],
        optimizer: OptimizerFactory,
        schedule: Schedule,
    ) -> OptimizerStep:
        """One optimizer over ``parameters`` with this run's precision, clipping, weights rule and schedule around it."""
        return OptimizerStep(parameters, optimizer, schedule, self.weights, self.context)

    # -- training --------------------------------------------------------------------------------------------------------------

    def train_step(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Train on one mini-batch, update included; returns batch means as device scalars, without a host sync.

        ``inputs`` ``[batch, channels, height, width]``, ``targets`` ``[batch]`` integers. Always has ``loss`` and ``accuracy``
        (percent) where the algorithm makes a prediction in training.
        """
        self.weights.step_start(self.step)
        self.weights.observe(inputs)
        metrics = self.update(inputs, targets)
        self.weights.step_end(self.step, [optimizer.optimizer for optimizer in self.optimizers])
        self.step += 1
        return metrics

    def update(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The step itself: credit signal and parameter update."""
        raise NotImplementedError

    def epoch_start(self, epoch: int) -> None:
        """Called before the first step of ``epoch`` (0-based), and again when a run resumes inside it: must be idempotent."""
        self.model.train()
        self.weights.epoch_start(epoch)

    def epoch_end(self, epoch: int) -> dict[str, Tensor]:
        """Called after the last step of ``epoch``, before evaluation; returns metrics as device scalars."""
        for optimizer in self.optimizers:
            optimizer.schedule.epoch_end()
        return self.weights_epoch_end(epoch)

    def weights_epoch_end(self, epoch: int) -> dict[str, Tensor]:
        """End the epoch of the weights rule; its metrics."""
        return {f"weights/{name}": value for name, value in self.weights.epoch_end(epoch).items()}

    def evaluated(self, metrics: Mapping[str, float]) -> None:
        """Called after an evaluation with its metrics (``train/loss``, ``validation/loss``…); plateau schedules use it.

        The test split is never consulted.
        """
        loss = metrics.get("validation/loss", metrics.get("train/loss"))
        if loss is not None:
            for optimizer in self.optimizers:
                optimizer.schedule.evaluated(loss)

    def total_epochs(self, epochs: int, model: nn.Module) -> int:
        """The number of passes over the data in a run of ``epochs`` epochs on ``model``. Called before :meth:`setup`.

        It is larger than ``epochs`` if, for example, blocks train one after the other.
        """
        return epochs

    @property
    def finished(self) -> bool:
        """Whether training is over before the epochs are."""
        return False

    @property
    def selectable(self) -> bool:
        """Whether the network as it is now may be chosen as the best one of the run."""
        return self.weights.complete

    @property
    def learning_rate(self) -> float:
        """The rate to show: that of the first optimizer's first group."""
        return self.optimizers[0].learning_rate

    @property
    def step_kind(self) -> str | None:
        """The kind of the next step. Steps of one kind on mini-batches of one size cost the same, so only one is counted.

        None if the work in a step is only known while it runs; the algorithm then names each piece to :attr:`.Context.account`.
        """
        return "step"

    # -- the alignment probe ---------------------------------------------------------------------------------------------------

    def reference_gradient(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The gradient of the loss of the whole network on one mini-batch, by parameter name: what a step is compared with.

        Changes neither parameters nor ``.grad``; the caller keeps random streams and running statistics as they were. The default
        differentiates ``loss(model(inputs), targets)`` end to end, with every module in the mode that it is in.
        """
        return gradient_of(self.loss(self.model(inputs), targets), self.model)

    def close(self) -> None:
        """Called once the run is over, however it ended: end what was started beside it, such as other processes."""

    # -- prediction ------------------------------------------------------------------------------------------------------------

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Evaluation mode without gradients; parametrized weights are computed once for the whole context."""
        modes = [(module, module.training) for module in self.model.modules()]  # parts of a model may be frozen in eval mode
        self.model.eval()
        try:
            with torch.inference_mode(), parametrize.cached():
                yield
        finally:
            for module, training in modes:
                module.training = training

    def predict(self, inputs: Tensor) -> Tensor:
        """Class scores ``[batch, classes]``. Called inside :meth:`inference`."""
        return self.model(inputs)

    def predictions(self, inputs: Tensor) -> dict[str, Tensor]:
        """Every answer the model gives, ``"" -> predict`` being the model's own; local heads and ensembles add theirs by name."""
        return {"": self.predict(inputs)}

    def evaluation_loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        """The loss that evaluations report, the mean over the batch."""
        return self.loss(scores, targets)

    def figures(self, directory: Path) -> Iterable[Path]:
        """Draw what only this algorithm can show into ``directory`` and return the files. Called at the end of a run."""
        return ()

    # -- state -----------------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything a bit-exact resume needs, tensors and plain values only. The loop saves ``context``'s generators."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "weights": self.weights.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.weights.load_state_dict(state["weights"])

    # -- configuration ---------------------------------------------------------------------------------------------------------

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Problems that only this algorithm can see in its own node ``config`` and the whole resolved config ``root``."""
        yield from ()


def gradient_of(loss: Tensor, model: nn.Module) -> dict[str, Tensor]:
    """The gradient of the scalar ``loss`` with respect to every parameter of ``model`` that it depends on, by name."""
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(named, gradients, strict=True) if gradient is not None}


def top1(scores: Tensor, targets: Tensor) -> Tensor:
    """Accuracy in percent of ``scores`` ``[batch, classes]``, as a device scalar."""
    return (scores.argmax(dim=1) == targets).sum() * (100.0 / targets.numel())
