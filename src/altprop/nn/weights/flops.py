"""Floating-point operations of a network's linear and convolutional layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from altprop.nn.weights.layers import weight_layers


def positions_per_weight(model: nn.Module, input_shape: tuple[int, ...]) -> dict[str, int]:
    """How often a forward pass of one input uses each weight of every linear and convolutional layer, by layer name.

    1 for a linear layer, the output's height times width (over groups' shared kernels) for a convolution. Runs ``model`` once on
    zeros, in evaluation mode.
    """
    uses: dict[str, int] = {}
    handles = []

    def remember(name: str, channels: int):  # type: ignore[no-untyped-def]
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            uses[name] = uses.get(name, 0) + output.numel() // channels

        return hook

    for layer in weight_layers(model):
        channels = layer.module.weight.shape[0]
        handles.append(layer.module.register_forward_hook(remember(layer.name, channels)))
    like = next(model.parameters())
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(like.new_zeros(1, *input_shape))
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return uses
