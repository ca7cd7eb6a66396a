"""A finished run, put together again from its parts and one of its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from altprop.problems import ConfigError, Problem, RunFailed
from altprop.training.assembly import Assembly, assemble
from altprop.training.checkpoint import BEST, LAST, BadCheckpoint, read_checkpoint
from altprop.training.device import place_model
from altprop.training.parts import Parts


@dataclass(frozen=True)
class Trained:
    """A run with the weights of a checkpoint in it, and that checkpoint."""

    run: Assembly
    path: Path
    state: Mapping[str, Any]


def load_trained(parts: Parts, checkpoint: str) -> Trained:
    """The run of ``parts`` as its checkpoint ``last``, ``best`` or ``auto`` holds it.

    Raises ConfigError where there is no such checkpoint, RunFailed where it is damaged or foreign.
    """
    path = choose_checkpoint(parts.directory / "checkpoints", checkpoint)
    try:
        state = read_checkpoint(path, parts.key)
    except BadCheckpoint as error:
        raise RunFailed(str(error)) from error
    run = assemble(parts)
    run.algorithm.load_state_dict(state["algorithm"])
    return Trained(run, path, state)


def choose_checkpoint(folder: Path, wanted: str) -> Path:
    """The checkpoint file called ``last`` or ``best``; ``auto`` is the best one where the run chose one."""
    names = {"last": (LAST,), "best": (BEST,), "auto": (BEST, LAST)}[wanted]
    for name in names:
        if (folder / name).exists():
            return folder / name
    there = ", ".join(sorted(path.stem for path in folder.glob("*.pt"))) or "none"
    raise ConfigError([Problem("checkpoint", f"{wanted} is not in {folder}", f"there: {there}", "checkpoint=last")])


def require_same_scores(parts: Parts, run: Assembly, exported: Mapping[str, Tensor], path: Path) -> None:
    """A plain model with the weights ``exported``, read back from ``path``, must give the run's scores on the test split exactly.

    Raises RunFailed where it does not.
    """
    model = parts.model_factory(input_shape=run.data.input_shape, num_classes=run.data.num_classes)
    model.load_state_dict(exported)
    model = place_model(model, run.context.device, parts.settings.channels_last).eval()
    with run.algorithm.inference():
        for inputs, _ in run.data.test.batches():
            if not torch.equal(model(inputs), run.algorithm.model(inputs)):
                raise RunFailed(f"{path} read back gives other scores than the run")
