"""The device of a run, and torch's global settings for it."""

from __future__ import annotations

import torch
from torch import nn

from altprop.algorithms.graphs import KEY, OFF
from altprop.algorithms.numerics import configure_numerics
from altprop.algorithms.recorder import CudaRecorder, Recorder
from altprop.allocator import keep_freed_memory
from altprop.nn.units.base import hard_units
from altprop.problems import ConfigError, Problem, RunFailed
from altprop.training.settings import TrainerSettings


def choose_device(name: str) -> torch.device:
    """The device ``name``; ``auto`` is cuda, else mps, else cpu. Raises :class:`RunFailed` if this machine does not have it."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RunFailed(
            f"trainer.device={name}: this machine has {torch.cuda.device_count()} CUDA devices; try trainer.device=cpu"
        )
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())  # the one of this process, if several train the run
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise RunFailed("trainer.device=mps: this machine does not have it; try trainer.device=cpu")
    return device


def configure_torch(settings: TrainerSettings) -> None:
    """Set threads, the allocation of memory, TF32, kernel selection and determinism for this process."""
    keep_freed_memory()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    configure_numerics(settings.precision, deterministic=settings.deterministic)


def uses_channels_last(setting: bool | str, model: nn.Module, device: torch.device) -> bool:
    """Whether ``trainer.channels_last`` asks for the channels-last memory format.

    ``auto`` does on CUDA if ``model`` has convolutions and all units are graded: rounding would flip hard units.
    """
    if setting != "auto":
        return bool(setting)
    convolutions = any(isinstance(module, nn.Conv2d) for module in model.modules())
    return device.type == "cuda" and convolutions and not any(True for _ in hard_units(model))


def recorder_on(device: torch.device, cuda_graph: bool) -> Recorder | None:
    """What captures steps in CUDA graphs, if ``cuda_graph`` asks for it. Raises :class:`ConfigError` on other devices."""
    if not cuda_graph:
        return None
    if device.type != "cuda":
        raise ConfigError([Problem(KEY, "true needs a CUDA device", "false on other devices", OFF)])
    return CudaRecorder(device)


def dtype_of(precision: str) -> torch.dtype:
    """The type of parameters and images in ``trainer.precision``; autocast keeps both in float32."""
    return torch.float64 if precision == "fp64" else torch.float32


def place_model(model: nn.Module, device: torch.device, channels_last: bool, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Move ``model`` to ``device``, with ``channels_last`` its 4-d weights to the channels-last memory format.

    Its parameters are converted to ``dtype`` if that is not float32, the type in which models are made.
    """
    model = model.to(device) if dtype == torch.float32 else model.to(device, dtype)
    return model.to(memory_format=torch.channels_last) if channels_last else model  # type: ignore[call-overload]
