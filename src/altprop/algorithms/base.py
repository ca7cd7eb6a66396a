"""The contract between an algorithm and the training loop.

The loop moves mini-batches, calls :meth:`Algorithm.train_step`, averages its metrics, evaluates, logs, saves and stops.
Everything about gradients, layers, phases, blocks and masks is inside the algorithm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypedDict

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from altprop.algorithms.context import Capabilities, Context
from altprop.algorithms.graphs import GraphedUpdate, refuse_graphs
from altprop.algorithms.optimization import OptimizerFactory, OptimizerStep
from altprop.algorithms.schedule import Schedule
from altprop.models.base import FeedForward
from altprop.nn.estimators.base import Estimator
from altprop.nn.units.base import attach_estimator
from altprop.nn.weights.base import Dense, WeightsContext, WeightsRule
from altprop.problems import Problem

Loss = Callable[[Tensor, Tensor], Tensor]
"""``(scores [batch, classes], targets [batch]) -> scalar``, the mean over the batch."""


class AlgorithmOptions(TypedDict, total=False):
    """The arguments of :class:`Algorithm`, for subclasses that pass them on as ``**options: Unpack[AlgorithmOptions]``."""

    loss: Loss | None
    weights: WeightsRule | None
    estimator: Estimator | None


class Algorithm:
    """Trains a model. Owns the model, its optimizers and schedules, and the whole step.

    Subclasses implement :meth:`update` and usually :meth:`build`, and override other methods as needed.

    Args:
        loss: The training loss. Default: an instance of :attr:`default_loss`.
        weights: The weights rule. Default: dense weights.
        estimator: Replaces the derivative of hard units in the backward pass. Default: None.
    """

    capabilities: ClassVar[Capabilities] = Capabilities()
    default_loss: ClassVar[type[nn.Module]] = nn.CrossEntropyLoss

    def __init__(
        self, *, loss: Loss | None = None, weights: WeightsRule | None = None, estimator: Estimator | None = None
    ) -> None:
        self.loss: Loss = loss if loss is not None else self.default_loss()
        self.weights = weights if weights is not None else Dense()
        self.estimator = estimator
        self.model: nn.Module
        self.step = 0
        self.graphed: GraphedUpdate | None = None

    # -- set-up ----------------------------------------------------------------------------------------------------------------

    def setup(self, model: nn.Module, optimizer: OptimizerFactory, schedule: Schedule, context: Context) -> None:
        """Prepare to train ``model``, which is on ``context.device``. Called once, before :meth:`load_state_dict`.

        Raises ``ConfigError`` if a parameter of a feed-forward model is not in exactly one of its blocks and its classifier.
        ``optimizer`` and ``schedule`` are factories because only the algorithm knows how many optimizers it needs.
        """
        if isinstance(model, FeedForward):
            model.require_one_owner()
        self.model = model
        self.context = context
        attach_estimator(model, self.estimator)
        self.weights.attach(
            model,
            WeightsContext(context.steps_per_epoch, context.total_epochs, context.device, context.generator("weights")),
        )
        self.optimizers: list[OptimizerStep] = list(self.build(optimizer, schedule))
        self.weights.optimizers_built([step.optimizer for step in self.optimizers])
        if context.recorder is not None:
            supported = self.capabilities.cuda_graph and self.weights.cuda_graph
            refuse_graphs(supported=supported, optimizers=self.optimizers, context=context)
            self.graphed = GraphedUpdate(self.update, self.optimizers, context.recorder, context)

    def build(self, optimizer: OptimizerFactory, schedule: Schedule) -> Iterable[OptimizerStep]:
        """Create what :meth:`update` needs and return the optimizer steps. The default is one step over all parameters."""
        return [self.optimizer_step(self.model.parameters(), optimizer, schedule)]

    def optimizer_step(
        self,
        parameters: Iterable[nn.Parameter] | Iterable[Mapping[str, Any]],
        optimizer: OptimizerFactory,
        schedule: Schedule,
    ) -> OptimizerStep:
        """Return an optimizer step over ``parameters`` with the precision, clipping, weights rule and schedule of this run."""
        return OptimizerStep(parameters, optimizer, schedule, self.weights, self.context)

    # -- training --------------------------------------------------------------------------------------------------------------

    def train_step(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Train on one mini-batch, including the update, and return batch means as device scalars, without a host sync.

        ``inputs`` is ``[batch, channels, height, width]`` and ``targets`` ``[batch]`` integers. The metrics include ``loss`` and
        ``accuracy`` (percent) if the algorithm makes predictions in training.
        """
        self.weights.step_start(self.step)
        self.weights.observe(inputs)
        metrics = (self.graphed or self.update)(inputs, targets)
        self.weights.step_end(self.step, [optimizer.optimizer for optimizer in self.optimizers])
        self.step += 1
        return metrics

    def measured(self, scores: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return the metrics of training ``scores`` ``[batch, classes]``: ``accuracy`` (percent) and the run's own functions."""
        own = {name: metric.mean(scores, targets) for name, metric in self.context.metrics.items() if metric.is_function}
        return {"accuracy": top1(scores, targets), **own}

    def update(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Compute the gradients of one mini-batch and update the parameters. Returns metrics as :meth:`train_step` does."""
        raise NotImplementedError

    def epoch_start(self, epoch: int) -> None:
        """Called before the first step of ``epoch`` (0-based), and again if a run resumes within it, so it must be idempotent."""
        self.model.train()
        self.weights.epoch_start(epoch)

    def epoch_end(self, epoch: int) -> dict[str, Tensor]:
        """Called after the last step of ``epoch``, before evaluation. Returns metrics as device scalars."""
        for optimizer in self.optimizers:
            optimizer.schedule.epoch_end()
        return self.weights_epoch_end(epoch)

    def weights_epoch_end(self, epoch: int) -> dict[str, Tensor]:
        """End the epoch of the weights rule and return its metrics, with the sizes of the weights that it leaves out."""
        metrics = {f"weights/{name}": value for name, value in self.weights.epoch_end(epoch).items()}
        sizes = self.weights.left_out.items()
        return {**metrics, **{f"weights/left_out/{name}": torch.tensor(float(size)) for name, size in sizes}}

    def evaluated(self, metrics: Mapping[str, float]) -> None:
        """Called after an evaluation with its metrics (``train/loss``, ``validation/loss``…). Plateau schedules use it.

        The test split is never used.
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
        """Whether training is complete, even if epochs are left."""
        return False

    @property
    def selectable(self) -> bool:
        """Whether the current network may be selected as the best of the run."""
        return self.weights.complete

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step, to be reported: that of the first group of the first optimizer."""
        return self.optimizers[0].learning_rate

    @property
    def evaluation_due(self) -> bool:
        """Whether the last step reached a point at which the algorithm is to be evaluated, in addition to the regular ones."""
        return False

    def progress_metrics(self) -> dict[str, float]:
        """Return host numbers that belong into every record, such as the positions of blocks that train at their own pace."""
        return {}

    @property
    def step_kind(self) -> str | None:
        """The kind of the next step. Steps of one kind on mini-batches of one size cost the same, so only one is counted.

        None if the work in a step is only known while it runs; the algorithm then names each piece to :attr:`.Context.account`.
        """
        return "step"

    # -- the alignment probe ---------------------------------------------------------------------------------------------------

    def reference_gradient(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return the gradient of the network's loss on one mini-batch by parameter name, which steps are compared with.

        Changes neither parameters nor ``.grad``; the caller restores random streams and running statistics. The default
        differentiates ``loss(model(inputs), targets)`` end to end, with every module in its current mode.
        """
        return gradient_of(self.loss(self.model(inputs), targets), self.model)

    def close(self) -> None:
        """Called when the run is over, however it ended. Stops whatever the algorithm has started, such as other processes."""

    # -- prediction ------------------------------------------------------------------------------------------------------------

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Put the model in evaluation mode without gradients. Parametrized weights are computed only once inside."""
        modes = [(module, module.training) for module in self.model.modules()]  # frozen blocks may be in eval mode already
        self.model.eval()
        try:
            with torch.inference_mode(), parametrize.cached():
                yield
        finally:
            for module, training in modes:
                module.training = training

    def predict(self, inputs: Tensor) -> Tensor:
        """Return class scores ``[batch, classes]``. Called inside :meth:`inference`."""
        return self.model(inputs)

    def predictions(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return all class scores by name. The model's own have the name ``""``; local heads and ensembles add others."""
        return {"": self.predict(inputs)}

    def evaluation_loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Return the loss that evaluations report, the mean over the batch."""
        return self.loss(scores, targets)

    def figures(self, directory: Path) -> Iterable[Path]:
        """Draw the figures of this algorithm into ``directory`` and return their files. Called at the end of a run."""
        return ()

    # -- state -----------------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a bit-exact resume needs, as tensors and plain values. The loop saves the random generators."""
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
        """Yield problems specific to this algorithm, given its own node ``config`` and the whole resolved config ``root``."""
        yield from ()


def gradient_of(loss: Tensor, model: nn.Module) -> dict[str, Tensor]:
    """Return the gradient of the scalar ``loss`` by name of parameter, for the parameters of ``model`` that it depends on."""
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(named, gradients, strict=True) if gradient is not None}


def top1(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the accuracy of ``scores`` ``[batch, classes]`` in percent, as a device scalar."""
    return (scores.argmax(dim=1) == targets).sum() * (100.0 / targets.numel())
