"""Ternary weights: every weight is -a, 0 or a (Li et al., 2016), with a straight-through gradient."""

from __future__ import annotations

from torch import Tensor, nn

from altprop.nn.weights.base import SavedWeights, WeightsContext, WeightsRule
from altprop.nn.weights.layers import left_out, register_on_weight, require_plain_weights, trained_layers


def ternary(weight: Tensor, threshold: float) -> Tensor:
    """Entries whose magnitude exceeds ``threshold`` times the mean magnitude become ``-a`` or ``a``, the others 0.

    ``a`` is the mean magnitude of the former. ``weight`` has any shape.
    """
    magnitude = weight.abs()
    kept = (magnitude > threshold * magnitude.mean()).to(weight.dtype)
    level = (magnitude * kept).sum() / kept.sum().clamp(min=1)
    return level * kept * weight.sign()


class Ternary(nn.Module):
    """Parametrization of one weight: the latent weight -> its ternary value; the gradient passes unchanged."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, latent: Tensor) -> Tensor:
        return latent + (ternary(latent, self.threshold) - latent).detach()

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


class TernaryWeights(WeightsRule):
    """Makes the weights of all linear, convolutional, attention and recurrent layers ternary.

    Args:
        threshold: Weights below this share of their layer's mean magnitude are 0.
    """

    def __init__(self, *, threshold: float = 0.7) -> None:
        self.threshold = threshold

    def attach(self, model: nn.Module, context: WeightsContext) -> None:
        self.left_out = left_out(model)
        layers = trained_layers(model)
        require_plain_weights(model, layers)
        for layer in layers:
            register_on_weight(layer, Ternary(self.threshold))

    @classmethod
    def computed_weights(cls, saved: SavedWeights) -> dict[str, Tensor]:
        """Return the ternary weights, from which other runs may start (``model.weights_from``)."""
        return {name: ternary(latent, saved.options["threshold"]) for name, latent in saved.latents.items()}
