"""The base class of feed-forward models: blocks in forward order, followed by a classifier."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from altprop.problems import ConfigError, Problem

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

    def require_one_owner(self) -> None:
        """Raise ``ConfigError`` unless every parameter is in exactly one block or in the classifier."""
        if "_chain" not in self.__dict__:
            raise ConfigError(
                [Problem("model", f"{type(self).__name__} does not call self.chain(blocks, head)", "see docs/models.md")]
            )
        parts = {**{f"block {number}": block for number, block in enumerate(self.blocks, start=1)}, "the classifier": self.head}
        owners: dict[int, list[str]] = {}
        for part, module in parts.items():
            for parameter in module.parameters():
                owners.setdefault(id(parameter), []).append(part)
        wrong: dict[str, list[str]] = {}
        for name, parameter in self.named_parameters():
            found = owners.get(id(parameter), [])
            if len(found) != 1:
                wrong.setdefault(" and ".join(found) or "no block and not in the classifier", []).append(name)
        if wrong:
            allowed = "each parameter is in one block or in the classifier, so layers that share one belong into one block"
            problems = [Problem("model", f"{', '.join(names)}: in {places}", allowed) for places, names in wrong.items()]
            raise ConfigError(problems)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return class scores ``[batch, classes]`` of ``inputs`` ``[batch, channels, height, width]``."""
        features = inputs
        for block in self.blocks:
            features = block(features)
        return self.head(features)
