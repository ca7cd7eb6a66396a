"""The inference of predictive coding: how prediction errors settle before weights change.

The network is a chain of blocks ``f_1 … f_K`` and a classifier ``f_{K+1}``. ``v_0`` is the input, ``v_l`` are the values of block
``l``, and ``f_l(v_{l-1})`` is its prediction. Prediction errors are ``delta_l = f_l(v_{l-1}) - v_l``, and ``delta_{K+1}`` is the
gradient of each sample's loss with respect to the class scores. Values move down the gradient of the energy (Rosenbaum 2022;
Whittington and Bogacz 2017)

    F = sum_samples loss(f_{K+1}(v_K)) + 1/2 sum_l |delta_l|^2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

TotalLoss = Callable[[Tensor], Tensor]
"""Takes class scores ``[batch, classes]`` and returns the sum of the losses of the samples."""


@dataclass
class Predictions:
    """What the blocks and the classifier predict from ``values``, each with a graph of its own."""

    values: list[Tensor]
    """``v_1 … v_K``: leaves that the next prediction depends on."""
    outputs: list[Tensor]
    """``f_1(v_0) … f_{K+1}(v_K)``, the last are the class scores."""


def feed_forward(blocks: Sequence[nn.Module], head: nn.Module, inputs: Tensor) -> Predictions:
    """Make a forward pass in which every value is its prediction, cut into pieces."""
    values: list[Tensor] = []
    outputs: list[Tensor] = []
    for block in blocks:
        outputs.append(block(values[-1] if values else inputs))
        values.append(outputs[-1].detach().requires_grad_())
    return Predictions(values, [*outputs, head(values[-1])])


def predictions_of(blocks: Sequence[nn.Module], head: nn.Module, inputs: Tensor, values: list[Tensor]) -> Predictions:
    """Return what each block and the classifier predict if the values below them are ``values``."""
    outputs = [block(below) for block, below in zip(blocks, [inputs, *values[:-1]], strict=True)]
    return Predictions(values, [*outputs, head(values[-1])])


def errors_of(predictions: Predictions, loss: TotalLoss) -> list[Tensor]:
    """Return ``delta_1 … delta_{K+1}`` without a graph."""
    hidden = [(output - value).detach() for output, value in zip(predictions.outputs, predictions.values, strict=False)]
    return [*hidden, output_error(predictions.outputs[-1], loss)]


def output_error(scores: Tensor, loss: TotalLoss) -> Tensor:
    """Return ``delta_{K+1}``, the gradient of ``loss`` with respect to ``scores``."""
    leaf = scores.detach().requires_grad_()
    (error,) = torch.autograd.grad(loss(leaf), leaf)
    return error


def pulled_down(predictions: Predictions, errors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return ``J_{l+1}^T delta_{l+1}`` for ``l = 1 … K``, with the Jacobian of each prediction with respect to its input.

    None stands for zero, in ``errors`` ``delta_1 … delta_{K+1}`` and in the result.
    """
    return [
        None if error is None else torch.autograd.grad(output, value, error, retain_graph=True)[0]
        for output, value, error in zip(predictions.outputs[1:], predictions.values, errors[1:], strict=True)
    ]


def fixed_prediction_step(
    errors: Sequence[Tensor | None], pulled: Sequence[Tensor | None], step_size: float
) -> list[Tensor | None]:
    """Return the errors after one step with predictions and Jacobians of the forward pass (Rosenbaum 2022, algorithm 3).

    ``delta_l <- (1 - eta) delta_l + eta J_{l+1}^T delta_{l+1}``; its fixed point is backpropagation.
    """
    moved: list[Tensor | None] = []
    for error, target in zip(errors[:-1], pulled, strict=True):
        if target is None:
            moved.append(None if error is None else (1.0 - step_size) * error)
        else:
            moved.append(step_size * target if error is None else torch.lerp(error, target, step_size))
    return [*moved, errors[-1]]


def moved_values(predictions: Predictions, errors: Sequence[Tensor], step_size: float) -> list[Tensor]:
    """Return the values after one step down the energy (Rosenbaum 2022, algorithm 2).

    ``v_l <- v_l - eta (J_{l+1}^T delta_{l+1} - delta_l)``, for all layers at once.
    """
    moved = []
    for value, error, target in zip(predictions.values, errors[:-1], pulled_down(predictions, errors), strict=True):
        assert target is not None
        moved.append((value.detach() - step_size * (target - error)).requires_grad_())
    return moved
