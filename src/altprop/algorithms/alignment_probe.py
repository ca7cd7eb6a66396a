"""The alignment probe compares the update of an algorithm with the gradient of the loss, layer by layer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
import torch.distributed
from torch import Tensor, nn

from altprop.algorithms.alignment import align
from altprop.algorithms.base import Algorithm
from altprop.algorithms.replaying import frozen_statistics
from altprop.nn.estimators.straight_through import SaturatedStraightThrough
from altprop.nn.units.base import attach_estimator, hard_units

ANGLE, NORM_RATIO = "alignment/angle/", "alignment/norm_ratio/"
NORMALIZATIONS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
"""Layers that the probe skips: their scales and shifts do not count as layers."""

TrainStep = Callable[[Tensor, Tensor], dict[str, Tensor]]
"""Calls :meth:`Algorithm.train_step`, possibly with other work around it."""


class AlignmentProbe:
    """Makes training steps of ``algorithm`` and compares them with the gradient. Training is not affected.

    The update direction is what the algorithm hands to its optimizers: ``.grad`` averaged over ranks and unscaled, before the
    weights rule's penalties, clipping, momentum and decay. If a step updates a parameter several times, the gradients are added.
    The gradient is :meth:`Algorithm.reference_gradient` on the same mini-batch, with the weights and random numbers from before
    the step, in full precision. Hard units, whose own derivative is zero, use the saturated straight-through estimator.
    """

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm
        self.alignments: dict[str, float] = {}
        """Metrics of the last :meth:`step`: ``alignment/angle/<layer>`` in degrees and ``alignment/norm_ratio/<layer>``.

        Excludes layers without an update in this step and layers with a gradient that is zero or not finite.
        """
        self.seconds = 0.0
        """Duration of the last :meth:`step` without the training step itself."""

    def step(self, inputs: Tensor, targets: Tensor, train_step: TrainStep | None = None) -> dict[str, Tensor]:
        """Call ``train_step``, by default the algorithm's own, record its alignments, and return its metrics."""
        started = self._now()
        gradients = self._reference(inputs, targets)
        self.seconds = self._now() - started
        with self._recording() as updates:
            metrics = (train_step or self.algorithm.train_step)(inputs, targets)
        started = self._now()
        named = self.algorithm.model.named_parameters()  # in forward order, independent of the order of the updates
        directions = {name: updates[parameter] for name, parameter in named if parameter in updates}
        self.alignments = alignments(self.algorithm.model, directions, gradients)
        self.seconds += self._now() - started
        return metrics

    def _reference(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        algorithm = self.algorithm
        with _preserved_random_state(algorithm), frozen_statistics(algorithm.model), _with_straight_through(algorithm.model):
            gradients = algorithm.reference_gradient(inputs, targets)
        if algorithm.context.world_size > 1:
            for gradient in gradients.values():
                torch.distributed.all_reduce(gradient)
                gradient /= algorithm.context.world_size
        return gradients

    @contextmanager
    def _recording(self) -> Iterator[dict[nn.Parameter, Tensor]]:
        """Collect the gradients of all optimizer steps inside, summed by parameter."""
        updates: dict[nn.Parameter, Tensor] = {}

        def record(parameters: Iterable[nn.Parameter]) -> None:
            for parameter in parameters:
                if parameter.grad is not None:
                    gradient = parameter.grad.detach()
                    updates[parameter] = updates[parameter] + gradient if parameter in updates else gradient.clone()

        with ExitStack() as stack:
            for optimizer in self.algorithm.optimizers:
                stack.enter_context(optimizer.observed_by(record))
            yield updates

    def _now(self) -> float:
        if self.algorithm.context.device.type == "cuda":
            torch.cuda.synchronize(self.algorithm.context.device)
        return time.perf_counter()


def alignments(model: nn.Module, updates: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> dict[str, float]:
    """Return metrics by layer: the angle in degrees between ``updates`` and ``gradients``, and the ratio of their norms.

    Both are given by name of parameter. A layer is a module's weights and biases together. Synchronizes with the device.
    """
    layers: dict[str, list[str]] = {}
    for name in updates:
        layer = layer_of(name)
        if name in gradients and not isinstance(model.get_submodule(layer), NORMALIZATIONS):
            layers.setdefault(layer or name, []).append(name)
    metrics = {}
    for layer, names in layers.items():
        update, gradient = (torch.cat([values[name].flatten() for name in names]) for values in (updates, gradients))
        if not float(gradient.norm()) > 0:
            continue
        alignment = align(update, gradient)
        values = (float(alignment.angle), float(alignment.norm_ratio))
        if all(math.isfinite(value) for value in values):  # steps that overflow in fp16 are skipped
            metrics[ANGLE + layer], metrics[NORM_RATIO + layer] = values
    return metrics


def layer_of(parameter: str) -> str:
    """Return the name of the module that owns the parameter called ``parameter``, which may be parametrized."""
    return (
        parameter.partition("parametrizations.")[0].rstrip(".")
        if "parametrizations." in parameter
        else parameter.rpartition(".")[0]
    )


@contextmanager
def _preserved_random_state(algorithm: Algorithm) -> Iterator[None]:
    """Restore all random streams afterwards, so that the following step draws the same numbers."""
    context = algorithm.context
    before = {name: generator.get_state() for name, generator in context.generators.items()}
    with torch.random.fork_rng(devices=[context.device] if context.device.type == "cuda" else []):
        yield
    for name in list(context.generators):
        if name in before:
            context.generators[name].set_state(before[name])
        else:
            del context.generators[name]  # the next call creates it again with the same seed


@contextmanager
def _with_straight_through(model: nn.Module) -> Iterator[None]:
    """Give every hard unit of ``model`` the saturated straight-through estimator."""
    originals = [(unit, unit.estimator) for _, unit in hard_units(model)]
    attach_estimator(model, SaturatedStraightThrough())
    try:
        yield
    finally:
        for unit, estimator in originals:
            unit.estimator = estimator
