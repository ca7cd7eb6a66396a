"""Synchronous decoupled greedy learning: all blocks train at the same time, each on its own loss."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from altprop.algorithms.context import Capabilities
from altprop.algorithms.greedy.local_losses import LocalLosses


class DecoupledGreedy(LocalLosses):
    """Every block minimizes ``L_n = loss(g_n(f_n(sg[h_{n-1}])), y)`` on the same mini-batch (arXiv:1901.08164).

    ``sg`` stops the gradient, so no gradient flows between blocks. Block n+1 gets the features that block n computed before its
    update, which makes the step bit-identical to one backward pass of the summed losses. Because the step goes block by block,
    only one block's graph is in memory at a time.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        amp=True, compile=True, ddp=True, clip=True, cuda_graph=True, needs_blocks=True
    )

    def update(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        metrics: dict[str, Tensor] = {}
        features = inputs
        for index in range(self.num_blocks):
            features, loss, measured = self.train_block(index, features, targets)
            metrics[f"block{index + 1}/loss"] = loss
            metrics[f"block{index + 1}/accuracy"] = measured["accuracy"]
        return {"loss": loss, **measured, **metrics}
