"""Predictive coding for feed-forward networks.

Whittington and Bogacz (2017), *An approximation of the error backpropagation algorithm in a predictive coding network with local
Hebbian synaptic plasticity*, Neural Computation 29. Rosenbaum (2022), *On the relationship between predictive coding and
backpropagation*, PLOS ONE 17, arXiv 2106.13082. Weight updates at the moment when they equal backpropagation: Song, Lukasiewicz,
Xu and Bogacz (2020), *Can the brain do backpropagation? Exact implementation of backpropagation in predictive coding networks*,
NeurIPS.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal, Unpack, get_args

from torch import Tensor, nn

from altprop.algorithms.backprop import Backprop
from altprop.algorithms.base import AlgorithmOptions
from altprop.algorithms.blocks import cut
from altprop.algorithms.context import Capabilities
from altprop.algorithms.optimization import OptimizerFactory, OptimizerStep
from altprop.algorithms.predictive_coding.inference import (
    TotalLoss,
    errors_of,
    feed_forward,
    fixed_prediction_step,
    moved_values,
    output_error,
    predictions_of,
    pulled_down,
)
from altprop.algorithms.replaying import dropout_options, frozen_statistics, is_random
from altprop.algorithms.schedule import Schedule
from altprop.models.base import FeedForward
from altprop.problems import ConfigError, Problem
from altprop.ranges import Iterations, PositiveShare

Timing = Literal["end", "well_timed"]


class PredictiveCoding(Backprop):
    """Infers the values of every block from the loss and its prediction errors, then reduces these errors with the weights.

    Inference starts from the forward pass. In each step, all values move down the gradient of the energy, see
    :mod:`~altprop.algorithms.predictive_coding.inference`. The weights of a block get the gradient of its own squared prediction
    error, those of the classifier the gradient of the loss, both at the inferred values.

    Args:
        inference_steps: Number of steps of inference per mini-batch. None: as many as there are blocks.
        step_size: Step size ``eta`` of inference.
        fixed_prediction: Use the predictions and Jacobians of the forward pass during inference. Then the gradients approach
            those of backprop, and equal them with ``step_size=1`` and at least as many steps as blocks.
        timing: When gradients of weights are taken: all at the ``end``, or ``well_timed``, those of a block in the one step in
            which the error reaches it. ``well_timed`` with ``step_size=1`` is backprop, without fixed predictions, and always
            takes as many steps as there are blocks.
        options: Arguments of :class:`~altprop.algorithms.base.Algorithm`.
    """

    capabilities: ClassVar[Capabilities] = dataclasses.replace(
        Backprop.capabilities, amp=False, compile=False, cuda_graph=False, needs_blocks=True
    )

    def __init__(
        self,
        *,
        inference_steps: Iterations | None = 20,
        step_size: PositiveShare = 0.1,
        fixed_prediction: bool = False,
        timing: Timing = "end",
        **options: Unpack[AlgorithmOptions],
    ) -> None:
        problems = list(_problems(inference_steps, step_size, fixed_prediction, timing))
        if problems:
            raise ConfigError(problems)
        super().__init__(**options)
        self.inference_steps = inference_steps
        self.step_size = step_size
        self.fixed_prediction = fixed_prediction
        self.timing = timing

    def build(self, optimizer: OptimizerFactory, schedule: Schedule) -> Iterable[OptimizerStep]:
        self.blocks = cut(self.model, block_size=1, cut_points=None)
        if is_random(self.model) and not self.fixed_prediction:
            raise ConfigError([_random_model("it has dropout")])
        self.num_steps = len(self.blocks) if self.inference_steps is None else self.inference_steps
        return super().build(optimizer, schedule)

    def _backward(self, inputs: Tensor, targets: Tensor, share: float) -> dict[str, Tensor]:
        count = targets.shape[0]

        def total_loss(scores: Tensor) -> Tensor:
            return self.loss(scores, targets) * count

        if self.fixed_prediction:
            scores = self._with_fixed_predictions(inputs, total_loss, share / count)
        elif self.timing == "well_timed":
            scores = self._well_timed(inputs, total_loss, share / count)
        else:
            scores = self._with_moving_predictions(inputs, total_loss, share / count)
        return {"loss": self.loss(scores, targets).detach(), **self.measured(scores, targets)}

    def _with_fixed_predictions(self, inputs: Tensor, loss: TotalLoss, share: float) -> Tensor:
        predictions = feed_forward(self.blocks, self._head, inputs)
        scores = predictions.outputs[-1].detach()
        errors: list[Tensor | None] = [*(None for _ in self.blocks), output_error(scores, loss)]
        for _ in range(self.num_steps):
            errors = fixed_prediction_step(errors, pulled_down(predictions, errors), self.step_size)
        settled = [(output, error) for output, error in zip(predictions.outputs, errors, strict=True) if error is not None]
        self.optimization.backward_from([output for output, _ in settled], [error * share for _, error in settled])
        return scores

    def _with_moving_predictions(self, inputs: Tensor, loss: TotalLoss, share: float) -> Tensor:
        predictions = feed_forward(self.blocks, self._head, inputs)
        scores = predictions.outputs[-1].detach()
        with frozen_statistics(self.model):
            for _ in range(self.num_steps):
                values = moved_values(predictions, errors_of(predictions, loss), self.step_size)
                predictions = predictions_of(self.blocks, self._head, inputs, values)
        errors = errors_of(predictions, loss)
        self.optimization.backward_from(predictions.outputs, [error * share for error in errors])
        return scores

    def _well_timed(self, inputs: Tensor, loss: TotalLoss, share: float) -> Tensor:
        predictions = feed_forward(self.blocks, self._head, inputs)
        scores = predictions.outputs[-1].detach()
        with frozen_statistics(self.model):
            for number in range(len(self.blocks), -1, -1):
                errors = errors_of(predictions, loss)
                values = moved_values(predictions, errors, self.step_size)
                self.optimization.backward_from([predictions.outputs[number]], [errors[number] * share])
                if number > 0:
                    predictions = predictions_of(self.blocks, self._head, inputs, values)
        return scores

    @property
    def _head(self) -> nn.Module:
        assert isinstance(self.model, FeedForward)
        return self.model.head

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield problems of the options of inference."""
        options = (
            config.get("inference_steps", 20),
            config.get("step_size", 0.1),
            config.get("fixed_prediction", False),
            config.get("timing", "end"),
        )
        yield from _problems(*options)
        if not config.get("fixed_prediction", False):
            for option in dropout_options(root.get("model") or {}):
                yield _random_model(option)


def _random_model(description: str) -> Problem:
    allowed = "a model without dropout, whose masks would change from one step of inference to the next"
    return Problem("model", description, allowed, "algorithm.fixed_prediction=true")


def _problems(inference_steps: object, step_size: object, fixed_prediction: object, timing: object) -> Iterator[Problem]:
    if inference_steps is not None and (not isinstance(inference_steps, int) or inference_steps < 1):
        key = "algorithm.inference_steps"
        yield Problem(key, str(inference_steps), "a whole number from 1 on, or null for one per block", f"{key}=20")
    if not isinstance(step_size, int | float) or not 0 < step_size <= 1:
        yield Problem("algorithm.step_size", str(step_size), "above 0 and up to 1", "algorithm.step_size=0.1")
    if timing not in get_args(Timing):
        yield Problem("algorithm.timing", str(timing), " | ".join(get_args(Timing)), "algorithm.timing=end")
    if timing == "well_timed" and inference_steps is not None:
        description = f"{inference_steps}, but well_timed takes one step per block"
        yield Problem("algorithm.inference_steps", description, "null with timing=well_timed", "algorithm.inference_steps=null")
    if timing == "well_timed" and fixed_prediction:
        allowed = "true with timing=end; predictions do not move before a well-timed update"
        yield Problem("algorithm.fixed_prediction", "true with timing=well_timed", allowed, "algorithm.fixed_prediction=false")
