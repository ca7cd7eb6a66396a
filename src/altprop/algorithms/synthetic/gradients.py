"""Synthetic gradients (DNI, or cDNI with the labels as context): blocks learn from predicted gradients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, Unpack

from torch import Tensor, nn

from altprop.algorithms.blocks import BlockAlgorithm, BlockOptions, companions, output_shapes
from altprop.algorithms.context import Capabilities
from altprop.algorithms.optimization import OptimizerFactory, OptimizerStep
from altprop.algorithms.schedule import Schedule
from altprop.models.base import FeedForward
from altprop.nn.features import ChannelsFirst, FeatureShape, as_map, has_channels_last
from altprop.nn.initialization import BatchNormInit
from altprop.nn.synthetic.gradients import BackwardInterface, synthesizer_context
from altprop.nn.synthetic.synthesizers import BasicSynthesizer, ConvSynthesizer
from altprop.problems import Problem
from altprop.ranges import KernelSize


class SyntheticGradients(BlockAlgorithm):
    """Trains each block with the gradient that its synthesizer predicts, and the classifier with the real loss.

    Jaderberg et al. (2017), arXiv 1608.05343. A backward interface follows every block, including the last. Synthesizer n is
    regressed onto the gradient that comes back through block n+1, which is itself predicted, and the last synthesizer onto the
    real gradient of the loss. One optimizer updates blocks, classifier and synthesizers. Synthesizers are convolutions on feature
    maps and sequences, and one linear layer on flat features. They belong to the algorithm: the weights rule and the estimator do
    not apply to them. Predicted gradients depend on the batch size.

    Args:
        context: Whether synthesizers get the one-hot labels (cDNI).
        kernel_size: Kernel size of the convolutions, an odd number.
        zero_bias: Whether synthesizers on feature maps start as the zero function.
        batch_norm_init: Initial weights of the synthesizers' batch norms.
        options: Arguments of :class:`~altprop.algorithms.blocks.BlockAlgorithm`.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(clip=True, needs_blocks=True)

    def __init__(
        self,
        *,
        context: bool = False,
        kernel_size: KernelSize = 5,
        zero_bias: bool = False,
        batch_norm_init: BatchNormInit = "ones",
        **options: Unpack[BlockOptions],
    ) -> None:
        super().__init__(**options)
        self.label_context = context
        self.kernel_size = kernel_size
        self.zero_bias = zero_bias
        self.batch_norm_init = batch_norm_init

    def build(self, optimizer: OptimizerFactory, schedule: Schedule) -> Iterable[OptimizerStep]:
        self.blocks = self.cut(self.model)
        shapes = output_shapes(self.blocks, self.context.input_shape, self.context.device)
        factories = [partial(self._interface, shape, block) for shape, block in zip(shapes, self.blocks, strict=True)]
        self.interfaces = companions(self.model, factories, self.context, "synthesizers")
        self.optimization = self.optimizer_step([*self.model.parameters(), *self.interfaces.parameters()], optimizer, schedule)
        return [self.optimization]

    def _interface(self, shape: FeatureShape, block: nn.Module) -> nn.Module:
        if has_channels_last(block, shape):
            return BackwardInterface(ChannelsFirst(self._synthesizer(shape[::-1]), restore=True))
        return BackwardInterface(self._synthesizer(shape))

    def _synthesizer(self, shape: FeatureShape) -> nn.Module:
        classes = self.context.num_classes
        if len(shape) == 1:
            return BasicSynthesizer(shape[0], context_dim=classes if self.label_context else None)
        channels, *_ = as_map(shape)
        options: dict[str, Any] = {"kernel_size": self.kernel_size, "zero_bias": self.zero_bias, "sequence": len(shape) == 2}
        return ConvSynthesizer(channels, classes, batch_norm_init=self.batch_norm_init, **options)

    def update(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        self.optimization.zero_grad()
        self.interfaces.train()
        features = inputs
        with synthesizer_context(self._labels(inputs, targets)):
            for block, interface in zip(self.blocks, self.interfaces, strict=True):
                features = interface(block(features))
            assert isinstance(self.model, FeedForward)
            scores = self.model.head(features)
            loss = self.loss(scores, targets)
            loss.backward()
        self.optimization.step()
        return {"loss": loss.detach(), **self.measured(scores, targets)}

    def _labels(self, inputs: Tensor, targets: Tensor) -> Tensor | None:
        if not self.label_context:
            return None
        return nn.functional.one_hot(targets, self.context.num_classes).to(inputs.dtype)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "interfaces": self.interfaces.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.interfaces.load_state_dict(state["interfaces"])

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield problems of blocks and of ``kernel_size``."""
        yield from super().check(config, root)
        kernel_size = config.get("kernel_size", 5)
        if not isinstance(kernel_size, int) or kernel_size % 2 == 0 or kernel_size < 1:
            allowed = "an odd whole number, so that predicted gradients have the shape of the features"
            yield Problem("algorithm.kernel_size", str(kernel_size), allowed, "algorithm.kernel_size=5")
