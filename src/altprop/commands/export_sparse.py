"""The task ``export_sparse``: write a trained sparse network as a small file, checked against the network."""

from __future__ import annotations

import logging

from altprop.nn.export.binary import save_plain
from altprop.nn.export.sparse import load_sparse, save_sparse
from altprop.problems import ConfigError, Problem
from altprop.training.parts import Parts
from altprop.training.trained import load_trained, require_same_scores

log = logging.getLogger(__name__)

SPARSE, PLAIN = "sparse.safetensors", "float.safetensors"


def export_sparse(parts: Parts, checkpoint: str = "auto") -> dict[str, int]:
    """Write ``export/sparse.safetensors`` (masks and non-zeros) and ``export/float.safetensors`` (all weights) of the run.

    The sparse file is read back and must give exactly the run's scores on the test split. Returns the sizes in bytes. Raises
    ``ConfigError`` if there is no checkpoint or no layer is sparse, and ``RunFailed`` if the scores differ.
    """
    run = load_trained(parts, checkpoint).run
    folder = parts.directory / "export"
    try:
        sizes = {SPARSE: save_sparse(run.algorithm.model, folder / SPARSE)}
    except ValueError as error:
        fix = "algorithm/weights=static_sparse"
        raise ConfigError([Problem("task", str(error), "a run whose weights are sparse", fix)]) from error
    sizes[PLAIN] = save_plain(run.algorithm.model, folder / PLAIN)
    require_same_scores(parts, run, load_sparse(folder / SPARSE), folder / SPARSE)
    log.info(
        "%s: %s bytes, %s: %s bytes, %.1f times as many; same scores on the test split",
        folder / SPARSE, f"{sizes[SPARSE]:,}", PLAIN, f"{sizes[PLAIN]:,}", sizes[PLAIN] / sizes[SPARSE],
    )  # fmt: skip
    return sizes
