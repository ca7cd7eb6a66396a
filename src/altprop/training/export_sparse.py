"""The task ``export_sparse``: a trained sparse network as a small file, checked against the network itself."""

from __future__ import annotations

import logging

import torch

from altprop.nn.export_binary import save_plain
from altprop.nn.export_sparse import load_sparse, save_sparse
from altprop.problems import ConfigError, Problem, RunFailed
from altprop.training.assembly import assemble
from altprop.training.checkpoint import BadCheckpoint, read_checkpoint
from altprop.training.device import place_model
from altprop.training.evaluate_run import choose_checkpoint
from altprop.training.parts import Parts

log = logging.getLogger(__name__)

SPARSE, PLAIN = "sparse.safetensors", "float.safetensors"


def export_sparse(parts: Parts, checkpoint: str = "auto") -> dict[str, int]:
    """Write ``export/sparse.safetensors`` (masks and non-zeros) and ``export/float.safetensors`` (all weights) of the run.

    The sparse file is read back and must give exactly the run's scores on the test split. Returns the sizes in bytes. Raises
    ``ConfigError`` where there is no checkpoint or no layer is sparse, ``RunFailed`` where the scores differ.
    """
    try:
        state = read_checkpoint(choose_checkpoint(parts.directory / "checkpoints", checkpoint), parts.key)
    except BadCheckpoint as error:
        raise RunFailed(str(error)) from error
    run = assemble(parts)
    run.algorithm.load_state_dict(state["algorithm"])
    folder = parts.directory / "export"
    try:
        sizes = {SPARSE: save_sparse(run.algorithm.model, folder / SPARSE)}
    except ValueError as error:
        mend = "algorithm/weights=static_sparse"
        raise ConfigError([Problem("task", str(error), "a run whose weights are sparse", mend)]) from error
    sizes[PLAIN] = save_plain(run.algorithm.model, folder / PLAIN)
    model = parts.model_factory(input_shape=run.data.input_shape, num_classes=run.data.num_classes)
    model.load_state_dict(load_sparse(folder / SPARSE))
    model = place_model(model, run.context.device, parts.settings.channels_last).eval()
    with run.algorithm.inference():
        for inputs, _ in run.data.test.batches():
            if not torch.equal(model(inputs), run.algorithm.model(inputs)):
                raise RunFailed(f"{folder / SPARSE} read back gives other scores than the run")
    log.info(
        "%s: %s bytes, %s: %s bytes, %.1f times as many; same scores on the test split",
        folder / SPARSE, f"{sizes[SPARSE]:,}", PLAIN, f"{sizes[PLAIN]:,}", sizes[PLAIN] / sizes[SPARSE],
    )  # fmt: skip
    return sizes
