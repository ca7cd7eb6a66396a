"""Difference target propagation: targets travel down through learned inverses.

Lee, Zhang, Fischer and Bengio (2015), *Difference Target Propagation*, ECML PKDD, arXiv 1412.7525.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from math import prod
from typing import Any, ClassVar, Literal, Unpack, get_args

import torch
from torch import Tensor, nn

from altprop.algorithms.base import Algorithm, AlgorithmOptions
from altprop.algorithms.blocks import companions, cut, output_shapes
from altprop.algorithms.context import Capabilities
from altprop.algorithms.optimization import OptimizerFactory, OptimizerStep
from altprop.algorithms.replaying import frozen_statistics
from altprop.algorithms.schedule import Schedule
from altprop.models.base import FeedForward
from altprop.problems import ConfigError, Problem
from altprop.ranges import NonNegativeFloat, PositiveFloat, PositiveLearningRate

Inverse = Callable[[Tensor], Tensor]
InverseUnits = Literal["tanh", "relu", "none"]
_UNITS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "none": nn.Identity}


def difference_targets(outputs: Sequence[Tensor], inverses: Sequence[Inverse], top_target: Tensor) -> list[Tensor]:
    """Return the targets of all ``outputs``, of which the last is ``top_target``.

    ``inverses[i]`` maps ``outputs[i + 1]`` to approximately ``outputs[i]``. The target of an output ``h`` is
    ``h + g(target above) - g(h above)`` (section 2.3 of the paper), so that an output that has reached its target passes no
    change down, however wrong the inverse is.
    """
    targets = [top_target]
    for below, above, inverse in zip(reversed(outputs[:-1]), reversed(outputs[1:]), reversed(inverses), strict=True):
        targets.append(below + inverse(targets[-1]) - inverse(above))
    return targets[::-1]


class InverseBlock(nn.Module):
    """An approximate inverse of a block: ``[batch, *above]`` -> ``[batch, *below]``.

    If both are images it is a 3 x 3 convolution after enlarging the image to the size below, otherwise a linear layer; in both
    cases with a bias and then units.
    """

    def __init__(self, above: Sequence[int], below: Sequence[int], units: InverseUnits) -> None:
        super().__init__()
        self.above, self.below = tuple(above), tuple(below)
        self.is_convolution = len(above) == len(below) == 3
        if self.is_convolution:
            self.layer: nn.Module = nn.Conv2d(above[0], below[0], 3, padding=1)
        else:
            self.layer = nn.Linear(prod(above), prod(below))
        self.units = _UNITS[units]()

    def forward(self, features: Tensor) -> Tensor:
        features = nn.functional.interpolate(features, self.below[1:]) if self.is_convolution else features.flatten(1)
        return self.units(self.layer(features)).view(-1, *self.below)


class DifferenceTargetPropagation(Algorithm):
    """Gives every block a target for its output and moves the output toward it with one local gradient step.

    The target of the last block is one step of size ``target_step`` down the gradient of each sample's loss, which passes through
    the classifier only. Targets of earlier blocks come from :func:`difference_targets`. The loss of a block is its squared
    distance to its target over twice ``target_step``: this makes the gradients of the classifier and of the last block those of
    backprop and the learning rate comparable. The inverse of a block learns to undo it near its inputs: it minimizes
    ``|g(f(h + noise)) - (h + noise)|^2`` (section 2.2 of the paper), once per mini-batch.

    Args:
        target_step: Size of the step from the last block's output to its target, the paper's ``eta_hat``.
        noise: Standard deviation of the noise on the inputs of blocks, with which inverses are trained.
        inverse_learning_rate: Learning rate of the inverses. None: that of the network.
        inverse_units: Activation of the inverses.
        options: Arguments of :class:`~altprop.algorithms.base.Algorithm`.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(clip=True, needs_blocks=True)

    def __init__(
        self,
        *,
        target_step: PositiveFloat = 0.1,
        noise: NonNegativeFloat = 0.1,
        inverse_learning_rate: PositiveLearningRate | None = None,
        inverse_units: InverseUnits = "none",
        **options: Unpack[AlgorithmOptions],
    ) -> None:
        problems = list(_problems(target_step, noise, inverse_learning_rate, inverse_units))
        if problems:
            raise ConfigError(problems)
        super().__init__(**options)
        self.target_step = target_step
        self.noise = noise
        self.inverse_learning_rate = inverse_learning_rate
        self.inverse_units = inverse_units

    def build(self, optimizer: OptimizerFactory, schedule: Schedule) -> Iterable[OptimizerStep]:
        self.blocks = cut(self.model, block_size=1, cut_points=None)
        shapes = output_shapes(self.blocks, self.context.input_shape, self.context.device)
        factories = [partial(InverseBlock, above, below, self.inverse_units) for below, above in pairwise(shapes)]
        self.inverses = companions(self.model, factories, self.context, "inverses")
        self.optimization = self.optimizer_step(self.model.parameters(), optimizer, schedule)
        if not self.inverses:
            return [self.optimization]
        rate = {} if self.inverse_learning_rate is None else {"lr": self.inverse_learning_rate}
        self.inverse_optimization = self.optimizer_step([{"params": self.inverses.parameters(), **rate}], optimizer, schedule)
        return [self.optimization, self.inverse_optimization]

    def update(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        assert isinstance(self.model, FeedForward)
        outputs, values = [], [inputs]
        for block in self.blocks:
            outputs.append(block(values[-1]))
            values.append(outputs[-1].detach())
        leaf = values[-1].requires_grad_()
        scores = self.model.head(leaf)
        loss = self.loss(scores, targets)
        self.optimization.zero_grad()
        loss.backward()
        assert leaf.grad is not None
        hidden, count = values[1:], targets.shape[0]
        with torch.no_grad():
            top = leaf - self.target_step * count * leaf.grad
            aims = difference_targets(hidden, list(self.inverses), top)
            directions = [(value - aim) / (self.target_step * count) for value, aim in zip(hidden, aims, strict=True)]
        metrics = {"loss": loss.detach(), **self.measured(scores.detach(), targets)}
        if self.inverses:
            metrics["inverse_loss"] = self._train_inverses(hidden)
        self.optimization.backward_from(outputs, directions)
        self.optimization.step()
        return metrics

    def _train_inverses(self, hidden: Sequence[Tensor]) -> Tensor:
        """Update the inverses once, with the weights from before the step. Returns the mean square of what they miss."""
        generator = self.context.device_generator("noise")
        self.inverse_optimization.zero_grad()
        missed = []
        for block, inverse, value in zip(self.blocks[1:], self.inverses, hidden, strict=False):
            noise = torch.randn(value.shape, generator=generator, device=value.device, dtype=value.dtype)
            noisy = value.detach() + self.noise * noise
            with torch.no_grad(), frozen_statistics(block):
                above = block(noisy)
            missed.append((inverse(above) - noisy).square().flatten(1))
        total = torch.stack([error.sum(dim=1).mean() for error in missed]).sum()
        total.backward()
        self.inverse_optimization.step()
        return torch.stack([error.detach().mean() for error in missed]).mean()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "inverses": self.inverses.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.inverses.load_state_dict(state["inverses"])

    @classmethod
    def check(cls, config: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield problems of the options."""
        yield from _problems(
            config.get("target_step", 0.1),
            config.get("noise", 0.1),
            config.get("inverse_learning_rate"),
            config.get("inverse_units", "none"),
        )


def _problems(target_step: object, noise: object, rate: object, units: object) -> Iterator[Problem]:
    if not isinstance(target_step, int | float) or target_step <= 0:
        yield Problem("algorithm.target_step", str(target_step), "above 0", "algorithm.target_step=0.1")
    if not isinstance(noise, int | float) or noise < 0:
        yield Problem("algorithm.noise", str(noise), "0 or more", "algorithm.noise=0.1")
    if rate is not None and (not isinstance(rate, int | float) or rate <= 0):
        key = "algorithm.inverse_learning_rate"
        yield Problem(key, str(rate), "above 0, or null for that of the network", f"{key}=null")
    if units not in get_args(InverseUnits):
        yield Problem("algorithm.inverse_units", str(units), " | ".join(get_args(InverseUnits)), "algorithm.inverse_units=none")
