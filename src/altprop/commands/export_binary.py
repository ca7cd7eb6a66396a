"""The task ``export_binary``: write a trained binary network as files that need no altprop, checked against the network."""

from __future__ import annotations

import logging

from altprop.nn.export.binary import load_packed, save_packed, save_plain
from altprop.problems import ConfigError, Problem
from altprop.training.parts import Parts
from altprop.training.trained import load_trained, require_same_scores

log = logging.getLogger(__name__)

PACKED, PLAIN = "packed.safetensors", "float.safetensors"


def export_binary(parts: Parts, checkpoint: str = "auto") -> dict[str, int]:
    """Write ``export/packed.safetensors`` (one bit per binary weight) and ``export/float.safetensors`` (-1 and 1) of the run.

    The packed file is read back and must give exactly the run's scores on the test split. Returns the sizes in bytes. Raises
    ``ConfigError`` if there is no checkpoint or no layer is binary, and ``RunFailed`` if the scores differ.
    """
    run = load_trained(parts, checkpoint).run
    folder = parts.directory / "export"
    try:
        sizes = {PACKED: save_packed(run.algorithm.model, folder / PACKED)}
    except ValueError as error:
        fix = "algorithm/weights=binary"
        raise ConfigError([Problem("task", str(error), "a run whose weights are binary", fix)]) from error
    sizes[PLAIN] = save_plain(run.algorithm.model, folder / PLAIN)
    require_same_scores(parts, run, load_packed(folder / PACKED), folder / PACKED)
    log.info(
        "%s: %s bytes, %s: %s bytes, %.1f times as many; same scores on the test split",
        folder / PACKED, f"{sizes[PACKED]:,}", PLAIN, f"{sizes[PLAIN]:,}", sizes[PLAIN] / sizes[PACKED],
    )  # fmt: skip
    return sizes
