"""Ranges of the arguments of torch's classes, whose own signatures say ``float`` and ``int`` only.

They hold for every optimizer, scheduler, loss and activation of torch that has an argument of that name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from altprop.ranges import (
    LARGEST_COEFFICIENT,
    Epsilon,
    FiniteFloat,
    LearningRate,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PositiveLearningRate,
    PositiveShare,
    Probability,
    Share,
    WeightDecay,
)

_Divisor = Annotated[float, Ge(1), Le(LARGEST_COEFFICIENT)]

OPTIMIZERS: Mapping[str, Any] = {
    "lr": LearningRate | Tensor,
    "betas": tuple[Share, Share],
    "eps": Epsilon,
    "weight_decay": WeightDecay,
    "momentum": Share,
    "dampening": Probability,
    "alpha": Probability,
    "lambd": NonNegativeFloat,
    "rho": Probability,
    "lr_decay": NonNegativeFloat,
    "initial_accumulator_value": NonNegativeFloat,
    "momentum_decay": NonNegativeFloat,
    "t0": NonNegativeFloat,
    "beta2_decay": Annotated[float, Ge(-1), Le(0)],
    "d": PositiveFloat,
    "etas": tuple[PositiveShare, Annotated[float, Ge(1), Le(1000)]],
    "step_sizes": tuple[PositiveFloat, PositiveFloat],
    "ns_coefficients": tuple[FiniteFloat, FiniteFloat, FiniteFloat],
    "ns_steps": Annotated[int, Ge(1), Le(99)],
}
"""Argument of a class of ``torch.optim`` -> its type with a range."""

SCHEDULERS: Mapping[str, Any] = {
    "T_max": PositiveInt,
    "T_0": PositiveInt,
    "T_mult": PositiveInt,
    "eta_min": LearningRate,
    "gamma": NonNegativeFloat,
    "milestones": Sequence[NonNegativeInt],
    "step_size": PositiveInt,
    "step_size_up": PositiveInt,
    "step_size_down": PositiveInt | None,
    "last_epoch": Literal[-1],
    "max_lr": PositiveLearningRate | list[PositiveLearningRate],
    "base_lr": PositiveLearningRate | list[PositiveLearningRate],
    "min_lr": LearningRate | list[LearningRate],
    "total_steps": PositiveInt | None,
    "total_iters": PositiveInt,
    "epochs": PositiveInt | None,
    "steps_per_epoch": PositiveInt | None,
    "pct_start": Probability,
    "base_momentum": Share | list[Share],
    "max_momentum": Share | list[Share],
    "div_factor": _Divisor,
    "final_div_factor": _Divisor,
    "factor": Annotated[float, Gt(0), Lt(1)],
    "start_factor": PositiveShare,
    "end_factor": Probability,
    "power": NonNegativeFloat,
    "patience": NonNegativeInt,
    "cooldown": NonNegativeInt,
    "threshold": NonNegativeFloat,
    "eps": Epsilon,
}
"""Argument of a class of ``torch.optim.lr_scheduler`` -> its type with a range."""

LOSSES: Mapping[str, Any] = {
    "weight": Tensor | None,
    "ignore_index": Annotated[int, Ge(-(10**9)), Le(10**9)],
    "label_smoothing": Share,
    "margin": FiniteFloat,
    "reduction": Literal["mean", "sum"],
    "size_average": bool | None,
    "reduce": bool | None,
}
"""Argument of a loss of ``torch.nn`` -> its type with a range."""

UNITS: Mapping[str, Any] = {
    "alpha": PositiveFloat,
    "approximate": Literal["none", "tanh"],
    "beta": PositiveFloat,
    "lambd": NonNegativeFloat,
    "max_val": FiniteFloat,
    "min_val": FiniteFloat,
    "max_value": FiniteFloat | None,
    "min_value": FiniteFloat | None,
    "negative_slope": FiniteFloat,
    "p": Probability,
    "threshold": FiniteFloat,
    "value": FiniteFloat,
    "lower": Probability,
    "upper": Probability,
    "init": FiniteFloat,
    "num_parameters": PositiveInt,
}
"""Argument of an activation of ``torch.nn`` -> its type with a range."""


def ranges_of(target: Callable[..., Any]) -> Mapping[str, Any]:
    """The arguments of torch's class ``target`` with their types; empty for classes of other packages."""
    if not isinstance(target, type) or target.__module__.partition(".")[0] != "torch":
        return {}
    if issubclass(target, Optimizer):
        return OPTIMIZERS
    if issubclass(target, LRScheduler):
        return SCHEDULERS
    if target.__module__ == "torch.nn.modules.loss":
        return LOSSES
    return UNITS if issubclass(target, nn.Module) and target.__module__ == "torch.nn.modules.activation" else {}
