"""The masked weight ``W = theta * m`` as a parametrization, and the flat view of all of a model's masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from altprop.nn.weights.layers import WeightLayer, register_on_weight
from altprop.nn.weights.sparse.layout import Layout, flat_weights, segment_counts, true_indices, unit_scores, unit_shape


class Mask(nn.Module):
    """``theta -> theta * mask``, so that the loss gives an inactive entry of theta a gradient of exactly zero (section 2.1).

    The mask has the shape of the weight or of its first dimensions and is saved with the model. While ``capture`` is
    set, the backward pass also stores the gradient of the effective weight, inactive entries included, in ``gradient``.
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
            weight.register_hook(self._store)
        return weight

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the dense storage for ``weight``: the weight itself, inactive entries included."""
        return weight

    def broadcast(self) -> Tensor:
        """Return the mask in a shape that broadcasts to the weight."""
        return self.mask.view(*self.mask.shape, *self.trailing) if self.trailing else self.mask

    def _store(self, gradient: Tensor) -> None:
        self.gradient = gradient if self.gradient is None else self.gradient + gradient


class MaskedWeights:
    """All masked weights of a model as flat buffers of units.

    ``mask`` ``[units]`` is one buffer of which the layers' masks are views, so that loading a model's state fills it, too.
    ``alive`` is the same as booleans, and ``active`` is the number of active units of every tensor, on the host. Call
    :meth:`recount` after the masks were written from outside.
    """

    def __init__(self, layers: Sequence[WeightLayer], granularity: int, mask: Tensor) -> None:
        """Register :class:`Mask` on ``layers``. ``mask`` ``[units]`` is on the weights' device and in the order of ``layers``."""
        shapes = [layer.shape for layer in layers]
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
        """Recompute ``alive`` and ``active`` from the masks, with one host sync."""
        self.alive = self.mask != 0
        self._units: Tensor | None = None
        self.active: list[int] = torch.stack([part.count_nonzero() for part in self.parts(self.alive)]).tolist()

    def switch(self, indices: Tensor, active: bool) -> None:
        """Activate or deactivate the units at flat ``indices``. The caller updates the counts :attr:`active`."""
        self.mask.index_fill_(0, indices, float(active))
        self.alive.index_fill_(0, indices, active)
        if self._units is not None:
            self._units = _with(self._units, indices) if active else _without(self._units, indices)

    def switch_where(self, flags: Tensor, active: bool) -> None:
        """Do the same as :meth:`switch` for booleans ``[units]``, without a host sync."""
        self.mask.masked_fill_(flags, float(active))
        self.alive.masked_fill_(flags, active)
        self._units = None

    def active_units(self) -> Tensor:
        """Return the ascending flat indices of all active units. On a CPU they are cached, and :meth:`switch` updates them."""
        units = true_indices(self.alive) if self._units is None else self._units
        if self.device.type == "cpu":
            self._units = units
        return units

    def parts(self, flat: Tensor) -> tuple[Tensor, ...]:
        """Return views of a flat buffer ``[units]``, one per tensor."""
        return flat.split(list(self.layout.sizes))

    def counts(self, indices: Tensor) -> list[int]:
        """Return how many of the ascending flat ``indices`` are in each tensor, with one host sync."""
        return segment_counts(indices, self.boundaries).tolist()

    def scores(self) -> Tensor:
        """Return the magnitudes of all units ``[units]``, in a buffer that the next call of this or :meth:`values` overwrites."""
        return unit_scores(self.weights, self.layout, self._scores)

    def values(self) -> Tensor:
        """Return the dense storage of all tensors ``[weights]``, in a buffer that the next call overwrites."""
        return flat_weights(self.weights, self._flat)

    def capture_gradients(self, capture: bool) -> None:
        """Set whether backward passes store the gradients of the effective weights, and drop those stored before."""
        for masking in self.maskings:
            masking.capture = capture
            masking.gradient = None

    def nonzero(self) -> Tensor:
        """Return the number of active weights (not units) of every tensor, integers ``[tensors]`` on the device."""
        widths = torch.tensor(self.layout.widths, device=self.device)
        return torch.stack([part.count_nonzero() for part in self.parts(self.alive)]) * widths


def _with(units: Tensor, more: Tensor) -> Tensor:
    """Return ascending ``units`` merged with ``more``, which is in any order and contains none of them; on the host."""
    added = np.sort(more.numpy())
    return torch.from_numpy(np.insert(units.numpy(), np.searchsorted(units.numpy(), added), added))


def _without(units: Tensor, fewer: Tensor) -> Tensor:
    """Return ascending ``units`` without ``fewer``, which are all among them; on the host."""
    return torch.from_numpy(np.delete(units.numpy(), np.searchsorted(units.numpy(), fewer.numpy())))
