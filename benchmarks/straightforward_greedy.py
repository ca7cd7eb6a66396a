"""Backprop and block-local algorithms in plain PyTorch: the baselines of altprop's implementations.

Each class takes the blocks of a feed-forward model and is called with a mini-batch; it returns loss and accuracy as device
scalars. The updates are those of altprop's algorithms (tests/benchmarks/test_straightforward.py). Nothing is optimized for speed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Optimizer = Callable[..., torch.optim.Optimizer]
Metrics = tuple[Tensor, Tensor]
"""Loss and accuracy."""


def accuracy(scores: Tensor, targets: Tensor) -> Tensor:
    return (scores.argmax(1) == targets).float().mean()


class EndToEnd:
    """Backprop through the whole model with one optimizer."""

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self.model = model
        self.optimizer = optimizer(model.parameters())

    def __call__(self, inputs: Tensor, targets: Tensor) -> Metrics:
        self.optimizer.zero_grad(set_to_none=True)
        scores = self.model(inputs)
        loss = nn.functional.cross_entropy(scores, targets)
        loss.backward()
        self.optimizer.step()
        return loss.detach(), accuracy(scores, targets)


class Greedy:
    """Decoupled greedy learning: every block has its own head and learns from the detached output of the block before.

    ``heads`` has one entry per block; the last one is the classifier. If ``stage`` is set, only that block learns and the blocks
    before it compute features in evaluation mode: this is sequential greedy learning.
    """

    def __init__(self, blocks: Sequence[nn.Module], heads: Sequence[nn.Module], optimizer: Optimizer) -> None:
        self.blocks, self.heads = list(blocks), list(heads)
        self.optimizers = [
            optimizer([*block.parameters(), *head.parameters()]) for block, head in zip(blocks, heads, strict=True)
        ]
        self.stage: int | None = None

    def __call__(self, inputs: Tensor, targets: Tensor) -> list[Metrics]:
        features = inputs
        metrics = []
        for index, (block, head, optimizer) in enumerate(zip(self.blocks, self.heads, self.optimizers)):
            if self.stage is not None and index < self.stage:
                with torch.no_grad():
                    features = block.eval()(features)
                continue
            optimizer.zero_grad(set_to_none=True)
            output = block(features)
            scores = head(output)
            loss = nn.functional.cross_entropy(scores, targets)
            loss.backward()
            optimizer.step()
            metrics.append((loss.detach(), accuracy(scores, targets)))
            features = output.detach()
            if index == self.stage:
                break
        return metrics


class SyntheticGradients:
    """DNI: a synthesizer after every block predicts the gradient that the block learns from, and learns from the next block's."""

    def __init__(
        self, blocks: Sequence[nn.Module], synthesizers: Sequence[nn.Module], classifier: nn.Module, optimizer: Optimizer
    ) -> None:
        self.blocks, self.synthesizers, self.classifier = list(blocks), list(synthesizers), classifier
        parameters = [p for module in (*blocks, *synthesizers, classifier) for p in module.parameters()]
        self.optimizer = optimizer(parameters)

    def __call__(self, inputs: Tensor, targets: Tensor) -> Metrics:
        self.optimizer.zero_grad(set_to_none=True)
        features = inputs
        prediction: Tensor | None = None
        for block, synthesizer in zip(self.blocks, self.synthesizers):
            output = block(features)
            predicted = synthesizer(output.detach())
            output.backward(predicted.detach())
            if prediction is not None:
                self._teach(prediction, features)
            prediction, features = predicted, output.detach().requires_grad_()
        scores = self.classifier(features)
        loss = nn.functional.cross_entropy(scores, targets)
        loss.backward()
        if prediction is not None:
            self._teach(prediction, features)
        self.optimizer.step()
        return loss.detach(), accuracy(scores, targets)

    @staticmethod
    def _teach(prediction: Tensor, features: Tensor) -> None:
        assert features.grad is not None
        ((prediction - features.grad).square().sum() / len(prediction)).backward()


class DelayedGradients:
    """DDG: a copy of every block and the graph of its pass are kept until the gradient of that mini-batch arrives.

    With ``replay`` only the input is kept, and passed forward again with the current weights: features replay.
    """

    def __init__(self, blocks: Sequence[nn.Module], optimizer: Optimizer, replay: bool = False) -> None:
        self.blocks, self.replay = list(blocks), replay
        self.optimizers = [optimizer(block.parameters()) for block in blocks]
        self.waiting: list[list[tuple[nn.Module, Tensor, Tensor | None]]] = [[] for _ in blocks]
        self.arrived: list[Tensor | None] = [None for _ in blocks]

    def __call__(self, inputs: Tensor, targets: Tensor) -> Metrics:
        features = inputs
        last = len(self.blocks) - 1
        for index, block in enumerate(self.blocks[:last]):
            leaf = features.detach().requires_grad_(index > 0)
            if self.replay:
                with torch.no_grad():
                    features = block(leaf)
                self.waiting[index].append((block, leaf, None))
            else:
                past = copy.deepcopy(block)
                features = past(leaf)
                for current, updated in zip(block.buffers(), past.buffers()):
                    current.copy_(updated)
                self.waiting[index].append((past, leaf, features))
        leaf = features.detach().requires_grad_(last > 0)
        self.optimizers[last].zero_grad(set_to_none=True)
        scores = self.blocks[last](leaf)
        loss = nn.functional.cross_entropy(scores, targets)
        loss.backward()
        self.optimizers[last].step()
        sent = [self._learn(index) for index in range(last)]
        self.arrived = [*sent[1:], leaf.grad, None]
        return loss.detach(), accuracy(scores, targets)

    def _learn(self, index: int) -> Tensor | None:
        gradient, block = self.arrived[index], self.blocks[index]
        if gradient is None:
            return None
        past, leaf, output = self.waiting[index].pop(0)
        self.optimizers[index].zero_grad(set_to_none=True)
        before = copy.deepcopy(list(block.buffers()))
        if self.replay:
            output = block(leaf)
        assert output is not None
        output.backward(gradient)
        for parameter, old in zip(block.parameters(), past.parameters()):
            parameter.grad = old.grad
        for buffer, value in zip(block.buffers(), before):
            buffer.copy_(value)  # the replayed pass must not enter the running statistics
        self.optimizers[index].step()
        return leaf.grad
