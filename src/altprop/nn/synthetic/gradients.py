"""Decoupled neural interfaces: blocks of a network that learn from predicted gradients instead of waiting for real ones.

Jaderberg et al. (2017), *Decoupled Neural Interfaces using Synthetic Gradients*, arXiv 1608.05343; names and scaling as in the
comparison of Belilovsky et al. (2020). A *trigger* is the tensor from which a synthesizer predicts the gradient of the loss at
that tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

_contexts: list[Tensor | None] = []


@contextmanager
def synthesizer_context(context: Tensor | None) -> Iterator[None]:
    """Pass ``context`` ``[batch, context_dim]`` (one-hot labels, say) to every synthesizer called inside. Can be nested."""
    _contexts.append(context)
    try:
        yield
    finally:
        _contexts.pop()


def current_context() -> Tensor | None:
    """Return the innermost :func:`synthesizer_context`, or None outside of any."""
    return _contexts[-1] if _contexts else None


def predict(synthesizer: nn.Module, trigger: Tensor) -> Tensor:
    """Return the prediction of ``synthesizer``, with a graph to its parameters but not to ``trigger``."""
    return synthesizer(trigger.detach(), current_context())


def regression_gradient(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the gradient ``(2 / B) (q - g)`` of ``(1 / B) sum (q - g)^2``: mean over the batch, sum over everything else.

    ``target`` is a gradient of a batch-mean loss and shrinks like 1 / B, so a trained synthesizer is tied to its batch size.
    """
    return (predicted.detach() - target) * (2.0 / predicted.shape[0])


class BackwardInterface(nn.Module):
    """Trains the block below with a predicted gradient, and its synthesizer with the real gradient when that arrives."""

    def __init__(self, synthesizer: nn.Module) -> None:
        super().__init__()
        self.synthesizer = synthesizer

    def forward(self, trigger: Tensor) -> Tensor:
        """Backpropagate the predicted gradient from ``trigger`` and return ``trigger`` cut off from its graph.

        The gradient that later reaches the returned tensor trains the synthesizer, which is called only once. In evaluation mode
        this is the identity.
        """
        if not self.training:
            return trigger
        predicted = predict(self.synthesizer, trigger)
        if trigger.requires_grad:  # a frozen block has nothing to train
            trigger.backward(predicted.detach())
        features = trigger.detach().requires_grad_()
        features.register_hook(lambda gradient: predicted.backward(regression_gradient(predicted, gradient)))
        return features
