"""Feedback paths of every kind of convolution: with the weight itself as feedback, all gradients are those of autograd."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from altprop.algorithms.feedback.paths import forward_with_feedback

LAYERS = [
    (nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 9)),
    (nn.Conv1d(4, 6, 3, padding="same", padding_mode="circular"), (2, 4, 9)),
    (nn.Conv2d(4, 6, (4, 3), padding="same", bias=False), (2, 4, 5, 6)),
    (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (2, 4, 5, 6)),
    (nn.Conv3d(2, 3, 2, dilation=2), (1, 2, 4, 4, 5)),
    (nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), (2, 4, 5)),
    (nn.ConvTranspose2d(4, 6, 2, stride=2), (2, 4, 3, 3)),
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda value: str(value))
def test_gradients(layer: nn.Module, shape: tuple[int, ...]) -> None:
    layer = layer.double()
    inputs = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    parameters = [inputs, *layer.parameters()]
    expected = layer(inputs)
    outputs = forward_with_feedback(layer, inputs, layer.weight.detach())
    assert torch.equal(outputs, expected)
    direction = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(outputs, parameters, direction), torch.autograd.grad(expected, parameters, direction), strict=True
    ):
        torch.testing.assert_close(ours, theirs)
    feedback = torch.randn_like(layer.weight)
    ours = torch.autograd.grad(forward_with_feedback(layer, inputs, feedback), parameters, direction)
    with torch.no_grad():
        layer.weight.copy_(feedback)
    theirs = torch.autograd.grad(layer(inputs), parameters, direction)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
