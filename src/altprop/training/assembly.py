"""From parts to an algorithm that is ready: load the data, build the model, set up the algorithm. Nothing is written."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from altprop.algorithms.base import Algorithm
from altprop.algorithms.context import Context
from altprop.data.base import Data, LoadContext
from altprop.data.converted import converted
from altprop.nn.metrics.base import Metric, check_on_example
from altprop.nn.synchronized_batch_norm import synchronize_batch_norm
from altprop.nn.weights.base import WeightsRule
from altprop.nn.weights.saved_run import load_weights, own_tensors
from altprop.nn.weights.start import read_start_weights
from altprop.problems import ConfigError, Problem, message_of
from altprop.seeding import derive_seed
from altprop.training.cost import StepCosts
from altprop.training.device import choose_device, configure_torch, dtype_of, place_model, recorder_on, uses_channels_last
from altprop.training.memory import parameters_must_fit
from altprop.training.parts import DataSet, Parts
from altprop.training.plan import Plan, make_plan, steps_in_epoch
from altprop.training.single_images import single_image_problems

START = "model.weights_from"
"""Configuration key of the weights that a run starts from."""


@dataclass(frozen=True)
class Assembly:
    """A run that is ready to train or to evaluate."""

    algorithm: Algorithm
    data: Data
    context: Context
    plan: Plan
    costs: StepCosts


def assemble(parts: Parts, *, rank: int = 0, world_size: int = 1, start: bool = True, to_train: bool = False) -> Assembly:
    """Load the data, build the model from the random stream that the weights rule names, and set up the algorithm.

    With ``start``, the model gets the weights in ``model.weights_from``, if any; without, the caller loads a checkpoint. Raises
    ConfigError if they do not fit the model, and for other mistakes that only show with the model or the data; with ``to_train``
    also for those that would only show in training.
    """
    settings = parts.settings
    configure_torch(settings)
    device = choose_device(settings.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # new tensors, random states and streams are those of the current device
    data = load_data(parts, device, rank, world_size)
    torch.manual_seed(derive_seed(parts.seed, parts.algorithm.weights.initial_stream))
    with parameters_must_fit(device):
        model = parts.model_factory(input_shape=data.input_shape, num_classes=data.num_classes)
    refuse_lazy_layers(model)
    if start and START in parts.sources:
        start_from(parts.sources[START], model, parts.algorithm.weights)
    channels_last = uses_channels_last(settings.channels_last, model, device)
    model = place_model(model, device, channels_last, dtype_of(settings.precision))
    if settings.sync_batch_norm and world_size > 1:
        model = synchronize_batch_norm(model)
    check_metrics(parts.metrics, data.num_classes)
    steps_per_epoch = steps_in_epoch(settings, len(data.train))
    plan = make_plan(settings, steps_per_epoch, data.train.batch_size, parts.algorithm, model)
    costs = StepCosts(world_size)
    context = Context(
        steps_per_epoch=steps_per_epoch,
        total_epochs=plan.total_epochs,
        device=device,
        seed=parts.seed,
        input_shape=data.input_shape,
        num_classes=data.num_classes,
        batch_size=data.train.batch_size,
        precision=settings.precision,
        clip_norm=settings.clip_norm,
        accumulate=settings.accumulate,
        compile=settings.compile,
        channels_last=channels_last,
        deterministic=settings.deterministic,
        recorder=recorder_on(device, settings.cuda_graph),
        rank=rank,
        world_size=world_size,
        account=costs.of,
        metrics=parts.metrics,
    )
    if to_train and (problems := list(single_image_problems(parts, parts.algorithm, model, data.train, plan, context))):
        raise ConfigError(problems)
    with parameters_must_fit(device):
        parts.algorithm.setup(model, parts.optimizer_factory, parts.schedule, context)
    seed_globals(parts.seed)
    return Assembly(parts.algorithm, data, context, plan, costs)


def refuse_lazy_layers(model: nn.Module) -> None:
    """Raise ConfigError if a layer of ``model`` gets its shapes only from its first mini-batch, as ``nn.LazyLinear`` does."""
    tensors = (*model.named_parameters(), *model.named_buffers())
    names = dict.fromkeys(name.rpartition(".")[0] for name, tensor in tensors if is_lazy(tensor))
    if names:
        description = f"{', '.join(names)} get their shapes only from the first mini-batch"
        raise ConfigError([Problem("model", description, "layers with all sizes, such as nn.Linear in place of nn.LazyLinear")])


def left_out_line(rule: WeightsRule) -> str:
    """The line that names the weights of the model to which ``rule`` does not apply."""
    sizes = ", ".join(f"{name} ({size:,} weights)" for name, size in rule.left_out.items())
    return f"algorithm.weights: {type(rule).__name__} leaves out {sizes}; they stay as they are"


def start_from(path: str, model: nn.Module, rule: WeightsRule) -> None:
    """Copy the weights in ``path`` into ``model``, before ``rule`` is attached. Raises ConfigError if they do not fit."""
    weights = read_start_weights(path, model, START, with_masks=not rule.has_saved_mask)
    if weights.masked:
        rule.refuse_masks(str(weights.file), START)
    load_weights(own_tensors(model), weights.tensors, START)


def check_metrics(metrics: Mapping[str, Metric], num_classes: int) -> None:
    """Compute every metric once. Raises ConfigError for those that fail."""
    problems = []
    for name, metric in metrics.items():
        try:
            check_on_example(metric, num_classes)
        except Exception as error:  # a user's function may raise anything
            allowed = "a function of (scores [batch, classes], targets [batch]) or a class of torchmetrics"
            problems.append(Problem(f"metrics.{name}", f"{type(error).__name__}: {message_of(error)}", allowed))
    if problems:
        raise ConfigError(problems)


def load_data(parts: Parts, device: torch.device, rank: int = 0, world_size: int = 1, data_set: DataSet | None = None) -> Data:
    """Load the data of ``parts``, or ``data_set`` in its place, in the precision of the run."""
    data = (data_set or parts.data_set).load(load_context(parts, device, rank, world_size))
    dtype = dtype_of(parts.settings.precision)
    return data if dtype == torch.float32 else converted(data, dtype)


def load_context(parts: Parts, device: torch.device, rank: int = 0, world_size: int = 1) -> LoadContext:
    """How the data of ``parts`` is loaded. ``trainer.channels_last=auto`` leaves it plain; convolutions convert it."""
    return LoadContext(parts.data_root, device, parts.seed, parts.settings.channels_last is True, rank, world_size)


def seed_globals(seed: int) -> None:
    """Seed the global random streams for training (dropout, for instance), independently of what building the model drew.

    altprop draws from generators of its own. Python's and NumPy's streams are seeded for user code.
    """
    torch.manual_seed(derive_seed(seed, "noise"))
    random.seed(derive_seed(seed, "python"))
    np.random.seed(derive_seed(seed, "numpy") % 2**32)
