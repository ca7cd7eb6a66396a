"""The alignment probe: how far the update that an algorithm makes points along the gradient of the loss, layer by layer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

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
"""Their scales and shifts are no layers of their own here."""

TrainStep = Callable[[Tensor, Tensor], dict[str, Tensor]]
"""A call of :meth:`Algorithm.train_step`, with whatever else is done around it."""


class AlignmentProbe:
    """Makes training steps of ``algorithm`` and compares what they do with the gradient; training goes on as if it did not.

    The update direction is what the algorithm hands to its optimizers: ``.grad`` averaged over ranks and unscaled, before the
    weights rule's penalties, clipping, momentum and decay; summed where a step updates a parameter several times. The gradient is
    :meth:`Algorithm.reference_gradient` on the same mini-batch with the weights and the random numbers of the moment before the
    step, in full precision, with saturated straight-through behind hard units, whose own derivative is zero.
    """

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm
        self.alignments: dict[str, float] = {}
        """Of the last :meth:`step`: ``alignment/angle/<layer>`` in degrees, ``alignment/norm_ratio/<layer>``.

        Layers without an update in this step or with a gradient that is zero or not finite are left out.
        """
        self.seconds = 0.0
        """What the last :meth:`step` took beyond training."""

    def step(self, inputs: Tensor, targets: Tensor, train_step: TrainStep | None = None) -> dict[str, Tensor]:
        """Make ``train_step``, by default the algorithm's own, and note its alignments; returns what it returns."""
        started = self._now()
        gradients = self._reference(inputs, targets)
        self.seconds = self._now() - started
        with self._recording() as updates:
            metrics = (train_step or self.algorithm.train_step)(inputs, targets)
        started = self._now()
        named = self.algorithm.model.named_parameters()  # in forward order, whatever the order of the updates
        directions = {name: updates[parameter] for name, parameter in named if parameter in updates}
        self.alignments = alignments(self.algorithm.model, directions, gradients)
        self.seconds += self._now() - started
        return metrics

    def _reference(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        algorithm = self.algorithm
        with _random_numbers_kept(algorithm), frozen_statistics(algorithm.model), _straight_through(algorithm.model):
            gradients = algorithm.reference_gradient(inputs, targets)
        if algorithm.context.world_size > 1:
            for gradient in gradients.values():
                torch.distributed.all_reduce(gradient)
                gradient /= algorithm.context.world_size
        return gradients

    @contextmanager
    def _recording(self) -> Iterator[dict[nn.Parameter, Tensor]]:
        """Collects the gradients of all optimizer steps inside."""
        updates: dict[nn.Parameter, Tensor] = {}

        def record(parameters: Iterable[nn.Parameter]) -> None:
            for parameter in parameters:
                if parameter.grad is not None:
                    gradient = parameter.grad.detach()
                    updates[parameter] = updates[parameter] + gradient if parameter in updates else gradient.clone()

        for optimizer in self.algorithm.optimizers:
            optimizer.observer = record
        try:
            yield updates
        finally:
            for optimizer in self.algorithm.optimizers:
                optimizer.observer = None

    def _now(self) -> float:
        if self.algorithm.context.device.type == "cuda":
            torch.cuda.synchronize(self.algorithm.context.device)
        return time.perf_counter()


def alignments(model: nn.Module, updates: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> dict[str, float]:
    """Angle in degrees and norm ratio of ``updates`` to ``gradients``, both by parameter of ``model``, as metrics by layer.

    A layer is a module's weights and biases together. Waits for the device.
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
        found = align(update, gradient)
        values = (float(found.angle), float(found.norm_ratio))
        if all(math.isfinite(value) for value in values):  # in fp16, steps that overflow are skipped
            metrics[ANGLE + layer], metrics[NORM_RATIO + layer] = values
    return metrics


def layer_of(parameter: str) -> str:
    """The module that the parameter called ``parameter`` belongs to, be it parametrized or not."""
    return (
        parameter.partition("parametrizations.")[0].rstrip(".")
        if "parametrizations." in parameter
        else parameter.rpartition(".")[0]
    )


@contextmanager
def _random_numbers_kept(algorithm: Algorithm) -> Iterator[None]:
    """Whatever is drawn inside is drawn again by the step that follows."""
    context = algorithm.context
    before = {name: generator.get_state() for name, generator in context.generators.items()}
    with torch.random.fork_rng(devices=[context.device] if context.device.type == "cuda" else []):
        yield
    for name in list(context.generators):
        if name in before:
            context.generators[name].set_state(before[name])
        else:
            del context.generators[name]  # made anew, with the same seed, when it is asked for


@contextmanager
def _straight_through(model: nn.Module) -> Iterator[None]:
    """Saturated straight-through behind every hard unit of ``model``."""
    own = [(unit, unit.estimator) for _, unit in hard_units(model)]
    attach_estimator(model, SaturatedStraightThrough())
    try:
        yield
    finally:
        for unit, estimator in own:
            unit.estimator = estimator
