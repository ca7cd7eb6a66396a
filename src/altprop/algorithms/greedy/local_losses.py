"""What every algorithm with one local loss per block shares: blocks, heads, one optimizer each, the answers of all heads.

Belilovsky, Eickenberg and Oyallon (2020), *Decoupled Greedy Learning of CNNs*, ICML, arXiv 1901.08164.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from altprop.algorithms.base import Algorithm, Loss, top1
from altprop.algorithms.blocks import companions, cut, cut_problems, output_shapes
from altprop.algorithms.context import Capabilities, Context
from altprop.algorithms.loss_scaling import LossScaling
from altprop.algorithms.master_weights import block_optimizer, is_half, master_weights_problems, to_half, with_half_inputs
from altprop.algorithms.optimization import OptimizerFactory, OptimizerStep
from altprop.algorithms.schedule import Schedule
from altprop.models.base import FeedForward
from altprop.models.mlp import MLP
from altprop.names import builds
from altprop.nn.heads.ensemble import EnsembleOf, ensemble_scores
from altprop.nn.heads.local import ConvHead, flat_features, head_problems, mlp_sr_head
from altprop.nn.weights.base import WeightsRule
from altprop.problems import Problem

HeadFactory = Callable[[tuple[int, ...], int], nn.Module]
"""Takes the shape of a block's output, without the batch, and the number of classes."""


class BlockWithHead(nn.Module):
    """A view of one block and its head: features -> (the block's output, class scores ``[batch, classes]``)."""

    def __init__(self, block: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.head = head

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.block(features)
        return outputs, self.head(outputs)


class LocalLosses(Algorithm):
    """Base of the greedy algorithms: each of K blocks minimizes the loss of its own head on the true labels.

    The model is cut as :func:`altprop.algorithms.blocks.cut` says. Blocks 1 to K-1 get a head from ``head``; the head of the
    last one is the model's own classifier. Heads belong to the algorithm: weights rule and estimator do not reach them.
    ``reset_optimizer_at`` lists the 0-based epochs that begin with fresh optimizer state and loss scale, ``ensemble`` says
    what of the heads is averaged for the answer ``ensemble`` (None: there is none), ``loss_scaling`` replaces torch's rule in
    fp16. With ``master_weights`` fp16 is not autocast: parameters are halves, updated through fp32 copies
    (:mod:`altprop.algorithms.master_weights`).
    """

    capabilities: ClassVar[Capabilities] = Capabilities(amp=True, compile=True, clip=True, needs_blocks=True)

    def __init__(
        self,
        *,
        head: HeadFactory = mlp_sr_head,
        block_size: int = 1,
        cut_points: Sequence[int] | None = None,
        ensemble: EnsembleOf | None = "probabilities",
        reset_optimizer_at: Sequence[int] = (),
        loss_scaling: LossScaling | None = None,
        master_weights: bool = False,
        loss: Loss | None = None,
        weights: WeightsRule | None = None,
        estimator: object | None = None,
    ) -> None:
        super().__init__(loss=loss, weights=weights, estimator=estimator)
        self.head_factory = head
        self.block_size = block_size
        self.cut_points = cut_points
        self.ensemble = ensemble
        self.reset_optimizer_at = frozenset(reset_optimizer_at)
        self.loss_scaling = loss_scaling
        self.master_weights = master_weights
        self.last_reset = -1

    # -- set-up ----------------------------------------------------------------------------------------------------------------

    def build(self, optimizer: OptimizerFactory, schedule: Schedule) -> Iterable[OptimizerStep]:
        self.blocks = cut(self.model, self.block_size, self.cut_points)
        assert isinstance(self.model, FeedForward)
        shapes = output_shapes(self.blocks, self.context.input_shape, self.context.device)
        self.local_heads = companions(self.model, shapes[:-1], self._head, self.context, "heads")
        every_head = [*self.local_heads, self.model.head]
        if self.master_weights:
            to_half(self.model)
            to_half(self.local_heads)
            with_half_inputs(self.model.blocks[0])
        self.parts = [BlockWithHead(block, head) for block, head in zip(self.blocks, every_head, strict=True)]
        self.forwards = [torch.compile(part) if self.context.compile else part for part in self.parts]
        context = self.block_context()
        return [
            block_optimizer(part.parameters(), optimizer, schedule, self.weights, context, self.loss_scaling)
            for part in self.parts
        ]

    def _head(self, shape: tuple[int, ...]) -> nn.Module:
        return self.head_factory(shape, self.context.num_classes)

    def block_context(self) -> Context:
        """The facts that the blocks' optimizers and schedules see."""
        return self.context

    @property
    def num_blocks(self) -> int:
        """K."""
        return len(self.parts)

    # -- training --------------------------------------------------------------------------------------------------------------

    def epoch_start(self, epoch: int) -> None:
        super().epoch_start(epoch)
        self.local_heads.train()
        if self.is_reset(epoch) and epoch > self.last_reset:
            for optimizer in self.optimizers:
                optimizer.forget()
            self.last_reset = epoch  # a run resumed inside this epoch must keep what it has gathered since

    def is_reset(self, epoch: int) -> bool:
        """Whether ``epoch`` (0-based) begins with fresh optimizers."""
        return epoch in self.reset_optimizer_at

    def train_block(self, index: int, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One update of block ``index`` (0-based) and its head on ``features``, which carry no graph.

        Returns the block's output, detached and computed with the parameters before the update, its loss and its accuracy.
        """
        optimization = self.optimizers[index]
        optimization.zero_grad()
        with optimization.autocast():
            outputs, scores = self.forwards[index](features)
            loss = self.loss(scores, targets)
        optimization.backward(loss)
        optimization.step()
        if is_half(loss):
            loss = loss.float()  # sums over an epoch do not fit into halves
        return outputs.detach(), loss.detach(), top1(scores, targets)

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
    def answering_blocks(self) -> int:
        """How many blocks are asked in an evaluation."""
        return self.num_blocks

    def predictions(self, inputs: Tensor) -> dict[str, Tensor]:
        """Class scores of every head in one pass: ``block1`` …, the deepest one's as ``""``, and their ``ensemble``.

        ``block2/ensemble`` is that of heads 1 and 2, and so on.
        """
        answers: dict[str, Tensor] = {}
        features = inputs
        for index, part in enumerate(self.parts[: self.answering_blocks]):
            features, answers[f"block{index + 1}"] = part(features)
        result = {"": answers[f"block{self.answering_blocks}"], **answers}
        if self.ensemble is not None:
            scores = list(answers.values())
            for count in range(2, len(scores)):
                result[f"block{count}/ensemble"] = ensemble_scores(scores[:count], self.ensemble)
            result["ensemble"] = ensemble_scores(scores, self.ensemble)
        return result

    def figures(self, directory: Path) -> Iterable[Path]:
        """Loss and accuracy of every block over the run, from its metrics file."""
        from altprop.reporting.figures.greedy import draw_blocks  # matplotlib is wanted at the end of a run only
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
        """Problems of cutting, of heads, of optimizer resets and of loss scaling."""
        yield from cut_problems(config)
        head = config.get("head") or {}
        yield from head_problems(head)
        if builds(head, ConvHead) and builds(root.get("model"), MLP):
            yield flat_features("every layer of a perceptron hands on flat features")
        if any(epoch < 1 for epoch in config.get("reset_optimizer_at") or ()):
            given = str(list(config["reset_optimizer_at"]))
            yield Problem("algorithm.reset_optimizer_at", given, "0-based epochs from 1 on", "algorithm.reset_optimizer_at=[]")
        precision = (root.get("trainer") or {}).get("precision", "fp32")
        if config.get("loss_scaling") is not None and precision != "fp16":
            given = f"set with trainer.precision={precision}"
            yield Problem("algorithm.loss_scaling", given, "losses are scaled in fp16 only", "trainer.precision=fp16")
        if config.get("master_weights"):
            yield from master_weights_problems(config, root)
