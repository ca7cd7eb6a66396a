"""The base class of feed-forward models: blocks in forward order, followed by a classifier."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

InputShape = tuple[int, int, int]
"""Channels, height and width of one input."""


class FeedForward(nn.Module):
    """A network that is a chain of blocks followed by a classifier.

    Subclasses register their layers under any names (torchvision's, say) and then call :meth:`chain` once. ``blocks`` are views
    of those layers: they have no parameters of their own and do not appear in ``state_dict``. A model does not know how it is
    trained: local heads, masks and estimators belong to the algorithm.

    In addition to its own options, a constructor takes the keywords ``units``, a factory that it calls once per activation,
    ``input_shape`` and ``num_classes``.
    """

    input_shape: InputShape
    num_classes: int

    def chain(self, blocks: Sequence[nn.Module], head: nn.Module) -> None:
        """Set the forward order: ``blocks`` (features), then ``head`` (class scores)."""
        self._chain = (tuple(blocks), head)  # a tuple, so that nn.Module does not register the layers again

    @property
    def blocks(self) -> tuple[nn.Module, ...]:
        """The feature blocks in forward order, without the classifier."""
        return self._chain[0]

    @property
    def head(self) -> nn.Module:
        """The classifier: output of the last block -> ``[batch, classes]``."""
        return self._chain[1]

    def forward(self, inputs: Tensor) -> Tensor:
        """Return class scores ``[batch, classes]`` of ``inputs`` ``[batch, channels, height, width]``."""
        features = inputs
        for block in self.blocks:
            features = block(features)
        return self.head(features)
