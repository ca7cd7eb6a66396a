"""The task ``export_binary``: a trained binary network as files that need no altprop, checked against the network itself."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from altprop.nn.export_binary import load_packed, save_packed, save_plain
from altprop.problems import ConfigError, Problem, RunFailed
from altprop.training.assembly import Assembly, assemble
from altprop.training.checkpoint import BadCheckpoint, read_checkpoint
from altprop.training.device import place_model
from altprop.training.evaluate_run import choose_checkpoint
from altprop.training.parts import Parts

log = logging.getLogger(__name__)

PACKED, PLAIN = "packed.safetensors", "float.safetensors"


def export_binary(parts: Parts, checkpoint: str = "auto") -> dict[str, int]:
    """Write ``export/packed.safetensors`` (one bit per binary weight) and ``export/float.safetensors`` (-1 and 1) of the run.

    The packed file is read back and must give exactly the run's scores on the test split. Returns the sizes in bytes. Raises
    ``ConfigError`` where there is no checkpoint or no layer is binary, ``RunFailed`` where the scores differ.
    """
    try:
        state = read_checkpoint(choose_checkpoint(parts.directory / "checkpoints", checkpoint), parts.key)
    except BadCheckpoint as error:
        raise RunFailed(str(error)) from error
    run = assemble(parts)
    run.algorithm.load_state_dict(state["algorithm"])
    folder = parts.directory / "export"
    try:
        sizes = {PACKED: save_packed(run.algorithm.model, folder / PACKED)}
    except ValueError as error:
        mend = "algorithm/weights=binary"
        raise ConfigError([Problem("task", str(error), "a run whose weights are binary", mend)]) from error
    sizes[PLAIN] = save_plain(run.algorithm.model, folder / PLAIN)
    _compare(parts, run, folder / PACKED)
    log.info(
        "%s: %s bytes, %s: %s bytes, %.1f times as many; same scores on the test split",
        folder / PACKED, f"{sizes[PACKED]:,}", PLAIN, f"{sizes[PLAIN]:,}", sizes[PLAIN] / sizes[PACKED],
    )  # fmt: skip
    return sizes


def _compare(parts: Parts, run: Assembly, path: Path) -> None:
    model = parts.model_factory(input_shape=run.data.input_shape, num_classes=run.data.num_classes)
    model.load_state_dict(load_packed(path))
    model = place_model(model, run.context.device, parts.settings.channels_last).eval()
    with run.algorithm.inference():
        for inputs, _ in run.data.test.batches():
            if not torch.equal(model(inputs), run.algorithm.model(inputs)):
                raise RunFailed(f"{path} read back gives other scores than the run")
