"""The device of a run, and torch's global settings for it."""

from __future__ import annotations

import os

import torch
from torch import nn

from altprop.problems import RunFailed
from altprop.training.settings import TrainerSettings


def choose_device(name: str) -> torch.device:
    """The device ``name``; ``auto`` is cuda, else mps, else cpu. Raises :class:`RunFailed` if this machine does not have it."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RunFailed(
            f"trainer.device={name}: this machine has {torch.cuda.device_count()} CUDA devices; try trainer.device=cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise RunFailed("trainer.device=mps: this machine does not have it; try trainer.device=cpu")
    return device


def configure_torch(settings: TrainerSettings) -> None:
    """Set threads, TF32, kernel selection and determinism for this process."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    tf32 = settings.precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = not settings.deterministic
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(settings.deterministic)


def place_model(model: nn.Module, device: torch.device, channels_last: bool) -> nn.Module:
    """Move ``model`` to ``device``, with ``channels_last`` its 4-d weights to the channels-last memory format."""
    model = model.to(device)
    return model.to(memory_format=torch.channels_last) if channels_last else model  # type: ignore[call-overload]
