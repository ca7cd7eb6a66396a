"""Fused optimizers, which update all parameters in one kernel, and learning rates that their kernels read on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
"""Optimizers with a fused CUDA kernel in every supported version of torch."""
DEVICES = ("cuda",)
"""Types of devices on which these optimizers are fused unless the configuration says otherwise."""


def fused_on(device: torch.device, factory: Callable[..., torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """Return ``factory`` with ``fused=True`` on CUDA, if it makes one of :data:`FUSED` and does not choose otherwise.

    A factory that sets ``fused``, ``foreach`` or ``differentiable`` has chosen. Fused kernels round differently.
    """
    arguments = getattr(factory, "keywords", {})
    has_chosen = arguments.get("differentiable") or any(arguments.get(name) is not None for name in ("fused", "foreach"))
    if device.type not in DEVICES or has_chosen or getattr(factory, "func", factory) not in FUSED:
        return factory
    return partial(factory, fused=True)


def is_fused(optimizer: torch.optim.Optimizer) -> bool:
    """Whether ``optimizer`` is one of :data:`FUSED` and updates all its parameters with the fused kernel."""
    return type(optimizer) in FUSED and all(group.get("fused") for group in optimizer.param_groups)


def with_own_kernels(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the saved ``state`` of an optimizer, fused or not as ``optimizer`` is.

    A checkpoint says whether the optimizer that wrote it was fused, but a run may resume on another kind of device.
    """
    own = [{"fused": group["fused"]} if "fused" in group else {} for group in optimizer.param_groups]
    return {**state, "param_groups": [{**saved, **mine} for saved, mine in zip(state["param_groups"], own, strict=True)]}


class DeviceRates:
    """The learning rates of a fused optimizer as scalars on its device, one for each parameter group.

    A CUDA graph repeats its kernels with the same arguments, so the rate has to be in memory that the kernel reads. Schedules and
    checkpoints see numbers as usual: tensors take their place only during a step. CUDA kernels read float32. Eager steps use the
    same tensors, so that they round alike.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        self.optimizer = optimizer
        self.values = [float(group["lr"]) for group in self.groups]
        dtype = torch.float64 if device.type == "cpu" else torch.float32
        self.tensors = [torch.full((), value, dtype=dtype, device=device) for value in self.values]

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The parameter groups, which are other objects after the optimizer's state was loaded."""
        return self.optimizer.param_groups

    def refresh(self) -> None:
        """Copy the rates that have changed to the device. Does not wait for it."""
        for index, group in enumerate(self.groups):
            if group["lr"] != self.values[index]:
                self.values[index] = group["lr"]
                self.tensors[index].fill_(self.values[index])

    @contextmanager
    def in_place(self, *, capturing: bool) -> Iterator[None]:
        """Give the optimizer the tensors instead of numbers. ``capturing``: also allow Adam to be captured in a CUDA graph."""
        numbers: list[Any] = [group["lr"] for group in self.groups]
        for group, rate in zip(self.groups, self.tensors, strict=True):
            group["lr"] = rate
            if capturing and "capturable" in group:
                group["capturable"] = True
        try:
            yield
        finally:
            for group, number in zip(self.groups, numbers, strict=True):
                group["lr"] = number
                if capturing and "capturable" in group:
                    group["capturable"] = False
