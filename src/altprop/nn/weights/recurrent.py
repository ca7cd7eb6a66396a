"""Recurrent layers whose weights are computed: torch keeps a list of their tensors, which must not outlive a forward pass."""

from __future__ import annotations

from typing import Any

from torch import nn


def read_computed_weights(module: nn.RNNBase) -> None:
    """Make ``module`` compute its parametrized weights in every forward pass and forget them afterwards.

    Otherwise the list that torch keeps would hold tensors with a graph, which cannot be copied, and on CUDA torch would move them
    into one buffer in place. Can be called repeatedly.
    """
    if "flatten_parameters" not in module.__dict__:
        module.__dict__["flatten_parameters"] = _nothing
        module.register_forward_pre_hook(_forget)
        module.register_forward_hook(_forget, always_call=True)
        _forget(module)


def _forget(module: nn.RNNBase, *_: Any) -> None:
    """Drop the tensors of the last forward pass. The next one sees that they are not the weights and lists these anew."""
    module._flat_weights = [None] * len(module._flat_weights_names)
    module._flat_weight_refs = [_nothing] * len(module._flat_weights_names)  # type: ignore[list-item]


def _nothing() -> None:
    """Stand for a reference to a tensor that is gone, and for a method without an effect."""
