"""Find out before training whether a mini-batch of one image would stop a run, because batch norm cannot normalize it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from altprop.algorithms.base import Algorithm
from altprop.algorithms.context import Context, uncounted
from altprop.data.base import Split
from altprop.problems import Problem
from altprop.training.device import dtype_of
from altprop.training.parts import Parts
from altprop.training.plan import Plan

MESSAGE = "Expected more than 1 value per channel when training"
"""The beginning of torch's message."""
_EPOCHS = 20
"""Epochs that are tried, because some algorithms train other blocks in later epochs."""


def smallest_share(train: Split, plan: Plan, world_size: int) -> int:
    """Images of the smallest mini-batch that a process trains on."""
    full, rest = train.batch_size // world_size, train.num_samples % train.batch_size // world_size
    last_is_used = min(plan.steps_per_epoch, plan.total_steps) == len(train)
    return rest if rest and last_is_used else full


def single_image_problems(
    parts: Parts, algorithm: Algorithm, model: nn.Module, train: Split, plan: Plan, context: Context
) -> Iterator[Problem]:
    """Yield a problem if a process gets a mini-batch of one image and batch norm somewhere in the algorithm refuses it.

    ``algorithm``, ``model`` and ``context`` are those of the run before :meth:`.Algorithm.setup`. Copies of them train on one
    image, so local heads, synthesizers and the like are tried, too. Neither they nor the random streams change.
    """
    if smallest_share(train, plan, context.world_size) > 1 or not _stops(parts, algorithm, model, context):
        return
    allowed = "two images or more in every mini-batch, or a model without batch norm"
    if train.batch_size // context.world_size == 1:
        description = "each process trains on one image at a time, which batch norm cannot normalize"
        yield Problem("dataset.batch_size", description, allowed, f"dataset.batch_size={2 * context.world_size}")
        return
    share = "a single image" if context.world_size == 1 else "a single image for each process"
    description = f"the last mini-batch of an epoch has {share}, which batch norm cannot normalize"
    sizes = f"{train.num_samples} training images, {train.batch_size} at a time"
    yield Problem("dataset.batch_size", f"{description} ({sizes})", allowed, "dataset.drop_last=true")


def _stops(parts: Parts, algorithm: Algorithm, model: nn.Module, context: Context) -> bool:
    """Whether training on a single image raises torch's exception. Whatever else fails is left to the run itself."""
    devices = [context.device] if context.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        try:
            algorithm, model = copy.deepcopy(algorithm), copy.deepcopy(model)
            alone = replace(
                context, steps_per_epoch=1, compile=False, recorder=None, rank=0, world_size=1, account=uncounted, generators={}
            )
            algorithm.setup(model, parts.optimizer_factory, parts.schedule, alone)
        except Exception:
            return False
        image = torch.zeros(1, *context.input_shape, device=context.device, dtype=dtype_of(context.precision))
        target = torch.zeros(1, dtype=torch.int64, device=context.device)
        try:
            for epoch in range(min(context.total_epochs, _EPOCHS)):
                algorithm.epoch_start(epoch)
                algorithm.train_step(image, target)
                algorithm.epoch_end(epoch)
        except Exception as error:
            return isinstance(error, ValueError) and str(error).startswith(MESSAGE)
        finally:
            algorithm.close()
    return False
