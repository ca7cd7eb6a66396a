"""Torch's fused kernels for attention and transformer layers in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def without_fused_attention() -> Iterator[None]:
    """Let attention and transformer layers use their ordinary kernels inside, as in training.

    The fused ones call no submodule, so no hook, and round in another way.
    """
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
