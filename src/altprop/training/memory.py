"""Refuse a model that cannot fit the memory of this machine, before that memory is used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import is_lazy

from altprop.faults import is_out_of_memory
from altprop.problems import ConfigError, Problem

COPIES = 2
"""Training holds at least the parameters and their gradients."""
_OVERFLOW = "Storage size calculation overflowed"
_CGROUP = Path("/sys/fs/cgroup/memory.max")


def machine_memory() -> int:
    """The main memory of this machine in bytes, or the limit of its container if that is lower."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = _CGROUP.read_text().strip()
    except OSError:
        return memory
    return min(memory, int(limit)) if limit.isdigit() else memory


@contextmanager
def parameters_must_fit(device: torch.device, memory: int | None = None) -> Iterator[None]:
    """Raise ConfigError as soon as the modules built inside have more parameters than can be trained in ``memory`` bytes.

    ``memory`` is by default that of the machine and, on CUDA, also of the device.
    """
    limit = machine_memory() if memory is None else memory
    if device.type == "cuda":
        limit = min(limit, torch.cuda.get_device_properties(device).total_memory)
    total = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal total
        if parameter is not None and not parameter.is_meta and not is_lazy(parameter):
            total += parameter.numel() * parameter.element_size()
        if COPIES * total > limit:
            raise ConfigError([_too_large(f"and their gradients need more than the {limit / 2**30:.1f} GiB of")])

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error) or _OVERFLOW in str(error):
            raise ConfigError([_too_large("do not fit the")]) from error
        raise
    finally:
        handle.remove()


def _too_large(reason: str) -> Problem:
    return Problem("model", f"its parameters {reason} memory of this machine", "fewer or narrower layers")
