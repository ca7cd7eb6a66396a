"""A trained run, rebuilt from its parts and one of its checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from altprop.checkpoint_files import BEST, LAST, find_checkpoint
from altprop.nn.export.plain import without_parametrizations
from altprop.nn.fused_attention import without_fused_attention
from altprop.problems import ConfigError, Problem, RunFailed
from altprop.tensor_file import BadCheckpoint
from altprop.training.assembly import Assembly, assemble
from altprop.training.checkpoint import Checkpoint, read_checkpoint
from altprop.training.device import dtype_of, place_model
from altprop.training.parts import Parts
from altprop.training.saving import load_state


@dataclass(frozen=True)
class Trained:
    """A run with the weights of a checkpoint, and that checkpoint."""

    run: Assembly
    path: Path
    state: Mapping[str, Any]


def load_trained(parts: Parts, checkpoint: str) -> Trained:
    """The run of ``parts`` with the state of its checkpoint ``last``, ``best`` or ``auto``.

    Raises ConfigError if there is no such checkpoint and RunFailed if it is damaged or belongs to another run.
    """
    path = choose_checkpoint(parts.directory / "checkpoints", checkpoint)
    try:
        state = read_checkpoint(path, parts.key)
    except BadCheckpoint as error:
        raise RunFailed(str(error)) from error
    run = assemble(parts, start=False)
    load_state(run.algorithm, Checkpoint(path, state))
    return Trained(run, path, state)


def choose_checkpoint(folder: Path, name: str) -> Path:
    """The checkpoint file ``last`` or ``best``; ``auto`` is the best one if the run selected one, else the last."""
    for file in {"last": (LAST,), "best": (BEST,), "auto": (BEST, LAST)}[name]:
        if (path := find_checkpoint(folder, file)) is not None:
            return path
    there = ", ".join(sorted(path.stem for path in folder.glob("*.pt"))) or "none"
    raise ConfigError([Problem("checkpoint", f"{name} is not in {folder}", f"available: {there}", "checkpoint=last")])


def require_same_scores(parts: Parts, run: Assembly, exported: Mapping[str, Tensor], path: Path) -> None:
    """Check that a plain model with the weights ``exported``, read back from ``path``, gives exactly the run's scores.

    Compares on the test split. Raises RunFailed if any score differs.
    """
    model = parts.model_factory(input_shape=run.data.input_shape, num_classes=run.data.num_classes)
    model = without_parametrizations(model)  # a norm of the weights is part of the exported ones
    dtype = dtype_of(parts.settings.precision)
    model = place_model(model, run.context.device, run.context.channels_last, dtype).eval()
    model.load_state_dict(exported)
    with run.algorithm.inference(), without_fused_attention(), _constant(model), _constant(run.algorithm.model):
        for inputs, _ in run.data.test.batches():
            if not torch.equal(model(inputs), run.algorithm.model(inputs)):
                raise RunFailed(f"{path} gives other scores than the run when it is read back")


@contextmanager
def _constant(model: nn.Module) -> Iterator[None]:
    """Make no parameter of ``model`` require a gradient.

    torch multiplies some inputs with such a weight in another way, which rounds differently on some processors. Weights that a
    rule computes never require one here.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
