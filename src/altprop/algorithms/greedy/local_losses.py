"""Base of all algorithms with one local loss per block: blocks, heads, one optimizer each, and the predictions of all heads.

Belilovsky, Eickenberg and Oyallon (2020), *Decoupled Greedy Learning of CNNs*, ICML, arXiv 1901.08164.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from altprop.algorithms.blocks import BlockAlgorithm, BlockOptions, companions, output_shapes
from altprop.algorithms.context import Capabilities, Context
from altprop.algorithms.loss_scaling import LossScaling
from altprop.algorithms.master_weights import block_optimizer, is_half, master_weights_problems, to_half, with_half_inputs
from altprop.algorithms.optimization import OptimizerFactory, OptimizerStep
from altprop.algorithms.schedule import Schedule
from altprop.models.base import FeedForward
from altprop.models.mlp import MLP
from altprop.names import builds
from altprop.nn.features import ChannelsFirst, FeatureShape, has_channels_last
from altprop.nn.heads.ensemble import EnsembleOf, ensemble_scores
from altprop.nn.heads.local import ConvHead, flat_features, head_problems, mlp_sr_head
from altprop.problems import Problem
from altprop.ranges import PositiveInt

HeadFactory = Callable[[tuple[int, ...], int], nn.Module]
"""Takes the shape of a block's output without the batch dimension, channels first, and the number of classes."""


class BlockWithHead(nn.Module):
    """A block and its head. Returns the block's output and class scores ``[batch, classes]``."""

    def __init__(self, block: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.head = head

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.block(features)
        return outputs, self.head(outputs)


class LocalLossesOptions(BlockOptions, total=False):
    """The arguments of :class:`LocalLosses`, for subclasses that pass them on."""

    head: HeadFactory
    ensemble: EnsembleOf | None
    reset_optimizer_at: Sequence[PositiveInt]
    loss_scaling: LossScaling | None
    master_weights: bool


class LocalLosses(BlockAlgorithm):
    """Base of the greedy algorithms: each of K blocks minimizes the loss of its own head on the true labels.

    Blocks 1 to K-1 get a head each. The head of the last block is the model's own classifier. Heads belong to the algorithm:
    the weights rule and the estimator do not apply to them.

    Args:
        head: Makes the head of a block.
        ensemble: What is averaged over heads for the prediction ``ensemble``. None: there is no such prediction.
        reset_optimizer_at: 0-based epochs that start with fresh optimizer state and loss scale.
        loss_scaling: Replaces torch's rule in fp16.
        master_weights: In fp16, use fp16 parameters that are updated through fp32 copies instead of autocast
            (:mod:`altprop.algorithms.master_weights`).
        options: Arguments of :class:`~altprop.algorithms.blocks.BlockAlgorithm`.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(amp=True, compile=True, clip=True, needs_blocks=True)

    def __init__(
        self,
        *,
        head: HeadFactory = mlp_sr_head,
        ensemble: EnsembleOf | None = "probabilities",
        reset_optimizer_at: Sequence[PositiveInt] = (),
        loss_scaling: LossScaling | None = None,
        master_weights: bool = False,
        **options: Unpack[BlockOptions],
    ) -> None:
        super().__init__(**options)
        self.head_factory = head
        self.ensemble = ensemble
        self.reset_optimizer_at = frozenset(reset_optimizer_at)
        self.loss_scaling = loss_scaling
        self.master_weights = master_weights
        self.last_reset = -1

    # -- set-up ----------------------------------------------------------------------------------------------------------------

    def build(self, optimizer: OptimizerFactory, schedule: Schedule) -> Iterable[OptimizerStep]:
        self.blocks = self.cut(self.model)
        assert isinstance(self.model, FeedForward)
        shapes = output_shapes(self.blocks, self.context.input_shape, self.context.device)
        factories = [partial(self._head, shape, block) for shape, block in zip(shapes[:-1], self.blocks[:-1], strict=True)]
        self.local_heads = companions(self.model, factories, self.context, "heads")
        all_heads = [*self.local_heads, self.model.head]
        if self.master_weights:
            to_half(self.model)
            to_half(self.local_heads)
            with_half_inputs(self.model.blocks[0])
        self.parts = [BlockWithHead(block, head) for block, head in zip(self.blocks, all_heads, strict=True)]
        self.forwards = [torch.compile(part) if self.context.compile else part for part in self.parts]
        context = self.block_context()
        return [
            block_optimizer(part.parameters(), optimizer, schedule, self.weights, context, self.loss_scaling)
            for part in self.parts
        ]

    def _head(self, shape: FeatureShape, block: nn.Module) -> nn.Module:
        if has_channels_last(block, shape):
            return ChannelsFirst(self.head_factory(shape[::-1], self.context.num_classes), restore=False)
        return self.head_factory(shape, self.context.num_classes)

    def block_context(self) -> Context:
        """The context of the blocks' optimizers and schedules."""
        return self.context

    @property
    def num_blocks(self) -> int:
        """The number of blocks, K."""
        return len(self.parts)

    # -- training --------------------------------------------------------------------------------------------------------------

    def epoch_start(self, epoch: int) -> None:
        super().epoch_start(epoch)
        self.local_heads.train()
        if self.is_reset(epoch) and epoch > self.last_reset:
            for optimizer in self.optimizers:
                optimizer.forget()
            self.last_reset = epoch  # a run that resumes within this epoch must keep the state since then

    def is_reset(self, epoch: int) -> bool:
        """Whether ``epoch`` (0-based) starts with fresh optimizers."""
        return epoch in self.reset_optimizer_at

    def train_block(self, index: int, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Update block ``index`` (0-based) and its head once on ``features``, which have no graph.

        Returns the block's detached output from before the update, its loss, and its accuracy and other metrics.
        """
        optimization = self.optimizers[index]
        optimization.zero_grad()
        with optimization.autocast():
            outputs, scores = self.forwards[index](features)
            loss = self.loss(scores, targets)
        optimization.backward(loss)
        optimization.step()
        if is_half(loss):
            loss = loss.float()  # sums over an epoch overflow in fp16
        return outputs.detach(), loss.detach(), self.measured(scores, targets)

    # -- prediction ------------------------------------------------------------------------------------------------------------

    @contextmanager
    def inference(self) -> Iterator[None]:
        modes = [(module, module.training) for module in self.local_heads.modules()]
        self.local_heads.eval()
        try:
            with super().inference():
                yield
        finally:
            for module, training in modes:
                module.training = training

    @property
    def evaluated_blocks(self) -> int:
        """How many blocks take part in an evaluation."""
        return self.num_blocks

    def predictions(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return the class scores of all heads in one pass: ``block1`` …, those of the deepest head as ``""``, and ``ensemble``.

        ``block2/ensemble`` is the ensemble of heads 1 and 2, and so on.
        """
        by_block: dict[str, Tensor] = {}
        features = inputs
        for index, part in enumerate(self.parts[: self.evaluated_blocks]):
            features, by_block[f"block{index + 1}"] = part(features)
        result = {"": by_block[f"block{self.evaluated_blocks}"], **by_block}
        if self.ensemble is not None:
            scores = list(by_block.values())
            for count in range(2, len(scores)):
                result[f"block{count}/ensemble"] = ensemble_scores(scores[:count], self.ensemble)
            result["ensemble"] = ensemble_scores(scores, self.ensemble)
        return result

    def figures(self, directory: Path) -> Iterable[Path]:
        """Draw loss and accuracy of every block over the run, from its metrics file."""
        from altprop.reporting.figures.greedy import draw_blocks  # Matplotlib is only needed at the end of a run
        from altprop.tracking.metrics_file import read_metrics

        return [draw_blocks(read_metrics(directory.parent / "metrics.jsonl"), directory / "blocks.png")]

    # -- state -----------------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "heads": self.local_heads.state_dict(), "last_reset": self.last_reset}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.local_heads.load_state_dict(state["heads"])
        self.last_reset = state["last_reset"]

    # -- configuration ---------------------------------------------------------------------------------------------------------

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield problems of blocks, heads, optimizer resets, loss scaling and fp32 copies."""
        yield from super().check(config, root)
        head = config.get("head") or {}
        yield from head_problems(head)
        if builds(head, ConvHead) and builds(root.get("model"), MLP):
            yield flat_features("every layer of a perceptron has flat output")
        if any(epoch < 1 for epoch in config.get("reset_optimizer_at") or ()):
            description = str(list(config["reset_optimizer_at"]))
            yield Problem(
                "algorithm.reset_optimizer_at", description, "0-based epochs from 1 on", "algorithm.reset_optimizer_at=[]"
            )
        precision = (root.get("trainer") or {}).get("precision", "fp32")
        if config.get("loss_scaling") is not None and precision != "fp16":
            description = f"set with trainer.precision={precision}"
            yield Problem("algorithm.loss_scaling", description, "losses are only scaled in fp16", "trainer.precision=fp16")
        if config.get("master_weights"):
            yield from master_weights_problems(config, root)
