"""Torch's global settings that decide how numbers are computed. They hold for one process, so every process sets them."""

from __future__ import annotations

import os

import torch

from altprop.algorithms.context import Precision


def configure_numerics(precision: Precision, *, deterministic: bool) -> None:
    """Set TF32, the selection of convolution algorithms and determinism for this process.

    TF32 is on with ``precision="tf32"`` alone. With ``deterministic``, an operation without a deterministic kernel is an error.
    """
    tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
