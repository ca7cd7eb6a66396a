"""Linear layers and convolutions whose backward pass goes through other weights than their forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

Layer = nn.Linear | _ConvNd
FeedbackOf = Callable[[int, Tensor], Tensor]
"""Takes the number of a layer and its effective weight, and returns the feedback weight of the same shape, without a graph."""


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, feedback: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, feedback)
        return nn.functional.linear(inputs, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, feedback = ctx.saved_tensors
        for_inputs, for_weight, for_bias, _ = ctx.needs_input_grad
        rows = gradient.flatten(0, -2)
        return (
            gradient @ feedback if for_inputs else None,
            rows.t() @ inputs.flatten(0, -2) if for_weight else None,
            rows.sum(dim=0) if for_bias else None,
            None,
        )


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, feedback: Tensor, layout: tuple[Any, ...]
    ) -> Tensor:
        ctx.save_for_backward(inputs, feedback)
        ctx.layout = layout
        result: Tensor = torch.ops.aten.convolution(inputs, weight, bias, *layout)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, feedback = ctx.saved_tensors
        channels = gradient.shape[1]
        # the weight only enters the gradient of the inputs, so one call with the feedback gives all three gradients
        gradients = torch.ops.aten.convolution_backward(
            gradient, inputs, feedback, [channels], *ctx.layout, list(ctx.needs_input_grad[:3])
        )
        return (*gradients, None, None)


def forward_with_feedback(layer: Layer, inputs: Tensor, feedback: Tensor) -> Tensor:
    """Return ``layer(inputs)``, with the gradient of ``inputs`` computed with ``feedback`` in place of the layer's weight.

    ``feedback`` has the shape of the layer's weight. The gradients of weight and bias, given that of the output, are exact.
    """
    weight, bias = layer.weight, layer.bias
    device = inputs.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        inputs, weight, feedback = inputs.to(dtype), weight.to(dtype), feedback.to(dtype)
        bias = bias.to(dtype) if bias is not None else None
    if isinstance(layer, nn.Linear):
        return _Linear.apply(inputs, weight, bias, feedback)
    transposed = isinstance(layer, _ConvTransposeNd)
    padding: Sequence[int] | str = layer.padding
    if layer.padding_mode != "zeros" or isinstance(padding, str):
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        inputs = nn.functional.pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)
        padding = [0] * len(layer.kernel_size)
    layout = (list(layer.stride), list(padding), list(layer.dilation), transposed, list(layer.output_padding), layer.groups)
    return _Convolution.apply(inputs, weight, bias, feedback, layout)


@contextmanager
def feedback_paths(layers: Sequence[Layer], feedback_of: FeedbackOf) -> Iterator[None]:
    """Send backward passes of forward passes made inside through ``feedback_of(number, weight)`` in each of ``layers``."""
    for number, layer in enumerate(layers):
        layer.__dict__["forward"] = partial(_forward, layer, number, feedback_of)
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["forward"]


def _forward(layer: Layer, number: int, feedback_of: FeedbackOf, inputs: Tensor) -> Tensor:
    if not inputs.requires_grad:  # no gradient passes the first layer
        outputs: Tensor = type(layer).forward(layer, inputs)  # type: ignore[arg-type]
        return outputs
    return forward_with_feedback(layer, inputs, feedback_of(number, layer.weight.detach()))
