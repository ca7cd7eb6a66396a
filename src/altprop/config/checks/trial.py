"""Try the units, the optimizer and the schedule on tiny parameters, so that what torch refuses is reported early."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from hydra.utils import instantiate
from torch import nn

from altprop.algorithms.context import Context
from altprop.algorithms.schedule import RunningSchedule
from altprop.names import with_public_names
from altprop.problems import Problem, message_of
from altprop.training.duration import Duration

_STEPS_PER_EPOCH = 100


def units_problems(config: Mapping[str, Any]) -> Iterator[Problem]:
    """The problem of ``model.units`` if the class refuses its arguments, which the model would only meet while it is built."""
    units = config["model"].get("units")
    if not isinstance(units, Mapping) or "_target_" not in units:
        return
    try:
        instantiate(with_public_names(units), _convert_="all")()
    except Exception as error:  # a class of torch or of the user may raise anything for its arguments
        yield Problem("model.units", _reason(error), f"arguments that {units['_target_']} accepts")


def check(config: Mapping[str, Any], *, with_schedule: bool) -> Iterator[Problem]:
    """The problems that the optimizer and then the schedule raise."""
    try:
        optimizer = instantiate(config["optimizer"], _convert_="all")([nn.Parameter(torch.zeros(2, 2))])
    except Exception as error:  # a class of torch or of the user may raise anything for its arguments
        yield Problem("optimizer", _reason(error), f"arguments that {config['optimizer']['_target_']} accepts")
        return
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        name = type(optimizer).__name__
        yield Problem("optimizer._target_", f"{name} evaluates the loss several times per step", "any other class of torch.optim")
        return
    if (problem := _step_problem(config["optimizer"])) is not None:
        yield problem
        return
    if not with_schedule:
        return
    if (problem := _rate_problem(config, optimizer)) is not None:
        yield problem
        return
    epochs = Duration.parse(config["trainer"]["duration"]).epochs(_STEPS_PER_EPOCH)
    context = Context(
        steps_per_epoch=_STEPS_PER_EPOCH,
        total_epochs=epochs,
        device=torch.device("cpu"),
        seed=0,
        input_shape=(1, 1, 1),
        num_classes=2,
        batch_size=1,
    )
    try:
        schedule = instantiate(config["schedule"], _convert_="all").build(optimizer, context)
        cycles = config["trainer"]["cuda_graph"] and _cycles_momentum(schedule, optimizer)
    except Exception as error:
        yield Problem("schedule", _reason(error), "arguments that the class of the scheduler accepts")
        return
    if cycles:
        description = "changes the momentum, which a CUDA graph has fixed"
        fix = "schedule.scheduler.cycle_momentum=false"
        yield Problem(
            "schedule.scheduler", description, "a schedule of the learning rate alone, or trainer.cuda_graph=false", fix
        )


def _rate_problem(config: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> Problem | None:
    """The problem of a lowest rate that is above the rate that the schedule lowers."""
    scheduler = config["schedule"].get("scheduler") or {}
    layers = config["algorithm"].get("learning_rates")
    rates = [float(rate) for rate in layers if isinstance(rate, (int, float))] if isinstance(layers, (list, tuple)) else []
    rates += [float(group["lr"]) for group in optimizer.param_groups]
    for name, highest in (("eta_min", max(rates)), ("min_lr", max(rates)), ("base_lr", scheduler.get("max_lr"))):
        lowest = scheduler.get(name)
        if isinstance(lowest, (int, float)) and isinstance(highest, (int, float)) and lowest > highest:
            above = "schedule.scheduler.max_lr" if name == "base_lr" else "optimizer.lr"
            description = f"{lowest} is above the highest rate, {highest:g} ({above})"
            key = f"schedule.scheduler.{name}"
            return Problem(key, description, f"at most {highest:g}", f"{key}={highest / 10:g}")
    return None


def _cycles_momentum(schedule: RunningSchedule, optimizer: torch.optim.Optimizer) -> bool:
    """Whether one advance of ``schedule`` changes the momentum of ``optimizer``, as cyclic schedules do."""

    def momenta() -> list[Any]:
        return [(group.get("momentum"), group.get("betas")) for group in optimizer.param_groups]

    before = momenta()
    optimizer.step()
    schedule.step_end()
    schedule.epoch_end()
    return momenta() != before


def _step_problem(node: Mapping[str, Any]) -> Problem | None:
    """The problem of an optimizer that cannot update the parameters of networks: Muon takes only matrices, SparseAdam only
    sparse gradients.
    """
    shapes = {"matrices": (2, 2), "vectors, such as biases": (2,), "kernels of convolutions": (2, 2, 1, 1)}
    name = node["_target_"].rpartition(".")[2]
    for kind, shape in shapes.items():
        parameter = nn.Parameter(torch.ones(shape))
        parameter.grad = torch.ones(shape)
        try:
            optimizer = instantiate(node, _convert_="all")([parameter])
            if not node.get("capturable"):  # its step needs a CUDA device
                optimizer.step()
        except Exception as error:  # a class of torch or of the user may raise anything
            return Problem(
                "optimizer._target_",
                f"{name} cannot train {kind}: {_reason(error)}",
                "an optimizer that takes parameters of every shape with dense gradients, such as adam or sgd",
                "optimizer=adam",
            )
    return None


def _reason(error: Exception) -> str:
    return message_of(error.__cause__ or error)
