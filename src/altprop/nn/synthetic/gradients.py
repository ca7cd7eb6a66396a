"""Decoupled neural interfaces: parts of a network that learn from predicted messages instead of waiting for real ones.

Jaderberg et al. (2017), *Decoupled Neural Interfaces using Synthetic Gradients*, arXiv 1608.05343; names and scaling as the
comparison of Belilovsky et al. (2020) uses them. A *trigger* is the tensor at which a message is predicted, a *message* what
should arrive there: activations in the forward direction, the gradient of the loss in the backward direction.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_contexts: list[Tensor | None] = []
_deferred: list[tuple[Tensor, Tensor | None]] | None = None


@contextmanager
def synthesizer_context(context: Tensor | None) -> Iterator[None]:
    """Hand ``context`` ``[batch, context_dim]`` (one-hot labels, say) to every synthesizer that is called inside. Nestable."""
    _contexts.append(context)
    try:
        yield
    finally:
        _contexts.pop()


def current_context() -> Tensor | None:
    """The innermost :func:`synthesizer_context`, or None outside."""
    return _contexts[-1] if _contexts else None


@contextmanager
def defer_backward() -> Iterator[None]:
    """Collect everything given to :func:`backward` inside and back-propagate it at the end, in one pass with several roots.

    Needed where a graph is shared, as over the steps of a recurrent net: the first hidden state is a trigger, the last one
    receives a predicted gradient, and the loss in between its own. Not nestable: raises ``RuntimeError``.
    """
    global _deferred
    if _deferred is not None:
        raise RuntimeError("defer_backward cannot be nested")
    _deferred = []
    try:
        yield
        pairs = _deferred
    finally:
        _deferred = None
    if pairs:
        torch.autograd.backward([tensor for tensor, _ in pairs], [gradient for _, gradient in pairs])


def backward(tensor: Tensor, gradient: Tensor | None = None) -> None:
    """Back-propagate ``gradient`` (None: 1, for a scalar loss) from ``tensor``, now or at the end of :func:`defer_backward`."""
    if _deferred is None:
        tensor.backward(gradient)
    else:
        _deferred.append((tensor, gradient))


def predict(synthesizer: nn.Module, trigger: Tensor) -> Tensor:
    """What ``synthesizer`` predicts, with a graph to its parameters; ``trigger`` gets no gradient from it."""
    return synthesizer(trigger.detach(), current_context())


def regression_gradient(predicted: Tensor, target: Tensor) -> Tensor:
    """Gradient ``(2 / B) (q - g)`` of ``(1 / B) sum (q - g)^2``: mean over the batch, sum over everything else.

    ``target`` is a gradient of a batch-mean loss and shrinks like 1 / B, so a trained synthesizer is tied to its batch size.
    """
    return (predicted.detach() - target) * (2.0 / predicted.shape[0])


def receive(synthesizer: nn.Module, trigger: Tensor) -> Tensor:
    """The predicted message, detached."""
    return predict(synthesizer, trigger).detach()


def send(synthesizer: nn.Module, message: Tensor, trigger: Tensor) -> None:
    """Teach ``synthesizer`` to predict ``message``: back-propagates the squared error, the mean over *all* elements."""
    backward(nn.functional.mse_loss(predict(synthesizer, trigger), message.detach()))


class ForwardInterface(nn.Module):
    """Predicts activations: the part behind it may start before the part in front has finished."""

    def __init__(self, synthesizer: nn.Module) -> None:
        super().__init__()
        self.synthesizer = synthesizer

    def forward(self, message: Tensor, trigger: Tensor) -> Tensor:
        """In training: learn ``message`` and hand on its prediction from ``trigger``; in evaluation: ``message``."""
        if not self.training:
            return message
        send(self.synthesizer, message, trigger)
        return receive(self.synthesizer, trigger)


class BackwardInterface(nn.Module):
    """Predicts gradients: the part in front learns at once; the gradient from behind teaches the synthesizer when it arrives."""

    def __init__(self, synthesizer: nn.Module) -> None:
        super().__init__()
        self.synthesizer = synthesizer

    def backward(self, trigger: Tensor, factor: float = 1.0) -> None:
        """Inject ``factor`` times the predicted gradient at ``trigger``; nothing in evaluation."""
        if self.training:
            backward(trigger, receive(self.synthesizer, trigger) * factor)

    def make_trigger(self, trigger: Tensor) -> Tensor:
        """``trigger``, with the promise that the gradient that arrives there teaches the synthesizer and then passes on."""
        if not self.training:
            return trigger
        return self._teach_at(trigger, predict(self.synthesizer, trigger))

    def forward(self, trigger: Tensor) -> Tensor:
        """Train what lies below with the predicted gradient, and hand on ``trigger`` cut off from it; identity in evaluation.

        One call of the synthesizer serves both directions.
        """
        if not self.training:
            return trigger
        predicted = predict(self.synthesizer, trigger)
        backward(trigger, predicted.detach())
        return self._teach_at(trigger.detach(), predicted)

    @staticmethod
    def _teach_at(trigger: Tensor, predicted: Tensor) -> Tensor:
        handed_on = trigger.view_as(trigger)
        if not handed_on.requires_grad:
            handed_on.requires_grad_()
        handed_on.register_hook(lambda gradient: predicted.backward(regression_gradient(predicted, gradient)))
        return handed_on


class BidirectionalInterface(nn.Module):
    """Predicts activations for what lies behind and gradients for what lies in front: both sides may run on their own."""

    def __init__(self, forward_synthesizer: nn.Module, backward_synthesizer: nn.Module) -> None:
        super().__init__()
        self.forward_interface = ForwardInterface(forward_synthesizer)
        self.backward_interface = BackwardInterface(backward_synthesizer)

    def forward(self, message: Tensor, trigger: Tensor) -> Tensor:
        """In training: teach both sides and hand on the prediction of ``message``; in evaluation: ``message``."""
        if not self.training:
            return message
        send(self.forward_interface.synthesizer, message, trigger)
        self.backward_interface.backward(message)
        return self.backward_interface.make_trigger(receive(self.forward_interface.synthesizer, trigger))
