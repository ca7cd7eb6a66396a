"""What a network with zeros in its weights costs: non-zero parameters, density, and operations of a forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from altprop.nn.weights.layers import WeightLayer, positions_per_weight, total_weights, weight_count, weight_layers


class WeightCosts:
    """Counts over all weights of ``model``, of which those of ``layers`` may be zero. Create it before they are parametrized.

    Weights are those of linear, convolutional, attention and recurrent layers and those that no weights rule applies to
    (:func:`altprop.nn.weights.layers.left_out`). Operations are those with weights of layers; they are unknown, and not among
    the metrics, if ``model`` has no ``input_shape``.
    """

    def __init__(self, model: nn.Module, layers: Sequence[WeightLayer], device: torch.device) -> None:
        is_chain = hasattr(model, "blocks") and hasattr(model, "input_shape")
        uses = positions_per_weight(model, model.input_shape) if is_chain else {}  # type: ignore[arg-type]
        every_layer = weight_layers(model)
        sizes = [weight_count(layer) for layer in layers]
        self.sizes = torch.tensor(sizes, device=device)
        # thirds, because the joint projection of attention has three parts, and whole numbers, because float32 is too coarse
        self.thirds = torch.tensor([round(3 * uses.get(layer.name, 0)) for layer in layers], device=device)
        self.dense_flops = 2.0 * sum(uses.get(layer.name, 0) * weight_count(layer) for layer in every_layer)
        self.weights = total_weights(model)
        self.other_weights = self.weights - sum(sizes)
        self.other_parameters = sum(parameter.numel() for parameter in model.parameters()) - sum(sizes)

    def metrics(self, nonzero: Tensor) -> dict[str, Tensor]:
        """Return metrics as device scalars, given the number of weights that are not zero in each of ``layers``, ``[layers]``.

        ``forward_flops`` are those of one input, two per multiply-add.
        """
        metrics = {
            "nonzero_parameters": nonzero.sum() + self.other_parameters,
            "density": (nonzero.sum() + self.other_weights) / self.weights,
        }
        if self.dense_flops:
            forward = self.dense_flops - 2.0 / 3.0 * (self.thirds * (self.sizes - nonzero)).sum()
            metrics["forward_flops"] = forward
            metrics["flops_share"] = forward / self.dense_flops
        return metrics
