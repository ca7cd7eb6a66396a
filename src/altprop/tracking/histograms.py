"""Histograms of a model's gradients and parameters, for trackers that ask for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from altprop.tracking.base import Histogram, Watched

BINS = 64


def histograms_of(model: nn.Module, watched: Watched | None) -> dict[str, Histogram]:
    """Histograms named ``gradients/<parameter>`` and ``parameters/<parameter>``, of what ``watched`` names.

    The gradients are those of the last step, as the optimizer got them; parameters without one are left out. Reads every tensor
    from the device.
    """
    taken = {}
    for name, parameter in model.named_parameters():
        if watched in ("gradients", "all") and parameter.grad is not None:
            taken[f"gradients/{name}"] = histogram(parameter.grad)
        if watched in ("parameters", "all"):
            taken[f"parameters/{name}"] = histogram(parameter)
    return taken


def histogram(values: Tensor, bins: int = BINS) -> Histogram:
    """The finite entries of ``values`` (any shape) in ``bins`` equal bins from the smallest to the largest.

    Equal entries get one bin-wide range of width 1 around them.
    """
    flat = values.detach().float().flatten().cpu()
    flat = flat[torch.isfinite(flat)]
    low, high = (float(flat.min()), float(flat.max())) if len(flat) else (0.0, 0.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts, edges = torch.histogram(flat, bins, range=(low, high))
    return Histogram(counts.numpy(), edges.numpy())
