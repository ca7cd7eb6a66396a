"""Direct feedback alignment: the error at the output reaches every block through a fixed random matrix of its own.

Nøkland (2016), *Direct Feedback Alignment Provides Learning in Deep Neural Networks*, NeurIPS, arXiv 1609.01596.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from math import prod
from typing import ClassVar

import torch
from torch import Tensor

from altprop.algorithms.backprop import Backprop
from altprop.algorithms.blocks import cut, output_shapes
from altprop.algorithms.context import Capabilities
from altprop.algorithms.optimization import OptimizerFactory, OptimizerStep
from altprop.algorithms.schedule import Schedule
from altprop.models.base import FeedForward


def direct_feedback(error: Tensor, feedback: Tensor, shape: Sequence[int]) -> Tensor:
    """Return ``B e``, which replaces the gradient of a block's output (section 2).

    ``error`` is the gradient of the loss with respect to the class scores, ``[batch, classes]``; ``feedback`` is ``B^T``,
    ``[classes, features]``; ``shape`` is that of the output, ``(batch, …)`` with ``features`` entries per sample.
    """
    return (error @ feedback).view(*shape)


def random_feedback(classes: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw a feedback matrix ``[classes, features]`` for a block with outputs of ``shape`` (without the batch).

    Its entries are uniform in ``+-1 / sqrt(features)``, like PyTorch's initial weights of a classifier on these features.
    """
    features = prod(shape)
    return (2.0 * torch.rand(classes, features, generator=generator) - 1.0) / features**0.5


class DirectFeedbackAlignment(Backprop):
    """Trains every block with the output error times a fixed random matrix, without a backward pass through later blocks.

    The classifier gets its exact gradient. The output of every other block gets ``B e``, where ``e`` is the gradient of the loss
    with respect to the class scores and ``B`` was drawn at the start of the run and never changes. Within a block, including the
    derivative of its activation, gradients are exact: in a multilayer perceptron this is the published rule for every layer; in
    a residual network the layers of one residual block share their feedback.
    """

    capabilities: ClassVar[Capabilities] = dataclasses.replace(
        Backprop.capabilities, compile=False, cuda_graph=False, needs_blocks=True
    )

    def build(self, optimizer: OptimizerFactory, schedule: Schedule) -> Iterable[OptimizerStep]:
        blocks = cut(self.model, block_size=1, cut_points=None)
        shapes = output_shapes(blocks, self.context.input_shape, self.context.device)
        generator, like = self.context.generator("feedback"), next(self.model.parameters())
        self.feedback = [random_feedback(self.context.num_classes, shape, generator).to(like) for shape in shapes]
        return super().build(optimizer, schedule)

    def _backward(self, inputs: Tensor, targets: Tensor, share: float) -> dict[str, Tensor]:
        assert isinstance(self.model, FeedForward)
        features, outputs = inputs, []
        with self.optimization.autocast():
            for block in self.model.blocks:
                features = block(features.detach())
                outputs.append(features)
            scores = self.model.head(features.detach())
            leaf = scores.detach().requires_grad_()
            loss = self.loss(leaf, targets)
        (error,) = torch.autograd.grad(loss, leaf)
        error = error * share
        gradients = [
            direct_feedback(error.to(feedback.dtype), feedback, output.shape).to(output.dtype)
            for output, feedback in zip(outputs, self.feedback, strict=True)
        ]
        self.optimization.backward_from([*outputs, scores], [*gradients, error])
        return {"loss": loss.detach(), **self.measured(leaf.detach(), targets)}
