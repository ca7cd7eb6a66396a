"""Small float64 networks trained through the contract, with their states around the last update for comparison."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from altprop.algorithms.backprop import Backprop
from altprop.algorithms.context import Context
from altprop.algorithms.schedule import Schedule
from altprop.models.mlp import MLP
from altprop.nn.weights.base import WeightsRule

STEPS = 4
BATCH = 8
INPUT = (1, 3, 3)
CLASSES = 4
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
Batches = Callable[[int], Sequence[tuple[Tensor, Tensor]]]


def batches(epoch: int, dtype: torch.dtype = torch.float64) -> list[tuple[Tensor, Tensor]]:
    """Return four mini-batches of noise with labels, different ones in every epoch."""
    generator = torch.Generator().manual_seed(100 + epoch)
    return [
        (
            torch.randn(BATCH, *INPUT, generator=generator, dtype=torch.float64).to(dtype),
            torch.randint(CLASSES, (BATCH,), generator=generator),
        )
        for _ in range(STEPS)
    ]


def network(seed: int = 0, dtype: torch.dtype = torch.float64, **options: Any) -> nn.Module:
    """Return a 9-6-5-4 network like the paper's MLPs: biases everywhere, a batch norm after every layer."""
    torch.manual_seed(seed)
    form = {"batch_norm_logits": True, "bias_before_norm": True, **options}
    return MLP(hidden=(6, 5), units=nn.ReLU, input_shape=INPUT, num_classes=CLASSES, **form).to(dtype)


class Driver:
    """``model`` trained by backprop under ``rule``.

    ``before_last`` and ``after_last`` are the model's states around the last update.
    """

    def __init__(
        self,
        rule: WeightsRule,
        model: nn.Module,
        *,
        optimizer: Callable[..., torch.optim.Optimizer] = SGD,
        epochs: int = 6,
        steps: int = STEPS,
        batches: Batches = batches,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        self.batches = batches
        self.model = model
        self.rule = rule
        self.algorithm = Backprop(weights=rule, loss=loss)
        self.context = Context(
            steps_per_epoch=steps,
            total_epochs=epochs,
            device=torch.device("cpu"),
            seed=0,
            input_shape=INPUT,
            num_classes=CLASSES,
            batch_size=BATCH,
        )
        self.algorithm.setup(model, optimizer, Schedule(), self.context)
        self.losses: list[float] = []
        self.before_last: dict[str, Tensor] = {}
        self.after_last: dict[str, Tensor] = {}

    def epoch(self, epoch: int, first: int = 0, last: int | None = None) -> dict[str, Tensor]:
        """Perform the steps from ``first`` to ``last`` of ``epoch``, and end the epoch if ``last`` is None."""
        self.algorithm.epoch_start(epoch)
        for inputs, targets in self.batches(epoch)[first:last]:
            self.before_last = copy.deepcopy(self.model.state_dict())
            self.losses.append(float(self.algorithm.train_step(inputs, targets)["loss"]))
        self.after_last = copy.deepcopy(self.model.state_dict())
        return self.algorithm.epoch_end(epoch) if last is None else {}

    def scores(self, inputs: Tensor) -> Tensor:
        """Return the class scores that an evaluation computes."""
        with self.algorithm.inference():
            return self.algorithm.predict(inputs).clone()


def latents(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield names and values of all latent weights."""
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            yield name, module.parametrizations["weight"].original.detach()


def is_weight(name: str) -> bool:
    """Return whether ``name`` in a state dict is a latent weight."""
    return name.endswith("parametrizations.weight.original")
