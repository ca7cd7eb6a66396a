"""The masked weight ``W = theta * m`` as a parametrization, and the flat view of all of a model's masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from altprop.nn.weights.layers import WeightLayer, register_on_weight
from altprop.nn.weights.sparse.layout import Layout, flat_weights, segment_counts, true_indices, unit_scores, unit_shape


class Mask(nn.Module):
    """``theta -> theta * mask``; the mask, ``[out, in]`` or the first dimensions of ``[out, in, height, width]``, is saved with
    the model. The loss gives an inactive entry of theta a gradient of exactly zero (section 2.1).

    While ``capture`` is set, the backward pass also leaves the gradient of the effective weight, inactive entries included, in
    ``gradient``.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, weight_dimensions: int) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.trailing = (1,) * (weight_dimensions - mask.dim())
        self.capture = False
        self.gradient: Tensor | None = None

    def forward(self, theta: Tensor) -> Tensor:
        weight = theta * self.broadcast()
        if self.capture and weight.requires_grad:
            weight.register_hook(self._keep)
        return weight

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Dense storage for ``weight``: the weight itself, inactive entries included."""
        return weight

    def broadcast(self) -> Tensor:
        """The mask in a shape that multiplies the weight."""
        return self.mask.view(*self.mask.shape, *self.trailing) if self.trailing else self.mask

    def _keep(self, gradient: Tensor) -> None:
        self.gradient = gradient if self.gradient is None else self.gradient + gradient


class MaskedWeights:
    """All masked weights of a model as flat buffers of units.

    ``mask`` ``[units]`` is one buffer; the layers' masks are views of it, so loading a model's state fills it too. ``alive`` is
    the same as booleans and ``active`` are the numbers of active units per tensor, known on the host without asking the device;
    :meth:`recount` after somebody else wrote to the masks.
    """

    def __init__(self, layers: Sequence[WeightLayer], granularity: int, mask: Tensor) -> None:
        """Register :class:`Mask` on ``layers``; ``mask`` ``[units]`` on the weights' device, in the order of ``layers``."""
        shapes = [tuple(layer.module.weight.shape) for layer in layers]
        self.layers = list(layers)
        self.names = [layer.name for layer in layers]
        self.layout = Layout.of(shapes, granularity)
        self.mask = mask
        self.maskings: list[Mask] = []
        self.weights: list[nn.Parameter] = []
        for layer, shape, part in zip(layers, shapes, mask.split(list(self.layout.sizes))):
            masking = Mask(part.view(unit_shape(shape, granularity)), len(shape))
            self.maskings.append(masking)
            self.weights.append(register_on_weight(layer, masking))
        self.device = mask.device
        self.boundaries = self.layout.boundaries(self.device)
        self._scores = torch.empty_like(mask)
        self._flat = self._scores if all(width == 1 for width in self.layout.widths) else None
        self.recount()

    def recount(self) -> None:
        """Derive ``alive`` and ``active`` from the masks anew, with one host sync."""
        self.alive = self.mask != 0
        self._units: Tensor | None = None
        self.active: list[int] = torch.stack([part.count_nonzero() for part in self.parts(self.alive)]).tolist()

    def switch(self, indices: Tensor, active: bool) -> None:
        """Activate or deactivate the units at flat ``indices``; ``active`` (the counts) is the caller's to keep."""
        self.mask.index_fill_(0, indices, float(active))
        self.alive.index_fill_(0, indices, active)
        if self._units is not None:
            self._units = _with(self._units, indices) if active else _without(self._units, indices)

    def switch_where(self, chosen: Tensor, active: bool) -> None:
        """The same for booleans ``[units]``, without a host sync."""
        self.mask.masked_fill_(chosen, float(active))
        self.alive.masked_fill_(chosen, active)
        self._units = None

    def active_units(self) -> Tensor:
        """Ascending flat indices of all active units. Kept from call to call on a CPU, where :meth:`switch` fixes them."""
        units = true_indices(self.alive) if self._units is None else self._units
        if self.device.type == "cpu":
            self._units = units
        return units

    def parts(self, flat: Tensor) -> tuple[Tensor, ...]:
        """Views of a flat buffer ``[units]``, one per tensor."""
        return flat.split(list(self.layout.sizes))

    def counts(self, indices: Tensor) -> list[int]:
        """How many of the ascending flat ``indices`` lie in each tensor, with one host sync."""
        return segment_counts(indices, self.boundaries).tolist()

    def scores(self) -> Tensor:
        """Magnitudes of all units ``[units]``, in a buffer that the next call of this or of :meth:`values` overwrites."""
        return unit_scores(self.weights, self.layout, self._scores)

    def values(self) -> Tensor:
        """The dense storage of all tensors ``[weights]``, in a buffer that the next call overwrites."""
        return flat_weights(self.weights, self._flat)

    def spread(self, flat: Tensor) -> list[Tensor]:
        """``flat`` ``[units]`` as one tensor per weight, in a shape that multiplies it."""
        return [part.view(*masking.mask.shape, *masking.trailing) for part, masking in zip(self.parts(flat), self.maskings)]

    def capture_gradients(self, capture: bool) -> None:
        """Whether the coming backward passes keep the gradients of the effective weights; drops what was kept."""
        for masking in self.maskings:
            masking.capture = capture
            masking.gradient = None

    def nonzero(self) -> Tensor:
        """Active weights (not units) of every tensor, integers ``[tensors]`` on the device."""
        widths = torch.tensor(self.layout.widths, device=self.device)
        return torch.stack([part.count_nonzero() for part in self.parts(self.alive)]) * widths


def _with(units: Tensor, more: Tensor) -> Tensor:
    """Ascending ``units`` and ``more``, which is in any order and has none of them; on the host."""
    added = np.sort(more.numpy())
    return torch.from_numpy(np.insert(units.numpy(), np.searchsorted(units.numpy(), added), added))


def _without(units: Tensor, fewer: Tensor) -> Tensor:
    """Ascending ``units`` without ``fewer``, which are all among them; on the host."""
    return torch.from_numpy(np.delete(units.numpy(), np.searchsorted(units.numpy(), fewer.numpy())))
