"""Backprop and the algorithms that train blocks apart, written out in plain PyTorch: what altprop's are measured against.

Each class takes the blocks of a feed-forward model and is called with a mini-batch. Their updates are those of altprop's
algorithms (tests/benchmarks/test_straightforward.py); nothing is done to make them fast.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Optimizer = Callable[..., torch.optim.Optimizer]


def accuracy(scores: Tensor, targets: Tensor) -> Tensor:
    return (scores.argmax(1) == targets).float().mean()


class EndToEnd:
    """Backprop of the whole model, one optimizer."""

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self.model = model
        self.optimizer = optimizer(model.parameters())

    def __call__(self, inputs: Tensor, targets: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        scores = self.model(inputs)
        loss = nn.functional.cross_entropy(scores, targets)
        loss.backward()
        self.optimizer.step()
        self.seen = (loss.detach(), accuracy(scores, targets))


class Greedy:
    """Decoupled greedy learning: every block a net of its own with a head, trained on the detached output of the one before.

    ``heads`` has one entry per block; the last one is the classifier. With ``stage`` only that block learns and those below pass
    features on in evaluation mode: sequential greedy learning.
    """

    def __init__(self, blocks: Sequence[nn.Module], heads: Sequence[nn.Module], optimizer: Optimizer) -> None:
        self.blocks, self.heads = list(blocks), list(heads)
        parts = zip(blocks, heads, strict=True)
        self.optimizers = [optimizer([*block.parameters(), *head.parameters()]) for block, head in parts]
        self.stage: int | None = None

    def __call__(self, inputs: Tensor, targets: Tensor) -> None:
        features = inputs
        self.seen = []
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
            self.seen.append((loss.detach(), accuracy(scores, targets)))
            features = output.detach()
            if index == self.stage:
                break


class SyntheticGradients:
    """DNI: behind every block a synthesizer; the block learns from what it predicts, and it from what comes back from behind."""

    def __init__(
        self, blocks: Sequence[nn.Module], synthesizers: Sequence[nn.Module], classifier: nn.Module, optimizer: Optimizer
    ) -> None:
        self.blocks, self.synthesizers, self.classifier = list(blocks), list(synthesizers), classifier
        parameters = [p for module in (*blocks, *synthesizers, classifier) for p in module.parameters()]
        self.optimizer = optimizer(parameters)

    def __call__(self, inputs: Tensor, targets: Tensor) -> None:
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
        self.seen = (loss.detach(), accuracy(scores, targets))

    @staticmethod
    def _teach(prediction: Tensor, features: Tensor) -> None:
        assert features.grad is not None
        ((prediction - features.grad).square().sum() / len(prediction)).backward()


class DelayedGradients:
    """DDG: a copy of every block and the graph of its pass are kept until the gradient of that mini-batch has come down.

    With ``replay`` only the input is kept, and passed forward again with the weights of now: features replay.
    """

    def __init__(self, blocks: Sequence[nn.Module], optimizer: Optimizer, replay: bool = False) -> None:
        self.blocks, self.replay = list(blocks), replay
        self.optimizers = [optimizer(block.parameters()) for block in blocks]
        self.waiting: list[list[tuple[nn.Module, Tensor, Tensor | None]]] = [[] for _ in blocks]
        self.arrived: list[Tensor | None] = [None for _ in blocks]

    def __call__(self, inputs: Tensor, targets: Tensor) -> None:
        features = inputs
        last = len(self.blocks) - 1
        for index, block in enumerate(self.blocks[:last]):
            leaf = features.detach().requires_grad_(index > 0)
            if self.replay:
                with torch.no_grad():
                    features = block(leaf)
                self.waiting[index].append((block, leaf, None))
            else:
                then = copy.deepcopy(block)
                features = then(leaf)
                for mine, theirs in zip(block.buffers(), then.buffers()):
                    mine.copy_(theirs)
                self.waiting[index].append((then, leaf, features))
        leaf = features.detach().requires_grad_(last > 0)
        self.optimizers[last].zero_grad(set_to_none=True)
        scores = self.blocks[last](leaf)
        loss = nn.functional.cross_entropy(scores, targets)
        loss.backward()
        self.optimizers[last].step()
        self.seen = (loss.detach(), accuracy(scores, targets))
        sent = [self._learn(index) for index in range(last)]
        self.arrived = [*sent[1:], leaf.grad, None]

    def _learn(self, index: int) -> Tensor | None:
        gradient, block = self.arrived[index], self.blocks[index]
        if gradient is None:
            return None
        then, leaf, output = self.waiting[index].pop(0)
        self.optimizers[index].zero_grad(set_to_none=True)
        before = copy.deepcopy(list(block.buffers()))
        if self.replay:
            output = block(leaf)
        assert output is not None
        output.backward(gradient)
        for parameter, old in zip(block.parameters(), then.parameters()):
            parameter.grad = old.grad
        for buffer, value in zip(block.buffers(), before):
            buffer.copy_(value)  # a pass made again does not count in the running statistics
        self.optimizers[index].step()
        return leaf.grad
